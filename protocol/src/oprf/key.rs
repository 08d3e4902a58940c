//! Keys of the oblivious function: the dealing of a t-of-n key, the authorities' shares, and the
//! public key that every member holds.
//!
//! A share with threshold 1 is the whole key: t = 1, n = 1 is the ordinary RFC 9497 key pair.
//! A [`GroupKey`] in hand is consistent: its public shares lie on one polynomial of degree t - 1
//! whose value at zero is the group's public point.

use std::fmt;

use curve25519_dalek::{ristretto::RistrettoPoint, scalar::Scalar};
use zeroize::{Zeroize, Zeroizing};

use super::{
    ELEMENT_LEN, OprfError, SHARES_MAX,
    group::{self, Random},
};

/// Length of an encoded [`KeyShare`], in bytes: version, index, threshold, scalar.
pub const KEY_SHARE_LEN: usize = 37;

/// Length of an encoded [`PublicShare`], in bytes: index, point.
pub const PUBLIC_SHARE_LEN: usize = 34;

/// Length of an encoded [`GroupKey`] before its shares, in bytes: version, threshold, count, public.
const GROUP_HEAD_LEN: usize = 37;

/// Version byte in front of encoded shares and group keys.
const VERSION: u8 = 1;

/// One authority's secret share of the group's key.
pub struct KeyShare {
    index: u16,
    threshold: u16,
    scalar: Scalar,
}

impl KeyShare {
    /// The single key of RFC 9497 (t = 1, n = 1) from its encoded scalar, used as it is.
    ///
    /// # Errors
    /// [`OprfError::Scalar`] if the scalar is zero or not canonical.
    pub fn single(secret: &[u8; 32]) -> Result<Self, OprfError> {
        let scalar = group::scalar(secret, "the secret key")?;
        Ok(Self {
            index: 1,
            threshold: 1,
            scalar,
        })
    }

    /// The place of this share on the polynomial, from 1.
    #[must_use]
    pub fn index(&self) -> u16 {
        self.index
    }

    /// How many authorities must answer.
    #[must_use]
    pub fn threshold(&self) -> u16 {
        self.threshold
    }

    /// The public counterpart, against which this share's proofs hold.
    #[must_use]
    pub fn public(&self) -> PublicShare {
        PublicShare::of(self.index, RistrettoPoint::mul_base(&self.scalar))
    }

    /// Encodes the share: version, index, threshold (big-endian), scalar.
    #[must_use]
    pub fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        let mut out = Zeroizing::new(Vec::with_capacity(KEY_SHARE_LEN));
        out.push(VERSION);
        out.extend_from_slice(&self.index.to_be_bytes());
        out.extend_from_slice(&self.threshold.to_be_bytes());
        out.extend_from_slice(self.scalar.as_bytes());
        out
    }

    /// Decodes a share.
    ///
    /// # Errors
    /// [`OprfError::Encoding`] for a wrong length, version, index or threshold, [`OprfError::Scalar`]
    /// for a scalar that is zero or not canonical.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, OprfError> {
        let what = "the key share";
        let mut reader = Reader { what, rest: bytes };
        reader.version()?;
        let index = reader.u16()?;
        let threshold = reader.u16()?;
        let secret = Zeroizing::new(reader.take::<32>()?);
        reader.end()?;
        if index == 0 || index > SHARES_MAX || threshold == 0 || threshold > SHARES_MAX {
            return Err(OprfError::Encoding {
                what,
                reason: "index or threshold out of range",
            });
        }
        let scalar = group::scalar(&secret, "the key share's scalar")?;
        Ok(Self {
            index,
            threshold,
            scalar,
        })
    }

    /// A share from its place and scalar.
    pub(super) fn from_scalar(index: u16, threshold: u16, scalar: &Scalar) -> Result<Self, OprfError> {
        if *scalar == Scalar::ZERO {
            let what = "the key share's scalar";
            return Err(OprfError::Scalar { what });
        }
        Ok(Self {
            index,
            threshold,
            scalar: *scalar,
        })
    }

    pub(super) fn scalar(&self) -> &Scalar {
        &self.scalar
    }
}

impl Drop for KeyShare {
    fn drop(&mut self) {
        self.scalar.zeroize();
    }
}

impl fmt::Debug for KeyShare {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyShare")
            .field("index", &self.index)
            .field("threshold", &self.threshold)
            .finish_non_exhaustive()
    }
}

/// The public counterpart of one share: K_i = k_i * G.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PublicShare {
    index: u16,
    bytes: [u8; ELEMENT_LEN],
    point: RistrettoPoint,
}

impl PublicShare {
    /// Reads a public share.
    ///
    /// # Errors
    /// [`OprfError::Encoding`] for an index out of range, [`OprfError::Point`] for a malformed point.
    pub fn new(index: u16, point: &[u8; ELEMENT_LEN]) -> Result<Self, OprfError> {
        if index == 0 || index > SHARES_MAX {
            let what = "the public share";
            return Err(OprfError::Encoding {
                what,
                reason: "index out of range",
            });
        }
        let decoded = group::point(point, "the public share", usize::from(index))?;
        Ok(Self {
            index,
            bytes: *point,
            point: decoded,
        })
    }

