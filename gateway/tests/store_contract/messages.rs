//! Messages and their history.

use std::time::Duration;

use roomgate::store::{Join, StoreLimits};
use roomgate_shared::{
    ids::RoomId,
    protocol::{
        codes::ErrorCode,
        event::{EventType, event_text, message_id, message_tail, message_text},
    },
};
use serde_json::{Value, json};

use super::harness::*;

pub(crate) async fn a_message_is_acknowledged_as_it_is_sent_to_all<B: Backend>() {
    let (node, room) = (node::<B>().await, new_room());
    let id = "u\"1";
    let epoch = node.joined(&room, enter(id, 1)).await.epoch;
    let body = "{\"text\":\"é \\\"\\u001e\",\"n\":1.0}";
    let reply = node.one(&room, send(id, body)).await;
    let Ok(roomgate::store::Done::Ack(ack)) = reply else {
        panic!("{reply:?}")
    };
    let message: Value = serde_json::from_str(&ack).unwrap();
    let ts = message["message"]["ts"].as_u64().unwrap();
    let expected = message_text(&epoch, 2, ts, &message_tail(id, "text", body));
    assert_eq!(ack, format!("{{\"message\":{expected}}}"));
    let tail = node
        .joined(&room, roomgate::store::Op::tail(since(&epoch, 1)))
        .await;
    let event = event_text(EventType::MessageSent, room.as_str(), 2, ts, Some(id), &expected);
    assert_eq!(tail.missed, [event]);
}

pub(crate) async fn identical_messages_are_two<B: Backend>() {
    let (node, room) = (node::<B>().await, new_room());
    node.joined(&room, enter("u1", 1)).await;
    let replies = node
        .apply(&room, vec![send("u1", "\"same\""), send("u1", "\"same\"")])
        .await;
    let ids: Vec<_> = replies
        .iter()
        .map(|reply| text(&ack(reply)["message"], "id"))
        .collect();
    assert!(ids[0] < ids[1]);
    let page = node.ack(&room, history(None, None, 10)).await;
    assert_eq!(bodies(&page["messages"]), [json!("same"), json!("same")]);
}

/// A room with messages 1 to `count`; their ids.
async fn filled(node: &Node, room: &RoomId, count: u64) -> Vec<String> {
    node.joined(room, enter("u1", 1)).await;
    let ops = (1..=count)
        .map(|number| send("u1", &number.to_string()))
        .collect();
    node.apply(room, ops)
        .await
        .iter()
        .map(|reply| text(&ack(reply)["message"], "id"))
        .collect()
}

