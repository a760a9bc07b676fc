//! What a client may ask: the commands as types, and their form as JSON.
//!
//! Reading is [`crate::protocol::codec`]'s work; writing (clients, tests, load tools) is `serde`'s.

use serde::{Serialize, Serializer, ser::SerializeMap};

use super::{config::ConfigChange, json::JsonText};
use crate::ids::{CommandId, RoomId, UserId};

macro_rules! command_types {
    ($($(#[$doc:meta])* $variant:ident = $text:literal;)*) => {
        /// The `type` of a command.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum CommandType {
            $($(#[$doc])* $variant,)*
        }

        impl CommandType {
            /// Every command that this version answers.
            pub const ALL: &'static [CommandType] = &[$(CommandType::$variant),*];

            /// The type on the wire; safe as a metric label.
            pub fn as_str(self) -> &'static str {
                match self { $(CommandType::$variant => $text),* }
            }

            /// The type that `text` names, if there is one.
            pub fn parse(text: &str) -> Option<Self> {
                match text { $($text => Some(CommandType::$variant),)* _ => None }
            }
        }
    };
}

command_types! {
    /// Hand over or renew a token.
    Auth = "auth";
    /// Ask for a `pong`.
    Ping = "ping";
    /// Enter a room, or resume it.
    Join = "join";
    /// Leave a room.
    Leave = "leave";
    /// Change one's own presence.
    PresenceUpdate = "presence.update";
    /// Say where one is.
    Move = "move";
    /// Send an ephemeral event.
    Signal = "signal";
    /// Send a durable custom event.
    Broadcast = "broadcast";
    /// Send a message.
    MessageSend = "message.send";
    /// Change a message's body.
    MessageEdit = "message.edit";
    /// Remove a message.
    MessageDelete = "message.delete";
    /// Page through messages.
    MessageHistory = "message.history";
    /// Compare the messages that a client has with those of the room.
    MessageMissing = "message.missing";
    /// Read the shared state.
    StateGet = "state.get";
    /// Change the shared state.
    StatePatch = "state.patch";
    /// Page through members.
    UsersList = "users.list";
    /// Put a user out of the room.
    UserKick = "user.kick";
    /// Let a user only read.
    UserMute = "user.mute";
    /// End that.
    UserUnmute = "user.unmute";
    /// Put a user out of the room and keep it out.
    UserBan = "user.ban";
    /// Let it in again.
    UserUnban = "user.unban";
    /// Change the room's configuration.
    RoomConfigure = "room.configure";
    /// Change the room's status.
    RoomStatus = "room.status";
}

impl CommandType {
    /// Whether the command happens once however often it is sent under one id. Those that only read need not, and to
    /// join or to leave twice is to have done it once.
    pub fn is_remembered(self) -> bool {
        match self {
            CommandType::PresenceUpdate
            | CommandType::Broadcast
            | CommandType::MessageSend
            | CommandType::MessageEdit
            | CommandType::MessageDelete
            | CommandType::StatePatch
            | CommandType::UserKick
            | CommandType::UserMute
            | CommandType::UserUnmute
            | CommandType::UserBan
            | CommandType::UserUnban
            | CommandType::RoomConfigure
            | CommandType::RoomStatus => true,
            CommandType::Auth
            | CommandType::Ping
            | CommandType::Join
            | CommandType::Leave
            | CommandType::Move
            | CommandType::Signal
            | CommandType::MessageHistory
            | CommandType::MessageMissing
            | CommandType::StateGet
            | CommandType::UsersList => false,
        }
    }

    /// Whether the command concerns a room. All but `auth` and `ping` do.
    pub fn needs_room(self) -> bool {
        !matches!(self, CommandType::Auth | CommandType::Ping)
    }
}

/// Where a client stands in a room's order of events: all up to `seq` of `epoch` are known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Since {
    /// The room's epoch when the client last heard of it.
    pub epoch: String,
    /// The last `seq` that the client has handled.
    pub seq: u64,
}

/// What a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MessageKind {
    /// `body` is any JSON.
    #[default]
    Text,
    /// `body` is a data URL of a png, jpeg, gif or webp.
    Image,
}

