//! One frame as a picture for people.
//!
//! A pure function: the caller runs it in a process of its own with limits, because decoders of compressed images are
//! large programs over hostile bytes. Before a decoder starts, the stated dimensions are checked against the bytes
//! present, against constants, and against the dimensions inside a JPEG stream.

use std::io::Cursor;

use dicom_object::FileMetaTableBuilder;
use dicom_pixeldata::{ConvertOptions, PixelDecoder, VoiLutOption, WindowLevel};
use image::{DynamicImage, ImageFormat};

use crate::dicom::guard::{self, DicomError, EXPLICIT_LE, Guarded, Pixels};
use crate::dicom::instance::{self, InstanceFacts};

/// Most pixels of one decoded frame.
pub const FRAME_PIXELS_MAX: u64 = 64 * 1024 * 1024;
/// Most bytes of one decoded frame.
pub const FRAME_BYTES_MAX: u64 = 512 * 1024 * 1024;
/// Longest side of a picture, in pixels.
pub const PICTURE_SIDE_MAX: u32 = 4096;

/// Renders frame `frame` (from 1) as PNG, its longer side at most `side_max` pixels, under `window` (centre, width) or
/// the window in the file.
pub fn render(bytes: &[u8], frame: u32, side_max: u32, window: Option<(f64, f64)>) -> Result<Vec<u8>, DicomError> {
    let guarded = guard::scan(bytes)?;
    let attributes = instance::attributes(&guarded)?;
    let facts = instance::facts(&guarded, &attributes)?;
    if frame == 0 || frame > facts.frames {
        return Err(DicomError::Unsupported {
            reason: format!("there is no frame {frame}: the instance has {}", facts.frames),
        });
    }
    check(&guarded, &facts)?;
    let picture = decode(&guarded, frame.saturating_sub(1), window)?;
    write(&picture, side_max.clamp(1, PICTURE_SIDE_MAX))
}

fn library(source: impl std::error::Error + Send + Sync + 'static) -> DicomError {
    DicomError::Library {
        source: Box::new(source),
    }
}

/// Refuses dimensions that the bytes present cannot fill or that are beyond the limits.
fn check(guarded: &Guarded<'_>, facts: &InstanceFacts) -> Result<(), DicomError> {
    let refuse = |name, problem| Err(DicomError::Attribute { name, problem });
    let (Some(rows), Some(columns), Some(bits)) = (facts.rows, facts.columns, facts.bits_allocated) else {
        return refuse("Rows, Columns or BitsAllocated", "is missing");
    };
    let pixels = u64::from(rows).saturating_mul(u64::from(columns));
    let samples = u64::from(facts.samples.unwrap_or(1));
    let size = pixels
        .saturating_mul(samples)
        .saturating_mul(u64::from(bits).div_ceil(8));
    if pixels == 0 || !(1..=4).contains(&samples) || !matches!(bits, 1 | 8 | 16 | 32 | 64) {
        return refuse("Rows, Columns, SamplesPerPixel or BitsAllocated", "is out of range");
    }
    if pixels > FRAME_PIXELS_MAX || size > FRAME_BYTES_MAX {
        return Err(DicomError::Unsupported {
            reason: format!("a frame of {rows} by {columns} pixels is too large to show"),
        });
    }
    match guarded.pixels() {
        None => Err(DicomError::Unsupported {
            reason: "the instance has no pixel data".to_owned(),
        }),
        Some(Pixels::Native(place)) => {
            let frame = instance::native_frame_bytes(facts).unwrap_or(u64::MAX);
            let needed = frame.saturating_mul(u64::from(facts.frames));
            if u64::try_from(place.len()).unwrap_or(0) < needed {
                return refuse("PixelData", "is shorter than rows, columns and frames need");
            }
            Ok(())
        }
        Some(Pixels::Encapsulated(fragments)) => {
            for place in fragments.iter().skip(1) {
                let found = jpeg_size(guarded.slice(place.clone()));
                if found.is_some_and(|(high, wide)| u64::from(high) * u64::from(wide) > pixels) {
                    return refuse("PixelData", "holds an image larger than Rows and Columns");
                }
            }
            Ok(())
        }
    }
}

/// Height and width in the first frame header of a JPEG stream (ITU-T T.81 B.2.2).
fn jpeg_size(stream: &[u8]) -> Option<(u16, u16)> {
    if !stream.starts_with(&[0xff, 0xd8]) {
        return None;
    }
    let word = |at: usize| Some(u16::from_be_bytes(stream.get(at..at.checked_add(2)?)?.try_into().ok()?));
    let mut at = 2_usize;
    loop {
        let marker = word(at)?;
        if marker == 0xffff {
            at = at.checked_add(1)?;
            continue;
        }
        let frame_header = matches!(marker, 0xffc0..=0xffcf | 0xfff7) && !matches!(marker, 0xffc4 | 0xffc8 | 0xffcc);
        if frame_header {
            return Some((word(at.checked_add(5)?)?, word(at.checked_add(7)?)?));
        }
        if marker < 0xffc0 || marker == 0xffda {
            return None;
        }
        at = at
            .checked_add(2)?
            .checked_add(usize::from(word(at.checked_add(2)?)?).max(2))?;
    }
}

fn decode(guarded: &Guarded<'_>, frame: u32, window: Option<(f64, f64)>) -> Result<DynamicImage, DicomError> {
    let syntax = if guarded.dataset_syntax() == EXPLICIT_LE {
        EXPLICIT_LE
    } else {
        guarded.transfer_syntax()
    };
    let object = instance::data_set(guarded, guarded.dataset())?;
    let object = object
        .with_meta(FileMetaTableBuilder::new().transfer_syntax(syntax))
        .map_err(library)?;
    let decoded = object
        .decode_pixel_data_frame(frame)
        .map_err(|error| DicomError::Unsupported {
            reason: format!("this image cannot be decoded ({syntax}): {error}"),
        })?;
    let mut options = ConvertOptions::new().force_8bit();
    if let Some((center, width)) =
        window.filter(|(center, width)| center.is_finite() && width.is_finite() && *width >= 1.0)
    {
        options = options.with_voi_lut(VoiLutOption::Custom(WindowLevel { center, width }));
    }
    decoded
        .to_dynamic_image_with_options(0, &options)
        .map_err(|error| DicomError::Unsupported {
            reason: format!("this kind of image cannot be shown: {error}"),
        })
}

fn write(picture: &DynamicImage, side_max: u32) -> Result<Vec<u8>, DicomError> {
    let scaled;
    let picture = if picture.width().max(picture.height()) > side_max {
        scaled = picture.resize(side_max, side_max, image::imageops::FilterType::Triangle);
        &scaled
    } else {
        picture
    };
    let mut out = Cursor::new(Vec::new());
    picture.write_to(&mut out, ImageFormat::Png).map_err(library)?;
    Ok(out.into_inner())
}

#[cfg(test)]
mod tests;
