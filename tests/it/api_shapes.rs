//! Every answer of the platform, in every shape that its official clients permit: each optional member present, missing
//! and null; unknown members; null instead of a list. One table for each call. The fixtures follow the platform's own
//! types (labctl's `api` package, the Terraform provider, its documentation).

use std::{
    convert::Infallible,
    future::Future,
    sync::{Arc, Mutex},
};

use http_body_util::Full;
use hyper::{Request, Response, body::Bytes, body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use labctl_ssh_proxy::{
    error::{Kind, Result},
    labs::{
        self, Labs,
        account::Account,
        net::Dialer,
        wire::{Action, CreatePlay, Message, Play, PortForward, SavedForward, State, TaskStatus},
    },
    settings::Settings,
};
use serde_json::{Value, json};
use tokio::net::TcpListener;

const ID: &str = "0123456789abcdef01234567";

/// A platform that gives the same answer to every request.
struct Platform {
    labs: Labs,
    answer: Arc<Mutex<String>>,
    _home: tempfile::TempDir,
}

impl Platform {
    async fn start() -> Platform {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let home = tempfile::tempdir().unwrap();
        let account = home.path().join("config.yaml");
        let api = format!("http://{}/api", listener.local_addr().unwrap());
        std::fs::write(&account, format!("api_base_url: {api}\nsession_id: session\naccess_token: token\n")).unwrap();
        let answer = Arc::new(Mutex::new(String::new()));
        let said = Arc::clone(&answer);
        tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let said = Arc::clone(&said);
                let service = service_fn(move |_: Request<Incoming>| {
                    let body = Bytes::from(said.lock().unwrap().clone());
                    async move { Ok::<_, Infallible>(Response::new(Full::new(body))) }
                });
                tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(tcp), service));
            }
        });
        let labs = Labs::new(Dialer::network(&Settings::default()), &Account::load(&account).unwrap()).unwrap();
        Platform { labs, answer, _home: home }
    }

    /// Makes a call with each shape of `fixture`. The result must be the same as long as the members at `required` are
    /// present.
    async fn every_shape<T, F>(
        &self,
        fixture: Value,
        required: &[&str],
        call: impl Fn(Labs) -> F,
        of: impl Fn(&T) -> Value,
    ) where
        F: Future<Output = Result<T>>,
    {
        let mut first = None;
        for (shape, value) in shapes(&fixture, required) {
            *self.answer.lock().unwrap() = value.to_string();
            let given = call(self.labs.clone()).await.unwrap_or_else(|e| panic!("{shape}: {e}\n{value:#}"));
            let given = of(&given);
            assert_eq!(first.get_or_insert(given.clone()), &given, "{shape}");
        }
    }
}

/// Returns the variants of a fixture: with each optional member missing or null, with all of them missing, and with
/// unknown members everywhere.
fn shapes(fixture: &Value, required: &[&str]) -> Vec<(String, Value)> {
    let mut all = vec![("as it is".to_owned(), fixture.clone())];
    let mut bare = fixture.clone();
    for pointer in pointers(fixture, "") {
        if required.iter().any(|known| *known == pointer || known.starts_with(&format!("{pointer}/"))) {
            continue;
        }
        let (parent, name) = pointer.rsplit_once('/').unwrap();
        for null in [false, true] {
            let mut value = fixture.clone();
            let members = value.pointer_mut(parent).unwrap().as_object_mut().unwrap();
            if null {
                drop(members.insert(name.into(), Value::Null))
            } else {
                drop(members.remove(name))
            }
            all.push((format!("{pointer} {}", if null { "null" } else { "missing" }), value));
        }
        if let Some(Value::Object(members)) = bare.pointer_mut(parent) {
            members.remove(name);
        }
    }
    all.push(("nothing optional".into(), bare));
    let mut more = fixture.clone();
    add_unknown(&mut more);
    all.push(("unknown members".into(), more));
    all
}

fn pointers(value: &Value, at: &str) -> Vec<String> {
    let mut all = Vec::new();
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                let here = format!("{at}/{name}");
                all.extend(pointers(member, &here));
                all.push(here);
            }
        }
        Value::Array(items) => {
            for (i, item) in items.iter().enumerate() {
                all.extend(pointers(item, &format!("{at}/{i}")));
            }
        }
        _ => {}
    }
    all
}

