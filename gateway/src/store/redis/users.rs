//! Users over all nodes: `lua/user.lua` is the other half.

use std::{sync::Arc, time::Duration};

use fred::types::{Resp3Frame as Frame, Value};
use roomgate_shared::{
    ids::UserId,
    keys,
    protocol::{Lane, config::Rate},
};

use super::{RedisStore, calls::Command, function::LIBRARY, reply};
use crate::store::{
    BoxFuture, Control, Holder, OperatorCommand, REVOKED_FOR, Spent, Standing, StoreError, Users,
};

fn bytes(text: impl AsRef<str>) -> Value {
    Value::Bytes(bytes::Bytes::copy_from_slice(text.as_ref().as_bytes()))
}

/// A call of the function for users.
fn call(key: &str, args: &[&str]) -> Command {
    let mut all = vec![Value::Bytes(LIBRARY.user.clone()), Value::Integer(1), bytes(key)];
    all.extend(args.iter().map(bytes));
    ("FCALL", all)
}

fn key_of(holder: &Holder) -> String {
    match holder {
        Holder::User(user) => keys::user(user.as_str(), "connections"),
        Holder::Address(address) => keys::address(address),
    }
}

fn not_understood() -> StoreError {
    StoreError::Internal("an answer of the function for users is not understood".to_owned())
}

fn text(frame: Frame) -> Option<String> {
    reply::text(frame).and_then(|text| reply::owned(&text))
}

impl Users for RedisStore {
    fn spend<'a>(
        &'a self,
        user: &'a UserId,
        lane: Lane,
        want: u64,
        rate: Rate,
    ) -> BoxFuture<'a, Result<Spent, StoreError>> {
        Box::pin(async move {
            let (want, per, burst) = (
                want.to_string(),
                rate.per_second.to_string(),
                rate.burst.to_string(),
            );
            let key = keys::user(user.as_str(), "rates");
            let answer = self
                .commands
                .ask(call(&key, &["spend", lane.as_str(), &want, &per, &burst]))
                .await?;
            let items = reply::list(answer).ok_or_else(not_understood)?;
            match items
                .iter()
                .map(reply::number)
                .collect::<Option<Vec<_>>>()
                .as_deref()
            {
                Some(&[granted, retry_ms]) => Ok(Spent { granted, retry_ms }),
                _ => Err(not_understood()),
            }
        })
    }

    fn count<'a>(
        &'a self,
        holder: &'a Holder,
        here: u64,
        more: u64,
        most: u64,
    ) -> BoxFuture<'a, Result<u64, StoreError>> {
        Box::pin(async move {
            // Who wants in is not asked about where nobody does.
            let live = if more > 0 {
                self.live_instances().await?
            } else {
                Arc::default()
            };
            let numbers = [here, more, most].map(|number| number.to_string());
            let patience = self.lease.length().as_millis().to_string();
            let (instance, former) = self.lease.names();
            let mut args = vec!["count", &*instance];
            args.extend(numbers.iter().map(String::as_str));
            args.extend([&*patience, former.as_deref().unwrap_or_default()]);
            args.extend(live.iter().map(String::as_str));
            let answer = self.commands.ask(call(&key_of(holder), &args)).await?;
            reply::number(&answer).ok_or_else(not_understood)
        })
    }

    fn standing<'a>(
        &'a self,
        user: &'a UserId,
        token: Option<&'a str>,
    ) -> BoxFuture<'a, Result<Standing, StoreError>> {
        Box::pin(async move {
            let get = |key: String| ("GET", vec![bytes(key)]);
            let mut commands = vec![
                get(keys::user(user.as_str(), "revoked")),
                get(keys::user(user.as_str(), "blocked")),
            ];
            commands.extend(token.map(|token| get(keys::token(token))));
            let mut answers = Vec::new();
            for answer in self.commands.pipeline(commands).await {
                answers.push(text(answer?));
            }
            let revoked = answers.first().cloned().flatten();
            Ok(Standing {
                revoked_before: revoked.and_then(|ms| ms.parse().ok()).unwrap_or(0),
                is_blocked: answers.get(1).is_some_and(Option::is_some),
                token_is_revoked: answers.get(2).is_some_and(Option::is_some),
            })
        })
    }

    fn command<'a>(
        &'a self,
        what: OperatorCommand,
        lasting: Option<Duration>,
    ) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async move {
            let known_for = REVOKED_FOR.as_millis().to_string();
            let control = match what {
                OperatorCommand::Revoke(user) => {
                    let key = keys::user(user.as_str(), "revoked");
                    let answer = self.commands.ask(call(&key, &["revoke", &known_for])).await?;
                    let before = reply::number(&answer).ok_or_else(not_understood)?;
                    Control::Revoked { user, before }
                }
                OperatorCommand::RevokeToken(id) => {
                    let set = vec![
                        bytes(keys::token(&id)),
                        bytes("1"),
                        bytes("PX"),
                        bytes(&known_for),
                    ];
                    self.commands.ask(("SET", set)).await?;
                    Control::TokenRevoked(id)
                }
                OperatorCommand::Block(user) => {
                    let key = keys::user(user.as_str(), "blocked");
                    let ms = lasting.map(|lasting| lasting.as_millis().max(1).to_string());
                    let ms = ms.unwrap_or_default();
                    self.commands.ask(call(&key, &["block", &ms])).await?;
                    Control::Blocked(user)
                }
                OperatorCommand::Unblock(user) => {
                    let key = bytes(keys::user(user.as_str(), "blocked"));
                    self.commands.ask(("UNLINK", vec![key])).await?;
                    return Ok(());
                }
                OperatorCommand::Disconnect(user) => Control::Disconnect(user),
            };
            let publish = vec![bytes(keys::CONTROL), bytes(control.text())];
            self.commands.ask(("PUBLISH", publish)).await?;
            Ok(())
        })
    }
}
