//! The figures that Roomgate means to reach, with every feature on. Those of other servers, and of a bare prototype of
//! the hot path without rooms' features, stand beside them in `RESULTS.md`; they were measured by the same method on
//! two cores.

/// Which side of the bar is good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// At least.
    AtLeast,
    /// At most.
    AtMost,
}

/// One figure to reach.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct Bar {
    /// The value.
    pub at: f64,
    /// Where a measured value must be.
    pub side: Side,
}

impl Bar {
    const fn at_least(at: f64) -> Self {
        Self {
            at,
            side: Side::AtLeast,
        }
    }

    const fn at_most(at: f64) -> Self {
        Self {
            at,
            side: Side::AtMost,
        }
    }

    /// Whether `value` reaches the bar.
    pub fn reached(self, value: f64) -> bool {
        match self.side {
            Side::AtLeast => value >= self.at,
            Side::AtMost => value <= self.at,
        }
    }

    /// How many times as good as the bar: above 1 it is passed.
    pub fn times(self, value: f64) -> f64 {
        match self.side {
            Side::AtLeast => value / self.at,
            Side::AtMost => self.at / value,
        }
    }
}

/// 20 rooms of 50, 10 writers a room: deliveries per gateway CPU second.
pub const FANOUT_10_WRITERS: Bar = Bar::at_least(1_200_000.0);
/// The same, 1 writer a room.
pub const FANOUT_1_WRITER: Bar = Bar::at_least(235_000.0);
/// 100 rooms of 10, 1 writer a room.
pub const FANOUT_SMALL_ROOMS: Bar = Bar::at_least(180_000.0);
/// Two gateways, readers and writers apart, 10 writers a room.
pub const ACROSS_10_WRITERS: Bar = Bar::at_least(1_200_000.0);
/// The same, 1 writer a room.
pub const ACROSS_1_WRITER: Bar = Bar::at_least(235_000.0);
/// 1,000 messages a second to 50 each: median from publish to delivery, ms. The prototype's 2.2, times 1.2.
pub const LATENCY_P50: Bar = Bar::at_most(2.64);
/// The 99th percentile of the same, ms. The prototype's 4.6, times 1.2.
pub const LATENCY_P99: Bar = Bar::at_most(5.52);
/// Durable commands acknowledged, 50 clients: per gateway CPU second.
pub const COMMANDS: Bar = Bar::at_least(60_000.0);
/// The same, per CPU second of gateway and Redis together.
pub const COMMANDS_WITH_REDIS: Bar = Bar::at_least(35_000.0);
/// Memory of an idle connection in a room of 10, bytes.
pub const CONNECTION_BYTES: Bar = Bar::at_most(2_048.0);
/// 10,000 connections opened and joined, seconds.
pub const OPEN_10_000: Bar = Bar::at_most(1.0);
/// 19,000 idle connections with heartbeats, % of a core.
pub const IDLE_CORE_PERCENT: Bar = Bar::at_most(3.0);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_has_a_good_side() {
        assert!(Bar::at_least(10.0).reached(10.0) && !Bar::at_least(10.0).reached(9.0));
        assert!(Bar::at_most(10.0).reached(10.0) && !Bar::at_most(10.0).reached(11.0));
        assert_eq!(Bar::at_least(10.0).times(20.0), 2.0);
        assert_eq!(Bar::at_most(10.0).times(5.0), 2.0);
    }
}
