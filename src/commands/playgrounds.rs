//! The commands about playgrounds: list, catalog, start, stop, restart, destroy, extend, rename, persist.
//!
//! Each waits until it is so. Those that change which playgrounds there are also bring the ssh configuration up to date,
//! where `config-ssh` was ever run.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::{
    app::App,
    error::{Error, Kind, Result, printable},
    labs::{
        Labs, find,
        wire::{Action, CatalogEntry, Play, State},
    },
    moment::{Moment, ago, now},
    records::{live, memory::Memory, names},
    target::{Target, is_label},
    ui::{
        notice::{self, Progress},
        out,
        spinner::Spinner,
    },
    wake::{LOCK_RETRY, Wake, preparation::learn_ssh},
};

mod entries;
mod listed;
mod start;
mod tasks;

pub use entries::entries;
use entries::refresh_with;
pub(crate) use entries::{entries_of, refresh_entries};
pub use listed::Listed;
use listed::{host, time_left};
pub(crate) use listed::{in_order, table};
use start::ready;
pub use start::{Start, start};
pub(crate) use start::{consent, learn_keys};
pub use tasks::{tasks, wait};

/// Instead of an empty list.
pub(crate) const NONE: &str = "No playgrounds. `labctl-ssh-proxy catalog` shows what can be started.";
/// Between two looks at a state that is being waited for.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// A wake that is being asked for has been answered by then, or given up: longer than any request may take.
const WAKE_IS_SENT: Duration = Duration::from_secs(40);
/// A stop or an erasure that takes longer than this has gone wrong; the official client waits as long, since big disks
/// are uploaded.
const END_LIMIT: Duration = Duration::from_secs(5 * 60);

/// `list`: the playgrounds that can be connected to, running ones first; all of them with `all`.
///
/// # Errors
/// The platform's.
pub async fn list(app: &App, all: bool, json: bool) -> Result<()> {
    let labs = app.labs().await?;
    let mut plays = find::all(&labs).await?;
    let memory = app.memory();
    for play in &mut plays {
        learn_ssh(&labs, &memory, play).await;
    }
    refresh_with(app, &labs, &plays).await;
    in_order(&mut plays, all);
    let connections = live::all(&app.folders);
    if json {
        let listed = |play: &Play| {
            let stopped = find::is_play_down(play).then(|| memory.read(&play.id)).transpose()?;
            let stopped_on_purpose = stopped.map(|record| record.stopped.is_some());
            let mut listed = Listed::new(play, &connections);
            listed.stopped_on_purpose = stopped_on_purpose;
            Ok(listed)
        };
        return out::json(&plays.iter().map(listed).collect::<Result<Vec<_>>>()?);
    }
    if plays.is_empty() {
        notice::line(&app.platform.commands(NONE));
        return Ok(());
    }
    out::lines(table(&plays, &connections))
}

/// `catalog`: what can be started.
///
/// # Errors
/// The platform's.
pub async fn catalog(app: &App, json: bool) -> Result<()> {
    let mut entries: Vec<CatalogEntry> = app.labs().await?.catalog().await?;
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    names::remember_catalog(&app.folders, app.platform, &entries);
    if json {
        return out::json(&entries);
    }
    let rows = entries.iter().map(|entry| {
        let by = if entry.owner.is_empty() { "the platform" } else { &entry.owner };
        vec![printable(&entry.name), printable(&entry.title), printable(by), printable(&entry.description)]
    });
    out::table(&["NAME", "TITLE", "BY", "DESCRIPTION"], rows.collect())
}

/// The play of a command that acts on all of its machines.
async fn whole(labs: &Labs, argument: &str) -> Result<Play> {
    if let Ok(Target { machine: Some(machine), .. }) = Target::parse(argument) {
        let message = format!("{argument} is one machine, and this acts on the whole playground");
        return Err(Error::new(Kind::Usage, message).with_hint(format!("leave out `.{machine}`")));
    }
    find::by_argument(labs, argument).await
}

