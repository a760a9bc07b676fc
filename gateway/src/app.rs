//! The only place that names concrete types and puts them together.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use metrics_exporter_prometheus::PrometheusHandle;
use roomgate_shared::{
    ids::NodeId,
    protocol::{CloseCode, MAX_BATCH, event::Limits},
};
use tokio::{
    net::TcpListener,
    sync::{Notify, watch},
};

use crate::{
    admin::health::Health,
    api::{self, Api, access::Access},
    archive::Archive,
    auth::Authenticator,
    descriptors,
    hub::{Closing, Hub},
    limits::{budget::Budgets, connections::Connections},
    net::{
        clients::Clients,
        http::{self, Server},
        ws::Timing,
    },
    outage, random,
    rooms::{
        Rooms,
        presence::{self, Pace},
    },
    session::{SessionContext, admission},
    settings::{Settings, StoreKind},
    store::{
        Control, EventSink, Readiness, SharedStore,
        memory::MemoryStore,
        redis::{RedisConfig, RedisStore, Secret},
    },
};

/// How long a closing handshake may take: a peer that is there answers within a round trip.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a client's message may take to arrive: 1 MiB in half a minute is 280 kbit/s.
const MESSAGE_TIMEOUT: Duration = Duration::from_secs(30);
/// How long the store may take to hear that the node is gone: without it the lease ends by itself.
const RESIGN_TIMEOUT: Duration = Duration::from_secs(1);
/// How often the recorder of metrics tidies up.
const UPKEEP: Duration = Duration::from_secs(5);

