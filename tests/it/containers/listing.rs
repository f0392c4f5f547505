//! `containers`: what it lists is what Docker's own client lists, and `--watch` sees what that client does.

use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead, BufReader, Read},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc::{Receiver, channel},
    },
    thread,
    time::{Duration, Instant},
};

use pty_process::Size;
use rustix::process::Signal;
use serde_json::{Value, json};

use super::{
    Site, needs_helper,
    refusals::{Odd, response},
};
use crate::support::{
    Ending, PROGRAM, World, at_best,
    cut::How,
    distant::{Distant, send},
    engine::{BUSYBOX, Engine, SCRATCH},
    eventually, needs, schema,
    terminal::OnTerminal,
};

const NO_NETWORK: [&str; 2] = ["--network", "none"];

/// Time limit for what the program does at once, on a busy computer.
const SOON: Duration = Duration::from_secs(60);

/// The machines that a command lists.
fn machines(world: &World, args: &[&str]) -> Vec<Value> {
    let found = world.json(&[&["containers", "--json"], args].concat());
    schema::check("containers", &found);
    found["machines"].as_array().unwrap().clone()
}

/// The containers of a machine whose names begin so.
fn named<'a>(machine: &'a Value, begin: &str) -> Vec<&'a Value> {
    let all = machine["containers"].as_array().into_iter().flatten();
    all.filter(|one| one["name"].as_str().unwrap().starts_with(begin)).collect()
}

/// The tunnel sessions that are kept.
fn sessions(world: &World) -> BTreeSet<Vec<u8>> {
    let kept = fs::read_dir(world.root().join("tunnels")).unwrap();
    kept.map(|entry| fs::read(entry.unwrap().path()).unwrap()).collect()
}

/// A running `containers --watch --json`, and its lines.
struct Watch {
    child: Ending,
    lines: Receiver<Value>,
}

impl Watch {
    fn start(mut command: Command) -> Watch {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let (tell, lines) = channel();
        let out = BufReader::new(child.stdout.take().unwrap());
        thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                if tell.send(serde_json::from_str(&line).unwrap()).is_err() {
                    break;
                }
            }
        });
        Watch { child: Ending(child), lines }
    }

    fn of(site: &Site) -> Watch {
        Watch::start(site.world.command(&["--local", "containers", &site.play, "--watch", "--json"]))
    }

    #[track_caller]
    fn next(&self, what: &str) -> Value {
        let line = self.lines.recv_timeout(SOON).unwrap_or_else(|e| panic!("{what}: {e}"));
        schema::check("containersLine", &line);
        line
    }

    /// Returns the next line that fits.
    #[track_caller]
    fn until(&self, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
        loop {
            let line = self.next(what);
            if fits(&line) {
                return line;
            }
        }
    }

    /// Waits for a line on which the container of this name is in this state: `gone` for none. Returns how long it took.
    #[track_caller]
    fn sees(&self, name: &str, state: &str) -> Duration {
        let began = Instant::now();
        self.until(&format!("{name} is {state}"), |line| {
            let all = named(line, name);
            line["containers"].is_array() && all.first().map_or("gone", |one| one["state"].as_str().unwrap()) == state
        });
        began.elapsed()
    }
}

