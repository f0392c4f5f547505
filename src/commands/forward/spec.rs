//! Forwards in the notation of `ssh -L` and `ssh -R`. Pure.
//!
//! | `-L` | listens here on | leads, on the machine, to |
//! | --- | --- | --- |
//! | `[BIND:]PORT:HOST:HOSTPORT` | a port | a host and port |
//! | `[BIND:]PORT:SOCKET` | a port | a Unix socket |
//! | `SOCKET:HOST:HOSTPORT` | a Unix socket | a host and port |
//! | `SOCKET:SOCKET` | a Unix socket | a Unix socket |
//! | `[BIND:]PORT:HOSTPORT` | a port | a port of the machine itself |
//! | `[HOST:]HOSTPORT` | a free port | a host and port, or one of the machine itself |
//!
//! The last two are the platform's short forms, as in its documentation. With three parts, a number in the second place
//! selects `[BIND:]PORT:HOSTPORT`. `-R` has the same forms with the sides exchanged, except the last one.
//!
//! An address in brackets may contain colons (`[::1]:80:[fe80::1]:80`). A `\` takes the special meaning from the next
//! character. A part with a `/` is the path of a socket. Without `BIND`, `-L` listens on the loopback interface, and
//! `-R` on all of the machine's addresses, because its exposed ports are reached at its main interface. An empty `BIND`
//! and `*` mean all addresses. `/udp` after the last port forwards datagrams (`-L` only), and `/tcp` is accepted as
//! well. One argument may hold several forwards, separated by commas.

use std::{fmt, str::FromStr};

use crate::{
    error::{Error, Kind, Result},
    target::host_port,
};

/// One forward.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Spec {
    /// The listening address.
    pub listen: Listen,
    /// The destination on the other side.
    pub to: Endpoint,
    /// True for datagrams instead of connections.
    pub udp: bool,
}

/// A listening address.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Listen {
    /// A port; 0 selects a free one.
    Port(Bind, u16),
    /// A Unix socket.
    Socket(String),
}

impl Listen {
    /// True if `other` is the same listener of that side.
    pub(crate) fn is_of(&self, side: Side, other: &Listen) -> bool {
        let usual = if side == Side::Local { Bind::Loopback } else { Bind::All };
        let named = |bind: &Bind| if *bind == Bind::Unnamed { usual.clone() } else { bind.clone() };
        match (self, other) {
            (Listen::Port(_, 0), _) => false,
            (Listen::Port(one, port), Listen::Port(bind, number)) => port == number && named(one) == named(bind),
            _ => self == other,
        }
    }
}

/// The side that listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// This computer: `-L`.
    Local,
    /// The machine: `-R`.
    Remote,
}

impl Side {
    /// Returns the option for this side.
    pub fn option(self) -> &'static str {
        match self {
            Side::Local => "-L",
            Side::Remote => "-R",
        }
    }
}

/// The addresses of a computer to listen on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Bind {
    /// The default: the loopback interface of this computer, or all addresses of a machine.
    Unnamed,
    /// The loopback interface.
    Loopback,
    /// All addresses.
    All,
    /// This host name or address.
    Host(String),
}

impl Bind {
    /// Returns the address to listen on for `-L`, the first one if there are several.
    pub(crate) fn address(&self) -> &str {
        match self {
            Bind::Unnamed | Bind::Loopback => "127.0.0.1",
            Bind::All => "0.0.0.0",
            Bind::Host(host) => host,
        }
    }
}

/// A destination.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// A host and a port.
    Port(String, u16),
    /// A Unix socket.
    Socket(String),
}

