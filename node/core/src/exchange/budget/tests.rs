#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use hie_protocol::claim::{BreakGlass, BreakGlassReason, Claim};
use hie_protocol::id::{Correlation, Millis, NodeKey, Nonce, OrgId};
use hie_protocol::registry::{MemberKind, Registry};
use hie_protocol::vocabulary::{Purpose, Role};
use proptest::prelude::{any, prop_assert, proptest};

use super::{Allowance, Budgets, DAY_MS, HOUR_MS, Held, Limit, OUTSTANDING_MAX, QUESTION_TOKENS, Spent, Use};
use crate::exchange::tests::world::{org_id, test_registry};
use crate::kv::Kv;
use crate::kv::memory::MemoryKv;
use crate::ports::{OsRandom, Random};
use crate::vault::{Kek, Vault};

const NOW: Millis = Millis(1_780_000_000_000);

struct Rig {
    kv: Arc<dyn Kv>,
    vault: Arc<Vault>,
    held: Arc<Mutex<BTreeMap<OrgId, u64>>>,
    registry: Registry,
    budgets: Budgets,
}

impl Rig {
    fn new() -> Self {
        let random: Arc<dyn Random> = Arc::new(OsRandom::new());
        let kv: Arc<dyn Kv> = Arc::new(MemoryKv::new());
        let kek = Kek::generate(&*random).unwrap();
        let vault = Arc::new(Vault::open(&kek, kv.clone(), random).unwrap());
        let held: Arc<Mutex<BTreeMap<OrgId, u64>>> = Arc::default();
        Self {
            budgets: budgets(&kv, &vault, &held),
            kv,
            vault,
            held,
            registry: test_registry(),
        }
    }

    /// The node starts again: nothing is left but its store.
    fn restart(&mut self) {
        self.budgets = budgets(&self.kv, &self.vault, &self.held);
    }

    fn spend(&self, claim: &Claim, tokens: u64, now: Millis) -> Spent {
        let spent = self.budgets.spend(claim, tokens, &self.registry, now).unwrap();
        if spent.granted || !spent.alarms.is_empty() {
            self.kv.commit(spent.counters.clone()).unwrap();
        }
        spent
    }

    fn until_refused(&self, claim: &Claim, tokens: u64, now: Millis) -> u64 {
        (0..).find(|_| !self.spend(claim, tokens, now).granted).unwrap()
    }
}

fn budgets(kv: &Arc<dyn Kv>, vault: &Arc<Vault>, held: &Arc<Mutex<BTreeMap<OrgId, u64>>>) -> Budgets {
    let held = held.clone();
    let held: Held = Arc::new(move |org: &OrgId| Some(held.lock().unwrap().get(org).copied().unwrap_or(0)));
    Budgets::new(kv.clone(), vault.clone(), held, Allowance::default())
}

fn claim(user: &str, role: Role, purpose: Purpose) -> Claim {
    let declared = BreakGlass {
        reason: BreakGlassReason::LifeAtRisk,
        words: "unconscious".into(),
        declared: NOW,
    };
    Claim {
        org: org_id(2),
        node: NodeKey::new([2; 32]),
        user: user.into(),
        user_name: user.into(),
        role,
        purpose,
        evidence: None,
        break_glass: (purpose == Purpose::BreakGlass).then_some(declared),
        audience: org_id(1),
        correlation: Correlation::new([1; 16]),
        nonce: Nonce::new([1; 16]),
        issued: NOW,
        expires: NOW,
    }
}

fn doctor(user: &str) -> Claim {
    claim(user, Role::Physician, Purpose::Treatment)
}

#[test]
fn spec_x_budget_a_user_is_stopped_and_alarmed_once() {
    let rig = Rig::new();
    let grey = doctor("grey");
    let alarms: Vec<bool> = (0..100)
        .flat_map(|_| rig.spend(&grey, QUESTION_TOKENS, NOW).alarms)
        .map(|alarm| alarm.exhausted)
        .collect();
    assert_eq!(alarms, [false, true], "half, then whole, each once");
    assert!(
        rig.spend(&doctor("brown"), QUESTION_TOKENS, NOW).granted,
        "a colleague is not stopped"
    );
    let hour = NOW.plus(HOUR_MS);
    assert_eq!(
        rig.until_refused(&grey, QUESTION_TOKENS, hour),
        30,
        "an hour gives back what it gives"
    );
}

