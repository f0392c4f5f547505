//! The output of `config-ssh --inline`, read by all available readers of ssh configurations. They must agree, or the
//! command must have refused to write it.
//!
//! The readers are OpenSSH itself (`ssh -G`), paramiko, asyncssh, npm's ssh-config 3, 4.1, 4.4 and 5, which editors
//! bundle, JSch, which JetBrains' IDEs used before they called `ssh -G`, the ssh2-config crate, and Zed's picker. sshj
//! reads no configuration: its programs pass it the output of `ssh -G`.

use std::{collections::BTreeMap, fs, path::Path};

use labctl_ssh_proxy::{
    platform::Platform,
    ssh_config::entries::{Entry, Rendering, render},
};
use serde_json::Value;
use ssh2_config::{ParseRule, SshConfig};

use crate::support::{PROGRAM, World, peer, peers};

/// The options of a host, as one reader sees them: lower-case names and their values.
type Options = BTreeMap<String, String>;

/// Returns all readers' options for `host`.
fn readings(world: &World, file: &Path, host: &str) -> BTreeMap<String, Options> {
    let mut all = BTreeMap::new();
    let said = world.ssh(&["-G", host]).ok();
    let pairs = said.lines().filter_map(|line| line.split_once(' '));
    let mut options = Options::new();
    for (name, value) in pairs {
        options.entry(name.to_owned()).or_insert_with(|| value.to_owned());
    }
    // ssh prints 0 as `none`.
    options.entry("connecttimeout".into()).and_modify(|value| *value = value.replace("none", "0"));
    all.insert("openssh".to_owned(), options);

    let mut python = world.program(peers("python/bin/python"));
    python.arg(peer("parsers.py")).arg(file).arg(host);
    let mut node = world.program("node");
    node.arg(peer("parsers.cjs")).arg(peers("node/node_modules")).arg(file).arg(host);
    for command in [&mut python, &mut node] {
        let said: BTreeMap<String, Value> = serde_json::from_str(&world.output(command).ok()).unwrap();
        all.extend(said.into_iter().map(|(reader, found)| (reader, options_of(&found))));
    }
    let mut java = world.program("java");
    java.env("LC_ALL", "C.UTF-8")
        .arg("-XX:TieredStopAtLevel=1")
        .arg("-cp")
        .arg(peers("java").join("*"))
        .arg(peer("java/Parsers.java"))
        .arg(file)
        .arg(host);
    all.insert("jsch".into(), options_of(&serde_json::from_str(&world.output(&mut java).ok()).unwrap()));
    all.insert("ssh2-config".into(), of_crate(file, host));
    all
}

/// Converts a reader's answer. A list becomes words, except that of a list of files only the first is kept.
fn options_of(found: &Value) -> Options {
    let text = |value: &Value| match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let mut options = Options::new();
    for (name, value) in found.as_object().unwrap() {
        let value = match value {
            Value::Null => continue,
            Value::Array(values) if name.ends_with("file") => text(&values[0]),
            Value::Array(values) => values.iter().map(text).collect::<Vec<_>>().join(" "),
            other => text(other),
        };
        options.insert(name.clone(), value);
    }
    options
}

fn of_crate(file: &Path, host: &str) -> Options {
    let mut reader = std::io::BufReader::new(fs::File::open(file).unwrap());
    let config = SshConfig::default().parse(&mut reader, ParseRule::ALLOW_UNSUPPORTED_FIELDS).unwrap();
    let found = config.query(host);
    let mut options: Options =
        found.unsupported_fields.into_iter().map(|(name, words)| (name.to_lowercase(), words.join(" "))).collect();
    let mut add = |name: &str, value: Option<String>| options.extend(value.map(|value| (name.to_owned(), value)));
    add("user", found.user);
    add("hostname", found.host_name);
    add("identityfile", found.identity_file.map(|files| files[0].display().to_string()));
    add("connecttimeout", found.connect_timeout.map(|time| time.as_secs().to_string()));
    add("serveraliveinterval", found.server_alive_interval.map(|time| time.as_secs().to_string()));
    options
}

/// Returns the names that Zed's picker would offer: those after `Host ` in the file itself, except patterns.
fn picked(text: &str) -> Vec<&str> {
    let patterns = text.lines().filter_map(|line| line.trim_start().strip_prefix("Host "));
    patterns.flat_map(str::split_whitespace).filter(|name| !name.contains(['*', '?', '!'])).collect()
}

