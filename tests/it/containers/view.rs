//! The view: an editor's prerequisites in a container that has one static program, confined as that is, with nothing left.

use std::{
    collections::BTreeMap,
    fs,
    process::{Output, Stdio},
};

use super::{
    MAPPED, POWERFUL, Site,
    confinement::told,
    pods::{Node, pod},
};
use crate::support::{
    Ending, Said,
    engine::{Container, Engine, SCRATCH},
    eventually, free_port,
};

mod attacks;

const NONE: [&str; 2] = ["--network", "none"];
const HARDENED: [&str; 5] = ["--read-only", "--cap-drop", "all", "--security-opt", "no-new-privileges"];
const VIEW: &str = "LABCTL_SSH_PROXY_VIEW";

/// The time without use after which the tests' views end, in milliseconds.
const IDLE: &str = "1500";

/// A site whose views end soon.
fn site(engine: &Engine) -> Site {
    let site = Site::new(engine, "builtin");
    end_soon(&site);
    site
}

/// Makes the views of a site end soon.
fn end_soon(site: &Site) {
    let views = site.machine_folder().join("helper/views");
    fs::create_dir_all(&views).unwrap();
    fs::write(views.join("idle"), IDLE).unwrap();
}

fn ssh(site: &Site, view: &str, args: &[&str]) -> Said {
    site.world.output(site.client("ssh", args).env(VIEW, view))
}

/// The processes of ours in a container, by its process numbers.
fn inside(container: &Container) -> Vec<(u32, String)> {
    let space = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
    let first = container.pid().to_string();
    let its = space(&first);
    let all = fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let all = all.filter(|pid| pid.bytes().all(|b| b.is_ascii_digit()) && *pid != first && space(pid) == its);
    let line = |pid: &str| fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let all = all.map(|pid| (pid.parse().unwrap(), String::from_utf8_lossy(&line(&pid)).replace('\0', " ")));
    all.filter(|(_, line)| !line.starts_with("/app serve")).collect()
}

/// The folders of views that lie on the machine.
fn views(site: &Site) -> Vec<String> {
    let entries = fs::read_dir(site.machine_folder().join("helper/views"));
    let all = entries.into_iter().flatten().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    all.filter(|name| name != "idle").collect()
}

/// Waits until the view has ended, and checks that nothing is left of it on either side.
#[track_caller]
fn ends(site: &Site, container: &Container) {
    eventually("the view has ended", || inside(container).is_empty() && views(site).is_empty());
    site.leaves_nothing(container);
}

/// The words of docker's own client, or its like, about the container, and those of a session in the view.
#[track_caller]
fn compare(site: &Site, container: &Container, user: &str) -> Vec<String> {
    let options: &[&str] = if user == "container" { &[] } else { &["--user", user] };
    let facts = |output: Output| {
        assert!(output.status.success(), "{output:?}");
        let mut facts = told(&String::from_utf8(output.stdout).unwrap());
        let spaces = facts.get_mut("namespaces").unwrap();
        *spaces = spaces.lines().filter(|line| !line.starts_with("mnt:")).collect::<Vec<_>>().join(" ");
        facts
    };
    let mut theirs = facts(container.exec(options, &["/app", "confinement"]));
    let mut client = site.client("ssh", &["-l", user, &site.host(&container.name), "exec /app confinement"]);
    let mut ours = facts(client.env(VIEW, "always").output().unwrap());
    if !container.is_dockers() {
        // As for a session without a view.
        let name = ["Groups", "$HOSTNAME"];
        ours.retain(|key, _| !name.contains(&&**key));
        theirs.retain(|key, _| !name.contains(&&**key));
    }
    if user != "container" {
        ours.insert("folder".into(), theirs["folder"].clone());
    }
    let differs = |(key, value): &(String, String)| theirs.get(key) != Some(value);
    let ours: BTreeMap<_, _> = ours;
    let mut all: Vec<String> = ours
        .into_iter()
        .filter(differs)
        .map(|(key, value)| format!("{user}@{}: {key}: {value:?} instead of {:?}", container.name, theirs.get(&key)))
        .collect();
    all.retain(|one| !one.contains("$PATH") || one.contains("None"));
    all
}

