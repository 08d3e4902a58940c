//! The bulk lane beside plain TLS 1.3 over two processes of the same machine: rates, CPU seconds per GiB, memory.
//!
//! `bulk [MiB] [many|large]`. A study is made by program, imported by one node and fetched by the other with `hie get`.
//! Two baselines of plain tokio-rustls run by turns with it: A sends bytes from memory and throws them away, B reads
//! the same files and writes them. Ends with 1 when a file differs or memory grows over its bound.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::time::Instant;

use hie_gateway_dialect::dicom::fixture::CtSeries;
use hie_gateway_dialect::fhir::fixture::{Site, region_population};
use hie_tests::stage::{CLINICIAN, Outcome, SUBJECT, Stage, documents_of};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// Who asks.
const ASKER: Site = Site::CityGeneral;
/// Who holds the study.
const HOLDER: Site = Site::NorthImaging;
/// Interleaved runs, after one that warms up.
const RUNS: usize = 3;
/// Size of the study without a word on it, in MiB.
const STUDY_MIB: u64 = 2048;
/// Bound of the growth of one node's memory, in KiB.
const GROWTH_KIB_MAX: u64 = 64 * 1024;
/// Clock ticks of a second in `/proc/PID/stat` (USER_HZ).
const TICKS: f64 = 100.0;
/// Buffer of the plain processes.
const BUFFER_BYTES: usize = 256 * 1024;
const MIB: f64 = 1_048_576.0;

/// One run.
#[derive(Clone, Copy, Default)]
struct Figures {
    rate: f64,
    /// CPU seconds per GiB of sender and receiver.
    cpu: [f64; 2],
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let outcome = match words.as_slice() {
        ["sender", mode, folder] => send(mode, Path::new(folder)).map(|()| true),
        ["receiver", mode, folder, out, address] => {
            receive(mode, Path::new(folder), Path::new(out), address).map(|()| true)
        }
        rest => measure(rest),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("bulk: {error}");
            ExitCode::FAILURE
        }
    }
}

fn measure(words: &[&str]) -> Outcome<bool> {
    let mib = words.iter().find_map(|word| word.parse().ok()).unwrap_or(STUDY_MIB);
    let side: u16 = if words.contains(&"large") { 2048 } else { 512 };
    let slices = u32::try_from(mib * 1024 * 1024 / (u64::from(side) * u64::from(side) * 2))?;
    let folder = tempfile::tempdir()?;
    let at = folder.path();
    certificate(at)?;
    let mut stage = Stage::open(at, &[ASKER, HOLDER])?;
    let total = import(&stage, at, side, slices)?;
    println!("study              {slices} instances of {side} x {side} x 16 bit, {total} bytes");
    for site in [ASKER, HOLDER] {
        stage.kill(site)?;
        stage.start(site)?;
    }
    let study = reference(&stage, slices)?;
    let (mut good, mut runs) = (true, Vec::new());
    for run in 0..=RUNS {
        let (ours, held) = hie(&mut stage, at, &study, run)?;
        good &= held;
        let thrown = plain(at, "memory", run)?;
        let written = plain(at, "files", run)?;
        let name = if run == 0 {
            "warm-up".to_owned()
        } else {
            format!("run {run}")
        };
        show(&name, ours, thrown, written);
        if run > 0 {
            runs.push([ours, thrown, written]);
        }
    }
    let [ours, thrown, written] = [0, 1, 2].map(|which| middle(&runs, which));
    show("median", ours, thrown, written);
    let ratio = |plain: usize| median(runs.iter().map(|run| rate_of(run, 0) / rate_of(run, plain)).collect());
    println!(
        "ratio              {:.3} of plain TLS from memory to nowhere (A), {:.3} of plain TLS from files to files (B)",
        ratio(1),
        ratio(2)
    );
    println!("{}", if good { "ALL BOUNDS HELD" } else { "A BOUND WAS MISSED" });
    Ok(good)
}

fn rate_of(run: &[Figures; 3], which: usize) -> f64 {
    run.get(which).map_or(f64::NAN, |figures| figures.rate)
}

fn middle(runs: &[[Figures; 3]], which: usize) -> Figures {
    let of = |pick: fn(&Figures) -> f64| median(runs.iter().filter_map(|run| run.get(which).map(pick)).collect());
    Figures {
        rate: of(|run| run.rate),
        cpu: [of(|run| run.cpu[0]), of(|run| run.cpu[1])],
    }
}

