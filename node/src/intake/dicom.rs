//! DICOM in: part-10 files become instances of a study that belongs to a patient of this node.
//!
//! The bytes are kept as they came; the guard of the dialect judges them before any library does.

use std::collections::BTreeSet;
use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt as _;
use hie_gateway_dialect::dicom::instance::{self, InstanceFacts};
use hie_node_core::content::ContentRef;
use hie_node_core::ids::PatientKey;
use hie_node_core::patient::index::PatientIndex;
use hie_node_core::record::entry::Records;
use hie_node_core::record::publish::{Intake, IntakeError, Occasion, StudyLabels, Taken};
use hie_node_core::record::study::NewInstance;
use hie_protocol::id::{ContentHash, OrgId};
use hie_protocol::message::{Demographics, PersonIdentifier, PersonName};
use hie_protocol::refusal::Class;
use hie_protocol::retrieval::{InstanceEntry, SeriesEntry};
use hie_protocol::vocabulary::Confidentiality;
use serde_json::{Map, Value, json};
use tokio::sync::{Mutex, MutexGuard, OwnedSemaphorePermit, Semaphore};

use super::fhir::imaging_source;
use super::{Tally, files};
use crate::alarm::Alarm;
use crate::fault::{Exit, Fault, Outcome, chain};
use crate::moment::dicom_date;
use crate::order::Lines;

/// Largest instance taken, in bytes.
pub const INSTANCE_BYTES_MAX: u64 = 1024 * 1024 * 1024;
/// Files of an import that are taken in at the same time: while one waits for the disk, others are read.
pub const FILES_AT_ONCE_MAX: usize = 8;
/// Memory that the files of an import take at the same time, in KiB; a larger one comes alone.
const FILES_AT_ONCE_KIB_MAX: u32 = 128 * 1024;
/// Attributes of the study level of QIDO-RS (PS3.18 table 10.6.3-3).
const STUDY: &[&str] = &[
    "00080005", "00080020", "00080030", "00080050", "00080090", "00080201", "00081030", "00100010", "00100020",
    "00100021", "00100030", "00100040", "0020000D", "00200010",
];
/// Attributes of the series level (table 10.6.3-4).
const SERIES: &[&str] = &[
    "00080060", "0008103E", "00080021", "00080031", "00180015", "0020000E", "00200011", "00400244", "00400245",
];
/// Attributes of the instance level (table 10.6.3-5).
const INSTANCE: &[&str] = &[
    "00080016", "00080018", "00200013", "00280008", "00280010", "00280011", "00280100", "00280002", "00280004",
];

/// Why an instance was not stored.
#[derive(Debug, thiserror::Error)]
pub enum StoreFault {
    /// Not readable as DICOM.
    #[error("{0}")]
    Unreadable(String),
    /// Readable, but not acceptable.
    #[error("{0}")]
    Refused(String),
    /// The store failed.
    #[error("{0}")]
    Broken(String),
}

/// What the intake of DICOM needs.
#[derive(Clone)]
pub struct DicomIntake {
    /// Raised when the store fails.
    pub alarm: Alarm,
    /// The records.
    pub intake: Arc<Intake>,
    /// The same, for reading.
    pub records: Records,
    /// The patients.
    pub patients: Arc<PatientIndex>,
    /// This organisation.
    pub organisation: OrgId,
    /// Its name.
    pub name: String,
    /// One after the other, where instances have one name.
    pub turns: Arc<Turns>,
}

/// Lanes of [`Turns`].
const TURNS: usize = 64;

/// Instances with one SOP Instance UID are judged one after the other, in the order of their coming: of two with other
/// bytes the first is kept, and neither overtakes the other between being looked for and being kept.
#[derive(Debug, Default)]
pub struct Turns(Vec<Mutex<()>>);

impl Turns {
    /// Nobody waits yet.
    #[must_use]
    pub fn new() -> Self {
        Self((0..TURNS).map(|_| Mutex::default()).collect())
    }

    async fn of(&self, uid: &str) -> Option<MutexGuard<'_, ()>> {
        let sum = uid.bytes().fold(0_usize, |sum, byte| {
            sum.wrapping_mul(31).wrapping_add(usize::from(byte))
        });
        Some(self.0.get(sum % TURNS)?.lock().await)
    }
}

