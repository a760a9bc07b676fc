//! What a room's members are told outside of the order: who has moved, and how many they are.

use std::{sync::Arc, time::Duration};

use roomgate_shared::{
    ids::RoomId,
    protocol::event::{PresenceChange, ServerFrame, occupancy_text},
};
use tokio::time::Instant;

use super::Inner;
use crate::hub::{
    client::Client,
    frame::text_frame,
    moves::{Moves, Published, Served, Ticked, Told, serve},
};

/// Least time between two `occupancy` frames.
const OCCUPANCY: Duration = Duration::from_secs(1);

/// What is on its way to members outside of the order; while nothing is, there is none.
#[derive(Default)]
pub(super) struct Ephemeral {
    pub(super) moves: Option<Moves>,
    /// Whose moves wait for the next tick, once for each.
    pub(super) movers: Vec<Arc<Client>>,
    /// How many members the room has, where it counts: not told yet.
    pub(super) members: Option<u64>,
    /// What has been told last, while some member may not have got it.
    pub(super) told: Option<Told>,
    pub(super) told_at: Option<Instant>,
    /// The name under which this node last published.
    pub(super) instance: Option<Arc<str>>,
    /// Somebody ticks.
    pub(super) ticking: bool,
}

impl Inner {
    pub(super) fn moves(&mut self) -> &mut Moves {
        let ephemeral = self.ephemeral.get_or_insert_default();
        ephemeral.moves.get_or_insert_with(Moves::new)
    }

    pub(super) fn counted(&mut self, members: Option<u64>) {
        match members {
            Some(_) if self.members.is_empty() => {}
            Some(_) => self.ephemeral.get_or_insert_default().members = members,
            None => {
                if let Some(ephemeral) = self.ephemeral.as_mut() {
                    (ephemeral.members, ephemeral.told) = (None, None);
                }
            }
        }
    }

    /// Users that have left are not to be told of as moving any more.
    pub(super) fn forget_departed(&mut self, events: &[&[u8]]) {
        let Some(moves) = self
            .ephemeral
            .as_mut()
            .and_then(|ephemeral| ephemeral.moves.as_mut())
        else {
            return;
        };
        let departures = memchr::memmem::Finder::new(br#""left":[{"user":"#);
        let is_presence = |event: &&&[u8]| event.starts_with(br#"{"type":"presence""#);
        for event in events.iter().filter(is_presence) {
            if departures.find(event).is_some()
                && let Ok(frame) = serde_json::from_slice::<ServerFrame>(event)
                && let Ok(change) = serde_json::from_value::<PresenceChange>(frame.data)
            {
                change.left.iter().for_each(|left| moves.left(&left.user));
            }
        }
    }

    pub(super) fn published(&mut self, published: &Published<'_>) {
        if self.members.is_empty() {
            return;
        }
        let ephemeral = self.ephemeral.as_deref();
        let own = ephemeral
            .and_then(|ephemeral| ephemeral.instance.as_ref())
            .is_some_and(|own| **own == *published.instance);
        if own && ephemeral.is_none_or(|ephemeral| ephemeral.moves.is_none()) {
            return;
        }
        let tick = self.tick + 1;
        self.moves().published(published, own, tick);
    }

    pub(super) fn tick(&mut self, room: &RoomId, usual: Duration, instance: &Arc<str>) -> Ticked {
        let Some(ephemeral) = self.ephemeral.as_mut() else {
            return Ticked::default();
        };
        let now = Instant::now();
        self.tick += 1;
        for client in std::mem::take(&mut ephemeral.movers) {
            client.end_move();
        }
        if ephemeral.told_at.is_none_or(|at| now - at >= OCCUPANCY)
            && let Some(members) = ephemeral.members.take()
        {
            ephemeral.told_at = Some(now);
            ephemeral.told = Some(Told {
                tick: self.tick,
                frame: text_frame(&occupancy_text(room, members)),
            });
        }
        let bytes = ephemeral
            .moves
            .as_mut()
            .map_or(0, |moves| moves.settle(self.tick));
        let served = if ephemeral.moves.is_none() && ephemeral.told.is_none() {
            Served {
                tick: self.tick,
                told: true,
            }
        } else {
            serve(
                ephemeral.moves.as_ref(),
                ephemeral.told.as_ref(),
                room,
                &mut self.members,
                self.tick,
            )
        };
        let connections = self.members.len();
        if served.told {
            ephemeral.told = None;
        }
        let mut ticked = Ticked::default();
        let mut wait = usual;
        if let Some(moves) = ephemeral.moves.as_mut() {
            wait = moves.width(usual, connections, bytes);
            ticked.publish = moves.publish(instance, connections);
            ephemeral.instance = Some(instance.clone());
            ticked.write = moves.write(now);
            moves.let_go(if connections == 0 { self.tick } else { served.tick }, now);
            if moves.is_empty() {
                ephemeral.moves = None;
            }
        }
        let told_lately = ephemeral.told_at.is_some_and(|at| now - at < OCCUPANCY);
        if ephemeral.moves.is_none()
            && ephemeral.told.is_none()
            && ephemeral.members.is_none()
            && !told_lately
        {
            self.ephemeral = None;
        } else {
            ticked.wait = Some(wait);
        }
        ticked
    }
}
