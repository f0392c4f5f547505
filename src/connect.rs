//! The ProxyCommand: one SSH connection, from the host name to the last byte.
//!
//! Read [`connect`] from top to bottom: it is the program.

use std::{cell::Cell, future::Future, time::Duration};

use clap::builder::FalseyValueParser;
use helper::wire::{Tools, View};
use tokio::time::Instant;

use crate::{
    app::App,
    cluster::reading,
    connect::{
        client::{Client, ClientKind},
        container::Wanted,
        early::{Early, Passed},
        opening::Attempt,
    },
    error::{Error, Kind, Result},
    labs::{
        Labs, TunnelSession, find,
        wire::{Machine, Play},
    },
    records::{
        listeners,
        live::Live,
        memory::Memory,
        tunnels::{About, Slot, Trial},
    },
    settings::{KEEP_VARIABLE, TOOLS_VARIABLE, VIEW_VARIABLE, WakePolicy},
    target::{self, Inside, Target},
    ui::notice::{Notices, Progress},
};

mod arrival;
mod away;
mod carried;
mod carry;
pub mod client;
mod container;
pub mod early;
mod editor;
mod ending;
pub(crate) mod greet;
mod length;
mod opening;
mod patience;
mod permission;
mod pods;
pub(crate) mod policy;
mod refusal;
mod relay;
mod upkeep;

use refusal::refuse;

/// Patience with the client's first line before the platform is asked. It is in the pipe when we start, or a moment
/// later.
const NAMED_AT_ONCE: Duration = Duration::from_millis(50);

/// Connect standard input and output to a playground's SSH server, as ssh's ProxyCommand.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The user that ssh logs in as: ssh's %r. In a container, `container` is the user that it runs as itself.
    // Whatever ssh fills in is a user name, and refused as one when it looks like an option.
    #[arg(long, value_name = "USER", allow_hyphen_values = true)]
    pub user: Option<String>,
    /// The wake policy for this connection.
    #[arg(long, value_name = "POLICY")]
    pub wake: Option<WakePolicy>,
    /// The programs that a container is lent: auto, always, none, a folder of the machine, or an image.
    #[arg(long, value_name = "TOOLS", env = TOOLS_VARIABLE, hide_env_values = true, value_parser = tools)]
    pub tools: Option<Tools>,
    /// The machine's programs beside a container's own files, as editors need it: auto (for an editor, where the
    /// container has neither bash nor a C library), always or never.
    #[arg(long, value_name = "VIEW", env = VIEW_VARIABLE, hide_env_values = true, value_parser = view)]
    pub view: Option<View>,
    /// Count as use of the playground for as long as the connection lasts, so that its time is extended.
    #[arg(long, env = KEEP_VARIABLE, hide_env_values = true, value_parser = FalseyValueParser::new())]
    pub keep: bool,
    /// The host name: `playground-<id>`, `playground-<name>`, or either with `.<machine>`, `.<machine>.<container>` or
    /// `.pod.<namespace>.<pod>[.<container>]`.
    pub host: String,
}

/// Reads the value of `--tools`. An empty variable is one that is not set.
fn tools(text: &str) -> Result<Tools, String> {
    if text.is_empty() { Ok(Tools::default()) } else { text.parse() }
}

/// Reads the value of `--view`. An empty variable is one that is not set.
fn view(text: &str) -> Result<View, String> {
    if text.is_empty() { Ok(View::Auto) } else { text.parse() }
}

/// Connects standard input and output.
///
/// # Errors
/// [`Kind::Usage`] when one of them is closed; as [`connect()`].
pub async fn run(app: &App, args: Args) -> Result<()> {
    let mut client =
        Client::on_stdio().map_err(|e| Error::new(Kind::Usage, format!("standard input or output is closed: {e}")))?;
    connect(app, &args, &mut client).await
}

/// Tells the client of a connection that cannot even begin.
pub async fn turn_away(error: Error) -> Error {
    match Client::on_stdio() {
        Ok(mut client) => refuse(&mut client, error, Passed::Nothing).await,
        Err(_) => error,
    }
}

/// Connects `client` to the machine or container it asks for, until one of them ends it.
///
/// # Errors
/// The obstacle on the way to the machine. By then the client has been told of it: on standard error, and inside the
/// protocol.
pub async fn connect(app: &App, request: &Args, client: &mut Client) -> Result<()> {
    let early = Early::default();
    let began = Instant::now();
    let result = async {
        if let Some(error) = listeners::missed(&app.folders, &request.host) {
            return Err(error.into());
        }
        let target = Target::parse(&request.host)?;
        let labs = app.client()?;
        let mut connection = Connection {
            app,
            request,
            machine_host: target.of_machine().to_string(),
            target: target.clone(),
            container: None,
            labs: &labs,
            memory: app.memory(),
            live: Live::begin(&app.folders, &request.host),
            notices: Notices::default(),
            began,
            early: &early,
            is_heard: Cell::default(),
            has_arrived: Cell::default(),
        };
        connection.live.update(|status| status.container = target.inside.as_ref().map(ToString::to_string));
        let Reached { kept, opened: tunnel, destination } = match &target.inside {
            None => reach(&connection, client, opening::attempt).await?,
            Some(Inside::Container(label)) => {
                connection.container = Some(Wanted::container(&connection, label.clone(), None)?);
                reach(&connection, client, opening::attempt).await?
            }
            Some(Inside::Pod(name)) => pods::reach(&mut connection, client, name).await?,
        };
        // The end of the trial may forget the kept session. A signal ends it, too: it drops this future. With a
        // container, our own client has logged in.
        let trial = kept.filter(|_| connection.container.is_none()).map(|kept| Trial::begin(kept, tunnel.vitals()));
        let ended = carry::carry(&connection, client, tunnel, &destination).await;
        if let Some(trial) = trial {
            trial.end();
        }
        ended
    };
    match result.await {
        Ok(()) | Err(Stop::Left) => Ok(()),
        Err(Stop::Failed(error)) => Err(refuse(client, error.on(app.platform), early.passed()).await),
    }
}

