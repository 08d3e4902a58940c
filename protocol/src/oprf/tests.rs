#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::{cell::RefCell, path::PathBuf};

use proptest::prelude::{Strategy, any, prop, prop_assert, prop_assert_eq, proptest};
use sha2::{Digest, Sha512};
use voprf::{Ristretto255, VoprfClient, VoprfServer};

use super::{
    BlindedElement, EVALUATE_BATCH_MAX, Evaluation, OprfError,
    client::{Blinding, Verified, combine},
    key::{GroupKey, KeyShare, PublicShare, deal, deal_secret},
    server::evaluate,
};

/// A deterministic stream: SHA-512 over seed and counter.
pub(super) fn stream(seed: u64) -> impl FnMut(&mut [u8]) {
    let mut counter = 0u64;
    move |buffer: &mut [u8]| {
        for chunk in buffer.chunks_mut(64) {
            counter += 1;
            let block = Sha512::new()
                .chain_update(seed.to_be_bytes())
                .chain_update(counter.to_be_bytes())
                .finalize();
            chunk.copy_from_slice(&block[..chunk.len()]);
        }
    }
}

/// A source that hands out given scalars: a scalar below the order, zero-extended, reduces to itself.
fn scripted(scalars: Vec<Vec<u8>>) -> impl FnMut(&mut [u8]) {
    let mut scalars = scalars.into_iter();
    move |buffer: &mut [u8]| {
        buffer.fill(0);
        buffer[..32].copy_from_slice(&scalars.next().unwrap());
    }
}

fn verify_all(
    blinding: &Blinding,
    group: &GroupKey,
    shares: &[&KeyShare],
    random: &mut dyn FnMut(&mut [u8]),
) -> Vec<Verified> {
    shares
        .iter()
        .map(|share| {
            let evaluation = evaluate(share, blinding.blinded(), random).unwrap();
            blinding
                .verify(group.share(share.index()).unwrap(), &evaluation)
                .unwrap()
        })
        .collect()
}

struct Vector {
    inputs: Vec<Vec<u8>>,
    blinds: Vec<Vec<u8>>,
    blinded: Vec<Vec<u8>>,
    evaluated: Vec<Vec<u8>>,
    proof: Vec<u8>,
    nonce: Vec<u8>,
    outputs: Vec<Vec<u8>>,
}

/// Reads `Name = hex,hex` fields whose hex continues on the following lines.
fn fields(section: &str) -> Vec<(String, Vec<Vec<u8>>)> {
    let mut fields: Vec<(String, String)> = Vec::new();
    for line in section.lines().map(str::trim) {
        if let Some((name, value)) = line.split_once(" = ") {
            fields.push((name.to_owned(), value.to_owned()));
        } else if !line.is_empty() && line.chars().all(|c| c.is_ascii_hexdigit() || c == ',') {
            fields.last_mut().unwrap().1.push_str(line);
        }
    }
    fields
        .into_iter()
        .map(|(name, value)| (name, value.split(',').map(|h| hex::decode(h).unwrap()).collect()))
        .collect()
}

fn corpus() -> Option<String> {
    let root = std::env::var_os("HIE_TEST_DATA").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/data"),
        PathBuf::from,
    );
    let path = root.join("07-hostile-and-vectors/rfc9497-oprf-vectors.txt");
    match std::fs::read_to_string(&path) {
        Ok(text) => Some(text),
        Err(error) if std::env::var_os("CI").is_none() => {
            println!("SKIPPED: {} cannot be read: {error}", path.display());
            None
        }
        Err(error) => panic!("{} cannot be read: {error}", path.display()),
    }
}

fn check_vector(share: &KeyShare, vector: &Vector) {
    let inputs: Vec<&[u8]> = vector.inputs.iter().map(Vec::as_slice).collect();
    let mut blinds = scripted(vector.blinds.clone());
    let (blinding, blinded) = Blinding::new(&inputs, &mut blinds).unwrap();
    let seen: Vec<Vec<u8>> = blinded.iter().map(|b| b.0.to_vec()).collect();
    assert_eq!(seen, vector.blinded);
    let evaluation = evaluate(share, &blinded, &mut scripted(vec![vector.nonce.clone()])).unwrap();
    let seen: Vec<Vec<u8>> = evaluation.elements.iter().map(|e| e.to_vec()).collect();
    assert_eq!(seen, vector.evaluated);
    assert_eq!(evaluation.proof.to_vec(), vector.proof);
    let verified = blinding.verify(&share.public(), &evaluation).unwrap();
    let outputs = blinding.finalize(&combine(1, &[verified]).unwrap()).unwrap();
    let seen: Vec<Vec<u8>> = outputs.iter().map(|o| o.to_vec()).collect();
    assert_eq!(seen, vector.outputs);
}

