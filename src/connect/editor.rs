//! The clients that bring an editor's server along, which needs bash and a C library where it runs.
//!
//! An SSH library of an editor says in its first line what it is. OpenSSH does not, so its command line is looked at:
//! VS Code and its relatives run `ssh -T -D PORT HOST bash` and write a script to that. A script of one's own has no forward.

use std::ffi::OsString;

use crate::{connect::client::ClientKind, os};

/// The SSH library of VS Code's relatives, as its first line names it.
const SSH2: &str = "SSH-2.0-ssh2js";

/// The options of OpenSSH's ssh that have a value.
const WITH_VALUE: &str = "BbcDEeFIiJLlmOoPpQRSWw";

/// Reports whether the client with this first line is an editor.
pub(super) fn is_one(line: Option<&str>) -> bool {
    match ClientKind::of(line) {
        ClientKind::Sshj => true,
        ClientKind::OpenSsh => os::arguments_of_ssh().is_some_and(|arguments| wants_bash(&arguments)),
        ClientKind::Other => line.is_some_and(|line| line.starts_with(SSH2)),
    }
}

/// Reports whether an ssh gives a script to a bash, or only `sh`, as editors do: without a terminal, and with a forward for
/// the editor.
fn wants_bash(arguments: &[OsString]) -> bool {
    let (mut has_no_terminal, mut has_forward, mut host) = (false, false, false);
    let mut rest = arguments.iter().skip(1);
    while let Some(word) = rest.next() {
        let Some(options) = word.to_str().and_then(|word| word.strip_prefix('-')).filter(|it| !it.is_empty()) else {
            if host {
                // It may be one word with all of the command in it.
                let mut words = word.to_str().into_iter().flat_map(|word| word.split(' '));
                let has_more = words.clone().nth(1).is_some() || rest.next().is_some();
                let is_shell = match words.next() {
                    Some("bash") => true,
                    Some("sh") => !has_more,
                    _ => false,
                };
                return is_shell && has_no_terminal && has_forward;
            }
            host = true;
            continue;
        };
        for (at, option) in options.char_indices() {
            has_no_terminal |= option == 'T';
            has_forward |= matches!(option, 'D' | 'L');
            if WITH_VALUE.contains(option) {
                if at + option.len_utf8() == options.len() {
                    rest.next();
                }
                break;
            }
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_editor_is_told_by_its_command_line() {
        let wants = |line: &str| wants_bash(&line.split(' ').map(OsString::from).collect::<Vec<_>>());
        for line in [
            "ssh -v -T -D 51234 -o ConnectTimeout=15 playground-docker.docker-01.web bash",
            "ssh -T -D 51234 -o ConnectTimeout=15 -F /home/a/config host bash --login -c bash",
            "C:\\ssh.exe -T -D 51234 host sh",
            "ssh host -vT -L 1:localhost:2 -p22 bash",
        ] {
            assert!(wants(line), "{line}");
        }
        for line in [
            "ssh",
            "ssh host",
            "ssh -T host",
            "ssh -T host bash",
            "ssh host bash",
            "ssh -t host bash",
            "ssh -T host sh",
            "ssh -T -D 1 host sh -c true",
            "ssh -T host /bin/bash",
            "ssh -o T host bash",
            "ssh -l -T host bash",
            "ssh -T -W a:1 bash",
            "sftp -T host 'bash'",
        ] {
            assert!(!wants(line), "{line}");
        }
    }

    #[test]
    fn an_editor_is_told_by_its_library() {
        assert!(is_one(Some("SSH-2.0-ssh2js1.16.0")) && is_one(Some("SSH-2.0-SSHJ_0.38.0")));
        assert!(!is_one(Some("SSH-2.0-paramiko_3.4.0")) && !is_one(None));
        // No ssh has started the tests.
        assert!(!is_one(Some("SSH-2.0-OpenSSH_9.2")));
    }
}
