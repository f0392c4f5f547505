//! `listen`: a loopback address for one host, for programs that know no ProxyCommand.
//!
//! Each connection gets a `connect` of its own, with the socket as its standard input and output: the same policy, host
//! keys and errors. It is begun only for a program of this user that has spoken SSH first (`caller`), so that no web page
//! and no port scan wakes a playground. `service` has the system keep a listener.

mod caller;
pub(crate) mod service;

use std::{
    convert::Infallible,
    ffi::OsString,
    io,
    net::Ipv4Addr,
    path::PathBuf,
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use clap_complete::ArgValueCompleter;
use serde::Serialize;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    net::{TcpListener, TcpStream},
    process::{Child, Command},
    sync::{Semaphore, watch},
    task::JoinSet,
    time::{sleep, timeout},
};

use crate::{
    app::App,
    commands::{
        candidates,
        forward::local::{not_bound, shown},
        playgrounds::entries::refresh_entries,
        visit::{self, Visit},
    },
    error::{Error, Kind, Result},
    files::Lock,
    labs::Labs,
    os::{self, Signals},
    platform::Platform,
    records::listeners::{self, Listener},
    ssh_config,
    target::{PREFIX, host_port, is_label},
    ui::{notice, out, stdio},
};

/// Connections at the same time. An editor opens two to four.
const MOST: usize = 16;
/// The reason to turn away another one.
const FULL: &str = "16 connections are open already";
/// Programs that have connected and not spoken yet. They take none of the other places.
const AT_THE_DOOR: usize = 64;
/// Pause before the next accept when the process has no file descriptors left.
const OUT_OF_DESCRIPTORS: Duration = Duration::from_millis(100);
/// Between two looks for the listener's record.
const LOOK: Duration = Duration::from_secs(2);
/// Time for the entry to go when the listener ends.
const REFRESH: Duration = Duration::from_secs(3);
/// Time for the last words of a connection that has ended, and for connections to end with the listener.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Listen on a port of this computer for one host, for programs that know no ProxyCommand, until Ctrl-C.
///
/// Programs find it by a name of its own, such as `playground-docker-listen`, which stands in the ssh configuration beside
/// your playgrounds. A connection wakes a stopped playground as one to the host itself does, but only once a program of
/// yours has spoken SSH.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The playground's id, host name, alias, title, catalogue name or page address, or the host name of a machine or a
    /// container; USER@ may stand before it.
    #[arg(value_name = "PLAYGROUND", add = ArgValueCompleter::new(candidates::hosts))]
    host: String,
    /// The port; by default the last one for this host, or a free one.
    #[arg(short, long, value_parser = clap::value_parser!(u16).range(1..))]
    port: Option<u16>,
    /// Have the system keep it, now and after each login: as a systemd user unit, or a launchd agent on macOS.
    #[arg(long)]
    install: bool,
    /// Take that back.
    #[arg(long, conflicts_with_all = ["install", "port"])]
    uninstall: bool,
    /// Print JSON, one line per event.
    #[arg(long)]
    json: bool,
}

