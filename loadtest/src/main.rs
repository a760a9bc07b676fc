//! Loads for Roomgate.
fn main() {}
