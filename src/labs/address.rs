//! Addresses: of the API, of tunnels and their logins, of redirects. An address that would lead elsewhere than it says
//! is refused, and one that carries a password is used and shown without it.
//!
//! `url` reads them, by the rules of browsers (WHATWG). Those rules repair much that Go's `net/url`, which the official
//! client reads addresses with, refuses: backslashes, missing slashes, ports with a line break inside, hosts in octal.
//! Such an address is refused here as well. They have no IPv6 zones, which we add. Addresses of proxies stay with
//! [`super::proxy`]: there Go's answer counts even for texts that are no address.

use std::cell::Cell;

use hyper::Uri;
use url::{Host, ParseError, SyntaxViolation, Url};

use crate::{
    error::{Error, Kind, Result},
    secrets,
};

/// Parses an address that the platform gave. The text is not shown, because a login's address is a secret.
pub(super) fn given(text: &str) -> Result<Uri> {
    parse(text)
        .map_err(|why| Error::new(Kind::Answer, format!("the platform gave an invalid address: {why}")).lasting())
}

/// Parses an address below the one of the account's file.
pub(super) fn configured(text: &str) -> Result<Uri> {
    parse(text).map_err(|why| {
        Error::new(Kind::Usage, format!("the platform's address (`api_base_url` or `base_url`) is not valid: {why}"))
            .with_hint("correct it in ~/.iximiuz/labctl/config.yaml")
    })
}

/// True for the address of a page that may be shown to the user and opened in a browser. One with a user name would look
/// like another host's.
pub(crate) fn is_page(text: &str) -> bool {
    let (scheme, _) = text.split_once("://").unwrap_or_default();
    matches!(scheme, "http" | "https")
        && text.chars().all(|c| c.is_ascii_graphic())
        && without_user(text) == text
        && parse(text).is_ok()
}

/// Checks the part of an address that paths are appended to.
pub(super) fn is_base(text: &str) -> Result<()> {
    if text.contains(['?', '#']) {
        let why = "the platform's address (`api_base_url` or `base_url`) must end with its path, without `?` and `#`";
        return Err(Error::new(Kind::Usage, why).with_hint("correct it in ~/.iximiuz/labctl/config.yaml"));
    }
    Ok(())
}

/// The peer at `uri` for people: its host, and its port where one is named.
pub(super) fn peer(uri: &Uri) -> String {
    match (uri.host(), uri.port_u16()) {
        (Some(host), Some(port)) => format!("{host}:{port}"),
        (host, _) => host.unwrap_or_default().to_owned(),
    }
}

/// `text` without user name and password, which no error may show. Our requests carry credentials of their own.
pub(super) fn without_user(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else { return text.to_owned() };
    let (authority, path) = rest.split_at(rest.find(['/', '?', '#', '\\']).unwrap_or(rest.len()));
    match authority.rsplit_once('@') {
        Some((user, host)) => {
            secrets::keep(user);
            secrets::keep(user.split_once(':').map_or("", |(_, password)| password));
            format!("{scheme}://{host}{path}")
        }
        None => text.to_owned(),
    }
}

/// Parses an address for hyper, for which WebSocket schemes are HTTP's under another name.
fn parse(text: &str) -> Result<Uri, String> {
    let (text, zone) = without_zone(&without_user(text));
    for_hyper(&read(&text, None)?, zone.as_deref())
}

/// Reads an address, or a reference to one from `base`. The reason for a refusal does not show it.
fn read(text: &str, base: Option<&Url>) -> Result<Url, String> {
    let is_repaired = Cell::new(false);
    let note = |found| {
        use SyntaxViolation::{Backslash, C0SpaceIgnored, ExpectedDoubleSlash, TabOrNewlineIgnored};
        is_repaired.set(
            is_repaired.get() | matches!(found, Backslash | C0SpaceIgnored | ExpectedDoubleSlash | TabOrNewlineIgnored),
        );
    };
    let url = Url::options().base_url(base).syntax_violation_callback(Some(&note)).parse(text);
    let url = url.map_err(|error| match error {
        ParseError::RelativeUrlWithoutBase => "it has no scheme".to_owned(),
        ParseError::EmptyHost => "it names no host".to_owned(),
        ParseError::InvalidPort => NO_PORT.to_owned(),
        _ => "it cannot be read".to_owned(),
    })?;
    if !matches!(url.scheme(), "http" | "https" | "ws" | "wss") {
        return Err("it is neither http nor https".to_owned());
    }
    if url.port() == Some(0) {
        return Err(NO_PORT.to_owned());
    }
    let is_as_written = match url.host() {
        host if base.is_some_and(|base| base.host() == host) => true,
        Some(Host::Ipv6(_)) => true,
        // A name in another script is sent as its `xn--` form. Hosts in octal, or with `%2e`, have become other texts.
        Some(Host::Ipv4(_) | Host::Domain(_)) => {
            let host = url.host_str().unwrap_or_default();
            text.to_ascii_lowercase().contains(host) || host.contains("xn--")
        }
        None => false,
    };
    if is_repaired.get() || !is_as_written { Err("it cannot be read".to_owned()) } else { Ok(url) }
}

