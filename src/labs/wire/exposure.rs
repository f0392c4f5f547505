//! Ports and web terminals that the platform makes reachable for browsers: `/plays/{id}/ports` and `/plays/{id}/shells`.

use serde::{Deserialize, Serialize};

/// `access` of what only its owner reaches, logged in in that browser.
pub const PRIVATE: &str = "private";
/// `access` of what everyone with its address reaches.
pub const PUBLIC: &str = "public";

/// An exposed port.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub struct ExposedPort {
    /// Names it in `DELETE`.
    pub id: String,
    /// The machine.
    pub machine: String,
    /// The port on the machine.
    pub number: u16,
    /// [`PRIVATE`], [`PUBLIC`], or a word that is not known yet.
    pub access: String,
    /// True for a service that speaks HTTPS itself.
    pub tls: bool,
    /// The host name that the service is told, in place of the true one.
    pub host_rewrite: String,
    /// The path that the service is told, in place of the true one.
    pub path_rewrite: String,
    /// The address for browsers.
    pub url: String,
}

/// `POST /plays/{id}/ports`.
#[derive(Clone, Debug, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ExposePort {
    /// The machine.
    pub machine: String,
    /// The port on the machine.
    pub number: u16,
    /// [`PRIVATE`] or [`PUBLIC`].
    pub access: &'static str,
    /// True for a service that speaks HTTPS itself.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub tls: bool,
    /// The host name to tell the service.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub host_rewrite: String,
    /// The path to tell the service.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub path_rewrite: String,
}

impl ExposePort {
    /// True for an exposed port that is what this asks for.
    pub fn is(&self, port: &ExposedPort) -> bool {
        let ExposePort { machine, number, access, tls, host_rewrite, path_rewrite } = self;
        (machine, number, *access, tls) == (&port.machine, &port.number, port.access(), &port.tls)
            && (host_rewrite, path_rewrite) == (&port.host_rewrite, &port.path_rewrite)
    }
}

impl ExposedPort {
    /// Its access, where none is said to be private.
    pub fn access(&self) -> &str {
        access(&self.access)
    }
}

/// A web terminal.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub struct ExposedShell {
    /// Names it in `DELETE`.
    pub id: String,
    /// The machine.
    pub machine: String,
    /// The user on the machine.
    pub user: String,
    /// [`PRIVATE`], [`PUBLIC`], or a word that is not known yet.
    pub access: String,
    /// The address for browsers.
    pub url: String,
}

impl ExposedShell {
    /// Its access, where none is said to be private.
    pub fn access(&self) -> &str {
        access(&self.access)
    }
}

fn access(word: &str) -> &str {
    if word.is_empty() { PRIVATE } else { word }
}

/// `POST /plays/{id}/shells`.
#[derive(Clone, Debug, Serialize, PartialEq, Eq)]
pub struct ExposeShell {
    /// The machine.
    pub machine: String,
    /// The user on the machine.
    pub user: String,
    /// [`PRIVATE`].
    pub access: &'static str,
}

#[cfg(test)]
mod tests {
    use super::{ExposePort, ExposedPort, PRIVATE, PUBLIC};

    #[test]
    fn a_port_is_what_was_asked_for_if_all_options_agree() {
        let wish = ExposePort {
            machine: "m".into(),
            number: 80,
            access: PRIVATE,
            tls: false,
            host_rewrite: "a.example.org".into(),
            path_rewrite: String::new(),
        };
        let port: ExposedPort =
            serde_json::from_str(r#"{"id":"x","machine":"m","number":80,"hostRewrite":"a.example.org","new":1}"#)
                .unwrap();
        assert!(wish.is(&port), "without a word it is private");
        for other in [
            ExposePort { machine: "n".into(), ..wish.clone() },
            ExposePort { number: 81, ..wish.clone() },
            ExposePort { access: PUBLIC, ..wish.clone() },
            ExposePort { tls: true, ..wish.clone() },
            ExposePort { host_rewrite: String::new(), ..wish.clone() },
            ExposePort { path_rewrite: "/x".into(), ..wish.clone() },
        ] {
            assert!(!other.is(&port), "{other:?}");
        }
        let sent = serde_json::to_value(&wish).unwrap();
        assert_eq!(
            sent,
            serde_json::json!({"machine": "m", "number": 80, "access": "private", "hostRewrite": "a.example.org"})
        );
    }
}
