//! Oblivious evaluations with fixed randomness: `protocol/vectors/oprf.json`.

use serde_json::{Value, json};

use super::frozen;
use crate::oprf::client::{Blinding, combine};
use crate::oprf::key::{GroupKey, KeyShare, deal_secret};
use crate::oprf::{BlindedElement, Evaluation, server};

/// Hands out scalars: a number below the group's order, filled up with zeros, reduces to itself.
fn scalars(numbers: Vec<[u8; 32]>) -> impl FnMut(&mut [u8]) {
    let mut numbers = numbers.into_iter();
    move |buffer: &mut [u8]| {
        buffer.fill(0);
        buffer[..32].copy_from_slice(&numbers.next().unwrap());
    }
}

/// A scalar made of one byte; the last one is small, so that it is below the order.
fn scalar(byte: u8) -> [u8; 32] {
    let mut number = [byte; 32];
    number[31] = 1;
    number
}

struct Key {
    threshold: u16,
    group: GroupKey,
    shares: Vec<KeyShare>,
    coefficients: Vec<[u8; 32]>,
}

fn key(threshold: u16, count: u16) -> Key {
    let coefficients: Vec<[u8; 32]> = (0..threshold)
        .map(|at| scalar(0x30 + u8::try_from(at).unwrap()))
        .collect();
    let mut random = scalars(coefficients[1..].to_vec());
    let (group, shares) = deal_secret(&coefficients[0], threshold, count, &mut random).unwrap();
    Key {
        threshold,
        group,
        shares,
        coefficients,
    }
}

fn answers(key: &Key, blinded: &[BlindedElement]) -> Vec<(u16, [u8; 32], Evaluation)> {
    key.shares
        .iter()
        .map(|share| {
            let nonce = scalar(0x60 + u8::try_from(share.index()).unwrap());
            let evaluation = server::evaluate(share, blinded, &mut scalars(vec![nonce])).unwrap();
            (share.index(), nonce, evaluation)
        })
        .collect()
}

fn answer_json(key: &Key, index: u16, evaluation: &Evaluation) -> Value {
    json!({
        "index": index, "point": hex::encode(key.group.share(index).unwrap().point()),
        "elements": evaluation.elements.iter().map(hex::encode).collect::<Vec<_>>(), "proof": hex::encode(evaluation.proof),
    })
}

fn evaluated(name: &str, threshold: u16, count: u16, inputs: &[&str], taken: &[u16]) -> Value {
    let key = key(threshold, count);
    let slices: Vec<&[u8]> = inputs.iter().map(|input| input.as_bytes()).collect();
    let blinds: Vec<[u8; 32]> = (0..inputs.len())
        .map(|at| scalar(u8::try_from(at).unwrap() + 1))
        .collect();
    let (blinding, blinded) = Blinding::new(&slices, &mut scalars(blinds.clone())).unwrap();
    let answers = answers(&key, &blinded);
    let verified: Vec<_> = taken
        .iter()
        .map(|wanted| {
            let (index, _, evaluation) = answers.iter().find(|(index, ..)| index == wanted).unwrap();
            blinding.verify(key.group.share(*index).unwrap(), evaluation).unwrap()
        })
        .collect();
    let outputs = blinding.finalize(&combine(threshold, &verified).unwrap()).unwrap();
    let authorities: Vec<Value> = key
        .shares
        .iter()
        .zip(&answers)
        .map(|(share, (index, nonce, evaluation))| {
            let mut answer = answer_json(&key, *index, evaluation);
            answer["nonce"] = json!(hex::encode(nonce));
            answer["share"] = json!(hex::encode(&*share.to_bytes()));
            answer
        })
        .collect();
    json!({
        "name": name, "outcome": "evaluated", "threshold": key.threshold, "coefficients": key.coefficients.iter().map(hex::encode).collect::<Vec<_>>(),
        "public": hex::encode(key.group.public()), "inputs": inputs, "blinds": blinds.iter().map(hex::encode).collect::<Vec<_>>(),
        "blinded": blinded.iter().map(|element| hex::encode(element.0)).collect::<Vec<_>>(), "authorities": authorities, "taken": taken,
        "outputs": outputs.iter().map(|output| hex::encode(**output)).collect::<Vec<_>>(),
    })
}

/// Answers whose proof does not hold, or that are no points.
fn refused() -> Vec<Value> {
    let key = key(2, 3);
    let inputs: [&[u8]; 2] = [b"one", b"two"];
    let (blinding, blinded) = Blinding::new(&inputs, &mut scalars(vec![scalar(1), scalar(2)])).unwrap();
    let answers = answers(&key, &blinded);
    let good = answers[0].2.clone();
    let altered = |change: &dyn Fn(&mut Evaluation)| {
        let mut evaluation = good.clone();
        change(&mut evaluation);
        evaluation
    };
    let other = answers[1].2.clone();
    let mut order = [0xff; 32];
    order[31] = 0x1f;
    let wrong: Vec<(&str, Evaluation)> = vec![
        ("the answer of another share", other.clone()),
        (
            "an element of another share",
            altered(&|it| it.elements[1] = other.elements[1]),
        ),
        ("elements changed about", altered(&|it| it.elements.swap(0, 1))),
        (
            "the blinded elements themselves",
            altered(&|it| it.elements = blinded.iter().map(|element| element.0).collect()),
        ),
        ("an element too few", altered(&|it| it.elements.truncate(1))),
        ("the identity", altered(&|it| it.elements[0] = [0; 32])),
        ("no canonical point", altered(&|it| it.elements[0] = [0xff; 32])),
        ("a flipped challenge", altered(&|it| it.proof[0] ^= 1)),
        ("a flipped response", altered(&|it| it.proof[40] ^= 1)),
        (
            "a response over the order",
            altered(&|it| it.proof[32..].copy_from_slice(&order)),
        ),
        ("no proof", altered(&|it| it.proof = [0; 64])),
    ];
    wrong
        .into_iter()
        .map(|(name, evaluation)| {
            assert!(
                blinding.verify(key.group.share(1).unwrap(), &evaluation).is_err(),
                "{name}"
            );
            let mut case = answer_json(&key, 1, &evaluation);
            case["name"] = json!(name);
            case["outcome"] = json!("refused");
            case["blinded"] = json!(blinded.iter().map(|element| hex::encode(element.0)).collect::<Vec<_>>());
            case
        })
        .collect()
}

#[test]
fn spec_p_oprf_vectors_do_not_change() {
    let tokens = [
        "hie-tok|norm-1|A|1|EXAMPLE|A|19610314",
        "hie-tok|norm-1|G|1|6175550123|ROBERT",
    ];
    let mut cases = vec![
        evaluated("one authority", 1, 1, &tokens[..1], &[1]),
        evaluated("two of three, the first", 2, 3, &tokens, &[1, 2]),
        evaluated("two of three, the last, in another order", 2, 3, &tokens, &[3, 1]),
        evaluated("three of five", 3, 5, &tokens[..1], &[5, 2, 4]),
    ];
    let outputs: Vec<&Value> = cases.iter().map(|case| &case["outputs"]).collect();
    assert_eq!(outputs[1], outputs[2]);
    cases.extend(refused());
    let about = "VOPRF(ristretto255, SHA-512), mode 1, with a shared key: the polynomial's coefficients from the constant on, blinds, nonces of the proofs, answers; outputs from those 'taken'";
    frozen("oprf.json", &json!({ "about": about, "cases": cases }));
}
