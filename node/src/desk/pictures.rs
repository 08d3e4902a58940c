//! Pictures for the gateway: every decoding happens in the limited child of [`Frames`].

use std::sync::Arc;

use bytes::Bytes;
use futures::future::{BoxFuture, FutureExt as _};
use hie_gateway::ports::{Answer, FrameRenderer, PortError, Window};
use hie_protocol::refusal::Class;
use tracing::warn;

use super::caller::port_error;
use crate::fault::chain;
use crate::frames::{FrameFault, Frames, INSTANCE_BYTES_MAX};

/// Draws frames.
#[derive(Clone, Debug)]
pub struct PictureDesk {
    frames: Arc<Frames>,
}

impl PictureDesk {
    /// Over the runner of decoders.
    #[must_use]
    pub const fn new(frames: Arc<Frames>) -> Self {
        Self { frames }
    }
}

fn told(fault: &FrameFault) -> PortError {
    match fault {
        FrameFault::Start(_) => {
            warn!(story = chain(fault), "the picture decoder could not be run");
            port_error(Class::Broken, "The picture decoder could not be run.")
        }
        FrameFault::Limits => {
            let words = "Drawing this picture takes too much time or memory. Try again, or open the original.";
            port_error(Class::Unavailable, words)
        }
        FrameFault::Unreadable(why) => port_error(
            Class::Invalid,
            &format!("This picture cannot be drawn: {why}. Open the original instead."),
        ),
    }
}

impl FrameRenderer for PictureDesk {
    fn render(&self, part10: Bytes, frame: u32, px_max: u32, window: Option<Window>) -> BoxFuture<'_, Answer<Bytes>> {
        async move {
            if part10.len() > INSTANCE_BYTES_MAX {
                let words = "This picture is too large to be drawn here. Open the original instead.";
                return Err(port_error(Class::Invalid, words));
            }
            let window = window.map(|window| (window.centre, window.width));
            let picture = self.frames.render(&part10, frame, px_max, window).await;
            picture.map(Bytes::from).map_err(|fault| told(&fault))
        }
        .boxed()
    }
}
