//! The registry: the region's signed, versioned list of members. It is the only source of membership.
//!
//! The region authority signs it; a node takes a newer version only, never an older one (SPEC P-REG).

use serde::{Deserialize, Serialize};

use crate::cbor;
use crate::charter::OFFICERS_MAX;
use crate::id::{Millis, NodeKey, OrgId, PublicKey};
use crate::sign::{self, DOMAIN_REGISTRY, SignError, Signer};

/// Most members of a region.
pub const MEMBERS_MAX: usize = 1000;
/// Most nodes of one organisation.
pub const NODES_MAX: usize = 8;
/// Most characters of a name or an address.
pub const NAME_CHARS_MAX: usize = 200;
/// Largest signed registry, in bytes.
pub const REGISTRY_BYTES_MAX: usize = 1024 * 1024;

/// What a member may do beyond asking and answering.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MemberRole {
    /// Holds a part of the index.
    IndexHolder,
    /// Holds a share of the token key.
    TokenAuthority,
    /// Cosigns audit checkpoints.
    Witness,
    /// Carries sealed channels of members that cannot be dialled.
    Relay,
}

/// Whether a member takes part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Standing {
    /// Takes part.
    Active,
    /// Out for now, since that time; what it published stays. A higher [`Member::term`] lets it return.
    Suspended(Millis),
    /// Out since that time: nothing it signed after it counts.
    Revoked(Millis),
}

/// What kind of organisation a member is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MemberKind {
    /// Hospital.
    Hospital,
    /// Clinic or practice.
    Clinic,
    /// Imaging centre.
    ImagingCentre,
    /// Laboratory.
    Laboratory,
    /// Any other.
    Other,
}

/// One node of a member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeEntry {
    /// SHA-256 of the certificate's SubjectPublicKeyInfo.
    pub key: NodeKey,
    /// The raw Ed25519 key of the same certificate: verifies what the node signs.
    pub public: PublicKey,
    /// `host:port` of the control channel; none when the node dials out only.
    pub control: Option<String>,
    /// `host:port` of the bulk lane.
    pub bulk: Option<String>,
    /// Members with the role [`MemberRole::Relay`] through which the node is reached, sorted; from version 2.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub relays: Vec<OrgId>,
}

/// One organisation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Its OID URN, also its home community id.
    pub org: OrgId,
    /// Its name as shown.
    pub name: String,
    /// Its kind.
    pub kind: MemberKind,
    /// Its nodes.
    pub nodes: Vec<NodeEntry>,
    /// Its roles, sorted.
    pub roles: Vec<MemberRole>,
    /// Whether it takes part.
    pub standing: Standing,
    /// Telephone number for questions, as shown beside a gap.
    pub phone: Option<String>,
    /// Grows when a suspended member may return: part of the charter, so that officers approve it; from version 2.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub term: u32,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the shape that serde calls")]
const fn is_zero(value: &u32) -> bool {
    *value == 0
}

/// What holds where a patient has recorded no choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ConsentModel {
    /// Share for treatment unless the patient says no.
    OptOut,
    /// Share nothing unless the patient says yes.
    OptIn,
}

/// Rules of emergency access.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BreakGlassRules {
    /// Whether the region allows it at all.
    pub allowed: bool,
    /// How long one declaration lasts, in minutes.
    pub minutes: u32,
    /// Whether an answer may say that something is withheld.
    pub tell_withheld: bool,
}

/// Who holds which share of the token key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenAuthority {
    /// Index of the share, from 1.
    pub index: u16,
    /// The member that holds it.
    pub org: OrgId,
    /// Public point of the share (ristretto255, 32 bytes).
    pub point: PublicKey,
}

/// Parameters of the match tokens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenParameters {
    /// Normalisation profile, part of every PRF input.
    pub profile: String,
    /// Key epoch, part of every PRF input.
    pub epoch: u32,
    /// How many authorities must evaluate.
    pub threshold: u16,
    /// The authorities.
    pub authorities: Vec<TokenAuthority>,
    /// A change of the authorities under way; from version 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resharing: Option<Resharing>,
    /// Another key under which records are published too, coming or going; questions use `epoch`. From version 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub beside: Option<TokenEpoch>,
}

/// One key of the oblivious function.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenEpoch {
    /// Key epoch, part of every PRF input.
    pub epoch: u32,
    /// How many authorities must evaluate.
    pub threshold: u16,
    /// The authorities.
    pub authorities: Vec<TokenAuthority>,
}

