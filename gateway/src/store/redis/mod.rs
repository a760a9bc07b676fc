//! Rooms in Redis.
//!
//! | file | subject |
//! |---|---|
//! | `lua/` | the room function: a batch as one atomic step; every key and field is described there |
//! | [`function`] | the Lua files as one library with a versioned name |
//! | [`request`], [`reply`], [`picture`] | a batch as arguments, an answer as replies, snapshots and resumes |
//! | [`heads`] | where rooms stand |
//! | [`users`] | users over all rooms and nodes |
//! | [`registry`] | the index of rooms, rebuilt where it is lost |
//! | [`lease`] | this node's lease and its rooms, dead nodes, and what is due |
//! | [`client`], [`errors`] | the command connection (fred), and what its errors mean |
//! | [`subscriber`] | the event connection, its confirmations and its trials |
//! | [`boot`] | what is checked before serving |
//!
//! A batch is one `FCALL`. Each room has one slot: nothing here needs two keys of different rooms in one step. The
//! registry ([`keys::ROOMS`]) is an index that is written behind, and may lag or lack a room.

mod boot;
mod calls;
mod client;
mod config;
mod errors;
mod function;
mod heads;
mod lease;
mod picture;
mod registry;
mod reply;
mod request;
mod subscriber;
mod users;
mod wire;

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use fred::types::Value;
use parking_lot::Mutex;
use roomgate_shared::{
    ids::{NodeId, RoomId},
    keys,
    protocol::command::RoomStatus,
};
use tokio::time::{Instant, sleep};

use self::{
    boot::Attempt,
    client::CommandClient,
    config::Endpoint,
    lease::{Lease, Renewed},
    reply::Swept,
    subscriber::{Publish, Setup, Subscriber},
};
pub use self::{
    boot::BootError,
    config::{ConfigError, RedisConfig, Secret},
};
use super::{Applied, Beat, BoxFuture, EventSink, Head, Op, Readiness, Store, StoreError, Users};
use crate::random;

/// How long it is taken as known which gateways live.
const LIVE: Duration = Duration::from_secs(2);
/// How often an unreachable Redis is reported while starting.
const REPORT: Duration = Duration::from_secs(5);

/// The [`Store`] on Redis. [`RedisStore::boot`] comes before anything else.
pub struct RedisStore {
    endpoint: Endpoint,
    node: NodeId,
    timeout: Duration,
    retry_delay: Duration,
    limits: Bytes,
    /// How long users may be away.
    grace: Duration,
    lease: Lease,
    /// Half of a room's life from its last change, ms.
    half_life: u64,
    sink: Arc<dyn EventSink>,
    commands: Arc<CommandClient>,
    /// Instances that live, and when that was looked up.
    live: Mutex<Option<(Instant, Arc<[String]>)>>,
    subscriber: OnceLock<Subscriber>,
    /// What was found at the start.
    server: OnceLock<String>,
    /// The registry has been seen to be whole.
    whole: AtomicBool,
}

impl RedisStore {
    /// Reads the configuration; connects to nothing. `sink` gets the payloads.
    ///
    /// # Errors
    /// The URL cannot be used; the message says what is accepted.
    pub fn new(config: RedisConfig, sink: Arc<dyn EventSink>) -> Result<Arc<Self>, ConfigError> {
        let endpoint = Endpoint::parse(&config.url)?;
        let commands = Arc::new(CommandClient::new(&config, &endpoint));
        Ok(Arc::new(Self {
            limits: request::limits_text(&config.limits),
            grace: config.limits.grace,
            lease: Lease::new(config.node.clone(), config.lease),
            half_life: config.limits.active_ttl.as_millis() as u64 / 2,
            node: config.node,
            timeout: config.timeout,
            retry_delay: config.retry_delay,
            endpoint,
            sink,
            commands,
            live: Mutex::new(None),
            subscriber: OnceLock::new(),
            server: OnceLock::new(),
            whole: AtomicBool::new(false),
        }))
    }

