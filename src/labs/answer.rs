//! The platform's answers: what a status means, the words of a refusal, and JSON decoded with care.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use hyper::{
    StatusCode, Uri,
    header::{self, HeaderMap},
};
use serde::de::DeserializeOwned;

use crate::{
    error::{Error, Kind, Result, printable},
    labs::{address::peer, wire::Play},
    moment::Moment,
    platform::is_id,
};

const SERVER: &str = "try again; if that does not help, see the platform's status page";
const LATER: &str = "try again in a moment";
/// The hint for a caller without a login.
pub(super) const LOGIN: &str = "log in with `labctl-ssh-proxy login`";

/// A whole answer.
#[derive(Debug)]
pub struct Reply {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
}

/// Turns the lost answer of a call into an error, for calls that need one.
pub(super) fn answered(reply: Option<Reply>, about: &str) -> Result<Reply> {
    reply.ok_or_else(|| Error::new(Kind::NotYet, format!("{about}: the answer was lost")).with_hint(LATER))
}

/// The lead of `now` over the date in an answer, in ms; 0 for less than what the answer's way and the date's whole
/// seconds explain.
pub(super) fn ahead(headers: &HeaderMap, now: Moment) -> Option<i64> {
    const TOLD: i64 = 3000;
    let date = jiff::fmt::rfc2822::parse(headers.get(header::DATE)?.to_str().ok()?).ok()?;
    let ahead = i64::try_from(now).ok()? - date.timestamp().as_millisecond();
    Some(if ahead.abs() < TOLD { 0 } else { ahead })
}

/// Decodes an answer. Go writes `null` for empty lists, so members that are null count as missing.
pub(super) fn decode<T: DeserializeOwned>(reply: &Reply, about: &str) -> Result<T> {
    let wrong = |why: &str| Error::new(Kind::Answer, format!("the platform's answer about {about} {why}"));
    if is_swollen(&reply.body) {
        return Err(wrong("has too many elements"));
    }
    // Neither the answer nor the parser's words are shown: either may quote a secret that is in it.
    let mut value: serde_json::Value = serde_json::from_slice(&reply.body).map_err(|e| {
        if let Some(encoding) = encoding(reply) {
            return wrong(&format!("is compressed ({encoding}), which this program did not ask for"))
                .with_hint("something between here and the platform compresses answers; see the proxy setting");
        }
        let why = match e.classify() {
            serde_json::error::Category::Eof => "is incomplete",
            _ if reply.body.trim_ascii_start().starts_with(b"<") => "is a web page",
            _ => "is not JSON",
        };
        wrong(why).with_hint("if a proxy or a login page answers instead of the platform, set `proxy` in the settings")
    })?;
    drop_nulls(&mut value);
    serde_json::from_value(value).map_err(|_| unexpected(about))
}

/// Decodes the elements of a list. One that cannot be decoded does not keep the others from being used.
pub(super) fn list<T: DeserializeOwned>(all: Vec<serde_json::Value>, about: &str) -> Result<Vec<T>> {
    let (mut good, mut bad) = (Vec::with_capacity(all.len()), 0);
    for value in all.into_iter().filter(|value| !value.is_null()) {
        // The id says whose it is. Nothing else of it is shown, because it may hold a secret.
        let id = value.get("id").and_then(|id| id.as_str()).filter(|id| is_id(id)).map(str::to_owned);
        match serde_json::from_value(value) {
            Ok(one) => good.push(one),
            Err(_) => {
                bad += 1;
                log::warn!(
                    "the platform's answer about {about} has an element of unexpected form: {}",
                    id.as_deref().unwrap_or("without an id")
                );
            }
        }
    }
    if good.is_empty() && bad > 0 {
        return Err(unexpected(about));
    }
    Ok(good)
}

fn unexpected(about: &str) -> Error {
    let why = "has an unexpected form: a field is missing or has another type";
    Error::new(Kind::Answer, format!("the platform's answer about {about} {why}"))
        .with_hint("try a newer version of this program")
}

/// The encoding of an answer that is not plain. None is asked for.
fn encoding(reply: &Reply) -> Option<&str> {
    let named = reply.headers.get(header::CONTENT_ENCODING)?.to_str().unwrap_or("unknown").trim();
    (!named.is_empty() && !named.eq_ignore_ascii_case("identity")).then_some(named)
}

