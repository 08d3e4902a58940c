//! Imaging studies: one document entry for each study, growing as its instances arrive.
//!
//! Rows of study, series and instance carry the DICOM attributes that queries answer, so that a query opens
//! no file. Viewing order is series by number and UID, then instances by number and UID. An instance that
//! comes again with equal bytes changes nothing; with other bytes it is refused, because its UID promises
//! equality (DICOM PS3.5 section 9).

use hie_protocol::id::{ContentHash, DocumentId, Millis};
use hie_protocol::record::ImagingSummary;
use hie_protocol::retrieval::{INSTANCES_MAX, InstanceEntry, SeriesEntry, StudyManifest};
use serde::{Deserialize, Serialize};

use crate::catalogue::Table;
use crate::content::ContentRef;
use crate::ids::PatientKey;
use crate::kv::{Batch, SCAN_LIMIT_MAX, Scan};
use crate::record::entry::{Entry, PRESENT, RecordError, Records, owned};
use crate::versioned::Stored;

/// Largest attributes of one level, in bytes of DICOM JSON.
pub const ATTRIBUTES_BYTES_MAX: usize = 64 * 1024;

/// One instance as it arrives, with what its file says about study and series.
#[derive(Clone)]
pub struct NewInstance {
    /// Study Instance UID.
    pub study_uid: String,
    /// Study description.
    pub study_description: Option<String>,
    /// DICOM DA of the study.
    pub study_date: Option<String>,
    /// The series, without instances.
    pub series: SeriesEntry,
    /// The instance.
    pub instance: InstanceEntry,
    /// Its bytes, already durable in the content store under the patient's key.
    pub content: ContentRef,
    /// DICOM JSON attributes of study, series and instance.
    pub attributes: [Vec<u8>; 3],
}

#[derive(Clone, Serialize, Deserialize)]
struct StudyRow {
    document: DocumentId,
    uid: String,
    description: Option<String>,
    date: Option<String>,
    modalities: Vec<String>,
    series: u32,
    instances: u32,
    bytes: u64,
    #[serde(with = "hie_protocol::bytes")]
    attributes: Vec<u8>,
}

#[derive(Clone, Serialize, Deserialize)]
struct SeriesRow {
    entry: SeriesEntry,
    #[serde(with = "hie_protocol::bytes")]
    attributes: Vec<u8>,
}

#[derive(Clone, Serialize, Deserialize)]
struct InstanceRow {
    entry: InstanceEntry,
    content: ContentRef,
    #[serde(with = "hie_protocol::bytes")]
    attributes: Vec<u8>,
}

impl StudyRow {
    /// The row of a study whose first instance is `new`, still without it.
    fn empty(document: DocumentId, new: &NewInstance, attributes: Vec<u8>) -> Self {
        Self {
            document,
            uid: new.study_uid.clone(),
            description: new.study_description.clone(),
            date: new.study_date.clone(),
            modalities: Vec::new(),
            series: 0,
            instances: 0,
            bytes: 0,
            attributes,
        }
    }
}

impl Stored for StudyRow {
    const VERSION: u8 = 1;
}
impl Stored for SeriesRow {
    const VERSION: u8 = 1;
}
impl Stored for InstanceRow {
    const VERSION: u8 = 1;
}

/// What became of an instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Added {
    /// Stored; the study has these counts now.
    Stored(ImagingSummary, u64),
    /// Already there with equal bytes.
    Unchanged,
}

/// One instance with its place in the study.
#[derive(Clone)]
pub struct StudyInstance {
    /// Its series, without instances.
    pub series: SeriesEntry,
    /// The instance.
    pub entry: InstanceEntry,
    /// Its bytes.
    pub(super) content: ContentRef,
    /// DICOM JSON attributes of the instance.
    pub attributes: Vec<u8>,
}

/// A study of this node, for queries.
#[derive(Clone)]
pub struct StudyRecord {
    /// The document entry of the study.
    pub document: DocumentId,
    /// Whose.
    pub patient: PatientKey,
    /// Study Instance UID.
    pub uid: String,
    /// Modalities, series and instances.
    pub modalities: Vec<String>,
    /// Number of series.
    pub series: u32,
    /// Number of instances.
    pub instances: u32,
    /// DICOM JSON attributes of the study.
    pub attributes: Vec<u8>,
}

impl Records {
    /// The study of a UID. Errors: [`RecordError`].
    pub fn study(&self, uid: &str) -> Result<Option<StudyRecord>, RecordError> {
        Ok(self.study_row(uid)?.map(|(patient, row)| StudyRecord {
            document: row.document,
            patient,
            uid: row.uid,
            modalities: row.modalities,
            series: row.series,
            instances: row.instances,
            attributes: row.attributes,
        }))
    }

    fn study_row(&self, uid: &str) -> Result<Option<(PatientKey, StudyRow)>, RecordError> {
        let key = self.study_key(uid);
        let Some(stored) = self.kv.get(Table::Studies, &key)? else {
            return Ok(None);
        };
        let Some((patient, sealed)) = owned(&stored) else {
            return Ok(None);
        };
        Ok(self
            .open(patient, Table::Studies, &key, sealed)?
            .map(|row| (patient, row)))
    }

