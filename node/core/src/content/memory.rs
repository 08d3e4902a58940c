//! The in-memory twin of the content store.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::{Bytes, BytesMut};
use futures::future::BoxFuture;
use futures::stream::{self, BoxStream, StreamExt};

use super::{ByteStream, ContentError, ContentName, ContentStore};

/// Bytes of a chunk that [`MemoryContents`] gives: uneven, so that readers meet every split.
const CHUNK_BYTES: usize = 50_000;

/// Contents in a map.
#[derive(Default)]
pub struct MemoryContents {
    contents: Mutex<BTreeMap<ContentName, Bytes>>,
}

impl MemoryContents {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Changes stored bytes behind the back of the program; says whether the content is there.
    pub fn tamper(&self, name: ContentName, change: impl FnOnce(&mut Vec<u8>)) -> bool {
        let mut contents = self.contents();
        let Some(bytes) = contents.get_mut(&name) else {
            return false;
        };
        let mut changed = bytes.to_vec();
        change(&mut changed);
        *bytes = Bytes::from(changed);
        true
    }

    /// Number of contents.
    #[must_use]
    pub fn len(&self) -> usize {
        self.contents().len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.contents().is_empty()
    }

    fn contents(&self) -> MutexGuard<'_, BTreeMap<ContentName, Bytes>> {
        self.contents.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ContentStore for MemoryContents {
    fn put<'a>(&'a self, name: ContentName, mut bytes: ByteStream<'a>) -> BoxFuture<'a, Result<u64, ContentError>> {
        Box::pin(async move {
            let mut all = BytesMut::new();
            while let Some(chunk) = bytes.next().await {
                all.extend_from_slice(&chunk?);
            }
            let size = all.len() as u64;
            self.contents().insert(name, all.freeze());
            Ok(size)
        })
    }

    fn read(
        &self,
        name: ContentName,
        offset: u64,
        length: u64,
    ) -> BoxFuture<'_, Result<ByteStream<'static>, ContentError>> {
        Box::pin(async move {
            let mut all = self.contents().get(&name).cloned().ok_or(ContentError::Missing)?;
            let start = usize::try_from(offset).unwrap_or(usize::MAX).min(all.len());
            let mut part = all.split_off(start);
            part.truncate(usize::try_from(length).unwrap_or(usize::MAX));
            let chunks: Vec<_> = part
                .chunks(CHUNK_BYTES)
                .map(|chunk| Ok(part.slice_ref(chunk)))
                .collect();
            Ok(stream::iter(chunks).boxed())
        })
    }

    fn delete(&self, name: ContentName) -> BoxFuture<'_, Result<(), ContentError>> {
        Box::pin(async move {
            self.contents().remove(&name);
            Ok(())
        })
    }

    fn names(&self) -> BoxStream<'_, Result<ContentName, ContentError>> {
        let names: Vec<_> = self.contents().keys().copied().map(Ok).collect();
        stream::iter(names).boxed()
    }
}
