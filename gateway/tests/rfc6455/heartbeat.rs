//! The server's pings, and the end of those who do not answer.

use std::time::Duration;

use tokio::time::Instant;

use super::*;
use crate::support::raw::{DEADLINE, pong, text};

const HEARTBEAT: Duration = Duration::from_millis(300);

fn quick() -> Arc<Gateway> {
    start(&[("HEARTBEAT_MS", "300")])
}

async fn expect_ping(ws: &mut Ws) -> Vec<u8> {
    match ws.next().await {
        Got::Ping(payload) => payload,
        got => panic!("{got:?} instead of a ping"),
    }
}

#[tokio::test]
async fn silence_is_pinged_and_an_unanswered_ping_closes() {
    let gateway = quick();
    for path in ["/echo", "/ws"] {
        let mut ws = Ws::open(&gateway, path).await;
        let begun = Instant::now();
        if path == "/ws" {
            assert_eq!(ws.next_json().await["data"]["heartbeatMs"], 300);
        }
        expect_ping(&mut ws).await;
        assert!(
            begun.elapsed() >= HEARTBEAT / 2,
            "pinged after {:?}",
            begun.elapsed()
        );
        ws.expect_close(4201).await;
        assert!(begun.elapsed() >= HEARTBEAT, "closed after {:?}", begun.elapsed());
    }
}

#[tokio::test]
async fn an_answered_ping_keeps_the_connection() {
    let mut ws = Ws::open(&quick(), "/echo").await;
    for _ in 0..5 {
        let payload = expect_ping(&mut ws).await;
        ws.send(&[pong(payload)]).await;
    }
    ws.expect_alive().await;
    ws.finish().await;
}

#[tokio::test]
async fn a_silent_peer_that_never_closes_is_let_go() {
    let mut ws = Ws::open(&quick(), "/echo").await;
    expect_ping(&mut ws).await;
    let got = ws.next().await;
    assert!(matches!(got, Got::Close(Some(4201), _)), "{got:?}");
    // No answer to the close, no FIN: the server ends by itself.
    assert_eq!(ws.next_within(2 * DEADLINE).await, Got::End);
}

#[tokio::test]
async fn traffic_is_a_sign_of_life() {
    let mut ws = Ws::open(&quick(), "/echo").await;
    let begun = Instant::now();
    let mut pings = 0;
    // Every echo is a round trip, so there is no silence; a ping now and then would do no harm.
    while begun.elapsed() < 5 * HEARTBEAT {
        ws.send(&[text("busy")]).await;
        loop {
            match ws.next().await {
                Got::Text(_) => break,
                Got::Ping(_) => pings += 1,
                got => panic!("{got:?} instead of an echo"),
            }
        }
    }
    assert!(pings <= 5, "{pings} pings in five heartbeats");
    ws.expect_alive().await;
}

/// The same timer serves the heartbeat and the end of tokens: what comes between a ping and its answer is not silence.
#[tokio::test]
async fn a_notice_between_a_ping_and_its_answer_ends_nothing() {
    use crate::support::tokens::{SECRET, signed};
    let gateway = start(&[
        ("AUTH_MODE", "jwt"),
        ("JWT_SECRET", SECRET),
        ("JWT_LEEWAY_SECONDS", "0"),
        ("HEARTBEAT_MS", "2000"),
    ]);
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs_f64();
    // Told 60 s before its end: half a second after the ping.
    let token = signed(&serde_json::json!({"sub": "ada", "exp": now + 62.5}));
    let mut ws = Ws::open(&gateway, &format!("/ws?token={token}")).await;
    assert_eq!(ws.next_json().await["type"], "welcome");
    let payload = expect_ping(&mut ws).await;
    assert_eq!(ws.next_json().await["type"], "token.expiring");
    ws.send(&[pong(payload)]).await;
    ws.send(&[text(r#"{"id":"p","type":"ping"}"#)]).await;
    assert_eq!(ws.next_json().await["type"], "pong");
}
