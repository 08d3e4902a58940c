#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod records;

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::header::{CONTENT_TYPE, COOKIE, LOCATION, SET_COOKIE};
use axum::http::{HeaderMap, Method, Request, StatusCode};
use futures::StreamExt;
use hie_protocol::refusal::Class;
use hie_protocol::vocabulary::{Purpose, Role};
use tower::ServiceExt;

use crate::gate::{Gate, Settings};
use crate::ports::{Completeness, OrgState, PortError, RecordEvent, SubjectRef};
use crate::routes::{Access, router};
use crate::session::IDLE_MS_MAX;
use crate::twins::region::{self, GRACE, NAMES, NOW, Summary, answer, answered, asking, organisation};
use crate::twins::{Twin, World};

/// Names and numbers of the patient that no address, title or header may hold.
const PERSONAL: [&str; 5] = ["okafor", "grace okafor", "482 193", "1961", "elm road"];

struct Site {
    twin: Arc<Twin>,
    router: Router,
}

struct Reply {
    status: StatusCode,
    headers: HeaderMap,
    body: String,
}

impl Reply {
    fn location(&self) -> &str {
        self.headers.get(LOCATION).map_or("", |value| value.to_str().unwrap())
    }

    /// The token of the page's forms.
    fn token(&self) -> &str {
        let mark = "name=\"form_token\" value=\"";
        let start = self.body.find(mark).expect("a form") + mark.len();
        &self.body[start..start + 64]
    }

    fn title(&self) -> &str {
        let start = self.body.find("<title>").unwrap() + 7;
        &self.body[start..self.body.find("</title>").unwrap()]
    }
}

impl Site {
    fn new(world: World, secure: bool) -> Self {
        let twin = Twin::new(world);
        let settings = Settings {
            organisation: "City General".into(),
            secure,
            emergency_minutes: 60,
            utc_offset_minutes: 0,
            fhir_base: "https://hie.example/fhir".into(),
            tell_withheld: true,
        };
        let router = router(Gate::new(twin.ports(), settings));
        Self { twin, router }
    }

    async fn send(&self, request: Request<Body>) -> Reply {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = to_bytes(body, 1 << 22).await.unwrap();
        Reply {
            status: parts.status,
            headers: parts.headers,
            body: String::from_utf8_lossy(&bytes).into_owned(),
        }
    }

    async fn get(&self, cookie: &str, path: &str) -> Reply {
        self.send(Request::get(path).header(COOKIE, cookie).body(Body::empty()).unwrap())
            .await
    }

    async fn post(&self, cookie: &str, path: &str, fields: &[(&str, &str)]) -> Reply {
        let escape = |text: &str| {
            text.bytes()
                .map(|byte| {
                    if byte.is_ascii_alphanumeric() {
                        (byte as char).to_string()
                    } else {
                        format!("%{byte:02X}")
                    }
                })
                .collect::<String>()
        };
        let form = fields
            .iter()
            .map(|(name, value)| format!("{}={}", name, escape(value)))
            .collect::<Vec<_>>()
            .join("&");
        let request = Request::post(path)
            .header(COOKIE, cookie)
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded");
        self.send(request.body(Body::from(form)).unwrap()).await
    }

    /// Signs in; returns the cookie and the form token.
    async fn sign_in(&self, account: &str) -> (String, String) {
        let reply = self
            .post("", "/sign-in", &[("account", account), ("password", "correct horse")])
            .await;
        assert_eq!(reply.status, StatusCode::SEE_OTHER, "{}", reply.body);
        let cookie = reply.headers[SET_COOKIE]
            .to_str()
            .unwrap()
            .split(';')
            .next()
            .unwrap()
            .to_owned();
        let home = self.get(&cookie, "/").await;
        let page = self.get(&cookie, home.location()).await;
        let token = page.token().to_owned();
        (cookie, token)
    }
}

fn site() -> Site {
    Site::new(region::world(), false)
}

/// Opens the patient's record and waits until all has arrived, by reading the stream to its end.
async fn opened(site: &Site, cookie: &str) -> Reply {
    let stream = site.get(cookie, &format!("/record/{GRACE}/events")).await;
    assert!(stream.body.contains("event: done"), "{}", stream.body);
    site.get(cookie, &format!("/record/{GRACE}")).await
}

