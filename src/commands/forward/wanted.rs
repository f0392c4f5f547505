//! The forwards that a command is to open: those of its line, and with `--restore` those that the platform keeps.

use super::{board::Board, saved, spec::Forward};
use crate::{
    error::{Error, Kind, Result},
    labs::{Labs, wire::Play},
};

/// A forward on its way to be open.
pub(super) struct Wanted {
    /// The forward.
    pub forward: Forward,
    /// True for a saved one.
    restored: bool,
}

/// All of them. A saved one that the command line has, too, counts once. With `auto`, there may be none.
///
/// # Errors
/// The platform's; [`Kind::NotFound`] and [`Kind::Usage`] when there is none.
pub(super) async fn all(
    labs: &Labs,
    play: &Play,
    machine: &str,
    typed: Vec<Forward>,
    restore: bool,
    auto: bool,
    board: &Board,
) -> Result<Vec<Wanted>> {
    let mut wanted: Vec<Wanted> =
        without_repetitions(typed)?.into_iter().map(|forward| Wanted { forward, restored: false }).collect();
    if restore {
        let (restored, odd) = saved::restorable(&labs.port_forwards(&play.id).await?);
        odd.iter().for_each(|line| board.problem(line));
        for forward in restored {
            let is_there = wanted.iter().any(|one| is_same(&one.forward, &forward, machine));
            if !is_there {
                wanted.push(Wanted { forward, restored: true });
            }
        }
    }
    if wanted.is_empty() && !auto {
        return Err(match restore {
            true => {
                Error::new(Kind::NotFound, format!("playground {} has no saved port forwards to open", play.shown()))
                    .with_hint("save some with --save and -L or -R; those to port 22 are skipped")
            }
            false => {
                Error::new(Kind::Usage, "there is nothing to forward").with_hint("use -L, -R, --restore or --auto")
            }
        });
    }
    Ok(wanted)
}

/// The forwards of the command line, each once. Each free port (0) is another one.
fn without_repetitions(typed: Vec<Forward>) -> Result<Vec<Forward>> {
    let mut all: Vec<Forward> = Vec::new();
    for forward in typed {
        let (side, spec) = (forward.side, &forward.spec);
        let is_listener =
            |one: &&Forward| one.side == side && one.spec.udp == spec.udp && one.spec.listen.is_of(side, &spec.listen);
        match all.iter().find(is_listener).map(|one| &one.spec) {
            None => all.push(forward),
            Some(one) if one.to == spec.to => {}
            Some(one) => {
                let what = format!("{} leads to two places: {} and {}", side.option(), one, spec);
                return Err(Error::new(Kind::Usage, what).with_hint("choose another port for one of them"));
            }
        }
    }
    Ok(all)
}

/// True for two forwards of one machine; one without a machine means `machine`.
fn is_same(one: &Forward, other: &Forward, machine: &str) -> bool {
    let on = |forward: &Forward| forward.machine.clone().unwrap_or_else(|| machine.to_owned());
    one.side == other.side && one.spec == other.spec && on(one) == on(other)
}

impl Wanted {
    /// The result, or `None` for a saved forward that failed: the board names it, and the others go on. A forward of
    /// the command line ends the command, and so does the end of the playground.
    ///
    /// # Errors
    /// The result's.
    pub(super) fn or_left_out<T>(&self, board: &Board, result: Result<T>) -> Result<Option<T>> {
        match result {
            Ok(done) => Ok(Some(done)),
            Err(error)
                if self.restored && !matches!(error.kind(), Kind::Ended | Kind::NotLoggedIn | Kind::NotWoken) =>
            {
                let Forward { side, spec, .. } = &self.forward;
                board.problem(&format!(
                    "saved port forward `{} {spec}` is skipped: {}",
                    side.option(),
                    error.message()
                ));
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}
