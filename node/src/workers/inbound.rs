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
/// Datagrams of one member that wait for the index at the same time: the index takes them in the order of arrival, so
/// that this is what one member can put before all others.
pub const DATAGRAMS_OF_MEMBER_MAX: usize = 4;

/// Turns by member.
struct Turns {
    members: Mutex<BTreeMap<OrgId, Arc<Semaphore>>>,
    each: usize,
}

impl Turns {
    fn new(each: usize) -> Arc<Self> {
        let members = Mutex::default();
        Arc::new(Self { members, each })
    }

    /// Waits for a turn of the member; its requests in flight are bounded, so its queue is.
    async fn take(&self, org: &OrgId) -> Option<OwnedSemaphorePermit> {
        let turns = {
            let mut members = self.members.lock().unwrap_or_else(PoisonError::into_inner);
            let own = || Arc::new(Semaphore::new(self.each));
            Arc::clone(members.entry(org.clone()).or_insert_with(own))
        };
        turns.acquire_owned().await.ok()
    }
}

/// Answers other nodes.
pub(super) async fn answer(keeper: Arc<Keeper>, mut inbound: mpsc::Receiver<InboundRequest>) {
    let (heavy, datagrams) = (Turns::new(HEAVY_OF_MEMBER_MAX), Turns::new(DATAGRAMS_OF_MEMBER_MAX));
    // The channels bound how many there are at the same time, of one member and in all.
    while let Some(request) = inbound.recv().await {
        let keeper = Arc::clone(&keeper);
        let (heavy, datagrams) = (Arc::clone(&heavy), Arc::clone(&datagrams));
        tokio::spawn(async move {
            let response = respond(&keeper, &heavy, &datagrams, &request).await;
            match response.encode() {
                Ok(frame) => {
                    let _gone = request.reply.send(frame);
                }
                Err(error) => tracing::error!(%error, "an answer cannot be encoded"),
            }
        });
    }
}

async fn respond(keeper: &Arc<Keeper>, heavy: &Turns, datagrams: &Turns, inbound: &InboundRequest) -> Response {
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
        Request::Index(message) => {
            let turn = datagrams.take(&inbound.org).await;
            let response = keeper.region.server.answer(inbound.from, Request::Index(message)).await;
            let index = keeper.region.index.clone();
            tokio::spawn(async move {
                // The turn is over when the index has come past the datagram; a stopped index comes past nothing.
                let _stopped = index.passed().await;
                drop(turn);
            });
            response
        }
        other => {
            let _turn = heavy.take(&inbound.org).await;
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