#[tokio::test]
async fn sign_in_gives_a_bound_cookie_and_sign_out_clears() {
    let site = Site::new(region::world(), true);
    let reply = site
        .post("", "/sign-in", &[("account", "haddad"), ("password", "correct horse")])
        .await;
    let cookie = reply.headers[SET_COOKIE].to_str().unwrap().to_owned();
    assert!(cookie.starts_with("__Host-hie="), "{cookie}");
    for part in ["HttpOnly", "SameSite=Strict", "Secure", "Path=/"] {
        assert!(cookie.contains(part), "{part}");
    }
    assert_eq!(reply.headers["strict-transport-security"], crate::headers::HSTS);
    let cookie = cookie.split(';').next().unwrap().to_owned();
    let page = site.get(&cookie, "/find").await;
    assert!(page.body.contains("Dr A. Haddad, Emergency"));
    let gone = site.post(&cookie, "/sign-out", &[("form_token", page.token())]).await;
    assert!(gone.headers["clear-site-data"].to_str().unwrap().contains("storage"));
    assert_eq!(site.get(&cookie, "/find").await.location(), "/sign-in");
}

#[tokio::test]
async fn wrong_and_unknown_look_alike_and_failures_slow_down() {
    let site = site();
    let wrong = site
        .post("", "/sign-in", &[("account", "haddad"), ("password", "no")])
        .await;
    let unknown = site
        .post("", "/sign-in", &[("account", "nobody"), ("password", "no")])
        .await;
    assert_eq!((wrong.status, &wrong.body), (unknown.status, &unknown.body));
    assert_eq!(wrong.status, StatusCode::UNAUTHORIZED);
    for _ in 0..4 {
        site.post("", "/sign-in", &[("account", "haddad"), ("password", "no")])
            .await;
    }
    let braked = site
        .post("", "/sign-in", &[("account", "haddad"), ("password", "correct horse")])
        .await;
    assert_eq!(braked.status, StatusCode::TOO_MANY_REQUESTS);
    site.twin.world().now = NOW.plus(2_001);
    site.sign_in("haddad").await;
}

#[tokio::test]
async fn an_idle_session_ends() {
    let site = site();
    let (cookie, _) = site.sign_in("haddad").await;
    site.twin.world().now = NOW.plus(IDLE_MS_MAX + 1);
    assert_eq!(site.get(&cookie, "/find").await.location(), "/sign-in");
}

#[tokio::test]
async fn a_form_without_its_token_or_from_elsewhere_is_refused() {
    let site = site();
    let (cookie, token) = site.sign_in("haddad").await;
    for fields in [vec![("text", "okafor")], vec![("text", "okafor"), ("form_token", "00")]] {
        assert_eq!(site.post(&cookie, "/find", &fields).await.status, StatusCode::FORBIDDEN);
    }
    let request = Request::post("/find")
        .header(COOKIE, &cookie)
        .header("sec-fetch-site", "cross-site")
        .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
        .body(Body::from(format!("text=okafor&form_token={token}")))
        .unwrap();
    assert_eq!(site.send(request).await.status, StatusCode::FORBIDDEN);
    assert_eq!(
        site.post(&cookie, "/find", &[("text", "okafor"), ("form_token", &token)])
            .await
            .status,
        StatusCode::OK
    );
    let large = "x".repeat(crate::routes::FORM_BYTES_MAX);
    assert_eq!(
        site.post(&cookie, "/find", &[("text", &large), ("form_token", &token)])
            .await
            .status,
        StatusCode::PAYLOAD_TOO_LARGE
    );
}

#[tokio::test]
async fn a_missing_role_looks_like_an_unknown_path() {
    let site = site();
    let (cookie, _) = site.sign_in("silva").await;
    let without_reference = |reply: &Reply| {
        reply
            .body
            .lines()
            .filter(|line| !line.contains("Reference"))
            .collect::<String>()
    };
    let unknown = site.get(&cookie, "/no-such-page").await;
    for path in ["/find", "/node", &format!("/record/{GRACE}"), "/consent/x"] {
        let refused = site.get(&cookie, path).await;
        assert_eq!(refused.status, StatusCode::NOT_FOUND, "{path}");
        assert_eq!(without_reference(&refused), without_reference(&unknown), "{path}");
    }
    assert_eq!(site.get(&cookie, "/access-log").await.status, StatusCode::OK);
    let (doctor, _) = site.sign_in("haddad").await;
    let nav = site.get(&doctor, "/find").await;
    assert!(
        !nav.body.contains("/access-log") && !nav.body.contains("href=\"/node\""),
        "navigation by role"
    );
}

