//! What the suites share: real gateway processes, and a WebSocket client that can be wrong.

#![allow(dead_code, reason = "each suite uses a part")]

pub(crate) mod frames;
pub(crate) mod process;
pub(crate) mod raw;
