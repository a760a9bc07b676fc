//! Who is there: what the presence events of a room say, held against each other, against the list of members at the
//! end, and against who was there.

use std::collections::{BTreeMap, BTreeSet};

use super::{Rule, streams::Reading, tables::Truth};
use crate::chaos::{audit::AUDITOR, journal::Act, wire::Presence};

/// What the journal calls the death of a gateway that is not started again.
pub const NODE_DIED: &str = "gateway killed for good (SIGKILL)";

/// The user that a client is.
fn user(client: u32) -> String {
    format!("u{client}")
}

impl Reading {
    pub(super) fn judge_presence(&mut self) {
        let mut broken = Vec::new();
        for (&room, truth) in self.truth.iter().filter(|(_, truth)| truth.from == 0) {
            let name = self.rooms.name(room);
            let standing = replay(truth, |text| {
                broken.push((Rule::Presence, format!("room {name}: {text}")));
            });
            for text in truth.users.iter().flat_map(|users| differences(&standing, users)) {
                broken.push((Rule::Presence, format!("room {name} at the end: {text}")));
            }
        }
        for (rule, text) in broken.into_iter().chain(self.goodbyes()) {
            self.violations.add(rule, || text);
        }
    }

    /// Where a gateway died for good: when.
    fn died(&self) -> Option<u64> {
        let mut deaths = self.entries.iter().filter_map(|entry| match &entry.what {
            Act::Fault { what, .. } => (what == NODE_DIED).then_some(entry.at),
            Act::Measure { .. }
            | Act::Never { .. }
            | Act::Phase { .. }
            | Act::Note { .. }
            | Act::Gone { .. }
            | Act::Apart { .. } => None,
        });
        deaths.next()
    }

    /// Presence events told after the death, each with when it was told to the last, and its room.
    fn told_since(&self, died: u64) -> Vec<(u64, u32, &Presence)> {
        let mut told = Vec::new();
        for (&room, truth) in &self.truth {
            for (seq, presence) in &truth.presence {
                // What nobody was told of was told too late.
                let at = self.told.get(&(room, *seq)).copied().unwrap_or(u64::MAX);
                if at >= died {
                    told.push((at, room, presence));
                }
            }
        }
        told.sort_by_key(|&(at, ..)| at);
        told
    }

    /// Whether each of those who never came back was told `away` and then `left` in each of its rooms, once each, and
    /// nobody else.
    fn goodbyes(&self) -> Vec<(Rule, String)> {
        let Some(died) = self.died() else {
            return Vec::new();
        };
        let mut broken = Vec::new();
        if self.gone.is_empty() {
            broken.push((Rule::Idle, "nobody was on the gateway that died".to_owned()));
        }
        for (room, truth) in self.truth.iter().filter(|(_, truth)| truth.from > 0) {
            let (name, from) = (self.rooms.name(*room), truth.from);
            let text = format!("room {name} cannot be read from before the death, only after seq {from}");
            broken.push((Rule::Lost, text));
        }
        let mut said: BTreeMap<(u32, String), Vec<&str>> = BTreeMap::new();
        for (_, room, presence) in self.told_since(died) {
            for user in &presence.away {
                said.entry((room, user.clone())).or_default().push("away");
            }
            for user in &presence.back {
                said.entry((room, user.clone())).or_default().push("back");
            }
            for (user, reason) in &presence.left {
                said.entry((room, user.clone())).or_default().push(reason);
            }
        }
        for (client, me) in &self.clients {
            let (gone, name) = (self.gone.contains(client), user(*client));
            for &room in me.rooms.keys() {
                let said = said.remove(&(room, name.clone())).unwrap_or_default();
                let (rule, was) = match gone {
                    true if said == ["away", "timeout"] => continue,
                    false if said.is_empty() => continue,
                    true => (Rule::NoGoodbye, "never came back"),
                    false => (Rule::FalseGoodbye, "was there or came back"),
                };
                let room = self.rooms.name(room);
                let text = format!("client {client} {was}; told of it in room {room}: {said:?}");
                broken.push((rule, text));
            }
        }
        broken
    }
}

