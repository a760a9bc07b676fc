//! What two programs of Roomgate must agree on, free of I/O.
//!
//! - [`ids`]: identifiers, checked once where they enter.
//! - [`protocol`]: commands, events, error and close codes, and their JSON form.
//! - [`keys`]: every Redis key and channel.

pub mod ids;
pub mod keys;
pub mod protocol;
