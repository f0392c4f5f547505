//! `containers`: the containers of a playground's machines, once or as they change.
//!
//! It is about what runs, so it wakes nothing. All machines are asked at the same time, over sessions of earlier
//! connections where there are some, and one that fails costs no other.
//!
//! - `asked`: a machine that is asked.
//! - `table`: for people.
//! - `watch`: the changes.

mod asked;
mod table;
mod watch;

use clap_complete::ArgValueCandidates;
use futures_util::future::join_all;
use helper::wire::Container;
use serde::Serialize;

use crate::{
    app::App,
    commands::{args::One, candidates, forward::find_play, running::Running},
    door::Door,
    error::{Error, Kind, Result},
    labs::{find, wire::Machine},
    target::{Target, is_label},
    ui::{
        notice::{self, Progress},
        out::{self, Details},
        spinner::Spinner,
    },
    wake::check_running,
};

/// List the containers of a playground's machines: their images, states and ports, and how to ssh there.
#[derive(Debug, clap::Args)]
#[command(after_help = "It is about what runs, so it starts nothing. With --watch, the machines tell of changes by \
                  themselves, and a connection that is lost is made again.")]
pub(crate) struct Args {
    #[command(flatten)]
    one: One,
    /// Only the containers of this machine.
    #[arg(short, long, add = ArgValueCandidates::new(candidates::machines))]
    machine: Option<String>,
    /// Keep showing them as they change: redraw the table, or with --json print a line for each change on a machine.
    #[arg(long)]
    watch: bool,
}

/// The answer of a machine.
struct Answer {
    machine: String,
    /// Its host name.
    host: Target,
    found: Result<Vec<Container>>,
}

/// The same in JSON.
#[derive(Serialize)]
struct Printed<'a> {
    machine: &'a str,
    host: String,
    #[serde(flatten)]
    found: Found<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "lowercase")]
enum Found<'a> {
    Containers(Vec<Listed<'a>>),
    Error(Details<'a>),
}

#[derive(Serialize)]
struct Listed<'a> {
    host: String,
    #[serde(flatten)]
    container: &'a Container,
}

impl Answer {
    fn printed(&self) -> Printed<'_> {
        let listed = |container| Listed { host: self.host_of(container), container };
        let found = match &self.found {
            Ok(containers) => Found::Containers(containers.iter().map(listed).collect()),
            Err(error) => Found::Error(error.into()),
        };
        Printed { machine: &self.machine, host: self.host.to_string(), found }
    }

    /// The host name of a container. Empty where it has no label, or one that is none.
    fn host_of(&self, container: &Container) -> String {
        let host = || self.host.clone().into_container(&container.label).to_string();
        if is_label(&container.label) { host() } else { String::new() }
    }
}

/// Lists the containers, or shows them as they change.
///
/// # Errors
/// [`Kind::NotWoken`] when the playground is stopped; the first machine's, when none has answered.
pub(crate) async fn run(app: &App, Args { one, machine, watch }: Args) -> Result<()> {
    let labs = app.labs().await?;
    let (play, machine) = find_play(&labs, &one.playground, machine.as_deref()).await?;
    check_running(&play)?;
    let machines: Vec<&Machine> = match machine {
        Some(name) => vec![find::machine(&play, Some(&name))?],
        None => play.machines.iter().filter(|machine| !play.has_no_ssh(&machine.name)).collect(),
    };
    let Some(first) = machines.first() else {
        return Err(Error::new(Kind::NotFound, format!("no machine of playground {} has SSH", play.shown())));
    };
    let door = Door::as_ssh(app, &labs, &Target::of_play(&play.id, Some(&first.name)).to_string()).await?;
    let asked: Vec<Running<'_>> =
        machines.iter().map(|machine| Running::new(app, &labs, &door, &play, &machine.name)).collect();
    if watch {
        return watch::watch(&asked, one.json).await;
    }
    let spinner = Spinner::new();
    if spinner.is_seen() {
        spinner.waiting(&format!("looking at the containers of {}", play.shown()));
    }
    let found = tokio::select! {
        found = join_all(asked.iter().map(|one| one.list(&spinner))) => found,
        never = spinner.repeat() => match never {},
    };
    drop(spinner);
    let failure =
        found.iter().all(Result::is_err).then(|| found.iter().find_map(|found| found.as_ref().err().cloned()));
    let answers: Vec<Answer> = asked.iter().zip(found).map(|(one, found)| one.answer(found)).collect();
    if !one.json {
        // The one that the command fails with is said by that.
        let errors = answers.iter().filter_map(|answer| answer.found.as_ref().err());
        let errors = errors.skip(usize::from(failure.is_some()));
        errors.for_each(|error| notice::line(&format!("labctl-ssh-proxy: {error}")));
    }
    if let Some(failure) = failure.flatten() {
        return Err(failure);
    }
    if one.json {
        #[derive(Serialize)]
        struct Machines<'a> {
            machines: Vec<Printed<'a>>,
        }
        return out::json(&Machines { machines: answers.iter().map(Answer::printed).collect() });
    }
    out::lines(table::lines(answers.iter(), table::Moment::Now))
}
