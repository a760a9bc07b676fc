//! `POST /api/v1/users/{user}/…`: `revoke`, `block`, `unblock`, `disconnect`. In force on every node when it has answered;
//! connections end within a second.

use std::time::Duration;

use axum::{
    Extension, Json, Router,
    body::Bytes,
    extract::{Path, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::post,
};
use roomgate_shared::{ids::UserId, protocol::MAX_MODERATION_MS};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};

use super::{Api, access::Asker, error};
use crate::{auth::Authenticator, store::OperatorCommand};

pub(super) fn router() -> Router<Api> {
    Router::new()
        .route("/revoke", post(revoke))
        .route("/block", post(block))
        .route("/unblock", post(unblock))
        .route("/disconnect", post(disconnect))
}

#[derive(Deserialize, Default)]
struct Revoke {
    /// The id (`jti`) of one token; absent: all that were made before now.
    #[serde(default)]
    token: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
struct Block {
    /// For how long; absent: until it is ended.
    #[serde(default)]
    duration_ms: Option<u64>,
}

fn bad(message: impl Into<String>) -> Response {
    error(StatusCode::BAD_REQUEST, "bad_request", message)
}

fn user(text: &str) -> Result<UserId, Box<Response>> {
    UserId::new(text).map_err(|error| Box::new(bad(format!("user: {error}"))))
}

/// A body may be absent.
fn read<T: DeserializeOwned + Default>(body: &[u8]) -> Result<T, Box<Response>> {
    if body.is_empty() {
        return Ok(T::default());
    }
    serde_json::from_slice(body)
        .map_err(|error| Box::new(bad(format!("the body is not what is asked for: {error}"))))
}

/// Says it to every node; `answer`: what it concerns.
async fn say(
    api: &Api,
    asker: &Asker,
    what: OperatorCommand,
    lasting: Option<Duration>,
    answer: Value,
) -> Response {
    tracing::info!(%asker, ?what, "an operator has said");
    match api.sessions.store.users().command(what, lasting).await {
        Ok(()) => Json(answer).into_response(),
        Err(failure) => {
            tracing::warn!(error = %failure, "what an operator has said may not hold");
            error(
                StatusCode::SERVICE_UNAVAILABLE,
                "unavailable",
                "the store cannot be reached; try again",
            )
        }
    }
}

async fn revoke(
    State(api): State<Api>,
    Extension(asker): Extension<Asker>,
    Path(id): Path<String>,
    body: Bytes,
) -> Response {
    let (user, revoke) = match (user(&id), read::<Revoke>(&body)) {
        (Ok(user), Ok(revoke)) => (user, revoke),
        (Err(refused), _) | (_, Err(refused)) => return *refused,
    };
    if matches!(api.sessions.auth, Authenticator::Anonymous) {
        let why = "there are no tokens to revoke with AUTH_MODE=anonymous; block the user";
        return error(StatusCode::CONFLICT, "conflict", why);
    }
    match revoke.token {
        None => {
            let concerned = json!({"user": user});
            say(&api, &asker, OperatorCommand::Revoke(user), None, concerned).await
        }
        // Whose it is cannot be known from its id: the answer says that the user in the path did not matter.
        Some(token) if UserId::new(&token).is_ok() => {
            let concerned = json!({"token": token});
            let what = OperatorCommand::RevokeToken(token.into());
            say(&api, &asker, what, None, concerned).await
        }
        Some(_) => bad("token: the id (jti) of a token, 1 to 128 printable characters"),
    }
}

async fn block(
    State(api): State<Api>,
    Extension(asker): Extension<Asker>,
    Path(id): Path<String>,
    body: Bytes,
) -> Response {
    let (user, block) = match (user(&id), read::<Block>(&body)) {
        (Ok(user), Ok(block)) => (user, block),
        (Err(refused), _) | (_, Err(refused)) => return *refused,
    };
    match block.duration_ms {
        Some(ms) if !(1..=MAX_MODERATION_MS).contains(&ms) => {
            bad(format!("durationMs: an integer from 1 to {MAX_MODERATION_MS}"))
        }
        ms => {
            let lasting = ms.map(Duration::from_millis);
            say(&api, &asker, OperatorCommand::Block(user), lasting, json!({})).await
        }
    }
}

async fn unblock(
    State(api): State<Api>,
    Extension(asker): Extension<Asker>,
    Path(id): Path<String>,
) -> Response {
    match user(&id) {
        Ok(user) => say(&api, &asker, OperatorCommand::Unblock(user), None, json!({})).await,
        Err(refused) => *refused,
    }
}

async fn disconnect(
    State(api): State<Api>,
    Extension(asker): Extension<Asker>,
    Path(id): Path<String>,
) -> Response {
    match user(&id) {
        Ok(user) => say(&api, &asker, OperatorCommand::Disconnect(user), None, json!({})).await,
        Err(refused) => *refused,
    }
}
