//! A machine as OpenSSH's own programs see it, with both of its endpoints.

use std::{
    fs,
    io::{Read, Write},
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Output, Stdio},
    sync::{Arc, mpsc},
    thread,
    time::{Duration, Instant},
};

use labctl_ssh_proxy::{
    error::Kind,
    local::machine::{Endpoint, Machine},
};

use crate::support::{
    fault::closed_port,
    free_port,
    machine::{BOTH, PATIENCE, World, listen, make_key, run, succeed},
    not_run,
    terminal::OnTerminal,
};

/// Waits for a condition that becomes true soon, by polling.
fn eventually(what: &str, mut happened: impl FnMut() -> bool) {
    let since = Instant::now();
    while !happened() {
        assert!(since.elapsed() < PATIENCE, "never: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// Returns true if a process runs. A zombie that init has not reaped yet does not count.
fn is_alive(pid: &str) -> bool {
    let state = run(Command::new("ps").args(["-o", "stat=", "-p", pid]), b"").stdout;
    state.first().is_some_and(|letter| *letter != b'Z')
}

/// Returns incompressible bytes that are cheap to compute.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

fn checksum(bytes: &[u8]) -> String {
    let output = run(&mut Command::new("cksum"), bytes);
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn commands_and_how_they_end() {
    for world in BOTH.map(World::new) {
        let output = world.ssh_with(&["m", "cat; echo err >&2; exit 7"], b"in");
        assert_eq!(
            (output.status.code(), &output.stdout[..], &output.stderr[..]),
            (Some(7), &b"in"[..], &b"err\n"[..])
        );
        assert_eq!(world.ssh(&["m", "true"]).status.code(), Some(0));
        // OpenSSH reports an exit-signal only in its log.
        let output = world.ssh(&["-v", "m", "kill -TERM $$"]);
        assert_eq!(output.status.code(), Some(255));
        let log = String::from_utf8_lossy(&output.stderr);
        assert!(log.contains("rtype exit-signal"), "{log}");
        // Half-close: sort answers only after the end of its input.
        assert_eq!(world.ssh_with(&["m", "sort"], b"b\na\n").stdout, b"a\nb\n");
        // A login shell, without a terminal.
        let output = world.ssh_with(&["-T", "m"], b"echo is:$0; exit 3\n");
        assert!(
            String::from_utf8_lossy(&output.stdout).contains("is:-") || world.endpoint == Endpoint::Sshd,
            "{output:?}"
        );
        assert_eq!(output.status.code(), Some(3));
    }
}

#[test]
fn the_environment_is_clean_and_the_home_is_the_machines() {
    for world in BOTH.map(World::new) {
        let home = world.machine.home().to_str().unwrap().to_owned();
        assert_eq!(world.text("pwd; echo $HOME; echo ~"), format!("{home}\n{home}\n{home}\n"));
        assert_eq!(world.text("echo $USER $LOGNAME"), format!("{0} {0}\n", world.user));
        let environment = world.text("env");
        assert!(!environment.contains("CARGO"), "{environment}");
        let arguments = ["-o", "SendEnv=LC_LABTEST", "-o", "SendEnv=HOSTILE", "m", "echo $LC_LABTEST,$HOSTILE"];
        let output = run(world.command("ssh").args(arguments).env("LC_LABTEST", "x y").env("HOSTILE", "1"), b"");
        assert_eq!(String::from_utf8_lossy(&output.stdout), "x y,\n");
    }
}

#[test]
fn every_byte_arrives_both_ways() {
    let data = noise(64 << 20);
    let sum = checksum(&data);
    for world in BOTH.map(World::new) {
        let up = world.ssh_with(&["m", "cksum"], &data);
        assert_eq!(String::from_utf8(up.stdout).unwrap(), sum);
        fs::write(world.home("big"), &data).unwrap();
        assert!(world.ssh(&["m", "cat big"]).stdout == data);
        // Both directions at once: neither may wait for the other.
        assert!(world.ssh_with(&["m", "cat"], &data).stdout == data);
    }
}

#[test]
fn a_reader_that_stalls_holds_nobody_else_up() {
    for world in BOTH.map(World::new) {
        let control = format!("ControlPath={}", world.path("c").display());
        let data = noise(24 << 20);
        let sum = checksum(&data);
        let mut master = world.command("ssh");
        master.args([
            "-o",
            &control,
            "-o",
            "ControlMaster=yes",
            "m",
            "echo ready; while [ ! -e go ]; do sleep 0.05; done; cksum",
        ]);
        let mut master = master.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (mut stdin, mut stdout) = (master.stdin.take().unwrap(), master.stdout.take().unwrap());
        stdout.read_exact(&mut [0; 6]).unwrap();
        thread::scope(|scope| {
            scope.spawn(move || stdin.write_all(&data).unwrap());
            // While more data waits than any window holds, other sessions of the connection work both ways.
            for _ in 0..5 {
                let output = world.ssh_with(&["-o", &control, "m", "cat"], b"still here");
                assert_eq!(output.stdout, b"still here");
            }
            fs::write(world.home("go"), "").unwrap();
            let mut rest = String::new();
            stdout.read_to_string(&mut rest).unwrap();
            assert_eq!(rest, sum);
        });
        assert!(master.wait().unwrap().success());
    }
}

/// Starts ssh on a terminal of ours.
fn on_terminal(world: &World, arguments: &[&str], rows: u16, columns: u16) -> OnTerminal {
    let command = pty_process::blocking::Command::new("ssh").arg("-F").arg(world.path("config")).args(arguments);
    OnTerminal::start(command.env("TERM", "vt220"), rows, columns)
}

/// Returns true if sshd can open terminals. Without root, it needs terminals of group tty, which containers often lack.
fn sshd_can_have_terminals() -> bool {
    let (_terminal, inner) = pty_process::blocking::open().unwrap();
    let group = rustix::fs::fstat(&inner).unwrap().st_gid;
    let groups = fs::read_to_string("/etc/group").unwrap_or_default();
    let tty = groups.lines().find_map(|line| line.strip_prefix("tty:")?.split(':').nth(1)?.parse().ok());
    rustix::process::geteuid().is_root() || tty.is_none_or(|tty: u32| tty == group)
}

#[test]
fn terminals_have_a_size_that_changes_and_keys_that_interrupt() {
    for world in BOTH.map(World::new) {
        if world.endpoint == Endpoint::Sshd && !sshd_can_have_terminals() {
            not_run("the group of new terminals is not the one that sshd wants");
            continue;
        }
        let mut shell = on_terminal(&world, &["m"], 31, 97);
        shell.type_in("PS1=; stty -echo; echo begin; stty size; tty; echo $TERM\n");
        shell.expect("begin\r\n31 97\r\n/dev/");
        shell.expect("vt220\r\n");
        shell.type_in("trap 'stty size; echo resized' WINCH; echo waiting\n");
        shell.expect("waiting");
        shell.terminal.resize(pty_process::Size::new(40, 120)).unwrap();
        // The shell runs its trap at the latest when it is in the foreground again.
        eventually("the terminal's new size", || {
            shell.type_in("stty size | sed s/^/size=/\n");
            shell.expect("size=");
            shell.expect("\r\n");
            shell.type_in("stty size | grep -q '40 120' && echo as-told || echo not-yet\n");
            while !shell.seen.contains("as-told") && !shell.seen.contains("not-yet") {
                shell.seen.push_str(&String::from_utf8_lossy(&shell.output.recv_timeout(PATIENCE).unwrap()));
            }
            let told = shell.seen.contains("as-told");
            shell.seen.clear();
            told
        });
        // One process from the first word on: bash forgets an interrupt that comes between fork and exec.
        shell.type_in("trap - WINCH; sh -c 'echo asleep; exec sleep 1000'; echo interrupted:$?\n");
        shell.expect("asleep");
        shell.type_in("\x03");
        shell.type_in("echo after\n");
        shell.expect("after");
        shell.type_in("exit 9\n");
        assert_eq!(shell.child.wait().unwrap().code(), Some(9));
    }
}

#[test]
fn files_by_sftp() {
    for world in BOTH.map(World::new) {
        let data = noise(9 << 20);
        fs::write(world.path("up"), &data).unwrap();
        fs::set_permissions(world.path("up"), fs::Permissions::from_mode(0o640)).unwrap();
        let batch = "pwd\nmkdir d\nput -p up d/a\nrename d/a d/b\nln -s b d/link\nls -la d\nchmod 600 d/b\nget d/b down\nmkdir e\nrmdir e\nput up gone\nrm gone\n";
        fs::write(world.path("batch"), batch).unwrap();
        let shown = succeed(world.command("sftp").args(["-b", "batch", "m"]));
        assert!(shown.contains(&format!("Remote working directory: {}", world.machine.home().display())), "{shown}");
        assert!(shown.contains("-rw-r-----") && shown.contains("lrwxrwxrwx"), "{shown}");
        assert!(fs::read(world.home("d/b")).unwrap() == data && fs::read(world.path("down")).unwrap() == data);
        assert_eq!(fs::metadata(world.home("d/b")).unwrap().permissions().mode() & 0o777, 0o600);
        let time = |path: &Path| {
            fs::metadata(path).unwrap().modified().unwrap().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs()
        };
        assert_eq!(time(&world.home("d/b")), time(&world.path("up")));
        assert_eq!(fs::read_link(world.home("d/link")).unwrap(), Path::new("b"));
        assert!(!world.home("gone").exists() && !world.home("e").exists());
        // Errors have the right names, and do not end the session.
        fs::write(world.path("batch"), "-get none\n-mkdir d\n-rmdir d\nget d/b again\n").unwrap();
        let output = run(world.command("sftp").args(["-b", "batch", "m"]), b"");
        assert!(output.status.success() && String::from_utf8_lossy(&output.stderr).contains("not found"), "{output:?}");
        // A directory with more entries than one answer holds.
        fs::create_dir(world.home("many")).unwrap();
        for n in 0..350 {
            fs::write(world.home(&format!("many/{n}")), "").unwrap();
        }
        fs::write(world.path("batch"), "ls -1 many\n").unwrap();
        assert_eq!(succeed(world.command("sftp").args(["-b", "batch", "m"])).lines().count(), 351);
    }
}

#[test]
fn copies_by_scp_rsync_and_git() {
    for world in BOTH.map(World::new) {
        let data = noise(3 << 20);
        fs::create_dir_all(world.path("tree/sub")).unwrap();
        fs::write(world.path("tree/sub/file name"), &data).unwrap();
        for (options, name) in [(&["-pr"][..], "new"), (&["-O", "-pr"][..], "old")] {
            succeed(world.command("scp").args(options).args(["tree", &format!("m:{name}")]));
            assert!(fs::read(world.home(&format!("{name}/sub/file name"))).unwrap() == data);
            succeed(world.command("scp").args(options).args([&format!("m:{name}"), &format!("back-{name}")]));
            assert!(fs::read(world.path(&format!("back-{name}/sub/file name"))).unwrap() == data);
        }
        succeed(world.command("scp").args(["tree/sub/file name", "m:~/tilde"]));
        assert!(world.home("tilde").exists());
        assert!(!run(world.command("scp").args(["m:none", "."]), b"").status.success());

        let ssh = format!("ssh -F {}", world.path("config").display());
        let rsync = |from: &str, to: &str| {
            succeed(Command::new("rsync").args(["-a", "-e", &ssh, from, to]).current_dir(world.folder.path()))
        };
        rsync("tree/", "m:synced");
        rsync("m:synced/", "back-synced");
        assert!(fs::read(world.path("back-synced/sub/file name")).unwrap() == data);

        world.text("git init -q --bare repo.git");
        let git = |arguments: &[&str]| {
            let mut git = Command::new("git");
            git.args(["-c", "user.name=t", "-c", "user.email=t@example.com"]).args(arguments);
            succeed(git.env("GIT_SSH_COMMAND", &ssh).current_dir(world.folder.path()))
        };
        git(&["clone", "-q", "m:repo.git", "work"]);
        fs::write(world.path("work/big"), &data).unwrap();
        git(&["-C", "work", "add", "."]);
        git(&["-C", "work", "commit", "-qm", "one"]);
        git(&["-C", "work", "push", "-q", "origin", "HEAD"]);
        git(&["clone", "-q", "m:repo.git", "again"]);
        assert!(fs::read(world.path("again/big")).unwrap() == data);
    }
}

/// Starts a server that returns everything it receives after the end of the input. Returns its port.
fn echo_server() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            thread::spawn(move || {
                let mut data = Vec::new();
                stream.read_to_end(&mut data).unwrap();
                stream.write_all(&data).unwrap();
            });
        }
    });
    port
}

