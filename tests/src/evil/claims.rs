//! Claims that do not hold, and what they were to open (T11, T12, T14).

use std::sync::Arc;

use futures::FutureExt as _;
use hie::clock;
use hie_node_pki::key::Key;
use hie_protocol::bytes::Bytes;
use hie_protocol::cbor;
use hie_protocol::claim::{BreakGlass, BreakGlassReason, Claim};
use hie_protocol::id::PublicKey;
use hie_protocol::message::{Demographics, Open, Request, Response};
use hie_protocol::oprf::EVALUATE_BATCH_MAX;
use hie_protocol::refusal::Refusal;
use hie_protocol::sign::{self, DOMAIN_CLAIM, DOMAIN_RECEIPT, Signer as _};
use hie_protocol::vocabulary::Purpose;
use ring::rand::SystemRandom;

use super::{Answer, Evil, Found, Script};

/// A script whose claim differs from a good one.
macro_rules! claim {
    ($name:literal, $change:expr) => {
        Script {
            name: $name,
            threat: "T12",
            counted: Some("claim"),
            act: |evil| {
                async move {
                    let change: fn(&Evil, &mut Claim) = $change;
                    let mut claim = evil.claim();
                    change(&evil, &mut claim);
                    let signed = sign::sign(DOMAIN_CLAIM, cbor::encode(&claim).unwrap(), &evil.key).unwrap();
                    evil.refused(&open(signed), Refusal::Claim).await
                }
                .boxed()
            },
        }
    };
}

fn open(claim: Vec<u8>) -> Vec<u8> {
    let demographics = Demographics {
        names: Vec::new(),
        birth_date: Some("1961-03-14".to_owned()),
        sex: None,
        identifiers: Vec::new(),
        addresses: Vec::new(),
        telecoms: Vec::new(),
    };
    let open = Open {
        claim: Bytes(claim),
        demographics,
        handles: Vec::new(),
        documents: Vec::new(),
    };
    Request::Open(Box::new(open)).encode().unwrap()
}

fn evaluate(claim: Vec<u8>, blinded: Vec<PublicKey>) -> Vec<u8> {
    let request = Request::Evaluate {
        claim: Bytes(claim),
        epoch: 1,
        blinded,
        share: None,
    };
    request.encode().unwrap()
}

pub(super) fn scripts() -> Vec<Script> {
    let mut all = contents();
    all.extend(envelopes());
    all.extend(evaluations());
    all
}

fn contents() -> Vec<Script> {
    vec![
        claim!("a claim for another custodian", |evil, claim| claim.audience =
            evil.other.clone()),
        claim!("a claim of another organisation", |evil, claim| claim.org =
            evil.other.clone()),
        claim!("a claim of another organisation's node", |evil, claim| {
            claim.node = evil.registry.member(&evil.other).unwrap().nodes[0].key;
        }),
        claim!("an expired claim", |_, claim| {
            claim.issued = clock::now();
            claim.issued.0 -= 180_000;
            claim.expires = claim.issued.plus(60_000);
        }),
        claim!("a claim from the future", |_, claim| {
            claim.issued = clock::now().plus(120_000);
            claim.expires = claim.issued.plus(60_000);
        }),
        claim!("a claim that lives for a day", |_, claim| {
            claim.expires = claim.issued.plus(24 * 60 * 60 * 1000);
        }),
        claim!("an emergency without a declaration", |_, claim| claim.purpose =
            Purpose::BreakGlass),
        claim!("a declaration without an emergency", |_, claim| {
            claim.break_glass = Some(BreakGlass {
                reason: BreakGlassReason::LifeAtRisk,
                words: "because".to_owned(),
                declared: clock::now(),
            });
        }),
        claim!("a claim with a name of a megabyte", |_, claim| claim.user_name =
            "x".repeat(4000)),
    ]
}

fn envelopes() -> Vec<Script> {
    let one = |name, act| Script {
        name,
        threat: "T14",
        counted: Some("claim"),
        act,
    };
    vec![
        one("no claim", |evil| {
            async move { evil.refused(&open(Vec::new()), Refusal::Claim).await }.boxed()
        }),
        one("a claim signed for another purpose", |evil| {
            async move {
                let payload = cbor::encode(&evil.claim()).unwrap();
                let signed = sign::sign(DOMAIN_RECEIPT, payload, &evil.key).unwrap();
                evil.refused(&open(signed), Refusal::Claim).await
            }
            .boxed()
        }),
        one("a claim signed by a key of nobody", |evil| {
            async move {
                let key = Key::generate(&SystemRandom::new()).unwrap();
                let mut claim = evil.claim();
                claim.node = key.node();
                let signed = claim.sign(&key).unwrap();
                evil.refused(&open(signed), Refusal::Claim).await
            }
            .boxed()
        }),
        one("a claim with one bit turned", |evil| {
            async move {
                let mut signed = evil.claim().sign(&evil.key).unwrap();
                let last = signed.len() - 1;
                signed[last] ^= 1;
                evil.refused(&open(signed), Refusal::Claim).await
            }
            .boxed()
        }),
        one("a claim used twice", |evil| {
            async move {
                let signed = evil.claim().sign(&evil.key).unwrap();
                let first = evil.line().await?.ask(&open(signed.clone())).await;
                nothing(first)?;
                evil.refused(&open(signed), Refusal::Claim).await
            }
            .boxed()
        }),
        one("a claim used for tokens and again for a record", |evil| {
            async move {
                let signed = evil.claim().sign(&evil.key).unwrap();
                evil.line()
                    .await?
                    .ask(&evaluate(signed.clone(), vec![PublicKey::new([0xff; 32])]))
                    .await;
                evil.refused(&open(signed), Refusal::Claim).await
            }
            .boxed()
        }),
    ]
}

/// A good claim about nobody opens nothing.
fn nothing(answer: Answer) -> Found {
    match answer {
        Answer::Said(said) => match *said {
            Response::Opened(opened) if opened.grants.is_empty() && opened.demographics.is_none() => Ok(()),
            other => Err(format!("something was opened: {other:?}")),
        },
        other => Err(format!("{other:?}")),
    }
}

async fn points(evil: Arc<Evil>, points: Vec<PublicKey>) -> Found {
    let signed = evil.claim().sign(&evil.key).unwrap();
    evil.refused(&evaluate(signed, points), Refusal::Malformed).await
}

fn evaluations() -> Vec<Script> {
    let one = |name, act| Script {
        name,
        threat: "T11",
        counted: Some("malformed"),
        act,
    };
    vec![
        one("the identity point", |evil| {
            points(evil, vec![PublicKey::new([0; 32])]).boxed()
        }),
        one("a point that is none", |evil| {
            points(evil, vec![PublicKey::new([0xff; 32])]).boxed()
        }),
        one("a point in another encoding", |evil| {
            let mut bytes = [0; 32];
            // The field prime itself: a second name of zero.
            bytes.fill(0xff);
            (bytes[0], bytes[31]) = (0xed, 0x7f);
            points(evil, vec![PublicKey::new(bytes)]).boxed()
        }),
        one("one element too many", |evil| {
            points(evil, vec![PublicKey::new([0; 32]); EVALUATE_BATCH_MAX + 1]).boxed()
        }),
    ]
}
