//! The registry in force at a node: kept durably, replaced only by what [`Held::judge`] accepts, passed on to others.
//!
//! ```text
//! identity/registry.cbor   the registry with its approvals, the floor, and the hand-overs between officers
//! data/registry.mark       highest version, latest time and hash ever in force here, beside the store
//! ```
//!
//! The registry is written before the mark. A registry behind the mark was restored: the node asks the authority and
//! the members, and does not serve before it has at least what the mark names (SPEC P-REG).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hie_node_core::ports::blocking;
use hie_node_peer::handle::Peers;
use hie_node_pki::membership::Membership as MemberCertificates;
use hie_protocol::bytes::Bytes;
use hie_protocol::cbor;
use hie_protocol::charter::{Handed, Held, Verdict};
use hie_protocol::id::{ContentHash, Millis, NodeKey};
use hie_protocol::message::{Request, Response};
use hie_protocol::registry::{REGISTRY_BYTES_MAX, Registry, RegistryError};
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

use crate::assemble::{Region, Trade};
use crate::authority::LINKS_MAX;
use crate::authority::enrol::sha256;
use crate::board::Board;
use crate::fault::{Exit, Fault, Outcome, chain};
use crate::home::{Home, write_private};
use crate::join::{Membership, Patience, authority_client, newer_registry, root_public};

/// Largest file of the registry with its hand-overs, in bytes.
pub const KEPT_BYTES_MAX: usize = 64 * REGISTRY_BYTES_MAX;
/// Pause after the authority could not be reached.
pub const REGISTRY_AGAIN: Duration = Duration::from_secs(5);
/// How often a member is asked for a newer registry, one after the other: whom no push reached is at most this late.
pub const PULL_EVERY: Duration = Duration::from_secs(15);
/// Longest comparison with the members before a node serves.
pub const COMPARE_MAX: Duration = Duration::from_secs(2);
/// Longest wait for the authority before a node serves.
pub const COMPARE_AUTHORITY_MAX: Duration = Duration::from_secs(2);
/// Most registries taken from one source in a row: every hand-over, and the latest.
pub const PULL_MAX: usize = LINKS_MAX + 1;

/// The registry as a node keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Kept {
    /// The one in force.
    pub handed: Handed,
    /// Approvals count only when their lowest version is above this.
    pub floor: u64,
    /// Registries in which the officers changed, with their versions, oldest first.
    pub links: Vec<(u64, Handed)>,
}

impl Kept {
    /// Reads the file; what `hie join` wrote is the signed registry alone.
    fn read(bytes: Vec<u8>) -> Self {
        cbor::decode(&bytes, KEPT_BYTES_MAX).unwrap_or_else(|_| Self {
            handed: Handed {
                signed: Bytes(bytes),
                approvals: Vec::new(),
            },
            floor: 0,
            links: Vec::new(),
        })
    }

    /// What a member who has that version is given, when `version` is in force here.
    fn next(&self, have: u64, version: u64) -> Option<Handed> {
        if version <= have {
            return None;
        }
        let link = self.links.iter().find(|(version, _)| *version > have);
        Some(link.map_or_else(|| self.handed.clone(), |(_, handed)| handed.clone()))
    }
}

/// What was in force here at the latest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// Version.
    pub version: u64,
    /// Time of signing.
    pub issued: Millis,
    /// SHA-256 of the signed registry.
    pub hash: ContentHash,
}

impl Mark {
    fn of(registry: &Registry, signed: &[u8]) -> Self {
        Self {
            version: registry.version,
            issued: registry.issued,
            hash: sha256(signed),
        }
    }

    fn load(home: &Home) -> Outcome<Option<Self>> {
        let path = home.registry_mark();
        if !path.exists() {
            return Ok(None);
        }
        let fix = "Restore data/registry.mark, or ask the region office.";
        let what = "The mark of the registry cannot be read.";
        let bytes = std::fs::read(&path).map_err(Fault::because(Exit::Integrity, what, fix))?;
        cbor::decode(&bytes, 1024)
            .map(Some)
            .map_err(Fault::because(Exit::Integrity, what, fix))
    }

    fn save(&self, home: &Home) -> Result<(), String> {
        let bytes = cbor::encode(self).map_err(|error| chain(&error))?;
        write_private(&home.registry_mark(), &bytes).map_err(|error| error.to_string())
    }

    /// Whether this registry is one that was in force later than, or other than, the one at hand.
    #[must_use]
    pub fn forbids(&self, registry: &Registry, signed: &[u8]) -> bool {
        registry.version < self.version
            || registry.issued < self.issued
            || (registry.version == self.version && sha256(signed) != self.hash)
    }
}

