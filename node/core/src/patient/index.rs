//! The patient index: source records, identifiers and blocking keys, and the people they make up.
//!
//! A person has one key and one or more source records: the same patient as several feeds or imports know
//! her. A source record is named by its source id; taking it in again updates it and never makes a second
//! person. A new source record joins a person only when the match is certain and leads (SPEC M-LINK).
//! Everything is sealed under the patient's key; table keys are blinded.

use core::fmt;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hie_protocol::message::{Demographics, MatchGrade};
use hie_protocol::refusal::Class;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::catalogue::Table;
use crate::ids::PatientKey;
use crate::kv::{Batch, Kv, KvError, Scan};
use crate::patient::normalise::{Normal, identifier, normalise};
use crate::patient::score::{Verdict, judge, lead};
use crate::patient::search::{Query, blocks_of_text, matches};
use crate::patient::tokens;
use crate::ports::{NoRandomness, Random, random_bytes};
use crate::vault::{KeyScope, Vault, VaultError};
use crate::versioned::{self, Stored, VersionedError};

/// Most source records of one person.
pub const SOURCES_MAX: usize = 64;
/// Largest FHIR Patient resource kept, in bytes.
pub const PATIENT_BYTES_MAX: usize = 256 * 1024;
/// Most patients read behind one blocking key.
pub const BLOCK_SCAN_MAX: usize = 512;
/// Most people compared for one question.
pub const CANDIDATES_MAX: usize = 512;
/// Most values of one kind in merged demographics.
pub const MERGED_VALUES_MAX: usize = 32;
/// Value of a table whose keys say everything.
const PRESENT: u8 = 1;
/// Most hits of one search.
pub const HITS_MAX: usize = 100;

/// Why the index does not answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatientError {
    /// The resource is too large.
    #[error("the Patient resource has {found} bytes, the limit is {PATIENT_BYTES_MAX}")]
    TooLarge {
        /// Bytes found.
        found: usize,
    },
    /// Nothing names the person.
    #[error("the Patient resource has neither a name nor an identifier; add one")]
    Nameless,
    /// The store.
    #[error("the patient index cannot be read or written")]
    Store(#[from] KvError),
    /// The vault.
    #[error("the patient index cannot be opened or sealed")]
    Vault(#[from] VaultError),
    /// A stored value.
    #[error("a stored patient cannot be read")]
    Value(#[from] VersionedError),
    /// No random bytes.
    #[error("no patient key can be made")]
    Random(#[from] NoRandomness),
}

impl PatientError {
    /// Who must act.
    #[must_use]
    pub const fn class(&self) -> Class {
        match self {
            Self::TooLarge { .. } | Self::Nameless => Class::Invalid,
            Self::Store(error) => error.class(),
            Self::Vault(error) => error.class(),
            Self::Value(_) | Self::Random(_) => Class::Broken,
        }
    }
}

#[derive(Serialize, Deserialize)]
struct PersonRow {
    sources: Vec<SourceRow>,
}

#[derive(Serialize, Deserialize)]
struct SourceRow {
    id: String,
    demographics: Demographics,
    #[serde(with = "hie_protocol::bytes")]
    patient: Vec<u8>,
}

impl Stored for PersonRow {
    const VERSION: u8 = 1;
}

/// A person of this node.
#[derive(Clone)]
pub struct Person {
    /// Key; its hex text is the logical id of the FHIR Patient.
    pub key: PatientKey,
    /// Everything known, newest source first.
    pub demographics: Demographics,
    /// The same, normalised.
    pub normal: Normal,
    /// The FHIR Patient of the newest source, under this node's logical id.
    pub patient: Value,
}

impl fmt::Debug for Person {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Person({:?})", self.key)
    }
}

/// What became of a source record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Registered {
    /// The person.
    pub patient: PatientKey,
    /// What happened.
    pub outcome: Outcome,
}

/// What a registration did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A new person.
    New,
    /// A new source record of a known person.
    Linked,
    /// A known source record with other content.
    Updated,
    /// Nothing changed.
    Unchanged,
}

/// One candidate of a question, judged.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// The person.
    pub person: Person,
    /// How sure, and why.
    pub verdict: Verdict,
}

/// The index.
pub struct PatientIndex {
    kv: Arc<dyn Kv>,
    vault: Arc<Vault>,
    random: Arc<dyn Random>,
    /// Held by one writer from reading to commit.
    writer: Mutex<()>,
}

impl fmt::Debug for PatientIndex {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("PatientIndex")
    }
}

impl PatientIndex {
    /// An index over the store.
    #[must_use]
    pub fn new(kv: Arc<dyn Kv>, vault: Arc<Vault>, random: Arc<dyn Random>) -> Self {
        Self {
            kv,
            vault,
            random,
            writer: Mutex::new(()),
        }
    }

