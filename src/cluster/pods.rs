//! Pods and their containers, as far as one needs them to see and to enter them. Pure.
//!
//! The states of a container and their titles are those of k'exp (`reprContainerStatus`), and a pod's one word is that of
//! `kubectl get pods` (`printPod` of Kubernetes 1.34). All texts are foreign.

use serde::{Deserialize, Deserializer, Serialize};

/// The reasons of a container that waits and is well.
const WELL: [&str; 3] = ["", "ContainerCreating", "PodInitializing"];

/// A part of a list.
#[derive(Debug, Deserialize)]
#[serde(bound = "T: Deserialize<'de>")]
pub(crate) struct List<T> {
    /// The list's own data.
    #[serde(default)]
    pub(crate) metadata: ListMeta,
    /// The objects.
    #[serde(default = "Vec::new", deserialize_with = "or_default")]
    pub(crate) items: Vec<T>,
}

/// The metadata of a list.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct ListMeta {
    /// The version of all its objects.
    #[serde(deserialize_with = "or_default")]
    pub(crate) resource_version: String,
    /// The beginning of the next part, which is empty at the end.
    #[serde(rename = "continue", deserialize_with = "or_default")]
    pub(crate) next: String,
}

/// A node of the cluster.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Node {
    /// Its metadata.
    pub(crate) metadata: Metadata,
    #[serde(deserialize_with = "or_default")]
    status: Status,
}

impl Node {
    /// True if it is well.
    pub(crate) fn is_ready(&self) -> bool {
        self.status.has("Ready")
    }
}

/// An object of which only its metadata matter.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Object {
    /// Those.
    pub(crate) metadata: Metadata,
}

/// The metadata of an object.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Metadata {
    /// Its name.
    #[serde(deserialize_with = "or_default")]
    pub(crate) name: String,
    /// Its namespace.
    #[serde(deserialize_with = "or_default")]
    pub(crate) namespace: String,
    /// The version that it was seen in.
    #[serde(deserialize_with = "or_default")]
    pub(crate) resource_version: String,
    /// The time since which it is being deleted.
    pub(crate) deletion_timestamp: Option<String>,
    #[serde(deserialize_with = "or_default")]
    annotations: Annotations,
    #[serde(deserialize_with = "or_default")]
    owner_references: Vec<Owner>,
}

/// The one annotation that matters: others may be as large as a whole manifest.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Annotations {
    /// The container that is meant where none is named.
    #[serde(rename = "kubectl.kubernetes.io/default-container")]
    default_container: Option<String>,
}

/// The owner of an object.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Owner {
    /// Its kind.
    pub(crate) kind: String,
    /// Its name.
    pub(crate) name: String,
    controller: Option<bool>,
}

impl Metadata {
    /// The one owner that makes it.
    pub(crate) fn controller(&self) -> Option<&Owner> {
        self.owner_references.iter().find(|owner| owner.controller == Some(true))
    }
}

/// A pod.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Pod {
    /// Its metadata.
    pub(crate) metadata: Metadata,
    #[serde(deserialize_with = "or_default")]
    spec: Spec,
    #[serde(deserialize_with = "or_default")]
    status: Status,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Spec {
    #[serde(deserialize_with = "or_default")]
    node_name: String,
    #[serde(deserialize_with = "or_default")]
    containers: Vec<Wanted>,
    #[serde(deserialize_with = "or_default")]
    init_containers: Vec<Wanted>,
    #[serde(deserialize_with = "or_default")]
    ephemeral_containers: Vec<Wanted>,
}

/// A container, as its pod wants it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Wanted {
    name: String,
    #[serde(deserialize_with = "or_default")]
    image: String,
    #[serde(deserialize_with = "or_default")]
    restart_policy: String,
    #[serde(deserialize_with = "or_default")]
    target_container_name: String,
    #[serde(deserialize_with = "or_default")]
    ports: Vec<Port>,
}

