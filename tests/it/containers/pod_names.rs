//! Pods by name at the command line: `--pod`, completion and `doctor`. The API is a stand-in, the containers are real.

use super::{
    commands::curl,
    pods::{Node, pod},
};
use crate::{
    completions::{bash, fish},
    support::{
        engine::{BUSYBOX, HTTP, SCRATCH},
        eventually,
        forward::Forward,
    },
};

#[test]
fn a_pod_is_named_on_the_command_line() {
    let Some(node) = Node::new() else { return };
    let [app, log] = ["named", "beside"].map(|name| node.run(name, BUSYBOX));
    node.cluster.put("pods", pod("web-0", &[("app", &app.id), ("log", &log.id)]));
    let play = node.site.playground();
    for (name, container) in [("shop/web-0", &app), ("shop/web-0/app", &app), ("shop/web-0/log", &log)] {
        let cgroup = String::from_utf8(container.exec(&[], &["readlink", "/proc/self/ns/mnt"]).stdout).unwrap();
        let command = ["readlink", "/proc/self/ns/mnt"];
        let ssh = node.site.local(&[&["ssh", "--pod", name, &play], &command[..]].concat());
        assert_eq!(ssh.ok(), cgroup, "{name}");
        let debug = node.site.local(&[&["debug", &play, "--pod", name, "--"], &command[..]].concat());
        assert_eq!(debug.ok(), cgroup, "{name}");
    }
    assert_eq!(node.site.local(&["debug", &play, "--pod", "shop/web-0", "--", "sh", "-c", "exit 7"]).code(), 7);
    let host = node.host("web-0.log");
    let printed = node.site.world.local(&["open", "code", &play, "/var", "--pod", "shop/web-0/log", "--print"]).ok();
    assert_eq!(printed, format!("code --folder-uri vscode-remote://ssh-remote+{host}/var\n"));
    for (args, words) in [
        (&["ssh", "--pod", "a/b/c/d", &play][..], "write [NAMESPACE/]POD[/CONTAINER]"),
        (&["ssh", "--pod", "web-0", "--in", "app", &play], "cannot be used with"),
        (&["port-forward", &host, "-L", "0:80"], "--pod shop/web-0/log -L 8080:80`"),
    ] {
        let said = node.site.local(args).failed(2);
        assert!(said.contains(words), "{args:?}: {said}");
    }
    // No namespace is that of the name `default`, and no other.
    let said = node.site.local(&["ssh", "--pod", "web-0", &play, "true"]).failed(255);
    assert!(said.contains("has no pod `web-0` in namespace default"), "{said}");
}

/// A forward goes on when its pod has another container. It has no network.
#[test]
fn a_forward_follows_its_pod() {
    let Some(node) = Node::new() else { return };
    let one = node.run("forwarded", SCRATCH);
    node.cluster.put("pods", pod("web-0", &[("app", &one.id)]));
    let play = node.site.playground();
    let mut forward = Forward::start(&node.site.world, &[&play, "--pod", "shop/web-0", "-L", &format!("0:{HTTP}")]);
    let port = forward.address(0).port();
    assert!(curl(port, "/data").status.success());
    drop(one);
    node.cluster.delete("pods", "shop", "web-0");
    let problem = forward.until(&node.site.world, "problem")["message"].to_string();
    assert!(problem.contains("has ended"), "{problem}");
    // A pod that is gone may come again.
    assert!(!curl(port, "/data").status.success());
    let problem = forward.until(&node.site.world, "problem")["message"].to_string();
    assert!(problem.contains("has no pod `web-0`"), "{problem}");
    let two = node.run("forwarded-again", SCRATCH);
    node.cluster.put("pods", pod("web-0", &[("app", &two.id)]));
    eventually("the other container answers", || curl(port, "/data").status.success());
    drop(forward);
    node.site.leaves_nothing(&two);
}

#[test]
fn shells_complete_pods_of_a_cluster_that_runs() {
    let Some(node) = Node::new() else { return };
    node.cluster.put("pods", pod("web-0", &[("app", "1"), ("log", "2")]));
    node.cluster.put("pods", pod("db-0", &[("db", "3")]));
    let play = node.site.playground();
    let names = ["shop/db-0", "shop/web-0", "shop/web-0/app", "shop/web-0/log"];
    let hosts = names.map(|name| format!("{play}.pod.{}", name.replace('/', ".")));
    for complete in [bash, fish] {
        let said = |line: String| complete(&node.site.world, &format!("labctl-ssh-proxy --local {line}"));
        assert_eq!(said(format!("ssh {play}.pod.shop.")), hosts);
        assert_eq!(said(format!("debug {play} --pod shop/web-0/")), ["shop/web-0/app", "shop/web-0/log"]);
        assert_eq!(said("ssh --pod s".to_owned()), names);
    }
    let lists = node.cluster.seen().len();
    assert_eq!(lists, 1, "the answer is remembered for some seconds");
}

#[test]
fn doctor_checks_the_way_into_a_pod() {
    let Some(node) = Node::new() else { return };
    let one = node.run("doctored", SCRATCH);
    node.cluster.put("pods", pod("web-0", &[("app", &one.id)]));
    let said = node.site.world.local(&["doctor", &node.host("web-0")]);
    for words in ["container app of web-0 is on", "answers as container in", "web-0 answers in"] {
        assert!(said.out.contains(words), "{words}: {said:?}");
    }
    let said = node.site.world.local(&["doctor", &node.host("web-1")]);
    assert!(said.code() == 1 && said.out.contains("has no pod `web-1` in namespace shop"), "{said:?}");
}