/// The reason for which a port is refused.
const NO_PORT: &str = "its port is not between 1 and 65535";

/// Takes the zone out of an address with an IPv6 host (RFC 6874): `fe80::1%25eth0`.
fn without_zone(text: &str) -> (String, Option<String>) {
    let parts = || {
        let (scheme, rest) = text.split_once("://[").filter(|(scheme, _)| !scheme.contains(['/', '?', '#']))?;
        let (host, rest) = rest.split_once(']')?;
        let (host, zone) = host.split_once("%25")?;
        let is_zone = !zone.is_empty() && zone.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~".contains(&b));
        is_zone.then(|| (format!("{scheme}://[{host}]{rest}"), Some(zone.to_owned())))
    };
    parts().unwrap_or_else(|| (text.to_owned(), None))
}

fn for_hyper(url: &Url, zone: Option<&str>) -> Result<Uri, String> {
    // The scheme that hyper has for `ws` and `wss`.
    let text = url.as_str().replacen("ws", "http", usize::from(url.scheme().starts_with("ws")));
    let text = zone.map_or_else(|| text.clone(), |zone| text.replacen(']', &format!("%25{zone}]"), 1));
    text.parse().map_err(|_| "it cannot be read".to_owned())
}

/// Resolves the address of a redirect against the one that it came from.
pub(super) fn redirected(from: &Uri, location: &str) -> Result<Uri> {
    let bad = |why: &str| Error::new(Kind::Answer, format!("the tunnel's login is redirected to {why}")).lasting();
    let invalid = |why: String| bad(&format!("an invalid address: {why}"));
    let (base, zone) = without_zone(&from.to_string());
    let base = read(&base, None).map_err(invalid)?;
    if location.is_empty() {
        return Err(invalid("it is empty".to_owned()));
    }
    // A browser takes `1:2` for a path; Go and RFC 3986 (4.2) take it for an address without a scheme.
    let begins_with_colon = location.split(['/', '?', '#']).next().is_some_and(|first| first.contains(':'));
    if begins_with_colon && Url::parse(location) == Err(ParseError::RelativeUrlWithoutBase) {
        return Err(invalid("it has no scheme".to_owned()));
    }
    let (location, other_zone) = without_zone(&without_user(location));
    let to = read(&location, Some(&base)).map_err(invalid)?;
    let zone = other_zone.or(zone.filter(|_| to.host() == base.host()));
    let to = for_hyper(&to, zone.as_deref()).map_err(invalid)?;
    if from.scheme_str() == Some("https") && to.scheme_str() != Some("https") {
        return Err(bad("an address without TLS"));
    }
    Ok(to)
}

#[cfg(test)]
mod tests {
    use super::{configured, given, is_base, is_page, peer, redirected, without_user};
    use crate::error::Kind;

    #[test]
    fn an_address_is_http_or_websocket() {
        assert_eq!(given("wss://a.example/x").unwrap().to_string(), "https://a.example/x");
        assert_eq!(given("WS://a.example/x").unwrap().to_string(), "http://a.example/x");
        for text in ["file:///etc/passwd", "nonsense", "", "http://", "http:///x", "javascript:alert(1)", "http://:80/"]
        {
            assert_eq!(given(text).unwrap_err().kind(), Kind::Answer, "{text}");
        }
    }

    #[test]
    fn a_port_that_is_none_is_refused() {
        for port in
            ["65536", "84430", "0", "00000", "8a", "+80", "-1", " 80", "0x50", "99999999999999999999", "80:81", "٨٠"]
        {
            for host in ["127.0.0.1", "a.example", "[::1]"] {
                for scheme in ["http", "https", "ws", "wss"] {
                    let text = format!("{scheme}://{host}:{port}/api");
                    let error = given(&text).unwrap_err();
                    assert!(error.message().contains("its port is not"), "{text}: {error}");
                    assert_eq!(configured(&text).unwrap_err().kind(), Kind::Usage);
                }
            }
        }
        for (text, port) in [
            ("http://a.example:1/", Some(1)),
            ("http://[::1]:65535", Some(65535)),
            // As in a browser, in curl and in Go.
            ("http://a.example:/", None),
            ("https://a.example:0443/", None),
            ("http://a.example:0443/", Some(443)),
        ] {
            assert_eq!(given(text).unwrap().port_u16(), port, "{text}");
        }
        for text in ["http://[::1", "http://[::1]80/", "http://::1/", "http://a%2eb/", "http://a b/", "http://a\\@b/"] {
            assert!(given(text).is_err(), "{text}");
        }
    }

