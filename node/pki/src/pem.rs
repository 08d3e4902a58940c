//! PEM (RFC 7468): one labelled block in, one labelled block out.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// Largest PEM text read, in bytes.
pub const PEM_BYTES_MAX: usize = 64 * 1024;
/// Most blocks in one text.
pub const PEM_BLOCKS_MAX: usize = 16;
/// Label of a certificate.
pub const CERTIFICATE: &str = "CERTIFICATE";
/// Label of a PKCS#8 private key.
pub const PRIVATE_KEY: &str = "PRIVATE KEY";
/// Label of a certificate revocation list.
pub const CRL: &str = "X509 CRL";
/// Label of a certificate signing request (PKCS#10).
pub const CSR: &str = "CERTIFICATE REQUEST";

/// Why a text is not the PEM that was expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PemError {
    /// Longer than allowed.
    #[error("the PEM text has {found} bytes, the limit is {PEM_BYTES_MAX}")]
    TooLarge {
        /// Bytes found.
        found: usize,
    },
    /// Too many blocks.
    #[error("the PEM text has more than {PEM_BLOCKS_MAX} blocks")]
    TooMany,
    /// No block of that label.
    #[error("no \"{0}\" block: expected a line -----BEGIN {0}-----")]
    Missing(&'static str),
    /// A block starts but does not end.
    #[error("the block that starts in line {line} has no -----END {label}----- line")]
    Open {
        /// Line of its start, from 1.
        line: usize,
        /// Label.
        label: String,
    },
    /// The body is not base64.
    #[error("the block that starts in line {line} is not base64")]
    NotBase64 {
        /// Line of its start, from 1.
        line: usize,
    },
}

/// Writes one block.
#[must_use]
pub fn write(label: &str, der: &[u8]) -> String {
    let body = STANDARD.encode(der);
    let mut text = format!("-----BEGIN {label}-----\n");
    let mut rest = body.as_str();
    while !rest.is_empty() {
        let (line, tail) = rest.split_at(rest.len().min(64));
        text.push_str(line);
        text.push('\n');
        rest = tail;
    }
    text.push_str("-----END ");
    text.push_str(label);
    text.push_str("-----\n");
    text
}

/// Reads every block of `label`, in order, at least one. Errors: every [`PemError`].
pub fn read_all(label: &'static str, text: &str) -> Result<Vec<Vec<u8>>, PemError> {
    if text.len() > PEM_BYTES_MAX {
        return Err(PemError::TooLarge { found: text.len() });
    }
    let mut found = Vec::new();
    let mut blocks = 0_usize;
    let mut open: Option<(usize, String, String)> = None;
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        match open.take() {
            None => {
                if let Some(name) = line
                    .strip_prefix("-----BEGIN ")
                    .and_then(|tail| tail.strip_suffix("-----"))
                {
                    blocks = blocks.saturating_add(1);
                    if blocks > PEM_BLOCKS_MAX {
                        return Err(PemError::TooMany);
                    }
                    open = Some((index.saturating_add(1), name.to_owned(), String::new()));
                }
            }
            Some((start, name, body)) if line == format!("-----END {name}-----") => {
                if name == label {
                    found.push(
                        STANDARD
                            .decode(&body)
                            .map_err(|_| PemError::NotBase64 { line: start })?,
                    );
                }
            }
            Some((start, name, mut body)) => {
                body.push_str(line);
                open = Some((start, name, body));
            }
        }
    }
    if let Some((line, label, _)) = open {
        return Err(PemError::Open { line, label });
    }
    if found.is_empty() {
        Err(PemError::Missing(label))
    } else {
        Ok(found)
    }
}

/// Reads the first block of `label`. Errors: every [`PemError`].
pub fn read(label: &'static str, text: &str) -> Result<Vec<u8>, PemError> {
    read_all(label, text)?
        .into_iter()
        .next()
        .ok_or(PemError::Missing(label))
}

#[cfg(test)]
mod tests {
    use super::{CERTIFICATE, PRIVATE_KEY, PemError, read, read_all, write};

    #[test]
    fn what_is_written_is_read() {
        for length in [0_usize, 1, 47, 48, 49, 200] {
            let der = vec![7_u8; length];
            assert_eq!(read(CERTIFICATE, &write(CERTIFICATE, &der)), Ok(der));
        }
        let two = write(PRIVATE_KEY, b"k") + &write(CERTIFICATE, b"a") + &write(CERTIFICATE, b"b");
        assert_eq!(read_all(CERTIFICATE, &two), Ok(vec![b"a".to_vec(), b"b".to_vec()]));
    }

    #[test]
    fn faults_are_named_with_their_line() {
        assert_eq!(read(CERTIFICATE, "nothing"), Err(PemError::Missing(CERTIFICATE)));
        let open = PemError::Open {
            line: 2,
            label: "CERTIFICATE".to_owned(),
        };
        assert_eq!(read(CERTIFICATE, "\n-----BEGIN CERTIFICATE-----\nAAAA"), Err(open));
        let bad = "-----BEGIN CERTIFICATE-----\n*\n-----END CERTIFICATE-----";
        assert_eq!(read(CERTIFICATE, bad), Err(PemError::NotBase64 { line: 1 }));
        let large = "x".repeat(70_000);
        assert_eq!(read(CERTIFICATE, &large), Err(PemError::TooLarge { found: 70_000 }));
    }
}
