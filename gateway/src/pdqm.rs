//! IHE PDQm 3.2: patient demographics.

pub mod iti78_patient_demographics_query;
pub mod matching;
