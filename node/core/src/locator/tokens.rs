//! Token outputs: blind, ask the authorities, verify each proof, combine, unblind.
//!
//! An authority sees blinded points and a signed claim, nothing else. As many authorities as the registry's
//! threshold must answer; an answer counts only after its proof held against the share the registry names.

use core::fmt;
use std::sync::Arc;

use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use hie_protocol::bytes::Bytes;
use hie_protocol::id::{OrgId, PublicKey};
use hie_protocol::message::{Request, Response};
use hie_protocol::oprf::client::{Blinding, Verified, combine};
use hie_protocol::oprf::key::PublicShare;
use hie_protocol::oprf::{BlindedElement, EVALUATE_BATCH_MAX, Evaluation, OprfError};
use hie_protocol::refusal::{Class, Refusal};
use hie_protocol::registry::{Registry, TokenAuthority as AuthorityEntry};
use tokio::sync::watch;
use zeroize::Zeroizing;

use crate::exchange::authority::Authority;
use crate::exchange::claim::{Asking, ClaimMaker, MakeError};
use crate::locator::driver::{Wire, WireFailure};
use crate::ports::Random;

/// The registry in force, as it changes.
pub type RegistryView = watch::Receiver<Arc<Registry>>;

/// One output of the oblivious function.
pub type Output = Zeroizing<[u8; 64]>;

/// Why there are no outputs.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// Fewer authorities answered than are needed.
    #[error("{answered} of {needed} token authorities answered (silent: {})", names(.silent))]
    TooFew {
        /// Answers whose proof held.
        answered: usize,
        /// Threshold.
        needed: u16,
        /// Who did not answer.
        silent: Vec<OrgId>,
    },
    /// The function itself.
    #[error("a token cannot be evaluated")]
    Function(#[from] OprfError),
    /// The claim cannot be made.
    #[error("no claim can be made for a token authority")]
    Claim(#[from] MakeError),
}

fn names(orgs: &[OrgId]) -> String {
    orgs.iter().map(OrgId::as_str).collect::<Vec<_>>().join(", ")
}

impl TokenError {
    /// Who must act.
    #[must_use]
    pub const fn class(&self) -> Class {
        match self {
            Self::TooFew { .. } => Class::Unavailable,
            Self::Function(_) | Self::Claim(_) => Class::Broken,
        }
    }

    /// The authorities that did not answer.
    #[must_use]
    pub fn silent(&self) -> &[OrgId] {
        match self {
            Self::TooFew { silent, .. } => silent,
            Self::Function(_) | Self::Claim(_) => &[],
        }
    }
}

/// Evaluates token inputs.
pub trait TokenAuthority: Send + Sync + 'static {
    /// The outputs in the order of the inputs. Errors: [`TokenError`].
    fn evaluate<'a>(
        &'a self,
        asking: &'a Asking,
        inputs: Vec<Vec<u8>>,
    ) -> BoxFuture<'a, Result<Vec<Output>, TokenError>>;
}

/// The authorities of the registry over the wire, and this node's own share when it holds one.
pub struct WireTokens {
    wire: Arc<dyn Wire>,
    registry: RegistryView,
    claims: ClaimMaker,
    own: Option<Arc<Authority>>,
    random: Arc<dyn Random>,
}

impl fmt::Debug for WireTokens {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("WireTokens")
    }
}

impl WireTokens {
    /// Authorities over the wire.
    #[must_use]
    pub fn new(
        wire: Arc<dyn Wire>,
        registry: RegistryView,
        claims: ClaimMaker,
        own: Option<Arc<Authority>>,
        random: Arc<dyn Random>,
    ) -> Self {
        Self {
            wire,
            registry,
            claims,
            own,
            random,
        }
    }

