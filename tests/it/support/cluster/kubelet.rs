//! The part of a node: it keeps logs, starts ephemeral containers, which are real processes, and lets clients
//! attach to them, by the WebSocket of `remotecommand` (versions 4 and 5 of its protocol).

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    process::{Child, ChildStdin, Command, Stdio},
    sync::{Arc, Mutex},
    thread,
};

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http_body_util::{BodyExt, StreamBody};
use hyper::{Method, Request, Response, body::Frame, body::Incoming};
use hyper_util::rt::TokioIo;
use pty_process::blocking::Pty;
use serde_json::{Value, json};
use tokio::sync::{Notify, mpsc};
use tokio_websockets::{CloseCode, Message, ServerBuilder};

use super::{Body, Cluster, Store, refusal, whole};

/// The lists of a pod's containers, and those of their states.
const LISTS: [(&str, &str); 3] = [
    ("initContainers", "initContainerStatuses"),
    ("containers", "containerStatuses"),
    ("ephemeralContainers", "ephemeralContainerStatuses"),
];
/// The time of each line of a log.
const TIME: &str = "2026-11-30T06:00:00.123456789Z";
const NO_SUCH_PART: &str = "the server could not find the requested resource";

/// A container: its namespace, its pod and its name.
type Key = (String, String, String);

/// The fate of an ephemeral container.
pub enum Start {
    /// It is this program. With a terminal it gets one.
    Runs(Command),
    /// The same, of which nothing is said before its first words.
    Speaks(Command),
    /// It waits, for a reason and with a message, one after another.
    Waits(Vec<(&'static str, &'static str)>),
}

type Starter = Arc<dyn Fn(&Value) -> Start + Send + Sync>;

#[derive(Default)]
pub(super) struct Kubelet {
    logs: BTreeMap<Key, Log>,
    running: BTreeMap<Key, Arc<Running>>,
    starter: Option<Starter>,
    /// The patches that were taken, with their media types.
    patches: Vec<(String, Value)>,
    /// Minor version of Kubernetes 1.
    version: Option<u32>,
}

#[derive(Clone, Default)]
struct Log {
    bytes: Vec<u8>,
    previous: Option<Vec<u8>>,
    /// True for a container that goes on writing.
    goes_on: bool,
}

/// An ephemeral container that runs.
struct Running {
    input: Mutex<Option<Input>>,
    attached: Mutex<Option<Attached>>,
    terminal: Option<Arc<Pty>>,
    once: bool,
}

/// A channel, and bytes for it.
type Attached = mpsc::UnboundedSender<(u8, Vec<u8>)>;

enum Input {
    Pipe(ChildStdin),
    Terminal(Arc<Pty>),
}

impl Cluster {
    /// Sets the log of a container of the namespace `shop`, and that of its life before.
    pub fn log(&self, pod: &str, container: &str, text: &str, previous: Option<&str>) {
        let key = ("shop".to_owned(), pod.to_owned(), container.to_owned());
        let previous = previous.map(|text| text.as_bytes().to_vec());
        self.store().kubelet.logs.insert(key, Log { bytes: text.into(), previous, goes_on: false });
        self.changed.notify_waiters();
    }

    /// Writes into such a log, of a container that goes on or not.
    pub fn write(&self, pod: &str, container: &str, text: &str, goes_on: bool) {
        let key = ("shop".to_owned(), pod.to_owned(), container.to_owned());
        let mut store = self.store();
        let log = store.kubelet.logs.entry(key).or_default();
        log.bytes.extend_from_slice(text.as_bytes());
        log.goes_on = goes_on;
        drop(store);
        self.changed.notify_waiters();
    }

    /// Says how ephemeral containers start.
    pub fn on_start(&self, starter: impl Fn(&Value) -> Start + Send + Sync + 'static) {
        self.store().kubelet.starter = Some(Arc::new(starter));
    }

    /// Makes it a Kubernetes 1 of this minor version.
    pub fn of_version(&self, minor: u32) {
        self.store().kubelet.version = Some(minor);
    }

    /// The patches of ephemeral containers that were taken since the last call, with their media types.
    pub fn patches(&self) -> Vec<(String, Value)> {
        std::mem::take(&mut self.store().kubelet.patches)
    }

    /// An object as it is now.
    pub fn object(&self, kind: &str, namespace: &str, name: &str) -> Value {
        self.store().objects[&(kind.to_owned(), namespace.to_owned(), name.to_owned())].clone()
    }
}

