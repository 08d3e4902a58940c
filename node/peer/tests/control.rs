//! Control channels between real nodes on loopback: who gets in, who is cut, what a slow or greedy node meets.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod rig;

use std::sync::Arc;
use std::time::Duration;

use futures::AsyncWriteExt as _;
use hie_node_peer::budget::STREAMS_MAX;
use hie_node_peer::failure::PeerFailure;
use hie_node_peer::handle::{InboundRequest, OUTBOUND_MAX, PeerConfig, Peers};
use hie_node_pki::identity::NodeIdentity;
use hie_node_pki::refusal::CertificateRefusal;
use hie_protocol::cbor::FRAME_BYTES_MAX;
use hie_protocol::id::NodeKey;
use hie_protocol::message::Response;
use hie_protocol::refusal::Refusal;
use hie_protocol::registry::Standing;
use hie_protocol::sign::Signer as _;
use hie_protocol::version::SPOKEN;
use tokio::sync::mpsc;

use rig::{A, B, Log, region, trust};

const LONG: Duration = Duration::from_secs(20);

/// A listening node of the region, and its address put into the registry.
async fn listening(
    region: &mut region::Region,
    identity: NodeIdentity,
) -> (Peers, mpsc::Receiver<InboundRequest>, NodeKey) {
    let node = identity.node();
    let listen = Some("127.0.0.1:0".parse().unwrap());
    let config = PeerConfig {
        listen,
        trust: trust(region, identity),
        keep_connected: false,
        versions: SPOKEN.to_vec(),
    };
    let (peers, requests) = Peers::start(config).await.unwrap();
    let address = peers.local_addr().unwrap().to_string();
    for entry in region.registry.members.iter_mut().flat_map(|member| &mut member.nodes) {
        if entry.key == node {
            entry.control = Some(address.clone());
        }
    }
    (peers, requests, node)
}

/// A node that only dials.
async fn dialling(region: &region::Region, identity: NodeIdentity) -> Peers {
    let config = PeerConfig {
        listen: None,
        trust: trust(region, identity),
        keep_connected: false,
        versions: SPOKEN.to_vec(),
    };
    Peers::start(config).await.unwrap().0
}

/// Answers every request with its own frame, backwards.
fn echo(mut requests: mpsc::Receiver<InboundRequest>) {
    tokio::spawn(async move {
        while let Some(request) = requests.recv().await {
            let mut frame = request.frame;
            frame.reverse();
            let _gone = request.reply.send(frame);
        }
    });
}

#[tokio::test]
async fn spec_p_chan_two_nodes_talk() {
    let mut region = region::Region::new();
    let (acceptor, mut requests, b) = {
        let identity = region.node(B);
        listening(&mut region, identity).await
    };
    let dialler = dialling(&region, region.node(A)).await;
    let asked = tokio::spawn({
        let dialler = dialler.clone();
        async move { dialler.request(b, b"question".to_vec(), LONG).await }
    });
    let request = requests.recv().await.unwrap();
    assert_eq!((request.from, request.org.as_str()), (region.node(A).node(), A));
    assert_eq!(request.frame, b"question");
    request.reply.send(b"answer".to_vec()).unwrap();
    assert_eq!(asked.await.unwrap(), Ok(b"answer".to_vec()));
    let status = dialler.status().await;
    assert!(
        status.len() == 1 && status[0].connected && status[0].since.is_some(),
        "{status:?}"
    );

    // The acceptor has no address of the dialler, yet reaches it through the open channel.
    echo(requests);
    let large = vec![1; FRAME_BYTES_MAX];
    assert_eq!(dialler.request(b, large.clone(), LONG).await, Ok(large));
    let status = acceptor.status().await;
    assert!(status[0].connected, "{status:?}");
    assert_eq!(
        dialler.request(b, vec![0; FRAME_BYTES_MAX + 1], LONG).await,
        Err(PeerFailure::TooLarge)
    );
    dialler.shutdown().await;
    assert_eq!(dialler.request(b, Vec::new(), LONG).await, Err(PeerFailure::Closed));
}

