//! A stand-in for the real platform, on the network: its API on one host, the login and the tunnels on another, and a
//! real sshd behind them. It records every request.

use std::{
    fs, io,
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Request, Response, StatusCode, body::Incoming, header, service::service_fn};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::{TlsAcceptor, rustls};

use super::{World, cut::Cut, wsmux};

pub const ID: &str = "0123456789abcdef01234567";
pub const SESSION: &str = "session-of-ada";
pub const TOKEN: &str = "token-of-ada";
const TUNNEL_TOKEN: &str = "bearer+of/tunnels==";

/// The status of an answer that is not sent: the connection ends instead.
pub const CUT: u16 = 599;

/// A request that arrived.
#[derive(Clone, Debug)]
pub struct Seen {
    /// True for a request to the API's host, false for one to the host of logins and tunnels.
    pub api: bool,
    /// The method and the path with its query.
    pub line: String,
    pub authorization: Option<String>,
    pub cookie: Option<String>,
    pub agent: String,
    pub body: Value,
}

/// An answer that replaces the true one, for requests whose method and path begin with `line`.
#[derive(Clone)]
pub struct Instead {
    pub line: String,
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    pub body: String,
    /// A text that the request's body must contain.
    pub body_has: &'static str,
    /// The number of requests to answer. Later ones get the true answer.
    pub times: u32,
    /// True to carry out the request nevertheless, so that only its answer is lost.
    pub is_done: bool,
}

impl Instead {
    pub fn of(line: &str, status: u16, body: &str) -> Instead {
        let (line, body) = (line.to_owned(), body.to_owned());
        Instead { line, status, headers: Vec::new(), body, body_has: "", times: u32::MAX, is_done: false }
    }

    pub fn once(self) -> Instead {
        Instead { times: 1, ..self }
    }

    pub fn done(self) -> Instead {
        Instead { is_done: true, ..self }
    }
}

struct State {
    api_url: String,
    other_url: String,
    seen: Mutex<Vec<Seen>>,
    instead: Mutex<Vec<Instead>>,
    plays: Mutex<Vec<Value>>,
    confirmed_at_poll: Mutex<u32>,
    authorized_keys: PathBuf,
    sshd: SocketAddr,
    refused_dials: Mutex<u32>,
    forwards: Mutex<Vec<Value>>,
    /// The exposed ports, the web terminals, and what a scan finds.
    ports: Mutex<Vec<Value>>,
    shells: Mutex<Vec<Value>>,
    listening: Mutex<Vec<Value>>,
    /// The path of a tunnel's URL.
    tunnel_path: Mutex<String>,
    wsmux: Mutex<Option<SocketAddr>>,
    /// The access token that the API accepts.
    access: Mutex<String>,
    /// The token that tunnels accept.
    tunnel_token: Mutex<String>,
    /// The status of the answer to whatever opens a tunnel, in the place of the true one.
    tunnel_status: Mutex<Option<u16>>,
}

pub struct Labs {
    runtime: Option<tokio::runtime::Runtime>,
    state: Arc<State>,
    pub certificate: PathBuf,
}

/// The route to the stand-in: with or without TLS, and the host names.
#[derive(Clone, Copy)]
pub struct Reach {
    pub tls: bool,
    pub api: &'static str,
    pub other: &'static str,
}

pub const PLAIN: Reach = Reach { tls: false, api: "127.0.0.1", other: "localhost" };
pub const TLS: Reach = Reach { tls: true, ..PLAIN };
/// Host names that only a proxy can resolve.
pub const BEHIND_PROXY: Reach = Reach { tls: true, api: "api.labs.test", other: "tunnels.labs.test" };

impl Labs {
    /// Starts the stand-in, and logs the world's user in.
    pub fn start(world: &World, reach: Reach) -> Labs {
        Labs::start_behind(world, reach, None)
    }

    /// Starts the stand-in with its tunnels behind a network that fails on command, and a home of its own for the
    /// machine.
    pub fn behind(world: &World, tunnels: &Cut) -> Labs {
        Labs::start_behind(world, PLAIN, Some(tunnels))
    }

