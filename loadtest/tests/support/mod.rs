//! Which gateway the tests run.

use std::path::{Path, PathBuf};

/// The one that `ROOMGATE_BIN` names, else the one built into the same target directory as the tests.
#[expect(clippy::disallowed_methods, reason = "a test has no settings of its own")]
pub(crate) fn gateway() -> PathBuf {
    if let Some(named) = std::env::var_os("ROOMGATE_BIN") {
        return named.into();
    }
    let built = Path::new(env!("CARGO_BIN_EXE_roomgate-loadtest")).with_file_name("roomgate");
    assert!(
        built.is_file(),
        "there is no gateway at {}: run `cargo build -p roomgate` (with --release if these tests run so)",
        built.display()
    );
    built
}
