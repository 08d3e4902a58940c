//! The door for DICOM bytes (PS3.10, PS3.5): lengths and depth are checked before any library reads them.
//!
//! The law: every length is compared with the bytes present, nesting is walked with an explicit stack, nothing is
//! allocated beyond the input except the bounded output of *Deflated Explicit VR Little Endian*. What passes is a
//! [`Guarded`], and only its data set reaches the libraries. A refusal names tag and offset, never a value.
//!
//! Accepted quirks: a missing preamble, a missing group length in the file meta group, and zero bytes behind the
//! data set (they stay part of the file, they are not part of the data set).

use std::borrow::Cow;
use std::fmt;
use std::io::Read;
use std::ops::Range;

use dicom_core::dictionary::{DataDictionary, DataDictionaryEntry, VirtualVr};
use dicom_core::{Tag, VR};
use dicom_dictionary_std::StandardDataDictionary;
use flate2::read::DeflateDecoder;

/// Largest accepted file, in bytes.
pub const FILE_BYTES_MAX: usize = 2 * 1024 * 1024 * 1024;
/// Largest accepted file meta group, in bytes.
pub const META_BYTES_MAX: usize = 64 * 1024;
/// Deepest accepted nesting of sequences.
pub const DEPTH_MAX: usize = 16;
/// Most data elements of one file, nested ones included.
pub const ELEMENTS_MAX: usize = 1_000_000;
/// Most pixel data fragments of one file.
pub const FRAGMENTS_MAX: usize = 200_000;
/// Largest accepted inflated data set, in bytes.
pub const INFLATED_BYTES_MAX: usize = 512 * 1024 * 1024;

/// Implicit VR Little Endian.
pub const IMPLICIT_LE: &str = "1.2.840.10008.1.2";
/// Explicit VR Little Endian.
pub const EXPLICIT_LE: &str = "1.2.840.10008.1.2.1";
/// Deflated Explicit VR Little Endian.
pub const DEFLATED_LE: &str = "1.2.840.10008.1.2.1.99";
/// Explicit VR Big Endian (retired).
pub const EXPLICIT_BE: &str = "1.2.840.10008.1.2.2";

const PREAMBLE: usize = 128;
const UNDEFINED: u32 = u32::MAX;
const ITEM: Tag = Tag(0xfffe, 0xe000);
const ITEM_END: Tag = Tag(0xfffe, 0xe00d);
const SEQUENCE_END: Tag = Tag(0xfffe, 0xe0dd);
/// Pixel Data, Float Pixel Data and Double Float Pixel Data.
const PIXELS: [Tag; 3] = [Tag(0x7fe0, 0x0010), Tag(0x7fe0, 0x0008), Tag(0x7fe0, 0x0009)];

/// Why a file was refused: what, where, what to do.
#[derive(Debug, thiserror::Error)]
pub enum DicomError {
    /// Structure broken or over a limit.
    #[error("{reason} at offset {offset}, tag {tag}: {remedy}")]
    Malformed {
        /// What is wrong.
        reason: String,
        /// Byte offset in the file (in the inflated data set for deflated files).
        offset: usize,
        /// The tag being read, `(gggg,eeee)`.
        tag: String,
        /// What to do.
        remedy: &'static str,
    },
    /// No DICOM file at all.
    #[error("no DICOM part 10 file: {reason}")]
    NotDicom {
        /// What is missing.
        reason: &'static str,
    },
    /// The data set passed the guard but the library cannot read it.
    #[error("the data set cannot be read: check it with the sender's DICOM validator")]
    Library {
        /// The library's word.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A required attribute is missing or invalid.
    #[error("{name} {problem}: correct the file")]
    Attribute {
        /// The attribute's name.
        name: &'static str,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The file is sound, but what was asked of it cannot be done.
    #[error("{reason}")]
    Unsupported {
        /// What cannot be done.
        reason: String,
    },
}

/// Where the pixel data is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pixels {
    /// One block of native pixels.
    Native(Range<usize>),
    /// Encapsulated: the first fragment is the basic offset table (PS3.5 A.4).
    Encapsulated(Vec<Range<usize>>),
}

/// A file that passed the guard.
pub struct Guarded<'b> {
    transfer_syntax: String,
    source: Cow<'b, [u8]>,
    dataset: Range<usize>,
    pixel_header: Option<usize>,
    pixels: Option<Pixels>,
}

