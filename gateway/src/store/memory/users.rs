//! Users of one process.

use std::{collections::HashMap, time::Duration};

use parking_lot::Mutex;
use roomgate_shared::{
    ids::UserId,
    protocol::{Lane, config::Rate},
};

use super::MemoryStore;
use crate::store::{
    BoxFuture, Control, Holder, OperatorCommand, REVOKED_FOR, Spent, Standing, Store as _, StoreError, Users,
};

/// See the module. Times are Unix ms.
#[derive(Default)]
pub(super) struct KnownUsers {
    budgets: Mutex<HashMap<(UserId, Lane), (f64, u64)>>,
    connections: Mutex<HashMap<Holder, u64>>,
    /// Since when a user's tokens are revoked, and until when that is known.
    revoked: Mutex<HashMap<UserId, (u64, u64)>>,
    tokens: Mutex<HashMap<Box<str>, u64>>,
    /// Until when.
    blocked: Mutex<HashMap<UserId, u64>>,
}

/// Budgets that are known at most before those that are full again are forgotten.
const MOST_BUDGETS: usize = 10_000;

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
        let filled = |(tokens, at): (f64, u64)| {
            (tokens + now.saturating_sub(at) as f64 * rate.per_second / 1e3).min(rate.burst)
        };
        if budgets.len() >= MOST_BUDGETS {
            budgets.retain(|_, budget| filled(*budget) < rate.burst);
        }
        let budget = budgets.entry((user.clone(), lane)).or_insert((rate.burst, now));
        let tokens = filled(*budget);
        let granted = want.min(tokens as u64);
        *budget = (tokens - granted as f64, now);
        let wait = ((1.0 - tokens) * 1e3 / rate.per_second).ceil() as u64;
        let retry_ms = if granted > 0 { 0 } else { wait };
        Box::pin(async move { Ok(Spent { granted, retry_ms }) })
    }

    fn enter<'a>(&'a self, holder: &'a Holder, most: u64) -> BoxFuture<'a, Result<bool, StoreError>> {
        let mut connections = self.users.connections.lock();
        let count = connections.get(holder).copied().unwrap_or(0);
        let entered = count < most;
        if entered {
            connections.insert(holder.clone(), count + 1);
        }
        Box::pin(async move { Ok(entered) })
    }

    fn exit(&self, holder: &Holder) {
        let mut connections = self.users.connections.lock();
        match connections.get_mut(holder) {
            Some(count) if *count > 1 => *count -= 1,
            Some(_) => {
                connections.remove(holder);
            }
            None => {}
        }
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
                let until = lasting.map_or(u64::MAX, |lasting| now + ms(lasting));
                users.blocked.lock().insert(user.clone(), until);
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
