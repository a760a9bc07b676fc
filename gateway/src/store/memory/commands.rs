//! Commands that have happened, so that none happens twice.

use std::collections::{HashMap, VecDeque};

use roomgate_shared::protocol::ErrorCode;

use crate::store::{CommandKey, Refusal};

/// What a command did the first time.
#[derive(Debug, Clone, Copy)]
pub(super) struct First {
    pub(super) seq: u64,
    pub(super) ts: u64,
    /// The state's version after a patch, else 0.
    pub(super) version: u64,
}

/// The commands of a room, by user and id.
#[derive(Default)]
pub(super) struct Commands {
    known: HashMap<String, (u64, First)>,
    /// Oldest first.
    order: VecDeque<(u64, String)>,
}

fn field(user: &str, key: &CommandKey) -> String {
    // No user id holds a control character.
    format!("{user}\u{1e}{}", key.id)
}

impl Commands {
    /// What the command did, if it is remembered.
    ///
    /// # Errors
    /// `id_conflict`: the id stands for another command.
    pub(super) fn first(&self, user: &str, key: &CommandKey) -> Result<Option<First>, Refusal> {
        match self.known.get(&field(user, key)) {
            None => Ok(None),
            Some((fingerprint, first)) if *fingerprint == key.fingerprint => Ok(Some(*first)),
            Some(_) => Err(Refusal::new(
                ErrorCode::IdConflict,
                "the id stands for another command",
            )),
        }
    }

    /// Remembers what a command did.
    pub(super) fn remember(&mut self, user: &str, key: &CommandKey, first: First) {
        let field = field(user, key);
        self.order.push_back((first.ts, field.clone()));
        self.known.insert(field, (key.fingerprint, first));
    }

    /// Forgets what is older than `oldest`, Unix ms.
    pub(super) fn forget(&mut self, oldest: u64) {
        while let Some((ts, _)) = self.order.front()
            && *ts < oldest
        {
            if let Some((_, field)) = self.order.pop_front() {
                self.known.remove(&field);
            }
        }
    }
}
