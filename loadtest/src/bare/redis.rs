//! The bare server's Redis: one connection for calls, pipelined, and one for events.

use std::{
    collections::VecDeque,
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream as StdStream},
};

use mio::{Interest, Poll, net::TcpStream};
use roomgate_shared::ids::RoomId;

use super::{COMMANDS, EVENTS, room::Batch};
use crate::failure::Failure;

/// KEYS: the room's counter, its log. ARGV: the channel, how many events, the batch.
const SCRIPT: &str = "local last = redis.call('INCRBY', KEYS[1], ARGV[2]) \
    redis.call('RPUSH', KEYS[2], ARGV[3]) redis.call('LTRIM', KEYS[2], -1000, -1) \
    redis.call('PUBLISH', ARGV[1], last .. '\\n' .. ARGV[3]) return last";

struct Link {
    stream: TcpStream,
    input: Vec<u8>,
    output: Vec<u8>,
}

pub(super) struct Redis {
    commands: Link,
    events: Link,
    sha: String,
    /// Rooms whose calls are unanswered.
    pending: VecDeque<usize>,
}

/// A confirmed subscription or an event.
pub(super) struct Heard {
    pub(super) room: String,
    pub(super) payload: Option<String>,
}

impl Redis {
    pub(super) fn connect(url: &str, poll: &Poll) -> Result<Self, Failure> {
        let address: SocketAddr = url
            .trim_start_matches("redis://")
            .trim_end_matches('/')
            .parse()
            .map_err(|error| Failure::Usage(format!("{url}: {error}")))?;
        let mut stream = StdStream::connect(address)?;
        let mut load = Vec::new();
        push_command(&mut load, &["SCRIPT", "LOAD", SCRIPT]);
        stream.write_all(&load)?;
        // A SHA-1 in hexadecimal as a bulk string.
        let mut answer = [0; 5 + 40 + 2];
        stream.read_exact(&mut answer)?;
        let sha = String::from_utf8_lossy(&answer[5..45]).into_owned();
        let link = |stream: StdStream, token| -> io::Result<Link> {
            stream.set_nonblocking(true)?;
            stream.set_nodelay(true)?;
            let mut stream = TcpStream::from_std(stream);
            poll.registry()
                .register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)?;
            Ok(Link {
                stream,
                input: Vec::new(),
                output: Vec::new(),
            })
        };
        Ok(Self {
            commands: link(stream, COMMANDS)?,
            events: link(StdStream::connect(address)?, EVENTS)?,
            sha,
            pending: VecDeque::new(),
        })
    }

    pub(super) fn subscribe(&mut self, room: &RoomId) {
        push_command(&mut self.events.output, &["SUBSCRIBE", room.as_str()]);
    }

    pub(super) fn call(&mut self, at: usize, room: &RoomId, node: &str, batch: &Batch) {
        let (counter, log) = (format!("bare:{room}:seq"), format!("bare:{room}:log"));
        let text = format!("{node}\n{}", batch.text);
        let count = batch.count.to_string();
        let command = [
            "EVALSHA",
            &self.sha,
            "2",
            &counter,
            &log,
            room.as_str(),
            &count,
            &text,
        ];
        push_command(&mut self.commands.output, &command);
        self.pending.push_back(at);
    }

    pub(super) fn flush(&mut self) -> Result<(), Failure> {
        self.commands.flush()?;
        self.events.flush()?;
        Ok(())
    }

    /// Rooms whose calls are answered.
    pub(super) fn replies(&mut self) -> Result<Vec<usize>, Failure> {
        self.commands.fill()?;
        let mut rooms = Vec::new();
        let mut used = 0;
        while let Some(end) = memchr::memchr(b'\n', &self.commands.input[used..]) {
            let line = &self.commands.input[used..used + end];
            if !line.starts_with(b":") {
                return Err(Failure::Wrong(format!(
                    "Redis: {}",
                    String::from_utf8_lossy(line)
                )));
            }
            rooms.extend(self.pending.pop_front());
            used += end + 1;
        }
        self.commands.input.drain(..used);
        Ok(rooms)
    }

    /// What the subscriber heard.
    pub(super) fn heard(&mut self) -> Result<Vec<Heard>, Failure> {
        self.events.fill()?;
        let mut heard = Vec::new();
        let mut used = 0;
        while let Some((one, size)) = read_push(&self.events.input[used..]) {
            heard.push(one);
            used += size;
        }
        self.events.input.drain(..used);
        Ok(heard)
    }
}

impl Link {
    fn fill(&mut self) -> io::Result<()> {
        let mut chunk = [0; 64 * 1024];
        loop {
            match self.stream.read(&mut chunk) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(n) => {
                    self.input.extend_from_slice(&chunk[..n]);
                    if n < chunk.len() {
                        return Ok(());
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        while !self.output.is_empty() {
            match self.stream.write(&self.output) {
                Ok(n) => drop(self.output.drain(..n)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

fn push_command(out: &mut Vec<u8>, parts: &[&str]) {
    out.extend_from_slice(format!("*{}\r\n", parts.len()).as_bytes());
    for part in parts {
        out.extend_from_slice(format!("${}\r\n", part.len()).as_bytes());
        out.extend_from_slice(part.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
}

/// The message of three parts at the head of `bytes`: its kind, the channel, and the payload or a count.
fn read_push(bytes: &[u8]) -> Option<(Heard, usize)> {
    let mut at = line(bytes, 0)?.1;
    let (kind, next) = bulk(bytes, at)?;
    at = next;
    let (room, next) = bulk(bytes, at)?;
    at = next;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if kind == b"message" {
        let (payload, next) = bulk(bytes, at)?;
        Some((
            Heard {
                room: text(room),
                payload: Some(text(payload)),
            },
            next,
        ))
    } else {
        let (_, next) = line(bytes, at)?;
        Some((
            Heard {
                room: text(room),
                payload: None,
            },
            next,
        ))
    }
}

fn line(bytes: &[u8], at: usize) -> Option<(&[u8], usize)> {
    let end = memchr::memchr(b'\n', bytes.get(at..)?)?;
    Some((&bytes[at..at + end - 1], at + end + 1))
}

fn bulk(bytes: &[u8], at: usize) -> Option<(&[u8], usize)> {
    let (head, start) = line(bytes, at)?;
    let len: usize = std::str::from_utf8(head.get(1..)?).ok()?.parse().ok()?;
    let body = bytes.get(start..start + len)?;
    bytes.get(start + len..start + len + 2)?;
    Some((body, start + len + 2))
}
