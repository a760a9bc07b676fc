//! Starting and stopping: what is wrong is said in one line that names the setting, with an exit code that is not 0.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::{
    net::TcpListener,
    process::{Command, Output, Stdio},
    time::Duration,
};

use serde_json::json;
use support::{
    client::Client,
    cluster::{Cluster, Store},
    process::Gateway,
    redis_server::RedisServer,
};

/// Runs the program to its end.
fn run(envs: &[(&str, &str)], args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_roomgate"))
        .args(args)
        .env_clear()
        .env("LISTEN", "127.0.0.1:0")
        .env("LOG_LEVEL", "error")
        .envs(envs.iter().copied())
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

/// The one line of a program that does not start.
fn complaint(envs: &[(&str, &str)]) -> String {
    let output = run(envs, &[]);
    assert!(!output.status.success(), "it started and ended well");
    let said = String::from_utf8(output.stderr).unwrap();
    let lines: Vec<&str> = said
        .lines()
        .filter(|line| line.starts_with("roomgate: "))
        .collect();
    assert_eq!(lines.len(), 1, "{said}");
    lines[0].to_owned()
}

#[test]
fn what_is_wrong_is_named_in_one_line() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for (name, value, says) in [
        ("LISTEN", address.as_str(), "LISTEN: cannot listen on"),
        ("LISTEN", "localhost", "LISTEN: "),
        ("LISTEN", "0.0.0.0:0", "AUTH_MODE: "),
        (
            "ROOM_STORE",
            "disk",
            "ROOM_STORE: \"disk\" is not accepted; it accepts memory, redis",
        ),
        ("HEARTBEAT_MS", "soon", "HEARTBEAT_MS: "),
        ("REDIS_URL", "127.0.0.1:6379", "REDIS_URL: "),
        ("REDIS_URL", "http://127.0.0.1", "REDIS_URL: "),
        ("REDIS_URL", "redis://127.0.0.1:port", "REDIS_URL: "),
    ] {
        let line = complaint(&[(name, value)]);
        assert!(line.contains(says), "{name}={value}: {line}");
    }
}

#[test]
fn help_explains_every_setting() {
    let output = run(&[], &["--help"]);
    assert!(output.status.success());
    let help = String::from_utf8(output.stdout).unwrap();
    for variable in ["LISTEN", "REDIS_URL", "OUTBOX_BYTES", "LOG_FORMAT"] {
        assert!(help.contains(&format!("[env: {variable}")), "{help}");
    }
}

#[test]
fn a_password_is_never_shown() {
    let line = complaint(&[
        ("REDIS_URL", "redis://u:hunter2@127.0.0.1:1/0"),
        ("REDIS_WAIT_SECONDS", "0"),
    ]);
    assert!(!line.contains("hunter2"), "{line}");
    let help = run(&[("REDIS_URL", "redis://u:hunter2@127.0.0.1:1/0")], &["--help"]);
    assert!(!String::from_utf8(help.stdout).unwrap().contains("hunter2"));
}

#[test]
fn redis_that_stays_away_ends_it_after_the_wait() {
    let port = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let url = format!("redis://127.0.0.1:{port}");
    let line = complaint(&[("REDIS_URL", &url), ("REDIS_WAIT_SECONDS", "1")]);
    assert!(
        line.contains("REDIS_WAIT_SECONDS") && line.contains("127.0.0.1"),
        "{line}"
    );
}

#[test]
fn a_wrong_password_is_told_at_once() {
    let server = RedisServer::start();
    let url = format!("redis://nobody:wrong@127.0.0.1:{}", server.port());
    let line = complaint(&[("REDIS_URL", &url), ("REDIS_WAIT_SECONDS", "600")]);
    assert!(!line.contains("wrong@"), "{line}");
}

#[test]
fn what_is_not_redis_is_told() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            use std::io::Write as _;
            let _ = stream.unwrap().write_all(b"SSH-2.0-OpenSSH_9.6\r\n");
        }
    });
    let url = format!("redis://127.0.0.1:{port}");
    let line = complaint(&[("REDIS_URL", &url), ("REDIS_WAIT_SECONDS", "1")]);
    assert!(line.contains("127.0.0.1"), "{line}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_waits_for_redis_alive_and_not_ready() {
    let mut server = RedisServer::start();
    server.stop();
    let gateway = Gateway::start(&[("REDIS_URL", &server.url())]);
    assert_eq!(gateway.status("/healthz").await, Some(200));
    let (head, body) = gateway.get("/readyz").await.unwrap();
    assert!(head.starts_with("HTTP/1.1 503"), "{head}");
    assert!(body.contains("not ready: "), "{body}");
    assert_eq!(gateway.status("/ws").await, Some(503));
    server.restart();
    gateway.ready().await;
    let mut client = Client::connect(gateway.addr, "u").await;
    assert_eq!(client.ack("join", "r", json!({})).await["seq"], 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_closes_with_1012_and_leaves_nobody_behind() {
    for store in [Store::Memory, Store::Redis] {
        let mut cluster = Cluster::start(store, 2, &[]).await;
        let mut client = cluster.client(0, "a").await;
        client.ack("join", "r", json!({})).await;
        let mut other = cluster.client(1, "b").await;
        other.ack("join", "r", json!({})).await;
        let mut stopped = cluster.gateways.remove(0);
        stopped.terminate();
        let (code, reason) = client.closed().await;
        assert_eq!(code, 1012);
        assert!(
            reason.parse::<u64>().is_ok(),
            "the reason is the delay in ms: {reason:?}"
        );
        if store == Store::Redis {
            let gone = other
                .until(|f| f.kind == "presence" && f.data["away"] == json!(["a"]))
                .await;
            assert_eq!(gone.room.as_deref(), Some("r"));
        }
        assert!(stopped.ended(Duration::from_secs(10)).await.success());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_metrics_and_page_are_served() {
    let cluster = Cluster::start(Store::Memory, 1, &[]).await;
    let mut client = cluster.client(0, "a").await;
    client.ack("join", "r", json!({})).await;
    client.ack("message.send", "r", json!({"body": 1})).await;
    let gateway = &cluster.gateways[0];
    let (_, metrics) = gateway.get("/metrics").await.unwrap();
    for line in [
        "roomgate_connections{node=\"gw-1\"} 1",
        "roomgate_rooms{node=\"gw-1\"} 1",
        "roomgate_members{node=\"gw-1\"} 1",
        "roomgate_commands_total{node=\"gw-1\",type=\"message.send\"} 1",
        "roomgate_store_ready{node=\"gw-1\"} 1",
    ] {
        assert!(metrics.lines().any(|l| l == line), "{line}\n{metrics}");
    }
    let (head, page) = gateway.get("/").await.unwrap();
    assert!(
        head.contains("content-security-policy: default-src 'self'"),
        "{head}"
    );
    assert!(page.contains("<title>"), "{page}");
    assert_eq!(gateway.status("/assets/nothing.js").await, Some(404));
    assert_eq!(gateway.status("/nothing").await, Some(404));
    client.close().await;
}
