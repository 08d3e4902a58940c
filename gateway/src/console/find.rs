//! Find a patient (UX B1): one box and fields, by POST; never opens a single hit by itself.

use askama::Template;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect, Response};
use hie_protocol::message::{Demographics, MatchGrade, PersonAddress, PersonIdentifier, PersonName};
use hie_protocol::refusal::Class;

use crate::clinical::identity::sex_words;
use crate::clinical::listed;
use crate::console::opened::{self, is_handle};
use crate::console::page::{Frame, ok, page};
use crate::console::{CONSENT_ADMINISTRATORS, words};
use crate::gate::Gate;
use crate::guard::{Fields, SignedIn};
use crate::ports::{Completeness, PersonHit, PersonQuery, SubjectRef};
use crate::routes::CLINICIANS;

/// Most people shown; more ask for a better question.
pub const HITS_MAX: usize = 20;
/// Longest field of the form, in characters.
pub const FIELD_CHARS_MAX: usize = 200;

/// The form as it was filled in.
#[derive(Default)]
struct Form {
    text: String,
    family: String,
    given: String,
    birth_date: String,
    identifier: String,
    postcode: String,
    phone: String,
}

impl Form {
    fn read(fields: &Fields) -> Self {
        let one = |name: &str| {
            fields
                .one(name)
                .unwrap_or_default()
                .chars()
                .take(FIELD_CHARS_MAX)
                .collect()
        };
        Self {
            text: one("text"),
            family: one("family"),
            given: one("given"),
            birth_date: one("birth_date"),
            identifier: one("identifier"),
            postcode: one("postcode"),
            phone: one("phone"),
        }
    }

    const fn has_fields(&self) -> bool {
        !(self.family.is_empty()
            && self.given.is_empty()
            && self.birth_date.is_empty()
            && self.identifier.is_empty()
            && self.postcode.is_empty()
            && self.phone.is_empty())
    }

    /// The question, or the sentence that says what to mend.
    fn query(&self, region: bool) -> Result<PersonQuery, &'static str> {
        if self.text.is_empty() && !self.has_fields() {
            return Err("Write a name, a birth date or a record number.");
        }
        let some = |text: &String| (!text.is_empty()).then(|| text.clone());
        let birth_date = match some(&self.birth_date) {
            Some(text) => Some(read_date(&text).ok_or("Write the birth date as 14-Mar-1961.")?),
            None => None,
        };
        let given: Vec<String> = self.given.split_whitespace().map(str::to_owned).collect();
        let named = !self.family.is_empty() || !given.is_empty();
        let name = PersonName {
            family: self.family.clone(),
            given,
            ..PersonName::default()
        };
        let demographics = Demographics {
            names: if named { vec![name] } else { Vec::new() },
            birth_date,
            sex: None,
            identifiers: some(&self.identifier)
                .map(|value| PersonIdentifier {
                    system: String::new(),
                    value,
                })
                .into_iter()
                .collect(),
            addresses: some(&self.postcode)
                .map(|code| PersonAddress {
                    postal_code: Some(code),
                    ..PersonAddress::default()
                })
                .into_iter()
                .collect(),
            telecoms: some(&self.phone).into_iter().collect(),
        };
        Ok(PersonQuery {
            text: some(&self.text),
            demographics,
            region,
        })
    }
}

/// Reads `14-Mar-1961`, `14 mar 1961`, `1961-03-14` or `14.03.1961` as `YYYY-MM-DD`.
#[must_use]
pub fn read_date(text: &str) -> Option<String> {
    let parts: Vec<&str> = text
        .split(|between: char| !between.is_alphanumeric())
        .filter(|part| !part.is_empty())
        .collect();
    let [first, second, third] = parts.as_slice() else {
        return None;
    };
    let month = |text: &str| {
        let names = [
            "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec",
        ];
        let named = text
            .get(0..3)
            .map(str::to_lowercase)
            .and_then(|start| names.iter().position(|name| *name == start));
        named
            .map(|index| index.saturating_add(1))
            .or_else(|| text.parse().ok())
            .filter(|month| (1..=12).contains(month))
    };
    let (year, day) = if first.len() == 4 {
        (first, third)
    } else {
        (third, first)
    };
    let (year_number, day_number): (u16, u8) = (year.parse().ok()?, day.parse().ok()?);
    ((1800..=2200).contains(&year_number) && (1..=31).contains(&day_number)).then_some(())?;
    Some(format!("{year_number:04}-{:02}-{day_number:02}", month(second)?))
}

/// One result.
pub struct HitLine {
    /// Handle.
    pub subject: String,
    /// `OKAFOR, Grace (Ms)`.
    pub name: String,
    /// `14-Mar-1961`.
    pub born: String,
    /// `(65y)`.
    pub age: String,
    /// Sex in words.
    pub sex: String,
    /// Record number here.
    pub record_number: String,
    /// Address in one line.
    pub address: String,
    /// `4 organisations`.
    pub known_at: String,
    /// Certain, or probable.
    pub certain: bool,
    /// What differs.
    pub differs: String,
    /// Held at this node.
    pub local: bool,
}

impl HitLine {
    /// A person as a line; `today` is `YYYY-MM-DD`.
    #[must_use]
    pub fn of(hit: &PersonHit, today: &str) -> Self {
        let who = &hit.demographics;
        let not_recorded = || "not recorded".to_owned();
        let born = who.birth_date.as_deref();
        Self {
            subject: hit.subject.0.clone(),
            name: who
                .names
                .first()
                .map_or_else(|| "NAME NOT RECORDED".to_owned(), full_name),
            born: born.map_or_else(not_recorded, words::fhir_date),
            age: born
                .and_then(|born| words::age(born, today))
                .map(|age| format!("({age}y)"))
                .unwrap_or_default(),
            sex: who.sex.as_deref().map_or("not recorded", sex_words).to_owned(),
            record_number: hit.record_number.clone().unwrap_or_else(not_recorded),
            address: who.addresses.first().map(address).unwrap_or_default(),
            known_at: words::organisations(hit.known_at.len()),
            certain: hit.grade == MatchGrade::Certain,
            differs: hit.differs.join(", "),
            local: hit.patient.is_some(),
        }
    }
}