    /// Taken before [`Self::register`] and held until its batch is committed: one writer at a time.
    pub fn write_lock(&self) -> MutexGuard<'_, ()> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in a source record. `source` names it at its source, for example system and value of the
    /// record number; the same name is the same record. The entries go into `batch`; hold
    /// [`Self::write_lock`] until it is committed.
    ///
    /// Errors: every [`PatientError`].
    pub fn register(
        &self,
        source: &str,
        patient: &Value,
        demographics: &Demographics,
        batch: &mut Batch,
    ) -> Result<Registered, PatientError> {
        let bytes = patient.to_string().into_bytes();
        if bytes.len() > PATIENT_BYTES_MAX {
            return Err(PatientError::TooLarge { found: bytes.len() });
        }
        let normal = normalise(demographics);
        if normal.names.is_empty() && normal.identifiers.is_empty() {
            return Err(PatientError::Nameless);
        }
        let name = self.vault.blind_key("patient-source", source.as_bytes());
        let row = SourceRow {
            id: source.to_owned(),
            demographics: demographics.clone(),
            patient: bytes,
        };
        if let Some(key) = self
            .kv
            .get(Table::PatientSources, &name)?
            .and_then(|bytes| PatientKey::from_slice(&bytes))
        {
            return self.update(key, row, batch);
        }
        let certain = self
            .identify(demographics)?
            .into_iter()
            .find(|found| found.verdict.grade == Some(MatchGrade::Certain));
        let (key, mut rows, outcome) = match certain {
            Some(found) => (
                found.person.key,
                self.row(found.person.key)?.map(|row| row.sources).unwrap_or_default(),
                Outcome::Linked,
            ),
            None => {
                let key = PatientKey(random_bytes(&*self.random)?);
                self.vault.create(key, batch)?;
                (key, Vec::new(), Outcome::New)
            }
        };
        let before = self.blocks(&person_of(key, &rows));
        rows.truncate(SOURCES_MAX.saturating_sub(1));
        rows.insert(0, row);
        batch.put(Table::PatientSources, name, key.0);
        self.write(key, rows, &before, batch)?;
        Ok(Registered { patient: key, outcome })
    }

    fn update(&self, key: PatientKey, row: SourceRow, batch: &mut Batch) -> Result<Registered, PatientError> {
        let mut rows = self.row(key)?.map(|row| row.sources).unwrap_or_default();
        let before = self.blocks(&person_of(key, &rows));
        if rows
            .iter()
            .any(|old| old.id == row.id && old.patient == row.patient && old.demographics == row.demographics)
        {
            return Ok(Registered {
                patient: key,
                outcome: Outcome::Unchanged,
            });
        }
        rows.retain(|old| old.id != row.id);
        rows.insert(0, row);
        self.write(key, rows, &before, batch)?;
        Ok(Registered {
            patient: key,
            outcome: Outcome::Updated,
        })
    }

    fn write(
        &self,
        key: PatientKey,
        sources: Vec<SourceRow>,
        before: &BTreeSet<(Table, [u8; 16])>,
        batch: &mut Batch,
    ) -> Result<(), PatientError> {
        let after = self.blocks(&person_of(key, &sources));
        for (table, block) in before.difference(&after) {
            batch.delete(*table, [block.as_slice(), &key.0].concat());
        }
        for (table, block) in after.difference(before) {
            batch.put(*table, [block.as_slice(), &key.0].concat(), [PRESENT]);
        }
        let plain = versioned::encode(&PersonRow { sources })?;
        let sealed = self
            .vault
            .seal(KeyScope::Patient(key), Table::Patients, &key.0, &plain)?;
        batch.put(Table::Patients, key.0, sealed);
        Ok(())
    }

    /// Reads a person; none when unknown or erased. Errors: every [`PatientError`].
    pub fn person(&self, key: PatientKey) -> Result<Option<Person>, PatientError> {
        Ok(self.row(key)?.map(|row| person_of(key, &row.sources)))
    }

