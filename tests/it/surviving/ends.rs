//! The ends of sessions that survive: the client's, with its network and without, and the machine's, in every manner.

use std::{
    fs,
    time::{Duration, Instant},
};

use rustix::process::Signal;

use super::resumes;
use crate::support::{
    at_best,
    cut::{Cut, How, Kind},
    distant::{Distant, NOTICED, SOON, Talk, at_once, is_alive, known_relays, send},
    eventually,
    terminal::OnTerminal,
    within,
};

/// A program's last wishes, and the rest for a busy computer.
const AT_ONCE: Duration = Duration::from_secs(3);

fn networks(distant: &Distant) -> [&Cut; 2] {
    [&distant.tunnels, &distant.api]
}

fn go_away(distant: &Distant) {
    networks(distant).iter().for_each(|network| network.goes_away());
}

fn heal(distant: &Distant) {
    networks(distant).iter().for_each(|network| network.heals());
}

/// A session that tells when its process on the machine gets SIGHUP or the end of its input.
fn long(distant: &Distant) -> Talk {
    distant.echo()
}

#[test]
fn exit_codes_come_through() {
    let distant = Distant::with_relay();
    for code in [0, 7, 255] {
        let said = distant.world.ssh(&[&distant.host, &format!("echo out; echo err >&2; exit {code}")]);
        assert_eq!((said.code(), said.out.as_str(), said.err.as_str()), (code, "out\n", "err\n"));
    }
    // A program that a signal has ended is an error of ssh's.
    assert_eq!(distant.world.ssh(&[&distant.host, "kill -9 $$"]).code(), 255);
    eventually("no proxy is left", || distant.world.processes(" connect ").is_empty());
    eventually("no ticket is left", || distant.tickets().is_empty());
}

/// Checks that ssh, its proxy and the process on the machine end at once.
fn leaves(distant: &Distant, what: &str, leave: impl Fn(&mut Talk, u32)) {
    at_best(AT_ONCE, &format!("all have ended {what}"), || {
        let mut talk = long(distant);
        let proxy = distant.proxy(talk.ssh.id()).unwrap();
        let left = Instant::now();
        leave(&mut talk, proxy);
        talk.ended(NOTICED);
        eventually("the proxy has left", || !is_alive(proxy));
        eventually("the process on the machine has ended", || !is_alive(talk.machine_pid));
        left.elapsed()
    });
}

/// Each way in which ssh leaves. With a network, the machine's side ends within two seconds.
#[test]
fn a_client_that_leaves_ends_its_session_on_the_machine() {
    let distant = Distant::with_relay();
    for signal in [Signal::INT, Signal::HUP, Signal::TERM] {
        leaves(&distant, &format!("after ssh's {signal:?}"), |talk, _| send(talk.ssh.id(), signal));
        // The proxy alone, as by a shutdown of the computer.
        leaves(&distant, &format!("after {signal:?}"), |_, proxy| send(proxy, signal));
    }
    // ssh alone is killed: its proxy sees the end of its input, and says so.
    leaves(&distant, "after ssh was killed", |talk, _| send(talk.ssh.id(), Signal::KILL));
    leaves(&distant, "after the end of the input", |talk, _| drop(talk.input.take()));
    within(SOON, "nothing is left to be ended", &mut || distant.tickets().is_empty());
}

/// Runs `command` by ssh on a terminal.
fn on_a_terminal(distant: &Distant, command: &str) -> OnTerminal {
    let ssh = pty_process::blocking::Command::new("ssh")
        .env_clear()
        .env("HOME", distant.world.home())
        .env("PATH", "/usr/bin:/bin")
        .env("SHELL", "/bin/sh")
        .arg("-F")
        .arg(distant.world.ssh_config())
        .args(["-tt", &distant.host, command]);
    OnTerminal::start(ssh, 24, 80)
}

