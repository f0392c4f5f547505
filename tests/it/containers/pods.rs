//! Pods as ssh hosts. The API is a stand-in; the containers are real ones of containerd, with the annotations of
//! Kubernetes' CRI, and ctr is the judge of what is in them.

use std::{
    io::{BufRead, BufReader},
    panic::{AssertUnwindSafe, catch_unwind},
    process::Stdio,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::{MACHINE, Site};
use crate::support::{
    Said,
    cluster::{Cluster, Watching},
    engine::{BUSYBOX, Container, Engine, SCRATCH},
    eventually, schema,
};

const NONE: [&str; 2] = ["--network", "none"];

/// A playground whose machine is the node of a cluster.
pub(super) struct Node {
    pub(super) site: Site,
    pub(super) cluster: Cluster,
    engine: &'static Engine,
}

impl Node {
    pub(super) fn new() -> Option<Node> {
        let engine = Engine::cri()?;
        let (site, cluster) = (Site::new(engine, "builtin"), Cluster::new());
        cluster.place(&site.machine_folder().join("home"));
        cluster.put(
            "nodes",
            json!({"metadata": {"name": MACHINE}, "status": {"conditions": [{"type": "Ready", "status": "True"}]}}),
        );
        Some(Node { site, cluster, engine })
    }

    pub(super) fn run(&self, name: &str, image: &str) -> Container {
        self.engine.run(name, &NONE, image, &[])
    }

    /// The host name of a pod in the namespace `shop`.
    pub(super) fn host(&self, pod: &str) -> String {
        format!("{}.pod.shop.{pod}", self.site.playground())
    }

    fn say(&self, host: &str) -> Said {
        self.site.ssh(&[host, "/app", "say", "in"])
    }
}

/// A pod that is ready, with these containers: each a name and the id at its runtime.
pub(super) fn pod(name: &str, containers: &[(&str, &str)]) -> Value {
    let spec: Vec<Value> = containers.iter().map(|(name, _)| json!({"name": name, "image": "app:1"})).collect();
    let seen: Vec<Value> = containers.iter().map(|(name, id)| running(name, id)).collect();
    json!({
        "metadata": {"name": name, "namespace": "shop"},
        "spec": {"nodeName": MACHINE, "containers": spec},
        "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}], "containerStatuses": seen},
    })
}

fn running(name: &str, id: &str) -> Value {
    let since = "2026-11-30T06:00:00Z";
    json!({
        "name": name, "containerID": format!("containerd://{id}"), "ready": true, "started": true, "restartCount": 0,
        "state": {"running": {"startedAt": since}},
    })
}

/// A pod, each kind of container in it, and what makes it are names of hosts.
#[test]
fn pods_and_what_makes_them_are_hosts() {
    let Some(node) = Node::new() else { return };
    let [app, side, look] = ["app", "side", "look"].map(|name| node.run(name, SCRATCH));
    let mut web = pod("web-7d4b9c6f5-x2x9z", &[("log", &side.id), ("app", &app.id)]);
    web["metadata"]["annotations"] = json!({"kubectl.kubernetes.io/default-container": "app"});
    web["metadata"]["ownerReferences"] = json!([{"kind": "ReplicaSet", "name": "web-7d4b9c6f5", "controller": true}]);
    web["spec"]["initContainers"] = json!([{"name": "migrate"}, {"name": "proxy", "restartPolicy": "Always"}]);
    web["spec"]["ephemeralContainers"] = json!([{"name": "look", "targetContainerName": "app"}]);
    let done = json!({"name": "migrate", "state": {"terminated": {"exitCode": 0, "reason": "Completed"}}});
    web["status"]["initContainerStatuses"] = json!([done, running("proxy", &side.id)]);
    web["status"]["ephemeralContainerStatuses"] = json!([running("look", &look.id)]);
    node.cluster.put("pods", web);
    let owner = json!([{"kind": "Deployment", "name": "web", "controller": true}]);
    node.cluster.put(
        "replicasets",
        json!({"metadata": {"name": "web-7d4b9c6f5", "namespace": "shop", "ownerReferences": owner}}),
    );
    // Its mounts, which ctr knows, tell the container.
    let mounts = ["/app", "show", "/proc/self/mountinfo"];
    for (name, container) in [
        ("web-7d4b9c6f5-x2x9z", &app),
        ("web", &app),
        ("web-7d4b9c6f5-x2x9z.app", &app),
        ("web.log", &side),
        ("web.proxy", &side),
        ("web.look", &look),
    ] {
        let host = node.host(name);
        assert_eq!(node.say(&host).ok(), "[in]\n", "{name}");
        let theirs = String::from_utf8(container.exec(&[], &mounts).stdout).unwrap();
        assert_eq!(node.site.ssh(&[&[host.as_str()], &mounts[..]].concat()).ok(), theirs, "{name}");
        assert_eq!(node.site.ssh(&[&host, "/app", "exit", "7"]).code(), 7);
    }
    for container in [&app, &side, &look] {
        node.site.leaves_nothing(container);
    }
    let said = node.say(&node.host("web.migrate")).failed(255);
    assert!(said.contains("does not run: terminated successfully, Completed"), "{said}");
    let said = node.say(&node.host("web.other")).failed(255);
    assert!(
        said.contains("has no container `other`") && said.contains("it has migrate, proxy, log, app, look"),
        "{said}"
    );
    // The host key is that of the name, and stays when another pod takes the place of this one.
    node.cluster.delete("pods", "shop", "web-7d4b9c6f5-x2x9z");
    let mut next = pod("web-7d4b9c6f5-k8k8k", &[("app", &side.id)]);
    next["metadata"]["ownerReferences"] = json!([{"kind": "ReplicaSet", "name": "web-7d4b9c6f5", "controller": true}]);
    node.cluster.put("pods", next);
    assert_eq!(node.say(&node.host("web")).ok(), "[in]\n");
}

/// A pod that has been found is gone to at once, and found again when its container is another.
#[test]
fn a_cluster_is_asked_once_for_a_pod() {
    let Some(node) = Node::new() else { return };
    let one = node.run("first", SCRATCH);
    node.cluster.put("pods", pod("web-0", &[("app", &one.id)]));
    let host = node.host("web-0");
    assert_eq!(node.say(&host).ok(), "[in]\n");
    assert_eq!(node.cluster.seen(), ["/api/v1/namespaces/shop/pods/web-0"]);
    assert_eq!(node.say(&host).ok(), "[in]\n");
    assert_eq!(node.cluster.seen(), [""; 0]);
    drop(one);
    let two = node.run("second", SCRATCH);
    node.cluster.put("pods", pod("web-0", &[("app", &two.id)]));
    assert_eq!(node.say(&host).ok(), "[in]\n");
    assert_eq!(node.cluster.seen(), ["/api/v1/namespaces/shop/pods/web-0"]);
    // It has gone for good.
    drop(two);
    node.cluster.delete("pods", "shop", "web-0");
    let said = node.say(&host).failed(255);
    assert!(said.contains("has no pod `web-0` in namespace shop"), "{said}");
}

/// A stopped playground is woken for a pod, as for a machine.
#[test]
fn a_pod_of_a_stopped_playground_wakes_it() {
    let Some(node) = Node::new() else { return };
    let one = node.run("woken", SCRATCH);
    node.cluster.put("pods", pod("web-0", &[("app", &one.id)]));
    let stop = || node.site.world.stop_elsewhere(&node.site.play);
    stop();
    assert_eq!(node.say(&node.host("web-0")).ok(), "[in]\n");
    // Known from before. The cluster's API answers later than its machines do, and at first knows the containers of before.
    stop();
    node.cluster.stop();
    drop(one);
    let mut client = node.site.client("ssh", &[&node.host("web-0"), "/app", "say", "in"]);
    let mut client = client.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(client.stderr.take().unwrap()).lines().map_while(Result::ok);
    let mut until = |words: &str| assert!(said.any(|line| line.contains(words)), "no word of: {words}");
    until("waiting for pod shop.web-0: the Kubernetes API of playground");
    node.cluster.start();
    until("waiting for pod shop.web-0: machine");
    let two = node.run("woken-again", SCRATCH);
    node.cluster.put("pods", pod("web-0", &[("app", &two.id)]));
    assert_eq!(client.wait_with_output().unwrap().stdout, b"[in]\n");
    assert_eq!(node.site.world.restarts(&node.site.play), 2);
}

/// Each obstacle on the way is said in a sentence.
#[test]
fn what_a_cluster_does_not_have_is_said() {
    let Some(node) = Node::new() else { return };
    let one = node.run("obstacles", SCRATCH);
    let by_set = |name: &str, ready: bool| {
        let mut pod = pod(name, &[("app", &one.id)]);
        pod["metadata"]["ownerReferences"] = json!([{"kind": "StatefulSet", "name": "db", "controller": true}]);
        if !ready {
            pod["status"]["conditions"] = json!([]);
        }
        pod
    };
    node.cluster.put("pods", by_set("db-0", false));
    let said = node.say(&node.host("db")).failed(255);
    assert!(said.contains("no pod of db in namespace shop") && said.contains("db-0: Running"), "{said}");
    node.cluster.put("pods", by_set("db-1", true));
    node.cluster.seen();
    assert_eq!(node.say(&node.host("db")).ok(), "[in]\n");
    // A large namespace is read in parts.
    let lists = node.cluster.seen().into_iter().skip(1);
    assert_eq!(lists.filter(|path| !path.ends_with("?limit=500")).collect::<Vec<_>>(), [""; 0]);
    node.cluster.put("pods", by_set("db-2", true));
    let said = node.say(&node.host("db")).failed(255);
    assert!(said.contains("2 pods") && said.contains("choose one of: db-1, db-2"), "{said}");
    let mut crash = pod("crash", &[("app", &one.id)]);
    crash["status"]["containerStatuses"][0]["state"] =
        json!({"waiting": {"reason": "CrashLoopBackOff", "message": "back-off \u{1b}[31m5m"}});
    node.cluster.put("pods", crash);
    let said = node.say(&node.host("crash")).failed(255);
    assert!(said.contains("does not run: waiting, CrashLoopBackOff, back-off [31m5m"), "{said}");
    let mut far = pod("far", &[("app", &"0".repeat(64))]);
    far["spec"]["nodeName"] = "elsewhere".into();
    node.cluster.put("pods", far);
    let said = node.say(&node.host("far")).failed(255);
    assert!(said.contains("is on node elsewhere, and no machine has its container"), "{said}");
    // A node of another name than its machine's.
    let mut near = pod("near", &[("app", &one.id)]);
    near["spec"]["nodeName"] = "elsewhere".into();
    node.cluster.put("pods", near);
    assert_eq!(node.say(&node.host("near")).ok(), "[in]\n");
    node.cluster.refuse("pods", 403);
    let said = node.say(&node.host("other")).failed(255);
    assert!(said.contains("pods is forbidden: User"), "{said}");
    node.cluster.stop();
    let said = node.say(&node.host("other")).failed(255);
    assert!(said.contains("the Kubernetes API of playground") && said.contains("cannot be reached"), "{said}");
    std::fs::remove_file(node.site.machine_folder().join("home/.kube/config")).unwrap();
    let said = node.say(&node.host("other")).failed(255);
    assert!(said.contains("has no kubeconfig"), "{said}");
}

/// The API's certificate is checked against the kubeconfig's authority.
#[test]
fn another_api_is_not_trusted() {
    let Some(node) = Node::new() else { return };
    let theirs = Cluster::new().kubeconfig();
    let ours = node.cluster.kubeconfig();
    let line = |text: &str, field: &str| text.lines().find(|line| line.contains(field)).unwrap().to_owned();
    let field = "certificate-authority-data";
    let mixed = ours.replace(&line(&ours, field), &line(&theirs, field));
    std::fs::write(node.site.machine_folder().join("home/.kube/config"), mixed).unwrap();
    let said = node.say(&node.host("web-0")).failed(255);
    assert!(said.contains("shows a certificate that is not accepted"), "{said}");
    assert_eq!(node.cluster.seen(), [""; 0], "the token has gone out");
}

#[test]
fn a_watch_survives_what_an_api_does() {
    let Some(node) = Node::new() else { return };
    node.cluster.in_parts(2);
    for n in 0..5 {
        node.cluster.put("pods", pod(&format!("p-{n}"), &[("app", "1")]));
    }
    let watch = Watching::of(&node.site.world, &node.site.play, &["-A"]);
    let first = watch.next("the first line");
    schema::check("podsLine", &first);
    assert_eq!(first["nodes"], json!([{"name": MACHINE, "ready": true}]));
    let names = |line: &Value| -> Vec<String> {
        line["pods"].as_array().unwrap().iter().map(|pod| pod["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names(&first), ["p-0", "p-1", "p-2", "p-3", "p-4"]);
    let mut failing = pod("p-2", &[("app", "1")]);
    failing["status"]["containerStatuses"][0]["state"] = json!({"waiting": {"reason": "ImagePullBackOff"}});
    node.cluster.put("pods", failing.clone());
    let line = watch.next("a change");
    schema::check("podsLine", &line);
    assert_eq!((&line["pod"]["status"], &line["pod"]["failing"]), (&json!("ImagePullBackOff"), &json!(true)));
    // A change that alters nothing shown is not told.
    failing["metadata"]["labels"] = json!({"a": "b"});
    node.cluster.put("pods", failing);
    node.cluster.delete("pods", "shop", "p-4");
    let line = watch.next("an end");
    schema::check("podsLine", &line);
    assert_eq!(line, json!({"gone": {"namespace": "shop", "name": "p-4"}}));
    // The history is gone: it lists again, those in trouble first.
    node.cluster.forget(&["pods", "nodes", "replicasets"]);
    assert_eq!(names(&watch.until("a new list", |line| line["pods"].is_array())), ["p-2", "p-0", "p-1", "p-3"]);
    // The API is restarted.
    node.cluster.stop();
    let line = watch.until("an error", |line| line["error"].is_object());
    schema::check("podsLine", &line);
    node.cluster.put("pods", pod("p-9", &[("app", "1")]));
    node.cluster.start();
    let line = watch.until("a list after the restart", |line| line["pods"].is_array());
    assert!(names(&line).contains(&"p-9".to_owned()), "{line}");
    node.cluster.put("nodes", json!({"metadata": {"name": MACHINE}, "status": {"conditions": []}}));
    assert_eq!(
        watch.until("a node", |line| line["nodes"].is_array())["nodes"],
        json!([{"name": MACHINE, "ready": false}])
    );
    // It ends with its reader, and nothing is asked any more.
    drop(watch);
    eventually("the connection has ended", || node.site.world.processes("--watch").is_empty());
    node.cluster.seen();
    node.cluster.put("pods", pod("p-10", &[("app", "1")]));
    assert_eq!(node.cluster.seen(), [""; 0]);
}

/// A list that takes long is read to its end, however many other changes there are at that time.
#[test]
fn a_slow_list_is_not_begun_anew_for_other_changes() {
    let Some(node) = Node::new() else { return };
    node.cluster.put("pods", pod("p-0", &[("app", "1")]));
    let watch = Watching::of(&node.site.world, &node.site.play, &["-A"]);
    watch.next("the first line");
    node.cluster.slow_down(Duration::from_millis(500));
    let has_come = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !has_come.load(Ordering::Relaxed) {
                node.cluster.put("replicasets", json!({"metadata": {"name": "web-1", "namespace": "shop"}}));
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        node.cluster.put("pods", pod("p-1", &[("app", "1")]));
        node.cluster.forget(&["pods"]);
        let said = catch_unwind(AssertUnwindSafe(|| watch.until("a new list", |line| line["pods"].is_array())));
        has_come.store(true, Ordering::Relaxed);
        assert_eq!(said.unwrap()["pods"].as_array().unwrap().len(), 2);
    });
}

/// An API that ends each watch at once is asked again after a pause.
#[test]
fn an_api_that_ends_watches_is_not_asked_all_the_time() {
    let Some(node) = Node::new() else { return };
    node.cluster.put("pods", pod("p-0", &[("app", "1")]));
    let watch = Watching::of(&node.site.world, &node.site.play, &["-A"]);
    watch.next("the first line");
    node.cluster.seen();
    let begin = Instant::now();
    node.cluster.end_watches(true);
    let mut asked = 0;
    eventually("each of the three watches was begun again, and again", || {
        asked += node.cluster.seen().len();
        asked >= 9
    });
    assert!(begin.elapsed() > Duration::from_secs(2), "{asked} requests in {:?}", begin.elapsed());
    node.cluster.end_watches(false);
    node.cluster.put("pods", pod("p-1", &[("app", "1")]));
    watch.until("a change", |line| line["pod"]["name"] == "p-1");
}

/// The table, and the list for programs.
#[test]
fn pods_are_listed() {
    let Some(node) = Node::new() else { return };
    let one = node.run("listed", BUSYBOX);
    let mut web = pod("web-0", &[("app", &one.id)]);
    web["spec"]["ephemeralContainers"] = json!([{"name": "look", "image": "busybox", "targetContainerName": "app"}]);
    web["status"]["ephemeralContainerStatuses"] = json!([running("look", &one.id)]);
    node.cluster.put("pods", web);
    let mut bad = pod("bad", &[("app", "1")]);
    bad["status"]["containerStatuses"][0]["state"] = json!({"waiting": {"reason": "ImagePullBackOff"}});
    bad["status"]["containerStatuses"][0]["ready"] = false.into();
    bad["status"]["conditions"] = json!([]);
    node.cluster.put("pods", bad);
    let list = |args: &[&str]| node.site.world.run(&[&["--local", "pods", &node.site.play], args].concat());
    let said = list(&["-n", "shop"]).ok();
    let host = node.host("web-0");
    assert_eq!(
        said,
        format!(
            "NAME   READY  STATUS            RESTARTS  NODE      CONTAINERS\n\
             bad    0/1    ImagePullBackOff  0         shell-01  app (ImagePullBackOff)\n\
             web-0  1/1    Running           0         shell-01  app, look (ephemeral, debugs app)\n\n\
             To go inside, for example into web-0:\n  ssh {host}\n"
        )
    );
    let value: Value = serde_json::from_str(&list(&["-A", "--json"]).ok()).unwrap();
    schema::check("pods", &value);
    assert_eq!(value["pods"][1]["host"], host);
    assert_eq!(value["pods"][1]["containers"][1]["host"], format!("{host}.look"));
    assert_eq!(list(&[]).ok(), "There are no pods in this namespace. With -A, those of all are listed.\n");
    let said = list(&["-n", "shop?watch=1"]).failed(2);
    assert!(said.contains("a namespace is letters, digits and dashes"), "{said}");
}
