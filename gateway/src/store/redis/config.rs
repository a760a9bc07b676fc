//! Where Redis is, and with what patience it is spoken to.

use std::{fmt, time::Duration};

use roomgate_shared::ids::NodeId;

use super::client::MAX_DELAY;
use crate::store::StoreLimits;

/// What a [`RedisStore`](super::RedisStore) needs to know.
#[derive(Debug, Clone)]
pub struct RedisConfig {
    /// `redis://[user:password@]host[:port]`; `REDIS_URL`. May hold a password: never printed.
    pub url: Secret,
    /// How long a command, a subscription or a connection may take; `REDIS_TIMEOUT_MS`.
    pub timeout: Duration,
    /// How many times the wait between attempts to reconnect doubles; `REDIS_MAX_RETRIES`. It bounds the wait (with a
    /// cap of two seconds), not the attempts: a gateway that has started reconnects for ever. No command is ever sent
    /// twice on its own account.
    pub max_retries: u32,
    /// The wait before the first attempt to reconnect; `REDIS_RETRY_DELAY_MS`.
    pub retry_delay: Duration,
    /// Replicas that must have a write before it is acknowledged, for which half of `timeout` is waited, two seconds at
    /// most; `REDIS_WAIT_REPLICAS`. 0: none is asked.
    pub wait_replicas: u32,
    /// This node; part of its connections' names and of its probe's channel.
    pub node: NodeId,
    /// Bounds that the store keeps to.
    pub limits: StoreLimits,
    /// How long the node's lease holds from its last renewal.
    pub lease: Duration,
}

impl RedisConfig {
    /// The longest wait between attempts to reconnect.
    pub(super) fn longest_delay(&self) -> Duration {
        let doublings = 1_u32 << self.max_retries.min(16);
        self.retry_delay.saturating_mul(doublings).min(MAX_DELAY)
    }
}

/// A text that may hold a password.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps `text`.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(hidden)")
    }
}

/// A configuration that cannot be used. The messages name the setting and hold no password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// A kind of deployment that this version does not speak to.
    #[error("REDIS_URL: {0} is not supported yet; accepted is redis://[user:password@]host[:port]")]
    Unsupported(&'static str),
    /// Not a URL of the form accepted.
    #[error("REDIS_URL: {0}; accepted is redis://[user:password@]host[:port]")]
    Invalid(&'static str),
}

/// `REDIS_URL`, read.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Endpoint {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) user: Option<String>,
    pub(super) password: Option<String>,
}

/// Without user and password: fit for a log.
impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let brackets = self.host.contains(':');
        let (open, close) = if brackets { ("[", "]") } else { ("", "") };
        write!(f, "redis://{open}{}{close}:{}", self.host, self.port)
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Endpoint {
    /// Reads `redis://[user:password@]host[:port]`. `%xx` stands for a byte in user and password.
    pub(super) fn parse(url: &Secret) -> Result<Self, ConfigError> {
        use ConfigError::{Invalid, Unsupported};
        let (scheme, rest) = url.0.trim().split_once("://").ok_or(Invalid("not a URL"))?;
        match scheme.to_ascii_lowercase().as_str() {
            "redis" => {}
            "rediss" => return Err(Unsupported("TLS (rediss://)")),
            "redis-sentinel" | "rediss-sentinel" => return Err(Unsupported("Sentinel")),
            "redis-cluster" | "rediss-cluster" => return Err(Unsupported("Cluster")),
            "unix" | "redis+unix" | "redis-unix" => return Err(Unsupported("a Unix socket")),
            _ => return Err(Invalid("unknown scheme")),
        }
        if rest.contains(['?', '#']) {
            return Err(Invalid("no query is understood"));
        }
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (user, password, address) = match authority.rsplit_once('@') {
            Some((login, address)) => {
                let (user, password) = login
                    .split_once(':')
                    .ok_or(Invalid("a password is needed after the user"))?;
                let user = decoded(user).ok_or(Invalid("the user is not well encoded"))?;
                let password = decoded(password).ok_or(Invalid("the password is not well encoded"))?;
                if password.is_empty() {
                    return Err(Invalid("the password is empty"));
                }
                (
                    Some(user).filter(|user| !user.is_empty()),
                    Some(password),
                    address,
                )
            }
            None => (None, None, authority),
        };
        let (host, port) = match address.strip_prefix('[') {
            Some(rest) => {
                let (host, port) = rest
                    .split_once(']')
                    .ok_or(Invalid("an address in [ ] does not end"))?;
                (host, port.strip_prefix(':'))
            }
            None => match address.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (address, None),
            },
        };
        if host.contains(',') || address.matches(',').count() > 0 {
            return Err(Unsupported("a list of hosts"));
        }
        if host.is_empty() || host.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return Err(Invalid("no host"));
        }
        let port = match port {
            None => 6379,
            Some(port) => port
                .parse()
                .ok()
                .filter(|&port| port > 0)
                .ok_or(Invalid("the port is none"))?,
        };
        if !matches!(path, "" | "0") {
            // Keys have databases, channels have not: two gateways on different ones would hear each other's rooms.
            return Err(Unsupported(
                "a database other than 0, whose channels would be those of all databases,",
            ));
        }
        Ok(Self {
            host: host.to_owned(),
            port,
            user,
            password,
        })
    }
}

