//! The entries in the ssh configuration for the existing playgrounds.

use futures_util::future::join_all;

use super::{forget::forget, listed::host};
use crate::{
    app::App,
    error::{Error, Kind, Result, printable},
    labs::{
        Labs, find,
        wire::{Machine, Play},
    },
    platform::{Platform, is_id},
    records::{aliases::Aliases, listeners, names},
    ssh_config::{
        self,
        entries::{Entry, Listening},
    },
    target::{PREFIX, is_label},
    ui::notice,
    wake::preparation::learn_ssh,
};

/// Number of missing playgrounds to ask the platform about in one run, because each costs a request.
const AT_ONCE: usize = 8;

/// Returns the entries for the ssh configuration: one for each playground, and one for each machine if a playground has
/// several. Machines without SSH access are left out. For the embedded platform, the names of its catalogue are listed
/// as well, because the wildcard entry leads to the real platform.
///
/// # Errors
/// The platform's.
pub(crate) async fn entries(app: &App, labs: &Labs) -> Result<Vec<Entry>> {
    let (entries, left_out) = gather(app, labs, find::all(labs).await?).await?;
    for why in left_out {
        notice::line(&format!("labctl-ssh-proxy: {why}"));
    }
    Ok(entries)
}

/// Returns the entries for `plays`.
///
/// # Errors
/// The platform's.
pub(crate) async fn entries_of(app: &App, labs: &Labs, plays: Vec<Play>) -> Result<Vec<Entry>> {
    let (entries, left_out) = gather(app, labs, plays).await?;
    for why in left_out {
        log::warn!("{why}");
    }
    Ok(entries)
}

/// Returns the entries for `plays`, and a sentence about each that cannot be written.
async fn gather(app: &App, labs: &Labs, mut plays: Vec<Play>) -> Result<(Vec<Entry>, Vec<String>)> {
    plays.retain(|play| !find::is_gone(play));
    plays.sort_by(|a, b| a.id.cmp(&b.id));
    let mut entries = Vec::new();
    let (memory, aliases) = (app.memory(), app.aliases());
    for play in &mut plays {
        learn_ssh(labs, &memory, play).await;
        let machines: Vec<_> =
            play.machines.iter().filter(|machine| !play.has_no_ssh(&machine.name)).cloned().collect();
        if play.machines.is_empty() || !machines.is_empty() {
            let alias = aliases.label(&play.id);
            add_entries(&mut entries, app.platform, &host(play), (&play.title, alias), &machines);
        }
    }
    if app.platform == Platform::Local {
        let (official, own) = tokio::try_join!(labs.catalog(), labs.own_playgrounds())?;
        for mut kind in official.into_iter().chain(own) {
            kind.machines.retain(|machine| !machine.no_ssh);
            let host = format!("{PREFIX}{}", kind.name);
            add_entries(&mut entries, app.platform, &host, (&kind.title, None), &kind.machines);
        }
    }
    // An entry of one that does not listen would lead to whichever program has its port then.
    let active =
        listeners::all(&app.folders).into_iter().filter(|listener| listeners::is_active(&app.folders, listener));
    for listener in active.filter(|listener| listener.local == (app.platform == Platform::Local)) {
        entries.push(Entry {
            host: listener.name(),
            user: listener.user,
            platform: app.platform,
            title: listener.title,
            alias: None,
            listener: Some(Listening { port: listener.port, to: listener.host }),
        });
    }
    let mut left_out = Vec::new();
    entries.retain(|entry| {
        let Err(error) = entry.check() else { return true };
        let (host, title) = (printable(&entry.host), printable(&entry.title));
        left_out.push(format!("{host} ({title}) is left out of the configuration: {}", error.message()));
        false
    });
    Ok((entries, left_out))
}

/// Adds the entry of a playground, and one for each of its machines if there are several.
fn add_entries(
    entries: &mut Vec<Entry>,
    platform: Platform,
    host: &str,
    (title, alias): (&str, Option<&str>),
    machines: &[Machine],
) {
    let mut add = |host: String, user: &str, title: String, alias: Option<String>| {
        entries.push(Entry { host, user: user.to_owned(), platform, title, alias, listener: None });
    };
    let user = machines.first().map_or("root", Machine::default_user);
    add(host.to_owned(), user, title.to_owned(), alias.map(str::to_owned));
    for machine in machines.iter().filter(|machine| machines.len() > 1 && is_label(&machine.name)) {
        let name = &machine.name;
        let alias = alias.map(|alias| format!("{alias}.{name}"));
        add(format!("{host}.{name}"), machine.default_user(), format!("{title}: {name}"), alias);
    }
}

/// Updates the ssh configuration. A failure is only a warning, because the command itself has succeeded.
pub(crate) async fn refresh_entries(app: &App, labs: &Labs) {
    match find::all(labs).await {
        Ok(plays) => refresh_with(app, labs, &plays).await,
        Err(error) => notice::line(&out_of_date(&error)),
    }
}

/// Same as [`refresh_entries`], with a list of playgrounds that the caller already has.
pub(super) async fn refresh_with(app: &App, labs: &Labs, plays: &[Play]) {
    names::remember_plays(&app.folders, app.platform, plays);
    if let Err(error) = Aliases::load(&app.folders, app.platform) {
        notice::line(&format!("labctl-ssh-proxy: {}", error.message()));
    }
    forget_the_gone(app, labs, plays).await;
    if !ssh_config::is_managed(&app.folders) {
        return;
    }
    let refreshed = match entries_of(app, labs, plays.to_vec()).await {
        Ok(entries) => ssh_config::refresh(&app.folders, app.platform, entries).await,
        Err(error) => Err(error),
    };
    if let Err(error) = refreshed {
        notice::line(&out_of_date(&error));
    }
}

/// Forgets playgrounds that were destroyed elsewhere, a few at a time. Asks the platform about each one first.
async fn forget_the_gone(app: &App, labs: &Labs, plays: &[Play]) {
    let is_listed = |id: &str| plays.iter().any(|play| play.id == id && !find::is_gone(play));
    let mut known = app.memory().labels();
    // A damaged record has its warning where it is used.
    let aliases = Aliases::load(&app.folders, app.platform).unwrap_or_default();
    known.extend(
        aliases.plays().filter(|play| !known.iter().any(|label| label == play)).map(str::to_owned).collect::<Vec<_>>(),
    );
    let missing = known.into_iter().filter(|label| is_id(label) && !is_listed(label));
    let look = async |id: String| {
        if is_gone(labs, &id).await
            && let Err(error) = forget(app, &id).await
        {
            log::warn!("{}", error.message());
        }
    };
    join_all(missing.take(AT_ONCE).map(look)).await;
}

/// Asks the platform about a playground that is in no list. One of which it says nothing counts as there.
pub(super) async fn is_gone(labs: &Labs, id: &str) -> bool {
    match labs.play(id).await {
        Ok(play) => find::is_gone(&play),
        Err(error) => error.kind() == Kind::NotFound,
    }
}

fn out_of_date(error: &Error) -> String {
    format!("labctl-ssh-proxy: the ssh configuration is not up to date: {}", error.message())
}
