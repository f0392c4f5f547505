//! `expose`: gives a port, or a web terminal, an address for browsers.
//!
//! A port that is exposed already keeps its address, because people and programs may have it. So one with the same
//! options is shown, and one with others is not replaced.

use std::{collections::HashSet, time::Duration};

use clap_complete::ArgValueCandidates;
use serde::Serialize;
use tokio::time::sleep;

use crate::{
    app::App,
    commands::{args::One, candidates, forward::find_play},
    error::{Error, Kind, Result, printable},
    labs::{
        Labs, find,
        wire::{ExposePort, ExposeShell, ExposedPort, ExposedShell, PRIVATE, PUBLIC, Play},
    },
    platform::Platform,
    ui::{notice, out},
};

use super::addresses;

/// Number of looks for something whose request was answered with silence, and the pause before each.
const LOOKS: u32 = 5;
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Give a port of a playground, or a web terminal, an address for browsers. It works for you alone, where you are
/// logged in, unless you make it public.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "The service must listen on the machine's main interface or on all addresses, for example 0.0.0.0: on \
                  the loopback interface (127.0.0.1, localhost) the platform does not reach it."
)]
pub(crate) struct Args {
    #[command(flatten)]
    one: One,
    /// The port that the service listens on.
    #[arg(value_parser = clap::value_parser!(u16).range(1..), required_unless_present = "shell")]
    #[arg(conflicts_with = "shell")]
    port: Option<u16>,
    /// The machine; the first one by default.
    #[arg(short, long, add = ArgValueCandidates::new(candidates::machines))]
    machine: Option<String>,
    /// Let everyone who has the address in. Asks first. A web terminal is never public.
    #[arg(short, long)]
    public: bool,
    /// The service speaks HTTPS itself, with any certificate.
    #[arg(short = 's', long, alias = "https", conflicts_with = "shell")]
    tls: bool,
    /// Tell the service this host name instead of the true one.
    #[arg(long, value_name = "HOST", conflicts_with = "shell")]
    host_rewrite: Option<String>,
    /// Tell the service this path instead of the true one.
    #[arg(long, value_name = "PATH", conflicts_with = "shell")]
    path_rewrite: Option<String>,
    /// Make a web terminal instead.
    #[arg(long)]
    shell: bool,
    /// The user of the web terminal; the machine's default user if it is left out.
    #[arg(short, long, requires = "shell")]
    user: Option<String>,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
}

/// The output of `expose --json`: one of these, as in `ports --json`, with its machine and port or user.
#[derive(Serialize)]
#[serde(untagged)]
enum Printed<'a> {
    Port { id: &'a str, url: &'a str, access: &'a str, tls: bool, machine: &'a str, number: u16 },
    Shell { id: &'a str, url: &'a str, access: &'a str, machine: &'a str, user: &'a str },
}

/// Exposes a port or a web terminal, unless it is exposed already.
///
/// # Errors
/// The platform's; [`Kind::Refused`] for a port that is exposed with other options; those of [`out::agreed`].
pub(crate) async fn run(app: &App, args: Args) -> Result<()> {
    if args.shell && args.public {
        let why = "a web terminal is never public, because everyone with its address could use the machine";
        return Err(Error::new(Kind::Usage, why).with_hint("leave out --public"));
    }
    let labs = app.labs().await?;
    let (play, machine) = find_play(&labs, &args.one.playground, args.machine.as_deref()).await?;
    let machine = find::machine(&play, machine.as_deref())?;
    match args.port {
        Some(number) => {
            let wish = ExposePort {
                machine: machine.name.clone(),
                number,
                access: if args.public { PUBLIC } else { PRIVATE },
                tls: args.tls,
                host_rewrite: args.host_rewrite.clone().unwrap_or_default(),
                path_rewrite: args.path_rewrite.clone().unwrap_or_default(),
            };
            expose_port(app, &labs, &play, &wish, &args).await
        }
        None => {
            let user = find::user(&play, machine, args.user.as_deref())?.to_owned();
            let wish = ExposeShell { machine: machine.name.clone(), user, access: PRIVATE };
            expose_shell(&labs, &play, &wish, args.one.json).await
        }
    }
}

