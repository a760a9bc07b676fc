//! What a message costs this process and Redis, in CPU time, by the number of rooms that send side by side and the size
//! of a batch:
//!
//! ```text
//! cargo run --release --example store_cost redis://127.0.0.1:6379 <process id of redis-server> [rooms [batch [plain]]]
//! ```
//!
//! `plain`: the messages have no command ids, so that nothing is looked up or remembered.
//!
//! Leaves rooms named `cost-…` behind, for a day.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a measurement may panic"
)]

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use roomgate::store::{
    CommandKey, EventSink, Join, Op, Store, StoreLimits,
    redis::{RedisConfig, RedisStore, Secret},
};
use roomgate_shared::{
    ids::{CommandId, ConnectionId, NodeId, RoomId, UserId},
    protocol::event::message_tail,
};

struct Deaf;

impl EventSink for Deaf {
    fn payload(&self, _: &str, _: Bytes) {}
    fn interrupted(&self) {}
}

/// User and system time of a process, s.
fn cpu(pid: &str) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let url = std::env::args().nth(1).unwrap();
    let pid = std::env::args().nth(2).unwrap();
    let config = RedisConfig {
        url: Secret::new(url),
        timeout: Duration::from_secs(5),
        max_retries: 10,
        retry_delay: Duration::from_millis(100),
        wait_replicas: 0,
        node: NodeId::new("bench").unwrap(),
        limits: StoreLimits::default(),
        lease: Duration::from_secs(10),
    };
    let store = RedisStore::new(config, Arc::new(Deaf)).unwrap();
    store.boot(Duration::from_secs(5)).await.unwrap();
    let user = UserId::new("u1").unwrap();
    let tail = message_tail("u1", "text", &format!("\"{}\"", "x".repeat(60)));
    let rooms: Vec<RoomId> = (0..50)
        .map(|n| RoomId::new(format!("cost-{n}")).unwrap())
        .collect();
    for room in &rooms {
        let join = Join {
            user: user.clone(),
            name: "u".into(),
            connection: ConnectionId::new(1, 1),
            presence: Vec::new(),
            since: None,
            messages: 0,
            create: true,
        };
        store.apply(room, vec![Op::Join(join)]).await.unwrap();
    }
    let plain = std::env::args().nth(5).is_some();
    for side in std::env::args()
        .nth(3)
        .map_or(vec![50, 8, 1], |n| vec![n.parse().unwrap()])
    {
        for size in std::env::args()
            .nth(4)
            .map_or(vec![1, 4, 16], |n| vec![n.parse().unwrap()])
        {
            let calls = 60_000 / side / size.min(4);
            let (ours, theirs) = (cpu("self"), cpu(&pid));
            let start = std::time::Instant::now();
            let mut tasks = tokio::task::JoinSet::new();
            for room in rooms.iter().take(side) {
                let (room, store, user, tail) = (room.clone(), store.clone(), user.clone(), tail.clone());
                tasks.spawn(async move {
                    for call in 0..calls {
                        let op = |k| Op::MessageSend {
                            by: user.clone(),
                            key: (!plain).then(|| CommandKey {
                                id: CommandId::new(format!("k{side}-{size}-{call}-{k}")).unwrap(),
                                fingerprint: 0,
                            }),
                            tail: tail.clone(),
                        };
                        let ops = (0..size).map(op).collect();
                        for reply in store.apply(&room, ops).await.unwrap().replies {
                            reply.unwrap();
                        }
                    }
                });
            }
            while let Some(done) = tasks.join_next().await {
                done.unwrap();
            }
            let ops = (side * calls * size) as f64;
            println!(
                "{side:2} rooms, {size:2} a batch: client {:.1} us/op, redis {:.1} us/op, {:.0} ops/s",
                (cpu("self") - ours) / ops * 1e6,
                (cpu(&pid) - theirs) / ops * 1e6,
                ops / start.elapsed().as_secs_f64(),
            );
        }
    }
}
