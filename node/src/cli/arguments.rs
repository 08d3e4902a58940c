//! The arguments of `hie`, verb by verb.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// A regional health information exchange node.
#[derive(Parser, Debug)]
#[command(
    name = "hie",
    version,
    about,
    propagate_version = true,
    arg_required_else_help = true
)]
pub struct Arguments {
    /// Folder of the node.
    #[arg(long, global = true, env = "HIE_HOME", default_value = "/var/lib/hie")]
    pub home: PathBuf,
    /// Print data as JSON (one object, or one per line while streaming).
    #[arg(long, global = true)]
    pub json: bool,
    /// Never ask: name the missing flag instead.
    #[arg(long, global = true)]
    pub no_input: bool,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Verbs.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Run a region: make its authority, approve and revoke members.
    #[command(subcommand)]
    Authority(AuthorityCommand),
    /// Make an invitation (region office).
    #[command(
        after_help = "Examples:\n  hie invite --dir /srv/region --name \"City General\" --organisation urn:oid:2.999.7.1 --role index-holder\n  hie invite --dir /srv/region --name \"Harbour GP\" --organisation urn:oid:2.999.7.3 --kind clinic --out harbour.hie"
    )]
    Invite(Invite),
    /// Make identity, configuration and an empty store.
    #[command(
        after_help = "Examples:\n  hie init --name \"City General\" --host hie.citygeneral.example\n  hie --home ./a init --name A --web 127.0.0.1:8080 --plain --control 127.0.0.1:8443 --bulk 127.0.0.1:8444"
    )]
    Init(Init),
    /// Join a region with an invitation (text or file).
    Join(Join),
    /// Run the node.
    Serve(Serve),
    /// Short state of the running node.
    Status,
    /// Check everything and say how to fix it.
    Doctor,
    /// Import FHIR, DICOM or documents; can be run again without duplicates.
    #[command(subcommand)]
    Import(ImportCommand),
    /// Ask who holds something about a patient.
    #[command(
        after_help = "Examples:\n  hie find --as haddad --family Okafor --given Grace --birth-date 1961-03-14\n  hie find --as haddad --identifier 'http://example.org/mrn|4821930075' --json"
    )]
    Find(Find),
    /// Fetch a document or a whole study that `find` named.
    Get(Get),
    /// Record and list patients' choices.
    #[command(subcommand)]
    Consent(ConsentCommand),
    /// Verify and search the audit log.
    #[command(subcommand)]
    Audit(AuditCommand),
    /// Accounts of this node.
    #[command(subcommand)]
    Account(AccountCommand),
    /// Show and check the configuration.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// A whole region on this machine, with its own patients.
    Demo(Demo),
    /// Renders one frame of a DICOM instance from stdin to stdout; the node runs it as a limited child.
    #[command(hide = true)]
    RenderFrame(RenderFrame),
}

/// `hie authority`
#[derive(Subcommand, Debug)]
pub enum AuthorityCommand {
    /// Make a region: root certificate, first registry, token key.
    Init(AuthorityInit),
    /// Serve enrolment and the registry.
    Serve(AuthorityServe),
    /// Members, requests and invitations.
    List(AuthorityDir),
    /// Approve a request to join; or, with an officer's key, a change that waits for officers.
    #[command(
        after_help = "Examples:\n  hie authority approve --dir /srv/region 7\n  hie authority approve --officer-key me.key --change change.txt --out approval.txt\n  hie authority approve --dir /srv/region --approval approval.txt"
    )]
    Approve(AuthorityApprove),
    /// Reject a request to join.
    Reject(AuthorityRequest),
    /// Revoke a member: its certificate, its channels, its signatures.
    Revoke(AuthorityRevoke),
    /// Suspend a member: it neither asks nor answers until it is reinstated.
    Suspend(AuthorityRevoke),
    /// Reinstate a suspended member.
    Reinstate(AuthorityRevoke),
    /// Set the roles of a member.
    Roles(RolesCommand),
    /// Nodes of a member.
    #[command(subcommand)]
    Node(NodeCommand),
    /// Officers who approve what this authority grants.
    #[command(subcommand)]
    Officer(OfficerCommand),
    /// Changes that wait for officers.
    Pending(AuthorityPending),
    /// The key of the match tokens: replace it, or pass it on to other authorities.
    #[command(subcommand)]
    Tokens(TokensCommand),
}

