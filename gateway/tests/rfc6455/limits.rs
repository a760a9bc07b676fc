//! The cap on a message, and memory under clients that never end one.

use std::time::Duration;

use tokio::{io::AsyncWriteExt, time::timeout};

use super::*;
use crate::support::raw::{Length, binary, more, ping, text};

/// `MAX_FRAME_BYTES`.
const MAX: usize = 1024 * 1024;
/// What a flood may add to the memory of a gateway.
const GROWTH: u64 = 16 * 1024 * 1024;

/// A payload in fragments of `size`.
fn fragments(payload: &[u8], size: usize) -> Vec<u8> {
    let chunks = payload.chunks(size);
    let last = chunks.len() - 1;
    let mut out = Vec::new();
    for (i, chunk) in chunks.enumerate() {
        let frame = if i == 0 { binary(chunk) } else { more(chunk) };
        out.extend(if i == last { frame } else { frame.part() }.bytes());
    }
    out
}

#[tokio::test]
async fn a_message_of_the_cap_fits() {
    let payload = "m".repeat(MAX);
    let mut ws = echo().await;
    ws.send(&[text(&payload)]).await;
    ws.expect(got_text(&payload)).await;
    ws.send(&[binary(&payload)]).await;
    ws.expect(Got::Binary(payload.clone().into_bytes())).await;
    for size in [1, 1000, 65_536, MAX - 1] {
        ws.send_bytes(&fragments(payload.as_bytes(), size)).await;
        ws.expect(Got::Binary(payload.clone().into_bytes())).await;
    }
    ws.finish().await;
}

#[tokio::test]
async fn one_byte_more_is_too_big() {
    let payload = "m".repeat(MAX + 1);
    for sent in [
        text(&payload).bytes(),
        binary(&payload).bytes(),
        fragments(payload.as_bytes(), 1),
        fragments(payload.as_bytes(), 1000),
        fragments(payload.as_bytes(), MAX),
    ] {
        let mut ws = echo().await;
        ws.send(&[text("before")]).await;
        ws.expect_text("before").await;
        ws.send_bytes(&sent).await;
        ws.expect_close(1009).await;
    }
}

#[tokio::test]
async fn a_declared_length_is_too_big_before_its_payload_comes() {
    for length in [MAX as u64 + 1, 1 << 32, (1 << 63) - 1] {
        refused(&[text("").length(Length::Long(length))], &[], 1009).await;
    }
    let half = "m".repeat(MAX / 2);
    let over = more("").length(Length::Long(MAX as u64 / 2 + 1));
    let mut ws = echo().await;
    ws.send(&[text(&half).part(), ping("between"), over]).await;
    ws.expect(Got::Pong(b"between".to_vec())).await;
    ws.expect_close(1009).await;
}

