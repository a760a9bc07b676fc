//! The one task of a connection: it reads into a buffer that all connections of a thread share, hands over whole
//! messages, and writes all that is queued with one call.
//!
//! ```text
//!  Open ──peer's close──▶ Closing ──close frame written, peer's close seen (or deadline)──▶ Lingering ──EOF──▶ end
//!    └────our close────▶ ┘                                                     (FIN sent; input is thrown away)
//! ```
//!
//! Lingering keeps a close frame from being destroyed: a socket that is closed with unread input is reset, and a reset
//! takes with it what the peer has not read.

use std::{
    cell::RefCell,
    collections::VecDeque,
    io,
    ops::ControlFlow,
    pin::{Pin, pin},
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf, Bytes};
use roomgate_shared::protocol::CloseCode;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Instant, Sleep, sleep_until},
};

use super::{
    handler::Handler,
    parser::{Flow, Message, Parser},
};
use crate::hub::{Closing, Piece, close_frame, ping_frame, pong_frame};

/// The read buffer of a thread. A frame that does not fit is put together by the parser.
const READ_BYTES: usize = 64 * 1024;
/// Reads in one turn of the task, so that a flood on one connection leaves the others their share.
const READS_PER_TURN: usize = 8;
/// Turns of the runtime for which an event waits for the answer to the command that may have made it.
const MOST_DEFERRALS: u8 = 2;
/// Pieces handed to one `writev`.
const MAX_PIECES: usize = 64;
/// Places for pieces that a connection keeps while it has nothing to write; more would be paid by each that is idle.
const KEPT_PIECES: usize = 4;

/// Times of the transport.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    /// Silence of the peer after which it is pinged, and after which an unanswered ping ends the connection.
    pub heartbeat: Duration,
    /// How long a closing handshake may take.
    pub close: Duration,
    /// How long a message may take from its first byte to its last; looked at once a heartbeat.
    pub message: Duration,
    /// Largest message, fragments added together, bytes.
    pub max_message: usize,
}

thread_local! {
    static READ_BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ_BYTES].into_boxed_slice());
}

