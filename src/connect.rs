//! The ProxyCommand: one SSH connection, from the host name to the last byte.
//!
//! Read [`connect`] from top to bottom: it is the program.

use std::{future::Future, time::Duration};

use tokio::time::Instant;

use crate::{
    app::App,
    connect::{
        client::{Client, ClientKind},
        early::{Early, Passed},
    },
    error::{Error, Kind, Result},
    labs::{Labs, TunnelSession},
    os,
    records::{live::Live, memory::Memory, tunnels::Trial},
    settings::WakePolicy,
    target::Target,
    ui::notice::{Notices, Progress},
};

mod arrival;
pub mod client;
pub mod early;
pub mod greet;
mod opening;
mod permission;
pub mod policy;
mod refusal;
mod session;

use refusal::refuse;

/// A client's first line is in the pipe when we start, or a moment later. Without it no tunnel is asked for ahead.
const NAMED_AT_ONCE: Duration = Duration::from_millis(50);

/// Connect standard input and output to a playground's SSH endpoint: ssh's ProxyCommand.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The user that ssh logs in as; ssh fills in %r.
    // Whatever ssh fills in is a user name, and refused as one when it looks like an option.
    #[arg(long, value_name = "USER", allow_hyphen_values = true)]
    pub user: Option<String>,
    /// When to wake a stopped playground, for this connection.
    #[arg(long, value_name = "POLICY")]
    pub wake: Option<WakePolicy>,
    /// The host name: `playground-<id>`, `playground-<name>`, or either with `.<machine>`.
    pub host: String,
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

/// Connects `client` to the machine it asks for, until one of them ends it.
///
/// # Errors
/// What keeps it from the machine. It has then been told, on standard error and to the client inside the protocol.
pub async fn connect(app: &App, request: &Args, client: &mut Client) -> Result<()> {
    let early = Early::default();
    let began = Instant::now();
    let result = async {
        let target = Target::parse(&request.host)?;
        let labs = app.client()?;
        let connection = Connection {
            app,
            request,
            target: &target,
            labs: &labs,
            memory: app.memory(),
            live: Live::begin(&app.folders, &request.host),
            notices: Notices::default(),
            began,
            early: &early,
        };
        if let Some((slot, tunnel, place)) = connection.open_at_once(client).await? {
            let _trial = Trial::begin(slot, tunnel.vitals());
            return connection.carry(client, tunnel, &place).await;
        }
        connection.present(client, app.platform_up(&labs)).await?;
        // What polls by itself gets no request that is not asked for.
        let caller = ClientKind::of(client.identification(NAMED_AT_ONCE).await.as_deref());
        let (found, ready) = connection.present(client, connection.find_and_ask(caller)).await?;
        let allowed = connection.may_wake(client, &found).await?;
        let place = connection.present(client, connection.arrive(found, allowed, ready)).await?;
        let (tunnel, place) = connection.open(client, place).await?;
        connection.keep(&place)?;
        connection.carry(client, tunnel, &place).await
    };
    match result.await {
        Ok(()) | Err(Stop::Left) => Ok(()),
        Err(Stop::Failed(error)) => Err(refuse(client, error.on(app.platform), early.passed()).await),
    }
}

/// Why a connection does not go on.
enum Stop {
    /// The client has left, which is its right.
    Left,
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
    target: &'a Target,
    labs: &'a Labs,
    memory: Memory,
    live: Live,
    notices: Notices,
    began: Instant,
    /// What the client has been sent of the server's words.
    early: &'a Early,
}

/// Where a connection leads, and what opens the way.
struct Destination {
    /// The playground's id.
    play: String,
    /// The machine's name.
    machine: String,
    user: String,
    session: TunnelSession,
}

impl Progress for Connection<'_> {
    fn waiting(&self, what: &str) {
        self.notices.waiting(what);
        self.live.update(|status| status.message = what.to_owned());
    }
}

impl Connection<'_> {
    /// Does `work` as long as the client is there.
    async fn present<T>(&self, client: &mut Client, work: impl Future<Output = Result<T>>) -> Result<T, Stop> {
        tokio::pin!(work);
        loop {
            tokio::select! {
                biased;
                done = &mut work => return Ok(done?),
                () = client.gone() => return Err(Stop::Left),
                () = self.early.due() => {}
                never = self.notices.repeat() => match never {},
            }
            self.early.say(client).await;
        }
    }

    /// Plans the early identification line, where a limit of the client's may strike and the machine's line is known.
    fn plan_early(&self, play: &str, machine: &str) -> Result<()> {
        if self.app.settings.early_identification == Some(false) || self.early.is_planned() {
            return Ok(());
        }
        let Some(record) = self.memory.read(play)?.machines.remove(machine) else { return Ok(()) };
        if let Some(line) = record.identification
            && let Some(limit) = os::ssh_arguments().as_deref().and_then(early::connect_timeout)
        {
            let age = os::process_age();
            log::debug!("the client waits {} s, {} ms of it are over", limit.as_secs(), age.as_millis());
            let now = Instant::now();
            self.early.plan(line, limit, now.checked_sub(age).unwrap_or(now));
        }
        Ok(())
    }

    fn deadline(&self) -> Instant {
        self.began + self.app.settings.wake_limit()
    }
}
