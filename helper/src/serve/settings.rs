//! The words from `enter` to `serve`. They pass through a pipe, because an environment and a command line can be read.

use serde::{Deserialize, Serialize};

/// The descriptor of the pipe with these settings, as JSON until its end.
pub(super) const DESCRIPTOR: i32 = 4;

/// The descriptor of the tools, where there are any.
pub(super) const TOOLS: i32 = 5;

/// The words that the server in the container needs.
#[derive(Clone, Deserialize, Serialize)]
pub struct Settings {
    /// The container's name, for log lines and errors.
    pub container: String,
    /// The user as the client named it: `container`, a name or a number. The process runs as that user already.
    pub user: String,
    /// The folder in which sessions start. None: the user's home folder.
    pub directory: Option<String>,
    /// The folder of programs in the tools, if the server is given any.
    pub tools: Option<String>,
    /// The reason why it is given none. Empty where none are needed.
    pub lacking: String,
    /// The seed of the ed25519 host key, in hexadecimal digits: 32 bytes. Secret.
    pub host_key: String,
}
