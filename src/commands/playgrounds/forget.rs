//! Forgets a playground that is no more.

use crate::{app::App, commands::kube, error::Result};

/// Forgets all that is known of a playground that is no more.
///
/// # Errors
/// When known hosts cannot be written.
pub async fn forget(app: &App, play: &str) -> Result<()> {
    app.memory().forget(play);
    app.tunnels().forget(play);
    kube::forget(&app.folders, play).await;
    app.known_hosts().forget_play(play)
}
