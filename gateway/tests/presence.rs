//! Guarantee 6 over several gateways and a real Redis: who is lost is away, who does not come back leaves, each told once,
//! whatever becomes of the gateways meanwhile.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use roomgate_shared::protocol::event::ServerFrame;
use serde_json::{Value, json};
use support::{
    client::{Client, DEADLINE},
    cluster::{Cluster, Store},
    crowd::Mute,
    redis_server::RedisServer,
    told::{lines, since},
    wait::eventually,
};
use tokio::time::Instant;

const GRACE_MS: u64 = 4_000;
const SHORT: [(&str, &str); 3] = [
    ("PRESENCE_GRACE_SECONDS", "4"),
    ("SWEEP_INTERVAL_SECONDS", "1"),
    ("NODE_LEASE_SECONDS", "5"),
];

/// The server's time.
fn unix_ms(redis: &RedisServer) -> u64 {
    let time = redis.ask(&["TIME"]);
    let mut parts = time.lines().map(|part| part.parse::<u64>().unwrap());
    parts.next().unwrap() * 1_000 + parts.next().unwrap() / 1_000
}

/// A member that keeps the presence events of its room from a place on.
struct Watcher {
    client: Client,
    room: String,
    /// Each durable event takes the next.
    seq: u64,
    events: Vec<ServerFrame>,
}

impl Watcher {
    async fn join(cluster: &Cluster, gateway: usize, user: &str, room: &str) -> Self {
        let mut client = cluster.client(gateway, user).await;
        let joined = client.ack("join", room, json!({})).await;
        Self {
            client,
            room: room.to_owned(),
            seq: joined["seq"].as_u64().unwrap(),
            events: Vec::new(),
        }
    }

    /// Reads until something is said that begins so.
    async fn until(&mut self, line: &str) {
        while !self.lines().iter().any(|said| said.starts_with(line)) {
            self.step().await;
        }
    }

    /// Reads one frame.
    async fn step(&mut self) {
        let frame = self.client.next().await;
        self.take(frame);
    }

    fn take(&mut self, frame: ServerFrame) {
        if frame.room.as_ref() != Some(&self.room) || frame.seq.is_none() || frame.kind == "ack" {
            return;
        }
        self.seq += 1;
        assert_eq!(frame.seq, Some(self.seq), "{frame:?}");
        if frame.kind == "presence" {
            assert!(frame.by.is_none() && !lines(&frame).is_empty(), "{frame:?}");
            self.events.push(frame);
        }
    }

    /// Reads up to an event that comes after everything that has happened by now.
    async fn catch_up(&mut self) {
        let marker = json!({"event": "marker", "payload": null});
        let end = self.client.ack("broadcast", &self.room, marker).await["seq"].clone();
        while self.seq < end.as_u64().unwrap() {
            self.step().await;
        }
    }

    /// What was said, in its order.
    fn lines(&self) -> Vec<String> {
        self.events.iter().flat_map(lines).collect()
    }

    /// When this was said.
    fn time(&self, line: &str) -> u64 {
        let says = |event: &&ServerFrame| lines(event).iter().any(|said| said == line);
        let mut told = self.events.iter().filter(says);
        let first = told.next().unwrap_or_else(|| panic!("never: {line}"));
        first.ts.unwrap()
    }

    /// A user left because its grace was over, and not before.
    fn assert_timeout(&self, user: &str) {
        let (away, left) = (
            self.time(&format!("away {user}")),
            self.time(&format!("left {user} timeout")),
        );
        assert!(left >= away + GRACE_MS, "{user} left {} ms after", left - away);
    }
}

/// Nobody is in `users` of the room but these, and none of them is away.
fn assert_members(redis: &RedisServer, room: &str, expected: &[&str]) {
    let listed = redis.ask(&["HKEYS", &format!("room:{{{room}}}:users")]);
    let mut listed: Vec<_> = listed.lines().collect();
    listed.sort_unstable();
    assert_eq!(listed, expected);
    let away = redis.ask(&["EXISTS", &format!("room:{{{room}}}:away")]);
    assert_eq!(away.trim(), "0");
}

