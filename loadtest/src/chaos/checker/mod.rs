//! Judges a run by what its clients recorded, and by nothing else.
//!
//! | rule | what must hold |
//! |---|---|
//! | scope | an event reaches only who has joined its room on that connection |
//! | order | a client's `seq` rises by one from its picture on, over every resume |
//! | agreement | one epoch and `seq` is one event, for all; also for the audit at the end |
//! | once | no command makes two events |
//! | kept | what was acknowledged stands at its `seq`, or its author was told, where the scenario may lose |
//! | counted | every `missed` is right; the counter that patches raise is their number |
//! | presence | nobody comes who is there, is away or back who is not, or leaves twice; the list at the end is what the events say |
//! | goodbye | who never came back is told `away` once and `left` once; who came back, neither |
//! | back | at the end everyone is at the head of each of its rooms, and every command has its answer |
//! | bars | what the scenario promises of times |

mod presence;
mod streams;
mod tables;
#[cfg(test)]
mod tests;
mod times;
mod verdict;

use std::{collections::BTreeMap, fmt, io, path::Path};

use serde::{Deserialize, Serialize};

use super::{
    audit::{self, Audited},
    history::{self, Line},
    journal::{self, Entry},
};

pub use presence::NODE_DIED;
pub use streams::{Reading, STAYED_AWAY};
pub use times::{FROZEN, STOPPED_READING, SUBSCRIPTION_CUT, Spread};

/// What a scenario promises besides what always holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Promise {
    /// Whether acknowledged commands may be lost, if their authors are told.
    pub loss: bool,
    /// Whether clients may be told that what they knew is gone (`resync`, `recovered: false`).
    pub discontinuity: bool,
    /// Milliseconds from a lost connection to being in the room again, at most, for 99 of 100.
    pub resume_p99_ms: Option<f64>,
    /// The same for all.
    pub resume_max_ms: Option<f64>,
    /// Milliseconds until a frozen gateway's clients are in their rooms elsewhere.
    pub elsewhere_ms: Option<f64>,
    /// Milliseconds until what was missed by a cut subscription has been delivered, for 99 of 100 cuts.
    pub repair_p99_ms: Option<f64>,
    /// By how much the other clients' p99 of delivery may grow from the phase `before` to the phase `during`.
    pub others_times: Option<f64>,
    /// Milliseconds from a gateway's death until all who never come back have been told `away`.
    pub away_ms: Option<f64>,
    /// Presence events that tell of them as away, at most.
    pub away_events: Option<f64>,
}

/// What is known of a run before it begins.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RunInfo {
    /// The scenario.
    pub scenario: String,
    /// What decided everything that was left to chance.
    pub seed: u64,
    /// Clients.
    pub clients: usize,
    /// Gateways.
    pub gateways: usize,
    /// Seconds of the faults.
    pub seconds: u64,
    /// What is promised.
    pub promise: Promise,
    /// Bars on times are multiplied by this.
    pub slack: f64,
}

impl RunInfo {
    /// The file in a run's folder.
    pub const FILE: &'static str = "run.json";
}

/// What was broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rule {
    /// An event of a room that the connection had not joined.
    WrongRoom,
    /// A `seq` was passed over.
    Hole,
    /// A `seq` came again, or after a later one.
    Twice,
    /// One place, two events.
    Disagreement,
    /// One command, two events.
    DoneTwice,
    /// Acknowledged and gone where nothing may be lost.
    Lost,
    /// Acknowledged and gone, and its author was not told.
    SilentLoss,
    /// Acknowledged with another `seq` than that of its event.
    WrongAck,
    /// A client was told of a loss where there must be none.
    Discontinuity,
    /// `missed` is not the number of missed events.
    Miscounted,
    /// Presence events contradict each other, or the list of members.
    Presence,
    /// One who never came back was not told `away` once and `left` once.
    NoGoodbye,
    /// One who was there, or came back, was told `away` or `left`.
    FalseGoodbye,
    /// A client is not at the head of its room at the end.
    DidNotComeBack,
    /// A command without an answer.
    Unanswered,
    /// A command or a client was refused for good.
    Refused,
    /// The counter is not the number of patches.
    WrongCounter,
    /// A room could not be read at the end.
    Unreadable,
    /// One room was damaged, and another refused something.
    Spread,
    /// A bar on a figure was missed.
    Bar,
    /// The run is not what it should be: nothing was done that could have gone wrong.
    Idle,
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::WrongRoom => "wrong room",
            Self::Hole => "hole",
            Self::Twice => "twice or out of order",
            Self::Disagreement => "disagreement",
            Self::DoneTwice => "done twice",
            Self::Lost => "lost",
            Self::SilentLoss => "silent loss",
            Self::WrongAck => "wrong ack",
            Self::Discontinuity => "discontinuity",
            Self::Miscounted => "miscounted",
            Self::Presence => "presence",
            Self::NoGoodbye => "no goodbye",
            Self::FalseGoodbye => "false goodbye",
            Self::DidNotComeBack => "did not come back",
            Self::Unanswered => "unanswered",
            Self::Refused => "refused",
            Self::WrongCounter => "wrong counter",
            Self::Unreadable => "unreadable",
            Self::Spread => "another room noticed",
            Self::Bar => "bar missed",
            Self::Idle => "idle run",
        })
    }
}