/// An instance that was read and is not kept yet.
struct Read {
    bytes: Bytes,
    facts: InstanceFacts,
    metadata: Value,
}

/// Whether a file starts like DICOM: the prefix, or a plausible group 0002 or 0008 element.
#[must_use]
pub fn is_part10(path: &Path) -> bool {
    let mut head = [0_u8; 132];
    let Ok(mut file) = std::fs::File::open(path) else {
        return false;
    };
    let Ok(read) = file.read(&mut head) else { return false };
    let start = head.get(..read).unwrap_or_default();
    start.get(128..132) == Some(b"DICM".as_slice()) || matches!(start.get(..4), Some([0x02 | 0x08, 0, _, 0]))
}

/// An instance that is durable.
#[derive(Clone, Debug)]
pub struct StoredFacts {
    /// What it says.
    pub facts: InstanceFacts,
    /// Whether it was new.
    pub changed: bool,
}

impl DicomIntake {
    /// Stores one instance durably. Errors: [`StoreFault`].
    pub async fn store(&self, bytes: Bytes, occasion: &Occasion) -> Result<StoredFacts, StoreFault> {
        let read = read_instance(bytes).await?;
        self.keep(read, occasion).await
    }

    /// Keeps one instance durably, after those of its name that came before.
    async fn keep(&self, read: Read, occasion: &Occasion) -> Result<StoredFacts, StoreFault> {
        let _turn = self.turns.of(&read.facts.sop_uid).await;
        let stored = self.take(read, occasion).await;
        if let Err(StoreFault::Broken(why)) = &stored {
            self.alarm.raise(why);
        }
        stored
    }

    async fn take(&self, read: Read, occasion: &Occasion) -> Result<StoredFacts, StoreFault> {
        let Read { bytes, facts, metadata } = read;
        let patient = self.patient(&facts, occasion).await?;
        if let Some(known) = self.known(&facts)? {
            if known == crate::authority::enrol::sha256(&bytes) {
                return Ok(StoredFacts { facts, changed: false });
            }
            let why = "another instance with this SOP Instance UID is stored here, with other bytes";
            return Err(StoreFault::Refused(why.to_owned()));
        }
        let size = bytes.len() as u64;
        let plain = futures::stream::iter([Ok(bytes)]).boxed();
        let content = self.intake.store(patient, plain).await.map_err(broken)?;
        let taken = self.commit(patient, &facts, metadata, content, size, occasion).await?;
        if taken.changed {
            self.retire_description(patient, &facts, occasion).await?;
        }
        Ok(StoredFacts {
            facts,
            changed: taken.changed,
        })
    }

    /// Hash of the instance if it is stored here.
    fn known(&self, facts: &InstanceFacts) -> Result<Option<ContentHash>, StoreFault> {
        self.records
            .instance_hash(&facts.study_uid, &facts.series_uid, &facts.sop_uid)
            .map_err(|error| StoreFault::Broken(chain(&error)))
    }

    async fn commit(
        &self,
        patient: PatientKey,
        facts: &InstanceFacts,
        metadata: Value,
        content: ContentRef,
        size: u64,
        occasion: &Occasion,
    ) -> Result<Taken, StoreFault> {
        let modality = facts.modality.clone().unwrap_or_else(|| "OT".to_owned());
        let new = NewInstance {
            study_uid: facts.study_uid.clone(),
            study_description: facts.study_description.clone(),
            study_date: facts.study_date.clone(),
            series: SeriesEntry {
                series_uid: facts.series_uid.clone(),
                modality: modality.clone(),
                number: facts.series_number,
                description: facts.series_description.clone(),
                body_part: facts.body_part.clone(),
                instances: Vec::new(),
            },
            instance: InstanceEntry {
                sop_uid: facts.sop_uid.clone(),
                sop_class: facts.sop_class.clone(),
                transfer_syntax: facts.transfer_syntax.clone(),
                number: facts.instance_number,
                extent: (
                    facts.rows.unwrap_or(0),
                    facts.columns.unwrap_or(0),
                    if facts.has_pixels { facts.frames } else { 0 },
                ),
                size,
                hash: content.hash,
            },
            content,
            attributes: [
                level(&metadata, STUDY),
                level(&metadata, SERIES),
                level(&metadata, INSTANCE),
            ],
        };
        let labels = StudyLabels {
            title: facts
                .study_description
                .clone()
                .unwrap_or_else(|| format!("Imaging study ({modality})")),
            author: Some(self.name.clone()),
            confidentiality: Confidentiality::Normal,
            author_org: Some(self.organisation.clone()),
        };
        let (intake, occasion) = (Arc::clone(&self.intake), occasion.clone());
        let work = tokio::task::spawn_blocking(move || intake.instance(patient, &new, &labels, &occasion));
        work.await
            .map_err(|error| StoreFault::Broken(error.to_string()))?
            .map_err(broken)
    }

