//! The benchmark runs from end to end against a real gateway, and finds nothing lost.
//!
//! The gateway is the one that `ROOMGATE_BIN` names, else the one built into the same target directory as this test:
//! `cargo build -p roomgate` first. Redis is not needed.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

const BENCH: &str = env!("CARGO_BIN_EXE_roomgate-loadtest");

#[expect(clippy::disallowed_methods, reason = "a test has no settings of its own")]
fn gateway() -> PathBuf {
    if let Some(named) = std::env::var_os("ROOMGATE_BIN") {
        return named.into();
    }
    let built = Path::new(BENCH).with_file_name("roomgate");
    assert!(
        built.is_file(),
        "there is no gateway at {}: run `cargo build -p roomgate` (with --release if these tests run so)",
        built.display()
    );
    built
}

/// Runs `bench --quick` with reports in a place of its own; its output and whether it succeeded.
fn quick(names: &[&str]) -> (String, bool) {
    let reports = Path::new(env!("CARGO_TARGET_TMPDIR")).join("bench-smoke");
    let output = Command::new(BENCH)
        .args(["bench", "--quick", "--store", "memory", "--reports"])
        .arg(&reports)
        .arg("--gateway")
        .arg(gateway())
        .args(names)
        .output()
        .expect("the benchmark can be run");
    let text = format!(
        "{}\n{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    (text, output.status.success())
}

#[test]
fn a_quick_run_measures_and_loses_nothing() {
    let (text, passed) = quick(&[
        "fanout-10w-memory",
        "fanout-small-memory",
        "latency-memory",
        "commands",
    ]);
    assert!(passed, "{text}");
    for expected in [
        "## Fan-out",
        "## Latency",
        "## Durable commands",
        "10 writers a room, memory |",
        "p99, memory",
    ] {
        assert!(text.contains(expected), "no {expected:?} in:\n{text}");
    }
    assert!(!text.contains("PROBLEM"), "{text}");
}

#[test]
fn a_name_that_is_no_scenario_is_refused() {
    let output = Command::new(BENCH)
        .args(["bench", "no-such-thing"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        said.contains("`no-such-thing`") && said.contains("--list"),
        "{said}"
    );
}