/// A network of the engine's whose containers can publish ports.
struct Network(&'static Engine, String);

impl Network {
    fn new(engine: &'static Engine) -> Network {
        let name = format!("listing{}", std::process::id());
        engine.docker(&["network", "create", "--opt", "com.docker.network.bridge.enable_ip_masquerade=false", &name]);
        Network(engine, name)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let _ = self.0.command(&["network", "rm", &self.1]).output();
    }
}

/// Names, images, states, statuses and ports, as Docker's own client prints them.
#[test]
fn the_list_is_that_of_docker() {
    let Some(engine) = Engine::here() else { return };
    let site = Site::new(engine, "builtin");
    let network = Network::new(engine);
    let published = ["--network", &network.1, "-p", "127.0.0.1::8080", "-p", "127.0.0.1::53/udp", "--expose", "9090"];
    let _running = engine.run_as("listing-Run.1", &published, BUSYBOX, &[]);
    let exited = engine.run_as("listing-exited", &NO_NETWORK, SCRATCH, &[]);
    exited.docker("kill");
    let paused = engine.run_as("listing-paused", &NO_NETWORK, SCRATCH, &[]);
    paused.docker("pause");
    let _healthy = engine.run_as(
        "listing-healthy",
        &[&NO_NETWORK[..], &["--health-cmd", "true", "--health-interval", "1s"]].concat(),
        BUSYBOX,
        &[],
    );
    engine.docker(&["create", "--name", "listing-created", SCRATCH]);
    eventually("it is healthy", || {
        engine.docker(&["ps", "--filter", "name=listing-healthy", "--format", "{{.Status}}"]).contains("(healthy)")
    });
    let of_docker = || {
        let format = "{{.ID}}\t{{.Names}}\t{{.Image}}\t{{.State}}\t{{.Status}}\t{{.Ports}}";
        let lines = engine.docker(&["ps", "--all", "--no-trunc", "--filter", "name=^listing-", "--format", format]);
        lines.lines().map(|line| line.split('\t').map(str::to_owned).collect()).collect::<BTreeSet<Vec<String>>>()
    };
    let of_ours = |machine: &Value| {
        let row = |one: &&Value| {
            let mut row =
                ["id", "name", "image", "state", "status"].map(|key| one[key].as_str().unwrap().to_owned()).to_vec();
            let port = |port: &Value| {
                let inside = format!("{}/{}", port["container"], port["protocol"].as_str().unwrap());
                match port["machine"].as_u64() {
                    Some(outside) => format!("{}:{outside}->{inside}", port["address"].as_str().unwrap()),
                    None => inside,
                }
            };
            let mut ports: Vec<String> = one["ports"].as_array().unwrap().iter().map(port).collect();
            ports.sort();
            row.push(ports.join(", "));
            row
        };
        named(machine, "listing-").iter().map(row).collect::<BTreeSet<_>>()
    };
    let sorted = |rows: BTreeSet<Vec<String>>| {
        let sort = |mut row: Vec<String>| {
            let mut ports: Vec<&str> = row[5].split(", ").collect();
            ports.sort_unstable();
            row[5] = ports.join(", ");
            row
        };
        rows.into_iter().map(sort).collect::<BTreeSet<_>>()
    };
    // A second may pass between the two.
    let (mut ours, mut dockers) = Default::default();
    for _ in 0..5 {
        ours = of_ours(&machines(&site.world, &[&site.play])[0]);
        dockers = sorted(of_docker());
        if ours == dockers {
            break;
        }
    }
    assert_eq!(ours, dockers);
    assert_eq!(ours.len(), 5);
    assert!(ours.iter().any(|row| row[5].contains("->8080/tcp") && row[5].contains("->53/udp")), "{ours:?}");

    let machine = &machines(&site.world, &[&site.machine()])[0];
    assert_eq!((&machine["machine"], &machine["host"]), (&json!(super::MACHINE), &json!(site.machine())));
    let one = named(machine, "listing-Run.1")[0];
    assert_eq!(
        (&one["label"], &one["host"], &one["engine"], &one["pod"]),
        (&json!("listing-run-1"), &json!(site.host("listing-run-1")), &json!("docker"), &Value::Null)
    );
    // The line to copy leads inside, and those that run come first.
    let text = site.world.local(&["containers", &site.play, "-m", super::MACHINE]).ok();
    let rows: Vec<&str> = text.lines().filter(|line| line.starts_with("listing-")).collect();
    assert!(rows[0].starts_with("listing-Run.1") && rows[1].starts_with("listing-healthy"), "{text}");
    assert!(rows[0].contains("->8080") && rows[0].contains("->53/udp"), "{text}");
    let copied = text.lines().last().unwrap().trim().strip_prefix("ssh ").unwrap().to_owned();
    assert!(copied.starts_with(&site.machine()), "{text}");
    engine.docker(&["rm", "--force", "listing-created"]);
}

/// Each act of Docker's client is told within a second, and what changes nothing is not told.
#[test]
fn a_watch_sees_what_docker_does() {
    let Some(engine) = Engine::here() else { return };
    let site = Site::new(engine, "builtin");
    let watch = Watch::of(&site);
    watch.next("the first line");
    at_best(Duration::from_secs(1), "a change is told", || {
        let mut slowest = Duration::ZERO;
        let mut sees = |name: &str, state: &str| slowest = slowest.max(watch.sees(name, state));
        let one = engine.run_as("watched", &NO_NETWORK, BUSYBOX, &[]);
        sees("watched", "running");
        one.docker("pause");
        sees("watched", "paused");
        one.docker("unpause");
        sees("watched", "running");
        engine.docker(&["rename", "watched", "renamed"]);
        sees("renamed", "running");
        engine.docker(&["stop", "--time", "0", "renamed"]);
        sees("renamed", "exited");
        one.docker("start");
        sees("renamed", "running");
        drop(one);
        sees("renamed", "gone");
        slowest
    });

    // A health check is no change, nor is a program that runs inside; its result is one.
    let options = [&NO_NETWORK[..], &["--health-cmd", "test -e /tmp/well", "--health-interval", "1s"]].concat();
    let one = engine.run_as("checked", &options, BUSYBOX, &[]);
    let status = |line: &Value| named(line, "checked").first().map(|one| one["status"].as_str().unwrap().to_owned());
    let is_healthy = |line: &Value| status(line).is_some_and(|status| status.contains("(healthy)"));
    watch.sees("checked", "running");
    assert!(one.exec(&[], &["touch", "/tmp/well"]).status.success());
    watch.until("it is healthy", is_healthy);
    for _ in 0..3 {
        assert!(one.exec(&[], &["true"]).status.success());
    }
    thread::sleep(Duration::from_secs(3));
    let told: Vec<Value> = watch.lines.try_iter().filter(|line| !is_healthy(line)).collect();
    assert!(told.is_empty(), "{told:?}");
}

/// The helper ends with the watch, however that ends.
#[test]
fn a_watch_that_ends_leaves_no_process() {
    let Some(engine) = Engine::here() else { return };
    for endpoint in crate::support::ENDPOINTS {
        let site = Site::new(engine, endpoint);
        let helpers = || site.visits().iter().filter(|line| line.contains("watch")).count();
        let ended = |what: &str, end: &dyn Fn(&mut Watch)| {
            at_best(Duration::from_secs(1), what, || {
                let mut watch = Watch::of(&site);
                watch.next("the first line");
                assert_eq!(helpers(), 1, "{endpoint}");
                end(&mut watch);
                let began = Instant::now();
                eventually(what, || helpers() == 0);
                began.elapsed()
            });
        };
        ended("nothing is left of one that was killed", &|watch| watch.child.0.kill().unwrap());
        ended("nothing is left of one that was asked to end", &|watch| {
            send(watch.child.0.id(), Signal::TERM);
            assert_eq!(watch.child.0.wait().unwrap().code(), Some(143));
        });
        // Its reader leaves.
        let script = format!("{PROGRAM} --local containers {} --watch --json <&- | head -n 1", site.play);
        let said = site.world.output(site.world.program("sh").args(["-c", &script])).ok();
        schema::check("containersLine", &serde_json::from_str(&said).unwrap());
        eventually("nothing is left of one without a reader", || {
            helpers() == 0 && site.world.processes("--watch").is_empty()
        });
    }
}

/// The machine's engine is asked once for its list, and then again when it tells of a change.
#[test]
fn an_engine_that_tells_nothing_is_asked_nothing() {
    let Some(odd) = Odd::new() else { return };
    let lists = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&lists);
    *odd.answer.lock().unwrap() = Box::new(move |path| {
        // The stream of events never says a word.
        if path.starts_with("/events") {
            return None;
        }
        count.fetch_add(1, Ordering::Relaxed);
        Some(response(&json!([])))
    });
    let watch = Watch::of(&odd.site);
    assert_eq!(watch.next("the first line")["containers"], json!([]));
    thread::sleep(Duration::from_secs(4));
    assert_eq!(lists.load(Ordering::Relaxed), 1);
    // One that has ended is said, and it is connected to again.
    *odd.answer.lock().unwrap() = Box::new(|_| Some(b"HTTP/1.0 500 Gone\r\n\r\n".to_vec()));
    drop(watch);
    let watch = Watch::of(&odd.site);
    let line = watch.next("the first line");
    assert_eq!(line["error"]["kind"], "program", "{line}");
    *odd.answer.lock().unwrap() = Box::new(|path| {
        let event = "HTTP/1.0 200 OK\r\n\r\n{\"Type\":\"container\",\"Action\":\"start\"}\n";
        Some(if path.starts_with("/events") { event.as_bytes().to_vec() } else { response(&json!([])) })
    });
    assert_eq!(watch.next("it answers")["containers"], json!([]));
}

