//! `unexpose`: takes the address of a port or a web terminal away.

use clap_complete::ArgValueCandidates;
use serde::Serialize;

use crate::{
    app::App,
    commands::{args::One, candidates, forward::find_play},
    error::{Error, Kind, Result, printable},
    labs::{
        Labs, find,
        wire::{ExposedPort, ExposedShell, Play},
    },
    ui::out,
};

/// Take the address of an exposed port, or of a web terminal, away.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    one: One,
    /// The port or the address that `ports` shows, or the id that `ports --json` has.
    #[arg(add = ArgValueCandidates::new(candidates::exposures))]
    what: String,
    /// The machine of the port, if several have one of that number exposed.
    #[arg(short, long, add = ArgValueCandidates::new(candidates::machines))]
    machine: Option<String>,
}

/// Something that is exposed.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
enum Exposure {
    Port { id: String, url: String, access: String, tls: bool, machine: String, number: u16 },
    Shell { id: String, url: String, access: String, machine: String, user: String },
}

impl From<ExposedPort> for Exposure {
    fn from(port: ExposedPort) -> Exposure {
        let access = port.access().to_owned();
        let ExposedPort { id, url, tls, machine, number, .. } = port;
        Exposure::Port { id, url, access, tls, machine, number }
    }
}

impl From<ExposedShell> for Exposure {
    fn from(shell: ExposedShell) -> Exposure {
        let access = shell.access().to_owned();
        let ExposedShell { id, url, machine, user, .. } = shell;
        Exposure::Shell { id, url, access, machine, user }
    }
}

impl Exposure {
    fn id(&self) -> &str {
        let (Exposure::Port { id, .. } | Exposure::Shell { id, .. }) = self;
        id
    }

    fn url(&self) -> &str {
        let (Exposure::Port { url, .. } | Exposure::Shell { url, .. }) = self;
        url
    }

    fn machine(&self) -> &str {
        let (Exposure::Port { machine, .. } | Exposure::Shell { machine, .. }) = self;
        machine
    }

    /// Its name in sentences, which may begin with it.
    fn shown(&self) -> String {
        printable(&match self {
            Exposure::Port { machine, number, .. } => format!("port {number} of machine {machine}"),
            Exposure::Shell { machine, user, .. } => format!("the web terminal of {user} on machine {machine}"),
        })
    }
}

/// Takes the address away.
///
/// # Errors
/// [`Kind::NotFound`] and [`Kind::Ambiguous`] with what there is, or the platform's.
pub(crate) async fn run(app: &App, args: Args) -> Result<()> {
    let labs = app.labs().await?;
    let (play, machine) = find_play(&labs, &args.one.playground, args.machine.as_deref()).await?;
    let machine = machine.map(|name| find::machine(&play, Some(&name)).map(|found| found.name.clone())).transpose()?;
    let (ports, shells) = tokio::join!(labs.ports(&play.id), labs.shells(&play.id));
    let mut all: Vec<Exposure> = ports?.into_iter().map(Exposure::from).collect();
    let one = match &shells {
        Ok(shells) => {
            all.extend(shells.iter().cloned().map(Exposure::from));
            chosen(&play, all, &args.what, machine.as_deref())?
        }
        // A port is found without them.
        Err(error) => chosen(&play, all, &args.what, machine.as_deref())
            .map_err(|not_found| if not_found.kind() == Kind::NotFound { error.clone() } else { not_found })?,
    };
    remove(&labs, &play, &one).await?;
    if args.one.json {
        return out::json(&one);
    }
    let shown = one.shown();
    let (first, rest) = shown.split_at(1);
    out::line(&format!("{}{rest} of {} is no longer exposed", first.to_uppercase(), play.shown()))
}

