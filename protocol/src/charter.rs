//! The charter: the granting part of a registry, the officers who approve it, and when a registry is taken.
//!
//! What the region office takes away (standing that falls, a fresh revocation list) holds by its signature alone. What
//! it grants (members, nodes, roles, policy, officers, a return) is the charter: where the registry in force names
//! officers, a registry with another charter is taken only with the approval of as many of them as it demands
//! (SPEC P-CHARTER). An approval names the lowest version it is for, and approvals are never counted again below the
//! versions already used, so that an old charter does not come back.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::bytes::Bytes;
use crate::cbor::{self, FrameError};
use crate::id::{ContentHash, NodeKey, OrgId, PublicKey};
use crate::registry::{Member, MemberKind, MemberRole, NodeEntry, RegionPolicy, Registry, RegistryError, Standing};
use crate::sign::{self, SignError, Signer};

/// Domain of approvals.
pub const DOMAIN_CHARTER: &str = "hie charter v1";
/// Most officers of a region.
pub const OFFICERS_MAX: usize = 16;
/// Most approvals that travel with a registry.
pub const APPROVALS_MAX: usize = 16;
/// Largest approval, in bytes.
pub const APPROVAL_BYTES_MAX: usize = 1024;
/// SubjectPublicKeyInfo of an Ed25519 key (RFC 8410) up to the key itself.
const ED25519_SPKI: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

#[derive(Serialize)]
struct Charter<'a> {
    region: &'a str,
    #[serde(with = "crate::bytes")]
    root: &'a [u8],
    members: Vec<CharterMember<'a>>,
    policy: &'a RegionPolicy,
}

#[derive(Serialize)]
struct CharterMember<'a> {
    org: &'a OrgId,
    name: &'a str,
    kind: MemberKind,
    nodes: &'a [NodeEntry],
    roles: &'a [MemberRole],
    phone: &'a Option<String>,
    term: u32,
}

impl<'a> From<&'a Member> for CharterMember<'a> {
    fn from(member: &'a Member) -> Self {
        Self {
            org: &member.org,
            name: &member.name,
            kind: member.kind,
            nodes: &member.nodes,
            roles: &member.roles,
            phone: &member.phone,
            term: member.term,
        }
    }
}

impl Registry {
    /// SHA-256 of the charter: region, root, members without their standing, policy. Errors: [`FrameError`].
    pub fn charter(&self) -> Result<ContentHash, FrameError> {
        let bytes = cbor::encode(&Charter {
            region: &self.region,
            root: &self.root,
            members: self.members.iter().map(CharterMember::from).collect(),
            policy: &self.policy,
        })?;
        Ok(ContentHash::new(Sha256::digest(bytes).into()))
    }
}

/// The name under which an Ed25519 key signs: SHA-256 of its SubjectPublicKeyInfo.
#[must_use]
pub fn key_name(public: &PublicKey) -> NodeKey {
    let mut hash = Sha256::new();
    hash.update(ED25519_SPKI);
    hash.update(public.as_bytes());
    NodeKey::new(hash.finalize().into())
}

/// What an officer signs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Approval {
    /// The region's name.
    pub region: String,
    /// The charter approved.
    pub charter: ContentHash,
    /// Lowest registry version that it is for.
    pub from: u64,
}

impl Approval {
    /// Signs with an officer's key. Errors: [`SignError`].
    pub fn sign(&self, officer: &dyn Signer) -> Result<Vec<u8>, SignError> {
        sign::sign(DOMAIN_CHARTER, cbor::encode(self)?, officer)
    }

    /// Verifies an approval by one of the officers; gives it and the officer's key. Errors: [`SignError`].
    pub fn verify(bytes: &[u8], officers: &[PublicKey]) -> Result<(Self, PublicKey), SignError> {
        let mut signer = None;
        let verified = sign::verify(DOMAIN_CHARTER, bytes, APPROVAL_BYTES_MAX, |name| {
            signer = officers.iter().copied().find(|key| key_name(key) == *name);
            signer
        })?;
        let approval = cbor::decode(&verified.payload, APPROVAL_BYTES_MAX)?;
        let signer = signer.ok_or(SignError::UnknownSigner(verified.node))?;
        Ok((approval, signer))
    }
}

/// A registry as it travels: signed, with the approvals of its charter.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Handed {
    /// Signed registry.
    pub signed: Bytes,
    /// Signed [`Approval`]s, at most [`APPROVALS_MAX`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub approvals: Vec<Bytes>,
}

