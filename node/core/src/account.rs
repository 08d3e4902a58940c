//! Accounts: people who sign in and programs that call the API.
//!
//! Passwords are kept as argon2id hashes, API tokens as keyed hashes, everything sealed at rest. A wrong password,
//! an unknown account and a closed one cost the same time and give the same answer. Failures slow an account down
//! for a while; they never lock it for good, so that nobody can lock out a physician. Changes are entries of a
//! batch: the use case commits them together with their audit event.

use core::fmt;
use std::sync::Arc;

use argon2::{Algorithm, Argon2, Params, Version};
use hie_protocol::id::Millis;
use hie_protocol::refusal::Class;
use hie_protocol::vocabulary::Role;
use ring::hmac;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::catalogue::Table;
use crate::kv::{Batch, Kv, KvError, Scan};
use crate::ports::{NoRandomness, Random, random_bytes};
use crate::vault::{KeyScope, Vault, VaultError};
use crate::versioned::{self, Stored, VersionedError};

pub mod client;
mod slowdown;

use slowdown::Slowdown;

/// Memory of one password hash, in KiB (OWASP's second choice for argon2id).
pub const ARGON2_MEMORY_KIB: u32 = 19 * 1024;
/// Passes of a password hash.
pub const ARGON2_PASSES: u32 = 2;
/// Lanes of a password hash.
pub const ARGON2_LANES: u32 = 1;
/// Fewest characters of a chosen password.
pub const PASSWORD_CHARS_MIN: usize = 12;
/// Most bytes of a password.
pub const PASSWORD_BYTES_MAX: usize = 256;
/// Most characters of an account name.
pub const NAME_CHARS_MAX: usize = 64;
/// Most characters of a shown name or department.
pub const SHOWN_CHARS_MAX: usize = 120;
/// Most accounts of a node.
pub const ACCOUNTS_MAX: usize = 4096;

