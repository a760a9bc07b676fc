//! The order of events, resuming, and the bounds of the log.

use std::time::Duration;

use roomgate::store::{Joined, Op, StoreLimits};
use roomgate_shared::{ids::RoomId, protocol::event::EventType};
use serde_json::{Value, json};

use super::harness::*;

fn data(joined: &Joined) -> Value {
    serde_json::from_str(&joined.data).unwrap()
}

fn seqs(joined: &Joined) -> Vec<u64> {
    joined
        .missed
        .iter()
        .map(|bytes| {
            serde_json::from_slice::<Value>(bytes).unwrap()["seq"]
                .as_u64()
                .unwrap()
        })
        .collect()
}

async fn tail(node: &Node, room: &RoomId, epoch: &str, seq: u64) -> Joined {
    node.joined(room, Op::tail(since(epoch, seq))).await
}

pub(crate) async fn every_change_takes_the_next_seq<B: Backend>() {
    let (node, room) = (node::<B>().await, new_room());
    let ops = vec![
        enter("u1", 1),
        send("u1", "1"),
        broadcast("u1", "{\"event\":\"e\",\"payload\":[]}"),
        state(None),
        patch(&[("a", "1")], &[]),
        history(None, None, 1),
        presence("u1", &[("a", "1")], &[]),
        Op::Signal {
            payload: roomgate::store::payload::signal("u1", [], "{}"),
        },
        lose("u1", 1),
    ];
    let replies = node.apply(&room, ops).await;
    let epoch = joined(&replies[0]).epoch;
    let all = tail(&node, &room, &epoch, 0).await;
    assert!(all.recovered);
    assert_eq!(seqs(&all), (1..=all.seq).collect::<Vec<_>>());
    let mut last = 0;
    let mut kinds = Vec::new();
    for bytes in &all.missed {
        let event: Value = serde_json::from_slice(bytes).unwrap();
        let ts = event["ts"].as_u64().unwrap();
        assert!(ts >= last);
        last = ts;
        kinds.push(text(&event, "type"));
        assert_eq!(text(&event, "room"), room.as_str());
    }
    assert!(
        kinds
            .iter()
            .all(|kind| EventType::ALL.iter().any(|known| known.as_str() == kind))
    );
    assert_eq!(
        kinds[..4],
        ["presence", "message.sent", "broadcast", "state.patched"]
    );
    let event: Value = serde_json::from_slice(&all.missed[2]).unwrap();
    assert_eq!(
        (&event["by"], &event["data"]),
        (&json!("u1"), &json!({"event": "e", "payload": []}))
    );
}

pub(crate) async fn a_resume_brings_what_was_missed<B: Backend>() {
    let (node, room) = (node::<B>().await, new_room());
    let epoch = node.joined(&room, enter("u1", 1)).await.epoch;
    node.apply(&room, (0..5).map(|n| send("u1", &n.to_string())).collect())
        .await;
    let resumed = node.joined(&room, resume("u2", 2, &epoch, 3)).await;
    // Its own arrival included.
    assert_eq!(
        (resumed.recovered, resumed.seq, seqs(&resumed)),
        (true, 7, vec![4, 5, 6, 7])
    );
    let told = data(&resumed);
    assert_eq!(
        (&told["recovered"], &told["missed"], &told["seq"]),
        (&json!(true), &json!(4), &json!(7))
    );
    assert_eq!(
        (&told["you"]["id"], &told["epoch"]),
        (&json!("u2"), &json!(epoch))
    );
    assert!(told.get("state").is_none());
    // Nothing missed: the same connection once more.
    let again = node.joined(&room, resume("u2", 2, &epoch, 7)).await;
    assert_eq!((again.recovered, again.seq, again.missed.len()), (true, 7, 0));
    // From the very beginning.
    assert_eq!(
        seqs(&node.joined(&room, resume("u2", 2, &epoch, 0)).await),
        [1, 2, 3, 4, 5, 6, 7]
    );
    let nothing = tail(&node, &room, &epoch, 7).await;
    assert_eq!((nothing.recovered, nothing.missed.len()), (true, 0));
    assert!(data(&nothing).get("you").is_none());
    assert_eq!(seqs(&tail(&node, &room, &epoch, 5).await), [6, 7]);
}

pub(crate) async fn resumes_of_a_batch_have_their_own_start<B: Backend>() {
    let (node, room) = (node::<B>().await, new_room());
    let epoch = node.joined(&room, enter("u1", 1)).await.epoch;
    node.apply(&room, (0..4).map(|n| send("u1", &n.to_string())).collect())
        .await;
    let ops = vec![
        resume("u2", 2, &epoch, 5),
        Op::tail(since(&epoch, 2)),
        resume("u3", 3, "other", 1),
        enter("u4", 4),
        send("u1", "9"),
        resume("u5", 5, &epoch, 4),
    ];
    let replies = node.apply(&room, ops).await;
    let all: Vec<_> = [0, 1, 2, 3, 5].map(|at| joined(&replies[at])).to_vec();
    assert!(all.iter().all(|joined| joined.seq == all[0].seq));
    let last = all[0].seq;
    assert_eq!(seqs(&all[0]), (6..=last).collect::<Vec<_>>());
    assert_eq!(seqs(&all[1]), (3..=last).collect::<Vec<_>>());
    assert_eq!(seqs(&all[4]), (5..=last).collect::<Vec<_>>());
    assert_eq!(
        (&data(&all[2])["reason"], &data(&all[3])["reason"]),
        (&json!("epoch_changed"), &json!("new"))
    );
}

