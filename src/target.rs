//! Host names for ssh and their meaning: conversion to playgrounds, machines, containers and pods, and back. Pure.
//! `reference` reads the page addresses of the platform's site; `alias` makes the readable names that stand beside these.
//!
//! | host name | means |
//! | --- | --- |
//! | `playground-<id>` | the default machine of the playground with that id (24 hexadecimal digits) |
//! | `playground-<id>.<machine>` | the machine of that name in it |
//! | `playground-<name>` | the playground with that catalogue name |
//! | `playground-<name>.<machine>` | the machine of that name in it |
//! | `playground-<id or name>.<machine>.<container>` | a container of that machine |
//! | `playground-<id or name>.pod.<namespace>.<pod>` | the default container of a pod of its cluster |
//! | `playground-<id or name>.pod.<namespace>.<pod>.<container>` | the container of that name in it |
//!
//! The number of labels decides, from big to small, so that names sort and complete by their beginning.

pub mod alias;
pub mod reference;

use std::{fmt, str::FromStr};

use crate::{
    error::{Error, Kind, Result},
    platform::is_id,
};

/// The prefix of all our host names.
pub const PREFIX: &str = "playground-";

/// The end of the names by which listeners are found.
pub const LISTENER: &str = "-listen";

/// The forms of host names, for hints.
const FORMS: &str = "host names are playground-<id>, playground-<name>, or either with .<machine>, .<machine>.<container> \
                     or .pod.<namespace>.<pod>[.<container>]";

/// The label that stands for pods. A machine of that name is none the worse, because the number of labels differs.
pub const POD: &str = "pod";

/// A playground, and possibly one of its machines, and possibly what is inside.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Target {
    /// The playground.
    pub playground: Playground,
    /// The machine's name; `None` means the default machine. A pod's name does not say on which it runs.
    pub machine: Option<String>,
    /// The container, where one is meant.
    pub inside: Option<Inside>,
}

/// A container, as a host name calls it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Inside {
    /// The label of a container of the machine.
    Container(String),
    /// A container of a pod.
    Pod(PodName),
}

/// A container of a pod, by labels.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PodName {
    /// The namespace.
    pub namespace: String,
    /// The pod, or the Deployment, StatefulSet or DaemonSet that it is the one ready pod of.
    pub pod: String,
    /// The container; `None` means the pod's default one.
    pub container: Option<String>,
}

/// A reference to a playground.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Playground {
    /// By the id of a play: 24 lower-case hexadecimal digits.
    Id(String),
    /// By the name of a catalogue entry: its live play, its stopped one, or a new one.
    Name(String),
}

impl Target {
    /// Parses a host name as ssh passes it.
    ///
    /// # Errors
    /// [`Kind::Usage`], with the reason, when it is not one of ours.
    pub fn parse(host: &str) -> Result<Target> {
        let refuse = |why: &str| {
            Err(Error::new(Kind::Usage, format!("`{host}` is not a playground's host name: {why}")).with_hint(FORMS))
        };
        let Some(rest) = host.strip_prefix(PREFIX) else {
            return refuse("it does not begin with `playground-` in lower case");
        };
        let mut labels = rest.split('.');
        let playground = labels.next().unwrap_or_default();
        let labels: Vec<&str> = labels.collect();
        let owned = |label: &&str| (*label).to_owned();
        let (machine, inside) = match labels[..] {
            [] => (None, None),
            [machine] => (Some(owned(&machine)), None),
            [machine, container] => (Some(owned(&machine)), Some(Inside::Container(owned(&container)))),
            [POD, namespace, pod] | [POD, namespace, pod, _] => {
                let container = labels.get(3).map(owned);
                let name = PodName { namespace: owned(&namespace), pod: owned(&pod), container };
                (None, Some(Inside::Pod(name)))
            }
            _ => return refuse("it has more parts than a playground, a machine and a container, and names no pod"),
        };
        let whats: &[&str] =
            if labels.len() > 2 { &[POD, "namespace", "pod", "container"] } else { &["machine", "container"] };
        if let Err(why) = check_label(playground) {
            return refuse(&format!("the playground {why}"));
        }
        for (what, label) in whats.iter().zip(&labels) {
            if let Err(why) = check_label(label) {
                return refuse(&format!("the {what} {why}"));
            }
        }
        let playground =
            if is_id(playground) { Playground::Id(playground.into()) } else { Playground::Name(playground.into()) };
        Ok(Target { playground, machine, inside })
    }

    /// Returns the host name of a playground by its name in the catalogue.
    pub fn of_name(name: &str) -> Target {
        Target { playground: Playground::Name(name.into()), machine: None, inside: None }
    }

    /// Returns the host name of a machine of the play with this id. `None` means its default machine.
    pub fn of_play(id: &str, machine: Option<&str>) -> Target {
        Target { playground: Playground::Id(id.into()), machine: machine.map(Into::into), inside: None }
    }

    /// Returns the host name of a container of this machine.
    #[must_use]
    pub fn into_container(self, label: &str) -> Target {
        Target { inside: Some(Inside::Container(label.to_owned())), ..self }
    }