/// One breach.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Violation {
    /// The rule.
    pub rule: Rule,
    /// What happened, in words.
    pub text: String,
}

/// What was broken, how often; the first few of each rule in words.
#[derive(Debug, Default)]
pub struct Violations {
    counts: BTreeMap<Rule, usize>,
    first: Vec<Violation>,
}

impl Violations {
    /// Described of each rule.
    const DESCRIBED: usize = 10;

    fn add(&mut self, rule: Rule, text: impl FnOnce() -> String) {
        let count = self.counts.entry(rule).or_default();
        *count += 1;
        if *count <= Self::DESCRIBED {
            let text = text();
            self.first.push(Violation { rule, text });
        }
    }

    /// How many.
    pub fn count(&self) -> usize {
        self.counts.values().sum()
    }

    /// How many of each rule.
    pub fn counts(&self) -> &BTreeMap<Rule, usize> {
        &self.counts
    }

    /// The first few of each rule.
    pub fn first(&self) -> &[Violation] {
        &self.first
    }
}

/// What became of a run.
#[derive(Debug, Serialize)]
pub struct Report {
    /// The run.
    pub run: RunInfo,
    /// What was done to the servers, and how often.
    pub faults: BTreeMap<String, usize>,
    /// Connections lost.
    pub lost_connections: u64,
    /// Joins after a lost connection that were resumed.
    pub recovered: u64,
    /// Discontinuities that clients were told of, by how and why.
    pub discontinuities: BTreeMap<String, u64>,
    /// From a lost connection to being in the room again, milliseconds.
    pub resumes: Spread,
    /// From sending a command to its event at a client, milliseconds.
    pub delays: Spread,
    /// Distinct commands sent, and how many of them are acknowledged.
    pub sent: u64,
    /// See `sent`.
    pub acked: u64,
    /// Connections closed by a gateway, by close code.
    pub closes: BTreeMap<u16, u64>,
    /// Commands sent again under their ids.
    pub again: u64,
    /// Answers that were remembered ones.
    pub duplicates: u64,
    /// Error frames by code.
    pub errors: BTreeMap<String, u64>,
    /// Durable events recorded by clients.
    pub deliveries: u64,
    /// Acknowledged commands that are gone and whose authors were told, where that may be.
    pub told_losses: u64,
    /// Figures of the journal and of the histories: what, the worst value, unit, what it may be at most.
    pub figures: Vec<Figure>,
    /// What of note the run said.
    pub notes: Vec<String>,
    /// How many of each rule.
    pub violations: BTreeMap<Rule, usize>,
    /// The first few of each rule.
    pub described: Vec<Violation>,
}

/// A figure of a run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Figure {
    /// What it is.
    pub what: String,
    /// Times it was measured.
    pub times: usize,
    /// The greatest.
    pub worst: f64,
    /// Its unit.
    pub unit: String,
    /// What it may be at most, slack included.
    pub at_most: Option<f64>,
}

impl Report {
    /// How many rules were broken, in all.
    pub fn violation_count(&self) -> usize {
        self.violations.values().sum()
    }
}

/// Judges the run in `folder`.
///
/// # Errors
/// A file is missing or is none of a run.
pub fn check(folder: &Path) -> io::Result<Report> {
    let info = std::fs::read(folder.join(RunInfo::FILE))?;
    let info: RunInfo = serde_json::from_slice(&info)?;
    let mut reading = Reading::new(info);
    history::read(&journal::path(folder), |entry: Entry| reading.entry(entry))?;
    history::read(&audit::path(folder), |line: Audited| reading.audited(line))?;
    for file in history::files(folder) {
        history::read(&file, |line: Line| reading.line(line))?;
    }
    Ok(reading.report())
}
