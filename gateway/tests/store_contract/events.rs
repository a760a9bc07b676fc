//! What reaches the nodes: subscriptions and payloads.

use std::sync::Arc;

use roomgate::store::{
    Op, Readiness, StoreLimits,
    payload::{self, Payload},
};
use serde_json::json;

use super::harness::*;

pub(crate) async fn a_confirmed_subscription_brings_all_that_follows<B: Backend>() {
    let (node, room) = (node::<B>().await, new_room());
    assert_eq!(node.store.readiness(), Readiness::Ready);
    assert!(node.store.now_ms() > 1_600_000_000_000);
    node.joined(&room, enter("u1", 1)).await;
    node.store.subscribe(&room).await.unwrap();
    node.heard.clear();
    let ops = vec![send("u1", "1"), broadcast("u1", "{}"), enter("u2", 2)];
    let replies = node.apply(&room, ops).await;
    node.heard.until(&room, 4).await;
    // One payload, and in it the events as they stand in the log.
    let payloads = node.heard.payloads(&room);
    assert_eq!(payloads.len(), 1);
    let Some(Payload::Durable { epoch, first, events }) = payload::parse(&payloads[0]) else {
        panic!()
    };
    assert_eq!(
        (epoch, first, events.len()),
        (joined(&replies[2]).epoch.as_str(), 2, 3)
    );
    let tail = node.joined(&room, Op::tail(since(epoch, 1))).await;
    assert_eq!(tail.missed, events);
    assert_eq!(node.heard.interruptions(), 0);
}

pub(crate) async fn signals_pass_without_a_trace<B: Backend>() {
    let (node, room) = (node::<B>().await, new_room());
    let epoch = node.joined(&room, enter("u1", 1)).await.epoch;
    node.store.subscribe(&room).await.unwrap();
    node.heard.clear();
    let signal = payload::signal("u1", ["u2", "é"], "{\"type\":\"signal\"}");
    let ops = vec![
        Op::Signal {
            payload: signal.clone(),
        },
        Op::Signal {
            payload: signal.clone(),
        },
    ];
    for reply in node.apply(&room, ops).await {
        assert_eq!(ack(&reply), json!({}));
    }
    eventually("both signals", || async {
        node.heard.payloads(&room) == [signal.clone(), signal.clone()]
    })
    .await;
    let tail = node.joined(&room, Op::tail(since(&epoch, 1))).await;
    assert_eq!((tail.seq, tail.recovered), (1, true));
}

pub(crate) async fn only_subscribed_rooms_are_heard<B: Backend>() {
    let (node, rooms) = (node::<B>().await, [new_room(), new_room(), new_room()]);
    for room in &rooms {
        node.joined(room, enter("u1", 1)).await;
    }
    node.store.subscribe(&rooms[0]).await.unwrap();
    node.store.subscribe(&rooms[1]).await.unwrap();
    node.store.unsubscribe(&rooms[1]);
    // The order of the calls holds: when this one is confirmed, the end before it has been carried out.
    node.store.subscribe(&rooms[0]).await.unwrap();
    for room in &rooms {
        node.ack(room, send("u1", "1")).await;
    }
    node.heard.until(&rooms[0], 2).await;
    for room in &rooms[1..] {
        assert!(B::HEARS_ALL || node.heard.payloads(room).is_empty());
    }
    // Again, after an end that has not been confirmed.
    node.store.unsubscribe(&rooms[0]);
    node.store.subscribe(&rooms[0]).await.unwrap();
    node.ack(&rooms[0], send("u1", "2")).await;
    node.heard.until(&rooms[0], 3).await;
    let seqs: Vec<_> = node
        .heard
        .events(&rooms[0])
        .iter()
        .map(|(seq, _)| *seq)
        .filter(|seq| *seq > 1)
        .collect();
    assert_eq!(seqs, [2, 3]);
}

pub(crate) async fn many_subscriptions_at_once<B: Backend>() {
    let node = Arc::new(node::<B>().await);
    let rooms: Vec<_> = (0..300).map(|_| new_room()).collect();
    let mut tasks = tokio::task::JoinSet::new();
    for room in rooms.clone() {
        let node = Arc::clone(&node);
        tasks.spawn(async move {
            node.store.subscribe(&room).await.unwrap();
            node.joined(&room, enter("u1", 1)).await;
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    for room in &rooms {
        node.heard.until(room, 1).await;
    }
}

/// Batches of several nodes, side by side, make one order that every node hears.
pub(crate) async fn nodes_agree_on_one_order<B: Backend>() {
    const BATCHES: u64 = 40;
    let room = new_room();
    let mut nodes = Vec::new();
    for index in 0..B::NODES {
        let node = node_number::<B>(index, StoreLimits::default()).await;
        node.store.subscribe(&room).await.unwrap();
        nodes.push(Arc::new(node));
    }
    let epoch = nodes[0].joined(&room, enter("u0", 0)).await.epoch;
    let mut tasks = tokio::task::JoinSet::new();
    for (index, node) in nodes.iter().enumerate() {
        let (node, room) = (Arc::clone(node), room.clone());
        tasks.spawn(async move {
            let id = format!("n{index}");
            let mut seqs = Vec::new();
            for batch in 0..BATCHES {
                let ops = (0..=batch % 4).map(|n| send(&id, &n.to_string())).collect();
                for reply in node.apply(&room, ops).await {
                    seqs.push(ack(&reply)["message"]["seq"].as_u64().unwrap());
                }
            }
            assert!(seqs.is_sorted());
            seqs
        });
    }
    let mut all = Vec::new();
    while let Some(seqs) = tasks.join_next().await {
        all.extend(seqs.unwrap());
    }
    all.sort_unstable();
    let last = 1 + all.len() as u64;
    assert_eq!(all, (2..=last).collect::<Vec<_>>());
    let tail = nodes[0].joined(&room, Op::tail(since(&epoch, 0))).await;
    let log: Vec<serde_json::Value> = tail
        .missed
        .iter()
        .map(|bytes| serde_json::from_slice(bytes).unwrap())
        .collect();
    for node in &nodes {
        node.heard.until(&room, last).await;
        let heard: Vec<_> = node
            .heard
            .events(&room)
            .into_iter()
            .map(|(_, event)| event)
            .collect();
        assert_eq!(heard, log);
    }
}