impl Spec {
    /// Parses the value of `-L` or `-R`.
    ///
    /// # Errors
    /// [`Kind::Usage`] with the reason.
    pub fn parse(side: Side, text: &str) -> Result<Spec> {
        let refuse = |why: &str| {
            Error::new(Kind::Usage, format!("`{text}` is not a port forward: {why}")).with_hint(
                "write [BIND:]PORT:HOST:HOSTPORT; either side may be the path of a Unix socket, /udp may follow HOSTPORT",
            )
        };
        let (rest, udp) = protocol(text);
        let fields = fields(rest).map_err(refuse)?;
        let port = |field: &Field| field.port().ok_or_else(|| refuse(&format!("`{}` is not a port", field.text)));
        let target = |host: &Field, number: &Field| match (host.text.as_str(), port(number)?) {
            ("", _) => Err(refuse("the host to connect to is missing")),
            (_, 0) => Err(refuse("it is not possible to connect to port 0")),
            (host, _) if !is_host(host) => Err(refuse(&format!("`{host}` is not a host"))),
            (host, number) => Ok(Endpoint::Port(host.to_owned(), number)),
        };
        let bind = |field: &Field| match field.text.as_str() {
            "" | "*" => Ok(Bind::All),
            "localhost" => Ok(Bind::Loopback),
            host if is_host(host) => Ok(Bind::Host(host.to_owned())),
            host => Err(refuse(&format!("`{host}` is not an address"))),
        };
        let own = |number: &Field| target(&Field { text: SELF.into(), ..Field::default() }, number);
        let (listen, to) = match fields.as_slice() {
            [from, to] if from.is_path && to.is_path => (from.socket(), Endpoint::Socket(to.text.clone())),
            [from, to] if to.is_path => (Listen::Port(Bind::Unnamed, port(from)?), Endpoint::Socket(to.text.clone())),
            [from, to] if from.is_path => (from.socket(), own(to)?),
            [from, host, number] if from.is_path => (from.socket(), target(host, number)?),
            [on, from, to] if to.is_path => (Listen::Port(bind(on)?, port(from)?), Endpoint::Socket(to.text.clone())),
            [on, from, to] if from.is_number() => (Listen::Port(bind(on)?, port(from)?), own(to)?),
            [from, host, number] => (Listen::Port(Bind::Unnamed, port(from)?), target(host, number)?),
            [from, to] if from.is_number() => (Listen::Port(Bind::Unnamed, port(from)?), own(to)?),
            [host, number] if side == Side::Local => (Listen::Port(Bind::Unnamed, 0), target(host, number)?),
            [number] if side == Side::Local && number.is_number() => (Listen::Port(Bind::Unnamed, 0), own(number)?),
            [on, from, host, number] if !fields.iter().any(|field| field.is_path) => {
                (Listen::Port(bind(on)?, port(from)?), target(host, number)?)
            }
            [_] | [_, _] => return Err(refuse("the destination port is missing")),
            [..] => return Err(refuse("it has too many parts; write an IPv6 address in brackets")),
        };
        let paths = [if let Listen::Socket(path) = &listen { Some(path) } else { None }, to.socket()];
        if let Some(path) = paths.into_iter().flatten().find(|path| path.len() > MAX_SOCKET) {
            return Err(refuse(&format!(
                "the path of a Unix socket can have {MAX_SOCKET} bytes, and this one has {}",
                path.len()
            )));
        }
        if udp && !matches!((&listen, &to), (Listen::Port(..), Endpoint::Port(..))) {
            return Err(refuse("UDP can be forwarded only from a port to a port"));
        }
        Ok(Spec { listen, to, udp })
    }

    /// Parses one or several forwards, separated by commas.
    ///
    /// # Errors
    /// As [`Spec::parse`], for the first invalid one.
    pub fn parse_all(side: Side, text: &str) -> Result<Vec<Spec>> {
        match Spec::parse(side, text) {
            Ok(spec) => Ok(vec![spec]),
            // A comma may belong to the path of a socket, so this comes second.
            Err(_) if text.contains(',') => text.split(',').map(|part| Spec::parse(side, part.trim())).collect(),
            Err(error) => Err(error),
        }
    }
}

impl FromStr for Spec {
    type Err = Error;

    fn from_str(text: &str) -> Result<Spec> {
        Spec::parse(Side::Local, text)
    }
}

impl Endpoint {
    fn socket(&self) -> Option<&String> {
        match self {
            Endpoint::Socket(path) => Some(path),
            Endpoint::Port(..) => None,
        }
    }
}

/// The longest path of a Unix socket on Linux, which has room for more than other systems.
const MAX_SOCKET: usize = 107;

