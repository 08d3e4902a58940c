//! The asking side of the bulk lane: verify, record, and only then hand bytes on.
//!
//! The custodian's receipt must be signed by a node of the custodian, for this asker and this question. The
//! entry "disclosure received", with the custodian's entry in it, is durable here before the first byte is
//! handed on (law 7). The hash is verified as the bytes pass; a broken transfer goes on where it stopped
//! (SPEC X-RETRIEVE).
//!
//! What a locator promised is verified by SHA-256, whatever the custodian says of it now. What only the custodian's
//! manifest promises (the instances of a study) is verified by the transfer hash of its header where there is one: it
//! came over the same channel from the same hands, and costs a fifth.

use core::fmt;
use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures::stream::{BoxStream, StreamExt};
use hie_protocol::id::{ContentHash, OrgId, TransferHash, TreeHash};
use hie_protocol::message::Receipt;
use hie_protocol::refusal::{Class, Refusal};
use hie_protocol::retrieval::{Ask, CHUNK_BYTES_MAX, Header, INSTANCES_MAX, Item, StudyManifest};
use sha2::{Digest, Sha256};

use crate::audit::AuditError;
use crate::audit::event::{Actor, AuditEvent, Counterpart, CounterpartEntry, EventKind};
use crate::audit::log::AuditLog;
use crate::exchange::claim::Asking;
use crate::exchange::fanout::RemoteDocument;
use crate::exchange::lane::{Frame, Frames, Lanes, digest};
use crate::locator::driver::WireFailure;
use crate::locator::tokens::RegistryView;
use crate::ports::{Clock, blocking};

/// How often a broken transfer is taken up again.
pub const RESUMES_MAX: u32 = 3;
/// Receipts remembered so that one audit entry stands for all instances of a study.
pub const RECEIPTS_MAX: usize = 65_536;

/// Why a document does not arrive.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RetrieveError {
    /// The custodian refused, or ended the transfer.
    #[error("the custodian refused: {0}")]
    Refused(Refusal),
    /// The wire.
    #[error("the custodian cannot be reached")]
    Wire(#[from] WireFailure),
    /// The custodian broke the protocol.
    #[error("the custodian broke the protocol: {0}")]
    Protocol(&'static str),
    /// The bytes are not those that were promised.
    #[error("the bytes do not have the hash that was promised")]
    Hash,
    /// The audit log.
    #[error("the receipt cannot be recorded; nothing is handed on")]
    Audit(#[from] AuditError),
}

impl RetrieveError {
    /// Who must act.
    #[must_use]
    pub const fn class(&self) -> Class {
        match self {
            Self::Refused(refusal) => refusal.class(),
            Self::Wire(failure) => failure.class(),
            Self::Protocol(_) | Self::Hash => Class::Misbehaved,
            Self::Audit(error) => error.class(),
        }
    }
}

/// A document on its way in.
pub struct Fetched {
    /// What the custodian says about it.
    pub header: Header,
    /// The bytes; a mismatch of the hash ends the stream with an error when it was read from byte zero.
    pub stream: BoxStream<'static, Result<Bytes, RetrieveError>>,
}

impl fmt::Debug for Fetched {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Fetched({} bytes)", self.header.size)
    }
}

/// What arrives of a study read as one stream.
pub enum StudyPiece {
    /// An instance begins: its place in the manifest, size and hash.
    Begin {
        /// Place in the manifest, from zero.
        index: u32,
        /// Bytes.
        size: u64,
        /// SHA-256.
        hash: ContentHash,
    },
    /// Bytes of it.
    Bytes(Bytes),
    /// It is whole, and its hash was verified when it was read from byte zero.
    End,
}

/// Retrieves documents of other organisations.
#[derive(Clone)]
pub struct Retriever {
    inner: Arc<Inner>,
}

struct Inner {
    me: OrgId,
    lanes: Arc<dyn Lanes>,
    audit: Arc<AuditLog>,
    registry: RegistryView,
    clock: Arc<dyn Clock>,
    recorded: Mutex<HashSet<(OrgId, TreeHash)>>,
}

impl fmt::Debug for Retriever {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Retriever")
    }
}

