//! What is due: users that stayed away leave and old messages go, each once, whatever nodes see to it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use roomgate::store::{Op, StoreLimits, Swept};
use roomgate_shared::{ids::RoomId, protocol::codes::ErrorCode};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{
    harness::*,
    presence::{events, said},
};

/// Short enough to wait for.
const GRACE: Duration = Duration::from_millis(300);
/// A claim that no test sees the end of.
const LONG: Duration = Duration::from_secs(60);

fn brief() -> StoreLimits {
    StoreLimits {
        grace: GRACE,
        ..StoreLimits::default()
    }
}

/// What a sweeper does: claims what is due, and sweeps each of those rooms until nothing more is due in it now.
async fn round(node: &Node, most: usize) -> Vec<(RoomId, Swept)> {
    let mut done = Vec::new();
    for room in node.claim(most, LONG).await {
        loop {
            let swept = node.sweep(&room).await;
            let is_done = swept.next > swept.now;
            done.push((room.clone(), swept));
            if is_done {
                break;
            }
        }
    }
    done
}

/// Sweeps whatever comes until so many users have left.
async fn until_left(node: &Node, users: u64) {
    let mut left = 0;
    eventually(&format!("{users} have left"), async || {
        left += round(node, 10)
            .await
            .iter()
            .map(|(_, swept)| swept.left)
            .sum::<u64>();
        left >= users
    })
    .await;
    assert_eq!(left, users);
}

/// The `ts` of the events that say this of a user, by the part of their data.
fn times(events: &[Value], part: &str, id: &str) -> Vec<u64> {
    let says = |event: &&Value| {
        let list = event["data"][part].as_array();
        list.is_some_and(|list| {
            list.iter()
                .any(|entry| entry == id || entry["user"] == id || entry["id"] == id)
        })
    };
    events
        .iter()
        .filter(says)
        .map(|event| event["ts"].as_u64().unwrap())
        .collect()
}

/// How often each user is said to have left for being away too long.
fn timeouts(events: &[Value]) -> BTreeMap<String, usize> {
    let mut out = BTreeMap::new();
    for left in events.iter().flat_map(|event| event["data"]["left"].as_array()) {
        for user in left {
            assert_eq!(user["reason"], "timeout", "{user}");
            *out.entry(text(user, "user")).or_default() += 1;
        }
    }
    out
}

fn ms(time: Duration) -> u64 {
    time.as_millis() as u64
}

pub(crate) async fn users_leave_after_their_grace_and_not_before<B: Backend>() {
    let (apart, room) = (apart::<B>(brief()).await, new_room());
    let node = apart.node(0);
    node.store.subscribe(&room).await.unwrap();
    let replies = node
        .apply(&room, vec![enter("u1", 1), enter("u2", 2), enter("u2", 3)])
        .await;
    let epoch = joined(&replies[0]).epoch;
    // One connection of two is no loss.
    node.ack(&room, lose("u2", 3)).await;
    node.ack(&room, lose("u1", 1)).await;
    // However often it is swept before that, it stays.
    let mut left = 0;
    eventually("it has left", async || {
        left += node.sweep(&room).await.left;
        left == 1
    })
    .await;
    let events = events(node, &room, &epoch).await;
    let all: Vec<_> = events.iter().map(said).collect();
    let expected = [
        json!({"joined": ["u1", "u2"]}),
        json!({"away": ["u1"]}),
        json!({"left": [{"user": "u1", "reason": "timeout"}]}),
    ];
    assert_eq!(all, expected);
    let (away, left) = (times(&events, "away", "u1"), times(&events, "left", "u1"));
    assert!(left[0] >= away[0] + ms(GRACE), "{left:?} after {away:?}");
    // Told as every other event, and no member any more.
    node.heard.until(&room, 3).await;
    let picture = node.picture(&room).await;
    assert_eq!((&picture["members"], &picture["seq"]), (&json!(1), &json!(3)));
    assert_eq!(picture["users"][0]["id"], "u2");
    // Who comes again is a new member.
    node.joined(&room, enter("u1", 4)).await;
    let last = super::presence::events(node, &room, &epoch).await.pop().unwrap();
    assert_eq!(said(&last), json!({"joined": ["u1"]}));
    assert_eq!(last["data"]["joined"][0]["connections"], 1);
}

