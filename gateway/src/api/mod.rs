//! The HTTP API, under `/api/v1`.
//!
//! | file | subject |
//! |---|---|
//! | [`access`] | who may ask what: keys, tokens |
//! | [`users`] | what an operator says of users |

pub mod access;
mod users;

use std::sync::Arc;

use axum::{
    Json, Router,
    http::StatusCode,
    middleware,
    response::{IntoResponse, Response},
};
use serde_json::json;

use self::access::Access;
use crate::session::SessionContext;

/// What the routes share.
#[derive(Clone)]
pub struct Api {
    /// What sessions share, the store among it.
    pub sessions: Arc<SessionContext>,
    /// Who may ask.
    pub access: Arc<Access>,
}

/// The routes.
pub fn router(api: Api) -> Router {
    let admin = middleware::from_fn_with_state(api.clone(), access::admins_only);
    Router::new()
        .nest("/api/v1/users/{user}", users::router().route_layer(admin))
        .with_state(api)
}

/// An answer that is none: a code, and a message for people.
pub(crate) fn error(status: StatusCode, code: &str, message: impl Into<String>) -> Response {
    let message: String = message.into();
    let body = Json(json!({"error": {"code": code, "message": message}}));
    (status, body).into_response()
}