/// ssh's own way out, `~.`, works at once whether the machine is there or not.
#[test]
fn the_escape_leaves_at_once() {
    let distant = Distant::with_relay();
    for is_away in [false, true] {
        at_best(AT_ONCE, "the proxy has left", || {
            let mut terminal = on_a_terminal(&distant, "echo in; exec cat");
            terminal.expect("in\r\n");
            let proxy = distant.proxy(terminal.child.id()).unwrap();
            if is_away {
                go_away(&distant);
                eventually("it is seen that the machine is away", || distant.statuses()[0]["phase"] == "away");
            }
            terminal.type_in("\n~.");
            let began = Instant::now();
            assert_eq!(terminal.code(), Some(255));
            eventually("the proxy has left", || !is_alive(proxy));
            let left = began.elapsed();
            heal(&distant);
            left
        });
    }
}

/// A terminal is told that the machine is away, and that it is back.
#[test]
fn a_terminal_hears_of_an_outage() {
    let distant = Distant::with_relay();
    let mut terminal = on_a_terminal(&distant, "stty -echo; echo in; exec cat");
    terminal.expect("in\r\n");
    go_away(&distant);
    terminal.expect("resuming");
    heal(&distant);
    terminal.expect("resumed");
    terminal.type_in("there\n");
    terminal.expect("there\r\n");
}

/// Without a network, a client leaves at once all the same. The next connection to the machine ends what it has left.
#[test]
fn what_is_left_behind_is_ended_by_the_next_connection() {
    type Leave = fn(&Distant, &mut Talk, u32);
    let kinds: [(&str, Leave); 5] = [
        ("ssh leaves while the machine is away", |distant, talk, _| {
            go_away(distant);
            send(talk.ssh.id(), Signal::TERM);
        }),
        ("the proxy leaves while the machine is away", |distant, _, proxy| {
            go_away(distant);
            send(proxy, Signal::HUP);
        }),
        ("the proxy is killed", |_, _, proxy| send(proxy, Signal::KILL)),
        ("ssh is killed while the machine is away", |distant, talk, _| {
            go_away(distant);
            send(talk.ssh.id(), Signal::KILL);
        }),
        ("both are killed", |_, talk, proxy| {
            send(talk.ssh.id(), Signal::STOP);
            send(proxy, Signal::KILL);
            send(talk.ssh.id(), Signal::KILL);
        }),
    ];
    at_once(kinds, |(what, leave)| {
        at_best(AT_ONCE, &format!("both have left: {what}"), || {
            let distant = Distant::with_relay();
            // On a busy computer, the session that has placed the relay may be left behind, too.
            let before = distant.tickets();
            let mut talk = long(&distant);
            let proxy = distant.proxy(talk.ssh.id()).unwrap();
            let began = Instant::now();
            leave(&distant, &mut talk, proxy);
            talk.ended(NOTICED);
            eventually("the proxy has left", || !is_alive(proxy));
            let left = began.elapsed();
            std::thread::sleep(Duration::from_millis(500));
            assert!(is_alive(talk.machine_pid), "the machine has heard nothing: {what}");
            let tickets = distant.tickets().into_iter().filter(|ticket| !before.contains(ticket)).count();
            assert_eq!(tickets, 1, "{what}");
            heal(&distant);
            // Another session ends it, and lives on.
            let mut next = long(&distant);
            within(Duration::from_secs(8), &format!("it is ended: {what}"), &mut || !is_alive(talk.machine_pid));
            eventually("only the ticket of the next session is left", || distant.tickets().len() == 1);
            next.echoes(SOON);
            next.ends();
            eventually("no ticket is left", || distant.tickets().is_empty());
            left
        });
    });
}

