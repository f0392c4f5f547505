//! A refusal of the platform: the HTTP status, and words for people.

use hyper::StatusCode;

use crate::{
    error::{Error, Kind},
    labs::wire::State,
};

use super::record::Record;

/// A refusal: the HTTP status and the words that go with it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Refusal {
    /// The HTTP status.
    pub status: StatusCode,
    /// Free text, for people.
    pub words: String,
    /// The moment from which another attempt is welcome, in milliseconds since 1970: `X-Ratelimit-Reset`.
    pub reset: Option<i64>,
}

/// The result of an API call.
pub(super) type Answer<T> = Result<T, Refusal>;

impl Refusal {
    /// A refusal with that status and those words.
    pub(super) fn new(status: StatusCode, words: impl Into<String>) -> Refusal {
        Refusal { status, words: words.into(), reset: None }
    }

    /// 400.
    pub(super) fn bad_request(words: impl Into<String>) -> Refusal {
        Refusal::new(StatusCode::BAD_REQUEST, words)
    }

    /// 404.
    pub(super) fn not_found(words: impl Into<String>) -> Refusal {
        Refusal::new(StatusCode::NOT_FOUND, words)
    }

    /// 501, for a feature that the embedded platform lacks.
    pub(super) fn not_here(words: impl Into<String>) -> Refusal {
        Refusal::new(StatusCode::NOT_IMPLEMENTED, words)
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        let status = match error.kind() {
            Kind::NotFound => StatusCode::NOT_FOUND,
            Kind::Usage => StatusCode::BAD_REQUEST,
            Kind::File => StatusCode::INSUFFICIENT_STORAGE,
            Kind::NotLoggedIn => StatusCode::UNAUTHORIZED,
            Kind::Refused | Kind::Ambiguous | Kind::NotWoken | Kind::Ended => StatusCode::CONFLICT,
            Kind::NotYet => StatusCode::SERVICE_UNAVAILABLE,
            Kind::Internal
            | Kind::Network
            | Kind::Answer
            | Kind::HostKey
            | Kind::Program
            | Kind::Declined
            | Kind::Interrupted => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Refusal::new(status, error.message())
    }
}

/// 404 for a play.
pub(super) fn no_play(id: &str) -> Refusal {
    Refusal::new(StatusCode::NOT_FOUND, format!("no playground {id}"))
}

/// 404 for a machine's name.
pub(super) fn no_machine(record: &Record, name: &str) -> Refusal {
    let names: Vec<&str> = record.machines.iter().map(|machine| machine.name.as_str()).collect();
    let words = format!("playground {} has no machine {name}; its machines: {}", record.id, names.join(", "));
    Refusal::new(StatusCode::NOT_FOUND, words)
}

/// 409 for a play in a state that does not allow it.
pub(super) fn conflict(record: &Record, why: &str) -> Refusal {
    Refusal::new(StatusCode::CONFLICT, format!("playground {} is {}: {why}", record.id, record.state()))
}

/// 409 for a machine in a state that does not allow it.
pub(super) fn machine_conflict(name: &str, state: &State, why: &str) -> Refusal {
    Refusal::new(StatusCode::CONFLICT, format!("machine {name} is {state}: {why}"))
}
