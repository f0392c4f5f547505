//! The Kubernetes API of a playground that runs, for one command.

use crate::{
    app::App,
    cluster::{api::Api, reading},
    commands::running::Running,
    door::Door,
    error::Result,
    labs::{Labs, find, wire::Play},
    target::Target,
    ui::notice::Progress,
};

/// Opens it over the machine of that name, or else the one that usually has the kubeconfig.
///
/// # Errors
/// As [`Running::client`] and [`Api::open`].
pub(crate) async fn open(
    app: &App,
    labs: &Labs,
    play: &Play,
    machine: Option<&str>,
    progress: &impl Progress,
) -> Result<Api> {
    let machine = find::machine(play, machine.or(reading::usual_machine(play)))?;
    let door = Door::as_ssh(app, labs, &Target::of_play(&play.id, Some(&machine.name)).to_string()).await?;
    let running = Running::new(app, labs, &door, play, &machine.name);
    Api::open(running.client(true, progress).await?, machine.default_user()).await
}