/// A master connection that forwards. It ends with the test.
struct Forwarding<'a> {
    world: &'a World,
    child: std::process::Child,
}

impl<'a> Forwarding<'a> {
    fn start(world: &'a World, arguments: &[&str]) -> Forwarding<'a> {
        let control = format!("ControlPath={}", world.path("c").display());
        let mut command = world.command("ssh");
        command.args(["-N", "-o", &control, "-o", "ControlMaster=yes", "-o", "ExitOnForwardFailure=yes"]);
        let child = command.args(arguments).arg("m").stdin(Stdio::null()).spawn().unwrap();
        let forwarding = Forwarding { world, child };
        // A master accepts control commands once its forwardings are open.
        eventually("a master", || forwarding.control(&["-O", "check"]).status.success());
        forwarding
    }

    fn control(&self, arguments: &[&str]) -> Output {
        let control = format!("ControlPath={}", self.world.path("c").display());
        run(self.world.command("ssh").args(["-o", &control]).args(arguments).arg("m"), b"")
    }
}

impl Drop for Forwarding<'_> {
    fn drop(&mut self) {
        self.control(&["-O", "exit"]);
        let _ = self.child.wait();
    }
}

fn echoes_tcp(port: u16, data: &[u8]) -> bool {
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
    thread::scope(|scope| {
        let mut writer = stream.try_clone().unwrap();
        scope.spawn(move || {
            writer.write_all(data).unwrap();
            writer.shutdown(std::net::Shutdown::Write).unwrap();
        });
        let mut back = Vec::new();
        stream.read_to_end(&mut back).unwrap();
        back == data
    })
}

