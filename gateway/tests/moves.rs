//! Positions: gathered into frames, none too often, the latest for everybody in the end, and kept with the room.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use roomgate_shared::protocol::event::ServerFrame;
use serde_json::{Value, json};
use support::{
    client::{Client, DEADLINE},
    cluster::{Cluster, Store},
    crowd::Mute,
    process::Gateway,
    raw::{self, Ws},
    redis_server::RedisServer,
    wait::eventually,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::{JoinHandle, JoinSet},
    time::{Instant, Interval, MissedTickBehavior, interval},
};

const ROOM: &str = "r";

/// How fast somebody moves: 100 times a second, five times as often as others are told.
fn pace() -> Interval {
    let mut pace = interval(Duration::from_millis(10));
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    pace
}

async fn step(client: &mut Client, data: &Value) {
    let command = json!({"type": "move", "room": ROOM, "data": data});
    client.send_text(command.to_string()).await;
}

/// What a member knows of the others' places.
struct Map {
    own: String,
    places: BTreeMap<String, Value>,
    frames: usize,
    /// Nobody is ever seen to go back.
    is_strict: bool,
}

impl Map {
    fn new(own: &str) -> Self {
        Self {
            own: own.to_owned(),
            places: BTreeMap::new(),
            frames: 0,
            is_strict: true,
        }
    }

    /// Takes a frame, if it is one of moves.
    fn take(&mut self, frame: &ServerFrame) -> bool {
        if frame.kind != "moves" {
            assert!(frame.kind != "error", "{frame:?}");
            return false;
        }
        assert_eq!(
            (frame.room.as_deref(), frame.seq, frame.ts),
            (Some(ROOM), None, None)
        );
        assert!(frame.id.is_none() && frame.by.is_none(), "{frame:?}");
        let moved = frame.data.as_object().unwrap();
        assert!(!moved.is_empty(), "an empty frame");
        assert!(!moved.contains_key(&self.own), "its own place: {frame:?}");
        for (user, place) in moved {
            let before = self.places.insert(user.clone(), place.clone());
            let before = before.map_or(0, |place| place["n"].as_u64().unwrap());
            assert!(
                !self.is_strict || place["n"].as_u64().unwrap() >= before,
                "{frame:?}"
            );
        }
        self.frames += 1;
        true
    }

    /// Reads until every one of these is where it is.
    async fn until(&mut self, client: &mut Client, expected: &BTreeMap<String, Value>) {
        let others = expected.iter().filter(|(user, _)| **user != self.own);
        let others: BTreeMap<_, _> = others
            .map(|(user, place)| (user.clone(), place.clone()))
            .collect();
        while self.places != others {
            self.take(&client.next().await);
        }
    }
}

/// Counts the changes of a key, by Redis's own word on it.
struct Changes {
    task: JoinHandle<()>,
    count: Arc<std::sync::atomic::AtomicU64>,
}

impl Changes {
    async fn of(redis: &RedisServer, key: &str) -> Self {
        redis.ask(&["CONFIG", "SET", "notify-keyspace-events", "Kh"]);
        let mut stream = TcpStream::connect(("127.0.0.1", redis.port())).await.unwrap();
        let channel = format!("__keyspace@0__:{key}");
        stream
            .write_all(format!("SUBSCRIBE {channel}\r\n").as_bytes())
            .await
            .unwrap();
        let mut bytes = Vec::new();
        while !bytes.ends_with(b":1\r\n") {
            assert_ne!(stream.read_buf(&mut bytes).await.unwrap(), 0);
        }
        let count = Arc::<std::sync::atomic::AtomicU64>::default();
        let counted = Arc::clone(&count);
        let task = tokio::spawn(async move {
            let mut text = Vec::new();
            while stream.read_buf(&mut text).await.is_ok_and(|bytes| bytes > 0) {
                let all = String::from_utf8_lossy(&text);
                let sets = all.matches("\r\nhset\r\n").count() as u64;
                counted.store(sets, std::sync::atomic::Ordering::Relaxed);
            }
        });
        Self { task, count }
    }

    fn count(&self) -> u64 {
        assert!(!self.task.is_finished());
        self.count.load(std::sync::atomic::Ordering::Relaxed)
    }
}

