//! `pods --watch`: what the cluster tells of its pods, until the reader leaves.
//!
//! A connection that is lost is made again, and what was missed is in the list that then comes.

use std::{
    convert::Infallible,
    future::{Future, pending},
    io,
    pin::pin,
    time::Duration,
};

use serde::Serialize;
use tokio::{
    sync::mpsc::{Receiver, Sender, channel},
    time::{Instant, sleep, timeout_at},
};

use super::{
    Way,
    cluster::{Cluster, News, if_permitted},
    shown::{Hosts, PrintedNode, PrintedPod, printed_nodes},
};
use crate::{
    cluster::watch::{Change, Kept, Key, Watch, key},
    error::{Error, Kind, Result},
    labs::retry::Pauses,
    ui::{out::Details, screen::Pages, stdio},
};

/// Longest pause before the cluster is asked again.
const AWAY: Duration = Duration::from_secs(10);
/// A watch of this length has ended for a new reason, so the pauses begin anew.
const LASTING: Duration = Duration::from_secs(30);
/// The time in which changes are drawn together: a rollout is many of them.
const TOGETHER: Duration = Duration::from_millis(100);

/// Shows the pods until the reader leaves.
///
/// # Errors
/// The API's, where no other attempt can mend them.
pub(super) async fn watch(way: &Way<'_>, namespace: Option<&str>, hosts: &Hosts, json: bool) -> Result<()> {
    let closed = |e: io::Error| Error::new(Kind::Usage, format!("standard output is closed: {e}"));
    let mut output = stdio::output().map_err(closed)?;
    let (tell, mut told) = channel(64);
    let mut following = pin!(follow(way, namespace, hosts, tell));
    let mut view = View { hosts, cluster: Cluster::default(), problem: None, form: Form::new(json) };
    let mut ended = None;
    loop {
        let news = tokio::select! {
            biased;
            () = output.gone() => return Ok(()),
            news = next(&mut told, &mut following, &mut ended) => news,
        };
        let Some(news) = news else {
            let error = ended.unwrap_or_else(|| Error::new(Kind::Internal, "the watch has ended"));
            return Err(error.on(way.running.app.platform));
        };
        let mut text = view.take(news)?;
        let due = Instant::now() + TOGETHER;
        while matches!(view.form, Form::Text(_))
            && let Ok(Some(news)) = timeout_at(due, next(&mut told, &mut following, &mut ended)).await
        {
            text += &view.take(news)?;
        }
        text += &view.page();
        if !stdio::pass_on(&mut output, &text).await? {
            return Ok(());
        }
    }
}

/// The next news, while the cluster is followed. `None` once that has ended, for the reason in `ended`.
async fn next(
    told: &mut Receiver<News>,
    following: &mut (impl Future<Output = Error> + Unpin),
    ended: &mut Option<Error>,
) -> Option<News> {
    tokio::select! {
        // News of before the end are shown before it.
        biased;
        Some(news) = told.recv() => Some(news),
        error = following, if ended.is_none() => {
            *ended = Some(error);
            told.try_recv().ok()
        }
        else => None,
    }
}

/// Follows the cluster until a failure is final, and returns that.
async fn follow(way: &Way<'_>, namespace: Option<&str>, hosts: &Hosts, tell: Sender<News>) -> Error {
    let mut pauses = Pauses::doubling(AWAY);
    let mut first = true;
    loop {
        let began = Instant::now();
        let Err(error) = follow_once(way, first, namespace, hosts, &tell).await;
        let _ = tell.send(News::Lost(error.clone().on(way.running.app.platform))).await;
        if !error.may_pass() {
            return error;
        }
        log::info!("the watch of the cluster begins again: {}", error.message());
        if began.elapsed() > LASTING {
            pauses = Pauses::doubling(AWAY);
        }
        first = false;
        sleep(pauses.after(&error)).await;
    }
}

async fn follow_once(
    way: &Way<'_>,
    first: bool,
    namespace: Option<&str>,
    hosts: &Hosts,
    tell: &Sender<News>,
) -> Result<Infallible> {
    let api = way.api(first, &()).await?;
    let namespace = hosts.namespace(namespace, &api);
    let (mut pods, mut nodes, mut sets) =
        (Watch::new(&api, namespace), Watch::new(&api, None), Watch::new(&api, namespace));
    let mut all = Cluster::default();
    let (of_pods, of_nodes, of_sets) = tokio::join!(pods.next(), nodes.next(), sets.next());
    of_pods?.make(&mut all.pods);
    // Those who may not see the others see pods.
    let (of_nodes, of_sets) = (if_permitted(of_nodes)?, if_permitted(of_sets)?);
    let (has_nodes, has_sets) = (of_nodes.is_some(), of_sets.is_some());
    of_nodes.into_iter().for_each(|change| change.make(&mut all.nodes));
    of_sets.into_iter().for_each(|change| change.make(&mut all.sets));
    let _ = tell.send(News::All(all)).await;
    // None of them is begun anew because another has something to say.
    let (never, _, _) = tokio::try_join!(
        pass_on(&mut pods, true, News::Pod, tell),
        pass_on(&mut nodes, has_nodes, News::Node, tell),
        pass_on(&mut sets, has_sets, News::Set, tell),
    )?;
    match never {}
}

