//! WADO-RS Retrieve Bulkdata (PS3.18 section 10.4.1.1.5; RAD-107): what the `BulkDataURI`s of our metadata lead to.

use axum::extract::State;
use axum::http::HeaderMap;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::stream;
use hie_gateway_dialect::dicom::{attribute, instance};

use crate::dicomweb::media::accepted;
use crate::dicomweb::multipart::{self, Part};
use crate::dicomweb::rad107_instances::at_hand;
use crate::dicomweb::{Below, work};
use crate::gate::Gate;
use crate::ports::Caller;
use crate::respond::{Dialect, Fault, failed, refused};

const BYTES: &str = "application/octet-stream";
/// The link of the pixel data.
const PIXELS: &str = "pixeldata";

/// Retrieves.
pub async fn retrieve(State(gate): State<Gate>, caller: Caller, below: Below, headers: HeaderMap) -> Response {
    match bulk(&gate, &caller, &below, &headers).await {
        Ok(response) | Err(response) => response,
    }
}

async fn bulk(gate: &Gate, caller: &Caller, below: &Below, headers: &HeaderMap) -> Result<Response, Response> {
    let media = accepted(headers);
    let multi = media.iter().any(|media| media.takes_parts(BYTES));
    if !multi && !media.iter().any(|media| media.essence == BYTES) {
        return Err(refused(gate, Dialect::Dicom, Fault::NotAcceptable));
    }
    let (_, bytes) = below.one(gate, caller).await?;
    let place = below.place.clone().unwrap_or_default();
    let read = work(move || {
        if place != PIXELS {
            let steps: Vec<&str> = place.split('/').collect();
            return Ok(vec![(BYTES.to_owned(), attribute::bulk(&bytes, &steps)?)]);
        }
        let frames = instance::read(&bytes)?.frames;
        let one = |number| {
            let frame = instance::frame(&bytes, number)?;
            Ok((
                format!("{BYTES}; transfer-syntax={}", frame.transfer_syntax),
                frame.bytes,
            ))
        };
        (1..=frames).map(one).collect()
    });
    let parts: Vec<(String, Vec<u8>)> = read.await.map_err(|error| match error.class {
        // A place that the instance does not have is an unknown address.
        hie_protocol::refusal::Class::Invalid => refused(gate, Dialect::Dicom, Fault::Nothing),
        _ => failed(gate, Dialect::Dicom, &error),
    })?;
    if !multi {
        let all: Vec<u8> = parts.into_iter().flat_map(|(_, bytes)| bytes).collect();
        return Ok(([(CONTENT_TYPE, BYTES)], all).into_response());
    }
    let parts = parts.into_iter().map(|(content_type, bytes)| {
        Ok(Part {
            content_type,
            location: None,
            body: at_hand(Bytes::from(bytes)),
        })
    });
    Ok(multipart::send(gate, BYTES, stream::iter(parts.collect::<Vec<_>>())))
}
