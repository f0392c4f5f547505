//! `--in CONTAINER`: a container by its name, its label or its id, on any machine of the playground if it is the only one.
//!
//! A label of a machine that is named, or of a playground with one machine, is a host name at once, without a question.
//! Otherwise all machines that run are asked at the same time.

use futures_util::future::join_all;
use helper::wire::Container;

use crate::{
    app::App,
    commands::visit::{self, Destination, Visit, Within},
    door::{self, Door, ROOT},
    error::{Error, Kind, Result, printable},
    inside,
    labs::{
        Labs, find,
        wire::{Machine, Play},
    },
    target::{Inside, PodName, Target, is_label},
    ui::nearest::did_you_mean,
    wake,
};

/// The number of digits of an id from which on it is a name.
const ID_DIGITS: usize = 12;
/// Most host names that a sentence lists.
const MAX_HOSTS: usize = 12;

/// A container that was found: its machine, and its label there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Inner {
    /// The name of its machine.
    pub machine: String,
    /// Its label.
    pub label: String,
}

/// Makes a machine ready as [`visit::arrive`] does, and finds the container if the visit names one with `--in`.
///
/// # Errors
/// As [`visit::arrive`]; [`Kind::Usage`] where the host is a container itself; [`Kind::NotFound`] with those that there
/// are, [`Kind::Ambiguous`] with those that fit, [`Kind::NotWoken`] for a container that does not run.
pub(crate) async fn arrive(app: &App, labs: &Labs, visit: &Visit) -> Result<Destination> {
    no_second(labs, visit)?;
    let place = visit::arrive(app, labs, visit).await?;
    let name = match &visit.within {
        None => return Ok(place),
        Some(Within::Pod(pod)) => return led_into_pod(place, pod),
        Some(Within::Container(name)) => name,
    };
    let target = Target::parse(&place.host)?;
    if let Some(inner) = at_once(&place.play, target.machine.as_deref(), name)? {
        return led_into(place, target, inner);
    }
    // Those that have been woken along with it take a moment longer.
    let starting = |one: &&Machine| !wake::is_down(&place.play, &one.name) && !wake::is_up(&place.play, &one.name);
    for one in machines(&place.play, target.machine.as_deref()).filter(starting) {
        let host = Target::of_play(&place.play.id, Some(&one.name)).to_string();
        visit::arrive(app, labs, &Visit { host, within: visit.within.clone(), ..Visit::default() }).await?;
    }
    let play = find::by_id(labs, &place.play.id).await?;
    let inner = ask(app, labs, &play, target.machine.as_deref(), name).await?;
    led_into(place, target, inner)
}

/// Finds the machine and the container without waking anything, as [`visit::foresee`] does.
///
/// # Errors
/// As [`visit::foresee`] and [`arrive`]; [`Kind::NotWoken`] where a machine that is not running would have to be asked.
pub(crate) async fn foresee(app: &App, labs: &Labs, visit: &Visit) -> Result<Destination> {
    no_second(labs, visit)?;
    let place = visit::foresee(labs, visit).await?;
    let name = match &visit.within {
        None => return Ok(place),
        Some(Within::Pod(pod)) => return led_into_pod(place, pod),
        Some(Within::Container(name)) => name,
    };
    let target = Target::parse(&place.host)?;
    let inner = match at_once(&place.play, target.machine.as_deref(), name)? {
        Some(inner) => inner,
        None if place.is_ready() => ask(app, labs, &place.play, target.machine.as_deref(), name).await?,
        None => {
            let message = format!("the containers of {} are not known, because it is not running", place.host);
            return Err(
                Error::new(Kind::NotWoken, message).with_hint("use the container's host name, or start it first")
            );
        }
    };
    led_into(place, target, inner)
}

/// The container of a play whose machines are made ready first, because it is not clear [`at_once`].
///
/// # Errors
/// As [`arrive`].
pub(crate) async fn woken(app: &App, labs: &Labs, play: &Play, machine: Option<&str>, name: &str) -> Result<Inner> {
    let host = Target::of_play(&play.id, machine).to_string();
    let place =
        arrive(app, labs, &Visit { host, within: Some(Within::Container(name.to_owned())), ..Visit::default() })
            .await?;
    Ok(Inner { machine: place.machine.name, label: place.container.unwrap_or_default() })
}

