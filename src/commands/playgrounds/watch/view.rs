//! The playgrounds as they are shown: lines of JSON, or a table.

use serde::Serialize;

use super::model::Model;
use crate::{
    commands::playgrounds::listed::{self, Known, Listed},
    error::{Error, Kind, Result, printable},
    labs::wire::Play,
    ui::screen::Pages,
};

/// An end that moves by less than this many seconds has not moved: answers take their time, and count whole seconds.
const SAME_END: u64 = 15;

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

/// The form in which they are shown, and the last text.
pub(super) enum View {
    Json { shown: Shown, figures: bool },
    Text(Pages),
}

/// The last line of JSON.
#[derive(PartialEq)]
pub(super) enum Shown {
    Nothing,
    /// The playgrounds without the figures that always move, unless these were asked for; and their ends, in seconds
    /// since 1970.
    Playgrounds(Vec<Listed>, Vec<i64>),
    Error(String),
}

impl View {
    /// A view that has shown nothing yet. A screen is taken for it.
    pub(super) fn new(json: bool, figures: bool) -> View {
        if json {
            return View::Json { shown: Shown::Nothing, figures };
        }
        View::Text(Pages::new())
    }

    /// The text to write now, which is empty if nothing has changed.
    pub(super) fn show(&mut self, model: &Model, known: &Known) -> Result<String> {
        if model.is_empty() {
            return Ok(String::new());
        }
        let plays = model.current();
        match self {
            View::Json { shown, figures } => {
                let listed: Vec<Listed> = plays.iter().map(|play| Listed::new(play, known)).collect();
                let (line, now) = match model.error() {
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
            View::Text(pages) => Ok(pages.show(lines(model, &plays, known))),
        }
    }
}

impl Shown {
    fn is_still(&self, now: &Shown) -> bool {
        match (self, now) {
            (Shown::Playgrounds(then, ends), Shown::Playgrounds(now, new_ends)) => {
                then == now && ends.iter().zip(new_ends).all(|(a, b)| a.abs_diff(*b) <= SAME_END)
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

/// The table, and below it the reason why it may be out of date.
fn lines(model: &Model, plays: &[Play], known: &Known) -> Vec<String> {
    let mut lines = if plays.is_empty() { vec![model.none()] } else { listed::table(plays, known) };
    for status in known.connections.iter().filter(|status| !status.message.is_empty()) {
        lines.push(format!("{}: {}", printable(&status.host), printable(&status.message)));
    }
    if let Some(error) = model.error() {
        lines.push(String::new());
        lines.extend(error.to_string().lines().map(str::to_owned));
    }
    lines
}
