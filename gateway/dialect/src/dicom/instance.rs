//! What one DICOM instance says of itself: the attributes that index, query and viewer need, its metadata as DICOM
//! JSON (PS3.18 annex F), and its frames as stored.
//!
//! Everything here goes through the guard first. Texts are decoded by the file's Specific Character Set.

use dicom_core::header::Header;
use dicom_core::{Tag, VR};
use dicom_dictionary_std::{StandardDataDictionary, tags};
use dicom_encoding::transfer_syntax::TransferSyntaxIndex;
use dicom_object::InMemDicomObject;
use dicom_transfer_syntax_registry::TransferSyntaxRegistry;
use encoding::all::ISO_2022_JP;
use encoding::{DecoderTrap, Encoding};
use serde_json::{Map, Value, json};

use crate::dicom::guard::{self, DicomError, EXPLICIT_BE, EXPLICIT_LE, Guarded, Pixels};
use crate::fhir::resource::hide;

/// Longest UID (PS3.5 section 9.1).
pub const UID_BYTES_MAX: usize = 64;
/// Binary values longer than this leave the metadata and become a bulk data link, in base64 characters.
pub const INLINE_BINARY_MAX: usize = 1024;
/// Most frames of one instance.
pub const FRAMES_MAX: u32 = 100_000;
/// Longest text that a fact keeps, in characters.
pub const TEXT_CHARS_MAX: usize = 1024;

/// The facts of one instance.
#[derive(Clone, Default, PartialEq)]
pub struct InstanceFacts {
    /// Study Instance UID.
    pub study_uid: String,
    /// Series Instance UID.
    pub series_uid: String,
    /// SOP Instance UID.
    pub sop_uid: String,
    /// SOP Class UID.
    pub sop_class: String,
    /// Transfer syntax UID of the file.
    pub transfer_syntax: String,
    /// Patient ID.
    pub patient_id: Option<String>,
    /// Issuer of Patient ID.
    pub patient_id_issuer: Option<String>,
    /// Patient's Name, component groups as stored.
    pub patient_name: Option<String>,
    /// Patient's Birth Date, `YYYYMMDD`.
    pub birth_date: Option<String>,
    /// Patient's Sex (`M`, `F`, `O`).
    pub sex: Option<String>,
    /// Accession Number.
    pub accession: Option<String>,
    /// Study Date, `YYYYMMDD`.
    pub study_date: Option<String>,
    /// Study Time.
    pub study_time: Option<String>,
    /// Study ID.
    pub study_id: Option<String>,
    /// Study Description.
    pub study_description: Option<String>,
    /// Referring Physician's Name.
    pub referring_physician: Option<String>,
    /// Series Number.
    pub series_number: Option<i64>,
    /// Series Description.
    pub series_description: Option<String>,
    /// Modality.
    pub modality: Option<String>,
    /// Body Part Examined.
    pub body_part: Option<String>,
    /// Instance Number.
    pub instance_number: Option<i64>,
    /// Rows, in pixels.
    pub rows: Option<u32>,
    /// Columns, in pixels.
    pub columns: Option<u32>,
    /// Number of Frames; 1 when not stated.
    pub frames: u32,
    /// Samples per Pixel.
    pub samples: Option<u32>,
    /// Bits Allocated.
    pub bits_allocated: Option<u32>,
    /// Photometric Interpretation.
    pub photometric: Option<String>,
    /// First Window Center.
    pub window_center: Option<f64>,
    /// First Window Width.
    pub window_width: Option<f64>,
    /// True when the file has pixel data.
    pub has_pixels: bool,
}

/// One frame as stored.
pub struct Frame {
    /// Its bytes: native pixels, or one compressed image.
    pub bytes: Vec<u8>,
    /// Transfer syntax UID of these bytes.
    pub transfer_syntax: String,
}

hide!(InstanceFacts, Frame);

/// Reads the facts of a part 10 file.
pub fn read(bytes: &[u8]) -> Result<InstanceFacts, DicomError> {
    let guarded = guard::scan(bytes)?;
    let object = attributes(&guarded)?;
    facts(&guarded, &object)
}

