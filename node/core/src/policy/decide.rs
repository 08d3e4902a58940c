//! One decision point for every path: FHIR, DICOMweb, federation and console ask here (law 3).

use hie_consent::decide::{Decision, decide};
use hie_consent::request::{ConsentRequest, EmergencyDeclaration, RegionRules};
use hie_protocol::claim::{BreakGlass, Claim};
use hie_protocol::id::{Millis, OrgId};
use hie_protocol::registry::RegionPolicy;
use hie_protocol::vocabulary::{Purpose, Role};

use crate::policy::store::PatientPolicy;
use crate::record::entry::Entry;

/// Who asks, as the judge sees it.
#[derive(Clone)]
pub struct Asker {
    /// Organisation, from the channel's certificate or the own session.
    pub org: OrgId,
    /// Account name there.
    pub user: String,
    /// Name as shown to an auditor.
    pub user_name: String,
    /// Role in use.
    pub role: Role,
    /// Purpose of use.
    pub purpose: Purpose,
    /// Emergency declaration.
    pub break_glass: Option<BreakGlass>,
    /// Evidence of treatment was shown.
    pub evidence: bool,
    /// The asker is this patient, proved by sign-in.
    pub is_patient: bool,
}

impl core::fmt::Debug for Asker {
    fn fmt(&self, out: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(out, "Asker({}, {:?}, {:?})", self.org, self.role, self.purpose)
    }
}

impl Asker {
    /// Who a verified claim names.
    #[must_use]
    pub fn of_claim(claim: &Claim) -> Self {
        Self {
            org: claim.org.clone(),
            user: claim.user.clone(),
            user_name: claim.user_name.clone(),
            role: claim.role,
            purpose: claim.purpose,
            break_glass: claim.break_glass.clone(),
            evidence: claim.evidence.is_some(),
            is_patient: false,
        }
    }
}

/// The region's rules as the judge takes them.
#[must_use]
pub fn rules(policy: &RegionPolicy) -> RegionRules {
    RegionRules::new(policy.consent, policy.break_glass.clone())
}

/// Decides one document for one asker.
pub fn decide_for(
    policy: &PatientPolicy,
    rules: &RegionRules,
    asker: &Asker,
    entry: &Entry,
    custodian: &OrgId,
    now: Millis,
) -> Decision {
    let request = ConsentRequest {
        asker_org: asker.org.clone(),
        asker_user: asker.user.clone(),
        role: asker.role,
        purpose: asker.purpose,
        break_glass: asker.break_glass.as_ref().map(|declared| EmergencyDeclaration {
            declared: declared.declared,
            reason: declared.reason,
        }),
        evidence_of_treatment: asker.evidence,
        asker_is_patient: asker.is_patient,
        item: entry.facts(),
        custodian: custodian.clone(),
        now,
        epoch: policy.epoch,
    };
    decide(&policy.directives, rules, &request)
}
