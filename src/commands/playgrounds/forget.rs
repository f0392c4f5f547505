//! Removal of our records of a playground that no longer exists.

use crate::{
    app::App,
    commands::kube,
    error::Result,
    records::{aliases, listeners},
    ui::notice,
};

/// Deletes everything that we know about a playground that no longer exists.
///
/// # Errors
/// Fails when the known hosts cannot be written.
pub(crate) async fn forget(app: &App, play: &str) -> Result<()> {
    app.memory().forget(play);
    app.tunnels().forget(play);
    app.seeds().forget(play);
    aliases::forget(&app.folders, app.platform, play);
    for listener in listeners::forget(&app.folders, play) {
        let command = app.platform.commands(&format!("`labctl-ssh-proxy listen {} --uninstall`", listener.host));
        let shown = listener.shown();
        notice::line(&format!(
            "labctl-ssh-proxy: a service still listens for {shown}, which is gone; end it with {command}"
        ));
    }
    kube::forget(&app.folders, play).await;
    app.known_hosts().forget_play(play)
}