/// The metadata as DICOM JSON: no pixel data; large binary values and the pixels as `BulkDataURI` below `bulk_base`.
pub fn metadata_json(bytes: &[u8], bulk_base: &str) -> Result<Value, DicomError> {
    let guarded = guard::scan(bytes)?;
    let mut object = attributes(&guarded)?;
    object.convert_to_utf8();
    let groups: Vec<Tag> = object.tags().filter(|tag| tag.1 == 0 || tag.0 <= 2).collect();
    for tag in groups {
        object.remove_element(tag);
    }
    let mut value = dicom_json::to_value(&object).map_err(|source| DicomError::Library { source: source.into() })?;
    link_bulk(&mut value, bulk_base.trim_end_matches('/'));
    if let (Some(pixels), Some(map)) = (guarded.pixels(), value.as_object_mut()) {
        let wide =
            matches!(pixels, Pixels::Native(_)) && number(&object, tags::BITS_ALLOCATED).is_some_and(|bits| bits > 8);
        let link = format!("{}/pixeldata", bulk_base.trim_end_matches('/'));
        map.insert(
            "7FE00010".to_owned(),
            json!({"vr": if wide { "OW" } else { "OB" }, "BulkDataURI": link}),
        );
    }
    Ok(value)
}

/// One frame, numbered from 1 as DICOMweb does (PS3.18 section 10.4.1.6).
pub fn frame(bytes: &[u8], number: u32) -> Result<Frame, DicomError> {
    let guarded = guard::scan(bytes)?;
    let object = attributes(&guarded)?;
    let facts = facts(&guarded, &object)?;
    if number == 0 || number > facts.frames {
        return Err(DicomError::Unsupported {
            reason: format!("there is no frame {number}: the instance has {}", facts.frames),
        });
    }
    let index = usize::try_from(number.saturating_sub(1)).unwrap_or(usize::MAX);
    match guarded.pixels() {
        None => Err(DicomError::Unsupported {
            reason: "the instance has no pixel data".to_owned(),
        }),
        Some(Pixels::Native(place)) => native(&guarded, &facts, place.clone(), index),
        Some(Pixels::Encapsulated(fragments)) => encapsulated(&guarded, &facts, fragments, index),
    }
}

/// Parses the attributes in front of the pixel data.
pub(crate) fn attributes(guarded: &Guarded<'_>) -> Result<InMemDicomObject<StandardDataDictionary>, DicomError> {
    data_set(guarded, guarded.attributes())
}

pub(crate) fn data_set(
    guarded: &Guarded<'_>,
    bytes: &[u8],
) -> Result<InMemDicomObject<StandardDataDictionary>, DicomError> {
    // Any encapsulated syntax encodes the data set as Explicit VR Little Endian, known to the registry or not.
    let syntax = match guarded.dataset_syntax() {
        known @ (guard::IMPLICIT_LE | EXPLICIT_BE) => known,
        _ => EXPLICIT_LE,
    };
    let syntax = TransferSyntaxRegistry
        .get(syntax)
        .ok_or_else(|| DicomError::Unsupported {
            reason: "the transfer syntax is not supported".to_owned(),
        })?;
    let mut object = InMemDicomObject::read_dataset_with_ts(bytes, syntax).map_err(|source| DicomError::Library {
        source: Box::new(source),
    })?;
    switch_character_sets(&mut object);
    Ok(object)
}

/// Decodes texts that switch to Japanese sets by ISO 2022 escapes (PS3.5 section 6.1.2.5.3), which the library leaves
/// as they are: their bytes are all 7-bit, so the text still holds them.
fn switch_character_sets(object: &mut InMemDicomObject<StandardDataDictionary>) {
    let sets = text(object, tags::SPECIFIC_CHARACTER_SET).unwrap_or_default();
    if !["ISO 2022 IR 87", "ISO 2022 IR 159"]
        .iter()
        .any(|set| sets.contains(set))
    {
        return;
    }
    let switched: Vec<_> = object
        .iter()
        .filter(|element| {
            matches!(
                element.vr(),
                VR::PN | VR::LO | VR::SH | VR::ST | VR::LT | VR::UT | VR::UC
            )
        })
        .filter_map(|element| {
            let text = element
                .value()
                .to_str()
                .ok()
                .filter(|text| text.contains('\u{1b}') && text.is_ascii())?;
            let text = ISO_2022_JP.decode(text.as_bytes(), DecoderTrap::Replace).ok()?;
            Some((element.tag(), element.vr(), text))
        })
        .collect();
    for (tag, vr, text) in switched {
        object.put_str(tag, vr, text);
    }
}

