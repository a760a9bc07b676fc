//! The command line.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use roomgate_loadtest::{attack, bare, bench};

/// Loads and benchmarks for Roomgate.
#[derive(Debug, Parser)]
#[command(name = "roomgate-loadtest", version)]
struct Cli {
    #[command(subcommand)]
    command: Sub,
}

#[derive(Debug, Subcommand)]
enum Sub {
    Bench(bench::BenchArgs),
    Attack(attack::AttackArgs),
    Bare(bare::BareArgs),
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Sub::Bench(args) => bench::run(&args),
        Sub::Attack(args) => attack::run(&args),
        Sub::Bare(args) => bare::run(&args),
    };
    outcome.unwrap_or_else(|failure| {
        eprintln!("roomgate-loadtest: {failure}");
        ExitCode::from(2)
    })
}
