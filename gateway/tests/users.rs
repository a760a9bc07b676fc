//! What concerns one user or one address over three gateways: budgets, connections, and what an operator says.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::net::SocketAddr;

use serde_json::{Value, json};
use support::{
    client::Client,
    cluster::{Cluster, Store},
    process::Gateway,
    proxy::{ALL, Direction, Proxy},
    redis_server::RedisServer,
    tokens::{SECRET, second, signed, token},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::Instant,
};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

const ROOM: &str = "lobby";
const API_KEY: &str = "an api key of at least thirty-two characters";

async fn cluster(envs: &[(&str, &str)]) -> Cluster {
    let mut all = vec![
        ("JWT_SECRET", SECRET),
        ("API_KEYS", API_KEY),
        ("NODE_LEASE_SECONDS", "2"),
    ];
    all.extend_from_slice(envs);
    Cluster::start(Store::Redis, 3, &all).await
}

fn anyone(user: &str) -> String {
    token(user, json!({"*": ["join", "send", "state"]}))
}

async fn member(cluster: &Cluster, gateway: usize, user: &str) -> Client {
    let mut client = Client::connect_with(cluster.gateways[gateway].addr, &anyone(user)).await;
    client.ack("join", ROOM, json!({"messages": 0})).await;
    client
}

