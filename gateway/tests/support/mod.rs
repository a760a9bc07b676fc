//! What the suites share: real gateways, a real Redis, and clients that speak the protocol or break it.

#![allow(dead_code, reason = "each suite uses a part")]
#![allow(
    clippy::wildcard_enum_match_arm,
    reason = "whatever else comes fails the test"
)]

pub(crate) mod client;
pub(crate) mod cluster;
pub(crate) mod crowd;
pub(crate) mod frames;
pub(crate) mod process;
pub(crate) mod proxy;
pub(crate) mod raw;
pub(crate) mod redis_server;
pub(crate) mod tokens;
pub(crate) mod told;
pub(crate) mod wait;