/// The registry in force at whoever judges.
#[derive(Clone, Copy, Debug)]
pub struct Held<'a> {
    /// The registry.
    pub registry: &'a Registry,
    /// Approvals count only when their lowest version is above this.
    pub floor: u64,
}

/// What to do with a registry that is offered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is the one in force.
    Same,
    /// It is newer and good.
    Newer {
        /// The registry.
        registry: Box<Registry>,
        /// The floor from now on.
        floor: u64,
        /// Whether the officers differ from those in force: who is behind needs this one before any later one.
        hand_over: bool,
    },
}

impl Held<'_> {
    /// Judges a registry that is offered, signed by the region authority. Errors: every [`RegistryError`].
    pub fn judge(&self, offered: &Handed, authority: PublicKey) -> Result<Verdict, RegistryError> {
        let held = self.registry;
        let registry = Registry::verify(&offered.signed.0, authority, None)?;
        if registry.region != held.region || registry.root != held.root {
            return Err(RegistryError::Rule("it belongs to another region"));
        }
        if registry.version < held.version {
            return Err(RegistryError::Rollback {
                offered: registry.version,
                held: held.version,
            });
        }
        if registry.version == held.version {
            return if registry == *held {
                Ok(Verdict::Same)
            } else {
                Err(RegistryError::Equivocation {
                    version: registry.version,
                })
            };
        }
        if registry.issued < held.issued {
            return Err(RegistryError::Backdated);
        }
        for member in &held.members {
            stands(member, &registry)?;
        }
        let floor = self.approved(&registry, &offered.approvals)?;
        let hand_over = registry.policy.officers != held.policy.officers;
        Ok(Verdict::Newer {
            registry: Box::new(registry),
            floor,
            hand_over,
        })
    }

    /// The floor after `next`, when its charter is the one in force or its approvals suffice.
    fn approved(&self, next: &Registry, approvals: &[Bytes]) -> Result<u64, RegistryError> {
        let charter = next.charter()?;
        let Some(rule) = self.registry.policy.officers.as_ref() else {
            return Ok(self.floor);
        };
        if charter == self.registry.charter()? {
            return Ok(self.floor);
        }
        let need = usize::from(rule.approvals).max(1);
        let counted = self.counted(next.version, charter, approvals);
        let have = counted.len();
        let mut lowest: Vec<u64> = counted.into_values().collect();
        lowest.sort_unstable_by(|left, right| right.cmp(left));
        let floor = lowest.get(need.saturating_sub(1)).copied();
        floor.ok_or(RegistryError::Unapproved { have, need })
    }

    /// Officers in force whose approval of this charter counts for that version, with the version it is from.
    #[must_use]
    pub fn counted(&self, version: u64, charter: ContentHash, approvals: &[Bytes]) -> BTreeMap<PublicKey, u64> {
        let Some(rule) = self.registry.policy.officers.as_ref() else {
            return BTreeMap::new();
        };
        let keys: Vec<PublicKey> = rule.officers.iter().map(|officer| officer.public).collect();
        let mut counted = BTreeMap::new();
        for bytes in approvals.iter().take(APPROVALS_MAX) {
            let Ok((approval, officer)) = Approval::verify(&bytes.0, &keys) else {
                continue;
            };
            let holds = approval.region == self.registry.region
                && approval.charter == charter
                && approval.from > self.floor
                && approval.from <= version;
            if holds {
                let from = counted.entry(officer).or_insert(approval.from);
                *from = approval.from.max(*from);
            }
        }
        counted
    }
}

/// Within a term a standing only falls, and the time of a fall never moves later.
fn stands(member: &Member, next: &Registry) -> Result<(), RegistryError> {
    let Some(then) = next.member(&member.org) else {
        return Ok(());
    };
    let falls = match (member.standing, then.standing) {
        (Standing::Active, _) | (Standing::Suspended(_), Standing::Revoked(_)) => true,
        (Standing::Suspended(was), Standing::Suspended(is)) | (Standing::Revoked(was), Standing::Revoked(is)) => {
            is <= was
        }
        (Standing::Suspended(_), Standing::Active) | (Standing::Revoked(_), _) => false,
    };
    if then.term > member.term || (then.term == member.term && falls) {
        Ok(())
    } else {
        Err(RegistryError::Returned(member.org.clone()))
    }
}

#[cfg(test)]
mod tests;
