//! `pods --of`: one container as the API has it.

use serde_json::Value;

use crate::{
    cluster::{
        api::{Api, JSON},
        document, find,
    },
    error::Result,
    target::PodName,
};

/// Reads what there is about a container.
///
/// # Errors
/// As [`find::pod`] and [`find::named`].
pub(super) async fn read(api: &Api, name: &PodName) -> Result<Value> {
    let pod = find::pod(api, name).await?;
    let container = find::named(&pod, name.container.as_deref(), &api.ssh().login().shown)?;
    let (namespace, pod) = (&pod.metadata.namespace, &pod.metadata.name);
    let pod: Value = api.get(&format!("/api/v1/namespaces/{namespace}/pods/{pod}"), JSON).await?;
    Ok(document::of(&pod, &container.name))
}
