//! DICOMweb (PS3.18) under `/dicom-web`: STOW-RS, QIDO-RS and WADO-RS over this node's own archive.
//!
//! The law: instances pass one at a time, never a whole study in memory; bytes are sent as they are stored; every
//! absolute URL comes from the configured public base, never from the Host header; what the caller may not know of is
//! 404.

pub mod media;
pub mod multipart;
pub mod rad107_bulkdata;
pub mod rad107_frames;
pub mod rad107_instances;
pub mod rad107_metadata;
pub mod rad107_rendered;
pub mod rad108_store_instances;
pub mod rad129_query;

use std::time::Duration;

use axum::extract::{FromRequestParts, RawPathParams};
use axum::http::Method;
use axum::http::request::Parts;
use axum::response::Response;
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use hie_gateway_dialect::dicom::guard::DicomError;
use hie_gateway_dialect::dicom::instance::is_uid;
use hie_protocol::refusal::Class;
use hie_protocol::vocabulary::Role;

use crate::fhir::READERS;
use crate::gate::Gate;
use crate::ports::{Answer, Caller, ImagingQuery, InstanceContent, PortError};
use crate::respond::{Dialect, Fault, Problem, failed, refused};
use crate::routes::{Access, Route};

/// Roles that store images.
pub const STORERS: &[Role] = &[Role::System, Role::Operator];
/// Largest instance that is taken in or taken apart, in bytes: it stands in memory whole.
pub const INSTANCE_BYTES_MAX: usize = 512 * 1024 * 1024;
/// Most instances of one retrieve.
pub const INSTANCES_MAX: usize = 20_000;
/// Time until the first byte of a retrieve.
pub const RETRIEVE_DEADLINE: Duration = Duration::from_secs(120);
/// MIME type of DICOM JSON.
pub const DICOM_JSON: &str = "application/dicom+json";

/// The DICOMweb part of the table of routes.
#[must_use]
pub fn routes() -> Vec<Route> {
    let store = |path| {
        Route::new(
            Dialect::Dicom,
            Method::POST,
            path,
            "RAD-108",
            Access::Api(STORERS),
            rad108_store_instances::store,
        )
        .body_max(rad108_store_instances::STORE_BYTES_MAX)
        .within(rad108_store_instances::STORE_DEADLINE)
    };
    let mut routes = vec![store("/dicom-web/studies"), store("/dicom-web/studies/{study}")];
    routes.extend(rad129_query::routes());
    for path in [
        "/dicom-web/studies/{study}",
        "/dicom-web/studies/{study}/series/{series}",
        "/dicom-web/studies/{study}/series/{series}/instances/{instance}",
    ] {
        routes.push(reads(path, rad107_instances::retrieve));
    }
    for path in [
        "/dicom-web/studies/{study}/metadata",
        "/dicom-web/studies/{study}/series/{series}/metadata",
        "/dicom-web/studies/{study}/series/{series}/instances/{instance}/metadata",
    ] {
        routes.push(reads(path, rad107_metadata::retrieve));
    }
    let instance = "/dicom-web/studies/{study}/series/{series}/instances/{instance}/frames/{frames}";
    routes.push(reads(instance, rad107_frames::retrieve));
    for path in [
        "/dicom-web/studies/{study}/series/{series}/instances/{instance}/rendered",
        "/dicom-web/studies/{study}/series/{series}/instances/{instance}/frames/{frames}/rendered",
    ] {
        routes.push(reads(path, rad107_rendered::retrieve));
    }
    routes.push(reads(
        "/dicom-web/studies/{study}/series/{series}/instances/{instance}/bulkdata/{*place}",
        rad107_bulkdata::retrieve,
    ));
    routes
}

/// A route that reads images.
fn reads<H: axum::handler::Handler<T, Gate>, T: 'static>(path: &'static str, handler: H) -> Route {
    Route::new(
        Dialect::Dicom,
        Method::GET,
        path,
        "RAD-107",
        Access::Api(READERS),
        handler,
    )
    .within(RETRIEVE_DEADLINE)
}

/// The public base of DICOMweb: beside the FHIR base.
#[must_use]
pub fn base(gate: &Gate) -> String {
    let fhir = gate.settings.fhir_base.trim_end_matches('/');
    format!("{}/dicom-web", fhir.strip_suffix("/fhir").unwrap_or(fhir))
}

