//! `multipart/related` (RFC 2387 over RFC 2046) as STOW-RS and WADO-RS use it (PS3.18 section 8.6).
//!
//! [`Parts`] is incremental: bytes go in as they arrive, events come out, and never more than one delimiter's length
//! and one header block is held back, so a large body is never held whole. The writer makes the same framing.
//!
//! ```text
//!  --B CRLF headers CRLF CRLF data CRLF --B CRLF headers ... CRLF --B--
//! ```

/// Longest boundary (RFC 2046 section 5.1.1).
pub const BOUNDARY_BYTES_MAX: usize = 70;
/// Largest header block of one part, in bytes.
pub const HEADER_BYTES_MAX: usize = 16 * 1024;
/// Most header lines of one part.
pub const HEADER_LINES_MAX: usize = 64;
/// Most parts of one body by default: a CT study with several series.
pub const PARTS_MAX: usize = 20_000;
/// Most bytes before the first delimiter (preamble) and after the last (epilogue), each.
pub const PREAMBLE_BYTES_MAX: usize = 16 * 1024;

/// Why a body was refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum MultipartError {
    /// The Content-Type names no usable boundary.
    #[error(
        "the Content-Type is no multipart with a boundary of 1 to 70 allowed characters: send multipart/related; boundary=..."
    )]
    Boundary,
    /// The first delimiter does not come.
    #[error(
        "no delimiter line within the first {PREAMBLE_BYTES_MAX} bytes: check that the boundary in the Content-Type is the one in the body"
    )]
    NoStart,
    /// A header block is too large or malformed.
    #[error("part {part}: {reason}")]
    Header {
        /// Part number, from 1.
        part: usize,
        /// What is wrong and what to do.
        reason: &'static str,
    },
    /// Something other than a line end follows a delimiter.
    #[error("after part {part}: the delimiter is not followed by a line end")]
    Delimiter {
        /// Number of the part before the delimiter.
        part: usize,
    },
    /// More parts than allowed.
    #[error("more than {limit} parts: split the request")]
    TooMany {
        /// Parts allowed.
        limit: usize,
    },
    /// More bytes than allowed after the closing delimiter.
    #[error("more than {PREAMBLE_BYTES_MAX} bytes after the closing delimiter")]
    Epilogue,
    /// The body ended before the closing delimiter.
    #[error("the body ends before the closing delimiter, in part {part}: send it again")]
    Truncated {
        /// Part number, from 1; 0 before the first.
        part: usize,
    },
}

/// The headers of one part, names in lower case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers(pub Vec<(String, String)>);

impl Headers {
    /// The value of a header, by its lower-case name.
    pub fn value(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    }

    /// The Content-Type.
    pub fn content_type(&self) -> Option<&str> {
        self.value("content-type")
    }
}

/// What arrived.
#[derive(Clone, PartialEq, Eq)]
pub enum Event {
    /// A part begins.
    PartStart(Headers),
    /// Bytes of the current part, never empty.
    Data(Vec<u8>),
    /// The current part is whole.
    PartEnd,
}

impl std::fmt::Debug for Event {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::PartStart(headers) => write!(out, "PartStart({} headers)", headers.0.len()),
            Self::Data(bytes) => write!(out, "Data({} bytes)", bytes.len()),
            Self::PartEnd => out.write_str("PartEnd"),
        }
    }
}

/// A parsed multipart Content-Type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MultipartType {
    /// The delimiter's text.
    pub boundary: String,
    /// The root part's media type (`type` parameter), for example `application/dicom`.
    pub root: Option<String>,
}

impl MultipartType {
    /// Reads the Content-Type of a request.
    pub fn parse(content_type: &str) -> Result<Self, MultipartError> {
        let mut fields = parameters(content_type).into_iter();
        let kind = fields.next().map(|(name, _)| name).unwrap_or_default();
        if !kind.starts_with("multipart/") {
            return Err(MultipartError::Boundary);
        }
        let (mut boundary, mut root) = (None, None);
        for (name, value) in fields {
            match name.as_str() {
                "boundary" if boundary.is_none() => boundary = Some(value),
                "type" if root.is_none() => root = Some(value),
                _ => {}
            }
        }
        let boundary = boundary
            .filter(|text| is_boundary(text))
            .ok_or(MultipartError::Boundary)?;
        Ok(Self { boundary, root })
    }
}

/// Splits a media type into its name and parameters; names are lower case, quoted values unquoted.
fn parameters(text: &str) -> Vec<(String, String)> {
    let mut fields = vec![String::new()];
    let (mut quoted, mut escaped) = (false, false);
    for letter in text.chars().take(4096) {
        let last = fields.last_mut();
        match letter {
            _ if escaped => {
                escaped = false;
                last.into_iter().for_each(|field| field.push(letter));
            }
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            ';' if !quoted => fields.push(String::new()),
            _ => last.into_iter().for_each(|field| field.push(letter)),
        }
    }
    let pair = |field: String| match field.split_once('=') {
        Some((name, value)) => (name.trim().to_ascii_lowercase(), value.trim().to_owned()),
        None => (field.trim().to_ascii_lowercase(), String::new()),
    };
    fields.into_iter().map(pair).collect()
}

