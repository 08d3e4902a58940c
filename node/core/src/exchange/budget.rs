//! How many match tokens members, their users and their purposes may have evaluated here.
//!
//! An authority cannot see whom a token is about, so it counts tokens: enumerating people costs at least one each.
//! Every use has a bucket for the user and one for the member; a bucket fills with what is used and empties at a
//! steady rate. The counters become durable together with the audit entry of the evaluation: a restart resets
//! nothing (SPEC X-BUDGET).
//!
//! | use | user: at once, an hour | hospital: at once, a day | other members |
//! |---|---|---|---|
//! | question (treatment) | 30 questions, 60 an hour | 250 questions, 2,500 a day | a fifth |
//! | emergency access | the same again | the same again | a fifth |
//! | other purposes | 10, 20 an hour | 83, 833 a day | a fifth |
//! | publication | - | 3 million tokens, 30 million a day | a fifth |
//!
//! A question has about 24 tokens. The busiest desk of an emergency department registers some twenty patients in an
//! hour, so that 60 leave room for asking again; 2,500 a day are all arrivals of a large hospital. Declared
//! emergency access has an allowance of its own: it is never used up by everyday questions.
//!
//! A member could call its guesses a publication. Therefore what was evaluated for publication must turn up in the
//! index: tokens without a record in the part of the index held here are outstanding, and
//! [`OUTSTANDING_MAX`] of them stop the member's publications until the records come or a day gives some back.

use core::fmt;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hie_protocol::claim::Claim;
use hie_protocol::id::{Millis, OrgId};
use hie_protocol::registry::{MemberKind, Registry};
use hie_protocol::vocabulary::{Purpose, Role};
use serde::{Deserialize, Serialize};

use crate::catalogue::Table;
use crate::kv::{Batch, Kv, KvError};
use crate::vault::Vault;
use crate::versioned::{self, Stored};

/// Tokens of an ordinary question.
pub const QUESTION_TOKENS: u64 = 24;
/// Least cost of one evaluation for a question, in tokens.
pub const QUESTION_COST_MIN: u64 = 16;
/// Tokens evaluated for the publication of one member without a record of it in the index here.
pub const OUTSTANDING_MAX: u64 = 20_000;
/// Outstanding tokens that a day forgives: records end, and corrections publish fewer tokens than they evaluate.
pub const OUTSTANDING_FORGIVEN_PER_DAY: u64 = 20_000;
/// Buckets in memory; empty ones are forgotten beyond it.
pub const BUCKETS_MAX: usize = 65_536;

const HOUR_MS: u64 = 3_600_000;
const DAY_MS: u64 = 24 * HOUR_MS;

/// What a claim wants tokens for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Use {
    /// A question about a patient who is treated.
    Question,
    /// A question under declared emergency access.
    Emergency,
    /// A question for any other purpose.
    Other,
    /// The member's own publication.
    Publication,
}

impl Use {
    /// The use that a claim names.
    #[must_use]
    pub const fn of(claim: &Claim) -> Self {
        match (claim.role, claim.purpose) {
            (Role::System, Purpose::Operations) if claim.user.is_empty() => Self::Publication,
            (_, Purpose::BreakGlass) => Self::Emergency,
            (_, Purpose::Treatment | Purpose::EmergencyTreatment) => Self::Question,
            _ => Self::Other,
        }
    }

    /// The use in words.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::Question => "questions",
            Self::Emergency => "emergency questions",
            Self::Other => "questions for other purposes",
            Self::Publication => "publication",
        }
    }

    const fn tag(self) -> u8 {
        match self {
            Self::Question => 1,
            Self::Emergency => 2,
            Self::Other => 3,
            Self::Publication => 4,
        }
    }

    /// Limit of one user; none for publication, which has no user.
    #[must_use]
    pub const fn of_user(self, allowance: &Allowance) -> Option<Limit> {
        let at_once = allowance.user_at_once.saturating_mul(QUESTION_TOKENS);
        let per_day = allowance.user_per_hour.saturating_mul(24 * QUESTION_TOKENS);
        match self {
            Self::Question | Self::Emergency => Some(Limit { at_once, per_day }),
            Self::Other => Some(Limit {
                at_once: at_once / 3,
                per_day: per_day / 3,
            }),
            Self::Publication => None,
        }
    }

    /// Limit of one member.
    #[must_use]
    pub const fn of_member(self, kind: MemberKind, allowance: &Allowance) -> Limit {
        let at_once = allowance.member_at_once.saturating_mul(QUESTION_TOKENS);
        let per_day = allowance.member_per_day.saturating_mul(QUESTION_TOKENS);
        let (at_once, per_day) = match self {
            Self::Question | Self::Emergency => (at_once, per_day),
            Self::Other => (at_once / 3, per_day / 3),
            Self::Publication => (3_000_000, 30_000_000),
        };
        let part = match kind {
            MemberKind::Hospital => 1,
            MemberKind::Clinic | MemberKind::ImagingCentre | MemberKind::Laboratory | MemberKind::Other => 5,
        };
        Limit {
            at_once: at_once / part,
            per_day: per_day / part,
        }
    }
}

