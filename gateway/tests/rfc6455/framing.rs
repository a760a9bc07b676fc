//! Lengths, masks, reserved bits and opcodes (RFC 6455, 5.1 and 5.2; Autobahn 1, 3, 4 and 10).

use super::*;
use crate::support::raw::{Length, binary, close, more, ping, request, text};

#[tokio::test]
async fn text_of_every_form_of_length_comes_back() {
    for length in [0, 1, 125, 126, 127, 128, 65_535, 65_536, 65_537] {
        let payload = "*".repeat(length);
        for size in [usize::MAX, 997] {
            let mut ws = echo().await;
            ws.send_chopped(&text(&payload).bytes(), size).await;
            ws.expect(got_text(&payload)).await;
            ws.finish().await;
        }
    }
}

#[tokio::test]
async fn binary_of_every_form_of_length_comes_back() {
    for length in [0, 1, 125, 126, 127, 128, 65_535, 65_536, 65_537] {
        let payload: Vec<u8> = (0..length).map(|i| (i % 256) as u8).collect();
        for size in [usize::MAX, 997] {
            let mut ws = echo().await;
            ws.send_chopped(&binary(&payload).bytes(), size).await;
            ws.expect(Got::Binary(payload.clone())).await;
            ws.finish().await;
        }
    }
}

#[tokio::test]
async fn frames_cut_at_any_byte_are_put_together() {
    let frames = [
        text("a"),
        ping("p"),
        binary([0xff; 200]),
        text("é".repeat(70)),
        text(""),
    ];
    let answers = [
        got_text("a"),
        Got::Pong(b"p".to_vec()),
        Got::Binary(vec![0xff; 200]),
        got_text("é".repeat(70)),
        got_text(""),
    ];
    answered(&frames, &answers).await;
}

#[tokio::test]
async fn a_frame_cut_once_at_each_byte_is_put_together() {
    let mut ws = echo().await;
    let frame = text("x".repeat(130)).bytes();
    for at in 1..frame.len().min(20) {
        ws.send_bytes(&frame[..at]).await;
        // A round trip of another connection: the gateway has had its turn to read the first part.
        let mut other = Ws::open(ws.gateway(), "/echo").await;
        other.expect_alive().await;
        ws.send_bytes(&frame[at..]).await;
        ws.expect(got_text("x".repeat(130))).await;
    }
}

#[tokio::test]
async fn many_frames_in_one_write_come_back_in_order() {
    let mut ws = echo().await;
    let frames: Vec<Out> = (0..2000).map(|i| text(format!("message {i}"))).collect();
    ws.send(&frames).await;
    for i in 0..2000 {
        ws.expect_text(&format!("message {i}")).await;
    }
    ws.finish().await;
}

#[tokio::test]
async fn a_message_sent_in_many_fragments_comes_back_whole() {
    let payload: String = (0..65_536).map(|i| char::from(b'a' + (i % 26) as u8)).collect();
    for size in [1, 1300, 65_535] {
        let chunks: Vec<&[u8]> = payload.as_bytes().chunks(size).collect();
        let last = chunks.len() - 1;
        let frames: Vec<Out> = chunks
            .iter()
            .enumerate()
            .map(|(i, chunk)| if i == 0 { text(chunk) } else { more(chunk) })
            .enumerate()
            .map(|(i, frame)| if i == last { frame } else { frame.part() })
            .collect();
        let mut ws = echo().await;
        ws.send(&frames).await;
        ws.expect(got_text(&payload)).await;
        ws.finish().await;
    }
}

#[tokio::test]
async fn any_mask_will_do() {
    let masks = [[0; 4], [0xff; 4], [0, 0, 0, 1], *b"mask"];
    let frames = masks.map(|mask| text("masked with é").mask(Some(mask)));
    answered(&frames, &[(); 4].map(|()| got_text("masked with é"))).await;
}

#[tokio::test]
async fn an_unmasked_frame_is_refused() {
    for frame in [
        text("a"),
        text(""),
        binary("a"),
        ping("a"),
        ping(""),
        close(1000, ""),
        text("a").part(),
    ] {
        refused(&[text("before"), frame.mask(None)], &[got_text("before")], 1002).await;
    }
}

#[tokio::test]
async fn an_unmasked_frame_is_refused_before_its_payload() {
    let head = text("").mask(None).length(Length::Medium(1000));
    refused(&[head], &[], 1002).await;
}

#[tokio::test]
async fn a_length_in_more_bytes_than_it_needs_is_refused() {
    for (payload, length) in [
        ("", Length::Medium(0)),
        ("a", Length::Medium(1)),
        (&*"a".repeat(125), Length::Medium(125)),
        ("", Length::Long(0)),
        (&*"a".repeat(125), Length::Long(125)),
        (&*"a".repeat(126), Length::Long(126)),
        (&*"a".repeat(65_535), Length::Long(65_535)),
    ] {
        for frame in [text(payload), binary(payload)] {
            let mut ws = echo().await;
            ws.send(&[text("before"), frame.length(length)]).await;
            ws.expect_text("before").await;
            ws.expect_close(1002).await;
        }
    }
}

#[tokio::test]
async fn a_length_with_its_top_bit_set_is_refused() {
    for length in [1 << 63, u64::MAX, (1 << 63) | 65_536] {
        refused(&[text("").length(Length::Long(length))], &[], 1002).await;
    }
}

#[tokio::test]
async fn reserved_bits_are_refused() {
    for bits in 1..=7 {
        for frame in [
            text("a"),
            binary("a"),
            ping("a"),
            close(1000, ""),
            text("a").part(),
            text(""),
        ] {
            refused(
                &[text("before"), frame.reserved(bits), ping("after")],
                &[got_text("before")],
                1002,
            )
            .await;
        }
    }
    refused(&[text("a").part(), more("b").reserved(4)], &[], 1002).await;
}

#[tokio::test]
async fn reserved_bits_stay_refused_where_compression_was_offered() {
    let more = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n";
    let (response, mut ws) = Ws::handshake(&gateway(), request("/echo", more)).await;
    assert_eq!(
        (response.status, response.header("sec-websocket-extensions")),
        (101, None)
    );
    ws.send(&[text("a").reserved(4)]).await;
    ws.expect_close(1002).await;
}

#[tokio::test]
async fn reserved_opcodes_are_refused() {
    for opcode in (3..=7).chain(11..=15) {
        for payload in ["", "reserved opcode"] {
            let frames = [text("before"), Out::new(opcode, payload), ping("after")];
            refused(&frames, &[got_text("before")], 1002).await;
        }
    }
    refused(&[text("a").part(), Out::new(3, "b")], &[], 1002).await;
}

#[tokio::test]
async fn what_came_before_a_breach_is_answered_and_what_comes_after_is_not() {
    let frames = [
        text("a"),
        binary("b"),
        ping("c"),
        text("d").reserved(1),
        text("e"),
        ping("f"),
    ];
    let answers = [
        got_text("a"),
        Got::Binary(b"b".to_vec()),
        Got::Pong(b"c".to_vec()),
    ];
    refused(&frames, &answers, 1002).await;
}

#[tokio::test]
async fn bytes_that_are_no_frames_are_refused() {
    for junk in [
        &b"GET /echo HTTP/1.1\r\nHost: a\r\n\r\n"[..],
        &[0xff; 64],
        &[0x00; 64],
        b"\x16\x03\x01\x02\x00\x01",
    ] {
        let mut ws = echo().await;
        ws.send_bytes(junk).await;
        ws.expect_close(1002).await;
    }
}
