//! Every setting: a flag and an environment variable, with its default, its unit and its check. `docs/CONFIG.md` and
//! `.env.example` are made from this file.

use std::{net::SocketAddr, time::Duration};

use clap::{
    Args, CommandFactory, FromArgMatches, Parser, ValueEnum,
    builder::{RangedU64ValueParser, Resettable},
};
use ipnet::IpNet;
use roomgate_shared::{ids::NodeId, protocol::config::Rate};

use crate::{
    auth::{
        Authenticator,
        jwks::{Jwks, Source},
        token::{Keys, Verifier},
    },
    limits::{
        budget::{self, Rates},
        connections::MostConnections,
    },
    net::address,
    store::{PresenceMode, StoreLimits},
};

/// Roomgate's gateway: realtime rooms over WebSocket, with Redis as the truth.
///
/// Without any setting it listens on 127.0.0.1:8080, keeps rooms in memory and lets everybody in: good for trying out.
/// With REDIS_URL it shares its rooms with every other gateway on that Redis.
#[derive(Debug, Clone, Parser)]
#[command(name = "roomgate", version, next_line_help = true, max_term_width = 100)]
pub struct Settings {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub node: NodeSettings,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub access: AccessSettings,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub store: StoreSettings,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub presence: PresenceSettings,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub limits: LimitSettings,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub logs: LogSettings,

    /// Write docs/CONFIG.md and .env.example below the current folder, and exit.
    #[arg(long, hide = true)]
    pub write_docs: bool,
}

/// The process.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Node")]
pub struct NodeSettings {
    /// Address and port to listen on; port 0 takes a free one. The address in use is printed at start.
    #[arg(long, env = "LISTEN", default_value = "127.0.0.1:8080", value_name = "ADDRESS:PORT", value_parser = listen)]
    pub listen: SocketAddr,

    /// This gateway's name, unique among all gateways: told to clients, in logs, on every metric. Made up if not given.
    #[arg(long, env = "NODE_ID", value_name = "NAME", value_parser = node_id)]
    pub node_id: Option<NodeId>,

    /// Seconds that a gateway told to stop (SIGTERM) takes at most to end its connections.
    #[arg(long, env = "DRAIN_SECONDS", default_value = "20", value_name = "SECONDS", value_parser = range(1, 3_600))]
    pub drain_seconds: u64,

    /// Milliseconds that a request's head may take to arrive.
    #[arg(long, env = "HANDSHAKE_TIMEOUT_MS", default_value = "10000", value_name = "MS", value_parser = range(100, 600_000))]
    pub handshake_timeout_ms: u64,

    /// Serve /echo, which sends every message back: for conformance tests of the transport.
    #[arg(long, env = "TEST_ECHO", default_value = "false", value_name = "BOOL", action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true")]
    pub test_echo: bool,
}

/// Who may connect.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Access")]
pub struct AccessSettings {
    /// How users are known. `jwt`: by a token. `anonymous`: by what they say of themselves; everybody may join, send and
    /// change the state in every room; must be asked for when listening beyond loopback. Not given: jwt if a key is set, else
    /// anonymous.
    #[arg(long, env = "AUTH_MODE", value_enum, value_name = "MODE")]
    pub auth_mode: Option<AuthMode>,

    /// Secret that tokens are signed with (HS256), at least 32 bytes. One of JWT_SECRET, JWT_PUBLIC_KEY and JWKS_URL.
    #[arg(long, env = "JWT_SECRET", value_name = "SECRET", hide_env_values = true)]
    pub jwt_secret: Option<Secret>,

    /// Public key that tokens are checked with, PEM or the path of a PEM file: RSA (RS256), P-256 (ES256) or Ed25519 (EdDSA).
    #[arg(long, env = "JWT_PUBLIC_KEY", value_name = "PEM")]
    pub jwt_public_key: Option<String>,

