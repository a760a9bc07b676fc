//! What stands between a gateway and its Redis: a TCP proxy that can cut links, hold back what they carry, delay it, and
//! take away replies.
//!
//! A link is one connection of the gateway. It is known by the name that the gateway gives it in its first request
//! (`HELLO 3 … SETNAME roomgate:<node>:events`), so that a fault can be aimed at one kind of link.

use std::{
    collections::HashMap,
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicU64, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{Notify, watch},
    time::{sleep, timeout},
};

/// What a link is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Subscriptions.
    Events,
    /// The calls of rooms.
    Calls,
    /// Everything else.
    Other,
}

impl Kind {
    const ALL: [Self; 3] = [Self::Events, Self::Calls, Self::Other];

    fn of_first_request(bytes: &[u8]) -> Self {
        let mut words = bytes.split(|byte| b"\r\n".contains(byte));
        let named = words.any(|word| word.eq_ignore_ascii_case(b"SETNAME"));
        match words
            .find(|word| word.starts_with(b"roomgate:"))
            .filter(|_| named)
        {
            Some(name) if name.ends_with(b":events") => Self::Events,
            Some(name) if name.ends_with(b":calls") => Self::Calls,
            _ => Self::Other,
        }
    }
}

/// What happens to the bytes of a direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Flow {
    /// They pass.
    #[default]
    Pass,
    /// They are held, the end of the stream too, until they may pass again: a half-open connection.
    Hold,
    /// They pass later.
    Delay(Duration),
}

/// Both directions of a kind of link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rule {
    /// From the gateway to Redis.
    pub up: Flow,
    /// From Redis to the gateway.
    pub down: Flow,
}

impl Rule {
    /// Nothing passes.
    pub const HOLD: Self = Self {
        up: Flow::Hold,
        down: Flow::Hold,
    };
    /// Requests pass, nothing comes back.
    pub const DEAF: Self = Self {
        up: Flow::Pass,
        down: Flow::Hold,
    };
}

/// By kind, in the order of [`Kind::ALL`].
type Rules = [Rule; 3];

struct Shared {
    target: Mutex<SocketAddr>,
    rules: watch::Sender<Rules>,
    links: Mutex<HashMap<u64, Arc<Link>>>,
    next: AtomicU64,
    /// Replies that are still to be taken away.
    armed: AtomicU64,
    taken: AtomicU64,
}

struct Link {
    kind: AtomicU8,
    cut: Notify,
    /// This link alone has gone deaf.
    deaf: watch::Sender<bool>,
}

impl Link {
    fn kind(&self) -> Kind {
        Kind::ALL[usize::from(self.kind.load(Ordering::Relaxed)) % Kind::ALL.len()]
    }

    fn set_kind(&self, kind: Kind) {
        self.kind.store(kind as u8, Ordering::Relaxed);
    }
}

/// A running proxy. Clones are the same one. It ends with the runtime.
#[derive(Clone)]
pub struct Proxy {
    /// What to connect to instead of the target.
    pub address: SocketAddr,
    shared: Arc<Shared>,
}

