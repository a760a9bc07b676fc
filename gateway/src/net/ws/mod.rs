//! WebSocket (RFC 6455) on a TCP stream: the only user of fastwebsockets' protocol parts.
//!
//! fastwebsockets does the handshake and the masking; [`parser`] stands in for its reader, which keeps no cap on a message
//! of many fragments, accepts unmasked and oversize control frames, and needs a buffer for each idle connection (see
//! `docs/adr/0003-websocket-reader.md`). [`connection`] is the one task of a connection.

mod connection;
mod handler;
mod handshake;
mod parser;

pub use self::{
    connection::{Timing, run},
    handler::{Echo, Handler, SessionHandler},
    handshake::{Handshake, Rejected, check},
};