    /// Set of public keys (JWKS) that tokens are checked with: an http or https URL, a file:// URL or a path. Read every five
    /// minutes, and when a token names a key that is not in it.
    #[arg(long, env = "JWKS_URL", value_name = "URL", value_parser = jwks)]
    pub jwks_url: Option<String>,

    /// Issuer (`iss`) that every token must name.
    #[arg(long, env = "JWT_ISSUER", value_name = "NAME")]
    pub jwt_issuer: Option<String>,

    /// Audience (`aud`) that every token must name. Not given: a token that names one is refused.
    #[arg(long, env = "JWT_AUDIENCE", value_name = "NAME")]
    pub jwt_audience: Option<String>,

    /// Seconds by which the clocks of whoever makes tokens and of gateways may differ.
    #[arg(long, env = "JWT_LEEWAY_SECONDS", default_value = "0", value_name = "SECONDS", value_parser = range(0, 600))]
    pub jwt_leeway_seconds: u64,

    /// Keys for the HTTP API (`Authorization: Bearer <key>`), each of at least 32 characters, separated by commas. Not given,
    /// and no token that says so: the API answers nobody.
    #[arg(long, env = "API_KEYS", value_name = "KEYS", value_delimiter = ',', value_parser = api_key, hide_env_values = true)]
    pub api_keys: Vec<Secret>,

    /// Origins of pages that may connect, separated by commas, such as https://app.example.com; `*` for all. Not given: the
    /// page's host must be the one that is asked.
    #[arg(long, env = "ALLOWED_ORIGINS", value_name = "ORIGINS", value_delimiter = ',', value_parser = origin)]
    pub allowed_origins: Vec<String>,

    /// Whether joining a room that does not exist makes it.
    #[arg(long, env = "AUTO_CREATE_ROOMS", default_value = "true", value_name = "BOOL", action = clap::ArgAction::Set)]
    pub auto_create_rooms: bool,
}

/// How users are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum AuthMode {
    /// By what they say of themselves.
    Anonymous,
    /// By a token.
    Jwt,
}

/// A value that is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The value.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("(hidden)")
    }
}

/// Where rooms are kept.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Store")]
pub struct StoreSettings {
    /// Where rooms are kept: `memory` (one process, nothing kept over a restart) or `redis` (any number of gateways). Not
    /// given: redis if REDIS_URL is set, else memory.
    #[arg(long, env = "ROOM_STORE", value_enum, value_name = "STORE")]
    pub room_store: Option<StoreKind>,

    /// Redis 7.0 or Valkey 7.2 or later: redis://[user:password@]host[:port].
    #[arg(long, env = "REDIS_URL", value_name = "URL", hide_env_values = true)]
    pub redis_url: Option<String>,

    /// Seconds that a gateway waits for Redis at start, alive but not ready, before it gives up.
    #[arg(long, env = "REDIS_WAIT_SECONDS", default_value = "30", value_name = "SECONDS", value_parser = range(0, 86_400))]
    pub redis_wait_seconds: u64,

    /// Milliseconds after which a call of Redis counts as unanswered.
    #[arg(long, env = "REDIS_TIMEOUT_MS", default_value = "5000", value_name = "MS", value_parser = range(10, 600_000))]
    pub redis_timeout_ms: u64,

    /// Attempts to reconnect to Redis before the wait between them stays at its longest.
    #[arg(long, env = "REDIS_MAX_RETRIES", default_value = "10", value_name = "COUNT", value_parser = range(1, 1_000))]
    pub redis_max_retries: u64,

    /// Milliseconds before the first attempt to reconnect to Redis; it doubles from one to the next.
    #[arg(long, env = "REDIS_RETRY_DELAY_MS", default_value = "100", value_name = "MS", value_parser = range(1, 60_000))]
    pub redis_retry_delay_ms: u64,

