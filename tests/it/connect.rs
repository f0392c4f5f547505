//! The whole path, with OpenSSH's own programs: `ssh -F` with the entries that `config-ssh` wrote, our ProxyCommand,
//! the embedded platform, and a machine of each kind.

use std::{
    fs,
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    process::{Command, Stdio},
};

use crate::support::{Ending, World, checksum, eventually, free_port, needs, noise, not_run, on_both_endpoints};

#[test]
fn commands_and_how_they_end() {
    on_both_endpoints(|world, host, endpoint| {
        let ended = world.ssh(&[host, "echo out; echo err >&2; exit 7"]);
        assert_eq!((ended.code(), ended.out.as_str(), ended.err.as_str()), (7, "out\n", "err\n"));
        assert_eq!(world.ssh(&[host, "true"]).ok(), "");
        // Half-close: sort answers only after the end of its input.
        let sorted = world.feed(world.ssh_program("ssh").args([host, "sort"]), b"b\na\n");
        assert_eq!(sorted.stdout, b"a\nb\n");
        // Input and output without a reader. ssh reports that only to another OpenSSH, by a message of its own
        // (`eow@openssh.com`). With any other server it goes on until the command ends.
        assert!(world.feed(world.ssh_program("ssh").args([host, "true"]), &noise(1 << 20)).status.success());
        let endless = if endpoint == "sshd" { "yes" } else { "yes | head -n 100000" };
        let head = format!("ssh -F {} {host} '{endless}' | head -n 1", world.ssh_config().display());
        assert_eq!(world.output(world.program("sh").args(["-c", &head])).ok(), "y\n");
        // `-n`, `-T` and `-W`, which programs use.
        assert_eq!(world.ssh(&["-n", host, "cat; echo end"]).ok(), "end\n");
        let shell = world.feed(world.ssh_program("ssh").args(["-T", host]), b"echo in-a-shell; exit 3\n");
        assert!(String::from_utf8_lossy(&shell.stdout).contains("in-a-shell"));
        assert_eq!(shell.status.code(), Some(3));
        eventually("no proxy is left", || world.processes(" connect ").is_empty());
    });
}

#[test]
fn every_byte_arrives_either_way() {
    let data = noise(64 << 20);
    let sum = checksum(&data);
    on_both_endpoints(|world, host, _| {
        let play = host.strip_prefix("playground-").unwrap();
        let up = world.feed(world.ssh_program("ssh").args([host, "cksum"]), &data);
        assert_eq!(String::from_utf8_lossy(&up.stdout), sum);
        fs::write(world.machine_home(play, "shell-01").join("big"), &data).unwrap();
        let down = world.ssh_program("ssh").args([host, "cat big"]).output().unwrap();
        assert!(down.stdout == data);
        // Both directions at once: neither may wait for the other.
        let part = &data[..16 << 20];
        assert!(world.feed(world.ssh_program("ssh").args([host, "cat"]), part).stdout == part);
    });
}

/// A terminal of tmux, with access to its screen.
struct Tmux<'a>(&'a World);

impl Tmux<'_> {
    fn tmux(&self, arguments: &[&str]) -> String {
        let socket = self.0.path("tmux");
        let mut tmux = self.0.program("tmux");
        tmux.env("LANG", "C.UTF-8").env("TERM", "xterm").arg("-S").arg(socket).args(["-f", "/dev/null"]);
        self.0.output(tmux.args(arguments)).ok()
    }

    fn type_in(&self, text: &str) {
        self.tmux(&["send-keys", "-l", text]);
        self.tmux(&["send-keys", "Enter"]);
    }

    fn expect(&self, text: &str) {
        eventually(&format!("the terminal shows {text:?}"), || {
            self.tmux(&["capture-pane", "-p"]).lines().any(|line| line.trim_end() == text)
        });
    }
}

impl Drop for Tmux<'_> {
    fn drop(&mut self) {
        let _ = self.0.program("tmux").arg("-S").arg(self.0.path("tmux")).arg("kill-server").output();
    }
}

/// Returns true if the endpoint can open terminals. Without root, sshd needs terminals of group tty, which containers
/// often lack.
fn can_have_terminals(endpoint: &str) -> bool {
    endpoint == "builtin" || rustix::process::geteuid().is_root()
}

