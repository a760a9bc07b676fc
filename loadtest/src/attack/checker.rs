//! Judges what the users saw: every message acknowledged in a room must have reached every user who was in that room
//! from before it until after it.

use std::collections::{BTreeMap, HashMap, HashSet};

use parking_lot::Mutex;

/// A user's time in a room.
#[derive(Debug, Default)]
pub struct Stay {
    /// The room.
    pub room: String,
    /// The `seq` of the picture that the join brought: what comes after it must be seen.
    pub from: u64,
    /// The last `seq` seen.
    pub seq: u64,
    /// The ids of the messages seen.
    pub seen: HashSet<String>,
}

/// What all users report.
#[derive(Debug, Default)]
pub struct Checker(Mutex<Ledger>);

#[derive(Debug, Default)]
struct Ledger {
    acknowledged: HashMap<String, BTreeMap<u64, String>>,
    stays: Vec<Stay>,
    faults: Vec<String>,
}

/// What the checker found.
#[derive(Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Messages acknowledged.
    pub messages: usize,
    /// Pairs of a message and a user who must have seen it.
    pub checked: usize,
    /// Those of them that were not seen.
    pub missing: usize,
    /// Everything else that must not be, in words.
    pub faults: Vec<String>,
}

impl Checker {
    /// A message was acknowledged.
    pub fn acknowledged(&self, room: &str, seq: u64, id: &str) {
        let mut ledger = self.0.lock();
        ledger
            .acknowledged
            .entry(room.to_owned())
            .or_default()
            .insert(seq, id.to_owned());
    }

    /// A user has left a room.
    pub fn stayed(&self, stay: Stay) {
        self.0.lock().stays.push(stay);
    }

    /// A user saw what must not be.
    pub fn fault(&self, text: String) {
        self.0.lock().faults.push(text);
    }

    /// Judges all that was reported.
    pub fn verdict(&self) -> Verdict {
        let ledger = self.0.lock();
        let (mut checked, mut missing) = (0, 0);
        for stay in &ledger.stays {
            let Some(messages) = ledger.acknowledged.get(&stay.room) else {
                continue;
            };
            for id in messages
                .range(stay.from + 1..stay.seq.max(stay.from) + 1)
                .map(|(_, id)| id)
            {
                checked += 1;
                missing += usize::from(!stay.seen.contains(id));
            }
        }
        let messages = ledger.acknowledged.values().map(BTreeMap::len).sum();
        Verdict {
            messages,
            checked,
            missing,
            faults: ledger.faults.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stay(from: u64, seq: u64, seen: &[&str]) -> Stay {
        Stay {
            room: "r".to_owned(),
            from,
            seq,
            seen: seen.iter().map(|&id| id.to_owned()).collect(),
        }
    }

    #[test]
    fn a_message_must_be_seen_by_those_who_were_there() {
        let checker = Checker::default();
        checker.acknowledged("r", 5, "m5");
        checker.acknowledged("r", 6, "m6");
        checker.stayed(stay(1, 9, &["m5", "m6"]));
        checker.stayed(stay(5, 9, &["m6"]));
        checker.stayed(stay(1, 5, &["m5"]));
        assert_eq!(
            checker.verdict(),
            Verdict {
                messages: 2,
                checked: 4,
                missing: 0,
                faults: Vec::new()
            }
        );
        checker.stayed(stay(1, 9, &["m6"]));
        assert_eq!(checker.verdict().missing, 1);
    }

    #[test]
    fn a_stay_without_events_has_nothing_to_miss() {
        let checker = Checker::default();
        checker.acknowledged("r", 5, "m5");
        checker.stayed(stay(9, 9, &[]));
        checker.stayed(stay(9, 0, &[]));
        assert_eq!(checker.verdict().checked, 0);
    }
}
