//! `hie get`: a document into a file, a study into a folder. What is whole is kept; what broke off is fetched again.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use futures::stream::BoxStream;
use hie_gateway::ports::{Body, DocumentRef, PortError, Records as _};
use hie_protocol::id::ContentHash;
use hie_protocol::refusal::Class;
use hie_protocol::retrieval::StudyManifest;
use hie_protocol::vocabulary::DocumentClass;
use ring::digest::{Context, SHA256};
use serde_json::json;
use tokio::io::AsyncWriteExt as _;
use tokio::sync::mpsc;

use super::Executor;
use crate::desk::records::{RecordsDesk, Source};
use crate::fault::{Exit, Fault, Outcome, chain};
use crate::order::{Asker, Lines};
use hie_node_core::exchange::retrieve::{RetrieveError, StudyPiece};
use hie_node_core::ports::blocking;

/// Pieces of a study that wait to be written: with frames of 128 KiB, 4 MiB at most.
pub const PIECES_AHEAD_MAX: usize = 32;
/// Distance of two lines of progress.
const PROGRESS_EVERY: Duration = Duration::from_millis(100);

fn port_fault(error: PortError) -> Fault {
    let exit = match error.class {
        Class::Unavailable => Exit::Unreachable,
        Class::Refused => Exit::Refused,
        Class::Misbehaved => Exit::Integrity,
        Class::Invalid => Exit::Usage,
        Class::Broken => Exit::Failed,
    };
    Fault::new(
        exit,
        "The document was not fetched.",
        error.what,
        "Run the same command again; what is whole is kept.",
    )
}

fn unwritable(path: &Path) -> impl FnOnce(std::io::Error) -> Fault + use<> {
    Fault::because(
        Exit::Failed,
        &format!("Cannot write {}.", path.display()),
        "Check space and permissions.",
    )
}

/// Runs the order.
pub async fn get(executor: &Executor, asker: &Asker, reference: String, out: &Path, lines: &Lines) -> Outcome<Exit> {
    let offline = || {
        Fault::new(
            Exit::Unreachable,
            "The node does not run.",
            "only a running node can fetch",
            "Start it with `hie serve`.",
        )
    };
    let desk = executor.records.clone().ok_or_else(offline)?;
    let caller = executor.caller(asker)?;
    let reference = DocumentRef(reference);
    let card = desk.card(&caller, &reference).await.map_err(port_fault)?;
    let study = card.meta.class == DocumentClass::Imaging && card.meta.content_type == "application/dicom";
    if !study {
        let body = desk.content(&caller, &reference, 0).await.map_err(port_fault)?;
        let (size, hash) = (body.size, body.hash);
        write_whole(body, out).await?;
        let text = format!("{}  {size} bytes  sha256 {hash}", out.display());
        lines
            .data(
                text,
                json!({ "file": out, "bytes": size, "sha256": hash.to_hex(), "from": card.org_name }),
            )
            .await;
        return Ok(Exit::Done);
    }
    std::fs::create_dir_all(out).map_err(unwritable(out))?;
    let manifest = desk.study(&caller, &reference).await.map_err(port_fault)?;
    let (kept, first) = already(&manifest, out);
    let total = manifest.instances().count() as u64;
    lines.say(format!("{total} instances, {kept} already here")).await;
    let started = Instant::now();
    let source = desk.source(&caller, &reference).await.map_err(port_fault)?;
    let bytes = match source {
        Source::Here(..) => each(&desk, &caller, &reference, &manifest, out, lines).await?,
        Source::There(remote, asking) => {
            let count = u32::try_from(total).unwrap_or(u32::MAX);
            let pieces = desk.region().retriever.study(asking, remote, first, count);
            stream(pieces, &manifest, first, out, lines).await?
        }
    };
    let seconds = started.elapsed().as_secs_f64().max(0.001);
    #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
    let rate = bytes as f64 / seconds / 1_048_576.0;
    let text = format!(
        "{}  {total} instances, {bytes} bytes fetched in {seconds:.2} s, {rate:.0} MiB/s",
        out.display()
    );
    lines.data(text, json!({ "folder": out, "instances": total, "bytes": bytes, "seconds": seconds, "mib_per_s": rate, "from": card.org_name })).await;
    Ok(Exit::Done)
}

