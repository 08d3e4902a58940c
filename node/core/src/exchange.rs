//! Questions and answers between organisations: find, fan out, open, serve, retrieve.
//!
//! ```text
//!  asking node                                            holding node
//!  find      audit the question; tokens; pointers
//!  fanout    ask custodians, a deadline each  --------->  serve     claim; re-match; decide; audit; tickets
//!  retrieve  verify receipt and hash; audit   <---------  lane      ticket; decide; audit; the door; frames
//! ```
//!
//! A gap is data (law 5): every answer is whole or names exactly who is silent.

pub mod attention;
pub mod authority;
pub mod budget;
pub mod claim;
pub mod fanout;
pub mod find;
pub mod keyring;
pub mod lane;
pub mod local;
pub mod reshare;
pub mod retrieve;
pub mod serve;
pub mod ticket;
pub mod watch;

#[cfg(test)]
mod tests;