/// `hie authority approve`
#[derive(Args, Debug)]
pub struct AuthorityApprove {
    /// Folder of the region authority.
    #[arg(long)]
    pub dir: Option<PathBuf>,
    /// Number of the request, as `hie authority list` shows it; with --officer-key, of the change.
    pub number: Option<u64>,
    /// An officer's key.
    #[arg(long)]
    pub officer_key: Option<PathBuf>,
    /// A change as `hie authority pending --export` wrote it.
    #[arg(long, conflicts_with_all = ["dir", "number"], requires = "officer_key")]
    pub change: Option<PathBuf>,
    /// An officer's approval as it came back.
    #[arg(long, conflicts_with_all = ["officer_key", "change", "number"], requires = "dir")]
    pub approval: Option<PathBuf>,
    /// Write the approval to this file instead of stdout.
    #[arg(long)]
    pub out: Option<PathBuf>,
}

/// `hie authority roles`
#[derive(Args, Debug)]
pub struct RolesCommand {
    /// Folder of the region authority.
    #[arg(long)]
    pub dir: PathBuf,
    /// OID URN of the member.
    pub organisation: String,
    /// All roles that the member has from now on.
    #[arg(long = "role", value_enum)]
    pub roles: Vec<MemberRoleArgument>,
}

/// `hie authority node`
#[derive(Subcommand, Debug)]
pub enum NodeCommand {
    /// Remove a node of a member, as after a change of keys.
    Remove {
        /// Folder of the region authority.
        #[arg(long)]
        dir: PathBuf,
        /// OID URN of the member.
        organisation: String,
        /// The node's key, 64 hex digits.
        node: String,
    },
}

/// `hie authority officer`
#[derive(Subcommand, Debug)]
pub enum OfficerCommand {
    /// Make an officer's key, on the officer's own machine; prints the public key.
    Key {
        /// File to write.
        #[arg(long)]
        out: PathBuf,
    },
    /// Add officers.
    Add {
        /// Folder of the region authority.
        #[arg(long)]
        dir: PathBuf,
        /// NAME=KEY, with the public key in hex.
        #[arg(required = true)]
        officers: Vec<String>,
        /// How many officers must approve from now on.
        #[arg(long)]
        approvals: Option<u8>,
    },
    /// Remove an officer.
    Remove {
        /// Folder of the region authority.
        #[arg(long)]
        dir: PathBuf,
        /// Name.
        name: String,
        /// How many officers must approve from now on.
        #[arg(long)]
        approvals: Option<u8>,
    },
    /// The officers.
    List(AuthorityDir),
}

/// `hie authority pending`
#[derive(Args, Debug)]
pub struct AuthorityPending {
    /// Folder of the region authority.
    #[arg(long)]
    pub dir: PathBuf,
    /// Write this change as text for an officer's machine.
    #[arg(long)]
    pub export: Option<u64>,
    /// Withdraw this change.
    #[arg(long, conflicts_with = "export")]
    pub withdraw: Option<u64>,
    /// Write the exported change to this file instead of stdout.
    #[arg(long, requires = "export")]
    pub out: Option<PathBuf>,
}

/// `hie authority tokens`
#[derive(Subcommand, Debug)]
pub enum TokensCommand {
    /// Keys, authorities, and who is ready for the next step.
    Status(AuthorityDir),
    /// Deal a new key: members publish under both from now on.
    NewEpoch(TokensSeats),
    /// Let questions use the new key; refused until every member has published under it.
    Switch(AuthorityDir),
    /// Pass the key on to other authorities: the key stays, its shares are new.
    Reshare(TokensReshare),
    /// Let the new authorities answer; refused until each has its share.
    Seat(AuthorityDir),
    /// End what `switch` or `seat` left beside: old records are withdrawn, old shares destroyed.
    Retire(AuthorityDir),
}