fn show(name: &str, ours: Figures, thrown: Figures, written: Figures) {
    let text = |figures: Figures| {
        let [sender, receiver] = figures.cpu;
        format!("{:.0} MiB/s ({sender:.2} + {receiver:.2} CPU s/GiB)", figures.rate)
    };
    println!("{name:<18} hie {}, A {}, B {}", text(ours), text(thrown), text(written));
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Makes the records of the subject, writes and imports them; answers the sum of bytes.
fn import(stage: &Stage, at: &Path, side: u16, slices: u32) -> Outcome<u64> {
    let (dicom, mut total) = (at.join("dicom"), 0);
    std::fs::create_dir_all(&dicom)?;
    let people = region_population();
    let subject = people.first().ok_or("the fixture has no patients")?;
    let made = Instant::now();
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
                slices,
                rows: side,
                columns: side,
                ..series.clone()
            };
            for number in 1..=slices {
                let file = series.file(number);
                total += file.len() as u64;
                std::fs::write(dicom.join(format!("{}.dcm", series.sop_uid(number))), file)?;
            }
        }
    }
    let (made, started) = (made.elapsed(), Instant::now());
    stage.demand(HOLDER, &["import", "dicom", &dicom.to_string_lossy()])?;
    println!(
        "import             {:.1} s (made in {:.1} s)",
        started.elapsed().as_secs_f64(),
        made.as_secs_f64()
    );
    Ok(total)
}

/// Asks until the holder grants the whole study; answers its reference.
fn reference(stage: &Stage, slices: u32) -> Outcome<String> {
    let whole = |answer: &[Value]| {
        documents_of(answer, HOLDER)
            .into_iter()
            .filter(|document| document.get("instances").and_then(Value::as_u64) == Some(u64::from(slices)))
            .find_map(|document| document.get("reference")?.as_str().map(str::to_owned))
    };
    let (_, answer) = stage.find_until(ASKER, &SUBJECT.map(str::to_owned), |answer| whole(answer).is_some())?;
    whole(&answer).ok_or_else(|| "the study was not granted in time".into())
}

/// The files below a folder, in order.
fn files(folder: &Path) -> Outcome<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        found.push(entry?.path());
    }
    found.sort();
    Ok(found)
}

/// Gives the space of files back without removing them: ext4 looks for a free inode among all that were removed in the
/// last seconds, and the next run would be measured by that.
fn emptied(folder: &Path) -> Outcome<()> {
    for file in files(folder)? {
        std::fs::File::create(file)?;
    }
    Ok(())
}

/// Whether both folders hold the same files byte by byte.
fn same(made: &Path, fetched: &Path) -> Outcome<bool> {
    let made = files(made)?;
    for file in &made {
        let name = file.file_name().ok_or("a file without a name")?;
        let (mut left, mut right) = (Vec::new(), Vec::new());
        std::fs::File::open(file)?.read_to_end(&mut left)?;
        std::fs::File::open(fetched.join(name))?.read_to_end(&mut right)?;
        if left != right {
            return Ok(false);
        }
    }
    Ok(files(fetched)?.len() == made.len())
}

/// CPU seconds of a process until now.
fn cpu(process: &str) -> Outcome<f64> {
    let text = std::fs::read_to_string(format!("/proc/{process}/stat"))?;
    let after = text.rsplit(')').next().unwrap_or_default();
    let ticks: f64 = after
        .split_whitespace()
        .skip(11)
        .take(2)
        .filter_map(|word| word.parse::<f64>().ok())
        .sum();
    Ok(ticks / TICKS)
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

/// Fetches the study; answers the figures and whether every file is right and memory kept its bound.
fn hie(stage: &mut Stage, at: &Path, study: &str, run: usize) -> Outcome<(Figures, bool)> {
    let out = at.join(format!("fetched-{run}"));
    let pids = [stage.pid(HOLDER)?, stage.pid(ASKER)?];
    for pid in pids {
        // Sets the high-water mark back (proc(5), clear_refs); where that is not allowed the start counts too.
        let _allowed = std::fs::write(format!("/proc/{pid}/clear_refs"), "5");
    }
    let quiet = pids.map(|pid| status(pid, "VmRSS"));
    let before = [cpu(&pids[0].to_string())?, cpu(&pids[1].to_string())?];
    let words = ["get", study, "--as", CLINICIAN, "--out", &out.to_string_lossy()];
    let started = Instant::now();
    let found = stage.demand(ASKER, &words)?;
    let whole = started.elapsed().as_secs_f64();
    let number = |key: &str| found.iter().find_map(|line| line.get(key)?.as_f64());
    let (rate, bytes) = (number("mib_per_s"), number("bytes"));
    let (rate, bytes) = (rate.ok_or("hie get printed no rate")?, bytes.unwrap_or_default());
    let gib = bytes / MIB / 1024.0;
    let used = [
        cpu(&pids[0].to_string())? - before[0],
        cpu(&pids[1].to_string())? - before[1],
    ];
    let growth = [0, 1].map(|end: usize| {
        let (pid, quiet) = (pids.get(end).copied(), quiet.get(end).copied());
        pid.map_or(0, |pid| status(pid, "VmHWM"))
            .saturating_sub(quiet.unwrap_or_default())
    });
    let same = same(&at.join("dicom"), &out)?;
    emptied(&out)?;
    let held = growth.iter().all(|growth| *growth <= GROWTH_KIB_MAX);
    println!(
        "hie get            {whole:.2} s in all, growth {} + {} KiB, {}",
        growth[0],
        growth[1],
        if same { "identical" } else { "DIFFERENT" }
    );
    let figures = Figures {
        rate,
        cpu: used.map(|used| used / gib),
    };
    Ok((figures, same && held))
}

fn certificate(at: &Path) -> Outcome<()> {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()])?;
    std::fs::write(at.join("plain.crt"), made.cert.der())?;
    std::fs::write(at.join("plain.key"), made.signing_key.serialize_der())?;
    Ok(())
}

