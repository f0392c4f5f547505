//! Tests with the real peers, which `scripts/test` installs where it can. The platform's own client, labctl, uses our
//! embedded platform behind TLS, and our client reaches a real sshd through the real wsmux.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    process::{Command, Stdio},
};

use crate::support::{
    Ending, World, checksum, eventually, free_port,
    labs::{ID, Labs, PLAIN, acceptor, take_tls_off},
    needs, noise,
};

/// Returns a port that is free now, for a program that cannot choose one itself.
fn free_address() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], free_port()))
}

#[test]
#[ignore = "needs the real labctl in PATH: scripts/test runs it"]
fn labctl_works_with_the_embedded_platform() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let front = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
    let base = format!("https://localhost:{}", front.local_addr().unwrap().port());
    let world = World::with_platform(&["--listen", "127.0.0.1:0", "--public-url", &base]);
    let platform = world.json(&["local", "status", "--json"])["listen"].as_str().unwrap().to_owned();
    let certificate = world.path("certificate.pem");
    runtime.spawn(take_tls_off(front, acceptor(&["localhost"], &certificate), platform));

    let credentials = std::fs::read(world.root().join("local/credentials.json")).unwrap();
    let credentials: serde_json::Value = serde_json::from_slice(&credentials).unwrap();
    let text = |name: &str| credentials[0][name].as_str().unwrap().to_owned();
    let labctl_home = world.path(".iximiuz/labctl");
    std::fs::create_dir_all(&labctl_home).unwrap();
    let config = format!(
        "base_url: {base}\napi_base_url: {base}/api\nsession_id: {}\naccess_token: {}\nplays_dir: {}\n\
         ssh_identity_file: {}\n",
        text("id"),
        text("accessToken"),
        labctl_home.join("plays").display(),
        world.path(".ssh/iximiuz_labs_user").display(),
    );
    std::fs::write(labctl_home.join("config.yaml"), config).unwrap();
    // Creates the key that labctl sends, as labctl's own login would.
    let _ = world.output(world.command(&["config-ssh", "--yes"]).env("SSL_CERT_FILE", &certificate)).ok();

    let labctl = needs("labctl");
    let command = |args: &[&str]| {
        let mut command = world.program(&labctl);
        command.env("SSL_CERT_FILE", &certificate).args(args);
        command
    };
    let run = |args: &[&str]| world.output(&mut command(args)).ok();
    let id = run(&["playground", "start", "shell", "--quiet"]).trim().to_owned();
    assert!(run(&["playground", "list"]).contains(&id));
    assert!(run(&["ssh", &id, "--", "echo", "by", "labctl"]).contains("by labctl"));

    let echo = echo();
    let forwarded = free_address().port();
    let forward = format!("{forwarded}:{}", echo.port());
    let _forwarding = Ending(command(&["port-forward", &id, "-L", &forward]).stdout(Stdio::null()).spawn().unwrap());
    eventually("the port is forwarded", || TcpStream::connect(("127.0.0.1", forwarded)).is_ok());
    assert!(echoes(TcpStream::connect(("127.0.0.1", forwarded)).unwrap()));
    // Each client lists the forwards that the other has saved.
    let saved = world.json(&["port-forward", &id, "--list", "--json"]);
    assert_eq!(saved[0]["remotePort"], echo.port(), "{saved}");

    // The machine is this computer, so its listeners are here.
    let remote = free_address().port();
    let reverse = format!("127.0.0.1:{remote}:127.0.0.1:{}", echo.port());
    let _reversing = Ending(command(&["port-forward", &id, "-R", &reverse]).stdout(Stdio::null()).spawn().unwrap());
    eventually("the machine listens", || TcpStream::connect(("127.0.0.1", remote)).is_ok_and(echoes));

    let proxy = free_address();
    let listen = ["ssh-proxy", "--quiet", "--address", &proxy.to_string(), &id];
    let _proxying = Ending(command(&listen).stdout(Stdio::null()).spawn().unwrap());
    eventually("labctl listens", || TcpStream::connect(proxy).is_ok());
    let mut greeting = [0; 8];
    TcpStream::connect(proxy).unwrap().read_exact(&mut greeting).unwrap();
    assert_eq!(&greeting, b"SSH-2.0-");

    let _ = run(&["playground", "stop", &id]);
    eventually("labctl has stopped it", || world.json(&["list", "--json"])[0]["state"] == "STOPPED");
    runtime.shutdown_background();
}