impl MessageKind {
    /// The kind on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            MessageKind::Text => "text",
            MessageKind::Image => "image",
        }
    }
}

/// A room's place in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RoomStatus {
    /// Made, and not begun: a lobby. It lives shorter.
    Waiting,
    /// In use.
    #[default]
    Active,
    /// At its end: it takes nothing any more, is archived and then removed.
    Completed,
}

impl RoomStatus {
    /// The status on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            RoomStatus::Waiting => "waiting",
            RoomStatus::Active => "active",
            RoomStatus::Completed => "completed",
        }
    }

    /// The status that `text` names, if there is one.
    pub fn parse(text: &str) -> Option<Self> {
        [RoomStatus::Waiting, RoomStatus::Active, RoomStatus::Completed]
            .into_iter()
            .find(|status| status.as_str() == text)
    }
}

/// What a moderator does about a user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moderation {
    /// The user.
    pub user: UserId,
    /// What others are told, 1 to [`MAX_REASON_CHARS`](super::MAX_REASON_CHARS) characters.
    pub reason: Option<String>,
    /// For how long, ms; `None`: until it is ended, and of a kick: the user may come again at once.
    pub duration_ms: Option<u64>,
}

/// Named JSON values, each name once, in the order of the client.
pub type Fields = Vec<(String, JsonText)>;

/// A command with its data.
#[derive(Debug, Clone, PartialEq)]
pub enum Command {
    /// Hand over or renew a token.
    Auth {
        /// A JWT. Never logged.
        token: String,
    },
    /// Ask for a `pong`.
    Ping,
    /// Enter a room, or resume it.
    Join {
        /// Resume after this point.
        since: Option<Since>,
        /// Own presence from the start, merged into what is there.
        presence: Fields,
        /// How many of the newest messages the answer brings, 0 to 200.
        messages: usize,
    },
    /// Leave a room.
    Leave,
    /// Change one's own presence.
    PresenceUpdate {
        /// Fields to set.
        set: Fields,
        /// Fields to remove.
        remove: Vec<String>,
    },
    /// Say where one is: ephemeral, the latest wins.
    Move {
        /// A small object, up to 512 bytes, such as `{"x":4,"y":7}`.
        position: JsonText,
    },
    /// Send an ephemeral event: at most once, no place in the order.
    Signal {
        /// The application's name for it.
        event: String,
        /// Any JSON, up to 16 KiB.
        payload: JsonText,
        /// Receivers; `None` for all members. Never oneself.
        to: Option<Vec<UserId>>,
    },
    /// Send a durable custom event.
    Broadcast {
        /// The application's name for it.
        event: String,
        /// Any JSON, up to 64 KiB.
        payload: JsonText,
    },
    /// Send a message.
    MessageSend {
        /// Any JSON; for an image, a data URL.
        body: JsonText,
        /// Text or image.
        kind: MessageKind,
    },
    /// Change a message's body.
    MessageEdit {
        /// Which.
        message_id: String,
        /// Any JSON; for an image, a data URL.
        body: JsonText,
        /// Only if the message has this version.
        if_version: Option<u64>,
    },
    /// Remove a message.
    MessageDelete {
        /// Which.
        message_id: String,
    },
    /// Compare the messages that a client has with those of the room.
    MessageMissing {
        /// Sent at this time or later, Unix ms.
        from: u64,
        /// Sent at this time or earlier, Unix ms.
        to: u64,
        /// Ids that the client has, each once, and the version where it says so.
        ids: Vec<(String, Option<u64>)>,
    },
    /// Page through messages: the newest, or those next to a cursor.
    MessageHistory {
        /// Messages before this cursor.
        before: Option<String>,
        /// Messages after this cursor.
        after: Option<String>,
        /// 1 to 200.
        limit: usize,
    },
    /// Read the shared state, or the named fields of it.
    StateGet {
        /// `None` for all.
        fields: Option<Vec<String>>,
    },
    /// Change the shared state: all of it or nothing.
    StatePatch {
        /// Fields to set.
        set: Fields,
        /// Fields to remove; those absent already are passed over.
        remove: Vec<String>,
        /// Numbers to add; an absent field counts as 0.
        increment: Vec<(String, f64)>,
        /// Only if the state has this version.
        if_version: Option<u64>,
    },
    /// Page through members.
    UsersList {
        /// Where the last page ended.
        cursor: Option<String>,
        /// 1 to 200.
        limit: usize,
    },
    /// Put a user out of the room.
    UserKick(Moderation),
    /// Let a user only read.
    UserMute(Moderation),
    /// End that.
    UserUnmute(Moderation),
    /// Put a user out of the room and keep it out.
    UserBan(Moderation),
    /// Let it in again.
    UserUnban(Moderation),
    /// Change the room's configuration.
    RoomConfigure(ConfigChange),
    /// Change the room's status.
    RoomStatus {
        /// What it is to be.
        status: RoomStatus,
    },
}

