//! What a store is asked to do with a room, and what it answers.

use std::{borrow::Cow, sync::Arc, time::Duration};

use bytes::Bytes;
use roomgate_shared::{
    ids::{CommandId, ConnectionId, UserId},
    protocol::{
        JsonText,
        codes::ErrorCode,
        command::{Fields, Moderation, RoomStatus, Since},
        config::ConfigChange,
    },
};

use super::export::{Exported, RestoredMessage, RoomData};

/// What makes a command happen once, however often it is sent. The user is the operation's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandKey {
    /// The client's id for it.
    pub id: CommandId,
    /// A hash of the command's type and data: another one under the same id is another command.
    pub fingerprint: u64,
}

/// One operation on a room.
#[derive(Debug, Clone, PartialEq)]
pub enum Op {
    /// A connection enters. Adds the connection to the user's; a user without any before is announced in `joined`, one
    /// that was `away` in `back`, and one whose presence this changes in `updated`. The same connection again changes
    /// nothing but presence.
    Join(Join),
    /// A connection is gone. With the user's last one: `left` if `leaving`, else the user stays, `away`. Unknown
    /// connections are passed over: [`Done::Ack`] with `{}`.
    Part {
        /// Whose.
        user: UserId,
        /// Which.
        connection: ConnectionId,
        /// The user means to go, as against a lost connection.
        leaving: bool,
    },
    /// Merges into the user's presence; `updated` unless nothing changes. Refused as `too_large` where the presence would
    /// pass 4 KiB (names and values), as `not_joined` for a user that is no member. Ack: `{"seq":n}`.
    PresenceUpdate {
        /// Whose.
        user: UserId,
        /// The command, if it is to happen once.
        key: Option<CommandKey>,
        /// Fields to set.
        set: Fields,
        /// Fields to remove.
        remove: Vec<String>,
    },
    /// Ack: `{"version":n,"state":{…},"seq":n}`.
    StateGet {
        /// `None` for all; absent ones are left out.
        fields: Option<Vec<String>>,
    },
    /// Changes fields, all or none. `conflict` (details `"version":n,"fields":{…}` with the current values of the fields
    /// named) where `if_version` is not the current one; `bad_request` for an increment of what is no number or past
    /// what a double holds; `state_too_large` past 1 MiB. Ack: `{"version":n,"seq":n}`.
    StatePatch {
        /// Author.
        by: UserId,
        /// The command, if it is to happen once.
        key: Option<CommandKey>,
        /// Fields to set.
        set: Fields,
        /// Fields to remove.
        remove: Vec<String>,
        /// Numbers to add; an absent field counts as 0. An integral result within ±2^53 is written as an integer.
        increment: Vec<(String, f64)>,
        /// Condition.
        if_version: Option<u64>,
    },
    /// Adds a message. Ack: `{"message":{…}}`.
    MessageSend {
        /// Author.
        by: UserId,
        /// The command, if it is to happen once.
        key: Option<CommandKey>,
        /// [`message_tail`](roomgate_shared::protocol::event::message_tail) of the message.
        tail: String,
    },
    /// A page of messages, oldest first, none past retention. A cursor is a message's id and need not exist any more.
    /// `bad_request` for a text that cannot be one. Ack: `{"messages":[…],"before":…,"after":…}`, where `before` is there if
    /// older ones exist and `after` if newer ones do.
    MessageHistory {
        /// Messages older than this one.
        before: Option<String>,
        /// Messages newer than this one.
        after: Option<String>,
        /// Most messages.
        limit: usize,
    },
    /// A custom event. Ack: `{"seq":n}`.
    Broadcast {
        /// Author.
        by: UserId,
        /// The command, if it is to happen once.
        key: Option<CommandKey>,
        /// The event's `data`, JSON text.
        data: String,
    },
    /// Passes an ephemeral frame to all nodes of the room. Not in the log, no `seq`. Ack: `{}`.
    Signal {
        /// A [`payload`] of the signal kind.
        payload: Bytes,
    },
    /// Changes the body of a message. `not_found`; `forbidden` unless it is one's own or `moderates`; `conflict` (details
    /// `"version":n,"message":{…}`) unless it has `if_version`; `bad_request` where an image gets another body. Event
    /// `message.edited`. Ack: `{"message":{…}}`.
    MessageEdit {
        /// Author of the change.
        by: UserId,
        /// The command, if it is to happen once.
        key: Option<CommandKey>,
        /// Which.
        message_id: String,
        /// The new body.
        body: JsonText,
        /// Expected version.
        if_version: Option<u64>,
        /// Others' messages, too.
        moderates: bool,
    },
    /// Removes a message; refused as [`Op::MessageEdit`]. Event `message.deleted`. Ack: `{"seq":n}`.
    MessageDelete {
        /// Author of the change.
        by: UserId,
        /// The command, if it is to happen once.
        key: Option<CommandKey>,
        /// Which.
        message_id: String,
        /// Others' messages, too.
        moderates: bool,
    },
    /// What a client with these messages lacks of those sent from `from` to `to`. Ack: `{"missing":[…],"changed":[…],
    /// "gone":[…],"next":ms}`, `next` only where the answer ends before `to`.
    MessageMissing {
        /// Unix ms.
        from: u64,
        /// Unix ms.
        to: u64,
        /// Ids, each once, and the version where the client says so.
        ids: Vec<(String, Option<u64>)>,
    },
    /// What a moderator does about a user. Event `user.muted` and so on; who is put out leaves (`left`, in a room that
    /// counts, too). Kick: `not_found` for one that is no member. What changes nothing makes no event. Ack: `{"seq":n}`.
    Moderate {
        /// The moderator.
        by: UserId,
        /// The command, if it is to happen once.
        key: Option<CommandKey>,
        /// What is done.
        action: Action,
        /// About whom, why and for how long.
        about: Moderation,
    },
    /// Changes the configuration. Event `room.configured`. Ack: `{"config":{…},"seq":n}`.
    Configure {
        /// Author.
        by: UserId,
        /// The command, if it is to happen once.
        key: Option<CommandKey>,
        /// What is changed.
        change: ConfigChange,
    },
    /// Changes the status. Event `room.status`. A completed room refuses everything but what is under way inside of it
    /// (`room_closed`). Ack: `{"seq":n}`.
    Status {
        /// Author.
        by: UserId,
        /// The command, if it is to happen once.
        key: Option<CommandKey>,
        /// What it is to be.
        status: RoomStatus,
    },
    /// A part of a completed room, from the message at rank `from` on; `conflict` for a room that is not completed.
    /// [`Done::Exported`]. Alone in its batch, as the four that follow.
    Export {
        /// 0 at first.
        from: u64,
    },
    /// The completed room has been archived as it was at `seq` of `epoch`: it goes. `conflict` if it is not that any more.
    /// Ack: `{}`.
    Remove {
        /// What was archived.
        at: Since,
    },
    /// The completed room could not be archived, for this reason. It stays, and is swept again. Ack: `{}`.
    Trouble {
        /// For whoever looks.
        reason: String,
        /// How long no other try is worth while.
        pause: Duration,
    },
    /// Messages of a room that is to be, before [`Op::Restore`]; passed over where there is one. Ack: `{}`.
    RestoreMessages {
        /// In order.
        messages: Vec<RestoredMessage>,
    },
    /// Makes a room of what was archived, with those messages, unless it is there. Its members are `away`; its order goes
    /// on in another epoch. Ack: `{}`.
    Restore(Box<RoomData>),
    /// A page of members ordered by user id (bytewise). The cursor is the last user id of the page before. Ack:
    /// `{"users":[…],"total":n,"cursor":…}`, `cursor` only if more follow.
    UsersList {
        /// Where to go on.
        cursor: Option<String>,
        /// Most members.
        limit: usize,
    },
    /// What a node missed: every event after `since`, or a snapshot where the log does not reach. [`Done::Joined`], whose
    /// `data` lacks `you` and whose `reason` is as in a join. Comes first in its batch. What it says is taken for true: a
    /// tail that knows of an event which the room does not have gives the room another epoch.
    Tail(Tail),
    /// Last positions of members; those of others are passed over. No event, no `seq`. Ack: `{}`.
    Positions {
        /// Each user once.
        positions: Vec<(UserId, JsonText)>,
    },
    /// Members that have done something since the last time: `lastSeen` is now. Others are passed over. Ack: `{}`.
    Active {
        /// Each user once.
        users: Vec<UserId>,
    },
    /// Does what is due: members that have been `away` for [`StoreLimits::grace`](super::StoreLimits::grace) leave
    /// (`left`, `timeout`), messages past retention go; a bounded number of each. [`Done::Swept`].
    Sweep,
    /// Connections of a node that has come to its end are gone, as by a loss ([`Op::Part`]); of a part of the members,
    /// for the step is to be short. [`Done::Buried`].
    Bury {
        /// The node, as [`Beat::dead`](super::Beat::dead) names it.
        node: String,
        /// Where to go on; empty at first.
        cursor: String,
    },
    /// These connections of this node are here: what a join does for them, without a picture. For a node whose
    /// connections were taken for gone. Ack: `{}`.
    Return {
        /// Each connection once.
        members: Vec<Returning>,
    },
}