/// A line of `listen --json`.
#[derive(Serialize)]
#[serde(tag = "event", rename_all = "lowercase")]
enum Line<'a> {
    /// Connections are taken.
    Listening {
        host: &'a str,
        name: &'a str,
        address: &'a str,
        #[serde(skip)]
        shown: &'a str,
    },
    /// A program has connected.
    Open { connection: u64, peer: &'a str },
    /// Its connection says something to people.
    Says { connection: u64, text: &'a str },
    /// Its connection has ended.
    Close { connection: u64 },
    /// A program was turned away.
    Refused { peer: &'a str, reason: &'a str },
    /// The system keeps the listener, or keeps it no more.
    Service {
        host: &'a str,
        name: &'a str,
        address: &'a str,
        file: String,
        installed: bool,
        #[serde(skip)]
        shown: &'a str,
    },
}

impl Line<'_> {
    /// The line for people.
    fn text(&self) -> String {
        match self {
            Line::Listening { address, shown, .. } => format!("Listening on {address} for {shown}."),
            Line::Open { connection, peer } => format!("[{connection}] {peer} has connected"),
            Line::Says { connection, text } => format!("[{connection}] {text}"),
            Line::Close { connection } => format!("[{connection}] closed"),
            Line::Refused { peer, reason } => format!("{peer} was refused: {reason}"),
            Line::Service { address, file, installed: true, shown, .. } => {
                format!("The system now listens on {address} for {shown}, and after each login: {file}")
            }
            Line::Service { file, shown, .. } => format!("The system no longer listens for {shown}: removed {file}"),
        }
    }

    fn json(&self) -> Result<()> {
        out::line(&serde_json::to_string(self).map_err(|e| Error::new(Kind::Internal, e.to_string()))?)
    }

    /// Tells it as an event of a listener at work.
    fn tell(&self, json: bool) {
        match json {
            // A reader that has left is noticed elsewhere.
            true => drop(self.json()),
            false => notice::line(&self.text()),
        }
    }
}

/// Listens until a signal comes; or installs the listener, or takes it back. Returns the exit code: 128 plus the signal's
/// number after a signal.
///
/// # Errors
/// [`Kind::Network`] when the port cannot be used, [`Kind::Usage`] when another process listens for the host or its name
/// is taken, and those of [`service`].
pub(crate) async fn run(app: &App, args: Args) -> Result<u8> {
    let is_local = app.platform == Platform::Local;
    // A host name that is on record needs no platform, which at the beginning of a login may be out of reach.
    let known = listeners::of(&app.folders, &args.host).filter(|known| known.local == is_local);
    if args.uninstall {
        let known = match known {
            Some(known) => known,
            None => match installed_as(app, &args.host) {
                Some(known) => known,
                None => meant(app, &app.labs().await?, &args.host).await?,
            },
        };
        return uninstall(app, known, args.json).await.map(|()| 0);
    }
    let mut signals = Signals::listen();
    let of_a_service = known
        .filter(|record| record.service.is_some() && !args.install && args.port.is_none_or(|port| port == record.port));
    if let Some(record) = of_a_service {
        let (listener, _lock) = open(app, Some(record.port), true, &record).await?;
        return serve(app, &record, listener, args.json, &mut signals).await;
    }
    let ended = tokio::select! {
        prepared = prepare(app, &args) => match prepared? {
            None => return Ok(0),
            Some((record, listener, _lock)) => serve(app, &record, listener, args.json, &mut signals).await,
        },
        signal = signals.next() => Ok(128 + signal),
    };
    // Takes the entry away. The next command does it otherwise, so nothing waits long for a network here, or for a second
    // Ctrl-C.
    let refreshed = timeout(REFRESH, async {
        if let Ok(labs) = app.labs().await {
            refresh_entries(app, &labs).await;
        }
    });
    tokio::select! { _ = refreshed => {}, _ = signals.next() => {} }
    ended
}

/// The installed listener of this title or name, whose playground may be gone.
fn installed_as(app: &App, name: &str) -> Option<Listener> {
    let is_local = app.platform == Platform::Local;
    let mut installed = listeners::all(&app.folders)
        .into_iter()
        .filter(|one| one.service.is_some() && one.local == is_local && (one.title == name || one.name() == name));
    installed.next().filter(|_| installed.next().is_none())
}

