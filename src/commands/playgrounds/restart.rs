//! `restart`: stops a playground if it is running, and starts it again.

use crate::{
    app::App,
    commands::{
        args::One,
        forward,
        playgrounds::{
            listed::report,
            start::{ready, wanted},
            stop::stop_and_wait,
        },
        underway::Underway,
    },
    error::Result,
    labs::{Labs, find, wire::Play},
    ui::spinner::Spinner,
    wake::Wake,
};

/// Stop a playground and start it again.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    one: One,
    /// Do not wait for its init tasks, if any are left.
    #[arg(long)]
    no_wait_init: bool,
    /// Then carry the port forwards that are saved with it until Ctrl-C, as `port-forward --restore` does.
    #[arg(long, conflicts_with = "json")]
    with_port_forwards: bool,
}

/// Stops a playground if it is running, and starts it again. Then waits for the init tasks unless told not to. They run
/// only once in a playground's life, but some may be left.
///
/// # Errors
/// The platform's, and any error that keeps the machines from becoming ready; those of port forwards. Returns their
/// exit code.
pub(crate) async fn run(app: &App, args: Args) -> Result<u8> {
    let labs = app.labs().await?;
    let play = find::whole(&labs, &args.one.playground).await?;
    let memory = app.memory();
    wanted(&memory, &play);
    app.tunnels().forget(&play.id);
    let underway = Underway::new(app);
    underway.waits_for(&play);
    let restarted = again(app, &labs, &play, !args.no_wait_init).await;
    let play = underway.over(restarted)?;
    report(app, &play, args.one.json, &format!("{} is running", play.shown()))?;
    if args.with_port_forwards { forward::carry_saved(app, &play).await } else { Ok(0) }
}

/// Stops the playground if it is running, and waits until it is ready again.
async fn again(app: &App, labs: &Labs, play: &Play, init: bool) -> Result<Play> {
    let (memory, progress) = (app.memory(), Spinner::new());
    if !find::is_gone(play) {
        stop_and_wait(labs, play, &progress).await?;
    }
    // Sessions that this stop has cut off may reconnect.
    wanted(&memory, play);
    let wake = Wake::wanted(labs, &memory, &progress, app.settings.wake_limit());
    let play = labs.play(&play.id).await?;
    ready(app, labs, &wake, play, init).await
}
