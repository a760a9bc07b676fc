//! Reads histories line by line: each client's stream in each room, and what all of them say of each place.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::{
    Rule, RunInfo, Violations,
    tables::{Bridge, Client, Command, Names, Place, Seen, Stay, Stretch, Sums, Truth},
};
use crate::chaos::{
    audit::Audited,
    history::{Event, Line, What},
    journal::{Act, Entry},
};

/// What has been read so far.
pub struct Reading {
    pub(super) info: RunInfo,
    pub(super) rooms: Names,
    pub(super) epochs: Names,
    pub(super) tokens: Names,
    pub(super) commands: Vec<Command>,
    pub(super) clients: BTreeMap<u32, Client>,
    pub(super) apart: HashSet<u32>,
    /// Those of them who never come back.
    pub(super) gone: BTreeSet<u32>,
    /// When a presence event came to the last of those who are not apart, by room and `seq`.
    pub(super) told: HashMap<(u32, u64), u64>,
    pub(super) places: HashMap<(u32, u32), BTreeMap<u64, Seen>>,
    pub(super) bridges: Vec<Bridge>,
    pub(super) truth: HashMap<u32, Truth>,
    pub(super) entries: Vec<Entry>,
    /// Deliveries of commands: command, when, to whom.
    pub(super) deliveries: Vec<(u32, u64, u32)>,
    pub(super) violations: Violations,
    pub(super) sums: Sums,
}

impl Reading {
    /// Nothing read yet.
    pub fn new(info: RunInfo) -> Self {
        Self {
            info,
            rooms: Names::default(),
            epochs: Names::default(),
            tokens: Names::default(),
            commands: Vec::new(),
            clients: BTreeMap::new(),
            apart: HashSet::new(),
            gone: BTreeSet::new(),
            told: HashMap::new(),
            places: HashMap::new(),
            bridges: Vec::new(),
            truth: HashMap::new(),
            entries: Vec::new(),
            deliveries: Vec::new(),
            violations: Violations::default(),
            sums: Sums::default(),
        }
    }

    /// A line of the journal.
    pub fn entry(&mut self, entry: Entry) {
        match &entry.what {
            Act::Apart { clients, .. } => self.apart.extend(clients),
            Act::Gone { clients } => {
                self.apart.extend(clients);
                self.gone.extend(clients);
            }
            Act::Fault { .. }
            | Act::Measure { .. }
            | Act::Never { .. }
            | Act::Phase { .. }
            | Act::Note { .. } => {}
        }
        self.entries.push(entry);
    }

    /// A line of the audit.
    pub fn audited(&mut self, line: Audited) {
        match line {
            Audited::Room {
                room,
                epoch,
                head,
                from,
                counter,
            } => {
                let room = self.rooms.number(&room);
                let epoch = self.epochs.number(&epoch);
                let truth = Truth {
                    epoch,
                    head,
                    from,
                    counter,
                    ..Truth::default()
                };
                self.truth.insert(room, truth);
            }
            Audited::Event {
                room,
                seq,
                token,
                digest,
                presence,
            } => {
                self.audited_event(&room, seq, token.as_deref(), digest);
                let room = self.rooms.number(&room);
                let truth = self.truth.entry(room).or_default();
                if let Some(presence) = presence.filter(|_| seq <= truth.head) {
                    truth.presence.push((seq, presence));
                }
            }
            Audited::Users { room, users } => {
                let room = self.rooms.number(&room);
                self.truth.entry(room).or_default().users = Some(users);
            }
            Audited::Unreadable { room, why } => {
                self.violations
                    .add(Rule::Unreadable, || format!("room {room} at the end: {why}"));
            }
        }
    }

    fn audited_event(&mut self, room: &str, seq: u64, token: Option<&str>, digest: u64) {
        let number = self.rooms.number(room);
        let token = token.map(|token| self.command(token));
        let truth = self.truth.entry(number).or_default();
        // What comes after the picture is not of the log.
        if seq > truth.head {
            return;
        }
        let expected = truth
            .digests
            .last_key_value()
            .map_or(truth.from, |(&last, _)| last)
            + 1;
        if seq != expected {
            self.violations.add(Rule::Hole, || {
                format!("the audit of {room} got seq {seq} in place of {expected}")
            });
        }
        truth.digests.insert(seq, digest);
        if let Some(token) = token
            && let Some(before) = truth.tokens.insert(token, seq)
        {
            let name = self.tokens.name(token);
            self.violations.add(Rule::DoneTwice, || {
                format!("{name} stands in {room} at seq {before} and at seq {seq}")
            });
        }
    }

    pub(super) fn command(&mut self, token: &str) -> u32 {
        let number = self.tokens.number(token);
        let wanted = number as usize + 1;
        if self.commands.len() < wanted {
            self.commands.resize_with(wanted, Command::default);
        }
        number
    }