/// The answers to the questions that kubectl has before all else.
pub(super) fn discovery(store: &Store, words: &[&str]) -> Option<Response<Body>> {
    let minor = store.kubelet.version.unwrap_or(34);
    let pods = json!({"name": "pods", "singularName": "", "namespaced": true, "kind": "Pod", "verbs": ["get", "list"]});
    Some(whole(
        200,
        &match words {
            ["version"] => json!({"major": "1", "minor": minor.to_string(), "gitVersion": format!("v1.{minor}.0")}),
            ["api"] => json!({"kind": "APIVersions", "versions": ["v1"]}),
            ["apis"] => json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": []}),
            ["api", "v1"] => json!({"kind": "APIResourceList", "groupVersion": "v1", "resources": [pods]}),
            _ => return None,
        },
    ))
}

/// A pod, and the words of a request about it.
pub(super) struct Of {
    pub(super) namespace: String,
    pub(super) pod: String,
    pub(super) query: BTreeMap<String, String>,
}

pub(super) async fn answer(
    store: Arc<Mutex<Store>>,
    changed: Arc<Notify>,
    request: Request<Incoming>,
    of: Of,
    part: &str,
) -> Response<Body> {
    let Of { namespace, pod, .. } = &of;
    if let Some(&status) = store.lock().unwrap().refused.get(&format!("pods/{part}")) {
        let message = format!(
            "pods \"{pod}\" is forbidden: User \"u\" cannot patch resource \"pods/{part}\" in API group \"\" in the \
             namespace \"{namespace}\""
        );
        return refusal(status, "Forbidden", &message);
    }
    let key = ("pods".to_owned(), namespace.clone(), pod.clone());
    let Some(object) = store.lock().unwrap().objects.get(&key).cloned() else {
        return refusal(404, "NotFound", &format!("pods \"{pod}\" not found"));
    };
    match part {
        "log" => log(store, changed, &object, of).await,
        "ephemeralcontainers" => {
            if store.lock().unwrap().kubelet.version.is_some_and(|minor| minor < 23) {
                return refusal(404, "NotFound", NO_SUCH_PART);
            }
            add(store, changed, request, object).await
        }
        "attach" => attach(&store, request, of),
        _ => refusal(404, "NotFound", NO_SUCH_PART),
    }
}

/// The place of a container in a pod: the list of its state, and its state.
fn state(pod: &Value, container: &str) -> Option<(&'static str, Value)> {
    let named = |list: &Value| list.as_array()?.iter().find(|one| one["name"] == container).cloned();
    let (_, states) = LISTS.iter().find(|(list, _)| named(&pod["spec"][list]).is_some())?;
    Some((states, named(&pod["status"][states]).unwrap_or_default()["state"].clone()))
}

async fn log(store: Arc<Mutex<Store>>, changed: Arc<Notify>, pod: &Value, of: Of) -> Response<Body> {
    let Of { namespace, pod: name, query } = of;
    let container = query["container"].clone();
    let bad = |message: String| refusal(400, "BadRequest", &message);
    let Some((_, state)) = state(pod, &container) else {
        return bad(format!("container {container} is not valid for pod {name}"));
    };
    if let Some(reason) = state["waiting"]["reason"].as_str().filter(|_| !query.contains_key("previous")) {
        return bad(format!("container \"{container}\" in pod \"{name}\" is waiting to start: {reason}"));
    }
    let key = (namespace, name.clone(), container.clone());
    let is = |name: &str| query.get(name).is_some_and(|value| value == "true");
    let (is_followed, has_times) = (is("follow"), is("timestamps"));
    let tail: Option<usize> = query.get("tailLines").map(|text| text.parse().unwrap());
    let now = move |store: &Mutex<Store>| store.lock().unwrap().kubelet.logs.get(&key).cloned().unwrap_or_default();
    let form = move |bytes: &[u8]| -> Vec<u8> {
        let time = if has_times { format!("{TIME} ") } else { String::new() };
        bytes.split_inclusive(|byte| *byte == b'\n').flat_map(|line| [time.as_bytes(), line].concat()).collect()
    };
    let Log { bytes, previous, .. } = now(&store);
    let bytes = match previous {
        _ if !is("previous") => bytes,
        Some(previous) => previous,
        None => return bad(format!("previous terminated container \"{container}\" in pod \"{name}\" not found")),
    };
    let lines: Vec<&[u8]> = bytes.split_inclusive(|byte| *byte == b'\n').collect();
    let first = lines[lines.len().saturating_sub(tail.unwrap_or(usize::MAX))..].concat();
    if !is_followed {
        return text(futures_util::stream::iter([Ok(Frame::data(Bytes::from(form(&first))))]));
    }
    let next = move |(mut from, first): (usize, Option<Vec<u8>>)| {
        let (now, form, store, changed) = (now.clone(), form, Arc::clone(&store), Arc::clone(&changed));
        async move {
            if let Some(first) = first.filter(|first| !first.is_empty()) {
                return Some((form(&first), (from, None)));
            }
            loop {
                let wait = changed.notified();
                let Log { bytes, goes_on, .. } = now(&store);
                if bytes.len() > from {
                    let new = form(&bytes[from..]);
                    from = bytes.len();
                    return Some((new, (from, None)));
                }
                if !goes_on {
                    return None;
                }
                wait.await;
            }
        }
    };
    // A node answers with the first line.
    let mut stream = Box::pin(futures_util::stream::unfold((bytes.len(), Some(first)), next));
    let first = stream.next().await;
    text(futures_util::stream::iter(first).chain(stream).map(|bytes| Ok(Frame::data(Bytes::from(bytes)))))
}

