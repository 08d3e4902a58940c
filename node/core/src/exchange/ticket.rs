//! Tickets: the right of one node to read one granted document until the lease ends.
//!
//! A ticket is 32 random bytes and works only over the channel of the node it was given to. It grants nothing
//! by itself: the custodian decides again at every transfer.

use core::fmt;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hie_protocol::bytes::Bytes;
use hie_protocol::id::{Correlation, DocumentId, Millis, NodeKey, Ticket};
use hie_protocol::retrieval::TICKET_LIFE_MS;

use crate::policy::decide::Asker;
use crate::ports::{NoRandomness, Random, random_bytes};
use crate::record::release::ReleasedStudy;

/// Tickets in force at a time.
pub const TICKETS_MAX: usize = 262_144;

/// What a ticket stands for.
#[derive(Clone, Debug)]
pub struct Granted {
    /// The node it was given to.
    pub node: NodeKey,
    /// The document.
    pub document: DocumentId,
    /// Who asked.
    pub asker: Asker,
    /// The question.
    pub correlation: Correlation,
    /// When it ends.
    pub expires: Millis,
}

/// A study that was released under a ticket: one audit entry for all of its instances.
pub struct Session {
    /// The study.
    pub study: ReleasedStudy,
    /// The signed receipt of its audit entry.
    pub receipt: Bytes,
}

/// Tickets in force.
#[derive(Default)]
pub struct Tickets {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    granted: HashMap<Ticket, Granted>,
    sessions: HashMap<Ticket, Arc<Session>>,
    swept: Millis,
}

impl fmt::Debug for Tickets {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Tickets")
    }
}

impl Tickets {
    /// Mints a ticket; none when too many are in force. Errors: [`NoRandomness`].
    pub fn mint(&self, granted: Granted, now: Millis, random: &dyn Random) -> Result<Option<Ticket>, NoRandomness> {
        let ticket = Ticket::new(random_bytes(random)?);
        let mut inner = self.lock();
        if now.since(inner.swept) >= TICKET_LIFE_MS / 15 || inner.granted.len() >= TICKETS_MAX {
            inner.sweep(now);
        }
        if inner.granted.len() >= TICKETS_MAX {
            return Ok(None);
        }
        inner.granted.insert(ticket, granted);
        Ok(Some(ticket))
    }

    /// What a ticket stands for, for the node that holds the channel.
    #[must_use]
    pub fn find(&self, ticket: &Ticket, node: &NodeKey, now: Millis) -> Option<Granted> {
        let inner = self.lock();
        inner
            .granted
            .get(ticket)
            .filter(|granted| granted.node == *node && now <= granted.expires)
            .cloned()
    }

    /// The released study of a ticket, while its permit is in force.
    #[must_use]
    pub fn session(&self, ticket: &Ticket) -> Option<Arc<Session>> {
        let mut inner = self.lock();
        let session = inner.sessions.get(ticket).cloned()?;
        if session.study.holds().is_err() {
            inner.sessions.remove(ticket);
            return None;
        }
        Some(session)
    }

    /// Remembers a released study under its ticket.
    pub fn remember(&self, ticket: Ticket, session: Arc<Session>) {
        let mut inner = self.lock();
        if inner.granted.contains_key(&ticket) {
            inner.sessions.insert(ticket, session);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn sweep(&mut self, now: Millis) {
        self.swept = now;
        self.granted.retain(|_, granted| now <= granted.expires);
        let granted = &self.granted;
        self.sessions
            .retain(|ticket, session| granted.contains_key(ticket) && session.study.holds().is_ok());
    }
}
