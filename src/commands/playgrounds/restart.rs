//! `restart`: a stopped playground comes back, a running one is stopped first.

use crate::{
    app::App,
    commands::{
        args::One,
        playgrounds::{
            listed::{host, report},
            start::{ready, wanted},
            stop::stop_and_wait,
        },
    },
    error::Result,
    labs::find,
    ui::spinner::Spinner,
    wake::Wake,
};

/// Stop and start a playground again.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    one: One,
    /// Do not wait for the tasks that prepare it, if any are left.
    #[arg(long)]
    no_wait_init: bool,
}

/// `restart`: a stopped one comes back; a running one is stopped first. With `init` it waits for the tasks that prepare
/// it, which run once in a playground's life: there may be some left.
///
/// # Errors
/// The platform's, and what keeps the machines from becoming ready.
pub async fn run(app: &App, args: Args) -> Result<()> {
    let labs = app.labs().await?;
    let play = find::whole(&labs, &args.one.playground).await?;
    let memory = app.memory();
    wanted(&memory, &play)?;
    app.tunnels().forget(&play.id);
    let progress = Spinner::new();
    if !find::is_gone(&play) {
        stop_and_wait(&labs, &play, &progress).await?;
    }
    // The sessions that this stop cut off may come back.
    wanted(&memory, &play)?;
    let wake = Wake::wanted(&labs, &memory, &progress, app.settings.wake_limit());
    let play = labs.play(&play.id).await?;
    let play = ready(app, &labs, &wake, play, !args.no_wait_init).await?;
    drop(progress);
    report(app, &play, args.one.json, &format!("{} is running", host(&play)))
}
