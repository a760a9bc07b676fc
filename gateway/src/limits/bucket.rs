//! A token bucket.

use std::time::Duration;

use roomgate_shared::protocol::config::Rate;
use tokio::time::Instant;

/// See the module. Full at first.
#[derive(Debug, Clone, Copy)]
pub struct Bucket {
    tokens: f64,
    at: Instant,
}

impl Bucket {
    /// A full one.
    pub fn new(rate: Rate, now: Instant) -> Self {
        Self {
            tokens: rate.burst,
            at: now,
        }
    }

    /// Takes a token.
    ///
    /// # Errors
    /// There is none: how long until there is.
    pub fn take(&mut self, rate: Rate, now: Instant) -> Result<(), Duration> {
        let since = now.saturating_duration_since(self.at).as_secs_f64();
        self.tokens = (self.tokens + since * rate.per_second).min(rate.burst);
        self.at = now;
        if self.tokens < 1.0 {
            return Err(Duration::from_secs_f64((1.0 - self.tokens) / rate.per_second));
        }
        self.tokens -= 1.0;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_come_back_and_no_more_than_fit() {
        let rate = Rate {
            per_second: 10.0,
            burst: 2.0,
        };
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut bucket = Bucket::new(rate, start);
        assert!(bucket.take(rate, start).is_ok() && bucket.take(rate, start).is_ok());
        assert_eq!(bucket.take(rate, start), Err(Duration::from_millis(100)));
        assert!(bucket.take(rate, at(99)).is_err());
        assert!(bucket.take(rate, at(100)).is_ok());
        assert!(bucket.take(rate, at(10_000)).is_ok() && bucket.take(rate, at(10_000)).is_ok());
        assert!(bucket.take(rate, at(10_000)).is_err());
    }
}
