//! Pods as a real Kubernetes has them: kube-apiserver and etcd of the tests' own, whose pods have the statuses that nodes
//! write. kubectl is the judge of what `pods` says of them.
//!
//! They need kube-apiserver, kube-controller-manager, kubectl (of 1.34) and etcd in PATH; scripts/try-cluster runs them.

mod api;
mod states;

use std::{
    collections::BTreeMap,
    fs,
    process::Stdio,
    time::{Duration, Instant},
};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::{
    containers::{self, MACHINE},
    support::{
        Ending, PROGRAM, World,
        cluster::Watching,
        engine::{Container, Engine, SCRATCH},
        eventually, needs, schema,
    },
};
use api::{Api, say};
use states::NAMESPACE;

/// Runs a program, and prints the seconds and the KiB of memory that it took.
const MEASURE: &str = "import resource, subprocess, sys, time; begin = time.monotonic(); \
     subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, check=True); \
     print(time.monotonic() - begin, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)";

/// A playground whose machine has a kubeconfig of a real API.
struct Site {
    world: World,
    play: String,
}

impl Site {
    fn new(kubeconfig: &str) -> Site {
        let mut world = World::empty();
        world.serve(&[]);
        let play = world.playground("shell");
        let site = Site { world, play };
        site.place(kubeconfig);
        site
    }

    fn place(&self, kubeconfig: &str) {
        place(&self.world, &self.play, kubeconfig);
    }

    fn pods(&self, args: &[&str]) -> crate::support::Said {
        self.world.run(&[&["--local", "pods", &self.play], args].concat())
    }

    fn watch(&self, args: &[&str]) -> Watching {
        Watching::of(&self.world, &self.play, args)
    }
}

/// Writes the kubeconfig of a machine.
fn place(world: &World, play: &str, kubeconfig: &str) {
    let folder = world.machine_home(play, MACHINE).join(".kube");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("config"), kubeconfig).unwrap();
}

fn namespace(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
}

/// A pod that a node has not seen yet.
fn pod(namespace: &str, name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": namespace, "name": name},
        "spec": {"nodeName": "node-01", "containers": [{"name": "app", "image": "app:1"}]},
    })
}

/// A pod that runs and is ready.
fn ready(namespace: &str, name: &str) -> Value {
    let mut pod = pod(namespace, name);
    pod["status"] = json!({
        "phase": "Running", "qosClass": "BestEffort", "conditions": [{"type": "Ready", "status": "True"}],
        "containerStatuses": [{
            "name": "app", "image": "app:1", "imageID": "", "restartCount": 0, "ready": true, "started": true,
            "state": {"running": {"startedAt": "2026-11-30T06:00:00Z"}},
        }],
    });
    pod
}

/// The cells of a table with these columns, by the name of the pod.
fn cells(table: &str, columns: [&str; 4]) -> BTreeMap<String, [String; 4]> {
    let lines: Vec<&str> = table.lines().take_while(|line| !line.is_empty()).collect();
    let cell = |line: &str, column: &str| {
        let title = lines[0].find(column).unwrap_or_else(|| panic!("no {column} in {}", lines[0]));
        let end = lines[0][title..].find("  ").map_or(line.len(), |width| title + width);
        let next = lines[0][end.min(lines[0].len())..].find(|c| c != ' ').map_or(line.len(), |space| end + space);
        // kubectl adds the time of the last restart, and has a word for no node.
        let text = line.get(title..next.min(line.len())).unwrap_or_default().trim();
        if text == "<none>" { String::new() } else { text.split(" (").next().unwrap().to_owned() }
    };
    lines[1..].iter().map(|line| (cell(line, "NAME "), columns.map(|column| cell(line, column)))).collect()
}

/// The names of the pods in a line of a watch.
fn names(line: &Value) -> Vec<&str> {
    line["pods"].as_array().into_iter().flatten().map(|pod| pod["name"].as_str().unwrap()).collect()
}