/// Who is a member after all events of a room, and whether away; `wrong` is told what cannot be.
fn replay(truth: &Truth, mut wrong: impl FnMut(String)) -> BTreeMap<String, bool> {
    let mut standing: BTreeMap<String, bool> = BTreeMap::new();
    for (seq, presence) in &truth.presence {
        if presence.all {
            standing = presence.joined.iter().cloned().collect();
        } else {
            for (user, away) in &presence.joined {
                if standing.insert(user.clone(), *away).is_some() {
                    wrong(format!("seq {seq}: {user} joins and is a member"));
                }
            }
        }
        for (users, away, what) in [(&presence.away, true, "away"), (&presence.back, false, "back")] {
            for user in users {
                match standing.get_mut(user) {
                    Some(is) if *is != away => *is = away,
                    Some(_) => wrong(format!("seq {seq}: {user} is {what} and was so")),
                    None => wrong(format!("seq {seq}: {user} is {what} and no member")),
                }
            }
        }
        for (user, _) in &presence.left {
            if standing.remove(user).is_none() {
                wrong(format!("seq {seq}: {user} leaves and is no member"));
            }
        }
    }
    standing
}

/// What the list of members has otherwise than the events. The one that reads comes and goes meanwhile.
fn differences(standing: &BTreeMap<String, bool>, users: &[(String, bool)]) -> Vec<String> {
    let word = |away: Option<&bool>| match away {
        Some(true) => "away",
        Some(false) => "here",
        None => "no member",
    };
    let listed: BTreeMap<String, bool> = users.iter().cloned().collect();
    let names: BTreeSet<&String> = standing.keys().chain(listed.keys()).collect();
    let names = names.into_iter().filter(|name| *name != AUDITOR);
    let of = names.filter_map(|name| {
        let (told, listed) = (standing.get(name), listed.get(name));
        (told != listed).then(|| {
            format!(
                "{name} is {} by the events and {} in the list",
                word(told),
                word(listed)
            )
        })
    });
    of.collect()
}

/// A figure: what, the value, its unit, what it may be at most.
type Found = (String, f64, &'static str, Option<f64>);

/// When and in how many events those who never came back were told to be away and to have left.
pub(super) fn deaths(reading: &Reading) -> Vec<Found> {
    let Some(died) = reading.died() else {
        return Vec::new();
    };
    let promise = reading.info.promise;
    let told = reading.told_since(died);
    let gone: BTreeSet<String> = reading.gone.iter().map(|&client| user(client)).collect();
    let ms = |at: Option<u64>| match at {
        Some(u64::MAX) | None => f64::INFINITY,
        Some(at) => (at - died) as f64 / 1_000.0,
    };
    let of = |names: fn(&Presence) -> Vec<&String>| {
        let of: Vec<u64> = told
            .iter()
            .filter(|(.., presence)| names(presence).iter().any(|name| gone.contains(*name)))
            .map(|&(at, ..)| at)
            .collect();
        (ms(of.last().copied()), of.len() as f64)
    };
    let (away, away_events) = of(|presence| presence.away.iter().collect());
    let (left, left_events) = of(|presence| presence.left.iter().map(|(user, _)| user).collect());
    // How many they are is no time, and not slower on a slow machine.
    let events = promise.away_events.map(|bar| bar / reading.info.slack);
    let before = reading
        .commands
        .iter()
        .filter(|command| command.acked.is_some_and(|(_, at)| at < died));
    vec![
        ("kill to the last `away`".to_owned(), away, "ms", promise.away_ms),
        ("kill to the last `left`".to_owned(), left, "ms", None),
        (
            "presence events with their `away`".to_owned(),
            away_events,
            "",
            events,
        ),
        (
            "presence events with their `left`".to_owned(),
            left_events,
            "",
            None,
        ),
        (
            "members who never came back".to_owned(),
            gone.len() as f64,
            "",
            None,
        ),
        (
            "commands acknowledged before the kill, all of them to be resumed after it".to_owned(),
            before.count() as f64,
            "",
            None,
        ),
    ]
}
