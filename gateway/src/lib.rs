//! The gateway of Roomgate.

pub mod store;