/// The account whose role a route asks for.
fn account(requires: Access) -> Option<&'static str> {
    match requires {
        Access::Session(roles) => Some(match roles.first() {
            Some(Role::Auditor) => "silva",
            Some(Role::Operator) => "okoye",
            Some(Role::ConsentAdministrator) => "ruiz",
            _ => "haddad",
        }),
        Access::Open | Access::Api(_) => None,
    }
}

/// What a handler of the console answers when it was reached, by route; a refusal before it never looks like this.
fn reached(method: &Method, path: &str) -> &'static [u16] {
    match (method.as_str(), path) {
        ("GET", "/") => &[303],
        ("POST", "/sign-out" | "/theme" | "/record" | "/record/{subject}/close" | "/consent") => &[303],
        ("POST", "/find" | "/record/{subject}/emergency") => &[400],
        (_, path) if path.contains("/study/") => &[404, 503],
        _ => &[200],
    }
}

#[tokio::test]
async fn every_answer_carries_the_headers() {
    let mut handlers = 0;
    for route in crate::routes::table() {
        // Its own world: some handlers end the session or close the record.
        let site = site();
        let account = account(route.requires);
        let (cookie, token) = match account {
            Some(account) => site.sign_in(account).await,
            None => (String::new(), String::new()),
        };
        if account == Some("haddad") {
            opened(&site, &cookie).await;
        }
        let path = route.path.replace("{subject}", GRACE).replace("{document}", "letter");
        let place = format!("{} {path}", route.method);
        let body = if route.method == Method::POST {
            format!("form_token={token}&subject={GRACE}")
        } else {
            String::new()
        };
        let request = Request::builder()
            .method(route.method.clone())
            .uri(&path)
            .header(COOKIE, &cookie)
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(Body::from(body))
            .unwrap();
        let reply = site.send(request).await;
        for name in [
            "content-security-policy",
            "cache-control",
            "referrer-policy",
            "x-content-type-options",
            "x-frame-options",
        ] {
            assert!(reply.headers.contains_key(name), "{place}: {name}");
        }
        let policy = reply.headers["content-security-policy"].to_str().unwrap();
        let foreign = route.path.ends_with("/original");
        assert_eq!(policy == crate::headers::CSP_FOREIGN, foreign, "{place}: {policy}");
        assert!(policy.starts_with("default-src 'none'"), "{place}: {policy}");
        if !path.starts_with("/assets") {
            assert_eq!(reply.headers["cache-control"], "no-store", "{place}");
        }
        if account.is_some() {
            let status = reply.status.as_u16();
            assert!(
                reached(&route.method, route.path).contains(&status),
                "{place}: {status}"
            );
            let signed_out = reply.headers.contains_key("clear-site-data");
            assert_eq!(
                reply.location() == "/sign-in",
                signed_out,
                "{place}: the session was refused"
            );
            handlers += 1;
        }
    }
    assert!(handlers >= 20, "{handlers} handlers of the console were reached");
    let unknown = site().get("", "/nothing/here").await;
    assert_eq!(unknown.headers["content-security-policy"], crate::headers::CSP);
}

