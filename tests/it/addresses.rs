//! Addresses that the account's file and the platform name: where they lead, and what is shown of them.

use std::{
    fs,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use serde_json::json;

use crate::support::{
    Said, World,
    labs::{ID, Labs, PLAIN, SESSION, TOKEN},
    not_run,
};

const PASSWORD: &str = "secretpw99";

/// Writes an account with the API at `api`, and returns its world.
fn world_at(api: &str) -> World {
    let world = World::empty();
    write_account(&world, api);
    world
}

fn write_account(world: &World, api: &str) {
    let account = world.path(".iximiuz/labctl/config.yaml");
    fs::create_dir_all(account.parent().unwrap()).unwrap();
    fs::write(account, format!("api_base_url: {api}\nsession_id: {SESSION}\naccess_token: {TOKEN}\n")).unwrap();
}

fn assert_hidden(said: &Said) {
    assert!(!said.out.contains(PASSWORD) && !said.err.contains(PASSWORD), "{said:?}");
}

/// Checks that no file of ours in this folder has the password.
fn assert_no_file_has_it(folder: &std::path::Path) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            assert_no_file_has_it(&path);
        } else if path.is_file() {
            let text = fs::read(&path).unwrap();
            assert!(!String::from_utf8_lossy(&text).contains(PASSWORD), "{}", path.display());
        }
    }
}

#[test]
fn a_password_in_an_address_is_used_and_shown_nowhere() {
    let world = World::empty();
    let labs = Labs::start(&world, PLAIN);
    let account = fs::read_to_string(world.path(".iximiuz/labctl/config.yaml")).unwrap();
    let with_password = |text: &str| text.replace("http://", &format!("http://ada:{PASSWORD}@"));
    fs::write(world.path(".iximiuz/labctl/config.yaml"), with_password(&account)).unwrap();
    let _ = world.run(&["config-ssh", "--yes"]).ok();
    // The platform's own addresses have one, too.
    let offered = labs.tunnel_addresses().map(|address| with_password(&address));
    let tunnel = json!({ "url": offered[0], "loginUrl": offered[1] });
    labs.instead(&format!("POST /api/plays/{ID}/tunnels"), 200, &tunnel.to_string());
    let host = format!("playground-{ID}");
    for said in [
        world.run(&["whoami"]),
        world.run(&["whoami", "--json"]),
        world.ssh(&[&host, "true"]),
        world.run(&["doctor", &host, "--report"]),
        world.run(&["-v", "list"]),
    ] {
        assert_hidden(&said);
    }
    let authorized: Vec<_> = labs.seen().into_iter().filter_map(|seen| seen.authorization).collect();
    assert!(authorized.windows(2).all(|two| two[0] == two[1]), "the account's own credentials are sent");
    // A refused login, and hosts that do not answer.
    labs.instead("GET /login", 403, "no");
    fs::remove_dir_all(world.root().join("tunnels")).unwrap();
    assert_hidden(&world.ssh(&[&host, "true"]));
    write_account(&world, &format!("http://ada:{PASSWORD}@127.0.0.1:1/api"));
    let said = world.run(&["list"]);
    assert!(said.err.contains("cannot reach 127.0.0.1:1:"), "{said:?}");
    assert_hidden(&said);
    assert_no_file_has_it(&world.root());
}

