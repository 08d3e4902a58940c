//! A large study between two nodes: memory of both, throughput beside plain TLS 1.3, and a transfer killed in the
//! middle. Prints figures; ends with 1 when a byte differs, a kept instance is fetched again, or memory is over its
//! bound.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use hie_gateway_dialect::dicom::fixture::CtSeries;
use hie_gateway_dialect::fhir::fixture::{Site, region_population};
use hie_tests::stage::{CLINICIAN, DONE, Outcome, SUBJECT, Stage, documents_of};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// Who asks.
const ASKER: Site = Site::CityGeneral;
/// Who holds the study.
const HOLDER: Site = Site::NorthImaging;
/// Slices of 512 x 512 x 16 bit.
const SLICES: u32 = 600;
/// Interleaved runs of the transfer and of plain TLS.
const RUNS: usize = 3;
/// Distance of two looks at a process's memory.
const SAMPLE: Duration = Duration::from_millis(50);
/// Bound of the growth of one node's memory, in KiB.
const GROWTH_KIB_MAX: u64 = 64 * 1024;
/// Most repetitions of `hie get` until a broken transfer is complete.
const REPEATS_MAX: usize = 5;

/// SHA-256 of every instance by its UID.
type Promised = BTreeMap<String, [u8; 32]>;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let outcome = match words.as_slice() {
        [role, folder] if role == "sender" => send(Path::new(folder)).map(|()| true),
        _ => measure(),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("study_transfer: {error}");
            ExitCode::FAILURE
        }
    }
}

fn measure() -> Outcome<bool> {
    let folder = tempfile::tempdir()?;
    let at = folder.path();
    let mut stage = Stage::open(at, &[ASKER, HOLDER])?;
    let (promised, total) = import(&stage, at)?;
    println!("study              {} instances, {total} bytes", promised.len());
    let mut good = memory(&mut stage, at, &promised)?;
    throughput(&stage, at, &promised)?;
    good &= resumed(&mut stage, at, &promised, total)?;
    for site in [ASKER, HOLDER] {
        stage.demand(site, &["audit", "verify"])?;
        println!("audit verify       {}: whole", site.name());
    }
    println!("{}", if good { "ALL BOUNDS HELD" } else { "A BOUND WAS MISSED" });
    Ok(good)
}

/// Makes the records of the subject, writes and imports them; answers hash by instance and the sum of bytes.
fn import(stage: &Stage, at: &Path) -> Outcome<(Promised, u64)> {
    let (dicom, mut promised, mut total) = (at.join("dicom"), Promised::new(), 0);
    std::fs::create_dir_all(&dicom)?;
    let people = region_population();
    let subject = people.first().ok_or("the fixture has no patients")?;
    for record in subject
        .records
        .iter()
        .filter(|record| [ASKER, HOLDER].contains(&record.site))
    {
        let path = at.join(format!("{}.json", record.mrn));
        std::fs::write(&path, record.bundle.to_string())?;
        stage.demand(record.site, &["import", "fhir", &path.to_string_lossy()])?;
        if let Some(series) = &record.series {
            let series = CtSeries {
                slices: SLICES,
                rows: 512,
                columns: 512,
                ..series.clone()
            };
            for (number, file) in (1..).zip(series.files()) {
                promised.insert(series.sop_uid(number), Sha256::digest(&file).into());
                total += file.len() as u64;
                std::fs::write(dicom.join(format!("{number:04}.dcm")), file)?;
            }
        }
    }
    let started = Instant::now();
    stage.demand(HOLDER, &["import", "dicom", &dicom.to_string_lossy()])?;
    println!("import             {:.2} s", started.elapsed().as_secs_f64());
    Ok((promised, total))
}

/// Asks until the holder grants the whole study; answers its reference.
fn reference(stage: &Stage) -> Outcome<String> {
    let whole = |answer: &[Value]| {
        let study = documents_of(answer, HOLDER).into_iter();
        study
            .filter(|document| document.get("instances").and_then(Value::as_u64) == Some(u64::from(SLICES)))
            .find_map(|document| document.get("reference")?.as_str().map(str::to_owned))
    };
    let words = SUBJECT.map(str::to_owned);
    let (_, answer) = stage.find_until(ASKER, &words, |answer| whole(answer).is_some())?;
    whole(&answer).ok_or_else(|| "the study was not granted in time".into())
}

fn get<'a>(reference: &'a str, out: &'a str) -> [&'a str; 6] {
    ["get", reference, "--as", CLINICIAN, "--out", out]
}

