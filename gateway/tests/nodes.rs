//! Guarantee 2 over several gateways and a real Redis: every member sees the same events with the same `seq`, whatever
//! node serves it; and Redis holds what `docs/REDIS.md` says.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::collections::HashMap;

use roomgate_shared::protocol::event::ServerFrame;
use serde_json::json;
use support::{
    client::Client,
    cluster::{Cluster, Store},
};
use tokio::task::JoinSet;

/// Durable events of a room after `from`, up to `count` of them.
async fn events(client: &mut Client, room: &str, count: usize) -> Vec<ServerFrame> {
    let mut events = Vec::new();
    while events.len() < count {
        events.push(
            client
                .until(|f| f.seq.is_some() && f.id.is_none() && f.room.as_deref() == Some(room))
                .await,
        );
    }
    events
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_on_three_nodes_see_the_same_events_in_the_same_order() {
    const WRITERS: usize = 6;
    const EACH: usize = 50;
    let cluster = Cluster::start(Store::Redis, 3, &[]).await;
    let mut clients = Vec::new();
    let mut last_join = 0;
    for number in 0..WRITERS {
        let mut client = cluster.client(number, &format!("u{number}")).await;
        assert_eq!(client.welcome["node"], format!("gw-{}", number % 3 + 1));
        let joined = client.ack("join", "r", json!({})).await;
        assert_eq!(joined["members"], number + 1);
        last_join = joined["seq"].as_u64().unwrap();
        clients.push(client);
    }
    let mut work = JoinSet::new();
    for (number, mut client) in clients.into_iter().enumerate() {
        work.spawn(async move {
            for step in 0..EACH {
                let (kind, data) = match step % 4 {
                    0 => ("message.send", json!({"body": [number, step]})),
                    1 => ("broadcast", json!({"event": "e", "payload": [number, step]})),
                    2 => ("state.patch", json!({"increment": {"n": 1}})),
                    _ => ("presence.update", json!({"set": {"step": step}})),
                };
                client.send(kind, "r", data).await;
            }
            let mut seen: Vec<ServerFrame> = Vec::new();
            let (mut acks, mut counted) = (0, 0);
            while acks < EACH || counted < WRITERS * (EACH - 2).div_ceil(4) {
                let frame = client.next().await;
                acks += usize::from(frame.kind == "ack");
                assert_ne!(frame.kind, "error", "{}", frame.data);
                if frame.kind == "state.patched" {
                    counted = frame.data["set"]["n"].as_u64().unwrap() as usize;
                }
                seen.extend(frame.seq.is_some().then_some(frame));
            }
            (client, seen)
        });
    }
    let mut all: Vec<(Client, Vec<ServerFrame>)> = work.join_all().await;
    // One more event, so that all have seen all before it.
    let end = all[0]
        .0
        .ack("broadcast", "r", json!({"event": "end", "payload": null}))
        .await["seq"]
        .as_u64()
        .unwrap();
    for (client, seen) in &mut all {
        while seen.last().and_then(|f| f.seq) != Some(end) {
            let frame = client.next().await;
            seen.extend(frame.seq.is_some().then_some(frame));
        }
        seen.retain(|f| f.seq.unwrap() > last_join);
    }
    let reference: Vec<ServerFrame> = all[0].1.clone();
    let seqs: Vec<u64> = reference.iter().map(|f| f.seq.unwrap()).collect();
    assert_eq!(seqs, (last_join + 1..=end).collect::<Vec<_>>());
    let sent = reference.iter().filter(|f| f.kind == "message.sent").count();
    assert_eq!(sent, WRITERS * EACH.div_ceil(4));
    for (_, seen) in &all {
        assert!(*seen == reference, "members differ");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_picture_and_the_events_after_it_make_the_room() {
    let cluster = Cluster::start(Store::Redis, 2, &[]).await;
    let (mut a, mut b) = (cluster.client(0, "a").await, cluster.client(1, "b").await);
    a.ack("join", "r", json!({"presence": {"colour": "red"}})).await;
    a.ack("state.patch", "r", json!({"set": {"x": 1.5, "list": []}}))
        .await;
    a.ack("message.send", "r", json!({"body": {"text": "hello"}}))
        .await;
    let picture = b.ack("join", "r", json!({"presence": {"colour": "blue"}})).await;
    assert_eq!(picture["state"], json!({"x": 1.5, "list": []}));
    assert_eq!(picture["version"], 1);
    assert_eq!(picture["messages"][0]["body"], json!({"text": "hello"}));
    assert_eq!(picture["you"]["presence"], json!({"colour": "blue"}));
    let users: HashMap<&str, &str> = picture["users"]
        .as_array()
        .unwrap()
        .iter()
        .map(|user| {
            (
                user["id"].as_str().unwrap(),
                user["presence"]["colour"].as_str().unwrap(),
            )
        })
        .collect();
    assert_eq!(users, HashMap::from([("a", "red"), ("b", "blue")]));
    a.ack("signal", "r", json!({"event": "wave", "payload": 1, "to": ["b"]}))
        .await;
    let signal = b.event("signal", "r").await;
    assert_eq!(
        (signal.by.as_deref(), &signal.data),
        (Some("a"), &json!({"event": "wave", "payload": 1}))
    );
    let joined = a
        .until(|f| f.kind == "presence" && f.data["joined"][0]["id"] == "b")
        .await;
    assert_eq!(joined.seq, picture["seq"].as_u64());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_is_present_once_over_nodes_and_away_when_lost() {
    let cluster = Cluster::start(Store::Redis, 2, &[]).await;
    let mut watcher = cluster.client(0, "w").await;
    watcher.ack("join", "r", json!({})).await;
    let (mut one, mut two) = (cluster.client(0, "u").await, cluster.client(1, "u").await);
    one.ack("join", "r", json!({})).await;
    two.ack("join", "r", json!({})).await;
    one.close().await;
    let users = watcher.ack("users.list", "r", json!({})).await;
    assert_eq!(users["total"], 2);
    // Lost without a close: the user stays, away.
    drop(two);
    watcher
        .until(|f| f.kind == "presence" && f.data["away"] == json!(["u"]))
        .await;
    let mut three = cluster.client(0, "u").await;
    three.ack("join", "r", json!({})).await;
    watcher
        .until(|f| f.kind == "presence" && f.data["back"] == json!(["u"]))
        .await;
    three.close().await;
    let left = watcher
        .until(|f| f.kind == "presence" && !f.data["left"].is_null())
        .await;
    assert_eq!(left.data["left"], json!([{"user": "u", "reason": "left"}]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_holds_the_keys_of_the_model_each_with_a_life() {
    let cluster = Cluster::start(Store::Redis, 2, &[]).await;
    let mut client = cluster.client(0, "a").await;
    client.ack("join", "r:1", json!({})).await;
    client.ack("message.send", "r:1", json!({"body": "m"})).await;
    client.ack("state.patch", "r:1", json!({"set": {"f": 1}})).await;
    let server = cluster.redis.as_ref().unwrap();
    let ask = |command: &[&str]| server.ask(command).trim().to_owned();
    for (part, kind) in [
        ("meta", "hash"),
        ("state", "hash"),
        ("users", "hash"),
        ("seen", "zset"),
        ("messages", "zset"),
        ("message", "hash"),
        ("log", "zset"),
    ] {
        let key = format!("room:{{r:1}}:{part}");
        assert_eq!(ask(&["TYPE", &key]), kind, "{key}");
        assert!(
            ask(&["PTTL", &key]).parse::<i64>().unwrap() > 0,
            "{key} has no life"
        );
    }
    for key in ask(&["KEYS", "room:*"]).lines() {
        assert!(
            ask(&["PTTL", key]).parse::<i64>().unwrap() > 0,
            "{key} has no life"
        );
    }
    assert_eq!(ask(&["HGET", "room:{r:1}:state", "f"]), "1");
    assert_eq!(ask(&["PUBSUB", "CHANNELS", "room:*"]), "room:{r:1}:events");
    let until = tokio::time::Instant::now() + support::client::DEADLINE;
    while ask(&["ZSCORE", "rooms", "r:1"]).is_empty() {
        assert!(
            tokio::time::Instant::now() < until,
            "the registry does not know the room"
        );
    }
    // With the last member here goes the subscription.
    client.ack("leave", "r:1", json!({})).await;
    while !ask(&["PUBSUB", "CHANNELS", "room:*"]).is_empty() {
        assert!(tokio::time::Instant::now() < until, "the subscription stays");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_subscription_is_repaired_without_a_hole() {
    let cluster = Cluster::start(Store::Redis, 2, &[]).await;
    let (mut writer, mut reader) = (cluster.client(0, "w").await, cluster.client(1, "r").await);
    writer.ack("join", "r", json!({})).await;
    let from = reader.ack("join", "r", json!({})).await["seq"].as_u64().unwrap();
    let redis = cluster.redis.as_ref().unwrap();
    for step in 0..40 {
        if step % 10 == 5 {
            // Every subscriber's connection; the gateways make new ones.
            redis.ask(&["CLIENT", "KILL", "TYPE", "pubsub"]);
        }
        writer
            .ack("broadcast", "r", json!({"event": "e", "payload": step}))
            .await;
    }
    let seen = events(&mut reader, "r", 40).await;
    let expected: Vec<(u64, u64)> = (0..40).map(|step| (from + 1 + step, step)).collect();
    let got: Vec<(u64, u64)> = seen
        .iter()
        .map(|f| (f.seq.unwrap(), f.data["payload"].as_u64().unwrap()))
        .collect();
    assert_eq!(got, expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_room_lost_from_redis_is_made_anew_and_told() {
    let cluster = Cluster::start(Store::Redis, 2, &[]).await;
    let (mut a, mut b) = (cluster.client(0, "a").await, cluster.client(1, "b").await);
    let epoch = a.ack("join", "r", json!({})).await["epoch"].clone();
    b.ack("join", "r", json!({})).await;
    cluster.redis.as_ref().unwrap().ask(&["FLUSHALL"]);
    let refused = a.ask("message.send", "r", json!({"body": 1})).await;
    assert_eq!(
        (refused.kind.as_str(), &refused.data["code"]),
        ("error", &json!("unavailable"))
    );
    let (told_a, told_b) = (a.event("resync", "r").await, b.event("resync", "r").await);
    assert_ne!(told_a.data["epoch"], epoch);
    assert_eq!(told_a.data["epoch"], told_b.data["epoch"]);
    a.ack("message.send", "r", json!({"body": 2})).await;
    assert_eq!(b.event("message.sent", "r").await.data["body"], 2);
}
