//! `start`: starts a playground, and waits until its machines answer.

use clap_complete::{ArgValueCandidates, ArgValueCompleter};

use super::{
    alias,
    attempt::{self, Answers},
    conditions::{self, Choice, Questions},
    entries::refresh_entries,
    listed::{Known, Listed, host},
    manifest::Manifest,
};
use crate::{
    app::App,
    commands::{
        candidates, folder, forward, open, ssh,
        underway::{Underway, ssh_command},
        visit::{consent, place_relay},
    },
    error::{Error, Kind, Result, printable},
    labs::{
        Labs, catalog,
        find::{self, Found},
        learning::Content,
        tunnel,
        wire::{Action, CatalogEntry, CreatePlay, Play},
    },
    platform::is_id,
    records::memory::Memory,
    settings::{Folders, SETTINGS_VARIABLE, Setup},
    setup::{self, Occasion},
    ssh::learn,
    ssh_config,
    target::{Playground, Target, is_label, reference::Reference},
    ui::{
        notice::{self, Progress},
        out,
        spinner::Spinner,
    },
    wake::{
        Visitor, Wake,
        preparation::{Preparation, Tasks, learn_ssh, say_failed},
    },
};

/// Start a new playground from the catalogue, or a stopped one, and wait until it is ready.
///
/// A challenge, a tutorial or a lesson is begun, after a question, by its name or its page address: only `start` and
/// `open` begin an attempt. `challenges/NAME`, `tutorials/NAME` and `COURSE/MODULE/LESSON` select one of them.
///
/// A playground is ready when its machines are ready and its init tasks are done. If an init task fails, the command
/// reports it and carries on. The platform erases a playground when its time is up, unless `persist` keeps it.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A catalogue name; the id, host name, alias or title of a stopped playground; the name or page address of a challenge, a
    /// tutorial or a lesson. Without it and without --file, the one that .labctl-ssh-proxy.yaml names, here or in a folder
    /// above, after a question.
    #[arg(value_name = "PLAYGROUND")]
    #[arg(add = ArgValueCompleter::new(candidates::startable))]
    name: Option<String>,
    /// A choice of the start, such as -i "Container runtime=docker". `catalog NAME` shows the choices there are. One
    /// without a value is asked for if it has no default.
    #[arg(short = 'i', long = "init-condition", value_name = "KEY=VALUE", value_parser = conditions::choice)]
    #[arg(add = ArgValueCompleter::new(candidates::choices))]
    choices: Vec<Choice>,
    /// Ask for every choice that -i does not make, also for those with a default.
    #[arg(long, conflicts_with_all = ["json"])]
    ask: bool,
    /// A manifest (YAML) with the machines, tabs, networks and init tasks that the playground has in place of its own;
    /// - is standard input. Without PLAYGROUND, it starts the one that the manifest names, or else its base.
    #[arg(short, long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    file: Option<String>,
    /// The playground's title, which also makes a readable host name for ssh: "My lab" is `ssh my-lab`.
    #[arg(long)]
    title: Option<String>,
    /// A readable host name in place of the title's: letters a-z, digits and hyphens; `none` for none.
    #[arg(long, value_name = "LABEL", value_parser = alias::choice)]
    alias: Option<alias::Choice>,
    /// Do not wait until it is ready.
    #[arg(long)]
    no_wait: bool,
    /// Wait for its machines, but not for its init tasks.
    #[arg(long)]
    no_wait_init: bool,
    /// Set up its machines again, as `setup` in the settings says. Without this, each machine is set up once.
    #[arg(long, conflicts_with = "no_wait")]
    setup: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    /// Start it although it is not published by the platform: you trust its author.
    #[arg(long)]
    consent: bool,
    /// Do not ask before beginning an attempt at a challenge, a tutorial or a lesson, nor before starting what
    /// .labctl-ssh-proxy.yaml names.
    #[arg(long)]
    yes: bool,
    /// Then ssh into it.
    #[arg(long, conflicts_with_all = ["no_wait", "json"])]
    ssh: bool,
    /// Then open it in this editor; see `open`.
    #[arg(long, value_name = "IDE", conflicts_with_all = ["no_wait", "json", "ssh"])]
    #[arg(add = ArgValueCandidates::new(candidates::editors))]
    open: Option<String>,
    /// Then carry the port forwards that are saved with it until Ctrl-C, as `port-forward --restore` does.
    #[arg(long, conflicts_with_all = ["no_wait", "json", "ssh"])]
    with_port_forwards: bool,
}