pub(crate) async fn what_cannot_be_resumed_says_why<B: Backend>() {
    let (node, room) = (node::<B>().await, new_room());
    // The room is made by the join that wants to resume another life of it.
    let first = node.joined(&room, resume("u1", 1, "gone", 4)).await;
    assert_eq!(
        (first.recovered, &data(&first)["reason"]),
        (false, &json!("epoch_changed"))
    );
    let epoch = first.epoch;
    let ahead = node.joined(&room, resume("u1", 1, &epoch, 2)).await;
    assert_eq!(
        (ahead.recovered, &data(&ahead)["reason"]),
        (false, &json!("ahead"))
    );
    assert_eq!(data(&ahead)["users"][0]["id"], "u1");
    let tail = tail(&node, &room, "", 0).await;
    assert_eq!(
        (tail.recovered, &data(&tail)["reason"]),
        (false, &json!("epoch_changed"))
    );
    let picture = data(&tail);
    assert!(picture.get("you").is_none() && picture["room"]["id"] == json!(room.as_str()));
}

/// Sends `count` messages one by one; the last `seq`.
async fn fill(node: &Node, room: &RoomId, count: u64, body: &str) -> u64 {
    let mut seq = 0;
    for _ in 0..count {
        seq = node.ack(room, send("u1", body)).await["message"]["seq"]
            .as_u64()
            .unwrap();
    }
    seq
}

/// The longest resume that the log allows.
async fn reach(node: &Node, room: &RoomId, epoch: &str, seq: u64) -> u64 {
    let mut reach = 0;
    for back in 0..=seq {
        let tail = tail(node, room, epoch, seq - back).await;
        if !tail.recovered {
            assert_eq!(data(&tail)["reason"], "too_old");
            break;
        }
        assert_eq!(seqs(&tail), (seq - back + 1..=seq).collect::<Vec<_>>());
        reach = back;
    }
    reach
}

pub(crate) async fn the_log_is_bounded_by_number<B: Backend>() {
    let limits = StoreLimits {
        log_events: 20,
        ..StoreLimits::default()
    };
    let (node, room) = (node_with::<B>(limits).await, new_room());
    let epoch = node.joined(&room, enter("u1", 1)).await.epoch;
    let seq = fill(&node, &room, 60, "1").await;
    assert_eq!(reach(&node, &room, &epoch, seq).await, 20);
    // A batch of more than the log holds.
    let replies = node
        .apply(&room, (0..50).map(|_| send("u1", "2")).collect())
        .await;
    let seq = ack(&replies[49])["message"]["seq"].as_u64().unwrap();
    assert_eq!(reach(&node, &room, &epoch, seq).await, 20);
    let late = node.joined(&room, resume("u2", 2, &epoch, 30)).await;
    assert_eq!(
        (late.recovered, &data(&late)["reason"]),
        (false, &json!("too_old"))
    );
}

pub(crate) async fn the_log_is_bounded_by_bytes<B: Backend>() {
    let limits = StoreLimits {
        log_bytes: 32 * 1024,
        ..StoreLimits::default()
    };
    let (node, room) = (node_with::<B>(limits).await, new_room());
    let epoch = node.joined(&room, enter("u1", 1)).await.epoch;
    let body = format!("\"{}\"", "x".repeat(1000));
    let seq = fill(&node, &room, 70, &body).await;
    // Some 1,230 bytes an event.
    let reach = reach(&node, &room, &epoch, seq).await;
    assert!((20..=27).contains(&reach), "{reach}");
    // One event above the bound pushes all others out.
    let body = format!("\"{}\"", "x".repeat(40_000));
    let seq = fill(&node, &room, 1, &body).await;
    assert!(!tail(&node, &room, &epoch, seq - 2).await.recovered);
    assert!(tail(&node, &room, &epoch, seq).await.recovered);
    let seq = fill(&node, &room, 1, "1").await;
    assert!(tail(&node, &room, &epoch, seq - 1).await.recovered);
}

pub(crate) async fn the_log_is_bounded_by_age<B: Backend>() {
    let limits = StoreLimits {
        log_age: Duration::from_millis(300),
        ..StoreLimits::default()
    };
    let (node, room) = (node_with::<B>(limits).await, new_room());
    let epoch = node.joined(&room, enter("u1", 1)).await.epoch;
    let old = fill(&node, &room, 3, "1").await;
    let mut new = old;
    eventually("the events are too old", async || {
        new = node.ack(&room, broadcast("u1", "{}")).await["seq"]
            .as_u64()
            .unwrap();
        !tail(&node, &room, &epoch, old - 1).await.recovered
    })
    .await;
    assert!(tail(&node, &room, &epoch, new).await.recovered);
    let new = fill(&node, &room, 40, "2").await;
    let last = tail(&node, &room, &epoch, new - 1).await;
    assert_eq!((last.recovered, last.missed.len()), (true, 1));
    assert!(!tail(&node, &room, &epoch, old - 1).await.recovered);
}
