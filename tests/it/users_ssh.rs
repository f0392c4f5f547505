//! The user's own ssh: known hosts that other programs have written, agents, keys, options, and login shells that print
//! or end. ssh itself gets in, or says why it does not; so must our own client.

use std::{
    fs,
    os::unix::{fs::PermissionsExt, net::UnixListener},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde_json::Value;

use crate::support::{Ending, Said, World, eventually, needs, write_program};

/// A playground whose machine has a kubeconfig, and an ssh that reads the configuration in this world's home.
struct User {
    world: World,
    id: String,
    host: String,
}

impl User {
    fn new() -> User {
        let world = World::with_platform(&[]);
        let id = world.json(&["start", "shell", "--json"])["id"].as_str().unwrap().to_owned();
        let user = User { host: format!("playground-{id}"), world, id };
        fs::create_dir_all(user.world.path("bin")).unwrap();
        fs::create_dir_all(user.world.path(".ssh")).unwrap();
        let config = user.world.ssh_config();
        user.configuration("");
        let script = format!("#!/bin/sh\nexec {} -F {} \"$@\"\n", needs("ssh").display(), config.display());
        write_program(&user.world.path("bin/ssh"), &script);
        fs::create_dir_all(user.machine().join(".kube")).unwrap();
        fs::write(user.machine().join(".kube/config"), KUBECONFIG).unwrap();
        user
    }

    fn machine(&self) -> PathBuf {
        self.world.machine_home(&self.id, "shell-01")
    }

    /// Writes the user's options for all hosts, below our entries.
    fn configuration(&self, text: &str) {
        fs::write(self.world.ssh_config(), format!("Host *\n{text}\n")).unwrap();
        self.world.local(&["config-ssh", "--yes"]).ok();
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = self.world.command(&["--local"]);
        command.args(args).env("PATH", format!("{}:/usr/bin:/bin:/usr/sbin", self.world.path("bin").display()));
        command
    }

    fn run(&self, args: &[&str]) -> Said {
        self.world.output(&mut self.command(args))
    }

    fn kube(&self) -> Said {
        self.run(&["kube", &self.id, "--", "echo", "in"])
    }

    fn key(&self, name: &str, passphrase: &str) -> PathBuf {
        let path = self.world.path(name);
        let mut keygen = self.world.program("ssh-keygen");
        self.world.output(keygen.args(["-q", "-t", "ed25519", "-N", passphrase, "-f"]).arg(&path)).ok();
        path
    }

    /// Starts an agent on a socket of this world.
    fn agent(&self, name: &str) -> (Ending, PathBuf) {
        let socket = self.world.path(name);
        let agent = self.world.program("ssh-agent").args(["-D", "-a"]).arg(&socket).stdout(Stdio::null()).spawn();
        let agent = Ending(agent.unwrap());
        eventually("the agent listens", || socket.exists());
        (agent, socket)
    }

    fn add(&self, socket: &Path, key: &Path) {
        let mut add = self.world.program("ssh-add");
        let _ = self.world.output(add.arg("-q").arg(key).env("SSH_AUTH_SOCK", socket)).ok();
    }

    fn check(&self, name: &str) -> Value {
        let said = self.run(&["doctor", &self.host, "--json"]);
        let value: Value = serde_json::from_str(&said.out).unwrap();
        let found = value["checks"].as_array().unwrap().iter().find(|check| check["name"] == name).cloned();
        found.unwrap_or_else(|| panic!("{name}: {value:#}"))
    }
}

const KUBECONFIG: &str = "apiVersion: v1\nkind: Config\nclusters: [{name: c, cluster: {server: 'https://127.0.0.1:1'}}]\n\
    contexts: [{name: c, context: {cluster: c, user: c}}]\nusers: [{name: c, user: {token: t}}]\ncurrent-context: c\n";

#[test]
fn a_changed_host_key_is_refused_although_the_record_was_hashed_or_is_another_clients() {
    let mut world = World::with_platform(&[]);
    let id = world.playground("shell");
    let host = format!("playground-{id}");
    let known = world.root().join("known_hosts.local");
    world.ssh(&[&host, "true"]).ok();
    let folder = world.root().join("local/plays").join(&id).join("shell-01");
    for foreign in [true, false] {
        if foreign {
            let text = fs::read_to_string(&known).unwrap();
            let lines: Vec<String> =
                text.lines().map(|line| line.split(' ').take(3).collect::<Vec<_>>().join(" ") + "\n").collect();
            fs::write(&known, lines.concat()).unwrap();
        }
        world.output(world.program("ssh-keygen").args(["-q", "-H", "-f"]).arg(&known)).ok();
        let kept = fs::read(&known).unwrap();
        let old: Vec<(PathBuf, Vec<u8>)> = fs::read_dir(&folder)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.file_name().unwrap().to_string_lossy().starts_with("ssh_host_"))
            .map(|path| (path.clone(), fs::read(path).unwrap()))
            .collect();
        assert!(old.len() >= 2, "{old:?}");
        world.local(&["stop", &id]).ok();
        for (path, _) in &old {
            let kind = path.file_name().unwrap().to_string_lossy().split('_').nth(2).unwrap().to_owned();
            if path.extension().is_none() {
                fs::remove_file(path).unwrap();
                let _ = fs::remove_file(path.with_extension("pub"));
                let mut keygen = world.program("ssh-keygen");
                world.output(keygen.args(["-q", "-N", "", "-t", &kind, "-f"]).arg(path)).ok();
            }
        }
        world.local(&["start", &id]).ok();
        let said = world.ssh(&[&host, "echo", "ACCEPTED"]);
        assert!(said.code() == 255 && said.err.contains("the key on record is") && said.out.is_empty(), "{said:?}");
        assert_eq!(fs::read(&known).unwrap(), kept, "no line is added");
        world.local(&["stop", &id]).ok();
        for (path, contents) in old {
            fs::write(path, contents).unwrap();
        }
        world.local(&["start", &id]).ok();
        assert_eq!(world.ssh(&[&host, "echo", "in"]).ok(), "in\n");
    }
    world.local(&["destroy", &id, "--yes"]).ok();
    assert_eq!(fs::read_to_string(&known).unwrap(), "");
}

