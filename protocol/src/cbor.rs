//! Deterministic CBOR (RFC 8949 §4.2.1): one value, one encoding, guarded before any library sees it.
//!
//! `decode` walks the bytes first (depth, lengths against the bytes present, no indefinite lengths,
//! no tags, no floats), then reads them, then writes them again and compares: a frame that is not in
//! the deterministic form is refused (SPEC P-CBOR).

use ciborium::Value;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Deepest nesting of arrays and maps in a frame.
pub const DEPTH_MAX: usize = 16;
/// Largest frame of the control channel, in bytes.
pub const FRAME_BYTES_MAX: usize = 1024 * 1024;

/// Why bytes are not a frame.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The frame is longer than its limit.
    #[error("the frame has {found} bytes, the limit is {limit}")]
    TooLarge {
        /// Bytes found.
        found: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// A length points beyond the bytes present.
    #[error("the frame ends early at byte {at}")]
    Truncated {
        /// Offset in bytes.
        at: usize,
    },
    /// Nested too deep.
    #[error("the frame nests deeper than {DEPTH_MAX} at byte {at}")]
    TooDeep {
        /// Offset in bytes.
        at: usize,
    },
    /// A form that the protocol does not use (indefinite length, tag, float, reserved).
    #[error("the frame uses a form outside the protocol at byte {at}")]
    Form {
        /// Offset in bytes.
        at: usize,
    },
    /// Bytes follow the value.
    #[error("bytes follow the value at byte {at}")]
    Trailing {
        /// Offset in bytes.
        at: usize,
    },
    /// The value does not have the shape of its type.
    #[error("the value does not have the shape of {expected}")]
    Shape {
        /// Type name.
        expected: &'static str,
    },
    /// The bytes are not the deterministic encoding of their value.
    #[error("the encoding is not deterministic")]
    NotDeterministic,
}

/// Encodes a value in the deterministic form. Errors: [`FrameError::Shape`] for a value that CBOR cannot carry.
pub fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, FrameError> {
    let shape = || FrameError::Shape {
        expected: core::any::type_name::<T>(),
    };
    let mut tree = Value::serialized(value).map_err(|_| shape())?;
    sort(&mut tree).map_err(|()| shape())?;
    let mut bytes = Vec::new();
    ciborium::into_writer(&tree, &mut bytes).map_err(|_| shape())?;
    Ok(bytes)
}

/// Walks the bytes of one frame of at most `limit` bytes without reading values. Errors: every structural [`FrameError`].
pub fn guard_frame(bytes: &[u8], limit: usize) -> Result<(), FrameError> {
    if bytes.len() > limit {
        return Err(FrameError::TooLarge {
            found: bytes.len(),
            limit,
        });
    }
    guard(bytes)
}

/// Decodes one value of at most `limit` bytes. Errors: every [`FrameError`].
pub fn decode<T: DeserializeOwned + Serialize>(bytes: &[u8], limit: usize) -> Result<T, FrameError> {
    guard_frame(bytes, limit)?;
    let value: T = ciborium::from_reader(bytes).map_err(|_| FrameError::Shape {
        expected: core::any::type_name::<T>(),
    })?;
    if encode(&value)? != bytes {
        return Err(FrameError::NotDeterministic);
    }
    Ok(value)
}

/// Sorts map keys by their encoded bytes.
fn sort(value: &mut Value) -> Result<(), ()> {
    match value {
        Value::Array(items) => items.iter_mut().try_for_each(sort),
        Value::Map(pairs) => {
            pairs.iter_mut().try_for_each(|(_, item)| sort(item))?;
            let mut keyed = Vec::with_capacity(pairs.len());
            for (key, item) in pairs.drain(..) {
                let mut bytes = Vec::new();
                ciborium::into_writer(&key, &mut bytes).map_err(|_| ())?;
                keyed.push((bytes, key, item));
            }
            keyed.sort_by(|left, right| left.0.cmp(&right.0));
            pairs.extend(keyed.into_iter().map(|(_, key, item)| (key, item)));
            Ok(())
        }
        _ => Ok(()),
    }
}

/// Walks the bytes without recursion: `open` holds how many items each open container still wants.
fn guard(bytes: &[u8]) -> Result<(), FrameError> {
    let mut at = 0_usize;
    let mut open: Vec<u64> = Vec::with_capacity(DEPTH_MAX);
    loop {
        let start = at;
        let (major, argument, next) = head(bytes, at)?;
        at = next;
        let items = match major {
            0 | 1 => 0,
            2 | 3 => {
                at = skip(bytes, at, argument)?;
                0
            }
            4 => argument,
            5 => argument.checked_mul(2).ok_or(FrameError::Truncated { at: start })?,
            7 if (20..=22).contains(&argument) => 0,
            _ => return Err(FrameError::Form { at: start }),
        };
        // Every item takes at least one byte: a larger count cannot be true.
        if items > (bytes.len() - at.min(bytes.len())) as u64 {
            return Err(FrameError::Truncated { at: start });
        }
        if items > 0 {
            if open.len() >= DEPTH_MAX {
                return Err(FrameError::TooDeep { at: start });
            }
            open.push(items);
            continue;
        }
        while let Some(wanted) = open.last_mut() {
            *wanted -= 1;
            if *wanted > 0 {
                break;
            }
            open.pop();
        }
        if open.is_empty() {
            return if at == bytes.len() {
                Ok(())
            } else {
                Err(FrameError::Trailing { at })
            };
        }
    }
}

/// Reads one head: major type, argument, offset behind it.
fn head(bytes: &[u8], at: usize) -> Result<(u8, u64, usize), FrameError> {
    let truncated = FrameError::Truncated { at };
    let first = *bytes.get(at).ok_or(truncated.clone())?;
    let major = first >> 5;
    let extra = match first & 0x1f {
        small @ 0..=23 => return Ok((major, u64::from(small), at + 1)),
        24 => 1,
        25 => 2,
        26 => 4,
        27 => 8,
        _ => return Err(FrameError::Form { at }),
    };
    if major == 7 {
        return Err(FrameError::Form { at });
    }
    let tail = bytes.get(at + 1..at + 1 + extra).ok_or(truncated)?;
    let argument = tail.iter().fold(0_u64, |sum, byte| (sum << 8) | u64::from(*byte));
    Ok((major, argument, at + 1 + extra))
}

/// Offset behind a string of `length` bytes.
fn skip(bytes: &[u8], at: usize, length: u64) -> Result<usize, FrameError> {
    let end = usize::try_from(length)
        .ok()
        .and_then(|length| at.checked_add(length))
        .filter(|end| *end <= bytes.len());
    end.ok_or(FrameError::Truncated { at })
}

#[cfg(test)]
mod tests;