    /// Adds an instance to the rows of its study under the document id `document` (the study's own when it
    /// exists). The caller writes the document entry with the counts. Errors: [`RecordError`].
    pub fn add_instance(
        &self,
        patient: PatientKey,
        document: DocumentId,
        new: &NewInstance,
        batch: &mut Batch,
    ) -> Result<Added, RecordError> {
        if new.attributes.iter().any(|level| level.len() > ATTRIBUTES_BYTES_MAX) {
            return Err(RecordError::Limit {
                what: "attributes of one level",
            });
        }
        let [study_attributes, series_attributes, instance_attributes] = new.attributes.clone();
        let study_key = self.study_key(&new.study_uid);
        let series_key = self.key_below(&study_key, "series", &new.series.series_uid);
        let instance_key = self.key_below(&series_key, "instance", &new.instance.sop_uid);
        let found = self.study_row(&new.study_uid)?;
        if found.as_ref().is_some_and(|(owner, _)| *owner != patient) {
            return Err(RecordError::Conflict {
                what: "the study belongs to another patient",
            });
        }
        if self.has_instance(patient, &instance_key, &new.instance)? {
            return Ok(Added::Unchanged);
        }
        let mut row = found.map_or_else(|| StudyRow::empty(document, new, study_attributes), |(_, row)| row);
        if usize::try_from(row.instances).unwrap_or(usize::MAX) >= INSTANCES_MAX {
            return Err(RecordError::Limit {
                what: "instances of one study",
            });
        }
        if self.kv.get(Table::Series, &series_key)?.is_none() {
            row.series = row.series.saturating_add(1);
            if !row.modalities.contains(&new.series.modality) {
                row.modalities.push(new.series.modality.clone());
            }
            let series = SeriesRow {
                entry: SeriesEntry {
                    instances: Vec::new(),
                    ..new.series.clone()
                },
                attributes: series_attributes,
            };
            self.seal(patient, Table::Series, &series_key, &series, batch)?;
        }
        row.instances = row.instances.saturating_add(1);
        row.bytes = row.bytes.saturating_add(new.instance.size);
        let instance = InstanceRow {
            entry: new.instance.clone(),
            content: new.content,
            attributes: instance_attributes,
        };
        self.seal(patient, Table::Instances, &instance_key, &instance, batch)?;
        self.seal(patient, Table::Studies, &study_key, &row, batch)?;
        batch.put(
            Table::StudiesByPatient,
            [patient.0.as_slice(), &study_key].concat(),
            [PRESENT],
        );
        let imaging = ImagingSummary {
            study_uid: row.uid,
            modalities: row.modalities,
            body_part: new.series.body_part.clone(),
            series: row.series,
            instances: row.instances,
        };
        Ok(Added::Stored(imaging, row.bytes))
    }

    fn key_below(&self, above: &[u8], level: &'static str, uid: &str) -> Vec<u8> {
        [above, &self.vault.blind_key(level, uid.as_bytes())].concat()
    }

    /// Whether the instance is here with equal bytes; with other bytes it is a conflict.
    fn has_instance(&self, patient: PatientKey, key: &[u8], new: &InstanceEntry) -> Result<bool, RecordError> {
        let Some(stored) = self.kv.get(Table::Instances, key)? else {
            return Ok(false);
        };
        let Some((_, sealed)) = owned(&stored) else {
            return Ok(false);
        };
        match self.open::<InstanceRow>(patient, Table::Instances, key, sealed)? {
            None => Ok(false),
            Some(row) if row.entry.hash == new.hash => Ok(true),
            Some(_) => Err(RecordError::Conflict {
                what: "the instance is here with other bytes",
            }),
        }
    }

    /// The hash of an instance, if it is here. Errors: [`RecordError`].
    pub fn instance_hash(&self, study: &str, series: &str, sop: &str) -> Result<Option<ContentHash>, RecordError> {
        let series_key = self.key_below(&self.study_key(study), "series", series);
        let key = self.key_below(&series_key, "instance", sop);
        let Some(stored) = self.kv.get(Table::Instances, &key)? else {
            return Ok(None);
        };
        let Some((patient, sealed)) = owned(&stored) else {
            return Ok(None);
        };
        let row = self.open::<InstanceRow>(patient, Table::Instances, &key, sealed)?;
        Ok(row.map(|row| row.entry.hash))
    }

