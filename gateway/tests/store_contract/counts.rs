//! Rooms that count: how many there are instead of who.

use std::time::Duration;

use roomgate::store::{Op, PresenceMode, StoreLimits};
use roomgate_shared::ids::RoomId;
use serde_json::{Value, json};

use super::{
    harness::*,
    presence::{events, said},
};

/// More members than this, and a room counts.
const FULL: u64 = 10;

fn crowded() -> StoreLimits {
    StoreLimits {
        full_members: FULL,
        ..StoreLimits::default()
    }
}

/// Enters users of these numbers, their connections of the same numbers.
fn enters(numbers: std::ops::Range<u64>) -> Vec<Op> {
    numbers.map(|n| enter(&id(n), n)).collect()
}

fn id(number: u64) -> String {
    format!("u{number:02}")
}

/// Asserts that these are the numbers that were published, once all of them have come; each once.
async fn counted(node: &Node, room: &RoomId, expected: &[u64]) {
    eventually("the numbers are published", || async {
        node.heard.counts(room).len() >= expected.len()
    })
    .await;
    assert_eq!(node.heard.counts(room), expected);
}

/// The last event, which must name everybody; who that is, with their status.
async fn everybody(node: &Node, room: &RoomId, epoch: &str, seq: u64) -> Vec<(String, String)> {
    let last = events(node, room, epoch).await.pop().unwrap();
    assert_eq!(last["seq"], seq, "{last}");
    let data = last["data"].as_object().unwrap();
    assert_eq!(data.keys().collect::<Vec<_>>(), ["all", "joined"], "{last}");
    assert_eq!(data["all"], true);
    let mut all: Vec<_> = data["joined"]
        .as_array()
        .unwrap()
        .iter()
        .map(|user| (text(user, "id"), text(user, "status")))
        .collect();
    all.sort_unstable();
    // It is what a newcomer sees.
    let picture = node.picture(room).await;
    assert_eq!(picture["members"], all.len());
    let sorted = |list: &Value| {
        let mut list = list.as_array().unwrap().clone();
        list.sort_by_key(|user| text(user, "id"));
        list
    };
    assert_eq!(sorted(&picture["users"]), sorted(&data["joined"]));
    all
}

fn here(numbers: std::ops::Range<u64>) -> Vec<(String, String)> {
    numbers.map(|n| (id(n), "here".to_owned())).collect()
}

/// A room with `FULL` members and one more, on a node that hears it; its epoch, and the `seq` at which it counts.
async fn crowd(node: &Node, room: &RoomId) -> (String, u64) {
    node.store.subscribe(room).await.unwrap();
    let replies = node.apply(room, enters(0..FULL)).await;
    let epoch = joined(&replies[0]).epoch;
    assert_eq!(snapshot(&replies[0]).users.len() as u64, FULL);
    let last = events(node, room, &epoch).await.pop().unwrap();
    assert_eq!(last["data"]["joined"].as_array().unwrap().len() as u64, FULL);
    assert_eq!(node.heard.counts(room), [0; 0]);
    let picture = snapshot(&node.one(room, enter(&id(FULL), FULL)).await);
    assert_eq!((picture.members, picture.users.len()), (FULL + 1, 0));
    assert_eq!((picture.you.id, picture.you.connections), (id(FULL), 1));
    (epoch, picture.seq)
}

pub(crate) async fn a_room_with_too_many_members_counts<B: Backend>() {
    let (node, room) = (node_with::<B>(crowded()).await, new_room());
    let (epoch, seq) = crowd(&node, &room).await;
    let ops = vec![
        enter("late", 20),
        enter("late", 21),
        presence("u00", &[("a", "1")], &[]),
    ];
    let replies = node.apply(&room, ops).await;
    let picture = snapshot(&replies[0]);
    assert_eq!((picture.seq, picture.members), (seq, FULL + 2));
    assert_eq!(picture.you.connections, 2);
    // An update is taken and acknowledged, though nobody is told.
    assert_eq!(ack(&replies[2]), json!({"seq": seq}));
    let picture = snapshot(&node.one(&room, enter("u00", 22)).await);
    assert_eq!(Value::Object(picture.you.presence), json!({"a": 1}));
    node.ack(&room, lose("late", 20)).await;
    node.ack(&room, lose("u01", 1)).await;
    node.joined(&room, enter("u01", 23)).await;
    node.ack(&room, lose("u02", 2)).await;
    node.ack(&room, come_back(&[("u02", 24)])).await;
    node.ack(&room, leave("late", 21)).await;
    // What else happens takes the next place.
    let sent = node.ack(&room, send("u00", "1")).await;
    assert_eq!(sent["message"]["seq"], seq + 1);
    let events = events(&node, &room, &epoch).await;
    assert_eq!(events.last().unwrap()["type"], "message.sent");
    assert!(events.len() as u64 == seq + 1 && seq <= 2);
    counted(&node, &room, &[FULL + 1, FULL + 2, FULL + 1]).await;
}