/// What an authority answers: questions of members and their users, for a hospital (other uses follow from it), and
/// publications that do not turn up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Allowance {
    /// Of one user at once.
    pub user_at_once: u64,
    /// That an hour gives one user back.
    pub user_per_hour: u64,
    /// Of one member at once.
    pub member_at_once: u64,
    /// That a day gives one member back.
    pub member_per_day: u64,
    /// Tokens evaluated for the publication of one member without a record of it in the index here.
    pub outstanding: u64,
}

impl Default for Allowance {
    fn default() -> Self {
        Self {
            user_at_once: 30,
            user_per_hour: 60,
            member_at_once: 250,
            member_per_day: 2500,
            outstanding: OUTSTANDING_MAX,
        }
    }
}

/// What a bucket takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// Tokens at once.
    pub at_once: u64,
    /// Tokens that a day gives back.
    pub per_day: u64,
}

/// Whose bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    /// One user's.
    User,
    /// The whole member's.
    Member,
    /// Publications that do not turn up in the index.
    Outstanding,
}

impl Whose {
    /// In words.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::User => "of one user",
            Self::Member => "of the member",
            Self::Outstanding => "not seen in the index",
        }
    }
}

/// An alarm of one bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Alarm {
    /// Whose.
    pub whose: Whose,
    /// For what.
    pub use_for: Use,
    /// True when it was refused, false when more than half is used.
    pub exhausted: bool,
}

/// What became of a claim.
#[derive(Debug)]
pub struct Spent {
    /// Whether it may be evaluated.
    pub granted: bool,
    /// Alarms, each once until the bucket has recovered.
    pub alarms: Vec<Alarm>,
    /// Counters, to be written with the audit entry.
    pub counters: Batch,
}

/// One bucket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Bucket {
    /// Tokens in it.
    used: u64,
    /// When that was.
    at: Millis,
    /// Whether the alarm of half and of whole was given since it was last below a quarter.
    warned: (bool, bool),
    /// Records seen in the index when it was last counted; for outstanding publications alone.
    seen: u64,
}

impl Stored for Bucket {
    const VERSION: u8 = 1;
}

impl Bucket {
    /// Lets what the time gives back run out.
    fn drain(&mut self, limit: Limit, now: Millis) {
        let passed = now.since(self.at);
        let back = u128::from(passed) * u128::from(limit.per_day) / u128::from(DAY_MS);
        if back > 0 || self.used == 0 {
            self.used = self.used.saturating_sub(u64::try_from(back).unwrap_or(u64::MAX));
            self.at = Millis(self.at.0.max(now.0));
        }
        if self.used < limit.at_once / 4 {
            self.warned = (false, false);
        }
    }

    const fn takes(&self, limit: Limit, cost: u64) -> bool {
        self.used.saturating_add(cost) <= limit.at_once
    }

    /// Whether an alarm is due that was not given yet.
    fn alarm(&mut self, limit: Limit, exhausted: bool) -> bool {
        if exhausted {
            !core::mem::replace(&mut self.warned.1, true)
        } else {
            self.used > limit.at_once / 2 && !core::mem::replace(&mut self.warned.0, true)
        }
    }
}

type Key = [u8; 16];

/// How many records of an owner are held here; none when this node holds no part of the index.
pub type Held = Arc<dyn Fn(&OrgId) -> Option<u64> + Send + Sync>;

/// The budgets of an authority.
pub struct Budgets {
    kv: Arc<dyn Kv>,
    vault: Arc<Vault>,
    held: Held,
    allowance: Allowance,
    buckets: Mutex<BTreeMap<Key, Bucket>>,
}

impl fmt::Debug for Budgets {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Budgets")
    }
}

/// One bucket that a claim draws on.
struct Draw {
    whose: Whose,
    key: Key,
    limit: Limit,
    bucket: Bucket,
}

impl Budgets {
    /// Budgets whose counters live in the store.
    #[must_use]
    pub fn new(kv: Arc<dyn Kv>, vault: Arc<Vault>, held: Held, allowance: Allowance) -> Self {
        Self {
            kv,
            vault,
            held,
            allowance,
            buckets: Mutex::default(),
        }
    }

