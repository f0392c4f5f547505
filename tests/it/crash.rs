//! Every writer can be killed at any moment: each file is then either the old or the new one, and the next run deletes
//! temporary files. A failure to write or read is reported, and nothing is lost.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "figures for who runs it with --nocapture")]

use std::{
    collections::BTreeSet,
    fs,
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use labctl_ssh_proxy::ssh::{
    host_key::HostKeyBlob,
    known_hosts::{KnownHosts, Whose},
};

use crate::support::{
    PROGRAM, World, eventually,
    fault::{Fake, Fault, Phase},
    needs,
};

const MINE: &str = "Host mine\n  Port 2222\n";
const FILE: i32 = 13;
const KUBECONFIG: &str =
    "# mine\napiVersion: v1\nkind: Config\nclusters: []\ncontexts: []\nusers: []\ncurrent-context: home\n";
const JETBRAINS: &str = "<application>\n  <component name=\"SshConfigs\">\n    <configs>\n      <sshConfig authType=\"OPEN_SSH\" \
                         host=\"build.example\" id=\"0\" port=\"22\" username=\"me\" useOpenSSHConfig=\"true\" />\n    \
                         </configs>\n  </component>\n</application>\n";
/// The system calls that write.
const CALLS: &str = "write,pwrite64,writev,rename,renameat,renameat2,link,linkat,unlink,unlinkat,rmdir,mkdir,ftruncate,fsync,fdatasync,fchmod,fchown,symlink";
/// Number of commands in [`Home::command`].
const COMMANDS: usize = 13;

/// A home with everything that this program writes: entries, records, known hosts, a login, playgrounds.
struct Home {
    world: World,
    _platform: Fake,
    play: String,
}

impl Home {
    fn new() -> Home {
        let platform = Fake::start(Phase::Find, Fault::Nothing);
        let mut world = World::with_platform(&[]);
        fs::create_dir_all(world.home().join("tmp")).unwrap();
        fs::create_dir_all(world.home().join(".ssh")).unwrap();
        fs::write(world.ssh_config(), MINE).unwrap();
        let account = world.home().join(".iximiuz/labctl/config.yaml");
        fs::create_dir_all(account.parent().unwrap()).unwrap();
        let text =
            format!("api_base_url: {}/api\nplays_dir: /kept\nsession_id: old\naccess_token: old\n", platform.base);
        fs::write(&account, text).unwrap();
        let play = world.playground("shell");
        let home = Home { world, _platform: platform, play };
        for (path, text) in [
            (home.kubeconfig(), KUBECONFIG),
            (home.zed(), "{\n  \"theme\": \"mine\"\n}\n"),
            (home.jetbrains(), JETBRAINS),
            (
                home.world.root().join("local/plays").join(&home.play).join("shell-01/home/.kube/config"),
                "clusters: [{name: a, cluster: {server: https://a}}]\ncontexts: [{name: a, context: {cluster: a}}]\n",
            ),
        ] {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        home.ssh(&["true"]).status().unwrap();
        // A proxy ends, and writes its last record, a moment after its ssh.
        eventually("the proxy has ended", || home.world.processes(" connect ").is_empty());
        home
    }

    fn kubeconfig(&self) -> PathBuf {
        self.world.home().join(".kube/config")
    }

    fn zed(&self) -> PathBuf {
        self.world.home().join(".config/zed/settings.json")
    }

    fn jetbrains(&self) -> PathBuf {
        self.world.home().join(".config/JetBrains/IntelliJIdea2025.1/options/sshConfigs.xml")
    }

    /// Returns one of the commands that write, by number.
    fn command(&self, n: usize) -> Command {
        let play = self.play.as_str();
        let (args, input): (&[&str], &str) = match n % COMMANDS {
            0 => (&["--local", "config-ssh", "--yes"], ""),
            1 => (&["--local", "config-ssh", "--remove", "--yes"], ""),
            2 => (&["--local", "config-ssh", "--inline", "--yes"], ""),
            3 => (&["--local", "list"], ""),
            4 => (&["--local", "stop", play], ""),
            5 => (&["--local", "restart", play], ""),
            6 => (&["login", "--stdin"], "new-session\nnew-token\n"),
            8 => (&["--local", "config-zed", "--yes"], ""),
            9 => (&["--local", "config-zed", "--remove", "--yes"], ""),
            10 => (&["--local", "config-jetbrains", "--yes"], ""),
            11 => (&["--local", "config-jetbrains", "--remove", "--yes"], ""),
            12 => (&["--local", "kube", play, "--merge", "--", "true"], ""),
            _ => return self.ssh(&["true"]),
        };
        let mut command = self.world.command(args);
        self.quietly(&mut command);
        if !input.is_empty() {
            let file = self.world.home().join("input");
            if !file.exists() {
                fs::write(&file, input).unwrap();
            }
            command.stdin(fs::File::open(file).unwrap());
        }
        command
    }

    /// Prepares a first contact, in which the proxy learns the machine's key.
    fn ssh(&self, args: &[&str]) -> Command {
        let _ = fs::remove_file(self.world.root().join("known_hosts.local"));
        let mut command = self.world.program("ssh");
        let proxy = format!("{} --local connect --user %r --wake always %n", PROGRAM);
        let known = format!("UserKnownHostsFile={}", self.world.root().join("known_hosts.local").display());
        let key = self.world.home().join(".ssh/iximiuz_labs_user");
        command.args(["-F", "/dev/null", "-o", &format!("ProxyCommand={proxy}"), "-o", &known, "-o", "BatchMode=yes"]);
        command.arg("-i").arg(key).arg(format!("playground-{}", self.play)).args(args);
        self.quietly(&mut command);
        command
    }

    fn quietly(&self, command: &mut Command) {
        // A process group of its own, so that a ProxyCommand is killed with its ssh.
        command.env("TMPDIR", self.world.home().join("tmp")).process_group(0);
        command.stdout(Stdio::null()).stderr(Stdio::null());
    }

    /// Wraps a command so that it is killed at the n-th call that writes.
    fn killed(&self, command: &Command, when: usize) -> Command {
        let mut traced = self.world.program("strace");
        traced.args(["-f", "-qq", "-o", "/dev/null", "-e", &format!("trace={CALLS}"), "-e"]);
        traced.arg(format!("inject={CALLS}:signal=KILL:when={when}")).arg("--");
        traced.arg(command.get_program()).args(command.get_args());
        self.quietly(&mut traced);
        traced
    }

    /// Checks that every file is complete.
    fn check(&self) {
        let config = fs::read_to_string(self.world.ssh_config()).unwrap();
        assert!(config.ends_with(MINE), "{config}");
        assert!(
            config == MINE
                || config.starts_with("Include ")
                || config.contains("# <<<")
                || config.contains("# >>>")
                || config.starts_with('#'),
            "{config}"
        );
        let account = fs::read_to_string(self.world.home().join(".iximiuz/labctl/config.yaml")).unwrap();
        assert!(account.contains("plays_dir: /kept") && account.contains("api_base_url"), "{account}");
        let pair = |id: &str, token: &str| account.contains(&format!("session_id: {id}\n")) && account.contains(token);
        assert!(pair("old", "old") || pair("new-session", "new-token"), "{account}");
        let kubeconfig = fs::read_to_string(self.kubeconfig()).unwrap();
        let is_whole = kubeconfig.starts_with("# mine\n") && kubeconfig.ends_with("current-context: home\n");
        assert!(kubeconfig == KUBECONFIG || is_whole && kubeconfig.matches("playground-").count() > 2, "{kubeconfig}");
        let jetbrains = fs::read_to_string(self.jetbrains()).unwrap();
        assert!(jetbrains.contains("build.example") && jetbrains.trim_end().ends_with("</application>"), "{jetbrains}");
        for path in self.files() {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            // Skip locks, logs and the status files of running processes, which are not replaced, and temporary files,
            // which the next run deletes.
            if name.ends_with(".lock")
                || path
                    .components()
                    .any(|part| ["live", "logs", "tmp"].contains(&part.as_os_str().to_str().unwrap_or_default()))
                || is_temporary(&path)
            {
                continue;
            }
            let bytes = fs::read(&path).unwrap_or_default();
            if name.ends_with(".json") {
                assert!(
                    serde_json::from_slice::<serde_json::Value>(&bytes).is_ok(),
                    "{} is broken: {bytes:?}",
                    path.display()
                );
            } else if name.starts_with("known_hosts") {
                for line in String::from_utf8(bytes).unwrap().split_inclusive('\n') {
                    assert!(
                        line.ends_with('\n') && line.split(' ').count() == 4,
                        "{} is broken: {line}",
                        path.display()
                    );
                }
            } else if name == "ssh_config" {
                assert!(bytes.ends_with(b"\n") && bytes.starts_with(b"#"), "{} is broken", path.display());
            }
        }
    }

    /// Checks that one complete run of each command removes everything that killed ones left behind.
    fn check_after_next_run(&self) {
        for n in [6, 5, 0, 3, 8, 10, 12] {
            assert!(self.command(n).status().unwrap().success(), "command {n}");
        }
        self.check();
        let left: Vec<PathBuf> = self.files().into_iter().filter(|path| is_temporary(path)).collect();
        assert!(left.is_empty(), "left: {left:?}");
        assert_eq!(fs::read_to_string(self.kubeconfig()).unwrap(), KUBECONFIG);
        let copies = self.files().into_iter().filter(|path| path.extension().is_some_and(|e| e == "yaml"));
        let copies: Vec<_> = copies.filter(|path| path.starts_with(self.world.root().join("kube"))).collect();
        assert!(copies.is_empty() && !self.world.home().join(".kube/config.lock").exists(), "left: {copies:?}");
        let live = fs::read_dir(self.world.root().join("live")).map(|entries| entries.count()).unwrap_or(0);
        assert_eq!(live, 0, "status files of killed proxies are left");
        let checked = self.world.ssh_program("ssh").args(["-G", "mine"]).output().unwrap();
        assert!(String::from_utf8_lossy(&checked.stdout).contains("port 2222\n"), "{checked:?}");
    }

    fn files(&self) -> Vec<PathBuf> {
        let (mut found, mut folders) = (Vec::new(), vec![self.world.home().to_owned()]);
        while let Some(folder) = folders.pop() {
            for path in fs::read_dir(folder).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path())) {
                if path.is_dir() && !path.is_symlink() {
                    folders.push(path.clone());
                }
                found.push(path);
            }
        }
        found
    }
}

