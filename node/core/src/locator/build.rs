//! Pointers and locators as values: what they seal, how they are opened, and which of them changed.
//!
//! The sealed part is bound to its place: the associated data is `hie record v1`, the index key and the handle.
//! A pointer or locator that policy forbids is not there, or is a tombstone if it was (law 3: the index may
//! only hold back).

use std::collections::{BTreeMap, BTreeSet};

use hie_protocol::cbor;
use hie_protocol::id::{ContentHash, DocumentId, IndexKey, Millis, OrgId, RecordHandle, Sequence};
use hie_protocol::oprf::derive;
use hie_protocol::record::{IndexRecord, Label, LocatorSecret, PointerSecret, RecordContent, SEALED_BYTES_MAX};
use hie_protocol::registry::RegionPolicy;
use hie_protocol::seal;
use hie_protocol::vocabulary::{Confidentiality, DocumentClass};
use sha2::{Digest, Sha256};

use crate::locator::state::{LocatorRow, RetiredRow};
use crate::ports::{NoRandomness, Random, random_bytes};
use crate::record::entry::Entry;

/// Most locators of one patient; the newest are published, the custodian's answer names them all. Beyond what one
/// answer carries, askers read page by page.
pub const LOCATORS_MAX: usize = 1024;
/// Most bytes of one text in a locator; a longer one is left out.
pub const TEXT_BYTES_MAX: usize = 120;
/// Most values of one list in a locator.
pub const LIST_MAX: usize = 16;

/// Why a record cannot be built.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BuildError {
    /// The stored state is broken.
    #[error("a stored key has a wrong length")]
    Key,
    /// The content does not fit.
    #[error("an index record cannot be sealed")]
    Seal,
    /// No random bytes.
    #[error("no nonce can be made")]
    Random(#[from] NoRandomness),
}

/// What is to be published of a patient.
#[derive(Debug)]
pub struct Plan<'a> {
    /// This organisation.
    pub owner: &'a OrgId,
    /// Label of every record; locators carry their own confidentiality.
    pub label: Label,
    /// Discoverable documents, newest first.
    pub entries: &'a [Entry],
    /// Token inputs of today.
    pub inputs: &'a BTreeSet<String>,
    /// Life of records.
    pub policy: &'a RegionPolicy,
    /// Now.
    pub now: Millis,
}

/// A record to be signed, and what the row of its handle says once a write quorum has it.
#[derive(Debug)]
pub struct Draft {
    /// The record; its sequence is zero.
    pub record: IndexRecord,
    /// Digest of the content; none for a tombstone.
    pub told: Option<ContentHash>,
}

/// The records that differ from what a write quorum has.
///
/// Errors: [`BuildError`].
pub fn drafts(plan: &Plan<'_>, row: &LocatorRow, random: &dyn Random) -> Result<Vec<Draft>, BuildError> {
    let mut drafts = Vec::new();
    let record_key: [u8; 32] = row.record_key.as_slice().try_into().map_err(|_| BuildError::Key)?;
    let pointer = pointer(plan, &record_key);
    for token in &row.tokens {
        let output: [u8; 64] = token.output.as_slice().try_into().map_err(|_| BuildError::Key)?;
        let key = IndexKey::new(derive::index_key(&output));
        let wanted = pointer.as_ref().filter(|_| plan.inputs.contains(&token.input));
        let label = Label {
            confidentiality: Confidentiality::Normal,
            ..plan.label.clone()
        };
        let place = Place {
            key,
            handle: token.handle,
            seal: derive::seal_key(&output),
            told: token.told,
        };
        drafts.extend(draft(plan, place, label, wanted.map(Vec::as_slice), random)?);
    }
    let key = IndexKey::new(derive::locator_key(&record_key));
    let seal = derive::locator_seal_key(&record_key);
    let newest = plan.entries.iter().take(LOCATORS_MAX);
    let entries: BTreeMap<DocumentId, &Entry> = newest.map(|entry| (entry.id(), entry)).collect();
    for document in &row.documents {
        let entry = entries.get(&document.document).copied();
        let label = Label {
            confidentiality: entry.map_or(Confidentiality::Normal, |entry| entry.meta.confidentiality),
            ..plan.label.clone()
        };
        let content = entry
            .map(|entry| cbor::encode(&locator(entry)).map_err(|_| BuildError::Seal))
            .transpose()?;
        let place = Place {
            key,
            handle: document.handle,
            seal,
            told: document.told,
        };
        drafts.extend(draft(plan, place, label, content.as_deref(), random)?);
    }
    for retired in &row.retired {
        let record = IndexRecord {
            owner: plan.owner.clone(),
            key: retired.key,
            handle: retired.handle,
            sequence: Sequence(0),
            label: Label::open(plan.label.epoch),
            expires: plan.now.plus(plan.policy.tombstone_life_ms),
            content: RecordContent::Tombstone,
        };
        drafts.push(Draft { record, told: None });
    }
    Ok(drafts)
}

