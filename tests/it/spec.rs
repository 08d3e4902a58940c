//! SPEC.md against the program: its tables are the constants and enums, and what it says of certificates holds.

mod certificates;
mod joining;

use std::collections::BTreeMap;
use std::path::Path;

use hie::{authority as office, clock};
use hie_node_core::exchange::budget::{self as token_budget, Allowance};
use hie_node_core::patient::{names, normalise, tokens as patient};
use hie_node_federation::config as index;
use hie_node_peer::lane::server as lane;
use hie_node_peer::{budget, greet, handle, relay, trust, upgrade};
use hie_node_pki::refusal::{ACCEPTED, CertificateRefusal};
use hie_node_pki::{authority as ca, csr, x509};
use hie_protocol::refusal::Refusal;
use hie_protocol::version::{self, ProtocolVersion, SPOKEN, negotiate};
use hie_protocol::{
    cbor, charter, checkpoint, claim, digest, id, invitation, message, oprf, record, registry, retrieval, seal, words,
};

fn text() -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    std::fs::read_to_string(root.join("SPEC.md")).unwrap()
}

/// The rows of the tables between two headings: the cells, without backticks.
fn rows(text: &str, from: &str, to: &str) -> Vec<Vec<String>> {
    let start = text.find(from).unwrap_or_else(|| panic!("{from} is not in SPEC.md"));
    let part = &text[start..];
    let part = &part[..part.find(to).unwrap_or_else(|| panic!("{to} is not behind {from}"))];
    part.lines()
        .filter_map(|line| line.strip_prefix("| ")?.strip_suffix('|'))
        .map(|line| {
            line.split('|')
                .map(|cell| cell.replace('`', "").trim().to_owned())
                .collect()
        })
        .collect()
}

fn number<T: TryInto<u64>>(value: T) -> u64 {
    value.try_into().unwrap_or_else(|_| panic!("not a u64"))
}

fn frames() -> Vec<(&'static str, u64)> {
    vec![
        ("FRAME_BYTES_MAX", number(cbor::FRAME_BYTES_MAX)),
        ("DEPTH_MAX", number(cbor::DEPTH_MAX)),
        ("OID_CHARS_MAX", number(id::OID_CHARS_MAX)),
        ("VERSIONS_MAX", number(version::VERSIONS_MAX)),
        ("STORE_RECORDS_MAX", number(message::STORE_RECORDS_MAX)),
        ("STORE_RECORDS_V1_MAX", number(message::STORE_RECORDS_V1_MAX)),
        ("BEAT_ORGS_MAX", number(message::BEAT_ORGS_MAX)),
        ("COMPARE_RANGES_MAX", number(message::COMPARE_RANGES_MAX)),
        ("COMPARED_ENTRIES_MAX", number(message::COMPARED_ENTRIES_MAX)),
        ("PULLED_RECORDS_MAX", number(message::PULLED_RECORDS_MAX)),
        ("PULLED_DIGESTS_MAX", number(message::PULLED_DIGESTS_MAX)),
        ("DIGEST_BYTES_MAX", number(digest::DIGEST_BYTES_MAX)),
        ("OFFICERS_MAX", number(charter::OFFICERS_MAX)),
        ("APPROVALS_MAX", number(charter::APPROVALS_MAX)),
        ("APPROVAL_BYTES_MAX", number(charter::APPROVAL_BYTES_MAX)),
        ("LOOKUP_KEYS_MAX", number(message::LOOKUP_KEYS_MAX)),
        ("FOUND_RECORDS_MAX", number(message::FOUND_RECORDS_MAX)),
        ("FOUND_BYTES_MAX", number(index::MESSAGE_RECORD_BYTES_MAX)),
        ("OPEN_HANDLES_MAX", number(message::OPEN_HANDLES_MAX)),
        ("GRANTS_MAX", number(message::GRANTS_MAX)),
        ("REGISTRY_BYTES_MAX", number(registry::REGISTRY_BYTES_MAX)),
        ("MEMBERS_MAX", number(registry::MEMBERS_MAX)),
        ("NODES_MAX", number(registry::NODES_MAX)),
        ("NAME_CHARS_MAX", number(registry::NAME_CHARS_MAX)),
        ("RECORD_BYTES_MAX", number(record::RECORD_BYTES_MAX)),
        ("SEALED_BYTES_MAX", number(record::SEALED_BYTES_MAX)),
        ("EXCLUDED_MAX", number(record::EXCLUDED_MAX)),
        ("PAD_BLOCK_BYTES", number(seal::PAD_BLOCK_LEN)),
        ("CLAIM_BYTES_MAX", number(claim::CLAIM_BYTES_MAX)),
        ("CLAIM_TEXT_CHARS_MAX", number(claim::CLAIM_TEXT_CHARS_MAX)),
        ("CLAIM_LIFE_MS_MAX", claim::CLAIM_LIFE_MS_MAX),
        ("CLAIM_SKEW_MS_MAX", claim::CLOCK_SKEW_MS_MAX),
        ("RECEIPT_BYTES_MAX", number(message::RECEIPT_BYTES_MAX)),
        ("NOTE_BYTES_MAX", number(checkpoint::note::NOTE_LEN_MAX)),
        ("NOTE_SIGNATURES_MAX", number(checkpoint::note::SIGNATURES_MAX)),
        ("INVITATION_BYTES_MAX", number(invitation::TEXT_LEN_MAX)),
        ("INVITATION_NAME_CHARS_MAX", number(invitation::NAME_CHARS_MAX)),
        ("CHECK_WORD_ROUNDS", u64::from(words::STRETCH_ROUNDS.get())),
        ("CHUNK_BYTES_MAX", number(retrieval::CHUNK_BYTES_MAX)),
        ("LANE_FRAME_BYTES_MAX", number(retrieval::LANE_FRAME_BYTES_MAX)),
        ("LANE_ASK_BYTES_MAX", number(retrieval::LANE_ASK_BYTES_MAX)),
        ("EPOCH_CHECK_BYTES", retrieval::EPOCH_CHECK_BYTES),
        ("TICKET_LIFE_MS", retrieval::TICKET_LIFE_MS),
        ("INSTANCES_MAX", number(retrieval::INSTANCES_MAX)),
    ]
}

