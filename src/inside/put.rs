//! The helper's place on a machine: found, filled, shown and emptied, by lines of `sh` over SSH.
//!
//! It lies in a folder that only its owner may read, under the SHA-256 of its program, which is compared with the
//! program itself before each use. There is no listener and no installation: what is put there is a file.
//!
//! The first place that takes a program is used. The second is for machines whose /var is read-only, full, or mounted
//! so that nothing in it can be run. A machine of the embedded platform has a folder of its own instead, because it
//! shares the others with this computer.
//!
//! An upload arrives beside its name and is renamed once it is whole, so two that upload at once do not meet. One that
//! is cut off removes its part; one that is killed leaves a part, which the next one sweeps after an hour.

use std::time::Duration;

use russh::ChannelMsg;
use tokio::time::timeout;

use super::program::Packed;
use crate::{
    error::{Error, Kind, Result, printable},
    ssh::{client::SshClient, marked::Marked},
};

/// The folders, in sh's words: each is one on a machine, the last the folder of an embedded machine.
const PLACES: &str = "if [ -n \"$LABCTL_SSH_PROXY_MACHINE\" ]; then set -- \"$LABCTL_SSH_PROXY_MACHINE/helper\"; \
                      else set -- /var/lib/labctl-ssh-proxy \"$HOME/.labctl-ssh-proxy\"; fi";
/// The number of [`PLACES`] on a machine.
const NUMBER: usize = 2;
/// Time limit for an upload, which has a megabyte at most.
const UPLOAD: Duration = Duration::from_secs(180);
/// Time limit for looking at the folders.
const LOOK: Duration = Duration::from_secs(20);
/// Number of bytes kept of what a machine says.
const MAX_WORDS: usize = 64 * 1024;

/// A helper that lies on a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lying {
    /// Its path there.
    pub path: String,
    /// The SHA-256 that its name says.
    pub sha256: String,
    /// Its size in bytes.
    pub size: u64,
    /// The time since its last use.
    pub unused_for: Duration,
}

/// Returns sh's words that become the helper with this hash, with `arguments`, and print `have` before. Where it is
/// missing or damaged they print `need`, and the system and processor that it is for.
pub(super) fn become_helper(sha256: &str, arguments: &str) -> String {
    format!(
        "{PLACES}; for d; do f=\"$d/helper-{sha256}\"; if [ -x \"$f\" ]; then h=$(sha256sum <\"$f\"); \
         if [ \"${{h%% *}}\" = {sha256} ]; then touch \"$f\"; echo have; exec \"$f\" {arguments}; fi; fi; done; \
         echo need $(uname -sm)"
    )
}

/// Returns sh's words that take a packed helper from their standard input. Each failure has an exit status.
fn take(packed: &Packed, place: usize) -> String {
    let (length, sha256) = (packed.gzip.len(), &packed.sha256);
    format!(
        "umask 077; {PLACES}; [ $# -ge {place} ] || exit 2; shift {skipped}; d=$1; t=\"$d/.helper-$$\"; \
         z() {{ rm -f \"$t\"; }}; trap z EXIT; trap \"exit 9\" HUP INT TERM PIPE; \
         mkdir -p \"$d\" && chmod 700 \"$d\" && : >\"$t\" || exit 3; \
         head -c {length} | gzip -dc >\"$t\" || exit 4; \
         h=$(sha256sum <\"$t\") || exit 7; [ \"${{h%% *}}\" = {sha256} ] || exit 5; \
         chmod 700 \"$t\"; \"$t\" </dev/null >/dev/null 2>&1; [ $? -ne 126 ] || exit 6; \
         mv -f \"$t\" \"$d/helper-{sha256}\" || exit 3; \
         find \"$d\" -name \"helper-*\" -mtime +7 -exec rm -f {{}} +; \
         find \"$d\" -name \".helper-*\" -mmin +60 -exec rm -f {{}} +; exit 0",
        skipped = place - 1
    )
}

/// Puts the helper on the machine.
///
/// # Errors
/// [`Kind::Program`] with the machine's words for it, where no place takes it.
pub(super) async fn put(client: &SshClient, packed: &Packed) -> Result<()> {
    let mut first = None;
    for place in 1..=NUMBER {
        let script = take(packed, place);
        let run = run(client, &script, &packed.gzip);
        let (status, _, said) = timeout(UPLOAD, run).await.map_err(|_| {
            let machine = &client.login().machine;
            let why = format!("machine {machine} has not taken the helper within {} s", UPLOAD.as_secs());
            Error::new(Kind::Network, why).with_hint("connect again")
        })??;
        match status {
            Some(0) => {
                log::info!("the helper has been put on machine {}", client.login().machine);
                return Ok(());
            }
            // It has no further place.
            Some(2) if first.is_some() => break,
            status => {
                let error = refused(client, status, &said);
                log::info!("{}", error.message());
                first = first.or(Some(error));
            }
        }
    }
    Err(first.unwrap_or_else(|| refused(client, None, "")))
}

