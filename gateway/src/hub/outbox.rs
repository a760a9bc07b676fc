//! What a connection has yet to send: a queue bounded in bytes.
//!
//! Anyone may push; one task, the connection's, takes everything that is queued and writes it with one call. A reader too
//! slow for the events of its rooms is closed with 4200 and resumes later: it never holds up others, nor grows without
//! bound. Answers to its own commands do not count for that; while many of them wait, the connection is not read.

use std::{
    collections::VecDeque,
    sync::atomic::{AtomicUsize, Ordering},
    task::{Context, Waker},
};

use bytes::Bytes;
use parking_lot::Mutex;
use roomgate_shared::protocol::CloseCode;

use crate::metrics::metrics;

/// A queue that has grown to more entries than this is given back once it is empty.
const KEEP_ENTRIES: usize = 4;

/// The wish to end a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Closing {
    /// The close code.
    pub code: u16,
    /// The reason to send.
    pub reason: String,
}

impl From<CloseCode> for Closing {
    fn from(code: CloseCode) -> Self {
        Self {
            code: code.code(),
            reason: code.reason().to_owned(),
        }
    }
}

/// What an entry of the queue costs besides its bytes: its place, and the head of its allocation.
const ENTRY_BYTES: usize = 64;

/// See the module.
pub struct Outbox {
    inner: Mutex<Inner>,
    /// Bytes queued and not yet written, those in the writer's hands and [`ENTRY_BYTES`] for each piece included: of
    /// events, and of answers.
    events: AtomicUsize,
    answers: AtomicUsize,
    limit: usize,
}

/// Whole frames in one piece of memory; or a part of one, whose other parts are queued with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) frames: Bytes,
    /// An answer to the connection's own command, as against events of its rooms.
    pub(crate) answer: bool,
    /// A frame ends with it. What follows may be left out.
    pub(crate) ends: bool,
}

#[derive(Default)]
struct Inner {
    queue: VecDeque<Piece>,
    closing: Option<Box<Closing>>,
    /// Nothing is taken any more: the close frame is on its way, or the socket is gone.
    shut: bool,
    /// Set while the connection's task sleeps.
    waker: Option<Waker>,
}

impl Outbox {
    /// An outbox that ends its connection when events find more than `limit` bytes of events queued. A single piece may
    /// pass the limit.
    pub fn new(limit: usize) -> Self {
        Self {
            inner: Mutex::default(),
            events: AtomicUsize::new(0),
            answers: AtomicUsize::new(0),
            limit,
        }
    }

    /// Queues events that must arrive.
    pub fn push(&self, frames: Bytes) {
        self.push_parts([frames]);
    }

    /// The same in parts, none of them empty, which make whole frames together.
    pub fn push_parts<const N: usize>(&self, parts: [Bytes; N]) {
        let mut inner = self.inner.lock();
        if inner.is_over() {
            return;
        }
        if self.events.load(Ordering::Relaxed) > self.limit {
            metrics().slow_consumers.increment(1);
            inner.queue = VecDeque::new();
            inner.closing = Some(Box::new(CloseCode::SlowConsumer.into()));
        } else {
            for (number, frames) in parts.into_iter().enumerate() {
                self.events
                    .fetch_add(frames.len() + ENTRY_BYTES, Ordering::Relaxed);
                inner.queue.push_back(Piece {
                    frames,
                    answer: false,
                    ends: number + 1 == N,
                });
            }
        }
        inner.wake();
    }

    /// Queues an event that may be lost: it is dropped when half of the queue is taken.
    pub fn push_ephemeral(&self, frames: Bytes) {
        if self.events.load(Ordering::Relaxed) > self.limit / 2 {
            metrics().dropped_frames.increment(1);
        } else {
            self.push(frames);
        }
    }

    /// Queues an answer to one of the connection's own commands, or what belongs to it.
    pub fn push_answer(&self, frames: Bytes) {
        let mut inner = self.inner.lock();
        if inner.is_over() {
            return;
        }
        self.answers
            .fetch_add(frames.len() + ENTRY_BYTES, Ordering::Relaxed);
        inner.queue.push_back(Piece {
            frames,
            answer: true,
            ends: true,
        });
        inner.wake();
    }

    /// Whether something is queued or in the writer's hands.
    pub fn is_busy(&self) -> bool {
        self.events.load(Ordering::Relaxed) + self.answers.load(Ordering::Relaxed) > 0
    }

    /// Whether more waits for the reader than it takes in a moment: what is of no use later had better not be queued now.
    pub fn lags(&self) -> bool {
        self.events.load(Ordering::Relaxed) > self.limit / 64
    }

    /// Whether so many answers wait that the connection should not be asked for more.
    pub fn is_behind(&self) -> bool {
        self.answers.load(Ordering::Relaxed) > self.limit
    }

    /// Asks the connection's task to send a close frame, after what is queued, and end. The first wish stands: whether
    /// this is it.
    pub fn close(&self, closing: Closing) -> bool {
        let mut inner = self.inner.lock();
        let first = !inner.is_over();
        if first {
            inner.closing = Some(Box::new(closing));
            inner.wake();
        }
        first
    }