impl Retriever {
    /// Over the bulk lanes.
    #[must_use]
    pub fn new(
        me: OrgId,
        lanes: Arc<dyn Lanes>,
        audit: Arc<AuditLog>,
        registry: RegistryView,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self {
            inner: Arc::new(Inner {
                me,
                lanes,
                audit,
                registry,
                clock,
                recorded: Mutex::default(),
            }),
        }
    }

    /// A document from byte `from` on. Errors: [`RetrieveError`].
    pub async fn document(
        &self,
        asking: &Asking,
        remote: &RemoteDocument,
        from: u64,
    ) -> Result<Fetched, RetrieveError> {
        self.item(asking, remote, Item::Document, from).await
    }

    /// The manifest of a study. Errors: [`RetrieveError`].
    pub async fn manifest(&self, asking: &Asking, remote: &RemoteDocument) -> Result<StudyManifest, RetrieveError> {
        let (header, _frames) = self.inner.begin(asking, remote, Item::Document, 0).await?;
        let manifest = header
            .manifest
            .ok_or(RetrieveError::Protocol("a study without a manifest"))?;
        let encoded = hie_protocol::cbor::encode(&manifest)
            .map_err(|_| RetrieveError::Protocol("a manifest that cannot be encoded"))?;
        if digest(&encoded) != header.hash {
            return Err(RetrieveError::Hash);
        }
        if manifest.instances().count() > INSTANCES_MAX {
            return Err(RetrieveError::Protocol("a manifest with too many instances"));
        }
        Ok(manifest)
    }

    /// One instance of a study from byte `from` on. Errors: [`RetrieveError`].
    pub async fn instance(
        &self,
        asking: &Asking,
        remote: &RemoteDocument,
        index: u32,
        from: u64,
    ) -> Result<Fetched, RetrieveError> {
        self.item(asking, remote, Item::Instance(index), from).await
    }

    async fn item(
        &self,
        asking: &Asking,
        remote: &RemoteDocument,
        item: Item,
        from: u64,
    ) -> Result<Fetched, RetrieveError> {
        let (header, frames) = self.inner.begin(asking, remote, item, from).await?;
        if header.item != item || header.from != from || from > header.size {
            return Err(RetrieveError::Protocol("an answer to another ask"));
        }
        let promised = if item == Item::Document { remote.meta.hash } else { None };
        if promised.is_some_and(|promised| promised != header.hash) {
            return Err(RetrieveError::Hash);
        }
        let check = if promised.is_some() {
            Check::by_content(&header)
        } else {
            Check::of(&header)
        };
        let stream = resumed(
            Arc::clone(&self.inner),
            asking.clone(),
            remote.clone(),
            header.clone(),
            check,
            frames,
        );
        Ok(Fetched { header, stream })
    }

    /// All instances of a study of `count` from the `first` (from zero) on, in viewing order, as one stream; a
    /// broken transfer goes on at the byte where it stopped. Errors: [`RetrieveError`], also inside the stream.
    #[must_use]
    pub fn study(
        &self,
        asking: Asking,
        remote: RemoteDocument,
        first: u32,
        count: u32,
    ) -> BoxStream<'static, Result<StudyPiece, RetrieveError>> {
        let retriever = self.clone();
        async_stream::try_stream! {
            let (mut index, mut offset, mut resumes) = (first, 0_u64, 0_u32);
            let mut check = Check::None;
            while index < count {
                let opened = retriever.inner.begin(&asking, &remote, Item::InstancesFrom(index), offset).await;
                let (mut header, mut frames) = match opened {
                    Ok(opened) => opened,
                    Err(RetrieveError::Wire(failure)) => {
                        resumes = again(resumes, failure)?;
                        continue;
                    }
                    Err(error) => Err(error)?,
                };
                let failure = loop {
                    if header.item != Item::Instance(index) || header.from != offset {
                        Err(RetrieveError::Protocol("an instance out of order"))?;
                    }
                    if matches!(check, Check::None) {
                        yield StudyPiece::Begin { index, size: header.size, hash: header.hash };
                        check = Check::of(&header);
                    } else if !check.goes_on(&header) {
                        Err(RetrieveError::Protocol("another content after a break"))?;
                    }
                    let broken = loop {
                        match frames.next().await {
                            Some(Ok(Frame::Chunk(bytes))) => {
                                offset = grown(offset, &bytes, header.size)?;
                                check.update(&bytes);
                                yield StudyPiece::Bytes(bytes);
                            }
                            Some(Ok(Frame::End)) => break None,
                            Some(Ok(Frame::Refused(refusal))) => Err(RetrieveError::Refused(refusal))?,
                            Some(Ok(Frame::Header(_))) => Err(RetrieveError::Protocol("a header inside an item"))?,
                            Some(Err(failure)) => break Some(failure),
                            None => break Some(WireFailure::Unreachable),
                        }
                    };
                    if broken.is_some() {
                        break broken;
                    }
                    verify(offset, core::mem::take(&mut check), &header)?;
                    yield StudyPiece::End;
                    (index, offset, resumes) = (index.saturating_add(1), 0, 0);
                    if index >= count {
                        break None;
                    }
                    header = match frames.next().await {
                        Some(Ok(Frame::Header(next))) => *next,
                        Some(Ok(Frame::Refused(refusal))) => Err(RetrieveError::Refused(refusal))?,
                        Some(Ok(_)) => Err(RetrieveError::Protocol("no header before an instance"))?,
                        Some(Err(failure)) => break Some(failure),
                        None => break Some(WireFailure::Unreachable),
                    };
                };
                if let Some(failure) = failure {
                    resumes = again(resumes, failure)?;
                }
            }
        }
        .boxed()
    }
}

