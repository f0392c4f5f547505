//! `helper serve` as OpenSSH's own programs see it, started as `enter` has it started: a sealed file in memory as
//! descriptor 3, a pipe with the settings as descriptor 4, and nothing else. Here it runs outside of a container.
#![cfg(target_os = "linux")]

use std::{
    fs::{self, File},
    io::{Read, Write},
    os::fd::AsRawFd,
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use rustix::{
    fs::{MemfdFlags, Mode, SealFlags, fchmod, fcntl_add_seals, memfd_create},
    process::{Pid, Signal, geteuid, kill_process, test_kill_process},
};
use tempfile::TempDir;

/// The longest wait for something that happens soon.
const PATIENCE: Duration = Duration::from_secs(20);

/// The public half of the key whose seed is 32 times 0x11.
const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAINBKsjJ0K7SrOhNovUYV5ObQIkq3GgFrr4UgozLJd4c3";

const ALL_SEALS: SealFlags = SealFlags::SEAL.union(SealFlags::SHRINK).union(SealFlags::GROW).union(SealFlags::WRITE);

/// The redirections that put the descriptors in place: the settings come as standard input, the client as 5.
const IN_PLACE: &str = "4<&0 <&5 5<&-";

/// A configuration of ssh whose connections have a server each.
struct World {
    folder: TempDir,
    program: File,
}

impl World {
    fn new() -> World {
        World::with(ALL_SEALS, IN_PLACE, "env HOME=/of/web")
    }

    /// A world whose program has these seals, with redirections like [`IN_PLACE`] and a program that starts the server.
    fn with(seals: SealFlags, redirected: &str, starter: &str) -> World {
        let folder = tempfile::tempdir().unwrap();
        let program = File::from(memfd_create("helper", MemfdFlags::ALLOW_SEALING | MemfdFlags::CLOEXEC).unwrap());
        (&program).write_all(&fs::read(env!("CARGO_BIN_EXE_labctl-ssh-proxy-helper")).unwrap()).unwrap();
        fchmod(&program, Mode::from_raw_mode(0o755)).unwrap();
        fcntl_add_seals(&program, seals).unwrap();
        let world = World { folder, program };
        let path = |name: &str| world.path(name).display().to_string();
        let write = |name: &str, text: String| fs::write(world.path(name), text).unwrap();
        let seed = "11".repeat(32);
        let home = path("");
        write(
            "settings",
            format!(
                r#"{{"container":"web","user":"container","directory":"{home}","lacking":"","host_key":"{seed}"}}"#
            ),
        );
        let program = format!("/proc/{}/fd/{}", std::process::id(), world.program.as_raw_fd());
        let settings = path("settings");
        let serve = format!("{starter} /proc/self/fd/3 serve 3<{program} {redirected}");
        write("enter", format!("exec 5<&0\ncat {settings} | {serve}\n"));
        write("known", format!("m {KEY}\n"));
        write(
            "config",
            format!(
                "Host m\nUserKnownHostsFile {}\nStrictHostKeyChecking yes\nUser container\nIdentityFile none\n\
                 BatchMode yes\nLogLevel ERROR\nProxyCommand /bin/sh {}\n",
                path("known"),
                path("enter")
            ),
        );
        world
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn ssh(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("ssh");
        command.arg("-F").arg(self.path("config")).args(arguments).stdin(Stdio::null());
        command
    }

    fn run(&self, command: &str) -> Output {
        self.ssh(&["m", command]).output().unwrap()
    }

    /// Starts a command that goes on, and waits until it has written `marks` files with the numbers of processes.
    fn start(&self, command: &str, marks: &[&str]) -> (Child, Vec<Pid>) {
        let client = self.ssh(&["m", command]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let numbers = marks.iter().map(|mark| {
            let mut number = None;
            eventually(mark, || {
                let text = fs::read_to_string(self.path(mark)).unwrap_or_default();
                number = text.strip_suffix('\n').and_then(|text| Pid::from_raw(text.parse().ok()?));
                number.is_some()
            });
            number.unwrap()
        });
        (client, numbers.collect())
    }
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// Waits for a condition that becomes true soon, by polling.
fn eventually(what: &str, mut happened: impl FnMut() -> bool) {
    let since = Instant::now();
    while !happened() {
        assert!(since.elapsed() < PATIENCE, "never: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// Returns true if a process runs. A zombie that init has not reaped yet does not count.
fn is_alive(pid: Pid) -> bool {
    let stat = fs::read(format!("/proc/{}/stat", pid.as_raw_nonzero())).unwrap_or_default();
    let stat = String::from_utf8_lossy(&stat);
    test_kill_process(pid).is_ok() && !stat.rsplit(')').next().unwrap_or_default().starts_with(" Z")
}

#[test]
fn a_session_has_the_users_environment_and_ends_with_its_commands_status() {
    let world = World::new();
    let output = world.run("pwd; echo $HOME; echo $LOGNAME; exit 7");
    assert_eq!(output.status.code(), Some(7), "{}", text(&output.stderr));
    let folder = world.folder.path().display();
    assert!(text(&output.stdout).starts_with(&format!("{folder}\n/of/web\n")), "{}", text(&output.stdout));
    // Nothing but the standard streams is inherited.
    let output = world.run("ls /proc/self/fd");
    assert_eq!(text(&output.stdout), "0\n1\n2\n3\n", "3 is the folder that ls reads");
    // OpenSSH's client shows a signal as 255, and says which.
    let output = world.run("kill -USR1 $$");
    assert_eq!(output.status.code(), Some(255));
}

#[test]
fn a_session_starts_even_where_its_folder_has_gone() {
    let world = World::new();
    fs::write(world.path("settings"), fs::read_to_string(world.path("settings")).unwrap().replace(".tmp", ".no"))
        .unwrap();
    let output = world.run("pwd");
    assert_eq!(text(&output.stdout), "/\n", "{}", text(&output.stderr));
}

#[test]
fn a_host_without_room_for_a_process_says_so() {
    if geteuid().is_root() {
        // Root's processes are not counted, so the limit is another user's.
        let world = World::with(ALL_SEALS, IN_PLACE, "setpriv --reuid 64999 --clear-groups prlimit --nproc=3");
        let output = world.run("/bin/true");
        assert_eq!(output.status.code(), Some(126), "{}", text(&output.stderr));
        let words = "container web cannot start a program: Resource temporarily unavailable\n";
        assert_eq!(text(&output.stderr), words);
    }
}

#[test]
fn everything_that_was_started_ends_with_the_client_but_what_ignores_it() {
    let world = World::new();
    let command = "echo $PPID >server; echo $$ >shell; sleep 1000 & echo $! >child
        (trap '' HUP; exec sleep 1000) & echo $! >nohup
        setsid sh -c 'echo $$ >session; exec sleep 1000' &
        (trap 'true' HUP; echo >caught; while :; do sleep 0.1; done) & echo $! >stubborn
        odd=$(printf 'n\\377'); cp /bin/bash $odd; cp /bin/sleep k$odd
        ./$odd -c 'trap true HUP; echo $$ >odd; while :; do sleep 0.1; done' >/dev/null 2>&1 &
        (trap '' HUP; exec ./k$odd 1000) & echo $! >kept
        wait; wait; wait";
    let marks = ["server", "shell", "child", "nohup", "session", "stubborn", "odd", "kept"];
    let (mut client, pids) = world.start(command, &marks);
    eventually("the trap", || world.path("caught").exists());
    client.kill().unwrap();
    client.wait().unwrap();
    let [server, shell, child, nohup, session, stubborn, odd, kept] = pids[..] else { unreachable!() };
    // The name of the odd one is no text.
    for (name, pid) in [("server", server), ("shell", shell), ("child", child), ("stubborn", stubborn), ("odd", odd)] {
        eventually(name, || !is_alive(pid));
    }
    for pid in [nohup, session, kept] {
        assert!(is_alive(pid), "what ignores SIGHUP and what left the group lives on, as under OpenSSH");
        kill_process(pid, Signal::KILL).unwrap();
    }
}

#[test]
fn what_a_finished_command_has_left_running_lives_on() {
    let world = World::new();
    let output = world.run("sleep 1000 </dev/null >/dev/null 2>&1 & echo $!");
    let pid = Pid::from_raw(text(&output.stdout).trim().parse().unwrap()).unwrap();
    assert!(is_alive(pid));
    kill_process(pid, Signal::KILL).unwrap();
}

#[test]
fn processes_without_a_parent_are_collected() {
    let world = World::new();
    // The process ends after its parent, so that its next parent has to collect it.
    let output = world.run(
        "(sh -c 'echo $$ >orphan; sleep 0.2' &) >/dev/null 2>&1; sleep 0.6; \
         ps -o stat= -p $(cat orphan); ps -o stat= --ppid $PPID | grep -c Z",
    );
    assert_eq!(text(&output.stdout), "0\n");
}

#[test]
fn a_signal_ends_the_connection_in_words() {
    let world = World::new();
    let mut client = world.ssh(&["m", "echo $PPID; sleep 1000"]);
    let mut client = client.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut number = [0; 16];
    let n = client.stdout.as_mut().unwrap().read(&mut number).unwrap();
    let server = Pid::from_raw(text(&number[..n]).trim().parse().unwrap()).unwrap();
    kill_process(server, Signal::TERM).unwrap();
    let output = client.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(255));
    eventually("the server's end", || !is_alive(server));
    assert!(text(&output.stderr).contains("being ended on its machine"), "{}", text(&output.stderr));
}

#[test]
fn a_client_that_says_nothing_is_let_go() {
    let world = World::new();
    // The test may have been started with more files; ssh closes them for its ProxyCommand.
    let enter = fs::read_to_string(world.path("enter")).unwrap();
    let script = format!("for n in $(ls /proc/self/fd); do [ $n -lt 6 ] || eval \"exec $n<&-\"; done\n{enter}");
    let mut enter = Command::new("bash");
    let enter = enter.args(["-c", &script]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut enter = enter.spawn().unwrap();
    let mut line = [0; 26];
    enter.stdout.as_mut().unwrap().read_exact(&mut line).unwrap();
    assert_eq!(&line, b"SSH-2.0-labctl-ssh-proxy\r\n");
    drop(enter.stdin.take());
    assert!(enter.wait().unwrap().success());
}

#[test]
fn other_processes_of_the_user_cannot_look_into_the_server() {
    if !geteuid().is_root() {
        // A user's processes have no power over others' that has to be laid down first.
        let output = World::new().run("cat /proc/$PPID/environ /proc/$PPID/maps; ls /proc/$PPID/fd/");
        assert_eq!(text(&output.stdout), "");
        return;
    }
    let drop = "setpriv --reuid 65534 --regid 65534 --clear-groups --inh-caps -all --bounding-set -all";
    let world = World::with(ALL_SEALS, IN_PLACE, drop);
    let output = world.run("id -u; cat /proc/$PPID/environ /proc/$PPID/maps; ls /proc/$PPID/fd/");
    assert_eq!(text(&output.stdout), "65534\n", "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("Permission denied"));
}

#[test]
fn a_descriptor_that_is_not_expected_is_named_and_refused() {
    // The kernel tells no name as long as that of this folder.
    let deep = "bash -c 'd=$(printf %0200d 0); for n in {1..30}; do mkdir $d; cd -P $d; done; exec \"$@\" 5<.' bash";
    for (seals, redirected, starter, expected) in [
        (ALL_SEALS, "4<&0 <&5 5</sys", "", "a file that it does not know, descriptor 5: /sys"),
        (ALL_SEALS, IN_PLACE, deep, "cannot list the server's open files: File name too long"),
        (ALL_SEALS, "4</dev/null <&5 5<&-", "", "the server's settings are not in a pipe"),
        (ALL_SEALS, "<&5 5<&- 4<&-", "", "the server was not given descriptor 4"),
        (ALL_SEALS, "4<&0 5<&- </", "", "the server's standard input is a folder"),
        (SealFlags::WRITE, "4<&0 <&5 5<&-", "", "the server's program is not sealed"),
    ] {
        let world = World::with(seals, redirected, starter);
        let output = world.ssh(&["m", "true"]).current_dir(world.folder.path()).output().unwrap();
        assert_eq!(output.status.code(), Some(255));
        assert!(text(&output.stderr).contains(expected), "{expected}: {}", text(&output.stderr));
    }
}
