//! Requests as they are read, and answers as they are written.

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{Request, Response, StatusCode, body::Incoming, header};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::labs::answer::drop_nulls;

use super::refusal::{Answer, Refusal};

/// The largest request, far above any of the API.
const MAX_BODY: usize = 1024 * 1024;

/// An answer.
pub(super) type Reply = Response<Full<Bytes>>;

/// The JSON body of a request.
///
/// # Errors
/// 400 when it does not fit the call, 413 when it is too long.
pub(super) async fn read<T: DeserializeOwned>(request: Request<Incoming>) -> Answer<T> {
    let body = Limited::new(request.into_body(), MAX_BODY).collect().await.map_err(|e| {
        if e.is::<http_body_util::LengthLimitError>() {
            Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, format!("a request can have at most {MAX_BODY} bytes"))
        } else {
            Refusal::bad_request(format!("the request was cut off: {e}"))
        }
    })?;
    serde_json::from_slice(&body.to_bytes()).map_err(|e| unreadable(&e))
}

/// As [`read`], where null is as good as missing: Go writes it for an empty list.
///
/// # Errors
/// As [`read`].
pub(super) async fn read_present<T: DeserializeOwned>(request: Request<Incoming>) -> Answer<T> {
    let mut value: Value = read(request).await?;
    drop_nulls(&mut value);
    T::deserialize(value).map_err(|e| unreadable(&e))
}

/// 400 for a body that does not fit the call.
pub(super) fn unreadable(error: &serde_json::Error) -> Refusal {
    Refusal::bad_request(format!("the request does not fit this call: {error}"))
}

/// The values of a parameter that may stand in a query several times. Names of machines and the like need no escapes.
pub(super) fn values<'a>(query: &'a str, name: &str) -> Vec<&'a str> {
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    pairs.filter(|(known, value)| *known == name && !value.is_empty()).map(|(_, value)| value).collect()
}

/// A JSON answer.
pub(super) fn ok(value: &impl Serialize) -> Reply {
    match serde_json::to_vec(value) {
        Ok(json) => {
            let mut reply = Response::new(Full::from(json));
            let kind = header::HeaderValue::from_static("application/json");
            reply.headers_mut().insert(header::CONTENT_TYPE, kind);
            reply
        }
        Err(e) => text(StatusCode::INTERNAL_SERVER_ERROR, &format!("cannot write the answer: {e}")),
    }
}

/// An answer for people.
pub(super) fn text(status: StatusCode, words: &str) -> Reply {
    let mut reply = Response::new(Full::from(format!("{words}\n")));
    *reply.status_mut() = status;
    let kind = header::HeaderValue::from_static("text/plain; charset=utf-8");
    reply.headers_mut().insert(header::CONTENT_TYPE, kind);
    reply.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, header::HeaderValue::from_static("nosniff"));
    reply
}

/// An answer without words.
pub(super) fn nothing(status: StatusCode) -> Reply {
    let mut reply = Response::new(Full::default());
    *reply.status_mut() = status;
    reply
}

/// A refusal.
pub(super) fn refused(refusal: &Refusal) -> Reply {
    let mut reply = text(refusal.status, &refusal.words);
    if refusal.status == StatusCode::UNAUTHORIZED {
        let realm = header::HeaderValue::from_static("Basic realm=\"labctl-ssh-proxy\"");
        reply.headers_mut().insert(header::WWW_AUTHENTICATE, realm);
    }
    if let Some(reset) = refusal.reset {
        reply.headers_mut().insert("x-ratelimit-reset", header::HeaderValue::from(reset));
    }
    reply
}
