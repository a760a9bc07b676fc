//! A circuit breaker: after a failure nothing passes for a while, then one trial, whose outcome closes it or opens it for
//! twice as long. A state machine without a clock: every instant is handed in.
//!
//! ```text
//!  Closed ──failed──▶ Open until an instant ──admit, when it has come──▶ HalfOpen: one trial
//!    ▲                  ▲  └───────────── failed: twice as long ─────────── ┘ │
//!    │                  └────── gave_up: the trial has shown nothing ──────────┤
//!    └──────────────────────────────── succeeded ──────────────────────────────┘
//! ```
//!
//! Two scopes use it: the connection to Redis ([`store::redis`](crate::store::redis)), and each room (`rooms`).

use std::time::Duration;

use tokio::time::Instant;

/// Where a breaker stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// All passes.
    Closed,
    /// Nothing passes before this instant; the first to come at it or later is the trial.
    Open(Instant),
    /// The trial is under way, and nothing else passes.
    HalfOpen,
}

impl State {
    /// As the metric `roomgate_breaker_state` tells it: 0 closed, 1 half-open, 2 open.
    pub fn level(self) -> f64 {
        match self {
            State::Closed => 0.0,
            State::HalfOpen => 1.0,
            State::Open(_) => 2.0,
        }
    }
}

/// See the module.
#[derive(Debug)]
pub struct Breaker {
    state: State,
    first: Duration,
    longest: Duration,
    /// How long it opens with the next failure.
    delay: Duration,
}

impl Breaker {
    /// A closed breaker that opens for `first`, doubling to `longest` with each trial that fails.
    pub fn new(first: Duration, longest: Duration) -> Self {
        Self {
            state: State::Closed,
            first: first.min(longest),
            longest,
            delay: first.min(longest),
        }
    }

    /// An open breaker whose trial is due at `now`: for what is not known to work yet.
    pub fn untried(first: Duration, longest: Duration, now: Instant) -> Self {
        Self {
            state: State::Open(now),
            ..Self::new(first, longest)
        }
    }

    /// Where it stands.
    pub fn state(&self) -> State {
        self.state
    }

    /// Whether something may pass at `now`. Where the wait is over, the caller it tells so has the trial, and must tell
    /// its outcome.
    ///
    /// # Errors
    /// Not now; when it may be worth asking again, as [`Breaker::retry_after`].
    pub fn admit(&mut self, now: Instant) -> Result<(), Duration> {
        match self.state {
            State::Closed => Ok(()),
            State::Open(until) if now >= until => {
                self.state = State::HalfOpen;
                Ok(())
            }
            State::Open(_) | State::HalfOpen => Err(self.retry_after(now).unwrap_or_default()),
        }
    }

    /// Something has passed and gone well: it closes.
    pub fn succeeded(&mut self) {
        self.state = State::Closed;
        self.delay = self.first;
    }

    /// Something has passed and failed. Whether this opened a closed breaker; what was under way when it opened changes
    /// nothing more.
    pub fn failed(&mut self, now: Instant) -> bool {
        let was = self.state;
        if !matches!(was, State::Open(_)) {
            self.state = State::Open(now + self.delay);
            self.delay = (self.delay * 2).min(self.longest);
        }
        was == State::Closed
    }

    /// The trial came to nothing that would tell: the next to come is another one.
    pub fn gave_up(&mut self, now: Instant) {
        if self.state == State::HalfOpen {
            self.state = State::Open(now);
        }
    }

    /// How long from `now` until the next trial; while one is under way, how long to leave it at least. `None`: closed.
    pub fn retry_after(&self, now: Instant) -> Option<Duration> {
        match self.state {
            State::Closed => None,
            State::Open(until) => Some(until.saturating_duration_since(now)),
            State::HalfOpen => Some(self.first),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Duration = Duration::from_millis(100);
    const LONGEST: Duration = Duration::from_millis(350);

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn closed_all_passes_and_one_failure_opens() {
        let (mut breaker, now) = (Breaker::new(FIRST, LONGEST), Instant::now());
        assert_eq!(breaker.admit(now), Ok(()));
        assert_eq!(breaker.admit(now), Ok(()));
        assert_eq!(breaker.retry_after(now), None);
        assert!(breaker.failed(now));
        assert_eq!(breaker.state(), State::Open(now + FIRST));
        assert_eq!(breaker.admit(now), Err(FIRST));
        assert_eq!(breaker.admit(now + ms(60)), Err(ms(40)));
        // What was under way beside it does not prolong it, nor count as another opening.
        assert!(!breaker.failed(now + ms(60)));
        assert_eq!(breaker.state(), State::Open(now + FIRST));
    }

    #[test]
    fn one_trial_passes_when_the_wait_is_over() {
        let (mut breaker, now) = (Breaker::new(FIRST, LONGEST), Instant::now());
        breaker.failed(now);
        let due = now + FIRST;
        assert_eq!(breaker.admit(due), Ok(()));
        assert_eq!(breaker.state(), State::HalfOpen);
        assert_eq!(breaker.admit(due + ms(1_000)), Err(FIRST));
        breaker.succeeded();
        assert_eq!(breaker.state(), State::Closed);
        assert_eq!(breaker.admit(due), Ok(()));
    }

    #[test]
    fn each_failed_trial_doubles_the_wait_up_to_the_longest_and_success_forgets() {
        let (mut breaker, mut now) = (Breaker::new(FIRST, LONGEST), Instant::now());
        assert!(breaker.failed(now));
        for wait in [100, 200, 350, 350] {
            assert_eq!(breaker.retry_after(now), Some(ms(wait)));
            now += ms(wait);
            assert_eq!(breaker.admit(now), Ok(()));
            assert!(!breaker.failed(now), "a trial that fails is no new opening");
        }
        now += LONGEST;
        assert_eq!(breaker.admit(now), Ok(()));
        breaker.succeeded();
        assert!(breaker.failed(now));
        assert_eq!(breaker.retry_after(now), Some(FIRST));
    }

    #[test]
    fn a_trial_that_shows_nothing_leaves_the_next_one_due() {
        let (mut breaker, now) = (Breaker::new(FIRST, LONGEST), Instant::now());
        breaker.gave_up(now);
        assert_eq!(breaker.state(), State::Closed);
        breaker.failed(now);
        breaker.admit(now + FIRST).unwrap();
        breaker.gave_up(now + ms(150));
        assert_eq!(breaker.state(), State::Open(now + ms(150)));
        assert_eq!(breaker.admit(now + ms(150)), Ok(()));
        breaker.failed(now + ms(150));
        assert_eq!(breaker.retry_after(now + ms(150)), Some(ms(200)));
    }

    #[test]
    fn untried_its_trial_is_due_at_once() {
        let now = Instant::now();
        let mut breaker = Breaker::untried(ms(500), LONGEST, now);
        assert_eq!(breaker.admit(now), Ok(()));
        assert_eq!(breaker.state(), State::HalfOpen);
        assert!(!breaker.failed(now));
        assert_eq!(
            breaker.retry_after(now),
            Some(LONGEST),
            "the first wait is bounded, too"
        );
    }
}
