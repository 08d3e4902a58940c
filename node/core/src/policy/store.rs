//! Stored FHIR Consents and the directives they mean.
//!
//! Accepting a Consent stores it, moves the patient's epoch, marks her index records for re-labelling and
//! writes the audit entry in one commit. A stored Consent that can no longer be read denies everything: it
//! may mean any refusal (law 2).

use core::fmt;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hie_consent::directive::{Directive, DirectiveSource};
use hie_consent::fhir::{self, Fault};
use hie_protocol::id::{ConsentEpoch, Correlation, Millis, OrgId};
use hie_protocol::refusal::Class;
use serde_json::{Value, json};

use crate::audit::AuditError;
use crate::audit::event::{Actor, AuditEvent, EventKind, PatientRef};
use crate::audit::log::AuditLog;
use crate::catalogue::Table;
use crate::ids::PatientKey;
use crate::kv::{Batch, Kv, KvError, Scan};
use crate::policy::epoch::{Epochs, Watch};
use crate::ports::{NoRandomness, Random, random_bytes};
use crate::record::publish::mark;
use crate::vault::{KeyScope, Vault, VaultError};

/// Most Consents of one patient.
pub const CONSENTS_MAX: usize = 256;
/// Largest Consent resource, in bytes.
pub const CONSENT_BYTES_MAX: usize = 256 * 1024;
/// Patients whose directives are kept in memory.
pub const CACHED_MAX: usize = 4096;

/// Resolves a reference or OID URN to a member organisation.
pub type ResolveOrg = dyn Fn(&str) -> Option<OrgId> + Send + Sync;

