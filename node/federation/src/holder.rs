//! The holder: keeps what owners sign, shows it to whom no label excludes, forgets what is expired.
//!
//! It grants nothing. `Stored` leaves only after the sync (SPEC F-SYNC). It keeps the highest sequence of
//! each record (SPEC F-HIGHEST), tombstones included until they expire (SPEC F-TOMBSTONE).

use hie_protocol::id::{IndexKey, Millis, OrgId};
use hie_protocol::message::{FOUND_RECORDS_MAX, IndexMessage, LOOKUP_KEYS_MAX, STORE_RECORDS_MAX, StoreOutcome};
use hie_protocol::record::{SignedRecord, VerifiedRecord};

use crate::config::{
    CLOCK_SKEW_MS_MAX, MESSAGE_RECORD_BYTES_MAX, PURGE_RECORDS_PER_CHORE_MAX, Planted, SYNCS_WAITING_MAX,
};
use crate::machine::{Federation, Turn};
use crate::port::{Effect, Misbehaviour};
use crate::table::{After, Entry, Table, owner_of, record_key, timed, untimed};

/// Life of a tombstone under the planted bug, in milliseconds.
const PLANTED_TOMBSTONE_MS: u64 = 3000;

impl Federation {
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

    /// Everything under the keys that `asker` may see, and whether that is all there is.
    pub(crate) fn look_up(&self, turn: &Turn<'_>, keys: &[IndexKey], asker: &OrgId) -> (Vec<Vec<SignedRecord>>, bool) {
        let mut whole = keys.len() <= LOOKUP_KEYS_MAX;
        let (mut count, mut bytes) = (0_usize, 0_usize);
        let mut found = Vec::new();
        for key in keys.iter().take(LOOKUP_KEYS_MAX) {
            let placed = self
                .members
                .current()
                .is_some_and(|set| set.places_at(key, &self.config.me));
            let settled = self.members.whole(key, &self.config.me) || self.config.has(Planted::UnsettledWhole);
            whole &= placed && settled;
            let mut shown = Vec::new();
            let stored = self.ledger.scan(
                turn.kept,
                Table::Held,
                key.as_bytes(),
                &[],
                FOUND_RECORDS_MAX.saturating_add(1),
            );
            whole &= stored.len() <= FOUND_RECORDS_MAX;
            for (_, value) in stored {
                let Some(entry) = Entry::decode(&value).filter(|entry| self.may_see(entry, asker)) else {
                    continue;
                };
                let size = bytes.saturating_add(entry.signed.0.len());
                if count >= FOUND_RECORDS_MAX || size > MESSAGE_RECORD_BYTES_MAX {
                    whole = false;
                    continue;
                }
                (count, bytes) = (count.saturating_add(1), size);
                shown.push(entry.signed);
            }
            found.push(shown);
        }
        (found, whole)
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
