//! The listener: TLS by rustls with the configuration it is given, or plain HTTP on loopback only.
//!
//! The law: nothing binds outside loopback without TLS; headers, streams and slow senders have limits; a stop lets
//! running answers finish within the grace given, then cuts them. Port 0 is allowed: the bound address is returned.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum_server::Handle;
use axum_server::tls_rustls::RustlsConfig;
use rustls::ServerConfig;
use tokio::task::JoinHandle;

/// Largest head of an HTTP/1 request, in bytes.
pub const HEAD_BYTES_MAX: usize = 32 * 1024;
/// Most header fields of an HTTP/1 request.
pub const HEADER_FIELDS_MAX: usize = 64;
/// Largest decoded header list of an HTTP/2 request, in bytes.
pub const HEADER_LIST_BYTES_MAX: u32 = 32 * 1024;
/// Most streams of one HTTP/2 connection at a time.
pub const STREAMS_MAX: u32 = 128;
/// Time a sender has for the head of an HTTP/1 request.
pub const HEAD_DEADLINE: Duration = Duration::from_secs(10);
/// Time between HTTP/2 pings, and the time a peer has to answer one.
pub const PING: Duration = Duration::from_secs(20);

/// How the listener is protected.
#[derive(Clone)]
pub enum Edge {
    /// TLS; ALPN `h2` and `http/1.1` are added when the configuration names none.
    Tls(Arc<ServerConfig>),
    /// Plain HTTP; refused outside loopback.
    PlainLoopback,
}

impl Edge {
    /// Whether cookies may be marked Secure and HSTS is sent.
    #[must_use]
    pub const fn is_tls(&self) -> bool {
        matches!(self, Self::Tls(_))
    }
}

/// Why the listener did not start or stopped.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// Plain HTTP outside loopback.
    #[error("plain HTTP is allowed on loopback only, not on {0}: configure a certificate, or listen on 127.0.0.1")]
    PlainOutsideLoopback(SocketAddr),
    /// The address cannot be bound.
    #[error("cannot listen on {address}: free the port or choose another one")]
    Bind {
        /// Address asked for.
        address: SocketAddr,
        /// Cause.
        #[source]
        source: io::Error,
    },
    /// The listener failed while running.
    #[error("the web listener failed")]
    Serve(#[source] io::Error),
    /// The listener's task ended abnormally.
    #[error("the web listener's task ended abnormally")]
    Task(#[source] tokio::task::JoinError),
}

/// A listener that runs.
pub struct Running {
    /// Address bound.
    pub address: SocketAddr,
    handle: Handle<SocketAddr>,
    task: JoinHandle<io::Result<()>>,
}

impl Running {
    /// Asks the listener to stop: no new connection, running answers may end within `grace`. Returns at once.
    pub fn stop(&self, grace: Duration) {
        self.handle.graceful_shutdown(Some(grace));
    }

    /// Waits for the end. Errors: [`ServerError::Serve`], [`ServerError::Task`].
    pub async fn ended(self) -> Result<(), ServerError> {
        self.task.await.map_err(ServerError::Task)?.map_err(ServerError::Serve)
    }
}

/// Binds and serves. Must be called inside a tokio runtime. Errors: [`ServerError`].
pub fn start(address: SocketAddr, edge: Edge, app: Router) -> Result<Running, ServerError> {
    if !edge.is_tls() && !address.ip().is_loopback() {
        return Err(ServerError::PlainOutsideLoopback(address));
    }
    let bind = |source| ServerError::Bind { address, source };
    let listener = TcpListener::bind(address).map_err(bind)?;
    listener.set_nonblocking(true).map_err(bind)?;
    let bound = listener.local_addr().map_err(bind)?;
    let handle = Handle::new();
    let service = app.into_make_service_with_connect_info::<SocketAddr>();
    let task = match edge {
        Edge::Tls(config) => {
            let config = RustlsConfig::from_config(with_alpn(config));
            let mut server = axum_server::from_tcp_rustls(listener, config)
                .map_err(bind)?
                .handle(handle.clone());
            limit(&mut server);
            tokio::spawn(server.serve(service))
        }
        Edge::PlainLoopback => {
            let mut server = axum_server::from_tcp(listener).map_err(bind)?.handle(handle.clone());
            limit(&mut server);
            tokio::spawn(server.serve(service))
        }
    };
    Ok(Running {
        address: bound,
        handle,
        task,
    })
}

fn with_alpn(config: Arc<ServerConfig>) -> Arc<ServerConfig> {
    if config.alpn_protocols.is_empty() {
        let mut own = ServerConfig::clone(&config);
        own.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        return Arc::new(own);
    }
    config
}

fn limit<A>(server: &mut axum_server::Server<SocketAddr, A>) {
    let timer = hyper_util::rt::TokioTimer::new();
    let builder = server.http_builder();
    builder
        .http1()
        .timer(timer.clone())
        .header_read_timeout(HEAD_DEADLINE)
        .max_headers(HEADER_FIELDS_MAX)
        .max_buf_size(HEAD_BYTES_MAX);
    builder
        .http2()
        .timer(timer)
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(HEADER_LIST_BYTES_MAX)
        .keep_alive_interval(PING)
        .keep_alive_timeout(PING);
}