    fn start_behind(world: &World, reach: Reach, tunnels: Option<&Cut>) -> Labs {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let bind = || runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let (api, other, sshd) = (bind(), bind(), bind());
        let scheme = if reach.tls { "https" } else { "http" };
        let url =
            |name: &str, listener: &TcpListener| format!("{scheme}://{name}:{}", listener.local_addr().unwrap().port());
        if let Some(tunnels) = tunnels {
            tunnels.leads_to(&other.local_addr().unwrap().to_string());
        }
        let state = Arc::new(State {
            api_url: url(reach.api, &api),
            other_url: tunnels.map_or_else(|| url(reach.other, &other), Cut::url),
            seen: Mutex::default(),
            instead: Mutex::default(),
            plays: Mutex::new(vec![play(ID, "Ada's box", "docker", "RUNNING")]),
            confirmed_at_poll: Mutex::new(2),
            authorized_keys: world.path("authorized_keys"),
            sshd: sshd.local_addr().unwrap(),
            refused_dials: Mutex::new(0),
            forwards: Mutex::default(),
            ports: Mutex::default(),
            shells: Mutex::default(),
            listening: Mutex::default(),
            tunnel_path: Mutex::default(),
            wsmux: Mutex::new(None),
            access: Mutex::new(TOKEN.to_owned()),
            tunnel_token: Mutex::new(TUNNEL_TOKEN.to_owned()),
            tunnel_status: Mutex::default(),
        });
        let config = sshd_config(world);
        // A home of its own: that of the person who runs the tests is no place for a relay.
        let home = world.path("machine");
        fs::create_dir_all(&home).unwrap();
        if tunnels.is_none() {
            // Only behind a network that fails are there sessions that survive.
            fs::write(home.join(".cache"), "").unwrap();
        }
        let text = fs::read_to_string(&config).unwrap() + &format!("SetEnv HOME={}\n", home.display());
        fs::write(&config, text).unwrap();
        runtime.spawn(wsmux::sshd(sshd, config));

        let certificate = world.path("certificate.pem");
        let acceptor = reach.tls.then(|| acceptor(&[reach.api, reach.other], &certificate));
        for (listener, is_api) in [(api, true), (other, false)] {
            runtime.spawn(serve(listener, acceptor.clone(), Arc::clone(&state), is_api));
        }
        let labs = Labs { runtime: Some(runtime), state, certificate };
        labs.log_in(world, &format!("session_id: {SESSION}\naccess_token: {TOKEN}\n"));
        labs
    }

    /// Writes the account file with `credentials`, the lines for the credentials.
    pub fn log_in(&self, world: &World, credentials: &str) {
        let account = world.path(".iximiuz/labctl/config.yaml");
        fs::create_dir_all(account.parent().unwrap()).unwrap();
        let text = format!("api_base_url: {}/api\nplays_dir: /nowhere\n{credentials}", self.state.api_url);
        fs::write(account, text).unwrap();
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.state.seen.lock().unwrap().clone()
    }

    pub fn instead(&self, line: &str, status: u16, body: &str) {
        self.answer(Instead::of(line, status, body));
    }

    pub fn answer(&self, instead: Instead) {
        self.state.instead.lock().unwrap().insert(0, instead);
    }

    /// Returns the number of requests whose method and path begin with `line`.
    pub fn count(&self, line: &str) -> usize {
        self.seen().iter().filter(|seen| seen.line.starts_with(line)).count()
    }

    pub fn forget_seen(&self) {
        self.state.seen.lock().unwrap().clear();
    }

    /// Changes a play.
    pub fn edit(&self, id: &str, change: impl FnOnce(&mut Value)) {
        change(self.state.plays.lock().unwrap().iter_mut().find(|play| play["id"] == id).unwrap());
    }

    pub fn play(&self, id: &str) -> Option<Value> {
        self.state.plays.lock().unwrap().iter().find(|play| play["id"] == id).cloned()
    }

    pub fn save_forwards(&self, all: Value) {
        *self.state.forwards.lock().unwrap() = all.as_array().unwrap().clone();
    }

    pub fn forwards(&self) -> Vec<Value> {
        self.state.forwards.lock().unwrap().clone()
    }

    pub fn ports(&self) -> Vec<Value> {
        self.state.ports.lock().unwrap().clone()
    }