#[test]
fn the_agent_is_the_one_that_ssh_asks() {
    let user = User::new();
    let key = user.key("k", "");
    let only = user.world.path("only.pub");
    fs::copy(key.with_extension("pub"), &only).unwrap();
    let (_agent, socket) = user.agent("agent");
    user.add(&socket, &key);
    user.world.settings(&format!("identity: {}\n", only.display()));
    for (options, variable) in [
        (format!("IdentityAgent {}", socket.display()), None),
        ("IdentityAgent $MY_AGENT".into(), Some("MY_AGENT")),
        ("IdentityAgent ${MY_AGENT}".into(), Some("MY_AGENT")),
        ("IdentityAgent SSH_AUTH_SOCK".into(), Some("SSH_AUTH_SOCK")),
        (String::new(), Some("SSH_AUTH_SOCK")),
    ] {
        let with = |mut command: Command| {
            if let Some(name) = variable {
                command.env(name, &socket);
            } else {
                // Not the one that is named.
                command.env("SSH_AUTH_SOCK", "/nonexistent/agent");
            }
            user.world.output(&mut command)
        };
        // ssh expands `${...}` when it reads the option, and fails without it.
        let config = user.world.ssh_config();
        fs::write(&config, format!("Host *\n{options}\n")).unwrap();
        assert_eq!(with(user.command(&["kube", &user.id, "--", "echo", "in"])).ok(), "in\n", "{options}");
        assert!(with(user.command(&["ssh", &user.host, "echo", "in"])).ok().contains("in"), "{options}");
    }
    fs::write(user.world.ssh_config(), "Host *\nIdentityAgent none\n").unwrap();
    let said = user.world.output(user.command(&["kube", &user.id, "--", "true"]).env("SSH_AUTH_SOCK", &socket));
    let said = said.failed(13);
    let check = user.check("identity");
    assert!(check["verdict"] == "warning" && check["found"].as_str().unwrap().contains("no agent"), "{check:#}");
    assert!(said.contains("no agent has the private half") && said.contains("there is no agent"), "{said}");
    assert!(!said.contains("ssh-add"), "a public key cannot be added: {said}");
}

#[test]
fn a_silent_agent_is_blamed_itself_and_a_file_will_do() {
    let user = User::new();
    let key = user.key("k", "");
    let only = user.world.path("only.pub");
    fs::copy(key.with_extension("pub"), &only).unwrap();
    let socket = user.world.path("silent");
    let _silent = UnixListener::bind(&socket).unwrap();
    let kube =
        || user.world.output(user.command(&["kube", &user.id, "--", "echo", "in"]).env("SSH_AUTH_SOCK", &socket));
    assert_eq!(kube().ok(), "in\n");
    user.world.settings(&format!("identity: {}\n", only.display()));
    let said = kube().failed(13);
    assert!(said.contains("silent does not answer") && !said.contains("machine"), "{said}");
}

