//! The processes of the demonstration: started, waited for, stopped by the id they were started with.

use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use hie_gateway_dialect::fhir::fixture::Site;
use serde_json::Value;
use tokio::process::{Child, Command};

use crate::authority::random;
use crate::cli::output::Output;
use crate::fault::{Exit, Fault, Outcome};
use crate::intake::walk;

/// Longest wait for a process to be ready.
pub const READY: Duration = Duration::from_secs(60);
/// Longest run of one command.
pub const COMMAND_DEADLINE: Duration = Duration::from_secs(1800);
/// Accounts made at every organisation: account, name, department, role.
const ACCOUNTS: [(&str, &str, &str, &str); 4] = [
    ("haddad", "Dr A. Haddad", "Emergency", "physician"),
    ("ruiz", "M. Ruiz", "Consent office", "consent-administrator"),
    ("silva", "R. Silva", "Privacy office", "auditor"),
    ("it", "K. Moen", "IT", "operator"),
];

/// One organisation of the stage.
pub struct Organisation {
    /// Which.
    pub site: Site,
    home: PathBuf,
    web: String,
    process: Option<Child>,
}

/// What `--data` brought in.
#[derive(Default)]
pub struct Imported {
    /// Patients as the import named them.
    pub patients: Vec<Value>,
    /// Study Instance UIDs.
    pub studies: Vec<String>,
    /// The DICOM files.
    pub dicom_files: Vec<PathBuf>,
}

/// Everything that runs.
pub struct Stage {
    folder: PathBuf,
    authority: Child,
    organisations: Vec<Organisation>,
    password: String,
}

fn failed(what: &'static str) -> impl FnOnce(std::io::Error) -> Fault {
    Fault::because(Exit::Failed, what, "See the logs in the demonstration's folder.")
}

/// A loopback address that is free now.
fn free() -> Outcome<String> {
    let listener = TcpListener::bind("127.0.0.1:0").map_err(failed("No free port."))?;
    let address = listener.local_addr().map_err(failed("No free port."))?;
    Ok(address.to_string())
}

fn program(folder: &Path, log: &str) -> Outcome<Command> {
    let program = std::env::current_exe().map_err(failed("Cannot find this program."))?;
    let log = File::options()
        .create(true)
        .append(true)
        .open(folder.join(log))
        .map_err(failed("Cannot write a log."))?;
    let mut command = Command::new(program);
    command.stdin(Stdio::null()).stderr(log).kill_on_drop(true);
    Ok(command)
}

impl Stage {
    /// Makes the region and starts its authority.
    pub async fn open(folder: &Path, output: &Output) -> Outcome<Self> {
        let address = free()?;
        let region = folder.join("region").to_string_lossy().into_owned();
        output.say("Making the region: Northport Region");
        let init = [
            "authority",
            "init",
            "--dir",
            &region,
            "--name",
            "Northport Region",
            "--address",
            &address,
            "--token-threshold",
            "2",
            "--token-authorities",
            "3",
        ];
        run(program(folder, "region.log")?.args(init)).await?;
        let serve = [
            "authority",
            "serve",
            "--dir",
            &region,
            "--listen",
            &address,
            "--auto-approve",
        ];
        let log = File::create(folder.join("region.out")).map_err(failed("Cannot write a log."))?;
        let authority = program(folder, "region.log")?
            .args(serve)
            .stdout(log)
            .spawn()
            .map_err(failed("Cannot start the region authority."))?;
        wait_for(&address).await?;
        let password = hex::encode(random::<8>()?);
        Ok(Self {
            folder: folder.to_owned(),
            authority,
            organisations: Vec::new(),
            password,
        })
    }

    /// The demonstration's folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// An organisation of the stage.
    pub fn organisation(&self, site: Site) -> Outcome<&Organisation> {
        let missing = || {
            Fault::new(
                Exit::Failed,
                "An organisation is missing.",
                site.name(),
                "Run the demonstration again.",
            )
        };
        self.organisations
            .iter()
            .find(|organisation| organisation.site == site)
            .ok_or_else(missing)
    }

