//! A user's budget over all rooms and nodes. The bucket is the store's; a gateway takes a few tokens at a time, so that not
//! every command asks the store, and lets go of those that were not used within a second. Together all gateways never spend
//! more than the bucket had, and a user that says little is never held up by what was let go.

use std::{collections::HashMap, sync::Arc, time::Duration};

use parking_lot::Mutex;
use roomgate_shared::{
    ids::UserId,
    protocol::{Lane, config::Rate},
};
use tokio::time::Instant;

use crate::{
    hub::Client,
    store::{SharedStore, Spent, StoreError},
    tidy::Tidy,
};

/// How long tokens are kept that were not used.
const KEPT: Duration = Duration::from_secs(1);
/// Budgets that are known before those that have run out of time are first forgotten.
const FORGET_AT: usize = 4096;

/// Rates by lane; none for a lane without a limit.
pub type Rates = HashMap<Lane, Rate>;

/// See the module.
pub struct Budgets {
    rates: Rates,
    store: SharedStore,
    known: Mutex<AllKnown>,
}

#[derive(Default)]
struct AllKnown {
    by_key: HashMap<(UserId, Lane), Known>,
    tidy: Tidy<FORGET_AT>,
}

enum Known {
    /// So many tokens are here until then.
    Tokens(u64, Instant),
    /// There are none before then.
    None(Instant),
    /// The store is asked; these wait.
    Asking(Vec<Arc<Client>>),
}

/// Whether a command may go on.
#[derive(Debug, PartialEq, Eq)]
pub enum Payment {
    /// It may.
    Paid,
    /// The store is asked. The client is not read until it has answered.
    Pending,
    /// It may not, for so long.
    Refused(Duration),
}

impl Budgets {
    /// Budgets of these rates.
    pub fn new(rates: Rates, store: SharedStore) -> Arc<Self> {
        Arc::new(Self {
            rates,
            store,
            known: Mutex::default(),
        })
    }

    /// Takes a token of the client's user.
    pub fn pay(self: &Arc<Self>, client: &Arc<Client>, lane: Option<Lane>, now: Instant) -> Payment {
        let Some((lane, rate)) = lane.and_then(|lane| Some((lane, *self.rates.get(&lane)?))) else {
            return Payment::Paid;
        };
        let mut known = self.known.lock();
        let AllKnown { by_key: known, tidy } = &mut *known;
        tidy.tidy(known, |known| match known {
            Known::Tokens(_, until) | Known::None(until) => *until > now,
            Known::Asking(_) => true,
        });
        let key = (client.user().clone(), lane);
        match known.get_mut(&key) {
            Some(Known::Tokens(tokens, until)) if *tokens > 0 && *until > now => {
                *tokens -= 1;
                return Payment::Paid;
            }
            Some(Known::None(until)) if *until > now => return Payment::Refused(*until - now),
            Some(Known::Asking(waiting)) => {
                client.hold();
                waiting.push(client.clone());
                return Payment::Pending;
            }
            Some(Known::Tokens(..) | Known::None(_)) | None => {}
        }
        client.hold();
        known.insert(key, Known::Asking(vec![client.clone()]));
        let (budgets, user) = (self.clone(), client.user().clone());
        tokio::spawn(async move {
            let want = chunk(rate);
            let spent = budgets.store.users().spend(&user, lane, want, rate).await;
            budgets.answered(user, lane, want, spent);
        });
        Payment::Pending
    }

    fn answered(&self, user: UserId, lane: Lane, want: u64, spent: Result<Spent, StoreError>) {
        let now = Instant::now();
        let next = match spent {
            Ok(Spent { granted: 0, retry_ms }) => Known::None(now + Duration::from_millis(retry_ms.max(1))),
            Ok(Spent { granted, .. }) => Known::Tokens(granted, now + KEPT),
            // The room's own call will say that the store is away.
            Err(error) => {
                tracing::debug!(%user, %error, "a user's budget could not be asked for");
                Known::Tokens(want, now + KEPT)
            }
        };
        let before = self.known.lock().by_key.insert((user, lane), next);
        if let Some(Known::Asking(waiting)) = before {
            for client in waiting {
                client.release();
            }
        }
    }
}

/// How many tokens are taken at a time: a quarter of what a second brings, and of what there are at once.
fn chunk(rate: Rate) -> u64 {
    (rate.per_second / 4.0).min(rate.burst / 4.0).max(1.0) as u64
}

/// Reads `lane=perSecond[/burst]`, separated by commas.
///
/// # Errors
/// What is accepted.
pub fn rates(text: &str) -> Result<Rates, String> {
    let accepted = || {
        "lanes and what a second may bring, and at once after a slash, such as messages=20/40,broadcasts=10; lanes are \
         messages, state, moves, broadcasts, joins"
            .to_owned()
    };
    let mut rates = Rates::new();
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (lane, rate) = part.split_once('=').ok_or_else(accepted)?;
        let lane = Lane::parse(lane.trim()).ok_or_else(accepted)?;
        let (per_second, burst) = rate
            .split_once('/')
            .map_or((rate, None), |(per, burst)| (per, Some(burst)));
        let number = |text: &str| {
            text.trim()
                .parse::<f64>()
                .ok()
                .filter(|n| (0.01..=1e6).contains(n))
        };
        let per_second = number(per_second).ok_or_else(accepted)?;
        let burst = match burst {
            None => (2.0 * per_second).ceil(),
            Some(burst) => number(burst)
                .filter(|burst| *burst >= 1.0)
                .ok_or_else(accepted)?
                .floor(),
        };
        rates.insert(lane, Rate { per_second, burst });
    }
    Ok(rates)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_read() {
        let read = rates("messages=20/40, moves=0.5 ,").unwrap();
        let rate = |per_second, burst| Rate { per_second, burst };
        assert_eq!(read.len(), 2);
        assert_eq!(read[&Lane::Messages], rate(20.0, 40.0));
        assert_eq!(read[&Lane::Moves], rate(0.5, 1.0));
        assert!(rates("").unwrap().is_empty());
        for wrong in [
            "messages",
            "messages=",
            "messages=0",
            "posts=1",
            "messages=1/0",
            "messages=x",
        ] {
            assert!(rates(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn tokens_are_taken_a_few_at_a_time() {
        let rate = |per_second, burst| Rate { per_second, burst };
        assert_eq!(chunk(rate(0.1, 1.0)), 1);
        assert_eq!(chunk(rate(20.0, 40.0)), 5);
        assert_eq!(chunk(rate(20.0, 8.0)), 2);
        assert_eq!(chunk(rate(1000.0, 2000.0)), 250);
    }
}
