//! References to documents of any organisation: opaque, bound to the account that got them, durable.
//!
//! The same document gives the same account the same reference, so that a list read twice names things alike.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use hie_gateway::ports::{DocumentRef, PortError};
use hie_node_core::catalogue::Table;
use hie_node_core::exchange::fanout::RemoteDocument;
use hie_node_core::kv::{Batch, Kv};
use hie_node_core::vault::{KeyScope, Vault};
use hie_node_core::versioned::{self, Stored};
use hie_protocol::id::{Millis, OrgId};
use hie_protocol::message::{Demographics, DocumentMeta};
use hie_protocol::refusal::Class;
use serde::{Deserialize, Serialize};

use super::port_error;

/// Tickets remembered in memory; more are asked for again.
pub const TICKETS_MAX: usize = 100_000;

/// What a reference stands for.
#[derive(Clone, Serialize, Deserialize)]
pub struct Row {
    /// Account that got it.
    pub account: String,
    /// Custodian.
    pub org: OrgId,
    /// The document as the custodian described it.
    pub meta: DocumentMeta,
    /// The person it is about, as she was asked for.
    pub person: Demographics,
}

impl Stored for Row {
    const VERSION: u8 = 1;
}

/// A ticket with the purpose it was given for.
#[derive(Clone)]
struct Held {
    remote: RemoteDocument,
    emergency: bool,
}

/// References and the tickets behind them.
pub struct References {
    kv: Arc<dyn Kv>,
    vault: Arc<Vault>,
    tickets: Mutex<HashMap<String, Held>>,
}

impl References {
    /// Over the store.
    #[must_use]
    pub fn new(kv: Arc<dyn Kv>, vault: Arc<Vault>) -> Self {
        Self {
            kv,
            vault,
            tickets: Mutex::default(),
        }
    }

    fn key(&self, account: &str, org: &OrgId, meta: &DocumentMeta) -> [u8; 16] {
        let name = [
            account.as_bytes(),
            b"\0",
            org.as_str().as_bytes(),
            b"\0",
            meta.id.as_bytes(),
        ]
        .concat();
        self.vault.blind_key("document-ref", &name)
    }

    /// References of documents just granted; durable when this returns. Blocks for a sync.
    pub fn mint(
        &self,
        account: &str,
        person: &Demographics,
        granted: &[RemoteDocument],
        emergency: bool,
    ) -> Result<Vec<DocumentRef>, PortError> {
        let failed = |error: &dyn std::error::Error| {
            port_error(Class::Broken, "The answer could not be kept. Try again.", error)
        };
        let mut batch = Batch::new();
        let mut references = Vec::with_capacity(granted.len());
        for remote in granted {
            let key = self.key(account, &remote.org, &remote.meta);
            let row = Row {
                account: account.to_owned(),
                org: remote.org.clone(),
                meta: remote.meta.clone(),
                person: person.clone(),
            };
            let plain = versioned::encode(&row).map_err(|error| failed(&error))?;
            let known = self.kv.get(Table::DocumentRefs, &key).map_err(|error| failed(&error))?;
            let same = known.is_some_and(|sealed| {
                let opened = self
                    .vault
                    .open_value(KeyScope::Node, Table::DocumentRefs, &key, &sealed);
                opened.is_ok_and(|held| held.as_slice() == plain.as_slice())
            });
            if !same {
                let sealed = self.vault.seal(KeyScope::Node, Table::DocumentRefs, &key, &plain);
                batch.put(Table::DocumentRefs, key, sealed.map_err(|error| failed(&error))?);
            }
            let reference = hex::encode(key);
            let mut tickets = self.tickets.lock().unwrap_or_else(PoisonError::into_inner);
            if tickets.len() >= TICKETS_MAX {
                tickets.clear();
            }
            tickets.insert(
                reference.clone(),
                Held {
                    remote: remote.clone(),
                    emergency,
                },
            );
            references.push(DocumentRef(reference));
        }
        if !batch.is_empty() {
            self.kv.commit(batch).map_err(|error| failed(&error))?;
        }
        Ok(references)
    }

    /// What a reference of this account stands for; none when there is none for it.
    pub fn row(&self, account: &str, reference: &DocumentRef) -> Result<Option<Row>, PortError> {
        let failed = |error: &dyn std::error::Error| {
            port_error(Class::Broken, "The reference could not be read. Try again.", error)
        };
        let Some(key) = hex::decode(&reference.0).ok().filter(|key| key.len() == 16) else {
            return Ok(None);
        };
        let Some(sealed) = self.kv.get(Table::DocumentRefs, &key).map_err(|error| failed(&error))? else {
            return Ok(None);
        };
        let plain = self
            .vault
            .open_value(KeyScope::Node, Table::DocumentRefs, &key, &sealed);
        let row: Row = versioned::decode(&plain.map_err(|error| failed(&error))?).map_err(|error| failed(&error))?;
        Ok(Some(row).filter(|row| row.account == account))
    }

    /// A ticket that still works for that purpose.
    #[must_use]
    pub fn ticket(&self, reference: &DocumentRef, emergency: bool, now: Millis) -> Option<RemoteDocument> {
        let tickets = self.tickets.lock().unwrap_or_else(PoisonError::into_inner);
        let held = tickets.get(&reference.0)?;
        (held.emergency == emergency && held.remote.expires > now).then(|| held.remote.clone())
    }
}
