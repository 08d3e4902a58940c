//! The bulk lane between real nodes on loopback: whole, resumed, cut, refused, and never more in memory than it says.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod rig;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use hie_node_peer::failure::PeerFailure;
use hie_node_peer::lane::client::Lane;
use hie_node_peer::lane::server::LaneListener;
use hie_node_peer::lane::{FRAMES_AHEAD_MAX, LaneFrame, LaneReply, LaneServer};
use hie_node_peer::trust::Trust;
use hie_node_pki::config::{Channel, node_client};
use hie_node_pki::identity::IdentityCell;
use hie_node_pki::refusal::CertificateRefusal;
use hie_protocol::bytes::Bytes as Blob;
use hie_protocol::id::{ConsentEpoch, ContentHash, NodeKey, OrgId, Ticket, TransferHash};
use hie_protocol::refusal::Refusal;
use hie_protocol::retrieval::{Ask, CHUNK_BYTES_MAX, Header, Item};
use hie_protocol::sign::Signer as _;
use ring::digest::{Context, SHA256};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};

use rig::{A, B, Log, region, trust};

const LONG: Duration = Duration::from_secs(60);
const SIZE: u64 = 64 * 1024 * 1024;
const INSTANCES: u32 = 3;

/// Content that differs at every offset: byte n of the item.
fn content(from: u64, length: usize) -> Bytes {
    (from..)
        .take(length)
        .map(|at| u8::try_from((at ^ (at >> 8) ^ (at >> 16)) & 0xff).unwrap())
        .collect()
}

/// A custodian with one large document; counts what it has made and tells when it is held back.
#[derive(Default)]
struct Source {
    made: Arc<AtomicUsize>,
    stalled: Mutex<Option<oneshot::Sender<usize>>>,
}

impl LaneServer for Source {
    fn ask(&self, _from: NodeKey, org: OrgId, ask: Ask) -> BoxFuture<'_, Result<LaneReply, Refusal>> {
        Box::pin(async move {
            assert_eq!(org.as_str(), A);
            if ask.ticket != Ticket::new([7; 32]) {
                return Err(Refusal::NothingHere);
            }
            let (frames, reply) = mpsc::channel(FRAMES_AHEAD_MAX);
            let producer = Producer {
                made: Arc::clone(&self.made),
                stalled: self.stalled.lock().unwrap().take(),
                frames,
            };
            tokio::spawn(producer.run(ask));
            Ok(reply)
        })
    }
}

struct Producer {
    made: Arc<AtomicUsize>,
    stalled: Option<oneshot::Sender<usize>>,
    frames: mpsc::Sender<LaneFrame>,
}

impl Producer {
    async fn run(mut self, ask: Ask) -> Option<()> {
        match ask.item {
            Item::Document => self.item(Item::Document, ask.from, SIZE).await,
            Item::Instance(_) => {
                self.send(LaneFrame::Header(header(ask.item, 0, 10))).await?;
                self.send(LaneFrame::Chunk(content(0, 5))).await?;
                self.send(LaneFrame::Refused(Refusal::NothingHere)).await
            }
            Item::InstancesFrom(first) => {
                for index in first..INSTANCES {
                    let from = if index == first { ask.from } else { 0 };
                    self.item(Item::Instance(index), from, 1000).await?;
                }
                Some(())
            }
        }
    }

    async fn item(&mut self, item: Item, from: u64, size: u64) -> Option<()> {
        self.send(LaneFrame::Header(header(item, from, size))).await?;
        let mut at = from;
        while at < size {
            let length = CHUNK_BYTES_MAX.min(usize::try_from(size - at).unwrap());
            self.send(LaneFrame::Chunk(content(at, length))).await?;
            at += u64::try_from(length).unwrap();
        }
        self.send(LaneFrame::End).await
    }