    /// A description of the study that came without images is replaced by the images.
    async fn retire_description(
        &self,
        patient: PatientKey,
        facts: &InstanceFacts,
        occasion: &Occasion,
    ) -> Result<(), StoreFault> {
        let source = imaging_source(&facts.study_uid);
        let (intake, occasion) = (Arc::clone(&self.intake), occasion.clone());
        let work = tokio::task::spawn_blocking(move || intake.retire(patient, &source, &occasion));
        work.await
            .map_err(|error| StoreFault::Broken(error.to_string()))?
            .map(|_| ())
            .map_err(broken)
    }

    /// A modality seldom knows the URI of the record number's issuer: the number itself, with name and birth date
    /// that agree, names a patient of this organisation when it names only one.
    fn by_number_and_name(&self, id: Option<&str>, who: &Demographics) -> Result<Option<PatientKey>, StoreFault> {
        let (Some(id), Some(born)) = (id, who.birth_date.as_ref()) else {
            return Ok(None);
        };
        let found = self
            .patients
            .identify(who)
            .map_err(|error| StoreFault::Broken(chain(&error)))?;
        let mut fitting = found.iter().filter(|candidate| {
            let known = &candidate.person.demographics;
            candidate.verdict.grade.is_some()
                && known.birth_date.as_ref() == Some(born)
                && known.identifiers.iter().any(|identifier| identifier.value == id.trim())
        });
        let first = fitting.next().map(|candidate| candidate.person.key);
        Ok(if fitting.next().is_none() { first } else { None })
    }

    /// The patient of an instance: known by its Patient ID and issuer, or registered from the header.
    async fn patient(&self, facts: &InstanceFacts, occasion: &Occasion) -> Result<PatientKey, StoreFault> {
        let id = facts.patient_id.clone().filter(|id| !id.trim().is_empty());
        let who = demographics(facts, &self.organisation);
        if let Some(identifier) = who.identifiers.first() {
            let known = self.patients.by_identifier(&identifier.system, &identifier.value);
            let known = known.map_err(|error| StoreFault::Broken(chain(&error)))?;
            if let [only] = known.as_slice() {
                let person = self
                    .patients
                    .person(*only)
                    .map_err(|error| StoreFault::Broken(chain(&error)))?;
                let agrees = person.is_some_and(|person| {
                    let born = (person.demographics.birth_date, who.birth_date.clone());
                    !matches!(born, (Some(here), Some(there)) if here != there)
                });
                if agrees {
                    return Ok(*only);
                }
            }
        }
        if let Some(known) = self.by_number_and_name(id.as_deref(), &who)? {
            return Ok(known);
        }
        if id.is_none() && who.names.is_empty() {
            return Err(StoreFault::Refused(
                "it names no patient: neither Patient ID nor Patient's Name".to_owned(),
            ));
        }
        let source = format!(
            "dicom|{}|{}|{}",
            facts.patient_id_issuer.as_deref().unwrap_or(""),
            id.as_deref().unwrap_or(""),
            facts.patient_name.as_deref().unwrap_or(""),
        );
        let resource = patient_resource(&who);
        let (intake, occasion) = (Arc::clone(&self.intake), occasion.clone());
        let work = tokio::task::spawn_blocking(move || intake.patient(&source, &resource, &who, &occasion));
        let registered = work
            .await
            .map_err(|error| StoreFault::Broken(error.to_string()))?
            .map_err(broken)?;
        Ok(registered.patient)
    }
}

