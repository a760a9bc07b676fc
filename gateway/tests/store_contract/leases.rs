//! Nodes that end without a word, over Redis: what they leave behind is taken out by the others, once.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use parking_lot::Mutex;
use roomgate::store::{
    Beat, EventSink, Op, Readiness, Store as _, StoreLimits,
    redis::{RedisConfig, RedisStore},
};
use roomgate_shared::ids::{NodeId, RoomId};
use serde_json::{Value, json};
use tokio::task::{JoinHandle, JoinSet};

use super::{
    harness::*,
    on_redis::config,
    presence::{events, sorted},
    redis_server::RedisServer,
};

/// How long a node may be silent: longer than a busy machine keeps a test waiting.
const LEASE: Duration = Duration::from_millis(1_200);

/// A server of one test's own.
struct Ward {
    server: RedisServer,
}

impl Ward {
    fn new() -> Self {
        Self {
            server: RedisServer::start(),
        }
    }

    /// The node of this name, with a lease that it holds until it is silenced.
    async fn node(&self, name: &str) -> Living {
        self.node_with(name, StoreLimits::default()).await
    }

    async fn node_with(&self, name: &str, limits: StoreLimits) -> Living {
        let config = RedisConfig {
            node: NodeId::new(name).unwrap(),
            lease: LEASE,
            ..config(&self.server.url(), 0, limits)
        };
        let heard = Arc::new(Recorder::default());
        let store = RedisStore::new(config, Arc::clone(&heard) as Arc<dyn EventSink>).unwrap();
        store.boot(PATIENCE).await.unwrap();
        let node = Arc::new(Node { store, heard });
        let heart = Some(Heart::of(&node));
        Living { node, heart }
    }

    fn ask(&self, command: &[&str]) -> String {
        self.server.ask(command).trim().to_owned()
    }

    /// Asserts that no key and no entry of an index names this instance, or a record of these rooms.
    fn assert_gone(&self, instance: &str, rooms: &[RoomId]) {
        let names = |text: &str| text.contains(instance);
        let keys = self.ask(&["KEYS", "*"]);
        assert!(!names(&keys), "{keys}");
        let nodes = self.ask(&["ZRANGE", "nodes", "0", "-1"]);
        assert!(!names(&nodes), "{nodes}");
        for room in rooms {
            let users = self.ask(&["HVALS", &format!("room:{{{room}}}:users")]);
            assert!(!names(&users), "{users}");
        }
    }
}

async fn beat(node: &Node) -> Beat {
    node.store.beat().await.unwrap()
}

/// Beats in the background, as a gateway does, and keeps what it is told.
struct Heart {
    beats: Arc<Mutex<Vec<Beat>>>,
    task: JoinHandle<()>,
}

impl Heart {
    fn of(node: &Arc<Node>) -> Self {
        let (node, beats) = (Arc::clone(node), Arc::<Mutex<Vec<Beat>>>::default());
        let kept = Arc::clone(&beats);
        let task = tokio::spawn(async move {
            let mut turn = tokio::time::interval(LEASE / 5);
            loop {
                turn.tick().await;
                let beat = beat(&node).await;
                kept.lock().push(beat);
            }
        });
        Self { beats, task }
    }

    /// Nodes that it was told of.
    fn dead(&self) -> Vec<String> {
        assert!(!self.task.is_finished(), "a beat has failed");
        let beats = self.beats.lock();
        assert!(beats.iter().all(|beat| !beat.lost), "{beats:?}");
        beats.iter().flat_map(|beat| beat.dead.clone()).collect()
    }

    /// Waits for so many more beats.
    async fn more(&self, beats: usize) {
        let end = self.beats.lock().len() + beats;
        eventually("beats", || async {
            assert!(!self.task.is_finished(), "a beat has failed");
            self.beats.lock().len() >= end
        })
        .await;
    }
}

impl Drop for Heart {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A node whose heart beats.
struct Living {
    node: Arc<Node>,
    heart: Option<Heart>,
}

impl std::ops::Deref for Living {
    type Target = Node;

