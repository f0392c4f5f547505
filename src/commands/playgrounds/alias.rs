//! Readable names of playgrounds: made from the titles that the user sets, or given with `--alias`.

use crate::{
    app::App,
    commands::playgrounds::{entries::is_gone, forget::forget},
    error::{Error, Kind, Result},
    labs::{Labs, wire::Play},
    records::aliases::{self, Alias, Aliases},
    settings::AliasSource,
    ssh_config::taken::{self, Verdict},
    target::{alias, is_label},
    ui::notice,
};

/// The value of `--alias`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Choice {
    /// This label.
    Label(String),
    /// No alias.
    Dropped,
}

/// Reads the value of `--alias` for the argument parser.
///
/// # Errors
/// For text that cannot be a label, with the label that it would make.
pub(super) fn choice(text: &str) -> Result<Choice, String> {
    if text == alias::NONE {
        return Ok(Choice::Dropped);
    }
    alias::check(text).map(|()| Choice::Label(text.to_owned())).map_err(|why| {
        match alias::label(text).filter(|label| label != text && alias::check(label).is_ok()) {
            Some(label) => format!("it {why}; try `{label}`"),
            None => format!("it {why}; use letters a-z, digits and hyphens, such as my-lab"),
        }
    })
}

/// Checks a label that the user gives, before anything is changed. `play` is the playground, if it exists.
///
/// # Errors
/// [`Kind::Usage`] when a host or another playground has that name, [`Kind::File`] when the record is damaged.
pub(super) async fn check_given(app: &App, labs: &Labs, label: &str, play: Option<&Play>) -> Result<()> {
    if is_used(app, labs, play.map_or("", |play| &play.id), label).await? {
        return Err(in_use(label));
    }
    match taken::search(&app.folders, &names(label, play)).await {
        Verdict::Taken(name, why) => {
            Err(Error::new(Kind::Usage, format!("{label} cannot be an alias, because {name} {why}"))
                .with_hint("choose another one; nothing was changed"))
        }
        Verdict::Free | Verdict::Unknown(_) => Ok(()),
    }
}

/// Returns true if a playground other than `play` has this label. One that was destroyed elsewhere loses it.
async fn is_used(app: &App, labs: &Labs, play: &str, label: &str) -> Result<bool> {
    let Some((platform, owner)) = aliases::owner(&app.folders, play, label)? else { return Ok(false) };
    if platform != app.platform || !is_gone(labs, &owner).await {
        return Ok(true);
    }
    forget(app, &owner).await?;
    Ok(aliases::owner(&app.folders, play, label)?.is_some())
}

fn in_use(label: &str) -> Error {
    Error::new(Kind::Usage, format!("{label} is the alias of another playground"))
        .with_hint("choose another one; nothing was changed")
}

/// Gives a playground the alias that the command line names, or that its new title makes. A title that makes none, and
/// a label that is a host of the user's, do not fail the command.
pub(super) async fn update(app: &App, labs: &Labs, play: &Play, given: Option<&Choice>, title: Option<&str>) {
    let done = match (given, title) {
        (Some(Choice::Dropped), _) => set(app, play, None).map(drop),
        (Some(Choice::Label(label)), _) => give(app, play, label).await,
        (None, Some(title)) if app.settings.alias == AliasSource::Title => make(app, labs, play, title).await,
        (None, Some(title)) => drop_outdated(app, play, title).map(drop),
        (None, None) => Ok(()),
    };
    if let Err(error) = done {
        notice::line(&format!("labctl-ssh-proxy: {} gets no alias: {}", play.shown(), error.message()));
    }
}

/// Gives a playground a label that was checked before it was started, when its machines were not known.
async fn give(app: &App, play: &Play, label: &str) -> Result<()> {
    if let Verdict::Taken(name, why) = taken::search(&app.folders, &names(label, Some(play))).await {
        return Err(refused(&name, &why));
    }
    match set(app, play, Some(Alias { label: label.to_owned(), made: None }))? {
        true => Ok(()),
        false => Err(in_use(label)),
    }
}

/// Drops an alias that was made from another title than this one. Returns false if there is one that stays.
fn drop_outdated(app: &App, play: &Play, title: &str) -> Result<bool> {
    match Aliases::load(&app.folders, app.platform)?.of(&play.id) {
        Some(Alias { made: None, .. }) => Ok(false),
        Some(Alias { made, .. }) if *made == alias::label(title) => Ok(false),
        Some(_) => set(app, play, None),
        None => Ok(true),
    }
}

/// Makes an alias from a title. One that the user gave stays.
async fn make(app: &App, labs: &Labs, play: &Play, title: &str) -> Result<()> {
    if !drop_outdated(app, play, title)? {
        return Ok(());
    }
    let Some(base) = alias::label(title) else { return Ok(()) };
    if let Err(why) = alias::check(&base) {
        return Err(refused(&base, why));
    }
    for n in 1.. {
        let label = alias::numbered(&base, n);
        if is_used(app, labs, &play.id, &label).await? {
            continue;
        }
        match taken::search(&app.folders, &names(&label, Some(play))).await {
            Verdict::Taken(name, why) => return Err(refused(&name, &why)),
            Verdict::Unknown(why) => notice::line(&format!(
                "labctl-ssh-proxy: your DNS {why}, so it cannot tell whether {label} is one of your hosts"
            )),
            Verdict::Free => {}
        }
        if set(app, play, Some(Alias { label, made: Some(base.clone()) }))? {
            break;
        }
    }
    Ok(())
}

fn refused(name: &str, why: &str) -> Error {
    Error::new(Kind::Usage, format!("{name} {why}; `rename --alias` gives another one"))
}

fn set(app: &App, play: &Play, alias: Option<Alias>) -> Result<bool> {
    if alias.is_none() && Aliases::load(&app.folders, app.platform)?.of(&play.id).is_none() {
        return Ok(true);
    }
    aliases::set(&app.folders, app.platform, &play.id, alias)
}

/// The names that an alias brings into ssh's configuration.
fn names(label: &str, play: Option<&Play>) -> Vec<String> {
    let machines = play.map(|play| &play.machines[..]).filter(|machines| machines.len() > 1).unwrap_or_default();
    let machines = machines.iter().filter(|machine| is_label(&machine.name));
    std::iter::once(label.to_owned()).chain(machines.map(|machine| format!("{label}.{}", machine.name))).collect()
}
