//! Signed tree heads: C2SP `tlog-checkpoint` over C2SP `signed-note`, with the witnesses'
//! `cosignature/v1` lines of C2SP `tlog-cosignature`.
//!
//! ```text
//! hie/urn:oid:2.16.840.1.113883.3.72.5/audit      origin: names the log
//! 58931                                           leaves in the tree
//! CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=    root
//!                                                 (empty line)
//! — <log's name> <base64(key id, signature)>
//! — <witness's name> <base64(key id, time, signature)>
//! ```
//!
//! The law: a [`SignedCheckpoint`] is text that somebody sent; only [`SignedCheckpoint::verify`] makes a
//! [`VerifiedCheckpoint`] of it. Lines of unknown keys are ignored; one false line of a known key
//! refuses the whole. Extension lines are refused: they could say what no monitor checks.

use base64::{Engine, engine::general_purpose::STANDARD};

use crate::merkle::Hash;

pub mod note;

use self::note::{KeyKind, NoteError, NoteKey, SignatureLine};

/// Longest origin, in bytes.
pub const ORIGIN_LEN_MAX: usize = 255;

/// Latest timestamp of a cosignature, in seconds since 1970 (C2SP tlog-cosignature).
pub const TIMESTAMP_MAX: u64 = i64::MAX as u64;

/// A tree head: which log, how many leaves, which root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    origin: String,
    size: u64,
    root: Hash,
}

/// Why a checkpoint is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointError {
    /// The note around the checkpoint is refused.
    #[error("the checkpoint's note is refused")]
    Note(#[from] NoteError),
    /// The origin line is empty, too long or has control characters.
    #[error("the checkpoint's origin must be 1 to {ORIGIN_LEN_MAX} bytes of text without control characters")]
    Origin,
    /// The size line is not a decimal number in its shortest form.
    #[error("the checkpoint's size (line 2) is not a plain decimal number")]
    Size,
    /// The root line is not 32 bytes of base64.
    #[error("the checkpoint's root (line 3) is not the base64 form of 32 bytes")]
    Root,
    /// The body has fewer or more than three lines.
    #[error("a checkpoint has three lines; this one has {lines}")]
    Lines {
        /// Lines of the body.
        lines: usize,
    },
    /// The checkpoint is about another log.
    #[error("the checkpoint is about another log than expected")]
    OtherLog,
    /// The log itself did not sign.
    #[error("the checkpoint is not signed by its log {name}")]
    Unsigned {
        /// Name of the log's key.
        name: String,
    },
    /// A cosignature's time is out of range.
    #[error("the cosignature's time is out of range")]
    Time,
    /// A key of the wrong kind was given.
    #[error("key {name} is not of the kind needed here")]
    KeyKind {
        /// Name of the key.
        name: String,
    },
}

impl Checkpoint {
    /// Builds a checkpoint.
    ///
    /// # Errors
    /// [`CheckpointError::Origin`].
    pub fn new(origin: &str, size: u64, root: Hash) -> Result<Self, CheckpointError> {
        let fits = (1..=ORIGIN_LEN_MAX).contains(&origin.len());
        if !fits || origin.chars().any(char::is_control) {
            return Err(CheckpointError::Origin);
        }
        Ok(Self {
            origin: origin.to_owned(),
            size,
            root,
        })
    }

    /// The log that this is about.
    #[must_use]
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// Leaves in the tree.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Root of the tree at that size.
    #[must_use]
    pub fn root(&self) -> &Hash {
        &self.root
    }

    /// The text that is signed, with its final newline.
    #[must_use]
    pub fn to_note_body(&self) -> String {
        format!("{}\n{}\n{}\n", self.origin, self.size, STANDARD.encode(self.root))
    }

