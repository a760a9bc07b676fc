//! One connection's life: what is written together, whose answer is next, and when it is given up.
//!
//! What was under way when the connection broke may have happened; it is told apart from what was never sent.

use std::{collections::VecDeque, time::Duration};

use fred::types::{Resp3Frame as Frame, Value};
use redis_protocol::resp3::decode::complete::decode_bytes_mut;
use roomgate_shared::keys;
use tokio::{
    sync::mpsc,
    time::{Instant, MissedTickBehavior, interval},
};

use super::{Answer, Call, Command};
use crate::store::{
    StoreError,
    redis::{
        client::{SILENCE, TRIAL},
        errors::error_text,
        function::LIBRARY,
        wire::{Pipe, Wire, push_command},
    },
};

/// Calls taken in before anything else is looked at.
const BURST: usize = 1024;
/// How often the times of calls under way are looked at.
const TICK: Duration = Duration::from_millis(250);
/// Longest `WAIT`: shorter than [`TRIAL`], so that its silence is not taken for a dead link.
const LONGEST_WAIT: Duration = Duration::from_secs(2);

/// How often it is said that replicas do not follow.
const REPORT: Duration = Duration::from_secs(10);

/// Why a link ended whose server takes no writes any more.
pub(super) const DEMOTED: &str = "the server takes no writes any more: it was demoted";

/// Who waits for the next answer.
enum Waiter {
    /// Whoever called. `write`: replicas are to have it before.
    Caller { answer: Answer, write: bool },
    /// Nobody: a trial of a silent connection.
    Trial,
    /// Those in `held`: the answer says how many replicas have what they wrote.
    Replicas,
}

/// One connection.
pub(super) struct Link {
    pipe: Pipe,
    timeout: Duration,
    /// Replicas that must have a write before it is answered; 0 asks none.
    replicas: u32,
    /// Whose answers are to come, in order, and since when.
    under_way: VecDeque<(Waiter, Instant)>,
    /// Answers that wait for the replicas.
    held: Vec<(Answer, Frame)>,
    /// `WAIT` is under way. Redis does nothing for this connection until it has answered, so nothing more is sent.
    waits: bool,
    heard: Instant,
    demoted: bool,
    /// When it was last said that replicas do not follow.
    reported: Option<Instant>,
}

/// Whether replicas are to have what was written before it is answered: a call for a room, whose answer is told to clients,
/// and the last command of what an operator says. That is the publication, so that the gateways are told at once whatever
/// becomes of the replicas; `WAIT` behind it is for all that was written before. What is written to indexes, and of users'
/// budgets and connections, is told to nobody.
fn is_told((name, args): &Command) -> bool {
    let first = args.first().and_then(Value::as_bytes).unwrap_or_default();
    match *name {
        "FCALL" => *first == *LIBRARY.name,
        "PUBLISH" => first == keys::CONTROL.as_bytes(),
        "UNLINK" => true,
        _ => false,
    }
}

impl Link {
    pub(super) fn new(wire: Wire, timeout: Duration, replicas: u32) -> Self {
        Self {
            pipe: Pipe::new(wire),
            timeout,
            replicas,
            under_way: VecDeque::new(),
            held: Vec::new(),
            waits: false,
            heard: Instant::now(),
            demoted: false,
            reported: None,
        }
    }

