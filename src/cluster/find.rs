//! From the labels of a host name to a container on a node. Never a guess.

use crate::{
    error::{Error, Kind, Result, printable},
    target::{PodName, is_label},
    ui::nearest::did_you_mean,
};

use super::{
    api::{Api, Failure, JSON, Refused},
    pods::{Container, Object, Pod, Role},
    watch::{All, list},
};

/// Most names that a sentence lists.
const MAX_NAMES: usize = 12;

/// A container that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// The name of its node.
    pub(crate) node: String,
    /// The name of its pod.
    pub(crate) pod: String,
    /// Its name.
    pub(crate) container: String,
    /// Its id at the node's runtime.
    pub(crate) id: String,
}

/// Finds the running container that `name` means.
///
/// # Errors
/// [`Kind::NotFound`] with what there is, [`Kind::Ambiguous`] with those that fit, [`Kind::NotWoken`] for one that does
/// not run, with the reason; and as [`Api::get`].
pub(crate) async fn container(api: &Api, name: &PodName) -> Result<Place> {
    let pod = pod(api, name).await?;
    let container = chosen(&pod, name.container.as_deref(), &api.ssh().login().shown)?;
    let id = container.runtime_id().unwrap_or_default().to_owned();
    Ok(Place { node: pod.node().to_owned(), pod: pod.metadata.name.clone(), container: container.name, id })
}

/// Finds the pod that `name` means: the one of that name, or else the one ready pod of a Deployment, a StatefulSet or a
/// DaemonSet of that name.
///
/// # Errors
/// As [`container`].
pub(crate) async fn pod(api: &Api, name: &PodName) -> Result<Pod> {
    let PodName { namespace, pod, .. } = name;
    match api.get::<Pod>(&format!("/api/v1/namespaces/{namespace}/pods/{pod}"), JSON).await {
        Ok(pod) => return Ok(pod),
        Err(Failure { refused: Some(Refused::NotFound), .. }) => {}
        Err(failure) => return Err(failure.into()),
    }
    let (pods, sets) = tokio::join!(list(api, Some(namespace)), list(api, Some(namespace)));
    // A user who may not look at ReplicaSets still finds the others.
    let sets = sets.unwrap_or_else(|error| {
        log::info!("the ReplicaSets are not known: {}", error.message());
        All::default()
    });
    meant(pods?.into_values().collect(), &sets, name, &api.ssh().login().shown)
}

/// The pod that `name` means, of those in its namespace.
fn meant(pods: Vec<Pod>, sets: &All<Object>, name: &PodName, shown: &str) -> Result<Pod> {
    let PodName { namespace, pod: label, .. } = name;
    let deployment = |set: &str| {
        let set = sets.get(&(namespace.clone(), set.to_owned()))?;
        set.metadata.controller().filter(|owner| owner.kind == "Deployment").map(|owner| &owner.name)
    };
    let is_named = |name: &str| as_label(name) == *label;
    let is_owned = |pod: &Pod| {
        pod.metadata.controller().is_some_and(|owner| match owner.kind.as_str() {
            "ReplicaSet" => deployment(&owner.name).is_some_and(|name| is_named(name)),
            "StatefulSet" | "DaemonSet" => is_named(&owner.name),
            _ => false,
        })
    };
    let (named, others): (Vec<Pod>, Vec<Pod>) = pods.into_iter().partition(|pod| is_named(&pod.metadata.name));
    if !named.is_empty() {
        return one(named, label, shown);
    }
    let names: Vec<String> = others.iter().map(|pod| printable(&pod.metadata.name)).collect();
    let owned: Vec<Pod> = others.into_iter().filter(is_owned).collect();
    if owned.is_empty() {
        let hint = match names.len() {
            0 => format!("namespace {namespace} has no pods; list all with `labctl-ssh-proxy pods -A`"),
            _ => format!(
                "{}namespace {namespace} has {}",
                did_you_mean(label, names.iter().map(String::as_str)),
                listed(&names)
            ),
        };
        let message = format!(
            "playground {shown} has no pod `{label}` in namespace {namespace}, and no Deployment, StatefulSet or \
             DaemonSet of that name with pods"
        );
        return Err(Error::new(Kind::NotFound, message).with_hint(hint));
    }
    let states: Vec<String> =
        owned.iter().map(|pod| printable(&format!("{}: {}", pod.metadata.name, pod.word()))).collect();
    let ready: Vec<Pod> = owned.into_iter().filter(Pod::is_ready).collect();
    if ready.is_empty() {
        let message = format!("no pod of {label} in namespace {namespace} of playground {shown} is ready");
        return Err(Error::new(Kind::NotWoken, message).with_hint(listed(&states)));
    }
    one(ready, label, shown)
}