    /// Reads the text that is signed; takes only what [`Checkpoint::to_note_body`] writes.
    ///
    /// # Errors
    /// One for each line that can be wrong.
    pub fn parse(body: &str) -> Result<Self, CheckpointError> {
        let lines = body.matches('\n').count();
        let mut fields = body.split('\n');
        let (Some(origin), Some(size), Some(root), Some(""), None) = (
            fields.next(),
            fields.next(),
            fields.next(),
            fields.next(),
            fields.next(),
        ) else {
            return Err(CheckpointError::Lines { lines });
        };
        let number: u64 = size.parse().map_err(|_| CheckpointError::Size)?;
        if number.to_string() != size {
            return Err(CheckpointError::Size);
        }
        let root: Hash = STANDARD
            .decode(root)
            .ok()
            .and_then(|bytes| bytes.try_into().ok())
            .ok_or(CheckpointError::Root)?;
        Self::new(origin, number, root)
    }
}

/// Signs for one key: the closure holds the private key and makes an Ed25519 signature.
pub struct NoteSigner<'a> {
    key: &'a NoteKey,
    sign: &'a dyn Fn(&[u8]) -> [u8; 64],
}

impl<'a> NoteSigner<'a> {
    /// A signer for `key`.
    #[must_use]
    pub fn new(key: &'a NoteKey, sign: &'a dyn Fn(&[u8]) -> [u8; 64]) -> Self {
        Self { key, sign }
    }

    /// Signs as the log itself.
    ///
    /// # Errors
    /// [`CheckpointError::KeyKind`] if the key is a witness's.
    pub fn sign(&self, checkpoint: &Checkpoint) -> Result<SignedCheckpoint, CheckpointError> {
        self.expect(KeyKind::Log)?;
        let signature = (self.sign)(checkpoint.to_note_body().as_bytes());
        let line = SignatureLine::new(self.key, signature.to_vec());
        Ok(SignedCheckpoint {
            checkpoint: checkpoint.clone(),
            lines: vec![line],
        })
    }

    /// Signs as a witness that has verified the checkpoint's consistency with the last one it
    /// cosigned, at the time `timestamp_s` (seconds since 1970).
    ///
    /// # Errors
    /// [`CheckpointError::KeyKind`] if the key is a log's, [`CheckpointError::Time`].
    pub fn cosign(&self, checkpoint: &VerifiedCheckpoint, timestamp_s: u64) -> Result<SignatureLine, CheckpointError> {
        self.expect(KeyKind::Witness)?;
        if timestamp_s > TIMESTAMP_MAX {
            return Err(CheckpointError::Time);
        }
        let body = checkpoint.checkpoint.to_note_body();
        let signature = (self.sign)(cosigned_message(&body, timestamp_s).as_bytes());
        let bytes = [timestamp_s.to_be_bytes().as_slice(), &signature].concat();
        Ok(SignatureLine::new(self.key, bytes))
    }

    fn expect(&self, kind: KeyKind) -> Result<(), CheckpointError> {
        if self.key.kind() == kind {
            return Ok(());
        }
        Err(CheckpointError::KeyKind {
            name: self.key.name().to_owned(),
        })
    }
}

/// A checkpoint with signature lines, none of them verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedCheckpoint {
    checkpoint: Checkpoint,
    lines: Vec<SignatureLine>,
}

impl SignedCheckpoint {
    /// Reads a signed checkpoint.
    ///
    /// # Errors
    /// [`CheckpointError::Note`] for the frame, or one of the body's errors.
    pub fn parse(text: &[u8]) -> Result<Self, CheckpointError> {
        let (body, lines) = note::parse(text)?;
        Ok(Self {
            checkpoint: Checkpoint::parse(body)?,
            lines,
        })
    }

    /// The text of the signed note.
    #[must_use]
    pub fn to_text(&self) -> String {
        note::to_text(&self.checkpoint.to_note_body(), &self.lines)
    }