fn is_temporary(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(".labctl-ssh-proxy-"))
}

fn kill_group(child: &std::process::Child) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    let _ = rustix::process::kill_process_group(pid, rustix::process::Signal::KILL);
}

/// Kills at 1,000 random moments. KILLS in the environment sets another number.
#[test]
fn killed_at_random_moments() {
    let kills: usize = std::env::var("KILLS").ok().and_then(|kills| kills.parse().ok()).unwrap_or(1000);
    const HOMES: usize = 4;
    thread::scope(|scope| {
        for part in 0..HOMES {
            scope.spawn(move || {
                let home = Home::new();
                let mut random = fastrand::Rng::with_seed(part as u64);
                let mut cut_short = 0;
                for n in 0..kills / HOMES {
                    let mut child = home.command(n).spawn().unwrap();
                    let longest = if [7, 12].contains(&(n % COMMANDS)) { 300_000 } else { 120_000 };
                    thread::sleep(Duration::from_micros(random.u64(3_000..longest)));
                    cut_short += usize::from(child.try_wait().unwrap().is_none());
                    kill_group(&child);
                    child.wait().unwrap();
                    home.check();
                }
                println!("{cut_short} of {} commands were cut short", kills / HOMES);
                assert!(cut_short > kills / HOMES / 4, "the moments were too late to prove anything");
                home.check_after_next_run();
            });
        }
    });
}

