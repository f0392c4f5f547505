//! The embedded platform as its clients see it: served in this process, over a Unix socket in a folder of its own.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use futures_util::StreamExt;
use labctl_ssh_proxy::{
    error::{Error, Kind, Result},
    labs::{
        Labs, TunnelSession,
        http::{Http, Stream},
        net::Dialer,
        tunnel::{Tunnel, text},
        wire::{Action, Message, Play, StartTunnel, State},
    },
    local::{
        self,
        serve::{Options, serve},
        start,
    },
    settings::Folders,
};
use ring::digest::{Context, SHA256};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UnixStream},
};

use crate::support::{
    fault::closed_port,
    not_run,
    platform::{Platform, folders, messages, quick},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_play_lives_through_every_action() {
    let mut platform = Platform::start(quick()).await;
    let labs = &platform.labs;
    let made = platform.create("duo").await;
    let id = made.id.clone();
    assert_eq!(id.len(), 24);
    assert_eq!(made.state(), Some(&State::Created));
    assert_eq!(made.machines.iter().map(|m| m.name.as_str()).collect::<Vec<_>>(), ["node-01", "node-02"]);
    assert!(made.machines[0].users.iter().any(|user| user.default));
    let hours = Duration::from_secs(8 * 3600);
    assert!((hours - Duration::from_secs(5)..=hours).contains(&made.expires_in), "{:?}", made.expires_in);

    let ready = platform.ready(&id).await;
    let states: Vec<&State> = ready.status.as_ref().unwrap().state_events.iter().map(|event| &event.state).collect();
    use State::{Created, Running, Starting, WarmedUp, WarmingUp};
    assert_eq!(states, [&Created, &WarmingUp, &WarmedUp, &Starting, &Running]);
    assert_eq!(ready.playground.name, "duo");

    for (title, fits) in [("", false), (" \n", false), (&*"x".repeat(201), false), ("a\tb", false), (" für Ada ", true)]
    {
        assert_eq!(labs.act(&id, &Action::SetTitle { title: title.into() }).await.is_ok(), fits, "{title:?}");
    }
    assert!(labs.persistent_plays().await.unwrap().is_empty());
    let play = labs.act_and_look(&id, &Action::MakePersistent).await.unwrap();
    assert_eq!(play.title, "für Ada");
    assert_eq!(labs.persistent_plays().await.unwrap().len(), 1);
    let play = labs.act_and_look(&id, &Action::SetMaxPlayTime { minutes: 90 }).await.unwrap();
    let (least, most) = (Duration::from_secs(5340), Duration::from_secs(5400));
    assert!((least..=most).contains(&play.expires_in));
    assert!(platform.refused(&id, Action::SetMaxPlayTime { minutes: u64::MAX }).await.contains("at most"));
    let shown = platform.json("GET", &format!("/plays/{id}"), "").await;
    assert_eq!(shown["maxPlayTime"], "1h30m0s");
    let left = shown["expiresIn"].as_u64().unwrap();
    assert!((5_340_000..=5_400_000).contains(&left), "milliseconds: {left}");

    // Machines, one by one.
    let machine = || "node-02".to_owned();
    assert!(platform.refused(&id, Action::RestartMachine { machine: machine() }).await.contains("RUNNING"));
    let play = labs.act_and_look(&id, &Action::RebootMachine { machine: machine() }).await.unwrap();
    assert_eq!(play.machine_status("node-02").unwrap().state, State::Rebooting);
    assert!(play.machine_status("node-01").unwrap().is_ready(), "the other goes on");
    platform.ready(&id).await;
    labs.act(&id, &Action::StopMachine { machine: machine() }).await.unwrap();
    let off = |play: &Play| play.machine_status("node-02").unwrap().state == State::Stopped;
    let play = platform.until(&id, off).await;
    assert_eq!(play.state(), Some(&State::Running));
    assert!(platform.refused(&id, Action::StopMachine { machine: machine() }).await.contains("STOPPED"));
    assert!(platform.refused(&id, Action::RebootMachine { machine: machine() }).await.contains("STOPPED"));
    let error = platform.tunnel(&id, "node-02").await.unwrap_err();
    assert!(error.kind() == Kind::Refused && error.message().contains("node-02 is STOPPED"), "{error}");
    labs.act(&id, &Action::RestartMachine { machine: machine() }).await.unwrap();
    platform.ready(&id).await;
    let error = labs.act(&id, &Action::StopMachine { machine: "node-03".into() }).await.unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound);

    // The whole playground.
    assert!(platform.refused(&id, Action::Restart).await.contains("RUNNING"));
    let play = labs.act_and_look(&id, &Action::Stop).await.unwrap();
    assert_eq!(play.state(), Some(&State::Stopping));
    assert_eq!(play.expires_in, Duration::ZERO);
    assert!(platform.refused(&id, Action::Restart).await.contains("STOPPING"));
    platform.state(&id, State::Stopped).await;
    assert!(platform.refused(&id, Action::Stop).await.contains("STOPPED"));
    assert!(platform.refused(&id, Action::RebootMachine { machine: machine() }).await.contains("STOPPED"));
    labs.act(&id, &Action::Restart).await.unwrap();
    platform.ready(&id).await;

    let folder = platform.folders.local().join("plays").join(&id);
    assert!(folder.join("node-01").is_dir());
    let play = labs.act_and_look(&id, &Action::Destroy).await.unwrap();
    assert_eq!(play.state(), Some(&State::Destroying));
    let play = platform.state(&id, State::Destroyed).await;
    assert!(!folder.exists());
    assert_eq!(play.title, "für Ada");
    assert_eq!(labs.plays().await.unwrap()[0].state(), Some(&State::Destroyed), "for a while it is shown");
    assert!(labs.persistent_plays().await.unwrap().is_empty(), "though it was persistent");
    assert_eq!(start::status(&platform.folders).await.unwrap().unwrap().plays, 0);
    for action in [Action::Destroy, Action::Restart, Action::Stop, Action::MakePersistent] {
        assert!(platform.refused(&id, action).await.contains("DESTROYED"));
    }
    let error = platform.tunnel(&id, "").await.unwrap_err();
    assert!(error.kind() == Kind::Refused && error.message().contains("DESTROYED"), "{error}");
    platform.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn live_messages_tell_each_change_up_to_the_end() {
    let mut platform = Platform::start(quick()).await;
    let id = platform.create("shell").await.id;
    let live = platform.labs.live(&id).await.unwrap();
    platform.ready(&id).await;
    platform.labs.act(&id, &Action::Stop).await.unwrap();
    platform.state(&id, State::Stopped).await;
    platform.labs.act(&id, &Action::Destroy).await.unwrap();
    let all: Vec<Message> = messages(live).collect().await;
    let mut last = None;
    for message in all {
        match message {
            Message::Status { status } => last = Some(status),
            Message::Task { .. } => {}
            Message::Other => panic!("{message:?}"),
        }
    }
    let events = last.unwrap().state_events;
    assert_eq!(events.last().unwrap().state, State::Destroyed);
    assert!(events.iter().any(|event| event.state == State::Stopping));
    assert_eq!(platform.status_of("GET", &format!("/conns/{id}-guess"), "").await, 404);
    platform.end().await;
}

/// Starts a server that returns everything it receives. Returns its port.
async fn echo_server() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut rx, mut tx) = tcp.into_split();
                tokio::io::copy(&mut rx, &mut tx).await
            });
        }
    });
    port
}

