//! Containers without a shell, or without bash, that are lent the machine's for as long as a connection lasts.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::Command,
    time::{Duration, SystemTime},
};

use super::{
    POWERFUL, Site,
    matrix::{self, Wrong},
    targets,
};
use crate::support::{
    Said,
    engine::{BUSYBOX, Container, Engine, SCRATCH, images::Image},
    eventually, needs,
    terminal::OnTerminal,
};

const NONE: [&str; 2] = ["--network", "none"];
const TOOLS: &str = "LABCTL_SSH_PROXY_TOOLS";

/// A script that only bash understands.
const BASHISMS: &str = r#"
set -euo pipefail
declare -a words=(one "two three")
declare -A map=([key]=value)
[[ "${words[1]}" =~ ^two\ (.*)$ ]] && printf '%s\n' "${BASH_REMATCH[1]} ${map[key]} ${#words[@]}"
read -r first _ <<<"from here"
printf -v shown '%s-%q' "$first" 'a b'
echo "$shown ${BASH_VERSION:+is bash} $(cat <(echo substituted))"
exit 6
"#;
const OF_BASHISMS: &str = "three value 2\nfrom-a\\ b is bash substituted\n";

/// Rows for a container that has nothing but `/app`, and what it is lent.
const ROWS: &[(&str, &str, &str)] = &[
    (
        "a login shell",
        r#"printf 'ls -d /app; cd /proc/self && ls -d status; echo $0 ${SHELL##*/}; exit 7\n' | ssh -T $HOST; echo $?"#,
        "/app\nstatus\n-sh sh\n7\n",
    ),
    (
        "programs and pipes",
        r#"ssh $HOST 'cat /data | wc -c; ps | grep -c "[a]pp serve"; for n in 1 2; do echo $n; done | sort -r; exit 4'; echo $?"#,
        "1048576\n2\n2\n1\n4\n",
    ),
    ("a program that there is not", "ssh $HOST no-such-program 2>/dev/null; echo $?", "127\n"),
    (
        "nothing can be written there",
        "ssh $HOST 'touch ${SHELL%/*}/new 2>&1; rm ${SHELL} 2>&1' | grep -c 'Read-only'",
        "2\n",
    ),
    (
        "nothing is above",
        "ssh $HOST 'd=${SHELL%/bin/sh}; [ -e $d/../../bin/sh ] && ! [ -e $d/../etc ] && echo so'",
        "so\n",
    ),
    ("a script for bash", "ssh $HOST bash <bashisms; echo $?", "three value 2\nfrom-a\\ b is bash substituted\n6\n"),
    (
        "bash in other words",
        r#"for way in 'bash -s' 'exec bash' /bin/bash 'exec /usr/bin/bash -s' 'bash --login -c bash' 'env bash' '/usr/bin/env bash'
       do ssh $HOST "$way" <bashisms | head -n 1; done; ssh $HOST '/bin/bash -c "a=(5 6); echo \${a[1]}"; echo not'"#,
        "three value 2\nthree value 2\nthree value 2\nthree value 2\nthree value 2\nthree value 2\nthree value 2\n6\nnot\n",
    ),
    ("bash starts itself again", r#"ssh $HOST bash <<<'"$BASH" -c "[[ a == a ]] && echo again"'"#, "again\n"),
    ("tar", "ssh $HOST tar -c data | tar -xO | cmp - $DATA && echo same", "same\n"),
    ("the old scp's own program is not there", "scp -O -q $HOST:/data x 2>/dev/null || echo no", "no\n"),
];

fn with_bashisms(rows: &[(&'static str, &'static str, &'static str)]) -> Vec<(&'static str, String, &'static str)> {
    let file = format!("cat >bashisms <<'END'{BASHISMS}END\n");
    rows.iter().map(|(name, script, expected)| (*name, file.clone() + script, *expected)).collect()
}

fn rows(
    site: &Site,
    container: &Container,
    tools: &str,
    rows: &[(&'static str, &'static str, &'static str)],
) -> Vec<Wrong> {
    let rows = with_bashisms(rows);
    let rows: Vec<(&'static str, &str, &str)> =
        rows.iter().map(|(name, script, said)| (*name, script.as_str(), *said)).collect();
    matrix::run_rows(site, container, tools, &rows)
}

fn ssh(site: &Site, tools: &str, args: &[&str]) -> Said {
    site.world.output(site.client("ssh", args).env(TOOLS, tools))
}

/// The folder on the machine in which helper and tools lie.
fn lying(site: &Site) -> Vec<String> {
    let entries = fs::read_dir(site.machine_folder().join("helper")).unwrap();
    entries
        .map(|entry| entry.unwrap().file_name().display().to_string())
        .filter(|name| !name.starts_with("helper-"))
        .collect()
}

#[test]
fn a_container_without_a_shell_is_lent_one() {
    let mut wrong = Vec::new();
    let mut kinds = targets();
    kinds.retain(|(_, _, _, image)| *image == SCRATCH);
    for (name, engine, options, image) in kinds {
        let site = Site::new(engine, "builtin");
        fs::write(site.world.path("data"), "").unwrap();
        fs::write(site.world.path("many"), "").unwrap();
        let container = engine.run(name, &options, image, &[]);
        // The helper is put there, which is said.
        site.ssh(&[&site.host(&container.name), "/app", "exit", "0"]).ok();
        engine.docker(&["cp", &format!("{}:/data", container.id), site.world.path("data").to_str().unwrap()]);
        wrong.extend(rows(&site, &container, "auto", ROWS));
        on_a_terminal(&site, &container);
        site.leaves_nothing(&container);
        assert_eq!(lying(&site).len(), 1, "{:?}", lying(&site));
    }
    matrix::are_well(wrong);
}

fn on_a_terminal(site: &Site, container: &Container) {
    let mut command = pty_process::blocking::Command::new("ssh");
    command = command.env_clear().env("HOME", site.world.home()).env("PATH", "/usr/bin:/bin").env("TERM", "vt220");
    command = command.arg("-F").arg(site.world.ssh_config()).args(["-tt", &site.host(&container.name)]);
    let mut shell = OnTerminal::start(command, 31, 97);
    shell.expect("$ ");
    shell.type_in("stty size; echo $((6 * 7))\r");
    shell.expect("31 97\r\n42\r\n");
    shell.type_in("exit 3\r");
    assert_eq!(shell.code(), Some(3));
}

/// With the tools, all that works without a shell works on.
#[test]
fn with_tools_every_row_is_as_with_a_shell() {
    let Some(engine) = Engine::here() else { return };
    let site = Site::new(engine, "builtin");
    fs::write(site.world.path("data"), crate::support::noise(1 << 20)).unwrap();
    fs::write(site.world.path("many"), crate::support::noise(1 << 20)).unwrap();
    let hard = ["--read-only", "--cap-drop", "all", "--security-opt", "no-new-privileges", "--shm-size", "64m"];
    let container = engine.run("lent", &[&NONE[..], &hard].concat(), SCRATCH, &[]);
    site.ssh(&[&site.host(&container.name), "/app", "exit", "0"]).ok();
    matrix::are_well(matrix::rows_at(&site, &container, "always", &[]));
    site.leaves_nothing(&container);
}

/// A container like Alpine's: a shell of busybox, and no bash.
#[test]
fn a_container_without_bash_is_lent_that() {
    let Some(engine) = Engine::here() else { return };
    let site = Site::new(engine, "builtin");
    let container = engine.run("ash", &NONE, BUSYBOX, &[]);
    let host = site.host(&container.name);
    site.ssh(&[&host, "true"]).ok();
    let bash = |tools: &str, user: &str, way: &str| {
        let mut client = site.client("ssh", &["-l", user, &host, way]);
        Said::of(site.world.feed(client.env(TOOLS, tools), BASHISMS.as_bytes()))
    };
    for (user, way) in [("container", "bash"), ("one", "bash -s"), ("1000", "/bin/bash"), ("root", "/bin/env bash")] {
        let said = bash("auto", user, way);
        assert_eq!((said.out.as_str(), said.code()), (OF_BASHISMS, 6), "{user} {way}: {said:?}");
    }
    let said = bash("none", "container", "bash");
    assert!(said.code() == 127 && said.err.contains("bash: not found"), "{said:?}");
    // The container's own shell and programs come first.
    assert_eq!(ssh(&site, "always", &[&host, "echo $SHELL; which tar"]).ok(), "/bin/sh\n/bin/tar\n");
    site.leaves_nothing(&container);
}

/// A container that hides the processes of others, and one whose processes are the machine's.
#[test]
fn hidden_and_foreign_processes_take_no_tools_away() {
    let Some(engine) = Engine::here() else { return };
    let site = Site::new(engine, "builtin");
    for options in [&POWERFUL[..], &["--pid", "host"]] {
        let container = engine.run("hidden", &[&NONE[..], options].concat(), BUSYBOX, &[]);
        let host = site.host(&container.name);
        site.ssh(&[&host, "true"]).ok();
        if options == POWERFUL {
            let hide = "mount -o remount,hidepid=2 /proc && grep -E 'hidepid=(2|invisible)' /proc/mounts";
            let hidden = container.exec(&[], &["sh", "-c", hide]);
            assert!(hidden.status.success(), "{hidden:?}");
        }
        for user in ["container", "one"] {
            let said = site.ssh(&["-l", user, &host, "bash -c '[[ a == a ]] && echo in; exit 3'"]);
            assert_eq!((said.out.as_str(), said.code()), ("in\n", 3), "{options:?} {user}: {said:?}");
        }
        eventually("nothing is left", || site.visits().is_empty());
    }
}

/// The machine's own busybox and bash are the judge of what lies there.
#[test]
fn the_machines_tools_are_made_once_and_damage_is_seen() {
    let Some(engine) = Engine::here() else { return };
    let site = Site::new(engine, "builtin");
    let container = engine.run("lent", &NONE, SCRATCH, &[]);
    let host = site.host(&container.name);
    ssh(&site, "none", &[&host, "/app", "exit", "0"]).ok();
    // Four at once make one.
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| assert_eq!(ssh(&site, "auto", &[&host, "echo in"]).ok(), "in\n"));
        }
    });
    let made = lying(&site);
    assert_eq!(made.len(), 1, "{made:?}");
    let folder = site.machine_folder().join("helper").join(&made[0]);
    let file = folder.join("bin/busybox");
    let own = fs::read(needs("busybox")).unwrap();
    assert!(fs::read(&file).unwrap() == own);
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!((mode(&folder), mode(folder.parent().unwrap()), mode(&file)), (0o755, 0o700, 0o755));
    // A new folder takes along what was not used for a week and is not in use, and what a killed one has left.
    let place = folder.parent().unwrap();
    let aged = SystemTime::now() - Duration::from_secs(8 * 24 * 60 * 60);
    let old = |name: &str| {
        fs::create_dir(place.join(name)).unwrap();
        let opened = fs::File::open(place.join(name)).unwrap();
        opened.set_modified(aged).unwrap();
        opened
    };
    drop((old("tools-old"), old(".tools-1")));
    let held = old("tools-held");
    held.lock_shared().unwrap();
    fs::File::open(&folder).unwrap().set_modified(aged).unwrap();
    assert_eq!(ssh(&site, "auto", &[&host, "echo in"]).ok(), "in\n");
    assert!(fs::metadata(&folder).unwrap().modified().unwrap() > aged, "its use is noted");
    fs::write(&file, "").unwrap();
    assert_eq!(ssh(&site, "auto", &[&host, "echo in"]).ok(), "in\n");
    let mut left = lying(&site);
    left.sort();
    assert_eq!(left, [&made[..], &["tools-held".to_owned()]].concat());
    fs::remove_dir(place.join("tools-held")).unwrap();
    for damage in [&b"#!/bin/sh\n"[..], &[&own[..own.len() - 1], b"x"].concat()] {
        fs::write(&file, damage).unwrap();
        assert_eq!(ssh(&site, "auto", &[&host, "echo in"]).ok(), "in\n");
        assert!(fs::read(&file).unwrap() == own);
        assert_eq!(lying(&site), made);
    }
    site.leaves_nothing(&container);
}

#[test]
fn a_folder_of_the_machine_is_lent() {
    let Some(engine) = Engine::here() else { return };
    let site = Site::new(engine, "builtin");
    let container = engine.run("lent", &[&NONE[..], &["--user", "1000"]].concat(), BUSYBOX, &[]);
    let host = site.host(&container.name);
    site.ssh(&[&host, "true"]).ok();
    let folder = site.world.path("own tools");
    fs::create_dir_all(folder.join("bin")).unwrap();
    let shown = folder.to_str().unwrap();
    engine.docker(&["cp", &format!("{}:/app", container.id), folder.join("bin/mine").to_str().unwrap()]);
    fs::set_permissions(folder.join("bin/mine"), fs::Permissions::from_mode(0o4755)).unwrap();
    fs::write(site.world.path("secret"), "x").unwrap();
    let made = Command::new("mknod").arg(folder.join("zero")).args(["c", "1", "5"]).status().unwrap();
    assert!(made.success());
    assert_eq!(ssh(&site, shown, &[&host, "mine say in; exit 3"]).code(), 3);
    // Not the rights of a set-uid file, no device, no way out, no change.
    let words = "mine show /proc/self/status | grep ^Uid; d=$(dirname $(dirname $(command -v mine))); \
                 head -c 1 $d/zero 2>&1 | grep -o 'Permission denied'; ls $d/.. ; cat $d/../secret 2>&1 | grep -o 'No such'; \
                 touch $d/new 2>&1 | grep -o Read-only";
    let said = ssh(&site, shown, &[&host, words]).ok();
    assert_eq!(said, "Uid:\t1000\t1000\t1000\t1000\nPermission denied\nbin\nzero\nNo such\nRead-only\n");
    // Without a folder `bin`, it is the one of the programs.
    assert_eq!(ssh(&site, &format!("{shown}/bin"), &[&host, "mine say in"]).ok(), "[in]\n");
    site.leaves_nothing(&container);
    let missing = format!("{shown}/missing");
    let file = format!("{shown}/bin/mine");
    for (tools, words) in [
        (missing.as_str(), "is no folder of tools: the machine has no such folder"),
        (&file, "is no folder of tools: it is a file"),
        ("/", "/ is no folder of tools: it is the whole machine"),
    ] {
        let said = ssh(&site, tools, &[&host, "true"]);
        assert!(said.code() == 255 && said.err.contains(words), "{said:?}");
    }
    let said = ssh(&site, "-x", &[&host, "true"]);
    assert!(said.code() == 255 && said.err.contains("an image's name begins with"), "{said:?}");
}

/// Each line of the image's programs is one that needs a loader, a library or a shell of the image.
#[test]
fn an_image_is_lent() {
    let Some(engine) = Engine::here() else { return };
    let site = Site::new(engine, "builtin");
    let container = engine.run("lent", &[&NONE[..], &["--read-only"]].concat(), SCRATCH, &[]);
    let host = site.host(&container.name);
    let files = site.world.path("image");
    dynamic(&files, &["bash", "rsync", "ls"]);
    // As in an image of Nix, where each package has its own folder.
    let package = files.join("nix/store/0-popt/lib");
    fs::create_dir_all(&package).unwrap();
    let popt = files.join(format!("lib/{}-linux-gnu/libpopt.so.0", std::env::consts::ARCH));
    fs::rename(popt, package.join("libpopt.so.0")).unwrap();
    let script = "#!/usr/bin/bash -e\na=(1 2)\necho script ${a[1]} $1\n";
    fs::write(files.join("usr/bin/script"), script).unwrap();
    fs::set_permissions(files.join("usr/bin/script"), fs::Permissions::from_mode(0o755)).unwrap();
    std::os::unix::fs::symlink("/usr/bin/bash", files.join("usr/bin/sh")).unwrap();
    engine.import(&files, Image { name: "lent-tools", user: "", variables: &["PATH=/bin:/usr/bin"] });
    let made = engine.docker(&["create", "lent-tools", "none"]);
    engine.docker(&["commit", "--change", "VOLUME /volume", &made, "lent-tools"]);
    engine.docker(&["rm", &made]);
    ssh(&site, "none", &[&host, "/app", "exit", "0"]).ok();
    let said = ssh(&site, "lent-tools", &[&host, "type ls; ls -d /app; script 3; echo ${BASH_VERSION:+bash}; exit 5"]);
    assert!(said.code() == 5 && said.out.ends_with("/fd/5/bin/ls\n/app\nscript 2 3\nbash\n"), "{said:?}");
    assert!(said.err.contains("unpacking image lent-tools on the machine"), "{said:?}");
    assert!(!ssh(&site, "lent-tools", &[&host, "true"]).err.contains("unpacking"));
    let words = "rsync -q --rsh=\"ssh -F $CONFIG\" $HOST:/data theirs && rsync -q --rsh=\"ssh -F $CONFIG\" theirs $HOST:/dev/shm/back && \
                 ssh $HOST /app show /dev/shm/back | cmp - theirs && wc -c <theirs";
    let config = site.world.ssh_config().display().to_string();
    let variables = [("HOST", host.as_str()), ("CONFIG", &config), (TOOLS, "lent-tools")];
    let said = site.script(words, &variables);
    assert_eq!(said, "1048576\n");
    site.leaves_nothing(&container);
    // No container of ours is left in the engine, and no second folder.
    assert_eq!(engine.docker(&["ps", "--all", "--quiet", "--filter", "ancestor=lent-tools"]), "");
    assert_eq!(engine.docker(&["volume", "ls", "--quiet"]), "");
    assert_eq!(lying(&site).len(), 1);
    let said = ssh(&site, "lent-no-such-image", &[&host, "true"]);
    assert!(
        said.code() == 255 && said.err.contains("the tools of image lent-no-such-image cannot be lent: docker says: "),
        "{said:?}"
    );
}

/// The programs of this computer with their loader and libraries, as an image has them.
fn dynamic(into: &Path, programs: &[&str]) {
    fs::create_dir_all(into.join("usr/bin")).unwrap();
    for program in programs {
        let program = needs(program);
        let listed = Command::new("ldd").arg(&program).output().unwrap();
        let listed = String::from_utf8(listed.stdout).unwrap();
        let libraries = listed.split_whitespace().filter(|word| word.starts_with('/'));
        let copy = |from: &str, to: &Path| {
            fs::create_dir_all(to.parent().unwrap()).unwrap();
            fs::copy(from, to).unwrap();
        };
        for library in libraries {
            copy(library, &into.join(library.trim_start_matches('/')));
        }
        copy(program.to_str().unwrap(), &into.join("usr/bin").join(program.file_name().unwrap()));
    }
}

/// Row (b): the tools cannot be left, changed or mounted, be it by a container that may nearly everything.
#[test]
fn the_tools_cannot_be_left_or_changed() {
    let Some(engine) = Engine::here() else { return };
    let site = Site::new(engine, "builtin");
    let ways: [(&Engine, &[&str]); 4] = [
        (engine, &[]),
        (
            engine,
            &[
                "--cap-add",
                "SYS_ADMIN",
                "--security-opt",
                "seccomp=unconfined",
                "--security-opt",
                "apparmor=unconfined",
            ],
        ),
        (engine, &POWERFUL),
        (engine, &["--user", "1000"]),
    ];
    for (engine, options) in ways {
        let container = engine.run("attack", &[&NONE[..], options].concat(), BUSYBOX, &[]);
        let mut client = site.client("ssh", &[&site.host(&container.name), "/app tamper; /app attack; read end"]);
        let mut child =
            client.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped()).spawn().unwrap();
        let mut said = std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().unwrap()));
        let mut lines = Vec::new();
        while lines.last().is_none_or(|line: &String| !line.starts_with("written: ")) {
            lines.push(said.next().unwrap().unwrap());
        }
        assert!(lines.contains(&"tried tools".to_owned()), "{options:?}: {lines:?}");
        assert!(lines.contains(&"breaches: 0".to_owned()), "{options:?}: {lines:?}");
        assert_eq!(lines.last().unwrap(), "written: 0", "{options:?}: {lines:?}");
        // By a process that is none of ours, as well.
        let by_docker = String::from_utf8(container.exec(&["--user", "0"], &["/app", "tamper"]).stdout).unwrap();
        assert!(
            by_docker.starts_with("tried tools") && by_docker.ends_with("breaches: 0\n"),
            "{options:?}: {by_docker}"
        );
        drop(child.stdin.take());
        child.wait().unwrap();
        site.leaves_nothing(&container);
    }
}

