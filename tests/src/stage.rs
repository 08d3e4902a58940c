//! A region of real processes: an authority and some of the fixture's organisations, each the program `hie` itself.
//!
//! Everything goes through the command line. Processes listen on loopback, on ports that were free when they were
//! picked, and end by the id they were started with; dropping the stage ends all of them.

use std::error::Error;
use std::fs::File;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use hie_gateway_dialect::fhir::fixture::Site;
use serde_json::Value;

/// What may fail in a measuring program.
pub type Outcome<T> = Result<T, Box<dyn Error>>;

/// Longest wait for a process to listen.
pub const READY: Duration = Duration::from_secs(60);
/// Longest wait until what was published is visible to others.
pub const SETTLE: Duration = Duration::from_secs(60);
/// Exit code of a command that did everything.
pub const DONE: i32 = 0;
/// Exit code of a command that did a part and named the rest.
pub const PARTIAL: i32 = 7;
/// The clinician of every organisation.
pub const CLINICIAN: &str = "haddad";
/// Who records consent at every organisation.
pub const CONSENT_OFFICE: &str = "ruiz";

const ACCOUNTS: [(&str, &str); 2] = [(CLINICIAN, "physician"), (CONSENT_OFFICE, "consent-administrator")];

struct Node {
    site: Site,
    home: PathBuf,
    web: String,
    process: Option<Child>,
}

/// Everything that runs.
pub struct Stage {
    folder: PathBuf,
    program: PathBuf,
    authority: Child,
    nodes: Vec<Node>,
}

/// A loopback address that is free now.
fn free() -> Outcome<String> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string())
}

/// The program under test: `HIE_PROGRAM`, or `hie` built beside this example.
fn program() -> Outcome<PathBuf> {
    if let Some(path) = std::env::var_os("HIE_PROGRAM") {
        return Ok(path.into());
    }
    let here = std::env::current_exe()?;
    let beside = here.parent().and_then(Path::parent).map(|folder| folder.join("hie"));
    let beside = beside.filter(|path| path.is_file());
    beside.ok_or_else(|| "no program hie: build it (cargo build -p hie) or name it in HIE_PROGRAM".into())
}

