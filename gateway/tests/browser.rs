//! The page in a real browser, on two gateways over Redis. Needs Node and Chromium; without them it says so and passes,
//! unless `CI` is set.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::{
    path::Path,
    process::{Command, Stdio},
};

use support::cluster::{Cluster, Store};

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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_works_in_a_browser() {
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
    let cluster = Cluster::start(Store::Redis, 2, &[]).await;
    let urls: Vec<String> = cluster
        .gateways
        .iter()
        .map(|gateway| format!("http://{}", gateway.addr))
        .collect();
    let (folder, urls) = (folder.clone(), urls.join(","));
    let status = tokio::task::spawn_blocking(move || {
        Command::new("node")
            .args(["--test", "page.test.mjs"])
            .current_dir(folder)
            .env("ROOMGATE_URLS", urls)
            .env("CHROMIUM", chromium)
            .status()
            .unwrap()
    });
    assert!(status.await.unwrap().success(), "the page's tests failed");
}
