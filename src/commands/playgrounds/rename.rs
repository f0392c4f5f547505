//! `rename`: changes a playground's title and its alias.

use crate::{
    app::App,
    commands::{
        args::One,
        playgrounds::{
            alias::{self, Choice},
            entries::refresh_entries,
            listed::{host, report},
        },
        underway::ssh_command,
    },
    error::{Result, printable},
    labs::{find, wire::Action},
};

/// Change a playground's title, and with it the readable host name that ssh has for it.
///
/// A title makes an alias beside `playground-<id>`: "My lab" is `ssh my-lab`. If one of your hosts has that name, none is
/// made, and the command says so.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    one: One,
    /// The new title.
    #[arg(required_unless_present = "alias")]
    title: Option<String>,
    /// The alias: letters a-z, digits and hyphens. It stays when the title changes; `none` drops it.
    #[arg(long, value_name = "LABEL", value_parser = alias::choice)]
    alias: Option<Choice>,
}

/// Changes the title, at the platform and in the ssh configuration, and the alias.
///
/// # Errors
/// The platform's, and those of [`alias::check_given`] before anything is changed.
pub(crate) async fn run(app: &App, args: Args) -> Result<()> {
    let Args { one, title, alias: given } = args;
    let labs = app.labs().await?;
    let mut play = find::whole(&labs, &one.playground).await?;
    if let Some(Choice::Label(label)) = &given {
        alias::check_given(app, &labs, label, Some(&play)).await?;
    }
    if let Some(title) = &title {
        play = labs.act_and_look(&play.id, &Action::SetTitle { title: title.clone() }).await?;
        app.memory().note_acted();
    }
    alias::update(app, &labs, &play, given.as_ref(), title.as_deref()).await;
    refresh_entries(app, &labs).await;
    let sentence = match title {
        Some(_) => format!("{} is now called {}", host(&play), printable(&play.title)),
        None => format!("{} is called {}", host(&play), printable(&play.title)),
    };
    let sentence = match app.aliases().label(&play.id) {
        Some(_) => format!("{sentence}: {}", ssh_command(app, &play.id)),
        None => sentence,
    };
    report(app, &play, one.json, &sentence)
}