pub(crate) async fn nothing_is_handed_out_before_it_is_due<B: Backend>() {
    let limits = StoreLimits {
        grace: LONG,
        ..StoreLimits::default()
    };
    let (apart, room) = (apart::<B>(limits).await, new_room());
    let node = apart.node(0);
    node.apply(&room, vec![enter("u1", 1), enter("u2", 2), send("u1", "1")])
        .await;
    node.ack(&room, lose("u1", 1)).await;
    let swept = node.sweep(&room).await;
    assert_eq!((swept.left, swept.purged), (0, 0));
    for number in 0..4 {
        assert_eq!(apart.node(number).claim(10, LONG).await, []);
    }
    assert_eq!(node.picture(&room).await["members"], 2);
}

pub(crate) async fn a_sweep_says_when_something_is_due_again<B: Backend>() {
    let limits = StoreLimits {
        grace: LONG,
        retention: LONG / 2,
        ..StoreLimits::default()
    };
    let (node, room) = (node_with::<B>(limits).await, new_room());
    let replies = node
        .apply(&room, vec![enter("u1", 1), enter("u2", 2), enter("u3", 3)])
        .await;
    let epoch = joined(&replies[0]).epoch;
    // Nothing in particular: looked at again within a grace time.
    let next = node.sweep(&room).await.next;
    let now = node.store.now_ms();
    assert!((now + 1..=now + ms(LONG) + 50).contains(&next), "{next} at {now}");

    let away = async |id, number| {
        let before = node.store.now_ms();
        eventually("the clock has moved on", || async {
            node.store.now_ms() > before + 3
        })
        .await;
        node.ack(&room, lose(id, number)).await;
        let events = events(&node, &room, &epoch).await;
        *times(&events, "away", id).last().unwrap()
    };
    let first = away("u1", 1).await;
    assert_eq!(node.sweep(&room).await.next, first + ms(LONG));
    let second = away("u2", 2).await;
    assert!(second > first);
    assert_eq!(node.sweep(&room).await.next, first + ms(LONG));
    // Whoever is back is waited for no longer.
    node.joined(&room, enter("u1", 4)).await;
    assert_eq!(node.sweep(&room).await.next, second + ms(LONG));
    // A message ends before that, though not before its time.
    let message = node.ack(&room, send("u3", "1")).await["message"]["ts"]
        .as_u64()
        .unwrap();
    let next = node.sweep(&room).await.next;
    let end = message + ms(LONG / 2);
    assert!((end..=second + ms(LONG)).contains(&next), "{next}, not {end}");
}

pub(crate) async fn what_is_due_is_claimed_once<B: Backend>() {
    const ROOMS: usize = 40;
    let apart = apart::<B>(brief()).await;
    let rooms: Vec<_> = (0..ROOMS).map(|_| new_room()).collect();
    for room in &rooms {
        let node = apart.node(0);
        node.apply(room, vec![enter("u1", 1), enter("u2", 2), lose("u1", 1)])
            .await;
    }
    let handed_out = AtomicU64::new(0);
    let claims = async |node: &Node| {
        let mut mine = Vec::new();
        eventually("every room is handed out", async || {
            let rooms = node.claim(3, LONG).await;
            handed_out.fetch_add(rooms.len() as u64, Ordering::Relaxed);
            mine.extend(rooms);
            handed_out.load(Ordering::Relaxed) >= ROOMS as u64
        })
        .await;
        mine
    };
    let (a, b) = tokio::join!(claims(apart.node(0)), claims(apart.node(1)));
    let all: BTreeSet<&RoomId> = a.iter().chain(&b).collect();
    assert_eq!((a.len() + b.len(), all.len()), (ROOMS, ROOMS));
    assert_eq!(all, rooms.iter().collect());
    for number in 0..4 {
        assert_eq!(apart.node(number).claim(ROOMS, LONG).await, []);
    }
}

pub(crate) async fn a_claim_that_nothing_follows_comes_again<B: Backend>() {
    const CLAIM: Duration = Duration::from_millis(250);
    let (apart, room) = (apart::<B>(brief()).await, new_room());
    let node = apart.node(0);
    let replies = node.apply(&room, vec![enter("u1", 1), lose("u1", 1)]).await;
    let epoch = joined(&replies[0]).epoch;
    let mut start = Instant::now();
    eventually("it is due", async || {
        start = Instant::now();
        node.claim(10, CLAIM).await == [room.clone()]
    })
    .await;
    // Whoever claimed it is never heard of again.
    eventually("it is handed out again", || async {
        apart.node(1).claim(10, LONG).await == [room.clone()]
    })
    .await;
    let taken = start.elapsed();
    assert!(taken >= CLAIM - Duration::from_millis(2), "{taken:?}");
    assert_eq!(apart.node(2).claim(10, LONG).await, []);
    let swept = apart.node(1).sweep(&room).await;
    assert_eq!(swept.left, 1);
    assert_eq!(timeouts(&events(node, &room, &epoch).await)["u1"], 1);
}