/// A change of the authorities of one key: `dealers` pass their shares on to `seats`; the key stays.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resharing {
    /// Grows with every attempt.
    pub generation: u32,
    /// How many of the new authorities must evaluate.
    pub threshold: u16,
    /// Indices of the authorities that deal, exactly the threshold in force, sorted.
    pub dealers: Vec<u16>,
    /// Who gets which share.
    pub seats: Vec<ShareSeat>,
}

/// The place of a member among the token authorities.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShareSeat {
    /// Index of the share, from 1.
    pub index: u16,
    /// The member.
    pub org: OrgId,
}

/// Who approves what the region office grants.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Officers {
    /// How many officers must approve.
    pub approvals: u8,
    /// The officers.
    pub officers: Vec<Officer>,
}

/// An officer of the region office.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Officer {
    /// Name as shown.
    pub name: String,
    /// Ed25519 key that signs approvals.
    pub public: PublicKey,
}

/// What the region decides for all.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegionPolicy {
    /// Default consent model.
    pub consent: ConsentModel,
    /// Emergency access.
    pub break_glass: BreakGlassRules,
    /// Copies of each index record (R).
    pub replicas: u8,
    /// Copies that must be durable before a publish is acknowledged (W).
    pub write_quorum: u8,
    /// Life of a live index record, in milliseconds; the owner renews it.
    pub record_life_ms: u64,
    /// Life of a tombstone, in milliseconds; longer than any record life.
    pub tombstone_life_ms: u64,
    /// Match tokens.
    pub tokens: TokenParameters,
    /// Officers whose approval every grant of the region office needs; none: the office alone. From version 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub officers: Option<Officers>,
}

impl RegionPolicy {
    /// Copies needed of `holders` index holders: R, or all of a small region.
    #[must_use]
    pub fn replicas_of(&self, holders: usize) -> usize {
        usize::from(self.replicas).min(holders)
    }

    /// Durable copies before an acknowledgement: W, or the majority of a small region.
    #[must_use]
    pub fn write_quorum_of(&self, holders: usize) -> usize {
        let replicas = self.replicas_of(holders);
        usize::from(self.write_quorum).clamp(replicas / 2 + 1, replicas.max(1))
    }

    /// Answers needed per key so that every acknowledged publish is seen: R - W + 1.
    #[must_use]
    pub fn read_quorum_of(&self, holders: usize) -> usize {
        self.replicas_of(holders)
            .saturating_sub(self.write_quorum_of(holders))
            .saturating_add(1)
    }
}

/// The registry of a region.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registry {
    /// The region's name.
    pub region: String,
    /// Grows by one with every change.
    pub version: u64,
    /// When it was signed.
    pub issued: Millis,
    /// DER of the region's root certificate.
    #[serde(with = "crate::bytes")]
    pub root: Vec<u8>,
    /// DER of the certificate revocation list in force.
    #[serde(with = "crate::bytes")]
    pub crl: Vec<u8>,
    /// Members in the order of their ids.
    pub members: Vec<Member>,
    /// Policy.
    pub policy: RegionPolicy,
}

