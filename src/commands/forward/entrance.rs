//! The way into a container, which all forwards of `--in` share: one SSH connection to the server there, over one to the
//! machine.
//!
//! It is made again by the first forward that needs it after its end. By then the container of that name may be another
//! one, or the same in another run. The server listens and connects within the container, so a container without a
//! network has these forwards, too.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use helper::wire::{CONTAINER_USER, Container, Request, Tools, View};
use tokio::{
    io::{self, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, duplex},
    sync::{Mutex, mpsc, watch},
    task::JoinSet,
    time::{Instant, sleep},
};

use super::{
    board::Board,
    spec::{Bind, Endpoint, Listen},
    way::Way,
};
use crate::{
    app::App,
    cluster::{api::Api, find as in_cluster},
    error::{Error, Kind, Result, printable},
    inside::{self, Outside},
    records::seeds::Seeds,
    ssh::{
        client::{Forwarded, Login, SshClient, SshStream},
        known_hosts::KnownHosts,
    },
    target::{POD, PodName, Target, host_port, keyed},
    ui::notice::Progress,
};

/// The time for which a forwarded connection waits for a container that has ended: a restart takes no longer.
const RESTART: Duration = Duration::from_secs(10);
/// The same for a listener, which is opened again by the patience of all listeners.
pub(super) const AT_ONCE: Duration = Duration::ZERO;
/// Pause between two looks at it.
const LOOK: Duration = Duration::from_millis(500);
/// Number of connections to a listener that wait to be taken up.
const QUEUE: usize = 64;
/// The bytes that are kept for a program here that does not read. From then on it holds up those that share its SSH
/// connection, because russh waits for a full channel with the whole connection; those that come get another one.
const KEPT: usize = 16 * 1024 * 1024;
/// The size of one read.
const READ_SIZE: usize = 32 * 1024;

/// The container, and the SSH connection into it.
pub(crate) struct Entrance {
    which: Which,
    seeds: Seeds,
    known_hosts: KnownHosts,
    board: Arc<Board>,
    state: Mutex<State>,
}

/// The container.
enum Which {
    /// The one that host names call so.
    Label(String),
    /// The one that a pod has at the time.
    Pod(OfPod),
}

/// A pod, and the way to the cluster that knows its container.
pub(crate) struct OfPod {
    /// Its name.
    pub(crate) name: PodName,
    /// The way to the machine that has the kubeconfig, as root.
    pub(crate) cluster: Box<Way>,
    /// The user of that machine.
    pub(crate) user: String,
    /// Its node when all began.
    pub(crate) node: String,
    /// The container's id there, until it has been asked for once.
    pub(crate) first: Mutex<Option<String>>,
}

#[derive(Default)]
struct State {
    joint: Option<Arc<Joint>>,
    /// The last failure, for those that have waited meanwhile.
    failed: Option<(Instant, Error)>,
}

/// One SSH connection into the container.
pub(crate) struct Joint {
    client: SshClient,
    /// The queues of its listeners, by the address that was asked for.
    listeners: Arc<Mutex<HashMap<String, mpsc::Sender<SshStream>>>>,
    is_held_up: Arc<AtomicBool>,
    over: watch::Receiver<bool>,
    _dispatch: JoinSet<()>,
}

/// A listener in the container.
pub(crate) struct Listening {
    joint: Arc<Joint>,
    queue: mpsc::Receiver<SshStream>,
}

/// A stream through a [`Joint`], and the task that empties it.
pub(crate) struct Shared<S> {
    /// The stream.
    pub stream: S,
    /// The task, which ends when this is dropped.
    pub pump: JoinSet<()>,
}

impl Entrance {
    /// The entrance to the container that host names call `label`. Connects to nothing yet.
    pub(crate) fn new(app: &App, label: &str, board: &Arc<Board>) -> Entrance {
        Entrance::into(app, Which::Label(label.to_owned()), board)
    }

