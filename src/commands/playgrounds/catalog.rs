//! `catalog`: the playgrounds that can be started, and what one of them has.

use clap::ValueEnum;
use clap_complete::ArgValueCompleter;

use crate::{
    app::App,
    commands::{candidates, playgrounds::exercises::Wanted},
    error::{Result, printable},
    labs::{
        Labs,
        catalog::{self, Conditions},
        wire::{CatalogEntry, InitCondition},
    },
    records::names,
    ui::{notice, out},
};

/// List the playgrounds that you can start, or show one; or list challenges, tutorials or lessons.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Show this one: its machines, and the choices of its start.
    #[arg(value_name = "NAME", add = ArgValueCompleter::new(candidates::catalog), conflicts_with_all = ["filter", "quiet"])]
    name: Option<String>,
    /// List only these. Without it, those of the platform and your own.
    #[arg(short, long, value_enum)]
    filter: Option<Filter>,
    #[command(flatten)]
    learning: Wanted,
    /// Print only the names.
    #[arg(short, long, conflicts_with = "json")]
    quiet: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// The platform's filters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Filter {
    /// Your own.
    MyCustom,
    /// Those that you started last.
    Recent,
    /// Those that are started most.
    Popular,
    /// Those of other authors.
    Community,
    /// Those from which one can make one's own.
    Base,
}

impl Filter {
    /// The word that the platform knows.
    fn word(self) -> &'static str {
        match self {
            Filter::MyCustom => "my-custom",
            Filter::Recent => "recent",
            Filter::Popular => "popular",
            Filter::Community => "community",
            Filter::Base => "base",
        }
    }
}

/// Prints the catalogue, or one entry.
///
/// # Errors
/// The platform's; [`Kind::NotFound`](crate::error::Kind::NotFound) for an unknown name.
pub(crate) async fn run(app: &App, args: Args) -> Result<()> {
    let labs = app.labs().await?;
    if let Some(name) = &args.name {
        return show(app, &labs, name, args.json).await;
    }
    if args.learning.list(app, &labs, args.json, args.quiet).await? {
        return Ok(());
    }
    let (mut entries, own) = match args.filter {
        Some(filter) => (labs.filtered_catalog(filter.word()).await?, Vec::new()),
        None => startable(app, &labs).await?,
    };
    let is_own = |entry: &CatalogEntry| own.contains(&entry.name) || args.filter == Some(Filter::MyCustom);
    let mine: Vec<String> = entries.iter().filter(|entry| is_own(entry)).map(|entry| entry.name.clone()).collect();
    // The platform's order of those two tells something.
    if !matches!(args.filter, Some(Filter::Recent | Filter::Popular)) {
        entries.sort_by(|a, b| a.name.cmp(&b.name));
    }
    if args.json {
        return out::json(&entries);
    }
    if args.quiet {
        return out::lines(entries.iter().map(|entry| printable(&entry.name)).collect());
    }
    if entries.is_empty() {
        return out::line(match args.filter {
            Some(Filter::MyCustom) => "You have made no playgrounds of your own.",
            _ => "There are none.",
        });
    }
    let me = match entries.iter().any(|entry| !entry.owner.is_empty() && !mine.contains(&entry.name)) {
        true => Some(labs.me().await?.id),
        false => None,
    };
    let by = |entry: &CatalogEntry| match entry.owner.as_str() {
        "" => "the platform".to_owned(),
        _ if mine.contains(&entry.name) => "you".to_owned(),
        owner if Some(owner) == me.as_deref() => "you".to_owned(),
        owner => printable(owner),
    };
    let row = |entry: &CatalogEntry| {
        vec![printable(&entry.name), printable(&entry.title), by(entry), printable(&entry.description)]
    };
    out::table(&["NAME", "TITLE", "BY", "DESCRIPTION"], entries.iter().map(row).collect())
}

/// The official playgrounds and the account's own, with the names of the latter. Remembers all of them for completion.
///
/// # Errors
/// The platform's, for the official ones. A failure to list one's own is only reported.
async fn startable(app: &App, labs: &Labs) -> Result<(Vec<CatalogEntry>, Vec<String>)> {
    // One after the other, because a platform that does not answer the first is not asked the second.
    let mut entries = labs.catalog().await?;
    let own = match labs.own_playgrounds().await {
        Ok(own) => own,
        Err(error) => {
            notice::line(&format!("your own playgrounds cannot be listed: {}", error.message()));
            // Those that were remembered stay so.
            return Ok((entries, Vec::new()));
        }
    };
    let names = own.iter().map(|entry| entry.name.clone()).collect();
    let is_new = |entry: &CatalogEntry| entries.iter().all(|known| known.name != entry.name);
    let own: Vec<CatalogEntry> = own.into_iter().filter(is_new).collect();
    entries.extend(own);
    names::remember_catalog(&app.folders, app.platform, &entries);
    Ok((entries, names))
}

/// Prints one entry.
///
/// # Errors
/// The platform's.
async fn show(app: &App, labs: &Labs, name: &str, json: bool) -> Result<()> {
    let mut entry = match catalog::entry(labs, name).await {
        Ok(entry) => entry,
        Err(error) => return Err(catalog::with_nearest(labs, name, error).await),
    };
    let conditions = catalog::conditions(labs, &entry).await?;
    if let Conditions::Known(values) = &conditions {
        entry.init_conditions.get_or_insert_default().values.clone_from(values);
    }
    if json {
        return out::json(&entry);
    }
    let mut lines = vec![format!("{}: {}", printable(&entry.name), printable(&entry.title))];
    if !entry.description.is_empty() {
        lines.push(printable(&entry.description));
    }
    if !entry.base.is_empty() {
        lines.push(format!("Made from {}.", printable(&entry.base)));
    }
    if !entry.page_url.is_empty() {
        lines.push(printable(&entry.page_url));
    }
    out::lines(lines)?;
    out::line("")?;
    let machine = |machine: &crate::labs::wire::Machine| {
        let users: Vec<String> = machine.users.iter().map(|user| printable(&user.name)).collect();
        let ssh = if machine.no_ssh { "no" } else { "yes" };
        vec![printable(&machine.name), ssh.to_owned(), users.join(", ")]
    };
    out::table(&["MACHINE", "SSH", "USERS"], entry.machines.iter().map(machine).collect())?;
    match conditions {
        Conditions::Known(all) if !all.is_empty() => {
            out::line("")?;
            out::table(&["CHOICE", "DEFAULT", "VALUES"], all.iter().map(choice).collect())?;
            let options: Vec<String> = all.iter().filter(|one| one.is_needed()).map(catalog::option).collect();
            let start = [vec![printable(&entry.name)], options].concat().join(" ");
            out::line("")?;
            out::line(&app.platform.commands(&format!("Start it: `labctl-ssh-proxy start {start}`")))
        }
        Conditions::Known(_) | Conditions::Unknown => Ok(()),
    }
}

/// The row of a choice.
fn choice(one: &InitCondition) -> Vec<String> {
    let values = match (&one.options[..], &one.placeholder[..], &one.validation_regex[..]) {
        ([], "", "") => "any text".to_owned(),
        ([], example, "") => format!("any text, such as {}", printable(example)),
        ([], "", pattern) => printable(pattern),
        ([], example, pattern) => format!("{}, such as {}", printable(pattern), printable(example)),
        (options, ..) => printable(&options.join(", ")),
    };
    let default = match (&one.default[..], one.nullable) {
        ("", true) => "none".to_owned(),
        ("", false) => "(needed)".to_owned(),
        (default, _) => printable(default),
    };
    vec![printable(&one.key), default, values]
}