    pub fn shells(&self) -> Vec<Value> {
        self.state.shells.lock().unwrap().clone()
    }

    /// Has scans find these ports on the machine.
    pub fn listens_on(&self, ports: &[u16]) {
        let found = ports.iter().map(|port| json!({ "machine": "docker-01", "number": port, "protocol": "HTTP" }));
        *self.state.listening.lock().unwrap() = found.collect();
    }

    pub fn api_url(&self) -> &str {
        &self.state.api_url
    }

    /// The addresses that a tunnel's offer names: the tunnel's and its login's.
    pub fn tunnel_addresses(&self) -> [String; 2] {
        [self.state.other_url.clone(), format!("{}/login?once=1", self.state.other_url)]
    }

    /// Redirects requests whose method and path begin with `line`.
    pub fn redirect(&self, line: &str, to: &str) {
        self.answer(Instead { headers: vec![("location", to.to_owned())], ..Instead::of(line, 302, "") });
    }

    pub fn tunnels_below(&self, path: &str) {
        *self.state.tunnel_path.lock().unwrap() = path.to_owned();
    }

    pub fn truth(&self) {
        self.state.instead.lock().unwrap().clear();
    }

    pub fn add(&self, play: Value) {
        self.state.plays.lock().unwrap().push(play);
    }

    /// Ends the user's session, and the tunnels' tokens with it. Open tunnels live on. A login with `access` is accepted
    /// from now on.
    pub fn end_session(&self, access: &str) {
        *self.state.access.lock().unwrap() = access.to_owned();
        *self.state.tunnel_token.lock().unwrap() = format!("of-{access}");
    }

    /// Ends the tunnels' tokens. A new one is had for the asking. Open tunnels live on.
    pub fn end_tunnel_tokens(&self, next: &str) {
        *self.state.tunnel_token.lock().unwrap() = next.to_owned();
    }

    /// Answers whatever opens a tunnel with this status, or with the truth.
    pub fn tunnels_answer(&self, status: Option<u16>) {
        *self.state.tunnel_status.lock().unwrap() = status;
    }

    /// Serves tunnels by a real wsmux that listens at that address.
    pub fn tunnels_by(&self, wsmux: SocketAddr) {
        *self.state.wsmux.lock().unwrap() = Some(wsmux);
    }

    /// Makes the next `times` dials inside the machine fail.
    pub fn refuse_dials(&self, times: u32) {
        *self.state.refused_dials.lock().unwrap() = times;
    }
}

/// Creates a TLS acceptor for these names, and writes its new certificate to that file.
pub fn acceptor(names: &[&str], certificate: &std::path::Path) -> TlsAcceptor {
    let made = rcgen::generate_simple_self_signed(names.iter().map(ToString::to_string).collect::<Vec<_>>()).unwrap();
    fs::write(certificate, made.cert.pem()).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    TlsAcceptor::from(Arc::new(config))
}

/// Terminates TLS for incoming connections and passes the plain data on.
pub async fn take_tls_off(listener: TcpListener, acceptor: TlsAcceptor, to: String) {
    while let Ok((client, _)) = listener.accept().await {
        let (acceptor, to) = (acceptor.clone(), to.clone());
        tokio::spawn(async move {
            let Ok(mut client) = acceptor.accept(client).await else { return };
            let Ok(mut server) = TcpStream::connect(to).await else { return };
            let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
        });
    }
}

