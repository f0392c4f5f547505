//! The key that opens the machine of a container: given time, and asked for only by a connection that may go on.

use std::{
    fs,
    io::{Read, Write},
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use super::Site;
use crate::support::{
    Ending,
    engine::{BUSYBOX, Engine},
    eventually, write_program,
};

/// A key of the user's own, which the settings name.
fn key(site: &Site, passphrase: &str) -> PathBuf {
    let path = site.world.path("own");
    let mut keygen = site.world.program("ssh-keygen");
    site.world.output(keygen.args(["-q", "-t", "ed25519", "-N", passphrase, "-f"]).arg(&path)).ok();
    settings(site, "unless-stopped");
    path
}

/// No relay logs in behind a session's back.
fn settings(site: &Site, wake: &str) {
    let key = site.world.path("own");
    site.world.settings(&format!("identity: {}\nresume: never\nwake: {wake}\n", key.display()));
}

/// Between ssh and an agent, whose owner takes some seconds to permit a signature.
struct Slow {
    seconds: Arc<AtomicU64>,
    signatures: Arc<AtomicUsize>,
}

impl Slow {
    fn at(socket: &Path, agent: PathBuf) -> Slow {
        const SIGN_REQUEST: u8 = 13;
        let slow = Slow { seconds: Arc::default(), signatures: Arc::default() };
        let (seconds, signatures) = (Arc::clone(&slow.seconds), Arc::clone(&slow.signatures));
        let listener = UnixListener::bind(socket).unwrap();
        thread::spawn(move || {
            for client in listener.incoming() {
                let (mut client, mut agent) = (client.unwrap(), UnixStream::connect(&agent).unwrap());
                let (seconds, signatures) = (Arc::clone(&seconds), Arc::clone(&signatures));
                thread::spawn(move || {
                    while let Ok(request) = frame(&mut client) {
                        if request.get(4) == Some(&SIGN_REQUEST) {
                            signatures.fetch_add(1, Ordering::Relaxed);
                            thread::sleep(Duration::from_secs(seconds.load(Ordering::Relaxed)));
                        }
                        agent.write_all(&request).unwrap();
                        if client.write_all(&frame(&mut agent).unwrap()).is_err() {
                            break;
                        }
                    }
                });
            }
        });
        slow
    }

    fn signatures(&self) -> usize {
        self.signatures.load(Ordering::Relaxed)
    }
}

/// Reads a message of the agent's protocol, with its length.
fn frame(stream: &mut UnixStream) -> std::io::Result<Vec<u8>> {
    let mut frame = vec![0; 4];
    stream.read_exact(&mut frame)?;
    let length = u32::from_be_bytes(frame[..4].try_into().unwrap());
    frame.resize(4 + length as usize, 0);
    stream.read_exact(&mut frame[4..])?;
    Ok(frame)
}

/// A kept session whose machine has spoken is not given up while a security key waits for a touch.
#[test]
fn a_signature_may_take_longer_than_a_tunnel_may_be_silent() {
    let Some(engine) = Engine::here() else { return };
    let site = Site::new(engine, "builtin");
    let container = engine.run("touch", &["--network", "none"], BUSYBOX, &[]);
    let (key, agent, socket) = (key(&site, ""), site.world.path("agent"), site.world.path("slow"));
    let mut program = site.world.program("ssh-agent");
    let _agent = Ending(program.args(["-D", "-a"]).arg(&agent).stdout(std::process::Stdio::null()).spawn().unwrap());
    eventually("the agent listens", || agent.exists());
    site.world.output(site.world.program("ssh-add").arg("-q").arg(&key).env("SSH_AUTH_SOCK", &agent)).ok();
    let mut lock = site.world.program("ssh-keygen");
    site.world.output(lock.args(["-q", "-p", "-P", "", "-N", "open sesame", "-f"]).arg(&key)).ok();
    let slow = Slow::at(&socket, agent);
    let host = site.host(&container.name);
    let echo = || site.world.output(site.client("ssh", &[&host, "echo in"]).env("SSH_AUTH_SOCK", &socket));
    assert_eq!(echo().ok(), "in\n");
    let before = slow.signatures();
    slow.seconds.store(6, Ordering::Relaxed);
    assert_eq!(echo().ok(), "in\n");
    assert_eq!(slow.signatures() - before, 1, "one login, and so one touch");
}

/// A client that may not be asked is told, and one that may not wake anything is not asked before it is refused.
#[test]
fn a_passphrase_is_asked_for_once_the_connection_may_go_on() {
    let Some(engine) = Engine::here() else { return };
    let site = Site::new(engine, "builtin");
    let container = engine.run("locked", &["--network", "none"], BUSYBOX, &[]);
    key(&site, "open sesame");
    let (asked, askpass) = (site.world.path("asked"), site.world.path("askpass"));
    write_program(&askpass, &format!("#!/bin/sh\necho \"$1\" >> {}\necho open sesame\n", asked.display()));
    let host = site.host(&container.name);
    let run = |mut command: std::process::Command| {
        command.env("SSH_ASKPASS", &askpass).env("SSH_ASKPASS_REQUIRE", "force").env("DISPLAY", ":0");
        site.world.output(&mut command)
    };
    // `client` has `-o BatchMode=yes`.
    let said = run(site.client("ssh", &[&host, "true"])).failed(255);
    assert!(said.contains("is encrypted"), "{said}");
    site.world.stop_elsewhere(&site.play);
    settings(&site, "never");
    let ssh = || {
        let mut ssh = site.world.ssh_program("ssh");
        ssh.args(["-o", "StrictHostKeyChecking=yes", &host, "echo in"]);
        run(ssh)
    };
    let said = ssh().failed(255);
    assert!(said.contains("is not running"), "{said}");
    assert!(!asked.exists(), "{:?}", fs::read_to_string(&asked));
    settings(&site, "unless-stopped");
    assert_eq!(ssh().ok(), "in\n");
    assert!(fs::read_to_string(&asked).unwrap().contains("own"));
}