/// Starts a playground, then opens ssh or an editor on it if requested. Returns ssh's exit code.
///
/// # Errors
/// As [`start()`], [`ssh::run`] and [`open::run`].
pub(crate) async fn run(app: &App, mut args: Args) -> Result<u8> {
    if args.file.is_none() {
        let asked = folder::Asks { yes: args.yes, json: args.json, has_yes: true, starts_new: true, machine: None };
        args.name = Some(folder::meant(app, args.name, "start", asked).await?.playground);
    }
    let play = start(app, &args).await?;
    let host = Some(play.id.clone());
    match (args.ssh, args.open) {
        (true, _) => ssh::run(app, ssh::Args { host, consent: args.consent, ..ssh::Args::default() }).await,
        (false, Some(ide)) => {
            let into = open::Args { ide, host, consent: args.consent, no_wait_init: true, ..open::Args::default() };
            open::run(app, into).await?;
            if args.with_port_forwards { forward::carry_saved(app, &play).await } else { Ok(0) }
        }
        (false, None) if args.with_port_forwards => forward::carry_saved(app, &play).await,
        (false, None) => Ok(0),
    }
}

/// Starts a new playground from the catalogue, or a stopped one again.
///
/// # Errors
/// The platform's, and any error that keeps the machines from becoming ready.
async fn start(app: &App, args: &Args) -> Result<Play> {
    let underway = Underway::new(app);
    let started = begin(app, args, &underway).await;
    underway.over(started)
}

async fn begin(app: &App, args: &Args, underway: &Underway<'_>) -> Result<Play> {
    let mut setups = app.settings.playgrounds.values().map(|own| &own.setup).chain([&app.settings.setup]).flatten();
    if args.setup && !setups.any(|setup| *setup != Setup::None) {
        let hint = match Folders::are_settings_moved() {
            true => format!("only your own settings file can, and {SETTINGS_VARIABLE} names another one"),
            false => format!("write `setup: ~/dotfiles` into {}", app.folders.settings.display()),
        };
        return Err(Error::new(Kind::Usage, "the settings name no setup").with_hint(hint));
    }
    let labs = app.labs().await?;
    let progress = Spinner::new();
    let memory = app.memory();
    let wake = Wake::wanted(&labs, &memory, &progress, app.settings.wake_limit());
    let manifest = match &args.file {
        Some(path) => Some(Manifest::read(path).await?),
        None => None,
    };
    let is_particular = manifest.is_some() || !args.choices.is_empty() || args.ask;
    let meant = meant(&labs, args, manifest.as_ref()).await?;
    if let Some(alias::Choice::Label(label)) = &args.alias {
        let existing = if let Startable::Existing(play) = &meant { Some(&**play) } else { None };
        alias::check_given(app, &labs, label, existing).await?;
    }
    let mut play = match meant {
        Startable::Existing(play) if is_particular => return Err(already_started(&play)),
        Startable::Existing(play) => *play,
        Startable::Attempt(content) if is_particular => {
            return Err(Error::new(Kind::Usage, format!("{content} has no choices, and takes no manifest"))
                .with_hint("leave out -i, --ask and -f"));
        }
        Startable::Attempt(content) => {
            let answers = Answers { yes: args.yes, consent: args.consent, json: args.json };
            attempt::begin(app, &labs, &content, answers, underway, &progress).await?
        }
        // An existing one needs neither consent nor choices any more.
        Startable::ByName(name) if !is_particular => match find::by_target(&labs, &Target::of_name(&name)).await? {
            Found::Play(play) => *play,
            Found::Startable(name) => {
                let request = request(&labs, &name, args, None).await?;
                underway.requests(&name);
                wake.start_once(&request).await?
            }
        },
        Startable::ByName(name) | Startable::New(name) => {
            let request = request(&labs, &name, args, manifest.as_ref()).await?;
            underway.requests(&name);
            wake.start_new(&request).await?
        }
    };
    underway.waits_for(&play);
    wanted(&memory, &play);
    // The catalogue name may refer to this play from now on.
    app.tunnels().forget(&play.id);
    app.tunnels().forget(&attempt::label(&play));
    if let Some(title) = &args.title {
        play = labs.act_and_look(&play.id, &Action::SetTitle { title: title.clone() }).await?;
        memory.note_acted();
        underway.waits_for(&play);
    }
    alias::update(app, &labs, &play, args.alias.as_ref(), args.title.as_deref()).await;
    if args.no_wait {
        if find::is_play_down(&play) {
            play = wake.wake_play(play).await?;
        }
    } else {
        play = ready(app, &labs, &wake, play, !args.no_wait_init).await?;
        // It runs now, and what a signal leaves behind is the setup.
        underway.over(());
        let occasion = Occasion { again: args.setup, waited: !args.no_wait_init };
        setup::fresh(app, &labs, &play, occasion, &progress).await;
    }
    drop(progress);
    refresh_entries(app, &labs).await;
    if args.json {
        out::json(&Listed::new(&play, &Known::now(app)))?;
    } else {
        let state = if args.no_wait { "is starting" } else { "is running" };
        out::line(&format!("{} {state}: {}", play.shown(), ssh_command(app, &play.id)))?;
        if play.belongs_to_a_lesson() && !play.page_url.is_empty() {
            out::line(&format!("Its page: {}", printable(&play.page_url)))?;
        }
        if !ssh_config::is_managed(&app.folders) {
            let text = "For plain ssh and editors, run `labctl-ssh-proxy config-ssh` once.";
            notice::line(&app.platform.commands(text));
        }
    }
    Ok(play)
}