/// A claim holds whatever happens in the room meanwhile.
pub(crate) async fn a_loss_does_not_end_a_claim<B: Backend>() {
    let (apart, claimed, other) = (apart::<B>(brief()).await, new_room(), new_room());
    let node = apart.node(0);
    let ops = vec![enter("u1", 1), enter("u2", 2), enter("u3", 3), lose("u1", 1)];
    node.apply(&claimed, ops).await;
    eventually("it is due", async || {
        node.claim(10, LONG).await == [claimed.clone()]
    })
    .await;
    node.apply(&claimed, vec![lose("u2", 2), leave("u3", 3), enter("u3", 4)])
        .await;
    // What is lost after that is due later.
    node.apply(&other, vec![enter("u1", 1), lose("u1", 1)]).await;
    let mut seen = Vec::new();
    eventually("the other room is due", async || {
        seen.extend(apart.node(1).claim(10, LONG).await);
        !seen.is_empty()
    })
    .await;
    seen.extend(apart.node(1).claim(10, LONG).await);
    assert_eq!(seen, [other]);
}

/// Puts users into a room and takes their connections away.
async fn lost(node: &Node, room: &RoomId, users: u64) -> String {
    let mut epoch = String::new();
    for from in (0..users).step_by(250) {
        let numbers = from..users.min(from + 250);
        let enters = numbers.clone().map(|n| enter(&format!("u{n}"), n)).collect();
        epoch = joined(&node.apply(room, enters).await[0]).epoch;
        let losses = numbers.map(|n| lose(&format!("u{n}"), n)).collect();
        node.apply(room, losses).await;
    }
    epoch
}

pub(crate) async fn a_thousand_due_users_are_announced_once_each<B: Backend>() {
    const CROWD: u64 = 1_000;
    const SMALL: u64 = 20;
    let apart = apart::<B>(brief()).await;
    let rooms: Vec<RoomId> = (0..11).map(|_| new_room()).collect();
    let mut epochs = Vec::new();
    for (number, room) in rooms.iter().enumerate() {
        let users = if number == 0 { CROWD } else { SMALL };
        epochs.push(lost(apart.node(0), room, users).await);
    }
    let all = CROWD + 10 * SMALL;
    let left = AtomicU64::new(0);
    let sweeper = async |node: &Node| {
        let mut done = Vec::new();
        eventually("all have left", async || {
            for (room, swept) in round(node, 2).await {
                left.fetch_add(swept.left, Ordering::Relaxed);
                done.push((room, swept));
            }
            // Without a claim it is no harm either.
            let swept = node.sweep(&rooms[0]).await;
            left.fetch_add(swept.left, Ordering::Relaxed);
            done.push((rooms[0].clone(), swept));
            left.load(Ordering::Relaxed) >= all
        })
        .await;
        done
    };
    let (a, b) = tokio::join!(sweeper(apart.node(0)), sweeper(apart.node(1)));
    assert_eq!(left.load(Ordering::Relaxed), all);
    for (number, (room, epoch)) in rooms.iter().zip(&epochs).enumerate() {
        let users = if number == 0 { CROWD } else { SMALL };
        let events = events(apart.node(0), room, epoch).await;
        let told = timeouts(&events);
        assert_eq!(told.len() as u64, users);
        assert!(told.values().all(|count| *count == 1), "{told:?}");
        // Who leaves in one step is told in one event.
        let told = events.iter().filter(|event| !event["data"]["left"].is_null());
        let steps = a
            .iter()
            .chain(&b)
            .filter(|(swept, done)| swept == room && done.left > 0);
        assert_eq!(told.count(), steps.count());
        assert_eq!(apart.node(0).picture(room).await["members"], 0);
    }
}

