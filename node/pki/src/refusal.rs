//! Why a certificate is refused, in one closed list that both sides of a handshake can log.
//!
//! The side that judges knows the reason. The side that is refused learns it from the TLS alert (RFC 8446 §6.2), or,
//! when the judging came after the handshake, from the verdict byte that the acceptor sends first on a new channel:
//!
//! ```text
//! dialler                                acceptor
//!   TLS 1.3, both certificates  <------>   judged by each side, alert on refusal
//!        <---------------------------     verdict: 0 accepted, else a refusal code, then close
//!   the channel is up only now
//! ```

use rustls::{AlertDescription, CertificateError, Error as TlsError, OtherError};

use hie_protocol::id::Millis;

use crate::x509::Facts;

/// Verdict byte of an accepted channel.
pub const ACCEPTED: u8 = 0;

/// Why a certificate is refused (SPEC P-TLS).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum CertificateRefusal {
    /// Issued by another authority.
    #[error("the certificate was issued by another authority than the region's")]
    ForeignAuthority,
    /// Issued by itself.
    #[error("the certificate is self-signed")]
    SelfSigned,
    /// Past its end.
    #[error("the certificate has expired")]
    Expired,
    /// Before its start.
    #[error("the certificate is not valid yet")]
    NotYetValid,
    /// On the revocation list.
    #[error("the certificate is revoked")]
    Revoked,
    /// The key belongs to no member.
    #[error("the key is not in the region's registry")]
    NotInRegistry,
    /// The member takes no part any more.
    #[error("the member is suspended in the region's registry")]
    Suspended,
    /// Broken or not of the region's profile.
    #[error("the certificate is malformed or not of the region's profile")]
    Malformed,
    /// The judging side has no revocation list in force.
    #[error("the revocation list of the judging node is missing or out of date")]
    StaleCrl,
    /// None was presented.
    #[error("no certificate was presented")]
    Missing,
}

impl CertificateRefusal {
    /// Every refusal.
    pub const ALL: [Self; 10] = [
        Self::ForeignAuthority,
        Self::SelfSigned,
        Self::Expired,
        Self::NotYetValid,
        Self::Revoked,
        Self::NotInRegistry,
        Self::Suspended,
        Self::Malformed,
        Self::StaleCrl,
        Self::Missing,
    ];

    /// The verdict byte.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::ForeignAuthority => 1,
            Self::SelfSigned => 2,
            Self::Expired => 3,
            Self::NotYetValid => 4,
            Self::Revoked => 5,
            Self::NotInRegistry => 6,
            Self::Suspended => 7,
            Self::Malformed => 8,
            Self::StaleCrl => 9,
            Self::Missing => 10,
        }
    }

    /// Reads a verdict byte; none for [`ACCEPTED`] and unknown codes.
    #[must_use]
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|refusal| refusal.code() == code)
    }

    /// A closed word for logs and metrics.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::ForeignAuthority => "foreign-authority",
            Self::SelfSigned => "self-signed",
            Self::Expired => "expired",
            Self::NotYetValid => "not-yet-valid",
            Self::Revoked => "revoked",
            Self::NotInRegistry => "not-in-registry",
            Self::Suspended => "suspended",
            Self::Malformed => "malformed",
            Self::StaleCrl => "stale-crl",
            Self::Missing => "missing",
        }
    }

    /// The refusal as rustls carries it: each maps to one alert, and back in [`Refused::read`].
    pub(crate) fn to_tls(self) -> TlsError {
        let error = match self {
            Self::ForeignAuthority => CertificateError::UnknownIssuer,
            Self::SelfSigned => CertificateError::InvalidPurpose,
            Self::Expired => CertificateError::Expired,
            Self::NotYetValid => CertificateError::NotValidYet,
            Self::Revoked => CertificateError::Revoked,
            Self::Suspended => CertificateError::ApplicationVerificationFailure,
            Self::Malformed => CertificateError::BadEncoding,
            Self::StaleCrl => CertificateError::InvalidOcspResponse,
            Self::NotInRegistry | Self::Missing => CertificateError::Other(OtherError(std::sync::Arc::new(self))),
        };
        TlsError::InvalidCertificate(error)
    }

    fn of_judgement(error: &TlsError) -> Option<Self> {
        match error {
            TlsError::NoCertificatesPresented => Some(Self::Missing),
            TlsError::InvalidCertificate(error) => Some(match error {
                CertificateError::UnknownIssuer => Self::ForeignAuthority,
                CertificateError::InvalidPurpose => Self::SelfSigned,
                CertificateError::Expired => Self::Expired,
                CertificateError::NotValidYet => Self::NotYetValid,
                CertificateError::Revoked => Self::Revoked,
                CertificateError::ApplicationVerificationFailure => Self::Suspended,
                CertificateError::InvalidOcspResponse => Self::StaleCrl,
                CertificateError::Other(other) => other.0.downcast_ref().copied().unwrap_or(Self::Malformed),
                _ => Self::Malformed,
            }),
            _ => None,
        }
    }

    /// Reads an alert. `certificate_expired` means "expired or not currently valid" (RFC 8446 §6.2): the bound of the
    /// own validity that is nearer to the own clock is the one that the other clock is beyond.
    fn of_alert(alert: AlertDescription, own: &Facts, now: Millis) -> Option<Self> {
        Some(match alert {
            AlertDescription::UnknownCA => Self::ForeignAuthority,
            AlertDescription::UnsupportedCertificate => Self::SelfSigned,
            AlertDescription::CertificateExpired => {
                let to_start = now.0.abs_diff(own.not_before.0);
                let to_end = now.0.abs_diff(own.not_after.0);
                if to_start < to_end {
                    Self::NotYetValid
                } else {
                    Self::Expired
                }
            }
            AlertDescription::CertificateRevoked => Self::Revoked,
            AlertDescription::CertificateUnknown => Self::NotInRegistry,
            AlertDescription::AccessDenied => Self::Suspended,
            AlertDescription::BadCertificate | AlertDescription::DecryptError => Self::Malformed,
            AlertDescription::BadCertificateStatusResponse => Self::StaleCrl,
            AlertDescription::CertificateRequired | AlertDescription::NoCertificate => Self::Missing,
            _ => return None,
        })
    }
}