    async fn batch(&self, asking: &Asking, inputs: &[Vec<u8>]) -> Result<Vec<Output>, TokenError> {
        let registry = Arc::clone(&self.registry.borrow());
        let parameters = &registry.policy.tokens;
        let (blinding, blinded) = {
            let slices: Vec<&[u8]> = inputs.iter().map(Vec::as_slice).collect();
            let mut fill = |out: &mut [u8]| {
                // A failed generator leaves zeros, and zeros are refused as no randomness.
                if self.random.fill(out).is_err() {
                    out.fill(0);
                }
            };
            Blinding::new(&slices, &mut fill)?
        };
        let mut waiting: FuturesUnordered<_> = parameters
            .authorities
            .iter()
            .map(|authority| self.one(asking, parameters.epoch, authority, &blinding, &blinded))
            .collect();
        let needed = parameters.threshold;
        let mut verified: Vec<Verified> = Vec::new();
        let mut silent = Vec::new();
        while let Some((org, answer)) = waiting.next().await {
            match answer? {
                Some(answer) => verified.push(answer),
                None => silent.push(org),
            }
            if verified.len() >= usize::from(needed) {
                let combined = combine(needed, &verified)?;
                return Ok(blinding.finalize(&combined)?);
            }
        }
        silent.sort();
        Err(TokenError::TooFew {
            answered: verified.len(),
            needed,
            silent,
        })
    }

    async fn one(
        &self,
        asking: &Asking,
        epoch: u32,
        authority: &AuthorityEntry,
        blinding: &Blinding,
        blinded: &[BlindedElement],
    ) -> (OrgId, Result<Option<Verified>, TokenError>) {
        let org = authority.org.clone();
        let evaluation = self.ask(asking, epoch, authority, blinded).await;
        let answer = match evaluation {
            Err(error) => Err(error),
            Ok(None) => Ok(None),
            Ok(Some(evaluation)) => {
                let share = PublicShare::new(authority.index, authority.point.as_bytes());
                let held = share.and_then(|share| blinding.verify(&share, &evaluation));
                if let Err(error) = &held {
                    tracing::warn!(%org, %error, "the answer of a token authority is not taken");
                }
                Ok(held.ok())
            }
        };
        (org, answer)
    }

    async fn ask(
        &self,
        asking: &Asking,
        epoch: u32,
        authority: &AuthorityEntry,
        blinded: &[BlindedElement],
    ) -> Result<Option<Evaluation>, TokenError> {
        if let Some(own) = self.own.as_ref().filter(|own| own.index() == authority.index) {
            return Ok(own.evaluate_own(epoch, blinded));
        }
        let claim = self.claims.make(asking, &authority.org)?;
        let request = Request::Evaluate {
            claim: Bytes(claim),
            epoch,
            blinded: blinded.iter().map(|element| PublicKey::new(element.0)).collect(),
            share: None,
        };
        match self.wire.send(authority.org.clone(), request).await {
            Ok(Response::Evaluated { elements, proof, .. }) => {
                let Ok(proof) = proof.0.as_slice().try_into() else {
                    return Ok(None);
                };
                Ok(Some(Evaluation {
                    elements: elements.iter().map(|element| *element.as_bytes()).collect(),
                    proof,
                }))
            }
            Ok(Response::Refused(Refusal::Budget)) => {
                tracing::warn!(org = %authority.org, "the token budget of this organisation is used up");
                Ok(None)
            }
            Ok(_) | Err(WireFailure::Unreachable | WireFailure::TimedOut | WireFailure::Misbehaved) => Ok(None),
        }
    }
}

impl TokenAuthority for WireTokens {
    fn evaluate<'a>(
        &'a self,
        asking: &'a Asking,
        inputs: Vec<Vec<u8>>,
    ) -> BoxFuture<'a, Result<Vec<Output>, TokenError>> {
        Box::pin(async move {
            let mut outputs = Vec::with_capacity(inputs.len());
            for batch in inputs.chunks(EVALUATE_BATCH_MAX) {
                outputs.extend(self.batch(asking, batch).await?);
            }
            Ok(outputs)
        })
    }
}
