//! `pods`: the pods of a playground's cluster and their containers, once or as they change.
//!
//! It is about what runs, so it wakes nothing. The cluster is asked over an SSH connection to the machine that has its
//! kubeconfig, and tells of changes by itself.
//!
//! - `cluster`: what is known of it.
//! - `document`: one container as the API has it.
//! - `shown`: that for programs, and for people.
//! - `watch`: the changes.

mod cluster;
mod document;
mod shown;
mod watch;

use clap_complete::{ArgValueCandidates, ArgValueCompleter};
use serde_json::Value;

use crate::{
    app::App,
    cluster::api::Api,
    commands::{api, args::One, candidates, forward::find_play, running::Running},
    error::Result,
    target::{PodName, is_label},
    ui::{notice::Progress, out, spinner::Spinner},
    wake::check_running,
};

use cluster::Cluster;
use shown::Hosts;

/// List the pods of a playground's cluster, their containers and states, and how to ssh there.
#[derive(Debug, clap::Args)]
#[command(after_help = "It is about what runs, so it starts nothing. With --watch, the cluster tells of changes by \
                  itself, and a connection that is lost is made again.")]
pub(crate) struct Args {
    #[command(flatten)]
    one: One,
    /// The namespace; by default that of the kubeconfig there.
    #[arg(short, long, value_name = "NAMESPACE", value_parser = namespace)]
    namespace: Option<String>,
    /// The pods of all namespaces.
    #[arg(short = 'A', long, conflicts_with = "namespace")]
    all_namespaces: bool,
    /// The machine with the kubeconfig; cplane-01 by default, or the first machine if there is none.
    #[arg(short, long, add = ArgValueCandidates::new(candidates::machines))]
    machine: Option<String>,
    /// Keep showing them as they change: redraw the table, or with --json print a line for each change.
    #[arg(long)]
    watch: bool,
    /// Print what the API has about one container, as JSON: its `spec` and its `status`. It is the default one of POD, of
    /// the namespace default, or of NAMESPACE/POD, or else NAMESPACE/POD/CONTAINER.
    #[arg(
        long,
        value_name = "POD",
        conflicts_with_all = ["watch", "namespace", "all_namespaces"],
        add = ArgValueCompleter::new(candidates::pods)
    )]
    of: Option<PodName>,
}

/// Reads the name of a namespace, which is a label.
fn namespace(text: &str) -> Result<String, String> {
    if is_label(text) { Ok(text.to_owned()) } else { Err("a namespace is letters, digits and dashes".to_owned()) }
}

/// Lists the pods, or shows them as they change.
///
/// # Errors
/// [`Kind::NotWoken`](crate::error::Kind::NotWoken) when the playground is stopped; the API's.
pub(crate) async fn run(app: &App, args: Args) -> Result<()> {
    let labs = app.labs().await?;
    let (play, machine) = find_play(&labs, &args.one.playground, args.machine.as_deref()).await?;
    check_running(&play)?;
    let (machine, door) = api::way(app, &labs, &play, machine.as_deref()).await?;
    let way = Way { running: Running::new(app, &labs, &door, &play, &machine.name), user: machine.default_user() };
    let hosts = Hosts { play: play.id.clone(), has_namespaces: args.all_namespaces };
    let namespace = args.namespace.as_deref();
    if args.watch {
        return watch::watch(&way, namespace, &hosts, args.one.json).await;
    }
    let spinner = Spinner::new();
    if spinner.is_seen() {
        spinner.waiting(&format!("looking at the pods of {}", play.shown()));
    }
    let read = async {
        let api = way.api(true, &spinner).await?;
        let read = match &args.of {
            Some(name) => document::read(&api, name).await.map(Read::Container),
            None => Cluster::read(&api, hosts.namespace(namespace, &api)).await.map(Read::Cluster),
        };
        api.into_ssh().close().await;
        read
    };
    let read = tokio::select! {
        read = read => read.map_err(|error| error.on(app.platform))?,
        never = spinner.repeat() => match never {},
    };
    drop(spinner);
    let cluster = match read {
        Read::Container(value) => return out::json(&value),
        Read::Cluster(cluster) => cluster,
    };
    if args.one.json { out::json(&hosts.printed(&cluster)) } else { out::lines(hosts.lines(&cluster)) }
}

/// An answer of the API.
enum Read {
    Cluster(Cluster),
    Container(Value),
}

/// The way to the API of a cluster.
struct Way<'a> {
    running: Running<'a>,
    /// The machine's user.
    user: &'a str,
}

impl Way<'_> {
    async fn api(&self, first: bool, progress: &impl Progress) -> Result<Api> {
        Api::open(self.running.client(first, progress).await?, self.user).await
    }
}
