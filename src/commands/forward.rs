//! `port-forward`: ports of a playground here, and ports of this computer there, until it is ended.
//!
//! # Layout
//!
//! - `spec`: forwards as ssh writes them (pure).
//! - `way`: the way into a machine for as long as the command runs.
//! - `local`, `remote`, `udp`: a forward each, by which side listens and what it carries; `relay.py` and `relay.pl` are
//!   the machine's end of UDP.
//! - `carry`: one connection, and when it is over.
//! - `board`: what the user sees. `saved`: what the platform keeps.

pub mod board;
pub mod carry;
pub mod local;
pub mod remote;
pub mod saved;
pub mod spec;
pub mod udp;
pub mod way;

use std::{sync::Arc, time::Duration};

use tokio::task::JoinSet;

use crate::{
    app::App,
    error::{Error, Kind, Result},
    labs::{Labs, find, wire::Play},
    os::{ended_by_signal, raise_open_files},
    target::{Target, host_port},
    ui::spinner::Spinner,
};

use board::{Board, Row, View, What};
use local::{Listeners, Local};
use remote::{Listener, Remote};
use spec::{Endpoint, Listen, Side, Spec};
use udp::{Relay, Udp};
use way::{Opens, Way};

/// A forward that is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forward {
    /// The side that listens.
    pub side: Side,
    /// From where to where.
    pub spec: Spec,
    /// The machine, where it is not the one of the command.
    pub machine: Option<String>,
}

/// What `port-forward` was asked to do.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// The playground: its id, host name or title. A host name may name the machine, too.
    pub playground: String,
    /// The machine; the first one when nothing is said.
    pub machine: Option<String>,
    /// The forwards of the command line.
    pub forwards: Vec<Forward>,
    /// Also those that are saved.
    pub restore: bool,
    /// Save those of the command line.
    pub save: bool,
    /// Carry TCP over SSH.
    pub over_ssh: bool,
    /// How long an idle UDP peer is remembered.
    pub udp_idle: Option<Duration>,
    /// Say it in JSON.
    pub json: bool,
}

/// Finds the play that an argument names, and the machine where it is a host name with one.
///
/// # Errors
/// As [`find::by_argument`].
pub async fn find_play(labs: &Labs, argument: &str, machine: Option<&str>) -> Result<(Play, Option<String>)> {
    let play = find::by_argument(labs, argument).await?;
    let named = Target::parse(argument).ok().and_then(|target| target.machine);
    Ok((play, machine.map(ToOwned::to_owned).or(named)))
}

/// `port-forward`: runs until a signal ends it, or nobody reads what it says in JSON. Gives the exit code, 128 and the
/// number of the signal.
///
/// # Errors
/// When a forward cannot be set up, or the playground is gone for good.
pub async fn run(app: &App, request: &Request) -> Result<u8> {
    let board = Board::new(View::new(request.json));
    let forwarded = forward(app, request, &board);
    let ended = tokio::select! {
        ended = forwarded => ended.map(|()| 0),
        never = board.show() => match never {},
        () = board.unread() => Ok(0),
        signal = ended_by_signal() => Ok(128 + signal),
    };
    board.end();
    ended
}

/// A forward whose listener on this side is open already: that fails before anything is woken.
enum Bound {
    Local(Endpoint, Listeners),
    Udp((String, u16), Vec<tokio::net::UdpSocket>),
    Remote(Listen, Endpoint),
}

impl Bound {
    /// The kind of session that its way needs.
    fn opens(&self, over_ssh: bool) -> Opens {
        match self {
            Bound::Local(Endpoint::Port(..), _) if !over_ssh => Opens::Ports,
            Bound::Remote(Listen::Port(_, 1..), _) => Opens::Ports,
            Bound::Local(..) | Bound::Udp(..) | Bound::Remote(..) => Opens::Ssh,
        }
    }

    async fn new(Forward { side, spec, .. }: &Forward) -> Result<Bound> {
        match (side, spec.udp, &spec.listen, &spec.to) {
            (Side::Remote, true, ..) => {
                Err(Error::new(Kind::Usage, format!("`{spec}`: the machine listens for no UDP"))
                    .with_hint("UDP is forwarded by -L only"))
            }
            (Side::Remote, false, listen, to) => Ok(Bound::Remote(listen.clone(), to.clone())),
            (Side::Local, true, Listen::Port(bind, port), Endpoint::Port(host, to)) => {
                Ok(Bound::Udp((host.clone(), *to), udp::bind(bind, *port).await?))
            }
            (Side::Local, _, listen, to) => Ok(Bound::Local(to.clone(), Listeners::bind(listen).await?)),
        }
    }
}

/// A forward on its way to be open.
struct Wanted {
    forward: Forward,
    /// It is a saved one, which is left out with a word when it cannot be opened.
    restored: bool,
}

