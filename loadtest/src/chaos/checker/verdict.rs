//! What can be judged only when everything has been read.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Report, Rule,
    streams::Reading,
    tables::Command,
    times::{self, Spread},
};
use crate::chaos::journal::Act;

impl Reading {
    /// The judgement.
    pub fn report(mut self) -> Report {
        self.judge_bridges();
        self.judge_commands();
        self.judge_counters();
        self.judge_ends();
        self.judge_presence();
        self.judge_damage();
        let figures = times::judge(&mut self);
        let mut faults = BTreeMap::new();
        let mut notes = Vec::new();
        for entry in &self.entries {
            match &entry.what {
                Act::Fault { what, .. } => *faults.entry(what.clone()).or_default() += 1,
                Act::Note { text } => notes.push(text.clone()),
                Act::Apart { clients, why } => notes.push(format!("{} clients apart: {why}", clients.len())),
                Act::Gone { clients } => notes.push(format!("{} clients never come back", clients.len())),
                Act::Measure { .. } | Act::Never { .. } | Act::Phase { .. } => {}
            }
        }
        let sent = self.commands.iter().filter(|command| command.sent.is_some());
        let (sent, acked) = sent.fold((0, 0), |(sent, acked), command| {
            (sent + 1, acked + u64::from(command.acked.is_some()))
        });
        if acked == 0 || self.sums.events == 0 {
            self.violations.add(Rule::Idle, || {
                format!("{acked} commands acknowledged, {} deliveries", self.sums.events)
            });
        }
        if faults.contains_key(times::STOPPED_READING) && self.sums.lost_apart == 0 {
            self.violations.add(Rule::Idle, || {
                "no reader that stopped lost its connection: what it was sent did not fill its buffers"
                    .to_owned()
            });
        }
        let counted = self
            .deliveries
            .iter()
            .filter(|(_, _, client)| !self.apart.contains(client));
        let mut delays = times::delays(counted, &self.commands);
        let told_losses = self.told_losses();
        Report {
            faults,
            lost_connections: self.sums.lost_connections,
            recovered: self.sums.recovered,
            discontinuities: self.sums.discontinuities,
            resumes: Spread::of_micros(&mut self.sums.resumes),
            delays: Spread::of_micros(&mut delays),
            sent,
            acked,
            closes: self.sums.closes,
            again: self.sums.again,
            duplicates: self.sums.duplicates,
            errors: self.sums.errors,
            deliveries: self.sums.events,
            told_losses,
            figures,
            notes,
            violations: self.violations.counts().clone(),
            described: self.violations.first().to_vec(),
            run: self.info,
        }
    }

    /// Rooms that something was done to.
    pub(super) fn damaged(&self) -> BTreeSet<&str> {
        let rooms = self.entries.iter().filter_map(|entry| match &entry.what {
            Act::Fault { room, .. } => room.as_deref(),
            Act::Measure { .. }
            | Act::Never { .. }
            | Act::Phase { .. }
            | Act::Note { .. }
            | Act::Gone { .. }
            | Act::Apart { .. } => None,
        });
        rooms.collect()
    }

    /// Where one room is damaged, it says so and no other does.
    fn judge_damage(&mut self) {
        let damaged: BTreeSet<String> = self.damaged().into_iter().map(str::to_owned).collect();
        if damaged.is_empty() {
            return;
        }
        let errors = std::mem::take(&mut self.sums.errors_of_rooms);
        for (room, count) in errors.iter().filter(|(room, _)| !damaged.contains(*room)) {
            self.violations.add(Rule::Spread, || {
                format!("{count} errors in room {room}, which was not damaged")
            });
        }
        for room in damaged.iter().filter(|room| !errors.contains_key(*room)) {
            self.violations.add(Rule::Idle, || {
                format!("room {room} was damaged and never said so")
            });
        }
    }

    /// Up to where an epoch went over into another, both are one order.
    fn judge_bridges(&mut self) {
        let mut common: BTreeMap<(u32, u32, u32), u64> = BTreeMap::new();
        for &(room, old, new, seq) in &self.bridges {
            let known = common.entry((room, old, new)).or_default();
            *known = seq.max(*known);
        }
        for ((room, old, new), upto) in common {
            let (Some(before), Some(after)) = (self.places.get(&(room, old)), self.places.get(&(room, new)))
            else {
                continue;
            };
            for (seq, seen) in after.range(..=upto) {
                let Some(other) = before.get(seq).filter(|other| other.digest != seen.digest) else {
                    continue;
                };
                self.violations.add(Rule::Disagreement, || {
                    format!(
                        "room {}, seq {seq}: client {} saw another event under epoch {} than client {} under {}, \
                         though the order went on",
                        self.rooms.name(room),
                        other.client,
                        self.epochs.name(old),
                        seen.client,
                        self.epochs.name(new),
                    )
                });
            }
        }
    }

    /// Whether the author of a command was told, after its ack, that what it knew is gone.
    fn author_told(&self, command: &Command) -> bool {
        let Some((_, acked)) = command.acked else {
            return false;
        };
        let author = self.clients.get(&command.author);
        let place = author.and_then(|author| author.rooms.get(&command.room));
        place.is_some_and(|place| place.told.iter().any(|&told| told > acked))
    }

