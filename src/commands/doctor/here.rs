//! The checks on this computer.

use std::{
    env, fs,
    path::{Path, PathBuf},
    time::Duration,
};

use jsonc_parser::{ParseOptions, parse_to_serde_value};
use tokio::time::sleep;

use super::{Check, Fix, Verdict};
use crate::{
    app::App,
    commands::open::ide,
    error::{Error, Kind, Result, printable},
    files::{self, Lock, user_file::UserFile},
    os,
    platform::Platform,
    records::{aliases::Aliases, live},
    setup,
    ssh::{
        credentials::{Holder, KeyOptions, START_THE_AGENT},
        identity,
        known_hosts::Counts,
    },
    ssh_config::{
        self,
        client::{self, Ssh},
        entries::{self, ALIVE},
        in_the_way::{in_the_way, spared},
        state::State,
        taken,
    },
};

/// Time that a proxy gets to end after its ssh.
const LEAVING: Duration = Duration::from_millis(500);

/// Makes all checks of this module.
pub(super) async fn all(app: &App) -> Vec<Check> {
    let ssh = Ssh::system();
    let mut checks = vec![program(), system_ssh(&ssh).await];
    checks.extend(configuration(app, &ssh).await);
    #[cfg(unix)]
    checks.extend(super::permissions::all(app));
    checks.push(key(app, &ssh).await);
    checks.push(known_hosts(app));
    checks.extend(memory(app));
    checks.extend(aliases(app));
    checks.extend(locks(app));
    checks.extend(processes(app).await);
    checks.extend(editors(app));
    checks.extend(setups(app));
    checks
}

/// Checks the folders that set up fresh machines. What is wrong with one blocks no start.
fn setups(app: &App) -> Vec<Check> {
    const NAME: &str = "setup";
    let check = |(path, fault): (&Path, Option<Error>)| match fault {
        None => Check::ok(NAME, path.display().to_string()),
        Some(error) => Check::new(NAME, Verdict::Warning, error.message())
            .remedy(format!("change `setup` in {}", app.folders.settings.display())),
    };
    setup::check(app).into_iter().map(check).collect()
}

fn program() -> Check {
    let version = env!("CARGO_PKG_VERSION");
    match ssh_config::program_path() {
        Ok(path) => Check::ok("this program", format!("{version}, {}", path.display())),
        Err(error) => Check::failed("this program", &error),
    }
}

async fn system_ssh(ssh: &Ssh) -> Check {
    let version = match ssh.version().await {
        Ok(version) => version,
        Err(error) => return Check::failed("ssh", &error),
    };
    match ssh.survey().await {
        Err(error) => Check::failed("ssh", &error),
        Ok(survey) if !survey.refuses_hosts || !survey.refuses_users => {
            Check::new("ssh", Verdict::Warning, format!("{version}, which passes host and user names to a shell"))
                .remedy("update ssh (CVE-2023-51385); until then the entries have no wildcard")
        }
        Ok(_) => Check::ok("ssh", version),
    }
}

const CONFIGURATION: &str = "ssh configuration";

