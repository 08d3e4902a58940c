//! Console sessions and the brake on sign-in.
//!
//! The law: the cookie is 32 random bytes and the server keeps only their SHA-256; a session ends after
//! [`IDLE_MS_MAX`] without use and after [`LIFE_MS_MAX`] in any case; each session has its own form token; a
//! declaration of emergency access belongs to one session and one subject. Time and randomness are arguments.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use hie_protocol::claim::BreakGlass;
use hie_protocol::id::Millis;
use hie_protocol::vocabulary::{Purpose, Role};
use ring::digest::{SHA256, digest};

use crate::ports::{Caller, Principal, SubjectRef};

pub use crate::session::attempts::Attempts;

mod attempts;

/// Longest time without use, in milliseconds.
pub const IDLE_MS_MAX: u64 = 15 * 60 * 1000;
/// Longest life, in milliseconds.
pub const LIFE_MS_MAX: u64 = 12 * 60 * 60 * 1000;
/// Most sessions at a time; the one that was used longest ago makes room.
pub const SESSIONS_MAX: usize = 10_000;
/// Most declarations of emergency access in one session.
pub const EMERGENCIES_MAX: usize = 64;
/// Cookie name behind TLS: the prefix binds it to this host, to Secure and to the path `/` (RFC 6265bis).
pub const COOKIE_SECURE: &str = "__Host-hie";
/// Cookie name on plain loopback.
pub const COOKIE_PLAIN: &str = "hie";

/// SHA-256 of a session's cookie value; names the session on the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId([u8; 32]);

impl SessionId {
    fn of(token: &str) -> Self {
        let mut id = [0_u8; 32];
        for (to, from) in id.iter_mut().zip(digest(&SHA256, token.as_bytes()).as_ref()) {
            *to = *from;
        }
        Self(id)
    }
}

/// Emergency access declared for one subject.
#[derive(Clone)]
pub struct Emergency {
    /// The declaration.
    pub declared: BreakGlass,
    /// When it ends.
    pub ends: Millis,
}

/// A session as a handler sees it: a copy, made when the request came in.
#[derive(Clone)]
pub struct Session {
    /// Its name on the server.
    pub id: SessionId,
    /// Who.
    pub principal: Principal,
    /// Token that every form of this session carries.
    pub form_token: String,
    /// When it was opened.
    pub opened: Millis,
    /// When it was last used.
    pub used: Millis,
    emergencies: BTreeMap<SubjectRef, Emergency>,
}

impl Session {
    /// Whether the user has one of the roles; an empty list asks for none.
    #[must_use]
    pub fn has_any(&self, roles: &[Role]) -> bool {
        roles.is_empty() || self.role_of(roles).is_some()
    }

    /// The first of the user's roles that the list names.
    #[must_use]
    pub fn role_of(&self, roles: &[Role]) -> Option<Role> {
        self.principal.roles.iter().copied().find(|role| roles.contains(role))
    }

    /// The live declaration for a subject.
    #[must_use]
    pub fn emergency(&self, subject: &SubjectRef, now: Millis) -> Option<&Emergency> {
        self.emergencies.get(subject).filter(|emergency| now < emergency.ends)
    }

    /// Adds a declaration to this copy, as [`Sessions::declare`] did on the server.
    pub fn declare(&mut self, subject: SubjectRef, emergency: Emergency) {
        self.emergencies.insert(subject, emergency);
    }

    /// Takes a declaration out of this copy.
    pub fn withdraw(&mut self, subject: &SubjectRef) {
        self.emergencies.remove(subject);
    }

    /// The caller of a request with one of `roles` for treatment; about a subject with live emergency access, the
    /// declaration and its purpose go along.
    #[must_use]
    pub fn caller(&self, roles: &[Role], about: Option<&SubjectRef>, now: Millis) -> Caller {
        let role = self
            .role_of(roles)
            .or_else(|| self.principal.roles.first().copied())
            .unwrap_or(Role::Unknown);
        let break_glass = about
            .and_then(|subject| self.emergency(subject, now))
            .map(|emergency| emergency.declared.clone());
        let purpose = match (&break_glass, role) {
            (Some(_), _) => Purpose::BreakGlass,
            (None, Role::Auditor | Role::Operator | Role::ConsentAdministrator) => Purpose::Operations,
            (None, _) => Purpose::Treatment,
        };
        Caller {
            principal: self.principal.clone(),
            role,
            purpose,
            break_glass,
        }
    }
}

/// The sessions of this node.
#[derive(Default)]
pub struct Sessions {
    // INVARIANT: held only for map operations, never across an await.
    table: Mutex<HashMap<SessionId, Session>>,
}

impl Sessions {
    fn table(&self) -> MutexGuard<'_, HashMap<SessionId, Session>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens a session; returns the cookie value. `random` gives fresh random bytes each time it is called.
    pub fn open(&self, principal: Principal, now: Millis, random: impl Fn() -> [u8; 32]) -> String {
        let token = hex::encode(random());
        let id = SessionId::of(&token);
        let session = Session {
            id,
            principal,
            form_token: hex::encode(random()),
            opened: now,
            used: now,
            emergencies: BTreeMap::new(),
        };
        let mut table = self.table();
        table.retain(|_, other| alive(other, now));
        if table.len() >= SESSIONS_MAX
            && let Some(oldest) = table.values().min_by_key(|other| other.used).map(|other| other.id)
        {
            table.remove(&oldest);
        }
        table.insert(id, session);
        token
    }

    /// The session of a cookie value, if it lives. `touch` counts as use.
    pub fn find(&self, token: &str, now: Millis, touch: bool) -> Option<Session> {
        let id = SessionId::of(token);
        let mut table = self.table();
        let session = table.get_mut(&id)?;
        if !alive(session, now) {
            table.remove(&id);
            return None;
        }
        if touch {
            session.used = now;
        }
        Some(session.clone())
    }

    /// Whether a session still lives.
    #[must_use]
    pub fn lives(&self, id: SessionId, now: Millis) -> bool {
        self.table().get(&id).is_some_and(|session| alive(session, now))
    }

    /// Ends a session.
    pub fn close(&self, id: SessionId) {
        self.table().remove(&id);
    }

    /// Keeps a declaration of emergency access. False when the session is gone or has too many.
    #[must_use]
    pub fn declare(&self, id: SessionId, subject: SubjectRef, emergency: Emergency, now: Millis) -> bool {
        let mut table = self.table();
        let Some(session) = table.get_mut(&id) else {
            return false;
        };
        session.emergencies.retain(|_, other| now < other.ends);
        if session.emergencies.len() >= EMERGENCIES_MAX {
            return false;
        }
        session.emergencies.insert(subject, emergency);
        true
    }

    /// Takes a declaration back, because its record could not be opened.
    pub fn withdraw(&self, id: SessionId, subject: &SubjectRef) {
        if let Some(session) = self.table().get_mut(&id) {
            session.emergencies.remove(subject);
        }
    }
}

const fn alive(session: &Session, now: Millis) -> bool {
    now.since(session.used) <= IDLE_MS_MAX && now.since(session.opened) <= LIFE_MS_MAX
}

/// Compares secrets without telling where they differ.
#[must_use]
pub fn same_secret(left: &str, right: &str) -> bool {
    digest(&SHA256, left.as_bytes()).as_ref() == digest(&SHA256, right.as_bytes()).as_ref()
}

#[cfg(test)]
mod tests;