/// Why an account call does not succeed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AccountError {
    /// Wrong, unknown or closed: they look alike.
    #[error("the account name or the password is wrong")]
    Refused,
    /// Too many failures.
    #[error("too many failed attempts; try again in {} seconds", .wait_ms.div_ceil(1000))]
    SlowDown {
        /// Milliseconds to wait.
        wait_ms: u64,
    },
    /// The account name is not usable.
    #[error("an account name has 1 to {NAME_CHARS_MAX} characters out of a-z, 0-9 and . _ - @")]
    Name,
    /// A shown text is not usable.
    #[error("a shown name or department has 1 to {SHOWN_CHARS_MAX} characters")]
    Shown,
    /// No role, or an unknown one.
    #[error("an account needs at least one role, each of them known")]
    Roles,
    /// The password is too weak.
    #[error(
        "a password has {PASSWORD_CHARS_MIN} characters or more, at most {PASSWORD_BYTES_MAX} bytes, and is not the account name"
    )]
    Password,
    /// The name is taken.
    #[error("there is already an account with this name")]
    Exists,
    /// No such account.
    #[error("there is no account with this name")]
    Unknown,
    /// No more accounts.
    #[error("a node has at most {ACCOUNTS_MAX} accounts")]
    Full,
    /// The hash function refuses; the machine lacks memory.
    #[error("the password cannot be hashed: the machine lacks memory")]
    Hash,
    /// No random bytes.
    #[error("no secret can be made")]
    Random(#[from] NoRandomness),
    /// A stored account is malformed.
    #[error("a stored account cannot be read")]
    Stored(#[from] VersionedError),
    /// The vault.
    #[error("accounts cannot be opened")]
    Vault(#[from] VaultError),
    /// The store.
    #[error("accounts cannot be read")]
    Store(#[from] KvError),
}

impl AccountError {
    /// Who must act.
    #[must_use]
    pub const fn class(&self) -> Class {
        match self {
            Self::Refused | Self::Unknown => Class::Refused,
            Self::SlowDown { .. } => Class::Unavailable,
            Self::Name | Self::Shown | Self::Roles | Self::Password | Self::Exists | Self::Full => Class::Invalid,
            Self::Vault(error) => error.class(),
            Self::Store(error) => error.class(),
            Self::Hash | Self::Random(_) | Self::Stored(_) => Class::Broken,
        }
    }
}

/// An account as others see it.
#[derive(Clone, PartialEq, Eq)]
pub struct Account {
    /// Name to sign in.
    pub name: String,
    /// Name as shown.
    pub shown: String,
    /// Department.
    pub department: Option<String>,
    /// Roles, at least one.
    pub roles: Vec<Role>,
    /// Whether it may sign in.
    pub enabled: bool,
    /// Last change.
    pub changed: Millis,
}

impl fmt::Debug for Account {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Account({:?}, enabled: {})", self.roles, self.enabled)
    }
}

/// What a new account is.
#[derive(Clone)]
pub struct NewAccount {
    /// Name to sign in; letters are taken as small ones.
    pub name: String,
    /// Name as shown.
    pub shown: String,
    /// Department.
    pub department: Option<String>,
    /// Roles.
    pub roles: Vec<Role>,
}

/// One change of an account.
pub enum Change {
    /// Opens or closes it.
    Enabled(bool),
    /// Sets the roles.
    Roles(Vec<Role>),
    /// Sets shown name and department.
    Shown(String, Option<String>),
    /// Sets the password.
    Password(Zeroizing<String>),
}

#[derive(Serialize, Deserialize)]
struct StoredAccount {
    name: String,
    shown: String,
    department: Option<String>,
    roles: Vec<Role>,
    enabled: bool,
    changed: Millis,
    password: StoredPassword,
}

impl Stored for StoredAccount {
    const VERSION: u8 = 1;
}

#[derive(Clone, Serialize, Deserialize)]
struct StoredPassword {
    memory_kib: u32,
    passes: u32,
    lanes: u32,
    #[serde(with = "hie_protocol::bytes")]
    salt: Vec<u8>,
    #[serde(with = "hie_protocol::bytes")]
    hash: Vec<u8>,
}

/// The accounts of this node.
pub struct Accounts {
    kv: Arc<dyn Kv>,
    vault: Arc<Vault>,
    random: Arc<dyn Random>,
    slowdown: Slowdown,
    /// A password that nobody has, checked for unknown accounts so that they cost the same.
    decoy: StoredPassword,
}

impl Accounts {
    /// Opens the accounts. Errors: [`AccountError::Random`], [`AccountError::Hash`].
    pub fn open(kv: Arc<dyn Kv>, vault: Arc<Vault>, random: Arc<dyn Random>) -> Result<Self, AccountError> {
        let nobody: [u8; 32] = random_bytes(&*random)?;
        let decoy = StoredPassword::make(&hex::encode(nobody), &*random)?;
        Ok(Self {
            kv,
            vault,
            random,
            slowdown: Slowdown::default(),
            decoy,
        })
    }

    /// Makes an account with the given password, or with a generated one that is answered once and never again.
    ///
    /// Errors: every rule of [`AccountError`]; then the batch is unchanged.
    pub fn create(
        &self,
        new: NewAccount,
        password: Option<&str>,
        now: Millis,
        batch: &mut Batch,
    ) -> Result<Option<Zeroizing<String>>, AccountError> {
        let name = account_name(&new.name)?;
        check_shown(&new.shown, new.department.as_deref())?;
        check_roles(&new.roles)?;
        if self.load(&name)?.is_some() {
            return Err(AccountError::Exists);
        }
        if self.kv.scan(&Scan::of(Table::Accounts, &[]))?.len() >= ACCOUNTS_MAX.min(crate::kv::SCAN_LIMIT_MAX) {
            return Err(AccountError::Full);
        }
        let generated = match password {
            Some(chosen) => {
                check_password(chosen, &name)?;
                None
            }
            None => Some(generate_password(&*self.random)?),
        };
        let secret = password
            .or(generated.as_ref().map(|text| text.as_str()))
            .unwrap_or_default();
        let account = StoredAccount {
            name,
            shown: new.shown,
            department: new.department,
            roles: new.roles,
            enabled: true,
            changed: now,
            password: StoredPassword::make(secret, &*self.random)?,
        };
        self.store(&account, batch)?;
        Ok(generated)
    }

    /// Changes an account. Errors: [`AccountError::Unknown`], every rule; then the batch is unchanged.
    pub fn change(&self, name: &str, change: Change, now: Millis, batch: &mut Batch) -> Result<(), AccountError> {
        let mut account = self.load(&account_name(name)?)?.ok_or(AccountError::Unknown)?;
        match change {
            Change::Enabled(enabled) => account.enabled = enabled,
            Change::Roles(roles) => {
                check_roles(&roles)?;
                account.roles = roles;
            }
            Change::Shown(shown, department) => {
                check_shown(&shown, department.as_deref())?;
                (account.shown, account.department) = (shown, department);
            }
            Change::Password(password) => {
                check_password(&password, &account.name)?;
                account.password = StoredPassword::make(&password, &*self.random)?;
            }
        }
        account.changed = now;
        self.store(&account, batch)
    }

    /// Checks a password. Blocks for the time of a hash: call it off the async threads.
    ///
    /// Errors: [`AccountError::Refused`] (wrong, unknown, closed), [`AccountError::SlowDown`].
    pub fn authenticate(&self, name: &str, password: &str, now: Millis) -> Result<Account, AccountError> {
        let name = account_name(name).unwrap_or_default();
        let key = self.key(&name);
        self.slowdown.check(key, now)?;
        let account = if name.is_empty() { None } else { self.load(&name)? };
        let stored = account.as_ref().map_or(&self.decoy, |account| &account.password);
        let fits = password.len() <= PASSWORD_BYTES_MAX && stored.fits(password)?;
        match account {
            Some(account) if fits && account.enabled => {
                self.slowdown.forget(key);
                Ok(account.into())
            }
            _ => {
                self.slowdown.failed(key, now);
                Err(AccountError::Refused)
            }
        }
    }

    /// An account. Errors: the store.
    pub fn account(&self, name: &str) -> Result<Option<Account>, AccountError> {
        let Ok(name) = account_name(name) else { return Ok(None) };
        Ok(self.load(&name)?.map(Account::from))
    }

    /// Every account, by name. Errors: the store.
    pub fn list(&self) -> Result<Vec<Account>, AccountError> {
        let mut accounts = Vec::new();
        for (key, sealed) in self.kv.scan(&Scan::of(Table::Accounts, &[]))? {
            let plain = self.vault.open_value(KeyScope::Node, Table::Accounts, &key, &sealed)?;
            accounts.push(Account::from(versioned::decode::<StoredAccount>(&plain)?));
        }
        accounts.sort_by(|left, right| left.name.cmp(&right.name));
        Ok(accounts)
    }

    fn key(&self, name: &str) -> [u8; 16] {
        self.vault.blind_key("account", name.as_bytes())
    }

    fn load(&self, name: &str) -> Result<Option<StoredAccount>, AccountError> {
        let key = self.key(name);
        let Some(sealed) = self.kv.get(Table::Accounts, &key)? else {
            return Ok(None);
        };
        let plain = self.vault.open_value(KeyScope::Node, Table::Accounts, &key, &sealed)?;
        Ok(Some(versioned::decode(&plain)?))
    }

    fn store(&self, account: &StoredAccount, batch: &mut Batch) -> Result<(), AccountError> {
        let key = self.key(&account.name);
        let plain = Zeroizing::new(versioned::encode(account)?);
        batch.put(
            Table::Accounts,
            key,
            self.vault.seal(KeyScope::Node, Table::Accounts, &key, &plain)?,
        );
        Ok(())
    }
}

impl From<StoredAccount> for Account {
    fn from(stored: StoredAccount) -> Self {
        let StoredAccount {
            name,
            shown,
            department,
            roles,
            enabled,
            changed,
            ..
        } = stored;
        Self {
            name,
            shown,
            department,
            roles,
            enabled,
            changed,
        }
    }
}

impl StoredPassword {
    fn make(password: &str, random: &dyn Random) -> Result<Self, AccountError> {
        let salt: [u8; 16] = random_bytes(random)?;
        let mut made = Self {
            memory_kib: ARGON2_MEMORY_KIB,
            passes: ARGON2_PASSES,
            lanes: ARGON2_LANES,
            salt: salt.to_vec(),
            hash: Vec::new(),
        };
        made.hash = made.hash(password)?.to_vec();
        Ok(made)
    }

    fn hash(&self, password: &str) -> Result<Zeroizing<[u8; 32]>, AccountError> {
        let params = Params::new(self.memory_kib, self.passes, self.lanes, Some(32)).map_err(|_| AccountError::Hash)?;
        let mut hash = Zeroizing::new([0; 32]);
        Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
            .hash_password_into(password.as_bytes(), &self.salt, hash.as_mut_slice())
            .map_err(|_| AccountError::Hash)?;
        Ok(hash)
    }

    fn fits(&self, password: &str) -> Result<bool, AccountError> {
        let hash = self.hash(password)?;
        // Comparing tags of an own key takes the same time wherever the hashes differ.
        let key = hmac::Key::new(hmac::HMAC_SHA256, &self.salt);
        Ok(hmac::verify(&key, hash.as_slice(), hmac::sign(&key, &self.hash).as_ref()).is_ok())
    }
}

/// 20 characters out of 32 that nobody confuses: 100 bits.
fn generate_password(random: &dyn Random) -> Result<Zeroizing<String>, AccountError> {
    const LETTERS: [char; 32] = [
        'a', 'b', 'c', 'd', 'e', 'f', 'g', 'h', 'j', 'k', 'm', 'n', 'p', 'q', 'r', 's', 't', 'u', 'v', 'w', 'x', 'y',
        'z', '2', '3', '4', '5', '6', '7', '8', '9', '=',
    ];
    let bytes: [u8; 20] = random_bytes(random)?;
    let letters = bytes.iter().filter_map(|byte| LETTERS.get(usize::from(byte % 32)));
    Ok(Zeroizing::new(letters.collect()))
}

fn account_name(text: &str) -> Result<String, AccountError> {
    let name = text.trim().to_ascii_lowercase();
    let usable = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-@".contains(&byte);
    if (1..=NAME_CHARS_MAX).contains(&name.len()) && name.bytes().all(usable) {
        Ok(name)
    } else {
        Err(AccountError::Name)
    }
}

fn check_shown(shown: &str, department: Option<&str>) -> Result<(), AccountError> {
    let fits = |text: &str| {
        (1..=SHOWN_CHARS_MAX).contains(&text.trim().chars().count()) && !text.chars().any(char::is_control)
    };
    if fits(shown) && department.is_none_or(fits) {
        Ok(())
    } else {
        Err(AccountError::Shown)
    }
}

fn check_roles(roles: &[Role]) -> Result<(), AccountError> {
    let known = !roles.is_empty() && roles.len() <= Role::ALL.len() && !roles.contains(&Role::Unknown);
    if known { Ok(()) } else { Err(AccountError::Roles) }
}

fn check_password(password: &str, name: &str) -> Result<(), AccountError> {
    let long = password.chars().count() >= PASSWORD_CHARS_MIN && password.len() <= PASSWORD_BYTES_MAX;
    if long && !password.eq_ignore_ascii_case(name) {
        Ok(())
    } else {
        Err(AccountError::Password)
    }
}

#[cfg(test)]
mod tests;
