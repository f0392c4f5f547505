//! An ephemeral container: one that is added to a pod that runs, to look at another of its containers. It is never started
//! again, and stays in the pod's spec as long as the pod is.

use std::str::FromStr;

use bytes::Bytes;
use hyper::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    api::{Api, JSON, Refused},
    document, find,
    pods::{Container, Pod, State},
    watch::{Change, Watch},
};
use crate::error::{Error, Kind, Result, printable};

/// Letters and digits in a name, behind `debug-`.
const LETTERS: usize = 5;
/// The user for a pod that is not to run as root, where none is named.
const SOME_USER: u32 = 1000;
/// The version from which on a cluster has ephemeral containers without a word of its administrator (1.23).
const SINCE: (u32, u32) = (1, 23);
/// The media type of a patch that merges lists by their keys.
const STRATEGIC: &str = "application/strategic-merge-patch+json";

/// A user and a group, in numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

impl FromStr for User {
    type Err = String;

    /// Reads `UID[:GID]`. Without a group it has the number of the user.
    fn from_str(text: &str) -> Result<User, String> {
        let number = |text: &str| text.parse().map_err(|_| format!("`{text}` is no number of a user or a group"));
        let (uid, gid) = text.split_once(':').unwrap_or((text, text));
        Ok(User { uid: number(uid)?, gid: number(gid)? })
    }
}

/// A wish for a container.
#[derive(Clone, Debug)]
pub(crate) struct Wish<'a> {
    /// Its image.
    pub(crate) image: &'a str,
    /// The container that it looks at.
    pub(crate) target: &'a str,
    /// Its command; empty for the image's own.
    pub(crate) command: &'a [String],
    /// Its user; `None` for that of the image, or the one whom the pod demands.
    pub(crate) user: Option<User>,
    /// True if it may do all that root of its node may.
    pub(crate) privileged: bool,
    /// True if it gets a terminal.
    pub(crate) terminal: bool,
}

/// A name that the pod does not have yet, but for bad luck.
pub(crate) fn name() -> String {
    let letters =
        (0..LETTERS).map(|_| fastrand::choice(b"abcdefghijklmnopqrstuvwxyz0123456789").map_or('0', |b| char::from(*b)));
    format!("debug-{}", letters.collect::<String>())
}

/// The object of a container for `pod`, and the user whom the pod demands, if it does. Pure.
pub(crate) fn object(pod: &Value, name: &str, wish: &Wish<'_>) -> (Value, Option<User>) {
    let Wish { image, target, command, user, privileged, terminal } = *wish;
    let target_spec = &document::of(pod, target)["spec"];
    let demanded = user.is_none().then(|| demanded(&pod["spec"], target_spec)).flatten();
    let mut context = json!({});
    if let Some(User { uid, gid }) = user.or(demanded) {
        context["runAsUser"] = uid.into();
        context["runAsGroup"] = gid.into();
        // A wish for root is one against the pod's own rule.
        if demanded.is_some() || uid == 0 {
            context["runAsNonRoot"] = demanded.is_some().into();
        }
    }
    if privileged {
        context["privileged"] = true.into();
    }
    let mut object = json!({
        "name": name,
        "image": image,
        // An image that the node has is good enough.
        "imagePullPolicy": "IfNotPresent",
        "stdin": true,
        // A program whose reader is gone gets the end of its input, and is not left there for ever.
        "stdinOnce": true,
        "tty": terminal,
        "targetContainerName": target,
        "securityContext": context,
    });
    if !command.is_empty() {
        object["command"] = command.into();
    }
    // Root finds the target's volumes with its other files.
    if user.or(demanded).is_some_and(|user| user.uid != 0) {
        let has_part = |mount: &&Value| mount["subPath"].is_string() || mount["subPathExpr"].is_string();
        let mounts = target_spec["volumeMounts"].as_array().into_iter().flatten();
        // The API permits no mount of a part in an ephemeral container.
        let mounts: Vec<&Value> = mounts.filter(|mount| !has_part(mount)).collect();
        if !mounts.is_empty() {
            object["volumeMounts"] = json!(mounts);
        }
    }
    (object, demanded)
}

