//! Records, datagrams and registries that are not the sender's to give (T9, T14, T15, T17, T18).

use std::sync::Arc;

use futures::FutureExt as _;
use hie::clock;
use hie_node_pki::key::Key;
use hie_protocol::bytes::Bytes;
use hie_protocol::cbor;
use hie_protocol::id::{ConsentEpoch, IndexKey, Millis, OrgId, RecordHandle, Sequence};
use hie_protocol::message::{IndexMessage, Request, StoreOutcome};
use hie_protocol::record::{IndexRecord, Label, RecordContent};
use hie_protocol::refusal::Refusal;
use hie_protocol::sign::{self, DOMAIN_CLAIM, DOMAIN_RECORD};
use ring::rand::SystemRandom;

use super::{Evil, Found, Script};

fn record(evil: &Evil, owner: &OrgId, expires: Millis) -> IndexRecord {
    IndexRecord {
        owner: owner.clone(),
        key: IndexKey::new(evil.fresh()),
        handle: RecordHandle::new(evil.fresh()),
        sequence: Sequence(evil.number()),
        label: Label::open(ConsentEpoch(1)),
        expires,
        content: RecordContent::Live(Bytes(vec![7; 64])),
    }
}

fn signed(domain: &str, record: &IndexRecord, key: &Key) -> Bytes {
    Bytes(sign::sign(domain, cbor::encode(record).unwrap(), key).unwrap())
}

/// Stores records and demands these outcomes, and that nothing of them is shown afterwards.
async fn stored(evil: Arc<Evil>, records: Vec<Bytes>, keys: Vec<IndexKey>, outcome: StoreOutcome) -> Found {
    let (id, count) = (evil.number(), records.len());
    evil.taken(IndexMessage::Store { id, records }).await?;
    let outcomes = evil.stored(id).await?;
    if outcomes != vec![outcome; count] {
        return Err(format!("outcomes {outcomes:?}"));
    }
    let shown = shown(&evil, keys).await?;
    if shown.iter().any(|records| !records.is_empty()) {
        return Err("a refused record is shown".to_owned());
    }
    Ok(())
}

async fn shown(evil: &Evil, keys: Vec<IndexKey>) -> Result<Vec<Vec<Vec<u8>>>, String> {
    let id = evil.number();
    let lookup = IndexMessage::Lookup { id, keys, after: None };
    evil.taken(lookup).await?;
    Ok(evil.found(id).await?.0)
}

/// A script that stores one record made by `$make`, which is refused.
macro_rules! refused {
    ($name:literal, $threat:literal, $counted:expr, $make:expr) => {
        Script {
            name: $name,
            threat: $threat,
            counted: $counted,
            act: |evil| {
                async move {
                    let make: fn(&Evil) -> (Bytes, IndexKey) = $make;
                    let (bytes, key) = make(&evil);
                    stored(evil, vec![bytes], vec![key], StoreOutcome::Refused).await
                }
                .boxed()
            },
        }
    };
}

pub(super) fn scripts() -> Vec<Script> {
    let mut all = records();
    all.extend(sequences());
    all.extend(datagrams());
    all.extend(registries());
    all
}

fn records() -> Vec<Script> {
    vec![
        refused!("a record of another organisation", "T9", Some("forged"), |evil| {
            let record = record(evil, &evil.other, evil.soon());
            (signed(DOMAIN_RECORD, &record, &evil.key), record.key)
        }),
        refused!("a record of the holder itself", "T9", Some("forged"), |evil| {
            let record = record(evil, &evil.target, evil.soon());
            (signed(DOMAIN_RECORD, &record, &evil.key), record.key)
        }),
        refused!("a record signed by a key of nobody", "T9", Some("forged"), |evil| {
            let record = record(evil, &evil.org, evil.soon());
            let key = Key::generate(&SystemRandom::new()).unwrap();
            (signed(DOMAIN_RECORD, &record, &key), record.key)
        }),
        refused!("a record signed for another purpose", "T14", Some("forged"), |evil| {
            let record = record(evil, &evil.org, evil.soon());
            (signed(DOMAIN_CLAIM, &record, &evil.key), record.key)
        }),
        refused!("a good signature over another key", "T14", Some("forged"), |evil| {
            let record = record(evil, &evil.org, evil.soon());
            let good = signed(DOMAIN_RECORD, &record, &evil.key).0;
            let to = IndexKey::new(evil.fresh());
            (Bytes(replaced(&good, record.key.as_bytes(), to.as_bytes())), to)
        }),
        refused!("a good signature over another handle", "T14", Some("forged"), |evil| {
            let record = record(evil, &evil.org, evil.soon());
            let good = signed(DOMAIN_RECORD, &record, &evil.key).0;
            let to: [u8; 16] = evil.fresh();
            (Bytes(replaced(&good, record.handle.as_bytes(), &to)), record.key)
        }),
        refused!("a record that is no record", "T19", Some("forged"), |evil| {
            (Bytes(vec![0xff; 200]), IndexKey::new(evil.fresh()))
        }),
        refused!("a record that ended an hour ago", "T15", None, |evil| {
            let record = record(evil, &evil.org, Millis(clock::now().0 - 3_600_000));
            (signed(DOMAIN_RECORD, &record, &evil.key), record.key)
        }),
        refused!("a record for ever", "T10", None, |evil| {
            let record = record(evil, &evil.org, Millis(u64::MAX / 2));
            (signed(DOMAIN_RECORD, &record, &evil.key), record.key)
        }),
    ]
}

