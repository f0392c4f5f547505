//! The way into a container: an SSH connection of our own to its machine, as root, and through it the server that the
//! helper starts in the container.
//!
//! ```text
//! ssh <-stdio-> connect: greet, pipe <-> Inside = channel of SshClient <-> Session <=> sshd, helper, runc <-> serve
//! ```
//!
//! Up to the tunnel all is as for the machine, and its kept session is the one of `root@<machine>`. The host key is
//! known before the server starts, because we give it to it: its line stands in known hosts before ssh looks there, and
//! a server that shows another ends the connection.

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use helper::wire::{CONTAINER_USER, Container, Request, View};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::OnceCell,
    time::{sleep, timeout},
};

use super::{Connection, Destination, Stop, editor, ending, opening::NotOpened, policy, relay};
use crate::{
    connect::{
        client::Client,
        greet::{Greeted, KeyCheck, greet},
    },
    error::{Error, Kind, Result},
    hold::Session,
    inside::{self, Inside, Outside},
    labs::vitals::Vitals,
    pipe::End,
    ssh::{
        client::{Login, SshClient},
        credentials::{Credentials, KeyOptions},
        first_words::{Heard, first_word},
        known_hosts::Whose,
    },
    ssh_config::client::Ssh,
    target::{self, PodName, Target, keyed},
    ui::input,
};

/// The user of the machine who may enter its containers.
pub(super) const MACHINE_USER: &str = "root";
/// An SSH server speaks first and at once: as in `greet`.
const FIRST_WORD: Duration = Duration::from_secs(10);
/// The time for a person to give the passphrase of a key.
const PASSPHRASE: Duration = Duration::from_secs(120);
/// The time that the machine has to say how its container has ended.
const EXPLANATION: Duration = Duration::from_millis(700);
/// Between two looks at a container whose engine has not noticed its end yet.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// The purpose of our own SSH client on a machine.
pub(super) struct Wanted {
    what: What,
    /// The user inside.
    user: String,
    credentials: OnceCell<Credentials>,
}

enum What {
    /// The API of its cluster.
    Cluster,
    /// A container.
    Container {
        /// The label by which the helper is asked for it: the one in the host name, or its id.
        label: String,
        /// Its pod, as the host name calls it.
        pod: Option<PodName>,
    },
}

impl Wanted {
    /// The container that the machine knows by this label. `pod` is the name by which the host name calls it, where that
    /// is a pod's.
    pub(super) fn container(connection: &Connection<'_>, label: String, pod: Option<PodName>) -> Result<Wanted> {
        Wanted::new(connection, What::Container { label, pod })
    }

    /// The API of a cluster.
    pub(super) fn cluster(connection: &Connection<'_>) -> Result<Wanted> {
        Wanted::new(connection, What::Cluster)
    }

    fn new(connection: &Connection<'_>, what: What) -> Result<Wanted> {
        let user = target::user(connection.request.user.as_deref())?.unwrap_or(CONTAINER_USER).to_owned();
        Ok(Wanted { what, user, credentials: OnceCell::new() })
    }

    /// Takes over the keys that have been looked for, because a passphrase is asked for once.
    pub(super) fn with_keys_of(mut self, before: Option<Wanted>) -> Wanted {
        if let Some(before) = before {
            self.credentials = before.credentials;
        }
        self
    }

    /// The user inside.
    pub(super) fn user(&self) -> &str {
        &self.user
    }

    /// True on the way to the API of a cluster.
    pub(super) fn is_cluster(&self) -> bool {
        matches!(self.what, What::Cluster)
    }

    /// The keys that open the machine. They are looked for once.
    pub(super) async fn credentials(&self, connection: &Connection<'_>) -> Result<&Credentials> {
        self.credentials.get_or_try_init(|| credentials(connection)).await
    }
}

/// The keys of the connection to the machine: those that need no question, or else those that ssh has.
async fn credentials(connection: &Connection<'_>) -> Result<Credentials> {
    let identity = connection.app.identity()?;
    if let Some(credentials) = Credentials::without_asking(&identity).await {
        return Ok(credentials);
    }
    if !policy::may_ask() {
        // ssh-add heeds it.
        input::forbid();
    }
    let find = async {
        let home = &connection.app.folders.home;
        let options = Ssh::system().key_options(&connection.machine_host, home).await.unwrap_or_else(|error| {
            log::warn!("the options of ssh for keys are not known: {}", error.message());
            KeyOptions::of_environment()
        });
        Credentials::find(&identity, &options).await
    };
    timeout(PASSPHRASE, find).await.unwrap_or_else(|_| {
        let path = identity.path.display();
        let message = format!("the key {path} was not unlocked within {} s", PASSPHRASE.as_secs());
        Err(Error::new(Kind::File, message).with_hint(format!("run `ssh-add {path}`, and connect again")))
    })
}

/// A server in a container that has answered.
pub(super) struct Entered {
    stream: Inside,
    vitals: Arc<Vitals>,
    is_held: bool,
    loss: Loss,
}