fn one(mut pods: Vec<Pod>, label: &str, shown: &str) -> Result<Pod> {
    match (pods.pop(), pods.as_slice()) {
        (Some(only), []) => Ok(only),
        (last, _) => {
            pods.extend(last);
            let names: Vec<String> = pods.iter().map(|pod| printable(&pod.metadata.name)).collect();
            let message = format!("{} pods of playground {shown} are called `{label}`", pods.len());
            Err(Error::new(Kind::Ambiguous, message).with_hint(format!("choose one of: {}", listed(&names))))
        }
    }
}

/// The container of a pod: the one that is named, or else the default one. It need not run.
///
/// # Errors
/// [`Kind::NotFound`] with those that there are.
pub(crate) fn named(pod: &Pod, name: Option<&str>, shown: &str) -> Result<Container> {
    let mut all = pod.containers();
    let label = name.or(pod.default_container()).unwrap_or_default();
    let found = all.iter().position(|one| one.name == label);
    if let Some(found) = found.or_else(|| all.iter().position(|one| as_label(&one.name) == label)) {
        return Ok(all.swap_remove(found));
    }
    let names: Vec<String> = all.into_iter().map(|one| printable(&one.name)).collect();
    let message = format!("{} has no container `{}`", subject(pod, shown), printable(label));
    let meant = did_you_mean(label, names.iter().map(String::as_str));
    Err(Error::new(Kind::NotFound, message).with_hint(format!("{meant}it has {}", listed(&names))))
}

/// A pod in a sentence.
pub(crate) fn subject(pod: &Pod, shown: &str) -> String {
    format!("pod {} of playground {shown}", printable(&pod.metadata.name))
}

/// As [`named`], for one that runs.
fn chosen(pod: &Pod, name: Option<&str>, shown: &str) -> Result<Container> {
    let found = named(pod, name, shown)?;
    if found.runs() && found.runtime_id().is_some() {
        return Ok(found);
    }
    let what = subject(pod, shown);
    let why = [&*found.title.to_lowercase(), &found.reason, &found.message];
    let why: Vec<&str> = why.into_iter().filter(|word| !word.is_empty()).collect();
    let message =
        format!("container {} of {what} does not run: {}", printable(&found.name), printable(&why.join(", ")));
    let hint = match found.role {
        Role::Ephemeral => "an ephemeral container is not started again; `labctl-ssh-proxy debug` adds another",
        Role::Init | Role::Sidecar | Role::Regular => "the cluster starts it; connect again once it runs",
    };
    Err(Error::new(Kind::NotWoken, message).with_hint(hint))
}

/// A name as a label of a host name: a pod on a node with a domain has dots in its own.
pub(crate) fn as_label(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() || c == '-' { c.to_ascii_lowercase() } else { '-' }).collect()
}

/// The labels of a container of a pod, if it has such.
pub(crate) fn labels(pod: &Pod, container: Option<&str>) -> Option<PodName> {
    let name = PodName {
        namespace: pod.metadata.namespace.clone(),
        pod: as_label(&pod.metadata.name),
        container: container.map(as_label),
    };
    let is_whole = [&name.namespace, &name.pod].into_iter().chain(&name.container).all(|label| is_label(label));
    is_whole.then_some(name)
}

