//! The platform's API: one method a call, and the one place where an HTTP status becomes an error.

pub mod account;
pub mod catalog;
pub mod find;
mod gather;
pub mod http;
pub mod net;
mod retry;
pub mod tunnel;
pub mod wire;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use hyper::{
    Method, StatusCode, Uri,
    header::{self, HeaderMap, HeaderValue},
};
use serde::de::DeserializeOwned;

use crate::{
    error::{Error, Kind, Result, printable},
    labs::{
        account::Account,
        http::{Http, Reply, Stream},
        net::Dialer,
        retry::Repeat,
        tunnel::Tunnel,
        wire::{
            Action, CatalogEntry, Conn, CreatePlay, Login, Me, Play, PortForward, SavedForward, StartTunnel,
            TaskDetails, TunnelOffer,
        },
    },
    moment::{Moment, now},
    platform::is_id,
    secrets,
};

/// For calls that the platform answers from what it knows.
const ANSWER: Duration = Duration::from_secs(30);
/// The tunnel request is held "for up to about a minute" while the machine boots.
const TUNNEL_ANSWER: Duration = Duration::from_secs(90);
/// For opening a WebSocket, connecting included.
const UPGRADE: Duration = Duration::from_secs(30);

/// A client of the platform.
#[derive(Clone)]
pub struct Labs {
    http: Http,
    base: String,
    api: String,
    authorization: Option<HeaderValue>,
    begin: Option<Arc<Begin>>,
    repeats: bool,
    /// How far this computer's clock is ahead of the platform's, in ms.
    ahead: Arc<AtomicI64>,
}

/// Sees that there is a platform.
pub type Start = dyn Fn() -> BoxFuture<'static, Result<()>> + Send + Sync;

/// The embedded platform may end between the look whether it is there and the first request: that is asked once more then.
struct Begin {
    start: Box<Start>,
    /// As long as it was seen to be there, and has answered nothing yet.
    is_new: AtomicBool,
}

/// What it takes to dial a machine: good for any number of connections to any of its ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TunnelSession {
    /// Where to open WebSockets.
    pub url: String,
    /// The bearer token.
    pub token: String,
}

impl Labs {
    /// The real platform, by the account's addresses and credentials.
    ///
    /// # Errors
    /// When the credentials cannot be in a header.
    pub fn new(dialer: Dialer, account: &Account) -> Result<Labs> {
        let authorization = match account.credentials() {
            Some((id, token)) => {
                let encoded = BASE64_STANDARD.encode(format!("{id}:{token}"));
                [id, token, &encoded].into_iter().for_each(secrets::keep);
                Some(http::secret(&format!("Basic {encoded}"))?)
            }
            None => None,
        };
        let (base, api) = (account.base_url(), account.api_base_url());
        Ok(Labs {
            http: Http::new(dialer),
            base,
            api,
            authorization,
            begin: None,
            repeats: true,
            ahead: Arc::default(),
        })
    }

    /// The embedded platform behind `dialer`, which needs no credentials on its socket.
    pub fn embedded(dialer: Dialer) -> Labs {
        let base = "http://localhost";
        Labs {
            http: Http::new(dialer),
            base: base.into(),
            api: format!("{base}/api"),
            authorization: Some(HeaderValue::from_static("Basic bG9jYWw6bG9jYWw=")),
            begin: None,
            repeats: true,
            ahead: Arc::default(),
        }
    }

    /// With a way to start it where it has just ended; see [`Labs::is_there`].
    #[must_use]
    pub fn started_by(self, start: Box<Start>) -> Labs {
        Labs { begin: Some(Arc::new(Begin { start, is_new: AtomicBool::new(false) })), ..self }
    }

    /// The same for a caller that asks again and again by itself: it hears of each failure at once.
    #[must_use]
    pub fn without_repetition(self) -> Labs {
        Labs { repeats: false, ..self }
    }

    /// The platform was seen to be there: should it not answer the first request, it is started once more.
    pub fn expect_running(&self) {
        if let Some(begin) = &self.begin {
            begin.is_new.store(true, Ordering::Relaxed);
        }
    }

