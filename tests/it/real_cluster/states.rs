//! Pods in each state that `printPod` of Kubernetes 1.34 tells apart.

use serde_json::{Value, json};

/// The namespace of all.
pub const NAMESPACE: &str = "states";
/// The node of those that have one.
const NODE: &str = "node-01";

/// A pod in a state.
pub struct State {
    pub pod: Value,
    /// It is deleted after it was seen so.
    pub is_deleted: bool,
}

/// A pod of the containers in these statuses: init containers, and regular ones.
fn state(name: &str, phase: &str, init: &[Value], regular: &[Value]) -> State {
    let wanted = |seen: &Value| json!({"name": seen["name"], "image": "app:1", "restartPolicy": seen["policy"]});
    let seen = |all: &[Value]| -> Vec<Value> {
        let without = |one: &Value| {
            let mut one = one.clone();
            one.as_object_mut().unwrap().remove("policy");
            one
        };
        all.iter().filter(|one| one["state"].is_object()).map(without).collect()
    };
    let containers = match regular {
        [] => vec![json!({"name": "app", "image": "app:1"})],
        regular => regular.iter().map(wanted).collect(),
    };
    let init_containers: Vec<Value> = init.iter().map(wanted).collect();
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {"nodeName": NODE, "containers": containers, "initContainers": init_containers},
        "status": {
            "phase": phase, "qosClass": "BestEffort", "initContainerStatuses": seen(init),
            "containerStatuses": seen(regular),
        },
    });
    State { pod, is_deleted: false }
}

impl State {
    fn with(mut self, path: &str, value: Value) -> State {
        let (part, field) = path.split_once('.').unwrap();
        self.pod[part][field] = value;
        self
    }

    fn condition(self, name: &str, status: &str) -> State {
        self.with("status.conditions", json!([{"type": name, "status": status}]))
    }

    fn deleted(self) -> State {
        State { is_deleted: true, ..self }
    }
}

/// A container's status.
fn seen(name: &str, state: Value, ready: bool, started: bool, restarts: i32) -> Value {
    json!({
        "name": name, "image": "app:1", "imageID": "", "state": state, "ready": ready, "started": started,
        "restartCount": restarts,
    })
}

fn waits(name: &str, reason: &str) -> Value {
    seen(name, json!({"waiting": {"reason": reason}}), false, false, 0)
}

fn runs(name: &str) -> Value {
    seen(name, json!({"running": {}}), true, true, 0)
}

fn ended(name: &str, how: Value) -> Value {
    seen(name, json!({ "terminated": how }), false, false, 0)
}

fn restarted(mut one: Value, times: i32) -> Value {
    one["restartCount"] = times.into();
    one["lastState"] = json!({"terminated": {"exitCode": 1, "finishedAt": "2026-11-30T06:00:00Z"}});
    one
}

fn sidecar(mut one: Value) -> Value {
    one["policy"] = "Always".into();
    one
}

fn not_ready(mut one: Value) -> Value {
    one["ready"] = false.into();
    one
}

fn not_started(mut one: Value) -> Value {
    one["started"] = false.into();
    not_ready(one)
}