impl Drop for Labs {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

pub fn play(id: &str, title: &str, name: &str, state: &str) -> Value {
    let now = "2026-11-22T12:00:00Z";
    json!({
        "id": id, "title": title, "createdAt": now, "updatedAt": now, "lastStateAt": now, "expiresIn": 7_200_000, "maxPlayTime": "8h0m0s",
        "playground": { "name": name, "title": name, "owner": "" },
        "pageUrl": "https://labs.test/x", "tutorialName": null, "somethingNew": {"a": [1]},
        "machines": [{ "name": "docker-01", "users": [{ "name": user(), "default": true }], "resources": {} }],
        "status": {
            "factoryId": "f", "stateEvents": [{ "state": "CREATED", "at": now }, { "state": state, "at": now }],
            "machines": [{ "name": "docker-01", "state": state, "conditions":
                [{ "name": "Ready", "status": "True", "lastTransitionAt": now }] }],
        },
    })
}

/// Returns the user who runs the tests. sshd knows no other.
pub fn user() -> String {
    let id = std::process::Command::new("id").arg("-un").output().unwrap();
    String::from_utf8(id.stdout).unwrap().trim().to_owned()
}

fn sshd_config(world: &World) -> PathBuf {
    if rustix::process::geteuid().is_root() {
        // Some packages create sshd's empty folder only at boot.
        fs::create_dir_all("/run/sshd").unwrap();
    }
    let key = world.path("host_key");
    let mut keygen = world.program("ssh-keygen");
    let _ = world.output(keygen.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&key)).ok();
    let path = world.path("sshd_config");
    let text = format!(
        "HostKey {}\nAuthorizedKeysFile {}\nStrictModes no\nUsePAM no\nSubsystem sftp internal-sftp\n\
         PidFile none\nPermitRootLogin yes\nPasswordAuthentication no\n",
        key.display(),
        world.path("authorized_keys").display()
    );
    fs::write(&path, text).unwrap();
    path
}

async fn serve(listener: TcpListener, tls: Option<TlsAcceptor>, state: Arc<State>, is_api: bool) {
    while let Ok((tcp, _)) = listener.accept().await {
        let (tls, state) = (tls.clone(), Arc::clone(&state));
        tokio::spawn(async move {
            match tls {
                None => connection(tcp, state, is_api).await,
                Some(tls) => {
                    if let Ok(stream) = tls.accept(tcp).await {
                        connection(stream, state, is_api).await;
                    }
                }
            }
        });
    }
}

async fn connection<S>(stream: S, state: Arc<State>, is_api: bool)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |request| {
        let state = Arc::clone(&state);
        async move {
            match answer(&state, request, is_api).await {
                cut if cut.status() == CUT => Err(io::Error::other("the answer is lost")),
                answer => Ok(answer),
            }
        }
    });
    let serving = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    let _ = serving.with_upgrades().await;
}

type Answer = Response<Full<Bytes>>;

fn reply(status: u16, body: impl Into<Bytes>) -> Answer {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    response
}

fn json_reply(value: &Value) -> Answer {
    reply(200, value.to_string())
}

async fn answer(state: &Arc<State>, mut request: Request<Incoming>, is_api: bool) -> Answer {
    let text = |name| request.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let mut seen = Seen {
        api: is_api,
        line: format!("{} {}", request.method(), request.uri()),
        authorization: text(header::AUTHORIZATION),
        cookie: text(header::COOKIE),
        agent: text(header::USER_AGENT).unwrap_or_default(),
        body: Value::Null,
    };
    if request.headers().contains_key(header::UPGRADE) {
        state.seen.lock().unwrap().push(seen.clone());
        return tunnel(state, &mut request, &seen);
    }
    let body = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    seen.body = serde_json::from_slice(&body).unwrap_or_default();
    state.seen.lock().unwrap().push(seen.clone());
    let instead = {
        let mut all = state.instead.lock().unwrap();
        let said = String::from_utf8_lossy(&body);
        let fits =
            |one: &&mut Instead| one.times > 0 && seen.line.starts_with(&one.line) && said.contains(one.body_has);
        all.iter_mut().find(fits).map(|one| {
            one.times -= 1;
            one.clone()
        })
    };
    let Some(instead) = instead else { return if is_api { api(state, &seen) } else { login(state, &seen) } };
    if instead.is_done {
        api(state, &seen);
    }
    let mut answer = reply(instead.status, instead.body);
    for (name, value) in instead.headers {
        answer.headers_mut().insert(name, value.parse().unwrap());
    }
    answer
}

