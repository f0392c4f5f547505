//! The `port-forward` command: forwards ports of a playground to this computer, and the other way around.
//!
//! # Layout
//!
//! - `spec`: forwards in ssh's notation (pure). `wanted`: those of the command line, and the saved ones.
//! - `bound`: a forward whose local listener is open. `way`: the connection to a machine for as long as the command
//!   runs.
//! - `entrance`: the way into a container, for `--in`.
//! - `local`, `remote`, `udp`: one kind of forward each. `relay.py` and `relay.pl` are the machine's end of UDP.
//! - `auto`: forwards that follow the ports of a machine.
//! - `carry`: one forwarded connection, and the decision when it is over.
//! - `board`: the output. `saved`: the forwards that the platform stores.

mod auto;
pub(crate) mod board;
mod bound;
pub(crate) mod carry;
mod entrance;
pub(crate) mod local;
pub(crate) mod remote;
pub mod saved;
pub mod spec;
pub(crate) mod udp;
mod wanted;
pub(crate) mod way;

use std::{sync::Arc, time::Duration};

use clap_complete::{ArgValueCandidates, ArgValueCompleter};
use tokio::{sync::Mutex, task::JoinSet};

use crate::{
    app::App,
    cluster::reading,
    commands::{
        args::duration,
        candidates,
        folder::{self, Asks},
        underway::Underway,
        visit::Within,
        within,
    },
    door::{self, ROOT},
    error::{Error, Kind, Result},
    keep,
    labs::{Labs, find, wire::Play},
    os::{ended_by_signal, raise_open_files},
    records::forwards::Forwards,
    target::{PodName, Target},
    ui::{notice, spinner::Spinner},
    wake,
};

use auto::{Auto, plan::Ports};
use board::{Board, View};
use bound::Bound;
use entrance::{Entrance, OfPod};
use saved::Which;
use spec::{Forward, Side, Spec};
use wanted::Wanted;
use way::{Opens, Way};