async fn rest(tunnel: &mut Tunnel<Stream>) -> Vec<u8> {
    let mut all = Vec::new();
    tunnel.read_to_end(&mut all).await.unwrap();
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tunnels_carry_bytes_both_ways() {
    const SIZE: usize = 64 << 20;
    let mut platform = Platform::start(quick()).await;
    let id = platform.create("shell").await.id;
    let session = platform.tunnel(&id, "").await.unwrap();
    assert_eq!(session.url, "http://localhost");
    let port = echo_server().await;
    let tunnel = platform.labs.dial(&session, &format!("dial:shell-01:{port}")).await.unwrap();
    let (mut rx, mut tx) = tokio::io::split(tunnel);
    let up = tokio::spawn(async move {
        let (mut sum, mut block) = (Context::new(&SHA256), vec![0; 1 << 20]);
        for i in 0..SIZE >> 20 {
            fastrand::Rng::with_seed(i as u64).fill(&mut block);
            sum.update(&block);
            tx.write_all(&block).await.unwrap();
        }
        tx.flush().await.unwrap();
        (sum.finish(), tx)
    });
    let (mut sum, mut got, mut buffer) = (Context::new(&SHA256), 0, vec![0; 1 << 20]);
    while got < SIZE {
        let n = rx.read(&mut buffer).await.unwrap();
        assert!(n > 0, "ended after {got}");
        sum.update(&buffer[..n]);
        got += n;
    }
    let (sent, tx) = up.await.unwrap();
    assert_eq!(sum.finish().as_ref(), sent.as_ref());
    drop((rx, tx));
    platform.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_tail_of_an_answer_comes_through_and_then_the_end() {
    let mut platform = Platform::start(quick()).await;
    let id = platform.create("shell").await.id;
    let session = platform.tunnel(&id, "").await.unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = format!("localhost:{}", listener.local_addr().unwrap().port());
    let data = vec![7; 3_000_000];
    let said = data.clone();
    let server = tokio::spawn(async move {
        for unread in [false, true] {
            let (mut tcp, _) = listener.accept().await.unwrap();
            if !unread {
                let mut question = [0; 5];
                tcp.read_exact(&mut question).await.unwrap();
            }
            tcp.write_all(&said).await.unwrap();
        }
        // The end of the client ends the connection as well.
        let (mut tcp, _) = listener.accept().await.unwrap();
        tcp.read_to_end(&mut Vec::new()).await
    });
    for _ in 0..2 {
        let mut tunnel = platform.labs.dial(&session, &target).await.unwrap();
        tunnel.write_all(b"hello").await.unwrap();
        assert!(rest(&mut tunnel).await.ends_with(&[7; 100]), "the tail");
    }
    let tunnel = platform.labs.dial(&session, &target).await.unwrap();
    tunnel.finish().await;
    assert_eq!(server.await.unwrap().unwrap(), 0);

    // No process listens: the tunnel closes right after the upgrade.
    let closed = closed_port();
    let mut tunnel = platform.labs.dial(&session, &format!(":{closed}")).await.unwrap();
    assert!(rest(&mut tunnel).await.is_empty());
    platform.end().await;
}

/// Two servers share a port, one on each loopback address, and say which they are.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_is_dialled_as_it_is_written() {
    let mut platform = Platform::start(quick()).await;
    let id = platform.create("shell").await.id;
    let session = platform.tunnel(&id, "").await.unwrap();
    let (six, four, port) = loop {
        let Ok(six) = TcpListener::bind("[::1]:0").await else { return not_run("this computer has no IPv6") };
        let port = six.local_addr().unwrap().port();
        // Another test may have the port there.
        if let Ok(four) = TcpListener::bind(("127.0.0.1", port)).await {
            break (six, four, port);
        }
    };
    for (listener, says) in [(six, "six"), (four, "four")] {
        tokio::spawn(async move {
            while let Ok((mut tcp, _)) = listener.accept().await {
                let _ = tcp.write_all(says.as_bytes()).await;
            }
        });
    }
    for (host, says) in [("[::1]", "six"), ("dial:[::1]", "six"), ("127.0.0.1", "four")] {
        let mut tunnel = platform.labs.dial(&session, &format!("{host}:{port}")).await.unwrap();
        assert_eq!(String::from_utf8(rest(&mut tunnel).await).unwrap(), says, "{host}");
    }
    platform.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn port_22_is_the_machines_own_server_until_it_stops() {
    let mut platform = Platform::start(quick()).await;
    let id = platform.create("duo").await.id;
    let session = platform.tunnel(&id, "node-02").await.unwrap();
    let mut open = Vec::new();
    for target in [":22", "localhost:22", "127.0.0.1:22", "dial:[::1]:22", "node-02:22"] {
        let mut tunnel = platform.labs.dial(&session, target).await.unwrap();
        let mut start = [0; 8];
        tunnel.read_exact(&mut start).await.unwrap();
        assert_eq!(&start, b"SSH-2.0-", "{target}");
        open.push(tunnel);
    }
    let port = echo_server().await;
    open.push(platform.labs.dial(&session, &format!(":{port}")).await.unwrap());
    platform.labs.act(&id, &Action::StopMachine { machine: "node-02".into() }).await.unwrap();
    for mut tunnel in open {
        let ended = tokio::time::timeout(Duration::from_secs(5), rest(&mut tunnel));
        ended.await.expect("the machine's end is the tunnels' end");
    }
    let error = platform.labs.dial(&session, ":22").await.err().unwrap();
    assert_eq!(error.kind(), Kind::Refused, "its token has ended with it: {error}");
    platform.end().await;
}

async fn upgrade(platform: &Platform, session: &TunnelSession, path: &str) -> Result<Stream> {
    let cookie = format!(".ixcondsess={}", session.token).parse().unwrap();
    let http = Http::new(Dialer::socket(platform.folders.socket()));
    let uri = format!("http://localhost/tunnels/{path}").parse().unwrap();
    http.websocket(uri, &[(hyper::header::COOKIE, cookie)], Duration::from_secs(5)).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_listens_for_a_client() {
    let mut platform = Platform::start(quick()).await;
    let id = platform.create("shell").await.id;
    let session = platform.tunnel(&id, "").await.unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = taken.local_addr().unwrap().port();
    let path = BASE64_STANDARD.encode(format!("listen:0.0.0.0:{port}"));
    let error = upgrade(&platform, &session, &path).await.unwrap_err();
    assert!(error.kind() == Kind::Refused && error.message().contains("cannot listen"), "{error}");
    drop(taken);

    let control = upgrade(&platform, &session, &path).await.unwrap();
    let mut control = tokio_websockets::ClientBuilder::new().take_over(control);
    let mut visitor = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let told = control.next().await.unwrap().unwrap();
    let told: serde_json::Value = serde_json::from_str(&text(&told).unwrap()).unwrap();
    assert_eq!(told["type"], "connect");
    let target = format!("connect:{}", told["cid"].as_str().unwrap());
    let mut taken_up = platform.labs.dial(&session, &target).await.unwrap();
    visitor.write_all(b"ping").await.unwrap();
    let mut four = [0; 4];
    taken_up.read_exact(&mut four).await.unwrap();
    taken_up.write_all(&four).await.unwrap();
    visitor.read_exact(&mut four).await.unwrap();
    assert_eq!(&four, b"ping");
    let again = platform.labs.dial(&session, &target).await.err().unwrap();
    assert_eq!(again.kind(), Kind::NotFound, "a connection is taken up once: {again}");

    // The end of the control channel ends the listener. Accepted connections go on.
    drop(control);
    while TcpStream::connect(("127.0.0.1", port)).await.is_ok() {
        tokio::task::yield_now().await;
    }
    visitor.write_all(b"pong").await.unwrap();
    taken_up.read_exact(&mut four).await.unwrap();
    assert_eq!(&four, b"pong");
    drop(visitor);
    assert!(rest(&mut taken_up).await.is_empty());

    for (path, kind) in [("%21", Kind::Refused), ("OjIy=", Kind::Refused), ("Y29ubmVjdDpub25l", Kind::NotFound)] {
        assert_eq!(upgrade(&platform, &session, path).await.unwrap_err().kind(), kind, "{path}");
    }
    let stranger = TunnelSession { token: "0".repeat(64), ..session.clone() };
    assert_eq!(upgrade(&platform, &stranger, "OjIy").await.unwrap_err().kind(), Kind::Refused);
    // Not a WebSocket.
    assert_eq!(platform.status_of("GET", "/tunnels/OjIy", "").await, 401);
    platform.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_machine_runs_before_it_is_ready() {
    let delay = Duration::from_secs(8);
    let mut platform =
        Platform::start(Options { boot_delay: delay, hold: Duration::from_millis(300), ..quick() }).await;
    let started = Instant::now();
    let id = platform.create("shell").await.id;
    let play = platform.state(&id, State::Running).await;
    let machine = play.machine_status("shell-01").unwrap();
    assert_eq!((&machine.state, machine.is_ready()), (&State::Running, false));
    let error = platform.tunnel(&id, "shell-01").await.unwrap_err();
    assert_eq!(error.kind(), Kind::NotYet, "{error}");
    assert!(started.elapsed() > Duration::from_millis(300) && started.elapsed() < delay, "held, but not for ever");
    platform.ready(&id).await;
    assert!(started.elapsed() > delay);
    platform.tunnel(&id, "shell-01").await.unwrap();

    // A request on hold is answered at once when the playground stops.
    platform.labs.act(&id, &Action::Stop).await.unwrap();
    platform.state(&id, State::Stopped).await;
    platform.end().await;
    let mut platform = Platform::start_in(&platform.folders, Options { boot_delay: delay, ..quick() }).await;
    platform.labs.act(&id, &Action::Restart).await.unwrap();
    let (tunnel, stop) = tokio::join!(platform.tunnel(&id, ""), platform.labs.act(&id, &Action::Stop));
    stop.unwrap();
    let error = tunnel.unwrap_err();
    assert!(error.kind() == Kind::Refused && error.message().contains("STOPP"), "{error}");
    platform.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_destroyed_while_it_boots_does_not_come_back() {
    let delay = Duration::from_secs(1);
    let mut platform = Platform::start(Options { boot_delay: delay, ..quick() }).await;
    let id = platform.create("shell").await.id;
    platform.state(&id, State::Running).await;
    let booting = Instant::now();
    platform.labs.act(&id, &Action::Destroy).await.unwrap();
    platform.state(&id, State::Destroyed).await;
    let folder = platform.folders.local().join("plays").join(&id);
    assert!(!folder.exists());
    while booting.elapsed() < delay * 2 {
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(!folder.exists(), "it is back");
    }
    platform.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn playgrounds_outlive_the_platform() {
    let mut platform = Platform::start(quick()).await;
    let id = platform.create("shell").await.id;
    platform.ready(&id).await;
    platform.labs.act(&id, &Action::SetTitle { title: "kept".into() }).await.unwrap();
    let forward = r#"{"kind":"local","machine":"shell-01","localPort":8080,"remotePort":80}"#;
    let path = format!("/api/plays/{id}/port-forwards");
    assert_eq!(platform.status_of("POST", &path, forward).await, 201);
    let machine = platform.folders.local().join("plays").join(&id).join("shell-01");
    fs::write(machine.join("home/file"), "mine").unwrap();
    let key = fs::read(machine.join("ssh_host_ed25519_key")).unwrap();
    platform.end().await;

    // As after SIGKILL: the record still says RUNNING, and the socket file exists.
    let record = platform.folders.local().join("plays").join(&id).join("play.json");
    let text = fs::read_to_string(&record).unwrap();
    assert!(text.contains("STOPPED"));
    fs::write(&record, text.replace("STOPPED", "RUNNING").replace("STOPPING", "RUNNING")).unwrap();
    drop(std::os::unix::net::UnixListener::bind(platform.folders.socket()).unwrap());

    let home = platform._home.take();
    let mut platform = Platform::start_in(&platform.folders, quick()).await;
    platform._home = home;
    let play = platform.labs.play(&id).await.unwrap();
    assert_eq!((play.state(), play.title.as_str()), (Some(&State::Stopped), "kept"));
    assert_eq!(platform.send("GET", &path, "").await.body, format!("[{forward}]"));
    let error = platform.tunnel(&id, "").await.unwrap_err();
    assert!(error.kind() == Kind::Refused && error.message().contains("is STOPPED: restart it"), "{error}");
    platform.labs.act(&id, &Action::Restart).await.unwrap();
    platform.ready(&id).await;
    assert_eq!(fs::read_to_string(machine.join("home/file")).unwrap(), "mine");
    assert_eq!(fs::read(machine.join("ssh_host_ed25519_key")).unwrap(), key);
    platform.end().await;
}

#[tokio::test]
async fn a_damaged_record_stops_the_platform_and_stays() {
    let (_home, folders) = folders();
    let path = folders.local().join("plays/0123456789abcdef01234567/play.json");
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::set_permissions(folders.local(), fs::Permissions::from_mode(0o700)).unwrap();
    fs::write(&path, r#"{"id": "01234"#).unwrap();
    let error = serve(&folders, quick(), std::future::pending()).await.unwrap_err();
    assert_eq!(error.kind(), Kind::File);
    assert!(error.message().contains("play.json is damaged"), "{error}");
    assert_eq!(fs::read_to_string(&path).unwrap(), r#"{"id": "01234"#);
}

#[tokio::test]
async fn one_platform_a_folder_and_the_folder_is_private() {
    let mut platform = Platform::start(quick()).await;
    let error = serve(&platform.folders, quick(), std::future::pending()).await.unwrap_err();
    assert!(error.kind() == Kind::Refused && error.message().contains("already"), "{error}");
    let status = start::status(&platform.folders).await.unwrap().unwrap();
    assert_eq!((status.pid, status.plays), (std::process::id(), 0));
    let mode = |path: PathBuf| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(platform.folders.local()), mode(platform.folders.socket())), (0o700, 0o600));
    assert!(start::stop(&platform.folders).await.unwrap());
    platform.end().await;
    assert!(!start::stop(&platform.folders).await.unwrap());

    fs::set_permissions(platform.folders.local(), fs::Permissions::from_mode(0o750)).unwrap();
    let refused = |error: Error| error.message().contains("others could get into");
    assert!(refused(serve(&platform.folders, quick(), std::future::pending()).await.unwrap_err()));
    assert!(refused(start::ensure(&platform.folders).await.unwrap_err()), "and clients look, too");

    let root = platform.folders.root.join("x".repeat(100));
    let error =
        serve(&Folders { root, ..platform.folders.clone() }, quick(), std::future::pending()).await.unwrap_err();
    assert!(error.message().contains("too long") && error.hint().unwrap().contains("LABCTL_SSH_PROXY_HOME"), "{error}");
}

#[tokio::test]
async fn it_ends_when_nobody_has_been_there_for_a_while() {
    let idle = Duration::from_secs(3);
    let mut platform = Platform::start(Options { idle, ..quick() }).await;
    let id = platform.create("shell").await.id;
    let session = platform.tunnel(&id, "").await.unwrap();
    let mut tunnel = platform.labs.dial(&session, ":22").await.unwrap();
    platform.labs = Labs::embedded(Dialer::socket(platform.folders.socket()));
    let longer = tokio::time::timeout(3 * idle, rest(&mut tunnel)).await;
    assert!(longer.is_err() && !platform.task.is_finished(), "a tunnel is somebody");
    let left = Instant::now();
    drop(tunnel);
    (&mut platform.task).await.unwrap().unwrap();
    assert!(left.elapsed() >= idle, "{:?}", left.elapsed());
    assert!(!platform.folders.socket().exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_requests_are_refused_in_words() {
    let mut platform = Platform::start(quick()).await;
    let id = platform.create("shell").await.id;
    platform.ready(&id).await;
    let play = format!("/api/plays/{id}");
    let none = "/api/plays/ffffffffffffffffffffffff";
    for (method, path, body, status) in [
        ("GET", "/api/nonsense", "", 404),
        ("GET", "/", "", 404),
        ("PUT", "/api/plays", "", 404),
        ("GET", none, "", 404),
        ("POST", &format!("{none}/tunnels"), "{}", 404),
        ("POST", &format!("{none}/conns"), "", 404),
        ("POST", "/api/plays", "{", 400),
        ("POST", "/api/plays", "[]", 400),
        ("POST", "/api/plays", r#"{"playground":"docker"}"#, 404),
        ("POST", "/api/plays", r#"{"playground":"shell","machines":[{"name":""}]}"#, 400),
        ("POST", &format!("{play}/actions"), r#"{"action":"dance"}"#, 400),
        ("POST", &format!("{play}/actions"), r#"{"action":"set_title"}"#, 400),
        ("POST", &format!("{play}/actions"), &format!(r#"{{"action":"{}"}}"#, "x".repeat(2 << 20)), 413),
        ("POST", &format!("{play}/tunnels"), r#"{"machine":"other"}"#, 404),
        ("POST", &format!("{play}/tunnels"), r#"{"sshUser":"nobody-of-that-name"}"#, 400),
        ("POST", &format!("{play}/tunnels"), r#"{"sshPubKey":"ssh-ed25519 AAAA"}"#, 400),
        ("POST", &format!("{play}/port-forwards"), r#"{"kind":"sideways","machine":"shell-01"}"#, 400),
        ("POST", &format!("{play}/port-forwards"), r#"{"kind":"local","machine":"other"}"#, 404),
        ("DELETE", &format!("{play}/port-forwards/0"), "", 404),
        ("POST", &format!("{play}/ports"), r#"{"machine":"shell-01","number":0}"#, 400),
        ("POST", &format!("{play}/ports"), r#"{"machine":"shell-01","number":70000}"#, 400),
        ("DELETE", &format!("{play}/ports/x"), "", 404),
        ("GET", "/api/playgrounds/docker", "", 404),
        ("GET", "/login/guess", "", 404),
        ("POST", "/api/sessions", "", 404),
    ] {
        assert_eq!(platform.status_of(method, path, body).await, status, "{method} {path}");
    }
    let port = platform.send("POST", &format!("{play}/ports"), r#"{"machine":"shell-01","number":8080}"#).await;
    let port: serde_json::Value = serde_json::from_slice(&port.body).unwrap();
    assert_eq!((&port["url"], &port["access"]), (&"http://localhost:8080".into(), &"private".into()));
    let path = format!("{play}/ports/{}", port["id"].as_str().unwrap());
    assert_eq!(platform.status_of("DELETE", &path, "").await, 204);
    assert_eq!(platform.labs.catalog().await.unwrap().len(), 6);
    assert_eq!(platform.labs.catalog_entry("duo").await.unwrap().machines.len(), 2);
    assert_eq!(platform.labs.me().await.unwrap().id, "local");
    platform.end().await;
}

/// Sends raw bytes to a port. Returns the status and the whole answer.
async fn raw(port: u16, head: &str, body: &str) -> (u16, String) {
    let mut tcp = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let length = body.len();
    let request = format!("{head}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}");
    tcp.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    tcp.read_to_string(&mut answer).await.unwrap();
    (answer[9..12].parse().unwrap(), answer)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_a_port_it_takes_credentials_and_the_right_name() {
    let public = Some("https://labs.test:8443/".to_owned());
    let listen = Some("127.0.0.1:0".parse().unwrap());
    let mut platform = Platform::start(Options { listen, public_url: public, ..quick() }).await;
    let port = start::status(&platform.folders).await.unwrap().unwrap().listen.unwrap().port();
    let own = local::credentials(&platform.folders.local()).unwrap();
    let mode = fs::metadata(platform.folders.local().join("credentials.json")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let basic =
        |id: &str, token: &str| format!("Authorization: Basic {}", BASE64_STANDARD.encode(format!("{id}:{token}")));
    let me = "GET /api/auth/me HTTP/1.1\r\nHost: ";
    let auth = basic(&own.id, &own.access_token);
    for (head, status) in [
        (format!("{me}127.0.0.1:{port}"), 401),
        (format!("{me}127.0.0.1:{port}\r\n{}", basic(&own.id, "guess")), 401),
        (format!("{me}127.0.0.1:{port}\r\n{auth}"), 200),
        (format!("{me}labs.test:8443\r\n{auth}"), 200),
        (format!("{me}labs.test\r\nOrigin: https://cli.labs.test:8443\r\n{auth}"), 200),
        (format!("{me}evil.test\r\n{auth}"), 403),
        (format!("{me}labs.test\r\nOrigin: https://labs.test:8443\r\n{auth}"), 403),
        (format!("{me}localhost\r\nOrigin: null\r\n{auth}"), 403),
        (format!("GET /local/status HTTP/1.1\r\nHost: localhost\r\n{auth}"), 404),
        (format!("POST /local/stop HTTP/1.1\r\nHost: localhost\r\n{auth}"), 404),
        ("GET /tunnels/OjIy HTTP/1.1\r\nHost: localhost".into(), 401),
    ] {
        assert_eq!(raw(port, &head, "").await.0, status, "{head}");
    }

    // A login, confirmed by a client with the platform's own credentials.
    let (status, answer) = raw(port, "POST /api/sessions HTTP/1.1\r\nHost: localhost", "").await;
    assert_eq!(status, 200);
    let session: serde_json::Value = serde_json::from_str(answer.split("\r\n\r\n").nth(1).unwrap()).unwrap();
    let text = |key: &str| session[key].as_str().unwrap().to_owned();
    let (id, its) = (text("id"), basic(&text("id"), &text("accessToken")));
    let page = text("authUrl").strip_prefix("https://labs.test:8443").unwrap().to_owned();
    let look = format!("GET /api/sessions/{id} HTTP/1.1\r\nHost: localhost\r\n{its}");
    assert!(raw(port, &look, "").await.1.contains(r#""authenticated":false"#));
    assert_eq!(raw(port, &format!("{me}localhost\r\n{its}"), "").await.0, 401);
    let confirm = format!("GET {page} HTTP/1.1\r\nHost: localhost");
    assert_eq!(raw(port, &confirm, "").await.0, 401);
    assert_eq!(raw(port, &format!("{confirm}\r\n{its}"), "").await.0, 401, "not by itself");
    assert_eq!(raw(port, &format!("{confirm}\r\nSec-Fetch-Site: cross-site\r\n{auth}"), "").await.0, 403);
    assert_eq!(raw(port, &format!("{confirm}\r\n{auth}"), "").await.0, 200);
    assert!(raw(port, &look, "").await.1.contains(r#""authenticated":true"#));
    assert_eq!(raw(port, &format!("{me}localhost\r\n{its}"), "").await.0, 200);
    let out = format!("DELETE /api/sessions/{id} HTTP/1.1\r\nHost: localhost\r\n{its}");
    assert_eq!(raw(port, &out, "").await.0, 204);
    assert_eq!(raw(port, &look, "").await.0, 401);

    // A tunnel as labctl opens it: with the login URL and the cookie instead of credentials.
    let (_, answer) =
        raw(port, &format!("POST /api/plays HTTP/1.1\r\nHost: localhost\r\n{auth}"), r#"{"playground":"shell"}"#).await;
    let play: Play = serde_json::from_str(answer.split("\r\n\r\n").nth(1).unwrap()).unwrap();
    assert_eq!(play.page_url, format!("https://labs.test:8443/plays/{}", play.id));
    let wish = serde_json::to_string(&StartTunnel::default()).unwrap();
    let (_, answer) =
        raw(port, &format!("POST /api/plays/{}/tunnels HTTP/1.1\r\nHost: localhost\r\n{auth}", play.id), &wish).await;
    let tunnel: serde_json::Value = serde_json::from_str(answer.split("\r\n\r\n").nth(1).unwrap()).unwrap();
    assert_eq!(tunnel["url"], "https://labs.test:8443");
    let login = tunnel["loginUrl"].as_str().unwrap().strip_prefix("https://labs.test:8443").unwrap();
    let (status, answer) = raw(port, &format!("GET {login} HTTP/1.1\r\nHost: labs.test:8443"), "").await;
    assert_eq!(status, 200);
    let (_, cookie) = answer.split_once(".ixcondsess=").unwrap();
    let (token, flags) = cookie.split_once(';').unwrap();
    assert!(flags.contains("HttpOnly") && flags.contains("Secure"), "{flags}");
    let mut tcp = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let head = format!(
        "GET /tunnels/{} HTTP/1.1\r\nHost: labs.test:8443\r\nCookie: .ixcondsess={token}\r\nConnection: keep-alive, Upgrade\r\n\
         Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        BASE64_STANDARD.encode(":22")
    );
    tcp.write_all(head.as_bytes()).await.unwrap();
    let mut seen = Vec::new();
    while !seen.windows(8).any(|window| window == b"SSH-2.0-") {
        assert!(tcp.read_buf(&mut seen).await.unwrap() > 0, "{}", String::from_utf8_lossy(&seen));
    }
    let seen = String::from_utf8_lossy(&seen);
    assert!(seen.starts_with("HTTP/1.1 101") && seen.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{seen}");
    platform.end().await;

    let error = serve(
        &platform.folders,
        Options { listen: Some("0.0.0.0:0".parse().unwrap()), ..quick() },
        std::future::pending(),
    );
    assert_eq!(error.await.unwrap_err().kind(), Kind::Usage);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_at_once_find_the_same_world() {
    static DONE: AtomicUsize = AtomicUsize::new(0);
    let mut platform = Platform::start(quick()).await;
    let id = platform.create("shell").await.id;
    platform.ready(&id).await;
    let port = echo_server().await;
    let mut clients = tokio::task::JoinSet::new();
    for i in 0..100u8 {
        let (labs, id) = (Labs::embedded(Dialer::socket(platform.folders.socket())), id.clone());
        clients.spawn(async move {
            let started = labs.start_tunnel(&id, "shell-01", "", "").await.unwrap();
            let session = labs.log_into_tunnel(&started).await.unwrap();
            let mut tunnel = labs.dial(&session, &format!(":{port}")).await.unwrap();
            let data = vec![i; 100_000];
            let (mut rx, mut tx) = tokio::io::split(&mut tunnel);
            let mut back = vec![0; data.len()];
            let (sent, got) = tokio::join!(tx.write_all(&data), rx.read_exact(&mut back));
            sent.unwrap();
            got.unwrap();
            assert!(back == data);
            DONE.fetch_add(1, Ordering::Relaxed);
        });
    }
    while let Some(ended) = clients.join_next().await {
        ended.unwrap();
    }
    assert_eq!(DONE.load(Ordering::Relaxed), 100);
    // A stray silent connection does not delay the end.
    let _silent = UnixStream::connect(platform.folders.socket()).await.unwrap();
    platform.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn eight_processes_at_once_start_one_platform() {
    let (home, folders) = folders();
    let program = PathBuf::from(env!("CARGO_BIN_EXE_labctl-ssh-proxy"));
    let run = |args: &[&str]| {
        let mut command = tokio::process::Command::new(&program);
        command.args(args).env_clear().env("HOME", home.path()).env("LABCTL_SSH_PROXY_HOME", &folders.root);
        async move { command.output().await.unwrap() }
    };
    // The output ends, although the platform that the command may have started goes on.
    let all = futures_util::future::join_all((0..8).map(|_| run(&["--local", "list", "--json"]))).await;
    for output in all {
        assert!(output.status.success(), "{output:?}");
    }
    let status = start::status(&folders).await.unwrap().unwrap();
    assert_ne!(status.pid, std::process::id());
    // A killed platform leaves a dead socket. The next command starts a new platform.
    let killed = tokio::process::Command::new("kill").args(["-KILL", &status.pid.to_string()]).status().await.unwrap();
    assert!(killed.success());
    while start::status(&folders).await.ok().flatten().is_some() {
        tokio::task::yield_now().await;
    }
    assert!(folders.socket().exists());
    assert!(run(&["--local", "list"]).await.status.success());
    let next = start::status(&folders).await.unwrap().unwrap();
    assert_ne!(next.pid, status.pid);
    assert!(run(&["local", "stop"]).await.status.success());
    assert_eq!(start::status(&folders).await.unwrap(), None);

    // The command that needs the platform reports its damaged state.
    let record = folders.local().join("plays/0123456789abcdef01234567/play.json");
    fs::create_dir_all(record.parent().unwrap()).unwrap();
    fs::write(&record, "{").unwrap();
    let output = run(&["--local", "list"]).await;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("play.json is damaged"), "{said}");
}
