//! From an id, a catalogue name or a title to the play it means. Never a guess.

use std::collections::HashSet;

use crate::{
    error::{Error, Kind, Result},
    labs::{
        Labs, learning,
        wire::{Machine, Play, State},
    },
    platform::is_id,
    target::{POD, PREFIX, Playground, Target, is_label, reference::Reference},
    ui::nearest::did_you_mean,
};

/// The target of a reference.
#[derive(Debug)]
pub(crate) enum Found {
    /// A play that exists.
    Play(Box<Play>),
    /// No play of that catalogue name: a new one can be started.
    Startable(String),
}

/// Finds the target of a host name.
///
/// # Errors
/// [`Kind::NotFound`], [`Kind::Ambiguous`] with the candidates, or the platform's.
pub(crate) async fn by_target(labs: &Labs, target: &Target) -> Result<Found> {
    match &target.playground {
        Playground::Id(id) => Ok(Found::Play(Box::new(by_id(labs, id).await?))),
        Playground::Name(name) => by_host_name(labs, name).await,
    }
}

/// As [`by_name`]. The name of a challenge, a tutorial or a lesson means its play, unless the catalogue has that name,
/// too: only then the platform is asked once more.
async fn by_host_name(labs: &Labs, name: &str) -> Result<Found> {
    let plays = all(labs).await?;
    let homework = learning::plays_of(&Reference::Name(name.to_owned()), &plays);
    match by_name(name, plays)? {
        Found::Startable(name) if !homework.is_empty() => match labs.catalog_entry(&name).await {
            Ok(_) => Ok(Found::Startable(name)),
            Err(e) if e.kind() == Kind::NotFound => {
                let play = live_or_down(homework, &name)?;
                Ok(play.map_or(Found::Startable(name), |play| Found::Play(Box::new(play))))
            }
            Err(e) => Err(e),
        },
        found => Ok(found),
    }
}

/// Finds a play by its id.
///
/// # Errors
/// [`Kind::NotFound`] when there is none of that id, or the platform's.
pub(crate) async fn by_id(labs: &Labs, id: &str) -> Result<Play> {
    labs.play(id).await.map_err(|e| match e.kind() {
        Kind::NotFound => Error::new(Kind::NotFound, format!("no playground {id} (it may have been destroyed)"))
            .with_hint("run `labctl-ssh-proxy list` to see yours, or `labctl-ssh-proxy start NAME` to start another"),
        _ => e,
    })
}

/// Lists every play, the stopped ones included. Those that run are marked as kept at their end or not.
///
/// # Errors
/// The platform's.
pub(crate) async fn all(labs: &Labs) -> Result<Vec<Play>> {
    let (recent, kept) = tokio::try_join!(labs.plays(), labs.persistent_plays())?;
    let kept_ids: HashSet<String> = kept.iter().map(|play| play.id.clone()).collect();
    let mut seen = HashSet::new();
    let mut plays: Vec<_> = recent.into_iter().chain(kept).filter(|play| seen.insert(play.id.clone())).collect();
    for play in plays.iter_mut().filter(|play| !is_play_down(play) && !is_gone(play)) {
        play.persistent = Some(kept_ids.contains(&play.id));
    }
    Ok(plays)
}

/// Asks if a running play is kept at its end: the platform then lists it among the kept ones. `None` if it does not
/// answer.
pub(crate) async fn is_kept(labs: &Labs, play: &Play) -> Option<bool> {
    let kept = labs.persistent_plays().await.ok()?;
    Some(kept.iter().any(|one| one.id == play.id))
}

/// True for a play that must be restarted before it can be reached.
pub(crate) fn is_play_down(play: &Play) -> bool {
    matches!(play.state(), Some(State::Stopped | State::Stopping))
}

/// True for a play that is gone for good.
pub(crate) fn is_gone(play: &Play) -> bool {
    matches!(play.state(), Some(State::Destroying | State::Destroyed | State::Failed))
}

/// The one live play of a catalogue name, else its one stopped play, else a new one. Plays of a tutorial, a challenge
/// or a course are homework and no candidates.
fn by_name(name: &str, plays: Vec<Play>) -> Result<Found> {
    let is_meant = |play: &Play| play.playground.name == name && !play.belongs_to_a_lesson();
    match live_or_down(plays.into_iter().filter(is_meant), name)? {
        Some(play) => Ok(Found::Play(Box::new(play))),
        None => Ok(Found::Startable(name.to_owned())),
    }
}

