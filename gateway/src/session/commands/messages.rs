//! `message.send`, `message.edit`, `message.delete`, `broadcast`, `signal`.

use roomgate_shared::{
    ids::{RoomId, UserId},
    protocol::{ErrorCode, JsonText, codec::Refused, command::MessageKind, event},
};

use crate::{
    session::Session,
    store::{CommandKey, Op, payload},
};

pub(super) fn send(
    session: &Session,
    key: Option<CommandKey>,
    body: &JsonText,
    kind: MessageKind,
) -> Result<Op, Refused> {
    check_body(session, body)?;
    let by = session.client.user().clone();
    let tail = event::message_tail(by.as_str(), kind.as_str(), body.as_str());
    Ok(Op::MessageSend { by, key, tail })
}

/// The gateway's own bound; the store asks for the room's.
fn check_body(session: &Session, body: &JsonText) -> Result<(), Refused> {
    let max = session.context.limits.max_message_bytes;
    if body.len() > max {
        return Err(Refused {
            code: ErrorCode::TooLarge,
            message: format!("`body` has {} bytes; {max} are allowed", body.len()),
        });
    }
    Ok(())
}

pub(super) fn edit(
    session: &Session,
    room: &RoomId,
    key: Option<CommandKey>,
    message_id: String,
    body: JsonText,
    if_version: Option<u64>,
) -> Result<Op, Refused> {
    check_body(session, &body)?;
    Ok(Op::MessageEdit {
        by: session.client.user().clone(),
        key,
        message_id,
        body,
        if_version,
        moderates: session.moderates(room),
    })
}

pub(super) fn delete(session: &Session, room: &RoomId, key: Option<CommandKey>, message_id: String) -> Op {
    Op::MessageDelete {
        by: session.client.user().clone(),
        key,
        message_id,
        moderates: session.moderates(room),
    }
}

pub(super) fn broadcast(session: &Session, key: Option<CommandKey>, name: &str, payload: &JsonText) -> Op {
    Op::Broadcast {
        by: session.client.user().clone(),
        key,
        data: event::custom_event(name, payload.as_str()),
    }
}

pub(super) fn signal(
    session: &Session,
    room: &RoomId,
    name: &str,
    payload: &JsonText,
    to: Option<Vec<UserId>>,
) -> Op {
    let by = session.client.user().as_str();
    let frame = event::signal_text(room, by, name, payload.as_str());
    // An empty list means nobody, whereas an absent one means all: the sender stands for "nobody else".
    let to = to.map(|to| {
        if to.is_empty() {
            vec![session.client.user().clone()]
        } else {
            to
        }
    });
    let to = to.iter().flatten().map(UserId::as_str);
    Op::Signal {
        payload: payload::signal(by, to, &frame),
    }
}