/// The expected result for a world whose program, or whose identity and files, are in a folder of this name.
enum Expected {
    Written,
    Refused(&'static str),
}
use Expected::{Refused, Written};

#[test]
fn every_reader_makes_the_same_of_an_inline_block_or_it_is_refused() {
    for (program, files, expected) in [
        ("plain", "plain", Written),
        ("é", "é", Written),
        ("e\u{301},+@:-_.", "plain", Written),
        ("a b", "plain", Refused("the path has a space")),
        ("plain", "a b", Refused("the path has a space")),
        ("a%b", "plain", Refused("has the character '%'")),
        ("plain", "a%b", Refused("has the character '%'")),
        ("a#b", "plain", Refused("has the character '#'")),
        ("plain", "a#b", Refused("has the character '#'")),
        ("a'b", "plain", Refused("has the character '\\''")),
        ("plain", "a'b", Refused("has the character '\\''")),
        ("a=b", "plain", Refused("has the character '='")),
        ("plain", "a=b", Refused("has the character '='")),
    ] {
        let world = World::empty();
        let place = |folder: &str| world.home().join(folder);
        for folder in [program, files] {
            fs::create_dir_all(place(folder)).unwrap();
        }
        let program = place(program).join("labctl-ssh-proxy");
        std::os::unix::fs::symlink(PROGRAM, &program).unwrap();
        let identity = place(files).join("key");
        world.settings(&format!("identity: {}\n", serde_json::json!(identity)));
        fs::create_dir(place(".ssh")).unwrap();
        fs::write(world.ssh_config(), "Compression yes\n").unwrap();
        let run = |args: &[&str]| {
            let mut command = world.program(&program);
            command.env("LABCTL_SSH_PROXY_HOME", place(files)).arg("--local").args(args);
            world.output(&mut command)
        };
        let host = "playground-shell".to_owned();
        let plainly = program == place("plain").join("labctl-ssh-proxy") && matches!(expected, Written);
        let said = run(&["config-ssh", "--inline", "--yes"]);
        match expected {
            Refused(why) => {
                let said = said.failed(2);
                assert!(said.contains(why) && said.contains("\nhint: "), "{said}");
                assert_eq!(fs::read_to_string(world.ssh_config()).unwrap(), "Compression yes\n");
            }
            Written => {
                said.ok();
                let command = format!(
                    "{} --home {} --local connect --user root {host}",
                    program.display(),
                    place(files).display()
                );
                check(
                    &world,
                    &host,
                    &[
                        ("user", "root".into()),
                        ("hostname", host.clone()),
                        ("identityfile", identity.display().to_string()),
                        ("userknownhostsfile", place(files).join("known_hosts.local").display().to_string()),
                        ("connecttimeout", "0".into()),
                        ("serveraliveinterval", "30".into()),
                        ("proxycommand", command),
                    ],
                );
            }
        }
        if plainly {
            check_others(&world);
        }
        run(&["local", "stop"]).ok();
    }
}

/// A file of these entries that a world's readers find, with the key that asyncssh reads as well.
fn write_entries(world: &World, entries: &[Entry]) {
    let rendering = Rendering {
        program: "/usr/bin/labctl-ssh-proxy".into(),
        identity: Some(world.path("key")),
        known_hosts: world.path("known_hosts"),
        known_hosts_local: world.path("known_hosts.local"),
        home: None,
        moved_root: None,
        literal_user: false,
        wildcard: true,
        containers: true,
    };
    if !world.path("key").exists() {
        let _ = world.output(world.program("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f", "key"])).ok();
        fs::create_dir(world.path(".ssh")).unwrap();
    }
    fs::write(world.ssh_config(), render(entries, &rendering).unwrap()).unwrap();
}

fn entry(host: String, platform: Platform) -> Entry {
    Entry { host, user: "laborant".into(), platform, title: "One".into(), alias: None, listener: None }
}

fn numbered(n: usize) -> Entry {
    entry(format!("playground-{n:024x}"), Platform::Labs)
}

fn expected(world: &World, user: &str, known_hosts: &str, command: &str) -> Vec<(&'static str, String)> {
    vec![
        ("user", user.into()),
        ("identityfile", world.path("key").display().to_string()),
        ("userknownhostsfile", world.path(known_hosts).display().to_string()),
        ("connecttimeout", "0".into()),
        ("serveraliveinterval", "30".into()),
        ("proxycommand", format!("/usr/bin/labctl-ssh-proxy {command}")),
    ]
}

/// With many entries, the wildcard entry holds the shared options. Its command gets the host name.
#[test]
fn every_reader_makes_the_same_of_many_entries() {
    let world = World::empty();
    let entries: Vec<Entry> = (0..300).map(numbered).collect();
    write_entries(&world, &entries);
    let host = &entries[7].host;
    let command = format!("connect --user laborant {host}");
    check(&world, host, &expected(&world, "laborant", "known_hosts", &command));
    assert!(picked(&fs::read_to_string(world.ssh_config()).unwrap()).contains(&host.as_str()));
}

