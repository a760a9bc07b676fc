//! What members are told of each other's positions, accounted for without parsing JSON: a position that the fleet sends
//! holds a number that rises and the time at which it was sent, and both are found again in whatever frame brings them.

use memchr::memmem;
use roomgate_shared::ids::RoomId;

use super::{Histogram, frames::digits};

/// Members are `u-<number of the connection>`.
const USER: &[u8] = b"\"u-";
/// A position's number and time stamp begin with a 1, so that digits of a fixed length behind it are a number in JSON.
const NUMBER: &[u8] = b"\"x\":1";
const STAMP: &[u8] = b"\"y\":1";

/// A position as JSON, with room for its number and its stamp.
pub fn template() -> String {
    format!(r#"{{"x":1{0},"y":1{0}}}"#, "0".repeat(super::conn::DIGITS))
}

/// The text of a `move`.
pub fn move_text(room: &RoomId) -> String {
    let room = room.as_str();
    format!(r#"{{"type":"move","room":"{room}","data":{}}}"#, template())
}

/// The text of a `signal` that says the same.
pub fn signal_text(room: &RoomId) -> String {
    let room = room.as_str();
    format!(
        r#"{{"type":"signal","room":"{room}","data":{{"event":"move","payload":{}}}}}"#,
        template()
    )
}

/// Gives each position of a frame to `take`: whose, its number, its stamp. False if there is none.
fn each(text: &[u8], mut take: impl FnMut(usize, u64, u64)) -> bool {
    let mut rest = text;
    let mut found = false;
    // The text behind `name`, which is looked for first where it usually stands.
    let behind = |text: &'_ [u8], usual: usize, name: &[u8]| -> Option<usize> {
        match text.get(usual..).is_some_and(|text| text.starts_with(name)) {
            true => Some(usual + name.len()),
            false => memmem::find(text, name).map(|at| at + name.len()),
        }
    };
    while let Some(at) = memmem::find(rest, USER) {
        rest = &rest[at + USER.len()..];
        let Some(user) = digits(rest) else { continue };
        let width = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let Some(at) = behind(rest, width + 3, NUMBER) else {
            break;
        };
        rest = &rest[at..];
        let Some(number) = digits(rest) else { break };
        let Some(at) = behind(rest, super::conn::DIGITS + 1, STAMP) else {
            break;
        };
        rest = &rest[at..];
        let Some(stamp) = digits(rest) else { break };
        take(usize::try_from(user).unwrap_or(usize::MAX), number, stamp);
        found = true;
    }
    found
}

/// Who has been told which position of whom, in one room.
pub struct Positions {
    members: usize,
    /// Whether the last position of each member must come to all others; a signal need not.
    kept: bool,
    /// The number of the last position sent, by member.
    sent: Vec<u64>,
    /// The number of the last position told, by receiver and member.
    told: Vec<u64>,
    /// Frames with positions, by receiver.
    frames: Vec<u64>,
    /// Positions told, by receiver.
    positions: Vec<u64>,
    /// From sending a position to its coming.
    pub latency: Histogram,
}

impl Positions {
    /// Of the connections 0 to `members` - 1. If `kept`, the last position of each must come to all others.
    pub fn new(members: usize, kept: bool) -> Self {
        Self {
            members,
            kept,
            sent: vec![0; members],
            told: vec![0; members * members],
            frames: vec![0; members],
            positions: vec![0; members],
            latency: Histogram::default(),
        }
    }

    /// `member` sent the position with this number.
    pub(super) fn sent(&mut self, member: usize, number: u64) {
        if let Some(sent) = self.sent.get_mut(member) {
            *sent = number;
        }
    }

    /// A frame with positions came to `receiver`, `now` in µs; how many it held.
    ///
    /// # Errors
    /// In words: it held the receiver's own, one that is not newer than what came before, or none.
    pub(super) fn take(&mut self, receiver: usize, text: &[u8], now: u64) -> Result<u64, String> {
        let Self {
            members,
            sent,
            told,
            latency,
            ..
        } = self;
        let Some(told) = told.get_mut(receiver * *members..(receiver + 1) * *members) else {
            return Err(format!("connection {receiver} is no member and got positions"));
        };
        let mut count = 0;
        let mut wrong = None;
        let any = each(text, |member, number, stamp| {
            count += 1;
            latency.record(now.saturating_sub(stamp));
            let Some(before) = told.get_mut(member).filter(|_| member != receiver) else {
                wrong = Some(format!(
                    "connection {receiver} was told its own position, or a stranger's"
                ));
                return;
            };
            if number <= *before || number > sent[member] {
                wrong = Some(format!(
                    "connection {receiver} was told position {number} of {member} after {before}; the last sent is {}",
                    sent[member]
                ));
            }
            *before = number;
        });
        self.frames[receiver] += 1;
        self.positions[receiver] += count;
        match wrong {
            Some(wrong) => Err(wrong),
            None if !any => Err(format!("connection {receiver} got a frame without a position")),
            None => Ok(count),
        }
    }

    /// Frames and positions that came so far, by receiver.
    pub fn counts(&self) -> Vec<(u64, u64)> {
        self.frames
            .iter()
            .copied()
            .zip(self.positions.iter().copied())
            .collect()
    }

    /// Pairs of a receiver and another member whose last position it was not told.
    pub fn missing(&self) -> usize {
        let pairs = self.told.iter().enumerate().filter(|&(at, &told)| {
            let (receiver, member) = (at / self.members, at % self.members);
            receiver != member && told != self.sent[member]
        });
        pairs.count()
    }

    /// Whether all has come that must.
    pub(super) fn at_rest(&self) -> bool {
        !self.kept || self.missing() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moves(of: &[(usize, u64)]) -> String {
        let positions = of
            .iter()
            .map(|(member, number)| format!(r#""u-{member}":{{"x":1{number:014},"y":1{:014}}}"#, 5));
        let positions: Vec<String> = positions.collect();
        format!(
            r#"{{"type":"moves","room":"r","data":{{{}}}}}"#,
            positions.join(",")
        )
    }

    #[test]
    fn positions_are_found_in_moves_and_in_signals() {
        let seen = |text: &str| {
            let mut seen = Vec::new();
            each(text.as_bytes(), |member, number, stamp| {
                seen.push((member, number, stamp))
            });
            seen
        };
        assert_eq!(seen(&moves(&[(3, 7), (12, 8)])), [(3, 7, 5), (12, 8, 5)]);
        let signal = r#"{"type":"signal","room":"r","by":"u-4","data":{"event":"move","payload":{"x":100000000000009,"y":100000000000002}}}"#;
        assert_eq!(seen(signal), [(4, 9, 2)]);
        assert_eq!(seen(r#"{"type":"moves","room":"r","data":{}}"#), []);
    }

    #[test]
    fn the_last_position_of_each_must_come_to_every_other() {
        let mut positions = Positions::new(3, true);
        positions.sent(0, 1);
        positions.sent(1, 2);
        assert!(!positions.at_rest());
        assert_eq!(positions.take(2, moves(&[(0, 1), (1, 2)]).as_bytes(), 9), Ok(2));
        assert_eq!(positions.take(1, moves(&[(0, 1)]).as_bytes(), 9), Ok(1));
        assert_eq!(positions.missing(), 1);
        assert_eq!(positions.take(0, moves(&[(1, 2)]).as_bytes(), 9), Ok(1));
        assert!(positions.at_rest());
        assert_eq!(positions.counts(), [(1, 1), (1, 1), (1, 2)]);
        assert_eq!(positions.latency.count(), 4);
    }

    #[test]
    fn what_is_wrong_with_positions_is_found() {
        let told = |of: &[(usize, u64)]| {
            let mut positions = Positions::new(2, true);
            positions.sent(1, 5);
            positions.take(0, moves(of).as_bytes(), 9)
        };
        assert_eq!(told(&[(1, 5)]), Ok(1));
        assert!(told(&[(0, 1)]).is_err(), "its own");
        assert!(told(&[(1, 6)]).is_err(), "never sent");
        assert!(told(&[(1, 5), (1, 4)]).is_err(), "an older one");
        assert!(told(&[(1, 5), (1, 5)]).is_err(), "the same again");
        assert!(told(&[]).is_err(), "an empty frame");
    }
}
