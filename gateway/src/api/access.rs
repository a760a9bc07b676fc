//! Who may ask the HTTP API what: a key of `API_KEYS` may everything, a token what its claim `api` says.

use axum::{
    extract::{Request, State},
    http::{HeaderValue, StatusCode, header},
    middleware::Next,
    response::Response,
};
use subtle::{Choice, ConstantTimeEq as _};

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

    /// Whether it is one of the keys. Takes as long for any text of one length.
    fn is_key(&self, text: &str) -> bool {
        let same = |key: &Secret| key.expose().as_bytes().ct_eq(text.as_bytes());
        self.keys
            .iter()
            .fold(Choice::from(0), |any, key| any | same(key))
            .into()
    }
}

/// Lets those through who may do everything.
pub(super) async fn admins_only(State(api): State<Api>, request: Request, next: Next) -> Response {
    // Not the request itself: its body cannot be waited beside.
    let value = request.headers().get(header::AUTHORIZATION).cloned();
    match may(&api, value, ApiAccess::Admin).await {
        Ok(()) => next.run(request).await,
        Err(refused) => *refused,
    }
}

async fn may(api: &Api, value: Option<HeaderValue>, needed: ApiAccess) -> Result<(), Box<Response>> {
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
    if api.access.is_key(bearer) {
        return Ok(());
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
        Ok(())
    } else {
        let message = "the token's claim `api` does not allow this";
        Err(Box::new(error(StatusCode::FORBIDDEN, "forbidden", message)))
    }
}