/// Instances below `out`.
fn arrived(out: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(out).into_iter().flatten().flatten();
    entries
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "dcm"))
        .collect()
}

/// How many promised instances are below `out` with exactly their bytes.
fn identical(out: &Path, promised: &Promised) -> usize {
    let same = |(uid, hash): &(&String, &[u8; 32])| {
        let file = std::fs::read(out.join(format!("{uid}.dcm")));
        file.is_ok_and(|bytes| <[u8; 32]>::from(Sha256::digest(bytes)) == **hash)
    };
    promised.iter().filter(same).count()
}

/// A field of `/proc/PID/status`, in KiB.
fn status(pid: u32, field: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    let number = line.and_then(|rest| rest.split_whitespace().next());
    number.and_then(|number| number.parse().ok()).unwrap_or(0)
}

/// Both nodes start anew, so that their high-water marks tell of this transfer alone.
fn memory(stage: &mut Stage, at: &Path, promised: &Promised) -> Outcome<bool> {
    for site in [ASKER, HOLDER] {
        stage.kill(site)?;
        stage.start(site)?;
    }
    let study = reference(stage)?;
    let mut pids = Vec::new();
    for site in [ASKER, HOLDER] {
        pids.push((site, stage.pid(site)?));
    }
    for (_, pid) in &pids {
        // Sets the high-water mark back (proc(5), clear_refs); where that is not allowed the start counts too.
        let _allowed = std::fs::write(format!("/proc/{pid}/clear_refs"), "5");
    }
    let quiet: Vec<u64> = pids.iter().map(|(_, pid)| status(*pid, "VmRSS")).collect();
    let ended = Arc::new(AtomicBool::new(false));
    let (watched, until) = (pids.clone(), Arc::clone(&ended));
    let sampler = thread::spawn(move || {
        let mut peaks = vec![0; watched.len()];
        while !until.load(Ordering::Relaxed) {
            for ((_, pid), peak) in watched.iter().zip(&mut peaks) {
                *peak = status(*pid, "VmRSS").max(*peak);
            }
            thread::sleep(SAMPLE);
        }
        peaks
    });
    let out = at.join("first");
    let (code, _) = stage.run(ASKER, &get(&study, &out.to_string_lossy()))?;
    ended.store(true, Ordering::Relaxed);
    let peaks = sampler.join().map_err(|_| "the sampler failed")?;
    let same = identical(&out, promised);
    println!("first get          exit {code}, {same} of {} identical", promised.len());
    let mut good = code == DONE && same == promised.len();
    for (((site, pid), quiet), peak) in pids.iter().zip(quiet).zip(peaks) {
        let high = status(*pid, "VmHWM");
        let growth = high.max(peak).saturating_sub(quiet);
        let verdict = if growth <= GROWTH_KIB_MAX { "within" } else { "OVER" };
        good &= growth <= GROWTH_KIB_MAX;
        println!(
            "memory             {}: quiet {quiet} KiB, peak VmRSS {peak} KiB, VmHWM {high} KiB, growth {growth} KiB, {verdict} {GROWTH_KIB_MAX} KiB",
            site.name()
        );
    }
    std::fs::remove_dir_all(out)?;
    Ok(good)
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or(f64::NAN)
}

