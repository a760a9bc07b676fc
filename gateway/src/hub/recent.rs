//! The newest events of a room, kept as frames, so that a crowd that comes back at once is given what it missed without
//! the store being asked for it by each.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use tokio::time::Instant;

use super::chunk::Chunk;

/// Most bytes of a room's events.
const ROOM_BYTES: usize = 256 * 1024;
/// Most bytes of all rooms' events on a node.
const NODE_BYTES: usize = 64 * 1024 * 1024;
/// What a chunk costs beside its frames, about: its place here, and its own piece of memory.
const CHUNK_BYTES: usize = 128;
/// Age at which events are let go: whoever has been away for longer comes alone.
const AGE: Duration = Duration::from_secs(60);

/// The bytes that all rooms of a node hold.
#[derive(Debug, Default)]
pub struct RecentBytes(AtomicUsize);

/// See the module. The chunks follow each other without holes.
pub(super) struct Recent {
    chunks: VecDeque<(Instant, Chunk)>,
    bytes: usize,
    node: Arc<RecentBytes>,
}

impl Recent {
    pub(super) fn new(node: Arc<RecentBytes>) -> Self {
        Self {
            chunks: VecDeque::new(),
            bytes: 0,
            node,
        }
    }

    /// Adds what the members have just been given. What does not follow the last takes its place.
    pub(super) fn push(&mut self, chunk: Chunk, now: Instant) {
        if self.last().is_some_and(|last| chunk.first() != last + 1) {
            self.clear();
        }
        let size = chunk.frames().len() + CHUNK_BYTES;
        while self.bytes + size > ROOM_BYTES && self.drop_oldest() {}
        self.let_go(now);
        while self.node.0.load(Ordering::Relaxed) + size > NODE_BYTES && self.drop_oldest() {}
        if size > ROOM_BYTES || self.node.0.load(Ordering::Relaxed) + size > NODE_BYTES {
            // With it missing, those before it are of no use.
            return self.clear();
        }
        self.bytes += size;
        self.node.0.fetch_add(size, Ordering::Relaxed);
        self.chunks.push_back((now, chunk));
    }

    /// Lets go what is too old.
    pub(super) fn let_go(&mut self, now: Instant) {
        while self.chunks.front().is_some_and(|(at, _)| now - *at >= AGE) {
            self.drop_oldest();
        }
        if self.chunks.is_empty() {
            self.chunks = VecDeque::new();
        }
    }

    fn drop_oldest(&mut self) -> bool {
        let Some((_, chunk)) = self.chunks.pop_front() else {
            return false;
        };
        let size = chunk.frames().len() + CHUNK_BYTES;
        self.bytes -= size;
        self.node.0.fetch_sub(size, Ordering::Relaxed);
        true
    }

    pub(super) fn clear(&mut self) {
        while self.drop_oldest() {}
        self.chunks = VecDeque::new();
    }

    fn last(&self) -> Option<u64> {
        self.chunks.back().map(|(_, chunk)| chunk.last())
    }

    /// The frames of the events after `seq`, up to and with `last`; `None` where they are not all here.
    pub(super) fn after(&self, seq: u64, last: u64) -> Option<Vec<Bytes>> {
        if seq == last {
            return Some(Vec::new());
        }
        let first = self.chunks.front().map(|(_, chunk)| chunk.first())?;
        if self.last() != Some(last) || seq > last || seq + 1 < first {
            return None;
        }
        Some(
            self.chunks
                .iter()
                .filter_map(|(_, chunk)| chunk.after(seq))
                .collect(),
        )
    }

    /// When the event `seq` was made, Unix ms, if it is the last one here.
    pub(super) fn ts(&self, seq: u64) -> Option<u64> {
        let (_, chunk) = self.chunks.back().filter(|(_, chunk)| chunk.last() == seq)?;
        let frame = chunk.after(seq - 1)?;
        let at = memchr::memmem::find(&frame, br#""ts":"#)? + 5;
        let digits = frame[at..].iter().take_while(|byte| byte.is_ascii_digit());
        digits.fold(None, |ts: Option<u64>, digit| {
            ts.unwrap_or(0)
                .checked_mul(10)?
                .checked_add(u64::from(digit - b'0'))
        })
    }
}

impl Drop for Recent {
    fn drop(&mut self) {
        self.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(first: u64, count: u64, ts: u64) -> Chunk {
        let texts: Vec<String> = (first..first + count)
            .map(|seq| format!(r#"{{"type":"x","room":"r","seq":{seq},"ts":{ts}}}"#))
            .collect();
        Chunk::new(first, texts.iter().map(String::as_bytes))
    }

    fn frames(pieces: &[Bytes]) -> Vec<u8> {
        pieces.concat()
    }

    #[test]
    fn what_is_here_is_given_from_any_point_on() {
        let (mut recent, now) = (Recent::new(Arc::default()), Instant::now());
        recent.push(chunk(5, 2, 1), now);
        recent.push(chunk(7, 3, 2), now);
        assert_eq!(recent.after(3, 9), None);
        let from = |seq: u64| frames(&recent.after(seq, 9).unwrap());
        let texts = |first: u64| {
            let all = [(5, 1), (6, 1), (7, 2), (8, 2), (9, 2)];
            let all = all.iter().filter(|(seq, _)| *seq >= first);
            frames(
                &all.map(|&(seq, ts)| chunk(seq, 1, ts).after(0).unwrap())
                    .collect::<Vec<_>>(),
            )
        };
        for seq in 4..9 {
            assert_eq!(from(seq), texts(seq + 1));
        }
        assert_eq!(recent.after(9, 9), Some(Vec::new()));
        assert_eq!(recent.after(10, 9), None);
        assert_eq!(recent.after(8, 10), None);
        assert_eq!((recent.ts(9), recent.ts(8)), (Some(2), None));
    }

    #[test]
    fn a_hole_ends_what_was_before_it() {
        let (mut recent, now) = (Recent::new(Arc::default()), Instant::now());
        recent.push(chunk(1, 2, 1), now);
        recent.push(chunk(4, 1, 1), now);
        assert_eq!(recent.after(2, 4), None);
        assert!(recent.after(3, 4).is_some());
    }

    #[test]
    fn it_keeps_to_its_bounds() {
        let node = Arc::<RecentBytes>::default();
        let (mut recent, now) = (Recent::new(node.clone()), Instant::now());
        for seq in 1..10_000 {
            recent.push(chunk(seq, 1, 1), now);
            assert!(recent.bytes <= ROOM_BYTES);
        }
        assert!(recent.after(9_000, 9_999).is_some());
        assert_eq!(recent.after(1, 9_999), None);
        assert_eq!(node.0.load(Ordering::Relaxed), recent.bytes);
        recent.let_go(now + AGE);
        assert_eq!((recent.bytes, node.0.load(Ordering::Relaxed)), (0, 0));

        node.0.store(NODE_BYTES, Ordering::Relaxed);
        recent.push(chunk(10_000, 1, 1), now);
        assert_eq!(recent.after(9_999, 10_000), None);
        node.0.store(0, Ordering::Relaxed);
        recent.push(chunk(10_001, 1, 1), now);
        drop(recent);
        assert_eq!(node.0.load(Ordering::Relaxed), 0);
    }
}
