//! Candidates for shell completion: hosts, playgrounds, machines, containers and names of the catalogue. They come from
//! local copies. The platform is asked only when there is no copy yet, and a machine for its containers, which change
//! all the time, when one of them is begun.

use std::{
    env,
    ffi::{OsStr, OsString},
    path::{Path, PathBuf},
    time::Duration,
};

use clap::builder::StyledStr;
use clap_complete::CompletionCandidate;
use futures_util::future::join_all;
use helper::wire::Listing;
use tokio::time::timeout;

use crate::{
    app::App,
    cluster::{api::Api, find::labels, pods::Pod, reading, watch},
    commands::{
        completions::is_for_bash,
        open::ide,
        playgrounds::choice::KINDS,
        unasked,
        visit::{self, Visit},
    },
    door::{Door, ROOT, login},
    error::{Result, printable},
    inside,
    labs::{Labs, find, wire::CatalogEntry},
    platform::Platform,
    records::names::{self, Names},
    settings::LOCAL_VARIABLE,
    ssh::client::Login,
    ssh_config::{entries::Entry, state::State},
    target::{POD, PREFIX, Playground, Target, is_label},
};

/// Time limit for asking the platform while the user waits for the completion.
const PATIENCE: Duration = Duration::from_secs(2);
/// Time limit for asking a machine for its containers. The first time, the helper is put there.
const PATIENCE_FOR_CONTAINERS: Duration = Duration::from_secs(4);

fn candidate(value: impl Into<String>, help: &str) -> CompletionCandidate {
    let help = printable(help);
    CompletionCandidate::new(value.into()).help((!help.is_empty()).then(|| StyledStr::from(help)))
}

/// Returns the playgrounds that `typed` may become: by host name, or by title once the title is begun.
pub(crate) fn playgrounds(typed: &OsStr) -> Vec<CompletionCandidate> {
    let known = names(What::Plays).plays.unwrap_or_default();
    let hosts = known.iter().flat_map(|known| known.names().map(|name| candidate(name, &known.title))).collect();
    begun(typed, hosts, &known)
}

/// Returns all that ssh can reach and that `typed` may become: playgrounds, their machines, and names of the catalogue
/// with theirs; or the containers of a machine once its name is complete.
pub(crate) fn hosts(typed: &OsStr) -> Vec<CompletionCandidate> {
    if let Some(play) = cluster_of_pods(typed) {
        let all = pods_of(&play).into_iter().map(|(name, about)| candidate(format!("{play}.{POD}.{name}"), &about));
        return begun(typed, all.collect(), &[]);
    }
    if let Some(machine) = machine_of_containers(typed) {
        let all = containers_on(std::slice::from_ref(&machine)).into_iter();
        let all = all.map(|(label, image)| candidate(format!("{machine}.{label}"), &image)).collect();
        return begun(typed, all, &[]);
    }
    let names = names(What::Hosts);
    let plays = names.plays.unwrap_or_default();
    let catalog = names.catalog.unwrap_or_default();
    let begin = &*typed.to_string_lossy();
    let machines =
        plays.iter().flat_map(|known| known.hosts(begin).into_iter().map(|host| candidate(host, &known.title)));
    let named =
        catalog.iter().flat_map(|entry| entry.hosts(begin).into_iter().map(|host| candidate(host, &entry.title)));
    begun(typed, machines.chain(named).collect(), &plays)
}

/// Returns the playground, as its host name is typed, behind which a pod is begun.
fn cluster_of_pods(typed: &OsStr) -> Option<String> {
    let (play, _) = typed.to_str()?.split_once(&format!(".{POD}."))?;
    Target::parse(play).is_ok_and(|target| target.machine.is_none()).then(|| play.to_owned())
}