/// Checks our record, the program in the entries, each managed file, and the options that ssh derives from it.
async fn configuration(app: &App, ssh: &Ssh) -> Vec<Check> {
    const NAME: &str = CONFIGURATION;
    let state = match State::load(&app.folders) {
        Ok(Some(state)) => state,
        Ok(None) => {
            let found = "config-ssh has not been run, so ssh and editors do not know the host names of playgrounds";
            return vec![Check::new(NAME, Verdict::Warning, found).remedy("run `labctl-ssh-proxy config-ssh`")];
        }
        Err(error) => return vec![Check::failed(NAME, &error)],
    };
    let mut checks = Vec::new();
    let same = |a: &Path, b: &Path| matches!((fs::canonicalize(a), fs::canonicalize(b)), (Ok(a), Ok(b)) if a == b);
    if !state.program.exists() {
        let found = format!("the entries name {}, which no longer exists", state.program.display());
        let check =
            Check::new("program in entries", Verdict::Failed, found).remedy("run `labctl-ssh-proxy config-ssh`");
        checks.push(check.fix(Fix::Configuration));
    } else if ssh_config::program_path().is_ok_and(|own| !same(&own, &state.program)) {
        let found = format!("the entries name another program: {}", state.program.display());
        let check = Check::new("program in entries", Verdict::Warning, found);
        checks.push(check.remedy("run `labctl-ssh-proxy config-ssh` to use this one").fix(Fix::Configuration));
    } else {
        checks.push(Check::ok("program in entries", state.program.display().to_string()));
    }
    for managed in &state.files {
        let earlier = UserFile::open(&managed.file).ok().and_then(|user| user.earlier_backup());
        if let Some(backup) = earlier {
            let found = format!(
                "{} is the backup of an earlier version, and ssh reads it if an Include of yours matches its name",
                backup.display()
            );
            let remedy = "run `labctl-ssh-proxy config-ssh`, which moves it to the other files of this program";
            let check = Check::new("backup", Verdict::Warning, found).remedy(remedy);
            checks.push(check.fix(Fix::Backup(managed.file.clone())));
        }
    }
    let survey = ssh.survey().await.ok();
    let key = app.identity_path().ok().and_then(|path| identity::load(&path).ok().flatten());
    let public = key.map(|identity| identity.public);
    for managed in &state.files {
        let file_name = managed.file.display();
        let probe = state.machines().find(|entry| entry.platform == app.platform).or(state.machines().next());
        let (host, user, platform) = match probe {
            Some(entry) => (entry.host.as_str(), entry.user.as_str(), entry.platform),
            None => ("playground-probe", "root", Platform::Labs),
        };
        // With -F, ssh does not read the system-wide file, so only an unusual file is passed.
        let usual = managed.file == app.folders.home.join(".ssh/config")
            && survey.as_ref().is_some_and(|survey| survey.home.as_ref() == Some(&app.folders.home));
        let file = (!usual).then_some(managed.file.as_path());
        let options = match ssh.options_in_force(file, host).await {
            Ok(options) => options,
            Err(error) => {
                let check = Check::failed(NAME, &error);
                checks
                    .push(check.remedy("repair what ssh complains about, so that it can read its configuration again"));
                continue;
            }
        };
        let to = if probe.is_none() { "%h" } else { host };
        let expected = entries::proxy_command(user, platform, to, &state.rendering(&app.folders));
        checks.push(in_force(&file_name.to_string(), (host, host), &options, expected));
        let spared = spared(&state.entries);
        let mut warnings = in_the_way(&options, platform, public.as_ref(), &spared);
        // A pattern for playgrounds matches no alias, so that other options may apply to one.
        if let Some((alias, entry)) = state.entries.iter().find_map(|entry| Some((entry.alias.as_ref()?, entry))) {
            match ssh.options_in_force(file, alias).await {
                Ok(options) => {
                    let rendering = state.rendering(&app.folders);
                    let expected = entries::proxy_command(&entry.user, entry.platform, &entry.host, &rendering);
                    checks.push(in_force(&file_name.to_string(), (alias, &entry.host), &options, expected));
                    warnings.extend(in_the_way(&options, entry.platform, public.as_ref(), &spared));
                }
                Err(error) => checks.push(Check::failed(NAME, &error)),
            }
        }
        warnings.sort();
        warnings.dedup();
        for warning in warnings {
            let (found, remedy) = warning.rsplit_once("; ").unwrap_or((&warning, ""));
            checks.push(Check::new(NAME, Verdict::Warning, format!("{file_name}: {found}")).remedy(remedy));
        }
    }
    checks
}

/// Checks that ssh uses our options for a name, which may be an alias of `host`.
fn in_force(file: &str, (asked, host): (&str, &str), options: &str, expected: Result<String>) -> Check {
    let name = CONFIGURATION;
    let expected = match expected {
        Ok(expected) => expected,
        Err(error) => return Check::failed(name, &error),
    };
    let wrong = |found: String| {
        Check::new(name, Verdict::Failed, found).remedy("run `labctl-ssh-proxy config-ssh`").fix(Fix::Configuration)
    };
    match client::value(options, "proxycommand") {
        None | Some("none") => return wrong(format!("{file}: ssh does not use this program's entry for {asked}")),
        Some(command) if command != expected => {
            return wrong(format!(
                "{file}: for {asked} ssh would run `{}` instead of `{expected}`",
                printable(command)
            ));
        }
        Some(_) => {}
    }
    let mut overridden = Vec::new();
    let (every, unanswered) = (ALIVE.every.to_string(), ALIVE.unanswered.to_string());
    for (option, wanted) in [
        ("hostname", host),
        ("stricthostkeychecking", "true"),
        ("connecttimeout", "none"),
        ("serveraliveinterval", every.as_str()),
        ("serveralivecountmax", unanswered.as_str()),
    ] {
        let found = client::value(options, option).unwrap_or(wanted);
        let zero = option == "connecttimeout" && found == "0";
        if found != wanted && !zero {
            overridden.push(format!("{option} {found}"));
        }
    }
    if overridden.is_empty() {
        return Check::ok(name, format!("{file}: this program's options for {asked} are in force"));
    }
    let found = format!("{file}: for {asked} your own options win: {}", overridden.join(", "));
    Check::new(name, Verdict::Warning, found).remedy(
        "run `labctl-ssh-proxy config-ssh`: it puts this program's Include on the first line, because options before it \
         win",
    )
}

