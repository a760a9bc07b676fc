//! `attack`: users who connect, join, chat, read back, move between rooms and leave, played by goose against gateways
//! that run already.

pub mod checker;
pub mod session;

use std::{
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use clap::Args;
use goose::{config::GooseConfiguration, goose::TransactionFunction, prelude::*};
use roomgate_shared::ids::RoomId;

use self::{
    checker::Checker,
    session::{Session, timed},
};
use crate::failure::Failure;

/// Plays users against running gateways (anonymous mode) and judges the run.
///
/// Each user connects, joins a room, sends messages with time to think between them, reads history, moves to another room
/// now and then, and leaves. The exit code is 0 if no operation failed, the answers to messages came in time (p99), and
/// every acknowledged message was seen by every user who was in its room.
#[derive(Debug, Args)]
pub struct AttackArgs {
    /// The gateways, such as http://127.0.0.1:8080; users are spread over them
    #[arg(long, env = "ROOMGATE_URLS", value_delimiter = ',', required = true)]
    hosts: Vec<String>,
    /// Users at one time
    #[arg(long, default_value_t = 50)]
    users: usize,
    /// How long all of them stay, such as 30s or 5m
    #[arg(long, default_value = "30s")]
    run_time: String,
    /// Users that start a second
    #[arg(long, default_value_t = 25)]
    increase_rate: usize,
    /// Rooms that the users are spread over
    #[arg(long, default_value_t = 5)]
    rooms: usize,
    /// Shortest time to think, ms
    #[arg(long, default_value_t = 200)]
    think_min_ms: u64,
    /// Longest time to think, ms
    #[arg(long, default_value_t = 1_000)]
    think_max_ms: u64,
    /// The 99th percentile of the time to a message's acknowledgement must be below this, ms
    #[arg(long, default_value_t = 250)]
    ack_p99_ms: u64,
    /// Also write goose's report to this file (.html, .md or .json)
    #[arg(long, value_name = "FILE")]
    report_file: Option<String>,
}

/// What all users share.
struct World {
    hosts: Vec<String>,
    rooms: Vec<RoomId>,
    users: AtomicUsize,
    checker: Arc<Checker>,
    /// Distinguishes this attack's users and rooms from those of an earlier one.
    nonce: u32,
}

/// What one user keeps between its transactions.
#[derive(Clone)]
struct Seat {
    session: Session,
    room: usize,
    sent: u64,
}

/// Runs the subcommand.
///
/// # Errors
/// The attack could not be run to its end. A run that fails its thresholds is no error but a failing exit code.
pub fn run(args: &AttackArgs) -> Result<ExitCode, Failure> {
    let nonce = std::process::id();
    let rooms = (0..args.rooms.max(1))
        .filter_map(|n| RoomId::new(format!("attack-{nonce}-{n}")).ok())
        .collect();
    let world = Arc::new(World {
        hosts: args.hosts.clone(),
        rooms,
        users: AtomicUsize::new(0),
        checker: Arc::default(),
        nonce,
    });
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let outcome = runtime.block_on(attack(args, world.clone()));
    let passed = match outcome {
        Ok(_) => true,
        // Goose has printed which.
        Err(GooseError::ThresholdsFailed { .. }) => false,
        Err(error) => return Err(Failure::Start(error.to_string())),
    };
    Ok(if judge(&world, passed) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn judge(world: &World, thresholds: bool) -> bool {
    let verdict = world.checker.verdict();
    println!(
        "\nchecked: {} messages acknowledged, {} deliveries due, {} missing, {} faults",
        verdict.messages,
        verdict.checked,
        verdict.missing,
        verdict.faults.len()
    );
    for fault in verdict.faults.iter().take(10) {
        println!("  FAULT {fault}");
    }
    if verdict.checked == 0 {
        println!("  FAULT no message was due to anybody: the run shows nothing");
    }
    let passed = thresholds && verdict.checked > 0 && verdict.missing == 0 && verdict.faults.is_empty();
    println!("{}", if passed { "PASS" } else { "FAIL" });
    passed
}

async fn attack(args: &AttackArgs, world: Arc<World>) -> Result<GooseMetrics, GooseError> {
    let (users, rate) = (args.users.to_string(), args.increase_rate.to_string());
    let ack = format!("p99<{}ms for WS message.send", args.ack_p99_ms);
    let mut options = vec![
        "--host",
        &args.hosts[0],
        "--users",
        &users,
        "--increase-rate",
        &rate,
    ];
    options.extend(["--run-time", &args.run_time, "--no-reset-metrics", "--no-telnet"]);
    options.extend([
        "--no-threshold-abort",
        "--threshold",
        "error-rate<=0%",
        "--threshold",
        &ack,
    ]);
    if let Some(file) = &args.report_file {
        options.extend(["--report-file", file]);
    }
    let configuration = GooseConfiguration::parse_args_default(&options)
        .map_err(|error| GooseError::Io(std::io::Error::other(error.to_string())))?;
    let think = (
        Duration::from_millis(args.think_min_ms),
        Duration::from_millis(args.think_max_ms),
    );
    let scenario = scenario!("RoomUser")
        .set_wait_time(think.0, think.1.max(think.0))?
        .register_transaction(
            act("arrive", &world, |user, world| Box::pin(arrive(user, world))).set_on_start(),
        )
        .register_transaction(act("chat", &world, |user, world| Box::pin(chat(user, world))).set_weight(12)?)
        .register_transaction(
            act("read back", &world, |user, world| {
                Box::pin(read_back(user, world))
            })
            .set_weight(2)?,
        )
        .register_transaction(
            act("move on", &world, |user, world| Box::pin(move_on(user, world))).set_weight(1)?,
        )
        .register_transaction(
            act("depart", &world, |user, world| Box::pin(depart(user, world))).set_on_stop(),
        );
    GooseAttack::initialize_with_config(configuration)?
        .register_scenario(scenario)
        .execute()
        .await
}

type Act<'r> = std::pin::Pin<Box<dyn Future<Output = TransactionResult> + Send + 'r>>;

fn act(
    name: &str,
    world: &Arc<World>,
    run: impl for<'r> Fn(&'r mut GooseUser, Arc<World>) -> Act<'r> + Send + Sync + 'static,
) -> Transaction {
    let world = world.clone();
    let function: TransactionFunction = Arc::new(move |user| run(user, world.clone()));
    Transaction::new(function).set_name(name)
}

/// Records an operation that took `time`; its error fails the transaction.
async fn record(
    user: &mut GooseUser,
    name: &str,
    (outcome, time): (Result<(), String>, Duration),
) -> TransactionResult {
    let error = outcome.as_ref().err().map(String::as_str);
    user.record_custom_request_duration("WS", name, time, outcome.is_ok(), None, error)
        .await?;
    outcome.map_err(|error| Box::new(TransactionError::Custom(format!("{name}: {error}"))))
}

fn seat(user: &GooseUser) -> Result<Seat, Box<TransactionError>> {
    user.get_session_data::<Seat>()
        .cloned()
        .ok_or_else(|| Box::new(TransactionError::Custom("never connected".to_owned())))
}

async fn arrive(user: &mut GooseUser, world: Arc<World>) -> TransactionResult {
    let number = world.users.fetch_add(1, Ordering::Relaxed);
    let host = &world.hosts[number % world.hosts.len()];
    let name = format!("goose-{}-{number}", world.nonce);
    let (connected, time) = timed(Session::connect(host, &name, world.checker.clone())).await;
    let (session, outcome) = match connected {
        Ok(session) => (Some(session), Ok(())),
        Err(error) => (None, Err(error)),
    };
    record(user, "connect", (outcome, time)).await?;
    let Some(session) = session else { return Ok(()) };
    // Neighbours in number are on different gateways and in the same room.
    let room = number / world.hosts.len() % world.rooms.len();
    user.set_session_data(Seat {
        session: session.clone(),
        room,
        sent: 0,
    });
    record(user, "join", timed(session.join(&world.rooms[room])).await).await
}

async fn chat(user: &mut GooseUser, world: Arc<World>) -> TransactionResult {
    let mut seat = seat(user)?;
    seat.sent += 1;
    let text = format!(
        "message {} of this user, of about a hundred bytes with all that stands around it",
        seat.sent
    );
    user.set_session_data(seat.clone());
    let said = timed(seat.session.say(&world.rooms[seat.room], &text)).await;
    for delay in seat.session.delays() {
        record(user, "delivery", (Ok(()), delay)).await?;
    }
    record(user, "message.send", said).await
}

async fn read_back(user: &mut GooseUser, world: Arc<World>) -> TransactionResult {
    let seat = seat(user)?;
    record(
        user,
        "message.history",
        timed(seat.session.history(&world.rooms[seat.room])).await,
    )
    .await
}

async fn move_on(user: &mut GooseUser, world: Arc<World>) -> TransactionResult {
    let mut seat = seat(user)?;
    record(
        user,
        "leave",
        timed(seat.session.leave(&world.rooms[seat.room])).await,
    )
    .await?;
    seat.room = (seat.room + 1) % world.rooms.len();
    user.set_session_data(seat.clone());
    record(
        user,
        "join",
        timed(seat.session.join(&world.rooms[seat.room])).await,
    )
    .await
}

async fn depart(user: &mut GooseUser, world: Arc<World>) -> TransactionResult {
    let seat = seat(user)?;
    let left = timed(seat.session.leave(&world.rooms[seat.room])).await;
    seat.session.close().await;
    record(user, "leave", left).await
}
