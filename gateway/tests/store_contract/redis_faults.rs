//! Redis away, emptied, deaf, or cut off; each test has a server of its own.

use std::{sync::Arc, time::Duration};

use roomgate::store::{
    EventSink, Readiness, Store as _, StoreError, StoreLimits,
    redis::{BootError, RedisStore},
};
use tokio::{io::AsyncWriteExt as _, net::TcpListener, time::Instant};

use super::{harness::*, on_redis::config, redis_server::RedisServer};

struct Patient {
    server: RedisServer,
    node: Node,
}

/// A server of its own and a node that gives up after `timeout`.
async fn patient(timeout: Duration) -> Patient {
    let server = RedisServer::start();
    let heard = Arc::new(Recorder::default());
    let config = roomgate::store::redis::RedisConfig {
        timeout,
        ..config(&server.url(), 0, StoreLimits::default())
    };
    let store = RedisStore::new(config, Arc::clone(&heard) as Arc<dyn EventSink>).unwrap();
    store.boot(PATIENCE).await.unwrap();
    assert_eq!(store.readiness(), Readiness::Ready);
    Patient {
        server,
        node: Node { store, heard },
    }
}

/// The server's id of the subscriber's connection.
fn subscriber_id(server: &RedisServer) -> String {
    let clients = server.ask(&["CLIENT", "LIST"]);
    let line = clients.lines().find(|line| line.contains(":events ")).unwrap();
    line.split_whitespace()
        .find_map(|part| part.strip_prefix("id="))
        .unwrap()
        .to_owned()
}

#[tokio::test]
async fn a_lost_library_is_loaded_again() {
    let Patient { server, node } = patient(Duration::from_secs(5)).await;
    let room = new_room();
    node.joined(&room, enter("u1", 1)).await;
    server.ask(&["FUNCTION", "FLUSH"]);
    assert_eq!(node.ack(&room, send("u1", "1")).await["message"]["seq"], 2);
    assert_eq!(node.store.readiness(), Readiness::Ready);
}

#[tokio::test]
async fn a_cut_subscription_is_made_again_and_told() {
    let Patient { server, node } = patient(Duration::from_secs(5)).await;
    let rooms: Vec<_> = (0..20).map(|_| new_room()).collect();
    for room in &rooms {
        node.store.subscribe(room).await.unwrap();
        node.joined(room, enter("u1", 1)).await;
        node.heard.until(room, 1).await;
    }
    for round in 1..=3 {
        server.ask(&["CLIENT", "KILL", "ID", &subscriber_id(&server)]);
        eventually("the interruption is told", || async {
            node.heard.interruptions() == round
        })
        .await;
        // Told only when every room is confirmed: what is sent from now on comes.
        for room in &rooms {
            node.ack(room, send("u1", "1")).await;
        }
        for room in &rooms {
            node.heard.until(room, 1 + round as u64).await;
        }
    }
    // A room that was left is not subscribed to again.
    node.store.unsubscribe(&rooms[0]);
    server.ask(&["CLIENT", "KILL", "ID", &subscriber_id(&server)]);
    eventually("the interruption is told", || async {
        node.heard.interruptions() == 4
    })
    .await;
    node.ack(&rooms[0], send("u1", "1")).await;
    node.ack(&rooms[1], send("u1", "1")).await;
    node.heard.until(&rooms[1], 5).await;
    assert_eq!(node.heard.events(&rooms[0]).len(), 4);
}

#[tokio::test]
async fn an_ended_subscription_is_an_interruption() {
    let Patient { server, node } = patient(Duration::from_secs(5)).await;
    let room = new_room();
    node.store.subscribe(&room).await.unwrap();
    // RESET ends subscriptions; from outside, the nearest thing is to kill by type.
    server.ask(&["CLIENT", "KILL", "TYPE", "pubsub"]);
    eventually("the interruption is told", || async {
        node.heard.interruptions() == 1
    })
    .await;
    eventually("it is proven again", || async {
        node.store.readiness() == Readiness::Ready
    })
    .await;
}

#[tokio::test]
async fn without_redis_all_fails_at_once_and_comes_back() {
    let Patient { mut server, node } = patient(Duration::from_secs(2)).await;
    let room = new_room();
    node.joined(&room, enter("u1", 1)).await;
    node.store.subscribe(&room).await.unwrap();
    server.stop();
    eventually("not ready", || async {
        node.store.readiness() != Readiness::Ready
    })
    .await;
    let start = Instant::now();
    for _ in 0..20 {
        let result = node.store.apply(&room, vec![send("u1", "1")]).await;
        let Err(StoreError::Unavailable(away)) = result else {
            panic!("{result:?}")
        };
        // The wait doubles to two seconds.
        let retry = away.retry_after.unwrap();
        assert!(retry <= Duration::from_secs(2), "{retry:?}");
    }
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    let start = Instant::now();
    let result = node.store.subscribe(&new_room()).await;
    assert!(matches!(result, Err(StoreError::Unavailable(_))), "{result:?}");
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    server.restart();
    eventually("ready", || async { node.store.readiness() == Readiness::Ready }).await;
    eventually("the interruption is told", || async {
        node.heard.interruptions() >= 1
    })
    .await;
    // The server is empty: so says the store, and the room can be made anew.
    assert!(node.one(&room, send("u1", "1")).await.is_err());
    node.joined(&room, enter("u1", 1)).await;
    node.heard.until(&room, 1).await;
}