fn numbers(page: &Value) -> Vec<u64> {
    page["messages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|message| message["body"].as_u64().unwrap())
        .collect()
}

pub(crate) async fn history_pages_both_ways<B: Backend>() {
    let (node, room) = (node::<B>().await, new_room());
    let ids = filled(&node, &room, 25).await;
    let id = |number: usize| Some(ids[number - 1].as_str());
    let page = node.ack(&room, history(None, None, 10)).await;
    assert_eq!(numbers(&page), (16..=25).collect::<Vec<_>>());
    assert_eq!((page["before"].as_str(), page.get("after")), (id(16), None));
    let page = node.ack(&room, history(page["before"].as_str(), None, 10)).await;
    assert_eq!(numbers(&page), (6..=15).collect::<Vec<_>>());
    assert_eq!((page["before"].as_str(), page["after"].as_str()), (id(6), id(15)));
    let page = node.ack(&room, history(page["before"].as_str(), None, 10)).await;
    assert_eq!(numbers(&page), (1..=5).collect::<Vec<_>>());
    assert_eq!((page.get("before"), page["after"].as_str()), (None, id(5)));
    let page = node.ack(&room, history(None, page["after"].as_str(), 10)).await;
    assert_eq!(numbers(&page), (6..=15).collect::<Vec<_>>());
    assert_eq!((page["before"].as_str(), page["after"].as_str()), (id(6), id(15)));
    let page = node.ack(&room, history(None, id(15), 10)).await;
    assert_eq!(
        (numbers(&page), page.get("after")),
        ((16..=25).collect::<Vec<_>>(), None)
    );
    assert_eq!(
        numbers(&node.ack(&room, history(None, id(25), 10)).await),
        [0_u64; 0]
    );
    assert_eq!(
        numbers(&node.ack(&room, history(id(1), None, 10)).await),
        [0_u64; 0]
    );
}

pub(crate) async fn cursors_need_not_exist<B: Backend>() {
    let (node, room) = (node::<B>().await, new_room());
    node.joined(&room, enter("u1", 1)).await;
    // Messages at 2, 4, 6, 8.
    let ops = (1..=4)
        .flat_map(|n| [send("u1", &n.to_string()), broadcast("u1", "{}")])
        .collect();
    let replies = node.apply(&room, ops).await;
    let first = text(&ack(&replies[0])["message"], "id");
    let epoch = first.rsplit_once('-').unwrap().0;
    let at = |seq| message_id(epoch, seq);
    for (before, after, expected) in [
        (Some(at(5)), None, vec![1, 2]),
        (None, Some(at(5)), vec![3, 4]),
        (Some(at(1)), None, vec![]),
        (None, Some(at(1)), vec![1, 2, 3, 4]),
        (Some(at(99)), None, vec![1, 2, 3, 4]),
        (None, Some(at(99)), vec![]),
    ] {
        let page = node
            .ack(&room, history(before.as_deref(), after.as_deref(), 10))
            .await;
        assert_eq!(numbers(&page), expected, "before {before:?} after {after:?}");
    }
    for bad in ["", "x", "-0000000001", "abc-", "abc-12x", "\u{1f600}"] {
        let refusal = node.refusal(&room, history(Some(bad), None, 10)).await;
        assert_eq!(refusal.code, ErrorCode::BadRequest, "{bad:?}");
        assert_eq!(
            node.refusal(&room, history(None, Some(bad), 10)).await.code,
            ErrorCode::BadRequest
        );
    }
}

pub(crate) async fn history_in_a_batch_sees_what_came_before_it<B: Backend>() {
    let (node, room) = (node::<B>().await, new_room());
    let ids = filled(&node, &room, 3).await;
    let ops = vec![
        send("u1", "4"),
        history(None, None, 2),
        send("u1", "5"),
        history(None, Some(&ids[2]), 9),
        history(Some(&ids[2]), None, 9),
    ];
    let replies = node.apply(&room, ops).await;
    assert_eq!(numbers(&ack(&replies[1])), [3, 4]);
    assert_eq!(numbers(&ack(&replies[3])), [4, 5]);
    assert_eq!(numbers(&ack(&replies[4])), [1, 2]);
}

pub(crate) async fn a_page_ends_at_its_bytes<B: Backend>() {
    let limits = StoreLimits {
        page_bytes: 1000,
        ..StoreLimits::default()
    };
    let (node, room) = (node_with::<B>(limits).await, new_room());
    node.joined(&room, enter("u1", 1)).await;
    let small = format!("\"{}\"", "s".repeat(200));
    let big = format!("\"{}\"", "b".repeat(3000));
    let ops = [&small, &small, &big, &small, &small, &small, &small]
        .map(|body| send("u1", body))
        .to_vec();
    let ids: Vec<_> = node
        .apply(&room, ops)
        .await
        .iter()
        .map(|reply| text(&ack(reply)["message"], "id"))
        .collect();
    let count = |page: &Value| page["messages"].as_array().unwrap().len();
    let newest = node.ack(&room, history(None, None, 50)).await;
    let here = count(&newest);
    // Each small one has 200 bytes of body and some 110 around it.
    assert!((2..=3).contains(&here), "{here}");
    assert_eq!(newest["before"].as_str(), Some(ids[7 - here].as_str()));
    // One at least, however big.
    let page = node.ack(&room, history(Some(&ids[3]), None, 50)).await;
    assert_eq!(
        (count(&page), page["messages"][0]["id"].as_str()),
        (1, Some(ids[2].as_str()))
    );
    let page = node.ack(&room, history(None, Some(&ids[0]), 50)).await;
    assert_eq!((count(&page), page["after"].as_str()), (1, Some(ids[1].as_str())));
    let page = node.ack(&room, history(None, Some(&ids[1]), 50)).await;
    assert_eq!((count(&page), page["after"].as_str()), (1, Some(ids[2].as_str())));
    // A snapshot is bounded in the same way.
    assert_eq!(
        snapshot(&node.one(&room, enter("u2", 2)).await).messages.len(),
        here
    );
}

pub(crate) async fn a_snapshot_brings_as_many_messages_as_asked<B: Backend>() {
    let (node, room) = (node::<B>().await, new_room());
    filled(&node, &room, 60).await;
    let ops = [(2, 0), (3, 3), (4, 50), (5, 200)]
        .map(|(number, messages)| {
            roomgate::store::Op::Join(Join {
                messages,
                ..join(&format!("u{number}"), number)
            })
        })
        .to_vec();
    let replies = node.apply(&room, ops).await;
    for (reply, expected) in replies.iter().zip([0, 3, 50, 60]) {
        let messages = snapshot(reply).messages;
        assert_eq!(messages.len(), expected);
        if let Some(last) = messages.last() {
            assert_eq!(
                (&last.body, last.version, last.kind.as_str()),
                (&json!(60), 1, "text")
            );
        }
    }
}

pub(crate) async fn messages_past_retention_are_not_returned<B: Backend>() {
    let limits = StoreLimits {
        retention: Duration::from_millis(400),
        ..StoreLimits::default()
    };
    let (node, room) = (node_with::<B>(limits).await, new_room());
    let ids = filled(&node, &room, 3).await;
    assert_eq!(numbers(&node.ack(&room, history(None, None, 9)).await), [1, 2, 3]);
    eventually("the messages are past retention", || async {
        numbers(&node.ack(&room, history(None, None, 9)).await).is_empty()
    })
    .await;
    assert!(
        snapshot(&node.one(&room, enter("u2", 2)).await)
            .messages
            .is_empty()
    );
    // Cursors of what is gone still work; many writes purge it.
    for start in [4, 24] {
        node.apply(
            &room,
            (start..start + 20).map(|n| send("u1", &n.to_string())).collect(),
        )
        .await;
    }
    let page = node.ack(&room, history(None, Some(&ids[1]), 3)).await;
    let numbers_after = numbers(&page);
    assert!(numbers_after.is_empty() || numbers_after.len() == 3, "{page}");
    assert!(numbers(&node.ack(&room, history(Some(&ids[1]), None, 9)).await).is_empty());
}