#[test]
fn spec_x_budget_a_restart_resets_nothing() {
    let mut rig = Rig::new();
    let grey = doctor("grey");
    assert_eq!(rig.until_refused(&grey, QUESTION_TOKENS, NOW), 30);
    rig.restart();
    let again = rig.spend(&grey, QUESTION_TOKENS, NOW.plus(1));
    assert!(!again.granted && again.alarms.is_empty(), "{again:?}");
}

#[test]
fn spec_x_budget_every_purpose_has_its_own() {
    let rig = Rig::new();
    let emergency = claim("grey", Role::Physician, Purpose::BreakGlass);
    assert_eq!(rig.until_refused(&doctor("grey"), QUESTION_TOKENS, NOW), 30);
    assert_eq!(
        rig.until_refused(&emergency, QUESTION_TOKENS, NOW),
        30,
        "emergencies are not used up by questions"
    );
    let research = claim("grey", Role::Physician, Purpose::Research);
    assert_eq!(rig.until_refused(&research, QUESTION_TOKENS, NOW), 10);
    // One token at a time is no cheaper than two thirds of a question.
    assert_eq!(rig.until_refused(&doctor("brown"), 1, NOW), 45);
}

#[test]
fn spec_x_budget_a_member_that_invents_users_is_stopped_as_a_whole() {
    let mut rig = Rig::new();
    let asked = |rig: &Rig| {
        (0..10_000)
            .find(|number| {
                !rig.spend(&doctor(&format!("user {number}")), QUESTION_TOKENS, NOW)
                    .granted
            })
            .unwrap()
    };
    assert_eq!(asked(&rig), 250);
    rig.restart();
    assert_eq!(asked(&rig), 0);
    let mut small = Rig::new();
    small.registry.members[1].kind = MemberKind::Clinic;
    assert_eq!(asked(&small), 50);
}

#[test]
fn spec_x_budget_publication_must_turn_up_in_the_index() {
    let rig = Rig::new();
    let publishing = claim("", Role::System, Purpose::Operations);
    assert_eq!(Use::of(&publishing), Use::Publication);
    assert_eq!(
        Use::of(&claim("grey", Role::System, Purpose::Operations)),
        Use::Other,
        "who names a user does not publish"
    );
    let guesses = rig.until_refused(&publishing, 1000, NOW);
    assert_eq!(guesses, OUTSTANDING_MAX / 1000, "guesses without records end soon");
    // All three hold everything, so that each record counts once.
    rig.held.lock().unwrap().insert(org_id(2), 10_000);
    assert_eq!(rig.until_refused(&publishing, 1000, NOW), 10);
    let mut published = 10_000;
    for _ in 0..500 {
        published += 1000;
        rig.held.lock().unwrap().insert(org_id(2), published);
        assert!(
            rig.spend(&publishing, 1000, NOW).granted,
            "an honest publication goes on"
        );
    }
    let later = NOW.plus(DAY_MS);
    assert_eq!(rig.until_refused(&publishing, 1000, later), 20);
}

proptest! {
    #[test]
    fn spec_x_budget_no_order_of_questions_gets_more_than_the_limit(
        steps in proptest::collection::vec((any::<u8>(), 0_u64..2 * HOUR_MS, 1_u64..64), 1..200)
    ) {
        let rig = Rig::new();
        let Limit { at_once, per_day } = Use::Question.of_user(&Allowance::default()).unwrap();
        let (mut now, mut granted) = (NOW, BTreeMap::<u8, u64>::new());
        for (user, wait, tokens) in steps {
            now = now.plus(wait);
            if rig.spend(&doctor(&(user % 3).to_string()), tokens, now).granted {
                *granted.entry(user % 3).or_default() += tokens;
            }
            let given = at_once + now.since(NOW) * per_day / DAY_MS + 1;
            prop_assert!(granted.values().all(|sum| *sum <= given));
        }
    }
}