/// The error of a machine on which the helper has no place.
fn refused(client: &SshClient, status: Option<u32>, said: &str) -> Error {
    let login = client.login();
    let says = if said.is_empty() { String::new() } else { format!(": {said}") };
    let why = match status {
        Some(5) => "it arrives damaged".to_owned(),
        Some(6) => "it may not run there: the file system is mounted with noexec".to_owned(),
        Some(7) => format!("it cannot be checked without sha256sum{says}"),
        Some(3 | 4) if said.contains("No space left") => format!("the disk is full{says}"),
        Some(3 | 4) if said.contains("Read-only") => format!("the file system is read-only{says}"),
        Some(3) => format!("its folder cannot be written{says}"),
        Some(4) => format!("it cannot be unpacked{says}"),
        Some(_) | None => format!("its shell ended{says}"),
    };
    let message = format!("the helper cannot be put on machine {} of playground {}: {why}", login.machine, login.play);
    let hint = match status {
        Some(3 | 4) if said.contains("No space left") => format!("make room: ssh {} df -h /var/lib", login.alias),
        Some(6) => format!("look at the mounts: ssh {} findmnt -T /var/lib", login.alias),
        _ => format!("run `labctl-ssh-proxy doctor {}` to check the machine", login.alias),
    };
    Error::new(Kind::Program, message).with_hint(hint)
}

/// Lists the helpers on the machine.
///
/// # Errors
/// Fails when the machine does not answer.
pub async fn lies(client: &SshClient) -> Result<Vec<Lying>> {
    let script = format!(
        "{PLACES}; n=$(date +%s); for d; do for f in \"$d\"/helper-*; do [ -f \"$f\" ] && \
         echo $(stat -c \"%s %Y\" \"$f\") $n \"$f\"; done; done; exit 0"
    );
    let (_, output, _) = look(client, &script).await?;
    Ok(output.lines().filter_map(lying).collect())
}

/// Reads a line of [`lies`]: size, time of use, the machine's time, path.
fn lying(line: &str) -> Option<Lying> {
    let mut words = line.splitn(4, ' ');
    let (size, used, now) = (words.next()?, words.next()?, words.next()?);
    let (used, now): (u64, u64) = (used.parse().ok()?, now.parse().ok()?);
    let path = printable(words.next()?);
    let sha256 = path.rsplit_once("/helper-")?.1.to_owned();
    Some(Lying { size: size.parse().ok()?, unused_for: Duration::from_secs(now.saturating_sub(used)), sha256, path })
}

/// Removes the helpers of every version from the machine, and their folders. Servers that run are not disturbed.
///
/// # Errors
/// [`Kind::Program`] with the machine's words when they cannot be removed.
pub async fn remove(client: &SshClient) -> Result<()> {
    let script = format!(
        "{PLACES}; r=0; for d; do [ -d \"$d\" ] || continue; rm -f \"$d\"/helper-* \"$d\"/.helper-* && \
         rmdir \"$d\" || r=1; done; exit $r"
    );
    let (status, _, said) = look(client, &script).await?;
    if status == Some(0) {
        return Ok(());
    }
    let login = client.login();
    let message =
        format!("the helpers on machine {} of playground {} cannot be removed: {said}", login.machine, login.play);
    Err(Error::new(Kind::Program, message))
}

async fn look(client: &SshClient, script: &str) -> Result<(Option<u32>, String, String)> {
    let late = |_| {
        let login = client.login();
        Error::new(Kind::Network, format!("machine {} does not answer within {} s", login.machine, LOOK.as_secs()))
    };
    timeout(LOOK, run(client, script, &[])).await.map_err(late)?
}

/// Runs a script with `input`. Returns its exit status, its output, and the last line of its complaints.
async fn run(client: &SshClient, script: &str, input: &[u8]) -> Result<(Option<u32>, String, String)> {
    let marked = Marked::new();
    let channel = client.exec(&marked.command(script)).await?;
    let (mut reader, writer) = channel.split();
    let (mut said, mut complaint) = (Vec::new(), Vec::new());
    let feed = async {
        // A script that has failed takes no more, and says why.
        let _ = writer.data_bytes(input.to_vec()).await;
        let _ = writer.eof().await;
        std::future::pending::<()>().await;
    };
    let read = async {
        while let Some(message) = reader.wait().await {
            let (kept, data) = match message {
                ChannelMsg::Data { data } => (&mut said, data),
                ChannelMsg::ExtendedData { data, .. } => (&mut complaint, data),
                _ => continue,
            };
            kept.extend(data.iter().take(MAX_WORDS.saturating_sub(kept.len())));
        }
    };
    tokio::select! {
        () = read => {}
        () = feed => {}
    }
    let complaint = super::last_line(&complaint);
    let Some(found) = marked.find(&said) else {
        return Err(crate::ssh::marked::not_run(&client.login().user, &complaint));
    };
    Ok((found.status, String::from_utf8_lossy(found.output).into_owned(), complaint))
}
