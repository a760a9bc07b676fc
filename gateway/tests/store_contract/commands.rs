//! Commands with an id happen once.

use std::time::Duration;

use roomgate::store::{CommandKey, Done, Op, Reply, StoreLimits};
use roomgate_shared::{ids::CommandId, protocol::ErrorCode};

use super::harness::*;

/// The operation as the command `id` of its user.
pub(crate) fn once(id: &str, fingerprint: u64, mut op: Op) -> Op {
    let (Op::PresenceUpdate { key, .. }
    | Op::StatePatch { key, .. }
    | Op::MessageSend { key, .. }
    | Op::Broadcast { key, .. }) = &mut op
    else {
        panic!("{op:?} has no key");
    };
    *key = Some(CommandKey {
        id: CommandId::new(id).unwrap(),
        fingerprint,
    });
    op
}

fn again(reply: &Reply) -> String {
    match reply {
        Ok(Done::Again(text)) => text.clone(),
        Ok(Done::Ack(_) | Done::Joined(_) | Done::Swept(_) | Done::Buried(_) | Done::Exported(_))
        | Err(_) => {
            panic!("not again: {reply:?}")
        }
    }
}

fn first(reply: &Reply) -> String {
    match reply {
        Ok(Done::Ack(text)) => text.clone(),
        Ok(Done::Again(_) | Done::Joined(_) | Done::Swept(_) | Done::Buried(_) | Done::Exported(_))
        | Err(_) => {
            panic!("not for the first time: {reply:?}")
        }
    }
}

