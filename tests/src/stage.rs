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

/// The budgets of a staged region's token authorities, and what each is set to.
const BUDGETS: [&str; 5] = [
    "USER_AT_ONCE",
    "USER_PER_HOUR",
    "MEMBER_AT_ONCE",
    "MEMBER_PER_DAY",
    "OUTSTANDING",
];
const UNLIMITED: &str = "1000000000";

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

/// An organisation on the stage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Short name, for folders and to name it in calls.
    pub slug: String,
    /// Name for people.
    pub name: String,
    /// Organisation id.
    pub urn: String,
    /// `hospital`, `clinic` and so on.
    pub kind: String,
    /// Whether it holds a share of the token key.
    pub authority: bool,
    /// Whether it holds a part of the index.
    pub holder: bool,
}

impl Place {
    /// System of its medical record numbers.
    #[must_use]
    pub fn mrn_system(&self) -> String {
        format!("{}.1", self.urn)
    }
}

/// Whatever names an organisation of the stage.
pub trait Named: Copy {
    /// Its short name.
    fn slug(&self) -> &str;
}

impl Named for Site {
    fn slug(&self) -> &str {
        (*self).slug()
    }
}

impl Named for &Place {
    fn slug(&self) -> &str {
        &self.slug
    }
}

/// How a region is made.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Token authorities that must evaluate.
    pub threshold: u16,
    /// Host that the registry names for every node; the nodes themselves listen on 127.0.0.1, on the same ports.
    pub host: Option<&'static str>,
    /// Whether each organisation gets the people of [`CLINICIAN`] and [`CONSENT_OFFICE`].
    pub people: bool,
}

struct Node {
    place: Place,
    home: PathBuf,
    web: String,
    control: String,
    bulk: String,
    token: String,
    process: Option<Child>,
}

/// Everything that runs.
pub struct Stage {
    folder: PathBuf,
    program: PathBuf,
    authority: Child,
    nodes: Vec<Node>,
    plan: Plan,
    ports: Ports,
}

/// Hands out ports below those that the system gives to outgoing connections, each once, if they are free now.
struct Ports(u16);

impl Ports {
    /// Starts at a place of this process.
    fn new() -> Self {
        let place = std::process::id().wrapping_mul(97) % 180;
        Self(u16::try_from(10_000 + place * 100).unwrap_or(10_000))
    }

    /// A loopback address that is free now.
    fn free(&mut self) -> Outcome<String> {
        while self.0 < 32_000 {
            self.0 += 1;
            // Bound to no host, so that a relay beside it finds the port free as well.
            if TcpListener::bind(("0.0.0.0", self.0)).is_ok() {
                return Ok(format!("127.0.0.1:{}", self.0));
            }
        }
        Err("no port is free".into())
    }
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

/// The words after `hie find --as` that name the patient of the studies.
pub const SUBJECT: [&str; 8] = [
    "--family",
    "Okafor",
    "--given",
    "Grace",
    "--birth-date",
    "1961-03-14",
    "--sex",
    "female",
];

impl Stage {
    /// Makes a region of fixture sites in `folder`, lets them join and starts them. The first is the token authority.
    pub fn open(folder: &Path, sites: &[Site]) -> Outcome<Self> {
        let place = |(number, site): (usize, &Site)| Place {
            slug: site.slug().to_owned(),
            name: site.name().to_owned(),
            urn: site.urn().to_owned(),
            kind: site.kind().to_owned(),
            authority: number == 0,
            holder: true,
        };
        let places: Vec<Place> = sites.iter().enumerate().map(place).collect();
        let plan = Plan {
            threshold: 1,
            host: None,
            people: true,
        };
        let mut stage = Self::region(folder, &places, plan)?;
        for site in sites {
            stage.start(*site)?;
        }
        Ok(stage)
    }