impl fmt::Debug for Guarded<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Guarded")
            .field("transfer_syntax", &self.transfer_syntax)
            .field("dataset", &self.dataset)
            .finish_non_exhaustive()
    }
}

impl Guarded<'_> {
    /// The file's transfer syntax UID.
    pub fn transfer_syntax(&self) -> &str {
        &self.transfer_syntax
    }

    /// The syntax in which [`Guarded::dataset`] is encoded: the file's own, or Explicit VR Little Endian if inflated.
    pub fn dataset_syntax(&self) -> &str {
        if self.is_deflated() {
            EXPLICIT_LE
        } else {
            &self.transfer_syntax
        }
    }

    /// The data set without meta group and trailing zeros.
    pub fn dataset(&self) -> &[u8] {
        self.source.get(self.dataset.clone()).unwrap_or_default()
    }

    /// The data set up to its pixel data.
    pub fn attributes(&self) -> &[u8] {
        let end = self.pixel_header.unwrap_or(self.dataset.end);
        self.source.get(self.dataset.start..end).unwrap_or_default()
    }

    /// Where the pixel data is, for [`Guarded::slice`].
    pub fn pixels(&self) -> Option<&Pixels> {
        self.pixels.as_ref()
    }

    /// Bytes at a place that this guard found.
    pub fn slice(&self, place: Range<usize>) -> &[u8] {
        self.source.get(place).unwrap_or_default()
    }

    fn is_deflated(&self) -> bool {
        is_deflated(&self.transfer_syntax)
    }
}

/// Checks a whole part 10 file.
pub fn scan(bytes: &[u8]) -> Result<Guarded<'_>, DicomError> {
    if bytes.len() > FILE_BYTES_MAX {
        return Err(malformed("more than 2 GiB", 0, None, "send a smaller object"));
    }
    let (transfer_syntax, start) = meta(bytes)?;
    let mut walk = Walk {
        bytes,
        at: start,
        end: bytes.len(),
        big: transfer_syntax == EXPLICIT_BE,
        implicit: transfer_syntax == IMPLICIT_LE,
        stack: Vec::new(),
        elements: 0,
        pixel_header: None,
        pixels: None,
    };
    if is_deflated(&transfer_syntax) {
        let inflated = inflate(bytes.get(start..).unwrap_or_default(), start)?;
        walk.bytes = &inflated;
        walk.at = 0;
        walk.end = inflated.len();
        let end = walk.run()?;
        let (pixel_header, pixels) = (walk.pixel_header, walk.pixels.take());
        return Ok(Guarded {
            transfer_syntax,
            source: Cow::Owned(inflated),
            dataset: 0..end,
            pixel_header,
            pixels,
        });
    }
    let end = walk.run()?;
    let (pixel_header, pixels) = (walk.pixel_header, walk.pixels.take());
    Ok(Guarded {
        transfer_syntax,
        source: Cow::Borrowed(bytes),
        dataset: start..end,
        pixel_header,
        pixels,
    })
}

fn is_deflated(syntax: &str) -> bool {
    syntax == DEFLATED_LE || syntax == "1.2.840.10008.1.2.4.95"
}

fn inflate(bytes: &[u8], offset: usize) -> Result<Vec<u8>, DicomError> {
    let mut out = Vec::new();
    let cap = u64::try_from(INFLATED_BYTES_MAX).unwrap_or(u64::MAX).saturating_add(1);
    let read = DeflateDecoder::new(bytes).take(cap).read_to_end(&mut out);
    if read.is_err() {
        return Err(malformed(
            "the deflated data set is damaged",
            offset,
            None,
            "send the file again",
        ));
    }
    if out.len() > INFLATED_BYTES_MAX {
        return Err(malformed(
            "the deflated data set unpacks to more than 512 MiB",
            offset,
            None,
            "send it uncompressed",
        ));
    }
    Ok(out)
}

fn malformed(reason: impl fmt::Display, offset: usize, tag: Option<Tag>, remedy: &'static str) -> DicomError {
    let tag = tag.map_or_else(
        || "(none)".to_owned(),
        |Tag(group, element)| format!("({group:04X},{element:04X})"),
    );
    DicomError::Malformed {
        reason: reason.to_string(),
        offset,
        tag,
        remedy,
    }
}

