//! File descriptors: each connection takes one, and the process may have so many.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Kept for all else: Redis, the listener, health checks, logs.
const RESERVE: u64 = 64;

/// Raises the process's limit as far as it may, and gives the number of connections that fit: `wanted`, or fewer, with a
/// warning.
pub(crate) fn connections(wanted: usize) -> usize {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    let current = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(_) => limit.current,
    };
    let room = current.unwrap_or(u64::MAX).saturating_sub(RESERVE).max(1);
    let room = usize::try_from(room).unwrap_or(usize::MAX);
    if room < wanted {
        tracing::warn!(
            connections = room,
            MAX_CONNECTIONS = wanted,
            "the limit on open files (ulimit -n) allows fewer connections than MAX_CONNECTIONS"
        );
    }
    wanted.min(room)
}
