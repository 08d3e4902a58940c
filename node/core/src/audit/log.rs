//! Appending: many callers, one writer, one sync for all who wait.
//!
//! ```text
//! append ──► queue ──► the first waiter leads: indices, seals, nodes, indexes, callers' writes
//!                       └─ one commit, synced ──► receipts to every waiter ──► the next waiter leads
//! ```

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use hie_protocol::checkpoint::note::{KeyKind, NoteKey, SignatureLine};
use hie_protocol::checkpoint::{Checkpoint, NoteSigner, SignedCheckpoint};
use hie_protocol::id::{Millis, OrgId, PublicKey, TreeHash};
use hie_protocol::merkle::prove::{consistency_proof, inclusion_proof};
use hie_protocol::merkle::{Frontier, Hash, leaf_hash};

use super::AuditError;
use super::event::{AuditEvent, PatientRef};
use super::receipt::Receipt;
use super::tables;
use super::verify::{self, Depth};
use crate::catalogue::Table;
use crate::ids::PatientKey;
use crate::kv::{BATCH_BYTES_MAX, Batch, Kv, KvError};
use crate::ports::NodeSigner;
use crate::vault::Vault;

/// Longest time between an entry and the checkpoint that covers it, in milliseconds: the worker's pace.
pub const CHECKPOINT_MS_MAX: u64 = 10_000;
/// Most appends that wait at a time.
pub const QUEUE_MAX: usize = 4096;
/// Most events of one group.
pub const GROUP_EVENTS_MAX: usize = 2048;
/// Most events of one append.
pub const APPEND_EVENTS_MAX: usize = 512;
/// Most bytes of the caller's own writes in one append.
pub const EXTRA_BYTES_MAX: usize = BATCH_BYTES_MAX / 4;

/// Whose log it is, and which keys sign its checkpoints.
#[derive(Clone, Debug)]
pub struct LogIdentity {
    /// Organisation of the node.
    pub org: OrgId,
    /// Public keys of the node: the one in use first, earlier ones behind it.
    pub keys: Vec<PublicKey>,
}

impl LogIdentity {
    /// The log's name in checkpoints: `hie/<organisation>/audit`.
    #[must_use]
    pub fn origin(&self) -> String {
        format!("hie/{}/audit", self.org)
    }

    /// The keys in note form. Errors: [`AuditError::Note`].
    pub fn note_keys(&self) -> Result<Vec<NoteKey>, AuditError> {
        let origin = self.origin();
        let key = |public: &PublicKey| NoteKey::new(&origin, KeyKind::Log, *public.as_bytes());
        Ok(self.keys.iter().map(key).collect::<Result<_, _>>()?)
    }
}

/// The log of this node.
pub struct AuditLog {
    org: Arc<OrgId>,
    origin: String,
    key: NoteKey,
    signer: Arc<dyn NodeSigner>,
    pub(super) kv: Arc<dyn Kv>,
    pub(super) vault: Arc<Vault>,
    queue: Mutex<Queue>,
    /// The committed tree. Written by the leading append alone, behind its commit.
    tree: Mutex<Frontier>,
    /// Size under the last checkpoint; held while a checkpoint is made, so that there is one at a time.
    checkpointed: Mutex<u64>,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Pending>,
    /// INVARIANT: true exactly while one append leads or has been told to lead.
    busy: bool,
}

struct Pending {
    events: Vec<Prepared>,
    extra: Batch,
    slot: Arc<Slot>,
}

struct Prepared {
    event: AuditEvent,
    canonical: Vec<u8>,
    leaf: Hash,
}

type Appended = Result<Vec<Receipt>, AuditError>;

#[derive(Default)]
struct Slot {
    turn: Mutex<Turn>,
    changed: Condvar,
}

#[derive(Default)]
enum Turn {
    #[default]
    Wait,
    Lead,
    Done(Appended),
}

impl Slot {
    fn set(&self, turn: Turn) {
        *lock(&self.turn) = turn;
        self.changed.notify_one();
    }

