//! What a gateway says: frames as types for whoever reads them (clients, tests, load tools), and the text of events
//! and answers for whoever writes them.
//!
//! The writing side is text, not types: an event is put together once, by the store, around the parts that came from
//! the command, and every gateway passes those bytes on.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, value::RawValue};

use super::{
    codes::ErrorCode,
    json::{push_str, push_u64},
};
use crate::ids::{CommandId, RoomId};

/// Any frame from a server, its envelope read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServerFrame {
    /// `ack`, `error`, `welcome`, or an event's type.
    #[serde(rename = "type")]
    pub kind: String,
    /// The command that this answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The room it concerns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub room: Option<String>,
    /// The place of a durable event in the room's order, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seq: Option<u64>,
    /// The store's clock when it happened, Unix ms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ts: Option<u64>,
    /// The user whose command it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// The answer is a remembered one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duplicate: Option<bool>,
    /// What the type says.
    #[serde(default)]
    pub data: Value,
}

/// `data` of `welcome`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Welcome {
    /// The protocol's version: 1.
    pub protocol: u32,
    /// This connection, unique over all nodes.
    pub connection: String,
    /// Who the connection is.
    pub user: UserName,
    /// The node that serves it.
    pub node: String,
    /// Unix ms.
    pub server_time: u64,
    /// Silence after which the server pings, ms.
    pub heartbeat_ms: u64,
    /// The limits in force.
    pub limits: Limits,
}

/// A user's id and display name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserName {
    /// The id.
    pub id: String,
    /// The name to show.
    pub name: String,
}

/// The limits that `welcome` tells.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Limits {
    /// Largest message of the client, all fragments together.
    pub max_frame_bytes: usize,
    /// Largest body of `message.send`.
    pub max_message_bytes: usize,
    /// Rooms that one connection may be in.
    pub max_rooms: usize,
    /// Commands in one frame.
    pub max_batch: usize,
}

/// A message.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Message {
    /// Unique within the room; ids sort in the order of the messages.
    pub id: String,
    /// The `seq` of its `message.sent`.
    pub seq: u64,
    /// When it was sent, Unix ms.
    pub ts: u64,
    /// Who sent it.
    pub by: String,
    /// `text` or `image`.
    pub kind: String,
    /// Any JSON.
    pub body: Value,
    /// 1, and one more with each edit.
    pub version: u64,
    /// When it was last edited, Unix ms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub edited_at: Option<u64>,
}

/// A member of a room.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Member {
    /// The user's id.
    pub id: String,
    /// The name to show.
    pub name: String,
    /// What the user says of itself.
    pub presence: Map<String, Value>,
    /// The last position, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<Value>,
    /// `here` or `away`.
    pub status: String,
    /// Unix ms.
    pub joined_at: u64,
    /// Unix ms.
    pub last_seen: u64,
    /// Open connections.
    pub connections: u64,
}

/// `data` of `presence`: what changed among the members, in one event.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct PresenceChange {
    /// `joined` is every member there is: the room has just begun to tell who is there again.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub all: bool,
    /// New members.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub joined: Vec<Member>,
    /// Members whose presence changed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub updated: Vec<Member>,
    /// Members that lost their last connection.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub away: Vec<String>,
    /// Members that came back.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub back: Vec<String>,
    /// Members that are gone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left: Vec<Left>,
}

/// A member that is gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Left {
    /// The user's id.
    pub user: String,
    /// `left`, `timeout`, `kicked` or `banned`.
    pub reason: String,
    /// Of who was put out for a time: until when, Unix ms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<u64>,
    /// Of who was put out: what the moderator gave as a reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// `data` of `user.muted`, `user.unmuted`, `user.banned` and `user.unbanned`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moderated {
    /// The user's id.
    pub user: String,
    /// When it ends, Unix ms; absent: not by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<u64>,
    /// What the moderator gave as a reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// `data` of `message.deleted`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MessageDeleted {
    /// Which.
    pub message_id: String,
}

/// `data` of `room.configured`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RoomConfigured {
    /// The whole configuration.
    pub config: Map<String, Value>,
}

/// `data` of `room.status`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusChanged {
    /// `waiting`, `active` or `completed`.
    pub status: String,
}

