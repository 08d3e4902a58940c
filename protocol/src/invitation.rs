//! The invitation into a region: what a new member needs to find the enrolment desk, to know it for
//! the right one, and to be let in once.
//!
//! ```text
//! text    = "hie-inv1-" groups of four Crockford base32 characters joined by "-"
//! content = payload || first 5 bytes of SHA-256("hie invitation v1" || payload)
//! payload = root fingerprint (32) || secret (16) || expiry (8, big-endian, seconds since 1970)
//!           || region || address || organisation || organisation name
//!           (each: length, 1 byte; UTF-8)
//! ```
//!
//! The file form is the same text in lines. Reading forgives upper and lower case, spaces, line breaks,
//! missing hyphens and the look-alikes O/0 and I/L/1; anything else is refused with its fault named. The
//! invitation is a secret until it is used: it does not print itself.

use std::fmt;

use sha2::{Digest, Sha256};
use zeroize::{Zeroize, Zeroizing};

mod base32;

#[cfg(test)]
mod tests;

/// What every invitation of this version begins with.
pub const PREFIX: &str = "hie-inv1-";

/// Longest text that is read as an invitation, in bytes.
pub const TEXT_LEN_MAX: usize = 4096;

/// Longest region or organisation name, in characters.
pub const NAME_CHARS_MAX: usize = 64;

/// Longest enrolment address, in bytes.
pub const ADDRESS_LEN_MAX: usize = 255;

/// Longest organisation id (`urn:oid:...`), in bytes.
pub const ORGANISATION_LEN_MAX: usize = 128;

/// Length of the one-time secret, in bytes.
pub const SECRET_LEN: usize = 16;

/// Length of the root's fingerprint (SHA-256), in bytes.
pub const FINGERPRINT_LEN: usize = 32;

/// Length of the checksum, in bytes.
const CHECKSUM_LEN: usize = 5;

/// Domain of the checksum.
const CHECKSUM_DOMAIN: &[u8] = b"hie invitation v1";

/// Characters of a group, and groups of a line in the file form.
const GROUP_CHARS: usize = 4;
const LINE_GROUPS: usize = 12;

/// Why a text is no invitation, or an invitation cannot be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvitationError {
    /// The text is far too long.
    #[error("the text has {length} bytes; an invitation has at most {TEXT_LEN_MAX}")]
    TooLong {
        /// Its length in bytes.
        length: usize,
    },
    /// The text does not begin as an invitation does.
    #[error("an invitation begins with \"{PREFIX}\"; paste the whole text from the region office")]
    Prefix,
    /// It is an invitation of a version that this program does not know.
    #[error("this invitation is of version {version}; this program reads version 1; update the program")]
    Version {
        /// The version it names.
        version: String,
    },
    /// A character that no invitation has.
    #[error("character {position} after \"{PREFIX}\" cannot be in an invitation (group {group})")]
    Character {
        /// Place among the characters after the prefix, from 1; spaces and hyphens are not counted.
        position: usize,
        /// The group of four that it is in, from 1.
        group: usize,
    },
    /// The text ends too early or is put together wrongly.
    #[error("the invitation is incomplete; paste the whole text, to its last group")]
    Incomplete,
    /// The characters are possible but at least one is wrong or missing.
    #[error("the invitation's checksum does not fit: a character is wrong or missing; compare it with the original")]
    Checksum,
    /// The content is complete but one part of it is not possible.
    #[error("the invitation's {field} is not possible: {reason}")]
    Field {
        /// Which part.
        field: &'static str,
        /// What is wrong with it.
        reason: &'static str,
    },
}

/// What an invitation says, before it is checked.
#[derive(Clone, PartialEq, Eq)]
pub struct Draft {
    /// Name of the region, at most [`NAME_CHARS_MAX`] characters.
    pub region: String,
    /// SHA-256 of the region root certificate's DER.
    pub root_fingerprint: [u8; FINGERPRINT_LEN],
    /// Where to enrol: `host:port`, an IPv6 host in brackets.
    pub address: String,
    /// The one-time secret.
    pub secret: [u8; SECRET_LEN],
    /// Until when it can be used, in seconds since 1970.
    pub expires_at_s: u64,
    /// Id of the invited organisation, `urn:oid:...`.
    pub organisation: String,
    /// Name of the invited organisation, at most [`NAME_CHARS_MAX`] characters.
    pub organisation_name: String,
}

/// A checked invitation.
#[derive(Clone, PartialEq, Eq)]
pub struct Invitation(Draft);

