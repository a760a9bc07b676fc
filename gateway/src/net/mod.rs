//! Sockets: the listener, HTTP routes, and the WebSocket transport.

pub mod address;
pub mod clients;
pub mod http;
pub mod ws;
