//! `roomgate`: settings → app → serve → drain.

use std::process::ExitCode;

use roomgate::{
    app::{self, App},
    logs, metrics,
    settings::{Asked, Settings},
    settings_docs,
};
use tokio::signal::unix::{SignalKind, signal};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let settings = match Settings::read(std::env::args_os()) {
        Ok(Asked::Run(settings)) => settings,
        Ok(Asked::Print(text)) => {
            print!("{text}");
            return ExitCode::SUCCESS;
        }
        Err(error) => return fail(&error),
    };
    if settings.write_docs {
        return write_docs();
    }
    logs::install(&settings.logs);
    // One thread: see docs/adr/0001-one-thread-a-process.md.
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&format!("the runtime could not be started: {error}")),
    };
    match runtime.block_on(run(&settings)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&*error),
    }
}

async fn run(settings: &Settings) -> Result<(), Box<dyn std::error::Error>> {
    let node = app::node_id(settings);
    let prometheus = metrics::install(node.as_str())?;
    let app = App::new(settings, node.clone(), Some(prometheus)).await?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    // The one line on standard output: scripts read the port from it.
    println!("listening on http://{}", app.address()?);
    tracing::info!(node = %node, store = ?settings.store_kind(), "started");
    let stop = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    app.run(stop).await?;
    Ok(())
}

fn fail(error: &dyn std::fmt::Display) -> ExitCode {
    eprintln!("roomgate: {error}");
    ExitCode::FAILURE
}

fn write_docs() -> ExitCode {
    for (path, text) in settings_docs::files() {
        if let Err(error) = std::fs::write(path, text) {
            return fail(&format!("{path}: {error}; run this in the project's root"));
        }
    }
    ExitCode::SUCCESS
}