/// [`Op::Moderate`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Out; for a time, if one is given.
    Kick,
    /// May only read.
    Mute,
    /// May write again.
    Unmute,
    /// Out, and not in again.
    Ban,
    /// May come in again.
    Unban,
}

impl Action {
    /// The action's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Action::Kick => "kick",
            Action::Mute => "mute",
            Action::Unmute => "unmute",
            Action::Ban => "ban",
            Action::Unban => "unban",
        }
    }

    /// Whether a member may be put out by it.
    pub fn puts_out(self) -> bool {
        matches!(self, Action::Kick | Action::Ban)
    }
}

/// One of [`Op::Return`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Returning {
    /// Who.
    pub user: UserId,
    /// Display name.
    pub name: String,
    /// The connection.
    pub connection: ConnectionId,
}

/// [`Op::Tail`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tail {
    /// The last event that the node has.
    pub since: Since,
    /// `ts` of that event, where it is known: two events with one `seq` differ in it.
    pub ts: Option<u64>,
    /// The last event that the node has acknowledged or delivered: `since.seq` or later.
    pub known: u64,
}

impl Op {
    /// The tail after `since`, of a node that knows nothing more.
    pub fn tail(since: Since) -> Self {
        let known = since.seq;
        Op::Tail(Tail {
            since,
            ts: None,
            known,
        })
    }

