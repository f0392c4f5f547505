//! A stand-in for the API of a Kubernetes cluster: lists in parts, watches with bookmarks and their ends, refusals. Its
//! objects are what the tests put into it; their containers are real ones. `kubelet` is what a node does for it.

pub mod kubelet;

use std::{
    collections::BTreeMap,
    convert::Infallible,
    fs,
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::Path,
    process::Stdio,
    sync::{Arc, Mutex, MutexGuard, mpsc},
    thread,
    time::Duration,
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use hyper::{Method, Request, Response, body::Frame, body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::{net::TcpListener, runtime::Runtime, sync::Notify, task::JoinSet};
use tokio_rustls::TlsAcceptor;

use super::{Ending, PATIENCE, World, labs::acceptor};

/// The token of its user.
const TOKEN: &str = "the-token-of-the-cluster";

/// The kind, the namespace and the name of an object. The kind is the last part of its path: `pods`.
type Key = (String, String, String);

#[derive(Default)]
struct Store {
    version: u64,
    objects: BTreeMap<Key, Value>,
    /// The events: the version, the type, and the object of each.
    events: Vec<(u64, &'static str, Key, Value)>,
    /// Nothing is known of what has happened to a kind of object up to here.
    forgotten: BTreeMap<String, u64>,
    /// The paths that were asked for.
    seen: Vec<String>,
    /// The refusal of a kind of object, by its status code.
    refused: BTreeMap<String, u16>,
    /// Each list is at most this long.
    part: usize,
    /// The time before a list is answered.
    slow: Duration,
    /// A watch ends as soon as it has begun.
    is_ending: bool,
    kubelet: kubelet::Kubelet,
}

impl Store {
    /// True if nothing can go on from this version any more.
    fn has_forgotten(&self, kind: &str, version: u64) -> bool {
        self.forgotten.get(kind).is_some_and(|forgotten| version < *forgotten)
    }

    /// Puts an object in, or a new version of it.
    fn put(&mut self, kind: &str, mut object: Value) {
        self.version += 1;
        let version = self.version;
        object["metadata"]["resourceVersion"] = version.to_string().into();
        let text = |name: &str| object["metadata"][name].as_str().unwrap_or_default().to_owned();
        let key = (kind.to_owned(), text("namespace"), text("name"));
        let event = if self.objects.insert(key.clone(), object.clone()).is_some() { "MODIFIED" } else { "ADDED" };
        self.events.push((version, event, key, object));
    }
}

/// The API, as long as this lives.
pub struct Cluster {
    store: Arc<Mutex<Store>>,
    changed: Arc<Notify>,
    address: SocketAddr,
    certificate: String,
    acceptor: TlsAcceptor,
    serving: Mutex<Option<Runtime>>,
}

impl Cluster {
    pub fn new() -> Cluster {
        let file = tempfile::NamedTempFile::new().unwrap();
        let acceptor = acceptor(&["127.0.0.1", "localhost"], file.path());
        let mut cluster = Cluster {
            store: Arc::new(Mutex::new(Store { part: usize::MAX, ..Store::default() })),
            changed: Arc::default(),
            address: ([127, 0, 0, 1], 0).into(),
            certificate: fs::read_to_string(file.path()).unwrap(),
            acceptor,
            serving: Mutex::default(),
        };
        cluster.address = cluster.start();
        cluster
    }

    fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap()
    }

    /// Answers, at the address of before if there is one.
    pub fn start(&self) -> SocketAddr {
        let runtime = Runtime::new().unwrap();
        let listener = runtime.block_on(TcpListener::bind(self.address)).unwrap();
        let (address, acceptor) = (listener.local_addr().unwrap(), self.acceptor.clone());
        let (store, changed) = (Arc::clone(&self.store), Arc::clone(&self.changed));
        runtime.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, store, changed) = (acceptor.clone(), Arc::clone(&store), Arc::clone(&changed));
                connections.spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let service = service_fn(|request| answer(Arc::clone(&store), Arc::clone(&changed), request));
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .with_upgrades()
                        .await;
                });
            }
        });
        *self.serving.lock().unwrap() = Some(runtime);
        address
    }

    /// Ends all connections, and answers none until [`Cluster::start`].
    pub fn stop(&self) {
        if let Some(runtime) = self.serving.lock().unwrap().take() {
            runtime.shutdown_timeout(Duration::from_secs(5));
        }
    }

    /// Puts an object in, or a new version of it.
    pub fn put(&self, kind: &str, object: Value) {
        self.store().put(kind, object);
        self.changed.notify_waiters();
    }

    /// Takes an object away.
    pub fn delete(&self, kind: &str, namespace: &str, name: &str) {
        let mut store = self.store();
        store.version += 1;
        let key = (kind.to_owned(), namespace.to_owned(), name.to_owned());
        let mut object = store.objects.remove(&key).unwrap();
        object["metadata"]["resourceVersion"] = store.version.to_string().into();
        let event = (store.version, "DELETED", key, object);
        store.events.push(event);
        drop(store);
        self.changed.notify_waiters();
    }

    /// Forgets what has happened to objects of these kinds, so that nothing can go on from before (410).
    pub fn forget(&self, kinds: &[&str]) {
        let mut store = self.store();
        store.version += 1;
        let version = store.version;
        store.forgotten.extend(kinds.iter().map(|kind| ((*kind).to_owned(), version)));
        drop(store);
        self.changed.notify_waiters();
    }

    /// Makes lists come in parts of this length.
    pub fn in_parts(&self, length: usize) {
        self.store().part = length;
    }

    /// Answers lists after this time.
    pub fn slow_down(&self, time: Duration) {
        self.store().slow = time;
    }

    /// Ends each watch as soon as it has begun, if `so`.
    pub fn end_watches(&self, so: bool) {
        let mut store = self.store();
        store.is_ending = so;
        drop(store);
        self.changed.notify_waiters();
    }

    /// Refuses requests about a kind of object.
    pub fn refuse(&self, kind: &str, status: u16) {
        self.store().refused.insert(kind.to_owned(), status);
    }

    /// The paths that were asked for since the last call.
    pub fn seen(&self) -> Vec<String> {
        std::mem::take(&mut self.store().seen)
    }

    /// Writes a kubeconfig into the home of a machine.
    pub fn place(&self, home: &Path) {
        fs::create_dir_all(home.join(".kube")).unwrap();
        fs::write(home.join(".kube/config"), self.kubeconfig()).unwrap();
    }

    pub fn kubeconfig(&self) -> String {
        let authority = BASE64_STANDARD.encode(&self.certificate);
        format!(
            "apiVersion: v1\nkind: Config\nclusters:\n- name: c\n  cluster:\n    server: https://{}\n    \
             certificate-authority-data: {authority}\nusers:\n- name: u\n  user:\n    token: {TOKEN}\n\
             contexts:\n- name: x\n  context:\n    cluster: c\n    user: u\ncurrent-context: x\n",
            self.address
        )
    }
}

