//! Every table of the node, in one place: what it holds, how its keys are laid out, who may read its values.
//!
//! A table is one leading byte of the key space; numbers are forever. Keys are big-endian, so that the order
//! of bytes is the order of numbers. Keys carry random ids and keyed hashes ([`crate::vault::Vault::blind_key`]),
//! never personal data.

/// How a table's values are kept from somebody who has the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sealing {
    /// Sealed with the node's key.
    Node,
    /// Sealed with the patient's key: erased with it.
    Patient,
    /// Public by nature or sealed by its owner: signed records, hashes, counters, wrapped keys.
    Open,
}

macro_rules! tables {
    ($($(#[$doc:meta])* $variant:ident = $tag:literal, $name:literal, $sealing:ident, $keys:literal;)+) => {
        /// A table.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum Table {
            $($(#[$doc])* #[doc = concat!("Key: ", $keys, ".")] $variant = $tag,)+
        }

        impl Table {
            /// Every table.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// Leading byte of its keys; never reused.
            #[must_use]
            pub const fn tag(self) -> u8 {
                match self { $(Self::$variant => $tag),+ }
            }

            /// Name, for operators.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),+ }
            }

            /// How values are sealed.
            #[must_use]
            pub const fn sealing(self) -> Sealing {
                match self { $(Self::$variant => Sealing::$sealing),+ }
            }

            /// Layout of keys.
            #[must_use]
            pub const fn keys(self) -> &'static str {
                match self { $(Self::$variant => $keys),+ }
            }
        }
    };
}

tables! {
    /// Wrapped data keys, and the marks of erased ones.
    Keys = 1, "keys", Open, "0x00 (the node) or 0x01 patient 16";
    /// Durable counters and single values of the node.
    Meta = 2, "meta", Open, "name of the value as text";
    /// Durable counters: index sequence and the like.
    Sequences = 3, "sequences", Open, "name of the counter as text";
    /// The signed registry, by version.
    Registry = 4, "registry", Open, "version 8";

    /// Patients.
    Patients = 10, "patients", Patient, "patient 16";
    /// Business identifiers to patients.
    PatientIdentifiers = 11, "patient-identifiers", Node, "blind(system, value) 16, patient 16";
    /// Blocking keys to patients.
    PatientBlocks = 12, "patient-blocks", Node, "blind(block) 16, patient 16";
    /// Links and refusals to link between patients.
    Links = 13, "links", Node, "patient 16, other patient 16";
    /// Pairs that a human must review.
    LinkReviews = 14, "link-reviews", Node, "review 16";
    /// Encounters that are evidence of treatment.
    Encounters = 15, "encounters", Patient, "patient 16, blind(encounter) 16";
    /// Control ids of messages already taken in, so that a repeated message changes nothing.
    MessagesSeen = 16, "messages-seen", Node, "blind(sender, control id) 16";

    /// Source records to patients.
    PatientSources = 17, "patient-sources", Node, "blind(source id) 16";
    /// Clinical resources of a patient, for her summary.
    PatientResources = 18, "patient-resources", Patient, "patient 16, blind(resource) 16";

    /// Documents.
    Records = 20, "records", Patient, "document 16";
    /// Documents of a patient.
    DocumentsByPatient = 21, "documents-by-patient", Node, "patient 16, document 16";
    /// Inlined content of at most 64 KiB.
    RecordContents = 22, "record-contents", Patient, "document 16";
    /// Names by which users and clients open documents.
    DocumentRefs = 23, "document-refs", Node, "reference 16";
    /// Unique ids given by the document's source, to find a document again.
    DocumentSources = 24, "document-sources", Node, "blind(source id) 16";
    /// Imaging studies.
    Studies = 25, "studies", Patient, "blind(study UID) 16";
    /// Series of a study.
    Series = 26, "series", Patient, "blind(study UID) 16, blind(series UID) 16";
    /// Instances of a series.
    Instances = 27, "instances", Patient, "blind(study UID) 16, blind(series UID) 16, blind(instance UID) 16";
    /// Studies of a patient.
    StudiesByPatient = 28, "studies-by-patient", Node, "patient 16, blind(study UID) 16";
    /// Copies received from other organisations, until the end of their lease.
    Leases = 29, "leases", Node, "end of the lease 8, lease 16";

    /// Stored consents.
    Consents = 40, "consents", Patient, "patient 16, consent 16";
    /// Consent epoch of a patient.
    ConsentEpochs = 41, "consent-epochs", Open, "patient 16";
    /// Consents by id.
    ConsentIds = 42, "consent-ids", Node, "consent 16";

    /// Own index records still to be placed at a holder.
    Outbox = 50, "outbox", Node, "sequence 8, holder's node key 32";
    /// Own signed index records.
    OwnRecords = 51, "own-records", Node, "record handle 16";
    /// Own index records of a document.
    OwnRecordsByDocument = 52, "own-records-by-document", Node, "document 16, record handle 16";
    /// Index records held for other organisations.
    HeldRecords = 53, "held-records", Open, "index key 32, hash of the owner 16, record handle 16";
    /// How many records are held for each owner.
    HeldByOwnerCount = 54, "held-by-owner-count", Open, "hash of the owner 16";
    /// Held records by their end, for the sweep.
    HeldByExpiry = 55, "held-by-expiry", Open, "expiry 8, index key 32, hash of the owner 16, record handle 16";

    /// Patients whose index records must be brought up to date.
    PublishQueue = 56, "publish-queue", Open, "patient 16, mark 8";
    /// When an own record must be renewed or its tombstone forgotten.
    OwnDue = 57, "own-due", Open, "time 8, record";
    /// Holder sets of the index, what is settled, what is placed.
    IndexMembership = 58, "index-membership", Open, "name";
    /// What this node publishes of a patient: record key, token outputs, handles.
    Locators = 59, "locators", Patient, "patient 16";

    /// Audit events.
    AuditLeaves = 70, "audit-leaves", Node, "index 8";
    /// Nodes of the audit tree.
    AuditNodes = 71, "audit-nodes", Open, "level 1, index 8";
    /// Audit events about a patient.
    AuditByPatient = 72, "audit-by-patient", Open, "patient reference 16, index 8";
    /// Audit events by a user.
    AuditByUser = 73, "audit-by-user", Open, "blind(organisation, user) 16, index 8";
    /// Audit events of a question.
    AuditByCorrelation = 74, "audit-by-correlation", Open, "correlation 16, index 8";
    /// Audit events of a kind.
    AuditByKind = 75, "audit-by-kind", Open, "kind 1, index 8";
    /// Signed checkpoints of the audit tree.
    AuditCheckpoints = 76, "audit-checkpoints", Open, "size 8";

    /// Shares of the token key that this node holds.
    TokenShares = 90, "token-shares", Node, "epoch 4, generation 4, index 2";
    /// What members and their users have used of their token budgets.
    TokenBudgets = 91, "token-budgets", Open, "blind(organisation, user, use) 16";

    /// Users.
    Accounts = 80, "accounts", Node, "blind(account name) 16";
    /// Programs that call the API.
    Clients = 81, "clients", Node, "client 16";
    /// API tokens to programs.
    ClientTokens = 82, "client-tokens", Node, "blind(token) 16";
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::Table;

    #[test]
    fn tags_and_names_are_unique() {
        let tags: BTreeSet<u8> = Table::ALL.iter().map(|table| table.tag()).collect();
        let names: BTreeSet<&str> = Table::ALL.iter().map(|table| table.name()).collect();
        assert_eq!((tags.len(), names.len()), (Table::ALL.len(), Table::ALL.len()));
    }
}