    /// Returns the host name of the machine that a container is on, which for other host names is their own. For a pod it
    /// is the default machine's.
    #[must_use]
    pub fn of_machine(&self) -> Target {
        Target { inside: None, ..self.clone() }
    }

    /// The label of the container, where one of a machine is meant.
    pub fn container(&self) -> Option<&str> {
        match &self.inside {
            Some(Inside::Container(label)) => Some(label),
            Some(Inside::Pod(_)) | None => None,
        }
    }

    /// The pod, where one is meant.
    pub fn pod(&self) -> Option<&PodName> {
        match &self.inside {
            Some(Inside::Pod(name)) => Some(name),
            Some(Inside::Container(_)) | None => None,
        }
    }
}

/// The machine and the container for whose host key a container has its own. A pod's is that of its name, whichever machine
/// it is on.
pub fn keyed<'a>(machine: &'a str, label: &str, pod: Option<&PodName>) -> (&'a str, String) {
    match pod {
        Some(name) => (POD, name.to_string()),
        None => (machine, label.to_owned()),
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Playground::Id(playground) | Playground::Name(playground)) = &self.playground;
        write!(f, "{PREFIX}{playground}")?;
        if let Some(machine) = &self.machine {
            write!(f, ".{machine}")?;
        }
        match &self.inside {
            Some(inside) => write!(f, ".{inside}"),
            None => Ok(()),
        }
    }
}

impl FromStr for PodName {
    type Err = String;

    /// Reads `[NAMESPACE/]POD[/CONTAINER]`. With one slash it is the namespace's.
    fn from_str(text: &str) -> Result<PodName, String> {
        let parts: Vec<&str> = text.split('/').collect();
        let (namespace, pod, container) = match parts[..] {
            [pod] => ("default", pod, None),
            [namespace, pod] => (namespace, pod, None),
            [namespace, pod, container] => (namespace, pod, Some(container)),
            _ => return Err("write [NAMESPACE/]POD[/CONTAINER]".to_owned()),
        };
        let label = |what: &str, name: &str| {
            // A pod on a node with a domain has dots in its own name.
            let label = name.replace('.', "-");
            check_label(&label).map_err(|why| format!("the {what} {why}")).map(|()| label)
        };
        Ok(PodName {
            namespace: label("namespace", namespace)?,
            pod: label("pod", pod)?,
            container: container.map(|name| label("container", name)).transpose()?,
        })
    }
}

impl fmt::Display for Inside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Inside::Container(label) => f.write_str(label),
            Inside::Pod(name) => write!(f, "{POD}.{name}"),
        }
    }
}

impl fmt::Display for PodName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let PodName { namespace, pod, container } = self;
        write!(f, "{namespace}.{pod}")?;
        container.iter().try_for_each(|container| write!(f, ".{container}"))
    }
}

/// Returns the name by which the listener for a host is found: one label, which no pattern of containers matches.
pub fn of_listener(host: &str) -> String {
    host.replace('.', "-") + LISTENER
}

/// Returns true if `name` can be part of a host name. Such a name is safe in ssh's files, in a shell and in a URL.
pub fn is_label(name: &str) -> bool {
    check_label(name).is_ok()
}

fn check_label(label: &str) -> Result<(), &'static str> {
    /// Maximum length of a DNS label (RFC 1035, 2.3.4).
    const MAX: usize = 63;
    match label.as_bytes() {
        [] => Err("is missing"),
        bytes if bytes.len() > MAX => Err("is longer than 63 characters"),
        [b'-' | b'_', ..] => Err("begins with a hyphen or an underscore"),
        bytes if bytes.iter().any(u8::is_ascii_uppercase) => Err("has an upper-case letter"),
        bytes if !bytes.iter().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_')) => {
            Err("has a character other than a-z, 0-9, hyphen and underscore")
        }
        _ => Ok(()),
    }
}

/// Checks the user name that ssh passed. A literal `%r`, from a parser that does not expand it, counts as missing.
///
/// # Errors
/// [`Kind::Usage`] for a name that is invalid on Unix, because it goes to the platform and into log lines.
pub fn user(given: Option<&str>) -> Result<Option<&str>> {
    match given {
        None | Some("" | "%r") => Ok(None),
        Some(name)
            if name.len() <= 32
                && !name.starts_with('-')
                && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.')) =>
        {
            Ok(Some(name))
        }
        Some(name) => Err(Error::new(Kind::Usage, format!("`{name}` is not a user name"))
            .with_hint("a user name is letters, digits, `-`, `_` and `.`, at most 32")),
    }
}

