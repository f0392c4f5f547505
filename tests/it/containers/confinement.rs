//! A session is confined as the container is: each figure that the kernel tells of a process equals that of `docker exec`.

use std::{collections::BTreeMap, thread};

use super::{MAPPED, POWERFUL, Site, without_library_signals};
use crate::support::engine::{BUSYBOX, Container, Engine, SCRATCH};

/// The lines of /proc/self/status that confine, and those that a parent hands down.
const STATUS: [&str; 15] = [
    "Umask",
    "Uid",
    "Gid",
    "Groups",
    "SigBlk",
    "SigIgn",
    "CapInh",
    "CapPrm",
    "CapEff",
    "CapBnd",
    "CapAmb",
    "NoNewPrivs",
    "Seccomp",
    "Seccomp_filters",
    "Speculation_Store_Bypass",
];

/// Variables that a session has beside the container's own.
const OF_THE_SESSION: [&str; 10] =
    ["HOME", "USER", "LOGNAME", "SHELL", "SSH_CLIENT", "SSH_CONNECTION", "PWD", "OLDPWD", "SHLVL", "_"];

/// Ways to run a container, each with the image, and ssh's users that are tried there beside `container`.
const WAYS: &[(&str, &[&str], &str, &[&str])] = &[
    ("root", &[], BUSYBOX, &["root", "one", "1000", "4000"]),
    ("numbers", &["--user", "1000:2000"], BUSYBOX, &["root"]),
    ("name", &["--user", "one"], BUSYBOX, &[]),
    ("scratch", &[], SCRATCH, &["0", "65532", "1000"]),
    ("hardened", &["--read-only", "--cap-drop", "all", "--security-opt", "no-new-privileges"], SCRATCH, &["0"]),
    ("nocaps", &["--cap-drop", "all"], BUSYBOX, &[]),
    ("caps", &["--cap-add", "NET_ADMIN", "--cap-drop", "CHOWN"], BUSYBOX, &["one"]),
    ("powerful", &POWERFUL, BUSYBOX, &["one"]),
    ("unfiltered", &["--security-opt", "seccomp=unconfined"], SCRATCH, &[]),
    ("groups", &["--user", "1000", "--group-add", "2000", "--group-add", "3000"], BUSYBOX, &[]),
    ("limits", &["--ulimit", "nofile=1024:2048", "--ulimit", "core=0", "--ulimit", "nproc=4000"], BUSYBOX, &[]),
    ("memory", &["--memory", "64m", "--pids-limit", "100", "--oom-score-adj", "500"], BUSYBOX, &["one"]),
    ("pids", &["--pid", "host"], SCRATCH, &[]),
    ("host", &["--ipc", "host", "--uts", "host", "--network", "host"], SCRATCH, &[]),
    ("cgroup", &["--cgroupns", "host"], BUSYBOX, &[]),
    ("init", &["--init", "--workdir", "/tmp", "--env", "A=b c"], BUSYBOX, &["one"]),
];

/// The kernel's facts about a process, by name.
pub(super) fn told(said: &str) -> BTreeMap<String, String> {
    let mut told = BTreeMap::new();
    for part in said.split("== ").skip(1) {
        let (name, text) = part.split_once('\n').unwrap_or((part, ""));
        match name {
            "/proc/self/status" => {
                let text = without_library_signals(text);
                for (key, value) in text.lines().filter_map(|line| line.split_once(':')) {
                    if STATUS.contains(&key) {
                        told.insert(key.to_owned(), value.trim().to_owned());
                    }
                }
            }
            "environment" => {
                for (key, value) in text.split('\0').filter_map(|one| one.split_once('=')) {
                    if !OF_THE_SESSION.contains(&key) {
                        told.insert(format!("${key}"), value.to_owned());
                    }
                }
            }
            "/proc/self/limits" => {
                for line in text.lines() {
                    let (key, value) = line.split_at_checked(26).unwrap_or((line, ""));
                    let value = match key.trim() {
                        // Under `docker exec`, too, runc 1.1 gives the hard limit as the soft one in about half of the
                        // cases, because its own language raises it meanwhile.
                        key @ "Max open files" => value.split_whitespace().nth(1).unwrap_or(key),
                        _ => value.trim(),
                    };
                    told.insert(key.trim().to_owned(), value.to_owned());
                }
            }
            _ => drop(told.insert(name.to_owned(), text.trim().to_owned())),
        }
    }
    assert!(told.len() > 20, "{said}");
    told
}

