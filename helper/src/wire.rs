//! The words between `connect` and the helper. Both sides are of one build, so no version is negotiated.
//!
//! `helper enter` reads one [`Request`] and answers with a [`Reply`], each a frame: its length (u32, big-endian), then
//! JSON. What follows in both directions is SSH, with the server in the container. `helper list` writes a [`Listing`]
//! and ends, and `helper watch` writes one at each change.

use std::{
    fmt,
    io::{self, Read},
    str::FromStr,
    time::Duration,
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// Longest frame, in bytes. A list of a thousand containers has about 200 KiB.
pub const MAX_FRAME: usize = 1024 * 1024;

/// Longest time without a line of `helper watch`: an empty one then says that it lives.
pub const SIGN_OF_LIFE: Duration = Duration::from_secs(5);

/// The identification of the SSH server in a container, and in an embedded machine. It names no version, so that a client
/// that was told it early is right.
pub const IDENTIFICATION: &str = "SSH-2.0-labctl-ssh-proxy";

/// The time that something may take which [`Reply::Waiting`] has told of, in seconds: to pull an image.
pub const WAITING_LIMIT: u64 = 180;

/// The user that the container itself runs as, when a client names this one.
pub const CONTAINER_USER: &str = "container";

/// The frame of `message`.
///
/// # Errors
/// Fails when it is longer than [`MAX_FRAME`].
pub fn frame(message: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut frame = vec![0; 4];
    serde_json::to_writer(&mut frame, message)?;
    let length = frame.len() - 4;
    if length > MAX_FRAME {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the frame is too long"));
    }
    let length = u32::try_from(length).map_err(io::Error::other)?;
    frame[..4].copy_from_slice(&length.to_be_bytes());
    Ok(frame)
}

/// Reads one frame and not a byte more.
///
/// # Errors
/// Fails when it is too long, ends early or is no `T`.
pub fn read<T: DeserializeOwned>(from: &mut impl Read) -> io::Result<T> {
    let mut length = [0; 4];
    from.read_exact(&mut length)?;
    let length = usize::try_from(u32::from_be_bytes(length)).map_err(io::Error::other)?;
    if length > MAX_FRAME {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the frame is too long"));
    }
    let mut json = vec![0; length];
    from.read_exact(&mut json)?;
    Ok(serde_json::from_slice(&json)?)
}

/// A container to enter.
#[derive(Clone, Deserialize, Serialize)]
pub struct Request {
    /// The label of the host name: a container's name as a label, or the first digits of its id.
    pub container: String,
    /// The user inside: [`CONTAINER_USER`], a name or a number.
    pub user: String,
    /// The seed of the ed25519 host key, in hexadecimal digits: 32 bytes. Secret.
    pub host_key: String,
    /// The programs to bring along.
    #[serde(default)]
    pub tools: Tools,
    /// The choice of the machine's programs beside the container's own files.
    #[serde(default)]
    pub view: View,
}

/// A view of a container in which its own files lie beside the machine's programs, as editors need it.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum View {
    /// None: the container as it is.
    #[default]
    Never,
    /// For a container with neither bash nor a C library, if the machine can make one.
    Auto,
    /// For a container without a C library. The reason is said if it gets none.
    Always,
}

/// The programs that are brought into a container, in a file system of their own that can only be read.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Tools {
    /// The machine's, where the container lacks `sh` or `bash`.
    #[default]
    Auto,
    /// The machine's, in every container.
    Always,
    /// None.
    None,
    /// Those of a folder of the machine. Its `bin` comes into PATH.
    Folder(String),
    /// Those of an image, which the machine's engine pulls where it has none.
    Image(String),
}

impl FromStr for Tools {
    type Err = String;

    /// `auto`, `always` and `none` are words, what begins with `/` is a folder, and the rest is an image.
    fn from_str(text: &str) -> Result<Tools, String> {
        match text {
            "" => Err("an empty name".to_owned()),
            "auto" => Ok(Tools::Auto),
            "always" => Ok(Tools::Always),
            "none" => Ok(Tools::None),
            _ if text.chars().any(char::is_control) => Err("a name with a control character".to_owned()),
            folder if folder.starts_with('/') => Ok(Tools::Folder(folder.to_owned())),
            image if image.starts_with('-') => Err("an image's name begins with a letter or a digit".to_owned()),
            image => Ok(Tools::Image(image.to_owned())),
        }
    }
}

