//! The connection that room calls take: one, with all calls of a turn in one write.
//!
//! fred flushes its socket after every script call, so under load it makes a system call a command, here and at Redis (see
//! `docs/adr/0009-calls-in-one-write.md`). This file is what callers see and how the link is kept: nothing is sent twice,
//! and while there is no proven connection a [`Breaker`] refuses calls at once, saying when the next trial comes. One
//! connection's life is [`link`]'s.

mod link;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use fred::types::{Resp3Frame as Frame, Value};
use parking_lot::Mutex;
use tokio::{
    sync::{
        mpsc::{self, PermitIterator},
        oneshot, watch,
    },
    task::JoinHandle,
    time::{Instant, sleep_until, timeout},
};

use self::link::{DEMOTED, Link};
use super::{
    client::TRIAL,
    config::Endpoint,
    wire::{Wire, WireError},
};
use crate::{
    breaker::{Breaker, State},
    metrics::metrics,
    store::{StoreError, Unreachable},
};

/// Calls waiting to be written; the rooms have one each, so this is met only when Redis stalls under very many rooms.
const MAX_QUEUED: usize = 16_384;

/// What a link needs to know.
#[derive(Debug, Clone)]
pub(super) struct Setup {
    pub(super) endpoint: Endpoint,
    /// The connection's name, for `CLIENT LIST`.
    pub(super) name: String,
    /// How long a call may take. A connection has [`TRIAL`], if that is shorter.
    pub(super) timeout: Duration,
    /// The wait before the first attempt to reconnect, and the longest.
    pub(super) retry_delay: Duration,
    pub(super) longest_delay: Duration,
    /// Replicas that must have a write before it is answered.
    pub(super) replicas: u32,
    /// Raised when writes are taken again after a server had turned out to be a replica: whatever else is connected to that
    /// one is to connect anew.
    pub(super) moved: watch::Sender<u64>,
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
    status: Arc<Status>,
    task: JoinHandle<()>,
}

/// What callers look at.
struct Status {
    /// The breaker is closed: there is a proven connection.
    up: AtomicBool,
    breaker: Mutex<Breaker>,
    /// Why there is no connection.
    trouble: Mutex<String>,
    /// Counts the connections.
    number: AtomicU64,
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
        let breaker = Breaker::untried(setup.retry_delay, setup.longest_delay, Instant::now());
        let status = Arc::new(Status {
            up: AtomicBool::new(false),
            breaker: Mutex::new(breaker),
            trouble: Mutex::new("not connected yet".to_owned()),
            number: AtomicU64::new(0),
        });
        let task = tokio::spawn(serve(setup, calls, Arc::clone(&status)));
        Self { inbox, status, task }
    }

    /// Whether calls can be sent.
    ///
    /// # Errors
    /// `Unavailable`, with the time until the next trial.
    pub(super) fn check(&self) -> Result<(), StoreError> {
        if self.status.up.load(Ordering::Acquire) {
            Ok(())
        } else {
            Err(self.status.unavailable())
        }
    }

    /// Sends one command. The reply may be an error that Redis sent.
    ///
    /// # Errors
    /// `Unavailable`: not sent. `Timeout`: no answer in time, or the connection broke; or it is written, but not known to
    /// be on as many replicas as asked for.
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

    /// The number of the connection: another one after each loss.
    pub(super) fn number(&self) -> u64 {
        self.status.number.load(Ordering::Acquire)
    }

    /// Sends a command whose answer nobody waits for, in the order of the calls. Dropped where it cannot be sent now.
    pub(super) fn post(&self, command: Command) {
        if let Ok(mut permits) = self.permits(1)
            && let Some(permit) = permits.next()
        {
            let (answer, _) = oneshot::channel();
            permit.send(Call { command, answer });
        }
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
        self.check()?;
        self.inbox
            .try_reserve_many(count)
            .map_err(|_| StoreError::unavailable("too many calls wait"))
    }
}

async fn awaited(answered: oneshot::Receiver<Result<Frame, StoreError>>) -> Result<Frame, StoreError> {
    let stopped = || Err(StoreError::unavailable("the store is stopped"));
    answered.await.unwrap_or_else(|_| stopped())
}

impl Status {
    fn unavailable(&self) -> StoreError {
        StoreError::Unavailable(Unreachable {
            reason: self.trouble.lock().clone().into(),
            retry_after: self.breaker.lock().retry_after(Instant::now()),
        })
    }

    /// A trial, when it is due. Waits until then.
    async fn trial(&self) {
        loop {
            let now = Instant::now();
            let admitted = self.breaker.lock().admit(now);
            match admitted {
                Ok(()) => return self.show(),
                Err(wait) => sleep_until(now + wait).await,
            }
        }
    }

    fn connected(&self) {
        self.number.fetch_add(1, Ordering::AcqRel);
        self.breaker.lock().succeeded();
        self.show();
    }

    fn failed(&self, why: &str) {
        why.clone_into(&mut self.trouble.lock());
        if self.breaker.lock().failed(Instant::now()) {
            metrics().redis_openings.increment(1);
        }
        self.show();
    }

    fn show(&self) {
        let state = self.breaker.lock().state();
        self.up.store(state == State::Closed, Ordering::Release);
        metrics().redis_breaker.set(state.level());
    }
}

/// Keeps the link up.
async fn serve(setup: Setup, mut inbox: mpsc::Receiver<Call>, status: Arc<Status>) {
    let mut replica = false;
    loop {
        status.trial().await;
        match prove(&setup).await {
            Ok(wire) => {
                let mut link = Link::new(wire, setup.timeout, setup.replicas);
                status.connected();
                if std::mem::take(&mut replica) {
                    setup.moved.send_modify(|times| *times += 1);
                }
                let lost = link.run(&mut inbox).await;
                status.failed(lost);
                link.fail(lost);
                tracing::debug!(
                    reason = lost,
                    "the call connection to Redis is lost; reconnecting"
                );
                replica = lost == DEMOTED;
            }
            Err(error) => {
                replica |= matches!(error, WireError::Replica);
                status.failed(&error.to_string());
                tracing::debug!(%error, "the call connection to Redis cannot be made");
            }
        }
        // What was queued behind the loss, or found the way open just before it.
        while let Ok(call) = inbox.try_recv() {
            let _ = call.answer.send(Err(status.unavailable()));
        }
        if inbox.is_closed() {
            return;
        }
    }
}

/// A connection to a server that answers and takes writes.
async fn prove(setup: &Setup) -> Result<Wire, WireError> {
    let patience = setup.timeout.min(TRIAL);
    let proof = async {
        let mut wire = Wire::connect(&setup.endpoint, &setup.name, patience).await?;
        if wire.is_replica {
            return Err(WireError::Replica);
        }
        // HELLO is answered by a server that still loads its data, PING is not.
        wire.ask(&["PING"]).await?;
        Ok(wire)
    };
    timeout(patience, proof)
        .await
        .map_err(|_| WireError::Timeout(patience))?
}
