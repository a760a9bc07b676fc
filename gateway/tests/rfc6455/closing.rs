//! Closes by the client (RFC 6455, 5.5.1 and 7; Autobahn 7).

use super::*;
use crate::support::raw::{CLOSE, close, more, ping, text};

/// Sends bytes, and asserts that these answers come, then the answer to the close, then the end.
async fn closes(frames: &[Out], answers: &[Got], code: Option<u16>) {
    for size in [usize::MAX, 1, 7] {
        let mut ws = echo().await;
        ws.send_chopped(&bytes(frames), size).await;
        for answer in answers {
            ws.expect(answer.clone()).await;
        }
        match ws.next().await {
            Got::Close(got, reason) => {
                // A code may be echoed or answered by 1000; a close without one by the same or by 1000.
                assert!(got == code || got == Some(1000), "{got:?} answers {code:?}");
                assert!(reason.len() <= 123);
            }
            got => panic!("{got:?} answers a close"),
        }
        ws.expect(Got::End).await;
    }
}

#[tokio::test]
async fn a_close_is_answered_and_tcp_ends() {
    closes(&[close(1000, "")], &[], Some(1000)).await;
    closes(&[close(1000, "bye")], &[], Some(1000)).await;
    closes(&[close(1000, "é".repeat(61) + "x")], &[], Some(1000)).await;
    closes(
        &[text("last words"), close(1000, "")],
        &[got_text("last words")],
        Some(1000),
    )
    .await;
}

#[tokio::test]
async fn a_close_without_a_code_is_answered_by_one_without_or_with_1000() {
    closes(&[Out::new(CLOSE, "")], &[], None).await;
}

#[tokio::test]
async fn a_close_of_one_byte_is_refused() {
    for byte in [0x00, 0x03, b'x', 0xff] {
        refused(&[Out::new(CLOSE, [byte])], &[], 1002).await;
    }
}

#[tokio::test]
async fn codes_that_may_be_sent_are_answered() {
    let registered = [
        1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014,
    ];
    for code in registered.into_iter().chain([3000, 3999, 4000, 4100, 4999]) {
        closes(&[close(code, "reason")], &[], Some(code)).await;
    }
}

#[tokio::test]
async fn codes_that_may_not_be_sent_are_refused() {
    for code in [
        0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 1999, 2000, 2999, 5000, 9999, 65_535,
    ] {
        refused(&[close(code, "")], &[], 1002).await;
        refused(
            &[text("before"), close(code, "reason")],
            &[got_text("before")],
            1002,
        )
        .await;
    }
}

#[tokio::test]
async fn a_reason_has_at_most_123_bytes() {
    closes(&[close(1000, [b'*'; 123])], &[], Some(1000)).await;
    refused(&[close(1000, [b'*'; 124])], &[], 1002).await;
}

#[tokio::test]
async fn nothing_after_a_close_is_answered() {
    closes(&[close(1000, ""), close(1000, "")], &[], Some(1000)).await;
    closes(&[close(1000, ""), ping("after")], &[], Some(1000)).await;
    closes(&[close(1000, ""), text("after")], &[], Some(1000)).await;
    closes(&[close(1000, ""), text("after").mask(None)], &[], Some(1000)).await;
    closes(
        &[close(1000, ""), Out::new(15, "after").reserved(7)],
        &[],
        Some(1000),
    )
    .await;
    closes(
        &[text("a").part(), close(1000, ""), more("b"), text("c")],
        &[],
        Some(1000),
    )
    .await;
}

#[tokio::test]
async fn much_data_after_a_close_does_not_reset_the_connection() {
    let mut ws = echo().await;
    let mut sent = close(1000, "").bytes();
    sent.extend(text("x".repeat(60_000)).bytes().repeat(5));
    ws.send_bytes(&sent).await;
    ws.expect(Got::Close(Some(1000), String::new())).await;
    ws.expect(Got::End).await;
}

#[tokio::test]
async fn a_close_behind_a_large_message_waits_for_its_answer() {
    let large = "*".repeat(256 * 1024);
    let mut ws = echo().await;
    ws.send(&[text(&large), close(1000, ""), ping("after")]).await;
    ws.expect(got_text(&large)).await;
    ws.expect(Got::Close(Some(1000), String::new())).await;
    ws.expect(Got::End).await;
}
