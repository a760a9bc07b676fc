//! What a gateway itself must ask of the members of a room: of moves, which do not go through the store.
//!
//! Everything else that a room demands is asked by the store. Rates and pauses of moves are those of this gateway alone:
//! moves of one room are merged anyway, so what they cost is bounded by the number of gateways.

use std::{collections::HashMap, time::Duration};

use roomgate_shared::{
    ids::UserId,
    protocol::{
        ErrorCode, Lane,
        config::{Rate, RoomConfig},
    },
};
use serde::Deserialize;
use tokio::time::Instant;

use crate::{store::Refusal, tidy::Tidy};

/// Users whose last move is remembered before those whose pause is over are first forgotten.
const FORGET_AT: usize = 1024;

/// See the module. There is one only for a room that demands something.
#[derive(Debug, Default)]
pub(super) struct Rules {
    /// How long moves are gathered.
    pub(super) tick: Option<Duration>,
    /// Until when users may only read, Unix ms by the store's clock; 0: for ever.
    mutes: HashMap<String, u64>,
    pause: Option<Duration>,
    rate: Option<Rate>,
    tokens: Option<(f64, Instant)>,
    moved: HashMap<UserId, Instant>,
    tidy: Tidy<FORGET_AT>,
}

/// What a picture says of it; see [`Joined::rules`](crate::store::Joined::rules).
#[derive(Deserialize)]
struct Told {
    config: RoomConfig,
    mutes: HashMap<String, u64>,
}

impl Rules {
    /// As a picture says.
    pub(super) fn read(text: &[u8]) -> Self {
        let mut rules = Self::default();
        match serde_json::from_slice::<Told>(text) {
            Ok(told) => {
                rules.configure(&told.config);
                rules.mutes = told.mutes;
            }
            Err(error) => tracing::error!(%error, "a room's rules are not understood"),
        }
        rules
    }

    /// The room is configured so from now on.
    pub(super) fn configure(&mut self, config: &RoomConfig) {
        let lane = Lane::Moves.as_str();
        self.tick = config.move_tick_ms.map(Duration::from_millis);
        self.rate = config.rate.get(lane).copied();
        let pause = config.cooldown_ms.get(lane).copied().filter(|&ms| ms > 0);
        self.pause = pause.map(Duration::from_millis);
    }

    pub(super) fn mute(&mut self, user: String, until: u64) {
        self.mutes.insert(user, until);
    }

    pub(super) fn unmute(&mut self, user: &str) {
        self.mutes.remove(user);
    }

    /// Whether a user's move counts at `now`, which is `now_ms` by the store's clock.
    ///
    /// # Errors
    /// `muted`, `cooldown` or `rate_limited`.
    pub(super) fn may_move(&mut self, user: &UserId, now_ms: u64, now: Instant) -> Result<(), Refusal> {
        if let Some(&until) = self.mutes.get(user.as_str()) {
            if until == 0 || until > now_ms {
                return Err(Refusal {
                    details: (until > 0).then(|| format!(r#""until":{until}"#)),
                    ..Refusal::new(ErrorCode::Muted, "you are muted in this room")
                });
            }
            self.mutes.remove(user.as_str());
        }
        let later = |code, message, wait: Duration| {
            Err(Refusal {
                retry_ms: Some(wait.as_millis() as u64 + 1),
                ..Refusal::new(code, message)
            })
        };
        if let Some(pause) = self.pause
            && let Some(&last) = self.moved.get(user)
            && now < last + pause
        {
            let wait = last + pause - now;
            return later(ErrorCode::Cooldown, "slow mode: one at a time", wait);
        }
        if let Some(rate) = self.rate {
            let (tokens, at) = self.tokens.unwrap_or((rate.burst, now));
            let tokens = (tokens + (now - at).as_secs_f64() * rate.per_second).min(rate.burst);
            if tokens < 1.0 {
                let wait = Duration::from_secs_f64((1.0 - tokens) / rate.per_second);
                return later(
                    ErrorCode::RateLimited,
                    "the room takes no more of these now",
                    wait,
                );
            }
            self.tokens = Some((tokens - 1.0, now));
        }
        if let Some(pause) = self.pause {
            self.tidy.tidy(&mut self.moved, |last| now < *last + pause);
            self.moved.insert(user.clone(), now);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moves_are_held_up_by_mutes_pauses_and_rates() {
        let mut rules = Rules::read(
            br#"{"config":{"moveTickMs":200,"cooldownMs":{"moves":100},"rate":{"moves":{"perSecond":1,"burst":2}}},
                "mutes":{"a":0,"b":50}}"#,
        );
        assert_eq!(rules.tick, Some(Duration::from_millis(200)));
        let (start, [a, b, c]) = (Instant::now(), ["a", "b", "c"].map(|id| UserId::new(id).unwrap()));
        let mut code = |user: &UserId, ms: u64| {
            let now = start + Duration::from_millis(ms);
            rules
                .may_move(user, ms, now)
                .err()
                .map(|refusal| (refusal.code, refusal.retry_ms))
        };
        assert_eq!(code(&a, 1_000), Some((ErrorCode::Muted, None)));
        assert_eq!(code(&b, 49), Some((ErrorCode::Muted, None)));
        assert_eq!(code(&b, 50), None);
        assert_eq!(code(&b, 60), Some((ErrorCode::Cooldown, Some(91))));
        assert_eq!(code(&c, 60), None);
        assert_eq!(code(&b, 160), Some((ErrorCode::RateLimited, Some(891))));
        assert_eq!(code(&b, 1_051), None);
        rules.unmute("a");
        rules.configure(&RoomConfig::default());
        rules.mute("c".to_owned(), 0);
        assert_eq!(rules.tick, None);
        assert!(rules.may_move(&a, 0, start).is_ok());
        assert!(rules.may_move(&c, 0, start).is_err());
    }
}