fn is_boundary(text: &str) -> bool {
    (1..=BOUNDARY_BYTES_MAX).contains(&text.len())
        && !text.ends_with(' ')
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"'()+_,-./:=? ".contains(&byte))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// Before the first delimiter.
    Preamble,
    /// Behind a delimiter, before its line end or closing dashes.
    Delimiter,
    Headers,
    Data,
    Epilogue,
}

/// The incremental parser of one body.
pub struct Parts {
    /// `CRLF "--" boundary`; a CRLF is put before the body so that a first delimiter at offset 0 matches too.
    delimiter: Vec<u8>,
    held: Vec<u8>,
    state: State,
    part: usize,
    parts_max: usize,
    outside: usize,
    lead: bool,
}

impl Parts {
    /// A parser for bodies with this boundary and at most `parts_max` parts.
    pub fn new(boundary: &str, parts_max: usize) -> Result<Self, MultipartError> {
        if !is_boundary(boundary) {
            return Err(MultipartError::Boundary);
        }
        let delimiter = format!("\r\n--{boundary}").into_bytes();
        Ok(Self {
            delimiter,
            held: b"\r\n".to_vec(),
            state: State::Preamble,
            part: 0,
            parts_max,
            outside: 0,
            lead: false,
        })
    }

    /// Takes the next bytes of the body. After an error the parser must be dropped.
    pub fn push(&mut self, bytes: &[u8]) -> Result<Vec<Event>, MultipartError> {
        self.held.extend_from_slice(bytes);
        let mut events = Vec::new();
        while self.step(&mut events)? {}
        Ok(events)
    }

    /// Ends the body: it must have had its closing delimiter.
    pub fn finish(self) -> Result<(), MultipartError> {
        if self.state == State::Epilogue {
            Ok(())
        } else {
            Err(MultipartError::Truncated { part: self.part })
        }
    }

    /// Takes one step; false when more bytes are needed.
    fn step(&mut self, events: &mut Vec<Event>) -> Result<bool, MultipartError> {
        match self.state {
            State::Preamble => self.preamble(),
            State::Delimiter => self.after_delimiter(),
            State::Headers => self.headers(events),
            State::Data => self.data(events),
            State::Epilogue => {
                self.outside = self.outside.saturating_add(self.held.len());
                self.held.clear();
                if self.outside > PREAMBLE_BYTES_MAX {
                    Err(MultipartError::Epilogue)
                } else {
                    Ok(false)
                }
            }
        }
    }

    fn preamble(&mut self) -> Result<bool, MultipartError> {
        if let Some(at) = find(&self.held, &self.delimiter) {
            self.drop_front(at.saturating_add(self.delimiter.len()));
            self.state = State::Delimiter;
            return Ok(true);
        }
        let spare = self.held.len().saturating_sub(self.delimiter.len());
        self.outside = self.outside.saturating_add(spare);
        self.drop_front(spare);
        if self.outside > PREAMBLE_BYTES_MAX {
            Err(MultipartError::NoStart)
        } else {
            Ok(false)
        }
    }

    fn after_delimiter(&mut self) -> Result<bool, MultipartError> {
        if self.held.starts_with(b"--") {
            self.held.clear();
            self.state = State::Epilogue;
            self.outside = 0;
            return Ok(false);
        }
        let Some(end) = find(&self.held, b"\r\n") else {
            let blank = self.held.iter().all(|byte| matches!(byte, b' ' | b'\t' | b'\r' | b'-'));
            let short = self.held.len() <= HEADER_LINES_MAX;
            return if blank && short {
                Ok(false)
            } else {
                Err(MultipartError::Delimiter { part: self.part })
            };
        };
        let padding = self.held.get(..end).unwrap_or_default();
        if !padding.iter().all(|byte| matches!(byte, b' ' | b'\t')) {
            return Err(MultipartError::Delimiter { part: self.part });
        }
        if self.part >= self.parts_max {
            return Err(MultipartError::TooMany { limit: self.parts_max });
        }
        // The line end stays: an empty header block is CRLF CRLF as well.
        self.drop_front(end);
        self.part = self.part.saturating_add(1);
        self.state = State::Headers;
        Ok(true)
    }