    /// The site's address.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// Whose credentials these are and for which platform, as a text that is different for each. A secret.
    pub fn account(&self) -> &str {
        self.authorization.as_ref().and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// The API's address.
    pub fn api(&self) -> &str {
        &self.api
    }

    /// The recent plays: those that run, and for a while those that were destroyed.
    ///
    /// # Errors
    /// As every call: [`Kind::NotLoggedIn`], [`Kind::Network`], [`Kind::Answer`], or the platform's refusal.
    pub async fn plays(&self) -> Result<Vec<Play>> {
        self.list(Call::get("/plays", "the list of playgrounds")).await.map(genuine)
    }

    /// The plays that are kept: those that are stopped, and those that run and will be stopped at their end.
    ///
    /// # Errors
    /// As every call.
    pub async fn persistent_plays(&self) -> Result<Vec<Play>> {
        self.list(Call::get("/plays?persistent=true", "the list of playgrounds")).await.map(genuine)
    }

    /// One play.
    ///
    /// # Errors
    /// As every call; [`Kind::NotFound`] when it does not exist or is somebody else's.
    pub async fn play(&self, id: &str) -> Result<Play> {
        let play = self.call(Call::get(format!("/plays/{id}"), format!("playground {id}"))).await?;
        one(play, Some(id))
    }

    /// Starts a playground from the catalogue. Never repeated after an unknown outcome; see
    /// [`Error::may_have_happened`].
    ///
    /// # Errors
    /// As every call; the platform's words where it refuses (quota, plan, consent).
    pub async fn create_play(&self, request: &CreatePlay) -> Result<Play> {
        let call = Call::post("/plays", request, format!("starting {}", request.playground))?;
        one(self.call(call.once()).await?, None)
    }

    /// Does something to a play. Only some answers are a play, so the others count as "done": then there is `None`.
    ///
    /// # Errors
    /// As every call.
    pub async fn act(&self, id: &str, action: &Action) -> Result<Option<Play>> {
        let call = Call::post(format!("/plays/{id}/actions"), action, format!("playground {id}"))?;
        let call = if action.is_repeatable() { call } else { call.once() };
        let about = call.about.clone();
        let Some(reply) = self.send(call).await? else { return Ok(None) };
        Ok(decode::<Play>(&reply, &about).and_then(|play| one(play, Some(id))).ok())
    }

    /// Does something to a play, and gives the play as it is then.
    ///
    /// # Errors
    /// As every call.
    pub async fn act_and_look(&self, id: &str, action: &Action) -> Result<Play> {
        match self.act(id, action).await? {
            Some(play) => Ok(play),
            None => self.play(id).await,
        }
    }

    /// A play's tasks. Most of their details are for their author only.
    ///
    /// # Errors
    /// As every call.
    pub async fn tasks(&self, id: &str) -> Result<Vec<TaskDetails>> {
        self.list(Call::get(format!("/plays/{id}/tasks"), format!("the tasks of playground {id}"))).await
    }

    /// The catalogue's official entries.
    ///
    /// # Errors
    /// As every call.
    pub async fn catalog(&self) -> Result<Vec<CatalogEntry>> {
        self.list(Call::get("/playgrounds", "the catalogue")).await
    }

    /// One catalogue entry.
    ///
    /// # Errors
    /// As every call; [`Kind::NotFound`] when there is none of that name.
    pub async fn catalog_entry(&self, name: &str) -> Result<CatalogEntry> {
        self.call(Call::get(format!("/playgrounds/{name}"), format!("the catalogue entry `{name}`"))).await
    }

    /// Begins a login: a session to be confirmed in the browser.
    ///
    /// # Errors
    /// As every call.
    pub async fn create_session(&self) -> Result<Login> {
        let anonymous = Labs { authorization: None, ..self.clone() };
        let reply = anonymous.send(Call::new(Method::POST, "/sessions", "the login")).await?;
        let session: Login = decode(&answered(reply, "the login")?, "the login")?;
        // The address is shown on purpose, and only there.
        [&session.id, &session.access_token].into_iter().for_each(|secret| secrets::keep(secret));
        Ok(session)
    }

    /// A session; these credentials need not be confirmed yet.
    ///
    /// # Errors
    /// As every call.
    pub async fn session(&self, id: &str) -> Result<Login> {
        self.call(Call::get(format!("/sessions/{id}"), "the login")).await
    }

    /// Ends a session at the platform.
    ///
    /// # Errors
    /// As every call.
    pub async fn delete_session(&self, id: &str) -> Result<()> {
        self.send(Call::new(Method::DELETE, format!("/sessions/{id}"), "the logout")).await.map(drop)
    }

    /// Whose credentials these are.
    ///
    /// # Errors
    /// As every call.
    pub async fn me(&self) -> Result<Me> {
        self.call(Call::get("/auth/me?authenticate=true", "the account")).await
    }

    /// Asks for a tunnel to a machine for a user, with that user's public key; both may be empty for mere forwards. The
    /// platform holds the request while the machine boots. Tunnels come out of a small pool per account, so one request
    /// serves as many connections as possible, and callers pause between requests.
    ///
    /// # Errors
    /// As every call; [`Kind::NotYet`] while the machine is not ready.
    pub async fn start_tunnel(&self, play: &str, machine: &str, user: &str, key: &str) -> Result<TunnelOffer> {
        let request = StartTunnel {
            machine: machine.into(),
            port: 0,
            access: "private".into(),
            generate_login_url: true,
            ssh_user: user.into(),
            ssh_pub_key: key.into(),
        };
        let about = match machine {
            "" => format!("the tunnel to playground {play}"),
            _ => format!("the tunnel to machine {machine} of playground {play}"),
        };
        let call = Call::post(format!("/plays/{play}/tunnels"), &request, about)?;
        self.call(Call { repeat: Repeat::Never, limit: TUNNEL_ANSWER, ..call }).await
    }

    /// Gets a tunnel's token.
    ///
    /// # Errors
    /// As every call.
    pub async fn log_into_tunnel(&self, offer: &TunnelOffer) -> Result<TunnelSession> {
        secrets::keep_address(&offer.login_url);
        let token = self.http.cookie(address(&offer.login_url)?, tunnel::COOKIE, UPGRADE).await?;
        Ok(TunnelSession { url: offer.url.clone(), token })
    }

    /// Opens one connection to `target` (`HOST:PORT`; an empty host is the machine itself).
    ///
    /// # Errors
    /// [`Kind::Network`] when it cannot be reached, [`Kind::Refused`] and the like when the session is not valid.
    pub async fn dial(&self, session: &TunnelSession, target: &str) -> Result<Tunnel<Stream>> {
        Ok(Tunnel::client(self.open(session, target).await?))
    }

    /// Opens a WebSocket to any kind of target: beside `HOST:PORT`, `listen:HOST:PORT` has the machine listen, and the
    /// WebSocket tells of each connection by a text message; `connect:CID` takes one up.
    ///
    /// # Errors
    /// As [`Labs::dial`]; [`Kind::Refused`] when an address cannot be bound.
    pub async fn open(&self, session: &TunnelSession, target: &str) -> Result<Stream> {
        let mut parts = address(&session.url)?.into_parts();
        // `/` is in base64's alphabet and would begin another segment of the path.
        let target = BASE64_STANDARD.encode(target).replace('/', "%2F");
        let below = parts.path_and_query.as_ref().map_or("", |path| path.path().trim_end_matches('/'));
        let path = format!("{below}/tunnels/{target}");
        parts.path_and_query = Some(path.parse().map_err(|_| Error::new(Kind::Internal, "no such tunnel path"))?);
        let uri = Uri::from_parts(parts).map_err(|_| Error::new(Kind::Answer, "the tunnel's address is not one"))?;
        let cookie = http::secret(&format!("{}={}", tunnel::COOKIE, session.token))?;
        self.http.websocket(uri, &[(header::COOKIE, cookie)], UPGRADE).await
    }

    /// The port forwards that are saved with a play, in the order of their indices.
    ///
    /// # Errors
    /// As every call.
    pub async fn port_forwards(&self, play: &str) -> Result<Vec<SavedForward>> {
        let about = format!("the port forwards of playground {play}");
        // An index is a place in the list as it came, so nothing is taken out of it.
        let all: Option<Vec<serde_json::Value>> =
            self.call(Call::get(format!("/plays/{play}/port-forwards"), about)).await?;
        Ok(all.unwrap_or_default().into_iter().map(SavedForward::from).collect())
    }

    /// Saves a port forward with a play. Never repeated after an unknown outcome; see [`Error::may_have_happened`].
    ///
    /// # Errors
    /// As every call.
    pub async fn save_port_forward(&self, play: &str, forward: &PortForward) -> Result<()> {
        let about = format!("the port forwards of playground {play}");
        self.send(Call::post(format!("/plays/{play}/port-forwards"), forward, about)?.once()).await.map(drop)
    }

    /// Forgets a saved port forward; those behind it move up, so that a repetition would forget another one.
    ///
    /// # Errors
    /// As every call; [`Kind::NotFound`] when there is none of that index.
    pub async fn forget_port_forward(&self, play: &str, index: usize) -> Result<()> {
        let about = format!("port forward {index} of playground {play}");
        let call = Call::new(Method::DELETE, format!("/plays/{play}/port-forwards/{index}"), about);
        self.send(call.once()).await.map(drop)
    }

    /// A moment that the platform has told, by this computer's clock.
    pub fn by_our_clock(&self, moment: Moment) -> Moment {
        moment.saturating_add_signed(self.ahead.load(Ordering::Relaxed))
    }

    /// Opens the stream of a play's live messages.
    ///
    /// # Errors
    /// As every call.
    pub async fn live(&self, play: &str) -> Result<Stream> {
        let about = format!("the messages of playground {play}");
        let conn: Conn = self.call(Call::new(Method::POST, format!("/plays/{play}/conns"), about)).await?;
        let uri = address(&conn.url)?;
        let host = address(&self.base)?.authority().map(ToString::to_string).unwrap_or_default();
        let origin = HeaderValue::from_str(&format!("https://cli.{host}"))
            .map_err(|_| Error::new(Kind::Usage, "base_url is not an address"))?;
        self.http.websocket(uri, &[(header::ORIGIN, origin)], UPGRADE).await
    }

    /// Every element of a list that can be one. Go writes `null` for an empty list.
    async fn list<T: DeserializeOwned>(&self, call: Call) -> Result<Vec<T>> {
        self.call::<Option<Vec<Option<T>>>>(call).await.map(|all| all.into_iter().flatten().flatten().collect())
    }

    async fn call<T: DeserializeOwned>(&self, call: Call) -> Result<T> {
        if self.authorization.is_none() {
            return Err(Error::new(Kind::NotLoggedIn, "you are not logged in").with_hint(LOGIN));
        }
        let about = call.about.clone();
        let reply = answered(self.send(call).await?, &about)?;
        decode(&reply, &about)
    }

    /// Sends a call by the retry rule. `None` means that it is done, though the answer that said so was lost.
    async fn send(&self, call: Call) -> Result<Option<Reply>> {
        let repeat = if self.repeats { call.repeat } else { Repeat::Never };
        retry::attempt(repeat, || self.send_once(&call)).await
    }

    async fn send_once(&self, Call { method, path, body, about, limit, .. }: &Call) -> Result<Reply> {
        log::debug!("{method} for {about}");
        let mut request = http::request(method.clone(), address(&format!("{}{path}", self.api))?, body.clone());
        if let Some(authorization) = &self.authorization {
            request.headers_mut().insert(header::AUTHORIZATION, authorization.clone());
        }
        // One that does nothing can be asked for twice.
        let new = self.begin.as_ref().filter(|b| request.method() == Method::GET && b.is_new.load(Ordering::Relaxed));
        let reply = match (self.http.send(request.clone(), *limit).await, new) {
            (Err(error), Some(begin)) if error.kind() == Kind::Network => {
                log::info!("the platform has ended just now: {}", error.message());
                (begin.start)().await?;
                // Others that were sent at the same time may come here, too, but nobody does twice.
                let again = self.http.send(request, *limit).await;
                begin.is_new.store(false, Ordering::Relaxed);
                again?
            }
            (reply, _) => reply?,
        };
        if let Some(begin) = &self.begin {
            begin.is_new.store(false, Ordering::Relaxed);
        }
        log::debug!("{} for {about}", reply.status);
        if let Some(ahead) = ahead(&reply.headers, now()) {
            self.ahead.store(ahead, Ordering::Relaxed);
        }
        if reply.status.is_success() { Ok(reply) } else { Err(refusal(&reply, about)) }
    }
}

/// One call of the API.
struct Call {
    method: Method,
    /// Below the API's address.
    path: String,
    /// JSON.
    body: Option<Bytes>,
    /// The call's subject, for people.
    about: String,
    /// For one attempt.
    limit: Duration,
    repeat: Repeat,
}

impl Call {
    fn new(method: Method, path: impl Into<String>, about: impl Into<String>) -> Call {
        let (path, about) = (path.into(), about.into());
        Call { method, path, body: None, about, limit: ANSWER, repeat: Repeat::Harmless }
    }