/// The registry that was last taken, verified against the region's root, with what is kept beside it.
pub fn load(home: &Home, root: &[u8]) -> Outcome<(Registry, Kept)> {
    let fix = "Run `hie join` again with a new invitation.";
    let bytes =
        std::fs::read(home.registry()).map_err(Fault::because(Exit::Config, "The registry cannot be read.", fix))?;
    let kept = Kept::read(bytes);
    let registry = Registry::verify(&kept.handed.signed.0, root_public(root)?, None).map_err(Fault::because(
        Exit::Refused,
        "The registry is not trusted.",
        fix,
    ))?;
    Ok((registry, kept))
}

/// Takes newer registries, from the authority and from members.
pub struct Keeper {
    /// The node's folder.
    pub home: Home,
    /// The trade.
    pub trade: Trade,
    /// The region.
    pub region: Region,
    root: [u8; 32],
    authority: String,
    // INVARIANT: held while a registry is judged, written and put in force, so that one is taken at a time.
    kept: Mutex<Kept>,
    open: AtomicBool,
}

impl Keeper {
    /// Over a node's parts.
    pub fn new(home: &Home, trade: &Trade, region: &Region, membership: &Membership) -> Outcome<Self> {
        let held = Arc::clone(&trade.registry.borrow());
        let (_, kept) = load(home, &held.root)?;
        Ok(Self {
            home: home.clone(),
            trade: trade.clone(),
            region: region.clone(),
            root: membership.fingerprint()?,
            authority: membership.authority.clone(),
            kept: Mutex::new(kept),
            open: AtomicBool::new(false),
        })
    }

    /// The registry has been compared: whatever members ask is answered from now on.
    pub fn open(&self) {
        self.open.store(true, Ordering::Release);
    }

    /// Whether more than the registry is answered.
    pub fn is_open(&self) -> bool {
        self.open.load(Ordering::Acquire)
    }

    fn board(&self) -> &Board {
        &self.region.board
    }

    /// Takes a registry if it is newer: durable first, then certificates, then the index and everybody else.
    pub async fn take(&self, offered: &Handed) -> Result<bool, RegistryRefused> {
        let mut kept = self.kept.lock().await;
        let held = Arc::clone(&self.trade.registry.borrow());
        let root = root_public(&held.root).map_err(|fault| RegistryRefused::Broken(fault.what))?;
        let judge = Held {
            registry: &held,
            floor: kept.floor,
        };
        let (registry, floor, hand_over) = match judge.judge(offered, root) {
            Ok(Verdict::Same) => return Ok(false),
            Ok(Verdict::Newer {
                registry,
                floor,
                hand_over,
            }) => (*registry, floor, hand_over),
            Err(error) => {
                if matches!(error, RegistryError::Equivocation { .. }) {
                    self.testify(&kept.handed, offered, held.version);
                }
                return Err(RegistryRefused::Refused(error));
            }
        };
        let members =
            MemberCertificates::from_registry(&registry).map_err(|error| RegistryRefused::Broken(chain(&error)))?;
        let mut next = kept.clone();
        next.handed.signed = offered.signed.clone();
        if hand_over || !offered.approvals.is_empty() {
            next.handed.approvals.clone_from(&offered.approvals);
        }
        next.floor = floor;
        if hand_over {
            next.links.push((registry.version, next.handed.clone()));
            let over = next.links.len().saturating_sub(LINKS_MAX);
            next.links.drain(..over);
        }
        self.write(&next, &registry).await?;
        *kept = next;
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
        let stopped = self.region.index.registry(registry);
        stopped.map_err(|error| RegistryRefused::Broken(chain(&error)))?;
        self.region.publisher.wake();
        self.board().registry_taken();
        Ok(true)
    }

    /// Writes the registry, then the mark.
    async fn write(&self, kept: &Kept, registry: &Registry) -> Result<(), RegistryRefused> {
        let bytes = cbor::encode(kept).map_err(|error| RegistryRefused::Broken(chain(&error)))?;
        let mark = Mark::of(registry, &kept.handed.signed.0);
        let home = self.home.clone();
        let written = blocking(move || {
            write_private(&home.registry(), &bytes).map_err(|error| error.to_string())?;
            mark.save(&home)
        });
        let written = written.await;
        written.map_err(|error| RegistryRefused::Broken(format!("the registry cannot be stored: {error}")))
    }