fn add_unknown(value: &mut Value) {
    match value {
        Value::Object(members) => {
            members.values_mut().for_each(add_unknown);
            members.insert("futureThing".into(), json!({ "deep": [1, null, { "er": "x" }] }));
        }
        Value::Array(items) => items.iter_mut().for_each(add_unknown),
        _ => {}
    }
}

/// Returns a play with all members.
fn play() -> Value {
    json!({
        "id": ID, "title": "Mine", "createdAt": "2026-11-22T12:00:00Z", "updatedAt": "2026-11-22T12:00:00Z",
        "lastStateAt": "2026-11-22T12:00:00Z", "expiresIn": 28_530_000, "maxPlayTime": "8h0m0s",
        "status": { "factoryId": "f", "stateEvents": [{ "state": "RUNNING", "error": false, "at": "2026-11-22T12:00:00Z" }],
            "conditions": [{ "name": "x", "status": "True" }],
            "machines": [{ "name": "m", "state": "RUNNING", "conditions": [{ "name": "Ready", "status": "True",
                "lastTransitionAt": "2026-11-22T12:00:00Z", "message": "up" }] }] },
        "playground": { "id": "p", "owner": "", "name": "docker", "base": "", "title": "Docker", "machines": [
            { "name": "m", "users": [{ "name": "laborant", "default": true, "welcome": "-" }], "noSSH": false,
              "drives": [], "network": { "interfaces": [] }, "kernel": { "source": "k" } }] },
        "pageUrl": "https://labs.test/x",
        "machines": [{ "name": "m", "users": [{ "name": "laborant", "default": true }],
            "resources": { "cpuCount": 2, "ramSize": "4G" } }],
        "tasks": { "init_x": { "name": "init_x", "init": true, "helper": false, "status": 40, "version": 3 } },
        "tutorialName": "", "challengeName": "", "courseName": "", "lessonPath": "",
        "tutorial": { "name": "", "title": "" }, "challenge": { "name": "", "title": "" },
        "course": { "name": "", "title": "" }, "lesson": { "name": "", "title": "" },
    })
}

fn id(play: &Play) -> Value {
    json!(play.id)
}

#[tokio::test]
async fn plays() {
    let platform = Platform::start().await;
    let all = |plays: &Vec<Play>| json!(plays.iter().map(|play| play.id.clone()).collect::<Vec<_>>());
    let list = json!([play(), null]);
    platform.every_shape(list.clone(), &["/0/id"], |labs| async move { labs.plays().await }, all).await;
    platform.every_shape(list, &["/0/id"], |labs| async move { labs.persistent_plays().await }, all).await;
    platform.every_shape(Value::Null, &[], |labs| async move { labs.plays().await }, all).await;
    platform.every_shape(play(), &["/id"], |labs| async move { labs.play(ID).await }, id).await;
    let request =
        || CreatePlay { playground: "docker".into(), safety_disclaimer_consent: true, ..CreatePlay::default() };
    platform.every_shape(play(), &["/id"], |labs| async move { labs.create_play(&request()).await }, id).await;
}

#[tokio::test]
async fn what_a_play_says_is_read_to_the_unit() {
    let platform = Platform::start().await;
    *platform.answer.lock().unwrap() = play().to_string();
    let play = platform.labs.play(ID).await.unwrap();
    assert_eq!((play.expires_in.as_secs(), play.lifetime().unwrap().as_secs()), (28_530, 28_800));
    assert_eq!(play.state(), Some(&State::Running));
    assert!(play.machine_status("m").unwrap().is_ready() && !play.has_no_ssh("m"));
    assert_eq!((play.machines[0].default_user(), play.init_progress()), ("laborant", Some((1, 1))));
    assert!(!play.belongs_to_a_lesson(), "an empty name is none");
}

#[tokio::test]
async fn every_action() {
    let platform = Platform::start().await;
    let machine = || "m".to_owned();
    for action in [
        Action::Stop,
        Action::Restart,
        Action::Destroy,
        Action::MakePersistent,
        Action::SetTitle { title: "Mine".into() },
        Action::SetMaxPlayTime { minutes: 60 },
        Action::RebootMachine { machine: machine() },
        Action::StopMachine { machine: machine() },
        Action::RestartMachine { machine: machine() },
    ] {
        let act = |labs: Labs| {
            let action = action.clone();
            async move { labs.act(ID, &action).await }
        };
        let is_play = |given: &Option<Play>| json!(given.is_some());
        platform.every_shape(play(), &["/id"], act, is_play).await;
        for odd in ["{}", "", "null", "[]", "ok", "[{]", r#"{"id":"ffffffffffffffffffffffff"}"#] {
            *platform.answer.lock().unwrap() = odd.to_owned();
            assert_eq!(act(platform.labs.clone()).await.unwrap(), None, "{action:?}: {odd}");
        }
    }
}