impl Command {
    /// The command's type.
    pub fn kind(&self) -> CommandType {
        match self {
            Command::Auth { .. } => CommandType::Auth,
            Command::Ping => CommandType::Ping,
            Command::Join { .. } => CommandType::Join,
            Command::Leave => CommandType::Leave,
            Command::PresenceUpdate { .. } => CommandType::PresenceUpdate,
            Command::Move { .. } => CommandType::Move,
            Command::Signal { .. } => CommandType::Signal,
            Command::Broadcast { .. } => CommandType::Broadcast,
            Command::MessageSend { .. } => CommandType::MessageSend,
            Command::MessageEdit { .. } => CommandType::MessageEdit,
            Command::MessageDelete { .. } => CommandType::MessageDelete,
            Command::MessageHistory { .. } => CommandType::MessageHistory,
            Command::MessageMissing { .. } => CommandType::MessageMissing,
            Command::StateGet { .. } => CommandType::StateGet,
            Command::StatePatch { .. } => CommandType::StatePatch,
            Command::UsersList { .. } => CommandType::UsersList,
            Command::UserKick(_) => CommandType::UserKick,
            Command::UserMute(_) => CommandType::UserMute,
            Command::UserUnmute(_) => CommandType::UserUnmute,
            Command::UserBan(_) => CommandType::UserBan,
            Command::UserUnban(_) => CommandType::UserUnban,
            Command::RoomConfigure(_) => CommandType::RoomConfigure,
            Command::RoomStatus { .. } => CommandType::RoomStatus,
        }
    }
}

/// One command as a client sends it.
#[derive(Debug, Clone, PartialEq)]
pub struct CommandFrame {
    /// Echoed in the one answer; without it only errors are reported.
    pub id: Option<CommandId>,
    /// The room it concerns.
    pub room: Option<RoomId>,
    /// What is asked.
    pub command: Command,
}

impl CommandFrame {
    /// The frame's JSON text.
    pub fn to_json(&self) -> String {
        // A map with string keys and finite numbers always has a JSON form.
        serde_json::to_string(self).unwrap_or_default()
    }
}

impl Serialize for CommandFrame {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        if let Some(id) = &self.id {
            map.serialize_entry("id", id)?;
        }
        map.serialize_entry("type", self.command.kind().as_str())?;
        if let Some(room) = &self.room {
            map.serialize_entry("room", room)?;
        }
        if let Command::Move { position } = &self.command {
            // It is the data.
            map.serialize_entry("data", position)?;
        } else {
            map.serialize_entry("data", &DataOf(&self.command))?;
        }
        map.end()
    }
}

/// A command's `data` object.
struct DataOf<'a>(&'a Command);

/// A list of pairs as a JSON object.
struct AsObject<'a, V>(&'a [(String, V)]);

