//! What is known of a cluster.

use crate::{
    cluster::{
        api::Api,
        pods::{Node, Object, Owner, Pod},
        watch::{All, Change, list},
    },
    error::{Error, Result},
};

/// Pods, and what one wants to know with them.
#[derive(Default)]
pub(super) struct Cluster {
    pub(super) pods: All<Pod>,
    pub(super) nodes: All<Node>,
    /// ReplicaSets: a pod's owner, which one knows by its Deployment.
    pub(super) sets: All<Object>,
}

/// What a cluster tells.
pub(super) enum News {
    /// All of it.
    All(Cluster),
    Pod(Change<Pod>),
    Node(Change<Node>),
    Set(Change<Object>),
    /// It cannot be asked at this moment.
    Lost(Error),
}

impl Cluster {
    /// Reads a namespace, or all.
    ///
    /// # Errors
    /// As [`list`], for the pods. Who may not see the others sees pods.
    pub(super) async fn read(api: &Api, namespace: Option<&str>) -> Result<Cluster> {
        let (pods, nodes, sets) = tokio::join!(list(api, namespace), list(api, None), list(api, namespace));
        Ok(Cluster { pods: pods?, nodes: nodes.unwrap_or_default(), sets: sets.unwrap_or_default() })
    }

    /// The kind and the name of that which makes a pod.
    pub(super) fn owner<'a>(&'a self, pod: &'a Pod) -> Option<&'a Owner> {
        let owner = pod.metadata.controller()?;
        let set = (owner.kind == "ReplicaSet")
            .then(|| self.sets.get(&(pod.metadata.namespace.clone(), owner.name.clone())))
            .flatten();
        Some(set.and_then(|set| set.metadata.controller()).unwrap_or(owner))
    }

    /// Its pods: first those in trouble, then by namespace and name.
    pub(super) fn sorted(&self) -> Vec<&Pod> {
        let mut pods: Vec<&Pod> = self.pods.values().collect();
        pods.sort_by_cached_key(|pod| !pod.is_failing());
        pods
    }
}