pub(crate) fn facts(
    guarded: &Guarded<'_>,
    object: &InMemDicomObject<StandardDataDictionary>,
) -> Result<InstanceFacts, DicomError> {
    let uid = |tag, name| {
        let problem = match text(object, tag) {
            Some(uid) if is_uid(&uid) => return Ok(uid),
            Some(_) => "is no valid UID",
            None => "is missing",
        };
        Err(DicomError::Attribute { name, problem })
    };
    let frames = whole(object, tags::NUMBER_OF_FRAMES).unwrap_or(1).max(1);
    let frames = u32::try_from(frames).ok().filter(|frames| *frames <= FRAMES_MAX);
    Ok(InstanceFacts {
        study_uid: uid(tags::STUDY_INSTANCE_UID, "StudyInstanceUID")?,
        series_uid: uid(tags::SERIES_INSTANCE_UID, "SeriesInstanceUID")?,
        sop_uid: uid(tags::SOP_INSTANCE_UID, "SOPInstanceUID")?,
        sop_class: uid(tags::SOP_CLASS_UID, "SOPClassUID")?,
        transfer_syntax: guarded.transfer_syntax().to_owned(),
        patient_id: text(object, tags::PATIENT_ID),
        patient_id_issuer: text(object, tags::ISSUER_OF_PATIENT_ID),
        patient_name: text(object, tags::PATIENT_NAME),
        birth_date: text(object, tags::PATIENT_BIRTH_DATE),
        sex: text(object, tags::PATIENT_SEX),
        accession: text(object, tags::ACCESSION_NUMBER),
        study_date: text(object, tags::STUDY_DATE),
        study_time: text(object, tags::STUDY_TIME),
        study_id: text(object, tags::STUDY_ID),
        study_description: text(object, tags::STUDY_DESCRIPTION),
        referring_physician: text(object, tags::REFERRING_PHYSICIAN_NAME),
        series_number: whole(object, tags::SERIES_NUMBER),
        series_description: text(object, tags::SERIES_DESCRIPTION),
        modality: text(object, tags::MODALITY),
        body_part: text(object, tags::BODY_PART_EXAMINED),
        instance_number: whole(object, tags::INSTANCE_NUMBER),
        rows: number(object, tags::ROWS),
        columns: number(object, tags::COLUMNS),
        frames: frames.ok_or(DicomError::Attribute {
            name: "NumberOfFrames",
            problem: "is more than 100000",
        })?,
        samples: number(object, tags::SAMPLES_PER_PIXEL),
        bits_allocated: number(object, tags::BITS_ALLOCATED),
        photometric: text(object, tags::PHOTOMETRIC_INTERPRETATION),
        window_center: decimal(object, tags::WINDOW_CENTER),
        window_width: decimal(object, tags::WINDOW_WIDTH),
        has_pixels: guarded.pixels().is_some(),
    })
}

/// DICOM UID: dotted numbers without leading zeros are required of writers; readers meet them, so only the character
/// set, the dots and the length are checked.
pub fn is_uid(uid: &str) -> bool {
    (1..=UID_BYTES_MAX).contains(&uid.len())
        && uid
            .split('.')
            .all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()))
}

fn text(object: &InMemDicomObject<StandardDataDictionary>, tag: Tag) -> Option<String> {
    let text = object.get(tag)?.value().to_str().ok()?;
    let text: String = text.trim_matches(['\0', ' ']).chars().take(TEXT_CHARS_MAX).collect();
    (!text.is_empty()).then_some(text)
}

fn whole(object: &InMemDicomObject<StandardDataDictionary>, tag: Tag) -> Option<i64> {
    object.get(tag)?.value().to_int().ok()
}

fn number(object: &InMemDicomObject<StandardDataDictionary>, tag: Tag) -> Option<u32> {
    object.get(tag)?.value().to_int().ok()
}

fn decimal(object: &InMemDicomObject<StandardDataDictionary>, tag: Tag) -> Option<f64> {
    let all = object.get(tag)?.value().to_multi_float64().ok()?;
    all.first().copied().filter(|value| value.is_finite())
}

/// Replaces large inline binaries by links; the path of a nested one is tag, item number, tag.
fn link_bulk(value: &mut Value, base: &str) {
    let Some(map) = value.as_object_mut() else { return };
    for (tag, element) in map.iter_mut() {
        let here = format!("{base}/{tag}");
        let Some(element) = element.as_object_mut() else {
            continue;
        };
        if element
            .get("InlineBinary")
            .and_then(Value::as_str)
            .is_some_and(|text| text.len() > INLINE_BINARY_MAX)
        {
            element.remove("InlineBinary");
            element.insert("BulkDataURI".to_owned(), here.into());
        } else if element.get("vr").and_then(Value::as_str) == Some("SQ") {
            for (at, item) in element
                .get_mut("Value")
                .and_then(Value::as_array_mut)
                .into_iter()
                .flatten()
                .enumerate()
            {
                link_bulk(item, &format!("{here}/{}", at.saturating_add(1)));
            }
        } else {
            clean_numbers(element);
        }
    }
}