/// A port that a container says it listens on.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Port {
    /// Its number.
    #[serde(rename(deserialize = "containerPort", serialize = "port"))]
    pub(crate) port: u16,
    /// `TCP`, `UDP` or `SCTP`.
    #[serde(deserialize_with = "or_default")]
    pub(crate) protocol: String,
    /// Its name.
    #[serde(deserialize_with = "or_default")]
    pub(crate) name: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Status {
    #[serde(deserialize_with = "or_default")]
    phase: String,
    #[serde(deserialize_with = "or_default")]
    reason: String,
    #[serde(deserialize_with = "or_default")]
    message: String,
    #[serde(deserialize_with = "or_default")]
    start_time: String,
    #[serde(deserialize_with = "or_default")]
    conditions: Vec<Condition>,
    container_statuses: Option<Vec<Seen>>,
    init_container_statuses: Option<Vec<Seen>>,
    ephemeral_container_statuses: Option<Vec<Seen>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Condition {
    r#type: String,
    status: String,
    #[serde(deserialize_with = "or_default")]
    reason: String,
    #[serde(deserialize_with = "or_default")]
    message: String,
}

/// A container, as its node has seen it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Seen {
    name: String,
    #[serde(rename = "containerID", deserialize_with = "or_default")]
    container_id: String,
    #[serde(deserialize_with = "or_default")]
    state: Happening,
    ready: bool,
    started: Option<bool>,
    restart_count: i32,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Happening {
    waiting: Option<Waiting>,
    running: Option<Running>,
    terminated: Option<Terminated>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Waiting {
    #[serde(deserialize_with = "or_default")]
    reason: String,
    #[serde(deserialize_with = "or_default")]
    message: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Running {
    #[serde(deserialize_with = "or_default")]
    started_at: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Terminated {
    exit_code: i32,
    signal: i32,
    #[serde(deserialize_with = "or_default")]
    reason: String,
    #[serde(deserialize_with = "or_default")]
    message: String,
    #[serde(deserialize_with = "or_default")]
    finished_at: String,
}

/// Takes null for nothing, as the API's own clients do.
fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(from: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

/// The part that a container has in its pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Role {
    /// It runs before the regular ones.
    Init,
    /// It starts before the regular ones, and runs beside them.
    Sidecar,
    /// One of those that the pod is for.
    Regular,
    /// It was added to a pod that runs, to look at it.
    Ephemeral,
}

/// The state of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum State {
    /// It does not run yet, or not now.
    Waiting,
    /// It runs, and has not passed its startup probe.
    Starting,
    /// It runs, and is not ready.
    NotReady,
    /// It runs and is ready.
    Ready,
    /// It has ended well.
    TerminatedOk,
    /// It has ended in another way.
    TerminatedKo,
    /// Nothing is known.
    Unknown,
}

/// A container of a pod, for people and programs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Container {
    /// Its name.
    pub(crate) name: String,
    /// Its part.
    pub(crate) role: Role,
    /// Its image.
    pub(crate) image: String,
    /// Its state.
    pub(crate) state: State,
    /// The state in words.
    pub(crate) title: &'static str,
    /// The reason for it, one word.
    pub(crate) reason: String,
    /// More about that.
    pub(crate) message: String,
    /// The exit code of one that has ended.
    pub(crate) exit_code: Option<i32>,
    /// The number of times that it was started again.
    pub(crate) restarts: i32,
    /// The time at which it has started or ended.
    pub(crate) since: String,
    /// The container that an ephemeral one looks at.
    pub(crate) target: Option<String>,
    /// Its ports.
    pub(crate) ports: Vec<Port>,
    /// Its id at the runtime of its node, with the runtime's name in front. Empty before it has one.
    #[serde(skip)]
    pub(crate) id: String,
}

impl Container {
    /// True if it can be entered.
    pub(crate) fn runs(&self) -> bool {
        matches!(self.state, State::Starting | State::NotReady | State::Ready)
    }

    /// True if something is wrong with it.
    pub(crate) fn is_failing(&self) -> bool {
        match self.state {
            State::Waiting => !WELL.contains(&&*self.reason),
            State::TerminatedKo => true,
            _ => false,
        }
    }

    /// Its id at the runtime.
    pub(crate) fn runtime_id(&self) -> Option<&str> {
        let (_, id) = self.id.split_once("://")?;
        Some(id).filter(|id| !id.is_empty())
    }
}

impl Pod {
    /// Its node. Empty before it has one.
    pub(crate) fn node(&self) -> &str {
        &self.spec.node_name
    }

    /// The time at which its node has taken it.
    pub(crate) fn since(&self) -> &str {
        &self.status.start_time
    }

    /// More about its state.
    pub(crate) fn message(&self) -> &str {
        self.unschedulable().map_or(&self.status.message, |condition| &condition.message)
    }

    /// The reason why no node takes it.
    fn unschedulable(&self) -> Option<&Condition> {
        let is_it =
            |one: &&Condition| one.r#type == "PodScheduled" && one.status == "False" && one.reason == "Unschedulable";
        self.status.conditions.iter().find(is_it)
    }

    /// True if it is ready and stays.
    pub(crate) fn is_ready(&self) -> bool {
        self.metadata.deletion_timestamp.is_none() && self.has_condition("Ready")
    }

    /// The reason why no container can start in it any more, or yet.
    pub(crate) fn is_closed(&self) -> Option<&'static str> {
        match self.status.phase.as_str() {
            "Succeeded" | "Failed" => Some("is over"),
            _ if self.metadata.deletion_timestamp.is_some() => Some("is being deleted"),
            _ if self.node().is_empty() => Some("has no node yet"),
            _ => None,
        }
    }

    /// True if it or one of its containers is in trouble.
    pub(crate) fn is_failing(&self) -> bool {
        let in_trouble = |one: &Container| one.role != Role::Ephemeral && one.is_failing();
        match self.status.phase.as_str() {
            "Failed" => true,
            // Sidecars, and what is being deleted, are ended by a signal.
            "Succeeded" => false,
            _ if self.metadata.deletion_timestamp.is_some() => false,
            _ => self.unschedulable().is_some() || self.containers().iter().any(in_trouble),
        }
    }

    /// The number of its containers that are ready, and of those that ought to be.
    pub(crate) fn ready(&self) -> (usize, usize) {
        let (_, ready, _) = self.summary();
        (ready, self.spec.containers.len() + self.spec.init_containers.iter().filter(|one| is_sidecar(one)).count())
    }

    /// The number of times that its containers were started again.
    pub(crate) fn restarts(&self) -> i64 {
        self.summary().2
    }

    /// Its state in one word: kubectl's.
    pub(crate) fn word(&self) -> String {
        self.summary().0
    }

    /// Its containers in the order of their starts.
    pub(crate) fn containers(&self) -> Vec<Container> {
        let Pod { spec, status, .. } = self;
        let init = spec.init_containers.iter().map(|one| {
            let role = if is_sidecar(one) { Role::Sidecar } else { Role::Init };
            described(one, role, status.init_container_statuses.as_deref())
        });
        let regular =
            spec.containers.iter().map(|one| described(one, Role::Regular, status.container_statuses.as_deref()));
        let seen = status.ephemeral_container_statuses.as_deref();
        let ephemeral = spec.ephemeral_containers.iter().map(|one| described(one, Role::Ephemeral, seen));
        init.chain(regular).chain(ephemeral).collect()
    }

    /// The name of the container that is meant where none is named.
    pub(crate) fn default_container(&self) -> Option<&str> {
        let annotated = self.metadata.annotations.default_container.as_deref();
        let exists = |name: &&str| self.spec.containers.iter().any(|one| one.name == **name);
        annotated.filter(exists).or_else(|| self.spec.containers.first().map(|one| &*one.name))
    }

    fn has_condition(&self, name: &str) -> bool {
        self.status.has(name)
    }

    /// The word, the number of ready containers, and the number of restarts, as `printPod` has them.
    fn summary(&self) -> (String, usize, i64) {
        let Pod { metadata, spec, status } = self;
        let mut word = if status.reason.is_empty() { status.phase.clone() } else { status.reason.clone() };
        if status.conditions.iter().any(|one| one.r#type == "PodScheduled" && one.reason == "SchedulingGated") {
            "SchedulingGated".clone_into(&mut word);
        }
        let sidecar = |name: &str| spec.init_containers.iter().any(|one| one.name == name && is_sidecar(one));
        let (mut ready, mut restarts, mut of_sidecars, mut is_initializing) = (0, 0, 0, false);
        let init = status.init_container_statuses.as_deref().unwrap_or_default();
        for (i, one) in init.iter().enumerate() {
            restarts += i64::from(one.restart_count);
            if sidecar(&one.name) {
                of_sidecars += i64::from(one.restart_count);
            }
            match &one.state {
                Happening { terminated: Some(Terminated { exit_code: 0, .. }), .. } => continue,
                _ if sidecar(&one.name) && one.started == Some(true) => {
                    ready += usize::from(one.ready);
                    continue;
                }
                Happening { terminated: Some(ended), .. } => word = format!("Init:{}", ended.word()),
                Happening { waiting: Some(Waiting { reason, .. }), .. }
                    if !reason.is_empty() && reason != "PodInitializing" =>
                {
                    word = format!("Init:{reason}");
                }
                _ => word = format!("Init:{i}/{}", spec.init_containers.len()),
            }
            is_initializing = true;
            break;
        }
        if !is_initializing || self.has_condition("Initialized") {
            restarts = of_sidecars;
            let mut has_running = false;
            for one in status.container_statuses.as_deref().unwrap_or_default().iter().rev() {
                restarts += i64::from(one.restart_count);
                match &one.state {
                    Happening { waiting: Some(Waiting { reason, .. }), .. } if !reason.is_empty() => {
                        word.clone_from(reason);
                    }
                    Happening { terminated: Some(ended), .. } => word = ended.word(),
                    Happening { running: Some(_), .. } if one.ready => {
                        has_running = true;
                        ready += 1;
                    }
                    _ => {}
                }
            }
            if word == "Completed" && has_running {
                word = if self.has_condition("Ready") { "Running" } else { "NotReady" }.to_owned();
            }
        }
        if metadata.deletion_timestamp.is_some() {
            if status.reason == "NodeLost" {
                "Unknown".clone_into(&mut word);
            } else if !matches!(&*status.phase, "Succeeded" | "Failed") {
                "Terminating".clone_into(&mut word);
            }
        }
        (word, ready, restarts)
    }
}

impl Status {
    /// True if this condition holds.
    fn has(&self, condition: &str) -> bool {
        self.conditions.iter().any(|one| one.r#type == condition && one.status == "True")
    }
}

impl Terminated {
    fn word(&self) -> String {
        match self {
            Terminated { reason, .. } if !reason.is_empty() => reason.clone(),
            Terminated { signal: 0, exit_code, .. } => format!("ExitCode:{exit_code}"),
            Terminated { signal, .. } => format!("Signal:{signal}"),
        }
    }
}

fn is_sidecar(one: &Wanted) -> bool {
    one.restart_policy == "Always"
}

fn described(wanted: &Wanted, role: Role, all: Option<&[Seen]>) -> Container {
    let seen = all.and_then(|all| all.iter().find(|seen| seen.name == wanted.name));
    let nothing = Seen::default();
    let Seen { state: Happening { waiting, running, terminated }, ready, started, .. } = seen.unwrap_or(&nothing);
    let text = |text: &str| text.to_owned();
    let (state, title, reason, message) = match (waiting, running, terminated) {
        (Some(waiting), _, _) => (State::Waiting, "Waiting", text(&waiting.reason), text(&waiting.message)),
        (_, Some(_), _) if matches!(role, Role::Init | Role::Ephemeral) => {
            (State::Ready, "Running", text(""), text(""))
        }
        (_, Some(_), _) if *started != Some(true) => {
            (State::Starting, "Starting", text("awaiting startup probe"), text(""))
        }
        (_, Some(_), _) if !ready => (State::NotReady, "Running but not ready", text(""), text("")),
        (_, Some(_), _) => (State::Ready, "Running and ready", text(""), text("")),
        (_, _, Some(ended)) => {
            let (state, title) = match ended.exit_code {
                0 => (State::TerminatedOk, "Terminated successfully"),
                _ => (State::TerminatedKo, "Terminated with error"),
            };
            (state, title, text(&ended.reason), text(&ended.message))
        }
        (None, None, None) => {
            let title = match (all, seen) {
                (None, _) => "No container statuses field",
                (_, None) => "Container status not found",
                (_, Some(_)) => "unknown condition",
            };
            (State::Unknown, title, text(""), text(""))
        }
    };
    let since = running.as_ref().map(|running| &running.started_at);
    let since = since.or(terminated.as_ref().map(|ended| &ended.finished_at)).cloned().unwrap_or_default();
    Container {
        name: wanted.name.clone(),
        role,
        image: wanted.image.clone(),
        state,
        title,
        reason,
        message,
        exit_code: terminated.as_ref().map(|ended| ended.exit_code),
        restarts: seen.map_or(0, |seen| seen.restart_count),
        since,
        target: Some(wanted.target_container_name.clone()).filter(|name| !name.is_empty()),
        ports: wanted.ports.clone(),
        id: seen.map(|seen| seen.container_id.clone()).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// The answers of `reprContainerStatus` itself (ui/src/common/repr.ts of k'exp v0.0.6), which was run over each role,
    /// state, `started` and `ready`.
    const KEXP: &str = include_str!("../../tests/golden/kexp/containers.tsv");

    /// The words for a container are those that k'exp has for it.
    #[test]
    fn states_are_those_of_kexp() {
        let mut rows = 0;
        for row in KEXP.lines().skip(1) {
            let [role, statuses, theirs @ ..] = &row.split('\t').collect::<Vec<_>>()[..] else { panic!("{row}") };
            let (kind, statuses_of) = match *role {
                "ephemeral" => ("ephemeralContainers", "ephemeralContainerStatuses"),
                "regular" => ("containers", "containerStatuses"),
                _ => ("initContainers", "initContainerStatuses"),
            };
            let policy = if *role == "sidecar" { "Always" } else { "" };
            let seen: Value = serde_json::from_str(statuses).unwrap();
            let pod = json!({"spec": {kind: [{"name": "c", "restartPolicy": policy}]}, "status": {statuses_of: seen}});
            let ours = &json!(serde_json::from_value::<Pod>(pod).unwrap().containers())[0];
            assert_eq!(ours["role"], *role);
            let ours = ["state", "title", "reason", "message"].map(|field| ours[field].as_str().unwrap());
            assert_eq!(ours, theirs, "{row}");
            rows += 1;
        }
        assert_eq!(rows, 176);
    }
    /// The API checks no number of restarts: it is any that 32 bits have.
    #[test]
    fn restarts_are_counted_whatever_they_are() {
        let restarts = |counts: &[i64]| {
            let seen: Vec<Value> = counts.iter().map(|n| json!({"name": "c", "restartCount": n})).collect();
            serde_json::from_value::<Pod>(json!({"status": {"containerStatuses": seen}})).unwrap().restarts()
        };
        assert_eq!(restarts(&[2_147_483_647; 3]), 6_442_450_941);
        assert_eq!(restarts(&[-1]), -1);
    }
}