    /// Counts `tokens` of a claim. What is refused is not counted. Errors: the store's.
    pub fn spend(&self, claim: &Claim, tokens: u64, registry: &Registry, now: Millis) -> Result<Spent, KvError> {
        let use_for = Use::of(claim);
        let cost = match use_for {
            Use::Publication => tokens,
            _ => tokens.max(QUESTION_COST_MIN),
        };
        let mut buckets = self.buckets();
        let mut draws = self.draws(&buckets, claim, use_for, registry, now)?;
        let granted = draws.iter().all(|draw| draw.bucket.takes(draw.limit, cost));
        let mut spent = Spent {
            granted,
            alarms: Vec::new(),
            counters: Batch::new(),
        };
        for draw in &mut draws {
            let over = !draw.bucket.takes(draw.limit, cost);
            if granted {
                draw.bucket.used = draw.bucket.used.saturating_add(cost);
            }
            if (granted || over) && draw.bucket.alarm(draw.limit, over) {
                spent.alarms.push(Alarm {
                    whose: draw.whose,
                    use_for,
                    exhausted: over,
                });
            }
            if let Ok(value) = versioned::encode(&draw.bucket) {
                spent.counters.put(Table::TokenBudgets, draw.key, value);
            }
            buckets.insert(draw.key, draw.bucket);
        }
        if buckets.len() > BUCKETS_MAX {
            // What is forgotten here is still in the store.
            let quiet = |bucket: &Bucket| now.since(bucket.at) > HOUR_MS;
            buckets.retain(|_, bucket| !quiet(bucket));
        }
        Ok(spent)
    }

    fn buckets(&self) -> MutexGuard<'_, BTreeMap<Key, Bucket>> {
        self.buckets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn draws(
        &self,
        buckets: &BTreeMap<Key, Bucket>,
        claim: &Claim,
        use_for: Use,
        registry: &Registry,
        now: Millis,
    ) -> Result<Vec<Draw>, KvError> {
        let kind = registry
            .member(&claim.org)
            .map_or(MemberKind::Other, |member| member.kind);
        let mut wanted = vec![(Whose::Member, use_for.of_member(kind, &self.allowance))];
        wanted.extend(use_for.of_user(&self.allowance).map(|limit| (Whose::User, limit)));
        if use_for == Use::Publication {
            let limit = Limit {
                at_once: self.allowance.outstanding,
                per_day: OUTSTANDING_FORGIVEN_PER_DAY,
            };
            wanted.push((Whose::Outstanding, limit));
        }
        let mut draws = Vec::with_capacity(wanted.len());
        for (whose, limit) in wanted {
            let key = self.key(claim, use_for, whose);
            let mut bucket = match buckets.get(&key) {
                Some(bucket) => *bucket,
                None => self.stored(&key, now)?,
            };
            bucket.drain(limit, now);
            if whose == Whose::Outstanding {
                let Some(seen) = (self.held)(&claim.org) else {
                    continue;
                };
                bucket.settle(seen, registry);
            }
            draws.push(Draw {
                whose,
                key,
                limit,
                bucket,
            });
        }
        Ok(draws)
    }

    fn stored(&self, key: &Key, now: Millis) -> Result<Bucket, KvError> {
        let fresh = Bucket {
            at: now,
            ..Bucket::default()
        };
        let stored = self.kv.get(Table::TokenBudgets, key)?;
        Ok(stored.and_then(|bytes| versioned::decode(&bytes).ok()).unwrap_or(fresh))
    }

    fn key(&self, claim: &Claim, use_for: Use, whose: Whose) -> Key {
        let tag = match whose {
            Whose::User => 1_u8,
            Whose::Member => 2,
            Whose::Outstanding => 3,
        };
        let mut name = vec![tag, use_for.tag()];
        name.extend(claim.org.as_str().as_bytes());
        if whose == Whose::User {
            name.push(0);
            name.extend(claim.user.as_bytes());
        }
        self.vault.blind_key("token budget", &name)
    }
}

impl Bucket {
    /// Takes out what turned up in the index since it was last looked at: this holder sees R of every H records.
    fn settle(&mut self, seen: u64, registry: &Registry) {
        let holders = registry
            .with_role(hie_protocol::registry::MemberRole::IndexHolder)
            .count();
        let replicas = registry.policy.replicas_of(holders).max(1);
        let new = seen.saturating_sub(self.seen);
        let everywhere = u128::from(new) * (holders.max(1) as u128) / (replicas as u128);
        self.used = self.used.saturating_sub(u64::try_from(everywhere).unwrap_or(u64::MAX));
        self.seen = seen;
    }
}

#[cfg(test)]
mod tests;
