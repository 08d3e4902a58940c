//! This node's part in the token keys, kept in the background: fetch shares from the region office, take part in
//! resharings, publish the population under a new key, and tell the office where it stands.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use hie_node_core::exchange::authority::{Authority, authorities};
use hie_node_core::exchange::keyring::Keyring;
use hie_node_core::exchange::reshare::{ReshareError, Seat, Seated};
use hie_node_core::exchange::watch::Watch;
use hie_node_core::locator::retoken::{Progress, Retoken};
use hie_node_core::ports::blocking;
use hie_protocol::bytes::Bytes;
use hie_protocol::cbor;
use hie_protocol::id::{OrgId, PublicKey};
use hie_protocol::office::{DealerDigest, HeldShare, REPORT_BYTES_MAX, SeatReport, TokenOrders, TokenReport};
use hie_protocol::oprf::key::KeyShare;
use hie_protocol::registry::Registry;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::assemble::{Region, Trade};
use crate::fault::{Exit, Fault, Outcome, chain};
use crate::home::Home;
use crate::join::{authority_client, body};

/// How often the node looks whether there is something to do.
pub const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Looks between two reports to the office when nothing changed.
pub const LOOKS_PER_REPORT: u32 = 300;
/// Looks before the office is tried again after it failed.
pub const LOOKS_AFTER_FAILURE: u32 = 5;

/// The token side of a running node.
#[derive(Clone)]
pub struct TokenSide {
    /// Shares.
    pub keyring: Arc<Keyring>,
    /// The authority over them.
    pub authority: Arc<Authority>,
    /// Who lied and who asks too much.
    pub watch: Arc<Watch>,
    /// Resharing.
    pub seat: Arc<Seat>,
    /// The walk over the own population.
    pub retoken: Retoken,
}

/// Takes the share that joining brought into the keyring; its file goes when the store has it.
pub fn import_share(home: &Home, keyring: &Keyring, registry: &Registry, me: &OrgId) -> Outcome<()> {
    let path = home.token_share();
    if !path.exists() {
        return Ok(());
    }
    let fix = "Restore secrets/token.share.";
    let share = read_share(&path, fix)?;
    let point = PublicKey::new(*share.public().point());
    let tokens = &registry.policy.tokens;
    let mut epochs = core::iter::once(tokens.epoch).chain(tokens.beside.iter().map(|beside| beside.epoch));
    let epoch = epochs.rfind(|epoch| {
        authorities(registry, *epoch).is_some_and(|(_, entries)| {
            entries
                .iter()
                .any(|entry| entry.org == *me && entry.index == share.index() && entry.point == point)
        })
    });
    let Some(epoch) = epoch else {
        tracing::warn!("the share in secrets/token.share is not the registry's; it is left alone");
        return Ok(());
    };
    keyring.add(epoch, 0, share).map_err(Fault::because(
        Exit::Integrity,
        "The token share cannot be kept.",
        "Check the disk.",
    ))?;
    std::fs::remove_file(&path).map_err(Fault::because(
        Exit::Failed,
        "The file of the token share cannot be removed.",
        "Remove secrets/token.share: the store has the share.",
    ))
}

fn read_share(path: &Path, fix: &str) -> Outcome<KeyShare> {
    let text =
        std::fs::read_to_string(path).map_err(Fault::because(Exit::Config, "The token share cannot be read.", fix))?;
    let bytes =
        hex::decode(text.trim()).map_err(Fault::because(Exit::Config, "The token share cannot be read.", fix))?;
    KeyShare::from_bytes(&bytes).map_err(Fault::because(Exit::Config, "The token share cannot be used.", fix))
}

/// What the office heard last.
#[derive(PartialEq)]
struct Told {
    version: u64,
    published: Vec<u32>,
    held: Vec<HeldShare>,
    seat: Option<SeatReport>,
    lied: Option<OrgId>,
}