#[test]
fn an_interactive_shell_in_a_terminal_that_changes_its_size() {
    needs("tmux");
    on_both_endpoints(|world, host, endpoint| {
        if !can_have_terminals(endpoint) {
            return not_run("the group of new terminals is not the one that sshd wants");
        }
        let tmux = Tmux(world);
        let ssh = format!("ssh -F {} {host}; echo ended:$?; exec cat", world.ssh_config().display());
        tmux.tmux(&["new-session", "-d", "-x", "97", "-y", "31", &ssh, ";", "set", "status", "off"]);
        tmux.tmux(&["resize-window", "-x", "97", "-y", "31"]);
        tmux.type_in("PS1=; stty -echo; echo begin; stty size");
        tmux.expect("31 97");
        tmux.tmux(&["resize-window", "-x", "120", "-y", "40"]);
        eventually("the shell knows the new size", || {
            tmux.type_in("stty size");
            tmux.tmux(&["capture-pane", "-p"]).contains("40 120")
        });
        // In one group, which Ctrl-C ends whatever runs of it.
        tmux.type_in("(echo as''leep; sleep 1000)");
        tmux.expect("asleep");
        tmux.tmux(&["send-keys", "C-c"]);
        tmux.type_in("echo a''fter");
        tmux.expect("after");
        tmux.type_in("exit 9");
        tmux.expect("ended:9");
        eventually("no proxy is left", || world.processes(" connect ").is_empty());
    });
}

#[test]
fn a_terminal_that_is_closed_takes_its_proxy_along() {
    needs("tmux");
    let mut world = World::with_platform(&[]);
    let host = format!("playground-{}", world.playground("shell"));
    let tmux = Tmux(&world);
    let ssh = format!("exec ssh -F {} {host}", world.ssh_config().display());
    tmux.tmux(&["new-session", "-d", &ssh]);
    tmux.type_in("echo re''ady");
    eventually("a shell", || tmux.tmux(&["capture-pane", "-p"]).contains("ready"));
    assert_eq!(world.processes(" connect ").len(), 1);
    tmux.tmux(&["kill-server"]);
    eventually("no proxy is left", || world.processes(" connect ").is_empty());
}

#[test]
fn copies_by_scp_sftp_rsync_and_git() {
    for program in ["rsync", "git", "sftp"] {
        needs(program);
    }
    let data = noise(3 << 20);
    on_both_endpoints(|world, host, _| {
        let play = host.strip_prefix("playground-").unwrap();
        let there = |name: &str| fs::read(world.machine_home(play, "shell-01").join(name)).unwrap();
        let here = |name: &str| fs::read(world.path(name)).unwrap();
        fs::create_dir_all(world.path("tree/sub")).unwrap();
        fs::write(world.path("tree/sub/file name"), &data).unwrap();
        for (option, name) in [("-s", "new"), ("-O", "old")] {
            let scp =
                |from: &str, to: &str| world.output(world.ssh_program("scp").args([option, "-pqr", from, to])).ok();
            scp("tree", &format!("{host}:{name}"));
            assert!(there(&format!("{name}/sub/file name")) == data);
            scp(&format!("{host}:{name}"), &format!("back-{name}"));
            assert!(here(&format!("back-{name}/sub/file name")) == data);
        }
        let batch = "put \"tree/sub/file name\" by-sftp\nget by-sftp back-by-sftp\nmkdir d\nls -l\n";
        fs::write(world.path("batch"), batch).unwrap();
        let listed = world.output(world.ssh_program("sftp").args(["-b", "batch", host])).ok();
        assert!(listed.contains("by-sftp") && here("back-by-sftp") == data, "{listed}");

        let ssh = format!("ssh -F {}", world.ssh_config().display());
        let rsync = |from: &str, to: &str| world.output(world.program("rsync").args(["-a", "-e", &ssh, from, to])).ok();
        rsync("tree/", &format!("{host}:synced"));
        rsync(&format!("{host}:synced/"), "back-synced");
        assert!(here("back-synced/sub/file name") == data);

        let _ = world.ssh(&[host, "git init -q --bare repo.git"]).ok();
        let git = |arguments: &[&str]| {
            let mut git = world.program("git");
            git.env("GIT_SSH_COMMAND", &ssh).args(["-c", "user.name=t", "-c", "user.email=t@example.com"]);
            world.output(git.args(arguments)).ok()
        };
        let repository = format!("{host}:repo.git");
        git(&["clone", "-q", &repository, "work"]);
        fs::write(world.path("work/big"), &data).unwrap();
        git(&["-C", "work", "add", "."]);
        git(&["-C", "work", "commit", "-qm", "one"]);
        git(&["-C", "work", "push", "-q", "origin", "HEAD"]);
        git(&["clone", "-q", &repository, "again"]);
        assert!(here("again/big") == data);
    });
}

/// Starts a server that returns everything it receives after the end of the input. Returns its port.
fn echo_server() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            std::thread::spawn(move || {
                let mut data = Vec::new();
                stream.read_to_end(&mut data).unwrap();
                stream.write_all(&data).unwrap();
            });
        }
    });
    port
}