/// Opens the port, and writes the entry; or installs the listener, and returns `None`.
async fn prepare(app: &App, args: &Args) -> Result<Option<(Listener, TcpListener, Lock)>> {
    let labs = app.labs().await?;
    let mut record = meant(app, &labs, &args.host).await?;
    is_free(app, &labs, &record).await?;
    // The port of a service that runs is taken by itself.
    let is_renewed = args.install && record.service.is_some() && args.port.is_none_or(|port| port == record.port);
    if !is_renewed {
        let port = args.port.or(Some(record.port).filter(|port| *port > 0));
        let listener = bind(port, args.port.is_some()).await?;
        let address = listener.local_addr().map_err(|e| Error::new(Kind::Network, format!("cannot listen: {e}")))?;
        let last = std::mem::replace(&mut record.port, address.port());
        if args.port.is_none() && last > 0 && last != record.port {
            notice::line(&format!(
                "labctl-ssh-proxy: port {last} is taken: programs that have saved it need the new one"
            ));
        }
        if !args.install {
            let lock = lock(app, &record).await?;
            listeners::keep(&app.folders, &record)?;
            refresh_entries(app, &labs).await;
            return Ok(Some((record, listener, lock)));
        }
        if record.service.is_none() {
            drop(lock(app, &record).await?);
        }
    }
    let record = service::install(app, record).await?;
    refresh_entries(app, &labs).await;
    told(&record, true, args.json).map(|()| None)
}

/// The listener that an argument means: the one on record for its host, or a new one without a port.
async fn meant(app: &App, labs: &Labs, argument: &str) -> Result<Listener> {
    let place = visit::foresee(labs, &Visit { host: argument.to_owned(), ..Visit::default() }).await?;
    let local = app.platform == Platform::Local;
    // The same name may mean a playground of the other platform.
    let before = listeners::of(&app.folders, &place.host).filter(|before| before.local == local);
    let (port, service) = before.map_or((0, None), |before| (before.port, before.service));
    Ok(Listener { host: place.host, user: place.user, title: place.play.title, port, service, local })
}

/// Checks that nothing else has the name of the listener's entry.
async fn is_free(app: &App, labs: &Labs, record: &Listener) -> Result<()> {
    let name = record.name();
    let taken = |by: &str| {
        let message = format!("cannot listen for {}: the name {name} is {by}", record.shown());
        Err(Error::new(Kind::Usage, message).with_hint("end that one first, or name the playground by its id"))
    };
    if let Some(other) = listeners::all(&app.folders).into_iter().find(|other| other.name() == name) {
        if other.host != record.host {
            return taken(&format!("that of the listener for {}", other.shown()));
        }
        if other.local != record.local && listeners::is_active(&app.folders, &other) {
            return taken("that of a listener on the other platform");
        }
    }
    match name.strip_prefix(PREFIX).filter(|label| is_label(label)) {
        Some(label) => match labs.catalog_entry(label).await {
            Ok(_) => taken("that of a playground in the catalogue"),
            Err(error) if error.kind() == Kind::NotFound => Ok(()),
            Err(error) => Err(error),
        },
        None => Ok(()),
    }
}

/// Opens the port, and takes the lock of the host.
async fn open(app: &App, port: Option<u16>, is_asked: bool, record: &Listener) -> Result<(TcpListener, Lock)> {
    let lock = lock(app, record).await?;
    Ok((bind(port, is_asked).await?, lock))
}

async fn lock(app: &App, record: &Listener) -> Result<Lock> {
    listeners::try_lock(&app.folders, &record.host).await?.ok_or_else(|| {
        let message = format!("another process listens for {}", record.shown());
        Error::new(Kind::Usage, message).with_hint(format!("use `ssh {}`", record.name()))
    })
}

/// Opens the port. If the last one is taken, another one will do, unless it `is_asked` for.
async fn bind(port: Option<u16>, is_asked: bool) -> Result<TcpListener> {
    let bind = async |port: u16| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await;
    let port = port.unwrap_or(0);
    let bound = match bind(port).await {
        Err(_) if port > 0 && !is_asked => bind(0).await,
        bound => bound,
    };
    bound.map_err(|e| match e.kind() {
        io::ErrorKind::AddrInUse => not_bound(&host_port("127.0.0.1", port), &e)
            .with_hint("choose another port, or leave out --port for one that is free"),
        _ => not_bound(&host_port("127.0.0.1", port), &e),
    })
}

