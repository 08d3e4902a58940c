#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use bytes::Bytes;
use futures::stream::{self, StreamExt, TryStreamExt};
use hie_node_core::content::{ContentError, ContentName, ContentStore};

use super::{ObjectContents, PART_BYTES, whole};

const NAME: ContentName = ContentName([0xab; 16]);

async fn bytes(store: &ObjectContents, offset: u64, length: u64) -> Result<Vec<u8>, ContentError> {
    let parts: Vec<Bytes> = store.read(NAME, offset, length).await?.try_collect().await?;
    Ok(parts.concat())
}

#[tokio::test]
async fn small_and_many_part_contents_come_back_by_range() {
    let folder = tempfile::tempdir().unwrap();
    let store = ObjectContents::open_directory(folder.path()).unwrap();
    for size in [0, 10, PART_BYTES - 1, PART_BYTES, 2 * PART_BYTES + 3] {
        let all: Vec<u8> = (0..size).map(|at| (at % 253) as u8).collect();
        let chunks: Vec<_> = all
            .chunks(1_000_003)
            .map(|chunk| Ok(Bytes::copy_from_slice(chunk)))
            .collect();
        assert_eq!(store.put(NAME, stream::iter(chunks).boxed()).await, Ok(size as u64));
        assert!(bytes(&store, 0, u64::MAX / 2).await.unwrap() == all, "{size}");
        let from = size.min(7);
        assert!(
            bytes(&store, from as u64, 100).await.unwrap() == all[from..size.min(from + 100)],
            "{size}"
        );
        assert!(bytes(&store, size as u64, 10).await.unwrap().is_empty());
    }
    let reopened = ObjectContents::open_directory(folder.path()).unwrap();
    let names: Vec<ContentName> = reopened.names().try_collect().await.unwrap();
    assert_eq!(names, [NAME]);
    reopened.delete(NAME).await.unwrap();
    reopened.delete(NAME).await.unwrap();
    assert_eq!(bytes(&reopened, 0, 1).await, Err(ContentError::Missing));
}

#[tokio::test]
async fn a_broken_upload_leaves_nothing_and_remains_of_a_power_cut_are_swept() {
    let folder = tempfile::tempdir().unwrap();
    let store = ObjectContents::open_directory(folder.path()).unwrap();
    let gone = || {
        Err(ContentError::Source {
            what: "gone".to_owned(),
        })
    };
    let part = Ok(Bytes::from(vec![1; PART_BYTES]));
    for chunks in [vec![gone()], vec![part.clone(), part, gone()]] {
        assert_eq!(
            store.put(NAME, stream::iter(chunks).boxed()).await,
            gone().map(|_: Bytes| 0)
        );
        assert_eq!(store.names().count().await, 0);
    }
    store.put(NAME, whole(Bytes::from_static(b"kept"))).await.unwrap();
    let shard = folder.path().join("contents/ab");
    std::fs::write(shard.join(format!("{}#1", ContentName([0xab; 16]).to_hex())), b"half").unwrap();
    drop(ObjectContents::open_directory(folder.path()).unwrap());
    assert_eq!(std::fs::read_dir(shard).unwrap().count(), 1);
}