    /// Organisations whose process runs.
    pub fn running(&self) -> impl Iterator<Item = &Organisation> {
        self.organisations
            .iter()
            .filter(|organisation| organisation.process.is_some())
    }

    /// Makes an organisation, lets it join, adds its accounts and starts it.
    pub async fn join(&mut self, site: Site, output: &Output) -> Outcome<()> {
        let (web, control, bulk) = (free()?, free()?, free()?);
        let home = self.folder.join(site.slug());
        let organisation = Organisation {
            site,
            home,
            web: web.clone(),
            process: None,
        };
        output.say(format!("{:<24} joins   http://{web}", site.name()));
        let init = [
            "init",
            "--name",
            site.name(),
            "--web",
            &web,
            "--plain",
            "--control",
            &control,
            "--bulk",
            &bulk,
        ];
        self.hie(&organisation, &init).await?;
        let region = self.folder.join("region").to_string_lossy().into_owned();
        let file = self.folder.join(format!("{}.hie", site.slug()));
        let file = file.to_string_lossy().into_owned();
        let mut invite = vec![
            "invite",
            "--dir",
            &region,
            "--name",
            site.name(),
            "--organisation",
            site.urn(),
        ];
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
        if site != Site::NorthImaging {
            invite.extend(["--role", "token-authority"]);
        }
        self.hie(&organisation, &invite).await?;
        self.hie(&organisation, &["join", &file, "--wait", "30"]).await?;
        let secret = self.folder.join("password");
        std::fs::write(&secret, &self.password).map_err(failed("Cannot write the password."))?;
        let secret = secret.to_string_lossy().into_owned();
        for (account, name, department, role) in ACCOUNTS {
            let mut words = vec!["account", "add", account, "--name", name, "--department", department];
            words.extend(["--role", role, "--password-file", &secret]);
            self.hie(&organisation, &words).await?;
        }
        self.organisations.push(organisation);
        self.start(site).await
    }

    /// Starts an organisation's node and waits until it is ready.
    pub async fn start(&mut self, site: Site) -> Outcome<()> {
        let folder = self.folder.clone();
        let missing = || {
            Fault::new(
                Exit::Failed,
                "An organisation is missing.",
                site.name(),
                "Run the demonstration again.",
            )
        };
        let organisation = self
            .organisations
            .iter_mut()
            .find(|organisation| organisation.site == site)
            .ok_or_else(missing)?;
        let log = format!("{}.log", site.slug());
        let child = program(&folder, &log)?
            .arg("--home")
            .arg(&organisation.home)
            .arg("serve")
            .stdout(Stdio::null())
            .spawn()
            .map_err(failed("Cannot start a node."))?;
        organisation.process = Some(child);
        let web = organisation.web.clone();
        wait_for(&web).await
    }

    /// Stops an organisation's node.
    pub async fn stop(&mut self, site: Site) -> Outcome<()> {
        for organisation in self
            .organisations
            .iter_mut()
            .filter(|organisation| organisation.site == site)
        {
            if let Some(mut child) = organisation.process.take() {
                child.kill().await.map_err(failed("Cannot stop a node."))?;
            }
        }
        Ok(())
    }

    /// Stops everything.
    pub async fn close(mut self) {
        for organisation in &mut self.organisations {
            if let Some(mut child) = organisation.process.take() {
                // Already ended is as good as stopped.
                let _ended = child.kill().await;
            }
        }
        let _ended = self.authority.kill().await;
    }

    /// Runs a verb of the program in an organisation's home.
    pub async fn hie(&self, organisation: &Organisation, words: &[&str]) -> Outcome<Vec<u8>> {
        let log = format!("{}.cli.log", organisation.site.slug());
        run(program(&self.folder, &log)?
            .arg("--home")
            .arg(&organisation.home)
            .args(words))
        .await
    }