    fn row(&self, key: PatientKey) -> Result<Option<PersonRow>, PatientError> {
        let Some(sealed) = self.kv.get(Table::Patients, &key.0)? else {
            return Ok(None);
        };
        match self
            .vault
            .open_value(KeyScope::Patient(key), Table::Patients, &key.0, &sealed)
        {
            Ok(plain) => Ok(Some(versioned::decode(&plain)?)),
            Err(VaultError::Erased) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// People who may be meant, judged, best first; at most one is certain. Errors: every [`PatientError`].
    pub fn identify(&self, asked: &Demographics) -> Result<Vec<Candidate>, PatientError> {
        let normal = normalise(asked);
        let blocks = self.blocks_of(&normal, false);
        let mut judged = Vec::new();
        for key in self.behind(&blocks)? {
            let Some(person) = self.person(key)? else { continue };
            let verdict = judge(&normal, &person.normal);
            judged.push((person, verdict));
        }
        Ok(lead(judged)
            .into_iter()
            .map(|(person, verdict)| Candidate { person, verdict })
            .collect())
    }

    /// People who fit a line of free text (words of a name, dates, numbers, in any order); at most `limit`.
    /// Errors: every [`PatientError`].
    pub fn find_text(&self, text: &str, limit: usize) -> Result<Vec<Person>, PatientError> {
        let query = Query::parse(text);
        let mut candidates: Option<BTreeSet<PatientKey>> = None;
        for term in query.terms() {
            let blocks: BTreeSet<_> = blocks_of_text(term)
                .iter()
                .map(|block| (Table::PatientBlocks, self.block(block)))
                .collect();
            let behind = self.behind(&blocks)?;
            if candidates.as_ref().is_none_or(|fewest| behind.len() < fewest.len()) {
                candidates = Some(behind);
            }
        }
        let mut found = Vec::new();
        for key in candidates.unwrap_or_default() {
            let Some(person) = self.person(key)? else { continue };
            if matches(&query, &person.normal) {
                found.push(person);
            }
            if found.len() >= limit.min(HITS_MAX) {
                break;
            }
        }
        Ok(found)
    }

    /// The people with this identifier; more than one only when sources disagree. Errors: every [`PatientError`].
    pub fn by_identifier(&self, system: &str, value: &str) -> Result<Vec<PatientKey>, PatientError> {
        let Some(id) = identifier(system, value) else {
            return Ok(Vec::new());
        };
        let block = self.identifier_block(&id.system, &id.value);
        Ok(self
            .behind(&BTreeSet::from([(Table::PatientIdentifiers, block)]))?
            .into_iter()
            .collect())
    }

    /// Keys of people behind `after`, in the order of their keys, for walking through all of them.
    /// Errors: [`PatientError::Store`].
    pub fn page(&self, after: Option<PatientKey>, limit: usize) -> Result<Vec<PatientKey>, PatientError> {
        let scan = Scan::of(Table::Patients, &[]).limit(limit);
        let pairs = match &after {
            Some(key) => self.kv.scan(&scan.after(&key.0))?,
            None => self.kv.scan(&scan)?,
        };
        Ok(pairs
            .into_iter()
            .filter_map(|(key, _)| PatientKey::from_slice(&key))
            .collect())
    }

    fn behind(&self, blocks: &BTreeSet<(Table, [u8; 16])>) -> Result<BTreeSet<PatientKey>, PatientError> {
        let mut keys = BTreeSet::new();
        for (table, block) in blocks {
            let pairs = self.kv.scan(&Scan::of(*table, block).limit(BLOCK_SCAN_MAX))?;
            keys.extend(
                pairs
                    .iter()
                    .filter_map(|(key, _)| PatientKey::from_slice(key.get(16..)?)),
            );
            if keys.len() >= CANDIDATES_MAX {
                break;
            }
        }
        while keys.len() > CANDIDATES_MAX {
            keys.pop_last();
        }
        Ok(keys)
    }

    fn blocks(&self, person: &Person) -> BTreeSet<(Table, [u8; 16])> {
        self.blocks_of(&person.normal, true)
    }

    /// Blocking keys: the identifiers, the match tokens, and for what is stored the words of a search.
    fn blocks_of(&self, normal: &Normal, stored: bool) -> BTreeSet<(Table, [u8; 16])> {
        let mut blocks: BTreeSet<_> = normal
            .identifiers
            .iter()
            .map(|id| (Table::PatientIdentifiers, self.identifier_block(&id.system, &id.value)))
            .collect();
        let inputs = tokens::publish(normal, 0).into_iter().map(|token| token.input);
        let words = if stored {
            crate::patient::search::blocks_of_person(normal)
        } else {
            Vec::new()
        };
        blocks.extend(
            inputs
                .chain(words)
                .map(|text| (Table::PatientBlocks, self.block(&text))),
        );
        blocks
    }

    fn block(&self, text: &str) -> [u8; 16] {
        self.vault.blind_key("patient-block", text.as_bytes())
    }

    fn identifier_block(&self, system: &str, value: &str) -> [u8; 16] {
        self.vault
            .blind_key("patient-identifier", format!("{system}\u{0}{value}").as_bytes())
    }
}

fn person_of(key: PatientKey, sources: &[SourceRow]) -> Person {
    let mut demographics = Demographics::default();
    for source in sources {
        let known = &source.demographics;
        merge(&mut demographics.names, &known.names);
        merge(&mut demographics.identifiers, &known.identifiers);
        merge(&mut demographics.addresses, &known.addresses);
        merge(&mut demographics.telecoms, &known.telecoms);
        demographics.birth_date = demographics.birth_date.or_else(|| known.birth_date.clone());
        demographics.sex = demographics.sex.or_else(|| known.sex.clone());
    }
    let mut patient: Value = sources
        .first()
        .and_then(|source| serde_json::from_slice(&source.patient).ok())
        .unwrap_or(Value::Null);
    if let Some(fields) = patient.as_object_mut() {
        fields.insert("id".to_owned(), Value::String(key.to_hex()));
    }
    Person {
        key,
        normal: normalise(&demographics),
        demographics,
        patient,
    }
}

fn merge<T: Clone + PartialEq>(into: &mut Vec<T>, from: &[T]) {
    for value in from {
        if into.len() < MERGED_VALUES_MAX && !into.contains(value) {
            into.push(value.clone());
        }
    }
}

#[cfg(test)]
mod tests;