/// Why a gateway did not start, or ended. One line each.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// The address cannot be listened on.
    #[error("LISTEN: cannot listen on {address}: {error}")]
    Listen {
        /// The address.
        address: std::net::SocketAddr,
        /// Why.
        error: std::io::Error,
    },
    /// A setting of Redis.
    #[error("{0}")]
    RedisConfig(#[from] crate::store::redis::ConfigError),
    /// A key for tokens.
    #[error("{0}")]
    Settings(#[from] crate::settings::SettingsError),
    /// The place of archives.
    #[error("{0}")]
    Archive(#[from] crate::archive::ArchiveError),
    /// Redis is not there, or not usable.
    #[error("{0}")]
    RedisBoot(#[from] crate::store::redis::BootError),
}

/// A gateway, put together and listening.
pub struct App {
    listener: TcpListener,
    server: Server,
    health: Arc<Health>,
    rooms: Arc<Rooms>,
    hub: Arc<Hub>,
    clients: Arc<Clients>,
    sessions: Arc<SessionContext>,
    /// What the store has to say may have been missed.
    interrupted: Arc<Notify>,
    store: SharedStore,
    redis: Option<(Arc<RedisStore>, Duration)>,
    pace: Pace,
    drain: Duration,
}

/// The node's name where none is set: told apart by chance.
pub fn node_id(settings: &Settings) -> NodeId {
    let made_up = || NodeId::new(format!("gw-{}", random::epoch()));
    settings
        .node
        .node_id
        .clone()
        .or_else(|| made_up().ok())
        .expect("letters and digits are a node id")
}

impl App {
    /// Puts a gateway together and opens its listener.
    ///
    /// # Errors
    /// The address is taken or not this machine's, or a setting of Redis is wrong.
    pub async fn new(
        settings: &Settings,
        node: NodeId,
        prometheus: Option<PrometheusHandle>,
    ) -> Result<Self, AppError> {
        let address = settings.node.listen;
        let listen = |error| AppError::Listen { address, error };
        let listener = TcpListener::bind(address).await.map_err(listen)?;

        let (hub, requests) = Hub::new();
        let clients = Arc::<Clients>::default();
        let interrupted = Arc::<Notify>::default();
        let ears = Arc::new(Ears {
            hub: hub.clone(),
            clients: clients.clone(),
            interrupted: interrupted.clone(),
        });
        let pace = Pace {
            lease: Duration::from_secs(settings.presence.node_lease_seconds),
            sweep: Duration::from_secs(settings.presence.sweep_interval_seconds),
        };
        let (store, redis): (SharedStore, _) = match settings.store_kind() {
            StoreKind::Memory => (MemoryStore::new(settings.store_limits(), ears), None),
            StoreKind::Redis => {
                let config = RedisConfig {
                    url: Secret::new(settings.store.redis_url.clone().unwrap_or_default()),
                    timeout: Duration::from_millis(settings.store.redis_timeout_ms),
                    max_retries: settings.store.redis_max_retries as u32,
                    retry_delay: Duration::from_millis(settings.store.redis_retry_delay_ms),
                    wait_replicas: settings.store.redis_wait_replicas as u32,
                    node: node.clone(),
                    limits: settings.store_limits(),
                    lease: pace.lease,
                };
                let store = RedisStore::new(config, ears)?;
                (
                    store.clone(),
                    Some((store, Duration::from_secs(settings.store.redis_wait_seconds))),
                )
            }
        };
        let move_tick = Duration::from_millis(settings.presence.move_tick_ms);
        let archive = settings.archive_url().map(Archive::open).transpose()?;
        let rooms = Rooms::new(hub.clone(), store.clone(), move_tick, archive, requests);
        let health = Arc::new(Health::new(store.clone(), prometheus));
        let limits = &settings.limits;
        let sessions = Arc::new(SessionContext {
            rooms: rooms.clone(),
            store: store.clone(),
            node,
            limits: Limits {
                max_frame_bytes: limits.max_frame_bytes as usize,
                max_message_bytes: settings.max_message_bytes(),
                max_rooms: limits.max_rooms_per_connection as usize,
                max_batch: MAX_BATCH,
            },
            outbox_bytes: limits.outbox_bytes as usize,
            heartbeat_ms: limits.heartbeat_ms,
            auto_create: settings.access.auto_create_rooms,
            auth: settings.authenticator()?,
            is_operated: !settings.access.api_keys.is_empty(),
            connections: Connections::new(settings.most_connections(), store.clone()),
            commands: settings.commands(),
            budgets: Budgets::new(settings.user_rates(), store.clone()),
        });
        let server = Server {
            sessions: sessions.clone(),
            clients: clients.clone(),
            health: health.clone(),
            origins: settings.access.allowed_origins.clone(),
            max_connections: descriptors::connections(limits.max_connections as usize),
            timing: Timing {
                heartbeat: Duration::from_millis(limits.heartbeat_ms),
                close: CLOSE_TIMEOUT,
                message: MESSAGE_TIMEOUT,
                max_message: limits.max_frame_bytes as usize,
            },
            head_timeout: Duration::from_millis(settings.node.handshake_timeout_ms),
            echo: settings.node.test_echo,
            nonce: random::bits(),
            proxies: limits.trusted_proxies.clone(),
            api: api::router(Api {
                sessions: sessions.clone(),
                access: Arc::new(Access::new(settings.access.api_keys.clone())),
            }),
        };
        let drain = Duration::from_secs(settings.node.drain_seconds);
        Ok(Self {
            listener,
            server,
            health,
            rooms,
            hub,
            clients,
            sessions,
            interrupted,
            store,
            redis,
            pace,
            drain,
        })
    }

    /// The address in use.
    ///
    /// # Errors
    /// The operating system does not tell.
    pub fn address(&self) -> std::io::Result<std::net::SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until `stop` is done, then ends every connection with 1012 and returns when their rooms know, or the time
    /// for that is over.
    ///
    /// # Errors
    /// Redis was not to be had in time at start.
    pub async fn run(self, stop: impl Future<Output = ()>) -> Result<(), AppError> {
        let (close, closing) = watch::channel(None);
        let serving = tokio::spawn(http::serve(self.listener, self.server, closing));
        let upkeep = tokio::spawn(upkeep(self.health.clone()));
        let looking = tokio::spawn(look_again(
            self.interrupted.clone(),
            self.sessions.clone(),
            self.clients.clone(),
        ));
        let keys = tokio::spawn(fetch_keys(self.sessions.clone()));
        let connections = self.sessions.connections.clone();
        let counting = tokio::spawn(connections.clone().run());
        let run = async {
            match &self.redis {
                Some((store, wait)) => {
                    store.boot(*wait).await?;
                    tracing::info!("ready: rooms are in {}", store.server());
                    let outage = outage::watch(self.store.clone(), self.hub.clone(), self.clients.clone());
                    tokio::join!(outage, presence::run(self.rooms.clone(), self.pace));
                }
                None => {
                    tracing::info!("ready: rooms are in this process's memory");
                    presence::run(self.rooms.clone(), self.pace).await;
                }
            }
            // Neither ends.
            std::future::pending().await
        };
        let ended: Result<(), AppError> = tokio::select! {
            ended = run => ended,
            () = stop => Ok(()),
        };
        self.health.drain();
        ended?;
        tracing::info!("stopping: connections are closed with 1012");
        let wish = Closing {
            code: CloseCode::Draining.code(),
            reason: CloseCode::Draining.reason().to_owned(),
        };
        // The receiver is gone only if serving has ended by itself.
        let _ = close.send(Some(wish));
        let quiet = async {
            let _ = serving.await;
            // A store that is away cannot be told who left.
            while (self.rooms.open_rooms() > 0 || connections.is_telling())
                && self.store.readiness() == Readiness::Ready
            {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        if tokio::time::timeout(self.drain, quiet).await.is_err() {
            tracing::warn!(
                seconds = self.drain.as_secs(),
                "not all connections ended in time"
            );
        }
        // What is left of its members then, another gateway sees to. A store that is away is not waited for.
        if self.store.readiness() == Readiness::Ready {
            let _ = tokio::time::timeout(RESIGN_TIMEOUT, self.store.resign()).await;
        }
        upkeep.abort();
        keys.abort();
        looking.abort();
        counting.abort();
        Ok(())
    }
}

/// Where the store's words go: events to the rooms, what an operator says to the connections.
struct Ears {
    hub: Arc<Hub>,
    clients: Arc<Clients>,
    interrupted: Arc<Notify>,
}

impl EventSink for Ears {
    fn payload(&self, room: &str, payload: Bytes) {
        self.hub.payload(room, payload);
    }

    fn interrupted(&self) {
        self.hub.interrupted();
        self.interrupted.notify_one();
    }

    fn control(&self, control: Control) {
        let connections = self.clients.control(&control);
        tracing::info!(?control, connections, "an operator has said");
    }
}

/// After each interruption, asks again whether those who are here may be.
async fn look_again(interrupted: Arc<Notify>, sessions: Arc<SessionContext>, clients: Arc<Clients>) {
    loop {
        interrupted.notified().await;
        admission::look_at_all(&sessions, clients.known()).await;
    }
}

/// Keeps the keys that tokens are checked with fresh.
async fn fetch_keys(sessions: Arc<SessionContext>) {
    if let Authenticator::Token(verifier) = &sessions.auth
        && let Some(jwks) = verifier.jwks()
    {
        jwks.run().await;
    }
}

async fn upkeep(health: Arc<Health>) {
    let mut turn = tokio::time::interval(UPKEEP);
    loop {
        turn.tick().await;
        health.upkeep();
    }
}
