//! Joins, departures, presence, and the lists of members.

use roomgate::store::{Join, Op};
use roomgate_shared::protocol::codes::ErrorCode;
use serde_json::{Value, json};

use super::harness::*;

/// What a presence event says, with users as their ids.
pub(crate) fn said(event: &Value) -> Value {
    let mut data = event["data"].clone();
    for part in ["joined", "updated"] {
        if let Some(users) = data.get_mut(part).and_then(Value::as_array_mut) {
            for user in users {
                *user = user["id"].clone();
            }
        }
    }
    data
}

/// The same, each list in order: what comes from a store's map has none.
pub(crate) fn sorted(event: &Value) -> Value {
    let mut data = said(event);
    for list in data.as_object_mut().unwrap().values_mut() {
        if let Some(list) = list.as_array_mut() {
            list.sort_by_key(Value::to_string);
        }
    }
    data
}

/// All events of the room.
pub(crate) async fn events(node: &Node, room: &roomgate_shared::ids::RoomId, epoch: &str) -> Vec<Value> {
    let tail = node.joined(room, Op::tail(since(epoch, 0))).await;
    assert!(tail.recovered, "{tail:?}");
    tail.missed
        .iter()
        .map(|bytes| serde_json::from_slice(bytes).unwrap())
        .collect()
}

pub(crate) async fn a_join_makes_the_room_only_if_it_may<B: Backend>() {
    let (node, room) = (node::<B>().await, new_room());
    let shy = Op::Join(Join {
        create: false,
        ..join("u1", 1)
    });
    assert_eq!(node.refusal(&room, shy.clone()).await.code, ErrorCode::NotFound);
    assert_eq!(
        node.refusal(&room, send("u1", "1")).await.code,
        ErrorCode::NotFound
    );
    let reply = node.one(&room, enter("u1", 1)).await;
    let first = snapshot(&reply);
    assert_eq!(
        (first.seq, first.reason.as_str(), first.version, first.members),
        (1, "new", 0, 1)
    );
    assert_eq!(
        (first.room.id.as_str(), first.room.status.as_str()),
        (room.as_str(), "active")
    );
    assert!(first.room.config.is_empty() && first.state.is_empty() && first.messages.is_empty());
    assert_eq!(first.users, std::slice::from_ref(&first.you));
    assert_eq!((first.you.id.as_str(), first.you.name.as_str()), ("u1", "<u1>"));
    assert_eq!((first.you.status.as_str(), first.you.connections), ("here", 1));
    assert!(first.you.joined_at > 1_600_000_000_000 && first.you.last_seen >= first.you.joined_at);
    assert!(!first.epoch.is_empty());
    node.one(&room, shy).await.unwrap();
}

pub(crate) async fn a_room_that_is_gone_refuses_everything<B: Backend>() {
    let (node, room) = (node::<B>().await, new_room());
    let ops = vec![
        leave("u1", 1),
        presence("u1", &[("a", "1")], &["b"]),
        state(Some(&["a", "b"])),
        state(None),
        patch(&[("a", "1")], &["b"]),
        increment("c", 1.0),
        send("u1", "1"),
        send("u1", "2"),
        history(None, None, 5),
        broadcast("u1", "{}"),
        Op::Signal {
            payload: roomgate::store::payload::signal("u1", [], "{}"),
        },
        list(None, 5),
        positions(&[("u1", "{}")]),
        Op::Active {
            users: vec![user("u1")],
        },
        Op::Sweep,
        Op::Bury {
            node: "gone~00000000".to_owned(),
            cursor: String::new(),
        },
        come_back(&[("u1", 1)]),
        Op::tail(since("x", 1)),
        Op::Join(Join {
            create: false,
            presence: fields(&[("a", "1")]),
            ..join("u1", 1)
        }),
    ];
    for reply in node.apply(&room, ops).await {
        assert_eq!(reply.unwrap_err().code, ErrorCode::NotFound);
    }
    // A join that follows them in the batch makes it.
    let replies = node
        .apply(&room, vec![send("u1", "1"), enter("u1", 1), send("u1", "2")])
        .await;
    assert!(replies[0].is_err() && replies[2].is_ok());
    assert_eq!(snapshot(&replies[1]).seq, 2);
}

pub(crate) async fn joins_of_a_batch_share_one_event<B: Backend>() {
    let (node, room) = (node::<B>().await, new_room());
    let ops = vec![enter("u1", 1), enter("u2", 2), enter("u3", 3), enter("u2", 4)];
    let replies = node.apply(&room, ops).await;
    for reply in &replies {
        let picture = snapshot(reply);
        assert_eq!((picture.seq, picture.members, picture.users.len()), (1, 3, 3));
    }
    assert_eq!(snapshot(&replies[3]).you.connections, 2);
    let epoch = snapshot(&replies[0]).epoch;
    let events = events(&node, &room, &epoch).await;
    assert_eq!(events.len(), 1);
    assert_eq!(said(&events[0]), json!({"joined": ["u1", "u2", "u3"]}));
    let event = &events[0];
    assert_eq!(
        (text(event, "type"), text(event, "room"), event["seq"].as_u64()),
        ("presence".to_owned(), room.to_string(), Some(1))
    );
    assert!(event.get("by").is_none() && event["ts"].as_u64().unwrap() > 1_600_000_000_000);
}