#[test]
#[ignore = "needs kube-apiserver, kubectl and etcd in PATH: scripts/try-cluster runs it"]
fn kubectl_has_the_same_words_for_each_state() {
    let api = Api::start(&[]);
    api.create(&[namespace(NAMESPACE)]);
    let all = states::all();
    let pods: Vec<Value> = all.iter().map(|state| state.pod.clone()).collect();
    api.create(&pods);
    for state in all.iter().filter(|state| state.is_deleted) {
        api.kubectl(&[
            "delete",
            "pod",
            "-n",
            NAMESPACE,
            state.pod["metadata"]["name"].as_str().unwrap(),
            "--wait=false",
        ]);
    }
    let site = Site::new(&api.kubeconfig(&api.certificate("admin")));
    let columns = ["READY", "STATUS", "RESTARTS", "NODE"];
    let theirs = cells(&api.kubectl(&["get", "pods", "-n", NAMESPACE, "-o", "wide"]), columns);
    assert_eq!(theirs.len(), all.len());
    let ours = cells(&site.pods(&["-n", NAMESPACE]).ok(), columns);
    assert_eq!(ours, theirs);
    let value: Value = serde_json::from_str(&site.pods(&["-A", "--json"]).ok()).unwrap();
    schema::check("pods", &value);
    let ours = value["pods"].as_array().unwrap().iter().map(|pod| {
        let text = |field: &str| pod[field].as_str().unwrap().to_owned();
        let ready = format!("{}/{}", pod["ready"], pod["total"]);
        (text("name"), [ready, text("status"), pod["restarts"].to_string(), text("node")])
    });
    assert_eq!(ours.collect::<BTreeMap<_, _>>(), theirs);
    let words: Vec<&str> = theirs.values().map(|cells| &*cells[1]).collect();
    say(&format!("{} pods are shown as kubectl shows them: {}", words.len(), words.join(", ")));
}

/// Changes are told as they happen, and a watch goes on over restarts of the API and of its store.
#[test]
#[ignore = "needs kube-apiserver, kubectl and etcd in PATH: scripts/try-cluster runs it"]
fn a_watch_of_a_real_api_survives_its_restarts() {
    let api = Api::start(&[]);
    api.create(&[namespace("shop"), ready("shop", "first")]);
    let site = Site::new(&api.kubeconfig(&api.certificate("admin")));
    let watch = site.watch(&["-A"]);
    assert_eq!(names(&watch.next("the first line")), ["first"]);
    let is = |name: &'static str, status: &'static str| {
        move |line: &Value| line["pod"]["name"] == name && line["pod"]["status"] == status
    };
    let mut late = Vec::new();
    let mut told = |what: &str, change: &dyn Fn(), is_it: &dyn Fn(&Value) -> bool| {
        change();
        let answered = Instant::now();
        let line = watch.until(what, is_it);
        late.push((what.to_owned(), answered.elapsed()));
        schema::check("podsLine", &line);
    };
    for n in 0..5 {
        told("added", &|| api.create(&[pod("shop", "second")]), &is("second", "Pending"));
        told("changed", &|| api.see(&[ready("shop", "second")]), &is("second", "Running"));
        let debug = [
            "debug",
            "-n",
            "shop",
            "second",
            "-c",
            "look",
            "--image=busybox:musl",
            "--target=app",
            "--profile=general",
        ];
        told("an ephemeral container", &|| drop(api.kubectl(&debug)), &|line| {
            let look = &line["pod"]["containers"][1];
            look["name"] == "look"
                && look["role"] == "ephemeral"
                && look["target"] == "app"
                && look["image"] == "busybox:musl"
        });
        told(
            "deleted",
            &|| drop(api.kubectl(&["delete", "pod", "-n", "shop", "second", "--now", "--wait=false"])),
            &is("second", "Terminating"),
        );
        let force = ["delete", "pod", "-n", "shop", "second", "--force", "--grace-period=0"];
        told("gone", &|| drop(api.kubectl(&force)), &|line| line["gone"]["name"] == "second");
        if n == 0 {
            api.stop_server();
            api.start_server();
            api.create(&[ready("shop", "third")]);
            watch.until("a pod of after the API's restart", |line| {
                names(line).contains(&"third") || is("third", "Running")(line)
            });
            api.kill_etcd();
            api.start_etcd();
            api.create(&[ready("shop", "fourth")]);
            watch.until("a pod of after the store's restart", |line| {
                names(line).contains(&"fourth") || is("fourth", "Running")(line)
            });
        }
    }
    let worst = late.iter().max_by_key(|(_, time)| *time).unwrap();
    say(&format!(
        "{} changes were told, the last of them {:?} after the API's answer ({})",
        late.len(),
        worst.1,
        worst.0
    ));
    assert!(worst.1 < Duration::from_secs(5), "{late:?}");
}