type Body = BoxBody<Bytes, Infallible>;

fn whole(status: u16, value: &Value) -> Response<Body> {
    let body = Full::new(Bytes::from(value.to_string())).boxed();
    Response::builder().status(status).header("content-type", "application/json").body(body).unwrap()
}

fn refusal(status: u16, reason: &str, message: &str) -> Response<Body> {
    whole(
        status,
        &json!({
            "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": status, "reason": reason,
            "message": message,
        }),
    )
}

async fn answer(
    store: Arc<Mutex<Store>>,
    changed: Arc<Notify>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    let bearer = request.headers().get("authorization").map(|value| value.to_str().unwrap().to_owned());
    let of_metadata = request.headers()["accept"].to_str().unwrap().contains("PartialObjectMetadata");
    let path = request.uri().path().to_owned();
    let query: BTreeMap<String, String> =
        url::form_urlencoded::parse(request.uri().query().unwrap_or_default().as_bytes()).into_owned().collect();
    store.lock().unwrap().seen.push(request.uri().to_string());
    if bearer.as_deref() != Some(&format!("Bearer {TOKEN}")) {
        return Ok(refusal(401, "Unauthorized", "Unauthorized"));
    }
    let words: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    if let Some(answer) = kubelet::discovery(&store.lock().unwrap(), &words) {
        return Ok(answer);
    }
    let rest = match words[..] {
        ["api", "v1", ref rest @ ..] | ["apis", "apps", "v1", ref rest @ ..] => rest.to_vec(),
        _ => return Ok(refusal(404, "NotFound", "the server could not find the requested resource")),
    };
    let (namespace, kind, name) = match rest[..] {
        ["namespaces", namespace, kind] => (namespace, kind, None),
        ["namespaces", namespace, kind, name] => (namespace, kind, Some(name)),
        ["namespaces", namespace, "pods", name, part] => {
            let of = kubelet::Of { namespace: namespace.to_owned(), pod: name.to_owned(), query };
            return Ok(kubelet::answer(store, changed, request, of, part).await);
        }
        [kind] => ("", kind, None),
        [kind, name] => ("", kind, Some(name)),
        _ => return Ok(refusal(404, "NotFound", "the server could not find the requested resource")),
    };
    if let Some(&status) = store.lock().unwrap().refused.get(kind) {
        let message = format!("{kind} is forbidden: User \"u\" cannot list resource \"{kind}\"");
        return Ok(refusal(status, "Forbidden", &message));
    }
    assert_eq!(request.method(), Method::GET);
    let form = move |object: &Value| match of_metadata {
        true => json!({"metadata": object["metadata"]}),
        false => object.clone(),
    };
    if let Some(name) = name {
        let key = (kind.to_owned(), namespace.to_owned(), name.to_owned());
        return Ok(match store.lock().unwrap().objects.get(&key) {
            Some(object) => whole(200, object),
            None => refusal(404, "NotFound", &format!("{kind} \"{name}\" not found")),
        });
    }
    let is_meant = {
        let (kind, namespace) = (kind.to_owned(), namespace.to_owned());
        let name = query.get("fieldSelector").map(|text| text.strip_prefix("metadata.name=").unwrap().to_owned());
        move |key: &Key| {
            key.0 == kind
                && (namespace.is_empty() || key.1 == namespace)
                && name.as_ref().is_none_or(|name| key.2 == *name)
        }
    };
    if !query.contains_key("watch") {
        let slow = store.lock().unwrap().slow;
        tokio::time::sleep(slow).await;
        let store = store.lock().unwrap();
        let all: Vec<Value> =
            store.objects.iter().filter(|(key, _)| is_meant(key)).map(|(_, object)| form(object)).collect();
        let from: usize = query.get("continue").map_or(0, |text| text.parse().unwrap());
        let limit: usize = query.get("limit").map_or(usize::MAX, |text| text.parse().unwrap());
        let to = from.saturating_add(limit.min(store.part)).min(all.len());
        let next = if to < all.len() { to.to_string() } else { String::new() };
        let metadata = json!({"resourceVersion": store.version.to_string(), "continue": next});
        return Ok(whole(200, &json!({"kind": "List", "metadata": metadata, "items": all[from..to]})));
    }
    let from: u64 = query["resourceVersion"].parse().unwrap();
    let kind = kind.to_owned();
    if store.lock().unwrap().has_forgotten(&kind, from) {
        return Ok(refusal(410, "Expired", "too old resource version"));
    }
    let lines = futures_util::stream::unfold(from, move |from| {
        let (store, changed, is_meant) = (Arc::clone(&store), Arc::clone(&changed), is_meant.clone());
        let kind = kind.clone();
        async move {
            loop {
                let wait = changed.notified();
                let text = {
                    let store = store.lock().unwrap();
                    if store.is_ending || store.has_forgotten(&kind, from) {
                        return None;
                    }
                    let new = store.events.iter().filter(|(version, _, key, _)| *version > from && is_meant(key));
                    let line = |(_, event, _, object): &(u64, &str, Key, Value)| {
                        json!({"type": event, "object": form(object)}).to_string() + "\n"
                    };
                    let text: String = new.map(line).collect();
                    (text, store.version)
                };
                if !text.0.is_empty() {
                    let bookmark =
                        json!({"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": text.1.to_string()}}});
                    return Some((Ok(Frame::data(Bytes::from(format!("{}{bookmark}\n", text.0)))), text.1));
                }
                wait.await;
            }
        }
    });
    let body = StreamBody::new(Box::pin(lines)).boxed();
    Ok(Response::builder().status(200).header("content-type", "application/json").body(body).unwrap())
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.stop();
    }
}

/// `pods --watch --json`, line by line.
pub struct Watching {
    _child: Ending,
    lines: mpsc::Receiver<Value>,
}

impl Watching {
    pub fn of(world: &World, play: &str, args: &[&str]) -> Watching {
        let mut command = world.command(&["--local", "pods", play, "--watch", "--json"]);
        let mut child = command.args(args).stdout(Stdio::piped()).spawn().unwrap();
        let (tell, lines) = mpsc::channel();
        let out = BufReader::new(child.stdout.take().unwrap());
        thread::spawn(move || {
            out.lines().map_while(Result::ok).all(|line| tell.send(serde_json::from_str(&line).unwrap()).is_ok())
        });
        Watching { _child: Ending(child), lines }
    }

    pub fn next(&self, what: &str) -> Value {
        self.lines.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("no line: {what}"))
    }

    /// The next line of which this is true.
    pub fn until(&self, what: &str, is_it: impl Fn(&Value) -> bool) -> Value {
        loop {
            let line = self.next(what);
            if is_it(&line) {
                return line;
            }
        }
    }
}
