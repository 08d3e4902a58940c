//! The bulk lane: content bytes on a mutual-TLS connection of their own, without a muxer (SPEC P-BULK).
//!
//! A connection serves one ask after the other; an asker that wants two things at once opens two connections. An ask
//! for one item ends with its `End`; an ask for all instances from the n-th on ends with one more `End` that no
//! `Header` came before. `Refused` ends any ask. `length` counts the body only.

use bytes::Bytes;

use hie_protocol::id::{NodeKey, OrgId};
use hie_protocol::refusal::Refusal;
use hie_protocol::retrieval::{Ask, Header};

use futures::future::BoxFuture;
use tokio::sync::mpsc;

pub mod client;
pub mod server;
pub mod substream;
pub mod wire;

/// Frames that wait between the source of an answer and its connection: with chunks of 256 KiB, 1 MiB at most.
pub const FRAMES_AHEAD_MAX: usize = 4;

/// A frame of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LaneFrame {
    /// Comes before content bytes.
    Header(Box<Header>),
    /// Content bytes, at most [`hie_protocol::retrieval::CHUNK_BYTES_MAX`].
    Chunk(Bytes),
    /// End of an item.
    End,
    /// The custodian ends the ask; nothing follows.
    Refused(Refusal),
}

/// Frames of an answer, produced with back-pressure: make the channel with [`FRAMES_AHEAD_MAX`].
///
/// The producer sends Header, Chunk ..., End for each item, or Refused at any point, and drops its sender. Dropping it
/// in the middle of an item breaks the connection off, so that the asker never takes a part for the whole.
pub type LaneReply = mpsc::Receiver<LaneFrame>;

/// Answers asks of other nodes.
pub trait LaneServer: Send + Sync + 'static {
    /// Begins an answer. Errors: the refusal that the asker gets.
    fn ask(&self, from: NodeKey, org: OrgId, ask: Ask) -> BoxFuture<'_, Result<LaneReply, Refusal>>;
}
