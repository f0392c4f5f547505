//! Placing: one relay for each user, at the right server, or none.

use std::{
    fs,
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    thread,
};

use ring::digest::{SHA256, digest};
use rustix::process::Signal;

use super::client::{self, Known, Relay, SCRIPT, Session, file, frame, named, run, with};
use crate::support::{eventually, fault::closed_port, needs, noise};

#[test]
fn all_who_ask_at_once_find_one_relay() {
    let relay = Relay::start();
    let other = TcpStream::connect(relay.address()).unwrap();
    let expected: String = relay.key.iter().map(|byte| format!("{byte:02x}")).collect();
    let expected = format!("LHR1 {} {} {expected}\n", relay.new, relay.resume);
    let home = relay.home().to_owned();
    assert_eq!(run(SCRIPT, &home, &named(&other)), expected);
    let mode = |path: PathBuf| std::os::unix::fs::PermissionsExt::mode(&fs::metadata(path).unwrap().permissions());
    assert_eq!(mode(file(&home)) & 0o777, 0o600);
    assert_eq!(mode(home.join(".cache/labctl-ssh-proxy")) & 0o777, 0o700);
    // One that was killed leaves a file, and no lock: one of those who ask starts another.
    relay.signal(Signal::KILL);
    eventually("the relay is gone", || !relay.runs());
    let answers: Vec<String> = thread::scope(|scope| {
        let asks = || scope.spawn(|| run(SCRIPT, &home, &named(&other)));
        let all: Vec<_> = (0..8).map(|_| asks()).collect();
        all.into_iter().map(|one| one.join().unwrap()).collect()
    });
    assert!(answers[0].starts_with("LHR1 ") && answers[0] != expected);
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
    end(&home);
}

/// Ends the relay of a home that no [`Relay`] stands for.
fn end(home: &std::path::Path) {
    let record: serde_json::Value = serde_json::from_slice(&fs::read(file(home)).unwrap()).unwrap();
    let pid = rustix::process::Pid::from_raw(record["pid"].as_i64().unwrap().try_into().unwrap()).unwrap();
    rustix::process::kill_process(pid, Signal::TERM).unwrap();
    eventually("the relay has removed its file", || !file(home).exists());
}

/// Row 16.
#[test]
fn a_machine_that_can_have_none_says_why() {
    let home = tempfile::tempdir().unwrap();
    let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let open = TcpStream::connect(server.local_addr().unwrap()).unwrap();
    let port = server.local_addr().unwrap().port();
    for untrue in [
        String::new(),
        "UNKNOWN 65535 UNKNOWN 65535".to_owned(),
        format!("127.0.0.1 {} 127.0.0.1 {port}", closed_port()),
        format!("127.0.0.1 {} 127.0.0.1 {}", open.local_addr().unwrap().port(), closed_port()),
        "127.0.0.1 x 127.0.0.1 y".to_owned(),
    ] {
        let said = run(SCRIPT, home.path(), &untrue);
        assert_eq!(said, "LHR0 its SSH server does not tell its own address\n", "{untrue}");
    }
    assert!(!home.path().join(".cache").exists(), "nothing is left");
    // A home that cannot be written, as root sees it, too: a file is in the way.
    fs::write(home.path().join(".cache"), "").unwrap();
    let said = run(SCRIPT, home.path(), &named(&open));
    assert!(said.starts_with("LHR0 cannot write ") && said.ends_with("Not a directory\n"), "{said}");
    // Another file under its name: a link of another user's making is not followed.
    fs::remove_file(home.path().join(".cache")).unwrap();
    fs::create_dir_all(home.path().join(".cache/labctl-ssh-proxy")).unwrap();
    fs::write(home.path().join("precious"), "precious").unwrap();
    std::os::unix::fs::symlink(home.path().join("precious"), file(home.path())).unwrap();
    assert!(run(SCRIPT, home.path(), &named(&open)).starts_with("LHR0 cannot write "));
    assert_eq!(fs::read_to_string(home.path().join("precious")).unwrap(), "precious");
}

#[test]
fn another_server_of_the_same_user_has_no_part_in_it() {
    let relay = Relay::start();
    let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let other = TcpStream::connect(server.local_addr().unwrap()).unwrap();
    let said = run(SCRIPT, relay.home(), &named(&other));
    assert!(said.starts_with("LHR0 ") && said.contains("another SSH server"), "{said}");
}

