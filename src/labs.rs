//! The platform's API: one method a call (`calls`), and the one place where an HTTP status becomes an error.

pub mod account;
pub(crate) mod address;
pub mod answer;
mod calls;
pub(crate) mod catalog;
pub(crate) mod feed;
pub(crate) mod find;
mod gather;
pub mod http;
mod last_address;
pub(crate) mod learning;
pub mod messages;
pub mod net;
mod proxy;
pub(crate) mod retry;
pub mod silence;
pub(crate) mod span;
mod titles;
mod trust;
pub mod tunnel;
pub mod vitals;
pub mod wire;

use std::{
    path::PathBuf,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
    time::Duration,
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use hyper::{
    Method,
    header::{self, HeaderValue},
};
use serde::de::DeserializeOwned;

use crate::{
    error::{Error, Kind, Result},
    labs::{
        account::Account,
        address::{configured, given, is_base, peer},
        answer::{LOGIN, Reply, ahead, answered, decode, refusal},
        http::{Http, Stream},
        net::Dialer,
        retry::Repeat,
        titles::Titles,
        wire::Conn,
    },
    moment::{Moment, now},
    secrets,
};

/// Limit for calls that the platform answers from what it knows.
const ANSWER: Duration = Duration::from_secs(30);
/// Limit for a tunnel request, which the platform holds "for up to about a minute" while the machine boots.
const TUNNEL_ANSWER: Duration = Duration::from_secs(90);
/// Limit for opening a WebSocket, connecting included.
const UPGRADE: Duration = Duration::from_secs(30);

/// A client of the platform.
#[derive(Clone)]
pub struct Labs {
    http: Http,
    base: String,
    api: String,
    authorization: Arc<RwLock<Option<HeaderValue>>>,
    /// The file of the credentials, which another process may renew.
    account_file: Option<PathBuf>,
    begin: Option<Arc<Begin>>,
    repeats: bool,
    /// The lead of this computer's clock over the platform's, in ms.
    ahead: Arc<AtomicI64>,
    titles: Arc<Titles>,
    called: Option<Arc<Called>>,
}

/// Returns the id of the playground that has an alias.
type Called = dyn Fn(&str) -> Option<String> + Send + Sync;

/// Starts the platform where it does not run.
pub type Start = dyn Fn() -> BoxFuture<'static, Result<()>> + Send + Sync;

/// The way to start the embedded platform. It may end between the check that it runs and the first request, which is
/// then sent once more.
struct Begin {
    start: Box<Start>,
    /// True from that check until the first answer.
    is_new: AtomicBool,
}

/// The key to a machine: good for any number of connections to any of its ports.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TunnelSession {
    /// The address below which WebSockets are opened.
    pub url: String,
    /// The bearer token.
    pub token: String,
}

impl Labs {
    /// The real platform, by the account's addresses and credentials.
    ///
    /// # Errors
    /// Fails when the credentials cannot be in a header.
    pub fn new(dialer: Dialer, account: &Account) -> Result<Labs> {
        let authorization = Arc::new(RwLock::new(authorization(account)?));
        let (base, api) = (account.base_url(), account.api_base_url());
        Ok(Labs {
            http: Http::new(dialer),
            base,
            api,
            authorization,
            account_file: None,
            begin: None,
            repeats: true,
            ahead: Arc::default(),
            titles: Arc::default(),
            called: None,
        })
    }

    /// The embedded platform behind `dialer`, which needs no credentials on its socket.
    pub fn embedded(dialer: Dialer) -> Labs {
        let base = "http://localhost";
        Labs {
            http: Http::new(dialer),
            base: base.into(),
            api: format!("{base}/api"),
            authorization: Arc::new(RwLock::new(Some(HeaderValue::from_static("Basic bG9jYWw6bG9jYWw=")))),
            account_file: None,
            begin: None,
            repeats: true,
            ahead: Arc::default(),
            titles: Arc::default(),
            called: None,
        }
    }

    /// Adds the readable names by which arguments may call playgrounds.
    #[must_use]
    pub fn called(self, by: impl Fn(&str) -> Option<String> + Send + Sync + 'static) -> Labs {
        Labs { called: Some(Arc::new(by)), ..self }
    }

    /// Adds a way to start the platform where it has just ended; see [`Labs::expect_running`].
    #[must_use]
    pub fn started_by(self, start: Box<Start>) -> Labs {
        Labs { begin: Some(Arc::new(Begin { start, is_new: AtomicBool::new(false) })), ..self }
    }

    /// Returns the same client for a caller that repeats its requests itself, so that it sees each failure at once.
    #[must_use]
    pub fn without_repetition(self) -> Labs {
        Labs { repeats: false, ..self }
    }

    /// Returns the same client with connections of its own, a new one for each request, and without repetition: for a
    /// caller that has just lost one.
    #[must_use]
    pub fn dialling_anew(&self) -> Labs {
        Labs { http: self.http.dialling_anew(), repeats: false, ..self.clone() }
    }

    /// Reads the credentials from the account's file again when the platform refuses them: the user may have logged in
    /// since.
    #[must_use]
    pub fn renewed_from(self, account_file: PathBuf) -> Labs {
        Labs { account_file: Some(account_file), ..self }
    }

    /// Notes that the platform was seen running, so that it is started once more if it does not answer the first
    /// request.
    pub fn expect_running(&self) {
        if let Some(begin) = &self.begin {
            begin.is_new.store(true, Ordering::Relaxed);
        }
    }

