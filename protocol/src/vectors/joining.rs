//! Invitations and check words: `invitation.json` and `words.json` in `protocol/vectors`.

use serde_json::{Value, json};

use super::frozen;
use crate::invitation::{Draft, Invitation};
use crate::words::{WORDS, check_words};

fn draft() -> Draft {
    Draft {
        region: "Northport Region".into(),
        root_fingerprint: [7; 32],
        address: "authority.example:8440".into(),
        secret: [9; 16],
        expires_at_s: 1_790_000_000,
        organisation: "urn:oid:2.999.7.1".into(),
        organisation_name: "Sankt Örjan Hospital".into(),
    }
}

fn read(name: &str, text: &str, draft: &Draft) -> Value {
    let invitation = Invitation::parse(text).unwrap();
    assert!(invitation == Invitation::new(draft.clone()).unwrap(), "{name}");
    json!({
        "name": name, "outcome": "read", "text": text, "region": draft.region, "root_fingerprint": hex::encode(draft.root_fingerprint),
        "address": draft.address, "secret": hex::encode(draft.secret), "expires_at_s": draft.expires_at_s,
        "organisation": draft.organisation, "organisation_name": draft.organisation_name,
    })
}

fn refused(name: &str, text: &str) -> Value {
    assert!(Invitation::parse(text).is_err(), "{name}");
    json!({ "name": name, "outcome": "refused", "text": text })
}

#[test]
fn spec_p_inv_vectors_do_not_change() {
    let draft = draft();
    let invitation = Invitation::new(draft.clone()).unwrap();
    let text = invitation.to_text().to_string();
    let mut ipv6 = draft.clone();
    ipv6.address = "[2001:db8::1]:8440".into();
    let other = Invitation::new(ipv6.clone()).unwrap().to_text().to_string();
    let body = &text["hie-inv1-".len()..];
    let look_alikes = body.replace('0', "o").replace('1', "l");
    let swapped = {
        let mut letters: Vec<char> = text.chars().collect();
        let at = "hie-inv1-".len() + 10;
        letters[at] = if letters[at] == '7' { '8' } else { '7' };
        letters.into_iter().collect::<String>()
    };
    let cases = vec![
        json!({ "written": text, "file": invitation.to_file_text().to_string(), "name": "the two forms written", "outcome": "written" }),
        read("one line", &text, &draft),
        read("the file form", &invitation.to_file_text(), &draft),
        read(
            "lower case without hyphens",
            &text.to_lowercase().replace('-', ""),
            &draft,
        ),
        read("look-alikes", &format!("hie-inv1-{look_alikes}"), &draft),
        read(
            "dashes of a word processor",
            &text.replace('-', "\u{2013}\u{200b}"),
            &draft,
        ),
        read("an IPv6 address", &other, &ipv6),
        refused("another beginning", &text.replacen("hie-inv1", "hie-out1", 1)),
        refused("another version", &text.replacen("hie-inv1", "hie-inv2", 1)),
        refused("a character too few", &text[..text.len() - 1]),
        refused("another character", &swapped),
        refused("a character that is none", &text.replacen(&body[..1], "U", 1)),
        refused("the beginning alone", "hie-inv1-"),
        refused("nothing", ""),
        refused("too long", &format!("{text}{}", " ".repeat(4096))),
    ];
    frozen(
        "invitation.json",
        &json!({ "about": "invitations as text; read with these fields, or refused", "cases": cases }),
    );
}

#[test]
fn check_words_and_their_list_do_not_change() {
    let cases: Vec<Value> = [vec![2; 32], vec![1; 32], (0..32).collect()]
        .iter()
        .map(|fingerprint: &Vec<u8>| json!({ "name": hex::encode(fingerprint), "fingerprint": hex::encode(fingerprint), "words": check_words(fingerprint) }))
        .collect();
    let list: Vec<&str> = WORDS.to_vec();
    frozen(
        "words.json",
        &json!({ "about": "the list of check words and the words of some fingerprints", "cases": cases, "list": list }),
    );
}
