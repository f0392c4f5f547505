//! The platform's API: one route a call.

mod learning;
mod playgrounds;

use std::{sync::Arc, time::Duration};

use hyper::{HeaderMap, Method, Request, StatusCode, body::Incoming, header};
use russh::keys::PublicKey;
use serde::Deserialize;
use serde_json::json;

use crate::labs::{
    tunnel,
    wire::{self, Action, ReadJournal, StartTunnel},
};

use super::{
    access::{Names, Sessions, USER, random, same},
    catalog, live,
    pool::Pool,
    preferences::Preferences,
    record::{Port, PortForward, Record},
    refusal::{Answer, Refusal, no_machine},
    reply::{Reply, nothing, ok, read, refused, text, values},
    tunnels,
    world::World,
};

/// The largest number of saved port forwards, and of exposed ports, of one play.
const MAX_RECORDS: usize = 100;

/// The API's server.
pub(super) struct Api {
    /// The playgrounds.
    pub world: Arc<World>,
    /// The time for which a tunnel request is held while the machine boots.
    pub hold: Duration,
    /// The conditions for requests by the port; `None` without a port.
    pub port: Option<Door>,
    /// The tunnels that may be open at once.
    pub pool: Arc<Pool>,
    /// The account's preferences.
    pub preferences: Preferences,
    /// The secret part of the addresses of streams.
    pub streams_key: String,
}

/// The conditions for requests by the port.
pub(super) struct Door {
    /// The logins.
    pub sessions: Sessions,
    /// The platform's names.
    pub names: Names,
}

/// The way by which a request came in.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Entrance {
    /// By the Unix socket, from the user whose platform this is.
    Socket,
    /// By the TCP port, from any process.
    Port,
}

impl Api {
    /// Answers a request. `guard` is held as long as the request or anything that it began, such as a tunnel, goes on.
    pub(super) async fn answer<G>(&self, entrance: Entrance, request: Request<Incoming>, guard: G) -> Reply
    where
        G: Send + 'static,
    {
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let reply = self.route(entrance, request, guard).await.unwrap_or_else(|refusal| refused(&refusal));
        // Some paths are secrets.
        let shown = path.split('/').take(4).filter(|part| part.len() <= 24).collect::<Vec<_>>().join("/");
        log::debug!("{method} {shown}: {}", reply.status());
        reply
    }