    /// Connects, checks the server, loads the function library, and proves that a payload published comes back. Tries
    /// for `wait` if Redis cannot be reached or is starting.
    ///
    /// # Errors
    /// At once for what will not pass by itself (login, permission, version), else when `wait` is over.
    pub async fn boot(&self, wait: Duration) -> Result<(), BootError> {
        let start = Instant::now();
        let mut reported: Option<Instant> = None;
        let mut delay = self.retry_delay;
        loop {
            let reason = match self.attempt().await {
                Ok(()) => match self.take_lease().await {
                    Ok(()) => return Ok(()),
                    Err(Attempt::Never(error)) => return Err(error),
                    Err(Attempt::Again(reason)) => reason,
                },
                Err(Attempt::Never(error)) => return Err(error),
                Err(Attempt::Again(reason)) => reason,
            };
            let waited = start.elapsed();
            if waited + delay >= wait {
                return Err(BootError::Unreachable {
                    address: self.endpoint.to_string(),
                    wait,
                    reason,
                });
            }
            if reported.is_none_or(|at| at.elapsed() >= REPORT) {
                tracing::warn!(address = %self.endpoint, reason, "Redis is not ready; waiting for it");
                reported = Some(Instant::now());
            }
            sleep(delay).await;
            delay = (delay * 2).min(Duration::from_secs(1));
        }
    }

    /// The server that was found at the start, for the log.
    pub fn server(&self) -> &str {
        self.server.get().map_or("Redis", String::as_str)
    }

    async fn attempt(&self) -> Result<(), Attempt> {
        let name = format!("roomgate:{}", self.node);
        let server = boot::look(&self.endpoint, &name, self.timeout).await?;
        let _ = self.server.set(server);
        self.commands.start();
        self.commands.wait(self.timeout).await.map_err(Attempt::Again)?;
        let subscriber = self.subscriber.get_or_init(|| self.start_subscriber());
        subscriber.wait(self.timeout).await.map_err(Attempt::Again)
    }

    /// The first sign of life; and whether everything can be written that is to be written later.
    async fn take_lease(&self) -> Result<(), Attempt> {
        let refused = |error: StoreError| {
            let text = error.to_string();
            if text.contains("NOPERM") || text.contains(errors::NOT_ALLOWED) {
                boot::refused(self.endpoint.to_string(), format!("NOPERM {text}"))
            } else {
                Attempt::Again(text)
            }
        };
        self.renew(false).await.map_err(refused)?;
        for command in [lease::claim(0, Duration::ZERO), self.lease.size()] {
            self.commands.ask(command).await.map_err(refused)?;
        }
        Ok(())
    }

    fn start_subscriber(&self) -> Subscriber {
        let commands = Arc::clone(&self.commands);
        let publish: Publish = Arc::new(move |channel, payload| {
            let commands = Arc::clone(&commands);
            Box::pin(async move { commands.publish(channel, payload).await })
        });
        Subscriber::start(Setup {
            endpoint: self.endpoint.clone(),
            name: format!("roomgate:{}:events", self.node),
            channel: format!("node:{}:probe", self.node),
            timeout: self.timeout,
            retry_delay: self.retry_delay,
            sink: Arc::clone(&self.sink),
            publish,
            random: random::bits,
            moved: self.commands.moved(),
        })
    }

