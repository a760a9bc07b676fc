//! Every WebSocket of this node, to be told what concerns all of them: that they are to end, or that the store is away.

use std::{collections::HashMap, sync::Arc};

use bytes::Bytes;
use parking_lot::Mutex;
use roomgate_shared::{ids::ConnectionId, protocol::event::status_text};

use crate::hub::{Client, Closing, text_frame};

/// See the module.
#[derive(Default)]
pub struct Clients(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    clients: HashMap<ConnectionId, Entry>,
    away: bool,
}

struct Entry {
    client: Arc<Client>,
    /// It speaks the protocol, as against the echo.
    speaks: bool,
}

impl Clients {
    /// Adds a connection. While the store is away, one that speaks the protocol is told so: it has been given its `welcome`
    /// and nothing else yet.
    pub fn insert(&self, client: Arc<Client>, speaks: bool) {
        let mut inner = self.0.lock();
        if inner.away && speaks {
            client.outbox.push_answer(status_frame(true));
        }
        inner.clients.insert(client.id, Entry { client, speaks });
    }

    /// Removes a connection.
    pub fn remove(&self, id: ConnectionId) {
        self.0.lock().clients.remove(&id);
    }

    /// Asks every connection to end so. Telling one twice does nothing.
    pub fn close(&self, closing: &Closing) {
        for entry in self.0.lock().clients.values() {
            entry.client.outbox.close(closing.clone());
        }
    }

    /// Tells every connection by `status` that the store is away, or back.
    pub fn tell(&self, away: bool) {
        let mut inner = self.0.lock();
        inner.away = away;
        let frame = status_frame(away);
        for entry in inner.clients.values().filter(|entry| entry.speaks) {
            // As an answer: a reader that lags is not closed for it, and it comes twice an outage.
            entry.client.outbox.push_answer(frame.clone());
        }
    }
}

fn status_frame(away: bool) -> Bytes {
    text_frame(status_text(away))
}
