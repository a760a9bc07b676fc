//! One room's queue: the group commit.
//!
//! At most one task runs for a room. It takes what is queued, sends it to the store as one batch, answers, and goes on
//! until nothing is left; so works of a room happen in their order, and the busier the room the larger its batches. The
//! same task opens the room's subscription before its first join and ends it after its last member.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use roomgate_shared::protocol::{ErrorCode, command::RoomStatus, event};
use tokio::time::Instant;

use super::{
    Known, Origin, Rooms, Work,
    answers::{answer, answer_error_for, complete, finish, millis},
    failure::{self, RoomBreaker},
    held::Held,
    lifecycle, moves,
};
use crate::{
    hub::{Kept, LocalRoom, Repair},
    metrics::metrics,
    store::{Applied, Op, Refusal, Returning, StoreError},
};

/// Most operations in one call of the store: a call blocks Redis for its length, some 3 µs an operation.
const MAX_BATCH_OPS: usize = 256;
/// Most of them whose answers may be large: pages and pictures, of some 2 MiB at most each. A join whose past this node
/// has kept counts for a quarter: its answer is short unless the room has changed its epoch. A page of members counts for
/// eight: Redis looks at every member of the room for it.
const MAX_BATCH_READS: usize = 32;
const MEMBERS_READ: usize = 8;

/// See the module.
pub(super) struct RoomQueue {
    local: Arc<LocalRoom>,
    state: Mutex<State>,
    /// The store's channel of this room is open. Changed by the one task only.
    subscribed: AtomicBool,
    breaker: RoomBreaker,
    held: Held,
    /// Shared with each [`Origin::Unconfirmed`] of the room.
    open: Arc<()>,
}

#[derive(Default)]
struct State {
    works: VecDeque<Work>,
    /// A task runs for this queue.
    running: bool,
}

impl RoomQueue {
    pub(super) fn new(local: Arc<LocalRoom>) -> Self {
        Self {
            local,
            state: Mutex::default(),
            subscribed: AtomicBool::new(false),
            breaker: RoomBreaker::default(),
            held: Held::default(),
            open: Arc::default(),
        }
    }

    /// What keeps the room open until it is dropped.
    pub(super) fn keep_open(&self) -> Arc<()> {
        self.open.clone()
    }

    /// Whether nobody is in, nor may be without this node's knowing.
    pub(super) fn is_empty(&self) -> bool {
        self.local.is_empty() && Arc::strong_count(&self.open) == 1
    }

    pub(super) fn local(&self) -> &Arc<LocalRoom> {
        &self.local
    }

    /// Queues work; `true` asks the caller to start [`run`].
    pub(super) fn push(&self, work: Work) -> bool {
        let mut state = self.state.lock();
        state.works.push_back(work);
        !std::mem::replace(&mut state.running, true)
    }

    pub(super) fn breaker(&self) -> &RoomBreaker {
        &self.breaker
    }

    /// Claims the queue for the caller, who is to start [`run`]; `false` where a task runs.
    pub(super) fn claim(&self) -> bool {
        !std::mem::replace(&mut self.state.lock().running, true)
    }

    /// Whether the store's channel of this room is open.
    pub(super) fn is_subscribed(&self) -> bool {
        self.subscribed.load(Ordering::Relaxed)
    }

    /// Ends the task's claim on the queue, unless there is work.
    pub(super) fn rest(&self) -> bool {
        let mut state = self.state.lock();
        if !state.works.is_empty() {
            return false;
        }
        state.running = false;
        state.works = VecDeque::new();
        true
    }

    fn has_work(&self) -> bool {
        !self.state.lock().works.is_empty()
    }

    /// All that is queued.
    pub(super) fn take_all(&self) -> VecDeque<Work> {
        std::mem::take(&mut self.state.lock().works)
    }

