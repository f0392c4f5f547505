//! The user's own setup of a fresh machine: a folder of this computer, or a git repository, by the convention of
//! Codespaces ("Personalizing GitHub Codespaces for your account" in GitHub's docs). Its first script runs, or else its
//! dotfiles are linked into the home, where nothing that is there is replaced.
//!
//! `archive` is a folder of this computer as it is sent, `talk` the conversation with a machine, and the two scripts are
//! the machine's side.
//!
//! # States
//!
//! They are the machine's, so that other computers see them, in `~/.local/state/labctl-ssh-proxy/setup`. Each run has a
//! folder with the next number there, which only one process can make. The last run counts:
//!
//! - `running`: its owner, which the folder names, lives. That is the shell that takes the files, later the process that
//!   limits the time. Others wait for it.
//! - `ended`, well or not: never begun again by itself, and noted here ([`crate::records::memory::Machine::is_set_up`]), so
//!   that the machine is not asked again.
//! - `abandoned`: neither. The connection was lost before the files were there, or the machine was stopped. The next
//!   `start` or `open` begins another run.
//!
//! Once the files are there, a run needs no connection, so a closed laptop or a signal does not end it.

mod archive;
mod talk;
#[cfg(all(test, target_os = "linux"))]
mod trials;

use std::{path::Path, time::Duration};

use futures_util::future::join_all;
use tokio::time::timeout;

use self::{
    archive::Archive,
    talk::{Ended, Job, Status},
};
use crate::{
    app::App,
    door::{self, Door},
    error::{Error, Kind, Result, printable},
    labs::{
        Labs, catalog,
        wire::{Machine, Play},
    },
    records::setups,
    settings::Setup,
    target::{Target, is_label},
    ui::{notice::Progress, spinner::Spinner},
    wake::{self, preparation},
};

/// Time limit for a setup, with everything that it takes.
const LIMIT: Duration = Duration::from_secs(10 * 60);
/// Time beyond that for the way to the machine, and for the end of its processes.
const SLACK: Duration = Duration::from_secs(60);
/// Number of dotfiles that a sentence names.
const NAMED: usize = 5;

/// The occasion of a setup.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Occasion {
    /// Repeat setups that have ended.
    pub again: bool,
    /// The init tasks were waited for. Otherwise they must have ended by themselves.
    pub waited: bool,
}

/// Sets up the machines of `play` that were not set up yet, and says how that has ended. Nothing of that is an error, because
/// the machines run.
pub(crate) async fn fresh(app: &App, labs: &Labs, play: &Play, occasion: Occasion, progress: &Spinner) {
    let again = occasion.again;
    let say = |text: String| progress.above(&app.platform.commands(&format!("labctl-ssh-proxy: {text}")));
    let (setup, is_for_this) = app.setup(&[&play.id, &play.playground.name]);
    if *setup == Setup::None {
        if again {
            say(format!("{} is not set up: the settings say `setup: none` for it", play.shown()));
        }
        return;
    }
    let is_set_up = app.memory().read(&play.id).map(|record| record.machines).unwrap_or_default();
    let is_meant = |machine: &&Machine| {
        let is_reached =
            is_label(&machine.name) && !play.has_no_ssh(&machine.name) && !wake::is_down(play, &machine.name);
        is_reached && (again || !is_set_up.get(&machine.name).is_some_and(|known| known.is_set_up))
    };
    let machines: Vec<&Machine> = play.machines.iter().filter(is_meant).collect();
    if machines.is_empty() || !(occasion.waited || is_prepared(labs, play).await) {
        return;
    }
    if let Some(why) = barred(labs, play, is_for_this).await {
        let text = format!("{} is not set up: {why}", play.shown());
        if again {
            say(text)
        } else {
            log::info!("{text}")
        }
        return;
    }
    if again {
        // The next `start` asks how it has ended, if this one does not hear of it.
        let noted = app.memory().change(&play.id, |record| {
            for machine in &machines {
                record.machines.entry(machine.name.clone()).or_default().is_set_up = false;
            }
        });
        if let Err(error) = noted {
            log::warn!("{}", error.message());
        }
    }
    let work = async {
        let prepared = async {
            let archive = match setup {
                Setup::Folder(path) => Some(archive(app, path)?),
                Setup::Address(_) | Setup::None => None,
            };
            let door = match Door::unasked(app, labs).await {
                Ok(door) => door,
                Err(_) => Door::as_ssh(app, labs, &Target::of_play(&play.id, None).to_string()).await?,
            };
            Ok::<_, Error>((archive, door))
        };
        let (archive, door) = match prepared.await {
            Ok(prepared) => prepared,
            Err(error) => return say(not_begun(play, &play.shown(), &error, again)),
        };
        let names: Vec<&str> = machines.iter().map(|machine| machine.name.as_str()).collect();
        progress.waiting(&format!("setting up {} of {}", names.join(", "), play.shown()));
        let address = match setup {
            Setup::Address(address) => address,
            Setup::Folder(_) | Setup::None => "",
        };
        let job = &Job { archive: archive.as_ref(), address, again, limit: LIMIT };
        let each = machines.iter().map(async |machine| {
            say(one(app, &door, play, machine, job, progress).await);
        });
        join_all(each).await;
    };
    tokio::select! {
        () = work => {}
        never = progress.repeat() => match never {},
    }
}

