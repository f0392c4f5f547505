//! A listener that the system keeps: a systemd user unit, or a launchd agent. Texts are pure; the managers' own programs
//! do the rest.

use std::{
    ffi::OsString,
    fmt::Write as _,
    fs, io,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use tokio::{process::Command, time::sleep};

use crate::{
    app::App,
    error::{Error, Kind, Result, printable},
    files, os,
    platform::Platform,
    records::listeners::{self, Listener},
    settings::SETTINGS_VARIABLE,
    ssh_config,
};

/// Attempts to start an agent, and the time between two: launchctl does not wait until the one before has ended.
const BOOTSTRAPS: usize = 5;
const BOOTS_OUT: Duration = Duration::from_millis(500);

/// A program that keeps services of one user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manager {
    Systemd,
    Launchd,
}

impl Manager {
    /// The manager of this system: the one whose program is there.
    fn of_this_system() -> Result<Manager> {
        let all = [Manager::Systemd, Manager::Launchd];
        all.into_iter().find(|manager| which::which(manager.program()).is_ok()).ok_or_else(|| {
            Error::new(Kind::Program, "cannot find systemctl or launchctl, by which a service would be installed")
                .with_hint("leave out --install, and have your system start the rest of the line at each login")
        })
    }

    /// The manager of a service's file.
    fn of_file(file: &Path) -> Manager {
        match file.extension().is_some_and(|ending| ending == "plist") {
            true => Manager::Launchd,
            false => Manager::Systemd,
        }
    }

    fn program(self) -> &'static str {
        match self {
            Manager::Systemd => "systemctl",
            Manager::Launchd => "launchctl",
        }
    }

    /// The file of a service, where the manager looks for those of the user's own.
    fn file(self, app: &App, name: &str) -> PathBuf {
        let home = &app.folders.home;
        match self {
            Manager::Systemd => {
                let settings = os::settings_folder().unwrap_or_else(|| home.join(".config"));
                settings.join("systemd/user").join(format!("{}.service", label(name)))
            }
            Manager::Launchd => home.join("Library/LaunchAgents").join(format!("{}.plist", label(name))),
        }
    }

    /// Has the manager read a service's file, and start it anew.
    async fn begin(self, file: &Path) -> Result<()> {
        match self {
            Manager::Systemd => {
                self.run(&["--user", "daemon-reload"]).await?;
                self.run(&["--user", "enable", &unit(file)]).await?;
                self.run(&["--user", "restart", &unit(file)]).await
            }
            Manager::Launchd => {
                // It knows none at the first time.
                let _ = self.run(&["bootout", &target(file)]).await;
                let file = file.display().to_string();
                let mut attempts = 1..=BOOTSTRAPS;
                loop {
                    let begun = self.run(&["bootstrap", &domain(), &file]).await;
                    if begun.is_ok() || attempts.next().is_none() {
                        return begun;
                    }
                    sleep(BOOTS_OUT).await;
                }
            }
        }
    }

    /// Has the manager end a service and start it no more.
    async fn end(self, file: &Path) -> Result<()> {
        match self {
            Manager::Systemd => self.run(&["--user", "disable", "--now", &unit(file)]).await,
            Manager::Launchd => self.run(&["bootout", &target(file)]).await,
        }
    }

    /// Has the manager forget a file that has gone.
    async fn forget(self) -> Result<()> {
        match self {
            Manager::Systemd => self.run(&["--user", "daemon-reload"]).await,
            Manager::Launchd => Ok(()),
        }
    }

    /// Runs the manager's program.
    async fn run(self, words: &[&str]) -> Result<()> {
        let program = self.program();
        let failed = |why: &str| {
            Error::new(Kind::Program, format!("`{program} {}` failed: {why}", words.join(" "))).with_hint(
                "a service needs the service manager of your login session; `listen` without --install needs none",
            )
        };
        let output = Command::new(program).args(words).stdin(Stdio::null()).kill_on_drop(true).output().await;
        let output = output.map_err(|e| failed(&e.to_string()))?;
        match output.status.success() {
            true => Ok(()),
            false => {
                let said = String::from_utf8_lossy(&output.stderr).into_owned();
                Err(failed(&printable(said.trim().lines().next().unwrap_or("it says nothing"))))
            }
        }
    }
}

/// The name of a service.
fn label(name: &str) -> String {
    format!("labctl-ssh-proxy-{name}")
}

