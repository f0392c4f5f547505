//! Proxies: which one an address is reached through, by the rules of Go's `golang.org/x/net/http/httpproxy`, which the
//! official client follows, and the way through it (HTTP's `CONNECT`, SOCKS 5).

use std::{fmt, io, net::IpAddr};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use hyper::Uri;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::net::Fault;
use crate::{
    settings::Settings,
    target::{host_port, port_in},
};

/// Longest answer of an HTTP proxy that is read.
const MAX_HEAD: usize = 16 * 1024;

/// The proxies of a run.
#[derive(Debug, Default)]
pub(super) struct Proxies {
    http: Option<Result<Proxy, String>>,
    https: Option<Result<Proxy, String>>,
    /// In a CGI script, HTTP_PROXY is a header of the request that it answers.
    is_cgi: bool,
    except: Except,
}

/// A proxy.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Proxy {
    pub(super) speaks: Speaks,
    host: String,
    port: u16,
    login: Option<(String, String)>,
}

/// The protocol of a proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Speaks {
    Http,
    /// HTTP inside TLS.
    Https,
    Socks,
}

impl Proxies {
    /// The proxy of the settings, else those of the environment.
    pub(super) fn new(settings: &Settings) -> Proxies {
        let environment = Proxies::of(|name| std::env::var(name).ok());
        let Some(proxy) = &settings.proxy else {
            return match &settings.no_proxy {
                Some(hosts) => Proxies { except: Except::parse(&hosts.join(",")), ..environment },
                None => environment,
            };
        };
        let proxy = Proxy::parse(proxy, "`proxy` in the settings");
        let except = settings.no_proxy.as_ref().map_or(environment.except, |hosts| Except::parse(&hosts.join(",")));
        Proxies { http: proxy.clone(), https: proxy, is_cgi: false, except }
    }

    /// The proxies that these environment variables name. The first of two names wins.
    fn of(variable: impl Fn(&str) -> Option<String>) -> Proxies {
        let first =
            |names: [&str; 2]| names.into_iter().find_map(|name| variable(name).filter(|text| !text.is_empty()));
        let proxy = |names: [&str; 2]| Proxy::parse(&first(names)?, names[0]);
        Proxies {
            http: proxy(["HTTP_PROXY", "http_proxy"]),
            https: proxy(["HTTPS_PROXY", "https_proxy"]),
            is_cgi: variable("REQUEST_METHOD").is_some_and(|method| !method.is_empty()),
            except: Except::parse(&first(["NO_PROXY", "no_proxy"]).unwrap_or_default()),
        }
    }

    /// The proxy for `uri`; `None` means directly.
    pub(super) fn proxy_for(&self, uri: &Uri) -> io::Result<Option<&Proxy>> {
        let is_secure = uri.scheme_str() == Some("https");
        let Some(proxy) = (if is_secure { &self.https } else { &self.http }) else { return Ok(None) };
        if self.is_cgi && !is_secure {
            let what = "HTTP_PROXY is not used, because REQUEST_METHOD is set, as in a CGI script";
            return Err(Fault::lasting(what, "set `proxy` in the settings, or unset one of the two").into());
        }
        let (host, port) = destination(uri);
        if !self.except.reach(host, port) {
            return Ok(None);
        }
        match proxy {
            Ok(proxy) => Ok(Some(proxy)),
            Err(why) => Err(Fault::lasting(why, "correct it").into()),
        }
    }
}

/// Host, without brackets, and port of an address.
fn destination(uri: &Uri) -> (&str, u16) {
    let host = uri.host().unwrap_or_default();
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    (host, uri.port_u16().unwrap_or(if uri.scheme_str() == Some("https") { 443 } else { 80 }))
}

