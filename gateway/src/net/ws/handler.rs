//! Who gets a connection's messages: the protocol's session, or the echo of the test route.

use std::sync::Arc;

use fastwebsockets::OpCode;
use roomgate_shared::protocol::CloseCode;
use tokio::time::Instant;

use crate::{
    hub::{Client, Closing, message_frame},
    session::Session,
};

/// What the connection's task needs of whoever it serves.
pub trait Handler: Send + 'static {
    /// The connection, with the outbox that the task empties.
    fn client(&self) -> &Arc<Client>;

    /// A text message, checked to be UTF-8; its bytes may be changed.
    ///
    /// # Errors
    /// The connection is to be closed so.
    fn text(&mut self, message: &mut [u8]) -> Result<(), Closing>;

    /// A binary message.
    ///
    /// # Errors
    /// The connection is to be closed so.
    fn binary(&mut self, message: &mut [u8]) -> Result<(), Closing>;

    /// Whether more may be read now: everything that has been read is under way, and the client takes its answers. If not,
    /// its task is woken when that may have changed.
    fn may_read(&mut self) -> bool {
        self.client().may_read()
    }

    /// A time at which [`Handler::due`] is to be called, if it has changed.
    fn take_alarm(&mut self) -> Option<Instant> {
        None
    }

    /// Does what is due at `now`; says when something is due next.
    ///
    /// # Errors
    /// The connection is to be closed so.
    fn due(&mut self, _now: Instant) -> Result<Option<Instant>, Closing> {
        Ok(None)
    }

    /// The connection ends. `leaving`: by the client's close with 1000.
    fn closed(&mut self, leaving: bool);
}

/// Speaks the protocol.
pub struct SessionHandler(pub Session);

impl Handler for SessionHandler {
    fn client(&self) -> &Arc<Client> {
        self.0.client()
    }

    fn text(&mut self, message: &mut [u8]) -> Result<(), Closing> {
        self.0.frame(message)
    }

    fn binary(&mut self, _: &mut [u8]) -> Result<(), Closing> {
        Err(CloseCode::Unsupported.into())
    }

    fn may_read(&mut self) -> bool {
        self.0.proceed()
    }

    fn take_alarm(&mut self) -> Option<Instant> {
        self.0.take_alarm()
    }

    fn due(&mut self, now: Instant) -> Result<Option<Instant>, Closing> {
        self.0.due(now)
    }

    fn closed(&mut self, leaving: bool) {
        self.0.close(leaving);
    }
}

/// Sends every message back. For conformance tests of the transport; the route is off unless asked for.
pub struct Echo(pub Arc<Client>);

impl Handler for Echo {
    fn client(&self) -> &Arc<Client> {
        &self.0
    }

    fn text(&mut self, message: &mut [u8]) -> Result<(), Closing> {
        self.0.outbox.push_answer(message_frame(OpCode::Text, message));
        Ok(())
    }

    fn binary(&mut self, message: &mut [u8]) -> Result<(), Closing> {
        self.0.outbox.push_answer(message_frame(OpCode::Binary, message));
        Ok(())
    }

    fn closed(&mut self, _: bool) {}
}