/// An engine of the test's own, which it can end and start. Containers are made in it, and none runs.
struct OwnEngine {
    folder: tempfile::TempDir,
    process: Child,
}

impl OwnEngine {
    fn new() -> OwnEngine {
        let folder = tempfile::Builder::new().prefix("lsr").tempdir_in("/tmp").unwrap();
        let process = OwnEngine::start(folder.path());
        let engine = OwnEngine { folder, process };
        let mut import = engine.docker(&["import", "-", "empty"]);
        let mut import = import.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        // Two blocks of nothing are an archive without files.
        std::io::copy(&mut std::io::repeat(0).take(1024), &mut import.stdin.take().unwrap()).unwrap();
        assert!(import.wait().unwrap().success());
        engine
    }

    fn start(folder: &Path) -> Child {
        let below = |name: &str| folder.join(name).display().to_string();
        let mut command = Command::new(needs("dockerd"));
        command.args(["--bridge=none", "--iptables=false", "--ip-masq=false", "--ip-forward=false"]);
        command.args(["--data-root", &below("data"), "--exec-root", &below("exec"), "-p", &below("pid")]);
        command.args(["-H", &format!("unix://{}", below("s"))]).stdin(Stdio::null());
        let process = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let engine = format!("unix://{}", below("s"));
        let answers = || Command::new(needs("docker")).args(["-H", &engine, "info"]).output().unwrap().status.success();
        eventually("the engine answers", answers);
        process
    }

