//! Logs of pods, and what the API has about one container. kubectl is the judge: of the words, and of what the API is asked.

use std::{
    collections::BTreeSet,
    io::{BufRead, BufReader, Read},
    process::{Command, Stdio},
};

use serde_json::{Value, json};

use super::pods::{Node, pod};
use crate::support::{Ending, Said, eventually, needs};

impl Node {
    /// Runs a command of ours about this playground.
    pub(super) fn ours(&self, command: &str, args: &[&str]) -> Said {
        self.site.world.run(&[&["--local", command, &self.site.play], args].concat())
    }

    /// Runs kubectl on this computer with the kubeconfig of the machine.
    fn kubectl(&self, args: &[&str]) -> Said {
        let mut command: Command = self.site.world.program(needs("kubectl").to_str().unwrap());
        let file = self.site.machine_folder().join("home/.kube/config");
        self.site.world.output(command.args(args).env("KUBECONFIG", file))
    }

    /// The questions of the last request for a log.
    fn asked(&self) -> BTreeSet<String> {
        let seen = self.cluster.seen();
        let (path, query) =
            seen.iter().rev().find_map(|uri| uri.split_once('?').filter(|(path, _)| path.ends_with("/log"))).unwrap();
        assert!(path.starts_with("/api/v1/namespaces/shop/pods/"), "{path}");
        query.split('&').map(str::to_owned).collect()
    }
}

/// A node with a pod whose containers have logs. kubectl wants to know what an object is.
fn node() -> Option<Node> {
    let node = Node::new()?;
    let mut web = pod("web-0", &[("app", "1"), ("side", "2")]);
    web["kind"] = "Pod".into();
    web["apiVersion"] = "v1".into();
    web["status"]["containerStatuses"][0]["restartCount"] = 1.into();
    node.cluster.put("pods", web);
    node.cluster.log("web-0", "app", "one\ntwo \u{1b}[31mred\nthree\n", Some("before\n"));
    node.cluster.log("web-0", "side", "", None);
    Some(node)
}

#[test]
fn a_log_is_what_kubectl_prints() {
    let Some(node) = node() else { return };
    for (ours, theirs) in [
        (&[][..], &[][..]),
        (&["--tail", "2"], &["--tail=2"]),
        (&["--timestamps"], &["--timestamps"]),
        (&["--previous"], &["--previous"]),
        (&["--tail", "1", "--timestamps"], &["--tail=1", "--timestamps"]),
        (&["-f"], &["-f"]),
        (&["--tail", "0"], &["--tail=0"]),
    ] {
        let said = node.ours("logs", &[&["--pod", "shop/web-0"], ours].concat());
        let asked = node.asked();
        let judge = node.kubectl(&[&["logs", "-n", "shop", "web-0", "-c", "app"], theirs].concat());
        assert_eq!(said.ok(), judge.ok(), "{ours:?}");
        assert_eq!(asked, node.asked(), "{ours:?}");
    }
    assert_eq!(node.ours("logs", &["--pod", "shop/web-0/side"]).ok(), "");
}

/// A log is followed as it grows, even one that is empty at first, and ends with its container, its reader or Ctrl-C.
#[test]
fn a_log_is_followed() {
    let Some(node) = node() else { return };
    let follow = |container: &str| {
        let pod = format!("shop/web-0/{container}");
        let words = ["--local", "logs", &node.site.play, "--pod", &pod, "-f"];
        let mut child = node.site.world.command(&words).stdout(Stdio::piped()).spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        (Ending(child), out)
    };
    node.cluster.write("web-0", "side", "", true);
    let (mut child, mut out) = follow("side");
    eventually("it asks", || node.cluster.seen().iter().any(|path| path.contains("/log?")));
    let mut line = String::new();
    for text in ["first\n", "second\n"] {
        node.cluster.write("web-0", "side", text, true);
        line.clear();
        out.read_line(&mut line).unwrap();
        assert_eq!(line, text);
    }
    node.cluster.write("web-0", "side", "no end of line", false);
    let mut rest = String::new();
    out.read_to_string(&mut rest).unwrap();
    assert_eq!((rest.as_str(), child.0.wait().unwrap().code()), ("no end of line", Some(0)));
    // Its reader leaves.
    node.cluster.write("web-0", "app", "", true);
    let (mut child, mut out) = follow("app");
    line.clear();
    out.read_line(&mut line).unwrap();
    drop(out);
    assert_eq!(child.0.wait().unwrap().code(), Some(0));
    let (mut child, mut out) = follow("app");
    out.read_line(&mut line).unwrap();
    let pid = rustix::process::Pid::from_child(&child.0);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    assert_eq!(child.0.wait().unwrap().code(), Some(130));
}

