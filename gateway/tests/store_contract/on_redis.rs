//! The suite's way to Redis, and what Redis holds inside.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use roomgate::store::{
    Action, EventSink, Op, SharedStore, StoreError, StoreLimits,
    redis::{RedisConfig, RedisStore, Secret},
};
use roomgate_shared::{
    ids::{NodeId, RoomId},
    keys,
};

use super::{
    governance::{configure, moderate},
    harness::*,
    redis_server::RedisServer,
};

/// All nodes of all tests share one server.
pub(crate) struct Redis;

/// The server that tests share; gone with the process.
pub(crate) fn server() -> &'static RedisServer {
    static SERVER: OnceLock<RedisServer> = OnceLock::new();
    SERVER.get_or_init(RedisServer::start)
}

/// A configuration for a server.
pub(crate) fn config(url: &str, index: usize, limits: StoreLimits) -> RedisConfig {
    RedisConfig {
        url: Secret::new(url),
        timeout: Duration::from_secs(5),
        max_retries: 10,
        retry_delay: Duration::from_millis(50),
        wait_replicas: 0,
        lease: Duration::from_secs(10),
        node: NodeId::new(format!("gw-{}-{index}", std::process::id())).unwrap(),
        limits,
    }
}

impl Backend for Redis {
    const NODES: usize = 3;
    const HEARS_ALL: bool = false;

    /// A server of one test's own.
    type World = RedisServer;

    fn world() -> Self::World {
        RedisServer::start()
    }

    async fn store(index: usize, limits: StoreLimits, sink: Arc<dyn EventSink>) -> SharedStore {
        Self::store_in(server(), index, limits, sink).await
    }

    async fn store_in(
        world: &Self::World,
        index: usize,
        limits: StoreLimits,
        sink: Arc<dyn EventSink>,
    ) -> SharedStore {
        let store = RedisStore::new(config(&world.url(), index, limits), sink).unwrap();
        store.boot(PATIENCE).await.unwrap();
        store
    }
}

/// The key of a room's part.
fn part_of(room: &RoomId, part: &str) -> String {
    let keys = keys::room(room);
    let end = format!("}}:{part}");
    keys.iter().find(|key| key.ends_with(&end)).unwrap().clone()
}

fn exists(key: &str) -> bool {
    server().ask(&["EXISTS", key]).trim() == "1"
}

/// Every key of the room has its type, and a life between `least` and `most` seconds.
fn check_keys(room: &RoomId, least: i64, most: i64) {
    let kinds = [
        ("meta", "hash"),
        ("state", "hash"),
        ("users", "hash"),
        ("seen", "zset"),
        ("messages", "zset"),
        ("message", "hash"),
        ("log", "zset"),
        ("away", "zset"),
        ("positions", "hash"),
    ];
    for (part, kind) in kinds {
        let key = &part_of(room, part);
        if exists(key) {
            assert_eq!(server().ask(&["TYPE", key]).trim(), kind, "{key}");
            let life: i64 = server().ask(&["PTTL", key]).trim().parse().unwrap();
            assert!((least * 1000..=most * 1000).contains(&life), "{key}: {life} ms");
        }
    }
    let listed = server().ask(&["KEYS", &format!("room:{{{room}}}:*")]);
    let known = keys::room(room);
    for key in listed.lines().filter(|line| !line.is_empty()) {
        let life: i64 = server().ask(&["PTTL", key]).trim().parse().unwrap();
        assert!(life > 0, "{key} has no life");
        assert!(known.iter().any(|known| known == key), "{key}");
    }
}

#[tokio::test]
async fn every_key_has_a_life_after_every_operation() {
    let (node, room) = (node::<Redis>().await, new_room());
    // Without messages the room lives for an hour from its last change, with them as long as they do; and a sixtieth of
    // an hour longer at most.
    let hour = 3600;
    let before = [
        enter("u1", 1),
        presence("u1", &[("a", "1")], &[]),
        patch(&[("a", "1")], &[]),
        patch(&[], &["a"]),
        patch(&[("a", "1")], &[]),
        broadcast("u1", "{}"),
        positions(&[("u1", "{\"x\":1}")]),
        positions(&[("u1", "{\"x\":2}")]),
        lose("u1", 1),
        Op::Sweep,
        come_back(&[("u1", 1)]),
        lose("u1", 1),
        enter("u1", 1),
        Op::Active {
            users: vec![user("u1")],
        },
        Op::Bury {
            node: "gone~00000000".to_owned(),
            cursor: String::new(),
        },
        leave("u1", 1),
        enter("u2", 2),
        state(None),
    ];
    for op in before {
        node.one(&room, op.clone()).await.unwrap();
        check_keys(&room, hour - 5, hour + 61);
        assert!(exists(&keys::room(&room)[0]), "{op:?}");
    }
    node.apply(&room, (0..40).map(|_| send("u1", "1")).collect())
        .await;
    let after = [
        send("u1", "1"),
        leave("u2", 2),
        patch(&[], &["a"]),
        enter("u3", 3),
        positions(&[("u3", "{\"x\":1}")]),
        lose("u3", 3),
        patch(&[("b", "1")], &[]),
    ];
    for op in after {
        node.one(&room, op).await.unwrap();
        check_keys(&room, 24 * hour - 5, 24 * hour + 61);
    }
    let score = || server().ask(&["ZSCORE", keys::ROOMS, room.as_str()]);
    let end: f64 = server()
        .ask(&["HGET", &keys::room(&room)[0], "end"])
        .trim()
        .parse()
        .unwrap();
    eventually("the registry knows the room's end", || async {
        score().trim().parse() == Ok(end)
    })
    .await;
}

