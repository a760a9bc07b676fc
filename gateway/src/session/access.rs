//! Who the connection is: the command `auth`, the end of a token, what is forbidden.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use roomgate_shared::{
    ids::{CommandId, RoomId},
    protocol::{CloseCode, CommandType, ErrorCode, Permission, event},
};
use tokio::time::Instant;

use super::{Asked, Ends, Session};
use crate::{
    auth::{
        Authenticator, Identity,
        token::{Token, TokenError},
    },
    hub::{Closing, text_frame},
    metrics::metrics,
    rooms::{Origin, Work},
    store::{Op, Refusal},
};

/// How long before its end a token is told to end.
const TOLD_BEFORE_MS: u64 = 60_000;

impl Session {
    /// The connection goes by this identity from now on.
    pub(super) fn take_over(&mut self, identity: Identity) {
        self.access.grants = identity.grants;
        self.access.ends = match identity.token {
            None => Ends::Never,
            Some(held) => {
                self.client.hold_token(held.issued, held.id);
                let expires = held.expires;
                Ends::Token { expires, told: false }
            }
        };
        self.access.alarm = None;
        // Tells at once what little is left, and when to look next. It has not ended: it was just checked.
        if let Ok(at) = self.due(Instant::now()) {
            self.access.alarm = at;
        }
    }

    /// A time at which [`Session::due`] is to be asked, if it has changed.
    pub fn take_alarm(&mut self) -> Option<Instant> {
        self.access.alarm.take()
    }

    /// Does what is due at `now`, and says when something is due next.
    ///
    /// # Errors
    /// The connection is to be closed so.
    pub fn due(&mut self, now: Instant) -> Result<Option<Instant>, Closing> {
        match self.access.ends {
            Ends::Never => Ok(None),
            Ends::Unknown { by } if now < by => Ok(Some(by)),
            Ends::Unknown { .. } => Err(CloseCode::NotAuthenticated.into()),
            Ends::Token { expires, told } => {
                let time = self.context.store.now_ms();
                if time >= expires {
                    return Err(CloseCode::TokenExpired.into());
                }
                let left = expires - time;
                if left > TOLD_BEFORE_MS {
                    return Ok(Some(now + Duration::from_millis(left - TOLD_BEFORE_MS)));
                }
                if !told {
                    self.access.ends = Ends::Token { expires, told: true };
                    self.client
                        .outbox
                        .push_answer(text_frame(&event::token_expiring_text(expires)));
                }
                Ok(Some(now + Duration::from_millis(left)))
            }
        }
    }

    /// `auth`: who the connection is, or a new token for who it is already.
    pub(super) fn authenticate(
        &mut self,
        id: Option<&CommandId>,
        token: &str,
        closing: &mut Option<Closing>,
    ) {
        let context = self.context.clone();
        let Authenticator::Token(verifier) = &context.auth else {
            // There is nothing to check, and nothing that ends.
            return self.acknowledge_auth(id, "null");
        };
        match verifier.verify(token, context.store.now_ms()) {
            Err(error @ (TokenError::UnknownKey | TokenError::NoKeys)) => {
                self.ask_for_keys(id, token, &error)
            }
            verified => *closing = self.authenticated(id, verified),
        }
    }

    /// The token's key is not known: the keys are fetched, and until then the connection is not read.
    fn ask_for_keys(&mut self, id: Option<&CommandId>, token: &str, error: &TokenError) {
        if self.access.asked.is_some() {
            return self.refuse_for_now(id, &error.to_string());
        }
        let fresh = Arc::new(AtomicBool::new(false));
        self.access.asked = Some(Box::new(Asked {
            id: id.cloned(),
            token: token.into(),
            fresh: fresh.clone(),
        }));
        self.client.hold();
        let (context, client) = (self.context.clone(), self.client.clone());
        tokio::spawn(async move {
            if let Authenticator::Token(verifier) = &context.auth
                && let Some(jwks) = verifier.jwks()
            {
                fresh.store(jwks.refresh().await, Ordering::Relaxed);
            }
            client.release();
        });
    }

