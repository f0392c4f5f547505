//! A container that means harm: to our server inside it, to the machine through it, and to the words that people read.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    process::{Child, Command, Stdio},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread::sleep,
    time::{Duration, Instant},
};

use super::{POWERFUL, Site};
use crate::support::{
    Ending, Said,
    engine::{BUSYBOX, Container, Engine, SCRATCH},
    eventually, needs, noise,
};

const NONE: [&str; 2] = ["--network", "none"];

/// Starts a session that stays, and waits until it is there.
fn stay(site: &Site, container: &Container, user: &str) -> Ending {
    let mut client = site.client("ssh", &["-l", user, &site.host(&container.name), "/app", "signalled"]);
    let mut child: Child = client.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut [0; 8]).unwrap();
    Ending(child)
}

/// The server's process in a container, on this computer.
fn servers(container: &Container) -> Vec<u32> {
    let mut found = container.visitors();
    found.retain(|(_, line)| line.ends_with(" serve"));
    found.into_iter().map(|(pid, _)| pid).collect()
}

/// Rows (a): our program can be written from no container, and no descriptor of it leads out.
#[test]
fn the_program_and_its_descriptors_cannot_be_written() {
    let Some(engine) = Engine::here() else { return };
    let site = Site::new(engine, "builtin");
    // Each may do more than the one before.
    let ways: [&[&str]; 3] = [&[], &["--cap-add", "SYS_PTRACE"], &POWERFUL];
    let mut seen = 0;
    for options in ways {
        let container = engine.run("attack", &[&NONE[..], options].concat(), BUSYBOX, &[]);
        let _staying = stay(&site, &container, "container");
        // From a session of its own, and by a process that is none of ours.
        let by_ssh = site.ssh(&[&site.host(&container.name), "/app", "attack"]).ok();
        let by_docker = String::from_utf8(container.exec(&[], &["/app", "attack"]).stdout).unwrap();
        for said in [by_ssh, by_docker] {
            assert!(said.ends_with("written: 0\n"), "{options:?}: {said}");
            seen += said.matches("tried /memfd:").count();
        }
    }
    assert!(seen >= 4, "the attack has found the program: {seen}");
}

/// Row (c): each open descriptor of the server and of what it starts is on the list.
#[test]
fn every_descriptor_inside_is_accounted_for() {
    let Some(engine) = Engine::here() else { return };
    let site = Site::new(engine, "builtin");
    for (image, user) in [(BUSYBOX, "container"), (SCRATCH, "container"), (BUSYBOX, "one")] {
        let container = engine.run("descriptors", &NONE, image, &[]);
        let staying = stay(&site, &container, user);
        let servers = servers(&container);
        assert_eq!(servers.len(), 1, "{:?}", container.visitors());
        let mut holders = 0;
        for (pid, line) in container.visitors() {
            let folder = fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
            let links: Vec<(String, String)> = folder
                .map(|entry| {
                    let entry = entry.unwrap();
                    let link = fs::read_link(entry.path()).unwrap().display().to_string();
                    (entry.file_name().display().to_string(), link)
                })
                .collect();
            if line.ends_with(" hold") {
                let mut its = links;
                its.retain(|(number, link)| !["0", "1", "2"].contains(&&**number) || !link.starts_with("pipe:["));
                assert_eq!(its, [("5".to_owned(), "/".to_owned())]);
                holders += 1;
                continue;
            }
            let known = |link: &str| {
                // The last one is that of a child.
                let anonymous =
                    ["pipe:[", "socket:[", "anon_inode:[eventpoll]", "anon_inode:[eventfd]", "anon_inode:[pidfd]"];
                // The program itself is open for those that it starts, in the server alone.
                anonymous.iter().any(|kind| link.starts_with(kind))
                    || link == "/dev/null"
                    || servers.contains(&pid) && link.starts_with("/memfd:")
            };
            assert!(links.iter().all(|(_, link)| known(link)), "{image} {user}: process {pid} has {links:?}");
            if !servers.contains(&pid) {
                let numbers: Vec<&str> = links.iter().map(|(number, _)| number.as_str()).collect();
                assert!(["0", "1", "2"].iter().all(|n| numbers.contains(n)) && numbers.len() == 3, "{links:?}");
            }
        }
        assert_eq!(holders, 1);
        drop(staying);
        // A program sees the same of itself, with a terminal and without.
        for terminal in ["-T", "-tt"] {
            let said =
                site.ssh(&[terminal, "-l", user, &site.host(&container.name), "/app", "descriptors", "self"]).ok();
            let numbers: Vec<&str> = said.lines().map(|line| line.split(' ').next().unwrap()).collect();
            assert_eq!(numbers, ["0", "1", "2"], "{said}");
        }
        site.leaves_nothing(&container);
    }
}

