//! Nodes that cannot be dialled: reached through their own channels, over a relay, for requests and for content; and
//! nodes of two versions.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod rig;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use hie_node_peer::failure::PeerFailure;
use hie_node_peer::handle::{InboundRequest, PeerConfig, Peers};
use hie_node_peer::lane::client::Lane;
use hie_node_peer::lane::{LaneFrame, LaneReply, LaneServer, substream};
use hie_node_peer::ledger::Offence;
use hie_node_peer::trust::Trust;
use hie_protocol::id::{ConsentEpoch, ContentHash, NodeKey, OrgId, Ticket};
use hie_protocol::refusal::Refusal;
use hie_protocol::registry::MemberRole;
use hie_protocol::retrieval::{Ask, Header, Item};
use hie_protocol::sign::Signer as _;
use hie_protocol::version::{ProtocolVersion, SPOKEN, V1, V2};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::mpsc;

use rig::{A, B, Log, region, trust};

const LONG: Duration = Duration::from_secs(30);
/// The relay.
const R: &str = "urn:oid:2.999.3";
/// What must not be readable on the way.
const SECRET: &[u8] = b"Okafor, Grace, 1961-03-14";

struct Node {
    peers: Peers,
    requests: mpsc::Receiver<InboundRequest>,
    trust: Arc<Trust>,
    key: NodeKey,
}

async fn node(region: &region::Region, org: &str, listen: bool, versions: &[ProtocolVersion]) -> Node {
    let (identity, trust) = (region.node(org), trust(region, region.node(org)));
    let config = PeerConfig {
        listen: listen.then(|| "127.0.0.1:0".parse().unwrap()),
        trust: Arc::clone(&trust),
        keep_connected: true,
        versions: versions.to_vec(),
    };
    let (peers, requests) = Peers::start(config).await.unwrap();
    Node {
        peers,
        requests,
        trust,
        key: identity.node(),
    }
}

fn echo(mut requests: mpsc::Receiver<InboundRequest>) {
    tokio::spawn(async move {
        while let Some(request) = requests.recv().await {
            let mut frame = request.frame;
            frame.reverse();
            let _gone = request.reply.send(frame);
        }
    });
}

/// Passes bytes between a port of its own and the relay's, and keeps everything it sees.
async fn eavesdrop(to: String, seen: Arc<Mutex<Vec<u8>>>) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((near, _)) = listener.accept().await {
            let far = tokio::net::TcpStream::connect(&to).await.unwrap();
            let ((near_read, near_write), (far_read, far_write)) = (near.into_split(), far.into_split());
            for (mut from, mut into) in [(near_read, far_write), (far_read, near_write)] {
                let seen = Arc::clone(&seen);
                tokio::spawn(async move {
                    let mut part = vec![0; 16 * 1024];
                    while let Ok(count @ 1..) = from.read(&mut part).await {
                        seen.lock().unwrap().extend_from_slice(&part[..count]);
                        if into.write_all(&part[..count]).await.is_err() {
                            return;
                        }
                    }
                });
            }
        }
    });
    address
}

/// A region with a relay that listens, and two members that do not. Gives the relay's node too.
async fn hidden_pair(seen: &Arc<Mutex<Vec<u8>>>) -> (region::Region, Node) {
    let mut region = region::Region::new();
    region.join(R);
    region.registry.members[2].roles = vec![MemberRole::Relay];
    for member in 0..2 {
        region.registry.members[member].nodes[0].relays = vec![OrgId::parse(R).unwrap()];
    }
    // The relay must know its own address: it hands it out with every reservation.
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let watched = eavesdrop(port.to_string(), Arc::clone(seen)).await;
    region.registry.members[2].nodes[0].control = Some(watched);
    let trust = trust(&region, region.node(R));
    let config = PeerConfig {
        listen: Some(port),
        trust: Arc::clone(&trust),
        keep_connected: false,
        versions: SPOKEN.to_vec(),
    };
    let (peers, requests) = Peers::start(config).await.unwrap();
    let key = region.node(R).node();
    let relay = Node {
        peers,
        requests,
        trust,
        key,
    };
    (region, relay)
}

