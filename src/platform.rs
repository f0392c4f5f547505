//! The choice between the two platforms: iximiuz Labs and the embedded one.

/// The platform that a command uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Platform {
    /// The real one, iximiuz Labs.
    Labs,
    /// The embedded one, on this computer.
    Local,
}

impl Platform {
    /// Both platforms.
    pub const ALL: [Platform; 2] = [Platform::Labs, Platform::Local];

    /// Returns `text` with our commands in it changed to the form that this platform needs.
    pub fn commands(self, text: &str) -> String {
        match self {
            Platform::Labs => text.to_owned(),
            Platform::Local => text
                .replace("`labctl-ssh-proxy ", "`labctl-ssh-proxy --local ")
                .replace("`labctl-ssh-proxy --local local ", "`labctl-ssh-proxy local "),
        }
    }
}

/// Returns true if `text` is the id of a play: `^[0-9a-f]{24}$`.
pub fn is_id(text: &str) -> bool {
    text.len() == 24 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}