#[tokio::test]
async fn tasks() {
    let platform = Platform::start().await;
    let task = json!({ "name": "init_x", "machine": "m", "status": 35, "version": 4, "init": true, "helper": false,
        "needs": ["init_y"], "run": "true", "env": ["A=1"], "user": "root", "timeoutSeconds": 60, "exitCode": 3,
        "stdout": "out", "stderr": "err", "lastRunAt": "2026-11-22T12:00:00Z", "lastDurationMs": 7, "hintcheck": "h",
        "hintcheckExitCode": 1, "hintcheckStdout": ["x"], "hintcheckStderr": ["y"], "failcheck": "f",
        "failcheckExitCode": 1, "failcheckStdout": ["x"], "failcheckStderr": ["y"], "dataPlaneOnly": true,
        "controlPlaneOnly": true });
    let call = |labs: Labs| async move { labs.tasks(ID).await };
    let of = |all: &Vec<labs::wire::TaskDetails>| {
        json!(all.iter().map(|one| (one.task.name.clone(), one.task.status.word())).collect::<Vec<_>>())
    };
    platform.every_shape(json!([task, null]), &["/0/name", "/0/status"], call, of).await;
    platform.every_shape(Value::Null, &[], call, of).await;
}

fn entry() -> Value {
    json!({ "id": "p", "owner": "", "name": "docker", "base": "b", "title": "Docker", "description": "d",
        "categories": ["linux"], "cover": "c", "markdown": "m", "published": true, "pageUrl": "https://labs.test/docker",
        "networks": [{ "name": "local", "subnet": "172.16.0.0/24", "gateway": "172.16.0.1", "private": true }],
        "machines": [{ "name": "m", "users": [{ "name": "laborant", "default": true, "welcome": "w" }],
            "backend": "firecracker", "kernel": { "source": "s", "snapshot": "x" },
            "drives": [{ "source": "s", "mount": "/", "size": "1G", "filesystem": "ext4", "readOnly": false,
                "persistent": true, "snapshot": { "id": "i", "leaseId": "l" } }],
            "network": { "interfaces": [{ "address": "172.16.0.2/24", "network": "local" }] },
            "resources": { "cpuCount": 2, "ramSize": "4G" },
            "startupFiles": [{ "path": "/x", "content": "", "mode": "644", "owner": "root", "append": true }],
            "noSSH": true }],
        "tabs": [{ "id": "t", "kind": "terminal", "name": "m", "machine": "m", "number": 1, "access": "private" }],
        "initTasks": { "init_x": { "name": "init_x", "machine": "m", "init": true, "user": "root", "timeout_seconds": 60,
            "needs": [], "run": "true", "status": 0, "conditions": [{ "key": "k", "value": "v" }] } },
        "initConditions": { "values": [{ "key": "Container runtime", "default": "containerd", "nullable": false,
            "options": ["containerd"], "placeholder": "p", "validationRegex": ".*" }] },
        "registryAuth": "r", "portForwards": [{ "kind": "local", "machine": "m", "remotePort": 80 }],
        "accessControl": { "canList": [], "canRead": [], "canStart": [] },
        "userAccess": { "canList": true, "canRead": true, "canStart": true } })
}

#[tokio::test]
async fn the_catalogue() {
    let platform = Platform::start().await;
    let name = |entry: &labs::wire::CatalogEntry| json!(entry.name);
    let names = |all: &Vec<labs::wire::CatalogEntry>| json!(all.iter().map(name).collect::<Vec<_>>());
    let list = |labs: Labs| async move { labs.catalog().await };
    platform.every_shape(json!([entry()]), &["/0/name"], list, names).await;
    platform.every_shape(Value::Null, &[], list, names).await;
    platform.every_shape(entry(), &["/name"], |labs| async move { labs.catalog_entry("docker").await }, name).await;
}

