//! The benchmark runs from end to end against a real gateway, and finds nothing lost.
//!
//! The gateway is the one that `ROOMGATE_BIN` names, else the one built into the same target directory as this test:
//! `cargo build -p roomgate` first. `redis-server` must be installed for what needs two gateways.

mod support;

use std::{path::Path, process::Command};

use support::gateway;

const BENCH: &str = env!("CARGO_BIN_EXE_roomgate-loadtest");

/// Runs `bench --quick` with reports in a place of its own; its output and whether it succeeded.
fn quick(store: &str, names: &[&str]) -> (String, bool) {
    let reports = Path::new(env!("CARGO_TARGET_TMPDIR"))
        .join("bench-smoke")
        .join(store);
    let output = Command::new(BENCH)
        .args(["bench", "--quick", "--store", store, "--reports"])
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
    let (text, passed) = quick(
        "memory",
        &[
            "fanout-10w-memory",
            "fanout-small-memory",
            "latency-memory",
            "commands",
        ],
    );
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
fn positions_reach_everyone_and_a_large_room_only_counts() {
    let (text, passed) = quick("redis", &["moves", "large-room"]);
    assert!(passed, "{text}");
    for expected in [
        "## Moves",
        "## A large room",
        "writes of positions",
        "a join, large : small, gateways' CPU",
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
