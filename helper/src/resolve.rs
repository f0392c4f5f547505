//! From a host name's label to one running container, or to the sentence that says why there is none.

use crate::{
    engine::{Engine, Inspected, Listed},
    labels, text,
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

/// All containers of the machine.
///
/// # Errors
/// Fails when the engine is not there or does not answer.
pub(crate) fn list(engine: &Engine) -> Result<Listing, Refusal> {
    let containers = engine.containers()?;
    Ok(Listing { containers: containers.iter().map(|one| labels::described(&containers, one)).collect() })
}

/// The running container that `label` means.
///
/// # Errors
/// Fails when there is not exactly one, or when it does not run.
pub(crate) fn running(engine: &Engine, label: &str) -> Result<Running, Refusal> {
    let container = one(&engine.containers()?, label)?;
    if container.state != "running" {
        return Err(not_running(&container));
    }
    let details = engine.inspect(&container.id)?.filter(|details| details.state.pid > 0);
    // The container ended between the two requests.
    let details = details.ok_or_else(|| ended(engine, &container))?;
    Ok(Running { container, details })
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
    let all = engine.containers().ok()?;
    match all.iter().find(|one| one.id == container.id) {
        Some(now) if now.state == "running" => None,
        Some(now) => Some(not_running(&labels::described(&all, now))),
        None => {
            let message = format!("container {} was removed", text::line(&container.name));
            let hint = "look for another one with `labctl-ssh-proxy ssh {machine} docker ps`";
            Some(Refusal::new(RefusalKind::NotRunning, message).with_hint(hint))
        }
    }
}

fn one(containers: &[Listed], label: &str) -> Result<Container, Refusal> {
    match labels::meant(containers, label)[..] {
        [only] => Ok(labels::described(containers, only)),
        [] => {
            let message = format!("there is no container `{}`", text::line(label));
            let refusal = Refusal::new(RefusalKind::NotFound, message);
            Err(match containers {
                [] => refusal
                    .with_hint("no container exists; `labctl-ssh-proxy ssh {machine} docker ps --all` shows them"),
                _ => refusal
                    .with_hint(format!("the machine has: {}", labels_of(containers, containers.iter().collect()))),
            })
        }
        ref several => {
            let message = format!("`{}` fits {} containers", text::line(label), several.len());
            let hint = format!("use one of their labels: {}", labels_of(containers, several.to_vec()));
            Err(Refusal::new(RefusalKind::Ambiguous, message).with_hint(hint))
        }
    }
}

/// `web, db and 3 more`: those that run come first.
fn labels_of(all: &[Listed], mut some: Vec<&Listed>) -> String {
    some.sort_by_key(|one| one.state != "running");
    let shown = some.iter().take(MAX_LABELS).map(|one| {
        let one = labels::described(all, one);
        let by_another_name =
            if one.label == one.name { String::new() } else { format!(" ({})", text::line(&one.name)) };
        format!("{}{by_another_name}", one.label)
    });
    let shown: Vec<String> = shown.collect();
    match some.len().saturating_sub(MAX_LABELS) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

/// The sentence about a container that does not run, from its engine's words.
fn not_running(container: &Container) -> Refusal {
    let name = text::line(&container.name);
    let docker = |command: &str| format!("`labctl-ssh-proxy ssh {{machine}} docker {command} {}`", container.to_copy());
    let since = since(&container.status);
    let (message, hint) = match container.state.as_str() {
        "created" => (
            format!("container {name} was created, and has not been started yet"),
            format!("start it with {}", docker("start")),
        ),
        "exited" => (format!("container {name} has exited{since}"), format!("start it with {}", docker("start"))),
        "paused" => (format!("container {name} is paused"), format!("let it go on with {}", docker("unpause"))),
        "restarting" => (
            format!("container {name} is about to be restarted: it has exited{since}"),
            format!("read what it says with {}", docker("logs")),
        ),
        "removing" => (
            format!("container {name} is being removed"),
            "wait a moment, and look with `labctl-ssh-proxy ssh {machine} docker ps --all`".into(),
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

    fn listed(id: &str, name: &str, state: &str) -> Listed {
        Listed { id: id.repeat(64), names: vec![format!("/{name}")], state: state.into(), ..Listed::default() }
    }

    #[test]
    fn a_name_of_none_or_of_two_is_answered_with_the_list() {
        let all = [listed("a", "Web", "exited"), listed("b", "db.1", "running"), listed("c", "DB-1", "running")];
        assert_eq!(one(&all, "web").unwrap().name, "Web");
        let refusal = one(&all, "wen").unwrap_err();
        assert_eq!(refusal.message, "there is no container `wen`");
        assert_eq!(refusal.hint.unwrap(), "the machine has: bbbbbbbbbbbb (db.1), cccccccccccc (DB-1), web (Web)");
        let refusal = one(&all, "db-1").unwrap_err();
        assert_eq!((refusal.kind, refusal.message.as_str()), (RefusalKind::Ambiguous, "`db-1` fits 2 containers"));
        assert_eq!(refusal.hint.unwrap(), "use one of their labels: bbbbbbbbbbbb (db.1), cccccccccccc (DB-1)");
        assert!(one(&[], "web").unwrap_err().hint.unwrap().contains("no container exists"));
        let many: Vec<Listed> = (0..15).map(|n| listed(&format!("{n:x}"), &format!("n{n}"), "running")).collect();
        assert!(one(&many, "x").unwrap_err().hint.unwrap().ends_with("n11 and 3 more"));
    }
}