pub(crate) async fn pictures_show_the_end_of_the_batch<B: Backend>() {
    let (node, room) = (node::<B>().await, new_room());
    let ops = vec![
        enter("u1", 1),
        send("u1", "\"a\""),
        patch(&[("k", "1")], &[]),
        enter("u2", 2),
        send("u2", "2"),
    ];
    let replies = node.apply(&room, ops).await;
    let (first, second) = (snapshot(&replies[0]), snapshot(&replies[3]));
    assert_eq!(first.seq, 5);
    for picture in [&first, &second] {
        assert_eq!((picture.seq, picture.version, picture.members), (5, 1, 2));
        assert_eq!(picture.state["k"], 1);
        let bodies: Vec<_> = picture
            .messages
            .iter()
            .map(|message| message.body.clone())
            .collect();
        assert_eq!(bodies, [json!("a"), json!(2)]);
    }
    let sort = |mut users: Vec<roomgate_shared::protocol::event::Member>| {
        users.sort_by(|a, b| a.id.cmp(&b.id));
        users
    };
    assert_eq!(sort(first.users), sort(second.users.clone()));
    assert_eq!((first.you.id.as_str(), second.you.id.as_str()), ("u1", "u2"));
    assert!(second.users.contains(&second.you));
}

pub(crate) async fn users_come_and_go_with_their_connections<B: Backend>() {
    let (node, room) = (node::<B>().await, new_room());
    let epoch = node.joined(&room, enter("u1", 1)).await.epoch;
    // A second connection is no event, nor is its end, nor that of one that is not known.
    node.joined(&room, enter("u1", 2)).await;
    assert_eq!(node.ack(&room, lose("u1", 1)).await, json!({}));
    assert_eq!(node.ack(&room, leave("u1", 9)).await, json!({}));
    assert_eq!(node.ack(&room, leave("nobody", 9)).await, json!({}));
    assert_eq!(node.picture(&room).await["seq"], 1);
    // The last one: away, and back.
    node.ack(&room, lose("u1", 2)).await;
    let picture = node.picture(&room).await;
    assert_eq!(
        (
            &picture["users"][0]["status"],
            &picture["users"][0]["connections"]
        ),
        (&json!("away"), &json!(0))
    );
    assert_eq!(picture["members"], 1);
    node.ack(&room, lose("u1", 2)).await;
    node.joined(&room, enter("u1", 3)).await;
    // Meaning to go: left.
    node.ack(&room, leave("u1", 3)).await;
    assert_eq!(node.picture(&room).await["members"], 0);
    node.joined(&room, enter("u1", 4)).await;
    let said: Vec<_> = events(&node, &room, &epoch).await.iter().map(said).collect();
    let expected = [
        json!({"joined": ["u1"]}),
        json!({"away": ["u1"]}),
        json!({"back": ["u1"]}),
        json!({"left": [{"user": "u1", "reason": "left"}]}),
        json!({"joined": ["u1"]}),
    ];
    assert_eq!(said, expected);
}

pub(crate) async fn presence_events_gather_until_another_event<B: Backend>() {
    let (node, room) = (node::<B>().await, new_room());
    node.joined(&room, enter("u0", 1)).await;
    let ops = vec![
        enter("u1", 2),
        presence("u0", &[("x", "1")], &[]),
        broadcast("u0", "{}"),
        enter("u2", 3),
        lose("u0", 1),
        presence("u1", &[("y", "2")], &[]),
    ];
    let replies = node.apply(&room, ops).await;
    let epoch = joined(&replies[0]).epoch;
    assert_eq!(ack(&replies[1]), json!({"seq": 2}));
    assert_eq!(ack(&replies[2]), json!({"seq": 3}));
    assert_eq!(ack(&replies[5]), json!({"seq": 4}));
    let events = events(&node, &room, &epoch).await;
    assert_eq!(events.len(), 4);
    assert_eq!(said(&events[1]), json!({"joined": ["u1"], "updated": ["u0"]}));
    assert_eq!(
        said(&events[3]),
        json!({"joined": ["u2"], "updated": ["u1"], "away": ["u0"]})
    );
}

pub(crate) async fn a_user_that_comes_and_goes_in_one_batch<B: Backend>() {
    let (node, room) = (node::<B>().await, new_room());
    node.joined(&room, enter("u0", 1)).await;
    let replies = node
        .apply(
            &room,
            vec![enter("u1", 2), leave("u1", 2), lose("u0", 1), enter("u0", 3)],
        )
        .await;
    let picture = snapshot(&replies[3]);
    assert_eq!(
        (
            picture.members,
            picture.users[0].id.as_str(),
            picture.users[0].status.as_str()
        ),
        (1, "u0", "here")
    );
    let mut present = vec!["u0".to_owned()];
    for event in events(&node, &room, &picture.epoch).await.iter().skip(1) {
        // Whatever the events are, replaying them leads to the picture.
        for user in event["data"]["joined"].as_array().into_iter().flatten() {
            present.push(text(user, "id"));
        }
        for left in event["data"]["left"].as_array().into_iter().flatten() {
            let id = text(left, "user");
            assert!(present.contains(&id), "{id} has left without having come");
            present.retain(|other| *other != id);
        }
    }
    assert_eq!(present, ["u0"]);
    assert_eq!(joined(&replies[0]).seq, picture.seq);
}

