//! The event subscriber: one RESP3 connection of its own, on which a task subscribes, waits for each confirmation,
//! hands payloads on, and finds out when it hears nothing any more.
//!
//! - Requests are carried out in the order of the calls; each subscription is told of when Redis has confirmed it.
//! - When the connection is lost, it is made again, all rooms are subscribed again, and only when every one is confirmed
//!   is [`EventSink::interrupted`] called. What was waiting for its confirmation fails.
//! - Once a second a subscription is tried: by a `PING` on this connection, and by a payload that is published to the
//!   node's own channel over the connection of the room calls. A connection on which one of them does not come back within three
//!   seconds (six while other payloads flow in) is half open or deaf, and made again; but not one that answers while Redis
//!   cannot be published to.

mod link;
mod rooms;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use roomgate_shared::ids::RoomId;
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinHandle,
    time::{Instant, sleep_until, timeout},
};

use self::link::{Link, Lost};
use self::rooms::Rooms;
use super::{client::MAX_DELAY, config::Endpoint, wire::Wire};
use crate::store::{EventSink, StoreError};

/// Pause between two trials of a subscription.
const SILENCE: Duration = Duration::from_secs(1);
/// How long a trial may take.
const TRIAL: Duration = Duration::from_secs(3);

/// What the task is asked to do, in order.
pub(super) enum Request {
    /// Subscribe to a room; told when confirmed.
    Subscribe(RoomId, oneshot::Sender<Result<(), StoreError>>),
    /// End a room's subscription.
    Unsubscribe(RoomId),
}

/// Publishes a payload to a channel, over the connection of the room calls. `None` if Redis did not take it.
pub(super) type Publish =
    Arc<dyn Fn(String, Bytes) -> crate::store::BoxFuture<'static, Option<u64>> + Send + Sync>;

/// What the task needs.
pub(super) struct Setup {
    pub(super) endpoint: Endpoint,
    /// The connection's name.
    pub(super) name: String,
    /// The node's own channel.
    pub(super) channel: String,
    pub(super) timeout: Duration,
    pub(super) retry_delay: Duration,
    pub(super) sink: Arc<dyn EventSink>,
    pub(super) publish: Publish,
    pub(super) random: fn() -> u64,
    /// Changes when the address leads to another server than before: see [`super::calls::Setup`].
    pub(super) moved: watch::Receiver<u64>,
}

/// The task's handle. The task ends with it.
pub(super) struct Subscriber {
    requests: mpsc::UnboundedSender<Request>,
    proven: Arc<AtomicBool>,
    timeout: Duration,
    task: JoinHandle<()>,
}

impl Subscriber {
    /// Starts the task. Needs a runtime.
    pub(super) fn start(setup: Setup) -> Self {
        let (requests, inbox) = mpsc::unbounded_channel();
        let proven = Arc::new(AtomicBool::new(false));
        let timeout = setup.timeout;
        let task = tokio::spawn(run(setup, inbox, Arc::clone(&proven)));
        Self {
            requests,
            proven,
            timeout,
            task,
        }
    }

    /// Whether a payload has come through since the connection was made and every room was confirmed, and none has failed
    /// to since. When this becomes true, an interruption has been told.
    pub(super) fn is_proven(&self) -> bool {
        self.proven.load(Ordering::Acquire)
    }

    /// Waits for a proof.
    pub(super) async fn wait(&self, patience: Duration) -> Result<(), String> {
        let proven = async {
            while !self.is_proven() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(patience, proven)
            .await
            .map_err(|_| format!("no payload has come back over the subscription within {patience:?}"))
    }

    /// See [`Store::subscribe`](crate::store::Store::subscribe).
    pub(super) async fn subscribe(&self, room: &RoomId) -> Result<(), StoreError> {
        let (done, confirmed) = oneshot::channel();
        let stopped = || StoreError::unavailable("the subscriber has stopped");
        self.requests
            .send(Request::Subscribe(room.clone(), done))
            .map_err(|_| stopped())?;
        match timeout(self.timeout, confirmed).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(stopped()),
            // The task sees that nobody waits and takes the subscription back.
            Err(_) => Err(StoreError::unavailable(
                "the subscription was not confirmed in time",
            )),
        }
    }

    /// See [`Store::unsubscribe`](crate::store::Store::unsubscribe).
    pub(super) fn unsubscribe(&self, room: &RoomId) {
        let _ = self.requests.send(Request::Unsubscribe(room.clone()));
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn run(setup: Setup, mut inbox: mpsc::UnboundedReceiver<Request>, proven: Arc<AtomicBool>) {
    let mut rooms = Rooms::default();
    let mut failures: u32 = 0;
    let mut first = true;
    let mut moved = setup.moved.clone();
    loop {
        match Wire::connect(&setup.endpoint, &setup.name, setup.timeout.min(TRIAL)).await {
            Ok(wire) => {
                let link = Link::new(&setup, wire, &mut rooms, Arc::clone(&proven), !first);
                let lost = link.run(&mut inbox, &mut moved, &mut failures).await;
                proven.store(false, Ordering::Release);
                rooms.fail_pending();
                match lost {
                    Lost::Stopped => return,
                    Lost::Connection(reason) => {
                        tracing::debug!(reason, "the event subscription to Redis is lost; reconnecting");
                    }
                }
                first = false;
            }
            Err(error) => {
                if failures == 0 {
                    tracing::debug!(%error, "the event subscriber cannot connect to Redis; trying on");
                }
            }
        }
        let delay = backoff(setup.retry_delay, failures, (setup.random)());
        let refuse = failures > 0;
        failures = failures.saturating_add(1);
        // The first attempt after a loss comes soon, and what is asked meanwhile waits for it. While Redis stays away,
        // what is asked fails at once.
        if !pause(delay, refuse, &mut inbox, &mut rooms).await {
            return;
        }
    }
}

/// Doubles from `base` with each failure up to [`MAX_DELAY`]; a random half of it is left out.
fn backoff(base: Duration, failures: u32, random: u64) -> Duration {
    let longest = base.saturating_mul(1_u32 << failures.min(16)).min(MAX_DELAY);
    let half = u64::try_from((longest / 2).as_micros()).unwrap_or(u64::MAX);
    longest / 2 + Duration::from_micros(random % half.max(1))
}

/// Waits; with `refuse`, what is asked meanwhile is answered. `false` when nobody can ask any more.
async fn pause(
    delay: Duration,
    refuse: bool,
    inbox: &mut mpsc::UnboundedReceiver<Request>,
    rooms: &mut Rooms,
) -> bool {
    let end = Instant::now() + delay;
    if !refuse {
        sleep_until(end).await;
        return !inbox.is_closed();
    }
    loop {
        // Both are cancel safe.
        tokio::select! {
            request = inbox.recv() => match request {
                Some(Request::Subscribe(_, done)) => {
                    let _ = done.send(Err(StoreError::unavailable("the event subscriber is not connected")));
                }
                Some(Request::Unsubscribe(room)) => rooms.forget(&room),
                None => return false,
            },
            () = sleep_until(end) => return true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_doubles_to_its_cap_and_is_spread() {
        let base = Duration::from_millis(100);
        assert_eq!(backoff(base, 0, 0), Duration::from_millis(50));
        assert_eq!(backoff(base, 2, 0), Duration::from_millis(200));
        assert_eq!(backoff(base, 40, 0), MAX_DELAY / 2);
        for random in [1, 77_777, u64::MAX] {
            let delay = backoff(base, 2, random);
            assert!((Duration::from_millis(200)..Duration::from_millis(400)).contains(&delay));
        }
    }
}
