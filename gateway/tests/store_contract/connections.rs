//! Connections as gateways count them over Redis: what becomes of the number when Redis does not answer, or takes a node for
//! dead. Each test has a server of its own.

use std::{sync::Arc, time::Duration};

use roomgate::{
    limits::connections::{Connections, MostConnections, Place},
    store::{
        Holder, Readiness, SharedStore, StoreLimits,
        redis::{RedisConfig, RedisStore},
    },
};
use roomgate_shared::ids::NodeId;
use tokio::task::JoinHandle;

use super::{
    harness::*,
    on_redis::config,
    proxy::{ALL, Direction, Proxy},
    redis_server::RedisServer,
};

const LEASE: Duration = Duration::from_secs(2);
const KEY: &str = "user:{ada}:connections";

/// A gateway, as far as it counts.
struct Counting {
    store: SharedStore,
    connections: Arc<Connections>,
    tasks: [JoinHandle<()>; 2],
}

impl Drop for Counting {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

impl Counting {
    async fn start(url: &str, node: &str, most: u64) -> Self {
        let config = RedisConfig {
            timeout: Duration::from_millis(500),
            node: NodeId::new(node).unwrap(),
            lease: LEASE,
            ..config(url, 0, StoreLimits::default())
        };
        let store = RedisStore::new(config, Arc::new(Recorder::default())).unwrap();
        store.boot(PATIENCE).await.unwrap();
        let store: SharedStore = store;
        let most = MostConnections {
            user: most,
            address: 0,
        };
        let connections = Connections::new(most, Arc::clone(&store));
        let beating = Arc::clone(&store);
        let beats = tokio::spawn(async move {
            let mut turn = tokio::time::interval(LEASE / 5);
            loop {
                turn.tick().await;
                // Redis may be away.
                let _ = beating.beat().await;
            }
        });
        let tasks = [beats, tokio::spawn(Arc::clone(&connections).run())];
        Self {
            store,
            connections,
            tasks,
        }
    }