    /// Wakes the connection's task, for example because it may read on.
    pub fn wake(&self) {
        self.inner.lock().wake();
    }

    /// For the connection's task: moves what is queued behind `into` and gives the wish to close, once. With a context,
    /// the task is woken by the next push or wish.
    pub(crate) fn take(&self, into: &mut VecDeque<Piece>, cx: Option<&Context<'_>>) -> Option<Closing> {
        let mut inner = self.inner.lock();
        if into.is_empty() {
            std::mem::swap(into, &mut inner.queue);
            if inner.queue.capacity() > KEEP_ENTRIES {
                inner.queue = VecDeque::new();
            }
        } else {
            into.append(&mut inner.queue);
        }
        if let Some(closing) = inner.closing.take() {
            inner.shut = true;
            return Some(*closing);
        }
        if let Some(cx) = cx
            && !inner
                .waker
                .as_ref()
                .is_some_and(|waker| waker.will_wake(cx.waker()))
        {
            inner.waker = Some(cx.waker().clone());
        }
        None
    }

    /// For the connection's task: `bytes` of a piece are written, `done` if these were its last.
    pub(crate) fn written(&self, answer: bool, bytes: usize, done: bool) {
        let count = if answer { &self.answers } else { &self.events };
        count.fetch_sub(bytes + if done { ENTRY_BYTES } else { 0 }, Ordering::Relaxed);
    }

    /// For the connection's task: from now on nothing is taken.
    pub(crate) fn shut(&self) {
        let mut inner = self.inner.lock();
        *inner = Inner {
            shut: true,
            ..Inner::default()
        };
    }
}

impl Inner {
    /// Nothing more is sent but a close frame.
    fn is_over(&self) -> bool {
        self.shut || self.closing.is_some()
    }

    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(outbox: &Outbox) -> (Vec<Bytes>, Option<Closing>) {
        let mut into = VecDeque::new();
        let closing = outbox.take(&mut into, None);
        (into.into_iter().map(|piece| piece.frames).collect(), closing)
    }

    #[test]
    fn the_limit_closes_a_reader_that_does_not_take() {
        let outbox = Outbox::new(2 * ENTRY_BYTES);
        for _ in 0..2 {
            outbox.push(Bytes::from_static(b"12345678"));
        }
        outbox.push(Bytes::from_static(b"x"));
        let (frames, closing) = take(&outbox);
        assert!(frames.is_empty(), "what a slow reader has not got it resumes");
        assert_eq!(closing, Some(CloseCode::SlowConsumer.into()));
        outbox.push(Bytes::from_static(b"late"));
        outbox.push_answer(Bytes::from_static(b"late"));
        assert_eq!(take(&outbox), (vec![], None));
    }

    #[test]
    fn what_the_writer_holds_counts_until_it_is_written() {
        let outbox = Outbox::new(ENTRY_BYTES);
        outbox.push(Bytes::from_static(b"12345678901"));
        assert_eq!(take(&outbox).0.len(), 1);
        outbox.push(Bytes::from_static(b"x"));
        assert_eq!(take(&outbox).1, Some(CloseCode::SlowConsumer.into()));

        let outbox = Outbox::new(ENTRY_BYTES);
        outbox.push(Bytes::from_static(b"12345678901"));
        take(&outbox);
        outbox.written(false, 4, false);
        outbox.written(false, 7, true);
        outbox.push(Bytes::from_static(b"x"));
        assert_eq!(take(&outbox), (vec![Bytes::from_static(b"x")], None));
    }

    #[test]
    fn answers_hold_back_the_next_question_and_close_nothing() {
        let outbox = Outbox::new(10);
        outbox.push_answer(Bytes::from(vec![0; 1000]));
        assert!(outbox.is_behind());
        outbox.push(Bytes::from_static(b"event"));
        assert_eq!(take(&outbox).0.len(), 2);
        outbox.written(true, 1000, true);
        assert!(!outbox.is_behind());
        assert_eq!(take(&outbox), (vec![], None));
    }

    #[test]
    fn ephemeral_frames_are_dropped_before_durable_ones_suffer() {
        let outbox = Outbox::new(2 * ENTRY_BYTES);
        outbox.push(Bytes::from_static(b"123456"));
        outbox.push_ephemeral(Bytes::from_static(b"e"));
        outbox.push(Bytes::from_static(b"d"));
        assert_eq!(
            take(&outbox),
            (
                vec![Bytes::from_static(b"123456"), Bytes::from_static(b"d")],
                None
            )
        );
    }

    #[test]
    fn a_wished_close_comes_after_what_is_queued() {
        let outbox = Outbox::new(10);
        outbox.push(Bytes::from_static(b"a"));
        outbox.close(CloseCode::Draining.into());
        outbox.close(CloseCode::NoPong.into());
        assert_eq!(
            take(&outbox),
            (vec![Bytes::from_static(b"a")], Some(CloseCode::Draining.into()))
        );
    }
}