/// The instances of the gateways that have a lease, by their node ids; there must be no trace of another in Redis.
async fn only_living(redis: &RedisServer, nodes: &[&str], rooms: &[&str]) {
    let mut instances = Vec::new();
    eventually("only these have a lease", async || {
        let listed = redis.ask(&["ZRANGE", "nodes", "0", "-1"]);
        instances = listed.lines().map(str::to_owned).collect();
        let mut names: Vec<_> = instances
            .iter()
            .map(|instance| instance.split('~').next().unwrap())
            .collect();
        names.sort_unstable();
        names == nodes
    })
    .await;
    let is_alive = |text: &str| instances.iter().any(|instance| text.contains(instance));
    eventually("no key of another is left", || async {
        let keys = redis.ask(&["KEYS", "node:*"]);
        keys.lines().filter(|key| !key.is_empty()).all(is_alive)
    })
    .await;
    for room in rooms {
        let records = redis.ask(&["HVALS", &format!("room:{{{room}}}:users")]);
        for record in records.lines() {
            let record: Value = serde_json::from_str(record).unwrap();
            for instance in record["conns"].as_object().unwrap().values() {
                assert!(is_alive(instance.as_str().unwrap()), "{record}");
            }
        }
    }
}

/// A drop, and a return within grace on another node.
async fn returns_elsewhere(cluster: &Cluster) {
    const ROOM: &str = "returns";
    let mut watchers = Vec::new();
    for number in 0..3 {
        watchers.push(Watcher::join(cluster, number, &format!("w{number}"), ROOM).await);
    }
    for watcher in &mut watchers[..2] {
        watcher.until("joined w2").await;
        watcher.events.clear();
    }
    let mut marker = cluster.client(2, "m").await;
    marker.ack("join", ROOM, json!({})).await;
    let mut user = cluster.client(0, "u").await;
    let place = user.ack("join", ROOM, json!({})).await;
    drop(user);
    watchers[1].until("away u").await;
    let mut user = cluster.client(1, "u").await;
    let resumed = user.ack("join", ROOM, since(&place)).await;
    assert_eq!(
        (&resumed["recovered"], &resumed["missed"]),
        (&json!(true), &json!(2))
    );
    assert_eq!(
        (&resumed["you"]["status"], &resumed["you"]["connections"]),
        (&json!("here"), &json!(1))
    );
    assert_eq!(resumed["you"]["joinedAt"], place["you"]["joinedAt"]);
    for line in ["away u", "back u"] {
        assert_eq!(lines(&user.event("presence", ROOM).await), [line]);
    }
    // One that drops later has left when the other could have, too.
    watchers[1].until("back u").await;
    drop(marker);
    let expected = [
        "joined m",
        "joined u",
        "away u",
        "back u",
        "away m",
        "left m timeout",
    ];
    for watcher in &mut watchers {
        watcher.until("left m").await;
        watcher.catch_up().await;
        assert_eq!(watcher.lines(), expected);
        watcher.assert_timeout("m");
    }
    // The same events for all of them.
    let seqs = |watcher: &Watcher| {
        let events = watcher.events.iter();
        events.map(|event| (event.seq, event.ts)).collect::<Vec<_>>()
    };
    assert_eq!(seqs(&watchers[0]), seqs(&watchers[1]));
    assert_eq!(seqs(&watchers[1]), seqs(&watchers[2]));
    assert_members(cluster.redis.as_ref().unwrap(), ROOM, &["u", "w0", "w1", "w2"]);
}

/// Two of three users dropping at different times.
async fn two_of_three_drop(cluster: &Cluster) {
    const ROOM: &str = "drops";
    let mut users = Vec::new();
    for (number, user) in ["a", "b", "c"].into_iter().enumerate() {
        let mut client = cluster.client(number, user).await;
        client.ack("join", ROOM, json!({})).await;
        users.push(client);
    }
    let mut watcher = Watcher::join(cluster, 0, "w", ROOM).await;
    drop(users.remove(0));
    watcher.until("away a").await;
    // Longer than the sweeps are apart.
    let (redis, from) = (cluster.redis.as_ref().unwrap(), watcher.time("away a"));
    eventually("a sweep could have come by", async || {
        unix_ms(redis) >= from + 1_300
    })
    .await;
    drop(users.remove(0));
    watcher.until("left b").await;
    watcher.catch_up().await;
    let expected = ["away a", "away b", "left a timeout", "left b timeout"];
    assert_eq!(watcher.lines(), expected);
    watcher.assert_timeout("a");
    watcher.assert_timeout("b");
    assert!(watcher.time("away b") >= watcher.time("away a") + 1_300);
    assert_members(cluster.redis.as_ref().unwrap(), ROOM, &["c", "w"]);
}

