//! IHE PCF 1.1: the patient's choices.

pub mod iti108_access_consent;