impl Entered {
    /// The figures of the session with the machine.
    pub(super) fn vitals(&self) -> Arc<Vitals> {
        Arc::clone(&self.vitals)
    }

    /// True if the session with the machine survives its connections.
    pub(super) fn is_held(&self) -> bool {
        self.is_held
    }

    /// That which says why the server has ended.
    pub(super) fn behind(&self) -> Behind {
        let container = self.stream.container();
        Behind { outside: self.stream.outside(), container: container.clone(), loss: self.loss.clone() }
    }

    pub(super) fn stream(&mut self) -> Pin<&mut Inside> {
        Pin::new(&mut self.stream)
    }
}

/// The machine of a server in a container, as long as it can be asked.
pub(super) struct Behind {
    outside: Outside,
    container: Container,
    loss: Loss,
}

/// An SSH connection of ours to a machine.
pub(super) struct Way {
    pub(super) ssh: SshClient,
    loss: Loss,
}

/// Logs in to the machine at the other end of `session`, as root.
pub(super) async fn log_in(
    connection: &Connection<'_>,
    client: &mut Client,
    destination: &Destination,
    session: Session,
) -> Result<Way, NotOpened> {
    let is_held = session.is_held();
    let Destination { play, machine, .. } = destination;
    let loss = Loss::default();
    // The machine of a cluster's API may be another than the default one.
    let of_play = || Target::of_play(play, Some(machine)).to_string();
    let wanted = connection.container.as_ref().ok_or_else(|| Error::new(Kind::Internal, "nothing is wanted there"))?;
    let login = Login {
        alias: if wanted.is_cluster() { of_play() } else { connection.machine_host.clone() },
        play: play.clone(),
        shown: destination.shown().to_owned(),
        machine: machine.clone(),
        user: MACHINE_USER.to_owned(),
    };
    let known_hosts = connection.app.known_hosts();
    let log_in = async {
        let unanswered = |why: &dyn std::fmt::Display| Error::new(Kind::NotYet, why.to_string());
        let watched = Watched { stream: session, loss: loss.clone() };
        let heard = timeout(FIRST_WORD, first_word(watched)).await;
        let heard = heard.map_err(|_| unanswered(&"there is no answer through the tunnel"))?;
        let heard: Heard<_> = heard.map_err(|error| unanswered(&error))?;
        connection.is_heard.set(true);
        SshClient::connect(heard, &known_hosts, &login, wanted.credentials(connection).await?).await
    };
    match connection.present(client, log_in).await? {
        Ok(ssh) => {
            connection.has_arrived.set(true);
            Ok(Way { ssh, loss })
        }
        Err(error) if matches!(error.kind(), Kind::HostKey | Kind::File) => Err(error.into()),
        Err(error) => Err(no_use(connection, destination, is_held, error)),
    }
}

fn no_use(connection: &Connection<'_>, destination: &Destination, is_held: bool, error: Error) -> NotOpened {
    if is_held {
        // Another program may have its port by now.
        relay::forget(connection, destination);
    }
    NotOpened::NoUse(error)
}

/// Logs in to the machine at the other end of `session`, starts the server in the container, and passes the first
/// exchange on.
pub(super) async fn attempt(
    connection: &Connection<'_>,
    client: &mut Client,
    destination: &Destination,
    wanted: &Wanted,
    session: Session,
) -> Result<Entered, NotOpened> {
    let (vitals, is_held) = (session.vitals(), session.is_held());
    let What::Container { label, pod } = &wanted.what else {
        return Err(Error::new(Kind::Internal, "no container is wanted").into());
    };
    let Way { ssh, loss } = log_in(connection, client, destination, session).await?;
    let Destination { play, machine, .. } = destination;
    let (place, called) = keyed(machine, label, pod.as_ref());
    let key = connection.app.seeds().host_key(play, place, &called)?;
    let inner = format!("{place}.{called}");
    let whose = Whose { alias: &connection.request.host, play, machine: &inner, shown: destination.shown() };
    let request = Request {
        container: label.clone(),
        user: wanted.user.clone(),
        host_key: key.seed,
        tools: connection.request.tools.clone().unwrap_or_default(),
        view: match connection.request.view {
            None | Some(View::Auto) if editor::is_one(client.line().as_deref()) => View::Auto,
            None | Some(View::Auto) => View::Never,
            Some(chosen) => chosen,
        },
    };
    let stream = match connection.present(client, inside::enter(ssh, &request, connection)).await? {
        Ok(stream) => stream,
        Err(error) if error.kind() == Kind::Network => return Err(no_use(connection, destination, is_held, error)),
        Err(error) => return Err(error.into()),
    };
    let mut entered = Entered { stream, vitals, is_held, loss };
    // A name of no container leaves no line.
    let known_hosts = connection.app.known_hosts();
    known_hosts.vouch(whose, &key.public)?;
    let check = KeyCheck::new(&known_hosts, whose).given(&key.public);
    match greet(client, &mut entered.stream, check, connection.early).await? {
        Greeted::Through(_) => Ok(entered),
        Greeted::Over(End::Input | End::Output) => Err(Stop::Left.into()),
        Greeted::Over(End::Remote | End::Lost(_)) | Greeted::Unanswered(_) | Greeted::AnotherLine(_) => {
            let behind = entered.behind();
            if let Some(Lost::Broken(error)) = behind.loss.take() {
                return Err(ending::lost(connection, destination, &error).into());
            }
            let error = connection.present(client, reason(destination, &behind)).await?;
            Err(error.unwrap_or_else(|| server_ended(destination, &behind, "")).into())
        }
    }
}

