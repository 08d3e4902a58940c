//! Where the tests find the public example files: `HIE_TEST_DATA`, else `../shared/data` beside the workspace. Without
//! the folder a corpus test says so and passes, except under `CI`, where it fails.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::path::{Path, PathBuf};

use crate::fhir::guard;

/// The folder `part` of the corpus, if it is there.
pub fn folder(part: &str) -> Option<PathBuf> {
    let root = std::env::var_os("HIE_TEST_DATA").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data"),
        PathBuf::from,
    );
    let folder = root.join(part);
    if folder.exists() {
        return Some(folder);
    }
    assert!(
        std::env::var_os("CI").is_none(),
        "the test data folder {part} is missing; set HIE_TEST_DATA"
    );
    eprintln!("SKIPPED: the test data folder {part} is not here; set HIE_TEST_DATA to run this test");
    None
}

/// All files below `folder`, sorted.
pub fn files(folder: &Path) -> Vec<PathBuf> {
    let mut open = vec![folder.to_owned()];
    let mut files = Vec::new();
    while let Some(next) = open.pop() {
        if next.is_dir() {
            open.extend(std::fs::read_dir(&next).unwrap().map(|entry| entry.unwrap().path()));
        } else {
            files.push(next);
        }
    }
    files.sort();
    files
}

/// A file's bytes, gunzipped when its name says so.
pub fn read(path: &Path) -> Vec<u8> {
    let bytes = std::fs::read(path).unwrap();
    if path.extension().is_some_and(|end| end == "gz") {
        guard::gunzip(&bytes, 1 << 30).unwrap()
    } else {
        bytes
    }
}

/// The rows of a CSV file with quoted fields, by column name.
pub fn csv(path: &Path) -> Vec<std::collections::HashMap<String, String>> {
    let text = String::from_utf8(std::fs::read(path).unwrap()).unwrap();
    let (mut rows, mut row, mut field, mut quoted) = (Vec::new(), Vec::new(), String::new(), false);
    let mut letters = text.chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            '"' if quoted && letters.peek() == Some(&'"') => field.push(letters.next().unwrap()),
            '"' => quoted = !quoted,
            ',' if !quoted => row.push(std::mem::take(&mut field)),
            '\n' if !quoted => {
                row.push(std::mem::take(&mut field).trim_end_matches('\r').to_owned());
                rows.push(std::mem::take(&mut row));
            }
            letter => field.push(letter),
        }
    }
    let head = rows.remove(0);
    rows.into_iter()
        .map(|row| head.iter().cloned().zip(row).collect())
        .collect()
}
