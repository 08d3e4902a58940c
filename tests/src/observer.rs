//! A member that only looks: it joins as any other, holds no index, and asks each index holder by itself what it has.
//! What it sees owes nothing to what owners and holders say about their own progress.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hie::assemble::{self, Region, Trade};
use hie::config::Config;
use hie::home::Home;
use hie::order::{Line, Order};
use hie_node_core::exchange::claim::Asking;
use hie_node_core::locator::build::open_pointer;
use hie_node_core::locator::tokens::Output;
use hie_node_core::patient::normalise::normalise;
use hie_node_core::patient::tokens;
use hie_node_federation::placement::HolderSet;
use hie_node_peer::handle::InboundRequest;
use hie_protocol::id::{Correlation, IndexKey, Millis, NodeKey, OrgId};
use hie_protocol::message::{Demographics, IndexMessage, LOOKUP_KEYS_MAX, Request, Response};
use hie_protocol::oprf::derive;
use hie_protocol::record::{IndexRecord, SignedRecord, VerifiedRecord};
use hie_protocol::refusal::Refusal;
use hie_protocol::vocabulary::{Purpose, Role};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot};

use crate::stage::Outcome;

/// Longest wait for one holder.
const HOLDER_DEADLINE: Duration = Duration::from_secs(2);

/// What one holder has under some keys, in their order, and whether it says that this is all.
pub type Held = (Vec<Vec<SignedRecord>>, bool);

type Waiting = Arc<Mutex<HashMap<u64, oneshot::Sender<Held>>>>;

/// The member.
pub struct Observer {
    trade: Trade,
    region: Region,
    set: HolderSet,
    nodes: BTreeMap<OrgId, NodeKey>,
    waiting: Waiting,
    next: AtomicU64,
}

impl Observer {
    /// Opens the home of a member that has joined and does not run.
    pub async fn open(home: &Path) -> Outcome<Self> {
        let told = |fault: hie::fault::Fault| format!("the observer cannot start: {} {}", fault.what, fault.why);
        let home = Home::at(home);
        let config = Config::load(&home).map_err(told)?;
        let (trade, announce) = assemble::trade(&home, &config).map_err(told)?;
        let (region, running) = assemble::region(&home, &config, &trade, announce).await.map_err(told)?;
        let registry = Arc::clone(&trade.registry.borrow());
        let nodes = registry
            .active()
            .filter_map(|member| Some((member.org.clone(), member.nodes.first()?.key)))
            .collect();
        let waiting = Waiting::default();
        tokio::spawn(receive(running.inbound, region.clone(), Arc::clone(&waiting)));
        crate::region::until("the observer is connected with every member", || async {
            let peers = region.peers.status().await;
            peers.iter().all(|peer| peer.connected).then_some(())
        })
        .await;
        Ok(Self {
            set: HolderSet::of(&registry, Millis(0)),
            trade,
            region,
            nodes,
            waiting,
            // Far from the questions of its own index.
            next: AtomicU64::new(u64::MAX / 2),
        })
    }

    /// The tokens under which a person is published, as outputs of the oblivious function.
    pub async fn outputs(&self, person: &Demographics) -> Outcome<Vec<Output>> {
        let epoch = self.trade.registry.borrow().policy.tokens.epoch;
        let inputs = tokens::publish(&normalise(person), epoch);
        let inputs = inputs.into_iter().map(|token| token.input.into_bytes()).collect();
        Ok(self
            .region
            .finder
            .tokens
            .evaluate(&asking(Purpose::Operations, Role::System)?, epoch, inputs)
            .await?)
    }

    /// Who holds a key.
    #[must_use]
    pub fn holders(&self, key: &IndexKey) -> Vec<OrgId> {
        self.set.place(key)
    }

    /// What a holder has under at most [`LOOKUP_KEYS_MAX`] keys; none when it does not answer.
    pub async fn held(&self, holder: &OrgId, keys: &[IndexKey]) -> Option<Held> {
        let node = *self.nodes.get(holder)?;
        let keys: Vec<IndexKey> = keys.iter().take(LOOKUP_KEYS_MAX).copied().collect();
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (sender, answer) = oneshot::channel();
        self.waiting
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(id, sender);
        let frame = Request::Index(IndexMessage::Lookup { id, keys, after: None })
            .encode()
            .ok()?;
        let asked = async {
            self.region.peers.request(node, frame, HOLDER_DEADLINE).await.ok()?;
            answer.await.ok()
        };
        let held = tokio::time::timeout(HOLDER_DEADLINE, asked).await.ok().flatten();
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
        held
    }