#[test]
fn tcp_is_forwarded_both_ways() {
    let data = noise(5 << 20);
    for world in BOTH.map(World::new) {
        let echo = echo_server();
        let (local, socks) = (free_port(), free_port());
        let forward = format!("{local}:127.0.0.1:{echo}");
        let forwarding = Forwarding::start(&world, &["-L", &forward, "-D", &socks.to_string()]);
        assert!(echoes_tcp(local, &data));
        // A port on the machine, chosen by the machine.
        let answer = forwarding.control(&["-O", "forward", "-R", &format!("0:127.0.0.1:{echo}")]);
        let remote: u16 = String::from_utf8_lossy(&answer.stdout).trim().parse().expect("a port");
        assert!(echoes_tcp(remote, &data));
        thread::scope(|scope| {
            for _ in 0..20 {
                scope.spawn(|| assert!(echoes_tcp(remote, b"one of many")));
            }
        });
        // A given port, opened and closed again.
        let chosen = free_port();
        let forward = format!("{chosen}:127.0.0.1:{echo}");
        assert!(forwarding.control(&["-O", "forward", "-R", &forward]).status.success());
        assert!(echoes_tcp(chosen, b"a chosen port"));
        // OpenSSH accepts one of the two loopback addresses, so occupy both.
        let _taken = std::net::TcpListener::bind(("::1", echo));
        let taken = ["-R", &format!("{echo}:127.0.0.1:9"), "-o", "ExitOnForwardFailure=yes", "m", "true"];
        assert_eq!(world.ssh(&taken).status.code(), Some(255));
        assert!(forwarding.control(&["-O", "cancel", "-R", &forward]).status.success());
        eventually("a closed port", || std::net::TcpStream::connect(("127.0.0.1", chosen)).is_err());
        // SOCKS 5: no authentication, connect to 127.0.0.1.
        let mut stream = std::net::TcpStream::connect(("127.0.0.1", socks)).unwrap();
        let port = echo.to_be_bytes();
        stream.write_all(&[5, 1, 0, 5, 1, 0, 1, 127, 0, 0, 1, port[0], port[1]]).unwrap();
        stream.read_exact(&mut [0; 12]).unwrap();
        stream.write_all(b"through socks").unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut back = Vec::new();
        stream.read_to_end(&mut back).unwrap();
        assert_eq!(back, b"through socks");
        // Without a listener the connection is refused, and the SSH connection goes on.
        let nobody = world.ssh(&["-W", &format!("127.0.0.1:{}", closed_port()), "m"]);
        assert!(!nobody.status.success());
        assert!(echoes_tcp(local, b"still"));
    }
}

