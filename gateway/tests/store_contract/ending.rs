//! A room's end, its way out of the store, and back in.

use std::time::Duration;

use roomgate::store::{
    Action, Done, Op, StoreLimits,
    export::{Exported, RestoredMessage, RoomData},
};
use roomgate_shared::{
    ids::RoomId,
    protocol::{JsonText, codes::ErrorCode, command::RoomStatus, event::message_tail},
};
use serde_json::{Value, json};

use super::{
    commands::once,
    governance::{configure, moderate, status},
    harness::*,
};

async fn export(node: &Node, room: &RoomId, from: u64) -> Exported {
    match node.one(room, Op::Export { from }).await {
        Ok(Done::Exported(exported)) => exported,
        other => panic!("no export: {other:?}"),
    }
}

/// All of a completed room.
async fn whole(node: &Node, room: &RoomId) -> (RoomData, Vec<String>) {
    let first = export(node, room, 0).await;
    let data = *first.data.unwrap();
    let (mut messages, mut next) = (first.messages, first.next);
    while let Some(from) = next {
        let part = export(node, room, from).await;
        assert!(part.data.is_none());
        messages.extend(part.messages);
        next = part.next;
    }
    let text = |bytes: &bytes::Bytes| String::from_utf8(bytes.to_vec()).unwrap();
    (data, messages.iter().map(text).collect())
}

fn restored(messages: &[String]) -> Op {
    let each = messages.iter().map(|message| {
        let value: Value = serde_json::from_str(message).unwrap();
        RestoredMessage {
            id: text(&value, "id"),
            ts: value["ts"].as_u64().unwrap(),
            text: message.clone(),
        }
    });
    Op::RestoreMessages {
        messages: each.collect(),
    }
}

/// A room with something of everything.
async fn furnished(node: &Node, room: &RoomId) -> String {
    let mut first = join("u1", 1);
    first.presence = fields(&[("colour", "\"red\""), ("n", "1.0")]);
    let epoch = node.joined(room, Op::Join(first)).await.epoch;
    node.joined(room, enter("u\"2", 2)).await;
    node.joined(room, enter("gone", 3)).await;
    node.ack(room, leave("gone", 3)).await;
    node.one(room, positions(&[("u1", "{\"x\":1.50}")]))
        .await
        .unwrap();
    node.ack(
        room,
        patch(&[("phase", "\"play\""), ("board", "[[0,1.0],{}]")], &[]),
    )
    .await;
    node.ack(room, increment("count", 3.0)).await;
    node.apply(
        room,
        (0..600)
            .map(|n| send("u1", &format!("{{\"n\":{n},\"f\":1.0}}")))
            .collect(),
    )
    .await;
    let image = message_tail("u1", "image", "\"data:image/png;base64,AAAA\"");
    let image = Op::MessageSend {
        by: user("u1"),
        key: None,
        tail: image,
    };
    let message = text(&node.ack(room, image).await["message"], "id");
    let edit = Op::MessageEdit {
        by: user("u1"),
        key: None,
        message_id: message,
        body: JsonText::from_trusted("\"data:image/png;base64,BBBB\""),
        if_version: None,
        moderates: false,
    };
    node.ack(room, edit).await;
    node.ack(
        room,
        configure(
            &[("name", "\"Tour\""), ("features.a.b", "[1.0]"), ("capacity", "9")],
            &[],
        ),
    )
    .await;
    node.ack(room, moderate(Action::Ban, "bad", None)).await;
    node.ack(room, moderate(Action::Mute, "loud", Some(3_600_000)))
        .await;
    epoch
}

