//! Commands: fred, told never to send one twice, to give up in time and to queue within bounds; and beside it the
//! connection of the room calls, [`super::calls`].

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use fred::{
    clients::Client,
    interfaces::{ClientLike as _, EventInterface as _},
    types::{
        ClusterHash, CustomCommand, Resp3Frame as Frame, RespVersion, Value,
        config::{
            Config, ConnectionConfig, PerformanceConfig, ReconnectPolicy, Server, ServerConfig, TcpConfig,
            UnresponsiveConfig,
        },
    },
};
use parking_lot::{Mutex, RwLock};
use tokio::{
    sync::{broadcast::error::RecvError, watch},
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};

use super::{
    calls::{self, Calls, Command},
    config::{Endpoint, RedisConfig},
    errors::{CommandError, error_text, of_fred, of_redis},
    function::LIBRARY,
};
use crate::store::StoreError;

/// Longest wait between attempts to reconnect.
pub(super) const MAX_DELAY: Duration = Duration::from_secs(2);
/// Commands waiting to be written. Each room has one call under way at most, so this is met only when Redis stalls
/// under very many rooms.
const MAX_QUEUED: usize = 16_384;

/// Silence after which a connection is tried, and how long a trial may take: a dead one is known to be dead within five
/// seconds. As the subscriber's.
pub(super) const SILENCE: Duration = Duration::from_secs(1);
pub(super) const TRIAL: Duration = Duration::from_secs(3);

/// The command connection.
pub(super) struct CommandClient {
    shared: Arc<Shared>,
    setup: calls::Setup,
    /// See [`calls::Setup`].
    moved: watch::Sender<u64>,
    calls: OnceLock<Calls>,
    supervisor: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    make: Box<dyn Fn() -> Client + Send + Sync>,
    /// fred's client. Another takes its place when its connection is stuck: fred's own supervision looks at how long ago
    /// it wrote, and so misses a dead link that it goes on writing to.
    fred: RwLock<Client>,
    /// The connection is known to be broken. fred itself says so only when its first attempt to reconnect has failed.
    down: AtomicBool,
    /// The library is known to be loaded on the server of this connection.
    loaded: AtomicBool,
    /// Counts what Redis has answered.
    answers: AtomicU64,
}

impl CommandClient {
    /// Prepares the connection; [`CommandClient::start`] makes it.
    pub(super) fn new(config: &RedisConfig, endpoint: &Endpoint) -> Self {
        let make = fred_of(config, endpoint);
        let shared = Shared {
            fred: RwLock::new(make()),
            make: Box::new(make),
            down: AtomicBool::new(true),
            loaded: AtomicBool::new(false),
            answers: AtomicU64::new(0),
        };
        let moved = watch::Sender::new(0);
        let setup = calls::Setup {
            endpoint: endpoint.clone(),
            name: format!("roomgate:{}:calls", config.node),
            timeout: config.timeout,
            retry_delay: config.retry_delay,
            longest_delay: config.longest_delay(),
            replicas: config.wait_replicas,
            moved: moved.clone(),
        };
        Self {
            shared: Arc::new(shared),
            setup,
            moved,
            calls: OnceLock::new(),
            supervisor: Mutex::new(None),
        }
    }

    /// Starts connecting, for ever, if that has not been done. Needs a runtime.
    pub(super) fn start(&self) {
        self.calls.get_or_init(|| Calls::start(self.setup.clone()));
        self.supervisor
            .lock()
            .get_or_insert_with(|| tokio::spawn(supervise(Arc::clone(&self.shared), self.moved())));
    }

    /// Changes when the address leads to another server than before.
    pub(super) fn moved(&self) -> watch::Receiver<u64> {
        self.moved.subscribe()
    }

