//! `debug --ephemeral`: real ephemeral containers, by the scenarios of cdebug's README for Kubernetes. The node is a
//! stand-in; what it starts are real processes, and a real container of runc in the process namespace of its target.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    process::{Command, Stdio},
};

use rustix::termios::tcgetattr;
use serde_json::{Value, json};

use super::pods::{Node, pod};
use crate::support::{
    Ending, Said,
    cluster::kubelet::Start,
    engine::{BUSYBOX, Container, SCRATCH, images},
    eventually, needs,
    terminal::OnTerminal,
};

/// A node with the pod `web-0`, whose ephemeral containers are processes of this computer.
fn node() -> Option<Node> {
    let node = Node::new()?;
    node.cluster.put("pods", pod("web-0", &[("app", "1"), ("side", "2")]));
    node.cluster.on_start(|container| Start::Runs(program(container)));
    Some(node)
}

/// The command of a container, as a program of this computer.
fn program(container: &Value) -> Command {
    let words: Vec<&str> = container["command"]
        .as_array()
        .map_or(vec!["sh"], |all| all.iter().map(|word| word.as_str().unwrap()).collect());
    let mut command = Command::new(words[0]);
    command.args(&words[1..]);
    command
}

impl Node {
    fn words<'a>(&'a self, args: &[&'a str]) -> Vec<&'a str> {
        [&["--local", "debug", &self.site.play, "--ephemeral", "busybox:musl"], args].concat()
    }

    /// Runs `debug --ephemeral` with this input.
    fn debug(&self, args: &[&str], input: &[u8]) -> Said {
        let mut command = self.site.world.command(&self.words(args));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut pipe = child.stdin.take().unwrap();
        let input = input.to_vec();
        let writer = std::thread::spawn(move || drop(pipe.write_all(&input)));
        let output = child.wait_with_output().unwrap();
        writer.join().unwrap();
        Said::of(output)
    }

    /// The ephemeral containers of `web-0`.
    fn added(&self) -> Vec<Value> {
        self.cluster.object("pods", "shop", "web-0")["spec"]["ephemeralContainers"]
            .as_array()
            .cloned()
            .unwrap_or_default()
    }

    #[track_caller]
    fn stays(&self, said: &str) {
        let added = self.added();
        let name = added.last().unwrap()["name"].as_str().unwrap();
        let word = format!("the ephemeral container {name} stays in the spec of pod web-0 until the pod is deleted\n");
        assert!(said.ends_with(&word), "{said}");
    }
}

const SAYS: &str = "read x; echo \"out $x\"; echo \"err $x\" >&2; exit 7";

#[test]
fn a_container_is_added_and_its_streams_and_exit_code_are_kept() {
    let Some(node) = node() else { return };
    let said = node.debug(&["--pod", "shop/web-0", "--", "sh", "-c", SAYS], b"in\n");
    assert_eq!((said.code(), &*said.out), (7, "out in\n"), "{said:?}");
    assert!(said.err.contains("err in\n"), "{said:?}");
    node.stays(&said.err);
    // The requests that the API has seen.
    let patches = node.cluster.patches();
    let [(media, patch)] = &patches[..] else { panic!("{patches:?}") };
    assert_eq!(media, "application/strategic-merge-patch+json");
    let name = node.added()[0]["name"].as_str().unwrap().to_owned();
    let random = name.strip_prefix("debug-").unwrap();
    assert!(random.len() == 5 && random.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit()), "{name}");
    assert_eq!(
        *patch,
        json!({"spec": {"ephemeralContainers": [{
            "name": name, "image": "busybox:musl", "imagePullPolicy": "IfNotPresent", "command": ["sh", "-c", SAYS],
            "stdin": true, "stdinOnce": true, "tty": false, "targetContainerName": "app", "securityContext": {},
        }]}})
    );
    let attach = format!("/attach?container={name}&stdin=true&stdout=true&stderr=true&tty=false");
    assert!(node.cluster.seen().iter().any(|path| *path == format!("/api/v1/namespaces/shop/pods/web-0{attach}")));
    // Much of it, both ways, with the end of the input; and a signal's code.
    let many: Vec<u8> = (0..4_000_000_u32)
        .flat_map(|n| if n % 16 == 0 { b'\n' } else { b'a' + (n % 26) as u8 }.to_be_bytes())
        .collect();
    let said = node.debug(&["--pod", "shop/web-0/side", "--", "cat"], &many);
    assert_eq!((said.code(), said.out.as_bytes() == many), (0, true), "{}", said.err);
    assert!(!said.err.contains("bytes of its output are not here"), "{}", said.err);
    assert_eq!(node.debug(&["--pod", "shop/web-0", "--", "sh", "-c", "kill -KILL $$"], b"").code(), 137);
    // The image's own command, which reads a script.
    assert_eq!(node.debug(&["--pod", "shop/web-0"], b"echo $((6 * 7))\nexit 3\n").out, "42\n");
    assert_eq!(node.added()[1]["targetContainerName"], "side");
    assert_eq!(node.added()[3]["command"], Value::Null);
    let list = node.ours("pods", &["-n", "shop"]).ok();
    assert!(list.contains(&format!("{name} (ephemeral, debugs app, Error)")), "{list}");
}