/// Returns the pods that `typed` may become, of the playground on the command line, with their containers. Where it names
/// none yet, those of the only playground that runs.
pub(crate) fn pods(typed: &OsStr) -> Vec<CompletionCandidate> {
    let plays = names(What::Plays).plays.unwrap_or_default();
    let pods = playground_meant(&plays).map(|known| pods_of(&known.host)).unwrap_or_default();
    let all = pods.into_iter().map(|(name, about)| candidate(name.replace('.', "/"), &about));
    begun(typed, all.collect(), &[])
}

/// Returns the playground that runs and is named on the command line, or is the only one.
fn playground_meant(plays: &[names::Known]) -> Option<&names::Known> {
    let (meant, up) = (meant(plays), plays.iter().filter(|known| !known.down).collect::<Vec<_>>());
    match (&meant[..], &up[..]) {
        ([known], _) | ([], [known]) if !known.down => Some(known),
        _ => None,
    }
}

/// Returns the labels of the pods of a playground's cluster, and of their containers where there are several, each with a
/// word about it.
fn pods_of(play: &str) -> Vec<(String, String)> {
    let Some(app) = app() else { return Vec::new() };
    let key = format!("{play}.{POD}");
    let known = Names::load(&app.folders, app.platform).containers.remove(&key);
    if let Some(known) = known.filter(names::Containers::is_fresh) {
        return known.all;
    }
    let all = in_time(PATIENCE_FOR_CONTAINERS, pods_in(&app, play)).flatten().unwrap_or_default();
    names::remember_containers(&app.folders, app.platform, &key, all.clone());
    all
}

/// Asks the cluster of a playground, if that runs.
async fn pods_in(app: &App, play: &str) -> Option<Vec<(String, String)>> {
    let labs = labs(app).await?;
    let place = visit::find_place(&labs, &Visit { host: play.to_owned(), ..Visit::default() }).await.ok()??;
    let machine = find::machine(&place.play, reading::usual_machine(&place.play)).ok()?;
    if !place.is_ready() || place.play.has_no_ssh(&machine.name) {
        return None;
    }
    let ssh = Door::unasked(app, &labs).await.ok()?.open(&login(&place.play, &machine.name, ROOT), None).await.ok()?;
    let api = Api::open(ssh, machine.default_user()).await.ok()?;
    let pods = watch::list::<Pod>(&api, None).await;
    api.into_ssh().close().await;
    let mut all = Vec::new();
    for pod in pods.ok()?.values() {
        let containers = pod.containers();
        let named = |container: Option<&str>| labels(pod, container).map(|name| name.to_string());
        all.extend(named(None).map(|name| (name, printable(&pod.word()))));
        for one in containers.iter().filter(|_| containers.len() > 1) {
            all.extend(named(Some(&one.name)).map(|name| (name, printable(&one.image))));
        }
    }
    Some(all)
}

/// Returns the machine, as its host name is typed, behind which a container is begun.
fn machine_of_containers(typed: &OsStr) -> Option<String> {
    let (machine, _) = typed.to_str()?.rsplit_once('.')?;
    let target = Target::parse(machine).ok()?;
    (target.machine.is_some() && target.inside.is_none()).then(|| machine.to_owned())
}

/// Returns the containers that `typed` may become, of the machine or the playground on the command line. Where it names
/// none yet, those of the only playground that runs.
pub(crate) fn containers(typed: &OsStr) -> Vec<CompletionCandidate> {
    let plays = names(What::Plays).plays.unwrap_or_default();
    let is_machine = |target: &Target| target.machine.is_some() && target.inside.is_none();
    let named = line(env::args_os()).filter_map(|word| Target::parse(word.to_str()?).ok().filter(is_machine));
    let mut machines: Vec<String> = named.map(|target| target.to_string()).collect();
    if machines.is_empty() {
        let of = |known: &names::Known| known.machines.iter().map(|one| format!("{}.{one}", known.host)).collect();
        machines = playground_meant(&plays).map(of).unwrap_or_default();
    }
    let mut all = containers_on(&machines);
    all.sort_unstable();
    all.dedup_by(|one, other| one.0 == other.0);
    begun(typed, all.into_iter().map(|(label, image)| candidate(label, &image)).collect(), &[])
}

