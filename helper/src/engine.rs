//! The engine of a machine: Docker's API on its socket, as far as it is needed to find a container.
//!
//! Two GET requests of HTTP/1.0 need no HTTP library. Each has five seconds and a bound on its answer, because an engine
//! that hangs must not hang a connection, too.

use std::{
    env,
    ffi::OsStr,
    fs,
    io::{self, Read, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, sockopt};
use serde::{Deserialize, Deserializer, de::DeserializeOwned};

use crate::{
    scope::Scope,
    text,
    wire::{self, Container, Refusal, RefusalKind},
};

/// The socket of an engine that is installed in the usual way.
const USUAL_SOCKET: &str = "/var/run/docker.sock";

/// The time for one request.
const PATIENCE: Duration = Duration::from_secs(5);

/// Longest answer. A container takes about 1 KiB of the list, and some 10 KiB on its own.
const MAX_ANSWER: u64 = 16 * 1024 * 1024;

/// A hint for an engine that does not do its work.
const LOOK_AT_DOCKER: &str = "look at it with `labctl-ssh-proxy ssh {machine} systemctl status docker`";

/// An engine, and the containers that have none.
pub(crate) struct Engine {
    /// None where only a folder of bundles counts.
    socket: Option<PathBuf>,
    /// The containers that count beside this engine's.
    pub(crate) scope: Scope,
    /// Its containers, where it is not asked for them again.
    known: Option<Result<Vec<Listed>, Refusal>>,
}

/// A container in the engine's list.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct Listed {
    /// The id, 64 hexadecimal digits.
    #[serde(deserialize_with = "lenient")]
    pub(crate) id: String,
    /// `/name`, and `/other/alias` for each link of another container to this one.
    #[serde(deserialize_with = "lenient")]
    pub(crate) names: Vec<String>,
    /// The image.
    #[serde(deserialize_with = "lenient")]
    pub(crate) image: String,
    /// `running`, `exited`, and so on.
    #[serde(deserialize_with = "lenient")]
    pub(crate) state: String,
    /// `Exited (137) 3 minutes ago`.
    #[serde(deserialize_with = "lenient")]
    pub(crate) status: String,
    /// The ports.
    #[serde(deserialize_with = "lenient")]
    pub(crate) ports: Vec<Port>,
}

/// A port in the engine's list.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct Port {
    #[serde(rename = "IP", deserialize_with = "lenient")]
    address: String,
    #[serde(deserialize_with = "lenient")]
    private_port: u16,
    public_port: Option<u16>,
    #[serde(rename = "Type", deserialize_with = "lenient")]
    protocol: String,
}

impl Listed {
    /// The container for people, without a label. Docker puts a slash in front of names, and those of links have a second
    /// one.
    pub(crate) fn described(self) -> Container {
        let mut own = self.names.iter().map(|name| name.strip_prefix('/').unwrap_or(name));
        let name = own.find(|name| !name.contains('/') && !name.is_empty());
        Container {
            name: name.unwrap_or_else(|| self.id.get(..12).unwrap_or(&self.id)).to_owned(),
            id: self.id,
            label: String::new(),
            image: self.image,
            state: self.state,
            status: self.status,
            engine: "docker".to_owned(),
            pod: None,
            ports: self.ports.iter().map(Port::described).collect(),
        }
    }
}

impl Port {
    /// The port for people.
    pub(crate) fn described(&self) -> wire::Port {
        wire::Port {
            container: self.private_port,
            protocol: self.protocol.clone(),
            address: self.address.clone(),
            machine: self.public_port,
        }
    }
}

/// A container in all its details.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct Inspected {
    /// The id.
    #[serde(deserialize_with = "lenient")]
    pub(crate) id: String,
    /// Its process.
    #[serde(deserialize_with = "lenient")]
    pub(crate) state: State,
    /// The wishes of its user.
    #[serde(deserialize_with = "lenient")]
    pub(crate) host_config: HostConfig,
}

/// The state of a container's first process.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct State {
    /// Its number, 0 where there is none.
    #[serde(deserialize_with = "lenient")]
    pub(crate) pid: i32,
}