impl Drop for Changes {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Positions of a list of users.
fn placed(list: &Value) -> BTreeMap<String, Value> {
    let users = list.as_array().unwrap().iter();
    let known = users.filter(|user| !user["position"].is_null());
    known
        .map(|user| (user["id"].as_str().unwrap().to_owned(), user["position"].clone()))
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_users_move_on_two_nodes() {
    const USERS: usize = 20;
    const STEPS: u64 = 250;
    let cluster = Cluster::start(Store::Redis, 2, &[]).await;
    let redis = cluster.redis.as_ref().unwrap();
    let mut clients = Vec::new();
    let mut place = Value::Null;
    for number in 0..USERS {
        let mut client = cluster.client(number, &format!("u{number}")).await;
        place = client.ack("join", ROOM, json!({})).await;
        clients.push(client);
    }
    let writes = Changes::of(redis, "room:{r}:positions").await;
    let last = |number: usize| json!({"n": STEPS, "u": number, "x": 0.5});
    let all: BTreeMap<String, Value> = (0..USERS).map(|n| (format!("u{n}"), last(n))).collect();
    let start = Instant::now();
    let mut work = JoinSet::new();
    for (number, mut client) in clients.into_iter().enumerate() {
        let all = all.clone();
        work.spawn(async move {
            let (mut map, mut pace) = (Map::new(&format!("u{number}")), pace());
            for n in 1..STEPS {
                step(&mut client, &json!({"n": n, "u": number})).await;
                pace.tick().await;
            }
            step(&mut client, &last(number)).await;
            map.until(&mut client, &all).await;
            (client, map)
        });
    }
    let mut members = work.join_all().await;
    // Everybody has the last places before this, so no frame is still to come.
    let taken = start.elapsed().as_secs_f64();
    let most = (20.0 * taken) as usize + 1;
    for (_, map) in &members {
        assert!(map.frames <= most, "{} frames in {taken} s", map.frames);
        assert!(map.frames >= 10, "{} frames in {taken} s", map.frames);
    }

    // What is written in the end is where they are, and it is not written often.
    let (watcher, _) = &mut members[0];
    eventually("the last places are written", async || {
        let listed = watcher.ack("users.list", ROOM, json!({"limit": 200})).await;
        placed(&listed["users"]) == all
    })
    .await;
    let taken = start.elapsed().as_secs_f64();
    let most = 2 * ((2.0 * taken) as u64 + 1);
    let count = writes.count();
    assert!((2..=most).contains(&count), "{count} writes in {taken} s");

    // A newcomer sees it in the picture.
    for gateway in 0..2 {
        let mut late = cluster.client(gateway, &format!("late{gateway}")).await;
        let joined = late.ack("join", ROOM, json!({})).await;
        assert_eq!(placed(&joined["users"]), all);
        assert!(joined["you"].get("position").is_none());
    }
    // One that resumes, in one frame between the answer and what it missed.
    let (mut writer, _) = members.pop().unwrap();
    writer.ack("message.send", ROOM, json!({"body": 1})).await;
    let since = json!({"since": {"epoch": place["epoch"], "seq": place["seq"]}});
    for gateway in 0..2 {
        let mut back = cluster.client(gateway, "u3").await;
        let joined = back.ack("join", ROOM, since.clone()).await;
        assert_eq!(joined["recovered"], true, "{joined}");
        assert_eq!(joined["you"]["position"], all["u3"]);
        let frame = back.next().await;
        assert_eq!((frame.kind.as_str(), frame.seq), ("moves", None), "{frame:?}");
        let mut places: BTreeMap<String, Value> = serde_json::from_value(frame.data).unwrap();
        places.entry("u3".to_owned()).or_insert(all["u3"].clone());
        assert_eq!(places, all);
        back.send("message.send", ROOM, json!({"body": "marker"})).await;
        let mut seq = place["seq"].as_u64().unwrap();
        let missed = joined["missed"].as_u64().unwrap();
        while seq <= joined["seq"].as_u64().unwrap() {
            let frame = back.next().await;
            // What moved last may come once more with the next tick, as it does for whoever enters.
            for (user, place) in frame.data.as_object().unwrap() {
                assert!(frame.kind != "moves" || all.get(user) == Some(place), "{frame:?}");
            }
            if frame.seq.is_some() {
                seq += 1;
                assert_eq!(frame.seq, Some(seq));
            }
        }
        assert!(missed > 0);
    }
}

/// With many members the frames come further apart, as each of them goes to so many.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_is_told_less_often() {
    const CROWD: usize = 150;
    let cluster = Cluster::start(Store::Redis, 2, &[]).await;
    let (mut a, mut far) = (cluster.client(0, "a").await, cluster.client(1, "far").await);
    a.ack("join", ROOM, json!({})).await;
    far.ack("join", ROOM, json!({})).await;
    let mut crowd = Mute::crowd(cluster.gateways[0].addr, "m", 0..CROWD).await;
    crowd.extend(Mute::crowd(cluster.gateways[1].addr, "n", 0..CROWD).await);
    for member in &mut crowd {
        let join = json!({"type": "join", "room": ROOM, "data": {"messages": 0}});
        member.send(&join.to_string()).await;
    }
    eventually("all have joined", async || {
        let listed = a.ack("users.list", ROOM, json!({"limit": 1})).await;
        listed["total"] == 2 * CROWD + 2
    })
    .await;
    let mut b = cluster.client(0, "b").await;
    b.ack("join", ROOM, json!({})).await;
    let (mut of_b, mut of_far) = (Map::new("b"), Map::new("far"));
    let start = Instant::now();
    let (mut steps, mut pace) = (0, pace());
    // Some from the other gateway, so that each knows how many the other has.
    while start.elapsed() < Duration::from_millis(2_500) {
        steps += 1;
        step(&mut a, &json!({"n": steps})).await;
        step(&mut far, &json!({"n": steps})).await;
        pace.tick().await;
    }
    let last = BTreeMap::from(["a", "far"].map(|user| (user.to_owned(), json!({"n": steps}))));
    of_b.until(&mut b, &last).await;
    of_far.until(&mut far, &last).await;
    let taken = start.elapsed().as_secs_f64();
    for map in [of_b, of_far] {
        // Three times as many as get all of the frames, so about a third of them; the first few may come faster.
        let most = (10.0 * taken) as usize + 3;
        assert!(map.frames <= most, "{} frames in {taken} s", map.frames);
        assert!(map.frames >= 3, "{} frames in {taken} s", map.frames);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_resume_where_nobody_has_moved_brings_no_frame() {
    let cluster = Cluster::start(Store::Memory, 1, &[]).await;
    let mut a = cluster.client(0, "a").await;
    a.ack("join", ROOM, json!({})).await;
    let mut b = cluster.client(0, "b").await;
    let place = b.ack("join", ROOM, json!({})).await;
    a.ack("message.send", ROOM, json!({"body": 1})).await;
    drop(b);
    a.until(|frame| frame.data["away"] == json!(["b"])).await;
    let mut b = cluster.client(0, "b").await;
    let since = json!({"since": {"epoch": place["epoch"], "seq": place["seq"]}});
    let joined = b.ack("join", ROOM, since.clone()).await;
    assert_eq!(
        (&joined["recovered"], &joined["missed"]),
        (&json!(true), &json!(3))
    );
    assert_eq!(b.next().await.kind, "message.sent");
    // Of the places of the room, one's own is no news.
    step(&mut b, &json!({"n": 1})).await;
    a.event("moves", ROOM).await;
    eventually("it is written", async || {
        !placed(&a.ack("users.list", ROOM, json!({})).await["users"]).is_empty()
    })
    .await;
    let mut again = cluster.client(0, "a").await;
    again.ack("join", ROOM, since).await;
    let frame = again.next().await;
    assert_eq!(
        (frame.kind.as_str(), &frame.data),
        ("moves", &json!({"b": {"n": 1}}))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_is_told_its_own_place() {
    let cluster = Cluster::start(Store::Redis, 2, &[]).await;
    let (mut one, mut two) = (cluster.client(0, "a").await, cluster.client(1, "a").await);
    let mut third = cluster.client(0, "a").await;
    let (mut b, mut far) = (cluster.client(0, "b").await, cluster.client(1, "c").await);
    for client in [&mut one, &mut two, &mut third, &mut b, &mut far] {
        client.ack("join", ROOM, json!({})).await;
    }
    let a_is = |n: u64| BTreeMap::from([("a".to_owned(), json!({"n": n}))]);
    let (mut of_b, mut of_c) = (Map::new("b"), Map::new("c"));
    // Of two connections of a user the latest word counts, though it may be told once more what was before.
    (of_b.is_strict, of_c.is_strict) = (false, false);
    for n in 1..=20 {
        let from = if n % 2 == 0 { &mut two } else { &mut one };
        step(from, &json!({"n": n})).await;
        of_b.until(&mut b, &a_is(n)).await;
        of_c.until(&mut far, &a_is(n)).await;
    }
    step(&mut b, &json!({"n": 1})).await;
    for client in [&mut one, &mut two, &mut third] {
        let frame = client.event("moves", ROOM).await;
        assert_eq!(frame.data, json!({"b": {"n": 1}}));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_move_is_refused() {
    let cluster = Cluster::start(Store::Memory, 1, &[]).await;
    let (mut a, mut b) = (cluster.client(0, "a").await, cluster.client(0, "b").await);
    a.ack("join", ROOM, json!({})).await;
    b.ack("join", ROOM, json!({})).await;
    assert_eq!(
        a.refused("move", "elsewhere", json!({"x": 1})).await,
        "not_joined"
    );
    // {"x":"…"} around the rest.
    let sized = |bytes: usize| json!({"x": "x".repeat(bytes - 8)});
    let wrong = [
        (json!({}), "bad_request"),
        (json!([1, 2]), "bad_request"),
        (json!(7), "bad_request"),
        (json!("x"), "bad_request"),
        (Value::Null, "bad_request"),
        (sized(513), "too_large"),
    ];
    for (data, code) in &wrong {
        let answer = a.ask("move", ROOM, data.clone()).await;
        assert_eq!(
            (answer.kind.as_str(), &answer.data["code"]),
            ("error", &json!(code)),
            "{data}"
        );
        assert_eq!(answer.data["retryable"], false);
        // Without an id the error is told all the same.
        step(&mut a, data).await;
        let told = a.until(|frame| frame.kind == "error").await;
        assert_eq!((told.id, &told.data["code"]), (None, &json!(code)), "{data}");
        assert_eq!(told.room.as_deref(), Some(ROOM));
    }
    a.send_text(json!({"type": "move", "room": ROOM}).to_string())
        .await;
    assert_eq!(a.event("error", ROOM).await.data["code"], "bad_request");
    a.send_text(json!({"type": "move", "room": "elsewhere", "data": {"x": 1}}).to_string())
        .await;
    assert_eq!(a.event("error", "elsewhere").await.data["code"], "not_joined");
    a.send_text(json!({"type": "move", "data": {"x": 1}}).to_string())
        .await;
    let told = a.until(|frame| frame.kind == "error").await;
    assert_eq!((told.room, &told.data["code"]), (None, &json!("bad_request")));

    // The largest goes, and none of those before did. White space is not counted.
    let largest = sized(512);
    let spaced = format!(
        r#"{{"id":"k", "type":"move", "room":"{ROOM}", "data": {{ "x" : {} }} }}"#,
        largest["x"]
    );
    a.send_text(spaced).await;
    let ack = a.until(|frame| frame.id.as_deref() == Some("k")).await;
    assert_eq!((ack.kind.as_str(), ack.data), ("ack", json!({})));
    assert_eq!(b.event("moves", ROOM).await.data, json!({"a": largest}));
    // Without an id there is no answer.
    step(&mut a, &json!({"x": 1})).await;
    assert_eq!(b.event("moves", ROOM).await.data, json!({"a": {"x": 1}}));
    a.ack("leave", ROOM, json!({})).await;
    step(&mut a, &json!({"x": 2})).await;
    assert_eq!(a.event("error", ROOM).await.data["code"], "not_joined");
    while let Some(frame) = a.try_next() {
        assert!(!["ack", "moves"].contains(&frame.kind.as_str()), "{frame:?}");
    }
}

/// It has megabytes to take before the moves, and takes nothing while they are made.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_lags_gets_the_last_state_alone() {
    const EVENTS: usize = 200;
    const STEPS: u64 = 100;
    let envs = [
        ("OUTBOX_BYTES", "67108864"),
        ("LOG_BYTES", "1024"),
        ("LOG_LEVEL", "warn"),
    ];
    let gateway = Arc::new(Gateway::start(&envs));
    let mut slow = Ws::open(&gateway, "/ws?user=slow").await;
    slow.send(&[raw::text(r#"{"id":"j","type":"join","room":"r"}"#)])
        .await;
    while slow.next_json().await["id"] != "j" {}
    let (mut a, mut b) = (
        Client::connect(gateway.addr, "a").await,
        Client::connect(gateway.addr, "b").await,
    );
    a.ack("join", ROOM, json!({})).await;
    b.ack("join", ROOM, json!({})).await;
    let payload = "x".repeat(60_000);
    for _ in 0..EVENTS {
        a.ack("broadcast", ROOM, json!({"event": "e", "payload": payload}))
            .await;
    }
    let mut pace = pace();
    for n in 1..=STEPS {
        step(&mut a, &json!({"n": n})).await;
        step(&mut b, &json!({"n": n})).await;
        pace.tick().await;
    }
    let last = BTreeMap::from(["a", "b"].map(|user| (user.to_owned(), json!({"n": STEPS}))));
    let (mut of_a, mut of_b) = (Map::new("a"), Map::new("b"));
    of_a.until(&mut a, &last).await;
    of_b.until(&mut b, &last).await;
    assert!(of_b.frames > 5, "{} frames for one that reads", of_b.frames);

    let mut kinds = HashMap::<String, usize>::new();
    let end = Instant::now() + DEADLINE;
    let frame = loop {
        assert!(Instant::now() < end, "{kinds:?}");
        let frame = slow.next_json().await;
        let kind = frame["type"].as_str().unwrap().to_owned();
        if kind == "moves" {
            break frame;
        }
        *kinds.entry(kind).or_default() += 1;
    };
    assert_eq!(kinds["broadcast"], EVENTS, "what waited comes first");
    assert_eq!(frame["data"], json!({"a": {"n": STEPS}, "b": {"n": STEPS}}));
    // Then it is as any other.
    a.ack("broadcast", ROOM, json!({"event": "marker", "payload": 1}))
        .await;
    let mut seen = slow.next_json().await;
    assert_eq!(seen["data"]["event"], "marker", "{seen}");
    step(&mut a, &json!({"n": STEPS + 1})).await;
    seen = slow.next_json().await;
    assert_eq!(seen["data"], json!({"a": {"n": STEPS + 1}}));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_of_one_node_move_on_while_redis_is_away() {
    let mut cluster = Cluster::start(Store::Redis, 2, &[]).await;
    let (mut a, mut b) = (cluster.client(0, "a").await, cluster.client(0, "b").await);
    let mut far = cluster.client(1, "far").await;
    for client in [&mut a, &mut b, &mut far] {
        client.ack("join", ROOM, json!({})).await;
    }
    let a_is = |n: u64| BTreeMap::from([("a".to_owned(), json!({"n": n}))]);
    let (mut of_b, mut of_far) = (Map::new("b"), Map::new("far"));
    step(&mut a, &json!({"n": 1})).await;
    of_b.until(&mut b, &a_is(1)).await;
    of_far.until(&mut far, &a_is(1)).await;

    cluster.redis.as_mut().unwrap().stop();
    a.until(|frame| frame.kind == "status" && frame.data["redis"] == "down")
        .await;
    for n in 2..=20 {
        step(&mut a, &json!({"n": n})).await;
        of_b.until(&mut b, &a_is(n)).await;
    }
    assert_eq!(a.ack("move", ROOM, json!({"n": 21})).await, json!({}));
    of_b.until(&mut b, &a_is(21)).await;

    cluster.redis.as_mut().unwrap().restart();
    for client in [&mut a, &mut b, &mut far] {
        client
            .until(|frame| frame.kind == "status" && frame.data["redis"] == "ok")
            .await;
    }
    // Everybody again, and kept again.
    eventually("the place is written", async || {
        step(&mut a, &json!({"n": 22})).await;
        let answer = b.ask("users.list", ROOM, json!({})).await;
        answer.kind == "ack" && placed(&answer.data["users"]) == a_is(22)
    })
    .await;
    of_b.until(&mut b, &a_is(22)).await;
    of_far.until(&mut far, &a_is(22)).await;
}