#[tokio::test]
async fn places_have_a_life_whoever_comes_and_goes() {
    let (node, room) = (node::<Redis>().await, new_room());
    node.apply(&room, vec![enter("u1", 1), enter("u2", 2)]).await;
    let moved = |id: &str| positions(&[(id, "{\"x\":1}")]);
    let [.., places, _] = keys::room(&room);
    // The only place goes, and comes again, in all ways.
    for (batch, there) in [
        (vec![moved("u1"), leave("u1", 1)], false),
        (vec![moved("u2")], true),
        (vec![enter("u1", 1), moved("u1"), leave("u2", 2)], true),
        (vec![leave("u1", 1), enter("u1", 1), moved("u1")], true),
        (vec![leave("u1", 1), enter("u1", 1)], false),
        (vec![moved("u1")], true),
        (vec![moved("u1"), leave("u1", 1), enter("u1", 1)], false),
        (vec![moved("u1")], true),
    ] {
        node.apply(&room, batch.clone()).await;
        assert_eq!(exists(&places), there, "{batch:?}");
        check_keys(&room, 3595, 3661);
    }
}

#[tokio::test]
async fn a_room_ends_unless_it_is_used() {
    let ms = Duration::from_millis;
    let limits = StoreLimits {
        active_ttl: ms(600),
        retention: ms(600),
        ..StoreLimits::default()
    };
    let (node, room) = (node_with::<Redis>(limits).await, new_room());
    let start = tokio::time::Instant::now();
    let epoch = node.joined(&room, enter("u1", 1)).await.epoch;
    while start.elapsed() < ms(1200) {
        node.ack(&room, send("u1", "1")).await;
        tokio::time::sleep(ms(20)).await;
    }
    assert_eq!(node.joined(&room, Op::tail(since(&epoch, 0))).await.epoch, epoch);
    let all = || server().ask(&["KEYS", &format!("room:{{{room}}}:*")]);
    eventually("nothing is left", || async { all().trim().is_empty() }).await;
    assert!(node.one(&room, send("u1", "1")).await.is_err());
    assert_ne!(node.joined(&room, enter("u1", 1)).await.epoch, epoch);
}

#[tokio::test]
async fn a_tail_keeps_a_room() {
    let ms = Duration::from_millis;
    let limits = StoreLimits {
        active_ttl: ms(600),
        ..StoreLimits::default()
    };
    let (node, room) = (node_with::<Redis>(limits).await, new_room());
    let epoch = node.joined(&room, enter("u1", 1)).await.epoch;
    let start = tokio::time::Instant::now();
    while start.elapsed() < ms(1200) {
        assert!(node.joined(&room, Op::tail(since(&epoch, 1))).await.recovered);
        tokio::time::sleep(ms(20)).await;
    }
    check_keys(&room, 0, 1);
}

#[tokio::test]
async fn messages_past_retention_are_purged() {
    let limits = StoreLimits {
        retention: Duration::from_millis(200),
        ..StoreLimits::default()
    };
    let (node, room) = (node_with::<Redis>(limits).await, new_room());
    node.joined(&room, enter("u1", 1)).await;
    node.apply(&room, (0..40).map(|_| send("u1", "1")).collect())
        .await;
    let [messages, message] = ["messages", "message"].map(|part| part_of(&room, part));
    eventually("old messages are gone from both keys", || async {
        node.apply(&room, (0..16).map(|_| broadcast("u1", "1")).collect())
            .await;
        !exists(&messages) && !exists(&message)
    })
    .await;
    node.ack(&room, send("u1", "1")).await;
    check_keys(&room, 1, 3700);
}

