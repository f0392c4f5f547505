//! `list --watch`: the playgrounds as they change.
//!
//! Three sources tell of changes. The platform's live messages tell of the states of the playgrounds that are up. The
//! work of other processes of this program shows in the time of a folder and in the status files of connections, which
//! are looked at twice a second: that costs two system calls and a small folder's listing, needs nothing of the
//! operating system, and works in network homes, too, where change notifications do not. The rest, changes on the site
//! and the time that is left, is asked for every ten seconds.

mod model;
mod view;

use std::{
    future::Future,
    io,
    path::PathBuf,
    pin::Pin,
    time::{Duration, SystemTime},
};

use futures_util::future::OptionFuture;
use tokio::{
    sync::mpsc,
    time::{Instant, Interval, MissedTickBehavior, interval},
};

use self::{model::Model, view::View};
use super::{choice::Choice, entries::entries_of, listed::Known};
use crate::{
    app::App,
    error::{Error, Kind, Result},
    labs::{Labs, find, messages::Told, wire::Play},
    platform::Platform,
    records::{aliases, live, names},
    ssh_config,
    ui::stdio,
    wake::preparation::learn_ssh,
};

/// Between two questions to the platform for changes that its messages do not tell.
const ASK_EVERY: Duration = Duration::from_secs(10);
/// The pause before a question after a change here, so that many changes at once lead to one question.
const ASK_AGAIN: Duration = Duration::from_secs(1);
/// The pause without a login. Questions are of no use before the next login, which shows at once.
const ASK_WITHOUT_LOGIN: Duration = Duration::from_secs(60);
/// Between two looks at this program's own traces.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Shows the playgrounds until the reader leaves: a line of JSON at each change, or on a terminal a table. With
/// `figures` the bytes and round trips of connections are changes, too.
///
/// # Errors
/// Fails when standard output is closed. A failure to ask the platform is shown, and asking goes on.
pub(super) async fn watch(app: &App, choice: Choice, json: bool, figures: bool) -> Result<()> {
    let closed = |e: io::Error| Error::new(Kind::Usage, format!("standard output is closed: {e}"));
    let mut output = stdio::output().map_err(closed)?;
    let mut watcher = Watcher::new(app, choice);
    let mut view = View::new(json, figures);
    loop {
        watcher.ask_if_due();
        tokio::select! {
            () = output.gone() => return Ok(()),
            () = watcher.take_next() => {}
        }
        let text = view.show(&watcher.model, &watcher.known)?;
        if !stdio::pass_on(&mut output, &text).await? {
            return Ok(());
        }
    }
}

/// The watch over the three sources.
struct Watcher<'a> {
    app: &'a App,
    model: Model,
    known: Known,
    told: mpsc::Receiver<Told>,
    look: Interval,
    traces: Traces,
    labs: Option<Labs>,
    /// The question to the platform, while its answer is due.
    asking: Option<Pin<Box<dyn Future<Output = Answer> + 'a>>>,
    /// The beginning of the last question.
    asked: Instant,
    /// The time of the next question.
    next: Instant,
}

type Answer = (Option<Labs>, Result<Vec<Play>>);

