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

/// A helper, or a folder of tools, that lies on a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lying {
    /// Its path there.
    pub path: String,
    /// The SHA-256 that a helper's name says. Empty for tools.
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
         find \"$d\" -maxdepth 1 -name \"helper-*\" -mtime +7 -exec rm -f {{}} +; \
         find \"$d\" -maxdepth 1 -name \".helper-*\" -mmin +60 -exec rm -f {{}} +; exit 0",
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
            let subject = client.login().whose().subject();
            let why = format!("{subject} has not taken the helper within {} s", UPLOAD.as_secs());
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
    let message = format!("the helper cannot be put on machine {} of playground {}: {why}", login.machine, login.shown);
    let hint = match status {
        Some(3 | 4) if said.contains("No space left") => {
            format!("make room; `labctl-ssh-proxy ssh {} df -h` shows where", login.alias)
        }
        Some(6) => format!("look at its mounts with `labctl-ssh-proxy ssh {} findmnt`", login.alias),
        _ => format!("run `labctl-ssh-proxy doctor {}` to check the machine", login.alias),
    };
    Error::new(Kind::Program, message).with_hint(hint)
}

/// Lists the helpers on the machine, and the tools.
///
/// # Errors
/// Fails when the machine does not answer.
pub async fn lies(client: &SshClient) -> Result<Vec<Lying>> {
    let script = format!(
        "{PLACES}; n=$(date +%s); for d; do for f in \"$d\"/helper-*; do [ -f \"$f\" ] && \
         echo $(stat -c \"%s %Y\" \"$f\") $n \"$f\"; done; for t in \"$d\"/tools-*; do [ -d \"$t\" ] && \
         echo $(($(du -sk \"$t\" | cut -f 1) * 1024)) $(stat -c %Y \"$t\") $n \"$t\"; done; done; exit 0"
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
    let (_, name) = path.rsplit_once('/')?;
    let sha256 = match name.strip_prefix("helper-") {
        Some(sha256) => sha256.to_owned(),
        None => name.starts_with("tools-").then(String::new)?,
    };
    Some(Lying { size: size.parse().ok()?, unused_for: Duration::from_secs(now.saturating_sub(used)), sha256, path })
}

/// Removes the helpers of every version and the tools from the machine, and their folders. Servers that run are not
/// disturbed: tools that one of them has stay, and so does the helper then.
///
/// # Errors
/// [`Kind::Program`] with the machine's words when they cannot be removed, or are in use.
pub async fn remove(client: &SshClient) -> Result<()> {
    let (status, _, said) = look(client, &empty()).await?;
    if status == Some(0) {
        return Ok(());
    }
    let login = client.login();
    let message =
        format!("the helpers on machine {} of playground {} cannot be removed: {said}", login.machine, login.shown);
    Err(Error::new(Kind::Program, message))
}

/// Returns sh's words that empty the folders. Tools in use are locked by the helper that lends them (`flock`). A view
/// whose folder is gone goes on for its sessions, and takes no other.
fn empty() -> String {
    format!(
        "{PLACES}; r=0; command -v flock >/dev/null || flock() {{ shift 2; \"$@\"; }}; \
         for d; do [ -d \"$d\" ] || continue; for t in \"$d\"/tools-* \"$d\"/.tools-*; do [ -d \"$t\" ] || continue; \
         flock -n \"$t\" rm -rf \"$t\" || {{ echo \"a session has the tools in $t\" >&2; r=1; continue 2; }}; done; \
         rm -rf \"$d\"/views; rm -f \"$d\"/helper-* \"$d\"/.helper-* && rmdir \"$d\" || r=1; done; exit $r"
    )
}

async fn look(client: &SshClient, script: &str) -> Result<(Option<u32>, String, String)> {
    let late = |_| {
        let subject = client.login().whose().subject();
        Error::new(Kind::Network, format!("{subject} does not answer within {} s", LOOK.as_secs()))
    };
    timeout(LOOK, run(client, script, &[])).await.map_err(late)?
}

/// Runs a script with `input`. Returns its exit status, its output, and the last line of its complaints.
async fn run(client: &SshClient, script: &str, input: &[u8]) -> Result<(Option<u32>, String, String)> {
    let marked = Marked::new();
    let channel = client.exec(&marked.command(script)).await?;
    let (mut reader, writer) = channel.split();
    let (mut said, mut complaint, mut is_over) = (Vec::new(), Vec::new(), false);
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
                ChannelMsg::Eof | ChannelMsg::Close => {
                    is_over = true;
                    continue;
                }
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
    if !is_over {
        return Err(super::lost(client.login()));
    }
    let Some(found) = marked.find(&said) else {
        return Err(crate::ssh::marked::not_run(&super::root_of(client.login()), &complaint));
    };
    Ok((found.status, String::from_utf8_lossy(found.output).into_owned(), complaint))
}

#[cfg(all(test, unix))]
mod tests {
    use std::{
        borrow::Cow,
        fs,
        io::Write,
        os::unix::fs::PermissionsExt,
        path::Path,
        process::{Command, Output, Stdio},
        time::Duration,
    };

    use super::{become_helper, empty, lying, take};
    use crate::{inside::program::Packed, records::relays::hex, ssh::marked::Marked};

    /// Stands in for the helper: it says with which words it was run, and passes its input on.
    const PROGRAM: &[u8] = b"#!/bin/sh\n[ $# = 0 ] || echo \"helper $*\"\nexec cat\n";

    fn packed() -> Packed {
        let mut gzip = Command::new("gzip").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        gzip.stdin.take().unwrap().write_all(PROGRAM).unwrap();
        let sha256 = hex(ring::digest::digest(&ring::digest::SHA256, PROGRAM).as_ref());
        Packed { gzip: Cow::Owned(gzip.wait_with_output().unwrap().stdout), sha256 }
    }

    /// Runs a command as a machine's sshd would, with this shell as `sh`, on an embedded machine with this folder.
    fn run(shell: &str, machine: &Path, command: &str, input: &[u8]) -> Output {
        let command = command.strip_prefix("/bin/sh -c '").and_then(|rest| rest.strip_suffix("'")).unwrap();
        let words: Vec<&str> = shell.split(' ').chain(["-c", command]).collect();
        let mut child = Command::new(words[0])
            .args(&words[1..])
            .env("LABCTL_SSH_PROXY_MACHINE", machine)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // One that takes no input may be gone.
        let _ = child.stdin.take().unwrap().write_all(input);
        child.wait_with_output().unwrap()
    }

    fn put(shell: &str, machine: &Path, packed: &Packed, input: &[u8]) -> (Option<u32>, String) {
        let marked = Marked::new();
        let out = run(shell, machine, &marked.command(&take(packed, 1)), input);
        (marked.find(&out.stdout).and_then(|found| found.status), String::from_utf8_lossy(&out.stderr).into_owned())
    }

    fn shells() -> Vec<&'static str> {
        let is_there = |shell: &&str| which::which(shell.split(' ').next().unwrap()).is_ok();
        ["sh", "bash", "dash", "zsh", "busybox sh"].into_iter().filter(is_there).collect()
    }

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).map(|entries| entries.map(|entry| entry.unwrap()).collect::<Vec<_>>());
        entries.unwrap_or_default().iter().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn the_helper_is_put_once_and_becomes_what_runs() {
        for shell in shells() {
            let machine = tempfile::tempdir().unwrap();
            let (folder, packed) = (machine.path().join("helper"), packed());
            let marked = Marked::new();
            let enter = marked.ending_in(&become_helper(&packed.sha256, "enter"));
            let said = |input: &[u8]| {
                let out = run(shell, machine.path(), &enter, input);
                String::from_utf8_lossy(marked.after_start(&out.stdout).unwrap()).into_owned()
            };
            assert!(said(b"").starts_with("need "), "{shell}");
            assert_eq!(put(shell, machine.path(), &packed, &packed.gzip), (Some(0), String::new()), "{shell}");
            assert_eq!(said(b"words"), "have\nhelper enter\nwords", "{shell}");
            let file = folder.join(format!("helper-{}", packed.sha256));
            assert_eq!(names(&folder), [file.file_name().unwrap().to_string_lossy()], "{shell}");
            let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
            assert_eq!((mode(&folder), mode(&file)), (0o700, 0o700), "{shell}");
            // Damaged on its disk: not run, but replaced.
            fs::write(&file, "#!/bin/sh\necho bad\n").unwrap();
            assert!(said(b"words").starts_with("need "), "{shell}");
            assert_eq!(put(shell, machine.path(), &packed, &packed.gzip).0, Some(0), "{shell}");
            assert_eq!(said(b""), "have\nhelper enter\n", "{shell}");
        }
    }

    #[test]
    fn an_upload_that_fails_says_why_and_leaves_nothing() {
        for shell in shells() {
            let machine = tempfile::tempdir().unwrap();
            let (folder, packed) = (machine.path().join("helper"), packed());
            let cut = put(shell, machine.path(), &packed, &packed.gzip[..packed.gzip.len() / 2]);
            assert!(cut.0 == Some(4) && cut.1.contains("unexpected end"), "{shell}: {cut:?}");
            let other = Packed { sha256: "0".repeat(64), gzip: packed.gzip.clone() };
            assert_eq!(put(shell, machine.path(), &other, &packed.gzip).0, Some(5), "{shell}");
            assert_eq!(names(&folder), Vec::<String>::new(), "{shell}");
            fs::remove_dir(&folder).unwrap();
            fs::write(&folder, "in the way").unwrap();
            let barred = put(shell, machine.path(), &packed, &packed.gzip);
            assert!(barred.0 == Some(3) && !barred.1.is_empty(), "{shell}: {barred:?}");
        }
    }

    /// A machine of the platform has a second place, and an embedded one has not.
    #[test]
    fn an_embedded_machine_has_one_place() {
        let machine = tempfile::tempdir().unwrap();
        let marked = Marked::new();
        let out = run("sh", machine.path(), &marked.command(&take(&packed(), 2)), b"");
        assert_eq!(marked.find(&out.stdout).and_then(|found| found.status), Some(2));
        assert_eq!(names(machine.path()), Vec::<String>::new());
    }

    #[test]
    fn what_was_not_used_for_a_week_goes_with_the_next_upload() {
        let machine = tempfile::tempdir().unwrap();
        let (folder, packed) = (machine.path().join("helper"), packed());
        fs::create_dir(&folder).unwrap();
        let aged = |name: &str, days: u64| {
            let file = fs::File::create(folder.join(name)).unwrap();
            file.set_modified(std::time::SystemTime::now() - Duration::from_secs(days * 24 * 60 * 60)).unwrap();
        };
        for (name, days) in [("helper-old", 9), ("helper-newer", 6), (".helper-1", 1), (".helper-2", 0), ("notes", 30)]
        {
            aged(name, days);
        }
        // A file of an image's, which lies deeper.
        fs::create_dir(folder.join("tools-1")).unwrap();
        aged("tools-1/helper-deep", 30);
        assert_eq!(put("sh", machine.path(), &packed, &packed.gzip).0, Some(0));
        assert!(folder.join("tools-1/helper-deep").exists());
        fs::remove_dir_all(folder.join("tools-1")).unwrap();
        let mut left = names(&folder);
        left.sort();
        let this = format!("helper-{}", packed.sha256);
        let mut expected = [".helper-2", &this, "helper-newer", "notes"].map(str::to_owned);
        expected.sort();
        assert_eq!(left, expected);
    }

    #[test]
    fn tools_go_with_the_helpers_unless_they_are_in_use() {
        // zsh is no machine's sh, and takes no pattern that fits nothing.
        for shell in shells().into_iter().filter(|shell| *shell != "zsh") {
            let machine = tempfile::tempdir().unwrap();
            let (folder, marked) = (machine.path().join("helper"), Marked::new());
            let remove = || run(shell, machine.path(), &marked.command(&empty()), b"");
            for name in ["tools-a/bin", "tools-b", ".tools-1"] {
                fs::create_dir_all(folder.join(name)).unwrap();
            }
            fs::write(folder.join("helper-c"), "").unwrap();
            let in_use = fs::File::open(folder.join("tools-b")).unwrap();
            in_use.lock_shared().unwrap();
            let out = remove();
            assert_eq!(marked.find(&out.stdout).unwrap().status, Some(1), "{shell}");
            assert!(String::from_utf8_lossy(&out.stderr).contains("a session has the tools in"), "{shell}: {out:?}");
            assert!(folder.join("tools-b").exists() && folder.join("helper-c").exists(), "{shell}");
            drop(in_use);
            assert_eq!(marked.find(&remove().stdout).unwrap().status, Some(0), "{shell}");
            assert!(!folder.exists(), "{shell}");
        }
    }

    #[test]
    fn a_line_about_a_helper_is_read_and_no_other() {
        let found = lying("1024 100 160 /var/lib/labctl-ssh-proxy/helper-abc").unwrap();
        assert_eq!((found.size, found.unused_for.as_secs(), &found.sha256[..]), (1024, 60, "abc"));
        assert_eq!(lying("2048 100 160 /var/lib/labctl-ssh-proxy/tools-abc").unwrap().sha256, "");
        for other in ["", "1 2 3", "x 2 3 /helper-a", "1 2 3 /other", "100 160 /a/helper-b c"] {
            assert_eq!(lying(other), None, "{other}");
        }
    }
}
