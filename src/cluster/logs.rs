//! The words of a container, as its node keeps them.

use super::api::{Api, Failure, Lines, query_text};

/// The part of a log that is wanted.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Wish {
    /// Also what comes from now on.
    pub(crate) follow: bool,
    /// Only so many of the last lines.
    pub(crate) tail: Option<u64>,
    /// Those of the container that was there before its last restart.
    pub(crate) previous: bool,
    /// Each line with its time.
    pub(crate) timestamps: bool,
}

/// Begins a log.
///
/// # Errors
/// As [`Api::get`]. The API refuses for a container that has not started.
pub(crate) async fn begin(
    api: &Api,
    namespace: &str,
    pod: &str,
    container: &str,
    wish: &Wish,
) -> Result<Lines, Failure> {
    let mut path = format!("/api/v1/namespaces/{namespace}/pods/{pod}/log?container={}", query_text(container));
    let Wish { follow, tail, previous, timestamps } = wish;
    for (name, is_wanted) in [("follow", follow), ("previous", previous), ("timestamps", timestamps)] {
        if *is_wanted {
            path += &format!("&{name}=true");
        }
    }
    if let Some(lines) = tail {
        path += &format!("&tailLines={lines}");
    }
    if *follow { api.begun(&path, "*/*").await } else { api.lines(&path, "*/*").await }
}
