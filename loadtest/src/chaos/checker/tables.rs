//! What is kept of the histories while they are read.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::chaos::{history::Since, wire::Presence};

/// Names are looked up once and are numbers from then on.
#[derive(Debug, Default)]
pub(super) struct Names {
    numbers: HashMap<String, u32>,
    names: Vec<String>,
}

impl Names {
    pub(super) fn number(&mut self, name: &str) -> u32 {
        if let Some(&number) = self.numbers.get(name) {
            return number;
        }
        let number = u32::try_from(self.names.len()).unwrap_or(u32::MAX);
        self.names.push(name.to_owned());
        self.numbers.insert(name.to_owned(), number);
        number
    }

    pub(super) fn name(&self, number: u32) -> &str {
        &self.names[number as usize]
    }
}

/// What is said to stand at one place of a room's order.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen {
    pub(super) digest: u64,
    pub(super) client: u32,
}

/// One command.
#[derive(Debug, Default)]
pub(super) struct Command {
    pub(super) room: u32,
    pub(super) author: u32,
    pub(super) is_patch: bool,
    /// When it was first sent; `None` if the author's history does not have it.
    pub(super) sent: Option<u64>,
    /// The first ack: `seq`, when.
    pub(super) acked: Option<(u64, u64)>,
    pub(super) refused: bool,
    /// Where its event was seen: epoch, `seq`.
    pub(super) places: Vec<(u32, u64)>,
}

/// A client's stay in a room since it last began anew.
#[derive(Debug)]
pub(super) struct Stretch {
    pub(super) epoch: u32,
    pub(super) last: u64,
    pub(super) events: Vec<(u64, u64)>,
    pub(super) tokens: HashSet<u32>,
}

/// A client's room.
#[derive(Debug, Default)]
pub(super) struct Place {
    pub(super) stretch: Option<Stretch>,
    pub(super) joined: bool,
    pub(super) since: Option<Since>,
    /// When the client was told that what it knew is gone.
    pub(super) told: Vec<u64>,
}

/// A connection, for the times.
#[derive(Debug)]
pub(super) struct Stay {
    pub(super) gateway: usize,
    pub(super) from: u64,
    pub(super) to: u64,
    /// When it was in a room for the first time.
    pub(super) joined: Option<u64>,
}

/// A client.
#[derive(Debug, Default)]
pub(super) struct Client {
    pub(super) rooms: HashMap<u32, Place>,
    pub(super) stays: Vec<Stay>,
    /// Command ids to commands.
    pub(super) commands: HashMap<String, u32>,
    /// When the last connection was lost, and whether the client came back as soon as it could.
    pub(super) lost: Option<(u64, bool)>,
}

/// The audit of a room.
#[derive(Debug, Default)]
pub(super) struct Truth {
    pub(super) epoch: u32,
    pub(super) head: u64,
    pub(super) from: u64,
    pub(super) counter: u64,
    pub(super) digests: BTreeMap<u64, u64>,
    /// Where each command stands.
    pub(super) tokens: HashMap<u32, u64>,
    /// What presence events say, with their `seq`.
    pub(super) presence: Vec<(u64, Presence)>,
    /// The list of members: each, and whether it is away.
    pub(super) users: Option<Vec<(String, bool)>>,
}

/// Where a client's epoch changed and its order went on: room, old, new, and the last `seq` of the old.
pub(super) type Bridge = (u32, u32, u32, u64);

/// Counted on the way.
#[derive(Debug, Default)]
pub(super) struct Sums {
    pub(super) lost_connections: u64,
    pub(super) lost_apart: u64,
    pub(super) recovered: u64,
    pub(super) discontinuities: BTreeMap<String, u64>,
    pub(super) resumes: Vec<u64>,
    pub(super) closes: BTreeMap<u16, u64>,
    pub(super) again: u64,
    pub(super) duplicates: u64,
    pub(super) errors: BTreeMap<String, u64>,
    pub(super) errors_of_rooms: BTreeMap<String, u64>,
    pub(super) events: u64,
}
