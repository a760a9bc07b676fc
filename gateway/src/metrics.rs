//! Every metric, its name, labels and meaning in one place. No label takes a value that users choose.

use std::sync::{
    LazyLock,
    atomic::{AtomicU64, Ordering},
};

use metrics::{Counter, Gauge, Histogram, Unit};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use roomgate_shared::protocol::{CommandType, ErrorCode};

/// Bounds of the duration histograms, in ms.
const DURATION_BUCKETS_MS: &[f64] = &[
    0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1_000.0, 2_500.0, 5_000.0,
];

/// Bounds of the batch sizes.
const BATCH_BUCKETS: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0];

/// A counter that this process reads, too.
pub struct Tally {
    counter: Counter,
    count: AtomicU64,
}

impl Tally {
    fn new(counter: Counter) -> Self {
        Self {
            counter,
            count: AtomicU64::new(0),
        }
    }

    /// Counts `by` more.
    pub fn increment(&self, by: u64) {
        self.counter.increment(by);
        self.count.fetch_add(by, Ordering::Relaxed);
    }

    /// What has been counted since the start.
    pub fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }
}

macro_rules! metrics {
    ($($(#[doc = $doc:literal])* $field:ident: $kind:ident = $name:literal $({ $($label:literal => $value:literal),* })? $(, $unit:expr)?;)*) => {
        /// Handles of the metrics without labels, looked up once.
        pub struct Metrics {
            $($(#[doc = $doc])* pub $field: $kind,)*
            commands: Vec<(CommandType, Counter)>,
            errors: Vec<(ErrorCode, Counter)>,
        }

        impl Metrics {
            fn register() -> Self {
                $(metrics!(@describe $kind, $name, concat!($($doc),*) $(, $unit)?);)*
                metrics::describe_counter!("roomgate_commands_total", "Commands read, by type.");
                metrics::describe_counter!("roomgate_errors_total", "Error frames sent, by code.");
                Self {
                    $($field: metrics!(@register $kind, $name $($(, $label => $value)*)?),)*
                    commands: CommandType::ALL
                        .iter()
                        .map(|&kind| (kind, metrics::counter!("roomgate_commands_total", "type" => kind.as_str())))
                        .collect(),
                    errors: ErrorCode::ALL
                        .iter()
                        .map(|&code| (code, metrics::counter!("roomgate_errors_total", "code" => code.as_str())))
                        .collect(),
                }
            }
        }
    };
    (@describe Tally, $name:literal, $doc:expr) => { metrics::describe_counter!($name, $doc.trim()) };
    (@describe Counter, $name:literal, $doc:expr) => { metrics::describe_counter!($name, $doc.trim()) };
    (@describe Gauge, $name:literal, $doc:expr) => { metrics::describe_gauge!($name, $doc.trim()) };
    (@describe Histogram, $name:literal, $doc:expr, $unit:expr) => {
        metrics::describe_histogram!($name, $unit, $doc.trim())
    };
    (@register Tally, $($name:tt)+) => { Tally::new(metrics::counter!($($name)+)) };
    (@register Counter, $($name:tt)+) => { metrics::counter!($($name)+) };
    (@register Gauge, $($name:tt)+) => { metrics::gauge!($($name)+) };
    (@register Histogram, $($name:tt)+) => { metrics::histogram!($($name)+) };
}

metrics! {
    /// Open WebSockets.
    connections: Gauge = "roomgate_connections";
    /// WebSockets accepted.
    accepted: Counter = "roomgate_connections_accepted_total";
    /// Upgrades refused before a WebSocket was there.
    refused: Counter = "roomgate_upgrades_refused_total";
    /// Rooms with members on this node.
    rooms: Gauge = "roomgate_rooms";
    /// Memberships on this node: connections counted once for each room they are in.
    members: Gauge = "roomgate_members";
    /// Durable events handed to members.
    deliveries: Counter = "roomgate_deliveries_total";
    /// Ephemeral frames dropped for readers that lag.
    dropped_frames: Counter = "roomgate_frames_dropped_total";
    /// Connections closed with 4200 because their queue was full.
    slow_consumers: Counter = "roomgate_slow_consumers_total";
    /// Frames that were no commands.
    malformed: Counter = "roomgate_malformed_frames_total";
    /// Connections closed with 1008 because they went on asking for what they were refused.
    floods: Counter = "roomgate_floods_total";
    /// Connections that were closed because the user is blocked, its token revoked, or there are too many.
    not_admitted: Counter = "roomgate_connections_not_admitted_total";
    /// Commands that the user's token does not allow in the room.
    scope_mismatches: Counter = "roomgate_scope_mismatches_total";
    /// Tokens that were not accepted, at the handshake or by `auth`.
    tokens_refused: Counter = "roomgate_tokens_refused_total";
    /// Holes found in the order of a room's events.
    gaps: Counter = "roomgate_gaps_total";
    /// Times that a room's missed events were fetched from the store's log, once for all its members here.
    repairs: Tally = "roomgate_repairs_total";
    /// Connections that came back and were given what they missed from this node's memory.
    resumes_kept: Counter = "roomgate_resumes_kept_total";
    /// Connections that came back and were given what they missed from the store's log.
    resumes_log: Counter = "roomgate_resumes_log_total";
    /// Commands that had happened before, and were answered as then.
    duplicates: Counter = "roomgate_duplicate_commands_total";
    /// Fresh pictures given to members of a room whose past could not be continued.
    resyncs: Tally = "roomgate_resyncs_total";
    /// Members that left because they did not come back in time.
    timeouts: Counter = "roomgate_timeouts_total";
    /// Rooms in which this node did what was due.
    swept: Counter = "roomgate_rooms_swept_total";
    /// Messages past retention that this node's sweeps removed.
    purged: Counter = "roomgate_messages_purged_total";
    /// Completed rooms that this node has archived.
    archived: Counter = "roomgate_rooms_archived_total";
    /// Rooms that this node has opened again from their archive.
    restored: Counter = "roomgate_rooms_restored_total";
    /// Times that a room could not be archived, or an archive not be read: the room stays, or is not made.
    archive_failures: Counter = "roomgate_archive_failures_total";
    /// Dead nodes whose members this node has taken out.
    nodes_buried: Counter = "roomgate_nodes_buried_total";
    /// Times that this node was without its lease, and others may have taken its members for gone.
    leases_lost: Counter = "roomgate_leases_lost_total";
    /// Frames with moves or occupancy handed to members.
    moves_frames: Counter = "roomgate_moves_frames_total";
    /// Writes of places to the store.
    positions_written: Counter = "roomgate_positions_writes_total";
    /// Payloads on a room's channel that no gateway of this version writes.
    bad_payloads: Counter = "roomgate_bad_payloads_total";
    /// From a command's arrival to its answer being queued.
    command_duration: Histogram = "roomgate_command_duration_ms", Unit::Milliseconds;
    /// One call of the store.
    store_duration: Histogram = "roomgate_store_call_duration_ms", Unit::Milliseconds;
    /// Operations that went together in one call of the store.
    batch_size: Histogram = "roomgate_store_batch_size", Unit::Count;
    /// Calls of the store that failed as a whole.
    store_errors: Counter = "roomgate_store_errors_total";
    /// Whether the store can serve: 1 or 0.
    store_ready: Gauge = "roomgate_store_ready";
    /// The circuit breaker of the connection to Redis: 0 closed, 1 half-open, 2 open. While it is open commands are refused at
    /// once.
    redis_breaker: Gauge = "roomgate_breaker_state" { "scope" => "redis" };
    /// Times that a circuit breaker opened: that of the connection to Redis, or one of a room.
    redis_openings: Counter = "roomgate_breaker_openings_total" { "scope" => "redis" };
    /// Times that a circuit breaker opened: that of the connection to Redis, or one of a room.
    room_openings: Counter = "roomgate_breaker_openings_total" { "scope" => "room" };
    /// Rooms on this node whose circuit breaker is not closed: their commands are refused, one is tried now and then.
    rooms_unavailable: Gauge = "roomgate_rooms_unavailable";
}

impl Metrics {
    /// Commands read, of one type.
    pub fn command(&self, kind: CommandType) -> &Counter {
        &self.commands[CommandType::ALL
            .iter()
            .position(|&k| k == kind)
            .unwrap_or_default()]
        .1
    }

    /// Error frames sent, of one code.
    pub fn error(&self, code: ErrorCode) -> &Counter {
        &self.errors[ErrorCode::ALL.iter().position(|&c| c == code).unwrap_or_default()].1
    }
}

/// The metrics of this process. [`install`] comes first where they are to be seen.
pub fn metrics() -> &'static Metrics {
    static METRICS: LazyLock<Metrics> = LazyLock::new(Metrics::register);
    &METRICS
}

/// Installs the Prometheus recorder. `node` is a label of every metric. Called once, by `main`.
///
/// # Errors
/// A recorder is there already.
pub fn install(node: &str) -> Result<PrometheusHandle, BuildError> {
    let builder = PrometheusBuilder::new()
        .add_global_label("node", node)
        .set_buckets_for_metric(Matcher::Suffix("_ms".to_owned()), DURATION_BUCKETS_MS)?
        .set_buckets_for_metric(Matcher::Suffix("_batch_size".to_owned()), BATCH_BUCKETS)?;
    let recorder = builder.build_recorder();
    let handle = recorder.handle();
    metrics::set_global_recorder(recorder).map_err(BuildError::FailedToSetGlobalRecorder)?;
    Ok(handle)
}
