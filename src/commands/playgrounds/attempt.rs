//! Attempts at challenges, tutorials and lessons: only `start` and `open` begin one, after a question; `stop` and
//! `destroy` end it.

use tokio::time::{Instant, sleep};

use crate::{
    app::App,
    commands::{underway::Underway, visit::trust},
    error::{Error, Kind, Result, printable},
    files::Lock,
    labs::{
        Labs, find,
        learning::{self, Content},
        wire::{Action, LearningKind, Play},
    },
    records::memory::Memory,
    target::{Playground, Target, reference::Reference},
    ui::{notice::Progress, out},
    wake::{LOCK_RETRY, TAKES_EFFECT},
};

use super::stop::LOOK_EVERY;

/// The answers that the command line gives to the questions before an attempt.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Answers {
    /// `--yes`: begin the attempt.
    pub yes: bool,
    /// `--consent`: its author is trusted.
    pub consent: bool,
    /// `--json`, with which nothing is asked.
    pub json: bool,
}

/// The content that an argument means which no playground of the user's and no entry of the catalogue matches.
///
/// # Errors
/// The platform's, and those of [`learning::content`].
pub(crate) async fn meant(labs: &Labs, argument: &str) -> Result<Option<Content>> {
    let reference = match Target::parse(argument) {
        Ok(Target { playground: Playground::Name(name), machine: None, .. }) => Some(Reference::Name(name)),
        Ok(_) => None,
        Err(_) => Reference::parse(argument, &labs.sites())?,
    };
    match reference {
        Some(reference) => learning::content(labs, &reference).await,
        None => Ok(None),
    }
}

/// The name by which connections may find a play: of its content, else of its catalogue entry.
pub(super) fn label(play: &Play) -> String {
    play.learning().map_or_else(|| play.playground.name.clone(), |learning| learning.name)
}

/// The play of an attempt: the one that goes on, else that of a new one, after the user's consent.
///
/// # Errors
/// [`Kind::NotFound`] for a lesson without a playground, [`Kind::Declined`] for a no, [`Kind::Usage`] where nothing can
/// be asked, and the platform's.
pub(crate) async fn begin(
    app: &App,
    labs: &Labs,
    content: &Content,
    answers: Answers,
    underway: &Underway<'_>,
    progress: &impl Progress,
) -> Result<Play> {
    if content.has_no_playground() {
        return Err(learning::no_playground(content));
    }
    if let Some(play) = going_on(labs, content).await? {
        return Ok(play);
    }
    agree(labs, content, answers).await?;
    underway.requests(&content.name);
    let memory = app.memory();
    progress.waiting(&format!("beginning {content}"));
    // Another process, or a browser, may have begun it while the question was open.
    let _lock = lock(&memory, content, progress).await?;
    if let Some(play) = going_on(labs, &content.again(labs).await?).await? {
        return Ok(play);
    }
    let play = request(labs, content, progress).await?;
    app.tunnels().forget(&content.name);
    memory.note_acted();
    Ok(play)
}

/// Asks for the consents that an attempt takes.
async fn agree(labs: &Labs, content: &Content, answers: Answers) -> Result<()> {
    const NOTHING: &str = "Nothing was started.";
    if !answers.consent && content.needs_consent(labs).await? {
        trust(&content.to_string(), &content.strangers()).await?;
    }
    if !answers.yes {
        let title = printable(&content.title);
        let counts = match content.kind {
            LearningKind::Challenge | LearningKind::Tutorial => "It counts as an attempt.",
            LearningKind::Lesson => "It counts as your progress in the course.",
        };
        let question = format!("Begin {content}, \"{title}\"? {counts}");
        out::agreed(&question, answers.json, NOTHING, out::ADD_YES).await?;
    }
    Ok(())
}

/// The play of the attempt that goes on, if there is one.
async fn going_on(labs: &Labs, content: &Content) -> Result<Option<Play>> {
    let Some(id) = &content.play else { return Ok(None) };
    match labs.play(id).await {
        Ok(play) => Ok(Some(play).filter(|play| !find::is_gone(play))),
        Err(e) if e.kind() == Kind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

/// Takes the lock under which the attempt is requested.
async fn lock(memory: &Memory, content: &Content, progress: &impl Progress) -> Result<Lock> {
    let label = format!("{} {}", content.kind, content.name);
    let limit = Instant::now() + TAKES_EFFECT;
    loop {
        match memory.try_wake_lock(&label)? {
            Some(lock) => return Ok(lock),
            None if Instant::now() > limit => {
                return Err(Error::new(Kind::NotYet, format!("another process is beginning {content}"))
                    .with_hint("try again in a moment"));
            }
            None => {
                progress.waiting(&format!("waiting for another process that is beginning {content}"));
                sleep(LOCK_RETRY).await;
            }
        }
    }
}

/// Requests the attempt, with one request. If its answer is lost, the platform tells whether it has begun, because
/// another request could count as a second attempt.
async fn request(labs: &Labs, content: &Content, progress: &impl Progress) -> Result<Play> {
    let error = match content.change(labs, true).await {
        Ok(begun) => {
            if let Some(play) = going_on(labs, &begun).await? {
                return Ok(play);
            }
            Error::new(Kind::Answer, format!("the platform began {content}, and named no playground"))
        }
        Err(error) if error.may_have_happened() || error.kind() == Kind::Answer => error,
        Err(error) => return Err(error),
    };
    log::warn!("{}: checking whether it has begun", error.message());
    progress.waiting(&format!("beginning {content}: the answer was lost; checking whether it has begun"));
    let until = Instant::now() + TAKES_EFFECT;
    while Instant::now() < until {
        sleep(LOOK_EVERY).await;
        let Ok(now) = content.again(labs).await else { continue };
        if let Ok(Some(play)) = going_on(labs, &now).await {
            return Ok(play);
        }
    }
    Err(error
        .context(format!("it is not known whether {content} has begun"))
        .lasting()
        .with_hint("it may have begun: check `labctl-ssh-proxy list`, and begin it again only if it is not there"))
}

/// Ends the attempt that a play belongs to, which erases the play. A play whose content is gone is erased by itself.
///
/// # Errors
/// The platform's.
pub(super) async fn end(labs: &Labs, play: &Play) -> Result<()> {
    if let Some(content) = learning::of_play(labs, play).await? {
        match content.change(labs, false).await {
            Err(e) if e.kind() == Kind::NotFound => {}
            done => return done.map(drop),
        }
    }
    labs.act(&play.id, &Action::Destroy).await.map(drop)
}