    /// A line of a client's history. A client's lines come in their order.
    pub fn line(&mut self, line: Line) {
        let Line { at, client, what, .. } = line;
        let me = self.clients.entry(client).or_default();
        match what {
            What::Connect { gateway } => me.stays.push(Stay {
                gateway,
                from: at,
                to: u64::MAX,
                joined: None,
            }),
            What::Refused { .. } => {}
            What::Join { room, since } => {
                let room = self.rooms.number(&room);
                me.rooms.entry(room).or_default().since = since;
            }
            What::Joined {
                room,
                epoch,
                seq,
                recovered,
                missed,
                reason,
            } => match recovered {
                true => self.resumed(client, at, &room, &epoch, seq, missed),
                false => self.began(client, at, &room, &epoch, seq, "join", reason.as_deref()),
            },
            What::Resync {
                room,
                epoch,
                seq,
                reason,
            } => self.began(client, at, &room, &epoch, seq, "resync", reason.as_deref()),
            What::Status { room, epoch, .. } => {
                if let (Some(room), Some(epoch)) = (room, epoch) {
                    self.bridged(client, &room, &epoch);
                }
            }
            What::Sent {
                room,
                id,
                of,
                token,
                again,
            } => {
                let room = self.rooms.number(&room);
                let number = self.command(&token);
                let command = &mut self.commands[number as usize];
                self.sums.again += u64::from(again);
                if command.sent.is_none() {
                    command.room = room;
                    command.author = client;
                    command.is_patch = of == "state.patch";
                    command.sent = Some(at);
                }
                if let Some(me) = self.clients.get_mut(&client) {
                    me.commands.insert(id, number);
                }
            }
            What::Acked {
                id, seq, duplicate, ..
            } => self.acked(client, at, &id, seq, duplicate),
            What::Failed { room, code, .. } => {
                if let Some(room) = room {
                    *self.sums.errors_of_rooms.entry(room).or_default() += 1;
                }
                *self.sums.errors.entry(code).or_default() += 1;
            }
            What::Event(event) => self.event(client, at, event),
            What::Closed { code, .. } => {
                *self.sums.closes.entry(code).or_default() += 1;
                self.gone(client, at, true);
            }
            What::Lost { why } => self.gone(client, at, why != STAYED_AWAY),
            What::GaveUp { id, code } => {
                let command = id.as_ref().and_then(|id| me.commands.get(id));
                if let Some(&number) = command {
                    self.commands[number as usize].refused = true;
                }
                self.violations.add(Rule::Refused, || match id {
                    Some(id) => format!("client {client}: {id} was refused for good: {code}"),
                    None => format!("client {client} was told to stop: close {code}"),
                });
            }
        }
    }

    fn gone(&mut self, client: u32, at: u64, at_once: bool) {
        self.sums.lost_connections += 1;
        self.sums.lost_apart += u64::from(self.apart.contains(&client));
        let Some(me) = self.clients.get_mut(&client) else {
            return;
        };
        let mut was_in = true;
        if let Some(stay) = me.stays.last_mut() {
            stay.to = at;
            was_in = stay.joined.is_some();
        }
        // A connection that ended before it was of use is part of the same loss.
        if was_in || me.lost.is_none() {
            me.lost = Some((at, at_once));
        }
        me.rooms.values_mut().for_each(|place| place.joined = false);
    }

    /// The client's room as it is now, entered into its books as joined.
    fn enter(&mut self, client: u32, at: u64, room: u32) -> &mut Place {
        let me = self.clients.entry(client).or_default();
        if let Some(stay) = me.stays.last_mut() {
            stay.joined.get_or_insert(at);
        }
        let place = me.rooms.entry(room).or_default();
        if let (Some((lost, true)), false, true) = (me.lost, place.joined, place.stretch.is_some()) {
            self.sums.resumes.push(at.saturating_sub(lost));
        }
        place.joined = true;
        place
    }

    fn resumed(&mut self, client: u32, at: u64, name: &str, epoch: &str, seq: u64, missed: Option<u64>) {
        let (room, epoch) = (self.rooms.number(name), self.epochs.number(epoch));
        self.sums.recovered += 1;
        let place = self.enter(client, at, room);
        let since = place.since.take();
        let stretch = place.stretch.as_mut();
        let mut wrong = None;
        let mut bridge = None;
        match (stretch, since) {
            (Some(stretch), Some(since)) => {
                if since.seq != stretch.last {
                    let last = stretch.last;
                    let text = format!(
                        "its last event is seq {last}, but it asked for what follows {}",
                        since.seq
                    );
                    wrong = Some((Rule::Hole, text));
                    stretch.last = since.seq;
                } else if missed.map(|missed| since.seq + missed) != Some(seq) {
                    let text = format!("since {} with missed {missed:?} is not seq {seq}", since.seq);
                    wrong = Some((Rule::Miscounted, text));
                }
                if stretch.epoch != epoch {
                    bridge = Some((room, stretch.epoch, epoch, stretch.last));
                    stretch.epoch = epoch;
                }
            }
            // Already in the room: where it stands is where it stood.
            (Some(_), None) => {}
            (None, _) => {
                wrong = Some((Rule::Miscounted, "a first join is answered as resumed".to_owned()));
            }
        }
        self.bridges.extend(bridge);
        if let Some((rule, text)) = wrong {
            self.violations.add(rule, || {
                format!("client {client}, room {name}, at {at} µs: {text}")
            });
        }
    }