/// The one live play, else the one stopped play.
fn live_or_down(plays: impl IntoIterator<Item = Play>, name: &str) -> Result<Option<Play>> {
    let (down, live): (Vec<_>, Vec<_>) = plays.into_iter().filter(|play| !is_gone(play)).partition(is_play_down);
    one(if live.is_empty() { down } else { live }, name)
}

fn one(mut candidates: Vec<Play>, name: &str) -> Result<Option<Play>> {
    if candidates.len() > 1 {
        let list: Vec<_> = candidates.iter().map(|play| format!("{PREFIX}{} ({})", play.id, play.title)).collect();
        return Err(Error::new(Kind::Ambiguous, format!("{} playgrounds match `{name}`", candidates.len()))
            .with_hint(format!("choose one of: {}", list.join(", "))));
    }
    Ok(candidates.pop())
}

/// Finds the play that a command's argument names by its id, host name, catalogue name or unique title, or by a page
/// address or the name of a challenge, a tutorial or a lesson. A title in other upper and lower case counts if there is
/// none in the same.
///
/// # Errors
/// [`Kind::NotFound`], [`Kind::Ambiguous`] with the candidates, [`Kind::Usage`] for an address of another site or the
/// host name of a container, or the platform's.
pub(crate) async fn by_argument(labs: &Labs, argument: &str) -> Result<Play> {
    no_container(argument)?;
    if let Some(target) = aliased(labs, argument) {
        refuse_container(argument, &target)?;
        return by_alias(labs, argument, &target).await;
    }
    let named = match named(argument) {
        Named::Id(id) => return by_id(labs, &id).await,
        Named::Otherwise(name) => name,
    };
    let plays: Vec<_> = all(labs).await?.into_iter().filter(|play| !is_gone(play)).collect();
    let reference = Reference::parse(&named, &labs.sites());
    if let Some(play) = among(labs, argument, &named, &reference, &plays).await? {
        return Ok(play);
    }
    let names: Vec<String> = plays.iter().flat_map(|play| [play.title.clone(), play.playground.name.clone()]).collect();
    let meant = did_you_mean(argument, names.iter().map(String::as_str));
    let error = Error::new(Kind::NotFound, format!("no playground has the id, host name, alias or title `{argument}`"))
        .with_hint(format!("{meant}run `labctl-ssh-proxy list` to see yours"));
    match reference? {
        Some(reference) => learning::running(labs, &reference, error).await,
        None => Err(error),
    }
}

/// As [`by_argument`], but `None` if there is no such play.
///
/// # Errors
/// As [`by_argument`].
pub(crate) async fn existing(labs: &Labs, argument: &str) -> Result<Option<Play>> {
    no_container(argument)?;
    if let Some(target) = aliased(labs, argument) {
        refuse_container(argument, &target)?;
        return by_alias(labs, argument, &target).await.map(Some);
    }
    let named = match named(argument) {
        Named::Id(id) => return by_id(labs, &id).await.map(Some),
        Named::Otherwise(name) => name,
    };
    let plays: Vec<_> = all(labs).await?.into_iter().filter(|play| !is_gone(play)).collect();
    among(labs, argument, &named, &Reference::parse(&named, &labs.sites()), &plays).await
}

/// Refuses the host name of a container, for a command about playgrounds or machines: what it would do there is more
/// than what was named.
///
/// # Errors
/// [`Kind::Usage`] for such a host name.
pub(crate) fn no_container(argument: &str) -> Result<()> {
    Target::parse(argument).map_or(Ok(()), |target| refuse_container(argument, &target))
}

fn refuse_container(argument: &str, target: &Target) -> Result<()> {
    let Some(inside) = &target.inside else { return Ok(()) };
    let message = format!("{argument} is a container, but this command is about playgrounds and their machines");
    Err(Error::new(Kind::Usage, message)
        .with_hint(format!("leave out `.{inside}`, or get into the container: `labctl-ssh-proxy ssh {argument}`")))
}

/// Returns the meaning of an argument as a host name: its own, or that of an alias with a machine and a container behind
/// it as in other host names.
pub(crate) fn target(labs: &Labs, argument: &str) -> Option<Target> {
    Target::parse(argument).ok().or_else(|| aliased(labs, argument))
}

