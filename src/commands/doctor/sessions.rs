//! The checks of what sessions on a machine survive: its relay, and what on it ends sessions or the relay.
//!
//! They only look. A relay is placed by sessions, as ever (`connect/relay`).

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{
    Check, Verdict,
    there::{There, within},
};
use crate::{
    app::App,
    commands::visit::Destination,
    error::{Error, Kind, Result, printable},
    hold::placing::survives,
    records::relays::{Relays, Whose},
    settings::ResumePolicy,
    ssh::options::seconds,
};

/// The check of the relay.
const SESSIONS: &str = "sessions";
/// Bytes that are read of a machine's answer.
const MOST: u64 = 16 * 1024;
/// Prints facts, one a line, as `name value`. What is missing is left out.
const LOOK: &str = r#"PATH=$PATH:/usr/sbin:/sbin
case $SSH_CONNECTION in "" | UNKNOWN*) ;; *) echo address yes ;; esac
command -v python3 >/dev/null && echo python yes
[ -w "$HOME" ] && echo home yes
pid=$(sed -n 's/.*"pid": *\([0-9][0-9]*\).*/\1/p' "$HOME/.cache/labctl-ssh-proxy/relay-1.json" 2>/dev/null)
[ -n "$pid" ] && kill -0 "$pid" 2>/dev/null && echo "relay $pid"
busctl --timeout=5 get-property org.freedesktop.login1 /org/freedesktop/login1 org.freedesktop.login1.Manager \
  KillUserProcesses KillExcludeUsers 2>/dev/null | sed 's/^b /kills /; s/^as /except /'
{ sshd -T 2>/dev/null || cat /etc/ssh/sshd_config.d/*.conf /etc/ssh/sshd_config 2>/dev/null; } \
  | sed -n 's/^[[:space:]]*[Cc][Ll][Ii][Ee][Nn][Tt][Aa][Ll][Ii][Vv][Ee]/alive /p'
"#;

/// Makes the checks on a machine that ssh gets into.
pub(super) async fn all(app: &App, place: &Destination) -> Vec<Check> {
    let Destination { play, machine, user, .. } = place;
    let policy = app.resume_policy(&[&play.id, &play.playground.name]);
    if !survives(policy, play.belongs_to_a_lesson()) {
        let why = match policy {
            ResumePolicy::Never => "`resume` is `never`",
            ResumePolicy::Auto | ResumePolicy::Always => {
                "a lesson's playground is left alone unless `resume` is `always`"
            }
        };
        return vec![Check::skipped(SESSIONS, format!("end with their connection, because {why}"))];
    }
    let facts = match within(look(app, place)).await {
        Ok(text) => Facts::read(&text),
        Err(error) => return vec![Check::failed(SESSIONS, &error)],
    };
    let whose = Whose { play: &play.id, machine: &machine.name, user };
    let refused = Relays::below(&app.folders.root).refused(whose);
    let mut checks = vec![facts.relay(&machine.name, user, refused)];
    if facts.address {
        checks.extend(facts.keepalive(&machine.name, app.settings.resume_for().as_secs()));
    }
    checks
}

/// Returns the machine's facts as it prints them.
async fn look(app: &App, place: &Destination) -> Result<String> {
    let There { child: _child, mut input, output } = There::start(app, place, "sh").await?;
    let failed = |e: std::io::Error| Error::new(Kind::Program, format!("ssh: {e}"));
    input.write_all(LOOK.as_bytes()).await.map_err(failed)?;
    drop(input);
    let mut text = Vec::new();
    output.take(MOST).read_to_end(&mut text).await.map_err(failed)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// The facts about a machine and its user.
#[derive(Debug, Default, PartialEq, Eq)]
struct Facts {
    /// True if the SSH server says its address, which a relay needs.
    address: bool,
    python: bool,
    home: bool,
    /// The relay's process.
    relay: Option<u32>,
    /// True if systemd ends the user's processes with the last session.
    kills: bool,
    /// The users whose processes it spares.
    spared: Vec<String>,
    /// The server's watch over its clients: seconds between two questions, and how many may stay unanswered.
    interval: Option<u64>,
    count: Option<u64>,
}

impl Facts {
    fn read(text: &str) -> Facts {
        let mut facts = Facts::default();
        for line in text.lines() {
            let mut words = line.split_whitespace();
            match (words.next(), words.next()) {
                (Some("address"), _) => facts.address = true,
                (Some("python"), _) => facts.python = true,
                (Some("home"), _) => facts.home = true,
                (Some("relay"), Some(pid)) => facts.relay = pid.parse().ok(),
                (Some("kills"), Some(word)) => facts.kills = word == "true",
                (Some("except"), Some(_)) => {
                    facts.spared = words.map(|name| name.trim_matches('"').to_owned()).collect();
                }
                // sshd takes the first value.
                (Some("alive"), Some(name)) => {
                    let value = words.next().unwrap_or_default();
                    match name.to_ascii_lowercase().as_str() {
                        "interval" => facts.interval = facts.interval.or(seconds(value)),
                        "countmax" => facts.count = facts.count.or(value.parse().ok()),
                        _ => {}
                    }
                }
                _ => {}
            }
        }
        facts
    }

    /// The check of the relay; `refused` is the reason that the machine has given lately for having none.
    fn relay(&self, machine: &str, user: &str, refused: Option<String>) -> Check {
        let end = |why: &str, remedy: &str| {
            let found = format!("end with their connection: {why}");
            Check::new(SESSIONS, Verdict::Warning, found).remedy(remedy)
        };
        let again = "new sessions survive once that is mended; those that are open do not";
        if !self.address {
            // The built-in servers of the embedded platform do not.
            let why = format!("end with their connection: the SSH server of {machine} does not tell its own address");
            return Check::skipped(SESSIONS, why);
        }
        if self.kills && user != "root" && !self.spared.iter().any(|name| name == user) {
            let why =
                format!("systemd on {machine} ends the relay with the session that placed it (KillUserProcesses)");
            return end(
                &why,
                &format!("add {user} to KillExcludeUsers in /etc/systemd/logind.conf of {machine}, and reboot it"),
            );
        }
        if let Some(pid) = self.relay {
            return Check::ok(
                SESSIONS,
                format!("survive sleep and a lost network: {machine} has a relay, its process {pid}"),
            );
        }
        if !self.python {
            return end(
                &format!("{machine} has no python3, which the relay needs"),
                &format!("install python3 on {machine}; {again}"),
            );
        }
        if !self.home {
            return end(&format!("the home of {user} on {machine} cannot be written"), again);
        }
        match refused {
            Some(why) => end(
                &format!("{machine} has no relay: {}", printable(&why)),
                &format!("{again}; the next attempt comes within 10 minutes"),
            ),
            None => Check::ok(
                SESSIONS,
                format!("survive sleep and a lost network once {machine} has a relay; the next long one starts it"),
            ),
        }
    }

    /// The check of the server's watch, which ends sessions that are away; none if it does not watch.
    fn keepalive(&self, machine: &str, resume_for: u64) -> Option<Check> {
        let (interval, count) = (self.interval.filter(|interval| *interval > 0)?, self.count.unwrap_or(3));
        // With 0 the server never gives up.
        let whole = interval.checked_mul(count).filter(|whole| *whole > 0 && *whole < resume_for)?;
        let found = format!(
            "the SSH server of {machine} ends sessions that are away for {whole} s (ClientAliveInterval {interval}, \
             ClientAliveCountMax {count})"
        );
        let remedy =
            format!("set `ClientAliveInterval 0` in /etc/ssh/sshd_config of {machine}, and reload its SSH server");
        Some(Check::new("sshd's keepalive", Verdict::Warning, found).remedy(remedy))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Facts, Verdict};

    const WELL: &str = "address yes\npython yes\nhome yes\n";

    #[track_caller]
    fn relay(facts: &str, user: &str, refused: Option<&str>) -> (Verdict, String) {
        let check = Facts::read(facts).relay("vm-01", user, refused.map(str::to_owned));
        (check.verdict, format!("{} -> {}", check.found, check.remedy.unwrap_or_default()))
    }

    #[test]
    fn each_obstacle_is_named_with_its_remedy() {
        let (verdict, found) = relay(&format!("{WELL}relay 17\n"), "ada", None);
        assert!(verdict == Verdict::Ok && found.contains("process 17"), "{found}");
        let (verdict, found) = relay(WELL, "ada", None);
        assert!(verdict == Verdict::Ok && found.contains("the next long one"), "{found}");
        for (facts, words) in [
            ("address yes\nhome yes\n", ["no python3", "install python3 on vm-01"]),
            ("address yes\npython yes\n", ["home of ada", "once that is mended"]),
            (&format!("{WELL}kills true\nexcept 1 \"root\"\n"), ["KillUserProcesses", "add ada to KillExcludeUsers"]),
        ] {
            let (verdict, found) = relay(facts, "ada", None);
            assert!(verdict == Verdict::Warning && words.iter().all(|word| found.contains(word)), "{found}");
        }
        let spared = format!("{WELL}kills true\nexcept 2 \"root\" \"ada\"\n");
        assert_eq!((relay(&spared, "ada", None).0, relay(&spared, "bob", None).0), (Verdict::Ok, Verdict::Warning));
        assert_eq!(relay(&format!("{WELL}kills true\n"), "root", None).0, Verdict::Ok);
        let (verdict, found) = relay(WELL, "ada", Some("its python3 fails"));
        assert!(verdict == Verdict::Warning && found.contains("its python3 fails"), "{found}");
        let (verdict, found) = relay("python yes\n", "ada", None);
        assert!(verdict == Verdict::Skipped && found.contains("does not tell its own address"), "{found}");
    }

    #[test]
    fn a_server_that_ends_absent_clients_is_a_warning() {
        let found = |facts: &str| Facts::read(facts).keepalive("vm-01", 3600).map(|check| check.found);
        for quiet in ["", "alive Interval 0\n", "alive interval 1h\n", "alive interval 60\nalive countmax 0\n"] {
            assert_eq!(found(quiet), None, "{quiet:?}");
        }
        let warned = found("alive Interval 2m\nalive Interval 0\nalive CountMax 2\n").unwrap();
        assert!(warned.contains("away for 240 s (ClientAliveInterval 120, ClientAliveCountMax 2)"), "{warned}");
        assert!(found("alive interval 15\n").unwrap().contains("for 45 s"));
    }

    proptest! {
        #[test]
        fn no_answer_makes_them_panic(text in "(?s)((alive|kills|except|relay)? ?[a-z0-9\" ]{0,30}\n|.{0,40}){0,8}") {
            let facts = Facts::read(&text);
            let _ = (facts.relay("vm", "u", None), facts.keepalive("vm", 1));
        }
    }
}
