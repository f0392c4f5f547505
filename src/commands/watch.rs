//! `list --watch`: the playgrounds as they change.
//!
//! Three sources tell of changes. The platform's live messages tell of the states of the playgrounds that are up. What
//! other processes of this program do shows in the time of a folder and in the status files of connections, which are
//! looked at twice a second: that costs two system calls and a small folder's listing, needs nothing of the operating
//! system and works in network homes, too, where change notifications do not. Everything else, what others do on the
//! site and how long there is left, is asked for every ten seconds.

use std::{
    collections::HashMap,
    future::Future,
    io::{self, IsTerminal},
    pin::Pin,
    time::{Duration, SystemTime},
};

use futures_util::{SinkExt, StreamExt, future::OptionFuture};
use serde::Serialize;
use tokio::{
    io::AsyncWriteExt,
    sync::mpsc,
    task::JoinHandle,
    time::{Instant, MissedTickBehavior, interval, timeout},
};
use tokio_websockets::{ClientBuilder, Limits, Message as Frame};

use crate::{
    app::App,
    commands::playgrounds::{self, listed::Listed},
    error::{Error, Kind, Result, printable},
    labs::{
        self, Labs, find,
        tunnel::Pings,
        wire::{Message, Play, State, Status as PlayStatus, Task},
    },
    platform::Platform,
    records::{
        live::{self, Status},
        names,
    },
    ssh_config,
    ui::{out, stdio},
    wake::preparation::learn_ssh,
};

/// How often the platform is asked for what its messages do not tell.
const ASK_EVERY: Duration = Duration::from_secs(10);
/// When something was done here, it is asked sooner, but not for each thing of many.
const ASK_AGAIN: Duration = Duration::from_secs(1);
/// Without a login, asking is of no use until somebody logs in, and that shows at once.
const ASK_WITHOUT_LOGIN: Duration = Duration::from_secs(60);
/// How often this program's own traces are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Live messages may be far between, so their stream is pinged; one that stays silent is dead, as after a laptop's sleep.
const PING_EVERY: Duration = Duration::from_secs(20);
/// More playgrounds than anybody runs at once; of others a change is seen when they are asked about.
const MAX_FOLLOWED: usize = 50;
/// A status is some KiB.
const MAX_MESSAGE: usize = 1024 * 1024;
/// An end that moves by less than this has not moved: answers take their time, and count whole seconds.
const SAME_END: i64 = 15;

/// Shows the playgrounds until nobody looks any more: a line of JSON at each change, or on a terminal a table. With
/// `figures` the bytes and round trips of connections are changes, too.
///
/// # Errors
/// When standard output is closed. That the platform cannot be asked is shown, and asking goes on.
pub async fn watch(app: &App, all: bool, json: bool, figures: bool) -> Result<()> {
    let closed = |e: io::Error| Error::new(Kind::Usage, format!("standard output is closed: {e}"));
    let mut output = stdio::output().map_err(closed)?;
    let (tell, mut told) = mpsc::channel(64);
    let mut model = Model {
        all,
        platform: app.platform,
        tell,
        plays: Vec::new(),
        asked: None,
        followed: HashMap::new(),
        error: None,
    };
    let mut view = View::new(json, figures);
    let mut look = interval(LOOK_EVERY);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut traces = Traces::of(app);
    let mut connections = live::all(&app.folders);
    let mut labs: Option<Labs> = None;
    let mut asking: Option<Pin<Box<dyn Future<Output = Answer> + '_>>> = None;
    let mut began = Instant::now();
    let mut next = began;
    loop {
        if asking.is_none() && Instant::now() >= next {
            began = Instant::now();
            next = began + ASK_EVERY;
            asking = Some(Box::pin(ask(app, labs.clone(), model.plays.iter().map(Outline::of).collect())));
        }
        tokio::select! {
            () = output.gone() => return Ok(()),
            Some((with, answer)) = OptionFuture::from(asking.as_mut()) => {
                asking = None;
                labs = with;
                match answer {
                    Ok(plays) => model.answered(labs.as_ref(), plays, began),
                    Err(error) => {
                        next = next.max(began + error.retry_after().unwrap_or_default());
                        if error.kind() == Kind::NotLoggedIn {
                            labs = None;
                            next = began + ASK_WITHOUT_LOGIN;
                        }
                        model.error = Some(error.on(app.platform));
                    }
                }
            }
            Some(news) = told.recv() => model.heard(news),
            _ = look.tick() => {
                connections = live::all(&app.folders);
                let now = Traces::of(app);
                if now != traces {
                    if now.account != traces.account && app.platform == Platform::Labs {
                        (labs, asking) = (None, None);
                    }
                    traces = now;
                    next = next.min(began + ASK_AGAIN);
                }
            }
        }
        let text = view.show(&model, &connections)?;
        match output.write_all(text.as_bytes()).await {
            Ok(()) => output.flush().await.map_err(closed)?,
            Err(e) if e.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
            Err(e) => return Err(Error::new(Kind::File, format!("cannot write to standard output: {e}"))),
        }
    }
}