/// The answer of an API whose store has forgotten how to go on (410).
#[test]
#[ignore = "needs kube-apiserver, kubectl and etcd in PATH: scripts/try-cluster runs it"]
fn a_forgotten_history_is_listed_anew() {
    // Without its cache, the API asks its store.
    let api = Api::start(&["--watch-cache=false"]);
    api.create(&[namespace("shop"), ready("shop", "first")]);
    let site = Site::new(&api.kubeconfig(&api.certificate("admin")));
    let watch = site.watch(&["-n", "shop"]);
    assert_eq!(names(&watch.next("the first line")), ["first"]);
    let mut theirs = api.curl("/api/v1/namespaces/shop/pods?watch=1&resourceVersion=1");
    // The history is forgotten while the API cannot follow it.
    api.signal(Signal::STOP);
    api.forget();
    api.kill_etcd();
    api.start_etcd();
    api.signal(Signal::CONT);
    let line = watch.next("a list");
    assert_eq!(names(&line), ["first"], "{line}");
    let said = String::from_utf8(theirs.output().unwrap().stdout).unwrap();
    assert!(said.contains("410"), "{said}");
    api.create(&[ready("shop", "second")]);
    watch.until("a pod", |line| line["pod"]["name"] == "second" && line["pod"]["status"] == "Running");
}

/// A user sees what the cluster lets that user see, and is told the rest in the cluster's words.
#[test]
#[ignore = "needs kube-apiserver, kubectl and etcd in PATH: scripts/try-cluster runs it"]
fn each_kind_of_user_is_known() {
    let api = Api::start(&[]);
    api.create(&[namespace("shop"), ready("shop", "web-0")]);
    api.create(&[json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "node-01"}})]);
    api.kubectl(&["create", "serviceaccount", "viewer", "-n", "shop"]);
    api.kubectl(&["create", "role", "view", "-n", "shop", "--verb=get,list,watch", "--resource=pods"]);
    api.kubectl(&["create", "rolebinding", "view", "-n", "shop", "--role=view", "--serviceaccount=shop:viewer"]);
    let account = "--as=system:serviceaccount:shop:viewer";
    eventually("the role counts", || api.says(&["auth", "can-i", "list", "pods", "-n", "shop", account]) == "yes\n");
    let token = json!({"token": api.kubectl(&["create", "token", "viewer", "-n", "shop"])});
    let site = Site::new(&api.kubeconfig(&token));
    let list =
        |args: &[&str]| -> Value { serde_json::from_str(&site.pods(&[args, &["--json"]].concat()).ok()).unwrap() };
    let seen = list(&["-n", "shop"]);
    assert_eq!((names(&seen), &seen["nodes"]), (vec!["web-0"], &json!([])));
    let watch = site.watch(&["-n", "shop"]);
    assert_eq!(names(&watch.next("the first line")), ["web-0"]);
    api.kubectl(&["delete", "pod", "-n", "shop", "web-0", "--force", "--grace-period=0"]);
    watch.until("an end", |line| line["gone"]["name"] == "web-0");
    let mut as_eve = api.certificate("admin");
    as_eve["as"] = "eve".into();
    for (user, args) in [
        (&token, &["-A"][..]),
        (&token, &["-n", "other"]),
        (&api.certificate("eve"), &["-n", "shop"]),
        (&as_eve, &["-A"]),
        (&json!({"token": "wrong"}), &["-A"]),
    ] {
        let kubeconfig = api.kubeconfig(user);
        site.place(&kubeconfig);
        let ours = site.pods(args).failed(6);
        let theirs = api.complaint(&kubeconfig, &[&["get", "pods"], args].concat());
        let words = theirs.trim_end().split_once("(Forbidden): ").map_or("Unauthorized", |(_, words)| words);
        assert!(ours.ends_with(&format!(": {words}\n")) && theirs.contains(words), "{ours}{theirs}");
        say(ours.trim_end());
    }
    site.place(&api.kubeconfig(&api.certificate("admin")));
    assert_eq!(list(&["-A"])["nodes"], json!([{"name": "node-01", "ready": false}]));
}

