//! Frames from bytes, without I/O: feed it what was read, however it is cut, and get whole messages.
//!
//! Payloads are unmasked in place. A message that lies in one frame and one read is handed over where it lies; only what
//! is incomplete is copied. Nothing is kept between messages, so an idle connection owns no buffer.

use fastwebsockets::{CloseCode as WsCloseCode, OpCode, unmask};
use roomgate_shared::protocol::CloseCode;

/// Longest payload of a control frame (RFC 6455, 5.5).
const MAX_CONTROL: usize = 125;

/// A whole message or control frame.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Message<'a> {
    /// Text, checked to be UTF-8.
    Text(&'a mut [u8]),
    /// Binary.
    Binary(&'a mut [u8]),
    /// Ping, with its payload of up to 125 bytes.
    Ping(&'a [u8]),
    /// Pong.
    Pong,
    /// Close: its code, 1005 where it carries none.
    Close(u16),
}

/// What the receiver of a message wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flow {
    /// The next one.
    Continue,
    /// Nothing more: what follows is thrown away.
    Stop,
}

/// See the module.
#[derive(Default)]
pub(super) struct Parser {
    /// Bytes of a frame that is not whole yet.
    partial: Vec<u8>,
    /// Payloads of the fragments of a message that is not whole yet.
    message: Vec<u8>,
    /// The kind of that message.
    fragmented: Option<OpCode>,
}

struct Head {
    fin: bool,
    opcode: OpCode,
    mask: [u8; 4],
    /// Bytes of the head and of the payload.
    head: usize,
    len: usize,
}

impl Parser {
    /// Takes `bytes` as read from the socket and hands each whole message to `each`, in order. A message has at most
    /// `max` bytes, its fragments added together.
    ///
    /// # Errors
    /// The close code that the peer's breach calls for; the parser is of no use afterwards.
    pub(super) fn feed(
        &mut self,
        bytes: &mut [u8],
        max: usize,
        mut each: impl FnMut(Message<'_>) -> Flow,
    ) -> Result<(), CloseCode> {
        if self.partial.is_empty() {
            let used = self.frames(bytes, max, &mut each)?;
            self.partial.extend_from_slice(&bytes[used..]);
        } else {
            let mut partial = std::mem::take(&mut self.partial);
            partial.extend_from_slice(bytes);
            let used = self.frames(&mut partial, max, &mut each)?;
            // A large frame's space is not kept for the little that follows it.
            self.partial = if used == 0 {
                partial
            } else {
                partial[used..].to_vec()
            };
        }
        Ok(())
    }

    /// Whether no message is begun.
    pub(super) fn is_idle(&self) -> bool {
        self.partial.is_empty() && self.fragmented.is_none()
    }

    /// Handles the whole frames at the start of `bytes` and gives their length.
    fn frames(
        &mut self,
        bytes: &mut [u8],
        max: usize,
        each: &mut impl FnMut(Message<'_>) -> Flow,
    ) -> Result<usize, CloseCode> {
        let mut used = 0;
        loop {
            let rest = &mut bytes[used..];
            let Some(head) = self.head(rest, max)? else {
                return Ok(used);
            };
            let end = head.head + head.len;
            if rest.len() < end {
                return Ok(used);
            }
            let payload = &mut rest[head.head..end];
            unmask(payload, head.mask);
            used += end;
            if self.frame(&head, payload, each)? == Flow::Stop {
                return Ok(bytes.len());
            }
        }
    }

    /// Reads and checks a frame's head; `None` where it is not whole yet. All that a head can break is told before the
    /// payload comes.
    fn head(&self, bytes: &[u8], max: usize) -> Result<Option<Head>, CloseCode> {
        let [first, second, ..] = *bytes else {
            return Ok(None);
        };
        let fin = first & 0x80 != 0;
        let opcode = OpCode::try_from(first & 0x0f).map_err(|_| CloseCode::Protocol)?;
        let control = matches!(opcode, OpCode::Close | OpCode::Ping | OpCode::Pong);
        let short = usize::from(second & 0x7f);
        let continues = opcode == OpCode::Continuation;
        if first & 0x70 != 0
            || second & 0x80 == 0
            || (control && (!fin || short > MAX_CONTROL))
            || (!control && continues != self.fragmented.is_some())
        {
            return Err(CloseCode::Protocol);
        }
        let (len, at) = match short {
            126 => {
                let Some(long) = bytes.get(2..4) else {
                    return Ok(None);
                };
                let len = u64::from(u16::from_be_bytes([long[0], long[1]]));
                if len < 126 {
                    return Err(CloseCode::Protocol);
                }
                (len, 4)
            }
            127 => {
                let Some(long) = bytes.get(2..10).and_then(|b| <[u8; 8]>::try_from(b).ok()) else {
                    return Ok(None);
                };
                let len = u64::from_be_bytes(long);
                if len < 65_536 || len >> 63 != 0 {
                    return Err(CloseCode::Protocol);
                }
                (len, 10)
            }
            len => (len as u64, 2),
        };
        if !control && len > max.saturating_sub(self.message.len()) as u64 {
            return Err(CloseCode::TooBig);
        }
        let Some(mask) = bytes.get(at..at + 4).and_then(|m| <[u8; 4]>::try_from(m).ok()) else {
            return Ok(None);
        };
        Ok(Some(Head {
            fin,
            opcode,
            mask,
            head: at + 4,
            len: len as usize,
        }))
    }

    fn frame(
        &mut self,
        head: &Head,
        payload: &mut [u8],
        each: &mut impl FnMut(Message<'_>) -> Flow,
    ) -> Result<Flow, CloseCode> {
        match head.opcode {
            OpCode::Ping => return Ok(each(Message::Ping(payload))),
            OpCode::Pong => return Ok(each(Message::Pong)),
            OpCode::Close => return Ok(each(Message::Close(close_code(payload)?))),
            OpCode::Text | OpCode::Binary if head.fin => return data(head.opcode, payload, each),
            OpCode::Text | OpCode::Binary => self.fragmented = Some(head.opcode),
            OpCode::Continuation => {}
        }
        self.message.extend_from_slice(payload);
        if !head.fin {
            return Ok(Flow::Continue);
        }
        let opcode = self.fragmented.take().ok_or(CloseCode::Protocol)?;
        let mut message = std::mem::take(&mut self.message);
        data(opcode, &mut message, each)
    }
}

fn data(
    opcode: OpCode,
    payload: &mut [u8],
    each: &mut impl FnMut(Message<'_>) -> Flow,
) -> Result<Flow, CloseCode> {
    if opcode == OpCode::Binary {
        return Ok(each(Message::Binary(payload)));
    }
    if std::str::from_utf8(payload).is_err() {
        return Err(CloseCode::BadUtf8);
    }
    Ok(each(Message::Text(payload)))
}

/// The code in a close frame's payload, checked with its reason (RFC 6455, 7.4).
fn close_code(payload: &[u8]) -> Result<u16, CloseCode> {
    match payload {
        [] => Ok(1005),
        [_] => Err(CloseCode::Protocol),
        [high, low, reason @ ..] => {
            let code = u16::from_be_bytes([*high, *low]);
            // Registered with IANA after RFC 6455; fastwebsockets does not know it.
            const BAD_GATEWAY: u16 = 1014;
            if !WsCloseCode::from(code).is_allowed() && code != BAD_GATEWAY {
                return Err(CloseCode::Protocol);
            }
            std::str::from_utf8(reason).map_err(|_| CloseCode::BadUtf8)?;
            Ok(code)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MASK: [u8; 4] = [0x12, 0x34, 0x56, 0x78];

    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut out = vec![first];
        match payload.len() {
            len @ 0..=125 => out.push(0x80 | len as u8),
            len @ 126..=0xffff => {
                out.push(0x80 | 126);
                out.extend((len as u16).to_be_bytes());
            }
            len => {
                out.push(0x80 | 127);
                out.extend((len as u64).to_be_bytes());
            }
        }
        out.extend(MASK);
        let mut payload = payload.to_vec();
        unmask(&mut payload, MASK);
        out.extend(payload);
        out
    }

    fn feed(parser: &mut Parser, bytes: &[u8], max: usize) -> Result<Vec<String>, CloseCode> {
        let mut got = Vec::new();
        parser.feed(&mut bytes.to_vec(), max, |message| {
            got.push(format!("{message:?}"));
            Flow::Continue
        })?;
        Ok(got)
    }

    proptest! {
        #[test]
        fn however_the_bytes_are_cut_the_messages_are_the_same(
            messages in prop::collection::vec((0usize..400, 1usize..4, any::<bool>()), 1..8),
            cuts in prop::collection::vec(1usize..90, 1..60),
        ) {
            let mut stream = Vec::new();
            for (len, fragments, ping) in &messages {
                let text = vec![b'a'; *len];
                let chunk = len.div_ceil(*fragments).max(1);
                let parts: Vec<&[u8]> = if text.is_empty() { vec![&[]] } else { text.chunks(chunk).collect() };
                for (i, part) in parts.iter().enumerate() {
                    let fin = if i + 1 == parts.len() { 0x80 } else { 0 };
                    stream.extend(frame(fin | u8::from(i == 0), part));
                    if *ping {
                        stream.extend(frame(0x89, b"p"));
                    }
                }
            }
            let whole = feed(&mut Parser::default(), &stream, 1000).unwrap();
            let (mut parser, mut pieces, mut at) = (Parser::default(), Vec::new(), 0);
            for cut in cuts.iter().cycle() {
                if at == stream.len() { break; }
                let end = (at + cut).min(stream.len());
                pieces.extend(feed(&mut parser, &stream[at..end], 1000).unwrap());
                at = end;
            }
            prop_assert_eq!(whole, pieces);
            prop_assert!(parser.partial.is_empty() && parser.message.is_empty());
        }

        #[test]
        fn random_bytes_never_panic_and_hold_no_more_than_the_cap(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            let mut parser = Parser::default();
            let _ = feed(&mut parser, &bytes, 100);
            prop_assert!(parser.message.len() <= 100);
        }
    }

    #[test]
    fn the_cap_counts_all_fragments_and_speaks_before_the_payload() {
        let mut parser = Parser::default();
        feed(&mut parser, &frame(0x01, &[b'a'; 60]), 100).unwrap();
        assert_eq!(
            feed(&mut parser, &frame(0x80, &[b'a'; 41])[..6], 100),
            Err(CloseCode::TooBig)
        );
        let mut parser = Parser::default();
        feed(&mut parser, &frame(0x01, &[b'a'; 60]), 100).unwrap();
        assert_eq!(
            feed(&mut parser, &frame(0x80, &[b'a'; 40]), 100).unwrap().len(),
            1
        );
    }

    #[test]
    fn breaches_have_their_codes() {
        let unmasked = [0x81, 0x01, b'a'];
        let long = |bytes: &[u8]| bytes.to_vec();
        for (bytes, code) in [
            (unmasked.to_vec(), CloseCode::Protocol),
            (frame(0xc1, b"a"), CloseCode::Protocol),
            (frame(0x83, b"a"), CloseCode::Protocol),
            (frame(0x80, b"a"), CloseCode::Protocol),
            (frame(0x09, b"a"), CloseCode::Protocol),
            (long(&[0x89, 0x80 | 126, 0, 126]), CloseCode::Protocol),
            (long(&[0x81, 0x80 | 126, 0, 125]), CloseCode::Protocol),
            (
                long(&[0x81, 0x80 | 127, 0, 0, 0, 0, 0, 0, 0xff, 0xff]),
                CloseCode::Protocol,
            ),
            (
                long(&[0x81, 0x80 | 127, 0x80, 0, 0, 0, 0, 1, 0, 0]),
                CloseCode::Protocol,
            ),
            (frame(0x88, b"x"), CloseCode::Protocol),
            (frame(0x88, &1005u16.to_be_bytes()), CloseCode::Protocol),
            (frame(0x88, &[0x03, 0xe8, 0xff]), CloseCode::BadUtf8),
            (frame(0x81, &[0xc0, 0xaf]), CloseCode::BadUtf8),
        ] {
            assert_eq!(
                feed(&mut Parser::default(), &bytes, 1 << 20),
                Err(code),
                "{bytes:x?}"
            );
        }
        let mut parser = Parser::default();
        feed(&mut parser, &frame(0x01, b"a"), 100).unwrap();
        assert_eq!(
            feed(&mut parser, &frame(0x81, b"b"), 100),
            Err(CloseCode::Protocol)
        );
    }

    #[test]
    fn after_a_stop_nothing_is_read() {
        let mut bytes = frame(0x88, &[]);
        bytes.extend([0xff; 20]);
        let mut parser = Parser::default();
        let mut got = 0;
        parser
            .feed(&mut bytes, 100, |_| {
                got += 1;
                Flow::Stop
            })
            .unwrap();
        assert_eq!(got, 1);
        assert!(parser.partial.is_empty());
    }
}