    /// The next batch: what is queued, up to a bound, and not past the point where a connection that enters or leaves in
    /// this batch would do something else in it. Commands of connections that are not in the room are answered here.
    fn batch(&self, now: Instant, now_ms: u64) -> (Vec<Op>, Vec<Origin>) {
        let mut state = self.state.lock();
        let (mut ops, mut origins) = (Vec::new(), Vec::new());
        let (mut moving, mut reads) = (Vec::new(), 0);
        while ops.len() < MAX_BATCH_OPS {
            let Some(mut work) = state.works.pop_front() else {
                break;
            };
            // A tail is the first of its batch, and one return is enough for it.
            let returns = |op: &Op| matches!(op, Op::Return { .. });
            // Who joins before somebody is put out must not be answered as of after that.
            let puts_out = |op: &Op| matches!(op, Op::Moderate { action, .. } if action.puts_out());
            let joins = |op: &Op| matches!(op, Op::Join(_));
            if matches!(work.op, Op::Tail(_)) && !ops.is_empty()
                || returns(&work.op) && ops.iter().any(returns)
                || puts_out(&work.op) && ops.iter().any(joins)
            {
                state.works.push_front(work);
                break;
            }
            let kept = self.kept(&work);
            if work.op.answers_at_length() {
                let quarters = if matches!(work.op, Op::UsersList { .. }) {
                    4 * MEMBERS_READ
                } else if kept.is_some() {
                    1
                } else {
                    4
                };
                if reads + quarters > 4 * MAX_BATCH_READS {
                    state.works.push_front(work);
                    break;
                }
                reads += quarters;
            }
            let client = match &work.origin {
                Origin::Command { client, .. }
                | Origin::Gone { client, .. }
                | Origin::Unconfirmed { client, .. }
                | Origin::Resync { client, .. } => Some(client),
                Origin::Repair(_) | Origin::Return { .. } | Origin::Positions { .. } => None,
            };
            if client.is_some_and(|client| moving.contains(&client.id)) {
                state.works.push_front(work);
                break;
            }
            if matches!(work.op, Op::Join(_) | Op::Part { .. })
                && let Some(client) = client
            {
                moving.push(client.id);
            }
            if let Origin::Command { membership, .. } = &work.origin
                && !matches!(work.op, Op::Join(_))
                && !membership.is_joined()
            {
                let refusal = if membership.is_closed() {
                    Refusal::new(ErrorCode::RoomClosed, "the room is completed")
                } else {
                    Refusal::new(ErrorCode::NotJoined, "join the room first")
                };
                self.refuse(work.origin, refusal);
                continue;
            }
            if let Origin::Command { kind, .. } = work.origin
                && let Err(refusal) = self.held.check(kind, now)
            {
                self.refuse(work.origin, refusal);
                continue;
            }
            // One that came while its join was under way; the others never come here.
            if let (Op::Positions { positions }, Origin::Command { client, .. }) = (&work.op, &work.origin) {
                let mut moved = positions
                    .iter()
                    .map(|(_, position)| self.local.moved(client, position.clone(), now_ms));
                match moved.try_for_each(|moved| moved) {
                    Ok(()) => self.acknowledge(work.origin, "{}"),
                    Err(refusal) => self.refuse(work.origin, refusal),
                }
                continue;
            }
            match &mut work.origin {
                // It has left meanwhile, or is gone.
                Origin::Resync { membership, .. } if !membership.is_alive() => continue,
                // It has come in meanwhile, or is about to.
                Origin::Unconfirmed { membership, .. } if membership.counts() => continue,
                // Members may have got further since it was asked for, above all where it is tried again.
                Origin::Repair(tail) => {
                    if let Some(now) = self.local.tail() {
                        work.op = Op::Tail(now.clone());
                        *tail = now;
                    }
                }
                Origin::Command {
                    membership,
                    join: known,
                    ..
                } => {
                    if let Op::Join(join) = &mut work.op {
                        if let Some(kept) = kept {
                            join.since = Some(kept.at.clone());
                            *known = Known::Kept(Box::new(kept));
                        } else if membership.is_joined() && join.since.is_none() {
                            // It has what this node has, and nothing to be told but so.
                            join.since = self.local.since();
                            *known = Known::In;
                        }
                    }
                }
                Origin::Return { members, .. } => {
                    members
                        .retain(|(client, membership)| membership.is_alive() && !moving.contains(&client.id));
                    if members.is_empty() {
                        continue;
                    }
                    let each = members.iter().map(|(client, _)| Returning {
                        user: client.user().clone(),
                        name: client.name().to_string(),
                        connection: client.id,
                    });
                    work.op = Op::Return {
                        members: each.collect(),
                    };
                }
                Origin::Gone { .. }
                | Origin::Unconfirmed { .. }
                | Origin::Resync { .. }
                | Origin::Positions { .. } => {}
            }
            ops.push(work.op);
            origins.push(work.origin);
        }
        (ops, origins)
    }

    /// What this node has kept for a connection that comes back.
    fn kept(&self, work: &Work) -> Option<Kept> {
        let (Op::Join(join), Origin::Command { .. }) = (&work.op, &work.origin) else {
            return None;
        };
        self.local.kept(join.since.as_ref()?)
    }

    fn refuse(&self, origin: Origin, refusal: Refusal) {
        self.refuse_for(origin, refusal, None);
    }

