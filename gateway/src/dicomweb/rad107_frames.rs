//! WADO-RS Retrieve Frames (PS3.18 section 10.4.1.1.6; RAD-107): frames in the syntax in which they are stored.

use axum::extract::State;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::stream;
use hie_gateway_dialect::dicom::instance::{self, Frame};
use hie_protocol::refusal::Class;

use crate::dicomweb::media::{Media, accepted, image_type};
use crate::dicomweb::multipart::{self, Part};
use crate::dicomweb::rad107_instances::at_hand;
use crate::dicomweb::{Below, base, instance_url, work};
use crate::gate::Gate;
use crate::ports::Caller;
use crate::respond::{Dialect, Fault, Problem, failed, refused};

/// Most frames of one request.
pub const FRAMES_MAX: usize = 128;
const BYTES: &str = "application/octet-stream";

/// Retrieves.
pub async fn retrieve(State(gate): State<Gate>, caller: Caller, below: Below, headers: HeaderMap) -> Response {
    match frames(&gate, &caller, &below, &headers).await {
        Ok(response) | Err(response) => response,
    }
}

/// Reads a list of frame numbers from 1.
#[must_use]
pub fn list(text: &str) -> Option<Vec<u32>> {
    let numbers: Option<Vec<u32>> = text
        .split(',')
        .take(FRAMES_MAX + 1)
        .map(|number| number.trim().parse().ok().filter(|number| *number > 0))
        .collect();
    numbers.filter(|numbers| (1..=FRAMES_MAX).contains(&numbers.len()))
}

async fn frames(gate: &Gate, caller: &Caller, below: &Below, headers: &HeaderMap) -> Result<Response, Response> {
    let bad = || {
        Problem::with(
            gate,
            Fault::Of(Class::Invalid),
            "Frames are a list of 1 to 128 numbers from 1.",
        )
        .respond(gate, Dialect::Dicom)
    };
    let numbers = list(below.frames.as_deref().unwrap_or_default()).ok_or_else(bad)?;
    let (content, bytes) = below.one(gate, caller).await?;
    let single = numbers.len() == 1;
    let read = work(move || {
        numbers
            .iter()
            .map(|number| Ok((*number, instance::frame(&bytes, *number)?)))
            .collect::<Result<Vec<_>, _>>()
    });
    let frames = read.await.map_err(|error| failed(gate, Dialect::Dicom, &error))?;
    let stored = frames
        .first()
        .map(|(_, frame)| frame.transfer_syntax.clone())
        .unwrap_or_default();
    let (kind, multi) = choose(&accepted(headers), &stored, single)
        .ok_or_else(|| refused(gate, Dialect::Dicom, Fault::NotAcceptable))?;
    let content_type = format!("{kind}; transfer-syntax={stored}");
    if !multi {
        return Ok(alone(&content_type, frames));
    }
    let url = instance_url(&base(gate), &content.study, &content.series, &content.instance);
    let parts = frames.into_iter().map(move |(number, frame)| {
        let location = Some(format!("{url}/frames/{number}"));
        Ok(Part {
            content_type: content_type.clone(),
            location,
            body: at_hand(Bytes::from(frame.bytes)),
        })
    });
    Ok(multipart::send(gate, kind, stream::iter(parts.collect::<Vec<_>>())))
}

/// The type of the frames and whether they go as multipart.
fn choose(media: &[Media], stored: &str, single: bool) -> Option<(&'static str, bool)> {
    let image = image_type(stored);
    media
        .iter()
        .filter(|media| media.takes_syntax(stored))
        .find_map(|media| {
            if media.takes_parts(BYTES) {
                return Some((BYTES, true));
            }
            match image {
                Some(image) if media.takes_parts(image) => Some((image, true)),
                Some(image) if single && media.essence == image => Some((image, false)),
                _ if single && media.essence == BYTES => Some((BYTES, false)),
                _ => None,
            }
        })
}

fn alone(content_type: &str, frames: Vec<(u32, Frame)>) -> Response {
    let bytes = frames
        .into_iter()
        .next()
        .map(|(_, frame)| frame.bytes)
        .unwrap_or_default();
    let length = bytes.len();
    let mut response = (StatusCode::OK, bytes).into_response();
    response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length));
    if let Ok(kind) = HeaderValue::try_from(content_type) {
        response.headers_mut().insert(CONTENT_TYPE, kind);
    }
    response
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

    use super::{FRAMES_MAX, list};

    #[test]
    fn frame_lists_have_limits() {
        assert_eq!(list("1,2, 7"), Some(vec![1, 2, 7]));
        assert!(list(&vec!["1"; FRAMES_MAX].join(",")).is_some());
        for bad in [
            "",
            "0",
            "-1",
            "1,,2",
            "x",
            "99999999999",
            &vec!["1"; FRAMES_MAX + 1].join(","),
        ] {
            assert_eq!(list(bad), None, "{bad}");
        }
    }
}