#[tokio::test]
async fn spec_p_outbound_a_node_that_dials_out_only_is_reached_through_its_channel() {
    let mut region = region::Region::new();
    let identity = region.node(B);
    let (acceptor, _requests, b) = listening(&mut region, identity).await;
    let config = PeerConfig {
        listen: None,
        trust: trust(&region, region.node(A)),
        keep_connected: true,
        versions: SPOKEN.to_vec(),
    };
    let (dialler, requests) = Peers::start(config).await.unwrap();
    echo(requests);
    let a = region.node(A).node();
    let answer = rig::until(LONG, async || acceptor.request(a, b"ab".to_vec(), LONG).await.ok()).await;
    assert_eq!(answer, b"ba");
    assert_eq!(dialler.status().await[0].node, b);
}

type Case = (CertificateRefusal, fn(&mut region::Region) -> NodeIdentity);

const CASES: [Case; 7] = [
    (CertificateRefusal::ForeignAuthority, |_| region::Region::new().node(A)),
    (CertificateRefusal::SelfSigned, |region| region.self_signed(A)),
    (CertificateRefusal::Expired, |region| {
        region.reissued(A, (region::NOW.0 - 9 * region::DAY, region::NOW.0 - 1))
    }),
    (CertificateRefusal::NotYetValid, |region| {
        region.reissued(A, (region::NOW.0 + 1000, region::NOW.0 + 9 * region::DAY))
    }),
    (CertificateRefusal::Revoked, |region| {
        region.revoke(A);
        region.node(A)
    }),
    (CertificateRefusal::NotInRegistry, |region| region.stranger(A)),
    (CertificateRefusal::Suspended, |region| {
        region.registry.members[0].standing = Standing::Revoked(region::NOW);
        region.node(A)
    }),
];

#[tokio::test]
async fn spec_p_tls_a_bad_dialler_never_completes_and_both_logs_say_why() {
    for (why, make) in CASES {
        let mut region = region::Region::new();
        let bad = make(&mut region);
        let identity = region.node(B);
        let log = Log::start();
        let (acceptor, mut requests, b) = listening(&mut region, identity).await;
        let dialler = dialling(&region, bad).await;
        let refused = dialler.request(b, b"question".to_vec(), LONG).await;
        assert_eq!(refused, Err(PeerFailure::Refused(why)));
        let at_acceptor = format!("direction=\"accepting\" by=\"this-node\" reason=\"{}\"", why.word());
        let at_dialler = format!("direction=\"dialling\" by=\"other-node\" reason=\"{}\"", why.word());
        assert!(log.text().contains(&at_acceptor), "{}", log.text());
        assert!(log.text().contains(&at_dialler), "{}", log.text());
        assert!(!log.text().contains("channel up"), "{}", log.text());
        assert!(requests.try_recv().is_err());
        // In back-off it fails at once with the same reason.
        assert_eq!(
            dialler.request(b, Vec::new(), LONG).await,
            Err(PeerFailure::Refused(why))
        );
        assert!(acceptor.status().await.iter().all(|status| !status.connected));
    }
}

#[tokio::test]
async fn spec_p_tls_a_bad_acceptor_is_refused_by_the_dialler_and_both_logs_say_why() {
    for (why, make) in CASES {
        // The registry must lead the dialler to the bad node: for keys outside the active registry no dial happens.
        if matches!(why, CertificateRefusal::NotInRegistry | CertificateRefusal::Suspended) {
            continue;
        }
        let mut region = region::Region::new();
        let bad = make(&mut region);
        let log = Log::start();
        let (_acceptor, _requests, _) = listening(&mut region, bad.clone()).await;
        let address = _acceptor.local_addr().unwrap().to_string();
        region.registry.members[0].nodes[0].control = Some(address);
        let dialler = dialling(&region, region.node(B)).await;
        let a = region.node(A).node();
        assert_eq!(
            dialler.request(a, Vec::new(), LONG).await,
            Err(PeerFailure::Refused(why))
        );
        let heard = format!("direction=\"accepting\" by=\"other-node\" reason=\"{}\"", why.word());
        rig::until(LONG, async || log.text().contains(&heard).then_some(())).await;
        let judged = format!("direction=\"dialling\" by=\"this-node\" reason=\"{}\"", why.word());
        assert!(log.text().contains(&judged), "{}", log.text());
    }
}

/// What a stock libp2p peer says first, in the clear: multistream-select and the security protocols it offers.
const STOCK_PREFACE: &[u8] = b"\x13/multistream/1.0.0\n\x0b/tls/1.0.0\n\x07/noise\n";