    /// Sends a frame; the first time that there is no room for long, tells how many chunks were made.
    async fn send(&mut self, frame: LaneFrame) -> Option<()> {
        let chunk = matches!(frame, LaneFrame::Chunk(_));
        let waited = tokio::time::timeout(Duration::from_millis(500), self.frames.reserve()).await;
        let permit = match waited {
            Ok(permit) => permit.ok()?,
            Err(_) => {
                if let Some(stalled) = self.stalled.take() {
                    let _told = stalled.send(self.made.load(Ordering::SeqCst));
                }
                self.frames.reserve().await.ok()?
            }
        };
        permit.send(frame);
        self.made.fetch_add(usize::from(chunk), Ordering::SeqCst);
        Some(())
    }
}

fn header(item: Item, from: u64, size: u64) -> Box<Header> {
    Box::new(Header {
        item,
        receipt: Blob(vec![1; 100]),
        epoch: ConsentEpoch(1),
        content_type: "application/octet-stream".to_owned(),
        size,
        from,
        hash: ContentHash::new([0; 32]),
        manifest: None,
        transfer: Some(TransferHash::new([2; 32])),
    })
}

fn ask(item: Item, from: u64) -> Ask {
    Ask {
        ticket: Ticket::new([7; 32]),
        item,
        from,
    }
}

/// A custodian B with this source, an asker A, and B's name.
struct World {
    region: region::Region,
    lane: Lane,
    custodian: Arc<Trust>,
    asker: Arc<Trust>,
    listener: LaneListener,
    b: NodeKey,
}

async fn world(source: Source) -> World {
    let mut region = region::Region::new();
    let custodian = trust(&region, region.node(B));
    let listen = "127.0.0.1:0".parse().unwrap();
    let listener = LaneListener::start(listen, Arc::clone(&custodian), Arc::new(source))
        .await
        .unwrap();
    region.registry.members[1].nodes[0].bulk = Some(listener.local_addr().to_string());
    let asker = trust(&region, region.node(A));
    let lane = Lane::new(Arc::clone(&asker), None).unwrap();
    let b = region.node(B).node();
    World {
        region,
        lane,
        custodian,
        asker,
        listener,
        b,
    }
}

#[tokio::test]
async fn spec_p_bulk_64_mib_arrive_whole_and_the_source_waits_for_a_slow_asker() {
    let (stalled, told) = oneshot::channel();
    let world = world(Source {
        made: Arc::default(),
        stalled: Mutex::new(Some(stalled)),
    })
    .await;
    let mut stream = world.lane.fetch(world.b, ask(Item::Document, 0), LONG).await.unwrap();
    let first = stream.next().await.unwrap();
    assert!(matches!(first, Some(LaneFrame::Header(header)) if header.size == SIZE));
    // Nobody reads: what is made stays within the queue, the TLS buffer and what the kernel's sockets hold.
    let made = told.await.unwrap() * CHUNK_BYTES_MAX;
    assert!(made < 24 * 1024 * 1024, "{made} bytes were made ahead");
    let (mut at, mut found, mut expected) = (0_u64, Context::new(&SHA256), Context::new(&SHA256));
    while let Some(frame) = stream.next().await.unwrap() {
        if let LaneFrame::Chunk(bytes) = frame {
            found.update(&bytes);
            expected.update(&content(at, bytes.len()));
            at += u64::try_from(bytes.len()).unwrap();
        }
    }
    assert_eq!(at, SIZE);
    assert_eq!(found.finish().as_ref(), expected.finish().as_ref());
    assert_eq!(stream.next().await, Ok(None));
    assert_eq!(
        world.asker.live().count(&world.b),
        1,
        "the connection rests for the next ask"
    );
}