/// True if no init task is awaited. A play from a list may lack its tasks.
async fn is_prepared(labs: &Labs, play: &Play) -> bool {
    labs.play(&play.id).await.is_ok_and(|play| preparation::is_prepared(&play))
}

fn archive(app: &App, path: &Path) -> Result<Archive> {
    let home = &app.folders.home;
    Archive::of(&path.strip_prefix("~").map_or_else(|_| path.to_owned(), |rest| home.join(rest)), home)
}

/// Checks the folders that the settings name. Returns each with what is wrong with it.
pub(crate) fn check(app: &App) -> Vec<(&Path, Option<Error>)> {
    let own = app.settings.playgrounds.values().map(|own| &own.setup);
    let mut folders: Vec<&Path> = own
        .chain([&app.settings.setup])
        .filter_map(|setup| if let Some(Setup::Folder(path)) = setup { Some(path.as_path()) } else { None })
        .collect();
    folders.sort_unstable();
    folders.dedup();
    folders.into_iter().map(|path| (path, archive(app, path).err())).collect()
}

/// The reason why a playground is not set up. With `is_for_this`, the user has named it.
async fn barred(labs: &Labs, play: &Play, is_for_this: bool) -> Option<String> {
    if play.belongs_to_a_lesson() {
        return Some("it belongs to a challenge, a tutorial or a lesson".to_owned());
    }
    if is_for_this {
        return None;
    }
    let name = printable(&play.playground.name);
    let allowed = format!("`playgrounds: {{{name}: {{setup: ...}}}}` in the settings allows it");
    match is_strangers(labs, play).await {
        Ok(false) => None,
        Ok(true) => Some(format!("its author is neither the platform nor you; {allowed}")),
        Err(error) => Some(format!("its author is not known ({}); {allowed}", error.message())),
    }
}

/// True for a playground by another author than the platform and the user.
async fn is_strangers(labs: &Labs, play: &Play) -> Result<bool> {
    let mut entry = labs.catalog_entry(&play.playground.name).await?;
    if entry.owner.is_empty() {
        entry.owner.clone_from(&play.playground.owner);
    }
    catalog::needs_consent(labs, &entry).await
}

