//! The API through the real router over in-memory twins: FHIR and DICOMweb, friendly and hostile.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod api {
    pub mod capability;
    pub mod dicom;
    pub mod entry;
    pub mod fhir;
    pub mod world;
}