/// `stop`: it keeps its disks, and stays stopped until somebody wants it back.
///
/// # Errors
/// The platform's.
pub async fn stop(app: &App, argument: &str) -> Result<()> {
    let labs = app.labs().await?;
    let play = whole(&labs, argument).await?;
    let memory = app.memory();
    // First of all: an editor that reconnects the moment it stops must find this.
    memory.note_stopped(&play.id)?;
    app.tunnels().forget(&play.id);
    let progress = Spinner::new();
    // A wake that was decided before may be on its way to the platform: what it comes to is stopped, too.
    let machines = play.machines.iter().map(|machine| format!("{}.{}", play.id, machine.name));
    for label in machines.chain([play.id.clone()]) {
        if memory.read(&label)?.wake.is_some() {
            no_wake_on_its_way(&memory, &label, &progress).await?;
        }
    }
    let play = labs.play(&play.id).await?;
    if play.state() != Some(&State::Stopped) {
        stop_and_wait(&labs, &play, &progress).await?;
        memory.note_acted();
    }
    drop(progress);
    out::line(&format!("{} is stopped", host(&play)))
}

/// Waits until nobody is asking the platform for a restart any more.
async fn no_wake_on_its_way(memory: &Memory, label: &str, progress: &Spinner) -> Result<()> {
    let limit = Instant::now() + WAKE_IS_SENT;
    while memory.try_wake_lock(label)?.is_none() {
        if Instant::now() > limit {
            return Err(Error::new(Kind::NotYet, format!("another connection is just waking playground {label}"))
                .with_hint("stop it again; a connection that was halted with Ctrl-Z has to go on, or be ended"));
        }
        progress.waiting(&format!("waiting for a wake of playground {label} that is on its way"));
        sleep(LOCK_RETRY).await;
    }
    Ok(())
}

async fn stop_and_wait(labs: &Labs, play: &Play, progress: &Spinner) -> Result<()> {
    progress.waiting(&format!("stopping playground {}", play.id));
    let mut play =
        if find::is_play_down(play) { play.clone() } else { labs.act_and_look(&play.id, &Action::Stop).await? };
    let limit = Instant::now() + END_LIMIT;
    loop {
        match play.state() {
            Some(State::Stopped) => return Ok(()),
            Some(state) if find::is_gone(&play) => {
                return Err(Error::new(Kind::Ended, format!("playground {} did not stop but is {state}", play.id)));
            }
            _ if Instant::now() > limit => {
                return Err(Error::new(Kind::NotYet, format!("playground {} does not stop", play.id))
                    .with_hint("see `labctl-ssh-proxy list`"));
            }
            _ => sleep(LOOK_EVERY).await,
        }
        play = labs.play(&play.id).await?;
    }
}

/// `restart`: a stopped one comes back; a running one is stopped first. With `init` it waits for the tasks that prepare
/// it, which run once in a playground's life: there may be some left.
///
/// # Errors
/// The platform's, and what keeps the machines from becoming ready.
pub async fn restart(app: &App, argument: &str, init: bool) -> Result<()> {
    let labs = app.labs().await?;
    let play = whole(&labs, argument).await?;
    let memory = app.memory();
    wanted(&memory, &play)?;
    app.tunnels().forget(&play.id);
    let progress = Spinner::new();
    if !find::is_gone(&play) {
        stop_and_wait(&labs, &play, &progress).await?;
    }
    // The sessions that this stop cut off may come back.
    wanted(&memory, &play)?;
    let wake = Wake::wanted(&labs, &memory, &progress, app.settings.wake_limit());
    let play = labs.play(&play.id).await?;
    ready(app, &labs, &wake, play.clone(), init).await?;
    drop(progress);
    out::line(&format!("{} is running", host(&play)))
}

/// Somebody wants this playground, by whichever name, to run.
///
/// # Errors
/// When that cannot be remembered.
pub fn wanted(memory: &Memory, play: &Play) -> Result<()> {
    memory.deliberate(&play.id)?;
    let name = &play.playground.name;
    if is_label(name) { memory.deliberate(name) } else { Ok(()) }
}