    /// A stretch begins with a picture.
    #[expect(clippy::too_many_arguments, reason = "the members of two frames")]
    fn began(
        &mut self,
        client: u32,
        at: u64,
        name: &str,
        epoch: &str,
        seq: u64,
        how: &str,
        reason: Option<&str>,
    ) {
        let (room, epoch) = (self.rooms.number(name), self.epochs.number(epoch));
        let place = self.enter(client, at, room);
        place.since = None;
        let before = place.stretch.replace(Stretch {
            epoch,
            last: seq,
            events: Vec::new(),
            tokens: HashSet::new(),
        });
        if before.is_none() {
            return;
        }
        place.told.push(at);
        let reason = reason.unwrap_or("without a reason");
        *self
            .sums
            .discontinuities
            .entry(format!("{how}: {reason}"))
            .or_default() += 1;
        if !self.info.promise.discontinuity {
            self.violations.add(Rule::Discontinuity, || {
                format!("client {client}, room {name}, at {at} µs: {how}, {reason}")
            });
        }
    }

    fn bridged(&mut self, client: u32, name: &str, epoch: &str) {
        let (room, epoch) = (self.rooms.number(name), self.epochs.number(epoch));
        let place = self
            .clients
            .get_mut(&client)
            .and_then(|me| me.rooms.get_mut(&room));
        if let Some(stretch) = place.and_then(|place| place.stretch.as_mut())
            && stretch.epoch != epoch
        {
            self.bridges.push((room, stretch.epoch, epoch, stretch.last));
            stretch.epoch = epoch;
        }
    }

    fn acked(&mut self, client: u32, at: u64, id: &str, seq: u64, duplicate: bool) {
        self.sums.duplicates += u64::from(duplicate);
        let number = self.clients.get(&client).and_then(|me| me.commands.get(id));
        let Some(&number) = number else {
            return self.violations.add(Rule::WrongAck, || {
                format!("client {client}: an ack of {id}, which it never sent")
            });
        };
        let before = *self.commands[number as usize].acked.get_or_insert((seq, at));
        if before.0 != seq {
            self.violations.add(Rule::WrongAck, || {
                format!(
                    "client {client}: {id} is acknowledged as seq {} and as seq {seq}",
                    before.0
                )
            });
        }
    }

    fn event(&mut self, client: u32, at: u64, event: Event) {
        self.sums.events += 1;
        let room = self.rooms.number(&event.room);
        let token = event.token.as_deref().map(|token| self.command(token));
        let Event {
            seq,
            digest,
            room: name,
            ..
        } = event;
        let place = self
            .clients
            .get_mut(&client)
            .and_then(|me| me.rooms.get_mut(&room));
        let Some(Place {
            stretch: Some(stretch),
            joined: true,
            ..
        }) = place
        else {
            return self.violations.add(Rule::WrongRoom, || {
                format!("client {client}: seq {seq} of room {name} at {at} µs, which it had not joined")
            });
        };
        let expected = stretch.last + 1;
        if seq != expected {
            let rule = if seq > expected { Rule::Hole } else { Rule::Twice };
            self.violations.add(rule, || {
                format!("client {client}, room {name}, at {at} µs: seq {seq} in place of {expected}")
            });
        }
        if event.of == "presence" && !self.apart.contains(&client) {
            let told = self.told.entry((room, seq)).or_default();
            *told = at.max(*told);
        }
        stretch.last = stretch.last.max(seq);
        stretch.events.push((seq, digest));
        let epoch = stretch.epoch;
        if let Some(token) = token {
            self.deliveries.push((token, at, client));
            let first = stretch.tokens.insert(token);
            let places = &mut self.commands[token as usize].places;
            if !places.contains(&(epoch, seq)) {
                places.push((epoch, seq));
            }
            if !first && seq >= expected {
                let token = self.tokens.name(token);
                self.violations.add(Rule::DoneTwice, || {
                    format!("client {client}, room {name}: {token} came again as seq {seq}")
                });
            }
        }
        let seen = Seen { digest, client };
        let first = *self
            .places
            .entry((room, epoch))
            .or_default()
            .entry(seq)
            .or_insert(seen);
        if first.digest != digest {
            self.violations.add(Rule::Disagreement, || {
                format!(
                    "room {name}, epoch {}, seq {seq}: clients {} and {client} saw two different events",
                    event.epoch, first.client
                )
            });
        }
    }
}

/// How a client's history calls a connection that it gave up to stay away for a while.
pub const STAYED_AWAY: &str = "told to stay away";
