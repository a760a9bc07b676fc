//! Where members are: with their record, and no longer than they are members.

use std::time::Duration;

use roomgate::store::{Joined, PresenceMode, StoreLimits};
use roomgate_shared::ids::RoomId;
use serde_json::{Value, json};

use super::{harness::*, presence::events};

/// Positions of a list of users, by their ids.
fn placed(list: &Value) -> Vec<(String, Value)> {
    let mut out: Vec<_> = list
        .as_array()
        .unwrap()
        .iter()
        .map(|user| (text(user, "id"), user["position"].clone()))
        .collect();
    out.sort_by(|a, b| a.0.cmp(&b.0));
    out
}

fn pairs(of: &[(&str, Value)]) -> Vec<(String, Value)> {
    of.iter()
        .map(|(id, place)| ((*id).to_owned(), place.clone()))
        .collect()
}

/// Positions that a resume brought.
fn brought(joined: &Joined) -> Vec<(String, Value)> {
    let mut out: Vec<_> = joined
        .positions
        .iter()
        .map(|(id, text)| (id.clone(), serde_json::from_slice(text).unwrap()))
        .collect();
    out.sort_by(|a, b| a.0.cmp(&b.0));
    out
}

pub(crate) async fn a_position_stands_in_every_record<B: Backend>() {
    let (node, room) = (node::<B>().await, new_room());
    let replies = node.apply(&room, vec![enter("u1", 1), enter("u2", 2)]).await;
    let epoch = joined(&replies[0]).epoch;
    node.store.subscribe(&room).await.unwrap();
    node.heard.clear();
    let moved = positions(&[("u1", "{\"x\":1}"), ("stranger", "{\"x\":9}")]);
    assert_eq!(node.ack(&room, moved).await, json!({}));
    let replies = node
        .apply(
            &room,
            vec![
                enter("u1", 3),
                positions(&[("u1", "{\"x\":4.50,\"y\":[7]}")]),
                list(None, 10),
            ],
        )
        .await;
    // No event and no place in the order; the latest counts, and its text is kept.
    let picture = joined(&replies[0]);
    assert_eq!(picture.seq, 1);
    assert!(
        picture.data.contains("\"position\":{\"x\":4.50,\"y\":[7]}"),
        "{}",
        picture.data
    );
    assert!(picture.positions.is_empty(), "the picture says it");
    let picture: Value = serde_json::from_str(&picture.data).unwrap();
    let place = json!({"x": 4.5, "y": [7]});
    let expected = pairs(&[("u1", place.clone()), ("u2", Value::Null)]);
    assert_eq!(placed(&picture["users"]), expected);
    assert_eq!(picture["you"]["position"], place);
    assert_eq!(placed(&ack(&replies[2])["users"]), expected);
    assert!(node.heard.payloads(&room).is_empty());
    // Others see it in whatever tells the whole record.
    node.ack(&room, presence("u1", &[("a", "1")], &[])).await;
    let last = events(&node, &room, &epoch).await.pop().unwrap();
    assert_eq!(last["data"]["updated"][0]["position"], place);
    assert!(picture["users"][1].get("position").is_none());
}

pub(crate) async fn a_position_goes_with_its_user<B: Backend>() {
    let limits = StoreLimits {
        grace: Duration::from_millis(100),
        ..StoreLimits::default()
    };
    let (node, room) = (node_with::<B>(limits).await, new_room());
    node.apply(&room, vec![enter("u1", 1), enter("u2", 2), enter("u3", 3)])
        .await;
    let moved = positions(&[("u1", "{\"x\":1}"), ("u2", "{\"x\":2}"), ("u3", "{\"x\":3}")]);
    node.ack(&room, moved).await;
    // One that left and comes again, in one batch too, begins without.
    let replies = node.apply(&room, vec![leave("u1", 1), enter("u1", 4)]).await;
    let you = snapshot(&replies[1]).you;
    assert_eq!(you.position, None);
    // One that is away is still there, until it leaves.
    node.ack(&room, lose("u2", 2)).await;
    let listed = placed(&node.ack(&room, list(None, 10)).await["users"]);
    if listed.len() == 3 {
        let place = |x| json!({"x": x});
        assert_eq!(
            listed,
            pairs(&[("u1", Value::Null), ("u2", place(2)), ("u3", place(3))])
        );
    }
    let mut left = 0;
    eventually("it has left", async || {
        left += node.sweep(&room).await.left;
        left == 1
    })
    .await;
    node.ack(&room, positions(&[("u2", "{\"x\":5}")])).await;
    let you = snapshot(&node.one(&room, enter("u2", 5)).await).you;
    assert_eq!(you.position, None);
    node.ack(&room, leave("u3", 3)).await;
    let listed = placed(&node.picture(&room).await["users"]);
    assert_eq!(listed, pairs(&[("u1", Value::Null), ("u2", Value::Null)]));
}