#[tokio::test]
async fn find_grades_and_never_opens_by_itself() {
    let site = site();
    let (cookie, token) = site.sign_in("haddad").await;
    let find = async |text: &str| {
        site.post(&cookie, "/find", &[("text", text), ("form_token", &token)])
            .await
    };
    let one = find("okafor").await;
    assert_eq!(one.status, StatusCode::OK);
    for part in [
        "1 person found.",
        "OKAFOR, Grace (Ms)",
        "14-Mar-1961",
        "(65y)",
        "CERTAIN",
        "Known at 4 organisations",
    ] {
        assert!(one.body.contains(part), "{part}");
    }
    assert!(site.twin.world().opened.is_empty());
    assert!(find("nobody").await.body.contains("No one found."));
    assert_eq!(find("").await.status, StatusCode::BAD_REQUEST);
    let many = region::grace();
    site.twin.world().people = vec![many; 21];
    let many = find("okafor").await;
    assert!(many.body.contains("More than 20 people. Add a birth date or a number.") && !many.body.contains("OKAFOR"));
    site.twin.world().search = Some(Completeness::Partial {
        silent: vec![answer(5, NAMES[5], OrgState::TimedOut(5000), 0)],
        as_of: NOW,
    });
    assert!(
        find("nobody")
            .await
            .body
            .contains("1 organisation did not answer: Lakeside Clinic.")
    );
    site.twin.world().failure = Some(PortError {
        class: Class::Unavailable,
        what: "x".into(),
    });
    assert!(find("okafor").await.body.contains("Search did not reach the exchange."));
}

#[tokio::test]
async fn the_emergency_view_shows_all_and_names_what_is_missing() {
    let site = site();
    let (cookie, _) = site.sign_in("haddad").await;
    let page = opened(&site, &cookie).await;
    for part in [
        "OKAFOR, Grace (Ms)",
        "5 of 7 organisations answered.",
        "No answer: Lakeside Clinic (timed out), North Imaging (offline since 03:10). This record may be incomplete.",
        "Penicillin and 1 other allergy at 2 organisations; Harbour GP says “no known allergies” (12-Jan-2019) yet lists codeine. Treat as allergic.",
        "2 organisations did not answer",
        "Doses differ",
        "6, from 4 organisations",
        "City General agrees",
        "Past medications (1)",
        "answered: no record of this patient",
        "Interactions are not being checked.",
        "North Imaging not checked (offline)",
        "/study/xray",
        "/document/letter",
    ] {
        assert!(page.body.contains(part), "{part}\n{}", page.body);
    }
    for part in ["855332", "91936005", ">AMB<", "null", "N/A", "<script>alert"] {
        assert!(!page.body.contains(part), "{part}");
    }
    assert_eq!(site.twin.world().opened.len(), 1, "the page and its stream ask once");
}

#[tokio::test]
async fn the_stream_numbers_its_steps_and_resumes() {
    let site = site();
    let feed = site.twin.feed(&SubjectRef(GRACE.into()));
    let (cookie, _) = site.sign_in("haddad").await;
    let first = site.get(&cookie, &format!("/record/{GRACE}")).await;
    assert!(first.body.contains("data-from=\"0\""), "{}", first.body);
    assert!(first.body.contains("Allergies unavailable"), "nobody is asked yet");
    let request = Request::get(format!("/record/{GRACE}/events"))
        .header(COOKIE, &cookie)
        .body(Body::empty())
        .unwrap();
    let mut stream = site
        .router
        .clone()
        .oneshot(request)
        .await
        .unwrap()
        .into_body()
        .into_data_stream();
    let mut next = async || String::from_utf8(stream.next().await.unwrap().unwrap().to_vec()).unwrap();

    feed.send(asking(&NAMES[..2])).await.unwrap();
    let step = next().await;
    assert!(
        step.contains("id: 1\n") && step.contains("event: step") && step.contains("Asking 2 organisations."),
        "{step}"
    );
    assert!(step.contains("0 of 2 answered"));
    feed.send(answered(
        1,
        NAMES[1],
        &Summary::new().problem("195967001", "Asthma", "1974-01-01", None),
    ))
    .await
    .unwrap();
    let step = next().await;
    assert!(
        step.contains("id: 2\n") && step.contains("St Anne Hospital answered.") && step.contains("Asthma"),
        "{step}"
    );
    feed.send(RecordEvent::Done(Completeness::Partial {
        silent: vec![answer(0, NAMES[0], OrgState::TimedOut(5000), 0)],
        as_of: NOW,
    }))
    .await
    .unwrap();
    assert!(next().await.contains("1 organisation did not answer."));
    let late = Summary::new().allergy("91936005", "penicillin", Some(("anaphylaxis", "severe")), "2021-01-01");
    feed.send(organisation(
        answer(0, NAMES[0], OrgState::Answered, 9000),
        Some(late.bytes()),
        Vec::new(),
    ))
    .await
    .unwrap();
    let step = next().await;
    assert!(
        step.contains("id: 4\n")
            && step.contains("Allergy added: penicillin, severe.")
            && step.contains("New 13:32:00, City General"),
        "{step}"
    );
    drop(feed);
    assert!(next().await.contains("event: done"));

    let request = Request::get(format!("/record/{GRACE}/events"))
        .header(COOKIE, &cookie)
        .header("last-event-id", "3")
        .body(Body::empty())
        .unwrap();
    let again = site.send(request).await.body;
    assert!(
        again.contains("id: 4\n") && !again.contains("id: 3\n") && again.contains("event: done"),
        "{again}"
    );
    assert_eq!(site.twin.world().opened.len(), 1, "a reconnect asks nothing again");
}

