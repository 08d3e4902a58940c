//! The authority's server: enrolment, the registry, and EST `cacerts` (RFC 7030 §4.1), over TLS under its root.
//!
//! Every request works on the folder under its lock; a change made by the command line is served at once.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes as Body;
use axum::extract::{DefaultBodyLimit, Query, State as Shared};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hie_node_pki::authority::{SERIAL_BYTES, Validity};
use hie_node_pki::config;
use hie_node_pki::identity::{IdentityCell, NodeIdentity};
use hie_node_pki::key::Key;
use hie_protocol::cbor;
use hie_protocol::id::Millis;
use ring::rand::SystemRandom;
use serde::Deserialize;

use super::enrol::{ENROL_BYTES_MAX, EnrolRequest, host};
use super::{Authority, CERTIFICATE_LIFE_MS, random};
use crate::clock;
use crate::fault::{Exit, Fault, Outcome};

/// Longest time that a registry question is held open.
pub const REGISTRY_WAIT: Duration = Duration::from_secs(25);
/// How often a held question looks at the folder.
pub const REGISTRY_LOOK: Duration = Duration::from_millis(500);

struct Served {
    folder: PathBuf,
    auto_approve: bool,
}

/// A running authority.
pub struct Running {
    /// Address it listens at.
    pub address: SocketAddr,
    handle: axum_server::Handle<SocketAddr>,
    task: tokio::task::JoinHandle<std::io::Result<()>>,
}

impl Running {
    /// Serves until `stop`, then lets open requests finish for a second.
    pub async fn until(self, stop: impl Future<Output = ()>) -> Outcome<()> {
        let Self { handle, task, .. } = self;
        let ending = async move {
            stop.await;
            handle.graceful_shutdown(Some(Duration::from_secs(1)));
            std::future::pending::<()>().await;
        };
        let failed = |error: String| Fault::new(Exit::Failed, "The authority stopped.", error, "Start it again.");
        tokio::select! {
            ended = task => ended.map_err(|error| failed(error.to_string()))?.map_err(|error| failed(error.to_string())),
            () = ending => Ok(()),
        }
    }
}

/// Starts the authority of a folder.
pub async fn start(folder: &Path, listen: SocketAddr, auto_approve: bool) -> Outcome<Running> {
    let what = format!("Cannot serve the authority at {listen}.");
    let tls = {
        let authority = Authority::open(folder)?;
        let now = clock::now();
        let until = now.plus(CERTIFICATE_LIFE_MS);
        let key = Key::generate(&SystemRandom::new()).map_err(Fault::because(Exit::Failed, &what, "Report this."))?;
        let validity = Validity {
            not_before: Millis(now.0.saturating_sub(60_000)),
            not_after: until,
        };
        let hosts = vec![host(&authority.state.address).to_owned()];
        let leaf = authority
            .root
            .issue_enrolment(&key, &hosts, validity, random::<SERIAL_BYTES>()?)
            .map_err(Fault::because(
                Exit::Failed,
                &what,
                "Check the address given to `hie authority init`.",
            ))?;
        let chain = vec![leaf, authority.root.root().to_vec()];
        let identity = NodeIdentity::new(key, chain).map_err(Fault::because(Exit::Failed, &what, "Report this."))?;
        config::enrolment_server(Arc::new(IdentityCell::new(identity)), Arc::new(clock::System))
            .map_err(Fault::because(Exit::Failed, &what, "Report this."))?
    };
    let listener = std::net::TcpListener::bind(listen)
        .and_then(|listener| listener.set_nonblocking(true).map(|()| listener))
        .map_err(Fault::because(
            Exit::Unreachable,
            &what,
            "Choose another address with --listen.",
        ))?;
    let address = listener
        .local_addr()
        .map_err(Fault::because(Exit::Failed, &what, "Report this."))?;
    let served = Arc::new(Served {
        folder: folder.to_owned(),
        auto_approve,
    });
    let routes = Router::new()
        .route("/hie/enrol", post(enrol))
        .route("/hie/registry", get(registry))
        .route("/hie/tokens", post(tokens))
        .route("/.well-known/est/cacerts", get(cacerts))
        .layer(DefaultBodyLimit::max(ENROL_BYTES_MAX))
        .with_state(served);
    let handle = axum_server::Handle::new();
    let tls = axum_server::tls_rustls::RustlsConfig::from_config(tls);
    let server = axum_server::from_tcp_rustls(listener, tls)
        .map_err(Fault::because(Exit::Failed, &what, "Report this."))?
        .handle(handle.clone());
    let task = tokio::spawn(server.serve(routes.into_make_service()));
    Ok(Running { address, handle, task })
}

