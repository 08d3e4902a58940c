//! Passing a key on to other authorities: the same key, new shares, and nobody ever holds the whole.
//!
//! ```text
//!  dealer i (each of a threshold of the old)              seat j (each of the new)
//!  f_i(x) = k_i + a_1 x + .. + a_(t'-1) x^(t'-1)
//!  commitments a_k*G, part f_i(j)      -- sealed channel -->   accept: part and commitments fit, f_i(0)*G = K_i
//!                                                              take: k'_j = sum l_i * f_i(j)
//! ```
//!
//! The coefficients are derived from the dealer's share and the description of the resharing, so that all seats get
//! points of one polynomial and a part that was lost is dealt again the same. A dealer whose part does not fit is
//! named by its index. Shares of different resharings lie on different polynomials: they do not combine.

use std::fmt;

use curve25519_dalek::{ristretto::RistrettoPoint, scalar::Scalar, traits::VartimeMultiscalarMul};
use ring::hmac;
use zeroize::{Zeroize, Zeroizing};

use super::{
    OprfError, SHARES_MAX, group,
    key::{KeyShare, PublicShare, check_threshold},
};
use crate::{cbor, registry::Resharing};

/// Separates the derivation of coefficients from every other use of a share.
const DOMAIN: &[u8] = b"hie reshare v1";

/// One resharing: who deals, who sits where, under which threshold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    context: Vec<u8>,
    threshold: u16,
    dealers: Vec<u16>,
    seats: Vec<u16>,
}

impl Plan {
    /// The plan that the registry describes for the key of `epoch`.
    ///
    /// # Errors
    /// [`OprfError::Threshold`] for an impossible threshold, [`OprfError::Dealers`] for dealers or seats that are
    /// out of order, out of range or there twice.
    pub fn new(epoch: u32, resharing: &Resharing) -> Result<Self, OprfError> {
        check_threshold(resharing.threshold, resharing.seats.len())?;
        let seats: Vec<u16> = resharing.seats.iter().map(|seat| seat.index).collect();
        let ordered = |indices: &[u16]| {
            indices.is_sorted_by(|left, right| left < right)
                && indices.iter().all(|index| (1..=SHARES_MAX).contains(index))
        };
        if resharing.dealers.is_empty() || !ordered(&resharing.dealers) || !ordered(&seats) {
            return Err(OprfError::Dealers);
        }
        let context = cbor::encode(&(epoch, resharing)).map_err(|_| OprfError::Dealers)?;
        Ok(Self {
            context,
            threshold: resharing.threshold,
            dealers: resharing.dealers.clone(),
            seats,
        })
    }

    /// Indices of the dealers.
    #[must_use]
    pub fn dealers(&self) -> &[u16] {
        &self.dealers
    }

    /// How many of the new shares are needed.
    #[must_use]
    pub fn threshold(&self) -> u16 {
        self.threshold
    }

    /// Coefficients of a dealer's polynomial, the share itself first.
    fn polynomial(&self, share: &KeyShare) -> Vec<Zeroizing<Scalar>> {
        let key = hmac::Key::new(hmac::HMAC_SHA512, share.scalar().as_bytes());
        let derived = (1..self.threshold).map(|power| {
            let mut mac = hmac::Context::with_key(&key);
            mac.update(DOMAIN);
            mac.update(&power.to_be_bytes());
            mac.update(&share.index().to_be_bytes());
            mac.update(&self.context);
            let mut wide = Zeroizing::new([0_u8; 64]);
            for (to, from) in wide.iter_mut().zip(mac.sign().as_ref()) {
                *to = *from;
            }
            Zeroizing::new(Scalar::from_bytes_mod_order_wide(&wide))
        });
        core::iter::once(Zeroizing::new(*share.scalar()))
            .chain(derived)
            .collect()
    }
}

/// What a dealer gives to one seat.
#[derive(Clone, PartialEq, Eq)]
pub struct Part {
    /// Commitments to the coefficients: encoded points, the dealer's public share first.
    pub commitments: Vec<[u8; 32]>,
    /// Value of the polynomial at the seat: an encoded scalar.
    pub value: [u8; 32],
}

impl Drop for Part {
    fn drop(&mut self) {
        self.value.zeroize();
    }
}

impl fmt::Debug for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Part({} commitments)", self.commitments.len())
    }
}

