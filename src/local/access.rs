//! Access to the embedded platform.
//!
//! On the Unix socket the kernel identifies the caller, and nothing else is asked. On a port, which every process and
//! every web page of this computer can reach, every request needs the credentials, must be addressed to this platform
//! by name (against DNS rebinding), and must not come from a page of another origin.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use hyper::{HeaderMap, StatusCode, Uri, header};
use ring::{
    digest,
    rand::{SecureRandom, SystemRandom},
};
use serde::{Deserialize, Serialize};

use crate::{
    error::{Error, Kind, Result},
    files,
    labs::wire::Login,
};

use super::refusal::{Answer, Refusal};

/// The only account.
pub(super) const USER: &str = "local";
/// The time for which a login may stay unconfirmed: as long as clients wait for it.
const LOGIN_TIME: Duration = Duration::from_secs(10 * 60);
/// The largest number of unconfirmed logins; more are refused until the oldest have run out.
const MAX_PENDING: usize = 32;
/// The largest number of confirmed logins; the oldest is logged out for another.
const MAX_SESSIONS: usize = 32;

/// Random bytes, of the given number, in hexadecimal digits.
pub(super) fn random(bytes: usize) -> String {
    let mut buffer = vec![0; bytes];
    // getrandom(2) and its like do not fail on any system that can run this, and nothing could be done safely without
    // them.
    SystemRandom::new().fill(&mut buffer).expect("the system gives random numbers");
    buffer.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Reports whether two secrets are the same, in a time that does not depend on how much of them is.
pub(super) fn same(a: &str, b: &str) -> bool {
    let digest = |text: &str| digest::digest(&digest::SHA256, text.as_bytes());
    digest(a).as_ref() == digest(b).as_ref()
}

/// Credentials, as a client is configured with them.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Credentials {
    /// The session id.
    pub id: String,
    /// The access token.
    pub access_token: String,
}

impl Credentials {
    fn new() -> Credentials {
        Credentials { id: random(12), access_token: random(32) }
    }
}

/// The credentials of the platform whose state is in `folder`, which a client needs on a port. They are made if there
/// are none.
///
/// # Errors
/// Fails when the file cannot be read, understood or written.
pub fn credentials(folder: &Path) -> Result<Credentials> {
    let path = path_in(folder);
    let mut all = load(&path)?;
    if all.is_empty() {
        all.push(Credentials::new());
        save(&path, &all)?;
    }
    Ok(all.swap_remove(0))
}

/// The file of the credentials of that platform.
pub fn path_in(folder: &Path) -> PathBuf {
    folder.join("credentials.json")
}

fn load(path: &Path) -> Result<Vec<Credentials>> {
    let Some(text) = files::read_text(path)? else { return Ok(Vec::new()) };
    serde_json::from_str(&text).map_err(|e| {
        Error::new(Kind::File, format!("{} is damaged: {e}", path.display()))
            .with_hint("delete it; new ones are then created")
    })
}

fn save(path: &Path, all: &[Credentials]) -> Result<()> {
    let text = serde_json::to_vec_pretty(all)
        .map_err(|e| Error::new(Kind::Internal, format!("cannot write credentials: {e}")))?;
    files::write_private(path, &text)
}

/// The logins of one platform.
pub(super) struct Sessions {
    path: PathBuf,
    state: Mutex<State>,
}

struct State {
    confirmed: Vec<Credentials>,
    pending: BTreeMap<String, Pending>,
}

struct Pending {
    access_token: String,
    since: Instant,
}

impl Sessions {
    /// Reads the logins kept in `folder`; the first one is made if there are none.
    ///
    /// # Errors
    /// Fails when they cannot be read, understood or written.
    pub(super) fn open(folder: &Path) -> Result<Sessions> {
        credentials(folder)?;
        let path = path_in(folder);
        let confirmed = load(&path)?;
        Ok(Sessions { path, state: Mutex::new(State { confirmed, pending: BTreeMap::new() }) })
    }

