//! Programs that call the API: a name, roles, and a token that is shown once and kept as a keyed hash.

use core::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hie_protocol::id::Millis;
use hie_protocol::vocabulary::Role;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{AccountError, Accounts, check_roles, check_shown};
use crate::catalogue::Table;
use crate::kv::{Batch, Scan};
use crate::ports::random_bytes;
use crate::vault::KeyScope;
use crate::versioned::{self, Stored};

/// What a token begins with, so that a leaked one is recognised.
pub const TOKEN_PREFIX: &str = "hie_";
/// Most bytes of a presented token.
pub const TOKEN_BYTES_MAX: usize = 64;

/// A program's id.
pub type ClientId = [u8; 16];

/// A program that calls the API.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Client {
    /// Id.
    pub id: ClientId,
    /// Name as shown.
    pub name: String,
    /// Roles.
    pub roles: Vec<Role>,
    /// Whether its token is taken.
    pub enabled: bool,
    /// Last change.
    pub changed: Millis,
}

impl fmt::Debug for Client {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Client({}, enabled: {})", hex::encode(self.id), self.enabled)
    }
}

impl Stored for Client {
    const VERSION: u8 = 1;
}

impl Accounts {
    /// Makes a program and its token; the token is answered once. Errors: every rule; then the batch is unchanged.
    pub fn create_client(
        &self,
        name: &str,
        roles: Vec<Role>,
        now: Millis,
        batch: &mut Batch,
    ) -> Result<(ClientId, Zeroizing<String>), AccountError> {
        check_shown(name, None)?;
        check_roles(&roles)?;
        let id: ClientId = random_bytes(&*self.random)?;
        let secret: Zeroizing<[u8; 32]> = Zeroizing::new(random_bytes(&*self.random)?);
        let token = Zeroizing::new(format!("{TOKEN_PREFIX}{}", URL_SAFE_NO_PAD.encode(secret.as_slice())));
        let client = Client {
            id,
            name: name.to_owned(),
            roles,
            enabled: true,
            changed: now,
        };
        self.store_client(&client, batch)?;
        let hash = self.token_key(&token);
        batch.put(
            Table::ClientTokens,
            hash,
            self.vault.seal(KeyScope::Node, Table::ClientTokens, &hash, &id)?,
        );
        Ok((id, token))
    }

    /// Opens or closes a program. Errors: [`AccountError::Unknown`].
    pub fn enable_client(
        &self,
        id: ClientId,
        enabled: bool,
        now: Millis,
        batch: &mut Batch,
    ) -> Result<(), AccountError> {
        let mut client = self.client(id)?.ok_or(AccountError::Unknown)?;
        (client.enabled, client.changed) = (enabled, now);
        self.store_client(&client, batch)
    }

    /// Who a token belongs to. A token has 256 random bits: guesses need no slowing down.
    ///
    /// Errors: [`AccountError::Refused`] (unknown or closed).
    pub fn authenticate_token(&self, token: &str) -> Result<Client, AccountError> {
        if token.len() > TOKEN_BYTES_MAX || !token.starts_with(TOKEN_PREFIX) {
            return Err(AccountError::Refused);
        }
        let hash = self.token_key(token);
        let sealed = self.kv.get(Table::ClientTokens, &hash)?.ok_or(AccountError::Refused)?;
        let plain = self
            .vault
            .open_value(KeyScope::Node, Table::ClientTokens, &hash, &sealed)?;
        let id = plain.as_slice().try_into().map_err(|_| AccountError::Refused)?;
        self.client(id)?
            .filter(|client| client.enabled)
            .ok_or(AccountError::Refused)
    }

    /// A program. Errors: the store.
    pub fn client(&self, id: ClientId) -> Result<Option<Client>, AccountError> {
        let Some(sealed) = self.kv.get(Table::Clients, &id)? else {
            return Ok(None);
        };
        let plain = self.vault.open_value(KeyScope::Node, Table::Clients, &id, &sealed)?;
        Ok(Some(versioned::decode(&plain)?))
    }

    /// Every program. Errors: the store.
    pub fn clients(&self) -> Result<Vec<Client>, AccountError> {
        let mut clients: Vec<Client> = Vec::new();
        for (key, sealed) in self.kv.scan(&Scan::of(Table::Clients, &[]))? {
            let plain = self.vault.open_value(KeyScope::Node, Table::Clients, &key, &sealed)?;
            clients.push(versioned::decode(&plain)?);
        }
        Ok(clients)
    }

    fn token_key(&self, token: &str) -> [u8; 16] {
        self.vault.blind_key("api token", token.as_bytes())
    }

    fn store_client(&self, client: &Client, batch: &mut Batch) -> Result<(), AccountError> {
        let plain = versioned::encode(client)?;
        batch.put(
            Table::Clients,
            client.id,
            self.vault.seal(KeyScope::Node, Table::Clients, &client.id, &plain)?,
        );
        Ok(())
    }
}
