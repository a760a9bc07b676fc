//! What a network does to the connections of one node, through a proxy: links half open, an address that leads to
//! another server, replicas that do not follow.

use std::{sync::Arc, time::Duration};

use roomgate::store::{
    EventSink, Holder, OperatorCommand, Readiness, StoreError, StoreLimits,
    redis::{RedisConfig, RedisStore},
};
use tokio::time::{Instant, timeout};

use super::{
    harness::*,
    on_redis::config,
    proxy::{ALL, Direction, Proxy, Which},
    redis_server::RedisServer,
};

/// Within this a dead link is found and readiness is red.
const FOUND: Duration = Duration::from_secs(5);
/// Far longer than any link may stay dead.
const CALL: Duration = Duration::from_secs(60);

/// A node behind a proxy, with calls that may take very long.
async fn node_behind(proxy: &Proxy) -> (Node, Arc<RedisStore>) {
    let config = RedisConfig {
        timeout: CALL,
        ..config(&proxy.url(), 0, StoreLimits::default())
    };
    booted(config).await
}

async fn booted(config: RedisConfig) -> (Node, Arc<RedisStore>) {
    let heard = Arc::new(Recorder::default());
    let store = RedisStore::new(config, Arc::clone(&heard) as Arc<dyn EventSink>).unwrap();
    store.boot(PATIENCE).await.unwrap();
    let node = Node {
        store: store.clone(),
        heard,
    };
    (node, store)
}

/// Makes a link half open, and sees it found in time and healed.
async fn half_open(direction: Direction, which: Which) {
    let server = RedisServer::start();
    let proxy = Proxy::start(server.port()).await;
    let (node, _) = node_behind(&proxy).await;
    let room = new_room();
    node.store.subscribe(&room).await.unwrap();
    node.joined(&room, enter("u1", 1)).await;
    node.heard.until(&room, 1).await;

    let start = Instant::now();
    proxy.swallow(direction, which);
    eventually("readiness is red", || async {
        node.store.readiness() != Readiness::Ready
    })
    .await;
    assert!(start.elapsed() <= FOUND, "found after {:?}", start.elapsed());
    proxy.resume();
    eventually("readiness is green", || async {
        node.store.readiness() == Readiness::Ready
    })
    .await;
    let seq = node.ack(&room, send("u1", "1")).await["message"]["seq"]
        .as_u64()
        .unwrap();
    node.heard.until(&room, seq).await;
}

fn is_calls(said: &str) -> bool {
    said.contains(":calls")
}

fn is_events(said: &str) -> bool {
    said.contains(":events")
}

/// fred gives its connection no name.
fn is_fred(said: &str) -> bool {
    !said.contains("roomgate:")
}

#[tokio::test]
async fn a_silent_network_is_found_and_healed() {
    half_open(Direction::Both, ALL).await;
}

#[tokio::test]
async fn calls_that_do_not_arrive_are_found() {
    half_open(Direction::ToServer, is_calls).await;
}

#[tokio::test]
async fn answers_to_calls_that_do_not_arrive_are_found() {
    half_open(Direction::ToClient, is_calls).await;
}

#[tokio::test]
async fn events_that_do_not_arrive_are_found() {
    half_open(Direction::ToClient, is_events).await;
}

#[tokio::test]
async fn subscriptions_that_do_not_arrive_are_found() {
    half_open(Direction::ToServer, is_events).await;
}

#[tokio::test]
async fn the_other_commands_connection_is_found_too() {
    half_open(Direction::ToClient, is_fred).await;
}

#[tokio::test]
async fn a_call_on_a_dead_link_does_not_wait_for_its_own_time() {
    let server = RedisServer::start();
    let proxy = Proxy::start(server.port()).await;
    let (node, _) = node_behind(&proxy).await;
    let room = new_room();
    node.joined(&room, enter("u1", 1)).await;
    proxy.swallow(Direction::ToClient, is_calls);
    let call = node.store.apply(&room, vec![send("u1", "1")]);
    let result = timeout(FOUND, call).await.expect("given up in time");
    // It may have happened, and has.
    assert!(matches!(result, Err(StoreError::Timeout(_))), "{result:?}");
    proxy.resume();
    eventually("readiness is green", || async {
        node.store.readiness() == Readiness::Ready
    })
    .await;
    assert_eq!(node.ack(&room, send("u1", "2")).await["message"]["seq"], 3);
}

