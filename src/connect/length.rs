//! The length of a session, foretold from ssh's own command line. Pure.
//!
//! A long session is worth a moment at its start, so that it survives what comes. A short one never waits: neither does
//! one of which nothing is known. It is looked at again once it has lasted (`connect/relay`).

use super::client::ClientKind;
use crate::ssh::options::{self, TAKES_ARGUMENT};

/// Returns true for a session that is meant to last: a shell, one with a terminal, one that only forwards ports, or the
/// master of others. `arguments` are ssh's, the program's name first.
pub(super) fn is_long(client: ClientKind, arguments: Option<&[String]>) -> bool {
    match (client, arguments) {
        // Its connections are an IDE's.
        (ClientKind::Sshj, _) => true,
        (ClientKind::OpenSsh, Some(arguments)) => Wishes::of(arguments).is_long(),
        (ClientKind::OpenSsh | ClientKind::Other, _) => false,
    }
}

/// The parts of a command line that tell how long it lasts.
#[derive(Default)]
struct Wishes {
    /// No session at all, only forwards: `-N`.
    only_forwards: bool,
    /// A SOCKS listener, or the master of later sessions: `-D`, `-M`.
    serves: bool,
    /// A terminal even for a command: `-t`.
    terminal: bool,
    /// No terminal: `-T`.
    no_terminal: bool,
    /// A stream for another program's use, a subsystem, or nothing at the machine: `-W`, `-s`, `-O`.
    streams: bool,
    command: bool,
}

impl Wishes {
    fn of(arguments: &[String]) -> Wishes {
        let mut wishes = Wishes::default();
        let mut words = arguments.iter().skip(1).map(String::as_str);
        let mut host_seen = false;
        while let Some(word) = words.next() {
            let flags = match word.strip_prefix('-') {
                Some("-") => {
                    wishes.command |= words.nth(usize::from(!host_seen)).is_some();
                    break;
                }
                Some(flags) if !flags.is_empty() => flags,
                // Options may follow the host. The second word that is none begins the command.
                _ if host_seen => {
                    wishes.command = true;
                    break;
                }
                _ => {
                    host_seen = true;
                    continue;
                }
            };
            for (at, flag) in flags.char_indices() {
                let attached = &flags[at + flag.len_utf8()..];
                if TAKES_ARGUMENT.contains(flag) {
                    let value = if attached.is_empty() { words.next().unwrap_or_default() } else { attached };
                    wishes.note_value(flag, value);
                    break;
                }
                wishes.note(flag);
            }
        }
        wishes
    }

    fn note(&mut self, flag: char) {
        match flag {
            'N' => self.only_forwards = true,
            'M' => self.serves = true,
            't' => self.terminal = true,
            'T' => self.no_terminal = true,
            's' | 'G' | 'V' => self.streams = true,
            _ => {}
        }
    }

    fn note_value(&mut self, flag: char, value: &str) {
        match flag {
            'D' => self.serves = true,
            'W' | 'O' | 'Q' => self.streams = true,
            'o' => {
                let is = |name: &str, words: &[&str]| {
                    let value = options::value(value, name).unwrap_or_default();
                    words.iter().any(|word| value.eq_ignore_ascii_case(word))
                };
                self.only_forwards |= is("SessionType", &["none"]);
                self.streams |= is("SessionType", &["subsystem"]);
                self.serves |=
                    is("ControlMaster", &["yes", "ask"]) || options::value(value, "DynamicForward").is_some();
                self.terminal |= is("RequestTTY", &["yes", "force"]);
                self.no_terminal |= is("RequestTTY", &["no"]);
                self.command |= options::value(value, "RemoteCommand").is_some_and(|command| command != "none");
            }
            _ => {}
        }
    }

    fn is_long(&self) -> bool {
        let is_shell = !self.command && !self.no_terminal;
        !self.streams && (self.only_forwards || self.serves || self.terminal || is_shell)
    }
}

#[cfg(test)]
mod tests {
    use super::{ClientKind, is_long};

    #[test]
    fn editors_and_people_stay_and_commands_do_not() {
        let long = |line: &str| {
            let arguments: Vec<String> = line.split(' ').map(str::to_owned).collect();
            is_long(ClientKind::OpenSsh, Some(&arguments))
        };
        for line in [
            "ssh playground-x",
            "/usr/bin/ssh -v -l root playground-x -p 22",
            "ssh -A -o ConnectTimeout=5 playground-x",
            "ssh -L 8080:localhost:80 playground-x",
            "ssh -NL 8080:localhost:80 playground-x",
            "ssh -fN playground-x",
            "ssh -oSessionType=none playground-x",
            // VS Code, and Zed.
            "ssh -T -D 41234 -o ConnectTimeout=15 playground-x sh",
            "ssh -N -o ControlPersist=no -o ControlMaster=yes -o ControlPath=/tmp/x playground-x",
            "ssh -t playground-x tmux attach",
            "ssh -tt playground-x -- top",
        ] {
            assert!(long(line), "{line}");
        }
        for line in [
            "ssh playground-x true",
            "ssh -- playground-x true",
            "ssh -T playground-x",
            "ssh -T -o ConnectTimeout=5 playground-x uname -a",
            "ssh -W other:22 playground-x",
            "ssh -xaf -W [::1]:22 playground-x",
            "ssh -s playground-x sftp",
            // scp, and git.
            "ssh -x -oPermitLocalCommand=no -oClearAllForwardings=yes -oRemoteCommand=none -oRequestTTY=no -l root -s -- \
             playground-x sftp",
            "ssh -o SendEnv=GIT_PROTOCOL root@playground-x git-upload-pack 'a.git'",
            "ssh -o RemoteCommand=date playground-x",
            "ssh -O check playground-x",
        ] {
            assert!(!long(line), "{line}");
        }
    }

    #[test]
    fn a_client_that_tells_nothing_waits_for_nothing() {
        assert!(is_long(ClientKind::Sshj, None));
        assert!(!is_long(ClientKind::OpenSsh, None) && !is_long(ClientKind::Other, None));
        let shell = ["paramiko".to_owned(), "playground-x".to_owned()];
        assert!(!is_long(ClientKind::Other, Some(&shell)), "another program that ssh has started");
    }
}
