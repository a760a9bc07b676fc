//! How many connections a user has, and an address. The true number of those that are here is kept here, and the store is
//! told that number, never a difference: what was lost on the way, or has happened without an answer, is put right by the
//! next word, and there is one until the store has answered.
//!
//! Of one holder one word is under way at a time, and each is the newest: so none overtakes another, and those who want
//! in meanwhile are asked for together. What the store has may also be lost, or be taken for that of a dead node: after
//! an interruption, under another name of this node, and once in a long while, all is said again.

use std::{collections::HashMap, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::{
    runtime::Handle,
    sync::{Semaphore, oneshot},
    time::{Instant, MissedTickBehavior, interval, sleep},
};

use crate::store::{Holder, Readiness, SharedStore, StoreError};

/// Words under way at once. More would fill the queue that the rooms' calls wait in.
const AT_ONCE: usize = 256;
/// The wait after the first failure, and the longest.
const RETRY: Duration = Duration::from_millis(250);
const LONGEST_RETRY: Duration = Duration::from_secs(2);
/// How often the store is looked at.
const POLL: Duration = Duration::from_millis(250);
/// The store, or this process, was away for longer than this: others may have taken what was counted for a dead node's.
/// Shorter than any lease.
const AWAY: Duration = Duration::from_secs(1);
/// How often all is said again although nothing has happened: the store keeps it for seven days.
const AGAIN: Duration = Duration::from_secs(24 * 3600);

/// Limits of connections.
#[derive(Debug, Clone, Copy, Default)]
pub struct MostConnections {
    /// Of one user, over all nodes; 0: any number.
    pub user: u64,
    /// From one address, over all nodes; 0: any number.
    pub address: u64,
}

impl MostConnections {
    /// How many a holder may have; 0: any number.
    pub fn of(&self, holder: &Holder) -> u64 {
        match holder {
            Holder::User(_) => self.user,
            Holder::Address(_) => self.address,
        }
    }

    /// Whether there is any limit.
    pub fn any(&self) -> bool {
        self.user > 0 || self.address > 0
    }
}

/// See the module.
pub struct Connections {
    most: MostConnections,
    store: SharedStore,
    holders: Mutex<HashMap<Holder, Count>>,
    turns: Semaphore,
}

/// What is known of one holder.
#[derive(Default)]
struct Count {
    /// Connections that have a place.
    here: u64,
    /// Those who want one.
    wishes: Vec<Wish>,
    /// What the store has may be another number.
    stale: bool,
    /// The store is being told.
    writing: bool,
    /// Why that has failed, until it has not.
    trouble: Option<StoreError>,
}

type Wish = oneshot::Sender<Result<Option<Place>, StoreError>>;

/// A connection that counts, as long as this is there.
pub struct Place {
    connections: Arc<Connections>,
    holder: Holder,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut holders = self.connections.holders.lock();
        if let Some(count) = holders.get_mut(&self.holder) {
            count.here = count.here.saturating_sub(1);
            count.stale = true;
            self.connections.tell(&self.holder, count);
        }
    }
}

impl Connections {
    /// Nobody is here.
    pub fn new(most: MostConnections, store: SharedStore) -> Arc<Self> {
        Arc::new(Self {
            most,
            store,
            holders: Mutex::default(),
            turns: Semaphore::new(AT_ONCE),
        })
    }

    /// The limits.
    pub fn most(&self) -> &MostConnections {
        &self.most
    }

    /// A place for one more connection of the holder; `None` if it has as many as it may.
    ///
    /// # Errors
    /// The store does not say. It is not counted.
    pub async fn enter(self: &Arc<Self>, holder: &Holder) -> Result<Option<Place>, StoreError> {
        let (wish, answer) = oneshot::channel();
        {
            let mut holders = self.holders.lock();
            let count = holders.entry(holder.clone()).or_default();
            if let Some(trouble) = &count.trouble {
                return Err(trouble.clone());
            }
            count.wishes.push(wish);
            self.tell(holder, count);
        }
        let stopped = || Err(StoreError::unavailable("the gateway is stopping"));
        answer.await.unwrap_or_else(|_| stopped())
    }

