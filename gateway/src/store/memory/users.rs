//! Users of one process.

use std::{collections::HashMap, time::Duration};

use parking_lot::Mutex;
use roomgate_shared::{
    ids::UserId,
    protocol::{Lane, config::Rate},
};

use super::MemoryStore;
use crate::{
    store::{
        BoxFuture, Control, Holder, OperatorCommand, REVOKED_FOR, Spent, Standing, Store as _, StoreError,
        Users,
    },
    tidy::Tidy,
};

/// See the module. Times are Unix ms.
#[derive(Default)]
pub(super) struct KnownUsers {
    budgets: Mutex<Budgets>,
    /// Since when a user's tokens are revoked, and until when that is known.
    revoked: Mutex<HashMap<UserId, (u64, u64)>>,
    tokens: Mutex<HashMap<Box<str>, u64>>,
    /// Until when.
    blocked: Mutex<HashMap<UserId, u64>>,
}

#[derive(Default)]
struct Budgets {
    by_key: HashMap<(UserId, Lane), Budget>,
    tidy: Tidy<MANY_BUDGETS>,
}

/// What was left at a time, and when it is full again, at the rate of its own lane.
struct Budget {
    tokens: f64,
    at: u64,
    full: u64,
}

/// Budgets that are known before those that are full again are first forgotten.
const MANY_BUDGETS: usize = 10_000;

impl Users for MemoryStore {
    fn spend<'a>(
        &'a self,
        user: &'a UserId,
        lane: Lane,
        want: u64,
        rate: Rate,
    ) -> BoxFuture<'a, Result<Spent, StoreError>> {
        let now = self.now_ms();
        let mut budgets = self.users.budgets.lock();
        let Budgets { by_key, tidy } = &mut *budgets;
        tidy.tidy(by_key, |budget| budget.full > now);
        let key = (user.clone(), lane);
        let tokens = by_key.get(&key).map_or(rate.burst, |budget| {
            let since = now.saturating_sub(budget.at) as f64;
            (budget.tokens + since * rate.per_second / 1e3).min(rate.burst)
        });
        let granted = want.min(tokens as u64);
        let left = tokens - granted as f64;
        let refill = ((rate.burst - left) * 1e3 / rate.per_second).ceil();
        let budget = Budget {
            tokens: left,
            at: now,
            full: now + refill as u64,
        };
        by_key.insert(key, budget);
        let wait = ((1.0 - tokens) * 1e3 / rate.per_second).ceil() as u64;
        let retry_ms = if granted > 0 { 0 } else { wait };
        Box::pin(async move { Ok(Spent { granted, retry_ms }) })
    }

    /// There is no other node: what is here is all there is.
    fn count<'a>(
        &'a self,
        _: &'a Holder,
        here: u64,
        more: u64,
        most: u64,
    ) -> BoxFuture<'a, Result<u64, StoreError>> {
        Box::pin(async move { Ok(more.min(most.saturating_sub(here))) })
    }

    fn standing<'a>(
        &'a self,
        user: &'a UserId,
        token: Option<&'a str>,
    ) -> BoxFuture<'a, Result<Standing, StoreError>> {
        let (now, users) = (self.now_ms(), &self.users);
        let revoked = users.revoked.lock().get(user).copied();
        let revoked = revoked.filter(|(_, until)| *until > now);
        let standing = Standing {
            revoked_before: revoked.map_or(0, |(before, _)| before),
            token_is_revoked: token
                .and_then(|token| users.tokens.lock().get(token).copied())
                .is_some_and(|until| until > now),
            is_blocked: users.blocked.lock().get(user).is_some_and(|until| *until > now),
        };
        Box::pin(async move { Ok(standing) })
    }

    fn command<'a>(
        &'a self,
        what: OperatorCommand,
        lasting: Option<Duration>,
    ) -> BoxFuture<'a, Result<(), StoreError>> {
        let (now, users) = (self.now_ms(), &self.users);
        let ms = |duration: Duration| duration.as_millis() as u64;
        let known_until = now + ms(REVOKED_FOR);
        let control = match what {
            OperatorCommand::Revoke(user) => {
                let mut revoked = users.revoked.lock();
                revoked.retain(|_, (_, until)| *until > now);
                revoked.insert(user.clone(), (now, known_until));
                Some(Control::Revoked { user, before: now })
            }
            OperatorCommand::RevokeToken(id) => {
                let mut tokens = users.tokens.lock();
                tokens.retain(|_, until| *until > now);
                tokens.insert(id.clone(), known_until);
                Some(Control::TokenRevoked(id))
            }
            OperatorCommand::Block(user) => {
                let until = lasting.map_or(u64::MAX, |lasting| now.saturating_add(ms(lasting)));
                let mut blocked = users.blocked.lock();
                blocked.retain(|_, until| *until > now);
                blocked.insert(user.clone(), until);
                Some(Control::Blocked(user))
            }
            OperatorCommand::Unblock(user) => {
                users.blocked.lock().remove(&user);
                None
            }
            OperatorCommand::Disconnect(user) => Some(Control::Disconnect(user)),
        };
        if let Some(control) = control {
            self.sink.control(control);
        }
        Box::pin(async { Ok(()) })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;

    use super::*;
    use crate::store::{EventSink, StoreLimits};

    struct Nobody;

    impl EventSink for Nobody {
        fn payload(&self, _: &str, _: Bytes) {}
        fn interrupted(&self) {}
    }

    fn store() -> Arc<MemoryStore> {
        MemoryStore::new(StoreLimits::default(), Arc::new(Nobody))
    }

    fn user(number: usize) -> UserId {
        UserId::new(format!("u{number}")).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_budget_is_forgotten_when_it_is_full_by_its_own_rate() {
        let store = store();
        let rate = |per_second, burst| Rate { per_second, burst };
        let (slow, fast) = (rate(0.1, 5.0), rate(20.0, 40.0));
        let spend = async |number, lane, rate| store.spend(&user(number), lane, 5, rate).await.unwrap();
        assert_eq!(spend(0, Lane::Joins, slow).await.granted, 5);
        for number in 1..MANY_BUDGETS {
            assert_eq!(spend(number, Lane::Messages, fast).await.granted, 5);
        }
        tokio::time::advance(Duration::from_secs(5)).await;
        // Looks through all: those of the fast lane are full again.
        spend(0, Lane::Messages, fast).await;
        assert_eq!(store.users.budgets.lock().by_key.len(), 2);
        let spent = spend(0, Lane::Joins, slow).await;
        assert_eq!((spent.granted, spent.retry_ms), (0, 5_000));
    }

    #[tokio::test(start_paused = true)]
    async fn blocks_that_have_ended_are_forgotten() {
        let store = store();
        let block = async |number, lasting: Option<u64>| {
            let lasting = lasting.map(Duration::from_secs);
            store
                .command(OperatorCommand::Block(user(number)), lasting)
                .await
                .unwrap();
        };
        block(1, Some(1)).await;
        block(2, Some(60)).await;
        block(3, None).await;
        tokio::time::advance(Duration::from_secs(2)).await;
        block(4, Some(u64::MAX)).await;
        let mut blocked: Vec<UserId> = store.users.blocked.lock().keys().cloned().collect();
        blocked.sort();
        assert_eq!(blocked, [2, 3, 4].map(user));
    }
}