#[test]
#[ignore = "needs the real wsmux in PATH: scripts/test runs it"]
fn a_whole_session_through_the_real_wsmux() {
    let world = World::empty();
    let address = free_address();
    let mut wsmux = Command::new(needs("wsmux"));
    wsmux.args(["serve", "-addr", &address.to_string()]).stdout(Stdio::null());
    let _wsmux = Ending(wsmux.spawn().unwrap());
    eventually("wsmux listens", || TcpStream::connect(address).is_ok());
    let labs = Labs::start(&world, PLAIN);
    labs.tunnels_by(address);
    let _ = world.run(&["config-ssh", "--yes"]).ok();
    let host = &format!("playground-{ID}");
    let ended = world.ssh(&[host, "cat; echo err >&2; exit 7"]);
    assert_eq!((ended.code(), ended.err.as_str()), (7, "err\n"));
    let data = noise(64 << 20);
    let up = world.feed(world.ssh_program("ssh").args([host, "cksum"]), &data);
    assert_eq!(String::from_utf8_lossy(&up.stdout), checksum(&data));
    std::fs::write(world.path("big"), &data).unwrap();
    let big = format!("{host}:{}", world.path("big").display());
    let _ = world.output(world.ssh_program("scp").args(["-q", &big, "back"])).ok();
    assert!(std::fs::read(world.path("back")).unwrap() == data);
    copies_of_every_kind(&world, host, &data);
    forwards_of_every_kind(&world, host);
    eventually("no proxy is left", || world.processes("connect").is_empty());
}

/// Copies in every manner. The machine is this computer, so the copies are here.
fn copies_of_every_kind(world: &World, host: &str, data: &[u8]) {
    let there = world.path("there");
    std::fs::create_dir(&there).unwrap();
    let remote = |name: &str| format!("{host}:{}", there.join(name).display());
    let is_there = |name: &str| assert!(std::fs::read(there.join(name)).unwrap() == data, "{name}");
    let run = |command: &mut Command| drop(world.output(command).ok());
    run(world.ssh_program("scp").args(["-O", "-q", "big", &remote("by-scp")]));
    is_there("by-scp");
    std::fs::write(world.path("batch"), format!("put big {}\n", there.join("by-sftp").display())).unwrap();
    run(world.ssh_program("sftp").args(["-q", "-b", "batch", host]));
    is_there("by-sftp");
    let ssh = format!("ssh -F {}", world.ssh_config().display());
    run(world.program("rsync").args(["-e", &ssh, "big", &remote("by-rsync")]));
    is_there("by-rsync");
    let git = |arguments: &[&str]| {
        let mut git = world.program("git");
        run(git
            .env("GIT_SSH_COMMAND", &ssh)
            .args(["-c", "user.name=t", "-c", "user.email=t@example.com"])
            .args(arguments));
    };
    git(&["init", "-q", "--bare", &there.join("repo").display().to_string()]);
    git(&["clone", "-q", &remote("repo"), "work"]);
    std::fs::copy(world.path("big"), world.path("work/by-git")).unwrap();
    git(&["-C", "work", "add", "."]);
    git(&["-C", "work", "commit", "-qm", "one"]);
    git(&["-C", "work", "push", "-q", "origin", "HEAD"]);
    git(&["clone", "-q", &remote("repo"), &there.join("again").display().to_string()]);
    is_there("again/by-git");
}

fn forwards_of_every_kind(world: &World, host: &str) {
    let echo = echo();
    let (local, socks) = (free_address(), free_address());
    let control = format!("ControlPath={}", world.path("c").display());
    let mut master = world.ssh_program("ssh");
    master.args(["-N", "-o", &control, "-o", "ControlMaster=yes", "-o", "ExitOnForwardFailure=yes"]);
    master.args(["-L", &format!("{local}:127.0.0.1:{}", echo.port()), "-D", &socks.to_string(), host]);
    let _master = Ending(master.spawn().unwrap());
    let through = |arguments: &[&str]| world.output(world.ssh_program("ssh").args(["-o", &control]).args(arguments));
    eventually("a master", || through(&["-O", "check", host]).status.success());
    assert!(echoes(TcpStream::connect(local).unwrap()));
    let remote = through(&["-O", "forward", "-R", &format!("0:127.0.0.1:{}", echo.port()), host]).ok();
    assert!(echoes(TcpStream::connect(("127.0.0.1", remote.trim().parse::<u16>().unwrap())).unwrap()));
    // SOCKS 5: no authentication, connect to 127.0.0.1.
    let mut stream = TcpStream::connect(socks).unwrap();
    let port = echo.port().to_be_bytes();
    stream.write_all(&[5, 1, 0, 5, 1, 0, 1, 127, 0, 0, 1, port[0], port[1]]).unwrap();
    stream.read_exact(&mut [0; 12]).unwrap();
    assert!(echoes(stream));
    let _ = through(&["-O", "exit", host]);
}

fn echoes(mut stream: TcpStream) -> bool {
    let mut word = [0; 5];
    stream.write_all(b"hello").is_ok() && stream.read_exact(&mut word).is_ok() && &word == b"hello"
}

/// Starts a server that returns each five bytes it receives.
fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            std::thread::spawn(move || {
                let mut word = [0; 5];
                // Some connections only check the port and send nothing.
                if stream.read_exact(&mut word).is_ok() {
                    stream.write_all(&word).unwrap();
                }
            });
        }
    });
    address
}
