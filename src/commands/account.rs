//! The commands about the account: `login`, `logout`, `whoami`.

use std::{
    io::{BufRead, IsTerminal, stdin},
    time::Duration,
};

use serde::Serialize;
use tokio::time::{Instant, sleep};

use crate::{
    app::App,
    error::{Error, Kind, Result, printable},
    labs::{
        Labs,
        account::Account,
        address::is_page,
        net::Dialer,
        wire::{Me, PremiumAccess},
    },
    platform::Platform,
    ui::{input, notice, out},
};

/// Interval between two checks whether the user has confirmed the login. Same as the official client's.
const POLL: Duration = Duration::from_secs(2);
/// Lifetime of a login page at the platform.
const CONFIRM_WITHIN: Duration = Duration::from_secs(10 * 60);

/// The hint for a login that may not ask.
const PASS_THEM: &str = "pass a session id and an access token: with --from-env, or with --stdin from a file or a pipe";

/// Log in to the platform, in the browser or with the credentials that you pass.
#[derive(Debug, clap::Args)]
pub(crate) struct Login {
    /// Read the session id and the access token from standard input, one per line.
    #[arg(long, conflicts_with = "from_env")]
    stdin: bool,
    /// Read them from IXIMIUZ_SESSION_ID and IXIMIUZ_ACCESS_TOKEN.
    #[arg(long)]
    from_env: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Log out of the platform.
#[derive(Debug, clap::Args)]
pub(crate) struct Logout {
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Show who is logged in.
#[derive(Debug, clap::Args)]
pub(crate) struct Whoami {
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// The logged-in user and the platform, as `whoami --json` prints them.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Identity<'a> {
    #[serde(flatten)]
    me: &'a Me,
    base_url: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct LoggedOut {
    /// False if there was no login to end.
    logged_out: bool,
}

/// Logs in and stores the credentials in labctl's own file.
///
/// # Errors
/// The platform's, and [`Kind::NotLoggedIn`] when the user does not confirm in time or the credentials are not
/// accepted.
pub(crate) async fn login(app: &App, args: Login) -> Result<()> {
    if app.platform == Platform::Local {
        return Err(Error::new(Kind::Usage, "the embedded platform needs no login").with_hint("leave out --local"));
    }
    let path = app.folders.account();
    let account = Account::load(&path)?;
    let dialer = Dialer::network(&app.settings);
    if !args.stdin
        && !args.from_env
        && account.credentials().is_some()
        && let Ok(me) = Labs::new(dialer.clone(), &account)?.me().await
    {
        notice::line(&format!(
            "You are logged in already, as {} at {}. A new login replaces this one; Ctrl-C keeps it.",
            name(&me),
            account.base_url()
        ));
    }
    let (id, token) = if args.stdin {
        from_stdin()?
    } else if args.from_env {
        Account::from_environment()
            .ok_or_else(|| Error::new(Kind::Usage, "IXIMIUZ_SESSION_ID and IXIMIUZ_ACCESS_TOKEN are not both set"))?
    } else {
        confirmed_in_browser(&account, &dialer).await?
    };
    let labs = Labs::new(dialer, &account.with_credentials(&id, &token))?;
    let me = labs.me().await?;
    if let Err(error) = Account::save_credentials(&path, &id, &token) {
        // Nobody has the credentials of a session that was made here.
        if !args.stdin && !args.from_env && labs.delete_session(&id).await.is_err() {
            log::warn!("the session that this login has made goes on at the platform");
        }
        return Err(error);
    }
    if args.json {
        return out::json(&Identity { me: &me, base_url: &account.base_url() });
    }
    out::line(&format!("Logged in as {} at {}", name(&me), account.base_url()))
}

async fn confirmed_in_browser(account: &Account, dialer: &Dialer) -> Result<(String, String)> {
    if !input::is_allowed() {
        return Err(Error::new(Kind::Usage, "cannot wait for a browser with --no-input").with_hint(PASS_THEM));
    }
    let session = Labs::new(dialer.clone(), account)?.create_session().await?;
    let labs = Labs::new(dialer.clone(), &account.with_credentials(&session.id, &session.access_token))?;
    // Printed unredacted even if it contains the session's id: it works only with the id, and the user must open it.
    let url = session.auth_url.as_str();
    if !is_page(url) {
        return Err(Error::new(Kind::Answer, "the address of the platform's login page is not a web address"));
    }
    notice::line(&format!("Confirm this login in your browser:\n\n    {url}\n"));
    let opened = match webbrowser::open(url) {
        Ok(()) => "The browser was opened.",
        Err(error) => {
            log::info!("cannot open a browser: {error}");
            "No browser was found: open the page yourself, on any computer."
        }
    };
    let minutes = CONFIRM_WITHIN.as_secs() / 60;
    notice::line(&format!("{opened} Waiting for up to {minutes} minutes; Ctrl-C gives up."));
    let limit = Instant::now() + CONFIRM_WITHIN;
    while Instant::now() < limit {
        sleep(POLL).await;
        match labs.session(&session.id).await {
            Ok(now) if now.authenticated => return Ok((session.id, session.access_token)),
            Ok(_) => {}
            Err(e) if e.may_pass() => log::warn!("{}", e.message()),
            Err(e) => return Err(e),
        }
    }
    Err(Error::new(Kind::NotLoggedIn, "the login was not confirmed within 10 minutes")
        .with_hint("run `labctl-ssh-proxy login` again"))
}

fn from_stdin() -> Result<(String, String)> {
    if stdin().is_terminal() {
        if !input::is_allowed() {
            return Err(Error::new(Kind::Usage, "cannot ask for credentials with --no-input").with_hint(PASS_THEM));
        }
        notice::line("Enter the session id and the access token, one per line:");
    }
    let mut lines = stdin().lock().lines();
    let mut next = || {
        let line = lines.next().and_then(Result::ok).unwrap_or_default().trim().to_owned();
        (!line.is_empty()).then_some(line).ok_or_else(|| {
            Error::new(Kind::Usage, "standard input does not have a session id and an access token, one per line")
        })
    };
    Ok((next()?, next()?))
}

/// Ends the session at the platform and deletes the credentials.
///
/// # Errors
/// Fails when the credentials cannot be deleted. A session that the platform no longer knows is no error.
pub(crate) async fn logout(app: &App, Logout { json }: Logout) -> Result<()> {
    let path = app.folders.account();
    let account = Account::load(&path)?;
    let Some((id, _)) = account.credentials() else {
        return if json { out::json(&LoggedOut { logged_out: false }) } else { out::line("You were not logged in.") };
    };
    let labs = Labs::new(Dialer::network(&app.settings), &account)?;
    // First, because this may fail, and an ended session in the file would look like a login. Only if the file holds
    // this session: the environment may name another one.
    Account::forget_credentials(&path, id)?;
    let ended = labs.delete_session(id).await;
    app.tunnels().clear();
    match ended {
        Ok(()) => {}
        Err(e) if matches!(e.kind(), Kind::NotLoggedIn | Kind::NotFound) => {}
        Err(e) => {
            return Err(e.context("the credentials were deleted here, but the session at the platform was not ended"));
        }
    }
    if json { out::json(&LoggedOut { logged_out: true }) } else { out::line("Logged out.") }
}

/// Prints the logged-in user, the platform and the plan.
///
/// # Errors
/// The platform's.
pub(crate) async fn whoami(app: &App, Whoami { json }: Whoami) -> Result<()> {
    let labs = app.labs().await?;
    let me = labs.me().await?;
    if json {
        return out::json(&Identity { me: &me, base_url: labs.base() });
    }
    out::line(&format!("{} at {}{}", name(&me), labs.base(), plan(&me)))
}

/// Formats the account's plan as the end of a sentence.
fn plan(me: &Me) -> String {
    let Some(PremiumAccess { until, lifetime, trial }) = &me.premium_access else { return String::new() };
    let plan = if *trial { "premium trial" } else { "premium" };
    match (lifetime, until.get(..10)) {
        (true, _) => format!(", {plan} for life"),
        (false, Some(day)) => format!(", {plan} until {}", printable(day)),
        (false, None) => format!(", {plan}"),
    }
}

fn name(me: &Me) -> String {
    printable(me.github_profile_id.as_deref().unwrap_or(&me.id))
}