/// Checks the key, and who can sign with it for the commands that log in without the system's ssh.
async fn key(app: &App, ssh: &Ssh) -> Check {
    const NAME: &str = "identity";
    const OWN_CLIENT: &str = "`kube` and forwards over SSH";
    let identity = match app.identity_path().and_then(|path| Ok((identity::load(&path)?, path))) {
        Ok((Some(identity), _)) => identity,
        Ok((None, path)) => {
            return Check::ok(NAME, format!("{} does not exist yet; the first connection creates it", path.display()));
        }
        Err(error) => return Check::failed(NAME, &error),
    };
    let path = identity.path.display();
    let shown = format!("{path} {}", identity.fingerprint());
    let options = ssh.key_options("playground-probe", &app.folders.home).await;
    let options = options.unwrap_or_else(|_| KeyOptions::of_environment());
    let warning = |why: String| Check::new(NAME, Verdict::Warning, format!("{shown}: {why}"));
    match Holder::find(&identity, &options).await {
        Ok(Holder::Agent(_) | Holder::File(_)) if !options.ignored.is_empty() => {
            warning(format!("{OWN_CLIENT} do not use your {}", options.ignored.join(", ")))
                .remedy("they use this key alone")
        }
        Ok(Holder::Agent(socket)) => Check::ok(NAME, format!("{shown}, in the agent at {}", socket.display())),
        Ok(Holder::File(_)) => Check::ok(NAME, shown),
        Ok(Holder::Locked) => {
            Check::ok(NAME, format!("{shown}, encrypted: ssh and {OWN_CLIENT} ask for its passphrase"))
        }
        Ok(Holder::SecurityKey(why)) => {
            warning(format!("it is on a security key, which {OWN_CLIENT} use by an agent only: {why}"))
                .remedy(format!("run `ssh-add {path}`"))
        }
        Ok(Holder::Nobody(why)) => warning(format!("its private half is in no agent: {why}")).remedy(START_THE_AGENT),
        Err(error) => Check::failed(NAME, &error),
    }
}

fn known_hosts(app: &App) -> Check {
    const NAME: &str = "known hosts";
    let known_hosts = app.known_hosts();
    let path = known_hosts.path().display().to_string();
    match known_hosts.counts() {
        Ok(Counts { keys, damaged }) if damaged.is_empty() => Check::ok(NAME, format!("{keys} keys in {path}")),
        Ok(Counts { keys, damaged }) => {
            let lines = damaged.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            Check::new(NAME, Verdict::Warning, format!("{keys} keys in {path}; ssh cannot read its lines {lines}"))
                .remedy("delete these lines, or repair them")
        }
        Err(error) => Check::failed(NAME, &error),
    }
}

/// Checks the records of the user's wishes. A damaged one keeps its playground stopped. One that cannot be read may be
/// whole, so it is not deleted.
fn memory(app: &App) -> Vec<Check> {
    let memory = app.memory();
    let mut checks = Vec::new();
    for label in memory.labels() {
        if let Err(error) = memory.read(&label) {
            let check = Check::failed("memory", &error);
            let is_readable = files::read(&memory.path(&label)).is_ok();
            checks.push(if is_readable { check.fix(Fix::Remove(memory.path(&label))) } else { check });
        }
    }
    checks
}