    /// The record of an owner among what a holder has, if it is a live one.
    #[must_use]
    pub fn of_owner(&self, records: &[SignedRecord], owner: &OrgId) -> Option<IndexRecord> {
        let registry = Arc::clone(&self.trade.registry.borrow());
        let verified = records
            .iter()
            .filter_map(|signed| VerifiedRecord::verify(signed, &registry).ok());
        let mut live = verified
            .map(|verified| verified.record().clone())
            .filter(|record| !record.is_tombstone());
        live.find(|record| record.owner == *owner)
    }

    /// The key of the locators that a pointer leads to.
    #[must_use]
    pub fn locators(output: &Output, pointer: &IndexRecord) -> Option<IndexKey> {
        let secret = open_pointer(output, pointer)?;
        let record_key: [u8; 32] = secret.record_key.as_slice().try_into().ok()?;
        Some(IndexKey::new(derive::locator_key(&record_key)))
    }

    /// Whether a question about a person leads to an organisation, with nobody of the index silent.
    pub async fn finds(&self, person: &Demographics, org: &OrgId) -> Outcome<bool> {
        let found = self
            .region
            .finder
            .find(&asking(Purpose::Treatment, Role::Physician)?, person)
            .await?;
        Ok(found.silent.is_empty() && found.custodians.contains_key(org))
    }

    /// Ends the channels.
    pub async fn close(self) {
        self.region.peers.shutdown().await;
        let _ended = self.region.index.stop();
    }
}

fn asking(purpose: Purpose, role: Role) -> Outcome<Asking> {
    let mut name = [0; 16];
    ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut name).map_err(|_| "no random numbers")?;
    Ok(Asking::system(purpose, role, Correlation::new(name)))
}

/// Takes answers to the observer's own questions; all else goes to its index, as in any member.
async fn receive(mut inbound: mpsc::Receiver<InboundRequest>, region: Region, waiting: Waiting) {
    while let Some(request) = inbound.recv().await {
        let answer = match Request::decode(&request.frame) {
            Ok(Request::Index(IndexMessage::Found {
                id,
                records,
                whole,
                next,
            })) => {
                let own = waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
                if let Some(own) = own {
                    // Whoever asked may have given up.
                    let _gone = own.send((records, whole));
                } else {
                    let message = IndexMessage::Found {
                        id,
                        records,
                        whole,
                        next,
                    };
                    let _full = region.index.received(request.org.clone(), message);
                }
                Response::Taken
            }
            Ok(Request::Index(message)) => {
                let _full = region.index.received(request.org.clone(), message);
                Response::Taken
            }
            Ok(Request::RegistryPush { .. }) => Response::Taken,
            Ok(Request::Registry { .. }) => Response::Registry {
                signed: None,
                approvals: Vec::new(),
            },
            _ => Response::Refused(Refusal::NotOffered),
        };
        if let Ok(frame) = answer.encode() {
            let _gone = request.reply.send(frame);
        }
    }
}

/// Gives a running node an order over its socket and waits until it is carried out.
pub async fn order(home: &Path, order: &Order) -> Outcome<()> {
    let (read, mut write) = UnixStream::connect(Home::at(home).socket()).await?.into_split();
    let mut bytes = serde_json::to_vec(order)?;
    bytes.push(b'\n');
    write.write_all(&bytes).await?;
    let mut lines = BufReader::new(read).lines();
    while let Some(text) = lines.next_line().await? {
        match serde_json::from_str(&text)? {
            Line::Done { exit: 0 } => return Ok(()),
            Line::Done { exit } => return Err(format!("the order ended with {exit}").into()),
            Line::Fault { what, why, .. } => return Err(format!("{what} {why}").into()),
            _ => {}
        }
    }
    Err("the node's answer broke off".into())
}
