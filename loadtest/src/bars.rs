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
    /// The same as a share of what the prototype reached on the bars' machine: what holds on any machine, against the
    /// bare server measured beside it.
    pub of_bare: Option<f64>,
}

impl Bar {
    const fn at_least(at: f64) -> Self {
        Self {
            at,
            side: Side::AtLeast,
            of_bare: None,
        }
    }

    const fn at_most(at: f64) -> Self {
        Self {
            at,
            side: Side::AtMost,
            of_bare: None,
        }
    }

    /// The prototype reached `prototype`.
    const fn beside(mut self, prototype: f64) -> Self {
        self.of_bare = Some(self.at / prototype);
        self
    }

    /// Whether `value` reaches the bar.
    pub fn reached(self, value: f64) -> bool {
        self.times(value) >= 1.0
    }

    /// How many times as good as the bar: above 1 it is passed.
    pub fn times(self, value: f64) -> f64 {
        match self.side {
            Side::AtLeast => value / self.at,
            Side::AtMost => self.at / value,
        }
    }

    /// The bar on the ratio to the bare server.
    pub fn on_ratio(self) -> Option<Self> {
        Some(Self {
            at: self.of_bare?,
            of_bare: None,
            ..self
        })
    }
}

/// 20 rooms of 50, 10 writers a room: deliveries per gateway CPU second.
pub const FANOUT_10_WRITERS: Bar = Bar::at_least(1_200_000.0).beside(1_694_000.0);
/// The same, 1 writer a room.
pub const FANOUT_1_WRITER: Bar = Bar::at_least(235_000.0).beside(277_000.0);
/// 100 rooms of 10, 1 writer a room.
pub const FANOUT_SMALL_ROOMS: Bar = Bar::at_least(180_000.0).beside(227_000.0);
/// Two gateways, readers and writers apart, 10 writers a room.
pub const ACROSS_10_WRITERS: Bar = Bar::at_least(1_200_000.0).beside(1_821_000.0);
/// The same, 1 writer a room.
pub const ACROSS_1_WRITER: Bar = Bar::at_least(235_000.0).beside(278_000.0);
/// 1,000 messages a second to 50 each: median from publish to delivery, ms.
pub const LATENCY_P50: Bar = Bar::at_most(2.64).beside(2.2);
/// The 99th percentile of the same, ms.
pub const LATENCY_P99: Bar = Bar::at_most(5.52).beside(4.6);
/// The 99th percentile of a quiet room beside one that is flooded, to that of the same room alone.
pub const FLOOD_P99: Bar = Bar::at_most(1.2);
/// Durable commands acknowledged, 50 clients: per gateway CPU second.
pub const COMMANDS: Bar = Bar::at_least(60_000.0).beside(79_600.0);
/// The same, per CPU second of gateway and Redis together.
pub const COMMANDS_WITH_REDIS: Bar = Bar::at_least(35_000.0).beside(45_700.0);
/// Memory of an idle connection in a room of 10, bytes.
pub const CONNECTION_BYTES: Bar = Bar::at_most(2_048.0).beside(900.0);
/// 10,000 connections opened and joined, seconds.
pub const OPEN_10_000: Bar = Bar::at_most(1.0).beside(0.4);
/// 19,000 idle connections with heartbeats, % of a core.
pub const IDLE_CORE_PERCENT: Bar = Bar::at_most(3.0);
/// Frames of positions that a member gets a second, whatever moves: one a tick of 50 ms.
pub const MOVES_FRAMES: Bar = Bar::at_most(20.0);
/// Writes of positions a second, room and gateway.
pub const POSITION_WRITES: Bar = Bar::at_most(2.0);
/// What a join of a room of 10,000 may cost: times the same in a room of 10.
pub const LARGE_JOIN: Bar = Bar::at_most(3.0);
/// `occupancy` frames that a member of a room that counts gets a second.
pub const OCCUPANCY_FRAMES: Bar = Bar::at_most(1.0);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_has_a_good_side() {
        assert!(Bar::at_least(10.0).reached(10.0) && !Bar::at_least(10.0).reached(9.0));
        assert!(Bar::at_most(10.0).reached(10.0) && !Bar::at_most(10.0).reached(11.0));
        assert_eq!(Bar::at_least(10.0).times(20.0), 2.0);
        assert_eq!(Bar::at_most(10.0).times(5.0), 2.0);
        let ratio = Bar::at_most(12.0).beside(10.0).on_ratio().unwrap();
        assert!(ratio.reached(1.19) && !ratio.reached(1.21));
    }
}
