//! Sealed contents in an object store: a local directory by default, S3 and its kin by configuration.
//!
//! A content is one object under `contents/<first two digits>/<name>`. It is durable before it is named in any table:
//! the local directory syncs file and directories before an upload completes; object services promise the same.
//! A failed upload is aborted and leaves nothing; what a power cut left half-way is swept when the store opens.

use std::fs::File;
use std::io::ErrorKind;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::{Path as FsPath, PathBuf};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures::future::BoxFuture;
use futures::stream::{self, BoxStream, StreamExt};
use hie_node_core::content::{ByteStream, ContentError, ContentName, ContentStore};
use hie_node_core::ports::blocking;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{GetOptions, GetRange, GetResultPayload, ObjectStore, ObjectStoreExt, PutPayload};

/// Bytes of one part of an upload; content up to this size is one write. Object services ask for at least 5 MiB.
pub const PART_BYTES: usize = 8 * 1024 * 1024;

/// Bytes of one read of a local file. Each read is handed to another thread: small ones cost more than the reading.
const READ_BYTES: u64 = 1024 * 1024;

const FOLDER: &str = "contents";

/// Why the directory does not open.
#[derive(Debug, thiserror::Error)]
pub enum ContentsOpenError {
    /// The directory cannot be made or read.
    #[error("the content directory {} cannot be used; check that it belongs to this user and has space", .path.display())]
    Directory {
        /// Directory.
        path: PathBuf,
        /// Cause.
        #[source]
        source: std::io::Error,
    },
    /// The store refuses the directory.
    #[error("the content directory {} cannot be opened", .path.display())]
    Store {
        /// Directory.
        path: PathBuf,
        /// Cause.
        #[source]
        source: object_store::Error,
    },
}

/// Contents in an object store.
pub struct ObjectContents {
    store: Arc<dyn ObjectStore>,
    /// The directory, when it is one of this machine: reads go to its files directly.
    directory: Option<PathBuf>,
}

impl ObjectContents {
    /// Any object store that acknowledges only what is durable.
    #[must_use]
    pub fn new(store: Arc<dyn ObjectStore>) -> Self {
        Self { store, directory: None }
    }

    /// A directory of this machine; made when missing. Errors: [`ContentsOpenError`].
    pub fn open_directory(path: &FsPath) -> Result<Self, ContentsOpenError> {
        let directory = |source| ContentsOpenError::Directory {
            path: path.to_owned(),
            source,
        };
        let folder = path.join(FOLDER);
        std::fs::create_dir_all(&folder).map_err(directory)?;
        sweep(&folder).map_err(directory)?;
        let store = LocalFileSystem::new_with_prefix(path)
            .map_err(|source| ContentsOpenError::Store {
                path: path.to_owned(),
                source,
            })?
            .with_fsync(true);
        Ok(Self {
            store: Arc::new(store),
            directory: Some(folder),
        })
    }
}

/// Removes uploads that never completed; only this process writes here, and it has not begun.
fn sweep(folder: &FsPath) -> Result<(), std::io::Error> {
    for shard in std::fs::read_dir(folder)? {
        let shard = shard?.path();
        if !shard.is_dir() {
            continue;
        }
        for file in std::fs::read_dir(shard)? {
            let file = file?;
            if file.file_name().to_string_lossy().contains('#') {
                std::fs::remove_file(file.path())?;
            }
        }
    }
    Ok(())
}

fn location(name: ContentName) -> Path {
    let hex = name.to_hex();
    let shard = hex.get(..2).unwrap_or_default();
    Path::from_iter([FOLDER, shard, hex.as_str()])
}

fn fatal(error: &object_store::Error) -> ContentError {
    ContentError::Fatal { what: chain(error) }
}

fn failed(error: &std::io::Error) -> ContentError {
    if error.kind() == ErrorKind::NotFound {
        ContentError::Missing
    } else {
        ContentError::Unreadable {
            what: error.to_string(),
        }
    }
}

/// A part of a local file, with where it goes on. None at the end of the range; a file that is too short ends early.
struct Part {
    file: File,
    range: Range<u64>,
}

impl Part {
    /// Opens a file and reads the first piece in the same visit to another thread.
    fn begin(path: &FsPath, range: Range<u64>) -> std::io::Result<Option<(Bytes, Self)>> {
        let file = File::open(path)?;
        Self { file, range }.next()
    }

    fn next(mut self) -> std::io::Result<Option<(Bytes, Self)>> {
        let wanted = self.range.end.saturating_sub(self.range.start).min(READ_BYTES);
        let held = self.file.metadata()?.len().saturating_sub(self.range.start);
        let mut piece = vec![0; usize::try_from(wanted.min(held)).unwrap_or_default()];
        if piece.is_empty() {
            return Ok(None);
        }
        self.file.read_exact_at(&mut piece, self.range.start)?;
        self.range.start = self.range.start.saturating_add(piece.len() as u64);
        Ok(Some((Bytes::from(piece), self)))
    }

