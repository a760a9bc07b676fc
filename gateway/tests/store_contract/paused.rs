//! The memory store's clock is the runtime's: hours of absence, to the millisecond, in no time.

use std::time::Duration;

use roomgate::store::{Op, StoreLimits};
use roomgate_shared::ids::RoomId;
use serde_json::{Value, json};
use tokio::time::advance;

use super::{
    harness::*,
    on_memory::Memory,
    presence::{events, said},
};

/// The usual time for which a user may be away.
const GRACE: Duration = Duration::from_secs(300);
/// As often as a gateway looks.
const INTERVAL: Duration = Duration::from_secs(30);
const MS: Duration = Duration::from_millis(1);

async fn memory() -> (Node, RoomId) {
    (node_with::<Memory>(StoreLimits::default()).await, new_room())
}

/// Lets time pass, and does what gateways do meanwhile.
async fn pass(node: &Node, time: Duration) {
    let mut rest = time;
    while rest > Duration::ZERO {
        let step = rest.min(INTERVAL);
        advance(step).await;
        rest -= step;
        loop {
            let rooms = node.claim(10, INTERVAL).await;
            if rooms.is_empty() {
                break;
            }
            for room in rooms {
                // A room may have ended since.
                let _ = node.one(&room, Op::Sweep).await;
            }
        }
    }
}

/// What has been told since the room began, by when after the first event, in seconds.
async fn told(node: &Node, room: &RoomId, epoch: &str) -> Vec<(u64, Value)> {
    let events = events(node, room, epoch).await;
    let start = events[0]["ts"].as_u64().unwrap();
    let after = |event: &Value| (event["ts"].as_u64().unwrap() - start) / 1_000;
    events.iter().map(|event| (after(event), said(event))).collect()
}

fn left(id: &str) -> Value {
    json!({"left": [{"user": id, "reason": "timeout"}]})
}

#[tokio::test(start_paused = true)]
async fn a_drop_and_a_return_within_grace() {
    let (node, room) = memory().await;
    node.store.subscribe(&room).await.unwrap();
    let replies = node.apply(&room, vec![enter("u1", 1), enter("u2", 2)]).await;
    let epoch = joined(&replies[0]).epoch;
    pass(&node, Duration::from_secs(100)).await;
    node.ack(&room, lose("u1", 1)).await;
    node.ack(&room, send("u2", "\"meanwhile\"")).await;
    pass(&node, GRACE - MS).await;
    let resumed = node.joined(&room, resume("u1", 3, &epoch, 1)).await;
    assert!(resumed.recovered);
    assert_eq!(resumed.missed.len(), 3);
    // The longest absence is forgotten with the return.
    pass(&node, 4 * GRACE).await;
    let told = told(&node, &room, &epoch).await;
    assert_eq!(told.len(), 4);
    assert_eq!(
        [told[0].clone(), told[1].clone(), told[3].clone()],
        [
            (0, json!({"joined": ["u1", "u2"]})),
            (100, json!({"away": ["u1"]})),
            (399, json!({"back": ["u1"]}))
        ]
    );
    // What members hear is what the log holds.
    let heard: Vec<_> = node.heard.events(&room).into_iter().map(|(seq, _)| seq).collect();
    assert_eq!(heard, [1, 2, 3, 4]);
}

#[tokio::test(start_paused = true)]
async fn two_of_three_drop_at_different_times() {
    let (node, room) = memory().await;
    let replies = node
        .apply(&room, vec![enter("a", 1), enter("b", 2), enter("c", 3)])
        .await;
    let epoch = joined(&replies[0]).epoch;
    node.ack(&room, lose("a", 1)).await;
    pass(&node, Duration::from_secs(120)).await;
    node.ack(&room, lose("b", 2)).await;
    pass(&node, 3 * GRACE).await;
    let told = told(&node, &room, &epoch).await;
    let all: Vec<_> = told.iter().map(|(_, said)| said.clone()).collect();
    let expected = [
        json!({"joined": ["a", "b", "c"]}),
        json!({"away": ["a"]}),
        json!({"away": ["b"]}),
        left("a"),
        left("b"),
    ];
    assert_eq!(all, expected);
    // Each within an interval of its own end.
    assert!((300..=330).contains(&told[3].0), "{told:?}");
    assert!((420..=450).contains(&told[4].0), "{told:?}");
    assert_eq!(node.picture(&room).await["users"][0]["id"], "c");
}