/// Gives every published record a new name, and the patient a new record key, when `excluded` names somebody whom
/// the published labels do not: a holder that misses the change can then show only the deletion or nothing, never the
/// older record under its current name, and what was readable before leads nowhere new.
///
/// Errors: [`BuildError`].
pub fn exclude_anew(row: &mut LocatorRow, excluded: &[OrgId], random: &dyn Random) -> Result<(), BuildError> {
    if excluded.iter().all(|org| row.excluded.contains(org)) {
        return Ok(());
    }
    let record_key: [u8; 32] = row.record_key.as_slice().try_into().map_err(|_| BuildError::Key)?;
    // What was on its way when the program ended may be published though nobody was told: every name counts.
    for token in &mut row.tokens {
        let output: [u8; 64] = token.output.as_slice().try_into().map_err(|_| BuildError::Key)?;
        row.retired.push(RetiredRow {
            key: IndexKey::new(derive::index_key(&output)),
            handle: token.handle,
        });
        (token.handle, token.told) = (RecordHandle::new(random_bytes(random)?), None);
    }
    let key = IndexKey::new(derive::locator_key(&record_key));
    for document in &mut row.documents {
        row.retired.push(RetiredRow {
            key,
            handle: document.handle,
        });
        (document.handle, document.told) = (RecordHandle::new(random_bytes(random)?), None);
    }
    row.record_key = random_bytes::<32>(random)?.to_vec();
    row.excluded = excluded.to_vec();
    Ok(())
}

struct Place {
    key: IndexKey,
    handle: RecordHandle,
    seal: [u8; 32],
    told: Option<ContentHash>,
}

fn draft(
    plan: &Plan<'_>,
    place: Place,
    label: Label,
    content: Option<&[u8]>,
    random: &dyn Random,
) -> Result<Option<Draft>, BuildError> {
    let told = match content {
        Some(content) => Some(digest(&label, content)?),
        None => None,
    };
    if told == place.told {
        return Ok(None);
    }
    let (content, life) = match content {
        Some(plain) => {
            let nonce = random_bytes(random)?;
            let sealed = seal::seal_padded(&place.seal, nonce, &aad(&place.key, &place.handle), plain)
                .map_err(|_| BuildError::Seal)?;
            if sealed.len() > SEALED_BYTES_MAX {
                return Err(BuildError::Seal);
            }
            (
                RecordContent::Live(hie_protocol::bytes::Bytes(sealed)),
                plan.policy.record_life_ms,
            )
        }
        None => (RecordContent::Tombstone, plan.policy.tombstone_life_ms),
    };
    let record = IndexRecord {
        owner: plan.owner.clone(),
        key: place.key,
        handle: place.handle,
        sequence: Sequence(0),
        label,
        expires: plan.now.plus(life),
        content,
    };
    Ok(Some(Draft { record, told }))
}

fn digest(label: &Label, content: &[u8]) -> Result<ContentHash, BuildError> {
    let label = cbor::encode(label).map_err(|_| BuildError::Seal)?;
    Ok(ContentHash::new(
        Sha256::new()
            .chain_update(label)
            .chain_update(content)
            .finalize()
            .into(),
    ))
}

/// The content of the patient's pointers; none when nothing of hers may be discovered.
fn pointer(plan: &Plan<'_>, record_key: &[u8; 32]) -> Option<Vec<u8>> {
    let classes: BTreeSet<DocumentClass> = plan.entries.iter().map(|entry| entry.meta.class).collect();
    let years = plan.entries.iter().filter_map(|entry| entry.meta.created).map(year_of);
    let years = years.clone().min().zip(years.max());
    if classes.is_empty() {
        return None;
    }
    let secret = PointerSecret {
        record_key: record_key.to_vec(),
        classes: classes.into_iter().collect(),
        years,
    };
    cbor::encode(&secret).ok()
}

/// The calendar year of a time, UTC.
fn year_of(at: Millis) -> u16 {
    // 400 years have 146097 days: exact enough for a year shown as a year.
    let days = at.0 / 86_400_000;
    let year = 1970 + days.saturating_mul(400) / 146_097;
    u16::try_from(year).unwrap_or(u16::MAX)
}

