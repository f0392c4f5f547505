//! Faults between the program and the platform, in each phase of a connection. One row for each fault, with the exit
//! code, the words, and bounds on time and memory. No fault may reveal a credential.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "figures for who runs it with --nocapture")]

use std::{
    fs,
    io::{Read, Write},
    net::TcpListener,
    panic::AssertUnwindSafe,
    path::Path,
    process::Stdio,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use base64::{Engine, prelude::BASE64_STANDARD};

use crate::support::{
    World,
    fault::{
        ACCESS, After, Authority, Fake, Fault, ITS_END, LOGIN, PLAY, Phase, SESSION, Seen, TOKEN, Tls, closed_port,
        frame, frame_head,
    },
};

const NETWORK: i32 = 10;
const ANSWER: i32 = 11;
const NOT_YET: i32 = 9;
const NOT_LOGGED_IN: i32 = 3;
const NOT_FOUND: i32 = 4;
const REFUSED: i32 = 6;

/// Memory limit. The program itself takes about 20 MiB, unoptimised. An answer of up to 16 MiB exists twice for a
/// moment.
const MEMORY_KIB: u64 = 96 * 1024;
/// Time limit in seconds for a connection that waits for a machine in these tests.
const WAKE_LIMIT: u64 = 12;

struct Row {
    name: String,
    phase: Phase,
    fault: Fault,
    code: i32,
    words: &'static str,
    seconds: u64,
    how: How,
}

/// The route to the platform.
#[derive(Clone)]
enum How {
    Plain,
    /// The API over TLS, with this certificate.
    Tls(Tls),
    /// The API over TLS with a good certificate; logins and tunnels at another host, over TLS with this one.
    TunnelTls(Tls),
    /// No process listens at the address of logins and tunnels.
    NobodyAtTunnels,
    /// The API's port answers the TLS handshake with these bytes.
    InsteadOfTls(&'static [u8]),
}

fn rows(authority: &Authority) -> Vec<Row> {
    use Phase::{Data, Find, Login, Session, Upgrade};
    let mut rows = Vec::new();
    let mut add = |name: &str, phase, fault: Fault, code, words, seconds, how| {
        rows.push(Row { name: format!("{name} ({phase:?})"), phase, fault, code, words, seconds, how });
    };
    let text = |status: u16, body: &str| Fault::Answer(status, vec![], body.into());
    let limited = |reset: String| Fault::Answer(429, vec![("X-Ratelimit-Reset", reset)], "slow down".into());
    let html = "<html><body>bad gateway</body></html>";

    // Health, for comparison: the machine's line arrives.
    add("health", Find, Fault::Nothing, 0, "", 5, How::Plain);

    // The transport. Every request is attempted as often as in the official client, for a few seconds in all, and for
    // longer once the playground is found.
    add("refused", Find, Fault::Refused, NETWORK, "onnection refused", 12, How::Plain);
    // A connection that arrives just before the listener closes is reset.
    add("refused", Session, Fault::Refused, NETWORK, "cannot reach 127.0.0.1", 20, How::Plain);
    add("refused", Login, Fault::Refused, NETWORK, "onnection refused", 20, How::NobodyAtTunnels);
    for (phase, seconds) in [(Find, 12), (Session, 20), (Login, 20), (Upgrade, 20)] {
        add("reset", phase, Fault::Reset, NETWORK, "cannot reach 127.0.0.1", seconds, How::Plain);
        add("closed", phase, Fault::Closed, NETWORK, "cannot reach 127.0.0.1", seconds, How::Plain);
    }
    for (phase, code, words, seconds) in [
        (Find, NETWORK, "did not answer within 30 s", 35),
        (Session, NOT_YET, "not ready in time", 20),
        (Login, NOT_YET, "not ready in time", 20),
        (Upgrade, NETWORK, "did not open a tunnel within 30 s", 40),
    ] {
        add("black hole", phase, Fault::BlackHole, code, words, seconds, How::Plain);
        add("a byte a second", phase, Fault::Drip, code, words, seconds, How::Plain);
    }
    add("half closed", Find, Fault::HalfClosed, NETWORK, "was cut off", 12, How::Plain);
    add("half closed", Session, Fault::HalfClosed, NETWORK, "was cut off", 20, How::Plain);
    add("half closed", Login, Fault::HalfClosed, NETWORK, "was cut off", 20, How::Plain);
    add("half closed", Upgrade, Fault::HalfClosed, NETWORK, "cannot reach", 20, How::Plain);

    // TLS, at the API and at the tunnels' host.
    let good = authority.server("localhost", 2090);
    let stranger = Authority::new();
    for (name, tls, words) in [
        ("certificate expired", authority.server("localhost", 2021), "expired"),
        (
            "certificate for another name",
            authority.server("other.example", 2090),
            "is not for localhost, but for other.example",
        ),
        ("certificate of a stranger", stranger.server("localhost", 2090), "is not signed by an authority of"),
    ] {
        add(name, Find, Fault::Nothing, NETWORK, words, 5, How::Tls(tls.clone()));
        add(name, Login, Fault::Nothing, NETWORK, words, 20, How::TunnelTls(tls));
    }
    add("health over TLS", Find, Fault::Nothing, 0, "", 10, How::Tls(good.clone()));
    add("health over TLS, tunnels elsewhere", Find, Fault::Nothing, 0, "", 10, How::TunnelTls(good.clone()));
    add("TLS broken off", Find, Fault::Reset, NETWORK, "cannot reach", 12, How::Tls(good));
    // RFC 8446, 6: fatal, handshake_failure.
    let alert = How::InsteadOfTls(b"\x15\x03\x03\x00\x02\x02\x28");
    add("TLS alert", Find, Fault::Nothing, NETWORK, "cannot reach localhost", 12, alert);
    let http = How::InsteadOfTls(b"HTTP/1.1 400 Bad Request\r\n\r\n");
    add("HTTP instead of TLS", Find, Fault::Nothing, NETWORK, "cannot reach localhost", 12, http);

    // Statuses. Only "not yet" is retried, and for a while 500 and 502. An upgrade is retried once with a
    // new session, and a tunnel's login after any status.
    for (phase, seconds) in [(Find, 5), (Session, 5), (Login, 20), (Upgrade, 10)] {
        // A gateway's failure is waited out.
        let gateways = 20;
        let unauthorized = if matches!(phase, Find | Session) {
            (NOT_LOGGED_IN, "does not accept your login")
        } else {
            (REFUSED, "does not accept its token")
        };
        add("401", phase, text(401, "who?"), unauthorized.0, unauthorized.1, seconds, How::Plain);
        add("403", phase, text(403, "quota \x1b[2Jexceeded"), REFUSED, "quota [2Jexceeded", seconds, How::Plain);
        add("404", phase, text(404, "nothing"), NOT_FOUND, "", seconds, How::Plain);
        add("500", phase, text(500, "panic"), ANSWER, "500 Internal Server Error", gateways, How::Plain);
        add("502 with HTML", phase, text(502, html), ANSWER, "502 Bad Gateway", gateways, How::Plain);
        add(
            "503 for ever",
            phase,
            text(503, "booting"),
            NOT_YET,
            if phase == Session { "not ready in time" } else { "not ready" },
            25,
            How::Plain,
        );
        add(
            "504 for ever",
            phase,
            text(504, html),
            NOT_YET,
            if phase == Session { "not ready in time" } else { "not ready" },
            25,
            How::Plain,
        );
        let storm = |headers| Fault::Storm(503, headers, Duration::from_secs(6));
        add("503 storm that ends", phase, storm(vec![]), 0, "", 20, How::Plain);
        let limited_for =
            |reset: &str| Fault::Storm(429, vec![("X-Ratelimit-Reset", reset.to_owned())], Duration::from_secs(2));
        add("429, seconds", phase, limited_for("3"), 0, "", 12, How::Plain);
        add("429, a Unix time", phase, limited_for(ITS_END), 0, "", 12, How::Plain);
        add("429, a time long past", phase, limited_for("1000000001"), 0, "", 12, How::Plain);
        add("429, nonsense", phase, limited_for("soon"), 0, "", 12, How::Plain);
        add("429, no header", phase, Fault::Storm(429, vec![], Duration::from_secs(2)), 0, "", 12, How::Plain);
        add("429, for ever", phase, limited("1".into()), NOT_YET, "", 25, How::Plain);
        add("429, a day", phase, limited("86400".into()), NOT_YET, "", 25, How::Plain);
        let elsewhere = |to: &str| Fault::Answer(302, vec![("Location", to.to_owned())], String::new());
        if phase != Login {
            add(
                "redirect to another host",
                phase,
                elsewhere("http://127.0.0.2:9/x"),
                ANSWER,
                "302",
                seconds,
                How::Plain,
            );
        }
    }
    add(
        "redirect in circles",
        Login,
        Fault::Answer(302, vec![("Location", format!("/login/{LOGIN}"))], String::new()),
        ANSWER,
        "in circles",
        20,
        How::Plain,
    );
    add(
        "redirect to nonsense",
        Login,
        Fault::Answer(302, vec![("Location", "::::".into())], String::new()),
        ANSWER,
        "an invalid address",
        20,
        How::Plain,
    );
    add(
        "a token in a refusal",
        Login,
        Fault::Answer(
            403,
            vec![("Set-Cookie", format!(".ixcondsess={TOKEN}; Path=/"))],
            format!("{TOKEN} of {LOGIN} is not allowed"),
        ),
        REFUSED,
        "[hidden] of [hidden] is not allowed",
        20,
        How::Plain,
    );
    for (phase, words) in [(Login, "more than 16 MiB"), (Upgrade, "200")] {
        add("1 GB", phase, Fault::Huge(1 << 30), ANSWER, words, 30, How::Plain);
        add("without end", phase, Fault::Endless, ANSWER, words, 30, How::Plain);
    }
    add("no token", Login, text(200, "welcome"), ANSWER, "without a token", 20, How::Plain);
    add(
        "a token no header carries",
        Login,
        Fault::Answer(200, vec![("Set-Cookie", ".ixcondsess=\u{e9}".into())], String::new()),
        ANSWER,
        "without a token",
        20,
        How::Plain,
    );

    // Answers that are invalid.
    for phase in [Find, Session] {
        add("1 GB", phase, Fault::Huge(1 << 30), ANSWER, "more than 16 MiB", 30, How::Plain);
        add("without end", phase, Fault::Endless, ANSWER, "more than 16 MiB", 30, How::Plain);
        add("HTML", phase, text(200, html), ANSWER, "is a web page", 5, How::Plain);
        add("half a JSON", phase, text(200, r#"{"id":"#), ANSWER, "is incomplete", 5, How::Plain);
        add(
            "a secret in half a JSON",
            phase,
            text(200, &format!(r#"{{"loginUrl":"{TOKEN}" "#)),
            ANSWER,
            "is incomplete",
            5,
            How::Plain,
        );
        add("another JSON", phase, text(200, "[1]"), ANSWER, "an unexpected form", 5, How::Plain);
        add(
            "a secret of the wrong kind",
            phase,
            text(200, &format!(r#"{{"url":["{TOKEN}"],"machines":"{TOKEN}"}}"#)),
            ANSWER,
            "an unexpected form",
            5,
            How::Plain,
        );
        add("deep nesting", phase, text(200, &"[".repeat(200_000)), ANSWER, "not JSON", 5, How::Plain);
        add(
            "millions of parts",
            phase,
            text(200, &format!("[{}{{}}]", "{},".repeat(5_000_000))),
            ANSWER,
            "too many elements",
            20,
            How::Plain,
        );
        add("empty", phase, text(200, ""), ANSWER, "is incomplete", 5, How::Plain);
    }
    add(
        "another playground",
        Find,
        text(200, r#"{"id":"../../../etc/passwd"}"#),
        ANSWER,
        "another playground",
        5,
        How::Plain,
    );
    add(
        "a playground without machines",
        Find,
        text(200, &format!(r#"{{"id":"{PLAY}"}}"#)),
        NOT_FOUND,
        "no machine",
        5,
        How::Plain,
    );
    add(
        "no address",
        Session,
        text(200, r#"{"url":"file:///etc/passwd","loginUrl":"javascript:1"}"#),
        ANSWER,
        "an invalid address",
        20,
        How::Plain,
    );
    for (phase, code, seconds) in
        [(Find, NETWORK, 35), (Session, NOT_YET, 20), (Login, NOT_YET, 20), (Upgrade, NETWORK, 40)]
    {
        add("headers without end", phase, Fault::EndlessHeaders, NETWORK, "cannot reach", seconds, How::Plain);
        add("continues without end", phase, Fault::EndlessContinue, code, "", seconds, How::Plain);
        add(
            "not HTTP",
            phase,
            Fault::Bytes(b"SSH-2.0-what\r\n\0\0\0".to_vec()),
            NETWORK,
            "cannot reach",
            seconds,
            How::Plain,
        );
    }
    add("no WebSocket", Upgrade, Fault::WrongAccept, ANSWER, "not a WebSocket server", 10, How::Plain);
    add("200 instead of an upgrade", Upgrade, text(200, "hello"), ANSWER, "200", 10, How::Plain);

    // The WebSocket, before the machine's first line. The machine may not be up yet, unless the bytes cannot be a
    // tunnel's.
    let greeting = frame(0x82, b"SSH-2.0-fake\r\n");
    let words = |bytes: Vec<u8>, after| Fault::Frames(bytes, after);
    let greeted = |bytes: Vec<u8>, after| Fault::Frames([greeting.clone(), bytes].concat(), after);
    let big = frame_head(0x82, 64 << 20);
    let reason = [&1011_u16.to_be_bytes()[..], b"quota\x07 exceeded"].concat();
    add("silent", Data, words(vec![], After::Silence), NOT_YET, "no answer through the tunnel", 35, How::Plain);
    add("a byte a second", Data, words(greeting.clone(), After::Drip), NOT_YET, "no answer", 35, How::Plain);
    add("ends at once", Data, words(vec![], After::End), NOT_YET, "closed immediately", 25, How::Plain);
    add("reset at once", Data, words(vec![], After::Reset), NOT_YET, "", 25, How::Plain);
    add(
        "text at once",
        Data,
        words(frame(0x81, b"no\x1b[2J such port"), After::Silence),
        ANSWER,
        "the tunnel reports: no[2J such port",
        10,
        How::Plain,
    );
    add(
        "closes with a reason at once",
        Data,
        words(frame(0x88, &reason), After::Silence),
        NOT_YET,
        "closed: quota exceeded",
        25,
        How::Plain,
    );
    add(
        "64 MiB frame at once",
        Data,
        words(big.clone(), After::Repeat),
        ANSWER,
        "violates its protocol",
        15,
        How::Plain,
    );
    add(
        "no WebSocket frames",
        Data,
        words(b"HTTP/1.1 400 Bad\r\n\r\n".to_vec(), After::Silence),
        ANSWER,
        "violates its protocol",
        10,
        How::Plain,
    );
    add(
        "masked frames",
        Data,
        words(b"\x82\x81abcd1".to_vec(), After::Silence),
        ANSWER,
        "violates its protocol",
        10,
        How::Plain,
    );
    add(
        "fragments without end",
        Data,
        words(frame(0x00, &[0; 60000]), After::Repeat),
        ANSWER,
        "violates its protocol",
        15,
        How::Plain,
    );
    add(
        "a message without end",
        Data,
        words([frame(0x02, &[0; 60000]), frame(0x00, &[0; 60000]).repeat(600)].concat(), After::Silence),
        ANSWER,
        "violates its protocol",
        15,
        How::Plain,
    );
    add("too many pings", Data, words(frame(0x89, &[0; 125]), After::Repeat), ANSWER, "too many pings", 15, How::Plain);
    // After the machine's first line.
    add(
        "silent after the first line",
        Data,
        greeted(vec![], After::Silence),
        NETWORK,
        "nothing has come through the tunnel",
        35,
        How::Plain,
    );
    add("ends after the first line", Data, greeted(vec![], After::End), 0, "", 5, How::Plain);
    add(
        "closes after the first line",
        Data,
        greeted(frame(0x88, &1000_u16.to_be_bytes()), After::Silence),
        0,
        "",
        5,
        How::Plain,
    );
    add("reset after the first line", Data, greeted(vec![], After::Reset), NETWORK, "was lost", 5, How::Plain);
    add(
        "text after the first line",
        Data,
        greeted(frame(0x81, b"bye"), After::Silence),
        NETWORK,
        "the tunnel reports: bye",
        5,
        How::Plain,
    );
    add(
        "closes with a reason",
        Data,
        greeted(frame(0x88, &reason), After::Silence),
        NETWORK,
        "closed: quota exceeded",
        5,
        How::Plain,
    );
    add("64 MiB frame", Data, greeted(big, After::Silence), NETWORK, "violates its protocol", 5, How::Plain);
    add(
        "16 MiB frame",
        Data,
        greeted([frame_head(0x82, 16 << 20), vec![b'x'; 16 << 20]].concat(), After::End),
        NETWORK,
        "has ended the connection",
        15,
        How::Plain,
    );
    add(
        "too many pings later",
        Data,
        greeted(frame(0x89, &[0; 125]).repeat(100_000), After::Silence),
        NETWORK,
        "too many pings",
        15,
        How::Plain,
    );
    add(
        "a token in the platform's words",
        Data,
        greeted(frame(0x81, TOKEN.as_bytes()), After::Silence),
        NETWORK,
        "the tunnel reports: [hidden]",
        5,
        How::Plain,
    );
    add(
        "credentials in the platform's words",
        Session,
        text(403, &format!("{SESSION}:{ACCESS} is not allowed")),
        REFUSED,
        "[hidden]:[hidden] is not allowed",
        5,
        How::Plain,
    );
    rows
}

/// The end of one run.
struct Ended {
    code: i32,
    out: Vec<u8>,
    err: String,
    took: Duration,
    peak_kib: u64,
}

fn run(world: &World, pem: &Path) -> Ended {
    let start = Instant::now();
    let mut child = world
        .command(&["-vvv", "connect", "--user", "root", &format!("playground-{PLAY}")])
        .env("SSL_CERT_FILE", pem)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"SSH-2.0-OpenSSH_9.2p1\r\n").unwrap();
    let (mut stdout, mut stderr) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
    let out = thread::spawn(move || {
        let mut all = Vec::new();
        stdout.read_to_end(&mut all).map(|_| all).unwrap()
    });
    let err = thread::spawn(move || {
        let mut all = Vec::new();
        stderr.read_to_end(&mut all).map(|_| all).unwrap()
    });
    let mut stdin = Some(stdin);
    let (mut peak_kib, mut dumps) = (0, true);
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        let pid = child.id();
        let arguments = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        // Skip the time between fork and exec, when the child has this process' memory.
        if String::from_utf8_lossy(&arguments).contains("-vvv\0connect") {
            peak_kib = peak_kib.max(peak(pid));
            // Skip the first moments, when the child has the limits of this process.
            dumps &= fs::read_to_string(format!("/proc/{pid}/limits"))
                .map_or(true, |limits| !limits.lines().any(|line| line.starts_with("Max core file size        0 ")));
        }
        assert_hidden("the arguments", &arguments);
        if start.elapsed() > Duration::from_secs(100) {
            child.kill().unwrap();
        }
        // A client leaves once it has received its error.
        if out.is_finished() {
            stdin = None;
        }
        thread::sleep(Duration::from_millis(10));
    };
    drop(stdin);
    assert!(!dumps || peak_kib == 0, "a core dump of it would hold the credentials");
    Ended {
        code: status.code().unwrap_or(-1),
        out: out.join().unwrap(),
        err: String::from_utf8_lossy(&err.join().unwrap()).into_owned(),
        took: start.elapsed(),
        peak_kib,
    }
}

fn peak(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0)
}

fn assert_hidden(what: &str, bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let encoded = BASE64_STANDARD.encode(format!("{SESSION}:{ACCESS}"));
    for secret in [SESSION, ACCESS, LOGIN, TOKEN, &encoded] {
        assert!(!text.contains(secret), "{what} has {secret} in it: {text}");
    }
}

/// Checks that no file of ours contains a secret, except the account's, and that no other user can read any of them. `logs`
/// prints those of the logs as they are.
fn assert_files_hidden(world: &World) {
    use std::os::unix::fs::PermissionsExt;
    let mut folders = vec![world.home().to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let metadata = fs::symlink_metadata(&path).unwrap();
            if path.starts_with(world.root()) {
                assert_eq!(metadata.permissions().mode() & 0o077, 0, "{} is open to others", path.display());
            }
            if metadata.is_dir() {
                folders.push(path);
            } else if metadata.is_file()
                && !path.ends_with("labctl/config.yaml")
                // A tunnel's token is stored here, for the next connection, and nowhere else.
                && !path.starts_with(world.root().join("tunnels"))
            {
                assert_hidden(&path.display().to_string(), &fs::read(&path).unwrap());
            }
        }
    }
}

/// Checks that credentials go only to the API, and the token only to the tunnel.
fn assert_well_sent(seen: &[Seen], to_api: bool) {
    for request in seen {
        let api = request.path.starts_with("/api/");
        if let Some(authorization) = request.header("authorization") {
            assert!(api && to_api && authorization.starts_with("Basic "), "{request:?}");
        }
        if let Some(cookie) = request.header("cookie") {
            assert!(!api && cookie == format!(".ixcondsess={TOKEN}"), "{request:?}");
        }
    }
}

fn world(base: &str) -> World {
    let world = World::empty();
    let config = world.home().join(".iximiuz/labctl/config.yaml");
    fs::create_dir_all(config.parent().unwrap()).unwrap();
    fs::write(&config, format!("api_base_url: {base}/api\nsession_id: {SESSION}\naccess_token: {ACCESS}\n")).unwrap();
    world.settings(&format!("wake_limit: {WAKE_LIMIT}\n"));
    world
}

fn try_row(row: &Row, authority: &Authority, pem: &Path) -> Result<String, String> {
    let elsewhere;
    let fake = match &row.how {
        How::Plain if matches!(row.fault, Fault::Refused) && row.phase == Phase::Find => {
            let world = world(&format!("http://127.0.0.1:{}", closed_port()));
            return judge(row, &world, &run(&world, pem));
        }
        How::Plain => Fake::start(row.phase, row.fault.clone()),
        How::Tls(tls) => Fake::with(row.phase, row.fault.clone(), tls.clone(), None, "localhost"),
        How::TunnelTls(tls) => {
            elsewhere = Fake::with(row.phase, row.fault.clone(), tls.clone(), None, "localhost");
            let good = authority.server("localhost", 2090);
            Fake::with(row.phase, row.fault.clone(), good, Some(elsewhere.base.clone()), "localhost")
        }
        &How::InsteadOfTls(bytes) => {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let base = format!("https://localhost:{}", listener.local_addr().unwrap().port());
            thread::spawn(move || {
                for mut tcp in listener.incoming().flatten() {
                    let _ = tcp.read(&mut [0; 4096]).and_then(|_| tcp.write_all(bytes));
                }
            });
            let world = world(&base);
            return judge(row, &world, &run(&world, pem));
        }
        How::NobodyAtTunnels => {
            let nobody = format!("http://127.0.0.1:{}", closed_port());
            Fake::with(row.phase, row.fault.clone(), None, Some(nobody), "127.0.0.1")
        }
    };
    let world = world(&fake.base);
    let ended = run(&world, pem);
    assert_well_sent(&fake.seen(), true);
    judge(row, &world, &ended)
}

/// The first word about a row with no other fault.
const LATE: &str = "late: ";

fn judge(row: &Row, world: &World, ended: &Ended) -> Result<String, String> {
    assert_hidden("standard output", &ended.out);
    assert_hidden("standard error", ended.err.as_bytes());
    assert_files_hidden(world);
    let Ended { code, out, err, took, peak_kib } = ended;
    let last: Vec<&str> = err.lines().filter(|line| line.starts_with("labctl-ssh-proxy: ")).collect();
    let line = format!(
        "{:44} exit {code:2} after {:5.1} s, {:3} MiB: {}",
        row.name,
        took.as_secs_f64(),
        peak_kib / 1024,
        last.last().unwrap_or(&"")
    );
    let told = *code == 0 && out.starts_with(b"SSH-2.0-fake\r\n")
        || last.last().is_some_and(|last| last.contains(row.words)) && last.len() < 10;
    let is_right = *code == row.code && told && *peak_kib < MEMORY_KIB;
    if is_right && took.as_secs() < row.seconds {
        return Ok(line);
    }
    let only_late = if is_right { LATE } else { "" };
    Err(format!("{only_late}{line}\n    wanted exit {}, {:?}, within {} s\n{err}", row.code, row.words, row.seconds))
}

#[test]
fn every_fault_in_every_phase() {
    let authority = Authority::new();
    let folder = tempfile::tempdir().unwrap();
    let pem = folder.path().join("ca.pem");
    fs::write(&pem, &authority.pem).unwrap();
    let mut rows = rows(&authority);
    if let Ok(only) = std::env::var("FAULT") {
        rows.retain(|row| row.name.contains(&only));
    }
    // The longest first. Nearly all of the time is spent waiting.
    rows.sort_by_key(|row| std::cmp::Reverse(row.seconds));
    let (next, done) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for _ in 0..24 {
            scope.spawn(|| {
                while let Some(row) = rows.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let result = std::panic::catch_unwind(AssertUnwindSafe(|| try_row(row, &authority, &pem)))
                        .unwrap_or_else(|_| Err(format!("{} panicked", row.name)));
                    done.lock().unwrap().push((row, result));
                }
            });
        }
    });
    let mut done = done.into_inner().unwrap();
    assert_eq!(done.len(), rows.len());
    // So many at once may hold one up. On its own it has no excuse.
    for (row, result) in &mut done {
        if result.as_ref().is_err_and(|said| said.starts_with(LATE)) {
            *result = try_row(row, &authority, &pem);
        }
    }
    let mut lines: Vec<&String> = done.iter().filter_map(|(_, result)| result.as_ref().ok()).collect();
    lines.sort();
    lines.iter().for_each(|line| println!("{line}"));
    let failed: Vec<&String> = done.iter().filter_map(|(_, result)| result.as_ref().err()).collect();
    assert!(
        failed.is_empty(),
        "{} of {} rows failed:\n{}",
        failed.len(),
        rows.len(),
        failed.iter().map(|s| s.as_str()).collect::<Vec<_>>().join("\n")
    );
}

/// A login that is redirected to another host sends neither the credentials nor the token there.
#[test]
fn no_credentials_follow_a_redirect() {
    let there = Fake::start(Phase::Find, Fault::Nothing);
    let to = format!("http://localhost:{}/login/elsewhere", there.address.port());
    let headers = vec![("Location", to.clone()), ("Set-Cookie", format!(".ixcondsess={TOKEN}; Path=/"))];
    let pem = Path::new("/dev/null");
    let fake = Fake::start(Phase::Login, Fault::Answer(302, headers, String::new()));
    let ended = run(&world(&fake.base), pem);
    assert_eq!(ended.code, 0, "{}", ended.err);
    let followed = there.seen();
    assert!(!followed.is_empty());
    for request in &followed {
        assert_eq!((request.header("authorization"), request.header("cookie")), (None, None), "{request:?}");
    }
    for phase in [Phase::Find, Phase::Session, Phase::Upgrade] {
        let there = Fake::start(Phase::Find, Fault::Nothing);
        let to = format!("http://localhost:{}/api/plays/{PLAY}", there.address.port());
        let fake = Fake::start(phase, Fault::Answer(307, vec![("Location", to)], String::new()));
        let ended = run(&world(&fake.base), pem);
        assert_eq!(ended.code, ANSWER, "{}", ended.err);
        assert!(there.seen().is_empty(), "{phase:?}");
    }
}
