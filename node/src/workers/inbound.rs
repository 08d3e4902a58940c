//! Requests of other nodes: read, answered, counted. Each member has its own turns, so that one that asks for much
//! work waits for itself and not others for it (SPEC P-BUDGET).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use hie_node_peer::handle::InboundRequest;
use hie_node_peer::ledger::Offence;
use hie_protocol::charter::Handed;
use hie_protocol::id::OrgId;
use hie_protocol::message::{Request, Response};
use hie_protocol::refusal::Refusal;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use crate::registry::Keeper;

/// Evaluations and openings of one member at the same time: they compute and write.
pub const HEAVY_OF_MEMBER_MAX: usize = 4;

/// Turns by member.
#[derive(Default)]
struct Turns(Mutex<BTreeMap<OrgId, Arc<Semaphore>>>);

impl Turns {
    /// Waits for a turn of the member; its requests in flight are bounded, so its queue is.
    async fn take(&self, org: &OrgId) -> Option<OwnedSemaphorePermit> {
        let turns = {
            let mut members = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let own = || Arc::new(Semaphore::new(HEAVY_OF_MEMBER_MAX));
            Arc::clone(members.entry(org.clone()).or_insert_with(own))
        };
        turns.acquire_owned().await.ok()
    }
}

/// Answers other nodes.
pub(super) async fn answer(keeper: Arc<Keeper>, mut inbound: mpsc::Receiver<InboundRequest>) {
    let turns = Arc::new(Turns::default());
    // The channels bound how many there are at the same time, of one member and in all.
    while let Some(request) = inbound.recv().await {
        let (keeper, turns) = (Arc::clone(&keeper), Arc::clone(&turns));
        tokio::spawn(async move {
            let response = respond(&keeper, &turns, &request).await;
            match response.encode() {
                Ok(frame) => {
                    let _gone = request.reply.send(frame);
                }
                Err(error) => tracing::error!(%error, "an answer cannot be encoded"),
            }
        });
    }
}

async fn respond(keeper: &Arc<Keeper>, turns: &Turns, inbound: &InboundRequest) -> Response {
    let count = |offence| {
        let ledger = keeper.region.peers.ledger();
        ledger.count(&inbound.org, offence, keeper.trade.clock.now());
    };
    let request = match Request::decode(&inbound.frame) {
        Ok(request) => request,
        Err(error) => {
            tracing::warn!(org = %inbound.org, %error, "a malformed request");
            count(Offence::Malformed);
            return Response::Refused(Refusal::Malformed);
        }
    };
    if request.since() > inbound.version {
        tracing::warn!(org = %inbound.org, "a message of a version that the channel does not speak");
        count(Offence::Version);
        return Response::Refused(Refusal::Version);
    }
    match request {
        Request::Registry { have } => keeper.next(have).await,
        Request::RegistryPush { signed, approvals } => {
            if keeper.pushed(inbound.from, Handed { signed, approvals }).await {
                Response::Taken
            } else {
                count(Offence::Registry);
                Response::Refused(Refusal::Malformed)
            }
        }
        _ if !keeper.is_open() => Response::Refused(Refusal::Busy),
        other => {
            let heavy = matches!(other, Request::Evaluate { .. } | Request::Open(_));
            let _turn = if heavy { turns.take(&inbound.org).await } else { None };
            let response = keeper.region.server.answer(inbound.from, other).await;
            if let Response::Refused(refusal) = &response {
                offence_of(*refusal).into_iter().for_each(count);
            }
            response
        }
    }
}

/// What a refusal says of the member that got it.
const fn offence_of(refusal: Refusal) -> Option<Offence> {
    match refusal {
        Refusal::Malformed => Some(Offence::Malformed),
        Refusal::Version => Some(Offence::Version),
        Refusal::Claim => Some(Offence::Claim),
        Refusal::Budget => Some(Offence::Budget),
        Refusal::NothingHere | Refusal::NotOffered | Refusal::Busy | Refusal::Failed => None,
    }
}
