//! TLS configurations, one for each kind of channel. TLS 1.3 only, no resumption: a resumed session would skip the
//! judge.

use std::sync::Arc;

use rustls::client::Resumption;
use rustls::crypto::CryptoProvider;
use rustls::server::NoServerSessionStorage;
use rustls::version::TLS13;
use rustls::{ClientConfig, Error as TlsError, ServerConfig};

use hie_protocol::version::{ALPN_BULK, ALPN_BULK_2, ALPN_CONTROL, ALPN_ENROL};

use crate::clock::{Clock, TlsClock};
use crate::enrol::{KnownCaller, PinnedRoot};
use crate::identity::{IdentityCell, Present};
use crate::verify::Judge;

/// Which channel between nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Channel {
    /// The multiplexed control channel.
    Control,
    /// The bulk lane.
    Bulk,
}

impl Channel {
    /// Protocol names, the preferred one first: both sides take the newest that both speak.
    const fn alpn(self) -> &'static [&'static [u8]] {
        match self {
            Self::Control => &[ALPN_CONTROL],
            Self::Bulk => &[ALPN_BULK_2, ALPN_BULK],
        }
    }
}

pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// Acceptor of a channel between nodes: the dialler's certificate is mandatory. Errors: rustls' own, when it cannot
/// be configured.
pub fn node_server(
    channel: Channel,
    identity: Arc<IdentityCell>,
    judge: Arc<Judge>,
) -> Result<Arc<ServerConfig>, TlsError> {
    let clock = TlsClock(Arc::clone(judge.clock()));
    let mut config = ServerConfig::builder_with_details(provider(), Arc::new(clock))
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(judge)
        .with_cert_resolver(Arc::new(Present(identity)));
    harden(&mut config, channel.alpn());
    Ok(Arc::new(config))
}

/// Dialler of a channel between nodes. Errors: rustls' own, when it cannot be configured.
pub fn node_client(
    channel: Channel,
    identity: Arc<IdentityCell>,
    judge: Arc<Judge>,
) -> Result<Arc<ClientConfig>, TlsError> {
    let clock = TlsClock(Arc::clone(judge.clock()));
    let mut config = ClientConfig::builder_with_details(provider(), Arc::new(clock))
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(judge)
        .with_client_cert_resolver(Arc::new(Present(identity)));
    config.alpn_protocols = channel.alpn().iter().map(|name| name.to_vec()).collect();
    config.resumption = Resumption::disabled();
    config.enable_sni = false;
    Ok(Arc::new(config))
}

/// The authority's enrolment server: it shows its leaf and the root. A caller may show a certificate under the same
/// root (RFC 7030 §3.3.2); whether it is revoked or suspended is the business of whoever answers. Errors: rustls' own,
/// and an identity without its root.
pub fn enrolment_server(identity: Arc<IdentityCell>, clock: Arc<dyn Clock>) -> Result<Arc<ServerConfig>, TlsError> {
    let callers = KnownCaller::new(&identity.load(), Arc::clone(&clock))?;
    let mut config = ServerConfig::builder_with_details(provider(), Arc::new(TlsClock(clock)))
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(Arc::new(callers))
        .with_cert_resolver(Arc::new(Present(identity)));
    harden(&mut config, &[ALPN_ENROL]);
    // EST clients of other makers speak of HTTP alone, or of nothing.
    config.alpn_protocols.push(b"http/1.1".to_vec());
    Ok(Arc::new(config))
}

/// A joining node: it trusts only the root whose SHA-256 the invitation carries. Errors: rustls' own.
pub fn enrolment_client(fingerprint: [u8; 32], clock: Arc<dyn Clock>) -> Result<Arc<ClientConfig>, TlsError> {
    caller(fingerprint, clock, None)
}

/// A member's node at the authority: the same trust, and it shows its certificate. Errors: rustls' own.
pub fn renewal_client(
    fingerprint: [u8; 32],
    identity: Arc<IdentityCell>,
    clock: Arc<dyn Clock>,
) -> Result<Arc<ClientConfig>, TlsError> {
    caller(fingerprint, clock, Some(identity))
}

fn caller(
    fingerprint: [u8; 32],
    clock: Arc<dyn Clock>,
    identity: Option<Arc<IdentityCell>>,
) -> Result<Arc<ClientConfig>, TlsError> {
    let provider = provider();
    let schemes = provider.signature_verification_algorithms;
    let verifier = PinnedRoot {
        fingerprint,
        clock: Arc::clone(&clock),
        schemes,
    };
    let builder = ClientConfig::builder_with_details(provider, Arc::new(TlsClock(clock)))
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let mut config = match identity {
        Some(identity) => builder.with_client_cert_resolver(Arc::new(Present(identity))),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![ALPN_ENROL.to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_sni = false;
    Ok(Arc::new(config))
}

fn harden(config: &mut ServerConfig, alpn: &[&[u8]]) {
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
}