/// The options with which a container was made.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct HostConfig {
    /// The name of the runtime: `runc`, `runsc`, `io.containerd.kata.v2`.
    #[serde(deserialize_with = "lenient")]
    pub(crate) runtime: String,
    /// Groups, by name or number, that its users have besides their own.
    #[serde(deserialize_with = "lenient")]
    pub(crate) group_add: Vec<String>,
}

/// Reads null as the absence of a value.
fn lenient<'de, T: Default + Deserialize<'de>, D: Deserializer<'de>>(from: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

impl Engine {
    /// The engine that the environment names, as Docker's own client reads it, or else the usual one.
    pub(crate) fn of_environment() -> Engine {
        let chosen = Engine::chosen(env::var_os("DOCKER_HOST").as_deref());
        let scope = Scope::of_environment(chosen.is_some());
        let usual = (!matches!(scope, Scope::Below(_))).then(|| USUAL_SOCKET.into());
        Engine { socket: chosen.or(usual), scope, known: None }
    }

    fn chosen(docker_host: Option<&OsStr>) -> Option<PathBuf> {
        let socket = docker_host.and_then(OsStr::to_str).and_then(|host| host.strip_prefix("unix://"));
        socket.filter(|path| !path.is_empty()).map(PathBuf::from)
    }

    /// All containers, those that do not run, too.
    ///
    /// # Errors
    /// Fails when the engine is not there or does not answer.
    pub(crate) fn containers(&self) -> Result<Vec<Listed>, Refusal> {
        if self.socket.is_none() {
            return Ok(Vec::new());
        }
        if let Some(known) = &self.known {
            return known.clone();
        }
        self.get("/containers/json?all=true")?.ok_or_else(|| unreadable("it has no list of containers"))
    }

    /// The same engine with the containers that it has now, for which it is not asked again.
    pub(crate) fn as_of_now(&self) -> Engine {
        Engine { socket: self.socket.clone(), scope: self.scope.clone(), known: Some(self.containers()) }
    }

    /// The details of the container with that id. None where it is gone.
    ///
    /// # Errors
    /// Fails when the engine is not there or does not answer.
    pub(crate) fn inspect(&self, id: &str) -> Result<Option<Inspected>, Refusal> {
        self.get(&format!("/containers/{id}/json"))
    }

    fn get<T: DeserializeOwned>(&self, path: &str) -> Result<Option<T>, Refusal> {
        let answer = self.request(path).map_err(|error| self.unreachable(&error))?;
        let (status, body) = split(&answer).ok_or_else(|| unreadable("it is no HTTP answer, or not a whole one"))?;
        match status {
            200 => serde_json::from_slice(body).map(Some).map_err(|error| unreadable(&error.to_string())),
            404 => Ok(None),
            _ => {
                #[derive(Deserialize)]
                struct Failure {
                    message: String,
                }
                let why = serde_json::from_slice::<Failure>(body).map_or_else(|_| String::new(), |it| it.message);
                let why = text::line(&why);
                let message = format!("Docker's engine on this machine has answered with HTTP status {status}: {why}");
                Err(Refusal::new(RefusalKind::Program, message.trim_end_matches([':', ' '])).with_hint(LOOK_AT_DOCKER))
            }
        }
    }