/// The destination host if none is named: the side that does not listen.
const SELF: &str = "localhost";

/// Removes `/udp` or `/tcp` after the last port. Returns the rest, and true for UDP.
fn protocol(text: &str) -> (&str, bool) {
    for (suffix, udp) in [("/udp", true), ("/tcp", false)] {
        if let Some(rest) = text.strip_suffix(suffix)
            && rest
                .rsplit_once(':')
                .map_or(is_number(rest), |(before, port)| is_number(port) && !before.ends_with('\\'))
        {
            return (rest, udp);
        }
    }
    (text, false)
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

#[derive(Default)]
struct Field {
    text: String,
    is_path: bool,
    in_brackets: bool,
}

impl Field {
    fn port(&self) -> Option<u16> {
        if self.is_number() { self.text.parse().ok() } else { None }
    }

    fn is_number(&self) -> bool {
        !self.in_brackets && is_number(&self.text)
    }

    fn socket(&self) -> Listen {
        Listen::Socket(self.text.clone())
    }
}

/// Returns true if `text` looks like a host name or address, possibly with a zone.
fn is_host(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b':' | b'%'))
}

/// Splits `text` at its colons, as OpenSSH does.
fn fields(text: &str) -> Result<Vec<Field>, &'static str> {
    if text.chars().any(char::is_control) {
        return Err("it has a control character");
    }
    let mut all = Vec::new();
    let mut rest = text;
    loop {
        let mut field = Field::default();
        if let Some(inside) = rest.strip_prefix('[') {
            let (address, behind) = inside.split_once(']').ok_or("a bracket is not closed")?;
            if address.is_empty() || address.contains(['[', '/']) {
                return Err("there is no address in the brackets");
            }
            field.text = address.to_owned();
            field.in_brackets = true;
            all.push(field);
            match behind.strip_prefix(':') {
                Some(more) => rest = more,
                None if behind.is_empty() => return Ok(all),
                None => return Err("a bracket is followed by something other than a colon"),
            }
            continue;
        }
        let mut chars = rest.char_indices();
        let mut more = None;
        while let Some((i, c)) = chars.next() {
            match c {
                ':' => {
                    more = Some(&rest[i + 1..]);
                    break;
                }
                '\\' => field.text.push(chars.next().ok_or("it ends with a backslash")?.1),
                c => {
                    field.is_path |= c == '/';
                    field.text.push(c);
                }
            }
        }
        if !field.is_path && field.text.contains(char::is_whitespace) {
            return Err("it has a space");
        }
        all.push(field);
        match more {
            Some(more) => rest = more,
            None => return Ok(all),
        }
    }
}

/// Formats host and port. Brackets keep a host that consists of digits from being read as a port.
fn written(host: &str, port: u16) -> String {
    if is_number(host) { format!("[{host}]:{port}") } else { host_port(host, port) }
}

/// Escapes a path so that it is read as one field: the special characters of [`fields`], and a leading digit, because a
/// path such as `10/tcp` would be read as a port with a [`protocol`].
fn escaped(path: &str) -> String {
    let path = path.replace('\\', "\\\\").replace(':', "\\:");
    if path.starts_with(|c: char| c == '[' || c.is_ascii_digit()) { format!("\\{path}") } else { path }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Listen::Port(Bind::Unnamed, port) => write!(f, "{port}"),
            Listen::Port(Bind::Loopback, port) => write!(f, "localhost:{port}"),
            Listen::Port(Bind::All, port) => write!(f, "*:{port}"),
            Listen::Port(Bind::Host(host), port) => f.write_str(&written(host, *port)),
            Listen::Socket(path) => f.write_str(&escaped(path)),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Endpoint::Port(host, port) => f.write_str(&written(host, *port)),
            Endpoint::Socket(path) => f.write_str(&escaped(path)),
        }
    }
}

impl fmt::Display for Spec {
    /// Writes a form that [`Spec::parse`] reads back.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}{}", self.listen, self.to, if self.udp { "/udp" } else { "" })
    }
}