fn broken(error: IntakeError) -> StoreFault {
    match error.class() {
        Class::Broken | Class::Unavailable => StoreFault::Broken(chain(&error)),
        Class::Invalid | Class::Refused | Class::Misbehaved => StoreFault::Refused(chain(&error)),
    }
}

/// The attributes of one level as a DICOM JSON object.
fn level(metadata: &Value, tags: &[&str]) -> Vec<u8> {
    let chosen: Map<String, Value> = tags
        .iter()
        .filter_map(|tag| metadata.get(*tag).map(|value| ((*tag).to_owned(), value.clone())))
        .collect();
    Value::Object(chosen).to_string().into_bytes()
}

/// Who the header says the patient is.
fn demographics(facts: &InstanceFacts, organisation: &OrgId) -> Demographics {
    let system = facts
        .patient_id_issuer
        .clone()
        .filter(|issuer| !issuer.trim().is_empty());
    let system = system.unwrap_or_else(|| format!("{organisation}.2"));
    let id = facts
        .patient_id
        .clone()
        .map(|id| id.trim().to_owned())
        .filter(|id| !id.is_empty());
    let name = facts
        .patient_name
        .as_deref()
        .map(|name| name.split('=').next().unwrap_or_default());
    let names = name.into_iter().filter_map(|name| {
        let mut parts = name.split('^');
        let family = parts.next().unwrap_or_default().trim().to_owned();
        let given: Vec<String> = parts
            .by_ref()
            .take(2)
            .map(|part| part.trim().to_owned())
            .filter(|part| !part.is_empty())
            .collect();
        let some = |part: Option<&str>| part.map(|part| part.trim().to_owned()).filter(|part| !part.is_empty());
        let (prefix, suffix) = (some(parts.next()), some(parts.next()));
        (!family.is_empty() || !given.is_empty()).then_some(PersonName {
            family,
            given,
            prefix,
            suffix,
        })
    });
    let sex = match facts.sex.as_deref() {
        Some("M") => Some("male"),
        Some("F") => Some("female"),
        Some("O") => Some("other"),
        _ => None,
    };
    Demographics {
        names: names.collect(),
        birth_date: facts.birth_date.as_deref().and_then(dicom_date),
        sex: sex.map(str::to_owned),
        identifiers: id
            .into_iter()
            .map(|value| PersonIdentifier {
                system: system.clone(),
                value,
            })
            .collect(),
        addresses: Vec::new(),
        telecoms: Vec::new(),
    }
}

/// A FHIR Patient of the header's demographics.
fn patient_resource(who: &Demographics) -> Value {
    let mut patient = json!({ "resourceType": "Patient" });
    if let Some(map) = patient.as_object_mut() {
        let list = |items: Vec<Value>| Value::Array(items);
        let identifiers = who
            .identifiers
            .iter()
            .map(|one| json!({ "system": one.system, "value": one.value }))
            .collect();
        map.insert("identifier".into(), list(identifiers));
        let names = who
            .names
            .iter()
            .map(|name| json!({ "family": name.family, "given": name.given }))
            .collect();
        map.insert("name".into(), list(names));
        if let Some(sex) = &who.sex {
            map.insert("gender".into(), json!(sex));
        }
        if let Some(born) = &who.birth_date {
            map.insert("birthDate".into(), json!(born));
        }
    }
    patient
}

async fn read_instance(bytes: Bytes) -> Result<Read, StoreFault> {
    let read = bytes.clone();
    let work = tokio::task::spawn_blocking(move || {
        let facts = instance::read(&read)?;
        let metadata = instance::metadata_json(&read, "")?;
        Ok::<_, hie_gateway_dialect::dicom::guard::DicomError>((facts, metadata))
    });
    let (facts, metadata) = work
        .await
        .map_err(|error| StoreFault::Broken(error.to_string()))?
        .map_err(|error| StoreFault::Unreadable(error.to_string()))?;
    Ok(Read { bytes, facts, metadata })
}