/// Returns the target that an alias begins.
pub(crate) fn aliased(labs: &Labs, argument: &str) -> Option<Target> {
    let (label, rest) = argument.split_at(argument.find('.').unwrap_or(argument.len()));
    let play = labs.called.as_ref()?(label)?;
    Target::parse(&format!("{PREFIX}{play}{rest}")).ok()
}

/// Finds the play of an alias.
///
/// # Errors
/// [`Kind::Ambiguous`] where the argument is also the title or the catalogue name of another play; as [`by_id`].
pub(crate) async fn by_alias(labs: &Labs, argument: &str, target: &Target) -> Result<Play> {
    let (Playground::Id(id) | Playground::Name(id)) = &target.playground;
    let plays: Vec<_> = all(labs).await?.into_iter().filter(|play| !is_gone(play)).collect();
    let means = |play: &&Play| {
        play.id == *id || play.title == argument || play.playground.name == argument && !play.belongs_to_a_lesson()
    };
    match one(plays.iter().filter(means).cloned().collect(), argument)? {
        Some(play) if play.id == *id => Ok(play),
        _ => by_id(labs, id).await,
    }
}

/// The form of an argument.
enum Named {
    Id(String),
    /// A host name's name, or the whole argument.
    Otherwise(String),
}

fn named(argument: &str) -> Named {
    match Target::parse(argument) {
        Ok(Target { playground: Playground::Id(id), .. }) => Named::Id(id),
        Ok(Target { playground: Playground::Name(name), .. }) => Named::Otherwise(name),
        Err(_) if is_id(argument) => Named::Id(argument.to_owned()),
        Err(_) => Named::Otherwise(argument.to_owned()),
    }
}

/// The play among `plays` that an argument names: by its title, its catalogue name, its title in other upper and lower
/// case, or a page address or a name of the content that it belongs to.
async fn among(
    labs: &Labs,
    argument: &str,
    name: &str,
    reference: &Result<Option<Reference>>,
    plays: &[Play],
) -> Result<Option<Play>> {
    let titled =
        |is_it: &dyn Fn(&str) -> bool| one(plays.iter().filter(|play| is_it(&play.title)).cloned().collect(), argument);
    if let Some(play) = titled(&|title| title == argument)? {
        return Ok(Some(play));
    }
    if let Found::Play(play) = by_name(name, plays.to_vec())? {
        return Ok(Some(*play));
    }
    let lower = argument.to_lowercase();
    if let Some(play) = titled(&|title| title.to_lowercase() == lower)? {
        return Ok(Some(play));
    }
    match reference.as_ref().map_err(Clone::clone)? {
        Some(Reference::Play(id)) => by_id(labs, id).await.map(Some),
        Some(Reference::Playground(name)) => match by_name(name, plays.to_vec())? {
            Found::Play(play) => Ok(Some(*play)),
            Found::Startable(_) => Ok(None),
        },
        Some(homework) => live_or_down(learning::plays_of(homework, plays), argument),
        None => Ok(None),
    }
}

/// The machine of a play: the named one, else the first that SSH can get into.
///
/// # Errors
/// [`Kind::NotFound`] with the machines there are.
pub(crate) fn machine<'a>(play: &'a Play, name: Option<&str>) -> Result<&'a Machine> {
    let found = match name {
        None => play.machines.iter().find(|one| !play.has_no_ssh(&one.name)).or(play.machines.first()),
        Some(name) => play.machines.iter().find(|machine| machine.name == name),
    };
    found.ok_or_else(|| {
        let names: Vec<_> = play.machines.iter().map(|machine| machine.name.as_str()).collect();
        let wanted = name.unwrap_or("(default)");
        let container = names.first().filter(|_| is_label(wanted)).map(|first| match wanted {
            POD => format!("; the host name of a pod is {}.{POD}.<namespace>.<pod>", Target::of_play(&play.id, None)),
            _ => {
                let target = Target::of_play(&play.id, Some(first)).into_container(wanted);
                format!("; the host name of a container {wanted} is {target}")
            }
        });
        Error::new(Kind::NotFound, format!("playground {} has no machine {wanted}", play.shown())).with_hint(format!(
            "use one of its machines: {}{}",
            names.join(", "),
            container.unwrap_or_default()
        ))
    })
}