#[tokio::test]
async fn without_script_the_same_rows_stream() {
    let site = site();
    let (cookie, _) = site.sign_in("haddad").await;
    let plain = site.get(&cookie, &format!("/record/{GRACE}/plain")).await;
    assert!(!plain.body.contains("<script"));
    assert!(plain.body.contains("shadowrootmode=\"open\""));
    // Each organisation fills its slot once and in the order of the answers, the whole picture comes last.
    let places: Vec<usize> = (0..5)
        .map(|number| {
            let slot = format!("class=\"one\" slot=\"o{number}\"");
            assert_eq!(plain.body.matches(&slot).count(), 1, "{slot}");
            plain.body.find(&slot).unwrap()
        })
        .collect();
    assert!(places.is_sorted(), "{places:?}");
    let merged = "<div slot=\"merged\">";
    assert_eq!(plain.body.matches(merged).count(), 1);
    let at = plain.body.find(merged).unwrap();
    let last_slot = plain.body.rfind("class=\"one\"").unwrap();
    assert!(last_slot < at, "the merged view comes after every organisation");
    for row in ["bisoprolol", "Treat as allergic.", "Doses differ"] {
        assert!(plain.body[at..].to_lowercase().contains(&row.to_lowercase()), "{row}");
    }
    assert!(
        !plain.body[..at].contains("Doses differ"),
        "no organisation alone knows the conflict"
    );
    assert!(plain.body.trim_end().ends_with("</html>"));
}

#[tokio::test]
async fn emergency_access_is_for_one_subject_and_fails_closed() {
    let site = site();
    let (cookie, token) = site.sign_in("haddad").await;
    let path = format!("/record/{GRACE}/emergency");
    let form = site.get(&cookie, &path).await;
    assert!(form.body.contains("for 60 minutes") && form.body.contains("Psychotherapy notes stay closed."));
    let declare = async || {
        site.post(
            &cookie,
            &path,
            &[
                ("reason", "life-at-risk"),
                ("words", "unconscious"),
                ("form_token", &token),
            ],
        )
        .await
    };
    assert_eq!(
        site.post(
            &cookie,
            &path,
            &[("reason", "bored"), ("words", "x"), ("form_token", &token)]
        )
        .await
        .status,
        StatusCode::BAD_REQUEST
    );
    site.twin.world().emergency_failure = Some(PortError {
        class: Class::Unavailable,
        what: "log".into(),
    });
    let failed = declare().await;
    assert!(
        failed
            .body
            .contains("The reason could not be saved. Nothing was opened."),
        "{}",
        failed.body
    );
    assert!(!opened(&site, &cookie).await.body.contains("Emergency access, ends"));
    site.twin.world().emergency_failure = None;
    assert_eq!(declare().await.location(), format!("/record/{GRACE}"));
    assert!(
        opened(&site, &cookie)
            .await
            .body
            .contains("Emergency access, ends 14:32")
    );
    let last = site.twin.world().opened.last().unwrap().0.clone();
    assert_eq!(last.purpose, Purpose::BreakGlass);
    assert_eq!(last.break_glass.unwrap().words, "unconscious");
    // The session is used every ten minutes; the access still ends.
    for minutes in (10..=60).step_by(10) {
        site.twin.world().now = NOW.plus(minutes * 60_000);
        site.get(&cookie, "/find").await;
    }
    assert!(!opened(&site, &cookie).await.body.contains("Emergency access, ends"));
    assert_eq!(site.twin.world().opened.last().unwrap().0.purpose, Purpose::Treatment);
}