pub(crate) async fn a_completed_room_takes_nothing_more<B: Backend>() {
    let (node, room) = (node::<B>().await, new_room());
    let epoch = furnished(&node, &room).await;
    let before = node.picture(&room).await["seq"].as_u64().unwrap();
    for op in [
        Op::Export { from: 0 },
        Op::Remove {
            at: since(&epoch, before),
        },
    ] {
        assert_eq!(node.refusal(&room, op).await.code, ErrorCode::Conflict);
    }
    let seq = node.ack(&room, status(RoomStatus::Completed)).await["seq"].clone();
    assert_eq!(seq, before + 1);
    let all = vec![
        enter("u1", 1),
        enter("new", 9),
        send("u1", "1"),
        broadcast("u1", "{}"),
        patch(&[("a", "1")], &[]),
        presence("u1", &[("a", "1")], &[]),
        history(None, None, 10),
        list(None, 10),
        state(None),
        moderate(Action::Kick, "u1", None),
        configure(&[("capacity", "3")], &[]),
        status(RoomStatus::Active),
        status(RoomStatus::Completed),
    ];
    for reply in node.apply(&room, all.clone()).await {
        assert_eq!(reply.unwrap_err().code, ErrorCode::RoomClosed);
    }
    for op in all {
        assert_eq!(node.refusal(&room, op).await.code, ErrorCode::RoomClosed);
    }
    // Connections go, and change nothing of what is archived.
    node.ack(&room, lose("u1", 1)).await;
    node.ack(&room, leave("u\"2", 2)).await;
    let tail = node.joined(&room, Op::tail(since(&epoch, before))).await;
    assert_eq!((tail.missed.len(), tail.seq), (1, before + 1));
    assert!(node.sweep(&room).await.completed);
    let (data, _) = whole(&node, &room).await;
    assert_eq!((data.seq, data.members.len()), (before + 1, 2));
}

pub(crate) async fn a_room_goes_out_and_comes_back_equal<B: Backend>() {
    let (node, room) = (node::<B>().await, new_room());
    let epoch = furnished(&node, &room).await;
    let picture = node.picture(&room).await;
    node.ack(&room, status(RoomStatus::Completed)).await;
    let (data, messages) = whole(&node, &room).await;
    assert_eq!(data.epoch, epoch);
    assert_eq!(messages.len(), 601);
    assert!(
        messages[0].contains("\"body\":{\"n\":0,\"f\":1.0},\"version\":1}"),
        "{}",
        messages[0]
    );
    assert!(messages[600].contains("BBBB") && messages[600].contains("\"version\":2"));
    assert_eq!(data.state["board"].as_str(), "[[0,1.0],{}]");
    assert_eq!(data.settings["features.a.b"].as_str(), "[1.0]");
    assert_eq!((data.peak, data.joins), (3, 3));
    assert_eq!(data.seq - data.others, 601);
    assert_eq!(data.bans, [("bad".to_owned(), None)]);
    assert_eq!((data.mutes.len(), data.mutes[0].0.as_str()), (1, "loud"));
    let stale = Op::Remove {
        at: since(&epoch, data.seq - 1),
    };
    assert_eq!(node.refusal(&room, stale).await.code, ErrorCode::Conflict);
    node.ack(
        &room,
        Op::Remove {
            at: since(&epoch, data.seq),
        },
    )
    .await;
    assert_eq!(
        node.refusal(&room, send("u1", "1")).await.code,
        ErrorCode::NotFound
    );

    for part in messages.chunks(256) {
        node.ack(&room, restored(part)).await;
    }
    assert_eq!(
        node.refusal(&room, history(None, None, 1)).await.code,
        ErrorCode::NotFound,
        "not yet"
    );
    node.ack(&room, Op::Restore(Box::new(data.clone()))).await;
    // A second node that does the same comes too late, and harms nothing.
    node.ack(&room, restored(&messages[..1])).await;
    node.ack(&room, Op::Restore(Box::new(data.clone()))).await;

    let after = node.picture(&room).await;
    for field in ["state", "version", "messages", "members"] {
        assert_eq!(after[field], picture[field], "{field}");
    }
    assert_eq!(after["room"]["config"], picture["room"]["config"]);
    assert_eq!(
        (&after["room"]["status"], &after["seq"]),
        (&json!("active"), &json!(data.seq))
    );
    for (was, is) in picture["users"]
        .as_array()
        .unwrap()
        .iter()
        .zip(after["users"].as_array().unwrap())
    {
        for field in ["name", "presence", "position", "joinedAt"] {
            assert_eq!(was[field], is[field], "{field}");
        }
        assert_eq!(is["status"], "away");
    }
    // The same room, of which nobody knows the past any more: not even who has seen its end, for it is open again.
    for seq in [data.seq - 3, data.seq] {
        let joined = node.joined(&room, resume("u1", 1, &epoch, seq)).await;
        assert!(!joined.recovered && joined.epoch != epoch && joined.epoch.starts_with(&epoch[..10]));
    }
    assert_eq!(node.refusal(&room, enter("bad", 5)).await.code, ErrorCode::Banned);
    assert_eq!(
        node.refusal(&room, send("loud", "1")).await.code,
        ErrorCode::Muted
    );
    let cursor = text(&serde_json::from_str(&messages[300]).unwrap(), "id");
    let page = node.ack(&room, history(None, Some(&cursor), 2)).await;
    assert_eq!(
        page["messages"][0],
        serde_json::from_str::<Value>(&messages[301]).unwrap()
    );
    // It goes on, and out once more.
    let sent = node.ack(&room, send("u1", "\"new\"")).await;
    assert!(text(&sent["message"], "id") > cursor);
    node.ack(&room, status(RoomStatus::Completed)).await;
    let (again, messages_again) = whole(&node, &room).await;
    assert_eq!(messages_again[..601], messages[..]);
    assert_eq!(
        (again.settings, again.state, again.created),
        (data.settings, data.state, data.created)
    );
    assert_eq!(again.seq - again.others, 602);
}