#[test]
fn unix_sockets_are_forwarded_both_ways() {
    for world in BOTH.map(World::new) {
        let echo = echo_server();
        // On the client, `l` leads to the machine's `far`, which leads back to the echo server.
        let remote = format!("{}:127.0.0.1:{echo}", world.home("far").display());
        let local = format!("{}:{}", world.path("l").display(), world.home("far").display());
        let forwarding = Forwarding::start(&world, &["-R", &remote, "-L", &local]);
        let mut stream = std::os::unix::net::UnixStream::connect(world.path("l")).unwrap();
        stream.write_all(b"there and back").unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut back = Vec::new();
        stream.read_to_end(&mut back).unwrap();
        assert_eq!(back, b"there and back");
        assert_eq!(fs::metadata(world.home("far")).unwrap().permissions().mode() & 0o777, 0o600);
        drop(forwarding);
        if world.endpoint == Endpoint::Builtin {
            eventually("no socket left behind", || !world.home("far").exists());
        }
    }
}

/// An ssh-agent that ends with the test.
struct Agent(std::process::Child);

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn the_agent_comes_along() {
    for world in BOTH.map(World::new) {
        let socket = world.path("agent");
        let _agent =
            Agent(Command::new("ssh-agent").args(["-D", "-a"]).arg(&socket).stdout(Stdio::null()).spawn().unwrap());
        eventually("an agent", || socket.exists());
        succeed(Command::new("ssh-add").arg("-q").arg(world.path("id")).env("SSH_AUTH_SOCK", &socket));
        let here = succeed(Command::new("ssh-add").arg("-l").env("SSH_AUTH_SOCK", &socket));
        let command = "ssh-add -l; stat -c %a $(dirname $SSH_AUTH_SOCK); echo $SSH_AUTH_SOCK";
        let there = succeed(world.command("ssh").args(["-A", "m", command]).env("SSH_AUTH_SOCK", &socket));
        let there: Vec<&str> = there.lines().collect();
        assert_eq!((there[0], there[1]), (here.trim(), "700"));
        eventually("no agent socket left behind", || !Path::new(there[2]).exists());
        assert_eq!(world.text("echo x$SSH_AUTH_SOCK"), "x\n");
    }
}

