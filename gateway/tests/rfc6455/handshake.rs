//! The opening handshake over raw TCP (RFC 6455, 4).

use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::*;
use crate::support::raw::{DEADLINE, Response, request, text};

/// The answer to a request.
async fn ask(request: impl AsRef<[u8]>) -> Response {
    Ws::handshake(&gateway(), request).await.0
}

/// The right request with one part of it replaced.
fn with(from: &str, to: &str) -> String {
    let right = request("/ws", "");
    assert!(right.contains(from), "{from}");
    right.replacen(from, to, 1)
}

#[tokio::test]
async fn a_right_request_is_answered_as_the_rfc_says() {
    for path in ["/ws", "/echo", "/ws?user=u-7&name=Ada"] {
        let response = ask(request(path, "")).await;
        assert_eq!(response.status, 101, "{path}");
        assert_eq!(
            response.header("sec-websocket-accept"),
            Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")
        );
        assert_eq!(
            response.header("upgrade").map(str::to_lowercase).as_deref(),
            Some("websocket")
        );
        assert_eq!(
            response.header("connection").map(str::to_lowercase).as_deref(),
            Some("upgrade")
        );
        assert_eq!(response.header("sec-websocket-protocol"), None);
        assert_eq!(response.header("sec-websocket-extensions"), None);
    }
}

#[tokio::test]
async fn names_and_tokens_are_taken_in_any_case_and_in_lists() {
    for (from, to) in [
        ("Upgrade: websocket", "UPGRADE: WebSocket"),
        ("Connection: Upgrade", "Connection: keep-alive, Upgrade"),
        ("Connection: Upgrade", "connection:keep-alive,upgrade"),
        (
            "Connection: Upgrade",
            "Connection: keep-alive\r\nConnection: Upgrade",
        ),
        ("Sec-WebSocket-Key: ", "sec-websocket-key:   "),
        ("Sec-WebSocket-Version:", "SEC-WEBSOCKET-VERSION:"),
    ] {
        assert_eq!(ask(with(from, to)).await.status, 101, "{to}");
    }
}

#[tokio::test]
async fn what_is_no_upgrade_is_refused() {
    for (from, to) in [
        ("Upgrade: websocket\r\n", ""),
        ("Upgrade: websocket", "Upgrade: h2c"),
        ("Connection: Upgrade\r\n", ""),
        ("Connection: Upgrade", "Connection: close"),
        ("GET /ws HTTP/1.1", "GET /ws HTTP/1.0"),
        ("Host: gateway.test\r\n", ""),
    ] {
        let status = ask(with(from, to)).await.status;
        assert!(matches!(status, 400 | 426 | 505), "{status}: {to}");
    }
    for method in ["POST", "PUT", "HEAD", "OPTIONS"] {
        let status = ask(with("GET", method)).await.status;
        assert!(matches!(status, 400 | 404 | 405 | 426), "{status}: {method}");
    }
}

#[tokio::test]
async fn another_version_is_told_the_right_one() {
    for version in ["8", "0", "14", "13, 8", "x", ""] {
        let response = ask(with("Version: 13", &format!("Version: {version}"))).await;
        assert!(
            matches!(response.status, 400 | 426),
            "{}: {version}",
            response.status
        );
        assert_eq!(response.header("sec-websocket-version"), Some("13"), "{version}");
    }
    let response = ask(with("Sec-WebSocket-Version: 13\r\n", "")).await;
    assert!(matches!(response.status, 400 | 426), "{}", response.status);
}

#[tokio::test]
async fn a_key_has_16_bytes_in_base64() {
    assert_eq!(
        ask(with("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", ""))
            .await
            .status,
        400
    );
    for key in [
        "",
        "short",
        "dGhlIHNhbXBsZSBub25jZQ",
        "dGhlIHNhbXBsZQ==",
        "!!!!IHNhbXBsZSBub25jZQ==",
        &"A".repeat(64),
    ] {
        assert_eq!(
            ask(with("dGhlIHNhbXBsZSBub25jZQ==", key)).await.status,
            400,
            "{key:?}"
        );
    }
}

#[tokio::test]
async fn a_user_or_name_that_is_none_is_refused() {
    let long = "u".repeat(129);
    for query in [
        "user=",
        "user=a%0Ab",
        "user=a%00",
        "user=%E2%80%AE",
        "name=a%0D%0Ab",
        &format!("user={long}"),
    ] {
        assert_eq!(
            ask(request(&format!("/ws?{query}"), "")).await.status,
            400,
            "{query}"
        );
    }
}

#[tokio::test]
async fn the_subprotocol_is_echoed_when_it_was_offered() {
    for offer in [
        "Sec-WebSocket-Protocol: roomgate.v1\r\n",
        "Sec-WebSocket-Protocol: other, roomgate.v1\r\n",
        "Sec-WebSocket-Protocol: roomgate.v1,roomgate.v2\r\n",
        "Sec-WebSocket-Protocol: other\r\nSec-WebSocket-Protocol: roomgate.v1\r\n",
    ] {
        let response = ask(request("/ws", offer)).await;
        assert_eq!(response.status, 101, "{offer}");
        assert_eq!(
            response.header("sec-websocket-protocol"),
            Some("roomgate.v1"),
            "{offer}"
        );
    }
}

#[tokio::test]
async fn only_other_subprotocols_are_refused() {
    for offer in [
        "roomgate.v2",
        "graphql-ws, mqtt",
        "bearer.abc.def.ghi",
        "roomgate.v11",
        "Roomgate.V1",
        "roomgate.v1x,x",
    ] {
        let response = ask(request("/ws", &format!("Sec-WebSocket-Protocol: {offer}\r\n"))).await;
        assert_eq!(response.status, 400, "{offer}");
    }
}

