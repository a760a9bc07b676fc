//! A connection of the bare server.

use std::{
    collections::VecDeque,
    io::{self, IoSlice, Read, Write},
    ops::Range,
};

use mio::net::TcpStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::Frame;

/// Most frames of one `writev`.
const MAX_SLICES: usize = 512;

/// Appends one text frame of a server.
pub(super) fn push_text(out: &mut Vec<u8>, text: &str) {
    out.push(0x81);
    match text.len() {
        n @ 0..=125 => out.push(n as u8),
        n @ 126..=0xffff => {
            out.push(126);
            out.extend_from_slice(&(n as u16).to_be_bytes());
        }
        n => {
            out.push(127);
            out.extend_from_slice(&(n as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(text.as_bytes());
}

pub(super) struct Conn {
    stream: TcpStream,
    open: bool,
    dirty: bool,
    kept: Vec<u8>,
    out: VecDeque<Frame>,
    /// Bytes of the first frame that are written.
    written: usize,
    pub(super) user: String,
}

/// What one read gave.
pub(super) struct Taken {
    /// Where the texts of whole frames are, unmasked.
    pub(super) frames: Vec<Range<usize>>,
    /// Where the head of an unfinished frame is.
    pub(super) rest: Range<usize>,
    /// Whether there may be more to read.
    pub(super) more: bool,
}

impl Conn {
    pub(super) fn new(stream: TcpStream) -> Self {
        Self {
            stream,
            open: false,
            dirty: false,
            kept: Vec::new(),
            out: VecDeque::new(),
            written: 0,
            user: String::new(),
        }
    }

    pub(super) fn read(&mut self, buf: &mut [u8]) -> io::Result<Option<Taken>> {
        let kept = self.kept.len();
        buf.get_mut(..kept)
            .ok_or(io::ErrorKind::InvalidData)?
            .copy_from_slice(&self.kept);
        self.kept.clear();
        let end = match self.stream.read(&mut buf[kept..]) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(n) => kept + n,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.kept.extend_from_slice(&buf[..kept]);
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        let mut at = 0;
        if !self.open {
            match memchr::memmem::find(&buf[..end], b"\r\n\r\n") {
                Some(head) => {
                    self.answer(&String::from_utf8_lossy(&buf[..head]))?;
                    at = head + 4;
                }
                None => {
                    return Ok(Some(Taken {
                        frames: Vec::new(),
                        rest: 0..end,
                        more: end == buf.len(),
                    }));
                }
            }
        }
        let mut frames = Vec::new();
        while let Some((opcode, payload)) = unmasked(&mut buf[at..end]) {
            let (start, stop) = (at + payload.start, at + payload.end);
            at = stop;
            match opcode {
                1 => frames.push(start..stop),
                8 => return Err(io::ErrorKind::UnexpectedEof.into()),
                _ => {}
            }
        }
        Ok(Some(Taken {
            frames,
            rest: at..end,
            more: end == buf.len(),
        }))
    }

    /// Keeps the head of an unfinished frame until its rest comes.
    pub(super) fn keep(&mut self, rest: &[u8]) {
        self.kept.extend_from_slice(rest);
    }

    fn answer(&mut self, head: &str) -> io::Result<()> {
        if !head.starts_with("GET /ws") {
            self.stream
                .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")?;
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.open = true;
        let user = head.split_once("user=").map_or("", |(_, rest)| rest);
        user.split(['&', ' '])
            .next()
            .unwrap_or_default()
            .clone_into(&mut self.user);
        let header = |line: &str| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("sec-websocket-key")
                .then(|| value.trim().to_owned())
        };
        let key = head.lines().find_map(header).unwrap_or_default();
        let mut out = format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Protocol: roomgate.v1\r\nSec-WebSocket-Accept: {}\r\n\r\n",
            derive_accept_key(key.as_bytes())
        )
        .into_bytes();
        push_text(&mut out, "{\"type\":\"welcome\",\"data\":{}}");
        self.out.push_back(out.into());
        Ok(())
    }

    pub(super) fn push(&mut self, frame: Frame) {
        self.out.push_back(frame);
    }

    /// Whether it has something to write that is not noted yet.
    pub(super) fn touch(&mut self) -> bool {
        !self.out.is_empty() && !std::mem::replace(&mut self.dirty, true)
    }

    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.dirty = false;
        while !self.out.is_empty() {
            let mut slices: Vec<IoSlice<'_>> = self
                .out
                .iter()
                .take(MAX_SLICES)
                .map(|frame| IoSlice::new(frame))
                .collect();
            slices[0].advance(self.written);
            match self.stream.write_vectored(&slices) {
                Ok(mut n) => {
                    n += std::mem::take(&mut self.written);
                    while let Some(first) = self.out.front()
                        && n >= first.len()
                    {
                        n -= first.len();
                        self.out.pop_front();
                    }
                    self.written = n;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// The opcode of the client's frame at the head of `bytes` and where its payload is, unmasked now.
fn unmasked(bytes: &mut [u8]) -> Option<(u8, Range<usize>)> {
    let (first, second) = (*bytes.first()?, *bytes.get(1)?);
    let (head, len) = match second & 0x7f {
        126 => (
            4,
            usize::from(u16::from_be_bytes([*bytes.get(2)?, *bytes.get(3)?])),
        ),
        127 => return None,
        len => (2, usize::from(len)),
    };
    let mask: [u8; 4] = bytes.get(head..head + 4)?.try_into().ok()?;
    let payload = head + 4..head + 4 + len;
    let body = bytes.get_mut(payload.clone())?;
    let mut chunks = body.chunks_exact_mut(4);
    for chunk in &mut chunks {
        chunk.iter_mut().zip(mask).for_each(|(byte, mask)| *byte ^= mask);
    }
    chunks
        .into_remainder()
        .iter_mut()
        .zip(mask)
        .for_each(|(byte, mask)| *byte ^= mask);
    Some((first & 0x0f, payload))
}
