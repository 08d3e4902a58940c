//! C2SP `signed-note`: text, an empty line, signature lines; and the Ed25519 keys that sign it.

use std::fmt;

use base64::{Engine, engine::general_purpose::STANDARD};
use ring::signature::{ED25519, UnparsedPublicKey};
use sha2::{Digest, Sha256};

/// Longest note, in bytes.
pub const NOTE_LEN_MAX: usize = 16 * 1024;

/// Most signature lines of a note (the specification demands at least 16).
pub const SIGNATURES_MAX: usize = 32;

/// Longest key name, in bytes.
pub const NAME_LEN_MAX: usize = 255;

/// Longest signature behind the key id, in bytes; longer than any Ed25519 form, so that lines of
/// unknown kinds (post-quantum signatures) can be passed over.
pub const SIGNATURE_LEN_MAX: usize = 5 * 1024;

/// What begins a signature line.
const LINE_START: &str = "\u{2014} ";

/// Why a note, a key or a signature is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoteError {
    /// The note is too long.
    #[error("the note has {length} bytes; at most {NOTE_LEN_MAX} are read")]
    TooLong {
        /// Its length in bytes.
        length: usize,
    },
    /// The note is not UTF-8, or has control characters.
    #[error("the note is not plain text")]
    Text,
    /// The note has no empty line before signature lines, or does not end in a newline.
    #[error("the note has no signature lines after an empty line")]
    Frame,
    /// A signature line is malformed.
    #[error("signature line {line} is malformed")]
    Line {
        /// Place among the signature lines, from 1.
        line: usize,
    },
    /// Too many signature lines.
    #[error("the note has {count} signature lines; at most {SIGNATURES_MAX} are read")]
    Signatures {
        /// Signature lines.
        count: usize,
    },
    /// A key name is empty, too long, or has a space, plus or control character.
    #[error("a key name must be 1 to {NAME_LEN_MAX} bytes without spaces, plus signs or control characters")]
    Name,
    /// A verifier key's text is malformed or its parts do not fit each other.
    #[error("the verifier key is malformed: {reason}")]
    Key {
        /// What is wrong.
        reason: &'static str,
    },
    /// A known key's signature is false.
    #[error("the signature of {name} does not hold")]
    Signature {
        /// Name of the key.
        name: String,
    },
}

/// What a key may sign; part of its id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyKind {
    /// A log's own key: Ed25519 over the note text (0x01).
    Log,
    /// A witness's key: timestamped cosignatures (0x04).
    Witness,
}

impl KeyKind {
    const fn byte(self) -> u8 {
        match self {
            Self::Log => 0x01,
            Self::Witness => 0x04,
        }
    }
}

/// A public key that signs notes under a name.
#[derive(Clone, PartialEq, Eq)]
pub struct NoteKey {
    name: String,
    kind: KeyKind,
    public: [u8; 32],
    id: [u8; 4],
}

impl NoteKey {
    /// A key under this name.
    ///
    /// # Errors
    /// [`NoteError::Name`].
    pub fn new(name: &str, kind: KeyKind, public: [u8; 32]) -> Result<Self, NoteError> {
        check_name(name)?;
        let digest: [u8; 32] = Sha256::new()
            .chain_update(name)
            .chain_update([b'\n', kind.byte()])
            .chain_update(public)
            .finalize()
            .into();
        let [a, b, c, d, ..] = digest;
        Ok(Self {
            name: name.to_owned(),
            kind,
            public,
            id: [a, b, c, d],
        })
    }

    /// Reads the text form `<name>+<hex id>+<base64(kind, public key)>`.
    ///
    /// # Errors
    /// [`NoteError::Key`] or [`NoteError::Name`].
    pub fn parse(text: &str) -> Result<Self, NoteError> {
        let refused = |reason| NoteError::Key { reason };
        if text.len() > NAME_LEN_MAX + 64 {
            return Err(refused("it is too long"));
        }
        let mut parts = text.splitn(3, '+');
        let (Some(name), Some(id), Some(key)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(refused("it needs a name, an id and a key joined by plus signs"));
        };
        let key = STANDARD.decode(key).map_err(|_| refused("the key is not base64"))?;
        let (kind, public) = key.split_first().ok_or_else(|| refused("the key is empty"))?;
        let kind = match kind {
            0x01 => KeyKind::Log,
            0x04 => KeyKind::Witness,
            _ => {
                return Err(refused("the kind is neither Ed25519 log nor Ed25519 witness"));
            }
        };
        let public = public.try_into().map_err(|_| refused("the key is not 32 bytes"))?;
        let read = Self::new(name, kind, public)?;
        if hex::encode(read.id) != id {
            return Err(refused("the id does not belong to the name and key"));
        }
        Ok(read)
    }

    /// The text form that [`NoteKey::parse`] reads.
    #[must_use]
    pub fn to_text(&self) -> String {
        let key = STANDARD.encode([[self.kind.byte()].as_slice(), &self.public].concat());
        format!("{}+{}+{key}", self.name, hex::encode(self.id))
    }

