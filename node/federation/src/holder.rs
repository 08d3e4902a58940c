//! The holder: keeps what owners sign, shows it to whom no label excludes, forgets what is expired.
//!
//! It grants nothing. `Stored` leaves only after the sync (SPEC F-SYNC). It keeps the highest sequence of
//! each record (SPEC F-HIGHEST), tombstones included until they expire (SPEC F-TOMBSTONE).

use hie_protocol::id::{IndexKey, Millis, OrgId, RecordHandle};
use hie_protocol::message::{
    Cursor, FOUND_RECORDS_MAX, IndexMessage, LOOKUP_KEYS_MAX, STORE_RECORDS_MAX, StoreOutcome,
};
use hie_protocol::record::{RecordId, SignedRecord, VerifiedRecord};
use hie_protocol::version::V2;

use crate::config::{
    CLOCK_SKEW_MS_MAX, MESSAGE_RECORD_BYTES_MAX, PURGE_RECORDS_PER_CHORE_MAX, Planted, SYNCS_WAITING_MAX,
};
use crate::machine::{Federation, Turn};
use crate::port::{Effect, Misbehaviour};
use crate::table::{After, Entry, Table, owner_of, record_key, timed, untimed};

/// Life of a tombstone under the planted bug, in milliseconds.
const PLANTED_TOMBSTONE_MS: u64 = 3000;

impl Federation {
    /// Whether this node, a holder of `key`, holds everything acknowledged under it.
    pub(crate) fn is_whole(&self, key: &IndexKey) -> bool {
        self.members.whole(key, &self.config.me)
    }

    /// A `Store` came in: keep what holds, answer after the sync.
    pub(crate) fn store(&mut self, turn: &mut Turn<'_>, from: &OrgId, id: u64, records: &[SignedRecord]) {
        if records.len() > STORE_RECORDS_MAX || self.ledger.waiting() > SYNCS_WAITING_MAX {
            return;
        }
        if records.is_empty() {
            // The owner's announcement: the id is a registry version.
            self.members.hear(from, id, &mut self.ledger);
            self.members.review(&self.registry, turn.now, &mut self.ledger);
        }
        let mut forged = false;
        let outcomes: Vec<StoreOutcome> = records
            .iter()
            .map(|signed| match self.verify(signed) {
                Ok(record) => self.hold(turn, &record),
                Err(error) => {
                    forged |= is_forgery(&error);
                    StoreOutcome::Refused
                }
            })
            .collect();
        if forged {
            turn.emit(Effect::Misbehaved {
                org: from.clone(),
                what: Misbehaviour::Forged,
            });
        }
        let answer = Effect::Send {
            to: from.clone(),
            message: IndexMessage::Stored { id, outcomes },
        };
        if self.config.has(Planted::AcknowledgeBeforeSync) {
            turn.emit(answer);
        } else {
            self.after_sync(turn, After::Emit(Box::new(answer)));
        }
    }

    /// Keeps one verified record if it is placed here, in time, within its owner's quota, and newer.
    pub(crate) fn hold(&mut self, turn: &mut Turn<'_>, verified: &VerifiedRecord) -> StoreOutcome {
        let record = verified.record();
        let Some(set) = self.members.current() else {
            return StoreOutcome::Misplaced;
        };
        if !set.places_at(&record.key, &self.config.me) {
            return StoreOutcome::Misplaced;
        }
        let furthest = turn
            .now
            .plus(self.registry.policy.tombstone_life_ms)
            .plus(CLOCK_SKEW_MS_MAX.saturating_mul(2));
        if record.expires.plus(CLOCK_SKEW_MS_MAX) < turn.now || record.expires > furthest {
            return StoreOutcome::Refused;
        }
        let key = record_key(&record.id());
        let before = self
            .ledger
            .get(turn.kept, Table::Held, &key)
            .and_then(|bytes| Entry::decode(&bytes));
        match &before {
            Some(entry) if self.supersedes(entry, verified) => return StoreOutcome::Held,
            Some(entry) => self.ledger.write(Table::HeldExpiry, timed(entry.expires, &key), None),
            None => {
                let count = self.held_count(turn, &record.owner);
                if count >= self.config.held_records_per_owner_max && !self.config.has(Planted::QuotaIgnored) {
                    return StoreOutcome::Refused;
                }
                self.write_count(&record.owner, count.saturating_add(1));
            }
        }
        let mut entry = Entry::of(verified);
        if entry.tombstone && self.config.has(Planted::TombstoneDroppedEarly) {
            entry.expires = Millis(turn.now.plus(PLANTED_TOMBSTONE_MS).0.saturating_sub(CLOCK_SKEW_MS_MAX));
        }
        self.ledger
            .write(Table::HeldExpiry, timed(entry.expires, &key), Some(Vec::new()));
        self.ledger.write(Table::Held, key, Some(entry.encode()));
        StoreOutcome::Held
    }

    /// Whether what is held is this version or a later one.
    fn supersedes(&self, held: &Entry, offered: &VerifiedRecord) -> bool {
        let older = held.sequence > offered.record().sequence && !self.config.has(Planted::HolderTakesOlder);
        older || held.sequence == offered.record().sequence
    }

