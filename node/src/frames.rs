//! Pictures: pixel data is decoded in a child process with limits, never in the node itself (law 10).
//!
//! The parent hands the instance over stdin and reads a PNG from stdout; a child that outgrows its memory or
//! its time is ended, and the page says so in words.

use std::io::{Read as _, Write as _};
use std::process::Stdio;
use std::time::Duration;

use hie_gateway_dialect::dicom::render;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::Command;
use tokio::sync::Semaphore;

use crate::cli::arguments::RenderFrame;
use crate::fault::{Exit, Fault};

/// Address space of the child, in bytes.
pub const CHILD_MEMORY_BYTES_MAX: u64 = 2 * 1024 * 1024 * 1024;
/// Processor time of the child, in seconds.
pub const CHILD_CPU_SECONDS_MAX: u64 = 10;
/// Time until the parent ends the child.
pub const CHILD_DEADLINE: Duration = Duration::from_secs(15);
/// Largest instance handed to a child, in bytes.
pub const INSTANCE_BYTES_MAX: usize = 512 * 1024 * 1024;
/// Largest picture taken back, in bytes.
pub const PICTURE_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Children at the same time.
pub const CHILDREN_MAX: usize = 4;

/// Why there is no picture.
#[derive(Debug, thiserror::Error)]
pub enum FrameFault {
    /// The child could not be run.
    #[error("the decoder could not be started")]
    Start(#[source] std::io::Error),
    /// The child was ended.
    #[error("the decoder took too long or too much memory")]
    Limits,
    /// The data cannot be decoded.
    #[error("{0}")]
    Unreadable(String),
}

/// Runs decoders.
#[derive(Debug)]
pub struct Frames {
    free: Semaphore,
}

impl Default for Frames {
    fn default() -> Self {
        Self {
            free: Semaphore::new(CHILDREN_MAX),
        }
    }
}

impl Frames {
    /// Renders a frame (from zero) of a part-10 instance as PNG. Errors: [`FrameFault`].
    pub async fn render(
        &self,
        instance: &[u8],
        frame: u32,
        max_px: u32,
        window: Option<(f64, f64)>,
    ) -> Result<Vec<u8>, FrameFault> {
        let _slot = self.free.acquire().await.map_err(|_| FrameFault::Limits)?;
        let program = std::env::current_exe().map_err(FrameFault::Start)?;
        let mut command = Command::new(program);
        command
            .arg("render-frame")
            .arg("--frame")
            .arg(frame.to_string())
            .arg("--max-px")
            .arg(max_px.to_string());
        if let Some((centre, width)) = window {
            command.arg("--window").arg(centre.to_string()).arg(width.to_string());
        }
        command
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let mut child = command.spawn().map_err(FrameFault::Start)?;
        let (Some(mut input), Some(output), Some(complaint)) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return Err(FrameFault::Limits);
        };
        let work = async {
            let feed = async move {
                // A child that refuses early closes its stdin; its words on stderr tell why.
                let _closed = input.write_all(instance).await;
                drop(input);
            };
            let (mut picture, mut words) = (Vec::new(), Vec::new());
            let mut picture_end = output.take(PICTURE_BYTES_MAX);
            let mut words_end = complaint.take(2000);
            let read = picture_end.read_to_end(&mut picture);
            let hear = words_end.read_to_end(&mut words);
            let ((), read, heard) = tokio::join!(feed, read, hear);
            read.and(heard).map_err(FrameFault::Start)?;
            let status = child.wait().await.map_err(FrameFault::Start)?;
            match status.code() {
                Some(0) => Ok(picture),
                Some(1) => Err(FrameFault::Unreadable(
                    String::from_utf8_lossy(&words).trim().to_owned(),
                )),
                _ => Err(FrameFault::Limits),
            }
        };
        tokio::time::timeout(CHILD_DEADLINE, work)
            .await
            .map_err(|_| FrameFault::Limits)?
    }
}

/// The child: limits itself, reads the instance, writes the picture.
pub fn child(arguments: &RenderFrame) -> Result<Exit, Fault> {
    let limit = |resource: rlimit::Resource, most: u64| {
        rlimit::setrlimit(resource, most, most).map_err(Fault::because(
            Exit::Usage,
            "Cannot set limits.",
            "Report this.",
        ))
    };
    limit(rlimit::Resource::AS, CHILD_MEMORY_BYTES_MAX)?;
    limit(rlimit::Resource::CPU, CHILD_CPU_SECONDS_MAX)?;
    limit(rlimit::Resource::FSIZE, 0)?;
    limit(rlimit::Resource::CORE, 0)?;
    let mut bytes = Vec::new();
    let bound = INSTANCE_BYTES_MAX as u64 + 1;
    std::io::stdin()
        .take(bound)
        .read_to_end(&mut bytes)
        .map_err(Fault::because(Exit::Usage, "Cannot read the instance.", "Report this."))?;
    let window = match arguments.window.as_slice() {
        [centre, width] => Some((*centre, *width)),
        _ => None,
    };
    match render::render(&bytes, arguments.frame.saturating_add(1), arguments.max_px, window) {
        Ok(picture) => {
            let mut out = std::io::stdout().lock();
            out.write_all(&picture)
                .and_then(|()| out.flush())
                .map_err(Fault::because(Exit::Usage, "Cannot write the picture.", "Report this."))?;
            Ok(Exit::Done)
        }
        Err(error) => {
            let _closed = writeln!(std::io::stderr().lock(), "{error}");
            Ok(Exit::Failed)
        }
    }
}