fn text(
    stream: impl futures_util::Stream<Item = Result<Frame<Bytes>, std::convert::Infallible>> + Send + Sync + 'static,
) -> Response<Body> {
    let body = BodyExt::boxed(StreamBody::new(stream));
    Response::builder().status(200).header("content-type", "text/plain").body(body).unwrap()
}

/// Takes a patch that adds ephemeral containers, and starts them.
async fn add(
    store: Arc<Mutex<Store>>,
    changed: Arc<Notify>,
    request: Request<Incoming>,
    mut pod: Value,
) -> Response<Body> {
    let name = pod["metadata"]["name"].as_str().unwrap().to_owned();
    assert_eq!(request.method(), Method::PATCH);
    let media = request.headers()["content-type"].to_str().unwrap().to_owned();
    let patch: Value = serde_json::from_slice(&request.into_body().collect().await.unwrap().to_bytes()).unwrap();
    store.lock().unwrap().kubelet.patches.push((media.clone(), patch.clone()));
    assert_eq!(media, "application/strategic-merge-patch+json");
    let new = patch["spec"]["ephemeralContainers"].as_array().unwrap().clone();
    for (i, one) in new.iter().enumerate() {
        let (target, is_known) = (&one["targetContainerName"], |list: &str| {
            let list = pod["spec"][list].as_array();
            list.is_some_and(|list| list.iter().any(|other| other["name"] == one["targetContainerName"]))
        });
        if !is_known("containers") && !is_known("initContainers") {
            let field = format!("spec.ephemeralContainers[{i}].targetContainerName: Not found: {target}");
            return refusal(422, "Invalid", &format!("Pod \"{name}\" is invalid: {field}"));
        }
        if !one["image"].is_string() {
            let field = format!("spec.ephemeralContainers[{i}].image: Required value");
            return refusal(422, "Invalid", &format!("Pod \"{name}\" is invalid: {field}"));
        }
    }
    let mut all = pod["spec"]["ephemeralContainers"].as_array().cloned().unwrap_or_default();
    all.extend(new.iter().cloned());
    pod["spec"]["ephemeralContainers"] = all.into();
    store.lock().unwrap().put("pods", pod.clone());
    changed.notify_waiters();
    let starter = store.lock().unwrap().kubelet.starter.clone().expect("no word of how they start");
    for one in new {
        let (starter, store, changed, pod) =
            (Arc::clone(&starter), Arc::clone(&store), Arc::clone(&changed), pod.clone());
        thread::spawn(move || start(&Place { store, changed, pod, container: one.clone() }, starter(&one)));
    }
    whole(200, &pod)
}

/// A container that starts.
struct Place {
    store: Arc<Mutex<Store>>,
    changed: Arc<Notify>,
    pod: Value,
    container: Value,
}

impl Place {
    fn key(&self) -> Key {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let metadata = &self.pod["metadata"];
        (text(&metadata["namespace"]), text(&metadata["name"]), text(&self.container["name"]))
    }

