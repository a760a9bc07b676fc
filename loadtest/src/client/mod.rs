//! A fleet of WebSocket clients on one thread, made to cost far less than the server it loads: one epoll loop, one
//! buffer to read into, no JSON parsed for an event. Yet each delivery is accounted for: every `seq` must be the one
//! after the last, and at rest every member has seen exactly the commands acknowledged in its room.

pub mod conn;
pub mod frames;
pub mod histogram;
pub mod positions;
mod rest;
mod wire;

use std::{
    io,
    net::SocketAddr,
    ops::Range,
    time::{Duration, Instant},
};

use mio::{Interest, Poll, Token};
use roomgate_shared::ids::RoomId;

use self::conn::{Conn, Phase};
pub use self::{
    conn::{Presence, Template},
    histogram::Histogram,
    positions::Positions,
};
use crate::failure::Failure;

/// How many connections are between connecting and joined at one time. Small enough for any listener's backlog (128 is
/// usual): a connection that finds it full is tried again by the kernel a second later.
const OPENING: usize = 100;
/// How many joins are unanswered at one time, for connections that enter many rooms: a gateway's queue to its store is
/// bounded, and what it refuses says nothing about what it can do.
const JOINING: usize = 4_096;
/// The size of the buffer that all connections read into.
const READ_BYTES: usize = 256 * 1024;
/// Problems kept with their text; more are only counted.
const KEPT_PROBLEMS: usize = 5;

/// Who connects where.
pub struct Member {
    gateway: usize,
    rooms: Range<usize>,
    template: Option<Template>,
    watches: bool,
    waits: bool,
}

impl Member {
    /// One who is in `rooms` (by number) through a gateway (by number) and only listens.
    pub fn reader(gateway: usize, rooms: Range<usize>) -> Self {
        Self {
            gateway,
            rooms,
            template: None,
            watches: false,
            waits: false,
        }
    }

    /// One who is in one room and repeats the template's command.
    pub fn writer(gateway: usize, room: usize, template: Template) -> Self {
        Self {
            gateway,
            rooms: room..room + 1,
            template: Some(template),
            watches: false,
            waits: false,
        }
    }

    /// The writers of its room wait for it: a command is in flight until this member has seen its event.
    pub fn watching(mut self) -> Self {
        self.watches = true;
        self
    }

    /// It connects, and joins its room only when [`Fleet::enter`] says so.
    pub fn waiting(mut self) -> Self {
        self.waits = true;
        self
    }
}

/// What writers do while the fleet runs.
#[derive(Debug, Clone, Copy)]
pub enum Load {
    /// Nothing is sent but pongs.
    Idle,
    /// Each writer has one command in flight: the next goes when the last is acknowledged and, in a room that is watched,
    /// seen by the member that watches.
    Closed,
    /// So many commands a second over all writers in turn, whatever is acknowledged.
    Paced(u32),
}

/// What was counted since the fleet was made.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    /// Events received, by gateway.
    pub delivered: Vec<u64>,
    /// Commands acknowledged.
    pub acked: u64,
    /// Pings answered.
    pub pings: u64,
}

#[derive(Default)]
struct Room {
    acked: u64,
    writers: u64,
    watched: bool,
    /// Commands sent and events seen by the member that watches.
    sent: u64,
    seen: u64,
    /// Writers that wait for an event to be seen.
    parked: Vec<usize>,
}

/// The clients.
pub struct Fleet {
    poll: Poll,
    gateways: Vec<SocketAddr>,
    names: Vec<RoomId>,
    rooms: Vec<Room>,
    conns: Vec<Conn>,
    writers: Vec<usize>,
    buf: Vec<u8>,
    load: Load,
    next_id: u64,
    next_writer: usize,
    opening: usize,
    /// Joins unanswered or still to be sent by those.
    joining: usize,
    clock: Instant,
    tally: Tally,
    /// Times from publish to delivery, recorded while it is there.
    pub latency: Option<Histogram>,
    /// What stands in the query of every handshake besides the user; a token, for example.
    pub query: String,
    /// Positions told, accounted for while it is there.
    pub positions: Option<Positions>,
    /// When a connection last came to be in all its rooms.
    last_joined: Instant,
    problems: Vec<String>,
    problem_count: u64,
}