async fn uninstall(app: &App, record: Listener, json: bool) -> Result<()> {
    if record.service.is_none() {
        let message = format!("no service listens for {}", record.shown());
        return Err(Error::new(Kind::NotFound, message)
            .with_hint("`labctl-ssh-proxy uninstall --dry-run` lists all that are installed"));
    }
    let removed = service::remove(&record).await;
    if record.service.as_ref().is_some_and(|file| file.exists()) {
        return removed;
    }
    listeners::keep(&app.folders, &Listener { service: None, ..record.clone() })?;
    // The listener is gone in any case.
    if let Ok(labs) = app.labs().await {
        refresh_entries(app, &labs).await;
    }
    removed?;
    told(&record, false, json)
}

fn told(record: &Listener, installed: bool, json: bool) -> Result<()> {
    let (name, address) = (record.name(), host_port("127.0.0.1", record.port));
    let file = record.service.as_ref().map_or_else(String::new, |file| file.display().to_string());
    let shown = record.shown();
    let line = Line::Service { host: &record.host, name: &name, address: &address, file, installed, shown: &shown };
    if json { line.json() } else { out::line(&line.text()) }
}

/// Takes connections until a signal comes, or the reader of the JSON lines has gone.
async fn serve(app: &App, record: &Listener, listener: TcpListener, json: bool, signals: &mut Signals) -> Result<u8> {
    let (name, address) = (record.name(), host_port("127.0.0.1", record.port));
    Line::Listening { host: &record.host, name: &name, address: &address, shown: &record.shown() }.tell(json);
    if !json {
        let first = if ssh_config::is_managed(&app.folders) { "" } else { "`labctl-ssh-proxy config-ssh`, then " };
        notice::line(&format!("Connect with {first}`ssh {name}`."));
        notice::line("Press Ctrl-C to stop.");
    }
    let server = Arc::new(Server::new(app, record, json)?);
    let mut open = JoinSet::new();
    let code = tokio::select! {
        never = accept(&server, &listener, &mut open) => match never {},
        signal = signals.next() => 128 + signal,
        () = stdio::unread(), if json => 0,
        () = forgotten(app, record) => {
            let shown = record.shown();
            notice::line(&format!("labctl-ssh-proxy: the listener for {shown} has ended, because it was removed"));
            0
        }
    };
    drop(listener);
    if !server.is_outlived {
        server.end.send_replace(true);
        // One that takes longer is killed.
        let _ = timeout(LAST_WORDS, async { while open.join_next().await.is_some() {} }).await;
    }
    Ok(code)
}

/// Waits until the record of the listener was deleted, with its playground.
async fn forgotten(app: &App, record: &Listener) {
    while !listeners::is_forgotten(&app.folders, &record.host) {
        sleep(LOOK).await;
    }
}

/// Takes connections. Never returns.
async fn accept(server: &Arc<Server>, listener: &TcpListener, open: &mut JoinSet<()>) -> Infallible {
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => drop(open.spawn(Arc::clone(server).serve(stream, shown(peer)))),
                Err(_) => sleep(OUT_OF_DESCRIPTORS).await,
            },
            Some(_) = open.join_next() => {}
        }
    }
}

/// A listener at work.
struct Server {
    /// This program, and its words for one connection.
    program: PathBuf,
    words: Vec<OsString>,
    json: bool,
    /// True if connections go on when the listener ends, as a service does when it is renewed.
    is_outlived: bool,
    places: Semaphore,
    door: Semaphore,
    number: AtomicU64,
    /// Tells connections that the listener ends.
    end: watch::Sender<bool>,
}

