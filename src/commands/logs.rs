//! `logs`: the words of a pod's container, as its node keeps them. It is about what runs, so it wakes nothing.

use clap_complete::{ArgValueCandidates, ArgValueCompleter};

use crate::{
    app::App,
    cluster::{
        find as in_cluster,
        logs::{Wish, begin},
    },
    commands::{
        api, candidates,
        forward::find_play,
        machine::words::{Words, ended},
    },
    error::{Error, Result},
    target::PodName,
    ui::{notice::Progress, spinner::Spinner},
    wake::check_running,
};

/// Print what a container of a pod has written: its log, as its node keeps it.
#[derive(Debug, clap::Args)]
#[command(after_help = "It is about what runs, so it starts nothing.")]
pub(crate) struct Args {
    /// The playground's id, host name, title, catalogue name or page address.
    #[arg(add = ArgValueCompleter::new(candidates::playgrounds))]
    playground: String,
    /// The pod of its cluster: POD of the namespace default, NAMESPACE/POD or NAMESPACE/POD/CONTAINER. The name of a
    /// Deployment, StatefulSet or DaemonSet stands for its one ready pod.
    #[arg(long, value_name = "POD", required = true, add = ArgValueCompleter::new(candidates::pods))]
    pod: PodName,
    /// Keep printing as more is written, until the container ends or Ctrl-C.
    #[arg(short, long)]
    follow: bool,
    /// Print only the last N lines first.
    #[arg(long, value_name = "N")]
    tail: Option<u64>,
    /// The log of the container before its last restart.
    #[arg(long)]
    previous: bool,
    /// Put its time before each line.
    #[arg(long)]
    timestamps: bool,
    /// The machine with the kubeconfig; cplane-01 by default, or the first machine if there is none.
    #[arg(short, long, add = ArgValueCandidates::new(candidates::machines))]
    machine: Option<String>,
}

/// Prints a log.
///
/// # Errors
/// [`Kind::NotWoken`](crate::error::Kind::NotWoken) when the playground is stopped; [`Kind::Refused`](crate::error::Kind)
/// for a container that has written nothing yet; the API's.
pub(crate) async fn run(app: &App, args: Args) -> Result<()> {
    let labs = app.labs().await?;
    let (play, machine) = find_play(&labs, &args.playground, args.machine.as_deref()).await?;
    check_running(&play)?;
    let way = api::way(app, &labs, &play, machine.as_deref()).await?;
    let spinner = Spinner::new();
    if spinner.is_seen() {
        spinner.waiting(&format!("reading a log of {}", play.shown()));
    }
    let find = async {
        let api = api::open(app, &labs, &play, &way, &spinner).await?;
        let pod = in_cluster::pod(&api, &args.pod).await?;
        let container = in_cluster::named(&pod, args.pod.container.as_deref(), &api.ssh().login().shown)?;
        Ok::<_, Error>((api, pod, container))
    };
    let (api, pod, container) = tokio::select! {
        found = find => found.map_err(|error| error.on(app.platform))?,
        never = spinner.repeat() => match never {},
    };
    drop(spinner);
    let Args { follow, tail, previous, timestamps, .. } = args;
    let wish = Wish { follow, tail, previous, timestamps };
    let mut words = Words::new()?;
    let print = async {
        let begun = begin(&api, &pod.metadata.namespace, &pod.metadata.name, &container.name, &wish);
        let mut lines = tokio::select! {
            lines = begun => lines.map_err(Error::from)?,
            gone = words.unread() => return Err(gone),
        };
        loop {
            let piece = tokio::select! {
                piece = lines.piece() => piece?,
                gone = words.unread() => return Err(gone),
            };
            match piece {
                Some(bytes) => words.bytes(&bytes).await?,
                None => return Ok(()),
            }
        }
    };
    let printed = print.await;
    api.into_ssh().close().await;
    ended(printed).map_err(|error| error.on(app.platform))
}
