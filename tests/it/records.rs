//! Records that cannot be kept, read or locked, and clocks that were ahead: what needs no record goes on.

use std::{
    fs,
    os::unix::process::CommandExt,
    path::PathBuf,
    process::{Command, Stdio},
};

use serde_json::{Value, json};

use crate::support::{Ending, PROGRAM, Said, World, eventually, needs};

/// Builds a library that makes flock(2) fail with this number.
fn without_locks(world: &World, errno: i32) -> PathBuf {
    let (source, library) = (world.path("flock.c"), world.path(&format!("flock{errno}.so")));
    fs::write(&source, "#include <errno.h>\nint flock(int fd, int how) { errno = ERRNO; return -1; }\n").unwrap();
    let mut cc = Command::new(needs("cc"));
    cc.args(["-shared", "-fPIC", &format!("-DERRNO={errno}"), "-o"]).args([&library, &source]);
    assert!(cc.status().unwrap().success());
    library
}

/// Some file systems have no locks, and OpenSSH and kubectl need none.
#[test]
fn a_file_system_without_locks_costs_a_warning() {
    for errno in [rustix::io::Errno::NOLCK, rustix::io::Errno::OPNOTSUPP, rustix::io::Errno::IO] {
        let world = World::empty();
        let library = without_locks(&world, errno.raw_os_error());
        // A folder of its own: in the one of all programs, those that have locks delete what is not locked.
        let temporary = world.path("tmp");
        fs::create_dir(&temporary).unwrap();
        let without = |command: &mut Command| {
            command.env("LD_PRELOAD", &library).env("TMPDIR", &temporary);
        };
        let run = |command: &mut Command| {
            without(command);
            world.output(command)
        };
        let local = |args: &[&str]| run(world.command(&["--local"]).args(args));
        let said = local(&["start", "shell", "--json"]);
        assert!(said.err.contains("went on without a lock"), "{said:?}");
        let id = serde_json::from_str::<Value>(&said.ok()).unwrap()["id"].as_str().unwrap().to_owned();
        let _ = local(&["config-ssh", "--yes"]).ok();
        let known = world.root().join("known_hosts.local");
        fs::write(&known, "").unwrap();
        let host = format!("playground-{id}");
        assert_eq!(run(world.ssh_program("ssh").args([&host, "echo in"])).ok(), "in\n", "{errno}");
        assert!(!fs::read(&known).unwrap().is_empty(), "the key is learnt");
        let _ = local(&["stop", &id]).ok();
        let _ = local(&["start", &id]).ok();
        let file = world.home().join(".kube/config");
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        let machine = world.machine_home(&id, "shell-01").join(".kube");
        fs::create_dir_all(&machine).unwrap();
        let kubeconfig =
            "clusters: [{name: a, cluster: {server: https://a}}]\ncontexts: [{name: a, context: {cluster: a}}]\n";
        fs::write(machine.join("config"), kubeconfig).unwrap();
        let _ = local(&["kube", &id, "--merge", "--", "true"]).ok();
        // Another platform is kept away by the socket.
        assert!(local(&["local", "serve"]).failed(6).contains("already serves"));
        // A session that runs is not taken for a killed one's leftover.
        let mut session = world.ssh_program("ssh");
        session.args([&host, "sleep 100"]).process_group(0);
        without(&mut session);
        let session = Ending(session.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
        let connections =
            || serde_json::from_str::<Value>(&local(&["list", "--json"]).ok()).unwrap()[0]["connections"].clone();
        eventually("it is connected", || connections()[0]["phase"] == "connected");
        assert_eq!(connections().as_array().unwrap().len(), 1);
        drop(session);
        eventually("nothing is left of it", || connections() == json!([]));
        let said = local(&["doctor"]);
        assert!(said.out.contains("LABCTL_SSH_PROXY_HOME"), "{said:?}");
        let _ = local(&["local", "stop"]).ok();
    }
}

/// Puts a folder or the like in the place of a record, which even root cannot read.
fn unreadable(world: &World, label: &str) -> PathBuf {
    let path = world.root().join(format!("memory.local/{label}.json"));
    let _ = fs::remove_file(&path);
    fs::create_dir_all(&path).unwrap();
    path
}

fn unattended(world: &World, host: &str) -> Said {
    world.output(world.program("setsid").args(["-w", "ssh", "-F"]).arg(world.ssh_config()).args([host, "true"]))
}

#[test]
fn a_start_whose_record_cannot_be_read_starts_one_playground_and_says_which() {
    for damage in ["unreadable", "damaged"] {
        let world = World::with_platform(&[]);
        let path = unreadable(&world, "shell");
        if damage == "damaged" {
            fs::remove_dir(&path).unwrap();
            fs::write(&path, "{").unwrap();
        }
        let said = world.local(&["start", "shell"]);
        assert!(said.err.contains("shell.json"), "{damage}: {said:?}");
        assert!(said.ok().contains(" is running"), "{damage}");
        assert_eq!(world.plays(), 1, "{damage}");
    }
}

/// A record that cannot be read may say that the playground was stopped on purpose.
#[test]
fn a_record_that_cannot_be_read_is_not_none() {
    let mut world = World::with_platform(&[]);
    let id = world.playground("shell");
    let host = format!("playground-{id}");
    unreadable(&world, &id);
    // A machine that runs is reached. The user's wish is carried out.
    unattended(&world, &host).ok();
    let said = world.local(&["ssh", &id, "echo", "in"]);
    assert!(said.err.contains(&format!("{id}.json")), "{said:?}");
    assert_eq!(said.ok(), "in\n");
    let said = world.local(&["stop", &id]);
    assert!(said.err.contains("going on without this record"), "{said:?}");
    let _ = said.ok();
    assert_eq!(world.state(&id), "STOPPED");
    let said = unattended(&world, &host).failed(255);
    assert!(said.contains(&format!("{id}.json")), "{said}");
    assert_eq!(world.state(&id), "STOPPED", "it may have been stopped on purpose");
    let _ = world.local(&["doctor", "--fix"]);
    assert!(world.root().join(format!("memory.local/{id}.json")).exists(), "what cannot be read is not deleted");
    let wake = format!("ProxyCommand={PROGRAM} --local connect --wake always {host}");
    world.ssh(&["-o", &wake, &host, "true"]).ok();
    let _ = world.local(&["stop", &id]).ok();
    let _ = world.local(&["start", &id]).ok();
    unattended(&world, &host).ok();
}

/// A limit of 0 for the size of files is as good as a full disk, for every user.
#[test]
fn on_a_full_disk_what_needs_no_record_goes_on() {
    let mut world = World::with_platform(&[]);
    let id = world.playground("shell");
    let host = format!("playground-{id}");
    world.ssh(&[&host, "true"]).ok();
    let full = |command: &str| {
        let mut shell = world.program("sh");
        let script = format!("ulimit -f 0; exec {command}");
        world.output(shell.args(["-c", &script]))
    };
    let ssh = format!("setsid -w ssh -F {}", world.ssh_config().display());
    assert_eq!(full(&format!("{ssh} {host} echo in")).ok(), "in\n");
    let said = full(&format!("{PROGRAM} --local ssh {id} echo in"));
    assert!(said.err.contains("going on without this record"), "{said:?}");
    assert_eq!(said.ok(), "in\n");
    let _ = full(&format!("{PROGRAM} --local list")).ok();
    // The words of a full disk do not claim what they cannot know.
    let said = full(&format!("{PROGRAM} --local stop {id}"));
    assert!(
        said.err.contains("may start the playground again") && !said.err.contains("nothing was changed"),
        "{said:?}"
    );
    let _ = said.ok();
    assert_eq!(world.state(&id), "STOPPED");
    let _ = full(&format!("{ssh} {host} true")).ok();
    assert_eq!(world.state(&id), "RUNNING");
}

fn milliseconds(ahead: i64) -> i64 {
    jiff::Timestamp::now().as_millisecond() + ahead
}

#[test]
fn a_clock_that_was_ahead_holds_nothing_up() {
    const HOURS: i64 = 6 * 3600 * 1000;
    let mut world = World::with_platform(&[]);
    world.configure();
    let write = |label: &str, record: &Value| {
        let folder = world.root().join("memory.local");
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(format!("{label}.json")), record.to_string()).unwrap();
    };
    // A start by name that was never answered.
    write("shell", &json!({"wake": {"at": milliseconds(HOURS), "upon": "", "sent": false}}));
    unattended(&world, "playground-shell").ok();
    let id = world.json(&["list", "--json"])[0]["id"].as_str().unwrap().to_owned();
    let host = format!("playground-{id}");
    eventually("no proxy is left", || world.processes(" connect ").is_empty());
    for name in ["sessionEnded", "cutOff"] {
        world.stop_elsewhere(&id);
        write(&id, &json!({name: milliseconds(HOURS)}));
        unattended(&world, &host).ok();
        eventually("no proxy is left", || world.processes(" connect ").is_empty());
    }
    // A restart that was asked for, for this very stop.
    let restarts = world.restarts(&id);
    world.stop_elsewhere(&id);
    let play = world.play(&id);
    let events = play["status"]["stateEvents"].as_array().unwrap().len();
    let upon = format!("{events} {} ", play["lastStateAt"].as_str().unwrap());
    write(&id, &json!({"wake": {"at": milliseconds(HOURS), "upon": upon, "sent": true}}));
    unattended(&world, &host).ok();
    assert_eq!(world.restarts(&id), restarts + 1);
    // It stays stopped on purpose, whatever the clock said then.
    world.stop_elsewhere(&id);
    write(&id, &json!({"stopped": milliseconds(HOURS)}));
    assert!(unattended(&world, &host).failed(255).contains("was stopped on purpose"));
    let _ = world.local(&["start", &id]).ok();
}

