//! A room with too many members to tell of each is told how many there are, and what is told at all may be set: over
//! several gateways and a real Redis.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::{collections::BTreeSet, time::Duration};

use roomgate_shared::protocol::event::ServerFrame;
use serde_json::{Value, json};
use support::{
    client::Client,
    cluster::{Cluster, Store},
    crowd::Mute,
    told::{lines, since},
};
use tokio::time::Instant;

/// What members are told of each other may be set.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_may_be_told_to_count_or_to_say_nothing() {
    for mode in ["count", "off"] {
        let cluster = Cluster::start(Store::Memory, 1, &[("PRESENCE_MODE", mode)]).await;
        let mut watcher = cluster.client(0, "w").await;
        let joined = watcher.ack("join", "r", json!({})).await;
        assert_eq!(joined["users"], json!([]));
        assert_eq!(joined["you"]["id"], "w");
        let mut user = cluster.client(0, "u").await;
        let second = user.ack("join", "r", json!({"presence": {"a": 1}})).await;
        assert_eq!(second["seq"], joined["seq"]);
        user.ack("presence.update", "r", json!({"set": {"a": 2}})).await;
        if mode == "count" {
            until_members(&mut watcher, 2).await;
        }
        user.close().await;
        if mode == "count" {
            until_members(&mut watcher, 1).await;
        }
        let body = watcher.ack("message.send", "r", json!({"body": 1})).await;
        assert_eq!(
            body["message"]["seq"].as_u64().unwrap(),
            joined["seq"].as_u64().unwrap() + 1
        );
        let listed = watcher.ack("users.list", "r", json!({})).await;
        assert_eq!(listed["total"], 1);
        watcher.event("message.sent", "r").await;
        while let Some(frame) = watcher.try_next() {
            assert!(mode == "count" && frame.kind == "occupancy", "{mode}: {frame:?}");
        }
    }
}

/// Reads until the room is said to have so many members, and gives the frames up to there.
async fn until_members(client: &mut Client, members: usize) -> Vec<ServerFrame> {
    let mut seen = Vec::new();
    loop {
        let frame = client.next().await;
        let is_last = frame.kind == "occupancy" && frame.data["members"] == members;
        seen.push(frame);
        if is_last {
            return seen;
        }
    }
}

/// A room with too many members to tell of each: however they come and go, there is a number now and then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowded_room_is_told_how_many_there_are() {
    const ROOM: &str = "crowd";
    const CROWD: usize = 150;
    let envs = [
        ("PRESENCE_FULL_MEMBERS", "100"),
        ("PRESENCE_GRACE_SECONDS", "2"),
        ("SWEEP_INTERVAL_SECONDS", "1"),
    ];
    let cluster = Cluster::start(Store::Redis, 2, &envs).await;
    let mut watchers = [cluster.client(0, "w0").await, cluster.client(1, "w1").await];
    let mut place = Value::Null;
    for watcher in &mut watchers {
        place = watcher.ack("join", ROOM, json!({})).await;
    }
    let enter = async |gateway: usize, prefix: &str, count: usize| {
        let mut all = Mute::crowd(cluster.gateways[gateway].addr, prefix, 0..count).await;
        for member in &mut all {
            let join = json!({"type": "join", "room": ROOM, "data": {"messages": 0}});
            member.send(&join.to_string()).await;
        }
        all
    };
    let mut crowd = enter(0, "a", CROWD / 2).await;
    crowd.extend(enter(1, "b", CROWD / 2).await);
    for watcher in &mut watchers {
        until_members(watcher, CROWD + 2).await;
    }

    // A storm: many come and go on both gateways.
    let start = Instant::now();
    let mut round = 0;
    while start.elapsed() < Duration::from_millis(2_500) {
        round += 1;
        let coming = enter(round % 2, &format!("c{round}-"), 50).await;
        let mut fresh = cluster.client(round, "fresh").await;
        let joined = fresh.ack("join", ROOM, json!({})).await;
        assert_eq!(joined["users"], json!([]));
        assert_eq!(joined["you"]["id"], "fresh");
        assert!(joined["members"].as_u64().unwrap() > 100, "{}", joined["members"]);
        for member in coming {
            member.close().await;
        }
        fresh.close().await;
    }
    // Whoever comes back is told at once how many there are, ahead of what it missed.
    watchers[0]
        .ack("message.send", ROOM, json!({"body": "missed"}))
        .await;
    let mut back = cluster.client(1, "w0").await;
    let resumed = back.ack("join", ROOM, since(&place)).await;
    assert_eq!(resumed["recovered"], true, "{resumed}");
    let frame = back.next().await;
    assert_eq!((frame.kind.as_str(), frame.seq), ("occupancy", None));
    assert!(frame.data["members"].as_u64().unwrap() > 100, "{}", frame.data);
    // Half of the crowd is lost; when it has left, it is told again who is there.
    drop(crowd.split_off(CROWD / 2));
    let mut expected: BTreeSet<String> = (0..CROWD / 2).map(|n| format!("a{n}")).collect();
    expected.extend(["w0", "w1"].map(str::to_owned));
    for watcher in &mut watchers {
        let (mut numbers, mut all) = (0, None);
        while all.is_none() {
            let frame = watcher.next().await;
            match frame.kind.as_str() {
                "occupancy" => {
                    numbers += 1;
                    assert_eq!((frame.seq, frame.data.as_object().unwrap().len()), (None, 1));
                }
                "presence" => {
                    assert_eq!(frame.data["all"], true, "{frame:?}");
                    all = Some(frame);
                }
                kind => assert!(frame.id.is_some() || kind == "message.sent", "{frame:?}"),
            }
        }
        let most = start.elapsed().as_secs() + 2;
        assert!(numbers <= most, "{numbers} numbers, {most} s");
        let all = all.unwrap();
        let mut users: BTreeSet<String> = all.data["joined"]
            .as_array()
            .unwrap()
            .iter()
            .map(|user| user["id"].as_str().unwrap().to_owned())
            .collect();
        assert!(users.len() < 80, "{}", users.len());
        while users != expected {
            for line in lines(&watcher.event("presence", ROOM).await) {
                let user = line
                    .strip_prefix("left ")
                    .and_then(|line| line.strip_suffix(" timeout"));
                assert!(user.is_some_and(|user| users.remove(user)), "{line}");
            }
        }
    }
    let listed = watchers[0].ack("users.list", ROOM, json!({"limit": 200})).await;
    assert_eq!(listed["total"], expected.len());
    let mut late = cluster.client(0, "late").await;
    let joined = late.ack("join", ROOM, json!({})).await;
    assert_eq!(joined["users"].as_array().unwrap().len(), expected.len() + 1);
    let told = watchers[1].event("presence", ROOM).await;
    assert_eq!(lines(&told), ["joined late"]);
}