fn api(state: &State, seen: &Seen) -> Answer {
    let good = format!("Basic {}", BASE64_STANDARD.encode(format!("{SESSION}:{}", state.access.lock().unwrap())));
    let path = seen.line.replace(" /api", " ");
    let words: Vec<&str> = path.split([' ', '/', '?']).filter(|word| !word.is_empty()).collect();
    if words[..] != ["POST", "sessions"] && seen.authorization.as_ref() != Some(&good) {
        return reply(401, "session expired");
    }
    let mut plays = state.plays.lock().unwrap();
    let found = |id: &str, plays: &[Value]| plays.iter().position(|play| play["id"] == id);
    match words[..] {
        ["GET", "plays"] | ["GET", "plays", "persistent=true"] => json_reply(&json!(*plays)),
        ["POST", "plays"] => {
            let name = seen.body["playground"].as_str().unwrap();
            if name == "by-mallory" && seen.body["safetyDisclaimerConsent"] != true {
                return reply(403, "consent first");
            }
            let id = format!("{:024x}", plays.len() + 1);
            plays.push(play(&id, "New", name, "RUNNING"));
            json_reply(plays.last().unwrap())
        }
        ["GET", "plays", id] => match found(id, &plays) {
            Some(i) => json_reply(&plays[i]),
            None => reply(404, "no such play"),
        },
        ["POST", "plays", id, "actions"] => {
            let Some(i) = found(id, &plays) else { return reply(404, "no such play") };
            match seen.body["action"].as_str().unwrap() {
                "destroy" => {
                    let gone = plays.remove(i);
                    return json_reply(&gone);
                }
                "set_title" => plays[i]["title"] = seen.body["title"].clone(),
                "set_max_play_time" => {
                    let minutes = seen.body["maxPlayTimeMinutes"].as_u64().unwrap();
                    let parsed = plays[i]["maxPlayTime"].as_str().and_then(|text| text.split('h').next()?.parse().ok());
                    let before: u64 = parsed.unwrap_or(8);
                    let left = plays[i]["expiresIn"].as_u64().unwrap() + minutes * 60_000;
                    plays[i]["expiresIn"] = json!(left.saturating_sub(before * 3_600_000));
                    plays[i]["maxPlayTime"] = json!(format!("{}h{}m0s", minutes / 60, minutes % 60));
                }
                "stop" => enter(&mut plays[i], "STOPPED"),
                "restart" => enter(&mut plays[i], "RUNNING"),
                _ => {}
            }
            json_reply(&plays[i])
        }
        ["POST", "plays", _, "tunnels"] => {
            let key = seen.body["sshPubKey"].as_str().unwrap();
            let mut keys = fs::read_to_string(&state.authorized_keys).unwrap_or_default();
            if !keys.contains(key) {
                keys += &format!("{key}\n");
                fs::write(&state.authorized_keys, keys).unwrap();
            }
            let url = format!("{}{}", state.other_url, state.tunnel_path.lock().unwrap());
            json_reply(&json!({ "url": url, "loginUrl": format!("{}/login?once=1", state.other_url) }))
        }
        ["GET", "plays", _, "port-forwards"] => json_reply(&json!(*state.forwards.lock().unwrap())),
        ["POST", "plays", _, "port-forwards"] => {
            state.forwards.lock().unwrap().push(seen.body.clone());
            reply(201, "")
        }
        ["DELETE", "plays", _, "port-forwards", index] => {
            state.forwards.lock().unwrap().remove(index.parse().unwrap());
            reply(204, "")
        }
        ["POST", "plays", _, "ports", "scan", ..] => json_reply(&json!(*state.listening.lock().unwrap())),
        ["GET", "plays", _, kind @ ("ports" | "shells")] => json_reply(&json!(*exposed(state, kind).lock().unwrap())),
        ["POST", "plays", id, kind @ ("ports" | "shells")] => {
            let mut all = exposed(state, kind).lock().unwrap();
            let mut made = seen.body.clone();
            made["id"] = json!(format!("{kind}-{}", all.len() + 1));
            made["playId"] = json!(id);
            made["url"] = json!(format!("https://{id}-{:06x}.node.example.org", all.len() + 1));
            all.push(made.clone());
            json_reply(&made)
        }
        ["DELETE", "plays", _, kind @ ("ports" | "shells"), id] => {
            let mut all = exposed(state, kind).lock().unwrap();
            let before = all.len();
            all.retain(|one| one["id"] != id);
            if all.len() == before { reply(404, "no such port") } else { reply(204, "") }
        }
        ["GET", "playgrounds", "filter=my-custom"] => json_reply(&json!([])),
        ["GET", "playgrounds"] => json_reply(&json!([entry("docker", ""), entry("by-mallory", "mallory")])),
        ["GET", "playgrounds", "docker"] => json_reply(&entry("docker", "")),
        ["GET", "playgrounds", "by-mallory"] => json_reply(&entry("by-mallory", "mallory")),
        ["GET", "challenges", "solve-it"] => json_reply(&challenge(&plays)),
        ["PATCH", "challenges", "solve-it"] => {
            let running = plays.iter().position(|play| play["challengeName"] == "solve-it");
            match (seen.body["started"].as_bool().unwrap(), running) {
                (true, None) => {
                    let mut begun = play(&format!("{:024x}", plays.len() + 1), "Solve It", "docker", "RUNNING");
                    begun["challengeName"] = json!("solve-it");
                    plays.push(begun);
                }
                (false, Some(running)) => drop(plays.remove(running)),
                (true, Some(_)) | (false, None) => {}
            }
            json_reply(&challenge(&plays))
        }
        ["POST", "sessions"] => json_reply(&json!({
            "id": SESSION, "userId": "", "authenticated": false, "accessToken": TOKEN,
            "authUrl": format!("https://labs.test/confirm/{SESSION}"),
        })),
        ["GET", "sessions", SESSION] => {
            let mut left = state.confirmed_at_poll.lock().unwrap();
            *left = left.saturating_sub(1);
            json_reply(
                &json!({ "id": SESSION, "userId": "u1", "authenticated": *left == 0, "accessToken": "", "authUrl": "" }),
            )
        }
        ["DELETE", "sessions", SESSION] => reply(204, ""),
        ["GET", "auth", "me", ..] => {
            json_reply(&json!({ "id": "u1", "githubProfileId": "ada", "premiumAccess": null }))
        }
        _ => reply(404, "no such thing"),
    }
}

