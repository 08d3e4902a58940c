//! Brings a patient's index records up to date, from the mark in the queue to the write quorum.
//!
//! One worker. A mark is removed only when a write quorum of holders has everything that the mark's commit
//! made true; a failure leaves it, and the work is idempotent.

use core::fmt;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use futures::stream::{self, StreamExt};
use hie_consent::explain::{discoverable, excluded_organisations};
use hie_protocol::id::{Correlation, OrgId, RecordHandle};
use hie_protocol::record::{EXCLUDED_MAX, Label, RecordError as SignedRecordError, VerifiedRecord};
use hie_protocol::refusal::Class;
use hie_protocol::registry::TokenParameters;
use hie_protocol::vocabulary::{Confidentiality, Purpose, Role};
use tokio::sync::Notify;
use tracing::warn;

use crate::catalogue::Table;
use crate::exchange::claim::Asking;
use crate::ids::PatientKey;
use crate::kv::{Batch, Kv, KvError, Scan};
use crate::locator::build::{BuildError, Draft, Plan, drafts, exclude_anew};
use crate::locator::driver::{IndexError, IndexHandle};
use crate::locator::sequence::Sequencer;
use crate::locator::state::{DocumentRow, LocatorRow, LocatorStates, StateError, TokenRow};
use crate::locator::tokens::{Output, RegistryView, TokenAuthority, TokenError};
use crate::patient::index::{PatientError, PatientIndex};
use crate::patient::tokens;
use crate::policy::decide::rules;
use crate::policy::store::{Policies, PolicyError};
use crate::ports::{Clock, NoRandomness, NodeSigner, Random, blocking, random_bytes};
use crate::record::entry::{Entry, RecordError, Records};
use crate::vault::VaultError;

/// Marks read at a time.
pub const MARKS_MAX: usize = 256;
/// Patients whose records are on their way to the index at a time.
pub const PATIENTS_AHEAD: usize = 16;
/// Records of one publish.
pub const PUBLISH_RECORDS_MAX: usize = 256;