/// Asks the machine why the server in its container has ended. `None` where it cannot say.
pub(super) async fn reason(destination: &Destination, behind: &Behind) -> Option<Error> {
    let mut last = None;
    let look = async {
        loop {
            let client = behind.container.client();
            let containers = match inside::list_if_any(behind.outside.client()).await {
                Ok(Ok(listing)) => listing.containers,
                // It was the last one, and its engine is no Docker Engine.
                Ok(Err(_)) if client != "docker" => Vec::new(),
                Ok(Err(_)) | Err(_) => return None,
            };
            let Some(container) = containers.into_iter().find(|container| container.id == behind.container.id) else {
                let how = if behind.container.is_listed_stopped() { "has been removed" } else { "has ended" };
                return Some(container_ended(destination, behind, how, &format!("{client} ps")));
            };
            if container.state != "running" {
                let how = match container.status.as_str() {
                    "" => "has ended".to_owned(),
                    status => format!("has ended: {status}"),
                };
                let start = format!("{client} start {}", behind.container.to_copy());
                return Some(container_ended(destination, behind, &how, &start));
            }
            // The engine may be the last to notice.
            last = Some(container.status);
            sleep(LOOK_AGAIN).await;
        }
    };
    match timeout(EXPLANATION, look).await {
        Ok(answer) => answer,
        // The machine is busy, and yet it is the server in the container that has ended.
        Err(_elapsed) => Some(server_ended(destination, behind, &last.unwrap_or_default())),
    }
}

fn container_ended(destination: &Destination, behind: &Behind, how: &str, now: &str) -> Error {
    let (name, host) = (behind.name(), &behind.outside.client().login().alias);
    let (machine, shown) = (&destination.machine, destination.shown());
    let user = behind.container.user_of_client();
    Error::new(Kind::Ended, format!("container {name} of machine {machine} of playground {shown} {how}"))
        .with_hint(format!("run `labctl-ssh-proxy ssh {user}{host} {now}`, and connect again"))
}

/// The error for a server that has ended in a container that still runs, as far as the machine says.
fn server_ended(destination: &Destination, behind: &Behind, status: &str) -> Error {
    let complaint = behind.outside.complaint();
    let why = match (&complaint[..], status) {
        ("", "") => String::new(),
        ("", status) => format!(" (the container: {status})"),
        (complaint, _) => format!(": {complaint}"),
    };
    let (name, machine, shown) = (behind.name(), &destination.machine, destination.shown());
    let message =
        format!("the SSH server in container {name} of machine {machine} of playground {shown} has ended{why}");
    Error::new(Kind::Network, message).with_hint("connect again")
}

impl Behind {
    /// The container's name.
    pub(super) fn name(&self) -> &str {
        &self.container.name
    }

    /// The end of the stream in the terms of a machine's: the end of the session with the machine is the reason where
    /// there was one.
    pub(super) fn end(&self, end: End) -> End {
        match (end, self.loss.take()) {
            (End::Lost(_), Some(Lost::Ended)) => End::Remote,
            (End::Lost(_), Some(Lost::Broken(error))) => End::Lost(error),
            (end, _) => end,
        }
    }
}

/// The end of the session with the machine, which our SSH client does not pass on.
#[derive(Clone, Default)]
struct Loss(Arc<Mutex<Option<Lost>>>);

enum Lost {
    Ended,
    Broken(io::Error),
}

impl Loss {
    fn note(&self, lost: Lost) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(lost);
    }

    fn take(&self) -> Option<Lost> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// A session whose end is noted.
struct Watched {
    stream: Session,
    loss: Loss,
}

impl Watched {
    /// Notes a failure, and returns one of the same kind, because an error cannot be cloned.
    fn noted<T>(&self, done: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        done.map_err(|error| {
            let (kind, text) = (error.kind(), error.to_string());
            self.loss.note(Lost::Broken(error));
            io::Error::new(kind, text)
        })
    }
}

impl AsyncRead for Watched {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let done = Pin::new(&mut self.stream).poll_read(cx, buf);
        if matches!(done, Poll::Ready(Ok(()))) && buf.filled().len() == before {
            self.loss.note(Lost::Ended);
        }
        self.noted(done)
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let done = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.noted(done)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let done = Pin::new(&mut self.stream).poll_flush(cx);
        self.noted(done)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let done = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.noted(done)
    }
}