#[tokio::test]
async fn spec_p_relay_two_hidden_nodes_talk_and_the_relay_cannot_read() {
    let seen = Arc::default();
    let (mut region, mut relay) = hidden_pair(&seen).await;
    let a = node(&region, A, false, &SPOKEN).await;
    let b = node(&region, B, false, &SPOKEN).await;
    echo(b.requests);
    let mut backwards = SECRET.to_vec();
    backwards.reverse();
    let asked = rig::until(LONG, async || a.peers.request(b.key, SECRET.to_vec(), LONG).await.ok()).await;
    assert_eq!(asked, backwards, "the answer comes from the other end");
    // The other way over the same circuit.
    echo(a.requests);
    assert_eq!(
        b.peers.request(a.key, SECRET.to_vec(), LONG).await,
        Ok(backwards.clone())
    );
    // Each end has proved its key to the other, over one circuit or, when both dialled, over two; the relay has channels with both and was asked for nothing.
    assert!(a.trust.live().count(&b.key) >= 1 && b.trust.live().count(&a.key) >= 1);
    assert!(relay.trust.live().count(&a.key) >= 1 && relay.trust.live().count(&b.key) >= 1);
    assert!(relay.requests.try_recv().is_err());
    let bytes = seen.lock().unwrap().clone();
    assert!(bytes.len() > 4096, "everything passes the relay");
    for secret in [SECRET, &backwards[..]] {
        assert!(
            !bytes.windows(secret.len()).any(|part| part == secret),
            "readable at the relay"
        );
    }

    // Who is revoked is cut at the other end, whatever the relay does.
    region.revoke(A);
    let cut = b.peers.update(region.membership()).await;
    assert!(cut.iter().any(|(node, _)| *node == a.key), "{cut:?}");
    rig::until(LONG, async || (a.trust.live().count(&b.key) == 0).then_some(())).await;
    let refused = rig::until(LONG, async || a.peers.request(b.key, SECRET.to_vec(), LONG).await.err()).await;
    assert!(
        matches!(
            refused,
            PeerFailure::Refused(_) | PeerFailure::Unreachable { .. } | PeerFailure::Closed
        ),
        "{refused:?}"
    );
    // And at the relay, which then carries nothing more for it.
    relay.peers.update(region.membership()).await;
    rig::until(LONG, async || (relay.trust.live().count(&a.key) == 0).then_some(())).await;
}

#[tokio::test]
async fn spec_p_relay_a_member_without_the_role_relays_nothing() {
    let seen = Arc::default();
    let (mut region, relay) = hidden_pair(&seen).await;
    let a = node(&region, A, false, &SPOKEN).await;
    region.registry.members[2].roles = Vec::new();
    relay.peers.update(region.membership()).await;
    let b = node(&region, B, false, &SPOKEN).await;
    // Whether A still believes in the relay or B does no longer: there is no way.
    rig::until(LONG, async || (relay.trust.live().count(&a.key) > 0).then_some(())).await;
    let failed = a.peers.request(b.key, SECRET.to_vec(), LONG).await;
    assert!(matches!(failed, Err(PeerFailure::Unreachable { .. })), "{failed:?}");
}

/// Gives one small document to whoever asks.
struct Source;

impl LaneServer for Source {
    fn ask(&self, _from: NodeKey, org: OrgId, ask: Ask) -> BoxFuture<'_, Result<LaneReply, Refusal>> {
        async move {
            if ask.item != Item::Document {
                return Err(Refusal::NothingHere);
            }
            let (frames, reply) = mpsc::channel(8);
            let content = format!("for {org}");
            let header = Header {
                item: ask.item,
                receipt: hie_protocol::bytes::Bytes(vec![1]),
                epoch: ConsentEpoch(1),
                content_type: "text/plain".to_owned(),
                size: u64::try_from(content.len()).unwrap(),
                from: 0,
                hash: ContentHash::new([0; 32]),
                manifest: None,
                transfer: None,
            };
            for frame in [
                LaneFrame::Header(Box::new(header)),
                LaneFrame::Chunk(Bytes::from(content)),
                LaneFrame::End,
            ] {
                frames.send(frame).await.unwrap();
            }
            Ok(reply)
        }
        .boxed()
    }
}

#[tokio::test]
async fn spec_p_outbound_content_of_a_hidden_custodian_comes_over_its_channel() {
    let mut region = region::Region::new();
    let a = node(&region, A, true, &SPOKEN).await;
    region.registry.members[0].nodes[0].control = Some(a.peers.local_addr().unwrap().to_string());
    let b = node(&region, B, false, &SPOKEN).await;
    substream::start(&b.peers, Arc::new(Source));
    let lane = Lane::new(Arc::clone(&a.trust), Some(a.peers.clone())).unwrap();
    let ask = |item| Ask {
        ticket: Ticket::new([7; 32]),
        item,
        from: 0,
    };
    rig::until(LONG, async || a.peers.status().await[0].connected.then_some(())).await;
    for _ in 0..20 {
        let mut stream = lane.fetch(b.key, ask(Item::Document), LONG).await.unwrap();
        let mut content = Vec::new();
        while let Some(frame) = stream.next().await.unwrap() {
            if let LaneFrame::Chunk(bytes) = frame {
                content.extend_from_slice(&bytes);
            }
        }
        assert_eq!(
            content,
            format!("for {A}").into_bytes(),
            "whose channel it is, is known"
        );
    }
    let mut refused = lane.fetch(b.key, ask(Item::Instance(3)), LONG).await.unwrap();
    assert_eq!(refused.next().await, Ok(Some(LaneFrame::Refused(Refusal::NothingHere))));
    // A custodian that takes no transfers there leaves the asker without an answer, not without an end.
    let none = Lane::new(Arc::clone(&b.trust), Some(b.peers.clone())).unwrap();
    assert!(none.fetch(a.key, ask(Item::Document), LONG).await.is_err());
}

