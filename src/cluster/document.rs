//! A container of a pod as the API has it: what its pod wants, and what its node has seen. Pure.

use serde_json::{Value, json};

/// The lists of a pod's containers, and those of their states.
const LISTS: [(&str, &str); 3] = [
    ("initContainers", "initContainerStatuses"),
    ("containers", "containerStatuses"),
    ("ephemeralContainers", "ephemeralContainerStatuses"),
];

/// `{"spec", "status"}` of the container of that name. What is not known is null.
pub(crate) fn of(pod: &Value, container: &str) -> Value {
    let of = |part: &str, list: &str| {
        let found = pod[part][list].as_array()?.iter().find(|one| one["name"] == container)?;
        Some(found.clone())
    };
    let spec = LISTS.iter().find_map(|(list, _)| of("spec", list));
    let status = LISTS.iter().find_map(|(_, list)| of("status", list));
    json!({ "spec": spec, "status": status })
}
