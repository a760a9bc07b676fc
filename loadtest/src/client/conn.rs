//! One connection of the fleet: its socket, what it waits for, and the commands it repeats.

use std::{
    io::{self, Read, Write},
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
    ops::Range,
};

use mio::net::TcpStream;
use roomgate_shared::{
    ids::{CommandId, RoomId},
    protocol::{Command, CommandFrame, JsonText, SUBPROTOCOL, command::MessageKind},
};
use rustix::{
    io::Errno,
    net::{AddressFamily, SocketFlags, SocketType, bind, connect, socket_with, sockopt},
};

use super::{
    frames::{opcode, push_frame},
    positions,
};

/// The characters of a command's id and of a time stamp in a body: fixed, so that a text made once is filled in place.
pub(super) const DIGITS: usize = 14;
const ID_SLOT: &str = "k00000000000000";
const STAMP_SLOT: &str = "t00000000000000";

/// What a writer sends, over and over, with another id and time stamp each time.
pub struct Template {
    text: Vec<u8>,
    id_at: usize,
    stamp_at: usize,
    /// Whether it has an id, so that an ack comes.
    answered: bool,
}

impl Template {
    /// A `message.send` whose body is a string of `bytes` bytes of JSON, 17 at least.
    pub fn message(room: &RoomId, bytes: usize) -> Self {
        Self::new(
            room,
            Command::MessageSend {
                body: filler(bytes),
                kind: MessageKind::Text,
            },
        )
    }

    /// A `state.patch` that sets one field to a string of `bytes` bytes of JSON, 17 at least.
    pub fn patch(room: &RoomId, bytes: usize) -> Self {
        Self::new(
            room,
            Command::StatePatch {
                set: vec![("field".to_owned(), filler(bytes))],
                remove: Vec::new(),
                increment: Vec::new(),
                if_version: None,
            },
        )
    }

    /// A `move`; its id and stamp are the position's. Not answered.
    pub fn moving(room: &RoomId) -> Self {
        Self::position(positions::move_text(room))
    }

    /// A `signal` that tells the same position. Not answered.
    pub fn signalling(room: &RoomId) -> Self {
        Self::position(positions::signal_text(room))
    }

    fn position(text: String) -> Self {
        let slot = |name: &str| text.find(name).map_or(0, |at| at + name.len());
        let (id_at, stamp_at) = (slot("\"x\":1"), slot("\"y\":1"));
        Self {
            text: text.into_bytes(),
            id_at,
            stamp_at,
            answered: false,
        }
    }

    fn new(room: &RoomId, command: Command) -> Self {
        let frame = CommandFrame {
            id: CommandId::new(ID_SLOT).ok(),
            room: Some(room.clone()),
            command,
        };
        let text = frame.to_json();
        // Both slots are in the text: the id's in the envelope, the stamp's at the head of the filler.
        let slot = |name: &str| text.find(name).map_or(0, |at| at + 1);
        let (id_at, stamp_at) = (slot(ID_SLOT), slot(STAMP_SLOT));
        Self {
            text: text.into_bytes(),
            id_at,
            stamp_at,
            answered: true,
        }
    }

    /// The text with `id` and `stamp` (µs) in their places.
    pub fn fill(&mut self, id: u64, stamp: u64) -> &[u8] {
        put_digits(&mut self.text[self.id_at..self.id_at + DIGITS], id);
        put_digits(&mut self.text[self.stamp_at..self.stamp_at + DIGITS], stamp);
        &self.text
    }
}

/// A JSON string of `bytes` bytes with its quotes, a stamp's slot at its head.
fn filler(bytes: usize) -> JsonText {
    let padding = bytes.saturating_sub(STAMP_SLOT.len() + 2);
    JsonText::from_trusted(format!("\"{STAMP_SLOT}{}\"", "x".repeat(padding)))
}

fn put_digits(out: &mut [u8], mut value: u64) {
    for byte in out.iter_mut().rev() {
        *byte = b'0' + (value % 10) as u8;
        value /= 10;
    }
}