/// An alias stands behind the host name. It gets all options of it, also among so many entries that most have only a
/// user, and the command and HostName keep the host name.
#[test]
fn every_reader_makes_the_same_of_an_alias() {
    let world = World::empty();
    for many in [0, 300] {
        let mut entries: Vec<Entry> = (1..=many).map(numbered).collect();
        let aliased = |entry: Entry, alias: &str| Entry { alias: Some(alias.into()), ..entry };
        let machine = entry(format!("{}.node-01", numbered(0).host), Platform::Labs);
        entries.insert(0, aliased(numbered(0), "my-lab"));
        entries.insert(1, aliased(machine, "my-lab.node-01"));
        entries.push(aliased(entry("playground-local-1".into(), Platform::Local), "my-lab-2"));
        write_entries(&world, &entries);
        let text = fs::read_to_string(world.ssh_config()).unwrap();
        for entry in entries.iter().filter(|entry| entry.alias.is_some()) {
            let local = entry.platform == Platform::Local;
            let (known_hosts, local) = if local { ("known_hosts.local", "--local ") } else { ("known_hosts", "") };
            let mut wanted =
                expected(&world, "laborant", known_hosts, &format!("{local}connect --user laborant {}", entry.host));
            wanted.push(("hostname", entry.host.clone()));
            for name in [&entry.host, entry.alias.as_ref().unwrap()] {
                check(&world, name, &wanted);
                assert!(picked(&text).contains(&name.as_str()), "{name}");
            }
        }
        // A name that begins like an alias is another host.
        for (reader, options) in readings(&world, &world.ssh_config(), "my-lab.example.com") {
            assert_eq!(options.get("proxycommand").map_or("none", String::as_str), "none", "{reader}");
        }
    }
}

/// Containers have no entries of their own, but patterns that stand before the wildcard.
#[test]
fn every_reader_makes_the_same_of_a_container() {
    let world = World::empty();
    for many in [0, 300] {
        let mut entries: Vec<Entry> = (0..many).map(numbered).collect();
        // So many that one line does not hold all of their patterns.
        let local = (0..20).map(|n| format!("playground-local-{n}"));
        let local = local.chain(["playground-shell".into(), "playground-shell.alpha".into()]);
        entries.extend(local.map(|host| entry(host, Platform::Local)));
        entries.push(entry("playground-docker.docker-01".into(), Platform::Labs));
        write_entries(&world, &entries);
        for (host, known_hosts, local) in [
            ("playground-000000000000000000000007.docker-01.web", "known_hosts", ""),
            ("playground-docker.docker-01.proj_web-1", "known_hosts", ""),
            ("playground-shell.alpha.0123456789ab", "known_hosts.local", "--local "),
            ("playground-local-1.alpha.web", "known_hosts.local", "--local "),
        ] {
            let command = format!("{local}connect --user container {host}");
            check(&world, host, &expected(&world, "container", known_hosts, &command));
        }
        let command = "connect --user root playground-k3s.node-01".to_owned();
        check(&world, "playground-k3s.node-01", &expected(&world, "root", "known_hosts", &command));
        let command = "--local connect --user laborant playground-shell.alpha".to_owned();
        check(&world, "playground-shell.alpha", &expected(&world, "laborant", "known_hosts.local", &command));
    }
}

fn check(world: &World, host: &str, expected: &[(&str, String)]) {
    let file = world.ssh_config();
    let text = fs::read_to_string(&file).unwrap();
    assert!(picked(&text).iter().all(|name| name.starts_with("playground-") || name.starts_with("my-lab")));
    let user = &expected[0].1;
    for (reader, options) in readings(world, &file, host) {
        for (name, value) in expected {
            // Options that tests/peers/java/Parsers.java does not query.
            let unknown = reader == "jsch" && ["connecttimeout", "serveraliveinterval"].contains(name);
            let found = options.get(*name).map(|found| found.replace("%r", user).replace("%h", host));
            assert!(
                unknown || found.as_ref() == Some(value),
                "{reader} takes {found:?} for {name}, not {value}: {options:?}"
            );
        }
    }
}

/// Checks that lines below the block apply to all hosts, and that no option of the block does.
fn check_others(world: &World) {
    for (reader, options) in readings(world, &world.ssh_config(), "other.example") {
        let value = |name| options.get(name).map_or("none", String::as_str);
        assert_eq!(value("proxycommand"), "none", "{reader}");
        // ssh always reports a user.
        assert!(reader == "openssh" || value("user") == "none", "{reader}: {options:?}");
        assert!(reader.starts_with("ssh-config") <= (value("compression") == "yes"), "{reader}: {options:?}");
    }
}