    fn docker(&self, args: &[&str]) -> Command {
        let mut command = Command::new(needs("docker"));
        command.arg("-H").arg(format!("unix://{}", self.folder.path().join("s").display())).args(args);
        command
    }

    fn create(&self, name: &str) {
        assert!(self.docker(&["create", "--name", name, "empty", "/x"]).output().unwrap().status.success());
    }

    fn end(&mut self) {
        send(self.process.id(), Signal::TERM);
        self.process.wait().unwrap();
    }
}

impl Drop for OwnEngine {
    fn drop(&mut self) {
        self.end();
    }
}

#[test]
fn a_watch_survives_a_restart_of_the_engine() {
    if Engine::here().is_none() {
        return;
    }
    let mut engine = OwnEngine::new();
    engine.create("before");
    let site = Site::with(&engine.folder.path().join("s"), "builtin", &[]);
    let watch = Watch::of(&site);
    watch.sees("before", "created");
    engine.end();
    let line = watch.until("it has ended", |line| line["error"].is_object());
    assert_eq!((&line["machine"], &line["error"]["kind"]), (&json!(super::MACHINE), &json!("program")), "{line}");
    assert!(line["error"]["message"].as_str().unwrap().contains("engine"), "{line}");
    engine.process = OwnEngine::start(engine.folder.path());
    watch.sees("before", "created");
    // Its events are followed again.
    engine.create("after");
    watch.sees("after", "created");
}