/// True for a text that would take far more memory decoded, because a few bytes of it can make an object of ours.
fn is_swollen(body: &[u8]) -> bool {
    const MAX_OBJECTS: usize = 100_000;
    const MAX_PARTS: usize = 1_000_000;
    let count = |byte| body.iter().filter(|b| **b == byte).count();
    count(b'{') > MAX_OBJECTS || count(b',') + count(b'[') > MAX_PARTS
}

/// Drops the plays whose id is malformed, because ids go into paths, host names and files.
pub(super) fn genuine(mut plays: Vec<Play>) -> Vec<Play> {
    plays.retain(|play| is_id(&play.id));
    plays
}

/// Checks that a play is the one asked for, if it was asked for by its id.
pub(super) fn one(play: Play, id: Option<&str>) -> Result<Play> {
    if is_id(&play.id) && id.is_none_or(|id| id == play.id) {
        return Ok(play);
    }
    Err(Error::new(Kind::Answer, "the platform answered with another playground than the requested one"))
}

/// Takes out every null below `value`. A list that is the whole answer keeps its own, because places in it may be
/// indices.
pub(crate) fn drop_nulls(value: &mut serde_json::Value) {
    match value {
        serde_json::Value::Object(members) => {
            members.retain(|_, member| !member.is_null());
            for member in members.values_mut() {
                if let serde_json::Value::Array(items) = member {
                    items.retain(|item| !item.is_null());
                }
                drop_nulls(member);
            }
        }
        serde_json::Value::Array(items) => items.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

/// The error that an answer without success stands for, with the platform's own words.
pub(super) fn refusal(reply: &Reply, about: &str) -> Error {
    error_of(reply, about).with_status(reply.status.as_u16())
}

fn error_of(reply: &Reply, about: &str) -> Error {
    let words = words(reply);
    let said = if words.is_empty() { reply.status.to_string() } else { words.clone() };
    match reply.status {
        StatusCode::UNAUTHORIZED => {
            Error::new(Kind::NotLoggedIn, format!("the platform does not accept your login ({said})")).with_hint(LOGIN)
        }
        // A play that is gone answers with either.
        StatusCode::NOT_FOUND | StatusCode::GONE => {
            Error::new(Kind::NotFound, format!("{about} does not exist ({said})"))
        }
        StatusCode::TOO_MANY_REQUESTS => {
            let error = Error::new(Kind::NotYet, format!("{about}: the platform limits requests ({said})"));
            let now = SystemTime::now();
            match rate_limit_reset(&reply.headers, now).or_else(|| retry_after(&reply.headers, now)) {
                Some(wait) => {
                    error.with_hint(format!("try again in {} s", wait.as_secs_f64().ceil())).with_retry_after(wait)
                }
                None => error.with_hint(LATER),
            }
        }
        StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT => {
            Error::new(Kind::NotYet, format!("{about} is not ready ({said})")).with_hint(LATER)
        }
        // A network that wants a login first answers for every host (RFC 6585, 6), most of them with a redirect.
        status if status.is_redirection() || status == StatusCode::NETWORK_AUTHENTICATION_REQUIRED => {
            let to = reply.headers.get(header::LOCATION).and_then(|to| to.to_str().ok()?.parse::<Uri>().ok());
            let to = to.filter(|to| to.host().is_some()).map(|to| format!(", which leads to {}", peer(&to)));
            Error::new(Kind::Answer, format!("{about}: the answer was {status}{}", to.unwrap_or_default())).with_hint(
                "if this network has a login page, open it in a browser; otherwise check `api_base_url` in \
                 ~/.iximiuz/labctl/config.yaml",
            )
        }
        // The platform has no such thing, which another attempt would hear again.
        status if status.is_client_error() || status == StatusCode::NOT_IMPLEMENTED => {
            Error::new(Kind::Refused, format!("{about}: the platform says: {said}"))
        }
        status if words.is_empty() => {
            Error::new(Kind::Answer, format!("{about}: the platform answered {status}")).with_hint(SERVER)
        }
        status => {
            Error::new(Kind::Answer, format!("{about}: the platform answered {status}: {words}")).with_hint(SERVER)
        }
    }
}

/// The words of an error body: its text, or the message inside its JSON. None of a page of HTML, which helps no reader.
fn words(reply: &Reply) -> String {
    let text = String::from_utf8_lossy(&reply.body[..reply.body.len().min(4096)]);
    let text = text.trim();
    if text.starts_with('<') || encoding(reply).is_some() {
        return String::new();
    }
    match serde_json::from_str::<serde_json::Value>(text) {
        Ok(value) => ["message", "error"]
            .into_iter()
            .find_map(|key| value.get(key)?.as_str().map(printable))
            .unwrap_or_else(|| printable(text)),
        Err(_) => printable(text),
    }
}

/// The longest wait that an answer can ask for.
const LONGEST: Duration = Duration::from_secs(300);

/// The wait that a gateway asks for: `Retry-After` is seconds from now, or a date (RFC 9110, 10.2.3). Clamped to 0..300 s.
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = match text.parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => {
            let until = jiff::fmt::rfc2822::parse(text).ok()?.timestamp();
            SystemTime::try_from(until).ok()?.duration_since(now).unwrap_or_default()
        }
    };
    Some(wait.min(LONGEST))
}