impl Invitation {
    /// Checks a draft.
    ///
    /// # Errors
    /// [`InvitationError::Field`] naming the first part that is not possible.
    pub fn new(draft: Draft) -> Result<Self, InvitationError> {
        check_name("region name", &draft.region)?;
        check_address(&draft.address)?;
        check_organisation(&draft.organisation)?;
        check_name("organisation name", &draft.organisation_name)?;
        Ok(Self(draft))
    }

    /// Name of the region.
    #[must_use]
    pub fn region(&self) -> &str {
        &self.0.region
    }

    /// SHA-256 of the region root certificate's DER.
    #[must_use]
    pub fn root_fingerprint(&self) -> &[u8; FINGERPRINT_LEN] {
        &self.0.root_fingerprint
    }

    /// Where to enrol, `host:port`.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.0.address
    }

    /// The one-time secret.
    #[must_use]
    pub fn secret(&self) -> &[u8; SECRET_LEN] {
        &self.0.secret
    }

    /// Until when it can be used, in seconds since 1970.
    #[must_use]
    pub fn expires_at_s(&self) -> u64 {
        self.0.expires_at_s
    }

    /// Whether its time is over at `now_s` (seconds since 1970).
    #[must_use]
    pub fn is_expired(&self, now_s: u64) -> bool {
        now_s >= self.0.expires_at_s
    }

    /// Id of the invited organisation.
    #[must_use]
    pub fn organisation(&self) -> &str {
        &self.0.organisation
    }

    /// Name of the invited organisation.
    #[must_use]
    pub fn organisation_name(&self) -> &str {
        &self.0.organisation_name
    }

    /// The text form, in one line.
    #[must_use]
    pub fn to_text(&self) -> Zeroizing<String> {
        let mut text = Zeroizing::new(PREFIX.to_owned());
        text.push_str(&self.groups().join("-"));
        text
    }

    /// The file form: the same text in short lines.
    #[must_use]
    pub fn to_file_text(&self) -> Zeroizing<String> {
        let lines: Vec<String> = self.groups().chunks(LINE_GROUPS).map(|line| line.join("-")).collect();
        Zeroizing::new(format!("{PREFIX}\n{}\n", lines.join("-\n")))
    }

    /// Reads either form.
    ///
    /// # Errors
    /// [`InvitationError`], which names the fault and never repeats the text.
    pub fn parse(text: &str) -> Result<Self, InvitationError> {
        if text.len() > TEXT_LEN_MAX {
            return Err(InvitationError::TooLong { length: text.len() });
        }
        let bare = bare(text);
        let content = base32::decode(after_prefix(&bare)?)?;
        let content = Zeroizing::new(content);
        let length = content
            .len()
            .checked_sub(CHECKSUM_LEN)
            .ok_or(InvitationError::Incomplete)?;
        let (payload, sum) = content.split_at_checked(length).ok_or(InvitationError::Incomplete)?;
        if checksum(payload) != *sum {
            return Err(InvitationError::Checksum);
        }
        let mut reader = Reader { rest: payload };
        let draft = Draft {
            root_fingerprint: reader.take()?,
            secret: reader.take()?,
            expires_at_s: u64::from_be_bytes(reader.take()?),
            region: reader.text("region name")?,
            address: reader.text("address")?,
            organisation: reader.text("organisation id")?,
            organisation_name: reader.text("organisation name")?,
        };
        if !reader.rest.is_empty() {
            let reason = "something follows the last part";
            return Err(InvitationError::Field {
                field: "content",
                reason,
            });
        }
        Self::new(draft)
    }

    fn groups(&self) -> Vec<String> {
        let mut payload = Zeroizing::new(Vec::with_capacity(1024));
        payload.extend_from_slice(&self.0.root_fingerprint);
        payload.extend_from_slice(&self.0.secret);
        payload.extend_from_slice(&self.0.expires_at_s.to_be_bytes());
        let texts = [
            &self.0.region,
            &self.0.address,
            &self.0.organisation,
            &self.0.organisation_name,
        ];
        for text in texts {
            // INVARIANT: `new` bounds each text to 255 bytes or 64 characters of at most 4 bytes,
            // of which 255 bytes are let through.
            payload.push(u8::try_from(text.len()).unwrap_or(u8::MAX));
            payload.extend_from_slice(text.as_bytes());
        }
        let sum = checksum(&payload);
        payload.extend_from_slice(&sum);
        let encoded = Zeroizing::new(base32::encode(&payload));
        let characters: Vec<char> = encoded.chars().collect();
        characters
            .chunks(GROUP_CHARS)
            .map(|group| group.iter().collect())
            .collect()
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        self.secret.zeroize();
    }
}

impl fmt::Debug for Draft {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Draft")
            .field("region", &self.region)
            .field("organisation", &self.organisation)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Invitation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Invitation")
            .field("region", &self.0.region)
            .field("organisation", &self.0.organisation)
            .finish_non_exhaustive()
    }
}

