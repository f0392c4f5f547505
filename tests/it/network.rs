//! The route to the real platform: over the network, with an account, through TLS and proxies, to a tunnel server like
//! wsmux and a real sshd behind it. The platform is a stand-in (`support/labs.rs`, `support/wsmux.rs`).

use std::process::Command;

use crate::support::{
    World, checksum, eventually,
    labs::{BEHIND_PROXY, ID, Labs, PLAIN, Proxy, TLS},
    noise,
};

/// A world with the entries of the real platform's playgrounds.
fn configured(labs: &Labs, world: &World, environment: &[(&str, &str)]) {
    let mut command = world.command(&["config-ssh", "--yes"]);
    let _ = world.output(trusting(labs, &mut command).envs(environment.iter().copied())).ok();
}

fn trusting<'a>(labs: &Labs, command: &'a mut Command) -> &'a mut Command {
    command.env("SSL_CERT_FILE", &labs.certificate)
}

fn host() -> String {
    format!("playground-{ID}")
}

#[test]
fn a_whole_session_through_a_server_that_never_closes() {
    let world = World::empty();
    let labs = Labs::start(&world, PLAIN);
    configured(&labs, &world, &[]);
    let host = &host();
    let ended = world.ssh(&[host, "cat; echo err >&2; exit 7"]);
    assert_eq!((ended.code(), ended.err.as_str()), (7, "err\n"));
    let data = noise(64 << 20);
    let up = world.feed(world.ssh_program("ssh").args([host, "cksum"]), &data);
    assert_eq!(String::from_utf8_lossy(&up.stdout), checksum(&data), "{:?}", String::from_utf8_lossy(&up.stderr));
    std::fs::write(world.path("big"), &data).unwrap();
    let big = format!("{host}:{}", world.path("big").display());
    let _ = world.output(world.ssh_program("scp").args(["-q", &big, "back"])).ok();
    assert!(std::fs::read(world.path("back")).unwrap() == data);
    let both = &data[..8 << 20];
    assert!(world.feed(world.ssh_program("ssh").args([host, "cat"]), both).stdout == both);
    eventually("no proxy is left", || world.processes("connect").is_empty());

    // The data that each host received.
    let seen = labs.seen();
    assert!(seen.iter().any(|seen| !seen.api && seen.line.starts_with("GET /login")));
    assert!(seen.iter().any(|seen| !seen.api && seen.line.starts_with("GET /tunnels/")));
    for seen in seen {
        assert!(seen.agent.starts_with("labctl-ssh-proxy/"), "{seen:?}");
        assert_eq!(seen.authorization.is_some(), seen.api, "{seen:?}");
        assert!(!(seen.api && seen.cookie.is_some()), "{seen:?}");
        if seen.line.ends_with("/tunnels") {
            assert_eq!((&seen.body["port"], &seen.body["access"]), (&0.into(), &"private".into()));
            // An empty machine means the first one. A request sent early does not know its name yet.
            assert!(["", "docker-01"].contains(&seen.body["machine"].as_str().unwrap()), "{seen:?}");
            assert_eq!(seen.body["generateLoginUrl"], true);
        }
    }
}

#[test]
fn a_tunnel_that_leads_nowhere_yet_is_tried_again() {
    let world = World::empty();
    let labs = Labs::start(&world, PLAIN);
    configured(&labs, &world, &[]);
    labs.refuse_dials(2);
    let said = world.ssh(&[&host(), "echo in"]);
    assert!(said.err.contains("waiting for the SSH server of machine docker-01"), "{said:?}");
    assert_eq!(said.ok(), "in\n");
}

#[test]
fn through_tls_by_the_systems_trust() {
    let world = World::empty();
    let labs = Labs::start(&world, TLS);
    configured(&labs, &world, &[]);
    let said = world.output(trusting(&labs, world.ssh_program("ssh").args([&host(), "exit 4"])));
    assert_eq!((said.code(), said.err.as_str()), (4, ""));
    let distrusted = world.run(&["list"]).failed(10);
    assert!(distrusted.contains("certificate") && distrusted.contains("hint: "), "{distrusted}");
}