fn replaced(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let at = bytes.windows(from.len()).position(|part| part == from).unwrap();
    let mut changed = bytes.to_vec();
    changed[at..at + to.len()].copy_from_slice(to);
    changed
}

fn sequences() -> Vec<Script> {
    let one = |name, act| Script {
        name,
        threat: "T15",
        counted: None,
        act,
    };
    vec![
        one("an older version of an own record", |evil| {
            async move { replay(evil, RecordContent::Live(Bytes(vec![8; 64]))).await }.boxed()
        }),
        one("a live record behind its own tombstone", |evil| {
            async move { replay(evil, RecordContent::Tombstone).await }.boxed()
        }),
    ]
}

/// Stores an own record, then `newer`, then the first again: the newer one stays.
async fn replay(evil: Arc<Evil>, newer: RecordContent) -> Found {
    let first = record(&evil, &evil.org, evil.soon());
    let mut second = first.clone();
    second.sequence = Sequence(first.sequence.0 + 1);
    second.expires = clock::now().plus(evil.registry.policy.tombstone_life_ms);
    second.content = newer;
    let key = first.key;
    let [old, new] = [&first, &second].map(|record| signed(DOMAIN_RECORD, record, &evil.key));
    for bytes in [&old, &new, &old] {
        let id = evil.number();
        let store = IndexMessage::Store {
            id,
            records: vec![bytes.clone()],
        };
        evil.taken(store).await?;
        evil.stored(id).await?;
    }
    match shown(&evil, vec![key]).await?.as_slice() {
        [records] if *records == [new.0.clone()] => Ok(()),
        other => Err(format!(
            "{} records are shown, not the newest alone",
            other.iter().map(Vec::len).sum::<usize>()
        )),
    }
}

fn datagrams() -> Vec<Script> {
    let one = |name, act| Script {
        name,
        threat: "T17",
        counted: None,
        act,
    };
    vec![
        one("an answer to a question that was never asked", |evil| {
            async move {
                let id = evil.number();
                let forged = record(&evil, &evil.org, evil.soon());
                let records = vec![vec![signed(DOMAIN_RECORD, &forged, &evil.key)]];
                let found = IndexMessage::Found {
                    id,
                    records,
                    whole: true,
                    next: None,
                };
                evil.taken(found).await?;
                let shown = shown(&evil, vec![forged.key]).await?;
                if evil.heard_of(id) || shown.iter().any(|records| !records.is_empty()) {
                    return Err("it had an effect".to_owned());
                }
                Ok(())
            }
            .boxed()
        }),
        one("a receipt for a store that was never sent", |evil| {
            async move {
                let id = evil.number();
                let stored = IndexMessage::Stored {
                    id,
                    outcomes: vec![StoreOutcome::Held; 64],
                };
                evil.taken(stored).await?;
                if evil.heard_of(id) {
                    return Err("it was answered".to_owned());
                }
                Ok(())
            }
            .boxed()
        }),
        one("questions for keys at random", |evil| {
            async move {
                for _ in 0..10 {
                    let keys = (0..64).map(|_| IndexKey::new(evil.fresh())).collect();
                    if shown(&evil, keys).await?.iter().any(|records| !records.is_empty()) {
                        return Err("a key that was made up shows something".to_owned());
                    }
                }
                Ok(())
            }
            .boxed()
        }),
    ]
}

fn registries() -> Vec<Script> {
    let one = |name, act| Script {
        name,
        threat: "T18",
        counted: Some("registry"),
        act,
    };
    vec![
        one("an older registry", |evil| {
            async move { push(&evil, evil.older.clone()).await }.boxed()
        }),
        one("a newer registry signed by a member", |evil| {
            async move {
                let mut registry = evil.registry.clone();
                registry.version += 100;
                registry.members.retain(|member| member.org != evil.other);
                push(&evil, registry.sign(&evil.key).unwrap()).await
            }
            .boxed()
        }),
        one(
            "the registry in force with another content, signed by a member",
            |evil| {
                async move {
                    let mut registry = evil.registry.clone();
                    registry.policy.tokens.threshold = 0;
                    push(&evil, registry.sign(&evil.key).unwrap()).await
                }
                .boxed()
            },
        ),
        one("a registry that is none", |evil| {
            async move { push(&evil, vec![0xa1; 4096]).await }.boxed()
        }),
    ]
}

async fn push(evil: &Evil, signed: Vec<u8>) -> Found {
    let push = Request::RegistryPush {
        signed: Bytes(signed),
        approvals: Vec::new(),
    };
    evil.refused(&push.encode().unwrap(), Refusal::Malformed).await
}
