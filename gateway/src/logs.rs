//! Structured logs on standard error.

use tracing_subscriber::{EnvFilter, filter::LevelFilter};

use crate::settings::{LogFormat, LogLevel, LogSettings};

/// Installs the subscriber. Called once, by `main`.
pub fn install(settings: &LogSettings) {
    let level = match settings.log_level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    // fred logs each attempt to reconnect; the store says the same in its own words, once.
    let filter = EnvFilter::default()
        .add_directive(level.into())
        .add_directive("fred=error".parse().unwrap_or_else(|_| LevelFilter::ERROR.into()));
    let builder = tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_env_filter(filter);
    match settings.log_format {
        LogFormat::Text => builder
            .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
            .init(),
        LogFormat::Json => builder.json().flatten_event(true).init(),
    }
}