/// One of each kind, all by `u1`.
fn each() -> [Op; 4] {
    [
        once("k1", 1, send("u1", "\"hello\"")),
        once("k2", 2, broadcast("u1", r#"{"event":"e","payload":1}"#)),
        once("k3", 3, increment("n", 1.0)),
        once("k4", 4, presence("u1", &[("a", "1")], &[])),
    ]
}

pub(crate) async fn a_command_that_comes_again_is_answered_as_before<B: Backend>() {
    let (node, room) = (node::<B>().await, new_room());
    node.joined(&room, enter("u1", 1)).await;
    let firsts: Vec<String> = node.apply(&room, each().into()).await.iter().map(first).collect();
    let before = node.picture(&room).await;
    // Alone, and all of them together.
    for (op, ack) in each().into_iter().zip(&firsts) {
        assert_eq!(again(&node.one(&room, op).await), *ack);
    }
    let replies = node.apply(&room, each().into()).await;
    assert_eq!(replies.iter().map(again).collect::<Vec<_>>(), firsts);
    assert_eq!(node.picture(&room).await, before);
    assert_eq!(before["seq"], 5);
}

pub(crate) async fn a_command_may_stand_twice_in_a_batch<B: Backend>() {
    let (node, room) = (node::<B>().await, new_room());
    node.joined(&room, enter("u1", 1)).await;
    let ops: Vec<Op> = each().into_iter().flat_map(|op| [op.clone(), op]).collect();
    let replies = node.apply(&room, ops).await;
    for pair in replies.chunks(2) {
        assert_eq!(first(&pair[0]), again(&pair[1]));
    }
    assert_eq!(node.picture(&room).await["seq"], 5);
}

pub(crate) async fn other_nodes_remember_too<B: Backend>() {
    let room = new_room();
    let node = node_number::<B>(0, StoreLimits::default()).await;
    node.joined(&room, enter("u1", 1)).await;
    let acks: Vec<String> = node.apply(&room, each().into()).await.iter().map(first).collect();
    for index in 1..B::NODES {
        let other = node_number::<B>(index, StoreLimits::default()).await;
        let replies = other.apply(&room, each().into()).await;
        assert_eq!(replies.iter().map(again).collect::<Vec<_>>(), acks);
    }
}

pub(crate) async fn an_id_stands_for_one_command<B: Backend>() {
    let (node, room) = (node::<B>().await, new_room());
    node.apply(&room, vec![enter("u1", 1), enter("u2", 2)]).await;
    node.apply(&room, each().into()).await;
    for op in [
        once("k1", 9, send("u1", "\"other\"")),
        once("k2", 9, increment("n", 1.0)),
        once("k3", 9, presence("u1", &[("a", "2")], &[])),
        once("k4", 9, broadcast("u1", "{}")),
    ] {
        let refusal = node.refusal(&room, op).await;
        assert_eq!(refusal.code, ErrorCode::IdConflict);
    }
    assert_eq!(node.picture(&room).await["seq"], 5);
    // Another user's ids are its own.
    first(&node.one(&room, once("k1", 9, send("u2", "\"hello\""))).await);
}

pub(crate) async fn a_refusal_is_not_remembered<B: Backend>() {
    let (node, room) = (node::<B>().await, new_room());
    node.joined(&room, enter("u1", 1)).await;
    let mut op = once("k1", 1, patch(&[("a", "1")], &[]));
    if let Op::StatePatch { if_version, .. } = &mut op {
        *if_version = Some(1);
    }
    let refusal = node.refusal(&room, op.clone()).await;
    assert_eq!(refusal.code, ErrorCode::Conflict);
    node.ack(&room, patch(&[("b", "1")], &[])).await;
    let ack = first(&node.one(&room, op.clone()).await);
    // The version has moved on, and the answer is the first one all the same.
    assert_eq!(again(&node.one(&room, op).await), ack);
}

/// Sent again after a later command, it would undo that.
pub(crate) async fn a_command_that_changed_nothing_is_remembered_too<B: Backend>() {
    let (node, room) = (node::<B>().await, new_room());
    node.joined(&room, enter("u1", 1)).await;
    let sets = |id: &str, value: &str| once(id, value.len() as u64, presence("u1", &[("a", value)], &[]));
    node.ack(&room, sets("k0", "1")).await;
    let second = first(&node.one(&room, sets("k1", "1")).await);
    let third = first(&node.one(&room, sets("k2", "22")).await);
    let before = node.picture(&room).await;
    assert_eq!(again(&node.one(&room, sets("k1", "1")).await), second);
    assert_eq!(again(&node.one(&room, sets("k2", "22")).await), third);
    assert_eq!(node.picture(&room).await, before);
    // In a batch, behind the command that made it so.
    let replies = node
        .apply(&room, vec![sets("k3", "333"), sets("k4", "333")])
        .await;
    assert_eq!(first(&replies[0]), first(&replies[1]));
    first(&node.one(&room, sets("k5", "4444")).await);
    assert_eq!(
        again(&node.one(&room, sets("k4", "333")).await),
        first(&replies[1])
    );
    let refusal = node.refusal(&room, sets("k4", "4444")).await;
    assert_eq!(refusal.code, ErrorCode::IdConflict);
}

pub(crate) async fn many_commands_at_once_are_remembered<B: Backend>() {
    let (node, room) = (node::<B>().await, new_room());
    node.joined(&room, enter("u1", 1)).await;
    let ops = |from: usize| -> Vec<Op> {
        (from..from + 200)
            .map(|k| once(&format!("k{k}"), k as u64, send("u1", &k.to_string())))
            .collect()
    };
    let acks: Vec<String> = node.apply(&room, ops(0)).await.iter().map(first).collect();
    let replies = node.apply(&room, ops(100)).await;
    let (old, new) = replies.split_at(100);
    assert_eq!(old.iter().map(again).collect::<Vec<_>>(), acks[100..]);
    assert_eq!(
        ack(&new[99])["message"]["seq"],
        1 + 200 + 100,
        "the new ones follow each other"
    );
    assert_eq!(node.picture(&room).await["seq"], 301);
}

pub(crate) async fn commands_are_forgotten_after_their_time<B: Backend>() {
    let dedupe = Duration::from_millis(300);
    let limits = StoreLimits {
        dedupe,
        ..StoreLimits::default()
    };
    let (node, room) = (node_with::<B>(limits).await, new_room());
    node.joined(&room, enter("u1", 1)).await;
    let op = || once("k1", 1, send("u1", "1"));
    let start = tokio::time::Instant::now();
    first(&node.one(&room, op()).await);
    let mut count = 0;
    eventually("the command is forgotten", || {
        count += 1;
        let number = count;
        let (node, room) = (&node, &room);
        async move {
            // Others go on, so that the windows of time pass.
            let other = once(&format!("other-{number}"), 1, send("u1", "2"));
            first(&node.one(room, other).await);
            let reply = node.one(room, op()).await;
            matches!(reply, Ok(Done::Ack(_)))
        }
    })
    .await;
    assert!(start.elapsed() >= dedupe, "forgotten after {:?}", start.elapsed());
}

pub(crate) async fn heads_tell_where_rooms_stand<B: Backend>() {
    let node = node::<B>().await;
    let rooms: Vec<_> = (0..50).map(|_| new_room()).collect();
    let mut expected = Vec::new();
    for (k, room) in rooms.iter().enumerate() {
        if k % 3 == 0 {
            expected.push(None);
            continue;
        }
        let epoch = node.joined(room, enter("u1", 1)).await.epoch;
        node.apply(room, (0..k).map(|_| send("u1", "1")).collect()).await;
        expected.push(Some(since(&epoch, 1 + k as u64)));
    }
    let heads = node.store.heads(&rooms).await;
    let found: Vec<_> = heads
        .into_iter()
        .map(|head| {
            head.unwrap().map(|head| {
                assert!(!head.is_due);
                head.at
            })
        })
        .collect();
    assert_eq!(found, expected);
}
