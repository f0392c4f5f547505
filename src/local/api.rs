//! The platform's API: one route a call.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::SinkExt;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{HeaderMap, Method, Request, Response, StatusCode, body::Incoming, header};
use russh::keys::PublicKey;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use tokio::{
    sync::watch,
    time::{interval, timeout},
};
use tokio_websockets::{Limits, Message, ServerBuilder};

use crate::labs::{
    http::Stream,
    wire::{self, Action, CreatePlay, StartTunnel, State, Status},
};

use super::{
    access::{Names, Sessions, USER, random},
    catalog,
    record::{Port, PortForward, Record},
    refusal::{Answer, Refusal, no_entry, no_machine},
    tunnels,
    world::World,
};

/// No request of the API is near this.
const MAX_BODY: usize = 1024 * 1024;
/// Saved port forwards, and exposed ports, of one play.
const MAX_RECORDS: usize = 100;
/// How often a stream of live messages is pinged.
const PING_EVERY: Duration = Duration::from_secs(30);
/// How long a slow reader of live messages may take for one.
const SEND_TIME: Duration = Duration::from_secs(10);

/// The API's server.
pub struct Api {
    /// The playgrounds.
    pub world: Arc<World>,
    /// How long a tunnel request is held while the machine boots.
    pub hold: Duration,
    /// Who may come in by the port; there is none without it.
    pub port: Option<Door>,
    conns_key: String,
}

/// What is asked of those who come in by the port.
pub struct Door {
    /// The logins.
    pub sessions: Sessions,
    /// The platform's names.
    pub names: Names,
}

/// How a request came in.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Way {
    /// By the Unix socket, from the user whose platform this is.
    Socket,
    /// By the TCP port, from anybody.
    Port,
}

type Reply = Response<Full<Bytes>>;

impl Api {
    /// The API over `world`.
    pub fn new(world: Arc<World>, hold: Duration, port: Option<Door>) -> Api {
        Api { world, hold, port, conns_key: random(16) }
    }

    /// Answers a request. `guard` is held as long as anything that the request began, such as a tunnel, goes on.
    pub async fn answer<G>(&self, way: Way, request: Request<Incoming>, guard: G) -> Reply
    where
        G: Send + 'static,
    {
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let reply = self.route(way, request, guard).await.unwrap_or_else(|refusal| {
            let mut reply = text(refusal.status, &refusal.words);
            if refusal.status == StatusCode::UNAUTHORIZED {
                let realm = header::HeaderValue::from_static("Basic realm=\"labctl-ssh-proxy\"");
                reply.headers_mut().insert(header::WWW_AUTHENTICATE, realm);
            }
            reply
        });
        // Some paths are secrets.
        let shown = path.split('/').take(4).filter(|part| part.len() <= 24).collect::<Vec<_>>().join("/");
        log::debug!("{method} {shown}: {}", reply.status());
        reply
    }

