//! One connection's conversation: typed commands in, frames out. Knows no sockets.
//!
//! The checks of a command come in the protocol's order: envelope, type, room id, permission, joined, data, limits; what
//! only the store can tell (conditions) comes last. Commands that need the store are queued for their room and answered
//! from there; everything else is answered at once.

mod access;
pub mod admission;
mod commands;
pub mod strangers;

use std::{
    cell::RefCell,
    collections::VecDeque,
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use roomgate_shared::{
    ids::{CommandId, ConnectionId, NodeId, RoomId},
    protocol::{
        CloseCode, Command, CommandType, Decoder, ErrorCode, Incoming, Lane, MAX_BATCH, Malformed,
        Permission,
        config::Rate,
        event::{self, Limits, UserName, Welcome},
    },
};
use tokio::time::Instant;

use crate::{
    auth::{Authenticator, Identity, grants::Grants},
    hub::{Client, Closing, MIN_WEIGHT, Membership, READ_WEIGHT, text_frame},
    limits::{
        bucket::Bucket,
        budget::{Budgets, Payment},
        connections::Connections,
    },
    metrics::metrics,
    rooms::{Known, Origin, Rooms, Work},
    store::{CommandKey, Op, Refusal, SharedStore},
};

use self::{admission::Admission, strangers::Stranger};

/// Malformed frames within [`MALFORMED_WINDOW`] that end a connection.
const MALFORMED_ALLOWED: usize = 10;
const MALFORMED_WINDOW: Duration = Duration::from_secs(60);

/// How long a client that brought no token has to say who it is.
pub const AUTH_TIMEOUT: Duration = Duration::from_secs(5);

/// What all sessions of a gateway share.
pub struct SessionContext {
    /// The rooms.
    pub rooms: Arc<Rooms>,
    /// The store, for its clock.
    pub store: SharedStore,
    /// This node.
    pub node: NodeId,
    /// The limits told in `welcome`.
    pub limits: Limits,
    /// Bytes that may wait for one reader.
    pub outbox_bytes: usize,
    /// Silence after which the server pings, ms.
    pub heartbeat_ms: u64,
    /// Whether a join makes the room.
    pub auto_create: bool,
    /// How users are known.
    pub auth: Authenticator,
    /// Somebody may block users.
    pub is_operated: bool,
    /// How many connections there are, and may be.
    pub connections: Arc<Connections>,
    /// Commands that a connection may send; `None`: any number.
    pub commands: Option<Rate>,
    /// What users may send over all rooms and nodes.
    pub budgets: Arc<Budgets>,
}

/// One connection's state.
pub struct Session {
    context: Arc<SessionContext>,
    client: Arc<Client>,
    /// Rooms that the connection is in or on its way into; those it has left stay until the next join tidies up.
    rooms: Vec<(RoomId, Arc<Membership>)>,
    /// When the last malformed frames came, oldest first.
    malformed: VecDeque<Instant>,
    /// Commands of an array that came while as much as may be was under way, the client took no answers, or its user's budget
    /// was asked for; in order.
    waiting: VecDeque<Waiting>,
    closed: bool,
    access: Access,
    /// Where it comes from, until it has been admitted.
    address: Option<Box<str>>,
    /// Where anything is to be asked.
    admission: Option<Arc<Admission>>,
    /// It counts as one whose user is not known.
    stranger: Option<Box<Stranger>>,
    /// Commands that are left to it, once it has sent one.
    pace: Option<Box<Bucket>>,
}

/// A command that waits.
struct Waiting {
    room: RoomId,
    work: Work,
    weight: usize,
    /// It has cost its token.
    paid: bool,
}

impl Waiting {
    fn lane(&self) -> Option<Lane> {
        match &self.work.origin {
            Origin::Command { kind, .. } => kind.lane(),
            Origin::Gone { .. }
            | Origin::Unconfirmed { .. }
            | Origin::Resync { .. }
            | Origin::Repair(_)
            | Origin::Return { .. }
            | Origin::Positions { .. } => None,
        }
    }
}

fn too_fast(wait: Duration) -> Refusal {
    Refusal {
        retry_ms: Some(
            u64::try_from(wait.as_millis())
                .unwrap_or(u64::MAX)
                .saturating_add(1),
        ),
        ..Refusal::new(ErrorCode::RateLimited, "more than may be sent")
    }
}

/// Who the connection is, and until when.
struct Access {
    grants: Grants,
    /// When its token ends, Unix ms, and whether the client has been told that it soon does; before it has one, when it
    /// must.
    ends: Ends,
    /// A new time at which the connection is to be looked at.
    alarm: Option<Instant>,
    /// An `auth` that waits for keys.
    asked: Option<Box<Asked>>,
}

/// A token whose key was not known when it came.
struct Asked {
    id: Option<CommandId>,
    token: Box<str>,
    /// The keys are what their source gives.
    fresh: Arc<AtomicBool>,
}

#[derive(Debug, Clone, Copy)]
enum Ends {
    /// Not by itself.
    Never,
    /// Nobody knows yet who it is.
    Unknown { by: Instant },
    /// With its token.
    Token { expires: u64, told: bool },
}

thread_local! {
    /// Scratch space for reading frames, shared by all connections of a thread.
    static DECODER: RefCell<Decoder> = RefCell::default();
}

impl Session {
    /// Begins the conversation: `welcome` is queued. Without an identity the client has [`AUTH_TIMEOUT`] to say by `auth`
    /// who it is, and `welcome` follows then. `address`: where it comes from, as connections are counted;
    /// `stranger`: how it counts until its user is known.
    pub fn open(
        context: Arc<SessionContext>,
        id: ConnectionId,
        identity: Option<Identity>,
        address: Option<Box<str>>,
        stranger: Option<Box<Stranger>>,
    ) -> Self {
        metrics().connections.increment(1.0);
        let by = Instant::now() + AUTH_TIMEOUT;
        let mut session = Self {
            client: Arc::new(Client::unknown(id, context.outbox_bytes)),
            context,
            rooms: Vec::new(),
            malformed: VecDeque::new(),
            waiting: VecDeque::new(),
            closed: false,
            access: Access {
                grants: Grants::Token([].into()),
                ends: Ends::Unknown { by },
                alarm: Some(by),
                asked: None,
            },
            address,
            admission: None,
            stranger,
            pace: None,
        };
        if let Some(identity) = identity {
            session.welcome(identity);
        }
        session
    }

    /// The client is this user.
    fn welcome(&mut self, identity: Identity) {
        let context = &self.context;
        let id = self.client.id;
        let welcome = Welcome {
            protocol: 1,
            connection: id.to_string(),
            user: UserName {
                id: identity.user.to_string(),
                name: identity.name.clone(),
            },
            node: context.node.to_string(),
            server_time: context.store.now_ms(),
            heartbeat_ms: context.heartbeat_ms,
            limits: context.limits.clone(),
        };
        tracing::debug!(connection = %id, user = %identity.user, "a connection is open");
        self.client
            .identify(identity.user.clone(), identity.name.clone().into());
        // Strings and numbers always have a JSON form.
        let data = serde_json::to_string(&welcome).unwrap_or_default();
        self.client
            .outbox
            .push_answer(text_frame(&format!(r#"{{"type":"welcome","data":{data}}}"#)));
        self.take_over(identity);
        self.admission = admission::admit(&self.context, &self.client, self.address.take());
        self.stranger = None;
    }

    /// The connection.
    pub fn client(&self) -> &Arc<Client> {
        &self.client
    }

    /// Handles one frame, whose bytes are changed in place.
    ///
    /// # Errors
    /// The connection is to be closed so.
    pub fn frame(&mut self, frame: &mut [u8]) -> Result<(), Closing> {
        let received = Instant::now();
        let size = frame.len();
        let (mut wrong, mut closing) = (false, None);
        DECODER.with_borrow_mut(|decoder| {
            decoder.decode(frame, |item| match item {
                Ok(incoming) => self.command(&incoming, received, size, &mut closing),
                Err(malformed) => {
                    if closing.is_some() {
                        return;
                    }
                    if let Err(wait) = self.pace(received) {
                        return self.refuse_in(None, None, None, &too_fast(wait));
                    }
                    // A batch too long or an id too strange is a mistake, but no babble.
                    wrong |= !matches!(malformed, Malformed::BatchSize | Malformed::Id(_));
                    self.refuse(None, None, ErrorCode::BadRequest, &malformed_message(&malformed));
                }
            });
        });
        if let Some(closing) = closing {
            return Err(closing);
        }
        if wrong {
            self.count_malformed(received)
        } else {
            Ok(())
        }
    }

    /// Counts a command.
    ///
    /// # Errors
    /// It is one too many; how long until the next one may come.
    fn pace(&mut self, now: Instant) -> Result<(), Duration> {
        let Some(rate) = self.context.commands else {
            return Ok(());
        };
        let pace = self.pace.get_or_insert_with(|| Box::new(Bucket::new(rate, now)));
        pace.take(rate, now)
    }

    fn count_malformed(&mut self, now: Instant) -> Result<(), Closing> {
        metrics().malformed.increment(1);
        while self
            .malformed
            .front()
            .is_some_and(|&at| now - at >= MALFORMED_WINDOW)
        {
            self.malformed.pop_front();
        }
        self.malformed.push_back(now);
        if self.malformed.len() >= MALFORMED_ALLOWED {
            Err(CloseCode::BadProtocol.into())
        } else {
            Ok(())
        }
    }

    fn command(
        &mut self,
        incoming: &Incoming<'_, '_>,
        received: Instant,
        size: usize,
        closing: &mut Option<Closing>,
    ) {
        if closing.is_some() {
            return;
        }
        let id = incoming.id.as_ref();
        if let Err(wait) = self.pace(received) {
            return self.refuse_in(id, None, None, &too_fast(wait));
        }
        if matches!(self.access.ends, Ends::Unknown { .. }) && incoming.kind != Some(CommandType::Auth) {
            if self.access.asked.is_some() {
                return self.refuse_for_now(id, "who you are is being looked up");
            }
            let message = "say first who you are, by the command auth";
            return self.refuse(id, None, ErrorCode::Unauthenticated, message);
        }
        let Some(kind) = incoming.kind else {
            return self.refuse(
                id,
                None,
                ErrorCode::UnknownType,
                "this version has no such command",
            );
        };
        metrics().command(kind).increment(1);
        if !kind.needs_room() {
            return match incoming.command(kind) {
                Ok(Command::Auth { token }) => self.authenticate(id, &token, closing),
                Ok(command) => self.roomless(id, command),
                Err(refused) => self.refuse(id, None, refused.code, &refused.message),
            };
        }
        let room = match incoming.room() {
            Ok(room) => room,
            Err(refused) => return self.refuse(id, None, refused.code, &refused.message),
        };
        if !kind.is_allowed_by(self.access.grants.of(&room)) {
            return self.forbid(id, &room, kind);
        }
        let membership = self
            .membership(&room)
            .filter(|m| m.counts() || kind == CommandType::Join);
        if membership.is_none() && kind != CommandType::Join {
            let was_in = |(of, membership): &(RoomId, Arc<Membership>)| *of == room && membership.is_closed();
            if self.rooms.iter().any(was_in) {
                return self.refuse(id, Some(&room), ErrorCode::RoomClosed, "the room is completed");
            }
            return self.refuse(id, Some(&room), ErrorCode::NotJoined, "join the room first");
        }
        let key = id.filter(|_| kind.is_remembered()).map(|id| CommandKey {
            id: id.clone(),
            fingerprint: incoming.fingerprint(kind),
        });
        let op = incoming
            .command(kind)
            .and_then(|command| commands::operation(self, &room, key, command));
        let op = match op {
            Ok(op) => op,
            Err(refused) => return self.refuse(id, Some(&room), refused.code, &refused.message),
        };
        // Where others wait already, its turn comes when they have paid.
        let payment = if self.waiting.is_empty() {
            self.context.budgets.pay(&self.client, kind.lane(), received)
        } else {
            Payment::Pending
        };
        if let Payment::Refused(wait) = payment {
            return self.refuse_in(id, Some(&room), Some(kind), &too_fast(wait));
        }
        let paid = payment == Payment::Paid;
        if let Some(membership) = membership.as_ref().filter(|membership| membership.may_act()) {
            membership.act();
            // Beside the queue: it is gathered for the next tick.
            if paid && let Op::Positions { positions } = op {
                for (_, position) in positions {
                    if let Err(refusal) = self.context.rooms.moved(&room, &self.client, position) {
                        return self.refuse_in(id, Some(&room), Some(kind), &refusal);
                    }
                }
                return self.acknowledge(id, &room);
            }
        }
        let least = if op.answers_at_length() {
            READ_WEIGHT
        } else {
            MIN_WEIGHT
        };
        let weight = size.max(least);
        let membership = match membership.map_or_else(|| self.admit(&room), Ok) {
            Ok(membership) => membership,
            Err(message) => return self.refuse(id, Some(&room), ErrorCode::TooManyRooms, &message),
        };
        self.submit(
            &room,
            op,
            membership,
            incoming.id.clone(),
            kind,
            received,
            weight,
            paid,
        );
    }

    /// Whether others' messages may be changed, too.
    fn moderates(&self, room: &RoomId) -> bool {
        self.access.grants.of(room).has(Permission::Moderate)
    }

    fn membership(&self, room: &RoomId) -> Option<Arc<Membership>> {
        self.rooms
            .iter()
            .find(|(id, _)| id == room)
            .map(|(_, membership)| membership.clone())
    }

    /// A place for a room that the connection is not in.
    fn admit(&mut self, room: &RoomId) -> Result<Arc<Membership>, String> {
        let max = self.context.limits.max_rooms;
        self.rooms.retain(|(_, membership)| membership.counts());
        if self.rooms.len() >= max {
            return Err(format!("a connection may be in {max} rooms"));
        }
        let membership = Arc::new(Membership::default());
        self.rooms.push((room.clone(), membership.clone()));
        Ok(membership)
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "what a work is made of, put together in one place"
    )]
    fn submit(
        &mut self,
        room: &RoomId,
        op: Op,
        membership: Arc<Membership>,
        id: Option<CommandId>,
        kind: CommandType,
        received: Instant,
        weight: usize,
        paid: bool,
    ) {
        membership.queued(kind);
        let origin = Origin::Command {
            client: self.client.clone(),
            membership,
            id,
            kind,
            join: Known::Nothing,
            received,
            weight,
        };
        let work = Work { op, origin };
        if paid && self.waiting.is_empty() && self.client.may_read() {
            self.client.begin(weight);
            self.context.rooms.submit(room, work);
        } else {
            self.waiting.push_back(Waiting {
                room: room.clone(),
                work,
                weight,
                paid,
            });
        }
    }

    /// Goes on with the rest of an array, as far as the client's allowance reaches; `true` when none is left. Called
    /// before each read.
    pub fn proceed(&mut self) -> bool {
        self.answer_asked();
        while self.client.may_read() {
            let Some(mut next) = self.waiting.pop_front() else {
                self.waiting = VecDeque::new();
                return true;
            };
            if !next.paid {
                match self
                    .context
                    .budgets
                    .pay(&self.client, next.lane(), Instant::now())
                {
                    Payment::Paid => next.paid = true,
                    Payment::Pending => {
                        self.waiting.push_front(next);
                        continue;
                    }
                    Payment::Refused(wait) => {
                        self.refuse_waiting(next, wait);
                        continue;
                    }
                }
            }
            self.client.begin(next.weight);
            self.context.rooms.submit(&next.room, next.work);
        }
        false
    }

    /// A command that waited and may not go on.
    fn refuse_waiting(&self, waiting: Waiting, wait: Duration) {
        if let Origin::Command {
            membership, id, kind, ..
        } = waiting.work.origin
        {
            membership.answered(kind);
            self.refuse_in(id.as_ref(), Some(&waiting.room), Some(kind), &too_fast(wait));
        }
    }

    fn acknowledge(&self, id: Option<&CommandId>, room: &RoomId) {
        if let Some(id) = id {
            let text = event::ack_text(id, Some(room), "{}");
            self.client.outbox.push_answer(text_frame(&text));
        }
    }

    fn refuse(&self, id: Option<&CommandId>, room: Option<&RoomId>, code: ErrorCode, message: &str) {
        metrics().error(code).increment(1);
        self.client.refused(None, code);
        tracing::debug!(
            connection = %self.client.id,
            room = room.map(RoomId::as_str),
            command = id.map(CommandId::as_str),
            %code,
            message,
            "a command is refused"
        );
        self.client.outbox.push_answer(text_frame(&event::error_text(
            id, room, code, message, None, None,
        )));
    }

    /// `kind`: of the command, where what is refused is not the connection itself.
    fn refuse_in(
        &self,
        id: Option<&CommandId>,
        room: Option<&RoomId>,
        kind: Option<CommandType>,
        refusal: &Refusal,
    ) {
        metrics().error(refusal.code).increment(1);
        self.client.refused(kind, refusal.code);
        self.client.outbox.push_answer(text_frame(&event::error_text(
            id,
            room,
            refusal.code,
            &refusal.message,
            refusal.retry_ms,
            refusal.details.as_deref(),
        )));
    }

    /// Ends the conversation. `leaving`: the user means to go, as against a lost connection.
    pub fn close(&mut self, leaving: bool) {
        if !std::mem::replace(&mut self.closed, true) {
            tracing::debug!(connection = %self.client.id, leaving, rooms = self.rooms.len(), "a connection ends");
        }
        self.waiting.clear();
        for (room, membership) in self.rooms.drain(..) {
            if membership.counts() {
                membership.end();
                let op = Op::Part {
                    user: self.client.user().clone(),
                    connection: self.client.id,
                    leaving,
                };
                let origin = Origin::Gone {
                    client: self.client.clone(),
                    membership,
                };
                self.context.rooms.submit(&room, Work { op, origin });
            }
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.close(false);
        metrics().connections.decrement(1.0);
    }
}

fn malformed_message(malformed: &Malformed) -> String {
    match malformed {
        Malformed::BatchSize => format!("an array holds 1 to {MAX_BATCH} commands"),
        Malformed::NotJson | Malformed::TooDeep | Malformed::NotACommand | Malformed::Id(_) => {
            malformed.to_string()
        }
    }
}
