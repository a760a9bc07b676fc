//! Commands about the connection itself: `ping`.

use roomgate_shared::{
    ids::CommandId,
    protocol::{Command, ErrorCode, codec::Refused},
};

use crate::{hub::text_frame, session::Session};

impl Session {
    pub(in crate::session) fn roomless(&self, id: Option<&CommandId>, command: Command) {
        match command {
            Command::Ping => {
                let id = id.map(|id| format!(r#","id":"{id}""#)).unwrap_or_default();
                let now = self.context.store.now_ms();
                self.client.outbox.push_answer(text_frame(&format!(
                    r#"{{"type":"pong"{id},"data":{{"serverTime":{now}}}}}"#
                )));
            }
            // Answered before it comes here.
            Command::Auth { .. }
            | Command::Join { .. }
            | Command::Leave
            | Command::PresenceUpdate { .. }
            | Command::Move { .. }
            | Command::Signal { .. }
            | Command::Broadcast { .. }
            | Command::MessageSend { .. }
            | Command::MessageEdit { .. }
            | Command::MessageDelete { .. }
            | Command::MessageMissing { .. }
            | Command::MessageHistory { .. }
            | Command::StateGet { .. }
            | Command::StatePatch { .. }
            | Command::UsersList { .. }
            | Command::UserKick(_)
            | Command::UserMute(_)
            | Command::UserUnmute(_)
            | Command::UserBan(_)
            | Command::UserUnban(_)
            | Command::RoomConfigure(_)
            | Command::RoomStatus { .. } => {
                self.refuse(id, None, ErrorCode::BadRequest, "`room` is missing");
            }
        }
    }
}

/// For a command of the connection where one of a room is expected.
pub(super) fn not_in_a_room() -> Refused {
    Refused {
        code: ErrorCode::BadRequest,
        message: "the command takes no room".to_owned(),
    }
}
