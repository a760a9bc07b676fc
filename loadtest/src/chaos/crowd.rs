//! All clients of a run, as the one who runs it sees and directs them.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tokio::{runtime::Handle, sync::watch, task::JoinHandle};

use super::{
    client::Client,
    history::{History, Since},
};
use crate::{
    failure::{Failure, check_interrupt},
    process::pause,
};

/// What clients do, the same for all of them.
#[derive(Debug, Clone)]
pub struct Habits {
    /// Commands a second.
    pub rate: f64,
    /// Rooms of a client: 1 to so many.
    pub rooms_each: usize,
    /// Bytes added to each message and broadcast.
    pub padding: usize,
    /// The kernel's receive buffer, bytes, where it is not the usual.
    pub receive_buffer: Option<u32>,
    /// Nothing heard for so long: the connection is given up.
    pub silence: Duration,
    /// A command unanswered for so long on a connection that lives: the connection is given up.
    pub unanswered: Duration,
}

/// What one client is told to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Orders {
    /// Whether it may have a connection.
    pub online: bool,
    /// Whether it reads what comes.
    pub reading: bool,
    /// Raised by one to have the connection dropped as by a lost network.
    pub drops: u64,
    /// The one gateway that it connects to; any, without.
    pub on: Option<usize>,
    /// Whether it comes back when its connection is lost.
    pub returns: bool,
    /// Whether the run is over.
    pub over: bool,
}

impl Default for Orders {
    fn default() -> Self {
        Self {
            online: true,
            reading: true,
            drops: 0,
            on: None,
            returns: true,
            over: false,
        }
    }
}

/// What a client is seen to be.
#[derive(Debug, Clone, Default)]
pub struct View {
    /// The gateway that it is connected to.
    pub gateway: Option<usize>,
    /// Each room, what is known of it, and whether the connection is in it.
    pub rooms: Vec<(String, Option<Since>, bool)>,
    /// Commands without an answer.
    pub pending: usize,
    /// Connections that it has lost.
    pub losses: u64,
    /// Whether it will never come again: a gateway told it so, or its orders do.
    pub stopped: bool,
}

impl View {
    /// Whether nothing is left to be done.
    pub fn at_rest(&self) -> bool {
        self.gateway.is_some() && self.pending == 0 && self.rooms.iter().all(|(_, _, joined)| *joined)
    }
}

/// Counted while it runs, for the lines of progress.
#[derive(Debug, Default)]
pub struct Counts {
    /// Commands acknowledged.
    pub acked: AtomicU64,
    /// Connections lost.
    pub lost: AtomicU64,
    /// Commands answered `timeout`.
    pub timeouts: AtomicU64,
}

/// What clients and their director share.
pub struct Crowd {
    /// Where the gateways are.
    pub gateways: Vec<SocketAddr>,
    /// What clients do.
    pub habits: Habits,
    /// Where they write what they see.
    pub history: Arc<History>,
    /// Whether new commands are sent.
    pub sending: AtomicBool,
    /// Sums.
    pub counts: Counts,
    orders: Vec<watch::Sender<Orders>>,
    views: Vec<Mutex<View>>,
}

impl Crowd {
    /// `count` clients that do not run yet.
    pub fn new(gateways: Vec<SocketAddr>, habits: Habits, history: Arc<History>, count: usize) -> Arc<Self> {
        Arc::new(Self {
            gateways,
            habits,
            history,
            sending: AtomicBool::new(false),
            counts: Counts::default(),
            orders: (0..count).map(|_| watch::Sender::default()).collect(),
            views: (0..count).map(|_| Mutex::default()).collect(),
        })
    }

    /// Starts them all. `seed` decides everything that they choose; `rooms` is what they choose from.
    pub fn start(self: &Arc<Self>, runtime: &Handle, seed: u64, rooms: &[String]) -> Vec<JoinHandle<()>> {
        let starting = (0..self.orders.len()).map(|number| {
            let orders = self.orders[number].subscribe();
            let client = Client::new(number, seed, self.clone(), orders, rooms);
            runtime.spawn(client.live())
        });
        starting.collect()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.orders.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.orders.is_empty()
    }

    /// Changes the orders of one client.
    pub fn order(&self, client: usize, change: impl FnOnce(&mut Orders)) {
        self.orders[client].send_modify(change);
    }

    /// Changes the orders of all.
    pub fn order_all(&self, change: impl Fn(&mut Orders)) {
        for orders in &self.orders {
            orders.send_modify(&change);
        }
    }

    /// A client as it is seen now.
    pub fn view(&self, client: usize) -> View {
        self.views[client].lock().clone()
    }

    /// The clients on a gateway.
    pub fn on_gateway(&self, gateway: usize) -> Vec<usize> {
        (0..self.len())
            .filter(|&client| self.views[client].lock().gateway == Some(gateway))
            .collect()
    }

    /// How many have a connection, and how many are at rest.
    pub fn standing(&self) -> (usize, usize) {
        self.views.iter().fold((0, 0), |(connected, at_rest), view| {
            let view = view.lock();
            (
                connected + usize::from(view.gateway.is_some()),
                at_rest + usize::from(view.at_rest()),
            )
        })
    }

    /// Waits until `true` of every client, `patience` at most; how many it is not true of.
    ///
    /// # Errors
    /// [`Failure::Interrupted`].
    pub fn wait_for(&self, patience: Duration, of: impl Fn(usize, &View) -> bool) -> Result<usize, Failure> {
        let started = Instant::now();
        loop {
            check_interrupt()?;
            let lacking = (0..self.len())
                .filter(|&client| !of(client, &self.views[client].lock()))
                .count();
            if lacking == 0 || started.elapsed() > patience {
                return Ok(lacking);
            }
            pause(Duration::from_millis(10));
        }
    }

    /// Lets new commands be sent, or not.
    pub fn send(&self, sending: bool) {
        self.sending.store(sending, Ordering::Relaxed);
    }

    /// Clients tell here what they have become.
    pub(super) fn update(&self, client: usize, change: impl FnOnce(&mut View)) {
        change(&mut self.views[client].lock());
    }
}
