//! The field's own words: purposes of use, roles, confidentiality, sensitivity, document classes.
//!
//! Codes outside the closed sets are kept as `Unknown`, and an unknown code denies (law 2).

use serde::{Deserialize, Serialize};

macro_rules! closed_code {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $code:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name {
            $($(#[$vdoc])* $variant,)+
            /// A code that this version does not know: it always denies.
            Unknown,
        }

        impl $name {
            /// Every known code.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// Reads a code; an unknown one becomes [`Self::Unknown`].
            #[must_use]
            pub fn from_code(code: &str) -> Self {
                match code { $($code => Self::$variant,)+ _ => Self::Unknown }
            }

            /// The code as text.
            #[must_use]
            pub const fn code(self) -> &'static str {
                match self { $(Self::$variant => $code,)+ Self::Unknown => "unknown" }
            }
        }

        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.serialize_str(self.code())
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                Ok(Self::from_code(&String::deserialize(from)?))
            }
        }
    };
}

closed_code!(
    /// Purpose of use (HL7 v3 PurposeOfUse / ActReason).
    Purpose {
        /// Treatment.
        Treatment = "TREAT",
        /// Emergency treatment.
        EmergencyTreatment = "ETREAT",
        /// Break the glass.
        BreakGlass = "BTG",
        /// Health-care operations.
        Operations = "HOPERAT",
        /// Payment.
        Payment = "HPAYMT",
        /// Research.
        Research = "HRESCH",
        /// Public health.
        PublicHealth = "PUBHLTH",
        /// At the patient's request.
        PatientRequest = "PATRQT",
    }
);

closed_code!(
    /// Role of a user, as the claim names it.
    Role {
        /// Physician.
        Physician = "physician",
        /// Nurse.
        Nurse = "nurse",
        /// Pharmacist.
        Pharmacist = "pharmacist",
        /// Consent administrator.
        ConsentAdministrator = "consent-administrator",
        /// Auditor or privacy officer.
        Auditor = "auditor",
        /// IT operator.
        Operator = "operator",
        /// The patient.
        Patient = "patient",
        /// A program, for example a feed.
        System = "system",
    }
);

closed_code!(
    /// Confidentiality (HL7 v3 Confidentiality), from open to very restricted.
    Confidentiality {
        /// Unrestricted.
        Unrestricted = "U",
        /// Low.
        Low = "L",
        /// Moderate.
        Moderate = "M",
        /// Normal.
        Normal = "N",
        /// Restricted.
        Restricted = "R",
        /// Very restricted.
        VeryRestricted = "V",
    }
);

closed_code!(
    /// Sensitivity (HL7 v3 ActCode, `_InformationSensitivityPolicy`).
    Sensitivity {
        /// Substance use.
        SubstanceUse = "ETH",
        /// Alcohol use disorder.
        AlcoholUse = "ETHUD",
        /// Opioid use disorder.
        OpioidUse = "OPIOIDUD",
        /// Psychiatry.
        Psychiatry = "PSY",
        /// Psychotherapy notes.
        PsychotherapyNote = "PSYTHPN",
        /// Mental health.
        MentalHealth = "MH",
        /// Sexual health.
        SexualHealth = "SEX",
        /// Reproductive health.
        ReproductiveHealth = "SRH",
        /// Sexually transmitted disease.
        SexuallyTransmitted = "STD",
        /// HIV.
        Hiv = "HIV",
        /// Sexual and domestic violence.
        SexualDomesticViolence = "SDV",
        /// Domestic violence.
        DomesticViolence = "DV",
        /// Genetic disease.
        Genetic = "GDIS",
        /// Sickle cell.
        SickleCell = "SICKLE",
        /// Celebrity or other known person.
        Vip = "VIP",
    }
);

closed_code!(
    /// What kind of thing a document-locator record points to.
    DocumentClass {
        /// On-demand patient summary (IPS).
        Summary = "summary",
        /// Clinical note or letter.
        Note = "note",
        /// Report with or without results.
        Report = "report",
        /// Imaging study.
        Imaging = "imaging",
        /// Any other document.
        Other = "other",
    }
);