/// Returns the labels and the images of the containers that run on these machines, as far as they run themselves.
fn containers_on(machines: &[String]) -> Vec<(String, String)> {
    let Some(app) = app() else { return Vec::new() };
    let mut known = Names::load(&app.folders, app.platform).containers;
    let mut fresh = |machine: &String| known.remove(machine).filter(names::Containers::is_fresh);
    let (mut all, mut others) = (Vec::new(), Vec::new());
    for (machine, known) in machines.iter().map(|machine| (machine, fresh(machine))) {
        match known {
            Some(known) => all.extend(known.all),
            None => others.push(machine),
        }
    }
    // One that is silent costs no other.
    let in_its_time = async |machine| timeout(PATIENCE_FOR_CONTAINERS, running_on(&app, machine)).await.ok().flatten();
    let asked = join_all(others.iter().map(|machine| in_its_time(machine)));
    let mut answers =
        if others.is_empty() { None } else { in_time(PATIENCE_FOR_CONTAINERS * 2, asked) }.into_iter().flatten();
    for machine in others {
        let listing = answers.next().flatten().unwrap_or_default();
        let running = listing.containers.into_iter().filter(|one| one.state == "running" && is_label(&one.label));
        let running: Vec<_> = running.map(|one| (one.label, printable(&one.image))).collect();
        // One that does not answer is not asked at each key either.
        names::remember_containers(&app.folders, app.platform, machine, running.clone());
        all.extend(running);
    }
    all
}

/// Returns the containers of a machine, if it runs.
async fn running_on(app: &App, machine: &str) -> Option<Listing> {
    let labs = labs(app).await?;
    let place = visit::find_place(&labs, &Visit { host: machine.to_owned(), ..Visit::default() }).await.ok()??;
    if !place.is_ready() || place.play.has_no_ssh(&place.machine.name) {
        return None;
    }
    let login = Login { alias: machine.to_owned(), ..login(&place.play, &place.machine.name, ROOT) };
    unasked::on_machine(app, &labs, &login, Some(machine), async |client| inside::list(client).await).await.ok()
}

/// Returns those that begin with `typed`, and the titles of `plays` that do.
fn begun(typed: &OsStr, mut all: Vec<CompletionCandidate>, plays: &[names::Known]) -> Vec<CompletionCandidate> {
    all.retain(|candidate| candidate.get_value().as_encoded_bytes().starts_with(typed.as_encoded_bytes()));
    all.extend(titles(typed, plays));
    // The names of attempts that go on, once one is begun.
    let learning = plays.iter().filter(|known| !known.learning.is_empty() && !typed.is_empty());
    let learning = learning.filter(|known| known.learning.starts_with(&*typed.to_string_lossy()));
    all.extend(learning.map(|known| candidate(&known.learning, &known.title)));
    all
}

/// Returns the titles that `typed` begins, in any case, and that mean one playground. None for an empty word, because
/// the host names stand there with the titles beside them.
fn titles(typed: &OsStr, plays: &[names::Known]) -> Vec<CompletionCandidate> {
    let typed = typed.to_string_lossy().to_lowercase();
    // The playgrounds of an ssh configuration are listed by machine.
    let is_play = |known: &&names::Known| !known.host.contains('.');
    let title = |known: &names::Known| {
        let same = |other: &&names::Known| other.title.to_lowercase() == known.title.to_lowercase();
        let word = if is_for_bash() { escaped(&known.title) } else { known.title.clone() };
        // A title that starts with a dash would be taken for an option.
        let fits = !typed.is_empty() && word.to_lowercase().starts_with(&typed) && !known.title.starts_with('-');
        let means_one = || plays.iter().filter(is_play).filter(same).count() == 1;
        (fits && printable(&known.title) == known.title && means_one()).then(|| candidate(word, &known.host))
    };
    plays.iter().filter(is_play).filter_map(title).collect()
}

