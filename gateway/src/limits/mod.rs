//! Limits of a connection and of a user. What a room demands is asked in the room's own step, by the store.
//!
//! | file | subject |
//! |---|---|
//! | [`bucket`] | a token bucket, the time handed in |
//! | [`budget`] | a user's budget over all rooms and nodes, a few tokens of which are here |
//! | [`connections`] | how many connections users and addresses have, and how the store is told |

pub mod bucket;
pub mod budget;
pub mod connections;