#[tokio::test]
async fn spec_p_bulk_a_range_begins_where_it_was_asked_and_connections_are_used_again() {
    let world = world(Source::default()).await;
    for from in [SIZE - 300_001, SIZE - 1, SIZE] {
        let mut stream = world
            .lane
            .fetch(world.b, ask(Item::Document, from), LONG)
            .await
            .unwrap();
        assert!(matches!(stream.next().await, Ok(Some(LaneFrame::Header(header))) if header.from == from));
        let mut bytes = Vec::new();
        while let Some(frame) = stream.next().await.unwrap() {
            if let LaneFrame::Chunk(chunk) = frame {
                bytes.extend_from_slice(&chunk);
            }
        }
        assert_eq!(bytes, content(from, usize::try_from(SIZE - from).unwrap()));
        assert_eq!(world.asker.live().count(&world.b), 1);
    }
}

/// An asker of version 1 as bytes: its ask, and the header that it gets.
async fn header_on(world: &World, alpn: &[&[u8]]) -> (Vec<u8>, Header) {
    let identity = Arc::new(IdentityCell::new(world.region.node(A)));
    let mut config = Arc::unwrap_or_clone(node_client(Channel::Bulk, identity, world.region.judge()).unwrap());
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let socket = TcpStream::connect(world.listener.local_addr()).await.unwrap();
    let name = ServerName::try_from("127.0.0.1").unwrap();
    let mut stream = connector.connect(name, socket).await.unwrap();
    assert_eq!(stream.read_u8().await.unwrap(), 0, "the verdict");
    let agreed = stream.get_ref().1.alpn_protocol().unwrap().to_vec();
    let body = hie_protocol::cbor::encode(&ask(Item::Document, SIZE - 1)).unwrap();
    stream.write_u32(u32::try_from(body.len()).unwrap()).await.unwrap();
    stream.write_u8(1).await.unwrap();
    stream.write_all(&body).await.unwrap();
    stream.flush().await.unwrap();
    let length = stream.read_u32().await.unwrap();
    assert_eq!(stream.read_u8().await.unwrap(), 2, "a header");
    let mut body = vec![0; usize::try_from(length).unwrap()];
    stream.read_exact(&mut body).await.unwrap();
    (agreed, hie_protocol::cbor::decode(&body, 4096).unwrap())
}

#[tokio::test]
async fn spec_p_bulk_a_transfer_hash_goes_only_to_askers_of_version_2() {
    let world = world(Source::default()).await;
    let (agreed, header) = header_on(&world, &[b"hie-bulk/1"]).await;
    assert_eq!((agreed.as_slice(), header.transfer), (b"hie-bulk/1".as_slice(), None));
    let (agreed, header) = header_on(&world, &[b"hie-bulk/1", b"hie-bulk/2"]).await;
    assert_eq!(agreed, b"hie-bulk/2");
    assert_eq!(header.transfer, Some(TransferHash::new([2; 32])));
}

#[tokio::test]
async fn spec_p_bulk_instances_follow_each_other_and_refusals_are_frames() {
    let world = world(Source::default()).await;
    let mut stream = world
        .lane
        .fetch(world.b, ask(Item::InstancesFrom(1), 10), LONG)
        .await
        .unwrap();
    let mut seen = Vec::new();
    while let Some(frame) = stream.next().await.unwrap() {
        seen.push(match frame {
            LaneFrame::Header(header) => format!("{:?} {}", header.item, header.from),
            LaneFrame::Chunk(bytes) => bytes.len().to_string(),
            LaneFrame::End => "end".to_owned(),
            LaneFrame::Refused(refusal) => refusal.to_string(),
        });
    }
    assert_eq!(seen, ["Instance(1) 10", "990", "end", "Instance(2) 0", "1000", "end"]);

    let mut stream = world
        .lane
        .fetch(world.b, ask(Item::Instance(0), 0), LONG)
        .await
        .unwrap();
    let mut last = None;
    while let Some(frame) = stream.next().await.unwrap() {
        last = Some(frame);
    }
    assert_eq!(last, Some(LaneFrame::Refused(Refusal::NothingHere)));

    let unknown = Ask {
        ticket: Ticket::new([8; 32]),
        item: Item::Document,
        from: 0,
    };
    let mut stream = world.lane.fetch(world.b, unknown, LONG).await.unwrap();
    assert_eq!(stream.next().await, Ok(Some(LaneFrame::Refused(Refusal::NothingHere))));
    assert_eq!(stream.next().await, Ok(None));
    assert_eq!(world.asker.live().count(&world.b), 1, "all on one connection");
}