/// Escapes a word for bash.
fn escaped(word: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "-_./+@%,".contains(c);
    word.chars().flat_map(|c| (!plain(c)).then_some('\\').into_iter().chain([c])).collect()
}

/// Returns the machines of the playground on the command line, or of all playgrounds if it names none yet.
pub(crate) fn machines() -> Vec<CompletionCandidate> {
    let plays = names(What::Plays).plays.unwrap_or_default();
    let meant = meant(&plays);
    let meant = if meant.is_empty() { plays.iter().collect() } else { meant };
    let mut machines: Vec<&String> = meant.iter().flat_map(|known| &known.machines).collect();
    machines.sort_unstable();
    machines.dedup();
    machines.into_iter().map(CompletionCandidate::new).collect()
}

/// Returns the playgrounds that a word of the command line names.
fn meant(plays: &[names::Known]) -> Vec<&names::Known> {
    let words: Vec<OsString> = line(env::args_os()).collect();
    let named = |known: &&names::Known| {
        let calls =
            [known.host.as_str(), known.host.strip_prefix(PREFIX).unwrap_or_default(), &known.title, &known.learning];
        let calls = calls.into_iter().chain(known.alias.as_deref()).collect::<Vec<_>>();
        words.iter().any(|word| calls.iter().any(|name| !name.is_empty() && word == name))
    };
    plays.iter().filter(named).collect()
}

/// Returns what is exposed of the playground on the command line: its ports, and the ids of its web terminals. Only the
/// platform knows them.
pub(crate) fn exposures() -> Vec<CompletionCandidate> {
    let plays = names(What::Plays).plays.unwrap_or_default();
    let target = meant(&plays).first().and_then(|known| Target::parse(&known.host).ok());
    let Some(Target { playground: Playground::Id(id), .. }) = target else { return Vec::new() };
    let Some(app) = app() else { return Vec::new() };
    let asked = in_time(PATIENCE, async {
        let labs = labs(&app).await?;
        let (ports, shells) = tokio::join!(labs.ports(&id), labs.shells(&id));
        Some((ports.unwrap_or_default(), shells.unwrap_or_default()))
    });
    let (ports, shells) = asked.flatten().unwrap_or_default();
    let ports = ports.iter().map(|port| candidate(port.number.to_string(), &port.url));
    let shells = shells.iter().filter(|shell| printable(&shell.id) == shell.id);
    ports.chain(shells.map(|shell| candidate(&shell.id, &shell.url))).collect()
}

/// Returns everything that can be started and that `typed` may become: the catalogue, and stopped playgrounds.
pub(crate) fn startable(typed: &OsStr) -> Vec<CompletionCandidate> {
    let names = names(What::Catalog);
    let (catalog, mut plays) = (names.catalog.unwrap_or_default(), names.plays.unwrap_or_default());
    plays.retain(|known| known.down);
    let stopped = plays.iter().flat_map(|known| known.names().map(|name| candidate(name, &known.title)));
    let mut all: Vec<_> = catalog.iter().map(|entry| candidate(&entry.name, &entry.title)).chain(stopped).collect();
    // There are hundreds of these, so they are offered once one is begun.
    if !typed.is_empty() {
        let exercises = names.exercises.values().flatten();
        all.extend(exercises.map(|entry| candidate(&entry.name, &entry.title)));
    }
    begun(typed, all, &plays)
}

/// Returns the entries of the catalogue that `typed` may become.
pub(crate) fn catalog(typed: &OsStr) -> Vec<CompletionCandidate> {
    let catalog = names(What::Catalog).catalog.unwrap_or_default();
    begun(typed, catalog.iter().map(|entry| candidate(&entry.name, &entry.title)).collect(), &[])
}

