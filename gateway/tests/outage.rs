//! When Redis is away, and when one room's data is damaged: what clients, operators and the other rooms see of it.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::time::Duration;

use roomgate_shared::{ids::RoomId, keys, protocol::event::ServerFrame};
use serde_json::{Value, json};
use support::{
    client::{Client, DEADLINE},
    cluster::{Cluster, Store},
    process::Gateway,
    redis_server::RedisServer,
};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

/// Asks until the answer is an ack, as long as the error says that it is worth trying again; waits as told in between.
async fn acked(client: &mut Client, kind: &str, room: &str, data: Value) -> Value {
    let end = Instant::now() + DEADLINE;
    loop {
        let answer = client.ask(kind, room, data.clone()).await;
        if answer.kind == "ack" {
            return answer.data;
        }
        assert_eq!(answer.data["retryable"], true, "{}", answer.data);
        assert!(Instant::now() < end, "never acknowledged: {}", answer.data);
        sleep(Duration::from_millis(
            answer.data["retryAfterMs"].as_u64().unwrap(),
        ))
        .await;
    }
}

/// The value of a metric; 0 where it is not told yet.
async fn metric(gateway: &Gateway, name: &str) -> f64 {
    let (_, text) = gateway.get("/metrics").await.unwrap();
    let line = text.lines().find(|line| line.starts_with(name));
    line.map_or(0.0, |line| line.rsplit(' ').next().unwrap().parse().unwrap())
}

/// Waits for a metric to have a value.
async fn metric_is(gateway: &Gateway, name: &str, value: f64) {
    let end = Instant::now() + DEADLINE;
    loop {
        let now = metric(gateway, name).await;
        if now == value {
            return;
        }
        assert!(Instant::now() < end, "{name} is {now}, not {value}");
    }
}

async fn status(client: &mut Client) -> String {
    let frame = client
        .until(|frame| frame.kind == "status" && frame.room.is_none())
        .await;
    assert_eq!((frame.seq, frame.id), (None, None));
    frame.data["redis"].as_str().unwrap().to_owned()
}

fn lines(gateway: &Gateway, text: &str) -> Vec<String> {
    let log = gateway.log();
    log.lines()
        .filter(|line| line.contains(text))
        .map(str::to_owned)
        .collect()
}