/// `data` of the ack of `message.missing`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MissingAnswer {
    /// Messages that the client lacks, oldest first.
    pub missing: Vec<Message>,
    /// Messages of which the client has another version, oldest first.
    pub changed: Vec<Message>,
    /// Ids of messages that are deleted, or past retention.
    pub gone: Vec<String>,
    /// The answer ends before this time, for it would have been too long: ask again from there on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<u64>,
}

/// `data` of `state.patched`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StatePatched {
    /// The state's version after the patch.
    pub version: u64,
    /// Fields set, what increments gave included.
    pub set: Map<String, Value>,
    /// Fields removed.
    pub remove: Vec<String>,
}

/// `data` of `broadcast` and `signal`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CustomEvent {
    /// The application's name for it.
    pub event: String,
    /// Any JSON.
    pub payload: Value,
}

/// `data` of the `ack` of a `join` that is not a resume, and of `resync`: the whole picture at `seq`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// The room's life; another one means another past.
    pub epoch: String,
    /// The picture holds all events up to this.
    pub seq: u64,
    /// `false`.
    pub recovered: bool,
    /// `new`, `too_old`, `epoch_changed` or `ahead`.
    pub reason: String,
    /// The room itself.
    pub room: RoomInfo,
    /// The state's version.
    pub version: u64,
    /// The shared state.
    pub state: Map<String, Value>,
    /// The members, empty in a room that counts.
    pub users: Vec<Member>,
    /// How many there are.
    pub members: u64,
    /// The newest messages, oldest first.
    pub messages: Vec<Message>,
    /// Oneself.
    pub you: Member,
}

/// A room in a snapshot.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RoomInfo {
    /// The room's id.
    pub id: String,
    /// `waiting`, `active` or `completed`.
    pub status: String,
    /// The room's configuration.
    pub config: Map<String, Value>,
}

/// `data` of the `ack` of a `join` that resumes: `missed` events follow.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Resumed {
    /// The room's life.
    pub epoch: String,
    /// `since.seq` + `missed`.
    pub seq: u64,
    /// `true`.
    pub recovered: bool,
    /// Events that follow before live ones.
    pub missed: u64,
    /// Oneself.
    pub you: Member,
}

/// `data` of `error`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ErrorData {
    /// One of [`ErrorCode`], or one of a later version.
    pub code: String,
    /// For a person.
    pub message: String,
    /// Whether the same command may succeed later.
    pub retryable: bool,
    /// When to try again, ms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
    /// What else the code brings, such as the current `version`.
    #[serde(flatten)]
    pub details: Map<String, Value>,
}

/// Types of the durable events of this version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventType {
    /// Members came, changed or went.
    Presence,
    /// A message.
    MessageSent,
    /// A message has another body.
    MessageEdited,
    /// A message is gone.
    MessageDeleted,
    /// The state changed.
    StatePatched,
    /// The application's own.
    Broadcast,
    /// A user may only read.
    UserMuted,
    /// It may write again.
    UserUnmuted,
    /// A user may not come in.
    UserBanned,
    /// It may come in again.
    UserUnbanned,
    /// The configuration changed.
    RoomConfigured,
    /// The status changed.
    RoomStatus,
}

impl EventType {
    /// Every durable event.
    pub const ALL: &'static [EventType] = &[
        EventType::Presence,
        EventType::MessageSent,
        EventType::MessageEdited,
        EventType::MessageDeleted,
        EventType::StatePatched,
        EventType::Broadcast,
        EventType::UserMuted,
        EventType::UserUnmuted,
        EventType::UserBanned,
        EventType::UserUnbanned,
        EventType::RoomConfigured,
        EventType::RoomStatus,
    ];

    /// The type on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            EventType::Presence => "presence",
            EventType::MessageSent => "message.sent",
            EventType::MessageEdited => "message.edited",
            EventType::MessageDeleted => "message.deleted",
            EventType::StatePatched => "state.patched",
            EventType::Broadcast => "broadcast",
            EventType::UserMuted => "user.muted",
            EventType::UserUnmuted => "user.unmuted",
            EventType::UserBanned => "user.banned",
            EventType::UserUnbanned => "user.unbanned",
            EventType::RoomConfigured => "room.configured",
            EventType::RoomStatus => "room.status",
        }
    }
}

