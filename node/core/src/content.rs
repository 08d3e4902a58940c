//! Content above [`INLINE_BYTES_MAX`]: sealed in frames, streamed with constant memory, durable before it is named.
//!
//! The store keeps opaque sealed bytes under random names; [`write`] seals and hashes as the bytes pass,
//! [`read`] opens a range and verifies every frame.
//!
//! Reading does not hash again. One key seals one content once; a frame's number and the mark of the last one are its
//! nonce, and the size stands in the sealed row that names the content. A stream that ends without an error is therefore
//! byte for byte what [`write`] hashed: anything else fails to open.

use core::fmt;

use bytes::{Bytes, BytesMut};
use futures::future::BoxFuture;
use futures::stream::{BoxStream, StreamExt};
use hie_protocol::id::{ContentHash, TransferHash};
use hie_protocol::refusal::Class;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::ports::{NoRandomness, Random, random_bytes};
use crate::vault::{ContentKey, KeyScope, Vault, VaultError};

pub mod memory;

/// Content up to this many bytes lives inline in a table; larger content in the content store.
pub const INLINE_BYTES_MAX: usize = 64 * 1024;
/// Plain bytes of a frame; the last one may be shorter, and only an empty content has an empty frame.
pub const FRAME_BYTES: usize = 128 * 1024;
/// Bytes that sealing adds to a frame.
pub const FRAME_TAG_BYTES: usize = 16;
/// Largest content, in plain bytes.
pub const CONTENT_BYTES_MAX: u64 = 64 * 1024 * 1024 * 1024;
/// First bytes of a sealed content: its format.
pub const FORMAT: [u8; 8] = *b"hieseal1";

/// The random name of a content; used once.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ContentName(pub [u8; 16]);

impl ContentName {
    /// A new name. Errors: [`NoRandomness`].
    pub fn generate(random: &dyn Random) -> Result<Self, NoRandomness> {
        Ok(Self(random_bytes(random)?))
    }

    /// Hexadecimal text: a file name.
    #[must_use]
    pub fn to_hex(&self) -> String {
        hex::encode(self.0)
    }

    /// Reads what [`ContentName::to_hex`] writes.
    #[must_use]
    pub fn from_hex(text: &str) -> Option<Self> {
        hex::decode(text).ok()?.try_into().ok().map(Self)
    }
}

impl fmt::Debug for ContentName {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "ContentName({})", self.to_hex())
    }
}

/// Why content cannot be written or read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ContentError {
    /// Nothing under that name.
    #[error("the content is not in the store")]
    Missing,
    /// A write or sync failed: nothing was acknowledged, and the program must stop.
    #[error("the content store failed: {what}; repair the disk and start the node again")]
    Fatal {
        /// What the system said.
        what: String,
    },
    /// A read failed.
    #[error("the content store cannot read: {what}")]
    Unreadable {
        /// What the system said.
        what: String,
    },
    /// The content is over the limit.
    #[error("the content is over the limit of {limit} bytes")]
    TooLarge {
        /// Bytes allowed.
        limit: u64,
    },
    /// The stored bytes are not what was written.
    #[error("the stored content was altered or cut")]
    Altered,
    /// The range begins behind the end.
    #[error("the range begins at byte {from} of {size}")]
    Range {
        /// First byte asked.
        from: u64,
        /// Bytes there are.
        size: u64,
    },
    /// The sender of the bytes stopped early.
    #[error("the sender stopped early: {what}")]
    Source {
        /// In words.
        what: String,
    },
    /// The vault.
    #[error("the content cannot be sealed or opened")]
    Vault(#[from] VaultError),
    /// No random bytes.
    #[error("the content cannot be named")]
    Random(#[from] NoRandomness),
}

impl ContentError {
    /// Who must act.
    #[must_use]
    pub const fn class(&self) -> Class {
        match self {
            Self::Missing => Class::Refused,
            Self::TooLarge { .. } | Self::Range { .. } | Self::Source { .. } => Class::Invalid,
            Self::Vault(error) => error.class(),
            Self::Fatal { .. } | Self::Unreadable { .. } | Self::Altered | Self::Random(_) => Class::Broken,
        }
    }
}

/// Bytes on their way.
pub type ByteStream<'a> = BoxStream<'a, Result<Bytes, ContentError>>;

/// A content that is being opened.
pub type Opening<'a> = BoxFuture<'a, Result<ByteStream<'static>, ContentError>>;

/// Keeps sealed contents.
pub trait ContentStore: Send + Sync + 'static {
    /// Stores everything of the stream under a new name; the content is durable (file and directory synced)
    /// before the answer. A failed stream leaves nothing behind. Answers the bytes stored.
    fn put<'a>(&'a self, name: ContentName, bytes: ByteStream<'a>) -> BoxFuture<'a, Result<u64, ContentError>>;
    /// Reads `length` bytes from `offset`; fewer when the content ends.
    fn read(&self, name: ContentName, offset: u64, length: u64) -> Opening<'_>;
    /// Removes a content; a missing one is no error.
    fn delete(&self, name: ContentName) -> BoxFuture<'_, Result<(), ContentError>>;
    /// The names of all contents, in no order: to find what no table names any more.
    fn names(&self) -> BoxStream<'_, Result<ContentName, ContentError>>;
}