    fn request(&self, path: &str) -> io::Result<Vec<u8>> {
        let deadline = Instant::now() + PATIENCE;
        let mut stream = self.connect()?;
        stream
            .write_all(format!("GET {path} HTTP/1.0\r\nHost: docker\r\nAccept: application/json\r\n\r\n").as_bytes())?;
        let mut answer = Vec::new();
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            stream.set_read_timeout(Some(left))?;
            match stream.read(&mut buffer) {
                Ok(0) => return Ok(answer),
                Ok(read) => answer.extend_from_slice(&buffer[..read]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
            if answer.len() as u64 > MAX_ANSWER {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "its answer is too long"));
            }
        }
    }

    /// Connects to it.
    ///
    /// # Errors
    /// Fails when it is not there, or takes no connection in time.
    pub(crate) fn connect(&self) -> io::Result<UnixStream> {
        // A backlog that is full makes `connect` wait, for which the sender's timeout counts.
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        sockopt::set_socket_timeout(&socket, sockopt::Timeout::Send, Some(PATIENCE))?;
        let path = self.socket.as_deref().ok_or(io::ErrorKind::NotFound)?;
        rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
        Ok(socket.into())
    }

    /// Reports whether no engine listens. Then none of its containers can be known.
    pub(crate) fn is_absent(&self) -> bool {
        use io::ErrorKind::{ConnectionRefused, NotFound};
        self.connect().is_err_and(|error| matches!(error.kind(), ConnectionRefused | NotFound))
    }

    /// Reports whether the engine's process cannot be seen from here, so that its numbers of processes mean others.
    pub(crate) fn is_elsewhere(&self) -> bool {
        let peer = || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
            let _inside = runtime.enter();
            let stream = self.connect()?;
            stream.set_nonblocking(true)?;
            tokio::net::UnixStream::from_std(stream)?.peer_cred()
        };
        // The kernel's number for it is 0 then, which rustix has no type for.
        peer().is_ok_and(|peer| peer.pid() == Some(0))
    }

    fn unreachable(&self, error: &io::Error) -> Refusal {
        let socket = self.socket.as_deref().unwrap_or(Path::new("")).display();
        match error.kind() {
            io::ErrorKind::NotFound => match rootless_socket(Path::new("/run/user")) {
                Some(rootless) => Refusal::new(
                    RefusalKind::Impossible,
                    format!(
                        "Docker's engine runs rootless on this machine ({}), and its containers cannot be entered",
                        rootless.display()
                    ),
                ),
                None => Refusal::new(
                    RefusalKind::NoEngine,
                    format!(
                        "no container runs on this machine, and it has no Docker engine that runs ({socket} is missing)"
                    ),
                )
                .with_hint(LOOK_AT_DOCKER),
            },
            io::ErrorKind::ConnectionRefused => Refusal::new(
                RefusalKind::Program,
                format!("Docker's engine is not running on this machine (no program listens on {socket})"),
            )
            .with_hint("start it with `labctl-ssh-proxy ssh {machine} systemctl start docker`"),
            io::ErrorKind::PermissionDenied => Refusal::new(
                RefusalKind::Impossible,
                format!("this session's user may not use Docker's engine ({socket})"),
            ),
            io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => Refusal::new(
                RefusalKind::Program,
                format!("Docker's engine on this machine has not answered within {} seconds", PATIENCE.as_secs()),
            )
            .with_hint(LOOK_AT_DOCKER),
            _ => Refusal::new(
                RefusalKind::Program,
                format!("Docker's engine on this machine cannot be asked ({socket}): {error}"),
            )
            .with_hint(LOOK_AT_DOCKER),
        }
    }
}

fn unreadable(why: &str) -> Refusal {
    let message = format!("the answer of Docker's engine on this machine cannot be read: {}", text::line(why));
    Refusal::new(RefusalKind::Program, message).with_hint(LOOK_AT_DOCKER)
}

/// The socket of an engine that a user runs without root.
fn rootless_socket(runtime_folders: &Path) -> Option<PathBuf> {
    let folders = fs::read_dir(runtime_folders).ok()?;
    folders.flatten().map(|folder| folder.path().join("docker.sock")).find(|socket| socket.exists())
}

/// The status and the body of an answer that ends with its connection.
fn split(answer: &[u8]) -> Option<(u16, &[u8])> {
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&answer[..end]).ok()?;
    let body = &answer[end + 4..];
    let mut lines = head.split("\r\n");
    let status = lines.next()?.strip_prefix("HTTP/1.")?.split(' ').nth(1)?.parse().ok()?;
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        if name.eq_ignore_ascii_case("content-length") && value.trim().parse() != Ok(body.len()) {
            return None;
        }
        if name.eq_ignore_ascii_case("transfer-encoding") {
            return None;
        }
    }
    Some((status, body))
}

#[cfg(test)]
mod tests {
    use std::{os::unix::net::UnixListener, thread};

    use proptest::prelude::*;

    use super::*;

    fn answering(with: impl Fn(UnixStream) + Send + 'static) -> (tempfile::TempDir, Engine) {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("docker.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        thread::spawn(move || with(listener.accept().unwrap().0));
        (folder, Engine { socket: Some(socket), scope: Scope::Nothing, known: None })
    }

    fn saying(answer: &'static str) -> (tempfile::TempDir, Engine) {
        answering(move |mut client| {
            let mut request = [0; 1024];
            let read = client.read(&mut request).unwrap();
            assert!(request[..read].starts_with(b"GET /containers/"), "{:?}", &request[..read]);
            client.write_all(answer.as_bytes()).unwrap();
        })
    }

