//! The bare server: the least that a server of this protocol can do for a message, and nothing else. It is the yardstick
//! of the benchmark: the price of the same work on the same machine in the same minute, without rooms' features.
//!
//! One thread, one epoll loop. Frames are read into one shared buffer and parsed by the protocol's decoder; the commands of
//! a room that come together go to the store in one call and are acknowledged when the store has them; an event is encoded
//! once; what a connection is to get in a turn of the loop goes out with one `writev`. With Redis a call is one script that
//! takes the next places in the order, appends to a list and publishes; its subscriber hands the events to every server.
//! No permissions, limits, presence, resume, deduplication, heartbeats or checks of anything.

mod conn;
mod redis;
mod room;

use std::{
    collections::HashMap,
    io,
    net::SocketAddr,
    process::ExitCode,
    rc::Rc,
    time::{SystemTime, UNIX_EPOCH},
};

use clap::Args;
use mio::{Events, Interest, Poll, Token, net::TcpListener};
use roomgate_shared::protocol::{Command, Decoder, event::ack_text};

use self::{conn::Conn, redis::Redis, room::Room};
use crate::failure::Failure;

/// Serves the bare protocol for `bench` to compare with.
#[derive(Debug, Args)]
pub struct BareArgs {
    /// Where to listen
    #[arg(long, env = "LISTEN", default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Which of the servers on one Redis this is
    #[arg(long, env = "NODE_ID", default_value = "bare")]
    node: String,
    /// Order and publish through this Redis
    #[arg(long, env = "REDIS_URL")]
    redis_url: Option<String>,
}

const LISTENER: Token = Token(usize::MAX);
const COMMANDS: Token = Token(usize::MAX - 1);
const EVENTS: Token = Token(usize::MAX - 2);
const READ_BYTES: usize = 64 * 1024;

/// A frame that is shared by those who get it.
type Frame = Rc<[u8]>;

/// Serves until it is killed.
///
/// # Errors
/// The address or the Redis cannot be had, or the Redis is gone.
pub fn run(args: &BareArgs) -> Result<ExitCode, Failure> {
    let poll = Poll::new()?;
    let mut listener = TcpListener::bind(args.listen)?;
    poll.registry()
        .register(&mut listener, LISTENER, Interest::READABLE)?;
    let redis = args
        .redis_url
        .as_deref()
        .map(|url| Redis::connect(url, &poll))
        .transpose()?;
    println!("listening on http://{}", listener.local_addr()?);
    let mut server = Server {
        poll,
        listener,
        node: args.node.clone(),
        redis,
        conns: Vec::new(),
        names: HashMap::new(),
        rooms: Vec::new(),
        decoder: Decoder::default(),
        dirty: Vec::new(),
        waiting: Vec::new(),
    };
    server.serve()
}

struct Server {
    poll: Poll,
    listener: TcpListener,
    node: String,
    redis: Option<Redis>,
    conns: Vec<Option<Conn>>,
    names: HashMap<String, usize>,
    rooms: Vec<Room>,
    decoder: Decoder,
    /// Connections with something to write.
    dirty: Vec<usize>,
    /// Rooms with commands that no call has taken yet.
    waiting: Vec<usize>,
}