/// A connection that is cut is said and made again, over the session that is kept: the platform is not asked.
#[test]
fn a_watch_survives_a_cut_network() {
    let Some(engine) = Engine::here() else { return };
    needs_helper();
    let distant = Distant::new(&["--engine", engine.socket().to_str().unwrap()]);
    let watch = Watch::start(distant.world.command(&["containers", &distant.id, "--watch", "--json"]));
    watch.next("the first line");
    for how in [How::Reset, How::Fin] {
        let asked = distant.api.seen().len();
        distant.tunnels.fail(how);
        let line = watch.until("the loss", |line| line["error"].is_object());
        assert_eq!(line["error"]["kind"], "network", "{line}");
        watch.until("the containers", |line| line["containers"].is_array());
        assert_eq!(distant.api.seen().len(), asked, "{how:?}");
    }
    let one = engine.run_as("behind-a-cut", &NO_NETWORK, SCRATCH, &[]);
    watch.sees("behind-a-cut", "running");
    // The network is away for a while, as when a computer sleeps, and something happens meanwhile.
    let before = sessions(&distant.world);
    distant.tunnels.goes_away();
    distant.api.goes_away();
    drop(one);
    let line = watch.until("the loss", |line| line["error"].is_object());
    assert_eq!(line["error"]["kind"], "network", "{line}");
    distant.tunnels.heals();
    distant.api.heals();
    watch.sees("behind-a-cut", "gone");
    assert!(sessions(&distant.world) == before, "no tunnel is requested again");
    // Stopped, it stays so, and the watch says it and ends.
    let said = distant.world.run(&["stop", &distant.id]);
    said.ok();
    let line = watch.until("the stop", |line| line["error"]["kind"] == "not-woken");
    assert!(line["error"]["hint"].as_str().unwrap().contains("start"), "{line}");
    let mut child = watch.child;
    assert_eq!(child.0.wait().unwrap().code(), Some(7));
    assert_eq!(distant.world.json(&["list", "--json"])[0]["state"], "STOPPED");
}

/// One that fails costs no other, and nothing is woken.
#[test]
fn each_machine_answers_for_itself() {
    let Some(engine) = Engine::here() else { return };
    needs_helper();
    let mut world = World::empty();
    world.serve(&["--engine", engine.socket().to_str().unwrap()]);
    let id = world.playground("duo");
    let _one = engine.run_as("of-both", &NO_NETWORK, SCRATCH, &[]);
    let names = |found: &[Value]| found.iter().map(|one| one["machine"].clone()).collect::<Vec<_>>();
    let found = machines(&world, &[&id]);
    assert_eq!(names(&found), ["node-01", "node-02"]);
    assert!(found.iter().all(|machine| named(machine, "of-both").len() == 1), "{found:?}");
    // The sessions are kept, and are used again.
    let before = sessions(&world);
    assert_eq!(before.len(), 2);
    let both = world.local(&["containers", &id]).ok();
    assert!(both.starts_with("Machine node-01\n") && both.contains("\n\nMachine node-02\n"), "{both}");
    assert_eq!(names(&machines(&world, &[&format!("playground-{id}.node-02")])), ["node-02"]);
    assert!(sessions(&world) == before);

    world.local(&["machine", "stop", &id, "node-02"]).ok();
    let found = machines(&world, &[&id]);
    assert_eq!(named(&found[0], "of-both").len(), 1);
    assert_eq!(found[1]["error"]["kind"], "not-woken", "{found:?}");
    let said = world.local(&["containers", &id]);
    assert!(said.err.contains("machine node-02 of playground duo") && said.err.contains("is stopped"), "{said:?}");
    assert!(said.err.contains(&format!("machine restart {id} node-02")), "{said:?}");
    assert!(said.ok().contains("of-both"));
    let said = world.local(&["containers", &id, "-m", "node-02"]).failed(7);
    assert!(said.contains("is stopped") && !said.contains("--local --local"), "{said}");
    let watch = Watch::start(world.command(&["--local", "containers", &id, "--watch", "--json"]));
    let lines = [watch.next("one machine"), watch.next("the other")];
    let kinds: BTreeSet<bool> = lines.iter().map(|line| line["error"]["kind"] == "not-woken").collect();
    assert_eq!(kinds.len(), 2, "{lines:?}");
    drop(watch);

    world.local(&["stop", &id]).ok();
    for args in [&["containers", &id][..], &["containers", &id, "--watch"], &["containers", &id, "--json"]] {
        let said = world.local(args).failed(7);
        assert!(said.contains("duo") && said.contains(&format!("start {id}`")), "{said}");
    }
    assert_eq!(world.json(&["list", "--json"])[0]["state"], "STOPPED");
}

