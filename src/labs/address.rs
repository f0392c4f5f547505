//! Addresses: of the API, of tunnels and their logins, of redirects. An address that would lead elsewhere than it says
//! is refused, and one that carries a password is used and shown without it.

use hyper::Uri;

use crate::{
    error::{Error, Kind, Result},
    secrets,
    target::port_in,
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

/// Parses an address for hyper, for which WebSocket schemes are HTTP's under another name. hyper takes the scheme's
/// port for one that it cannot read.
fn parse(text: &str) -> Result<Uri, String> {
    let text = without_user(text);
    let (scheme, rest) = text.split_once("://").ok_or("it has no scheme")?;
    let scheme = match scheme.to_ascii_lowercase().as_str() {
        "http" | "ws" => "http",
        "https" | "wss" => "https",
        _ => return Err("it is neither http nor https".to_owned()),
    };
    let authority = &rest[..rest.find(['/', '?', '#']).unwrap_or(rest.len())];
    port_in(authority)?;
    let uri: Uri = format!("{scheme}://{rest}").parse().map_err(|_| "it cannot be read")?;
    if uri.host().is_none_or(|host| host.is_empty() || host == "[]") {
        return Err("it names no host".to_owned());
    }
    Ok(uri)
}

/// Resolves the address of a redirect against the one that it came from (RFC 3986, 5.2).
pub(super) fn redirected(from: &Uri, location: &str) -> Result<Uri> {
    let bad = |why: &str| Error::new(Kind::Answer, format!("the tunnel's login is redirected to {why}")).lasting();
    let location = location.split('#').next().unwrap_or_default();
    let scheme = from.scheme_str().unwrap_or_default();
    let path = from.path();
    let colon = location.find(':').filter(|colon| !location[..*colon].contains(['/', '?']));
    let text = match location {
        _ if colon.is_some() => location.to_owned(),
        _ if location.starts_with("//") => format!("{scheme}:{location}"),
        _ => {
            let authority = from.authority().map(|authority| authority.as_str()).unwrap_or_default();
            let path = match location.chars().next() {
                None => return Err(bad("an invalid address: it is empty")),
                Some('/') => location.to_owned(),
                Some('?') => format!("{path}{location}"),
                Some(_) => format!("{}{location}", &path[..path.rfind('/').map_or(0, |slash| slash + 1)]),
            };
            format!("{scheme}://{authority}{}", without_dots(&path))
        }
    };
    let to = parse(&text).map_err(|why| bad(&format!("an invalid address: {why}")))?;
    if scheme == "https" && to.scheme_str() != Some("https") {
        return Err(bad("an address without TLS"));
    }
    Ok(to)
}

/// Resolves `.` and `..` in a path.
fn without_dots(path: &str) -> String {
    let (path, query) = path.split_at(path.find('?').unwrap_or(path.len()));
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/').skip(1) {
        match part {
            "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    let is_folder = path.ends_with("/.") || path.ends_with("/..");
    format!("/{}{}{query}", parts.join("/"), if is_folder && !parts.is_empty() { "/" } else { "" })
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
            ("https://a.example:0443/", Some(443)),
        ] {
            assert_eq!(given(text).unwrap().port_u16(), port, "{text}");
        }
        for text in ["http://[::1", "http://[::1]80/", "http://::1/", "http://a%2eb/", "http://a b/", "http://a\\@b/"] {
            assert!(given(text).is_err(), "{text}");
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
        ] {
            assert!(to(location).is_err(), "{location}");
        }
    }
}