impl Server {
    fn serve(&mut self) -> Result<ExitCode, Failure> {
        let mut events = Events::with_capacity(1024);
        let mut buf = vec![0; READ_BYTES];
        loop {
            match self.poll.poll(&mut events, None) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error.into()),
                _ => {}
            }
            for event in &events {
                match event.token() {
                    LISTENER => self.accept()?,
                    COMMANDS => self.replies()?,
                    EVENTS => self.events()?,
                    Token(index) => {
                        if event.is_writable() {
                            self.touch(index);
                        }
                        if event.is_readable() {
                            self.read(index, &mut buf);
                        }
                    }
                }
            }
            for room in std::mem::take(&mut self.waiting) {
                self.call(room)?;
            }
            if let Some(redis) = &mut self.redis {
                redis.flush()?;
            }
            for index in std::mem::take(&mut self.dirty) {
                let broken = self.conns[index]
                    .as_mut()
                    .is_some_and(|conn| conn.flush().is_err());
                if broken {
                    self.close(index);
                }
            }
        }
    }

    fn accept(&mut self) -> Result<(), Failure> {
        loop {
            match self.listener.accept() {
                Ok((mut stream, _)) => {
                    stream.set_nodelay(true)?;
                    let token = Token(self.conns.len());
                    self.poll.registry().register(
                        &mut stream,
                        token,
                        Interest::READABLE | Interest::WRITABLE,
                    )?;
                    self.conns.push(Some(Conn::new(stream)));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn read(&mut self, index: usize, buf: &mut [u8]) {
        loop {
            let Some(mut conn) = self.conns[index].take() else {
                return;
            };
            let outcome = conn.read(buf);
            let user = conn.user.clone();
            self.conns[index] = Some(conn);
            match outcome {
                Ok(Some(read)) => {
                    for frame in read.frames {
                        self.command(index, &user, &mut buf[frame]);
                    }
                    if let Some(conn) = &mut self.conns[index] {
                        conn.keep(&buf[read.rest]);
                    }
                    self.touch(index);
                    if !read.more {
                        return;
                    }
                }
                Ok(None) => return,
                Err(_) => return self.close(index),
            }
        }
    }

    fn close(&mut self, index: usize) {
        self.conns[index] = None;
        for room in &mut self.rooms {
            room.members.retain(|&member| member != index);
        }
    }

    /// Something may have to be written to a connection at the end of this turn.
    fn touch(&mut self, index: usize) {
        if let Some(conn) = &mut self.conns[index]
            && conn.touch()
        {
            self.dirty.push(index);
        }
    }

    fn push(&mut self, index: usize, frame: Frame) {
        if let Some(conn) = &mut self.conns[index] {
            conn.push(frame);
        }
        self.touch(index);
    }

    /// Puts a client's command into its room's next call.
    fn command(&mut self, index: usize, user: &str, frame: &mut [u8]) {
        let (names, rooms, waiting, redis) = (
            &mut self.names,
            &mut self.rooms,
            &mut self.waiting,
            &mut self.redis,
        );
        self.decoder.decode(frame, |incoming| {
            let Ok(incoming) = incoming else { return };
            let (Some(id), Some(kind), Ok(name)) = (&incoming.id, incoming.kind, incoming.room()) else {
                return;
            };
            let Ok(command) = incoming.command(kind) else {
                return;
            };
            let at = *names.entry(name.as_str().to_owned()).or_insert_with(|| {
                if let Some(redis) = redis {
                    redis.subscribe(&name);
                }
                rooms.push(Room::new(name.clone(), redis.is_none()));
                rooms.len() - 1
            });
            #[expect(
                clippy::wildcard_enum_match_arm,
                reason = "only what a benchmark sends is served"
            )]
            let op = match command {
                Command::Join { .. } => room::Op::Join,
                Command::MessageSend { body, .. } => room::Op::Message(body),
                Command::StatePatch { set, .. } => room::Op::Patch(set),
                _ => return,
            };
            rooms[at].add(index, id, user, op);
            if rooms[at].ready() {
                waiting.push(at);
            }
        });
    }

    /// Gives the waiting commands of a room to the store.
    fn call(&mut self, at: usize) -> Result<(), Failure> {
        let room = &mut self.rooms[at];
        let Some(batch) = room.take() else { return Ok(()) };
        match &mut self.redis {
            Some(redis) => redis.call(at, &room.name, &self.node, &batch),
            None => {
                room.done();
                let last = room.last + batch.count;
                self.deliver(at, last, &batch.text, true);
            }
        }
        Ok(())
    }

    fn replies(&mut self) -> Result<(), Failure> {
        let Some(redis) = &mut self.redis else {
            return Ok(());
        };
        for at in redis.replies()? {
            self.rooms[at].done();
            if self.rooms[at].ready() {
                self.waiting.push(at);
            }
        }
        Ok(())
    }

    fn events(&mut self) -> Result<(), Failure> {
        let Some(redis) = &mut self.redis else {
            return Ok(());
        };
        for heard in redis.heard()? {
            let Some(&at) = self.names.get(&heard.room) else {
                continue;
            };
            match heard.payload {
                None => {
                    self.rooms[at].subscribed = true;
                    if self.rooms[at].ready() {
                        self.waiting.push(at);
                    }
                }
                Some(payload) => {
                    let mut head = payload.splitn(3, '\n');
                    let (Some(last), Some(node), Some(text)) = (head.next(), head.next(), head.next()) else {
                        continue;
                    };
                    let own = node == self.node;
                    self.deliver(at, last.parse().unwrap_or(0), text, own);
                }
            }
        }
        Ok(())
    }

    /// Answers and delivers a batch whose last event has the place `last`.
    fn deliver(&mut self, at: usize, last: u64, text: &str, own: bool) {
        let ts = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
            .as_millis() as u64;
        let mut seq = last - text.lines().count() as u64;
        let mut chunk = Vec::new();
        for line in text.lines() {
            seq += 1;
            let Some(op) = room::Line::read(line) else {
                continue;
            };
            let (event, answer) = op.texts(&self.rooms[at].name, seq, ts);
            conn::push_text(&mut chunk, &event);
            if !own {
                continue;
            }
            if op.joins() {
                self.give(at, &mut chunk);
                self.rooms[at].members.push(op.conn);
            }
            let mut ack = Vec::new();
            conn::push_text(&mut ack, &ack_text(&op.id, Some(&self.rooms[at].name), &answer));
            self.push(op.conn, ack.into());
        }
        self.give(at, &mut chunk);
        self.rooms[at].last = last;
    }

    fn give(&mut self, at: usize, chunk: &mut Vec<u8>) {
        let frames: Frame = std::mem::take(chunk).into();
        let members = std::mem::take(&mut self.rooms[at].members);
        if !frames.is_empty() {
            for &member in &members {
                self.push(member, frames.clone());
            }
        }
        self.rooms[at].members = members;
    }
}