    async fn route<G>(&self, entrance: Entrance, mut request: Request<Incoming>, guard: G) -> Answer<Reply>
    where
        G: Send + 'static,
    {
        let path = request.uri().path().to_owned();
        let headers = request.headers().clone();
        if let (Entrance::Port, Some(door)) = (entrance, &self.port) {
            door.names.check(&headers)?;
        }
        // These have secrets of their own.
        if let Some(target) = path.strip_prefix("/tunnels/") {
            let token = tunnels::token(&headers).unwrap_or_default();
            let (gate, session) = self.world.gate_of_token(token).ok_or_else(|| {
                Refusal::new(
                    StatusCode::UNAUTHORIZED,
                    "the tunnel's token is wrong, or its machine has been stopped since",
                )
            })?;
            let hold = (guard, self.pool.connect(session));
            return tunnels::open(&gate, target, &mut request, hold).await;
        }
        if let Some(login) = path.strip_prefix("/login/") {
            return self.log_in(login);
        }
        if let Some(conn) = path.strip_prefix("/conns/") {
            return self.live(conn, &mut request, guard);
        }
        if let Some(journal) = path.strip_prefix("/journals/") {
            return self.journal(journal, &mut request, guard);
        }
        // On the real platform the API lives below /api.
        let path = path.strip_prefix("/api").filter(|rest| rest.starts_with('/')).unwrap_or(&path);
        let segments: Vec<&str> = path.trim_matches('/').split('/').collect();
        let method = request.method().clone();
        if entrance == Entrance::Port && !(method == Method::POST && segments == ["sessions"]) {
            self.check_login(&segments, &headers)?;
        }
        let query = request.uri().query().unwrap_or_default().to_owned();
        let world = &self.world;
        match (method.as_str(), segments.as_slice()) {
            ("GET", ["plays"]) if values(&query, "persistent") == ["true"] => Ok(ok(&world.kept())),
            ("GET", ["plays"]) => Ok(ok(&world.recent())),
            ("POST", ["plays"]) => Ok(ok(&world.create(playgrounds::new_play(request).await?).await?)),
            ("GET", ["plays", id]) => Ok(ok(&world.get(id)?)),
            ("POST", ["plays", id, "actions"]) => match read(request).await? {
                Action::ListConsoles { machine } => Ok(ok(&world.consoles(id, &machine)?)),
                Action::ReadConsole { machine, console } => {
                    Ok(ok(&wire::Console { content: world.console(id, &machine, &console)? }))
                }
                action => Ok(ok(&world.act(id, action)?)),
            },
            ("POST", ["plays", id, "conns"]) => {
                world.watch(id)?;
                Ok(ok(&self.stream_at(&format!("conns/{id}-{}", self.streams_key))))
            }
            ("GET", ["plays", id, "tasks"]) => Ok(ok(&world.tasks(id, &values(&query, "machine"))?)),
            ("POST", ["plays", id, "journals"]) => {
                let wish: ReadJournal = read(request).await?;
                check_journal(&wish)?;
                world.journal(id, &wish.machine, wish.lines)?;
                let (key, machine, lines) = (&self.streams_key, &wish.machine, wish.lines);
                Ok(ok(&self.stream_at(&format!("journals/{key}/{id}/{lines}/{machine}"))))
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
            ("POST", ["plays", id, "ports", "scan"]) => {
                let machine = values(&query, "machine").first().copied();
                Ok(ok(&world.scan(id, machine).await?))
            }
            // There are no web terminals here, so the list of them is empty and none can be made.
            ("GET", ["plays", id, "shells"]) => world.read(id, |_| Ok(ok(&json!([])))),
            ("POST", ["plays", id, "shells"]) => {
                world.read(id, |_| Err(Refusal::not_here("this platform has no web terminals: use ssh instead")))
            }
            ("DELETE", ["plays", id, "shells", _]) => world.read(id, |_| Err(Refusal::not_found("no such shell"))),
            ("GET", ["playgrounds"]) => Ok(ok(&playgrounds::list(world, &values(&query, "filter"))?)),
            ("POST", ["playgrounds"]) => Ok(ok(&playgrounds::create(world, request).await?)),
            ("GET", ["playgrounds", name]) => Ok(ok(&playgrounds::get(world, name)?)),
            ("PUT", ["playgrounds", name]) => Ok(ok(&playgrounds::update(world, name, request).await?)),
            ("DELETE", ["playgrounds", name]) => {
                playgrounds::remove(world, name)?;
                Ok(nothing(StatusCode::NO_CONTENT))
            }
            (_, ["challenges" | "tutorials" | "courses", ..]) => self.learn(&segments, &query, request).await,
            ("GET", ["auth", "me"]) => Ok(ok(&self.me())),
            ("PATCH", ["account", "preferences"]) => {
                let wish: Preference = read(request).await?;
                self.preferences.choose_region(&wish.region)?;
                Ok(ok(&self.me()))
            }
            ("POST", ["sessions"]) => Ok(ok(&self.door()?.sessions.begin(world.base())?)),
            ("GET", ["sessions", id]) => Ok(ok(&self.door()?.sessions.look(id, &headers)?)),
            ("DELETE", ["sessions", id]) => {
                self.door()?.sessions.end(id, &headers)?;
                Ok(nothing(StatusCode::NO_CONTENT))
            }
            ("GET", ["confirm", id]) => self.confirm(id, &headers),
            (method, _) => Err(Refusal::not_found(format!("this platform does not have {method} {path}"))),
        }
    }

    fn me(&self) -> wire::Me {
        wire::Me { id: USER.into(), preferred_region: self.preferences.region(), ..wire::Me::default() }
    }

    fn stream_at(&self, path: &str) -> wire::Conn {
        wire::Conn { url: format!("{}/{path}", self.world.base().replacen("http", "ws", 1)) }
    }

    /// The conditions of the port. On the socket there is nothing to log into.
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

    /// The page that confirms a login. On the port it needs the credentials of the platform's own folder, for which a
    /// browser asks the user.
    fn confirm(&self, id: &str, headers: &HeaderMap) -> Answer<Reply> {
        // A browser repeats credentials by itself, so a link on some page must not be enough.
        let site = headers.get("sec-fetch-site").map_or("none", |value| value.to_str().unwrap_or("?"));
        if !matches!(site, "none" | "same-origin") {
            return Err(Refusal::new(StatusCode::FORBIDDEN, "open this address yourself to confirm the login"));
        }
        self.door()?.sessions.confirm(id)?;
        Ok(text(StatusCode::OK, "The login is confirmed. You can close this page."))
    }

    fn log_in(&self, login: &str) -> Answer<Reply> {
        let token = self.world.token_of_login(login);
        let token = token.ok_or_else(|| not_found("this login has expired, or its machine has been stopped since"))?;
        let mut reply = text(StatusCode::OK, "Logged in.");
        let secure = if self.world.base().starts_with("https:") { "; Secure" } else { "" };
        let cookie = format!("{}={token}; Path=/; HttpOnly; SameSite=Strict{secure}", tunnel::COOKIE);
        // The token is hexadecimal, with a dot.
        let cookie = cookie.parse().map_err(|_| not_found("no such login"))?;
        reply.headers_mut().insert(header::SET_COOKIE, cookie);
        reply.headers_mut().insert(header::CACHE_CONTROL, header::HeaderValue::from_static("no-store"));
        Ok(reply)
    }

    async fn start_tunnel(&self, id: &str, wish: &StartTunnel) -> Answer<wire::TunnelOffer> {
        let user = self.world.read(id, |record| user_of_tunnel(record, wish))?;
        let key = match wish.ssh_pub_key.trim() {
            "" => None,
            line => Some(
                PublicKey::from_openssh(line)
                    .map_err(|e| Refusal::bad_request(format!("sshPubKey is not a public key: {e}")))?,
            ),
        };
        let seat = self.pool.take()?;
        let gate = self.world.gate(id, &wish.machine, self.hold).await?;
        if let Some(key) = key {
            gate.machine().authorize(&user, &key)?;
        }
        let base = self.world.base();
        Ok(wire::TunnelOffer {
            url: base.to_owned(),
            login_url: format!("{base}/login/{}", gate.new_login(seat.keep())),
        })
    }

    /// Live messages of a play.
    fn live<G: Send + 'static>(&self, conn: &str, request: &mut Request<Incoming>, guard: G) -> Answer<Reply> {
        let unknown = || not_found("no such connection");
        let (id, key) = conn.split_once('-').ok_or_else(unknown)?;
        if !same(key, &self.streams_key) {
            return Err(unknown());
        }
        let live = self.world.live(id)?;
        let (answer, upgraded) = tunnels::upgrade(request)?;
        tokio::spawn(async move {
            if let Some(socket) = upgraded.await {
                live::tell(socket, live).await;
            }
            drop(guard);
        });
        Ok(answer)
    }