#[test]
fn a_passphrase_is_asked_for_as_ssh_asks() {
    let user = User::new();
    let key = user.key("locked", "open sesame");
    user.world.settings(&format!("identity: {}\n", key.display()));
    let asked = user.world.path("asked");
    let askpass = user.world.path("askpass");
    write_program(&askpass, &format!("#!/bin/sh\necho \"$1\" >> {}\necho open sesame\n", asked.display()));
    let ask = |mut command: Command| {
        command.env("SSH_ASKPASS", &askpass).env("SSH_ASKPASS_REQUIRE", "force").env("DISPLAY", ":0");
        user.world.output(&mut command)
    };
    assert_eq!(ask(user.command(&["kube", &user.id, "--", "echo", "in"])).ok(), "in\n");
    assert!(fs::read_to_string(&asked).unwrap().contains("locked"), "once, and for this key");
    assert_eq!(fs::read_to_string(&asked).unwrap().lines().count(), 1);
    eventually("its agent has ended", || user.world.processes("ssh-agent").is_empty());
    let mut none = user.command(&["kube", &user.id, "--", "true"]);
    let said = user.world.output(none.env("SSH_ASKPASS_REQUIRE", "force").env("SSH_ASKPASS", "/bin/false"));
    let said = said.failed(13);
    assert!(said.contains("is encrypted") && said.contains("ssh-add"), "{said}");
    // The user's agent gets it only if he says so.
    let (_agent, socket) = user.agent("agent");
    let list = || user.world.output(user.world.program("ssh-add").arg("-L").env("SSH_AUTH_SOCK", &socket));
    for (options, held) in [("", false), ("AddKeysToAgent yes", true)] {
        fs::write(user.world.ssh_config(), format!("Host *\n{options}\n")).unwrap();
        let mut command = user.command(&["kube", &user.id, "--", "echo", "in"]);
        command.env("SSH_AUTH_SOCK", &socket);
        assert_eq!(ask(command).ok(), "in\n");
        assert_eq!(list().status.success(), held, "{options}");
    }
    fs::remove_file(&asked).unwrap();
    let mut command = user.command(&["kube", &user.id, "--", "echo", "in"]);
    assert_eq!(ask(std::mem::replace(command.env("SSH_AUTH_SOCK", &socket), Command::new("true"))).ok(), "in\n");
    assert!(!asked.exists(), "the agent has it");
}

/// The file of a key on a security key, as ssh-keygen writes it. No device is needed to read it.
const SECURITY_KEY: &str = include_str!("../golden/keys/id_ed25519_sk");
const SECURITY_KEY_PUB: &str = include_str!("../golden/keys/id_ed25519_sk.pub");

#[test]
fn a_security_key_is_named_as_one() {
    let user = User::new();
    let key = user.world.path("id_sk");
    fs::write(&key, SECURITY_KEY).unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(user.world.path("id_sk.pub"), SECURITY_KEY_PUB).unwrap();
    user.world.settings(&format!("identity: {}\n", key.display()));
    assert!(user.check("identity")["remedy"].as_str().unwrap().contains("ssh-add"));
    let said = user.kube().failed(13);
    assert!(said.contains("is on a security key") && said.contains("ssh-add"), "{said}");
}