#[tokio::test]
async fn spec_p_tls_a_stock_libp2p_peer_cannot_complete() {
    let mut region = region::Region::new();
    let identity = region.node(B);
    let log = Log::start();
    let (acceptor, _requests, _) = listening(&mut region, identity).await;
    let mut stock = tokio::net::TcpStream::connect(acceptor.local_addr().unwrap())
        .await
        .unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut stock, STOCK_PREFACE)
        .await
        .unwrap();
    let mut answer = Vec::new();
    let _reset = tokio::io::AsyncReadExt::read_to_end(&mut stock, &mut answer).await;
    assert!(
        !answer.windows(12).any(|part| part == b"/multistream"),
        "the node negotiated in the clear"
    );
    rig::until(LONG, async || log.text().contains("no channel").then_some(())).await;
    assert!(!log.text().contains("channel up"), "{}", log.text());

    // Nor does a stock listener at a member's address pass for the member.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    region.registry.members[0].nodes[0].control = Some(listener.local_addr().unwrap().to_string());
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let _gone = tokio::io::AsyncWriteExt::write_all(&mut socket, STOCK_PREFACE).await;
        }
    });
    let dialler = dialling(&region, region.node(B)).await;
    let failed = dialler.request(region.node(A).node(), Vec::new(), LONG).await;
    assert!(
        matches!(failed, Err(PeerFailure::Unreachable { since: Some(_) })),
        "{failed:?}"
    );
}

#[tokio::test]
async fn spec_p_tls_a_stranger_that_says_nothing_or_nonsense_gets_nowhere() {
    let mut region = region::Region::new();
    let identity = region.node(B);
    let log = Log::start();
    let (acceptor, _requests, _) = listening(&mut region, identity).await;
    let mut socket = tokio::net::TcpStream::connect(acceptor.local_addr().unwrap())
        .await
        .unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut socket, b"GET / HTTP/1.1\r\n\r\n")
        .await
        .unwrap();
    let mut answer = Vec::new();
    let _reset = tokio::io::AsyncReadExt::read_to_end(&mut socket, &mut answer).await;
    rig::until(LONG, async || log.text().contains("no channel").then_some(())).await;
}

#[tokio::test]
async fn spec_p_tls_revocation_cuts_a_live_channel() {
    let mut region = region::Region::new();
    let identity = region.node(B);
    let (acceptor, requests, b) = listening(&mut region, identity).await;
    echo(requests);
    let dialler_trust = trust(&region, region.node(A));
    let config = PeerConfig {
        listen: None,
        trust: Arc::clone(&dialler_trust),
        keep_connected: false,
        versions: SPOKEN.to_vec(),
    };
    let (dialler, _requests) = Peers::start(config).await.unwrap();
    assert_eq!(dialler.request(b, b"ab".to_vec(), LONG).await, Ok(b"ba".to_vec()));
    assert_eq!(dialler_trust.live().count(&b), 1);

    region.revoke(A);
    let log = Log::start();
    let before = std::time::Instant::now();
    let cut = acceptor.update(region.membership()).await;
    assert_eq!(cut, [(region.node(A).node(), CertificateRefusal::Revoked)]);
    assert!(before.elapsed() < Duration::from_millis(900), "{:?}", before.elapsed());
    assert!(
        log.text().contains("live channel cut") && log.text().contains("reason=\"revoked\""),
        "{}",
        log.text()
    );
    // The dialler sees its channel close, and the next one is refused.
    rig::until(LONG, async || (dialler_trust.live().count(&b) == 0).then_some(())).await;
    let refused = rig::until(LONG, async || match dialler.request(b, Vec::new(), LONG).await {
        Err(PeerFailure::Refused(why)) => Some(why),
        _ => None,
    });
    assert_eq!(refused.await, CertificateRefusal::Revoked);
}

#[tokio::test]
async fn spec_p_tls_expiry_cuts_a_live_channel_without_a_message() {
    let mut region = region::Region::new();
    let identity = region.node(B);
    let (_acceptor, requests, b) = listening(&mut region, identity).await;
    echo(requests);
    let clock = Arc::new(rig::MovableClock::new(region::NOW));
    let dialler_trust = rig::trust_with(&region, region.node(A), clock.clone());
    let config = PeerConfig {
        listen: None,
        trust: Arc::clone(&dialler_trust),
        keep_connected: false,
        versions: SPOKEN.to_vec(),
    };
    let (dialler, _requests) = Peers::start(config).await.unwrap();
    assert!(dialler.request(b, b"ab".to_vec(), LONG).await.is_ok());
    // The list is in force for three days, the leaf for six: the list ends first, and nothing can be judged any more.
    clock.set(region::NOW.plus(4 * region::DAY));
    assert_eq!(dialler_trust.recheck(), [(b, CertificateRefusal::StaleCrl)]);
    rig::until(LONG, async || (dialler_trust.live().count(&b) == 0).then_some(())).await;
}

