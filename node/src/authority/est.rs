//! Enrolment over Secure Transport (RFC 7030) at the authority: `cacerts`, `simpleenroll`, `simplereenroll`.
//!
//! A new member shows the secret of its invitation as the password of HTTP Basic (the user name is free) and waits for
//! the region office like any other: 202 with Retry-After. A member shows its certificate in the handshake: with the
//! same key it gets a fresh certificate at once, with a new key it waits for the region office. Bodies are PKCS#10 and
//! PKCS#7 in base64.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;

use axum::body::Bytes as Body;
use axum::extract::{Extension, State as Shared};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::AddExtension;
use axum::response::{IntoResponse, Response};
use axum_server::accept::{Accept, DefaultAcceptor};
use axum_server::tls_rustls::{RustlsAcceptor, RustlsConfig};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hie_node_pki::csr::CheckedCsr;
use hie_node_pki::membership::Membership as MemberCertificates;
use hie_node_pki::pkcs7;
use hie_node_pki::verify::{Side, judge_at};
use hie_protocol::bytes::Bytes;
use hie_protocol::id::{ContentHash, Millis};
use hie_protocol::invitation::Invitation;
use rustls_pki_types::CertificateDer;
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;
use tower::Layer as _;

use super::enrol::{EnrolAnswer, EnrolRequest};
use super::serve::{Served, on_folder};
use super::{Authority, Decision, Requested};
use crate::clock;
use crate::fault::{Exit, Fault, Outcome};

/// Seconds after which a waiting node asks again.
pub const RETRY_AFTER_S: u64 = 10;

/// The certificate chain that the caller showed, leaf first; empty when it showed none.
#[derive(Clone, Debug, Default)]
pub struct Caller(Arc<Vec<CertificateDer<'static>>>);

/// Takes the caller's chain out of the handshake and hands it to the routes.
#[derive(Clone, Debug)]
pub(super) struct ShowCaller(RustlsAcceptor<DefaultAcceptor>);

impl ShowCaller {
    pub(super) fn new(tls: RustlsConfig) -> Self {
        Self(RustlsAcceptor::new(tls))
    }
}

impl<S: Send + 'static> Accept<TcpStream, S> for ShowCaller {
    type Stream = TlsStream<TcpStream>;
    type Service = AddExtension<S, Caller>;
    type Future = Pin<Box<dyn Future<Output = io::Result<(Self::Stream, Self::Service)>> + Send>>;

    fn accept(&self, stream: TcpStream, service: S) -> Self::Future {
        let accepting = self.0.accept(stream, service);
        Box::pin(async move {
            let (stream, service) = accepting.await?;
            let shown = stream.get_ref().1.peer_certificates().unwrap_or_default();
            let chain = shown.iter().map(|one| one.clone().into_owned()).collect();
            Ok((stream, Extension(Caller(Arc::new(chain))).layer(service)))
        })
    }
}

/// What became of a request for a fresh certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Renewal {
    /// The new leaf, DER.
    Issued(Vec<u8>),
    /// The region office has to approve the new key.
    Waiting,
}