/// A real sshd, that logs what comes.
struct Sshd {
    child: Child,
    folder: tempfile::TempDir,
    port: u16,
}

impl Sshd {
    fn start() -> Sshd {
        let folder = tempfile::tempdir().unwrap();
        for key in ["host", "other", "id"] {
            let mut keygen = Command::new("ssh-keygen");
            keygen.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(folder.path().join(key));
            assert!(keygen.status().unwrap().success());
        }
        if rustix::process::geteuid().is_root() {
            fs::create_dir_all("/run/sshd").unwrap();
        }
        let path = folder.path().display();
        let config = format!(
            "ListenAddress 127.0.0.1\nHostKey {path}/host\nAuthorizedKeysFile {path}/id.pub\nStrictModes no\n\
             UsePAM no\nLogLevel VERBOSE\nPidFile none\nSetEnv HOME={path}\n"
        );
        fs::write(folder.path().join("config"), config).unwrap();
        loop {
            // Below the ports that the system chooses itself. sshd ends when another program has it.
            let port = fastrand::u16(10_000..32_000);
            let mut sshd = Command::new(needs("sshd"));
            sshd.args(["-D", "-p", &port.to_string(), "-f"]).arg(folder.path().join("config"));
            sshd.arg("-E").arg(folder.path().join("log")).stdin(Stdio::null());
            let mut child = sshd.spawn().unwrap();
            let listens =
                || fs::read_to_string(folder.path().join("log")).is_ok_and(|log| log.contains("listening on"));
            eventually("sshd listens, or ends", || listens() || child.try_wait().unwrap().is_some());
            if listens() {
                return Sshd { child, folder, port };
            }
        }
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    fn count(&self, words: &str) -> usize {
        self.log().matches(words).count()
    }

    /// Prepares ssh, which connects to this port.
    fn ssh(&self, port: u16, command: &str) -> Command {
        let mut ssh = Command::new("ssh");
        let path = |name: &str| self.folder.path().join(name).display().to_string();
        ssh.args(["-F", "none", "-o", "StrictHostKeyChecking=accept-new", "-o", "LogLevel=ERROR", "-i", &path("id")])
            .args(["-o", &format!("UserKnownHostsFile={}", path("known")), "-o", "IdentitiesOnly=yes"])
            .args(["-o", "HostKeyAlias=m", "-p", &port.to_string(), "127.0.0.1", command])
            .env_remove("SSH_AUTH_SOCK");
        ssh
    }

    /// Places the relay as the product does: the script is the input of a command. Returns its answer.
    fn place(&self, host_key: &str) -> String {
        let key = fs::read_to_string(self.folder.path().join(host_key)).unwrap();
        let key = key.split(' ').nth(1).unwrap();
        let blob = base64::Engine::decode(&base64::prelude::BASE64_STANDARD, key).unwrap();
        let hash: String = digest(&SHA256, &blob).as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        let script = with(&[("HOST_KEY = \"\"", &format!("HOST_KEY = \"ssh-ed25519 {hash}\""))]);
        let mut ssh = self.ssh(self.port, "python3 -IS -c \"import sys;exec(sys.stdin.read())\"");
        let mut ssh = ssh.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        ssh.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
        // It ends although the relay runs on.
        String::from_utf8(ssh.wait_with_output().unwrap().stdout).unwrap()
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        if file(self.folder.path()).exists() {
            end(self.folder.path());
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Passes an ssh through a session, and resumes that each `every` bytes. Returns the relay's END, or `None` if ssh has
/// left, and the number of resumes.
fn pass(mut session: Session, mut ssh: TcpStream, every: u64) -> (Option<(u8, u64, String)>, u32) {
    let mut from_ssh = ssh.try_clone().unwrap();
    let link = Arc::new(Mutex::new((session.stream.try_clone().unwrap(), Vec::new())));
    let up = Arc::clone(&link);
    thread::spawn(move || {
        let mut buffer = vec![0; client::CHUNK];
        while let Ok(n @ 1..) = from_ssh.read(&mut buffer) {
            let mut link = up.lock().unwrap();
            link.1.extend_from_slice(&buffer[..n]);
            // A connection that is being replaced: it is sent again.
            let _ = link.0.write_all(&frame(0, &buffer[..n]));
        }
        let _ = up.lock().unwrap().0.write_all(&frame(client::BYE, &[0; 8]));
    });
    let mut resumes = 0;
    loop {
        match session.next() {
            Ok(Ok(data)) => {
                let _ = ssh.write_all(&data);
            }
            Ok(Err((client::END, end))) => {
                let _ = ssh.shutdown(Shutdown::Both);
                let total = u64::from_be_bytes(end[1..9].try_into().unwrap());
                return (Some((end[0], total, String::from_utf8(end[9..].to_vec()).unwrap())), resumes);
            }
            Ok(Err(_)) => {}
            Err(_) => return (None, resumes),
        }
        let mut link = link.lock().unwrap();
        let _ = link.0.write_all(&frame(client::ACK, &session.received.to_be_bytes()));
        if session.received / every > resumes.into() {
            resumes += 1;
            let (status, theirs) = session.resume();
            assert_eq!(status, 0);
            link.0 = session.stream.try_clone().unwrap();
            let again = link.1[usize::try_from(theirs).unwrap()..].to_vec();
            for chunk in again.chunks(client::CHUNK) {
                link.0.write_all(&frame(0, chunk)).unwrap();
            }
        }
    }
}

/// Row 22, at the relay's side.
#[test]
fn each_session_is_one_connection_to_sshd_and_a_resume_is_none() {
    let sshd = Sshd::start();
    let answer = sshd.place("host.pub");
    assert_eq!(sshd.place("host.pub"), answer, "the same one");
    let relay = Known::from(&answer);
    let bridge = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut ssh = sshd.ssh(bridge.local_addr().unwrap().port(), "cat; head -c 8000000 /dev/zero; exit 7");
    let mut ssh = ssh.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let client = bridge.accept().unwrap().0;
    let passing = thread::spawn(move || pass(Session::begin(&relay, 0), client, 100_000));
    let data = noise(3_000_000);
    let input = data.clone();
    let mut stdin = ssh.stdin.take().unwrap();
    let writes = thread::spawn(move || stdin.write_all(&input));
    let output = ssh.wait_with_output().unwrap();
    writes.join().unwrap().unwrap();
    assert!(output.status.code() == Some(7) && output.stdout.len() == 11_000_000);
    assert!(output.stdout[..data.len()] == data && output.stdout[data.len()..].iter().all(|byte| *byte == 0));
    let (_, resumes) = passing.join().unwrap();
    assert!(resumes >= 100, "{resumes}");
    eventually("sshd has logged the end", || sshd.count("Disconnected from") + sshd.count("Close session") >= 2);
    assert_eq!(sshd.count("Connection from"), 3, "{}", sshd.log());
    assert_eq!(sshd.count("Accepted publickey"), 3, "{}", sshd.log());
    for unauthenticated in ["Connection closed by", "Connection reset by", "Timeout before"] {
        assert_eq!(sshd.count(unauthenticated), 0, "{}", sshd.log());
    }
}

#[test]
fn a_server_with_another_host_key_is_refused_before_ssh_sees_it() {
    let sshd = Sshd::start();
    let relay = Known::from(&sshd.place("other.pub"));
    let bridge = TcpListener::bind("127.0.0.1:0").unwrap();
    let ssh = sshd.ssh(bridge.local_addr().unwrap().port(), "true").stderr(Stdio::piped()).spawn().unwrap();
    let (end, _) = pass(Session::begin(&relay, 0), bridge.accept().unwrap().0, u64::MAX);
    let (reason, _, words) = end.unwrap();
    assert!(reason == 2 && words.ends_with(&format!("port {} has another host key", sshd.port)), "{reason} {words}");
    let output = ssh.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(255));
    assert!(!String::from_utf8_lossy(&output.stderr).contains("IDENTIFICATION"), "{output:?}");
    // It begins nothing more, and makes room for another.
    assert!(TcpStream::connect(("127.0.0.1", relay.new)).is_err());
    assert!(!file(sshd.folder.path()).exists());
    assert_ne!(sshd.place("host.pub"), "");
}