/// The text of a durable event. `by` is a user id; `data` is JSON text. A `presence` event has no author.
pub fn event_text(kind: EventType, room: &str, seq: u64, ts: u64, by: Option<&str>, data: &str) -> String {
    let mut out = String::with_capacity(data.len() + room.len() + 96);
    out.push_str("{\"type\":\"");
    out.push_str(kind.as_str());
    out.push_str("\",\"room\":\"");
    out.push_str(room);
    out.push_str("\",\"seq\":");
    push_u64(&mut out, seq);
    out.push_str(",\"ts\":");
    push_u64(&mut out, ts);
    if let Some(by) = by {
        out.push_str(",\"by\":");
        push_str(&mut out, by);
    }
    out.push_str(",\"data\":");
    out.push_str(data);
    out.push('}');
    out
}

/// The id of the message at `seq` of `epoch`: ids of one epoch sort as their messages do.
pub fn message_id(epoch: &str, seq: u64) -> String {
    format!("{epoch}-{seq:010}")
}

/// What stands in a message's text after its `ts`: known before the store gives it a place.
pub fn message_tail(by: &str, kind: &str, body: &str) -> String {
    let mut out = String::with_capacity(body.len() + by.len() + 48);
    out.push_str("\"by\":");
    push_str(&mut out, by);
    out.push_str(",\"kind\":\"");
    out.push_str(kind);
    out.push_str("\",\"body\":");
    out.push_str(body);
    out.push_str(",\"version\":1}");
    out
}

/// The text of a message from its place and its [`message_tail`].
pub fn message_text(epoch: &str, seq: u64, ts: u64, tail: &str) -> String {
    let mut out = String::with_capacity(tail.len() + 72);
    out.push_str("{\"id\":\"");
    out.push_str(&message_id(epoch, seq));
    out.push_str("\",\"seq\":");
    push_u64(&mut out, seq);
    out.push_str(",\"ts\":");
    push_u64(&mut out, ts);
    out.push(',');
    out.push_str(tail);
    out
}

/// A message's text, taken apart as far as an edit needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MessageParts {
    /// Who sent it.
    pub by: String,
    /// `text` or `image`.
    pub kind: String,
    /// 1, and one more with each edit.
    pub version: u64,
    /// Where the body begins, and where it ends.
    body: std::ops::Range<usize>,
}

impl MessageParts {
    /// Reads a text that [`message_text`] or [`MessageParts::edited`] wrote.
    pub fn read(text: &str) -> Option<Self> {
        #[derive(Deserialize)]
        struct Parts<'a> {
            by: String,
            kind: String,
            version: u64,
            #[serde(borrow)]
            body: &'a RawValue,
        }
        let parts: Parts<'_> = serde_json::from_str(text).ok()?;
        let body = parts.body.get();
        let start = (body.as_ptr() as usize).checked_sub(text.as_ptr() as usize)?;
        Some(Self {
            by: parts.by,
            kind: parts.kind,
            version: parts.version,
            body: start..start + body.len(),
        })
    }

    /// The text with another body, edited at `ts`.
    pub fn edited(&self, text: &str, body: &str, ts: u64) -> String {
        let version = self.version + 1;
        format!(
            "{}{body},\"version\":{version},\"editedAt\":{ts}}}",
            &text[..self.body.start]
        )
    }

    /// Length of the body.
    pub fn body_len(&self) -> usize {
        self.body.len()
    }
}

/// The text of `status`: whether the store is away.
pub fn status_text(away: bool) -> &'static str {
    if away {
        r#"{"type":"status","data":{"redis":"down"}}"#
    } else {
        r#"{"type":"status","data":{"redis":"ok"}}"#
    }
}

/// The text of `token.expiring`: the token ends at that time, Unix ms.
pub fn token_expiring_text(expires: u64) -> String {
    format!(r#"{{"type":"token.expiring","data":{{"expiresAt":{expires}}}}}"#)
}

/// `data` of `token.expiring`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TokenExpiring {
    /// Unix ms.
    pub expires_at: u64,
}