    /// Answers a command by an error. `retry`: when it is worth trying again, where that is known.
    pub(super) fn refuse_for(&self, origin: Origin, refusal: Refusal, retry: Option<Duration>) {
        if let Origin::Command {
            client,
            membership,
            id,
            kind,
            received,
            weight,
            ..
        } = origin
        {
            membership.answered(kind);
            answer_error_for(&client, id.as_ref(), Some(kind), &self.local, &refusal, retry);
            finish(&client, received, weight);
        }
    }

    /// Answers a command by an ack with `data`, without the store.
    pub(super) fn acknowledge(&self, origin: Origin, data: &str) {
        if let Origin::Command {
            client,
            id,
            received,
            weight,
            ..
        } = origin
        {
            answer(&client, id.as_ref(), |id| {
                event::ack_text(id, Some(self.local.id()), data)
            });
            finish(&client, received, weight);
        }
    }
}

/// Works a queue off. Started by whoever [`RoomQueue::push`] says.
pub(super) async fn run(rooms: Arc<Rooms>, queue: Arc<RoomQueue>) {
    let local = queue.local.clone();
    loop {
        // Commands that have arrived already are read first, and go along.
        tokio::task::yield_now().await;
        let now = Instant::now();
        if queue.has_work()
            && let Err(wait) = queue.breaker.admit(now)
        {
            failure::refuse_all(&rooms, &queue, wait);
            continue;
        }
        let (ops, origins) = queue.batch(now, rooms.store.now_ms());
        moves::start(&rooms, &local);
        if ops.is_empty() {
            queue.breaker.gave_up(now);
            if idle(&rooms, &queue, now) {
                return;
            }
            continue;
        }
        let kept = failure::kept(&ops, &origins);
        let ending: Vec<usize> = (0..ops.len()).filter(|&at| ends(&ops[at])).collect();
        let repair = match commit(&rooms, &queue, ops, &origins).await {
            Ok(applied) => {
                queue.breaker.succeeded(local.id());
                local.acknowledged(&applied.epoch, applied.seq);
                for (origin, reply) in origins.iter().zip(&applied.replies) {
                    if let (Origin::Command { kind, .. }, Err(refusal)) = (origin, reply) {
                        queue.held.refused(*kind, refusal, now);
                    }
                }
                if ending.iter().any(|&at| applied.replies[at].is_ok()) {
                    lifecycle::begin_end(&rooms, local.id());
                }
                complete(&rooms, &local, origins, applied.replies)
            }
            Err(error) => {
                failure::fail(&rooms, &queue, kept, origins, &error);
                Repair::NotNeeded
            }
        };
        if local.release() == Repair::Needed || repair == Repair::Needed {
            rooms.hub.request_repair(&local);
        }
        rooms.hub.follow_up(&local);
    }
}

/// Ends the task's claim on the queue, unless there is work. A room that nobody is in is forgotten, a damaged one not
/// before its breaker has been due for long.
fn idle(rooms: &Arc<Rooms>, queue: &RoomQueue, now: Instant) -> bool {
    let empty = queue.is_empty();
    if empty && queue.breaker.may_be_forgotten(now) {
        return rooms.retire(queue);
    }
    if empty && let Some(wait) = queue.breaker.look_after(now) {
        let (rooms, room) = (rooms.clone(), queue.local.id().clone());
        tokio::spawn(async move {
            tokio::time::sleep(wait).await;
            rooms.look(&room);
        });
    }
    queue.rest()
}

/// Whether the room is completed by it.
fn ends(op: &Op) -> bool {
    matches!(
        op,
        Op::Status {
            status: RoomStatus::Completed,
            ..
        }
    )
}

/// Sends a batch to the store, the room being subscribed first if somebody enters.
async fn commit(
    rooms: &Rooms,
    queue: &RoomQueue,
    ops: Vec<Op>,
    origins: &[Origin],
) -> Result<Applied, StoreError> {
    let local = &queue.local;
    if ops.iter().any(|op| matches!(op, Op::Join(_))) {
        if !queue.is_subscribed() {
            rooms.store.subscribe(local.id()).await?;
            queue.subscribed.store(true, Ordering::Relaxed);
        }
        local.hold();
    }
    let (count, started) = (ops.len(), Instant::now());
    let applied = match &rooms.archive {
        Some(archive) if lifecycle::may_make(&ops) => {
            lifecycle::apply(rooms, archive, local.id(), ops, origins).await
        }
        Some(_) | None => rooms.store.apply(local.id(), ops).await,
    };
    metrics().store_duration.record(millis(started));
    metrics().batch_size.record(count as f64);
    match applied {
        Ok(applied) if applied.replies.len() == count => Ok(applied),
        Ok(applied) => Err(StoreError::Internal(format!(
            "{} replies to {count} operations",
            applied.replies.len()
        ))),
        Err(error) => Err(error),
    }
}