    /// Whether the answer may be long: a page or a picture.
    pub fn answers_at_length(&self) -> bool {
        match self {
            Op::Join(_)
            | Op::StateGet { .. }
            | Op::MessageHistory { .. }
            | Op::MessageMissing { .. }
            | Op::UsersList { .. }
            | Op::Export { .. }
            | Op::Tail(_) => true,
            Op::Part { .. }
            | Op::PresenceUpdate { .. }
            | Op::StatePatch { .. }
            | Op::MessageSend { .. }
            | Op::MessageEdit { .. }
            | Op::MessageDelete { .. }
            | Op::Moderate { .. }
            | Op::Configure { .. }
            | Op::Status { .. }
            | Op::Remove { .. }
            | Op::Trouble { .. }
            | Op::RestoreMessages { .. }
            | Op::Restore(_)
            | Op::Broadcast { .. }
            | Op::Signal { .. }
            | Op::Positions { .. }
            | Op::Active { .. }
            | Op::Sweep
            | Op::Bury { .. }
            | Op::Return { .. } => false,
        }
    }
}

/// [`Op::Join`].
#[derive(Debug, Clone, PartialEq)]
pub struct Join {
    /// Who.
    pub user: UserId,
    /// Display name; the newest join's stands.
    pub name: String,
    /// The connection that enters.
    pub connection: ConnectionId,
    /// Presence to merge.
    pub presence: Fields,
    /// Resume after this.
    pub since: Option<Since>,
    /// Newest messages in the snapshot.
    pub messages: usize,
    /// Make the room if it is not there; else `not_found`.
    pub create: bool,
}