    async fn route<G>(&self, way: Way, mut request: Request<Incoming>, guard: G) -> Answer<Reply>
    where
        G: Send + 'static,
    {
        let path = request.uri().path().to_owned();
        let headers = request.headers().clone();
        if let (Way::Port, Some(door)) = (way, &self.port) {
            door.names.check(&headers)?;
        }
        // These have secrets of their own.
        if let Some(target) = path.strip_prefix("/tunnels/") {
            let token = tunnels::token(&headers).unwrap_or_default();
            let gate = self.world.gate_of_token(token).ok_or_else(|| {
                Refusal::new(StatusCode::UNAUTHORIZED, "the tunnel's token is wrong, or its machine was stopped since")
            })?;
            return tunnels::open(&gate, target, &mut request, guard).await;
        }
        if let Some(login) = path.strip_prefix("/login/") {
            return self.log_in(login);
        }
        if let Some(conn) = path.strip_prefix("/conns/") {
            return self.live(conn, &mut request, guard);
        }
        // On the real platform the API lives below /api.
        let path = path.strip_prefix("/api").filter(|rest| rest.starts_with('/')).unwrap_or(&path);
        let segments: Vec<&str> = path.trim_matches('/').split('/').collect();
        let method = request.method().clone();
        if way == Way::Port && !(method == Method::POST && segments == ["sessions"]) {
            self.check_login(&segments, &headers)?;
        }
        let query = request.uri().query().unwrap_or_default().to_owned();
        let world = &self.world;
        match (method.as_str(), segments.as_slice()) {
            ("GET", ["plays"]) => Ok(ok(&world.list(query.split('&').any(|pair| pair == "persistent=true")))),
            ("POST", ["plays"]) => Ok(ok(&world.create(&new_play(request).await?).await?)),
            ("GET", ["plays", id]) => Ok(ok(&world.get(id)?)),
            ("POST", ["plays", id, "actions"]) => {
                let action: Action = read(request).await?;
                Ok(ok(&world.act(id, action)?))
            }
            ("POST", ["plays", id, "conns"]) => {
                world.watch(id)?;
                let base = world.base().replacen("http", "ws", 1);
                Ok(ok(&wire::Conn { url: format!("{base}/conns/{id}-{}", self.conns_key) }))
            }
            ("POST", ["plays", id, "tunnels"]) => {
                let wish: StartTunnel = read(request).await?;
                Ok(ok(&self.start_tunnel(id, &wish).await?))
            }
            ("GET", ["plays", id, "port-forwards"]) => world.read(id, |record| Ok(ok(&record.port_forwards))),
            ("POST", ["plays", id, "port-forwards"]) => {
                let forward: PortForward = read(request).await?;
                world.edit(id, |record| {
                    check_machine(record, &forward.machine)?;
                    check_room(record.port_forwards.len())?;
                    record.port_forwards.push(forward);
                    Ok(())
                })?;
                Ok(nothing(StatusCode::CREATED))
            }
            ("DELETE", ["plays", id, "port-forwards", index]) => world.edit(id, |record| {
                let index = index.parse().ok().filter(|index| *index < record.port_forwards.len());
                record.port_forwards.remove(index.ok_or_else(|| not_found("no such port forward"))?);
                Ok(nothing(StatusCode::NO_CONTENT))
            }),
            ("GET", ["plays", id, "ports"]) => world.read(id, |record| Ok(ok(&record.ports))),
            ("POST", ["plays", id, "ports"]) => {
                let wish: Port = read(request).await?;
                world.edit(id, |record| expose(record, wish)).map(|port| ok(&port))
            }
            ("DELETE", ["plays", id, "ports", port]) => world.edit(id, |record| {
                let before = record.ports.len();
                record.ports.retain(|known| known.id != *port);
                if record.ports.len() == before {
                    return Err(not_found("no such port"));
                }
                Ok(nothing(StatusCode::NO_CONTENT))
            }),
            ("GET", ["playgrounds"]) => {
                let entries = catalog::CATALOG.iter().map(|entry| entry.shown(world.base()));
                Ok(ok(&entries.collect::<Vec<_>>()))
            }
            ("GET", ["playgrounds", name]) => {
                Ok(ok(&catalog::find(name).ok_or_else(|| no_entry(name))?.shown(world.base())))
            }
            ("GET", ["auth", "me"]) => Ok(ok(&wire::Me { id: USER.into(), ..wire::Me::default() })),
            ("POST", ["sessions"]) => Ok(ok(&self.door()?.sessions.begin(world.base())?)),
            ("GET", ["sessions", id]) => Ok(ok(&self.door()?.sessions.look(id, &headers)?)),
            ("DELETE", ["sessions", id]) => {
                self.door()?.sessions.end(id, &headers)?;
                Ok(nothing(StatusCode::NO_CONTENT))
            }
            ("GET", ["confirm", id]) => self.confirm(id, &headers),
            (method, _) => Err(not_found(&format!("nothing answers {method} {path} here"))),
        }
    }

    /// Logins are for the port: on the socket there is nothing to log into.
    fn door(&self) -> Answer<&Door> {
        self.port.as_ref().ok_or_else(|| not_found("no login is needed: this platform has no port (--listen)"))
    }

    fn check_login(&self, segments: &[&str], headers: &HeaderMap) -> Answer<()> {
        let door = self.door()?;
        // A login that is not confirmed yet may look at itself.
        let own = matches!(segments, ["sessions", id] if door.sessions.look(id, headers).is_ok());
        if own || door.sessions.knows(headers) {
            return Ok(());
        }
        Err(Refusal::new(StatusCode::UNAUTHORIZED, "log in first"))
    }