/// Forward ports between this computer and a playground until Ctrl-C (exit code 130).
#[derive(Debug, Default, clap::Args)]
#[command(
    after_help = "SPEC has ssh's syntax: [BIND:]PORT:HOST:HOSTPORT, where BIND:PORT and HOST:HOSTPORT can each be the \
    path of a Unix socket. Port 0 stands for a free port, which is then shown. Without HOST, the other side itself is \
    meant: -L 8080:80, -R 8080:80. -L 80 and -L HOST:80 listen on a free port of this computer. Separate several with \
    commas.\n\n\
    Without BIND, -L listens on the loopback interface and -R on all of the machine's addresses, so that an exposed \
    port reaches it; * means all addresses. With -L, /udp after HOSTPORT forwards datagrams, for which the machine \
    needs python3 or perl."
)]
pub struct Args {
    /// The playground's id, host name, alias, title, catalogue name or page address. It is woken if it is stopped. Without it,
    /// the one that .labctl-ssh-proxy.yaml names, here or in a folder above.
    #[arg(add = ArgValueCompleter::new(candidates::playgrounds))]
    playground: Option<String>,
    /// The machine; the first one by default.
    #[arg(short, long, add = ArgValueCandidates::new(candidates::machines))]
    machine: Option<String>,
    /// Forward ports of this container of the playground: its name or id, on any machine if it is the only one. Also one
    /// without a network.
    #[arg(long = "in", value_name = "CONTAINER", add = ArgValueCompleter::new(candidates::containers))]
    within: Option<String>,
    /// Forward ports of this pod of the playground's cluster: POD of the namespace default, NAMESPACE/POD or
    /// NAMESPACE/POD/CONTAINER. The name of a Deployment, StatefulSet or DaemonSet stands for its one ready pod.
    #[arg(long, value_name = "POD", add = ArgValueCompleter::new(candidates::pods), conflicts_with_all = ["within", "machine"])]
    pod: Option<PodName>,
    /// Listen on this computer and connect from the machine.
    // The short name `local` is taken by the global option --local.
    #[arg(id = "from_here", short = 'L', value_name = "SPEC", value_parser = |text: &str| typed(Side::Local, text))]
    local: Vec<Vec<Spec>>,
    /// Listen on the machine and connect from this computer.
    #[arg(short = 'R', value_name = "SPEC", requires = "playground", value_parser = |text: &str| typed(Side::Remote, text))]
    remote: Vec<Vec<Spec>>,
    /// Carry TCP connections over SSH instead of a tunnel each: slower, but one side can finish sending before the
    /// other.
    #[arg(long)]
    over_ssh: bool,
    /// Forget a UDP peer after this long without a datagram.
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "2m")]
    udp_idle: Duration,
    /// Save these port forwards with the playground.
    #[arg(long, requires = "playground")]
    save: bool,
    /// Also open the port forwards that are saved with the playground. One that cannot be opened is reported and
    /// skipped. Those to port 22 are skipped, because labctl saves one for each of its own connections.
    #[arg(long, requires = "playground")]
    restore: bool,
    /// Also forward each TCP port that something listens on, as it appears, until it goes: from the same port of this
    /// computer's loopback interface if that is free. Ports below 1024 are left out; at most 32 are forwarded at once.
    /// The machine is scanned every 10 seconds.
    #[arg(long)]
    auto: bool,
    /// Ports that --auto leaves out, such as 3000,8000-8080.
    #[arg(long, value_name = "PORTS", requires = "auto")]
    exclude: Vec<Ports>,
    /// Only list the saved port forwards.
    #[arg(long, requires = "playground", conflicts_with_all = ["from_here", "remote", "save", "restore", "auto", "remove"])]
    list: bool,
    /// Only remove a saved port forward: an index that --list shows, or all.
    #[arg(long, value_name = "INDEX", requires = "playground", conflicts_with_all = ["from_here", "remote", "save", "restore", "auto"])]
    remove: Vec<Which>,
    /// Print JSON, one line per event.
    #[arg(long)]
    json: bool,
}

/// Parses the value of -L or -R for the argument parser, which has a frame of its own for the words of an error.
fn typed(side: Side, text: &str) -> Result<Vec<Spec>, String> {
    Spec::parse_all(side, text).map_err(|error| match error.hint() {
        Some(hint) => format!("{}; {hint}", error.message()),
        None => error.message().to_owned(),
    })
}

/// Finds the play that `argument` names. Also returns the machine: `machine`, or else the one in the host name.
///
/// # Errors
/// As [`find::by_argument`].
pub async fn find_play(labs: &Labs, argument: &str, machine: Option<&str>) -> Result<(Play, Option<String>)> {
    let play = find::by_argument(labs, argument).await?;
    let named = find::target(labs, argument).and_then(|target| target.machine);
    Ok((play, machine.map(ToOwned::to_owned).or(named)))
}

