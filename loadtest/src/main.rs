//! The command line.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use roomgate_loadtest::{attack, bare, bench, chaos};

/// Loads, benchmarks and fault runs for Roomgate.
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
    Chaos(chaos::ChaosArgs),
    Check(chaos::CheckArgs),
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Sub::Bench(args) => bench::run(&args),
        Sub::Attack(args) => attack::run(&args),
        Sub::Bare(args) => bare::run(&args),
        Sub::Chaos(args) => chaos::run(&args),
        Sub::Check(args) => chaos::check(&args),
    };
    outcome.unwrap_or_else(|failure| {
        eprintln!("roomgate-loadtest: {failure}");
        ExitCode::from(2)
    })
}