    /// Waits until connected with the library loaded.
    pub(super) async fn wait(&self, patience: Duration) -> Result<(), String> {
        let ready = async {
            while !(self.trouble().is_none() && self.is_loaded()) {
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(patience, ready).await.map_err(|_| {
            let trouble = self.trouble().unwrap_or_else(|| "no function library".to_owned());
            format!("the command connection is not up within {patience:?}: {trouble}")
        })
    }

    /// Why not all commands can be sent, if so.
    pub(super) fn trouble(&self) -> Option<String> {
        match self.check() {
            Err(StoreError::Unavailable(away)) => Some(away.reason.into_owned()),
            Err(error) => Some(error.to_string()),
            Ok(()) if !self.shared.is_up() => Some("fred's is being made anew".to_owned()),
            Ok(()) => None,
        }
    }

    /// Whether room calls can be sent.
    ///
    /// # Errors
    /// `Unavailable`, with the time until the connection is tried again.
    pub(super) fn check(&self) -> Result<(), StoreError> {
        self.calls().map(|_| ())
    }

    /// Whether the library is known to be there.
    pub(super) fn is_loaded(&self) -> bool {
        self.shared.loaded.load(Ordering::Acquire)
    }

    /// `FCALL` with `args`; loads the library if it is not there, and calls once more. `ahead` is carried out before it, in
    /// one go with it; the connection's number if that went well, else why not.
    pub(super) async fn call(
        &self,
        ahead: Vec<Command>,
        args: Vec<Value>,
    ) -> Result<(Frame, Result<u64, StoreError>), StoreError> {
        // The arguments share their bytes: a copy is cheap.
        let again = (ahead.clone(), args.clone());
        match self.call_once(ahead, args).await {
            Err(CommandError::NoFunction) => {
                self.shared.loaded.store(false, Ordering::Release);
                let calls = self.calls()?;
                let loaded = calls.call("FUNCTION", library()).await?;
                self.shared.loaded(answer(loaded))?;
                Ok(self.call_once(again.0, again.1).await?)
            }
            result => Ok(result?),
        }
    }

    async fn call_once(
        &self,
        mut ahead: Vec<Command>,
        args: Vec<Value>,
    ) -> Result<(Frame, Result<u64, StoreError>), CommandError> {
        let calls = self.calls().map_err(CommandError::Store)?;
        let number = calls.number();
        if ahead.is_empty() {
            let frame = answer(calls.call("FCALL", args).await.map_err(CommandError::Store)?)?;
            return Ok((frame, Ok(number)));
        }
        ahead.push(("FCALL", args));
        let mut replies = calls.pipeline(ahead).await;
        let last = replies
            .pop()
            .unwrap_or_else(|| Err(StoreError::unavailable("nothing was sent")));
        let frame = answer(last.map_err(CommandError::Store)?)?;
        let mut before = replies.into_iter();
        let went = before.try_for_each(|reply| answer(reply?).map(|_| ()).map_err(StoreError::from));
        Ok((frame, went.map(|()| number)))
    }

    /// The number of the connection of the room calls; see [`Calls::number`].
    pub(super) fn connection(&self) -> u64 {
        self.calls.get().map_or(0, Calls::number)
    }

    /// See [`Calls::post`].
    pub(super) fn post(&self, command: Command) {
        if let Ok(calls) = self.calls() {
            calls.post(command);
        }
    }

    /// One command over the connection of the room calls, which is no room's.
    pub(super) async fn ask(&self, command: Command) -> Result<Frame, StoreError> {
        let mut replies = self.pipeline(vec![command]).await;
        let reply = replies.pop().unwrap_or(Err(CommandError::NoFunction));
        Ok(reply?)
    }

    /// Sends commands in one go over the connection of the room calls; see [`Calls::pipeline`].
    pub(super) async fn pipeline(&self, commands: Vec<Command>) -> Vec<Result<Frame, CommandError>> {
        let replies = match self.calls() {
            Ok(calls) => calls.pipeline(commands).await,
            Err(error) => vec![Err(error); commands.len()],
        };
        let answers = replies
            .into_iter()
            .map(|reply| answer(reply.map_err(CommandError::Store)?));
        answers.collect()
    }

    /// Publishes a payload where the calls of rooms do: only so does its coming back show that their events do, whatever
    /// servers the address has led to. How many received it; `None` if Redis did not take it.
    pub(super) async fn publish(&self, channel: String, payload: Bytes) -> Option<u64> {
        let args = vec![Value::Bytes(channel.into()), Value::Bytes(payload)];
        match self.calls().ok()?.call("PUBLISH", args).await {
            Ok(Frame::Number { data, .. }) => u64::try_from(data).ok(),
            Ok(_) | Err(_) => None,
        }
    }

    fn calls(&self) -> Result<&Calls, StoreError> {
        let calls = self.calls.get();
        let calls = calls.ok_or_else(|| StoreError::unavailable("the store has not been started"))?;
        calls.check()?;
        Ok(calls)
    }

    /// Sends one command whose answer nobody waits for. Needs a runtime.
    pub(super) fn send_and_forget(&self, command: &'static str, args: Vec<Value>) {
        if !self.shared.is_up() {
            return;
        }
        let shared = Arc::clone(&self.shared);
        tokio::spawn(async move {
            if let Err(error) = send(&shared, command, args).await {
                tracing::debug!(command, ?error, "a command whose answer is not needed has failed");
            }
        });
    }
}

impl Drop for CommandClient {
    fn drop(&mut self) {
        if let Some(task) = self.supervisor.get_mut().take() {
            task.abort();
        }
    }
}

async fn send(shared: &Shared, command: &'static str, args: Vec<Value>) -> Result<Frame, CommandError> {
    let fred = shared.fred.read().clone();
    let command = CustomCommand::new_static(command, ClusterHash::FirstKey, false);
    let frame = fred
        .custom_raw(command, args)
        .await
        .map_err(|error| CommandError::Store(of_fred(&error)))?;
    shared.answers.fetch_add(1, Ordering::Relaxed);
    answer(frame)
}

/// A reply, unless it is an error.
fn answer(frame: Frame) -> Result<Frame, CommandError> {
    match error_text(&frame) {
        Some(text) => Err(of_redis(&text)),
        None => Ok(frame),
    }
}

/// The arguments of `FUNCTION` that load the library.
fn library() -> Vec<Value> {
    vec![Value::from_static_str("LOAD"), Value::Bytes(LIBRARY.code.clone())]
}

impl Shared {
    /// Whether fred's connection is up.
    fn is_up(&self) -> bool {
        !self.down.load(Ordering::Acquire) && self.fred.read().is_connected()
    }

    /// The library has been loaded; that it is there already is as good.
    fn loaded(&self, result: Result<Frame, CommandError>) -> Result<(), CommandError> {
        match result {
            Ok(_) => {
                tracing::debug!(library = %String::from_utf8_lossy(&LIBRARY.name), "function library loaded");
            }
            Err(CommandError::Store(StoreError::Internal(text))) if text.contains("already exists") => {}
            Err(error) => return Err(error),
        }
        self.loaded.store(true, Ordering::Release);
        Ok(())
    }
}

/// A task that ends with this.
struct Task<T>(JoinHandle<T>);

impl<T> Drop for Task<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Keeps a connection up. A silent one is tried; one that does not answer is thrown away with all that waits on it.
async fn supervise(shared: Arc<Shared>, mut moved: watch::Receiver<u64>) {
    loop {
        let fred = shared.fred.read().clone();
        let _watch = Task(tokio::spawn(watch(fred.clone(), Arc::clone(&shared))));
        let connection = Task(fred.connect());
        let (mut answers, mut heard) = (0, Instant::now());
        loop {
            tokio::select! {
                () = sleep(SILENCE / 4) => {}
                Ok(()) = moved.changed() => break,
            }
            if connection.0.is_finished() {
                tracing::error!("fred has given up the command connection to Redis; starting anew");
                break;
            }
            let now = shared.answers.load(Ordering::Relaxed);
            if std::mem::replace(&mut answers, now) != now || !shared.is_up() {
                heard = Instant::now();
            }
            if heard.elapsed() >= SILENCE && timeout(TRIAL, send(&shared, "PING", Vec::new())).await.is_err()
            {
                tracing::debug!("fred's connection to Redis does not answer; making another");
                break;
            }
        }
        shared.down.store(true, Ordering::Release);
        shared.loaded.store(false, Ordering::Release);
        *shared.fred.write() = (shared.make)();
    }
}

/// Follows a connection: marks it down at once when it breaks, and makes sure of the library when it is back.
async fn watch(fred: Client, shared: Arc<Shared>) {
    let (mut errors, mut connects) = (fred.error_rx(), fred.reconnect_rx());
    loop {
        // Both receivers may be dropped between polls without losing anything.
        let up = tokio::select! {
            biased;
            error = errors.recv() => match error {
                Ok((error, _)) => {
                    shared.down.store(true, Ordering::Release);
                    shared.loaded.store(false, Ordering::Release);
                    tracing::debug!(%error, "fred's connection to Redis is lost; reconnecting");
                    false
                }
                Err(RecvError::Lagged(_)) => continue,
                Err(RecvError::Closed) => return,
            },
            connect = connects.recv() => match connect {
                Ok(_) | Err(RecvError::Lagged(_)) => true,
                Err(RecvError::Closed) => return,
            },
        };
        if up {
            shared.down.store(false, Ordering::Release);
            tracing::debug!("fred's connection to Redis is up");
            let mut delay = Duration::from_millis(50);
            while let Err(error) = shared.loaded(send(&shared, "FUNCTION", library()).await) {
                if !errors.is_empty() {
                    break;
                }
                tracing::warn!(?error, "the function library cannot be loaded; trying on");
                sleep(delay).await;
                delay = (delay * 2).min(MAX_DELAY);
            }
        }
    }
}

/// Makes clients of fred for a configuration.
fn fred_of(config: &RedisConfig, endpoint: &Endpoint) -> impl Fn() -> Client + Send + Sync + 'static {
    let ms = |duration: Duration| u32::try_from(duration.as_millis()).unwrap_or(u32::MAX).max(1);
    let fred_config = Config {
        fail_fast: false,
        server: ServerConfig::Centralized {
            server: Server::new(endpoint.host.clone(), endpoint.port),
        },
        version: RespVersion::RESP3,
        username: endpoint.user.clone(),
        password: endpoint.password.clone(),
        ..Config::default()
    };
    let connection = ConnectionConfig {
        connection_timeout: config.timeout.min(TRIAL),
        internal_command_timeout: config.timeout,
        max_command_attempts: 1,
        max_command_buffer_len: MAX_QUEUED,
        unresponsive: UnresponsiveConfig {
            max_timeout: Some(config.timeout),
            interval: (config.timeout / 4).max(Duration::from_millis(10)),
        },
        tcp: TcpConfig {
            nodelay: Some(true),
            ..TcpConfig::default()
        },
        ..ConnectionConfig::default()
    };
    let performance = PerformanceConfig {
        default_command_timeout: config.timeout,
        ..PerformanceConfig::default()
    };
    let policy = ReconnectPolicy::Exponential {
        attempts: 0,
        max_attempts: 0,
        min_delay: ms(config.retry_delay),
        max_delay: ms(config.longest_delay()),
        base: 2,
        jitter: ms(config.retry_delay / 2),
    };
    move || {
        Client::new(
            fred_config.clone(),
            Some(performance.clone()),
            Some(connection.clone()),
            Some(policy.clone()),
        )
    }
}