fn wait_for(address: &str) -> Outcome<()> {
    let deadline = Instant::now() + READY;
    while TcpStream::connect(address).is_err() {
        if Instant::now() >= deadline {
            return Err(format!("nothing listens at {address}").into());
        }
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// JSON lines of a command's output.
#[must_use]
pub fn lines(bytes: &[u8]) -> Vec<Value> {
    bytes
        .split(|byte| *byte == b'\n')
        .filter_map(|line| serde_json::from_slice(line).ok())
        .collect()
}

/// The documents that `site` names in the answer of `hie find --json`.
#[must_use]
pub fn documents_of(answer: &[Value], site: Site) -> Vec<Value> {
    let its = |line: &&Value| line.get("organisation").and_then(Value::as_str) == Some(site.urn());
    let documents = answer.iter().find(its).and_then(|line| line.get("documents"));
    documents.and_then(Value::as_array).cloned().unwrap_or_default()
}

/// The words after `hie find --as` that name a patient as an import showed it.
#[must_use]
pub fn question(patient: &Value) -> Vec<String> {
    let mut words = Vec::new();
    for (flag, key) in [
        ("--family", "family"),
        ("--given", "given"),
        ("--birth-date", "birth_date"),
        ("--sex", "sex"),
    ] {
        if let Some(text) = patient.get(key).and_then(Value::as_str) {
            words.extend([flag.to_owned(), text.to_owned()]);
        }
    }
    let identifiers = patient.get("identifiers").and_then(Value::as_array);
    for identifier in identifiers.into_iter().flatten().filter_map(Value::as_str) {
        words.extend(["--identifier".to_owned(), identifier.to_owned()]);
    }
    words
}

impl Stage {
    /// Makes a region in `folder`, lets the sites join and starts them.
    pub fn open(folder: &Path, sites: &[Site]) -> Outcome<Self> {
        let (program, address) = (program()?, free()?);
        let region = folder.join("region").to_string_lossy().into_owned();
        let log = || {
            File::options()
                .create(true)
                .append(true)
                .open(folder.join("region.log"))
        };
        let init = [
            "authority",
            "init",
            "--dir",
            &region,
            "--name",
            "Bench",
            "--address",
            &address,
        ];
        let made = Command::new(&program)
            .args(init)
            .stdout(log()?)
            .stderr(log()?)
            .status()?;
        if !made.success() {
            return Err("the region authority cannot be made; see region.log".into());
        }
        let serve = [
            "authority",
            "serve",
            "--dir",
            &region,
            "--listen",
            &address,
            "--auto-approve",
        ];
        let authority = Command::new(&program)
            .args(serve)
            .stdin(Stdio::null())
            .stdout(log()?)
            .stderr(log()?)
            .spawn()?;
        let mut stage = Self {
            folder: folder.to_owned(),
            program,
            authority,
            nodes: Vec::new(),
        };
        wait_for(&address)?;
        for site in sites {
            stage.join(*site, &region)?;
        }
        Ok(stage)
    }

    fn join(&mut self, site: Site, region: &str) -> Outcome<()> {
        let (web, control, bulk) = (free()?, free()?, free()?);
        let home = self.folder.join(site.slug());
        self.nodes.push(Node {
            site,
            home,
            web: web.clone(),
            process: None,
        });
        let name = site.name();
        let init = [
            "init",
            "--name",
            name,
            "--web",
            &web,
            "--plain",
            "--control",
            &control,
            "--bulk",
            &bulk,
        ];
        self.demand(site, &init)?;
        let file = self.folder.join(format!("{}.hie", site.slug()));
        let file = file.to_string_lossy().into_owned();
        let mut invite = vec!["invite", "--dir", region, "--name", name, "--organisation", site.urn()];
        invite.extend([
            "--kind",
            site.kind(),
            "--role",
            "index-holder",
            "--phone",
            "555-0142",
            "--out",
            &file,
        ]);
        if self.nodes.len() == 1 {
            invite.extend(["--role", "token-authority"]);
        }
        self.demand(site, &invite)?;
        self.demand(site, &["join", &file, "--wait", "30"])?;
        let secret = self.folder.join("password");
        std::fs::write(&secret, "stage password of no worth")?;
        let secret = secret.to_string_lossy().into_owned();
        for (account, role) in ACCOUNTS {
            let words = ["account", "add", account, "--name", account, "--department", "Ward"];
            self.demand(
                site,
                &[&words[..], &["--role", role, "--password-file", &secret]].concat(),
            )?;
        }
        self.start(site)
    }

    fn node(&mut self, site: Site) -> Outcome<&mut Node> {
        let found = self.nodes.iter_mut().find(|node| node.site == site);
        found.ok_or_else(|| "no such organisation on this stage".into())
    }

    /// Starts a node and waits until it listens.
    pub fn start(&mut self, site: Site) -> Outcome<()> {
        let mut command = self.command(site, &["serve"])?;
        let child = command.stdout(Stdio::null()).spawn()?;
        let node = self.node(site)?;
        node.process = Some(child);
        wait_for(&node.web.clone())
    }

    /// Ends a node with SIGKILL.
    pub fn kill(&mut self, site: Site) -> Outcome<()> {
        if let Some(mut child) = self.node(site)?.process.take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    /// Process id of a running node.
    pub fn pid(&mut self, site: Site) -> Outcome<u32> {
        let process = self.node(site)?.process.as_ref();
        Ok(process.ok_or("the node does not run")?.id())
    }

    /// The organisations of the stage.
    #[must_use]
    pub fn sites(&self) -> Vec<Site> {
        self.nodes.iter().map(|node| node.site).collect()
    }

    /// A verb of the program in a site's home, its data as JSON on a pipe, its words in a log.
    pub fn command(&self, site: Site, words: &[&str]) -> Outcome<Command> {
        let node = self.nodes.iter().find(|node| node.site == site);
        let home = &node.ok_or("no such organisation on this stage")?.home;
        let log = self.folder.join(format!("{}.log", site.slug()));
        let mut command = Command::new(&self.program);
        command
            .arg("--json")
            .arg("--home")
            .arg(home)
            .args(words)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::options().create(true).append(true).open(log)?);
        Ok(command)
    }

    /// Runs a verb to its end: exit code and JSON lines.
    pub fn run(&self, site: Site, words: &[&str]) -> Outcome<(i32, Vec<Value>)> {
        let done = self.command(site, words)?.output()?;
        Ok((done.status.code().unwrap_or(-1), lines(&done.stdout)))
    }

    /// Runs a verb that must do everything.
    pub fn demand(&self, site: Site, words: &[&str]) -> Outcome<Vec<Value>> {
        let (code, found) = self.run(site, words)?;
        if code == DONE {
            return Ok(found);
        }
        let verb = words.iter().take(2).copied().collect::<Vec<_>>().join(" ");
        Err(format!("hie {verb} at {} ended with {code}; see the log", site.name()).into())
    }

    /// Asks from `site` until the answer satisfies, for as long as publication may take; the last answer otherwise.
    pub fn find_until(
        &self,
        site: Site,
        question: &[String],
        satisfies: impl Fn(&[Value]) -> bool,
    ) -> Outcome<(bool, Vec<Value>)> {
        let mut words = vec!["find", "--as", CLINICIAN];
        words.extend(question.iter().map(String::as_str));
        let deadline = Instant::now() + SETTLE;
        loop {
            let (_, answer) = self.run(site, &words)?;
            let good = satisfies(&answer);
            if good || Instant::now() >= deadline {
                return Ok((good, answer));
            }
            thread::sleep(Duration::from_millis(200));
        }
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        let nodes = self.nodes.iter_mut().filter_map(|node| node.process.as_mut());
        for child in nodes.chain([&mut self.authority]) {
            // Already ended is as good as stopped.
            let _ended = child.kill();
            let _ended = child.wait();
        }
    }
}
