//! `ports`: what listens on a playground's machines, and who reaches it.
//!
//! - `addresses`: those that a machine's servers listen on, as its kernel tells.
//! - `survey`: what the platform and our own records say, joined into one list (pure beyond its requests).
//! - `expose`, `unexpose`: an address for browsers, and its end.

mod addresses;
pub(crate) mod expose;
mod survey;
pub(crate) mod unexpose;

use clap_complete::ArgValueCandidates;

use crate::{
    app::App,
    commands::{args::One, candidates, forward::find_play},
    error::{Result, printable},
    labs::find,
    ui::{notice, out},
};

use survey::{Listening, Port, Survey};

/// List the ports of a playground: those that something listens on, and those that are exposed, forwarded or saved.
#[derive(Debug, clap::Args)]
#[command(after_help = "EXPOSED: it has an address for browsers, see `labctl-ssh-proxy expose`. FORWARDED: a running \
                  `labctl-ssh-proxy port-forward` of yours leads to it. SAVED: one that is saved with the playground \
                  leads to it.")]
pub(crate) struct Args {
    #[command(flatten)]
    one: One,
    /// Only the ports of this machine.
    #[arg(short, long, add = ArgValueCandidates::new(candidates::machines))]
    machine: Option<String>,
}

/// Lists the ports of a playground. A part that the platform does not tell costs its column only.
///
/// # Errors
/// The platform's, when it tells nothing.
pub(crate) async fn run(app: &App, Args { one, machine }: Args) -> Result<()> {
    let labs = app.labs().await?;
    let (play, machine) = find_play(&labs, &one.playground, machine.as_deref()).await?;
    let machine = machine.map(|name| find::machine(&play, Some(&name)).map(|found| found.name.clone())).transpose()?;
    let survey = Survey::make(app, &labs, &play, machine.as_deref()).await?;
    for problem in &survey.problems {
        notice::line(&format!("labctl-ssh-proxy: {}", problem.sentence()));
    }
    if one.json {
        return out::json(&survey);
    }
    if survey.ports.is_empty() && survey.shells.is_empty() {
        let whose = machine.map_or_else(|| play.shown(), |machine| format!("machine {machine} of {}", play.shown()));
        let nothing = match survey.problems.is_empty() {
            true => format!("Nothing listens on {whose}, and nothing is exposed, forwarded or saved."),
            false => format!("Nothing else is known about the ports of {whose}."),
        };
        return out::line(&nothing);
    }
    out::lines(table(&survey, play.machines.len() > 1))
}

/// A column of the table: its heading, whether it is shown, and its cell for a port.
type Column = (&'static str, bool, fn(&Port) -> String);

/// Formats the ports as a table, and below it the addresses, which users copy whole.
fn table(survey: &Survey, names_machines: bool) -> Vec<String> {
    let mut lines = Vec::new();
    if !survey.ports.is_empty() {
        let is_known = |part| survey.problems.iter().all(|problem| problem.part != part);
        let columns: Vec<Column> = vec![
            ("PORT", true, |port| port.number.to_string()),
            ("MACHINE", names_machines, |port| printable(&port.machine)),
            ("LISTENS", is_known(survey::LISTENING), listens),
            ("PROTOCOL", is_known(survey::LISTENING), |port| {
                port.protocol.map(|protocol| protocol.name().to_owned()).unwrap_or_default()
            }),
            ("EXPOSED", is_known(survey::EXPOSED), |port| {
                joined(port.exposed.iter().map(|one| printable(&one.access)))
            }),
            ("FORWARDED", true, |port| joined(port.forwards.iter().map(|one| one.local.clone()))),
            ("SAVED", is_known(survey::SAVED), |port| joined(port.saved.iter().map(|one| one.local.clone()))),
        ];
        let columns: Vec<_> = columns.into_iter().filter(|(_, is_shown, _)| *is_shown).collect();
        let head: Vec<&str> = columns.iter().map(|(name, ..)| *name).collect();
        let row = |port: &Port| columns.iter().map(|(.., cell)| cell(port)).collect();
        let expendable = out::Expendable { early: &[], late: &["SAVED", "PROTOCOL"] };
        lines.extend(out::table_lines(&head, survey.ports.iter().map(row).collect(), &expendable));
    }
    for port in &survey.ports {
        for one in &port.exposed {
            lines.push(String::new());
            lines.push(format!("{} of {}, {}:", port.number, printable(&port.machine), printable(&one.access)));
            lines.push(format!("  {}", printable(&one.url)));
        }
    }
    for shell in &survey.shells {
        lines.push(String::new());
        let (user, machine) = (printable(&shell.user), printable(&shell.machine));
        lines.push(format!("Web terminal of {user} on {machine}, {}:", printable(&shell.access)));
        lines.push(format!("  {}", printable(&shell.url)));
    }
    lines
}

fn listens(port: &Port) -> String {
    match (port.listening, port.loopback_only) {
        (Listening(Some(true)), Some(true)) => "loopback",
        (Listening(Some(true)), _) => "yes",
        (Listening(Some(false) | None), _) => "",
    }
    .to_owned()
}

fn joined(words: impl Iterator<Item = String>) -> String {
    words.collect::<Vec<_>>().join(", ")
}