/// The text in upper case without white space and hyphens.
fn bare(text: &str) -> Zeroizing<String> {
    let kept = text.chars().filter(|c| !c.is_whitespace() && !is_hyphen(*c));
    Zeroizing::new(kept.map(|c| c.to_ascii_uppercase()).collect())
}

/// Hyphens as keyboards and word processors make them, and what mail programs put beside line breaks.
fn is_hyphen(c: char) -> bool {
    matches!(
        c,
        '-' | '\u{2010}'..='\u{2015}' | '\u{2212}' | '\u{ad}' | '\u{200b}' | '\u{feff}'
    )
}

/// What follows `HIEINV1`; the version digit is read before anything else of the content.
fn after_prefix(bare: &str) -> Result<&str, InvitationError> {
    let rest = bare.strip_prefix("HIEINV").ok_or(InvitationError::Prefix)?;
    if let Some(content) = rest.strip_prefix('1') {
        return Ok(content);
    }
    match rest.chars().next() {
        Some(digit) if digit.is_ascii_digit() => Err(InvitationError::Version {
            version: digit.to_string(),
        }),
        _ => Err(InvitationError::Prefix),
    }
}

fn checksum(payload: &[u8]) -> [u8; CHECKSUM_LEN] {
    let digest: [u8; 32] = Sha256::new()
        .chain_update(CHECKSUM_DOMAIN)
        .chain_update(payload)
        .finalize()
        .into();
    let [a, b, c, d, e, ..] = digest;
    [a, b, c, d, e]
}

fn check_name(field: &'static str, name: &str) -> Result<(), InvitationError> {
    let reason = if name.trim().is_empty() {
        "it is empty"
    } else if name.trim() != name {
        "it begins or ends with a space"
    } else if name.chars().count() > NAME_CHARS_MAX || name.len() > usize::from(u8::MAX) {
        "it is longer than 64 characters"
    } else if name.chars().any(char::is_control) {
        "it has control characters"
    } else {
        return Ok(());
    };
    Err(InvitationError::Field { field, reason })
}

fn check_address(address: &str) -> Result<(), InvitationError> {
    let refused = |reason| {
        Err(InvitationError::Field {
            field: "address",
            reason,
        })
    };
    if address.len() > ADDRESS_LEN_MAX {
        return refused("it is longer than 255 bytes");
    }
    let Some((host, port)) = address.rsplit_once(':') else {
        return refused("it is not host:port");
    };
    let plain_port = port.bytes().all(|b| b.is_ascii_digit()) && !port.starts_with('0');
    if !plain_port || port.parse::<u16>().is_err() {
        return refused("its port is not a number from 1 to 65535");
    }
    let inner = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let possible = match inner {
        Some(inner) => inner.parse::<std::net::Ipv6Addr>().is_ok(),
        None => is_host(host),
    };
    if possible {
        Ok(())
    } else {
        refused("its host is neither a name nor an IP address")
    }
}

/// A DNS name or IPv4 address: dot-separated labels of letters, digits and inner hyphens.
fn is_host(host: &str) -> bool {
    host.split('.').all(|label| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    })
}

fn check_organisation(id: &str) -> Result<(), InvitationError> {
    let refused = |reason| {
        Err(InvitationError::Field {
            field: "organisation id",
            reason,
        })
    };
    if id.len() > ORGANISATION_LEN_MAX {
        return refused("it is longer than 128 bytes");
    }
    let Some(oid) = id.strip_prefix("urn:oid:") else {
        return refused("it does not begin with urn:oid:");
    };
    let arc =
        |arc: &str| !arc.is_empty() && arc.bytes().all(|b| b.is_ascii_digit()) && (arc == "0" || !arc.starts_with('0'));
    if !oid.starts_with(['0', '1', '2']) || !oid.contains('.') || !oid.split('.').all(arc) {
        return refused("it is not a dotted object identifier");
    }
    Ok(())
}

/// Reads the payload's parts; every length is checked against the bytes present.
struct Reader<'a> {
    rest: &'a [u8],
}

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], InvitationError> {
        let (part, rest) = self.rest.split_first_chunk::<N>().ok_or(InvitationError::Incomplete)?;
        self.rest = rest;
        Ok(*part)
    }

    fn text(&mut self, field: &'static str) -> Result<String, InvitationError> {
        let [length] = self.take::<1>()?;
        let (text, rest) = self
            .rest
            .split_at_checked(usize::from(length))
            .ok_or(InvitationError::Incomplete)?;
        self.rest = rest;
        std::str::from_utf8(text)
            .map(str::to_owned)
            .map_err(|_| InvitationError::Field {
                field,
                reason: "it is not UTF-8",
            })
    }
}
