//! Below the frames: other protocols, other TLS, no TLS, too many connections (T1, T3).

use std::sync::Arc;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use hie_node_pki::config::Channel;
use hie_protocol::version::ALPN_CONTROL;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::ring::default_provider;
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::{Evil, Found, Script};

fn one(
    name: &'static str,
    threat: &'static str,
    counted: Option<&'static str>,
    act: fn(Arc<Evil>) -> BoxFuture<'static, Found>,
) -> Script {
    Script {
        name,
        threat,
        counted,
        act,
    }
}

pub(super) fn scripts() -> Vec<Script> {
    vec![
        one("a relay that is none", "T18", None, |evil| {
            not_spoken(evil, "/libp2p/circuit/relay/0.2.0/hop").boxed()
        }),
        one("a circuit that was not asked for", "T18", None, |evil| {
            circuit(evil).boxed()
        }),
        one("a routing protocol", "T18", None, |evil| {
            not_spoken(evil, "/ipfs/kad/1.0.0").boxed()
        }),
        one("a gossip protocol", "T19", None, |evil| {
            not_spoken(evil, "/meshsub/1.1.0").boxed()
        }),
        one("nonsense in place of a protocol name", "T19", None, |evil| {
            nonsense(evil).boxed()
        }),
        one("plain text", "T1", None, |evil| {
            async move { plain(&evil, b"GET / HTTP/1.1\r\n\r\n").await }.boxed()
        }),
        one("a libp2p greeting in the clear", "T1", None, |evil| {
            async move { plain(&evil, b"\x13/multistream/1.0.0\n\x07/noise\n").await }.boxed()
        }),
        one("the bulk lane's name on the control port", "T1", None, |evil| {
            async move { down(evil.tls(evil.control, Channel::Bulk).await.map(drop)) }.boxed()
        }),
        one("the control channel's name on the bulk port", "T1", None, |evil| {
            async move { down(evil.tls(evil.bulk, Channel::Control).await.map(drop)) }.boxed()
        }),
        one("TLS 1.2", "T1", None, |evil| {
            async move { down(anonymous(&evil, &rustls::version::TLS12).await) }.boxed()
        }),
        one("no certificate", "T1", None, |evil| {
            async move { down(anonymous(&evil, &rustls::version::TLS13).await) }.boxed()
        }),
        one("half-open connections", "T3", None, |evil| half_open(evil).boxed()),
        one("a storm of connections", "T3", Some("connections"), |evil| {
            storm(evil).boxed()
        }),
    ]
}

async fn not_spoken(evil: Arc<Evil>, protocol: &str) -> Found {
    match evil.line().await?.open(protocol).await {
        Ok(None) | Err(_) => Ok(()),
        Ok(Some(_)) => Err(format!("{protocol} is spoken")),
    }
}

/// The stop side of the relay protocol is spoken by every node; without a reservation it must lead nowhere.
async fn circuit(evil: Arc<Evil>) -> Found {
    let opened = evil.line().await?.open("/libp2p/circuit/relay/0.2.0/stop").await;
    let Ok(Some(mut pipe)) = opened else { return Ok(()) };
    // Connect, from a peer: type 0, peer with an id of 34 bytes.
    let mut message = vec![0x08, 0x00, 0x12, 0x24, 0x0a, 0x22, 0x12, 0x20];
    message.extend_from_slice(&[0xe7; 32]);
    let mut bytes = vec![u8::try_from(message.len()).unwrap()];
    bytes.extend_from_slice(&message);
    let sent = async {
        pipe.write_all(&bytes).await?;
        pipe.flush().await?;
        let mut answer = vec![0; 64];
        let count = pipe.read(&mut answer).await?;
        answer.truncate(count);
        Ok::<_, std::io::Error>(answer)
    };
    let answer = tokio::time::timeout(std::time::Duration::from_secs(10), sent).await;
    match answer {
        // A status message whose status (field 4) is 100 would be consent.
        Ok(Ok(answer)) if answer.windows(2).any(|part| part == [0x20, 0x64]) => {
            Err("the circuit was accepted".to_owned())
        }
        _ => Ok(()),
    }
}

async fn nonsense(evil: Arc<Evil>) -> Found {
    let mut pipe = evil.line().await?.pipe().await.map_err(|error| error.to_string())?;
    let sent = async {
        pipe.write_all(&[0xff; 4096]).await?;
        pipe.flush().await?;
        let mut answer = Vec::new();
        pipe.read_to_end(&mut answer).await
    };
    match tokio::time::timeout(std::time::Duration::from_secs(20), sent).await {
        Ok(_) => Ok(()),
        Err(_) => Err("a substream of nonsense stays open".to_owned()),
    }
}

async fn plain(evil: &Evil, bytes: &[u8]) -> Found {
    let talk = async {
        let mut socket = TcpStream::connect(evil.control).await?;
        socket.write_all(bytes).await?;
        let mut answer = Vec::new();
        let _reset = socket.read_to_end(&mut answer).await;
        Ok::<_, std::io::Error>(answer)
    };
    match tokio::time::timeout(std::time::Duration::from_secs(20), talk).await {
        Ok(Ok(answer)) if answer.len() > 64 => Err(format!("{} bytes came back", answer.len())),
        Ok(_) => Ok(()),
        Err(_) => Err("it stays open".to_owned()),
    }
}

fn down(came_up: std::io::Result<()>) -> Found {
    match came_up {
        Ok(()) => Err("a channel came up".to_owned()),
        Err(_) => Ok(()),
    }
}

/// Trusts everybody: what is tried here is whether it is trusted.
#[derive(Debug)]
struct Blind;

impl ServerCertVerifier for Blind {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        default_provider().signature_verification_algorithms.supported_schemes()
    }
}

/// A client without certificate: up only if the acceptor says so.
async fn anonymous(evil: &Evil, version: &'static rustls::SupportedProtocolVersion) -> std::io::Result<()> {
    let mut config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[version])
        .map_err(std::io::Error::other)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Blind))
        .with_no_client_auth();
    config.alpn_protocols = vec![ALPN_CONTROL.to_vec()];
    let name = ServerName::try_from("node.example").map_err(std::io::Error::other)?;
    let socket = TcpStream::connect(evil.control).await?;
    let mut stream = tokio_rustls::TlsConnector::from(Arc::new(config))
        .connect(name, socket)
        .await?;
    match stream.read_u8().await? {
        0 => Ok(()),
        verdict => Err(std::io::Error::other(format!("verdict {verdict}"))),
    }
}

async fn half_open(evil: Arc<Evil>) -> Found {
    let mut held = Vec::new();
    for _ in 0..60 {
        held.push(
            TcpStream::connect(evil.control)
                .await
                .map_err(|error| error.to_string())?,
        );
    }
    // A member still gets in while they are open.
    let line = evil
        .dial()
        .await
        .map_err(|error| format!("a member is shut out: {error}"))?;
    drop((line, held));
    Ok(())
}

async fn storm(evil: Arc<Evil>) -> Found {
    let mut held = Vec::new();
    for _ in 0..60 {
        held.push(evil.dial().await);
    }
    drop(held);
    Ok(())
}
