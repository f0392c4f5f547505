//! Kubeconfigs that lead to other addresses. Only `server` and `tls-server-name` change. Everything else is kept byte
//! for byte. Pure.
//!
//! A kubeconfig comes from a playground, and kubectl obeys it on the user's computer. One with more than keys and
//! addresses is therefore refused.
//!
//! The text is edited at the positions that the YAML reader reports, then read again. If any other value differs, it is
//! refused.

use hyper::Uri;
use serde::Deserialize;
use serde_json::Value;
use serde_saphyr::{Spanned, options::MergeKeyPolicy};

use crate::error::{Error, Kind, Result};

#[derive(Deserialize)]
struct Kubeconfig {
    clusters: Option<Vec<NamedCluster>>,
}

#[derive(Deserialize)]
struct NamedCluster {
    #[serde(default)]
    name: String,
    cluster: Cluster,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Cluster {
    server: Spanned<String>,
    tls_server_name: Option<String>,
    #[serde(default)]
    insecure_skip_tls_verify: bool,
}

/// The address of an API server, as the machine sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// The host name or address, without brackets.
    pub host: String,
    /// Its port.
    pub port: u16,
}

fn damaged(why: impl std::fmt::Display) -> Error {
    Error::new(Kind::Answer, format!("the playground's kubeconfig cannot be used: {why}"))
}

/// Parses YAML into JSON values.
///
/// # Errors
/// The YAML reader's message.
pub fn value(text: &str) -> Result<Value, String> {
    serde_saphyr::from_str(text).map_err(|e| e.to_string().lines().next().unwrap_or_default().to_owned())
}

fn parse(text: &str) -> Result<Vec<NamedCluster>> {
    let config: Kubeconfig =
        serde_saphyr::from_str(text).map_err(|e| damaged(e.to_string().lines().next().unwrap_or_default()))?;
    match config.clusters {
        Some(clusters) if !clusters.is_empty() => Ok(clusters),
        Some(_) | None => Err(damaged("it has no clusters")),
    }
}

/// Returns the URL of a cluster's server, and the host and port in it.
fn server(cluster: &NamedCluster) -> Result<(Uri, Server)> {
    parsed(&cluster.cluster.server.value, &format!("the server of cluster {}", cluster.name))
}

/// The same of the body of a cluster.
///
/// # Errors
/// [`Kind::Answer`] when its server is no address.
pub(crate) fn address(cluster: &Value) -> Result<(Uri, Server)> {
    parsed(cluster["server"].as_str().unwrap_or_default(), "the server of its cluster")
}

fn parsed(url: &str, what: &str) -> Result<(Uri, Server)> {
    let refuse = || damaged(format!("`{url}`, {what}, is not an address"));
    let uri: Uri = url.parse().map_err(|_| refuse())?;
    let default = match uri.scheme_str() {
        Some("https") => 443,
        Some("http") => 80,
        Some(_) | None => return Err(refuse()),
    };
    let host = uri.host().ok_or_else(refuse)?.trim_start_matches('[').trim_end_matches(']').to_owned();
    let port = uri.port_u16().unwrap_or(default);
    Ok((uri, Server { host, port }))
}

/// The permitted keys of a kubeconfig, a cluster and a user: those known to concern only the connection. A list of
/// dangerous keys would not do, because programs differ in how they read a key, and new keys appear.
const CONFIG: [&str; 8] =
    ["apiVersion", "clusters", "contexts", "current-context", "extensions", "kind", "preferences", "users"];
const CLUSTER: [&str; 6] = [
    "certificate-authority-data",
    "disable-compression",
    "extensions",
    "insecure-skip-tls-verify",
    "server",
    "tls-server-name",
];
const USER: [&str; 10] = [
    "as",
    "as-groups",
    "as-uid",
    "as-user-extra",
    "client-certificate-data",
    "client-key-data",
    "extensions",
    "password",
    "token",
    "username",
];

/// Describes the effect of a key that is not permitted.
fn effect(key: &str) -> &'static str {
    match key.to_ascii_lowercase().as_str() {
        "exec" | "auth-provider" => "runs a program on this computer",
        "certificate-authority" | "client-certificate" | "client-key" | "tokenfile" => "reads a file of this computer",
        "proxy-url" => "connects through a proxy",
        _ => "has a field that is not known to be safe here",
    }
}

