//! The oblivious pseudorandom function that turns match tokens into index keys.
//!
//! Implements RFC 9497 (OPRF), suite ristretto255-SHA512, verifiable mode (VOPRF, mode 0x01), with
//! the key shared t-of-n (Shamir over the scalar field). The output is the plain RFC 9497 output:
//! which authorities answered, and how the key was shared, leaves no trace in it.
//!
//! ```text
//!  asking member                                       token authority i (one of n)
//!  Blinding::new(inputs)      -- B_1 .. B_m -->        server::evaluate(share_i, B)
//!  blinding.verify(public_i)  <-- k_i*B_j, proof --    DLEQ proof against K_i = k_i*G
//!  combine(t of them)            Lagrange in the exponent
//!  blinding.finalize()           unblind, hash: 64 bytes for each input
//! ```
//!
//! The law: an authority sees blinded points alone, and no answer reaches the combination before
//! its proof holds. A point or scalar enters only in its canonical encoding; the identity and zero
//! are refused. Randomness is an argument: a source fills the whole buffer that it is given from
//! a cryptographic generator.

pub mod client;
pub mod derive;
mod group;
pub mod key;
mod proof;
pub mod reshare;
pub mod server;

#[cfg(test)]
mod tests;

/// Most elements in one evaluation (one proof covers the whole batch): a batch of a publication.
pub const EVALUATE_BATCH_MAX: usize = 1024;

/// Most elements in one evaluation of a question: all that is asked about one person.
pub const QUESTION_BATCH_MAX: usize = 64;

/// Longest input of the function, in bytes.
pub const INPUT_LEN_MAX: usize = 1024;

/// Most shares of one group key.
pub const SHARES_MAX: u16 = 64;

/// Length of an encoded point, in bytes.
pub const ELEMENT_LEN: usize = 32;

/// Length of an encoded proof (two scalars), in bytes.
pub const PROOF_LEN: usize = 64;

/// Length of the function's output, in bytes.
pub const OUTPUT_LEN: usize = 64;

/// A point blinded by the asking member: it tells the authority nothing about the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BlindedElement(pub [u8; ELEMENT_LEN]);

/// An authority's answer to a batch, as it travels; worth nothing before it is verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evaluation {
    /// k_i * B_j for each blinded element, in the order asked.
    pub elements: Vec<[u8; ELEMENT_LEN]>,
    /// The batched DLEQ proof (RFC 9497 section 2.2): challenge and response scalars.
    pub proof: [u8; PROOF_LEN],
}

/// Why an oblivious evaluation, or a key for it, is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OprfError {
    /// The batch is empty or too long.
    #[error("an evaluation takes 1 to {EVALUATE_BATCH_MAX} elements, not {count}; split the batch")]
    BatchSize {
        /// Elements given.
        count: usize,
    },
    /// An input is empty or too long.
    #[error("input {position} has {length} bytes; 1 to {INPUT_LEN_MAX} are allowed")]
    InputSize {
        /// Place of the input in the batch, from 0.
        position: usize,
        /// Its length in bytes.
        length: usize,
    },
    /// An input hashes to the identity (RFC 9497 `InvalidInputError`).
    #[error("input {position} cannot be mapped to the group; leave it out")]
    InputUnusable {
        /// Place of the input in the batch, from 0.
        position: usize,
    },
    /// An encoded point is not canonical, or is the identity.
    #[error("{what} at place {position} is not a canonical ristretto255 point other than the identity")]
    Point {
        /// What the point stands for.
        what: &'static str,
        /// Its place in its list, from 0.
        position: usize,
    },
    /// An encoded scalar is not canonical, or is zero.
    #[error("{what} is not a canonical non-zero scalar")]
    Scalar {
        /// What the scalar stands for.
        what: &'static str,
    },
    /// An encoded key has a wrong length, version or order.
    #[error("{what} is malformed: {reason}")]
    Encoding {
        /// The encoded thing.
        what: &'static str,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Threshold and share count do not fit each other.
    #[error(
        "a threshold of {threshold} among {count} shares is impossible; need 1 <= threshold <= count <= {SHARES_MAX}"
    )]
    Threshold {
        /// Shares needed.
        threshold: u16,
        /// Shares in all.
        count: usize,
    },
    /// The public shares are not those of one polynomial with the group's public key.
    #[error("public share {index} does not belong to the group's public key")]
    Inconsistent {
        /// Index of the share.
        index: u16,
    },
    /// The randomness source gave zeros.
    #[error("the randomness source gave no randomness")]
    Randomness,
    /// An authority answered another number of elements than it was asked.
    #[error("token authority {index} answered {got} elements instead of {asked}; ask another authority")]
    AnswerSize {
        /// Index of the authority's share.
        index: u16,
        /// Elements answered.
        got: usize,
        /// Elements asked.
        asked: usize,
    },
    /// An authority answered with something that is no point of the group.
    #[error("token authority {index} answered a malformed point at place {position}; ask another authority")]
    AnswerPoint {
        /// Index of the authority's share.
        index: u16,
        /// Place in the answer, from 0.
        position: usize,
    },
    /// An authority's proof does not hold: it did not use the key it published.
    #[error("the proof of token authority {index} does not hold against its published key; ask another authority")]
    Proof {
        /// Index of the authority's share.
        index: u16,
    },
    /// Fewer verified answers than the threshold.
    #[error("{have} token authorities answered; {need} are needed")]
    TooFew {
        /// Verified answers.
        have: usize,
        /// The threshold.
        need: u16,
    },
    /// The same authority is counted twice.
    #[error("token authority {index} is counted twice")]
    Repeated {
        /// Index of the authority's share.
        index: u16,
    },
    /// A dealer's part of a new share does not fit what it committed to, or its committed share is not its own.
    #[error("token authority {dealer} dealt a part that does not fit its published key; begin again without it")]
    Dealer {
        /// Index of the dealer's share.
        dealer: u16,
    },
    /// Parts of another set of dealers than the one described.
    #[error("the parts are not those of the dealers described, each once")]
    Dealers,
    /// Verified answers to another batch are mixed in.
    #[error("the answers belong to another batch of blinded elements")]
    OtherBatch,
}
