//! Tunnels to machines.

use serde::{Deserialize, Serialize};

/// `POST /plays/{id}/tunnels`.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct StartTunnel {
    /// Empty means the first one.
    pub machine: String,
    /// Always 0: the port is named when a connection is dialled.
    pub port: u16,
    /// Always `private`.
    pub access: String,
    /// Always true.
    pub generate_login_url: bool,
    /// The user whose authorized keys get the key.
    pub ssh_user: String,
    /// The key, in the form of an authorized_keys line.
    pub ssh_pub_key: String,
}

/// The answer to [`StartTunnel`].
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct TunnelOffer {
    /// The address below whose `/tunnels/` WebSockets are opened.
    pub url: String,
    /// The page that gives the token. A secret, because this URL alone opens the tunnel.
    pub login_url: String,
}