/// Checks the record of the readable names, and that none of them has become a host of the user's since.
fn aliases(app: &App) -> Vec<Check> {
    const NAME: &str = "aliases";
    let aliases = match Aliases::load(&app.folders, app.platform) {
        Ok(aliases) => aliases,
        Err(error) => return vec![Check::failed(NAME, &error)],
    };
    let why = taken::in_configuration(&app.folders);
    let taken = |label: &str| {
        let why = why(label)?;
        let check = Check::new(NAME, Verdict::Warning, format!("{label} {why}, so it no longer names a playground"));
        Some(check.remedy(
            "run `labctl-ssh-proxy config-ssh`, and give the playground another one: `labctl-ssh-proxy rename \
             PLAYGROUND --alias LABEL`",
        ))
    };
    let mut checks: Vec<Check> = aliases.labels().filter_map(taken).collect();
    let used = app.aliases();
    let labels: Vec<&str> = used.labels().collect();
    if !labels.is_empty() {
        checks.push(Check::ok(NAME, labels.join(", ")));
    }
    checks
}

/// Checks that the file system of our folder has locks.
fn locks(app: &App) -> Option<Check> {
    if app.folders.root.is_dir() {
        drop(Lock::try_acquire(&State::path(&app.folders)));
    }
    let words = files::without_locks()?;
    let check = Check::new(
        "locks",
        Verdict::Warning,
        format!("{words}; commands at the same time may get into each other's way"),
    );
    Some(check.remedy("move this program's files to a local disk: set LABCTL_SSH_PROXY_HOME to a folder there"))
}

/// Looks for leftover proxies whose ssh has ended. Each proxy has a status file, so only our own processes are
/// considered.
async fn processes(app: &App) -> Vec<Check> {
    const NAME: &str = "processes";
    let mut left = live::left_over(&app.folders);
    if !left.is_empty() {
        sleep(LEAVING).await;
        let still = live::left_over(&app.folders);
        left.retain(|one| still.contains(one));
    }
    if left.is_empty() {
        return vec![Check::ok(NAME, format!("{} connections; no leftover processes", live::all(&app.folders).len()))];
    }
    let check = |(pid, path): (u32, PathBuf)| {
        Check::new(NAME, Verdict::Warning, format!("connection {pid} is left over: its ssh has exited"))
            .remedy(format!("run `kill {pid}`"))
            .fix(Fix::End(pid, path))
    };
    left.into_iter().map(check).collect()
}

/// Ends a leftover proxy. `path` is its status file, which proves that the process is the proxy.
pub(super) fn end(pid: u32, path: &Path) -> Result<()> {
    match os::end_if_open(pid, path) {
        // One that has ended meanwhile is what was wanted.
        Ok(true | false) => Ok(()),
        Err(e) => Err(Error::new(Kind::Program, format!("cannot end process {pid}: {e}"))),
    }
}

/// Lists the installed editors, and the time that each waits for a machine.
fn editors(app: &App) -> Vec<Check> {
    let mut checks = Vec::new();
    let config = config_folder(&app.folders.home);
    for ide in ide::ALL {
        let Ok(program) = ide.find() else { continue };
        let at = program.display();
        let check = match ide.link {
            ide::Link::Vscode => {
                let settings = config.as_ref().and_then(|config| ide.settings_file(&app.folders.home, config));
                match settings.and_then(|path| connect_timeout(&path)) {
                    Some(seconds) if seconds >= 60 => {
                        Check::ok(ide.title, format!("{at}; waits {seconds} s for a machine"))
                    }
                    timeout => {
                        let seconds = timeout.unwrap_or(15);
                        Check::new(ide.title, Verdict::Warning, format!("{at}; waits only {seconds} s for a machine"))
                            .remedy(format!(
                                "use `labctl-ssh-proxy open {} HOST`, which wakes it first, or set \
                                 \"remote.SSH.connectTimeout\": 1800",
                                ide.name
                            ))
                    }
                }
            }
            // `connection_timeout` in its settings does not change this limit.
            ide::Link::Zed => {
                Check::ok(ide.title, format!("{at}; waits 17 s, so use `labctl-ssh-proxy open zed HOST`"))
            }
            // List Gateway once, not for each of its products.
            ide::Link::Gateway(Some(_)) => continue,
            ide::Link::Gateway(None) => Check::ok(ide.title, at.to_string()),
        };
        checks.push(check);
    }
    if checks.is_empty() {
        checks.push(Check::skipped("editors", "no editor that `open` supports is installed"));
    }
    checks
}

/// Returns `remote.SSH.connectTimeout` from an editor's settings. Not read are settings of a profile: this one
/// is of the application, as open-remote-ssh declares all of its kind, and such stand with the default profile.
fn connect_timeout(settings: &Path) -> Option<u64> {
    timeout_in(&files::read_text(settings).ok()??)
}