#[test]
fn a_setting_of_a_newer_version_ends_no_connection() {
    let mut world = World::with_platform(&[]);
    let id = world.playground("shell");
    world.settings("colour: red\nwake: never\n");
    for said in [world.ssh(&[&format!("playground-{id}"), "echo in"]), world.local(&["ssh", &id, "echo in"])] {
        assert!(said.err.contains("the setting `colour` is unknown"), "{said:?}");
        assert_eq!(said.ok(), "in\n");
    }
    assert!(world.local(&["list"]).failed(2).contains("colour"));
    world.stop_elsewhere(&id);
    let said = unattended(&world, &format!("playground-{id}")).failed(255);
    assert!(said.contains("policy is `never`"), "the rest is in force: {said}");
    // A connection goes on without what it does not know, and not with what is wrong.
    world.settings("colour: red\nwake: perhaps\n");
    let said = unattended(&world, &format!("playground-{id}")).failed(255);
    assert!(said.contains("invalid settings") || said.contains("settings.yaml"), "{said}");
}

#[test]
fn what_the_system_lacks_is_said() {
    let world = World::empty();
    let said = world.output(world.program("sh").args(["-c", &format!("ulimit -n 6; exec {PROGRAM} list")]));
    assert!(said.failed(13).contains("ulimit -n 256"));
    for home in [".", "some/where"] {
        let said = world.output(world.command(&["list"]).env("HOME", home));
        assert!(said.failed(13).contains("is not an absolute path"), "{home}");
    }
}

/// The command of a `Match exec` line ends with the ssh that was asked, however long it would take.
#[test]
fn a_question_to_ssh_leaves_nothing_running() {
    let world = World::empty();
    fs::create_dir_all(world.home().join(".ssh")).unwrap();
    fs::write(world.ssh_config(), "Match exec \"sleep 4321\"\n  Port 22\n").unwrap();
    let mut command = world.command(&["--local", "config-ssh", "--yes", "--ssh-config-file"]);
    command.arg(world.ssh_config()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = Ending(command.spawn().unwrap());
    eventually("ssh runs it", || !world.processes("sleep 4321").is_empty());
    // As the time limit does, an interrupt ends the question.
    let pid = rustix::process::Pid::from_child(&child.0);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    child.0.wait().unwrap();
    eventually("nothing is left of it", || world.processes("sleep 4321").is_empty());
}