/// Checks that the kubeconfig of playground `play` contains nothing but keys and addresses.
///
/// # Errors
/// [`Kind::Refused`] when it would make kubectl run a program, read the user's files or connect elsewhere;
/// [`Kind::Answer`] when the text is no kubeconfig.
pub fn check(text: &str, play: &str) -> Result<()> {
    // Reject merge keys (`<<`) and tags, because YAML readers differ in how they resolve them.
    let strict = serde_saphyr::options! { merge_keys: MergeKeyPolicy::Error, reject_unsupported_tags: true };
    let config: Value = serde_saphyr::from_str_with_options(text, strict)
        .map_err(|e| damaged(e.to_string().lines().next().unwrap_or_default()))?;
    let only = |of: &str, value: &Value, allowed: &[&str]| {
        let members = match value {
            Value::Null => return Ok(()),
            value => value.as_object().ok_or_else(|| damaged("one of its fields has the wrong type"))?,
        };
        let Some(key) = members.keys().find(|key| !allowed.contains(&key.as_str())) else { return Ok(()) };
        let what = effect(key);
        Err(Error::new(Kind::Refused, format!("the kubeconfig of playground {play} {what} (`{key}`{of})")).with_hint(
            "look at ~/.kube/config in the playground: only keys and tokens (`*-data`, `token`) are allowed; there, \
             `kubectl config view --raw --flatten` replaces paths with the contents of the files",
        ))
    };
    only("", &config, &CONFIG)?;
    for (list, body, allowed) in [("clusters", "cluster", &CLUSTER[..]), ("users", "user", &USER[..])] {
        let items = match &config[list] {
            Value::Null => continue,
            items => items.as_array().ok_or_else(|| damaged(format!("its {list} are not a list")))?,
        };
        for item in items {
            let of = format!(" of {body} {}", item["name"].as_str().unwrap_or_default());
            only(&of, item, &["name", body])?;
            only(&of, &item[body], allowed)?;
        }
    }
    Ok(())
}

/// Returns the servers of all clusters, in order.
///
/// # Errors
/// [`Kind::Answer`] when the text is no kubeconfig.
pub fn servers(text: &str) -> Result<Vec<Server>> {
    parse(text)?.iter().map(|cluster| Ok(server(cluster)?.1)).collect()
}

/// Replaces each cluster's server by `127.0.0.1` and the port that `port` returns for it. kubectl still verifies the
/// certificate against the original host, unless the kubeconfig names another one or disables the check.
///
/// # Errors
/// [`Kind::Answer`] when the text is no kubeconfig or cannot be edited.
pub fn redirect(text: &str, port: impl Fn(&Server) -> u16) -> Result<String> {
    let mut expected = value(text).map_err(damaged)?;
    let mut edits = Vec::new();
    for (i, named) in parse(text)?.iter().enumerate() {
        let (uri, server) = server(named)?;
        let path = uri.path_and_query().map(ToString::to_string).filter(|path| path != "/").unwrap_or_default();
        let scheme = uri.scheme_str().unwrap_or("https");
        let url = format!("{scheme}://127.0.0.1:{}{path}", port(&server));
        let cluster = &mut expected["clusters"][i]["cluster"];
        cluster["server"] = url.clone().into();
        let Cluster { server: at, tls_server_name, insecure_skip_tls_verify } = &named.cluster;
        let name = scheme == "https" && tls_server_name.is_none() && !insecure_skip_tls_verify;
        if name {
            cluster["tls-server-name"] = server.host.clone().into();
        }
        let span = at.referenced.span();
        let range = span.byte_offset().zip(span.byte_len()).and_then(|(from, len)| {
            let from = usize::try_from(from).ok()?;
            Some(from..from + usize::try_from(len).ok()?)
        });
        let range = range.filter(|range| text.is_char_boundary(range.start) && text.is_char_boundary(range.end));
        let range = range.ok_or_else(|| damaged("the positions of its fields are not known"))?;
        edits.push((range, url, name.then_some(server.host)));
    }
    // From the last to the first, so that earlier positions stay valid.
    edits.sort_by_key(|(range, ..)| std::cmp::Reverse(range.start));
    let mut edited = text.to_owned();
    for (range, url, name) in edits {
        if let Some(name) = name {
            let (at, insertion) = beside(text, &range, &name);
            edited.insert_str(at, &insertion);
        }
        let quote = text[range.clone()].chars().next().filter(|c| matches!(c, '"' | '\'')).map(String::from);
        let quote = quote.unwrap_or_default();
        edited.replace_range(range, &format!("{quote}{url}{quote}"));
    }
    match value(&edited) {
        Ok(after) if after == expected => Ok(edited),
        Ok(_) | Err(_) => Err(damaged("its format cannot be edited")),
    }
}