    /// Makes a region in `folder` and lets the organisations join; none is started.
    pub fn region(folder: &Path, places: &[Place], plan: Plan) -> Outcome<Self> {
        let (program, mut ports) = (program()?, Ports::new());
        let address = ports.free()?;
        let region = folder.join("region").to_string_lossy().into_owned();
        let log = || {
            File::options()
                .create(true)
                .append(true)
                .open(folder.join("region.log"))
        };
        let authorities = places.iter().filter(|place| place.authority).count();
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
            .args(["--token-threshold", &plan.threshold.to_string()])
            .args(["--token-authorities", &authorities.to_string()])
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
            plan,
            ports,
        };
        wait_for(&address)?;
        for place in places {
            stage.join(place.clone())?;
        }
        Ok(stage)
    }

    /// Lets one more organisation join; it is not started.
    pub fn join(&mut self, place: Place) -> Outcome<()> {
        let (web, control, bulk) = (self.ports.free()?, self.ports.free()?, self.ports.free()?);
        let home = self.folder.join(&place.slug);
        self.nodes.push(Node {
            place: place.clone(),
            home,
            web: web.clone(),
            control: control.clone(),
            bulk: bulk.clone(),
            token: String::new(),
            process: None,
        });
        let (place, region) = (&place, self.folder.join("region").to_string_lossy().into_owned());
        let mut init = vec!["init", "--name", &place.name, "--web", &web, "--plain"];
        init.extend(["--control", &control, "--bulk", &bulk]);
        init.extend(self.plan.host.iter().flat_map(|host| ["--host", host]));
        self.demand(place, &init)?;
        let file = self.folder.join(format!("{}.hie", place.slug));
        let file = file.to_string_lossy().into_owned();
        let mut invite = vec![
            "invite",
            "--dir",
            &region,
            "--name",
            &place.name,
            "--organisation",
            &place.urn,
        ];
        invite.extend(["--kind", &place.kind, "--phone", "555-0142", "--out", &file]);
        if place.holder {
            invite.extend(["--role", "index-holder"]);
        }
        if place.authority {
            invite.extend(["--role", "token-authority"]);
        }
        self.demand(place, &invite)?;
        self.demand(place, &["join", &file, "--wait", "30"])?;
        let program = [
            "account",
            "add",
            "bench",
            "--name",
            "Bench",
            "--role",
            "physician",
            "--client",
        ];
        let made = self.demand(place, &program)?;
        let token = made.iter().find_map(|line| line.get("token")?.as_str());
        let token = token.ok_or("an API client was made without a token")?.to_owned();
        if let Some(node) = self.nodes.last_mut() {
            node.token = token;
        }
        if !self.plan.people {
            return Ok(());
        }
        let secret = self.folder.join("password");
        std::fs::write(&secret, "stage password of no worth")?;
        let secret = secret.to_string_lossy().into_owned();
        for (account, role) in ACCOUNTS {
            let words = ["account", "add", account, "--name", account, "--department", "Ward"];
            let role = ["--role", role, "--password-file", &secret];
            self.demand(place, &[&words[..], &role].concat())?;
        }
        Ok(())
    }

    fn held(&self, at: impl Named) -> Outcome<&Node> {
        let found = self.nodes.iter().find(|node| node.place.slug == at.slug());
        found.ok_or_else(|| "no such organisation on this stage".into())
    }

    fn node(&mut self, at: impl Named) -> Outcome<&mut Node> {
        let found = self.nodes.iter_mut().find(|node| node.place.slug == at.slug());
        found.ok_or_else(|| "no such organisation on this stage".into())
    }

    /// Starts a node and waits until it listens.
    pub fn start(&mut self, at: impl Named) -> Outcome<()> {
        self.launch(at)?;
        wait_for(&self.held(at)?.web)
    }

    /// Starts a node without waiting.
    pub fn launch(&mut self, at: impl Named) -> Outcome<()> {
        let mut command = self.command(at, &["serve"])?;
        let child = command.stdout(Stdio::null()).spawn()?;
        self.node(at)?.process = Some(child);
        Ok(())
    }