#[test]
fn rfc9497_appendix_a_1_2_verifiable_mode() {
    let Some(text) = corpus() else { return };
    let start = text.find("A.1.2.  VOPRF Mode").unwrap();
    let end = text.find("A.1.3.  POPRF Mode").unwrap();
    let mut sections = text[start..end].split("A.1.2.").skip(1);
    let head = fields(sections.next().unwrap());
    let head = |name: &str| head.iter().find(|(n, _)| n == name).unwrap().1[0].clone();
    let share = KeyShare::single(&head("skSm").try_into().unwrap()).unwrap();
    assert_eq!(share.public().point().to_vec(), head("pkSm"));
    let mut checked = 0;
    for section in sections {
        let fields = fields(section);
        let all = |name: &str| fields.iter().find(|(n, _)| n == name).unwrap().1.clone();
        check_vector(
            &share,
            &Vector {
                inputs: all("Input"),
                blinds: all("Blind"),
                blinded: all("BlindedElement"),
                evaluated: all("EvaluationElement"),
                proof: all("Proof")[0].clone(),
                nonce: all("ProofRandomScalar")[0].clone(),
                outputs: all("Output"),
            },
        );
        checked += 1;
    }
    assert_eq!(checked, 3);
}

proptest! {
    #![proptest_config(proptest::test_runner::Config { cases: 24, ..Default::default() })]

    /// Output equal to the reference's direct evaluation; our proof accepted by the reference's client.
    #[test]
    fn the_voprf_crate_agrees(
        seed in any::<u64>(),
        inputs in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..200), 1..5),
    ) {
        let mut random = stream(seed);
        let (group, shares) = deal(1, 1, &mut random).unwrap();
        let secret = &shares[0].to_bytes()[5..];
        let oracle = VoprfServer::<Ristretto255>::new_with_key(secret).unwrap();
        let refs: Vec<&[u8]> = inputs.iter().map(Vec::as_slice).collect();

        let blinds = RefCell::new(Vec::new());
        let mut spy = |buffer: &mut [u8]| {
            random(buffer);
            buffer[31..].fill(0); // below the group order: the draw is the blind itself
            blinds.borrow_mut().push(buffer[..32].to_vec());
        };
        let (blinding, blinded) = Blinding::new(&refs, &mut spy).unwrap();
        let evaluation = evaluate(&shares[0], &blinded, &mut stream(!seed)).unwrap();
        let verified = blinding.verify(&group.shares()[0], &evaluation).unwrap();
        let outputs = blinding.finalize(&combine(1, &[verified]).unwrap()).unwrap();
        for (input, output) in refs.iter().zip(&outputs) {
            prop_assert_eq!(&oracle.evaluate(input).unwrap()[..], &output[..]);
        }

        let clients: Vec<_> = blinds.borrow().iter().zip(&blinded).map(|(blind, element)| {
            VoprfClient::<Ristretto255>::deserialize(&[blind.as_slice(), &element.0].concat()).unwrap()
        }).collect();
        let messages: Vec<_> = evaluation.elements.iter()
            .map(|e| voprf::EvaluationElement::<Ristretto255>::deserialize(e).unwrap())
            .collect();
        let proof = voprf::Proof::<Ristretto255>::deserialize(&evaluation.proof).unwrap();
        let theirs: Vec<_> =
            VoprfClient::batch_finalize(&inputs, &clients, &messages, &proof, oracle.get_public_key())
                .unwrap()
                .map(Result::unwrap)
                .collect();
        prop_assert_eq!(theirs.len(), outputs.len());
        for (theirs, ours) in theirs.iter().zip(&outputs) {
            prop_assert_eq!(&theirs[..], &ours[..]);
        }
    }

    /// Any 3 of 5, in any order, give the single key's output.
    #[test]
    fn any_three_of_five_equal_the_single_key(
        seed in any::<u64>(),
        chosen in prop::sample::subsequence(vec![0usize, 1, 2, 3, 4], 3).prop_shuffle(),
        input in prop::collection::vec(any::<u8>(), 1..100),
    ) {
        let mut random = stream(seed);
        let (single, keys) = deal(1, 1, &mut random).unwrap();
        let secret: [u8; 32] = keys[0].to_bytes()[5..].try_into().unwrap();
        let (group, shares) = deal_secret(&secret, 3, 5, &mut random).unwrap();
        prop_assert_eq!(group.public(), single.public());
        let oracle = VoprfServer::<Ristretto255>::new_with_key(&secret).unwrap();

        let (blinding, _) = Blinding::new(&[&input], &mut random).unwrap();
        let asked: Vec<&KeyShare> = chosen.iter().map(|i| &shares[*i]).collect();
        let answers = verify_all(&blinding, &group, &asked, &mut random);
        let output = blinding.finalize(&combine(3, &answers).unwrap()).unwrap();
        prop_assert_eq!(&output[0][..], &oracle.evaluate(&input).unwrap()[..]);
    }

    #[test]
    fn keys_round_trip(seed in any::<u64>(), (threshold, count) in (1u16..6).prop_flat_map(|n| (1..=n, prop::strategy::Just(n)))) {
        let (group, shares) = deal(threshold, count, &mut stream(seed)).unwrap();
        prop_assert_eq!(&GroupKey::from_bytes(&group.to_bytes()).unwrap(), &group);
        for share in &shares {
            let bytes = share.to_bytes();
            let read = KeyShare::from_bytes(&bytes).unwrap();
            prop_assert_eq!(&*read.to_bytes(), &*bytes);
            prop_assert_eq!(Some(&read.public()), group.share(share.index()));
            let public = share.public();
            prop_assert_eq!(PublicShare::from_bytes(&public.to_bytes()).unwrap(), public);
        }
    }

    /// Whatever bytes arrive, decoding answers and never ends the process; what it takes, it writes back.
    #[test]
    fn decoders_take_only_what_they_write(bytes in prop::collection::vec(any::<u8>(), 0..120)) {
        if let Ok(key) = GroupKey::from_bytes(&bytes) { prop_assert_eq!(key.to_bytes(), bytes.clone()); }
        if let Ok(key) = KeyShare::from_bytes(&bytes) { prop_assert_eq!(key.to_bytes().to_vec(), bytes.clone()); }
        if let Ok(key) = PublicShare::from_bytes(&bytes) { prop_assert!(key.to_bytes()[..] == bytes[..]); }
    }
}

