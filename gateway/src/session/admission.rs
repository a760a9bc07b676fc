//! Whether a connection may be here: revoked tokens, blocked users, and how many connections there are already. Asked of the
//! store once the connection's user is known, while nothing more is read of it.

use std::sync::Arc;

use parking_lot::Mutex;
use roomgate_shared::protocol::CloseCode;

use super::SessionContext;
use crate::{
    auth::Authenticator,
    hub::Client,
    metrics::metrics,
    store::{Holder, SharedStore, Standing, StoreError},
};

/// What counts as long as a connection lives.
pub(super) struct Counted {
    store: SharedStore,
    holders: Mutex<Vec<Holder>>,
}

impl Drop for Counted {
    fn drop(&mut self) {
        for holder in self.holders.get_mut() {
            self.store.users().exit(holder);
        }
    }
}

/// Limits of connections.
#[derive(Debug, Clone, Copy, Default)]
pub struct MostConnections {
    /// Of one user, over all nodes; 0: any number.
    pub user: u64,
    /// From one address, over all nodes; 0: any number.
    pub address: u64,
}

impl SessionContext {
    /// Whether anything is to be asked at all.
    fn admits(&self) -> bool {
        matches!(self.auth, Authenticator::Token(_)) || self.most.user > 0 || self.most.address > 0
    }
}

/// Asks whether the client may be here, and closes it if not. The client is not read until that is known.
pub(super) fn admit(
    context: &Arc<SessionContext>,
    client: &Arc<Client>,
    address: Option<Box<str>>,
) -> Option<Arc<Counted>> {
    if !context.admits() {
        return None;
    }
    let counted = Arc::new(Counted {
        store: context.store.clone(),
        holders: Mutex::default(),
    });
    client.hold();
    let (context, client, kept) = (context.clone(), client.clone(), counted.clone());
    tokio::spawn(async move {
        match ask(&context, &client, address, &kept).await {
            Ok(None) => {}
            Ok(Some(code)) => {
                metrics().not_admitted.increment(1);
                tracing::info!(connection = %client.id, user = %client.user(), code = code.code(), "a connection is not admitted");
                client.outbox.close(code.into());
            }
            // The store is away: what cannot be known does not keep anybody out who has a good token. It is asked again
            // when the store is back.
            Err(error) => {
                tracing::debug!(connection = %client.id, %error, "whether a connection may be here is not known");
            }
        }
        client.release();
    });
    Some(counted)
}

async fn ask(
    context: &SessionContext,
    client: &Client,
    address: Option<Box<str>>,
    counted: &Counted,
) -> Result<Option<CloseCode>, StoreError> {
    if let Some(code) = look(context, client).await? {
        return Ok(Some(code));
    }
    let user = Holder::User(client.user().clone());
    let address = address.map(Holder::Address);
    let limits = [(Some(user), context.most.user), (address, context.most.address)];
    for (holder, most) in limits {
        if let Some(holder) = holder.filter(|_| most > 0) {
            if !context.store.users().enter(&holder, most).await? {
                return Ok(Some(CloseCode::TooManyConnections));
            }
            counted.holders.lock().push(holder);
        }
    }
    Ok(None)
}

/// Whether a client's user and token are still good, where tokens are asked for.
pub(super) async fn look(context: &SessionContext, client: &Client) -> Result<Option<CloseCode>, StoreError> {
    if matches!(context.auth, Authenticator::Anonymous) {
        return Ok(None);
    }
    let id = client.token_id();
    let standing = context
        .store
        .users()
        .standing(client.user(), id.as_deref())
        .await?;
    Ok(verdict(&standing, client))
}

fn verdict(standing: &Standing, client: &Client) -> Option<CloseCode> {
    if standing.is_blocked {
        Some(CloseCode::Blocked)
    } else if standing.token_is_revoked || client.token_is_before(standing.revoked_before) {
        Some(CloseCode::TokenRevoked)
    } else {
        None
    }
}

/// Asks whether a client may stay with a token that it has just handed over. It is not read until that is known.
pub(super) fn look_again(context: &Arc<SessionContext>, client: &Arc<Client>) {
    client.hold();
    let (context, client) = (context.clone(), client.clone());
    tokio::spawn(async move {
        if let Ok(Some(code)) = look(&context, &client).await {
            metrics().not_admitted.increment(1);
            client.outbox.close(code.into());
        }
        client.release();
    });
}

/// Asks the same of every client, some at a time: what was said to all nodes may have been missed.
pub async fn look_at_all(context: &SessionContext, clients: Vec<Arc<Client>>) {
    for client in clients {
        match look(context, &client).await {
            Ok(Some(code)) => {
                client.outbox.close(code.into());
            }
            Ok(None) => {}
            Err(error) => {
                tracing::debug!(%error, "whether connections may stay is not known");
                return;
            }
        }
    }
}
