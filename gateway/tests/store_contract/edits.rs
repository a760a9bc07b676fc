//! Messages after they were sent.

use std::time::Duration;

use roomgate::store::{CommandKey, Done, Op, StoreLimits};
use roomgate_shared::{
    ids::CommandId,
    protocol::{JsonText, codes::ErrorCode, event::message_tail},
};
use serde_json::{Value, json};

use super::harness::*;

fn edit(id: &str, message: &str, body: &str) -> Op {
    Op::MessageEdit {
        by: user(id),
        key: None,
        message_id: message.to_owned(),
        body: JsonText::from_trusted(body),
        if_version: None,
        moderates: false,
    }
}

fn delete(id: &str, message: &str) -> Op {
    Op::MessageDelete {
        by: user(id),
        key: None,
        message_id: message.to_owned(),
        moderates: false,
    }
}

fn as_moderator(mut op: Op) -> Op {
    if let Op::MessageEdit { moderates, .. } | Op::MessageDelete { moderates, .. } = &mut op {
        *moderates = true;
    }
    op
}

fn keyed(mut op: Op, id: &str) -> Op {
    if let Op::MessageEdit { key, .. } | Op::MessageDelete { key, .. } = &mut op {
        *key = Some(CommandKey {
            id: CommandId::new(id).unwrap(),
            fingerprint: 7,
        });
    }
    op
}

fn missing(from: u64, to: u64, ids: &[(&str, Option<u64>)]) -> Op {
    let ids = ids.iter().map(|(id, version)| ((*id).to_owned(), *version));
    Op::MessageMissing {
        from,
        to,
        ids: ids.collect(),
    }
}

/// Sends a message; what was acknowledged.
async fn sent(node: &Node, room: &roomgate_shared::ids::RoomId, by: &str, body: &str) -> Value {
    node.ack(room, send(by, body)).await["message"].clone()
}

