//! `hie get`: a document into a file, a study into a folder. What is whole is kept; what broke off is fetched again.

use std::path::{Path, PathBuf};

use futures::StreamExt as _;
use hie_gateway::ports::{Body, DocumentRef, PortError, Records as _};
use hie_protocol::id::ContentHash;
use hie_protocol::refusal::Class;
use hie_protocol::retrieval::StudyManifest;
use hie_protocol::vocabulary::DocumentClass;
use ring::digest::{Context, SHA256};
use serde_json::json;
use tokio::io::AsyncWriteExt as _;

use super::Executor;
use crate::desk::records::{RecordsDesk, Source};
use crate::fault::{Exit, Fault, Outcome, chain};
use crate::order::{Asker, Lines};
use hie_node_core::exchange::retrieve::StudyPiece;

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
    let started = std::time::Instant::now();
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

/// A study as one stream over the bulk lane.
async fn stream(
    mut pieces: futures::stream::BoxStream<
        'static,
        Result<StudyPiece, hie_node_core::exchange::retrieve::RetrieveError>,
    >,
    manifest: &StudyManifest,
    first: u32,
    out: &Path,
    lines: &Lines,
) -> Outcome<u64> {
    let instances: Vec<_> = manifest
        .instances()
        .map(|(_, instance)| (instance.sop_uid.clone(), instance.hash))
        .collect();
    let total = instances.len() as u64;
    let mut open: Option<(tokio::fs::File, PathBuf, PathBuf)> = None;
    let (mut bytes, mut done) = (0_u64, u64::from(first));
    while let Some(piece) = pieces.next().await {
        let piece = piece.map_err(|error| {
            let exit = if error.class() == Class::Misbehaved {
                Exit::Integrity
            } else {
                Exit::Unreachable
            };
            Fault::new(
                exit,
                "The study broke off.",
                chain(&error),
                "Run the same command again; what is whole is kept.",
            )
        })?;
        match piece {
            StudyPiece::Begin { index, hash, .. } => {
                let promised = usize::try_from(index).ok().and_then(|index| instances.get(index));
                let (uid, _) = promised.filter(|(_, promised)| *promised == hash).ok_or_else(|| {
                    Fault::new(
                        Exit::Integrity,
                        "The study is not the one that was promised.",
                        "an instance has another hash",
                        "Call the organisation.",
                    )
                })?;
                let path = file_of(out, uid);
                let partial = path.with_extension("part");
                let file = tokio::fs::File::create(&partial).await.map_err(unwritable(&partial))?;
                open = Some((file, partial, path));
            }
            StudyPiece::Bytes(chunk) => {
                if let Some((file, partial, _)) = open.as_mut() {
                    file.write_all(&chunk).await.map_err(unwritable(partial))?;
                    bytes = bytes.saturating_add(chunk.len() as u64);
                }
            }
            StudyPiece::End => {
                if let Some((mut file, partial, path)) = open.take() {
                    file.flush().await.map_err(unwritable(&partial))?;
                    drop(file);
                    tokio::fs::rename(&partial, &path).await.map_err(unwritable(&path))?;
                    done = done.saturating_add(1);
                    lines.progress(done, total, "").await;
                }
            }
        }
    }
    demand_all(done, total)?;
    Ok(bytes)
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