    /// Serves until the connection is lost, and says why.
    pub(super) async fn run(&mut self, inbox: &mut mpsc::Receiver<Call>) -> &'static str {
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let (pending, waits) = (self.pipe.is_pending(), self.waits);
            // Everything awaited here may be dropped half way without loss: readiness, the queue and the clock.
            let step = tokio::select! {
                ready = self.pipe.stream.readable() => ready.map_err(|_| "read failed").and_then(|()| self.read()),
                ready = self.pipe.stream.writable(), if pending => {
                    ready.map_err(|_| "write failed").and_then(|()| self.pipe.write())
                }
                call = inbox.recv(), if !waits => match call {
                    Some(call) => {
                        self.take(call, inbox);
                        self.pipe.write()
                    }
                    None => return "stopped",
                },
                _ = tick.tick() => self.tick(),
            };
            if let Err(reason) = step {
                return reason;
            }
        }
    }

    /// The connection is lost: whoever waits is told that it may have happened.
    pub(super) fn fail(&mut self, lost: &'static str) {
        let held = self.held.drain(..).map(|(answer, _)| answer);
        let under_way = self.under_way.drain(..).filter_map(|(waiter, _)| match waiter {
            Waiter::Caller { answer, .. } => Some(answer),
            Waiter::Trial | Waiter::Replicas => None,
        });
        for answer in held.chain(under_way) {
            let _ = answer.send(Err(StoreError::Timeout(lost.to_owned())));
        }
    }

    /// Takes a call and those behind it, so that they go in one write.
    fn take(&mut self, call: Call, inbox: &mut mpsc::Receiver<Call>) {
        let (now, mut writes, mut next) = (Instant::now(), false, Some(call));
        let mut taken = 0;
        while let Some(Call { command, answer }) = next {
            push_call(&mut self.pipe.output, &command);
            let write = is_told(&command);
            writes |= write;
            self.under_way.push_back((Waiter::Caller { answer, write }, now));
            taken += 1;
            next = if taken < BURST {
                inbox.try_recv().ok()
            } else {
                None
            };
        }
        if writes && self.replicas > 0 {
            let (count, ms) = (self.replicas.to_string(), self.wait().as_millis().to_string());
            push_command(&mut self.pipe.output, &["WAIT", &count, &ms]);
            self.under_way.push_back((Waiter::Replicas, now));
            self.waits = true;
        }
    }

    /// How long replicas are waited for.
    fn wait(&self) -> Duration {
        // 0 would be for ever.
        (self.timeout / 2).clamp(Duration::from_millis(1), LONGEST_WAIT)
    }

    fn read(&mut self) -> Result<(), &'static str> {
        if self.pipe.read()? {
            self.heard = Instant::now();
        }
        while let Some((frame, _, _)) =
            decode_bytes_mut(&mut self.pipe.input).map_err(|_| "not understood")?
        {
            let (waiter, _) = self.under_way.pop_front().ok_or("an answer to nothing")?;
            let error = error_text(&frame);
            let (refused, read_only) = (
                error.is_some(),
                error.is_some_and(|text| text.starts_with("READONLY")),
            );
            match waiter {
                Waiter::Caller { answer, write } => {
                    self.demoted |= read_only;
                    if write && !refused && self.replicas > 0 {
                        self.held.push((answer, frame));
                    } else {
                        // Whoever asked may have gone.
                        let _ = answer.send(Ok(frame));
                    }
                }
                // It loads its data, has lost its master, or knows this user no more.
                Waiter::Trial if refused => return Err("a PING was refused"),
                Waiter::Trial => {}
                Waiter::Replicas => {
                    let count = if let Frame::Number { data, .. } = frame {
                        data
                    } else {
                        0
                    };
                    self.confirm(count >= i64::from(self.replicas));
                }
            }
        }
        if self.demoted { Err(DEMOTED) } else { Ok(()) }
    }

    /// The replicas have, or have not, what the held answers stand for.
    fn confirm(&mut self, confirmed: bool) {
        self.waits = false;
        if !confirmed && self.reported.is_none_or(|at| at.elapsed() >= REPORT) {
            self.reported = Some(Instant::now());
            tracing::warn!(
                replicas = self.replicas,
                "what is written is not confirmed by as many replicas as REDIS_WAIT_REPLICAS asks for; clients are told timeout"
            );
        }
        for (answer, frame) in self.held.drain(..) {
            let _ = answer.send(if confirmed {
                Ok(frame)
            } else {
                let count = self.replicas;
                Err(StoreError::Timeout(format!(
                    "written, but not confirmed by {count} replicas (REDIS_WAIT_REPLICAS)"
                )))
            });
        }
    }

    /// Tries a silent connection, and gives up one that does not answer. One that is silent altogether has [`TRIAL`],
    /// however long a call may take: Redis answers in the order of the calls, so nothing heard is no sign of life.
    fn tick(&mut self) -> Result<(), &'static str> {
        match self.under_way.front() {
            Some((waiter, since)) => {
                let patience = match waiter {
                    Waiter::Caller { .. } => self.timeout,
                    Waiter::Trial => TRIAL,
                    Waiter::Replicas => self.timeout + self.wait(),
                };
                let waited = since.elapsed();
                if waited >= patience {
                    Err("no answer in time")
                } else if waited.min(self.heard.elapsed()) >= TRIAL {
                    Err("nothing is heard any more")
                } else {
                    Ok(())
                }
            }
            None if self.heard.elapsed() >= SILENCE => {
                push_command(&mut self.pipe.output, &["PING"]);
                self.under_way.push_back((Waiter::Trial, Instant::now()));
                self.pipe.write()
            }
            None => Ok(()),
        }
    }
}

/// Appends a command as RESP.
fn push_call(out: &mut Vec<u8>, (command, args): &Command) {
    use std::io::Write as _;
    // Writing to memory does not fail.
    let _ = write!(out, "*{}\r\n${}\r\n{command}\r\n", args.len() + 1, command.len());
    for arg in args {
        let number = arg.as_i64().filter(|_| arg.is_integer()).map(|n| n.to_string());
        let bytes = number
            .as_deref()
            .map(str::as_bytes)
            .or_else(|| arg.as_bytes())
            .unwrap_or_default();
        let _ = write!(out, "${}\r\n", bytes.len());
        out.extend_from_slice(bytes);
        out.extend_from_slice(b"\r\n");
    }
}