/// The line of the log is written right after what clients are told.
async fn one_line(gateway: &Gateway, text: &str) -> String {
    let end = Instant::now() + DEADLINE;
    loop {
        if let [line] = &lines(gateway, text)[..] {
            return line.clone();
        }
        assert!(
            Instant::now() < end,
            "not one line with {text:?}\n{}",
            gateway.log()
        );
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_goes_away_and_comes_back() {
    let mut cluster = Cluster::start(Store::Redis, 2, &[]).await;
    let (mut a, mut b) = (cluster.client(0, "a").await, cluster.client(0, "b").await);
    let mut far = cluster.client(1, "far").await;
    for client in [&mut a, &mut b, &mut far] {
        client.ack("join", "r", json!({})).await;
    }
    one_line(&cluster.gateways[0], "ready: rooms are in Redis ").await;
    const BREAKER: &str = "roomgate_breaker_state{node=\"gw-1\",scope=\"redis\"}";
    metric_is(&cluster.gateways[0], BREAKER, 0.0).await;

    cluster.redis.as_mut().unwrap().stop();
    for client in [&mut a, &mut b, &mut far] {
        assert_eq!(status(client).await, "down");
    }
    let near = &cluster.gateways[0];
    assert_eq!(near.status("/readyz").await, Some(503));
    assert_eq!(near.status("/healthz").await, Some(200));
    for (kind, data) in [
        ("message.send", json!({"body": 1})),
        ("state.get", json!({})),
        ("join", json!({})),
        ("leave", json!({})),
    ] {
        let start = Instant::now();
        let refused = a.ask(kind, "r", data).await;
        assert!(start.elapsed() < Duration::from_secs(1), "{kind}: at once");
        assert_eq!(refused.kind, "error", "{kind}");
        assert_eq!(refused.data["code"], "unavailable", "{kind}");
        assert_eq!(refused.data["retryable"], true, "{kind}");
        // The wait between trials doubles to two seconds.
        let retry = refused.data["retryAfterMs"].as_u64().unwrap();
        assert!((1..=2_001).contains(&retry), "{kind}: {retry}");
    }
    let state = metric(near, BREAKER).await;
    assert!(state > 0.0, "{state}");
    // Signals go on among those who are on the same gateway.
    for n in 0..3 {
        let ack = a.ack("signal", "r", json!({"event": "wave", "payload": n})).await;
        assert_eq!(ack, json!({}));
        assert_eq!(
            b.event("signal", "r").await.data,
            json!({"event": "wave", "payload": n})
        );
    }
    let nobody = json!({"event": "wave", "payload": 3, "to": ["far"]});
    assert_eq!(a.ack("signal", "r", nobody).await, json!({}));

    cluster.redis.as_mut().unwrap().restart();
    for client in [&mut a, &mut b, &mut far] {
        // It is empty now: that is told before all is said to be well.
        client.event("resync", "r").await;
        assert_eq!(status(client).await, "ok");
    }
    acked(&mut a, "message.send", "r", json!({"body": 2})).await;
    for client in [&mut b, &mut far] {
        assert_eq!(client.event("message.sent", "r").await.data["body"], 2);
        while let Some(frame) = client.try_next() {
            assert!(!matches!(frame.kind.as_str(), "signal" | "status"), "{frame:?}");
        }
    }
    let near = &cluster.gateways[0];
    near.ready().await;
    metric_is(near, BREAKER, 0.0).await;
    let openings = metric(
        near,
        "roomgate_breaker_openings_total{node=\"gw-1\",scope=\"redis\"}",
    )
    .await;
    assert!(openings >= 1.0, "{openings}");
    let away = one_line(near, "Redis is away").await;
    assert!(away.contains("WARN"), "{away}");
    let back = one_line(near, "Redis is back after").await;
    assert!(
        back.contains(" 1 rooms compared, ") && back.contains("2 members resynchronised"),
        "{back}"
    );
    // Nothing else about it at the usual level but what became of the room.
    let others: Vec<String> = lines(near, "WARN")
        .into_iter()
        .chain(lines(near, "ERROR"))
        .filter(|line| {
            !["Redis is away", "resynchronised", "ulimit"]
                .iter()
                .any(|known| line.contains(known))
        })
        .collect();
    assert!(others.is_empty(), "{others:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_signal_that_may_have_gone_out_is_not_delivered_twice() {
    let cluster = Cluster::start(Store::Redis, 1, &[("REDIS_TIMEOUT_MS", "500")]).await;
    let (mut a, mut b) = (cluster.client(0, "a").await, cluster.client(0, "b").await);
    a.ack("join", "r", json!({})).await;
    b.ack("join", "r", json!({})).await;
    let server = cluster.redis.as_ref().unwrap();
    let pid = server.pid();
    RedisServer::signal(&pid, "-STOP");
    // The first is under way when the link is given up.
    let refused = a.ask("signal", "r", json!({"event": "e", "payload": 1})).await;
    assert_eq!(refused.data["code"], "timeout", "{}", refused.data);
    RedisServer::signal(&pid, "-CONT");
    let end = Instant::now() + DEADLINE;
    let mut seen: Vec<ServerFrame> = Vec::new();
    // Redis carries the first out now or not at all; a later one shows that it had its time.
    cluster.gateways[0].ready().await;
    acked(&mut a, "signal", "r", json!({"event": "e", "payload": 2})).await;
    while seen.last().is_none_or(|frame| frame.data["payload"] != 2) {
        assert!(Instant::now() < end);
        seen.push(b.event("signal", "r").await);
    }
    let first = seen.iter().filter(|frame| frame.data["payload"] == 1).count();
    assert!(first <= 1, "delivered {first} times");
}

/// What of a room is damaged (a key, and what is set in it), and a command that meets it.
const DAMAGE: [(&str, &[&str], &str, &str); 10] = [
    ("meta", &["SET", "junk"], "message.send", r#"{"body":1}"#),
    ("log", &["SET", "junk"], "message.send", r#"{"body":1}"#),
    ("messages", &["SET", "junk"], "message.send", r#"{"body":1}"#),
    ("message", &["SET", "junk"], "message.send", r#"{"body":1}"#),
    // Two keys that take turns.
    ("commands", &["SET", "junk"], "message.send", r#"{"body":1}"#),
    ("state", &["SET", "junk"], "state.patch", r#"{"set":{"a":1}}"#),
    ("users", &["SET", "junk"], "presence.update", r#"{"set":{"a":1}}"#),
    ("seen", &["SET", "junk"], "presence.update", r#"{"set":{"a":1}}"#),
    ("meta", &["HSET", "seq", "junk"], "message.send", r#"{"body":1}"#),
    (
        "users",
        &["HSET", "a", "{"],
        "presence.update",
        r#"{"set":{"a":1}}"#,
    ),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damaged_rooms_are_alone_with_it_and_recover() {
    const UNAVAILABLE: &str = "roomgate_rooms_unavailable{node=\"gw-1\"}";
    let cluster = Cluster::start(Store::Redis, 1, &[]).await;
    let (gateway, server) = (&cluster.gateways[0], cluster.redis.as_ref().unwrap());
    let mut well = cluster.client(0, "well").await;
    well.ack("join", "well", json!({})).await;
    let mut members = Vec::new();
    for (number, (part, damage, kind, data)) in DAMAGE.into_iter().enumerate() {
        let (room, data): (_, Value) = (format!("r{number}"), serde_json::from_str(data).unwrap());
        let mut a = cluster.client(0, "a").await;
        a.ack("join", &room, json!({})).await;
        a.ack("message.send", &room, json!({"body": 0})).await;
        let key = format!("room:{{{room}}}:{part}");
        let keys = keys::room(&RoomId::new(room.clone()).unwrap());
        for key in keys
            .iter()
            .filter(|name| **name == key || name.starts_with(&format!("{key}:")))
        {
            if damage[0] == "SET" {
                server.ask(&["DEL", key]);
            }
            let mut command = vec![damage[0], key];
            command.extend_from_slice(&damage[1..]);
            server.ask(&command);
        }

        let refused = a.ask(kind, &room, data.clone()).await;
        assert_eq!(
            refused.data["code"], "room_unavailable",
            "{key}: {}",
            refused.data
        );
        assert_eq!(refused.data["retryable"], true, "{key}");
        let retry = refused.data["retryAfterMs"].as_u64().unwrap();
        assert!(retry <= 1_001, "{key}: {retry}");
        well.ack("message.send", "well", json!({"body": number})).await;
        members.push((a, room, kind, data));
    }
    metric_is(gateway, UNAVAILABLE, DAMAGE.len() as f64).await;
    assert_eq!(gateway.status("/readyz").await, Some(200));

    // Mended as the runbook says: all keys of a room at once.
    let mut recoveries = JoinSet::new();
    for (mut a, room, kind, data) in members {
        let keys = keys::room(&RoomId::new(room.clone()).unwrap());
        let mut delete: Vec<&str> = vec!["DEL"];
        delete.extend(keys.iter().map(String::as_str));
        server.ask(&delete);
        recoveries.spawn(async move {
            acked(&mut a, kind, &room, data).await;
            (a, room)
        });
    }
    for (_member, room) in recoveries.join_all().await {
        let told = format!("the room is unavailable; it is tried again from time to time room={room} ");
        assert_eq!(lines(gateway, &told).len(), 1, "{room}");
    }
    metric_is(gateway, UNAVAILABLE, 0.0).await;
    let openings = metric(
        gateway,
        "roomgate_breaker_openings_total{node=\"gw-1\",scope=\"room\"}",
    )
    .await;
    assert_eq!(openings, DAMAGE.len() as f64);
    let told = well.ack("message.history", "well", json!({})).await;
    assert_eq!(told["messages"].as_array().unwrap().len(), DAMAGE.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_is_not_asked_for_a_damaged_room_while_its_breaker_is_open() {
    let cluster = Cluster::start(Store::Redis, 1, &[]).await;
    let server = cluster.redis.as_ref().unwrap();
    let (mut a, mut lost) = (cluster.client(0, "a").await, cluster.client(0, "lost").await);
    for client in [&mut a, &mut lost] {
        client.ack("join", "r", json!({})).await;
    }
    server.ask(&["RENAME", "room:{r}:meta", "kept"]);
    server.ask(&["SET", "room:{r}:meta", "junk"]);
    let calls = || -> u64 {
        let stats = server.ask(&["INFO", "commandstats"]);
        let line = stats
            .lines()
            .find(|line| line.starts_with("cmdstat_fcall:"))
            .unwrap();
        line.split(['=', ',']).nth(1).unwrap().parse().unwrap()
    };
    // The second opening is longer, so that there is time to look.
    let end = Instant::now() + DEADLINE;
    loop {
        let refused = a.ask("users.list", "r", json!({})).await;
        assert_eq!(refused.data["code"], "room_unavailable", "{}", refused.data);
        if refused.data["retryAfterMs"].as_u64().unwrap() > 1_500 {
            break;
        }
        assert!(Instant::now() < end, "the wait does not grow");
    }
    let (before, start) = (calls(), Instant::now());
    for _ in 0..50 {
        assert_eq!(a.refused("users.list", "r", json!({})).await, "room_unavailable");
    }
    let asked = calls() - before;
    assert!(start.elapsed() < Duration::from_millis(1_400), "too slow to tell");
    assert_eq!(asked, 0, "Redis was asked");
    // What must reach Redis is kept meanwhile.
    drop(lost);
    metric_is(&cluster.gateways[0], "roomgate_connections{node=\"gw-1\"}", 1.0).await;
    server.ask(&["RENAME", "kept", "room:{r}:meta"]);
    a.until(|frame| frame.kind == "presence" && frame.data["away"] == json!(["lost"]))
        .await;
    one_line(&cluster.gateways[0], "the room is available again").await;
    one_line(&cluster.gateways[0], "the room is unavailable").await;
    assert_eq!(a.ack("users.list", "r", json!({})).await["total"], 2);
}
