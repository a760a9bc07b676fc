//! `join`, `leave`, `presence.update`, `move`.

use roomgate_shared::protocol::{
    JsonText,
    command::{Fields, Since},
};

use crate::{
    session::Session,
    store::{CommandKey, Join, Op},
};

pub(super) fn join(session: &Session, since: Option<Since>, presence: Fields, messages: usize) -> Op {
    Op::Join(Join {
        user: session.client.user().clone(),
        name: session.client.name().to_string(),
        connection: session.client.id,
        presence,
        since,
        messages,
        create: session.context.auto_create,
    })
}

pub(super) fn leave(session: &Session) -> Op {
    Op::Part {
        user: session.client.user().clone(),
        connection: session.client.id,
        leaving: true,
    }
}

pub(super) fn moved(session: &Session, position: JsonText) -> Op {
    Op::Positions {
        positions: vec![(session.client.user().clone(), position)],
    }
}

pub(super) fn presence_update(
    session: &Session,
    key: Option<CommandKey>,
    set: Fields,
    remove: Vec<String>,
) -> Op {
    Op::PresenceUpdate {
        user: session.client.user().clone(),
        key,
        set,
        remove,
    }
}