    #[test]
    fn reads_a_list_with_nulls_and_unknown_members() {
        let (_folder, engine) = saying(concat!(
            "HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n",
            r#"[{"Id":"ab","Names":["/web"],"Labels":null,"State":"running"},{"Id":"cd","Names":null,"New":{"a":[1]}}]"#,
        ));
        let containers = engine.containers().unwrap();
        assert_eq!(containers.len(), 2);
        assert_eq!((containers[0].id.as_str(), containers[0].names[0].as_str()), ("ab", "/web"));
        assert!(containers[1].names.is_empty());
    }

    #[test]
    fn a_link_of_another_container_is_no_name() {
        let listed = |names: &[&str]| Listed {
            id: "ab".repeat(32),
            names: names.iter().map(|&name| name.to_owned()).collect(),
            ..Listed::default()
        };
        assert_eq!(listed(&["/other/db", "/web"]).described().name, "web");
        assert_eq!(listed(&[]).described().name, "abababababab");
    }

    #[test]
    fn a_container_that_is_gone_is_no_failure() {
        let (_folder, engine) = saying("HTTP/1.0 404 Not Found\r\n\r\n{\"message\":\"No such container: x\"}");
        assert!(engine.inspect("x").unwrap().is_none());
    }

    #[test]
    fn each_failure_has_its_sentence() {
        let (_folder, engine) = saying("HTTP/1.0 500 Internal\r\n\r\n{\"message\":\"disk\\u001b[2J full\"}");
        let refusal = engine.containers().unwrap_err();
        assert!(refusal.message.ends_with("status 500: disk [2J full"), "{refusal:?}");

        let (_folder, engine) = saying("HTTP/1.0 200 OK\r\nContent-Length: 100\r\n\r\n[]");
        assert!(engine.containers().unwrap_err().message.contains("cannot be read"));

        let (_folder, engine) = saying("HTTP/1.0 200 OK\r\n\r\n[{]");
        assert!(engine.containers().unwrap_err().message.contains("cannot be read"));

        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("docker.sock");
        let engine = Engine { socket: Some(socket.clone()), scope: Scope::Nothing, known: None };
        let refusal = engine.containers().unwrap_err();
        assert_eq!(refusal.kind, RefusalKind::NoEngine);
        assert!(refusal.message.contains("no Docker engine that runs"));
        drop(UnixListener::bind(&socket).unwrap());
        assert!(engine.containers().unwrap_err().message.contains("is not running"));
    }

    #[test]
    fn an_engine_that_hangs_costs_five_seconds() {
        let (_folder, engine) = answering(|client| {
            thread::sleep(PATIENCE * 10);
            drop(client);
        });
        let refusal = engine.containers().unwrap_err();
        assert_eq!(refusal.kind, RefusalKind::Program);
        assert!(refusal.message.contains("has not answered within 5 seconds"), "{refusal:?}");
    }

    #[test]
    fn a_rootless_engine_is_seen() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(rootless_socket(folder.path()), None);
        fs::create_dir(folder.path().join("1000")).unwrap();
        let socket = folder.path().join("1000/docker.sock");
        let _listener = UnixListener::bind(&socket).unwrap();
        assert_eq!(rootless_socket(folder.path()), Some(socket));
    }

    #[test]
    fn the_environment_names_a_socket_only() {
        for (host, socket) in [
            (None, None),
            (Some("unix:///tmp/x.sock"), Some("/tmp/x.sock")),
            (Some("unix://"), None),
            (Some("tcp://127.0.0.1:2375"), None),
            (Some(""), None),
        ] {
            assert_eq!(Engine::chosen(host.map(OsStr::new)), socket.map(PathBuf::from), "{host:?}");
        }
    }

    proptest! {
        #[test]
        fn no_answer_makes_it_panic(answer in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = split(&answer);
            let mut whole = b"HTTP/1.0 200 OK\r\n\r\n".to_vec();
            whole.extend_from_slice(&answer);
            prop_assert_eq!(split(&whole), Some((200, &answer[..])));
            let _ = serde_json::from_slice::<Vec<Listed>>(&answer);
        }
    }
}
