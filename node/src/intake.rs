//! Import: files become patients, documents and studies of this node. A broken part is listed and the rest goes on;
//! running the same import again makes no duplicates.

pub mod dicom;
pub mod fhir;

use std::path::{Path, PathBuf};

use serde_json::json;

use crate::fault::{Exit, Fault, Outcome};
use crate::order::Lines;

/// Most files of one import.
pub const FILES_MAX: usize = 2_000_000;
/// Deepest folder below the path given.
pub const FOLDERS_DEEP_MAX: usize = 16;

/// What a folder holds.
#[derive(Debug, Default)]
pub struct Found {
    /// FHIR files.
    pub fhir: Vec<PathBuf>,
    /// Common folder (or file) of the DICOM files.
    pub dicom: Option<PathBuf>,
    /// DICOM files.
    pub dicom_files: Vec<PathBuf>,
}

fn unreadable(path: &Path) -> impl FnOnce(std::io::Error) -> Fault + use<> {
    Fault::because(
        Exit::Usage,
        &format!("Cannot read {}.", path.display()),
        "Check the path and its permissions.",
    )
}

/// Files below a path, sorted; links are not followed.
pub fn files(path: &Path) -> Outcome<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut open = vec![(path.to_owned(), 0_usize)];
    while let Some((path, depth)) = open.pop() {
        let facts = std::fs::symlink_metadata(&path).map_err(unreadable(&path))?;
        if facts.is_dir() && depth < FOLDERS_DEEP_MAX {
            for entry in std::fs::read_dir(&path).map_err(unreadable(&path))? {
                open.push((entry.map_err(unreadable(&path))?.path(), depth.saturating_add(1)));
            }
        } else if facts.is_file() {
            found.push(path);
        }
        if found.len() > FILES_MAX {
            return Err(Fault::new(
                Exit::Usage,
                "Too many files.",
                format!("the limit is {FILES_MAX}"),
                "Import folder by folder.",
            ));
        }
    }
    found.sort();
    Ok(found)
}

/// Whether a file looks like FHIR by its name.
pub fn is_fhir_name(path: &Path) -> bool {
    let name = path
        .file_name()
        .map(|name| name.to_string_lossy().to_lowercase())
        .unwrap_or_default();
    [".json", ".json.gz", ".ndjson", ".ndjson.gz"]
        .iter()
        .any(|ending| name.ends_with(ending))
}

/// Sorts the files below a path into FHIR and DICOM.
pub fn walk(path: &Path) -> Outcome<Found> {
    let mut found = Found::default();
    for file in files(path)? {
        if is_fhir_name(&file) {
            found.fhir.push(file);
        } else if dicom::is_part10(&file) {
            found.dicom_files.push(file);
        }
    }
    found.dicom = common(&found.dicom_files);
    Ok(found)
}

/// The deepest folder that holds all of the files.
fn common(files: &[PathBuf]) -> Option<PathBuf> {
    let mut folder = files.first()?.parent()?.to_owned();
    while !files.iter().all(|file| file.starts_with(&folder)) {
        folder = folder.parent()?.to_owned();
    }
    Some(folder)
}

/// What an import did.
#[derive(Debug, Default)]
pub struct Tally {
    /// Patients seen.
    pub patients: u64,
    /// Documents new or changed.
    pub documents: u64,
    /// Instances new.
    pub instances: u64,
    /// Things already here.
    pub unchanged: u64,
    /// Rejected: place and reason.
    pub rejected: Vec<(String, String)>,
}

impl Tally {
    /// Remembers and shows a rejected part.
    pub async fn reject(&mut self, place: String, reason: String, lines: &Lines) {
        lines
            .data(
                format!("rejected  {place}: {reason}"),
                json!({ "rejected": place, "reason": reason }),
            )
            .await;
        self.rejected.push((place, reason));
    }

    /// Shows the sum and gives the exit code: partly done when something was rejected.
    pub async fn close(self, lines: &Lines) -> Exit {
        let text = format!(
            "Done. {} patient(s), {} document(s) and {} instance(s) stored, {} already here, {} rejected.",
            self.patients,
            self.documents,
            self.instances,
            self.unchanged,
            self.rejected.len(),
        );
        let value = json!({
            "patients": self.patients, "documents": self.documents, "instances": self.instances,
            "unchanged": self.unchanged, "rejected_count": self.rejected.len(),
        });
        lines.data(text, value).await;
        if self.rejected.is_empty() {
            Exit::Done
        } else {
            Exit::Partial
        }
    }
}