    /// This part, piece by piece as they are taken.
    fn pieces(self) -> ByteStream<'static> {
        let next = |part: Self| async move { blocking(move || part.next()).await.map_err(|error| failed(&error)) };
        stream::try_unfold(self, next).boxed()
    }
}

fn unreadable(error: object_store::Error) -> ContentError {
    match error {
        object_store::Error::NotFound { .. } => ContentError::Missing,
        other => ContentError::Unreadable { what: chain(&other) },
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

impl ObjectContents {
    async fn upload(&self, name: ContentName, mut bytes: ByteStream<'_>) -> Result<u64, ContentError> {
        let place = location(name);
        let mut part = BytesMut::new();
        let mut size = 0_u64;
        let mut more = true;
        while more && part.len() < PART_BYTES {
            more = take(&mut bytes, &mut part, &mut size).await?;
        }
        if !more {
            let payload = PutPayload::from_bytes(part.freeze());
            self.store.put(&place, payload).await.map_err(|error| fatal(&error))?;
            return Ok(size);
        }
        let mut upload = self.store.put_multipart(&place).await.map_err(|error| fatal(&error))?;
        let outcome = async {
            while more {
                if part.len() >= PART_BYTES {
                    let payload = PutPayload::from_bytes(part.split_to(PART_BYTES).freeze());
                    upload.put_part(payload).await.map_err(|error| fatal(&error))?;
                } else {
                    more = take(&mut bytes, &mut part, &mut size).await?;
                }
            }
            if !part.is_empty() {
                let payload = PutPayload::from_bytes(std::mem::take(&mut part).freeze());
                upload.put_part(payload).await.map_err(|error| fatal(&error))?;
            }
            upload.complete().await.map_err(|error| fatal(&error))
        }
        .await;
        if let Err(error) = outcome {
            if let Err(left) = upload.abort().await {
                tracing::warn!(content = %name.to_hex(), cause = %chain(&left), "an upload could not be taken back; the next start removes it");
            }
            return Err(error);
        }
        Ok(size)
    }
}

/// Adds the next chunk; false at the end.
async fn take(bytes: &mut ByteStream<'_>, part: &mut BytesMut, size: &mut u64) -> Result<bool, ContentError> {
    let Some(chunk) = bytes.next().await else {
        return Ok(false);
    };
    let chunk = chunk?;
    *size = size.saturating_add(chunk.len() as u64);
    part.extend_from_slice(&chunk);
    Ok(true)
}

impl ContentStore for ObjectContents {
    fn put<'a>(&'a self, name: ContentName, bytes: ByteStream<'a>) -> BoxFuture<'a, Result<u64, ContentError>> {
        Box::pin(self.upload(name, bytes))
    }

    fn read(
        &self,
        name: ContentName,
        offset: u64,
        length: u64,
    ) -> BoxFuture<'_, Result<ByteStream<'static>, ContentError>> {
        Box::pin(async move {
            let end = offset.saturating_add(length);
            if let Some(directory) = &self.directory {
                let hex = name.to_hex();
                let path = directory.join(hex.get(..2).unwrap_or_default()).join(&hex);
                let begun = blocking(move || Part::begin(&path, offset..end)).await;
                return Ok(match begun.map_err(|error| failed(&error))? {
                    Some((first, rest)) => stream::iter([Ok(first)]).chain(rest.pieces()).boxed(),
                    None => stream::empty().boxed(),
                });
            }
            let place = location(name);
            let range = Some(GetRange::Bounded(offset..end));
            match self
                .store
                .get_opts(
                    &place,
                    GetOptions {
                        range,
                        ..GetOptions::default()
                    },
                )
                .await
            {
                Ok(found) => {
                    let range = found.range.clone();
                    Ok(match found.payload {
                        GetResultPayload::File(file, _) => Part { file, range }.pieces(),
                        GetResultPayload::Stream(parts) => parts.map(|part| part.map_err(unreadable)).boxed(),
                    })
                }
                Err(error) => {
                    // A range behind the end is an empty answer here, an error there.
                    let found = self.store.head(&place).await.map_err(unreadable)?;
                    if offset >= found.size {
                        Ok(stream::empty().boxed())
                    } else {
                        Err(unreadable(error))
                    }
                }
            }
        })
    }

    fn delete(&self, name: ContentName) -> BoxFuture<'_, Result<(), ContentError>> {
        Box::pin(async move {
            match self.store.delete(&location(name)).await {
                Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
                Err(error) => Err(unreadable(error)),
            }
        })
    }

    fn names(&self) -> BoxStream<'_, Result<ContentName, ContentError>> {
        let folder = Path::from(FOLDER);
        self.store
            .list(Some(&folder))
            .filter_map(|found| async move {
                match found {
                    Ok(meta) => meta.location.filename().and_then(ContentName::from_hex).map(Ok),
                    Err(error) => Some(Err(unreadable(error))),
                }
            })
            .boxed()
    }
}

/// A chunk as a stream, for callers that already hold the bytes.
#[must_use]
pub fn whole(bytes: Bytes) -> ByteStream<'static> {
    stream::iter([Ok(bytes)]).boxed()
}

#[cfg(test)]
mod tests;
