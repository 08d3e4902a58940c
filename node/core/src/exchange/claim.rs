//! Claims: made for one custodian at a time, taken once.
//!
//! The gate refuses a claim that is not signed by the node on the channel, is for somebody else, too old, or
//! was seen before. What was seen is remembered in memory for the life of a claim; a claim made before the
//! gate opened is refused, so that a restart forgets nothing that matters (SPEC X-CLAIM).

use core::fmt;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use hie_protocol::claim::{
    BreakGlass, CLAIM_LIFE_MS_MAX, CLAIM_TEXT_CHARS_MAX, CLOCK_SKEW_MS_MAX, Claim, ClaimError, Evidence,
};
use hie_protocol::id::{Correlation, Millis, NodeKey, Nonce, OrgId};
use hie_protocol::refusal::{Class, Refusal};
use hie_protocol::vocabulary::{Purpose, Role};
use tracing::warn;

use crate::locator::tokens::RegistryView;
use crate::ports::{Clock, NoRandomness, NodeSigner, Random, SigningGate, random_bytes};

/// Claims remembered at most; beyond it new ones are refused as busy until old ones end.
pub const NONCES_MAX: usize = 262_144;

/// Who asks here, for whom a claim is made.
#[derive(Clone)]
pub struct Asking {
    /// Account name.
    pub user: String,
    /// Name as shown to an auditor.
    pub user_name: String,
    /// Role in use.
    pub role: Role,
    /// Purpose of use.
    pub purpose: Purpose,
    /// Emergency declaration; goes with purpose BTG and no other.
    pub break_glass: Option<BreakGlass>,
    /// Evidence of treatment.
    pub evidence: Option<Evidence>,
    /// Names the question in all audit logs.
    pub correlation: Correlation,
}

impl fmt::Debug for Asking {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            out,
            "Asking({:?}, {:?}, {:?})",
            self.role, self.purpose, self.correlation
        )
    }
}

impl Asking {
    /// The node itself asks.
    #[must_use]
    pub const fn system(purpose: Purpose, role: Role, correlation: Correlation) -> Self {
        Self {
            user: String::new(),
            user_name: String::new(),
            role,
            purpose,
            break_glass: None,
            evidence: None,
            correlation,
        }
    }
}

/// Why no claim can be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MakeError {
    /// A rule of claims.
    #[error("the question cannot be put into a claim")]
    Claim(#[from] ClaimError),
    /// No random bytes.
    #[error("no nonce can be made")]
    Random(#[from] NoRandomness),
    /// This node's clock is too far from the others'.
    #[error(
        "this node's clock is {off_ms} ms off the other members' clocks, so that it signs nothing: set it by NTP; the \
         node then goes on by itself"
    )]
    Clock {
        /// Their clocks less this one, in milliseconds.
        off_ms: i64,
    },
}

impl MakeError {
    /// Who must act.
    #[must_use]
    pub const fn class(&self) -> Class {
        match self {
            Self::Claim(_) => Class::Invalid,
            Self::Random(_) | Self::Clock { .. } => Class::Broken,
        }
    }
}

/// Makes claims of this node.
#[derive(Clone)]
pub struct ClaimMaker {
    me: OrgId,
    signer: Arc<dyn NodeSigner>,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    gate: Option<Arc<dyn SigningGate>>,
}

impl fmt::Debug for ClaimMaker {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("ClaimMaker")
    }
}

impl ClaimMaker {
    /// Makes claims of `me`.
    #[must_use]
    pub fn new(me: OrgId, signer: Arc<dyn NodeSigner>, clock: Arc<dyn Clock>, random: Arc<dyn Random>) -> Self {
        Self {
            me,
            signer,
            clock,
            random,
            gate: None,
        }
    }

    /// Makes none while the gate says that the clock is off.
    #[must_use]
    pub fn gated(self, gate: Arc<dyn SigningGate>) -> Self {
        Self {
            gate: Some(gate),
            ..self
        }
    }

    /// A signed claim for one audience. Errors: [`MakeError`].
    pub fn make(&self, asking: &Asking, audience: &OrgId) -> Result<Vec<u8>, MakeError> {
        if let Some(off_ms) = self.gate.as_ref().and_then(|gate| gate.off_ms()) {
            return Err(MakeError::Clock { off_ms });
        }
        let short = |text: &str| text.chars().take(CLAIM_TEXT_CHARS_MAX).collect::<String>();
        let issued = self.clock.now();
        let claim = Claim {
            org: self.me.clone(),
            node: self.signer.node(),
            user: short(&asking.user),
            user_name: short(&asking.user_name),
            role: asking.role,
            purpose: asking.purpose,
            evidence: asking.evidence.clone(),
            break_glass: asking.break_glass.clone(),
            audience: audience.clone(),
            correlation: asking.correlation,
            nonce: Nonce::new(random_bytes(&*self.random)?),
            issued,
            expires: issued.plus(CLAIM_LIFE_MS_MAX),
        };
        Ok(claim.sign(&*self.signer)?)
    }
}

/// Checks claims that arrive.
pub struct ClaimGate {
    me: OrgId,
    registry: RegistryView,
    clock: Arc<dyn Clock>,
    opened: Millis,
    /// Seen claims, by the time at which they can be forgotten.
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    by_nonce: BTreeMap<(NodeKey, Nonce), Millis>,
    by_end: BTreeMap<(Millis, NodeKey, Nonce), ()>,
}

impl fmt::Debug for ClaimGate {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("ClaimGate")
    }
}

impl ClaimGate {
    /// Opens the gate of `me` now.
    #[must_use]
    pub fn new(me: OrgId, registry: RegistryView, clock: Arc<dyn Clock>) -> Self {
        let opened = clock.now();
        Self {
            me,
            registry,
            clock,
            opened,
            seen: Mutex::default(),
        }
    }

    /// Takes a claim that came over the channel of `channel`, once.
    ///
    /// Errors: [`Refusal::Claim`] for every broken rule (the story is logged), [`Refusal::Busy`] when too many
    /// are remembered.
    pub fn take(&self, bytes: &[u8], channel: &NodeKey) -> Result<Claim, Refusal> {
        let now = self.clock.now();
        let registry = Arc::clone(&self.registry.borrow());
        let claim = Claim::verify(bytes, &registry, channel, &self.me, now).map_err(|error| {
            warn!(node = %channel, %error, "a claim is refused");
            Refusal::Claim
        })?;
        if claim.issued < self.opened {
            warn!(node = %channel, "a claim from before this node's start is refused");
            return Err(Refusal::Claim);
        }
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(((end, node, nonce), ())) = seen.by_end.first_key_value().map(|(key, ())| (*key, ())) {
            if end >= now {
                break;
            }
            seen.by_end.remove(&(end, node, nonce));
            seen.by_nonce.remove(&(node, nonce));
        }
        if seen.by_nonce.len() >= NONCES_MAX {
            return Err(Refusal::Busy);
        }
        let end = claim.expires.plus(CLOCK_SKEW_MS_MAX).plus(1);
        if seen.by_nonce.insert((claim.node, claim.nonce), end).is_some() {
            warn!(node = %channel, "a claim is refused: it was used before");
            return Err(Refusal::Claim);
        }
        seen.by_end.insert((end, claim.node, claim.nonce), ());
        Ok(claim)
    }
}