impl Authority {
    /// Renews the certificate of a member's node that showed `chain`. The same key needs nobody's approval; another
    /// key becomes a request of its own and, once approved, a further node of the member.
    pub fn renew(
        &mut self,
        chain: &[CertificateDer<'_>],
        csr: &[u8],
        auto_approve: bool,
        now: Millis,
    ) -> Outcome<Renewal> {
        let what = "The authority does not renew the certificate.";
        let fix = "Ask the region office; a revoked member joins again with a new invitation.";
        let refused = |why: String| Fault::new(Exit::Refused, what, why, fix);
        let (leaf, rest) = chain
            .split_first()
            .ok_or_else(|| refused("no certificate was shown".into()))?;
        let members = MemberCertificates::from_registry(&self.state.registry).map_err(Fault::because(
            Exit::Integrity,
            what,
            "Restore the authority's folder.",
        ))?;
        let peer = judge_at(&members, leaf, rest, Side::Client, now).map_err(|refusal| refused(refusal.to_string()))?;
        let checked = CheckedCsr::check(csr).map_err(Fault::because(Exit::Refused, what, fix))?;
        let entry = self.state.registry.node(&peer.node()).map(|(_, entry)| entry.clone());
        let entry = entry.ok_or_else(|| refused("the node is in no registry".into()))?;
        let addresses = [entry.control.as_ref(), entry.bulk.as_ref()];
        if self
            .state
            .registry
            .node(&checked.node())
            .is_some_and(|(member, _)| member.org == *peer.org())
        {
            let leaf = self.issue(peer.org(), addresses, csr, now)?;
            self.save()?;
            tracing::info!(org = %peer.org(), node = %checked.node(), "certificate renewed");
            return Ok(Renewal::Issued(leaf));
        }
        let known = self.state.requested.iter().find(|known| known.node == checked.node());
        match known.map(|known| known.decision.clone()) {
            Some(Decision::Rejected) => return Err(refused("the region office rejected the new key".into())),
            Some(Decision::Approved(_)) => return Err(refused("the new key was approved once and removed".into())),
            Some(Decision::Waiting) => return Ok(Renewal::Waiting),
            None => {}
        }
        if self.state.registry.node(&checked.node()).is_some() {
            return Err(refused("the new key belongs to another member".into()));
        }
        let id = self.next_request()?;
        self.state.requested.push(Requested {
            id,
            secret: ContentHash::new([0; 32]),
            csr: Bytes(csr.to_vec()),
            node: checked.node(),
            public: checked.public(),
            beside: Some(peer.node()),
            control: entry.control.clone(),
            bulk: entry.bulk.clone(),
            relays: entry.relays.clone(),
            decision: Decision::Waiting,
        });
        self.save()?;
        if !auto_approve {
            return Ok(Renewal::Waiting);
        }
        self.decide(id, true, now)?;
        let known = self.state.requested.iter().find(|known| known.id == id);
        match known.map(|known| &known.decision) {
            Some(Decision::Approved(chain)) => Ok(chain
                .first()
                .map_or(Renewal::Waiting, |leaf| Renewal::Issued(leaf.0.clone()))),
            _ => Ok(Renewal::Waiting),
        }
    }
}

/// `GET /cacerts`: the region's root.
pub(super) async fn cacerts(Shared(served): Shared<Arc<Served>>) -> Result<Response, StatusCode> {
    let root = on_folder(served, |authority, _| Ok(authority.root.root().to_vec())).await?;
    Ok(certificates("application/pkcs7-mime", &[&root]))
}

/// `POST /simpleenroll`: a new member with the secret of its invitation.
pub(super) async fn simpleenroll(
    Shared(served): Shared<Arc<Served>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, StatusCode> {
    let Some(secret) = secret(&headers) else {
        let ask = [(header::WWW_AUTHENTICATE, "Basic realm=\"hie enrolment\"")];
        return Ok((StatusCode::UNAUTHORIZED, ask).into_response());
    };
    let request = EnrolRequest {
        secret: Bytes(secret),
        csr: Bytes(pkcs10(&body)?),
        control: None,
        bulk: None,
        relays: Vec::new(),
    };
    let answer = on_folder(served, move |authority, auto| {
        authority.enrol(&request, auto, clock::now())
    })
    .await?;
    match answer {
        EnrolAnswer::Approved(admission) => {
            let leaf = admission.chain.first().ok_or(StatusCode::INTERNAL_SERVER_ERROR)?;
            Ok(issued(&leaf.0))
        }
        EnrolAnswer::Waiting(_) => Ok(waiting()),
        EnrolAnswer::Rejected => Err(StatusCode::FORBIDDEN),
    }
}

/// `POST /simplereenroll`: a member with its certificate.
pub(super) async fn simplereenroll(
    Shared(served): Shared<Arc<Served>>,
    Extension(caller): Extension<Caller>,
    body: Body,
) -> Result<Response, StatusCode> {
    if caller.0.is_empty() {
        return Err(StatusCode::UNAUTHORIZED);
    }
    let csr = pkcs10(&body)?;
    let renewal = on_folder(served, move |authority, auto| {
        authority.renew(&caller.0, &csr, auto, clock::now())
    });
    match renewal.await? {
        Renewal::Issued(leaf) => Ok(issued(&leaf)),
        Renewal::Waiting => Ok(waiting()),
    }
}

/// The secret in the password of HTTP Basic: the invitation itself, or its secret in hex.
fn secret(headers: &HeaderMap) -> Option<Vec<u8>> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, encoded) = value.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = String::from_utf8(STANDARD.decode(encoded.trim()).ok()?).ok()?;
    let (_, password) = decoded.split_once(':')?;
    match Invitation::parse(password) {
        Ok(invitation) => Some(invitation.secret().to_vec()),
        Err(_) => hex::decode(password).ok().filter(|secret| secret.len() == 16),
    }
}

/// A PKCS#10 request from its base64, which may be broken into lines.
fn pkcs10(body: &[u8]) -> Result<Vec<u8>, StatusCode> {
    let text: Vec<u8> = body
        .iter()
        .copied()
        .filter(|byte| !byte.is_ascii_whitespace())
        .collect();
    STANDARD.decode(text).map_err(|_| StatusCode::BAD_REQUEST)
}

fn issued(leaf: &[u8]) -> Response {
    certificates("application/pkcs7-mime; smime-type=certs-only", &[leaf])
}

fn certificates(kind: &'static str, certificates: &[&[u8]]) -> Response {
    let headers = [
        (header::CONTENT_TYPE, kind),
        (header::HeaderName::from_static("content-transfer-encoding"), "base64"),
    ];
    (headers, lines(&STANDARD.encode(pkcs7::write(certificates)))).into_response()
}

/// Base64 in lines of 64, as tools that read PEM want it.
fn lines(text: &str) -> String {
    let mut broken = String::with_capacity(text.len().saturating_add(text.len() / 64).saturating_add(1));
    for (at, letter) in text.chars().enumerate() {
        if at > 0 && at % 64 == 0 {
            broken.push('\n');
        }
        broken.push(letter);
    }
    broken.push('\n');
    broken
}

fn waiting() -> Response {
    let again = [(header::RETRY_AFTER, RETRY_AFTER_S.to_string())];
    (StatusCode::ACCEPTED, again).into_response()
}