/// Two plain processes, one stream.
fn plain(at: &Path, mode: &str, run: usize) -> Outcome<Figures> {
    let program = std::env::current_exe()?;
    let out = at.join(format!("plain-{mode}-{run}"));
    std::fs::create_dir_all(&out)?;
    let start = |words: &[&str]| {
        let mut command = Command::new(&program);
        command
            .args(words)
            .arg(mode)
            .arg(at)
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        command
    };
    let mut sender = start(&["sender"]).spawn()?;
    let mut said = BufReader::new(sender.stdout.take().ok_or("no pipe")?);
    let mut address = String::new();
    said.read_line(&mut address)?;
    let mut receiver = start(&["receiver"]).arg(&out).arg(address.trim()).spawn()?;
    let mut heard = BufReader::new(receiver.stdout.take().ok_or("no pipe")?);
    let [received, seconds, theirs] = figures(&mut heard, &mut receiver)?;
    let [_, _, ours] = figures(&mut said, &mut sender)?;
    emptied(&out)?;
    let gib = received / MIB / 1024.0;
    Ok(Figures {
        rate: received / MIB / seconds,
        cpu: [ours / gib, theirs / gib],
    })
}

/// Bytes, seconds and CPU seconds as a plain process prints them at its end.
fn figures(from: &mut impl std::io::BufRead, process: &mut Child) -> Outcome<[f64; 3]> {
    let mut line = String::new();
    from.read_line(&mut line)?;
    if !process.wait()?.success() {
        return Err("a plain process failed".into());
    }
    let numbers: Vec<f64> = line.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    numbers.try_into().map_err(|_| "a plain process said nothing".into())
}

fn say(bytes: u64, started: Instant) -> Outcome<()> {
    println!("{bytes} {} {}", started.elapsed().as_secs_f64(), cpu("self")?);
    std::io::stdout().flush()?;
    Ok(())
}

/// Sends as many bytes as the study has to the first who connects.
fn send(mode: &str, at: &Path) -> Outcome<()> {
    let certificate = CertificateDer::from(std::fs::read(at.join("plain.crt"))?);
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(std::fs::read(at.join("plain.key"))?));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)?;
    let files = files(&at.join("dicom"))?;
    tokio::runtime::Runtime::new()?.block_on(async move {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        println!("{}", listener.local_addr()?);
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let mut stream = acceptor.accept(stream).await?;
        let (started, mut sent) = (Instant::now(), 0_u64);
        let buffer = vec![0x5a; BUFFER_BYTES];
        for file in files {
            if mode == "files" {
                let bytes = std::fs::read(file)?;
                sent += bytes.len() as u64;
                stream.write_all(&bytes).await?;
            } else {
                let mut left = usize::try_from(std::fs::metadata(file)?.len())?;
                sent += left as u64;
                while let Some(part) = buffer.get(..left.min(buffer.len())).filter(|part| !part.is_empty()) {
                    stream.write_all(part).await?;
                    left -= part.len();
                }
            }
        }
        stream.shutdown().await?;
        say(sent, started)
    })
}

/// Takes the bytes; with `files`, writes files of the sizes that the study has.
fn receive(mode: &str, at: &Path, out: &Path, address: &str) -> Outcome<()> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from(std::fs::read(at.join("plain.crt"))?))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let files = files(&at.join("dicom"))?;
    tokio::runtime::Runtime::new()?.block_on(async move {
        let started = Instant::now();
        let stream = tokio::net::TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
        let mut stream = connector.connect(ServerName::try_from("localhost")?, stream).await?;
        let (mut buffer, mut bytes) = (vec![0; BUFFER_BYTES], 0_u64);
        if mode == "files" {
            for file in files {
                let mut left = usize::try_from(std::fs::metadata(&file)?.len())?;
                let mut to = std::fs::File::create(out.join(file.file_name().ok_or("no name")?))?;
                while left > 0 {
                    let room = buffer.get_mut(..left.min(BUFFER_BYTES)).unwrap_or_default();
                    let read = stream.read(room).await?;
                    if read == 0 {
                        return Err("the sender stopped early".into());
                    }
                    to.write_all(buffer.get(..read).unwrap_or_default())?;
                    left -= read;
                    bytes += read as u64;
                }
            }
        } else {
            loop {
                match stream.read(&mut buffer).await? {
                    0 => break,
                    read => bytes += read as u64,
                }
            }
        }
        say(bytes, started)
    })
}
