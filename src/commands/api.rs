//! The Kubernetes API of a playground that runs, for one command.

use crate::{
    app::App,
    cluster::{api::Api, reading},
    commands::running::Running,
    door::Door,
    error::Result,
    labs::{
        Labs, find,
        wire::{Machine, Play},
    },
    target::Target,
    ui::notice::Progress,
};

/// The machine of that name, or else the one that usually has the kubeconfig, and the keys to it. A passphrase is asked for
/// now.
///
/// # Errors
/// As [`find::machine`] and [`Door::as_ssh`].
pub(crate) async fn way<'a>(
    app: &'a App,
    labs: &Labs,
    play: &'a Play,
    machine: Option<&str>,
) -> Result<(&'a Machine, Door<'a>)> {
    let machine = find::machine(play, machine.or(reading::usual_machine(play)))?;
    let door = Door::as_ssh(app, labs, &Target::of_play(&play.id, Some(&machine.name)).to_string()).await?;
    Ok((machine, door))
}

/// Opens it over that machine.
///
/// # Errors
/// As [`Running::client`] and [`Api::open`].
pub(crate) async fn open(
    app: &App,
    labs: &Labs,
    play: &Play,
    (machine, door): &(&Machine, Door<'_>),
    progress: &impl Progress,
) -> Result<Api> {
    let running = Running::new(app, labs, door, play, &machine.name);
    Api::open(running.client(true, progress).await?, machine.default_user()).await
}