    fn get(path: impl Into<String>, about: impl Into<String>) -> Call {
        Call { repeat: Repeat::Read, ..Call::new(Method::GET, path, about) }
    }

    fn post(path: impl Into<String>, body: &impl serde::Serialize, about: impl Into<String>) -> Result<Call> {
        let body = serde_json::to_vec(body).map_err(|e| Error::new(Kind::Internal, e.to_string()))?;
        Ok(Call { body: Some(body.into()), ..Call::new(Method::POST, path, about) })
    }

    /// The same call, which must not be done twice.
    fn once(self) -> Call {
        Call { repeat: Repeat::Once, ..self }
    }
}

/// The answer of a call that is of no use without one.
fn answered(reply: Option<Reply>, about: &str) -> Result<Reply> {
    reply.ok_or_else(|| Error::new(Kind::NotYet, format!("{about}: the answer was lost")).with_hint(LATER))
}

/// How far `now` is ahead of the date in an answer, in ms; 0 where that cannot be told from the answer's way and the date's
/// whole seconds.
fn ahead(headers: &HeaderMap, now: Moment) -> Option<i64> {
    const TOLD: i64 = 3000;
    let date = jiff::fmt::rfc2822::parse(headers.get(header::DATE)?.to_str().ok()?).ok()?;
    let ahead = i64::try_from(now).ok()? - date.timestamp().as_millisecond();
    Some(if ahead.abs() < TOLD { 0 } else { ahead })
}

const SERVER: &str = "try again; if it stays so, see the platform's status page";
const LATER: &str = "try again in a moment";
const LOGIN: &str = "log in with `labctl-ssh-proxy login`";

/// An address for hyper: WebSocket schemes are HTTP's under another name.
fn address(text: &str) -> Result<Uri> {
    let http = match text.split_once("://") {
        Some(("ws", rest)) => format!("http://{rest}"),
        Some(("wss", rest)) => format!("https://{rest}"),
        _ => text.to_owned(),
    };
    // The text is not shown: a login URL is a secret.
    let uri: Option<Uri> = http.parse().ok();
    uri.filter(|uri| matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some())
        .ok_or_else(|| Error::new(Kind::Answer, "the platform (or base_url) gave an address that is none"))
}

/// A live message of a play; `None` for a frame that is none.
pub fn message(frame: &tokio_websockets::Message) -> Option<wire::Message> {
    let mut value: serde_json::Value = serde_json::from_str(&crate::labs::tunnel::text(frame)?).ok()?;
    drop_nulls(&mut value);
    serde_json::from_value(value).ok()
}

/// Decodes an answer. Go writes `null` for empty lists, so members that are null count as missing.
fn decode<T: DeserializeOwned>(reply: &Reply, about: &str) -> Result<T> {
    let wrong = |why: &str| Error::new(Kind::Answer, format!("the platform's answer about {about} {why}"));
    if is_swollen(&reply.body) {
        return Err(wrong("has more parts than any of its answers"));
    }
    // Neither the answer nor the parser's words are shown: either may quote a secret that is in it.
    let mut value: serde_json::Value = serde_json::from_slice(&reply.body).map_err(|e| {
        let why = match e.classify() {
            serde_json::error::Category::Eof => "breaks off",
            _ if reply.body.trim_ascii_start().starts_with(b"<") => "is a web page",
            _ => "is not JSON",
        };
        wrong(why).with_hint("if a proxy or a login page answers instead of the platform, set `proxy` in the settings")
    })?;
    drop_nulls(&mut value);
    serde_json::from_value(value).map_err(|_| {
        wrong("is not what it was: a part of it is missing or of another kind")
            .with_hint("a newer version of this program may understand it")
    })
}

/// Whether decoding would take far more memory than the text does: a few bytes of it can make an object of ours.
fn is_swollen(body: &[u8]) -> bool {
    const MAX_OBJECTS: usize = 100_000;
    const MAX_PARTS: usize = 1_000_000;
    let count = |byte| body.iter().filter(|b| **b == byte).count();
    count(b'{') > MAX_OBJECTS || count(b',') + count(b'[') > MAX_PARTS
}

/// Ids go into paths, host names and files, so a play whose id is none is not one.
fn genuine(mut plays: Vec<Play>) -> Vec<Play> {
    plays.retain(|play| is_id(&play.id));
    plays
}

fn one(play: Play, id: Option<&str>) -> Result<Play> {
    if is_id(&play.id) && id.is_none_or(|id| id == play.id) {
        return Ok(play);
    }
    Err(Error::new(Kind::Answer, "the platform answered with another playground than the one asked for"))
}

/// Takes out every null below `value`. A list that is the whole answer keeps its own: places in it may mean something.
fn drop_nulls(value: &mut serde_json::Value) {
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

/// What an answer that is no success means. The platform's own words are shown.
fn refusal(reply: &Reply, about: &str) -> Error {
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
            match rate_limit_reset(&reply.headers, SystemTime::now()) {
                Some(wait) => {
                    error.with_hint(format!("try again in {} s", wait.as_secs_f64().ceil())).with_retry_after(wait)
                }
                None => error.with_hint(LATER),
            }
        }
        StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT => {
            Error::new(Kind::NotYet, format!("{about} is not ready ({said})")).with_hint(LATER)
        }
        status if status.is_client_error() => Error::new(Kind::Refused, format!("{about}: the platform says: {said}")),
        status if words.is_empty() => {
            Error::new(Kind::Answer, format!("{about}: the platform answered {status}")).with_hint(SERVER)
        }
        status => {
            Error::new(Kind::Answer, format!("{about}: the platform answered {status}: {words}")).with_hint(SERVER)
        }
    }
}