pub(crate) async fn below_four_fifths_everybody_is_named<B: Backend>() {
    let (node, room) = (node_with::<B>(crowded()).await, new_room());
    let (epoch, seq) = crowd(&node, &room).await;
    node.ack(&room, lose("u00", 0)).await;
    for number in 8..=FULL {
        node.ack(&room, leave(&id(number), number)).await;
    }
    // Exactly four fifths: not less.
    let picture = node.picture(&room).await;
    assert_eq!(
        (&picture["members"], &picture["users"], &picture["seq"]),
        (&json!(8), &json!([]), &json!(seq))
    );
    node.ack(&room, leave("u07", 7)).await;
    let mut expected = here(0..7);
    expected[0].1 = "away".to_owned();
    assert_eq!(everybody(&node, &room, &epoch, seq + 1).await, expected);
    node.heard.until(&room, seq + 1).await;
    let counts = node.heard.counts(&room);
    assert_eq!(counts[..4], [11, 10, 9, 8]);
    // From here on all is told, up to the bound.
    node.joined(&room, enter("u07", 30)).await;
    node.apply(&room, vec![enter("u00", 31), enter("u08", 32), enter("u09", 33)])
        .await;
    let mut told: Vec<_> = events(&node, &room, &epoch).await.iter().map(said).collect();
    let told = told.split_off((seq + 1) as usize);
    assert_eq!(
        told,
        [
            json!({"joined": ["u07"]}),
            json!({"joined": ["u08", "u09"], "back": ["u00"]})
        ]
    );
    assert_eq!(node.heard.counts(&room), counts);
}

pub(crate) async fn a_sweep_may_end_the_counting<B: Backend>() {
    let limits = StoreLimits {
        grace: Duration::from_millis(100),
        ..crowded()
    };
    let (node, room) = (node_with::<B>(limits).await, new_room());
    let (epoch, seq) = crowd(&node, &room).await;
    let gone = |from: u64, to: u64| (from..to).map(|n| lose(&id(n), n)).collect();
    let sweep = async |users| {
        let mut left = 0;
        eventually("they have left", async || {
            left += node.sweep(&room).await.left;
            left >= users
        })
        .await;
        assert_eq!(left, users);
    };
    // Still too many: nothing is said but the number.
    node.apply(&room, gone(9, FULL + 1)).await;
    sweep(2).await;
    let picture = node.picture(&room).await;
    assert_eq!((&picture["members"], &picture["seq"]), (&json!(9), &json!(seq)));
    let counts = node.heard.counts(&room);
    assert_eq!((counts.first(), counts.last()), (Some(&11), Some(&9)));
    assert!(counts.is_sorted_by(|a, b| a > b), "{counts:?}");
    node.apply(&room, gone(6, 9)).await;
    sweep(3).await;
    let events = events(&node, &room, &epoch).await;
    // The sweep may have taken them one by one; the first that brings it below says who is there then.
    let all: Vec<_> = events
        .iter()
        .filter(|event| event["data"]["all"] == true)
        .collect();
    assert_eq!((all.len(), &all[0]["seq"]), (1, &json!(seq + 1)));
    if events.len() as u64 == seq + 1 {
        assert_eq!(everybody(&node, &room, &epoch, seq + 1).await, here(0..6));
    }
    node.joined(&room, enter("new", 50)).await;
    let last = super::presence::events(&node, &room, &epoch).await.pop().unwrap();
    assert_eq!(said(&last), json!({"joined": ["new"]}));
}

/// Arrivals above the bound and departures below it, all in one step.
pub(crate) async fn a_batch_may_begin_and_end_the_counting<B: Backend>() {
    let (node, room) = (node_with::<B>(crowded()).await, new_room());
    let (epoch, seq) = crowd(&node, &room).await;
    let leaves = (5..=FULL).map(|n| leave(&id(n), n)).collect();
    node.apply(&room, leaves).await;
    assert_eq!(everybody(&node, &room, &epoch, seq + 1).await, here(0..5));
    // In one step across the bound and far above it.
    let replies = node.apply(&room, enters(5..40)).await;
    let picture = snapshot(&replies[0]);
    assert_eq!((picture.members, picture.users.len()), (40, 0));
    let seq = picture.seq;
    node.apply(&room, enters(40..60)).await;
    let mut ops: Vec<Op> = (3..60).map(|n| leave(&id(n), n)).collect();
    ops.push(enter(&id(3), 70));
    let replies = node.apply(&room, ops).await;
    let picture = snapshot(replies.last().unwrap());
    assert_eq!((picture.members, picture.users.len()), (4, 4));
    assert_eq!(picture.seq, seq + 1, "one event");
    assert_eq!(everybody(&node, &room, &epoch, seq + 1).await, here(0..4));
}