    /// The page that confirms a login. On the port it takes the credentials of the platform's own folder to see it: a
    /// browser asks for them.
    fn confirm(&self, id: &str, headers: &HeaderMap) -> Answer<Reply> {
        // A browser sends along what it was given once, so a link on some page must not be enough.
        let site = headers.get("sec-fetch-site").map_or("none", |value| value.to_str().unwrap_or("?"));
        if !matches!(site, "none" | "same-origin") {
            return Err(Refusal::new(StatusCode::FORBIDDEN, "open this address yourself to confirm the login"));
        }
        self.door()?.sessions.confirm(id)?;
        Ok(text(StatusCode::OK, "The login is confirmed. You can close this page."))
    }

    fn log_in(&self, login: &str) -> Answer<Reply> {
        let gate = self.world.gate_of_login(login);
        let gate = gate.ok_or_else(|| not_found("this login has run out, or its machine was stopped since"))?;
        let mut reply = text(StatusCode::OK, "Logged in.");
        let secure = if self.world.base().starts_with("https:") { "; Secure" } else { "" };
        let cookie = format!("{}={}; Path=/; HttpOnly; SameSite=Strict{secure}", tunnels::COOKIE, gate.token());
        // The token is hexadecimal.
        let cookie = cookie.parse().map_err(|_| not_found("no such login"))?;
        reply.headers_mut().insert(header::SET_COOKIE, cookie);
        reply.headers_mut().insert(header::CACHE_CONTROL, header::HeaderValue::from_static("no-store"));
        Ok(reply)
    }

    async fn start_tunnel(&self, id: &str, wish: &StartTunnel) -> Answer<wire::Tunnel> {
        let wrong = |words: String| Refusal::new(StatusCode::BAD_REQUEST, words);
        let user = self.world.read(id, |record| {
            let machine = match wish.machine.as_str() {
                "" => record.machines.first(),
                name => record.machines.iter().find(|machine| machine.name == name),
            };
            let machine = machine.ok_or_else(|| no_machine(record, &wish.machine))?;
            let shown = catalog::machine(&machine.name, machine.users.clone());
            let user = if wish.ssh_user.is_empty() { shown.default_user() } else { &wish.ssh_user };
            if !machine.users.iter().any(|known| known.name == user) {
                return Err(wrong(format!("machine {} has no user {user}", machine.name)));
            }
            Ok(user.to_owned())
        })?;
        let key = match wish.ssh_pub_key.trim() {
            "" => None,
            line => Some(PublicKey::from_openssh(line).map_err(|e| wrong(format!("sshPubKey is no public key: {e}")))?),
        };
        let gate = self.world.gate(id, &wish.machine, self.hold).await?;
        if let Some(key) = key {
            gate.machine().authorize(&user, &key)?;
        }
        let base = self.world.base();
        Ok(wire::Tunnel { url: base.to_owned(), login_url: format!("{base}/login/{}", gate.new_login()) })
    }

    /// Live messages: a play's status now, and at each change.
    fn live<G: Send + 'static>(&self, conn: &str, request: &mut Request<Incoming>, guard: G) -> Answer<Reply> {
        let unknown = || not_found("no such connection");
        let (id, key) = conn.split_once('-').ok_or_else(unknown)?;
        if !super::access::same(key, &self.conns_key) {
            return Err(unknown());
        }
        let changed = self.world.watch(id)?;
        let (answer, upgraded) = tunnels::upgrade(request)?;
        tokio::spawn(async move {
            if let Some(socket) = upgraded.await {
                tell(socket, changed).await;
            }
            drop(guard);
        });
        Ok(answer)
    }
}