/// Returns the filters of `list` that `typed` may become.
pub(crate) fn filters(typed: &OsStr) -> Vec<CompletionCandidate> {
    let catalog = names(What::Catalog).catalog.unwrap_or_default();
    let named = catalog.iter().map(|entry| candidate(format!("playground={}", entry.name), &entry.title));
    let kinds = KINDS.iter().skip(1).map(|kind| candidate(format!("{kind}="), ""));
    begun(typed, named.chain(kinds).collect(), &[])
}

/// Returns the choices of the entry on the command line that `typed` may become.
pub(crate) fn choices(typed: &OsStr) -> Vec<CompletionCandidate> {
    let catalog = names(What::Catalog).catalog.unwrap_or_default();
    let words: Vec<OsString> = line(env::args_os()).collect();
    let named = |entry: &&names::Entry| words.iter().any(|word| word == entry.name.as_str());
    let choices = catalog.iter().filter(named).flat_map(|entry| &entry.choices);
    let plain = choices.filter(|choice| printable(choice) == **choice);
    let all = plain.map(|choice| if is_for_bash() { escaped(choice) } else { choice.clone() });
    begun(typed, all.map(CompletionCandidate::new).collect(), &[])
}

/// Returns the editors that `open` knows.
pub(crate) fn editors() -> Vec<CompletionCandidate> {
    ide::ALL.iter().map(|ide| candidate(ide.name, ide.title)).collect()
}

/// The names that a completion needs.
#[derive(Clone, Copy, PartialEq)]
enum What {
    Plays,
    Catalog,
    /// Both.
    Hosts,
}

/// Returns the words of the command line as the user typed them. The shell's script passes them after a `--`. Words
/// after a second `--` are skipped, because they belong to another program.
fn line(arguments: impl Iterator<Item = OsString>) -> impl Iterator<Item = OsString> {
    arguments.skip_while(|word| word != "--").skip(1).take_while(|word| word != "--")
}

/// The global options on the command line, which select the platform and the home folder.
#[derive(Debug, Default, PartialEq)]
struct Globals {
    local: bool,
    home: Option<PathBuf>,
}

impl Globals {
    fn of(arguments: impl Iterator<Item = OsString>) -> Globals {
        let mut words = line(arguments);
        let mut globals = Globals::default();
        while let Some(word) = words.next() {
            match word.to_str() {
                Some("--local") => globals.local = true,
                Some("--home") => {
                    // bash splits words at `=` as well.
                    let value = words.next().filter(|word| word != "=").or_else(|| words.next());
                    globals.home = value.map(folder);
                }
                Some(word) if word.starts_with("--home=") => {
                    globals.home = Some(folder(word["--home=".len()..].into()))
                }
                Some(_) | None => {}
            }
        }
        globals
    }
}

/// Converts a typed folder to a path. The shell has not removed quotes or expanded `~` yet.
fn folder(word: OsString) -> PathBuf {
    let Some(text) = word.to_str() else { return word.into() };
    match text.strip_prefix("~/").zip(dirs::home_dir()) {
        Some((below, home)) => home.join(below),
        None if cfg!(windows) => text.replace('"', "").into(),
        None => text.replace(['"', '\'', '\\'], "").into(),
    }
}

/// The app of the platform and the home folder that the command line selects.
fn app() -> Option<App> {
    let set = |value: &OsStr| !matches!(value.to_str(), Some("" | "0" | "false" | "no" | "off"));
    let Globals { local, home } = Globals::of(env::args_os());
    let local = local || env::var_os(LOCAL_VARIABLE).is_some_and(|v| set(&v));
    let platform = if local { Platform::Local } else { Platform::Labs };
    App::load(platform, home, true).ok().map(|(app, _)| app)
}