    /// Every instance of a study in viewing order. Errors: [`RecordError`].
    pub fn instances(&self, uid: &str) -> Result<Vec<StudyInstance>, RecordError> {
        let key = self.study_key(uid);
        let mut series: Vec<(Vec<u8>, SeriesEntry)> = Vec::new();
        for (at, stored) in self.kv.scan(&Scan::of(Table::Series, &key))? {
            let Some((patient, sealed)) = owned(&stored) else {
                continue;
            };
            series.extend(
                self.open::<SeriesRow>(patient, Table::Series, &at, sealed)?
                    .map(|row| (at, row.entry)),
            );
        }
        series.sort_by(|(_, left), (_, right)| {
            (number(left.number), &left.series_uid).cmp(&(number(right.number), &right.series_uid))
        });
        let mut all = Vec::new();
        for (prefix, series) in series {
            let mut rows = self.instance_rows(&prefix)?;
            rows.sort_by(|left, right| {
                (number(left.entry.number), &left.entry.sop_uid)
                    .cmp(&(number(right.entry.number), &right.entry.sop_uid))
            });
            all.extend(rows.into_iter().map(|row| StudyInstance {
                series: series.clone(),
                entry: row.entry,
                content: row.content,
                attributes: row.attributes,
            }));
        }
        Ok(all)
    }

    fn instance_rows(&self, prefix: &[u8]) -> Result<Vec<InstanceRow>, RecordError> {
        let mut rows = Vec::new();
        let mut after: Vec<u8> = Vec::new();
        loop {
            let scan = Scan::of(Table::Instances, prefix);
            let pairs = self
                .kv
                .scan(&if after.is_empty() { scan } else { scan.after(&after) })?;
            let whole = pairs.len() < SCAN_LIMIT_MAX;
            for (key, stored) in pairs {
                if let Some((patient, sealed)) = owned(&stored) {
                    rows.extend(self.open::<InstanceRow>(patient, Table::Instances, &key, sealed)?);
                }
                after = key;
            }
            if whole || rows.len() >= INSTANCES_MAX {
                return Ok(rows);
            }
        }
    }

    /// The attributes of the series of a study: (series, DICOM JSON). Errors: [`RecordError`].
    pub fn series(&self, uid: &str) -> Result<Vec<(SeriesEntry, Vec<u8>)>, RecordError> {
        let mut found = Vec::new();
        for (at, stored) in self.kv.scan(&Scan::of(Table::Series, &self.study_key(uid)))? {
            let Some((patient, sealed)) = owned(&stored) else {
                continue;
            };
            found.extend(
                self.open::<SeriesRow>(patient, Table::Series, &at, sealed)?
                    .map(|row| (row.entry, row.attributes)),
            );
        }
        Ok(found)
    }

    /// The manifest of a study entry, in viewing order. Errors: [`RecordError`].
    pub fn manifest(&self, entry: &Entry) -> Result<Option<StudyManifest>, RecordError> {
        let Some(uid) = entry.meta.imaging.as_ref().map(|imaging| imaging.study_uid.clone()) else {
            return Ok(None);
        };
        let Some((_, row)) = self.study_row(&uid)? else {
            return Ok(None);
        };
        let mut manifest = StudyManifest {
            study_uid: uid.clone(),
            description: row.description,
            date: row.date,
            series: Vec::new(),
        };
        for instance in self.instances(&uid)? {
            if manifest
                .series
                .last()
                .is_none_or(|last| last.series_uid != instance.series.series_uid)
            {
                manifest.series.push(instance.series.clone());
            }
            if let Some(last) = manifest.series.last_mut() {
                last.instances.push(instance.entry);
            }
        }
        Ok(Some(manifest))
    }

    /// Studies in the order of their (blinded) keys, for queries without a UID; `limit` at most 4096.
    /// Errors: [`RecordError`].
    pub fn studies(&self, limit: usize) -> Result<Vec<StudyRecord>, RecordError> {
        let mut found = Vec::new();
        for (key, stored) in self.kv.scan(&Scan::of(Table::Studies, &[]).limit(limit))? {
            let Some((patient, sealed)) = owned(&stored) else {
                continue;
            };
            let Some(row) = self.open::<StudyRow>(patient, Table::Studies, &key, sealed)? else {
                continue;
            };
            found.extend(self.study(&row.uid)?);
        }
        Ok(found)
    }

    fn study_key(&self, uid: &str) -> [u8; 16] {
        self.vault.blind_key("study", uid.as_bytes())
    }
}

/// Series and instances without a number come last.
const fn number(number: Option<i64>) -> i64 {
    match number {
        Some(number) => number,
        None => i64::MAX,
    }
}

/// `YYYYMMDD` of DICOM as the time of its midnight, UTC; none when it is no date.
#[must_use]
pub fn da_millis(date: &str) -> Option<Millis> {
    let part = |from: usize, to: usize| date.get(from..to).and_then(|text| text.parse::<i64>().ok());
    let (year, month, day) = (part(0, 4)?, part(4, 6)?, part(6, 8)?);
    if date.len() != 8 || !(1..=12).contains(&month) || !(1..=31).contains(&day) || year < 1970 {
        return None;
    }
    // Days since 1970-01-01 in the proleptic Gregorian calendar, with March as the first month.
    let shifted = if month <= 2 { year - 1 } else { year };
    let era = shifted / 400;
    let year_of_era = shifted - era * 400;
    let month_from_march = (month + 9) % 12;
    let day_of_year = (153 * month_from_march + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    let days = era * 146_097 + day_of_era - 719_468;
    u64::try_from(days).ok().map(|days| Millis(days * 86_400_000))
}