/// Words that were written before the streams are open are in the log, and are not lost.
#[test]
fn words_before_the_streams_are_not_lost() {
    let Some(node) = node() else { return };
    for words in ["echo quick", "exec 2>&1; echo quick >&2"] {
        let said = node.debug(&["--pod", "shop/web-0", "--", "sh", "-c", words], b"");
        assert_eq!((said.code(), &*said.out), (0, "quick\n"), "{said:?}");
    }
    node.cluster.on_start(|container| Start::Speaks(program(container)));
    let said = node.debug(&["--pod", "shop/web-0", "--", "sh", "-c", "echo early; read x; echo late"], b"in\n");
    assert_eq!((said.code(), &*said.out), (0, "late\n"), "{said:?}");
    let name = node.added()[2]["name"].as_str().unwrap().to_owned();
    let word = format!(
        "6 bytes of its output are not here, as those from before it was attached to: see `labctl-ssh-proxy logs PLAYGROUND --pod shop/web-0/{name}`"
    );
    assert!(said.err.contains(&word), "{said:?}");
    assert_eq!(node.ours("logs", &["--pod", &format!("shop/web-0/{name}")]).ok(), "early\nlate\n");
    let said = node.debug(&["--pod", "shop/web-0", "--", "sh", "-c", "echo early; read x"], b"in\n");
    assert_eq!((said.code(), &*said.out), (1 - i32::from(said.code() == 0), "early\n"), "{said:?}");
}

/// Pods, and options that cdebug has as well. The judge is cdebug at commit fdfdf9a: tests/golden/cdebug.json has the
/// containers that it has added to the pods of this stand-in, without their command, which is a script of its own.
#[test]
fn a_container_is_as_cdebug_makes_it() {
    let Some(node) = node() else { return };
    let context = |pod: Value, app: Value| {
        let mut web = super::pods::pod("web-0", &[("app", "1"), ("side", "2")]);
        web["kind"] = "Pod".into();
        web["apiVersion"] = "v1".into();
        web["spec"]["securityContext"] = pod;
        web["spec"]["containers"][0]["securityContext"] = app;
        web["spec"]["containers"][0]["volumeMounts"] =
            json!([{"name": "data", "mountPath": "/data"}, {"name": "part", "mountPath": "/part", "subPath": "x"}]);
        web
    };
    let judged: Vec<Value> = serde_json::from_str(include_str!("../../golden/cdebug.json")).unwrap();
    assert!(judged.len() >= 12);
    for case in judged {
        node.cluster.put("pods", context(case["pod"].clone(), case["app"].clone()));
        let mut args = vec!["--pod", "shop/web-0/app"];
        args.extend(case["options"].as_array().unwrap().iter().map(|word| word.as_str().unwrap()));
        let said = node.debug(&[&args[..], &["--", "true"]].concat(), b"");
        assert_eq!(said.code(), 0, "{said:?}");
        let (ours, theirs) = (&node.added()[0], &case["container"]);
        let told = |context: &Value| {
            let members = context.as_object().unwrap().iter().filter(|(_, value)| !value.is_null() && **value != false);
            members.map(|(name, value)| (name.clone(), value.clone())).collect::<serde_json::Map<_, _>>()
        };
        assert_eq!(told(&ours["securityContext"]), told(&theirs["securityContext"]), "{case}");
        for member in ["image", "imagePullPolicy", "targetContainerName", "env"] {
            assert_eq!(ours[member], theirs[member], "{case}");
        }
        // Ours has the mounts for another user whom the pod demands, too.
        if !theirs["volumeMounts"].is_null() {
            assert_eq!(ours["volumeMounts"], theirs["volumeMounts"], "{case}");
        }
    }
}