/// The user for a pod, or a target, that is not to run as root: the target's.
fn demanded(pod: &Value, target: &Value) -> Option<User> {
    let contexts = [&target["securityContext"], &pod["securityContext"]];
    if !contexts.iter().any(|context| context["runAsNonRoot"] == true) {
        return None;
    }
    let number = |member: &str| {
        let found = contexts.iter().find_map(|context| context[member].as_u64());
        found.and_then(|number| u32::try_from(number).ok())
    };
    let uid = number("runAsUser").filter(|uid| *uid != 0).unwrap_or(SOME_USER);
    Some(User { uid, gid: number("runAsGroup").unwrap_or(SOME_USER) })
}

/// Adds a container to a pod.
///
/// # Errors
/// The API's refusal; [`Kind::Refused`] where the role or the version of the cluster does not permit it.
pub(crate) async fn add(api: &Api, pod: &Pod, container: &Value) -> Result<()> {
    let (namespace, name) = (&pod.metadata.namespace, &pod.metadata.name);
    let path = format!("/api/v1/namespaces/{namespace}/pods/{name}/ephemeralcontainers");
    let body = json!({ "spec": { "ephemeralContainers": [container] } }).to_string();
    let failure = match api.text(Method::PATCH, &path, JSON, Some((STRATEGIC, Bytes::from(body)))).await {
        Ok(_) => return Ok(()),
        Err(failure) => failure,
    };
    match failure.refused {
        Some(Refused::Forbidden) => Err(failure.error.with_hint(
            "the role needs the verb patch for pods/ephemeralcontainers; without --ephemeral, debug needs no such right",
        )),
        // The pod is there, so what is missing is this part of the API.
        Some(Refused::NotFound) => Err(too_old(api).await.unwrap_or(failure.error)),
        Some(Refused::Gone | Refused::Otherwise) if failure.error.kind() != Kind::NotYet => Err(failure.error),
        _ => {
            Err(failure.error.with_hint("it may have been added: see `labctl-ssh-proxy pods` before you do it again"))
        }
    }
}

/// A version of Kubernetes.
#[derive(Deserialize)]
struct Version {
    major: String,
    minor: String,
}

/// The error for a cluster that is too old, if it is.
async fn too_old(api: &Api) -> Option<Error> {
    let Version { major, minor } = api.get("/version", JSON).await.ok()?;
    // Some write `20+`.
    let number = |text: &str| text.trim_end_matches(|c: char| !c.is_ascii_digit()).parse::<u32>().ok();
    let is_old = (number(&major)?, number(&minor)?) < SINCE;
    is_old.then(|| {
        let version = printable(&format!("{major}.{minor}"));
        let shown = &api.ssh().login().shown;
        let message =
            format!("the cluster of playground {shown} is Kubernetes {version}, which has no ephemeral containers");
        Error::new(Kind::Refused, message)
            .with_hint("they came with 1.23; without --ephemeral, debug works there as well")
    })
}

/// Waits until a container of a pod is as it is wanted. Each state that is not is `told`.
///
/// # Errors
/// [`Kind::Ended`] when the pod is deleted, and as [`Watch::next`].
pub(crate) async fn until(
    api: &Api,
    pod: &Pod,
    container: &str,
    mut told: impl FnMut(&Container),
    is_wanted: impl Fn(&Container) -> bool,
) -> Result<Container> {
    let (namespace, name) = (&pod.metadata.namespace, &pod.metadata.name);
    let mut watch = Watch::<Pod>::of_one(api, namespace, name);
    loop {
        let now = match watch.next().await? {
            Change::All(mut all) => all.remove(&(namespace.clone(), name.clone())),
            Change::Is(one) => Some(*one),
            Change::Gone(_) => None,
        };
        let Some(now) = now else {
            let message = format!("{} was deleted", find::subject(pod, &api.ssh().login().shown));
            return Err(Error::new(Kind::Ended, message));
        };
        // A cache of the API may be older than our patch.
        let Some(found) = now.containers().into_iter().find(|one| one.name == container) else { continue };
        if is_wanted(&found) {
            return Ok(found);
        }
        told(&found);
    }
}

/// True for a container that has begun, or has failed to for a reason that its node does not overcome in a moment.
pub(crate) fn has_begun(container: &Container) -> bool {
    match container.state {
        // The first pull has failed. The node says more, or succeeds, with the next.
        State::Waiting => container.is_failing() && container.reason != "ErrImagePull",
        State::Unknown => false,
        State::Starting | State::NotReady | State::Ready | State::TerminatedOk | State::TerminatedKo => true,
    }
}
