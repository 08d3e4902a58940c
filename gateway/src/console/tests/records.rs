//! The pages of the consent administrator and the auditor, and the script.

use super::site;
use crate::twins::region::{self, GRACE, NOW};

#[tokio::test]
async fn a_consent_is_saved_only_as_previewed() {
    let site = site();
    let (cookie, token) = site.sign_in("ruiz").await;
    let path = format!("/consent/{GRACE}");
    assert!(
        site.get(&cookie, &path)
            .await
            .body
            .contains("No choice recorded. The region's default applies.")
    );
    let lakeside = region::org(5);
    let choices = [
        ("share", "yes"),
        ("except", lakeside.as_str()),
        ("withhold", "substance-use"),
        ("emergency", "except-withheld"),
        ("form_token", token.as_str()),
    ];
    let with = |more: &[(&'static str, &'static str)]| {
        choices
            .iter()
            .map(|(a, b)| (*a, (*b).to_owned()))
            .chain(more.iter().map(|(a, b)| (*a, (*b).to_owned())))
            .collect::<Vec<_>>()
    };
    let send = async |fields: Vec<(&str, String)>| {
        let fields: Vec<(&str, &str)> = fields.iter().map(|(a, b)| (*a, b.as_str())).collect();
        site.post(&cookie, &path, &fields).await
    };
    send(with(&[("action", "signed")])).await;
    assert!(
        site.twin.world().consents.is_empty(),
        "nothing is saved that was not previewed"
    );
    let preview = send(with(&[("action", "preview")])).await;
    let mark = "name=\"previewed\" value=\"";
    let start = preview.body.find(mark).unwrap() + mark.len();
    let seal = preview.body[start..start + 64].to_owned();
    let mut changed = with(&[("action", "signed"), ("withhold", "hiv")]);
    changed.push(("previewed", seal.clone()));
    assert!(
        send(changed)
            .await
            .body
            .contains("The choices changed after the preview.")
    );
    assert!(site.twin.world().consents.is_empty());
    let mut fields = with(&[("action", "signed")]);
    fields.push(("previewed", seal));
    assert!(send(fields).await.body.contains("Saved and in force here."));
    let saved = site.twin.world().consents[0].clone();
    assert_eq!(saved["patient"]["reference"], "Patient/p-grace");
    assert!(
        site.get(&cookie, &path)
            .await
            .body
            .contains("closed for Lakeside Clinic")
    );
}

#[tokio::test]
async fn the_access_log_pages_by_cursor_and_drops_filters() {
    let site = site();
    {
        let mut world = site.twin.world();
        world.accesses = (0..120)
            .rev()
            .map(|index| crate::ports::AccessEntry {
                index,
                at: NOW,
                sentence: format!("Dr P. Lin opened Summary {index}."),
                emergency: index % 2 == 0,
                correlation: String::new(),
                event: serde_json::Value::Null,
            })
            .collect();
    }
    let (cookie, token) = site.sign_in("silva").await;
    let first = site.get(&cookie, "/access-log").await;
    assert!(first.body.contains("entries 70–119") && first.body.contains("name=\"before\" value=\"70\""));
    let second = site
        .post(&cookie, "/access-log", &[("before", "70"), ("form_token", &token)])
        .await;
    assert!(second.body.contains("entries 20–69"));
    let filtered = site
        .post(
            &cookie,
            "/access-log",
            &[("emergency", "only"), ("text", "lin"), ("form_token", &token)],
        )
        .await;
    assert!(filtered.body.contains("✕ Emergency access only") && filtered.body.contains("✕ About lin"));
    site.post(
        &cookie,
        "/access-log",
        &[
            ("emergency", "only"),
            ("text", "lin"),
            ("without", "emergency"),
            ("form_token", &token),
        ],
    )
    .await;
    let last = site.twin.world().asked.last().cloned().unwrap();
    assert!(!last.emergency_only && last.text.as_deref() == Some("lin"));
}

#[test]
fn the_script_is_small_and_keeps_nothing() {
    let script = crate::console::assets::JS;
    assert!(script.lines().count() <= 400);
    for word in [
        "localStorage.",
        "sessionStorage.",
        "indexedDB",
        "document.cookie",
        "eval(",
        "innerHTML = html",
    ] {
        assert!(!script.contains(word), "{word}");
    }
}
