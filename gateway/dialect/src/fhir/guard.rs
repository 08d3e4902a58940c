//! The one door for JSON: nothing below this module ever parses bytes by itself.
//!
//! The law: an input is UTF-8, at most so large, so deep, with so many values; an object never holds the same key
//! twice (two readers would see two truths); nothing follows the value. A byte order mark is accepted. Every
//! refusal names line, column and JSON path, never a value, because values are patients' data. Numbers are kept as
//! 64-bit integers or doubles; what does not fit is refused rather than changed into infinity.

use std::fmt;
use std::io::Read;

use flate2::read::MultiGzDecoder;
use serde::de::{DeserializeSeed, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// Largest accepted JSON input, in bytes.
pub const INPUT_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Deepest accepted nesting of arrays and objects. A FHIR example rarely exceeds 16.
pub const DEPTH_MAX: usize = 32;
/// Longest accepted string, in bytes of UTF-8: a base64 attachment is one string.
pub const STRING_BYTES_MAX: usize = 48 * 1024 * 1024;
/// Largest accepted number of JSON values in one input.
pub const NODES_MAX: usize = 4_000_000;
/// Longest accepted object key, in bytes.
pub const KEY_BYTES_MAX: usize = 1024;
/// The parser below keeps its own recursion limit of 128; ours must stay under it.
const DEPTH_CEILING: usize = 120;
/// Longest key that an error message repeats.
const PATH_KEY_MAX: usize = 64;

/// What one JSON input may cost. `Limits::default()` holds the constants of this module.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Input size in bytes.
    pub bytes: usize,
    /// Nesting of arrays and objects; values above 120 count as 120.
    pub depth: usize,
    /// Length of one string, in bytes.
    pub string_bytes: usize,
    /// Number of JSON values.
    pub nodes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            bytes: INPUT_BYTES_MAX,
            depth: DEPTH_MAX,
            string_bytes: STRING_BYTES_MAX,
            nodes: NODES_MAX,
        }
    }
}

/// Why an input was refused: what, where, and what the sender can do. Never a value of the input.
#[derive(Debug, thiserror::Error)]
pub enum FhirError {
    /// The input is larger than the limit.
    #[error(
        "the input has {found} bytes, more than the {limit} allowed: split it into smaller Bundles or ndjson lines"
    )]
    TooLarge {
        /// Bytes found.
        found: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// The input is not UTF-8.
    #[error("the text is not UTF-8 at line {line}, column {column}: save it as UTF-8 and send it again")]
    NotUtf8 {
        /// Line, from 1.
        line: usize,
        /// Column, from 1.
        column: usize,
    },
    /// The input is not JSON, or breaks a limit or the rule on duplicate keys.
    #[error("{reason} at line {line}, column {column}, path {path}: {remedy}")]
    Json {
        /// What is wrong.
        reason: String,
        /// Line, from 1.
        line: usize,
        /// Column, from 1.
        column: usize,
        /// JSON path, `$` being the whole input.
        path: String,
        /// What to do.
        remedy: &'static str,
    },
    /// The gzip stream is damaged.
    #[error("the gzip data is damaged after {at} bytes of output: send the file again")]
    Gzip {
        /// Output bytes read before the damage.
        at: usize,
        /// The decoder's word.
        #[source]
        source: std::io::Error,
    },
    /// The gzip stream unpacks to more than allowed.
    #[error("the gzip data unpacks to more than the {limit} bytes allowed: split it into smaller files")]
    GzipTooLarge {
        /// Bytes allowed.
        limit: usize,
    },
    /// The JSON is well formed but is not the FHIR content that was asked for.
    #[error("{reason}: {remedy}")]
    Content {
        /// What is wrong.
        reason: String,
        /// What to do.
        remedy: &'static str,
    },
}

/// Reads one JSON value under `limits`.
pub fn parse(bytes: &[u8], limits: &Limits) -> Result<Value, FhirError> {
    if bytes.len() > limits.bytes {
        return Err(FhirError::TooLarge {
            found: bytes.len(),
            limit: limits.bytes,
        });
    }
    let text = std::str::from_utf8(bytes).map_err(|error| not_utf8(bytes, error.valid_up_to()))?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut walk = Walk {
        limits,
        depth: 0,
        nodes: 0,
        path: Vec::new(),
        remedy: None,
    };
    let mut reader = serde_json::Deserializer::from_str(text);
    let value = Seed(&mut walk).deserialize(&mut reader);
    match value.and_then(|value| reader.end().map(|()| value)) {
        Ok(value) => Ok(value),
        Err(error) => Err(walk.explain(&error)),
    }
}

/// Unpacks gzip data (all members) to at most `bytes_max` bytes.
pub fn gunzip(bytes: &[u8], bytes_max: usize) -> Result<Vec<u8>, FhirError> {
    let mut out = Vec::new();
    let cap = u64::try_from(bytes_max).unwrap_or(u64::MAX).saturating_add(1);
    let mut reader = MultiGzDecoder::new(bytes).take(cap);
    if let Err(source) = reader.read_to_end(&mut out) {
        return Err(FhirError::Gzip { at: out.len(), source });
    }
    if out.len() > bytes_max {
        return Err(FhirError::GzipTooLarge { limit: bytes_max });
    }
    Ok(out)
}

/// True when the input starts as gzip data does (RFC 1952).
pub fn is_gzip(bytes: &[u8]) -> bool {
    bytes.starts_with(&[0x1f, 0x8b])
}

/// The non-blank lines of an ndjson input with their numbers, from 1.
pub fn lines(bytes: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    bytes
        .split(|byte| *byte == b'\n')
        .enumerate()
        .map(|(at, line)| (at.saturating_add(1), line.trim_ascii()))
        .filter(|(_, line)| !line.is_empty())
}