#[tokio::test]
async fn a_deaf_redis_is_found_out() {
    let Patient { server, node } = patient(Duration::from_secs(2)).await;
    let room = new_room();
    node.store.subscribe(&room).await.unwrap();
    node.joined(&room, enter("u1", 1)).await;
    let pid = server.pid();
    RedisServer::signal(&pid, "-STOP");
    let start = Instant::now();
    let result = node.store.apply(&room, vec![send("u1", "1")]).await;
    assert!(
        matches!(result, Err(StoreError::Timeout(_) | StoreError::Unavailable(_))),
        "{result:?}"
    );
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
    eventually("not ready", || async {
        node.store.readiness() != Readiness::Ready
    })
    .await;
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    RedisServer::signal(&pid, "-CONT");
    eventually("ready", || async { node.store.readiness() == Readiness::Ready }).await;
    let seq = node.ack(&room, send("u1", "2")).await["message"]["seq"]
        .as_u64()
        .unwrap();
    node.heard.until(&room, seq).await;
}

async fn boot(url: &str, wait: Duration) -> Result<(), BootError> {
    let sink = Arc::new(Recorder::default());
    let config = roomgate::store::redis::RedisConfig {
        timeout: Duration::from_secs(2),
        ..config(url, 0, StoreLimits::default())
    };
    RedisStore::new(config, sink).unwrap().boot(wait).await
}

#[tokio::test]
async fn a_start_without_redis_fails_when_the_wait_is_over() {
    let mut server = RedisServer::start();
    let url = server.url();
    server.stop();
    let start = Instant::now();
    let error = boot(&url, Duration::from_millis(500)).await.unwrap_err();
    assert!(matches!(error, BootError::Unreachable { .. }), "{error}");
    assert!(start.elapsed() < Duration::from_secs(3));
}

#[tokio::test]
async fn a_start_waits_for_redis() {
    let mut server = RedisServer::start();
    let url = server.url();
    server.stop();
    let starting = tokio::spawn(async move { boot(&url, PATIENCE).await });
    tokio::task::yield_now().await;
    server.restart();
    starting.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_start_is_refused_at_once_where_waiting_does_not_help() {
    let server = RedisServer::start_with(&["--requirepass", "hunter2"]);
    let port = server.port();
    let wait = Duration::from_secs(60);
    for url in [
        format!("redis://127.0.0.1:{port}"),
        format!("redis://:wrong@127.0.0.1:{port}"),
    ] {
        let error = boot(&url, wait).await.unwrap_err();
        assert!(matches!(error, BootError::Login { .. }), "{error}");
        assert!(!error.to_string().contains("wrong@"), "{error}");
    }
    boot(&format!("redis://:hunter2@127.0.0.1:{port}/0"), wait)
        .await
        .unwrap();
    // Something that is no Redis.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("redis://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let _ = socket.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        }
    });
    let error = boot(&url, wait).await.unwrap_err();
    assert!(matches!(error, BootError::NotRedis { .. }), "{error}");
}

/// Without `INFO` a rolled-back Redis would go unnoticed.
#[tokio::test]
async fn a_user_without_info_is_refused_at_the_start() {
    let server = RedisServer::start();
    let acl = [
        "ACL", "SETUSER", "gw", "on", ">secret", "~*", "&*", "+@all", "-info",
    ];
    server.ask(&acl);
    let start = async || {
        let url = format!("redis://gw:secret@127.0.0.1:{}", server.port());
        let sink = Arc::<Recorder>::default() as Arc<dyn EventSink>;
        let store = RedisStore::new(config(&url, 0, StoreLimits::default()), sink).unwrap();
        store.boot(PATIENCE).await.map(|()| store)
    };
    let refused = start().await.map(|_| ()).unwrap_err();
    assert!(
        matches!(&refused, BootError::Permission { reason, .. } if reason.contains("info")),
        "{refused}"
    );
    server.ask(&["ACL", "SETUSER", "gw", "+info"]);
    let store = start().await.unwrap();
    assert!(store.apply(&new_room(), vec![enter("u1", 1)]).await.is_ok());
}
