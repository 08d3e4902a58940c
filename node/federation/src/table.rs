//! What the machine keeps: ordered tables of bytes, read through [`Kept`], written as [`Change`]s.
//!
//! The shell stores each change under `(table, key)` and knows nothing of its meaning. A change is
//! visible to the machine at once through its ledger, and durable when the shell says `Persisted`.
//! Keys are big-endian, so that a scan in key order is a scan in time.

use std::collections::BTreeMap;

use hie_protocol::bytes::Bytes;
use hie_protocol::cbor;
use hie_protocol::id::{IndexKey, Millis, OrgId, RecordHandle, Sequence};
use hie_protocol::record::{IndexRecord, RECORD_BYTES_MAX, RecordId, SignedRecord, VerifiedRecord};
use hie_protocol::sign;

use crate::port::{Effect, PersistId};

/// The tables of the federated index at one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Table {
    /// Held records: record key -> [`Entry`].
    Held,
    /// Expiry of held records: time, record key -> nothing.
    HeldExpiry,
    /// Number of held records of an owner: organisation id -> count.
    HeldCount,
    /// The latest version of each own record: record key -> [`Entry`].
    Own,
    /// When an own record must be renewed, or its tombstone forgotten: time, record key -> nothing.
    OwnDue,
    /// Own records that a holder has not confirmed: organisation id, 0, record key -> nothing.
    Outbox,
    /// Holder sets, what is settled, what is placed.
    Membership,
}

impl Table {
    /// Every table, in the order of their numbers.
    pub const ALL: [Self; 7] = [
        Self::Held,
        Self::HeldExpiry,
        Self::HeldCount,
        Self::Own,
        Self::OwnDue,
        Self::Outbox,
        Self::Membership,
    ];

    /// Name in the table catalogue of a shell.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Held => "index-held",
            Self::HeldExpiry => "index-held-expiry",
            Self::HeldCount => "index-held-count",
            Self::Own => "index-own",
            Self::OwnDue => "index-own-due",
            Self::Outbox => "index-outbox",
            Self::Membership => "index-membership",
        }
    }
}

/// One write: a value to put, or none to delete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Table.
    pub table: Table,
    /// Key within the table.
    pub key: Vec<u8>,
    /// Value, or none to delete the key.
    pub value: Option<Vec<u8>>,
}

/// Reads what the shell has stored. A shell whose disk cannot be read ends the process; it never answers
/// "nothing here" instead.
pub trait Kept {
    /// The value of a key.
    fn get(&self, table: Table, key: &[u8]) -> Option<Vec<u8>>;
    /// At most `max` pairs in key order whose key starts with `prefix` and is not less than `from`.
    fn scan(&self, table: Table, prefix: &[u8], from: &[u8], max: usize) -> Vec<(Vec<u8>, Vec<u8>)>;
}

/// Name of a record in every table: index key (32), handle (16), organisation id as text.
pub(crate) type RecordKey = Vec<u8>;

/// The table key of a record.
#[must_use]
pub fn record_key(id: &RecordId) -> Vec<u8> {
    [
        id.key.as_bytes().as_slice(),
        id.handle.as_bytes().as_slice(),
        id.owner.as_str().as_bytes(),
    ]
    .concat()
}

/// The index key that a record key starts with.
pub(crate) fn index_key(key: &[u8]) -> Option<IndexKey> {
    IndexKey::from_slice(key.get(..IndexKey::LEN)?).ok()
}

/// The owner that a record key ends with.
pub(crate) fn owner_of(key: &[u8]) -> Option<OrgId> {
    let text = key.get(IndexKey::LEN + RecordHandle::LEN..)?;
    OrgId::parse(core::str::from_utf8(text).ok()?).ok()
}

/// A record key under a time.
pub(crate) fn timed(at: Millis, key: &[u8]) -> Vec<u8> {
    [at.0.to_be_bytes().as_slice(), key].concat()
}

/// Splits a key written by [`timed`].
pub(crate) fn untimed(key: &[u8]) -> Option<(Millis, &[u8])> {
    let (time, rest) = key.split_at_checked(8)?;
    Some((Millis(u64::from_be_bytes(time.try_into().ok()?)), rest))
}

/// Everything in the outbox for one holder starts so.
pub(crate) fn lane_prefix(holder: &OrgId) -> Vec<u8> {
    [holder.as_str().as_bytes(), &[0]].concat()
}

/// The outbox key of a record for one holder.
pub(crate) fn lane_key(holder: &OrgId, key: &[u8]) -> Vec<u8> {
    [holder.as_str().as_bytes(), &[0], key].concat()
}

/// A stored record: marker 1, sequence, expiry, tombstone flag, then the signed bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Sequence of this version.
    pub sequence: Sequence,
    /// Expiry.
    pub expires: Millis,
    /// Whether it is a tombstone.
    pub tombstone: bool,
    /// The signed bytes.
    pub signed: SignedRecord,
}

/// Version marker in front of each stored record.
const ENTRY_VERSION: u8 = 1;

impl Entry {
    /// The entry of a verified record.
    #[must_use]
    pub fn of(verified: &VerifiedRecord) -> Self {
        let record = verified.record();
        Self {
            sequence: record.sequence,
            expires: record.expires,
            tombstone: record.is_tombstone(),
            signed: verified.signed().clone(),
        }
    }