#[test]
fn through_an_http_proxy_where_one_is_set() {
    // Proxy from the settings. Only the proxy can resolve the names of the API, the login and the tunnel.
    let world = World::empty();
    let labs = Labs::start(&world, BEHIND_PROXY);
    let proxy = Proxy::start();
    world.settings(&format!("proxy: http://ada:secret@{}\n", proxy.address));
    configured(&labs, &world, &[]);
    let said = world.output(trusting(&labs, world.ssh_program("ssh").args([&host(), "echo in"])));
    assert_eq!(said.ok(), "in\n");
    let heads = proxy.heads();
    for name in ["CONNECT api.labs.test:", "CONNECT tunnels.labs.test:"] {
        assert!(heads.iter().any(|head| head.starts_with(name)), "{heads:?}");
    }
    let heads = heads.join("").to_ascii_lowercase();
    assert!(heads.contains("\r\nproxy-authorization: basic ywrhonnly3jlda==\r\n"), "{heads}");
    assert!(!heads.contains("\r\nauthorization"), "{heads}");

    // Proxy from the environment.
    let world = World::empty();
    let labs = Labs::start(&world, BEHIND_PROXY);
    let proxy = Proxy::start();
    let address = format!("http://{}", proxy.address);
    let mut list = world.command(&["list", "--json"]);
    let _ = world.output(trusting(&labs, &mut list).env("HTTPS_PROXY", &address)).ok();
    assert!(!proxy.heads().is_empty());
    // NO_PROXY excludes these hosts, which cannot be resolved without the proxy.
    let before = proxy.heads().len();
    let mut list = world.command(&["list"]);
    trusting(&labs, &mut list).env("HTTPS_PROXY", &address).env("NO_PROXY", "labs.test");
    let said = world.output(&mut list).failed(10);
    assert!(said.contains("cannot reach api.labs.test"), "{said}");
    assert_eq!(proxy.heads().len(), before);
    // A proxy that does not exist.
    let mut list = world.command(&["list"]);
    trusting(&labs, &mut list).env("HTTPS_PROXY", "http://127.0.0.1:1");
    let said = world.output(&mut list).failed(10);
    assert!(said.contains("proxy"), "{said}");
}

/// A proxy that says the same to each caller, on loopback.
fn proxy_saying(answer: &'static [u8]) -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            use std::io::{Read, Write};
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(answer);
        }
    });
    address
}

#[test]
fn a_proxys_refusal_is_said_in_words_and_at_once() {
    let world = World::empty();
    let labs = Labs::start(&world, BEHIND_PROXY);
    for (answer, words) in [
        (&b"HTTP/1.1 403 Forbidden\r\n\r\n"[..], ["refuses connections to api.labs.test:", "no_proxy"]),
        (b"HTTP/1.1 503 Service Unavailable\r\n\r\n", ["cannot reach api.labs.test:", "(503 Service Unavailable)"]),
        (b"HTTP/1.1 407 x\r\nProxy-Authenticate: NTLM\r\n\r\n", ["wants a login by NTLM", "only Basic"]),
        (
            b"HTTP/1.1 407 x\r\nProxy-Authenticate: Basic\r\n\r\n",
            ["wants a user name and a password", "USER:PASSWORD@"],
        ),
    ] {
        let mut list = world.command(&["list"]);
        trusting(&labs, &mut list).env("HTTPS_PROXY", proxy_saying(answer));
        let said = world.output(&mut list).failed(10);
        assert!(words.iter().all(|words| said.contains(words)) && said.contains("the HTTP proxy 127.0.0.1:"), "{said}");
    }
}

#[test]
fn proxies_by_the_rules_of_go() {
    let world = World::empty();
    let labs = Labs::start(&world, BEHIND_PROXY);
    let proxy = Proxy::start();
    let address = format!("http://{}", proxy.address);
    // Excepted, so that the name is looked up here, where it is none.
    for excepted in ["*.labs.test", ".labs.test", "labs.test", "x, api.labs.test:PORT", "*"] {
        let port = labs.api_url().rsplit_once(':').unwrap().1.to_owned();
        let mut list = world.command(&["list"]);
        trusting(&labs, &mut list).env("HTTPS_PROXY", &address).env("NO_PROXY", excepted.replace("PORT", &port));
        let said = world.output(&mut list).failed(10);
        assert!(said.contains("cannot reach api.labs.test"), "{excepted}: {said}");
    }
    let mut list = world.command(&["list"]);
    trusting(&labs, &mut list).env("ALL_PROXY", &address);
    let _ = world.output(&mut list).failed(10);
    assert_eq!(proxy.heads().len(), 0);
    // Not excepted: another port, and a name that only ends alike.
    let mut list = world.command(&["list"]);
    trusting(&labs, &mut list).env("https_proxy", &address).env("NO_PROXY", "api.labs.test:1,abs.test");
    let _ = world.output(&mut list).ok();
    assert!(!proxy.heads().is_empty());

    // A platform on this computer is reached directly.
    let world = World::empty();
    let _labs = Labs::start(&world, PLAIN);
    let mut list = world.command(&["list"]);
    list.env("HTTP_PROXY", "http://127.0.0.1:1").env("HTTPS_PROXY", "http://127.0.0.1:1");
    let _ = world.output(&mut list).ok();
    // A list in the settings.
    world.settings("proxy: http://127.0.0.1:1\nno_proxy: [\"*.test\", localhost]\n");
    let _ = world.run(&["list"]).ok();
}
