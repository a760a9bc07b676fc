//! Limits of the protocol, answered as it says; readers that stop, held within bounds.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::sync::Arc;

use serde_json::json;
use support::{
    client::{Client, DEADLINE},
    cluster::{Cluster, Store},
    process::Gateway,
    raw::{self, Ws},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_limit_has_its_code() {
    let envs = [("MAX_ROOMS_PER_CONNECTION", "3"), ("MAX_MESSAGE_BYTES", "1000")];
    let cluster = Cluster::start(Store::Memory, 1, &envs).await;
    let mut client = cluster.client(0, "a").await;
    assert_eq!(client.welcome["limits"]["maxRooms"], 3);
    for room in ["r1", "r2", "r3"] {
        client.ack("join", room, json!({})).await;
    }
    assert_eq!(client.refused("join", "r4", json!({})).await, "too_many_rooms");
    client.ack("join", "r3", json!({})).await;
    client.ack("leave", "r3", json!({})).await;
    client.ack("join", "r4", json!({})).await;

    let text = |bytes: usize| json!("x".repeat(bytes - 2));
    client
        .ack("message.send", "r1", json!({"body": text(1000)}))
        .await;
    assert_eq!(
        client
            .refused("message.send", "r1", json!({"body": text(1001)}))
            .await,
        "too_large"
    );
    let event = |payload| json!({"event": "e", "payload": payload});
    client.ack("signal", "r1", event(text(16 * 1024))).await;
    assert_eq!(
        client.refused("signal", "r1", event(text(16 * 1024 + 1))).await,
        "too_large"
    );
    client.ack("broadcast", "r1", event(text(64 * 1024))).await;
    assert_eq!(
        client
            .refused("broadcast", "r1", event(text(64 * 1024 + 1)))
            .await,
        "too_large"
    );
    client
        .ack("presence.update", "r1", json!({"set": {"a": text(4000)}}))
        .await;
    assert_eq!(
        client
            .refused("presence.update", "r1", json!({"set": {"b": text(4000)}}))
            .await,
        "too_large"
    );
    client
        .ack("state.patch", "r1", json!({"set": {"a": text(700_000)}}))
        .await;
    let more = json!({"set": {"b": text(400_000)}});
    assert_eq!(client.refused("state.patch", "r1", more).await, "state_too_large");
    assert_eq!(
        client.ack("state.get", "r1", json!({"fields": ["b"]})).await["state"],
        json!({})
    );

    assert_eq!(client.refused("state.get", "r3", json!({})).await, "not_joined");
    assert_eq!(
        client.refused("state.get", "no room", json!({})).await,
        "bad_request"
    );
    assert_eq!(
        client.refused("message.fold", "r1", json!({})).await,
        "unknown_type"
    );
    assert_eq!(
        client
            .refused("state.patch", "r1", json!({"increment": {"a": 1}}))
            .await,
        "bad_request"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_takes_no_more_connections_than_it_may() {
    let cluster = Cluster::start(Store::Memory, 1, &[("MAX_CONNECTIONS", "2")]).await;
    let (a, _b) = (cluster.client(0, "a").await, cluster.client(0, "b").await);
    let url = format!("ws://{}/ws?user=c", cluster.gateways[0].addr);
    let Err(tokio_tungstenite::tungstenite::Error::Http(refused)) =
        tokio_tungstenite::connect_async(&url).await
    else {
        panic!("a third connection was taken")
    };
    assert_eq!(refused.status(), 503);
    a.close().await;
    // The place is free when the gateway has seen the end.
    let until = tokio::time::Instant::now() + DEADLINE;
    while tokio_tungstenite::connect_async(&url).await.is_err() {
        assert!(tokio::time::Instant::now() < until, "the place stays taken");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_with_much_under_way_is_answered_in_full() {
    let cluster = Cluster::start(Store::Memory, 1, &[("OUTBOX_BYTES", "16777216")]).await;
    let mut client = cluster.client(0, "a").await;
    client.ack("join", "r", json!({})).await;
    // Far more than may wait for the store at once: the gateway stops reading and goes on.
    for round in 0..40 {
        let batch: Vec<_> = (0..64)
            .map(|i| json!({"id": format!("b{round}-{i}"), "type": "broadcast", "room": "r", "data": {"event": "e", "payload": "x".repeat(300)}}))
            .collect();
        client.send_text(json!(batch).to_string()).await;
    }
    let (mut acks, mut last) = (0, 1);
    while acks < 40 * 64 || last < 1 + 40 * 64 {
        let frame = client.next().await;
        if frame.kind == "ack" {
            acks += 1;
        } else {
            assert_eq!(frame.seq, Some(last + 1));
            last += 1;
        }
    }
}

/// One small frame that asks for a great deal: each of its joins is answered with megabytes of missed events, and the
/// client takes none of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_array_of_long_answers_costs_no_more_than_may_be_under_way() {
    const EVENTS: u64 = 100;
    let gateway = Gateway::start(&[("LOG_LEVEL", "warn")]);
    let mut writer = Client::connect(gateway.addr, "writer").await;
    let joined = writer.ack("join", "r", json!({})).await;
    let payload = "x".repeat(60_000);
    for _ in 0..EVENTS {
        writer
            .ack("broadcast", "r", json!({"event": "e", "payload": payload}))
            .await;
    }
    let before = gateway.resident_bytes();
    let since = json!({"since": {"epoch": joined["epoch"], "seq": 1}});
    let array: Vec<_> = (0..64)
        .map(|i| json!({"id": format!("j{i}"), "type": "join", "room": "r", "data": since}))
        .collect();
    let mut greedy = Client::connect(gateway.addr, "greedy").await;
    greedy.send_text(json!(array).to_string()).await;
    // All are answered in the end: this client reads, if slowly.
    let mut most = 0;
    for i in 0..64 {
        let id = format!("j{i}");
        let ack = greedy.until(|f| f.id.as_deref() == Some(&id)).await;
        assert_eq!(ack.data["recovered"], true, "{}", ack.data);
        most = most.max(gateway.resident_bytes().saturating_sub(before));
        let mut events = 0;
        while events < EVENTS {
            events += u64::from(greedy.next().await.kind == "broadcast");
        }
    }
    // 64 answers of 6 MB each; four may be under way, and some are on their way out.
    assert!(most < 100 * 1024 * 1024, "{most} bytes");
}

/// 100 members of a room stop reading while 30 MB go by: each is closed with 4200, the gateway's memory stays within their
/// queues, and the member that reads misses nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stopped_readers_cost_their_queue_and_no_more() {
    const STOPPED: usize = 100;
    let envs = [
        ("OUTBOX_BYTES", "65536"),
        ("LOG_BYTES", "1024"),
        ("LOG_LEVEL", "warn"),
    ];
    let gateway = Arc::new(Gateway::start(&envs));
    let mut stopped = Vec::new();
    for number in 0..STOPPED {
        let mut ws = Ws::open(&gateway, &format!("/ws?user=s{number}")).await;
        ws.send(&[raw::text(r#"{"type":"join","room":"r","data":{"messages":0}}"#)])
            .await;
        stopped.push(ws);
    }
    let mut reader = Client::connect(gateway.addr, "reader").await;
    reader.ack("join", "r", json!({})).await;
    let before = gateway.resident_bytes();
    let payload = "x".repeat(60_000);
    let mut last = None;
    for _ in 0..500 {
        reader
            .send("broadcast", "r", json!({"event": "e", "payload": payload}))
            .await;
        let seq = reader.until(|f| f.kind == "broadcast").await.seq.unwrap();
        // Between two broadcasts only members that are gone may stand.
        assert!(last.is_none_or(|last| seq > last), "{last:?} {seq}");
        last = Some(seq);
    }
    let (_, metrics) = gateway.get("/metrics").await.unwrap();
    let closed = metrics
        .lines()
        .find_map(|line| {
            line.strip_prefix("roomgate_slow_consumers_total{")
                .and_then(|l| l.rsplit(' ').next())
        })
        .unwrap();
    assert_eq!(closed.parse::<usize>().unwrap(), STOPPED);
    let grown = gateway.resident_bytes().saturating_sub(before);
    // Each queue may hold its 64 KiB and one frame; frames are shared among the queues.
    assert!(grown < 40 * 1024 * 1024, "grew by {grown} bytes");
    assert_eq!(gateway.status("/healthz").await, Some(200));
}