    /// Keeps both registries of one version: the proof that the office signed two.
    fn testify(&self, held: &Handed, offered: &Handed, version: u64) {
        self.board().equivocation(version);
        let path = self.home.identity().join(format!("equivocation-{version}.cbor"));
        let both = cbor::encode(&(held, offered)).map_err(|error| error.to_string());
        let written = both.and_then(|bytes| write_private(&path, &bytes).map_err(|error| error.to_string()));
        tracing::error!(
            version,
            proof = %path.display(),
            written = written.is_ok(),
            "ALARM: the region authority signed two different registries of one version; the second is refused"
        );
    }

    /// Says a refusal where it belongs: a rollback is what a late member offers, the rest needs somebody.
    fn refused(&self, from: &str, refused: &RegistryRefused) {
        match refused {
            RegistryRefused::Refused(RegistryError::Rollback { .. }) => {
                tracing::debug!(from, why = %refused, "an older registry was offered");
            }
            _ => {
                tracing::error!(from, why = %refused, "a registry was refused");
                self.board().registry_refused(refused.to_string());
            }
        }
    }

    /// What a member who has that version is given.
    pub async fn next(&self, have: u64) -> Response {
        let version = self.trade.registry.borrow().version;
        match self.kept.lock().await.next(have, version) {
            Some(Handed { signed, approvals }) => Response::Registry {
                signed: Some(signed),
                approvals,
            },
            None => Response::Registry {
                signed: None,
                approvals: Vec::new(),
            },
        }
    }

    /// Takes what a member pushes. Who is behind by a hand-over between officers asks that member for it.
    pub async fn pushed(self: &Arc<Self>, from: NodeKey, offered: Handed) -> bool {
        match self.take(&offered).await {
            Ok(_) => true,
            Err(RegistryRefused::Refused(RegistryError::Unapproved { .. })) => {
                let keeper = Arc::clone(self);
                tokio::spawn(async move { keeper.pull(from).await });
                true
            }
            Err(refused) => {
                self.refused(&from.to_string(), &refused);
                false
            }
        }
    }

    /// Asks a member for newer registries until it has none. Whether it answered.
    pub async fn pull(&self, from: NodeKey) -> bool {
        for _ in 0..PULL_MAX {
            let have = self.trade.registry.borrow().version;
            let Some(answer) = ask(&self.region.peers, from, have).await else {
                return false;
            };
            let Some(handed) = answer else {
                return true;
            };
            match self.take(&handed).await {
                Ok(true) => self.pass_on(handed),
                Ok(false) => return true,
                Err(refused) => {
                    self.refused(&from.to_string(), &refused);
                    return true;
                }
            }
        }
        true
    }

    /// Hands a newer registry on to the other members.
    pub fn pass_on(&self, handed: Handed) {
        let push = Request::RegistryPush {
            signed: handed.signed,
            approvals: handed.approvals,
        };
        let Ok(frame) = push.encode() else {
            return;
        };
        for key in others(&self.trade) {
            let (peers, frame) = (self.region.peers.clone(), frame.clone());
            tokio::spawn(async move {
                // Who cannot be reached asks for it later.
                let _unreached = peers.request(key, frame, crate::wire::REQUEST_DEADLINE).await;
            });
        }
    }

    /// Compares with the authority and the members before the node serves: whoever has a newer registry gives it.
    /// Errors: a registry behind the mark that nobody could bring up to it.
    pub async fn compare(self: &Arc<Self>) -> Outcome<()> {
        let asked = self.ask_authority_once();
        let _late = tokio::time::timeout(COMPARE_AUTHORITY_MAX, asked).await;
        let members = others(&self.trade).into_iter().map(|node| {
            let keeper = Arc::clone(self);
            async move { keeper.pull(node).await }
        });
        let _late = tokio::time::timeout(COMPARE_MAX, futures::future::join_all(members)).await;
        let registry = Arc::clone(&self.trade.registry.borrow());
        let kept = self.kept.lock().await;
        let mark = Mark::of(&registry, &kept.handed.signed.0);
        match Mark::load(&self.home)? {
            Some(known) if known.forbids(&registry, &kept.handed.signed.0) => Err(Fault::new(
                Exit::Refused,
                "The registry at hand is older than one that was in force here.",
                format!(
                    "version {} was in force, version {} is at hand: it was restored from a copy",
                    known.version, registry.version
                ),
                "Let the region authority or another member be reachable, then start again; it is then taken by itself.",
            )),
            _ => mark.save(&self.home).map_err(|error| {
                Fault::new(
                    Exit::Failed,
                    "The mark of the registry cannot be written.",
                    error,
                    "Check space and permissions of the data folder.",
                )
            }),
        }
    }