/// How far a connection has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// TCP is under way.
    Connecting,
    /// The request is sent, `101` is not here.
    Upgrading,
    /// WebSocket, and it joins its rooms when it is told to.
    Waiting,
    /// WebSocket, and this many joins unanswered (or not sent: `welcome` is awaited).
    Joining(usize),
    /// In all its rooms.
    Joined,
    /// Gone.
    Closed,
}

/// Frames of who is there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Presence {
    /// `presence` events.
    pub events: u64,
    /// `occupancy` frames.
    pub counts: u64,
    /// What the last of these told.
    pub members: u64,
}

/// One connection.
pub struct Conn {
    /// The socket.
    pub stream: TcpStream,
    /// How far it has come.
    pub phase: Phase,
    /// Which gateway it is on.
    pub gateway: usize,
    /// The rooms it joins, by their number in the fleet.
    pub rooms: Range<usize>,
    /// What it sends, if it writes.
    pub template: Option<Template>,
    /// The last `seq` seen; only where it is in one room.
    pub seq: u64,
    /// The writers of its room wait for what it sees.
    pub watches: bool,
    /// Joins only when it is told to.
    pub waits: bool,
    /// Events of the writers seen.
    pub events: u64,
    /// Frames of who is there that came since it joined.
    pub presence: Presence,
    /// Commands sent and not answered.
    pub unanswered: u32,
    /// The head of a frame whose rest has not come.
    pub kept: Vec<u8>,
    /// What the socket would not take yet.
    unsent: Vec<u8>,
}

impl Conn {
    /// Begins to connect, as the fleet's `number`th.
    ///
    /// # Errors
    /// No socket or no port could be had.
    pub fn open(
        number: usize,
        gateway: usize,
        at: SocketAddr,
        rooms: Range<usize>,
        template: Option<Template>,
    ) -> io::Result<Self> {
        let stream = dial(number, at)?;
        Ok(Self {
            stream,
            phase: Phase::Connecting,
            gateway,
            rooms,
            template,
            seq: 0,
            watches: false,
            waits: false,
            events: 0,
            presence: Presence::default(),
            unanswered: 0,
            kept: Vec::new(),
            unsent: Vec::new(),
        })
    }

    /// Whether every event is accounted for: the connection is in one room only.
    pub fn tracked(&self) -> bool {
        self.rooms.len() == 1
    }

    /// Sends the upgrade once TCP stands, `query` within it. `Ok(false)` while it does not.
    ///
    /// # Errors
    /// The connection was refused or broke.
    pub fn upgrade(&mut self, user: usize, query: &str) -> io::Result<bool> {
        if let Some(error) = self.stream.take_error()? {
            return Err(error);
        }
        if self.stream.peer_addr().is_err() {
            return Ok(false);
        }
        self.stream.set_nodelay(true)?;
        let request = format!(
            "GET /ws?user=u-{user}&name=User%20{user}&{query} HTTP/1.1\r\nHost: bench\r\nUpgrade: websocket\r\n\
             Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Protocol: {SUBPROTOCOL}\r\n\r\n"
        );
        self.phase = Phase::Upgrading;
        self.unsent.extend_from_slice(request.as_bytes());
        self.flush()?;
        Ok(true)
    }

    /// Sends the commands that enter its rooms.
    ///
    /// # Errors
    /// The connection broke.
    pub fn join(&mut self, names: &[RoomId]) -> io::Result<()> {
        self.phase = Phase::Joining(self.rooms.len());
        for room in self.rooms.clone() {
            let command = CommandFrame {
                id: CommandId::new(format!("j{room}")).ok(),
                room: Some(names[room].clone()),
                command: Command::Join {
                    since: None,
                    presence: Vec::new(),
                    messages: 0,
                },
            };
            self.send(opcode::TEXT, command.to_json().as_bytes())?;
        }
        Ok(())
    }

    /// Sends the template's next command; nothing for a connection that does not write.
    ///
    /// # Errors
    /// The connection broke.
    pub fn repeat(&mut self, id: u64, stamp: u64) -> io::Result<()> {
        let Some(mut template) = self.template.take() else {
            return Ok(());
        };
        let sent = self.send(opcode::TEXT, template.fill(id, stamp));
        self.unanswered += u32::from(template.answered);
        self.template = Some(template);
        sent
    }

