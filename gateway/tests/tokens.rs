//! Tokens on their way in: real gateways, real sockets.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use serde_json::{Value, json};
use support::{
    client::Client,
    process::Gateway,
    tokens::{SECRET, jwk, second, signed, signed_by, token},
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_tungstenite::tungstenite::{client::IntoClientRequest, handshake::client::Request};

fn gateway(envs: &[(&str, &str)]) -> Gateway {
    let mut all = vec![("JWT_SECRET", SECRET), ("HEARTBEAT_MS", "60000")];
    all.extend_from_slice(envs);
    Gateway::start(&all)
}

/// A handshake with these headers.
fn request(gateway: &Gateway, query: &str, headers: &[(&'static str, &str)]) -> Request {
    let url = format!("ws://{}/ws{query}", gateway.addr);
    let mut request = url.into_client_request().unwrap();
    for (name, value) in headers {
        request.headers_mut().insert(*name, value.parse().unwrap());
    }
    request
}

fn auth(token: &str) -> String {
    json!({"id": "a1", "type": "auth", "data": {"token": token}}).to_string()
}

#[tokio::test]
async fn a_token_is_handed_over_in_four_ways() {
    let gateway = gateway(&[]);
    let (ada, bob) = (token("ada", json!({})), token("bob", json!({})));
    let bearer = format!("Bearer {ada}");
    let subprotocol = format!("roomgate.v1, bearer.{ada}");
    let query = format!("?token={ada}&user=eve&name=Eve");
    let also = format!("?token={bob}");
    let none: &[(&str, &str)] = &[];
    let header: &[(&str, &str)] = &[("authorization", &bearer)];
    let offered: &[(&str, &str)] = &[("sec-websocket-protocol", &subprotocol)];
    for (query, headers) in [
        (query.as_str(), none),
        ("", header),
        ("", offered),
        // The header comes before the query.
        (&also, header),
        (&also, offered),
    ] {
        let mut client = Client::request(request(&gateway, query, headers)).await.unwrap();
        client.read_welcome().await;
        assert_eq!(
            client.welcome["user"],
            json!({"id": "ada", "name": "ada"}),
            "{query} {headers:?}"
        );
    }
    let mut client = Client::request(request(&gateway, "", none)).await.unwrap();
    client.send_text(auth(&ada)).await;
    client.read_welcome().await;
    assert_eq!(client.welcome["user"]["id"], "ada");
    let ack = client.next().await;
    assert_eq!((ack.kind.as_str(), ack.id.as_deref()), ("ack", Some("a1")));
    let expires = ack.data["expiresAt"].as_u64().unwrap() / 1000;
    assert!((second() + 3500..=second() + 3600).contains(&expires));
}

#[tokio::test]
async fn a_bad_token_does_not_get_in() {
    let gateway = gateway(&[]);
    let expired = signed(&json!({"sub": "ada", "exp": second() - 10}));
    let early = signed(&json!({"sub": "ada", "exp": second() + 60, "nbf": second() + 30}));
    for bad in [expired.as_str(), &early, "nonsense", "a.b.c"] {
        let query = format!("?token={bad}");
        assert_eq!(
            Client::request(request(&gateway, &query, &[])).await.err(),
            Some(401),
            "{bad}"
        );
        let header = format!("Bearer {bad}");
        let headers = [("authorization", header.as_str())];
        assert_eq!(
            Client::request(request(&gateway, "", &headers)).await.err(),
            Some(401)
        );
        // By a first frame: said so, and the end.
        let mut client = Client::request(request(&gateway, "", &[])).await.unwrap();
        client.send_text(auth(bad)).await;
        let error = client.next().await;
        assert_eq!((error.kind.as_str(), error.id.as_deref()), ("error", Some("a1")));
        assert_eq!(error.data["code"], "unauthenticated");
        assert_eq!(client.closed().await.0, 4002);
    }
    // A token without the protocol it is for.
    let only = format!("bearer.{}", token("ada", json!({})));
    let headers = [("sec-websocket-protocol", only.as_str())];
    assert_eq!(
        Client::request(request(&gateway, "", &headers)).await.err(),
        Some(400)
    );
    let (head, _) = gateway.get("/metrics").await.unwrap();
    assert!(head.contains("200"));
}

#[tokio::test]
async fn nothing_is_done_before_somebody_is_known() {
    let gateway = gateway(&[]);
    let mut silent = Client::request(request(&gateway, "?user=eve", &[]))
        .await
        .unwrap();
    let mut early = Client::request(request(&gateway, "", &[])).await.unwrap();
    let all = token("ada", json!({"*": ["*"]}));
    // In one frame, and in several.
    let join = json!({"id": "j0", "type": "join", "room": "lobby", "data": {}});
    early
        .send_text(json!([join, {"type": "ping", "id": "p0"}]).to_string())
        .await;
    for id in ["j0", "p0"] {
        let error = early.next().await;
        assert_eq!(
            (error.id.as_deref(), &error.data["code"]),
            (Some(id), &json!("unauthenticated"))
        );
    }
    let first: Value = serde_json::from_str(&auth(&all)).unwrap();
    early.send_text(json!([first, join]).to_string()).await;
    early.read_welcome().await;
    let ack = early.until(|frame| frame.id.as_deref() == Some("j0")).await;
    assert_eq!(ack.kind, "ack");
    assert_eq!(ack.data["members"], 1);
    // Who says nothing is closed after five seconds; who has said it is not.
    assert_eq!(silent.closed().await.0, 4002);
    early.ack("leave", "lobby", json!({})).await;
}

#[tokio::test]
async fn a_token_is_renewed_in_place() {
    let gateway = gateway(&[]);
    let rooms = json!({"a": ["join", "send"], "b-*": ["join"]});
    let mut client = Client::connect_with(gateway.addr, &token("ada", rooms)).await;
    client.ack("join", "a", json!({})).await;
    client.ack("join", "b-1", json!({})).await;
    assert_eq!(
        client.refused("message.send", "b-1", json!({"body": 1})).await,
        "forbidden"
    );
    // Not hers, and not good: all stays.
    for wrong in [token("bob", json!({"*": ["*"]})), "nonsense".to_owned()] {
        client.send_text(auth(&wrong)).await;
        let error = client.until(|frame| frame.id.as_deref() == Some("a1")).await;
        assert_eq!(error.data["code"], "unauthenticated");
        client.ack("message.send", "a", json!({"body": 1})).await;
    }
    client
        .send_text(auth(&token("ada", json!({"b-1": ["join", "send"]}))))
        .await;
    let ack = client.until(|frame| frame.id.as_deref() == Some("a1")).await;
    assert_eq!(ack.kind, "ack");
    let left = client
        .until(|frame| frame.kind == "error" && frame.room.as_deref() == Some("a"))
        .await;
    assert_eq!((&left.data["code"], left.id), (&json!("forbidden"), None));
    assert_eq!(
        client.refused("message.send", "a", json!({"body": 1})).await,
        "forbidden"
    );
    client.ack("message.send", "b-1", json!({"body": 2})).await;
    // The others have seen her go.
    let mut other = Client::connect_with(gateway.addr, &token("bob", json!({"*": ["join"]}))).await;
    let picture = other.ack("join", "a", json!({})).await;
    assert_eq!(picture["members"], 1);
}

#[tokio::test]
async fn a_connection_ends_with_its_token() {
    let gateway = gateway(&[]);
    let rooms = json!({"lobby": ["join", "send"]});
    let short = |seconds: u64| signed(&json!({"sub": "ada", "exp": second() + seconds, "rooms": rooms}));
    let mut client = Client::connect_with(gateway.addr, &short(3)).await;
    let told = client.until(|frame| frame.kind == "token.expiring").await;
    let expires = told.data["expiresAt"].as_u64().unwrap();
    client.ack("join", "lobby", json!({})).await;
    let mut renewed = Client::connect_with(gateway.addr, &short(2)).await;
    renewed.until(|frame| frame.kind == "token.expiring").await;
    renewed.send_text(auth(&short(3600))).await;
    renewed.until(|frame| frame.kind == "ack").await;
    assert_eq!(client.closed().await, (4100, "token expired".to_owned()));
    let ms = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_millis() as u64;
    assert!(ms >= expires, "before its end");
    // The other goes on, and is not told again for now.
    renewed.ack("join", "lobby", json!({})).await;
    assert!(
        renewed
            .try_next()
            .is_none_or(|frame| frame.kind != "token.expiring")
    );
}

#[tokio::test]
async fn a_batch_is_checked_command_by_command() {
    let gateway = gateway(&[]);
    let rooms = json!({"a": ["join", "send"], "b": ["join"]});
    let mut client = Client::connect_with(gateway.addr, &token("ada", rooms)).await;
    let command = |id: &str, kind: &str, room: &str, data: Value| json!({"id": id, "type": kind, "room": room, "data": data});
    let batch = json!([
        command("1", "join", "a", json!({})),
        command("2", "join", "c", json!({})),
        command("3", "message.send", "b", json!({"body": 1})),
        command("4", "state.patch", "a", json!({"set": {"x": 1}})),
        command("5", "message.send", "a", json!({"body": 1})),
        command("6", "user.kick", "a", json!({"user": "ada"})),
    ]);
    client.send_text(batch.to_string()).await;
    for (id, expected) in [
        ("1", None),
        ("2", Some("forbidden")),
        ("3", Some("forbidden")),
        ("4", Some("forbidden")),
        ("5", None),
        ("6", Some("forbidden")),
    ] {
        let answer = client.until(|frame| frame.id.as_deref() == Some(id)).await;
        assert_eq!(answer.data["code"].as_str(), expected, "{id}");
    }
    let (_, metrics) = gateway.get("/metrics").await.unwrap();
    let counted = metrics
        .lines()
        .find(|line| line.starts_with("roomgate_scope_mismatches_total"))
        .unwrap();
    assert!(counted.ends_with(" 4"), "{counted}");
    assert!(gateway.log().contains("needed=\"moderate\""), "{}", gateway.log());
}

#[tokio::test]
async fn no_token_is_logged() {
    let gateway = gateway(&[("LOG_LEVEL", "trace")]);
    let good = token("ada", json!({"*": ["join"]}));
    let bad = signed(&json!({"sub": "ada", "exp": second() - 10}));
    for token in [&good, &bad] {
        let bearer = format!("Bearer {token}");
        let offered = format!("roomgate.v1, bearer.{token}");
        let _ = Client::request(request(&gateway, &format!("?token={token}"), &[])).await;
        let _ = Client::request(request(&gateway, "", &[("authorization", &bearer)])).await;
        let _ = Client::request(request(&gateway, "", &[("sec-websocket-protocol", &offered)])).await;
        let mut client = Client::request(request(&gateway, "", &[])).await.unwrap();
        client.send_text(auth(token)).await;
        client.until(|frame| frame.id.is_some()).await;
    }
    let log = gateway.log();
    assert!(log.contains("TRACE") || log.contains("DEBUG"), "{log}");
    for token in [&good, &bad] {
        for part in token.split('.').skip(1) {
            assert!(!log.contains(part), "a token is in the log");
        }
    }
    assert!(!log.contains(SECRET));
}

/// A server of keys, whose answer can be changed.
async fn key_server(keys: Arc<Mutex<Option<Value>>>) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/keys?secret=s3cr3t", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = vec![0; 4096];
            let _ = stream.read(&mut request).await;
            let keys = keys.lock().unwrap().clone();
            let (status, body) = match keys {
                Some(keys) => ("200 OK", json!({"keys": keys}).to_string()),
                None => ("503 Service Unavailable", "later".to_owned()),
            };
            let answer = format!(
                "HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                body.len()
            );
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    url
}

#[tokio::test]
async fn keys_are_fetched_and_rotated() {
    let keys = Arc::new(Mutex::new(None));
    let url = key_server(keys.clone()).await;
    let gateway = Gateway::start(&[("JWKS_URL", url.as_str()), ("HEARTBEAT_MS", "60000")]);
    let claims = json!({"sub": "ada", "exp": second() + 600, "rooms": {}});
    let old = signed_by("rsa", "k1", &claims);
    let new = signed_by("other", "k2", &claims);
    // Without keys nobody is believed, nor refused for good.
    assert_eq!(
        Client::request(request(&gateway, &format!("?token={old}"), &[]))
            .await
            .err(),
        Some(503)
    );
    *keys.lock().unwrap() = Some(json!([jwk("rsa", "k1"), {"kty": "oct", "k": "AAAA", "kid": "k3"}]));
    let wait_for = async |token: &str, status: Option<u16>| {
        let until = tokio::time::Instant::now() + Duration::from_secs(30);
        loop {
            let answer = Client::request(request(&gateway, &format!("?token={token}"), &[])).await;
            if answer.err() == status {
                return;
            }
            assert!(
                tokio::time::Instant::now() < until,
                "still not {status:?}\n{}",
                gateway.log()
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    wait_for(&old, None).await;
    assert_eq!(
        Client::request(request(&gateway, &format!("?token={new}"), &[]))
            .await
            .err(),
        Some(401)
    );
    // A key of the set under another's name is none.
    let renamed = signed_by("other", "k1", &claims);
    assert_eq!(
        Client::request(request(&gateway, &format!("?token={renamed}"), &[]))
            .await
            .err(),
        Some(401)
    );
    // The new key is there with the next fetch that is allowed; the old one is gone with it.
    *keys.lock().unwrap() = Some(json!([jwk("other", "k2")]));
    wait_for(&new, None).await;
    assert_eq!(
        Client::request(request(&gateway, &format!("?token={old}"), &[]))
            .await
            .err(),
        Some(401)
    );
    // A fetch that fails changes nothing.
    *keys.lock().unwrap() = None;
    wait_for(&new, None).await;
    assert!(!gateway.log().contains("s3cr3t"), "{}", gateway.log());
}

#[tokio::test]
async fn a_key_that_is_not_in_the_set_is_fetched_once_and_then_refused() {
    let keys = Arc::new(Mutex::new(Some(json!([jwk("rsa", "k1")]))));
    let url = key_server(keys.clone()).await;
    let gateway = Gateway::start(&[("JWKS_URL", url.as_str()), ("HEARTBEAT_MS", "60000")]);
    gateway.ready().await;
    let claims = json!({"sub": "ada", "exp": second() + 600, "rooms": {"*": ["*"]}});
    let (good, strange) = (signed_by("rsa", "k1", &claims), signed_by("other", "k2", &claims));
    // No key of the set has this algorithm.
    let secret = signed(&claims);
    for bad in [&strange, &secret] {
        let mut client = Client::request(request(&gateway, "", &[])).await.unwrap();
        client.send_text(auth(bad)).await;
        let answer = client.until(|frame| frame.id.is_some()).await;
        assert_eq!(answer.data["code"], "unauthenticated", "{}", answer.data);
        assert_eq!(client.closed().await.0, 4002);
    }
    let mut client = Client::connect_with(gateway.addr, &good).await;
    client.ack("join", "lobby", json!({})).await;
    // What stands behind it in the same message is done under the token that stays.
    let after = json!({"id": "a2", "type": "message.send", "room": "lobby", "data": {"body": "hi"}});
    client.send_text(format!("[{},{after}]", auth(&strange))).await;
    let answer = client.until(|frame| frame.id.as_deref() == Some("a1")).await;
    assert_eq!(answer.data["code"], "unauthenticated", "{}", answer.data);
    client.ack("state.get", "lobby", json!({})).await;
    // The key is published, and the source is away when it is looked for: not known, so not refused for good.
    *keys.lock().unwrap() = None;
    let until = tokio::time::Instant::now() + Duration::from_secs(30);
    loop {
        client.send_text(auth(&strange)).await;
        let answer = client.until(|frame| frame.id.as_deref() == Some("a1")).await;
        if answer.data["code"] == "unavailable" {
            break;
        }
        assert_eq!(answer.data["code"], "unauthenticated", "{}", answer.data);
        assert!(
            tokio::time::Instant::now() < until,
            "the keys are not asked for again"
        );
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    *keys.lock().unwrap() = Some(json!([jwk("other", "k2")]));
    loop {
        client.send_text(auth(&strange)).await;
        let answer = client.until(|frame| frame.id.as_deref() == Some("a1")).await;
        if answer.kind == "ack" {
            break;
        }
        assert_eq!(answer.data["code"], "unavailable", "{}", answer.data);
        assert!(
            tokio::time::Instant::now() < until + Duration::from_secs(30),
            "no new keys"
        );
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

#[tokio::test]
async fn a_join_that_waits_is_held_to_the_token_of_its_turn() {
    let gateway = gateway(&[]);
    let wide = token("ada", json!({"*": ["*"]}));
    let narrow = token("ada", json!({"lobby": ["join", "send"]}));
    let mut witness = Client::connect_with(gateway.addr, &token("bob", json!({"*": ["*"]}))).await;
    witness.ack("join", "cellar", json!({})).await;
    let mut client = Client::connect_with(gateway.addr, &wide).await;
    // The join waits while the first token is looked at, and by then the second one counts.
    let join = json!({"id": "j", "type": "join", "room": "cellar"});
    client
        .send_text(format!("[{},{join},{}]", auth(&wide), auth(&narrow)))
        .await;
    let answer = client.until(|frame| frame.id.as_deref() == Some("j")).await;
    assert_eq!(answer.data["code"], "forbidden", "{}", answer.data);
    let list = witness.ack("users.list", "cellar", json!({})).await;
    assert_eq!(list["total"], 1, "{list}");
    // A wider one opens it again, and the connection counts as any other.
    client.send_text(auth(&wide)).await;
    client.until(|frame| frame.id.as_deref() == Some("a1")).await;
    client.ack("join", "cellar", json!({})).await;
    witness.ack("message.send", "cellar", json!({"body": "hi"})).await;
    client.event("message.sent", "cellar").await;
}

#[tokio::test]
async fn what_waits_goes_by_the_token_that_is_there_when_its_turn_comes() {
    let gateway = gateway(&[]);
    let part = |value: String| serde_json::from_str::<Value>(&value).unwrap();
    let wide = token("ada", json!({"a": ["join", "send"], "b": ["join"]}));
    let narrow = token("ada", json!({"b": ["join"]}));
    let join = |id: &str, room: &str| json!({"id": id, "type": "join", "room": room, "data": {}});
    let send = json!({"id": "m", "type": "message.send", "room": "a", "data": {"body": 1}});
    let mut client = Client::request(request(&gateway, "", &[])).await.unwrap();
    // After its first token the connection is held, so what follows in the frame waits.
    let frame = json!([
        part(auth(&wide)),
        join("a", "a"),
        send,
        join("b", "b"),
        part(auth(&narrow))
    ]);
    client.send_text(frame.to_string()).await;
    for (id, code) in [("a", Some("forbidden")), ("m", Some("forbidden")), ("b", None)] {
        let answer = client.until(|frame| frame.id.as_deref() == Some(id)).await;
        assert_eq!(answer.data["code"].as_str(), code, "{id}: {}", answer.data);
    }
    let mut other = Client::connect_with(gateway.addr, &token("bob", json!({"*": ["join", "send"]}))).await;
    assert_eq!(other.ack("join", "a", json!({})).await["members"], 1);
    assert_eq!(other.ack("join", "b", json!({})).await["members"], 2);
    // Narrower and wider again: the join that comes after it is one of its own.
    let mut client = Client::request(request(&gateway, "", &[])).await.unwrap();
    let frame = json!([
        part(auth(&wide)),
        join("1", "a"),
        part(auth(&narrow)),
        part(auth(&wide)),
        join("2", "a")
    ]);
    client.send_text(frame.to_string()).await;
    for (id, code) in [("1", Some("forbidden")), ("2", None)] {
        let answer = client.until(|frame| frame.id.as_deref() == Some(id)).await;
        assert_eq!(answer.data["code"].as_str(), code, "{id}: {}", answer.data);
    }
    other.ack("message.send", "a", json!({"body": 2})).await;
    client.event("message.sent", "a").await;
}

#[tokio::test]
async fn an_address_has_so_many_sockets_that_have_not_said_who_they_are() {
    let gateway = gateway(&[("MAX_CONNECTIONS_PER_IP", "2")]);
    let silent = async || Client::request(request(&gateway, "", &[])).await;
    let (mut one, _two) = (silent().await.unwrap(), silent().await.unwrap());
    assert_eq!(silent().await.err(), Some(503));
    one.send_text(auth(&token("ada", json!({})))).await;
    one.read_welcome().await;
    silent().await.unwrap();
}
