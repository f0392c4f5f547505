//! The real ssh, under StrictHostKeyChecking=yes and with an empty known_hosts, against a real sshd: a relay between
//! them reads the host key as it passes and writes the line that ssh then finds.

use std::{
    fs,
    io::{self, Read, Write},
    net::Shutdown,
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread,
};

use russh::{client, kex, keys::PrivateKey, keys::PublicKeyOrCertificate, server};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf};

use labctl_ssh_proxy::{
    error::{Kind, Result},
    ssh::{
        handshake::{self, Handshake},
        host_key::HostKeyBlob,
        known_hosts::{KnownHosts, Verdict, Whose},
    },
};

const PLAY: &str = "0123456789abcdef01234567";
const WHOSE: Whose<'_> = Whose { alias: "playground-docker", play: PLAY, machine: "docker-01", shown: "" };

/// A machine with an sshd, and a user with a key for it.
struct World {
    folder: tempfile::TempDir,
    user: String,
}

/// The host key types of [`World`]'s machine, each with the option that makes ssh negotiate it.
const TYPES: [(&str, &str); 3] =
    [("ed25519", "ssh-ed25519"), ("ecdsa", "ecdsa-sha2-nistp256"), ("rsa", "rsa-sha2-512,rsa-sha2-256")];

impl World {
    fn new() -> World {
        // As root sshd needs its folder, which the system's own sshd makes when it starts.
        let _ = fs::create_dir("/run/sshd");
        let folder = tempfile::tempdir().unwrap();
        let user = String::from_utf8(Command::new("id").arg("-un").output().unwrap().stdout).unwrap();
        let world = World { folder, user: user.trim().into() };
        world.new_host_keys();
        keygen(&["-t", "ed25519"], &world.path("user"));
        fs::copy(world.path("user.pub"), world.path("authorized_keys")).unwrap();
        world
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn new_host_keys(&self) {
        for (name, _) in TYPES {
            let _ = fs::remove_file(self.path(name));
            keygen(&["-t", name], &self.path(name));
        }
    }

    /// Returns the type and base64 of a host key, from its `.pub` file.
    fn host_key(&self, name: &str) -> String {
        let public = fs::read_to_string(self.path(&format!("{name}.pub"))).unwrap();
        public.split(' ').take(2).collect::<Vec<_>>().join(" ")
    }

    fn sshd(&self, options: &[String]) -> Command {
        let mut sshd = Command::new("/usr/sbin/sshd");
        sshd.args(["-f", "/dev/null", "-o", "UsePAM=no", "-o", "StrictModes=no", "-o", "LogLevel=ERROR", "-o"])
            .arg(format!("AuthorizedKeysFile={}", self.path("authorized_keys").display()));
        for (name, _) in TYPES {
            sshd.arg("-h").arg(self.path(name));
        }
        for option in options {
            sshd.args(["-o", option]);
        }
        sshd
    }

    /// Prepares `ssh HOST true` through `relay`.
    fn ssh(&self, relay: &Relay, options: &[String]) -> Command {
        let mut ssh = Command::new("ssh");
        ssh.args(["-F", "/dev/null", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes"])
            .args(["-o", "GlobalKnownHostsFile=/dev/null", "-o", "IdentitiesOnly=yes", "-l", &self.user, "-i"])
            .arg(self.path("user"))
            .args(["-o", &format!("UserKnownHostsFile={}", relay.known.path().display())])
            .args(["-o", &format!("ProxyCommand=socat - UNIX-CONNECT:{}", relay.socket.display())])
            .stdin(Stdio::null());
        for option in options {
            ssh.args(["-o", option]);
        }
        ssh.args([WHOSE.alias, "true"]);
        ssh
    }
}

fn keygen(arguments: &[&str], path: &Path) {
    let out = Command::new("ssh-keygen").args(["-q", "-N", ""]).args(arguments).arg("-f").arg(path).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
}

/// A listener that connects each of ssh's ProxyCommands to an sshd of its own.
struct Relay {
    socket: PathBuf,
    known: KnownHosts,
    ended: mpsc::Receiver<Result<()>>,
}

impl Relay {
    /// Starts the relay. It calls `at_host_key` after it has written the key's line, before it passes the key on.
    fn start(
        world: &Arc<World>,
        name: &str,
        options: &[String],
        at_host_key: impl Fn() + Send + Sync + 'static,
    ) -> Relay {
        let at_host_key = Arc::new(at_host_key);
        let socket = world.path(&format!("{name}.sock"));
        let known = KnownHosts::at(world.path(name).join("known_hosts"));
        let listener = UnixListener::bind(&socket).unwrap();
        let (ends, ended) = mpsc::channel();
        let (world, watched, options) = (world.clone(), known.clone(), options.to_vec());
        // This thread ends with the test process.
        thread::spawn(move || {
            for client in listener.incoming() {
                let mut sshd = world.sshd(&options);
                let sshd = sshd.arg("-i").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
                let sshd = sshd.spawn().unwrap();
                let watch = Watch { known: watched.clone(), handshake: Handshake::new(), seen: None, accepted: false };
                let (ends, at_host_key) = (ends.clone(), at_host_key.clone());
                thread::spawn(move || {
                    // An error means that the test has ended without waiting.
                    let _ = ends.send(relay(client.unwrap(), sshd, watch, &*at_host_key));
                });
            }
        });
        Relay { socket, known, ended }
    }

    fn lines(&self) -> String {
        fs::read_to_string(self.known.path()).unwrap_or_default()
    }

    /// Waits for the end of a connection.
    fn end(&self) -> Result<()> {
        self.ended.recv().unwrap()
    }
}

/// Passes bytes both ways until the server ends, or shows a key that is refused.
fn relay(client: UnixStream, mut sshd: Child, watch: Watch, at_host_key: &dyn Fn()) -> Result<()> {
    let watch = Mutex::new(watch);
    let (mut stdin, mut stdout) = (sshd.stdin.take().unwrap(), sshd.stdout.take().unwrap());
    let ended = thread::scope(|scope| {
        scope.spawn(|| {
            let mut buffer = [0; 64 * 1024];
            while let Ok(count @ 1..) = (&client).read(&mut buffer) {
                watch.lock().unwrap().client(&buffer[..count]).unwrap();
                if stdin.write_all(&buffer[..count]).is_err() {
                    break;
                }
            }
            drop(stdin);
        });
        let ended: Result<()> = (|| {
            // Small enough to split the larger replies, and large enough for the smaller ones.
            let mut buffer = [0; 1024];
            while let Ok(count @ 1..) = stdout.read(&mut buffer) {
                if watch.lock().unwrap().server(&buffer[..count])? {
                    at_host_key();
                }
                if (&client).write_all(&buffer[..count]).is_err() {
                    break;
                }
            }
            Ok(())
        })();
        if let Err(error) = &ended {
            let packet = handshake::disconnect_packet(handshake::BY_APPLICATION, error.message());
            (&client).write_all(&packet).unwrap();
            let _ = sshd.kill();
        }
        let _ = client.shutdown(Shutdown::Write);
        // ssh reads the message and ends, or has ended already.
        let _ = io::copy(&mut stdout, &mut io::sink());
        ended
    });
    sshd.wait().unwrap();
    ended
}

/// The part of `connect` that handles a handshake and known_hosts.
struct Watch {
    known: KnownHosts,
    handshake: Handshake,
    seen: Option<(HostKeyBlob, Verdict)>,
    accepted: bool,
}

impl Watch {
    fn client(&mut self, bytes: &[u8]) -> Result<()> {
        self.handshake.client(bytes);
        if let Some((key, Verdict::Learnt)) = self.seen.as_ref().filter(|_| !self.accepted)
            && self.handshake.client_newkeys()
        {
            self.known.confirm(WHOSE, key)?;
            self.accepted = true;
        }
        Ok(())
    }

    /// Reads the server's bytes. Returns true if they complete the host key.
    fn server(&mut self, bytes: &[u8]) -> Result<bool> {
        self.handshake.server(bytes);
        let (Some(key), None) = (self.handshake.host_key(), &self.seen) else { return Ok(false) };
        self.seen = Some((key.clone(), self.known.check(WHOSE, key)?));
        Ok(true)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if let (Some((key, Verdict::Learnt)), false) = (&self.seen, self.accepted) {
            self.known.withdraw(WHOSE, key).unwrap();
        }
    }
}

fn said(out: &Output) -> String {
    String::from_utf8_lossy(&out.stderr).into_owned()
}

fn succeeds(mut command: Command) {
    let out = command.output().unwrap();
    assert!(out.status.success(), "{command:?}: {}", said(&out));
}

#[test]
fn every_key_exchange_with_every_type_of_host_key() {
    let world = Arc::new(World::new());
    let listed = Command::new("ssh").args(["-Q", "kex"]).output().unwrap().stdout;
    let methods: Vec<String> = String::from_utf8(listed)
        .unwrap()
        .lines()
        .filter(|method| {
            let understood = world.sshd(&[format!("KexAlgorithms={method}")]).arg("-t").output().unwrap();
            understood.status.success()
        })
        .map(Into::into)
        .collect();
    assert!(methods.len() > 8 && methods.iter().any(|method| method.contains("group-exchange")), "{methods:?}");
    let server = [format!("KexAlgorithms={}", methods.join(","))];
    let cases: Vec<_> = methods.iter().flat_map(|method| TYPES.map(|(name, asked)| (method, name, asked))).collect();
    let (next, passed) = (AtomicUsize::new(0), AtomicUsize::new(0));
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while let Some((method, name, asked)) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let relay = Relay::start(&world, &format!("{method}-{name}"), &server, || {});
                    let options = [format!("KexAlgorithms={method}"), format!("HostKeyAlgorithms={asked}")];
                    succeeds(world.ssh(&relay, &options));
                    let line = format!("{} {} {PLAY}/{}\n", WHOSE.alias, world.host_key(name), WHOSE.machine);
                    assert_eq!(relay.lines(), line, "{method} {name}");
                    passed.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    assert_eq!(passed.into_inner(), methods.len() * TYPES.len(), "{methods:?}");
}

#[test]
fn twenty_first_contacts_at_once() {
    let world = Arc::new(World::new());
    let relay = Relay::start(&world, "relay", &[], || {});
    thread::scope(|scope| {
        for i in 0..20 {
            let ssh = world.ssh(&relay, &[format!("HostKeyAlgorithms={}", TYPES[i % 3].1)]);
            scope.spawn(|| succeeds(ssh));
        }
    });
    let mut lines: Vec<String> = relay.lines().lines().map(Into::into).collect();
    lines.sort();
    let mut expected = TYPES.map(|(name, _)| format!("{} {} {PLAY}/docker-01", WHOSE.alias, world.host_key(name)));
    expected.sort();
    assert_eq!(lines, expected);
}

#[test]
fn a_changed_key_is_refused_and_changes_nothing() {
    let world = Arc::new(World::new());
    let relay = Relay::start(&world, "relay", &[], || {});
    succeeds(world.ssh(&relay, &[]));
    relay.end().unwrap();
    let before = relay.lines();
    world.new_host_keys();
    let out = world.ssh(&relay, &[]).output().unwrap();
    assert_eq!(out.status.code(), Some(255));
    assert!(said(&out).contains("presents the ssh-ed25519 host key"), "{}", said(&out));
    assert_eq!(relay.end().unwrap_err().kind(), Kind::HostKey);
    assert_eq!(relay.lines(), before);
    // ssh has no line for this alias, so only our own comparison refuses the key.
    let other_alias = fs::read_to_string(relay.known.path()).unwrap().replace(WHOSE.alias, "playground-other");
    fs::write(relay.known.path(), &other_alias).unwrap();
    assert!(!world.ssh(&relay, &[]).output().unwrap().status.success());
    assert_eq!(relay.end().unwrap_err().kind(), Kind::HostKey);
    assert_eq!(relay.lines(), other_alias);
}

#[test]
fn a_client_that_is_killed_before_it_accepts_leaves_no_line() {
    let world = Arc::new(World::new());
    let (reached, reaches) = mpsc::channel();
    let (go_on, goes_on) = mpsc::channel();
    let goes_on = Mutex::new(goes_on);
    let pause = move || {
        reached.send(()).unwrap();
        goes_on.lock().unwrap().recv().unwrap();
    };
    let relay = Relay::start(&world, "relay", &[], pause);
    let mut ssh = world.ssh(&relay, &[]).stderr(Stdio::null()).spawn().unwrap();
    reaches.recv().unwrap();
    assert!(relay.lines().ends_with("/docker-01?\n"), "{}", relay.lines());
    ssh.kill().unwrap();
    ssh.wait().unwrap();
    go_on.send(()).unwrap();
    relay.end().unwrap();
    assert_eq!(relay.lines(), "");
}

#[test]
fn the_key_in_a_host_certificate_is_what_counts() {
    let world = Arc::new(World::new());
    keygen(&["-t", "ed25519"], &world.path("authority"));
    let out = Command::new("ssh-keygen")
        .args(["-q", "-I", "machine", "-h", "-s"])
        .args([world.path("authority"), world.path("ed25519.pub")])
        .output()
        .unwrap();
    assert!(out.status.success(), "{}", said(&out));
    let options = [format!("HostCertificate={}", world.path("ed25519-cert.pub").display())];
    let relay = Relay::start(&world, "relay", &options, || {});
    succeeds(world.ssh(&relay, &["HostKeyAlgorithms=ssh-ed25519-cert-v01@openssh.com,ssh-ed25519".into()]));
    assert_eq!(relay.lines(), format!("{} {} {PLAY}/docker-01\n", WHOSE.alias, world.host_key("ed25519")));
}

/// Another client and server, for methods that this computer's OpenSSH may not know yet.
#[tokio::test]
async fn the_key_exchanges_of_russh() {
    struct Peer(Arc<Mutex<Option<HostKeyBlob>>>);
    impl client::Handler for Peer {
        type Error = russh::Error;
        async fn check_server_key(&mut self, shown: &PublicKeyOrCertificate) -> Result<bool, russh::Error> {
            let PublicKeyOrCertificate::PublicKey { key, .. } = shown else { return Ok(false) };
            *self.0.lock().unwrap() = HostKeyBlob::of_key(key.key_data());
            Ok(true)
        }
    }
    impl server::Handler for Peer {
        type Error = russh::Error;
    }
    async fn pass(mut from: ReadHalf<DuplexStream>, mut to: WriteHalf<DuplexStream>, mut note: impl FnMut(&[u8])) {
        let mut buffer = [0; 100];
        while let Ok(count @ 1..) = from.read(&mut buffer).await {
            note(&buffer[..count]);
            if to.write_all(&buffer[..count]).await.is_err() {
                break;
            }
        }
        let _ = to.shutdown().await;
    }
    let world = World::new();
    for method in [kex::MLKEM768X25519_SHA256, kex::CURVE25519, kex::ECDH_SHA2_NISTP384] {
        for (name, _) in TYPES {
            let preferred = russh::Preferred { kex: vec![method].into(), ..russh::Preferred::DEFAULT };
            let keys = vec![PrivateKey::read_openssh_file(world.path(name)).unwrap()];
            let server = server::Config { preferred: preferred.clone(), keys, ..server::Config::default() };
            let client = client::Config { preferred, ..client::Config::default() };
            let (client_end, from_client) = tokio::io::duplex(64 * 1024);
            let (server_end, from_server) = tokio::io::duplex(64 * 1024);
            let (client_reads, client_writes) = tokio::io::split(from_client);
            let (server_reads, server_writes) = tokio::io::split(from_server);
            let handshake = Mutex::new(Handshake::new());
            let shown = Arc::new(Mutex::new(None));
            tokio::join!(
                async {
                    drop(client::connect_stream(Arc::new(client), client_end, Peer(shown.clone())).await.unwrap())
                },
                async {
                    drop(server::run_stream(Arc::new(server), server_end, Peer(shown.clone())).await.unwrap().await)
                },
                pass(client_reads, server_writes, |bytes| handshake.lock().unwrap().client(bytes)),
                pass(server_reads, client_writes, |bytes| handshake.lock().unwrap().server(bytes)),
            );
            let (handshake, shown) = (handshake.into_inner().unwrap(), shown.lock().unwrap().take());
            assert!(shown.is_some() && handshake.host_key() == shown.as_ref(), "{method:?} {name}");
            assert!(handshake.client_newkeys() && handshake.is_over(), "{method:?} {name}");
            let key = handshake.host_key().unwrap();
            assert_eq!(format!("{} {}", key.algorithm(), key.base64()), world.host_key(name));
        }
    }
}
