//! Background work of a running node: other nodes' requests, publication, checkpoints, registry, links.
//!
//! Each worker has a name. A worker that meets a failure after which nothing may be acknowledged ends the process.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use hie_node_core::audit::log::is_fatal;
use hie_node_core::locator::driver::IndexError;
use hie_node_core::ports::blocking;
use hie_node_peer::handle::InboundRequest;
use hie_node_pki::membership::Membership as MemberCertificates;
use hie_protocol::bytes::Bytes;
use hie_protocol::id::OrgId;
use hie_protocol::message::{Request, Response};
use hie_protocol::refusal::Refusal;
use hie_protocol::registry::Registry;
use hie_protocol::version::negotiate;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;

use crate::assemble::{Region, Trade};
use crate::fault::{Outcome, chain};
use crate::home::{Home, write_private};
use crate::join::{Membership, authority_client, newer_registry, root_public};

/// Requests of other nodes handled at the same time.
pub const INBOUND_MAX: usize = 256;
/// Longest time between two checkpoints of the audit log.
pub const CHECKPOINT_EVERY: Duration = Duration::from_secs(5);
/// Longest time between two rounds of publication.
pub const PUBLISH_EVERY: Duration = Duration::from_secs(15);
/// Pause after a round that could not finish.
pub const PUBLISH_AGAIN: Duration = Duration::from_secs(2);
/// Longest wait for the index thread when the node stops.
pub const INDEX_END: Duration = Duration::from_secs(5);
/// How often channels are looked at.
pub const LINKS_EVERY: Duration = Duration::from_millis(500);
/// Pause after the authority could not be reached.
pub const REGISTRY_AGAIN: Duration = Duration::from_secs(5);

/// The workers of a node.
pub struct Workers {
    tasks: JoinSet<()>,
    index: watch::Receiver<Option<String>>,
}

impl Workers {
    /// Ends them all, and waits for the index thread to close what it has open.
    pub async fn stop(mut self) {
        self.tasks.shutdown().await;
        let ended = self.index.wait_for(Option::is_some);
        if tokio::time::timeout(INDEX_END, ended).await.is_err() {
            tracing::warn!("the index thread did not end in time");
        }
    }
}

/// Starts the workers; the future resolves when one of them failed for good, with the reason.
pub fn start(
    home: &Home,
    trade: &Trade,
    region: &Region,
    membership: &Membership,
    inbound: mpsc::Receiver<InboundRequest>,
    driver: JoinHandle<Result<(), IndexError>>,
) -> Outcome<(Workers, impl Future<Output = String> + use<>)> {
    let (fail, failed) = mpsc::channel::<String>(8);
    let mut tasks = JoinSet::new();
    let keeper = Arc::new(Keeper {
        home: home.clone(),
        trade: trade.clone(),
        region: region.clone(),
        root: membership.fingerprint()?,
        authority: membership.authority.clone(),
        taking: tokio::sync::Mutex::new(()),
    });
    tasks.spawn(answer(Arc::clone(&keeper), inbound));
    tasks.spawn(publish(region.clone(), fail.clone()));
    tasks.spawn(checkpoint(trade.clone(), fail.clone()));
    tasks.spawn(links(region.clone()));
    tasks.spawn(crate::tokens::keep(
        trade.clone(),
        region.clone(),
        membership.fingerprint()?,
        membership.authority.clone(),
        fail.clone(),
    ));
    tasks.spawn(follow_registry(keeper));
    // Empty words: the index ended in order.
    let (ended, index) = watch::channel(None);
    std::thread::spawn(move || {
        let words = match driver.join() {
            Ok(Ok(())) => String::new(),
            Ok(Err(error)) => format!("the index failed: {}", chain(&error)),
            Err(_) => "the index thread broke off".to_owned(),
        };
        ended.send_replace(Some(words));
    });
    let (alarm, mut watched) = (trade.alarm.clone(), index.clone());
    let why = async move {
        let mut failed = failed;
        tokio::select! {
            why = alarm.raised() => why,
            Some(why) = failed.recv() => why,
            why = index_failed(&mut watched) => why,
        }
    };
    Ok((Workers { tasks, index }, why))
}

