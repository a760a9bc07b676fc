//! What `/ws` adds to RFC 6455: the first frame, frames that are no commands, and their end.

use serde_json::{Value, json};

use super::*;
use crate::support::raw::{binary, more, ping, text};

/// A connection that has had its welcome.
async fn welcomed() -> Ws {
    let mut ws = Ws::open(&gateway(), "/ws").await;
    assert_eq!(ws.next_json().await["type"], "welcome");
    ws
}

/// Asserts that the next frame is an error with this code and id.
async fn expect_error(ws: &mut Ws, code: &str, id: Option<&str>) {
    let frame = ws.next_json().await;
    assert_eq!(frame["type"], "error", "{frame}");
    assert_eq!(frame["data"]["code"], code, "{frame}");
    assert_eq!(frame["data"]["retryable"], Value::Bool(false), "{frame}");
    assert!(
        frame["data"]["message"]
            .as_str()
            .is_some_and(|message| !message.is_empty()),
        "{frame}"
    );
    assert_eq!(frame.get("id").and_then(Value::as_str), id, "{frame}");
}

/// Asserts that the connection still takes commands.
async fn expect_pong(ws: &mut Ws) {
    ws.send(&[text(r#"{"id":"still-here","type":"ping"}"#)]).await;
    let frame = ws.next_json().await;
    assert_eq!(
        (&frame["type"], &frame["id"]),
        (&json!("pong"), &json!("still-here")),
        "{frame}"
    );
    assert!(
        frame["data"]["serverTime"].as_u64() > Some(1_700_000_000_000),
        "{frame}"
    );
}

#[tokio::test]
async fn the_first_frame_is_welcome() {
    let mut ws = Ws::open(&gateway(), "/ws?user=u-7&name=Zo%C3%AB").await;
    let frame = ws.next_json().await;
    assert_eq!(frame["type"], "welcome");
    let data = &frame["data"];
    assert_eq!(data["protocol"], 1);
    assert_eq!(data["user"], json!({"id": "u-7", "name": "Zoë"}));
    assert_eq!(data["heartbeatMs"], 60_000);
    assert_eq!(data["limits"]["maxFrameBytes"], 1024 * 1024);
    assert_eq!(data["limits"]["maxBatch"], 64);
    assert!(
        data["limits"]["maxRooms"].is_u64() && data["limits"]["maxMessageBytes"].is_u64(),
        "{data}"
    );
    assert!(
        data["connection"].as_str().is_some_and(|id| id.starts_with('c')),
        "{data}"
    );
    assert!(data["node"].as_str().is_some_and(|id| !id.is_empty()), "{data}");
    assert!(data["serverTime"].as_u64() > Some(1_700_000_000_000), "{data}");
    ws.finish().await;
}

#[tokio::test]
async fn connections_and_unnamed_users_are_distinct() {
    let (mut a, mut b) = (
        Ws::open(&gateway(), "/ws").await,
        Ws::open(&gateway(), "/ws").await,
    );
    let (a, b) = (a.next_json().await, b.next_json().await);
    assert_ne!(a["data"]["connection"], b["data"]["connection"]);
    assert_ne!(a["data"]["user"]["id"], b["data"]["user"]["id"]);
}

#[tokio::test]
async fn welcome_comes_before_the_answer_to_what_was_sent_with_the_handshake() {
    let mut sent = crate::support::raw::request("/ws", "").into_bytes();
    sent.extend(text(r#"{"id":"early","type":"ping"}"#).bytes());
    let (response, mut ws) = Ws::handshake(&gateway(), sent).await;
    assert_eq!(response.status, 101);
    assert_eq!(ws.next_json().await["type"], "welcome");
    let frame = ws.next_json().await;
    assert_eq!((&frame["type"], &frame["id"]), (&json!("pong"), &json!("early")));
}

#[tokio::test]
async fn binary_is_refused() {
    for frames in [
        &[binary("{}")][..],
        &[binary("")],
        &[binary("a").part(), more("b")],
    ] {
        let mut ws = welcomed().await;
        ws.send(frames).await;
        ws.expect_close(1003).await;
    }
}

#[tokio::test]
async fn bad_utf8_and_breaches_close() {
    let mut ws = welcomed().await;
    ws.send(&[text(b"{\"type\":\"p\xffng\"}")]).await;
    ws.expect_close(1007).await;
    let mut ws = welcomed().await;
    ws.send(&[text(r#"{"type":"ping"}"#).mask(None)]).await;
    ws.expect_close(1002).await;
}

#[tokio::test]
async fn a_frame_that_is_no_command_is_answered_and_the_connection_stays() {
    for frame in [
        "",
        "hello",
        "{",
        "null",
        "7",
        "[]",
        "{}",
        r#"{"type":7}"#,
        r#"{"type":"ping","id":"no good"}"#,
    ] {
        let mut ws = welcomed().await;
        ws.send(&[text(frame)]).await;
        expect_error(&mut ws, "bad_request", None).await;
        expect_pong(&mut ws).await;
    }
}

#[tokio::test]
async fn depth_32_is_read_and_33_is_not() {
    let nested = |levels: usize| {
        let inner = levels - 1;
        format!(
            r#"{{"id":"deep","type":"ping","x":{}{}}}"#,
            "[".repeat(inner),
            "]".repeat(inner)
        )
    };
    let mut ws = welcomed().await;
    ws.send(&[text(nested(32))]).await;
    assert_eq!(ws.next_json().await["type"], "pong");
    ws.send(&[text(nested(33))]).await;
    expect_error(&mut ws, "bad_request", None).await;
    ws.send(&[text("[".repeat(1024 * 1024))]).await;
    expect_error(&mut ws, "bad_request", None).await;
    expect_pong(&mut ws).await;
}

#[tokio::test]
async fn a_batch_of_64_is_answered_in_order_and_of_65_by_one_error() {
    let batch = |n: usize| {
        let commands: Vec<_> = (0..n)
            .map(|i| format!(r#"{{"id":"k{i}","type":"ping"}}"#))
            .collect();
        format!("[{}]", commands.join(","))
    };
    let mut ws = welcomed().await;
    ws.send(&[text(batch(64))]).await;
    for i in 0..64 {
        assert_eq!(ws.next_json().await["id"], format!("k{i}"));
    }
    ws.send(&[text(batch(65))]).await;
    expect_error(&mut ws, "bad_request", None).await;
    expect_pong(&mut ws).await;
}

#[tokio::test]
async fn an_unknown_type_is_no_fault_of_the_frame() {
    let mut ws = welcomed().await;
    // More of them than faults are allowed.
    for i in 0..30 {
        let id = format!("k{i}");
        ws.send(&[text(format!(r#"{{"id":"{id}","type":"fly"}}"#))]).await;
        expect_error(&mut ws, "unknown_type", Some(&id)).await;
    }
    expect_pong(&mut ws).await;
}

#[tokio::test]
async fn the_tenth_frame_that_is_no_command_closes() {
    for junk in ["hello", "[]", "{}"] {
        let mut ws = welcomed().await;
        for _ in 0..9 {
            ws.send(&[text(junk)]).await;
            expect_error(&mut ws, "bad_request", None).await;
            // What is right in between does not mend it.
            expect_pong(&mut ws).await;
        }
        ws.send(&[text(junk)]).await;
        // The tenth may have its error, too.
        let mut got = ws.next().await;
        if let Got::Text(frame) = &got {
            assert!(frame.contains("bad_request"), "{frame}");
            got = ws.next().await;
        }
        assert!(matches!(got, Got::Close(Some(4000), _)), "{got:?}");
        ws.send(&[crate::support::raw::close(4000, "")]).await;
        ws.expect(Got::End).await;
    }
}

#[tokio::test]
async fn commands_may_come_in_fragments_with_pings_between() {
    let mut ws = welcomed().await;
    ws.send(&[
        text(r#"{"id":"k1","ty"#).part(),
        ping("between"),
        more("").part(),
        more(r#"pe":"ping"}"#),
    ])
    .await;
    ws.expect(Got::Pong(b"between".to_vec())).await;
    assert_eq!(ws.next_json().await["id"], "k1");
    ws.finish().await;
}

#[tokio::test]
async fn the_cap_holds_for_commands() {
    let padded = |length: usize| {
        let (head, tail) = (r#"{"id":"k1","type":"ping","x":""#, r#""}"#);
        format!("{head}{}{tail}", "x".repeat(length - head.len() - tail.len()))
    };
    let mut ws = welcomed().await;
    ws.send(&[text(padded(1024 * 1024))]).await;
    assert_eq!(ws.next_json().await["type"], "pong");
    ws.send(&[text(padded(1024 * 1024 + 1))]).await;
    ws.expect_close(1009).await;
}

#[tokio::test]
async fn the_cap_is_a_setting_and_told_in_welcome() {
    let gateway = start(&[("MAX_FRAME_BYTES", "2048"), ("MAX_MESSAGE_BYTES", "1024")]);
    let mut ws = Ws::open(&gateway, "/ws").await;
    let limits = &ws.next_json().await["data"]["limits"];
    assert_eq!(
        (&limits["maxFrameBytes"], &limits["maxMessageBytes"]),
        (&json!(2048), &json!(1024))
    );
    let command = r#"{"type":"ping"}"#;
    ws.send(&[
        text(format!("{command:2048}")),
        text(format!("{command:2048}")).part(),
        more(""),
    ])
    .await;
    for _ in 0..2 {
        assert_eq!(ws.next_json().await["type"], "pong");
    }
    ws.send(&[text(format!("{command:2048}")).part(), more(" ")])
        .await;
    ws.expect_close(1009).await;
}