    /// The stored bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![ENTRY_VERSION];
        bytes.extend_from_slice(&self.sequence.0.to_be_bytes());
        bytes.extend_from_slice(&self.expires.0.to_be_bytes());
        bytes.push(u8::from(self.tombstone));
        bytes.extend_from_slice(&self.signed.0);
        bytes
    }

    /// Reads stored bytes; none when they are not an entry of a known version.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let rest = bytes.strip_prefix(&[ENTRY_VERSION])?;
        let (sequence, rest) = rest.split_at_checked(8)?;
        let (expires, rest) = rest.split_at_checked(8)?;
        let (tombstone, signed) = rest.split_first()?;
        Some(Self {
            sequence: Sequence(u64::from_be_bytes(sequence.try_into().ok()?)),
            expires: Millis(u64::from_be_bytes(expires.try_into().ok()?)),
            tombstone: *tombstone == 1,
            signed: Bytes(signed.to_vec()),
        })
    }

    /// The record inside: it was verified before it was stored.
    #[must_use]
    pub fn record(&self) -> Option<IndexRecord> {
        let payload = sign::peek(&self.signed.0, RECORD_BYTES_MAX).ok()?;
        cbor::decode(&payload, RECORD_BYTES_MAX).ok()
    }
}

/// What happens once a sync is confirmed.
#[derive(Debug)]
pub(crate) enum After {
    /// The effect leaves.
    Emit(Box<Effect>),
    /// Own records became durable here: they may travel, and this holder's own copy counts.
    Publish(Vec<(RecordKey, Sequence)>),
}

type Place = (Table, Vec<u8>);

/// Writes on their way: visible to the machine, not yet durable.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    next: u64,
    overlay: BTreeMap<Place, (u64, Option<Vec<u8>>)>,
    written: BTreeMap<u64, Vec<Place>>,
    batch: Vec<Change>,
    after: BTreeMap<u64, Vec<After>>,
}

impl Ledger {
    /// Puts or deletes a key within the batch of this step.
    pub(crate) fn write(&mut self, table: Table, key: Vec<u8>, value: Option<Vec<u8>>) {
        let place = (table, key.clone());
        self.overlay.insert(place.clone(), (self.next, value.clone()));
        self.written.entry(self.next).or_default().push(place);
        self.batch.push(Change { table, key, value });
    }

    /// Runs `after` when everything written so far is durable; gives it back when it already is.
    pub(crate) fn defer(&mut self, after: After) -> Option<After> {
        let wait = if self.batch.is_empty() {
            self.written.last_key_value().map(|(id, _)| *id)
        } else {
            Some(self.next)
        };
        match wait {
            Some(id) => {
                self.after.entry(id).or_default().push(after);
                None
            }
            None => Some(after),
        }
    }

    /// How many syncs are awaited.
    pub(crate) fn waiting(&self) -> usize {
        self.written.len()
    }

    /// Closes the batch of this step.
    pub(crate) fn close(&mut self) -> Option<Effect> {
        if self.batch.is_empty() {
            return None;
        }
        let id = PersistId(self.next);
        self.next = self.next.saturating_add(1);
        Some(Effect::Persist {
            id,
            changes: core::mem::take(&mut self.batch),
        })
    }

    /// Everything up to `id` is durable: what now happens.
    pub(crate) fn persisted(&mut self, id: PersistId) -> Vec<After> {
        let later = id.0.saturating_add(1);
        let open = self.written.split_off(&later);
        for (number, places) in core::mem::replace(&mut self.written, open) {
            for place in places {
                if self.overlay.get(&place).is_some_and(|(written, _)| *written == number) {
                    self.overlay.remove(&place);
                }
            }
        }
        let open = self.after.split_off(&later);
        core::mem::replace(&mut self.after, open)
            .into_values()
            .flatten()
            .collect()
    }

    /// Reads a key as this machine last wrote it.
    pub(crate) fn get(&self, kept: &dyn Kept, table: Table, key: &[u8]) -> Option<Vec<u8>> {
        match self.overlay.get(&(table, key.to_vec())) {
            Some((_, value)) => value.clone(),
            None => kept.get(table, key),
        }
    }

    /// Scans as [`Kept::scan`] does, with the writes on their way laid over.
    pub(crate) fn scan(
        &self,
        kept: &dyn Kept,
        table: Table,
        prefix: &[u8],
        from: &[u8],
        max: usize,
    ) -> Vec<(Vec<u8>, Vec<u8>)> {
        let start = if from > prefix { from } else { prefix };
        let over: Vec<(&Vec<u8>, &Option<Vec<u8>>)> = self
            .overlay
            .range((table, start.to_vec())..)
            .take_while(|((at, key), _)| *at == table && key.starts_with(prefix))
            .map(|((_, key), (_, value))| (key, value))
            .collect();
        let deleted = over.iter().filter(|(_, value)| value.is_none()).count();
        let stored = kept.scan(table, prefix, start, max.saturating_add(deleted));
        let mut merged: BTreeMap<Vec<u8>, Vec<u8>> = stored.into_iter().collect();
        for (key, value) in over {
            match value {
                Some(value) => {
                    merged.insert(key.clone(), value.clone());
                }
                None => {
                    merged.remove(key);
                }
            }
        }
        merged.into_iter().take(max).collect()
    }
}

#[cfg(test)]
mod tests;