/// What an operation did.
#[derive(Debug, Clone, PartialEq)]
pub enum Done {
    /// `data` of the `ack`, JSON text.
    Ack(String),
    /// `data` of the `ack` of a command that has happened before.
    Again(String),
    /// A join or a tail.
    Joined(Joined),
    /// A sweep.
    Swept(Swept),
    /// A part of the members of a room has been looked at for a dead node.
    Buried(Buried),
    /// A part of a completed room.
    Exported(Exported),
}

/// What a sweep did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Swept {
    /// Members that left.
    pub left: u64,
    /// Messages that went.
    pub purged: u64,
    /// When it was, Unix ms by the store's clock.
    pub now: u64,
    /// When something is due again, by the same clock; not after `now`: there is more.
    pub next: u64,
    /// The room is completed, and to be archived by the caller.
    pub completed: bool,
}

/// What taking out a dead node's connections did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Buried {
    /// Members that are `away` now.
    pub away: u64,
    /// Where to go on; empty at the end.
    pub cursor: String,
}

/// Positions of a room's members: user id and JSON text.
pub type Positions = Arc<[(String, Bytes)]>;

/// The answer to a join or a tail.
#[derive(Debug, Clone, PartialEq)]
pub struct Joined {
    /// The room's epoch.
    pub epoch: String,
    /// The point of which `data` and `missed` are the picture.
    pub seq: u64,
    /// `data` of the `ack`, JSON text, as *Joining* in `docs/PROTOCOL.md` says.
    pub data: String,
    /// Resumed: the events after `since.seq` up to `seq`, in order. Else empty.
    pub missed: Vec<Bytes>,
    /// Whether every event after `since` is in `missed`.
    pub recovered: bool,
    /// Resumed: where the members are. Else empty, as the picture says it; likewise in a room that counts.
    pub positions: Positions,
    /// Resumed in a room that counts: how many members there are.
    pub occupancy: Option<u64>,
    /// What nodes with members must know of the room: `{"config":{…},"mutes":{user: ms, 0 for ever}}`, JSON; `None` for a
    /// room without any of it.
    pub rules: Option<Bytes>,
}

/// Why an operation was refused. It has changed nothing.
#[derive(Debug, Clone, PartialEq)]
pub struct Refusal {
    /// The code for the client.
    pub code: ErrorCode,
    /// The message for the client.
    pub message: Cow<'static, str>,
    /// More members of the error's `data`: JSON text without braces.
    pub details: Option<String>,
    /// When it is worth trying again, ms, where the store knows.
    pub retry_ms: Option<u64>,
    /// There is no such room, as against something that is not in it.
    pub no_room: bool,
}

impl Refusal {
    /// A refusal without details.
    pub fn new(code: ErrorCode, message: impl Into<Cow<'static, str>>) -> Self {
        Self {
            code,
            message: message.into(),
            details: None,
            retry_ms: None,
            no_room: false,
        }
    }

    /// `not_found`: there is no such room.
    pub fn no_room() -> Self {
        Self {
            no_room: true,
            ..Self::new(ErrorCode::NotFound, "the room does not exist any more")
        }
    }
}

/// The answer to one operation.
pub type Reply = Result<Done, Refusal>;

/// The answer to a batch.
#[derive(Debug, Clone, PartialEq)]
pub struct Applied {
    /// In the order of the operations.
    pub replies: Vec<Reply>,
    /// Epoch and `seq` of the room after the batch; empty and 0 without a room.
    pub epoch: Bytes,
    /// See `epoch`.
    pub seq: u64,
}
