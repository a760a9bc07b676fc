//! Why a run ended early, and the wish of the person at the keyboard that it should.

use std::{
    io,
    sync::atomic::{AtomicBool, Ordering},
};

/// Why a run could not be made or finished.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The operating system refused something.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// A process could not be started, or did not become ready.
    #[error("{0}")]
    Start(String),
    /// Something took longer than it may.
    #[error("too slow: {0}")]
    Slow(String),
    /// A server did what it must not.
    #[error("{0}")]
    Wrong(String),
    /// What was asked for on the command line cannot be done.
    #[error("{0}")]
    Usage(String),
    /// Ctrl-C or SIGTERM.
    #[error("interrupted")]
    Interrupted,
}

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// From here on Ctrl-C and SIGTERM end a run by [`Failure::Interrupted`], so that the processes it started are ended.
///
/// # Errors
/// Another handler is in place.
pub fn catch_interrupts() -> Result<(), Failure> {
    ctrlc::set_handler(|| INTERRUPTED.store(true, Ordering::Relaxed))
        .map_err(|error| Failure::Io(io::Error::other(error)))
}

/// # Errors
/// [`Failure::Interrupted`] after Ctrl-C or SIGTERM.
pub fn check_interrupt() -> Result<(), Failure> {
    if INTERRUPTED.load(Ordering::Relaxed) {
        Err(Failure::Interrupted)
    } else {
        Ok(())
    }
}
