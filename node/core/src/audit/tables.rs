//! The log's tables: pure keys and entries, and the few reads that everybody needs.

use hie_protocol::checkpoint::SignedCheckpoint;
use hie_protocol::id::OrgId;
use hie_protocol::merkle::Hash;
use zeroize::Zeroizing;

use super::AuditError;
use super::event::{AuditEvent, EventKind};
use crate::catalogue::Table;
use crate::kv::{KvRead, Scan};
use crate::vault::{KeyScope, Vault, VaultError};

/// Number in the index of kinds under which everything about emergency access stands.
pub(super) const EMERGENCY_TAG: u8 = 0;

/// Big-endian index.
pub(super) const fn index_key(index: u64) -> [u8; 8] {
    index.to_be_bytes()
}

/// The index at the end of a key.
pub(super) fn index_of(key: &[u8]) -> Option<u64> {
    key.last_chunk::<8>().map(|bytes| u64::from_be_bytes(*bytes))
}

pub(super) fn node_key(level: u8, index: u64) -> Vec<u8> {
    with_index(&[level], index)
}

pub(super) fn with_index(prefix: &[u8], index: u64) -> Vec<u8> {
    [prefix, &index.to_be_bytes()].concat()
}

/// A user's place in the index.
pub(super) fn user_key(vault: &Vault, org: &OrgId, user: &str) -> [u8; 16] {
    vault.blind_key("audit user", format!("{org}\n{user}").as_bytes())
}

/// Whether an event belongs to the review of emergency access.
pub(super) fn is_emergency(event: &AuditEvent) -> bool {
    event.emergency.is_some() || matches!(event.kind, EventKind::EmergencyDeclared | EventKind::EmergencyUsed)
}

/// Every index entry of an event.
pub(super) fn index_entries(vault: &Vault, index: u64, event: &AuditEvent) -> Vec<(Table, Vec<u8>)> {
    let user = user_key(vault, &event.actor.org, &event.actor.user);
    let mut entries = vec![
        (Table::AuditByUser, with_index(&user, index)),
        (
            Table::AuditByCorrelation,
            with_index(event.correlation.as_bytes(), index),
        ),
        (Table::AuditByKind, with_index(&[event.kind.tag()], index)),
    ];
    if let Some(patient) = event.patient {
        entries.push((Table::AuditByPatient, with_index(&patient.0, index)));
    }
    if is_emergency(event) {
        entries.push((Table::AuditByKind, with_index(&[EMERGENCY_TAG], index)));
    }
    entries
}

pub(super) fn seal(vault: &Vault, index: u64, canonical: &[u8]) -> Result<Vec<u8>, VaultError> {
    vault.seal(KeyScope::Node, Table::AuditLeaves, &index_key(index), canonical)
}

pub(super) fn open(vault: &Vault, index: u64, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, VaultError> {
    vault.open_value(KeyScope::Node, Table::AuditLeaves, &index_key(index), sealed)
}

/// A stored tree node; none when it is missing, malformed or unreadable (a proof then fails, never lies).
pub(super) fn node(kv: &dyn KvRead, level: u8, index: u64) -> Option<Hash> {
    kv.get(Table::AuditNodes, &node_key(level, index))
        .ok()
        .flatten()?
        .try_into()
        .ok()
}

pub(super) fn latest_checkpoint(kv: &dyn KvRead) -> Result<Option<SignedCheckpoint>, AuditError> {
    let newest = kv.scan(&Scan::of(Table::AuditCheckpoints, &[]).backward().limit(1))?;
    newest
        .first()
        .map(|(_, text)| Ok(SignedCheckpoint::parse(text)?))
        .transpose()
}