fn exposed<'a>(state: &'a State, kind: &str) -> &'a Mutex<Vec<Value>> {
    if kind == "ports" { &state.ports } else { &state.shells }
}

/// The only challenge, with the play of its attempt if one goes on.
fn challenge(plays: &[Value]) -> Value {
    let play = plays.iter().find(|play| play["challengeName"] == "solve-it");
    json!({
        "name": "solve-it", "title": "Solve It", "pageUrl": "https://labs.test/challenges/solve-it",
        "authors": [{ "userId": "p", "official": true }], "play": play, "completedAt": null, "tags": null,
    })
}

/// Changes the state of a play and its machines.
pub fn enter(play: &mut Value, state: &str) {
    let event = json!({ "state": state, "at": "2026-11-22T13:00:00Z" });
    play["status"]["stateEvents"].as_array_mut().unwrap().push(event);
    for machine in play["status"]["machines"].as_array_mut().unwrap() {
        machine["state"] = json!(state);
        machine["conditions"][0]["status"] = json!(if state == "RUNNING" { "True" } else { "False" });
    }
}

fn entry(name: &str, owner: &str) -> Value {
    json!({ "id": name, "owner": owner, "name": name, "title": name, "description": "d", "machines": null,
        "userAccess": { "canStart": true } })
}

/// Answers a login. It redirects to another host, and only the last answer counts.
fn login(state: &State, seen: &Seen) -> Answer {
    let cookie = |mut answer: Answer, value: &str| {
        let value = format!(".ixcondsess={value}; Path=/; HttpOnly; Secure");
        answer.headers_mut().insert(header::SET_COOKIE, value.parse().unwrap());
        answer
    };
    match seen.line.as_str() {
        "GET /login?once=1" => {
            let mut answer = cookie(reply(302, ""), "not-yet");
            let (scheme, rest) = state.other_url.split_once("://").unwrap();
            let host = if rest.starts_with("localhost") && scheme == "http" {
                rest.replace("localhost", "127.0.0.1")
            } else {
                rest.to_owned()
            };
            answer.headers_mut().insert(header::LOCATION, format!("{scheme}://{host}/welcome").parse().unwrap());
            answer
        }
        "GET /welcome" => cookie(reply(200, "<html>hello"), &state.tunnel_token.lock().unwrap()),
        _ => reply(404, ""),
    }
}

