//! Who may ask the HTTP API what: a key of `API_KEYS` may everything, a token what its claim `api` says.

use std::fmt;

use axum::{
    extract::{Request, State},
    http::{HeaderValue, StatusCode, header},
    middleware::Next,
    response::Response,
};
use roomgate_shared::ids::UserId;
use subtle::{ConditionallySelectable as _, ConstantTimeEq as _};

use super::{Api, error};
use crate::{
    auth::{Authenticator, token::ApiAccess},
    settings::Secret,
};

/// See the module.
pub struct Access {
    keys: Vec<Secret>,
}

impl Access {
    /// Lets these keys in.
    pub fn new(keys: Vec<Secret>) -> Self {
        Self { keys }
    }

    /// Which of the keys it is, counted from 1. Takes as long for any text of one length.
    fn which(&self, text: &str) -> Option<u32> {
        let mut which = 0_u32;
        for (number, key) in (1..).zip(&self.keys) {
            which.conditional_assign(&number, key.expose().as_bytes().ct_eq(text.as_bytes()));
        }
        (which > 0).then_some(which)
    }
}

/// Who asks, for the log: the key itself is never in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Asker {
    /// The key of this place in `API_KEYS`.
    Key(u32),
    /// The owner of a token.
    User(UserId),
}

impl fmt::Display for Asker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Asker::Key(number) => write!(f, "key {number} of API_KEYS"),
            Asker::User(user) => write!(f, "user {user}"),
        }
    }
}

/// Lets those through who may do everything.
pub(super) async fn admins_only(State(api): State<Api>, mut request: Request, next: Next) -> Response {
    // Not the request itself: its body cannot be waited beside.
    let value = request.headers().get(header::AUTHORIZATION).cloned();
    match may(&api, value, ApiAccess::Admin).await {
        Ok(asker) => {
            request.extensions_mut().insert(asker);
            next.run(request).await
        }
        Err(refused) => *refused,
    }
}

async fn may(api: &Api, value: Option<HeaderValue>, needed: ApiAccess) -> Result<Asker, Box<Response>> {
    let unauthenticated = |message: &str| {
        let mut answer = error(StatusCode::UNAUTHORIZED, "unauthenticated", message);
        let scheme = HeaderValue::from_static("Bearer");
        answer.headers_mut().insert(header::WWW_AUTHENTICATE, scheme);
        Box::new(answer)
    };
    let bearer = value
        .as_ref()
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map(|(_, bearer)| bearer.trim());
    let Some(bearer) = bearer else {
        return Err(unauthenticated(
            "Authorization: Bearer with a key of API_KEYS, or a token",
        ));
    };
    if let Some(number) = api.access.which(bearer) {
        return Ok(Asker::Key(number));
    }
    let sessions = &api.sessions;
    if matches!(sessions.auth, Authenticator::Anonymous) {
        return Err(unauthenticated("this is no key of API_KEYS"));
    }
    let token = sessions.auth.verify(bearer, sessions.store.now_ms()).await;
    let token = token.map_err(|error| unauthenticated(&error.to_string()))?;
    let standing = sessions
        .store
        .users()
        .standing(&token.user, token.id.as_deref())
        .await;
    let standing = standing.map_err(|_| {
        let message = "the store cannot be reached";
        Box::new(error(StatusCode::SERVICE_UNAVAILABLE, "unavailable", message))
    })?;
    if standing.is_blocked || standing.token_is_revoked || token.issued < standing.revoked_before {
        return Err(unauthenticated("the token is revoked"));
    }
    if token.api.is_some_and(|api| api >= needed) {
        Ok(Asker::User(token.user))
    } else {
        let message = "the token's claim `api` does not allow this";
        Err(Box::new(error(StatusCode::FORBIDDEN, "forbidden", message)))
    }
}