/// `hie authority tokens new-epoch`
#[derive(Args, Debug)]
pub struct TokensSeats {
    /// Folder of the region authority.
    #[arg(long)]
    pub dir: PathBuf,
    /// How many authorities must evaluate; as now when not given.
    #[arg(long)]
    pub threshold: Option<u16>,
    /// Organisations that hold a share (OID URN, again for each); all active members with the role when none is given.
    #[arg(long)]
    pub organisation: Vec<String>,
}

/// `hie authority tokens reshare`
#[derive(Args, Debug)]
pub struct TokensReshare {
    /// Who gets new shares.
    #[command(flatten)]
    pub seats: TokensSeats,
    /// Organisations that do not deal: silent or lying ones (OID URN, again for each).
    #[arg(long)]
    pub without: Vec<String>,
}

/// Folder of the region authority.
#[derive(Args, Debug)]
pub struct AuthorityDir {
    /// Folder of the region authority.
    #[arg(long)]
    pub dir: PathBuf,
}

/// `hie authority init`
#[derive(Args, Debug)]
pub struct AuthorityInit {
    /// Folder of the region authority.
    #[arg(long)]
    pub dir: PathBuf,
    /// The region's name.
    #[arg(long)]
    pub name: String,
    /// What holds where a patient has recorded no choice.
    #[arg(long, value_enum, default_value_t = Model::OptOut)]
    pub consent: Model,
    /// `host:port` under which members reach this authority.
    #[arg(long, default_value = "127.0.0.1:8440")]
    pub address: String,
    /// How many token authorities must evaluate; no question finds anybody before as many have joined.
    #[arg(long, default_value_t = 3)]
    pub token_threshold: u16,
    /// How many token authorities there are: the first members that join with the role get the shares.
    #[arg(long, default_value_t = 5)]
    pub token_authorities: u16,
    /// Life of member certificates, in days; nodes renew them by themselves.
    #[arg(long, default_value_t = 7)]
    pub certificate_days: u32,
}

/// Default consent model.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Model {
    /// Share for treatment unless the patient says no.
    OptOut,
    /// Share nothing unless the patient says yes.
    OptIn,
}

/// `hie authority serve`
#[derive(Args, Debug)]
pub struct AuthorityServe {
    /// Folder of the region authority.
    #[arg(long)]
    pub dir: PathBuf,
    /// Address to listen at.
    #[arg(long, default_value = "127.0.0.1:8440")]
    pub listen: SocketAddr,
    /// Approve every holder of a valid invitation at once (demonstrations).
    #[arg(long)]
    pub auto_approve: bool,
}

/// `hie authority approve|reject`
#[derive(Args, Debug)]
pub struct AuthorityRequest {
    /// Folder of the region authority.
    #[arg(long)]
    pub dir: PathBuf,
    /// Number of the request, as `hie authority list` shows it.
    pub request: u64,
}

/// `hie authority revoke`
#[derive(Args, Debug)]
pub struct AuthorityRevoke {
    /// Folder of the region authority.
    #[arg(long)]
    pub dir: PathBuf,
    /// OID URN of the member.
    pub organisation: String,
}

/// Kind of member.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Kind {
    /// Hospital.
    Hospital,
    /// Clinic or practice.
    Clinic,
    /// Imaging centre.
    ImagingCentre,
    /// Laboratory.
    Laboratory,
    /// Any other.
    Other,
}

/// Role of a member.
#[derive(Clone, Copy, Debug, ValueEnum, PartialEq, Eq)]
pub enum MemberRoleArgument {
    /// Holds a part of the index.
    IndexHolder,
    /// Holds a share of the token key.
    TokenAuthority,
    /// Cosigns audit checkpoints.
    Witness,
    /// Carries sealed channels of members that cannot be dialled.
    Relay,
}