/// What this program's processes leave when they do something.
#[derive(PartialEq)]
struct Traces {
    memory: Option<SystemTime>,
    account: Option<SystemTime>,
}

impl Traces {
    fn of(app: &App) -> Traces {
        let account = std::fs::metadata(app.folders.account()).and_then(|found| found.modified()).ok();
        Traces { memory: app.memory().stamp(), account }
    }
}

/// What the ssh configuration says of a play.
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

type Answer = (Option<Labs>, Result<Vec<Play>>);

/// Asks for all plays, and keeps the ssh configuration true where it changes.
async fn ask(app: &App, labs: Option<Labs>, before: Vec<Outline>) -> Answer {
    // The embedded platform is started once, and not again when somebody has stopped it since.
    let labs = match labs {
        Some(labs) => labs,
        None => match app.labs().await {
            Ok(labs) => labs.without_repetition(),
            Err(error) => return (None, Err(error)),
        },
    };
    let mut plays = find::all(&labs).await.map_err(|e| match (app.platform, e.kind()) {
        (Platform::Local, Kind::Network) => Error::new(Kind::Network, "the embedded platform does not run")
            .with_hint("any --local command starts it: labctl-ssh-proxy --local list"),
        _ => e,
    });
    for play in plays.iter_mut().flatten() {
        learn_ssh(&labs, &app.memory(), play).await;
    }
    if let Ok(plays) = &plays
        && !plays.iter().map(Outline::of).eq(before)
    {
        names::remember_plays(&app.folders, app.platform, plays);
        if !ssh_config::is_managed(&app.folders) {
            return (Some(labs), Ok(plays.clone()));
        }
        let refreshed = match playgrounds::entries::entries_of(app, &labs, plays.clone()).await {
            Ok(entries) => ssh_config::refresh(&app.folders, app.platform, entries).await,
            Err(error) => Err(error),
        };
        if let Err(error) = refreshed {
            log::warn!("the ssh configuration is not up to date: {}", error.message());
        }
    }
    (Some(labs), plays)
}

/// What a play's live messages tell; each names the play.
#[derive(Debug)]
pub enum News {
    /// Its whole new status.
    Status(String, PlayStatus),
    /// How far a task is.
    Task(String, Task),
    /// No more of them for now.
    Over(String),
}

/// Passes a play's live messages on, as long as there are any.
pub async fn follow(labs: Labs, id: String, tell: mpsc::Sender<News>) {
    match labs.live(&id).await {
        Ok(stream) => {
            let limits = Limits::default().max_payload_len(Some(MAX_MESSAGE));
            let mut stream = ClientBuilder::new().limits(limits).take_over(stream);
            let (mut pinged, mut pings) = (false, Pings::new());
            loop {
                let frame = match timeout(PING_EVERY, stream.next()).await {
                    Ok(Some(Ok(frame))) if !frame.is_close() && !pings.end_with(&frame) => frame,
                    Ok(Some(Ok(_) | Err(_)) | None) => break,
                    Err(_) if pinged => break,
                    Err(_) => {
                        pinged = true;
                        if !matches!(timeout(PING_EVERY, stream.send(Frame::ping(""))).await, Ok(Ok(()))) {
                            break;
                        }
                        continue;
                    }
                };
                pinged = false;
                let news = match labs::message(&frame) {
                    Some(Message::Status { status }) => News::Status(id.clone(), status),
                    Some(Message::Task { task, .. }) => News::Task(id.clone(), task),
                    Some(Message::Other) | None => continue,
                };
                if tell.send(news).await.is_err() {
                    return;
                }
            }
        }
        Err(error) => log::debug!("no live messages of {id}: {}", error.message()),
    }
    // Nobody to tell means that the watch is over.
    let _ = tell.send(News::Over(id)).await;
}

