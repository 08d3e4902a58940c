//! Runs a node: starts its parts in order, keeps its workers going, drains, and stops in reverse.

use std::future::Future;
use std::io::IsTerminal as _;
use std::sync::Arc;
use std::time::Duration;

use hie_gateway::gate::{Gate, Settings};
use hie_gateway::ports::Ports;
use hie_gateway::routes;
use hie_gateway::server::{self, Edge};
use hie_node_core::audit::event::{Actor, AuditEvent, EventKind};
use hie_node_core::ports::{blocking, random_bytes};
use hie_node_pki::authority::{SERIAL_BYTES, Validity};
use hie_node_pki::web::WebIdentity;
use hie_protocol::id::{Correlation, Millis};
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

use crate::assemble::{self, Region, Running, Trade};
use crate::authority::{DAY_MS, random};
use crate::cli::output::Output;
use crate::config::Config;
use crate::desk::accounts::AccountDesk;
use crate::desk::archive::ArchiveDesk;
use crate::desk::consents::ConsentDesk;
use crate::desk::log::LogDesk;
use crate::desk::people::PeopleDesk;
use crate::desk::pictures::PictureDesk;
use crate::desk::records::RecordsDesk;
use crate::desk::state::StateDesk;
use crate::execute::Executor;
use crate::fault::{Exit, Fault, Outcome, chain};
use crate::frames::Frames;
use crate::home::{Home, write_private};
use crate::join::Membership;
use crate::order::Order;
use crate::socket;
use crate::workers;

/// How long open requests may take when the node stops.
pub const DRAIN: Duration = Duration::from_secs(5);
/// Life of a web certificate that the node makes for itself, in milliseconds.
pub const WEB_CERTIFICATE_LIFE_MS: u64 = 365 * DAY_MS;

/// Resolves when the operator or the supervisor asks the program to stop.
pub async fn stop_signal() {
    let terminated = async {
        match signal(SignalKind::terminate()) {
            Ok(mut signals) => {
                signals.recv().await;
            }
            Err(error) => {
                tracing::error!(%error, "SIGTERM cannot be heard");
                std::future::pending::<()>().await;
            }
        }
    };
    tokio::select! {
        pressed = tokio::signal::ctrl_c() => {
            if let Err(error) = pressed {
                tracing::error!(%error, "Ctrl-C cannot be heard");
            }
        }
        () = terminated => {}
    }
}

/// Logs go to stderr: ids and counts, never personal data. A panic ends the process with a message.
fn prepare_process() {
    let filter = EnvFilter::try_from_env("HIE_LOG").unwrap_or_else(|_| EnvFilter::new("info,libp2p=warn,hickory=warn"));
    // A second initialisation in one process (tests) keeps the first.
    let _kept = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .try_init();
    let default = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        default(panic);
        std::process::exit(Exit::Failed as i32);
    }));
}

/// Runs `hie serve` until the stop signal.
pub async fn serve(home: &Home, output: &Output) -> Outcome<Exit> {
    prepare_process();
    serve_until(home, output, stop_signal()).await
}

/// Runs a node until `stop`.
pub async fn serve_until(home: &Home, output: &Output, stop: impl Future<Output = ()>) -> Outcome<Exit> {
    let config = Config::load(home)?;
    let membership = Membership::load(home)?;
    let (trade, announce) = assemble::trade(home, &config)?;
    let (region, running) = assemble::region(home, &config, &trade, announce).await?;
    let Running {
        inbound,
        listener,
        driver,
    } = running;
    // Members are answered, and the registry is compared with theirs, before anybody here is served.
    let (work, failed) = workers::start(home, &trade, &region, &membership, inbound, driver).await?;
    note(&trade, EventKind::Started, "the node started").await?;
    let ports = ports(&trade, &region, &membership);
    let executor = Executor::new(trade.clone(), Some(region.clone()), Some(ports.records_desk));
    let edge = edge(home, &config)?;
    let base = config.web.base.clone().unwrap_or_else(|| {
        format!(
            "{}://{}",
            if config.web.plain { "http" } else { "https" },
            config.web.listen
        )
    });
    let settings = settings(&trade, &config, &base, edge.is_tls());
    let web = server::start(
        config.web.listen,
        edge,
        routes::router(Gate::new(ports.ports, settings)),
    )
    .map_err(Fault::because(
        Exit::Failed,
        "The web server cannot be started.",
        "Check web.listen in the configuration.",
    ))?;
    let orders = socket::listen(&home.socket(), move |order, lines| {
        let executor = executor.clone();
        async move { executor.execute(order, lines).await }
    })?;
    output.data(
        format!("{} serves {base}   member of {}", trade.name, membership.region),
        &json!({ "serving": base, "organisation": trade.me.as_str(), "region": membership.region }),
    );
    let outcome = tokio::select! {
        () = stop => Ok(Exit::Done),
        why = failed => Err(Fault::new(Exit::Failed, "The node stopped itself.", why, "Mend what the reason says, then start it again.")),
    };
    orders.abort();
    web.stop(DRAIN);
    if let Err(error) = web.ended().await {
        tracing::warn!(why = %chain(&error), "the web server ended badly");
    }
    drop(listener);
    region.peers.shutdown().await;
    // The index thread ends with its last command; what it had not synced was never acknowledged.
    let _ended = region.index.stop();
    work.stop().await;
    let _socket = std::fs::remove_file(home.socket());
    if outcome.is_ok() {
        note(&trade, EventKind::Stopped, "the node stopped in order").await?;
        let audit = Arc::clone(&trade.audit);
        if let Err(error) = blocking(move || audit.checkpoint()).await {
            tracing::error!(why = %chain(&error), "the last checkpoint failed");
        }
    }
    outcome
}

