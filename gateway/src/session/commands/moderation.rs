//! `user.kick` and its like, `room.configure`, `room.status`.

use roomgate_shared::protocol::{
    ErrorCode,
    codec::Refused,
    command::{Moderation, RoomStatus},
    config::ConfigChange,
};

use crate::{
    session::Session,
    store::{Action, CommandKey, Op},
};

pub(super) fn moderate(session: &Session, key: Option<CommandKey>, action: Action, about: Moderation) -> Op {
    Op::Moderate {
        by: session.client.user().clone(),
        key,
        action,
        about,
    }
}

pub(super) fn configure(
    session: &Session,
    key: Option<CommandKey>,
    change: ConfigChange,
) -> Result<Op, Refused> {
    let max = session.context.limits.max_message_bytes as u64;
    let bytes = change.set.iter().find(|(name, _)| name == "maxMessageBytes");
    if let Some(bytes) = bytes.and_then(|(_, text)| text.as_str().parse::<u64>().ok())
        && bytes > max
    {
        return Err(Refused {
            code: ErrorCode::BadRequest,
            message: format!("`maxMessageBytes` is an integer from 1 to {max}"),
        });
    }
    Ok(Op::Configure {
        by: session.client.user().clone(),
        key,
        change,
    })
}

pub(super) fn status(session: &Session, key: Option<CommandKey>, status: RoomStatus) -> Op {
    Op::Status {
        by: session.client.user().clone(),
        key,
        status,
    }
}
