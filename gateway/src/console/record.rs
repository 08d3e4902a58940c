//! The emergency view (UX B2): the page, its stream, and the page without script. All are made of one template.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use askama::Template;
use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Redirect, Response};
use serde_json::json;

use crate::clinical::View;
use crate::console::find::HitLine;
use crate::console::opened::{self, OpenedRecord};
use crate::console::page::{Frame, HTML, ok};
use crate::console::words;
use crate::gate::Gate;
use crate::guard::SignedIn;
use crate::ports::SubjectRef;
use crate::respond::Dialect;

/// Time between heartbeats of the stream.
pub const HEARTBEAT: Duration = Duration::from_secs(10);
/// Rows of medication and problems shown at once; what is folded is named (UX E9).
pub const ROWS_SHOWN: usize = 8;
/// Visits and studies shown at once.
pub const EVENTS_SHOWN: usize = 5;

/// The patient's banner: two identifiers and more, in the same order everywhere.
pub struct Banner {
    /// The person.
    pub person: HitLine,
    /// Live emergency access ends at this time, empty when there is none.
    pub emergency: String,
    /// Handle.
    pub subject: String,
}

impl Banner {
    /// The banner of a record.
    #[must_use]
    pub fn of(gate: &Gate, record: &OpenedRecord) -> Self {
        let clock = gate.clock();
        Self {
            person: HitLine::of(&record.person, &clock.today()),
            emergency: record
                .emergency_ends
                .map(|ends| words::clock(ends, clock.offset_minutes))
                .unwrap_or_default(),
            subject: record.subject.0.clone(),
        }
    }
}

/// The parts below the banner; the page holds them and the stream sends them.
#[derive(Template)]
#[template(path = "record_parts.html")]
struct Parts<'v> {
    view: &'v View,
    subject: &'v str,
    form_token: &'v str,
    withheld: bool,
    emergency: bool,
}

#[derive(Template)]
#[template(path = "record.html")]
struct RecordTemplate<'v> {
    frame: Frame,
    banner: Banner,
    view: &'v View,
    subject: &'v str,
    form_token: &'v str,
    withheld: bool,
    emergency: bool,
    steps: usize,
    ended: bool,
    printed: String,
}

#[derive(Template)]
#[template(path = "plain_head.html")]
struct PlainHead {
    frame: Frame,
    banner: Banner,
    numbers: Vec<usize>,
}

#[derive(Template)]
#[template(path = "plain_one.html")]
struct PlainOne<'v> {
    number: usize,
    name: &'v str,
    words: &'v str,
    view: &'v View,
}

fn show_withheld(gate: &Gate, record: &OpenedRecord, view: &View) -> bool {
    view.withheld && record.emergency_ends.is_none() && gate.settings.tell_withheld
}

/// GET `/record/{subject}`.
pub async fn show(State(gate): State<Gate>, signed_in: SignedIn, Path(subject): Path<String>) -> Response {
    let subject = SubjectRef(subject);
    let record = match opened::open(&gate, &signed_in, &subject, false).await {
        Ok(record) => record,
        Err(problem) => return problem.respond(&gate, Dialect::Page),
    };
    let clock = gate.clock();
    // The steps are read before the view: the stream then repeats a step rather than losing one.
    let progress = record.progress(0);
    let view = record.view(&clock);
    let frame = Frame::of(&gate, &signed_in, "/find");
    ok(&RecordTemplate {
        printed: format!(
            "{}, {} {}",
            frame.user,
            words::day(clock.now, clock.offset_minutes),
            words::clock(clock.now, clock.offset_minutes)
        ),
        banner: Banner::of(&gate, &record),
        subject: &subject.0,
        form_token: &signed_in.session.form_token,
        withheld: show_withheld(&gate, &record, &view),
        emergency: record.emergency_ends.is_some(),
        view: &view,
        steps: progress.steps,
        ended: progress.ended,
        frame,
    })
}

/// GET `/record/{subject}/events`: one event for each step, its number as id; `done` closes.
pub async fn events(
    State(gate): State<Gate>,
    signed_in: SignedIn,
    Path(subject): Path<String>,
    headers: HeaderMap,
    uri: axum::http::Uri,
) -> Response {
    let subject = SubjectRef(subject);
    let record = match opened::open(&gate, &signed_in, &subject, false).await {
        Ok(record) => record,
        Err(problem) => return problem.respond(&gate, Dialect::Page),
    };
    let number = |text: &str| text.parse::<usize>().ok();
    let last = headers
        .get("last-event-id")
        .and_then(|value| value.to_str().ok())
        .and_then(number);
    let from = uri
        .query()
        .and_then(|query| query.strip_prefix("from="))
        .and_then(number);
    let stream = steps(gate, signed_in, record, last.or(from).unwrap_or_default());
    let mut response = Sse::new(stream)
        .keep_alive(KeepAlive::new().interval(HEARTBEAT).text("alive"))
        .into_response();
    // The stream's own default, `no-cache`, would let a cache keep it.
    response
        .headers_mut()
        .insert(CACHE_CONTROL, axum::http::HeaderValue::from_static("no-store"));
    response
        .headers_mut()
        .insert("x-accel-buffering", axum::http::HeaderValue::from_static("no"));
    response
}