/// `hie invite`
#[derive(Args, Debug)]
pub struct Invite {
    /// Folder of the region authority.
    #[arg(long)]
    pub dir: PathBuf,
    /// Name of the organisation.
    #[arg(long)]
    pub name: String,
    /// OID URN of the organisation.
    #[arg(long)]
    pub organisation: String,
    /// Kind of organisation.
    #[arg(long, value_enum, default_value_t = Kind::Hospital)]
    pub kind: Kind,
    /// Roles beyond asking and answering.
    #[arg(long = "role", value_enum)]
    pub roles: Vec<MemberRoleArgument>,
    /// Telephone number shown beside a gap.
    #[arg(long)]
    pub phone: Option<String>,
    /// Days until the invitation ends.
    #[arg(long, default_value_t = 7)]
    pub days: u32,
    /// Write the invitation to this file instead of stdout.
    #[arg(long)]
    pub out: Option<PathBuf>,
}

/// `hie init`
#[derive(Args, Debug)]
pub struct Init {
    /// The organisation's name.
    #[arg(long)]
    pub name: String,
    /// Host name under which others reach this node.
    #[arg(long)]
    pub host: Option<String>,
    /// Address of the web server.
    #[arg(long, default_value = "127.0.0.1:8080")]
    pub web: SocketAddr,
    /// Plain HTTP; only on loopback.
    #[arg(long)]
    pub plain: bool,
    /// Address of the control channel.
    #[arg(long, default_value = "0.0.0.0:8443")]
    pub control: SocketAddr,
    /// Address of the bulk lane.
    #[arg(long, default_value = "0.0.0.0:8444")]
    pub bulk: SocketAddr,
    /// Listen to no other node: dial all of them, and be reached through the channels that this opens.
    #[arg(long)]
    pub outbound_only: bool,
    /// Member (OID URN) that relays sealed channels from others that only dial out; may be given several times.
    #[arg(long = "relay")]
    pub relays: Vec<String>,
}

/// `hie serve`
#[derive(Args, Debug)]
pub struct Serve {
    /// Wait until the organisation's other node lets go of the store, then take over with this node's own key. Both have
    /// the same `data` folder on shared storage and the same `secrets/kek`.
    #[arg(long)]
    pub standby: bool,
}

/// `hie join`
#[derive(Args, Debug)]
pub struct Join {
    /// The invitation, or a file that holds it.
    pub invitation: String,
    /// Seconds to wait for the approval.
    #[arg(long, default_value_t = 600)]
    pub wait: u64,
}

/// `hie import`
#[derive(Subcommand, Debug)]
pub enum ImportCommand {
    /// FHIR Bundles, resources or ndjson, gzip too; a file or a folder.
    Fhir(ImportPath),
    /// DICOM files; a file or a folder.
    Dicom(ImportPath),
    /// One document of a patient already registered.
    Document(ImportDocument),
}

/// A path to import.
#[derive(Args, Debug)]
pub struct ImportPath {
    /// File or folder.
    pub path: PathBuf,
    /// Read and check only.
    #[arg(long)]
    pub dry_run: bool,
}

/// `hie import document`
#[derive(Args, Debug)]
pub struct ImportDocument {
    /// File.
    pub path: PathBuf,
    /// The patient's identifier, `system|value`.
    #[arg(long)]
    pub patient: String,
    /// Title as shown.
    #[arg(long)]
    pub title: String,
    /// MIME type; guessed from the ending when absent.
    #[arg(long)]
    pub content_type: Option<String>,
    /// Sensitivity code such as ETH or PSY.
    #[arg(long = "sensitivity")]
    pub sensitivity: Vec<String>,
}

/// `hie find`
#[derive(Args, Debug)]
pub struct Find {
    /// Account in whose name the question is asked.
    #[arg(long = "as")]
    pub account: String,
    /// Family name.
    #[arg(long)]
    pub family: Option<String>,
    /// Given name.
    #[arg(long)]
    pub given: Vec<String>,
    /// Birth date, YYYY-MM-DD.
    #[arg(long)]
    pub birth_date: Option<String>,
    /// male, female, other or unknown.
    #[arg(long)]
    pub sex: Option<String>,
    /// Identifier, `system|value`.
    #[arg(long)]
    pub identifier: Vec<String>,
    /// Postal code.
    #[arg(long)]
    pub postal_code: Option<String>,
    /// Telephone number.
    #[arg(long)]
    pub phone: Option<String>,
    /// Purpose of use.
    #[arg(long, default_value = "TREAT")]
    pub purpose: String,
    /// Declare emergency access with this reason: life-at-risk, care-now or risk-to-others.
    #[arg(long, requires = "words")]
    pub emergency: Option<String>,
    /// A few words why.
    #[arg(long)]
    pub words: Option<String>,
}

