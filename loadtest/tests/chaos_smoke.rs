//! The short form of the chaos runs: real gateways and a real Redis are killed, replies are cut, and nothing is lost or
//! done twice; and a checker that could not find a fault would be found out.
//!
//! The gateway is that of `bench_smoke`; `redis-server` must be installed.

mod support;

use std::{path::Path, process::Command};

use support::gateway;

/// Runs `chaos` with histories in a place of its own; its output and exit code.
fn chaos(name: &str, args: &[&str]) -> (String, Option<i32>) {
    let output = Command::new(env!("CARGO_BIN_EXE_roomgate-loadtest"))
        .args(["chaos", "--seed", "1", "--slack", "5", "--reports"])
        .arg(Path::new(env!("CARGO_TARGET_TMPDIR")).join("chaos").join(name))
        .arg("--gateway")
        .arg(gateway())
        .args(args)
        .output()
        .expect("the runner can be run");
    let text = format!(
        "{}\n{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    (text, output.status.code())
}

#[test]
fn nothing_is_lost_and_nothing_is_done_twice() {
    let scenarios = "kill-gateways,redis-restart-always,reply-cut";
    let size = ["--clients", "40", "--rooms", "6", "--seconds", "4", "--rate", "1"];
    let (text, code) = chaos("faults", &[&["--scenario", scenarios][..], &size].concat());
    assert_eq!(code, Some(0), "{text}");
    for scenario in scenarios.split(',') {
        assert!(text.contains(&format!("{scenario} seed 1: passed")), "{text}");
    }
}

/// A gateway dies for good; everything is found and told within a few seconds. With `more` settings besides.
fn node_dies(name: &str, more: &[&str]) -> (String, Option<i32>) {
    let mut args = vec!["--scenario", "node-dies", "--short", "--seconds", "1"];
    let quick = [
        "NODE_LEASE_SECONDS=4",
        "PRESENCE_GRACE_SECONDS=2",
        "SWEEP_INTERVAL_SECONDS=1",
    ];
    for setting in quick.iter().chain(more) {
        args.extend(["--set", setting]);
    }
    chaos(name, &args)
}

#[test]
fn a_node_that_dies_is_told_of_once() {
    let (text, code) = node_dies("node-dies", &[]);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("node-dies seed 1: passed"), "{text}");
}

#[test]
fn a_death_that_nobody_is_told_of_is_found() {
    // A room that only counts says of nobody that it is gone.
    let (text, code) = node_dies("node-dies-silent", &["PRESENCE_MODE=count"]);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("VIOLATION no goodbye: "), "{text}");
}

/// One delivery in 10,000 is recorded wrongly; of the rules, one of `found` says so.
fn planted(plant: &str, found: &[&str]) {
    let size = ["--clients", "40", "--rooms", "4", "--seconds", "1", "--rate", "5"];
    let (text, code) = chaos(
        plant,
        &[&["--scenario", "calm", "--plant", plant][..], &size].concat(),
    );
    assert_eq!(code, Some(1), "{text}");
    for rule in found {
        assert!(
            text.contains(&format!("VIOLATION {rule}: ")),
            "no {rule:?} in {text}"
        );
    }
}

#[test]
fn planted_faults_are_found() {
    planted("drop", &["hole"]);
    planted("double", &["twice or out of order"]);
    planted("swap", &["hole", "twice or out of order"]);
}

#[test]
fn what_is_no_scenario_or_no_run_is_refused() {
    let (text, code) = chaos("none", &["--scenario", "no-such-thing"]);
    assert_eq!(code, Some(2), "{text}");
    assert!(
        text.contains("`no-such-thing`") && text.contains("--list"),
        "{text}"
    );
    let output = Command::new(env!("CARGO_BIN_EXE_roomgate-loadtest"))
        .args(["check", env!("CARGO_TARGET_TMPDIR")])
        .output()
        .expect("the checker can be run");
    assert_eq!(output.status.code(), Some(2));
}