impl Proxy {
    /// Opens one in front of `target`.
    ///
    /// # Errors
    /// No port can be had.
    pub async fn start(target: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            target: Mutex::new(target),
            rules: watch::Sender::new(Rules::default()),
            links: Mutex::default(),
            next: AtomicU64::new(0),
            armed: AtomicU64::new(0),
            taken: AtomicU64::new(0),
        });
        let accepting = shared.clone();
        tokio::spawn(async move {
            loop {
                match listener.accept().await {
                    Ok((stream, _)) => drop(tokio::spawn(serve(stream, accepting.clone()))),
                    // Out of descriptors, for example: others may be closed soon.
                    Err(_) => sleep(Duration::from_millis(50)).await,
                }
            }
        });
        Ok(Self { address, shared })
    }

    /// Links made from now on go to `target`.
    pub fn point_at(&self, target: SocketAddr) {
        *self.shared.target.lock() = target;
    }

    /// From now on `rule` holds for links of `kind`; for all without one.
    pub fn set(&self, kind: Option<Kind>, rule: Rule) {
        self.shared.rules.send_modify(|rules| {
            for at in Kind::ALL {
                if kind.is_none_or(|kind| kind == at) {
                    rules[at as usize] = rule;
                }
            }
        });
    }

    /// Everything passes again.
    pub fn heal(&self) {
        self.set(None, Rule::default());
        self.shared.armed.store(0, Ordering::Relaxed);
    }

    /// Cuts the links of `kind`, or all. Returns how many.
    pub fn cut(&self, kind: Option<Kind>) -> usize {
        let links = self.shared.links.lock();
        let chosen = links
            .values()
            .filter(|link| kind.is_none_or(|kind| kind == link.kind()));
        chosen.inspect(|link| link.cut.notify_one()).count()
    }

    /// Nothing comes down any more on the links of `kind` that are there now; new ones are well.
    pub fn deafen(&self, kind: Kind) {
        for link in self
            .shared
            .links
            .lock()
            .values()
            .filter(|link| kind == link.kind())
        {
            link.deaf.send_replace(true);
        }
    }

    /// How many links of `kind` have gone deaf by [`Self::deafen`] and are still there.
    pub fn deaf_links(&self, kind: Kind) -> usize {
        let links = self.shared.links.lock();
        let chosen = links.values().filter(|link| kind == link.kind());
        chosen.filter(|link| *link.deaf.borrow()).count()
    }

    /// The next `count` times that a reply to the calls of rooms comes, the link is cut and the reply does not pass.
    pub fn take_replies(&self, count: u64) {
        self.shared.armed.store(count, Ordering::Relaxed);
    }

    /// How often a reply was taken away so far.
    pub fn replies_taken(&self) -> u64 {
        self.shared.taken.load(Ordering::Relaxed)
    }
}

/// Takes a link out of the table, however its task ends.
struct Registered<'a>(&'a Shared, u64);

impl Drop for Registered<'_> {
    fn drop(&mut self) {
        self.0.links.lock().remove(&self.1);
    }
}

async fn serve(gateway: TcpStream, shared: Arc<Shared>) {
    let target = *shared.target.lock();
    let connecting = timeout(Duration::from_secs(2), TcpStream::connect(target));
    // A gateway whose Redis refuses connections sees its own end at once, as it would without the proxy.
    let Ok(Ok(redis)) = connecting.await else { return };
    if gateway.set_nodelay(true).and(redis.set_nodelay(true)).is_err() {
        return;
    }
    let link = Arc::new(Link {
        kind: AtomicU8::new(Kind::Other as u8),
        cut: Notify::new(),
        deaf: watch::Sender::new(false),
    });
    let number = shared.next.fetch_add(1, Ordering::Relaxed);
    shared.links.lock().insert(number, link.clone());
    let _registered = Registered(&shared, number);
    let (from_gateway, to_gateway) = gateway.into_split();
    let (from_redis, to_redis) = redis.into_split();
    tokio::select! {
        () = requests(from_gateway, to_redis, &link, &shared) => {}
        () = replies(from_redis, to_gateway, &link, &shared) => {}
        () = link.cut.notified() => {}
    }
}