/// The live messages of one play.
struct Followed {
    task: JoinHandle<()>,
    /// When the last one came.
    heard: Option<Instant>,
}

impl Drop for Followed {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What is known.
struct Model {
    all: bool,
    platform: Platform,
    tell: mpsc::Sender<News>,
    plays: Vec<Play>,
    /// When the platform was asked for them.
    asked: Option<Instant>,
    followed: HashMap<String, Followed>,
    /// Why it could not be asked the last time.
    error: Option<Error>,
}

impl Model {
    fn answered(&mut self, labs: Option<&Labs>, mut plays: Vec<Play>, began: Instant) {
        for play in &mut plays {
            // A message that came while the platform was answering is newer.
            let newer = self.followed.get(&play.id).is_some_and(|followed| followed.heard > Some(began));
            if let (true, Some(old)) = (newer, self.plays.iter().find(|old| old.id == play.id)) {
                (play.status, play.tasks) = (old.status.clone(), old.tasks.clone());
            }
        }
        self.plays = plays;
        self.asked = Some(began);
        self.error = None;
        let up = |play: &&Play| play.state() != Some(&State::Stopped) && !find::is_gone(play);
        let up: Vec<&Play> = self.plays.iter().filter(up).collect();
        self.followed.retain(|id, _| up.iter().any(|play| play.id == *id));
        if let Some(labs) = labs {
            for play in up.into_iter().take(MAX_FOLLOWED) {
                let task = || tokio::spawn(follow(labs.clone(), play.id.clone(), self.tell.clone()));
                let entry = self.followed.entry(play.id.clone());
                entry.or_insert_with(|| Followed { task: task(), heard: None });
            }
        }
    }

    fn heard(&mut self, news: News) {
        let (News::Status(id, _) | News::Task(id, _) | News::Over(id)) = &news;
        let Some(followed) = self.followed.get_mut(id) else { return };
        followed.heard = Some(Instant::now());
        let play = self.plays.iter_mut().find(|play| play.id == *id);
        match (news, play) {
            (News::Status(_, status), Some(play)) => play.status = Some(status),
            (News::Task(_, task), Some(play)) => play.note(task),
            // The next answer begins anew.
            (News::Over(id), _) => drop(self.followed.remove(&id)),
            (News::Status(..) | News::Task(..), None) => {}
        }
    }

    /// The plays in the order of the list, with the time that is left now.
    fn current(&self) -> Vec<Play> {
        let since = self.asked.map(|asked| asked.elapsed()).unwrap_or_default();
        let mut plays = self.plays.clone();
        for play in plays.iter_mut().filter(|play| !play.expires_in.is_zero()) {
            play.expires_in = play.expires_in.saturating_sub(since).max(Duration::from_secs(1));
        }
        playgrounds::listed::in_order(&mut plays, self.all);
        plays
    }
}

/// A line of `list --watch --json`.
#[derive(Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum Line<'a> {
    Playgrounds {
        playgrounds: &'a [Listed],
    },
    Error {
        kind: &'static str,
        message: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        hint: Option<&'a str>,
    },
}

/// How it is shown, and what was shown last.
enum View {
    Json { shown: Shown, figures: bool },
    Text { terminal: bool, last: String },
}

/// The last line of JSON.
#[derive(PartialEq)]
enum Shown {
    Nothing,
    /// Without what moves all the time and is not asked for; and when each playground ends, in seconds since 1970.
    Playgrounds(Vec<Listed>, Vec<i64>),
    Error(String),
}

