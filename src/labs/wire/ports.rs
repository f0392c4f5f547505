//! Ports: forwards that are saved with a play, and those that its machines listen on.

use serde::{Deserialize, Serialize};

/// A port forward that its owner wants remembered: `/plays/{id}/port-forwards`. The platform does nothing with it.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub struct PortForward {
    /// `remote`: the machine listens and this side dials. Anything else is `local`, the other way round.
    pub kind: String,
    /// The machine; empty for the first one.
    pub machine: String,
    /// This side's address.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub local_host: String,
    /// This side's port; 0 means any.
    #[serde(skip_serializing_if = "is_zero")]
    pub local_port: u16,
    /// The address as the machine sees it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub remote_host: String,
    /// The port there.
    #[serde(skip_serializing_if = "is_zero")]
    pub remote_port: u16,
}

fn is_zero(port: &u16) -> bool {
    *port == 0
}

/// An entry of `/plays/{id}/port-forwards`. Its place in the list is its index, so none is left out.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(from = "serde_json::Value", untagged)]
pub enum SavedForward {
    /// One that can be read.
    Known(PortForward),
    /// Any other, as it came.
    Odd(serde_json::Value),
}

impl From<serde_json::Value> for SavedForward {
    fn from(value: serde_json::Value) -> Self {
        match value.is_object().then(|| PortForward::deserialize(&value)) {
            Some(Ok(forward)) => SavedForward::Known(forward),
            Some(Err(_)) | None => SavedForward::Odd(value),
        }
    }
}

/// A port that something on a machine listens on: `POST /plays/{id}/ports/scan`.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq, PartialOrd, Ord)]
#[serde(default)]
pub struct ScannedPort {
    /// The machine.
    pub machine: String,
    /// The port.
    pub number: u16,
    /// `HTTP`, `HTTPS`, or another.
    pub protocol: String,
}

#[cfg(test)]
mod tests {
    use super::SavedForward;

    #[test]
    fn an_odd_forward_keeps_its_place() {
        let all: Vec<SavedForward> = serde_json::from_str(
            r#"[{"kind":"","remotePort":80},{"localPort":70000},"x",{"kind":"remote","localPort":80}]"#,
        )
        .unwrap();
        let known: Vec<bool> = all.iter().map(|one| matches!(one, SavedForward::Known(_))).collect();
        assert_eq!(known, [true, false, false, true]);
    }
}
