//! Times in microseconds, counted exactly up to a second.

use std::time::Duration;

/// The last bucket takes everything from here on.
const TOP: usize = 1_000_000;

/// How often each time was seen.
pub struct Histogram {
    buckets: Vec<u32>,
    count: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            buckets: vec![0; TOP + 1],
            count: 0,
        }
    }
}

impl Histogram {
    /// Counts one time.
    pub fn record(&mut self, micros: u64) {
        let at = usize::try_from(micros).unwrap_or(TOP).min(TOP);
        self.buckets[at] += 1;
        self.count += 1;
    }

    /// How many were counted.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The smallest time that `share` (0 to 1) of all times do not pass. Zero where none were counted.
    pub fn quantile(&self, share: f64) -> Duration {
        let wanted = ((self.count as f64 * share).ceil() as u64).max(1);
        let mut seen = 0;
        for (micros, &count) in self.buckets.iter().enumerate() {
            seen += u64::from(count);
            if seen >= wanted {
                return Duration::from_micros(micros as u64);
            }
        }
        Duration::ZERO
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        self.buckets.fill(0);
        self.count = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_the_sorted_times() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.quantile(0.5), Duration::ZERO);
        (1..=100).rev().for_each(|micros| histogram.record(micros));
        assert_eq!(histogram.quantile(0.5), Duration::from_micros(50));
        assert_eq!(histogram.quantile(0.99), Duration::from_micros(99));
        assert_eq!(histogram.quantile(1.0), Duration::from_micros(100));
        histogram.record(u64::MAX);
        assert_eq!(histogram.quantile(1.0), Duration::from_secs(1));
    }
}