/// The exposure that `what` names: by its id, its address, or its port, in this order.
///
/// # Errors
/// [`Kind::NotFound`] and [`Kind::Ambiguous`].
fn chosen(play: &Play, all: Vec<Exposure>, what: &str, machine: Option<&str>) -> Result<Exposure> {
    let all: Vec<Exposure> = all.into_iter().filter(|one| machine.is_none_or(|name| one.machine() == name)).collect();
    let address = |url: &str| url.trim_end_matches('/').to_owned();
    let named = |one: &&Exposure| one.id() == what || address(one.url()) == address(what) && !one.url().is_empty();
    let number = what.parse::<u16>().ok();
    let numbered = |one: &&Exposure| matches!(one, Exposure::Port { number: of, .. } if Some(*of) == number);
    let mut found: Vec<&Exposure> = all.iter().filter(named).collect();
    if found.is_empty() {
        found.extend(all.iter().filter(numbered));
    }
    match found[..] {
        [one] => Ok(one.clone()),
        [] => {
            let see = format!("see `labctl-ssh-proxy ports {}`", play.id);
            let message = match number {
                Some(number) => format!("port {number} of {} is not exposed", play.shown()),
                None => format!("nothing of {} is exposed with the id or address {what}", play.shown()),
            };
            Err(Error::new(Kind::NotFound, message).with_hint(see))
        }
        _ => {
            let each = |one: &&Exposure| format!("{} ({})", one.id(), one.shown());
            let list: Vec<String> = found.iter().map(each).collect();
            let message = format!("{} exposed ports of {} match {what}", found.len(), play.shown());
            Err(Error::new(Kind::Ambiguous, message).with_hint(format!("choose one by its id: {}", list.join(", "))))
        }
    }
}

/// Removes it. When the answer is lost, the list tells whether it is gone.
async fn remove(labs: &Labs, play: &Play, one: &Exposure) -> Result<()> {
    let (id, is_port) = (one.id(), matches!(one, Exposure::Port { .. }));
    let removed =
        if is_port { labs.unexpose_port(&play.id, id).await } else { labs.unexpose_shell(&play.id, id).await };
    match removed {
        // Another client was faster.
        Err(error) if error.kind() == Kind::NotFound => Ok(()),
        Err(error) if error.may_have_happened() => {
            let is_left = match is_port {
                true => labs.ports(&play.id).await?.iter().any(|port| port.id == id),
                false => labs.shells(&play.id).await?.iter().any(|shell| shell.id == id),
            };
            if is_left { Err(error) } else { Ok(()) }
        }
        done => done,
    }
}

#[cfg(test)]
mod tests {
    use super::{Exposure, chosen};
    use crate::{error::Kind, labs::wire::Play};

    fn port(id: &str, machine: &str, number: u16, url: &str) -> Exposure {
        let (access, tls) = ("private".into(), false);
        Exposure::Port { id: id.into(), url: url.into(), access, tls, machine: machine.into(), number }
    }

    #[test]
    fn an_id_comes_before_an_address_and_that_before_a_number() {
        let shell = Exposure::Shell {
            id: "s".into(),
            url: "https://s.example.org".into(),
            access: "private".into(),
            machine: "one".into(),
            user: "root".into(),
        };
        let all = vec![
            port("8080", "one", 81, "https://a.example.org"),
            port("b", "one", 8080, "https://b.example.org/"),
            port("c", "one", 82, "https://c.example.org"),
            port("d", "two", 82, "https://d.example.org"),
            port("e", "two", 83, ""),
            shell,
        ];
        let found = |what: &str, machine| {
            chosen(&Play::default(), all.clone(), what, machine)
                .map(|one| one.id().to_owned())
                .map_err(|error| error.kind())
        };
        for (what, machine, id) in [
            ("8080", None, "8080"),
            ("b", None, "b"),
            ("https://b.example.org", None, "b"),
            ("https://s.example.org/", None, "s"),
            ("81", None, "8080"),
            ("82", Some("two"), "d"),
            ("83", None, "e"),
        ] {
            assert_eq!(found(what, machine).as_deref(), Ok(id), "{what}");
        }
        assert_eq!(found("82", None), Err(Kind::Ambiguous));
        for what in ["84", "", "x", "70000", "https://e.example.org"] {
            assert_eq!(found(what, None), Err(Kind::NotFound), "{what}");
        }
    }

    #[test]
    fn one_address_of_two_machines_is_ambiguous() {
        let all = vec![port("a", "one", 80, "http://localhost:80"), port("b", "two", 80, "http://localhost:80")];
        let found = |machine| chosen(&Play::default(), all.clone(), "http://localhost:80", machine);
        let error = found(None).unwrap_err();
        assert_eq!(error.kind(), Kind::Ambiguous);
        assert!(error.hint().unwrap().contains("a (port 80 of machine one), b (port 80 of machine two)"), "{error}");
        assert_eq!(found(Some("two")).unwrap().id(), "b");
    }
}
