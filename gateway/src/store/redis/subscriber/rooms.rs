//! Which rooms are subscribed to, and what Redis has still to confirm.

use std::collections::{HashMap, VecDeque};

use roomgate_shared::{ids::RoomId, keys};
use tokio::sync::oneshot;

use crate::store::StoreError;

/// A room that is wanted.
struct Room {
    /// Of the newest subscription that was asked for before one was confirmed.
    number: u64,
    confirmed: bool,
}

/// A command that Redis has to confirm, in the order in which they were sent.
enum Pending {
    Subscribe {
        channel: String,
        room: Option<RoomId>,
        number: u64,
        done: Option<oneshot::Sender<Result<(), StoreError>>>,
    },
    Unsubscribe {
        channel: String,
    },
}

/// What a confirmation, or its absence, leads to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Confirmed {
    /// Nothing more.
    Fine,
    /// Nobody waits for this room any more: its subscription is to be ended.
    Unwanted(RoomId),
    /// It was not asked for: what Redis does and what is thought of it have parted.
    Unexpected,
}

/// The rooms of a node. Survives the connections.
#[derive(Default)]
pub(super) struct Rooms {
    wanted: HashMap<RoomId, Room>,
    pending: VecDeque<Pending>,
    last: u64,
}

impl Rooms {
    /// A room is asked for; the caller sends the command for the channel that this returns.
    pub(super) fn subscribe(
        &mut self,
        room: RoomId,
        done: oneshot::Sender<Result<(), StoreError>>,
    ) -> String {
        self.last += 1;
        let number = self.last;
        let entry = self.wanted.entry(room.clone()).or_insert(Room {
            number,
            confirmed: false,
        });
        if !entry.confirmed {
            entry.number = number;
        }
        let channel = keys::events_channel(&room);
        self.pending.push_back(Pending::Subscribe {
            channel: channel.clone(),
            room: Some(room),
            number,
            done: Some(done),
        });
        channel
    }

    /// A room is not wanted any more; the caller sends the command for the channel that this returns.
    pub(super) fn unsubscribe(&mut self, room: &RoomId) -> String {
        self.forget(room);
        let channel = keys::events_channel(room);
        self.pending.push_back(Pending::Unsubscribe {
            channel: channel.clone(),
        });
        channel
    }

    /// A room is not wanted any more, and there is no connection.
    pub(super) fn forget(&mut self, room: &RoomId) {
        self.wanted.remove(room);
    }

    /// The node's own channel is subscribed to, on a new connection.
    pub(super) fn own(&mut self, channel: &str) {
        self.pending.push_back(Pending::Subscribe {
            channel: channel.to_owned(),
            room: None,
            number: 0,
            done: None,
        });
    }

    /// All rooms, to be subscribed to on a new connection: their channels.
    pub(super) fn resubscribe(&mut self) -> Vec<String> {
        let mut channels = Vec::with_capacity(self.wanted.len());
        for (room, entry) in &self.wanted {
            let channel = keys::events_channel(room);
            channels.push(channel.clone());
            let room = Some(room.clone());
            self.pending.push_back(Pending::Subscribe {
                channel,
                room,
                number: entry.number,
                done: None,
            });
        }
        channels
    }

    /// How many confirmations are owed.
    pub(super) fn owed(&self) -> usize {
        self.pending.len()
    }

    /// Redis has confirmed a subscription.
    pub(super) fn subscribed(&mut self, confirmed: &[u8]) -> Confirmed {
        let Some(Pending::Subscribe {
            channel,
            room,
            number,
            done,
        }) = self.pending.pop_front()
        else {
            return Confirmed::Unexpected;
        };
        if channel.as_bytes() != confirmed {
            return Confirmed::Unexpected;
        }
        let Some(room) = room else { return Confirmed::Fine };
        let told = done.is_none_or(|done| done.send(Ok(())).is_ok());
        let Some(entry) = self.wanted.get_mut(&room) else {
            return Confirmed::Fine;
        };
        if !told && !entry.confirmed && entry.number == number {
            return Confirmed::Unwanted(room);
        }
        entry.confirmed |= number >= entry.number;
        Confirmed::Fine
    }