#[test]
fn the_users_other_options_do_not_reach_our_helpers() {
    let user = User::new();
    let port = 20_000 + u16::try_from(std::process::id() % 20_000).unwrap();
    let _taken = std::net::TcpListener::bind(("127.0.0.1", port));
    for options in [
        format!("LocalForward {port} localhost:80\nExitOnForwardFailure yes"),
        "RemoteForward 1 localhost:80\nExitOnForwardFailure yes".into(),
        "RequestTTY force".into(),
        "SessionType none".into(),
        "StdinNull yes".into(),
        "ForkAfterAuthentication yes".into(),
        "RemoteCommand echo hello".into(),
        "ControlMaster auto\nControlPath /nonexistent/x".into(),
        "LogLevel QUIET".into(),
        "PermitLocalCommand yes\nLocalCommand echo hello".into(),
    ] {
        fs::write(user.world.ssh_config(), format!("Host *\n{options}\n")).unwrap();
        let said = user.run(&["open", "code", &user.host, "src", "--print"]).ok();
        assert!(said.contains(&format!("{}/src", user.machine().display())), "{options}: {said}");
        assert_eq!(user.check("round trip")["verdict"], "ok", "{options}");
        assert_eq!(user.check("throughput")["verdict"], "ok", "{options}");
    }
    for (options, part) in [
        ("Ciphers aes128-cbc", "algorithms"),
        ("PubkeyAuthentication no", "PubkeyAuthentication"),
        ("HostKeyAlgorithms rsa-sha2-512", "algorithms"),
    ] {
        fs::write(user.world.ssh_config(), format!("Host *\n{options}\n")).unwrap();
        let check = user.check("ssh to a machine");
        assert!(check["remedy"].as_str().unwrap().contains(part), "{options}: {check:#}");
        user.configuration(options);
        let checks = user.run(&["doctor", &user.host, "--json"]).out;
        let name = options.split(' ').next().unwrap();
        assert!(checks.contains(&format!("your `{name}")), "{options}: {checks}");
    }
}

#[test]
fn the_remedy_for_a_shared_connection_is_one_that_helps() {
    let user = User::new();
    user.configuration("ControlMaster auto\nControlPath ~/.ssh/%C");
    let said = user.run(&["doctor", "--json"]).out;
    assert!(said.contains("ControlMaster") && said.contains("put it below `Host * !playground-*`"), "{said}");
    assert!(!said.contains("first line"), "the Include is there already: {said}");
}

#[test]
fn a_login_shell_may_print_and_one_that_ends_is_named() {
    let user = User::new();
    let passwd = Command::new("getent").args(["passwd", &rustix::process::getuid().as_raw().to_string()]).output();
    if !passwd.is_ok_and(|out| String::from_utf8_lossy(&out.stdout).trim_end().ends_with("bash")) {
        return;
    }
    let bashrc = user.machine().join(".bashrc");
    for noise in ["echo Welcome", "printf hello", "echo Welcome >&2", "trap 'echo bye' EXIT", "cd /; echo \"$PWD\""] {
        fs::write(&bashrc, noise).unwrap();
        assert_eq!(user.kube().ok(), "in\n", "{noise}");
        let said = user.run(&["open", "code", &user.host, "src", "--print"]).ok();
        assert!(said.contains(&format!("{}/src", user.machine().display())), "{noise}: {said}");
        for name in ["ssh to a machine", "round trip", "throughput"] {
            assert_eq!(user.check(name)["verdict"], "ok", "{noise}: {name}");
        }
    }
    for ending in ["exit 0", "echo Welcome; exit 3", "exec true"] {
        fs::write(&bashrc, ending).unwrap();
        for said in [user.kube(), user.run(&["open", "code", &user.host, "src", "--print"])] {
            let said = said.failed(14);
            assert!(said.contains("login shell") && said.contains(".bashrc"), "{ending}: {said}");
        }
        let check = user.check("ssh to a machine");
        assert!(check["found"].as_str().unwrap().contains("login shell"), "{ending}: {check:#}");
    }
    fs::write(&bashrc, "unset HOME").unwrap();
    let said = user.run(&["open", "code", &user.host, "src", "--print"]);
    assert!(!said.out.contains("+/src") && !said.out.contains("//src"), "{said:?}");
}

#[test]
fn the_kubeconfig_is_the_one_that_kubectl_reads_there() {
    let user = User::new();
    let (usual, other) = (user.machine().join(".kube/config"), user.machine().join("k3s.yaml"));
    fs::rename(&usual, &other).unwrap();
    fs::write(user.machine().join(".profile"), "echo hello\nexport KUBECONFIG=$HOME/none.yaml:$HOME/k3s.yaml\n")
        .unwrap();
    assert_eq!(user.kube().ok(), "in\n");
    fs::remove_file(user.machine().join(".profile")).unwrap();
    std::os::unix::fs::symlink("/nonexistent/k3s.yaml", &usual).unwrap();
    let said = user.kube().failed(4);
    assert!(said.contains("is a link that leads nowhere"), "{said}");
    fs::remove_file(&usual).unwrap();
    // The cluster writes it while we look.
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(std::time::Duration::from_secs(2));
            fs::copy(&other, &usual).unwrap();
        });
        assert_eq!(user.kube().ok(), "in\n");
    });
}
