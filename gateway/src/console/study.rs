//! Images (UX B5): series and pictures of a study, drawn on the server. Every failure is said on the picture's place.

use askama::Template;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use hie_protocol::refusal::Class;
use hie_protocol::retrieval::StudyManifest;
use serde::Deserialize;

use crate::clinical::events::study_words;
use crate::console::opened::{self, is_handle};
use crate::console::page::{Frame, ok};
use crate::console::record::Banner;
use crate::console::words;
use crate::gate::Gate;
use crate::guard::SignedIn;
use crate::ports::{Answer, DocumentRef, PortError, SubjectRef, Window};
use crate::respond::{Dialect, Fault, failed, refused};

/// Largest instance that is drawn here, in bytes.
pub const INSTANCE_BYTES_MAX: u64 = 256 * 1024 * 1024;
/// Width and height of a drawn picture, in pixels.
pub const PICTURE_PX: u32 = 1024;

/// What of a study is wanted: numbers only.
#[derive(Deserialize, Default)]
pub struct Ask {
    /// Picture, from 1, in viewing order.
    #[serde(default)]
    n: Option<u32>,
    /// Frame of that picture, from 1.
    #[serde(default)]
    f: Option<u32>,
    /// Window centre.
    #[serde(default)]
    c: Option<f64>,
    /// Window width.
    #[serde(default)]
    w: Option<f64>,
}

/// A series in the list.
pub struct SeriesLine {
    words: String,
    first: u32,
    count: usize,
    here: bool,
}

#[derive(Template)]
#[template(path = "study.html")]
struct StudyTemplate {
    frame: Frame,
    banner: Banner,
    document: String,
    title: String,
    organisation: String,
    date: String,
    series: Vec<SeriesLine>,
    number: u32,
    total: u32,
    frame_number: u32,
    frames: u32,
    pictured: bool,
}

/// GET `/record/{subject}/study/{document}?n=12`.
pub async fn show(
    State(gate): State<Gate>,
    signed_in: SignedIn,
    Path((subject, document)): Path<(String, String)>,
    Query(ask): Query<Ask>,
) -> Response {
    let record = match opened::open(&gate, &signed_in, &SubjectRef(subject), false).await {
        Ok(record) => record,
        Err(problem) => return problem.respond(&gate, Dialect::Page),
    };
    if !is_handle(&document) {
        return refused(&gate, Dialect::Page, Fault::Nothing);
    }
    let caller = signed_in.caller_about(&record.subject);
    let reference = DocumentRef(document.clone());
    let found = async {
        let manifest = gate.ports.records.study(&caller, &reference).await?;
        let card = match record.card(&reference) {
            Some(card) => card,
            None => gate.ports.records.card(&caller, &reference).await?,
        };
        Ok::<_, PortError>((manifest, card))
    };
    let (manifest, card) = match found.await {
        Ok(found) => found,
        Err(error) => return failed(&gate, Dialect::Page, &error),
    };
    let total = u32::try_from(manifest.instances().count()).unwrap_or(u32::MAX);
    let number = ask.n.unwrap_or(1).clamp(1, total.max(1));
    let extent = manifest
        .instances()
        .nth(number.saturating_sub(1) as usize)
        .map(|(_, instance)| instance.extent);
    let frames = extent.map_or(1, |extent| extent.2.max(1));
    ok(&StudyTemplate {
        frame: Frame::of(&gate, &signed_in, "/find"),
        banner: Banner::of(&gate, &record),
        document,
        title: manifest
            .description
            .clone()
            .filter(|words| !words.trim().is_empty())
            .unwrap_or_else(|| study_words(&card.meta)),
        organisation: card.org_name.clone(),
        date: manifest
            .date
            .as_deref()
            .map_or_else(|| "date not recorded".to_owned(), words::dicom_date),
        series: series(&manifest, number),
        number,
        total,
        frame_number: ask.f.unwrap_or(1).clamp(1, frames),
        frames,
        pictured: extent.is_some_and(|extent| extent.0 > 0 && extent.1 > 0),
    })
}

