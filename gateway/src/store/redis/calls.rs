//! The connection that room calls take: one, with all calls of a turn in one write.
//!
//! fred flushes its socket after every script call, so under load it makes a system call a command, here and at Redis (see
//! `docs/adr/0009-calls-in-one-write.md`). This link keeps what matters of fred's ways: nothing is sent twice, and what was
//! under way when the connection broke is told apart from what was never sent.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use fred::types::{Resp3Frame as Frame, Value};
use redis_protocol::resp3::decode::complete::decode_bytes_mut;
use tokio::{
    sync::{
        mpsc::{self, PermitIterator},
        oneshot,
    },
    task::JoinHandle,
    time::{Instant, MissedTickBehavior, interval, sleep},
};

use super::{
    client::{MAX_DELAY, SILENCE, TRIAL},
    config::Endpoint,
    wire::{Pipe, Wire},
};
use crate::store::StoreError;

/// Calls waiting to be written; the rooms have one each, so this is met only when Redis stalls under very many rooms.
const MAX_QUEUED: usize = 16_384;
/// Calls taken in before anything else is looked at.
const BURST: usize = 1024;
/// How often the times of calls under way are looked at.
const TICK: Duration = Duration::from_millis(250);

/// What a link needs to know.
#[derive(Debug, Clone)]
pub(super) struct Setup {
    pub(super) endpoint: Endpoint,
    /// The connection's name, for `CLIENT LIST`.
    pub(super) name: String,
    /// How long a call or a connection may take.
    pub(super) timeout: Duration,
    /// The wait before the first attempt to reconnect.
    pub(super) retry_delay: Duration,
}