/// Reads the file meta group (always Explicit VR Little Endian) up to the first other group.
fn meta(bytes: &[u8]) -> Result<(String, usize), DicomError> {
    let marked = bytes.get(PREAMBLE..PREAMBLE + 4) == Some(b"DICM");
    let plausible = bytes.starts_with(&[2, 0, 0, 0, b'U', b'L', 4, 0])
        || bytes.starts_with(&[2, 0, 1, 0, b'O', b'B'])
        || (bytes.starts_with(&[2, 0]) && bytes.get(4..6) == Some(b"UI"));
    let mut at = match (marked, plausible) {
        (true, _) => PREAMBLE + 4,
        (false, true) => 0,
        (false, false) => {
            return Err(DicomError::NotDicom {
                reason: "neither the DICM mark nor a file meta group: export it as a part 10 file",
            });
        }
    };
    let start = at;
    let mut syntax = None;
    while bytes.get(at..).is_some_and(|rest| rest.starts_with(&[2, 0])) {
        let header = header(bytes, at, bytes.len(), false, false)?;
        if header.length == UNDEFINED {
            return Err(malformed(
                "undefined length in the file meta group",
                at,
                Some(header.tag),
                "export the file again",
            ));
        }
        let end = fits(&header, bytes.len())?;
        if end.saturating_sub(start) > META_BYTES_MAX {
            return Err(malformed(
                "a file meta group of more than 64 KiB",
                at,
                Some(header.tag),
                "export the file again",
            ));
        }
        if header.tag == Tag(0x0002, 0x0010) {
            let text = bytes.get(header.value..end).unwrap_or_default();
            syntax = std::str::from_utf8(text)
                .ok()
                .map(|text| text.trim_matches(['\0', ' ']).to_owned());
        }
        at = end;
    }
    let syntax = syntax.ok_or(DicomError::NotDicom {
        reason: "the file meta group has no transfer syntax: export the file again",
    })?;
    let standard = syntax == IMPLICIT_LE || syntax.starts_with("1.2.840.10008.1.2.");
    let plain = syntax.len() <= 64 && syntax.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    if standard && plain {
        Ok((syntax, at))
    } else {
        Err(DicomError::NotDicom {
            reason: "its transfer syntax is no standard one: transcode it to Explicit VR Little Endian",
        })
    }
}

struct Header {
    at: usize,
    tag: Tag,
    vr: VR,
    length: u32,
    value: usize,
}

/// Reads numbers in `bytes[..end]`.
#[derive(Clone, Copy)]
struct Numbers<'b> {
    bytes: &'b [u8],
    end: usize,
    big: bool,
}

impl Numbers<'_> {
    fn take<const N: usize>(self, at: usize) -> Option<[u8; N]> {
        let stop = at.checked_add(N).filter(|stop| *stop <= self.end)?;
        self.bytes.get(at..stop)?.try_into().ok()
    }

    fn word(self, at: usize) -> Option<u16> {
        self.take(at).map(|two| {
            if self.big {
                u16::from_be_bytes(two)
            } else {
                u16::from_le_bytes(two)
            }
        })
    }

    fn long(self, at: usize) -> Option<u32> {
        self.take(at).map(|four| {
            if self.big {
                u32::from_be_bytes(four)
            } else {
                u32::from_le_bytes(four)
            }
        })
    }
}

