//! A client that comes back: it chooses a gateway, stays as long as the connection does, and resumes on another.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use tokio::{
    net::{TcpSocket, TcpStream},
    sync::watch,
    time::timeout,
};
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{client::IntoClientRequest, http::HeaderValue},
};

use super::{
    checker::STAYED_AWAY,
    crowd::{Crowd, Orders},
    history::{Pen, Since, What},
};

/// How long a gateway may take to accept a connection, and as long again to open the WebSocket.
const CONNECT: Duration = Duration::from_secs(2);
/// The first of the waits before another attempt, and the longest.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// One client.
pub(super) struct Client {
    pub(super) number: usize,
    pub(super) user: String,
    pub(super) crowd: Arc<Crowd>,
    pub(super) pen: Pen,
    pub(super) rng: fastrand::Rng,
    pub(super) orders: watch::Receiver<Orders>,
    pub(super) rooms: Vec<Room>,
    /// Commands without an answer, by the order in which they were first sent.
    pub(super) pending: BTreeMap<u64, Pending>,
    /// Commands made so far.
    pub(super) made: u64,
    /// Attempts since the last time that all went well.
    pub(super) failures: u32,
    /// Kept over connections, so that a client's pace does not depend on its losses.
    pub(super) next_command: Instant,
    /// The gateway that was lost last.
    avoid: Option<usize>,
    padding: String,
}

/// A room that the client wants to be in.
pub(super) struct Room {
    pub(super) id: String,
    pub(super) since: Option<Since>,
    pub(super) joined: bool,
    /// When the join without an answer was sent.
    pub(super) joining: Option<Instant>,
    /// When to try again.
    pub(super) retry: Option<Instant>,
}

/// A command without an answer.
pub(super) struct Pending {
    pub(super) room: usize,
    pub(super) id: String,
    pub(super) of: &'static str,
    pub(super) token: String,
    pub(super) text: String,
    /// When it was sent on this connection.
    pub(super) sent: Option<Instant>,
    /// When to send it again.
    pub(super) retry: Option<Instant>,
}

/// How a connection ended.
pub(super) enum End {
    /// With a close frame.
    Closed(u16, String),
    /// Without.
    Lost(String),
    /// By the client, as it was told to.
    Dropped,
    /// The run is over.
    Over,
}

/// What a close code asks of a client.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    /// Never come again.
    Stop,
    /// Come again at once, the first time.
    AtOnce,
    /// Come again after this and some jitter.
    After(Duration),
    /// Back off.
    BackOff,
}

/// As PROTOCOL.md has it: the range says what to do, also for a code that is not known.
fn after_close(code: u16, reason: &str) -> Next {
    match code {
        1000 | 1002 | 1003 | 1007 | 1008 | 1009 | 4000..=4099 => Next::Stop,
        1012 => Next::After(Duration::from_millis(reason.trim().parse().unwrap_or(0))),
        4200..=4299 => Next::AtOnce,
        // A new token is not to be had here: the runs are anonymous.
        4100..=4199 => Next::Stop,
        _ => Next::BackOff,
    }
}

