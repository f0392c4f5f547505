//! From a host name's label to one running container, or to the sentence that says why there is none.

use std::path::Path;

use crate::{
    engine::{Engine, Inspected, Listed},
    labels,
    scan::{self, Kept},
    stored, text,
    wire::{Container, Listing, Refusal, RefusalKind},
};

/// Most labels that a sentence lists.
const MAX_LABELS: usize = 12;

/// A container that runs.
pub(crate) struct Running {
    /// Its description.
    pub(crate) container: Container,
    /// Its engine's details.
    pub(crate) details: Inspected,
}

/// The containers of the machine, of all its engines.
struct Machine {
    containers: Vec<Container>,
    /// The details of those that run without an engine's socket.
    kept: Vec<Inspected>,
    /// The reason why Docker's are missing.
    failure: Option<Refusal>,
}

impl Machine {
    fn of(engine: &Engine) -> Machine {
        let (docker, failure) = match engine.containers() {
            Ok(containers) => (containers, None),
            Err(refusal) => (Vec::new(), Some(refusal)),
        };
        let (kept, bundles) = scan::running(Path::new("/proc"), &engine.scope);
        let mut stored = stored::of_podman(&engine.scope, &bundles);
        stored.extend(stored::of_nerdctl(&engine.scope));
        Machine::joined(docker.into_iter().map(Listed::described).collect(), kept, stored, failure)
    }

    /// Joins what is known of each container, by its id: podman, too, speaks Docker's API.
    fn joined(
        mut containers: Vec<Container>,
        kept: Vec<Kept>,
        stored: Vec<Container>,
        failure: Option<Refusal>,
    ) -> Machine {
        let mut details = Vec::new();
        let running = kept.into_iter().map(|Kept { container, details: its }| {
            details.push(its);
            container
        });
        for new in running.chain(stored) {
            match containers.iter_mut().find(|one| one.id == new.id) {
                Some(known) => {
                    known.engine = new.engine;
                    if known.image.is_empty() {
                        known.image = new.image;
                    }
                }
                None => containers.push(new),
            }
        }
        labels::give(&mut containers);
        Machine { containers, kept: details, failure }
    }
}

/// All containers of the machine.
///
/// # Errors
/// Fails when Docker's engine does not answer, or is not there and there is no other container.
pub(crate) fn list(engine: &Engine) -> Result<Listing, Refusal> {
    let Machine { containers, failure, .. } = Machine::of(engine);
    match failure {
        Some(refusal) if containers.is_empty() || !engine.is_absent() => Err(refusal),
        _ => Ok(Listing { containers, problem: None }),
    }
}

/// The running container that `label` means.
///
/// # Errors
/// Fails when there is not exactly one, or when it does not run.
pub(crate) fn running(engine: &Engine, label: &str) -> Result<Running, Refusal> {
    let Machine { containers, kept, failure } = Machine::of(engine);
    let container = one(&containers, label).map_err(|refusal| match failure {
        Some(failure) if refusal.kind == RefusalKind::NotFound && (containers.is_empty() || !engine.is_absent()) => {
            failure
        }
        _ => refusal,
    })?;
    if container.state != "running" {
        return Err(not_running(&container));
    }
    only_one(&kept, &container.id)?;
    let details = match kept.into_iter().find(|one| one.id == container.id) {
        Some(details) => Some(details),
        None => engine.inspect(&container.id)?.filter(|details| details.state.pid > 0),
    };
    // The container ended between the two requests.
    let details = details.ok_or_else(|| ended(engine, &container))?;
    Ok(Running { container, details })
}

/// Refuses an id of several containers, in namespaces of containerd: none of them is the one that is meant.
fn only_one(kept: &[Inspected], id: &str) -> Result<(), Refusal> {
    if kept.iter().filter(|one| one.id == id).count() < 2 {
        return Ok(());
    }
    let message = format!("`{}` is the id of several containers, in namespaces of containerd", text::line(id));
    Err(Refusal::new(RefusalKind::Ambiguous, message).with_hint("give them ids of their own"))
}

/// The refusal to enter a container whose process has ended since it was found.
pub(crate) fn ended(engine: &Engine, container: &Container) -> Refusal {
    changed(engine, container).unwrap_or_else(|| {
        let message = format!("container {} was restarted at this moment", text::line(&container.name));
        Refusal::new(RefusalKind::NotRunning, message).with_hint("connect again")
    })
}

/// The refusal to enter a container that was running a moment ago, if it does not run any more.
pub(crate) fn changed(engine: &Engine, container: &Container) -> Option<Refusal> {
    let machine = Machine::of(engine);
    match machine.containers.iter().find(|one| one.id == container.id) {
        Some(now) if now.state == "running" => None,
        Some(now) => Some(not_running(now)),
        // Without its engine, nothing is known of it.
        None if machine.failure.is_some() && container.engine == "docker" => None,
        None => {
            let client = container.client();
            let how = if container.is_listed_stopped() { "was removed" } else { "has ended" };
            let message = format!("container {} {how}", text::line(&container.name));
            let user = container.user_of_client();
            let hint = format!("look for another one with `labctl-ssh-proxy ssh {user}{{machine}} {client} ps`");
            Some(Refusal::new(RefusalKind::NotRunning, message).with_hint(hint))
        }
    }
}

