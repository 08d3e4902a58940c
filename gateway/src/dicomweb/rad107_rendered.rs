//! WADO-RS Retrieve Rendered (PS3.18 section 10.4.1.1.3; RAD-107): a picture (PNG) drawn in a process of its own, or the
//! PDF of an encapsulated document.

use axum::extract::State;
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use axum::http::{HeaderMap, Uri};
use axum::response::{IntoResponse, Response};
use hie_gateway_dialect::dicom::attribute;
use hie_protocol::refusal::Class;

use crate::dicomweb::media::accepted;
use crate::dicomweb::rad107_frames::list;
use crate::dicomweb::{Below, work};
use crate::fhir::parameters::decode;
use crate::gate::Gate;
use crate::headers::CSP_FOREIGN;
use crate::ports::{Caller, Window};
use crate::respond::{Dialect, Fault, Problem, failed, refused};

/// Largest side of a picture, in pixels.
pub const SIDE_PX_MAX: u32 = 4096;
/// Encapsulated PDF Storage.
const PDF_CLASS: &str = "1.2.840.10008.5.1.4.1.1.104.1";
/// Encapsulated Document (0042,0011).
const DOCUMENT: &str = "00420011";

/// Retrieves.
pub async fn retrieve(
    State(gate): State<Gate>,
    caller: Caller,
    below: Below,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    match rendered(&gate, &caller, &below, uri.query().unwrap_or_default(), &headers).await {
        Ok(response) | Err(response) => response,
    }
}

async fn rendered(
    gate: &Gate,
    caller: &Caller,
    below: &Below,
    query: &str,
    headers: &HeaderMap,
) -> Result<Response, Response> {
    let bad = |words: &str| Problem::with(gate, Fault::Of(Class::Invalid), words).respond(gate, Dialect::Dicom);
    let (side, window) =
        view(query).ok_or_else(|| bad("viewport is width,height and window is centre,width,function."))?;
    let frame = match below.frames.as_deref().map(list) {
        None => 1,
        Some(Some(numbers)) if numbers.len() == 1 => numbers.first().copied().unwrap_or(1),
        Some(_) => return Err(bad("One frame is drawn at a time.")),
    };
    let media = accepted(headers);
    let takes = |kinds: &[&str]| media.iter().any(|media| kinds.contains(&media.essence.as_str()));
    if !takes(&["image/png", "image/*", "*/*", "application/pdf", "application/*"]) {
        return Err(refused(gate, Dialect::Dicom, Fault::NotAcceptable));
    }
    let (content, bytes) = below.one(gate, caller).await?;
    let fail = |error| failed(gate, Dialect::Dicom, &error);
    let (kind, picture) = if content.sop_class == PDF_CLASS {
        if !takes(&["application/pdf", "application/*", "*/*"]) {
            return Err(refused(gate, Dialect::Dicom, Fault::NotAcceptable));
        }
        let document = work(move || attribute::bulk(&bytes, &[DOCUMENT])).await.map_err(fail)?;
        ("application/pdf", document.into())
    } else {
        if !takes(&["image/png", "image/*", "*/*"]) {
            return Err(refused(gate, Dialect::Dicom, Fault::NotAcceptable));
        }
        (
            "image/png",
            gate.ports
                .frames
                .render(bytes, frame.saturating_sub(1), side, window)
                .await
                .map_err(fail)?,
        )
    };
    let headers = [
        (CONTENT_TYPE, kind),
        (CONTENT_SECURITY_POLICY, CSP_FOREIGN),
        (CONTENT_DISPOSITION, "inline"),
    ];
    Ok((headers, axum::body::Body::from(picture)).into_response())
}

/// The side and the window of the query parameters `viewport` and `window`; others are ignored.
fn view(query: &str) -> Option<(u32, Option<Window>)> {
    let given = decode(query.as_bytes())?;
    let value = |name: &str| {
        given
            .iter()
            .find(|(given, _)| given == name)
            .map(|(_, value)| value.as_str())
    };
    let side = match value("viewport") {
        None => SIDE_PX_MAX,
        Some(text) => {
            let sides: Option<Vec<u32>> = text.split(',').take(2).map(|side| side.trim().parse().ok()).collect();
            sides?.into_iter().max().filter(|side| *side > 0)?.min(SIDE_PX_MAX)
        }
    };
    let window = match value("window") {
        None => None,
        Some(text) => {
            let mut parts = text.split(',');
            let mut number = || {
                parts
                    .next()?
                    .trim()
                    .parse::<f64>()
                    .ok()
                    .filter(|number| number.is_finite())
            };
            let (centre, width) = (number()?, number()?);
            (width > 0.0).then_some(Some(Window { centre, width }))?
        }
    };
    Some((side, window))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

    use super::{SIDE_PX_MAX, view};
    use crate::ports::Window;

    #[test]
    fn viewports_and_windows_are_checked() {
        assert_eq!(view(""), Some((SIDE_PX_MAX, None)));
        assert_eq!(view("viewport=512,256&quality=9"), Some((512, None)));
        assert_eq!(view("viewport=99999,1"), Some((SIDE_PX_MAX, None)));
        assert_eq!(
            view("window=40,400,linear"),
            Some((
                SIDE_PX_MAX,
                Some(Window {
                    centre: 40.0,
                    width: 400.0
                })
            ))
        );
        for bad in [
            "viewport=0,0",
            "viewport=a",
            "window=1",
            "window=1,0",
            "window=NaN,1",
            "window=1,inf",
        ] {
            assert_eq!(view(bad), None, "{bad}");
        }
    }
}