/// Where a content is and what it must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContentRef {
    /// Name in the store.
    pub name: ContentName,
    /// Plain bytes.
    pub size: u64,
    /// SHA-256 of the plain bytes: what they are.
    pub hash: ContentHash,
    /// BLAKE3 of the plain bytes: what a transfer is verified by. Contents of earlier versions have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transfer: Option<TransferHash>,
}

/// Seals, hashes and stores a stream of at most `limit` plain bytes.
///
/// Errors: every [`ContentError`]; then nothing is stored.
pub async fn write(
    store: &dyn ContentStore,
    vault: &Vault,
    random: &dyn Random,
    scope: KeyScope,
    plain: ByteStream<'_>,
    limit: u64,
) -> Result<ContentRef, ContentError> {
    let name = ContentName::generate(random)?;
    let writer = ContentWriter::new(vault.content_key(scope, &name.0)?, limit);
    let outcome = std::sync::Arc::new(std::sync::Mutex::new(None));
    let sealed = seal_stream(writer, plain, std::sync::Arc::clone(&outcome));
    store.put(name, sealed.boxed()).await?;
    let finished = outcome.lock().ok().and_then(|mut outcome| outcome.take());
    let written = finished.ok_or(ContentError::Source {
        what: "no end of content".to_owned(),
    })?;
    Ok(ContentRef {
        name,
        size: written.size,
        hash: written.hash,
        transfer: Some(written.transfer),
    })
}

/// What is known of a content when all of it has passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// Plain bytes.
    pub size: u64,
    /// SHA-256 of them.
    pub hash: ContentHash,
    /// BLAKE3 of them.
    pub transfer: TransferHash,
}

type Outcome = std::sync::Arc<std::sync::Mutex<Option<Written>>>;

fn seal_stream<'a>(
    mut writer: ContentWriter,
    mut plain: ByteStream<'a>,
    outcome: Outcome,
) -> impl futures::Stream<Item = Result<Bytes, ContentError>> + Send + 'a {
    async_stream::try_stream! {
        yield Bytes::from_static(&FORMAT);
        while let Some(chunk) = plain.next().await {
            for frame in writer.push(&chunk?)? {
                yield frame;
            }
        }
        let (frame, written) = writer.finish()?;
        yield frame;
        if let Ok(mut slot) = outcome.lock() {
            *slot = Some(written);
        }
    }
}

/// Seals and hashes content as it passes, frame by frame: pure, for any transport.
pub struct ContentWriter {
    key: ContentKey,
    hash: Sha256,
    transfer: blake3::Hasher,
    pending: BytesMut,
    next: u64,
    size: u64,
    limit: u64,
}

impl ContentWriter {
    /// Begins a content of at most `limit` plain bytes.
    #[must_use]
    pub fn new(key: ContentKey, limit: u64) -> Self {
        let limit = limit.min(CONTENT_BYTES_MAX);
        Self {
            key,
            hash: Sha256::new(),
            transfer: blake3::Hasher::new(),
            pending: BytesMut::new(),
            next: 0,
            size: 0,
            limit,
        }
    }

    /// Takes plain bytes, gives the sealed frames that became full.
    ///
    /// Errors: [`ContentError::TooLarge`].
    pub fn push(&mut self, plain: &[u8]) -> Result<Vec<Bytes>, ContentError> {
        self.size = self.size.saturating_add(plain.len() as u64);
        if self.size > self.limit {
            return Err(ContentError::TooLarge { limit: self.limit });
        }
        self.hash.update(plain);
        self.transfer.update(plain);
        self.pending.extend_from_slice(plain);
        let mut frames = Vec::new();
        // A full frame waits until a byte follows: only then is it known not to be the last.
        while self.pending.len() > FRAME_BYTES {
            let mut frame = Vec::with_capacity(FRAME_BYTES + FRAME_TAG_BYTES);
            frame.extend_from_slice(&self.pending.split_to(FRAME_BYTES));
            self.key.seal_frame(self.next, false, &mut frame)?;
            self.next += 1;
            frames.push(Bytes::from(frame));
        }
        Ok(frames)
    }