impl View {
    fn new(json: bool, figures: bool) -> View {
        if json {
            return View::Json { shown: Shown::Nothing, figures };
        }
        let terminal = io::stdout().is_terminal();
        if terminal {
            // The other screen, so that ours comes back as it was; and no cursor.
            screen("\x1b[?1049h\x1b[?25l");
        }
        View::Text { terminal, last: String::new() }
    }

    /// What is to be written now; nothing when nothing has changed.
    fn show(&mut self, model: &Model, connections: &[Status]) -> Result<String> {
        if model.asked.is_none() && model.error.is_none() {
            return Ok(String::new());
        }
        let plays = model.current();
        match self {
            View::Json { shown, figures } => {
                let listed: Vec<Listed> = plays.iter().map(|play| Listed::new(play, connections)).collect();
                let (line, now) = match &model.error {
                    Some(error) => {
                        let (kind, message, hint) = (error.kind().name(), error.message(), error.hint());
                        (Line::Error { kind, message, hint }, Shown::Error(error.to_string()))
                    }
                    None => {
                        let ends = plays.iter().map(end).collect();
                        let outline = listed.iter().map(|one| one.outline(*figures)).collect();
                        (Line::Playgrounds { playgrounds: &listed }, Shown::Playgrounds(outline, ends))
                    }
                };
                if shown.is_still(&now) {
                    return Ok(String::new());
                }
                *shown = now;
                let line = serde_json::to_string(&line).map_err(|e| Error::new(Kind::Internal, e.to_string()))?;
                Ok(line + "\n")
            }
            View::Text { terminal, last } => {
                let lines = lines(model.platform, &plays, connections, model.error.as_ref());
                let text = if *terminal { page(lines) } else { lines.join("\n") + "\n\n" };
                if text == *last {
                    return Ok(String::new());
                }
                last.clone_from(&text);
                Ok(text)
            }
        }
    }
}

impl Shown {
    fn is_still(&self, now: &Shown) -> bool {
        match (self, now) {
            (Shown::Playgrounds(then, ends), Shown::Playgrounds(now, new_ends)) => {
                then == now && ends.iter().zip(new_ends).all(|(a, b)| a.abs_diff(*b) <= SAME_END.unsigned_abs())
            }
            (Shown::Nothing | Shown::Playgrounds(..) | Shown::Error(_), now) => self == now,
        }
    }
}

/// A play's end, in seconds since 1970; 0 when it has none.
fn end(play: &Play) -> i64 {
    let left = i64::try_from(play.expires_in.as_secs()).unwrap_or_default();
    if left > 0 { jiff::Timestamp::now().as_second().saturating_add(left) } else { 0 }
}

/// The table, and below it why it may be out of date.
fn lines(platform: Platform, plays: &[Play], connections: &[Status], error: Option<&Error>) -> Vec<String> {
    let mut lines = if plays.is_empty() {
        vec![platform.commands(playgrounds::listed::NONE)]
    } else {
        playgrounds::listed::table(plays, connections)
    };
    for status in connections.iter().filter(|status| !status.message.is_empty()) {
        lines.push(format!("{}: {}", printable(&status.host), printable(&status.message)));
    }
    if let Some(error) = error {
        lines.push(String::new());
        lines.extend(error.to_string().lines().map(str::to_owned));
    }
    lines
}

/// The lines on a screen of their own, cut to what fits: a line that wraps or scrolls would spoil the next drawing.
fn page(mut lines: Vec<String>) -> String {
    let (rows, columns) = console::Term::stdout().size();
    let (rows, columns) = (usize::from(rows).max(2), usize::from(columns));
    if lines.len() > rows {
        let hidden = lines.len() - (rows - 1);
        lines.truncate(rows - 1);
        lines.push(format!("... {hidden} more lines"));
    }
    let lines: Vec<String> =
        lines.iter().map(|line| format!("{}\x1b[K", console::truncate_str(line, columns, "…"))).collect();
    format!("\x1b[H{}\x1b[J", lines.join("\r\n"))
}

fn screen(control: &str) {
    // Without a terminal there is nothing to set right.
    let _ = out::write(control);
}

impl Drop for View {
    fn drop(&mut self) {
        if let View::Text { terminal: true, .. } = self {
            screen("\x1b[?25h\x1b[?1049l");
        }
    }
}
