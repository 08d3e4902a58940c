//! Sealing at rest: every value and every content that holds personal data is AES-256-GCM under a key that the
//! disk alone does not give.
//!
//! ```text
//! key-encryption key (file outside the data directory)
//!   wraps the node key      -> one subkey for each table (HMAC-SHA-256), one for blind keys, one for pseudonyms
//!   wraps each patient key  -> that patient's values and contents
//! ```
//!
//! Erasing a patient is destroying the wrapped patient key: a mark takes its place, so that no later write
//! brings a key back. Additional data binds a sealed value to its table and key: a value moved elsewhere does
//! not open. What carries no personal data (signed records, hashes, counters) is not sealed.

use core::fmt;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, PoisonError, RwLock};

use hie_protocol::refusal::Class;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use ring::hmac;
use zeroize::Zeroizing;

use crate::catalogue::{Sealing, Table};
use crate::ids::PatientKey;
use crate::kv::{Batch, Kv, KvError, Scan};
use crate::ports::{NoRandomness, Random, random_bytes};

mod frames;
mod kek;

pub use frames::ContentKey;
pub use kek::{Kek, KekError};

/// Bytes that sealing adds to a value.
pub const SEAL_OVERHEAD_BYTES: usize = 1 + NONCE_BYTES + TAG_BYTES;
/// Patient keys kept in memory; beyond it all are dropped and read again.
pub const CACHED_KEYS_MAX: usize = 16_384;
/// Format of a sealed value.
const FORMAT: u8 = 1;
const NONCE_BYTES: usize = 12;
const TAG_BYTES: usize = 16;
const NODE_ENTRY: &[u8] = &[0];
const PATIENT_ENTRY: u8 = 1;
const MARK_WRAPPED: u8 = 1;
const MARK_ERASED: u8 = 2;

/// Whose key seals a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyScope {
    /// The node's.
    Node,
    /// A patient's.
    Patient(PatientKey),
}

/// Why the vault does not seal or open.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VaultError {
    /// The key-encryption key belongs to another data directory.
    #[error(
        "the key-encryption key does not open this data directory: point the configuration at the key file \
         that was made with it (the data cannot be read without that file)"
    )]
    WrongKek,
    /// The wrapped node key is gone while data is present.
    #[error("the data directory has lost its wrapped node key: restore it from a backup")]
    NodeKeyMissing,
    /// The patient's key was destroyed.
    #[error("the patient's data was erased")]
    Erased,
    /// The patient has no key.
    #[error("the patient has no data key")]
    NoKey,
    /// The patient already has a key.
    #[error("the patient already has a data key")]
    KeyExists,
    /// The sealed bytes were changed, moved, or sealed under another key.
    #[error("a sealed value of table {table} does not open: it was altered or moved; restore it from a backup")]
    Altered {
        /// Name of the table, or `content`.
        table: &'static str,
    },
    /// No random bytes.
    #[error("no key can be made")]
    Random(#[from] NoRandomness),
    /// The store.
    #[error("the keys cannot be read or written")]
    Store(#[from] KvError),
}

impl VaultError {
    /// Who must act.
    #[must_use]
    pub const fn class(&self) -> Class {
        match self {
            Self::Erased | Self::NoKey => Class::Refused,
            Self::KeyExists => Class::Invalid,
            Self::Store(error) => error.class(),
            Self::WrongKek | Self::NodeKeyMissing | Self::Altered { .. } | Self::Random(_) => Class::Broken,
        }
    }
}

/// 32 secret bytes, wiped when dropped.
type Secret = Zeroizing<[u8; 32]>;

/// Keys of the node and its patients.
pub struct Vault {
    kek: LessSafeKey,
    kv: Arc<dyn Kv>,
    random: Arc<dyn Random>,
    tables: HashMap<Table, LessSafeKey>,
    contents: Secret,
    blind: hmac::Key,
    pseudonym: hmac::Key,
    patients: RwLock<Patients>,
}

#[derive(Default)]
struct Patients {
    open: HashMap<PatientKey, Arc<PatientSecret>>,
    /// Erased in this process: their mark may still be on its way to the disk.
    erased: HashSet<PatientKey>,
}

struct PatientSecret {
    values: LessSafeKey,
    contents: Secret,
}

impl fmt::Debug for Vault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Vault(hidden)")
    }
}