#[tokio::test]
async fn cut_connections_are_made_again_at_once() {
    let server = RedisServer::start();
    let proxy = Proxy::start(server.port()).await;
    let (node, _) = node_behind(&proxy).await;
    let room = new_room();
    node.store.subscribe(&room).await.unwrap();
    node.joined(&room, enter("u1", 1)).await;
    for round in 1..=5 {
        let start = Instant::now();
        proxy.cut();
        eventually("the interruption is told", || async {
            node.heard.interruptions() == round
        })
        .await;
        eventually("readiness is green", || async {
            node.store.readiness() == Readiness::Ready
        })
        .await;
        // Whichever of the connections is there first.
        assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    }
    let seq = node.ack(&room, send("u1", "1")).await["message"]["seq"]
        .as_u64()
        .unwrap();
    node.heard.until(&room, seq).await;
}

#[tokio::test]
async fn a_demoted_server_is_left_for_the_one_that_takes_writes() {
    let (old, new) = (RedisServer::start(), RedisServer::start());
    let proxy = Proxy::start(old.port()).await;
    let (node, _) = node_behind(&proxy).await;
    let room = new_room();
    node.store.subscribe(&room).await.unwrap();
    node.joined(&room, enter("u1", 1)).await;
    old.ask(&["REPLICAOF", "127.0.0.1", &new.port().to_string()]);
    // The address leads to the old server still: it is tried, and refused as a replica.
    for _ in 0..2 {
        let result = node.store.apply(&room, vec![send("u1", "1")]).await;
        assert!(matches!(result, Err(StoreError::Unavailable(_))), "{result:?}");
    }
    let readiness = node.store.readiness();
    assert!(
        matches!(&readiness, Readiness::NotReady(why) if why.contains("demoted") || why.contains("replica")),
        "{readiness:?}"
    );
    let told = node.heard.interruptions();
    proxy.lead_to(new.port());
    eventually("readiness is green", || async {
        node.store.readiness() == Readiness::Ready && node.heard.interruptions() > told
    })
    .await;
    // All three connections have gone over.
    eventually("nothing is left at the old server", || async {
        !old.ask(&["CLIENT", "LIST"]).contains("roomgate:")
    })
    .await;
    node.joined(&room, enter("u1", 1)).await;
    assert_eq!(new.ask(&["EXISTS", &format!("room:{{{room}}}:meta")]).trim(), "1");
    node.heard.until(&room, 1).await;
}

/// The address leads to another server, and only the calls have gone there: the old one lives on and answers.
#[tokio::test]
async fn a_subscription_at_another_server_than_the_calls_is_found() {
    let (old, new) = (RedisServer::start(), RedisServer::start());
    let proxy = Proxy::start(old.port()).await;
    let (node, _) = node_behind(&proxy).await;
    let room = new_room();
    node.store.subscribe(&room).await.unwrap();
    proxy.lead_to(new.port());
    let list = old.ask(&["CLIENT", "LIST"]);
    let calls = list.lines().find(|line| line.contains(":calls")).unwrap();
    let id = calls.split("id=").nth(1).unwrap().split(' ').next().unwrap();
    old.ask(&["CLIENT", "KILL", "ID", id]);
    eventually("the calls are at the new server", || async {
        new.ask(&["CLIENT", "LIST"]).contains(":calls")
    })
    .await;
    eventually("the interruption is told", || async {
        node.heard.interruptions() == 1 && node.store.readiness() == Readiness::Ready
    })
    .await;
    let seq = node.joined(&room, enter("u1", 1)).await.seq;
    node.heard.until(&room, seq).await;
}

/// A server and a replica of it that follows.
async fn replicated() -> (RedisServer, RedisServer) {
    let (server, replica) = (RedisServer::start(), RedisServer::start());
    server.ask(&["CONFIG", "SET", "repl-diskless-sync-delay", "0"]);
    replica.ask(&["REPLICAOF", "127.0.0.1", &server.port().to_string()]);
    eventually("the replica follows", || async {
        server.ask(&["INFO", "replication"]).contains("state=online")
    })
    .await;
    (server, replica)
}

