//! How playgrounds are shown: as a table, and as JSON in the API's own names.

use serde::Serialize;

use crate::{
    app::App,
    error::{Result, printable},
    labs::{
        find,
        wire::{MachineUser, Play, PlaygroundRef},
    },
    records::live::{self, Status},
    target::Target,
    ui::out,
};

/// Instead of an empty list.
pub(crate) const NONE: &str = "No playgrounds. `labctl-ssh-proxy catalog` shows what can be started.";

/// A playground as `list --json` shows it, in the API's own names.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Listed {
    id: String,
    title: String,
    state: String,
    playground: PlaygroundRef,
    machines: Vec<ListedMachine>,
    created_at: String,
    /// Seconds.
    expires_in: u64,
    page_url: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    persistent: Option<bool>,
    /// The tasks that prepare it, where it has any.
    #[serde(skip_serializing_if = "Option::is_none")]
    init_tasks: Option<InitTasks>,
    /// All of its tasks.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tasks: Vec<ListedTask>,
    /// What ssh calls it.
    host: String,
    /// The connections that this user has to it now.
    connections: Vec<Status>,
    /// Whether it was stopped on purpose with this tool, and nobody has wanted it since. `list` knows, `--watch` does not
    /// ask.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) stopped_on_purpose: Option<bool>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
struct ListedMachine {
    name: String,
    host: String,
    state: String,
    ready: bool,
    /// False where the platform is known to allow no SSH access.
    ssh: bool,
    users: Vec<MachineUser>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
struct ListedTask {
    name: String,
    /// A word: see [`TaskStatus::word`](crate::labs::wire::TaskStatus::word).
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
    pub(crate) fn new(play: &Play, connections: &[Status]) -> Listed {
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
                        state: status.map(|status| status.state.to_string()).unwrap_or_default(),
                        ready: status.is_some_and(|status| status.is_ready()),
                        ssh: !play.has_no_ssh(&machine.name),
                        users: machine.users.clone(),
                    }
                })
                .collect(),
            created_at: play.created_at.clone(),
            expires_in: play.expires_in.as_secs(),
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
            host: host(play),
            connections: connections.iter().filter(|status| status.playground == play.id).cloned().collect(),
            stopped_on_purpose: None,
        }
    }

    /// What is worth telling when it changes: without the time left, and unless somebody wants them without the figures
    /// that move all the time.
    pub(crate) fn outline(&self, figures: bool) -> Listed {
        if figures {
            return Listed { expires_in: 0, ..self.clone() };
        }
        let quiet = |status: &Status| Status { sent: 0, received: 0, round_trip_ms: None, ..status.clone() };
        Listed { expires_in: 0, connections: self.connections.iter().map(quiet).collect(), ..self.clone() }
    }
}

/// Reports what a command did to a playground: the sentence, or the playground as it is now in JSON.
///
/// # Errors
/// When standard output cannot be written.
pub(super) fn report(app: &App, play: &Play, json: bool, sentence: &str) -> Result<()> {
    if json { out::json(&Listed::new(play, &live::all(&app.folders))) } else { out::line(sentence) }
}

/// The list as it is shown: running ones first, the newest first; without those that are gone unless it is to have
/// all.
pub(crate) fn in_order(plays: &mut Vec<Play>, all: bool) {
    plays.retain(|play| all || !find::is_gone(play));
    plays.sort_by_key(|play| (find::is_play_down(play), std::cmp::Reverse(play.created_at.clone())));
}

/// The list as a table.
pub(crate) fn table(plays: &[Play], connections: &[Status]) -> Vec<String> {
    let row = |play: &Play| {
        let open = connections.iter().filter(|status| status.playground == play.id).count();
        vec![
            host(play),
            printable(&play.title),
            printable(&play.playground.name),
            play.state().map(|state| state.as_str().to_lowercase()).unwrap_or_default(),
            time_left(play),
            if open == 0 { String::new() } else { open.to_string() },
        ]
    };
    let head = ["HOST", "TITLE", "PLAYGROUND", "STATE", "TIME LEFT", "OPEN"];
    out::table_lines(&head, plays.iter().map(row).collect(), &["PLAYGROUND", "OPEN", "TIME LEFT", "TITLE"])
}

pub(super) fn time_left(play: &Play) -> String {
    if find::is_play_down(play) || find::is_gone(play) || play.expires_in.is_zero() {
        return String::new();
    }
    match play.expires_in.as_secs() {
        seconds @ ..60 => format!("{seconds}s"),
        seconds @ ..3600 => format!("{}m", seconds / 60),
        seconds => format!("{}h{:02}m", seconds / 3600, seconds % 3600 / 60),
    }
}

pub(super) fn host(play: &Play) -> String {
    Target::of_play(&play.id, None).to_string()
}
