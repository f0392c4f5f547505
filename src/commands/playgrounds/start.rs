//! `start`: from a name to machines that answer.

use super::{
    entries::refresh_entries,
    listed::{Listed, host},
    wanted,
};
use crate::{
    app::App,
    error::{Error, Kind, Result, printable},
    labs::{
        Labs, TunnelSession, catalog, find,
        wire::{Action, Play},
    },
    records::live,
    ssh::{known_hosts::Whose, learn},
    target::{Playground, Target, is_label},
    ui::{notice::Progress, out, spinner::Spinner},
    wake::{
        Visitor, Wake,
        preparation::{Preparation, Tasks, learn_ssh, say_failed},
    },
};

/// What `start` was asked to do.
#[derive(Clone, Debug, Default)]
pub struct Start {
    /// A catalogue name, or the id, host name or title of a stopped playground.
    pub name: String,
    /// What to call it.
    pub title: Option<String>,
    /// Do not wait for the machines.
    pub no_wait: bool,
    /// Do not wait for the tasks that prepare it.
    pub no_wait_init: bool,
    /// Print JSON.
    pub json: bool,
    /// The user trusts the author of a playground that is not the platform's.
    pub consent: bool,
}

/// `start`: a new playground from the catalogue, or a stopped one again.
///
/// # Errors
/// The platform's, and what keeps the machines from becoming ready.
pub async fn start(app: &App, request: &Start) -> Result<Play> {
    let labs = app.labs().await?;
    let progress = Spinner::new();
    let memory = app.memory();
    let wake = Wake::wanted(&labs, &memory, &progress, app.settings.wake_limit());
    let mut play = match startable(&labs, &request.name).await? {
        Startable::Existing(play) => *play,
        Startable::ByName(name) => {
            consent(&labs, &name, request.consent).await?;
            wake.start_once(&name).await?
        }
        Startable::New(name) => {
            consent(&labs, &name, request.consent).await?;
            wake.start_new(&name).await?
        }
    };
    wanted(&memory, &play)?;
    // A name may mean this one from now on.
    app.tunnels().forget(&play.id);
    app.tunnels().forget(&play.playground.name);
    if let Some(title) = &request.title {
        play = labs.act_and_look(&play.id, &Action::SetTitle { title: title.clone() }).await?;
        memory.note_acted();
    }
    if request.no_wait {
        if find::is_play_down(&play) {
            play = wake.wake_play(play).await?;
        }
    } else {
        play = ready(app, &labs, &wake, play, !request.no_wait_init).await?;
    }
    drop(progress);
    refresh_entries(app, &labs).await;
    if request.json {
        out::json(&Listed::new(&play, &live::all(&app.folders)))?;
    } else {
        let state = if request.no_wait { "is starting" } else { "is running" };
        out::line(&format!("{} {state}: ssh {}", play.shown(), host(&play)))?;
    }
    Ok(play)
}

/// What `start NAME` means.
enum Startable {
    Existing(Box<Play>),
    /// As a connection to that name would: the one there is, else a new one.
    ByName(String),
    New(String),
}

async fn startable(labs: &Labs, name: &str) -> Result<Startable> {
    match Target::parse(name) {
        Ok(Target { playground: Playground::Name(name), .. }) => Ok(Startable::ByName(name)),
        Ok(Target { playground: Playground::Id(id), .. }) => {
            Ok(Startable::Existing(find::by_id(labs, &id).await?.into()))
        }
        Err(_) if crate::platform::is_id(name) => Ok(Startable::Existing(find::by_id(labs, name).await?.into())),
        Err(_) if is_label(name) => match catalog::entry(labs, name).await {
            Ok(entry) => Ok(Startable::New(entry.name)),
            Err(e) if e.kind() == Kind::NotFound => {
                find::by_argument(labs, name).await.map(|play| Startable::Existing(play.into())).map_err(|_| e)
            }
            Err(e) => Err(e),
        },
        Err(_) => Ok(Startable::Existing(find::by_argument(labs, name).await?.into())),
    }
}

/// Sees that the user consents to what is about to be started: a stranger's playground takes a yes.
///
/// # Errors
/// [`Kind::Refused`] when the user has not; the platform's.
pub(crate) async fn consent(labs: &Labs, name: &str, given: bool) -> Result<()> {
    let entry = catalog::entry(labs, name).await?;
    if !catalog::needs_consent(labs, &entry).await? {
        return Ok(());
    }
    let question = format!("playground {name} is by {}, who decides what runs in it. Do you trust them?", entry.owner);
    if given || out::confirm(&question).await == Some(true) {
        return Ok(());
    }
    Err(Error::new(Kind::Refused, format!("playground {name} is by {}, not by the platform", printable(&entry.owner)))
        .with_hint("if you trust its author, add --consent"))
}

/// Waits until the playground can be used: its default machine lets us in, the others are ready, and with `init` the tasks
/// that prepare it are at their end. Learns the default machine's host keys, since some clients read known hosts before they
/// connect; that one tunnel is all that the platform is asked for.
pub(super) async fn ready<P: Progress>(
    app: &App,
    labs: &Labs,
    wake: &Wake<'_, P>,
    play: Play,
    init: bool,
) -> Result<Play> {
    let key = app.identity()?.authorized_key()?;
    let mut play = wake.wake_play(play).await?;
    learn_ssh(labs, wake.memory, &mut play).await;
    let default = find::machine(&play, None)?.clone();
    if !play.has_no_ssh(&default.name) {
        let visitor = Visitor { machine: &default.name, user: default.default_user(), key: &key };
        match wake.tunnel(play.clone(), visitor).await {
            Ok(session) => {
                let aliases = [Target::of_play(&play.id, Some(&default.name)).to_string(), host(&play)];
                learn_keys(app, labs, &session, &play.id, &default.name, &aliases).await?;
            }
            // It runs all the same. A connection to it hears why it is refused.
            Err(error) if error.status() == Some(400) => {
                let text = format!("labctl-ssh-proxy: {} runs without ssh: {}", play.shown(), error.message());
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

/// Learns a machine's host keys, unless they are known.
///
/// # Errors
/// When a key is not the one on record, or cannot be recorded.
pub(crate) async fn learn_keys(
    app: &App,
    labs: &Labs,
    session: &TunnelSession,
    play: &str,
    machine: &str,
    aliases: &[String],
) -> Result<()> {
    let known_hosts = app.known_hosts();
    let is_known = |alias: &String| {
        known_hosts.knows(Whose { alias, play, machine }).is_ok_and(|algorithms| !algorithms.is_empty())
    };
    if aliases.iter().all(is_known) {
        return Ok(());
    }
    let keys = match learn::host_keys(|| labs.dial(session, ":22")).await {
        Ok(keys) => keys,
        // The first connection learns it.
        Err(e) => {
            log::warn!("{}", e.message());
            return Ok(());
        }
    };
    for key in &keys {
        for alias in aliases {
            known_hosts.confirm(Whose { alias, play, machine }, key)?;
        }
    }
    Ok(())
}
