//! Links to further pages of a search.
//!
//! The law: a link holds the search sealed under a key that lives as long as the process, bound to the account that
//! searched; a reader of the link learns nothing about the patient (law 9), and nobody else can follow it.

use std::sync::OnceLock;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};

use crate::fhir::parameters::{ParameterError, Search, escape};
use crate::gate::Gate;

/// Longest sealed search, in characters.
pub const TOKEN_CHARS_MAX: usize = 8192;

/// Seals and opens page links.
#[derive(Default)]
pub struct Pages {
    key: OnceLock<Option<LessSafeKey>>,
}

impl Pages {
    fn key(&self, gate: &Gate) -> Option<&LessSafeKey> {
        let fresh = || {
            UnboundKey::new(&CHACHA20_POLY1305, &gate.ports.node.random())
                .ok()
                .map(LessSafeKey::new)
        };
        self.key.get_or_init(fresh).as_ref()
    }

    /// The value of `_page` for the entries from `offset` on; none when the search is too long for a link.
    #[must_use]
    pub fn seal(&self, gate: &Gate, account: &str, path: &str, search: &Search, offset: usize) -> Option<String> {
        let mut text = format!("{offset}");
        for (name, value) in search.given.iter().filter(|(name, _)| name != "_page") {
            text.push_str(&format!("&{}={}", escape(name), escape(value)));
        }
        let random = gate.ports.node.random();
        let nonce: [u8; NONCE_LEN] = random.get(..NONCE_LEN)?.try_into().ok()?;
        let mut sealed = text.into_bytes();
        let bound = Aad::from(format!("{account}\n{path}"));
        self.key(gate)?
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), bound, &mut sealed)
            .ok()?;
        let mut token = nonce.to_vec();
        token.append(&mut sealed);
        let token = URL_SAFE_NO_PAD.encode(token);
        (token.len() <= TOKEN_CHARS_MAX).then_some(token)
    }

    /// The search as it goes on: itself with offset 0, or the one that its `_page` holds.
    pub fn open(
        &self,
        gate: &Gate,
        account: &str,
        path: &str,
        search: Search,
    ) -> Result<(Search, usize), ParameterError> {
        let Some(token) = search.one("_page") else {
            return Ok((search, 0));
        };
        let opened = self.unseal(gate, account, path, token).ok_or(ParameterError::Page)?;
        let (offset, given) = opened;
        Ok((
            Search {
                given,
                posted: true,
                strict: search.strict,
            },
            offset,
        ))
    }

    fn unseal(&self, gate: &Gate, account: &str, path: &str, token: &str) -> Option<(usize, Vec<(String, String)>)> {
        let mut bytes = URL_SAFE_NO_PAD.decode(token).ok()?;
        let mut sealed = bytes.split_off(NONCE_LEN.min(bytes.len()));
        let nonce: [u8; NONCE_LEN] = bytes.try_into().ok()?;
        let bound = Aad::from(format!("{account}\n{path}"));
        let text = self
            .key(gate)?
            .open_in_place(Nonce::assume_unique_for_key(nonce), bound, &mut sealed)
            .ok()?;
        let text = std::str::from_utf8(text).ok()?;
        let (offset, rest) = text.split_once('&').unwrap_or((text, ""));
        Some((offset.parse().ok()?, crate::fhir::parameters::decode(rest.as_bytes())?))
    }
}