/// The process that holds the tools is killed: they are gone, and the session goes on.
#[test]
fn a_session_survives_the_loss_of_its_tools() {
    let Some(engine) = Engine::here() else { return };
    let site = Site::new(engine, "builtin");
    let container = engine.run("lent", &NONE, SCRATCH, &[]);
    let words =
        "ls /app; p=${SHELL%/fd/*}; kill -9 ${p#/proc/}; until ! [ -e $SHELL ]; do :; done; /app say on; exit 4";
    let said = ssh(&site, "auto", &[&site.host(&container.name), words]);
    assert_eq!((said.out.as_str(), said.code()), ("/app\n[on]\n", 4), "{said:?}");
    site.leaves_nothing(&container);
}

/// A machine without a busybox says so, and all but a shell works.
#[test]
fn a_machine_without_tools_says_so() {
    let Some(engine) = Engine::here() else { return };
    let site = Site::new(engine, "builtin");
    let container = engine.run("lent", &NONE, SCRATCH, &[]);
    let host = site.host(&container.name);
    site.ssh(&[&host, "/app", "exit", "0"]).ok();
    let said = ssh(&site, "none", &["-T", &host]);
    assert!(
        said.code() == 127 && said.err.contains("has no shell (tools: none are to be lent); its programs"),
        "{said:?}"
    );
    assert_eq!(ssh(&site, "none", &[&host, "/app say in"]).ok(), "[in]\n");
    eventually("nothing is left", || container.visitors().is_empty());
}