/// Asks what there is to ask before a start, and returns the request for it.
async fn request(labs: &Labs, name: &str, args: &Args, manifest: Option<&Manifest>) -> Result<CreatePlay> {
    let entry: CatalogEntry = consent(labs, name, args.consent).await?;
    let conditions = catalog::conditions(labs, &entry).await?;
    let questions = Questions { all: args.ask, allowed: !args.json };
    let init_conditions = conditions::choose(name, &conditions, &args.choices, questions).await?;
    let mut request = CreatePlay { init_conditions, ..CreatePlay::of(name) };
    if let Some(manifest) = manifest {
        manifest.add_to(&mut request);
    }
    Ok(request)
}

fn already_started(play: &Play) -> Error {
    let message = format!("playground {} was started before, and its choices were made then", play.shown());
    Error::new(Kind::Usage, message).with_hint("leave out -i, --ask and -f, or name an entry of the catalogue")
}

/// The playground that the command line means, or else the manifest.
async fn meant(labs: &Labs, args: &Args, manifest: Option<&Manifest>) -> Result<Startable> {
    let names = match (&args.name, manifest) {
        (Some(name), _) => return startable(labs, name).await,
        (None, Some(manifest)) => manifest.names()?,
        // The parser of the command line lets no such one through.
        (None, None) => return Err(Error::new(Kind::Usage, "there is nothing to start")),
    };
    let mut missing = None;
    for name in names {
        match catalog::entry(labs, name).await {
            Ok(entry) => return Ok(Startable::New(entry.name)),
            Err(error) if error.kind() == Kind::NotFound => missing = Some(error),
            Err(error) => return Err(error),
        }
    }
    Err(missing.unwrap_or_else(|| Error::new(Kind::Usage, "there is nothing to start")))
}

/// The meaning of NAME in `start NAME`.
enum Startable {
    Existing(Box<Play>),
    /// A host name: the existing play, or else a new one, as for a connection.
    ByName(String),
    New(String),
    /// A challenge, a tutorial or a lesson that has no playground yet.
    Attempt(Box<Content>),
}