/// A command's name and its arguments.
pub(super) type Command = (&'static str, Vec<Value>);

/// Where the answer to a command goes.
type Answer = oneshot::Sender<Result<Frame, StoreError>>;

struct Call {
    command: Command,
    answer: Answer,
}

/// A handle on the link; the link ends with it.
pub(super) struct Calls {
    inbox: mpsc::Sender<Call>,
    up: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

impl Drop for Calls {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Calls {
    /// Connects, for ever. Needs a runtime.
    pub(super) fn start(setup: Setup) -> Self {
        let (inbox, calls) = mpsc::channel(MAX_QUEUED);
        let up = Arc::new(AtomicBool::new(false));
        let task = tokio::spawn(serve(setup, calls, up.clone()));
        Self { inbox, up, task }
    }

    /// Whether calls can be sent.
    pub(super) fn is_up(&self) -> bool {
        self.up.load(Ordering::Acquire)
    }

    /// Sends one command. The reply may be an error that Redis sent.
    ///
    /// # Errors
    /// `Unavailable`: not sent. `Timeout`: no answer in time, or the connection broke.
    pub(super) async fn call(&self, command: &'static str, args: Vec<Value>) -> Result<Frame, StoreError> {
        let mut permits = self.permits(1)?;
        let (answer, answered) = oneshot::channel();
        if let Some(permit) = permits.next() {
            let command = (command, args);
            permit.send(Call { command, answer });
        }
        drop(permits);
        awaited(answered).await
    }

    /// Sends commands in one go, none of another caller between them, and gives their replies in their order. No step of
    /// Redis: each command stands for itself, and may fail for itself, as with [`Calls::call`]. More than
    /// [`MAX_QUEUED`] do not fit.
    pub(super) async fn pipeline(&self, commands: Vec<Command>) -> Vec<Result<Frame, StoreError>> {
        let permits = match self.permits(commands.len()) {
            Ok(permits) => permits,
            Err(error) => return vec![Err(error); commands.len()],
        };
        let mut replies = Vec::with_capacity(commands.len());
        for (permit, command) in permits.zip(commands) {
            let (answer, answered) = oneshot::channel();
            permit.send(Call { command, answer });
            replies.push(answered);
        }
        let mut out = Vec::with_capacity(replies.len());
        for answered in replies {
            out.push(awaited(answered).await);
        }
        out
    }

    /// Places in the queue for `count` commands, if the connection is up.
    fn permits(&self, count: usize) -> Result<PermitIterator<'_, Call>, StoreError> {
        let unavailable = |why: &str| StoreError::Unavailable(why.to_owned());
        if !self.is_up() {
            return Err(unavailable("not connected"));
        }
        self.inbox
            .try_reserve_many(count)
            .map_err(|_| unavailable("too many calls wait"))
    }
}

async fn awaited(answered: oneshot::Receiver<Result<Frame, StoreError>>) -> Result<Frame, StoreError> {
    let stopped = || Err(StoreError::Unavailable("the store is stopped".to_owned()));
    answered.await.unwrap_or_else(|_| stopped())
}

/// Keeps the link up.
async fn serve(setup: Setup, mut inbox: mpsc::Receiver<Call>, up: Arc<AtomicBool>) {
    let mut delay = setup.retry_delay;
    loop {
        match Wire::connect(&setup.endpoint, &setup.name, setup.timeout).await {
            Ok(wire) => {
                let mut link = Link::new(wire, setup.timeout);
                up.store(true, Ordering::Release);
                let lost = link.run(&mut inbox).await;
                up.store(false, Ordering::Release);
                for answer in link.under_way.drain(..).filter_map(|(answer, _)| answer) {
                    let _ = answer.send(Err(StoreError::Timeout(lost.to_owned())));
                }
                while let Ok(call) = inbox.try_recv() {
                    let _ = call.answer.send(Err(StoreError::Unavailable(lost.to_owned())));
                }
                if inbox.is_closed() {
                    return;
                }
                tracing::warn!(
                    reason = lost,
                    "the call connection to Redis is lost; reconnecting"
                );
                if link.answered {
                    delay = setup.retry_delay;
                }
            }
            Err(error) => tracing::debug!(%error, "the call connection to Redis cannot be made"),
        }
        sleep(delay).await;
        delay = (delay * 2).min(MAX_DELAY);
    }
}

/// One connection.
struct Link {
    pipe: Pipe,
    timeout: Duration,
    /// Whose answers are to come, in order, and since when; nobody's for a trial.
    under_way: VecDeque<(Option<Answer>, Instant)>,
    heard: Instant,
    answered: bool,
}

impl Link {
    fn new(wire: Wire, timeout: Duration) -> Self {
        Self {
            pipe: Pipe::new(wire),
            timeout,
            under_way: VecDeque::new(),
            heard: Instant::now(),
            answered: false,
        }
    }

    /// Serves until the connection is lost, and says why.
    async fn run(&mut self, inbox: &mut mpsc::Receiver<Call>) -> &'static str {
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let pending = self.pipe.is_pending();
            // Everything awaited here may be dropped half way without loss: readiness, the queue and the clock.
            let step = tokio::select! {
                ready = self.pipe.stream.readable() => ready.map_err(|_| "read failed").and_then(|()| self.read()),
                ready = self.pipe.stream.writable(), if pending => {
                    ready.map_err(|_| "write failed").and_then(|()| self.pipe.write())
                }
                call = inbox.recv() => match call {
                    Some(call) => {
                        self.take(call, inbox);
                        self.pipe.write()
                    }
                    None => return "stopped",
                },
                _ = tick.tick() => self.tick(),
            };
            if let Err(reason) = step {
                return reason;
            }
        }
    }

    /// Takes a call and those behind it, so that they go in one write.
    fn take(&mut self, call: Call, inbox: &mut mpsc::Receiver<Call>) {
        let (now, mut next) = (Instant::now(), Some(call));
        for _ in 0..BURST {
            let Some(Call { command, answer }) = next else {
                return;
            };
            push_call(&mut self.pipe.output, &command);
            self.under_way.push_back((Some(answer), now));
            next = inbox.try_recv().ok();
        }
        if let Some(Call { command, answer }) = next {
            push_call(&mut self.pipe.output, &command);
            self.under_way.push_back((Some(answer), now));
        }
    }

    fn read(&mut self) -> Result<(), &'static str> {
        if self.pipe.read()? {
            self.heard = Instant::now();
        }
        while let Some((frame, _, _)) =
            decode_bytes_mut(&mut self.pipe.input).map_err(|_| "not understood")?
        {
            let (answer, _) = self.under_way.pop_front().ok_or("an answer to nothing")?;
            self.answered = true;
            // Whoever asked may have gone.
            if let Some(answer) = answer {
                let _ = answer.send(Ok(frame));
            }
        }
        Ok(())
    }

    /// Tries a silent connection, and gives up one that does not answer.
    fn tick(&mut self) -> Result<(), &'static str> {
        match self.under_way.front() {
            Some((answer, since)) => {
                let patience = if answer.is_some() { self.timeout } else { TRIAL };
                if since.elapsed() >= patience {
                    Err("no answer in time")
                } else {
                    Ok(())
                }
            }
            None if self.heard.elapsed() >= SILENCE => {
                self.pipe.output.extend_from_slice(b"*1\r\n$4\r\nPING\r\n");
                self.under_way.push_back((None, Instant::now()));
                self.pipe.write()
            }
            None => Ok(()),
        }
    }
}

/// Appends a command as RESP.
fn push_call(out: &mut Vec<u8>, (command, args): &Command) {
    use std::io::Write as _;
    // Writing to memory does not fail.
    let _ = write!(out, "*{}\r\n${}\r\n{command}\r\n", args.len() + 1, command.len());
    for arg in args {
        let number = arg.as_i64().filter(|_| arg.is_integer()).map(|n| n.to_string());
        let bytes = number
            .as_deref()
            .map(str::as_bytes)
            .or_else(|| arg.as_bytes())
            .unwrap_or_default();
        let _ = write!(out, "${}\r\n", bytes.len());
        out.extend_from_slice(bytes);
        out.extend_from_slice(b"\r\n");
    }
}
