//! The page in a real browser, on two gateways over Redis. Needs Node and Chromium; without them it says so and passes,
//! unless `CI` is set.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::{
    path::Path,
    process::{Command, Stdio},
};

use support::{
    cluster::{Cluster, Store},
    process::Gateway,
};

/// One browser at a time: two would slow each other down past their deadlines.
static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

#[expect(clippy::disallowed_methods, reason = "a test's own switch, not a setting")]
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// What is missing on this machine.
fn missing(folder: &Path, chromium: &str) -> Option<String> {
    let answers = |program: &str| {
        let run = Command::new(program)
            .arg("--version")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        run.is_ok_and(|status| status.success())
    };
    if !answers("node") {
        return Some("node".to_owned());
    }
    if !answers(chromium) {
        return Some(chromium.to_owned());
    }
    (!folder.join("node_modules").is_dir()).then(|| "the test's Node packages".to_owned())
}

/// Runs these files of tests against two gateways with these settings.
async fn run(files: &'static [&'static str], envs: &[(&str, &str)]) {
    let _turn = TURN.lock().await;
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/browser");
    let chromium = variable("CHROMIUM").unwrap_or_else(|| "/usr/bin/chromium".to_owned());
    if let Some(missing) = missing(&folder, &chromium) {
        assert!(
            variable("CI").is_none(),
            "{missing} is missing: `make deps` installs it"
        );
        eprintln!("SKIP: {missing} is missing: `make deps` installs it");
        return;
    }
    let cluster = Cluster::start(Store::Redis, 2, envs).await;
    let of_each = |what: fn(&Gateway) -> String| -> String {
        let all: Vec<String> = cluster.gateways.iter().map(what).collect();
        all.join(",")
    };
    let urls = of_each(|gateway| format!("http://{}", gateway.addr));
    let pids = of_each(|gateway| gateway.pid().to_string());
    let passed = tokio::task::spawn_blocking(move || {
        files.iter().all(|file| {
            let run = Command::new("node")
                .args(["--test", file])
                .current_dir(&folder)
                .env("ROOMGATE_URLS", &urls)
                .env("ROOMGATE_PIDS", &pids)
                .env("ROOMGATE_SECRET", support::tokens::SECRET)
                .env("CHROMIUM", &chromium)
                .status();
            run.unwrap().success()
        })
    });
    assert!(passed.await.unwrap(), "the page's tests failed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_works_in_a_browser() {
    run(&["page.test.mjs", "map.test.mjs", "messages.test.mjs"], &[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_shows_what_moderators_do() {
    let tokens = [("AUTH_MODE", "jwt"), ("JWT_SECRET", support::tokens::SECRET)];
    run(&["moderation.test.mjs"], &tokens).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_tells_the_truth_of_those_who_are_lost() {
    // So short that a test can wait for them.
    let short = [
        ("PRESENCE_GRACE_SECONDS", "1"),
        ("SWEEP_INTERVAL_SECONDS", "1"),
        ("NODE_LEASE_SECONDS", "4"),
    ];
    run(&["loss.test.mjs"], &short).await;
}