/// Returns the timeout in settings, which are JSON with comments and commas at the end. The key counts at the top alone,
/// not in a block for a language, and the last one of two.
fn timeout_in(text: &str) -> Option<u64> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let settings: serde_json::Value = parse_to_serde_value(text, &ParseOptions::default()).ok()?;
    let seconds = settings.get("remote.SSH.connectTimeout")?;
    seconds.as_u64().or_else(|| seconds.as_f64().map(|seconds| seconds as u64))
}

/// The folder in which Electron's applications keep their data
/// (<https://www.electronjs.org/docs/latest/api/app#appgetpathname>).
fn config_folder(home: &Path) -> Option<PathBuf> {
    if cfg!(target_os = "macos") {
        Some(home.join("Library/Application Support"))
    } else if cfg!(windows) {
        dirs::config_dir()
    } else {
        let moved = env::var_os("XDG_CONFIG_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
        Some(moved.unwrap_or_else(|| home.join(".config")))
    }
}

#[cfg(test)]
mod tests {
    use super::{connect_timeout, timeout_in};
    use crate::commands::open::ide::by_name;

    #[test]
    fn an_editors_timeout_is_read_through_comments_and_where_it_lies() {
        let home = tempfile::tempdir().unwrap();
        let config = home.path().join(".config");
        let write = |path: &str, text: &str| {
            let path = home.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        let of = |name: &str| connect_timeout(&by_name(name).unwrap().settings_file(home.path(), &config).unwrap());
        assert_eq!(of("code"), None);
        write(".var/app/com.visualstudio.code/config/Code/User/settings.json", "{\"remote.SSH.connectTimeout\": 90}");
        assert_eq!(of("code"), Some(90));
        write(
            ".config/Code/User/settings.json",
            "{\n  // \"remote.SSH.connectTimeout\": 5,\n  \"remote.SSH.connectTimeout\" : 1800,\n}",
        );
        assert_eq!(of("code"), Some(1800));
        // Windsurf's settings count until Devin Desktop has its own.
        for (folder, seconds) in [("Windsurf", 70), ("Devin", 80)] {
            let text = format!("{{\"remote.SSH.connectTimeout\": {seconds}}}");
            write(&format!(".config/{folder}/User/settings.json"), &text);
            assert_eq!((of("devin"), of("windsurf")), (Some(seconds), Some(seconds)));
        }
        for (name, folder) in [("kiro", "Kiro"), ("trae", "Trae CN"), ("antigravity", "Antigravity")] {
            write(&format!(".config/{folder}/User/settings.json"), "{\"remote.SSH.connectTimeout\": 61}");
            assert_eq!(of(name), Some(61), "{folder}");
        }
        assert!(by_name("zed").unwrap().settings_file(home.path(), &config).is_none());
    }

    #[test]
    fn an_editors_settings_are_read_as_it_reads_them() {
        for (text, seconds) in [
            ("\u{feff}{\"remote.SSH.connectTimeout\": 60}", Some(60)),
            ("{/* \"remote.SSH.connectTimeout\": 5, */ \"remote.SSH.connectTimeout\": /* s */ 60.5, }", Some(60)),
            ("{\r\n  // x\r\n  \"remote.SSH.connectTimeout\"\r\n  :\r\n  60 // s\r\n}\r\n", Some(60)),
            ("{\"a\": \"\\\"remote.SSH.connectTimeout\\\": 5\", \"b\": [1, 2,],}", None),
            ("{\"[python]\": {\"remote.SSH.connectTimeout\": 5}, \"remote.SSH.connectTimeout\": 60}", Some(60)),
            ("{\"remote.SSH.connectTimeout\": 60, \"[python]\": {\"remote.SSH.connectTimeout\": 5}}", Some(60)),
            ("{\"remote.SSH.connectTimeout\": 5, \"remote.SSH.connectTimeout\": 60}", Some(60)),
            ("{\"remote.SSH.connectTimeout\": \"60\"}", None),
            ("{\"remote.SSH.connectTimeout\": -1}", Some(0)),
            ("", None),
            ("[]", None),
            ("// nothing yet", None),
            ("{\"remote.SSH.connectTimeout\": ", None),
        ] {
            assert_eq!(timeout_in(text), seconds, "{text}");
        }
    }
}
