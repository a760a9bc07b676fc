//! The gateway of Roomgate: realtime rooms over WebSocket.
//!
//! Read top-down: [`net`] → [`session`] → [`rooms`] → [`store`], and back by [`store::EventSink`] → [`hub`] → outbox →
//! [`net`]. Each layer uses only those to its right; [`app`] alone puts them together. See `docs/ARCHITECTURE.md`.

pub mod admin;
pub mod api;
pub mod app;
pub mod archive;
pub mod auth;
pub mod breaker;
mod descriptors;
pub mod hub;
pub mod limits;
pub mod logs;
pub mod metrics;
pub mod net;
pub mod outage;
#[cfg(debug_assertions)]
pub mod plant;
pub mod random;
pub mod rooms;
pub mod session;
pub mod settings;
pub mod settings_docs;
pub mod store;
pub mod tidy;
