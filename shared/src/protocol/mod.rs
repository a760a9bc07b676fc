//! The wire protocol, version 1: see `docs/PROTOCOL.md`.

pub mod codec;
pub mod codes;
pub mod command;
pub mod config;
pub mod event;
pub mod json;
pub mod lane;
pub mod permission;
mod tape;

pub use codec::{Decoder, Incoming, Malformed};
pub use codes::{CloseCode, ErrorCode};
pub use command::{Command, CommandFrame, CommandType};
pub use json::JsonText;
pub use lane::Lane;
pub use permission::{Permission, Permissions};

/// The subprotocol of this version, as it stands in `Sec-WebSocket-Protocol`.
pub const SUBPROTOCOL: &str = "roomgate.v1";
/// Most commands in one frame.
pub const MAX_BATCH: usize = 64;
/// Deepest nesting of a client's frame, the frame's own braces counted.
pub const MAX_DEPTH: usize = 32;
/// Largest own presence, in bytes of JSON.
pub const MAX_PRESENCE_BYTES: usize = 4 * 1024;
/// Largest position of a `move`, in bytes of JSON.
pub const MAX_MOVE_BYTES: usize = 512;
/// Largest payload of a `signal`, in bytes of JSON.
pub const MAX_SIGNAL_BYTES: usize = 16 * 1024;
/// Largest payload of a `broadcast`, in bytes of JSON.
pub const MAX_BROADCAST_BYTES: usize = 64 * 1024;
/// Largest state of a room: names and values of all fields, in bytes.
pub const MAX_STATE_BYTES: usize = 1024 * 1024;
/// Longest name of a state or presence field, and of a custom event, in characters.
pub const MAX_NAME_CHARS: usize = 128;
/// Most entries of a page of messages or users, and of the messages in a join's answer.
pub const MAX_PAGE: usize = 200;
/// Entries of a page when the client names no number.
pub const DEFAULT_PAGE: usize = 50;
/// Most user ids in the `to` of a signal.
pub const MAX_SIGNAL_TO: usize = 1_000;
/// Longest reason that a moderator gives, in characters.
pub const MAX_REASON_CHARS: usize = 256;
/// Longest time for which a user is muted, banned or kept out, ms: ten years.
pub const MAX_MODERATION_MS: u64 = 10 * 365 * 24 * 3600 * 1000;
/// Most messages that a client may name in a `message.missing`.
pub const MAX_KNOWN_MESSAGES: usize = 1_000;
/// Largest configuration of a room, in bytes of JSON.
pub const MAX_CONFIG_BYTES: usize = 8 * 1024;