    /// A place, where the store answers that there is one.
    async fn enter(&self) -> Option<Place> {
        self.connections.enter(&ada()).await.unwrap()
    }
}

fn ada() -> Holder {
    Holder::User(user("ada"))
}

/// What Redis holds: instances and numbers.
fn counted(server: &RedisServer) -> Vec<(String, u64)> {
    let text = server.ask(&["HGETALL", KEY]);
    let lines: Vec<&str> = text.lines().filter(|line| !line.is_empty()).collect();
    let mut all: Vec<_> = lines
        .chunks(2)
        .map(|pair| {
            let (count, _) = pair[1].split_once(' ').unwrap();
            (pair[0].to_owned(), count.parse().unwrap())
        })
        .collect();
    all.sort();
    all
}

async fn until_counted(server: &RedisServer, node: &Counting, count: u64) {
    eventually("it is counted right", async || {
        // Its name may change meanwhile.
        let name = node.store.instance().to_string();
        let expected: Vec<_> = (count > 0).then_some((name, count)).into_iter().collect();
        counted(server) == expected
    })
    .await;
}

#[tokio::test]
async fn many_at_once_are_as_many_as_may_be() {
    let server = RedisServer::start();
    let nodes = [
        Counting::start(&server.url(), "a", 300).await,
        Counting::start(&server.url(), "b", 300).await,
    ];
    let ada = ada();
    let all = (0..1_000).map(|n| nodes[n % 2].connections.enter(&ada));
    let mut places: Vec<Place> = futures_util::future::join_all(all)
        .await
        .into_iter()
        .filter_map(Result::unwrap)
        .collect();
    assert_eq!(places.len(), 300);
    assert_eq!(counted(&server).iter().map(|(_, count)| count).sum::<u64>(), 300);
    places.truncate(7);
    eventually("the others have gone", async || {
        counted(&server).iter().map(|(_, count)| count).sum::<u64>() == 7
    })
    .await;
    drop(places);
    eventually("nothing is left", async || {
        server.ask(&["EXISTS", KEY]).trim() == "0"
    })
    .await;
    assert!(nodes.iter().all(|node| !node.connections.is_telling()));
}

#[tokio::test]
async fn who_goes_while_redis_is_away_does_not_count_on() {
    let server = RedisServer::start();
    let proxy = Proxy::start(server.port()).await;
    let node = Counting::start(&proxy.url(), "a", 2).await;
    let (one, two) = (node.enter().await.unwrap(), node.enter().await.unwrap());
    assert!(node.enter().await.is_none());
    proxy.swallow(Direction::Both, ALL);
    proxy.cut();
    drop(one);
    eventually("Redis is away", async || {
        node.connections.enter(&ada()).await.is_err()
    })
    .await;
    assert_eq!(counted(&server)[0].1, 2, "it cannot know yet");
    proxy.resume();
    until_counted(&server, &node, 1).await;
    let three = node.enter().await.unwrap();
    assert!(node.enter().await.is_none());
    drop((two, three));
    until_counted(&server, &node, 0).await;
}

#[tokio::test]
async fn who_was_counted_without_an_answer_does_not_count() {
    let server = RedisServer::start();
    let proxy = Proxy::start(server.port()).await;
    let node = Counting::start(&proxy.url(), "a", 2).await;
    let one = node.enter().await.unwrap();
    // Redis does what it is asked to, and nobody hears of it.
    proxy.swallow(Direction::ToClient, ALL);
    assert!(node.connections.enter(&ada()).await.is_err());
    assert_eq!(counted(&server)[0].1, 2);
    proxy.resume();
    until_counted(&server, &node, 1).await;
    drop(one);
    until_counted(&server, &node, 0).await;
}

#[tokio::test]
async fn a_lost_lease_keeps_the_number_right() {
    let server = RedisServer::start();
    let node = Counting::start(&server.url(), "a", 3).await;
    let other = Counting::start(&server.url(), "b", 3).await;
    let (one, two) = (node.enter().await.unwrap(), node.enter().await.unwrap());
    let first = node.store.instance();
    server.ask(&["ZREM", "nodes", &first]);
    eventually("it has another name", async || node.store.instance() != first).await;
    // By itself, although nobody comes or goes; and nothing is left under the name before.
    until_counted(&server, &node, 2).await;
    let three = other.enter().await.unwrap();
    assert!(other.enter().await.is_none());
    drop(one);
    drop(three);
    until_counted(&server, &node, 1).await;
    // Long after, when what has not changed for a lease counts only for nodes that live.
    let said = node.store.now_ms();
    eventually("a lease has passed", async || node.store.now_ms() > said + 2_500).await;
    let rest = [other.enter().await, other.enter().await];
    assert!(rest.iter().all(Option::is_some));
    assert!(other.enter().await.is_none());
    drop(two);
}

#[tokio::test]
async fn what_redis_has_lost_is_said_again() {
    let mut server = RedisServer::start();
    let node = Counting::start(&server.url(), "a", 3).await;
    let _places = [node.enter().await.unwrap(), node.enter().await.unwrap()];
    server.ask(&["PEXPIRE", KEY, "5000000"]);
    server.stop();
    server.restart();
    until_counted(&server, &node, 2).await;
    let life: u64 = server.ask(&["PTTL", KEY]).trim().parse().unwrap();
    assert!(life > 6 * 24 * 3_600_000, "{life}");
    // Who goes renews it, too.
    let third = node.enter().await.unwrap();
    server.ask(&["PEXPIRE", KEY, "5000000"]);
    drop(third);
    until_counted(&server, &node, 2).await;
    let life: u64 = server.ask(&["PTTL", KEY]).trim().parse().unwrap();
    assert!(life > 6 * 24 * 3_600_000, "{life}");
}

/// Its lease ended, another node took what it had counted for a dead one's, and it goes on under the same name.
#[tokio::test]
async fn who_was_taken_for_gone_is_counted_again() {
    let server = RedisServer::start();
    let node = Counting::start(&server.url(), "a", 3).await;
    let _place = node.enter().await.unwrap();
    server.ask(&["DEL", KEY]);
    let (pid, name) = (server.pid(), node.store.instance());
    RedisServer::signal(&pid, "-STOP");
    eventually("Redis is away", async || {
        node.store.readiness() != Readiness::Ready
    })
    .await;
    let stopped = node.store.now_ms();
    eventually("for longer than a moment", async || {
        node.store.now_ms() > stopped + 1_200
    })
    .await;
    RedisServer::signal(&pid, "-CONT");
    until_counted(&server, &node, 1).await;
    assert_eq!(node.store.instance(), name);
}