/// Deals one seat its part, the same whenever it is asked.
///
/// # Errors
/// [`OprfError::Dealers`] if this share does not deal or the seat is none of the plan's.
pub fn deal(plan: &Plan, share: &KeyShare, seat: u16) -> Result<Part, OprfError> {
    if !plan.dealers.contains(&share.index()) || !plan.seats.contains(&seat) {
        return Err(OprfError::Dealers);
    }
    let coefficients = plan.polynomial(share);
    let x = Scalar::from(seat);
    let mut value = Zeroizing::new(Scalar::ZERO);
    for coefficient in coefficients.iter().rev() {
        *value = *value * x + **coefficient;
    }
    let commitments = coefficients
        .iter()
        .map(|coefficient| RistrettoPoint::mul_base(coefficient).compress().to_bytes());
    Ok(Part {
        commitments: commitments.collect(),
        value: value.to_bytes(),
    })
}

/// A part that fits the dealer's published share.
pub struct Accepted {
    dealer: u16,
    value: Zeroizing<Scalar>,
}

impl fmt::Debug for Accepted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Accepted(from {})", self.dealer)
    }
}

/// Checks a part against the dealer's published share (Feldman).
///
/// # Errors
/// [`OprfError::Dealer`] naming the dealer.
pub fn accept(plan: &Plan, seat: u16, dealer: &PublicShare, part: &Part) -> Result<Accepted, OprfError> {
    let lie = OprfError::Dealer { dealer: dealer.index() };
    if part.commitments.len() != usize::from(plan.threshold) || part.commitments.first() != Some(dealer.point()) {
        return Err(lie);
    }
    let value = Option::<Scalar>::from(Scalar::from_canonical_bytes(part.value)).ok_or(lie.clone())?;
    let value = Zeroizing::new(value);
    let mut points = Vec::with_capacity(part.commitments.len());
    let mut powers = Vec::with_capacity(part.commitments.len());
    let mut power = Scalar::ONE;
    for commitment in &part.commitments {
        points.push(group::point(commitment, "a commitment", 0).map_err(|_| lie.clone())?);
        powers.push(power);
        power *= Scalar::from(seat);
    }
    if RistrettoPoint::vartime_multiscalar_mul(&powers, &points) != RistrettoPoint::mul_base(&value) {
        return Err(lie);
    }
    Ok(Accepted {
        dealer: dealer.index(),
        value,
    })
}

