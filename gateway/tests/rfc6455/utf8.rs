//! Text is UTF-8 (RFC 6455, 8.1; Autobahn 6).

use super::*;
use crate::support::raw::{binary, close, more, text};

/// The Greek word of Autobahn's cases, then one character of each length.
const GOOD: &str = "κόσμε a é € 𐍈 \u{0} \u{7f} \u{80} \u{7ff} \u{800} \u{d7ff} \u{e000} \u{fffd} \u{fffe} \u{ffff} \u{10000} \u{10ffff}";

/// Sequences that are no UTF-8.
const BAD: &[&[u8]] = &[
    // A continuation byte by itself; a byte that never stands; a sequence cut short.
    b"\x80",
    b"\xbf",
    b"\xfe",
    b"\xff",
    b"\xc3",
    b"\xe2\x82",
    b"\xf0\x90\x8d",
    b"\xc3(",
    b"\xe2\x28\xa1",
    b"\xe2\x82\x28",
    b"\xf0\x28\x8c\xbc",
    b"\xf0\x90\x28\xbc",
    b"\xf0\x90\x8c\x28",
    // Longer than need be.
    b"\xc0\x80",
    b"\xc0\xaf",
    b"\xc1\xbf",
    b"\xe0\x80\xaf",
    b"\xe0\x9f\xbf",
    b"\xf0\x80\x80\xaf",
    b"\xf0\x8f\xbf\xbf",
    // Surrogates.
    b"\xed\xa0\x80",
    b"\xed\xaf\xbf",
    b"\xed\xb0\x80",
    b"\xed\xbf\xbf",
    b"\xed\xa0\x80\xed\xb0\x80",
    // Past U+10FFFF; of five and six bytes.
    b"\xf4\x90\x80\x80",
    b"\xf5\x80\x80\x80",
    b"\xf8\x88\x80\x80\x80",
    b"\xfc\x84\x80\x80\x80\x80",
    // Autobahn's: a word, a surrogate, a word.
    b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80\x65\x64\x69\x74\x65\x64",
];

#[tokio::test]
async fn good_text_comes_back() {
    answered(&[text(GOOD)], &[got_text(GOOD)]).await;
    for c in GOOD.chars() {
        let mut ws = echo().await;
        ws.send(&[text(c.to_string())]).await;
        ws.expect_text(&c.to_string()).await;
    }
}

#[tokio::test]
async fn a_character_may_be_split_between_fragments() {
    let mut ws = echo().await;
    for at in 0..=GOOD.len() {
        let (head, tail) = GOOD.as_bytes().split_at(at);
        ws.send(&[text(head).part(), more(tail)]).await;
        ws.expect_text(GOOD).await;
    }
    // One byte a fragment, with empty ones between.
    let mut frames = vec![text("").part()];
    for byte in GOOD.bytes() {
        frames.extend([more([byte]).part(), more("").part()]);
    }
    frames.push(more(""));
    answered(&frames, &[got_text(GOOD)]).await;
}

#[tokio::test]
async fn bad_text_is_refused() {
    for bad in BAD {
        refused(&[text("before"), text(bad)], &[got_text("before")], 1007).await;
    }
}

#[tokio::test]
async fn bad_text_among_good_text_is_refused() {
    for bad in BAD {
        let payload = [GOOD.as_bytes(), bad, GOOD.as_bytes()].concat();
        let mut ws = echo().await;
        ws.send(&[text(payload)]).await;
        ws.expect_close(1007).await;
    }
}

/// At the end of the message at the latest.
#[tokio::test]
async fn bad_text_in_fragments_is_refused() {
    for bad in BAD {
        for at in 0..=bad.len() {
            let (head, tail) = bad.split_at(at);
            let mut ws = echo().await;
            ws.send(&[text(head).part(), more("").part(), more(tail)]).await;
            ws.expect_close(1007).await;
        }
        refused(&[text(GOOD).part(), more(bad).part(), more(GOOD)], &[], 1007).await;
    }
}

#[tokio::test]
async fn a_message_that_ends_within_a_character_is_refused() {
    for whole in ["é", "€", "𐍈"] {
        for at in 1..whole.len() {
            refused(&[text(&whole.as_bytes()[..at])], &[], 1007).await;
            // The rest in a message of its own does not mend it.
            let (head, tail) = whole.as_bytes().split_at(at);
            refused(&[text("a").part(), more(head), text(tail)], &[], 1007).await;
        }
    }
}

#[tokio::test]
async fn binary_need_not_be_utf8() {
    for bad in BAD {
        let mut ws = echo().await;
        ws.send(&[binary(bad), binary("").part(), more(bad)]).await;
        ws.expect(Got::Binary(bad.to_vec())).await;
        ws.expect(Got::Binary(bad.to_vec())).await;
        ws.finish().await;
    }
}

#[tokio::test]
async fn the_reason_of_a_close_is_utf8() {
    for bad in BAD {
        refused(&[close(1000, bad)], &[], 1007).await;
    }
}