#[tokio::test]
async fn spec_p_bulk_revocation_ends_a_running_transfer() {
    let mut world = world(Source::default()).await;
    let mut stream = world.lane.fetch(world.b, ask(Item::Document, 0), LONG).await.unwrap();
    assert!(matches!(stream.next().await, Ok(Some(LaneFrame::Header(_)))));
    assert!(matches!(stream.next().await, Ok(Some(LaneFrame::Chunk(_)))));
    world.region.revoke(A);
    let a = world.region.node(A).node();
    let cut = world.custodian.update(world.region.membership()).await;
    assert_eq!(cut, [(a, CertificateRefusal::Revoked)]);
    assert_eq!(world.custodian.live().count(&a), 0);
    let mut bytes = 0;
    let failure = loop {
        match stream.next().await {
            Ok(Some(LaneFrame::Chunk(chunk))) => bytes += chunk.len(),
            Ok(other) => panic!("{other:?}"),
            Err(failure) => break failure,
        }
    };
    assert_eq!(failure, PeerFailure::Closed);
    assert!(
        u64::try_from(bytes).unwrap() < SIZE / 2,
        "{bytes} bytes arrived after the cut"
    );
    let again = world
        .lane
        .fetch(world.b, ask(Item::Document, 0), LONG)
        .await
        .map(|_| ());
    assert_eq!(again, Err(PeerFailure::Refused(CertificateRefusal::Revoked)));
}

#[tokio::test]
async fn spec_p_bulk_the_lane_judges_like_the_control_channel() {
    let world = world(Source::default()).await;
    let log = Log::start();
    let bad = Lane::new(trust(&world.region, world.region.self_signed(A)), None).unwrap();
    let refused = bad.fetch(world.b, ask(Item::Document, 0), LONG).await.map(|_| ());
    assert_eq!(refused, Err(PeerFailure::Refused(CertificateRefusal::SelfSigned)));
    for side in [
        "direction=\"accepting the bulk lane\" by=\"this-node\"",
        "direction=\"dialling the bulk lane\" by=\"other-node\"",
    ] {
        let line = format!("{side} reason=\"self-signed\"");
        assert!(log.text().contains(&line), "{}", log.text());
    }
    let nowhere = world
        .lane
        .fetch(world.region.node(A).node(), ask(Item::Document, 0), LONG)
        .await
        .map(|_| ());
    assert_eq!(nowhere, Err(PeerFailure::Unreachable { since: None }));
}

#[tokio::test]
async fn a_custodian_that_went_away_breaks_the_transfer_and_a_resting_connection_is_replaced() {
    let world = world(Source::default()).await;
    let mut stream = world
        .lane
        .fetch(world.b, ask(Item::Document, SIZE), LONG)
        .await
        .unwrap();
    while stream.next().await.unwrap().is_some() {}
    world.listener.shutdown();
    rig::until(LONG, async || {
        (world.custodian.live().count(&world.region.node(A).node()) == 0).then_some(())
    })
    .await;
    let address = world.listener.local_addr();
    let again = rig::until(LONG, async || {
        LaneListener::start(address, Arc::clone(&world.custodian), Arc::new(Source::default()))
            .await
            .ok()
    });
    let _again = again.await;
    let mut stream = world
        .lane
        .fetch(world.b, ask(Item::Document, SIZE - 5), LONG)
        .await
        .unwrap();
    assert!(matches!(stream.next().await, Ok(Some(LaneFrame::Header(_)))));
    assert_eq!(stream.next().await, Ok(Some(LaneFrame::Chunk(content(SIZE - 5, 5)))));
}