    /// The entrance to the container of a pod, which may be another each time.
    pub(crate) fn of_pod(app: &App, pod: OfPod, board: &Arc<Board>) -> Entrance {
        Entrance::into(app, Which::Pod(pod), board)
    }

    fn into(app: &App, which: Which, board: &Arc<Board>) -> Entrance {
        Entrance {
            which,
            seeds: app.seeds(),
            known_hosts: app.known_hosts(),
            board: Arc::clone(board),
            state: Mutex::default(),
        }
    }

    /// The container's label, or the labels of its pod.
    pub(crate) fn label(&self) -> String {
        match &self.which {
            Which::Label(label) => label.clone(),
            Which::Pod(pod) => format!("{POD}.{}", pod.name),
        }
    }

    /// The words for it.
    pub(crate) fn subject(&self) -> String {
        match &self.which {
            Which::Label(label) => format!("container {label}"),
            Which::Pod(pod) => format!("pod {}", pod.name),
        }
    }

    /// The label or id by which the machine knows the container.
    async fn known_as(&self, progress: &impl Progress) -> Result<String> {
        let OfPod { name, cluster, user, node, first } = match &self.which {
            Which::Label(label) => return Ok(label.clone()),
            Which::Pod(pod) => pod,
        };
        if let Some(id) = first.lock().await.take() {
            return Ok(id);
        }
        progress.waiting(&format!("looking for pod {name} in its cluster"));
        let api = Api::open(cluster.ssh().await?, user).await?;
        let place = in_cluster::container(&api, name).await;
        api.into_ssh().close().await;
        let place = place?;
        if place.node != *node {
            let message = format!("pod {name} is on node {} now", place.node);
            return Err(Error::new(Kind::NotWoken, message).with_hint("run the command again"));
        }
        Ok(place.id)
    }

    /// Connects for the first time, and says at once what is in the way.
    ///
    /// # Errors
    /// As [`Way::ssh`] and [`inside::enter`].
    pub(crate) async fn begin(&self, way: &Way, progress: &impl Progress) -> Result<()> {
        let joint = self.enter(way.ssh().await?, progress, true).await?;
        self.state.lock().await.joint = Some(Arc::new(joint));
        Ok(())
    }

    /// The connection that all share. One that is lost is made again, which waits for a container that restarts.
    /// `patience` is for that.
    ///
    /// # Errors
    /// As [`Way::ssh`]; [`Kind::NotWoken`] for a container that does not run or is gone, which may come back.
    pub(crate) async fn joint(&self, way: &Way, patience: Duration) -> Result<Arc<Joint>> {
        let asked = Instant::now();
        let mut state = self.state.lock().await;
        match &*state {
            State { joint: Some(joint), .. } if joint.serves() => return Ok(Arc::clone(joint)),
            State { failed: Some((at, error)), .. } if *at > asked => return Err(error.clone()),
            _ => {}
        }
        state.joint = None;
        let entered = async {
            loop {
                // The machine has its own patience.
                let ssh = way.ssh().await?;
                match self.enter(ssh, &*self.board, false).await {
                    Err(error) if error.kind() == Kind::NotWoken && asked.elapsed() < patience => sleep(LOOK).await,
                    entered => return entered,
                }
            }
        };
        let joint = Arc::new(entered.await.inspect_err(|error| state.failed = Some((Instant::now(), error.clone())))?);
        state.joint = Some(Arc::clone(&joint));
        Ok(joint)
    }

    /// Connects to a destination, as the container sees it. Also returns the connection that carries the stream.
    ///
    /// # Errors
    /// As [`Entrance::joint`] and [`SshClient::connect_tcp`].
    pub(crate) async fn connect(
        &self,
        way: &Way,
        to: &Endpoint,
    ) -> Result<(Arc<Joint>, Shared<impl AsyncRead + AsyncWrite + Unpin + use<>>)> {
        let joint = self.joint(way, RESTART).await?;
        match joint.connect(to).await {
            // Its end is noticed only now.
            Err(_) if joint.has_ended() => {
                let joint = self.joint(way, RESTART).await?;
                let stream = joint.connect(to).await?;
                Ok((joint, stream))
            }
            stream => Ok((joint, stream?)),
        }
    }