    /// Whether an acknowledged command is nowhere where it must be.
    fn is_lost(&self, number: usize, command: &Command) -> bool {
        let Some((seq, _)) = command.acked else {
            return false;
        };
        match self
            .truth
            .get(&command.room)
            .filter(|truth| truth.from == 0 && truth.head > 0)
        {
            Some(truth) => !truth.tokens.contains_key(&(number as u32)),
            None => !command.places.iter().any(|&(_, place)| place == seq),
        }
    }

    fn told_losses(&self) -> u64 {
        let commands = self.commands.iter().enumerate();
        let told =
            commands.filter(|(number, command)| self.is_lost(*number, command) && self.author_told(command));
        if self.info.promise.loss {
            told.count() as u64
        } else {
            0
        }
    }

    fn judge_commands(&mut self) {
        let mut violations = std::mem::take(&mut self.violations);
        for (number, command) in self.commands.iter().enumerate() {
            let name = self.tokens.name(number as u32);
            let Some(_) = command.sent else {
                violations.add(Rule::WrongAck, || {
                    format!("{name} has an event, but nobody sent it")
                });
                continue;
            };
            let room = self.rooms.name(command.room);
            let mut places: Vec<u64> = command.places.iter().map(|&(_, seq)| seq).collect();
            places.sort_unstable();
            places.dedup();
            // Where writes may be lost, one that was may have been done again; the audit tells what stands in the end.
            if places.len() > 1 && !self.info.promise.loss {
                violations.add(Rule::DoneTwice, || {
                    format!(
                        "{name} of client {} was seen in {room} at seq {places:?}",
                        command.author
                    )
                });
            }
            let Some((seq, at)) = command.acked else {
                if !command.refused && !self.apart.contains(&command.author) {
                    violations.add(Rule::Unanswered, || {
                        format!(
                            "{name} of client {} in {room} has no answer at the end",
                            command.author
                        )
                    });
                }
                continue;
            };
            if self.is_lost(number, command) {
                let rule = match (self.info.promise.loss, self.author_told(command)) {
                    (true, true) => continue,
                    (true, false) => Rule::SilentLoss,
                    (false, _) => Rule::Lost,
                };
                violations.add(rule, || {
                    let author = command.author;
                    format!("{name} of client {author}, acknowledged at {at} µs as seq {seq} of {room}, is not there")
                });
                continue;
            }
            let stands = self
                .truth
                .get(&command.room)
                .and_then(|truth| truth.tokens.get(&(number as u32)));
            if let Some(&stands) = stands.filter(|&&stands| stands != seq) {
                violations.add(Rule::WrongAck, || {
                    format!("{name} is acknowledged as seq {seq} of {room}, but stands at {stands}")
                });
            }
        }
        self.violations = violations;
    }

    fn judge_counters(&mut self) {
        for (&room, truth) in &self.truth {
            if truth.from > 0 {
                continue;
            }
            let patches = |counts: fn(&Command) -> bool| {
                let of_room = self
                    .commands
                    .iter()
                    .filter(|command| command.room == room && command.is_patch);
                of_room.filter(|command| counts(command)).count() as u64
            };
            let standing = truth
                .tokens
                .keys()
                .filter(|&&number| self.commands[number as usize].is_patch);
            let standing = standing.count() as u64;
            let acked = patches(|command| command.acked.is_some());
            let sent = patches(|command| command.sent.is_some());
            let kept = self.info.promise.loss || acked <= truth.counter;
            if truth.counter != standing || truth.counter > sent || !kept {
                let name = self.rooms.name(room);
                let counter = truth.counter;
                self.violations.add(Rule::WrongCounter, || {
                    format!("room {name}: the counter is {counter}, patches in its log {standing}, acknowledged {acked}, sent {sent}")
                });
            }
        }
    }

    /// Where everyone is at the end, and that what it saw since it last began anew is what stands.
    fn judge_ends(&mut self) {
        for (&client, me) in &self.clients {
            if self.apart.contains(&client) {
                continue;
            }
            for (room, place) in &me.rooms {
                let name = self.rooms.name(*room);
                let Some(truth) = self.truth.get(room) else {
                    // A room that the audit could not read is counted there.
                    continue;
                };
                let (epoch, last) = place
                    .stretch
                    .as_ref()
                    .map_or((None, 0), |stretch| (Some(stretch.epoch), stretch.last));
                if epoch != Some(truth.epoch) || last < truth.head || !place.joined {
                    let head = truth.head;
                    let within = if place.joined { "in" } else { "not in" };
                    let epoch = epoch.map_or("no epoch", |epoch| self.epochs.name(epoch));
                    let of_head = self.epochs.name(truth.epoch);
                    self.violations.add(Rule::DidNotComeBack, || {
                        format!(
                            "client {client} is {within} room {name} at seq {last} of {epoch}, its head is {head} of {of_head}"
                        )
                    });
                    continue;
                }
                let Some(stretch) = &place.stretch else { continue };
                for (seq, digest) in &stretch.events {
                    if truth.digests.get(seq).is_some_and(|stands| stands != digest) {
                        self.violations.add(Rule::Disagreement, || {
                            format!("room {name}, seq {seq}: what client {client} saw is not what stands there, and it was never told")
                        });
                    }
                }
            }
        }
    }
}
