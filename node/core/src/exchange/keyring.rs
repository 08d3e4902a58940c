//! The shares of the token key that this node holds: sealed in its store, each with its epoch and resharing.
//!
//! A share stays until the registry no longer names it: while a key has two sharings, or the region two keys, the
//! node holds both. What is destroyed here is gone from every later snapshot of the store.

use core::fmt;
use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use hie_protocol::id::PublicKey;
use hie_protocol::oprf::OprfError;
use hie_protocol::oprf::key::KeyShare;
use hie_protocol::refusal::Class;

use crate::catalogue::Table;
use crate::kv::{Batch, Kv, KvError, Scan};
use crate::vault::{KeyScope, Vault, VaultError};

/// Most shares of one node.
pub const SHARES_HELD_MAX: usize = 16;

/// Which share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ShareName {
    /// Key epoch.
    pub epoch: u32,
    /// Resharing that made it; 0 when the region office dealt it.
    pub generation: u32,
    /// Index of the share.
    pub index: u16,
}

impl ShareName {
    fn key(self) -> Vec<u8> {
        let mut key = self.epoch.to_be_bytes().to_vec();
        key.extend(self.generation.to_be_bytes());
        key.extend(self.index.to_be_bytes());
        key
    }

    fn from_key(key: &[u8]) -> Option<Self> {
        let (epoch, rest) = key.split_first_chunk::<4>()?;
        let (generation, index) = rest.split_first_chunk::<4>()?;
        Some(Self {
            epoch: u32::from_be_bytes(*epoch),
            generation: u32::from_be_bytes(*generation),
            index: u16::from_be_bytes(index.try_into().ok()?),
        })
    }
}