impl Proxy {
    /// Parses a proxy's address, which may lack the scheme. `None` is one that counts as none, as in Go. The address is
    /// not shown, because it may hold a password.
    fn parse(text: &str, named: &str) -> Option<Result<Proxy, String>> {
        let (scheme, rest) = match text.split_once("://") {
            Some((scheme, rest)) if !scheme.is_empty() => (scheme.to_ascii_lowercase(), rest),
            _ => ("http".to_owned(), text),
        };
        let authority = &rest[..rest.find(['/', '?', '#']).unwrap_or(rest.len())];
        let (login, authority) = match authority.rsplit_once('@') {
            Some((login, authority)) => (Some(login), authority),
            None => (None, authority),
        };
        if authority.is_empty() || authority.contains(|c: char| c.is_whitespace() || c.is_control() || c == '\\') {
            log::warn!("{named} is not the address of a proxy, and does not count");
            return None;
        }
        let (speaks, default) = match scheme.as_str() {
            "http" => (Speaks::Http, 80),
            "https" => (Speaks::Https, 443),
            "socks5" | "socks5h" => (Speaks::Socks, 1080),
            _ => return Some(Err(format!("{named} names a proxy that is neither http, https nor socks5"))),
        };
        let port = match port_in(authority) {
            Ok(port) => port.unwrap_or(default),
            Err(why) => return Some(Err(format!("{named} is not a valid address of a proxy: {why}"))),
        };
        let host = match authority.strip_prefix('[') {
            Some(inside) => inside.split(']').next().unwrap_or_default(),
            None => authority.split(':').next().unwrap_or_default(),
        };
        let login = login.map(|login| {
            let (user, password) = login.split_once(':').unwrap_or((login, ""));
            (decoded(user), decoded(password))
        });
        Some(Ok(Proxy { speaks, host: host.to_owned(), port, login }))
    }

    /// The proxy's host.
    pub(super) fn host(&self) -> &str {
        &self.host
    }

    /// The address to connect to.
    pub(super) fn uri(&self) -> io::Result<Uri> {
        format!("http://{}", host_port(&self.host, self.port)).parse().map_err(io::Error::other)
    }