fn again(resumes: u32, failure: WireFailure) -> Result<u32, RetrieveError> {
    if resumes < RESUMES_MAX && failure != WireFailure::Misbehaved {
        Ok(resumes + 1)
    } else {
        Err(failure.into())
    }
}

fn grown(offset: u64, bytes: &Bytes, size: u64) -> Result<u64, RetrieveError> {
    if bytes.len() > CHUNK_BYTES_MAX {
        return Err(RetrieveError::Protocol("a chunk over its limit"));
    }
    let after = offset.saturating_add(bytes.len() as u64);
    if after > size {
        Err(RetrieveError::Protocol("more bytes than promised"))
    } else {
        Ok(after)
    }
}

fn verify(offset: u64, check: Check, header: &Header) -> Result<(), RetrieveError> {
    if offset != header.size {
        return Err(RetrieveError::Protocol("fewer bytes than promised"));
    }
    if check.holds() {
        Ok(())
    } else {
        Err(RetrieveError::Hash)
    }
}

/// The hash of an item that is arriving, and what it must become.
#[derive(Default)]
enum Check {
    /// Nothing is arriving.
    #[default]
    None,
    /// By content hash.
    Content(Sha256, ContentHash),
    /// By transfer hash.
    Transfer(Box<blake3::Hasher>, TransferHash, ContentHash),
}

impl Check {
    /// By what the header offers.
    fn of(header: &Header) -> Self {
        match header.transfer {
            Some(promised) => Self::Transfer(Box::default(), promised, header.hash),
            None => Self::by_content(header),
        }
    }

    /// By SHA-256, whatever the header offers.
    fn by_content(header: &Header) -> Self {
        Self::Content(Sha256::new(), header.hash)
    }

    fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::None => {}
            Self::Content(hash, _) => hash.update(bytes),
            Self::Transfer(hash, ..) => {
                hash.update(bytes);
            }
        }
    }

    /// Whether a header after a break speaks of the same content. A custodian may be older or newer by then, so that
    /// its header may lack the transfer hash or have one more; the hash that runs is the one that counts.
    fn goes_on(&self, header: &Header) -> bool {
        match self {
            Self::None => false,
            Self::Content(_, promised) => header.hash == *promised,
            Self::Transfer(_, transfer, promised) => {
                header.hash == *promised && header.transfer.is_none_or(|again| again == *transfer)
            }
        }
    }

    fn holds(self) -> bool {
        match self {
            Self::None => false,
            Self::Content(hash, promised) => ContentHash::new(hash.finalize().into()) == promised,
            Self::Transfer(hash, promised, _) => TransferHash::new(*hash.finalize().as_bytes()) == promised,
        }
    }
}