#[test]
fn an_engine_that_is_away_is_the_error() {
    if Engine::here().is_none() {
        return;
    }
    let (site, folder) = Site::without_engine();
    let said = site.world.local(&["containers", &site.play]).failed(14);
    assert!(said.contains(folder.path().to_str().unwrap()) && said.contains("hint: "), "{said}");
    let said = site.world.local(&["containers", &site.play, "--json"]);
    schema::check("failure", &serde_json::from_str(&said.out).unwrap());
}

/// Row (g): names, images and states are foreign text, wherever they are shown.
#[test]
fn escapes_of_an_engine_do_not_reach_the_table() {
    let Some(odd) = Odd::new() else { return };
    let evil = "\x1b[2J\x1b]0;owned\x07\u{202e}\n\r\u{9b}31m";
    let one = json!({
        "Id": "c0ffee".repeat(10) + "0000", "Names": [format!("/web{evil}")], "Image": evil, "State": evil,
        "Status": format!("Up ({evil})"), "Ports": [{"IP": evil, "PrivatePort": 1, "PublicPort": 2, "Type": evil}]
    });
    *odd.answer.lock().unwrap() = Box::new(move |path| (!path.starts_with("/events")).then(|| response(&json!([one]))));
    let harmless = |text: &str| {
        assert!(text.contains("web"), "{text:?}");
        assert!(!text.contains(['\x1b', '\x07', '\u{202e}', '\u{9b}', '\r']), "{text:?}");
    };
    harmless(&odd.site.world.local(&["containers", &odd.site.play]).ok());
    let mut watch = odd.site.world.command(&["--local", "containers", &odd.site.play, "--watch"]);
    let mut child = Ending(watch.stdout(Stdio::piped()).spawn().unwrap());
    let mut page = String::new();
    let mut out = BufReader::new(child.0.stdout.take().unwrap());
    while !page.ends_with("\n\n") {
        out.read_line(&mut page).unwrap();
    }
    harmless(&page);
}

/// Five hundred containers are listed as soon as their engine has told them.
#[test]
fn many_containers_are_listed_at_once() {
    let Some(odd) = Odd::new() else { return };
    let all: Vec<Value> = (0..500)
        .map(|n| {
            json!({
                "Id": format!("{n:064x}"), "Names": [format!("/service-of-the-shop-{n}")],
                "Image": format!("registry.example.com/team/service-{n}:1.2.3"), "State": "running",
                "Status": "Up 3 minutes", "Ports": [{"IP": "0.0.0.0", "PrivatePort": 80, "PublicPort": n + 1000, "Type": "tcp"}]
            })
        })
        .collect();
    *odd.answer.lock().unwrap() = Box::new(move |path| (!path.starts_with("/events")).then(|| response(&json!(all))));
    let found = machines(&odd.site.world, &[&odd.site.play]);
    assert_eq!(named(&found[0], "service-of-the-shop-").len(), 500);
    at_best(Duration::from_secs(3), "500 are listed", || {
        let began = Instant::now();
        let text = odd.site.world.local(&["containers", &odd.site.play]).ok();
        assert_eq!(text.lines().filter(|line| line.contains("->80")).count(), 500);
        began.elapsed()
    });
    let watch = Watch::of(&odd.site);
    assert_eq!(named(&watch.next("the first line"), "service").len(), 500);
}

/// On a terminal the page is drawn again at each change, and the screen comes back.
#[test]
fn a_watch_redraws_its_page() {
    let Some(engine) = Engine::here() else { return };
    let site = Site::new(engine, "builtin");
    let mut shown = OnTerminal::of_ours(&site.world, &["containers", &site.play, "--watch"]);
    shown.terminal.resize(Size::new(60, 80)).unwrap();
    shown.expect("\x1b[?1049h");
    let one = engine.run_as("drawn", &NO_NETWORK, SCRATCH, &[]);
    shown.expect("drawn");
    one.docker("pause");
    shown.expect("paused");
    send(shown.child.id(), Signal::TERM);
    shown.expect("\x1b[?1049l");
    assert_eq!(shown.code(), Some(143));
}