/// The new share of a seat from one accepted part of every dealer.
///
/// # Errors
/// [`OprfError::Dealers`] unless there is exactly one part of each dealer; [`OprfError::Scalar`] if the share is zero.
pub fn take(plan: &Plan, seat: u16, parts: &[Accepted]) -> Result<KeyShare, OprfError> {
    let mut from: Vec<u16> = parts.iter().map(|part| part.dealer).collect();
    from.sort_unstable();
    if from != plan.dealers || !plan.seats.contains(&seat) {
        return Err(OprfError::Dealers);
    }
    let mut scalar = Zeroizing::new(Scalar::ZERO);
    for part in parts {
        *scalar += group::lagrange(part.dealer, &plan.dealers, 0) * *part.value;
    }
    KeyShare::from_scalar(seat, plan.threshold, &scalar)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

    use proptest::prelude::{Strategy, any, prop_assert, prop_assert_eq, proptest};

    use super::{Accepted, Plan, accept, deal, take};
    use crate::id::OrgId;
    use crate::oprf::client::{Blinding, Verified, combine};
    use crate::oprf::key::{GroupKey, KeyShare, deal as deal_key};
    use crate::oprf::server::evaluate;
    use crate::oprf::tests::stream;
    use crate::oprf::{OUTPUT_LEN, OprfError};
    use crate::registry::{Resharing, ShareSeat};

    fn plan(generation: u32, threshold: u16, dealers: &[u16], seats: &[u16]) -> Plan {
        let seats = seats.iter().map(|index| ShareSeat {
            index: *index,
            org: OrgId::parse(&format!("urn:oid:2.999.{index}")).unwrap(),
        });
        let resharing = Resharing {
            generation,
            threshold,
            dealers: dealers.to_vec(),
            seats: seats.collect(),
        };
        Plan::new(1, &resharing).unwrap()
    }

    fn pass_on(plan: &Plan, old: &[KeyShare]) -> Vec<KeyShare> {
        let dealers: Vec<&KeyShare> = old
            .iter()
            .filter(|share| plan.dealers().contains(&share.index()))
            .collect();
        plan.seats
            .iter()
            .map(|seat| {
                let parts: Vec<Accepted> = dealers
                    .iter()
                    .map(|dealer| accept(plan, *seat, &dealer.public(), &deal(plan, dealer, *seat).unwrap()).unwrap())
                    .collect();
                take(plan, *seat, &parts).unwrap()
            })
            .collect()
    }

    fn outputs(shares: &[&KeyShare], threshold: u16, seed: u64) -> [u8; OUTPUT_LEN] {
        let mut random = stream(seed);
        let (blinding, blinded) = Blinding::new(&[b"input"], &mut random).unwrap();
        let verified: Vec<Verified> = shares
            .iter()
            .map(|share| {
                let answer = evaluate(share, &blinded, &mut random).unwrap();
                blinding.verify(&share.public(), &answer).unwrap()
            })
            .collect();
        *blinding.finalize(&combine(threshold, &verified).unwrap()).unwrap()[0]
    }

    fn sizes() -> impl Strategy<Value = (u16, u16, u16, u16)> {
        (1_u16..5, 0_u16..3, 1_u16..5, 0_u16..3).prop_map(|(t, more, t2, more2)| (t, t + more, t2, t2 + more2))
    }

    proptest! {
        #[test]
        fn spec_m_reshare_the_outputs_stay_the_same(seed in any::<u64>(), (t, n, t2, n2) in sizes()) {
            let (group, old) = deal_key(t, n, &mut stream(seed)).unwrap();
            let dealers: Vec<u16> = (n - t + 1..=n).collect();
            let seats: Vec<u16> = (n + 1..=n + n2).collect();
            let plan = plan(1, t2, &dealers, &seats);
            let new = pass_on(&plan, &old);
            let points = new.iter().map(KeyShare::public).collect();
            prop_assert!(GroupKey::new(t2, points, *group.public()).is_ok(), "one polynomial, the same key");
            let before = outputs(&old.iter().take(t.into()).collect::<Vec<_>>(), t, seed);
            let after = outputs(&new.iter().rev().take(t2.into()).collect::<Vec<_>>(), t2, seed ^ 1);
            prop_assert_eq!(before, after);
            // Dealt again, the same part.
            let dealer = old.iter().find(|share| share.index() == dealers[0]).unwrap();
            prop_assert_eq!(deal(&plan, dealer, seats[0]).unwrap(), deal(&plan, dealer, seats[0]).unwrap());
        }

        #[test]
        fn spec_m_reshare_shares_of_different_sharings_do_not_combine(seed in any::<u64>(), t in 2_u16..5) {
            let (_, old) = deal_key(t, t + 1, &mut stream(seed)).unwrap();
            let dealers: Vec<u16> = (1..=t).collect();
            let seats: Vec<u16> = (t + 2..=2 * t + 2).collect();
            let new = pass_on(&plan(1, t, &dealers, &seats), &old);
            let again = pass_on(&plan(2, t, &dealers, &seats), &old);
            let truth = outputs(&old.iter().take(t.into()).collect::<Vec<_>>(), t, seed);
            let fewer = usize::from(t) - 1;
            for other in [&old, &again] {
                let mixed: Vec<&KeyShare> = new.iter().take(fewer).chain(other.last()).collect();
                prop_assert!(outputs(&mixed, t, seed) != truth, "t - 1 new shares and one of another sharing");
            }
            let fewer_new: Vec<&KeyShare> = new.iter().take(fewer).collect();
            prop_assert!(outputs(&fewer_new, t - 1, seed) != truth, "t - 1 shares alone");
        }

        #[test]
        fn spec_m_reshare_a_lying_dealer_is_named(seed in any::<u64>(), lie in 0_usize..5, t2 in 2_u16..4) {
            let (_, old) = deal_key(3, 5, &mut stream(seed)).unwrap();
            let plan = plan(7, t2, &[1, 3, 5], &[6, 7, 8]);
            let dealer = &old[2];
            let mut part = deal(&plan, dealer, 7).unwrap();
            match lie {
                // The part of another seat.
                0 => part.value = deal(&plan, dealer, 8).unwrap().value,
                // Another polynomial than the one committed to.
                1 => part.commitments[1] = deal(&plan, &old[0], 7).unwrap().commitments[1],
                // Another key than the one published.
                2 => part = deal(&plan, &old[0], 7).unwrap(),
                3 => part.value = [0xff; 32],
                _ => { part.commitments.pop(); }
            }
            prop_assert_eq!(accept(&plan, 7, &dealer.public(), &part).unwrap_err(), OprfError::Dealer { dealer: 3 });
        }
    }

    #[test]
    fn only_dealers_and_seats_of_the_plan_take_part() {
        let (_, old) = deal_key(2, 3, &mut stream(1)).unwrap();
        let plan = plan(1, 2, &[1, 2], &[4, 5, 6]);
        assert_eq!(deal(&plan, &old[2], 4), Err(OprfError::Dealers));
        assert_eq!(deal(&plan, &old[0], 3), Err(OprfError::Dealers));
        let one = || accept(&plan, 4, &old[0].public(), &deal(&plan, &old[0], 4).unwrap()).unwrap();
        assert_eq!(take(&plan, 4, &[one()]).unwrap_err(), OprfError::Dealers);
        assert_eq!(take(&plan, 4, &[one(), one()]).unwrap_err(), OprfError::Dealers);
    }
}