/// Refuses a container in a container.
fn no_second(labs: &Labs, visit: &Visit) -> Result<()> {
    let host = visit.host.rsplit_once('@').map_or(&*visit.host, |(_, host)| host);
    match (find::target(labs, host), &visit.within) {
        (Some(Target { inside: Some(inside), .. }), Some(within)) => {
            let message =
                format!("{host} is a container itself, so it has no container {}", printable(&within.to_string()));
            Err(Error::new(Kind::Usage, message).with_hint(format!("leave out `.{inside}`, or the other name")))
        }
        _ => Ok(()),
    }
}

/// Leads a destination, which `target` names, on into a container of its playground.
fn led_into(place: Destination, target: Target, Inner { machine, label }: Inner) -> Result<Destination> {
    let about = find::machine(&place.play, Some(&machine))?.clone();
    let target = Target { machine: Some(machine), ..target }.into_container(&label);
    Ok(Destination { host: target.to_string(), machine: about, container: Some(label), ..place })
}

/// Leads a destination on into a pod: its host name says all that is known before the cluster is asked.
fn led_into_pod(place: Destination, pod: &PodName) -> Result<Destination> {
    let inside = Inside::Pod(pod.clone());
    let (container, target) = (Some(inside.to_string()), Target::parse(&place.host)?);
    let target = Target { machine: None, inside: Some(inside), ..target };
    Ok(Destination { host: target.to_string(), container, ..place })
}

/// The container, if there is nothing to ask: its machine is clear, and its name is a label.
///
/// # Errors
/// [`Kind::NotFound`] when there is no such machine.
pub(crate) fn at_once(play: &Play, machine: Option<&str>, name: &str) -> Result<Option<Inner>> {
    let is_clear = machine.is_some() || machines(play, None).count() == 1;
    if !is_clear || !is_label(name) {
        return Ok(None);
    }
    let machine = find::machine(play, machine)?.name.clone();
    Ok(Some(Inner { machine, label: name.to_owned() }))
}

/// The machines that ssh can get into: the named one, or all.
fn machines<'a>(play: &'a Play, name: Option<&'a str>) -> impl Iterator<Item = &'a Machine> {
    play.machines.iter().filter(move |one| name.is_none_or(|name| one.name == name) && !play.has_no_ssh(&one.name))
}

/// Asks the machine that is named, or all that run at the same time, for the one container that `name` means.
async fn ask(app: &App, labs: &Labs, play: &Play, machine: Option<&str>, name: &str) -> Result<Inner> {
    let (down, up): (Vec<_>, Vec<_>) = machines(play, machine).partition(|one| wake::is_down(play, &one.name));
    let door = match Door::unasked(app, labs).await {
        Ok(door) => door,
        Err(_) => {
            let alias = Target::of_play(&play.id, up.first().map(|one| one.name.as_str())).to_string();
            Door::as_ssh(app, labs, &alias).await?
        }
    };
    let list = async |one: &Machine| {
        let client = door.open(&door::login(play, &one.name, ROOT), None).await?;
        let listing = inside::list_if_any(&client).await;
        client.close().await;
        listing
    };
    let asked = join_all(up.iter().map(|one| list(one))).await;
    let mut machines = Vec::new();
    let mut unable = Vec::new();
    for (one, answer) in up.iter().zip(asked) {
        match answer {
            Ok(Ok(listing)) => machines.push((one.name.as_str(), listing.containers)),
            // A machine without an engine has no containers. Another one's silence says nothing.
            Ok(Err(error)) => unable.push(error),
            Err(error) => return Err(error),
        }
    }
    if let (true, Some(error)) = (machines.is_empty(), unable.pop()) {
        return Err(error);
    }
    let down: Vec<&str> = down.iter().map(|one| one.name.as_str()).collect();
    choose(play, &machines, &down, name)
}