async fn expose_port(app: &App, labs: &Labs, play: &Play, wish: &ExposePort, args: &Args) -> Result<()> {
    let (known, hindrance) = tokio::join!(labs.ports(&play.id), hindrance(app, labs, play, wish));
    let known = known?;
    let (port, was_there) = match of_number(&known, wish).find(|port| wish.is(port)) {
        Some(port) => (port.clone(), true),
        None => {
            if let Some(other) = of_number(&known, wish).next() {
                return Err(other_options(play, other));
            }
            if args.public && !args.yes {
                let ExposePort { number, machine, .. } = wish;
                let question = format!(
                    "Let everyone who has the address reach port {number} of machine {machine} of {}?",
                    play.shown()
                );
                out::agreed(&question, args.one.json, "Nothing was exposed.", out::ADD_YES).await?;
            }
            (request(labs, play, wish, &known).await?, false)
        }
    };
    if let Some(words) = hindrance {
        notice::line(&format!("labctl-ssh-proxy: {words}"));
    }
    let (access, url) = (port.access(), &port.url);
    if args.one.json {
        let ExposedPort { id, tls, .. } = &port;
        let (machine, number) = (&wish.machine, wish.number);
        return out::json(&Printed::Port { id, url, access, tls: *tls, machine, number });
    }
    let already = if was_there { " already" } else { "" };
    let whom = if access == PUBLIC { "everyone" } else { "you alone" };
    out::line(&format!(
        "Port {} of machine {} of {} is exposed{already} to {whom}: {}",
        wish.number,
        wish.machine,
        play.shown(),
        printable(url)
    ))
}

/// The exposures of the port, whatever their options.
fn of_number<'a>(all: &'a [ExposedPort], wish: &ExposePort) -> impl Iterator<Item = &'a ExposedPort> {
    all.iter().filter(|port| port.machine == wish.machine && port.number == wish.number)
}

/// The error for a port that is exposed with other options. It is not replaced, because its address would change.
fn other_options(play: &Play, port: &ExposedPort) -> Error {
    let ExposedPort { id, machine, number, url, .. } = port;
    let mut options = vec![port.access().to_owned()];
    options.extend(port.tls.then(|| "with --tls".to_owned()));
    for (option, value) in [("--host-rewrite", &port.host_rewrite), ("--path-rewrite", &port.path_rewrite)] {
        options.extend((!value.is_empty()).then(|| format!("with {option} {value}")));
    }
    let message = format!(
        "port {number} of machine {machine} of {} is exposed already with other options ({}): {url}",
        play.shown(),
        options.join(", ")
    );
    Error::new(Kind::Refused, message).with_hint(format!(
        "to change them, run `labctl-ssh-proxy unexpose {} {id}` first, and then this again; its address changes",
        play.id
    ))
}

/// Requests the exposure. When the answer is lost, the platform's list tells whether it was made, because another
/// request could make a second.
async fn request(labs: &Labs, play: &Play, wish: &ExposePort, known: &[ExposedPort]) -> Result<ExposedPort> {
    let error = match labs.expose_port(&play.id, wish).await {
        Ok(port) if is_whole(&port.id, &port.url) => return Ok(port),
        Ok(_) => Error::new(Kind::Answer, "the platform did not say which port it has exposed"),
        Err(error) => error,
    };
    let before: HashSet<&str> = known.iter().map(|port| port.id.as_str()).collect();
    let is_it = |port: &ExposedPort| wish.is(port) && !before.contains(port.id.as_str());
    let found = made(&error, || async { labs.ports(&play.id).await.map(|all| all.into_iter().find(is_it)) }).await;
    let unknown = || format!("it is not known whether port {} of {} was exposed", wish.number, play.shown());
    found.ok_or_else(|| lost(error, play, unknown))
}

/// Returns true for an answer that says what was made.
fn is_whole(id: &str, url: &str) -> bool {
    !id.is_empty() && !url.is_empty()
}

/// Returns true if what was requested may exist in spite of the error. A conflict says that it exists, perhaps since a
/// moment ago.
fn may_exist(error: &Error) -> bool {
    error.may_have_happened() || error.kind() == Kind::Answer || error.status() == Some(409)
}