    /// The place of the share on the polynomial, from 1.
    #[must_use]
    pub fn index(&self) -> u16 {
        self.index
    }

    /// The encoded point.
    #[must_use]
    pub fn point(&self) -> &[u8; ELEMENT_LEN] {
        &self.bytes
    }

    /// Encodes the share: index (big-endian), point.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; PUBLIC_SHARE_LEN] {
        let mut out = [0u8; PUBLIC_SHARE_LEN];
        let (index, point) = out.split_at_mut(2);
        index.copy_from_slice(&self.index.to_be_bytes());
        point.copy_from_slice(&self.bytes);
        out
    }

    /// Decodes a share.
    ///
    /// # Errors
    /// As [`PublicShare::new`], and [`OprfError::Encoding`] for a wrong length.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, OprfError> {
        let mut reader = Reader {
            what: "the public share",
            rest: bytes,
        };
        let share = reader.public_share()?;
        reader.end()?;
        Ok(share)
    }

    fn of(index: u16, point: RistrettoPoint) -> Self {
        Self {
            index,
            bytes: point.compress().to_bytes(),
            point,
        }
    }

    pub(super) fn decoded(&self) -> &RistrettoPoint {
        &self.point
    }
}

impl fmt::Debug for PublicShare {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicShare({}, {})", self.index, hex::encode(self.bytes))
    }
}

/// The group's public side: what every member needs to check the authorities' answers.
#[derive(Clone, PartialEq, Eq)]
pub struct GroupKey {
    threshold: u16,
    shares: Vec<PublicShare>,
    public: [u8; ELEMENT_LEN],
}

impl GroupKey {
    /// Builds a group key; the shares are put in the order of their indices.
    ///
    /// # Errors
    /// [`OprfError::Threshold`] for an impossible threshold, [`OprfError::Repeated`] for an index
    /// given twice, [`OprfError::Point`] for a malformed public point, [`OprfError::Inconsistent`]
    /// naming the first share that is not on the polynomial through the others.
    pub fn new(threshold: u16, mut shares: Vec<PublicShare>, public: [u8; ELEMENT_LEN]) -> Result<Self, OprfError> {
        check_threshold(threshold, shares.len())?;
        shares.sort_by_key(|share| share.index);
        for (left, right) in shares.iter().zip(shares.iter().skip(1)) {
            if left.index == right.index {
                return Err(OprfError::Repeated { index: left.index });
            }
        }
        let group_point = group::point(&public, "the group's public key", 0)?;
        let (base, others) = shares.split_at(usize::from(threshold));
        let points: Vec<(u16, RistrettoPoint)> = base.iter().map(|share| (share.index, share.point)).collect();
        if group::interpolate(&points, 0) != group_point {
            let index = base.first().map_or(0, |share| share.index);
            return Err(OprfError::Inconsistent { index });
        }
        for other in others {
            if group::interpolate(&points, other.index) != other.point {
                return Err(OprfError::Inconsistent { index: other.index });
            }
        }
        Ok(Self {
            threshold,
            shares,
            public,
        })
    }

    /// How many authorities must answer.
    #[must_use]
    pub fn threshold(&self) -> u16 {
        self.threshold
    }

    /// The public shares in the order of their indices.
    #[must_use]
    pub fn shares(&self) -> &[PublicShare] {
        &self.shares
    }

    /// The public share with this index.
    #[must_use]
    pub fn share(&self, index: u16) -> Option<&PublicShare> {
        self.shares.iter().find(|share| share.index == index)
    }

    /// The group's public key: `pkS` of RFC 9497 for the shared secret.
    #[must_use]
    pub fn public(&self) -> &[u8; ELEMENT_LEN] {
        &self.public
    }

    /// Encodes the key: version, threshold, share count (big-endian), public point, shares.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(GROUP_HEAD_LEN + self.shares.len() * PUBLIC_SHARE_LEN);
        out.push(VERSION);
        out.extend_from_slice(&self.threshold.to_be_bytes());
        let count = u16::try_from(self.shares.len()).unwrap_or(u16::MAX);
        out.extend_from_slice(&count.to_be_bytes());
        out.extend_from_slice(&self.public);
        for share in &self.shares {
            out.extend_from_slice(&share.to_bytes());
        }
        out
    }

    /// Decodes a key; only the one canonical encoding is taken.
    ///
    /// # Errors
    /// As [`GroupKey::new`], and [`OprfError::Encoding`] for a wrong length, version or order.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, OprfError> {
        let what = "the group key";
        let mut reader = Reader { what, rest: bytes };
        reader.version()?;
        let threshold = reader.u16()?;
        let count = reader.u16()?;
        check_threshold(threshold, usize::from(count))?;
        let public = reader.take::<ELEMENT_LEN>()?;
        let mut shares: Vec<PublicShare> = Vec::with_capacity(usize::from(count));
        for _ in 0..count {
            let share = reader.public_share()?;
            if shares.last().is_some_and(|last| last.index >= share.index) {
                return Err(OprfError::Encoding {
                    what,
                    reason: "shares out of order",
                });
            }
            shares.push(share);
        }
        reader.end()?;
        Self::new(threshold, shares, public)
    }
}