#[tokio::test(start_paused = true)]
async fn two_that_drop_together_leave_together() {
    let (node, room) = memory().await;
    let replies = node
        .apply(&room, vec![enter("a", 1), enter("b", 2), enter("c", 3)])
        .await;
    let epoch = joined(&replies[0]).epoch;
    node.apply(&room, vec![lose("a", 1), lose("b", 2)]).await;
    pass(&node, 3 * GRACE).await;
    let told = told(&node, &room, &epoch).await;
    assert_eq!(told.len(), 3, "{told:?}");
    assert_eq!(told[1].1, json!({"away": ["a", "b"]}));
    assert_eq!(told[2].1["left"].as_array().unwrap().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_user_that_never_returns() {
    let (node, room) = memory().await;
    let replies = node.apply(&room, vec![enter("a", 1), enter("b", 2)]).await;
    let epoch = joined(&replies[0]).epoch;
    node.ack(&room, lose("a", 1)).await;
    // An hour and more: the member that is there keeps the room.
    for _ in 0..5 {
        pass(&node, Duration::from_secs(1_700)).await;
        node.joined(&room, Op::tail(since(&epoch, 3))).await;
    }
    let again = node.joined(&room, resume("a", 3, &epoch, 1)).await;
    assert!(!again.recovered, "the log does not reach back so far");
    let picture: Value = serde_json::from_str(&again.data).unwrap();
    assert_eq!((&picture["members"], &picture["seq"]), (&json!(2), &json!(4)));
    assert_eq!(picture["you"]["status"], "here");
    assert!(picture["you"]["joinedAt"].as_u64() > picture["users"][1]["joinedAt"].as_u64());
}

#[tokio::test(start_paused = true)]
async fn grace_ends_at_its_millisecond() {
    let (node, room) = memory().await;
    node.apply(&room, vec![enter("a", 1), enter("b", 2)]).await;
    advance(Duration::from_secs(7)).await;
    node.ack(&room, lose("a", 1)).await;
    let lost_at = node.store.now_ms();
    advance(GRACE - MS).await;
    let swept = node.sweep(&room).await;
    assert_eq!((swept.left, swept.next), (0, lost_at + 300_000));
    assert_eq!(node.claim(10, INTERVAL).await, []);
    advance(MS).await;
    assert_eq!(node.store.now_ms(), lost_at + 300_000);
    assert_eq!(node.claim(10, INTERVAL).await, std::slice::from_ref(&room));
    assert_eq!(node.sweep(&room).await.left, 1);
    assert_eq!(node.claim(10, INTERVAL).await, []);
}

#[tokio::test(start_paused = true)]
async fn a_claim_ends_at_its_millisecond() {
    let (node, room) = memory().await;
    node.apply(&room, vec![enter("a", 1), lose("a", 1)]).await;
    advance(GRACE).await;
    let claim = Duration::from_secs(10);
    for _ in 0..3 {
        assert_eq!(node.claim(10, claim).await, std::slice::from_ref(&room));
        assert_eq!(node.claim(10, claim).await, []);
        advance(claim - MS).await;
        assert_eq!(node.claim(10, claim).await, []);
        advance(MS).await;
    }
}

#[tokio::test(start_paused = true)]
async fn messages_go_after_a_day() {
    let (node, room) = memory().await;
    let day = Duration::from_secs(24 * 3600);
    let epoch = node.joined(&room, enter("a", 1)).await.epoch;
    node.apply(&room, (0..10).map(|_| send("a", "1")).collect()).await;
    advance(Duration::from_secs(60)).await;
    node.apply(&room, (0..10).map(|_| send("a", "2")).collect()).await;
    let bodies_now = async || bodies(&node.ack(&room, history(None, None, 50)).await["messages"]);
    for _ in 0..95 {
        pass(&node, day / 96).await;
        node.joined(&room, Op::tail(since(&epoch, 21))).await;
    }
    assert_eq!(bodies_now().await.len(), 20);
    advance(day / 96 - Duration::from_secs(30)).await;
    let swept = node.sweep(&room).await;
    assert_eq!((swept.purged, bodies_now().await), (10, vec![json!(2); 10]));
    advance(Duration::from_secs(60)).await;
    assert_eq!(node.sweep(&room).await.purged, 10);
    assert!(bodies_now().await.is_empty());
    assert_eq!(node.picture(&room).await["members"], 1);
}

#[tokio::test(start_paused = true)]
async fn a_room_that_nobody_is_in_ends_and_is_left_alone() {
    let (node, room) = memory().await;
    node.apply(&room, vec![enter("a", 1), lose("a", 1)]).await;
    pass(&node, Duration::from_secs(2 * 3600)).await;
    assert!(node.one(&room, Op::Sweep).await.is_err());
    for _ in 0..10 {
        advance(INTERVAL).await;
        assert_eq!(node.claim(10, INTERVAL).await, []);
    }
}
