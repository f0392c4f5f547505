//! The presentation of playgrounds: as a table, and as JSON with the API's names.

use std::{collections::BTreeMap, time::Duration};

use jiff::fmt::friendly::{Spacing, SpanPrinter};
use serde::Serialize;

use crate::{
    app::App,
    error::{Result, printable},
    hold::reach::expiry,
    keep,
    labs::{
        find,
        wire::{Learning, MachineUser, Play, PlaygroundRef},
    },
    moment::Moment,
    records::{
        aliases::Aliases,
        live::{self, Phase, Status},
        memory::Keep,
    },
    target::{Target, is_label},
    ui::out,
};

/// This program's records of playgrounds, beside the platform's answers.
pub(crate) struct Known {
    pub(crate) connections: Vec<Status>,
    pub(crate) aliases: Aliases,
    pub(crate) kept: BTreeMap<String, Keep>,
}

impl Known {
    /// Reads them.
    pub(crate) fn now(app: &App) -> Known {
        Known { connections: live::all(&app.folders), aliases: app.aliases(), kept: app.memory().kept() }
    }

    /// The steps that have led to the play's present end; `None` for an end of its own.
    fn kept(&self, play: &Play) -> Option<Kept> {
        let (keep, end) = (self.kept.get(&play.id)?, expiry(play)?);
        let is_ours = keep.steps > 0 && keep::is_same(keep.end, end);
        is_ours.then_some(Kept { steps: keep.steps, first_end: keep.first_end })
    }
}

/// A playground that is kept while it is used.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Kept {
    /// The number of steps.
    steps: u32,
    /// Its end without them, in ms since 1970.
    first_end: Moment,
}

/// A playground in `list --json`, with the API's names.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Listed {
    id: String,
    title: String,
    state: String,
    playground: PlaygroundRef,
    machines: Vec<ListedMachine>,
    created_at: String,
    /// The remaining time in seconds.
    expires_in: u64,
    /// The whole time from its start, in seconds, where the platform tells it.
    #[serde(skip_serializing_if = "Option::is_none")]
    lifetime: Option<u64>,
    page_url: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    persistent: Option<bool>,
    /// The progress of the init tasks, if there are any.
    #[serde(skip_serializing_if = "Option::is_none")]
    init_tasks: Option<InitTasks>,
    /// All tasks.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tasks: Vec<ListedTask>,
    /// The challenge, tutorial or lesson that it belongs to.
    #[serde(skip_serializing_if = "Option::is_none")]
    learning: Option<Learning>,
    /// The host name for ssh.
    host: String,
    /// The readable one beside it.
    #[serde(skip_serializing_if = "Option::is_none")]
    alias: Option<String>,
    /// This user's open connections to the playground.
    connections: Vec<Status>,
    /// The steps that have moved its end, while it was used.
    #[serde(skip_serializing_if = "Option::is_none")]
    kept: Option<Kept>,
    /// True if the user stopped it with this tool and has not asked for it since. Set by `list` but not by `--watch`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) stopped_on_purpose: Option<bool>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
struct ListedMachine {
    name: String,
    host: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    alias: Option<String>,
    state: String,
    ready: bool,
    /// False if the machine is known to have no SSH access.
    ssh: bool,
    users: Vec<MachineUser>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
struct ListedTask {
    name: String,
    /// One word, from [`TaskStatus::word`](crate::labs::wire::TaskStatus::word).
    status: &'static str,
    init: bool,
    helper: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
struct InitTasks {
    done: usize,
    total: usize,
}

impl Listed {
    pub(crate) fn new(play: &Play, known: &Known) -> Listed {
        let Known { connections, aliases, .. } = known;
        let alias = aliases.label(&play.id);
        let with_ssh = play.machines.iter().filter(|machine| !play.has_no_ssh(&machine.name)).count();
        Listed {
            id: play.id.clone(),
            title: play.title.clone(),
            state: play.state().map(ToString::to_string).unwrap_or_default(),
            playground: PlaygroundRef { machines: Vec::new(), ..play.playground.clone() },
            machines: play
                .machines
                .iter()
                .map(|machine| {
                    let status = play.machine_status(&machine.name);
                    ListedMachine {
                        name: machine.name.clone(),
                        host: Target::of_play(&play.id, Some(&machine.name)).to_string(),
                        // As the ssh configuration has it.
                        alias: alias.filter(|_| !play.has_no_ssh(&machine.name)).and_then(|alias| match with_ssh {
                            1 => Some(alias.to_owned()),
                            _ => is_label(&machine.name).then(|| format!("{alias}.{}", machine.name)),
                        }),
                        state: status.map(|status| status.state.to_string()).unwrap_or_default(),
                        ready: status.is_some_and(|status| status.is_ready()),
                        ssh: !play.has_no_ssh(&machine.name),
                        users: machine.users.clone(),
                    }
                })
                .collect(),
            created_at: play.created_at.clone(),
            expires_in: play.expires_in.as_secs(),
            lifetime: play.lifetime().map(|whole| whole.as_secs()),
            page_url: play.page_url.clone(),
            persistent: play.persistent,
            init_tasks: play.init_progress().map(|(done, total)| InitTasks { done, total }),
            tasks: play
                .tasks
                .values()
                .map(|task| ListedTask {
                    name: task.name.clone(),
                    status: task.status.word(),
                    init: task.init,
                    helper: task.helper,
                })
                .collect(),
            learning: play.learning(),
            host: host(play),
            alias: alias.map(str::to_owned),
            connections: connections.iter().filter(|status| status.playground == play.id).cloned().collect(),
            kept: known.kept(play),
            stopped_on_purpose: None,
        }
    }

