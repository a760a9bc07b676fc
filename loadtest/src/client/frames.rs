//! WebSocket frames as a client writes and reads them, and what a benchmark needs to know of their text without
//! parsing it as JSON.

use memchr::memmem;

/// The mask of every frame sent: any value is legal, and the server unmasks with it as with a random one.
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// Opcodes of RFC 6455.
pub mod opcode {
    /// A whole text message (with the FIN bit, which every frame here has).
    pub const TEXT: u8 = 1;
    /// The peer closes.
    pub const CLOSE: u8 = 8;
    /// To be answered by a pong with the same payload.
    pub const PING: u8 = 9;
    /// The answer to a ping.
    pub const PONG: u8 = 10;
}

/// Appends one masked client frame.
pub fn push_frame(out: &mut Vec<u8>, opcode: u8, payload: &[u8]) {
    out.push(0x80 | opcode);
    match payload.len() {
        n @ 0..=125 => out.push(0x80 | n as u8),
        n @ 126..=0xffff => {
            out.push(0x80 | 126);
            out.extend_from_slice(&(n as u16).to_be_bytes());
        }
        n => {
            out.push(0x80 | 127);
            out.extend_from_slice(&(n as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(&MASK);
    let start = out.len();
    out.extend_from_slice(payload);
    let mut chunks = out[start..].chunks_exact_mut(4);
    for chunk in &mut chunks {
        for (byte, mask) in chunk.iter_mut().zip(MASK) {
            *byte ^= mask;
        }
    }
    for (byte, mask) in chunks.into_remainder().iter_mut().zip(MASK) {
        *byte ^= mask;
    }
}

/// The frame at the head of a buffer.
#[derive(Debug, PartialEq, Eq)]
pub enum Head<'a> {
    /// A whole frame; `size` bytes with its header.
    Frame {
        /// See [`opcode`].
        opcode: u8,
        /// Unmasked, as servers send it.
        payload: &'a [u8],
        /// Header and payload.
        size: usize,
    },
    /// More bytes are needed.
    Partial,
    /// Not what this protocol's servers send: a fragment, a masked frame or a reserved bit.
    Foreign,
}

/// Reads the frame at the head of `buf`.
pub fn head(buf: &[u8]) -> Head<'_> {
    let [first, second, rest @ ..] = buf else {
        return Head::Partial;
    };
    if first & 0xf0 != 0x80 || second & 0x80 != 0 {
        return Head::Foreign;
    }
    let (header, len) = match (second, rest) {
        (126, [a, b, ..]) => (4, usize::from(u16::from_be_bytes([*a, *b]))),
        (127, [a, b, c, d, e, f, g, h, ..]) => {
            (10, u64::from_be_bytes([*a, *b, *c, *d, *e, *f, *g, *h]) as usize)
        }
        (126 | 127, _) => return Head::Partial,
        (n, _) => (2, usize::from(*n)),
    };
    match buf.get(header..header + len) {
        Some(payload) => Head::Frame {
            opcode: first & 0x0f,
            payload,
            size: header + len,
        },
        None => Head::Partial,
    }
}

/// What a text frame is, as far as a benchmark tells them apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The first frame.
    Welcome,
    /// The answer to a command.
    Ack,
    /// A refused command.
    Error,
    /// A durable event that a benchmark's writers make: a message, a patch of the state.
    Event,
    /// A durable event of coming and going.
    Presence,
    /// How many there are, in a room that counts.
    Occupancy,
    /// Positions of members, merged.
    Moves,
    /// A signal.
    Signal,
    /// Anything else.
    Other,
}

/// The kind of a frame and the length of its type's name.
pub fn kind(text: &[u8]) -> (Kind, usize) {
    let name = match text.strip_prefix(b"{\"type\":\"") {
        Some(rest) => rest,
        None => match memmem::find(text, b"\"type\":\"") {
            Some(at) => &text[at + 8..],
            None => return (Kind::Other, 0),
        },
    };
    let len = memchr::memchr(b'"', name).unwrap_or(0);
    let kind = match &name[..len] {
        b"message.sent" | b"state.patched" => Kind::Event,
        b"ack" => Kind::Ack,
        b"presence" => Kind::Presence,
        b"error" => Kind::Error,
        b"welcome" => Kind::Welcome,
        b"moves" => Kind::Moves,
        b"signal" => Kind::Signal,
        b"occupancy" => Kind::Occupancy,
        _ => Kind::Other,
    };
    (kind, len)
}

/// The unsigned number that `text` begins with.
pub fn digits(text: &[u8]) -> Option<u64> {
    let mut value = None;
    for byte in text.iter().take_while(|b| b.is_ascii_digit()) {
        value = Some(value.unwrap_or(0) * 10 + u64::from(byte - b'0'));
    }
    value
}

/// The envelope's `seq`. Looked for first where it stands in the usual order of members
/// (`type`, `room`, `seq`), given the lengths of the type's and the room's names.
pub fn seq(text: &[u8], kind_len: usize, room_len: usize) -> Option<u64> {
    const NAME: &[u8] = b"\"seq\":";
    let usual = 9 + kind_len + 2 + 8 + room_len + 2;
    match text.get(usual..).and_then(|rest| rest.strip_prefix(NAME)) {
        Some(rest) => digits(rest),
        None => number(text, NAME),
    }
}

/// The number behind the first `name`, which is a member's with its quotes and colon.
pub fn number(text: &[u8], name: &[u8]) -> Option<u64> {
    memmem::find(text, name).and_then(|at| digits(&text[at + name.len()..]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use roomgate_shared::protocol::event::{EventType, event_text};

    #[test]
    fn a_frame_sent_is_masked_and_reads_back() {
        for len in [0, 1, 125, 126, 300, 0xffff, 0x1_0000] {
            let payload: Vec<u8> = (0..len).map(|i| i as u8).collect();
            let mut out = Vec::new();
            push_frame(&mut out, opcode::TEXT, &payload);
            assert_eq!(head(&out), Head::Foreign, "a masked frame is no server's");
            let header = out.len() - len;
            assert_eq!(out[header - 4..header], MASK);
            let plain: Vec<u8> = out[header..]
                .iter()
                .zip(MASK.iter().cycle())
                .map(|(b, m)| b ^ m)
                .collect();
            assert_eq!(plain, payload);
        }
    }

    #[test]
    fn a_server_frame_is_read_whole_or_not_at_all() {
        for len in [0_usize, 125, 126, 0xffff, 0x1_0000] {
            let mut frame = vec![0x81];
            match len {
                0..=125 => frame.push(len as u8),
                126..=0xffff => {
                    frame.push(126);
                    frame.extend_from_slice(&(len as u16).to_be_bytes());
                }
                _ => {
                    frame.push(127);
                    frame.extend_from_slice(&(len as u64).to_be_bytes());
                }
            }
            frame.resize(frame.len() + len, b'x');
            for cut in [0, 1, 2, 3, frame.len() - 1] {
                assert_eq!(head(&frame[..cut.min(frame.len() - 1)]), Head::Partial);
            }
            let size = frame.len();
            frame.push(0x81);
            let payload = &frame[size - len..size];
            assert_eq!(
                head(&frame),
                Head::Frame {
                    opcode: opcode::TEXT,
                    payload,
                    size
                }
            );
        }
        assert_eq!(head(&[0x01, 0x00]), Head::Foreign, "a fragment");
    }

    #[test]
    fn events_are_known_by_their_text() {
        let text = event_text(
            EventType::MessageSent,
            "room-17",
            1204,
            1,
            Some("u-1"),
            "{\"seq\":1204}",
        );
        let (kind, len) = kind(text.as_bytes());
        assert_eq!((kind, len), (Kind::Event, 12));
        assert_eq!(seq(text.as_bytes(), len, 7), Some(1204));
        assert_eq!(
            seq(text.as_bytes(), len, 99),
            Some(1204),
            "found also where it is not expected"
        );
        let reordered = b"{\"seq\":7,\"type\":\"presence\",\"room\":\"r\"}";
        assert_eq!(super::kind(reordered), (Kind::Presence, 8));
        assert_eq!(seq(reordered, 8, 1), Some(7));
        assert_eq!(super::kind(b"{}"), (Kind::Other, 0));
    }
}
