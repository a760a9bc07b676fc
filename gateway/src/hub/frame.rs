//! Server frames as bytes on the wire. A server's frame is not masked, so the same bytes serve every reader.

use bytes::Bytes;
use fastwebsockets::OpCode;

/// Longest head of an unmasked frame.
const MAX_HEAD: usize = 10;

/// Longest payload of a control frame.
const MAX_CONTROL: usize = 125;

/// Appends the head of an unfragmented frame with a payload of `len` bytes.
fn push_head(out: &mut Vec<u8>, opcode: OpCode, len: usize) {
    out.push(0x80 | opcode as u8);
    match len {
        0..=125 => out.push(len as u8),
        126..=0xffff => {
            out.push(126);
            out.extend_from_slice(&(len as u16).to_be_bytes());
        }
        _ => {
            out.push(127);
            out.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
}

/// The length of head and payload of the frame that `bytes` starts with; it must be one that this module wrote.
pub(super) fn frame_len(bytes: &[u8]) -> usize {
    match bytes[1] {
        126 => 4 + usize::from(u16::from_be_bytes([bytes[2], bytes[3]])),
        127 => {
            let len = u64::from_be_bytes([
                bytes[2], bytes[3], bytes[4], bytes[5], bytes[6], bytes[7], bytes[8], bytes[9],
            ]);
            10 + len as usize
        }
        len => 2 + usize::from(len),
    }
}

/// The head of a text frame whose payload has `len` bytes.
pub(super) fn text_head(len: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(MAX_HEAD);
    push_head(&mut out, OpCode::Text, len);
    out
}

/// Several texts, each a frame of its own, in one piece of memory.
pub(super) fn text_frames<'a>(texts: impl Iterator<Item = &'a [u8]> + Clone) -> Bytes {
    let size = texts.clone().map(|text| text.len() + MAX_HEAD).sum();
    let mut out = Vec::with_capacity(size);
    for text in texts {
        push_head(&mut out, OpCode::Text, text.len());
        out.extend_from_slice(text);
    }
    out.into()
}

/// One text frame.
pub fn text_frame(text: &str) -> Bytes {
    message_frame(OpCode::Text, text.as_bytes())
}

/// One data frame.
pub fn message_frame(opcode: OpCode, payload: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(payload.len() + MAX_HEAD);
    push_head(&mut out, opcode, payload.len());
    out.extend_from_slice(payload);
    out.into()
}

/// A ping without payload.
pub fn ping_frame() -> Bytes {
    Bytes::from_static(&[0x80 | OpCode::Ping as u8, 0])
}

/// The answer to a ping; a control frame's payload has 125 bytes at most.
pub fn pong_frame(payload: &[u8]) -> Bytes {
    message_frame(OpCode::Pong, &payload[..payload.len().min(MAX_CONTROL)])
}

/// A close frame. A reason is cut at a character's end to fit a control frame. `code` 1005 gives an empty one: it stands
/// for "none" and must not be sent.
pub fn close_frame(code: u16, reason: &str) -> Bytes {
    if code == 1005 {
        return message_frame(OpCode::Close, &[]);
    }
    let mut end = reason.len().min(MAX_CONTROL - 2);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    let mut payload = code.to_be_bytes().to_vec();
    payload.extend_from_slice(&reason.as_bytes()[..end]);
    message_frame(OpCode::Close, &payload)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_take_the_shortest_form_and_read_back() {
        for (len, head) in [(0, 2), (125, 2), (126, 4), (65_535, 4), (65_536, 10)] {
            let frame = message_frame(OpCode::Text, &vec![b'x'; len]);
            assert_eq!(frame.len(), len + head);
            assert_eq!(frame_len(&frame), frame.len());
        }
    }

    #[test]
    fn a_long_reason_is_cut_between_characters() {
        let frame = close_frame(1012, &"é".repeat(100));
        assert_eq!(frame.len(), 2 + 2 + 122);
        assert!(std::str::from_utf8(&frame[4..]).is_ok());
        assert_eq!(close_frame(1005, "x").as_ref(), [0x88, 0]);
        assert_eq!(close_frame(1012, "0").as_ref(), [0x88, 3, 0x03, 0xf4, b'0']);
    }
}
