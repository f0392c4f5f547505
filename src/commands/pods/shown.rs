//! A cluster for programs, and for people.

use serde::Serialize;

use super::cluster::Cluster;
use crate::{
    cluster::{
        api::Api,
        find::labels,
        pods::{Container, Node, Pod, Role},
    },
    error::printable,
    target::{Inside, Target},
    ui::out::{self, Expendable},
};

/// The host names of a play, and whether namespaces are shown.
pub(super) struct Hosts {
    pub(super) play: String,
    pub(super) has_namespaces: bool,
}

/// A cluster in JSON.
#[derive(Serialize)]
pub(super) struct Printed<'a> {
    nodes: Vec<PrintedNode<'a>>,
    pods: Vec<PrintedPod<'a>>,
}

#[derive(Serialize)]
pub(super) struct PrintedNode<'a> {
    name: &'a str,
    ready: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PrintedPod<'a> {
    namespace: &'a str,
    name: &'a str,
    host: String,
    node: &'a str,
    owner: Option<PrintedOwner<'a>>,
    status: String,
    message: &'a str,
    failing: bool,
    ready: usize,
    total: usize,
    restarts: i64,
    since: &'a str,
    containers: Vec<PrintedContainer>,
}

#[derive(Serialize)]
struct PrintedOwner<'a> {
    kind: &'a str,
    name: &'a str,
}

#[derive(Serialize)]
struct PrintedContainer {
    host: String,
    running: bool,
    failing: bool,
    #[serde(flatten)]
    container: Container,
}

impl Hosts {
    /// The namespace to list; `None` means all.
    pub(super) fn namespace<'a>(&self, named: Option<&'a str>, api: &'a Api) -> Option<&'a str> {
        (!self.has_namespaces).then(|| named.unwrap_or(api.namespace()))
    }

    /// The host name of a pod, or of a container of it. Empty where a name makes no label.
    fn of(&self, pod: &Pod, container: Option<&str>) -> String {
        let inside = labels(pod, container).map(Inside::Pod);
        inside
            .map(|inside| Target { inside: Some(inside), ..Target::of_play(&self.play, None) }.to_string())
            .unwrap_or_default()
    }

    pub(super) fn printed<'a>(&self, cluster: &'a Cluster) -> Printed<'a> {
        let pods = cluster.sorted().into_iter().map(|pod| self.printed_pod(cluster, pod)).collect();
        Printed { nodes: printed_nodes(cluster), pods }
    }

    pub(super) fn printed_pod<'a>(&self, cluster: &'a Cluster, pod: &'a Pod) -> PrintedPod<'a> {
        let (ready, total) = pod.ready();
        let containers = pod.containers().into_iter().map(|container| PrintedContainer {
            host: self.of(pod, Some(&container.name)),
            running: container.runs(),
            failing: container.is_failing(),
            container,
        });
        PrintedPod {
            namespace: &pod.metadata.namespace,
            name: &pod.metadata.name,
            host: self.of(pod, None),
            node: pod.node(),
            owner: cluster.owner(pod).map(|owner| PrintedOwner { kind: &owner.kind, name: &owner.name }),
            status: pod.word(),
            message: pod.message(),
            failing: pod.is_failing(),
            ready,
            total,
            restarts: pod.restarts(),
            since: pod.since(),
            containers: containers.collect(),
        }
    }

    /// The lines of the table, and how to go inside.
    pub(super) fn lines(&self, cluster: &Cluster) -> Vec<String> {
        let pods = cluster.sorted();
        if pods.is_empty() {
            return vec![match self.has_namespaces {
                true => "There are no pods.".to_owned(),
                false => "There are no pods in this namespace. With -A, those of all are listed.".to_owned(),
            }];
        }
        type Column = (&'static str, bool, fn(&Pod) -> String);
        let columns: [Column; 7] = [
            ("NAME", true, |pod| printable(&pod.metadata.name)),
            ("NAMESPACE", self.has_namespaces, |pod| printable(&pod.metadata.namespace)),
            ("READY", true, |pod| {
                let (ready, total) = pod.ready();
                format!("{ready}/{total}")
            }),
            ("STATUS", true, |pod| printable(&pod.word())),
            ("RESTARTS", true, |pod| pod.restarts().to_string()),
            ("NODE", true, |pod| printable(pod.node())),
            ("CONTAINERS", true, |pod| {
                printable(&pod.containers().iter().map(in_words).collect::<Vec<_>>().join(", "))
            }),
        ];
        let columns: Vec<_> = columns.into_iter().filter(|(_, is_shown, _)| *is_shown).collect();
        let head: Vec<&str> = columns.iter().map(|(name, ..)| *name).collect();
        let rows = pods.iter().map(|pod| columns.iter().map(|(.., cell)| cell(pod)).collect()).collect();
        let expendable = Expendable { early: &[], late: &["CONTAINERS", "NODE", "RESTARTS"] };
        let mut lines = out::table_lines(&head, rows, &expendable);
        let enters = |pod: &&&Pod| pod.is_ready() && !self.of(pod, None).is_empty();
        if let Some(example) = pods.iter().find(enters) {
            lines.extend([
                String::new(),
                format!("To go inside, for example into {}:", printable(&example.metadata.name)),
                format!("  ssh {}", self.of(example, None)),
            ]);
        }
        lines
    }
}

pub(super) fn printed_nodes(cluster: &Cluster) -> Vec<PrintedNode<'_>> {
    let printed = |node| {
        let node: &Node = node;
        PrintedNode { name: &node.metadata.name, ready: node.is_ready() }
    };
    cluster.nodes.values().map(printed).collect()
}

/// A container's name, with what is not usual about it.
fn in_words(container: &Container) -> String {
    let role = match (container.role, &container.target) {
        (Role::Regular, _) => None,
        (Role::Init, _) => Some("init".to_owned()),
        (Role::Sidecar, _) => Some("sidecar".to_owned()),
        (Role::Ephemeral, None) => Some("ephemeral".to_owned()),
        (Role::Ephemeral, Some(target)) => Some(format!("ephemeral, debugs {target}")),
    };
    let is_told = if container.role == Role::Init { container.is_failing() } else { !container.runs() };
    let state = is_told.then(|| match container.reason.as_str() {
        "" => container.title.to_lowercase(),
        reason => reason.to_owned(),
    });
    let words: Vec<String> = role.into_iter().chain(state).collect();
    if words.is_empty() { container.name.clone() } else { format!("{} ({})", container.name, words.join(", ")) }
}
