#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use super::{Approval, Handed, Held, Verdict, key_name};
use crate::bytes::Bytes;
use crate::id::{Millis, NodeKey, PublicKey, Signature};
use crate::registry::{MemberRole, Officer, Officers, Registry, RegistryError, Standing};
use crate::sign::Signer;
use crate::sign::tests::TestKey;
use crate::vectors::registry;

/// An officer's key: it signs under its true name.
struct OfficerKey(TestKey);

impl Signer for OfficerKey {
    fn node(&self) -> NodeKey {
        key_name(&self.0.public())
    }

    fn sign(&self, message: &[u8]) -> Signature {
        self.0.sign(message)
    }
}

fn officer(seed: u8) -> OfficerKey {
    OfficerKey(TestKey::new(seed))
}

fn officers(seeds: &[u8], approvals: u8) -> Officers {
    Officers {
        approvals,
        officers: seeds
            .iter()
            .map(|seed| Officer {
                name: format!("Officer {seed}"),
                public: TestKey::new(*seed).public(),
            })
            .collect(),
    }
}

/// A region whose three officers approve two by two.
fn chartered() -> Registry {
    let mut registry = registry();
    registry.policy.officers = Some(officers(&[11, 12, 13], 2));
    registry
}

fn next(of: &Registry) -> Registry {
    let mut next = of.clone();
    next.version += 1;
    next.issued = Millis(next.issued.0 + 1000);
    next
}

fn authority() -> PublicKey {
    TestKey::new(1).public()
}

fn handed(registry: &Registry, approvals: Vec<Bytes>) -> Handed {
    Handed {
        signed: Bytes(registry.sign(&TestKey::new(1)).unwrap()),
        approvals,
    }
}

fn approve(registry: &Registry, from: u64, seeds: &[u8]) -> Vec<Bytes> {
    let approval = Approval {
        region: registry.region.clone(),
        charter: registry.charter().unwrap(),
        from,
    };
    let signed = seeds.iter().map(|seed| approval.sign(&officer(*seed)).unwrap());
    signed.map(Bytes).collect()
}

fn judge(held: &Registry, floor: u64, offered: &Handed) -> Result<Verdict, RegistryError> {
    Held { registry: held, floor }.judge(offered, authority())
}

fn floor_of(verdict: Verdict) -> u64 {
    match verdict {
        Verdict::Newer { floor, .. } => floor,
        Verdict::Same => 0,
    }
}

#[test]
fn spec_p_charter_a_grant_needs_the_officers_in_force() {
    let held = chartered();
    let mut grant = next(&held);
    grant.members[0].roles.push(MemberRole::Witness);
    let unapproved = |have| Err(RegistryError::Unapproved { have, need: 2 });
    assert_eq!(judge(&held, 0, &handed(&grant, vec![])), unapproved(0));
    assert_eq!(
        judge(&held, 0, &handed(&grant, approve(&grant, 8, &[11]))),
        unapproved(1)
    );
    // The same officer twice, a stranger, another charter, a later version.
    for approvals in [
        approve(&grant, 8, &[11, 11]),
        approve(&grant, 8, &[11, 14]),
        [approve(&grant, 8, &[11]), approve(&held, 8, &[12])].concat(),
        [approve(&grant, 8, &[11]), approve(&grant, 9, &[12])].concat(),
    ] {
        assert_eq!(judge(&held, 0, &handed(&grant, approvals)), unapproved(1));
    }
    let taken = judge(&held, 0, &handed(&grant, approve(&grant, 8, &[13, 11]))).unwrap();
    assert_eq!(floor_of(taken), 8);
    // A flipped bit in an approval makes it count for nothing.
    let mut flipped = approve(&grant, 8, &[11, 12]);
    flipped[1].0[40] ^= 1;
    assert_eq!(judge(&held, 0, &handed(&grant, flipped)), unapproved(1));
}