    /// Replicas that must have a change before it is acknowledged (WAIT), so that it outlives the loss of the server. Half
    /// of REDIS_TIMEOUT_MS is waited for them, two seconds at most; then the command fails with `timeout`, though it is
    /// written. 0: what the server has taken is acknowledged.
    #[arg(long, env = "REDIS_WAIT_REPLICAS", default_value = "0", value_name = "COUNT", value_parser = range(0, 10))]
    pub redis_wait_replicas: u64,

    /// Seconds that a room lives after its last use, unless it holds messages for longer.
    #[arg(long, env = "REDIS_TTL_ACTIVE_ROOM", default_value = "3600", value_name = "SECONDS", value_parser = range(1, 31_536_000))]
    pub redis_ttl_active_room: u64,

    /// Seconds that a room whose status is `waiting` lives after its last use, unless it holds messages for longer.
    #[arg(long, env = "REDIS_TTL_WAITING_ROOM", default_value = "1800", value_name = "SECONDS", value_parser = range(1, 31_536_000))]
    pub redis_ttl_waiting_room: u64,

    /// Events that a room's log keeps for those who resume.
    #[arg(long, env = "LOG_EVENTS", default_value = "10000", value_name = "COUNT", value_parser = range(1, 1_000_000))]
    pub log_events: u64,

    /// Seconds that a room's log keeps an event.
    #[arg(long, env = "LOG_SECONDS", default_value = "600", value_name = "SECONDS", value_parser = range(1, 86_400))]
    pub log_seconds: u64,

    /// Bytes of events that a room's log keeps.
    #[arg(long, env = "LOG_BYTES", default_value = "8388608", value_name = "BYTES", value_parser = range(1_024, 1_073_741_824))]
    pub log_bytes: u64,

    /// Seconds that a room remembers which commands have happened, so that one that is sent again under its id does not
    /// happen twice.
    #[arg(long, env = "COMMAND_DEDUPE_SECONDS", default_value = "600", value_name = "SECONDS", value_parser = range(1, 86_400))]
    pub command_dedupe_seconds: u64,

    /// Where completed rooms are kept: a folder, or a bucket as s3://, gs:// or az:// with its credentials in AWS_*,
    /// GOOGLE_* or AZURE_*. All gateways must see the same. `off`: a completed room is removed and kept nowhere.
    #[arg(
        long,
        env = "ARCHIVE_URL",
        default_value = "roomgate-archive",
        value_name = "URL"
    )]
    pub archive_url: String,
}

/// Where rooms are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum StoreKind {
    /// In this process.
    Memory,
    /// In Redis.
    Redis,
}

/// Members: who stays, and what they are told of each other. The same on all gateways.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Presence")]
pub struct PresenceSettings {
    /// Seconds that a user whose last connection was lost stays in a room, `away`, before it has `left`.
    #[arg(long, env = "PRESENCE_GRACE_SECONDS", default_value = "300", value_name = "SECONDS", value_parser = range(1, 86_400))]
    pub presence_grace_seconds: u64,

    /// Seconds between two looks for what is due: users that have been away for too long, messages past retention. Each
    /// gateway looks, and none does what another does.
    #[arg(long, env = "SWEEP_INTERVAL_SECONDS", default_value = "30", value_name = "SECONDS", value_parser = range(1, 3_600))]
    pub sweep_interval_seconds: u64,

    /// Seconds without a sign of life after which a gateway counts as dead and its users as away. It gives one every fifth
    /// of that. Less than 10 may take a gateway for dead that has only lost Redis for a moment.
    #[arg(long, env = "NODE_LEASE_SECONDS", default_value = "10", value_name = "SECONDS", value_parser = range(2, 60))]
    pub node_lease_seconds: u64,