/// Resolves when the index failed; never when it ended in order.
async fn index_failed(ended: &mut watch::Receiver<Option<String>>) -> String {
    let words = match ended.wait_for(Option::is_some).await {
        Ok(words) => words.clone().unwrap_or_default(),
        Err(_) => "the index thread broke off".to_owned(),
    };
    if words.is_empty() {
        std::future::pending().await
    } else {
        words
    }
}

/// Takes newer registries, from the authority and from members.
struct Keeper {
    home: Home,
    trade: Trade,
    region: Region,
    root: [u8; 32],
    authority: String,
    taking: tokio::sync::Mutex<()>,
}

impl Keeper {
    /// Takes a signed registry if it is newer: durable first, then certificates, then the index and everybody else.
    async fn take(&self, signed: &[u8]) -> Result<bool, String> {
        let _one_at_a_time = self.taking.lock().await;
        let held = Arc::clone(&self.trade.registry.borrow());
        let root = root_public(&held.root).map_err(|fault| fault.what)?;
        let registry = Registry::verify(signed, root, Some(held.version)).map_err(|error| chain(&error))?;
        if registry.version <= held.version {
            return Ok(false);
        }
        if registry.root != held.root {
            return Err("the root certificate differs from the one that was joined".to_owned());
        }
        let members = MemberCertificates::from_registry(&registry).map_err(|error| chain(&error))?;
        let (path, bytes) = (self.home.registry(), signed.to_vec());
        let written = blocking(move || write_private(&path, &bytes)).await;
        written.map_err(|error| format!("the registry cannot be stored: {error}"))?;
        let cut = self.region.peers.update(members).await;
        for (node, why) in cut {
            tracing::warn!(%node, %why, "channel cut");
        }
        tracing::info!(
            version = registry.version,
            members = registry.members.len(),
            "registry taken"
        );
        self.region.announce.send_replace(Arc::new(registry.clone()));
        self.region.index.registry(registry).map_err(|error| chain(&error))?;
        self.region.publisher.wake();
        Ok(true)
    }

    /// Hands a newer registry on to the other members.
    async fn pass_on(&self, signed: Vec<u8>) {
        let registry = Arc::clone(&self.trade.registry.borrow());
        let nodes = registry
            .active()
            .filter(|member| member.org != self.trade.me)
            .flat_map(|member| member.nodes.iter());
        for node in nodes {
            let Ok(frame) = (Request::RegistryPush {
                signed: Bytes(signed.clone()),
            })
            .encode() else {
                return;
            };
            let (peers, key) = (self.region.peers.clone(), node.key);
            tokio::spawn(async move {
                // Who cannot be reached asks for it later.
                let _unreached = peers.request(key, frame, crate::wire::REQUEST_DEADLINE).await;
            });
        }
    }
}

async fn follow_registry(keeper: Arc<Keeper>) {
    let client = match authority_client(keeper.root) {
        Ok(client) => client,
        Err(fault) => {
            tracing::error!(what = %fault.what, why = %fault.why, "the registry is not followed");
            return;
        }
    };
    loop {
        let have = keeper.trade.registry.borrow().version;
        match newer_registry(&client, &keeper.authority, have).await {
            Ok(Some(signed)) => match keeper.take(&signed).await {
                Ok(true) => keeper.pass_on(signed).await,
                Ok(false) => tokio::time::sleep(REGISTRY_AGAIN).await,
                Err(why) => {
                    tracing::error!(%why, "a registry was refused");
                    tokio::time::sleep(REGISTRY_AGAIN).await;
                }
            },
            Ok(None) => {}
            Err(fault) => {
                tracing::debug!(why = %fault.why, "the authority does not answer");
                tokio::time::sleep(REGISTRY_AGAIN).await;
            }
        }
    }
}