    /// Says how the container is.
    fn is(&self, state: Value) {
        let (namespace, pod, container) = self.key();
        let mut store = self.store.lock().unwrap();
        let Some(mut object) = store.objects.get(&("pods".to_owned(), namespace, pod)).cloned() else { return };
        let states = &mut object["status"]["ephemeralContainerStatuses"];
        let mut all = states.as_array().cloned().unwrap_or_default();
        all.retain(|one| one["name"] != *container);
        all.push(json!({"name": container, "state": state, "ready": false, "restartCount": 0}));
        *states = all.into();
        store.put("pods", object);
        drop(store);
        self.changed.notify_waiters();
    }
}

fn start(place: &Place, how: Start) {
    place.is(json!({"waiting": {"reason": "ContainerCreating"}}));
    match how {
        Start::Waits(all) => {
            for (i, (reason, message)) in all.into_iter().enumerate() {
                let is_watched = || place.store.lock().unwrap().seen.iter().any(|path| path.contains("watch=1"));
                if i > 0 {
                    crate::support::eventually("the state before is seen", is_watched);
                }
                place.is(json!({"waiting": {"reason": reason, "message": message}}));
            }
        }
        Start::Runs(command) => run(place, command, false),
        Start::Speaks(command) => run(place, command, true),
    }
}

type Output = (u8, Box<dyn Read + Send>);

fn spawned(command: Command, has_terminal: bool) -> (Child, Input, Vec<Output>) {
    if !has_terminal {
        let mut command = command;
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (out, err) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        let input = Input::Pipe(child.stdin.take().unwrap());
        return (child, input, vec![(1, Box::new(out)), (2, Box::new(err))]);
    }
    struct Ours(Arc<Pty>);
    impl Read for Ours {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            // The end of a terminal is reported as an error.
            Ok((&*self.0).read(buffer).unwrap_or(0))
        }
    }
    let (terminal, inner) = pty_process::blocking::open().unwrap();
    let mut program = pty_process::blocking::Command::new(command.get_program()).args(command.get_args());
    if let Some(folder) = command.get_current_dir() {
        program = program.current_dir(folder);
    }
    let child = program.spawn(inner).unwrap();
    let terminal = Arc::new(terminal);
    (child, Input::Terminal(Arc::clone(&terminal)), vec![(1, Box::new(Ours(terminal)))])
}

fn run(place: &Place, command: Command, speaks: bool) {
    let key = place.key();
    let (mut child, input, outputs) = spawned(command, place.container["tty"] == true);
    let once = place.container["stdinOnce"] == true;
    let terminal = match &input {
        Input::Terminal(terminal) => Some(Arc::clone(terminal)),
        Input::Pipe(_) => None,
    };
    let running = Arc::new(Running { input: Mutex::new(Some(input)), attached: Mutex::default(), terminal, once });
    {
        let mut store = place.store.lock().unwrap();
        store.kubelet.running.insert(key.clone(), Arc::clone(&running));
        store.kubelet.logs.insert(key.clone(), Log { goes_on: true, ..Log::default() });
    }
    let (first, words) = std::sync::mpsc::channel();
    let readers: Vec<_> = outputs
        .into_iter()
        .map(|(channel, mut output)| {
            let (store, changed) = (Arc::clone(&place.store), Arc::clone(&place.changed));
            let (running, key, first) = (Arc::clone(&running), key.clone(), first.clone());
            thread::spawn(move || {
                let mut piece = vec![0; 32 * 1024];
                while let Ok(n @ 1..) = output.read(&mut piece) {
                    store.lock().unwrap().kubelet.logs.get_mut(&key).unwrap().bytes.extend_from_slice(&piece[..n]);
                    changed.notify_waiters();
                    let _ = first.send(());
                    if let Some(attached) = &*running.attached.lock().unwrap() {
                        let _ = attached.send((channel, piece[..n].to_vec()));
                    }
                }
            })
        })
        .collect();
    if speaks {
        words.recv().unwrap();
    }
    place.is(json!({"running": {"startedAt": "2026-11-30T06:00:00Z"}}));
    let status = child.wait().unwrap();
    readers.into_iter().for_each(|reader| reader.join().unwrap());
    let code = status.code().unwrap_or_else(|| 128 + std::os::unix::process::ExitStatusExt::signal(&status).unwrap());
    let reason = if code == 0 { "Completed" } else { "Error" };
    place.store.lock().unwrap().kubelet.logs.get_mut(&key).unwrap().goes_on = false;
    place.store.lock().unwrap().kubelet.running.remove(&key);
    place.is(json!({"terminated": {"exitCode": code, "reason": reason, "finishedAt": "2026-11-30T06:00:01Z"}}));
    // Its streams end after it.
    running.attached.lock().unwrap().take();
}