/// File of an instance.
fn file_of(out: &Path, uid: &str) -> PathBuf {
    let safe: String = uid
        .chars()
        .filter(|letter| letter.is_ascii_digit() || *letter == '.')
        .collect();
    out.join(format!("{safe}.dcm"))
}

/// How many instances are here whole, and the first that is not.
fn already(manifest: &StudyManifest, out: &Path) -> (usize, u32) {
    let mut kept = 0_usize;
    let mut first = None;
    for (index, (_, instance)) in manifest.instances().enumerate() {
        let whole = std::fs::read(file_of(out, &instance.sop_uid))
            .is_ok_and(|bytes| crate::authority::enrol::sha256(&bytes) == instance.hash);
        if whole {
            kept = kept.saturating_add(1);
        } else if first.is_none() {
            first = u32::try_from(index).ok();
        }
    }
    let all = u32::try_from(manifest.instances().count()).unwrap_or(u32::MAX);
    (kept, first.unwrap_or(all))
}

/// Writes a body beside its place, checks the hash, and puts it there whole.
async fn write_whole(mut body: Body, path: &Path) -> Outcome<()> {
    let partial = path.with_extension("part");
    let mut file = tokio::fs::File::create(&partial).await.map_err(unwritable(&partial))?;
    let mut digest = Context::new(&SHA256);
    while let Some(chunk) = body.stream.next().await {
        let chunk = chunk.map_err(port_fault)?;
        digest.update(&chunk);
        file.write_all(&chunk).await.map_err(unwritable(&partial))?;
    }
    file.sync_all().await.map_err(unwritable(&partial))?;
    if ContentHash::from_slice(digest.finish().as_ref()) != Ok(body.hash) {
        return Err(Fault::new(
            Exit::Integrity,
            "The bytes are not those that were promised.",
            "their hash differs",
            "Run the command again; call the organisation if it stays.",
        ));
    }
    tokio::fs::rename(&partial, path).await.map_err(unwritable(path))
}

/// Own studies, instance by instance.
async fn each(
    desk: &RecordsDesk,
    caller: &hie_gateway::ports::Caller,
    reference: &DocumentRef,
    manifest: &StudyManifest,
    out: &Path,
    lines: &Lines,
) -> Outcome<u64> {
    let total = manifest.instances().count() as u64;
    let mut bytes = 0_u64;
    for (index, (_, instance)) in manifest.instances().enumerate() {
        let body = desk
            .instance(caller, reference, u32::try_from(index).unwrap_or(u32::MAX))
            .await
            .map_err(port_fault)?;
        bytes = bytes.saturating_add(body.size);
        write_whole(body, &file_of(out, &instance.sop_uid)).await?;
        lines.progress((index as u64).saturating_add(1), total, "").await;
    }
    Ok(bytes)
}

/// A study as one stream over the bulk lane: this task takes and verifies, another thread writes.
async fn stream(
    mut pieces: BoxStream<'static, Result<StudyPiece, RetrieveError>>,
    manifest: &StudyManifest,
    first: u32,
    out: &Path,
    lines: &Lines,
) -> Outcome<u64> {
    let total = manifest.instances().count() as u64;
    let writer = Arc::new(StudyFiles::new(manifest, first, out));
    let (sender, receiver) = mpsc::channel(PIECES_AHEAD_MAX);
    let thread = Arc::clone(&writer);
    let written = tokio::spawn(blocking(move || thread.write(receiver)));
    let mut shown = Instant::now();
    let mut failure = None;
    while let Some(piece) = pieces.next().await {
        let piece = match piece {
            Ok(piece) => piece,
            Err(error) => {
                failure = Some(broke_off(&error));
                break;
            }
        };
        if sender.send(piece).await.is_err() {
            // The writer has failed and says why below.
            break;
        }
        if shown.elapsed() >= PROGRESS_EVERY {
            shown = Instant::now();
            lines.progress(writer.done(), total, "").await;
        }
    }
    // What has arrived whole is kept, whatever came after it.
    drop(sender);
    let bytes = written.await.map_err(|error| {
        Fault::new(
            Exit::Failed,
            "The study was not written.",
            error.to_string(),
            "Run the same command again; what is whole is kept.",
        )
    })??;
    lines.progress(writer.done(), total, "").await;
    match failure {
        Some(fault) => Err(fault),
        None => demand_all(writer.done(), total).map(|()| bytes),
    }
}