    async fn enter(&self, ssh: SshClient, progress: &impl Progress, is_first: bool) -> Result<Joint> {
        let machine = ssh.login().clone();
        // For a playground this would be final. A pod or a container of that name may come again.
        let again = |error: Error| match (error.kind(), error.hint()) {
            (Kind::NotFound, hint) if !is_first => {
                Error::new(Kind::NotWoken, error.message()).with_hint(hint.unwrap_or("it may come again"))
            }
            _ => error,
        };
        let container = self.known_as(progress).await.map_err(again)?;
        let (place, called) = match &self.which {
            Which::Label(label) => keyed(&machine.machine, label, None),
            Which::Pod(pod) => keyed(&machine.machine, "", Some(&pod.name)),
        };
        let key = self.seeds.host_key(&machine.play, place, &called)?;
        let request = Request {
            container,
            user: CONTAINER_USER.to_owned(),
            host_key: key.seed,
            // No program runs there.
            tools: Tools::None,
            view: View::Never,
        };
        let stream = inside::enter(ssh, &request, progress).await.map_err(again)?;
        let login = Login {
            alias: format!("{}.{place}.{called}", Target::of_play(&machine.play, None)),
            machine: format!("{place}.{called}"),
            user: CONTAINER_USER.to_owned(),
            ..machine
        };
        self.known_hosts.vouch(login.whose(), &key.public)?;
        let (outside, container) = (stream.outside(), stream.container().clone());
        let mut client = SshClient::enter(stream, &self.known_hosts, &login).await?;
        let (forwarded, listeners) = (client.take_forwarded(), Arc::default());
        let (ended, over) = watch::channel(false);
        let (queues, board) = (Arc::clone(&listeners), Arc::clone(&self.board));
        let mut dispatch = JoinSet::new();
        dispatch.spawn(async move {
            pass_on(forwarded, &queues).await;
            queues.lock().await.clear();
            ended.send_replace(true);
            board.problem(&why_ended(&outside, &container).await);
        });
        Ok(Joint { client, listeners, is_held_up: Arc::default(), over, _dispatch: dispatch })
    }
}

/// Passes connections on to the queues of their listeners, until the SSH connection ends.
async fn pass_on(
    mut forwarded: mpsc::Receiver<Forwarded>,
    listeners: &Mutex<HashMap<String, mpsc::Sender<SshStream>>>,
) {
    while let Some(Forwarded { listener, stream }) = forwarded.recv().await {
        if let Some(queue) = listeners.lock().await.get(&listener) {
            // One for which there is no room is closed.
            let _ = queue.try_send(stream);
        }
    }
}

/// The words for the end of the server in the container: the container's own end, if the machine says so.
async fn why_ended(outside: &Outside, container: &Container) -> String {
    let login = outside.client().login();
    let subject = format!("container {} of machine {} of playground {}", container.name, login.machine, login.shown);
    let until = Instant::now() + Duration::from_secs(1);
    while let Ok(listing) = inside::list(outside.client()).await {
        match listing.containers.iter().find(|one| one.id == container.id) {
            None if container.is_listed_stopped() => {
                return printable(&format!("{subject} has been removed"));
            }
            None => return printable(&format!("{subject} has ended")),
            Some(one) if one.state != "running" && one.status.is_empty() => {
                return printable(&format!("{subject} has ended"));
            }
            Some(one) if one.state != "running" => {
                return printable(&format!("{subject} has ended: {}", one.status));
            }
            // The engine may be the last to notice.
            Some(_) if Instant::now() < until => sleep(LOOK / 5).await,
            Some(_) => break,
        }
    }
    let why = Some(outside.complaint()).filter(|words| !words.is_empty());
    let why = why.map(|words| format!(": {words}")).unwrap_or_default();
    printable(&format!("the connection into {subject} was lost{why}"))
}