fn series(manifest: &StudyManifest, number: u32) -> Vec<SeriesLine> {
    let mut first = 1_u32;
    let mut lines = Vec::with_capacity(manifest.series.len());
    for series in &manifest.series {
        let count = series.instances.len();
        let after = first.saturating_add(u32::try_from(count).unwrap_or(u32::MAX));
        let description = series.description.clone().filter(|words| !words.trim().is_empty());
        let parts = [Some(series.modality.clone()), description, series.body_part.clone()];
        let words = parts
            .into_iter()
            .flatten()
            .filter(|part| !part.is_empty())
            .collect::<Vec<_>>()
            .join(" – ");
        lines.push(SeriesLine {
            words,
            first,
            count,
            here: (first..after).contains(&number),
        });
        first = after;
    }
    lines
}

/// GET `/record/{subject}/study/{document}/picture?n=12&f=1&c=40&w=400`: the picture as PNG; a failure as words in the
/// picture's place, never another picture.
pub async fn picture(
    State(gate): State<Gate>,
    signed_in: SignedIn,
    Path((subject, document)): Path<(String, String)>,
    Query(ask): Query<Ask>,
) -> Response {
    let subject = SubjectRef(subject);
    let number = ask.n.unwrap_or(1).max(1);
    let open = gate.opened.find(signed_in.session.id, &subject, gate.now());
    if open.is_none() || !is_handle(&document) {
        return refused(&gate, Dialect::Page, Fault::Nothing);
    }
    let window = ask
        .c
        .zip(ask.w)
        .filter(|(centre, width)| centre.is_finite() && *width > 0.0 && width.is_finite());
    let window = window.map(|(centre, width)| Window { centre, width });
    let caller = signed_in.caller_about(&subject);
    let drawn = async {
        let body = gate
            .ports
            .records
            .instance(&caller, &DocumentRef(document), number.saturating_sub(1))
            .await?;
        let part10 = collect(body).await?;
        gate.ports
            .frames
            .render(part10, ask.f.unwrap_or(1).saturating_sub(1), PICTURE_PX, window)
            .await
    };
    match drawn.await {
        Ok(png) => ([(CONTENT_TYPE, "image/png")], png).into_response(),
        Err(error) => {
            let why = match error.class {
                Class::Invalid => "unreadable data",
                Class::Refused => "not released",
                Class::Unavailable => "it did not arrive",
                Class::Misbehaved => "the other organisation sent something else",
                Class::Broken => "it could not be drawn",
            };
            tracing::info!(number, class = ?error.class, what = error.what, "a picture was not shown");
            failure(Fault::Of(error.class).status(), number, why)
        }
    }
}

async fn collect(mut body: crate::ports::Body) -> Answer<Bytes> {
    if body.size > INSTANCE_BYTES_MAX {
        return Err(PortError {
            class: Class::Invalid,
            what: "the instance is too large to draw".to_owned(),
        });
    }
    let mut all = BytesMut::new();
    while let Some(chunk) = body.stream.next().await {
        all.extend_from_slice(&chunk?);
    }
    Ok(all.freeze())
}

/// A browser shows an image whatever the status; this one says what is missing.
fn failure(status: StatusCode, number: u32, why: &str) -> Response {
    let svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"760\" height=\"400\"><rect width=\"760\" height=\"400\"/>\
         <text x=\"380\" y=\"190\" fill=\"#fff\" font-size=\"20\" font-family=\"sans-serif\" text-anchor=\"middle\">\
         Picture {number} cannot be shown ({why}).</text>\
         <text x=\"380\" y=\"220\" fill=\"#fff\" font-size=\"20\" font-family=\"sans-serif\" text-anchor=\"middle\">\
         Nothing is shown in its place.</text></svg>"
    );
    (status, [(CONTENT_TYPE, "image/svg+xml")], svg).into_response()
}