impl Fleet {
    /// A fleet without connections yet, for these gateways and `rooms` rooms.
    ///
    /// # Errors
    /// The system has no epoll to give.
    pub fn new(gateways: Vec<SocketAddr>, rooms: usize) -> Result<Self, Failure> {
        let names = (0..rooms)
            .filter_map(|n| RoomId::new(format!("room-{n}")).ok())
            .collect();
        Ok(Self {
            poll: Poll::new()?,
            tally: Tally {
                delivered: vec![0; gateways.len()],
                ..Tally::default()
            },
            gateways,
            names,
            rooms: (0..rooms).map(|_| Room::default()).collect(),
            conns: Vec::new(),
            writers: Vec::new(),
            buf: vec![0; READ_BYTES],
            load: Load::Idle,
            next_id: 1,
            next_writer: 0,
            opening: 0,
            joining: 0,
            clock: Instant::now(),
            latency: None,
            query: String::new(),
            positions: None,
            last_joined: Instant::now(),
            problems: Vec::new(),
            problem_count: 0,
        })
    }

    /// The name of a room.
    pub fn room(&self, number: usize) -> &RoomId {
        &self.names[number]
    }

    /// What was counted up to now.
    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    /// Connections that are in their rooms.
    pub fn joined(&self) -> usize {
        self.conns
            .iter()
            .filter(|conn| conn.phase == Phase::Joined)
            .count()
    }

    /// Connections opened so far; the next one has this number.
    pub fn len(&self) -> usize {
        self.conns.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.conns.is_empty()
    }

    /// The frames of who is there that came to a connection since it joined.
    pub fn presence(&self, connection: usize) -> Presence {
        self.conns[connection].presence
    }