    /// The journal of a machine: `<key>/<id>/<lines>/<machine>`.
    fn journal<G: Send + 'static>(&self, path: &str, request: &mut Request<Incoming>, guard: G) -> Answer<Reply> {
        let unknown = || not_found("no such journal");
        let [key, id, lines, machine] = path.split('/').collect::<Vec<_>>()[..] else { return Err(unknown()) };
        if !same(key, &self.streams_key) {
            return Err(unknown());
        }
        let journal = self.world.journal(id, machine, lines.parse().map_err(|_| unknown())?)?;
        let (answer, upgraded) = tunnels::upgrade(request)?;
        tokio::spawn(async move {
            if let Some(socket) = upgraded.await {
                live::stream(socket, journal).await;
            }
            drop(guard);
        });
        Ok(answer)
    }
}

/// `PATCH /account/preferences`.
#[derive(Deserialize)]
struct Preference {
    region: String,
}

/// The user that a tunnel lets in.
fn user_of_tunnel(record: &Record, wish: &StartTunnel) -> Answer<String> {
    let machine = match wish.machine.as_str() {
        "" => record.machines.first(),
        name => record.machine(name),
    };
    let machine = machine.ok_or_else(|| no_machine(record, &wish.machine))?;
    if machine.no_ssh && !(wish.ssh_user.is_empty() && wish.ssh_pub_key.trim().is_empty()) {
        // The platform's own words.
        return Err(Refusal::bad_request("Machine does not allow SSH access"));
    }
    let shown = catalog::machine(&machine.name, machine.users.clone(), machine.no_ssh);
    let user = if wish.ssh_user.is_empty() { shown.default_user() } else { &wish.ssh_user };
    if !machine.users.iter().any(|known| known.name == user) {
        return Err(Refusal::bad_request(format!("machine {} has no user {user}", machine.name)));
    }
    Ok(user.to_owned())
}

/// A machine here has no systemd: its journal has no units and no cursors, and its lines are few.
fn check_journal(wish: &ReadJournal) -> Answer<()> {
    let given = [("unit", &wish.unit), ("since", &wish.since), ("until", &wish.until), ("cursor", &wish.cursor)];
    match given.iter().find(|(_, value)| !value.is_empty()) {
        None => Ok(()),
        Some((name, _)) => {
            let words = format!(
                "this platform cannot read a machine's journal by {name}, because its machines have no systemd"
            );
            Err(Refusal::not_here(words))
        }
    }
}

fn not_found(words: &str) -> Refusal {
    Refusal::not_found(words)
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
        return Err(Refusal::bad_request("there is no port 0"));
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
