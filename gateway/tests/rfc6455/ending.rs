//! How connections end: closes by the server, peers that vanish, and the order of TCP.

use std::time::Duration;

use tokio::{
    io::AsyncWriteExt,
    time::{Instant, timeout},
};

use super::*;
use crate::support::raw::{DEADLINE, close, ping, text};

/// How long a server may wait for the answer to its close.
const CLOSE: Duration = Duration::from_secs(20);

/// A connection to `/ws` that the server has just closed with 1003.
async fn closed_by_the_server() -> Ws {
    let mut ws = Ws::open(&gateway(), "/ws").await;
    assert_eq!(ws.next_json().await["type"], "welcome");
    ws.send(&[crate::support::raw::binary("")]).await;
    let got = ws.next().await;
    assert!(matches!(got, Got::Close(Some(1003), _)), "{got:?}");
    ws
}

#[tokio::test]
async fn the_server_waits_for_the_answer_to_its_close() {
    let mut ws = closed_by_the_server().await;
    // It must not end TCP at once: a client's data on its way would reset the connection.
    assert!(
        timeout(Duration::from_millis(200), ws.next()).await.is_err(),
        "the end came before the answer"
    );
    ws.send(&[close(1003, "")]).await;
    ws.expect(Got::End).await;
}

#[tokio::test]
async fn the_server_does_not_wait_for_ever() {
    let mut ws = closed_by_the_server().await;
    timeout(CLOSE, ws.stream().readable())
        .await
        .expect("the server still waits")
        .unwrap();
    ws.expect(Got::End).await;
}

#[tokio::test]
async fn a_client_that_goes_on_after_the_close_is_let_go() {
    let mut ws = closed_by_the_server().await;
    let begun = Instant::now();
    // Data, but no close: first FIN or a reset, in the end a failing write.
    loop {
        match timeout(
            Duration::from_millis(20),
            ws.stream().write_all(&text("still talking").bytes()),
        )
        .await
        {
            Ok(Err(_)) => break,
            Ok(Ok(())) | Err(_) => assert!(begun.elapsed() < 2 * CLOSE, "the server still reads"),
        }
        if timeout(Duration::from_millis(20), ws.next())
            .await
            .is_ok_and(|got| got == Got::Reset)
        {
            break;
        }
    }
}

#[tokio::test]
async fn nothing_is_answered_between_the_server_s_close_and_its_end() {
    let mut ws = closed_by_the_server().await;
    ws.send(&[text(r#"{"id":"k1","type":"ping"}"#), close(1003, "")])
        .await;
    ws.expect(Got::End).await;
}

/// Large and small, a breach is told: the close frame is not lost to a reset by what the client still sends.
#[tokio::test]
async fn the_close_arrives_though_the_client_goes_on_sending() {
    for behind in [0, 1, 1000, 100_000, 5_000_000] {
        let mut sent = text("breach").mask(None).bytes();
        sent.resize(sent.len() + behind, b'x');
        let mut ws = echo().await;
        ws.flood(&sent, 1).await;
        ws.expect_close(1002).await;
    }
}

#[tokio::test]
async fn a_peer_that_only_reads_any_more_is_let_go() {
    for path in ["/echo", "/ws"] {
        let mut ws = Ws::open(&gateway(), path).await;
        ws.send(&[text("last words")]).await;
        ws.stream().shutdown().await.unwrap();
        let begun = Instant::now();
        loop {
            match ws.next().await {
                Got::End | Got::Reset => break,
                _ => assert!(begun.elapsed() < DEADLINE),
            }
        }
    }
}

#[tokio::test]
async fn an_end_within_a_frame_is_an_end() {
    let frame = text("x".repeat(200)).bytes();
    for at in [1, 2, 4, 8, 100] {
        let mut ws = echo().await;
        ws.send_bytes(&frame[..at]).await;
        ws.stream().shutdown().await.unwrap();
        match ws.next().await {
            Got::End | Got::Reset => {}
            got => {
                assert!(matches!(got, Got::Close(Some(1002), _)), "{got:?}");
                ws.expect(Got::End).await;
            }
        }
    }
}

#[tokio::test]
async fn peers_that_vanish_leave_the_others_alone() {
    let gateway = gateway();
    let mut other = Ws::open(&gateway, "/echo").await;
    for i in 0..50 {
        let mut ws = Ws::open(&gateway, if i % 2 == 0 { "/ws" } else { "/echo" }).await;
        ws.send(&[ping("x"), text("y").part()]).await;
        // A reset, with frames of the server unread.
        ws.stream().set_zero_linger().unwrap();
        drop(ws);
    }
    other.expect_alive().await;
    other.finish().await;
}