/// A machine that was reached, and what was opened there.
struct Reached<T> {
    /// The place of the session of an earlier connection, if that has led there.
    kept: Option<Slot>,
    opened: T,
    destination: Destination,
}

/// Finds the machine, wakes it if that is permitted, and opens there what `attempt` opens.
async fn reach<T>(
    connection: &Connection<'_>,
    client: &mut Client,
    attempt: impl Attempt<T>,
) -> Result<Reached<T>, Stop> {
    if let Some((kept, opened, destination)) = opening::open_at_once(connection, client, &attempt).await? {
        return Ok(Reached { kept: Some(kept), opened, destination });
    }
    connection.present(client, connection.app.platform_up(connection.labs)).await??;
    let caller = ClientKind::of(client.identification(NAMED_AT_ONCE).await.as_deref());
    let way = async {
        let (found, asked) = connection.present(client, arrival::find_and_ask(connection, caller)).await??;
        let allowed = permission::may_wake(connection, client, &found).await?;
        connection.unlock(client).await?;
        connection.present(client, arrival::arrive(connection, found, allowed, asked)).await?.map_err(Stop::from)
    };
    let destination = tokio::select! {
        biased;
        arrived = way => arrived?,
        error = early::too_short(connection, caller) => return Err(error.into()),
    };
    let (opened, destination) = opening::open(connection, client, destination, &attempt).await?;
    opening::keep(connection, &destination)?;
    Ok(Reached { kept: None, opened, destination })
}

/// The reason why a connection does not go on.
enum Stop {
    /// The client has left, which is its right.
    Left,
    /// An error that the client is told.
    Failed(Error),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Stop::Failed(error)
    }
}

/// One connection on its way.
struct Connection<'a> {
    app: &'a App,
    request: &'a Args,
    /// Its machine, or the container there. For a pod it is first that of the cluster's API, and then the pod's.
    target: Target,
    /// The host name of the machine.
    machine_host: String,
    /// The purpose of our own SSH client there; `None` where the client's SSH goes to the machine itself.
    container: Option<Wanted>,
    labs: &'a Labs,
    memory: Memory,
    live: Live,
    notices: Notices,
    began: Instant,
    /// The server's words that the client has had so far.
    early: &'a Early,
    /// The SSH server of the container's machine has spoken.
    is_heard: Cell<bool>,
    /// Our own client has logged in to the machine of the container.
    has_arrived: Cell<bool>,
}

impl Connection<'_> {
    /// The machine that it leads to.
    fn machine<'p>(&self, play: &'p Play) -> Result<&'p Machine> {
        let of_cluster = self.container.as_ref().filter(|wanted| wanted.is_cluster());
        let usual = || of_cluster.and_then(|_| reading::usual_machine(play));
        find::machine(play, self.target.machine.as_deref().or_else(usual))
    }

    /// The user on the machine, if the client names one. A machine's containers are entered by root alone.
    fn machine_user(&self) -> Result<Option<&str>> {
        match self.container {
            Some(_) => Ok(Some(container::MACHINE_USER)),
            None => target::user(self.request.user.as_deref()),
        }
    }

    /// The user for people: the one whom the client logs in as.
    fn shown_user<'b>(&'b self, destination: &'b Destination) -> &'b str {
        self.container.as_ref().map_or(&destination.user, Wanted::user)
    }

    /// Finds the keys that open the container's machine. A key that cannot be used is reported, and a passphrase asked
    /// for, once it is clear that the connection may go on, and before anything is woken.
    async fn unlock(&self, client: &mut Client) -> Result<(), Stop> {
        if let Some(wanted) = &self.container {
            self.present(client, wanted.credentials(self)).await??;
        }
        Ok(())
    }

    /// Does `work` for as long as the client is there. Meanwhile the early identification line is sent when it is due,
    /// and the notice of a wait is repeated.
    async fn present<T>(&self, client: &mut Client, work: impl Future<Output = T>) -> Result<T, Stop> {
        tokio::pin!(work);
        loop {
            tokio::select! {
                biased;
                done = &mut work => return Ok(done),
                () = client.gone() => return Err(Stop::Left),
                () = self.early.due() => {}
                never = self.notices.repeat() => match never {},
            }
            self.early.say(client).await;
        }
    }

    /// The end of all waiting.
    fn deadline(&self) -> Instant {
        self.began + self.app.settings.wake_limit()
    }
}

impl Progress for Connection<'_> {
    fn waiting(&self, what: &str) {
        self.notices.waiting(what);
        self.live.update(|status| status.message = what.to_owned());
    }

    fn above(&self, text: &str) {
        self.notices.say(text);
    }
}

/// The machine that a connection leads to, and the session that opens its tunnel.
struct Destination {
    /// The playground's id.
    play: String,
    /// The machine's name.
    machine: String,
    /// The user on the machine.
    user: String,
    session: TunnelSession,
    /// Its playground, where it is known.
    about: Option<About>,
    /// The machine's present boot, in the platform's words, where it is known.
    up_since: Option<String>,
}

impl Destination {
    /// The playground in the words of people: its title where that is known, else its id.
    fn shown(&self) -> &str {
        self.about.as_ref().map(|about| &*about.shown).filter(|shown| !shown.is_empty()).unwrap_or(&self.play)
    }
}
