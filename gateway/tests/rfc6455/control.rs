//! Pings and pongs (RFC 6455, 5.5; Autobahn 2).

use super::*;
use crate::support::raw::{Length, close, ping, pong, text};

#[tokio::test]
async fn a_ping_is_answered_with_its_payload() {
    for length in 0..=125 {
        let mut ws = echo().await;
        let payload: Vec<u8> = (0..length).map(|i| 255 - i as u8).collect();
        ws.send(&[ping(&payload)]).await;
        ws.expect(Got::Pong(payload)).await;
        ws.finish().await;
    }
    answered(&[ping([0xfe; 125])], &[Got::Pong(vec![0xfe; 125])]).await;
}

#[tokio::test]
async fn a_control_frame_over_125_bytes_is_refused() {
    for frame in [
        ping([b'x'; 126]),
        pong([b'x'; 126]),
        close(1000, [b'x'; 124]),
        ping([b'x'; 70_000]),
    ] {
        refused(&[text("before"), frame], &[got_text("before")], 1002).await;
    }
    // By its head alone: the payload need not come.
    refused(&[ping("").length(Length::Medium(126))], &[], 1002).await;
    refused(&[ping("").length(Length::Long(1 << 40))], &[], 1002).await;
}

#[tokio::test]
async fn a_control_frame_that_is_not_final_is_refused() {
    for frame in [ping("a"), ping(""), pong("a"), close(1000, "")] {
        refused(&[text("before"), frame.part()], &[got_text("before")], 1002).await;
    }
}

#[tokio::test]
async fn pongs_that_nobody_asked_for_are_passed_over() {
    let frames = [
        pong(""),
        pong("unsolicited"),
        pong([0xff; 125]),
        ping("p"),
        pong("p"),
    ];
    answered(&frames, &[Got::Pong(b"p".to_vec())]).await;
}

#[tokio::test]
async fn each_of_many_pings_is_answered_in_order() {
    let frames: Vec<Out> = (0..10).map(|i| ping(format!("payload {i}"))).collect();
    let answers: Vec<Got> = (0..10)
        .map(|i| Got::Pong(format!("payload {i}").into_bytes()))
        .collect();
    answered(&frames, &answers).await;
}

#[tokio::test]
async fn pongs_and_messages_keep_their_order() {
    let frames = [text("1"), ping("2"), text("3"), pong("x"), ping("4"), text("5")];
    let answers = [
        got_text("1"),
        Got::Pong(b"2".to_vec()),
        got_text("3"),
        Got::Pong(b"4".to_vec()),
        got_text("5"),
    ];
    answered(&frames, &answers).await;
}