    /// What went wrong: a hole, a loss, a refused command, a closed connection.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = self.problems.clone();
        let more = self.problem_count - problems.len() as u64;
        if more > 0 {
            problems.push(format!("… and {more} more"));
        }
        problems
    }

    /// Opens the connections and joins their rooms, a few hundred at a time; done when all are in.
    ///
    /// # Errors
    /// A connection failed, or they are not all in within `limit`.
    pub fn open(&mut self, members: Vec<Member>, limit: Duration) -> Result<Duration, Failure> {
        let started = Instant::now();
        let wanted = members.len();
        let mut members = members.into_iter();
        loop {
            while self.opening < OPENING && self.joining < JOINING {
                let Some(member) = members.next() else { break };
                self.connect(member)?;
            }
            if self.opening == 0 {
                return Ok(started.elapsed());
            }
            if started.elapsed() > limit {
                let missing = self.opening + members.len();
                return Err(Failure::Slow(format!(
                    "{missing} of {wanted} connections not joined in {limit:?}"
                )));
            }
            self.turn(Duration::from_millis(50))?;
            if let Some(problem) = self.problems.first() {
                return Err(Failure::Wrong(problem.clone()));
            }
        }
    }

    /// Joins a connection that waits to its room; how long it took until the answer was there.
    ///
    /// # Errors
    /// There is no answer within `limit`, or another than expected.
    pub fn enter(&mut self, connection: usize, limit: Duration) -> Result<Duration, Failure> {
        let conn = &mut self.conns[connection];
        if conn.phase != Phase::Waiting {
            return Err(Failure::Wrong(format!(
                "connection {connection} does not wait to join"
            )));
        }
        self.opening += 1;
        self.joining += conn.rooms.len();
        let started = Instant::now();
        let sent = conn.join(&self.names);
        self.broken(connection, sent);
        while self.opening > 0 {
            if started.elapsed() > limit {
                return Err(Failure::Slow(format!(
                    "connection {connection} not joined in {limit:?}"
                )));
            }
            self.turn(Duration::from_millis(50))?;
        }
        match self.problems.first() {
            Some(problem) => Err(Failure::Wrong(problem.clone())),
            None => Ok(self.last_joined - started),
        }
    }

    fn connect(&mut self, member: Member) -> Result<(), Failure> {
        let index = self.conns.len();
        if member.template.is_some() {
            self.writers.push(index);
        }
        let room = &mut self.rooms[member.rooms.start];
        room.writers += u64::from(member.template.is_some());
        room.watched |= member.watches;
        let at = self.gateways[member.gateway];
        let mut conn = Conn::open(index, member.gateway, at, member.rooms, member.template)?;
        conn.watches = member.watches;
        conn.waits = member.waits;
        self.poll.registry().register(
            &mut conn.stream,
            Token(index),
            Interest::READABLE | Interest::WRITABLE,
        )?;
        self.opening += 1;
        self.joining += conn.rooms.len();
        self.conns.push(conn);
        Ok(())
    }

    /// Runs for `duration` under `load`, then leaves the writers as they are; `drain` ends them.
    ///
    /// # Errors
    /// Interrupted, or the poll failed.
    pub fn run(&mut self, load: Load, duration: Duration) -> Result<(), Failure> {
        let until = Instant::now() + duration;
        let was_closed = matches!(self.load, Load::Closed);
        self.load = load;
        match load {
            Load::Closed if !was_closed => {
                self.rooms.iter_mut().for_each(|room| room.parked.clear());
                for at in 0..self.writers.len() {
                    self.repeat(self.writers[at]);
                }
            }
            Load::Closed | Load::Idle | Load::Paced(_) => {}
        }
        let mut due = Instant::now();
        loop {
            let now = Instant::now();
            if now >= until {
                return Ok(());
            }
            let mut wait = until - now;
            if let Load::Paced(per_second) = load {
                let gap = Duration::from_secs(1) / per_second.max(1);
                while due <= now && !self.writers.is_empty() {
                    self.repeat(self.writers[self.next_writer]);
                    self.next_writer = (self.next_writer + 1) % self.writers.len();
                    due += gap;
                }
                wait = wait.min(due.saturating_duration_since(now));
            }
            self.turn(wait)?;
        }
    }

    fn problem(&mut self, text: String) {
        self.problem_count += 1;
        if self.problems.len() < KEPT_PROBLEMS {
            self.problems.push(text);
        }
    }

    /// The writer's last command is acknowledged.
    fn go_on(&mut self, index: usize) {
        let room = &mut self.rooms[self.conns[index].rooms.start];
        if room.watched && room.sent - room.seen >= room.writers {
            room.parked.push(index);
        } else {
            self.repeat(index);
        }
    }

    fn repeat(&mut self, index: usize) {
        self.rooms[self.conns[index].rooms.start].sent += 1;
        let id = self.next_id;
        self.next_id += 1;
        let stamp = self.clock.elapsed().as_micros() as u64;
        if let Some(positions) = &mut self.positions {
            positions.sent(index, id);
        }
        let sent = self.conns[index].repeat(id, stamp);
        self.broken(index, sent);
    }

    /// Notes a connection that failed.
    fn broken(&mut self, index: usize, outcome: io::Result<()>) {
        if let Err(error) = outcome {
            self.close(index, &error.to_string());
        }
    }

    fn close(&mut self, index: usize, why: &str) {
        let conn = &mut self.conns[index];
        match conn.phase {
            Phase::Closed => return,
            Phase::Joined | Phase::Waiting => {}
            Phase::Connecting | Phase::Upgrading => {
                self.opening -= 1;
                self.joining -= conn.rooms.len();
            }
            Phase::Joining(left) => {
                self.opening -= 1;
                self.joining -= left;
            }
        }
        conn.phase = Phase::Closed;
        self.problem(format!("connection {index} closed: {why}"));
    }
}