/// Answers other nodes.
async fn answer(keeper: Arc<Keeper>, mut inbound: mpsc::Receiver<InboundRequest>) {
    let slots = Arc::new(Semaphore::new(INBOUND_MAX));
    while let Some(request) = inbound.recv().await {
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else {
            return;
        };
        let keeper = Arc::clone(&keeper);
        tokio::spawn(async move {
            let response = respond(&keeper, &request).await;
            match response.encode() {
                Ok(frame) => {
                    let _gone = request.reply.send(frame);
                }
                Err(error) => tracing::error!(%error, "an answer cannot be encoded"),
            }
            drop(slot);
        });
    }
}

async fn respond(keeper: &Keeper, inbound: &InboundRequest) -> Response {
    let request = match Request::decode(&inbound.frame) {
        Ok(request) => request,
        Err(error) => {
            tracing::warn!(org = %inbound.org, %error, "a malformed request");
            return Response::Refused(Refusal::Malformed);
        }
    };
    let held = Arc::clone(&keeper.trade.registry.borrow());
    match request {
        Request::Hello { versions, .. } => match negotiate(&versions) {
            Some(version) => Response::Hello {
                version,
                registry: held.version,
                clock: keeper.trade.clock.now(),
            },
            None => Response::Refused(Refusal::Version),
        },
        Request::Registry { have } => {
            let signed = if held.version > have {
                std::fs::read(keeper.home.registry()).ok().map(Bytes)
            } else {
                None
            };
            Response::Registry { signed }
        }
        Request::RegistryPush { signed } => match keeper.take(&signed.0).await {
            Ok(_) => Response::Taken,
            Err(why) => {
                tracing::warn!(org = %inbound.org, %why, "a registry was refused");
                Response::Refused(Refusal::Malformed)
            }
        },
        other => keeper.region.server.answer(inbound.from, other).await,
    }
}

/// Publishes what changed.
async fn publish(region: Region, fail: mpsc::Sender<String>) {
    loop {
        let pause = match region.publisher.round().await {
            Ok((_, None)) => PUBLISH_EVERY,
            Ok((_, Some(error))) => {
                tracing::warn!(why = %chain(&error), "a publication waits");
                PUBLISH_AGAIN
            }
            Err(error) => {
                let _stopping = fail.send(format!("publication failed: {}", chain(&error))).await;
                return;
            }
        };
        tokio::select! {
            () = region.publisher.woken() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// Signs checkpoints of the audit log.
async fn checkpoint(trade: Trade, fail: mpsc::Sender<String>) {
    let mut every = tokio::time::interval(CHECKPOINT_EVERY);
    loop {
        every.tick().await;
        let audit = Arc::clone(&trade.audit);
        if let Err(error) = blocking(move || audit.checkpoint()).await {
            tracing::error!(why = %chain(&error), "a checkpoint failed");
            if is_fatal(&error) {
                let _stopping = fail.send(format!("the audit log failed: {}", chain(&error))).await;
                return;
            }
        }
    }
}

/// Tells the index which organisations have a channel.
async fn links(region: Region) {
    let mut known: BTreeMap<OrgId, bool> = BTreeMap::new();
    let mut every = tokio::time::interval(LINKS_EVERY);
    loop {
        every.tick().await;
        let mut now: BTreeMap<OrgId, bool> = BTreeMap::new();
        for peer in region.peers.status().await {
            let up = now.entry(peer.org).or_default();
            *up = *up || peer.connected;
        }
        for (org, up) in &now {
            if known.get(org) != Some(up) {
                tracing::info!(%org, up, "channel");
                if region.index.link(org.clone(), *up).is_err() {
                    return;
                }
            }
        }
        known = now;
    }
}