/// A requested forward.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forward {
    /// The side that listens.
    pub side: Side,
    /// The listening address and the destination.
    pub spec: Spec,
    /// The machine, if it differs from the one that the command line names.
    pub machine: Option<String>,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Bind, Endpoint, Listen, Side, Spec};

    fn read(text: &str) -> Spec {
        text.parse().unwrap_or_else(|e| panic!("{e}"))
    }

    fn port(bind: Bind, number: u16) -> Listen {
        Listen::Port(bind, number)
    }

    fn host_named(address: &str) -> Bind {
        Bind::Host(address.into())
    }

    #[test]
    fn reads_all_forms_of_ssh() {
        let web = Endpoint::Port("web".into(), 80);
        let socket = Endpoint::Socket("/run/docker.sock".into());
        let here = Listen::Socket("/tmp/s".into());
        for (text, listen, to) in [
            ("8080:web:80", port(Bind::Unnamed, 8080), &web),
            ("127.0.0.1:8080:web:80", port(host_named("127.0.0.1"), 8080), &web),
            ("localhost:8080:web:80", port(Bind::Loopback, 8080), &web),
            ("*:8080:web:80", port(Bind::All, 8080), &web),
            (":8080:web:80", port(Bind::All, 8080), &web),
            ("[::1]:8080:[web]:80", port(host_named("::1"), 8080), &web),
            ("8080:/run/docker.sock", port(Bind::Unnamed, 8080), &socket),
            ("[::]:8080:/run/docker.sock", port(host_named("::"), 8080), &socket),
            ("/tmp/s:web:80", here.clone(), &web),
            ("/tmp/s:/run/docker.sock", here.clone(), &socket),
            ("0:web:80", port(Bind::Unnamed, 0), &web),
            ("8080:web:80/tcp", port(Bind::Unnamed, 8080), &web),
        ] {
            for side in [Side::Local, Side::Remote] {
                assert_eq!(
                    Spec::parse(side, text).unwrap(),
                    Spec { listen: listen.clone(), to: to.clone(), udp: false }
                );
            }
        }
        assert_eq!(read("1:[fe80::1%eth0]:2").to, Endpoint::Port("fe80::1%eth0".into(), 2));
        assert_eq!(read(r"/a\:b:./c").listen, Listen::Socket("/a:b".into()));
        assert!(read("5353:8.8.8.8:53/udp").udp && read("[::1]:53:[2001::1]:53/udp").udp);
        assert_eq!(read("1:/run/udp").to, Endpoint::Socket("/run/udp".into()));
    }

    /// The examples of labctl's `port-forward --help` and the platform's documentation.
    #[test]
    fn reads_the_platforms_short_forms() {
        let to = |host: &str, number| Endpoint::Port(host.into(), number);
        let any = || port(Bind::Unnamed, 0);
        for (text, listen, to) in [
            ("8080", any(), to("localhost", 8080)),
            ("web:80", any(), to("web", 80)),
            ("[::1]:80", any(), to("::1", 80)),
            ("53/udp", any(), to("localhost", 53)),
            ("8080:80", port(Bind::Unnamed, 8080), to("localhost", 80)),
            ("5353:53/udp", port(Bind::Unnamed, 5353), to("localhost", 53)),
            ("127.0.0.1:8080:80", port(host_named("127.0.0.1"), 8080), to("localhost", 80)),
            ("[::1]:8080:80", port(host_named("::1"), 8080), to("localhost", 80)),
            ("/tmp/s:80", Listen::Socket("/tmp/s".into()), to("localhost", 80)),
        ] {
            assert_eq!(read(text), Spec { listen, to, udp: text.ends_with("udp") }, "{text}");
        }
        let remote = |text| Spec::parse(Side::Remote, text);
        for (text, listen, to) in [
            ("8080:80", port(Bind::Unnamed, 8080), to("localhost", 80)),
            ("8080:web:80", port(Bind::Unnamed, 8080), to("web", 80)),
            ("10.0.0.2:8080:80", port(host_named("10.0.0.2"), 8080), to("localhost", 80)),
            ("127.0.0.1:8080:web:80", port(host_named("127.0.0.1"), 8080), to("web", 80)),
        ] {
            assert_eq!(remote(text).unwrap(), Spec { listen, to, udp: false }, "{text}");
        }
        for text in ["8080", "web:80"] {
            assert!(remote(text).unwrap_err().message().contains("the destination port"), "{text}");
        }
    }

    #[test]
    fn several_stand_in_one_argument() {
        let all = |text| Spec::parse_all(Side::Local, text).map(|all| all.len());
        for (text, count) in [("8080", 1), ("8080,9090:90", 2), ("8080:80, web:80,1:a:2", 3), ("1:/run/a,2:/run/b", 2)]
        {
            assert_eq!(all(text).unwrap(), count, "{text}");
        }
        assert_eq!(all("8080:/run/a,b").unwrap(), 1);
        assert!(all("8080,x").unwrap_err().message().contains("`x`"));
        assert!(all("8080,").is_err());
    }

    /// Found by fuzzing.
    #[test]
    fn a_path_that_looks_like_a_port_with_a_protocol_stays_a_path() {
        for text in [r"/:\10/tcp", r"1:\10/udp", r"\1/x:\[/y"] {
            assert_eq!(read(&read(text).to_string()), read(text), "{text}");
        }
    }

    #[test]
    fn refuses_the_rest_with_the_reason() {
        for (text, why) in [
            ("", "missing"),
            ("x", "missing"),
            ("0", "connect to port 0"),
            ("8080:web", "`web` is not a port"),
            ("8080::80", "host to connect to"),
            ("8080:web:0", "connect to port 0"),
            ("8080:web:x", "`x` is not a port"),
            ("x:web:80", "`x` is not a port"),
            ("65536:web:80", "`65536` is not a port"),
            ("+80:web:80", "`+80` is not a port"),
            ("::1:8080:web:80", "too many"),
            ("[::1:8080:web:80", "not closed"),
            ("[::1]8080:web:80", "followed by"),
            ("8080:w b:80", "space"),
            ("8080:web:80\n", "control"),
            ("8080:web:80\\", "backslash"),
            ("/tmp/s:web:80/udp", "from a port to a port"),
            ("a:1:b:/x", "too many"),
            (&format!("/{}:web:80", "x".repeat(107)), "can have 107 bytes, and this one has 108"),
            (&format!("80:/{}", "x".repeat(107)), "can have 107 bytes"),
        ] {
            let error = text.parse::<Spec>().unwrap_err();
            assert!(error.message().contains(why), "{text}: {error}");
        }
        assert!(format!("/{}:/{}", "x".repeat(106), "x".repeat(106)).parse::<Spec>().is_ok());
    }

    fn host() -> impl Strategy<Value = String> {
        prop_oneof!["[a-z0-9.-]{1,12}", "[0-9a-f:]{2,20}"]
            .prop_filter("an address of its own", |host| host != "localhost" && host != "*")
    }

    fn path() -> impl Strategy<Value = String> {
        r"/[a-z:\\ .]{0,10}[a-z]"
    }

    fn spec() -> impl Strategy<Value = Spec> {
        let bind = prop_oneof![Just(Bind::Unnamed), Just(Bind::Loopback), Just(Bind::All), host().prop_map(Bind::Host)];
        let listen = prop_oneof![
            (bind, any::<u16>()).prop_map(|(bind, port)| Listen::Port(bind, port)),
            path().prop_map(Listen::Socket)
        ];
        let to = prop_oneof![
            (host(), 1..=u16::MAX).prop_map(|(h, p)| Endpoint::Port(h, p)),
            path().prop_map(Endpoint::Socket)
        ];
        (listen, to, any::<bool>()).prop_map(|(listen, to, udp)| {
            let udp = udp && matches!((&listen, &to), (Listen::Port(..), Endpoint::Port(..)));
            Spec { listen, to, udp }
        })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(spec in spec()) {
            prop_assert_eq!(read(&spec.to_string()), spec);
        }

        #[test]
        fn nothing_makes_it_panic(text in r"[0-9a-c:/\\\[\]*. ]{0,24}|.*") {
            if let Ok(spec) = text.parse::<Spec>() {
                prop_assert_eq!(read(&spec.to_string()), spec);
            }
        }
    }
}