/// Passes the changes of a list on, if it may be seen, until it cannot be asked any more.
async fn pass_on<T: Kept>(
    watch: &mut Watch<'_, T>,
    is_seen: bool,
    news: fn(Change<T>) -> News,
    tell: &Sender<News>,
) -> Result<Infallible> {
    if is_seen {
        while let Some(change) = if_permitted(watch.next().await)? {
            let _ = tell.send(news(change)).await;
        }
    }
    pending().await
}

/// A line of JSON about a change.
#[derive(Serialize)]
#[serde(rename_all = "lowercase")]
enum Line<'a> {
    Pod(PrintedPod<'a>),
    Gone { namespace: &'a str, name: &'a str },
    Nodes(Vec<PrintedNode<'a>>),
    Error(Details<'a>),
}

/// The form in which they are shown.
enum Form {
    Json,
    Text(Pages),
}

impl Form {
    fn new(json: bool) -> Form {
        if json { Form::Json } else { Form::Text(Pages::new()) }
    }
}

/// The cluster as it is known, and the form in which it is shown.
struct View<'a> {
    hosts: &'a Hosts,
    cluster: Cluster,
    /// The reason why that may be out of date.
    problem: Option<Error>,
    form: Form,
}

impl View<'_> {
    /// Takes news. Returns the line of JSON about them, which is empty if they bring nothing new.
    fn take(&mut self, news: News) -> Result<String> {
        let is_json = matches!(self.form, Form::Json);
        let hosts = self.hosts;
        match news {
            News::Lost(error) => {
                let line = if is_json { line(&Line::Error((&error).into()))? } else { String::new() };
                self.problem = Some(error);
                return Ok(line);
            }
            News::All(cluster) => self.cluster = cluster,
            News::Pod(Change::All(pods)) => self.cluster.pods = pods,
            News::Pod(Change::Is(pod)) => {
                let key = key(&*pod);
                let before = self.pod_line(&key, is_json)?;
                self.cluster.pods.insert(key.clone(), *pod);
                let after = self.pod_line(&key, is_json)?;
                return Ok(if before == after { String::new() } else { after });
            }
            News::Pod(Change::Gone(key)) => {
                let is_known = self.cluster.pods.remove(&key).is_some();
                let gone = Line::Gone { namespace: &key.0, name: &key.1 };
                return if is_json && is_known { line(&gone) } else { Ok(String::new()) };
            }
            News::Node(change) => {
                let before = nodes_line(&self.cluster, is_json)?;
                change.make(&mut self.cluster.nodes);
                let after = nodes_line(&self.cluster, is_json)?;
                return Ok(if before == after { String::new() } else { after });
            }
            News::Set(change) => {
                let owned = change.key().map(|key| self.cluster.owned_by(key)).unwrap_or_default();
                let before = self.pod_lines(&owned, is_json)?;
                change.make(&mut self.cluster.sets);
                let after = self.pod_lines(&owned, is_json)?;
                return Ok(after.into_iter().zip(before).filter(|(new, old)| new != old).map(|(new, _)| new).collect());
            }
        }
        self.problem = None;
        if is_json { line(&hosts.printed(&self.cluster)) } else { Ok(String::new()) }
    }

    fn pod_lines(&self, keys: &[Key], is_json: bool) -> Result<Vec<String>> {
        keys.iter().map(|key| self.pod_line(key, is_json)).collect()
    }

    fn pod_line(&self, key: &Key, is_json: bool) -> Result<String> {
        match self.cluster.pods.get(key).filter(|_| is_json) {
            Some(pod) => line(&Line::Pod(self.hosts.printed_pod(&self.cluster, pod))),
            None => Ok(String::new()),
        }
    }

    /// The page for people, which is empty if nothing on it is new.
    fn page(&mut self) -> String {
        let Form::Text(pages) = &mut self.form else { return String::new() };
        let mut lines = match (&self.problem, self.cluster.pods.is_empty()) {
            (Some(_), true) => Vec::new(),
            _ => self.hosts.lines(&self.cluster),
        };
        if let Some(error) = &self.problem {
            lines.extend([String::new()].into_iter().filter(|_| !lines.is_empty()).collect::<Vec<_>>());
            lines.extend(error.to_string().lines().map(str::to_owned));
        }
        pages.show(lines)
    }
}

fn nodes_line(cluster: &Cluster, is_json: bool) -> Result<String> {
    if is_json { line(&Line::Nodes(printed_nodes(cluster))) } else { Ok(String::new()) }
}

fn line(value: &impl Serialize) -> Result<String> {
    serde_json::to_string(value).map(|text| text + "\n").map_err(|e| Error::new(Kind::Internal, e.to_string()))
}