/// The pods of a Deployment, a StatefulSet and a DaemonSet are made by the real controllers; the containers are real, too.
#[test]
#[ignore = "needs kube-apiserver, kube-controller-manager, kubectl and etcd in PATH: scripts/try-cluster runs it"]
fn what_makes_pods_leads_to_its_one_ready_pod() {
    let Some(engine) = Engine::cri() else { return };
    let api = Api::start(&[]);
    let site = containers::Site::new(engine, "builtin");
    place(&site.world, &site.play, &api.kubeconfig(&api.certificate("admin")));
    let ready = json!({"conditions": [{"type": "Ready", "status": "True"}]});
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": MACHINE}, "status": ready});
    api.create(&[namespace("shop"), node]);
    // The controller of nodes does this for one that is ready.
    api.kubectl(&["taint", "node", MACHINE, "node.kubernetes.io/not-ready-"]);
    let of = |kind: &str, name: &str, replicas: Option<u8>| {
        let template = json!({
            "metadata": {"labels": {"is": name}, "annotations": {"kubectl.kubernetes.io/default-container": "app"}},
            "spec": {"containers": [{"name": "log", "image": "log:1"}, {"name": "app", "image": "app:1"}]},
        });
        let mut spec = json!({"selector": {"matchLabels": {"is": name}}, "template": template});
        if let Some(replicas) = replicas {
            spec["replicas"] = replicas.into();
        }
        json!({"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": name, "namespace": "shop"}, "spec": spec})
    };
    let _controllers = api.controllers();
    api.create(&[of("Deployment", "web", Some(2)), of("StatefulSet", "db", Some(1)), of("DaemonSet", "agent", None)]);
    let made = || api.json(&["get", "pods", "-n", "shop"])["items"].as_array().unwrap().clone();
    eventually("the controllers have made the pods", || made().len() == 4);
    let run = |name: &str| engine.run(name, &["--network", "none"], SCRATCH, &[]);
    // The node starts them: each has one container of its own, and one that is not meant.
    let start = |pod: &Value, app: &Container, look: Option<&Container>| {
        let name = pod["metadata"]["name"].as_str().unwrap();
        let there = || api.json(&["get", "pod", "-n", "shop", name]);
        if there()["spec"]["nodeName"].is_null() {
            api.bind("shop", name, MACHINE);
        }
        let seen = |name: &str, container: &Container| {
            json!({
                "name": name, "image": "", "imageID": "", "containerID": format!("containerd://{}", container.id),
                "ready": true, "started": true, "restartCount": 0, "state": {"running": {}},
            })
        };
        let mut pod = there();
        pod["metadata"]["resourceVersion"] = Value::Null;
        let status = &mut pod["status"];
        status["phase"] = "Running".into();
        status["conditions"] = json!([{"type": "Ready", "status": "True"}]);
        status["containerStatuses"] = json!([seen("app", app)]);
        status["ephemeralContainerStatuses"] = look.map(|look| json!([seen("look", look)])).into();
        api.see(&[pod]);
    };
    let pods = made();
    let mut seen: Vec<(&str, Container, &Value)> = Vec::new();
    for pod in &pods {
        let kind = pod["metadata"]["labels"]["is"].as_str().unwrap();
        // The other pod of the Deployment is not ready.
        if seen.iter().all(|(seen, ..)| *seen != kind) {
            seen.push((kind, run(kind), pod));
        }
    }
    let mounts = ["/app", "show", "/proc/self/mountinfo"];
    let is_in = |name: &str, container: &Container| {
        let host = format!("{}.pod.shop.{name}", site.playground());
        let theirs = String::from_utf8(container.exec(&[], &mounts).stdout).unwrap();
        assert_eq!(site.ssh(&[&[host.as_str()], &mounts[..]].concat()).ok(), theirs, "{name}");
    };
    for (kind, app, pod) in &seen {
        start(pod, app, None);
        is_in(kind, app);
    }
    // Another pod takes the place of one, under the same name.
    let (_, app, pod) = &seen[seen.iter().position(|(kind, ..)| *kind == "web").unwrap()];
    let before = pod["metadata"]["name"].as_str().unwrap();
    api.kubectl(&["delete", "pod", "-n", "shop", before, "--force", "--grace-period=0"]);
    eventually("the controller has made another", || made().len() == 4);
    let next = made().into_iter().find(|pod| pod["metadata"]["labels"]["is"] == "web").unwrap();
    let _other = run("other");
    start(&next, app, None);
    is_in("web", app);
    // kubectl's own debug session is a host, too.
    api.kubectl(&["debug", "-n", "shop", "db-0", "-c", "look", "--image=busybox", "--target=app", "--profile=general"]);
    let (_, app, pod) = &seen[seen.iter().position(|(kind, ..)| *kind == "db").unwrap()];
    let look = run("look");
    start(pod, app, Some(&look));
    is_in("db-0.look", &look);
    let said = site.world.run(&["--local", "pods", &site.play, "-n", "shop", "--json"]).ok();
    let value: Value = serde_json::from_str(&said).unwrap();
    let owners: BTreeMap<_, _> = value["pods"]
        .as_array()
        .unwrap()
        .iter()
        .map(|pod| (pod["owner"]["name"].as_str().unwrap(), pod["owner"]["kind"].as_str().unwrap()))
        .collect();
    assert_eq!(owners, BTreeMap::from([("agent", "DaemonSet"), ("db", "StatefulSet"), ("web", "Deployment")]));
}

