//! stub
use hie_gateway::ports::*; use futures::future::BoxFuture; use serde_json::Value; use crate::assemble::{Trade,Region}; use hie_node_core::locator::worker::Publisher;
pub struct PictureDesk; impl PictureDesk { pub fn new(_f: std::sync::Arc<crate::frames::Frames>)->Self{Self} }
impl FrameRenderer for PictureDesk { fn render(&self, _p: bytes::Bytes, _f: u32, _m: u32, _w: Option<Window>) -> BoxFuture<'_, Answer<bytes::Bytes>> { Box::pin(async move { Err(PortError { class: hie_protocol::refusal::Class::Broken, what: String::new() }) }) } }