pub(crate) async fn a_sweep_that_dies_midway_is_finished_by_another<B: Backend>() {
    // More than leave in one step, over Redis.
    const CROWD: u64 = 1_200;
    const CLAIM: Duration = Duration::from_millis(200);
    let limits = StoreLimits {
        full_members: 2 * CROWD,
        ..brief()
    };
    let (apart, room) = (apart::<B>(limits).await, new_room());
    let epoch = lost(apart.node(0), &room, CROWD).await;
    let due = apart.node(0).store.now_ms() + ms(GRACE);
    eventually("all are due", async || apart.node(0).store.now_ms() > due).await;
    let mut before = 0;
    eventually("some have left", async || {
        // One step, and the node is heard of no more.
        if apart.node(0).claim(10, CLAIM).await == [room.clone()] {
            before = apart.node(0).sweep(&room).await.left;
        }
        before > 0
    })
    .await;
    // Over Redis a step is bounded.
    assert!(before < CROWD || B::NODES == 1, "{before}");
    if before < CROWD {
        until_left(apart.node(1), CROWD - before).await;
    }
    let told = timeouts(&events(apart.node(0), &room, &epoch).await);
    assert_eq!(told.len() as u64, CROWD);
    assert!(told.values().all(|count| *count == 1), "{told:?}");
}

pub(crate) async fn who_is_back_before_the_sweep_stays<B: Backend>() {
    let (apart, room) = (apart::<B>(brief()).await, new_room());
    let node = apart.node(0);
    let replies = node
        .apply(&room, vec![enter("u0", 0), enter("u1", 1), enter("u2", 2)])
        .await;
    let epoch = joined(&replies[0]).epoch;
    node.apply(&room, vec![lose("u1", 1), lose("u2", 2)]).await;
    let lost = events(node, &room, &epoch).await;
    let end = times(&lost, "away", "u2")[0] + ms(GRACE);
    eventually("both are due", || async { node.store.now_ms() > end }).await;
    node.joined(&room, enter("u1", 3)).await;
    assert_eq!(node.sweep(&room).await.left, 1);
    // Its next absence has a grace of its own.
    node.ack(&room, lose("u1", 3)).await;
    until_left(apart.node(1), 1).await;
    let events = events(node, &room, &epoch).await;
    let all: Vec<_> = events.iter().map(said).collect();
    let left = |id| json!({"left": [{"user": id, "reason": "timeout"}]});
    let expected = [
        json!({"joined": ["u0", "u1", "u2"]}),
        json!({"away": ["u1", "u2"]}),
        json!({"back": ["u1"]}),
        left("u2"),
        json!({"away": ["u1"]}),
        left("u1"),
    ];
    assert_eq!(all, expected);
    let (away, gone) = (times(&events, "away", "u1"), times(&events, "left", "u1"));
    assert!(gone[0] >= away[1] + ms(GRACE), "{gone:?} after {away:?}");
}

pub(crate) async fn old_messages_go_by_a_sweep<B: Backend>() {
    let limits = StoreLimits {
        retention: Duration::from_millis(200),
        ..brief()
    };
    const MESSAGES: u64 = 40;
    let (apart, room) = (apart::<B>(limits).await, new_room());
    let node = apart.node(0);
    let epoch = node.joined(&room, enter("u1", 1)).await.epoch;
    node.apply(&room, (0..MESSAGES).map(|_| send("u1", "1")).collect())
        .await;
    let mut purged = 0;
    eventually("the messages are gone", async || {
        purged += round(node, 10)
            .await
            .iter()
            .map(|(_, swept)| swept.purged)
            .sum::<u64>();
        purged >= MESSAGES
    })
    .await;
    assert_eq!(purged, MESSAGES);
    // Nobody left for it, and no event tells of it.
    let picture = node.picture(&room).await;
    assert_eq!(
        (&picture["members"], &picture["seq"]),
        (&json!(1), &json!(1 + MESSAGES))
    );
    assert_eq!(events(node, &room, &epoch).await.len() as u64, 1 + MESSAGES);
}

pub(crate) async fn a_room_with_members_is_looked_at_once_a_grace<B: Backend>() {
    let (apart, room) = (apart::<B>(brief()).await, new_room());
    apart.node(0).joined(&room, enter("u1", 1)).await;
    for number in 0..3 {
        eventually("it is handed out", || async {
            apart.node(number).claim(10, LONG).await == [room.clone()]
        })
        .await;
        let swept = apart.node(number).sweep(&room).await;
        assert_eq!((swept.left, swept.purged), (0, 0));
    }
}