    /// What members of a room are told of each other: `full` (who is there), `count` (how many), `off` (neither).
    #[arg(
        long,
        env = "PRESENCE_MODE",
        value_enum,
        default_value = "full",
        value_name = "MODE"
    )]
    pub presence_mode: PresenceChoice,

    /// Members above which a room turns to counts by itself; with less than four fifths of them it turns back.
    #[arg(long, env = "PRESENCE_FULL_MEMBERS", default_value = "1000", value_name = "COUNT", value_parser = range(1, 10_000))]
    pub presence_full_members: u64,

    /// Milliseconds for which the moves in a room are gathered into one frame. It grows by itself in a room of more than
    /// 100 members, up to a second.
    #[arg(long, env = "MOVE_TICK_MS", default_value = "50", value_name = "MS", value_parser = range(10, 10_000))]
    pub move_tick_ms: u64,
}

/// What members are told of each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[allow(missing_docs)]
pub enum PresenceChoice {
    Full,
    Count,
    Off,
}

/// Bounds.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Limits")]
pub struct LimitSettings {
    /// Bytes of a client's message, its fragments added together; past it the connection is closed with 1009.
    #[arg(long, env = "MAX_FRAME_BYTES", default_value = "1048576", value_name = "BYTES", value_parser = range(1_024, 268_435_456))]
    pub max_frame_bytes: u64,

    /// Bytes of the body of a `message.send`; MAX_FRAME_BYTES where that is less.
    #[arg(long, env = "MAX_MESSAGE_BYTES", default_value = "1048576", value_name = "BYTES", value_parser = range(1, 268_435_456))]
    pub max_message_bytes: u64,

    /// WebSockets of this gateway; past it a request is answered with 503.
    #[arg(long, env = "MAX_CONNECTIONS", default_value = "100000", value_name = "COUNT", value_parser = range(1, 10_000_000))]
    pub max_connections: u64,

    /// WebSockets of one user, over all gateways; past it a connection is closed with 4005. 0: any number.
    #[arg(long, env = "MAX_CONNECTIONS_PER_USER", default_value = "0", value_name = "COUNT", value_parser = range(0, 1_000_000))]
    pub max_connections_per_user: u64,

    /// WebSockets from one IP address (of IPv6, one /64), over all gateways; past it a connection is closed with 4005. 0: any
    /// number.
    #[arg(long, env = "MAX_CONNECTIONS_PER_IP", default_value = "0", value_name = "COUNT", value_parser = range(0, 1_000_000))]
    pub max_connections_per_ip: u64,

    /// Proxies in front of gateways: addresses or ranges, separated by commas. From them alone `X-Forwarded-For` is taken.
    #[arg(long, env = "TRUSTED_PROXIES", value_name = "ADDRESSES", value_delimiter = ',', value_parser = address::range)]
    pub trusted_proxies: Vec<IpNet>,

    /// Commands that one connection may send in a second, and twice as many at once; past it they are refused with
    /// `rate_limited`. 0: any number.
    #[arg(long, env = "MAX_COMMANDS_PER_SECOND", default_value = "1000", value_name = "COUNT", value_parser = range(0, 1_000_000))]
    pub max_commands_per_second: u64,

    /// Commands that one user may send in a second over all rooms and gateways, by lane, and after a slash how many at once
    /// (else twice as many): such as messages=20/40,broadcasts=10. Lanes are messages, state, moves, broadcasts and joins. Each
    /// costs Redis some calls. Not given: no limit.
    #[arg(long, env = "USER_RATES", value_name = "RATES", value_parser = user_rates)]
    pub user_rates: Option<String>,

    /// Rooms that one connection may be in.
    #[arg(long, env = "MAX_ROOMS_PER_CONNECTION", default_value = "100", value_name = "COUNT", value_parser = range(1, 100_000))]
    pub max_rooms_per_connection: u64,

    /// Bytes that may wait for one reader; past it the connection is closed with 4200 and resumes.
    #[arg(long, env = "OUTBOX_BYTES", default_value = "1048576", value_name = "BYTES", value_parser = range(1_024, 1_073_741_824))]
    pub outbox_bytes: u64,