#[tokio::test]
async fn a_foreign_origin_is_refused() {
    for origin in [
        "https://evil.test",
        "http://gateway.test.evil.test",
        "http://evil.test/gateway.test",
        "null",
    ] {
        let response = ask(request("/ws", &format!("Origin: {origin}\r\n"))).await;
        assert_eq!(response.status, 403, "{origin}");
    }
    let response = ask(request("/ws", "Origin: http://gateway.test\r\n")).await;
    assert_eq!(response.status, 101, "one's own origin");
}

#[tokio::test]
async fn frames_right_behind_the_request_are_not_lost() {
    for count in [1, 500] {
        let mut sent = request("/echo", "").into_bytes();
        for i in 0..count {
            sent.extend(text(format!("early {i}")).bytes());
        }
        let (response, mut ws) = Ws::handshake(&gateway(), sent).await;
        assert_eq!(response.status, 101);
        for i in 0..count {
            ws.expect_text(&format!("early {i}")).await;
        }
        ws.expect_alive().await;
    }
}

#[tokio::test]
async fn half_a_frame_behind_the_request_is_not_lost() {
    let frame = text("cut in two").bytes();
    for at in 1..frame.len() {
        let sent = [request("/echo", "").as_bytes(), &frame[..at]].concat();
        let (response, mut ws) = Ws::handshake(&gateway(), sent).await;
        assert_eq!(response.status, 101);
        ws.send_bytes(&frame[at..]).await;
        ws.expect_text("cut in two").await;
    }
}

#[tokio::test]
async fn a_request_in_pieces_is_put_together() {
    let mut ws = Ws::dial(&gateway()).await;
    ws.send_chopped(request("/echo", "").as_bytes(), 1).await;
    assert_eq!(ws.response().await.unwrap().status, 101);
    ws.expect_alive().await;
}

#[tokio::test]
async fn a_connection_that_has_served_a_page_may_become_a_websocket() {
    let mut sent = b"GET /nothing-here HTTP/1.1\r\nHost: gateway.test\r\n\r\n".to_vec();
    let mut ws = Ws::dial(&gateway()).await;
    ws.send_bytes(&sent).await;
    let response = ws.response().await.unwrap();
    assert_eq!(response.status, 404);
    ws.skip(response.header("content-length").unwrap().parse().unwrap())
        .await;
    sent = request("/echo", "").into_bytes();
    sent.extend(text("early").bytes());
    ws.send_bytes(&sent).await;
    assert_eq!(ws.response().await.unwrap().status, 101);
    ws.expect_text("early").await;
    ws.finish().await;
}

#[tokio::test]
async fn a_request_never_finished_is_ended_within_the_timeout() {
    let gateway = start(&[("HANDSHAKE_TIMEOUT_MS", "500")]);
    let right = request("/ws", "");
    let page = "GET /nothing-here HTTP/1.1\r\nHost: gateway.test\r\n\r\n";
    for part in ["", "GET", &right[..right.len() - 2], page] {
        let mut ws = Ws::dial(&gateway).await;
        ws.send_bytes(part.as_bytes()).await;
        // An answer may come first.
        while ws.response().await.is_some() {}
    }
    // A byte now and then does not prolong it.
    let mut ws = Ws::dial(&gateway).await;
    let (begun, mut sent) = (
        Instant::now(),
        "GET /ws HTTP/1.1\r\nHost: a\r\nX-Slow: ".to_owned(),
    );
    loop {
        ws.send_bytes(sent.as_bytes()).await;
        sent = "x".to_owned();
        // An answer such as 408 may come before the end.
        if let Ok(None) = timeout(Duration::from_millis(50), ws.response()).await {
            break;
        }
        assert!(begun.elapsed() < DEADLINE, "a slow request is still read");
    }
    // And the timeout is over with the handshake.
    let mut ws = Ws::open(&gateway, "/echo").await;
    assert!(
        timeout(Duration::from_millis(1500), ws.next()).await.is_err(),
        "a connection outlives the timeout"
    );
    ws.expect_alive().await;
}

#[tokio::test]
async fn headers_without_end_are_refused() {
    let large = format!("X-Large: {}\r\n", "x".repeat(1024 * 1024));
    let many: String = (0..5000).map(|i| format!("X-{i}: x\r\n")).collect();
    for more in [large, many] {
        let mut ws = Ws::dial(&gateway()).await;
        ws.send_bytes(request("/ws", &more).as_bytes()).await;
        // The rest of the request may be thrown away with the connection.
        if let Some(response) = ws.response().await {
            assert!(matches!(response.status, 400 | 431), "{}", response.status);
        }
    }
}

#[tokio::test]
async fn what_is_no_http_is_refused() {
    for junk in [
        "\r\n\r\n\r\n\r\nGET\r\n\r\n",
        "\x16\x03\x01\x02\x00\x01\x00\x01\u{fc}\x03\x03\r\n\r\n",
        "GET /ws\r\n\r\n",
    ] {
        let mut ws = Ws::dial(&gateway()).await;
        ws.send_bytes(junk.as_bytes()).await;
        if let Some(response) = ws.response().await {
            assert!(
                matches!(response.status, 400 | 505),
                "{}: {junk:?}",
                response.status
            );
        }
    }
}

#[tokio::test]
async fn the_echo_route_is_there_only_for_tests() {
    let gateway = start(&[("TEST_ECHO", "false")]);
    assert_eq!(Ws::handshake(&gateway, request("/echo", "")).await.0.status, 404);
    assert_eq!(Ws::handshake(&gateway, request("/ws", "")).await.0.status, 101);
    assert_eq!(Ws::handshake(&gateway, request("/wss", "")).await.0.status, 404);
}
