//! A cluster, as far as it is known.

use crate::{
    cluster::{
        api::Api,
        pods::{Node, Object, Owner, Pod},
        watch::{All, Change, Key, list},
    },
    error::{Error, Kind, Result},
};

/// Pods, and what one wants to know with them.
#[derive(Default)]
pub(super) struct Cluster {
    pub(super) pods: All<Pod>,
    pub(super) nodes: All<Node>,
    /// ReplicaSets: a pod's owner, which one knows by its Deployment.
    pub(super) sets: All<Object>,
}

/// News of a cluster.
pub(super) enum News {
    /// All of it.
    All(Cluster),
    Pod(Change<Pod>),
    Node(Change<Node>),
    Set(Change<Object>),
    /// It cannot be asked at this moment.
    Lost(Error),
}

/// Takes a refusal for nothing, because not each user may see each kind of object.
pub(super) fn if_permitted<T>(answer: Result<T>) -> Result<Option<T>> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(error) if error.kind() == Kind::Refused => {
            log::info!("{}", error.message());
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

impl Cluster {
    /// Reads a namespace, or all.
    ///
    /// # Errors
    /// As [`list`]. Those who may not see the others see pods.
    pub(super) async fn read(api: &Api, namespace: Option<&str>) -> Result<Cluster> {
        let (pods, nodes, sets) = tokio::join!(list(api, namespace), list(api, None), list(api, namespace));
        let (nodes, sets) = (if_permitted(nodes)?.unwrap_or_default(), if_permitted(sets)?.unwrap_or_default());
        Ok(Cluster { pods: pods?, nodes, sets })
    }

    /// The pods of a ReplicaSet.
    pub(super) fn owned_by(&self, (namespace, set): Key) -> Vec<Key> {
        let is_owned = |pod: &Pod| {
            pod.metadata.namespace == namespace && pod.metadata.controller().is_some_and(|owner| owner.name == set)
        };
        self.pods.iter().filter(|(_, pod)| is_owned(pod)).map(|(key, _)| key.clone()).collect()
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