#[test]
fn one_connection_carries_many_sessions() {
    for world in BOTH.map(World::new) {
        let _master = Forwarding::start(&world, &[]);
        let control = format!("ControlPath={}", world.path("c").display());
        thread::scope(|scope| {
            for n in 0..12 {
                let (world, control) = (&world, &control);
                scope.spawn(move || {
                    let data = noise(100_000 + n);
                    assert!(world.ssh_with(&["-o", control, "m", "cat"], &data).stdout == data);
                });
            }
        });
    }
}

#[test]
fn only_the_keys_on_the_list_get_in() {
    for world in BOTH.map(World::new) {
        let config = fs::read_to_string(world.path("config")).unwrap();
        fs::write(world.path("config"), config.replace("/id\n", "/stranger\n")).unwrap();
        let output = world.ssh(&["m", "true"]);
        assert_eq!(output.status.code(), Some(255));
        assert!(String::from_utf8_lossy(&output.stderr).contains("Permission denied (publickey)"), "{output:?}");
        let nobody = make_key(&world.path("other"));
        assert_eq!(world.machine.authorize("nobody-at-all", nobody.public_key()).unwrap_err().kind(), Kind::NotFound);
    }
}

#[test]
fn a_stop_ends_everything_and_the_host_key_stays() {
    for endpoint in BOTH {
        let world = World::new(endpoint);
        // Background processes in their own sessions that ignore SIGHUP, like daemons.
        world.text("echo $$ >pids; (setsid nohup sleep 1000 >/dev/null 2>&1 & echo $! >>pids); nohup sleep 1000 >/dev/null 2>&1 & echo $! >>pids");
        // One that lives on for a moment without its environment, as each process does while it ends.
        world.text(
            "setsid sh -c 'trap \"exec env -i sleep 0.8\" HUP; echo $$ >>pids; sleep 1000 & wait' >/dev/null 2>&1 &",
        );
        let mut running =
            world.command("ssh").args(["m", "echo $$ >>pids; exec sleep 1000"]).stdin(Stdio::null()).spawn().unwrap();
        eventually("five processes", || {
            fs::read_to_string(world.home("pids")).unwrap_or_default().lines().count() == 5
        });
        let pids = fs::read_to_string(world.home("pids")).unwrap();
        let alive = || pids.lines().skip(1).filter(|pid| is_alive(pid)).count();
        assert_eq!(alive(), 4);
        let known = fs::read(world.path("known_hosts")).unwrap();
        let (done, stopped) = mpsc::channel();
        let machine = Arc::clone(&world.machine);
        world.runtime.spawn(async move {
            machine.stop().await;
            let refused = Arc::clone(&machine).serve(tokio::io::duplex(64).0).await.unwrap_err();
            done.send(refused.kind()).unwrap();
        });
        assert_eq!(stopped.recv_timeout(PATIENCE).unwrap(), Kind::Refused);
        assert_eq!(alive(), 0);
        assert!(!running.wait().unwrap().success());

        let again = Arc::new(Machine::open("m", &world.path("machine"), endpoint, None).unwrap());
        fs::remove_file(world.path("s")).unwrap();
        let (_listening, _) = listen(&again, &world.path("s"));
        // The earlier authorized key still works, and the host key is still the known one.
        let output = world.ssh(&["-o", "StrictHostKeyChecking=yes", "m", "echo back"]);
        assert_eq!(String::from_utf8_lossy(&output.stdout), "back\n", "{output:?}");
        assert_eq!(fs::read(world.path("known_hosts")).unwrap(), known);
    }
}