    /// Milliseconds of silence after which a client is pinged; one that finds the last ping unanswered is closed with 4201.
    #[arg(long, env = "HEARTBEAT_MS", default_value = "25000", value_name = "MS", value_parser = range(100, 3_600_000))]
    pub heartbeat_ms: u64,
}

/// What the gateway says on standard error.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Logs")]
pub struct LogSettings {
    /// Lowest level that is logged.
    #[arg(
        long,
        env = "LOG_LEVEL",
        value_enum,
        default_value = "info",
        value_name = "LEVEL"
    )]
    pub log_level: LogLevel,

    /// `text` for people, `json` for machines.
    #[arg(
        long,
        env = "LOG_FORMAT",
        value_enum,
        default_value = "text",
        value_name = "FORMAT"
    )]
    pub log_format: LogFormat,
}

/// Levels of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[allow(missing_docs)]
pub enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

/// Forms of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[allow(missing_docs)]
pub enum LogFormat {
    Text,
    Json,
}

/// Why the settings are not usable: one line that names the setting and what it accepts.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SettingsError(pub String);

/// What a command line asks for.
#[derive(Debug)]
pub enum Asked {
    /// To run with these settings.
    Run(Box<Settings>),
    /// To print this and exit: help or version.
    Print(String),
}

impl Settings {
    /// Reads flags and environment variables; a flag wins.
    ///
    /// # Errors
    /// One line that names the setting and what it accepts.
    pub fn read(args: impl IntoIterator<Item = std::ffi::OsString>) -> Result<Asked, SettingsError> {
        let matches = match command().try_get_matches_from(args) {
            Ok(matches) => matches,
            Err(error) if !error.use_stderr() => return Ok(Asked::Print(error.render().to_string())),
            Err(error) => return Err(SettingsError(one_line(&error))),
        };
        let settings = Self::from_arg_matches(&matches).map_err(|error| SettingsError(one_line(&error)))?;
        settings.check()?;
        Ok(Asked::Run(Box::new(settings)))
    }

    /// What no single setting can tell.
    fn check(&self) -> Result<(), SettingsError> {
        let wrong = |message: &str| Err(SettingsError(message.to_owned()));
        let access = &self.access;
        let keys = [
            access.jwt_secret.is_some(),
            access.jwt_public_key.is_some(),
            access.jwks_url.is_some(),
        ];
        let keys = keys.iter().filter(|set| **set).count();
        if keys > 1 {
            return wrong("JWT_SECRET, JWT_PUBLIC_KEY, JWKS_URL: only one of them may be set");
        }
        if keys == 1 && access.auth_mode == Some(AuthMode::Anonymous) {
            return wrong(
                "AUTH_MODE: anonymous, but JWT_SECRET, JWT_PUBLIC_KEY or JWKS_URL is set; set AUTH_MODE=jwt, or none of them",
            );
        }
        if keys == 0 && access.auth_mode == Some(AuthMode::Jwt) {
            return wrong("AUTH_MODE: jwt needs one of JWT_SECRET, JWT_PUBLIC_KEY and JWKS_URL");
        }
        if access
            .jwt_secret
            .as_ref()
            .is_some_and(|secret| secret.expose().len() < 32)
        {
            return wrong("JWT_SECRET: at least 32 bytes are needed for HS256");
        }
        if keys == 0 && access.auth_mode.is_none() && !self.node.listen.ip().is_loopback() {
            return wrong(
                "AUTH_MODE: not set, and LISTEN is beyond loopback, where anybody could enter every room; \
                 set JWT_SECRET, JWT_PUBLIC_KEY or JWKS_URL, or AUTH_MODE=anonymous if that is meant",
            );
        }
        if self.store_kind() == StoreKind::Redis && self.store.redis_url.is_none() {
            return wrong(
                "REDIS_URL: not set, but ROOM_STORE=redis needs it: redis://[user:password@]host[:port]",
            );
        }
        // Not told by the setting's own check: that would repeat the value.
        let (_, address) = self.store.archive_url.split_once("://").unwrap_or_default();
        let user = address.split('/').next().and_then(|host| host.split_once('@'));
        if address.contains(['?', '#']) || user.is_some_and(|(user, _)| user.contains(':')) {
            return wrong("ARCHIVE_URL: credentials do not belong in it, but in AWS_*, GOOGLE_* or AZURE_*");
        }
        Ok(())
    }

