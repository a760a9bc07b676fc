//! One connection of a client: joins, commands, answers, events.

use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use futures_util::{SinkExt, StreamExt, stream::SplitSink};
use tokio::{net::TcpStream, time::timeout};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Message, protocol::frame::coding::CloseCode},
};

use super::{
    client::{Client, End, Pending},
    history::{Event, Since, What},
    wire::{self, Durable, Frame},
};

type Socket = WebSocketStream<TcpStream>;

/// How long a frame may take to be handed to the operating system.
const WRITE: Duration = Duration::from_secs(5);
/// Nothing new is sent while so many commands have no answer.
const MAX_PENDING: usize = 8;
/// How often a connection looks at its clocks when nothing else wakes it.
const LOOK: Duration = Duration::from_millis(250);

impl Client {
    /// Lives on a connection until it ends.
    pub(super) async fn stay(&mut self, socket: Socket) -> End {
        let (mut sink, mut stream) = socket.split();
        let mut heard = Instant::now();
        let mut pinged = false;
        let drops = self.orders.borrow_and_update().drops;
        let mut out = Vec::new();
        (0..self.rooms.len()).for_each(|room| self.join(room, &mut out));
        loop {
            if let Err(why) = write(&mut sink, &mut out).await {
                return End::Lost(why);
            }
            let orders = *self.orders.borrow_and_update();
            if orders.over {
                return End::Over;
            }
            if orders.drops != drops || !orders.online {
                return End::Dropped;
            }
            let wake = self.next_command.min(Instant::now() + LOOK);
            tokio::select! {
                message = stream.next(), if orders.reading => {
                    heard = Instant::now();
                    pinged = false;
                    match message {
                        Some(Ok(message)) => {
                            if let Some(end) = self.message(message, &mut out) {
                                return end;
                            }
                        }
                        Some(Err(error)) => return End::Lost(error.to_string()),
                        None => return End::Lost("the stream ended".to_owned()),
                    }
                }
                changed = self.orders.changed() => {
                    if changed.is_err() {
                        return End::Over;
                    }
                    heard = Instant::now();
                }
                () = tokio::time::sleep_until(wake.into()), if orders.reading => {}
            }
            if !orders.reading {
                continue;
            }
            let silent = heard.elapsed();
            if silent > self.crowd.habits.silence {
                return End::Lost(format!("nothing heard for {} ms", silent.as_millis()));
            }
            if silent > self.crowd.habits.silence / 3 && !pinged {
                pinged = true;
                out.push(r#"{"type":"ping"}"#.to_owned());
            }
            if let Some(end) = self.look_at_clocks(&mut out) {
                return end;
            }
        }
    }

    fn join(&mut self, at: usize, out: &mut Vec<String>) {
        let room = &mut self.rooms[at];
        room.joining = Some(Instant::now());
        room.retry = None;
        out.push(wire::join(&format!("j{at}"), &room.id, room.since.as_ref()));
        self.pen.write(What::Join {
            room: room.id.clone(),
            since: room.since.clone(),
        });
    }

    /// Sends what is due; ends a connection on which answers stay away.
    fn look_at_clocks(&mut self, out: &mut Vec<String>) -> Option<End> {
        let now = Instant::now();
        let patience = self.crowd.habits.unanswered;
        let late = |sent: Option<Instant>| sent.is_some_and(|sent| now - sent > patience);
        let unanswered = self.pending.values().find(|pending| late(pending.sent));
        if let Some(pending) = unanswered {
            return Some(End::Lost(format!("{} has no answer", pending.id)));
        }
        if self.rooms.iter().any(|room| late(room.joining)) {
            return Some(End::Lost("a join has no answer".to_owned()));
        }
        for at in 0..self.rooms.len() {
            if self.rooms[at].retry.is_some_and(|retry| retry <= now) {
                self.join(at, out);
            }
        }
        let joined: Vec<bool> = self.rooms.iter().map(|room| room.joined).collect();
        for pending in self.pending.values_mut() {
            if joined[pending.room] && pending.retry.is_some_and(|retry| retry <= now) {
                self.pen.write(again(pending, &self.rooms[pending.room].id));
                pending.send(out);
            }
        }
        if self.next_command <= now {
            self.next_command = now + self.pace();
            let sending = self.crowd.sending.load(Ordering::Relaxed);
            if sending && self.pending.len() < MAX_PENDING {
                self.command(out);
            }
        }
        None
    }

    fn pace(&mut self) -> Duration {
        Duration::from_secs_f64((0.5 + self.rng.f64()) / self.crowd.habits.rate)
    }

    /// A new command in one of the rooms that the connection is in.
    fn command(&mut self, out: &mut Vec<String>) {
        let at = self.rng.usize(0..self.rooms.len());
        if !self.rooms[at].joined {
            return;
        }
        let kind = match self.rng.u8(0..4) {
            0 => Durable::Broadcast,
            1 => Durable::Patch,
            _ => Durable::Message,
        };
        self.made += 1;
        let (id, token) = (
            format!("k{}-{}", self.number, self.made),
            format!("t{}-{}", self.number, self.made),
        );
        let room = &self.rooms[at].id;
        let text = kind.command(&id, room, &self.user, &token, self.padding());
        let mut pending = Pending {
            room: at,
            of: kind.as_str(),
            id,
            token,
            text,
            sent: None,
            retry: None,
        };
        self.pen.write(sent(&pending, room, false));
        pending.send(out);
        // Positions go along; they are in no order, and nobody waits for them.
        if self.rng.bool() {
            out.push(wire::move_to(
                room,
                self.rng.u32(0..1_000),
                self.rng.u32(0..1_000),
            ));
        }
        self.pending.insert(self.made, pending);
        self.show();
    }

    /// A message of the gateway; the end, if it is one.
    fn message(&mut self, message: Message, out: &mut Vec<String>) -> Option<End> {
        match message {
            Message::Text(text) => match serde_json::from_str::<Frame>(&text) {
                Ok(frame) => self.frame(&frame, out),
                Err(error) => return Some(End::Lost(format!("a frame that is none: {error}"))),
            },
            Message::Close(frame) => {
                let (code, reason) = frame.map_or((1005, String::new()), |frame| {
                    (u16::from(frame.code), frame.reason.to_string())
                });
                return Some(End::Closed(code, reason));
            }
            Message::Binary(_) => {
                return Some(End::Closed(
                    u16::from(CloseCode::Unsupported),
                    "binary".to_owned(),
                ));
            }
            Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
        }
        None
    }

    fn frame(&mut self, frame: &Frame, out: &mut Vec<String>) {
        match frame.of.as_str() {
            "ack" => self.ack(frame, out),
            "error" => self.error(frame, out),
            "resync" => self.resync(frame),
            "status" => self.status(frame),
            _ if frame.seq.is_some() => self.event(frame),
            // `welcome`, `pong`, ephemeral frames, and what is not known.
            _ => {}
        }
    }

    fn place(&self, frame: &Frame) -> Option<usize> {
        let room = frame.room.as_deref()?;
        self.rooms.iter().position(|known| known.id == room)
    }

    fn ack(&mut self, frame: &Frame, out: &mut Vec<String>) {
        let id = frame.id.as_deref().unwrap_or_default();
        if id.starts_with('j') {
            return self.joined(frame, out);
        }
        let Some(pending) = self.take(id) else { return };
        self.crowd.counts.acked.fetch_add(1, Ordering::Relaxed);
        self.pen.write(What::Acked {
            room: frame.room.clone().unwrap_or_default(),
            id: pending.id,
            seq: frame.acked_seq().unwrap_or(0),
            duplicate: frame.duplicate,
        });
        self.show();
    }

    fn take(&mut self, id: &str) -> Option<Pending> {
        let number = id.rsplit_once('-')?.1.parse().ok()?;
        self.pending.remove(&number)
    }

    fn joined(&mut self, frame: &Frame, out: &mut Vec<String>) {
        let Some(at) = self.place(frame) else { return };
        let epoch = frame.text("epoch").unwrap_or_default().to_owned();
        let seq = frame.number("seq").unwrap_or(0);
        let recovered = frame.data.get("recovered").and_then(serde_json::Value::as_bool) == Some(true);
        let missed = frame.number("missed");
        self.pen.write(What::Joined {
            room: self.rooms[at].id.clone(),
            epoch: epoch.clone(),
            seq,
            recovered,
            missed,
            reason: frame.text("reason").map(str::to_owned),
        });
        let room = &mut self.rooms[at];
        // After a resume the missed events come next; until they have, the client is where it was.
        let handled = match (&room.since, recovered) {
            (Some(since), true) => since.seq,
            _ => seq,
        };
        room.since = Some(Since { epoch, seq: handled });
        room.joined = true;
        room.joining = None;
        self.failures = 0;
        for pending in self.pending.values_mut() {
            if pending.room == at && pending.sent.is_none() {
                self.pen.write(again(pending, &self.rooms[at].id));
                pending.send(out);
            }
        }
        self.show();
    }

    fn error(&mut self, frame: &Frame, out: &mut Vec<String>) {
        let code = frame.text("code").unwrap_or_default().to_owned();
        let id = frame.id.as_deref().unwrap_or_default();
        self.pen.write(What::Failed {
            room: frame.room.clone(),
            id: frame.id.clone(),
            code: code.clone(),
        });
        if code == "timeout" {
            self.crowd.counts.timeouts.fetch_add(1, Ordering::Relaxed);
        }
        let retryable = frame.data.get("retryable").and_then(serde_json::Value::as_bool) == Some(true);
        let after = Duration::from_millis(frame.number("retryAfterMs").unwrap_or(250));
        let retry = Instant::now() + after.mul_f64(1.0 + self.rng.f64() / 2.0);
        let place = self.place(frame);
        if id.starts_with('j') {
            let Some(at) = place else { return };
            self.rooms[at].joining = None;
            match retryable {
                true => self.rooms[at].retry = Some(retry),
                false => self.gave_up(id, code),
            }
            return;
        }
        let Some((_, number)) = id.rsplit_once('-') else {
            return;
        };
        let Ok(number) = number.parse() else { return };
        let Some(pending) = self.pending.get_mut(&number) else {
            return;
        };
        if retryable {
            pending.sent = None;
            pending.retry = Some(retry);
        } else if code == "not_joined" {
            // The gateway has lost the membership: joined again, what is unanswered is sent again.
            pending.sent = None;
            pending.retry = None;
            let at = pending.room;
            if std::mem::take(&mut self.rooms[at].joined) {
                self.join(at, out);
            }
        } else {
            self.pending.remove(&number);
            self.gave_up(id, code);
        }
        self.show();
    }

    fn gave_up(&mut self, id: &str, code: String) {
        let id = Some(id.to_owned());
        self.pen.write(What::GaveUp { id, code });
    }

    fn resync(&mut self, frame: &Frame) {
        let Some(at) = self.place(frame) else { return };
        let epoch = frame.text("epoch").unwrap_or_default().to_owned();
        let seq = frame.number("seq").unwrap_or(0);
        self.pen.write(What::Resync {
            room: self.rooms[at].id.clone(),
            epoch: epoch.clone(),
            seq,
            reason: frame.text("reason").map(str::to_owned),
        });
        self.rooms[at].since = Some(Since { epoch, seq });
        self.show();
    }

    fn status(&mut self, frame: &Frame) {
        let epoch = frame.text("epoch").map(str::to_owned);
        self.pen.write(What::Status {
            room: frame.room.clone(),
            redis: frame.text("redis").map(str::to_owned),
            epoch: epoch.clone(),
        });
        let Some(at) = self.place(frame) else { return };
        if let (Some(since), Some(epoch)) = (&mut self.rooms[at].since, epoch) {
            since.epoch = epoch;
        }
        self.show();
    }

    fn event(&mut self, frame: &Frame) {
        let (room, seq) = (frame.room.clone().unwrap_or_default(), frame.seq.unwrap_or(0));
        let at = self.place(frame);
        let since = at.and_then(|at| self.rooms[at].since.as_mut());
        let epoch = since.as_ref().map_or(String::new(), |since| since.epoch.clone());
        if let Some(since) = since {
            since.seq = since.seq.max(seq);
        }
        self.pen.event(Event {
            room,
            epoch,
            seq,
            of: frame.of.clone(),
            token: frame.token(),
            by: frame.by.clone(),
            digest: frame.digest(),
        });
        if let Some(at) = at {
            self.crowd.update(self.number, |view| {
                if let Some(Some(since)) = view.rooms.get_mut(at).map(|(_, since, _)| since) {
                    since.seq = since.seq.max(seq);
                }
            });
        }
    }
}

impl Pending {
    fn send(&mut self, out: &mut Vec<String>) {
        self.sent = Some(Instant::now());
        self.retry = None;
        out.push(self.text.clone());
    }
}

fn again(pending: &Pending, room: &str) -> What {
    sent(pending, room, true)
}

fn sent(pending: &Pending, room: &str, again: bool) -> What {
    What::Sent {
        room: room.to_owned(),
        id: pending.id.clone(),
        of: pending.of.to_owned(),
        token: pending.token.clone(),
        again,
    }
}

async fn write(sink: &mut SplitSink<Socket, Message>, out: &mut Vec<String>) -> Result<(), String> {
    for text in out.drain(..) {
        timeout(WRITE, sink.send(Message::text(text)))
            .await
            .map_err(|_| "nothing can be written".to_owned())?
            .map_err(|error| error.to_string())?;
    }
    Ok(())
}
