//! Patients: who is meant by a set of demographics, and which of our records is that person.
//!
//! ```text
//! demographics --normalise--> Normal --tokens---> PRF inputs (asking and publishing)
//!                               |-----score----> certain | probable | nothing, with reasons
//!                               '-----index----> the person's key at this node
//! ```
//!
//! The law: one wrong patient costs more than twenty misses. A grade is `Certain` only with something beside
//! name, birth date and sex, and no guard speaking against it.

pub mod compare;
pub mod index;
pub mod names;
pub mod normalise;
pub mod score;
pub mod search;
pub mod tokens;
#[cfg(test)]
mod vectors;
