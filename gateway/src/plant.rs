//! Faults planted on purpose, in debug builds only, so that the checkers can be shown to find them.
//!
//! `ROOMGATE_PLANT=leak` gives every fiftieth payload of a room to the members of another room as well.

use std::sync::{
    LazyLock,
    atomic::{AtomicU64, Ordering},
};

/// Whether this payload is to leak.
pub fn leaks() -> bool {
    static LEAK: LazyLock<bool> = LazyLock::new(|| {
        #[expect(
            clippy::disallowed_methods,
            reason = "no setting: a release build does not know it"
        )]
        let plant = std::env::var("ROOMGATE_PLANT");
        plant.is_ok_and(|plant| plant == "leak")
    });
    static COUNT: AtomicU64 = AtomicU64::new(0);
    *LEAK && COUNT.fetch_add(1, Ordering::Relaxed) % 50 == 49
}