#[tokio::test]
async fn spec_p_budget_a_slow_node_meets_the_deadline_and_a_greedy_one_its_budget() {
    let mut region = region::Region::new();
    let identity = region.node(B);
    let (_acceptor, mut requests, b) = listening(&mut region, identity).await;
    let dialler = dialling(&region, region.node(A)).await;
    let slow = dialler.request(b, b"slow".to_vec(), Duration::from_millis(300)).await;
    assert_eq!(slow, Err(PeerFailure::TimedOut));
    let first = requests.recv().await.unwrap();

    // One is held unanswered; the budget has room for one less. A handle asks less at once than the budget allows, so
    // that it takes two to exceed it.
    let second = dialling(&region, region.node(A)).await;
    let mut asked = Vec::new();
    for number in 1..STREAMS_MAX {
        let dialler = if number < OUTBOUND_MAX {
            dialler.clone()
        } else {
            second.clone()
        };
        asked.push(tokio::spawn(
            async move { dialler.request(b, b"more".to_vec(), LONG).await },
        ));
    }
    let mut held = vec![first];
    for _ in 1..STREAMS_MAX {
        held.push(requests.recv().await.unwrap());
    }
    let over = second.request(b, b"over".to_vec(), LONG).await.unwrap();
    assert_eq!(Response::decode(&over).unwrap(), Response::Refused(Refusal::Budget));
    for request in held {
        let _late = request.reply.send(b"at last".to_vec());
    }
    for answer in asked {
        assert_eq!(answer.await.unwrap(), Ok(b"at last".to_vec()));
    }
    // A request that is dropped is answered, too.
    let dropped = tokio::spawn(async move { dialler.request(b, b"dropped".to_vec(), LONG).await });
    drop(requests.recv().await.unwrap());
    let answer = dropped.await.unwrap().unwrap();
    assert_eq!(Response::decode(&answer).unwrap(), Response::Refused(Refusal::Failed));
}

#[tokio::test]
async fn a_node_that_is_away_fails_at_once_while_backing_off() {
    let mut region = region::Region::new();
    // A port that was free a moment ago.
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    region.registry.members[1].nodes[0].control = Some(format!("127.0.0.1:{port}"));
    let dialler = dialling(&region, region.node(A)).await;
    let b = region.node(B).node();
    let away = PeerFailure::Unreachable {
        since: Some(region::NOW),
    };
    assert_eq!(dialler.request(b, Vec::new(), LONG).await, Err(away));
    assert_eq!(dialler.request(b, Vec::new(), LONG).await, Err(away));
    let status = dialler.status().await;
    assert_eq!(
        (status[0].connected, status[0].since, status[0].last_error),
        (false, Some(region::NOW), Some(away))
    );
    let stranger = dialler.request(NodeKey::new([9; 32]), Vec::new(), LONG).await;
    assert_eq!(stranger, Err(PeerFailure::Refused(CertificateRefusal::NotInRegistry)));
}

#[tokio::test]
async fn spec_p_tls_a_dialler_is_not_up_before_the_verdict() {
    // An acceptor with a good certificate that closes without a verdict: the dialler must not take the channel as up.
    let region = region::Region::new();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let identity = Arc::new(hie_node_pki::identity::IdentityCell::new(region.node(B)));
    let config =
        hie_node_pki::config::node_server(hie_node_pki::config::Channel::Control, identity, region.judge()).unwrap();
    let mute = tokio::spawn(async move {
        let (socket, _) = listener.accept().await.unwrap();
        let socket = tokio_util::compat::TokioAsyncReadCompatExt::compat(socket);
        let mut stream = futures_rustls::TlsAcceptor::from(config).accept(socket).await.unwrap();
        stream.close().await.unwrap();
    });
    let mut with_address = region;
    with_address.registry.members[1].nodes[0].control = Some(address.to_string());
    let dialler = dialling(&with_address, with_address.node(A)).await;
    let failed = dialler.request(with_address.node(B).node(), Vec::new(), LONG).await;
    assert!(matches!(failed, Err(PeerFailure::Unreachable { .. })), "{failed:?}");
    mute.await.unwrap();
}