#[tokio::test]
async fn what_is_left_of_a_room_without_meta_is_not_found_again() {
    let (node, room) = (node::<Redis>().await, new_room());
    node.apply(
        &room,
        vec![enter("u1", 1), send("u1", "1"), patch(&[("a", "1")], &[])],
    )
    .await;
    server().ask(&["DEL", &keys::room(&room)[0]]);
    assert!(node.one(&room, state(None)).await.is_err());
    let picture = snapshot(&node.one(&room, enter("u2", 2)).await);
    assert_eq!(
        (
            picture.seq,
            picture.members,
            picture.messages.len(),
            picture.state.len()
        ),
        (1, 1, 0, 0)
    );
    check_keys(&room, 3595, 3661);
}

#[tokio::test]
async fn a_damaged_room_says_so_and_changes_nothing() {
    let (node, well) = (node::<Redis>().await, new_room());
    node.joined(&well, enter("u1", 1)).await;
    let parts = [
        "meta",
        "state",
        "users",
        "seen",
        "messages",
        "message",
        "log",
        "away",
        "positions",
    ];
    for part in parts {
        let room = new_room();
        node.apply(
            &room,
            vec![enter("u1", 1), send("u1", "1"), patch(&[("a", "1")], &[])],
        )
        .await;
        let (keys, damaged) = (keys::room(&room), part_of(&room, part));
        server().ask(&["SET", &damaged, "damaged"]);
        let dump = || -> Vec<String> { keys.iter().map(|key| server().ask(&["DUMP", key])).collect() };
        let before = dump();
        // Everything that this key has to do with.
        let batch = vec![
            enter("u2", 2),
            patch(&[("b", "1")], &[]),
            send("u1", "2"),
            presence("u1", &[("a", "1")], &[]),
            history(None, None, 5),
            list(None, 5),
            positions(&[("u1", "{\"x\":1}")]),
            lose("u1", 1),
        ];
        let result = node.store.apply(&room, batch).await;
        assert!(
            matches!(result, Err(StoreError::Damaged(_))),
            "{damaged}: {result:?}"
        );
        assert_eq!(dump(), before, "{damaged}");
    }
    for (part, op) in [
        ("messages", moderate(Action::Mute, "u1", Some(60_000))),
        ("messages", configure(&[("retentionHours", "1")], &[])),
        ("mutes", moderate(Action::Mute, "u1", None)),
        ("bans", moderate(Action::Ban, "u1", None)),
        ("cooldowns", Op::Sweep),
    ] {
        let room = new_room();
        node.apply(&room, vec![enter("u1", 1), send("u1", "1")]).await;
        node.ack(&room, configure(&[("capacity", "9")], &[])).await;
        let mut all = keys::room(&room).to_vec();
        let key = |part: &str| format!("room:{{{room}}}:{part}");
        all.extend(["bans", "mutes", "cooldowns"].map(key));
        server().ask(&["SET", &key(part), "damaged"]);
        let dump = || -> Vec<String> { all.iter().map(|key| server().ask(&["DUMP", key])).collect() };
        let before = dump();
        let result = node.store.apply(&room, vec![op.clone()]).await;
        assert!(
            matches!(result, Err(StoreError::Damaged(_))),
            "{part} {op:?}: {result:?}"
        );
        assert_eq!(dump(), before, "{part} {op:?}");
    }
    for (field, junk) in [("seq", "x"), ("active", ""), ("end", "-"), ("version", "x")] {
        let room = new_room();
        node.joined(&room, enter("u1", 1)).await;
        server().ask(&["HSET", &keys::room(&room)[0], field, junk]);
        let result = node.store.apply(&room, vec![enter("u2", 1)]).await;
        assert!(
            matches!(result, Err(StoreError::Damaged(_))),
            "{field}: {result:?}"
        );
    }
    for junk in [
        "",
        "{",
        "[]",
        "1",
        "{\"name\":1}",
        "{\"name\":\"n\",\"joinedAt\":1,\"presence\":{},\"conns\":1}",
    ] {
        let room = new_room();
        node.joined(&room, enter("u1", 1)).await;
        server().ask(&["HSET", &keys::room(&room)[2], "u1", junk]);
        for op in [
            enter("u1", 2),
            enter("u2", 2),
            lose("u1", 1),
            presence("u1", &[("a", "1")], &[]),
        ] {
            let result = node.store.apply(&room, vec![send("u1", "1"), op.clone()]).await;
            assert!(
                matches!(result, Err(StoreError::Damaged(_))),
                "{junk}, {op:?}: {result:?}"
            );
        }
        assert_eq!(server().ask(&["HGET", &keys::room(&room)[0], "seq"]).trim(), "1");
    }
    node.ack(&well, send("u1", "1")).await;
}