pub(crate) async fn an_edit_changes_the_body_and_nothing_else<B: Backend>() {
    let (node, room) = (node::<B>().await, new_room());
    let id = "u\"body\":1\\";
    let epoch = node.joined(&room, enter(id, 1)).await.epoch;
    let before = sent(&node, &room, id, r#"{"version":1,"n":1.0}"#).await;
    let message = text(&before, "id");
    let body = r#"{"text":"é \"","n":100.0,"version":9,"x":",\"version\":3}"}"#;
    let reply = node.one(&room, edit(id, &message, body)).await;
    let Ok(Done::Ack(ack)) = reply else {
        panic!("{reply:?}")
    };
    let tail = node.joined(&room, Op::tail(since(&epoch, 2))).await;
    let event: Value = serde_json::from_slice(&tail.missed[0]).unwrap();
    assert_eq!(
        (event["type"].as_str(), event["seq"].as_u64()),
        (Some("message.edited"), Some(3))
    );
    assert_eq!(event["by"], id);
    let editor = event["ts"].as_u64().unwrap();
    // The body stands byte for byte.
    assert!(
        ack.contains(&format!(r#""body":{body},"version":2,"editedAt":{editor}"#)),
        "{ack}"
    );
    let after: Value = serde_json::from_str::<Value>(&ack).unwrap()["message"].clone();
    assert_eq!(event["data"], after);
    for field in ["id", "seq", "ts", "by", "kind"] {
        assert_eq!(before[field], after[field], "{field}");
    }
    assert_eq!(
        (&after["version"], &after["editedAt"]),
        (&json!(2), &json!(editor))
    );
    let page = node.ack(&room, history(None, None, 10)).await;
    assert_eq!(page["messages"], json!([after]));
    let again = node.ack(&room, edit(id, &message, "3")).await;
    assert_eq!(
        (&again["message"]["version"], &again["message"]["body"]),
        (&json!(3), &json!(3))
    );
}

pub(crate) async fn only_authors_and_moderators_change_a_message<B: Backend>() {
    let (node, room) = (node::<B>().await, new_room());
    node.joined(&room, enter("u1", 1)).await;
    node.joined(&room, enter("u2", 2)).await;
    let message = text(&sent(&node, &room, "u1", "1").await, "id");
    for op in [edit("u2", &message, "2"), delete("u2", &message)] {
        assert_eq!(node.refusal(&room, op).await.code, ErrorCode::Forbidden);
    }
    for op in [
        edit("u1", "nothing-0000000001", "2"),
        delete("u1", "nothing-0000000001"),
    ] {
        assert_eq!(node.refusal(&room, op).await.code, ErrorCode::NotFound);
    }
    let edited = node.ack(&room, as_moderator(edit("u2", &message, "2"))).await;
    assert_eq!(
        (&edited["message"]["by"], &edited["message"]["version"]),
        (&json!("u1"), &json!(2))
    );
    let mut conflicting = edit("u1", &message, "3");
    if let Op::MessageEdit { if_version, .. } = &mut conflicting {
        *if_version = Some(1);
    }
    let refusal = node.refusal(&room, conflicting.clone()).await;
    assert_eq!(refusal.code, ErrorCode::Conflict);
    let details: Value = serde_json::from_str(&format!("{{{}}}", refusal.details.unwrap())).unwrap();
    assert_eq!(details, json!({"version": 2, "message": edited["message"]}));
    if let Op::MessageEdit { if_version, .. } = &mut conflicting {
        *if_version = Some(2);
    }
    node.ack(&room, conflicting).await;
    node.ack(&room, as_moderator(delete("u2", &message))).await;
    assert_eq!(
        node.refusal(&room, delete("u1", &message)).await.code,
        ErrorCode::NotFound
    );
    assert_eq!(
        node.ack(&room, history(None, None, 10)).await["messages"],
        json!([])
    );
}

pub(crate) async fn an_image_stays_an_image<B: Backend>() {
    let (node, room) = (node::<B>().await, new_room());
    node.joined(&room, enter("u1", 1)).await;
    let image = Op::MessageSend {
        by: user("u1"),
        key: None,
        tail: message_tail("u1", "image", r#""data:image/png;base64,AAAA""#),
    };
    let message = text(&node.ack(&room, image).await["message"], "id");
    let refusal = node.refusal(&room, edit("u1", &message, "\"no image\"")).await;
    assert_eq!(refusal.code, ErrorCode::BadRequest);
    let edited = node
        .ack(&room, edit("u1", &message, r#""data:image/gif;base64,BBBB""#))
        .await;
    assert_eq!(edited["message"]["kind"], "image");
}

pub(crate) async fn changes_in_a_batch_see_what_came_before_them<B: Backend>() {
    let (node, room) = (node::<B>().await, new_room());
    let epoch = node.joined(&room, enter("u1", 1)).await.epoch;
    let id = |seq: u64| format!("{epoch}-{seq:010}");
    let replies = node
        .apply(
            &room,
            vec![
                send("u1", "1"),
                send("u1", "2"),
                send("u1", "3"),
                edit("u1", &id(2), "10"),
                delete("u1", &id(3)),
                edit("u1", &id(3), "4"),
                history(None, None, 10),
                missing(0, u64::MAX / 4, &[(&id(2), Some(1)), (&id(3), Some(1))]),
            ],
        )
        .await;
    assert_eq!(replies[5].as_ref().unwrap_err().code, ErrorCode::NotFound);
    let page = ack(&replies[6]);
    assert_eq!(bodies(&page["messages"]), [json!(10), json!(3)]);
    let answer = ack(&replies[7]);
    assert_eq!(bodies(&answer["missing"]), [json!(3)]);
    assert_eq!(bodies(&answer["changed"]), [json!(10)]);
    assert_eq!(answer["gone"], json!([id(3)]));
    let page = node.ack(&room, history(None, None, 10)).await;
    assert_eq!(bodies(&page["messages"]), [json!(10), json!(3)]);
}

pub(crate) async fn changes_happen_once<B: Backend>() {
    let (node, room) = (node::<B>().await, new_room());
    node.joined(&room, enter("u1", 1)).await;
    let message = text(&sent(&node, &room, "u1", "1").await, "id");
    let first = node.ack(&room, keyed(edit("u1", &message, "2"), "k1")).await;
    node.ack(&room, edit("u1", &message, "3")).await;
    let reply = node.one(&room, keyed(edit("u1", &message, "2"), "k1")).await;
    let Ok(Done::Again(text)) = reply else {
        panic!("{reply:?}")
    };
    assert_eq!(
        serde_json::from_str::<Value>(&text).unwrap(),
        first,
        "the first answer, not the newest text"
    );
    let gone = node.ack(&room, keyed(delete("u1", &message), "k2")).await;
    let reply = node.one(&room, keyed(delete("u1", &message), "k2")).await;
    let Ok(Done::Again(text)) = reply else {
        panic!("{reply:?}")
    };
    assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), gone);
    // Deleted since, and answered all the same.
    assert!(matches!(
        node.one(&room, keyed(edit("u1", &message, "2"), "k1")).await,
        Ok(Done::Again(_))
    ));
}

pub(crate) async fn who_was_away_is_told_of_edits_and_deletions<B: Backend>() {
    let (node, room) = (node::<B>().await, new_room());
    let epoch = node.joined(&room, enter("u1", 1)).await.epoch;
    let ids: Vec<String> = [
        sent(&node, &room, "u1", "1").await,
        sent(&node, &room, "u1", "2").await,
    ]
    .iter()
    .map(|message| text(message, "id"))
    .collect();
    node.ack(&room, edit("u1", &ids[0], "10")).await;
    node.ack(&room, delete("u1", &ids[1])).await;
    let resumed = node.joined(&room, resume("u1", 1, &epoch, 3)).await;
    let events: Vec<Value> = resumed
        .missed
        .iter()
        .map(|event| serde_json::from_slice(event).unwrap())
        .collect();
    assert_eq!(events[0]["data"]["body"], 10);
    assert_eq!(events[1]["type"], "message.deleted");
    assert_eq!(events[1]["data"], json!({"messageId": ids[1]}));
}

pub(crate) async fn a_client_is_told_what_it_lacks<B: Backend>() {
    let (node, room) = (node::<B>().await, new_room());
    node.joined(&room, enter("u1", 1)).await;
    let mut messages = Vec::new();
    for body in ["1", "2", "3", "4"] {
        messages.push(sent(&node, &room, "u1", body).await);
    }
    let ids: Vec<String> = messages.iter().map(|message| text(message, "id")).collect();
    let (first, last) = (
        messages[0]["ts"].as_u64().unwrap(),
        messages[3]["ts"].as_u64().unwrap(),
    );
    node.ack(&room, edit("u1", &ids[1], "20")).await;
    node.ack(&room, delete("u1", &ids[2])).await;
    let known = [
        (ids[0].as_str(), Some(1)),
        (ids[1].as_str(), Some(1)),
        (ids[2].as_str(), Some(1)),
        ("other-0000000001", Some(1)),
    ];
    let answer = node.ack(&room, missing(first, last, &known)).await;
    assert_eq!(bodies(&answer["missing"]), [json!(4)]);
    assert_eq!(bodies(&answer["changed"]), [json!(20)]);
    assert_eq!(answer["gone"], json!([ids[2], "other-0000000001"]));
    assert_eq!(answer.get("next"), None);
    // A list says no versions, so nothing counts as changed.
    let listed: Vec<_> = known.iter().map(|(id, _)| (*id, None)).collect();
    let answer = node.ack(&room, missing(first, last, &listed)).await;
    assert_eq!(
        (bodies(&answer["missing"]).len(), &answer["changed"]),
        (1, &json!([]))
    );
    let answer = node.ack(&room, missing(last + 60_000, last + 60_001, &[])).await;
    assert_eq!(answer, json!({"missing": [], "changed": [], "gone": []}));
}

pub(crate) async fn a_long_comparison_goes_on_where_it_ended<B: Backend>() {
    let limits = StoreLimits {
        page_bytes: 600,
        ..StoreLimits::default()
    };
    let (node, room) = (node_with::<B>(limits).await, new_room());
    node.joined(&room, enter("u1", 1)).await;
    let mut all = Vec::new();
    for number in 0..12 {
        let message = sent(&node, &room, "u1", &number.to_string()).await;
        all.push(text(&message, "id"));
        // Another millisecond, or all would be compared at once.
        let ts = message["ts"].as_u64().unwrap();
        eventually("the clock goes on", async || {
            let probe = node.ack(&room, broadcast("u1", "{}")).await;
            assert!(probe["seq"].as_u64().is_some());
            node.store.now_ms() > ts
        })
        .await;
    }
    let (mut have, mut from, mut rounds) = (Vec::<String>::new(), 0, 0);
    loop {
        let known: Vec<_> = have.iter().map(|id| (id.as_str(), Some(1))).collect();
        let answer = node.ack(&room, missing(from, u64::MAX / 4, &known)).await;
        have.extend(
            answer["missing"]
                .as_array()
                .unwrap()
                .iter()
                .map(|message| text(message, "id")),
        );
        rounds += 1;
        match answer["next"].as_u64() {
            Some(next) => from = next,
            None => break,
        }
    }
    assert_eq!(have, all);
    assert!(rounds > 2, "{rounds}");
}

pub(crate) async fn what_is_past_retention_is_gone<B: Backend>() {
    let limits = StoreLimits {
        retention: Duration::from_millis(300),
        ..StoreLimits::default()
    };
    let (node, room) = (node_with::<B>(limits).await, new_room());
    node.joined(&room, enter("u1", 1)).await;
    let message = text(&sent(&node, &room, "u1", "1").await, "id");
    eventually("the message is past retention", async || {
        let answer = node
            .ack(&room, missing(0, u64::MAX / 4, &[(&message, Some(1))]))
            .await;
        answer["gone"] == json!([message])
    })
    .await;
    assert_eq!(
        node.refusal(&room, edit("u1", &message, "2")).await.code,
        ErrorCode::NotFound
    );
    assert_eq!(
        node.refusal(&room, delete("u1", &message)).await.code,
        ErrorCode::NotFound
    );
}
