//! The bulk lane: one mutual-TLS connection without muxer, frames of `length (u32 BE) | kind (u8) | body`.
//!
//! ```text
//! asker                                   custodian
//!   Ask { ticket, item, from } ------------>
//!        <------------ Header { receipt, size, hash, ... }   or  Refused
//!        <------------ Chunk ... Chunk
//!        <------------ End
//!   Ask ... (the connection serves one ask after the other)
//! ```
//!
//! A ticket comes with a grant of `open`; it works for the node it was given to, until its lease ends, so
//! that a broken transfer resumes by range. The custodian re-checks the consent epoch at least every MiB and
//! ends with `Refused` when it moved (SPEC P-BULK).

use serde::{Deserialize, Serialize};

use crate::bytes::Bytes;
use crate::id::{ConsentEpoch, ContentHash, Ticket, TransferHash};
use crate::refusal::Refusal;

/// Largest chunk body, in bytes.
pub const CHUNK_BYTES_MAX: usize = 256 * 1024;
/// Largest other frame of the bulk lane (a study manifest), in bytes.
pub const LANE_FRAME_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Largest ask or refusal of the bulk lane, in bytes.
pub const LANE_ASK_BYTES_MAX: usize = 1024;
/// Bytes after which the consent epoch is checked again.
pub const EPOCH_CHECK_BYTES: u64 = 1024 * 1024;
/// Life of a ticket, in milliseconds.
pub const TICKET_LIFE_MS: u64 = 15 * 60 * 1000;
/// Most instances in a study manifest.
pub const INSTANCES_MAX: usize = 20_000;

/// Kind byte of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum FrameKind {
    /// [`Ask`], CBOR.
    Ask = 1,
    /// [`Header`], CBOR.
    Header = 2,
    /// Raw content bytes.
    Chunk = 3,
    /// End of an item, empty body.
    End = 4,
    /// [`Refusal`], CBOR.
    Refused = 5,
}

impl FrameKind {
    /// Reads a kind byte.
    #[must_use]
    pub const fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Ask),
            2 => Some(Self::Header),
            3 => Some(Self::Chunk),
            4 => Some(Self::End),
            5 => Some(Self::Refused),
            _ => None,
        }
    }

    /// Largest body of this kind, in bytes.
    #[must_use]
    pub const fn body_max(self) -> usize {
        match self {
            Self::Ask | Self::Refused => LANE_ASK_BYTES_MAX,
            Self::Header => LANE_FRAME_BYTES_MAX,
            Self::Chunk => CHUNK_BYTES_MAX,
            Self::End => 0,
        }
    }
}

/// What of a granted document is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Item {
    /// The document itself; for a study, its manifest (the header carries it, no chunks follow).
    Document,
    /// The n-th instance of a study, in manifest order, from zero.
    Instance(u32),
    /// All instances from the n-th on: a header, chunks and an end for each. `from` is the offset into the first.
    InstancesFrom(u32),
}

/// Opens a transfer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ask {
    /// From the grant.
    pub ticket: Ticket,
    /// What of it.
    pub item: Item,
    /// First byte wanted.
    pub from: u64,
}

/// Comes before content bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// Which item follows.
    pub item: Item,
    /// The custodian's signed audit receipt ([`crate::message::Receipt`]): durable before this frame left.
    pub receipt: Bytes,
    /// Consent epoch under which the item is released.
    pub epoch: ConsentEpoch,
    /// MIME type.
    pub content_type: String,
    /// Size of the whole item, in bytes.
    pub size: u64,
    /// First byte that follows.
    pub from: u64,
    /// SHA-256 of the whole item.
    pub hash: ContentHash,
    /// For a study asked as `Document`.
    pub manifest: Option<StudyManifest>,
    /// BLAKE3 of the whole item, computed beside its SHA-256 when it was stored. Only on a lane of version 2
    /// ([`crate::version::ALPN_BULK_2`]), and only where the custodian has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transfer: Option<TransferHash>,
}

/// A study, in viewing order.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StudyManifest {
    /// Study Instance UID.
    pub study_uid: String,
    /// Study description.
    pub description: Option<String>,
    /// DICOM DA of the study.
    pub date: Option<String>,
    /// Series.
    pub series: Vec<SeriesEntry>,
}

/// A series of a study.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeriesEntry {
    /// Series Instance UID.
    pub series_uid: String,
    /// Modality.
    pub modality: String,
    /// Series number.
    pub number: Option<i64>,
    /// Series description.
    pub description: Option<String>,
    /// Body part.
    pub body_part: Option<String>,
    /// Instances in viewing order.
    pub instances: Vec<InstanceEntry>,
}

/// An instance of a series.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceEntry {
    /// SOP Instance UID.
    pub sop_uid: String,
    /// SOP Class UID.
    pub sop_class: String,
    /// Transfer Syntax UID as stored.
    pub transfer_syntax: String,
    /// Instance number.
    pub number: Option<i64>,
    /// Rows, columns and frames of the picture, zero if there is none.
    pub extent: (u32, u32, u32),
    /// Size in bytes.
    pub size: u64,
    /// SHA-256.
    pub hash: ContentHash,
}

impl StudyManifest {
    /// All instances in manifest order.
    pub fn instances(&self) -> impl Iterator<Item = (&SeriesEntry, &InstanceEntry)> {
        self.series
            .iter()
            .flat_map(|series| series.instances.iter().map(move |instance| (series, instance)))
    }
}

impl core::fmt::Debug for StudyManifest {
    fn fmt(&self, out: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(
            out,
            "StudyManifest({} series, {} instances)",
            self.series.len(),
            self.instances().count()
        )
    }
}

impl core::fmt::Debug for SeriesEntry {
    fn fmt(&self, out: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(out, "SeriesEntry({} instances)", self.instances.len())
    }
}

impl core::fmt::Debug for InstanceEntry {
    fn fmt(&self, out: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(out, "InstanceEntry({} bytes)", self.size)
    }
}

/// Body of a `Refused` frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// Why.
    pub refusal: Refusal,
}