#[tokio::test]
async fn the_account() {
    let platform = Platform::start().await;
    let me = json!({ "id": "u1", "githubProfileId": "ada", "preferredRegion": "eu",
        "premiumAccess": { "until": "2027-01-31T00:00:00Z", "lifetime": false, "trial": true } });
    platform.every_shape(me, &["/id"], |labs| async move { labs.me().await }, |me| json!(me.id)).await;
    let session = json!({ "id": "session-id", "userId": "u1", "authenticated": true, "accessToken": "access-token",
        "authUrl": "https://labs.test/confirm" });
    let required = ["/id", "/accessToken", "/authUrl"];
    let of = |session: &labs::wire::Login| json!([session.id, session.access_token, session.auth_url]);
    platform.every_shape(session.clone(), &required, |labs| async move { labs.create_session().await }, of).await;
    let poll = |labs: Labs| async move { labs.session("session-id").await };
    platform.every_shape(session, &["/authenticated"], poll, |session| json!(session.authenticated)).await;
    for body in ["", "{}", "null", "bye"] {
        *platform.answer.lock().unwrap() = body.to_owned();
        platform.labs.delete_session("session-id").await.unwrap();
    }
}

#[tokio::test]
async fn tunnels() {
    let platform = Platform::start().await;
    let tunnel = json!({ "url": "https://t.labs.test", "loginUrl": "https://t.labs.test/login" });
    let start = |labs: Labs| async move { labs.start_tunnel(ID, "m", "laborant", "ssh-ed25519 AAAA\n").await };
    let of = |tunnel: &labs::wire::TunnelOffer| json!([tunnel.url, tunnel.login_url]);
    platform.every_shape(tunnel, &["/url", "/loginUrl"], start, of).await;
    for broken in ["{}", "", "null", r#"{"url":null,"loginUrl":null}"#] {
        *platform.answer.lock().unwrap() = broken.to_owned();
        assert_eq!(start(platform.labs.clone()).await.unwrap_err().kind(), Kind::Answer, "{broken}");
    }
}

#[tokio::test]
async fn saved_forwards() {
    let platform = Platform::start().await;
    let record = json!({ "kind": "local", "machine": "m", "localHost": "127.0.0.1", "localPort": 8080,
        "remoteHost": "web", "remotePort": 80 });
    let list = |labs: Labs| async move { labs.port_forwards(ID).await };
    // An index is a position in the list, so no item may be left out.
    let places = |all: &Vec<SavedForward>| json!([all.len(), all.iter().map(is_known).collect::<Vec<_>>()]);
    platform.every_shape(json!([null, record, "x", { "localPort": -1 }]), &["/3/localPort"], list, places).await;
    platform.every_shape(Value::Null, &[], list, places).await;
    for body in ["", "{}", "null", "[]", "saved"] {
        *platform.answer.lock().unwrap() = body.to_owned();
        platform.labs.save_port_forward(ID, &PortForward::default()).await.unwrap();
        platform.labs.forget_port_forward(ID, 0).await.unwrap();
    }
}

fn is_known(saved: &SavedForward) -> bool {
    matches!(saved, SavedForward::Known(_))
}

#[test]
fn live_messages() {
    let read = |value: &Value| labs::messages::message(&tokio_websockets::Message::text(value.to_string()));
    let status = json!({ "kind": "status", "status": play()["status"].clone() });
    for (shape, value) in shapes(&status, &["/kind", "/status/stateEvents/0/state", "/status/machines/0/name"]) {
        let Some(Message::Status { status }) = read(&value) else { panic!("{shape}: {value}") };
        assert_eq!(status.state_events[0].state, State::Running, "{shape}");
    }
    let task = json!({ "kind": "task", "machine": "m",
        "task": { "name": "init_x", "init": true, "helper": false, "status": 35, "version": 4 } });
    for (shape, value) in shapes(&task, &["/kind", "/task/name", "/task/status"]) {
        let Some(Message::Task { task, .. }) = read(&value) else { panic!("{shape}: {value}") };
        assert_eq!((task.name.as_str(), task.status), ("init_x", TaskStatus::FAILED), "{shape}");
    }
    assert_eq!(read(&json!({ "kind": "news", "x": 1 })), Some(Message::Other));
    assert_eq!(read(&json!({ "x": 1 })), None);
}