/// Looks for what a request may have made, in spite of its error.
async fn made<T>(error: &Error, look: impl AsyncFn() -> Result<Option<T>>) -> Option<T> {
    if !may_exist(error) {
        return None;
    }
    log::warn!("{}: looking whether it was carried out", error.message());
    for turn in 0..LOOKS {
        // A gateway may have given up before the platform has done it.
        if turn > 0 {
            sleep(LOOK_EVERY).await;
        }
        match look().await {
            Ok(Some(found)) => return Some(found),
            Ok(None) => {}
            Err(error) => log::warn!("{}", error.message()),
        }
    }
    None
}

/// The error for a request that has made nothing, as far as can be seen.
fn lost(error: Error, play: &Play, unknown: impl FnOnce() -> String) -> Error {
    if !may_exist(&error) || error.status() == Some(409) {
        return error;
    }
    error
        .context(unknown())
        .with_hint(format!("see `labctl-ssh-proxy ports {}`, and expose it again only if it is not there", play.id))
}

/// Returns what keeps the port from being reached at its address, as far as can be seen. It is no reason not to expose it.
async fn hindrance(app: &App, labs: &Labs, play: &Play, wish: &ExposePort) -> Option<String> {
    let ExposePort { number, machine: name, .. } = wish;
    if find::is_play_down(play) {
        let start = app.platform.commands(&format!("start it with `labctl-ssh-proxy start {}`", play.id));
        return Some(format!("{} is stopped, so nothing answers at that address: {start}", play.shown()));
    }
    let scan = labs.scan_ports(&play.id, Some(name)).await;
    let scan = scan.inspect_err(|error| log::warn!("{}", error.message())).ok()?;
    if !scan.iter().any(|port| port.number == *number && (port.machine.is_empty() || port.machine == *name)) {
        return Some(format!("nothing listens on port {number} of machine {name} now"));
    }
    let machine = find::machine(play, Some(name)).ok()?;
    let addresses = addresses::of(app, labs, play, machine).await?;
    let only = format!("port {number} of machine {name} listens on the loopback interface only");
    let must = "the server must listen on the machine's main interface or on all addresses, such as 0.0.0.0";
    addresses::is_loopback_only(&addresses, *number)?.then(|| match app.platform {
        Platform::Labs => format!("{only}, where the platform does not reach it: {must}"),
        // The machine is this computer, and so is the address.
        Platform::Local => format!("{only}, which is enough on this computer; at the real platform, {must}"),
    })
}

async fn expose_shell(labs: &Labs, play: &Play, wish: &ExposeShell, json: bool) -> Result<()> {
    let known = labs.shells(&play.id).await?;
    let is_it = |shell: &ExposedShell| {
        (&shell.machine, &shell.user, shell.access()) == (&wish.machine, &wish.user, wish.access)
    };
    let (shell, was_there) = match known.iter().find(|shell| is_it(shell)) {
        Some(shell) => (shell.clone(), true),
        None => (request_shell(labs, play, wish, is_it).await?, false),
    };
    let url = &shell.url;
    if json {
        let (id, access) = (&shell.id, shell.access());
        return out::json(&Printed::Shell { id, url, access, machine: &wish.machine, user: &wish.user });
    }
    let already = if was_there { " already" } else { "" };
    let ExposeShell { machine, user, .. } = wish;
    out::line(&format!(
        "A web terminal of {user} on machine {machine} of {} is{already} there for you alone: {}",
        play.shown(),
        printable(url)
    ))
}

async fn request_shell(
    labs: &Labs,
    play: &Play,
    wish: &ExposeShell,
    is_it: impl Fn(&ExposedShell) -> bool,
) -> Result<ExposedShell> {
    let error = match labs.expose_shell(&play.id, wish).await {
        Ok(shell) if is_whole(&shell.id, &shell.url) => return Ok(shell),
        Ok(_) => Error::new(Kind::Answer, "the platform did not say which web terminal it has made"),
        Err(error) => error,
    };
    // There was none like it before.
    let found = made(&error, || async { labs.shells(&play.id).await.map(|all| all.into_iter().find(&is_it)) }).await;
    let unknown = || format!("it is not known whether a web terminal of {} was made", play.shown());
    found.ok_or_else(|| lost(error, play, unknown))
}