/// Opens the forwards and carries them until a signal arrives or the reader of the JSON output is gone. With `--list`
/// or `--remove`, lists or removes saved forwards instead. Returns the exit code: 128 plus the signal's number after a
/// signal.
///
/// # Errors
/// Fails when a forward cannot be set up, or the playground no longer exists.
pub async fn run(app: &App, mut args: Args) -> Result<u8> {
    let asks = Asks { json: args.json, machine: args.machine.clone(), ..Asks::default() };
    let meant = tokio::select! {
        meant = folder::meant(app, args.playground, "port-forward", asks) => meant?,
        signal = ended_by_signal() => return Ok(128 + signal),
    };
    args.playground = Some(meant.playground);
    if args.within.is_none() && args.pod.is_none() && (args.list || !args.remove.is_empty()) {
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

/// Carries the saved forwards of a playground that was started just now, as `port-forward --restore` does. It is no
/// failure if there are none.
///
/// # Errors
/// As [`run`].
pub(crate) async fn carry_saved(app: &App, play: &Play) -> Result<u8> {
    let labs = app.labs().await?;
    if labs.port_forwards(&play.id).await?.is_empty() {
        notice::line(&format!("{} has no saved port forwards.", play.shown()));
        return Ok(0);
    }
    // All of them are TCP, which has no use for the time of UDP peers.
    run(app, Args { playground: Some(play.id.clone()), restore: true, ..Args::default() }).await
}

async fn look_at_saved(app: &App, args: &Args) -> Result<()> {
    let labs = app.labs().await?;
    let (play, _) = find_play(&labs, args.playground(), None).await?;
    if args.list {
        return saved::list(&labs, &play, args.json).await;
    }
    saved::remove(&labs, &play, &args.remove, args.json).await
}

impl Args {
    /// The playground, once it is known.
    fn playground(&self) -> &str {
        self.playground.as_deref().unwrap_or_default()
    }

    /// Returns the forwards of the command line.
    fn forwards(&self) -> Vec<Forward> {
        let of = |side, specs: &[Vec<Spec>]| {
            let specs: Vec<Spec> = specs.iter().flatten().cloned().collect();
            specs.into_iter().map(move |spec| Forward { side, spec, machine: None })
        };
        of(Side::Local, &self.local).chain(of(Side::Remote, &self.remote)).collect()
    }
}

/// Refuses what is about machines only.
fn fits_a_container(args: &Args, typed: &[Forward]) -> Result<()> {
    let refuse =
        |what: &str, hint: &str| Err(Error::new(Kind::Usage, format!("--in forwards no {what}")).with_hint(hint));
    if args.save || args.restore || args.list || !args.remove.is_empty() {
        return refuse("saved port forwards: the platform saves those of machines only", "use -L or -R with --in");
    }
    if args.auto {
        return refuse("ports by --auto: the platform scans machines only", "use -L or -R with --in");
    }
    for Forward { side, spec, .. } in typed {
        if spec.udp {
            let hint =
                "without --in, -L PORT:ADDRESS:PORT/udp leads to the container's address on the machine's network";
            return refuse("UDP: the server in a container carries connections only", hint);
        }
        if *side == Side::Remote {
            entrance::check(&spec.listen, &spec.to_string())?;
        }
    }
    Ok(())
}

/// Opens forwards into a container: finds it, wakes its machine, and carries them over one connection.
async fn forward_in(app: &App, args: &Args, name: &Within, board: &Arc<Board>) -> Result<()> {
    let typed = args.forwards();
    fits_a_container(args, &typed)?;
    let labs = app.labs().await?;
    let (play, machine) = find_play(&labs, args.playground(), args.machine.as_deref()).await?;
    let wanted = wanted::all(&labs, &play, "", typed, false, false, board).await?;
    raise_open_files();
    // A port that is taken here is reported before anything is woken.
    let mut forwards = Vec::new();
    for one in wanted {
        let bound = Bound::new(&one.forward, board).await?;
        forwards.push((one, bound));
    }
    let (machine, entrance) = match name {
        Within::Container(name) => {
            let inner = match within::at_once(&play, machine.as_deref(), name)? {
                Some(inner) => inner,
                None => within::woken(app, &labs, &play, machine.as_deref(), name).await?,
            };
            (inner.machine, Entrance::new(app, &inner.label, board))
        }
        Within::Pod(name) => {
            let place = find::machine(&play, reading::usual_machine(&play))?;
            let cluster = Way::new(app, &labs, &play, place, ROOT, board)?;
            app.memory().machine_wanted(&play.id, &place.name);
            begin(app, &play, &cluster, Opens::Ssh, board).await?;
            let (machine, found) = door::place_of(app, &labs, cluster.ssh().await?, name).await?;
            let user = place.default_user().to_owned();
            let pod = OfPod {
                name: name.clone(),
                cluster: Box::new(cluster),
                user,
                node: found.node,
                first: Mutex::new(Some(found.id)),
            };
            (machine, Entrance::of_pod(app, pod, board))
        }
    };
    app.memory().machine_wanted(&play.id, &machine);
    let way = Way::new(app, &labs, &play, find::machine(&play, Some(&machine))?, ROOT, board)?;
    let way = Arc::new(way.leading_into(entrance));
    board.record(Forwards::begin(&app.folders, &play.id));
    let bundle = Bundle { way, forwards, is_followed: false };
    let tasks = open(app, &play, vec![bundle], args, board).await?;
    carry(app, &labs, &play.id, tasks, board).await
}

/// Carries forwards until one ends by itself, which it does only when the playground no longer exists.
async fn carry(app: &App, labs: &Labs, play: &str, mut tasks: JoinSet<Result<()>>, board: &Board) -> Result<()> {
    board.ready();
    let all = async {
        while let Some(ended) = tasks.join_next().await {
            ended.map_err(|e| Error::new(Kind::Internal, format!("a port forward failed unexpectedly: {e}")))??;
        }
        Ok(())
    };
    tokio::select! {
        ended = all => ended,
        never = keep::look_after(app, labs, play, || board.moved()) => match never {},
    }
}

/// Opens the forwards in five steps, and carries them until one ends.
async fn forward(app: &App, args: &Args, board: &Arc<Board>) -> Result<()> {
    find::no_container(args.playground()).map_err(|error| {
        let option = |target: &Target| match target.pod() {
            Some(pod) => format!("--pod {}", pod.to_string().replace('.', "/")),
            None => format!("--in {}", target.container().unwrap_or_default()),
        };
        let named = Target::parse(args.playground()).map(|target| (target.of_machine(), option(&target)));
        error.with_hint(named.map_or_else(
            |_| String::new(),
            |(place, option)| {
                let line = format!("labctl-ssh-proxy port-forward {place} {option} -L 8080:80");
                format!("name the container with {}, such as `{line}`", option.split(' ').next().unwrap_or_default())
            },
        ))
    })?;
    if let Some(name) = Within::by(args.within.clone(), args.pod.clone()) {
        return forward_in(app, args, &name, board).await;
    }
    let labs = app.labs().await?;
    let (play, machine) = find_play(&labs, args.playground(), args.machine.as_deref()).await?;
    let machine = find::machine(&play, machine.as_deref())?.name.clone();
    let typed = args.forwards();
    let records = if args.save { saved::records(&typed, &machine)? } else { Vec::new() };
    let wanted = wanted::all(&labs, &play, &machine, typed, args.restore, args.auto, board).await?;
    raise_open_files();
    // A port that is taken here is reported before anything is woken.
    let mut bound = bind(app, &labs, &play, &machine, wanted, board).await?;
    let mut auto = args.auto.then(|| follow(app, &labs, &play, &machine, &mut bound, args, board)).transpose()?;
    app.memory().machine_wanted(&play.id, &machine);
    board.record(Forwards::begin(&app.folders, &play.id));
    let mut tasks = open(app, &play, bound, args, board).await?;
    if let Some(words) = saved::save(&labs, &play, &records).await? {
        board.note(&words);
    }
    if let Some(mut auto) = auto.take() {
        let next = auto.turn().await?;
        tasks.spawn(auto.run(next));
    }
    carry(app, &labs, &play.id, tasks, board).await
}

/// Makes ready to follow the ports of `machine`, by the way that its other forwards have, too.
fn follow(
    app: &App,
    labs: &Labs,
    play: &Play,
    machine: &str,
    bound: &mut Vec<Bundle>,
    args: &Args,
    board: &Arc<Board>,
) -> Result<Auto> {
    let known = bound.iter().position(|bundle| bundle.way.machine() == machine);
    let at = known.unwrap_or(bound.len());
    if known.is_none() {
        let machine = find::machine(play, Some(machine))?;
        let way = Arc::new(Way::new(app, labs, play, machine, machine.default_user(), board)?);
        bound.push(Bundle { way, forwards: Vec::new(), is_followed: true });
    }
    bound[at].is_followed = true;
    let Bundle { way, forwards, .. } = &bound[at];
    let fixed = forwards.iter().filter_map(|(_, bound)| bound.leads_to(machine)).collect();
    let auto = Auto::new(app, labs, &play.id, Arc::clone(way), board);
    Ok(auto.without(Ports::all(&args.exclude), fixed).over_ssh(args.over_ssh))
}

/// The forwards of one machine, bound on this side, and the way there.
struct Bundle {
    way: Arc<Way>,
    forwards: Vec<(Wanted, Bound)>,
    /// True for the machine whose ports --auto follows.
    is_followed: bool,
}

/// Binds this side of each forward. Forwards to one machine share the way there.
async fn bind(
    app: &App,
    labs: &Labs,
    play: &Play,
    machine: &str,
    wanted: Vec<Wanted>,
    board: &Arc<Board>,
) -> Result<Vec<Bundle>> {
    let mut bundles: Vec<Bundle> = Vec::new();
    for one in wanted {
        let name = one.forward.machine.as_deref().unwrap_or(machine);
        let known = bundles.iter().position(|bundle| bundle.way.machine() == name);
        let bound = async {
            let machine = find::machine(play, Some(name))?;
            let way = match known {
                Some(_) => None,
                None => Some(Way::new(app, labs, play, machine, machine.default_user(), board)?),
            };
            Ok((way, Bound::new(&one.forward, board).await?))
        };
        let Some((way, bound)) = one.or_left_out(board, bound.await)? else { continue };
        match (way, known) {
            (Some(way), _) => {
                bundles.push(Bundle { way: Arc::new(way), forwards: vec![(one, bound)], is_followed: false })
            }
            (None, Some(known)) => bundles[known].forwards.push((one, bound)),
            (None, None) => {}
        }
    }
    Ok(bundles)
}

/// Wakes each machine, and opens its forwards.
async fn open(
    app: &App,
    play: &Play,
    bundles: Vec<Bundle>,
    args: &Args,
    board: &Arc<Board>,
) -> Result<JoinSet<Result<()>>> {
    let mut tasks = JoinSet::new();
    for Bundle { way, forwards, is_followed } in bundles {
        let by_ssh = is_followed && args.over_ssh || way.entrance().is_some();
        let least = if by_ssh { Opens::Ssh } else { Opens::Ports };
        let opens = forwards.iter().map(|(_, bound)| bound.opens(args.over_ssh)).fold(least, Opens::max);
        let begun = begin(app, play, &way, opens, board).await;
        if is_followed {
            // Without it there is nothing to follow, even if a saved forward could be left out.
            begun.clone()?;
        }
        for (one, bound) in forwards {
            let opened = match &begun {
                Ok(()) => bound.open(&mut tasks, Arc::clone(&way), args.over_ssh, args.udp_idle, board).await,
                Err(error) => Err(error.clone()),
            };
            one.or_left_out(board, opened)?;
        }
    }
    if tasks.is_empty() && !args.auto {
        let message = format!("no saved port forward of playground {} could be opened", play.shown());
        return Err(Error::new(Kind::Refused, message)
            .with_hint("see the messages above for the reasons; --list shows the saved port forwards"));
    }
    Ok(tasks)
}

/// Wakes the playground that `way` leads to, and opens the first session.
///
/// # Errors
/// As [`crate::wake::Wake::tunnel`].
pub async fn begin(app: &App, play: &Play, way: &Way, opens: Opens, board: &Board) -> Result<()> {
    let limit = app.settings.wake_limit();
    let underway = Underway::new(app);
    if wake::is_down(play, way.machine()) {
        underway.waits_for(play);
    }
    let begun = match board.is_json() {
        true => way.begin(opens, limit, board).await,
        false => way.begin(opens, limit, &Spinner::new()).await,
    };
    underway.over(begun)
}