impl Joint {
    /// True if a new stream has its way.
    fn serves(&self) -> bool {
        !self.client.has_ended() && !*self.over.borrow() && !self.is_held_up.load(Ordering::Relaxed)
    }

    /// Waits until the connection has ended.
    pub(crate) async fn over(&self) {
        // An error is the end of the task that says so.
        let _ = self.over.clone().wait_for(|over| *over).await;
    }

    /// True if it has ended.
    pub(crate) fn has_ended(&self) -> bool {
        self.client.has_ended()
    }

    async fn connect(&self, to: &Endpoint) -> Result<Shared<impl AsyncRead + AsyncWrite + Unpin + use<>>> {
        let stream = match to {
            Endpoint::Port(host, port) => self.client.connect_tcp(host, *port).await?,
            Endpoint::Socket(path) => self.client.connect_unix(path).await?,
        };
        Ok(self.shared(stream))
    }

    /// Listens in the container. Also returns the address, with the actual port.
    ///
    /// # Errors
    /// As [`SshClient::listen_tcp`].
    pub(crate) async fn listen(self: Arc<Self>, listen: &Listen) -> Result<(Listening, String)> {
        let (sender, queue) = mpsc::channel(QUEUE);
        // A connection that comes meanwhile waits for its queue.
        let mut listeners = self.listeners.lock().await;
        let (listener, address) = match listen {
            Listen::Port(bind, port) => {
                let host = if let Bind::Host(host) = bind { host.as_str() } else { "localhost" };
                let port = self.client.listen_tcp(host, *port).await?;
                (format!("{host}:{port}"), host_port(if host == "localhost" { "127.0.0.1" } else { host }, port))
            }
            Listen::Socket(path) => {
                self.client.listen_unix(path).await?;
                (path.clone(), path.clone())
            }
        };
        listeners.insert(listener, sender);
        drop(listeners);
        Ok((Listening { joint: self, queue }, address))
    }

    /// Keeps what comes for a program that does not read, so that the others go on.
    fn shared(&self, stream: SshStream) -> Shared<impl AsyncRead + AsyncWrite + Unpin + use<>> {
        let (mut far, writer) = io::split(stream);
        let (near, mut kept) = duplex(KEPT);
        let is_held_up = Arc::clone(&self.is_held_up);
        let mut pump = JoinSet::new();
        pump.spawn(async move {
            let mut bytes = vec![0; READ_SIZE];
            while let Ok(read @ 1..) = far.read(&mut bytes).await {
                let writing = kept.write_all(&bytes[..read]);
                tokio::pin!(writing);
                let written = tokio::select! {
                    biased;
                    written = &mut writing => written,
                    () = std::future::ready(()) => {
                        is_held_up.store(true, Ordering::Relaxed);
                        writing.await
                    }
                };
                if written.is_err() {
                    return;
                }
            }
            // The end of file follows what is kept.
            let _ = kept.shutdown().await;
        });
        Shared { stream: io::join(near, writer), pump }
    }
}

impl Listening {
    /// The next connection; `None` when the SSH connection has ended.
    pub(crate) async fn next(&mut self) -> Option<Shared<impl AsyncRead + AsyncWrite + Unpin + use<>>> {
        let stream = self.queue.recv().await?;
        Some(self.joint.shared(stream))
    }
}

/// Refuses listeners that the server in a container does not have: it listens on loopback addresses and for TCP.
///
/// # Errors
/// [`Kind::Usage`] with the reason.
pub(crate) fn check(listen: &Listen, spec: &str) -> Result<()> {
    match listen {
        Listen::Port(Bind::All, _) => {}
        Listen::Port(Bind::Host(host), _) if !host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback()) => {}
        Listen::Port(..) | Listen::Socket(_) => return Ok(()),
    }
    let message = format!("-R {spec}: in a container, only programs of the container itself reach the port");
    Err(Error::new(Kind::Usage, message).with_hint("leave out the address before the port"))
}