#[test]
fn a_client_that_vanishes_takes_its_session_along() {
    let world = World::new(Endpoint::Builtin);
    // Plain lines, without bytes that are special to a terminal.
    fs::write(world.path("much"), "much\n".repeat(1 << 20)).unwrap();
    // Including a client whose data was never read.
    for (input, options) in [("/dev/null", "-T"), ("much", "-T"), ("much", "-tt")] {
        let mut client = Command::new("ssh")
            .arg("-F")
            .arg(world.path("config"))
            .args([options, "m", "echo $$ >pid; exec sleep 1000"])
            .stdin(fs::File::open(world.path(input)).unwrap())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        eventually("a session", || fs::read_to_string(world.home("pid")).is_ok_and(|pid| pid.ends_with('\n')));
        let pid = fs::read_to_string(world.home("pid")).unwrap();
        fs::remove_file(world.home("pid")).unwrap();
        client.kill().unwrap();
        client.wait().unwrap();
        eventually("the session's end", || !is_alive(pid.trim()));
    }
}

/// The same for a program that reads its input late: it gets all of it, although the client has closed the connection.
#[test]
fn what_a_client_has_sent_before_it_left_arrives() {
    let world = World::new(Endpoint::Builtin);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let to = listener.local_addr().unwrap();
    let port = free_port();
    let forwarding = Forwarding::start(&world, &["-L", &format!("{port}:{to}")]);
    let data = noise(5 << 20);
    let sender = thread::spawn({
        let data = data.clone();
        move || std::net::TcpStream::connect(("127.0.0.1", port)).unwrap().write_all(&data).unwrap()
    });
    let (mut stream, _) = listener.accept().unwrap();
    // Like a slow server: the client has sent everything, most of it into buffers, and has left.
    eventually("the client has left", || sender.is_finished());
    let mut all = Vec::new();
    stream.read_to_end(&mut all).unwrap();
    sender.join().unwrap();
    assert!(all == data, "{} of {} bytes", all.len(), data.len());
    drop(forwarding);
}

#[test]
fn commands_run_without_a_client() {
    for endpoint in BOTH {
        let world = World::new(endpoint);
        let run = |command: &str| world.runtime.block_on(world.machine.run(command));
        let outcome = run("pwd; echo \"$HOME\"; echo \"$FROM_OUTSIDE\" >&2; exit 3").unwrap();
        let home = world.machine.home().display();
        assert_eq!((outcome.code, outcome.stdout, outcome.stderr), (3, format!("{home}\n{home}\n"), "\n".to_owned()));
        assert_eq!(run("kill -KILL $$").unwrap().code, 128 + 9);
        // The end of the machine ends the command.
        let (machine, begun) = (Arc::clone(&world.machine), world.home("begun"));
        let running = world.runtime.spawn(async move { machine.run("echo >begun; exec sleep 1000").await });
        while !begun.exists() {
            thread::yield_now();
        }
        world.runtime.block_on(world.machine.stop());
        assert!(world.runtime.block_on(running).unwrap().unwrap().code > 128);
        assert!(run("true").unwrap_err().to_string().contains("being stopped"));
    }
}