pub(crate) async fn a_room_that_is_there_is_not_restored_over<B: Backend>() {
    let (node, room) = (node::<B>().await, new_room());
    furnished(&node, &room).await;
    node.ack(&room, status(RoomStatus::Completed)).await;
    let (data, messages) = whole(&node, &room).await;
    node.ack(
        &room,
        Op::Remove {
            at: since(&data.epoch, data.seq),
        },
    )
    .await;
    node.ack(&room, restored(&messages[..10])).await;
    // Somebody makes it anew in between.
    node.joined(&room, enter("u1", 1)).await;
    node.ack(&room, restored(&messages[10..20])).await;
    node.ack(&room, Op::Restore(Box::new(data))).await;
    let picture = node.picture(&room).await;
    assert_eq!(
        (&picture["messages"], &picture["state"]),
        (&json!([]), &json!({}))
    );
    assert_eq!(picture["members"], 1);
}

pub(crate) async fn trouble_keeps_the_room<B: Backend>() {
    let (node, room) = (node::<B>().await, new_room());
    furnished(&node, &room).await;
    let trouble = |pause| Op::Trouble {
        reason: "the folder is read-only".to_owned(),
        pause,
    };
    let refusal = node.refusal(&room, trouble(Duration::ZERO)).await;
    assert_eq!(refusal.code, ErrorCode::Conflict);
    node.ack(&room, status(RoomStatus::Completed)).await;
    node.ack(&room, trouble(Duration::ZERO)).await;
    assert!(node.sweep(&room).await.completed);
    // Where another try is worth nothing for a time, it is not handed out before.
    node.ack(&room, trouble(Duration::from_secs(3600))).await;
    let swept = node.sweep(&room).await;
    assert!(
        !swept.completed && swept.next > swept.now + 3_500_000,
        "{swept:?}"
    );
    assert_eq!(whole(&node, &room).await.1.len(), 601);
}

