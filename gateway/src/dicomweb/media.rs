//! Media ranges as DICOMweb uses them (PS3.18 section 8.7): `multipart/related; type="application/dicom"; transfer-syntax=*`.
//!
//! Clients leave the quotes out and send the parameters in any order; both are taken. Without a transfer syntax the
//! stored one is meant.

use axum::http::HeaderMap;

use crate::fhir::negotiate::{essence, ranges};

/// One media range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Media {
    /// Type and subtype.
    pub essence: String,
    /// `type` parameter: what the parts are.
    pub root: Option<String>,
    /// `transfer-syntax` parameter.
    pub syntax: Option<String>,
}

impl Media {
    /// Reads a media range.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let parameter = |name: &str| {
            let found = text
                .split(';')
                .skip(1)
                .filter_map(|part| part.split_once('='))
                .find(|(key, _)| key.trim().eq_ignore_ascii_case(name));
            found.map(|(_, value)| value.trim().trim_matches('"').to_owned())
        };
        Self {
            essence: essence(text),
            root: parameter("type").map(|root| root.to_ascii_lowercase()),
            syntax: parameter("transfer-syntax"),
        }
    }

    /// Whether the range takes bytes in this transfer syntax.
    #[must_use]
    pub fn takes_syntax(&self, stored: &str) -> bool {
        self.syntax
            .as_deref()
            .is_none_or(|syntax| syntax == "*" || syntax == stored)
    }

    /// Whether the range is a multipart with parts of this type.
    #[must_use]
    pub fn takes_parts(&self, kind: &str) -> bool {
        let multipart = matches!(self.essence.as_str(), "*/*" | "multipart/*" | "multipart/related");
        multipart && self.root.as_deref().is_none_or(|root| root == kind || root == "*/*")
    }
}

/// The caller's media ranges in order; everything where there is no header.
#[must_use]
pub fn accepted(headers: &HeaderMap) -> Vec<Media> {
    match ranges(headers) {
        Some(ranges) => ranges.iter().map(|range| Media::parse(range)).collect(),
        None => vec![Media::parse("*/*")],
    }
}

/// Whether the caller takes DICOM JSON.
#[must_use]
pub fn takes_json(headers: &HeaderMap) -> bool {
    let json = |media: &Media| {
        matches!(
            media.essence.as_str(),
            "application/dicom+json" | "application/json" | "application/*" | "*/*"
        )
    };
    accepted(headers).iter().any(json)
}

/// The image type of one frame in a compressed transfer syntax (PS3.18 table 8.7.3-5).
#[must_use]
pub fn image_type(syntax: &str) -> Option<&'static str> {
    match syntax.strip_prefix("1.2.840.10008.1.2.")? {
        "5" => Some("image/dicom-rle"),
        "4.50" | "4.51" | "4.57" | "4.70" => Some("image/jpeg"),
        "4.80" | "4.81" => Some("image/jls"),
        "4.90" | "4.91" => Some("image/jp2"),
        "4.92" | "4.93" => Some("image/jpx"),
        "4.201" | "4.202" | "4.203" => Some("image/jphc"),
        "4.110" | "4.111" | "4.112" => Some("image/jxl"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

    use axum::http::{HeaderMap, HeaderValue};

    use super::{Media, accepted, takes_json};

    #[test]
    fn ranges_of_real_clients_are_read() {
        let viewer = Media::parse("multipart/related; type=application/octet-stream; transfer-syntax=*");
        assert!(viewer.takes_parts("application/octet-stream") && viewer.takes_syntax("1.2.840.10008.1.2.4.70"));
        let python = Media::parse("multipart/related; type=\"application/dicom\"; transfer-syntax=1.2.840.10008.1.2.1");
        assert!(python.takes_parts("application/dicom") && python.takes_syntax("1.2.840.10008.1.2.1"));
        assert!(!python.takes_parts("application/octet-stream") && !python.takes_syntax("1.2.840.10008.1.2.4.70"));
        let mut headers = HeaderMap::new();
        assert!(takes_json(&headers) && accepted(&headers).len() == 1);
        headers.insert(
            "accept",
            HeaderValue::from_static("multipart/related; type=\"application/dicom+xml\""),
        );
        assert!(!takes_json(&headers));
        headers.insert(
            "accept",
            HeaderValue::from_static("text/html, application/dicom+json;q=0"),
        );
        assert!(!takes_json(&headers));
    }
}