    /// Waits for the result; none when this append must lead.
    fn wait(&self) -> Option<Appended> {
        let mut turn = lock(&self.turn);
        loop {
            match std::mem::take(&mut *turn) {
                Turn::Done(result) => return Some(result),
                Turn::Lead => return None,
                Turn::Wait => turn = self.changed.wait(turn).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }
}

impl AuditLog {
    /// Opens the log: recomputes the tree from its entries and compares it with the last signed checkpoint.
    ///
    /// Errors: [`AuditError::Altered`], [`AuditError::Truncated`] and [`AuditError::Checkpoint`] when the log is
    /// not what the node signed (the node must not run), and the store's.
    pub fn open(
        identity: &LogIdentity,
        signer: Arc<dyn NodeSigner>,
        kv: Arc<dyn Kv>,
        vault: Arc<Vault>,
    ) -> Result<Self, AuditError> {
        let keys = identity.note_keys()?;
        let key = keys.first().cloned().ok_or(AuditError::NoKey)?;
        let verified = verify::walk(&*kv, &vault, &identity.origin(), &keys, &[], Depth::Tree)?;
        verified.report.refuse()?;
        Ok(Self {
            org: Arc::new(identity.org.clone()),
            origin: identity.origin(),
            key,
            signer,
            kv,
            vault,
            queue: Mutex::default(),
            checkpointed: Mutex::new(verified.report.checkpoint_size),
            tree: Mutex::new(verified.frontier),
        })
    }

    /// Makes events and the caller's own writes true together and durable; answers one receipt for each event, in
    /// order. Blocks for one sync: call it off the async threads ([`crate::ports::blocking`]).
    ///
    /// Errors: [`AuditError::Event`], [`AuditError::Limit`], [`AuditError::Busy`] (nothing happened);
    /// [`AuditError::Store`] that is fatal (the program must stop).
    pub fn append(&self, events: Vec<AuditEvent>, extra: Batch) -> Appended {
        if events.len() > APPEND_EVENTS_MAX || extra.bytes() > EXTRA_BYTES_MAX {
            return Err(AuditError::Limit);
        }
        extra.check()?;
        let events = events.into_iter().map(prepare).collect::<Result<Vec<_>, _>>()?;
        let slot = Arc::new(Slot::default());
        let pending = Pending {
            events,
            extra,
            slot: Arc::clone(&slot),
        };
        let leads = {
            let mut queue = lock(&self.queue);
            if queue.waiting.len() >= QUEUE_MAX {
                return Err(AuditError::Busy);
            }
            queue.waiting.push_back(pending);
            !std::mem::replace(&mut queue.busy, true)
        };
        if !leads && let Some(result) = slot.wait() {
            return result;
        }
        self.lead();
        slot.wait().unwrap_or(Err(AuditError::Busy))
    }

    /// One event without writes of the caller. Errors: as [`AuditLog::append`].
    pub fn append_one(&self, event: AuditEvent) -> Result<Receipt, AuditError> {
        self.append(vec![event], Batch::new())?.pop().ok_or(AuditError::Busy)
    }

    /// Commits the group at the front of the queue, this append's own among it, and hands the lead on.
    fn lead(&self) {
        let group = take_group(&mut lock(&self.queue));
        match self.commit_group(&group) {
            Ok(indices) => {
                for (pending, first) in group.into_iter().zip(indices) {
                    let receipts = pending.events.iter().zip(first..).map(|(prepared, index)| {
                        let leaf = TreeHash::new(prepared.leaf);
                        Receipt::mint(Arc::clone(&self.org), index, leaf, &prepared.event)
                    });
                    pending.slot.set(Turn::Done(Ok(receipts.collect())));
                }
            }
            Err(error) => {
                for pending in group {
                    pending.slot.set(Turn::Done(Err(error.clone())));
                }
            }
        }
        let mut queue = lock(&self.queue);
        match queue.waiting.front() {
            Some(next) => next.slot.set(Turn::Lead),
            None => queue.busy = false,
        }
    }

    /// Writes the group in one synced commit; answers the first index of each append.
    fn commit_group(&self, group: &[Pending]) -> Result<Vec<u64>, AuditError> {
        let mut tree = lock(&self.tree).clone();
        let mut batch = Batch::new();
        let mut firsts = Vec::with_capacity(group.len());
        for pending in group {
            firsts.push(tree.size());
            for prepared in &pending.events {
                let index = tree.size();
                for node in tree.append(prepared.leaf)? {
                    batch.put(Table::AuditNodes, tables::node_key(node.level, node.index), node.hash);
                }
                let sealed = tables::seal(&self.vault, index, &prepared.canonical)?;
                batch.put(Table::AuditLeaves, tables::index_key(index), sealed);
                for (table, key) in tables::index_entries(&self.vault, index, &prepared.event) {
                    batch.put(table, key, Vec::new());
                }
            }
            batch.append(pending.extra.clone());
        }
        self.kv.commit(batch)?;
        *lock(&self.tree) = tree;
        Ok(firsts)
    }

    /// Entries in the log.
    #[must_use]
    pub fn size(&self) -> u64 {
        lock(&self.tree).size()
    }

    /// Size and root as committed.
    #[must_use]
    pub fn head(&self) -> (u64, TreeHash) {
        let tree = lock(&self.tree);
        (tree.size(), TreeHash::new(tree.root()))
    }

    /// Signs and stores a checkpoint when entries came since the last one; the worker calls it at least every
    /// [`CHECKPOINT_MS_MAX`], and once more when the node stops.
    ///
    /// Errors: [`AuditError::Checkpoint`], the store.
    pub fn checkpoint(&self) -> Result<Option<SignedCheckpoint>, AuditError> {
        let mut covered = lock(&self.checkpointed);
        let (size, root) = self.head();
        if size == *covered {
            return Ok(None);
        }
        let head = Checkpoint::new(&self.origin, size, *root.as_bytes())?;
        let sign = |message: &[u8]| *self.signer.sign(message).as_bytes();
        let signed = NoteSigner::new(&self.key, &sign).sign(&head)?;
        self.store_checkpoint(&signed)?;
        *covered = size;
        Ok(Some(signed))
    }

    /// Adds a witness's line to the newest checkpoint after verifying it. Answers false when the newest checkpoint
    /// is another one by now. Errors: [`AuditError::Checkpoint`], the store.
    pub fn cosigned(&self, size: u64, line: SignatureLine, witness: &NoteKey) -> Result<bool, AuditError> {
        let _one_at_a_time = lock(&self.checkpointed);
        let Some(mut signed) = self
            .latest_checkpoint()?
            .filter(|latest| latest.claimed().size() == size)
        else {
            return Ok(false);
        };
        signed.add(line)?;
        let verified = signed.verify(&self.origin, &self.key, core::slice::from_ref(witness))?;
        if verified.witness_count() == 0 {
            return Err(AuditError::Cosignature);
        }
        self.store_checkpoint(&signed)?;
        Ok(true)
    }

    fn store_checkpoint(&self, signed: &SignedCheckpoint) -> Result<(), AuditError> {
        let mut batch = Batch::new();
        batch.put(
            Table::AuditCheckpoints,
            tables::index_key(signed.claimed().size()),
            signed.to_text(),
        );
        Ok(self.kv.commit(batch)?)
    }

    /// The newest checkpoint with every cosignature that has come. Errors: the store, [`AuditError::Checkpoint`].
    pub fn latest_checkpoint(&self) -> Result<Option<SignedCheckpoint>, AuditError> {
        tables::latest_checkpoint(&*self.kv)
    }

    /// Proof that entry `index` is in the tree of `size` entries (RFC 6962 §2.1.1). Errors: [`AuditError::Tree`].
    pub fn inclusion(&self, index: u64, size: u64) -> Result<Vec<Hash>, AuditError> {
        let nodes = |level, at| tables::node(&*self.kv, level, at);
        Ok(inclusion_proof(&nodes, index, size)?)
    }

    /// Proof that the tree of `new` entries extends the one of `old` (RFC 6962 §2.1.2). Errors: [`AuditError::Tree`].
    pub fn consistency(&self, old: u64, new: u64) -> Result<Vec<Hash>, AuditError> {
        let nodes = |level, at| tables::node(&*self.kv, level, at);
        Ok(consistency_proof(&nodes, old, new)?)
    }

    /// The name under which a patient stands in the log.
    #[must_use]
    pub fn patient_ref(&self, patient: PatientKey) -> PatientRef {
        PatientRef(self.vault.pseudonym(patient))
    }

    /// The patient of an entry; a key without a patient when she was erased.
    #[must_use]
    pub fn patient_key(&self, reference: PatientRef) -> PatientKey {
        self.vault.reveal(reference.0)
    }
}

fn prepare(event: AuditEvent) -> Result<Prepared, AuditError> {
    let canonical = event.canonical()?;
    let leaf = leaf_hash(&canonical);
    Ok(Prepared { event, canonical, leaf })
}

/// Takes appends from the front until a limit; at least one.
fn take_group(queue: &mut Queue) -> Vec<Pending> {
    let (mut events, mut bytes) = (0_usize, 0_usize);
    let mut group = Vec::new();
    while let Some(next) = queue.waiting.front() {
        let size: usize = next.events.iter().map(|prepared| prepared.canonical.len() + 512).sum();
        events = events.saturating_add(next.events.len());
        bytes = bytes.saturating_add(size).saturating_add(next.extra.bytes());
        if !group.is_empty() && (events > GROUP_EVENTS_MAX || bytes > BATCH_BYTES_MAX / 2) {
            break;
        }
        group.extend(queue.waiting.pop_front());
    }
    group
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // INVARIANT: nothing panics while it holds one of the log's locks.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether an error of the log means that the program must stop.
#[must_use]
pub fn is_fatal(error: &AuditError) -> bool {
    matches!(error, AuditError::Store(KvError::Fatal { .. }))
}

/// Time of the next checkpoint for an entry made at `at`.
#[must_use]
pub const fn checkpoint_due(at: Millis) -> Millis {
    at.plus(CHECKPOINT_MS_MAX)
}