pub(crate) async fn presence_is_merged_and_told<B: Backend>() {
    let (node, room) = (node::<B>().await, new_room());
    let entry = Join {
        presence: fields(&[("a", "1"), ("b", "[]")]),
        ..join("u1", 1)
    };
    let you = snapshot(&node.one(&room, Op::Join(entry)).await).you;
    assert_eq!(Value::Object(you.presence), json!({"a": 1, "b": []}));
    assert_eq!(
        node.ack(&room, presence("u1", &[("c", "{}")], &["a", "zz"]))
            .await,
        json!({"seq": 2})
    );
    // Nothing changes: no event, and the current seq.
    assert_eq!(
        node.ack(&room, presence("u1", &[("c", "{}")], &["a"])).await,
        json!({"seq": 2})
    );
    // A join changes it too, also of the same connection, and without presence leaves it.
    let again = Join {
        presence: fields(&[("b", "2")]),
        ..join("u1", 1)
    };
    let picture = snapshot(&node.one(&room, Op::Join(again.clone())).await);
    assert_eq!(
        (picture.seq, Value::Object(picture.you.presence)),
        (3, json!({"b": 2, "c": {}}))
    );
    assert_eq!(snapshot(&node.one(&room, Op::Join(again)).await).seq, 3);
    assert_eq!(snapshot(&node.one(&room, enter("u1", 2)).await).seq, 3);
    let refusal = node.refusal(&room, presence("u2", &[("a", "1")], &[])).await;
    assert_eq!(refusal.code, ErrorCode::NotJoined);
    // Back from away with another presence: both are told.
    node.apply(&room, vec![lose("u1", 1), lose("u1", 2)]).await;
    let back = Join {
        presence: fields(&[("b", "3")]),
        ..join("u1", 3)
    };
    let epoch = node.joined(&room, Op::Join(back)).await.epoch;
    let last = events(&node, &room, &epoch).await.pop().unwrap();
    assert_eq!(said(&last), json!({"back": ["u1"], "updated": ["u1"]}));
    assert_eq!(last["data"]["updated"][0]["presence"], json!({"b": 3, "c": {}}));
}

pub(crate) async fn presence_has_a_limit<B: Backend>() {
    let (node, room) = (node::<B>().await, new_room());
    node.joined(&room, enter("u1", 1)).await;
    let value = format!("\"{}\"", "x".repeat(2000));
    node.ack(&room, presence("u1", &[("a", &value), ("b", &value)], &[]))
        .await;
    let refusal = node.refusal(&room, presence("u1", &[("c", &value)], &[])).await;
    assert_eq!(refusal.code, ErrorCode::TooLarge);
    // What is left after the merge counts.
    node.ack(&room, presence("u1", &[("c", &value)], &["a"])).await;
    let value = format!("\"{}\"", "x".repeat(4096 - 2 - 1));
    node.ack(&room, presence("u1", &[("a", &value)], &["b", "c"]))
        .await;
    let refusal = node.refusal(&room, presence("u1", &[("b", "1")], &[])).await;
    assert_eq!(refusal.code, ErrorCode::TooLarge);
    assert_eq!(node.picture(&room).await["seq"], 4);
}

/// Values whose text a careless store would alter.
pub(crate) const EXACT: [&str; 13] = [
    "1.0",
    "[]",
    "{}",
    "0.1",
    "9007199254740993",
    "18446744073709551615",
    "-0",
    "\"\\u0000\\u001e\\\"\\\\/é\u{1f600}\"",
    "null",
    "[[],{},[{}]]",
    "{\"1\":1,\"2\":2}",
    "1e-7",
    "true",
];

pub(crate) async fn presence_keeps_its_text<B: Backend>() {
    let (node, room) = (node::<B>().await, new_room());
    for (number, value) in EXACT.iter().enumerate() {
        let id = format!("u{number}");
        let entry = Join {
            presence: fields(&[("v", value), ("é\"\\", value)]),
            ..join(&id, number as u64)
        };
        let data = node.joined(&room, Op::Join(entry)).await.data;
        let expected = format!("\"v\":{value}");
        assert!(data.contains(&expected), "{expected} in {data}");
        node.ack(&room, presence(&id, &[("w", value)], &[])).await;
    }
    let tail = node.joined(&room, Op::tail(since("x", 0))).await.data;
    for value in EXACT {
        assert!(
            tail.contains(&format!("\"v\":{value}")) && tail.contains(&format!("\"w\":{value}")),
            "{value}"
        );
    }
}