fn steps(
    gate: Gate,
    signed_in: SignedIn,
    record: Arc<OpenedRecord>,
    seen: usize,
) -> impl futures::Stream<Item = Result<Event, Infallible>> {
    async_stream::stream! {
        let mut watch = record.watch();
        let mut seen = seen;
        loop {
            watch.borrow_and_update();
            let progress = record.progress(seen);
            // A signed-out session, or emergency access that has ended, ends the stream too.
            let now = gate.now();
            let session = signed_in.session.id;
            let open = gate.sessions.lives(session, now) && gate.opened.find(session, &record.subject, now).is_some();
            if !open {
                yield Ok(Event::default().event("closed").data("closed"));
                return;
            }
            let last = progress.said.len().saturating_sub(1);
            for (index, said) in progress.said.iter().enumerate() {
                seen = seen.saturating_add(1);
                // Only the newest of several steps carries the parts: they hold everything so far.
                let html = if index == last { parts(&gate, &signed_in, &record) } else { String::new() };
                let data = json!({ "said": said, "html": html }).to_string();
                yield Ok(Event::default().event("step").id(seen.to_string()).data(data));
            }
            if progress.ended {
                yield Ok(Event::default().event("done").data("done"));
                return;
            }
            if watch.changed().await.is_err() {
                return;
            }
        }
    }
}

fn parts(gate: &Gate, signed_in: &SignedIn, record: &OpenedRecord) -> String {
    let view = record.view(&gate.clock());
    let parts = Parts {
        subject: &record.subject.0,
        form_token: &signed_in.session.form_token,
        withheld: show_withheld(gate, record, &view),
        emergency: record.emergency_ends.is_some(),
        view: &view,
    };
    rendered(&parts)
}

fn rendered(template: &impl Template) -> String {
    template.render().unwrap_or_else(|error| {
        tracing::error!(%error, "a part of a page could not be rendered");
        String::new()
    })
}

/// GET `/record/{subject}/plain`: streams without any script. Each organisation fills its own slot as it answers, the
/// merged view fills the first slot at the end.
pub async fn plain(State(gate): State<Gate>, signed_in: SignedIn, Path(subject): Path<String>) -> Response {
    let subject = SubjectRef(subject);
    let record = match opened::open(&gate, &signed_in, &subject, false).await {
        Ok(record) => record,
        Err(problem) => return problem.respond(&gate, Dialect::Page),
    };
    let body = Body::from_stream(plain_chunks(gate, signed_in, record));
    ([(CONTENT_TYPE, HTML)], body).into_response()
}

fn plain_chunks(
    gate: Gate,
    signed_in: SignedIn,
    record: Arc<OpenedRecord>,
) -> impl futures::Stream<Item = Result<Bytes, Infallible>> {
    async_stream::stream! {
        let mut watch = record.watch();
        // The slots are named in the head, so the organisations must be known first.
        while record.progress(0).steps == 0 && !record.progress(0).ended {
            if watch.changed().await.is_err() { break }
        }
        let numbers: Vec<usize> = record.numbers().into_iter().map(|(number, _)| number).collect();
        let head = PlainHead { frame: Frame::of(&gate, &signed_in, "/find"), banner: Banner::of(&gate, &record), numbers };
        yield Ok(Bytes::from(rendered(&head)));
        let mut sent: Vec<usize> = Vec::new();
        loop {
            watch.borrow_and_update();
            let ended = record.progress(0).ended;
            for (number, waiting) in record.numbers() {
                if waiting || sent.contains(&number) { continue }
                sent.push(number);
                if let Some((name, words, view)) = record.alone(number, &gate.clock()) {
                    yield Ok(Bytes::from(rendered(&PlainOne { number, name: &name, words: &words, view: &view })));
                }
            }
            if ended || watch.changed().await.is_err() { break }
        }
        let merged = parts(&gate, &signed_in, &record);
        yield Ok(Bytes::from(format!("<div slot=\"merged\">{merged}</div></plain-record></body></html>")));
    }
}

/// POST `/record/{subject}/close`: forgets the record on this screen.
pub async fn close(State(gate): State<Gate>, signed_in: SignedIn, Path(subject): Path<String>) -> Response {
    gate.opened.close(signed_in.session.id, &SubjectRef(subject));
    Redirect::to("/find").into_response()
}