    /// Redis has confirmed the end of a subscription.
    pub(super) fn unsubscribed(&mut self, confirmed: &[u8]) -> Confirmed {
        match self.pending.pop_front() {
            Some(Pending::Unsubscribe { channel }) if channel.as_bytes() == confirmed => Confirmed::Fine,
            Some(Pending::Unsubscribe { .. } | Pending::Subscribe { .. }) | None => Confirmed::Unexpected,
        }
    }

    /// The connection is gone. Those who wait are told, and rooms that nobody has been told of are forgotten.
    pub(super) fn fail_pending(&mut self) {
        for pending in self.pending.drain(..) {
            if let Pending::Subscribe {
                room: Some(room),
                done: Some(done),
                number,
                ..
            } = pending
            {
                if self
                    .wanted
                    .get(&room)
                    .is_some_and(|entry| !entry.confirmed && entry.number == number)
                {
                    self.wanted.remove(&room);
                }
                let _ = done.send(Err(StoreError::unavailable(
                    "the event subscriber's connection was lost",
                )));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Answer = oneshot::Receiver<Result<(), StoreError>>;

    fn room(id: &str) -> RoomId {
        RoomId::new(id).unwrap()
    }

    fn subscribe(rooms: &mut Rooms, id: &str) -> (String, Answer) {
        let (done, answer) = oneshot::channel();
        (rooms.subscribe(room(id), done), answer)
    }

    #[test]
    fn a_subscription_is_told_of_when_it_is_confirmed() {
        let mut rooms = Rooms::default();
        let (channel, mut answer) = subscribe(&mut rooms, "a");
        assert!(answer.try_recv().is_err());
        assert_eq!(rooms.subscribed(channel.as_bytes()), Confirmed::Fine);
        assert!(matches!(answer.try_recv(), Ok(Ok(()))));
        assert_eq!(rooms.resubscribe(), [channel]);
    }

    #[test]
    fn confirmations_come_in_order_and_no_other() {
        let mut rooms = Rooms::default();
        let (_, _answer) = subscribe(&mut rooms, "a");
        assert_eq!(rooms.subscribed(b"room:{b}:events"), Confirmed::Unexpected);
        assert_eq!(
            Rooms::default().unsubscribed(b"room:{a}:events"),
            Confirmed::Unexpected
        );
    }

    #[test]
    fn an_end_between_two_subscriptions_leaves_the_later() {
        let mut rooms = Rooms::default();
        let (channel, _first) = subscribe(&mut rooms, "a");
        rooms.unsubscribe(&room("a"));
        let (_, mut second) = subscribe(&mut rooms, "a");
        assert_eq!(rooms.subscribed(channel.as_bytes()), Confirmed::Fine);
        assert_eq!(rooms.unsubscribed(channel.as_bytes()), Confirmed::Fine);
        // Lost before the second was confirmed: it is told so, and the room is not wanted.
        rooms.fail_pending();
        assert!(matches!(second.try_recv(), Ok(Err(StoreError::Unavailable(_)))));
        assert!(rooms.resubscribe().is_empty());
    }

    #[test]
    fn a_failed_repetition_leaves_what_was_confirmed() {
        let mut rooms = Rooms::default();
        let (channel, _first) = subscribe(&mut rooms, "a");
        rooms.subscribed(channel.as_bytes());
        let (_, _second) = subscribe(&mut rooms, "a");
        rooms.fail_pending();
        assert_eq!(rooms.resubscribe(), [channel]);
    }

    #[test]
    fn a_subscription_that_nobody_waits_for_is_taken_back() {
        let mut rooms = Rooms::default();
        let (channel, answer) = subscribe(&mut rooms, "a");
        drop(answer);
        assert_eq!(
            rooms.subscribed(channel.as_bytes()),
            Confirmed::Unwanted(room("a"))
        );
    }

    #[test]
    fn of_two_subscriptions_at_once_the_one_that_waits_counts() {
        let mut rooms = Rooms::default();
        let (channel, abandoned) = subscribe(&mut rooms, "a");
        let (_, mut answer) = subscribe(&mut rooms, "a");
        drop(abandoned);
        assert_eq!(rooms.subscribed(channel.as_bytes()), Confirmed::Fine);
        assert_eq!(rooms.subscribed(channel.as_bytes()), Confirmed::Fine);
        assert!(matches!(answer.try_recv(), Ok(Ok(()))));
        assert_eq!(rooms.resubscribe(), [channel]);
    }
}
