//! Finds or starts the relay of a machine, by our own SSH client. It takes one channel, and no connection of its own.
//!
//! # The right server
//! A relay connects to the SSH server whose address `SSH_CONNECTION` names in the environment of the placing session.
//! That address is checked twice, and neither check costs a connection, because OpenSSH penalizes a source that
//! connects without logging in (`PerSourcePenalties`), and everything that comes through a tunnel has the same source:
//!
//! - When a relay is placed, the kernel of the machine must have exactly this connection in its table. A server that
//!   knows no address, such as `sshd -i` behind a pipe, is left alone, and so is one that names another connection.
//! - In each session, the relay reads the host key in the first key exchange, which is not encrypted, and compares it
//!   with the one that our client has seen. A key of the same type that differs ends the session before it is passed
//!   on, and the relay begins no more. SSH itself checks the key in any case; this gives a reason in place of an alarm.
//!
//! # The script
//! It goes through standard input, because arguments are visible to other users. python3 starts isolated, so neither a
//! file in the home nor a variable changes what it imports.

use std::time::Duration;

use ring::digest::{SHA256, digest};
use russh::ChannelMsg;
use tokio::time::timeout;

use super::Relay;
use crate::{
    error::{Error, Kind, Result, printable},
    records::relays::{Known, bytes, hex},
    secrets,
    ssh::{client::SshClient, host_key::HostKeyBlob, marked::Marked},
};

/// The relay.
const SCRIPT: &str = include_str!("relay.py");
/// Its line for the host key.
const HOST_KEY: &str = "HOST_KEY = \"\"";
/// The command that runs it. The remark tells the machine's users what the process is.
const COMMAND: &str = "python3 -IS -c \"import sys;exec(sys.stdin.read()) # labctl-ssh-proxy relay\"";
/// The exit statuses of a shell that cannot run a program.
const NOT_RUN: [u32; 2] = [126, 127];
/// Time limit for an answer. An interpreter starts in less than a second.
const LIMIT: Duration = Duration::from_secs(10);
/// Number of bytes that a login shell may print before the answer.
const MAX_GREETING: usize = 64 * 1024;
/// Number of bytes that the answer may have.
const MAX_ANSWER: usize = 256;
/// Number of bytes kept of the machine's complaints.
const MAX_WORDS: usize = 4 * 1024;

/// The outcome on a machine that has answered.
#[derive(Clone, PartialEq, Eq)]
pub enum Placed {
    /// Its relay runs.
    Runs(Relay),
    /// It can have none, for this reason: a clause that follows "machine x keeps no sessions:".
    Refused(String),
}

/// Finds the relay of the machine and user that `client` is logged in to, or starts it.
///
/// # Errors
/// Fails when the machine does not answer in time.
pub async fn place(client: &SshClient) -> Result<Placed> {
    let late = |_| Error::new(Kind::Network, format!("the relay did not start within {} s", LIMIT.as_secs()));
    timeout(LIMIT, ask(client)).await.map_err(late)?
}

async fn ask(client: &SshClient) -> Result<Placed> {
    let marked = Marked::new();
    let mut channel = client.exec(&marked.becoming(COMMAND)).await?;
    channel.data_bytes(script(client.host_key())).await?;
    channel.eof().await?;
    let (mut said, mut complaint, mut status) = (Vec::new(), Vec::new(), None);
    while let Some(message) = channel.wait().await {
        match message {
            ChannelMsg::Data { data } => said.extend_from_slice(&data),
            // Bounded, because the machine may send an unlimited amount. The rest is discarded.
            ChannelMsg::ExtendedData { data, .. } => {
                complaint.extend(data.iter().take(MAX_WORDS.saturating_sub(complaint.len())));
            }
            ChannelMsg::ExitStatus { exit_status } => status = Some(exit_status),
            _ => {}
        }
        if let Some(answer) = marked.after_start(&said) {
            if answer.contains(&b'\n') || answer.len() > MAX_ANSWER {
                return Ok(understand(answer));
            }
        } else if said.len() > MAX_GREETING {
            break;
        }
    }
    let words = printable(&String::from_utf8_lossy(&complaint));
    Ok(Placed::Refused(match (marked.after_start(&said), status) {
        (None, _) => "its login shell does not run our command".to_owned(),
        (Some(_), Some(status)) if NOT_RUN.contains(&status) => "it has no python3 that runs".to_owned(),
        (Some(_), _) if words.is_empty() => "its python3 ended without an answer".to_owned(),
        (Some(_), _) => format!("its python3 fails: {words}"),
    }))
}