/// Keeps the token keys, for as long as the node runs.
pub async fn keep(trade: Trade, region: Region, root: [u8; 32], office: String, fail: mpsc::Sender<String>) {
    let client = match authority_client(root) {
        Ok(client) => client,
        Err(fault) => {
            tracing::error!(what = %fault.what, why = %fault.why, "the token keys are not kept");
            return;
        }
    };
    let mut every = tokio::time::interval(LOOK_EVERY);
    let mut told: Option<Told> = None;
    let mut looks_left = 0_u32;
    let mut in_vain = false;
    loop {
        every.tick().await;
        let progress = match walk(&region).await {
            Ok(progress) => progress,
            Err(why) => {
                let _stopping = fail.send(why).await;
                return;
            }
        };
        let (seat, lied) = match region.tokens.seat.step().await {
            Ok(seat) => (seat, None),
            Err(ReshareError::Lied(org)) => (None, Some(org)),
            Err(error) => {
                tracing::debug!(why = %chain(&error), "a resharing waits");
                (None, None)
            }
        };
        let now = standing(&trade, &region, progress.as_ref(), seat, lied);
        looks_left = looks_left.saturating_sub(1);
        let changed = told.as_ref() != Some(&now) || lacks(&trade, &region);
        if looks_left > 0 && (in_vain || !changed) {
            continue;
        }
        in_vain = match report(&client, &office, &trade, &region, &now).await {
            Ok(()) => {
                told = Some(now);
                lacks(&trade, &region)
            }
            Err(fault) => {
                tracing::debug!(why = %fault.why, "the region office does not take the report");
                true
            }
        };
        looks_left = if in_vain { LOOKS_AFTER_FAILURE } else { LOOKS_PER_REPORT };
    }
}

/// One look of the walk: as far as it comes without waiting. Errors: why the node must stop.
async fn walk(region: &Region) -> Result<Option<Progress>, String> {
    loop {
        let retoken = region.tokens.retoken.clone();
        match blocking(move || retoken.step()).await {
            Ok((_, true)) => region.publisher.wake(),
            Ok((progress, false)) => return Ok(Some(progress)),
            Err(error) if error.is_fatal() => return Err(format!("the walk failed: {}", chain(&error))),
            Err(error) => {
                tracing::warn!(why = %chain(&error), "the walk under a new token key waits");
                return Ok(None);
            }
        }
    }
}

fn standing(
    trade: &Trade,
    region: &Region,
    progress: Option<&Progress>,
    seat: Option<Seated>,
    lied: Option<OrgId>,
) -> Told {
    let keyring = &region.tokens.keyring;
    let held = keyring.names().into_iter().filter_map(|name| {
        let share = keyring.share(name)?;
        Some(HeldShare {
            epoch: name.epoch,
            index: name.index,
            point: PublicKey::new(*share.public().point()),
        })
    });
    Told {
        version: trade.registry.borrow().version,
        published: progress
            .filter(|progress| progress.done)
            .map(|progress| progress.epochs.iter().copied().collect())
            .unwrap_or_default(),
        held: held.collect(),
        seat: seat.map(|seat| SeatReport {
            generation: seat.generation,
            index: seat.index,
            point: seat.point,
            commitments: seat
                .commitments
                .into_iter()
                .map(|(dealer, digest)| DealerDigest {
                    dealer,
                    digest: Bytes(digest.to_vec()),
                })
                .collect(),
        }),
        lied,
    }
}

/// Whether the registry seats this organisation with a share that is not held.
fn lacks(trade: &Trade, region: &Region) -> bool {
    let registry = trade.registry.borrow();
    let tokens = &registry.policy.tokens;
    let epochs = core::iter::once(tokens.epoch).chain(tokens.beside.iter().map(|beside| beside.epoch));
    let mut entries = epochs.flat_map(|epoch| {
        let entries = authorities(&registry, epoch).map_or(&[][..], |(_, entries)| entries);
        entries.iter().map(move |entry| (epoch, entry))
    });
    entries.any(|(epoch, entry)| {
        entry.org == trade.me && region.tokens.keyring.find(epoch, entry.index, &entry.point).is_none()
    })
}

