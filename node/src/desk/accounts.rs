//! Who signs in: passwords and tokens, audited, with a short memory for programs that prove themselves on each call.
//!
//! The law: wrong, unknown and closed look alike; a credential is remembered for [`REMEMBERED_MS_MAX`] at most, under
//! a keyed hash, and not beyond a change of its account.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::future::{BoxFuture, FutureExt as _};
use hie_gateway::ports::{Accounts, Answer, Credential, PortError, Principal};
use hie_node_core::account::client::Client;
use hie_node_core::account::{Account, AccountError};
use hie_node_core::audit::event::{Actor, AuditEvent, EventKind, Outcome};
use hie_node_core::ports::blocking;
use hie_protocol::id::Millis;
use hie_protocol::refusal::Class;
use hie_protocol::vocabulary::Role;
use zeroize::Zeroizing;

use super::caller::{Classed, correlation, port_error, told};
use crate::assemble::Trade;

/// How long a credential that held is remembered, in milliseconds.
pub const REMEMBERED_MS_MAX: u64 = 60_000;
/// Most credentials remembered; beyond it all are forgotten.
pub const REMEMBERED_MAX: usize = 4096;

/// Name of an unknown account in the log.
const NOBODY: &str = "Somebody";

/// A credential that held.
#[derive(Clone)]
struct Remembered {
    principal: Principal,
    /// Last change of the account when it held.
    changed: Millis,
    until: Millis,
}

/// The accounts.
#[derive(Clone)]
pub struct AccountDesk {
    trade: Trade,
    /// By keyed hash of the credential.
    remembered: Arc<Mutex<HashMap<[u8; 16], Remembered>>>,
}

/// The account name of a program.
#[must_use]
pub fn client_account(client: &Client) -> String {
    format!("client:{}", hex::encode(client.id))
}

impl AccountDesk {
    /// Over the trade.
    #[must_use]
    pub fn new(trade: Trade) -> Self {
        Self {
            trade,
            remembered: Arc::default(),
        }
    }

    fn broken<E: Classed>(&self) -> impl Fn(E) -> PortError + '_ {
        |error| told(&*self.trade.random, &error)
    }

    fn check(&self, credential: &Credential) -> Answer<Principal> {
        match credential {
            Credential::Password { account, password } => self.password(account, password),
            Credential::Token(token) => self.token(token),
        }
    }

    fn password(&self, name: &str, password: &str) -> Answer<Principal> {
        let length = (name.len() as u64).to_be_bytes();
        let secret = Zeroizing::new([length.as_slice(), name.as_bytes(), password.as_bytes()].concat());
        let key = self.trade.vault.blind_key("remembered password", &secret);
        let now = self.trade.clock.now();
        if let Some(known) = self.known(key, now) {
            let account = self.trade.accounts.account(name).map_err(self.broken())?;
            if account.is_some_and(|account| account.enabled && account.changed == known.changed) {
                return Ok(known.principal);
            }
            self.remembered().remove(&key);
        }
        match self.trade.accounts.authenticate(name, password, now) {
            Ok(account) => {
                let changed = account.changed;
                self.admit(key, principal_of(account), changed, now)
            }
            Err(AccountError::Refused) => Err(self.refused(name)),
            // The waiting itself is no attempt: nothing was checked, so nothing is written.
            Err(error) => Err(told(&*self.trade.random, &error)),
        }
    }

    /// A token is looked up every time; what is remembered is that its use is in the log.
    fn token(&self, token: &str) -> Answer<Principal> {
        let now = self.trade.clock.now();
        let client = match self.trade.accounts.authenticate_token(token) {
            Ok(client) => client,
            Err(AccountError::Refused) => return Err(self.refused("")),
            Err(error) => return Err(told(&*self.trade.random, &error)),
        };
        let key = self.trade.vault.blind_key("remembered token", token.as_bytes());
        if let Some(known) = self.known(key, now).filter(|known| known.changed == client.changed) {
            return Ok(known.principal);
        }
        let principal = Principal {
            account: client_account(&client),
            name: client.name,
            department: None,
            roles: client.roles,
        };
        self.admit(key, principal, client.changed, now)
    }

    /// Writes that somebody signed in, then lets them in and remembers it.
    fn admit(&self, key: [u8; 16], principal: Principal, changed: Millis, now: Millis) -> Answer<Principal> {
        let actor = Actor {
            org: self.trade.me.clone(),
            node: None,
            user: principal.account.clone(),
            user_name: principal.name.clone(),
            role: principal.roles.first().copied().unwrap_or(Role::Unknown),
        };
        let question = correlation(&*self.trade.random)?;
        let event = AuditEvent::new(EventKind::SignedIn, now, question, actor);
        let _receipt = self.trade.audit.append_one(event).map_err(self.broken())?;
        let mut remembered = self.remembered();
        if remembered.len() >= REMEMBERED_MAX {
            remembered.retain(|_, one| one.until > now);
        }
        if remembered.len() >= REMEMBERED_MAX {
            remembered.clear();
        }
        let until = now.plus(REMEMBERED_MS_MAX);
        remembered.insert(
            key,
            Remembered {
                principal: principal.clone(),
                changed,
                until,
            },
        );
        Ok(principal)
    }

    /// Writes the failure and gives the one answer that every failure has. What was typed for a name is written
    /// only when it is one: people type passwords there.
    fn refused(&self, name: &str) -> PortError {
        let account = match self.trade.accounts.account(name) {
            Ok(account) => account,
            Err(error) => return told(&*self.trade.random, &error),
        };
        let (user, user_name, role) = account.map_or_else(
            || (String::new(), NOBODY.to_owned(), Role::Unknown),
            |account| {
                (
                    account.name,
                    account.shown,
                    account.roles.first().copied().unwrap_or(Role::Unknown),
                )
            },
        );
        let actor = Actor {
            org: self.trade.me.clone(),
            node: None,
            user,
            user_name,
            role,
        };
        let question = match correlation(&*self.trade.random) {
            Ok(question) => question,
            Err(error) => return error,
        };
        let mut event = AuditEvent::new(EventKind::SignInFailed, self.trade.clock.now(), question, actor);
        event.outcome = Outcome::Denied;
        match self.trade.audit.append_one(event) {
            Ok(_) => port_error(Class::Refused, "The account name or the password is wrong."),
            Err(error) => told(&*self.trade.random, &error),
        }
    }

    fn known(&self, key: [u8; 16], now: Millis) -> Option<Remembered> {
        self.remembered().get(&key).filter(|known| now < known.until).cloned()
    }

    fn remembered(&self) -> MutexGuard<'_, HashMap<[u8; 16], Remembered>> {
        self.remembered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn principal_of(account: Account) -> Principal {
    Principal {
        account: account.name,
        name: account.shown,
        department: account.department,
        roles: account.roles,
    }
}

impl Accounts for AccountDesk {
    fn authenticate(&self, credential: Credential) -> BoxFuture<'_, Answer<Principal>> {
        let this = self.clone();
        blocking(move || this.check(&credential)).boxed()
    }
}
