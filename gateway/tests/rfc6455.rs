//! RFC 6455 against a real gateway, byte by byte: what Autobahn's cases 1 to 7, 9 and 10 name, and what they miss.

#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![allow(
    clippy::wildcard_enum_match_arm,
    reason = "whatever else comes fails the test"
)]

mod support;

#[path = "rfc6455/closing.rs"]
mod closing;
#[path = "rfc6455/control.rs"]
mod control;
#[path = "rfc6455/ending.rs"]
mod ending;
#[path = "rfc6455/fragments.rs"]
mod fragments;
#[path = "rfc6455/framing.rs"]
mod framing;
#[path = "rfc6455/handshake.rs"]
mod handshake;
#[path = "rfc6455/heartbeat.rs"]
mod heartbeat;
#[path = "rfc6455/limits.rs"]
mod limits;
#[path = "rfc6455/protocol.rs"]
mod protocol;
#[path = "rfc6455/utf8.rs"]
mod utf8;

use std::sync::{Arc, Mutex, PoisonError, Weak};

use support::{
    process::Gateway,
    raw::{Got, Out, Ws, bytes},
};

/// A gateway of one's own, with settings beside the usual ones.
fn start(envs: &[(&str, &str)]) -> Arc<Gateway> {
    let usual = [
        ("AUTH_MODE", "anonymous"),
        ("TEST_ECHO", "true"),
        ("HEARTBEAT_MS", "60000"),
    ];
    Arc::new(Gateway::start(&[&usual, envs].concat()))
}

/// The gateway that the tests share: it lives while one of them holds it.
fn gateway() -> Arc<Gateway> {
    static RUNNING: Mutex<Weak<Gateway>> = Mutex::new(Weak::new());
    let mut running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
    running.upgrade().unwrap_or_else(|| {
        let gateway = start(&[]);
        *running = Arc::downgrade(&gateway);
        gateway
    })
}

/// A connection that gets back what it sends.
async fn echo() -> Ws {
    Ws::open(&gateway(), "/echo").await
}

/// Sends frames in every cut (one write, a byte a write, seven bytes a write), each on its own connection, and asserts
/// that these answers come and that the connection is well afterwards.
async fn answered(frames: &[Out], answers: &[Got]) {
    for size in [usize::MAX, 1, 7] {
        let mut ws = echo().await;
        ws.send_chopped(&bytes(frames), size).await;
        for answer in answers {
            ws.expect(answer.clone()).await;
        }
        ws.expect_alive().await;
        ws.finish().await;
    }
}

/// Sends frames in every cut, and asserts that these answers come and then a close with `code`.
async fn refused(frames: &[Out], answers: &[Got], code: u16) {
    for size in [usize::MAX, 1, 7] {
        let mut ws = echo().await;
        ws.send_chopped(&bytes(frames), size).await;
        for answer in answers {
            ws.expect(answer.clone()).await;
        }
        ws.expect_close(code).await;
    }
}

fn got_text(text: impl Into<String>) -> Got {
    Got::Text(text.into())
}