/// What a path names; every UID is one by shape.
#[derive(Clone, Debug, Default)]
pub struct Below {
    /// Study.
    pub study: Option<String>,
    /// Series.
    pub series: Option<String>,
    /// Instance.
    pub instance: Option<String>,
    /// Frame list as written.
    pub frames: Option<String>,
    /// Place of bulk data.
    pub place: Option<String>,
}

impl FromRequestParts<Gate> for Below {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, gate: &Gate) -> Result<Self, Response> {
        let bad = |words: &str| Problem::with(gate, Fault::Of(Class::Invalid), words).respond(gate, Dialect::Dicom);
        let given = RawPathParams::from_request_parts(parts, gate)
            .await
            .map_err(|_| bad("The path is not UTF-8."))?;
        let mut below = Self::default();
        for (name, value) in &given {
            let place = match name {
                "study" => &mut below.study,
                "series" => &mut below.series,
                "instance" => &mut below.instance,
                "frames" => &mut below.frames,
                _ => &mut below.place,
            };
            if matches!(name, "study" | "series" | "instance") && !is_uid(value) {
                return Err(bad("The path holds something that is no DICOM UID."));
            }
            *place = Some(value.to_owned());
        }
        Ok(below)
    }
}

impl Below {
    /// The instances that the path names.
    pub async fn instances(&self, gate: &Gate, caller: &Caller) -> Result<Vec<InstanceContent>, Response> {
        let query = ImagingQuery {
            study: self.study.clone(),
            series: self.series.clone(),
            instance: self.instance.clone(),
            limit: INSTANCES_MAX,
            ..ImagingQuery::default()
        };
        let found = gate
            .ports
            .archive
            .retrieve(caller, query)
            .await
            .map_err(|error| failed(gate, Dialect::Dicom, &error))?;
        if found.is_empty() {
            Err(refused(gate, Dialect::Dicom, Fault::Nothing))
        } else {
            Ok(found)
        }
    }

    /// The one instance that the path names, read whole.
    pub async fn one(&self, gate: &Gate, caller: &Caller) -> Result<(InstanceContent, Bytes), Response> {
        let found = self.instances(gate, caller).await?.into_iter().next();
        let content = found.ok_or_else(|| refused(gate, Dialect::Dicom, Fault::Nothing))?;
        let bytes = whole(&content)
            .await
            .map_err(|error| failed(gate, Dialect::Dicom, &error))?;
        Ok((content, bytes))
    }
}

/// The URL of an instance.
#[must_use]
pub fn instance_url(base: &str, study: &str, series: &str, instance: &str) -> String {
    format!("{base}/studies/{study}/series/{series}/instances/{instance}")
}

/// Reads an instance whole, within [`INSTANCE_BYTES_MAX`].
pub async fn whole(content: &InstanceContent) -> Answer<Bytes> {
    let too_large = || PortError {
        class: Class::Unavailable,
        what: "This instance is too large to be taken apart: retrieve it whole.".to_owned(),
    };
    let body = (content.read)().await?;
    let size = usize::try_from(body.size)
        .ok()
        .filter(|size| *size <= INSTANCE_BYTES_MAX)
        .ok_or_else(too_large)?;
    let mut bytes = BytesMut::with_capacity(size);
    let mut stream = body.stream;
    while let Some(chunk) = stream.next().await {
        let chunk = chunk?;
        if bytes.len().saturating_add(chunk.len()) > INSTANCE_BYTES_MAX {
            return Err(too_large());
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes.freeze())
}

/// Runs work over an instance's bytes off the event loop.
pub async fn work<T: Send + 'static>(job: impl FnOnce() -> Result<T, DicomError> + Send + 'static) -> Answer<T> {
    let broken = |what: String| PortError {
        class: Class::Broken,
        what,
    };
    match tokio::task::spawn_blocking(job).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(DicomError::Unsupported { reason })) => Err(PortError {
            class: Class::Invalid,
            what: reason,
        }),
        Ok(Err(error)) => Err(broken(format!("a stored instance cannot be read: {error}"))),
        Err(_) => Err(broken("the work on an instance was cut off".to_owned())),
    }
}