impl<'a> Watcher<'a> {
    fn new(app: &'a App, choice: Choice) -> Watcher<'a> {
        let (tell, told) = mpsc::channel(64);
        let mut look = interval(LOOK_EVERY);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let now = Instant::now();
        Watcher {
            app,
            model: Model::new(app.platform, choice, tell),
            known: Known::now(app),
            told,
            look,
            traces: Traces::of(app),
            labs: None,
            asking: None,
            asked: now,
            next: now,
        }
    }

    /// Begins a question to the platform when it is time for one.
    fn ask_if_due(&mut self) {
        let now = Instant::now();
        if self.asking.is_none() && now >= self.next {
            self.asked = now;
            self.next = now + ASK_EVERY;
            let known = self.model.plays().iter().map(Outline::of).collect();
            self.asking = Some(Box::pin(ask(self.app, self.labs.clone(), known)));
        }
    }

    /// Waits until one of the three sources tells something, and takes it.
    async fn take_next(&mut self) {
        tokio::select! {
            Some(answer) = OptionFuture::from(self.asking.as_mut()) => self.answered(answer),
            Some(told) = self.told.recv() => self.model.heard(told),
            _ = self.look.tick() => self.look(),
        }
    }

    fn answered(&mut self, (labs, answer): Answer) {
        self.asking = None;
        self.labs = labs;
        let error = match answer {
            Ok(plays) => return self.model.answered(self.labs.as_ref(), plays, self.asked),
            Err(error) => error,
        };
        self.next = self.next.max(self.asked + error.retry_after().unwrap_or_default());
        if error.kind() == Kind::NotLoggedIn {
            self.labs = None;
            self.next = self.asked + ASK_WITHOUT_LOGIN;
        }
        self.model.failed(error);
    }

    /// Looks at the traces of other processes, which are a reason to ask the platform.
    fn look(&mut self) {
        self.known.connections = live::all(&self.app.folders);
        let now = Traces::of(self.app);
        if now == self.traces {
            return;
        }
        if now.account != self.traces.account && self.app.platform == Platform::Labs {
            (self.labs, self.asking) = (None, None);
        }
        if now.aliases != self.traces.aliases {
            self.known.aliases = self.app.aliases();
        }
        if now.memory != self.traces.memory {
            self.known.kept = self.app.memory().kept();
        }
        self.traces = now;
        self.next = self.next.min(self.asked + ASK_AGAIN);
    }
}

/// The traces that this program's processes leave when they change something.
#[derive(PartialEq)]
struct Traces {
    memory: Option<SystemTime>,
    account: Option<SystemTime>,
    aliases: Option<SystemTime>,
}

impl Traces {
    fn of(app: &App) -> Traces {
        let changed = |path: PathBuf| std::fs::metadata(path).and_then(|found| found.modified()).ok();
        let (account, aliases) = (app.folders.account(), aliases::path(&app.folders, app.platform));
        Traces { memory: app.memory().stamp(), account: changed(account), aliases: changed(aliases) }
    }
}

/// The part of a play that shows in the ssh configuration.
#[derive(PartialEq)]
struct Outline {
    id: String,
    title: String,
    machines: usize,
    gone: bool,
}

impl Outline {
    fn of(play: &Play) -> Outline {
        let (id, title) = (play.id.clone(), play.title.clone());
        Outline { id, title, machines: play.machines.len(), gone: find::is_gone(play) }
    }
}

/// Asks for all plays, and keeps the ssh configuration current where they differ from `before`.
async fn ask(app: &App, labs: Option<Labs>, before: Vec<Outline>) -> Answer {
    // The embedded platform is started once. If it was stopped since, it stays so.
    let labs = match labs {
        Some(labs) => labs,
        None => match app.labs().await {
            Ok(labs) => labs.without_repetition(),
            Err(error) => return (None, Err(error)),
        },
    };
    let mut plays = find::all(&labs).await.map_err(|e| match (app.platform, e.kind()) {
        (Platform::Local, Kind::Network) => Error::new(Kind::Network, "the embedded platform is not running")
            .with_hint("start it with any --local command, such as `labctl-ssh-proxy list`"),
        _ => e,
    });
    for play in plays.iter_mut().flatten() {
        learn_ssh(&labs, &app.memory(), play).await;
    }
    if let Ok(plays) = &plays
        && !plays.iter().map(Outline::of).eq(before)
    {
        names::remember_plays(&app.folders, app.platform, plays);
        if let Err(error) = refresh(app, &labs, plays).await {
            log::warn!("the ssh configuration is not up to date: {}", error.message());
        }
    }
    (Some(labs), plays)
}

/// Brings the ssh configuration up to date, if it is ours.
async fn refresh(app: &App, labs: &Labs, plays: &[Play]) -> Result<()> {
    if !ssh_config::is_managed(&app.folders) {
        return Ok(());
    }
    let entries = entries_of(app, labs, plays.to_vec()).await?;
    ssh_config::refresh(&app.folders, app.platform, entries).await
}