    fn deref(&self) -> &Node {
        &self.node
    }
}

impl Living {
    fn name(&self) -> String {
        self.store.instance().to_string()
    }

    /// It is not heard of from here on, though it goes on if it is asked to.
    fn silence(&mut self) {
        self.heart = None;
    }

    fn heart(&self) -> &Heart {
        self.heart.as_ref().unwrap()
    }

    /// Waits until it has been told of this node's end.
    async fn told_of(&self, dead: &str) {
        eventually(&format!("the end of {dead} is told"), || async {
            self.heart().dead().iter().any(|told| told == dead)
        })
        .await;
    }
}

/// Takes a dead node out of all its rooms, as far as `rooms_of` names them; gives the steps that said that users are
/// away, and the rooms.
async fn bury(node: &Node, dead: &str, most: usize) -> (usize, Vec<RoomId>) {
    let (mut steps, mut all) = (0, Vec::new());
    loop {
        let rooms = node.store.rooms_of(dead, most).await.unwrap();
        assert!(rooms.len() <= most);
        if rooms.is_empty() {
            return (steps, all);
        }
        for room in &rooms {
            assert!(!all.contains(room), "{room} is named again");
            let mut cursor = String::new();
            loop {
                let step = Op::Bury {
                    node: dead.to_owned(),
                    cursor,
                };
                let done = buried(&node.one(room, step).await);
                steps += usize::from(done.away > 0);
                cursor = done.cursor;
                if cursor.is_empty() {
                    break;
                }
            }
        }
        all.extend(rooms.clone());
        node.store.buried(dead, rooms).await.unwrap();
    }
}

/// How often each user is said to be away, and in how many events.
fn away(events: &[Value]) -> (BTreeMap<String, usize>, usize) {
    let (mut out, mut told) = (BTreeMap::new(), 0);
    for event in events {
        let ids = event["data"]["away"].as_array();
        told += usize::from(ids.is_some());
        for id in ids.into_iter().flatten() {
            *out.entry(id.as_str().unwrap().to_owned()).or_default() += 1;
        }
    }
    (out, told)
}

/// Puts users into a room, their connections of the same numbers.
async fn fill(node: &Node, room: &RoomId, users: std::ops::Range<u64>) -> String {
    let mut epoch = String::new();
    for from in users.clone().step_by(250) {
        let numbers = from..users.end.min(from + 250);
        let ops = numbers.map(|n| enter(&format!("u{n}"), n)).collect();
        epoch = joined(&node.apply(room, ops).await[0]).epoch;
    }
    epoch
}

#[tokio::test]
async fn a_node_that_stops_is_taken_out_once() {
    const CROWD: u64 = 1_000;
    const ELSEWHERE: u64 = 100;
    let ward = Ward::new();
    let (mut a, b, c) = (ward.node("a").await, ward.node("b").await, ward.node("c").await);
    let dead = a.name();
    assert!(
        dead.strip_prefix("a~").is_some_and(|rest| rest.len() == 8),
        "{dead}"
    );
    let big = new_room();
    let epoch = fill(&a, &big, 0..CROWD).await;
    let other = (0..ELSEWHERE).map(|n| enter(&format!("u{n}"), 10_000 + n));
    b.apply(&big, other.collect()).await;
    let mut rooms = vec![big.clone()];
    for number in 0..12 {
        let room = new_room();
        a.apply(&room, vec![enter("x", number), send("x", "\"kept\"")])
            .await;
        b.joined(&room, enter("y", number)).await;
        rooms.push(room);
    }
    let record = ward.ask(&["HGET", &format!("room:{{{big}}}:users"), "u0"]);
    assert!(record.contains(&format!("\"{dead}\"")), "{record}");

    a.silence();
    let reports = || [&b, &c].map(|node| node.heart().dead()).concat();
    eventually("its end is told", || async { !reports().is_empty() }).await;
    let finder = if b.heart().dead().is_empty() { &c } else { &b };
    let (steps, mut named) = bury(finder, &dead, 5).await;
    let told = events(&b, &big, &epoch).await;
    let (users, count) = away(&told);
    assert_eq!(users.len() as u64, CROWD - ELSEWHERE);
    assert!(users.values().all(|times| *times == 1));
    assert!((0..ELSEWHERE).all(|n| !users.contains_key(&format!("u{n}"))));
    assert!(count <= steps && count <= 20, "{count} events in {steps} steps");
    // Those that have a connection elsewhere have that one only.
    let listed = b.ack(&big, list(None, CROWD as usize)).await;
    for user in listed["users"].as_array().unwrap() {
        let is_away = users.contains_key(&text(user, "id"));
        let (status, connections) = if is_away { ("away", 0) } else { ("here", 1) };
        assert_eq!(
            (&user["status"], &user["connections"]),
            (&json!(status), &json!(connections))
        );
    }
    for room in &rooms[1..] {
        let picture = b.picture(room).await;
        let mut statuses: Vec<_> = picture["users"]
            .as_array()
            .unwrap()
            .iter()
            .map(|user| (text(user, "id"), text(user, "status")))
            .collect();
        statuses.sort_unstable();
        let of = |id: &str, status: &str| (id.to_owned(), status.to_owned());
        assert_eq!(statuses, [of("x", "away"), of("y", "here")]);
    }
    named.sort_unstable();
    rooms.sort_unstable();
    assert_eq!(named, rooms);
    // Told once, to one of them, and forgotten.
    for node in [&b, &c] {
        node.heart().more(6).await;
    }
    assert_eq!(reports(), std::slice::from_ref(&dead));
    ward.assert_gone(&dead, &rooms);
    assert!(c.store.rooms_of(&dead, 5).await.unwrap().is_empty());
    ward.assert_gone(&dead, &rooms);
}

#[tokio::test]
async fn the_taking_out_in_a_room_that_counts_makes_no_events() {
    let ward = Ward::new();
    let limits = StoreLimits {
        full_members: 10,
        grace: Duration::from_millis(100),
        ..StoreLimits::default()
    };
    let mut a = ward.node_with("a", limits.clone()).await;
    let b = ward.node_with("b", limits).await;
    let room = new_room();
    let epoch = fill(&a, &room, 0..50).await;
    let seq = b.joined(&room, enter("w", 900)).await.seq;
    b.store.subscribe(&room).await.unwrap();
    a.silence();
    b.told_of(&a.name()).await;
    bury(&b, &a.name(), 10).await;
    let picture = b.picture(&room).await;
    assert_eq!((&picture["seq"], &picture["members"]), (&json!(seq), &json!(51)));
    // All of them leave; then there are few enough to be told again.
    let mut left = 0;
    eventually("they have left", async || {
        left += b.sweep(&room).await.left;
        left >= 50
    })
    .await;
    assert_eq!(left, 50);
    let events = events(&b, &room, &epoch).await;
    assert!(events.iter().all(|event| event["data"].get("away").is_none()));
    let last = events.iter().find(|event| event["data"]["all"] == true).unwrap();
    assert_eq!(last["seq"], seq + 1);
    assert!(b.heard.counts(&room).iter().all(|count| *count < 51));
}

#[tokio::test]
async fn what_an_undertaker_leaves_is_done_by_another() {
    const CROWD: u64 = 1_000;
    let ward = Ward::new();
    let (mut a, b, c) = (ward.node("a").await, ward.node("b").await, ward.node("c").await);
    let (big, small, own) = (new_room(), new_room(), new_room());
    let dead = a.name();
    let epoch = fill(&a, &big, 0..CROWD).await;
    let second = fill(&a, &small, 0..3).await;
    let third = fill(&b, &own, 0..3).await;
    c.apply(&own, (0..3).map(|n| enter(&format!("u{n}"), 10 + n)).collect())
        .await;
    a.silence();
    // The first to be told begins, and ends in the middle of it.
    let told = |nodes: &[Living]| nodes.iter().position(|node| !node.heart().dead().is_empty());
    let mut nodes = vec![b, c];
    eventually("its end is told", || async { told(&nodes).is_some() }).await;
    let mut first = nodes.remove(told(&nodes).unwrap());
    let last = nodes.remove(0);
    let rooms = first.store.rooms_of(&dead, 10).await.unwrap();
    assert_eq!(rooms.len(), 2);
    let step = Op::Bury {
        node: dead.clone(),
        cursor: String::new(),
    };
    buried(&first.one(&big, step).await);
    first.silence();
    // The time for which it was given to the first is over.
    ward.ask(&["ZADD", "nodes", "XX", "1", &format!("!{dead}")]);
    let both = [dead, first.name()];
    for one in &both {
        last.told_of(one).await;
    }
    for one in &both {
        bury(&last, one, 10).await;
    }
    for (room, epoch, users) in [(&big, &epoch, CROWD), (&small, &second, 3), (&own, &third, 0)] {
        let (told, _) = away(&events(&last, room, epoch).await);
        assert_eq!(told.len() as u64, users);
        assert!(told.values().all(|times| *times == 1));
    }
    let listed = last.ack(&own, list(None, 10)).await;
    for user in listed["users"].as_array().unwrap() {
        assert_eq!(user["connections"], 1);
    }
    for one in &both {
        ward.assert_gone(one, &[big.clone(), small.clone(), own.clone()]);
    }
    assert_eq!(ward.ask(&["ZRANGE", "nodes", "0", "-1"]), last.name());
}

#[tokio::test]
async fn a_node_that_lives_on_without_its_lease_says_who_is_here() {
    let ward = Ward::new();
    let (mut a, b) = (ward.node("a").await, ward.node("b").await);
    let (room, late) = (new_room(), new_room());
    let first = a.name();
    let replies = a
        .apply(&room, vec![enter("u1", 1), enter("u2", 2), enter("u3", 3)])
        .await;
    let epoch = joined(&replies[0]).epoch;
    b.joined(&room, enter("u3", 13)).await;
    a.silence();
    b.told_of(&first).await;
    bury(&b, &first, 10).await;
    ward.assert_gone(&first, std::slice::from_ref(&room));
    // It does not know yet, and goes on for a while.
    let before = a.joined(&late, enter("u4", 4)).await.epoch;
    a.ack(&room, send("u1", "1")).await;
    a.joined(&room, enter("u5", 5)).await;

    let found = beat(&a).await;
    assert!(found.lost && found.dead.is_empty(), "{found:?}");
    let second = a.name();
    assert!(second != first && second.starts_with("a~"), "{second}");
    let back = come_back(&[("u1", 1), ("u2", 2), ("u3", 3), ("u5", 5)]);
    assert_eq!(a.ack(&room, back).await, json!({}));
    assert_eq!(a.ack(&late, come_back(&[("u4", 4)])).await, json!({}));
    let told: Vec<_> = events(&b, &room, &epoch)
        .await
        .iter()
        .filter(|event| event["type"] == "presence")
        .map(sorted)
        .collect();
    let expected = [
        json!({"joined": ["u1", "u2", "u3"]}),
        json!({"away": ["u1", "u2"]}),
        json!({"joined": ["u5"]}),
        json!({"back": ["u1", "u2"]}),
    ];
    assert_eq!(told, expected);
    assert_eq!(events(&a, &late, &before).await.len(), 1);
    assert!(!beat(&a).await.lost);
    // It is as if it had never been another: its second end takes all of them out, and nobody else.
    a.heart = Some(Heart::of(&a.node));
    a.heart().more(8).await;
    a.silence();
    b.told_of(&second).await;
    bury(&b, &second, 10).await;
    let told = events(&b, &room, &epoch).await;
    assert_eq!(sorted(told.last().unwrap()), json!({"away": ["u1", "u2", "u5"]}));
    assert_eq!(b.picture(&late).await["users"][0]["status"], "away");
    // The name that it had meanwhile is not left either.
    eventually("nothing names it", || async {
        for dead in b.heart().dead() {
            bury(&b, &dead, 10).await;
        }
        let keys = ward.ask(&["KEYS", "node:*"]);
        keys.lines().all(|key| key.contains(&b.name()))
    })
    .await;
    for name in [&first, &second] {
        ward.assert_gone(name, &[room.clone(), late.clone()]);
    }
}

/// It was taken out while it was silent, did something more under its old name, and then ended for good.
#[tokio::test]
async fn what_a_node_does_after_its_end_is_taken_out_too() {
    let ward = Ward::new();
    let (mut a, b) = (ward.node("a").await, ward.node("b").await);
    let (room, late) = (new_room(), new_room());
    let name = a.name();
    a.joined(&room, enter("u1", 1)).await;
    a.silence();
    b.told_of(&name).await;
    bury(&b, &name, 10).await;
    a.joined(&late, enter("u2", 2)).await;
    a.joined(&room, enter("u3", 3)).await;
    // It has taken another lease to do so, which ends in its turn.
    eventually("they are away", || async {
        for dead in b.heart().dead() {
            bury(&b, &dead, 10).await;
        }
        let mut away = true;
        for (room, id) in [(&late, "u2"), (&room, "u3")] {
            let listed = b.ack(room, list(None, 10)).await;
            let users = listed["users"].as_array().unwrap();
            let it = users.iter().find(|user| user["id"] == id).unwrap();
            away &= it["status"] == "away";
        }
        away
    })
    .await;
    for dead in b.heart().dead() {
        ward.assert_gone(&dead, &[room.clone(), late.clone()]);
    }
}

/// A node can be asked as soon as it is ready; whatever it is asked then, its lease comes first.
#[tokio::test]
async fn who_enters_at_the_first_moment_is_not_taken_for_gone() {
    let ward = Ward::new();
    for round in 0..20 {
        let config = RedisConfig {
            node: NodeId::new(format!("n{round}")).unwrap(),
            lease: PATIENCE,
            ..config(&ward.server.url(), 0, StoreLimits::default())
        };
        let sink = Arc::<Recorder>::default() as Arc<dyn EventSink>;
        let store = RedisStore::new(config, sink).unwrap();
        let first = async {
            while store.readiness() != Readiness::Ready {
                tokio::task::yield_now().await;
            }
            let room = new_room();
            store.apply(&room, vec![enter("u1", 1)]).await.unwrap();
        };
        let (booted, ()) = tokio::join!(store.boot(PATIENCE), first);
        booted.unwrap();
        let nodes = ward.ask(&["ZRANGE", "nodes", "0", "-1"]);
        assert!(nodes.contains(&*store.instance()), "{nodes}");
        assert!(!nodes.contains('!'), "a living node is to be taken out: {nodes}");
        store.resign().await;
        ward.ask(&["DEL", "nodes"]);
    }
}

/// The same where a node finds its lease lost and takes another one, while members enter.
#[tokio::test]
async fn who_enters_while_a_lease_is_found_lost_is_not_taken_for_gone() {
    let ward = Ward::new();
    let mut a = ward.node("a").await;
    a.silence();
    for round in 0..20 {
        // Somebody has taken it out, and is done with it.
        ward.ask(&["DEL", "nodes"]);
        let mut entering = JoinSet::new();
        let enter_some = |entering: &mut JoinSet<()>| {
            for number in 0..10 {
                let (node, room) = (Arc::clone(&a.node), new_room());
                entering.spawn(async move {
                    node.joined(&room, enter("u1", number)).await;
                });
            }
        };
        enter_some(&mut entering);
        let before = a.name();
        let beating = tokio::spawn({
            let node = Arc::clone(&a.node);
            async move { beat(&node).await }
        });
        // As soon as it goes by another name.
        while a.name() == before {
            tokio::task::yield_now().await;
        }
        enter_some(&mut entering);
        entering.join_all().await;
        assert!(beating.await.unwrap().lost, "round {round}");
        let nodes = ward.ask(&["ZRANGE", "nodes", "0", "-1"]);
        let names: Vec<_> = nodes.lines().collect();
        assert!(names.contains(&a.name().as_str()), "{names:?}");
        let taken_out = format!("!{}", a.name());
        assert!(!names.contains(&taken_out.as_str()), "{names:?}");
    }
}

#[tokio::test]
async fn a_node_that_resigns_is_not_missed() {
    let ward = Ward::new();
    let (mut a, b) = (ward.node("a").await, ward.node("b").await);
    let (name, room) = (a.name(), new_room());
    a.store.subscribe(&room).await.unwrap();
    a.joined(&room, enter("u1", 1)).await;
    a.ack(&room, lose("u1", 1)).await;
    a.store.unsubscribe(&room);
    a.silence();
    a.store.resign().await;
    ward.assert_gone(&name, &[room]);
    // Longer than its lease.
    b.heart().more(8).await;
    assert_eq!(b.heart().dead(), [""; 0]);
}

/// It could not take its own connections out.
#[tokio::test]
async fn what_a_node_that_resigns_leaves_is_taken_out() {
    let ward = Ward::new();
    let (mut a, b) = (ward.node("a").await, ward.node("b").await);
    let (name, room) = (a.name(), new_room());
    let epoch = a.joined(&room, enter("u1", 1)).await.epoch;
    a.silence();
    a.store.resign().await;
    b.told_of(&name).await;
    bury(&b, &name, 10).await;
    let told: Vec<_> = events(&b, &room, &epoch).await.iter().map(sorted).collect();
    assert_eq!(told, [json!({"joined": ["u1"]}), json!({"away": ["u1"]})]);
    ward.assert_gone(&name, &[room]);
}

#[tokio::test]
async fn a_node_started_again_is_another_one() {
    let ward = Ward::new();
    let (first, room) = (ward.node("a").await, new_room());
    let epoch = first.joined(&room, enter("u1", 1)).await.epoch;
    let dead = first.name();
    drop(first);
    let again = ward.node("a").await;
    assert_ne!(again.name(), dead);
    // Its own past is another's end, and a connection of the same number is not the same.
    again.told_of(&dead).await;
    again.joined(&room, enter("u2", 2)).await;
    bury(&again, &dead, 10).await;
    let told: Vec<_> = events(&again, &room, &epoch).await.iter().map(sorted).collect();
    let expected = [
        json!({"joined": ["u1"]}),
        json!({"joined": ["u2"]}),
        json!({"away": ["u1"]}),
    ];
    assert_eq!(told, expected);
    ward.assert_gone(&dead, &[room]);
}

#[tokio::test]
async fn many_silent_nodes_are_shared_out() {
    let ward = Ward::new();
    let mut silent = Vec::new();
    let room = new_room();
    let mut epoch = String::new();
    for number in 0..6 {
        let node = ward.node(&format!("s{number}")).await;
        epoch = node
            .joined(&room, enter(&format!("u{number}"), number))
            .await
            .epoch;
        silent.push(node);
    }
    let (b, c) = (ward.node("b").await, ward.node("c").await);
    let mut expected: Vec<_> = silent.iter().map(Living::name).collect();
    for node in &mut silent {
        node.silence();
    }
    let mut done: Vec<String> = Vec::new();
    eventually("all ends are told", async || {
        for node in [&b, &c] {
            for dead in node.heart().dead() {
                if !done.contains(&dead) {
                    bury(node, &dead, 10).await;
                    done.push(dead);
                }
            }
        }
        done.len() == silent.len()
    })
    .await;
    expected.sort_unstable();
    done.sort_unstable();
    assert_eq!(done, expected);
    let (told, _) = away(&events(&b, &room, &epoch).await);
    assert_eq!(told.values().sum::<usize>(), 6);
    for dead in &expected {
        ward.assert_gone(dead, std::slice::from_ref(&room));
    }
}