/// The pods.
pub fn all() -> Vec<State> {
    let done = || ended("init", json!({"exitCode": 0, "reason": "Completed"}));
    let error = |name| ended(name, json!({"exitCode": 1, "reason": "Error"}));
    let nothing = |name| seen(name, json!({}), false, false, 0);
    let never = |state: State| state.with("spec.restartPolicy", "Never".into());
    vec![
        state("pending", "Pending", &[], &[]).with("spec.nodeName", Value::Null),
        // The API itself says so, with the first condition.
        state("gated", "", &[], &[])
            .with("spec.nodeName", Value::Null)
            .with("spec.schedulingGates", json!([{"name": "example.com/wait"}]))
            .with(
                "status.conditions",
                json!([{"type": "PodScheduled", "status": "False", "reason": "SchedulingGated"}]),
            ),
        state("creating", "Pending", &[], &[waits("app", "ContainerCreating")]),
        state("pull-error", "Pending", &[], &[waits("app", "ErrImagePull")]),
        state("pull-back-off", "Pending", &[], &[waits("app", "ImagePullBackOff")]),
        state("config-error", "Pending", &[], &[waits("app", "CreateContainerConfigError")]),
        state("waiting", "Pending", &[], &[waits("app", "")]),
        state("nothing-said", "Pending", &[], &[nothing("app")]),
        state("crash", "Running", &[], &[restarted(waits("app", "CrashLoopBackOff"), 5)]),
        state("running", "Running", &[], &[runs("app")]).condition("Ready", "True"),
        state("restarted", "Running", &[], &[restarted(runs("app"), 1), runs("log")]),
        state("not-ready", "Running", &[], &[not_ready(runs("app")), runs("log")]),
        state("not-started", "Running", &[], &[not_started(runs("app"))]),
        state("two-reasons", "Pending", &[], &[waits("a", "ErrImagePull"), waits("b", "ContainerCreating")]),
        never(state("completed", "Succeeded", &[], &[ended("app", json!({"exitCode": 0, "reason": "Completed"}))])),
        never(state("error", "Failed", &[], &[error("app")])),
        state("out-of-memory", "Running", &[], &[ended("app", json!({"exitCode": 137, "reason": "OOMKilled"}))]),
        never(state("exit-code", "Failed", &[], &[ended("app", json!({"exitCode": 3}))])),
        never(state("signal", "Failed", &[], &[ended("app", json!({"exitCode": 137, "signal": 9}))])),
        state(
            "status-unknown",
            "Failed",
            &[],
            &[ended("app", json!({"exitCode": 137, "reason": "ContainerStatusUnknown"}))],
        ),
        state("evicted", "Failed", &[], &[])
            .with("status.reason", "Evicted".into())
            .with("status.message", "The node was low on resource: memory.".into()),
        state("too-late", "Failed", &[], &[error("app")]).with("status.reason", "DeadlineExceeded".into()),
        state("not-admitted", "Failed", &[], &[]).with("status.reason", "NodeAffinity".into()),
        state("half-done", "Running", &[], &[ended("a", json!({"exitCode": 0, "reason": "Completed"})), runs("b")])
            .condition("Ready", "True"),
        state("half-ready", "Running", &[], &[ended("a", json!({"exitCode": 0, "reason": "Completed"})), runs("b")])
            .condition("Ready", "False"),
        state(
            "init-first",
            "Pending",
            &[runs("init"), waits("next", "PodInitializing")],
            &[waits("app", "PodInitializing")],
        ),
        state("init-next", "Pending", &[done(), not_ready(runs("next"))], &[waits("app", "PodInitializing")]),
        state("init-done", "Pending", &[done()], &[waits("app", "PodInitializing")]),
        state(
            "init-crash",
            "Pending",
            &[restarted(waits("init", "CrashLoopBackOff"), 4)],
            &[waits("app", "PodInitializing")],
        ),
        state("init-pull", "Pending", &[waits("init", "ImagePullBackOff")], &[waits("app", "PodInitializing")]),
        state("init-error", "Pending", &[error("init")], &[waits("app", "PodInitializing")]),
        state(
            "init-exit-code",
            "Pending",
            &[ended("init", json!({"exitCode": 2}))],
            &[waits("app", "PodInitializing")],
        ),
        state("init-signal", "Pending", &[ended("init", json!({"exitCode": 1, "signal": 6}))], &[]),
        state("init-restarted", "Running", &[restarted(done(), 3)], &[restarted(runs("app"), 2)]),
        // A sandbox that was made anew: it initializes again, and has been initialized.
        state("init-again", "Running", &[runs("init")], &[runs("app")]).condition("Initialized", "True"),
        state("sidecar-starts", "Pending", &[sidecar(not_started(runs("proxy")))], &[waits("app", "PodInitializing")]),
        state("sidecar", "Running", &[sidecar(runs("proxy")), done()], &[runs("app")]).condition("Ready", "True"),
        state("sidecar-not-ready", "Running", &[sidecar(not_ready(runs("proxy")))], &[runs("app")]),
        state("sidecar-restarted", "Running", &[sidecar(restarted(runs("proxy"), 2))], &[restarted(runs("app"), 3)]),
        state("sidecar-crash", "Pending", &[sidecar(waits("proxy", "CrashLoopBackOff"))], &[]),
        state("many-restarts", "Running", &[], &["a", "b", "c"].map(|name| restarted(runs(name), i32::MAX))),
        state("no-restarts", "Running", &[], &[restarted(runs("app"), -1)]),
        state("unknown", "Unknown", &[], &[runs("app")]),
        state("gate-of-readiness", "Running", &[], &[runs("app")])
            .with("spec.readinessGates", json!([{"conditionType": "example.com/in"}])),
        state("terminating", "Running", &[], &[runs("app")]).deleted(),
        state("terminating-crash", "Running", &[], &[waits("app", "CrashLoopBackOff")]).deleted(),
        state("node-lost", "Running", &[], &[runs("app")]).with("status.reason", "NodeLost".into()).deleted(),
        never(state(
            "completed-stays",
            "Succeeded",
            &[],
            &[ended("app", json!({"exitCode": 0, "reason": "Completed"}))],
        ))
        .with("metadata.finalizers", json!(["example.com/stays"]))
        .deleted(),
    ]
}
