//! Measures the bulk lane beside plain TLS 1.3 over the same loopback: `lane_throughput [MiB] [rounds]`.
//!
//! Sender and receiver run on runtimes of their own, one thread each. Both paths carry the same bytes in chunks of the
//! same size; plain TLS is tokio-rustls with its defaults. The rounds alternate and the best of each counts.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::future::BoxFuture;
use hie_node_peer::lane::client::Lane;
use hie_node_peer::lane::server::LaneListener;
use hie_node_peer::lane::{FRAMES_AHEAD_MAX, LaneFrame, LaneReply, LaneServer};
use hie_node_pki::config::{Channel, node_client, node_server};
use hie_node_pki::identity::IdentityCell;
use hie_protocol::bytes::Bytes as Blob;
use hie_protocol::id::{ConsentEpoch, ContentHash, NodeKey, OrgId, Ticket};
use hie_protocol::refusal::Refusal;
use hie_protocol::retrieval::{Ask, CHUNK_BYTES_MAX, Header, Item};
use hie_protocol::sign::Signer as _;
use rustls::pki_types::{IpAddr, Ipv4Addr, ServerName};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc;

#[path = "../tests/rig.rs"]
mod rig;

use rig::{A, B, region};

/// Sends as many bytes as it is told, always the same chunk.
struct Source(u64);

impl LaneServer for Source {
    fn ask(&self, _from: NodeKey, _org: OrgId, ask: Ask) -> BoxFuture<'_, Result<LaneReply, Refusal>> {
        let size = self.0;
        Box::pin(async move {
            let (frames, reply) = mpsc::channel(FRAMES_AHEAD_MAX);
            tokio::spawn(async move {
                let header = Header {
                    item: ask.item,
                    receipt: Blob(Vec::new()),
                    epoch: ConsentEpoch(1),
                    content_type: "application/octet-stream".to_owned(),
                    size,
                    from: 0,
                    hash: ContentHash::new([0; 32]),
                    manifest: None,
                    transfer: None,
                };
                frames.send(LaneFrame::Header(Box::new(header))).await.ok()?;
                let chunk = Bytes::from(vec![0x5a; CHUNK_BYTES_MAX]);
                for _ in 0..size / CHUNK_BYTES_MAX as u64 {
                    frames.send(LaneFrame::Chunk(chunk.clone())).await.ok()?;
                }
                frames.send(LaneFrame::End).await.ok()
            });
            Ok(reply)
        })
    }
}

fn one_thread() -> Runtime {
    Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap()
}

/// Time to receive everything over the lane.
async fn lane(lane: &Lane, node: NodeKey, size: u64) -> Duration {
    let ask = Ask {
        ticket: Ticket::new([1; 32]),
        item: Item::Document,
        from: 0,
    };
    let start = Instant::now();
    let mut stream = lane.fetch(node, ask, Duration::from_secs(10)).await.unwrap();
    let mut total = 0;
    while let Some(frame) = stream.next().await.unwrap() {
        if let LaneFrame::Chunk(bytes) = frame {
            total += bytes.len() as u64;
        }
    }
    assert_eq!(total, size);
    start.elapsed()
}

/// Time to receive everything over plain TLS.
async fn plain(connector: tokio_rustls::TlsConnector, address: SocketAddr, size: u64) -> Duration {
    let start = Instant::now();
    let socket = TcpStream::connect(address).await.unwrap();
    socket.set_nodelay(true).unwrap();
    let name = ServerName::IpAddress(IpAddr::V4(Ipv4Addr::from([127, 0, 0, 1])));
    let mut stream = connector.connect(name, socket).await.unwrap();
    let mut buffer = vec![0; CHUNK_BYTES_MAX];
    let mut total = 0;
    while total < size {
        total += stream.read(&mut buffer).await.unwrap() as u64;
    }
    start.elapsed()
}

/// Accepts plain TLS and sends the bytes on each connection.
async fn plain_sender(listener: TcpListener, acceptor: tokio_rustls::TlsAcceptor, size: u64) {
    let chunk = vec![0x5a; CHUNK_BYTES_MAX];
    while let Ok((socket, _)) = listener.accept().await {
        socket.set_nodelay(true).unwrap();
        let mut stream = acceptor.accept(socket).await.unwrap();
        for _ in 0..size / CHUNK_BYTES_MAX as u64 {
            stream.write_all(&chunk).await.unwrap();
        }
        stream.flush().await.unwrap();
    }
}

fn main() {
    let number = |at: usize, default: u64| std::env::args().nth(at).map_or(default, |text| text.parse().unwrap());
    let (mib, rounds) = (number(1, 512), number(2, 5));
    let size = mib * 1024 * 1024;
    let mut region = region::Region::new();
    let (sender, receiver) = (one_thread(), one_thread());

    let custodian = rig::trust(&region, region.node(B));
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    let listener = sender
        .block_on(LaneListener::start(any, custodian, Arc::new(Source(size))))
        .unwrap();
    region.registry.members[1].nodes[0].bulk = Some(listener.local_addr().to_string());
    let asker = Lane::new(rig::trust(&region, region.node(A)), None).unwrap();

    let cell = |org| Arc::new(IdentityCell::new(region.node(org)));
    let server = node_server(Channel::Bulk, cell(B), region.judge()).unwrap();
    let client = node_client(Channel::Bulk, cell(A), region.judge()).unwrap();
    let plain_listener = sender.block_on(TcpListener::bind(any)).unwrap();
    let plain_address = plain_listener.local_addr().unwrap();
    sender.spawn(plain_sender(plain_listener, server.into(), size));
    let connector = tokio_rustls::TlsConnector::from(client);

    let node = region.node(B).node();
    let (mut best_lane, mut best_plain) = (Duration::MAX, Duration::MAX);
    for _ in 0..rounds {
        best_plain = best_plain.min(receiver.block_on(plain(connector.clone(), plain_address, size)));
        best_lane = best_lane.min(receiver.block_on(lane(&asker, node, size)));
    }
    let rate = |time: Duration| mib as f64 / time.as_secs_f64();
    println!("plain TLS {:.0} MiB/s", rate(best_plain));
    println!("bulk lane {:.0} MiB/s", rate(best_lane));
    println!("ratio {:.2}", rate(best_lane) / rate(best_plain));
}
