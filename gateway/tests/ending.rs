//! A room's end: completed under load, archived whole, gone, and opened again.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use roomgate_shared::{ids::RoomId, keys, protocol::event::ServerFrame};
use serde_json::{Value, json};
use support::{
    client::{Client, DEADLINE},
    cluster::{Cluster, Store},
    tokens::{SECRET, token},
    told::since,
    wait::eventually,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

const ROOM: &str = "match-17";

struct Scene {
    cluster: Cluster,
    archive: tempfile::TempDir,
}

impl Scene {
    /// `folder`: where archives go, below one of the test's own.
    async fn open(store: Store, gateways: usize, folder: &str) -> Self {
        let archive = tempfile::tempdir().unwrap();
        let url = archive.path().join(folder);
        let envs = [
            ("JWT_SECRET", SECRET),
            ("ARCHIVE_URL", url.to_str().unwrap()),
            ("SWEEP_INTERVAL_SECONDS", "1"),
        ];
        let cluster = Cluster::start(store, gateways, &envs).await;
        Self { cluster, archive }
    }

    async fn client(&self, gateway: usize, user: &str) -> Client {
        let gateways = &self.cluster.gateways;
        Client::connect_with(
            gateways[gateway % gateways.len()].addr,
            &token(user, json!({"*": ["*"]})),
        )
        .await
    }

    /// Archives that are there.
    fn archives(&self) -> Vec<String> {
        fn walk(folder: &Path, out: &mut Vec<String>) {
            for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
                if entry.path().is_dir() {
                    walk(&entry.path(), out);
                } else {
                    out.push(entry.path().display().to_string());
                }
            }
        }
        let mut all = Vec::new();
        walk(self.archive.path(), &mut all);
        all.retain(|path| path.ends_with(".json.gz"));
        all
    }

    /// The room's keys that Redis still has.
    fn left_in_redis(&self) -> Vec<String> {
        let Some(redis) = &self.cluster.redis else {
            return Vec::new();
        };
        let room = RoomId::new(ROOM).unwrap();
        let mut all = keys::room(&room).to_vec();
        all.extend(keys::rules(&room));
        all.retain(|key| redis.ask(&["EXISTS", key]).trim() == "1");
        all
    }

    /// Waits until the room is archived and gone.
    async fn gone(&self) {
        eventually("the room is archived and gone", async || {
            self.archives().len() == 1 && self.left_in_redis().is_empty()
        })
        .await;
    }
}

/// The answer to a join that opens the room again. Its archive is there a moment before it is gone from memory.
async fn reopened(client: &mut Client) -> Value {
    let end = tokio::time::Instant::now() + DEADLINE;
    loop {
        let answer = client.ask("join", ROOM, json!({})).await;
        if answer.kind == "ack" {
            return answer.data;
        }
        assert_eq!(answer.data["code"], "room_closed");
        assert!(tokio::time::Instant::now() < end, "not opened again in time");
    }
}

/// A user that writes until the room is completed. What was acknowledged, by message id.
async fn write(mut client: Client) -> BTreeMap<String, Value> {
    let mut acknowledged = BTreeMap::new();
    let mut number = 0;
    loop {
        number += 1;
        let answer = client
            .ask("message.send", ROOM, json!({"body": {"n": number, "f": 1.0}}))
            .await;
        if answer.kind == "error" {
            assert_eq!(answer.data["code"], "room_closed", "{}", answer.data);
            return acknowledged;
        }
        let message = answer.data["message"].clone();
        acknowledged.insert(message["id"].as_str().unwrap().to_owned(), message);
    }
}

/// All messages of the room, oldest first.
async fn history(client: &mut Client) -> Vec<Value> {
    let (mut all, mut before) = (Vec::new(), Value::Null);
    loop {
        let page = client
            .ack("message.history", ROOM, json!({"before": before, "limit": 200}))
            .await;
        let mut some = page["messages"].as_array().unwrap().clone();
        some.append(&mut all);
        all = some;
        if page["before"].is_null() {
            return all;
        }
        before = page["before"].clone();
    }
}

