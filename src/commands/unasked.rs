//! SSH to a running machine as a courtesy, for what is shown or offered: it wakes nothing, asks the user nothing, and
//! costs a tunnel request only if no earlier connection has left a session.

use crate::{
    app::App,
    door::Door,
    error::Result,
    labs::Labs,
    ssh::client::{Login, SshClient},
};

/// Logs in to a machine that runs, and returns what `work` returns. `called` is another host name of the machine, under
/// which a connection may have left its session.
///
/// # Errors
/// As [`Door::unasked`] and [`Door::open`], and those of `work`.
pub(super) async fn on_machine<T>(
    app: &App,
    labs: &Labs,
    login: &Login,
    called: Option<&str>,
    work: impl AsyncFn(&SshClient) -> Result<T>,
) -> Result<T> {
    let client = Door::unasked(app, labs).await?.open(login, called).await?;
    let done = work(&client).await;
    client.close().await;
    done
}
