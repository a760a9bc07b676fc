//! `chaos`: breaks gateways, Redis and the links between them under load, and judges what the clients saw.
//!
//! The clients ([`client`], `session`, [`wire`]) are written from PROTOCOL.md and share no code with the gateway. Each
//! writes down all that it does and sees ([`history`]); [`checker`] reads that afterwards and nothing else.

pub mod audit;
pub mod checker;
mod client;
pub mod cluster;
pub mod crowd;
pub mod history;
pub mod journal;
pub mod proxy;
pub mod report;
pub mod run;
pub mod scenarios;
mod session;
pub mod wire;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::{SystemTime, UNIX_EPOCH},
};

use clap::Args;

use self::{checker::Report, history::Plant, run::Setup, scenarios::Scenario};
use crate::{
    failure::{Failure, catch_interrupts},
    process::raise_descriptor_limit,
};

/// Breaks what it starts itself (gateways, a Redis, the links between them) under load, and judges what the clients saw.
///
/// Each run starts a Redis and gateways on free loopback ports, each gateway's links to Redis going through a proxy that
/// can cut, hold or delay them. Clients join rooms, send durable commands, lose their connections, resume on another
/// gateway and send again what has no answer, as PROTOCOL.md says. Each writes down what it does and sees. When the
/// faults are over, all must come to rest at the head of each of their rooms; then the rooms are read once more from the
/// beginning, and everything is judged from what was written: nothing acknowledged may be lost, nothing done twice,
/// nothing out of order, nothing from another room; where a scenario may lose writes, whoever is concerned must have been
/// told. A run is repeated by its seed, which decides the schedule, the victims and the clients' choices.
///
/// Exits with 1 on a violation and with 2 if it could not be run.
#[derive(Debug, Args)]
pub struct ChaosArgs {
    /// A scenario (see --list), several, or `all`
    #[arg(
        long,
        value_name = "NAME",
        default_value = "kill-gateways",
        value_delimiter = ','
    )]
    scenario: Vec<String>,
    /// Print the scenarios and stop
    #[arg(long)]
    list: bool,
    /// Decides everything that is left to chance; made up and printed if not given
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Runs of each scenario, with seeds one after another
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    seeds: u64,
    /// Seconds that faults go on, in place of the scenario's own
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    seconds: Option<u64>,
    /// Clients, in place of the scenario's own
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..100_000))]
    clients: Option<u64>,
    /// Rooms, in place of the scenario's own
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..10_000))]
    rooms: Option<u64>,
    /// Commands a second of each client, in place of the scenario's own
    #[arg(long, value_name = "N")]
    rate: Option<f64>,
    /// Gateways
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u64).range(2..20))]
    gateways: u64,
    /// The short form: 60 clients, 8 rooms, 15 seconds, unless told otherwise
    #[arg(long)]
    short: bool,
    /// A setting of the gateways, in place of the scenario's own: NAME=VALUE; may be given several times
    #[arg(long, value_name = "NAME=VALUE", value_parser = setting)]
    set: Vec<(String, String)>,
    /// Multiplies every bar on a time, for machines that are slow or busy
    #[arg(long, value_name = "FACTOR", default_value_t = 1.0)]
    slack: f64,
    /// Record some deliveries wrongly: the run must then fail
    #[arg(long, value_name = "FAULT")]
    plant: Option<Plant>,
    /// With --plant: one delivery in so many
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..))]
    plant_every: u64,
    /// The gateway's binary; by default the one beside this program
    #[arg(long, env = "ROOMGATE_BIN", value_name = "PATH")]
    gateway: Option<PathBuf>,
    /// The redis-server binary
    #[arg(
        long,
        env = "REDIS_SERVER",
        value_name = "PATH",
        default_value = "redis-server"
    )]
    redis: PathBuf,
    /// Where each run's folder goes: histories, faults, audit, report, servers' logs
    #[arg(long, value_name = "DIR", default_value = "loadtest/reports/chaos")]
    reports: PathBuf,
    /// Write the table into --results
    #[arg(long)]
    write_results: bool,
    /// The file with the table
    #[arg(long, value_name = "FILE", default_value = "loadtest/RESULTS.md")]
    results: PathBuf,
}