    /// Sends one frame.
    ///
    /// # Errors
    /// The connection broke.
    pub fn send(&mut self, opcode: u8, payload: &[u8]) -> io::Result<()> {
        push_frame(&mut self.unsent, opcode, payload);
        self.flush()
    }

    /// Writes what waits, as far as the socket takes it.
    ///
    /// # Errors
    /// The connection broke.
    pub fn flush(&mut self) -> io::Result<()> {
        let mut written = 0;
        let outcome = loop {
            let Some(rest) = self.unsent.get(written..).filter(|rest| !rest.is_empty()) else {
                break Ok(());
            };
            match self.stream.write(rest) {
                Ok(n) => written += n,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break Ok(()),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => break Err(e),
            }
        };
        self.unsent.drain(..written);
        outcome
    }

    /// Reads into `buf`; `None` where there is nothing now.
    ///
    /// # Errors
    /// The connection broke.
    pub fn read(&mut self, buf: &mut [u8]) -> io::Result<Option<usize>> {
        loop {
            match self.stream.read(buf) {
                Ok(n) => return Ok(Some(n)),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
    }
}

/// The first port that connections come from, below those that the system gives out by itself.
const FIRST_PORT: usize = 10_000;
const PORTS: usize = 22_000;

/// A socket that is connecting, from a port of our own choosing on a loopback address of this process's own: with some
/// ten thousand connections from one address, the kernel's search for a free port costs more than all else.
fn dial(number: usize, at: SocketAddr) -> io::Result<TcpStream> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?;
    // Ports of an earlier run may still be waiting for late packets.
    sockopt::set_socket_reuseaddr(&socket, true)?;
    let [_, _, high, low] = std::process::id().to_be_bytes();
    let from = Ipv4Addr::new(127, 1 + high % 100, low, (2 + number / PORTS) as u8);
    // A port that somebody listens on at every address is passed over; any free one will do then.
    let port = (FIRST_PORT + number % PORTS) as u16;
    if let Err(Errno::ADDRINUSE) = bind(&socket, &SocketAddrV4::new(from, port)) {
        bind(&socket, &SocketAddrV4::new(from, 0))?;
    }
    match connect(&socket, &at) {
        Ok(()) | Err(Errno::INPROGRESS) => Ok(TcpStream::from_std(socket.into())),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use roomgate_shared::protocol::{CommandType, Decoder};

    #[test]
    fn a_position_is_filled_in_place() {
        let room = RoomId::new("r-1").unwrap();
        for (mut template, head) in [
            (
                Template::moving(&room),
                r#"{"type":"move","room":"r-1","data":{"x":"#,
            ),
            (
                Template::signalling(&room),
                r#"{"type":"signal","room":"r-1","data":{"event":"move","payload":{"x":"#,
            ),
        ] {
            let text = String::from_utf8(template.fill(12, 34).to_vec()).unwrap();
            let tail = text.strip_prefix(head).unwrap();
            assert!(
                tail.starts_with("100000000000012,\"y\":100000000000034}"),
                "{text}"
            );
        }
    }

    #[test]
    #[expect(clippy::wildcard_enum_match_arm, reason = "two commands are made here")]
    fn a_template_is_a_command_with_the_id_and_the_stamp_in_it() {
        let room = RoomId::new("r-1").unwrap();
        for (mut template, kind) in [
            (Template::message(&room, 100), CommandType::MessageSend),
            (Template::patch(&room, 100), CommandType::StatePatch),
        ] {
            let mut text = template.fill(12, 34).to_vec();
            let found = String::from_utf8(text.clone()).unwrap();
            assert!(
                found.contains("\"k00000000000012\"") && found.contains("\"t00000000000034xx"),
                "{found}"
            );
            let mut seen = 0;
            Decoder::default().decode(&mut text, |incoming| {
                let incoming = incoming.unwrap();
                assert_eq!(incoming.kind, Some(kind));
                let size = match incoming.command(kind).unwrap() {
                    Command::MessageSend { body, .. } => body.len(),
                    Command::StatePatch { set, .. } => set[0].1.len(),
                    _ => 0,
                };
                assert_eq!(size, 100);
                seen += 1;
            });
            assert_eq!(seen, 1);
        }
    }
}