#[test]
fn a_lying_share_is_caught_by_name() {
    let mut random = stream(7);
    let (group, shares) = deal(3, 5, &mut random).unwrap();
    let (_, foreign) = deal(3, 5, &mut random).unwrap();
    let (blinding, blinded) = Blinding::new(&[b"a", b"b"], &mut random).unwrap();
    let public = group.share(4).unwrap();

    let wrong_key = evaluate(&foreign[3], &blinded, &mut random).unwrap();
    assert_eq!(
        blinding.verify(public, &wrong_key).unwrap_err(),
        OprfError::Proof { index: 4 }
    );

    let honest = evaluate(&shares[3], &blinded, &mut random).unwrap();
    blinding.verify(public, &honest).unwrap();

    let mut one_swapped = honest.clone();
    one_swapped.elements[1] = wrong_key.elements[1];
    assert_eq!(
        blinding.verify(public, &one_swapped).unwrap_err(),
        OprfError::Proof { index: 4 }
    );

    let mut reordered = honest.clone();
    reordered.elements.swap(0, 1);
    assert_eq!(
        blinding.verify(public, &reordered).unwrap_err(),
        OprfError::Proof { index: 4 }
    );

    for bit in 0..512 {
        let mut tampered = honest.clone();
        tampered.proof[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(
            blinding.verify(public, &tampered).unwrap_err(),
            OprfError::Proof { index: 4 }
        );
    }

    // An honest answer claimed by another authority does not hold either.
    let other = group.share(5).unwrap();
    assert_eq!(
        blinding.verify(other, &honest).unwrap_err(),
        OprfError::Proof { index: 5 }
    );
}

#[test]
fn malformed_answers_name_the_authority() {
    let mut random = stream(8);
    let (group, shares) = deal(1, 2, &mut random).unwrap();
    let (blinding, blinded) = Blinding::new(&[b"a", b"b"], &mut random).unwrap();
    let public = group.share(2).unwrap();
    let honest = evaluate(&shares[1], &blinded, &mut random).unwrap();

    let mut short = honest.clone();
    short.elements.pop();
    let refused = blinding.verify(public, &short).unwrap_err();
    assert_eq!(
        refused,
        OprfError::AnswerSize {
            index: 2,
            got: 1,
            asked: 2
        }
    );

    for bad in [[0; 32], [0xff; 32], NEGATIVE] {
        let elements = vec![honest.elements[0], bad];
        let answer = Evaluation {
            elements,
            proof: honest.proof,
        };
        let refused = blinding.verify(public, &answer).unwrap_err();
        assert_eq!(refused, OprfError::AnswerPoint { index: 2, position: 1 });
    }
}

/// A negative field element, hence no canonical encoding (RFC 9496 appendix A.2).
const NEGATIVE: [u8; 32] = {
    let mut bytes = [0; 32];
    bytes[0] = 1;
    bytes
};

/// RFC 9496 appendix A.2: each must be refused.
const BAD_ENCODINGS: [&str; 8] = [
    "00ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
    "ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "f3ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "0100000000000000000000000000000000000000000000000000000000000000",
    "01ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "ed57ffd8c914fb201471d1c3d245ce3c746fcbe63a3679d51b6a516ebebe0e20",
    "26948d35ca62e643e26a83177332e6b6afeb9d08e4268b650f1f5bbd8d81d371",
];

#[test]
fn malformed_points_are_refused() {
    let share = &deal(1, 1, &mut stream(9)).unwrap().1[0];
    let (_, good) = Blinding::new(&[b"a"], &mut stream(10)).unwrap();
    let identity = "00".repeat(32);
    for text in BAD_ENCODINGS.into_iter().chain([identity.as_str()]) {
        let bad: [u8; 32] = hex::decode(text).unwrap().try_into().unwrap();
        let refused = evaluate(share, &[good[0], BlindedElement(bad)], &mut stream(1)).unwrap_err();
        assert_eq!(
            refused,
            OprfError::Point {
                what: "the blinded element",
                position: 1
            }
        );
        assert!(
            matches!(PublicShare::new(1, &bad), Err(OprfError::Point { .. })),
            "{text}"
        );
    }
}

#[test]
fn scalars_must_be_canonical_and_not_zero() {
    let order = "edd3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010";
    for text in [order, &"00".repeat(32), &"ff".repeat(32)] {
        let bytes: [u8; 32] = hex::decode(text).unwrap().try_into().unwrap();
        assert!(
            matches!(KeyShare::single(&bytes), Err(OprfError::Scalar { .. })),
            "{text}"
        );
    }
}

#[test]
fn limits_hold() {
    let mut random = stream(11);
    let share = &deal(1, 1, &mut random).unwrap().1[0];
    let long = vec![b'x'; 1025];
    let refused = Blinding::new(&[b"a", &long], &mut random).unwrap_err();
    assert_eq!(
        refused,
        OprfError::InputSize {
            position: 1,
            length: 1025
        }
    );
    let refused = Blinding::new(&[b""], &mut random).unwrap_err();
    assert_eq!(refused, OprfError::InputSize { position: 0, length: 0 });
    let many = vec![b"x".as_slice(); EVALUATE_BATCH_MAX + 1];
    assert_eq!(
        Blinding::new(&many, &mut random).unwrap_err(),
        OprfError::BatchSize {
            count: EVALUATE_BATCH_MAX + 1
        }
    );
    assert_eq!(
        Blinding::new(&[], &mut random).unwrap_err(),
        OprfError::BatchSize { count: 0 }
    );
    let (blinding, full) = Blinding::new(&many[1..], &mut random).unwrap();
    let evaluation = evaluate(share, &full, &mut random).unwrap();
    blinding.verify(&share.public(), &evaluation).unwrap();
    let over = vec![full[0]; EVALUATE_BATCH_MAX + 1];
    assert_eq!(
        evaluate(share, &over, &mut random).unwrap_err(),
        OprfError::BatchSize {
            count: EVALUATE_BATCH_MAX + 1
        }
    );
    assert_eq!(
        evaluate(share, &[], &mut random).unwrap_err(),
        OprfError::BatchSize { count: 0 }
    );
    for (threshold, count) in [(0, 1), (2, 1), (0, 0), (1, 65)] {
        assert!(matches!(
            deal(threshold, count, &mut random),
            Err(OprfError::Threshold { .. })
        ));
    }
    let zeros = &mut |buffer: &mut [u8]| buffer.fill(0);
    assert_eq!(deal(1, 1, zeros).unwrap_err(), OprfError::Randomness);
    assert_eq!(evaluate(share, &full, zeros).unwrap_err(), OprfError::Randomness);
}

#[test]
fn combination_needs_enough_distinct_answers_to_one_batch() {
    let mut random = stream(12);
    let (group, shares) = deal(2, 3, &mut random).unwrap();
    let (one, _) = Blinding::new(&[b"one"], &mut random).unwrap();
    let (two, _) = Blinding::new(&[b"two"], &mut random).unwrap();

    let few = verify_all(&one, &group, &[&shares[0]], &mut random);
    assert_eq!(combine(2, &few).unwrap_err(), OprfError::TooFew { have: 1, need: 2 });
    assert_eq!(combine(0, &few).unwrap_err(), OprfError::TooFew { have: 1, need: 0 });

    let twice = verify_all(&one, &group, &[&shares[0], &shares[0]], &mut random);
    assert_eq!(combine(2, &twice).unwrap_err(), OprfError::Repeated { index: 1 });

    let mut mixed = verify_all(&one, &group, &[&shares[0]], &mut random);
    mixed.extend(verify_all(&two, &group, &[&shares[1]], &mut random));
    assert_eq!(combine(2, &mixed).unwrap_err(), OprfError::OtherBatch);

    let right = verify_all(&one, &group, &[&shares[2], &shares[0]], &mut random);
    let combined = combine(2, &right).unwrap();
    assert_eq!(two.finalize(&combined).unwrap_err(), OprfError::OtherBatch);
    assert_eq!(one.finalize(&combined).unwrap().len(), 1);
}

#[test]
fn a_group_key_must_be_one_polynomial() {
    let mut random = stream(13);
    let (group, _) = deal(2, 4, &mut random).unwrap();
    let (other, _) = deal(2, 4, &mut random).unwrap();
    let build = |shares: Vec<PublicShare>, public| GroupKey::new(2, shares, public);
    assert_eq!(build(group.shares().to_vec(), *group.public()).unwrap(), group);

    let refused = build(group.shares().to_vec(), *other.public()).unwrap_err();
    assert_eq!(refused, OprfError::Inconsistent { index: 1 });
    let mut foreign = group.shares().to_vec();
    foreign[3] = other.shares()[3];
    let refused = build(foreign, *group.public()).unwrap_err();
    assert_eq!(refused, OprfError::Inconsistent { index: 4 });
    let mut twice = group.shares().to_vec();
    twice[2] = twice[1];
    assert_eq!(
        build(twice, *group.public()).unwrap_err(),
        OprfError::Repeated { index: 2 }
    );

    let bytes = group.to_bytes();
    for cut in 0..bytes.len() {
        assert!(GroupKey::from_bytes(&bytes[..cut]).is_err(), "cut at {cut}");
    }
    let longer = [bytes.as_slice(), &[0]].concat();
    assert!(matches!(GroupKey::from_bytes(&longer), Err(OprfError::Encoding { .. })));
}

#[test]
fn secrets_do_not_print() {
    let mut random = stream(14);
    let (_, shares) = deal(2, 2, &mut random).unwrap();
    assert_eq!(format!("{:?}", shares[0]), "KeyShare { index: 1, threshold: 2, .. }");
    let (blinding, _) = Blinding::new(&[b"name|date"], &mut random).unwrap();
    assert_eq!(format!("{blinding:?}"), "Blinding { inputs: 1, .. }");
}
