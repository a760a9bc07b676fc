//! Whether a connection may be here: revoked tokens, blocked users, and how many connections there are already. Asked of the
//! store once the connection's user is known, while nothing more is read of it.
//!
//! Where the store does not answer the connection goes on: what cannot be known keeps nobody out who has a good token. It is
//! asked on, as long as the connection is there, and closed when the answer is no.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use parking_lot::Mutex;
use roomgate_shared::protocol::CloseCode;
use tokio::{task::JoinSet, time::sleep};

use super::SessionContext;
use crate::{
    auth::Authenticator,
    hub::Client,
    limits::connections::Place,
    metrics::metrics,
    store::{Holder, Standing, StoreError},
};

/// The wait before a connection that was let go on is asked about again, and the longest.
const RETRY: Duration = Duration::from_millis(250);
const LONGEST_RETRY: Duration = Duration::from_secs(2);
/// Clients that are asked about at once, where all are.
const AT_ONCE: usize = 128;

/// One connection's admission. It counts as long as this is there.
pub(super) struct Admission {
    context: Arc<SessionContext>,
    client: Arc<Client>,
    /// Locked while it is asked: once at a time.
    places: tokio::sync::Mutex<Places>,
    asking: Mutex<Asking>,
}

struct Places {
    /// Those it has yet to get.
    wanted: Vec<Holder>,
    taken: Vec<Place>,
}

/// Whether the store is asked on and on.
#[derive(Default)]
struct Asking {
    on: bool,
    /// Something has changed since it was last asked.
    again: bool,
}

impl SessionContext {
    /// Whether anything is to be asked at all.
    fn admits(&self) -> bool {
        self.looks() || self.connections.most().any()
    }

    /// Whether a client's user and token may have become bad.
    fn looks(&self) -> bool {
        matches!(self.auth, Authenticator::Token(_)) || self.is_operated
    }
}

/// Asks whether the client may be here, and closes it if not. The client is not read until that is known, or cannot be.
pub(super) fn admit(
    context: &Arc<SessionContext>,
    client: &Arc<Client>,
    address: Option<Box<str>>,
) -> Option<Arc<Admission>> {
    if !context.admits() {
        return None;
    }
    let user = Holder::User(client.user().clone());
    let holders = address.map(Holder::Address).into_iter().chain([user]);
    let wanted = holders.filter(|holder| context.connections.most().of(holder) > 0);
    let admission = Arc::new(Admission {
        places: tokio::sync::Mutex::new(Places {
            wanted: wanted.collect(),
            taken: Vec::new(),
        }),
        context: context.clone(),
        client: client.clone(),
        asking: Mutex::default(),
    });
    admission.ask();
    Some(admission)
}

impl Admission {
    /// Asks, at first and when the client has just handed over another token. It is not read until that is answered.
    pub(super) fn ask(self: &Arc<Self>) {
        self.client.hold();
        let admission = self.clone();
        tokio::spawn(async move {
            let is_known = admission.once().await;
            admission.client.release();
            if !is_known {
                admission.ask_on();
            }
        });
    }

    /// Asks on until there is an answer, or the connection has ended.
    fn ask_on(self: &Arc<Self>) {
        {
            let mut asking = self.asking.lock();
            asking.again = true;
            if std::mem::replace(&mut asking.on, true) {
                return;
            }
        }
        let admission = Arc::downgrade(self);
        tokio::spawn(async move {
            let mut wait = RETRY;
            loop {
                sleep(wait).await;
                wait = (wait * 2).min(LONGEST_RETRY);
                let Some(admission) = Weak::upgrade(&admission) else {
                    return;
                };
                admission.asking.lock().again = false;
                let is_known = admission.once().await;
                let mut asking = admission.asking.lock();
                if is_known && !asking.again {
                    asking.on = false;
                    return;
                }
            }
        });
    }

    /// Asks once, and closes the client if it may not be here. Whether there was an answer.
    async fn once(&self) -> bool {
        let client = &self.client;
        match self.verdict().await {
            Ok(None) => true,
            Ok(Some(code)) => {
                metrics().not_admitted.increment(1);
                tracing::info!(connection = %client.id, user = %client.user(), code = code.code(), "a connection is not admitted");
                client.outbox.close(code.into());
                true
            }
            Err(error) => {
                tracing::debug!(connection = %client.id, %error, "whether a connection may be here is not known");
                false
            }
        }
    }

    async fn verdict(&self) -> Result<Option<CloseCode>, StoreError> {
        let mut places = self.places.lock().await;
        if let Some(code) = look(&self.context, &self.client).await? {
            return Ok(Some(code));
        }
        while let Some(holder) = places.wanted.last() {
            match self.context.connections.enter(holder).await? {
                Some(place) => places.taken.push(place),
                None => return Ok(Some(CloseCode::TooManyConnections)),
            }
            places.wanted.pop();
        }
        Ok(None)
    }
}

/// Whether a client's user and token are still good.
async fn look(context: &SessionContext, client: &Client) -> Result<Option<CloseCode>, StoreError> {
    if !context.looks() {
        return Ok(None);
    }
    let id = client.token_id();
    let standing = context
        .store
        .users()
        .standing(client.user(), id.as_deref())
        .await?;
    let has_token = matches!(context.auth, Authenticator::Token(_));
    Ok(verdict(&standing, client, has_token))
}

fn verdict(standing: &Standing, client: &Client, has_token: bool) -> Option<CloseCode> {
    if standing.is_blocked {
        Some(CloseCode::Blocked)
    } else if has_token && (standing.token_is_revoked || client.token_is_before(standing.revoked_before)) {
        Some(CloseCode::TokenRevoked)
    } else {
        None
    }
}

/// Asks of every client whether it may stay, many at once: what was said to all nodes may have been missed. Returns when
/// there is an answer for each that is still there.
pub async fn look_at_all(context: &Arc<SessionContext>, clients: Vec<Arc<Client>>) {
    // One that ends meanwhile need not be asked about.
    let clients: Vec<Weak<Client>> = clients.iter().map(Arc::downgrade).collect();
    let rest = Arc::new(Mutex::new(clients.into_iter()));
    let mut work = JoinSet::new();
    for _ in 0..AT_ONCE.min(rest.lock().len()) {
        let (context, rest) = (context.clone(), rest.clone());
        work.spawn(async move {
            // The lock is let go of at the end of the line.
            while let Some(client) = { rest.lock().next() } {
                look_until_known(&context, &client).await;
            }
        });
    }
    work.join_all().await;
}

async fn look_until_known(context: &SessionContext, client: &Weak<Client>) {
    while let Some(client) = client.upgrade() {
        match look(context, &client).await {
            Ok(Some(code)) => {
                client.outbox.close(code.into());
                return;
            }
            Ok(None) => return,
            Err(error @ (StoreError::Unavailable(_) | StoreError::Timeout(_))) => {
                tracing::debug!(connection = %client.id, %error, "whether a connection may stay is not known");
            }
            // Asking again would not help, and the others are to have their turn.
            Err(error) => {
                tracing::error!(connection = %client.id, user = %client.user(), %error, "whether a connection may stay cannot be known");
                return;
            }
        }
        drop(client);
        sleep(RETRY).await;
    }
}