fn broke_off(error: &RetrieveError) -> Fault {
    let exit = if error.class() == Class::Misbehaved {
        Exit::Integrity
    } else {
        Exit::Unreachable
    };
    Fault::new(
        exit,
        "The study broke off.",
        chain(error),
        "Run the same command again; what is whole is kept.",
    )
}

/// The files of a study that is arriving, written in its order.
struct StudyFiles {
    /// File and SHA-256 of every instance.
    promised: Vec<(PathBuf, ContentHash)>,
    done: AtomicU64,
}

/// A file that is being written beside its place.
struct Partial {
    file: File,
    partial: PathBuf,
    path: PathBuf,
}

impl StudyFiles {
    fn new(manifest: &StudyManifest, first: u32, out: &Path) -> Self {
        let promised = manifest
            .instances()
            .map(|(_, instance)| (file_of(out, &instance.sop_uid), instance.hash))
            .collect();
        Self {
            promised,
            done: AtomicU64::new(u64::from(first)),
        }
    }

    /// Instances that are here whole.
    fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    /// Writes what comes until nothing comes any more; answers the content bytes. Blocks.
    fn write(&self, mut pieces: mpsc::Receiver<StudyPiece>) -> Outcome<u64> {
        let (mut open, mut bytes) = (None, 0_u64);
        while let Some(piece) = pieces.blocking_recv() {
            match (piece, open.take()) {
                (StudyPiece::Begin { index, hash, .. }, _) => open = Some(self.begin(index, hash)?),
                (StudyPiece::Bytes(chunk), Some(mut to)) => {
                    to.file.write_all(&chunk).map_err(unwritable(&to.partial))?;
                    bytes = bytes.saturating_add(chunk.len() as u64);
                    open = Some(to);
                }
                (StudyPiece::End, Some(to)) => {
                    drop(to.file);
                    std::fs::rename(&to.partial, &to.path).map_err(unwritable(&to.path))?;
                    self.done.fetch_add(1, Ordering::Relaxed);
                }
                (StudyPiece::Bytes(_) | StudyPiece::End, None) => {}
            }
        }
        Ok(bytes)
    }

    fn begin(&self, index: u32, hash: ContentHash) -> Outcome<Partial> {
        let promised = usize::try_from(index).ok().and_then(|index| self.promised.get(index));
        let (path, _) = promised.filter(|(_, promised)| *promised == hash).ok_or_else(|| {
            Fault::new(
                Exit::Integrity,
                "The study is not the one that was promised.",
                "an instance has another hash",
                "Call the organisation.",
            )
        })?;
        let partial = path.with_extension("part");
        let file = File::create(&partial).map_err(unwritable(&partial))?;
        Ok(Partial {
            file,
            partial,
            path: path.clone(),
        })
    }
}

/// An answer that ends before the last instance is not a whole study.
fn demand_all(done: u64, total: u64) -> Outcome<()> {
    if done >= total {
        return Ok(());
    }
    Err(Fault::new(
        Exit::Unreachable,
        "The study broke off.",
        format!("{done} of {total} instances are here"),
        "Run the same command again; what is whole is kept.",
    ))
}
