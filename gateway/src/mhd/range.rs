//! Byte ranges (RFC 9110 section 14): one range of bytes; anything else is answered whole.

/// The longest `Range` value that is read, in bytes.
pub const RANGE_BYTES_MAX: usize = 64;

/// A range as asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// From a byte, to a byte inclusive or to the end.
    From(u64, Option<u64>),
    /// The last bytes.
    Last(u64),
}

impl Asked {
    /// Reads a `Range` value; none for several ranges, other units and nonsense, which RFC 9110 lets a server ignore.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() > RANGE_BYTES_MAX {
            return None;
        }
        let (first, last) = text.trim().strip_prefix("bytes=")?.split_once('-')?;
        let number = |text: &str| {
            let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            digits.then(|| text.parse::<u64>().ok()).flatten()
        };
        match (first.trim(), last.trim()) {
            ("", last) => number(last).map(Self::Last),
            (first, "") => Some(Self::From(number(first)?, None)),
            (first, last) => {
                let (first, last) = (number(first)?, number(last)?);
                (first <= last).then_some(Self::From(first, Some(last)))
            }
        }
    }

    /// First byte and number of bytes in a content of `size` bytes; none when it lies outside.
    #[must_use]
    pub fn within(self, size: u64) -> Option<(u64, u64)> {
        let (first, after) = match self {
            Self::From(first, last) => (first, last.map_or(size, |last| last.saturating_add(1).min(size))),
            Self::Last(count) => (size.saturating_sub(count), size),
        };
        (first < after).then(|| (first, after.saturating_sub(first)))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

    use super::Asked;

    #[test]
    fn ranges_are_read_or_ignored() {
        let place = |text: &str| Asked::parse(text).map(|asked| asked.within(10));
        assert_eq!(place("bytes=0-3"), Some(Some((0, 4))));
        assert_eq!(place("bytes=4-"), Some(Some((4, 6))));
        assert_eq!(place("bytes=-3"), Some(Some((7, 3))));
        assert_eq!(place("bytes=-99"), Some(Some((0, 10))));
        assert_eq!(place("bytes=8-99"), Some(Some((8, 2))));
        assert_eq!(place("bytes=10-"), Some(None));
        assert_eq!(place("bytes=-0"), Some(None));
        for ignored in [
            "",
            "bytes",
            "bytes=",
            "bytes=-",
            "bytes=3-1",
            "bytes=0-1,3-4",
            "items=0-1",
            "bytes=+1-2",
            "bytes=99999999999999999999-",
        ] {
            assert_eq!(place(ignored), None, "{ignored}");
        }
    }
}