/// A POST to the API; its status.
async fn post(addr: SocketAddr, path: &str, key: &str, body: &str) -> (u16, Value) {
    let mut stream = tokio::net::TcpStream::connect(addr).await.unwrap();
    let request = format!(
        "POST /api/v1/{path} HTTP/1.1\r\nhost: {addr}\r\nauthorization: Bearer {key}\r\nconnection: close\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, serde_json::from_str(body).unwrap_or_default())
}

#[tokio::test]
async fn one_user_on_three_gateways_has_one_budget() {
    let cluster = cluster(&[("USER_RATES", "messages=20/40")]).await;
    let mut clients = Vec::new();
    for gateway in 0..3 {
        clients.push(member(&cluster, gateway, "ada").await);
    }
    let mut other = member(&cluster, 0, "bob").await;
    let began = Instant::now();
    let mut writers = Vec::new();
    for mut client in clients {
        writers.push(tokio::spawn(async move {
            let (mut accepted, mut waits) = (0_u64, 0_u64);
            while began.elapsed().as_millis() < 4_000 {
                let answer = client.ask("message.send", ROOM, json!({"body": 1})).await;
                if answer.kind == "ack" {
                    accepted += 1;
                    continue;
                }
                assert_eq!(answer.data["code"], "rate_limited");
                waits += 1;
                let wait = answer.data["retryAfterMs"].as_u64().unwrap();
                assert!((1..=2_000).contains(&wait), "{wait}");
                tokio::time::sleep(std::time::Duration::from_millis(wait)).await;
            }
            (accepted, waits)
        }));
    }
    let (mut accepted, mut waits) = (0, 0);
    for writer in writers {
        let (some, times) = writer.await.unwrap();
        (accepted, waits) = (accepted + some, waits + times);
    }
    let most = 40.0 + 20.0 * began.elapsed().as_secs_f64();
    assert!(accepted as f64 <= most, "{accepted} of {most}");
    assert!(accepted as f64 >= 0.6 * most, "{accepted} of {most}");
    assert!(waits > 0);
    // Another user and another lane have their own.
    other.ack("message.send", ROOM, json!({"body": 1})).await;
}

#[tokio::test]
async fn commands_that_wait_for_a_budget_keep_their_order() {
    let cluster = cluster(&[("USER_RATES", "messages=1000/2000,state=1000,moves=1000")]).await;
    let mut client = member(&cluster, 0, "ada").await;
    for round in 0..10 {
        let id = |n: u64| format!("{round}-{n}");
        let command =
            |n: u64, kind: &str, data: Value| json!({"id": id(n), "type": kind, "room": ROOM, "data": data});
        let batch: Vec<Value> = (0..32)
            .map(|n| match n % 4 {
                0 => command(n, "message.send", json!({"body": n})),
                1 => command(n, "state.patch", json!({"set": {"n": n}})),
                2 => command(n, "move", json!({"x": n})),
                _ => command(n, "state.get", json!({})),
            })
            .collect();
        client.send_text(Value::from(batch).to_string()).await;
        for n in 0..32 {
            let answer = client.until(|frame| frame.id.as_deref() == Some(&id(n))).await;
            assert_eq!(answer.kind, "ack", "{round}: {}", answer.data);
            if n % 4 == 3 {
                // What was sent before it has happened before it.
                assert_eq!(answer.data["state"]["n"], n - 2, "{round}");
            }
        }
    }
}

#[tokio::test]
async fn a_connection_sends_no_more_than_it_may_and_a_flood_ends_it() {
    let cluster = cluster(&[("MAX_COMMANDS_PER_SECOND", "5")]).await;
    let addr = cluster.gateways[0].addr;
    let mut client = Client::connect_with(addr, &anyone("ada")).await;
    let ping = |n: u64| json!({"id": n.to_string(), "type": "ping"});
    let many: Vec<Value> = (0..12).map(ping).collect();
    client.send_text(Value::from(many).to_string()).await;
    let mut refused = 0;
    for _ in 0..12 {
        let answer = client.next().await;
        if answer.kind == "error" {
            refused += 1;
            assert_eq!(answer.data["code"], "rate_limited");
            assert!((1..=1_000).contains(&answer.data["retryAfterMs"].as_u64().unwrap()));
        }
    }
    assert!((1..=2).contains(&refused), "ten at once: {refused}");
    // On and on: the end.
    let many = Value::from((0..64).map(ping).collect::<Vec<_>>()).to_string();
    for _ in 0..8 {
        client.try_send(many.clone()).await;
    }
    assert_eq!(client.closed().await.0, 1008);
    // Others are not concerned.
    let mut other = Client::connect_with(addr, &anyone("bob")).await;
    other.ack("join", ROOM, json!({})).await;
}

/// Connects and waits until the connection has proven itself, or how it was closed.
async fn stays(addr: SocketAddr, user: &str, forwarded: Option<&str>) -> Result<Client, u16> {
    let url = format!("ws://{addr}/ws?token={}", anyone(user));
    let mut request = url.into_client_request().unwrap();
    if let Some(forwarded) = forwarded {
        request
            .headers_mut()
            .insert("x-forwarded-for", forwarded.parse().unwrap());
    }
    let mut client = Client::request(request).await.unwrap();
    client.read_welcome().await;
    // It may have been closed by now, which is what the answer is about to show.
    client
        .try_send(json!({"id": "p", "type": "ping"}).to_string())
        .await;
    match client.until_or_closed(|frame| frame.kind == "pong").await {
        Ok(_) => Ok(client),
        Err((code, _)) => Err(code),
    }
}

#[tokio::test]
async fn a_user_has_so_many_connections_over_all_gateways() {
    let mut cluster = cluster(&[("MAX_CONNECTIONS_PER_USER", "3")]).await;
    let addr: Vec<SocketAddr> = cluster.gateways.iter().map(|gateway| gateway.addr).collect();
    let mut clients = Vec::new();
    for addr in &addr {
        clients.push(stays(*addr, "ada", None).await.unwrap());
    }
    assert_eq!(stays(addr[0], "ada", None).await.err(), Some(4005));
    let _bob = stays(addr[0], "bob", None).await.unwrap();
    // One goes by itself, another with its gateway.
    clients.remove(0).close().await;
    clients.push(until_it_stays(addr[1]).await);
    cluster.gateways.remove(2);
    clients.push(until_it_stays(addr[0]).await);
}

async fn until_it_stays(addr: SocketAddr) -> Client {
    let end = Instant::now() + support::client::DEADLINE;
    loop {
        match stays(addr, "ada", None).await {
            Ok(client) => return client,
            Err(code) => assert_eq!(code, 4005),
        }
        assert!(Instant::now() < end, "what is gone counts on");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

/// A Redis, and gateways with one connection for each user. What the first says to Redis goes through a proxy.
async fn apart() -> (RedisServer, Proxy, [Gateway; 2]) {
    let redis = RedisServer::start();
    let proxy = Proxy::start(redis.port()).await;
    let start = |node: &str, url: &str| {
        Gateway::start(&[
            ("NODE_ID", node),
            ("REDIS_URL", url),
            ("REDIS_TIMEOUT_MS", "500"),
            ("HEARTBEAT_MS", "60000"),
            ("JWT_SECRET", SECRET),
            ("API_KEYS", API_KEY),
            ("MAX_CONNECTIONS_PER_USER", "1"),
        ])
    };
    let (proxied, direct) = (proxy.url(), redis.url());
    // Starting waits for the gateway on this thread, which the proxy needs.
    let first = tokio::task::spawn_blocking(move || start("gw-1", &proxied));
    let gateways = [first.await.unwrap(), start("gw-2", &direct)];
    for gateway in &gateways {
        gateway.ready().await;
    }
    (redis, proxy, gateways)
}

#[tokio::test]
async fn who_goes_while_redis_is_away_does_not_count_on() {
    let (_redis, proxy, gateways) = apart().await;
    let ada = stays(gateways[0].addr, "ada", None).await.unwrap();
    assert_eq!(stays(gateways[1].addr, "ada", None).await.err(), Some(4005));
    proxy.swallow(Direction::Both, ALL);
    proxy.cut();
    ada.close().await;
    proxy.resume();
    until_it_stays(gateways[1].addr).await;
}

#[tokio::test]
async fn a_gateway_that_stops_in_good_order_leaves_nobody_counted() {
    let (redis, _proxy, [mut first, second]) = apart().await;
    let mut clients = Vec::new();
    for user in ["ada", "bob", "cy"] {
        clients.push(stays(first.addr, user, None).await.unwrap());
    }
    let counted = || redis.ask(&["KEYS", "user:*:connections"]);
    assert_eq!(counted().lines().filter(|line| !line.is_empty()).count(), 3);
    first.terminate();
    for client in &mut clients {
        assert_eq!(client.closed().await.0, 1012);
    }
    first.ended(support::client::DEADLINE).await;
    assert_eq!(counted().trim(), "");
    stays(second.addr, "ada", None).await.unwrap();
}

#[tokio::test]
async fn who_could_not_be_asked_about_is_asked_about_again() {
    let (redis, _proxy, gateways) = apart().await;
    redis.ask(&["SET", "user:{bob}:blocked", "-"]);
    let pid = redis.pid();
    RedisServer::signal(&pid, "-STOP");
    // Redis does not answer, which is no reason to keep anybody out.
    let ada = stays(gateways[0].addr, "ada", None);
    let bob = stays(gateways[0].addr, "bob", None);
    let (ada, bob) = tokio::join!(ada, bob);
    let (_ada, mut bob) = (ada.unwrap(), bob.unwrap());
    RedisServer::signal(&pid, "-CONT");
    assert_eq!(bob.closed().await.0, 4003);
    let end = Instant::now() + support::client::DEADLINE;
    while redis.ask(&["HLEN", "user:{ada}:connections"]).trim() != "1" {
        assert!(Instant::now() < end, "she is never counted");
        tokio::task::yield_now().await;
    }
    gateways[1].ready().await;
    assert_eq!(stays(gateways[1].addr, "ada", None).await.err(), Some(4005));
}

#[tokio::test]
async fn what_an_operator_said_to_a_gateway_cut_off_holds_when_it_is_back() {
    let (redis, proxy, gateways) = apart().await;
    let mut ada = stays(gateways[0].addr, "ada", None).await.unwrap();
    proxy.swallow(Direction::Both, ALL);
    proxy.cut();
    let heard = |count: u64| {
        let text = redis.ask(&["PUBSUB", "NUMSUB", "nodes:control"]);
        text.lines().nth(1).unwrap().trim() == count.to_string()
    };
    let until = async |count| {
        let end = Instant::now() + support::client::DEADLINE;
        while !heard(count) {
            assert!(Instant::now() < end, "not heard by {count}");
            tokio::task::yield_now().await;
        }
    };
    until(1).await;
    assert_eq!(
        post(gateways[1].addr, "users/ada/block", API_KEY, "").await.0,
        200
    );
    // It hears again what is said from now on, and cannot ask yet.
    proxy.swallow(Direction::Both, |said| said.contains(":calls"));
    until(2).await;
    proxy.resume();
    assert_eq!(ada.closed().await.0, 4003);
}

#[tokio::test]
async fn an_address_has_so_many_connections() {
    let cluster = cluster(&[
        ("MAX_CONNECTIONS_PER_IP", "2"),
        ("TRUSTED_PROXIES", "127.0.0.0/8"),
    ])
    .await;
    let addr = |number: usize| cluster.gateways[number].addr;
    let mut kept = Vec::new();
    for (number, forwarded) in ["9.9.9.9", "1.1.1.1, 9.9.9.9"].iter().enumerate() {
        kept.push(stays(addr(number), "ada", Some(forwarded)).await.unwrap());
    }
    // However it is dressed up.
    for forwarded in ["9.9.9.9", "2.2.2.2, 9.9.9.9", "9.9.9.9, 127.0.0.1"] {
        assert_eq!(
            stays(addr(2), "bob", Some(forwarded)).await.err(),
            Some(4005),
            "{forwarded}"
        );
    }
    kept.push(stays(addr(2), "bob", Some("8.8.8.8")).await.unwrap());
    kept.push(stays(addr(2), "bob", None).await.unwrap());
}

#[tokio::test]
async fn what_an_operator_says_holds_on_every_gateway() {
    let cluster = cluster(&[]).await;
    let addr = |number: usize| cluster.gateways[number].addr;
    // Made a while ago, as tokens are.
    let claims = |id: &str, ago: u64| {
        signed(
            &json!({"sub": "ada", "exp": second() + 600, "iat": second() - ago, "jti": id, "rooms": {"*": ["join"]}}),
        )
    };
    let (old, named) = (claims("t1", 60), claims("t2", 60));
    let connect = async |number: usize, token: &str| Client::connect_with(addr(number), token).await;
    let (mut one, mut two) = (connect(0, &old).await, connect(1, &named).await);
    one.ack("join", ROOM, json!({})).await;
    two.ack("join", ROOM, json!({})).await;
    // Only who has a key may say anything.
    for (key, status) in [
        ("wrong", 401),
        (API_KEY.trim_end_matches('s'), 401),
        (old.as_str(), 403),
    ] {
        assert_eq!(
            post(addr(2), "users/ada/revoke", key, "").await.0,
            status,
            "{key}"
        );
    }
    let said = async |path: &str, body: &str| {
        let (status, answer) = post(addr(2), path, API_KEY, body).await;
        assert_eq!(status, 200, "{path}: {answer}");
        answer
    };
    assert_eq!(
        said("users/ada/revoke", r#"{"token":"t2"}"#).await,
        json!({"token": "t2"})
    );
    assert!(cluster.gateways[2].log().contains("key 1 of API_KEYS"));
    assert!(!cluster.gateways[2].log().contains(API_KEY));
    assert_eq!(two.closed().await.0, 4101);
    one.ack("join", ROOM, json!({})).await;
    let mut again = connect(0, &named).await;
    assert_eq!(again.closed().await.0, 4101, "and does not come back");
    assert_eq!(said("users/ada/revoke", "").await, json!({"user": "ada"}));
    assert_eq!(one.closed().await.0, 4101);
    let mut again = connect(1, &old).await;
    assert_eq!(again.closed().await.0, 4101);
    // A token from after it is good, of the next second at least.
    let revoked = second();
    while second() <= revoked {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    let fresh = claims("t3", 0);
    let (mut one, mut two) = (connect(0, &fresh).await, connect(1, &fresh).await);
    one.ack("join", ROOM, json!({})).await;
    two.ack("join", ROOM, json!({})).await;
    one.send_text(json!({"id": "a", "type": "auth", "data": {"token": old}}).to_string())
        .await;
    assert_eq!(one.closed().await.0, 4101, "not with a revoked one");
    said("users/ada/disconnect", "").await;
    assert_eq!(
        two.closed().await,
        (1008, "disconnected by the operator".to_owned())
    );
    let (mut one, mut two) = (connect(0, &fresh).await, connect(1, &fresh).await);
    one.ack("join", ROOM, json!({})).await;
    two.ack("join", ROOM, json!({})).await;
    said("users/ada/block", r#"{"reason":"spam"}"#).await;
    assert_eq!(one.closed().await.0, 4003);
    assert_eq!(two.closed().await.0, 4003);
    let mut blocked = connect(2, &fresh).await;
    assert_eq!(blocked.closed().await.0, 4003);
    said("users/ada/unblock", "").await;
    connect(2, &fresh).await.ack("join", ROOM, json!({})).await;
    for (path, body, status) in [
        ("users/ada/block", r#"{"durationMs":0}"#, 400),
        ("users/ada/block", "nonsense", 400),
        ("users/ada/revoke", r#"{"token":""}"#, 400),
        ("users/a%00b/revoke", "", 400),
        ("users/ada/praise", "", 404),
    ] {
        assert_eq!(
            post(addr(0), path, API_KEY, body).await.0,
            status,
            "{path} {body}"
        );
    }
}

#[tokio::test]
async fn without_keys_nobody_says_anything() {
    let cluster = Cluster::start(Store::Memory, 1, &[]).await;
    assert_eq!(
        post(cluster.gateways[0].addr, "users/ada/block", "", "").await.0,
        401
    );
    assert_eq!(
        post(cluster.gateways[0].addr, "users/ada/block", API_KEY, "")
            .await
            .0,
        401
    );
}

#[tokio::test]
async fn frames_that_say_nothing_are_a_flood_too() {
    let cluster = cluster(&[]).await;
    let addr = cluster.gateways[0].addr;
    let long = Value::from(vec![json!({"type": "ping"}); 65]).to_string();
    for nothing in [
        &long,
        r#"{"id":" ","type":"ping"}"#,
        r#"{"id":"1","type":"no.such"}"#,
    ] {
        let mut client = Client::connect_with(addr, &anyone("ada")).await;
        for _ in 0..400 {
            client.try_send(nothing.to_owned()).await;
        }
        assert_eq!(client.closed().await.0, 1008, "{nothing}");
    }
}

#[tokio::test]
async fn who_is_muted_may_go_on_moving_a_hand() {
    let cluster = cluster(&[]).await;
    let addr = cluster.gateways[0].addr;
    let all = support::tokens::token("owner", json!({"*": ["*"]}));
    let mut owner = Client::connect_with(addr, &all).await;
    owner.ack("join", ROOM, json!({})).await;
    let mut client = Client::connect_with(addr, &anyone("ada")).await;
    client.ack("join", ROOM, json!({})).await;
    owner.ack("user.mute", ROOM, json!({"user": "ada"})).await;
    client.event("user.muted", ROOM).await;
    for n in 0..600 {
        let moved = json!({"type": "move", "room": ROOM, "data": {"x": n, "y": 1}});
        client.send_text(moved.to_string()).await;
    }
    client.ack("state.get", ROOM, json!({})).await;
    // What is written by hand is another matter.
    for _ in 0..400 {
        let sent = json!({"id": "m", "type": "message.send", "room": ROOM, "data": {"body": 1}});
        client.try_send(sent.to_string()).await;
    }
    assert_eq!(client.closed().await.0, 1008);
}

#[tokio::test]
async fn without_tokens_a_name_may_be_blocked_and_nothing_revoked() {
    let cluster = Cluster::start(Store::Redis, 2, &[("API_KEYS", API_KEY)]).await;
    let addr = |gateway: usize| cluster.gateways[gateway].addr;
    let mut ada = Client::connect(addr(0), "ada").await;
    ada.ack("join", ROOM, json!({})).await;
    assert_eq!(post(addr(1), "users/ada/revoke", API_KEY, "").await.0, 409);
    assert_eq!(post(addr(1), "users/ada/block", API_KEY, "").await.0, 200);
    assert_eq!(ada.closed().await.0, 4003);
    let mut again = Client::connect(addr(1), "ada").await;
    assert_eq!(again.closed().await.0, 4003);
    let mut bob = Client::connect(addr(1), "bob").await;
    bob.ack("join", ROOM, json!({})).await;
    assert_eq!(post(addr(0), "users/ada/unblock", API_KEY, "").await.0, 200);
    let mut back = Client::connect(addr(0), "ada").await;
    back.ack("join", ROOM, json!({})).await;
    assert_eq!(post(addr(1), "users/ada/disconnect", API_KEY, "").await.0, 200);
    assert_eq!(back.closed().await.0, 1008);
}
