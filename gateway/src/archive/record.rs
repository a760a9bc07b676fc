//! A completed room as data: what an archive holds of it, whatever store it was in.

use roomgate_shared::{ids::RoomId, protocol::json::JsonText};
use serde::{Deserialize, Deserializer, Serialize};

/// A room, whole. Times are milliseconds since 1970; values are the exact text that clients gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoomRecord {
    /// The room.
    pub id: RoomId,
    /// Its last epoch.
    pub epoch: String,
    /// When it was completed.
    pub completed: u64,
    /// Its messages in order, each as clients get it, edits included.
    pub messages: Vec<JsonText>,
    /// All the rest.
    pub rest: RoomRest,
}

/// What of a room is small enough to be written in one piece, after its messages.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoomRest {
    /// Its epochs before, as the store has them.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub past: String,
    /// The number of its last event.
    pub seq: u64,
    /// The version of its state.
    pub version: u64,
    /// Its status, as clients know it.
    pub status: String,
    /// Its name, if it has one.
    pub name: Option<String>,
    /// Its configuration: a JSON object.
    pub config: JsonText,
    /// When it was made.
    pub created: u64,
    /// When it was last used.
    pub active: u64,
    /// Its state: keys and values.
    pub state: Vec<(String, JsonText)>,
    /// Who was in it.
    pub members: Vec<MemberRecord>,
    /// Users that may not come in, and until when; `u64::MAX` for ever.
    pub bans: Vec<(String, u64)>,
    /// Users that may not speak, and until when; `u64::MAX` for ever.
    pub mutes: Vec<(String, u64)>,
    /// What was counted.
    pub statistics: RoomStatistics,
}

/// A member of a room.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberRecord {
    /// The user.
    pub id: String,
    /// The user's name.
    pub name: String,
    /// The fields of the user's presence.
    pub presence: Vec<(String, JsonText)>,
    /// Where the user was, if ever told. Left out otherwise: `null` is a value.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "told")]
    pub position: Option<JsonText>,
    /// When the user joined.
    pub joined_at: u64,
    /// When the user was last there.
    pub last_seen: u64,
}

/// What was counted in a room's life.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoomStatistics {
    /// Most members at one time.
    pub peak: u64,
    /// Joins.
    pub joins: u64,
    /// Messages sent.
    pub messages: u64,
    /// Milliseconds that members were in, added together.
    pub session_ms: u64,
}

fn told<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<JsonText>, D::Error> {
    JsonText::deserialize(deserializer).map(Some)
}