impl fmt::Display for Tools {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Tools::Auto => "auto",
            Tools::Always => "always",
            Tools::None => "none",
            Tools::Folder(text) | Tools::Image(text) => text,
        })
    }
}

impl FromStr for View {
    type Err = String;

    fn from_str(text: &str) -> Result<View, String> {
        match text {
            "never" => Ok(View::Never),
            "auto" => Ok(View::Auto),
            "always" => Ok(View::Always),
            _ => Err("it is `auto`, `always` or `never`".to_owned()),
        }
    }
}

/// The answer to a [`Request`]: any number of [`Reply::Waiting`] and [`Reply::Note`], and one other.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// The server has been started.
    Entered(Container),
    /// The container cannot be entered.
    Refused(Refusal),
    /// Something takes long, for which there are [`WAITING_LIMIT`] seconds: `pulling image busybox:musl on the machine`.
    Waiting(String),
    /// A sentence for the user. The work goes on.
    Note(String),
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
    /// The engine that keeps it: `docker`, `podman`, `containerd` or `cri-o`.
    pub engine: String,
    /// The pod that it belongs to, where Kubernetes made it.
    pub pod: Option<Pod>,
    /// Its ports, as far as the engine says: those that it publishes on the machine, and those that its image names.
    pub ports: Vec<Port>,
}

/// A pod of Kubernetes.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
pub struct Pod {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// A port of a container.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Port {
    /// The port in the container.
    pub container: u16,
    /// `tcp`, `udp` or `sctp`.
    pub protocol: String,
    /// The address of the machine on which it is published. Empty where it is not.
    pub address: String,
    /// The port of the machine on which it is published.
    pub machine: Option<u16>,
}

impl Container {
    /// The part of its status that does not age: `(137)` of `Exited (137) 3 minutes ago`, `(healthy)` of
    /// `Up 2 hours (healthy)`.
    pub fn lasting_status(&self) -> &str {
        let status = self.status.as_str();
        status.find('(').zip(status.rfind(')')).and_then(|(from, to)| status.get(from..=to)).unwrap_or_default()
    }

    /// Its name in a command line that is to be copied into a shell: a name with other characters than Docker permits
    /// would not be safe there.
    pub fn to_copy(&self) -> &str {
        if self.pod.is_some() {
            // crictl knows ids only.
            let digits = self.id.get(..13).filter(|id| id.bytes().all(|b| b.is_ascii_hexdigit()));
            return digits.unwrap_or(&self.label);
        }
        let is_safe = self.name.starts_with(|first: char| first.is_ascii_alphanumeric())
            && self.name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'));
        if is_safe { &self.name } else { &self.label }
    }

    /// The program that its user has for its engine.
    pub fn client(&self) -> &'static str {
        match self.engine.as_str() {
            "podman" => "podman",
            "containerd" if self.pod.is_none() => "nerdctl",
            "containerd" | "cri-o" => "crictl",
            _ => "docker",
        }
    }

    /// True if its engine still lists it when it does not run, so that one that it does not list has been removed.
    pub fn is_listed_stopped(&self) -> bool {
        matches!(self.client(), "docker" | "podman")
    }

    /// The beginning of the host name by which that program finds the container: only Docker's asks for no root.
    pub fn user_of_client(&self) -> &'static str {
        if self.client() == "docker" { "" } else { "root@" }
    }
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

impl Refusal {
    /// A refusal without a hint.
    pub fn new(kind: RefusalKind, message: impl Into<String>) -> Refusal {
        Refusal { kind, message: message.into(), hint: None }
    }

    /// The same one, with a hint.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Refusal {
        self.hint = Some(hint.into());
        self
    }
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
    /// The machine has no engine, and so no container.
    NoEngine,
}

/// The containers of a machine.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
pub struct Listing {
    /// All of them, those that do not run, too.
    pub containers: Vec<Container>,
    /// The reason why they are not known at this moment. `helper watch` goes on after it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<Refusal>,
}