/// Ports and the desk that the command line shares with them.
struct Desk {
    ports: Ports,
    records_desk: Arc<RecordsDesk>,
}

fn ports(trade: &Trade, region: &Region, membership: &Membership) -> Desk {
    let people = Arc::new(PeopleDesk::new(trade.clone(), region.clone()));
    let records_desk = Arc::new(RecordsDesk::new(trade.clone(), region.clone(), Arc::clone(&people)));
    let ports = Ports {
        people,
        records: Arc::clone(&records_desk) as _,
        archive: Arc::new(ArchiveDesk::new(trade.clone(), region.publisher.clone())),
        consents: Arc::new(ConsentDesk::new(trade.clone(), Some(region.publisher.clone()))),
        access_log: Arc::new(LogDesk::new(trade.clone())),
        accounts: Arc::new(AccountDesk::new(trade.clone())),
        node: Arc::new(StateDesk::new(trade.clone(), region.clone(), membership.region.clone())),
        frames: Arc::new(PictureDesk::new(Arc::new(Frames::default()))),
    };
    Desk { ports, records_desk }
}

fn settings(trade: &Trade, config: &Config, base: &str, secure: bool) -> Settings {
    let registry = trade.registry.borrow();
    let rules = &registry.policy.break_glass;
    Settings {
        organisation: config.node.name.clone(),
        secure,
        emergency_minutes: u64::from(rules.minutes),
        utc_offset_minutes: 0,
        fhir_base: format!("{}/fhir", base.trim_end_matches('/')),
        tell_withheld: rules.tell_withheld,
    }
}

/// TLS with the configured certificate, or one that the node made for itself; plain only where configured.
fn edge(home: &Home, config: &Config) -> Outcome<Edge> {
    if config.web.plain {
        return Ok(Edge::PlainLoopback);
    }
    let fix = "Check web.certificate_file and web.key_file.";
    let (certificate, key) = match (&config.web.certificate_file, &config.web.key_file) {
        (Some(certificate), Some(key)) => (certificate.clone(), key.clone()),
        _ => {
            let (certificate, key) = home.web();
            if !certificate.exists() || !key.exists() {
                make_web_certificate(config, &certificate, &key)?;
            }
            (certificate, key)
        }
    };
    let identity = WebIdentity::load(&certificate, &key).map_err(Fault::because(
        Exit::Config,
        "The web certificate cannot be used.",
        fix,
    ))?;
    identity
        .server()
        .map(Edge::Tls)
        .map_err(Fault::because(Exit::Config, "The web certificate cannot be used.", fix))
}

fn make_web_certificate(config: &Config, certificate: &std::path::Path, key: &std::path::Path) -> Outcome<()> {
    let failed = "The web certificate cannot be made.";
    let now = crate::clock::now();
    let validity = Validity {
        not_before: Millis(now.0.saturating_sub(DAY_MS)),
        not_after: now.plus(WEB_CERTIFICATE_LIFE_MS),
    };
    let host = config
        .peers
        .host
        .clone()
        .unwrap_or_else(|| config.web.listen.ip().to_string());
    let made = WebIdentity::self_signed(&[host], validity, random::<SERIAL_BYTES>()?).map_err(Fault::because(
        Exit::Failed,
        failed,
        "Name a certificate in the configuration.",
    ))?;
    write_private(certificate, made.chain_pem().as_bytes())
        .and_then(|()| write_private(key, made.key_pem().as_bytes()))
        .map_err(Fault::because(Exit::Failed, failed, "Check space and permissions."))
}

/// One line in the log about the node itself.
async fn note(trade: &Trade, kind: EventKind, words: &'static str) -> Outcome<()> {
    let correlation = random_bytes::<16>(&*trade.random).map_err(Fault::because(
        Exit::Failed,
        "No random numbers.",
        "Check the system.",
    ))?;
    let actor = Actor::system(trade.me.clone(), "hie");
    let mut event = AuditEvent::new(kind, trade.clock.now(), Correlation::new(correlation), actor);
    event.detail = Some(words.to_owned());
    let audit = Arc::clone(&trade.audit);
    let stored = blocking(move || audit.append_one(event)).await;
    stored.map(|_| ()).map_err(Fault::because(
        Exit::Failed,
        "The audit log cannot be written.",
        "Check the disk; the node does not run without it.",
    ))
}

/// Runs an order on the store of a stopped node.
pub async fn offline(home: &Home, order: Order, output: &Output) -> Outcome<Exit> {
    let config = Config::load(home)?;
    let (trade, _announce) = assemble::trade(home, &config)?;
    let audit = Arc::clone(&trade.audit);
    let executor = Executor::new(trade, None, None);
    let outcome = socket::local(output, |lines| async move { executor.execute(order, lines).await }).await;
    let sealed = blocking(move || audit.checkpoint()).await;
    sealed.map_err(Fault::because(
        Exit::Failed,
        "The audit log cannot be sealed.",
        "Check the disk.",
    ))?;
    outcome
}