/// From the gateway to Redis, until either ends.
async fn requests(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, link: &Link, shared: &Shared) {
    let mut rules = shared.rules.subscribe();
    let mut buffer = vec![0; 64 * 1024];
    let mut first = true;
    loop {
        let read = from.read(&mut buffer).await.unwrap_or(0);
        if std::mem::take(&mut first) {
            link.set_kind(Kind::of_first_request(&buffer[..read]));
        }
        passed(&mut rules, |rules| rules[link.kind() as usize].up).await;
        if read == 0 || to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}

/// From Redis to the gateway, until either ends.
async fn replies(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, link: &Link, shared: &Shared) {
    let mut rules = shared.rules.subscribe();
    let mut deaf = link.deaf.subscribe();
    let mut buffer = vec![0; 64 * 1024];
    let mut greeted = false;
    loop {
        let read = from.read(&mut buffer).await.unwrap_or(0);
        passed(&mut deaf, |&deaf| if deaf { Flow::Hold } else { Flow::Pass }).await;
        passed(&mut rules, |rules| rules[link.kind() as usize].down).await;
        // The first reply is that to HELLO: nothing is in flight yet.
        if read > 0 && std::mem::replace(&mut greeted, true) && link.kind() == Kind::Calls {
            let one_less = |armed: u64| armed.checked_sub(1);
            let order = Ordering::Relaxed;
            if shared.armed.fetch_update(order, order, one_less).is_ok() {
                shared.taken.fetch_add(1, order);
                return;
            }
        }
        if read == 0 || to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}

/// Waits until what has been read may pass.
async fn passed<T>(rules: &mut watch::Receiver<T>, flow: impl Fn(&T) -> Flow) {
    loop {
        let now = flow(&rules.borrow_and_update());
        match now {
            Flow::Pass => return,
            Flow::Delay(by) => return sleep(by).await,
            Flow::Hold => {
                if rules.changed().await.is_err() {
                    return;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    const PATIENCE: Duration = Duration::from_secs(10);

    /// A proxy, and a server behind it that says everything back.
    async fn echo() -> Proxy {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let target = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut from, mut to) = stream.split();
                    let _ = tokio::io::copy(&mut from, &mut to).await;
                });
            }
        });
        Proxy::start(target).await.unwrap()
    }

    async fn link(proxy: &Proxy, name: &str) -> TcpStream {
        let mut stream = TcpStream::connect(proxy.address).await.unwrap();
        let hello = format!("*4\r\n$5\r\nHELLO\r\n$1\r\n3\r\n$7\r\nSETNAME\r\n$1\r\n{name}\r\n");
        said_back(&mut stream, &hello).await.unwrap();
        stream
    }

    async fn said_back(stream: &mut TcpStream, text: &str) -> io::Result<()> {
        stream.write_all(text.as_bytes()).await?;
        let mut answer = vec![0; text.len()];
        timeout(PATIENCE, stream.read_exact(&mut answer)).await.unwrap()?;
        assert_eq!(answer, text.as_bytes());
        Ok(())
    }

    #[tokio::test]
    async fn a_cut_is_aimed_at_one_kind_of_link() {
        let proxy = echo().await;
        let mut events = link(&proxy, "roomgate:gw-1:events").await;
        let mut calls = link(&proxy, "roomgate:gw-1:calls").await;
        assert_eq!(proxy.cut(Some(Kind::Events)), 1);
        assert_eq!(
            timeout(PATIENCE, events.read(&mut [0; 9]))
                .await
                .unwrap()
                .unwrap(),
            0
        );
        said_back(&mut calls, "well").await.unwrap();
    }

    #[tokio::test]
    async fn what_is_held_passes_when_the_link_is_healed() {
        let proxy = echo().await;
        let mut calls = link(&proxy, "roomgate:gw-1:calls").await;
        proxy.set(Some(Kind::Calls), Rule::DEAF);
        calls.write_all(b"x").await.unwrap();
        let silence = Duration::from_millis(100);
        assert!(
            timeout(silence, calls.read(&mut [0; 9])).await.is_err(),
            "it is held"
        );
        let mut events = link(&proxy, "roomgate:gw-1:events").await;
        said_back(&mut events, "others pass").await.unwrap();
        proxy.heal();
        assert_eq!(
            timeout(PATIENCE, calls.read(&mut [0; 9])).await.unwrap().unwrap(),
            1
        );
    }

    #[tokio::test]
    async fn a_delay_is_kept() {
        let proxy = echo().await;
        let mut calls = link(&proxy, "roomgate:gw-1:calls").await;
        let by = Duration::from_millis(50);
        let rule = Rule {
            up: Flow::Delay(by),
            down: Flow::Delay(by),
        };
        proxy.set(None, rule);
        let started = Instant::now();
        said_back(&mut calls, "late").await.unwrap();
        assert!(started.elapsed() >= 2 * by);
    }

    #[tokio::test]
    async fn a_reply_is_taken_and_the_link_cut() {
        let proxy = echo().await;
        let mut calls = link(&proxy, "roomgate:gw-1:calls").await;
        let mut other = link(&proxy, "roomgate:gw-1").await;
        proxy.take_replies(1);
        said_back(&mut other, "not a call").await.unwrap();
        assert!(said_back(&mut calls, "FCALL").await.is_err());
        assert_eq!(proxy.replies_taken(), 1);
        let mut again = link(&proxy, "roomgate:gw-1:calls").await;
        said_back(&mut again, "FCALL").await.unwrap();
    }

    #[tokio::test]
    async fn only_the_links_that_are_there_go_deaf() {
        let proxy = echo().await;
        let mut events = link(&proxy, "roomgate:gw-1:events").await;
        proxy.deafen(Kind::Events);
        assert_eq!(proxy.deaf_links(Kind::Events), 1);
        events.write_all(b"x").await.unwrap();
        assert!(
            timeout(Duration::from_millis(100), events.read(&mut [0; 9]))
                .await
                .is_err()
        );
        let mut replaced = link(&proxy, "roomgate:gw-1:events").await;
        said_back(&mut replaced, "well").await.unwrap();
    }
}
