//! What the fleet does with what arrives.

use std::{
    io,
    time::{Duration, Instant},
};

use mio::Events;
use serde::Deserialize;

use super::{
    Fleet, Load,
    conn::{Phase, Presence},
    frames::{self, Head, Kind, opcode},
};
use crate::failure::{Failure, check_interrupt};

#[derive(Deserialize)]
struct JoinAck {
    data: JoinData,
}

#[derive(Deserialize)]
struct JoinData {
    seq: u64,
}

impl Fleet {
    /// Waits for events at most `wait` and handles them; how many there were.
    pub(super) fn turn(&mut self, wait: Duration) -> Result<usize, Failure> {
        check_interrupt()?;
        let mut events = Events::with_capacity(1024);
        match self.poll.poll(&mut events, Some(wait)) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(0),
            Err(error) => return Err(error.into()),
        }
        let mut count = 0;
        for event in &events {
            count += 1;
            let index = event.token().0;
            if event.is_writable() {
                let outcome = match self.conns[index].phase {
                    Phase::Connecting => self.conns[index].upgrade(index, &self.query).map(|_| ()),
                    Phase::Upgrading | Phase::Waiting | Phase::Joining(_) | Phase::Joined => {
                        self.conns[index].flush()
                    }
                    Phase::Closed => Ok(()),
                };
                self.broken(index, outcome);
            }
            if event.is_readable() {
                self.read(index, event.is_read_closed());
            }
        }
        Ok(count)
    }

    fn read(&mut self, index: usize, ending: bool) {
        let mut buf = std::mem::take(&mut self.buf);
        loop {
            let conn = &mut self.conns[index];
            if matches!(conn.phase, Phase::Closed | Phase::Connecting) {
                break;
            }
            let kept = conn.kept.len();
            if kept * 2 > buf.len() {
                buf.resize(kept * 4, 0);
            }
            buf[..kept].copy_from_slice(&conn.kept);
            match conn.read(&mut buf[kept..]) {
                Ok(Some(0)) => self.close(index, "end of stream"),
                Ok(Some(n)) => {
                    let used = self.feed(index, &buf[..kept + n]);
                    let conn = &mut self.conns[index];
                    conn.kept.clear();
                    conn.kept.extend_from_slice(&buf[used..kept + n]);
                    // Less than there was room for: the socket is empty, and the next edge will tell of more.
                    if !ending && kept + n < buf.len() {
                        break;
                    }
                }
                Ok(None) => break,
                Err(error) => self.close(index, &error.to_string()),
            }
        }
        self.buf = buf;
    }

    /// Handles the whole frames in `bytes`; how many bytes they were.
    fn feed(&mut self, index: usize, bytes: &[u8]) -> usize {
        let mut used = 0;
        if self.conns[index].phase == Phase::Upgrading {
            let Some(end) = memchr::memmem::find(bytes, b"\r\n\r\n") else {
                return 0;
            };
            if !bytes.starts_with(b"HTTP/1.1 101") {
                let answer = String::from_utf8_lossy(&bytes[..end.min(200)]).into_owned();
                self.close(index, &format!("upgrade refused: {answer}"));
                return bytes.len();
            }
            self.conns[index].phase = Phase::Joining(self.conns[index].rooms.len());
            used = end + 4;
        }
        loop {
            match frames::head(&bytes[used..]) {
                Head::Partial => return used,
                Head::Foreign => {
                    self.close(index, "a frame that no server of this protocol sends");
                    return bytes.len();
                }
                Head::Frame {
                    opcode: code,
                    payload,
                    size,
                } => {
                    used += size;
                    match code {
                        opcode::TEXT => self.text(index, payload),
                        opcode::PING => {
                            self.tally.pings += 1;
                            let sent = self.conns[index].send(opcode::PONG, payload);
                            self.broken(index, sent);
                        }
                        opcode::CLOSE => {
                            let code = payload.get(..2).map(|c| u16::from_be_bytes([c[0], c[1]]));
                            self.close(index, &format!("by the server with {}", code.unwrap_or(1005)));
                        }
                        _ => {}
                    }
                }
            }
        }
    }

    fn text(&mut self, index: usize, text: &[u8]) {
        let (kind, kind_len) = frames::kind(text);
        match kind {
            Kind::Event | Kind::Presence => self.event(index, kind, kind_len, text),
            Kind::Moves | Kind::Signal => self.positions(index, text),
            Kind::Occupancy => {
                let presence = &mut self.conns[index].presence;
                presence.counts += 1;
                presence.members = frames::number(text, b"\"members\":").unwrap_or(0);
            }
            Kind::Ack => self.ack(index, text),
            Kind::Welcome if self.conns[index].waits => {
                let conn = &mut self.conns[index];
                conn.phase = Phase::Waiting;
                self.opening -= 1;
                self.joining -= conn.rooms.len();
            }
            Kind::Welcome => {
                let joined = self.conns[index].join(&self.names);
                self.broken(index, joined);
            }
            Kind::Error => {
                self.problem(format!("connection {index}: {}", String::from_utf8_lossy(text)));
                let conn = &mut self.conns[index];
                conn.unanswered = conn.unanswered.saturating_sub(1);
                if let Phase::Joining(_) = conn.phase {
                    self.close(index, "not let in");
                }
            }
            Kind::Other => {}
        }
    }

    fn positions(&mut self, index: usize, text: &[u8]) {
        let Some(positions) = &mut self.positions else {
            return;
        };
        let now = self.clock.elapsed().as_micros() as u64;
        match positions.take(index, text, now) {
            Ok(count) => self.tally.delivered[self.conns[index].gateway] += count,
            Err(problem) => self.problem(problem),
        }
    }

    fn event(&mut self, index: usize, kind: Kind, kind_len: usize, text: &[u8]) {
        let conn = &mut self.conns[index];
        conn.presence.events += u64::from(kind == Kind::Presence);
        let expected = conn.seq + 1;
        if conn.tracked() {
            let room_len = self.names[conn.rooms.start].as_str().len();
            let seq = frames::seq(text, kind_len, room_len).unwrap_or(0);
            conn.seq = seq;
            if seq != expected {
                self.problem(format!("connection {index}: seq {seq} where {expected} was due"));
            }
        }
        if kind == Kind::Event {
            let conn = &mut self.conns[index];
            conn.events += 1;
            self.tally.delivered[conn.gateway] += 1;
            if conn.watches {
                let room = &mut self.rooms[conn.rooms.start];
                room.seen += 1;
                if matches!(self.load, Load::Closed)
                    && let Some(writer) = room.parked.pop()
                {
                    self.repeat(writer);
                }
            }
            if let Some(latency) = &mut self.latency
                && let Some(at) = memchr::memmem::find(text, b"\"body\":\"t")
                && let Some(stamp) = frames::digits(&text[at + 9..])
            {
                latency.record((self.clock.elapsed().as_micros() as u64).saturating_sub(stamp));
            }
        }
    }

    fn ack(&mut self, index: usize, text: &[u8]) {
        let conn = &mut self.conns[index];
        match conn.phase {
            Phase::Joined => {
                let Some(left) = conn.unanswered.checked_sub(1) else {
                    return self.problem(format!("connection {index}: an answer to no command"));
                };
                conn.unanswered = left;
                self.rooms[conn.rooms.start].acked += 1;
                self.tally.acked += 1;
                if matches!(self.load, Load::Closed) {
                    self.go_on(index);
                }
            }
            Phase::Joining(left) => match serde_json::from_slice::<JoinAck>(text) {
                Ok(ack) => {
                    conn.seq = ack.data.seq;
                    conn.phase = if left > 1 {
                        Phase::Joining(left - 1)
                    } else {
                        Phase::Joined
                    };
                    self.joining -= 1;
                    if left == 1 {
                        self.opening -= 1;
                        conn.presence = Presence::default();
                        self.last_joined = Instant::now();
                    }
                }
                Err(error) => self.close(index, &format!("the join's answer has no seq: {error}")),
            },
            Phase::Connecting | Phase::Upgrading | Phase::Waiting | Phase::Closed => {}
        }
    }
}
