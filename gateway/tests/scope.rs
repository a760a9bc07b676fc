//! Guarantee 1, scope: an event of a room reaches connections that have joined that room, and no other, on any node.
//!
//! Members move between rooms and nodes while every kind of event is published; each checks every frame that it gets. A
//! gateway with a planted leak shows that the check finds one.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::collections::HashMap;

use roomgate_shared::protocol::event::ServerFrame;
use serde_json::{Value, json};
use support::{
    client::Client,
    cluster::{Cluster, Store},
};
use tokio::task::JoinSet;

const ROOMS: u64 = 24;
const CONNECTIONS: u64 = 200;
const STEPS: u64 = 40;
/// A member stays in as many rooms as this at most.
const MOST_ROOMS: usize = 4;

/// Small, seeded, good enough to mix steps.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

/// What one connection knows of where it is, and what it saw that it should not have.
#[derive(Default)]
struct Checker {
    /// Rooms that it is in, with the last `seq` seen.
    inside: HashMap<String, u64>,
    /// Joins and leaves that are not answered, by id.
    moving: HashMap<String, (bool, String)>,
    events: u64,
    violations: Vec<String>,
}

impl Checker {
    fn see(&mut self, frame: &ServerFrame) {
        let Some(room) = frame.room.clone() else { return };
        if let Some((entering, room)) = frame.id.as_ref().and_then(|id| self.moving.remove(id)) {
            // A second leave behind the first finds the room left.
            let left_twice = !entering && frame.data["code"] == "not_joined";
            assert!(frame.kind == "ack" || left_twice, "{}", frame.data);
            if entering {
                self.inside.insert(room, frame.data["seq"].as_u64().unwrap());
            } else {
                self.inside.remove(&room);
            }
            return;
        }
        if frame.id.is_some() {
            return;
        }
        self.events += 1;
        match self.inside.get_mut(&room) {
            None => self
                .violations
                .push(format!("{} of {room}, which is not joined", frame.kind)),
            Some(last) => {
                if let Some(seq) = frame.seq {
                    if seq != *last + 1 {
                        self.violations.push(format!("{room}: {seq} follows {last}"));
                    }
                    *last = seq;
                }
            }
        }
        for told in rooms_named(&frame.data) {
            if told != room {
                self.violations
                    .push(format!("{} of {room} holds what was sent to {told}", frame.kind));
            }
        }
    }
}

/// Every value of a member `sentTo`, however deep: all that these clients send says where.
fn rooms_named(value: &Value) -> Vec<&str> {
    match value {
        Value::Object(members) => members
            .iter()
            .flat_map(|(name, value)| match value.as_str() {
                Some(room) if name == "sentTo" => vec![room],
                _ => rooms_named(value),
            })
            .collect(),
        Value::Array(items) => items.iter().flat_map(rooms_named).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Vec::new(),
    }
}

/// One connection's walk: what it found, and how many events it saw.
async fn walk(cluster: &Cluster, number: u64, seed: u64) -> Checker {
    let mut random =
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (number + 1).wrapping_mul(0xbf58_476d_1ce4_e5b9));
    let (mut total, mut checker) = (Checker::default(), Checker::default());
    // Two connections in a row share a user, on different nodes.
    let user = format!("u{}", number / 2);
    let mut client = cluster.client(number as usize, &user).await;
    for _ in 0..STEPS {
        let here: Vec<String> = checker.inside.keys().cloned().collect();
        let room = format!("room-{}", random.below(ROOMS));
        let inside = (!here.is_empty()).then(|| here[random.below(here.len() as u64) as usize].clone());
        match (random.below(10), inside) {
            (0..=2, _) | (_, None) if here.len() < MOST_ROOMS => {
                let data = json!({"messages": 3, "presence": {"sentTo": room}});
                let id = client.send("join", &room, data).await;
                checker.moving.insert(id, (true, room));
            }
            (3, Some(room)) => {
                let id = client.send("leave", &room, json!({})).await;
                checker.moving.insert(id, (false, room));
            }
            (4, _) if random.below(4) == 0 => {
                // Another node, and nothing joined.
                drain(&mut client, &mut checker).await;
                if random.below(2) == 0 {
                    client.close().await;
                }
                total.absorb(std::mem::take(&mut checker));
                client = cluster.client(random.below(3) as usize, &user).await;
            }
            (step, Some(room)) => {
                let (kind, data) = match step {
                    5 => ("broadcast", json!({"event": "e", "payload": {"sentTo": room}})),
                    6 => ("signal", json!({"event": "s", "payload": {"sentTo": room}})),
                    7 => (
                        "presence.update",
                        json!({"set": {"n": random.below(9), "sentTo": room}}),
                    ),
                    8 => (
                        "state.patch",
                        json!({"set": {"f": {"sentTo": room}}, "increment": {"n": 1}}),
                    ),
                    _ => ("message.send", json!({"body": {"sentTo": room}})),
                };
                client.send(kind, &room, data).await;
            }
            (_, None) => {}
        }
        while let Some(frame) = client.try_next() {
            checker.see(&frame);
        }
        if random.below(3) == 0 {
            drain(&mut client, &mut checker).await;
        }
    }
    drain(&mut client, &mut checker).await;
    total.absorb(checker);
    total
}

/// Reads all that came before the answer to a ping.
async fn drain(client: &mut Client, checker: &mut Checker) {
    while !checker.moving.is_empty() {
        let frame = client.next().await;
        checker.see(&frame);
    }
    let id = client.send("ping", "", json!({})).await;
    loop {
        let frame = client.next().await;
        if frame.id.as_ref() == Some(&id) {
            return;
        }
        checker.see(&frame);
    }
}

impl Checker {
    fn absorb(&mut self, other: Self) {
        self.events += other.events;
        self.violations.extend(other.violations);
    }
}

async fn run(store: Store, envs: &[(&str, &str)]) -> Checker {
    let cluster = std::sync::Arc::new(Cluster::start(store, 3, envs).await);
    let mut walks = JoinSet::new();
    for number in 0..CONNECTIONS {
        let cluster = cluster.clone();
        walks.spawn(async move { walk(&cluster, number, 20_261_121).await });
    }
    let mut total = Checker::default();
    while let Some(walk) = walks.join_next().await {
        total.absorb(walk.unwrap());
    }
    total
}

fn assert_sealed(found: &Checker) {
    assert!(
        found.violations.is_empty(),
        "{:?}",
        &found.violations[..found.violations.len().min(10)]
    );
    assert!(found.events > 20_000, "only {} events were checked", found.events);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_leaves_its_room_in_memory() {
    assert_sealed(&run(Store::Memory, &[]).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_leaves_its_room_over_redis() {
    assert_sealed(&run(Store::Redis, &[]).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_planted_leak_is_found() {
    let found = run(Store::Memory, &[("ROOMGATE_PLANT", "leak")]).await;
    assert!(
        !found.violations.is_empty(),
        "{} events and no violation",
        found.events
    );
}