impl<V: Serialize> Serialize for AsObject<'_, V> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(k, v)| (k, v)))
    }
}

impl Serialize for DataOf<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        match self.0 {
            Command::Auth { token } => map.serialize_entry("token", token)?,
            Command::Ping | Command::Leave | Command::Move { .. } => {}
            Command::Join {
                since,
                presence,
                messages,
            } => {
                if let Some(since) = since {
                    map.serialize_entry(
                        "since",
                        &serde_json::json!({"epoch": since.epoch, "seq": since.seq}),
                    )?;
                }
                if !presence.is_empty() {
                    map.serialize_entry("presence", &AsObject(presence))?;
                }
                map.serialize_entry("messages", messages)?;
            }
            Command::PresenceUpdate { set, remove } => {
                map.serialize_entry("set", &AsObject(set))?;
                map.serialize_entry("remove", remove)?;
            }
            Command::Signal { event, payload, to } => {
                map.serialize_entry("event", event)?;
                map.serialize_entry("payload", payload)?;
                if let Some(to) = to {
                    map.serialize_entry("to", to)?;
                }
            }
            Command::Broadcast { event, payload } => {
                map.serialize_entry("event", event)?;
                map.serialize_entry("payload", payload)?;
            }
            Command::MessageSend { body, kind } => {
                map.serialize_entry("body", body)?;
                map.serialize_entry("kind", kind.as_str())?;
            }
            Command::MessageEdit {
                message_id,
                body,
                if_version,
            } => {
                map.serialize_entry("messageId", message_id)?;
                map.serialize_entry("body", body)?;
                if let Some(version) = if_version {
                    map.serialize_entry("ifVersion", version)?;
                }
            }
            Command::MessageDelete { message_id } => map.serialize_entry("messageId", message_id)?,
            Command::MessageMissing { from, to, ids } => {
                map.serialize_entry("from", from)?;
                map.serialize_entry("to", to)?;
                // A list cannot say a version, and a map cannot leave it out.
                if ids.iter().all(|(_, version)| version.is_some()) {
                    map.serialize_entry("ids", &AsObject(ids))?;
                } else {
                    let ids: Vec<&String> = ids.iter().map(|(id, _)| id).collect();
                    map.serialize_entry("ids", &ids)?;
                }
            }
            Command::MessageHistory { before, after, limit } => {
                if let Some(before) = before {
                    map.serialize_entry("before", before)?;
                }
                if let Some(after) = after {
                    map.serialize_entry("after", after)?;
                }
                map.serialize_entry("limit", limit)?;
            }
            Command::StateGet { fields } => {
                if let Some(fields) = fields {
                    map.serialize_entry("fields", fields)?;
                }
            }
            Command::StatePatch {
                set,
                remove,
                increment,
                if_version,
            } => {
                map.serialize_entry("set", &AsObject(set))?;
                map.serialize_entry("remove", remove)?;
                map.serialize_entry("increment", &AsObject(increment))?;
                if let Some(version) = if_version {
                    map.serialize_entry("ifVersion", version)?;
                }
            }
            Command::UsersList { cursor, limit } => {
                if let Some(cursor) = cursor {
                    map.serialize_entry("cursor", cursor)?;
                }
                map.serialize_entry("limit", limit)?;
            }
            Command::UserKick(moderation)
            | Command::UserMute(moderation)
            | Command::UserUnmute(moderation)
            | Command::UserBan(moderation)
            | Command::UserUnban(moderation) => {
                map.serialize_entry("user", &moderation.user)?;
                if let Some(reason) = &moderation.reason {
                    map.serialize_entry("reason", reason)?;
                }
                if let Some(ms) = moderation.duration_ms {
                    map.serialize_entry("durationMs", &ms)?;
                }
            }
            Command::RoomConfigure(change) => {
                for (name, value) in change.nested() {
                    map.serialize_entry(&name, &value)?;
                }
            }
            Command::RoomStatus { status } => map.serialize_entry("status", status.as_str())?,
        }
        map.end()
    }
}