fn locator(entry: &Entry) -> LocatorSecret {
    let meta = &entry.meta;
    let short = |text: &String| text.len() <= TEXT_BYTES_MAX;
    let mut imaging = meta.imaging.clone();
    if let Some(imaging) = &mut imaging {
        imaging.modalities.truncate(LIST_MAX);
        imaging.modalities.retain(short);
        imaging.body_part = imaging.body_part.take().filter(short);
    }
    LocatorSecret {
        document: meta.id,
        class: meta.class,
        kind: meta
            .kind
            .as_ref()
            .map(|kind| (kind.system.clone(), kind.code.clone()))
            .filter(|(system, code)| short(system) && short(code)),
        content_type: if short(&meta.content_type) {
            meta.content_type.clone()
        } else {
            "application/octet-stream".to_owned()
        },
        created: meta.created,
        period: meta.period,
        size: meta.size,
        hash: meta.hash,
        sensitivity: meta.sensitivity.iter().take(LIST_MAX).copied().collect(),
        imaging,
    }
}

fn aad(key: &IndexKey, handle: &RecordHandle) -> Vec<u8> {
    [b"hie record v1".as_slice(), key.as_bytes(), handle.as_bytes()].concat()
}

/// Opens a pointer found under a token; none for a tombstone or bytes that do not open in this place.
#[must_use]
pub fn open_pointer(output: &[u8; 64], record: &IndexRecord) -> Option<PointerSecret> {
    let RecordContent::Live(sealed) = &record.content else {
        return None;
    };
    let plain = seal::open_padded(&derive::seal_key(output), &aad(&record.key, &record.handle), &sealed.0).ok()?;
    let secret: PointerSecret = cbor::decode(&plain, SEALED_BYTES_MAX).ok()?;
    (secret.record_key.len() == 32).then_some(secret)
}

/// Opens a locator found under a record key; none for a tombstone or bytes that do not open in this place.
#[must_use]
pub fn open_locator(record_key: &[u8; 32], record: &IndexRecord) -> Option<LocatorSecret> {
    let RecordContent::Live(sealed) = &record.content else {
        return None;
    };
    let plain = seal::open_padded(
        &derive::locator_seal_key(record_key),
        &aad(&record.key, &record.handle),
        &sealed.0,
    )
    .ok()?;
    cbor::decode(&plain, SEALED_BYTES_MAX).ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::sync::atomic::{AtomicU8, Ordering};

    use hie_protocol::id::{ContentHash, DocumentId, OrgId, RecordHandle};

    use super::exclude_anew;
    use crate::locator::state::{DocumentRow, LocatorRow, TokenRow};
    use crate::ports::{NoRandomness, Random};

    struct Counting(AtomicU8);

    impl Random for Counting {
        fn fill(&self, bytes: &mut [u8]) -> Result<(), NoRandomness> {
            bytes.fill(self.0.fetch_add(1, Ordering::Relaxed));
            Ok(())
        }
    }

    fn row() -> LocatorRow {
        LocatorRow {
            record_key: vec![1; 32],
            tokens: vec![TokenRow {
                input: "token".into(),
                output: vec![2; 64],
                handle: RecordHandle::new([1; 16]),
                told: Some(ContentHash::new([3; 32])),
            }],
            documents: vec![DocumentRow {
                document: DocumentId::new([4; 16]),
                handle: RecordHandle::new([2; 16]),
                told: Some(ContentHash::new([5; 32])),
            }],
            excluded: Vec::new(),
            retired: Vec::new(),
        }
    }

    #[test]
    fn spec_x_excluded_anew_a_new_exclusion_gives_new_names() {
        let random = Counting(AtomicU8::new(100));
        let out = OrgId::parse("urn:oid:2.999.9").unwrap();
        let mut kept = row();
        exclude_anew(&mut kept, &[], &random).unwrap();
        assert!(kept == row(), "nobody new is excluded");
        let mut changed = row();
        exclude_anew(&mut changed, std::slice::from_ref(&out), &random).unwrap();
        let retired: Vec<RecordHandle> = changed.retired.iter().map(|one| one.handle).collect();
        assert_eq!(retired, [RecordHandle::new([1; 16]), RecordHandle::new([2; 16])]);
        assert!(
            changed
                .tokens
                .iter()
                .all(|token| token.told.is_none() && !retired.contains(&token.handle))
        );
        assert!(
            changed
                .documents
                .iter()
                .all(|one| one.told.is_none() && !retired.contains(&one.handle))
        );
        assert!(changed.record_key != row().record_key);
        let mut again = changed.clone();
        exclude_anew(&mut again, &[out], &random).unwrap();
        assert!(again == changed, "a repetition changes nothing");
    }
}