#[test]
fn an_address_that_means_another_one_gets_no_credentials() {
    for api in [
        "http://127.0.0.1:84430/api",
        "http://127.0.0.1:65536/api",
        "http://127.0.0.1:0/api",
        "http://127.0.0.1:8o80/api",
        "http://[::1]:84430/api",
        "http://127.0.0.1:80/api?x=",
        "http://127.0.0.1:80/#api",
        "http:///api",
        "127.0.0.1/api",
    ] {
        let said = world_at(api).run(&["list"]).failed(2);
        assert!(said.contains("`api_base_url` or `base_url`") && said.contains("config.yaml"), "{api}: {said}");
    }
    // Addresses that the platform names.
    let world = World::empty();
    let labs = Labs::start(&world, PLAIN);
    let _ = world.run(&["config-ssh", "--yes"]).ok();
    let [url, login] = labs.tunnel_addresses();
    let host = format!("playground-{ID}");
    for (url, login) in
        [("http://localhost:65536", login.as_str()), (url.as_str(), "http://localhost:84430/login?once=1")]
    {
        let tunnel = json!({ "url": url, "loginUrl": login });
        labs.instead(&format!("POST /api/plays/{ID}/tunnels"), 200, &tunnel.to_string());
        let said = world.ssh(&[&host, "true"]);
        assert_eq!(said.code(), 255);
        assert!(said.err.contains("an invalid address: its port is not between 1 and 65535"), "{said:?}");
    }
    let tunnel = json!({ "url": url, "loginUrl": login });
    labs.instead(&format!("POST /api/plays/{ID}/tunnels"), 200, &tunnel.to_string());
    labs.redirect("GET /login", "http://localhost:84430/token");
    let said = world.ssh(&[&host, "true"]);
    assert!(said.err.contains("redirected to an invalid address: its port"), "{said:?}");
}

/// Answers requests by keep-alive, and closes each connection without a word when `lasting` requests came on it.
fn forgetful_server(lasting: usize, asked: Arc<AtomicUsize>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let asked = Arc::clone(&asked);
            std::thread::spawn(move || {
                let mut stream = stream.unwrap();
                for _ in 0..lasting {
                    let head = read_head(&mut stream);
                    if head.is_empty() {
                        return;
                    }
                    asked.fetch_add(1, Ordering::Relaxed);
                    assert!(head.contains("accept-encoding: identity"), "{head}");
                    let is_list = head.lines().next().unwrap().contains("/port-forwards");
                    let body = if is_list { "[]".to_owned() } else { json!({ "id": ID }).to_string() };
                    let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
                    stream.write_all(answer.as_bytes()).unwrap();
                }
                // The next request is read, so that it is closed under way and not before.
                read_head(&mut stream);
            });
        }
    });
    port
}

fn read_head(stream: &mut TcpStream) -> String {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap_or(0) == 1 {
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap().to_ascii_lowercase()
}

#[test]
fn a_kept_connection_that_ends_under_a_request_fails_nothing() {
    let asked = Arc::new(AtomicUsize::new(0));
    let port = forgetful_server(1, Arc::clone(&asked));
    let world = world_at(&format!("http://127.0.0.1:{port}/api"));
    // Two requests in a row, and the connection of the first is closed under the second.
    let said = world.run(&["port-forward", ID, "--list"]);
    assert_eq!((said.code(), said.err.as_str()), (0, ""), "{said:?}");
    assert_eq!(asked.load(Ordering::Relaxed), 2);
    // One that closes each new connection is no kept one, and is asked no more often than by the rule.
    let none = Arc::new(AtomicUsize::new(0));
    let port = forgetful_server(0, none);
    let _ = world_at(&format!("http://127.0.0.1:{port}/api")).run(&["list"]).failed(10);
}

#[test]
fn an_address_may_have_a_zone() {
    let Ok(listener) = TcpListener::bind("[::1]:0") else { return not_run("there is no IPv6 here") };
    let port = listener.local_addr().unwrap().port();
    // By the loopback interface, which is everywhere the first. The zone is no part of the host's name.
    let world = world_at(&format!("http://[::1%251]:{port}/api"));
    let heads = std::thread::spawn(move || {
        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\n[]";
        [0, 1].map(|_| {
            let mut stream = listener.accept().unwrap().0;
            let head = read_head(&mut stream);
            stream.write_all(answer).unwrap();
            head
        })
    });
    let said = world.run(&["list", "--json"]);
    assert_eq!(said.code(), 0, "{said:?}");
    for head in heads.join().unwrap() {
        assert!(head.contains(&format!("\r\nhost: [::1]:{port}\r\n")), "{head}");
    }
}