impl Vault {
    /// Opens the keys of a data directory, or makes the node key when the directory is new.
    ///
    /// Errors: [`VaultError::WrongKek`], [`VaultError::NodeKeyMissing`], the store, randomness.
    pub fn open(kek: &Kek, kv: Arc<dyn Kv>, random: Arc<dyn Random>) -> Result<Self, VaultError> {
        let kek = aead(kek.bytes());
        let root: Secret = match kv.get(Table::Keys, NODE_ENTRY)? {
            Some(stored) => unwrap(&kek, NODE_ENTRY, &stored)?.ok_or(VaultError::NodeKeyMissing)?,
            None => {
                let sealed = |table: &&Table| **table == Table::Keys || table.sealing() != Sealing::Open;
                for table in Table::ALL.iter().filter(sealed) {
                    if !kv.scan(&Scan::of(*table, &[]).limit(1))?.is_empty() {
                        return Err(VaultError::NodeKeyMissing);
                    }
                }
                let root = Zeroizing::new(random_bytes(&*random)?);
                let mut batch = Batch::new();
                batch.put(Table::Keys, NODE_ENTRY, wrap(&kek, NODE_ENTRY, &root, &*random)?);
                kv.commit(batch)?;
                root
            }
        };
        let tables = Table::ALL
            .iter()
            .map(|table| (*table, aead(&derive(&root, b"hie table v1", &[table.tag()]))))
            .collect();
        Ok(Self {
            kek,
            random,
            tables,
            contents: derive(&root, b"hie contents v1", &[]),
            blind: hmac_key(&derive(&root, b"hie blind v1", &[])),
            pseudonym: hmac_key(&derive(&root, b"hie pseudonym v1", &[])),
            patients: RwLock::default(),
            kv,
        })
    }

    /// Makes the data key of a new patient; it becomes true with the batch. Call it once for each patient.
    ///
    /// Errors: [`VaultError::KeyExists`], [`VaultError::Erased`], the store, randomness.
    pub fn create(&self, patient: PatientKey, batch: &mut Batch) -> Result<(), VaultError> {
        match self.secret(patient) {
            Err(VaultError::NoKey) => {}
            Ok(_) => return Err(VaultError::KeyExists),
            Err(error) => return Err(error),
        }
        let key = Zeroizing::new(random_bytes(&*self.random)?);
        let entry = patient_entry(patient);
        let wrapped = wrap(&self.kek, &entry, &key, &*self.random)?;
        batch.put(Table::Keys, entry, wrapped);
        self.remember(patient, Arc::new(PatientSecret::new(&key)));
        Ok(())
    }

    /// Destroys the patient's key: from this call on nothing of hers opens here, and with the batch for ever.
    pub fn erase(&self, patient: PatientKey, batch: &mut Batch) {
        batch.put(Table::Keys, patient_entry(patient), vec![MARK_ERASED]);
        let mut patients = self.patients.write().unwrap_or_else(PoisonError::into_inner);
        patients.open.remove(&patient);
        patients.erased.insert(patient);
    }

    /// Whether the patient has a key that opens. Errors: the store, [`VaultError::WrongKek`].
    pub fn holds(&self, patient: PatientKey) -> Result<bool, VaultError> {
        match self.secret(patient) {
            Ok(_) => Ok(true),
            Err(VaultError::NoKey | VaultError::Erased) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Seals a value for one place: it opens only with the same scope, table and key.
    ///
    /// Errors: [`VaultError::NoKey`], [`VaultError::Erased`], the store, randomness.
    pub fn seal(&self, scope: KeyScope, table: Table, key: &[u8], plain: &[u8]) -> Result<Vec<u8>, VaultError> {
        let nonce = random_bytes(&*self.random)?;
        let mut body = plain.to_vec();
        self.with_key(scope, table, |secret| {
            secret
                .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), place(table, key), &mut body)
                .map_err(|_| VaultError::Altered { table: table.name() })
        })?;
        let mut sealed = Vec::with_capacity(body.len() + 1 + NONCE_BYTES);
        sealed.push(FORMAT);
        sealed.extend_from_slice(&nonce);
        sealed.append(&mut body);
        Ok(sealed)
    }