    /// Whether the store has yet to be told something.
    pub fn is_telling(&self) -> bool {
        self.holders.lock().values().any(|count| count.writing)
    }

    /// Says all again whenever what was said may be lost. For ever.
    pub async fn run(self: Arc<Self>) {
        let mut turn = interval(POLL);
        turn.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut name, mut seen, mut said) = (self.store.instance(), Instant::now(), Instant::now());
        loop {
            turn.tick().await;
            if self.store.readiness() != Readiness::Ready {
                continue;
            }
            let (now, present) = (Instant::now(), self.store.instance());
            if now - seen > AWAY || now - said > AGAIN || present != name {
                self.say_all();
                said = now;
            }
            (name, seen) = (present, now);
        }
    }

    fn say_all(self: &Arc<Self>) {
        for (holder, count) in self.holders.lock().iter_mut() {
            count.stale = true;
            self.tell(holder, count);
        }
    }

    /// Sees to it that the store is told.
    fn tell(self: &Arc<Self>, holder: &Holder, count: &mut Count) {
        // Without a runtime the process ends.
        if !count.writing
            && let Ok(runtime) = Handle::try_current()
        {
            count.writing = true;
            runtime.spawn(self.clone().write(holder.clone()));
        }
    }

    /// Tells the store of one holder until there is nothing to tell.
    async fn write(self: Arc<Self>, holder: Holder) {
        let mut wait = RETRY;
        loop {
            // Never closed.
            let Ok(turn) = self.turns.acquire().await else {
                return;
            };
            let Some((here, wishes)) = self.next(&holder) else {
                return;
            };
            let (most, more) = (self.most.of(&holder), wishes.len() as u64);
            let told = self.store.users().count(&holder, here, more, most).await;
            drop(turn);
            match told {
                Ok(granted) => {
                    wait = RETRY;
                    self.granted(&holder, granted, wishes);
                }
                Err(error) => {
                    if wait == RETRY {
                        tracing::debug!(?holder, %error, "connections could not be counted; trying on");
                    }
                    self.failed(&holder, &error, wishes);
                    sleep(wait).await;
                    wait = (wait * 2).min(LONGEST_RETRY);
                }
            }
        }
    }

    /// What is to be told: how many are here, and who wants in. `None` if nothing is; then nobody tells any more.
    fn next(&self, holder: &Holder) -> Option<(u64, Vec<Wish>)> {
        let mut holders = self.holders.lock();
        let count = holders.get_mut(holder)?;
        if count.stale || !count.wishes.is_empty() {
            count.stale = false;
            return Some((count.here, std::mem::take(&mut count.wishes)));
        }
        count.writing = false;
        if count.here == 0 {
            holders.remove(holder);
        }
        None
    }

    fn granted(self: &Arc<Self>, holder: &Holder, granted: u64, wishes: Vec<Wish>) {
        let granted = usize::try_from(granted).unwrap_or(usize::MAX).min(wishes.len());
        if let Some(count) = self.holders.lock().get_mut(holder) {
            count.trouble = None;
            count.here += granted as u64;
        }
        for (number, wish) in wishes.into_iter().enumerate() {
            let place = (number < granted).then(|| Place {
                connections: self.clone(),
                holder: holder.clone(),
            });
            // The place of one that has gone meanwhile goes with it.
            let _ = wish.send(Ok(place));
        }
    }

    /// It may have been written all the same: what is here is said until there is an answer.
    fn failed(&self, holder: &Holder, error: &StoreError, mut wishes: Vec<Wish>) {
        if let Some(count) = self.holders.lock().get_mut(holder) {
            count.stale = true;
            count.trouble = Some(error.clone());
            wishes.append(&mut count.wishes);
        }
        for wish in wishes {
            let _ = wish.send(Err(error.clone()));
        }
    }
}