/// The words of an error body: its text, or the message inside its JSON. A page of HTML says nothing to a person.
fn words(reply: &Reply) -> String {
    let text = String::from_utf8_lossy(&reply.body[..reply.body.len().min(4096)]);
    let text = text.trim();
    if text.starts_with('<') {
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

/// The length of a rate limit. `X-Ratelimit-Reset` is seconds from now, or a Unix time: in seconds when it is at least a
/// billion, in milliseconds when it is at least a hundred billion, as values seen in the field must be. Clamped to
/// 0..300 s.
fn rate_limit_reset(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    /// 2001-09-09 in seconds; smaller values are durations.
    const UNIX_TIME: u64 = 1_000_000_000;
    /// 1973 in milliseconds, the year 5138 in seconds.
    const UNIX_TIME_MS: u64 = 100_000_000_000;
    const LONGEST: Duration = Duration::from_secs(300);
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

    use super::{Reply, address, ahead, decode, rate_limit_reset, refusal};
    use crate::{error::Kind, labs::wire::Play};

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
    fn half_a_json_and_null_lists() {
        assert_eq!(decode::<Play>(&reply(200, r#"{"id":"#), "x").unwrap_err().kind(), Kind::Answer);
        assert!(decode::<Play>(&reply(200, r#"{"id":"a","machines":null,"title":null}"#), "x").is_ok());
    }

    #[test]
    fn an_address_is_http_or_websocket() {
        assert_eq!(address("wss://a.example/x").unwrap().to_string(), "https://a.example/x");
        assert!(address("file:///etc/passwd").is_err());
        assert!(address("nonsense").is_err());
    }
}