    /// The site's address.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// The hosts of the platform's site: the account's, and the public one.
    pub fn sites(&self) -> Vec<&str> {
        let host = |address: &'static str| address.trim_start_matches("https://");
        let own = self.base.split_once("://").map_or(self.base.as_str(), |(_, rest)| rest);
        let own = own.split('/').next().unwrap_or_default();
        let public = host(account::BASE_URL);
        if own == public { vec![public] } else { vec![own, public] }
    }

    /// A text that is different for each account of each platform. A secret.
    pub fn account(&self) -> String {
        self.authorization().and_then(|value| value.to_str().map(str::to_owned).ok()).unwrap_or_default()
    }

    fn authorization(&self) -> Option<HeaderValue> {
        self.authorization.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes the credentials of the account's file, if they are others than those that were refused.
    fn renew(&self, refused: Option<&HeaderValue>) -> bool {
        let read = || authorization(&Account::load(self.account_file.as_ref()?).ok()?).ok()?;
        let Some(renewed) = read().filter(|renewed| Some(renewed) != refused) else { return false };
        log::info!("the login has been renewed");
        *self.authorization.write().unwrap_or_else(PoisonError::into_inner) = Some(renewed);
        true
    }

    /// The way to the platform in words: its host, and the proxy before it.
    pub(crate) fn way(&self) -> String {
        configured(&self.api).map_or_else(|_| self.api.clone(), |uri| self.http.way(&uri))
    }

    /// The API's address.
    pub fn api(&self) -> &str {
        &self.api
    }

    /// Converts a moment that the platform has named to this computer's clock.
    pub fn by_our_clock(&self, moment: Moment) -> Moment {
        moment.saturating_add_signed(self.ahead.load(Ordering::Relaxed))
    }

    /// Opens a stream of messages, as a browser of the site would.
    async fn stream(&self, conn: &Conn) -> Result<Stream> {
        let uri = given(&conn.url)?;
        let origin = HeaderValue::from_str(&format!("https://cli.{}", peer(&configured(&self.base)?)))
            .map_err(|_| Error::new(Kind::Usage, "base_url is not a valid address"))?;
        self.http.websocket(uri, &[(header::ORIGIN, origin)], UPGRADE).await
    }

    /// Calls for a list, without the elements that are null. Go writes `null` for an empty list. An element that cannot
    /// be understood is left out as well, unless it is the only one.
    async fn list<T: DeserializeOwned>(&self, call: Call) -> Result<Vec<T>> {
        let about = self.titles.named(&call.about);
        let all = self.call::<Option<Vec<serde_json::Value>>>(call).await?.unwrap_or_default();
        answer::list(all, &about)
    }

    async fn call<T: DeserializeOwned>(&self, call: Call) -> Result<T> {
        if self.authorization().is_none() && !self.renew(None) {
            return Err(Error::new(Kind::NotLoggedIn, "you are not logged in").with_hint(LOGIN));
        }
        let about = self.titles.named(&call.about);
        let reply = answered(self.send(call).await?, &about)?;
        decode(&reply, &about)
    }

    /// Sends a call by the retry rule. `None` means that it is done, though the answer was lost.
    async fn send(&self, call: Call) -> Result<Option<Reply>> {
        let repeat = if self.repeats { call.repeat } else { Repeat::Never };
        retry::attempt(repeat, || self.send_by_login(&call)).await
    }

    /// Sends a call, and once more if the login has been renewed since it was refused.
    async fn send_by_login(&self, call: &Call) -> Result<Reply> {
        let used = self.authorization();
        match self.send_once(call).await {
            Err(error) if error.status() == Some(401) && self.renew(used.as_ref()) => self.send_once(call).await,
            sent => sent,
        }
    }

    async fn send_once(&self, Call { method, path, body, about, limit, .. }: &Call) -> Result<Reply> {
        log::debug!("{method} for {about}");
        is_base(&self.api)?;
        let mut request = http::request(method.clone(), configured(&format!("{}{path}", self.api))?, body.clone());
        if let Some(authorization) = self.authorization() {
            request.headers_mut().insert(header::AUTHORIZATION, authorization);
        }
        // A GET changes nothing, so it can be sent twice.
        let new = self.begin.as_ref().filter(|b| request.method() == Method::GET && b.is_new.load(Ordering::Relaxed));
        let reply = match (self.http.send(request.clone(), *limit).await, new) {
            (Err(error), Some(begin)) if error.kind() == Kind::Network => {
                log::info!("the embedded platform has just exited: {}", error.message());
                (begin.start)().await?;
                // Requests that were sent at the same time may come here, too, but each of them only once.
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
        if reply.status.is_success() { Ok(reply) } else { Err(refusal(&reply, &self.titles.named(about))) }
    }
}

/// The header with an account's credentials, which is a secret.
fn authorization(account: &Account) -> Result<Option<HeaderValue>> {
    let Some((id, token)) = account.credentials() else { return Ok(None) };
    let encoded = BASE64_STANDARD.encode(format!("{id}:{token}"));
    [id, token, &encoded].into_iter().for_each(secrets::keep);
    http::secret(&format!("Basic {encoded}")).map(Some)
}

/// One call of the API.
struct Call {
    method: Method,
    /// Below the API's address.
    path: String,
    /// JSON.
    body: Option<Bytes>,
    /// The call's subject, in the words of error messages.
    about: String,
    /// Limit of one attempt.
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

    /// Marks a call that must not be carried out twice.
    fn once(self) -> Call {
        Call { repeat: Repeat::Once, ..self }
    }
}