/// A user who never returns, until much later.
async fn never_returns(cluster: &Cluster) {
    const ROOM: &str = "never";
    let mut watcher = Watcher::join(cluster, 1, "w", ROOM).await;
    let mut user = cluster.client(0, "u").await;
    let place = user.ack("join", ROOM, json!({"presence": {"a": 1}})).await;
    drop(user);
    watcher.until("left u").await;
    watcher.assert_timeout("u");
    assert_members(cluster.redis.as_ref().unwrap(), ROOM, &["w"]);
    // Then it is a new member, though it gets what it missed.
    let mut user = cluster.client(2, "u").await;
    let joined = user.ack("join", ROOM, since(&place)).await;
    assert_eq!(
        (&joined["recovered"], &joined["missed"]),
        (&json!(true), &json!(3))
    );
    assert_eq!(joined["you"]["presence"], json!({}));
    assert!(joined["you"]["joinedAt"].as_u64() > place["you"]["joinedAt"].as_u64());
    watcher.catch_up().await;
    let expected = ["joined u", "away u", "left u timeout", "joined u"];
    assert_eq!(watcher.lines(), expected);
}

/// A user with connections on several nodes.
async fn one_of_many_connections(cluster: &Cluster) {
    const ROOM: &str = "many";
    let mut watcher = Watcher::join(cluster, 2, "w", ROOM).await;
    let connect = async |gateway| {
        let mut client = cluster.client(gateway, "u").await;
        let joined = client.ack("join", ROOM, json!({})).await;
        (client, joined["you"]["connections"].clone())
    };
    let (first, count) = connect(0).await;
    assert_eq!(count, 1);
    let (mut second, count) = connect(1).await;
    assert_eq!(count, 2);
    let (third, count) = connect(1).await;
    assert_eq!(count, 3);
    let update = json!({"set": {"mood": "fine"}});
    second.ack("presence.update", ROOM, update.clone()).await;
    second.ack("presence.update", ROOM, update).await;
    drop(first);
    third.close().await;
    let count = async |watcher: &mut Watcher, expected: u64| {
        eventually("so many connections", async || {
            let listed = watcher.client.ack("users.list", ROOM, json!({})).await;
            listed["users"][0]["connections"] == expected
        })
        .await;
    };
    count(&mut watcher, 1).await;
    drop(second);
    watcher.until("away u").await;
    let (fourth, _) = connect(0).await;
    let (mut fifth, _) = connect(2).await;
    fourth.close().await;
    count(&mut watcher, 1).await;
    fifth.ack("leave", ROOM, json!({})).await;
    watcher.until("left u").await;
    watcher.catch_up().await;
    let expected = ["joined u", "updated u", "away u", "back u", "left u left"];
    assert_eq!(watcher.lines(), expected);
    assert_eq!(watcher.events.len(), expected.len());
    assert_eq!(
        watcher.events[1].data["updated"][0]["presence"],
        json!({"mood": "fine"})
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_drop_and_come_back_on_three_nodes() {
    let cluster = Cluster::start(Store::Redis, 3, &SHORT).await;
    tokio::join!(
        returns_elsewhere(&cluster),
        two_of_three_drop(&cluster),
        never_returns(&cluster),
        one_of_many_connections(&cluster),
    );
    let rooms = ["returns", "drops", "never", "many"];
    only_living(cluster.redis.as_ref().unwrap(), &["gw-1", "gw-2", "gw-3"], &rooms).await;
}

/// 1,000 members of a node that is killed: 300 come back elsewhere before its end is found.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_node_loses_its_members_once() {
    const CROWD: usize = 1_000;
    const BACK: usize = 300;
    const LOOKED_AT: usize = 10;
    const ROOM: &str = "storm";
    let envs = [
        ("PRESENCE_GRACE_SECONDS", "4"),
        ("SWEEP_INTERVAL_SECONDS", "1"),
        ("NODE_LEASE_SECONDS", "5"),
        ("PRESENCE_FULL_MEMBERS", "2000"),
    ];
    let cluster = Cluster::start(Store::Redis, 3, &envs).await;
    let mut watcher = Watcher::join(&cluster, 1, "w", ROOM).await;
    let before = json!({"since": {"epoch": watcher.client.ack("join", ROOM, json!({"messages": 0})).await["epoch"], "seq": 1}});
    for body in 0..20 {
        watcher
            .client
            .ack("message.send", ROOM, json!({"body": body}))
            .await;
    }
    let mut crowd = Mute::crowd(cluster.gateways[0].addr, "u", 0..CROWD).await;
    for member in &mut crowd {
        let join = json!({"type": "join", "room": ROOM, "data": {"messages": 0}});
        member.send(&join.to_string()).await;
    }
    while watcher.lines().len() < CROWD {
        watcher.step().await;
    }
    watcher.events.clear();
    let mut far = Watcher::join(&cluster, 2, "far", ROOM).await;
    watcher.until("joined far").await;
    watcher.events.clear();
    watcher
        .client
        .ack("message.send", ROOM, json!({"body": 20}))
        .await;
    watcher.catch_up().await;
    let place = json!({"since": {"epoch": before["since"]["epoch"], "seq": watcher.seq}});
    // They have reached another gateway when the first one goes down.
    let mut back = Mute::crowd(cluster.gateways[1].addr, "u", LOOKED_AT..BACK / 2).await;
    back.extend(Mute::crowd(cluster.gateways[2].addr, "u", BACK / 2..BACK).await);
    let mut looked_at = Vec::new();
    for number in 0..LOOKED_AT {
        looked_at.push(cluster.client(1 + number % 2, &format!("u{number}")).await);
    }

    cluster.gateways[0].signal("KILL");
    let start = Instant::now();
    for member in &mut back {
        let join = json!({"type": "join", "room": ROOM, "data": place});
        member.send(&join.to_string()).await;
    }
    // What was sent before the storm is still there for them.
    for client in &mut looked_at {
        let joined = client.ack("join", ROOM, before.clone()).await;
        assert_eq!(joined["recovered"], true, "{joined}");
        for body in 0..=20 {
            assert_eq!(client.event("message.sent", ROOM).await.data["body"], body);
        }
    }
    drop(crowd);
    let mut away_after = Duration::ZERO;
    for one in [&mut watcher, &mut far] {
        while one.lines().len() < CROWD - BACK {
            one.step().await;
        }
        away_after = away_after.max(start.elapsed());
        while one.lines().len() < 2 * (CROWD - BACK) {
            one.step().await;
        }
        one.catch_up().await;
    }
    assert!(away_after < Duration::from_secs(15), "{away_after:?}");

    let gone: BTreeSet<String> = (BACK..CROWD).map(|n| format!("u{n}")).collect();
    for one in [&watcher, &far] {
        let (mut away, mut left) = (BTreeMap::new(), BTreeMap::new());
        let (mut away_events, mut left_events) = (0, 0);
        for event in &one.events {
            for line in lines(event) {
                let words: Vec<_> = line.split(' ').collect();
                let told = match words[..] {
                    ["away", _] => &mut away,
                    ["left", _, "timeout"] => &mut left,
                    _ => panic!("{line}"),
                };
                assert_eq!(
                    told.insert(words[1].to_owned(), event.ts.unwrap()),
                    None,
                    "{line}"
                );
            }
            away_events += usize::from(!event.data["away"].is_null());
            left_events += usize::from(!event.data["left"].is_null());
        }
        assert_eq!(away.keys().cloned().collect::<BTreeSet<_>>(), gone);
        assert_eq!(left.keys().cloned().collect::<BTreeSet<_>>(), gone);
        for (user, away) in &away {
            assert!(left[user] >= away + 4_000, "{user}");
        }
        assert!(away_events <= 10, "{away_events} events");
        assert!(left_events <= 20, "{left_events} events");
    }
    // Those who came back are here, and nothing is left of the node.
    let redis = cluster.redis.as_ref().unwrap();
    only_living(redis, &["gw-2", "gw-3"], &[ROOM]).await;
    let listed = watcher
        .client
        .ack("users.list", ROOM, json!({"limit": 200}))
        .await;
    assert_eq!(listed["total"], BACK + 2);
    for user in listed["users"].as_array().unwrap() {
        assert_eq!(
            (&user["status"], &user["connections"]),
            (&json!("here"), &json!(1)),
            "{user}"
        );
    }
    for member in back {
        member.close().await;
    }
    for client in looked_at {
        client.close().await;
    }
    watcher.events.clear();
    while watcher.lines().len() < BACK {
        watcher.step().await;
    }
    assert_members(redis, ROOM, &["far", "w"]);
}

/// A node that stands still for longer than its lease is taken for dead, and lives on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_was_frozen_says_who_is_here() {
    const ROOM: &str = "frozen";
    let envs = [
        ("PRESENCE_GRACE_SECONDS", "60"),
        ("SWEEP_INTERVAL_SECONDS", "1"),
        ("NODE_LEASE_SECONDS", "3"),
    ];
    let cluster = Cluster::start(Store::Redis, 2, &envs).await;
    let mut a = Watcher::join(&cluster, 0, "a", ROOM).await;
    let mut b = cluster.client(0, "b").await;
    b.ack("join", ROOM, json!({})).await;
    let (mut near, mut far) = (cluster.client(0, "c").await, cluster.client(1, "c").await);
    near.ack("join", ROOM, json!({})).await;
    far.ack("join", ROOM, json!({})).await;
    let mut watcher = Watcher::join(&cluster, 1, "w", ROOM).await;
    a.until("joined w").await;
    a.events.clear();

    cluster.gateways[0].signal("STOP");
    while watcher.lines().len() < 2 {
        watcher.step().await;
    }
    assert_eq!(watcher.lines(), ["away a", "away b"]);
    let listed = watcher.client.ack("users.list", ROOM, json!({})).await;
    assert_eq!(
        (&listed["users"][2]["id"], &listed["users"][2]["connections"]),
        (&json!("c"), &json!(1))
    );
    cluster.gateways[0].signal("CONT");
    let expected = ["away a", "away b", "back a", "back b"];
    // Those who were taken for gone are told too, and lack nothing.
    for one in [&mut watcher, &mut a] {
        while one.lines().len() < 4 {
            one.step().await;
        }
        one.catch_up().await;
        assert_eq!(one.lines(), expected);
    }
    let listed = watcher.client.ack("users.list", ROOM, json!({})).await;
    let connections: Vec<_> = listed["users"]
        .as_array()
        .unwrap()
        .iter()
        .map(|user| user["connections"].as_u64().unwrap())
        .collect();
    assert_eq!(connections, [1, 1, 2, 1]);
    only_living(cluster.redis.as_ref().unwrap(), &["gw-1", "gw-2"], &[ROOM]).await;
    // It goes on as if nothing had been, and its real end is found as well.
    drop(near);
    drop(b);
    watcher.until("away b").await;
    watcher.events.clear();
    cluster.gateways[0].signal("KILL");
    watcher.until("away a").await;
    watcher.catch_up().await;
    let told: BTreeSet<_> = watcher.lines().into_iter().collect();
    assert_eq!(told, BTreeSet::from(["away a".to_owned(), "away b".to_owned()]));
    only_living(cluster.redis.as_ref().unwrap(), &["gw-2"], &[ROOM]).await;
}

