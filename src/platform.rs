//! Which platform a command speaks to: iximiuz Labs, or the embedded one.

/// Which platform a command speaks to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Platform {
    /// The real one.
    Labs,
    /// The embedded one, for one machine.
    Local,
}

impl Platform {
    /// Both.
    pub const ALL: [Platform; 2] = [Platform::Labs, Platform::Local];

    /// Text that names commands of ours, with these as they are to be typed for this platform.
    pub fn commands(self, text: &str) -> String {
        match self {
            Platform::Labs => text.to_owned(),
            Platform::Local => text
                .replace("`labctl-ssh-proxy ", "`labctl-ssh-proxy --local ")
                .replace("`labctl-ssh-proxy --local local ", "`labctl-ssh-proxy local "),
        }
    }
}

/// Whether `text` is the id of a play: `^[0-9a-f]{24}$`.
pub fn is_id(text: &str) -> bool {
    text.len() == 24 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}