    /// Returns a copy for detecting changes: without the remaining time and, unless `figures` is set, without the
    /// figures of connections, which change all the time.
    pub(crate) fn outline(&self, figures: bool) -> Listed {
        if figures {
            return Listed { expires_in: 0, ..self.clone() };
        }
        let quiet = |status: &Status| Status { sent: 0, received: 0, round_trip_ms: None, ..status.clone() };
        Listed { expires_in: 0, connections: self.connections.iter().map(quiet).collect(), ..self.clone() }
    }
}

/// Prints the result of a command: the sentence, or the playground's new state as JSON.
///
/// # Errors
/// Fails when standard output cannot be written.
pub(in crate::commands) fn report(app: &App, play: &Play, json: bool, sentence: &str) -> Result<()> {
    if json { out::json(&Listed::new(play, &Known::now(app))) } else { out::line(sentence) }
}

/// The column of the readable names, which is there if a playground has one.
const ALIAS: usize = 1;

/// Formats the list as a table.
pub(crate) fn table(plays: &[Play], known: &Known) -> Vec<String> {
    let Known { connections, aliases, .. } = known;
    let row = |play: &Play| {
        let own = || connections.iter().filter(|status| status.playground == play.id);
        let (open, away) = (own().count(), own().filter(|status| status.phase == Phase::Away).count());
        vec![
            host(play),
            aliases.label(&play.id).unwrap_or_default().to_owned(),
            printable(&play.title),
            play.learning().map_or_else(|| printable(&play.playground.name), |of| of.to_string()),
            play.state().map(|state| state.as_str().to_lowercase()).unwrap_or_default(),
            match known.kept(play) {
                Some(_) => format!("{} kept", time_left(play)),
                None => time_left(play),
            },
            match (open, away) {
                (0, _) => String::new(),
                (_, 0) => open.to_string(),
                _ => format!("{open} ({away} away)"),
            },
        ]
    };
    let mut head = vec!["HOST", "ALIAS", "TITLE", "PLAYGROUND", "STATE", "TIME LEFT", "CONNECTIONS"];
    let mut rows: Vec<Vec<String>> = plays.iter().map(row).collect();
    if rows.iter().all(|row| row[ALIAS].is_empty()) {
        head.remove(ALIAS);
        rows.iter_mut().for_each(|row| drop(row.remove(ALIAS)));
    }
    // An alias says what a title says, and can be typed.
    let expendable = out::Expendable { early: &["PLAYGROUND", "CONNECTIONS"], late: &["TIME LEFT", "TITLE", "ALIAS"] };
    out::table_lines(&head, rows, &expendable)
}

pub(super) fn time_left(play: &Play) -> String {
    if find::is_play_down(play) || find::is_gone(play) || play.expires_in.is_zero() {
        return String::new();
    }
    in_words(play.expires_in)
}

/// Formats a time in whole minutes, or seconds below a minute.
pub(super) fn in_words(time: Duration) -> String {
    let seconds = time.as_secs();
    let whole = if seconds < 60 { seconds } else { seconds / 60 * 60 };
    AS_WRITTEN.unsigned_duration_to_string(&Duration::from_secs(whole))
}

/// Durations as commands take them: `7h59m`, `45s`.
const AS_WRITTEN: SpanPrinter = SpanPrinter::new().spacing(Spacing::None);

pub(super) fn host(play: &Play) -> String {
    Target::of_play(&play.id, None).to_string()
}
