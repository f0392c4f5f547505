//! The containers for people: a table for each machine, with the host name that leads into them.

use std::collections::BTreeSet;

use helper::wire::{Container, Port};

use super::Answer;
use crate::{
    error::printable,
    ui::out::{self, Expendable},
};

/// The time for which a page is good.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Moment {
    /// It is printed once, and may say how long something has lasted.
    Now,
    /// It stands until the next change.
    Lasting,
}

/// The lines about all machines that have answered.
pub(super) fn lines<'a>(answers: impl Iterator<Item = &'a Answer>, moment: Moment) -> Vec<String> {
    let answers: Vec<&Answer> = answers.collect();
    let mut lines = Vec::new();
    for answer in &answers {
        let Ok(containers) = &answer.found else { continue };
        if !lines.is_empty() {
            lines.push(String::new());
        }
        if answers.len() > 1 {
            lines.push(format!("Machine {}", printable(&answer.machine)));
        }
        lines.extend(of_machine(answer, containers, moment));
    }
    lines
}

fn of_machine(answer: &Answer, containers: &[Container], moment: Moment) -> Vec<String> {
    let mut sorted: Vec<&Container> = containers.iter().collect();
    let pod = |one: &Container| one.pod.as_ref().map(|pod| (pod.namespace.clone(), pod.name.clone()));
    sorted.sort_by_key(|one| (pod(one), !runs(one), one.name.clone()));
    if sorted.is_empty() {
        return vec![format!("There are no containers on machine {}.", printable(&answer.machine))];
    }
    let has_labels = sorted.iter().any(|one| one.label != one.name);
    let has_pods = sorted.iter().any(|one| one.pod.is_some());
    type Column = (&'static str, bool, fn(&Container, Moment) -> String);
    let columns: [Column; 6] = [
        ("NAME", true, |one, _| printable(&one.name)),
        ("LABEL", has_labels, |one, _| printable(&one.label)),
        ("POD", has_pods, |one, _| {
            one.pod.as_ref().map(|pod| printable(&format!("{}/{}", pod.namespace, pod.name))).unwrap_or_default()
        }),
        ("IMAGE", true, |one, _| image(&one.image)),
        ("STATE", true, state),
        ("PORTS", true, |one, _| ports(&one.ports)),
    ];
    let columns: Vec<_> = columns.into_iter().filter(|(_, is_shown, _)| *is_shown).collect();
    let head: Vec<&str> = columns.iter().map(|(name, ..)| *name).collect();
    let rows = sorted.iter().map(|one| columns.iter().map(|(.., cell)| cell(one, moment)).collect()).collect();
    let mut lines = out::table_lines(&head, rows, &Expendable { early: &[], late: &["PORTS", "IMAGE", "POD"] });
    // A column of them would take the room of all others.
    if let Some(example) = sorted.iter().find(|one| runs(one) && crate::target::is_label(&one.label)) {
        lines.extend([
            String::new(),
            format!("To go inside, for example into {}:", printable(&example.name)),
            format!("  ssh {}", answer.host_of(example)),
        ]);
    }
    lines
}

fn runs(container: &Container) -> bool {
    container.state == "running"
}

/// The image's name, or the digits that Docker's own client shows of one without a name.
fn image(image: &str) -> String {
    const DIGITS: usize = 12;
    let digits = image.strip_prefix("sha256:").and_then(|digits| digits.get(..DIGITS));
    printable(digits.unwrap_or(image))
}

/// The engine's sentence. What ages in it is left out where it would be read later.
fn state(container: &Container, moment: Moment) -> String {
    let Container { state, status, .. } = container;
    let lasting = container.lasting_status();
    let says_more = !lasting.trim_matches(['(', ')']).eq_ignore_ascii_case(state);
    match moment {
        Moment::Now if !status.is_empty() => printable(status),
        Moment::Lasting if says_more => printable(&format!("{state} {lasting}")),
        Moment::Now | Moment::Lasting => printable(state),
    }
}

/// `8080->80, 53/udp`: an address is named where it is not all of the machine's.
fn ports(ports: &[Port]) -> String {
    let described = |port: &Port| {
        let protocol = if port.protocol == "tcp" { String::new() } else { format!("/{}", port.protocol) };
        let inside = format!("{}{protocol}", port.container);
        match (port.machine, port.address.as_str()) {
            (None, _) => inside,
            (Some(outside), "" | "0.0.0.0" | "::") => format!("{outside}->{inside}"),
            (Some(outside), address) => format!("{}->{inside}", crate::target::host_port(address, outside)),
        }
    };
    let mut sorted: Vec<&Port> = ports.iter().collect();
    sorted.sort();
    // One that is published for both kinds of address comes twice.
    let mut seen = BTreeSet::new();
    let described = sorted.into_iter().map(described).filter(|one| seen.insert(one.clone()));
    printable(&described.collect::<Vec<_>>().join(", "))
}

#[cfg(test)]
mod tests {
    use helper::wire::Pod;

    use super::*;
    use crate::target::Target;

    fn container(name: &str, state: &str, status: &str) -> Container {
        let (name, label) = (name.to_owned(), name.to_lowercase().replace('.', "-"));
        Container {
            name,
            label,
            image: "app:1".into(),
            state: state.into(),
            status: status.into(),
            ..Container::default()
        }
    }

    fn shown(containers: Vec<Container>, moment: Moment) -> String {
        let host = Target::of_play("0123456789abcdef01234567", Some("docker-01"));
        lines([Answer { machine: "docker-01".into(), host, found: Ok(containers) }].iter(), moment).join("\n")
    }

    #[test]
    fn those_that_run_come_first_and_pods_together() {
        let in_pod = |name: &str, pod: &str, state: &str| Container {
            pod: Some(Pod { namespace: "default".into(), name: pod.into() }),
            ..container(name, state, "")
        };
        let text = shown(
            vec![
                in_pod("b", "two", "running"),
                in_pod("a", "one", "exited"),
                in_pod("z", "one", "running"),
                container("db", "exited", "Exited (1) 2 days ago"),
                container("web", "running", "Up 3 hours (healthy)"),
            ],
            Moment::Now,
        );
        assert_eq!(
            text,
            "NAME  POD          IMAGE  STATE                  PORTS\n\
             web                app:1  Up 3 hours (healthy)\n\
             db                 app:1  Exited (1) 2 days ago\n\
             z     default/one  app:1  running\n\
             a     default/one  app:1  exited\n\
             b     default/two  app:1  running\n\
             \n\
             To go inside, for example into web:\n  ssh playground-0123456789abcdef01234567.docker-01.web"
        );
    }

    #[test]
    fn a_label_is_shown_where_it_is_not_the_name_and_an_age_where_it_is_true() {
        let all = || {
            let one = |name, state, status| container(name, state, status);
            vec![one("Web.1", "running", "Up 5 seconds"), one("p", "paused", "Up 2 minutes (Paused)")]
        };
        let text = shown(all(), Moment::Now);
        assert!(text.contains("Web.1  web-1  app:1  Up 5 seconds"), "{text}");
        assert!(text.ends_with(".docker-01.web-1"), "{text}");
        let text = shown(all(), Moment::Lasting);
        assert!(text.contains("  running\n") && text.contains("  paused\n") && !text.contains("Up"), "{text}");
        let exited = shown(vec![container("a", "exited", "Exited (137) 3 minutes ago")], Moment::Lasting);
        assert!(exited.contains("exited (137)"), "{exited}");
        assert_eq!(shown(Vec::new(), Moment::Now), "There are no containers on machine docker-01.");
    }

    #[test]
    fn ports_are_written_as_docker_writes_them() {
        let port = |container, protocol: &str, address: &str, machine| Port {
            container,
            protocol: protocol.into(),
            address: address.into(),
            machine,
        };
        let all = [
            port(80, "tcp", "::", Some(8080)),
            port(80, "tcp", "0.0.0.0", Some(8080)),
            port(53, "udp", "127.0.0.1", Some(5353)),
            port(443, "tcp", "", None),
            port(80, "tcp", "::1", Some(81)),
        ];
        assert_eq!(ports(&all), "127.0.0.1:5353->53/udp, 8080->80, [::1]:81->80, 443");
        let id = format!("sha256:{}", "ab".repeat(32));
        assert_eq!((image(&id).as_str(), image("sha256:").as_str()), ("abababababab", "sha256:"));
    }

    #[test]
    fn names_of_a_machine_move_no_cursor() {
        let evil = "a\x1b[2J\u{9b}31m\u{202e}\r\nb";
        let port = Port { protocol: evil.into(), address: evil.into(), machine: Some(1), ..Port::default() };
        let pod = Some(Pod { namespace: evil.into(), name: evil.into() });
        let text = evil.to_owned();
        let one = Container {
            name: text.clone(),
            image: text.clone(),
            state: text.clone(),
            status: text,
            pod,
            ports: vec![port],
            ..Container::default()
        };
        for moment in [Moment::Now, Moment::Lasting] {
            // A label that is none is in no line to copy.
            let second = Container { label: evil.into(), ..container("web", "running", "") };
            for (all, lines) in [(vec![one.clone()], 2), (vec![one.clone(), second], 3)] {
                let text = shown(all, moment);
                assert!(!text.contains(['\x1b', '\u{9b}', '\u{202e}', '\r']), "{text:?}");
                assert_eq!(text.lines().count(), lines, "{text:?}");
            }
        }
    }
}
