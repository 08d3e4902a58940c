//! The patient's choices at this node: stored FHIR Consents, the directives they mean, and the consent epoch.
//!
//! ```text
//! FHIR Consent --accept--> stored + epoch moves (one commit) --> open transfers end, index records re-labelled
//! stored Consents --directives--> judge --> Permit | Denial, once for every document and every path
//! ```

pub mod decide;
pub mod epoch;
pub mod store;