#[test]
fn spec_p_charter_what_is_taken_away_needs_no_officer_and_an_old_charter_does_not_return() {
    let first = chartered();
    let mut fallen = next(&first);
    fallen.members[1].standing = Standing::Suspended(Millis(5));
    fallen.crl = vec![9];
    assert!(matches!(
        judge(&first, 0, &handed(&fallen, vec![])),
        Ok(Verdict::Newer { .. })
    ));
    let mut second = next(&fallen);
    second.members[0].roles.push(MemberRole::Witness);
    let verdict = judge(&fallen, 0, &handed(&second, approve(&second, 9, &[11, 12]))).unwrap();
    let floor = floor_of(verdict);
    // The office alone brings the first charter back with approvals that it once had.
    let mut again = next(&second);
    again.members[0].roles.pop();
    let old = approve(&again, 9, &[11, 12]);
    let refused = judge(&second, floor, &handed(&again, old));
    assert_eq!(refused, Err(RegistryError::Unapproved { have: 0, need: 2 }));
    assert!(judge(&second, floor, &handed(&again, approve(&again, 10, &[11, 12]))).is_ok());
}

#[test]
fn spec_p_charter_officers_hand_over_to_officers() {
    let held = chartered();
    let mut over = next(&held);
    over.policy.officers = Some(officers(&[21, 22], 2));
    let by_the_new = handed(&over, approve(&over, 8, &[21, 22]));
    assert!(matches!(
        judge(&held, 0, &by_the_new),
        Err(RegistryError::Unapproved { have: 0, .. })
    ));
    let verdict = judge(&held, 0, &handed(&over, approve(&over, 8, &[11, 12]))).unwrap();
    assert!(matches!(verdict, Verdict::Newer { hand_over: true, .. }));
    // Who missed the hand-over cannot take what the new officers approved before it has taken the hand-over.
    let mut later = next(&over);
    later.members[0].phone = Some("555-0142".into());
    let later_handed = handed(&later, approve(&later, 9, &[21, 22]));
    assert!(judge(&held, 0, &later_handed).is_err());
    assert!(judge(&over, 8, &later_handed).is_ok());
    // The officers are part of what they guard.
    let mut without = next(&over);
    without.policy.officers = None;
    assert!(judge(&over, 8, &handed(&without, vec![])).is_err());
}

#[test]
fn spec_p_reg_neither_version_nor_time_goes_back_and_no_version_has_two_contents() {
    let held = registry();
    assert_eq!(judge(&held, 0, &handed(&held, vec![])), Ok(Verdict::Same));
    let mut older = held.clone();
    older.version = 6;
    let rollback = Err(RegistryError::Rollback { offered: 6, held: 7 });
    assert_eq!(judge(&held, 0, &handed(&older, vec![])), rollback);
    let mut other = held.clone();
    other.crl = vec![9];
    let twice = Err(RegistryError::Equivocation { version: 7 });
    assert_eq!(judge(&held, 0, &handed(&other, vec![])), twice);
    let mut backdated = next(&held);
    backdated.issued = Millis(held.issued.0 - 1);
    assert_eq!(
        judge(&held, 0, &handed(&backdated, vec![])),
        Err(RegistryError::Backdated)
    );
    let mut foreign = next(&held);
    foreign.region = "Elsewhere".into();
    assert!(matches!(
        judge(&held, 0, &handed(&foreign, vec![])),
        Err(RegistryError::Rule(_))
    ));
}

#[test]
fn spec_p_suspend_a_standing_only_falls_within_a_term() {
    let stand = |standing, term| {
        let mut registry = registry();
        registry.members[0].standing = standing;
        registry.members[0].term = term;
        registry
    };
    let (early, late) = (Millis(5), Millis(6));
    let (active, out) = (Standing::Active, Standing::Suspended(early));
    for (from, to, term, good) in [
        (active, out, 0, true),
        (active, Standing::Revoked(late), 0, true),
        (out, Standing::Revoked(late), 0, true),
        (out, Standing::Suspended(early), 0, true),
        (out, Standing::Suspended(late), 0, false),
        (out, active, 0, false),
        (out, active, 1, true),
        (Standing::Revoked(early), active, 0, false),
        (Standing::Revoked(early), Standing::Suspended(early), 0, false),
        (Standing::Revoked(early), Standing::Revoked(late), 0, false),
        (Standing::Revoked(early), active, 1, true),
    ] {
        let verdict = judge(&stand(from, 0), 0, &handed(&next(&stand(to, term)), vec![]));
        assert_eq!(verdict.is_ok(), good, "{from:?} to {to:?}, term {term}");
    }
    let falls_back = judge(&stand(active, 3), 0, &handed(&next(&stand(active, 2)), vec![]));
    assert!(matches!(falls_back, Err(RegistryError::Returned(_))));
}