/// Sets up a machine. Returns the sentence about it.
async fn one(app: &App, door: &Door<'_>, play: &Play, machine: &Machine, job: &Job<'_>, progress: &Spinner) -> String {
    let subject = format!("machine {} of {}", machine.name, play.shown());
    let login = door::login(play, &machine.name, machine.default_user());
    let leaving = Leaving::new(app, progress, &subject);
    let talk = async {
        let client = door.open(&login, None).await?;
        let ended = talk::hold(&client, job, || leaving.note_begun()).await;
        client.close().await;
        ended
    };
    let late = |_| Err(Error::new(Kind::Network, format!("{subject} does not say how its setup has ended")));
    let ended = timeout(LIMIT + SLACK, talk).await.unwrap_or_else(late);
    let is_begun = leaving.over();
    match ended {
        Ok(ended) => told(app, play, machine, &subject, &ended),
        Err(error) if is_begun => {
            let why = error.message();
            format!(
                "the setup of {subject} goes on there if it runs: {why}; the next `start` or `open` waits for its end"
            )
        }
        Err(error) => not_begun(play, &subject, &error, job.again),
    }
}

fn not_begun(play: &Play, subject: &str, error: &Error, again: bool) -> String {
    let hint = error.hint().map(|hint| format!(" ({hint})")).unwrap_or_default();
    let next = match again {
        true => format!("`labctl-ssh-proxy start {} --setup` attempts it again", play.id),
        false => "the next `start` or `open` attempts it again".to_owned(),
    };
    format!("{subject} was not set up: {}{hint}; {next}", error.message())
}

/// Records the end of a setup. Returns the sentence about it.
fn told(app: &App, play: &Play, machine: &Machine, subject: &str, ended: &Ended) -> String {
    let log = setups::keep(&app.folders, &play.id, &machine.name, &ended.log);
    let log =
        log.map_or_else(|error| error.message().to_owned(), |path| format!("its output is in {}", path.display()));
    if ended.status == Status::Lost {
        return format!("the setup of {subject} was cut off there; {log}, and the next `start` or `open` repeats it");
    }
    let noted = app.memory().change(&play.id, |record| {
        record.machines.entry(machine.name.clone()).or_default().is_set_up = true;
    });
    if let Err(error) = noted {
        log::warn!("{}", error.message());
    }
    if let Some(why) = ended.why(LIMIT) {
        let repeat = format!("`labctl-ssh-proxy start {} --setup`", play.id);
        let last = ended.last_line().map(|line| format!(" (\"{line}\")")).unwrap_or_default();
        return format!("the setup of {subject} failed: {why}{last}; {log}, and {repeat} repeats it");
    }
    let kept = ended.kept.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", ");
    let more = if ended.kept.len() > NAMED { ", ..." } else { "" };
    match kept.is_empty() {
        true => format!("{subject} is set up"),
        false => format!("{subject} is set up; {kept}{more} stayed as it was, because nothing there is replaced"),
    }
}

/// The words for a setup that a signal leaves behind.
struct Leaving<'a> {
    app: &'a App,
    progress: &'a Spinner,
    subject: &'a str,
    state: std::cell::Cell<State>,
}

#[derive(Clone, Copy, PartialEq)]
enum State {
    Before,
    Begun,
    Over,
}

impl<'a> Leaving<'a> {
    fn new(app: &'a App, progress: &'a Spinner, subject: &'a str) -> Leaving<'a> {
        Leaving { app, progress, subject, state: State::Before.into() }
    }

    fn note_begun(&self) {
        log::info!("the setup of {} runs", self.subject);
        self.state.set(State::Begun);
    }

    /// Notes that there is nothing left behind. Returns true if it was begun.
    fn over(&self) -> bool {
        self.state.replace(State::Over) == State::Begun
    }
}

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        let text = match self.state.get() {
            State::Over => return,
            State::Before => format!("{} is not set up yet: the next `start` or `open` attempts it", self.subject),
            State::Begun => format!(
                "the setup of {} goes on there, for up to {} minutes; its output is in ~/{} on the machine",
                self.subject,
                LIMIT.as_secs() / 60,
                talk::FOLDER
            ),
        };
        self.progress.above(&self.app.platform.commands(&text));
    }
}