/// The user to log in as: the named one, else the machine's default one.
///
/// # Errors
/// [`Kind::NotFound`] with the users there are.
pub(crate) fn user<'a>(play: &Play, machine: &'a Machine, name: Option<&'a str>) -> Result<&'a str> {
    match name {
        None => Ok(machine.default_user()),
        // A machine whose users the platform does not list may have any.
        Some(name) if machine.users.is_empty() || machine.has_user(name) => Ok(name),
        Some(name) => {
            let mut names: Vec<_> = machine.users.iter().map(|user| user.name.as_str()).collect();
            if !names.contains(&"root") {
                names.push("root");
            }
            let message = format!("machine {} of playground {} has no user {name}", machine.name, play.shown());
            Err(Error::new(Kind::NotFound, message).with_hint(format!("use one of its users: {}", names.join(", "))))
        }
    }
}

/// The play of a command that acts on all of its machines.
///
/// # Errors
/// [`Kind::Usage`] for the host name of one machine or container; as [`by_argument`].
pub(crate) async fn whole(labs: &Labs, argument: &str) -> Result<Play> {
    if let Some(Target { machine, inside, .. }) = target(labs, argument)
        && (machine.is_some() || inside.is_some())
    {
        let what = if inside.is_some() { "container" } else { "machine" };
        let rest = machine.into_iter().chain(inside.map(|inside| inside.to_string())).collect::<Vec<_>>().join(".");
        let message = format!("{argument} is one {what}, but this command acts on the whole playground");
        return Err(Error::new(Kind::Usage, message).with_hint(format!("leave out `.{rest}`")));
    }
    by_argument(labs, argument).await
}

#[cfg(test)]
mod tests {
    use super::{Found, by_name, machine, user};
    use crate::{
        error::Kind,
        labs::wire::{Machine, MachineUser, Play, PlaygroundRef, StateEvent, Status},
    };

    fn play(id: char, name: &str, state: &str) -> Play {
        Play {
            id: id.to_string().repeat(24),
            playground: PlaygroundRef { name: name.into(), ..Default::default() },
            status: Some(Status {
                state_events: vec![StateEvent {
                    state: state.to_owned().into(),
                    error: serde_json::Value::Null,
                    at: String::new(),
                }],
                ..Default::default()
            }),
            machines: vec![Machine {
                name: "m".into(),
                users: vec![MachineUser { name: "laborant".into(), default: true }],
                ..Default::default()
            }],
            ..Default::default()
        }
    }

    fn found(plays: Vec<Play>) -> Result<String, Kind> {
        match by_name("docker", plays) {
            Ok(Found::Play(play)) => Ok(play.id[..1].to_owned()),
            Ok(Found::Startable(name)) => Ok(name),
            Err(e) => Err(e.kind()),
        }
    }

    #[test]
    fn a_name_means_its_live_play_else_its_stopped_one_else_a_new_one() {
        let lesson = Play { tutorial_name: Some("t".into()), ..play('9', "docker", "RUNNING") };
        assert_eq!(found(vec![lesson.clone(), play('1', "other", "RUNNING")]).unwrap(), "docker");
        assert_eq!(found(vec![play('1', "docker", "STOPPED"), play('2', "docker", "STARTING")]).unwrap(), "2");
        assert_eq!(found(vec![play('1', "docker", "STOPPED"), lesson]).unwrap(), "1");
        assert_eq!(found(vec![play('1', "docker", "DESTROYED")]).unwrap(), "docker");
        assert_eq!(found(vec![play('1', "docker", "NAPPING")]).unwrap(), "1");
        assert_eq!(
            found(vec![play('1', "docker", "RUNNING"), play('2', "docker", "RUNNING")]).unwrap_err(),
            Kind::Ambiguous
        );
        assert_eq!(
            found(vec![play('1', "docker", "STOPPED"), play('2', "docker", "STOPPED")]).unwrap_err(),
            Kind::Ambiguous
        );
    }

    #[test]
    fn machines_and_users_are_checked_and_listed() {
        let play = play('1', "docker", "RUNNING");
        let m = machine(&play, None).unwrap();
        assert_eq!(user(&play, m, None).unwrap(), "laborant");
        assert_eq!(user(&play, m, Some("root")).unwrap(), "root");
        assert_eq!(user(&play, m, Some("eve")).unwrap_err().hint(), Some("use one of its users: laborant, root"));
        let hint =
            "use one of its machines: m; the host name of a container n is playground-111111111111111111111111.m.n";
        assert_eq!(machine(&play, Some("n")).unwrap_err().hint(), Some(hint));
    }
}
