//! `logs`: this program's own log of connections; or the words of a pod's container, as its node keeps them. It is about
//! what runs, so it wakes nothing.

mod connections;

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

/// Print this program's log of connections, or what a container of a pod has written.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "It starts nothing. Without --pod it asks no machine, and the platform only what is meant by a name \
                        that is in no log."
)]
pub(crate) struct Args {
    /// The playground's id, host name, alias, title, catalogue name or page address. Without --pod only its connections are
    /// shown, or those of the machine or container whose host name it is; all by default.
    #[arg(add = ArgValueCompleter::new(candidates::playgrounds))]
    playground: Option<String>,
    /// The pod of its cluster: POD of the namespace default, NAMESPACE/POD or NAMESPACE/POD/CONTAINER. The name of a
    /// Deployment, StatefulSet or DaemonSet stands for its one ready pod.
    #[arg(long, value_name = "POD", requires = "playground", add = ArgValueCompleter::new(candidates::pods))]
    pod: Option<PodName>,
    /// Keep printing new lines until Ctrl-C, or with --pod until the container ends.
    #[arg(short, long)]
    follow: bool,
    /// Print only the last N lines first.
    #[arg(long, value_name = "N")]
    tail: Option<u64>,
    /// The log of the container before its last restart.
    #[arg(long, requires = "pod")]
    previous: bool,
    /// Prefix each line of a container with its time.
    #[arg(long, requires = "pod")]
    timestamps: bool,
    /// Only the connections to this machine. With --pod, the machine with the kubeconfig; cplane-01 by default, or the first
    /// machine if there is none.
    #[arg(short, long, requires = "playground", add = ArgValueCandidates::new(candidates::machines))]
    machine: Option<String>,
}

/// Prints a log.
///
/// # Errors
/// Those of [`connections::print`] and [`of_pod`].
pub(crate) async fn run(app: &App, args: Args) -> Result<()> {
    let Args { playground, pod, follow, tail, previous, timestamps, machine } = args;
    match (playground, pod) {
        (Some(playground), Some(pod)) => {
            let wish = Wish { follow, tail, previous, timestamps };
            of_pod(app, &playground, machine.as_deref(), &pod, &wish).await
        }
        (host, _) => connections::print(app, host.as_deref(), machine.as_deref(), follow, tail).await,
    }
}

/// Prints the log of a pod's container.
///
/// # Errors
/// [`Kind::NotWoken`](crate::error::Kind::NotWoken) when the playground is stopped; [`Kind::Refused`](crate::error::Kind)
/// for a container that has written nothing yet; the API's.
async fn of_pod(app: &App, playground: &str, machine: Option<&str>, name: &PodName, wish: &Wish) -> Result<()> {
    let labs = app.labs().await?;
    let (play, machine) = find_play(&labs, playground, machine).await?;
    check_running(&play)?;
    let way = api::way(app, &labs, &play, machine.as_deref()).await?;
    let spinner = Spinner::new();
    if spinner.is_seen() {
        spinner.waiting(&format!("reading a log of {}", play.shown()));
    }
    let find = async {
        let api = api::open(app, &labs, &play, &way, &spinner).await?;
        let pod = in_cluster::pod(&api, name).await?;
        let container = in_cluster::named(&pod, name.container.as_deref(), &api.ssh().login().shown)?;
        Ok::<_, Error>((api, pod, container))
    };
    let (api, pod, container) = tokio::select! {
        found = find => found.map_err(|error| error.on(app.platform))?,
        never = spinner.repeat() => match never {},
    };
    drop(spinner);
    let mut words = Words::new()?;
    let print = async {
        let begun = begin(&api, &pod.metadata.namespace, &pod.metadata.name, &container.name, wish);
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
