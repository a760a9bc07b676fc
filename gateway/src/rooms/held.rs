//! Lanes of a room whose rate is used up: while the next token is on its way, this gateway refuses what comes for them
//! itself, so that a flood of one room costs Redis no more than the rate does.
//!
//! Arrivals are always asked of the store: it lets those in who are members already.

use std::time::Duration;

use parking_lot::Mutex;
use roomgate_shared::protocol::{CommandType, ErrorCode, Lane};
use tokio::time::Instant;

use crate::store::Refusal;

/// Lanes and until when they are held; nothing for a room without a rate.
#[derive(Default)]
pub(super) struct Held(Mutex<Vec<(Lane, Instant)>>);

impl Held {
    /// The store has refused a command.
    pub(super) fn refused(&self, kind: CommandType, refusal: &Refusal, now: Instant) {
        let (Some(lane), Some(ms)) = (kind.lane(), refusal.retry_ms) else {
            return;
        };
        if refusal.code == ErrorCode::RateLimited && lane != Lane::Joins {
            let mut held = self.0.lock();
            held.retain(|(other, _)| *other != lane);
            held.push((lane, now + Duration::from_millis(ms)));
        }
    }

    /// Whether a command is refused without asking the store.
    ///
    /// # Errors
    /// It is, so.
    pub(super) fn check(&self, kind: CommandType, now: Instant) -> Result<(), Refusal> {
        let mut held = self.0.lock();
        if held.is_empty() {
            return Ok(());
        }
        held.retain(|(_, until)| *until > now);
        let lane = kind.lane();
        match held.iter().find(|(held, _)| Some(*held) == lane) {
            None => Ok(()),
            Some((_, until)) => Err(Refusal {
                retry_ms: Some((*until - now).as_millis() as u64 + 1),
                ..Refusal::new(ErrorCode::RateLimited, "the room takes no more of these now")
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lane_is_held_until_the_next_token() {
        let (held, now) = (Held::default(), Instant::now());
        let later = |ms| now + Duration::from_millis(ms);
        let refusal = |code, retry_ms| Refusal {
            retry_ms,
            ..Refusal::new(code, "")
        };
        held.refused(
            CommandType::MessageSend,
            &refusal(ErrorCode::Cooldown, Some(50)),
            now,
        );
        held.refused(CommandType::Join, &refusal(ErrorCode::RateLimited, Some(50)), now);
        held.refused(
            CommandType::UsersList,
            &refusal(ErrorCode::RateLimited, Some(50)),
            now,
        );
        assert!(held.check(CommandType::MessageSend, now).is_ok());
        assert!(held.check(CommandType::Join, now).is_ok());
        held.refused(
            CommandType::MessageSend,
            &refusal(ErrorCode::RateLimited, Some(50)),
            now,
        );
        let refused = held.check(CommandType::MessageEdit, later(30)).unwrap_err();
        assert_eq!(
            (refused.code, refused.retry_ms),
            (ErrorCode::RateLimited, Some(21))
        );
        assert!(held.check(CommandType::Broadcast, later(30)).is_ok());
        assert!(held.check(CommandType::MessageSend, later(50)).is_ok());
    }
}