    fn headers(&mut self, events: &mut Vec<Event>) -> Result<bool, MultipartError> {
        let part = self.part;
        let refuse = |reason| MultipartError::Header { part, reason };
        let Some(end) = find(&self.held, b"\r\n\r\n") else {
            return if self.held.len() > HEADER_BYTES_MAX {
                Err(refuse("its header block has more than 16 KiB: send fewer headers"))
            } else {
                Ok(false)
            };
        };
        if end > HEADER_BYTES_MAX {
            return Err(refuse("its header block has more than 16 KiB: send fewer headers"));
        }
        let block = self.held.get(..end).unwrap_or_default();
        let block = std::str::from_utf8(block).map_err(|_| refuse("its headers are not UTF-8: send ASCII headers"))?;
        let mut headers = Vec::new();
        for line in block.split("\r\n").filter(|line| !line.is_empty()) {
            let (name, value) = line
                .split_once(':')
                .ok_or_else(|| refuse("a header line has no colon: send 'Name: value'"))?;
            let token = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_graphic());
            if !token || value.bytes().any(|byte| byte.is_ascii_control() && byte != b'\t') {
                return Err(refuse(
                    "a header name or value has forbidden characters: send ASCII headers",
                ));
            }
            if headers.len() >= HEADER_LINES_MAX {
                return Err(refuse("it has more than 64 headers: send fewer"));
            }
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        // The second CRLF stays in front of the data, so that an empty part's delimiter matches.
        self.drop_front(end.saturating_add(2));
        events.push(Event::PartStart(Headers(headers)));
        self.lead = true;
        self.state = State::Data;
        Ok(true)
    }

    /// INVARIANT: while `lead` is set, `held` starts with the CRLF that ends the header block.
    fn data(&mut self, events: &mut Vec<Event>) -> Result<bool, MultipartError> {
        let Some(at) = find(&self.held, &self.delimiter) else {
            let spare = self.held.len().saturating_sub(self.delimiter.len());
            self.emit(spare, events);
            return Ok(false);
        };
        let skip = if self.lead { 2 } else { 0 };
        let last = self.held.get(skip..at).unwrap_or_default();
        if !last.is_empty() {
            events.push(Event::Data(last.to_vec()));
        }
        self.lead = false;
        self.drop_front(at.saturating_add(self.delimiter.len()));
        events.push(Event::PartEnd);
        self.state = State::Delimiter;
        Ok(true)
    }

    /// Emits the first `length` held bytes as data, without the CRLF of the header block.
    fn emit(&mut self, length: usize, events: &mut Vec<Event>) {
        let skip = if self.lead { 2 } else { 0 };
        if length > skip {
            events.push(Event::Data(self.held.get(skip..length).unwrap_or_default().to_vec()));
            self.drop_front(length);
            self.lead = false;
        }
    }

    fn drop_front(&mut self, count: usize) {
        self.held.drain(..count.min(self.held.len()));
    }
}

/// A whole body at once, for bodies that the caller has already bounded.
pub fn parse(body: &[u8], boundary: &str, parts_max: usize) -> Result<Vec<(Headers, Vec<u8>)>, MultipartError> {
    let mut parser = Parts::new(boundary, parts_max)?;
    let events = parser.push(body)?;
    parser.finish()?;
    let mut parts: Vec<(Headers, Vec<u8>)> = Vec::new();
    for event in events {
        match event {
            Event::PartStart(headers) => parts.push((headers, Vec::new())),
            Event::Data(bytes) => parts
                .last_mut()
                .into_iter()
                .for_each(|(_, data)| data.extend_from_slice(&bytes)),
            Event::PartEnd => {}
        }
    }
    Ok(parts)
}

/// Writes the framing of a multipart body; the data of each part goes between [`Writer::start`] and the next call.
#[derive(Debug)]
pub struct Writer {
    boundary: String,
    first: bool,
}

impl Writer {
    /// A writer; the boundary must not occur in any part's data, so give it at least 128 random bits.
    pub fn new(boundary: &str) -> Result<Self, MultipartError> {
        if is_boundary(boundary) {
            Ok(Self {
                boundary: boundary.to_owned(),
                first: true,
            })
        } else {
            Err(MultipartError::Boundary)
        }
    }

    /// The Content-Type of the whole body; `root` is the media type of its parts.
    pub fn content_type(&self, root: &str) -> String {
        format!("multipart/related; type=\"{root}\"; boundary=\"{}\"", self.boundary)
    }

    /// The bytes before a part's data. Control characters in header values are replaced by spaces.
    pub fn start(&mut self, headers: &[(&str, &str)]) -> Vec<u8> {
        let line_end = if self.first { "" } else { "\r\n" };
        self.first = false;
        let mut text = format!("{line_end}--{}\r\n", self.boundary);
        for (name, value) in headers {
            let value: String = value
                .chars()
                .map(|letter| if letter.is_control() { ' ' } else { letter })
                .collect();
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        text.push_str("\r\n");
        text.into_bytes()
    }

    /// The bytes after the last part's data.
    pub fn finish(self) -> Vec<u8> {
        let line_end = if self.first { "" } else { "\r\n" };
        format!("{line_end}--{}--\r\n", self.boundary).into_bytes()
    }
}

/// The first place of `needle` in `hay`.
fn find(hay: &[u8], needle: &[u8]) -> Option<usize> {
    let first = needle.first()?;
    let mut from = 0;
    loop {
        let rest = hay.get(from..)?;
        let at = from.saturating_add(rest.iter().position(|byte| byte == first)?);
        if hay.get(at..)?.starts_with(needle) {
            return Some(at);
        }
        from = at.saturating_add(1);
    }
}

#[cfg(test)]
mod tests;
