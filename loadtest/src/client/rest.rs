//! The fleet at rest: nothing more under way, and nothing missing.

use std::time::{Duration, Instant};

use super::{Fleet, Load, Positions, conn::Phase};
use crate::failure::Failure;

impl Fleet {
    /// Waits until nothing has come for `quiet`, at most for `limit`.
    ///
    /// # Errors
    /// Interrupted, or the poll failed.
    pub fn settle(&mut self, quiet: Duration, limit: Duration) -> Result<(), Failure> {
        self.load = Load::Idle;
        let started = Instant::now();
        let mut last = started;
        while last.elapsed() < quiet && started.elapsed() < limit {
            if self.turn(quiet.saturating_sub(last.elapsed()))? > 0 {
                last = Instant::now();
            }
        }
        Ok(())
    }

    /// Ends the writing, waits (30 s at most) until all is answered and delivered, and notes whatever is missing or too
    /// much.
    ///
    /// # Errors
    /// Interrupted, or the poll failed.
    pub fn drain(&mut self) -> Result<(), Failure> {
        /// Without any frame; and in all, for pings come for ever.
        const PATIENCE: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(30));
        self.load = Load::Idle;
        let started = Instant::now();
        let mut last = started;
        while last.elapsed() < PATIENCE.0 && started.elapsed() < PATIENCE.1 && !self.at_rest() {
            if self.turn(Duration::from_millis(20))? > 0 {
                last = Instant::now();
            }
        }
        // What comes now was delivered twice.
        self.settle(Duration::from_millis(50), Duration::from_secs(2))?;
        self.check();
        Ok(())
    }

    fn at_rest(&self) -> bool {
        let positions = self.positions.as_ref();
        positions.is_none_or(Positions::at_rest)
            && self
                .conns
                .iter()
                .filter(|conn| conn.tracked() && conn.phase == Phase::Joined)
                .all(|conn| conn.unanswered == 0 && conn.events >= self.rooms[conn.rooms.start].acked)
    }

    fn check(&mut self) {
        let mut found = Vec::new();
        let mut last_seq = vec![None; self.rooms.len()];
        for (index, conn) in self.conns.iter().enumerate().filter(|(_, conn)| conn.tracked()) {
            let (room, name) = (conn.rooms.start, &self.names[conn.rooms.start]);
            let acked = self.rooms[room].acked;
            if conn.phase != Phase::Joined {
                continue; // Told when it was closed.
            }
            if conn.unanswered > 0 {
                found.push(format!(
                    "{name}: connection {index} has {} commands unanswered",
                    conn.unanswered
                ));
            }
            if conn.events != acked {
                found.push(format!(
                    "{name}: connection {index} saw {} events; {acked} are acknowledged",
                    conn.events
                ));
            }
            let seq = *last_seq[room].get_or_insert(conn.seq);
            if seq != conn.seq {
                found.push(format!(
                    "{name}: connection {index} is at seq {}, another at {seq}",
                    conn.seq
                ));
            }
        }
        if let Some(positions) = self.positions.as_ref().filter(|positions| !positions.at_rest()) {
            let missing = positions.missing();
            found.push(format!(
                "{missing} times a member was not told the last position of another"
            ));
        }
        found.into_iter().for_each(|problem| self.problem(problem));
    }
}