    fn locked(&self) -> MutexGuard<'_, State> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.pending.retain(|_, pending| pending.since.elapsed() < LOGIN_TIME);
        state
    }

    /// Reports whether a request carries the credentials of a confirmed login.
    pub(super) fn knows(&self, headers: &HeaderMap) -> bool {
        let Some((id, token)) = basic(headers) else { return false };
        self.locked().confirmed.iter().any(|known| known.id == id && same(&known.access_token, &token))
    }

    /// Begins a login.
    ///
    /// # Errors
    /// 429 when too many wait to be confirmed.
    pub(super) fn begin(&self, base: &str) -> Answer<Login> {
        let mut state = self.locked();
        if state.pending.len() >= MAX_PENDING {
            return Err(Refusal::new(StatusCode::TOO_MANY_REQUESTS, "too many logins wait to be confirmed"));
        }
        let Credentials { id, access_token } = Credentials::new();
        state.pending.insert(id.clone(), Pending { access_token: access_token.clone(), since: Instant::now() });
        let auth_url = format!("{base}/confirm/{id}");
        Ok(Login { id, user_id: USER.into(), authenticated: false, access_token, auth_url })
    }

    /// Confirms a login.
    ///
    /// # Errors
    /// 404 when there is no such login, 507 when it cannot be saved.
    pub(super) fn confirm(&self, id: &str) -> Answer<()> {
        let mut state = self.locked();
        let pending = state.pending.get(id).ok_or_else(no_session)?;
        let mut confirmed = state.confirmed.clone();
        if confirmed.len() >= MAX_SESSIONS {
            // The first one is the platform's own.
            confirmed.remove(1);
        }
        confirmed.push(Credentials { id: id.into(), access_token: pending.access_token.clone() });
        save(&self.path, &confirmed)?;
        state.confirmed = confirmed;
        state.pending.remove(id);
        Ok(())
    }

    /// The state of a login, for a client that has the login's own credentials.
    ///
    /// # Errors
    /// 404 when there is no such login or it is another's.
    pub(super) fn look(&self, id: &str, headers: &HeaderMap) -> Answer<Login> {
        let (user, token) = basic(headers).ok_or_else(no_session)?;
        let state = self.locked();
        let pending = state.pending.get(id).is_some_and(|own| same(&own.access_token, &token));
        let authenticated = state.confirmed.iter().any(|own| own.id == id && same(&own.access_token, &token));
        if user != id || !(pending || authenticated) {
            return Err(no_session());
        }
        Ok(Login { id: user, user_id: USER.into(), authenticated, ..Login::default() })
    }

    /// Logs out.
    ///
    /// # Errors
    /// As [`Sessions::look`], and 507 when it cannot be saved.
    pub(super) fn end(&self, id: &str, headers: &HeaderMap) -> Answer<()> {
        self.look(id, headers)?;
        let mut state = self.locked();
        let mut confirmed = state.confirmed.clone();
        confirmed.retain(|own| own.id != id);
        save(&self.path, &confirmed)?;
        state.confirmed = confirmed;
        state.pending.remove(id);
        Ok(())
    }
}

fn no_session() -> Refusal {
    Refusal::new(StatusCode::NOT_FOUND, "no such session")
}

/// The user and password of a request.
fn basic(headers: &HeaderMap) -> Option<(String, String)> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, encoded) = value.split_once(' ')?;
    let decoded = BASE64_STANDARD.decode(encoded.trim()).ok()?;
    let (user, password) = std::str::from_utf8(&decoded).ok()?.split_once(':')?;
    scheme.eq_ignore_ascii_case("basic").then(|| (user.to_owned(), password.to_owned()))
}

/// The names to which a platform on a port answers.
#[derive(Clone, Debug)]
pub(super) struct Names {
    hosts: Vec<String>,
    origin: Option<String>,
}

impl Names {
    /// The names for a platform that listens on `listen` and is known as `base`.
    ///
    /// # Errors
    /// Fails when `base` is not an `http` or `https` URL of a host and nothing more.
    pub(super) fn new(listen: std::net::IpAddr, base: &str) -> Result<Names> {
        let wrong = || {
            Error::new(Kind::Usage, format!("`{base}` is not a public URL"))
                .with_hint("write it like https://labs.test:8443")
        };
        let uri: Uri = base.parse().map_err(|_| wrong())?;
        let whole = matches!(uri.scheme_str(), Some("http" | "https")) && uri.path() == "/" && uri.query().is_none();
        let authority = uri.authority().filter(|authority| whole && !authority.as_str().contains('@'));
        let authority = authority.ok_or_else(wrong)?;
        let listen = if listen.is_ipv6() { format!("[{listen}]") } else { listen.to_string() };
        let hosts = vec![listen, "localhost".into(), authority.host().to_ascii_lowercase()];
        Ok(Names { hosts, origin: Some(format!("https://cli.{}", authority.as_str().to_ascii_lowercase())) })
    }