/// Why shares cannot be kept.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyringError {
    /// The store.
    #[error("the shares of the token key cannot be read or written")]
    Store(#[from] KvError),
    /// The vault.
    #[error("the shares of the token key cannot be opened or sealed")]
    Vault(#[from] VaultError),
    /// A stored share.
    #[error("a stored share of the token key is malformed")]
    Share(#[from] OprfError),
    /// Too many shares.
    #[error("this node holds {SHARES_HELD_MAX} shares already")]
    Full,
}

impl KeyringError {
    /// Who must act.
    #[must_use]
    pub const fn class(&self) -> Class {
        Class::Broken
    }
}

/// The shares of this node.
pub struct Keyring {
    kv: Arc<dyn Kv>,
    vault: Arc<Vault>,
    /// With the public point of each.
    held: RwLock<BTreeMap<ShareName, (Arc<KeyShare>, PublicKey)>>,
}

impl fmt::Debug for Keyring {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Keyring({} shares)", self.names().len())
    }
}

impl Keyring {
    /// Reads what is held. Errors: [`KeyringError`].
    pub fn open(kv: Arc<dyn Kv>, vault: Arc<Vault>) -> Result<Self, KeyringError> {
        let mut held = BTreeMap::new();
        for (key, sealed) in kv.scan(&Scan::of(Table::TokenShares, &[]))? {
            let Some(name) = ShareName::from_key(&key) else {
                continue;
            };
            let plain = vault.open_value(KeyScope::Node, Table::TokenShares, &key, &sealed)?;
            held.insert(name, entry(KeyShare::from_bytes(&plain)?));
        }
        Ok(Self {
            kv,
            vault,
            held: RwLock::new(held),
        })
    }

    /// Keeps a share, durably. Errors: [`KeyringError`].
    pub fn add(&self, epoch: u32, generation: u32, share: KeyShare) -> Result<(), KeyringError> {
        let name = ShareName {
            epoch,
            generation,
            index: share.index(),
        };
        let mut held = self.held.write().unwrap_or_else(PoisonError::into_inner);
        if held.len() >= SHARES_HELD_MAX && !held.contains_key(&name) {
            return Err(KeyringError::Full);
        }
        let key = name.key();
        let sealed = self
            .vault
            .seal(KeyScope::Node, Table::TokenShares, &key, &share.to_bytes())?;
        let mut batch = Batch::new();
        batch.put(Table::TokenShares, key, sealed);
        self.kv.commit(batch)?;
        held.insert(name, entry(share));
        Ok(())
    }

    /// Destroys every share that `keep` does not want; answers how many. Errors: [`KeyringError`].
    pub fn retain(&self, keep: impl Fn(ShareName, &PublicKey) -> bool) -> Result<usize, KeyringError> {
        let mut held = self.held.write().unwrap_or_else(PoisonError::into_inner);
        let gone: Vec<ShareName> = held
            .iter()
            .filter(|(name, (_, point))| !keep(**name, point))
            .map(|(name, _)| *name)
            .collect();
        if gone.is_empty() {
            return Ok(0);
        }
        let mut batch = Batch::new();
        for name in &gone {
            batch.delete(Table::TokenShares, name.key());
        }
        self.kv.commit(batch)?;
        held.retain(|name, _| !gone.contains(name));
        Ok(gone.len())
    }

    /// The share behind a published point.
    #[must_use]
    pub fn find(&self, epoch: u32, index: u16, point: &PublicKey) -> Option<Arc<KeyShare>> {
        let held = self.held.read().unwrap_or_else(PoisonError::into_inner);
        let mut fitting = held
            .iter()
            .filter(|(name, _)| name.epoch == epoch && name.index == index);
        fitting
            .find(|(_, (_, own))| own == point)
            .map(|(_, (share, _))| Arc::clone(share))
    }

    /// The share of a name.
    #[must_use]
    pub fn share(&self, name: ShareName) -> Option<Arc<KeyShare>> {
        let held = self.held.read().unwrap_or_else(PoisonError::into_inner);
        held.get(&name).map(|(share, _)| Arc::clone(share))
    }

    /// The newest share of an epoch with this index.
    #[must_use]
    pub fn newest(&self, epoch: u32, index: u16) -> Option<Arc<KeyShare>> {
        let held = self.held.read().unwrap_or_else(PoisonError::into_inner);
        let mut fitting = held
            .iter()
            .rev()
            .filter(|(name, _)| name.epoch == epoch && name.index == index);
        fitting.next().map(|(_, (share, _))| Arc::clone(share))
    }

    /// Which shares are held.
    #[must_use]
    pub fn names(&self) -> Vec<ShareName> {
        let held = self.held.read().unwrap_or_else(PoisonError::into_inner);
        held.keys().copied().collect()
    }
}

fn entry(share: KeyShare) -> (Arc<KeyShare>, PublicKey) {
    let point = PublicKey::new(*share.public().point());
    (Arc::new(share), point)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]

    use std::sync::Arc;

    use hie_protocol::id::PublicKey;
    use hie_protocol::oprf::key::deal;

    use super::{Keyring, ShareName};
    use crate::kv::Kv;
    use crate::kv::memory::MemoryKv;
    use crate::ports::{OsRandom, Random};
    use crate::vault::{Kek, Vault};

    #[test]
    fn shares_outlive_a_restart_and_are_destroyed_when_told() {
        let random: Arc<dyn Random> = Arc::new(OsRandom::new());
        let kv: Arc<dyn Kv> = Arc::new(MemoryKv::new());
        let kek = Kek::generate(&*random).unwrap();
        let vault = Arc::new(Vault::open(&kek, kv.clone(), random.clone()).unwrap());
        let ring = Keyring::open(kv.clone(), vault.clone()).unwrap();
        let mut fill = |out: &mut [u8]| random.fill(out).unwrap();
        let (_, old) = deal(2, 2, &mut fill).unwrap();
        let points: Vec<PublicKey> = old
            .iter()
            .map(|share| PublicKey::new(*share.public().point()))
            .collect();
        for (generation, share) in (0..).zip(old) {
            ring.add(1, generation, share).unwrap();
        }
        let again = Keyring::open(kv.clone(), vault.clone()).unwrap();
        assert_eq!(again.names(), ring.names());
        assert!(again.find(1, 1, &points[0]).is_some() && again.find(1, 1, &points[1]).is_none());
        assert!(
            again.find(2, 1, &points[0]).is_none(),
            "another epoch has another share"
        );
        assert_eq!(again.retain(|name, _| name.generation == 1).unwrap(), 1);
        let name = ShareName {
            epoch: 1,
            generation: 1,
            index: 2,
        };
        assert_eq!(Keyring::open(kv, vault).unwrap().names(), [name]);
    }
}
