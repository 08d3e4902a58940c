//! Crockford's base32, without padding: reading forgives O for 0 and I or L for 1.

use super::{GROUP_CHARS, InvitationError};

const ALPHABET: [char; 32] = [
    '0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'A', 'B', 'C', 'D', 'E', 'F', 'G', 'H', 'J', 'K', 'M', 'N', 'P',
    'Q', 'R', 'S', 'T', 'V', 'W', 'X', 'Y', 'Z',
];

/// Writes bytes, the last character filled up with zero bits.
pub fn encode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(5) * 8);
    let (mut bits, mut count) = (0u32, 0u32);
    for byte in bytes {
        bits = (bits << 8) | u32::from(*byte);
        count += 8;
        while count >= 5 {
            count -= 5;
            text.push(character(bits >> count));
        }
        bits &= (1 << count) - 1;
    }
    if count > 0 {
        text.push(character(bits << (5 - count)));
    }
    text
}

/// Reads upper-case characters; only the one encoding that [`encode`] writes is taken, apart from look-alikes.
pub fn decode(text: &str) -> Result<Vec<u8>, InvitationError> {
    let mut bytes = Vec::with_capacity(text.len());
    let (mut bits, mut count) = (0u32, 0u32);
    for (place, c) in text.chars().enumerate() {
        let value = value(c).ok_or(InvitationError::Character {
            position: place + 1,
            group: place / GROUP_CHARS + 1,
        })?;
        bits = (bits << 5) | value;
        count += 5;
        if count >= 8 {
            count -= 8;
            // At most 8 bits remain above `count`.
            bytes.push(u8::try_from((bits >> count) & 0xff).unwrap_or(0));
            bits &= (1 << count) - 1;
        }
    }
    // A whole character left over, or filling bits that are not zero: something is missing.
    if count >= 5 || bits != 0 {
        return Err(InvitationError::Incomplete);
    }
    Ok(bytes)
}

fn character(bits: u32) -> char {
    usize::try_from(bits & 31)
        .ok()
        .and_then(|place| ALPHABET.get(place))
        .copied()
        .unwrap_or('0')
}

fn value(c: char) -> Option<u32> {
    let c = match c {
        'O' => '0',
        'I' | 'L' => '1',
        other => other,
    };
    ALPHABET
        .iter()
        .position(|known| *known == c)
        .and_then(|place| u32::try_from(place).ok())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

    use proptest::prelude::{any, prop, prop_assert_eq, proptest};

    use super::{decode, encode};
    use crate::invitation::InvitationError;

    proptest! {
        #[test]
        fn bytes_round_trip(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            prop_assert_eq!(decode(&encode(&bytes)).unwrap(), bytes);
        }
    }

    #[test]
    fn known_texts_come_out() {
        assert_eq!(encode(b""), "");
        assert_eq!(encode(b"\xff"), "ZW");
        assert_eq!(encode(b"foobar"), "CSQPYRK1E8");
        assert_eq!(decode("CSQPYRKLE8").unwrap(), b"foobar");
        assert_eq!(decode("CSQPYRKIE8").unwrap(), b"foobar");
        assert_eq!(decode("OO").unwrap(), b"\0");
    }

    #[test]
    fn left_over_characters_are_refused() {
        for text in ["0", "ZZ", "000", "CSQPYRK1E80"] {
            assert_eq!(decode(text), Err(InvitationError::Incomplete), "{text}");
        }
        let refused = InvitationError::Character { position: 6, group: 2 };
        assert_eq!(decode("CSQPYU"), Err(refused));
    }
}