    /// Everything under the keys that `asker` may see, and whether that is all there is. A single key that holds
    /// more than fits is read page by page by an asker that speaks version 2 (SPEC F-PAGES).
    pub(crate) fn look_up(&self, turn: &Turn<'_>, keys: &[IndexKey], after: Option<&Cursor>, asker: &OrgId) -> Shown {
        let mut shown = Shown {
            records: Vec::new(),
            whole: keys.len() <= LOOKUP_KEYS_MAX && (after.is_none() || keys.len() == 1),
            next: None,
        };
        let pages = keys.len() == 1 && self.speaks(asker) >= V2;
        let (mut count, mut bytes) = (0_usize, 0_usize);
        for key in keys.iter().take(LOOKUP_KEYS_MAX) {
            let current = self.members.current();
            let placed = current.is_some_and(|set| set.places_at(key, &self.config.me));
            let settled = self.is_whole(key) || self.config.has(Planted::UnsettledWhole);
            shown.whole &= placed && settled;
            let from = after.map_or_else(Vec::new, |after| behind(key, after));
            let most = FOUND_RECORDS_MAX.saturating_add(1);
            let stored = self.ledger.scan(turn.kept, Table::Held, key.as_bytes(), &from, most);
            let mut cut = stored.len() > FOUND_RECORDS_MAX;
            let mut last = None;
            let mut under = Vec::new();
            for (place, value) in stored.into_iter().take(FOUND_RECORDS_MAX) {
                let entry = Entry::decode(&value).filter(|entry| self.may_see(entry, asker));
                let size = bytes.saturating_add(entry.as_ref().map_or(0, |entry| entry.signed.0.len()));
                if count >= FOUND_RECORDS_MAX || size > MESSAGE_RECORD_BYTES_MAX {
                    cut = true;
                    break;
                }
                last = Some(place);
                if let Some(entry) = entry {
                    (count, bytes) = (count.saturating_add(1), size);
                    under.push(entry.signed);
                }
            }
            shown.records.push(under);
            if cut && pages {
                shown.next = last.as_deref().and_then(cursor);
            }
            shown.whole &= !cut || shown.next.is_some();
        }
        shown
    }

    /// A replica only ever holds back what a label excludes.
    ///
    /// It does not judge whether the owner still takes part: the asker does, by its own registry. Hiding a
    /// departed owner's latest version here would let an older copy win at an asker one registry behind.
    fn may_see(&self, entry: &Entry, asker: &OrgId) -> bool {
        if entry.tombstone || self.config.has(Planted::LabelIgnored) {
            return true;
        }
        entry
            .record()
            .is_some_and(|record| !record.label.excluded.contains(asker))
    }

    /// Forgets expired records, a bounded number at a time.
    pub(crate) fn purge(&mut self, turn: &mut Turn<'_>) {
        if self.config.has(Planted::NeverPurged) {
            return;
        }
        let due = Millis(turn.now.0.saturating_sub(CLOCK_SKEW_MS_MAX));
        let oldest = self
            .ledger
            .scan(turn.kept, Table::HeldExpiry, &[], &[], PURGE_RECORDS_PER_CHORE_MAX);
        for (place, _) in oldest {
            let Some((expires, key)) = untimed(&place) else {
                continue;
            };
            if expires >= due {
                break;
            }
            let key = key.to_vec();
            self.ledger.write(Table::HeldExpiry, place, None);
            if let Some(owner) = owner_of(&key) {
                let count = self.held_count(turn, &owner);
                self.write_count(&owner, count.saturating_sub(1));
            }
            self.ledger.write(Table::Held, key, None);
        }
    }

    fn held_count(&self, turn: &Turn<'_>, owner: &OrgId) -> u64 {
        self.ledger
            .get(turn.kept, Table::HeldCount, owner.as_str().as_bytes())
            .and_then(|bytes| bytes.try_into().ok())
            .map_or(0, u64::from_be_bytes)
    }

    fn write_count(&mut self, owner: &OrgId, count: u64) {
        let value = (count > 0).then(|| count.to_be_bytes().to_vec());
        self.ledger
            .write(Table::HeldCount, owner.as_str().as_bytes().to_vec(), value);
    }
}

/// An answer to a lookup.
#[derive(Debug)]
pub(crate) struct Shown {
    /// For each key asked, in order.
    pub records: Vec<Vec<SignedRecord>>,
    /// Whether this is everything under the keys, up to `next`.
    pub whole: bool,
    /// Where the key goes on.
    pub next: Option<Cursor>,
}

/// The first place behind a record of a key.
fn behind(key: &IndexKey, after: &Cursor) -> Vec<u8> {
    let id = RecordId {
        key: *key,
        owner: after.owner.clone(),
        handle: after.handle,
    };
    [record_key(&id).as_slice(), &[0]].concat()
}

/// The cursor that stands on a record.
fn cursor(place: &[u8]) -> Option<Cursor> {
    let handle = place.get(IndexKey::LEN..IndexKey::LEN + RecordHandle::LEN)?;
    Some(Cursor {
        owner: owner_of(place)?,
        handle: RecordHandle::from_slice(handle).ok()?,
    })
}

/// Whether an honest member could not have handed this over. An unknown or departed signer only shows that
/// two registries differ.
pub(crate) const fn is_forgery(error: &hie_protocol::record::RecordError) -> bool {
    use hie_protocol::record::RecordError;
    use hie_protocol::sign::SignError;
    !matches!(
        error,
        RecordError::Revoked(_) | RecordError::Expired | RecordError::Signed(SignError::UnknownSigner(_))
    )
}
