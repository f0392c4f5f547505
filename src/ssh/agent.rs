//! The user's ssh agent, and an agent of our own: `ssh-agent` and `ssh-add` ask for a passphrase as ssh does, in the
//! terminal or by SSH_ASKPASS.

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use russh::keys::{
    PublicKey,
    agent::{
        AgentIdentity,
        client::{AgentClient, AgentStream},
    },
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    process::{Child, Command},
    time::timeout,
};

use crate::{error::printable, files::TemporaryFolder, os, ui::input};

/// A connection to an agent.
pub(crate) type Agent = AgentClient<Box<dyn AgentStream + Send + Unpin>>;

/// Time limit for an agent to list its keys, which it has in memory.
const ANSWER: Duration = Duration::from_secs(5);

/// Connects to the agent that listens on `socket`.
///
/// # Errors
/// Fails with the reason.
pub(crate) async fn connect(socket: &Path) -> Result<Agent, String> {
    let failed = |why: &dyn std::fmt::Display| format!("the agent at {} {why}", socket.display());
    match timeout(ANSWER, os::connect_locally(socket)).await {
        Ok(Ok(stream)) => Ok(AgentClient::connect(stream).dynamic()),
        Ok(Err(e)) => Err(failed(&format!("cannot be reached: {e}"))),
        Err(_elapsed) => Err(failed(&"does not answer")),
    }
}

/// Returns the public keys that the agent has, and the keys in its certificates.
///
/// # Errors
/// Fails with the reason.
pub(crate) async fn keys(socket: &Path) -> Result<Vec<PublicKey>, String> {
    let mut agent = connect(socket).await?;
    let public = |identity| match identity {
        AgentIdentity::PublicKey { key, .. } => key,
        AgentIdentity::Certificate { certificate, .. } => PublicKey::new(certificate.public_key().clone(), ""),
    };
    match timeout(ANSWER, agent.request_identities()).await {
        Ok(Ok(all)) => Ok(all.into_iter().map(public).collect()),
        Ok(Err(e)) => Err(format!("the agent at {} does not list its keys: {e}", socket.display())),
        Err(_elapsed) => Err(format!("the agent at {} does not answer", socket.display())),
    }
}

/// Gives a key to the agent that listens on `socket`. ssh-add asks for the passphrase.
///
/// # Errors
/// Fails with ssh-add's words.
pub(crate) async fn add(socket: &Path, key: &Path) -> Result<(), String> {
    // ssh-add asks on the terminal only if its input is one. Otherwise it runs SSH_ASKPASS.
    let terminal = File::open("/dev/tty").ok().filter(|_| input::is_allowed());
    let mut command = Command::new("ssh-add");
    command.arg("-q").arg(key).env("SSH_AUTH_SOCK", socket).kill_on_drop(true);
    command.stdin(terminal.map_or_else(Stdio::null, Stdio::from));
    if !input::is_allowed() {
        command.env("SSH_ASKPASS_REQUIRE", "never");
    }
    let output = command.output().await.map_err(|e| format!("cannot run ssh-add: {e}"))?;
    if output.status.success() {
        return Ok(());
    }
    let words = printable(&String::from_utf8_lossy(&output.stderr));
    Err(if words.is_empty() { "no passphrase, or a wrong one, was given".into() } else { words })
}

/// An agent with one key, which ends with this value.
pub(crate) struct OwnAgent {
    socket: PathBuf,
    _holder: Child,
    _folder: TemporaryFolder,
}

impl OwnAgent {
    /// Starts an agent and gives it the key in the file `key`.
    ///
    /// # Errors
    /// Fails with the reason.
    pub(crate) async fn with(key: &Path) -> Result<OwnAgent, String> {
        let failed = |e: std::io::Error| format!("cannot start an ssh-agent for it: {e}");
        let folder = TemporaryFolder::make(&std::env::temp_dir()).map_err(failed)?;
        let socket = folder.path().join("agent");
        // `cat` ends when we drop its input, even if we are killed, and takes the agent with it.
        let mut holder = Command::new("ssh-agent")
            .arg("-a")
            .arg(&socket)
            .args(["sh", "-c", "cat; kill $SSH_AGENT_PID"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(failed)?;
        // The socket is there before `cat` starts.
        let answers = async {
            let (Some(input), Some(output)) = (&mut holder.stdin, &mut holder.stdout) else { return false };
            input.write_all(b".").await.is_ok() && output.read_u8().await.is_ok()
        };
        if !timeout(ANSWER, answers).await.unwrap_or(false) {
            return Err("cannot start an ssh-agent for it".into());
        }
        add(&socket, key).await?;
        Ok(OwnAgent { socket, _holder: holder, _folder: folder })
    }

    /// Returns the path of its socket.
    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }
}