/// Returns the script for a server with this host key. Without its indentation in spaces and its remarks it fits into
/// the first flight of a connection.
fn script(host_key: Option<&HostKeyBlob>) -> Vec<u8> {
    let known = host_key
        .map_or_else(String::new, |key| format!("{} {}", key.algorithm(), hex(digest(&SHA256, key.blob()).as_ref())));
    let mut script = String::with_capacity(SCRIPT.len());
    for line in SCRIPT.replacen(HOST_KEY, &format!("HOST_KEY = \"{known}\""), 1).lines() {
        let code = line.trim_start_matches(' ');
        if !code.is_empty() && !code.starts_with('#') {
            script.extend(std::iter::repeat_n('\t', (line.len() - code.len()) / 4));
            script.push_str(code);
            script.push('\n');
        }
    }
    script.into_bytes()
}

/// Reads the answer: `LHR1`, two ports and a key, or `LHR0` and a reason.
fn understand(answer: &[u8]) -> Placed {
    let line = answer.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let line = String::from_utf8_lossy(&line[..line.len().min(MAX_ANSWER)]);
    if let Some(why) = line.strip_prefix("LHR0 ") {
        return Placed::Refused(printable(why));
    }
    let relay = || {
        let [_, new, resume, key] = line.split_whitespace().collect::<Vec<_>>().try_into().ok()?;
        let port = |text: &str| text.parse().ok().filter(|port| *port != 0);
        Some(Relay { new_port: port(new)?, resume_port: port(resume)?, key: bytes(key)? })
    };
    match relay().filter(|_| line.starts_with("LHR1 ")) {
        Some(relay) => {
            secrets::keep(&hex(&relay.key));
            Placed::Runs(relay)
        }
        None => Placed::Refused("something other than the relay answers".to_owned()),
    }
}

impl Relay {
    /// The record of this relay, on a boot that the platform describes so.
    pub fn known(&self, up_since: Option<String>) -> Known {
        Known { new_port: self.new_port, resume_port: self.resume_port, key: self.key, up_since }
    }
}

impl From<&Known> for Relay {
    fn from(known: &Known) -> Relay {
        Relay { new_port: known.new_port, resume_port: known.resume_port, key: known.key }
    }
}

#[cfg(test)]
mod tests {
    use super::{HOST_KEY, Placed, SCRIPT, script, understand};
    use crate::ssh::host_key::HostKeyBlob;

    #[test]
    fn only_a_whole_answer_is_a_relay() {
        let key = "ab".repeat(32);
        let placed = understand(format!("LHR1 40001 40002 {key}\r\nmore").as_bytes());
        assert!(matches!(placed, Placed::Runs(relay) if (relay.new_port, relay.resume_port) == (40001, 40002)));
        for wrong in [
            format!("LHR1 0 40002 {key}\n"),
            format!("LHR1 40001 40002 {}\n", &key[1..]),
            format!("LHR1 40001 70000 {key}\n"),
            format!("LHR1 40001 40002 {key} 1\n"),
            format!("LHR2 40001 40002 {key}\n"),
            "\u{fffd}".repeat(300),
        ] {
            let why = "something other than the relay answers";
            assert!(matches!(understand(wrong.as_bytes()), Placed::Refused(said) if said == why), "{wrong}");
        }
        let refused = understand(b"LHR0 cannot write /home/\x1b[31mu: Read-only file system\n");
        assert!(matches!(refused, Placed::Refused(why) if why.starts_with("cannot write") && !why.contains('\x1b')));
    }

    #[test]
    fn the_script_gets_the_host_key_and_fits_into_the_first_flight() {
        assert_eq!(SCRIPT.matches(HOST_KEY).count(), 1);
        let key = HostKeyBlob::from_wire(b"\0\0\0\x0bssh-ed25519\0\0\0\x01k").unwrap();
        let script = String::from_utf8(script(Some(&key))).unwrap();
        let line = script.lines().find(|line| line.starts_with("HOST_KEY")).unwrap();
        let hash = line.strip_prefix("HOST_KEY = \"ssh-ed25519 ").and_then(|rest| rest.split('"').next()).unwrap();
        assert_eq!(hash.len(), 64);
        assert!(script.len() < 24 * 1024, "{} bytes", script.len());
    }
}