/// Formats `HOST:PORT`, with brackets if necessary.
pub fn host_port(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// Returns the port in `HOST[:PORT]`, where one is named.
///
/// # Errors
/// The reason why what stands behind the host is no port. Not shown is what stands there, which may be a password.
pub(crate) fn port_in(authority: &str) -> Result<Option<u16>, String> {
    let behind = match authority.strip_prefix('[') {
        Some(inside) => inside.split_once(']').ok_or("a bracket is not closed")?.1,
        None => authority.find(':').map_or("", |colon| &authority[colon..]),
    };
    let Some(port) = behind.strip_prefix(':') else {
        return if behind.is_empty() { Ok(None) } else { Err("a bracket is followed by more than a port".to_owned()) };
    };
    match port.parse() {
        _ if port.is_empty() => Ok(None),
        _ if !port.bytes().all(|b| b.is_ascii_digit()) => Err("its port is not a number".to_owned()),
        Ok(port @ 1..) => Ok(Some(port)),
        Ok(0) | Err(_) => Err(format!("its port is not between 1 and {}", u16::MAX)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Playground, PodName, Target, user};
    use crate::platform::is_id;

    const ID: &str = "0123456789abcdef01234567";

    #[test]
    fn reads_all_forms() {
        let by_id = Target::parse(&format!("playground-{ID}")).unwrap();
        assert_eq!(by_id, Target::of_play(ID, None));
        assert_eq!(Target::parse(&format!("playground-{ID}.node-01")).unwrap(), Target::of_play(ID, Some("node-01")));
        let by_name = Target::parse("playground-docker.docker-01").unwrap();
        assert_eq!(by_name.playground, Playground::Name("docker".into()));
        assert_eq!(by_name.machine.as_deref(), Some("docker-01"));
        assert_eq!(Target::parse("playground-k3s").unwrap().machine, None);
        let inside = Target::parse("playground-docker.docker-01.web").unwrap();
        assert_eq!((&inside.machine, inside.container()), (&by_name.machine, Some("web")));
        assert_eq!(inside.of_machine(), by_name);
        let pod = Target::parse("playground-k3s.pod.default.web-0").unwrap();
        let PodName { namespace, pod: name, container } = pod.pod().unwrap();
        assert_eq!((&**namespace, &**name, container, &pod.machine), ("default", "web-0", &None, &None));
        let container = Target::parse("playground-k3s.pod.default.web-0.app").unwrap();
        assert_eq!(container.pod().unwrap().container.as_deref(), Some("app"));
        // A machine may be called so.
        assert_eq!(Target::parse("playground-k3s.pod.web").unwrap().container(), Some("web"));
    }

    #[test]
    fn a_pod_on_a_command_line_may_leave_out_its_namespace() {
        let labels = |text: &str| text.parse::<PodName>().map(|name| name.to_string());
        assert_eq!(labels("web").unwrap(), "default.web");
        assert_eq!(labels("shop/web").unwrap(), "shop.web");
        assert_eq!(labels("kube-system/etcd-node.example.com/etcd").unwrap(), "kube-system.etcd-node-example-com.etcd");
        for (text, why) in [("", "is missing"), ("a//b", "pod is missing"), ("a/b/c/d", "write"), ("a/B", "upper-case")]
        {
            assert!(labels(text).unwrap_err().contains(why), "{text}");
        }
    }

    #[test]
    fn refuses_everything_else_with_the_reason() {
        for (host, why) in [
            ("example.com", "does not begin"),
            ("Playground-docker", "does not begin"),
            ("playground-", "is missing"),
            ("playground-docker.", "machine is missing"),
            ("playground-.m", "playground is missing"),
            ("playground-Docker", "upper-case"),
            ("playground--x", "begins with a hyphen"),
            ("playground-a.b.", "container is missing"),
            ("playground-a..c", "machine is missing"),
            ("playground-a.b.C", "container has an upper-case"),
            ("playground-a.b.c.d", "more parts"),
            ("playground-a.pod.b.c.d.e", "more parts"),
            ("playground-a.pod..c", "namespace is missing"),
            ("playground-a.pod.b.C", "pod has an upper-case"),
            ("playground-a.pod.b.c.-d", "container begins with a hyphen"),
            ("playground-a b", "a character other than"),
            ("playground-$(id)", "a character other than"),
            ("playground-é", "a character other than"),
        ] {
            let error = Target::parse(host).unwrap_err();
            assert!(error.message().contains(why), "{host}: {error}");
        }
        assert!(!is_id(&ID.to_uppercase()));
    }

    #[test]
    fn a_user_that_was_not_expanded_is_no_user() {
        assert_eq!(user(Some("%r")).unwrap(), None);
        assert_eq!(user(None).unwrap(), None);
        assert_eq!(user(Some("laborant")).unwrap(), Some("laborant"));
        for hostile in ["-oProxyCommand=x", "a b", "$(id)", "a\nb", "a'b"] {
            assert!(user(Some(hostile)).is_err(), "{hostile}");
        }
    }

    proptest! {
        #[test]
        fn what_is_read_is_written_back(host in "playground-[a-z0-9.-]{0,40}|playground-[a-z0-9](\\.pod)?(\\.[a-z0-9-]{1,5}){0,3}") {
            if let Ok(target) = Target::parse(&host) {
                prop_assert_eq!(target.to_string(), host);
            }
        }

        #[test]
        fn no_host_name_makes_it_panic(host in ".*") {
            let _ = Target::parse(&host);
        }
    }
}