/// Reads one element header in `bytes[..end]`.
fn header(bytes: &[u8], at: usize, end: usize, big: bool, implicit: bool) -> Result<Header, DicomError> {
    let cut = |tag| {
        malformed(
            "the file ends inside an element header",
            at,
            tag,
            "send the whole file again",
        )
    };
    let read = Numbers { bytes, end, big };
    let next = at.saturating_add(4);
    let tag = read
        .word(at)
        .zip(read.word(at.saturating_add(2)))
        .map(|(group, element)| Tag(group, element));
    let tag = tag.ok_or_else(|| cut(None))?;
    if implicit || tag.0 == 0xfffe {
        let known = StandardDataDictionary.by_tag(tag).map(|entry| entry.vr());
        let sequence = tag.0 != 0xfffe && known == Some(VirtualVr::Exact(VR::SQ));
        let length = read.long(next).ok_or_else(|| cut(Some(tag)))?;
        let vr = if sequence { VR::SQ } else { VR::UN };
        return Ok(Header {
            at,
            tag,
            vr,
            length,
            value: next.saturating_add(4),
        });
    }
    let code = read.take::<2>(next).ok_or_else(|| cut(Some(tag)))?;
    let Some(vr) = VR::from_binary(code) else {
        let remedy = "export the file again with a conforming writer";
        return Err(malformed("an unknown value representation", at, Some(tag), remedy));
    };
    let (length, value) = if is_wide(vr) {
        (read.long(next.saturating_add(4)), next.saturating_add(8))
    } else {
        (read.word(next.saturating_add(2)).map(u32::from), next.saturating_add(4))
    };
    Ok(Header {
        at,
        tag,
        vr,
        length: length.ok_or_else(|| cut(Some(tag)))?,
        value,
    })
}

/// Value representations with a length of four bytes (PS3.5 section 7.1.2).
fn is_wide(vr: VR) -> bool {
    let bulk = matches!(vr, VR::OB | VR::OD | VR::OF | VR::OL | VR::OV | VR::OW);
    bulk || matches!(vr, VR::SQ | VR::SV | VR::UC | VR::UN | VR::UR | VR::UT | VR::UV)
}

/// The end of a value, if the bytes are there.
fn fits(header: &Header, end: usize) -> Result<usize, DicomError> {
    let stop = usize::try_from(header.length)
        .ok()
        .and_then(|length| header.value.checked_add(length));
    stop.filter(|stop| *stop <= end).ok_or_else(|| {
        let present = end.saturating_sub(header.value);
        let reason = format!("a length of {} where {present} bytes are left", header.length);
        malformed(
            reason,
            header.at,
            Some(header.tag),
            "the file is cut short or damaged; send it again",
        )
    })
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Level {
    Sequence,
    Item,
}

#[derive(Clone, Copy)]
struct Frame {
    level: Level,
    /// Where it ends, when its length is defined.
    end: Option<usize>,
    tag: Tag,
    /// Inside a UN of undefined length everything is Implicit VR (PS3.5 section 6.2.2, note 2).
    implicit: bool,
}

struct Walk<'b> {
    bytes: &'b [u8],
    at: usize,
    end: usize,
    big: bool,
    implicit: bool,
    stack: Vec<Frame>,
    elements: usize,
    pixel_header: Option<usize>,
    pixels: Option<Pixels>,
}