/// `hie get`
#[derive(Args, Debug)]
pub struct Get {
    /// Reference from `hie find`.
    pub reference: String,
    /// Account in whose name the document is fetched.
    #[arg(long = "as")]
    pub account: String,
    /// File (document) or folder (study) to write; a broken transfer resumes where it stopped.
    #[arg(short, long)]
    pub out: PathBuf,
    /// Purpose of use.
    #[arg(long, default_value = "TREAT")]
    pub purpose: String,
    /// Declare emergency access with this reason: life-at-risk, care-now or risk-to-others.
    #[arg(long, requires = "words")]
    pub emergency: Option<String>,
    /// A few words why.
    #[arg(long)]
    pub words: Option<String>,
}

/// `hie consent`
#[derive(Subcommand, Debug)]
pub enum ConsentCommand {
    /// Record FHIR Consents from a file.
    Add {
        /// File with a Consent resource or a Bundle of them.
        path: PathBuf,
        /// Account in whose name.
        #[arg(long = "as")]
        account: String,
    },
    /// Consents of a patient.
    List {
        /// The patient's identifier, `system|value`, or the node's patient id.
        #[arg(long)]
        patient: String,
        /// Account in whose name.
        #[arg(long = "as")]
        account: String,
    },
}

/// `hie audit`
#[derive(Subcommand, Debug)]
pub enum AuditCommand {
    /// Prove that the log is whole and unaltered.
    Verify,
    /// Search the log.
    Search {
        /// Name, account or id.
        text: Option<String>,
        /// Account in whose name.
        #[arg(long = "as")]
        account: String,
        /// Only emergency access.
        #[arg(long)]
        emergency: bool,
        /// Most entries.
        #[arg(long, default_value_t = 50)]
        limit: usize,
    },
}

/// `hie account`
#[derive(Subcommand, Debug)]
pub enum AccountCommand {
    /// Add an account; the password comes from a file or is generated and printed once.
    Add {
        /// Account name.
        account: String,
        /// Name as shown.
        #[arg(long)]
        name: String,
        /// Department as shown.
        #[arg(long)]
        department: Option<String>,
        /// Roles: physician, nurse, pharmacist, consent-administrator, auditor, operator, system.
        #[arg(long = "role", required = true)]
        roles: Vec<String>,
        /// File with the password.
        #[arg(long)]
        password_file: Option<PathBuf>,
        /// Make a token for an API client instead of a password.
        #[arg(long)]
        client: bool,
    },
    /// List the accounts.
    List,
}

/// `hie config`
#[derive(Subcommand, Debug)]
pub enum ConfigCommand {
    /// Check the configuration.
    Check,
    /// Print the configuration in force.
    Show,
}

/// `hie demo`
#[derive(Args, Debug)]
pub struct Demo {
    /// Folder of the demonstration; made anew.
    #[arg(long, default_value = ".demo")]
    pub dir: PathBuf,
    /// Ask the question, print the answer and exit.
    #[arg(long)]
    pub once: bool,
    /// Import Bundles and DICOM from this folder instead of the program's own patients.
    #[arg(long)]
    pub data: Option<PathBuf>,
}

/// `hie render-frame`
#[derive(Args, Debug)]
pub struct RenderFrame {
    /// Frame number from zero.
    #[arg(long)]
    pub frame: u32,
    /// Longest side of the picture, in pixels.
    #[arg(long)]
    pub max_px: u32,
    /// Window centre and width.
    #[arg(long, num_args = 2, allow_hyphen_values = true)]
    pub window: Vec<f64>,
}