/// Why a Consent is not taken or read.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// The resource says something that cannot be a directive.
    #[error("the Consent cannot be recorded: {}", faults(.0))]
    Faults(Vec<Fault>),
    /// A limit.
    #[error("over the limit of {what}")]
    Limit {
        /// Which.
        what: &'static str,
    },
    /// The id belongs to another patient.
    #[error("the id names a Consent of another patient")]
    Foreign,
    /// The audit log.
    #[error("the change cannot be recorded in the audit log")]
    Audit(#[from] AuditError),
    /// The store.
    #[error("the Consents cannot be read or written")]
    Store(#[from] KvError),
    /// The vault.
    #[error("the Consents cannot be opened or sealed")]
    Vault(#[from] VaultError),
    /// No random bytes.
    #[error("no id can be made")]
    Random(#[from] NoRandomness),
}

fn faults(faults: &[Fault]) -> String {
    faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

impl PolicyError {
    /// Who must act.
    #[must_use]
    pub const fn class(&self) -> Class {
        match self {
            Self::Faults(_) | Self::Limit { .. } | Self::Foreign => Class::Invalid,
            Self::Audit(error) => error.class(),
            Self::Store(error) => error.class(),
            Self::Vault(error) => error.class(),
            Self::Random(_) => Class::Broken,
        }
    }
}

/// A patient's choices, read together with their epoch.
#[derive(Debug)]
pub struct PatientPolicy {
    /// The epoch at which they were read.
    pub epoch: ConsentEpoch,
    /// The directives.
    pub directives: Vec<Directive>,
}

/// The stored choices.
pub struct Policies {
    kv: Arc<dyn Kv>,
    vault: Arc<Vault>,
    random: Arc<dyn Random>,
    audit: Arc<AuditLog>,
    resolve: Arc<ResolveOrg>,
    epochs: Epochs,
    cache: Mutex<HashMap<PatientKey, Arc<PatientPolicy>>>,
    writer: Mutex<()>,
}

impl fmt::Debug for Policies {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Policies")
    }
}

impl Policies {
    /// Choices over the store. `resolve` finds the member that a Consent names.
    #[must_use]
    pub fn new(
        kv: Arc<dyn Kv>,
        vault: Arc<Vault>,
        random: Arc<dyn Random>,
        audit: Arc<AuditLog>,
        resolve: Arc<ResolveOrg>,
    ) -> Self {
        let epochs = Epochs::new(Arc::clone(&kv));
        Self {
            kv,
            vault,
            random,
            audit,
            resolve,
            epochs,
            cache: Mutex::default(),
            writer: Mutex::new(()),
        }
    }

    /// Records a patient's choice; an id that is there already is replaced. Returns the resource with id and
    /// version once it is durable and in force here.
    ///
    /// Errors: every [`PolicyError`].
    pub fn accept(
        &self,
        patient: PatientKey,
        consent: &Value,
        actor: Actor,
        correlation: Correlation,
        now: Millis,
    ) -> Result<Value, PolicyError> {
        let _writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let mut consent = consent.clone();
        let named = consent
            .get("id")
            .and_then(Value::as_str)
            .and_then(|text| hex::decode(text).ok())
            .and_then(|bytes| <[u8; 16]>::try_from(bytes).ok());
        let id = named.map_or_else(|| random_bytes(&*self.random), Ok)?;
        if let Some(owner) = self.kv.get(Table::ConsentIds, &id)?
            && owner != patient.0
        {
            return Err(PolicyError::Foreign);
        }
        let key = [patient.0.as_slice(), &id].concat();
        let version = self
            .read_one(patient, &key)?
            .map_or(1, |before| version_of(&before).saturating_add(1));
        number(&mut consent, id, version);
        let _directive = fhir::read(&consent, &|name| (self.resolve)(name)).map_err(PolicyError::Faults)?;
        let bytes = consent.to_string().into_bytes();
        if bytes.len() > CONSENT_BYTES_MAX {
            return Err(PolicyError::Limit {
                what: "bytes of a Consent",
            });
        }
        if version == 1 && self.kv.scan(&Scan::of(Table::Consents, &patient.0))?.len() >= CONSENTS_MAX {
            return Err(PolicyError::Limit {
                what: "Consents of one patient",
            });
        }
        let mut batch = Batch::new();
        batch.put(
            Table::Consents,
            key.clone(),
            self.vault
                .seal(KeyScope::Patient(patient), Table::Consents, &key, &bytes)?,
        );
        batch.put(Table::ConsentIds, id, patient.0);
        let epoch = self.epochs.next(patient, &mut batch)?;
        mark(patient, &*self.random, &mut batch)?;
        let active = consent.get("status").and_then(Value::as_str) == Some("active");
        let kind = if active {
            EventKind::ConsentRecorded
        } else {
            EventKind::ConsentRevoked
        };
        let mut event = AuditEvent::new(kind, now, correlation, actor);
        event.patient = Some(PatientRef(self.vault.pseudonym(patient)));
        event.detail = Some(format!(
            "consent {} version {version}, epoch {}",
            hex::encode(id),
            epoch.0
        ));
        let _receipts = self.audit.append(vec![event], batch)?;
        self.epochs.moved(patient, epoch);
        self.cache().remove(&patient);
        Ok(consent)
    }

    /// The patient's directives and epoch. Errors: [`PolicyError`].
    pub fn of(&self, patient: PatientKey) -> Result<Arc<PatientPolicy>, PolicyError> {
        // INVARIANT: the epoch is read before the Consents, so that directives are never older than it says.
        let epoch = self.epochs.current(patient)?;
        if let Some(known) = self.cache().get(&patient)
            && known.epoch == epoch
        {
            return Ok(Arc::clone(known));
        }
        let directives = self
            .consents(patient)?
            .iter()
            .map(|consent| self.directive(consent))
            .collect();
        let policy = Arc::new(PatientPolicy { epoch, directives });
        let mut cache = self.cache();
        if cache.len() >= CACHED_MAX {
            cache.clear();
        }
        cache.insert(patient, Arc::clone(&policy));
        Ok(policy)
    }

    fn directive(&self, consent: &Value) -> Directive {
        fhir::read(consent, &|name| (self.resolve)(name)).unwrap_or_else(|_| {
            let resource = consent
                .get("id")
                .and_then(Value::as_str)
                .unwrap_or("unreadable")
                .to_owned();
            let source = DirectiveSource {
                resource: resource.clone(),
                version: version_of(consent).to_string(),
            };
            Directive::unreadable(&resource, source)
        })
    }

    /// Directives that a draft Consent would add or replace, for a preview. Errors: [`PolicyError`].
    pub fn with_draft(&self, patient: PatientKey, draft: &Value) -> Result<Vec<Directive>, PolicyError> {
        let mut drafted = draft.clone();
        // A preview asks what would hold: a draft is judged as the active Consent it is to become.
        if matches!(draft.get("status").and_then(Value::as_str), Some("draft" | "proposed"))
            && let Some(fields) = drafted.as_object_mut()
        {
            fields.insert("status".to_owned(), json!("active"));
        }
        let drafted = fhir::read(&drafted, &|name| (self.resolve)(name)).map_err(PolicyError::Faults)?;
        let replaced = draft.get("id").and_then(Value::as_str);
        let kept = self
            .consents(patient)?
            .into_iter()
            .filter(|consent| replaced.is_none() || consent.get("id").and_then(Value::as_str) != replaced);
        let mut directives: Vec<Directive> = kept.map(|consent| self.directive(&consent)).collect();
        directives.push(drafted);
        Ok(directives)
    }

    /// The stored Consent resources of a patient, in the order of their ids. Errors: [`PolicyError`].
    pub fn consents(&self, patient: PatientKey) -> Result<Vec<Value>, PolicyError> {
        let mut found = Vec::new();
        for (key, sealed) in self
            .kv
            .scan(&Scan::of(Table::Consents, &patient.0).limit(CONSENTS_MAX))?
        {
            found.push(self.opened(patient, &key, &sealed)?);
        }
        Ok(found)
    }

    /// A Consent by its logical id, with its patient. Errors: [`PolicyError`].
    pub fn consent(&self, id: &str) -> Result<Option<(PatientKey, Value)>, PolicyError> {
        let Some(id) = hex::decode(id).ok().filter(|bytes| bytes.len() == 16) else {
            return Ok(None);
        };
        let Some(patient) = self
            .kv
            .get(Table::ConsentIds, &id)?
            .and_then(|bytes| PatientKey::from_slice(&bytes))
        else {
            return Ok(None);
        };
        let key = [patient.0.as_slice(), &id].concat();
        Ok(self.read_one(patient, &key)?.map(|consent| (patient, consent)))
    }

    /// Watches the patient's epoch. Errors: [`PolicyError::Store`].
    pub fn watch(&self, patient: PatientKey) -> Result<Watch, PolicyError> {
        Ok(self.epochs.watch(patient)?)
    }

    fn read_one(&self, patient: PatientKey, key: &[u8]) -> Result<Option<Value>, PolicyError> {
        let sealed = self.kv.get(Table::Consents, key)?;
        sealed.map(|sealed| self.opened(patient, key, &sealed)).transpose()
    }

    fn opened(&self, patient: PatientKey, key: &[u8], sealed: &[u8]) -> Result<Value, PolicyError> {
        let plain = self
            .vault
            .open_value(KeyScope::Patient(patient), Table::Consents, key, sealed)?;
        // What cannot be read stands for a Consent that denies: the reader of an empty object is a refusal.
        Ok(serde_json::from_slice(&plain).unwrap_or(Value::Null))
    }

    fn cache(&self) -> MutexGuard<'_, HashMap<PatientKey, Arc<PatientPolicy>>> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes the logical id and the version into the resource.
fn number(consent: &mut Value, id: [u8; 16], version: u64) {
    if let Some(fields) = consent.as_object_mut() {
        fields.insert("id".to_owned(), Value::String(hex::encode(id)));
        let meta = fields.entry("meta").or_insert_with(|| json!({}));
        if let Some(meta) = meta.as_object_mut() {
            meta.insert("versionId".to_owned(), Value::String(version.to_string()));
        }
    }
}

fn version_of(consent: &Value) -> u64 {
    consent
        .pointer("/meta/versionId")
        .and_then(Value::as_str)
        .and_then(|text| text.parse().ok())
        .unwrap_or(0)
}