    /// Where rooms are kept.
    pub fn store_kind(&self) -> StoreKind {
        let implied = if self.store.redis_url.is_some() {
            StoreKind::Redis
        } else {
            StoreKind::Memory
        };
        self.store.room_store.unwrap_or(implied)
    }

    /// Where completed rooms are kept, if anywhere.
    pub fn archive_url(&self) -> Option<&str> {
        Some(self.store.archive_url.as_str()).filter(|url| *url != "off")
    }

    /// Largest body of a message: no larger than the frame that brings it.
    pub fn max_message_bytes(&self) -> usize {
        self.limits.max_message_bytes.min(self.limits.max_frame_bytes) as usize
    }

    /// How users are known.
    ///
    /// # Errors
    /// A key cannot be used: one line that names the setting and what it accepts.
    pub fn authenticator(&self) -> Result<Authenticator, SettingsError> {
        let access = &self.access;
        let keys = if let Some(secret) = &access.jwt_secret {
            Keys::secret(secret.expose().as_bytes())
        } else if let Some(key) = &access.jwt_public_key {
            let wrong = |why: String| SettingsError(format!("JWT_PUBLIC_KEY: {why}"));
            let pem = if key.contains("-----BEGIN") {
                key.clone().into_bytes()
            } else {
                std::fs::read(key).map_err(|error| wrong(format!("cannot read {key}: {error}")))?
            };
            let accepted = "a public key in PEM, or the path of one, of RSA, P-256 or Ed25519 is accepted";
            Keys::pem(&pem).ok_or_else(|| wrong(accepted.to_owned()))?
        } else if let Some(url) = &access.jwks_url {
            let wrong = |why: String| SettingsError(format!("JWKS_URL: {why}"));
            let source = Source::read(url).map_err(wrong)?;
            Keys::Set(Box::new(Jwks::new(source).map_err(wrong)?))
        } else {
            return Ok(Authenticator::Anonymous);
        };
        Ok(Authenticator::Token(Box::new(Verifier::new(
            keys,
            access.jwt_issuer.as_deref(),
            access.jwt_audience.as_deref(),
            access.jwt_leeway_seconds,
        ))))
    }

    /// How many connections there may be.
    pub fn most_connections(&self) -> MostConnections {
        MostConnections {
            user: self.limits.max_connections_per_user,
            address: self.limits.max_connections_per_ip,
        }
    }

    /// What a connection may send.
    pub fn commands(&self) -> Option<Rate> {
        let per_second = self.limits.max_commands_per_second as f64;
        let burst = 2.0 * per_second;
        (per_second > 0.0).then_some(Rate { per_second, burst })
    }

    /// What a user may send over all rooms and gateways.
    pub fn user_rates(&self) -> Rates {
        let text = self.limits.user_rates.as_deref().unwrap_or_default();
        // It was read before.
        budget::rates(text).unwrap_or_default()
    }

    /// The bounds of the store.
    pub fn store_limits(&self) -> StoreLimits {
        StoreLimits {
            log_events: self.store.log_events,
            log_age: Duration::from_secs(self.store.log_seconds),
            log_bytes: self.store.log_bytes,
            active_ttl: Duration::from_secs(self.store.redis_ttl_active_room),
            again: Duration::from_secs(self.presence.sweep_interval_seconds),
            waiting_ttl: Duration::from_secs(self.store.redis_ttl_waiting_room),
            dedupe: Duration::from_secs(self.store.command_dedupe_seconds),
            grace: Duration::from_secs(self.presence.presence_grace_seconds),
            presence: match self.presence.presence_mode {
                PresenceChoice::Full => PresenceMode::Full,
                PresenceChoice::Count => PresenceMode::Count,
                PresenceChoice::Off => PresenceMode::Off,
            },
            full_members: self.presence.presence_full_members,
            ..Default::default()
        }
    }
}

