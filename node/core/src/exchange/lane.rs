//! The custodian's side of the bulk lane: a ticket becomes frames.
//!
//! Every transfer is decided again, live, and recorded before its first byte: ticket, decision, audit entry,
//! door. A study is released once and all of its instances ride on that one entry, until the permit ends or
//! the patient's choices change (SPEC X-LANE).

use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::{BoxStream, StreamExt};
use hie_consent::decide::{Decision, Permit};
use hie_protocol::bytes::Bytes as WireBytes;
use hie_protocol::id::{NodeKey, OrgId};
use hie_protocol::refusal::{Class, Refusal};
use hie_protocol::retrieval::{Ask, Header, Item};
use hie_protocol::vocabulary::Purpose;
use tracing::{error, info};

use crate::audit::event::{Actor, AuditEvent, Counterpart, EventKind, Outcome};
use crate::audit::receipt::Receipt;
use crate::exchange::serve::{Custodian, ServeError, basis_of, reasons_of};
use crate::exchange::ticket::{Granted, Session};
use crate::locator::driver::WireFailure;
use crate::policy::decide::{decide_for, rules};
use crate::ports::blocking;
use crate::record::entry::{Entry, Place};
use crate::record::release::{Door, ReleaseError, Released};

/// A frame of the bulk lane.
#[derive(Clone, Debug)]
pub enum Frame {
    /// Before content.
    Header(Box<Header>),
    /// Content, at most [`hie_protocol::retrieval::CHUNK_BYTES_MAX`].
    Chunk(Bytes),
    /// End of an item.
    End,
    /// Nothing more comes.
    Refused(Refusal),
}

/// Frames on their way in.
pub type Frames = BoxStream<'static, Result<Frame, WireFailure>>;

/// Bulk lanes to other organisations.
pub trait Lanes: Send + Sync + 'static {
    /// Sends an ask to an organisation; answers the frames that come back.
    fn ask(&self, org: OrgId, ask: Ask) -> BoxFuture<'static, Result<Frames, WireFailure>>;
}

/// Serves the bulk lane.
#[derive(Clone, Debug)]
pub struct Lane {
    custodian: Custodian,
    door: Door,
}

/// What a ticket opened, ready to stream.
enum Opened {
    One {
        header: Header,
        released: Released,
    },
    Manifest(Header),
    Instances {
        session: Arc<Session>,
        first: u32,
        from: u64,
        rest: bool,
    },
}

enum Stop {
    Refused(Refusal),
    Serve(ServeError),
    Release(ReleaseError),
}

impl From<ServeError> for Stop {
    fn from(error: ServeError) -> Self {
        Self::Serve(error)
    }
}

impl From<ReleaseError> for Stop {
    fn from(error: ReleaseError) -> Self {
        Self::Release(error)
    }
}

impl Stop {
    /// The closed code that leaves; the story is logged.
    fn refusal(self) -> Refusal {
        let class = match &self {
            Self::Refused(refusal) => return *refusal,
            Self::Serve(failed) => {
                error!(error = %failed, "a transfer cannot be served");
                failed.class()
            }
            Self::Release(ReleaseError::Revoked) => {
                info!("a transfer ended: the permit is no longer in force");
                return Refusal::NothingHere;
            }
            Self::Release(failed) => {
                error!(error = %failed, "a transfer failed");
                failed.class()
            }
        };
        match class {
            Class::Invalid => Refusal::Malformed,
            Class::Refused => Refusal::NothingHere,
            Class::Unavailable => Refusal::Busy,
            Class::Misbehaved | Class::Broken => Refusal::Failed,
        }
    }
}

impl Lane {
    /// A lane over the custodian's side and its door.
    #[must_use]
    pub const fn new(custodian: Custodian, door: Door) -> Self {
        Self { custodian, door }
    }

    /// Answers an ask that came over the channel of `node`.
    #[must_use]
    pub fn serve(&self, node: NodeKey, ask: Ask) -> BoxStream<'static, Frame> {
        let lane = self.clone();
        async_stream::stream! {
            match lane.open(node, ask).await {
                Ok(Opened::Manifest(header)) => {
                    yield Frame::Header(Box::new(header));
                    yield Frame::End;
                }
                Ok(Opened::One { header, released }) => {
                    let mut frames = item(header, released);
                    while let Some(frame) = frames.next().await {
                        yield frame;
                    }
                }
                Ok(Opened::Instances { session, first, from, rest }) => {
                    let last = u32::try_from(session.study.len()).unwrap_or(u32::MAX);
                    let until = if rest { last } else { first.saturating_add(1) };
                    for index in first..until {
                        let offset = if index == first { from } else { 0 };
                        let released = match session.study.instance(index, offset).await {
                            Ok(released) => released,
                            Err(failed) => {
                                yield Frame::Refused(Stop::Release(failed).refusal());
                                return;
                            }
                        };
                        let header = header(Item::Instance(index), session.receipt.clone(), &released);
                        let mut frames = item(header, released);
                        while let Some(frame) = frames.next().await {
                            let ended = matches!(frame, Frame::Refused(_));
                            yield frame;
                            if ended {
                                return;
                            }
                        }
                    }
                }
                Err(stop) => yield Frame::Refused(stop.refusal()),
            }
        }
        .boxed()
    }

    async fn open(&self, node: NodeKey, ask: Ask) -> Result<Opened, Stop> {
        let nothing = || Stop::Refused(Refusal::NothingHere);
        let now = self.custodian.clock.now();
        let active = self.custodian.org_of(&node);
        let granted = self
            .custodian
            .tickets
            .find(&ask.ticket, &node, now)
            .ok_or_else(nothing)?;
        if active.as_ref() != Some(&granted.asker.org) {
            return Err(nothing());
        }
        let (first, rest) = match ask.item {
            Item::Document => (None, false),
            Item::Instance(index) => (Some(index), false),
            Item::InstancesFrom(index) => (Some(index), true),
        };
        if let Some(session) = self.custodian.tickets.session(&ask.ticket) {
            return instances(session, first, ask.from, rest);
        }
        let (custodian, wanted) = (self.custodian.clone(), granted.clone());
        let Some((entry, permit, receipt)) = blocking(move || custodian.release_under(&wanted)).await? else {
            return Err(nothing());
        };
        let signed = receipt
            .sign(&granted.asker.org, granted.asker.purpose, &*self.custodian.signer)
            .map_err(ServeError::from)?;
        let signed = WireBytes(signed);
        if entry.place == Place::Study {
            let study = self.door.open_study(permit, receipt, &entry).await?;
            let session = Arc::new(Session { study, receipt: signed });
            self.custodian.tickets.remember(ask.ticket, Arc::clone(&session));
            return instances(session, first, ask.from, rest);
        }
        if first.is_some() {
            return Err(nothing());
        }
        let released = self.door.open(permit, receipt, &entry, ask.from).await?;
        Ok(Opened::One {
            header: header(Item::Document, signed, &released),
            released,
        })
    }
}