#[tokio::test]
async fn meta_counts() {
    let (node, room) = (node::<Redis>().await, new_room());
    node.apply(
        &room,
        vec![
            enter("u1", 1),
            enter("u2", 2),
            leave("u2", 2),
            enter("u2", 2),
            enter("u2", 3),
        ],
    )
    .await;
    node.apply(
        &room,
        vec![send("u1", "1"), send("u1", "1"), broadcast("u1", "1")],
    )
    .await;
    let field = |name: &str| {
        server()
            .ask(&["HGET", &keys::room(&room)[0], name])
            .trim()
            .to_owned()
    };
    let count = |name: &str| field(name).parse::<u64>().unwrap();
    assert_eq!((count("peak"), count("joins")), (2, 3));
    assert_eq!(count("seq") - count("others"), 2);
    assert_eq!(
        (field("status"), field("config")),
        ("active".to_owned(), "{}".to_owned())
    );
    assert!(count("created") <= count("active"));
}

#[tokio::test]
async fn what_a_room_demands_lives_as_long_as_the_room_and_goes_with_it() {
    use super::governance::{configure, moderate, status};
    use roomgate::store::Action;
    use roomgate_shared::protocol::command::RoomStatus;

    let (node, room) = (node::<Redis>().await, new_room());
    let epoch = node.joined(&room, enter("u1", 1)).await.epoch;
    node.ack(&room, send("u1", "1")).await;
    node.ack(&room, configure(&[("cooldownMs.messages", "60000")], &[]))
        .await;
    node.ack(&room, moderate(Action::Ban, "u2", None)).await;
    node.ack(&room, moderate(Action::Mute, "u3", Some(5_000))).await;
    node.ack(&room, send("u1", "2")).await;
    let life = |key: &String| -> i64 { server().ask(&["PTTL", key]).trim().parse().unwrap() };
    let [bans, mutes, cooldowns] = &keys::rules(&room);
    let meta = life(&part_of(&room, "meta"));
    for key in [bans, mutes] {
        assert!(
            (life(key) - meta).abs() < 2_000,
            "{key}: {} and {meta}",
            life(key)
        );
    }
    assert!((1..=60_000).contains(&life(cooldowns)));
    node.ack(&room, status(RoomStatus::Completed)).await;
    let seq = node.picture(&room).await["seq"].as_u64().unwrap();
    node.ack(
        &room,
        Op::Remove {
            at: since(&epoch, seq),
        },
    )
    .await;
    for key in keys::room(&room).iter().take(11).chain(&keys::rules(&room)) {
        assert!(!exists(key), "{key}");
    }
    eventually("no index names it", async || {
        let named = |index| server().ask(&["ZSCORE", index, room.as_str()]).trim().is_empty();
        named(keys::ROOMS) && named(keys::DUE)
    })
    .await;
}

#[tokio::test]
async fn a_registry_that_is_lost_is_rebuilt() {
    let (server, heard) = (RedisServer::start(), Arc::new(Recorder::default()));
    let sink = Arc::clone(&heard) as Arc<dyn EventSink>;
    let store = Redis::store_in(&server, 0, StoreLimits::default(), sink).await;
    let node = Node { store, heard };
    let rooms: Vec<RoomId> = (0..1_200).map(|_| new_room()).collect();
    for room in &rooms {
        node.joined(room, enter("u1", 1)).await;
    }
    let count = |index: &str| server.ask(&["ZCARD", index]).trim().to_owned();
    eventually("all are written down", async || count(keys::ROOMS) == "1200").await;
    server.ask(&["SET", "room:{stray}:meta", "no room"]);
    for index in ["", keys::ROOMS, keys::DUE] {
        server.ask(&["DEL", index]);
        // Rooms in use make the key anew, with what they know.
        server.ask(&["ZADD", keys::ROOMS, "GT", "9000000000000", rooms[0].as_str()]);
        server.ask(&["ZADD", keys::DUE, "0", rooms[0].as_str()]);
        node.store.look_after().await.unwrap();
        // And the mark that it is whole.
        assert_eq!(
            (count(keys::ROOMS).as_str(), count(keys::DUE).as_str()),
            ("1201", "1201")
        );
    }
    assert_eq!(node.claim(2_000, Duration::from_secs(1)).await.len(), 1_200);
    let end = server.ask(&["HGET", &keys::room(&rooms[7])[0], "end"]);
    assert_eq!(
        server.ask(&["ZSCORE", keys::ROOMS, rooms[7].as_str()]).trim(),
        end.trim()
    );
}