#[tokio::test]
async fn no_personal_data_in_addresses_titles_or_headers() {
    let site = site();
    let (cookie, token) = site.sign_in("haddad").await;
    let found = site
        .post(
            &cookie,
            "/find",
            &[("text", "okafor 14 mar 1961"), ("form_token", &token)],
        )
        .await;
    let go = site
        .post(&cookie, "/record", &[("subject", GRACE), ("form_token", &token)])
        .await;
    let record = opened(&site, &cookie).await;
    let letter = site.get(&cookie, &format!("/record/{GRACE}/document/letter")).await;
    let original = site
        .get(&cookie, &format!("/record/{GRACE}/document/letter/original"))
        .await;
    for reply in [&found, &go, &record, &letter, &original] {
        let mut exposed = format!("{:?}", reply.headers).to_lowercase();
        if reply.body.contains("<title>") {
            exposed.push_str(&reply.title().to_lowercase());
            for mark in ["href=\"", "action=\"", "src=\"", "data-src=\""] {
                exposed.extend(
                    reply
                        .body
                        .split(mark)
                        .skip(1)
                        .map(|rest| rest.split('"').next().unwrap().to_lowercase()),
                );
            }
        }
        for personal in PERSONAL {
            assert!(!exposed.contains(personal), "{personal} in {exposed}");
        }
    }
}

#[tokio::test]
async fn hostile_text_is_escaped_everywhere() {
    let site = site();
    let attack = "<img src=x onerror=alert(1)>\"'";
    {
        let mut world = site.twin.world();
        world.people[0].demographics.names[0].given = vec![attack.to_owned()];
        world.people[0].differs = vec![attack.to_owned()];
        let summary = Summary::new()
            .typed_allergy(attack, "2012-01-01")
            .medication("active", "1", attack, attack, "2026-01-01")
            .problem("2", attack, "2020-01-01", None)
            .visit("2026-01-01", attack);
        world.records.insert(
            SubjectRef(GRACE.into()),
            vec![asking(&[attack]), answered(0, attack, &summary)],
        );
    }
    let (cookie, token) = site.sign_in("haddad").await;
    let found = site
        .post(
            &cookie,
            "/find",
            &[("text", &format!("okafor {attack}")), ("form_token", &token)],
        )
        .await;
    let record = opened(&site, &cookie).await;
    let plain = site.get(&cookie, &format!("/record/{GRACE}/plain")).await;
    let letter = site.get(&cookie, &format!("/record/{GRACE}/document/letter")).await;
    for reply in [&found, &record, &plain, &letter] {
        assert!(
            !reply.body.contains("<img") && !reply.body.contains("<script>alert"),
            "{}",
            reply.body
        );
    }
    assert!(
        letter.body.contains("&#60;script&#62;alert(1)"),
        "the text is shown, escaped"
    );
}

#[tokio::test]
async fn documents_show_text_offer_pdf_and_say_what_failed() {
    let site = site();
    let (cookie, _) = site.sign_in("haddad").await;
    opened(&site, &cookie).await;
    let letter = site.get(&cookie, &format!("/record/{GRACE}/document/letter")).await;
    assert!(letter.body.contains("Discharge letter – St Anne Hospital – ") && letter.body.contains("2 of 2"));
    let pdf = site
        .get(&cookie, &format!("/record/{GRACE}/document/report/original"))
        .await;
    assert_eq!(pdf.headers["content-type"], "application/pdf");
    assert_eq!(pdf.headers["content-security-policy"], crate::headers::CSP_FOREIGN);
    let text = site
        .get(&cookie, &format!("/record/{GRACE}/document/letter/original"))
        .await;
    assert!(
        text.headers["content-disposition"]
            .to_str()
            .unwrap()
            .starts_with("attachment")
    );
    site.twin.world().failure = Some(PortError {
        class: Class::Unavailable,
        what: "away".into(),
    });
    let failed = site.get(&cookie, &format!("/record/{GRACE}/document/letter")).await;
    assert!(
        failed
            .body
            .contains("St Anne Hospital did not send this document (reference "),
        "{}",
        failed.body
    );
    assert_eq!(
        site.get(&cookie, &format!("/record/{GRACE}/document/no%2Fslash"))
            .await
            .status,
        StatusCode::NOT_FOUND
    );
}