/// Returns the position of the new `tls-server-name` for the server at `range`, and the text to insert there.
fn beside(text: &str, range: &std::ops::Range<usize>, name: &str) -> (usize, String) {
    let line = text[..range.start].rfind('\n').map_or(0, |i| i + 1);
    let before = &text[line..range.start];
    let key = before.trim_start_matches(' ');
    let indent = &before[..before.len() - key.len()];
    if !matches!(key.trim_end().trim_end_matches(':').trim_end(), "server" | "\"server\"" | "'server'") {
        // Inside the braces of a flow mapping.
        return (range.end, format!(", \"tls-server-name\": \"{name}\""));
    }
    match text[range.end..].find('\n') {
        Some(end) => {
            let end = range.end + end;
            let newline = if text[..end].ends_with('\r') { "\r\n" } else { "\n" };
            (end + 1, format!("{indent}tls-server-name: \"{name}\"{newline}"))
        }
        None => (text.len(), format!("\n{indent}tls-server-name: \"{name}\"")),
    }
}

/// The cluster, user and namespace of a kubeconfig's current context, or else of its first context.
#[derive(Clone, Debug, PartialEq)]
pub struct Current {
    /// The cluster's body.
    pub cluster: Value,
    /// The user's body.
    pub user: Value,
    /// The namespace, if one is set.
    pub namespace: Option<String>,
}

