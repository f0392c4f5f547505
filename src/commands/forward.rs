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

use clap_complete::ArgValueCandidates;
use tokio::task::JoinSet;

use crate::{
    app::App,
    commands::{args::duration, candidates},
    error::{Error, Kind, Result},
    labs::{Labs, find, wire::Play},
    os::{ended_by_signal, raise_open_files},
    target::{Target, host_port},
    ui::spinner::Spinner,
};

use board::{Board, Row, View, What};
use local::{Listeners, Local};
use remote::{Listener, Remote};
use saved::Which;
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

/// Forward ports of a playground here, and of this computer there, until Ctrl-C (exit code 130).
#[derive(Debug, clap::Args)]
#[command(
    after_help = "SPEC is what ssh takes: [BIND:]PORT:HOST:HOSTPORT, where BIND:PORT and HOST:HOSTPORT may each be \
    the path of a Unix socket. Port 0 takes a free one and says which. Without HOST the other side itself is meant: \
    -L 8080:80, -R 8080:80. -L 80 and -L HOST:80 take a free port here. Several stand with commas between them.\n\n\
    Without BIND, -L listens on the loopback interface and -R on all of the machine's addresses, so that an exposed \
    port reaches it; * means all, too. With -L, /udp after HOSTPORT forwards datagrams, for which the machine needs \
    python3 or perl."
)]
pub struct Args {
    /// Its id, host name, or title. It is woken if it sleeps.
    #[arg(add = ArgValueCandidates::new(candidates::playgrounds))]
    playground: String,
    /// The machine; the first one when nothing is said.
    #[arg(short, long, add = ArgValueCandidates::new(candidates::machines))]
    machine: Option<String>,
    /// Listen here and connect there.
    // The global --local has that name already.
    #[arg(id = "from_here", short = 'L', value_name = "SPEC", value_parser = |text: &str| Spec::parse_all(Side::Local, text))]
    local: Vec<Vec<Spec>>,
    /// Listen there and connect here.
    #[arg(short = 'R', value_name = "SPEC", value_parser = |text: &str| Spec::parse_all(Side::Remote, text))]
    remote: Vec<Vec<Spec>>,
    /// Carry TCP over SSH instead of a tunnel each: slower, but one side may finish sending before the other.
    #[arg(long)]
    over_ssh: bool,
    /// Forget a UDP peer after this long without a datagram.
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "2m")]
    udp_idle: Duration,
    /// Save these forwards with the playground.
    #[arg(long)]
    save: bool,
    /// Also open the forwards that are saved with the playground. One that fails is named, and the others go on; those to
    /// port 22, which labctl leaves behind, are ssh's.
    #[arg(long)]
    restore: bool,
    /// Only list the saved forwards.
    #[arg(long, conflicts_with_all = ["from_here", "remote", "save", "restore", "remove"])]
    list: bool,
    /// Only remove a saved forward: an index that --list shows, or all.
    #[arg(long, value_name = "INDEX", conflicts_with_all = ["from_here", "remote", "save", "restore"])]
    remove: Vec<Which>,
    /// Print JSON: a line for each event.
    #[arg(long)]
    json: bool,
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

/// Opens the forwards, and carries them until a signal comes or the reader of the JSON has gone; or lists or removes saved
/// ones. Returns the exit code, 128 and the number of the signal.
///
/// # Errors
/// When a forward cannot be set up, or the playground is gone for good.
pub async fn run(app: &App, args: Args) -> Result<u8> {
    if args.list || !args.remove.is_empty() {
        return tokio::select! {
            done = look_at_saved(app, &args) => done.map(|()| 0),
            signal = ended_by_signal() => Ok(128 + signal),
        };
    }
    let board = Board::new(View::new(args.json));
    let forwarded = forward(app, &args, &board);
    let ended = tokio::select! {
        ended = forwarded => ended.map(|()| 0),
        never = board.show() => match never {},
        () = board.unread() => Ok(0),
        signal = ended_by_signal() => Ok(128 + signal),
    };
    board.end();
    ended
}

async fn look_at_saved(app: &App, args: &Args) -> Result<()> {
    let labs = app.labs().await?;
    let (play, _) = find_play(&labs, &args.playground, None).await?;
    if args.list {
        return saved::list(&labs, &play, args.json).await;
    }
    saved::remove(&labs, &play, &args.remove, args.json).await
}

impl Args {
    /// The forwards of the command line.
    fn forwards(&self) -> Vec<Forward> {
        let of = |side, specs: &[Vec<Spec>]| {
            let specs: Vec<Spec> = specs.iter().flatten().cloned().collect();
            specs.into_iter().map(move |spec| Forward { side, spec, machine: None })
        };
        of(Side::Local, &self.local).chain(of(Side::Remote, &self.remote)).collect()
    }
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

async fn forward(app: &App, args: &Args, board: &Arc<Board>) -> Result<()> {
    let labs = app.labs().await?;
    let (play, machine) = find_play(&labs, &args.playground, args.machine.as_deref()).await?;
    let machine = find::machine(&play, machine.as_deref())?.name.clone();
    let typed = args.forwards();
    let mut wanted: Vec<Wanted> = typed.iter().cloned().map(|forward| Wanted { forward, restored: false }).collect();
    let records: Vec<_> = if args.save {
        typed.iter().map(|forward| saved::record(forward, &machine)).collect::<Result<_>>()?
    } else {
        Vec::new()
    };
    if args.restore {
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
        return Err(match args.restore {
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
        let opens = here.iter().map(|(_, bound, _)| bound.opens(args.over_ssh)).max().unwrap_or(Opens::Ports);
        let begun = begin(app, &way, opens, board).await;
        for (one, listener, way) in here {
            let opened = match &begun {
                Ok(()) => start(&mut tasks, listener, way, args, board).await,
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
    args: &Args,
    board: &Arc<Board>,
) -> Result<()> {
    let row = |kind, protocol, address: String, to: String| -> Arc<Row> {
        board.listening(What { kind, protocol, machine: way.machine().to_owned(), address, to })
    };
    let board = Arc::clone(board);
    match bound {
        Bound::Local(to, listeners) => {
            let row = row("local", listeners.protocol(), listeners.address(), to.to_string());
            let local = Local { way, to, over_ssh: args.over_ssh, board, row };
            tasks.spawn(local.serve(listeners));
        }
        Bound::Udp((host, port), sockets) => {
            let relay = Relay::start(&way, &host, port).await?;
            let address = sockets.first().and_then(|s| s.local_addr().ok()).map(local::shown).unwrap_or_default();
            let row = row("local", "udp", address, host_port(&host, port));
            let idle = args.udp_idle;
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