/// `OKAFOR, Grace (Ms)`.
#[must_use]
pub fn full_name(name: &PersonName) -> String {
    let family = name.family.to_uppercase();
    let suffix = name
        .suffix
        .as_deref()
        .map(|suffix| format!(" {suffix}"))
        .unwrap_or_default();
    let prefix = name
        .prefix
        .as_deref()
        .map(|prefix| format!(" ({prefix})"))
        .unwrap_or_default();
    format!("{family}{suffix}, {}{prefix}", name.given.join(" "))
}

fn address(address: &PersonAddress) -> String {
    let parts = address
        .lines
        .iter()
        .map(String::as_str)
        .chain(address.city.as_deref())
        .chain(address.postal_code.as_deref());
    parts.collect::<Vec<_>>().join(", ")
}

#[derive(Template)]
#[template(path = "find.html")]
struct FindTemplate {
    frame: Frame,
    form: Form,
    searched: bool,
    heading: String,
    problem: String,
    gap: String,
    hits: Vec<HitLine>,
    clinician: bool,
    consent_administrator: bool,
}

impl FindTemplate {
    fn empty(gate: &Gate, signed_in: &SignedIn) -> Self {
        Self {
            frame: Frame::of(gate, signed_in, "/find"),
            form: Form::default(),
            searched: false,
            heading: String::new(),
            problem: String::new(),
            gap: String::new(),
            hits: Vec::new(),
            clinician: signed_in.session.has_any(CLINICIANS),
            consent_administrator: signed_in.session.has_any(CONSENT_ADMINISTRATORS),
        }
    }
}

/// GET `/find`.
pub async fn show(State(gate): State<Gate>, signed_in: SignedIn) -> Response {
    ok(&FindTemplate::empty(&gate, &signed_in))
}

/// POST `/find`.
pub async fn submit(State(gate): State<Gate>, signed_in: SignedIn, fields: Fields) -> Response {
    let mut template = FindTemplate::empty(&gate, &signed_in);
    template.form = Form::read(&fields);
    // A consent administrator works on patients of this organisation; only treatment asks the region.
    let query = match template.form.query(template.clinician) {
        Ok(query) => query,
        Err(words) => {
            template.problem = words.to_owned();
            return page(StatusCode::BAD_REQUEST, &template);
        }
    };
    template.searched = true;
    match gate.ports.people.find(&signed_in.caller(), query).await {
        Ok((hits, completeness)) => {
            let today = gate.clock().today();
            fill(&mut template, hits, &completeness, &today);
            ok(&template)
        }
        Err(error) => {
            let status = crate::respond::Fault::Of(error.class).status();
            template.problem = match error.class {
                Class::Invalid => error.what,
                _ => "Search did not reach the exchange. You can still see records held here.".to_owned(),
            };
            page(status, &template)
        }
    }
}

fn fill(template: &mut FindTemplate, hits: Vec<PersonHit>, completeness: &Completeness, today: &str) {
    if let Completeness::Partial { silent, .. } = completeness {
        let names: Vec<String> = silent.iter().map(|answer| answer.name.clone()).collect();
        template.gap = format!(
            "{} did not answer: {}.",
            words::organisations(silent.len()),
            listed(&names)
        );
    }
    template.heading = match hits.len() {
        0 if template.gap.is_empty() => "No one found. Every organisation answered.".to_owned(),
        0 => "No one found in the organisations that answered.".to_owned(),
        1 => "1 person found.".to_owned(),
        count if count > HITS_MAX => format!("More than {HITS_MAX} people. Add a birth date or a number."),
        count => format!("{count} people found."),
    };
    if hits.len() <= HITS_MAX {
        template.hits = hits.iter().map(|hit| HitLine::of(hit, today)).collect();
    }
}

/// POST `/record`: opens a record, then shows it at its handle.
pub async fn open(State(gate): State<Gate>, signed_in: SignedIn, fields: Fields) -> Response {
    let subject = SubjectRef(fields.one("subject").unwrap_or_default().to_owned());
    match opened::open(&gate, &signed_in, &subject, fields.one("again").is_some()).await {
        Ok(_) => Redirect::to(&format!("/record/{}", subject.0)).into_response(),
        Err(problem) => problem.respond(&gate, crate::respond::Dialect::Page),
    }
}

/// POST `/consent`: goes to the choices of a patient.
pub async fn choices(State(gate): State<Gate>, fields: Fields) -> Response {
    let subject = fields.one("subject").unwrap_or_default();
    if is_handle(subject) {
        Redirect::to(&format!("/consent/{subject}")).into_response()
    } else {
        crate::respond::refused(&gate, crate::respond::Dialect::Page, crate::respond::Fault::Nothing)
    }
}

#[cfg(test)]
mod tests {
    use super::read_date;

    #[test]
    fn birth_dates_are_read_in_the_usual_forms() {
        for text in ["14-Mar-1961", "14 mar 1961", "1961-03-14", "14.03.1961", "14/3/1961"] {
            assert_eq!(read_date(text).as_deref(), Some("1961-03-14"), "{text}");
        }
        for text in [
            "",
            "soon",
            "1961",
            "14-Foo-1961",
            "41-Mar-1961",
            "14-13-1961",
            "14-Mar-61",
        ] {
            assert_eq!(read_date(text), None, "{text}");
        }
    }
}