    /// Refuses a request that a web page may have sent.
    ///
    /// # Errors
    /// 403 when the request is for another host or comes from a page.
    pub(super) fn check(&self, headers: &HeaderMap) -> Answer<()> {
        let text = |name| headers.get(name).map(|value: &header::HeaderValue| value.to_str().unwrap_or("?"));
        let host = text(header::HOST).and_then(|host| host.parse::<hyper::http::uri::Authority>().ok());
        let host = host.map(|host| host.host().to_ascii_lowercase());
        if !host.as_ref().is_some_and(|host| self.hosts.contains(host)) {
            return Err(Refusal::new(StatusCode::FORBIDDEN, "this platform does not have that host name"));
        }
        match text(header::ORIGIN).map(str::to_ascii_lowercase) {
            origin if origin.is_none() || origin == self.origin => Ok(()),
            _ => Err(Refusal::new(StatusCode::FORBIDDEN, "web pages have no access")),
        }
    }
}

#[cfg(test)]
mod tests {
    use base64::{Engine, prelude::BASE64_STANDARD};
    use hyper::{HeaderMap, StatusCode};

    use super::{Names, Sessions, credentials};

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    fn with(id: &str, token: &str) -> HeaderMap {
        headers(&[("authorization", &format!("Basic {}", BASE64_STANDARD.encode(format!("{id}:{token}"))))])
    }

    #[test]
    fn a_login_counts_once_it_is_confirmed_and_until_it_ends() {
        let folder = tempfile::tempdir().unwrap();
        let sessions = Sessions::open(folder.path()).unwrap();
        let own = credentials(folder.path()).unwrap();
        assert!(sessions.knows(&with(&own.id, &own.access_token)));
        assert!(!sessions.knows(&with(&own.id, "guess")));
        assert!(!sessions.knows(&HeaderMap::new()));

        let login = sessions.begin("http://localhost").unwrap();
        let its = with(&login.id, &login.access_token);
        assert!(!sessions.knows(&its));
        assert!(!sessions.look(&login.id, &its).unwrap().authenticated);
        assert_eq!(sessions.look(&login.id, &with(&login.id, "x")).unwrap_err().status, StatusCode::NOT_FOUND);
        sessions.confirm(&login.id).unwrap();
        assert!(sessions.look(&login.id, &its).unwrap().authenticated);
        assert!(Sessions::open(folder.path()).unwrap().knows(&its), "it outlives the platform");
        sessions.end(&login.id, &its).unwrap();
        assert!(!sessions.knows(&its));
        assert!(sessions.confirm(&login.id).is_err());
    }

    #[test]
    fn unconfirmed_logins_are_bounded() {
        let folder = tempfile::tempdir().unwrap();
        let sessions = Sessions::open(folder.path()).unwrap();
        let refused = (0..100).filter(|_| sessions.begin("http://localhost").is_err()).count();
        assert_eq!(refused, 100 - super::MAX_PENDING);
    }

    #[test]
    fn pages_and_other_names_are_refused() {
        let names = Names::new([127, 0, 0, 1].into(), "https://Labs.test:8443").unwrap();
        let check = |pairs: &[(&'static str, &str)]| names.check(&headers(pairs)).is_ok();
        for host in ["127.0.0.1:999", "localhost", "labs.test", "LABS.test:8443"] {
            assert!(check(&[("host", host)]), "{host}");
        }
        for host in ["evil.test", "127.0.0.1.evil.test:999", "", "labs.test@evil.test"] {
            assert!(!check(&[("host", host)]), "{host}");
        }
        assert!(!check(&[]));
        assert!(check(&[("host", "labs.test"), ("origin", "https://cli.labs.test:8443")]));
        for origin in ["https://labs.test:8443", "null", "https://evil.test", "http://127.0.0.1:999"] {
            assert!(!check(&[("host", "labs.test"), ("origin", origin)]), "{origin}");
        }
        for base in ["labs.test", "ftp://labs.test", "https://labs.test/path", "https://", "https://a@labs.test"] {
            assert!(Names::new([127, 0, 0, 1].into(), base).is_err(), "{base}");
        }
    }
}