/// The one container that `name` means. `down` are the machines that could not be asked.
fn choose(play: &Play, machines: &[(&str, Vec<Container>)], down: &[&str], name: &str) -> Result<Inner> {
    let all = machines.iter().flat_map(|(machine, all)| all.iter().map(move |one| (*machine, one)));
    let all: Vec<(&str, &Container)> = all.filter(|(_, one)| is_label(&one.label)).collect();
    let is_id = name.len() >= ID_DIGITS && name.bytes().all(|b| b.is_ascii_hexdigit());
    let is_meant = |one: &Container| one.name == name || one.label == name || is_id && one.id.starts_with(name);
    let meant: Vec<_> = all.iter().filter(|(_, one)| is_meant(one)).copied().collect();
    let (shown, name) = (play.shown(), printable(name));
    match meant[..] {
        [(machine, only)] if only.state == "running" => {
            Ok(Inner { machine: machine.to_owned(), label: only.label.clone() })
        }
        [(machine, only)] => Err(not_running(play, machine, only)),
        [] => {
            // The list may be cut before the one that was meant.
            let names: Vec<String> = all.iter().map(|(_, one)| printable(&one.name)).collect();
            let meant = did_you_mean(&name, names.iter().map(String::as_str));
            let mut hints = vec![match names.len() {
                0 => "no container exists there".to_owned(),
                _ => format!("{meant}{}", hosts(play, &all)),
            }];
            hints.extend(down.iter().map(|machine| format!("machine {machine} is not running, and was not asked")));
            let message = format!("playground {shown} has no container `{name}`");
            Err(Error::new(Kind::NotFound, message).with_hint(hints.join("; ")))
        }
        ref several => {
            let message = format!("{} containers of playground {shown} are called `{name}`", several.len());
            Err(Error::new(Kind::Ambiguous, message).with_hint(hosts(play, several)))
        }
    }
}

/// `use one of: playground-x.m.web, playground-x.m.db (exited) and 3 more`, with those that run first.
fn hosts(play: &Play, some: &[(&str, &Container)]) -> String {
    let mut some = some.to_vec();
    some.sort_by_key(|(_, one)| one.state != "running");
    let host = |(machine, one): &(&str, &Container)| {
        let target = Target::of_play(&play.id, Some(machine)).into_container(&one.label);
        let state = if one.state == "running" { String::new() } else { format!(" ({})", printable(&one.state)) };
        format!("{target}{state}")
    };
    let hosts: Vec<String> = some.iter().take(MAX_HOSTS).map(host).collect();
    match some.len().saturating_sub(MAX_HOSTS) {
        0 => format!("use one of: {}", hosts.join(", ")),
        more => format!("use one of: {} and {more} more", hosts.join(", ")),
    }
}

/// The error for a container that does not run, with the command that changes that.
fn not_running(play: &Play, machine: &str, container: &Container) -> Error {
    let [name, state, status] = [&container.name, &container.state, &container.status].map(|word| printable(word));
    let how = if status.is_empty() { state.clone() } else { format!("{state}: {status}") };
    let message =
        format!("container {name} of machine {machine} of playground {} is not running ({how})", play.shown());
    let (client, user) = (container.client(), container.user_of_client());
    let command = if state == "paused" { "unpause" } else { "start" };
    let host = Target::of_play(&play.id, Some(machine));
    let hint = format!("run `labctl-ssh-proxy ssh {user}{host} {client} {command} {}`", container.to_copy());
    Error::new(Kind::NotWoken, message).with_hint(hint)
}

#[cfg(test)]
mod tests {
    use super::{Container, Inner, Kind, at_once, choose};
    use crate::labs::wire::{Machine, Play};

    const ID: &str = "0123456789abcdef01234567";

    fn play(machines: &[(&str, bool)]) -> Play {
        let machine =
            |(name, no_ssh): &(&str, bool)| Machine { name: (*name).to_owned(), no_ssh: *no_ssh, ..Machine::default() };
        Play {
            id: ID.into(),
            title: "My box".into(),
            machines: machines.iter().map(machine).collect(),
            ..Play::default()
        }
    }

