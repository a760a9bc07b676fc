//! Members that the room itself puts out: kicked, banned, or because it is completed.

use roomgate_shared::{
    ids::RoomId,
    protocol::{ErrorCode, config::RoomConfig, event::error_text},
};

use super::Inner;
use crate::hub::{frame::text_frame, membership::Membership, notice::Notice, rules::Rules};
use crate::metrics::metrics;

impl Inner {
    /// Removes a connection. Whether it was in.
    pub(super) fn remove(&mut self, membership: &Membership) -> bool {
        let Some(place) = membership.place() else {
            return false;
        };
        self.members.swap_remove(place);
        if let Some(moved) = self.members.get(place) {
            moved.membership.put(place);
        }
        membership.take_out();
        metrics().members.decrement(1.0);
        true
    }

    /// Acts on what the event `seq` says to gateways. The members have it.
    pub(super) fn act(&mut self, room: &RoomId, seq: u64, notice: Notice) {
        match notice {
            Notice::Out(users) => {
                for (user, code, until) in users {
                    self.put_out(room, &user, code, until, seq);
                }
            }
            Notice::Muted(user, until) => self.rules().mute(user, until),
            Notice::Unmuted(user) => self.rules().unmute(&user),
            Notice::Configured(config) => self.rules().configure(&RoomConfig::read(&config)),
            Notice::Closed => {
                for member in std::mem::take(&mut self.members) {
                    member.membership.close();
                    member.membership.take_out();
                    metrics().members.decrement(1.0);
                }
                self.emptied = true;
            }
        }
    }

    fn rules(&mut self) -> &mut Rules {
        self.rules.get_or_insert_default()
    }

    /// Puts a user's connections out, but those that have joined after the event `seq`. One that awaits a picture asks
    /// for it by a join, and is not let in.
    fn put_out(&mut self, room: &RoomId, user: &str, code: ErrorCode, until: Option<u64>, seq: u64) {
        let concerned = self
            .members
            .iter()
            .filter(|member| member.client.user().as_str() == user && member.entered < seq && !member.awaits);
        let out: Vec<_> = concerned
            .map(|member| (member.client.clone(), member.membership.clone()))
            .collect();
        let message = if code == ErrorCode::Banned {
            "you are banned from this room"
        } else {
            "you were put out of this room"
        };
        let until = until.map(|until| format!(r#""until":{until}"#));
        for (client, membership) in out {
            metrics().error(code).increment(1);
            let text = error_text(None, Some(room), code, message, None, until.as_deref());
            // As an event: behind what the room has told before.
            client.outbox.push(text_frame(&text));
            self.remove(&membership);
            self.emptied |= self.members.is_empty();
            self.out.push((client, membership));
        }
    }
}
