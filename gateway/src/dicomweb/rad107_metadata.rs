//! WADO-RS Retrieve Metadata (PS3.18 section 10.4.1.1.2; RAD-107): DICOM JSON made from the stored bytes, instance by
//! instance, so that a study of any size needs the memory of one instance.

use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use hie_gateway_dialect::dicom::instance::metadata_json;

use crate::dicomweb::media::takes_json;
use crate::dicomweb::{Below, DICOM_JSON, base, instance_url, whole, work};
use crate::gate::Gate;
use crate::ports::{Answer, Caller, InstanceContent};
use crate::respond::{Dialect, Fault, failed, refused};

/// Retrieves.
pub async fn retrieve(State(gate): State<Gate>, caller: Caller, below: Below, headers: HeaderMap) -> Response {
    match metadata(&gate, &caller, &below, &headers).await {
        Ok(response) | Err(response) => response,
    }
}

async fn metadata(gate: &Gate, caller: &Caller, below: &Below, headers: &HeaderMap) -> Result<Response, Response> {
    if !takes_json(headers) {
        return Err(refused(gate, Dialect::Dicom, Fault::NotAcceptable));
    }
    let found = below.instances(gate, caller).await?;
    let base = base(gate);
    let mut rest = found.into_iter();
    let first = rest
        .next()
        .ok_or_else(|| refused(gate, Dialect::Dicom, Fault::Nothing))?;
    let first = one(&base, &first)
        .await
        .map_err(|error| failed(gate, Dialect::Dicom, &error))?;
    let stream = async_stream::stream! {
        yield Ok(Bytes::from_static(b"["));
        yield Ok(first);
        for instance in rest {
            match one(&base, &instance).await {
                Ok(text) => {
                    yield Ok(Bytes::from_static(b","));
                    yield Ok(text);
                }
                Err(error) => {
                    tracing::warn!(class = ?error.class, what = error.what, "a metadata answer broke off");
                    yield Err(std::io::Error::other("an instance could not be read"));
                    return;
                }
            }
        }
        yield Ok::<Bytes, std::io::Error>(Bytes::from_static(b"]"));
    };
    Ok((
        StatusCode::OK,
        [(CONTENT_TYPE, DICOM_JSON)],
        axum::body::Body::from_stream(stream),
    )
        .into_response())
}

async fn one(base: &str, content: &InstanceContent) -> Answer<Bytes> {
    let bytes = whole(content).await?;
    let bulk = format!(
        "{}/bulkdata",
        instance_url(base, &content.study, &content.series, &content.instance)
    );
    let value = work(move || metadata_json(&bytes, &bulk)).await?;
    Ok(Bytes::from(value.to_string()))
}