fn one(containers: &[Container], label: &str) -> Result<Container, Refusal> {
    match labels::meant(containers, label)[..] {
        [only] => Ok(only.clone()),
        [] => {
            let message = format!("there is no container `{}`", text::line(label));
            let refusal = Refusal::new(RefusalKind::NotFound, message);
            Err(match containers {
                [] => refusal
                    .with_hint("no container exists; `labctl-ssh-proxy ssh {machine} docker ps --all` shows them"),
                _ => refusal.with_hint(format!("the machine has: {}", labels_of(containers.iter().collect()))),
            })
        }
        ref several => {
            let message = format!("`{}` fits {} containers", text::line(label), several.len());
            let hint = format!("use one of their labels: {}", labels_of(several.to_vec()));
            Err(Refusal::new(RefusalKind::Ambiguous, message).with_hint(hint))
        }
    }
}

/// `web, db and 3 more`: those that run come first.
fn labels_of(mut some: Vec<&Container>) -> String {
    some.sort_by_key(|one| one.state != "running");
    // A container of a pod is told apart by the pod, and of others by the engine.
    let shown = some.iter().take(MAX_LABELS).map(|one| {
        let other_name = match &one.pod {
            Some(pod) if one.label == one.name => format!(" (of pod {})", text::line(&pod.name)),
            _ if one.label == one.name => String::new(),
            _ => format!(" ({})", text::line(&one.name)),
        };
        format!("{}{other_name}", one.label)
    });
    let shown: Vec<String> = shown.collect();
    match some.len().saturating_sub(MAX_LABELS) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

/// The sentence about a container that does not run, from its engine's words.
pub(crate) fn not_running(container: &Container) -> Refusal {
    let name = text::line(&container.name);
    let (client, user) = (container.client(), container.user_of_client());
    let docker =
        |command: &str| format!("`labctl-ssh-proxy ssh {user}{{machine}} {client} {command} {}`", container.to_copy());
    let since = since(&container.status);
    let (message, hint) = match container.state.as_str() {
        "created" => (
            format!("container {name} was created, and has not been started yet"),
            format!("start it with {}", docker("start")),
        ),
        "exited" => (format!("container {name} has exited{since}"), format!("start it with {}", docker("start"))),
        // An engine that is not asked keeps the rest to itself.
        "stopped" => (format!("container {name} is not running"), format!("start it with {}", docker("start"))),
        "paused" => (format!("container {name} is paused"), format!("let it go on with {}", docker("unpause"))),
        "restarting" => (
            format!("container {name} is about to be restarted: it has exited{since}"),
            format!("read what it says with {}", docker("logs")),
        ),
        "removing" => (
            format!("container {name} is being removed"),
            format!("wait a moment, and look with `labctl-ssh-proxy ssh {user}{{machine}} {client} ps --all`"),
        ),
        "dead" => (
            format!("container {name} is dead: the engine could not remove it"),
            format!("remove it with {}", docker("rm --force")),
        ),
        other => (
            format!("container {name} is not running (its state is `{}`)", text::line(other)),
            format!("look at it with {}", docker("inspect")),
        ),
    };
    Refusal::new(RefusalKind::NotRunning, message).with_hint(hint)
}

/// ` with code 137, 3 minutes ago`, out of `Exited (137) 3 minutes ago`.
fn since(status: &str) -> String {
    let parts = status.split_once('(').and_then(|(_, rest)| rest.split_once(')'));
    match parts {
        Some((code, ago)) if code.parse::<i32>().is_ok() => match text::line(ago).as_str() {
            "" => format!(" with code {code}"),
            // `Less than a second ago`, `About a minute ago`.
            ago => format!(" with code {code}, {}", lower_case_first(ago)),
        },
        _ => String::new(),
    }
}

fn lower_case_first(text: &str) -> String {
    let mut characters = text.chars();
    characters.next().map(|first| first.to_ascii_lowercase()).into_iter().chain(characters).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(state: &str, status: &str) -> Container {
        Container {
            name: "Web.1".into(),
            label: "web-1".into(),
            state: state.into(),
            status: status.into(),
            ..Container::default()
        }
    }

    #[test]
    fn an_id_of_two_means_neither() {
        let [one, two, other] = ["web", "web", "db"].map(|id| Inspected { id: id.to_owned(), ..Inspected::default() });
        let all = [one, two, other];
        assert_eq!(only_one(&all, "web").unwrap_err().kind, RefusalKind::Ambiguous);
        assert!(only_one(&all, "db").is_ok() && only_one(&all, "none").is_ok());
    }

    #[test]
    fn each_state_has_a_sentence_and_a_command() {
        for (state, status, message, hint) in [
            ("created", "Created", "was created, and has not been started yet", "docker start Web.1`"),
            ("exited", "Exited (137) 3 minutes ago", "has exited with code 137, 3 minutes ago", "docker start Web.1`"),
            (
                "exited",
                "Exited (1) About a minute ago",
                "has exited with code 1, about a minute ago",
                "docker start Web.1`",
            ),
            ("exited", "Exited (1) é", "has exited with code 1, é", "docker start Web.1`"),
            ("exited", "", "has exited", "docker start Web.1`"),
            ("paused", "Up 3 hours (Paused)", "is paused", "docker unpause Web.1`"),
            (
                "restarting",
                "Restarting (1) 5 seconds ago",
                "is about to be restarted: it has exited with code 1, 5 seconds ago",
                "docker logs Web.1`",
            ),
            ("removing", "Removal In Progress", "is being removed", "docker ps --all`"),
            ("dead", "Dead", "is dead: the engine could not remove it", "docker rm --force Web.1`"),
            ("stopped", "", "is not running", "docker start Web.1`"),
            ("sleeping", "", "is not running (its state is `sleeping`)", "docker inspect Web.1`"),
        ] {
            let refusal = not_running(&container(state, status));
            assert_eq!(refusal.message, format!("container Web.1 {message}"));
            let refused = refusal.hint.unwrap();
            assert!(refused.contains("`labctl-ssh-proxy ssh {machine} docker") && refused.ends_with(hint), "{refused}");
            assert_eq!(refusal.kind, RefusalKind::NotRunning);
        }
    }

    #[test]
    fn a_name_that_a_shell_would_read_is_in_no_command() {
        let refusal = not_running(&Container { name: "a;\u{1b}$(id)".into(), ..container("exited", "") });
        assert_eq!(refusal.message, "container a; $(id) has exited");
        assert!(refusal.hint.unwrap().ends_with("docker start web-1`"));
    }

    #[test]
    fn each_engine_has_its_client() {
        let pod = Some(crate::wire::Pod { namespace: "shop".into(), name: "web-0".into() });
        for (engine, pod, command) in [
            ("docker", None, "docker start Web.1`"),
            ("podman", None, "podman start Web.1`"),
            ("containerd", None, "nerdctl start Web.1`"),
            ("containerd", pod.clone(), "crictl start 0123456789abc`"),
            ("cri-o", pod, "crictl start 0123456789abc`"),
        ] {
            let id = "0123456789abcdef".repeat(4);
            let refusal = not_running(&Container { engine: engine.into(), pod, id, ..container("exited", "") });
            assert!(refusal.hint.unwrap().ends_with(command), "{engine}");
        }
    }

    #[test]
    fn each_container_is_there_once() {
        let kept = |id: &str, name: &str| {
            let container = Container { engine: "podman".into(), image: "image".into(), ..listed(id, name, "running") };
            Kept { details: Inspected { id: container.id.clone(), ..Inspected::default() }, container }
        };
        // podman at Docker's socket, and one container beside it.
        let stored = ["a", "c", "d"].map(|id| Container { engine: "podman".into(), ..listed(id, "web", "stopped") });
        let docker = vec![listed("a", "web", "paused"), listed("b", "db", "exited")];
        let Machine { containers, kept, .. } =
            Machine::joined(docker, vec![kept("a", "web"), kept("c", "web")], stored.to_vec(), None);
        let states: Vec<_> =
            containers.iter().map(|one| format!("{} {} {}", one.label, one.state, one.engine)).collect();
        let expected =
            ["aaaaaaaaaaaa paused podman", "db exited ", "cccccccccccc running podman", "dddddddddddd stopped podman"];
        assert_eq!(states, expected);
        assert_eq!((containers[0].image.as_str(), kept.len()), ("image", 2));
    }

    fn listed(id: &str, name: &str, state: &str) -> Container {
        Container { id: id.repeat(64), name: name.into(), state: state.into(), ..Container::default() }
    }

    fn of(containers: Vec<Container>) -> Vec<Container> {
        Machine::joined(containers, Vec::new(), Vec::new(), None).containers
    }

    #[test]
    fn a_name_of_none_or_of_two_is_answered_with_the_list() {
        let all =
            of(vec![listed("a", "Web", "exited"), listed("b", "db.1", "running"), listed("c", "DB-1", "running")]);
        assert_eq!(one(&all, "web").unwrap().name, "Web");
        let refusal = one(&all, "wen").unwrap_err();
        assert_eq!(refusal.message, "there is no container `wen`");
        assert_eq!(refusal.hint.unwrap(), "the machine has: bbbbbbbbbbbb (db.1), cccccccccccc (DB-1), web (Web)");
        let refusal = one(&all, "db-1").unwrap_err();
        assert_eq!((refusal.kind, refusal.message.as_str()), (RefusalKind::Ambiguous, "`db-1` fits 2 containers"));
        assert_eq!(refusal.hint.unwrap(), "use one of their labels: bbbbbbbbbbbb (db.1), cccccccccccc (DB-1)");
        assert!(one(&[], "web").unwrap_err().hint.unwrap().contains("no container exists"));
        let many = of((0..15).map(|n| listed(&format!("{n:x}"), &format!("n{n}"), "running")).collect());
        assert!(one(&many, "x").unwrap_err().hint.unwrap().ends_with("n11 and 3 more"));
    }
}
