//! The embedded platform, served in the process of the tests.

use std::time::Duration;

use futures_util::StreamExt;
use labctl_ssh_proxy::{
    error::{Kind, Result},
    labs::{
        Labs, TunnelSession,
        answer::Reply,
        http::{self, Http, Stream},
        net::Dialer,
        tunnel::text,
        wire::{Action, CreatePlay, Message, Play, State},
    },
    local::{
        serve::{Options, serve},
        start,
    },
    settings::Folders,
};
use serde_json::Value;
use tokio::{sync::oneshot, task::JoinHandle};
use tokio_websockets::WebSocketStream;

/// An embedded platform, served in this process in its own folder.
pub struct Platform {
    pub folders: Folders,
    pub labs: Labs,
    stop: Option<oneshot::Sender<()>>,
    pub task: JoinHandle<Result<()>>,
    pub _home: Option<tempfile::TempDir>,
}

pub fn folders() -> (tempfile::TempDir, Folders) {
    // A short path, because the path of a socket has a small limit.
    let home = tempfile::Builder::new().prefix("lsp").tempdir_in("/tmp").unwrap();
    let root = home.path().join("r");
    let folders = Folders { home: home.path().into(), settings: root.join("settings.yaml"), root };
    (home, folders)
}

fn begin(folders: &Folders, options: &Options) -> (oneshot::Sender<()>, JoinHandle<Result<()>>) {
    let (stop, stopped) = oneshot::channel::<()>();
    let (folders, options) = (folders.clone(), options.clone());
    let task = tokio::spawn(async move {
        let stopped = async { drop(stopped.await) };
        serve(&folders, options, stopped).await
    });
    (stop, task)
}

impl Platform {
    pub async fn start(options: Options) -> Platform {
        let (home, folders) = folders();
        Platform { _home: Some(home), ..Platform::start_in(&folders, options).await }
    }

    pub async fn start_in(folders: &Folders, options: Options) -> Platform {
        let (mut stop, mut task) = begin(folders, &options);
        while start::status(folders).await.ok().flatten().is_none() {
            if task.is_finished() {
                // The old platform's lock lasts as long as any copy of its file descriptor. Another test's thread that
                // is starting a process may have one.
                match task.await.unwrap() {
                    Err(e) if e.kind() == Kind::Refused => (stop, task) = begin(folders, &options),
                    ended => panic!("{ended:?}"),
                }
            }
            tokio::task::yield_now().await;
        }
        let labs = Labs::embedded(Dialer::socket(folders.socket()));
        Platform { folders: folders.clone(), labs, stop: Some(stop), task, _home: None }
    }

    pub async fn end(&mut self) {
        drop(self.stop.take());
        (&mut self.task).await.unwrap().unwrap();
        assert!(!self.folders.socket().exists(), "the socket is removed");
    }

    pub async fn create(&self, playground: &str) -> Play {
        let wish = CreatePlay { playground: playground.into(), ..CreatePlay::default() };
        self.labs.create_play(&wish).await.unwrap()
    }

    /// Waits, with live messages, until a condition on a play is true.
    pub async fn until(&self, id: &str, is: impl Fn(&Play) -> bool) -> Play {
        let mut live = messages(self.labs.live(id).await.unwrap());
        loop {
            let play = self.labs.play(id).await.unwrap();
            if is(&play) {
                return play;
            }
            live.next().await.expect("live messages go on");
        }
    }

    pub async fn ready(&self, id: &str) -> Play {
        self.until(id, |play| play.machines.iter().all(|m| play.machine_status(&m.name).unwrap().is_ready())).await
    }

    pub async fn state(&self, id: &str, state: State) -> Play {
        self.until(id, |play| play.state() == Some(&state)).await
    }

    pub async fn tunnel(&self, id: &str, machine: &str) -> Result<TunnelSession> {
        let started = self.labs.start_tunnel(id, machine, "", "").await?;
        self.labs.log_into_tunnel(&started).await
    }

    pub async fn refused(&self, id: &str, action: Action) -> String {
        let error = self.labs.act(id, &action).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Refused, "{error}");
        error.message().to_owned()
    }

    pub async fn send(&self, method: &str, path: &str, body: &str) -> Reply {
        let uri = format!("http://localhost{path}").parse().unwrap();
        let request = http::request(method.parse().unwrap(), uri, Some(body.to_owned().into()));
        Http::new(Dialer::socket(self.folders.socket())).send(request, Duration::from_secs(10)).await.unwrap()
    }

    pub async fn json(&self, method: &str, path: &str, body: &str) -> Value {
        let reply = self.send(method, path, body).await;
        assert!(
            reply.status.is_success(),
            "{method} {path}: {}: {}",
            reply.status,
            String::from_utf8_lossy(&reply.body)
        );
        serde_json::from_slice(&reply.body).unwrap()
    }

    /// Opens the stream whose address is in the answer of a call.
    pub async fn stream(&self, path: &str, body: &str) -> WebSocketStream<Stream> {
        let url = self.json("POST", path, body).await["url"].as_str().unwrap().replacen("ws", "http", 1);
        let http = Http::new(Dialer::socket(self.folders.socket()));
        let socket = http.websocket(url.parse().unwrap(), &[], Duration::from_secs(5)).await.unwrap();
        tokio_websockets::ClientBuilder::new().take_over(socket)
    }

    /// Opens a WebSocket of a tunnel, with the target in base64.
    pub async fn websocket(&self, session: &TunnelSession, target: &str) -> WebSocketStream<Stream> {
        let cookie = format!(".ixcondsess={}", session.token).parse().unwrap();
        let http = Http::new(Dialer::socket(self.folders.socket()));
        let uri = format!("http://localhost/tunnels/{target}").parse().unwrap();
        let cookie = [(hyper::header::COOKIE, cookie)];
        let socket = http.websocket(uri, &cookie, Duration::from_secs(5)).await.unwrap();
        tokio_websockets::ClientBuilder::new().take_over(socket)
    }

    pub async fn status_of(&self, method: &str, path: &str, body: &str) -> u16 {
        let reply = self.send(method, path, body).await;
        assert!(reply.status.is_success() || !reply.body.is_empty(), "a refusal has words");
        reply.status.as_u16()
    }
}

pub fn messages(socket: Stream) -> impl futures_util::Stream<Item = Message> + Unpin {
    tokio_websockets::ClientBuilder::new().take_over(socket).filter_map(|message| {
        std::future::ready(message.ok().and_then(|m| text(&m).map(|text| serde_json::from_str(&text).unwrap())))
    })
}

pub fn quick() -> Options {
    Options::default()
}