/// Why a registry is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RegistryError {
    /// The signature or envelope is wrong.
    #[error("the registry is not signed by the region authority")]
    Signed(#[from] SignError),
    /// The content breaks a frame rule.
    #[error("the registry is malformed")]
    Frame(#[from] cbor::FrameError),
    /// A rule of the content is broken.
    #[error("the registry breaks a rule: {0}")]
    Rule(&'static str),
    /// An older version than the one in force.
    #[error("the registry has version {offered}, version {held} is in force")]
    Rollback {
        /// Version offered.
        offered: u64,
        /// Version in force.
        held: u64,
    },
    /// Another registry with the version in force: the office signed two.
    #[error("the region authority signed two different registries of version {version}")]
    Equivocation {
        /// The version.
        version: u64,
    },
    /// Newer by its version, older by its time.
    #[error("the registry has a newer version, but was signed before the one in force")]
    Backdated,
    /// A member came back, or fell later than before, within one term.
    #[error("{0} returns without a new term")]
    Returned(OrgId),
    /// The officers in force did not approve.
    #[error("the registry grants something that {have} of the {need} officers needed approved")]
    Unapproved {
        /// Officers whose approval counts.
        have: usize,
        /// Officers needed.
        need: usize,
    },
}

impl Registry {
    /// Checks the content rules. Errors: [`RegistryError::Rule`].
    pub fn check(&self) -> Result<(), RegistryError> {
        let rule = |holds: bool, text: &'static str| if holds { Ok(()) } else { Err(RegistryError::Rule(text)) };
        rule(self.members.len() <= MEMBERS_MAX, "too many members")?;
        let ordered = self.members.is_sorted_by(|left, right| left.org < right.org);
        rule(
            ordered,
            "members are not in the order of their ids, or one is there twice",
        )?;
        let mut keys: Vec<&NodeKey> = Vec::new();
        for member in &self.members {
            rule(member.nodes.len() <= NODES_MAX, "too many nodes in a member")?;
            rule(member.name.chars().count() <= NAME_CHARS_MAX, "a name is too long")?;
            keys.extend(member.nodes.iter().map(|node| &node.key));
        }
        keys.sort();
        rule(
            keys.windows(2).all(|pair| pair.first() != pair.last()),
            "two nodes have one key",
        )?;
        let policy = &self.policy;
        rule(policy.replicas >= 1 && policy.write_quorum >= 1, "no replicas")?;
        rule(
            policy.write_quorum <= policy.replicas,
            "the write quorum exceeds the replicas",
        )?;
        rule(
            policy.tombstone_life_ms > policy.record_life_ms,
            "a tombstone must outlive every record",
        )?;
        let Some(officers) = &policy.officers else {
            return Ok(());
        };
        let count = officers.officers.len();
        rule(count <= OFFICERS_MAX, "too many officers")?;
        rule(
            officers.approvals >= 1 && usize::from(officers.approvals) <= count,
            "more approvals are needed than there are officers, or none",
        )?;
        let mut keys: Vec<&PublicKey> = officers.officers.iter().map(|officer| &officer.public).collect();
        keys.sort();
        keys.dedup();
        rule(keys.len() == count, "two officers have one key")?;
        let short = |officer: &Officer| officer.name.chars().count() <= NAME_CHARS_MAX;
        rule(officers.officers.iter().all(short), "a name is too long")
    }

    /// Signs this version. Errors: [`RegistryError`] when the content breaks a rule.
    pub fn sign(&self, authority: &dyn Signer) -> Result<Vec<u8>, RegistryError> {
        self.check()?;
        Ok(sign::sign(DOMAIN_REGISTRY, cbor::encode(self)?, authority)?)
    }

    /// Verifies a signed registry against the region authority's key and the version in force.
    ///
    /// Errors: every [`RegistryError`].
    pub fn verify(bytes: &[u8], authority: PublicKey, held: Option<u64>) -> Result<Self, RegistryError> {
        let verified = sign::verify(DOMAIN_REGISTRY, bytes, REGISTRY_BYTES_MAX, |_| Some(authority))?;
        let registry: Self = cbor::decode(&verified.payload, REGISTRY_BYTES_MAX)?;
        registry.check()?;
        match held {
            Some(held) if registry.version < held => Err(RegistryError::Rollback {
                offered: registry.version,
                held,
            }),
            _ => Ok(registry),
        }
    }

    /// The member of that id.
    #[must_use]
    pub fn member(&self, org: &OrgId) -> Option<&Member> {
        let at = self.members.binary_search_by(|member| member.org.cmp(org)).ok()?;
        self.members.get(at)
    }

    /// The member and node of a key, active or not.
    #[must_use]
    pub fn node(&self, key: &NodeKey) -> Option<(&Member, &NodeEntry)> {
        self.members.iter().find_map(|member| {
            member
                .nodes
                .iter()
                .find(|node| node.key == *key)
                .map(|node| (member, node))
        })
    }

    /// Active members with a role, in the order of their ids.
    pub fn with_role(&self, role: MemberRole) -> impl Iterator<Item = &Member> {
        self.active().filter(move |member| member.roles.contains(&role))
    }

    /// Active members, in the order of their ids.
    pub fn active(&self) -> impl Iterator<Item = &Member> {
        self.members.iter().filter(|member| member.standing == Standing::Active)
    }

    /// The key of a node whose member takes part: the lookup for signatures.
    #[must_use]
    pub fn active_key(&self, node: &NodeKey) -> Option<PublicKey> {
        let (member, entry) = self.node(node)?;
        (member.standing == Standing::Active).then_some(entry.public)
    }
}