/// Why a patient's index records are not up to date.
#[derive(Debug, thiserror::Error)]
pub enum RefreshError {
    /// Patient.
    #[error("the patient cannot be read")]
    Patient(#[from] PatientError),
    /// Records.
    #[error("the documents cannot be read")]
    Record(#[from] RecordError),
    /// Choices.
    #[error("the patient's choices cannot be read")]
    Policy(#[from] PolicyError),
    /// State.
    #[error("what is published cannot be read")]
    State(#[from] StateError),
    /// Tokens.
    #[error("the tokens cannot be evaluated")]
    Tokens(#[from] TokenError),
    /// Building.
    #[error("an index record cannot be built")]
    Build(#[from] BuildError),
    /// Signing.
    #[error("an index record cannot be signed")]
    Sign(#[from] SignedRecordError),
    /// The index.
    #[error("the index does not take the records")]
    Index(#[from] IndexError),
    /// The store.
    #[error("the queue cannot be read or written")]
    Store(#[from] KvError),
    /// No random bytes.
    #[error("no handle can be made")]
    Random(#[from] NoRandomness),
}

impl RefreshError {
    /// Who must act.
    #[must_use]
    pub const fn class(&self) -> Class {
        match self {
            Self::Patient(error) => error.class(),
            Self::Record(error) => error.class(),
            Self::Policy(error) => error.class(),
            Self::Tokens(error) => error.class(),
            Self::Index(error) => error.class(),
            Self::Store(error) => error.class(),
            Self::State(_) | Self::Build(_) | Self::Sign(_) | Self::Random(_) => Class::Broken,
        }
    }

    /// Whether the program must stop.
    #[must_use]
    pub const fn is_fatal(&self) -> bool {
        matches!(
            self,
            Self::Store(KvError::Fatal { .. })
                | Self::Index(IndexError::Store(KvError::Fatal { .. }))
                | Self::State(StateError::Store(KvError::Fatal { .. }))
        )
    }
}

/// What the worker works with.
#[derive(Clone)]
pub struct Parts {
    /// This organisation.
    pub me: OrgId,
    /// Store.
    pub kv: Arc<dyn Kv>,
    /// Patients.
    pub patients: Arc<PatientIndex>,
    /// Documents.
    pub records: Records,
    /// Choices.
    pub policies: Arc<Policies>,
    /// What is published.
    pub states: LocatorStates,
    /// Tokens.
    pub authority: Arc<dyn TokenAuthority>,
    /// The index.
    pub index: IndexHandle,
    /// Signs records.
    pub signer: Arc<dyn NodeSigner>,
    /// Sequences.
    pub sequencer: Arc<Sequencer>,
    /// Registry.
    pub registry: RegistryView,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Handles.
    pub random: Arc<dyn Random>,
}

/// The worker.
#[derive(Clone)]
pub struct Publisher {
    parts: Arc<Parts>,
    woken: Arc<Notify>,
}

impl fmt::Debug for Publisher {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Publisher")
    }
}

/// Patients with their marks.
type Waiting = BTreeMap<PatientKey, Vec<Vec<u8>>>;
/// Outputs by input.
type Outputs = HashMap<String, Output>;

/// The key epochs under which records are published: the one in force, and the one that comes or goes.
#[must_use]
pub fn epochs(tokens: &TokenParameters) -> BTreeSet<u32> {
    core::iter::once(tokens.epoch)
        .chain(tokens.beside.iter().map(|beside| beside.epoch))
        .collect()
}

/// A patient's view that the next records are built from.
struct View {
    patient: PatientKey,
    marks: Vec<Vec<u8>>,
    /// Inputs of the function, each with the epoch of its key.
    inputs: BTreeSet<(u32, String)>,
    entries: Vec<Entry>,
    label: Label,
    row: LocatorRow,
}

impl View {
    /// Inputs whose output is not known; none when nothing may be discovered.
    fn new_inputs(&self) -> impl Iterator<Item = (u32, &str)> {
        let inputs = self.inputs.iter().filter(|_| !self.entries.is_empty());
        inputs
            .filter(|(_, input)| self.row.tokens.iter().all(|token| token.input != *input))
            .map(|(epoch, input)| (*epoch, input.as_str()))
    }
}

impl Publisher {
    /// A worker over the parts.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        Self {
            parts: Arc::new(parts),
            woken: Arc::new(Notify::new()),
        }
    }

    /// Says that something was marked.
    pub fn wake(&self) {
        self.woken.notify_one();
    }

    /// Resolves at the next [`Self::wake`].
    pub async fn woken(&self) {
        self.woken.notified().await;
    }

    /// Patients whose records are not up to date, at most [`MARKS_MAX`] marks of them, with their marks.
    /// Errors: the store's.
    pub fn waiting(&self) -> Result<Waiting, KvError> {
        let mut waiting = Waiting::new();
        for (key, _) in self
            .parts
            .kv
            .scan(&Scan::of(Table::PublishQueue, &[]).limit(MARKS_MAX))?
        {
            if let Some(patient) = key.get(..16).and_then(PatientKey::from_slice) {
                waiting.entry(patient).or_default().push(key);
            }
        }
        Ok(waiting)
    }

    /// Works through the queue once: answers how many patients are up to date now, and the first failure.
    ///
    /// The tokens of all its patients are evaluated together, in large batches. Errors: a failure that must stop the
    /// program; others leave their mark and are logged.
    pub async fn round(&self) -> Result<(usize, Option<RefreshError>), RefreshError> {
        let waiting = self.waiting()?;
        let parts = Arc::clone(&self.parts);
        let (views, mut failed) = blocking(move || parts.views(waiting)).await?;
        let outputs = match self.evaluate(&views).await {
            Ok(outputs) => outputs,
            Err(error) => {
                failed.get_or_insert(error);
                Outputs::new()
            }
        };
        let outputs = Arc::new(outputs);
        let work = views.into_iter().map(|view| self.finish(view, Arc::clone(&outputs)));
        let mut work = stream::iter(work).buffer_unordered(PATIENTS_AHEAD);
        let mut done = 0;
        while let Some(result) = work.next().await {
            match result {
                Ok(true) => done += 1,
                Ok(false) => {}
                Err(error) if error.is_fatal() => return Err(error),
                Err(error) => {
                    warn!(%error, "index records of a patient wait for the next round");
                    failed.get_or_insert(error);
                }
            }
        }
        Ok((done, failed))
    }

    /// Outputs of every token that some patient does not have yet.
    async fn evaluate(&self, views: &[View]) -> Result<Outputs, RefreshError> {
        let mut wanted: BTreeMap<u32, BTreeSet<&str>> = BTreeMap::new();
        for view in views {
            for (epoch, input) in view.new_inputs() {
                wanted.entry(epoch).or_default().insert(input);
            }
        }
        let mut outputs = Outputs::new();
        for (epoch, inputs) in wanted {
            let asking = Asking::system(
                Purpose::Operations,
                Role::System,
                Correlation::new(random_bytes(&*self.parts.random)?),
            );
            let bytes = inputs.iter().map(|input| input.as_bytes().to_vec()).collect();
            let evaluated = self.parts.authority.evaluate(&asking, epoch, bytes).await?;
            outputs.extend(inputs.into_iter().map(str::to_owned).zip(evaluated));
        }
        Ok(outputs)
    }

    /// Brings one patient's records up to date, then removes the marks; false when its tokens could not be evaluated
    /// in this round. Errors: [`RefreshError`].
    async fn finish(&self, view: View, outputs: Arc<Outputs>) -> Result<bool, RefreshError> {
        let View {
            patient,
            marks,
            inputs,
            entries,
            label,
            mut row,
        } = view;
        if entries.is_empty() && row.tokens.is_empty() && row.documents.is_empty() {
            self.parts.unmark(marks)?;
            return Ok(true);
        }
        exclude_anew(&mut row, &label.excluded, &*self.parts.random)?;
        if !self.parts.complete(&mut row, &inputs, &entries, &outputs)? {
            return Ok(false);
        }
        let parts = Arc::clone(&self.parts);
        let excluded = label.excluded.clone();
        let (mut row, signed, changes) = blocking(move || {
            // INVARIANT: handles and outputs are durable before a record carries them.
            parts.states.write(patient, &row, Batch::new())?;
            let inputs: BTreeSet<String> = inputs.into_iter().map(|(_, input)| input).collect();
            let registry = Arc::clone(&parts.registry.borrow());
            let plan = Plan {
                owner: &parts.me,
                label,
                entries: &entries,
                inputs: &inputs,
                policy: &registry.policy,
                now: parts.clock.now(),
            };
            let (signed, changes) = parts.sign(drafts(&plan, &row, &*parts.random)?)?;
            row.tokens
                .retain(|token| token.told.is_some() || inputs.contains(&token.input));
            Ok::<_, RefreshError>((row, signed, changes))
        })
        .await?;
        for records in signed.chunks(PUBLISH_RECORDS_MAX) {
            self.parts.index.publish(records.to_vec()).await?;
        }
        let handled: BTreeSet<RecordHandle> = changes.iter().map(|(handle, _)| *handle).collect();
        row.retired.retain(|retired| !handled.contains(&retired.handle));
        row.excluded = excluded;
        for (handle, told) in changes {
            for token in row.tokens.iter_mut().filter(|token| token.handle == handle) {
                token.told = told;
            }
            for document in row.documents.iter_mut().filter(|document| document.handle == handle) {
                document.told = told;
            }
        }
        let parts = Arc::clone(&self.parts);
        blocking(move || {
            let mut batch = Batch::new();
            for mark in marks {
                batch.delete(Table::PublishQueue, mark);
            }
            parts.states.write(patient, &row, batch)
        })
        .await?;
        Ok(true)
    }
}

impl Parts {
    /// Removes marks of a patient of whom nothing can be read any more.
    fn unmark(&self, marks: Vec<Vec<u8>>) -> Result<(), KvError> {
        let mut batch = Batch::new();
        for mark in marks {
            batch.delete(Table::PublishQueue, mark);
        }
        self.kv.commit(batch)
    }

    /// What is to be published of each patient, and the first failure that concerns one patient alone.
    fn views(&self, waiting: Waiting) -> Result<(Vec<View>, Option<RefreshError>), RefreshError> {
        let mut views = Vec::with_capacity(waiting.len());
        let mut failed = None;
        for (patient, marks) in waiting {
            match self.view(patient, marks) {
                Ok(view) => views.push(view),
                Err(error) if error.is_fatal() => return Err(error),
                Err(error) => {
                    warn!(%error, "index records of a patient wait for the next round");
                    failed.get_or_insert(error);
                }
            }
        }
        Ok((views, failed))
    }

    /// Gives every token an output and a handle, every document a handle; false when an output is missing.
    fn complete(
        &self,
        row: &mut LocatorRow,
        inputs: &BTreeSet<(u32, String)>,
        entries: &[Entry],
        outputs: &Outputs,
    ) -> Result<bool, RefreshError> {
        if !entries.is_empty() {
            for (_, input) in inputs {
                if row.tokens.iter().any(|token| token.input == *input) {
                    continue;
                }
                let Some(output) = outputs.get(input) else {
                    return Ok(false);
                };
                row.tokens.push(TokenRow {
                    input: input.clone(),
                    output: output.to_vec(),
                    handle: RecordHandle::new(random_bytes(&*self.random)?),
                    told: None,
                });
            }
        }
        for entry in entries {
            if row.documents.iter().all(|known| known.document != entry.id()) {
                row.documents.push(DocumentRow {
                    document: entry.id(),
                    handle: RecordHandle::new(random_bytes(&*self.random)?),
                    told: None,
                });
            }
        }
        Ok(true)
    }

    fn view(&self, patient: PatientKey, marks: Vec<Vec<u8>>) -> Result<View, RefreshError> {
        let now = self.clock.now();
        let person = self.patients.person(patient)?;
        let policy = self.policies.of(patient)?;
        let region = rules(&self.registry.borrow().policy);
        let mut excluded = excluded_organisations(&policy.directives, now);
        excluded.retain(|org| *org != self.me);
        excluded.sort();
        let mut entries = self.records.of_patient(patient)?;
        entries.retain(|entry| discoverable(&policy.directives, &region, &entry.facts(), now));
        if person.is_none() || excluded.len() > EXCLUDED_MAX {
            // A label that cannot name everybody who is excluded would reveal the record to the rest.
            entries.clear();
            excluded.clear();
        }
        let row = match self.states.read(patient, &*self.random) {
            Err(StateError::Vault(VaultError::Erased | VaultError::NoKey)) => LocatorRow {
                record_key: vec![0; 32],
                tokens: Vec::new(),
                documents: Vec::new(),
                excluded: Vec::new(),
                retired: Vec::new(),
            },
            row => row?,
        };
        let label = Label {
            confidentiality: Confidentiality::Normal,
            excluded,
            epoch: policy.epoch,
        };
        let epochs = epochs(&self.registry.borrow().policy.tokens);
        let published = person.iter().flat_map(|person| {
            epochs.iter().flat_map(|epoch| {
                let tokens = tokens::publish(&person.normal, *epoch);
                tokens.into_iter().map(|token| (*epoch, token.input))
            })
        });
        Ok(View {
            patient,
            marks,
            inputs: published.collect(),
            entries,
            label,
            row,
        })
    }

    #[expect(
        clippy::type_complexity,
        reason = "signed records and what each row says once they are held"
    )]
    fn sign(
        &self,
        drafts: Vec<Draft>,
    ) -> Result<
        (
            Vec<VerifiedRecord>,
            Vec<(RecordHandle, Option<hie_protocol::id::ContentHash>)>,
        ),
        RefreshError,
    > {
        let mut signed = Vec::with_capacity(drafts.len());
        let mut changes = Vec::with_capacity(drafts.len());
        for draft in drafts {
            let Draft { mut record, told } = draft;
            record.sequence = self.sequencer.next()?;
            changes.push((record.handle, told));
            signed.push(record.sign(&*self.signer)?);
        }
        Ok((signed, changes))
    }
}