/// Runs a future while the user waits for the completion. `None` after a timeout.
fn in_time<T>(patience: Duration, future: impl Future<Output = T>) -> Option<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
    let done = runtime.block_on(async { tokio::time::timeout(patience, future).await.ok() });
    runtime.shutdown_background();
    done
}

/// Returns the names from the local copy, or from the platform if there is none. Errors only mean fewer candidates.
fn names(what: What) -> Names {
    let Some(app) = app() else { return Names::default() };
    let mut names = known_names(&app);
    if what != What::Catalog && names.plays.is_none() {
        names.plays = of_entries(&app);
    }
    let wants_plays = what != What::Catalog && names.plays.is_none();
    let wants_catalog = what != What::Plays && names.catalog.is_none();
    if !wants_plays && !wants_catalog {
        return names;
    }
    // After a timeout or an error, offer the names that are there.
    let _ = in_time(PATIENCE, ask(&app, wants_plays, wants_catalog));
    let asked = known_names(&app);
    Names { plays: asked.plays.or(names.plays), ..asked }
}

/// Returns the local copy of the names, with the readable ones.
fn known_names(app: &App) -> Names {
    let mut names = Names::load(&app.folders, app.platform);
    let aliases = app.aliases();
    for known in names.plays.iter_mut().flatten() {
        let id = known.host.strip_prefix(PREFIX).unwrap_or_default();
        known.alias = aliases.label(id).map(str::to_owned);
    }
    names
}

/// Returns the playgrounds that have entries in the ssh configuration.
fn of_entries(app: &App) -> Option<Vec<names::Known>> {
    let state = State::load(&app.folders).ok()??;
    let entries = state.entries.into_iter().filter(|entry| entry.platform == app.platform && entry.listener.is_none());
    let known =
        |entry: Entry| names::Known { host: entry.host, title: entry.title, alias: entry.alias, ..Default::default() };
    Some(entries.map(known).collect())
}

/// The platform's client. `None` where the embedded platform does not run, because a completion must not start it.
async fn labs(app: &App) -> Option<Labs> {
    if app.platform == Platform::Local && !is_there(&app.folders.socket()) {
        return None;
    }
    app.labs().await.ok()
}

async fn ask(app: &App, plays: bool, catalog: bool) -> Result<()> {
    let Some(labs) = labs(app).await else { return Ok(()) };
    if plays {
        names::remember_plays(&app.folders, app.platform, &find::all(&labs).await?);
    }
    if catalog {
        let (official, own) = tokio::join!(labs.catalog(), labs.own_playgrounds());
        let entries: Vec<CatalogEntry> = official?.into_iter().chain(own.unwrap_or_default()).collect();
        names::remember_catalog(&app.folders, app.platform, &entries);
    }
    Ok(())
}

fn is_there(socket: &Path) -> bool {
    #[cfg(unix)]
    {
        std::os::unix::net::UnixStream::connect(socket).is_ok()
    }
    #[cfg(not(unix))]
    {
        let _ = socket;
        false
    }
}

#[cfg(test)]
mod tests {
    use super::Globals;

    #[test]
    fn what_stands_before_tells_whose_names_are_meant() {
        let of = |line: &str| Globals::of(line.split(' ').map(Into::into));
        let moved = |local| Globals { local, home: Some("/a b".into()) };
        assert_eq!(of("program -- program ssh "), Globals::default());
        assert_eq!(of("program -- program --local ssh "), Globals { local: true, home: None });
        for home in ["--home \"/a\u{a0}b\"", "--home=/a\u{a0}b", "--home = /a\\\u{a0}b"] {
            // A backslash is a part of a path there, and no escape.
            if cfg!(windows) && home.contains('\\') {
                continue;
            }
            let line = format!("program -- program {home} ssh x --local");
            let words = line.split(' ').map(|word| word.replace('\u{a0}', " ").into());
            assert_eq!(Globals::of(words), moved(true), "{line}");
        }
        assert_eq!(of("program -- program ssh x -- --local"), Globals::default());
    }
}