/// A node that is told to stop says itself who is gone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_stops_leaves_nothing_behind() {
    const ROOM: &str = "stops";
    let envs = [
        ("PRESENCE_GRACE_SECONDS", "2"),
        ("SWEEP_INTERVAL_SECONDS", "1"),
        // Longer than it takes to say so.
        ("NODE_LEASE_SECONDS", "10"),
    ];
    let mut cluster = Cluster::start(Store::Redis, 2, &envs).await;
    let mut users = Vec::new();
    for user in ["a", "b", "c"] {
        let mut client = cluster.client(0, user).await;
        client.ack("join", ROOM, json!({})).await;
        users.push(client);
    }
    let mut watcher = Watcher::join(&cluster, 1, "w", ROOM).await;
    let start = Instant::now();
    cluster.gateways[0].terminate();
    cluster.gateways[0].ended(DEADLINE).await;
    while watcher.lines().len() < 3 {
        watcher.step().await;
    }
    let taken = start.elapsed();
    assert!(taken < Duration::from_secs(8), "{taken:?}");
    only_living(cluster.redis.as_ref().unwrap(), &["gw-2"], &[ROOM]).await;
    for user in ["a", "b", "c"] {
        watcher.until(&format!("left {user}")).await;
    }
    watcher.catch_up().await;
    let told: BTreeSet<_> = watcher.lines().into_iter().collect();
    let expected = ["a", "b", "c"].map(|user| [format!("away {user}"), format!("left {user} timeout")]);
    assert_eq!(told, expected.into_iter().flatten().collect());
    assert_eq!(watcher.lines().len(), 6);
    assert_members(cluster.redis.as_ref().unwrap(), ROOM, &["w"]);
}