/// The bytes of one item, taken up again after a break, the hash running through all of it.
fn resumed(
    inner: Arc<Inner>,
    asking: Asking,
    remote: RemoteDocument,
    header: Header,
    check: Check,
    frames: Frames,
) -> BoxStream<'static, Result<Bytes, RetrieveError>> {
    async_stream::try_stream! {
        let mut frames = frames;
        let mut offset = header.from;
        let mut check = check;
        let mut resumes = 0_u32;
        loop {
            let failure = match frames.next().await {
                Some(Ok(Frame::Chunk(bytes))) => {
                    offset = grown(offset, &bytes, header.size)?;
                    check.update(&bytes);
                    yield bytes;
                    continue;
                }
                Some(Ok(Frame::End)) => break,
                Some(Ok(Frame::Refused(refusal))) => Err(RetrieveError::Refused(refusal))?,
                Some(Ok(Frame::Header(_))) => Err(RetrieveError::Protocol("a header inside an item"))?,
                Some(Err(failure)) => failure,
                None => WireFailure::Unreachable,
            };
            resumes = again(resumes, failure)?;
            let (next, more) = inner.begin(&asking, &remote, header.item, offset).await?;
            // An on-demand document is assembled anew and may differ: only the same bytes are gone on with.
            if !check.goes_on(&next) || next.from != offset || next.size != header.size {
                Err(RetrieveError::Protocol("another content after a break"))?;
            }
            frames = more;
        }
        if header.from == 0 {
            verify(offset, check, &header)?;
        } else if offset != header.size {
            Err(RetrieveError::Protocol("fewer bytes than promised"))?;
        }
    }
    .boxed()
}

impl Inner {
    /// Sends an ask, verifies the receipt in the header, and records the disclosure here.
    async fn begin(
        self: &Arc<Self>,
        asking: &Asking,
        remote: &RemoteDocument,
        item: Item,
        from: u64,
    ) -> Result<(Header, Frames), RetrieveError> {
        let mut frames = self
            .lanes
            .ask(
                remote.org.clone(),
                Ask {
                    ticket: remote.ticket,
                    item,
                    from,
                },
            )
            .await?;
        let header = match frames.next().await {
            Some(Ok(Frame::Header(header))) => *header,
            Some(Ok(Frame::Refused(refusal))) => return Err(RetrieveError::Refused(refusal)),
            Some(Ok(_)) => return Err(RetrieveError::Protocol("no header at the beginning")),
            Some(Err(failure)) => return Err(failure.into()),
            None => return Err(WireFailure::Unreachable.into()),
        };
        let registry = Arc::clone(&self.registry.borrow());
        let receipt = Receipt::verify(&header.receipt.0, &registry)
            .map_err(|_| RetrieveError::Protocol("a receipt that nobody signed"))?;
        let fits =
            receipt.log == remote.org && receipt.audience == self.me && receipt.correlation == remote.correlation;
        if !fits {
            return Err(RetrieveError::Protocol("a receipt for something else"));
        }
        let (inner, asking, remote) = (Arc::clone(self), asking.clone(), remote.clone());
        blocking(move || inner.record(&asking, &remote, &receipt)).await?;
        Ok((header, frames))
    }

    /// One entry for each entry of the custodian. Blocks for one sync.
    fn record(&self, asking: &Asking, remote: &RemoteDocument, receipt: &Receipt) -> Result<(), AuditError> {
        let name = (remote.org.clone(), receipt.leaf);
        if self.recorded().contains(&name) {
            return Ok(());
        }
        let actor = Actor {
            org: self.me.clone(),
            node: None,
            user: asking.user.clone(),
            user_name: asking.user_name.clone(),
            role: asking.role,
        };
        let mut event = AuditEvent::new(
            EventKind::DisclosureReceived,
            self.clock.now(),
            remote.correlation,
            actor,
        );
        event.purpose = Some(asking.purpose);
        event.documents = vec![remote.meta.id];
        event.counterpart = Some(Counterpart {
            org: remote.org.clone(),
            entry: Some(CounterpartEntry {
                index: receipt.index,
                leaf: receipt.leaf,
            }),
        });
        event.emergency = asking.break_glass.clone();
        let _receipt = self.audit.append_one(event)?;
        let mut recorded = self.recorded();
        if recorded.len() >= RECEIPTS_MAX {
            recorded.clear();
        }
        recorded.insert(name);
        Ok(())
    }

    fn recorded(&self) -> std::sync::MutexGuard<'_, HashSet<(OrgId, TreeHash)>> {
        self.recorded.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