/// A command that finds nothing to change deletes what a killed one has left beside the user's file, too.
#[test]
fn what_a_killed_run_left_goes_though_nothing_is_to_change() {
    let home = Home::new();
    let left = |beside: PathBuf| {
        let path = beside.with_file_name(".labctl-ssh-proxy-left");
        fs::write(&path, "half").unwrap();
        path
    };
    for (n, file) in [
        (0, home.world.ssh_config()),
        (2, home.world.ssh_config()),
        (1, home.world.ssh_config()),
        (8, home.zed()),
        (9, home.zed()),
        (10, home.jetbrains()),
        (11, home.jetbrains()),
        (12, home.kubeconfig()),
    ] {
        assert!(home.command(n).status().unwrap().success(), "command {n}");
        let left = left(file);
        assert!(home.command(n).status().unwrap().success(), "command {n}");
        assert!(!left.exists(), "command {n}");
    }
    let left = left(home.world.ssh_config());
    home.world.local(&["config-ssh", "--remove", "--dry-run"]).ok();
    assert!(left.exists(), "a dry run writes nothing");
    home.world.local(&["uninstall", "--yes"]).ok();
    assert!(!left.exists(), "uninstall");
}

/// Kills each command once at each system call that writes.
#[test]
fn killed_at_each_system_call_that_writes() {
    needs("strace");
    let total: usize = thread::scope(|scope| {
        let parts: Vec<_> = [vec![0, 1], vec![2, 6], vec![3, 4, 5], vec![8, 9, 10, 11], vec![12]]
            .into_iter()
            .map(|commands| {
                scope.spawn(move || {
                    let home = Home::new();
                    let mut total = 0;
                    for n in commands {
                        // Until a run ends by itself, because then there are no more calls.
                        for when in 1.. {
                            assert!(when < 400, "command {n} does not come to its end");
                            let inner = home.command(n);
                            let mut traced = home.killed(&inner, when);
                            if n == 6 {
                                traced.stdin(fs::File::open(home.world.home().join("input")).unwrap());
                            }
                            let status = traced.status().unwrap();
                            home.check();
                            if status.success() {
                                break;
                            }
                            total += 1;
                            // Undo the change, so that there is something to write each time.
                            let undo = match n {
                                0 | 2 => 1,
                                1 => 0,
                                4 => 5,
                                5 => 4,
                                8 | 10 => n + 1,
                                9 | 11 => n - 1,
                                _ => continue,
                            };
                            let _ = home.command(undo).status();
                        }
                    }
                    home.check_after_next_run();
                    total
                })
            })
            .collect();
        parts.into_iter().map(|part| part.join().unwrap()).sum()
    });
    println!("killed at {total} system calls");
    assert!(total > 40, "only {total}");
}

