//! What is checked before a gateway serves: that a Redis of a version that will do answers, takes the login, keeps what
//! it is given, and brings back what is published.

use std::time::Duration;

use super::{
    config::Endpoint,
    wire::{Wire, WireError},
};

/// Oldest Redis with functions.
const REDIS: (u32, u32) = (7, 0);
/// Oldest Valkey.
const VALKEY: (u32, u32) = (7, 2);

/// Why a gateway cannot start. One line each; none holds a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BootError {
    /// Nothing that serves answered in time.
    #[error("Redis at {address} could not be reached within {} s (REDIS_WAIT_SECONDS): {reason}", wait.as_secs())]
    Unreachable {
        /// Where.
        address: String,
        /// How long it was waited for.
        wait: Duration,
        /// The last failure.
        reason: String,
    },
    /// User or password is wrong, or missing.
    #[error("Redis at {address} refuses the login of REDIS_URL: {reason}")]
    Login {
        /// Where.
        address: String,
        /// What Redis said.
        reason: String,
    },
    /// The user may not do what a gateway does.
    #[error("Redis at {address}: the user of REDIS_URL lacks a permission: {reason}")]
    Permission {
        /// Where.
        address: String,
        /// What Redis said.
        reason: String,
    },
    /// Something else listens there.
    #[error("what listens at {address} is no Redis server")]
    NotRedis {
        /// Where.
        address: String,
    },
    /// Too old.
    #[error("{server} {version} at {address} is too old: Redis 7.0 or Valkey 7.2 is needed")]
    TooOld {
        /// Where.
        address: String,
        /// `Redis` or `Valkey`.
        server: &'static str,
        /// Its version.
        version: String,
    },
    /// Redis refuses something else for good.
    #[error("Redis at {address} refuses: {reason}")]
    Refused {
        /// Where.
        address: String,
        /// What Redis said.
        reason: String,
    },
}

/// What an attempt came to.
#[derive(Debug)]
pub(super) enum Attempt {
    /// It may go better the next time.
    Again(String),
    /// It will not.
    Never(BootError),
}

/// Connects once and looks at the server. Says what it is, for the log.
pub(super) async fn look(endpoint: &Endpoint, name: &str, patience: Duration) -> Result<String, Attempt> {
    let failed = |error| sort(endpoint, error);
    let mut wire = Wire::connect(endpoint, name, patience).await.map_err(failed)?;
    let server = info(&mut wire, "server", patience).await.map_err(failed)?;
    let found = check_version(endpoint, &server).map_err(Attempt::Never)?;
    let memory = info(&mut wire, "memory", patience).await.map_err(failed)?;
    if let Some(policy) = line(&memory, "maxmemory_policy").filter(|policy| *policy != "noeviction") {
        tracing::warn!(
            policy,
            "maxmemory-policy is not noeviction: when its memory is full, Redis will remove rooms that are in use",
        );
    }
    Ok(found)
}

/// A section of `INFO`, which the room function needs as well: it knows a server by its replication id.
async fn info(wire: &mut Wire, section: &str, patience: Duration) -> Result<String, WireError> {
    let text = wire.ask_text(&["INFO", section], patience).await?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

fn line<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
        .map(str::trim)
}

fn check_version(endpoint: &Endpoint, info: &str) -> Result<String, BootError> {
    let (server, version, least) = match line(info, "valkey_version") {
        Some(version) => ("Valkey", version, VALKEY),
        None => ("Redis", line(info, "redis_version").unwrap_or("?"), REDIS),
    };
    let mut numbers = version.split('.').map(|part| part.parse::<u32>().ok());
    let number = (
        numbers.next().flatten().unwrap_or(0),
        numbers.next().flatten().unwrap_or(0),
    );
    if number < least {
        let (address, version) = (endpoint.to_string(), version.to_owned());
        return Err(BootError::TooOld {
            address,
            server,
            version,
        });
    }
    Ok(format!("{server} {version} at {endpoint}"))
}

/// Whether a failure is for good.
fn sort(endpoint: &Endpoint, error: WireError) -> Attempt {
    let address = endpoint.to_string();
    match error {
        WireError::Io(_) | WireError::Timeout(_) | WireError::Replica => Attempt::Again(error.to_string()),
        WireError::NotRedis => Attempt::Never(BootError::NotRedis { address }),
        WireError::Refused(reason) => refused(address, reason),
    }
}

/// Whether an error that Redis sent is for good.
pub(super) fn refused(address: String, reason: String) -> Attempt {
    match reason.split(' ').next().unwrap_or_default() {
        "WRONGPASS" | "NOAUTH" => Attempt::Never(BootError::Login { address, reason }),
        "NOPERM" => Attempt::Never(BootError::Permission { address, reason }),
        "NOPROTO" => Attempt::Never(BootError::TooOld {
            address,
            server: "Redis",
            version: "without RESP3".to_owned(),
        }),
        "ERR" if reason.contains("unknown command") => Attempt::Never(BootError::TooOld {
            address,
            server: "Redis",
            version: "without HELLO".to_owned(),
        }),
        "ERR" if reason.contains("max number of clients") => Attempt::Again(reason),
        "ERR" => Attempt::Never(BootError::Refused { address, reason }),
        _ => Attempt::Again(reason),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::redis::config::Secret;

    fn endpoint() -> Endpoint {
        Endpoint::parse(&Secret::new("redis://u:hunter2@h")).unwrap()
    }

    #[test]
    fn versions() {
        for (info, good) in [
            ("redis_version:7.0.15\r\n", true),
            ("redis_version:6.2.14\r\n", false),
            (
                "redis_version:7.2.4\r\nserver_name:valkey\r\nvalkey_version:8.0.1\r\n",
                true,
            ),
            ("redis_version:7.2.4\r\nvalkey_version:7.1.0\r\n", false),
            ("", false),
        ] {
            assert_eq!(check_version(&endpoint(), info).is_ok(), good, "{info}");
        }
    }

    #[test]
    fn only_what_can_pass_is_tried_again() {
        let refused = |reason: &str| refused(endpoint().to_string(), reason.to_owned());
        assert!(matches!(refused("LOADING Redis is loading"), Attempt::Again(_)));
        assert!(matches!(
            refused("WRONGPASS no"),
            Attempt::Never(BootError::Login { .. })
        ));
        assert!(matches!(
            refused("NOPERM no"),
            Attempt::Never(BootError::Permission { .. })
        ));
        assert!(matches!(
            refused("ERR unknown command `HELLO`"),
            Attempt::Never(BootError::TooOld { .. })
        ));
        let Attempt::Never(error) = refused("NOAUTH x") else {
            panic!()
        };
        assert!(!error.to_string().contains("hunter2"));
    }
}