/// Row (e): whatever stands where accounts and shells are read, a session comes or is refused, soon and in little memory.
#[test]
fn no_passwd_and_no_shell_holds_a_session_up() {
    let Some(engine) = Engine::here() else { return };
    let site = Site::new(engine, "builtin");
    // Made in the container by its own root, in a container of its own each.
    let passwd = [
        ("a gibibyte", "truncate -s 1G /etc/passwd"),
        ("a gibibyte in one line", "printf root: >/etc/passwd; truncate -s 1G /etc/passwd"),
        ("a million lines", "yes many:x:5:5::/:/bin/sh | head -n 1000000 >>/etc/passwd"),
        ("zeros", "printf 'ro\\0ot:x:0:0\\0::/\\0:/bin/\\0sh\\n\\0' >/etc/passwd"),
        ("a pipe", "rm /etc/passwd; mkfifo /etc/passwd"),
        ("a link to itself", "ln -sf passwd /etc/passwd"),
        ("a device", "rm /etc/passwd; mknod /etc/passwd c 1 5"),
        ("a link out", "ln -sf ../../../../../../proc/1/root/etc/passwd /etc/passwd"),
        ("a link to a device", "ln -sf /dev/zero /etc/passwd"),
        ("a folder", "rm /etc/passwd; mkdir /etc/passwd"),
        ("nothing", "rm /etc/passwd /etc/group"),
        ("groups without end", "yes many:x:2000:root,one,1000 | head -n 1000000 >/etc/group"),
        ("a group that is a pipe", "rm /etc/group; mkfifo /etc/group"),
    ];
    let shell = [
        ("a shell that is a pipe", "mkfifo /p; chmod 755 /p; sed -i 's:/bin/sh:/p:' /etc/passwd"),
        ("a shell that is a link to itself", "ln -s l /l; sed -i 's:/bin/sh:/l:' /etc/passwd"),
        ("a shell that is a device", "mknod /d c 1 5; chmod 755 /d; sed -i 's:/bin/sh:/d:' /etc/passwd"),
        ("a shell that is a folder", "sed -i 's:/bin/sh:/etc:' /etc/passwd"),
        ("a shell that is text", "echo nothing >/t; chmod 755 /t; sed -i 's:/bin/sh:/t:' /etc/passwd"),
        ("every shell gone", "rm /bin/sh /bin/bash /bin/ash 2>/dev/null; true"),
        ("a home that is a link to itself", "rm -rf /root; ln -s root /root"),
        ("a home that is a pipe", "rm -rf /root; mkfifo /root"),
    ];
    let all = [&passwd[..], &shell].concat();
    let rows = Mutex::new(all.iter());
    let next = || rows.lock().unwrap().next();
    let run = || {
        let mut wrong = Vec::new();
        while let Some((name, make)) = next() {
            wrong.extend(at_monster(&site, engine, name, make));
        }
        wrong
    };
    let wrong: Vec<String> = std::thread::scope(|scope| {
        let running: Vec<_> = (0..4).map(|_| scope.spawn(run)).collect();
        running.into_iter().flat_map(|one| one.join().unwrap()).collect()
    });
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn at_monster(site: &Site, engine: &'static Engine, name: &str, make: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    let container = engine.run("monster", &NONE, BUSYBOX, &[]);
    let made = container.exec(&[], &["/bin/busybox", "sh", "-c", make]);
    assert!(made.status.success(), "{name}: {made:?}");
    let host = site.host(&container.name);
    let mut was_in = false;
    for user in ["container", "one"] {
        let said = site.ssh(&["-l", user, &host, "/app", "say", "in"]);
        let is_in = said.status.success() && said.out == "[in]\n";
        // The runtime reads accounts, too, and refuses what it cannot read, as it does under `docker exec`.
        let may_fail = !name.starts_with("a home") && *name != *"nothing" || user == "one";
        let says_why = said.code() != 0 && said.err.contains(&container.name);
        if !(is_in || may_fail && says_why) {
            wrong.push(format!("{name}: {user}: {said:?}"));
        }
        was_in |= is_in && user == "container";
    }
    if was_in {
        let memory = memory_at_most(site, &container);
        if memory > 24 * 1024 {
            wrong.push(format!("{name}: the server took {memory} KiB"));
        }
    }
    let start = Instant::now();
    while !container.visitors().is_empty() {
        if start.elapsed() > Duration::from_secs(30) {
            wrong.push(format!("{name}: left behind: {:?}", container.visitors()));
            break;
        }
        sleep(Duration::from_millis(100));
    }
    wrong
}

/// The most memory that the server of a session takes, in KiB. A debug build is larger than a release.
fn memory_at_most(site: &Site, container: &Container) -> u64 {
    let _staying = stay(site, container, "container");
    let of = |pid: u32| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap()
    };
    servers(container).into_iter().map(of).max().unwrap()
}