fn instances(session: Arc<Session>, first: Option<u32>, from: u64, rest: bool) -> Result<Opened, Stop> {
    match first {
        Some(first) if usize::try_from(first).is_ok_and(|first| first < session.study.len()) => Ok(Opened::Instances {
            session,
            first,
            from,
            rest,
        }),
        Some(_) => Err(Stop::Refused(Refusal::NothingHere)),
        None => {
            let manifest = session.study.manifest().clone();
            let encoded = hie_protocol::cbor::encode(&manifest).map_err(|_| Stop::Refused(Refusal::Failed))?;
            Ok(Opened::Manifest(Header {
                item: Item::Document,
                receipt: session.receipt.clone(),
                epoch: session.study.epoch(),
                content_type: "application/dicom".to_owned(),
                size: 0,
                from: 0,
                hash: digest(&encoded),
                manifest: Some(manifest),
                transfer: None,
            }))
        }
    }
}

/// SHA-256 of a manifest's deterministic encoding: the hash of a study asked as a document.
pub(super) fn digest(bytes: &[u8]) -> hie_protocol::id::ContentHash {
    use sha2::Digest as _;
    hie_protocol::id::ContentHash::new(sha2::Sha256::digest(bytes).into())
}

fn header(item: Item, receipt: WireBytes, released: &Released) -> Header {
    Header {
        item,
        receipt,
        epoch: released.epoch,
        content_type: released.content_type.clone(),
        size: released.size,
        from: released.from,
        hash: released.hash,
        manifest: None,
        transfer: released.transfer,
    }
}

fn item(header: Header, released: Released) -> BoxStream<'static, Frame> {
    async_stream::stream! {
        yield Frame::Header(Box::new(header));
        let mut pieces = released.stream;
        while let Some(piece) = pieces.next().await {
            match piece {
                Ok(bytes) => yield Frame::Chunk(bytes),
                Err(failed) => {
                    yield Frame::Refused(Stop::Release(failed).refusal());
                    return;
                }
            }
        }
        yield Frame::End;
    }
    .boxed()
}

impl Custodian {
    /// Decides and records one disclosure under a ticket; none when it is denied. Blocks for one sync.
    fn release_under(&self, granted: &Granted) -> Result<Option<(Entry, Permit, Receipt)>, ServeError> {
        let asker = &granted.asker;
        let now = self.clock.now();
        let Some(entry) = self.records.entry(&granted.document)?.filter(|entry| !entry.superseded) else {
            return Ok(None);
        };
        let policy = self.policies.of(entry.patient)?;
        let region = rules(&self.registry.borrow().policy);
        let actor = if asker.org == self.me {
            self.own_actor(asker)
        } else {
            Actor {
                org: asker.org.clone(),
                node: Some(granted.node),
                user: asker.user.clone(),
                user_name: asker.user_name.clone(),
                role: asker.role,
            }
        };
        let kind = match (asker.org == self.me, asker.purpose) {
            (_, Purpose::BreakGlass) => EventKind::EmergencyUsed,
            (true, _) => EventKind::RecordOpened,
            (false, _) => EventKind::DisclosureSent,
        };
        let mut event = AuditEvent::new(kind, now, granted.correlation, actor);
        event.purpose = Some(asker.purpose);
        event.patient = Some(self.audit.patient_ref(entry.patient));
        event.documents = vec![entry.id()];
        event.counterpart = (asker.org != self.me).then(|| Counterpart {
            org: asker.org.clone(),
            entry: None,
        });
        event.emergency = asker.break_glass.clone();
        match decide_for(&policy, &region, asker, &entry, &self.me, now) {
            Decision::Permitted(permit) => {
                event.basis = Some(basis_of(permit.basis()));
                let receipt = self.audit.append_one(event)?;
                Ok(Some((entry, permit, receipt)))
            }
            Decision::Denied(denial) => {
                event.outcome = Outcome::Denied;
                event.reasons = reasons_of(&denial);
                let _receipt = self.audit.append_one(event)?;
                Ok(None)
            }
        }
    }

    /// The same for a user of this organisation, without a ticket. Blocks for one sync. Errors: [`ServeError`].
    pub(super) fn release_own(&self, granted: &Granted) -> Result<Option<(Entry, Permit, Receipt)>, ServeError> {
        self.release_under(granted)
    }
}