/// The machine's side ends while the client is away: the rest of the output and the exit status wait for it.
#[test]
fn a_command_that_ends_while_its_client_is_away_ends_with_all_that_it_said() {
    let distant = Distant::with_relay();
    let go = distant.world.path("go");
    let mut talk =
        distant.talk(&format!("echo $$; until [ -e {} ]; do sleep 0.1; done; seq 20000; exit 7", go.display()));
    let pid: u32 = talk.line(NOTICED).parse().unwrap();
    go_away(&distant);
    fs::write(&go, "").unwrap();
    eventually("the command has ended", || !is_alive(pid));
    heal(&distant);
    for n in 1..=20000 {
        assert_eq!(talk.line(NOTICED), n.to_string());
    }
    let (status, rest, errors) = talk.ended(NOTICED);
    assert_eq!((status.code(), rest.len(), errors.as_str()), (Some(7), 0, ""));
}

/// The process of sshd that serves a session is killed, with the client there and away.
#[test]
fn a_session_whose_sshd_is_killed_ends_with_words() {
    let distant = Distant::with_relay();
    for is_away in [false, true] {
        if known_relays(&distant.world.root()) == 0 {
            // What is known of a machine is learnt anew after such an end.
            distant.place();
        }
        let mut talk = long(&distant);
        if is_away {
            go_away(&distant);
        }
        // The parent of the command.
        let stat = fs::read_to_string(format!("/proc/{}/stat", talk.machine_pid)).unwrap();
        let sshd: u32 = stat.rsplit_once(") ").unwrap().1.split(' ').nth(1).unwrap().parse().unwrap();
        assert!(fs::read_to_string(format!("/proc/{sshd}/cmdline")).unwrap().contains("sshd"));
        send(sshd, Signal::KILL);
        if is_away {
            std::thread::sleep(Duration::from_secs(1));
            heal(&distant);
        }
        let (status, _, errors) = talk.ended(NOTICED);
        assert_eq!(status.code(), Some(255), "{errors}");
        assert!(errors.contains("machine shell-01"), "{errors}");
    }
}

/// The end of a machine or of its relay is told as such, whether the client was connected or away, and no resume wakes
/// anything.
#[test]
fn a_machine_that_ends_ends_its_sessions_with_the_right_words() {
    type End = fn(&Distant);
    let kinds: [(&str, End, &str); 4] = [
        ("the playground is stopped", |distant| drop(distant.world.local(&["stop", &distant.id]).ok()), "was stopped"),
        (
            "the playground is destroyed",
            |distant| drop(distant.world.local(&["destroy", "--yes", &distant.id]).ok()),
            "was destroyed",
        ),
        (
            "the machine is rebooted",
            |distant| drop(distant.world.local(&["machine", "reboot", &distant.id]).ok()),
            "restarted",
        ),
        (
            "the relay is killed",
            |distant| distant.relay_processes().iter().for_each(|pid| send(*pid, Signal::KILL)),
            "has ended",
        ),
    ];
    std::thread::scope(|scope| {
        for (what, end, words) in kinds {
            scope.spawn(move || {
                for is_away in [false, true] {
                    let distant = Distant::with_relay();
                    assert!(!distant.relay_processes().is_empty());
                    let mut talk = long(&distant);
                    if is_away {
                        go_away(&distant);
                        eventually("it is seen that it is away", || distant.status(&talk)["phase"] == "away");
                    }
                    end(&distant);
                    let state = || distant.world.local(&["list", "--all", "--json"]).ok();
                    let before = state();
                    if is_away {
                        heal(&distant);
                    }
                    let (status, _, errors) = talk.ended(Duration::from_secs(40));
                    eprintln!("{what}, away: {is_away}: {errors}");
                    assert_eq!(status.code(), Some(255), "{what}: {errors}");
                    assert!(errors.contains(words), "{what}, away: {is_away}: {errors}");
                    assert!(!errors.contains("orrupted MAC"), "{errors}");
                    let still = |text: &str| text.contains("\"RUNNING\"");
                    assert_eq!(still(&before), still(&state()), "{what}: nothing was woken");
                }
            });
        }
    });
}