/// Each figure of the kernel's equals that of `docker exec`, but for the mount namespace.
#[test]
fn a_session_in_the_view_is_confined_as_the_container_is() {
    let Some(engine) = Engine::here() else { return };
    let ways: &[(&str, &[&str], &[&str])] = &[
        ("scratch", &[], &["0", "65532", "1000"]),
        ("hardened", &HARDENED, &["0"]),
        ("caps", &["--cap-add", "NET_ADMIN", "--cap-drop", "CHOWN"], &["0"]),
        ("powerful", &POWERFUL, &["0"]),
        ("unfiltered", &["--security-opt", "seccomp=unconfined"], &[]),
        ("memory", &["--memory", "256m", "--pids-limit", "100", "--oom-score-adj", "500"], &[]),
        ("pids", &["--pid", "host"], &[]),
        ("host", &["--ipc", "host", "--uts", "host"], &[]),
        ("cgroup", &["--cgroupns", "host"], &[]),
    ];
    let site = site(engine);
    let mut differences = Vec::new();
    for (name, options, users) in ways {
        let container = engine.run(name, &[&NONE[..], options].concat(), SCRATCH, &["sleep", "100000"]);
        for user in [&["container"], *users].concat() {
            differences.extend(compare(&site, &container, user));
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

/// Plain ssh finds the container as it is, and an editor's ssh what it needs.
#[test]
fn an_editor_is_given_a_view_without_a_word() {
    let Some(engine) = Engine::here() else { return };
    let site = site(engine);
    let container = engine.run("auto", &NONE, SCRATCH, &[]);
    let host = site.host(&container.name);
    let with = |options: &[&str], command: &str| {
        let args = [options, &[&host, command]].concat();
        let said =
            site.world.feed(&mut site.client("ssh", &args), b"ls /usr >/dev/null 2>&1 && echo view || echo none");
        String::from_utf8_lossy(&said.stdout).into_owned()
    };
    let port = free_port().to_string();
    let editor = ["-v", "-T", "-D", &port, "-o", "ConnectTimeout=15"];
    assert_eq!(with(&editor, "bash"), "view\n");
    assert_eq!(with(&editor, "bash --login -c bash"), "view\n");
    assert_eq!(with(&editor, "sh"), "view\n");
    assert_eq!(with(&["-T"], "sh"), "none\n");
    assert_eq!(with(&[], "bash"), "none\n");
    let mut never = site.client("ssh", &[&editor[..], &[&host, "bash"]].concat());
    let said = site.world.feed(never.env(VIEW, "never"), b"ls /usr && echo view");
    assert_eq!(String::from_utf8_lossy(&said.stdout), "");
    ends(&site, &container);
}

/// A container of a pod is found by its cluster, and has a view as any other.
#[test]
fn an_editor_is_given_a_view_in_a_pod() {
    let Some(node) = Node::new() else { return };
    end_soon(&node.site);
    let container = node.run("in-a-pod", SCRATCH);
    node.cluster.put("pods", pod("web-0", &[("app", &container.id)]));
    let port = free_port().to_string();
    let args = ["-T", "-D", &port, &node.host("web-0"), "bash"];
    let said = node.site.world.feed(&mut node.site.client("ssh", &args), b"ldd --version | grep -c GLIBC; ls -d /app");
    assert_eq!(String::from_utf8_lossy(&said.stdout), "1\n/app\n", "{said:?}");
    ends(&node.site, &container);
}

#[test]
fn so_it_is_with_other_engines_and_in_a_user_namespace() {
    let mut differences = Vec::new();
    let remapped = Engine::remapped().map(|engine| (engine, &NONE[..]));
    let mapped = [&NONE[..], &MAPPED].concat();
    let others = [Engine::podman(), Engine::containerd(), Engine::cri()];
    let others = others.into_iter().flatten().flat_map(|engine| [(engine, &NONE[..]), (engine, &mapped[..])]);
    for (engine, options) in remapped.into_iter().chain(others) {
        let site = site(engine);
        let container = engine.run("scratch", options, SCRATCH, &[]);
        differences.extend(compare(&site, &container, "container"));
        differences.extend(compare(&site, &container, "0"));
        ends(&site, &container);
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

/// The demands of editors on a host, in containers of one program.
const PREREQUISITES: &str = r#"
set -eu
bash --version | head -n 1 | cut -c -8
ldd --version | head -n 1 | grep -c '2\.[2-9][0-9]$'
/sbin/ldconfig -p | grep -c 'libstdc++.so.6 '
for program in tar gzip sed awk grep uname id ps env curl; do command -v $program >/dev/null || echo "no $program"; done
[ "$(getent passwd "$(id -u)" | cut -d : -f 6)" = "$HOME" ] && [ "$(id -un)" = "$USER" ] && echo named
mkdir -p ~/.vscode-server/bin && echo x >~/.vscode-server/bin/node && echo home
t=$(mktemp) && rm "$t" && echo temporary
[ -s /etc/ssl/certs/ca-certificates.crt ] && . /etc/os-release && [ -n "$ID" ] && echo etc
wc -c </data
[ -x /app ] && ls /proc/self/fd | wc -l
"#;
const OF_PREREQUISITES: &str = "GNU bash\n1\n1\nnamed\nhome\ntemporary\netc\n1048576\n4\n";

#[test]
fn an_editor_finds_its_prerequisites() {
    let mut wrong = Vec::new();
    let kinds: Vec<(Option<&'static Engine>, &[&str])> = vec![
        (Engine::here(), &[]),
        (Engine::here(), &HARDENED),
        (Engine::remapped(), &[]),
        (Engine::containerd(), &[]),
        (Engine::cri(), &HARDENED),
        (Engine::podman(), &[]),
    ];
    for (engine, options) in kinds {
        let Some(engine) = engine else { continue };
        let site = site(engine);
        let container = engine.run("editor", &[&NONE[..], options].concat(), SCRATCH, &[]);
        let host = site.host(&container.name);
        // One stays, so that the view does.
        let mut staying = site.client("ssh", &["-T", &host, "cat"]);
        let staying = Ending(staying.env(VIEW, "always").stdin(Stdio::piped()).spawn().unwrap());
        for user in ["container", "root"] {
            let mut client = site.client("ssh", &["-T", "-l", user, &host, "bash"]);
            let said = site.world.feed(client.env(VIEW, "always"), PREREQUISITES.as_bytes());
            let (out, err) = (String::from_utf8_lossy(&said.stdout), String::from_utf8_lossy(&said.stderr));
            if out != OF_PREREQUISITES {
                wrong.push(format!("{user}@{} {options:?}: {out}{err}", container.name));
            }
        }
        // The next connection finds what the one before has made.
        let again = ssh(&site, "always", &[&host, "cat ~/.vscode-server/bin/node"]);
        if again.out != "x\n" {
            wrong.push(format!("{again:?}"));
        }
        drop(staying);
        ends(&site, &container);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
