//! When Redis goes away and comes back: the connections are told, and the log says each once.
//!
//! Everything else happens where it belongs: commands are refused by the store's breaker, subscriptions are made again by
//! its subscriber, rooms are compared by `rooms`. This task only follows [`Store::readiness`](crate::store::Store).

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use crate::{
    hub::Hub,
    metrics::metrics,
    net::clients::Clients,
    store::{Readiness, SharedStore},
};

/// How often the store is looked at. Away is what it is found twice in a row: a connection that is made again at once is
/// no outage, and nobody's concern but its commands'.
const POLL: Duration = Duration::from_millis(250);
/// How long the comparison of rooms may hold back the word that Redis is back; a room that cannot be compared, being
/// damaged, is not waited for any longer.
const COMPARE: Duration = Duration::from_secs(5);

/// An outage, and what had been counted when it began.
struct Outage {
    began: Instant,
    repairs: u64,
    resyncs: u64,
}

impl Outage {
    fn begin(reason: &str) -> Self {
        tracing::warn!("Redis is away ({reason}): commands are refused, sockets stay, retrying");
        Self {
            began: Instant::now(),
            repairs: metrics().repairs.count(),
            resyncs: metrics().resyncs.count(),
        }
    }

    fn end(self, rooms: usize) {
        tracing::info!(
            "Redis is back after {:.1} s: {rooms} rooms compared, {} repaired, {} members resynchronised",
            self.began.elapsed().as_secs_f64(),
            metrics().repairs.count() - self.repairs,
            metrics().resyncs.count() - self.resyncs,
        );
    }
}

/// Follows a store that is ready now, for ever.
pub async fn watch(store: SharedStore, hub: Arc<Hub>, clients: Arc<Clients>) {
    let mut turn = interval(POLL);
    turn.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut outage: Option<Outage> = None;
    let mut missed = false;
    loop {
        turn.tick().await;
        match store.readiness() {
            Readiness::Ready => {
                missed = false;
                if outage.is_some() && !compared(&store, &hub).await {
                    continue;
                }
                if let Some(outage) = outage.take() {
                    clients.tell(false);
                    outage.end(hub.rooms().len());
                }
            }
            Readiness::NotReady(reason) => {
                if outage.is_none() && std::mem::replace(&mut missed, true) {
                    outage = Some(Outage::begin(&reason));
                    clients.tell(true);
                }
            }
        }
    }
}

/// Waits until the rooms have been compared with the store, which was asked for when it came back. `false` if it is away
/// again.
async fn compared(store: &SharedStore, hub: &Hub) -> bool {
    let end = Instant::now() + COMPARE;
    while hub.is_repairing() && Instant::now() < end {
        if store.readiness() != Readiness::Ready {
            return false;
        }
        sleep(POLL / 5).await;
    }
    store.readiness() == Readiness::Ready
}