/// Runs a change on the folder outside the async threads; a refusal becomes 403, the rest 500, the story goes to the log.
async fn on_folder<T: Send + 'static>(
    served: Arc<Served>,
    work: impl FnOnce(&mut Authority, bool) -> Outcome<T> + Send + 'static,
) -> Result<T, StatusCode> {
    let task = tokio::task::spawn_blocking(move || {
        let mut authority = Authority::open(&served.folder)?;
        work(&mut authority, served.auto_approve)
    });
    match task.await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(fault)) => {
            tracing::warn!(what = %fault.what, why = %fault.why, "enrolment refused");
            Err(if fault.exit == Exit::Refused {
                StatusCode::FORBIDDEN
            } else {
                StatusCode::INTERNAL_SERVER_ERROR
            })
        }
        Err(_) => Err(StatusCode::INTERNAL_SERVER_ERROR),
    }
}

async fn enrol(Shared(served): Shared<Arc<Served>>, body: Body) -> Result<Response, StatusCode> {
    let request: EnrolRequest = cbor::decode(&body, ENROL_BYTES_MAX).map_err(|_| StatusCode::BAD_REQUEST)?;
    let answer = on_folder(served, move |authority, auto| {
        authority.enrol(&request, auto, clock::now())
    })
    .await?;
    let bytes = cbor::encode(&answer).map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
    Ok(([(header::CONTENT_TYPE, "application/cbor")], bytes).into_response())
}

async fn tokens(Shared(served): Shared<Arc<Served>>, body: Body) -> Result<Response, StatusCode> {
    let orders = on_folder(served, move |authority, _| authority.report(&body, clock::now())).await?;
    let bytes = cbor::encode(&orders).map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
    Ok(([(header::CONTENT_TYPE, "application/cbor")], bytes).into_response())
}

#[derive(Deserialize)]
struct Have {
    have: Option<u64>,
}

async fn registry(Shared(served): Shared<Arc<Served>>, Query(query): Query<Have>) -> Result<Response, StatusCode> {
    let have = query.have.unwrap_or(0);
    let deadline = tokio::time::Instant::now() + REGISTRY_WAIT;
    loop {
        let look = Arc::clone(&served);
        let held = on_folder(look, |authority, _| {
            Ok((authority.state.registry.version, authority.state.signed.0.clone()))
        });
        let (version, signed) = held.await?;
        if version > have {
            return Ok(([(header::CONTENT_TYPE, "application/cose")], signed).into_response());
        }
        if tokio::time::Instant::now() >= deadline {
            return Ok(StatusCode::NO_CONTENT.into_response());
        }
        tokio::time::sleep(REGISTRY_LOOK).await;
    }
}

async fn cacerts(Shared(served): Shared<Arc<Served>>) -> Result<Response, StatusCode> {
    let certificate = on_folder(served, |authority, _| Ok(authority.root.root().to_vec())).await?;
    let text = STANDARD.encode(certs_only(&certificate));
    let headers = [
        (header::CONTENT_TYPE, "application/pkcs7-mime"),
        (header::HeaderName::from_static("content-transfer-encoding"), "base64"),
    ];
    Ok((headers, text).into_response())
}

/// A degenerate PKCS#7 SignedData with one certificate and no signer (RFC 5652 §5.1), as EST answers it.
fn certs_only(certificate: &[u8]) -> Vec<u8> {
    const SIGNED_DATA: &[u8] = &[0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x02];
    const DATA: &[u8] = &[
        0x30, 0x0b, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x01,
    ];
    let mut body = vec![0x02, 0x01, 0x01, 0x31, 0x00];
    body.extend_from_slice(DATA);
    body.extend(der(0xa0, certificate));
    body.extend_from_slice(&[0x31, 0x00]);
    let mut content = SIGNED_DATA.to_vec();
    content.extend(der(0xa0, &der(0x30, &body)));
    der(0x30, &content)
}

/// One DER element.
fn der(tag: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![tag];
    let length = body.len().to_be_bytes();
    let significant: Vec<u8> = length.iter().copied().skip_while(|byte| *byte == 0).collect();
    match (body.len(), significant.len()) {
        (0..=127, _) => bytes.push(significant.last().copied().unwrap_or(0)),
        (_, count) => {
            bytes.push(0x80 | u8::try_from(count).unwrap_or(8));
            bytes.extend(significant);
        }
    }
    bytes.extend_from_slice(body);
    bytes
}