/// Row (f): the container kills our server, at any point. ssh ends with words.
fn kill_servers(count: usize) {
    let Some(engine) = Engine::here() else { return };
    let site = Site::new(engine, "builtin");
    let container = engine.run("killer", &NONE, BUSYBOX, &[]);
    let host = site.host(&container.name);
    site.ssh(&[&host, "true"]).ok();
    // It kills all that comes, after a random time. The process is the container's own.
    let killer = |wait: u32| {
        let words = format!("until /app processes | grep -q 'fd/3 [s]erve'; do :; done; usleep {wait}; /app end-all");
        let mut command = engine.command(&["exec", &container.id, "sh", "-c", &words]);
        Ending(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    };
    let random = noise(count);
    let mut lost = 0;
    for wait in random.iter().map(|byte| u32::from(*byte) * 2000) {
        let mut killing = killer(wait);
        let said: Said = site.ssh(&[&host, "echo in; exec sleep 1000"]);
        assert_ne!(said.code(), 0, "{said:?}");
        assert!(said.err.trim().len() > 20, "a sentence, after {wait} us: {said:?}");
        lost += usize::from(said.out == "in\n");
        let _ = killing.0.wait();
    }
    let _ = writeln!(std::io::stderr(), "{count} servers killed, {lost} of them in a session");
    eventually("no process of ours is left", || container.visitors().is_empty() && site.visits().is_empty());
    // The next one comes as if nothing had been.
    assert_eq!(site.ssh(&[&host, "echo in"]).ok(), "in\n");
}

#[test]
fn a_container_that_kills_our_server_ends_the_session_with_words() {
    kill_servers(10);
}

#[test]
#[ignore = "a minute; scripts/try-containers runs it"]
fn at_fifty_points() {
    kill_servers(50);
}

/// A server that hangs, because the container has stopped it, is let go with its client.
#[test]
fn a_server_that_is_frozen_is_let_go() {
    let Some(engine) = Engine::here() else { return };
    let site = Site::new(engine, "builtin");
    let container = engine.run("frozen", &NONE, BUSYBOX, &[]);
    let staying = stay(&site, &container, "container");
    let server = servers(&container)[0].to_string();
    assert!(Command::new("kill").args(["-STOP", &server]).status().unwrap().success());
    drop(staying);
    eventually("the machine is rid of the visit", || site.visits().is_empty());
    let _ = Command::new("kill").args(["-CONT", &server]).status();
    site.leaves_nothing(&container);
}

/// The same while the client sends more than what lies between it and the server can hold.
#[test]
fn a_server_that_is_frozen_in_an_upload_is_let_go() {
    let Some(engine) = Engine::here() else { return };
    let site = Site::new(engine, "builtin");
    let container = engine.run("frozen", &NONE, BUSYBOX, &[]);
    let mut client = site.client("ssh", &[&site.host(&container.name), "echo in; exec cat >/dev/null"]);
    let client = client.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut client = Ending(client);
    std::io::Read::read_exact(client.0.stdout.as_mut().unwrap(), &mut [0; 3]).unwrap();
    let server = servers(&container)[0].to_string();
    assert!(Command::new("kill").args(["-STOP", &server]).status().unwrap().success());
    let mut upload = client.0.stdin.take().unwrap();
    let sent = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while upload.write_all(&[0; 16 * 1024]).is_ok() {
                sent.fetch_add(1, Ordering::Relaxed);
            }
        });
        eventually("no more is taken", || {
            let before = sent.load(Ordering::Relaxed);
            sleep(Duration::from_millis(500));
            before > 16 && before == sent.load(Ordering::Relaxed)
        });
        drop(client);
    });
    eventually("the machine is rid of the visit", || site.visits().is_empty());
    let _ = Command::new("kill").args(["-CONT", &server]).stderr(Stdio::null()).status();
    site.leaves_nothing(&container);
}

/// An agent that was forwarded into one container signs for no other, although that shares its user and its memory.
#[test]
fn an_agent_is_its_own_containers_alone() {
    let Some(engine) = Engine::here() else { return };
    let site = Site::new(engine, "builtin");
    let agents = site.world.path("agent");
    let mut agent = Command::new(needs("ssh-agent"));
    let _agent = Ending(agent.arg("-D").arg("-a").arg(&agents).stdout(Stdio::null()).spawn().unwrap());
    eventually("an agent", || agents.exists());
    for options in [&["--ipc", "shareable"][..], &["--ipc", "host"], &["--ipc", "host", "--read-only"]] {
        // Not the server, whose socket would be the other's.
        let stay = ["sleep", "100000"];
        let container = engine.run("signer", &[&NONE[..], options].concat(), BUSYBOX, &stay);
        let shared = if options[1] == "host" { "host" } else { &format!("container:{}", container.id) };
        let other = engine.run("other", &[&NONE[..], &["--ipc", shared]].concat(), BUSYBOX, &stay);
        let words = "/app agent; echo $SSH_AUTH_SOCK; read end";
        let mut client = site.client("ssh", &["-A", &site.host(&container.name), words]);
        client.env("SSH_AUTH_SOCK", &agents).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut client = Ending(client.spawn().unwrap());
        let mut said = BufReader::new(client.0.stdout.take().unwrap()).lines().map(Result::unwrap);
        assert_eq!(said.next().unwrap(), "0 keys", "{options:?}");
        let path = said.next().unwrap();
        assert!(path.starts_with("/dev/shm/"), "{options:?}: {path}");
        let tried = other.exec(&["--env", &format!("SSH_AUTH_SOCK={path}")], &["/app", "agent"]);
        assert!(!tried.status.success(), "{options:?}: {tried:?}");
        drop(client);
        site.leaves_nothing(&container);
    }
}
