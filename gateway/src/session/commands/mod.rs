//! From commands to operations of the store: one file a family.

mod connection;
mod members;
mod messages;
mod moderation;
mod state;

use roomgate_shared::{
    ids::RoomId,
    protocol::{Command, codec::Refused},
};

use super::Session;
use crate::store::{Action, CommandKey, Op};

/// The operation of a command that concerns a room, after the checks that need no store. `key` is that of a command that
/// is to happen once.
///
/// # Errors
/// A limit is passed.
pub(super) fn operation(
    session: &Session,
    room: &RoomId,
    key: Option<CommandKey>,
    command: Command,
) -> Result<Op, Refused> {
    Ok(match command {
        Command::Join {
            since,
            presence,
            messages,
        } => members::join(session, since, presence, messages),
        Command::Leave => members::leave(session),
        Command::PresenceUpdate { set, remove } => members::presence_update(session, key, set, remove),
        Command::Move { position } => members::moved(session, position),
        Command::UsersList { cursor, limit } => Op::UsersList { cursor, limit },
        Command::Signal { event, payload, to } => messages::signal(session, room, &event, &payload, to),
        Command::Broadcast { event, payload } => messages::broadcast(session, key, &event, &payload),
        Command::MessageSend { body, kind } => messages::send(session, key, &body, kind)?,
        Command::MessageEdit {
            message_id,
            body,
            if_version,
        } => messages::edit(session, room, key, message_id, body, if_version)?,
        Command::MessageDelete { message_id } => messages::delete(session, room, key, message_id),
        Command::MessageMissing { from, to, ids } => Op::MessageMissing { from, to, ids },
        Command::UserKick(about) => moderation::moderate(session, key, Action::Kick, about),
        Command::UserMute(about) => moderation::moderate(session, key, Action::Mute, about),
        Command::UserUnmute(about) => moderation::moderate(session, key, Action::Unmute, about),
        Command::UserBan(about) => moderation::moderate(session, key, Action::Ban, about),
        Command::UserUnban(about) => moderation::moderate(session, key, Action::Unban, about),
        Command::RoomConfigure(change) => moderation::configure(session, key, change)?,
        Command::RoomStatus { status } => moderation::status(session, key, status),
        Command::MessageHistory { before, after, limit } => Op::MessageHistory { before, after, limit },
        Command::StateGet { fields } => Op::StateGet { fields },
        Command::StatePatch {
            set,
            remove,
            increment,
            if_version,
        } => state::patch(session, key, set, remove, increment, if_version),
        Command::Auth { .. } | Command::Ping => return Err(connection::not_in_a_room()),
    })
}