async fn completed_under_load(store: Store) {
    let scene = Scene::open(store, 2, "rooms").await;
    let mut owner = scene.client(0, "owner").await;
    let presence = json!({"presence": {"colour": "red"}});
    owner.ack("join", ROOM, presence).await;
    owner
        .ack(
            "state.patch",
            ROOM,
            json!({"set": {"phase": "play", "board": [[0, 1.5], {}]}}),
        )
        .await;
    let config = json!({"name": "Match 17", "features": {"ranked": true}, "capacity": 20});
    owner.ack("room.configure", ROOM, config).await;
    owner
        .ack("user.ban", ROOM, json!({"user": "cheat", "reason": "aimbot"}))
        .await;
    owner
        .ack(
            "user.mute",
            ROOM,
            json!({"user": "loud", "durationMs": 3_600_000}),
        )
        .await;
    owner.ack("move", ROOM, json!({"x": 4, "y": 7.5})).await;
    let mut writers = Vec::new();
    for number in 0..4 {
        let mut client = scene.client(number, &format!("w{number}")).await;
        client.ack("join", ROOM, json!({"messages": 0})).await;
        writers.push(tokio::spawn(write(client)));
    }
    let mut watcher = scene.client(1, "watcher").await;
    let joined = watcher.ack("join", ROOM, json!({})).await;
    // In the middle of it all.
    watcher
        .until(|frame| frame.seq > joined["seq"].as_u64().map(|seq| seq + 200))
        .await;
    let before = owner.ack("state.get", ROOM, json!({})).await;
    let seq = owner
        .ack("room.status", ROOM, json!({"status": "completed"}))
        .await["seq"]
        .clone();
    let mut acknowledged = BTreeMap::new();
    for writer in writers {
        acknowledged.append(&mut writer.await.unwrap());
    }
    assert!(acknowledged.len() > 100, "{}", acknowledged.len());
    // Its end is the last that members hear of it.
    let end = watcher.event("room.status", ROOM).await;
    assert_eq!(
        (end.seq, &end.data),
        (seq.as_u64(), &json!({"status": "completed"}))
    );
    assert_eq!(
        watcher.refused("message.history", ROOM, json!({})).await,
        "room_closed"
    );
    scene.gone().await;
    // Who has not heard of the end is told; who means a new beginning opens it again.
    assert_eq!(watcher.refused("join", ROOM, since(&joined)).await, "room_closed");
    let mut again = scene.client(1, "owner").await;
    let restored = reopened(&mut again).await;
    assert_eq!(restored["state"], before["state"]);
    assert_eq!(restored["version"], before["version"]);
    let config = json!({"name": "Match 17", "features": {"ranked": true}, "capacity": 20});
    assert_eq!(
        restored["room"],
        json!({"id": ROOM, "status": "active", "config": config})
    );
    assert!(restored["seq"].as_u64() > seq.as_u64());
    assert_ne!(restored["epoch"], joined["epoch"]);
    assert_eq!(restored["you"]["presence"], json!({"colour": "red"}));
    assert_eq!(restored["you"]["position"], json!({"x": 4, "y": 7.5}));
    let messages = history(&mut again).await;
    let found: BTreeMap<String, Value> = messages
        .iter()
        .map(|message| (message["id"].as_str().unwrap().to_owned(), message.clone()))
        .collect();
    assert_eq!(
        found, acknowledged,
        "every message that was acknowledged, and no other"
    );
    assert!(messages.is_sorted_by_key(|message| message["seq"].as_u64()));
    let mut cheat = scene.client(0, "cheat").await;
    assert_eq!(cheat.refused("join", ROOM, json!({})).await, "banned");
    let mut loud = scene.client(0, "loud").await;
    loud.ack("join", ROOM, json!({})).await;
    assert_eq!(
        loud.refused("message.send", ROOM, json!({"body": 1})).await,
        "muted"
    );
    // And it goes on.
    again.ack("message.send", ROOM, json!({"body": "new"})).await;
}

#[tokio::test]
async fn a_room_completed_under_load_comes_back_equal_in_memory() {
    completed_under_load(Store::Memory).await;
}

#[tokio::test]
async fn a_room_completed_under_load_comes_back_equal_over_redis() {
    completed_under_load(Store::Redis).await;
}

#[tokio::test]
async fn an_archive_that_cannot_be_written_keeps_the_room() {
    // A folder below a regular file: nobody can make it, not even root.
    let scene = Scene::open(Store::Redis, 2, "blocked/rooms").await;
    let blocked = scene.archive.path().join("blocked");
    // It can be asked (there is none), so that the room can be made; not written.
    let mut owner = scene.client(0, "owner").await;
    owner.ack("join", ROOM, json!({})).await;
    fs::write(&blocked, "in the way").unwrap();
    owner.ack("state.patch", ROOM, json!({"set": {"a": 1}})).await;
    let sent = owner.ack("message.send", ROOM, json!({"body": "kept"})).await;
    owner
        .ack("room.status", ROOM, json!({"status": "completed"}))
        .await;
    let room = RoomId::new(ROOM).unwrap();
    let redis = scene.cluster.redis.as_ref().unwrap();
    let [meta, ..] = keys::room(&room);
    let trouble = || redis.ask(&["HGET", &meta, "trouble"]).trim().to_owned();
    eventually("why is written down", async || {
        trouble().contains("cannot be written")
    })
    .await;
    assert!(
        scene
            .cluster
            .gateways
            .iter()
            .any(|gateway| gateway.log().contains("could not be archived"))
    );
    let mut late = scene.client(1, "late").await;
    assert_eq!(late.refused("join", ROOM, json!({})).await, "room_closed");
    assert!(
        redis.ask(&["HLEN", &keys::room(&room)[5]]).trim() == "1",
        "the message is there"
    );
    // The gateway that completed it is gone; another one tries until it can.
    let mut scene = scene;
    scene.cluster.gateways.remove(0);
    fs::remove_file(&blocked).unwrap();
    scene.gone().await;
    let restored = late.ack("join", ROOM, json!({})).await;
    assert_eq!(restored["state"], json!({"a": 1}));
    assert_eq!(restored["messages"], json!([sent["message"]]));
}