pub(crate) async fn a_room_that_ended_is_not_handed_out_for_ever<B: Backend>() {
    const CLAIM: Duration = Duration::from_millis(100);
    let limits = StoreLimits {
        active_ttl: Duration::from_millis(300),
        retention: Duration::from_millis(300),
        grace: Duration::from_millis(600),
        ..StoreLimits::default()
    };
    let (apart, ended, kept) = (apart::<B>(limits).await, new_room(), new_room());
    let node = apart.node(0);
    // Somebody has been away for long in the other room, and nobody sees to it.
    let keep = async || node.joined(&kept, enter("u1", 1)).await;
    keep().await;
    node.apply(&kept, vec![enter("u2", 2), lose("u2", 2)]).await;
    node.apply(&ended, vec![enter("u1", 1), lose("u1", 1)]).await;
    let gone = async |seen: &mut Vec<RoomId>| {
        keep().await;
        seen.extend(node.claim(10, CLAIM).await);
        node.one(&ended, Op::Sweep).await
    };
    let mut seen = Vec::new();
    eventually(
        "the room has ended",
        async || matches!(gone(&mut seen).await, Err(refusal) if refusal.code == ErrorCode::NotFound),
    )
    .await;
    // That one comes again and again; the one that has ended, once more at the most.
    seen.clear();
    eventually("the room that is there is handed out", async || {
        gone(&mut seen).await.unwrap_err();
        seen.iter().filter(|room| **room == kept).count() >= 4
    })
    .await;
    let again = seen.iter().filter(|room| **room == ended).count();
    assert!(again <= 1, "{again} times of {}", seen.len());
}

pub(crate) async fn who_was_taken_for_gone_returns<B: Backend>() {
    let (node, room) = (node::<B>().await, new_room());
    let replies = node
        .apply(
            &room,
            vec![enter("u1", 1), enter("u2", 2), enter("u3", 3), enter("u4", 4)],
        )
        .await;
    let epoch = joined(&replies[0]).epoch;
    node.apply(
        &room,
        vec![lose("u2", 2), lose("u3", 3), leave("u4", 4), enter("u3", 5)],
    )
    .await;
    // Here, away, here by another connection, gone altogether; and the first once more.
    let all = come_back(&[("u1", 1), ("u2", 2), ("u3", 3), ("u4", 4)]);
    assert_eq!(node.ack(&room, all.clone()).await, json!({}));
    assert_eq!(node.ack(&room, all).await, json!({}));
    let last = events(&node, &room, &epoch).await.pop().unwrap();
    assert_eq!(said(&last), json!({"joined": ["u4"], "back": ["u2"]}));
    let listed = node.ack(&room, list(None, 10)).await;
    let connections: Vec<_> = listed["users"]
        .as_array()
        .unwrap()
        .iter()
        .map(|user| (text(user, "status"), user["connections"].as_u64().unwrap()))
        .collect();
    let here = |count| ("here".to_owned(), count);
    assert_eq!(connections, [here(1), here(1), here(2), here(1)]);
    // They part as others do.
    node.ack(&room, lose("u2", 2)).await;
    let last = events(&node, &room, &epoch).await.pop().unwrap();
    assert_eq!(said(&last), json!({"away": ["u2"]}));
}

pub(crate) async fn who_is_active_is_seen<B: Backend>() {
    let (node, room) = (node::<B>().await, new_room());
    node.apply(&room, vec![enter("u1", 1), enter("u2", 2)]).await;
    let seen = async || -> Vec<u64> {
        let listed = node.ack(&room, list(None, 10)).await;
        listed["users"]
            .as_array()
            .unwrap()
            .iter()
            .map(|user| user["lastSeen"].as_u64().unwrap())
            .collect()
    };
    let before = seen().await;
    eventually("the clock has moved on", || async {
        node.store.now_ms() > before[0] + 5
    })
    .await;
    let active = Op::Active {
        users: vec![user("stranger"), user("u2")],
    };
    assert_eq!(node.ack(&room, active).await, json!({}));
    let after = seen().await;
    assert_eq!(after.len(), 2);
    assert!(
        after[0] == before[0] && after[1] > before[1],
        "{before:?} {after:?}"
    );
    assert_eq!(node.picture(&room).await["seq"], 1);
}