fn tokens_and_index() -> Vec<(&'static str, u64)> {
    let allowance = Allowance::default();
    vec![
        ("EVALUATE_BATCH_MAX", number(oprf::EVALUATE_BATCH_MAX)),
        ("QUESTION_BATCH_MAX", number(oprf::QUESTION_BATCH_MAX)),
        ("EVALUATE_BATCH_V1_MAX", number(message::EVALUATE_BATCH_V1_MAX)),
        ("INPUT_BYTES_MAX", number(oprf::INPUT_LEN_MAX)),
        ("SHARES_MAX", u64::from(oprf::SHARES_MAX)),
        ("QUESTION_TOKENS", token_budget::QUESTION_TOKENS),
        ("QUESTION_COST_MIN", token_budget::QUESTION_COST_MIN),
        ("USER_QUESTIONS_AT_ONCE", allowance.user_at_once),
        ("USER_QUESTIONS_PER_HOUR", allowance.user_per_hour),
        ("MEMBER_QUESTIONS_AT_ONCE", allowance.member_at_once),
        ("MEMBER_QUESTIONS_PER_DAY", allowance.member_per_day),
        ("OUTSTANDING_MAX", token_budget::OUTSTANDING_MAX),
        ("TOKENS_PUBLISHED_MAX", number(patient::PUBLISH_MAX)),
        ("TOKENS_ASKED_MAX", number(patient::ASK_MAX)),
        ("IDENTIFIER_CHARS_MIN", number(patient::IDENTIFIER_CHARS_MIN)),
        ("VALUES_MAX", number(normalise::VALUES_MAX)),
        ("VALUE_CHARS_MAX", number(normalise::VALUE_CHARS_MAX)),
        ("BIRTH_YEAR_MIN", u64::from(normalise::BIRTH_YEAR_MIN)),
        ("BIRTH_YEAR_MAX", u64::from(normalise::BIRTH_YEAR_MAX)),
        ("ROOTS_MAX", number(names::ROOTS_MAX)),
        ("HELD_RECORDS_PER_OWNER_MAX", index::HELD_RECORDS_PER_OWNER_MAX),
        ("INDEX_SKEW_MS_MAX", index::CLOCK_SKEW_MS_MAX),
        ("STORE_RETRY_MS", index::STORE_RETRY_MS),
        ("STORE_RETRY_MS_MAX", index::STORE_RETRY_MS_MAX),
        ("LOOKUP_RETRY_MS", index::LOOKUP_RETRY_MS),
        ("LOOKUP_RETRY_MS_MAX", index::LOOKUP_RETRY_MS_MAX),
    ]
}