    /// The key's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it may sign.
    #[must_use]
    pub fn kind(&self) -> KeyKind {
        self.kind
    }

    /// SHA-256(name, newline, kind, public key), the first four bytes.
    #[must_use]
    pub fn id(&self) -> [u8; 4] {
        self.id
    }

    /// Checks an Ed25519 signature over `message`.
    ///
    /// # Errors
    /// [`NoteError::Signature`] naming the key.
    pub fn check(&self, message: &[u8], signature: &[u8]) -> Result<(), NoteError> {
        UnparsedPublicKey::new(&ED25519, self.public)
            .verify(message, signature)
            .map_err(|_| NoteError::Signature {
                name: self.name.clone(),
            })
    }
}

impl fmt::Debug for NoteKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NoteKey({})", self.to_text())
    }
}

/// One signature line; unverified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignatureLine {
    name: String,
    id: [u8; 4],
    bytes: Vec<u8>,
}

impl SignatureLine {
    /// A line of `key` with what follows the key id.
    pub(super) fn new(key: &NoteKey, bytes: Vec<u8>) -> Self {
        Self {
            name: key.name.clone(),
            id: key.id,
            bytes,
        }
    }

    /// Reads one line, with or without its newline.
    ///
    /// # Errors
    /// [`NoteError::Line`] or [`NoteError::Name`].
    pub fn parse(text: &str) -> Result<Self, NoteError> {
        Self::read(text.strip_suffix('\n').unwrap_or(text), 1)
    }

    /// The line with its newline.
    #[must_use]
    pub fn to_text(&self) -> String {
        let bytes = STANDARD.encode([self.id.as_slice(), &self.bytes].concat());
        format!("{LINE_START}{} {bytes}\n", self.name)
    }

    /// The signing key's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What follows the key id.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(super) fn is_of(&self, key: &NoteKey) -> bool {
        self.name == key.name && self.id == key.id
    }

    pub(super) fn same_key(&self, other: &Self) -> bool {
        self.name == other.name && self.id == other.id
    }

    fn read(text: &str, line: usize) -> Result<Self, NoteError> {
        let refused = || NoteError::Line { line };
        let (name, encoded) = text
            .strip_prefix(LINE_START)
            .and_then(|rest| rest.split_once(' '))
            .ok_or_else(refused)?;
        check_name(name)?;
        if encoded.len() > SIGNATURE_LEN_MAX.div_ceil(3) * 4 + 8 {
            return Err(refused());
        }
        let decoded = STANDARD.decode(encoded).map_err(|_| refused())?;
        let (id, bytes) = decoded.split_first_chunk::<4>().ok_or_else(refused)?;
        if bytes.is_empty() || bytes.len() > SIGNATURE_LEN_MAX {
            return Err(refused());
        }
        Ok(Self {
            name: name.to_owned(),
            id: *id,
            bytes: bytes.to_vec(),
        })
    }
}

/// Splits a note into its text (with the final newline) and its signature lines.
///
/// # Errors
/// Any [`NoteError`] about the frame; signatures are not verified here.
pub fn parse(note: &[u8]) -> Result<(&str, Vec<SignatureLine>), NoteError> {
    if note.len() > NOTE_LEN_MAX {
        return Err(NoteError::TooLong { length: note.len() });
    }
    let text = std::str::from_utf8(note).map_err(|_| NoteError::Text)?;
    if text.chars().any(|c| c < ' ' && c != '\n') {
        return Err(NoteError::Text);
    }
    // The last empty line separates: what precedes it keeps its newline.
    let at = text.rfind("\n\n").ok_or(NoteError::Frame)?;
    let (body, rest) = text.split_at_checked(at + 1).ok_or(NoteError::Frame)?;
    let lines = rest
        .strip_prefix('\n')
        .and_then(|lines| lines.strip_suffix('\n'))
        .ok_or(NoteError::Frame)?;
    let count = lines.split('\n').count();
    if count > SIGNATURES_MAX {
        return Err(NoteError::Signatures { count });
    }
    let lines = lines
        .split('\n')
        .enumerate()
        .map(|(place, line)| SignatureLine::read(line, place + 1))
        .collect::<Result<_, _>>()?;
    Ok((body, lines))
}

/// Writes a note: text, empty line, signature lines.
#[must_use]
pub fn to_text(body: &str, lines: &[SignatureLine]) -> String {
    let lines: String = lines.iter().map(SignatureLine::to_text).collect();
    format!("{body}\n{lines}")
}

fn check_name(name: &str) -> Result<(), NoteError> {
    let fits = (1..=NAME_LEN_MAX).contains(&name.len());
    let foreign = |c: char| c.is_whitespace() || c.is_control() || c == '+';
    if !fits || name.chars().any(foreign) {
        return Err(NoteError::Name);
    }
    Ok(())
}