    /// Connects `stream`, which leads to this proxy, to the host of `uri`.
    ///
    /// # Errors
    /// A [`Fault`] that names the proxy, where it refuses.
    pub(super) async fn connect<S>(&self, stream: &mut S, uri: &Uri) -> io::Result<()>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let (host, port) = destination(uri);
        match self.speaks {
            Speaks::Http | Speaks::Https => self.connect_http(stream, &host_port(host, port)).await,
            Speaks::Socks => self.connect_socks(stream, host, port).await,
        }
    }

    async fn connect_http<S>(&self, stream: &mut S, to: &str) -> io::Result<()>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let login = self.login.as_ref().map(|(user, password)| {
            format!("Proxy-Authorization: Basic {}\r\n", BASE64_STANDARD.encode(format!("{user}:{password}")))
        });
        let request = format!("CONNECT {to} HTTP/1.1\r\nHost: {to}\r\n{}\r\n", login.unwrap_or_default());
        stream.write_all(request.as_bytes()).await?;
        stream.flush().await?;
        let mut head = Vec::new();
        while !head.windows(4).any(|four| four == b"\r\n\r\n") {
            if head.len() > MAX_HEAD {
                return Err(Fault::lasting(format!("{self} answers without end"), NO_PROXY).into());
            }
            if stream.read_buf(&mut head).await? == 0 {
                return Err(Fault::passing(format!("{self} ended the connection without an answer"), NO_PROXY).into());
            }
        }
        let head = String::from_utf8_lossy(&head).into_owned();
        match Answer::parse(&head) {
            Some(answer) if (200..300).contains(&answer.status) => Ok(()),
            Some(answer) => Err(self.refusal(&answer, to).into()),
            None => Err(Fault::lasting(format!("{self} does not answer in HTTP"), NO_PROXY).into()),
        }
    }

    /// The words for an answer of an HTTP proxy that is no success.
    fn refusal(&self, answer: &Answer, to: &str) -> Fault {
        let Answer { status, line, methods } = answer;
        match status {
            407 if !methods.is_empty() && !methods.iter().any(|method| method.eq_ignore_ascii_case("basic")) => {
                Fault::lasting(
                    format!("{self} wants a login by {}, and this program knows only Basic", methods.join(" or ")),
                    "run a local proxy that can log in there, such as cntlm or px, and name that one",
                )
            }
            407 if self.login.is_none() => Fault::lasting(
                format!("{self} wants a user name and a password"),
                "write them into its address: http://USER:PASSWORD@HOST:PORT",
            ),
            407 => Fault::lasting(
                format!("{self} does not accept the user name and the password"),
                "correct them in its address; special characters in them are written as %40 for @",
            ),
            502..=504 => Fault::passing(format!("{self} cannot reach {to} ({line})"), NO_PROXY),
            500.. => Fault::passing(format!("{self} has failed ({line})"), "try again, or ask who runs the proxy"),
            _ => Fault::lasting(
                format!("{self} refuses connections to {to} ({line})"),
                "ask who runs the proxy to permit them, or name the host in `no_proxy` if it can be reached directly",
            ),
        }
    }

    async fn connect_socks<S>(&self, stream: &mut S, host: &str, port: u16) -> io::Result<()>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let refused = |why: &str, hint: &str| -> io::Error { Fault::lasting(format!("{self} {why}"), hint).into() };
        let short =
            |text: &str| u8::try_from(text.len()).map_err(|_| refused("cannot be told so long a name", NO_PROXY));
        let methods: &[u8] = if self.login.is_some() { &[5, 2, 0, 2] } else { &[5, 1, 0] };
        stream.write_all(methods).await?;
        stream.flush().await?;
        let mut chosen = [0; 2];
        stream.read_exact(&mut chosen).await?;
        match (chosen, &self.login) {
            ([5, 0], _) => {}
            ([5, 2], Some((user, password))) => {
                let mut login = vec![1, short(user)?];
                login.extend(user.bytes());
                login.push(short(password)?);
                login.extend(password.bytes());
                stream.write_all(&login).await?;
                stream.flush().await?;
                stream.read_exact(&mut chosen).await?;
                if chosen[1] != 0 {
                    return Err(refused(
                        "does not accept the user name and the password",
                        "correct them in its address",
                    ));
                }
            }
            ([5, _], _) => {
                return Err(refused("wants another login", "write user name and password into its address"));
            }
            _ => return Err(refused("does not speak SOCKS 5", NO_PROXY)),
        }
        let mut request = vec![5, 1, 0];
        match host.parse() {
            Ok(IpAddr::V4(ip)) => {
                request.push(1);
                request.extend(ip.octets());
            }
            Ok(IpAddr::V6(ip)) => {
                request.push(4);
                request.extend(ip.octets());
            }
            // The proxy resolves names, by `socks5` as by `socks5h`, as in Go.
            Err(_) => {
                request.extend([3, short(host)?]);
                request.extend(host.bytes());
            }
        }
        request.extend(port.to_be_bytes());
        stream.write_all(&request).await?;
        stream.flush().await?;
        let mut answer = [0; 5];
        stream.read_exact(&mut answer).await?;
        let to = host_port(host, port);
        match answer[1] {
            0 => {}
            2 => return Err(refused(&format!("refuses connections to {to}"), "ask who runs the proxy to permit them")),
            code => {
                let why = match code {
                    3 => "the network cannot be reached",
                    4 => "the host cannot be reached",
                    5 => "the connection was refused",
                    6 => "the host is too far away",
                    _ => "it does not say why",
                };
                return Err(Fault::passing(format!("{self} cannot reach {to}: {why}"), NO_PROXY).into());
            }
        }
        let address = match answer[3] {
            1 => 4 + 2,
            4 => 16 + 2,
            _ => usize::from(answer[4]) + 1 + 2,
        };
        // The first byte of the address has been read.
        let mut rest = vec![0; address - 1];
        stream.read_exact(&mut rest).await?;
        Ok(())
    }
}

const NO_PROXY: &str = "check HTTPS_PROXY, or `proxy` in the settings";

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = if self.speaks == Speaks::Socks { "SOCKS" } else { "HTTP" };
        write!(f, "the {what} proxy {}", host_port(&self.host, self.port))
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// An HTTP proxy's answer to `CONNECT`.
struct Answer {
    status: u16,
    /// Status and reason.
    line: String,
    /// The ways to log in that it offers.
    methods: Vec<String>,
}