    /// Looks again at a token whose key was not known, if the keys have been fetched.
    pub(super) fn answer_asked(&mut self) {
        if self.access.asked.is_none() || !self.client.may_read() {
            return;
        }
        let context = self.context.clone();
        let (Some(asked), Authenticator::Token(verifier)) = (self.access.asked.take(), &context.auth) else {
            return;
        };
        let id = asked.id.as_ref();
        match verifier.verify(&asked.token, context.store.now_ms()) {
            Err(error @ TokenError::NoKeys) => self.refuse_for_now(id, &error.to_string()),
            Err(error @ TokenError::UnknownKey) if !asked.fresh.load(Ordering::Relaxed) => {
                self.refuse_for_now(id, &error.to_string());
            }
            verified => {
                if let Some(closing) = self.authenticated(id, verified) {
                    self.client.outbox.close(closing);
                }
            }
        }
    }

    pub(super) fn refuse_for_now(&self, id: Option<&CommandId>, why: &str) {
        let later = Refusal {
            retry_ms: Some(1_000),
            ..Refusal::new(ErrorCode::Unavailable, why.to_owned())
        };
        self.refuse_in(id, None, None, &later);
    }

    /// What comes of an `auth`; how the connection is to be closed, if it is.
    fn authenticated(
        &mut self,
        id: Option<&CommandId>,
        verified: Result<Token, TokenError>,
    ) -> Option<Closing> {
        let unknown = matches!(self.access.ends, Ends::Unknown { .. });
        let token = match verified {
            Ok(token) => token,
            Err(error) => {
                metrics().tokens_refused.increment(1);
                self.refuse(id, None, ErrorCode::Unauthenticated, &error.to_string());
                return unknown.then(|| CloseCode::NotAuthenticated.into());
            }
        };
        if !unknown && token.user != *self.client.user() {
            let message = "the token is another user's; the one before stays";
            self.refuse(id, None, ErrorCode::Unauthenticated, message);
            return None;
        }
        let expires = token.expires;
        let identity = Identity::from(token);
        if unknown {
            self.welcome(identity);
        } else {
            self.take_over(identity);
            self.refuse_what_is_not_covered();
            self.leave_what_is_not_covered();
            if let Some(admission) = &self.admission {
                admission.ask();
            }
        }
        self.acknowledge_auth(id, &expires.to_string());
        None
    }

    fn acknowledge_auth(&self, id: Option<&CommandId>, expires: &str) {
        if let Some(id) = id {
            let data = format!(r#"{{"expiresAt":{expires}}}"#);
            let text = event::ack_text(id, None, &data);
            self.client.outbox.push_answer(text_frame(&text));
        }
    }

    /// Commands that wait are held to the token of their turn.
    fn refuse_what_is_not_covered(&mut self) {
        for waiting in std::mem::take(&mut self.waiting) {
            match &waiting.work.origin {
                Origin::Command {
                    membership, id, kind, ..
                } if !kind.is_allowed_by(self.access.grants.of(&waiting.room)) => {
                    membership.answered(*kind);
                    self.forbid(id.as_ref(), &waiting.room, *kind);
                }
                Origin::Command { .. }
                | Origin::Gone { .. }
                | Origin::Unconfirmed { .. }
                | Origin::Resync { .. }
                | Origin::Repair(_)
                | Origin::Return { .. }
                | Origin::Positions { .. } => self.waiting.push_back(waiting),
            }
        }
    }

    /// Rooms that may not be seen any more are left, and the client is told so.
    fn leave_what_is_not_covered(&mut self) {
        for (room, membership) in &self.rooms {
            if !membership.counts() || self.access.grants.of(room).has(Permission::Join) {
                continue;
            }
            membership.end();
            let op = Op::Part {
                user: self.client.user().clone(),
                connection: self.client.id,
                leaving: true,
            };
            let origin = Origin::Gone {
                client: self.client.clone(),
                membership: membership.clone(),
            };
            self.context.rooms.submit(room, Work { op, origin });
            // It was not asked for, and does not count as that.
            metrics().error(ErrorCode::Forbidden).increment(1);
            let message = "the new token does not cover this room: you have left it";
            let text = event::error_text(None, Some(room), ErrorCode::Forbidden, message, None, None);
            self.client.outbox.push_answer(text_frame(&text));
        }
    }

    /// The token does not allow this in this room.
    pub(super) fn forbid(&self, id: Option<&CommandId>, room: &RoomId, kind: CommandType) {
        metrics().scope_mismatches.increment(1);
        let needed = kind.permission().map_or("", Permission::as_str);
        tracing::info!(
            connection = %self.client.id,
            user = %self.client.user(),
            %room,
            command = kind.as_str(),
            needed,
            "a token does not cover what was asked"
        );
        let message = format!("this needs the permission {needed} in this room");
        self.refuse(id, Some(room), ErrorCode::Forbidden, &message);
    }
}
