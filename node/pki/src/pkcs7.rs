//! PKCS#7 "certs-only" (a degenerate SignedData of RFC 5652 §5.1): how EST hands certificates over (RFC 7030 §4.1.3).

use crate::der;
use crate::x509::CERTIFICATE_BYTES_MAX;

/// Most certificates in one message.
pub const CERTIFICATES_MAX: usize = 4;
/// Largest message, in bytes.
pub const PKCS7_BYTES_MAX: usize = CERTIFICATES_MAX * CERTIFICATE_BYTES_MAX + 1024;

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const CONTEXT_0: u8 = 0xa0;
const SIGNED_DATA: [u8; 11] = [0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x02];
const VERSION_1: [u8; 3] = [0x02, 0x01, 0x01];
const DATA: [u8; 13] = [
    0x30, 0x0b, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x01,
];

/// Why a message is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a PKCS#7 message with certificates only: {0}")]
pub struct Pkcs7Error(&'static str);

/// Writes certificates (DER) as one message.
#[must_use]
pub fn write(certificates: &[&[u8]]) -> Vec<u8> {
    let mut body = VERSION_1.to_vec();
    body.extend([SET, 0x00]);
    body.extend(DATA);
    body.extend(element(CONTEXT_0, &certificates.concat()));
    body.extend([SET, 0x00]);
    let mut content = SIGNED_DATA.to_vec();
    content.extend(element(CONTEXT_0, &element(SEQUENCE, &body)));
    element(SEQUENCE, &content)
}

/// Reads the certificates (DER) of a message, in the order they stand. Errors: [`Pkcs7Error`].
pub fn read(message: &[u8]) -> Result<Vec<Vec<u8>>, Pkcs7Error> {
    if message.len() > PKCS7_BYTES_MAX {
        return Err(Pkcs7Error("it is too large"));
    }
    let end = der::walk(message).map_err(|_| Pkcs7Error("it is not DER"))?;
    if end != message.len() {
        return Err(Pkcs7Error("bytes follow it"));
    }
    let mut content = inside(SEQUENCE, &mut &*message)?;
    skip(&SIGNED_DATA, &mut content)?;
    let mut wrapped = inside(CONTEXT_0, &mut content)?;
    let mut signed = inside(SEQUENCE, &mut wrapped)?;
    skip(&VERSION_1, &mut signed)?;
    inside(SET, &mut signed)?;
    inside(SEQUENCE, &mut signed)?;
    let mut rest = inside(CONTEXT_0, &mut signed)?;
    let mut certificates = Vec::new();
    while !rest.is_empty() {
        let (_, next) = der::head(rest, 0, rest.len()).map_err(|_| Pkcs7Error("a certificate breaks off"))?;
        let (one, after) = rest
            .split_at_checked(next)
            .ok_or(Pkcs7Error("a certificate breaks off"))?;
        if one.first() != Some(&SEQUENCE) || certificates.len() >= CERTIFICATES_MAX {
            return Err(Pkcs7Error("it holds something else, or too many certificates"));
        }
        certificates.push(one.to_vec());
        rest = after;
    }
    Ok(certificates)
}

/// Body of the next element, which must have that tag; moves behind it.
fn inside<'a>(tag: u8, rest: &mut &'a [u8]) -> Result<&'a [u8], Pkcs7Error> {
    let missing = Pkcs7Error("an element is missing");
    let (body, next) = der::head(rest, 0, rest.len()).map_err(|_| missing.clone())?;
    if rest.first() != Some(&tag) {
        return Err(missing);
    }
    let (element, after) = rest.split_at_checked(next).ok_or_else(|| missing.clone())?;
    *rest = after;
    element.get(body..).ok_or(missing)
}

fn skip(expected: &[u8], rest: &mut &[u8]) -> Result<(), Pkcs7Error> {
    *rest = rest.strip_prefix(expected).ok_or(Pkcs7Error("it is of another kind"))?;
    Ok(())
}

/// One DER element.
fn element(tag: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![tag];
    let length = body.len().to_be_bytes();
    let significant: Vec<u8> = length.iter().copied().skip_while(|byte| *byte == 0).collect();
    match (body.len(), significant.len()) {
        (0..=127, _) => bytes.push(significant.last().copied().unwrap_or(0)),
        (_, count) => {
            bytes.push(0x80 | u8::try_from(count).unwrap_or(8));
            bytes.extend(significant);
        }
    }
    bytes.extend_from_slice(body);
    bytes
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]

    use super::{CERTIFICATES_MAX, element, read, write};

    #[test]
    fn what_is_written_is_read() {
        let large = element(0x30, &[7; 300]);
        for certificates in [
            vec![],
            vec![&[0x30, 0x00][..]],
            vec![&large[..], &[0x30, 0x01, 0x02][..]],
        ] {
            let message = write(&certificates);
            // The inner bytes of the last are no DER: only what is DER throughout is read.
            if certificates.len() < 2 {
                let read: Vec<Vec<u8>> = read(&message).unwrap();
                assert_eq!(read, certificates.iter().map(|one| one.to_vec()).collect::<Vec<_>>());
            } else {
                assert!(read(&message).is_err());
            }
        }
    }

    #[test]
    fn hostile_messages_are_refused() {
        let message = write(&[&[0x30, 0x03, 0x02, 0x01, 0x05]]);
        assert_eq!(read(&message).unwrap(), vec![vec![0x30, 0x03, 0x02, 0x01, 0x05]]);
        for end in 0..message.len() {
            assert!(read(&message[..end]).is_err(), "{end} bytes");
        }
        for at in 0..message.len() * 8 {
            let mut forged = message.clone();
            forged[at / 8] ^= 1 << (at % 8);
            // Whatever comes out, nothing breaks.
            let _any = read(&forged);
        }
        let many = vec![&[0x30, 0x00][..]; CERTIFICATES_MAX + 1];
        assert!(read(&write(&many)).is_err());
        assert!(read(&vec![0x30; 1 << 20]).is_err());
    }
}