/// `data` of `occupancy`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Occupancy {
    /// How many members the room has.
    pub members: u64,
}

/// The text of `occupancy`.
pub fn occupancy_text(room: &RoomId, members: u64) -> String {
    format!(r#"{{"type":"occupancy","room":"{room}","data":{{"members":{members}}}}}"#)
}

/// What stands in `moves` before the positions; [`push_move`] adds each, and two braces end it.
pub fn moves_head(room: &RoomId) -> String {
    format!(r#"{{"type":"moves","room":"{room}","data":{{"#)
}

/// Adds where a user is to what stands in `moves`, without a comma. `position` is JSON text.
pub fn push_move(out: &mut String, user: &str, position: &str) {
    push_str(out, user);
    out.push(':');
    out.push_str(position);
}

/// The text of a signal.
pub fn signal_text(room: &RoomId, by: &str, event: &str, payload: &str) -> String {
    let mut out = String::with_capacity(payload.len() + event.len() + by.len() + 96);
    out.push_str("{\"type\":\"signal\",\"room\":\"");
    out.push_str(room.as_str());
    out.push_str("\",\"by\":");
    push_str(&mut out, by);
    out.push_str(",\"data\":");
    out.push_str(&custom_event(event, payload));
    out.push('}');
    out
}

/// `data` of `broadcast` and `signal`.
pub fn custom_event(event: &str, payload: &str) -> String {
    let mut out = String::with_capacity(payload.len() + event.len() + 32);
    out.push_str("{\"event\":");
    push_str(&mut out, event);
    out.push_str(",\"payload\":");
    out.push_str(payload);
    out.push('}');
    out
}

/// The text of an `ack`. `data` is JSON text.
pub fn ack_text(id: &CommandId, room: Option<&RoomId>, data: &str) -> String {
    ack(id, room, "", data)
}

/// A `status` that tells the members of a room its new epoch: what they have stands in it, and they go on.
pub fn epoch_text(room: &RoomId, epoch: &str) -> String {
    format!(r#"{{"type":"status","room":"{room}","data":{{"redis":"ok","epoch":"{epoch}"}}}}"#)
}

/// An `ack` of a command that has happened before.
pub fn duplicate_ack_text(id: &CommandId, room: &RoomId, data: &str) -> String {
    ack(id, Some(room), ",\"duplicate\":true", data)
}

fn ack(id: &CommandId, room: Option<&RoomId>, members: &str, data: &str) -> String {
    let mut out = String::with_capacity(data.len() + 96);
    out.push_str("{\"type\":\"ack\",\"id\":\"");
    out.push_str(id.as_str());
    out.push('"');
    push_room(&mut out, room);
    out.push_str(members);
    out.push_str(",\"data\":");
    out.push_str(data);
    out.push('}');
    out
}

/// The text of an `error`. `details` holds further members of `data` as JSON text without braces, such as
/// `"version":3`.
pub fn error_text(
    id: Option<&CommandId>,
    room: Option<&RoomId>,
    code: ErrorCode,
    message: &str,
    retry_after_ms: Option<u64>,
    details: Option<&str>,
) -> String {
    let mut out = String::with_capacity(message.len() + 160);
    out.push_str("{\"type\":\"error\"");
    if let Some(id) = id {
        out.push_str(",\"id\":\"");
        out.push_str(id.as_str());
        out.push('"');
    }
    push_room(&mut out, room);
    out.push_str(",\"data\":{\"code\":\"");
    out.push_str(code.as_str());
    out.push_str("\",\"message\":");
    push_str(&mut out, message);
    out.push_str(if code.retryable() {
        ",\"retryable\":true"
    } else {
        ",\"retryable\":false"
    });
    if let Some(ms) = retry_after_ms {
        out.push_str(",\"retryAfterMs\":");
        push_u64(&mut out, ms);
    }
    if let Some(details) = details {
        out.push(',');
        out.push_str(details);
    }
    out.push_str("}}");
    out
}

fn push_room(out: &mut String, room: Option<&RoomId>) {
    if let Some(room) = room {
        out.push_str(",\"room\":\"");
        out.push_str(room.as_str());
        out.push('"');
    }
}