/// Completes a room, takes it out and puts it back; what it was, with `change`.
async fn reopened(node: &Node, room: &RoomId, change: impl FnOnce(&mut RoomData)) -> RoomData {
    node.ack(room, status(RoomStatus::Completed)).await;
    let (mut data, messages) = whole(node, room).await;
    let at = since(&data.epoch, data.seq);
    node.ack(room, Op::Remove { at }).await;
    change(&mut data);
    for part in messages.chunks(256) {
        node.ack(room, restored(part)).await;
    }
    node.ack(room, Op::Restore(Box::new(data.clone()))).await;
    data
}

pub(crate) async fn a_command_happens_once_over_the_end_of_a_room<B: Backend>() {
    let (node, room) = (node::<B>().await, new_room());
    node.joined(&room, enter("u1", 1)).await;
    let commands = || {
        [
            once("k1", 1, send("u1", "\"hello\"")),
            once("k2", 2, increment("n", 1.0)),
        ]
    };
    let mut firsts = Vec::new();
    for op in commands() {
        firsts.push(node.ack(&room, op).await);
    }
    // Twice, so that the events are of an epoch before the last one.
    for _ in 0..2 {
        reopened(&node, &room, |_| {}).await;
        for (op, first) in commands().into_iter().zip(&firsts) {
            let Ok(Done::Again(again)) = node.one(&room, op).await else {
                panic!("it has happened twice")
            };
            assert_eq!(serde_json::from_str::<Value>(&again).unwrap(), *first);
        }
    }
    assert_eq!(node.picture(&room).await["state"]["n"], 1);
    let messages = node.ack(&room, history(None, None, 5)).await["messages"].clone();
    assert_eq!(messages, json!([firsts[0]["message"]]));
}

pub(crate) async fn a_room_goes_on_behind_a_clock_that_was_ahead<B: Backend>() {
    let (node, room) = (node::<B>().await, new_room());
    node.joined(&room, enter("u1", 1)).await;
    let was = reopened(&node, &room, |data| data.completed += 60_000).await;
    let sent = node.ack(&room, send("u1", "1")).await;
    assert!(sent["message"]["ts"].as_u64().unwrap() >= was.completed);
    node.ack(&room, status(RoomStatus::Completed)).await;
    // The newest archive is found by it.
    assert!(whole(&node, &room).await.0.completed >= was.completed);
}

pub(crate) async fn a_completed_room_is_handed_out_until_it_is_gone<B: Backend>() {
    let nodes = apart::<B>(StoreLimits::default()).await;
    let (node, room) = (nodes.node(0), new_room());
    let epoch = node.joined(&room, enter("u1", 1)).await.epoch;
    node.ack(&room, status(RoomStatus::Completed)).await;
    let other = nodes.node(1);
    let mut claimed = Vec::new();
    eventually("the room is handed out", async || {
        claimed = other.claim(10, Duration::from_millis(100)).await;
        !claimed.is_empty()
    })
    .await;
    assert_eq!(claimed, std::slice::from_ref(&room));
    let swept = other.sweep(&room).await;
    assert!(swept.completed && swept.next > swept.now);
    node.ack(&room, Op::Remove { at: since(&epoch, 2) }).await;
    assert!(
        node.store.heads(std::slice::from_ref(&room)).await[0]
            .as_ref()
            .unwrap()
            .is_none()
    );
}

pub(crate) async fn an_idle_room_may_be_completed_by_a_sweep<B: Backend>() {
    let limits = StoreLimits {
        active_ttl: Duration::from_millis(400),
        ..StoreLimits::default()
    };
    let nodes = apart::<B>(limits).await;
    let (node, room) = (nodes.node(0), new_room());
    node.joined(&room, enter("u1", 1)).await;
    node.ack(&room, configure(&[("archiveIdle", "true")], &[])).await;
    node.ack(&room, patch(&[("a", "1")], &[])).await;
    assert!(!node.sweep(&room).await.completed);
    eventually("its life ends", async || node.sweep(&room).await.completed).await;
    let (data, _) = whole(node, &room).await;
    assert_eq!(data.state["a"].as_str(), "1");
}
