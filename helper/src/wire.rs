//! The words between `connect` and the helper. Both sides are of one build, so no version is negotiated.
//!
//! `helper enter` reads one [`Request`] and answers with one [`Reply`], each a frame: its length (u32, big-endian), then
//! JSON. What follows in both directions is SSH, with the server in the container. `helper list` writes a [`Listing`]
//! and ends.

use serde::{Deserialize, Serialize};

/// Longest frame, in bytes. A list of a thousand containers has about 200 KiB.
pub const MAX_FRAME: usize = 1024 * 1024;

/// The identification of the SSH server in a container, and in an embedded machine. It names no version, so that a client
/// that was told it early is right.
pub const IDENTIFICATION: &str = "SSH-2.0-labctl-ssh-proxy";

/// The user that the container itself runs as, when a client names this one.
pub const CONTAINER_USER: &str = "container";

/// A container to enter.
#[derive(Clone, Deserialize, Serialize)]
pub struct Request {
    /// The label of the host name: a container's name as a label, or the first digits of its id.
    pub container: String,
    /// The user inside: [`CONTAINER_USER`], a name or a number.
    pub user: String,
    /// The seed of the ed25519 host key, in hexadecimal digits: 32 bytes. Secret.
    pub host_key: String,
}

/// The answer to a [`Request`].
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// The server has been started.
    Entered(Container),
    /// The container cannot be entered.
    Refused(Refusal),
}

/// A container, as its engine describes it. All its texts are foreign.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Container {
    /// The engine's id.
    pub id: String,
    /// The name, without the slash that Docker puts in front.
    pub name: String,
    /// The label by which a host name means it.
    pub label: String,
    /// The image.
    pub image: String,
    /// The engine's word: `running`, `exited`, `paused`.
    pub state: String,
    /// The engine's sentence about it: `Exited (137) 3 minutes ago`.
    pub status: String,
}

/// The reason why a container cannot be entered.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct Refusal {
    /// The kind, which decides the exit code.
    pub kind: RefusalKind,
    /// One sentence, which does not name the playground.
    pub message: String,
    /// The thing to do now. `{machine}` stands for the machine's host name.
    pub hint: Option<String>,
}

/// The kind of a [`Refusal`].
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RefusalKind {
    /// The machine has no such container.
    NotFound,
    /// Several containers fit.
    Ambiguous,
    /// The container does not run.
    NotRunning,
    /// It runs in a way that cannot be entered, or the machine does not permit it.
    Impossible,
    /// The machine lacks a program, or one does not answer.
    Program,
}

/// The containers of a machine.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
pub struct Listing {
    /// All of them, those that do not run, too.
    pub containers: Vec<Container>,
}