    /// Runs a verb and reads its JSON lines.
    pub async fn hie_lines(&self, organisation: &Organisation, words: &[&str]) -> Outcome<Vec<Value>> {
        let bytes = self.hie(organisation, words).await?;
        Ok(bytes
            .split(|byte| *byte == b'\n')
            .filter_map(|line| serde_json::from_slice(line).ok())
            .collect())
    }

    /// Imports real Bundles and DICOM from a folder: FHIR files by turns to the first three organisations, DICOM to the
    /// imaging centre.
    pub async fn import_data(&self, data: &Path, output: &Output) -> Outcome<Imported> {
        let found = walk(data)?;
        let mut imported = Imported {
            dicom_files: found.dicom_files,
            ..Imported::default()
        };
        for (at, path) in found.fhir.iter().enumerate() {
            let sites = [Site::CityGeneral, Site::StAnne, Site::HarbourGp];
            let site = sites.get(at % sites.len()).copied().unwrap_or(Site::CityGeneral);
            let organisation = self.organisation(site)?;
            output.say(format!("Importing {} at {}", path.display(), site.name()));
            let lines = self
                .hie_lines(organisation, &["--json", "import", "fhir", &path.to_string_lossy()])
                .await?;
            imported
                .patients
                .extend(lines.iter().filter_map(|line| line.get("patient").cloned()));
        }
        if let Some(folder) = &found.dicom {
            output.say(format!("Importing DICOM at {}", Site::NorthImaging.name()));
            let organisation = self.organisation(Site::NorthImaging)?;
            let lines = self
                .hie_lines(organisation, &["--json", "import", "dicom", &folder.to_string_lossy()])
                .await?;
            let studies = lines
                .iter()
                .filter_map(|line| line.get("study")?.as_str().map(str::to_owned));
            imported.studies.extend(studies);
        }
        Ok(imported)
    }

    /// Address of an organisation's web server.
    pub fn web(&self, site: Site) -> Outcome<String> {
        Ok(format!("http://{}", self.organisation(site)?.web))
    }

    /// The password of all accounts of the stage.
    pub fn password(&self) -> &str {
        &self.password
    }

    /// Says where to sign in.
    pub fn print_accounts(&self, output: &Output) {
        output.say("\nConsoles");
        for organisation in &self.organisations {
            output.say(format!(
                "  {:<24} http://{}/",
                organisation.site.name(),
                organisation.web
            ));
        }
        output.say(format!("Accounts, password {}", self.password));
        for (account, name, department, role) in ACCOUNTS {
            output.say(format!("  {account:<8} {name}, {department} ({role})"));
        }
    }
}

/// Runs a command to its end; partly done (7) counts as done, its rejected list is in the log.
async fn run(command: &mut Command) -> Outcome<Vec<u8>> {
    let words = format!("{:?}", command.as_std().get_args().collect::<Vec<_>>());
    let work = command
        .stdout(Stdio::piped())
        .spawn()
        .map_err(failed("Cannot run a command."))?
        .wait_with_output();
    let slow = || {
        Fault::new(
            Exit::Failed,
            format!("A command of the demonstration did not end: {words}"),
            "deadline",
            "See the logs.",
        )
    };
    let done = tokio::time::timeout(COMMAND_DEADLINE, work)
        .await
        .map_err(|_| slow())?
        .map_err(failed("Cannot run a command."))?;
    match done.status.code() {
        Some(0 | 7) => Ok(done.stdout),
        code => Err(Fault::new(
            Exit::Failed,
            format!("A command of the demonstration failed: {words}"),
            format!("exit code {code:?}"),
            "See the logs in the demonstration's folder.",
        )),
    }
}

/// Waits until somebody listens.
async fn wait_for(address: &str) -> Outcome<()> {
    let deadline = tokio::time::Instant::now() + READY;
    while tokio::net::TcpStream::connect(address).await.is_err() {
        if tokio::time::Instant::now() >= deadline {
            return Err(Fault::new(
                Exit::Failed,
                format!("Nothing listens at {address}."),
                "it did not start in time",
                "See the logs.",
            ));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}