#[tokio::test]
async fn a_room_that_is_left_alone_may_be_archived() {
    let archive = tempfile::tempdir().unwrap();
    let envs = [
        ("JWT_SECRET", SECRET),
        ("ARCHIVE_URL", archive.path().to_str().unwrap()),
        ("SWEEP_INTERVAL_SECONDS", "1"),
        ("REDIS_TTL_ACTIVE_ROOM", "1"),
        ("PRESENCE_GRACE_SECONDS", "1"),
    ];
    let cluster = Cluster::start(Store::Redis, 1, &envs).await;
    let scene = Scene { cluster, archive };
    let mut owner = scene.client(0, "owner").await;
    owner.ack("join", ROOM, json!({})).await;
    owner
        .ack("room.configure", ROOM, json!({"archiveIdle": true}))
        .await;
    owner.ack("state.patch", ROOM, json!({"set": {"a": 1}})).await;
    owner.close().await;
    scene.gone().await;
    let mut again = scene.client(0, "owner").await;
    assert_eq!(again.ack("join", ROOM, json!({})).await["state"], json!({"a": 1}));
}

/// A bucket (S3's protocol) that is empty and takes what is written to it without ever answering. How many have tried.
async fn silent_bucket() -> (String, Arc<AtomicUsize>) {
    const EMPTY: &str =
        "<?xml version=\"1.0\"?><ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>";
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let writes = Arc::new(AtomicUsize::new(0));
    let counted = writes.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let counted = counted.clone();
            tokio::spawn(async move {
                let mut head = Vec::new();
                while stream.read_buf(&mut head).await.is_ok_and(|read| read > 0) {
                    if !head.starts_with(b"GET") {
                        counted.fetch_add(1, Ordering::Relaxed);
                        std::future::pending::<()>().await;
                    }
                    if head.ends_with(b"\r\n\r\n") {
                        let answer = format!(
                            "HTTP/1.1 200 OK\r\ncontent-type: application/xml\r\ncontent-length: {}\r\n\r\n{EMPTY}",
                            EMPTY.len()
                        );
                        stream.write_all(answer.as_bytes()).await.unwrap();
                        head.clear();
                    }
                }
            });
        }
    });
    (format!("http://{address}"), writes)
}

#[tokio::test]
async fn an_archive_that_does_not_answer_holds_up_no_other_room() {
    let (endpoint, writes) = silent_bucket().await;
    let envs = [
        ("JWT_SECRET", SECRET),
        ("ARCHIVE_URL", "s3://bucket"),
        ("AWS_ENDPOINT", endpoint.as_str()),
        ("AWS_ALLOW_HTTP", "true"),
        ("AWS_ACCESS_KEY_ID", "test"),
        ("AWS_SECRET_ACCESS_KEY", "test"),
        ("AWS_REGION", "us-east-1"),
        ("SWEEP_INTERVAL_SECONDS", "1"),
        ("PRESENCE_GRACE_SECONDS", "1"),
    ];
    let mut cluster = Cluster::start(Store::Redis, 2, &envs).await;
    let all = |user: &str| token(user, json!({"*": ["*"]}));
    let mut owner = Client::connect_with(cluster.gateways[0].addr, &all("owner")).await;
    let mut lost = Client::connect_with(cluster.gateways[0].addr, &all("lost")).await;
    owner.ack("join", "well", json!({})).await;
    lost.ack("join", "well", json!({})).await;
    // More than are archived at once; by a gateway that dies over it, so that the other one has them all.
    let mut closer = Client::connect_with(cluster.gateways[1].addr, &all("closer")).await;
    for number in 0..8 {
        let room = format!("ended-{number}");
        closer.ack("join", &room, json!({})).await;
        closer
            .ack("room.status", &room, json!({"status": "completed"}))
            .await;
    }
    drop(cluster.gateways.pop());
    let begun = writes.load(Ordering::Relaxed);
    eventually("archives are begun", async || {
        writes.load(Ordering::Relaxed) >= begun + 4
    })
    .await;
    for round in 0..3 {
        drop(lost);
        let gone = |frame: &ServerFrame| {
            frame.room.as_deref() == Some("well") && frame.data["left"][0]["reason"] == "timeout"
        };
        owner.until(gone).await;
        // Also after the sweep has come by the rooms that wait.
        lost = Client::connect_with(cluster.gateways[0].addr, &all("lost")).await;
        lost.ack("join", "well", json!({ "messages": round })).await;
    }
}
