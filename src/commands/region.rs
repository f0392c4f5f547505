//! `region`: shows or chooses where new playgrounds run.

use clap::builder::PossibleValuesParser;
use serde::Serialize;

use crate::{
    app::App,
    error::{Error, Kind, Result, printable},
    ui::{notice, out},
};

/// The platform's regions, as the official client has them.
const REGIONS: [&str; 2] = ["eu", "ap"];

/// Show where new playgrounds run, or choose it. Those that exist stay where they are.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The region: Europe or Asia-Pacific. Without it, the command shows the account's.
    #[arg(value_parser = PossibleValuesParser::new(REGIONS))]
    region: Option<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// The region in `region --json`.
#[derive(Serialize)]
struct Chosen<'a> {
    region: Option<&'a str>,
}

/// Prints the region for new playgrounds, after it is chosen if one is given.
///
/// # Errors
/// The platform's, and [`Kind::Refused`] when it stays with another region.
pub(crate) async fn run(app: &App, args: Args) -> Result<()> {
    let labs = app.labs().await?;
    let me = match &args.region {
        Some(region) => labs.prefer_region(region).await?,
        None => labs.me().await?,
    };
    let region = me.preferred_region.as_deref().filter(|region| !region.is_empty());
    if args.region.is_some() && region != args.region.as_deref() {
        let message = format!("the platform stays with region {}", region.map_or("none".into(), printable));
        return Err(Error::new(Kind::Refused, message).with_hint("see `labctl-ssh-proxy region`"));
    }
    match region {
        _ if args.json => out::json(&Chosen { region }),
        Some(region) => out::line(&printable(region)),
        None => {
            notice::line(&app.platform.commands("No region is chosen. Choose one with `labctl-ssh-proxy region eu`."));
            Ok(())
        }
    }
}