/// Reads ndjson: each non-blank line with its number, and its value or the reason why that line alone is refused.
pub fn parse_lines<'b>(
    bytes: &'b [u8],
    limits: &'b Limits,
) -> impl Iterator<Item = (usize, Result<Value, FhirError>)> + 'b {
    lines(bytes).map(move |(number, line)| (number, parse(line, limits)))
}

fn not_utf8(bytes: &[u8], at: usize) -> FhirError {
    let before = bytes.get(..at).unwrap_or(bytes);
    let line = before.iter().filter(|byte| **byte == b'\n').count().saturating_add(1);
    let column = before
        .iter()
        .rev()
        .take_while(|byte| **byte != b'\n')
        .count()
        .saturating_add(1);
    FhirError::NotUtf8 { line, column }
}

enum Step {
    Key(String),
    Index(usize),
}

struct Walk<'l> {
    limits: &'l Limits,
    depth: usize,
    nodes: usize,
    path: Vec<Step>,
    remedy: Option<&'static str>,
}

impl Walk<'_> {
    fn refuse<E: serde::de::Error>(&mut self, reason: impl fmt::Display, remedy: &'static str) -> E {
        self.remedy = Some(remedy);
        E::custom(reason)
    }

    fn count<E: serde::de::Error>(&mut self) -> Result<(), E> {
        self.nodes = self.nodes.saturating_add(1);
        if self.nodes > self.limits.nodes {
            let limit = self.limits.nodes;
            return Err(self.refuse(
                format_args!("more than {limit} values"),
                "split the input into smaller Bundles",
            ));
        }
        Ok(())
    }

    fn enter<E: serde::de::Error>(&mut self) -> Result<(), E> {
        self.depth = self.depth.saturating_add(1);
        let limit = self.limits.depth.min(DEPTH_CEILING);
        if self.depth > limit {
            return Err(self.refuse(
                format_args!("nesting deeper than {limit} levels"),
                "flatten the resource; no FHIR resource in use needs this depth",
            ));
        }
        Ok(())
    }

    fn leave(&mut self) {
        self.depth = self.depth.saturating_sub(1);
    }

    fn string<E: serde::de::Error>(&mut self, length: usize) -> Result<(), E> {
        self.count()?;
        if length > self.limits.string_bytes {
            let limit = self.limits.string_bytes;
            return Err(self.refuse(
                format_args!("a string of {length} bytes, more than the {limit} allowed"),
                "send large attachments as documents of their own",
            ));
        }
        Ok(())
    }

    fn path_text(&self) -> String {
        let mut text = String::from("$");
        for step in &self.path {
            match step {
                Step::Index(index) => text.push_str(&format!("[{index}]")),
                Step::Key(key) if plain_key(key) => {
                    text.push('.');
                    text.push_str(key);
                }
                Step::Key(_) => text.push_str(".?"),
            }
        }
        text
    }

    fn explain(&self, error: &serde_json::Error) -> FhirError {
        let full = error.to_string();
        let reason = full.split(" at line ").next().unwrap_or("not JSON").to_owned();
        let remedy = self.remedy.unwrap_or(if error.is_eof() {
            "the input ends too early; send the whole file again"
        } else {
            "correct the JSON at this place and send it again"
        });
        FhirError::Json {
            reason,
            line: error.line(),
            column: error.column(),
            path: self.path_text(),
            remedy,
        }
    }
}

/// Keys are repeated in messages only when they look like FHIR element names.
fn plain_key(key: &str) -> bool {
    key.len() <= PATH_KEY_MAX && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

struct Seed<'w, 'l>(&'w mut Walk<'l>);

impl<'de> DeserializeSeed<'de> for Seed<'_, '_> {
    type Value = Value;

    fn deserialize<D: serde::Deserializer<'de>>(self, reader: D) -> Result<Value, D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_, '_> {
    type Value = Value;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a JSON value")
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<Value, E> {
        self.0.count()?;
        Ok(Value::Null)
    }

    fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<Value, E> {
        self.0.count()?;
        Ok(Value::Bool(value))
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Value, E> {
        self.0.count()?;
        Ok(Value::Number(value.into()))
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<Value, E> {
        self.0.count()?;
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        self.0.count()?;
        Number::from_f64(value)
            .map(Value::Number)
            .ok_or_else(|| E::custom("number out of range"))
    }

    fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<Value, E> {
        self.0.string(value.len())?;
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E: serde::de::Error>(self, value: String) -> Result<Value, E> {
        self.0.string(value.len())?;
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let walk = self.0;
        walk.count()?;
        walk.enter()?;
        let mut list = Vec::new();
        loop {
            walk.path.push(Step::Index(list.len()));
            match items.next_element_seed(Seed(walk))? {
                Some(value) => list.push(value),
                None => break,
            }
            walk.path.pop();
        }
        walk.path.pop();
        walk.leave();
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let walk = self.0;
        walk.count()?;
        walk.enter()?;
        let mut map = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            if key.len() > KEY_BYTES_MAX {
                return Err(walk.refuse(format_args!("a key of {} bytes", key.len()), "use FHIR element names"));
            }
            let twice = map.contains_key(&key);
            walk.path.push(Step::Key(key.clone()));
            if twice {
                return Err(walk.refuse("the same key twice in one object", "keep one of the two values"));
            }
            let value = entries.next_value_seed(Seed(walk))?;
            walk.path.pop();
            map.insert(key, value);
        }
        walk.leave();
        Ok(Value::Object(map))
    }
}

#[cfg(test)]
mod tests;