/// Judges the run in a folder once more, from what its clients wrote down.
///
/// Exits with 1 on a violation and with 2 if the folder is none of a run.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// The run's folder
    folder: PathBuf,
}

impl ChaosArgs {
    fn scenarios(&self) -> Result<Vec<Scenario>, Failure> {
        let mut chosen = Vec::new();
        for name in &self.scenario {
            chosen.extend(scenarios::named(name)?);
        }
        for scenario in &mut chosen {
            if self.short {
                scenario.clients = scenario.clients.min(60);
                scenario.rooms = scenario.rooms.min(8);
                scenario.seconds = scenario.seconds.min(15);
                // Few clients must still do something.
                scenario.rate = scenario.rate.max(0.5);
            }
            let size = |given: Option<u64>, usual: usize| {
                given
                    .and_then(|given| usize::try_from(given).ok())
                    .unwrap_or(usual)
            };
            scenario.clients = size(self.clients, scenario.clients);
            scenario.rooms = size(self.rooms, scenario.rooms).min(scenario.clients);
            scenario.seconds = self.seconds.unwrap_or(scenario.seconds);
            scenario.rate = self.rate.unwrap_or(scenario.rate);
            if scenario.rate.partial_cmp(&0.001) != Some(std::cmp::Ordering::Greater) {
                return Err(Failure::Usage("--rate must be above 0.001".to_owned()));
            }
        }
        Ok(chosen)
    }

    fn setup(&self) -> Result<Setup, Failure> {
        let gateway = match &self.gateway {
            Some(path) => path.clone(),
            None => std::env::current_exe()?.with_file_name("roomgate"),
        };
        if !gateway.is_file() {
            return Err(Failure::Usage(format!(
                "there is no gateway at {}: run `cargo build --release -p roomgate`, or name one with --gateway",
                gateway.display()
            )));
        }
        Ok(Setup {
            gateway,
            redis: self.redis.clone(),
            gateways: usize::try_from(self.gateways).unwrap_or(3),
            slack: self.slack,
            settings: self.set.clone(),
            plant: self.plant.map(|plant| (plant, self.plant_every)),
        })
    }
}

fn setting(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("a setting is NAME=VALUE".to_owned()),
    }
}

/// Runs the subcommand.
///
/// # Errors
/// It could not be run to its end. A violation is no error but a failing exit code.
pub fn run(args: &ChaosArgs) -> Result<ExitCode, Failure> {
    if args.list {
        for scenario in scenarios::all() {
            println!("{:24} {}", scenario.name, scenario.about);
        }
        return Ok(ExitCode::SUCCESS);
    }
    let chosen = args.scenarios()?;
    let setup = args.setup()?;
    catch_interrupts()?;
    raise_descriptor_limit();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let first = args.seed.unwrap_or(now.as_secs());
    let mut reports = Vec::new();
    for seed in first..first.saturating_add(args.seeds) {
        for scenario in &chosen {
            let folder = args
                .reports
                .join(format!("{}-{}-{seed}", now.as_secs(), scenario.name));
            eprintln!(
                "{} seed {seed}: {} ({})",
                scenario.name,
                scenario.about,
                folder.display()
            );
            run::run(scenario, seed, &setup, &folder)?;
            reports.push(judge(&folder)?);
        }
    }
    println!("{}", report::table(&reports));
    if args.write_results {
        report::update(&args.results, &reports, &report::command_line())?;
        eprintln!("{} updated", args.results.display());
    }
    Ok(exit_code(&reports))
}

/// Runs `check`.
///
/// # Errors
/// The folder is none of a run.
pub fn check(args: &CheckArgs) -> Result<ExitCode, Failure> {
    let reports = [judge(&args.folder)?];
    println!("{}", report::table(&reports));
    Ok(exit_code(&reports))
}

fn judge(folder: &Path) -> Result<Report, Failure> {
    let report = checker::check(folder)?;
    let text = serde_json::to_vec_pretty(&report).map_err(std::io::Error::from)?;
    std::fs::write(folder.join("report.json"), text)?;
    eprint!("{}", report::told(&report));
    Ok(report)
}

fn exit_code(reports: &[Report]) -> ExitCode {
    match reports.iter().all(|report| report.violation_count() == 0) {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}
