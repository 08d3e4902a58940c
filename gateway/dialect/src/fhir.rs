//! FHIR R4 (4.0.1) JSON: the guarded entry point, a thin model over JSON values, import, and the patient summary.

pub mod clinical;
pub mod fixture;
pub mod guard;
pub mod import;
pub mod ips;
pub mod resource;