    /// The last frame, and what is known of the whole.
    ///
    /// Errors: [`ContentError::Vault`].
    pub fn finish(self) -> Result<(Bytes, Written), ContentError> {
        let mut frame = self.pending.to_vec();
        self.key.seal_frame(self.next, true, &mut frame)?;
        let written = Written {
            size: self.size,
            hash: ContentHash::new(self.hash.finalize().into()),
            transfer: TransferHash::new(*self.transfer.finalize().as_bytes()),
        };
        Ok((Bytes::from(frame), written))
    }
}

/// Reads plain bytes from `from` to the end; each frame is verified before a byte of it is given.
///
/// Errors: every [`ContentError`], also inside the stream; a stream that ends without an error was whole.
pub async fn read(
    store: &dyn ContentStore,
    vault: &Vault,
    scope: KeyScope,
    content: &ContentRef,
    from: u64,
) -> Result<ByteStream<'static>, ContentError> {
    if from > content.size {
        return Err(ContentError::Range {
            from,
            size: content.size,
        });
    }
    let key = vault.content_key(scope, &content.name.0)?;
    let frame_bytes = FRAME_BYTES as u64;
    let sealed_frame = frame_bytes + FRAME_TAG_BYTES as u64;
    let last = content.size.saturating_sub(1) / frame_bytes;
    let first = (from / frame_bytes).min(last);
    let format = FORMAT.len() as u64;
    let end = format + content.size + (last + 1) * FRAME_TAG_BYTES as u64;
    let offset = if first == 0 { 0 } else { format + first * sealed_frame };
    let sealed = store.read(content.name, offset, end + 1 - offset).await?;
    let reader = ContentReader {
        key,
        next: first,
        last,
        format_seen: first != 0,
        skip: usize::try_from(from - first * frame_bytes).unwrap_or(usize::MAX),
        size: content.size,
        pending: BytesMut::new(),
    };
    Ok(open_stream(reader, sealed).boxed())
}

struct ContentReader {
    key: ContentKey,
    next: u64,
    last: u64,
    format_seen: bool,
    skip: usize,
    size: u64,
    pending: BytesMut,
}

fn open_stream(
    mut reader: ContentReader,
    mut sealed: ByteStream<'static>,
) -> impl futures::Stream<Item = Result<Bytes, ContentError>> + Send + 'static {
    async_stream::try_stream! {
        while let Some(chunk) = sealed.next().await {
            let mut chunk = chunk?;
            while !chunk.is_empty() {
                reader.take(&mut chunk);
                while let Some(plain) = reader.open_next()? {
                    if !plain.is_empty() {
                        yield plain;
                    }
                }
            }
        }
        reader.finish()?;
    }
}

impl ContentReader {
    /// Takes sealed bytes. A chunk that begins where a frame begins is opened where it lies; of any other only the rest
    /// of the frame that waits is copied.
    fn take(&mut self, chunk: &mut Bytes) {
        if self.pending.is_empty() {
            self.pending = std::mem::take(chunk)
                .try_into_mut()
                .unwrap_or_else(|shared| BytesMut::from(shared.as_ref()));
        } else {
            let format = if self.format_seen { 0 } else { FORMAT.len() };
            let missing = (format + FRAME_BYTES + FRAME_TAG_BYTES).saturating_sub(self.pending.len());
            self.pending
                .extend_from_slice(&chunk.split_to(missing.min(chunk.len())));
        }
    }

    /// Opens the next frame when all of it has come.
    fn open_next(&mut self) -> Result<Option<Bytes>, ContentError> {
        if !self.format_seen {
            if self.pending.len() < FORMAT.len() {
                return Ok(None);
            }
            if self.pending.split_to(FORMAT.len()).as_ref() != FORMAT {
                return Err(ContentError::Altered);
            }
            self.format_seen = true;
        }
        if self.next > self.last {
            // Bytes behind the last frame were never written by us.
            return if self.pending.is_empty() {
                Ok(None)
            } else {
                Err(ContentError::Altered)
            };
        }
        let is_last = self.next == self.last;
        let plain_bytes = if is_last {
            self.size - self.last * FRAME_BYTES as u64
        } else {
            FRAME_BYTES as u64
        };
        let sealed_bytes = usize::try_from(plain_bytes)
            .unwrap_or(usize::MAX)
            .saturating_add(FRAME_TAG_BYTES);
        if self.pending.len() < sealed_bytes {
            return Ok(None);
        }
        let mut frame = self.pending.split_to(sealed_bytes);
        let opened = self
            .key
            .open_frame(self.next, is_last, &mut frame)
            .map_err(|_| ContentError::Altered)?;
        frame.truncate(opened);
        self.next += 1;
        let mut plain = frame.freeze();
        let skip = self.skip.min(plain.len());
        self.skip -= skip;
        Ok(Some(plain.split_off(skip)))
    }

    fn finish(&self) -> Result<(), ContentError> {
        if self.next <= self.last {
            Err(ContentError::Altered)
        } else {
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests;