async fn report(client: &reqwest::Client, office: &str, trade: &Trade, region: &Region, now: &Told) -> Outcome<()> {
    let what = "The region office does not take the report.";
    let fix = "It is tried again by itself.";
    let report = TokenReport {
        org: trade.me.clone(),
        at: trade.clock.now(),
        published: now.published.clone(),
        held: now.held.clone(),
        seat: now.seat.clone(),
        lied: now.lied.clone(),
    };
    let signed = report
        .sign(&trade.signer)
        .map_err(Fault::because(Exit::Failed, what, fix))?;
    let sent = client.post(format!("https://{office}/hie/tokens")).body(signed).send();
    let answer = sent.await.map_err(Fault::because(Exit::Unreachable, what, fix))?;
    if !answer.status().is_success() {
        let why = format!("it answered {}", answer.status());
        return Err(Fault::new(Exit::Refused, what, why, fix));
    }
    let orders: TokenOrders =
        cbor::decode(&body(answer).await?, REPORT_BYTES_MAX).map_err(Fault::because(Exit::Refused, what, fix))?;
    for dealt in orders.shares {
        let share = KeyShare::from_bytes(&dealt.share.0).map_err(Fault::because(Exit::Refused, what, fix))?;
        let point = PublicKey::new(*share.public().point());
        let registry = Arc::clone(&trade.registry.borrow());
        let ours = authorities(&registry, dealt.epoch).is_some_and(|(_, entries)| {
            entries
                .iter()
                .any(|entry| entry.org == trade.me && entry.index == share.index() && entry.point == point)
        });
        if ours {
            let keyring = Arc::clone(&region.tokens.keyring);
            let kept = blocking(move || keyring.add(dealt.epoch, 0, share)).await;
            kept.map_err(Fault::because(Exit::Failed, "A token share cannot be kept.", fix))?;
            tracing::info!(epoch = dealt.epoch, "share of a new token key");
        }
    }
    Ok(())
}

/// The token keys as `hie status` shows them.
pub fn status(trade: &Trade, region: &Region) -> Value {
    let registry = trade.registry.borrow();
    let tokens = &registry.policy.tokens;
    let progress = region.tokens.retoken.progress().ok().flatten();
    let publication = progress.map(|progress| {
        json!({
            "epochs": progress.epochs, "done": progress.done, "percent_marked": progress.percent(), "marked": progress.marked,
        })
    });
    let liars: Vec<Value> = region
        .tokens
        .watch
        .liars()
        .into_iter()
        .map(|(org, lie)| json!({ "organisation": org.as_str(), "times": lie.times, "why": lie.why }))
        .collect();
    let (alarms, total) = region.tokens.watch.alarms();
    let alarms: Vec<Value> = alarms
        .iter()
        .map(|alarm| json!({ "organisation": alarm.org.as_str(), "at": crate::moment::write_fhir(alarm.at), "words": alarm.words }))
        .collect();
    let shares: Vec<Value> = region
        .tokens
        .keyring
        .names()
        .into_iter()
        .map(|name| json!({ "epoch": name.epoch, "index": name.index, "generation": name.generation }))
        .collect();
    json!({
        "epoch": tokens.epoch, "threshold": tokens.threshold, "authorities": tokens.authorities.len(),
        "beside": tokens.beside.as_ref().map(|beside| beside.epoch),
        "resharing": tokens.resharing.as_ref().map(|resharing| resharing.generation),
        "publication": publication, "shares": shares, "misbehaved": liars, "alarms": alarms, "alarms_total": total,
    })
}

/// What somebody must look at, in words.
pub fn words(registry: &Registry, watch: &Watch) -> Vec<String> {
    let name = |org: &OrgId| {
        registry
            .member(org)
            .map_or_else(|| org.to_string(), |member| member.name.clone())
    };
    let mut words: Vec<String> = watch
        .liars()
        .into_iter()
        .map(|(org, lie)| {
            format!(
                "The node of {} gave {} answer(s) about match tokens that its own proof shows to be wrong ({}). Tell \
                 the region office.",
                name(&org),
                lie.times,
                lie.why
            )
        })
        .collect();
    let (alarms, _) = watch.alarms();
    words.extend(alarms.last().map(|alarm| {
        format!(
            "{} asks for unusually many match tokens: {}. The access log shows who. Call their privacy office.",
            name(&alarm.org),
            alarm.words
        )
    }));
    let tokens = &registry.policy.tokens;
    if tokens.authorities.len() < usize::from(tokens.threshold) {
        words.push(format!(
            "The region has {} of the {} token authorities that a question needs: nobody is found in other \
             organisations before more have joined.",
            tokens.authorities.len(),
            tokens.threshold
        ));
    }
    words
}
