//! The judge: may this organisation, this user, for this purpose, have this document now?
//!
//! A pure, total function over values. It knows no IO, no clock, no randomness and no map whose order varies:
//! the same directives, rules and request give the same decision everywhere and for ever. It never fails: what it
//! cannot read, it denies, and the decision says so (SPEC C-TOTAL, C-CLOSED).
//!
//! ```text
//! FHIR Consent --fhir::read--> Directive --+
//! region registry ------------> RegionRules -+--> decide --> Permitted(Permit) | Denied(Denial)
//! claim + document facts ----> ConsentRequest-+
//! ```

pub mod decide;
pub mod directive;
mod evaluate;
pub mod explain;
pub mod fhir;
pub mod request;