impl Walk<'_> {
    /// Walks the data set and returns its end.
    fn run(&mut self) -> Result<usize, DicomError> {
        loop {
            while self.stack.last().is_some_and(|frame| frame.end == Some(self.at)) {
                self.stack.pop();
            }
            if self.at >= self.bound() {
                let Some(open) = self.stack.last() else {
                    return Ok(self.at);
                };
                return Err(malformed(
                    "a sequence or item is never closed",
                    self.at,
                    Some(open.tag),
                    "send the whole file again",
                ));
            }
            if self.stack.is_empty() && self.only_zeros_follow() {
                return Ok(self.at);
            }
            self.elements = self.elements.saturating_add(1);
            if self.elements > ELEMENTS_MAX {
                return Err(malformed(
                    "more than 1000000 data elements",
                    self.at,
                    None,
                    "send a smaller object",
                ));
            }
            match self.stack.last().copied() {
                Some(frame) if frame.level == Level::Sequence => self.in_sequence(frame)?,
                frame => self.in_item(frame)?,
            }
        }
    }

    /// The end of the innermost thing with a defined length.
    fn bound(&self) -> usize {
        self.stack.iter().rev().find_map(|frame| frame.end).unwrap_or(self.end)
    }

    fn only_zeros_follow(&self) -> bool {
        let rest = self.bytes.get(self.at..self.end).unwrap_or_default();
        rest.iter().take(8).all(|byte| *byte == 0) && rest.iter().all(|byte| *byte == 0)
    }

    fn in_sequence(&mut self, frame: Frame) -> Result<(), DicomError> {
        let header = header(
            self.bytes,
            self.at,
            self.bound(),
            self.big && !frame.implicit,
            frame.implicit,
        )?;
        let end = match (header.tag, header.length) {
            (ITEM, UNDEFINED) => None,
            (ITEM, _) => Some(fits(&header, self.bound())?),
            (SEQUENCE_END, 0) if frame.end.is_none() => {
                self.stack.pop();
                self.at = header.value;
                return Ok(());
            }
            _ => {
                return Err(malformed(
                    "no item where an item must stand",
                    self.at,
                    Some(header.tag),
                    "export the file again",
                ));
            }
        };
        self.at = header.value;
        self.stack.push(Frame {
            level: Level::Item,
            end,
            tag: frame.tag,
            implicit: frame.implicit,
        });
        Ok(())
    }

    fn in_item(&mut self, frame: Option<Frame>) -> Result<(), DicomError> {
        let nested_implicit = frame.is_some_and(|frame| frame.implicit);
        let implicit = self.implicit || nested_implicit;
        let bound = self.bound();
        let header = header(self.bytes, self.at, bound, self.big && !nested_implicit, implicit)?;
        if header.tag == ITEM_END && header.length == 0 && frame.is_some_and(|frame| frame.end.is_none()) {
            self.stack.pop();
            self.at = header.value;
            return Ok(());
        }
        if header.tag.0 == 0xfffe {
            return Err(malformed(
                "a delimiter where an element must stand",
                self.at,
                Some(header.tag),
                "export the file again",
            ));
        }
        let pixel = frame.is_none() && PIXELS.contains(&header.tag);
        if pixel && self.pixel_header.is_none() {
            self.pixel_header = Some(self.at);
        }
        if PIXELS.contains(&header.tag) && header.length == UNDEFINED {
            return self.fragments(&header, bound, pixel);
        }
        let undefined = header.length == UNDEFINED;
        if undefined && !(header.vr == VR::SQ || header.vr == VR::UN) {
            return Err(malformed(
                "an undefined length on a plain value",
                self.at,
                Some(header.tag),
                "export the file again",
            ));
        }
        if header.vr == VR::SQ || undefined {
            let end = if undefined { None } else { Some(fits(&header, bound)?) };
            let depth = self.stack.iter().filter(|frame| frame.level == Level::Sequence).count();
            if depth >= DEPTH_MAX {
                return Err(malformed(
                    "sequences nested deeper than 16",
                    self.at,
                    Some(header.tag),
                    "flatten the data set",
                ));
            }
            let implicit = implicit || header.vr == VR::UN;
            self.stack.push(Frame {
                level: Level::Sequence,
                end,
                tag: header.tag,
                implicit: nested_implicit || (implicit && !self.implicit),
            });
            self.at = header.value;
            return Ok(());
        }
        let end = fits(&header, bound)?;
        if pixel {
            self.pixels = Some(Pixels::Native(header.value..end));
        }
        self.at = end;
        Ok(())
    }

    /// Encapsulated pixel data: a basic offset table, fragments, and a sequence delimiter (PS3.5 A.4).
    fn fragments(&mut self, pixel: &Header, bound: usize, keep: bool) -> Result<(), DicomError> {
        let mut fragments = Vec::new();
        let mut at = pixel.value;
        loop {
            let header = header(self.bytes, at, bound, self.big, true)?;
            match (header.tag, header.length) {
                (SEQUENCE_END, 0) => {
                    at = header.value;
                    break;
                }
                (ITEM, length) if length != UNDEFINED => {
                    let end = fits(&header, bound)?;
                    fragments.push(header.value..end);
                    at = end;
                }
                _ => {
                    return Err(malformed(
                        "no fragment where a fragment must stand",
                        at,
                        Some(pixel.tag),
                        "export the file again",
                    ));
                }
            }
            if fragments.len() > FRAGMENTS_MAX {
                return Err(malformed(
                    "more than 200000 pixel data fragments",
                    at,
                    Some(pixel.tag),
                    "send a smaller object",
                ));
            }
        }
        if keep {
            self.pixels = Some(Pixels::Encapsulated(fragments));
        }
        self.at = at;
        Ok(())
    }
}

#[cfg(test)]
pub mod tests;