impl Server {
    fn new(app: &App, record: &Listener, json: bool) -> Result<Server> {
        // There is no person to ask, whatever terminal the listener has.
        let mut words = service::global_words(app);
        words.extend(["connect", "--user", &record.user, &record.host].map(OsString::from));
        Ok(Server {
            program: ssh_config::program_path()?,
            words,
            json,
            is_outlived: record.service.is_some(),
            places: Semaphore::new(MOST),
            door: Semaphore::new(AT_THE_DOOR),
            number: AtomicU64::new(1),
            end: watch::Sender::new(false),
        })
    }

    /// Serves one program until its connection ends.
    async fn serve(self: Arc<Self>, stream: TcpStream, peer: String) {
        let refuse = |reason: &str| Line::Refused { peer: &peer, reason }.tell(self.json);
        let Ok(at_the_door) = self.door.try_acquire() else {
            return refuse("64 others have connected and said nothing");
        };
        if let Err(reason) = caller::is_own(&stream) {
            return refuse(reason);
        }
        if let Err(reason) = caller::speaks_ssh(&stream).await {
            return refuse(reason);
        }
        let Ok(_place) = self.places.try_acquire() else {
            refuse(FULL);
            return caller::turn_away(stream, FULL).await;
        };
        drop(at_the_door);
        let connection = self.number.fetch_add(1, Ordering::Relaxed);
        Line::Open { connection, peer: &peer }.tell(self.json);
        if let Err(error) = self.connect(stream, connection).await {
            Line::Says { connection, text: &format!("cannot start the connection: {error}") }.tell(self.json);
        }
        Line::Close { connection }.tell(self.json);
    }

    /// Runs the connection's own process, and passes on its words to people.
    async fn connect(&self, stream: TcpStream, connection: u64) -> io::Result<()> {
        let mut end = self.end.subscribe();
        if *end.borrow() {
            return Ok(());
        }
        let mut command = Command::new(&self.program);
        command.args(&self.words).stderr(Stdio::piped()).kill_on_drop(!self.is_outlived);
        let (mut child, rest) = start(command, stream)?;
        let stderr = child.stderr.take();
        let words = async {
            let Some(stderr) = stderr else { return };
            let mut lines = BufReader::new(stderr).lines();
            while let Ok(Some(text)) = lines.next_line().await {
                Line::Says { connection, text: &text }.tell(self.json);
            }
        };
        let carried = async { tokio::join!(words, rest) };
        tokio::pin!(carried);
        let mut is_asked = false;
        loop {
            tokio::select! {
                ended = child.wait() => {
                    let _ = timeout(LAST_WORDS, carried).await;
                    return ended.map(drop);
                }
                _ = &mut carried => return child.wait().await.map(drop),
                _ = end.changed(), if !is_asked => {
                    os::pass_on(os::TERMINATE, &child);
                    is_asked = true;
                }
            }
        }
    }
}

/// Starts a process with the socket as its standard input and output. Also returns what is left to do for it.
#[cfg(unix)]
fn start(mut command: Command, stream: TcpStream) -> io::Result<(Child, impl Future<Output = ()>)> {
    // Latency matters more than the number of packets.
    let _ = stream.set_nodelay(true);
    let socket = stream.into_std()?;
    socket.set_nonblocking(false)?;
    let socket = std::os::fd::OwnedFd::from(socket);
    let child = command.stdin(socket.try_clone()?).stdout(socket).spawn()?;
    Ok((child, std::future::ready(())))
}

/// Starts a process that is connected with the socket by pipes, because Windows' standard streams are no sockets.
#[cfg(not(unix))]
fn start(mut command: Command, stream: TcpStream) -> io::Result<(Child, impl Future<Output = ()>)> {
    let _ = stream.set_nodelay(true);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let (stdin, stdout) = child.stdin.take().zip(child.stdout.take()).ok_or(io::ErrorKind::BrokenPipe)?;
    let (input, output) = stream.into_split();
    let carried = async move { drop(crate::pipe::run(input, output, stdout, stdin, std::future::pending()).await) };
    Ok((child, carried))
}
