//! A TCP proxy that fails as networks do: it cuts connections, or swallows what one side says and tells nobody.

use std::sync::Arc;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
};

/// Which way bytes are swallowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    ToServer,
    ToClient,
    Both,
}

/// Which connections, by the first bytes that the client says.
pub(crate) type Which = fn(&str) -> bool;

/// All of them.
pub(crate) const ALL: Which = |_| true;

#[derive(Clone, Copy)]
struct Orders {
    target: u16,
    cuts: u64,
    hole: Option<(Direction, Which)>,
}

/// Passes bytes between whoever connects and a port of the loopback.
pub(crate) struct Proxy {
    /// Where to connect to.
    pub(crate) port: u16,
    orders: Arc<watch::Sender<Orders>>,
}

impl Proxy {
    /// Passes on to `target`.
    pub(crate) async fn start(target: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let orders = Arc::new(watch::Sender::new(Orders {
            target,
            cuts: 0,
            hole: None,
        }));
        let given = Arc::clone(&orders);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(serve(client, given.subscribe()));
            }
        });
        Self { port, orders }
    }

    /// `redis://…`
    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Connections that come from now on are led to another port.
    pub(crate) fn lead_to(&self, target: u16) {
        self.orders.send_modify(|orders| orders.target = target);
    }

    /// Ends every connection that is there.
    pub(crate) fn cut(&self) {
        self.orders.send_modify(|orders| orders.cuts += 1);
    }

    /// From now on nothing passes this way on these connections, be they there or to come; they stay open.
    pub(crate) fn swallow(&self, direction: Direction, which: Which) {
        self.orders
            .send_modify(|orders| orders.hole = Some((direction, which)));
    }

    /// New connections pass again. Those that something was swallowed on stay as they are: what is lost is lost.
    pub(crate) fn resume(&self) {
        self.orders.send_modify(|orders| orders.hole = None);
    }
}

/// One connection.
async fn serve(client: TcpStream, mut orders: watch::Receiver<Orders>) {
    let target = orders.borrow_and_update().target;
    // The server may be away: then this one ends, too.
    let Ok(server) = TcpStream::connect(("127.0.0.1", target)).await else {
        return;
    };
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let (first, first_said) = watch::channel(None);
    let first = Some(first);
    let cuts = orders.borrow().cuts;
    tokio::select! {
        () = pass(from_client, to_server, Direction::ToServer, first, first_said.clone(), orders.clone()) => {}
        () = pass(from_server, to_client, Direction::ToClient, None, first_said, orders.clone()) => {}
        _ = orders.wait_for(|orders| orders.cuts > cuts) => {}
    }
}

/// One direction of it: until its source ends, or for ever once something is to be swallowed.
async fn pass(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    direction: Direction,
    first: Option<watch::Sender<Option<String>>>,
    first_said: watch::Receiver<Option<String>>,
    mut orders: watch::Receiver<Orders>,
) {
    let mut bytes = vec![0; 64 * 1024];
    loop {
        let read = tokio::select! {
            read = from.read(&mut bytes) => Some(read.unwrap_or(0)),
            Ok(()) = orders.changed() => None,
        };
        if let (Some(first), Some(length)) = (&first, read)
            && first.borrow().is_none()
        {
            first.send_replace(Some(String::from_utf8_lossy(&bytes[..length]).into_owned()));
        }
        let swallowed = orders.borrow_and_update().hole.is_some_and(|(way, which)| {
            let said = first_said.borrow();
            (way == direction || way == Direction::Both) && said.as_deref().is_some_and(which)
        });
        if swallowed && read != Some(0) {
            match direction {
                // The client's end is noticed, so that a connection given up is gone.
                Direction::ToServer => while from.read(&mut bytes).await.unwrap_or(0) > 0 {},
                Direction::ToClient | Direction::Both => std::future::pending().await,
            }
            return;
        }
        match read {
            Some(0) => return,
            Some(length) if to.write_all(&bytes[..length]).await.is_err() => return,
            Some(_) | None => {}
        }
    }
}
