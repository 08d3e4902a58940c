//! Background work of a running node: other nodes' requests, publication, checkpoints, registry, links.
//!
//! Each worker has a name. A worker that meets a failure after which nothing may be acknowledged ends the process.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use hie_node_core::audit::log::is_fatal;
use hie_node_core::locator::driver::IndexError;
use hie_node_core::ports::{SigningGate as _, blocking};
use hie_node_peer::handle::InboundRequest;
use hie_protocol::id::{NodeKey, OrgId};
use hie_protocol::message::{Request, Response};
use hie_protocol::version::ProtocolVersion;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::assemble::{Region, Trade};
use crate::clock::Skew;
use crate::fault::{Outcome, chain};
use crate::home::Home;
use crate::join::Membership;
use crate::registry::{self, Keeper};
use crate::renew;

mod conduct;
mod inbound;

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

/// How often the clock is compared with those of other members.
pub const CLOCKS_EVERY: Duration = Duration::from_secs(30);
/// Most nodes whose clocks are asked at a time.
pub const CLOCKS_MAX: usize = 16;
/// How long after the start a member that was never reached is not yet taken for unreachable.
pub const LINKS_START: Duration = Duration::from_secs(3);

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
pub async fn start(
    home: &Home,
    trade: &Trade,
    region: &Region,
    membership: &Membership,
    requests: mpsc::Receiver<InboundRequest>,
    driver: JoinHandle<Result<(), IndexError>>,
) -> Outcome<(Workers, impl Future<Output = String> + use<>)> {
    let (fail, failed) = mpsc::channel::<String>(8);
    let mut tasks = JoinSet::new();
    let keeper = Arc::new(Keeper::new(home, trade, region, membership)?);
    tasks.spawn(inbound::answer(Arc::clone(&keeper), requests));
    tasks.spawn(conduct::report(trade.clone(), region.clone()));
    // Members are answered about the registry from here on; nobody else before it has been compared.
    keeper.compare().await?;
    keeper.open();
    tasks.spawn(renew::worker(renew::Renewer::new(home, trade, region, membership)?));
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
    tasks.spawn(clocks(region.clone(), trade.clone()));
    tasks.spawn(registry::follow(Arc::clone(&keeper)));
    tasks.spawn(registry::pull(keeper));
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

/// Publishes what changed.
async fn publish(region: Region, fail: mpsc::Sender<String>) {
    loop {
        if region.board.off_ms().is_some() {
            tracing::error!("nothing is published while this node's clock is off; set it by NTP");
            tokio::time::sleep(PUBLISH_EVERY).await;
            continue;
        }
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

/// Compares this node's clock with those of the connected members.
async fn clocks(region: Region, trade: Trade) {
    let mut every = tokio::time::interval(CLOCKS_EVERY);
    let mut warned = false;
    loop {
        every.tick().await;
        let up = region.peers.status().await.into_iter().filter(|peer| peer.connected);
        let asked = up.take(CLOCKS_MAX).map(|peer| {
            let (region, trade) = (region.clone(), trade.clone());
            async move { Some((peer.org, clock_difference(&region, &trade, peer.node).await?)) }
        });
        let heard = futures::future::join_all(asked).await;
        // One difference for each member, however many nodes it has.
        let by_member: BTreeMap<OrgId, i64> = heard.into_iter().flatten().collect();
        let skew = Skew::of(by_member.into_values().collect());
        region.board.set_skew(skew);
        if let Some(words) = skew.words() {
            tracing::warn!(difference_ms = skew.median_ms, members = skew.members, "{words}");
            warned = true;
        } else if warned {
            tracing::info!(difference_ms = skew.median_ms, "the clock of this node is right again");
            warned = false;
        }
    }
}

/// Their clock less this one, in milliseconds, half of the round trip allowed for.
async fn clock_difference(region: &Region, trade: &Trade, node: NodeKey) -> Option<i64> {
    let sent = trade.clock.now();
    let hello = Request::Hello {
        versions: region.peers.versions().to_vec(),
        registry: trade.registry.borrow().version,
        clock: sent,
    };
    let frame = hello.encode().ok()?;
    let answer = region
        .peers
        .request(node, frame, crate::wire::REQUEST_DEADLINE)
        .await
        .ok()?;
    let Response::Hello { clock, .. } = Response::decode(&answer).ok()? else {
        return None;
    };
    let middle = sent.plus(trade.clock.now().since(sent) / 2);
    let (theirs, mine) = (i64::try_from(clock.0).ok()?, i64::try_from(middle.0).ok()?);
    Some(theirs.saturating_sub(mine))
}

/// Tells the index which organisations can be talked to: a channel is up, and the member shows signs of life.
async fn links(region: Region) {
    let mut known: BTreeMap<OrgId, bool> = BTreeMap::new();
    let mut spoken: BTreeMap<OrgId, ProtocolVersion> = BTreeMap::new();
    let mut every = tokio::time::interval(LINKS_EVERY);
    let mut absent = region.attention.absent();
    let started = Instant::now();
    loop {
        tokio::select! {
            _ = every.tick() => {}
            Ok(()) = absent.changed() => {}
        }
        let without_life = Arc::clone(&absent.borrow_and_update());
        let mut now: BTreeMap<OrgId, bool> = BTreeMap::new();
        let mut speak: BTreeMap<OrgId, ProtocolVersion> = BTreeMap::new();
        for peer in region.peers.status().await {
            if let Some(version) = peer.version {
                // Of several nodes of a member the newest is asked.
                let spoken = speak.entry(peer.org.clone()).or_insert(version);
                *spoken = version.max(*spoken);
            }
            let connected = peer.connected && !without_life.contains(&peer.org);
            let up = now.entry(peer.org).or_default();
            *up = *up || connected;
        }
        // Who was not up yet may still be dialled for the first time.
        let starting = started.elapsed() < LINKS_START;
        now.retain(|org, up| *up || known.contains_key(org) || !starting);
        for (org, up) in &now {
            if known.get(org) != Some(up) {
                tracing::info!(%org, up, "channel");
                if region.index.link(org.clone(), *up).is_err() {
                    return;
                }
            }
        }
        known = now;
        for (org, version) in speak {
            if spoken.get(&org) != Some(&version) && region.index.speaks(org.clone(), version).is_err() {
                return;
            }
            spoken.insert(org, version);
        }
    }
}
