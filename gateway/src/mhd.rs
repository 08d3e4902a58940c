//! IHE MHD 4.2: documents on FHIR.

pub mod document_reference;
pub mod iti67_find_document_references;
pub mod iti68_retrieve_document;
pub mod range;
