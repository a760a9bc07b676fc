//! `bench`: runs scenarios in turn, several times over, and reports.

use std::{
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use clap::Args;
use serde_json::json;

use crate::{
    calibrate,
    failure::{Failure, catch_interrupts},
    process::{Program, raise_descriptor_limit},
    report::{self, Context, Row, number},
    scenarios::{self, Family, Outcome, Scenario, Setup, StoreKind},
};

/// Measures gateways that it starts itself (and a Redis of its own) and writes the figures to RESULTS.md.
///
/// Rates are per CPU second of the server (user and system time from the operating system), so that they hold on a busy
/// machine; beside them stands the rate by the clock and the ratio to a bare `write` measured just before each run. Every
/// delivery is accounted for while it measures: a hole in a room's order, a loss or a refused command fails the run.
#[derive(Debug, Args)]
pub struct BenchArgs {
    /// Scenarios or families to run (see --list); all when none is named. A name's beginning is enough
    names: Vec<String>,
    /// Print the scenarios and stop
    #[arg(long)]
    list: bool,
    /// Runs of each scenario, interleaved
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..))]
    runs: u16,
    /// Seconds of a measured window
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// Seconds of load before it
    #[arg(long, default_value_t = 1.0)]
    warmup: f64,
    /// Seconds that idle connections are watched
    #[arg(long, default_value_t = 60.0)]
    idle_seconds: f64,
    /// Idle connections to hold on one gateway (fewer where a process may not have so many descriptors)
    #[arg(long, default_value_t = 19_000)]
    connections: usize,
    /// Only this store
    #[arg(long)]
    store: Option<StoreKind>,
    /// A smoke test: one run, short windows, few connections, no report
    #[arg(long)]
    quick: bool,
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
    /// The report to update
    #[arg(long, value_name = "FILE", default_value = "loadtest/RESULTS.md")]
    results: PathBuf,
    /// Do not measure the bare server beside the gateway (--quick never does)
    #[arg(long)]
    no_bare: bool,
    /// Leave the report as it is
    #[arg(long)]
    no_report: bool,
    /// Where raw figures (JSON lines), logs and profiles go
    #[arg(long, value_name = "DIR", default_value = "loadtest/reports")]
    reports: PathBuf,
    /// Profile gateways and Redis in each measured window with `perf record -g`; slows them, so no report
    #[arg(long)]
    profile: bool,
}

const QUICK: Duration = Duration::from_millis(500);
/// Length of the calibration before each run.
const CALIBRATION: Duration = Duration::from_millis(300);

impl BenchArgs {
    fn setup(&self) -> Result<Setup, Failure> {
        let seconds = |value: f64| {
            Duration::try_from_secs_f64(value).map_err(|error| Failure::Usage(format!("{value} s: {error}")))
        };
        let gateway = match &self.gateway {
            Some(path) => path.clone(),
            None => beside_this_program()?,
        };
        if !gateway.is_file() {
            return Err(Failure::Usage(format!(
                "there is no gateway at {}: run `cargo build --release -p roomgate`, or name one with --gateway",
                gateway.display()
            )));
        }
        Ok(Setup {
            gateway: Program {
                path: gateway,
                args: Vec::new(),
            },
            redis: self.redis.clone(),
            window: if self.quick { QUICK } else { seconds(self.seconds)? },
            warmup: if self.quick {
                QUICK / 2
            } else {
                seconds(self.warmup)?
            },
            idle: if self.quick {
                QUICK
            } else {
                seconds(self.idle_seconds)?
            },
            connections: if self.quick { 380 } else { self.connections },
            quick: self.quick,
            logs: self.reports.join("logs"),
            profile: self.profile.then(|| self.reports.clone()),
        })
    }

    fn chosen(&self) -> Result<Vec<Scenario>, Failure> {
        for name in &self.names {
            if !scenarios::all().iter().any(|scenario| is_named(scenario, name)) {
                return Err(Failure::Usage(format!(
                    "no scenario or family `{name}`; --list names them"
                )));
            }
        }
        let mut chosen = scenarios::all();
        chosen.retain(|scenario| {
            (self.names.is_empty() || self.names.iter().any(|name| is_named(scenario, name)))
                && self.store.is_none_or(|store| of_store(scenario, store))
                && !(self.quick
                    && self.names.is_empty()
                    && matches!(scenario.family, Family::LargeRoom | Family::Growth))
        });
        Ok(chosen)
    }
}

fn is_named(scenario: &Scenario, name: &str) -> bool {
    scenario.family.as_str() == name || scenario.name.starts_with(name)
}

fn of_store(scenario: &Scenario, store: StoreKind) -> bool {
    let memory = scenario.name.ends_with(StoreKind::Memory.as_str());
    memory == (store == StoreKind::Memory)
}

fn beside_this_program() -> Result<PathBuf, Failure> {
    Ok(std::env::current_exe()?.with_file_name("roomgate"))
}