/// A pod that forbids root, a user, privileges, and patches of all three kinds.
#[test]
fn a_container_is_as_it_is_wanted() {
    let Some(node) = node() else { return };
    let mut web = node.cluster.object("pods", "shop", "web-0");
    web["spec"]["securityContext"] = json!({"runAsNonRoot": true, "runAsGroup": 200});
    web["spec"]["containers"][0]["securityContext"] = json!({"runAsUser": 65532});
    web["spec"]["containers"][0]["volumeMounts"] =
        json!([{"name": "data", "mountPath": "/data"}, {"name": "part", "mountPath": "/part", "subPath": "x"}]);
    node.cluster.put("pods", web);
    let with = |pod: &str, args: &[&str]| {
        let said = node.debug(&[&["--pod", pod], args, &["--", "true"]].concat(), b"");
        assert_eq!(said.code(), 0, "{said:?}");
        (node.added().pop().unwrap(), said.err)
    };
    let (made, said) = with("shop/web-0", &[]);
    assert_eq!(made["securityContext"], json!({"runAsNonRoot": true, "runAsUser": 65532, "runAsGroup": 200}));
    assert_eq!(made["volumeMounts"], json!([{"name": "data", "mountPath": "/data"}]));
    assert!(said.contains("the pod forbids root, so it runs as 65532:200; --user changes that"), "{said}");
    let (made, _) = with("shop/web-0/side", &[]);
    assert_eq!(made["securityContext"], json!({"runAsNonRoot": true, "runAsUser": 1000, "runAsGroup": 200}));
    let (made, said) = with("shop/web-0", &["--user", "0", "--privileged"]);
    assert_eq!(
        made["securityContext"],
        json!({"runAsNonRoot": false, "runAsUser": 0, "runAsGroup": 0, "privileged": true})
    );
    assert!(!said.contains("demands"), "{said}");
    let (made, _) = with(
        "shop/web-0",
        &["--user", "1:2", "--override", r#"{"env": [{"name": "A", "value": "1"}], "command": null}"#],
    );
    assert_eq!(made["securityContext"], json!({"runAsUser": 1, "runAsGroup": 2}));
    assert_eq!((&made["env"][0]["value"], &made["command"]), (&json!("1"), &Value::Null));
    let patch =
        r#"{"volumeMounts": [{"mountPath": "/data", "readOnly": true}, {"mountPath": "/more", "name": "data"}]}"#;
    let (made, _) = with("shop/web-0", &["--override-type", "strategic", "--override", patch]);
    assert_eq!(
        made["volumeMounts"],
        json!([{"mountPath": "/data", "name": "data", "readOnly": true}, {"mountPath": "/more", "name": "data"}])
    );
    let patch = r#"[{"op": "replace", "path": "/name", "value": "mine"}, {"op": "add", "path": "/workingDir", "value": "/tmp"}]"#;
    let (made, said) = with("shop/web-0", &["--override-type", "json", "--override", patch]);
    assert_eq!((&made["name"], &made["workingDir"]), (&json!("mine"), &json!("/tmp")));
    assert!(said.contains("the ephemeral container mine stays"), "{said}");
    // That name is taken now, and no other is made of it.
    let said = node.debug(&["--pod", "shop/web-0", "--override-type", "json", "--override", patch], b"").failed(2);
    assert!(said.contains("has a container `mine` already"), "{said}");
}

/// Nothing is added for a line that is not understood.
#[test]
fn a_line_that_does_not_fit_is_refused_before_anything_is_asked() {
    let Some(node) = node() else { return };
    for (args, why) in [
        (&["--pod", "shop/web-0", "--user", "root"][..], "`root` is no number of a user or a group"),
        (&["--pod", "shop/web-0", "--override", "{"], "it is not valid JSON"),
        (&["--pod", "shop/web-0", "--override-type", "json"], "--override <JSON>"),
        (&["--pod", "shop/web-0", "--tools", "auto"], "cannot be used with"),
        (&["web"], "cannot be used with"),
    ] {
        let said = node.debug(args, b"").failed(2);
        assert!(said.contains(why), "{said}");
    }
    let said = node.debug(&["--pod", "shop/web-0", "--override", "3"], b"").failed(2);
    assert!(said.contains("--override cannot be applied: the result is not an object"), "{said}");
    assert_eq!(node.cluster.patches(), []);
    for args in [&["web", "--privileged"][..], &["--pod", "web", "--privileged"], &["--pod", "web", "--override", "{}"]]
    {
        let said = node.ours("debug", args).failed(2);
        assert!(said.contains("cannot be used with") || said.contains("--ephemeral <IMAGE>"), "{said}");
    }
}

/// Each refusal of the API is a sentence, and so is a container that does not start.
#[test]
fn what_the_cluster_does_not_do_is_said() {
    let Some(node) = node() else { return };
    let debug = |args: &[&str]| node.debug(&[&["--pod", "shop/web-0"], args].concat(), b"");
    let said = node.debug(&["--pod", "shop/other"], b"").failed(4);
    assert!(said.contains("has no pod `other` in namespace shop"), "{said}");
    let said = debug(&["--override", r#"{"image": null}"#]).failed(6);
    assert!(said.contains("is invalid: spec.ephemeralContainers[0].image: Required value"), "{said}");
    assert!(!said.contains("stays"), "{said}");
    for (reason, message) in
        [("ImagePullBackOff", "Back-off pulling image"), ("CreateContainerConfigError", "has runAsNonRoot")]
    {
        node.cluster
            .on_start(move |_| Start::Waits(vec![("ErrImagePull", "no such image \u{1b}[31m"), (reason, message)]));
        node.cluster.seen();
        let said = debug(&[]).failed(7);
        let name = node.added().pop().unwrap()["name"].as_str().unwrap().to_owned();
        let words = format!("the ephemeral container {name} of pod web-0 does not start: waiting, {reason}, {message}");
        assert!(said.contains(&words) && said.contains(&format!("{name} stays in the spec of pod web-0")), "{said}");
        assert!(said.contains("hint: no such image [31m"), "{said}");
    }
    // The pod is deleted meanwhile.
    node.cluster.on_start(|_| Start::Waits(vec![("ErrImagePull", "no")]));
    let before = node.added().len();
    let child = node.site.world.command(&node.words(&["--pod", "shop/web-0"])).stderr(Stdio::piped()).spawn().unwrap();
    eventually("it is added", || node.added().len() > before);
    node.cluster.delete("pods", "shop", "web-0");
    let said = Said::of(child.wait_with_output().unwrap()).failed(8);
    assert!(said.contains("pod web-0 of playground") && said.contains("was deleted"), "{said}");
    node.cluster.put("pods", pod("web-0", &[("app", "1")]));
    node.cluster.of_version(20);
    let said = debug(&[]).failed(6);
    assert!(said.contains("is Kubernetes 1.20, which has no ephemeral containers"), "{said}");
    node.cluster.of_version(34);
    node.cluster.refuse("pods/attach", 403);
    node.cluster.on_start(|container| Start::Runs(program(container)));
    let said = debug(&["--", "sh", "-c", "read x"]).failed(6);
    assert!(said.contains("resource \"pods/attach\"") && said.contains("stays"), "{said}");
    node.cluster.refuse("pods/ephemeralcontainers", 403);
    let said = debug(&[]).failed(6);
    assert!(
        said.contains("cannot patch resource \"pods/ephemeralcontainers\"") && said.contains("hint: the role needs"),
        "{said}"
    );
}

/// A terminal is lent to the container with its size, and is as before afterwards, even after a signal.
#[test]
fn a_terminal_is_lent() {
    let Some(node) = node() else { return };
    let script = "stty size; trap 'stty size' WINCH; echo ready; while ! read x; do :; done; echo \"got $x\"; exit 5";
    let words = ["debug", &node.site.play, "--pod", "shop/web-0", "--ephemeral", "busybox", "--", "sh", "-c", script];
    let mut ours = OnTerminal::of_ours(&node.site.world, &words);
    let before = format!("{:?}", tcgetattr(&*ours.terminal).unwrap());
    let is_lent = |ours: &OnTerminal| format!("{:?}", tcgetattr(&*ours.terminal).unwrap()) != before;
    eventually("the terminal is lent", || is_lent(&ours));
    assert_eq!(node.added()[0]["tty"], true);
    ours.terminal.resize(pty_process::Size::new(33, 99)).unwrap();
    ours.expect("33 99");
    ours.type_in("key\r");
    ours.expect("got key");
    assert_eq!(ours.code(), Some(5));
    ours.expect("stays in the spec of pod web-0");
    assert!(!is_lent(&ours));
    let mut ours = OnTerminal::of_ours(&node.site.world, &words);
    eventually("the terminal is lent", || is_lent(&ours));
    rustix::process::kill_process(rustix::process::Pid::from_child(&ours.child), rustix::process::Signal::TERM)
        .unwrap();
    ours.expect("stays in the spec of pod web-0");
    assert_eq!(ours.code(), Some(143));
    assert!(!is_lent(&ours));
}

/// An API before 1.30 cannot say that the input has ended; all else is the same.
#[test]
fn an_older_api_is_spoken_to_as_well() {
    let Some(node) = node() else { return };
    node.cluster.of_version(28);
    let said = node.debug(&["--pod", "shop/web-0", "--", "sh", "-c", SAYS], b"in\n");
    assert_eq!((said.code(), &*said.out), (7, "out in\n"), "{said:?}");
}

/// A reader that leaves ends it, and a program that waits for input gets the end of that.
#[test]
fn a_reader_may_leave() {
    let Some(node) = node() else { return };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ended");
    let script = format!("read x; seq 1 200000; cat; touch {}", file.display());
    let mut command = node.site.world.command(&node.words(&["--pod", "shop/web-0", "--", "sh", "-c", &script]));
    let mut ours = Ending(command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap());
    ours.0.stdin.as_mut().unwrap().write_all(b"in\n").unwrap();
    let mut line = String::new();
    BufReader::new(ours.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "1\n");
    let input = ours.0.stdin.take();
    assert_eq!(ours.0.wait().unwrap().code(), Some(0));
    eventually("the program has ended", || file.exists());
    drop(input);
}

/// A container of runc in the process namespace of its target.
fn beside(target: &Container, container: &Value, rootfs: &std::path::Path, folder: &std::path::Path) -> Command {
    let runc = needs("runc");
    let name = container["name"].as_str().unwrap();
    let bundle = folder.join(name);
    fs::create_dir_all(&bundle).unwrap();
    assert!(Command::new(&runc).arg("spec").current_dir(&bundle).status().unwrap().success());
    let file = bundle.join("config.json");
    let mut configuration: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    configuration["root"]["path"] = rootfs.to_str().unwrap().into();
    let process = &mut configuration["process"];
    process["terminal"] = container["tty"].clone();
    process["args"] = container["command"].clone();
    let user = &container["securityContext"];
    process["user"] =
        json!({"uid": user["runAsUser"].as_u64().unwrap_or(0), "gid": user["runAsGroup"].as_u64().unwrap_or(0)});
    for space in configuration["linux"]["namespaces"].as_array_mut().unwrap() {
        if space["type"] == "pid" {
            space["path"] = format!("/proc/{}/ns/pid", target.pid()).into();
        }
    }
    fs::write(&file, configuration.to_string()).unwrap();
    let mut command = Command::new(runc);
    command.arg("--root").arg(folder.join("runc")).args(["run", "--bundle"]).arg(&bundle).arg(name);
    command
}

/// `cdebug exec -it pod/nginx-1/app`: the processes of the target, and its files.
#[test]
fn the_target_of_a_real_container_is_seen() {
    let Some(node) = Node::new() else { return };
    let target = std::sync::Arc::new(node.run("target", SCRATCH));
    node.cluster.put("pods", pod("web-0", &[("app", &target.id)]));
    let folder = tempfile::tempdir().unwrap();
    let (rootfs, path) = (folder.path().join("rootfs"), folder.path().to_owned());
    images::make(&folder.path().join("new"), &mut |new, image| {
        if image.name == BUSYBOX {
            assert!(Command::new("cp").arg("-a").args([new, &rootfs]).status().unwrap().success());
        }
    });
    let its = std::sync::Arc::clone(&target);
    node.cluster.on_start(move |container| Start::Runs(beside(&its, container, &rootfs, &path)));
    let script = "read x; tr '\\0' ' ' </proc/1/cmdline; id -u; ls /proc/1/root; exit 9";
    let said = node.debug(&["--pod", "shop/web-0/app", "--user", "65532:0", "--", "sh", "-c", script], b"\n");
    assert_eq!(said.code(), 9, "{said:?}");
    assert!(said.out.starts_with("/app serve 65532\n"), "{said:?}");
    assert!(said.out.lines().any(|line| line == "app"), "{said:?}");
    node.stays(&said.err);
}