fn channels_and_certificates() -> Vec<(&'static str, u64)> {
    vec![
        ("HANDSHAKE_MS_MAX", upgrade::HANDSHAKE_MS_MAX),
        ("REQUEST_MS_MAX", handle::DEADLINE_MS_MAX),
        ("MEMBER_STREAMS_MAX", number(budget::STREAMS_MAX)),
        ("MEMBER_BYTES_MAX", number(budget::BYTES_MAX)),
        ("REQUESTS_PER_SECOND", u64::from(budget::REQUESTS_PER_SECOND)),
        ("REQUESTS_BURST", u64::from(budget::REQUESTS_BURST)),
        ("BYTES_PER_SECOND", u64::from(budget::BYTES_PER_SECOND)),
        ("BYTES_BURST", u64::from(budget::BYTES_BURST)),
        ("CONNECTIONS_BURST", u64::from(budget::CONNECTIONS_BURST)),
        ("GREET_MS_MAX", greet::GREET_MS_MAX),
        ("CIRCUITS_PER_NODE_MAX", number(relay::CIRCUITS_PER_NODE_MAX)),
        ("CIRCUIT_MS_MAX", relay::CIRCUIT_MS_MAX),
        ("CIRCUIT_BYTES_MAX", relay::CIRCUIT_BYTES_MAX),
        ("SKEW_WARN_MS", clock::SKEW_WARN_MS),
        ("SKEW_REFUSE_MS", clock::SKEW_REFUSE_MS),
        ("CUT_MS_MAX", trust::CUT_MS_MAX),
        (
            "LANE_CONNECTIONS_PER_MEMBER_MAX",
            number(lane::CONNECTIONS_PER_MEMBER_MAX),
        ),
        ("LANE_IDLE_MS_MAX", lane::IDLE_MS_MAX),
        ("LANE_STALL_MS_MAX", lane::STALL_MS_MAX),
        ("CERTIFICATE_BYTES_MAX", number(x509::CERTIFICATE_BYTES_MAX)),
        ("CHAIN_MAX", number(x509::CHAIN_MAX)),
        ("CRL_BYTES_MAX", number(x509::CRL_BYTES_MAX)),
        ("CSR_BYTES_MAX", number(csr::CSR_BYTES_MAX)),
        ("ENROL_BYTES_MAX", number(office::enrol::ENROL_BYTES_MAX)),
        ("CERTIFICATE_DAYS", u64::from(office::CERTIFICATE_DAYS)),
        ("CRL_LIFE_MS", ca::CRL_LIFE_MS),
        ("CRL_RENEW_MS", office::CRL_RENEW_MS),
        ("ROOT_LIFE_MS", ca::ROOT_LIFE_MS),
        ("REGISTRY_WAIT_MS", number(office::serve::REGISTRY_WAIT.as_millis())),
    ]
}

#[test]
fn spec_p_limit_the_table_is_the_constants() {
    let parts = [frames(), tokens_and_index(), channels_and_certificates()];
    let constants: BTreeMap<String, u64> = parts
        .concat()
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect();
    let table: BTreeMap<String, u64> = rows(&text(), "## 16. Limits", "# Part II")
        .into_iter()
        .filter(|row| row[0] != "name")
        .map(|row| (row[0].clone(), row[1].parse().unwrap()))
        .collect();
    assert_eq!(table, constants);
}

/// Every refusal; the match makes a new one fail to compile until it stands here.
fn refusals() -> Vec<Refusal> {
    use Refusal::{Budget, Busy, Claim, Failed, Malformed, NotOffered, NothingHere, Version};
    let all = vec![Malformed, Version, Claim, NothingHere, Budget, NotOffered, Busy, Failed];
    for refusal in &all {
        match refusal {
            Malformed | Version | Claim | NothingHere | Budget | NotOffered | Busy | Failed => {}
        }
    }
    all
}

#[test]
fn spec_p_ref_the_table_is_the_enum() {
    let codes: Vec<String> = refusals()
        .into_iter()
        .map(|refusal| String::from_utf8(cbor::encode(&refusal).unwrap()[1..].to_vec()).unwrap())
        .collect();
    let table = rows(&text(), "## 14. Refusals", "## 15.");
    let listed: Vec<&String> = table.iter().map(|row| &row[0]).filter(|code| *code != "code").collect();
    assert_eq!(listed, codes.iter().collect::<Vec<_>>());
}

#[test]
fn spec_p_tls_the_table_of_verdicts_is_the_enum() {
    let table: BTreeMap<String, u8> = rows(&text(), "## 6. Channels", "## 7.")
        .into_iter()
        .filter(|row| row[0] != "reason")
        .map(|row| (row[0].clone(), row[1].parse().unwrap()))
        .collect();
    let mut codes: BTreeMap<String, u8> = CertificateRefusal::ALL
        .into_iter()
        .map(|refusal| (refusal.word().to_owned(), refusal.code()))
        .collect();
    codes.insert("accepted".to_owned(), ACCEPTED);
    assert_eq!(table, codes);
}

#[test]
fn spec_p_version_the_ledger_lists_what_is_spoken() {
    let ledger: Vec<u16> = rows(&text(), "## 15. Versions", "## 16.")
        .into_iter()
        .filter(|row| row[0] != "version")
        .map(|row| row[0].parse().unwrap())
        .collect();
    assert!(ledger.windows(2).all(|pair| pair[0] == pair[1] + 1), "{ledger:?}");
    assert_eq!(ledger.last(), Some(&1));
    for version in SPOKEN {
        assert!(ledger.contains(&version.0), "{version:?}");
        assert_eq!(negotiate(&SPOKEN, &[version]), Some(version));
    }
    assert_eq!(negotiate(&SPOKEN, &[ProtocolVersion(0)]), None);
}