/// A pod as charts make them, with all that a person would not read.
fn large(name: &str) -> Value {
    let mut pod = ready("many", name);
    let variables: Vec<Value> =
        (0..20).map(|n| json!({"name": format!("VARIABLE_{n}"), "value": "x".repeat(60)})).collect();
    let probe = json!({"httpGet": {"path": "/healthz", "port": 8080}, "periodSeconds": 5});
    let container = &mut pod["spec"]["containers"][0];
    container["env"] = variables.into();
    container["livenessProbe"] = probe.clone();
    container["readinessProbe"] = probe;
    container["ports"] = json!([{"containerPort": 8080, "name": "http"}]);
    container["volumeMounts"] = json!([{"name": "data", "mountPath": "/data"}]);
    pod["spec"]["volumes"] = json!([{"name": "data", "emptyDir": {}}]);
    pod["metadata"]["annotations"] = json!({"example.com/checksum": "0".repeat(512)});
    pod["metadata"]["labels"] = json!({"app.kubernetes.io/name": "many", "app.kubernetes.io/instance": name});
    pod
}

/// A large cluster: the time that we take for its list beside the API's own, and our memory.
#[test]
#[ignore = "needs kube-apiserver, kubectl and etcd in PATH, and a program that is optimized: scripts/try-cluster runs it"]
fn figures_of_a_large_cluster() {
    let api = Api::start(&[]);
    api.create(&[namespace("many"), namespace("none")]);
    let site = Site::new(&api.kubeconfig(&api.certificate("admin")));
    let measured = |args: &[&str]| -> (f64, f64) {
        let words = site.world.command(&[&["--local", "pods", &site.play, "--json"], args].concat());
        let mut python = site.world.program(needs("python3"));
        let said = site.world.output(python.args(["-c", MEASURE]).arg(words.get_program()).args(words.get_args())).ok();
        let (seconds, memory) = said.trim().split_once(' ').unwrap();
        (seconds.parse().unwrap(), memory.parse::<f64>().unwrap() / 1024.0)
    };
    // The same parts of the list, each over a connection that stands already, and their bytes.
    let theirs = || -> (f64, usize) {
        let (mut seconds, mut bytes, mut next) = (0.0, 0, String::new());
        loop {
            let mut curl = api.curl(&format!("/api/v1/namespaces/many/pods?limit=500&continue={next}"));
            let said = curl.args(["-w", "\n%{time_total} %{time_appconnect}"]).output().unwrap().stdout;
            let said = String::from_utf8(said).unwrap();
            let (body, times) = said.rsplit_once('\n').unwrap();
            let (total, connected) = times.split_once(' ').unwrap();
            seconds += total.parse::<f64>().unwrap() - connected.parse::<f64>().unwrap();
            bytes += body.len();
            let list: Value = serde_json::from_str(body).unwrap();
            match list["metadata"]["continue"].as_str() {
                Some(more) if !more.is_empty() => more.clone_into(&mut next),
                _ => return (seconds, bytes),
            }
        }
    };
    let mut made = 0;
    for count in [1000, 5000] {
        let pods: Vec<Value> = (made..count).map(|n| large(&format!("pod-{n}"))).collect();
        pods.chunks(500).for_each(|some| api.create(some));
        made = count;
        let best = |times: [f64; 3]| times.into_iter().fold(f64::INFINITY, f64::min);
        let ((api_alone, bytes), nothing) = (theirs(), [(); 3].map(|()| measured(&["-n", "none"])));
        let (nothing, small) = (best(nothing.map(|(seconds, _)| seconds)), nothing[0].1);
        let api_alone = api_alone.min(theirs().0);
        let ours = [(); 3].map(|()| measured(&["-n", "many"]));
        let (seconds, memory) = (best(ours.map(|(seconds, _)| seconds)), ours[0].1);
        let more = seconds - nothing - api_alone;
        say(&format!(
            "{count} pods, {:.1} MiB of JSON: {:.0} ms by curl alone; {:.0} ms with us, of which {:.0} ms are for an empty \
             list; so {:.0} ms more than the API takes; {memory:.1} MiB at most, {small:.1} MiB for none",
            bytes as f64 / 1_048_576.0,
            api_alone * 1e3,
            seconds * 1e3,
            nothing * 1e3,
            more * 1e3,
        ));
        // A program for debugging is slower, and larger.
        let is_optimized = site.world.command(&[]).get_program() != PROGRAM;
        assert!(count > 1000 || !is_optimized || (more < 0.3 && memory < 40.0), "{more} s, {memory} MiB");
    }
}

