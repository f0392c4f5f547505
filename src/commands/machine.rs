//! The commands about one machine of a playground.

use clap::Subcommand;
use clap_complete::{ArgValueCandidates, ArgValueCompleter};

use crate::{
    app::App,
    commands::{candidates, forward::find_play},
    error::{Error, Kind, Result, printable},
    labs::{Labs, find, wire::Play},
    target::Target,
};

pub(in crate::commands) mod console;
mod journal;
mod power;
pub(in crate::commands) mod words;

/// Reboot, stop or restart one machine of a playground, and read its console and its journal.
#[derive(Debug, Subcommand)]
pub(crate) enum Machine {
    /// Reboot a machine, and wait until its SSH server answers again.
    Reboot(Which),
    /// Stop a machine; its playground runs on. It stays stopped until you want it back: connections do not restart it.
    Stop(Which),
    /// Start a machine that is stopped, or stop and start one that runs, and wait until its SSH server answers.
    Restart(Which),
    Console(console::Args),
    Journal(journal::Args),
}

/// The machine that a command acts on.
#[derive(Debug, clap::Args)]
pub(crate) struct Which {
    /// The playground's id, host name, alias, title, catalogue name or page address, or the host name of the machine.
    #[arg(add = ArgValueCompleter::new(candidates::playgrounds))]
    playground: String,
    /// The machine; may be left out if the playground has only one, or PLAYGROUND is the host name of a machine.
    #[arg(add = ArgValueCandidates::new(candidates::machines))]
    machine: Option<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Runs a command about a machine.
///
/// # Errors
/// The command's.
pub(crate) async fn run(app: &App, machine: Machine) -> Result<()> {
    match machine {
        Machine::Reboot(which) => power::reboot(app, which).await,
        Machine::Stop(which) => power::stop(app, which).await,
        Machine::Restart(which) => power::restart(app, which).await,
        Machine::Console(args) => console::run(app, args).await,
        Machine::Journal(args) => journal::run(app, args).await,
    }
}

impl Which {
    /// Finds the playground, and the machine's name.
    ///
    /// # Errors
    /// [`Kind::Usage`] when the arguments name two machines, or none of several; as [`find::by_argument`] and
    /// [`find::machine`].
    async fn find(&self, labs: &Labs) -> Result<(Play, String)> {
        let Which { playground, machine, .. } = self;
        if let (Some(machine), Some(Target { machine: Some(other), .. })) = (machine, find::target(labs, playground))
            && *machine != other
        {
            let message = format!("{playground} is machine {other}, and {} is another one", printable(machine));
            return Err(Error::new(Kind::Usage, message).with_hint("name one machine"));
        }
        let (play, machine) = find_play(labs, playground, machine.as_deref()).await?;
        if machine.is_none() && play.machines.len() > 1 {
            let names: Vec<_> = play.machines.iter().map(|machine| machine.name.as_str()).collect();
            let message = format!("playground {} has {} machines", play.shown(), names.len());
            return Err(Error::new(Kind::Usage, message).with_hint(format!("name one of them: {}", names.join(", "))));
        }
        let name = find::machine(&play, machine.as_deref())?.name.clone();
        Ok((play, name))
    }
}
