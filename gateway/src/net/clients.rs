//! Every WebSocket of this node, to be told what concerns all of them: that they are to end, or that the store is away.

use std::{collections::HashMap, sync::Arc};

use bytes::Bytes;
use parking_lot::Mutex;
use roomgate_shared::{
    ids::ConnectionId,
    protocol::{CloseCode, event::status_text},
};

use crate::{
    hub::{Client, Closing, text_frame},
    store::Control,
};

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

    /// Asks those that `concerned` names to end so. How many there are.
    pub fn close_some(&self, closing: &Closing, concerned: impl Fn(&Client) -> bool) -> usize {
        let inner = self.0.lock();
        let concerned = inner.clients.values().filter(|entry| concerned(&entry.client));
        concerned
            .filter(|entry| entry.client.outbox.close(closing.clone()))
            .count()
    }

    /// Every connection that speaks the protocol and has said who it is.
    pub fn known(&self) -> Vec<Arc<Client>> {
        let inner = self.0.lock();
        let speaking = inner.clients.values().filter(|entry| entry.speaks);
        let clients = speaking.map(|entry| &entry.client);
        clients.filter(|client| client.is_known()).cloned().collect()
    }

    /// Does what an operator has said to every node. How many connections end by it.
    pub fn control(&self, control: &Control) -> usize {
        match control {
            Control::Revoked { user, before } => self.close_some(&CloseCode::TokenRevoked.into(), |client| {
                client.is_of(user) && client.token_is_before(*before)
            }),
            Control::TokenRevoked(id) => {
                self.close_some(&CloseCode::TokenRevoked.into(), |client| client.token_is(id))
            }
            Control::Blocked(user) => {
                self.close_some(&CloseCode::Blocked.into(), |client| client.is_of(user))
            }
            Control::Disconnect(user) => {
                let closing = Closing {
                    code: CloseCode::Policy.code(),
                    reason: "disconnected by the operator".to_owned(),
                };
                self.close_some(&closing, |client| client.is_of(user))
            }
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

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use roomgate_shared::ids::UserId;

    use super::*;

    fn client(number: u64) -> Arc<Client> {
        let (id, user) = (ConnectionId::new(1, number), UserId::new("u").unwrap());
        Arc::new(Client::new(id, user, "u".into(), 1024))
    }

    #[test]
    fn who_has_not_said_who_it_is_is_nobodys() {
        let clients = Clients::default();
        let nobody = UserId::new("nobody").unwrap();
        let silent = Arc::new(Client::unknown(ConnectionId::new(1, 1), 1024));
        let named = Arc::new(Client::new(
            ConnectionId::new(1, 2),
            nobody.clone(),
            "n".into(),
            1024,
        ));
        clients.insert(silent.clone(), true);
        clients.insert(named.clone(), true);
        let known: Vec<_> = clients.known().iter().map(|client| client.id).collect();
        assert_eq!(known, [named.id]);
        assert_eq!(clients.control(&Control::Disconnect(nobody.clone())), 1);
        assert_eq!(clients.control(&Control::Blocked(nobody.clone())), 0);
        let revoked = Control::Revoked {
            user: nobody,
            before: u64::MAX,
        };
        assert_eq!(clients.control(&revoked), 0);
    }

    fn told(client: &Client) -> Vec<Bytes> {
        let mut queue = VecDeque::new();
        client.outbox.take(&mut queue, None);
        queue.into_iter().map(|piece| piece.frames).collect()
    }

    #[test]
    fn each_that_speaks_is_told_once_of_each_change_and_who_comes_meanwhile_of_the_outage() {
        let clients = Clients::default();
        let [early, echo, late, after] = [1, 2, 3, 4].map(client);
        clients.insert(early.clone(), true);
        clients.insert(echo.clone(), false);
        assert!(told(&early).is_empty());
        clients.tell(true);
        assert_eq!(told(&early), [status_frame(true)]);
        late.outbox.push_answer(Bytes::from_static(b"welcome"));
        clients.insert(late.clone(), true);
        assert_eq!(told(&late), [Bytes::from_static(b"welcome"), status_frame(true)]);
        clients.tell(false);
        assert_eq!(told(&early), [status_frame(false)]);
        assert_eq!(told(&late), [status_frame(false)]);
        clients.insert(after.clone(), true);
        clients.remove(early.id);
        clients.tell(true);
        assert!(told(&early).is_empty());
        assert_eq!(told(&after), [status_frame(true)]);
        assert!(told(&echo).is_empty());
    }
}