/// A number that JSON cannot hold comes as null; PS3.18 F.2.2 has no null in numeric values of a query answer.
fn clean_numbers(element: &mut Map<String, Value>) {
    let numeric = matches!(
        element.get("vr").and_then(Value::as_str),
        Some("FD" | "FL" | "DS" | "IS")
    );
    let nulls = element
        .get("Value")
        .and_then(Value::as_array)
        .is_some_and(|values| values.iter().all(Value::is_null));
    if numeric && nulls {
        element.remove("Value");
    }
}

/// Bytes of one native frame; none when dimensions are missing or do not fill whole bytes.
pub(crate) fn native_frame_bytes(facts: &InstanceFacts) -> Option<u64> {
    let samples = u64::from(facts.samples.unwrap_or(1));
    // 4:2:2 keeps two samples per pixel on average (PS3.3 section C.7.6.3.1.2).
    let samples = if facts.photometric.as_deref() == Some("YBR_FULL_422") {
        samples.min(2)
    } else {
        samples
    };
    let pixels = u64::from(facts.rows?)
        .checked_mul(u64::from(facts.columns?))?
        .checked_mul(samples)?;
    let bits = pixels.checked_mul(u64::from(facts.bits_allocated?))?;
    let whole = bits.is_multiple_of(8) || facts.frames == 1;
    (whole && bits > 0).then(|| bits.div_ceil(8))
}

fn native(
    guarded: &Guarded<'_>,
    facts: &InstanceFacts,
    place: std::ops::Range<usize>,
    index: usize,
) -> Result<Frame, DicomError> {
    let refuse = || DicomError::Attribute {
        name: "PixelData",
        problem: "does not hold the frames that rows, columns and bits describe",
    };
    let length = native_frame_bytes(facts)
        .and_then(|length| usize::try_from(length).ok())
        .ok_or_else(refuse)?;
    let start = length
        .checked_mul(index)
        .and_then(|skip| place.start.checked_add(skip))
        .ok_or_else(refuse)?;
    let end = start
        .checked_add(length)
        .filter(|end| *end <= place.end)
        .ok_or_else(refuse)?;
    let syntax = if guarded.transfer_syntax() == EXPLICIT_BE {
        EXPLICIT_BE
    } else {
        EXPLICIT_LE
    };
    Ok(Frame {
        bytes: guarded.slice(start..end).to_vec(),
        transfer_syntax: syntax.to_owned(),
    })
}

fn encapsulated(
    guarded: &Guarded<'_>,
    facts: &InstanceFacts,
    fragments: &[std::ops::Range<usize>],
    index: usize,
) -> Result<Frame, DicomError> {
    let refuse = || DicomError::Attribute {
        name: "PixelData",
        problem: "does not hold the frames that its offset table describes",
    };
    let (table, images) = fragments.split_first().ok_or_else(refuse)?;
    let frames = usize::try_from(facts.frames).unwrap_or(usize::MAX);
    let chosen: Vec<_> = if frames == 1 {
        images.to_vec()
    } else if images.len() == frames {
        images.get(index).cloned().into_iter().collect()
    } else {
        let offsets: Vec<usize> = guarded
            .slice(table.clone())
            .chunks_exact(4)
            .filter_map(|four| four.try_into().ok().map(u32::from_le_bytes))
            .filter_map(|offset| usize::try_from(offset).ok())
            .collect();
        if offsets.len() != frames {
            return Err(refuse());
        }
        // Offsets count from the item tag of the first fragment, eight bytes before its value.
        let base = images.first().ok_or_else(refuse)?.start;
        let from = offsets.get(index).copied().ok_or_else(refuse)?;
        let to = offsets.get(index.saturating_add(1)).copied().unwrap_or(usize::MAX);
        let within = |place: &&std::ops::Range<usize>| (from..to).contains(&place.start.saturating_sub(base));
        images.iter().filter(within).cloned().collect()
    };
    let bytes: Vec<u8> = chosen
        .into_iter()
        .flat_map(|place| guarded.slice(place).iter().copied())
        .collect();
    if bytes.is_empty() {
        return Err(refuse());
    }
    Ok(Frame {
        bytes,
        transfer_syntax: guarded.transfer_syntax().to_owned(),
    })
}

#[cfg(test)]
mod tests;