    /// Adds a witness's line, in place of an earlier one of the same key.
    ///
    /// # Errors
    /// [`NoteError::Signatures`] if the note would have too many lines.
    pub fn add(&mut self, line: SignatureLine) -> Result<(), CheckpointError> {
        let mut lines = self.lines.clone();
        lines.retain(|present| !present.same_key(&line));
        lines.push(line);
        if lines.len() > note::SIGNATURES_MAX {
            return Err(NoteError::Signatures { count: lines.len() }.into());
        }
        self.lines = lines;
        Ok(())
    }

    /// What the text claims; nothing of it is verified.
    #[must_use]
    pub fn claimed(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// Verifies the log's signature, and every line of a known witness.
    ///
    /// # Errors
    /// [`CheckpointError::OtherLog`] if the origin is not `origin`, [`CheckpointError::Unsigned`] without
    /// the log's own signature, [`NoteError::Signature`] naming the known key whose line is false.
    pub fn verify(
        &self,
        origin: &str,
        log: &NoteKey,
        witnesses: &[NoteKey],
    ) -> Result<VerifiedCheckpoint, CheckpointError> {
        if self.checkpoint.origin != origin {
            return Err(CheckpointError::OtherLog);
        }
        let wrong = |key: &NoteKey| CheckpointError::KeyKind {
            name: key.name().to_owned(),
        };
        if log.kind() != KeyKind::Log {
            return Err(wrong(log));
        }
        let body = self.checkpoint.to_note_body();
        let mut signed = false;
        for line in self.lines.iter().filter(|line| line.is_of(log)) {
            log.check(body.as_bytes(), line.bytes())?;
            signed = true;
        }
        if !signed {
            return Err(CheckpointError::Unsigned {
                name: log.name().to_owned(),
            });
        }
        let mut cosignatures: Vec<Cosignature> = Vec::new();
        for witness in witnesses {
            if witness.kind() != KeyKind::Witness {
                return Err(wrong(witness));
            }
            for line in self.lines.iter().filter(|line| line.is_of(witness)) {
                let found = check_cosignature(&body, witness, line)?;
                if !cosignatures.contains(&found) {
                    cosignatures.push(found);
                }
            }
        }
        Ok(VerifiedCheckpoint {
            checkpoint: self.checkpoint.clone(),
            cosignatures,
        })
    }
}

/// A witness's statement: at this time, this was the largest consistent head it had seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cosignature {
    /// Name of the witness's key.
    pub witness: String,
    /// When it cosigned, in seconds since 1970 by the witness's clock.
    pub timestamp_s: u64,
}

/// A checkpoint whose log signed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedCheckpoint {
    checkpoint: Checkpoint,
    cosignatures: Vec<Cosignature>,
}

impl VerifiedCheckpoint {
    /// The tree head.
    #[must_use]
    pub fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// The verified cosignatures of the witnesses that were asked about.
    #[must_use]
    pub fn cosignatures(&self) -> &[Cosignature] {
        &self.cosignatures
    }

    /// How many distinct witnesses cosigned.
    #[must_use]
    pub fn witness_count(&self) -> usize {
        let mut names: Vec<&str> = self.cosignatures.iter().map(|c| c.witness.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        names.len()
    }
}

fn check_cosignature(body: &str, witness: &NoteKey, line: &SignatureLine) -> Result<Cosignature, CheckpointError> {
    let name = witness.name();
    let refused = || NoteError::Signature { name: name.to_owned() };
    let (time, signature) = line.bytes().split_first_chunk::<8>().ok_or_else(refused)?;
    let timestamp_s = u64::from_be_bytes(*time);
    if timestamp_s > TIMESTAMP_MAX {
        return Err(CheckpointError::Time);
    }
    witness.check(cosigned_message(body, timestamp_s).as_bytes(), signature)?;
    Ok(Cosignature {
        witness: name.to_owned(),
        timestamp_s,
    })
}

/// What a witness signs (C2SP tlog-cosignature, Ed25519 signed message).
fn cosigned_message(body: &str, timestamp_s: u64) -> String {
    format!("cosignature/v1\ntime {timestamp_s}\n{body}")
}

#[cfg(test)]
mod tests;
