#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::sync::Arc;

use bytes::Bytes;
use futures::executor::block_on;
use futures::stream::{self, StreamExt, TryStreamExt};
use sha2::{Digest as _, Sha256};

use super::memory::MemoryContents;
use super::{
    ByteStream, ContentError, ContentReader, ContentRef, ContentStore as _, FRAME_BYTES, open_stream, read, write,
};
use crate::kv::memory::MemoryKv;
use crate::ports::SeededRandom;
use crate::vault::{Kek, KeyScope, Vault};

struct World {
    vault: Vault,
    store: MemoryContents,
    random: SeededRandom,
}

fn world() -> World {
    let random = SeededRandom::new(3);
    let kek = Kek::generate(&random).unwrap();
    let vault = Vault::open(&kek, Arc::new(MemoryKv::new()), Arc::new(SeededRandom::new(4))).unwrap();
    World {
        vault,
        store: MemoryContents::new(),
        random,
    }
}

fn plain(size: usize) -> Vec<u8> {
    (0..size).map(|at| (at * 31 % 251) as u8).collect()
}

fn chunks(bytes: &[u8], size: usize) -> ByteStream<'static> {
    let parts: Vec<_> = bytes
        .chunks(size)
        .map(|part| Ok(Bytes::copy_from_slice(part)))
        .collect();
    stream::iter(parts).boxed()
}

impl World {
    fn write(&self, bytes: &[u8]) -> ContentRef {
        let write = write(
            &self.store,
            &self.vault,
            &self.random,
            KeyScope::Node,
            chunks(bytes, 70_001),
            u64::MAX,
        );
        block_on(write).unwrap()
    }

    fn read(&self, content: &ContentRef, from: u64) -> Result<Vec<u8>, ContentError> {
        block_on(async {
            let parts = read(&self.store, &self.vault, KeyScope::Node, content, from).await?;
            let parts: Vec<Bytes> = parts.try_collect().await?;
            Ok(parts.concat())
        })
    }
}

#[test]
fn every_size_around_a_frame_comes_back_from_every_offset() {
    let world = world();
    for size in [
        0,
        1,
        FRAME_BYTES - 1,
        FRAME_BYTES,
        FRAME_BYTES + 1,
        3 * FRAME_BYTES,
        3 * FRAME_BYTES + 17,
    ] {
        let bytes = plain(size);
        let content = world.write(&bytes);
        assert_eq!(content.size, size as u64);
        assert_eq!(content.hash.as_bytes().as_slice(), &Sha256::digest(&bytes)[..]);
        assert_eq!(
            content.transfer.map(|hash| *hash.as_bytes()),
            Some(*blake3::hash(&bytes).as_bytes())
        );
        for from in [0, 1, FRAME_BYTES - 1, FRAME_BYTES, 2 * FRAME_BYTES + 5, size] {
            if from > size {
                assert!(matches!(
                    world.read(&content, from as u64),
                    Err(ContentError::Range { .. })
                ));
                continue;
            }
            assert!(
                world.read(&content, from as u64).unwrap() == bytes[from..],
                "{size} from {from}"
            );
        }
    }
}

#[test]
fn every_change_of_the_stored_bytes_is_found() {
    let world = world();
    let bytes = plain(2 * FRAME_BYTES + 100);
    let sealed_frame = FRAME_BYTES + 16;
    type Tamper = (&'static str, Box<dyn Fn(&mut Vec<u8>)>);
    let changes: Vec<Tamper> = vec![
        ("format", Box::new(|all| all[0] ^= 1)),
        ("first byte", Box::new(|all| all[8] ^= 1)),
        ("tag", Box::new(move |all| all[8 + sealed_frame - 1] ^= 1)),
        ("last byte", Box::new(|all| *all.last_mut().unwrap() ^= 1)),
        ("cut", Box::new(|all| all.truncate(all.len() - 1))),
        (
            "cut at a frame",
            Box::new(move |all| all.truncate(8 + 2 * sealed_frame)),
        ),
        ("longer", Box::new(|all| all.push(0))),
        (
            "swapped frames",
            Box::new(move |all| {
                let (first, second) = all[8..].split_at_mut(sealed_frame);
                first.swap_with_slice(&mut second[..sealed_frame]);
            }),
        ),
        ("empty", Box::new(Vec::clear)),
    ];
    for (what, change) in changes {
        let content = world.write(&bytes);
        assert!(world.store.tamper(content.name, change));
        assert_eq!(world.read(&content, 0), Err(ContentError::Altered), "{what}");
    }
    let content = world.write(&bytes);
    let other = world.write(&plain(2 * FRAME_BYTES + 100));
    let exchanged = ContentRef {
        name: other.name,
        ..content
    };
    assert!(
        world.read(&exchanged, 0).is_ok(),
        "the same bytes under another name are the same content"
    );
    for size in [content.size - 1, content.size + 1, content.size - FRAME_BYTES as u64] {
        let wrong = ContentRef { size, ..content };
        assert_eq!(
            world.read(&wrong, 0),
            Err(ContentError::Altered),
            "read as {size} bytes"
        );
    }
}

#[test]
fn a_sender_that_stops_or_sends_too_much_leaves_nothing() {
    let world = world();
    let broken = stream::iter([
        Ok(Bytes::from_static(b"part")),
        Err(ContentError::Source { what: "gone".into() }),
    ]);
    let result = block_on(write(
        &world.store,
        &world.vault,
        &world.random,
        KeyScope::Node,
        broken.boxed(),
        99,
    ));
    assert_eq!(result, Err(ContentError::Source { what: "gone".into() }));
    let long = block_on(write(
        &world.store,
        &world.vault,
        &world.random,
        KeyScope::Node,
        chunks(&plain(100), 10),
        99,
    ));
    assert_eq!(long, Err(ContentError::TooLarge { limit: 99 }));
    assert!(world.store.is_empty());
}

#[test]
fn sealed_bytes_open_however_the_store_cuts_them() {
    let world = world();
    let bytes = plain(3 * FRAME_BYTES + 17);
    let content = world.write(&bytes);
    let all = block_on(async {
        let parts = world.store.read(content.name, 0, u64::MAX).await.unwrap();
        parts.try_collect::<Vec<Bytes>>().await.unwrap().concat()
    });
    for size in [
        1_usize,
        7,
        8,
        9,
        FRAME_BYTES,
        FRAME_BYTES + 16,
        FRAME_BYTES + 24,
        2 * FRAME_BYTES,
        all.len(),
    ] {
        let key = world.vault.content_key(KeyScope::Node, &content.name.0).unwrap();
        let reader = ContentReader {
            key,
            next: 0,
            last: 3,
            format_seen: false,
            skip: 0,
            size: content.size,
            pending: bytes::BytesMut::new(),
        };
        let parts = block_on(
            open_stream(reader, chunks(&all, size))
                .boxed()
                .try_collect::<Vec<Bytes>>(),
        )
        .unwrap();
        assert!(parts.concat() == bytes, "in pieces of {size}");
    }
}

#[test]
fn a_content_that_an_earlier_version_named_has_no_transfer_hash() {
    #[derive(serde::Serialize)]
    struct Before {
        name: super::ContentName,
        size: u64,
        hash: hie_protocol::id::ContentHash,
    }
    let before = Before {
        name: super::ContentName([1; 16]),
        size: 5,
        hash: hie_protocol::id::ContentHash::new([2; 32]),
    };
    let encoded = hie_protocol::cbor::encode(&before).unwrap();
    let content: ContentRef = hie_protocol::cbor::decode(&encoded, 1024).unwrap();
    assert_eq!((content.size, content.transfer), (5, None));
}
