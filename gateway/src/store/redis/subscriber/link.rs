//! One connection's life: what is sent, what comes in, and whether anything still does.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::Poll,
    time::Duration,
};

use bytes::Bytes;
use redis_protocol::resp3::{decode::complete::decode_range, types::RangeFrame};
use roomgate_shared::keys;
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep_until},
};

use super::{
    Request, SILENCE, Setup, TRIAL,
    rooms::{Confirmed, Rooms},
};
use crate::store::{
    Control,
    redis::wire::{Pipe, Wire, push_command},
};

/// Pause before a payload that Redis did not take is published again.
const AGAIN: Duration = Duration::from_millis(100);
/// Channels in one command.
const CHANNELS: usize = 512;
/// Requests taken in before anything else is looked at.
const BURST: usize = 256;

/// Why a link ended.
pub(super) enum Lost {
    /// Nobody can ask any more.
    Stopped,
    /// Broken, deaf, or not understood.
    Connection(&'static str),
}

/// The trial of a connection. Both must come back: the payload alone would not show that nothing arrives at Redis, the
/// PING's answer alone not that nothing is heard of what is published.
struct Trial {
    began: Instant,
    /// When it has failed.
    end: Instant,
    ponged: bool,
    echoed: bool,
    /// What publishing came to: `None` while it is under way or if Redis did not take it.
    published: Option<u64>,
    publishing: Option<Pin<Box<dyn Future<Output = Option<u64>> + Send>>>,
    /// What comes back.
    token: Bytes,
}

/// One connection.
pub(super) struct Link<'a> {
    setup: &'a Setup,
    pipe: Pipe,
    rooms: &'a mut Rooms,
    proven: Arc<AtomicBool>,
    /// Confirmations owed before the subscription counts as proven, and the interruption is told where one came before.
    owed: usize,
    tell: bool,
    /// The last trial went well; confirmations may be owed still.
    well: bool,
    heard: Instant,
    /// When the last trial ended.
    tried: Instant,
    trial: Option<Trial>,
}

impl<'a> Link<'a> {
    /// Takes over a connection and asks for the rooms that are wanted. `tell`: an interruption came before.
    pub(super) fn new(
        setup: &'a Setup,
        wire: Wire,
        rooms: &'a mut Rooms,
        proven: Arc<AtomicBool>,
        tell: bool,
    ) -> Self {
        let mut output = Vec::new();
        rooms.own(&setup.channel);
        rooms.own(keys::CONTROL);
        push_command(&mut output, &["SUBSCRIBE", &setup.channel, keys::CONTROL]);
        for channels in rooms.resubscribe().chunks(CHANNELS) {
            push_channels(&mut output, "SUBSCRIBE", channels);
        }
        let owed = rooms.owed();
        let mut pipe = Pipe::new(wire);
        pipe.output = output;
        let heard = Instant::now();
        // A new connection is on trial at once; it is published to when the node's own channel is confirmed.
        let trial = Some(Trial {
            began: heard,
            end: heard + TRIAL,
            ponged: false,
            echoed: false,
            published: None,
            publishing: None,
            token: Bytes::new(),
        });
        Self {
            setup,
            pipe,
            rooms,
            proven,
            owed,
            tell,
            well: false,
            heard,
            tried: heard,
            trial,
        }
    }

    /// Serves until the connection is lost. `failures` is set to 0 when it has proven itself.
    pub(super) async fn run(
        mut self,
        inbox: &mut mpsc::UnboundedReceiver<Request>,
        moved: &mut watch::Receiver<u64>,
        failures: &mut u32,
    ) -> Lost {
        loop {
            let pending = self.pipe.is_pending();
            let due = self
                .trial
                .as_ref()
                .map_or(self.tried + SILENCE, |trial| trial.end);
            // Everything awaited here may be dropped half way without loss: readiness, the queue, the clock, a count
            // that is watched, and a future that `trial` keeps.
            let step = tokio::select! {
                ready = self.pipe.stream.readable() => ready.map_err(|_| "read failed").and_then(|()| self.read()),
                ready = self.pipe.stream.writable(), if pending => {
                    ready.map_err(|_| "write failed").and_then(|()| self.pipe.write())
                }
                request = inbox.recv() => match request {
                    Some(request) => {
                        self.take(request, inbox);
                        self.pipe.write()
                    }
                    None => return Lost::Stopped,
                },
                published = published(&mut self.trial) => self.published(published),
                () = sleep_until(due) => self.due(),
                Ok(()) = moved.changed() => Err("another server takes the writes now"),
            };
            if let Err(reason) = step {
                return Lost::Connection(reason);
            }
            if self.proven.load(Ordering::Relaxed) {
                *failures = 0;
            }
        }
    }