#[test]
fn a_log_that_there_is_not_is_said() {
    let Some(node) = node() else { return };
    let mut new = pod("new", &[("app", "1")]);
    new["status"]["containerStatuses"][0]["state"] = json!({"waiting": {"reason": "ContainerCreating"}});
    node.cluster.put("pods", new);
    for (pod, more, code, why) in [
        ("shop/other", None, 4, "has no pod `other` in namespace shop"),
        ("shop/web-0/other", None, 4, "has no container `other`"),
        ("shop/new", None, 6, "container \"app\" in pod \"new\" is waiting to start: ContainerCreating"),
        ("shop/web-0/side", Some("--previous"), 6, "previous terminated container \"side\" in pod \"web-0\" not found"),
    ] {
        let args: Vec<&str> = ["--pod", pod].into_iter().chain(more).collect();
        let said = node.ours("logs", &args).failed(code);
        assert!(said.contains(why), "{said}");
    }
    node.site.world.run(&["--local", "stop", &node.site.play]).ok();
    let said = node.ours("logs", &["--pod", "shop/web-0"]).failed(7);
    assert!(said.contains("stopped"), "{said}");
}

/// `pods --of` is what kubectl gets, of one container.
#[test]
fn one_container_is_shown_as_the_api_has_it() {
    let Some(node) = node() else { return };
    let mut web = node.cluster.object("pods", "shop", "web-0");
    web["spec"]["containers"][1]["env"] = json!([{"name": "A", "value": "\u{1b}[31m"}]);
    web["spec"]["ephemeralContainers"] = json!([{"name": "look", "targetContainerName": "app", "image": "busybox"}]);
    web["status"]["ephemeralContainerStatuses"] =
        json!([{"name": "look", "state": {"waiting": {"reason": "ImagePullBackOff"}}}]);
    web["spec"]["initContainers"] = json!([{"name": "migrate", "image": "m"}]);
    node.cluster.put("pods", web);
    let judge: Value =
        serde_json::from_str(&node.kubectl(&["get", "pod", "-n", "shop", "web-0", "-o", "json"]).ok()).unwrap();
    for (name, spec, status) in [
        ("shop/web-0", "/spec/containers/0", Some("/status/containerStatuses/0")),
        ("shop/web-0/side", "/spec/containers/1", Some("/status/containerStatuses/1")),
        ("shop/web-0/look", "/spec/ephemeralContainers/0", Some("/status/ephemeralContainerStatuses/0")),
        ("shop/web-0/migrate", "/spec/initContainers/0", None),
    ] {
        let text = node.ours("pods", &["--of", name]).ok();
        let at = |path: &str| judge.pointer(path).unwrap();
        let theirs = json!({"spec": at(spec), "status": status.map(at)});
        assert_eq!(text, serde_json::to_string_pretty(&theirs).unwrap() + "\n", "{name}");
    }
    let said = node.ours("pods", &["--of", "shop/web-0/other", "--json"]);
    assert!(said.out.contains("not-found"), "{}", said.out);
    assert!(said.failed(4).contains("has no container `other`"));
}
