//! A walk over DER before any library sees it: every length against the bytes present, depth against a constant.

/// Deepest nesting of constructed values.
pub const DEPTH_MAX: usize = 24;

/// What is wrong, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DerError {
    /// A head or a value breaks off.
    #[error("the value at byte {at} goes beyond the bytes present")]
    Truncated {
        /// Offset of its tag.
        at: usize,
    },
    /// Nested too deep.
    #[error("the value at byte {at} nests deeper than {DEPTH_MAX}")]
    TooDeep {
        /// Offset of its tag.
        at: usize,
    },
    /// Not DER.
    #[error("the value at byte {at} is not DER: indefinite or overlong length, or a tag of more than one byte")]
    Form {
        /// Offset of its tag.
        at: usize,
    },
}

/// Walks one value and everything constructed inside it; gives the offset behind it.
pub(crate) fn walk(bytes: &[u8]) -> Result<usize, DerError> {
    let (mut at, whole) = head(bytes, 0, bytes.len())?;
    let mut open: Vec<usize> = Vec::with_capacity(DEPTH_MAX);
    if !is_constructed(bytes, 0) {
        return Ok(whole);
    }
    open.push(whole);
    while let Some(end) = open.last().copied() {
        if at >= end {
            open.pop();
            continue;
        }
        let (body, next) = head(bytes, at, end)?;
        if is_constructed(bytes, at) {
            if open.len() >= DEPTH_MAX {
                return Err(DerError::TooDeep { at });
            }
            open.push(next);
            at = body;
        } else {
            at = next;
        }
    }
    Ok(whole)
}

fn is_constructed(bytes: &[u8], at: usize) -> bool {
    bytes.get(at).is_some_and(|tag| tag & 0x20 != 0)
}

/// Offsets of the body and behind it, of the value at `at` inside a container that ends at `end`.
pub(crate) fn head(bytes: &[u8], at: usize, end: usize) -> Result<(usize, usize), DerError> {
    let (truncated, form) = (DerError::Truncated { at }, DerError::Form { at });
    let byte = |offset: usize| bytes.get(offset).copied().filter(|_| offset < end).ok_or(truncated);
    if byte(at)? & 0x1f == 0x1f {
        return Err(form);
    }
    let first = byte(at.saturating_add(1))?;
    let mut body = at.saturating_add(2);
    let length = if first < 0x80 {
        usize::from(first)
    } else {
        let count = usize::from(first & 0x7f);
        if !(1..=4).contains(&count) {
            return Err(form);
        }
        let mut length = 0_usize;
        for _ in 0..count {
            length = (length << 8) | usize::from(byte(body)?);
            body = body.saturating_add(1);
        }
        let shortest = length >= 0x80 && (count == 1 || length >> (8 * (count.saturating_sub(1))) != 0);
        if !shortest {
            return Err(form);
        }
        length
    };
    let next = body.checked_add(length).filter(|next| *next <= end).ok_or(truncated)?;
    Ok((body, next))
}

#[cfg(test)]
mod tests {
    use super::{DEPTH_MAX, DerError, walk};

    #[test]
    fn lengths_are_checked_against_the_bytes_present() {
        assert_eq!(walk(&[0x30, 0x03, 0x02, 0x01, 0x05]), Ok(5));
        assert_eq!(walk(&[0x30, 0x03, 0x02, 0x01, 0x05, 0xff]), Ok(5));
        assert_eq!(
            walk(&[0x30, 0x04, 0x02, 0x01, 0x05]),
            Err(DerError::Truncated { at: 0 })
        );
        assert_eq!(
            walk(&[0x30, 0x03, 0x02, 0x02, 0x05]),
            Err(DerError::Truncated { at: 2 })
        );
        assert_eq!(walk(&[0x30, 0x80, 0x00, 0x00]), Err(DerError::Form { at: 0 }));
        assert_eq!(walk(&[0x30, 0x81, 0x01, 0x00]), Err(DerError::Form { at: 0 }));
        assert_eq!(
            walk(&[0x04, 0x84, 0xff, 0xff, 0xff, 0xff]),
            Err(DerError::Truncated { at: 0 })
        );
        assert_eq!(walk(&[]), Err(DerError::Truncated { at: 0 }));
    }

    #[test]
    fn depth_is_bounded() {
        let nested = |depth: usize| {
            let mut bytes = vec![0x05, 0x00];
            for _ in 0..depth {
                let mut outer = vec![0x30, u8::try_from(bytes.len()).unwrap_or(0)];
                outer.append(&mut bytes);
                bytes = outer;
            }
            bytes
        };
        assert!(walk(&nested(DEPTH_MAX)).is_ok());
        assert_eq!(
            walk(&nested(DEPTH_MAX + 1)),
            Err(DerError::TooDeep { at: 2 * DEPTH_MAX })
        );
    }
}