/// Redis stands still for longer than all leases: nobody has ended for that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_of_redis_is_nobodys_end() {
    const ROOM: &str = "outage";
    let envs = [
        ("REDIS_TIMEOUT_MS", "1000"),
        ("PRESENCE_GRACE_SECONDS", "60"),
        ("SWEEP_INTERVAL_SECONDS", "1"),
        ("NODE_LEASE_SECONDS", "2"),
    ];
    let cluster = Cluster::start(Store::Redis, 3, &envs).await;
    let redis = cluster.redis.as_ref().unwrap();
    let mut members = Vec::new();
    for number in 0..3 {
        let mut client = cluster.client(number, &format!("u{number}")).await;
        client.ack("join", ROOM, json!({})).await;
        members.push(client);
    }
    let marker = {
        let mut client = cluster.client(0, "m").await;
        client.ack("join", ROOM, json!({})).await;
        client
    };
    let mut watcher = Watcher::join(&cluster, 1, "w", ROOM).await;
    let mut before: Vec<_> = redis
        .ask(&["ZRANGE", "nodes", "0", "-1"])
        .lines()
        .map(str::to_owned)
        .collect();
    before.sort_unstable();
    let pid = redis.pid();
    RedisServer::signal(&pid, "-STOP");
    for client in members.iter_mut().chain([&mut watcher.client]) {
        let told = client.until(|frame| frame.kind == "status").await;
        assert_eq!(told.data["redis"], "down");
    }
    let stopped = Instant::now();
    // All that was renewed before is over.
    tokio::time::sleep_until(stopped + Duration::from_millis(2_500)).await;
    RedisServer::signal(&pid, "-CONT");
    for client in members.iter_mut().chain([&mut watcher.client]) {
        let told = client.until(|frame| frame.kind == "status").await;
        assert_eq!(told.data["redis"], "ok");
    }
    // All have renewed since, and long enough after it to have looked for others.
    let leases = || -> BTreeMap<String, u64> {
        let listed = redis.ask(&["ZRANGE", "nodes", "0", "-1", "WITHSCORES"]);
        let lines: Vec<_> = listed.lines().collect();
        lines
            .chunks_exact(2)
            .map(|pair| (pair[0].to_owned(), pair[1].parse().unwrap()))
            .collect()
    };
    let back = leases().into_values().max().unwrap();
    eventually("all leases are renewed", || async {
        leases().into_values().all(|end| end > back + 2_000)
    })
    .await;
    assert_eq!(
        leases().into_keys().collect::<Vec<_>>(),
        before,
        "each has the lease that it had"
    );
    drop(marker);
    watcher.until("away m").await;
    watcher.catch_up().await;
    assert_eq!(watcher.lines(), ["away m"]);
}