    /// Opens what [`Vault::seal`] made for the same place.
    ///
    /// Errors: [`VaultError::Altered`], [`VaultError::NoKey`], [`VaultError::Erased`], the store.
    pub fn open_value(
        &self,
        scope: KeyScope,
        table: Table,
        key: &[u8],
        sealed: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, VaultError> {
        let altered = || VaultError::Altered { table: table.name() };
        let (format, rest) = sealed.split_first().ok_or_else(altered)?;
        let (nonce, body) = rest.split_first_chunk::<NONCE_BYTES>().ok_or_else(altered)?;
        if *format != FORMAT {
            return Err(altered());
        }
        let mut body = Zeroizing::new(body.to_vec());
        let length = self.with_key(scope, table, |secret| {
            secret
                .open_in_place(Nonce::assume_unique_for_key(*nonce), place(table, key), &mut body)
                .map(|plain| plain.len())
                .map_err(|_| altered())
        })?;
        body.truncate(length);
        Ok(body)
    }

    /// A key that hides its input: 16 bytes of HMAC-SHA-256, for table keys that would otherwise be personal data.
    ///
    /// `purpose` separates uses: the same bytes under two purposes have nothing in common.
    #[must_use]
    pub fn blind_key(&self, purpose: &'static str, bytes: &[u8]) -> [u8; 16] {
        let mut context = hmac::Context::with_key(&self.blind);
        context.update(&(purpose.len() as u64).to_be_bytes());
        context.update(purpose.as_bytes());
        context.update(bytes);
        first16(context.sign().as_ref())
    }

    /// A patient's name in the audit log: a keyed permutation of the patient key, which only this node reverses.
    ///
    /// Four Feistel rounds with HMAC-SHA-256 as the round function (Luby and Rackoff 1988).
    #[must_use]
    pub fn pseudonym(&self, patient: PatientKey) -> [u8; 16] {
        feistel(&self.pseudonym, patient.0, [0, 1, 2, 3])
    }

    /// The patient key of a [`Vault::pseudonym`]; for other bytes a key that names no patient.
    #[must_use]
    pub fn reveal(&self, pseudonym: [u8; 16]) -> PatientKey {
        let swapped = swap(pseudonym);
        PatientKey(swap(feistel(&self.pseudonym, swapped, [3, 2, 1, 0])))
    }

    /// The key that seals one content; `name` is random and never used twice.
    ///
    /// Errors: [`VaultError::NoKey`], [`VaultError::Erased`], the store.
    pub fn content_key(&self, scope: KeyScope, name: &[u8; 16]) -> Result<ContentKey, VaultError> {
        let key = match scope {
            KeyScope::Node => derive(&self.contents, b"hie content v1", name),
            KeyScope::Patient(patient) => derive(&self.secret(patient)?.contents, b"hie content v1", name),
        };
        Ok(ContentKey::new(aead(&key)))
    }

    fn with_key<T>(
        &self,
        scope: KeyScope,
        table: Table,
        work: impl FnOnce(&LessSafeKey) -> Result<T, VaultError>,
    ) -> Result<T, VaultError> {
        match scope {
            KeyScope::Node => work(self.tables.get(&table).ok_or(VaultError::NodeKeyMissing)?),
            KeyScope::Patient(patient) => work(&self.secret(patient)?.values),
        }
    }

    fn secret(&self, patient: PatientKey) -> Result<Arc<PatientSecret>, VaultError> {
        {
            let patients = self.patients.read().unwrap_or_else(PoisonError::into_inner);
            if patients.erased.contains(&patient) {
                return Err(VaultError::Erased);
            }
            if let Some(secret) = patients.open.get(&patient) {
                return Ok(Arc::clone(secret));
            }
        }
        let entry = patient_entry(patient);
        let stored = self.kv.get(Table::Keys, &entry)?.ok_or(VaultError::NoKey)?;
        let key = unwrap(&self.kek, &entry, &stored)?.ok_or(VaultError::Erased)?;
        let secret = Arc::new(PatientSecret::new(&key));
        self.remember(patient, Arc::clone(&secret));
        Ok(secret)
    }

    fn remember(&self, patient: PatientKey, secret: Arc<PatientSecret>) {
        let mut patients = self.patients.write().unwrap_or_else(PoisonError::into_inner);
        if patients.erased.contains(&patient) {
            return;
        }
        if patients.open.len() >= CACHED_KEYS_MAX {
            patients.open.clear();
        }
        patients.open.insert(patient, secret);
    }
}

impl PatientSecret {
    fn new(key: &Secret) -> Self {
        Self {
            values: aead(&derive(key, b"hie values v1", &[])),
            contents: derive(key, b"hie contents v1", &[]),
        }
    }
}

fn patient_entry(patient: PatientKey) -> Vec<u8> {
    let mut entry = vec![PATIENT_ENTRY];
    entry.extend_from_slice(&patient.0);
    entry
}

#[expect(clippy::expect_used, reason = "an AES-256 key has 32 bytes, and so has the array")]
fn aead(key: &[u8; 32]) -> LessSafeKey {
    LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key).expect("32 bytes"))
}

