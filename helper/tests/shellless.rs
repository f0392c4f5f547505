//! A host without a shell, as OpenSSH's own programs see it: its programs, its files and forwards.
#![cfg(target_os = "linux")]

use std::{
    fs,
    net::TcpListener,
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    process::{Command, Output, Stdio},
    sync::Arc,
};

use helper::server::{self, Accounts, Admission, Host, processes::Processes};
use russh::keys::{Algorithm, PrivateKey, key::safe_rng};
use tempfile::TempDir;
use tokio::sync::watch;

/// A host that listens on this computer.
struct World {
    folder: TempDir,
    port: u16,
}

impl World {
    /// A host with these shells, and with only the programs of a folder of its own.
    fn new(shells: &[&str]) -> World {
        let folder = tempfile::tempdir().unwrap();
        let programs = folder.path().join("bin");
        fs::create_dir(&programs).unwrap();
        std::os::unix::fs::symlink("/usr/bin/printf", programs.join("say")).unwrap();
        fs::write(programs.join("text"), "no program").unwrap();
        fs::set_permissions(programs.join("text"), fs::Permissions::from_mode(0o644)).unwrap();
        let host = Host {
            name: "container web".to_owned(),
            admission: Admission::All,
            home: folder.path().to_owned(),
            start: folder.path().to_owned(),
            shells: shells.iter().map(PathBuf::from).collect(),
            tools: Err(String::new()),
            accounts: Accounts::Container,
            socket_folders: vec![PathBuf::from("/none"), folder.path().to_owned()],
            environment: vec![("PATH".into(), programs.into())],
            processes: Processes::unmarked(),
            farewell: "",
        };
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                listener.set_nonblocking(true).unwrap();
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                let key = PrivateKey::random(&mut safe_rng(), Algorithm::Ed25519).unwrap();
                let config = Arc::new(server::config(&host, vec![key]));
                let host = Arc::new(host);
                let (_stop, stopped) = watch::channel(false);
                loop {
                    let (stream, _) = listener.accept().await.unwrap();
                    let (host, config, stopped) = (Arc::clone(&host), Arc::clone(&config), stopped.clone());
                    tokio::spawn(async move { server::serve(&host, config, stream, stopped).await });
                }
            });
        });
        World { folder, port }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn client(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.args(["-F", "none", "-o", "StrictHostKeyChecking=no", "-o", "LogLevel=ERROR", "-o", "BatchMode=yes"]);
        command.arg("-o").arg(format!("Port={}", self.port)).stdin(Stdio::null());
        command.arg("-o").arg(format!("UserKnownHostsFile={}", self.path("known").display()));
        command
    }

    fn ssh(&self, arguments: &[&str]) -> Output {
        self.client("ssh").arg("127.0.0.1").args(arguments).output().unwrap()
    }

    fn refusal(&self, arguments: &[&str]) -> (i32, String) {
        let output = self.ssh(arguments);
        assert!(output.stdout.is_empty());
        (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
    }
}

#[test]
fn a_program_runs_with_its_arguments() {
    let world = World::new(&[]);
    for (command, said) in [
        (
            "say '%s|' one 'two words' \"three \\\"words\\\"\" four\\ words ''",
            "one|two words|three \"words\"|four words||",
        ),
        ("bin/say hello", "hello"),
        ("say '%s' '$HOME * && ;'", "$HOME * && ;"),
    ] {
        let output = world.ssh(&[command]);
        assert_eq!(String::from_utf8(output.stdout).unwrap(), said, "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(output.status.code(), Some(0));
    }
    // The program's own exit code.
    assert_eq!(world.ssh(&["say"]).status.code(), Some(1));
}

#[test]
fn a_refusal_is_a_sentence_and_a_shells_exit_code() {
    let world = World::new(&[]);
    let no_shell = "container web has no shell; its programs, SFTP and forwards work\n";
    for command in [&[][..], &["sh -c 'echo hello'"], &["bash"], &["/bin/none/bash -l"], &[" "]] {
        assert_eq!(world.refusal(command), (127, no_shell.to_owned()), "{command:?}");
    }
    for (command, code, words) in [
        ("rsync --server", 127, "container web has no program rsync, and no shell"),
        ("'x\u{1b}[31m'", 127, "container web has no program x\\u{1b}[31m, and no shell"),
        ("text", 126, "container web cannot run text: Permission denied"),
        ("bin", 127, "container web has no program bin, and no shell"),
        ("cd /app && say", 2, "container web has no shell for &; run one program, or quote &"),
        ("say 'a", 2, "a quote in the command for container web has no end"),
        ("say a\nsay b", 2, "container web has no shell, so it runs one program at a time"),
    ] {
        assert_eq!(world.refusal(&[command]), (code, format!("{words}\n")), "{command:?}");
    }
}

#[test]
fn a_shell_that_cannot_be_started_is_passed_over() {
    let world = World::new(&["/none", "/dev/null", "/etc/passwd", "/bin/sh"]);
    let output = world.ssh(&["echo $SHELL; say %s hello"]);
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "/bin/sh\nhello");
    let world = World::new(&["/none", "/dev/null"]);
    assert_eq!(world.ssh(&["say %s hello"]).stdout, b"hello");
}

#[test]
fn files_are_copied_and_listed() {
    let world = World::new(&[]);
    fs::write(world.path("here"), b"some bytes\0\n").unwrap();
    let copied = world.client("scp").arg(world.path("here")).arg("127.0.0.1:there").output().unwrap();
    assert!(copied.status.success(), "{}", String::from_utf8_lossy(&copied.stderr));
    assert_eq!(fs::read(world.path("there")).unwrap(), b"some bytes\0\n");
    let copied = world.client("scp").arg("127.0.0.1:there").arg(world.path("back")).output().unwrap();
    assert!(copied.status.success());
    assert_eq!(fs::read(world.path("back")).unwrap(), b"some bytes\0\n");
    fs::write(world.path("batch"), "pwd\nls -l there\n").unwrap();
    let listed = world.client("sftp").arg("-b").arg(world.path("batch")).arg("127.0.0.1").output().unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    assert!(listed.contains(&format!("Remote working directory: {}", world.folder.path().display())), "{listed}");
    assert!(listed.contains("12 ") && listed.contains(" there"), "{listed}");
}

#[test]
fn an_agent_goes_where_its_socket_finds_a_place() {
    let world = World::new(&["/bin/sh"]);
    let mut agent =
        Command::new("ssh-agent").arg("-D").arg("-a").arg(world.path("agent")).stdout(Stdio::null()).spawn().unwrap();
    while !world.path("agent").exists() {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    let output = world
        .client("ssh")
        .env("SSH_AUTH_SOCK", world.path("agent"))
        .args(["-A", "127.0.0.1", "echo $SSH_AUTH_SOCK"])
        .output()
        .unwrap();
    agent.kill().unwrap();
    agent.wait().unwrap();
    let socket = String::from_utf8(output.stdout).unwrap();
    assert!(socket.starts_with(world.path("ssh-").to_str().unwrap()), "{socket}");
}
