//! Host names for ssh and their meaning: conversion to playgrounds, machines and containers, and back. Pure. `reference`
//! reads the page addresses of the platform's site.
//!
//! | host name | means |
//! | --- | --- |
//! | `playground-<id>` | the default machine of the playground with that id (24 hexadecimal digits) |
//! | `playground-<id>.<machine>` | the machine of that name in it |
//! | `playground-<name>` | the playground with that catalogue name |
//! | `playground-<name>.<machine>` | the machine of that name in it |
//! | `playground-<id or name>.<machine>.<container>` | a container of that machine |
//!
//! The number of labels decides, from big to small, so that names sort and complete by their beginning.

pub mod reference;

use std::fmt;

use crate::{
    error::{Error, Kind, Result},
    platform::is_id,
};

/// The prefix of all our host names.
pub const PREFIX: &str = "playground-";

/// A playground, and possibly one of its machines, and possibly a container there.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Target {
    /// The playground.
    pub playground: Playground,
    /// The machine's name; `None` means the default machine.
    pub machine: Option<String>,
    /// The label of a container of that machine.
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
            Err(Error::new(Kind::Usage, format!("`{host}` is not a playground's host name: {why}"))
                .with_hint("host names are playground-<id>, playground-<name>, or either with .<machine> or .<machine>.<container>"))
        };
        let Some(rest) = host.strip_prefix(PREFIX) else {
            return refuse("it does not begin with `playground-` in lower case");
        };
        let mut labels = rest.split('.');
        let playground = labels.next().unwrap_or_default();
        let (machine, container) = (labels.next(), labels.next());
        if labels.next().is_some() {
            return refuse("it has more parts than a playground, a machine and a container");
        }
        if let Err(why) = check_label(playground) {
            return refuse(&format!("the playground {why}"));
        }
        if let Some(Err(why)) = machine.map(check_label) {
            return refuse(&format!("the machine {why}"));
        }
        if let Some(Err(why)) = container.map(check_label) {
            return refuse(&format!("the container {why}"));
        }
        let playground =
            if is_id(playground) { Playground::Id(playground.into()) } else { Playground::Name(playground.into()) };
        Ok(Target { playground, machine: machine.map(Into::into), container: container.map(Into::into) })
    }

    /// Returns the host name of a playground by its name in the catalogue.
    pub fn of_name(name: &str) -> Target {
        Target { playground: Playground::Name(name.into()), machine: None, container: None }
    }

    /// Returns the host name of a machine of the play with this id. `None` means its default machine.
    pub fn of_play(id: &str, machine: Option<&str>) -> Target {
        Target { playground: Playground::Id(id.into()), machine: machine.map(Into::into), container: None }
    }

    /// Returns the host name of the machine that a container is on, which for other host names is their own.
    #[must_use]
    pub fn of_machine(&self) -> Target {
        Target { container: None, ..self.clone() }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Playground::Id(playground) | Playground::Name(playground)) = &self.playground;
        write!(f, "{PREFIX}{playground}")?;
        for label in [&self.machine, &self.container].into_iter().flatten() {
            write!(f, ".{label}")?;
        }
        Ok(())
    }
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

    use super::{Playground, Target, user};
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
        assert_eq!((&inside.machine, inside.container.as_deref()), (&by_name.machine, Some("web")));
        assert_eq!(inside.of_machine(), by_name);
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
        fn what_is_read_is_written_back(host in "playground-[a-z0-9.-]{0,40}") {
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
