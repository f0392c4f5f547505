//! `containers --watch`: what the machines tell of their containers, until the reader leaves.
//!
//! Each machine has an SSH connection of its own, over which the helper tells of changes; the platform is asked for
//! nothing meanwhile. A connection that is lost is dialled again. A failure that no attempt can mend ends the watch of
//! its machine, and the last of them the command.

use std::{io, time::Duration};

use futures_util::future::join_all;
use helper::wire::Container;
use tokio::{
    sync::mpsc::{Sender, channel},
    time::{Instant, sleep},
};

use super::{Answer, table};
use crate::{
    commands::running::Running,
    error::{Error, Kind, Result},
    inside,
    labs::retry::Pauses,
    ui::{screen::Pages, stdio},
};

/// Longest pause before a machine is dialled again.
const AWAY: Duration = Duration::from_secs(10);
/// A watch of this length has ended for a new reason, so the pauses begin anew.
const LASTING: Duration = Duration::from_secs(30);

/// The news of a machine, by its place among those that are asked.
type News = (usize, Result<Vec<Container>>);

/// Shows the containers until the reader leaves.
///
/// # Errors
/// The first machine's failure, when every machine's watch has ended.
pub(super) async fn watch(machines: &[Running<'_>], json: bool) -> Result<()> {
    let closed = |e: io::Error| Error::new(Kind::Usage, format!("standard output is closed: {e}"));
    let mut output = stdio::output().map_err(closed)?;
    let (tell, mut told) = channel(16);
    let mut following = Box::pin(join_all(machines.iter().enumerate().map(|(i, one)| follow(one, i, tell.clone()))));
    let mut view = View::new(json, machines.len());
    loop {
        let (i, found) = tokio::select! {
            // News of before the end are shown before it.
            biased;
            () = output.gone() => return Ok(()),
            Some(news) = told.recv() => news,
            failures = &mut following => {
                let none = || Error::new(Kind::Internal, "no machine is watched");
                return Err(failures.into_iter().next().unwrap_or_else(none));
            }
        };
        let text = view.show(machines, i, machines[i].answer(found))?;
        if !stdio::pass_on(&mut output, &text).await? {
            return Ok(());
        }
    }
}

/// Watches a machine until a failure is final, and returns that.
async fn follow(machine: &Running<'_>, i: usize, tell: Sender<News>) -> Error {
    let mut pauses = Pauses::doubling(AWAY);
    let mut first = true;
    loop {
        let began = Instant::now();
        let Err(error) = follow_once(machine, first, async |found| drop(tell.send((i, found)).await)).await;
        let _ = tell.send((i, Err(error.clone()))).await;
        if !error.may_pass() {
            return error;
        }
        log::info!("the watch of machine {} begins again: {}", machine.machine(), error.message());
        if began.elapsed() > LASTING {
            pauses = Pauses::doubling(AWAY);
        }
        first = false;
        sleep(pauses.after(&error)).await;
    }
}

async fn follow_once(
    machine: &Running<'_>,
    first: bool,
    say: impl AsyncFn(Result<Vec<Container>>),
) -> Result<std::convert::Infallible> {
    let mut watch = inside::watch(machine.client(first, &()).await?, &()).await?;
    loop {
        say(watch.next().await?.map(|listing| listing.containers)).await;
    }
}

/// The form in which they are shown.
enum View {
    /// The last line of each machine.
    Json(Vec<String>),
    /// The last containers of each, and the reason why they may be out of date.
    Text(Pages, Vec<(Option<Answer>, Option<Error>)>),
}

impl View {
    /// A view that has shown nothing yet. A screen is taken for it.
    fn new(json: bool, machines: usize) -> View {
        if json {
            View::Json(vec![String::new(); machines])
        } else {
            View::Text(Pages::new(), (0..machines).map(|_| (None, None)).collect())
        }
    }

    /// The text to write after an answer, which is empty if it brings nothing new.
    fn show(&mut self, machines: &[Running<'_>], i: usize, answer: Answer) -> Result<String> {
        match self {
            View::Json(last) => {
                let line = serde_json::to_string(&answer.printed());
                let line = line.map_err(|e| Error::new(Kind::Internal, e.to_string()))? + "\n";
                if last[i] == line {
                    return Ok(String::new());
                }
                last[i].clone_from(&line);
                Ok(line)
            }
            View::Text(pages, last) => {
                match &answer.found {
                    Ok(_) => last[i] = (Some(answer), None),
                    Err(error) => last[i].1 = Some(error.clone()),
                }
                Ok(pages.show(lines(machines, last)))
            }
        }
    }
}

/// The tables of the machines that have answered, and below them what is missing.
fn lines(machines: &[Running<'_>], answers: &[(Option<Answer>, Option<Error>)]) -> Vec<String> {
    let mut lines = table::lines(answers.iter().filter_map(|(answer, _)| answer.as_ref()), table::Moment::Lasting);
    for (machine, answer) in machines.iter().zip(answers) {
        let words = match answer {
            (Some(_), None) => continue,
            (_, Some(error)) => error.to_string(),
            (None, None) => format!("Waiting for machine {}.", machine.machine()),
        };
        if !lines.is_empty() {
            lines.push(String::new());
        }
        lines.extend(words.lines().map(str::to_owned));
    }
    lines
}