/// Opens the streams of a container that runs.
fn attach(store: &Mutex<Store>, mut request: Request<Incoming>, of: Of) -> Response<Body> {
    let Of { namespace, pod, query } = of;
    let container = query["container"].clone();
    let running = store.lock().unwrap().kubelet.running.get(&(namespace, pod.clone(), container.clone())).cloned();
    let Some(running) = running else {
        return refusal(400, "BadRequest", &format!("container {container} not found in pod {pod}"));
    };
    let headers = request.headers();
    let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default();
    let (offered, key) = (text("sec-websocket-protocol"), text("sec-websocket-key"));
    let minor = store.lock().unwrap().kubelet.version.unwrap_or(34);
    let known: &[&str] = if minor < 30 { &["v4.channel.k8s.io"] } else { &["v5.channel.k8s.io", "v4.channel.k8s.io"] };
    let protocol = offered.split(',').map(str::trim).find(|name| known.contains(name)).expect("no protocol").to_owned();
    let accept = labctl_ssh_proxy::labs::http::accept_key(key.as_bytes());
    let is_v5 = protocol.starts_with("v5");
    let (tell, outputs) = mpsc::unbounded_channel();
    *running.attached.lock().unwrap() = Some(tell);
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let Ok(stream) = upgrade.await else { return };
        carry(running, ServerBuilder::new().serve(TokioIo::new(stream)), outputs, is_v5).await;
    });
    Response::builder()
        .status(101)
        .header("connection", "upgrade")
        .header("upgrade", "websocket")
        .header("sec-websocket-accept", accept)
        .header("sec-websocket-protocol", protocol)
        .body(BodyExt::boxed(http_body_util::Empty::new()))
        .unwrap()
}

async fn carry(
    running: Arc<Running>,
    ws: tokio_websockets::WebSocketStream<TokioIo<hyper::upgrade::Upgraded>>,
    mut outputs: mpsc::UnboundedReceiver<(u8, Vec<u8>)>,
    is_v5: bool,
) {
    let (mut sink, mut stream) = ws.split();
    // A program that is not read from must not keep its output from its reader.
    let (tell, pieces) = std::sync::mpsc::channel::<Option<Vec<u8>>>();
    let to = Arc::clone(&running);
    thread::spawn(move || {
        for piece in pieces {
            let mut input = to.input.lock().unwrap();
            match (piece, &mut *input) {
                (Some(bytes), Some(Input::Pipe(pipe))) => drop(pipe.write_all(&bytes)),
                (Some(bytes), Some(Input::Terminal(terminal))) => drop((&**terminal).write_all(&bytes)),
                (None, input) => drop(input.take()),
                (Some(_), None) => {}
            }
        }
    });
    // As a node begins.
    for channel in [1, 2, 3] {
        let _ = sink.send(Message::binary(vec![channel])).await;
    }
    loop {
        tokio::select! {
            output = outputs.recv() => match output {
                Some((channel, bytes)) => {
                    let _ = sink.send(Message::binary([vec![channel], bytes].concat())).await;
                }
                None => {
                    let status = json!({"metadata": {}, "status": "Success"}).to_string();
                    let _ = sink.send(Message::binary([vec![3], status.into_bytes()].concat())).await;
                    let _ = sink.send(Message::close(Some(CloseCode::NORMAL_CLOSURE), "")).await;
                    return;
                }
            },
            message = stream.next() => {
                let Some(Ok(message)) = message.filter(|message| message.as_ref().is_ok_and(|one| !one.is_close())) else {
                    if running.once {
                        let _ = tell.send(None);
                    }
                    return;
                };
                let payload: &[u8] = message.as_payload();
                match payload.split_first() {
                    Some((0, bytes)) => drop(tell.send(Some(bytes.to_vec()))),
                    Some((4, bytes)) => {
                        let size: Value = serde_json::from_slice(bytes).unwrap();
                        let number = |name: &str| u16::try_from(size[name].as_u64().unwrap()).unwrap();
                        let size = pty_process::Size::new(number("Height"), number("Width"));
                        running.terminal.as_ref().expect("a size without a terminal").resize(size).unwrap();
                    }
                    Some((255, bytes)) => {
                        assert!(is_v5 && bytes == [0]);
                        let _ = tell.send(None);
                    }
                    _ => {}
                }
            }
        }
    }
}
