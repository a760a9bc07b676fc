//! A whole room, on its way into the archive and back out of it.

use std::collections::BTreeMap;

use bytes::Bytes;
use roomgate_shared::protocol::JsonText;
use serde::Deserialize;

/// All of a room but its messages.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RoomData {
    /// Names the order of events.
    pub epoch: String,
    /// Its epochs before, each with its last event, oldest first: pairs, each word followed by a space.
    pub past: String,
    /// The last event.
    pub seq: u64,
    /// Of the state.
    pub version: u64,
    /// When the room was made, Unix ms.
    pub created: u64,
    /// When it last changed, Unix ms.
    pub active: u64,
    /// When it was completed, Unix ms.
    pub completed: u64,
    /// Most members at once.
    pub peak: u64,
    /// Arrivals, ever.
    pub joins: u64,
    /// From arrival to departure of all who have left, ms.
    pub session_ms: u64,
    /// Events that are no messages: `seq` − `others` messages have been sent.
    pub others: u64,
    /// What the configuration is made of ([`config_text`](roomgate_shared::protocol::config::config_text)).
    pub settings: BTreeMap<String, JsonText>,
    /// The shared state.
    pub state: BTreeMap<String, JsonText>,
    /// The members.
    pub members: Vec<MemberData>,
    /// Who may not come in, by user id (one that was put out for a time: RS and the id), and until when, Unix ms; `None`:
    /// for ever.
    pub bans: Vec<(String, Option<u64>)>,
    /// Who may only read, likewise.
    pub mutes: Vec<(String, Option<u64>)>,
}

/// A member of [`RoomData`].
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MemberData {
    /// The user's id.
    pub id: String,
    /// Display name.
    pub name: String,
    /// What the user says of itself.
    pub presence: BTreeMap<String, JsonText>,
    /// Where the user was last.
    #[serde(default)]
    pub position: Option<JsonText>,
    /// Unix ms.
    pub joined_at: u64,
    /// Unix ms.
    pub last_seen: u64,
}

/// A part of a completed room; see [`Op::Export`](super::Op::Export).
#[derive(Debug, Clone, PartialEq)]
pub struct Exported {
    /// All but the messages, with the first part.
    pub data: Option<Box<RoomData>>,
    /// Where to go on; `None` at the end.
    pub next: Option<u64>,
    /// Messages, in order, as clients get them.
    pub messages: Vec<Bytes>,
}

/// A message that is put back; see [`Op::RestoreMessages`](super::Op::RestoreMessages).
#[derive(Debug, Clone, PartialEq)]
pub struct RestoredMessage {
    /// Its id.
    pub id: String,
    /// When it was sent, Unix ms.
    pub ts: u64,
    /// All of it, JSON.
    pub text: String,
}