fn hmac_key(key: &Secret) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, key.as_slice())
}

/// A subkey: HMAC-SHA-256 over label and context.
fn derive(key: &Secret, label: &[u8], context: &[u8]) -> Secret {
    let mut hash = hmac::Context::with_key(&hmac_key(key));
    hash.update(label);
    hash.update(context);
    let mut out = Zeroizing::new([0; 32]);
    for (to, from) in out.iter_mut().zip(hash.sign().as_ref()) {
        *to = *from;
    }
    out
}

fn place(table: Table, key: &[u8]) -> Aad<Vec<u8>> {
    let mut bytes = b"hie value v1".to_vec();
    bytes.push(table.tag());
    bytes.extend_from_slice(key);
    Aad::from(bytes)
}

fn wrap(kek: &LessSafeKey, entry: &[u8], key: &Secret, random: &dyn Random) -> Result<Vec<u8>, VaultError> {
    let nonce: [u8; NONCE_BYTES] = random_bytes(random)?;
    let mut body = Zeroizing::new(key.to_vec());
    kek.seal_in_place_append_tag(
        Nonce::assume_unique_for_key(nonce),
        place(Table::Keys, entry),
        &mut *body,
    )
    .map_err(|_| VaultError::Altered {
        table: Table::Keys.name(),
    })?;
    let mut wrapped = vec![MARK_WRAPPED];
    wrapped.extend_from_slice(&nonce);
    wrapped.extend_from_slice(&body);
    Ok(wrapped)
}

/// The key, or none where an erasure left its mark.
fn unwrap(kek: &LessSafeKey, entry: &[u8], stored: &[u8]) -> Result<Option<Secret>, VaultError> {
    let altered = || VaultError::Altered {
        table: Table::Keys.name(),
    };
    let (mark, rest) = stored.split_first().ok_or_else(altered)?;
    match *mark {
        MARK_ERASED => return Ok(None),
        MARK_WRAPPED => {}
        _ => return Err(altered()),
    }
    let (nonce, body) = rest.split_first_chunk::<NONCE_BYTES>().ok_or_else(altered)?;
    let mut body = Zeroizing::new(body.to_vec());
    let plain = kek
        .open_in_place(
            Nonce::assume_unique_for_key(*nonce),
            place(Table::Keys, entry),
            &mut body,
        )
        .map_err(|_| VaultError::WrongKek)?;
    let key: [u8; 32] = plain.as_ref().try_into().map_err(|_| altered())?;
    Ok(Some(Zeroizing::new(key)))
}

fn first16(hash: &[u8]) -> [u8; 16] {
    let mut out = [0; 16];
    for (to, from) in out.iter_mut().zip(hash) {
        *to = *from;
    }
    out
}

fn feistel(key: &hmac::Key, block: [u8; 16], rounds: [u8; 4]) -> [u8; 16] {
    let whole = u128::from_be_bytes(block);
    let (mut left, mut right) = ((whole >> 64) as u64, whole as u64);
    for round in rounds {
        let mut context = hmac::Context::with_key(key);
        context.update(&[round]);
        context.update(&right.to_be_bytes());
        let mixed = u128::from_be_bytes(first16(context.sign().as_ref())) as u64;
        (left, right) = (right, left ^ mixed);
    }
    ((u128::from(left) << 64) | u128::from(right)).to_be_bytes()
}

fn swap(block: [u8; 16]) -> [u8; 16] {
    u128::from_be_bytes(block).rotate_left(64).to_be_bytes()
}

#[cfg(test)]
mod tests;