    /// Texts that browsers repair, and Go refuses or reads as another host.
    #[test]
    fn an_address_that_must_be_repaired_is_refused() {
        for text in [
            " http://a.example/",
            "http://a.example/\n",
            "http://a.example:8\t0/",
            "http:\\\\a.example/",
            "http:\\/a.example/",
            "http:/a.example/",
            "http:a.example",
            "http:////a.example/",
            "http://127.1/",
            "http://0177.0.0.1/",
            "http://0x7f000001/",
            "http://2130706433/",
            "http://127.0.0.%31/",
            "http://１２７.0.0.1/",
        ] {
            assert!(given(text).is_err(), "{text}");
            assert!(!is_page(text), "{text}");
        }
        for (text, address) in [
            ("HTTP://A.Example:80/x y?q=[b%25c]#z", "http://a.example/x%20y?q=[b%25c]"),
            ("http://bücher.example/", "http://xn--bcher-kva.example/"),
            ("http://[0:0::1]:8080", "http://[::1]:8080/"),
            ("wss://[fe80::1%25eth0]:8443/ws", "https://[fe80::1%25eth0]:8443/ws"),
            ("http://127.0.0.1:8080/ws", "http://127.0.0.1:8080/ws"),
        ] {
            assert_eq!(given(text).unwrap().to_string(), address, "{text}");
        }
    }

    #[test]
    fn user_and_password_are_neither_used_nor_shown() {
        for user in ["ada:secretpw99", "ada", ":secretpw99", "a@b:secretpw99", ""] {
            for (rest, shown) in
                [("a.example:8080/x?y=@#z", "a.example:8080"), ("[fe80::1%25eth0]/", "[fe80::1%25eth0]")]
            {
                let uri = given(&format!("http://{user}@{rest}")).unwrap();
                assert_eq!(peer(&uri), shown);
                assert!(!uri.to_string().contains("secret") && !uri.to_string().contains("ada"), "{uri}");
            }
        }
        assert_eq!(without_user("https://a.example/x@y"), "https://a.example/x@y");
        let error = given("http://ada:secretpw99@a.example:84430/").unwrap_err();
        assert!(!error.to_string().contains("secretpw99"), "{error}");
    }

    #[test]
    fn a_page_is_where_it_says() {
        assert!(is_page("https://labs.example/auth?once=1#x"));
        for text in [
            "ftp://a.example",
            "https://labs.example@b.example/",
            "https://a.example:84430/",
            "https://a b/",
            "ws://a.example",
        ] {
            assert!(!is_page(text), "{text}");
        }
    }

    #[test]
    fn a_base_is_a_path() {
        assert!(is_base("https://a.example/api").is_ok());
        assert!(is_base("https://a.example/api?x").is_err() && is_base("https://a.example/#api").is_err());
    }

    #[test]
    fn redirects_lead_where_they_may() {
        let from = given("https://a.example/down/login?x=1").unwrap();
        let to = |location: &str| redirected(&from, location).map(|uri| uri.to_string());
        for (location, target) in [
            ("/next", "https://a.example/next"),
            ("next?b#c", "https://a.example/down/next?b"),
            ("../next", "https://a.example/next"),
            ("..", "https://a.example/"),
            ("?y=2", "https://a.example/down/login?y=2"),
            ("//b.example/next", "https://b.example/next"),
            ("https://b.example/next", "https://b.example/next"),
            ("https://me:secretpw99@b.example/next", "https://b.example/next"),
            ("HTTPS://b.example/a:b", "https://b.example/a:b"),
            ("./a:b", "https://a.example/down/a:b"),
            ("wss://b.example", "https://b.example/"),
            ("/%2e%2e/x//y/./z/", "https://a.example/x//y/z/"),
        ] {
            assert_eq!(to(location).unwrap(), target, "{location}");
        }
        for location in [
            "http://a.example/next",
            "::",
            "",
            "javascript:x",
            "https://a.example:84430/",
            "//a.example:0/",
            "https:///x",
            "a:b",
            "1:b",
            "\\\\b.example/next",
            "/\\b.example/next",
            "//b.example\\@a.example/",
            "/next\r\nx: y",
        ] {
            assert!(to(location).is_err(), "{location}");
        }
        let from = given("http://[fe80::1%25eth0]:1/login").unwrap();
        let to = |location: &str| redirected(&from, location).unwrap().to_string();
        assert_eq!(to("next"), "http://[fe80::1%25eth0]:1/next");
        assert_eq!(to("//[fe80::2]/"), "http://[fe80::2]/");
        assert_eq!(to("http://[fe80::2%252]/"), "http://[fe80::2%252]/");
    }
}