    async fn call(&self, room: &RoomId, ops: Vec<Op>) -> Result<Applied, StoreError> {
        let (enters, loses, ends) = (
            ops.iter().any(enters),
            ops.iter().any(loses),
            ops.iter().any(ends),
        );
        if enters && !self.lease.lasts() {
            // Frozen, or out of touch: what enters under a lease that is over may not be found when this node ends.
            self.renew(false).await?;
        }
        let removes = ops.iter().any(|op| matches!(op, Op::Remove { .. }));
        let (connection, instance) = (self.commands.connection(), self.lease.instance());
        let mut ahead = Vec::new();
        // Before the first member is in: a node that dies between the two leaves a room named too many, not too few.
        if enters {
            ahead.extend(self.lease.registration(room, connection).into_iter().flatten());
        }
        let registers = !ahead.is_empty();
        if ends {
            // Whoever archives it may die before that is done.
            ahead.push(lease::touch(room, Duration::ZERO));
        } else if registers || loses {
            ahead.push(lease::touch(room, self.grace));
        }
        let request = request::encode(room, ops, &self.limits, &instance, random::epoch);
        let (frame, went) = self.commands.call(ahead, request.args).await?;
        match went {
            Ok(number) if registers => {
                if number == connection {
                    self.lease.registered(room, connection, &instance);
                }
            }
            Ok(_) => {}
            Err(error) => tracing::error!(%room, %error, "the room is not written down for the sweep"),
        }
        let answer = reply::decode(room, frame, request.expect)?;
        if let Some(life) = answer.life {
            self.behind("ZADD", &[keys::ROOMS, "GT", &life.to_string(), room.as_str()]);
            // With each room that is entered or renewed go those whose life has ended.
            self.behind(
                "ZREMRANGEBYSCORE",
                &[keys::ROOMS, "-inf", &format!("({}", self.now_ms())],
            );
            let (touch, args) = lease::touch(room, self.grace);
            self.commands.send_and_forget(touch, args);
        }
        match answer.swept {
            Some(Swept::Until(next)) => self.commands.post(lease::swept(room, Some(next))),
            Some(Swept::InPart) => self.commands.post(lease::still_sweeping(room)),
            Some(Swept::Gone) => {
                self.commands.post(lease::swept(room, None));
                self.behind("ZREM", &[keys::ROOMS, room.as_str()]);
            }
            None => {}
        }
        if removes && answer.applied.replies.iter().all(Result::is_ok) {
            let struck = registry::strike(&self.commands, room).await;
            if let Err(error) = struck {
                tracing::debug!(%room, %error, "a removed room is struck off by a sweep");
            }
        }
        Ok(answer.applied)
    }

    /// Renews the lease, or takes another one. With `look`: dead nodes that this one is to see to.
    async fn renew(&self, look: bool) -> Result<Vec<String>, StoreError> {
        loop {
            let answer = self.commands.ask(self.lease.renewal(look)).await;
            if let Renewed::Held(dead) = self.lease.renewed(answer)? {
                return Ok(dead);
            }
        }
    }

    /// Instances that live, as far as the store knows; looked up again once a while.
    async fn live_instances(&self) -> Result<Arc<[String]>, StoreError> {
        if let Some((at, live)) = self.live.lock().clone()
            && at.elapsed() < LIVE
        {
            return Ok(live);
        }
        let answer = self.commands.ask(lease::live()).await?;
        let texts = reply::texts(answer).unwrap_or_default();
        let live: Arc<[String]> = texts.iter().filter_map(reply::owned).collect();
        *self.live.lock() = Some((Instant::now(), live.clone()));
        Ok(live)
    }

    /// Writes to an index, behind the call that it belongs to.
    fn behind(&self, command: &'static str, args: &[&str]) {
        let args = args
            .iter()
            .map(|text| Value::Bytes(Bytes::copy_from_slice(text.as_bytes())));
        self.commands.send_and_forget(command, args.collect());
    }

    /// Rooms named in an answer.
    fn rooms(frame: fred::types::Resp3Frame) -> Result<Vec<RoomId>, StoreError> {
        let texts = reply::list(frame)
            .and_then(|items| items.into_iter().map(reply::text).collect::<Option<Vec<_>>>());
        let texts = texts.ok_or_else(|| StoreError::Internal("not a list of rooms".to_owned()))?;
        let rooms = texts
            .iter()
            .filter_map(|text| RoomId::new(std::str::from_utf8(text).ok()?).ok());
        Ok(rooms.collect())
    }
}

/// Whether connections of this node enter by it.
fn enters(op: &Op) -> bool {
    matches!(op, Op::Join(_) | Op::Return { .. })
}

/// Whether a user may be away after it.
fn loses(op: &Op) -> bool {
    matches!(op, Op::Part { leaving: false, .. } | Op::Bury { .. })
}

/// Whether the room may be completed by it.
fn ends(op: &Op) -> bool {
    matches!(
        op,
        Op::Status {
            status: RoomStatus::Completed,
            ..
        }
    )
}

impl Store for RedisStore {
    fn apply<'a>(&'a self, room: &'a RoomId, ops: Vec<Op>) -> BoxFuture<'a, Result<Applied, StoreError>> {
        Box::pin(self.call(room, ops))
    }

