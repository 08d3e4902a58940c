#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use proptest::prelude::{Strategy, any, prop_assert_eq, proptest};

use super::{Draft, Invitation, InvitationError, PREFIX, TEXT_LEN_MAX};

fn draft() -> Draft {
    Draft {
        region: "Northport Region".to_owned(),
        root_fingerprint: [0x9c; 32],
        address: "enrol.northport.example:8443".to_owned(),
        secret: [0x42; 16],
        expires_at_s: 1_795_000_000,
        organisation: "urn:oid:2.16.840.1.113883.3.72.5".to_owned(),
        organisation_name: "St. Anne's Hospital, Zürich".to_owned(),
    }
}

const FROZEN: &str = "hie-inv1-KJE9-S74W-KJE9-S74W-KJE9-S74W-KJE9-S74W-KJE9-S74W-KJE9-S74W-KJE4-4GJ2-8914-4\
    GJ2-8914-4GJ2-8914-4000-0006-NZC6-R084-WVVJ-EHM7-0VVJ-EGG5-4SB7-D5QP-W735-DSS6-YV1E-D\
    SQQ-4X38-E1QQ-4X1E-CNW6-2VBG-DHJK-ME1M-6GSJ-0XBJ-DRX6-YTB4-78S2-WC9P-5RW3-8C1E-64Q3-2\
    C9K-70W3-6BHK-5RVK-4BHN-3H9Q-8BH0-85Q6-WS97-ECG4-GVVK-E1MQ-8RBC-5GG5-NGXW-E9MP-6T3Y-4\
    6V6-KEG";

#[test]
fn the_text_is_frozen() {
    let invitation = Invitation::new(draft()).unwrap();
    assert_eq!(invitation.to_text().as_str(), FROZEN);
    assert_eq!(Invitation::parse(FROZEN).unwrap(), invitation);
    assert_eq!(invitation.organisation_name(), "St. Anne's Hospital, Zürich");
    assert!(!invitation.is_expired(1_794_999_999));
    assert!(invitation.is_expired(1_795_000_000));
}

#[test]
fn reading_forgives_how_people_paste() {
    let invitation = Invitation::new(draft()).unwrap();
    let file = invitation.to_file_text();
    assert!(file.lines().all(|line| line.len() <= 60));
    let look_alike = format!("{PREFIX}{}", FROZEN[PREFIX.len()..].replace('0', "o").replace('1', "l"));
    for text in [
        file.as_str(),
        &file.replace('\n', "\r\n"),
        &FROZEN.to_uppercase(),
        &FROZEN.to_lowercase(),
        &FROZEN.replace('-', ""),
        &FROZEN.replace('-', " - "),
        &FROZEN.replace('-', "\u{2013}"),
        &format!("\u{feff} \t{FROZEN}\n\n"),
        &look_alike,
    ] {
        assert_eq!(Invitation::parse(text).unwrap(), invitation);
    }
}

#[test]
fn faults_are_named() {
    let refused = |text: &str| Invitation::parse(text).unwrap_err();
    for text in [
        "",
        "hie",
        "hie-inv-",
        "N7QK-4D",
        "hie-invX-AAAA",
        "https://example.org/hie-inv1-A",
    ] {
        assert_eq!(refused(text), InvitationError::Prefix, "{text}");
    }
    let version = InvitationError::Version {
        version: "2".to_owned(),
    };
    assert_eq!(refused("hie-inv2-AAAA"), version);
    for text in [PREFIX, "hie-inv1-A", "hie-inv1-0000"] {
        assert_eq!(refused(text), InvitationError::Incomplete, "{text}");
    }
    let foreign = FROZEN.replacen(&FROZEN[15..16], "u", 1);
    assert!(matches!(refused(&foreign), InvitationError::Character { .. }));
    let eighth = format!("{}!{}", &FROZEN[..17], &FROZEN[18..]);
    assert_eq!(refused(&eighth), InvitationError::Character { position: 8, group: 2 });
    let long = "A".repeat(TEXT_LEN_MAX + 1);
    assert_eq!(
        refused(&long),
        InvitationError::TooLong {
            length: TEXT_LEN_MAX + 1
        }
    );
}