impl Client {
    pub(super) fn new(
        number: usize,
        seed: u64,
        crowd: Arc<Crowd>,
        orders: watch::Receiver<Orders>,
        rooms: &[String],
    ) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed.wrapping_mul(1_000_003).wrapping_add(number as u64));
        // Every room has members: each client's first room is its turn's.
        let mut chosen = vec![number % rooms.len()];
        for _ in 1..rng.usize(1..=crowd.habits.rooms_each) {
            let room = rng.usize(0..rooms.len());
            if !chosen.contains(&room) {
                chosen.push(room);
            }
        }
        let pen = Pen::new(crowd.history.clone(), u32::try_from(number).unwrap_or(u32::MAX));
        // From the beginning so many commands come as later on, however rarely each client sends one.
        let first = Duration::from_secs_f64(rng.f64() / crowd.habits.rate);
        let padding = "x".repeat(crowd.habits.padding);
        let rooms = chosen.into_iter().map(|at| Room {
            id: rooms[at].clone(),
            since: None,
            joined: false,
            joining: None,
            retry: None,
        });
        Self {
            number,
            user: format!("u{number}"),
            pen,
            rng,
            orders,
            rooms: rooms.collect(),
            pending: BTreeMap::new(),
            made: 0,
            failures: 0,
            next_command: Instant::now() + first,
            avoid: None,
            padding,
            crowd,
        }
    }

    /// Runs until told that it is over, or told by a gateway never to come again.
    pub(super) async fn live(mut self) {
        self.show();
        loop {
            if self
                .orders
                .wait_for(|orders| orders.online || orders.over)
                .await
                .is_err()
            {
                return;
            }
            if self.orders.borrow().over {
                return;
            }
            let gateway = self.choose_gateway();
            let address = self.crowd.gateways[gateway];
            self.pen.conn += 1;
            let next = match self.connect(address).await {
                Err(why) => {
                    self.pen.write(What::Refused { gateway, why });
                    self.avoid = Some(gateway);
                    Next::BackOff
                }
                Ok(socket) => {
                    self.pen.write(What::Connect { gateway });
                    self.crowd
                        .update(self.number, |view| view.gateway = Some(gateway));
                    let end = self.stay(socket).await;
                    self.avoid = Some(gateway);
                    match self.ended(end) {
                        Some(_) if !self.orders.borrow().returns => Next::Stop,
                        Some(next) => next,
                        None => return,
                    }
                }
            };
            let wait = match next {
                Next::Stop => {
                    self.crowd.update(self.number, |view| view.stopped = true);
                    return;
                }
                Next::AtOnce if self.failures == 0 => Duration::ZERO,
                Next::After(delay) => delay + self.jitter(BACK_OFF.0 * 5),
                Next::AtOnce | Next::BackOff => {
                    let longest = BACK_OFF.0 * 2_u32.pow(self.failures.min(8));
                    self.jitter(longest.min(BACK_OFF.1))
                }
            };
            self.failures += 1;
            let told = self.orders.wait_for(|orders| orders.over);
            if timeout(wait, told).await.is_ok() {
                return;
            }
        }
    }

    /// Records the end of a connection; `None` if the run is over.
    fn ended(&mut self, end: End) -> Option<Next> {
        let next = match end {
            End::Over => None,
            End::Closed(code, reason) => {
                let next = after_close(code, &reason);
                self.pen.write(What::Closed { code, reason });
                if next == Next::Stop {
                    let code = code.to_string();
                    self.pen.write(What::GaveUp { id: None, code });
                }
                Some(next)
            }
            End::Lost(why) => {
                self.pen.write(What::Lost { why });
                Some(Next::BackOff)
            }
            End::Dropped => {
                let why = match self.orders.borrow().online {
                    true => "dropped by the client",
                    false => STAYED_AWAY,
                };
                let why = why.to_owned();
                self.pen.write(What::Lost { why });
                Some(Next::BackOff)
            }
        };
        for room in &mut self.rooms {
            room.joined = false;
            room.joining = None;
            room.retry = None;
        }
        for pending in self.pending.values_mut() {
            pending.sent = None;
            pending.retry = None;
        }
        if next.is_some() {
            self.crowd.counts.lost.fetch_add(1, Ordering::Relaxed);
            self.show();
            self.crowd.update(self.number, |view| {
                view.gateway = None;
                view.losses += 1;
            });
        }
        next
    }

    /// The one that it is told to choose, else any but the one that was lost last.
    fn choose_gateway(&mut self) -> usize {
        if let Some(gateway) = self.orders.borrow().on {
            return gateway;
        }
        let count = self.crowd.gateways.len();
        match self.avoid {
            Some(avoid) if count > 1 => (avoid + self.rng.usize(1..count)) % count,
            _ => self.rng.usize(0..count),
        }
    }

    fn jitter(&mut self, longest: Duration) -> Duration {
        longest.mul_f64(self.rng.f64())
    }

    async fn connect(&self, address: SocketAddr) -> Result<WebSocketStream<TcpStream>, String> {
        let socket = TcpSocket::new_v4().map_err(|error| error.to_string())?;
        if let Some(bytes) = self.crowd.habits.receive_buffer {
            socket
                .set_recv_buffer_size(bytes)
                .map_err(|error| error.to_string())?;
        }
        let stream = timeout(CONNECT, socket.connect(address))
            .await
            .map_err(|_| "the connection is not accepted".to_owned())?
            .map_err(|error| error.to_string())?;
        stream.set_nodelay(true).map_err(|error| error.to_string())?;
        let mut request = format!("ws://{address}/ws?user={}", self.user)
            .into_client_request()
            .map_err(|error| error.to_string())?;
        let protocol = HeaderValue::from_static("roomgate.v1");
        request.headers_mut().insert("Sec-WebSocket-Protocol", protocol);
        let (socket, _) = timeout(CONNECT, client_async(request, stream))
            .await
            .map_err(|_| "no answer to the handshake".to_owned())?
            .map_err(|error| error.to_string())?;
        Ok(socket)
    }

    pub(super) fn padding(&self) -> &str {
        &self.padding
    }

    /// Lets the director see where the client stands.
    pub(super) fn show(&self) {
        self.crowd.update(self.number, |view| {
            view.pending = self.pending.len();
            view.rooms.clear();
            let rooms = self.rooms.iter();
            view.rooms
                .extend(rooms.map(|room| (room.id.clone(), room.since.clone(), room.joined)));
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_close_code_says_what_to_do() {
        assert_eq!(after_close(1012, "250"), Next::After(Duration::from_millis(250)));
        assert_eq!(after_close(1012, ""), Next::After(Duration::ZERO));
        for lost in [1001, 1005, 1006, 1011, 1013, 3000] {
            assert_eq!(after_close(lost, ""), Next::BackOff, "{lost}");
        }
        for stop in [1000, 1002, 1003, 1007, 1008, 1009, 4000, 4003, 4099, 4100] {
            assert_eq!(after_close(stop, ""), Next::Stop, "{stop}");
        }
        for again in [4200, 4201, 4299] {
            assert_eq!(after_close(again, ""), Next::AtOnce, "{again}");
        }
    }
}