    /// Takes one request and those behind it, so that they go in one write.
    fn take(&mut self, request: Request, inbox: &mut mpsc::UnboundedReceiver<Request>) {
        let mut next = Some(request);
        let mut subscribe = Vec::new();
        for _ in 0..BURST {
            match next {
                Some(Request::Subscribe(room, done)) => subscribe.push(self.rooms.subscribe(room, done)),
                Some(Request::Unsubscribe(room)) => {
                    push_channels(&mut self.pipe.output, "SUBSCRIBE", &subscribe);
                    subscribe.clear();
                    let channel = self.rooms.unsubscribe(&room);
                    push_command(&mut self.pipe.output, &["UNSUBSCRIBE", &channel]);
                }
                None => break,
            }
            next = inbox.try_recv().ok();
        }
        push_channels(&mut self.pipe.output, "SUBSCRIBE", &subscribe);
        if let Some(Request::Subscribe(room, done)) = next {
            let channel = self.rooms.subscribe(room, done);
            push_command(&mut self.pipe.output, &["SUBSCRIBE", &channel]);
        } else if let Some(Request::Unsubscribe(room)) = next {
            let channel = self.rooms.unsubscribe(&room);
            push_command(&mut self.pipe.output, &["UNSUBSCRIBE", &channel]);
        }
    }

