//! `doctor`: checks every link of the chain from `ssh playground-...` to a machine, with a verdict and a remedy for
//! each.
//!
//! # Layout
//!
//! - `here`: checks on this computer: ssh, its configuration, files, processes, editors.
//! - `there`: checks of the login, the platform, and one running machine, which is reached by the system's ssh.
//! - `sessions`: what sessions on that machine survive.
//! - `containers`: the way into the containers of a machine that was named.
//! - `report`: all results in a file for others, without secrets.

mod containers;
mod here;
#[cfg(unix)]
mod permissions;
mod report;
mod sessions;
mod there;

use std::path::{Path, PathBuf};

use clap_complete::ArgValueCompleter;
use serde::Serialize;

use crate::{
    app::App,
    commands::{candidates, playgrounds},
    error::{Error, Result},
    files,
    platform::Platform,
    ssh_config,
    ui::{notice::Progress, out, spinner::Spinner},
};

/// Check every link of the chain from ssh to a machine, and say what to do.
///
/// Exits with code 1 if something does not work.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The playground to check, by its host name, id, title, catalogue name or page address, or a container by its host
    /// name; by default one that is running. Nothing is woken.
    #[arg(value_name = "PLAYGROUND", add = ArgValueCompleter::new(candidates::hosts))]
    host: Option<String>,
    /// Repair this program's own entries, file modes and damaged records, end leftover processes, and remove the helper
    /// from a machine that you name.
    #[arg(long)]
    fix: bool,
    /// Also write a full report to this file, without secrets, for others to read.
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// The result of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Verdict {
    /// No problem found.
    Ok,
    /// Works, but not always or not well.
    Warning,
    /// It does not work.
    Failed,
    /// Could not be checked.
    Skipped,
}

/// One check and its result.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Check {
    /// The name of the check.
    pub name: String,
    /// The result.
    pub verdict: Verdict,
    /// The finding, as a sentence for the user.
    pub found: String,
    /// The action that the user can take.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
    /// The repair that `--fix` makes.
    #[serde(skip)]
    fix: Option<Fix>,
}

/// A repair that needs no confirmation, because it concerns only our own files and processes.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Fix {
    /// Rewrites the entries and the line that includes them.
    Configuration,
    /// Moves the backup that an earlier version has kept beside this file.
    Backup(PathBuf),
    /// Sets a file's mode.
    #[cfg_attr(not(unix), expect(dead_code, reason = "only Unix has modes"))]
    Mode(PathBuf, u32),
    /// Deletes a damaged record whose loss is harmless.
    Remove(PathBuf),
    /// Ends a leftover process.
    /// The path is its status file.
    End(u32, PathBuf),
    /// Removes the helpers from the machine of this host name.
    Helpers(String),
}

impl Check {
    fn new(name: impl Into<String>, verdict: Verdict, found: impl Into<String>) -> Check {
        Check { name: name.into(), verdict, found: found.into(), remedy: None, fix: None }
    }

    fn ok(name: impl Into<String>, found: impl Into<String>) -> Check {
        Check::new(name, Verdict::Ok, found)
    }

    fn skipped(name: impl Into<String>, found: impl Into<String>) -> Check {
        Check::new(name, Verdict::Skipped, found)
    }

    fn failed(name: impl Into<String>, error: &Error) -> Check {
        Check { remedy: error.hint().map(str::to_owned), ..Check::new(name, Verdict::Failed, error.message()) }
    }

    fn remedy(mut self, remedy: impl Into<String>) -> Check {
        self.remedy = Some(remedy.into());
        self
    }

    fn fix(mut self, fix: Fix) -> Check {
        self.fix = Some(fix);
        self
    }
}