pub(crate) async fn a_resume_brings_positions<B: Backend>() {
    let (node, room) = (node::<B>().await, new_room());
    let replies = node
        .apply(&room, vec![enter("u1", 1), enter("u2", 2), enter("u3", 3)])
        .await;
    let epoch = joined(&replies[0]).epoch;
    let none = node.joined(&room, resume("u1", 4, &epoch, 1)).await;
    assert!(none.recovered && none.positions.is_empty());
    node.ack(&room, positions(&[("u1", "{\"x\":1}"), ("u2", "{\"x\":2}")]))
        .await;
    let both = pairs(&[("u1", json!({"x": 1})), ("u2", json!({"x": 2}))]);
    let resumed = node.joined(&room, resume("u1", 5, &epoch, 1)).await;
    assert!(resumed.recovered && resumed.occupancy.is_none());
    assert_eq!(brought(&resumed), both);
    let data: Value = serde_json::from_str(&resumed.data).unwrap();
    assert_eq!(data["you"]["position"], json!({"x": 1}));
    // Also where nothing was missed, or a user is away.
    node.ack(&room, lose("u2", 2)).await;
    let resumed = node.joined(&room, resume("u3", 6, &epoch, 1)).await;
    assert_eq!((brought(&resumed), resumed.missed.len()), (both, 1));
    let gone = node.joined(&room, resume("u3", 7, "none", 1)).await;
    assert!(!gone.recovered && gone.positions.is_empty());
    // As it is at the end of the batch.
    let replies = node
        .apply(
            &room,
            vec![
                resume("u3", 8, &epoch, 2),
                positions(&[("u3", "{\"x\":3}")]),
                leave("u1", 1),
                leave("u1", 4),
                leave("u1", 5),
            ],
        )
        .await;
    let expected = pairs(&[("u2", json!({"x": 2})), ("u3", json!({"x": 3}))]);
    assert_eq!(brought(&joined(&replies[0])), expected);
}

pub(crate) async fn many_positions_at_once<B: Backend>() {
    const USERS: u64 = 300;
    let (node, room) = (node::<B>().await, new_room());
    let ids: Vec<String> = (0..USERS).map(|n| format!("u{n:03}")).collect();
    let enters = ids.iter().zip(0..).map(|(id, n)| enter(id, n)).collect();
    node.apply(&room, enters).await;
    let places: Vec<String> = (0..USERS)
        .map(|n| format!("{{\"n\":{n},\"pad\":\"{}\"}}", "x".repeat(480)))
        .collect();
    let moved: Vec<(&str, &str)> = ids
        .iter()
        .zip(&places)
        .map(|(id, place)| (id.as_str(), place.as_str()))
        .collect();
    node.ack(&room, positions(&moved)).await;
    let picture = node.picture(&room).await;
    let listed = placed(&picture["users"]);
    assert_eq!(listed.len() as u64, USERS);
    for (n, (id, place)) in listed.iter().enumerate() {
        assert_eq!((id, &place["n"]), (&ids[n], &json!(n)));
    }
}

pub(crate) async fn a_resume_in_a_room_that_counts_brings_no_positions<B: Backend>() {
    let none_of = async |node: &Node, room: &RoomId, epoch: &str, seq| {
        let moved = positions(&[("u1", "{\"x\":2}"), ("stranger", "{}")]);
        assert_eq!(node.ack(room, moved).await, json!({}));
        let picture = snapshot(&node.one(room, enter("u1", 90)).await);
        assert!(picture.users.is_empty());
        let resumed = node.joined(room, resume("u1", 91, epoch, seq)).await;
        assert!(resumed.recovered && resumed.positions.is_empty(), "{resumed:?}");
        assert_eq!(node.picture(room).await["seq"], seq);
    };
    for mode in [PresenceMode::Count, PresenceMode::Off] {
        let limits = StoreLimits {
            presence: mode,
            ..StoreLimits::default()
        };
        let (node, room) = (node_with::<B>(limits).await, new_room());
        let first = node.joined(&room, enter("u1", 1)).await;
        none_of(&node, &room, &first.epoch, first.seq).await;
    }
    // One that grows to it while there are some.
    let limits = StoreLimits {
        full_members: 2,
        ..StoreLimits::default()
    };
    let (node, room) = (node_with::<B>(limits).await, new_room());
    node.joined(&room, enter("u1", 1)).await;
    node.ack(&room, positions(&[("u1", "{\"x\":1}")])).await;
    let replies = node.apply(&room, vec![enter("u2", 2), enter("u3", 3)]).await;
    let grown = joined(&replies[0]);
    none_of(&node, &room, &grown.epoch, grown.seq).await;
    // Back among few it is where it was.
    let replies = node
        .apply(&room, vec![leave("u2", 2), leave("u3", 3), list(None, 5)])
        .await;
    let expected = pairs(&[("u1", json!({"x": 2}))]);
    assert_eq!(placed(&ack(&replies[2])["users"]), expected);
    let last = events(&node, &room, &grown.epoch).await.pop().unwrap();
    assert_eq!(placed(&last["data"]["joined"]), expected, "{last}");
}
