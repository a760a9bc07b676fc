//! Messages in fragments (RFC 6455, 5.4; Autobahn 5).

use super::*;
use crate::support::raw::{binary, close, more, ping, pong, text};

#[tokio::test]
async fn fragments_are_one_message() {
    let frames = [text("frag").part(), more("ment").part(), more("s")];
    answered(&frames, &[got_text("fragments")]).await;
    let frames = [binary([0xff, 0]).part(), more([0xfe]).part(), more([1])];
    answered(&frames, &[Got::Binary(vec![0xff, 0, 0xfe, 1])]).await;
    answered(&[text("a").part(), more("")], &[got_text("a")]).await;
}

#[tokio::test]
async fn empty_fragments_are_fragments() {
    let frames = [text("").part(), more("").part(), more("")];
    answered(&frames, &[got_text("")]).await;
    let frames = [text("").part(), more("middle").part(), more("")];
    answered(&frames, &[got_text("middle")]).await;
    answered(&[binary("").part(), more("")], &[Got::Binary(vec![])]).await;
}

#[tokio::test]
async fn control_frames_may_stand_between_fragments() {
    let frames = [
        text("frag").part(),
        ping("1"),
        more("ment").part(),
        pong("2"),
        ping("3"),
        more("s"),
        ping("4"),
    ];
    let answers = [
        Got::Pong(b"1".to_vec()),
        Got::Pong(b"3".to_vec()),
        got_text("fragments"),
        Got::Pong(b"4".to_vec()),
    ];
    answered(&frames, &answers).await;
}

#[tokio::test]
async fn one_message_follows_another() {
    let frames = [
        text("a").part(),
        more("b"),
        text("c"),
        binary("d").part(),
        ping("p"),
        more("e"),
        text("f").part(),
        more("g").part(),
        more("h"),
    ];
    let answers = [
        got_text("ab"),
        got_text("c"),
        Got::Pong(b"p".to_vec()),
        Got::Binary(b"de".to_vec()),
        got_text("fgh"),
    ];
    answered(&frames, &answers).await;
}

#[tokio::test]
async fn a_continuation_of_nothing_is_refused() {
    for frame in [more("a"), more(""), more("a").part(), more("").part()] {
        refused(&[frame.clone(), text("after")], &[], 1002).await;
        refused(
            &[text("before"), frame.clone(), text("after")],
            &[got_text("before")],
            1002,
        )
        .await;
        let frames = [text("a").part(), more("b"), frame, text("after")];
        refused(&frames, &[got_text("ab")], 1002).await;
    }
}

#[tokio::test]
async fn a_message_within_another_is_refused() {
    for frame in [text("b"), binary("b"), text("b").part(), text("")] {
        refused(&[text("a").part(), frame.clone()], &[], 1002).await;
        refused(&[binary("a").part(), more("a").part(), frame], &[], 1002).await;
    }
}

#[tokio::test]
async fn a_close_within_a_message_ends_it() {
    for size in [usize::MAX, 1] {
        let mut ws = echo().await;
        ws.send_chopped(&bytes(&[text("a").part(), close(1000, ""), more("b")]), size)
            .await;
        ws.expect(Got::Close(Some(1000), String::new())).await;
        ws.expect(Got::End).await;
    }
}