/// A failed handshake that was a refusal, and who refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// This side refused the other's certificate.
    #[error("this node refused the other side: {0}")]
    Theirs(CertificateRefusal),
    /// The other side refused this node's certificate.
    #[error("the other side refused this node: {0}")]
    Ours(CertificateRefusal),
}

impl Refused {
    /// Reads a failed handshake; none when it failed for another reason than a certificate. `own` and `now` settle
    /// which bound of the own validity an alert means.
    #[must_use]
    pub fn read(error: &TlsError, own: &Facts, now: Millis) -> Option<Self> {
        match error {
            TlsError::AlertReceived(alert) => CertificateRefusal::of_alert(*alert, own, now).map(Self::Ours),
            other => CertificateRefusal::of_judgement(other).map(Self::Theirs),
        }
    }

    /// Reads the TLS error inside an IO error, as the stream adaptors report it.
    #[must_use]
    pub fn read_io(error: &std::io::Error, own: &Facts, now: Millis) -> Option<Self> {
        let inner = error.get_ref()?.downcast_ref::<TlsError>()?;
        Self::read(inner, own, now)
    }

    /// The reason.
    #[must_use]
    pub const fn reason(self) -> CertificateRefusal {
        match self {
            Self::Theirs(reason) | Self::Ours(reason) => reason,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]

    use rustls::{AlertDescription, Error as TlsError};

    use hie_protocol::id::{Millis, NodeKey};

    use super::{ACCEPTED, CertificateRefusal, Refused};
    use crate::x509::Facts;

    fn own() -> Facts {
        Facts {
            node: NodeKey::new([0; 32]),
            public: None,
            org: None,
            authority: false,
            not_before: Millis(1_000),
            not_after: Millis(9_000),
            serial: Vec::new(),
            self_issued: false,
        }
    }

    #[test]
    fn spec_p_tls_each_refusal_has_its_code_and_reaches_the_other_side() {
        for refusal in CertificateRefusal::ALL {
            assert_ne!(refusal.code(), ACCEPTED);
            assert_eq!(CertificateRefusal::from_code(refusal.code()), Some(refusal));
            let error = refusal.to_tls();
            assert_eq!(Refused::read(&error, &own(), Millis(0)), Some(Refused::Theirs(refusal)));
            if refusal == CertificateRefusal::Missing {
                continue;
            }
            let TlsError::InvalidCertificate(inner) = error else {
                panic!("{refusal}")
            };
            let now = if refusal == CertificateRefusal::NotYetValid {
                Millis(1_500)
            } else {
                Millis(8_800)
            };
            let alert: AlertDescription = inner.into();
            let heard = Refused::read(&TlsError::AlertReceived(alert), &own(), now);
            assert_eq!(heard, Some(Refused::Ours(refusal)), "{alert:?}");
        }
        assert_eq!(CertificateRefusal::from_code(ACCEPTED), None);
        assert_eq!(CertificateRefusal::from_code(200), None);
    }

    #[test]
    fn a_failure_that_is_no_refusal_stays_one() {
        let internal = TlsError::AlertReceived(AlertDescription::InternalError);
        assert_eq!(Refused::read(&internal, &own(), Millis(0)), None);
        assert_eq!(Refused::read(&TlsError::DecryptError, &own(), Millis(0)), None);
        let missing = TlsError::NoCertificatesPresented;
        let refused = Refused::read(&missing, &own(), Millis(0)).unwrap();
        assert_eq!(refused.reason(), CertificateRefusal::Missing);
    }
}