/// Kills commands that remove things at each system call that writes. A second run completes the work.
#[test]
fn killed_while_it_takes_away() {
    needs("strace");
    let home = Home::new();
    let zed = fs::read_to_string(home.zed()).unwrap();
    let uninstall = || home.world.command(&["--local", "uninstall", "--yes"]);
    let mut total = 0;
    for when in 1..400 {
        for n in [0, 8, 10] {
            assert!(home.command(n).status().unwrap().success());
        }
        let done = home.killed(&uninstall(), when).status().unwrap().success();
        home.check();
        home.world.output(&mut uninstall()).ok();
        assert_eq!(fs::read_to_string(home.world.ssh_config()).unwrap(), MINE);
        assert_eq!(fs::read_to_string(home.zed()).unwrap(), zed);
        assert_eq!(fs::read_to_string(home.jetbrains()).unwrap(), JETBRAINS);
        let left: Vec<_> = fs::read_dir(home.world.root()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert!(left.iter().all(|name| name.to_string_lossy().starts_with("local")), "{left:?}");
        if done {
            break;
        }
        total += 1;
    }
    assert!(total > 10 && total < 398, "uninstall was killed {total} times");
    let mut total = 0;
    let mut plays = Vec::new();
    for when in 1..400 {
        let play = home.world.json(&["start", "shell", "--no-wait", "--json"])["id"].as_str().unwrap().to_owned();
        plays.push(play.clone());
        let destroy = home.world.command(&["--local", "destroy", &play, "--yes"]);
        let done = home.killed(&destroy, when).status().unwrap().success();
        home.check();
        let said = home.world.local(&["destroy", &play, "--yes"]);
        assert!(said.status.success() || said.err.contains("it is being erased already"), "{said:?}");
        home.check();
        if done {
            break;
        }
        total += 1;
    }
    assert!(total > 3 && total < 398, "destroy was killed {total} times");
    home.world.local(&["list"]).ok();
    // A playground that was destroyed elsewhere leaves only our record of its last use.
    for path in home.files().into_iter().filter(|path| path.is_file() && !path.to_string_lossy().contains("/memory.")) {
        let text = fs::read(&path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
        let named = plays.iter().find(|play| text.contains(*play) || path.to_string_lossy().contains(*play));
        assert!(named.is_none() || path.ends_with("platform.log"), "{named:?} is in {}", path.display());
    }
}

/// Kills the platform while it saves playgrounds. The next one finds all of them.
#[test]
fn a_killed_platform_loses_no_playground() {
    let mut world = World::with_platform(&[]);
    let first = world.playground("shell");
    let mut random = fastrand::Rng::with_seed(7);
    let mut last = world.json(&["list", "--json"])[0]["title"].as_str().unwrap().to_owned();
    for round in 0..25 {
        let pid = world.json(&["local", "status", "--json"])["pid"].as_i64();
        let Some(pid) = pid.and_then(|pid| rustix::process::Pid::from_raw(i32::try_from(pid).ok()?)) else {
            panic!("no platform in round {round}");
        };
        let title = format!("title {round}");
        let mut renaming = world.command(&["--local", "rename", &first, &title]);
        let mut renaming = renaming.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        thread::sleep(Duration::from_micros(random.u64(1_000..40_000)));
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        renaming.wait().unwrap();
        let plays = world.json(&["list", "--all", "--json"]);
        assert_eq!(plays[0]["id"], first.as_str(), "{plays}");
        // Either the last requested title, or that of an earlier request.
        let title = plays[0]["title"].as_str().unwrap_or_default().to_owned();
        assert!(title == last || (0..=round).any(|n| title == format!("title {n}")), "{last:?}: {plays}");
        last = title;
    }
    world.stop_platform();
}

#[test]
fn fifty_writers_at_once_lose_nothing() {
    let home = Home::new();
    // Playgrounds, their records and the entries for ssh.
    let children: Vec<_> = (0..50)
        .map(|n| {
            let mut command =
                home.world.command(&["--local", "start", "shell", "--no-wait", "--title", &format!("w{n}")]);
            home.quietly(&mut command);
            command.stderr(Stdio::piped()).spawn().unwrap()
        })
        .collect();
    for child in children {
        let said = child.wait_with_output().unwrap();
        assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    }
    let plays = home.world.json(&["list", "--json"]);
    let titles: BTreeSet<&str> = plays.as_array().unwrap().iter().filter_map(|play| play["title"].as_str()).collect();
    assert!((0..50).all(|n| titles.contains(format!("w{n}").as_str())), "{titles:?}");
    let entries = fs::read_to_string(home.world.root().join("ssh_config")).unwrap();
    for play in plays.as_array().unwrap() {
        assert!(entries.contains(play["id"].as_str().unwrap()), "{play} has no entry");
    }
    // Known hosts.
    let known = KnownHosts::at(home.world.root().join("known_hosts"));
    let key = fs::read_to_string(home.world.home().join(".ssh/iximiuz_labs_user.pub")).unwrap();
    let mut fields = key.split(' ');
    let key = HostKeyBlob::from_fields(fields.next().unwrap(), fields.next().unwrap().trim()).unwrap();
    thread::scope(|scope| {
        for n in 0..50 {
            let (known, key) = (&known, &key);
            scope.spawn(move || {
                let play = format!("{n:024x}");
                let alias = format!("playground-{play}");
                known.confirm(Whose { alias: &alias, play: &play, machine: "m", shown: "" }, key).unwrap();
            });
        }
    });
    assert_eq!(fs::read_to_string(known.path()).unwrap().lines().count(), 50);
    // The login.
    let mut children: Vec<_> = (0..50).map(|_| home.command(6).spawn().unwrap()).collect();
    for child in &mut children {
        assert!(child.wait().unwrap().success());
    }
    home.check_after_next_run();
}

/// A full disk: not one byte can be written to any file.
#[test]
fn a_full_disk_loses_nothing() {
    let home = Home::new();
    let before: Vec<(PathBuf, Vec<u8>)> = snapshot(&home);
    let full = |args: &[&str], input: &str| {
        let mut command = home.world.program("sh");
        command.args(["-c", "trap '' XFSZ; ulimit -f 0; exec \"$@\"", "sh", PROGRAM]).args(args);
        command.env("TMPDIR", home.world.home().join("tmp"));
        let output = home.world.feed(&mut command, input.as_bytes());
        (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    for (args, input) in [
        (&["--local", "config-ssh", "--remove", "--yes"][..], ""),
        (&["--local", "config-ssh", "--inline", "--yes"], ""),
        (&["login", "--stdin"], "new-session\nnew-token\n"),
    ] {
        let (code, said) = full(args, input);
        assert_eq!(code, FILE, "{args:?}: {said}");
        assert!(said.contains("cannot ") && said.contains("File too large"), "{args:?}: {said}");
        assert_eq!(said.lines().filter(|line| line.starts_with("labctl-ssh-proxy: ")).count(), 1, "{args:?}: {said}");
        let after = snapshot(&home);
        let changed: Vec<_> = after.iter().filter(|file| !before.contains(file)).map(|(path, _)| path).collect();
        assert!(after == before, "{args:?} has changed {changed:?}");
    }
    // Commands that only read still work.
    assert_eq!(full(&["--local", "list"], "").0, 0);
}

fn snapshot(home: &Home) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files: Vec<_> = home
        .files()
        .into_iter()
        .filter(|path| {
            path.is_file()
                && !path.ends_with("platform.log")
                && path.extension().is_none_or(|extension| extension != "lock")
                && !path.ends_with("input")
                && !path.starts_with(home.world.root().join("live"))
        })
        .map(|path| (path.clone(), fs::read(&path).unwrap_or_default()))
        .collect();
    files.sort();
    files
}

/// Files without read or write permission, as a user other than root.
#[test]
fn what_may_not_be_read_or_written_is_said() {
    let home = Home::new();
    let (root, account) = (home.world.root(), home.world.home().join(".iximiuz/labctl"));
    let chmod = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    let is_root = rustix::process::geteuid().is_root();
    let nobody = |args: &[&str], input: &str| {
        let mut command = if is_root {
            let mut command = home.world.program("setpriv");
            command.args(["--bounding-set=-all", "--inh-caps=-all", "--securebits=+noroot,+noroot_locked", PROGRAM]);
            command
        } else {
            home.world.program(PROGRAM)
        };
        let output = home.world.feed(command.args(args), input.as_bytes());
        (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let login = "new-session\nnew-token\n";
    chmod(&account.join("config.yaml"), 0o000);
    let (code, said) = nobody(&["list"], "");
    assert!(code == FILE && said.contains("cannot read") && said.contains("Permission denied"), "{code}: {said}");
    let (code, said) = nobody(&["login", "--stdin"], login);
    assert!(code == FILE && said.contains("cannot read"), "an unreadable file is not an empty one: {code}: {said}");
    chmod(&account.join("config.yaml"), 0o600);
    chmod(&account, 0o500);
    let before = fs::read(account.join("config.yaml")).unwrap();
    let (code, said) = nobody(&["login", "--stdin"], login);
    assert!(code == FILE && said.contains("Permission denied"), "{code}: {said}");
    chmod(&account, 0o700);
    assert_eq!(fs::read(account.join("config.yaml")).unwrap(), before);
    chmod(&root.join("memory.local"), 0o500);
    for entry in fs::read_dir(root.join("memory.local")).unwrap() {
        chmod(&entry.unwrap().path(), 0o400);
    }
    // A playground that costs is stopped, also if that cannot be recorded.
    let (code, said) = nobody(&["--local", "stop", &home.play], "");
    assert!(code == 0 && said.contains("memory.local") && said.contains("Permission denied"), "{code}: {said}");
    chmod(&root.join("memory.local"), 0o700);
}

/// Damages each state file in each way. The program names the file or does without, and never overwrites it unasked.
#[test]
fn damaged_state_is_named_and_kept() {
    let home = Home::new();
    let root = home.world.root();
    let play = home.play.as_str();
    home.world.local(&["stop", play]).ok();
    let record = root.join(format!("memory.local/{play}.json"));
    let settings = home.world.home().join(".config/labctl-ssh-proxy/settings.yaml");
    fs::create_dir_all(settings.parent().unwrap()).unwrap();
    let account = home.world.home().join(".iximiuz/labctl/config.yaml");
    for (path, args, code) in [
        // A deliberate start needs no record.
        (&record, &["--local", "restart", play][..], 0),
        (&settings, &["--local", "list"], 2),
        (&account, &["list"], FILE),
        (&account, &["login", "--stdin"], FILE),
    ] {
        let whole = fs::read(path).unwrap_or_default();
        for damage in [
            &b"{"[..],
            b"\0\0\0\0",
            b"\xff\xfe{}",
            b"[1, 2",
            b"{\"stopped\": \"planted-token\"",
            b"a: b: c: planted-token",
        ] {
            fs::write(path, damage).unwrap();
            let output = home.world.feed(&mut home.world.command(args), b"new-session\nnew-token\n");
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            let codes = if code == 0 { [Some(0); 2] } else { [Some(code), Some(FILE)] };
            assert!(codes.contains(&output.status.code()), "{args:?} {damage:?}: {output:?}");
            assert!(
                said.contains(&*path.display().to_string()) && !said.contains("planted-token"),
                "{damage:?}: {said}"
            );
            assert_eq!(fs::read(path).unwrap(), damage, "it was overwritten");
        }
        if whole.is_empty() { fs::remove_file(path).unwrap() } else { fs::write(path, whole).unwrap() }
    }
    // A playground's own record. The platform does not start with a damaged one.
    home.world.run(&["local", "stop"]).ok();
    let file = root.join(format!("local/plays/{play}/play.json"));
    fs::write(&file, "{\"id\"").unwrap();
    let said = home.world.local(&["list"]).failed(14);
    assert!(said.contains("play.json is damaged") && said.contains("hint: "), "{said}");
    assert_eq!(fs::read(&file).unwrap(), b"{\"id\"");
}