#[tokio::test]
async fn spec_p_outbound_a_hidden_node_comes_back_by_itself() {
    let mut region = region::Region::new();
    let first = node(&region, A, true, &SPOKEN).await;
    let address = first.peers.local_addr().unwrap();
    region.registry.members[0].nodes[0].control = Some(address.to_string());
    let hidden = node(&region, B, false, &SPOKEN).await;
    echo(hidden.requests);
    let reach = async |peers: &Peers| peers.request(hidden.key, b"ab".to_vec(), LONG).await.ok();
    rig::until(LONG, async || reach(&first.peers).await).await;
    first.peers.shutdown().await;
    drop(first);
    // It restarts on the same port, as a node does, and the hidden one is there again.
    let config = PeerConfig {
        listen: Some(address),
        trust: trust(&region, region.node(A)),
        keep_connected: true,
        versions: SPOKEN.to_vec(),
    };
    let again = rig::until(LONG, async || Peers::start(config.clone()).await.ok())
        .await
        .0;
    rig::until(LONG, async || reach(&again).await).await;
}

#[tokio::test]
async fn spec_p_version_each_channel_settles_the_newest_common_version() {
    for (mine, theirs, common) in [
        (&SPOKEN[..], &SPOKEN[..], Some(V2)),
        (&SPOKEN, &[V1], Some(V1)),
        (&[V1], &SPOKEN, Some(V1)),
        (&SPOKEN, &[ProtocolVersion(9)], None),
    ] {
        let mut region = region::Region::new();
        let old = node(&region, A, true, theirs).await;
        region.registry.members[0].nodes[0].control = Some(old.peers.local_addr().unwrap().to_string());
        let new = node(&region, B, false, mine).await;
        let mut asked = old.requests;
        let answer = tokio::spawn({
            let (peers, key) = (new.peers.clone(), old.key);
            async move { peers.request(key, b"question".to_vec(), LONG).await }
        });
        if let Some(version) = common {
            let request = asked.recv().await.unwrap();
            assert_eq!(request.version, version);
            request.reply.send(b"answer".to_vec()).unwrap();
            assert_eq!(answer.await.unwrap(), Ok(b"answer".to_vec()));
            assert_eq!(new.peers.version(&old.key), Some(version));
            rig::until(LONG, async || {
                (old.peers.version(&new.key) == Some(version)).then_some(())
            })
            .await;
            let clocks = new.peers.clocks();
            assert_eq!(clocks.len(), 1);
            assert_eq!(clocks[0].2.theirs, region::NOW);
        } else {
            assert_eq!(answer.await.unwrap(), Err(PeerFailure::Version));
            assert_eq!(new.peers.version(&old.key), None);
            // Both sides have counted the other's greeting.
            let counted = rig::until(LONG, async || old.peers.ledger().counts().into_iter().next()).await;
            assert_eq!((counted.offence, counted.org.as_str()), (Offence::Version, B));
            assert!(asked.try_recv().is_err());
        }
    }
}

#[tokio::test]
async fn spec_p_version_a_node_that_comes_back_older_is_greeted_anew() {
    let mut region = region::Region::new();
    let first = node(&region, A, true, &SPOKEN).await;
    let address = first.peers.local_addr().unwrap();
    region.registry.members[0].nodes[0].control = Some(address.to_string());
    let other = node(&region, B, false, &SPOKEN).await;
    rig::until(LONG, async || {
        (other.peers.version(&first.key) == Some(V2)).then_some(())
    })
    .await;
    let key = first.key;
    first.peers.shutdown().await;
    drop(first);
    rig::until(LONG, async || other.peers.version(&key).is_none().then_some(())).await;
    let config = PeerConfig {
        listen: Some(address),
        trust: trust(&region, region.node(A)),
        keep_connected: false,
        versions: vec![V1],
    };
    let log = Log::start();
    let _again = rig::until(LONG, async || Peers::start(config.clone()).await.ok()).await;
    rig::until(LONG, async || {
        let status = other.peers.status().await;
        (status[0].connected && log.text().contains("channel up")).then_some(())
    })
    .await;
    rig::until(LONG, async || (other.peers.version(&key) == Some(V1)).then_some(())).await;
}