/// The settings, an empty variable counting as one that is not set.
fn command() -> clap::Command {
    Settings::command().mut_args(|argument| {
        #[expect(clippy::disallowed_methods, reason = "this is where settings are read")]
        let empty = argument
            .get_env()
            .is_some_and(|name| std::env::var_os(name).is_some_and(|value| value.is_empty()));
        if empty {
            argument.env(Resettable::Reset)
        } else {
            argument
        }
    })
}

fn node_id(text: &str) -> Result<NodeId, String> {
    NodeId::new(text).map_err(|_| "1 to 128 characters of A-Z a-z 0-9 . _ ~ : -".to_owned())
}

fn range(min: u64, max: u64) -> RangedU64ValueParser {
    RangedU64ValueParser::new().range(min..=max)
}

fn listen(text: &str) -> Result<SocketAddr, String> {
    text.parse()
        .map_err(|_| "an IP address and a port, such as 127.0.0.1:8080 or [::]:8080".to_owned())
}

fn user_rates(text: &str) -> Result<String, String> {
    budget::rates(text).map(|_| text.to_owned())
}

fn api_key(text: &str) -> Result<Secret, String> {
    let text = text.trim();
    if text.len() < 32 {
        return Err("keys of at least 32 characters, separated by commas".to_owned());
    }
    Ok(Secret::from(text))
}

fn jwks(text: &str) -> Result<String, String> {
    Source::read(text).map(|_| text.to_owned())
}

fn origin(text: &str) -> Result<String, String> {
    let text = text.trim();
    let host = text.split_once("://").map(|(_, host)| host);
    if text == "*" || host.is_some_and(|host| !host.is_empty() && !host.contains('/')) {
        // Browsers leave the scheme's own port out.
        let own_port = if text.starts_with("https://") {
            ":443"
        } else {
            ":80"
        };
        return Ok(text.strip_suffix(own_port).unwrap_or(text).to_owned());
    }
    Err("a scheme and a host without a path, such as https://app.example.com, or *".to_owned())
}

/// A clap error as one line that begins with the setting's variable.
fn one_line(error: &clap::Error) -> String {
    use clap::error::{ContextKind, ContextValue};
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.clone()),
        Some(ContextValue::Strings(texts)) => Some(texts.join(", ")),
        _ => None,
    };
    let command = Settings::command();
    let argument = text(ContextKind::InvalidArg);
    let variable = argument.as_deref().and_then(|argument| {
        let flag = argument.trim_start_matches('-').split([' ', '=']).next()?;
        let known = command
            .get_arguments()
            .find(|known| known.get_long() == Some(flag))?;
        Some(known.get_env()?.to_string_lossy().into_owned())
    });
    let (Some(setting), Some(value)) = (variable.or(argument), text(ContextKind::InvalidValue)) else {
        let rendered = error.render().to_string();
        let first = rendered
            .lines()
            .next()
            .unwrap_or_default()
            .trim_start_matches("error: ")
            .to_owned();
        return format!("{first}; --help lists the settings");
    };
    let accepts = match (text(ContextKind::ValidValue), std::error::Error::source(error)) {
        (Some(values), _) => format!("it accepts {values}"),
        (None, Some(source)) => format!(
            "it accepts {}",
            source.to_string().trim_start_matches("it accepts ")
        ),
        (None, None) => "--help says what it accepts".to_owned(),
    };
    let accepts = accepts
        .replace(&format!("{value} is not in "), "")
        .replace("..=", " to ");
    format!("{setting}: {value:?} is not accepted; {accepts}")
}

#[cfg(test)]
mod tests;