/// Printable names in a sentence, as many as one reads. The one that was meant may not be among them.
fn listed(names: &[String]) -> String {
    let shown = names[..names.len().min(MAX_NAMES)].join(", ");
    match names.len().checked_sub(MAX_NAMES) {
        None | Some(0) => shown,
        Some(more) => format!("{shown} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn owned(name: &str, owner: Option<(&str, &str)>, ready: bool) -> Pod {
        let owners: Vec<Value> =
            owner.into_iter().map(|(kind, name)| json!({ "kind": kind, "name": name, "controller": true })).collect();
        let ready = if ready { "True" } else { "False" };
        serde_json::from_value(json!({
            "metadata": { "name": name, "namespace": "default", "ownerReferences": owners },
            "status": { "phase": "Running", "conditions": [{ "type": "Ready", "status": ready }] },
        }))
        .unwrap()
    }

    fn name(pod: &str) -> PodName {
        PodName { namespace: "default".into(), pod: pod.into(), container: None }
    }

    fn found(pods: &[Pod], pod: &str) -> Result<String> {
        let sets = json!({ "metadata": { "name": "web-7d4b9c6f5", "ownerReferences": [
            { "kind": "Deployment", "name": "web", "controller": true }
        ] } });
        let key = ("default".to_owned(), "web-7d4b9c6f5".to_owned());
        let sets = All::from([(key, serde_json::from_value(sets).unwrap())]);
        Ok(meant(pods.to_vec(), &sets, &name(pod), "k3s")?.metadata.name)
    }

    #[test]
    fn a_name_means_a_pod_or_the_one_ready_pod_of_what_has_pods() {
        let pods = [
            owned("web-7d4b9c6f5-x2x9z", Some(("ReplicaSet", "web-7d4b9c6f5")), true),
            owned("web-7d4b9c6f5-old", Some(("ReplicaSet", "web-7d4b9c6f5")), false),
            owned("db-0", Some(("StatefulSet", "db")), true),
            owned("db-1", Some(("StatefulSet", "db")), true),
            owned("agent-abc", Some(("DaemonSet", "agent")), false),
            owned("etcd-node.example.com", None, true),
            owned("batch-1", Some(("Job", "batch")), true),
        ];
        assert_eq!(found(&pods, "web").unwrap(), "web-7d4b9c6f5-x2x9z");
        assert_eq!(found(&pods, "db-1").unwrap(), "db-1");
        assert_eq!(found(&pods, "etcd-node-example-com").unwrap(), "etcd-node.example.com");
        for (name, kind, why) in [
            ("db", Kind::Ambiguous, "2 pods of playground k3s are called `db`"),
            ("agent", Kind::NotWoken, "no pod of agent in namespace default of playground k3s is ready"),
            ("batch", Kind::NotFound, "has no pod `batch` in namespace default"),
            ("web-7d4b9c6f5", Kind::NotFound, "has no pod"),
        ] {
            let error = found(&pods, name).unwrap_err();
            assert!(error.kind() == kind && error.message().contains(why), "{name}: {error}");
        }
        // The list of so many is cut before the one that was meant.
        let crowd: Vec<Pod> = (0..20).map(|i| owned(&format!("job-{i:04}"), None, true)).chain(pods).collect();
        let hint = found(&crowd, "bd-1").unwrap_err().hint().unwrap().to_owned();
        assert!(hint.starts_with("did you mean `db-1`? namespace default has job-0000, "), "{hint}");
        assert!(hint.ends_with(" and 15 more"), "{hint}");
    }

    #[test]
    fn a_container_that_does_not_run_is_said_with_the_reason() {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": { "name": "p", "annotations": { "kubectl.kubernetes.io/default-container": "app" } },
            "spec": {
                "initContainers": [{ "name": "migrate" }],
                "containers": [{ "name": "log" }, { "name": "app" }],
                "ephemeralContainers": [{ "name": "look", "targetContainerName": "app" }, { "name": "past" }],
            },
            "status": {
                "initContainerStatuses": [{ "name": "migrate", "state": { "terminated": { "exitCode": 0, "reason": "Completed" } } }],
                "containerStatuses": [
                    { "name": "app", "containerID": "containerd://abc", "state": { "running": {} }, "ready": false, "started": true },
                    { "name": "log", "state": { "waiting": { "reason": "CrashLoopBackOff", "message": "back-off" } } },
                ],
                "ephemeralContainerStatuses": [
                    { "name": "look", "containerID": "containerd://def", "state": { "running": {} } },
                    { "name": "past", "state": { "terminated": { "exitCode": 1 } } },
                ],
            },
        }))
        .unwrap();
        let id = |name| chosen(&pod, name, "k3s").map(|one| one.runtime_id().unwrap_or_default().to_owned());
        assert_eq!(id(None).unwrap(), "abc");
        assert_eq!(id(Some("look")).unwrap(), "def");
        for (name, kind, words) in [
            ("log", Kind::NotWoken, "does not run: waiting, CrashLoopBackOff, back-off"),
            ("migrate", Kind::NotWoken, "does not run: terminated successfully, Completed"),
            ("past", Kind::NotWoken, "does not run: terminated with error"),
            ("other", Kind::NotFound, "has no container `other`"),
        ] {
            let error = id(Some(name)).unwrap_err();
            assert!(error.kind() == kind && error.message().contains(words), "{name}: {error}");
        }
        let hint = id(Some("lgo")).unwrap_err().hint().unwrap().to_owned();
        assert!(hint.starts_with("did you mean `log`? it has "), "{hint}");
    }
}
