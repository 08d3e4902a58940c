//! The edge of a node: everything that speaks HTTP to people, EHRs and archives.
//!
//! The law: this crate decides nothing and keeps nothing durable; it turns requests into calls of its ports and
//! answers into pages, FHIR and DICOMweb. It knows no store, no peer and no key.
//!
//! ```text
//! server -> headers -> guard (who, may they, form token, deadline) -> handler -> ports -> answer or respond
//! ```

pub mod clinical;
pub mod console;
pub mod dicomweb;
pub mod fhir;
pub mod gate;
pub mod guard;
pub mod headers;
pub mod mhd;
pub mod pcf;
pub mod pdqm;
pub mod ports;
pub mod respond;
pub mod routes;
pub mod server;
pub mod session;
pub mod twins;