/// `text` with its `%xx` replaced; `None` if one is incomplete or the result is not UTF-8.
fn decoded(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let hex = [bytes.next()?, bytes.next()?];
        if !hex.iter().all(u8::is_ascii_hexdigit) {
            return None;
        }
        out.push(u8::from_str_radix(std::str::from_utf8(&hex).ok()?, 16).ok()?);
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(url: &str) -> Result<Endpoint, ConfigError> {
        Endpoint::parse(&Secret::new(url))
    }

    fn endpoint(host: &str, port: u16, user: Option<&str>, password: Option<&str>) -> Endpoint {
        let [user, password] = [user, password].map(|text| text.map(str::to_owned));
        Endpoint {
            host: host.to_owned(),
            port,
            user,
            password,
        }
    }

    #[test]
    fn urls_are_read() {
        for (url, expected) in [
            ("redis://localhost", endpoint("localhost", 6379, None, None)),
            ("redis://10.0.0.1:7000/0", endpoint("10.0.0.1", 7000, None, None)),
            ("redis://:p%40ss@h/", endpoint("h", 6379, None, Some("p@ss"))),
            ("redis://u:p:w@h:1", endpoint("h", 1, Some("u"), Some("p:w"))),
            ("redis://[::1]:6380", endpoint("::1", 6380, None, None)),
        ] {
            assert_eq!(parse(url), Ok(expected), "{url}");
        }
    }

    #[test]
    fn what_is_refused_says_what_is_accepted_and_no_password() {
        for url in [
            "localhost:6379",
            "http://h",
            "rediss://u:hunter2@h",
            "redis-sentinel://u:hunter2@h",
            "redis-cluster://h",
            "redis://",
            "redis://u:hunter2@",
            "redis://hunter2@h",
            "redis://u:@h",
            "redis://u:hunter2%4@h",
            "redis://u:hunter2@h:port",
            "redis://h:0",
            "redis://h/1",
            "redis://a,b",
            "redis://h?x=1",
        ] {
            let text = parse(url).unwrap_err().to_string();
            assert!(text.starts_with("REDIS_URL: "), "{text}");
            assert!(text.contains("redis://[user:password@]host[:port]"), "{text}");
            assert!(!text.contains("hunter2"), "{text}");
        }
        assert!(!format!("{:?}", parse("redis://u:hunter2@h").unwrap()).contains("hunter2"));
        assert!(!format!("{:?}", Secret::new("redis://u:hunter2@h")).contains("hunter2"));
    }
}