/// The same, and a node that waits for the replica.
async fn confirmed() -> (RedisServer, RedisServer, Node) {
    let (server, replica) = replicated().await;
    let (node, _) = booted(RedisConfig {
        timeout: Duration::from_secs(2),
        wait_replicas: 1,
        ..config(&server.url(), 0, StoreLimits::default())
    })
    .await;
    (server, replica, node)
}

#[tokio::test]
async fn a_write_waits_for_as_many_replicas_as_asked() {
    let (server, replica, node) = confirmed().await;
    let (room, others) = (new_room(), [new_room(), new_room(), new_room()]);
    node.joined(&room, enter("u1", 1)).await;
    let key = format!("room:{{{room}}}:meta");
    let here = |seq: u64| replica.ask(&["HGET", &key, "seq"]).trim() == seq.to_string();
    assert!(here(1), "acknowledged, so the replica has it");
    for seq in 2..20 {
        assert_eq!(node.ack(&room, send("u1", "1")).await["message"]["seq"], seq);
        assert!(here(seq), "acknowledged, so the replica has {seq}");
    }

    let pid = replica.pid();
    RedisServer::signal(&pid, "-STOP");
    let start = Instant::now();
    let result = node.store.apply(&room, vec![send("u1", "1")]).await;
    let Err(StoreError::Timeout(why)) = result else {
        panic!("{result:?}")
    };
    assert!(why.contains("not confirmed by 1 replicas"), "{why}");
    assert!(start.elapsed() >= Duration::from_secs(1), "{:?}", start.elapsed());
    assert_eq!(server.ask(&["HGET", &key, "seq"]).trim(), "20", "it is written");
    // Many at once share their waits, and the link stays.
    let start = Instant::now();
    let calls = others
        .iter()
        .map(|room| node.store.apply(room, vec![enter("u1", 1)]));
    for result in futures_util::future::join_all(calls).await {
        assert!(matches!(result, Err(StoreError::Timeout(_))), "{result:?}");
    }
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
    assert_eq!(node.store.readiness(), Readiness::Ready);
    RedisServer::signal(&pid, "-CONT");
    eventually("confirmed again", || async {
        node.store.apply(&room, vec![send("u1", "1")]).await.is_ok()
    })
    .await;
}

#[tokio::test]
async fn what_an_operator_says_waits_for_replicas_too() {
    let (_server, replica, node) = confirmed().await;
    let ada = user("ada");
    let say = async |what| node.store.users().command(what, None).await;
    let there = |key: &str| replica.ask(&["EXISTS", key]).trim() == "1";
    say(OperatorCommand::Revoke(ada.clone())).await.unwrap();
    assert!(there("user:{ada}:revoked"));
    say(OperatorCommand::RevokeToken("t1".into())).await.unwrap();
    assert!(there("token:{t1}:revoked"));
    say(OperatorCommand::Block(ada.clone())).await.unwrap();
    assert!(there("user:{ada}:blocked"));
    say(OperatorCommand::Unblock(ada.clone())).await.unwrap();
    assert!(!there("user:{ada}:blocked"));

    let pid = replica.pid();
    RedisServer::signal(&pid, "-STOP");
    let blocked = say(OperatorCommand::Block(ada.clone())).await;
    assert!(matches!(blocked, Err(StoreError::Timeout(_))), "{blocked:?}");
    // It holds, and has been told, all the same.
    let standing = node.store.users().standing(&ada, None).await.unwrap();
    assert!(standing.is_blocked);
    eventually("it is told", async || node.heard.controls().len() == 4).await;
    let unblocked = say(OperatorCommand::Unblock(ada.clone())).await;
    assert!(matches!(unblocked, Err(StoreError::Timeout(_))), "{unblocked:?}");
    // What nobody is told is not waited for.
    let holder = Holder::User(ada);
    assert_eq!(node.store.users().count(&holder, 0, 1, 1).await.unwrap(), 1);
    RedisServer::signal(&pid, "-CONT");
}

#[tokio::test]
async fn a_replica_is_no_server_to_start_on() {
    let (_server, replica) = replicated().await;
    let heard = Arc::new(Recorder::default());
    let config = RedisConfig {
        timeout: Duration::from_millis(300),
        ..config(&replica.url(), 0, StoreLimits::default())
    };
    let store = RedisStore::new(config, heard).unwrap();
    let error = store.boot(Duration::from_secs(1)).await.unwrap_err().to_string();
    assert!(error.contains("replica"), "{error}");
}