/// A machine whose relay has ended is reached all the same, directly, and a relay is placed again.
#[test]
fn a_dead_relay_costs_the_next_connection_nothing_but_itself() {
    let distant = Distant::with_relay();
    distant.relay_processes().iter().for_each(|pid| send(*pid, Signal::KILL));
    assert_eq!(distant.ssh("echo in", b""), b"in\n");
    assert!(distant.tunnels.count(Kind::Direct) > 0);
    eventually("the dead relay is forgotten", || known_relays(&distant.world.root()) == 0);
    distant.place();
    let mut talk = distant.echo();
    distant.tunnels.fail(How::Reset);
    talk.echoes(SOON);
    assert!(resumes(&distant) > 0);
    talk.ends();
}

/// The relay's secret, the session's, and the tunnel's token are in the files that are for them, and nowhere else: not in
/// a log of everything, a status, an error, a command line, or an environment.
#[test]
fn no_secret_is_found_outside_its_file() {
    let distant = Distant::with_relay();
    let entries = distant.world.root().join("ssh_config");
    let text = fs::read_to_string(&entries).unwrap();
    let log = distant.world.path("log-of-everything");
    let logged = text.replace(" connect ", &format!(" -vv --log-file {} connect ", log.display()));
    assert_ne!(text, logged);
    fs::write(&entries, logged).unwrap();
    let mut talk = long(&distant);
    distant.tunnels.fail(How::Reset);
    talk.echoes(NOTICED);
    let mut secrets = Vec::new();
    for (folder, name) in [("relays", "key"), ("held", "key"), ("tunnels", "token")] {
        for entry in fs::read_dir(distant.world.root().join(folder)).unwrap() {
            let path = entry.unwrap().path();
            let Ok(record) = serde_json::from_slice::<serde_json::Value>(&fs::read(&path).unwrap()) else { continue };
            let secret = if folder == "relays" { &record["relay"][name] } else { &record[name] };
            secrets.push(secret.as_str().unwrap_or_else(|| panic!("{record}")).to_owned());
        }
    }
    assert!(secrets.len() >= 3 && secrets.iter().all(|secret| secret.len() >= 20), "{} secrets", secrets.len());
    let mut said = Vec::new();
    for process in distant.world.processes("").into_iter().chain(distant.relay_processes()) {
        for name in ["cmdline", "environ"] {
            let text = fs::read(format!("/proc/{process}/{name}")).unwrap_or_default();
            said.push((format!("{name} of process {process}"), text));
        }
    }
    for arguments in [&["list", "--json"][..], &["doctor", "--json"], &["doctor"], &["-vv", "list"]] {
        let output = distant.world.run(arguments);
        said.push((arguments.join(" "), format!("{}{}", output.out, output.err).into_bytes()));
    }
    go_away(&distant);
    eventually("it is seen that the machine is away", || distant.status(&talk)["phase"] == "away");
    distant.relay_processes().iter().for_each(|pid| send(*pid, Signal::KILL));
    heal(&distant);
    // The attempts are 4 s apart by now.
    said.push(("ssh".to_owned(), talk.ended(3 * NOTICED).2.into_bytes()));
    let mut folders = vec![distant.world.home().to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let is_for_them = ["relays", "held", "tunnels"].iter().any(|name| path == distant.world.root().join(name));
            if path.is_dir() && !is_for_them && !path.ends_with(".cache/labctl-ssh-proxy") {
                folders.push(path);
            } else if path.is_file() {
                said.push((path.display().to_string(), fs::read(&path).unwrap()));
            }
        }
    }
    assert!(said.iter().any(|(what, text)| what.ends_with("log-of-everything") && text.len() > 1000));
    for secret in &secrets {
        for (what, text) in &said {
            let found = text.windows(secret.len()).any(|window| window == secret.as_bytes());
            assert!(!found, "a secret of {} characters is in {what}", secret.len());
        }
    }
}