/// The length of a rate limit. `X-Ratelimit-Reset` is seconds from now, or a Unix time: in seconds when it is at least
/// a billion, in milliseconds when it is at least a hundred billion, as values seen in the field must be. Clamped to
/// 0..300 s.
fn rate_limit_reset(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    /// 2001-09-09 in seconds; smaller values are durations.
    const UNIX_TIME: u64 = 1_000_000_000;
    /// 1973 in milliseconds, the year 5138 in seconds.
    const UNIX_TIME_MS: u64 = 100_000_000_000;
    let reset: u64 = headers.get("x-ratelimit-reset")?.to_str().ok()?.trim().parse().ok()?;
    let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let wait = match reset {
        ..UNIX_TIME => Duration::from_secs(reset),
        UNIX_TIME..UNIX_TIME_MS => Duration::from_secs(reset).saturating_sub(now),
        UNIX_TIME_MS.. => Duration::from_millis(reset).saturating_sub(now),
    };
    Some(wait.min(LONGEST))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use bytes::Bytes;
    use hyper::{StatusCode, header::HeaderMap};

    use super::{Reply, ahead, decode, list, rate_limit_reset, refusal, retry_after};
    use crate::{error::Kind, labs::wire::Play};

    #[test]
    fn one_element_that_is_wrong_does_not_cost_the_others() {
        let values = |text: &str| serde_json::from_str::<Vec<serde_json::Value>>(text).unwrap();
        let id = "0123456789abcdef01234567";
        let all = values(&format!(r#"[{{"id": "{id}"}}, null, {{"id": "{id}", "title": 5}}, 7, {{"machines": "x"}}]"#));
        assert_eq!(list::<Play>(all, "playgrounds").unwrap().len(), 1);
        assert!(list::<Play>(values("[null]"), "playgrounds").unwrap().is_empty());
        let error = list::<Play>(values(r#"[{"title": 5}]"#), "playgrounds").unwrap_err();
        assert_eq!(error.kind(), Kind::Answer);
    }

    #[test]
    fn a_clock_that_is_wrong_is_told_from_one_that_is_right() {
        let mut headers = HeaderMap::new();
        assert_eq!(ahead(&headers, 0), None);
        headers.insert("date", "Thu, 01 Jan 1970 00:01:00 GMT".parse().unwrap());
        assert_eq!([ahead(&headers, 60_900), ahead(&headers, 0)], [Some(0), Some(-60_000)]);
        assert_eq!(ahead(&headers, 3_660_000), Some(3_600_000));
        headers.insert("date", "yesterday".parse().unwrap());
        assert_eq!(ahead(&headers, 0), None);
    }

    fn reply(status: u16, body: &'static str) -> Reply {
        Reply {
            status: StatusCode::from_u16(status).unwrap(),
            headers: HeaderMap::new(),
            body: Bytes::from_static(body.as_bytes()),
        }
    }

    #[test]
    fn a_network_that_wants_a_login_is_told_from_the_platform() {
        for (location, said) in [
            (
                "http://portal.example:8080/login?to=x",
                "the list: the answer was 302 Found, which leads to portal.example:8080",
            ),
            ("http://ada:pw@portal.example/", "the list: the answer was 302 Found, which leads to portal.example"),
            ("/elsewhere", "the list: the answer was 302 Found"),
            ("\u{1}", "the list: the answer was 302 Found"),
        ] {
            let mut reply = reply(302, "<html>");
            if let Ok(location) = location.parse() {
                reply.headers.insert("location", location);
            }
            let error = refusal(&reply, "the list");
            assert_eq!((error.message(), error.kind()), (said, Kind::Answer));
            assert!(error.hint().unwrap().contains("login page"), "{error:?}");
        }
        assert!(refusal(&reply(511, ""), "the list").hint().unwrap().contains("login page"));
    }

    #[test]
    fn a_gateway_says_when_to_come_back() {
        let now = UNIX_EPOCH + Duration::from_secs(1_792_000_000);
        for (text, seconds) in [
            ("7", Some(7)),
            (" 0 ", Some(0)),
            ("86400", Some(300)),
            ("Wed, 14 Oct 2026 17:46:50 GMT", Some(10)),
            ("Tue, 13 Oct 2026 17:46:50 GMT", Some(0)),
            ("soon", None),
            ("-1", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert("retry-after", text.parse().unwrap());
            assert_eq!(retry_after(&headers, now).map(|wait| wait.as_secs()), seconds, "{text}");
        }
        let mut limited = reply(429, "");
        limited.headers.insert("retry-after", "9".parse().unwrap());
        assert_eq!(refusal(&limited, "the list").retry_after(), Some(Duration::from_secs(9)));
    }

    #[test]
    fn a_status_becomes_a_kind() {
        for (status, kind) in [
            (400, Kind::Refused),
            (401, Kind::NotLoggedIn),
            (403, Kind::Refused),
            (404, Kind::NotFound),
            (409, Kind::Refused),
            (410, Kind::NotFound),
            (429, Kind::NotYet),
            (500, Kind::Answer),
            (502, Kind::Answer),
            (503, Kind::NotYet),
            (504, Kind::NotYet),
        ] {
            assert_eq!(refusal(&reply(status, ""), "x").kind(), kind, "{status}");
        }
    }

    #[test]
    fn the_platforms_words_are_shown_and_its_html_is_not() {
        let refused = refusal(&reply(403, "Free tier: 1 playground\x1b[0m at a time\n"), "starting docker");
        assert!(refused.message().contains("Free tier: 1 playground[0m at a time"), "{refused}");
        let refused = refusal(&reply(409, r#"{"message":"too many at once"}"#), "x");
        assert!(refused.message().ends_with("too many at once"), "{refused}");
        assert!(!refusal(&reply(502, "<html>bad gateway</html>"), "x").message().contains("html"));
    }

    #[test]
    fn all_forms_of_the_rate_limit_are_read() {
        let now = UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let wait = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert("x-ratelimit-reset", value.parse().unwrap());
            rate_limit_reset(&headers, now).map(|wait| wait.as_secs())
        };
        assert_eq!(wait("7"), Some(7));
        assert_eq!(wait("1800000009"), Some(9));
        assert_eq!(wait("1799999999"), Some(0));
        assert_eq!(wait("1800000012000"), Some(12));
        assert_eq!(wait("1799999999999"), Some(0));
        assert_eq!(wait("18446744073709551615"), Some(300));
        assert_eq!(wait("99999"), Some(300));
        assert_eq!(wait("soon"), None);
    }

    #[test]
    fn an_answer_that_was_compressed_unasked_is_named() {
        let mut packed = reply(200, "\u{1f}\u{8}packed");
        packed.headers.insert("content-encoding", "gzip".parse().unwrap());
        let said = decode::<Play>(&packed, "x").unwrap_err();
        assert!(said.message().contains("is compressed (gzip)"), "{said}");
        packed.status = StatusCode::BAD_REQUEST;
        assert!(!refusal(&packed, "x").message().contains("packed"));
        packed.headers.insert("content-encoding", "identity".parse().unwrap());
        assert!(decode::<Play>(&packed, "x").unwrap_err().message().contains("is not JSON"));
    }

    #[test]
    fn half_a_json_and_null_lists() {
        assert_eq!(decode::<Play>(&reply(200, r#"{"id":"#), "x").unwrap_err().kind(), Kind::Answer);
        assert!(decode::<Play>(&reply(200, r#"{"id":"a","machines":null,"title":null}"#), "x").is_ok());
    }
}