impl fmt::Debug for GroupKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "GroupKey({} of {}, {})",
            self.threshold,
            self.shares.len(),
            hex::encode(self.public)
        )
    }
}

/// The group's public key behind public shares, any `threshold` of them (the first are taken).
///
/// # Errors
/// [`OprfError::TooFew`] for fewer shares than the threshold.
pub fn public_key(threshold: u16, shares: &[PublicShare]) -> Result<[u8; ELEMENT_LEN], OprfError> {
    let taken = shares.get(..usize::from(threshold)).filter(|taken| !taken.is_empty());
    let taken = taken.ok_or(OprfError::TooFew {
        have: shares.len(),
        need: threshold,
    })?;
    let points: Vec<(u16, RistrettoPoint)> = taken.iter().map(|share| (share.index, share.point)).collect();
    Ok(group::interpolate(&points, 0).compress().to_bytes())
}

/// Deals a fresh key: a random polynomial of degree `threshold - 1`, one share for each of 1..=`count`.
///
/// # Errors
/// [`OprfError::Threshold`] for impossible parameters, [`OprfError::Randomness`] if the source gives zeros.
pub fn deal(threshold: u16, count: u16, random: Random<'_>) -> Result<(GroupKey, Vec<KeyShare>), OprfError> {
    check_threshold(threshold, usize::from(count))?;
    let secret = group::random_scalar(random)?;
    share_out(&secret, threshold, count, random)
}

/// Shares out an existing RFC 9497 secret key (`skS`, encoded) among `count` authorities.
///
/// # Errors
/// As [`deal`], and [`OprfError::Scalar`] for a secret that is zero or not canonical.
pub fn deal_secret(
    secret: &[u8; 32],
    threshold: u16,
    count: u16,
    random: Random<'_>,
) -> Result<(GroupKey, Vec<KeyShare>), OprfError> {
    check_threshold(threshold, usize::from(count))?;
    let secret = Zeroizing::new(group::scalar(secret, "the secret key")?);
    share_out(&secret, threshold, count, random)
}

fn share_out(
    secret: &Scalar,
    threshold: u16,
    count: u16,
    random: Random<'_>,
) -> Result<(GroupKey, Vec<KeyShare>), OprfError> {
    let mut coefficients = vec![Zeroizing::new(*secret)];
    for _ in 1..threshold {
        coefficients.push(group::random_scalar(random)?);
    }
    let mut shares = Vec::with_capacity(usize::from(count));
    for index in 1..=count {
        let x = Scalar::from(index);
        let mut value = Zeroizing::new(Scalar::ZERO);
        for coefficient in coefficients.iter().rev() {
            *value = *value * x + **coefficient;
        }
        if *value == Scalar::ZERO {
            return Err(OprfError::Randomness);
        }
        shares.push(KeyShare {
            index,
            threshold,
            scalar: *value,
        });
    }
    let public = RistrettoPoint::mul_base(secret).compress().to_bytes();
    let group = GroupKey::new(threshold, shares.iter().map(KeyShare::public).collect(), public)?;
    Ok((group, shares))
}

pub(super) fn check_threshold(threshold: u16, count: usize) -> Result<(), OprfError> {
    if threshold == 0 || usize::from(threshold) > count || count > usize::from(SHARES_MAX) {
        return Err(OprfError::Threshold { threshold, count });
    }
    Ok(())
}

/// Reads fixed-size fields from the front; every length is checked against the bytes present.
struct Reader<'a> {
    what: &'static str,
    rest: &'a [u8],
}

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], OprfError> {
        let (field, rest) = self.rest.split_first_chunk::<N>().ok_or(OprfError::Encoding {
            what: self.what,
            reason: "cut short",
        })?;
        self.rest = rest;
        Ok(*field)
    }

    fn u16(&mut self) -> Result<u16, OprfError> {
        self.take::<2>().map(u16::from_be_bytes)
    }

    fn version(&mut self) -> Result<(), OprfError> {
        if self.take::<1>()? == [VERSION] {
            return Ok(());
        }
        Err(OprfError::Encoding {
            what: self.what,
            reason: "unknown version",
        })
    }

    fn public_share(&mut self) -> Result<PublicShare, OprfError> {
        let index = self.u16()?;
        let point = self.take::<ELEMENT_LEN>()?;
        PublicShare::new(index, &point)
    }

    fn end(&self) -> Result<(), OprfError> {
        if self.rest.is_empty() {
            return Ok(());
        }
        Err(OprfError::Encoding {
            what: self.what,
            reason: "bytes left over",
        })
    }
}