/// Makes all checks. Returns exit code 1 if one of them failed.
///
/// # Errors
/// Fails when the report cannot be written. Failed checks are results instead.
pub(crate) async fn run(app: &App, args: Args) -> Result<u8> {
    let mut checks = examine(app, &args).await;
    let mut fixed = Vec::new();
    if args.fix {
        let fixes: Vec<(String, Fix)> =
            checks.iter().filter_map(|check| Some((check.name.clone(), check.fix.clone()?))).collect();
        for (name, fix) in fixes {
            let text = match mend(app, &fix).await {
                Ok(done) => format!("{name}: {done}"),
                Err(error) => format!("{name}: {}", error.message()),
            };
            if !fixed.contains(&text) {
                fixed.push(text);
            }
        }
        if !fixed.is_empty() {
            checks = examine(app, &args).await;
        }
    }
    if let Some(path) = &args.report {
        let text = report::text(app, &checks).await;
        files::write_private(path, text.as_bytes())?;
    }
    if args.json {
        #[derive(Serialize)]
        struct Examination<'a> {
            checks: &'a [Check],
            fixed: &'a [String],
        }
        out::json(&Examination { checks: &checks, fixed: &fixed })?;
    } else {
        tell(app.platform, &checks, &fixed, &args)?;
    }
    Ok(u8::from(checks.iter().any(|check| check.verdict == Verdict::Failed)))
}

async fn examine(app: &App, args: &Args) -> Vec<Check> {
    let progress = Spinner::new();
    let say = |what: &str| {
        if progress.is_seen() {
            progress.waiting(what);
        }
    };
    say("checking this computer");
    let mut checks = here::all(app).await;
    say("checking the platform");
    checks.extend(there::all(app, args.host.as_deref(), &say).await);
    for check in &mut checks {
        check.found = app.platform.commands(&check.found);
        check.remedy = check.remedy.take().map(|remedy| app.platform.commands(&remedy));
    }
    checks
}

fn tell(platform: Platform, checks: &[Check], fixed: &[String], args: &Args) -> Result<()> {
    let row = |check: &Check| {
        let verdict = match check.verdict {
            Verdict::Ok => "ok",
            Verdict::Warning => "warning",
            Verdict::Failed => "FAILED",
            Verdict::Skipped => "-",
        };
        let found = match &check.remedy {
            Some(remedy) => format!("{}\n-> {remedy}", check.found),
            None => check.found.clone(),
        };
        vec![check.name.clone(), verdict.to_owned(), found]
    };
    for done in fixed {
        out::line(&format!("fixed: {done}"))?;
    }
    out::table(&["LINK", "VERDICT", "FOUND"], checks.iter().map(row).collect())?;
    if !args.fix && checks.iter().any(|check| check.fix.is_some() && check.verdict != Verdict::Ok) {
        let words = "`labctl-ssh-proxy doctor --fix` repairs this program's own files, entries and processes.";
        out::line(&platform.commands(words))?;
    }
    match &args.report {
        Some(path) => out::line(&format!(
            "The report is in {}. Secrets are left out; please check it before sharing.",
            path.display()
        )),
        None => Ok(()),
    }
}

async fn mend(app: &App, fix: &Fix) -> Result<String> {
    match fix {
        Fix::Configuration => {
            let entries = match app.labs().await {
                Ok(labs) => playgrounds::entries::entries(app, &labs).await?,
                Err(error) => return Err(error),
            };
            for (file, inline) in ssh_config::managed_files(&app.folders)? {
                let request = ssh_config::Request {
                    file: Some(file),
                    inline,
                    program: ssh_config::program_path()?,
                    identity: Some(app.identity()?.path),
                };
                ssh_config::plan(&app.folders, request, app.platform, entries.clone()).await?.write().await?;
            }
            Ok("the entries are rewritten".into())
        }
        Fix::Backup(file) => Ok(match ssh_config::adopt_backup(&app.folders, Some(file))? {
            Some((from, to)) => format!("{} is {} now", from.display(), to.display()),
            None => format!("there is no backup beside {} any more", file.display()),
        }),
        Fix::Mode(path, mode) => set_mode(path, *mode).map(|()| format!("{} now has mode {mode:o}", path.display())),
        Fix::Remove(path) => {
            std::fs::remove_file(path).map_err(|e| Error::file("delete", path, &e))?;
            Ok(format!("{} is deleted", path.display()))
        }
        Fix::Helpers(host) => containers::remove(app, host).await,
        Fix::End(pid, path) => here::end(*pid, path).map(|()| format!("process {pid} was asked to end")),
    }
}

#[cfg(unix)]
fn set_mode(path: &Path, mode: u32) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).map_err(|e| Error::file("change", path, &e))
}

/// Never called, because Windows has no file modes.
#[cfg(not(unix))]
fn set_mode(_path: &Path, _mode: u32) -> Result<()> {
    Ok(())
}
