//! Readable host names: made from titles, kept, and none that is a host of the user's. OpenSSH and ssh-keygen judge.

use std::{
    fs,
    net::UdpSocket,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use serde_json::Value;

use crate::support::{World, needs, not_run};

const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl";

/// Returns the option of `ssh -G`.
fn option(world: &World, host: &str, name: &str) -> String {
    let all = world.ssh(&["-G", host]).ok();
    all.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')).unwrap_or_default().to_owned()
}

fn start(world: &World, args: &[&str]) -> Value {
    world.json(&[&["start"], args, &["--no-wait", "--json"]].concat())
}

fn id(play: &Value) -> String {
    play["id"].as_str().unwrap().to_owned()
}

fn listed(world: &World, id: &str) -> Value {
    let all = world.json(&["list", "--json"]);
    all.as_array().unwrap().iter().find(|play| play["id"] == id).unwrap().clone()
}

#[test]
fn a_title_is_a_host_name_as_long_as_its_playground_lives() {
    let mut world = World::with_platform(&[]);
    fs::create_dir(world.path(".ssh")).unwrap();
    let mine = "Host work\n  User ada\n\nHost *\n  Compression yes\n";
    fs::write(world.ssh_config(), mine).unwrap();
    world.configure();
    let configuration = fs::read(world.ssh_config()).unwrap();
    let before = option(&world, "my-lab", "hostname");
    assert_eq!(before, "my-lab");

    let first = world.json(&["start", "duo", "--title", "My lab", "--json"]);
    let (first, machines) = (id(&first), first["machines"].clone());
    let second = id(&start(&world, &["shell", "--title", "My  LAB!"]));
    assert_eq!(listed(&world, &first)["alias"], "my-lab");
    assert_eq!(listed(&world, &second)["alias"], "my-lab-2");
    assert_eq!(listed(&world, &second)["machines"][0]["alias"], "my-lab-2");
    let machine = machines[1]["name"].as_str().unwrap();
    assert_eq!(machines[1]["alias"], format!("my-lab.{machine}"));

    // In ssh, `connect` gets the id, and host keys are kept under it.
    for (alias, host) in [
        ("my-lab".to_owned(), format!("playground-{first}")),
        (format!("my-lab.{machine}"), format!("playground-{first}.{machine}")),
        ("my-lab-2".to_owned(), format!("playground-{second}")),
    ] {
        assert_eq!(option(&world, &alias, "hostname"), host);
        let command = option(&world, &alias, "proxycommand");
        assert!(command.ends_with(&format!(" --local connect --user %r {host}")), "{command}");
        assert_eq!(option(&world, &alias, "proxycommand"), option(&world, &host, "proxycommand"));
    }
    assert!(!option(&world, "my-lab.example.com", "proxycommand").contains("connect"));
    let there = format!("my-lab.{machine}");
    assert_eq!(
        world.ssh(&[&there, "hostname; echo $USER"]).ok(),
        world.ssh(&[&format!("playground-{first}.{machine}"), "hostname; echo $USER"]).ok()
    );
    let known = world.root().join("known_hosts.local");
    let keygen = |host: &str| {
        let mut command = world.program("ssh-keygen");
        world.output(command.args(["-F", host, "-f"]).arg(&known)).code()
    };
    assert_eq!((keygen(&format!("playground-{first}.{machine}")), keygen(&there)), (0, 1));

    // Arguments take it, with a machine where a host name is taken, and lists show it.
    assert_eq!(world.local(&["ssh", &there, "echo", "hi"]).ok(), "hi\n");
    let refused = world.local(&["stop", &there]).failed(2);
    assert!(refused.contains(&format!("leave out `.{machine}`")), "{refused}");
    let table = world.local(&["list"]).ok();
    assert!(table.contains("ALIAS") && table.contains("my-lab-2"), "{table}");
    // A title that is another's alias means neither.
    world.local(&["rename", &second, "my-lab"]).ok();
    assert_eq!(listed(&world, &second)["alias"], "my-lab-2");
    let said = world.local(&["wait", "my-lab"]).failed(5);
    assert!(said.contains(&first) && said.contains(&second), "{said}");

    // A rename changes it, a title of emoji has none, and a given one stays.
    let said = world.local(&["rename", &second, "Größe 2"]);
    assert!(said.out.contains("is now called Größe 2: ssh grosse-2\n") && said.err.is_empty(), "{said:?}");
    assert!(world.entries().contains(&format!("Host playground-{second} grosse-2\n")));
    assert!(!world.entries().contains("my-lab-2"));
    let said = world.local(&["rename", "grosse-2", "🚀"]);
    assert!(said.err.is_empty() && !said.out.contains("ssh "), "{said:?}");
    assert!(listed(&world, &second).get("alias").is_none());
    world.local(&["rename", &second, "--alias", "box"]).ok();
    world.local(&["rename", &second, "Other"]).ok();
    assert_eq!(listed(&world, &second)["alias"], "box");
    let said = world.local(&["rename", &second, "Never", "--alias", "my-lab"]).failed(2);
    assert!(said.contains("my-lab is the alias of another playground"), "{said}");
    for label in ["My lab", "🚀", "localhost", "playground-x", "-x", "127", "a.b"] {
        world.local(&["rename", &second, "Never", &format!("--alias={label}")]).failed(2);
    }
    let now = listed(&world, &second);
    assert_eq!((&now["title"], &now["alias"]), (&"Other".into(), &"box".into()));
    world.local(&["rename", &second, "--alias", "none"]).ok();
    assert!(listed(&world, &second).get("alias").is_none() && !world.entries().contains(" box\n"));

    // Every other command keeps it, and the end of the playground frees it.
    world.local(&["stop", "my-lab"]).ok();
    assert!(world.entries().contains(&format!("Host playground-{first} my-lab\n")));
    assert!(world.local(&["doctor"]).out.contains("my-lab"));
    world.local(&["destroy", "my-lab", "--yes"]).ok();
    assert!(!world.entries().contains("my-lab"));
    world.local(&["rename", &second, "My lab"]).ok();
    assert_eq!(listed(&world, &second)["alias"], "my-lab");
    world.settings("alias: none\n");
    assert!(listed(&world, &second).get("alias").is_none() && !world.entries().contains("my-lab"));
    world.local(&["rename", &second, "Renamed"]).ok();
    world.settings("");
    assert!(listed(&world, &second).get("alias").is_none(), "it was made from the old title");

    // Machines without SSH have none, and count for none. A playground that was destroyed elsewhere keeps none.
    let checked = id(&start(&world, &["verified", "--title", "Checked"]));
    let machines = listed(&world, &checked)["machines"].clone();
    assert_eq!((&machines[0]["alias"], machines[1].get("alias")), (&"checked".into(), None));
    assert!(world.entries().contains(&format!("Host playground-{checked} checked\n")));
    let record = world.root().join("aliases.local.json");
    let mut aliases: Value = serde_json::from_str(&fs::read_to_string(&record).unwrap()).unwrap();
    aliases["f".repeat(24)] = serde_json::json!({"label": "api", "made": "api"});
    fs::write(&record, aliases.to_string()).unwrap();
    world.local(&["rename", &second, "Api"]).ok();
    assert_eq!(listed(&world, &second)["alias"], "api");

    // A record that is damaged costs the names, and no command.
    fs::write(&record, "{").unwrap();
    let said = world.local(&["list"]);
    assert!(said.code() == 0 && said.err.matches("aliases.local.json is damaged").count() == 1, "{said:?}");
    let said = world.local(&["rename", &second, "Lost"]);
    assert!(said.code() == 0 && said.err.contains("Lost gets no alias"), "{said:?}");
    assert_eq!(fs::read_to_string(&record).unwrap(), "{");
    assert_eq!(fs::read(world.ssh_config()).unwrap(), configuration);
    assert!(world.local(&["uninstall", "--dry-run"]).ok().contains("aliases.local.json"));
}

#[test]
fn no_alias_hides_a_host_of_the_users() {
    let mut world = World::with_platform(&[]);
    let (ssh, known) = (world.path(".ssh"), world.path(".ssh/known_hosts"));
    fs::create_dir_all(ssh.join("conf.d")).unwrap();
    fs::write(ssh.join("conf.d/work"), "Host jump-*\n  User ada\n").unwrap();
    fs::write(world.ssh_config(), "Include conf.d/*\nHost plain\n  User ada\nHost *\n  Compression yes\n").unwrap();
    fs::write(&known, format!("hashed-name {KEY}\n")).unwrap();
    let _ = world.output(world.program("ssh-keygen").args(["-H", "-f"]).arg(&known)).ok();
    let hashed = fs::read_to_string(&known).unwrap();
    assert!(hashed.starts_with("|1|"));
    fs::write(&known, format!("{hashed}known-name,10.0.0.1 {KEY}\n")).unwrap();
    fs::write(world.path("hosts"), "10.0.0.2 in-hosts\n10.0.0.3 free-name.alpha\n").unwrap();
    world.configure();
    let play = id(&start(&world, &["shell", "--title", "Free name"]));
    let known = known.display().to_string();
    for (title, why) in [
        ("Plain", "`Host plain`"),
        ("Jump 7", "`Host jump-*`"),
        ("Known name", &known),
        ("Hashed name", &known),
        ("In hosts", "stands in"),
        ("localhost", "is this computer"),
        ("playground-x", "begins like"),
        ("Playground", "is the beginning"),
        ("127", "looks like an address"),
    ] {
        let said = world.local(&["rename", &play, title]);
        assert!(said.code() == 0 && said.err.contains(&format!("{title} gets no alias: ")), "{title}: {said:?}");
        assert!(said.err.contains(why) && said.err.lines().count() == 1, "{title}: {said:?}");
        assert!(listed(&world, &play).get("alias").is_none(), "{title}");
        let label = title.to_lowercase().replace(' ', "-");
        let said = world.local(&["rename", &play, "Changed", "--alias", &label]).failed(2);
        assert!(said.contains(why), "{title}: {said}");
        let before = world.json(&["list", "--json"]).as_array().unwrap().len();
        world.local(&["start", "shell", "--alias", &label]).failed(2);
        assert_eq!(world.json(&["list", "--json"]).as_array().unwrap().len(), before);
        assert_eq!(listed(&world, &play)["title"], title);
    }
    // A host that comes later wins, and is said to. An option of all hosts is named with the aliases to spare.
    world.local(&["rename", &play, "Free name"]).ok();
    let with = |text: &str| {
        let config = fs::read_to_string(world.ssh_config()).unwrap();
        fs::write(world.ssh_config(), config + text).unwrap();
    };
    with("Host * !playground-*\n  RemoteCommand id\n");
    let said = world.local(&["config-ssh", "--yes"]);
    assert!(said.err.contains("below `Host * !playground-* !free-name`"), "{said:?}");
    let said = world.local(&["doctor"]).out;
    assert!(said.contains("!free-name") && said.contains("RemoteCommand"), "{said}");
    with("Host free-name\n  HostName example.invalid\n");
    world.local(&["list"]).ok();
    assert_eq!(option(&world, "free-name", "hostname"), "example.invalid");
    assert!(listed(&world, &play).get("alias").is_none());
    let said = world.local(&["doctor"]).out;
    assert!(said.contains("free-name is a host in your ssh configuration"), "{said}");
}

/// A name service that knows one name, or answers everything. glibc asks it in a mount namespace of its own.
#[test]
fn a_name_of_the_name_service_is_none_of_ours() {
    let Ok(socket) = UdpSocket::bind("127.83.21.7:53") else { return not_run("port 53 takes root") };
    let mut world = World::with_platform(&[]);
    world.configure();
    let play = id(&start(&world, &["shell"]));
    let answers_all = Arc::new(AtomicBool::new(false));
    let all = answers_all.clone();
    thread::spawn(move || {
        let mut packet = [0; 512];
        while let Ok((len, from)) = socket.recv_from(&mut packet) {
            let _ = socket.send_to(&answer(&packet[..len], all.load(Ordering::Relaxed)), from);
        }
    });
    for (file, text) in [
        ("resolv.conf", "nameserver 127.83.21.7\nsearch corp.test\noptions timeout:1 attempts:1\n"),
        ("etc-hosts", "127.0.0.1 localhost\n"),
        ("nsswitch.conf", "hosts: files dns\npasswd: files\n"),
    ] {
        fs::write(world.path(file), text).unwrap();
    }
    let rename = |title: &str| {
        let mut command = world.program(needs("unshare"));
        command.env_remove("LABCTL_SSH_PROXY_HOSTS").args(["-m", "sh", "-c"]).arg(
            "mount --bind resolv.conf /etc/resolv.conf && mount --bind etc-hosts /etc/hosts && \
             mount --bind nsswitch.conf /etc/nsswitch.conf && exec \"$@\"",
        );
        let tested = world.command(&[]);
        command.arg("sh").arg(tested.get_program()).args(["--local", "rename", &play, title]);
        world.output(&mut command)
    };
    let said = rename("Intranet");
    assert!(said.code() == 0 && said.err.contains("intranet resolves to 10.1.2.3"), "{said:?}");
    let said = rename("My lab");
    assert!(said.code() == 0 && said.err.is_empty() && said.out.contains("ssh my-lab"), "{said:?}");
    answers_all.store(true, Ordering::Relaxed);
    let said = rename("Your lab");
    assert!(said.code() == 0 && said.err.contains("answers for every name"), "{said:?}");
    assert!(said.out.contains("ssh your-lab"), "{said:?}");
}

/// Answers a question for an address of version 4 (RFC 1035, 4.1): the name's own, or that of every name.
fn answer(question: &[u8], all: bool) -> Vec<u8> {
    let end = 12 + question[12..].iter().position(|b| *b == 0).unwrap() + 1;
    let is_known = question[12..end].eq_ignore_ascii_case(b"\x08intranet\x04corp\x04test\x00");
    let is_a = question[end..end + 2] == [0, 1];
    let found = (is_known || all) && is_a;
    let exists = is_known || all;
    let mut answer = question[..2].to_vec();
    answer.extend([0x81, if exists { 0x80 } else { 0x83 }, 0, 1, 0, u8::from(found), 0, 0, 0, 0]);
    answer.extend(&question[12..end + 4]);
    if found {
        answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 10, 1, 2, 3]);
    }
    answer
}