    /// Starts all nodes at once and waits until each listens.
    pub fn start_all(&mut self) -> Outcome<()> {
        for place in self.places() {
            self.launch(&place)?;
        }
        self.nodes.iter().try_for_each(|node| wait_for(&node.web))
    }

    /// Base of a node's FHIR API and the token of its API client.
    pub fn api(&self, at: impl Named) -> Outcome<(String, String)> {
        let node = self.held(at)?;
        Ok((format!("http://{}/fhir", node.web), node.token.clone()))
    }

    /// Folder of a node.
    pub fn home(&self, at: impl Named) -> Outcome<PathBuf> {
        Ok(self.held(at)?.home.clone())
    }

    /// Where a node listens: control channel and bulk lane.
    pub fn listens(&self, at: impl Named) -> Outcome<[String; 2]> {
        let node = self.held(at)?;
        Ok([node.control.clone(), node.bulk.clone()])
    }

    /// Sends a node a signal by its name (`STOP`, `CONT`, `TERM`).
    pub fn signal(&self, at: impl Named, name: &str) -> Outcome<()> {
        let process = self.held(at)?.process.as_ref().ok_or("the node does not run")?;
        let sent = Command::new("kill")
            .args([&format!("-{name}"), &process.id().to_string()])
            .status()?;
        if sent.success() {
            Ok(())
        } else {
            Err(format!("a node cannot be sent SIG{name}").into())
        }
    }

    /// Ends a node with SIGKILL.
    pub fn kill(&mut self, at: impl Named) -> Outcome<()> {
        if let Some(mut child) = self.node(at)?.process.take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    /// Process id of a running node.
    pub fn pid(&self, at: impl Named) -> Outcome<u32> {
        let process = self.held(at)?.process.as_ref();
        Ok(process.ok_or("the node does not run")?.id())
    }

    /// The organisations of the stage.
    #[must_use]
    pub fn places(&self) -> Vec<Place> {
        self.nodes.iter().map(|node| node.place.clone()).collect()
    }

    /// A verb of the program in a site's home, its data as JSON on a pipe, its words in a log.
    pub fn command(&self, at: impl Named, words: &[&str]) -> Outcome<Command> {
        let home = &self.held(at)?.home;
        let log = self.folder.join(format!("{}.log", at.slug()));
        let mut command = Command::new(&self.program);
        command
            .arg("--json")
            .arg("--home")
            .arg(home)
            .args(words)
            // What is measured here is no scraper, though it asks like one.
            .envs(BUDGETS.map(|name| (format!("HIE_BUDGETS__{name}"), UNLIMITED)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::options().create(true).append(true).open(log)?);
        Ok(command)
    }

    /// Runs a verb to its end: exit code and JSON lines.
    pub fn run(&self, at: impl Named, words: &[&str]) -> Outcome<(i32, Vec<Value>)> {
        let done = self.command(at, words)?.output()?;
        Ok((done.status.code().unwrap_or(-1), lines(&done.stdout)))
    }

    /// Runs a verb that must do everything.
    pub fn demand(&self, at: impl Named, words: &[&str]) -> Outcome<Vec<Value>> {
        let (code, found) = self.run(at, words)?;
        if code == DONE {
            return Ok(found);
        }
        let verb = words.iter().take(2).copied().collect::<Vec<_>>().join(" ");
        Err(format!("hie {verb} at {} ended with {code}; see the log", at.slug()).into())
    }

    /// Asks from `site` until the answer satisfies, for as long as publication may take; the last answer otherwise.
    pub fn find_until(
        &self,
        at: impl Named,
        question: &[String],
        satisfies: impl Fn(&[Value]) -> bool,
    ) -> Outcome<(bool, Vec<Value>)> {
        let mut words = vec!["find", "--as", CLINICIAN];
        words.extend(question.iter().map(String::as_str));
        let deadline = Instant::now() + SETTLE;
        loop {
            let (_, answer) = self.run(at, &words)?;
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
