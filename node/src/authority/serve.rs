//! The authority's server: enrolment, the registry, and EST (RFC 7030), over TLS under its root.
//!
//! Every request works on the folder under its lock; a change made by the command line is served at once. A keeper
//! signs the revocation list anew on its schedule, and renews the server's own certificate.

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
use hie_node_pki::authority::{SERIAL_BYTES, Validity};
use hie_node_pki::config;
use hie_node_pki::identity::{IdentityCell, NodeIdentity};
use hie_node_pki::key::Key;
use hie_protocol::cbor;
use hie_protocol::id::Millis;
use ring::rand::SystemRandom;
use serde::Deserialize;

use super::enrol::{ENROL_BYTES_MAX, EnrolRequest, host};
use super::est::{self, ShowCaller};
use super::{Authority, SERVER_LIFE_MS, random};
use crate::clock;
use crate::fault::{Exit, Fault, Outcome};

/// Longest time that a registry question is held open.
pub const REGISTRY_WAIT: Duration = Duration::from_secs(25);
/// How often a held question looks at the folder.
pub const REGISTRY_LOOK: Duration = Duration::from_millis(500);
/// How often the keeper looks after the revocation list and the server's certificate.
pub const KEEP_EVERY: Duration = Duration::from_secs(60);

/// What every handler works on.
pub(super) struct Served {
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
    let identity = Arc::new(IdentityCell::new(server_identity(folder, &what)?));
    let tls = config::enrolment_server(Arc::clone(&identity), Arc::new(clock::System)).map_err(Fault::because(
        Exit::Failed,
        &what,
        "Report this.",
    ))?;
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
        .route("/.well-known/est/cacerts", get(est::cacerts))
        .route("/.well-known/est/simpleenroll", post(est::simpleenroll))
        .route("/.well-known/est/simplereenroll", post(est::simplereenroll))
        .layer(DefaultBodyLimit::max(ENROL_BYTES_MAX))
        .with_state(Arc::clone(&served));
    let handle = axum_server::Handle::new();
    let tls = axum_server::tls_rustls::RustlsConfig::from_config(tls);
    let server = axum_server::from_tcp(listener)
        .map_err(Fault::because(Exit::Failed, &what, "Report this."))?
        .acceptor(ShowCaller::new(tls))
        .handle(handle.clone());
    let serving = server.serve(routes.into_make_service());
    let task = tokio::spawn(async move {
        tokio::select! {
            ended = serving => ended,
            never = keep(served, identity) => match never {},
        }
    });
    Ok(Running { address, handle, task })
}

/// A fresh key and certificate for the server.
fn server_identity(folder: &Path, what: &str) -> Outcome<NodeIdentity> {
    let authority = Authority::open(folder)?;
    let now = clock::now();
    let key = Key::generate(&SystemRandom::new()).map_err(Fault::because(Exit::Failed, what, "Report this."))?;
    let validity = Validity {
        not_before: Millis(now.0.saturating_sub(60_000)),
        not_after: now.plus(SERVER_LIFE_MS),
    };
    let hosts = vec![host(&authority.state.address).to_owned()];
    let leaf = authority
        .root
        .issue_enrolment(&key, &hosts, validity, random::<SERIAL_BYTES>()?)
        .map_err(Fault::because(
            Exit::Failed,
            what,
            "Check the address given to `hie authority init`.",
        ))?;
    let chain = vec![leaf, authority.root.root().to_vec()];
    NodeIdentity::new(key, chain).map_err(Fault::because(Exit::Failed, what, "Report this."))
}

/// Signs the revocation list anew on its schedule, and renews the server's certificate.
async fn keep(served: Arc<Served>, identity: Arc<IdentityCell>) -> std::convert::Infallible {
    let mut every = tokio::time::interval(KEEP_EVERY);
    loop {
        every.tick().await;
        let fresh = on_folder(Arc::clone(&served), |authority, _| {
            let now = clock::now();
            if authority.is_stale(now) {
                authority.publish(now)?;
                tracing::info!(
                    version = authority.state.registry.version,
                    "revocation list signed anew"
                );
            }
            Ok(())
        });
        if fresh.await.is_err() {
            tracing::error!("the revocation list could not be signed anew; it is tried again");
        }
        let left = identity.load().facts().not_after.since(clock::now());
        if left < SERVER_LIFE_MS / 3 {
            match server_identity(&served.folder, "The server's certificate cannot be renewed.") {
                Ok(renewed) => identity.replace(renewed),
                Err(fault) => tracing::error!(what = %fault.what, why = %fault.why, "not renewed"),
            }
        }
    }
}

/// Runs a change on the folder outside the async threads; a refusal becomes 403, the rest 500, the story goes to the log.
pub(super) async fn on_folder<T: Send + 'static>(
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
    /// Whether the caller takes the registry with the officers' approvals, as CBOR.
    #[serde(default)]
    approvals: bool,
    /// Whether the caller is answered at once when there is nothing newer.
    #[serde(default)]
    now: bool,
}

async fn registry(Shared(served): Shared<Arc<Served>>, Query(query): Query<Have>) -> Result<Response, StatusCode> {
    let have = query.have.unwrap_or(0);
    let deadline = tokio::time::Instant::now() + REGISTRY_WAIT;
    loop {
        let look = Arc::clone(&served);
        if let Some(handed) = on_folder(look, move |authority, _| Ok(authority.state.handed(have))).await? {
            let (kind, bytes) = if query.approvals {
                let bytes = cbor::encode(&handed).map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
                ("application/cbor", bytes)
            } else {
                ("application/cose", handed.signed.0)
            };
            return Ok(([(header::CONTENT_TYPE, kind)], bytes).into_response());
        }
        if query.now || tokio::time::Instant::now() >= deadline {
            return Ok(StatusCode::NO_CONTENT.into_response());
        }
        tokio::time::sleep(REGISTRY_LOOK).await;
    }
}