    fn read(&mut self) -> Result<(), &'static str> {
        if self.pipe.read()? {
            self.heard = Instant::now();
        }
        while let Some((frame, length)) = decode_range(&self.pipe.input).map_err(|_| "not understood")? {
            let bytes = self.pipe.input.split_to(length).freeze();
            self.handle(&frame, &bytes)?;
        }
        self.pipe.write()
    }

    fn handle(&mut self, frame: &RangeFrame, bytes: &Bytes) -> Result<(), &'static str> {
        let RangeFrame::Push { data: parts, .. } = frame else {
            // The answer to PING; an error, for example of an ACL that forbids the channel.
            if matches!(
                frame,
                RangeFrame::SimpleString { .. } | RangeFrame::BlobString { .. }
            ) {
                if let Some(trial) = &mut self.trial {
                    trial.ponged = true;
                    self.shorten();
                    self.prove();
                }
                return Ok(());
            }
            if let RangeFrame::SimpleError {
                data: (start, end), ..
            } = frame
            {
                let error = String::from_utf8_lossy(&bytes[*start..*end]);
                tracing::error!(%error, "Redis refuses a command of the event subscriber");
            }
            return Err("a command was refused");
        };
        let mut texts = parts.iter().map(|part| {
            if let RangeFrame::BlobString {
                data: (start, end), ..
            } = part
            {
                Some(*start..*end)
            } else {
                None
            }
        });
        let (Some(Some(kind)), Some(Some(channel))) = (texts.next(), texts.next()) else {
            return Err("an unknown push");
        };
        let channel = &bytes[channel];
        let confirmed = match &bytes[kind] {
            b"message" => {
                let payload = texts.next().flatten().ok_or("a message without payload")?;
                self.message(channel, bytes.slice(payload));
                return Ok(());
            }
            b"subscribe" => self.rooms.subscribed(channel),
            b"unsubscribe" => self.rooms.unsubscribed(channel),
            _ => return Ok(()),
        };
        match confirmed {
            Confirmed::Fine if channel == self.setup.channel.as_bytes() => self.try_out(),
            Confirmed::Fine => {}
            Confirmed::Unwanted(room) => {
                let channel = self.rooms.unsubscribe(&room);
                push_command(&mut self.pipe.output, &["UNSUBSCRIBE", &channel]);
            }
            Confirmed::Unexpected => return Err("Redis ended a subscription"),
        }
        if self.owed > 0 {
            self.owed -= 1;
            if self.owed == 0 && self.tell {
                tracing::debug!("the event subscription to Redis is back; all rooms are confirmed");
                self.setup.sink.interrupted();
            }
            self.prove();
        }
        Ok(())
    }

    fn message(&mut self, channel: &[u8], payload: Bytes) {
        let Ok(channel) = std::str::from_utf8(channel) else {
            return;
        };
        if let Some(room) = keys::room_of_channel(channel) {
            self.setup.sink.payload(room, payload);
        } else if channel == keys::CONTROL {
            match Control::read(&payload) {
                Some(control) => self.setup.sink.control(control),
                None => {
                    tracing::error!("what was said to all gateways is nothing that one of this version says")
                }
            }
        } else if channel == self.setup.channel
            && let Some(trial) = &mut self.trial
            && trial.token == payload
        {
            trial.echoed = true;
            self.prove();
        }
    }

    /// Ends a trial that has gone well, and makes it known once no confirmation is owed.
    fn prove(&mut self) {
        if self
            .trial
            .as_ref()
            .is_some_and(|trial| trial.ponged && trial.echoed)
        {
            self.end_trial(true);
        }
        if self.well && self.owed == 0 {
            self.proven.store(true, Ordering::Release);
        }
    }

    fn end_trial(&mut self, well: bool) {
        self.trial = None;
        self.tried = Instant::now();
        self.well = well;
    }

    /// The time of the next step has come: a trial begins, or has failed.
    fn due(&mut self) -> Result<(), &'static str> {
        match &self.trial {
            None => {
                self.try_out();
                self.pipe.write()
            }
            // Redis lives, but cannot be published to: no word on the subscription. The call connection's own
            // supervision sees to that; after an outage it is often back a little later than this one.
            Some(Trial {
                ponged: true,
                published: None,
                ..
            }) => {
                self.end_trial(false);
                self.proven.store(false, Ordering::Release);
                self.try_out();
                self.pipe.write()
            }
            // What comes back may stand behind much else. While that flows in, it has as long again.
            Some(trial) if self.heard.elapsed() < SILENCE && trial.began.elapsed() < 2 * TRIAL => {
                if let Some(trial) = &mut self.trial {
                    trial.end = Instant::now() + SILENCE;
                }
                Ok(())
            }
            Some(_) => Err("deaf: nothing has come through"),
        }
    }

    fn try_out(&mut self) {
        let token = Bytes::from(format!("{:016x}", (self.setup.random)()));
        push_command(&mut self.pipe.output, &["PING"]);
        let publishing = (self.setup.publish)(self.setup.channel.clone(), token.clone());
        let began = Instant::now();
        self.trial = Some(Trial {
            began,
            end: began + TRIAL,
            ponged: false,
            echoed: false,
            published: None,
            publishing: Some(publishing),
            token,
        });
    }

    fn published(&mut self, receivers: Option<u64>) -> Result<(), &'static str> {
        if receivers == Some(0) {
            return Err("deaf: Redis knows of no subscription");
        }
        if let Some(trial) = &mut self.trial {
            trial.publishing = None;
            trial.published = receivers;
        }
        self.shorten();
        Ok(())
    }

    /// A trial whose payload Redis has not taken shows nothing, however long it is waited for.
    fn shorten(&mut self) {
        if let Some(trial) = &mut self.trial
            && trial.ponged
            && trial.publishing.is_none()
            && trial.published.is_none()
        {
            trial.end = trial.end.min(Instant::now() + AGAIN);
        }
    }
}

/// Waits for a trial's publication, if one is under way. Being dropped, it loses nothing: the trial keeps the future.
fn published(trial: &mut Option<Trial>) -> impl Future<Output = Option<u64>> {
    std::future::poll_fn(
        move |context| match trial.as_mut().and_then(|trial| trial.publishing.as_mut()) {
            Some(publishing) => publishing.as_mut().poll(context),
            None => Poll::Pending,
        },
    )
}

fn push_channels(output: &mut Vec<u8>, command: &'static str, channels: &[String]) {
    if !channels.is_empty() {
        let arguments: Vec<&str> = std::iter::once(command)
            .chain(channels.iter().map(String::as_str))
            .collect();
        push_command(output, &arguments);
    }
}