    fn container(name: &str, label: &str, state: &str) -> Container {
        let [name, label, state] = [name, label, state].map(str::to_owned);
        Container { id: "abcdef012345".repeat(5), name, label, state, ..Container::default() }
    }

    fn inner(machine: &str, label: &str) -> Inner {
        Inner { machine: machine.to_owned(), label: label.to_owned() }
    }

    #[test]
    fn a_label_of_a_clear_machine_needs_no_question() {
        let one = play(&[("m", false), ("verifier", true)]);
        assert_eq!(at_once(&one, None, "web").unwrap(), Some(inner("m", "web")));
        assert_eq!(at_once(&one, None, "Web.1").unwrap(), None);
        let two = play(&[("m", false), ("n", false)]);
        assert_eq!(at_once(&two, None, "web").unwrap(), None);
        assert_eq!(at_once(&two, Some("n"), "web").unwrap(), Some(inner("n", "web")));
        assert_eq!(at_once(&two, Some("o"), "web").unwrap_err().kind(), Kind::NotFound);
    }

    #[test]
    fn the_only_one_is_taken_whichever_machine_it_is_on() {
        let play = play(&[("m", false), ("n", false), ("o", false)]);
        let machines = [
            ("m", vec![container("db", "db", "running"), container("a-b", "aaaaaaaaaaaa", "running")]),
            ("n", vec![container("db", "db", "exited"), container("Web.1", "web-1", "running")]),
        ];
        let chosen = |name: &str| choose(&play, &machines, &["o"], name);
        for name in ["Web.1", "web-1"] {
            assert_eq!(chosen(name).unwrap(), inner("n", "web-1"), "{name}");
        }
        assert_eq!(chosen("a-b").unwrap(), inner("m", "aaaaaaaaaaaa"));
        let several = chosen("db").unwrap_err();
        assert_eq!(
            (several.kind(), several.message()),
            (Kind::Ambiguous, "2 containers of playground My box are called `db`")
        );
        let hosts = format!("use one of: playground-{ID}.m.db, playground-{ID}.n.db (exited)");
        assert_eq!(several.hint(), Some(hosts.as_str()));
        // Part of a name or of an id is none, and four have that id.
        for name in ["we", "WEB.1", "abcdef01234"] {
            let error = chosen(name).unwrap_err();
            assert_eq!(error.kind(), Kind::NotFound, "{name}");
            let hint = error.hint().unwrap();
            assert!(hint.contains("use one of: ") && hint.contains(".n.web-1, "), "{hint}");
            assert_eq!(hint.starts_with("did you mean `Web.1`? use one of"), name == "WEB.1", "{hint}");
            assert!(hint.ends_with("; machine o is not running, and was not asked"), "{hint}");
        }
        assert_eq!(
            chosen("abcdef012345").unwrap_err().message(),
            "4 containers of playground My box are called `abcdef012345`"
        );
        let none = choose(&play, &[("m", Vec::new())], &[], "w\u{1b}eb").unwrap_err();
        assert_eq!(none.message(), "playground My box has no container `web`");
        assert_eq!(none.hint(), Some("no container exists there"));
    }

    #[test]
    fn one_that_does_not_run_is_said_with_the_command_of_its_engine() {
        let play = play(&[("m", false)]);
        for (engine, state, hint) in [
            ("docker", "exited", "docker start Web.1`"),
            ("docker", "paused", "docker unpause Web.1`"),
            ("podman", "created", "podman start Web.1`"),
            ("containerd", "exited", "nerdctl start Web.1`"),
        ] {
            let found = Container { engine: engine.into(), ..container("Web.1", "web-1", state) };
            let error = choose(&play, &[("m", vec![found])], &[], "Web.1").unwrap_err();
            assert_eq!(error.kind(), Kind::NotWoken);
            assert!(error.message().contains(&format!("playground My box is not running ({state})")), "{error}");
            assert!(error.hint().unwrap().ends_with(hint), "{error:?}");
        }
    }
}