fn echoes(mut stream: TcpStream, data: &[u8]) -> bool {
    let mut writer = stream.try_clone().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            writer.write_all(data).unwrap();
            writer.shutdown(Shutdown::Write).unwrap();
        });
        let mut back = Vec::new();
        stream.read_to_end(&mut back).unwrap();
        back == data
    })
}

#[test]
fn ports_and_the_agent_are_forwarded_and_a_master_is_shared() {
    let data = noise(2 << 20);
    on_both_endpoints(|world, host, _| {
        let echo = echo_server();
        let (local, socks) = (free_port(), free_port());
        let control = format!("ControlPath={}", world.path("c").display());
        let agent = world.path("agent");
        let _agent =
            Ending(world.program("ssh-agent").args(["-D", "-a"]).arg(&agent).stdout(Stdio::null()).spawn().unwrap());
        eventually("an agent", || agent.exists());
        let identity = world.path(".ssh/iximiuz_labs_user");
        let _ = world.output(world.program("ssh-add").arg("-q").arg(identity).env("SSH_AUTH_SOCK", &agent)).ok();

        let mut master = world.ssh_program("ssh");
        master.args(["-AN", "-o", &control, "-o", "ControlMaster=yes", "-o", "ExitOnForwardFailure=yes"]);
        master.args(["-L", &format!("{local}:127.0.0.1:{echo}"), "-D", &socks.to_string(), host]);
        let _master = Ending(master.env("SSH_AUTH_SOCK", &agent).spawn().unwrap());
        let through = |arguments: &[&str]| {
            let mut ssh = world.ssh_program("ssh");
            world.output(ssh.args(["-o", &control]).args(arguments).env("SSH_AUTH_SOCK", &agent))
        };
        // A master accepts control commands once its forwardings are open.
        eventually("a master", || through(&["-O", "check", host]).status.success());
        let to = |port: u16| TcpStream::connect(("127.0.0.1", port)).unwrap();
        assert!(echoes(to(local), &data));
        let remote = through(&["-O", "forward", "-R", &format!("0:127.0.0.1:{echo}"), host]).ok();
        assert!(echoes(to(remote.trim().parse().unwrap()), &data));
        // SOCKS 5: no authentication, connect to 127.0.0.1.
        let mut stream = to(socks);
        let port = echo.to_be_bytes();
        stream.write_all(&[5, 1, 0, 5, 1, 0, 1, 127, 0, 0, 1, port[0], port[1]]).unwrap();
        stream.read_exact(&mut [0; 12]).unwrap();
        assert!(echoes(stream, b"through socks"));
        let keys = |command: &mut Command| world.output(command.env("SSH_AUTH_SOCK", &agent)).ok();
        assert_eq!(
            keys(world.ssh_program("ssh").args(["-A", host, "ssh-add -l"])),
            keys(world.program("ssh-add").arg("-l"))
        );
        // Many sessions in one connection share one proxy.
        std::thread::scope(|scope| {
            for n in 0..8 {
                let through = &through;
                scope.spawn(move || assert_eq!(through(&[host, &format!("exit {n}")]).code(), n));
            }
        });
        assert_eq!(world.processes(" connect ").len(), 1);
        let _ = through(&["-O", "exit", host]);
        eventually("no proxy is left", || world.processes(" connect ").is_empty());
    });
}

#[test]
fn whatever_shell_runs_the_proxy_command() {
    let mut world = World::with_platform(&[]);
    let host = format!("playground-{}", world.playground("duo"));
    for shell in ["sh", "bash", "fish", "tcsh", "zsh"] {
        let shell = needs(shell);
        for cwd in ["/", world.home().to_str().unwrap()] {
            let mut ssh = world.ssh_program("ssh");
            ssh.args([&format!("{host}.node-02"), "echo $LABCTL_SSH_PROXY_MACHINE"]);
            let said = world.output(ssh.env("SHELL", &shell).current_dir(cwd));
            assert!(said.err.is_empty(), "{said:?}");
            assert!(said.ok().trim().ends_with("/node-02"), "{} in {cwd}", shell.display());
        }
    }
}

/// A name is never guessed, even if there is a tunnel session of an earlier connection.
#[test]
fn a_name_that_has_come_to_mean_two_playgrounds_is_refused() {
    let mut world = World::with_platform(&[]);
    world.playground("shell");
    let host = "playground-shell";
    for _ in 0..2 {
        world.ssh(&[host, "true"]).ok();
    }
    world.playground("shell");
    let said = world.ssh(&[host, "true"]).failed(255);
    assert!(said.contains("2 playgrounds match `shell`"), "{said}");
}