impl Answer {
    fn parse(head: &str) -> Option<Answer> {
        let mut lines = head.lines();
        let (version, line) = lines.next()?.split_once(' ')?;
        let status = line.trim().get(..3)?.parse().ok().filter(|_| version.starts_with("HTTP/"))?;
        let named = lines.filter_map(|line| line.split_once(':'));
        let offers = named.filter(|(name, _)| name.trim().eq_ignore_ascii_case("proxy-authenticate"));
        let methods =
            offers.filter_map(|(_, value)| value.split_whitespace().next()).map(|word| word.trim_matches(','));
        Some(Answer { status, line: line.trim().to_owned(), methods: methods.map(str::to_owned).collect() })
    }
}

/// Decodes `%40`.
fn decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let (mut out, mut i) = (Vec::with_capacity(bytes.len()), 0);
    while i < bytes.len() {
        let code = text.get(i + 1..i + 3).and_then(|hex| u8::from_str_radix(hex, 16).ok()).filter(|_| bytes[i] == b'%');
        out.push(code.unwrap_or(bytes[i]));
        i += if code.is_some() { 3 } else { 1 };
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// The hosts that are reached without a proxy, as in `NO_PROXY`.
#[derive(Debug, Default)]
struct Except {
    /// `*`.
    all: bool,
    networks: Vec<(IpAddr, u32)>,
    addresses: Vec<(IpAddr, Option<u16>)>,
    /// With a dot in front, and true if the name without it fits as well.
    domains: Vec<(String, Option<u16>, bool)>,
}

impl Except {
    fn parse(text: &str) -> Except {
        let mut except = Except::default();
        for one in text.split(',').map(|one| one.trim().to_ascii_lowercase()).filter(|one| !one.is_empty()) {
            if one == "*" {
                return Except { all: true, ..Except::default() };
            }
            if let Some(network) = network(&one) {
                except.networks.push(network);
                continue;
            }
            let (host, port) = match split_port(&one) {
                Some(("", _)) => continue,
                Some((host, port)) => (host, Some(port)),
                None => (one.as_str(), None),
            };
            // A port that is none fits no destination.
            let Ok(port) = port.filter(|port| !port.is_empty()).map(str::parse).transpose() else { continue };
            match host.parse() {
                Ok(ip) => except.addresses.push((ip, port)),
                Err(_) => {
                    let host = host.strip_prefix('*').filter(|rest| rest.starts_with('.')).unwrap_or(host);
                    match host.strip_prefix('.') {
                        Some(_) => except.domains.push((host.to_owned(), port, false)),
                        None => except.domains.push((format!(".{host}"), port, true)),
                    }
                }
            }
        }
        except
    }

    /// True for a destination that a proxy is used for.
    fn reach(&self, host: &str, port: u16) -> bool {
        let host = host.to_ascii_lowercase();
        let ip: Option<IpAddr> = host.parse().ok();
        if host == "localhost" || ip.is_some_and(|ip| unmapped(ip).is_loopback()) || self.all {
            return false;
        }
        let is_port = |named: &Option<u16>| named.is_none_or(|named| named == port);
        let by_address = ip.is_some_and(|ip| {
            self.networks.iter().any(|network| is_in(ip, *network))
                || self.addresses.iter().any(|(one, named)| unmapped(*one) == unmapped(ip) && is_port(named))
        });
        let by_name = self.domains.iter().any(|(domain, named, itself)| {
            (host.ends_with(domain) || *itself && host == domain[1..]) && is_port(named)
        });
        !by_address && !by_name
    }
}

/// Splits `HOST:PORT` or `[HOST]:PORT`.
fn split_port(text: &str) -> Option<(&str, &str)> {
    match text.strip_prefix('[') {
        Some(inside) => inside.split_once("]:"),
        None => text.split_once(':').filter(|(_, port)| !port.contains(':')),
    }
}

fn network(text: &str) -> Option<(IpAddr, u32)> {
    let (ip, bits) = text.split_once('/')?;
    let ip: IpAddr = ip.parse().ok()?;
    let bits = bits.parse().ok().filter(|bits| *bits <= if ip.is_ipv4() { 32 } else { 128 })?;
    Some((ip, bits))
}

fn is_in(ip: IpAddr, (network, bits): (IpAddr, u32)) -> bool {
    match (unmapped(ip), network) {
        (IpAddr::V4(ip), IpAddr::V4(network)) => {
            (ip.to_bits() ^ network.to_bits()).checked_shr(32 - bits).unwrap_or(0) == 0
        }
        (IpAddr::V6(ip), IpAddr::V6(network)) => {
            (ip.to_bits() ^ network.to_bits()).checked_shr(128 - bits).unwrap_or(0) == 0
        }
        _ => false,
    }
}

/// An IPv4 address that is written as an IPv6 one is the IPv4 address.
fn unmapped(ip: IpAddr) -> IpAddr {
    ip.to_canonical()
}

#[cfg(test)]
mod tests {
    use hyper::Uri;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::{Except, Proxies, Proxy};
    use crate::settings::Settings;

    fn environment(set: &[(&str, &str)]) -> Proxies {
        Proxies::of(|name| set.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned()))
    }

    fn for_address(proxies: &Proxies, address: &str) -> String {
        match proxies.proxy_for(&address.parse::<Uri>().unwrap()) {
            Ok(Some(proxy)) => format!("{:?} {}", proxy.speaks, super::host_port(&proxy.host, proxy.port)),
            Ok(None) => "direct".to_owned(),
            Err(error) => error.to_string(),
        }
    }

    /// The forms that the documentation of Go's httpproxy names, and its answers.
    #[test]
    fn hosts_are_excepted_as_in_go() {
        let except = Except::parse(
            "one.test, .two.test, *.three.test, 192.0.2.1, 192.0.2.2:81, 192.0.2.3:80, 10.1.0.0/30, 2001:db8::1, \
             [2001:db8::2]:443, [2001:db8::3]:80, 2001:db8:a::9/64, four.test:80, five.test:81, , :1, UPPER.Test, \
             six.test:http",
        );
        for (host, by_proxy) in [
            ("localhost", false),
            ("127.0.0.1", false),
            ("127.9.9.9", false),
            ("::1", false),
            ("::ffff:127.0.0.1", false),
            ("::2", true),
            ("192.0.2.1", false),
            ("::ffff:192.0.2.1", false),
            ("192.0.2.2", true),
            ("192.0.2.3", false),
            ("192.0.2.4", true),
            ("10.1.0.3", false),
            ("10.1.0.4", true),
            ("2001:db8::1", false),
            ("2001:db8::2", true),
            ("2001:db8::3", false),
            ("2001:db8:a::123", false),
            ("2001:db8:b::123", true),
            ("one.test", false),
            ("ONE.test", false),
            ("www.one.test", false),
            ("none.test", true),
            ("one.test.example", true),
            ("two.test", true),
            ("www.two.test", false),
            ("a.www.two.test", false),
            ("notwo.test", true),
            ("three.test", true),
            ("www.three.test", false),
            ("athree.test", true),
            ("four.test", false),
            ("www.four.test", false),
            ("five.test", true),
            ("six.test", true),
            ("upper.test", false),
            ("localhost.test", true),
            ("a.localhost", true),
        ] {
            assert_eq!(except.reach(host, 80), by_proxy, "{host}");
            assert!(!Except::parse("x, *").reach(host, 80), "{host}");
        }
        assert!(Except::parse(":1").reach("one.test", 80));
        assert!(!Except::parse("0.0.0.0/0").reach("192.0.2.7", 80));
        assert!(Except::parse("0.0.0.0/0").reach("one.test", 80));
    }

    #[test]
    fn a_proxy_is_chosen_as_in_go() {
        for (set, address, chosen) in [
            (vec![], "https://a.test", "direct"),
            (vec![("HTTP_PROXY", "192.0.2.1:8080")], "http://a.test", "Http 192.0.2.1:8080"),
            (vec![("HTTP_PROXY", "cache.test:1234")], "http://a.test", "Http cache.test:1234"),
            (vec![("HTTP_PROXY", "cache.test")], "http://a.test", "Http cache.test:80"),
            (vec![("HTTP_PROXY", "localhost")], "http://a.test", "Http localhost:80"),
            (vec![("HTTP_PROXY", "https://cache.test")], "http://a.test", "Https cache.test:443"),
            (vec![("HTTP_PROXY", "socks5://192.0.2.1")], "http://a.test", "Socks 192.0.2.1:1080"),
            (vec![("HTTPS_PROXY", "socks5h://[::2]:9")], "https://a.test", "Socks [::2]:9"),
            (vec![("HTTPS_PROXY", "HTTP://me:p%40ss@cache.test:1/x")], "https://a.test", "Http cache.test:1"),
            (vec![("HTTP_PROXY", "one"), ("HTTPS_PROXY", "two")], "http://a.test", "Http one:80"),
            (vec![("HTTP_PROXY", "one"), ("HTTPS_PROXY", "two")], "https://a.test", "Http two:80"),
            (vec![("HTTP_PROXY", "one")], "https://a.test", "direct"),
            (vec![("https_proxy", "two")], "https://a.test", "Http two:80"),
            (vec![("HTTPS_PROXY", "one"), ("https_proxy", "two")], "https://a.test", "Http one:80"),
            (vec![("HTTPS_PROXY", ""), ("https_proxy", "two")], "https://a.test", "Http two:80"),
            (vec![("ALL_PROXY", "socks5h://one"), ("all_proxy", "one")], "https://a.test", "direct"),
            (vec![("HTTPS_PROXY", "one"), ("NO_PROXY", "*.test")], "https://a.test", "direct"),
            (vec![("HTTPS_PROXY", "one"), ("no_proxy", "a.test:443")], "https://a.test", "direct"),
            (vec![("HTTPS_PROXY", "one"), ("NO_PROXY", "a.test:8443")], "https://a.test", "Http one:80"),
            (vec![("HTTPS_PROXY", "one"), ("NO_PROXY", "*")], "https://192.0.2.1", "direct"),
            (vec![("HTTPS_PROXY", "one")], "https://[::1]:8443", "direct"),
            // Not an address: none, as in Go.
            (vec![("HTTPS_PROXY", "http://a b")], "https://a.test", "direct"),
            (vec![("HTTPS_PROXY", "one"), ("REQUEST_METHOD", "PUT")], "https://a.test", "Http one:80"),
        ] {
            assert_eq!(for_address(&environment(&set), address), chosen, "{set:?} {address}");
        }
        for (set, why) in [
            (vec![("HTTP_PROXY", "one"), ("REQUEST_METHOD", "GET")], "CGI"),
            (vec![("HTTP_PROXY", "foo://one")], "neither"),
            (vec![("HTTP_PROXY", "http://me:secretpw99@one:84430")], "its port is not between"),
            (vec![("HTTP_PROXY", "one:0")], "its port is not between"),
            (vec![("HTTP_PROXY", "one:x")], "its port is not a number"),
        ] {
            let said = for_address(&environment(&set), "http://a.test");
            assert!(said.contains(why) && !said.contains("secretpw99"), "{set:?}: {said}");
            assert_eq!(
                for_address(&environment(&set), "http://127.0.0.1:8080"),
                if why == "CGI" { said } else { "direct".into() }
            );
        }
    }

    #[test]
    fn settings_beat_the_environment() {
        let settings = |proxy: Option<&str>, no_proxy: Option<&str>| Settings {
            proxy: proxy.map(str::to_owned),
            no_proxy: no_proxy.map(|hosts| hosts.split(' ').map(str::to_owned).collect()),
            ..Settings::default()
        };
        let proxies = Proxies::new(&settings(Some("me:secret@cache.test:3128"), Some("*.in.test other.test")));
        for (address, chosen) in [
            ("https://a.test", "Http cache.test:3128"),
            ("http://a.test", "Http cache.test:3128"),
            ("https://a.in.test", "direct"),
            ("https://other.test", "direct"),
            ("http://localhost:80", "direct"),
        ] {
            assert_eq!(for_address(&proxies, address), chosen, "{address}");
        }
    }

    /// Plays a proxy that says `answer`, and returns what it was told and what came of it.
    async fn through(proxy: &str, answer: &[u8]) -> (Vec<u8>, String) {
        let proxy = Proxy::parse(proxy, "proxy").unwrap().unwrap();
        let (mut near, mut far) = duplex(4096);
        far.write_all(answer).await.unwrap();
        let uri = "https://a.test".parse().unwrap();
        let connected = proxy.connect(&mut near, &uri).await;
        drop(near);
        let mut told = Vec::new();
        far.read_to_end(&mut told).await.unwrap();
        (told, connected.map_or_else(|error| error.to_string(), |()| "connected".to_owned()))
    }

    #[tokio::test]
    async fn an_http_proxys_refusal_is_said_in_words() {
        let (told, said) = through("me:p%40ss@one:3128", b"HTTP/1.0 200 yes\r\nx: y\r\n\r\n").await;
        assert_eq!(said, "connected");
        let told = String::from_utf8(told).unwrap();
        assert!(told.starts_with("CONNECT a.test:443 HTTP/1.1\r\nHost: a.test:443\r\n"), "{told}");
        assert!(told.contains("Proxy-Authorization: Basic bWU6cEBzcw==\r\n"), "{told}");
        for (answer, words) in [
            ("403 Forbidden\r\n\r\n", "the HTTP proxy one:3128 refuses connections to a.test:443 (403 Forbidden)"),
            ("503 Service Unavailable\r\n\r\n<html>", "cannot reach a.test:443 (503 Service Unavailable)"),
            ("407 x\r\nProxy-Authenticate: Basic realm=\"x\"\r\n\r\n", "wants a user name and a password"),
            (
                "407 x\r\nproxy-authenticate: NTLM\r\nProxy-Authenticate: Negotiate\r\n\r\n",
                "wants a login by NTLM or Negotiate, and this program knows only Basic",
            ),
            ("500 x\r\n\r\n", "has failed (500 x)"),
        ] {
            let (_, said) = through("one:3128", format!("HTTP/1.1 {answer}").as_bytes()).await;
            assert!(said.contains(words), "{said}");
        }
        let (_, said) = through("a:b@one", b"HTTP/1.1 407 x\r\nProxy-Authenticate: Basic\r\n\r\n").await;
        assert!(said.contains("does not accept the user name"), "{said}");
        let (_, said) = through("one", b"SSH-2.0-x\r\n\r\n").await;
        assert!(said.contains("does not answer in HTTP"), "{said}");
    }

    #[tokio::test]
    async fn a_socks_proxy_is_told_the_name() {
        let (told, said) = through("socks5://one", b"\x05\x00\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00").await;
        assert_eq!(
            (told.as_slice(), said.as_str()),
            (&b"\x05\x01\x00\x05\x01\x00\x03\x06a.test\x01\xbb"[..], "connected")
        );
        let (told, said) = through("socks5h://u:p@one", b"\x05\x02\x01\x00\x05\x00\x00\x03\x01x\x00\x00").await;
        assert_eq!(said, "connected");
        assert!(told.starts_with(b"\x05\x02\x00\x02\x01\x01u\x01p\x05\x01\x00\x03"), "{told:?}");
        for (answer, words) in [
            (&b"\x05\xff"[..], "wants another login"),
            (b"HTTP/1.1 400", "does not speak SOCKS 5"),
            (
                b"\x05\x00\x05\x05\x00\x01\x00\x00\x00\x00\x00\x00",
                "cannot reach a.test:443: the connection was refused",
            ),
        ] {
            let (_, said) = through("socks5://one", answer).await;
            assert!(said.contains(words), "{said}");
        }
    }
}
