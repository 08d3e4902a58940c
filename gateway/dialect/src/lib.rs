//! Hostile bytes become values here, and values become bytes.
//!
//! This crate knows FHIR JSON, DICOM part 10 and `multipart/related`. It knows no network, no clock and no
//! randomness: identifiers and times are arguments. Every entry point checks size, depth and lengths against
//! named constants before a library sees the bytes, and answers with a value or a clear error; it never fetches
//! anything that the data points at. Every error of this crate is the sender's to mend (class *Invalid*).

pub mod dicom;
pub mod fhir;
pub mod multipart;

#[cfg(test)]
mod corpus;