/// Runs the subcommand.
///
/// # Errors
/// It could not be run to its end. A loss that it found is no error but a failing exit code.
pub fn run(args: &BenchArgs) -> Result<ExitCode, Failure> {
    let chosen = args.chosen()?;
    if args.list {
        for scenario in &chosen {
            println!("{:12} {}", scenario.family.as_str(), scenario.name);
        }
        return Ok(ExitCode::SUCCESS);
    }
    let setup = args.setup()?;
    catch_interrupts()?;
    raise_descriptor_limit();
    fs::create_dir_all(&args.reports)?;
    let mut raw = raw_file(&args.reports)?;
    let runs = if args.quick { 1 } else { usize::from(args.runs) };
    let context = Context::gather(command_line(), runs, &args.redis);
    if setup
        .gateway
        .path
        .components()
        .any(|part| part.as_os_str() == "debug")
    {
        eprintln!(
            "warning: {} is a debug build: its figures say nothing",
            setup.gateway.path.display()
        );
    }
    let bare = Setup {
        gateway: Program {
            path: std::env::current_exe()?,
            args: vec!["bare"],
        },
        profile: None,
        ..setup.clone()
    };
    let mut results = Results::default();
    for run in 1..=runs {
        for (number, scenario) in chosen.iter().enumerate() {
            eprintln!(
                "run {run}/{runs}, {}/{} {}",
                number + 1,
                chosen.len(),
                scenario.name
            );
            let bare_writes = calibrate::writes_per_cpu_second(CALIBRATION)?;
            let outcome = measured(scenario, &setup, "")?;
            let beside = match scenario.family.has_bare() && !args.no_bare && !setup.quick {
                true => measured(scenario, &bare, " (bare server)")?,
                false => Outcome::default(),
            };
            results.add(scenario, run, outcome, beside, bare_writes, &mut raw)?;
        }
    }
    results.finish(args, &setup, &context)
}

/// Measures once and says so.
fn measured(scenario: &Scenario, setup: &Setup, whose: &str) -> Result<Outcome, Failure> {
    let started = Instant::now();
    let outcome = match (scenario.run)(setup) {
        // What one scenario cannot do is no reason to lose what the others have shown.
        Err(failure @ (Failure::Wrong(_) | Failure::Slow(_))) => Outcome {
            problems: vec![failure.to_string()],
            ..Outcome::default()
        },
        outcome => outcome?,
    };
    for figure in &outcome.figures {
        eprintln!(
            "  {:>12} {:<12} {}{whose}",
            number(figure.value),
            figure.unit,
            figure.label
        );
    }
    let share = |share| format!(", clients used {:.0} % of a core", share * 100.0);
    eprintln!(
        "  ({:.1} s{})",
        started.elapsed().as_secs_f64(),
        outcome.client_share.map_or(String::new(), share)
    );
    for problem in &outcome.problems {
        eprintln!("  PROBLEM{whose} {problem}");
    }
    for note in &outcome.notes {
        eprintln!("  note{whose}: {note}");
    }
    Ok(outcome)
}

fn raw_file(reports: &Path) -> Result<File, Failure> {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs();
    Ok(File::create(reports.join(format!("bench-{now}.jsonl")))?)
}

fn command_line() -> String {
    let args: Vec<String> = std::env::args().skip(1).collect();
    format!("cargo run --release -p roomgate-loadtest -- {}", args.join(" "))
}

/// What all runs gave.
#[derive(Default)]
struct Results {
    rows: Vec<Row>,
    notes: Vec<(Family, String)>,
    problems: usize,
}

impl Results {
    fn add(
        &mut self,
        scenario: &Scenario,
        run: usize,
        outcome: Outcome,
        beside: Outcome,
        bare_writes: f64,
        raw: &mut File,
    ) -> Result<(), Failure> {
        for (whose, one) in [("", &outcome), ("the bare server in ", &beside)] {
            self.problems += one.problems.len();
            if let Some(problem) = one.problems.first() {
                let name = &scenario.name;
                self.note(
                    scenario.family,
                    format!("{whose}{name} failed its check: {problem}"),
                );
            }
        }
        for note in outcome.notes {
            self.note(scenario.family, note);
        }
        for figure in outcome.figures {
            let same = beside.figures.iter().find(|bare| bare.label == figure.label);
            let bare = same.map(|bare| bare.value);
            let line = json!({
                "scenario": scenario.name, "run": run, "figure": figure, "bareWrites": bare_writes,
                "bareServer": bare,
                "clientShare": outcome.client_share,
            });
            writeln!(raw, "{line}")?;
            let known = self
                .rows
                .iter()
                .position(|row| row.family == scenario.family && row.figure.label == figure.label);
            let at = known.unwrap_or_else(|| {
                self.rows.push(Row {
                    family: scenario.family,
                    figure: figure.clone(),
                    values: Vec::new(),
                    walls: Vec::new(),
                    bare_writes: Vec::new(),
                    bare: Vec::new(),
                });
                self.rows.len() - 1
            });
            self.rows[at].values.push(figure.value);
            self.rows[at].walls.extend(figure.wall);
            self.rows[at].bare_writes.push(bare_writes);
            self.rows[at].bare.extend(bare);
        }
        Ok(())
    }

    fn note(&mut self, family: Family, note: String) {
        if !self.notes.contains(&(family, note.clone())) {
            self.notes.push((family, note));
        }
    }

    fn finish(mut self, args: &BenchArgs, setup: &Setup, context: &Context) -> Result<ExitCode, Failure> {
        let mut sections = Vec::new();
        for &family in Family::ALL {
            let (rows, rest): (Vec<Row>, Vec<Row>) =
                self.rows.into_iter().partition(|row| row.family == family);
            self.rows = rest;
            if rows.is_empty() {
                continue;
            }
            let of_family = self.notes.iter().filter(|(of, _)| *of == family);
            let notes: Vec<String> = of_family.map(|(_, note)| note.clone()).collect();
            let section = report::section(family, &rows, &notes, context);
            println!("{section}");
            sections.push((family, section));
        }
        if args.no_report || setup.quick || setup.profile.is_some() {
            eprintln!("no report written");
        } else {
            report::update(&args.results, &sections)?;
            eprintln!("{} updated", args.results.display());
        }
        if self.problems > 0 {
            eprintln!(
                "{} problems: the servers lost, doubled or refused something",
                self.problems
            );
            return Ok(ExitCode::FAILURE);
        }
        Ok(ExitCode::SUCCESS)
    }
}