    fn heads<'a>(&'a self, rooms: &'a [RoomId]) -> BoxFuture<'a, Vec<Result<Option<Head>, StoreError>>> {
        Box::pin(async move {
            let due = self.now_ms() + self.half_life;
            let commands = rooms.iter().map(heads::command).collect();
            let replies = self.commands.pipeline(commands).await;
            replies
                .into_iter()
                .map(|reply| heads::decode(reply?, due))
                .collect()
        })
    }

    fn subscribe<'a>(&'a self, room: &'a RoomId) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async move {
            // Without commands a subscription is of no use, and the subscriber may not have noticed yet.
            self.commands.check()?;
            match self.subscriber.get() {
                Some(subscriber) => subscriber.subscribe(room).await,
                None => Err(StoreError::unavailable("the store has not been started")),
            }
        })
    }

    fn unsubscribe(&self, room: &RoomId) {
        if let Some(subscriber) = self.subscriber.get() {
            subscriber.unsubscribe(room);
        }
        self.commands.post(self.lease.deregistration(room));
    }

    fn publish(&self, room: &RoomId, payload: Bytes) {
        let channel = Value::Bytes(keys::events_channel(room).into());
        self.commands
            .post(("PUBLISH", vec![channel, Value::Bytes(payload)]));
    }

    fn claim_due(&self, most: usize, claim: Duration) -> BoxFuture<'_, Result<Vec<RoomId>, StoreError>> {
        Box::pin(async move { Self::rooms(self.commands.ask(lease::claim(most, claim)).await?) })
    }

    fn beat(&self) -> BoxFuture<'_, Result<Beat, StoreError>> {
        Box::pin(async move {
            let dead = self.renew(true).await?;
            let lost = self.lease.was_lost();
            Ok(Beat { lost, dead })
        })
    }

    fn rooms_of<'a>(&'a self, node: &'a str, most: usize) -> BoxFuture<'a, Result<Vec<RoomId>, StoreError>> {
        Box::pin(async move {
            let [mourn, some] = lease::rooms_of(node, most);
            self.commands.ask(mourn).await?;
            let rooms = Self::rooms(self.commands.ask(some).await?)?;
            if rooms.is_empty() {
                self.commands.ask(lease::forgotten(node)).await?;
            }
            Ok(rooms)
        })
    }

    fn buried<'a>(&'a self, node: &'a str, rooms: Vec<RoomId>) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async move {
            if !rooms.is_empty() {
                self.commands.ask(lease::buried(node, &rooms)).await?;
            }
            Ok(())
        })
    }

    fn look_after(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move {
            let written = registry::look_after(&self.commands).await?;
            let was_whole = self.whole.swap(true, Ordering::Relaxed);
            if let Some(rooms) = written {
                if was_whole {
                    tracing::warn!(rooms, "the registry of rooms was lost, and has been rebuilt");
                } else {
                    tracing::info!(rooms, "the registry of rooms is written down");
                }
            }
            Ok(())
        })
    }

    fn users(&self) -> &dyn Users {
        self
    }

    fn resign(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let [rooms, none_left, some_left] = self.lease.resignation();
            let left = self.commands.ask(rooms).await;
            let none = left.as_ref().is_ok_and(|left| reply::number(left) == Some(0));
            let last = if none { none_left } else { some_left };
            if let Err(error) = self.commands.ask(last).await {
                tracing::debug!(%error, "the lease could not be given back; it ends by itself");
            }
        })
    }

    fn instance(&self) -> Arc<str> {
        self.lease.instance()
    }

    fn readiness(&self) -> Readiness {
        let reason = if let Some(trouble) = self.commands.trouble() {
            return Readiness::NotReady(format!("the command connection to Redis is down: {trouble}"));
        } else if !self.commands.is_loaded() {
            "the function library is not loaded"
        } else if !self.subscriber.get().is_some_and(Subscriber::is_proven) {
            "no payload comes back over the subscription"
        } else if !self.lease.is_taken() {
            "this gateway has no lease"
        } else {
            return Readiness::Ready;
        };
        Readiness::NotReady(reason.to_owned())
    }

    fn now_ms(&self) -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }
}
