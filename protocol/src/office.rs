//! What a member tells the region office about the token keys, and what the office gives back.
//!
//! `POST /hie/tokens` over the TLS of enrolment: a signed [`TokenReport`], answered with [`TokenOrders`]. Shares
//! travel to the node that the registry seats and to no other (SPEC M-OFFICE).

use serde::{Deserialize, Serialize};

use crate::bytes::Bytes;
use crate::cbor;
use crate::claim::CLOCK_SKEW_MS_MAX;
use crate::id::{Millis, NodeKey, OrgId, PublicKey};
use crate::message::SecretBytes;
use crate::oprf::SHARES_MAX;
use crate::registry::Registry;
use crate::sign::{self, DOMAIN_TOKEN_REPORT, SignError, Signer};

/// Largest signed report and largest answer, in bytes.
pub const REPORT_BYTES_MAX: usize = 64 * 1024;
/// How old a report may be, in milliseconds, clock skew apart.
pub const REPORT_MS_MAX: u64 = 60_000;
/// Most entries of each list of a report.
pub const REPORT_ENTRIES_MAX: usize = 64;

/// A share that a node holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldShare {
    /// Key epoch.
    pub epoch: u32,
    /// Index of the share.
    pub index: u16,
    /// Its public point.
    pub point: PublicKey,
}

/// The new share of a resharing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeatReport {
    /// Generation of the resharing.
    pub generation: u32,
    /// Index of the new share.
    pub index: u16,
    /// Its public point.
    pub point: PublicKey,
    /// Digest of what each dealer committed to, by the dealer's index.
    pub commitments: Vec<DealerDigest>,
}

/// What one dealer committed to, as one seat saw it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DealerDigest {
    /// Index of the dealer's share.
    pub dealer: u16,
    /// SHA-256 of its commitments in order.
    pub digest: Bytes,
}

/// Where a node stands with the token keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenReport {
    /// Organisation.
    pub org: OrgId,
    /// When it was signed.
    pub at: Millis,
    /// Epochs under which its whole population is published, in order.
    pub published: Vec<u32>,
    /// Shares that it holds.
    pub held: Vec<HeldShare>,
    /// Its new share.
    pub seat: Option<SeatReport>,
    /// The organisation whose dealt part did not fit.
    pub lied: Option<OrgId>,
}

impl TokenReport {
    /// Signs the report. Errors: [`SignError`].
    pub fn sign(&self, node: &dyn Signer) -> Result<Vec<u8>, SignError> {
        sign::sign(DOMAIN_TOKEN_REPORT, cbor::encode(self)?, node)
    }

    /// Verifies a report signed by an active node of the member that it names. Errors: [`SignError`].
    pub fn verify(bytes: &[u8], registry: &Registry, now: Millis) -> Result<(NodeKey, Self), SignError> {
        let active = |node: &NodeKey| registry.active_key(node);
        let verified = sign::verify(DOMAIN_TOKEN_REPORT, bytes, REPORT_BYTES_MAX, active)?;
        let report: Self = cbor::decode(&verified.payload, REPORT_BYTES_MAX)?;
        let owner = registry.node(&verified.node).map(|(member, _)| &member.org);
        if owner != Some(&report.org) {
            return Err(SignError::UnknownSigner(verified.node));
        }
        let short = report.published.len() <= REPORT_ENTRIES_MAX
            && report.held.len() <= REPORT_ENTRIES_MAX
            && report
                .seat
                .as_ref()
                .is_none_or(|seat| seat.commitments.len() <= usize::from(SHARES_MAX));
        let age_max = REPORT_MS_MAX.saturating_add(CLOCK_SKEW_MS_MAX);
        if !short || now.since(report.at) > age_max || report.at.since(now) > CLOCK_SKEW_MS_MAX {
            return Err(SignError::Envelope);
        }
        Ok((verified.node, report))
    }
}

/// A share for the node that reported.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DealtShare {
    /// Key epoch.
    pub epoch: u32,
    /// The share, as [`crate::oprf::key::KeyShare::to_bytes`] writes it.
    pub share: SecretBytes,
}

/// The office's answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenOrders {
    /// Shares that the registry seats at this member and that the node does not hold.
    pub shares: Vec<DealtShare>,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::{REPORT_MS_MAX, TokenReport};
    use crate::claim::CLOCK_SKEW_MS_MAX;
    use crate::id::Millis;
    use crate::sign::SignError;
    use crate::sign::tests::TestKey;
    use crate::vectors::{org, registry};

    #[test]
    fn spec_m_office_a_report_counts_for_the_member_that_signed_it_and_only_while_fresh() {
        let (now, registry) = (Millis(1_780_000_000_000), registry());
        let report = TokenReport {
            org: org(1),
            at: now,
            published: vec![1],
            held: Vec::new(),
            seat: None,
            lied: None,
        };
        let signed = report.sign(&TestKey::new(1)).unwrap();
        assert_eq!(TokenReport::verify(&signed, &registry, now).unwrap().1, report);
        let late = now.plus(REPORT_MS_MAX + CLOCK_SKEW_MS_MAX + 1);
        assert_eq!(TokenReport::verify(&signed, &registry, late), Err(SignError::Envelope));
        let early = Millis(now.0 - CLOCK_SKEW_MS_MAX - 1);
        assert_eq!(TokenReport::verify(&signed, &registry, early), Err(SignError::Envelope));
        let other = TokenReport { org: org(2), ..report }.sign(&TestKey::new(1)).unwrap();
        assert!(matches!(
            TokenReport::verify(&other, &registry, now),
            Err(SignError::UnknownSigner(_))
        ));
        let mut torn = signed;
        *torn.last_mut().unwrap() ^= 1;
        assert!(TokenReport::verify(&torn, &registry, now).is_err());
    }
}