async fn forward(app: &App, request: &Request, board: &Arc<Board>) -> Result<()> {
    let labs = app.labs().await?;
    let (play, machine) = find_play(&labs, &request.playground, request.machine.as_deref()).await?;
    let machine = find::machine(&play, machine.as_deref())?.name.clone();
    let typed = request.forwards.iter().cloned();
    let mut wanted: Vec<Wanted> = typed.map(|forward| Wanted { forward, restored: false }).collect();
    let records: Vec<_> = if request.save {
        request.forwards.iter().map(|forward| saved::record(forward, &machine)).collect::<Result<_>>()?
    } else {
        Vec::new()
    };
    if request.restore {
        let (restored, odd) = saved::restorable(&labs.port_forwards(&play.id).await?);
        odd.iter().for_each(|line| board.problem(line));
        for forward in restored {
            let on = |forward: &Forward| forward.machine.clone().unwrap_or_else(|| machine.clone());
            let same = |Wanted { forward: other, .. }: &Wanted| {
                other.side == forward.side && other.spec == forward.spec && on(other) == on(&forward)
            };
            if !wanted.iter().any(same) {
                wanted.push(Wanted { forward, restored: true });
            }
        }
    }
    if wanted.is_empty() {
        return Err(match request.restore {
            true => Error::new(Kind::NotFound, format!("playground {} has no saved forwards to open", play.id))
                .with_hint("--save with -L or -R saves some; those to port 22 are left to ssh"),
            false => Error::new(Kind::Usage, "there is nothing to forward").with_hint("say -L, -R or --restore"),
        });
    }
    raise_open_files();
    let mut bound = Vec::new();
    let mut ways: Vec<Arc<Way>> = Vec::new();
    for one in wanted {
        let found = async {
            let name = one.forward.machine.as_deref().unwrap_or(&machine);
            let machine = find::machine(&play, Some(name))?;
            let way = match ways.iter().find(|way| way.machine() == name) {
                Some(way) => Arc::clone(way),
                None => Arc::new(Way::new(app, &labs, &play, machine, machine.default_user(), board)?),
            };
            Ok((Bound::new(&one.forward).await?, way))
        };
        if let Some((listener, way)) = leave_out(board, &one, found.await)? {
            if !ways.iter().any(|known| Arc::ptr_eq(known, &way)) {
                ways.push(Arc::clone(&way));
            }
            bound.push((one, listener, way));
        }
    }
    app.memory().deliberate(&play.id)?;
    let mut tasks = JoinSet::new();
    for way in ways {
        let (here, rest): (Vec<_>, Vec<_>) = bound.into_iter().partition(|(_, _, its)| Arc::ptr_eq(its, &way));
        bound = rest;
        let opens = here.iter().map(|(_, bound, _)| bound.opens(request.over_ssh)).max().unwrap_or(Opens::Ports);
        let begun = begin(app, &way, opens, board).await;
        for (one, listener, way) in here {
            let opened = match &begun {
                Ok(()) => start(&mut tasks, listener, way, request, board).await,
                Err(error) => Err(error.clone()),
            };
            leave_out(board, &one, opened)?;
        }
    }
    if tasks.is_empty() {
        let message = format!("no saved forward of playground {} could be opened", play.id);
        return Err(Error::new(Kind::Refused, message).with_hint("the lines above say why; --list shows them"));
    }
    saved::save(&labs, &play, &records).await?;
    board.ready();
    // A forward ends by itself only when the playground is gone.
    while let Some(ended) = tasks.join_next().await {
        ended.map_err(|e| Error::new(Kind::Internal, format!("a forward broke: {e}")))??;
    }
    Ok(())
}

/// A saved forward that fails is named and left out, and the others go on; one that was typed ends the command. Both do
/// when the playground itself is gone.
fn leave_out<T>(board: &Board, one: &Wanted, result: Result<T>) -> Result<Option<T>> {
    match result {
        Ok(done) => Ok(Some(done)),
        Err(error) if one.restored && !matches!(error.kind(), Kind::Ended | Kind::NotLoggedIn | Kind::NotWoken) => {
            let Forward { side, spec, .. } = &one.forward;
            board.problem(&format!("saved forward `{} {spec}` is left out: {}", side.option(), error.message()));
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Wakes what a way leads to.
///
/// # Errors
/// As [`crate::wake::Wake::tunnel`].
pub async fn begin(app: &App, way: &Way, opens: Opens, board: &Board) -> Result<()> {
    let limit = app.settings.wake_limit();
    if board.is_json() { way.begin(opens, limit, board).await } else { way.begin(opens, limit, &Spinner::new()).await }
}

async fn start(
    tasks: &mut JoinSet<Result<()>>,
    bound: Bound,
    way: Arc<Way>,
    request: &Request,
    board: &Arc<Board>,
) -> Result<()> {
    let row = |kind, protocol, address: String, to: String| -> Arc<Row> {
        board.listening(What { kind, protocol, machine: way.machine().to_owned(), address, to })
    };
    let board = Arc::clone(board);
    match bound {
        Bound::Local(to, listeners) => {
            let row = row("local", listeners.protocol(), listeners.address(), to.to_string());
            let local = Local { way, to, over_ssh: request.over_ssh, board, row };
            tasks.spawn(local.serve(listeners));
        }
        Bound::Udp((host, port), sockets) => {
            let relay = Relay::start(&way, &host, port).await?;
            let address = sockets.first().and_then(|s| s.local_addr().ok()).map(local::shown).unwrap_or_default();
            let row = row("local", "udp", address, host_port(&host, port));
            let idle = request.udp_idle.unwrap_or(udp::IDLE);
            tasks.spawn(Udp { way, to: (host, port), idle, board, row }.serve(sockets, relay));
        }
        Bound::Remote(listen, to) => {
            let (listener, address) = Listener::open(&way, &listen).await?;
            let protocol = if matches!(listen, Listen::Socket(_)) { "unix" } else { "tcp" };
            let row = row("remote", protocol, address, to.to_string());
            tasks.spawn(Remote { way, listen, to, board, row }.serve(listener));
        }
    }
    Ok(())
}
