//! Attributes by name and by place: the DICOM dictionary's keywords (PS3.6) and the bytes behind a bulk data link.

use dicom_core::Tag;
use dicom_core::dictionary::{DataDictionary, DataDictionaryEntry};
use dicom_dictionary_std::StandardDataDictionary;

use crate::dicom::guard::{self, DicomError};
use crate::dicom::instance;

/// Deepest place of a bulk data link: tag, item, tag, ...
pub const PLACE_STEPS_MAX: usize = 2 * guard::DEPTH_MAX + 1;

/// The tag of a keyword (`PatientID`) or of eight hexadecimal digits (`00100020`), as `(ggggeeee)` in upper case.
#[must_use]
pub fn tag(name: &str) -> Option<String> {
    if name.len() == 8 && name.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Some(name.to_ascii_uppercase());
    }
    let keyword = (1..=64).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_alphanumeric());
    let entry = keyword.then(|| StandardDataDictionary.by_name(name)).flatten()?;
    let Tag(group, element) = entry.tag();
    Some(format!("{group:04X}{element:04X}"))
}

/// The bytes that a bulk data link of [`instance::metadata_json`] stands for: tag, item number from 1, tag, ... below a
/// part 10 file. Pixel data is asked for frame by frame.
pub fn bulk(bytes: &[u8], place: &[&str]) -> Result<Vec<u8>, DicomError> {
    let missing = || DicomError::Unsupported {
        reason: "there is no such bulk data".to_owned(),
    };
    if place.is_empty() || place.len() > PLACE_STEPS_MAX {
        return Err(missing());
    }
    let guarded = guard::scan(bytes)?;
    let whole = instance::attributes(&guarded)?;
    let mut object = &whole;
    let mut steps = place.iter();
    while let Some(step) = steps.next() {
        let element = read_tag(step).and_then(|tag| object.get(tag)).ok_or_else(missing)?;
        let Some(item) = steps.next() else {
            let value = element.value().to_bytes().map_err(|_| missing())?;
            return Ok(value.into_owned());
        };
        let item = item
            .parse::<usize>()
            .ok()
            .and_then(|item| item.checked_sub(1))
            .ok_or_else(missing)?;
        object = element
            .value()
            .items()
            .and_then(|items| items.get(item))
            .ok_or_else(missing)?;
    }
    Err(missing())
}

fn read_tag(text: &str) -> Option<Tag> {
    let group = u16::from_str_radix(text.get(..4)?, 16).ok()?;
    let element = u16::from_str_radix(text.get(4..8)?, 16).ok()?;
    (text.len() == 8).then_some(Tag(group, element))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

    use super::tag;

    #[test]
    fn keywords_and_tags_are_one() {
        assert_eq!(tag("PatientID").as_deref(), Some("00100020"));
        assert_eq!(tag("7fe00010").as_deref(), Some("7FE00010"));
        assert_eq!(tag("StudyInstanceUID").as_deref(), Some("0020000D"));
        for bad in ["", "Nonsense", "patientid ", "0010002", "é"] {
            assert_eq!(tag(bad), None, "{bad}");
        }
    }
}