/// What became of a file.
enum Fate {
    /// Too large, or not readable.
    Rejected(String),
    /// It would be taken.
    Readable,
    /// Judged by the intake.
    Judged(Result<Box<StoredFacts>, StoreFault>),
}

/// A file that was read, with its share of the memory, or what became of it.
type Opened = Result<(Box<Read>, OwnedSemaphorePermit), Fate>;

/// Reads one file. Errors: what becomes of a file that is not to be stored.
async fn open(file: &Path, dry_run: bool, memory: Arc<Semaphore>) -> Opened {
    let size = std::fs::metadata(file).map_or(u64::MAX, |facts| facts.len());
    if size > INSTANCE_BYTES_MAX {
        let why = format!("it is larger than {INSTANCE_BYTES_MAX} bytes");
        return Err(Fate::Rejected(why));
    }
    let share = u32::try_from(size / 1024)
        .unwrap_or(u32::MAX)
        .clamp(1, FILES_AT_ONCE_KIB_MAX);
    let rejected = |why: String| Fate::Rejected(why);
    let share = memory.acquire_many_owned(share).await;
    let share = share.map_err(|error| rejected(error.to_string()))?;
    let bytes = tokio::fs::read(file).await;
    let bytes = bytes.map_err(|error| rejected(error.to_string()))?;
    if dry_run {
        let read = instance::read(&bytes);
        return Err(read.map_or_else(|error| rejected(error.to_string()), |_| Fate::Readable));
    }
    match read_instance(Bytes::from(bytes)).await {
        Ok(read) => Ok((Box::new(read), share)),
        Err(fault) => Err(Fate::Judged(Err(fault))),
    }
}

/// Imports every DICOM file below a path.
pub async fn import(
    this: &DicomIntake,
    path: &Path,
    dry_run: bool,
    occasion: &Occasion,
    lines: &Lines,
) -> Outcome<Exit> {
    let found: Vec<_> = files(path)?;
    let total = found.len() as u64;
    let memory = Arc::new(Semaphore::new(FILES_AT_ONCE_KIB_MAX as usize));
    let opened = found.into_iter().map(|file| {
        let memory = Arc::clone(&memory);
        async move {
            let opened = open(&file, dry_run, memory).await;
            (file, opened)
        }
    });
    // INVARIANT: files take their turns in the order of their names, so that of two instances with one UID and other
    // bytes the same one is kept on every run.
    let opened = futures::stream::iter(opened).buffered(FILES_AT_ONCE_MAX);
    let taken = opened.map(|(file, opened)| async move {
        let fate = match opened {
            Ok((read, _share)) => Fate::Judged(this.keep(*read, occasion).await.map(Box::new)),
            Err(fate) => fate,
        };
        (file, fate)
    });
    let mut taken = taken.buffered(FILES_AT_ONCE_MAX);
    let (mut tally, mut studies, mut done) = (Tally::default(), BTreeSet::new(), 0_u64);
    while let Some((file, fate)) = taken.next().await {
        let place = file.display().to_string();
        match fate {
            Fate::Rejected(why) => tally.reject(place, why, lines).await,
            Fate::Readable => tally.instances = tally.instances.saturating_add(1),
            Fate::Judged(Ok(stored)) => {
                if studies.insert(stored.facts.study_uid.clone()) {
                    let uid = &stored.facts.study_uid;
                    lines.data(format!("study     {uid}"), json!({ "study": uid })).await;
                }
                let count = if stored.changed {
                    &mut tally.instances
                } else {
                    &mut tally.unchanged
                };
                *count = count.saturating_add(1);
            }
            Fate::Judged(Err(StoreFault::Broken(why))) => {
                return Err(Fault::new(
                    Exit::Failed,
                    "The store failed.",
                    why,
                    "Mend the store, then run the import again.",
                ));
            }
            Fate::Judged(Err(error)) => tally.reject(place, error.to_string(), lines).await,
        }
        done = done.saturating_add(1);
        lines
            .progress(done, total, format!("rejected {}", tally.rejected.len()))
            .await;
    }
    Ok(tally.close(lines).await)
}