/// The ephemeral container that `debug` adds is kubectl's own, but for what it has for a reason, and the API accepts each
/// form of it.
#[test]
#[ignore = "needs kube-apiserver, kubectl and etcd in PATH: scripts/try-cluster runs it"]
fn an_ephemeral_container_is_one_of_kubectl() {
    let api = Api::start(&[]);
    let mut strict = ready("shop", "strict");
    strict["spec"]["securityContext"] = json!({"runAsNonRoot": true});
    strict["spec"]["volumes"] = json!([{"name": "data", "emptyDir": {}}]);
    strict["spec"]["containers"][0]["volumeMounts"] =
        json!([{"name": "data", "mountPath": "/data"}, {"name": "data", "mountPath": "/part", "subPath": "a"}]);
    api.create(&[namespace("shop"), ready("shop", "web"), strict]);
    let site = Site::new(&api.kubeconfig(&api.certificate("admin")));
    let added = |pod: &str| {
        let pod = api.json(&["get", "pod", "-n", "shop", pod]);
        pod["spec"]["ephemeralContainers"].as_array().cloned().unwrap_or_default()
    };
    // No node starts it, so it is waited for until the API has it.
    let adds = |pod: &str, args: &[&str]| {
        let before = added(pod);
        let new = || added(pod).into_iter().find(|one| !before.contains(one));
        let name = format!("shop/{pod}");
        let words = ["--local", "debug", &site.play, "--pod", &name, "--ephemeral", "busybox:musl"];
        let log = site.world.path("log");
        let mut debug = site.world.command(&[&words[..], args, &["--", "sleep", "1"]].concat());
        let debug = debug.stdout(Stdio::null()).stderr(fs::File::create(&log).unwrap()).spawn().unwrap();
        let mut debug = Ending(debug);
        eventually("the container is added", || {
            let ended = debug.0.try_wait().unwrap();
            assert!(ended.is_none(), "{}", fs::read_to_string(&log).unwrap());
            new().is_some()
        });
        new().unwrap()
    };
    let mut ours = adds("web", &[]);
    let debug =
        ["debug", "-n", "shop", "web", "-c", "theirs", "--image=busybox:musl", "--target=app", "--profile=legacy"];
    // It waits for a node, too, unless it has no terminal to attach.
    api.kubectl(&[&debug[..], &["--stdin", "--attach=false", "--", "sleep", "1"]].concat());
    let theirs = added("web").into_iter().find(|one| one["name"] == "theirs").unwrap();
    assert_eq!(ours["stdinOnce"].take(), true);
    assert_eq!(ours["securityContext"].take(), json!({}));
    ours["name"] = "theirs".into();
    ours.as_object_mut().unwrap().retain(|_, value| !value.is_null());
    assert_eq!(ours, theirs);
    // cdebug's rules for a pod that forbids root.
    let ours = adds("strict", &[]);
    assert_eq!(ours["securityContext"], json!({"runAsNonRoot": true, "runAsUser": 1000, "runAsGroup": 1000}));
    assert_eq!(ours["volumeMounts"], json!([{"name": "data", "mountPath": "/data"}]));
    let ours = adds("strict", &["--user", "0", "--privileged"]);
    assert_eq!(ours["securityContext"]["privileged"], true);
    for form in [
        ["--override-type=merge", r#"{"env":[{"name":"A","value":"b"}]}"#],
        ["--override-type=strategic", r#"{"env":[{"name":"A","value":"b"}]}"#],
        ["--override-type=json", r#"[{"op":"add","path":"/env","value":[{"name":"A","value":"b"}]}]"#],
    ] {
        let ours = adds("web", &[form[0], "--override", form[1]]);
        assert_eq!(ours["env"], json!([{"name": "A", "value": "b"}]), "{form:?}");
    }
}
