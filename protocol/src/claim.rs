//! The claim: who asks, for whom, why, with what evidence; signed by the asking node for one custodian.
//!
//! A claim lives at most [`CLAIM_LIFE_MS_MAX`], names its audience and carries a nonce; the custodian checks
//! that the channel's certificate is the claim's node and remembers the nonce for the life of the claim
//! (SPEC P-CLAIM).

use core::fmt;

use serde::{Deserialize, Serialize};

use crate::cbor;
use crate::id::{ContentHash, Correlation, Millis, NodeKey, Nonce, OrgId};
use crate::registry::Registry;
use crate::sign::{self, DOMAIN_CLAIM, SignError, Signer};
use crate::vocabulary::{Purpose, Role};

/// Longest life of a claim, in milliseconds.
pub const CLAIM_LIFE_MS_MAX: u64 = 60_000;
/// Largest difference of clocks that is tolerated, in milliseconds.
pub const CLOCK_SKEW_MS_MAX: u64 = 30_000;
/// Largest signed claim, in bytes.
pub const CLAIM_BYTES_MAX: usize = 8192;
/// Most characters of any text in a claim.
pub const CLAIM_TEXT_CHARS_MAX: usize = 200;

/// Why emergency access is declared. The order is the order of the form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BreakGlassReason {
    /// Life at risk, cannot consent.
    LifeAtRisk,
    /// Needs care now, consent not possible.
    CareNow,
    /// Serious risk to others.
    RiskToOthers,
}

/// A declaration of emergency access.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BreakGlass {
    /// Reason.
    pub reason: BreakGlassReason,
    /// A few words.
    pub words: String,
    /// When the declaration was made; the region's rules say how long it lasts.
    pub declared: Millis,
}

/// Evidence that the patient is treated here: an encounter and the digest of the message that opened it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    /// The encounter's identifier at the asking organisation.
    pub encounter: String,
    /// SHA-256 of the admission message or Encounter resource.
    pub digest: ContentHash,
}

/// What the asking node says about a question.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// Asking organisation.
    pub org: OrgId,
    /// Asking node; must be the channel's certificate.
    pub node: NodeKey,
    /// The user's account name at the asking organisation.
    pub user: String,
    /// The user's name as shown to an auditor.
    pub user_name: String,
    /// Role of the user.
    pub role: Role,
    /// Purpose of use.
    pub purpose: Purpose,
    /// Evidence of treatment.
    pub evidence: Option<Evidence>,
    /// Emergency access.
    pub break_glass: Option<BreakGlass>,
    /// The custodian this claim is for.
    pub audience: OrgId,
    /// Names the question in all audit logs.
    pub correlation: Correlation,
    /// One-time value.
    pub nonce: Nonce,
    /// When the claim was made.
    pub issued: Millis,
    /// When it ends.
    pub expires: Millis,
}

impl fmt::Debug for Claim {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Claim({} -> {}, {:?})", self.org, self.audience, self.correlation)
    }
}

impl fmt::Debug for BreakGlass {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "BreakGlass({:?})", self.reason)
    }
}

impl fmt::Debug for Evidence {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Evidence(hidden)")
    }
}

/// Why a claim does not hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClaimError {
    /// Envelope or signature.
    #[error("the claim is not signed by a member")]
    Signed(#[from] SignError),
    /// Content form.
    #[error("the claim is malformed")]
    Frame(#[from] cbor::FrameError),
    /// A rule is broken.
    #[error("the claim breaks a rule: {0}")]
    Rule(&'static str),
}

impl Claim {
    /// Signs the claim. Errors: [`ClaimError`] when a rule is broken.
    pub fn sign(&self, node: &dyn Signer) -> Result<Vec<u8>, ClaimError> {
        self.check()?;
        Ok(sign::sign(DOMAIN_CLAIM, cbor::encode(self)?, node)?)
    }

    /// Verifies a claim received from `channel` by `audience` at `now`. The caller still has to refuse a
    /// nonce that it has seen. Errors: every [`ClaimError`].
    pub fn verify(
        bytes: &[u8],
        registry: &Registry,
        channel: &NodeKey,
        audience: &OrgId,
        now: Millis,
    ) -> Result<Self, ClaimError> {
        let verified = sign::verify(DOMAIN_CLAIM, bytes, CLAIM_BYTES_MAX, |node| registry.active_key(node))?;
        let claim: Self = cbor::decode(&verified.payload, CLAIM_BYTES_MAX)?;
        claim.check()?;
        let rule = |holds: bool, text: &'static str| if holds { Ok(()) } else { Err(ClaimError::Rule(text)) };
        rule(verified.node == claim.node, "signed by another node")?;
        rule(claim.node == *channel, "arrived over another node's channel")?;
        let owner = registry.node(&claim.node).map(|(member, _)| &member.org);
        rule(owner == Some(&claim.org), "the node belongs to another organisation")?;
        rule(claim.audience == *audience, "for another custodian")?;
        rule(claim.issued <= now.plus(CLOCK_SKEW_MS_MAX), "made in the future")?;
        rule(now <= claim.expires.plus(CLOCK_SKEW_MS_MAX), "expired")?;
        Ok(claim)
    }

    fn check(&self) -> Result<(), ClaimError> {
        let rule = |holds: bool, text: &'static str| if holds { Ok(()) } else { Err(ClaimError::Rule(text)) };
        let short = |text: &str| text.chars().count() <= CLAIM_TEXT_CHARS_MAX;
        rule(short(&self.user) && short(&self.user_name), "a name is too long")?;
        rule(
            self.break_glass.as_ref().is_none_or(|declared| short(&declared.words)),
            "the reason is too long",
        )?;
        rule(
            self.evidence.as_ref().is_none_or(|shown| short(&shown.encounter)),
            "the encounter is too long",
        )?;
        rule(self.expires >= self.issued, "ends before it starts")?;
        rule(self.expires.since(self.issued) <= CLAIM_LIFE_MS_MAX, "lives too long")?;
        let emergency = self.purpose == Purpose::BreakGlass;
        rule(
            emergency == self.break_glass.is_some(),
            "purpose BTG and a declaration go together",
        )
    }
}