#[tokio::test]
async fn a_message_after_a_large_one_is_no_larger() {
    let payload = vec![b'm'; MAX];
    let mut ws = echo().await;
    for _ in 0..3 {
        ws.send_bytes(&fragments(&payload, 300_000)).await;
        ws.expect(Got::Binary(payload.clone())).await;
    }
    ws.send(&[text("small")]).await;
    ws.expect_text("small").await;
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_message_that_never_ends_is_closed_and_costs_little() {
    const TOTAL: usize = 200 * 1024 * 1024;
    let gateway = start(&[]);
    for size in [1, 100, 65_536] {
        let mut ws = Ws::open(&gateway, "/echo").await;
        let before = gateway.resident_bytes();
        ws.send(&[binary("begin").part()]).await;
        let chunk = more(vec![b'm'; size]).part().bytes().repeat(65_536 / size);
        let written = ws.flood(&chunk, TOTAL).await;
        assert!(written < TOTAL, "200 MB were taken in fragments of {size}");
        ws.expect_close(1009).await;
        let growth = gateway.resident_bytes().saturating_sub(before);
        assert!(growth < GROWTH, "{growth} bytes for fragments of {size}");
    }
    Ws::open(&gateway, "/echo").await.expect_alive().await;
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn many_declared_lengths_cost_nothing_until_their_payload_comes() {
    let gateway = start(&[]);
    Ws::open(&gateway, "/echo").await.expect_alive().await;
    let before = gateway.resident_bytes();
    let mut all = Vec::new();
    for _ in 0..200 {
        let mut ws = Ws::open(&gateway, "/echo").await;
        ws.send(&[ping("p"), binary("x").length(Length::Long(MAX as u64))])
            .await;
        ws.expect(Got::Pong(b"p".to_vec())).await;
        all.push(ws);
    }
    let growth = gateway.resident_bytes().saturating_sub(before);
    assert!(growth < GROWTH, "{growth} bytes for 200 heads");
}

/// Fragments without a byte in them never reach the cap, so they must cost nothing and hinder nobody.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_million_empty_fragments_cost_nothing_and_hinder_nobody() {
    let gateway = start(&[]);
    let mut other = Ws::open(&gateway, "/echo").await;
    other.expect_alive().await;
    let mut ws = Ws::open(&gateway, "/echo").await;
    ws.send(&[text("be").part()]).await;
    let before = gateway.resident_bytes();
    let chunk = more("").part().bytes().repeat(10_000);
    let mut closed = false;
    for round in 0..100 {
        let written = ws.flood(&chunk, chunk.len()).await;
        other.send(&[text(format!("round {round}"))]).await;
        other.expect_text(&format!("round {round}")).await;
        closed = written < chunk.len();
        if closed {
            break;
        }
    }
    let growth = gateway.resident_bytes().saturating_sub(before);
    assert!(growth < GROWTH, "{growth} bytes for fragments of nothing");
    if closed {
        // A gateway may call it a flood.
        let got = ws.next().await;
        assert!(matches!(got, Got::Close(Some(1002 | 1008 | 1009), _)), "{got:?}");
    } else {
        ws.send(&[more("gin")]).await;
        ws.expect_text("begin").await;
        ws.expect_alive().await;
    }
}

/// Sends `chunk` again and again to a gateway of its own and reads nothing, then asserts that this has cost little, that
/// others are served, and that the connection, if it was ended, was ended as a slow reader's.
#[cfg(target_os = "linux")]
async fn unread(path: &str, chunk: &[u8]) {
    const TOTAL: usize = 64 * 1024 * 1024;
    let gateway = start(&[]);
    let mut other = Ws::open(&gateway, "/echo").await;
    other.expect_alive().await;
    let mut deaf = Ws::open(&gateway, path).await;
    let (before, mut growth, mut written) = (gateway.resident_bytes(), 0, 0);
    while written < TOTAL {
        // A gateway may also stop reading.
        let write = timeout(Duration::from_secs(1), deaf.stream().write_all(chunk)).await;
        if !matches!(write, Ok(Ok(()))) {
            break;
        }
        written += chunk.len();
        growth = growth.max(gateway.resident_bytes().saturating_sub(before));
    }
    assert!(
        growth < GROWTH,
        "{growth} bytes for {written} whose answers nobody reads"
    );
    other.expect_alive().await;
    loop {
        match timeout(Duration::from_secs(1), deaf.next()).await {
            Ok(Got::Close(code, _)) => {
                assert_eq!(code, Some(4200));
                break;
            }
            Ok(Got::Text(_) | Got::Binary(_) | Got::Pong(_)) => {}
            Ok(Got::End | Got::Reset) | Err(_) => break,
            Ok(got) => panic!("{got:?}"),
        }
    }
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn large_answers_that_nobody_reads_cost_little() {
    unread("/echo", &binary(vec![b'm'; 60_000]).bytes()).await;
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn tiny_answers_that_nobody_reads_cost_little() {
    unread("/echo", &ping("").bytes().repeat(10_000)).await;
    unread("/echo", &ping("p").bytes().repeat(10_000)).await;
    unread("/echo", &text("").bytes().repeat(10_000)).await;
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn answers_to_commands_that_nobody_reads_cost_little() {
    let batch = format!("[{}]", vec![r#"{"type":"ping"}"#; 64].join(","));
    unread("/ws", &text(batch).bytes().repeat(50)).await;
}