/// Returns the context that kubectl uses by default with `text`.
///
/// # Errors
/// [`Kind::Answer`] when no context leads to a cluster.
pub fn current(text: &str) -> Result<Current> {
    let config = value(text).map_err(damaged)?;
    let named = |list: &str, name: &Value, body: &str| {
        let items = config[list].as_array()?;
        items.iter().find(|item| item["name"] == *name).map(|item| item[body].clone())
    };
    let context = named("contexts", &config["current-context"], "context")
        .or_else(|| Some(config["contexts"].as_array()?.first()?["context"].clone()))
        .ok_or_else(|| damaged("it has no context"))?;
    let cluster =
        named("clusters", &context["cluster"], "cluster").ok_or_else(|| damaged("its context has no cluster"))?;
    Ok(Current {
        cluster,
        user: named("users", &context["user"], "user").unwrap_or_else(|| serde_json::json!({})),
        namespace: context["namespace"].as_str().map(ToOwned::to_owned),
    })
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use proptest::prelude::*;
    use serde_json::json;

    use super::{CLUSTER, Server, USER, check, current, redirect, servers};
    use crate::error::Kind;

    const KUBEADM: &str = "\
# of kubeadm
apiVersion: v1
clusters:
- cluster:
    certificate-authority-data: AAAA
    server: https://172.16.0.2:6443   # the API
  name: kubernetes
contexts:
- context:
    cluster: kubernetes
    user: kubernetes-admin
  name: kubernetes-admin@kubernetes
current-context: kubernetes-admin@kubernetes
kind: Config
preferences: {}
users:
- name: kubernetes-admin
  user:
    client-certificate-data: BBBB
";

    #[test]
    fn only_the_server_and_the_name_change() {
        assert_eq!(servers(KUBEADM).unwrap(), [Server { host: "172.16.0.2".into(), port: 6443 }]);
        let edited = redirect(KUBEADM, |_| 4321).unwrap();
        let diff: Vec<_> = edited.lines().filter(|line| !KUBEADM.lines().any(|old| old == *line)).collect();
        expect![[r#"
            [
                "    server: https://127.0.0.1:4321   # the API",
                "    tls-server-name: \"172.16.0.2\"",
            ]
        "#]]
        .assert_debug_eq(&diff);
        assert_eq!(edited.lines().count(), KUBEADM.lines().count() + 1);
        assert_eq!(current(&edited).unwrap().cluster["server"], "https://127.0.0.1:4321");
    }

    #[test]
    fn every_way_to_write_it_is_edited_or_refused() {
        for (text, expected) in [
            (
                r#"{"clusters": [{"name": "a", "cluster": {"server": "https://a:1/x"}}]}"#,
                Some(
                    r#"{"clusters": [{"name": "a", "cluster": {"server": "https://127.0.0.1:9/x", "tls-server-name": "a"}}]}"#,
                ),
            ),
            (
                "clusters:\r\n- cluster:\r\n    server: 'https://[::1]:1'\r\n",
                Some(
                    "clusters:\r\n- cluster:\r\n    server: 'https://127.0.0.1:9'\r\n    tls-server-name: \"::1\"\r\n",
                ),
            ),
            (
                "clusters:\n- cluster: {server: https://a}",
                Some("clusters:\n- cluster: {server: https://127.0.0.1:9, \"tls-server-name\": \"a\"}"),
            ),
            ("clusters:\n- cluster:\n    server: https://é.x", None),
            (
                "clusters:\n- cluster:\n    server: https://a",
                Some("clusters:\n- cluster:\n    server: https://127.0.0.1:9\n    tls-server-name: \"a\""),
            ),
            (
                "clusters:\n- cluster:\n    tls-server-name: own\n    server: https://a\n",
                Some("clusters:\n- cluster:\n    tls-server-name: own\n    server: https://127.0.0.1:9\n"),
            ),
            (
                "clusters:\n- cluster:\n    insecure-skip-tls-verify: true\n    server: https://a\n",
                Some("clusters:\n- cluster:\n    insecure-skip-tls-verify: true\n    server: https://127.0.0.1:9\n"),
            ),
            (
                "# é\nclusters:\n- cluster:\n    server: http://a\n",
                Some("# é\nclusters:\n- cluster:\n    server: http://127.0.0.1:9\n"),
            ),
            ("clusters: []\n", None),
            ("hello", None),
            ("", None),
            ("clusters:\n- cluster:\n    server: unix:///x\n", None),
        ] {
            assert_eq!(redirect(text, |_| 9).ok().as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn a_kubeconfig_that_is_more_than_data_is_refused() {
        check(KUBEADM, "x").unwrap();
        let (cluster, user) = ("clusters: [{name: c, cluster: {server: https://a}}]\n", "users:\n- name: u\n  user:\n");
        for (text, what) in [
            (format!("{user}    exec:\n      command: sh\n"), "runs a program on this computer (`exec` of user u)"),
            ("users: [{name: u, user: {exec: {command: sh}}}]".into(), "(`exec` of user u)"),
            (r#"{"users":[{"user":{"\u0065xec":{}},"name":"u"}]}"#.into(), "(`exec` of user u)"),
            (r#"users: [{name: u, user: {"\x65xec": {}}}]"#.into(), "(`exec` of user u)"),
            (format!("{user}    ? exec\n    : {{command: sh}}\n"), "(`exec` of user u)"),
            (format!("{user}    Exec: {{}}\n"), "runs a program"),
            (format!("{user}    auth-provider: {{name: gcp}}\n"), "runs a program"),
            (format!("{user}    tokenFile: /a\n"), "reads a file of this computer (`tokenFile` of user u)"),
            (format!("{user}    client-key: /a\n"), "reads a file"),
            (format!("{user}    client-certificate: /a\n"), "reads a file"),
            ("clusters: [{name: c, cluster: {certificate-authority: /a}}]".into(), "reads a file"),
            ("clusters: [{name: c, cluster: {proxy-url: http://a}}]".into(), "connects through a proxy"),
            (format!("{user}    ſomething: 1\n"), "not known to be safe"),
            (format!("{user}    token: a\n  User: {{exec: {{}}}}\n"), "not known to be safe"),
            (format!("{user}    token: a\nUsers: []\n"), "not known to be safe"),
        ] {
            let error = check(&format!("{text}\n"), "x").unwrap_err();
            assert!(error.kind() == Kind::Refused && error.message().contains(what), "{text}: {error}");
        }
        // YAML readers differ here, so it must be refused in one way or another.
        for text in [
            format!("{user}    !!binary ZXhlYw==: {{command: sh}}\n"),
            format!("{user}    token: a\n  user: {{exec: {{}}}}\n"),
            format!("{user}    token: a\nusers: [{{name: u, user: {{exec: {{}}}}}}]\n"),
            format!("a: &a {{exec: {{}}}}\n{user}    <<: *a\n"),
            format!("preferences: &a {{exec: {{}}}}\n{user}    <<: *a\n"),
            format!("{user}    token: a\n---\nusers: [{{name: u, user: {{exec: {{}}}}}}]\n"),
            format!("{user}    token: a\n<<: {{users: [{{name: u, user: {{exec: {{}}}}}}]}}\n"),
            "users: {a: {exec: {}}}".into(),
            "users: [[exec]]".into(),
        ] {
            assert!(check(&format!("{cluster}{text}"), "x").is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn only_what_is_known_passes(key in "[a-zA-Z-]{1,24}|exec|token|server|client-key(-data)?", of_user: bool) {
            let (list, body, allowed) =
                if of_user { ("users", "user", &USER[..]) } else { ("clusters", "cluster", &CLUSTER[..]) };
            let text = json!({ list: [{ "name": "n", body: { &key: "x" } }] }).to_string();
            prop_assert_eq!(check(&text, "x").is_ok(), allowed.contains(&key.as_str()));
        }

        #[test]
        fn no_text_makes_it_panic(text in ".*") {
            let _ = check(&text, "x");
        }
    }
}
