//! Sign-in, sign-out, and the choice of light or dark.

use askama::Template;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::{HeaderName, SET_COOKIE};
use axum::response::{IntoResponse, Redirect, Response};

use crate::console::page::{Frame, ok, page};
use crate::gate::Gate;
use crate::guard::{Fields, Remote, SignedIn, authenticate};
use crate::ports::Credential;
use crate::respond::Fault;
use crate::session::{COOKIE_PLAIN, COOKIE_SECURE, LIFE_MS_MAX};

/// Longest account name or password, in bytes.
pub const CREDENTIAL_BYTES_MAX: usize = 1024;
/// Name of the cookie with the choice of light or dark; it holds nothing else.
pub const THEME_COOKIE: &str = "hie-theme";

/// The user's choice of colours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Theme {
    /// As the system says.
    #[default]
    System,
    /// Light.
    Light,
    /// Dark.
    Dark,
}

impl Theme {
    /// Reads a cookie value or form value.
    #[must_use]
    pub fn of(text: &str) -> Self {
        match text {
            "light" => Self::Light,
            "dark" => Self::Dark,
            _ => Self::System,
        }
    }

    /// The value of `data-theme`.
    #[must_use]
    pub const fn attribute(self) -> &'static str {
        match self {
            Self::System => "",
            Self::Light => "light",
            Self::Dark => "dark",
        }
    }
}

#[derive(Template)]
#[template(path = "sign_in.html")]
struct SignInTemplate {
    frame: Frame,
    problem: Option<String>,
}

/// GET `/sign-in`.
pub async fn show(State(gate): State<Gate>) -> Response {
    ok(&SignInTemplate {
        frame: Frame::outside(&gate.settings.organisation),
        problem: None,
    })
}

/// POST `/sign-in`.
pub async fn submit(State(gate): State<Gate>, Remote(remote): Remote, fields: Fields) -> Response {
    let again = |status, words: &str| {
        page(
            status,
            &SignInTemplate {
                frame: Frame::outside(&gate.settings.organisation),
                problem: Some(words.to_owned()),
            },
        )
    };
    let password = fields.all("password").next().filter(|password| !password.is_empty());
    let (Some(account), Some(password)) = (fields.one("account"), password) else {
        return again(StatusCode::BAD_REQUEST, "Write your account name and your password.");
    };
    if account.len() > CREDENTIAL_BYTES_MAX || password.len() > CREDENTIAL_BYTES_MAX {
        return again(StatusCode::BAD_REQUEST, "Account name or password is too long.");
    }
    let credential = Credential::Password {
        account: account.to_owned(),
        password: password.to_owned(),
    };
    match authenticate(&gate, credential, remote).await {
        Ok(principal) => {
            let token = gate.sessions.open(principal, gate.now(), || gate.ports.node.random());
            let mut response = Redirect::to("/").into_response();
            set_cookie(&mut response, &cookie(&gate, &token, LIFE_MS_MAX / 1000));
            response
        }
        Err(problem) => match problem.fault {
            Fault::NotSignedIn => again(StatusCode::UNAUTHORIZED, "Account name or password is not right."),
            Fault::TooMany(seconds) => again(
                StatusCode::TOO_MANY_REQUESTS,
                &format!("Too many attempts. Wait {seconds} seconds and try again."),
            ),
            _ => again(problem.fault.status(), &problem.words),
        },
    }
}

/// POST `/sign-out`: ends the session here and clears what the browser keeps.
pub async fn leave(State(gate): State<Gate>, signed_in: SignedIn) -> Response {
    gate.opened.close_all(signed_in.session.id);
    gate.sessions.close(signed_in.session.id);
    let mut response = Redirect::to("/sign-in").into_response();
    set_cookie(&mut response, &cookie(&gate, "", 0));
    let clear = axum::http::HeaderValue::from_static("\"cache\", \"cookies\", \"storage\"");
    response
        .headers_mut()
        .insert(HeaderName::from_static("clear-site-data"), clear);
    response
}

/// POST `/theme`.
pub async fn theme(State(gate): State<Gate>, fields: Fields) -> Response {
    let theme = Theme::of(fields.one("theme").unwrap_or_default());
    let secure = if gate.settings.secure { "; Secure" } else { "" };
    let mut response = Redirect::to("/").into_response();
    let value = format!(
        "{THEME_COOKIE}={}; Path=/; Max-Age=31536000; HttpOnly; SameSite=Strict{secure}",
        theme.attribute()
    );
    set_cookie(&mut response, &value);
    response
}

fn cookie(gate: &Gate, token: &str, seconds: u64) -> String {
    let (name, secure) = if gate.settings.secure {
        (COOKIE_SECURE, "; Secure")
    } else {
        (COOKIE_PLAIN, "")
    };
    format!("{name}={token}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Strict{secure}")
}

fn set_cookie(response: &mut Response, value: &str) {
    if let Ok(value) = value.parse() {
        response.headers_mut().append(SET_COOKIE, value);
    }
}