fn unit(file: &Path) -> String {
    file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// launchd's name for the services of this user's desktop (launchctl(1)).
fn domain() -> String {
    format!("gui/{}", os::own_user().unwrap_or_default())
}

fn target(file: &Path) -> String {
    format!("{}/{}", domain(), file.file_stem().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default())
}

/// The words before a command that has no person to ask and is to have the folders and the platform of this one.
pub(super) fn global_words(app: &App) -> Vec<OsString> {
    let mut words = vec!["--home".into(), app.folders.root.clone().into_os_string(), "--no-input".into()];
    if app.platform == Platform::Local {
        words.push("--local".into());
    }
    words
}

/// Installs a listener, which has its port. Returns it with its file.
///
/// # Errors
/// [`Kind::Program`] when the manager does not take it, and [`Kind::Usage`] for a path that it cannot have. Then nothing
/// is installed.
pub(super) async fn install(app: &App, mut record: Listener) -> Result<Listener> {
    let manager = Manager::of_this_system()?;
    let file = manager.file(app, &record.name());
    if record.service.as_ref() != Some(&file) && fs::symlink_metadata(&file).is_ok() {
        let message = format!("{} is there already, and not on record as this program's", file.display());
        return Err(Error::new(Kind::File, message).with_hint("delete it, then run this again"));
    }
    let mut words = vec![ssh_config::program_path()?.into_os_string()];
    words.extend(global_words(app));
    words.extend(["listen", &record.host, "--port", &record.port.to_string()].map(OsString::from));
    let words = words.iter().map(|word| readable(word.to_str())).collect::<Result<Vec<_>>>()?;
    let settings = readable(app.folders.settings.to_str())?;
    let text = match manager {
        Manager::Systemd => unit_text(&record.host, &words, settings)?,
        Manager::Launchd => agent_text(&label(&record.name()), &words, settings),
    };
    let before = record.service.is_some().then(|| files::read(&file).ok().flatten()).flatten();
    let record_before = Listener { service: before.as_ref().map(|_| file.clone()), ..record.clone() };
    record.service = Some(file.clone());
    // First, so that `uninstall` finds it, whatever happens.
    listeners::keep(&app.folders, &record)?;
    if let Some(folder) = file.parent() {
        fs::create_dir_all(folder).map_err(|e| Error::file("make", folder, &e))?;
    }
    let begun = async {
        files::write_private(&file, text.as_bytes())?;
        manager.begin(&file).await
    };
    let Err(error) = begun.await else { return Ok(record) };
    match before {
        Some(text) => files::write_private(&file, &text)?,
        None => drop(remove(&record).await),
    }
    listeners::keep(&app.folders, &record_before)?;
    Err(error)
}

/// Removes the service of a listener. The file is deleted even if the manager fails.
///
/// # Errors
/// [`Kind::File`] when the file cannot be deleted, and those of the manager.
pub(crate) async fn remove(record: &Listener) -> Result<()> {
    let Some(file) = &record.service else { return Ok(()) };
    let manager = Manager::of_file(file);
    let ended = manager.end(file).await;
    match fs::remove_file(file) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(Error::file("delete", file, &e)),
        Ok(()) | Err(_) => {}
    }
    if let Err(error) = manager.forget().await {
        log::warn!("{}", error.message());
    }
    ended.map_err(|error| {
        let message =
            format!("{} is removed, but its service may run until you log out: {}", file.display(), error.message());
        Error::new(Kind::Program, message).with_hint("end its process, `labctl-ssh-proxy listen`, yourself")
    })
}

/// A word that can stand in a service's file.
fn readable(word: Option<&str>) -> Result<&str> {
    match word {
        Some(word) if !word.contains(char::is_control) => Ok(word),
        word => {
            Err(Error::new(Kind::Usage, format!("a service cannot have the path `{}`", printable(word.unwrap_or("?"))))
                .with_hint("move it to a path of plain letters"))
        }
    }
}

/// A word in double quotes, by systemd.syntax(7) and systemd.unit(5): a backslash begins an escape, and a percent sign a
/// specifier.
fn quoted(word: &str) -> String {
    format!("\"{}\"", word.replace('\\', "\\\\").replace('"', "\\\"").replace('%', "%%"))
}

/// The unit by which systemd keeps a listener of one user.
///
/// - `:` in front of the command: a dollar sign is no variable (systemd.service(5)).
/// - `KillMode=process`: connections go on when the listener is renewed or ended.
/// - 143 is what this program returns for SIGTERM.
fn unit_text(host: &str, words: &[&str], settings: &str) -> Result<String> {
    let program = words.first().copied().unwrap_or_default();
    // systemd takes no program whose path has these, whatever the quotes.
    if program.contains(['"', '\'', '\\']) {
        return Err(Error::new(Kind::Usage, format!("systemd cannot run a program with the path `{program}`"))
            .with_hint(format!("install it below a path of plain letters, for example {}", os::PROGRAMS)));
    }
    let command = words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" ");
    let settings = quoted(&format!("{SETTINGS_VARIABLE}={settings}"));
    Ok(format!(
        "# Written by `labctl-ssh-proxy listen --install`; `listen {host} --uninstall` removes it.\n\
         [Unit]\n\
         Description=SSH to {host} for programs that know no ProxyCommand\n\n\
         [Service]\n\
         ExecStart=:{command}\n\
         Environment={settings}\n\
         KillMode=process\n\
         Restart=on-failure\n\
         RestartSec=10\n\
         SuccessExitStatus=143\n\n\
         [Install]\n\
         WantedBy=default.target\n"
    ))
}

/// The property list by which launchd keeps a listener of one user (launchd.plist(5)).
fn agent_text(label: &str, words: &[&str], settings: &str) -> String {
    let escaped = |text: &str| text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let mut command = String::new();
    for word in words {
        let _ = write!(command, "\n    <string>{}</string>", escaped(word));
    }
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
         <!DOCTYPE plist PUBLIC \"-//Apple//DTD PLIST 1.0//EN\" \"http://www.apple.com/DTDs/PropertyList-1.0.dtd\">\n\
         <plist version=\"1.0\">\n\
         <dict>\n  \
           <key>Label</key>\n  <string>{label}</string>\n  \
           <key>ProgramArguments</key>\n  <array>{command}\n  </array>\n  \
           <key>EnvironmentVariables</key>\n  <dict>\n    \
             <key>{SETTINGS_VARIABLE}</key>\n    <string>{}</string>\n  </dict>\n  \
           <key>RunAtLoad</key>\n  <true/>\n  \
           <key>KeepAlive</key>\n  <dict>\n    <key>SuccessfulExit</key>\n    <false/>\n  </dict>\n  \
           <key>ThrottleInterval</key>\n  <integer>10</integer>\n  \
           <key>AbandonProcessGroup</key>\n  <true/>\n\
         </dict>\n\
         </plist>\n",
        escaped(settings)
    )
}