/// `destroy`: it is erased, and so is what we know of it.
///
/// # Errors
/// The platform's; [`Kind::Interrupted`] when the person at the terminal says no.
pub async fn destroy(app: &App, argument: &str, yes: bool) -> Result<()> {
    let labs = app.labs().await?;
    let play = whole(&labs, argument).await?;
    let question = format!("Erase {} ({}) and everything in it?", host(&play), printable(&play.title));
    if !yes && out::confirm(&question).await == Some(false) {
        return Err(Error::new(Kind::Interrupted, "nothing was erased"));
    }
    let progress = Spinner::new();
    progress.waiting(&format!("erasing playground {}", play.id));
    let began = now();
    labs.act(&play.id, &Action::Destroy).await?;
    app.memory().note_acted();
    let limit = Instant::now() + END_LIMIT;
    loop {
        match labs.play(&play.id).await {
            Ok(play) if matches!(play.state(), Some(State::Destroyed | State::Failed)) => break,
            Err(e) if e.kind() == Kind::NotFound => break,
            Err(e) if e.kind() != Kind::NotYet => return Err(e),
            Ok(_) | Err(_) if Instant::now() > limit => {
                return Err(Error::new(Kind::NotYet, format!("playground {} is not gone yet", play.id))
                    .with_hint("see `labctl-ssh-proxy list --all`"));
            }
            Ok(_) | Err(_) => sleep(LOOK_EVERY).await,
        }
    }
    drop(progress);
    app.forget(&play.id).await?;
    let name = &play.playground.name;
    if is_label(name) {
        app.memory().note_over(name, &play.id, began)?;
    }
    app.memory().note_acted();
    refresh_entries(app, &labs).await;
    out::line(&format!("{} is erased", host(&play)))
}

/// `extend`: as many minutes more, and never less than there was.
///
/// # Errors
/// The platform's; [`Kind::Refused`] when it grants less.
pub async fn extend(app: &App, argument: &str, minutes: u64) -> Result<()> {
    let labs = app.labs().await?;
    let play = whole(&labs, argument).await?;
    let left = play.expires_in;
    // The platform counts the whole time from the play's start, in minutes. What is left is a part of it, or the whole was
    // no such time.
    let whole = play.lifetime().filter(|whole| *whole >= left).unwrap_or_else(|| running_for(&labs, &play) + left);
    let total = whole.as_secs().div_ceil(60) + minutes;
    let play = labs.act_and_look(&play.id, &Action::SetMaxPlayTime { minutes: total }).await?;
    app.memory().note_acted();
    if play.expires_in < left + Duration::from_secs(minutes * 60 / 2) {
        let message = format!("the platform leaves playground {} {} and no more", play.id, time_left(&play));
        return Err(Error::new(Kind::Refused, message).with_hint("your plan may limit how long a playground runs"));
    }
    out::line(&format!("{} runs for {} more{}", host(&play), time_left(&play), then(app, &labs, &play).await))
}

/// The end of a sentence about a play's end: what becomes of it then.
async fn then(app: &App, labs: &Labs, play: &Play) -> String {
    let text = match find::is_kept(labs, play).await {
        Some(true) => ", then it is stopped and kept".into(),
        Some(false) => format!(", then it is erased: `labctl-ssh-proxy persist {}` keeps it", play.id),
        None => format!(", then it is erased unless it is persistent (`labctl-ssh-proxy persist {}`)", play.id),
    };
    app.platform.commands(&text)
}

/// The time since a play's last start, by the platform's clock.
fn running_for(labs: &Labs, play: &Play) -> Duration {
    let events = play.status.as_ref().map(|status| status.state_events.as_slice()).unwrap_or_default();
    let run = events.iter().rposition(|event| matches!(event.state, State::Stopped | State::Stopping));
    let began = events.get(run.map_or(0, |i| i + 1)).map_or(play.created_at.as_str(), |event| event.at.as_str());
    let began = began.parse::<jiff::Timestamp>().or_else(|_| play.created_at.parse());
    let began = began.ok().and_then(|began| Moment::try_from(began.as_millisecond()).ok());
    began.map(|began| ago(labs.by_our_clock(began))).unwrap_or_default()
}

/// `rename`.
///
/// # Errors
/// The platform's.
pub async fn rename(app: &App, argument: &str, title: &str) -> Result<()> {
    let labs = app.labs().await?;
    let play = whole(&labs, argument).await?;
    let play = labs.act_and_look(&play.id, &Action::SetTitle { title: title.to_owned() }).await?;
    app.memory().note_acted();
    refresh_entries(app, &labs).await;
    out::line(&format!("{} is called {}", host(&play), printable(&play.title)))
}

/// `persist`: at its end it is stopped and kept, where it would be erased.
///
/// # Errors
/// The platform's.
pub async fn persist(app: &App, argument: &str) -> Result<()> {
    let labs = app.labs().await?;
    let play = whole(&labs, argument).await?;
    labs.act(&play.id, &Action::MakePersistent).await?;
    app.memory().note_acted();
    out::line(&format!("{} is kept: at its end it is stopped, not erased", host(&play)))
}