fn tunnel(state: &State, request: &mut Request<Incoming>, seen: &Seen) -> Answer {
    if seen.cookie.as_deref() != Some(&format!(".ixcondsess={}", state.tunnel_token.lock().unwrap())) {
        return reply(401, "no session");
    }
    if let Some(status) = *state.tunnel_status.lock().unwrap() {
        return reply(status, "not now");
    }
    let below = format!("GET {}/tunnels/", state.tunnel_path.lock().unwrap());
    let target = seen.line.strip_prefix(&below).and_then(|t| BASE64_STANDARD.decode(t).ok());
    let Some(target) = target else { return reply(400, "bad target") };
    let target = String::from_utf8(target).unwrap();
    if target.starts_with("listen:") {
        return reply(400, "the stand-in cannot listen");
    }
    let port = target.rsplit_once(':').and_then(|(_, port)| port.parse().ok()).filter(|port| *port != 22);
    let key = request.headers()[header::SEC_WEBSOCKET_KEY].as_bytes().to_vec();
    let upgrade = hyper::upgrade::on(request);
    let mut left = state.refused_dials.lock().unwrap();
    let target = if *left > 0 {
        *left -= 1;
        // No process listens there.
        SocketAddr::from(([127, 0, 0, 1], 1))
    } else {
        port.map_or(state.sshd, |port| SocketAddr::from(([127, 0, 0, 1], port)))
    };
    let real = *state.wsmux.lock().unwrap();
    let accept = labctl_ssh_proxy::labs::http::accept_key(&key);
    tokio::spawn(async move {
        let Ok(upgraded) = upgrade.await else { return };
        match real {
            None => wsmux::serve(TokioIo::new(upgraded), target).await,
            Some(real) => relay(TokioIo::new(upgraded), real, &String::from_utf8(key).unwrap(), target).await,
        }
    });
    let mut answer = reply(101, "");
    for (name, value) in [
        (header::CONNECTION, "Upgrade"),
        (header::UPGRADE, "websocket"),
        (header::SEC_WEBSOCKET_ACCEPT, accept.as_str()),
    ] {
        answer.headers_mut().insert(name, value.parse().unwrap());
    }
    answer
}

/// Passes a connection whose upgrade was answered on to a real wsmux, with the same upgrade. `target` replaces port 22
/// of the machine.
async fn relay(mut client: impl AsyncRead + AsyncWrite + Unpin, wsmux: SocketAddr, key: &str, target: SocketAddr) {
    let mut server = TcpStream::connect(wsmux).await.unwrap();
    let path = BASE64_STANDARD.encode(target.to_string());
    let request = format!(
        "GET /tunnels/{path} HTTP/1.1\r\nHost: {wsmux}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n"
    );
    server.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(server.read_u8().await.unwrap());
    }
    assert!(head.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&head));
    let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
}

/// An HTTP proxy that supports only `CONNECT`, and resolves every name to this computer.
pub struct Proxy {
    pub address: SocketAddr,
    heads: Arc<Mutex<Vec<String>>>,
    _runtime: tokio::runtime::Runtime,
}

impl Proxy {
    pub fn start() -> Proxy {
        use tokio::io::copy_bidirectional;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let heads: Arc<Mutex<Vec<String>>> = Arc::default();
        let kept = Arc::clone(&heads);
        runtime.spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let kept = Arc::clone(&kept);
                tokio::spawn(async move {
                    let mut head = Vec::new();
                    while !head.ends_with(b"\r\n\r\n") {
                        let Ok(byte) = client.read_u8().await else { return };
                        head.push(byte);
                    }
                    let head = String::from_utf8(head).unwrap();
                    kept.lock().unwrap().push(head.clone());
                    let port = head.split([' ', ':']).nth(2).and_then(|port| port.parse::<u16>().ok());
                    let Ok(mut server) = TcpStream::connect(("127.0.0.1", port.unwrap())).await else { return };
                    client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await.unwrap();
                    let _ = copy_bidirectional(&mut client, &mut server).await;
                });
            }
        });
        Proxy { address, heads, _runtime: runtime }
    }

    /// Returns the requests that have arrived so far.
    pub fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }
}