async fn startable(labs: &Labs, name: &str) -> Result<Startable> {
    find::no_container(name)?;
    // The page of an entry of the catalogue is as good as its name.
    let page = if name.contains('/') { Reference::parse(name, &labs.sites())? } else { None };
    let name = match &page {
        Some(Reference::Playground(entry)) => entry,
        _ => name,
    };
    let (entry, is_host) = match Target::parse(name) {
        Ok(Target { playground: Playground::Name(name), .. }) => (Some(name), true),
        Ok(Target { playground: Playground::Id(_), .. }) => (None, true),
        Err(_) => (Some(name.to_owned()).filter(|name| is_label(name) && !is_id(name)), false),
    };
    let unknown = match entry {
        None => None,
        Some(entry) => match catalog::entry(labs, &entry).await {
            Ok(entry) if is_host => return Ok(Startable::ByName(entry.name)),
            Ok(entry) => return Ok(Startable::New(entry.name)),
            Err(e) if e.kind() == Kind::NotFound => Some(e),
            Err(e) => return Err(e),
        },
    };
    if let Some(play) = find::existing(labs, name).await? {
        return Ok(Startable::Existing(play.into()));
    }
    if let Some(content) = attempt::meant(labs, name).await? {
        return Ok(Startable::Attempt(content.into()));
    }
    match unknown {
        Some(e) => Err(catalog::with_nearest(labs, name, e).await),
        None => find::by_argument(labs, name).await.map(|play| Startable::Existing(play.into())),
    }
}

/// Waits until the playground can be used: its default machine accepts our key, the others are ready, and with `init`
/// the init tasks have ended. Also learns the default machine's host keys, because some clients read known hosts before
/// they connect. This takes only one tunnel session.
pub(super) async fn ready<P: Progress>(
    app: &App,
    labs: &Labs,
    wake: &Wake<'_, P>,
    play: Play,
    init: bool,
) -> Result<Play> {
    let identity = app.identity()?;
    let key = identity.authorized_key()?;
    let mut play = wake.wake_play(play).await?;
    learn_ssh(labs, wake.memory, &mut play).await;
    let default = find::machine(&play, None)?.clone();
    if !play.has_no_ssh(&default.name) {
        let visitor = Visitor { machine: &default.name, user: default.default_user(), key: &key };
        match wake.tunnel(play.clone(), visitor).await {
            Ok(session) => {
                let aliases = [Target::of_play(&play.id, Some(&default.name)).to_string(), host(&play)];
                let whose = learn::Owner {
                    play: &play.id,
                    shown: &play.shown(),
                    machine: &default.name,
                    aliases: &aliases,
                    user: default.default_user(),
                    identity: &identity,
                };
                learn::record(&app.known_hosts(), whose, || labs.dial(&session, tunnel::SSH)).await?;
                let to = (default.name.as_str(), default.default_user());
                place_relay(app, labs, &play, to, identity, session).await;
            }
            // The playground runs nevertheless. A later connection reports why it is refused.
            Err(error) if error.status() == Some(400) => {
                let text = format!(
                    "labctl-ssh-proxy: {} is running, but without SSH access: {}",
                    play.shown(),
                    error.message()
                );
                wake.progress.above(&text);
            }
            Err(error) => return Err(error),
        }
        play = labs.play(&play.id).await?;
    }
    let tasks = if init { Tasks::Init } else { Tasks::None };
    let (memory, progress, deadline) = (wake.memory, wake.progress, Some(wake.deadline));
    let play = Preparation { labs, memory, key: &key, progress, tasks, deadline }.wait(play).await?;
    say_failed(&play, tasks, app.platform, progress);
    Ok(play)
}

/// Records that the user wants this playground to run, under its id and under the name that connections may use.
pub(crate) fn wanted(memory: &Memory, play: &Play) {
    memory.deliberate(&play.id);
    let name = attempt::label(play);
    if is_label(&name) {
        memory.deliberate(&name);
    }
}
