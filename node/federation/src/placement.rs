//! Placement: which index holders keep a key. A pure function of the key and the holder set.
//!
//! Rendezvous hashing: the weight of a holder for a key is the first eight bytes, big-endian, of
//! `SHA-256("hie placement v1" || key || organisation id)`. The R heaviest hold the key, heaviest first;
//! equal weights are ordered by organisation id. One holder more or less moves only the keys that it
//! gains or loses (SPEC F-PLACE).

use hie_protocol::id::{IndexKey, Millis, OrgId};
use hie_protocol::registry::{MemberRole, Registry};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// First bytes of what is hashed: names the purpose and its version.
pub const PLACEMENT_DOMAIN: &[u8] = b"hie placement v1";

/// Who keeps the index under one version of the registry, and with which quorums.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HolderSet {
    /// Registry version.
    pub version: u64,
    /// Index holders, in the order of their ids.
    pub holders: Vec<OrgId>,
    /// R of this set.
    pub replicas: u64,
    /// W of this set.
    pub write_quorum: u64,
    /// Answers needed per key: R - W + 1.
    pub read_quorum: u64,
    /// When this node took the registry.
    pub taken: Millis,
}

impl HolderSet {
    /// The holder set of a registry.
    #[must_use]
    pub fn of(registry: &Registry, taken: Millis) -> Self {
        let holders: Vec<OrgId> = registry
            .with_role(MemberRole::IndexHolder)
            .map(|member| member.org.clone())
            .collect();
        let count = holders.len();
        Self {
            version: registry.version,
            replicas: registry.policy.replicas_of(count) as u64,
            write_quorum: registry.policy.write_quorum_of(count) as u64,
            read_quorum: registry.policy.read_quorum_of(count) as u64,
            holders,
            taken,
        }
    }

    /// Whether keys lie at the same holders with the same quorums as in `other`.
    #[must_use]
    pub fn places_like(&self, other: &Self) -> bool {
        self.holders == other.holders
            && (self.replicas, self.write_quorum, self.read_quorum)
                == (other.replicas, other.write_quorum, other.read_quorum)
    }

    /// The holders of a key, best first.
    #[must_use]
    pub fn place(&self, key: &IndexKey) -> Vec<OrgId> {
        let mut weighed: Vec<(u64, &OrgId)> = self.holders.iter().map(|org| (weight(key, org), org)).collect();
        weighed.sort_by(|left, right| right.0.cmp(&left.0).then_with(|| left.1.cmp(right.1)));
        let replicas = usize::try_from(self.replicas).unwrap_or(usize::MAX);
        weighed.into_iter().take(replicas).map(|(_, org)| org.clone()).collect()
    }

    /// Whether `org` holds `key`.
    #[must_use]
    pub fn places_at(&self, key: &IndexKey, org: &OrgId) -> bool {
        self.place(key).contains(org)
    }
}

/// The holders of a key under a registry, best first.
#[must_use]
pub fn placement(key: &IndexKey, registry: &Registry) -> Vec<OrgId> {
    HolderSet::of(registry, Millis(0)).place(key)
}

/// Weight of a holder for a key.
#[must_use]
pub fn weight(key: &IndexKey, org: &OrgId) -> u64 {
    let digest = Sha256::new()
        .chain_update(PLACEMENT_DOMAIN)
        .chain_update(key.as_bytes())
        .chain_update(org.as_str().as_bytes())
        .finalize();
    digest.iter().take(8).fold(0, |sum, byte| (sum << 8) | u64::from(*byte))
}

#[cfg(test)]
mod tests;