/// Every wrong, missing, doubled or swapped character is noticed.
#[test]
fn typing_mistakes_are_noticed() {
    let body: Vec<char> = FROZEN[PREFIX.len()..].chars().filter(|c| *c != '-').collect();
    let parse = |body: &[char]| Invitation::parse(&format!("{PREFIX}{}", body.iter().collect::<String>()));
    assert!(parse(&body).is_ok());
    for place in 0..body.len() {
        for other in "0123456789ABCDEFGHJKMNPQRSTVWXYZ".chars().filter(|c| *c != body[place]) {
            let mut wrong = body.clone();
            wrong[place] = other;
            let fault = parse(&wrong).unwrap_err();
            assert!(matches!(fault, InvitationError::Checksum | InvitationError::Incomplete));
        }
        assert!(parse(&body[..place]).is_err(), "cut at {place}");
        let mut missing = body.clone();
        missing.remove(place);
        assert!(parse(&missing).is_err(), "without {place}");
        let mut doubled = body.clone();
        doubled.insert(place, body[place]);
        assert!(parse(&doubled).is_err(), "doubled {place}");
        if place > 0 && body[place] != body[place - 1] {
            let mut swapped = body.clone();
            swapped.swap(place, place - 1);
            assert!(parse(&swapped).is_err(), "swapped {place}");
        }
    }
}

#[test]
fn impossible_parts_are_refused_by_name() {
    type Change = fn(&mut Draft);
    let cases: [(&str, Change); 20] = [
        ("region name", |d| d.region = String::new()),
        ("region name", |d| d.region = " x".to_owned()),
        ("region name", |d| d.region = "x".repeat(65)),
        ("region name", |d| d.region = "\u{10348}".repeat(64)),
        ("organisation name", |d| d.organisation_name = "a\nb".to_owned()),
        ("organisation name", |d| d.organisation_name = "  ".to_owned()),
        ("address", |d| d.address = "host".to_owned()),
        ("address", |d| d.address = ":1".to_owned()),
        ("address", |d| d.address = "host:0".to_owned()),
        ("address", |d| d.address = "host:+1".to_owned()),
        ("address", |d| d.address = "host:65536".to_owned()),
        ("address", |d| d.address = "a b:1".to_owned()),
        ("address", |d| d.address = "https://host:1".to_owned()),
        ("address", |d| d.address = "::1:1".to_owned()),
        ("address", |d| d.address = "-a.example:1".to_owned()),
        ("address", |d| d.address = format!("{}:1", "a.".repeat(127) + "a")),
        ("organisation id", |d| d.organisation = "2.16.840".to_owned()),
        ("organisation id", |d| d.organisation = "urn:oid:2".to_owned()),
        ("organisation id", |d| d.organisation = "urn:oid:2.016".to_owned()),
        ("organisation id", |d| {
            d.organisation = format!("urn:oid:1.{}", "1".repeat(120))
        }),
    ];
    for (expected, change) in cases {
        let mut wrong = draft();
        change(&mut wrong);
        match Invitation::new(wrong).unwrap_err() {
            InvitationError::Field { field, .. } => assert_eq!(field, expected),
            other => panic!("{other:?} instead of a fault in the {expected}"),
        }
    }
    for address in ["127.0.0.1:8443", "[::1]:8443", "[2001:db8::7]:1", "localhost:65535"] {
        let mut right = draft();
        right.address = address.to_owned();
        assert_eq!(Invitation::new(right).unwrap().address(), address);
    }
}

#[test]
fn the_secret_does_not_print() {
    let invitation = Invitation::new(draft()).unwrap();
    let shown = format!("{invitation:?} {:?}", draft());
    assert!(shown.contains("Northport"));
    assert!(!shown.contains("42") && !shown.contains("66"), "{shown}");
}

proptest! {
    #[test]
    fn invitations_round_trip(
        (region, organisation_name) in ("[a-zA-Zéß字]{1,64}", "[a-zA-Z' .]{1,62}".prop_map(|s| format!("a{s}z"))),
        root_fingerprint in any::<[u8; 32]>(),
        secret in any::<[u8; 16]>(),
        expires_at_s in any::<u64>(),
        port in 1u16..,
        arcs in proptest::collection::vec(0u32.., 1..8),
    ) {
        let address = format!("host.example:{port}");
        let dotted: Vec<String> = arcs.iter().map(u32::to_string).collect();
        let organisation = format!("urn:oid:1.{}", dotted.join("."));
        let draft = Draft { region, root_fingerprint, address, secret, expires_at_s, organisation, organisation_name };
        let invitation = Invitation::new(draft).unwrap();
        prop_assert_eq!(Invitation::parse(&invitation.to_text()).unwrap(), invitation.clone());
        prop_assert_eq!(Invitation::parse(&invitation.to_file_text()).unwrap(), invitation);
    }

    #[test]
    fn hostile_text_ends_in_an_answer(text in "(hie-inv1-)?\\PC{0,200}") {
        if let Ok(read) = Invitation::parse(&text) {
            prop_assert_eq!(Invitation::parse(&read.to_text()).unwrap(), read);
        }
    }
}