async fn tell(socket: Stream, mut changed: watch::Receiver<Status>) {
    use futures_util::StreamExt;
    let mut ws = ServerBuilder::new().limits(Limits::default().max_payload_len(Some(4096))).serve(socket);
    let mut ping = interval(PING_EVERY);
    ping.tick().await;
    changed.mark_changed();
    loop {
        let message = tokio::select! {
            more = changed.changed() => {
                if more.is_err() {
                    break;
                }
                let status = changed.borrow_and_update().clone();
                Message::text(json!({ "kind": "status", "status": status }).to_string())
            }
            said = ws.next() => match said {
                Some(Ok(message)) if !message.is_close() => continue,
                Some(Ok(_) | Err(_)) | None => break,
            },
            _ = ping.tick() => Message::ping(""),
        };
        if !matches!(timeout(SEND_TIME, ws.send(message)).await, Ok(Ok(()))) {
            break;
        }
        let gone = changed.borrow().state_events.last().is_some_and(|event| event.state == State::Destroyed);
        if gone && !changed.has_changed().unwrap_or(false) {
            break;
        }
    }
    let _ = timeout(Duration::from_secs(1), ws.close()).await;
}

/// The catalogue name of a new play. What would change the entry itself is not done here, and so not accepted.
async fn new_play(request: Request<Incoming>) -> Answer<String> {
    let wish: serde_json::Map<String, Value> = read(request).await?;
    for key in ["machines", "tabs", "networks", "initTasks"] {
        let given = match wish.get(key) {
            Some(Value::Array(items)) => !items.is_empty(),
            Some(Value::Object(members)) => !members.is_empty(),
            Some(other) => !other.is_null(),
            None => false,
        };
        if given {
            let words = format!("this platform starts playgrounds as they are in its catalogue, without other {key}");
            return Err(Refusal::new(StatusCode::BAD_REQUEST, words));
        }
    }
    let wish = CreatePlay::deserialize(Value::Object(wish)).map_err(|e| unreadable(&e))?;
    Ok(wish.playground)
}

fn check_machine(record: &Record, name: &str) -> Answer<()> {
    match record.machines.iter().any(|machine| machine.name == name) {
        true => Ok(()),
        false => Err(no_machine(record, name)),
    }
}

fn check_room(count: usize) -> Answer<()> {
    match count < MAX_RECORDS {
        true => Ok(()),
        false => Err(Refusal::new(StatusCode::FORBIDDEN, format!("a playground has at most {MAX_RECORDS} of these"))),
    }
}

fn expose(record: &mut Record, wish: Port) -> Answer<Port> {
    check_machine(record, &wish.machine)?;
    check_room(record.ports.len())?;
    if wish.number == 0 {
        return Err(Refusal::new(StatusCode::BAD_REQUEST, "there is no port 0"));
    }
    let scheme = if wish.tls { "https" } else { "http" };
    let port = Port {
        id: random(12),
        play_id: record.id.clone(),
        hostname: "localhost".into(),
        access: if wish.access.is_empty() { "private".into() } else { wish.access },
        url: format!("{scheme}://localhost:{}", wish.number),
        ..wish
    };
    record.ports.push(port.clone());
    Ok(port)
}

/// The JSON body of a request.
async fn read<T: DeserializeOwned>(request: Request<Incoming>) -> Answer<T> {
    let body = Limited::new(request.into_body(), MAX_BODY).collect().await.map_err(|e| {
        if e.is::<http_body_util::LengthLimitError>() {
            Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, format!("a request has at most {MAX_BODY} bytes"))
        } else {
            Refusal::new(StatusCode::BAD_REQUEST, format!("the request broke off: {e}"))
        }
    })?;
    serde_json::from_slice(&body.to_bytes()).map_err(|e| unreadable(&e))
}

fn unreadable(error: &serde_json::Error) -> Refusal {
    Refusal::new(StatusCode::BAD_REQUEST, format!("the request is not what this call takes: {error}"))
}

fn not_found(words: &str) -> Refusal {
    Refusal::new(StatusCode::NOT_FOUND, words)
}

/// A JSON answer.
pub fn ok(value: &impl Serialize) -> Reply {
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
pub fn text(status: StatusCode, words: &str) -> Reply {
    let mut reply = Response::new(Full::from(format!("{words}\n")));
    *reply.status_mut() = status;
    let kind = header::HeaderValue::from_static("text/plain; charset=utf-8");
    reply.headers_mut().insert(header::CONTENT_TYPE, kind);
    reply.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, header::HeaderValue::from_static("nosniff"));
    reply
}

fn nothing(status: StatusCode) -> Reply {
    let mut reply = Response::new(Full::default());
    *reply.status_mut() = status;
    reply
}
