//! `state.patch`.

use roomgate_shared::protocol::command::Fields;

use crate::{
    session::Session,
    store::{CommandKey, Op},
};

pub(super) fn patch(
    session: &Session,
    key: Option<CommandKey>,
    set: Fields,
    remove: Vec<String>,
    increment: Vec<(String, f64)>,
    if_version: Option<u64>,
) -> Op {
    Op::StatePatch {
        by: session.client.user().clone(),
        key,
        set,
        remove,
        increment,
        if_version,
    }
}