    async fn ask_authority_once(&self) {
        let Ok(client) = authority_client(self.root) else {
            return;
        };
        for _ in 0..PULL_MAX {
            let held = self.trade.registry.borrow().version;
            let newer = newer_registry(&client, &self.authority, held, Patience::None).await;
            // When there is none newer, the one of this version is compared.
            let handed = match newer {
                Ok(None) => {
                    let before = held.saturating_sub(1);
                    newer_registry(&client, &self.authority, before, Patience::None).await
                }
                newer => newer,
            };
            let Ok(Some(handed)) = handed else {
                return;
            };
            match self.take(&handed).await {
                Ok(true) => {}
                Ok(false) => return,
                Err(refused) => return self.refused("the authority", &refused),
            }
        }
    }
}

/// Why a registry was not taken.
#[derive(Debug, thiserror::Error)]
pub enum RegistryRefused {
    /// It breaks a rule.
    #[error("{}", chain(.0))]
    Refused(RegistryError),
    /// This node cannot take it.
    #[error("{0}")]
    Broken(String),
}

/// Nodes of the other active members.
fn others(trade: &Trade) -> Vec<NodeKey> {
    let registry = Arc::clone(&trade.registry.borrow());
    let nodes = registry
        .active()
        .filter(|member| member.org != trade.me)
        .flat_map(|member| member.nodes.iter().map(|node| node.key));
    nodes.collect()
}

/// Asks a node for a registry newer than `have`: none when it did not answer, `Some(None)` when it has none.
async fn ask(peers: &Peers, node: NodeKey, have: u64) -> Option<Option<Handed>> {
    let frame = Request::Registry { have }.encode().ok()?;
    let answer = peers.request(node, frame, crate::wire::REQUEST_DEADLINE).await.ok()?;
    match Response::decode(&answer).ok()? {
        Response::Registry { signed, approvals } => Some(signed.map(|signed| Handed { signed, approvals })),
        _ => None,
    }
}

/// Follows the authority.
pub async fn follow(keeper: Arc<Keeper>) {
    let client = match authority_client(keeper.root) {
        Ok(client) => client,
        Err(fault) => {
            tracing::error!(what = %fault.what, why = %fault.why, "the registry is not followed");
            return;
        }
    };
    loop {
        let have = keeper.trade.registry.borrow().version;
        match newer_registry(&client, &keeper.authority, have, Patience::Long).await {
            Ok(Some(handed)) => match keeper.take(&handed).await {
                Ok(true) => keeper.pass_on(handed),
                Ok(false) => tokio::time::sleep(REGISTRY_AGAIN).await,
                Err(refused) => {
                    keeper.refused("the authority", &refused);
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

/// Asks the connected members for a newer registry, one after the other.
pub async fn pull(keeper: Arc<Keeper>) {
    let mut every = tokio::time::interval(PULL_EVERY);
    let mut turn = 0_usize;
    loop {
        every.tick().await;
        let peers = keeper.region.peers.status().await;
        let up: Vec<NodeKey> = peers
            .into_iter()
            .filter(|peer| peer.connected)
            .map(|peer| peer.node)
            .collect();
        if let Some(node) = up.get(turn.checked_rem(up.len()).unwrap_or(0)) {
            keeper.pull(*node).await;
        }
        turn = turn.wrapping_add(1);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use hie_protocol::bytes::Bytes;
    use hie_protocol::cbor;
    use hie_protocol::charter::Handed;

    use super::Kept;

    fn handed(byte: u8) -> Handed {
        Handed {
            signed: Bytes(vec![0x80 | byte; 3]),
            approvals: Vec::new(),
        }
    }

    #[test]
    fn who_is_behind_gets_the_next_hand_over_first() {
        let kept = Kept {
            handed: handed(9),
            floor: 7,
            links: vec![(3, handed(3)), (7, handed(7))],
        };
        assert_eq!(kept.next(9, 9), None);
        assert_eq!(kept.next(1, 9), Some(handed(3)));
        assert_eq!(kept.next(3, 9), Some(handed(7)));
        assert_eq!(kept.next(7, 9), Some(handed(9)));
        assert_eq!(Kept::read(cbor::encode(&kept).unwrap()), kept);
    }

    #[test]
    fn what_joining_wrote_is_read() {
        let kept = Kept::read(vec![1, 2, 3]);
        assert_eq!((kept.handed.signed.0, kept.floor), (vec![1, 2, 3], 0));
    }
}