/// Serves a connection to its end. `first` is what came with the handshake; `guard` is dropped at the end.
///
/// No `async fn`: what such a function takes it keeps twice, and each byte here counts once for every connection.
pub fn run(
    stream: TcpStream,
    first: Bytes,
    handler: impl Handler,
    timing: Timing,
    guard: impl Send + 'static,
) -> impl Future<Output = ()> + Send {
    let mut connection = Connection {
        stream,
        handler,
        timing,
        parser: Parser::default(),
        out: VecDeque::new(),
        phase: Phase::Open,
        heard: Instant::now(),
        pinged: false,
        begun: None,
        deferred: 0,
        // Sets the timer, and makes it known to the task.
        alarm: Some(Instant::now() + timing.heartbeat),
    };
    connection.heed();
    if !first.is_empty() {
        connection.received(&mut first.to_vec());
    }
    // Even an empty rest keeps the whole buffer of the handshake alive: 8 KiB.
    drop(first);
    async move {
        let _guard = &guard;
        let mut timer = pin!(sleep_until(Instant::now() + timing.heartbeat));
        std::future::poll_fn(|cx| connection.poll(cx, timer.as_mut())).await;
        connection.handler.closed(false);
        connection.handler.client().outbox.shut();
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Open,
    /// A close frame is queued or sent. `done`: nothing more of the peer is awaited.
    Closing {
        done: bool,
    },
    /// FIN is sent.
    Lingering,
}

struct Connection<H> {
    stream: TcpStream,
    handler: H,
    timing: Timing,
    parser: Parser,
    /// Frames taken from the outbox; the first may be written in part.
    out: VecDeque<Piece>,
    phase: Phase,
    /// When the peer was last heard, or pinged.
    heard: Instant,
    /// A ping is unanswered.
    pinged: bool,
    /// When a message was begun that is not whole yet.
    begun: Option<Instant>,
    /// Turns for which writing has waited.
    deferred: u8,
    /// A new time for the timer.
    alarm: Option<Instant>,
}

impl<H: Handler> Connection<H> {
    /// Ready when the connection has ended.
    fn poll(&mut self, cx: &mut Context<'_>, mut timer: Pin<&mut Sleep>) -> Poll<()> {
        if self.defers() {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        for _ in 0..READS_PER_TURN {
            if self.poll_write(cx).is_err() {
                return Poll::Ready(());
            }
            loop {
                if let Some(alarm) = self.alarm.take() {
                    timer.as_mut().reset(alarm);
                } else if !timer.is_elapsed() {
                    // It knows this task since it was last reset.
                    break;
                }
                if timer.as_mut().poll(cx).is_pending() {
                    break;
                }
                if self.on_timer().is_break() || self.poll_write(cx).is_err() {
                    return Poll::Ready(());
                }
            }
            let may_read = match self.phase {
                Phase::Open => self.handler.may_read(),
                // A peer that takes nothing is not read either: it could send for as long as the deadline allows.
                Phase::Closing { .. } => self.out.is_empty(),
                Phase::Lingering => true,
            };
            // What had to wait may have set a time of its own.
            self.heed();
            if self.alarm.is_some() {
                continue;
            }
            if !may_read {
                return Poll::Pending;
            }
            if ready!(self.poll_read(cx)).is_err() {
                return Poll::Ready(());
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Whether to let others go first: a command's event and its answer come by different ways, mostly in the same turn
    /// of the runtime, and go out with one write if the first waits for the second.
    fn defers(&mut self) -> bool {
        let client = self.handler.client();
        let may =
            self.deferred < MOST_DEFERRALS && self.out.is_empty() && client.asks() && client.outbox.is_busy();
        self.deferred = if may { self.deferred + 1 } else { 0 };
        may
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        READ_BUFFER.with_borrow_mut(|buffer| {
            let mut buffer = ReadBuf::new(buffer);
            ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buffer))?;
            let bytes = buffer.filled_mut();
            if bytes.is_empty() {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
            self.received(bytes);
            Poll::Ready(Ok(()))
        })
    }

    fn received(&mut self, bytes: &mut [u8]) {
        if !matches!(self.phase, Phase::Open | Phase::Closing { done: false }) {
            return;
        }
        self.heard = Instant::now();
        self.pinged = false;
        let mut parser = std::mem::take(&mut self.parser);
        let fed = parser.feed(bytes, self.timing.max_message, |message| self.message(message));
        self.parser = parser;
        self.begun = if self.parser.is_idle() {
            None
        } else {
            self.begun.or(Some(self.heard))
        };
        if let Err(code) = fed {
            if self.phase == Phase::Open {
                self.begin_close(&code.into());
            }
            // What follows a breach cannot be read, so there is no peer's close to wait for.
            self.phase = Phase::Closing { done: true };
        }
    }

    fn message(&mut self, message: Message<'_>) -> Flow {
        if let Message::Close(code) = message {
            if self.phase == Phase::Open {
                self.handler.closed(code == CloseCode::Normal.code());
                self.end_open(&close_frame(code, ""));
            }
            self.phase = Phase::Closing { done: true };
            return Flow::Stop;
        }
        if self.phase != Phase::Open {
            return Flow::Continue;
        }
        let handled = match message {
            Message::Text(text) => self.handler.text(text),
            Message::Binary(bytes) => self.handler.binary(bytes),
            Message::Ping(payload) => {
                self.handler.client().outbox.push_answer(pong_frame(payload));
                Ok(())
            }
            Message::Pong | Message::Close(_) => Ok(()),
        };
        if let Err(closing) = handled {
            self.begin_close(&closing);
        }
        self.heed();
        Flow::Continue
    }

    /// Sets the timer if the handler has a time of its own that comes before the heartbeat's.
    fn heed(&mut self) {
        if self.phase == Phase::Open
            && let Some(at) = self.handler.take_alarm()
        {
            let due = self.heard + self.timing.heartbeat;
            self.alarm = Some(self.alarm.unwrap_or(due).min(at));
        }
    }

    /// Queues our close frame.
    fn begin_close(&mut self, closing: &Closing) {
        self.handler.closed(false);
        if closing.code == CloseCode::SlowConsumer.code() {
            // It resumes what it has not got; a frame written in part must be whole, though.
            let whole = self.out.iter().position(|piece| piece.ends);
            self.out.truncate(whole.map_or(0, |last| last + 1));
        }
        self.end_open(&close_frame(closing.code, &closing.reason));
    }

    /// Queues a close frame behind what is queued; nothing follows it.
    fn end_open(&mut self, close: &Bytes) {
        let outbox = &self.handler.client().outbox;
        outbox.take(&mut self.out, None);
        outbox.shut();
        self.out.push_back(Piece {
            frames: close.clone(),
            answer: true,
            ends: true,
        });
        self.phase = Phase::Closing { done: false };
        self.alarm = Some(Instant::now() + self.timing.close);
    }

    /// Writes what is queued, as far as the socket takes it.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if self.phase == Phase::Open
            && let Some(closing) = self.handler.client().outbox.take(&mut self.out, Some(cx))
        {
            self.begin_close(&closing);
        }
        while !self.out.is_empty() {
            let stream = Pin::new(&mut self.stream);
            let wrote = if self.out.len() == 1 {
                // A plain write costs the kernel less than one of a list.
                stream.poll_write(cx, &self.out[0].frames)
            } else {
                let mut pieces = [io::IoSlice::new(&[]); MAX_PIECES];
                let count = self.out.len().min(MAX_PIECES);
                for (piece, frames) in pieces.iter_mut().zip(&self.out) {
                    *piece = io::IoSlice::new(&frames.frames);
                }
                stream.poll_write_vectored(cx, &pieces[..count])
            };
            match wrote {
                Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(Ok(written)) => self.advance(written),
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Pending => return Ok(()),
            }
        }
        if self.out.capacity() > KEPT_PIECES {
            self.out = VecDeque::new();
        }
        if self.phase == (Phase::Closing { done: true }) {
            return self.begin_linger(cx);
        }
        Ok(())
    }

    fn advance(&mut self, mut written: usize) {
        while let Some(front) = self.out.front_mut() {
            let (size, answer) = (front.frames.len(), front.answer);
            let outbox = &self.handler.client().outbox;
            if written < size {
                front.frames.advance(written);
                outbox.written(answer, written, false);
                return;
            }
            outbox.written(answer, size, true);
            self.out.pop_front();
            written -= size;
        }
    }

    fn begin_linger(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        // Of a TCP stream this never waits.
        if let Poll::Ready(Err(error)) = Pin::new(&mut self.stream).poll_shutdown(cx) {
            return Err(error);
        }
        self.phase = Phase::Lingering;
        self.alarm = Some(Instant::now() + self.timing.close);
        Ok(())
    }

    /// Breaks where the connection ends.
    fn on_timer(&mut self) -> ControlFlow<()> {
        let now = Instant::now();
        match self.phase {
            Phase::Open => {
                if self.handler.client().waits() {
                    // What it has said since is not read yet.
                    self.heard = now;
                }
                if self.begun.is_some_and(|begun| now - begun >= self.timing.message) {
                    self.begin_close(&Closing {
                        code: CloseCode::Policy.code(),
                        reason: "a message was begun and not ended".to_owned(),
                    });
                    return ControlFlow::Continue(());
                }
                let own = match self.handler.due(now) {
                    Ok(at) => at,
                    Err(closing) => {
                        self.begin_close(&closing);
                        return ControlFlow::Continue(());
                    }
                };
                let due = self.heard + self.timing.heartbeat;
                if now < due {
                    self.alarm = Some(due);
                } else if self.pinged {
                    self.begin_close(&CloseCode::NoPong.into());
                } else {
                    self.pinged = true;
                    // Its answer has as long as its silence had, whatever else the timer is for meanwhile.
                    self.heard = now;
                    self.handler.client().outbox.push_answer(ping_frame());
                    self.alarm = Some(now + self.timing.heartbeat);
                }
                if let (Some(alarm), Some(own)) = (self.alarm, own) {
                    self.alarm = Some(alarm.min(own));
                }
                ControlFlow::Continue(())
            }
            // The peer takes nothing any more.
            Phase::Closing { .. } if !self.out.is_empty() => ControlFlow::Break(()),
            Phase::Closing { .. } => {
                self.phase = Phase::Closing { done: true };
                self.alarm = Some(now + self.timing.close);
                ControlFlow::Continue(())
            }
            Phase::Lingering => ControlFlow::Break(()),
        }
    }
}
