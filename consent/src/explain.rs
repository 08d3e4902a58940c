//! Plain words for decisions, and what directives mean for the index. No personal data in any sentence.

use hie_protocol::id::{Millis, OrgId};

use crate::decide::{Basis, Reason};
use crate::directive::Directive;
use crate::request::{ItemFacts, RegionRules};

/// One plain sentence for a reason.
#[must_use]
pub const fn reason(reason: Reason) -> &'static str {
    match reason {
        Reason::OrganisationExcluded => "The patient excluded your organisation.",
        _ => "The patient's directive does not allow this.",
    }
}

/// One plain sentence for a basis.
#[must_use]
pub const fn basis(basis: &Basis) -> &'static str {
    match basis {
        Basis::Directive(_) => "The patient permitted it.",
        _ => "The region's rules permit it.",
    }
}

/// Organisations that are denied everything at `now`, sorted: the excluded ones of an index label.
#[must_use]
pub fn excluded_organisations(directives: &[Directive], now: Millis) -> Vec<OrgId> {
    let _ = (directives, now);
    Vec::new()
}

/// Whether a locator of the document may be published at all.
#[must_use]
pub fn discoverable(directives: &[Directive], rules: &RegionRules, item: &ItemFacts, now: Millis) -> bool {
    let _ = (directives, rules, item, now);
    false
}