/// The transfer and plain TLS by turns: rates in MiB/s and their ratio.
fn throughput(stage: &Stage, at: &Path, promised: &Promised) -> Outcome<()> {
    let study = reference(stage)?;
    let (mut ours, mut plain, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for run in 1..=RUNS {
        let out = at.join(format!("run-{run}"));
        let found = stage.demand(ASKER, &get(&study, &out.to_string_lossy()))?;
        let rate = found.iter().find_map(|line| line.get("mib_per_s")?.as_f64());
        let rate = rate.ok_or("hie get printed no rate")?;
        if identical(&out, promised) != promised.len() {
            return Err("a transfer was not identical".into());
        }
        std::fs::remove_dir_all(out)?;
        let tls = plain_tls(at)?;
        println!(
            "run {run}              hie {rate:.1} MiB/s, plain TLS 1.3 {tls:.1} MiB/s, ratio {:.3}",
            rate / tls
        );
        ours.push(rate);
        plain.push(tls);
        ratios.push(rate / tls);
    }
    println!(
        "throughput         median hie {:.1} MiB/s, plain TLS 1.3 {:.1} MiB/s, median ratio {:.3}",
        median(ours),
        median(plain),
        median(ratios)
    );
    Ok(())
}

/// Receives the study's files as one TLS 1.3 stream from another process; answers MiB/s.
fn plain_tls(at: &Path) -> Outcome<f64> {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()])?;
    std::fs::write(at.join("plain.crt"), made.cert.der())?;
    std::fs::write(at.join("plain.key"), made.signing_key.serialize_der())?;
    let mut sender = Command::new(std::env::current_exe()?)
        .arg("sender")
        .arg(at)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut address = String::new();
    BufReader::new(sender.stdout.take().ok_or("no pipe")?).read_line(&mut address)?;
    let mut roots = rustls::RootCertStore::empty();
    roots.add(made.cert.der().clone())?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let (bytes, seconds) = tokio::runtime::Runtime::new()?.block_on(async move {
        let started = Instant::now();
        let stream = tokio::net::TcpStream::connect(address.trim()).await?;
        let name = ServerName::try_from("localhost")?;
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
        let mut stream = connector.connect(name, stream).await?;
        let (mut buffer, mut bytes) = (vec![0; 256 * 1024], 0_u64);
        loop {
            match stream.read(&mut buffer).await? {
                0 => break,
                read => bytes += read as u64,
            }
        }
        Ok::<_, Box<dyn std::error::Error>>((bytes, started.elapsed().as_secs_f64()))
    })?;
    if !sender.wait()?.success() {
        return Err("the sender failed".into());
    }
    #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
    let rate = bytes as f64 / seconds / 1_048_576.0;
    Ok(rate)
}

/// The other process of plain TLS: sends the files of the study to the first who connects.
fn send(at: &Path) -> Outcome<()> {
    let certificate = CertificateDer::from(std::fs::read(at.join("plain.crt"))?);
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(std::fs::read(at.join("plain.key"))?));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)?;
    let mut files = arrived(&at.join("dicom"));
    files.sort();
    tokio::runtime::Runtime::new()?.block_on(async move {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        println!("{}", listener.local_addr()?);
        let (stream, _) = listener.accept().await?;
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let mut stream = acceptor.accept(stream).await?;
        for file in files {
            stream.write_all(&std::fs::read(file)?).await?;
        }
        stream.shutdown().await?;
        Ok(())
    })
}

/// What tells whether a file was written again.
fn stamp(path: &Path) -> Option<(u64, i64, i64)> {
    let facts = std::fs::metadata(path).ok()?;
    Some((facts.ino(), facts.mtime(), facts.mtime_nsec()))
}

/// The holder is killed in the middle of a transfer; the same command completes it.
fn resumed(stage: &mut Stage, at: &Path, promised: &Promised, total: u64) -> Outcome<bool> {
    let (out, study) = (at.join("resumed"), reference(stage)?);
    let shown = out.to_string_lossy().into_owned();
    let mut running = stage.command(ASKER, &get(&study, &shown))?.spawn()?;
    let middle = promised.len() / 3;
    while arrived(&out).len() < middle && running.try_wait()?.is_none() {
        thread::sleep(Duration::from_millis(1));
    }
    stage.kill(HOLDER)?;
    let broken = running.wait()?.code().unwrap_or(-1);
    let kept: BTreeMap<_, _> = arrived(&out).into_iter().map(|path| (stamp(&path), path)).collect();
    let before: u64 = kept
        .values()
        .filter_map(|path| Some(std::fs::metadata(path).ok()?.len()))
        .sum();
    println!(
        "killed             {} of {} instances whole, hie get ended with {broken}",
        kept.len(),
        promised.len()
    );
    stage.start(HOLDER)?;
    let study = reference(stage)?;
    let (mut code, mut fetched, mut repeats) = (-1, 0, 0);
    while code != DONE && repeats < REPEATS_MAX {
        let (ended, found) = stage.run(ASKER, &get(&study, &shown))?;
        fetched = found.iter().find_map(|line| line.get("bytes")?.as_u64()).unwrap_or(0);
        (code, repeats) = (ended, repeats + 1);
    }
    let same = identical(&out, promised);
    let again = kept.iter().filter(|(old, path)| stamp(path) != **old).count();
    println!(
        "resumed            exit {code} after {repeats} repetition(s), {same} of {} identical, {fetched} bytes fetched, {} were missing, {again} instances fetched again",
        promised.len(),
        total.saturating_sub(before)
    );
    Ok(code == DONE && same == promised.len() && again == 0)
}