/// Compares one user's session with docker's, with these tools. Returns the differences.
fn compare(site: &Site, container: &Container, image: &str, user: &str, tools: &str) -> Vec<String> {
    let options: &[&str] = if user == "container" { &[] } else { &["--user", user] };
    // ssh's command runs by the shell, where there is one. It ignores signals of its own.
    let command: &[&str] =
        if image == BUSYBOX { &["/bin/sh", "-c", "/app confinement"] } else { &["/app", "confinement"] };
    let output = container.exec(options, command);
    assert!(output.status.success(), "{output:?}");
    let mut theirs = told(&String::from_utf8(output.stdout).unwrap());
    let whose = format!("{user}@{} with tools {tools}", container.name);
    let mut client = site.client("ssh", &["-l", user, &site.host(&container.name), "/app", "confinement"]);
    let said = site.world.output(client.env("LABCTL_SSH_PROXY_TOOLS", tools));
    if !said.status.success() {
        return vec![format!("{whose}: {said:?}")];
    }
    let mut ours = told(&said.out);
    // The programs that are lent come after the container's own.
    if let Some(path) = ours.get_mut("$PATH").filter(|path| tools != "none" && path.ends_with("/fd/5/bin")) {
        path.truncate(path.rfind(":/proc/").unwrap());
    } else if tools != "none" {
        return vec![format!("{whose}: no tools")];
    }
    // The lent shell ignores SIGQUIT, as docker's command has no shell to do.
    if tools != "none" && image == SCRATCH && ours["SigIgn"] == "0000000000000004" {
        ours.insert("SigIgn".into(), "0000000000000000".into());
    }
    if !container.is_dockers() {
        // Other clients read groups otherwise than Docker, if at all, and podman's leaves out this variable. The groups of
        // the container's own user are those of its first process.
        let first = std::fs::read_to_string(format!("/proc/{}/status", container.pid())).unwrap();
        let groups = first.lines().find_map(|line| line.strip_prefix("Groups:")).unwrap().split_whitespace();
        // Of a user namespace, the kernel tells the computer's numbers.
        let inside = |group: &str| (group.parse::<u32>().unwrap() % 200_000).to_string();
        let groups: Vec<String> = groups.map(inside).collect();
        let groups = if user == "container" { groups.join(" ") } else { ours["Groups"].clone() };
        theirs.insert("Groups".to_owned(), groups);
        ours.remove("$HOSTNAME");
        theirs.remove("$HOSTNAME");
    }
    // Docker's client begins in the image's folder, as every user; ssh's users begin at home.
    if user != "container" {
        ours.insert("folder".into(), theirs["folder"].clone());
    }
    let keys: std::collections::BTreeSet<_> = theirs.keys().chain(ours.keys()).collect();
    let differs = keys.into_iter().filter(|key| theirs.get(*key) != ours.get(*key));
    differs.map(|key| format!("{whose}: {key}: {:?} instead of {:?}", ours.get(key), theirs.get(key))).collect()
}

fn all_of(engine: &'static Engine, ways: &[(&str, &[&str], &str, &[&str])]) -> Vec<String> {
    let site = &Site::new(engine, "builtin");
    thread::scope(|scope| {
        let running: Vec<_> = ways
            .iter()
            .map(|(name, options, image, users)| {
                scope.spawn(move || {
                    let network = if options.contains(&"--network") { &[][..] } else { &["--network", "none"] };
                    let options = [network, options].concat();
                    // Not the server, whose port could be another's in the host's network.
                    let container = engine.run(name, &options, image, &["sleep", "100000"]);
                    let users = [&["container"], *users].concat();
                    let both = users.iter().flat_map(|user| ["none", "always"].map(|tools| (user, tools)));
                    both.flat_map(|(user, tools)| compare(site, &container, image, user, tools)).collect::<Vec<_>>()
                })
            })
            .collect();
        running.into_iter().flat_map(|one| one.join().unwrap()).collect()
    })
}

#[test]
fn a_session_is_confined_as_docker_exec_is() {
    let Some(engine) = Engine::here() else { return };
    let differences = all_of(engine, WAYS);
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

/// As under sshd, a terminal that the container cannot give is refused as such.
#[test]
fn a_missing_terminal_is_no_missing_shell() {
    let Some(engine) = Engine::here() else { return };
    let site = Site::new(engine, "builtin");
    let container = engine.run("ptmx", &["--network", "none"], BUSYBOX, &[]);
    assert!(container.exec(&[], &["rm", "/dev/ptmx"]).status.success());
    let [with, without] = ["-tt", "-T"].map(|how| site.ssh(&[how, &site.host(&container.name), "echo in; exit 5"]));
    assert!(with.code() == 255 && with.err.contains("PTY allocation request failed"), "{with:?}");
    assert_eq!((without.code(), without.out.as_str()), (5, "in\n"), "{without:?}");
}

#[test]
fn in_a_user_namespace_too() {
    let Some(engine) = Engine::remapped() else { return };
    let ways = [WAYS[0], WAYS[3], WAYS[4], ("host_users", &["--userns", "host"], SCRATCH, &["0"])];
    let differences = all_of(engine, &ways);
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

/// podman's own exec is the judge of podman's containers. It has no words for the ways of the host, which are Docker's.
#[test]
fn a_session_is_confined_as_podman_exec_is() {
    let Some(engine) = Engine::podman() else { return };
    let ways: Vec<_> = WAYS.iter().copied().filter(|(name, ..)| !["memory", "init"].contains(name)).collect();
    let differences = all_of(engine, &[&ways[..], &[("userns", &MAPPED, SCRATCH, &["0"])]].concat());
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

/// As under `ctr task exec`, for nerdctl's containers and for those of Kubernetes.
#[test]
fn a_session_is_confined_as_ctr_task_exec_is() {
    for engine in [Engine::containerd(), Engine::cri()].into_iter().flatten() {
        let ways = [WAYS[0], WAYS[3], WAYS[4], ("userns", &MAPPED, SCRATCH, &["0"])];
        let differences = all_of(engine, &ways);
        assert!(differences.is_empty(), "{}", differences.join("\n"));
    }
}