pub(crate) async fn a_room_may_be_told_to_count<B: Backend>() {
    for mode in [PresenceMode::Count, PresenceMode::Off] {
        let limits = StoreLimits {
            presence: mode,
            ..StoreLimits::default()
        };
        let (node, room) = (node_with::<B>(limits).await, new_room());
        node.store.subscribe(&room).await.unwrap();
        let first = snapshot(&node.one(&room, enter("u1", 1)).await);
        assert_eq!((first.users.len(), first.you.id.as_str()), (0, "u1"));
        node.apply(&room, vec![enter("u2", 2), enter("u3", 3)]).await;
        assert_eq!(
            node.ack(&room, presence("u2", &[("a", "1")], &[])).await,
            json!({"seq": first.seq})
        );
        node.apply(&room, vec![lose("u3", 3), leave("u2", 2)]).await;
        node.ack(&room, leave("u1", 1)).await;
        let sent = node.ack(&room, send("u3", "1")).await;
        assert_eq!(sent["message"]["seq"], first.seq + 1);
        let events = events(&node, &room, &first.epoch).await;
        let kinds: Vec<_> = events.iter().map(|event| text(event, "type")).collect();
        assert_eq!(kinds, ["message.sent"]);
        node.heard.until(&room, first.seq + 1).await;
        match mode {
            PresenceMode::Count => {
                assert_eq!(node.heard.counts(&room), [1, 3, 2, 1]);
                assert_eq!(first.members, 1);
            }
            PresenceMode::Full | PresenceMode::Off => assert_eq!(node.heard.counts(&room), [0; 0]),
        }
    }
}

pub(crate) async fn members_of_a_room_that_counts_are_listed<B: Backend>() {
    let (node, room) = (node_with::<B>(crowded()).await, new_room());
    crowd(&node, &room).await;
    node.apply(&room, enters(FULL + 1..25)).await;
    node.ack(&room, lose("u03", 3)).await;
    let (mut listed, mut cursor) = (Vec::new(), None);
    loop {
        let page = node.ack(&room, list(cursor.as_deref(), 7)).await;
        assert_eq!(page["total"], 25);
        let users = page["users"].as_array().unwrap().iter();
        listed.extend(users.map(|user| (text(user, "id"), text(user, "status"))));
        match page.get("cursor") {
            Some(next) => cursor = Some(next.as_str().unwrap().to_owned()),
            None => break,
        }
    }
    let mut expected = here(0..25);
    expected[3].1 = "away".to_owned();
    assert_eq!(listed, expected);
}

pub(crate) async fn a_resume_in_a_room_that_counts_brings_the_number<B: Backend>() {
    let (node, room) = (node_with::<B>(crowded()).await, new_room());
    let (epoch, seq) = crowd(&node, &room).await;
    node.ack(&room, lose("u00", 0)).await;
    node.ack(&room, send("u01", "1")).await;
    let resumed = node.joined(&room, resume("u00", 30, &epoch, seq)).await;
    assert!(resumed.recovered && resumed.missed.len() == 1);
    assert_eq!((resumed.occupancy, resumed.seq), (Some(FULL + 1), seq + 1));
    let data: Value = serde_json::from_str(&resumed.data).unwrap();
    assert_eq!(data["you"]["status"], "here");
    // As many as there are at the end of the batch.
    let replies = node
        .apply(&room, vec![resume("u00", 31, &epoch, seq), enter("late", 32)])
        .await;
    assert_eq!(joined(&replies[0]).occupancy, Some(FULL + 2));
    // A picture says it itself.
    let fresh = node.joined(&room, enter("u00", 33)).await;
    assert_eq!((fresh.recovered, fresh.occupancy), (false, None));
    // And where the room tells who is there, nobody is given a number.
    let leaves = (1..=FULL).map(|n| leave(&id(n), n)).collect();
    node.apply(&room, leaves).await;
    let resumed = node.joined(&room, resume("u00", 34, &epoch, seq)).await;
    assert_eq!((resumed.recovered, resumed.occupancy), (true, None));
}
