//! The user's settings, and the folders of this program's files.
//!
//! IDEs that are started from a dock or a menu pass no environment, so every setting that matters stands in one file,
//! `labctl-ssh-proxy/settings.yaml` in the user's configuration folder. The environment only moves the files, for tests
//! and for `demo`.

use std::{
    collections::BTreeMap,
    env,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Deserializer, de::DeserializeOwned};

use crate::{
    error::{Error, Kind, Result},
    files, os,
    platform::Platform,
    target::port_in,
};

/// The variable that moves the folder of everything this program writes.
pub const HOME_VARIABLE: &str = "LABCTL_SSH_PROXY_HOME";
/// The variable that moves the settings file.
pub const SETTINGS_VARIABLE: &str = "LABCTL_SSH_PROXY_SETTINGS";
/// The variable that chooses the embedded platform, as `--local` does. An empty value, `0`, `no`, `off` and `false`
/// count as not set.
pub const LOCAL_VARIABLE: &str = "LABCTL_SSH_PROXY_LOCAL";

/// The variable that forbids questions, as `--no-input` does. Connections hear of it, too, because ssh passes its
/// environment on.
pub const NO_INPUT_VARIABLE: &str = "LABCTL_SSH_PROXY_NO_INPUT";

/// The variable that chooses the programs that a container is lent, as `connect --tools` does.
pub const TOOLS_VARIABLE: &str = "LABCTL_SSH_PROXY_TOOLS";

/// The variable that chooses the view of a container, as `connect --view` does.
pub const VIEW_VARIABLE: &str = "LABCTL_SSH_PROXY_VIEW";

/// The variable by which `ssh --keep` tells its connection that it counts as use for as long as it lasts.
pub const KEEP_VARIABLE: &str = "LABCTL_SSH_PROXY_KEEP";

/// The variable that names a file in place of the system's hosts file and of its name service, for tests: what stands in
/// the file is all that has a name.
pub const HOSTS_VARIABLE: &str = "LABCTL_SSH_PROXY_HOSTS";

/// The settings file. Every key is optional, and an unknown one is an error, because a misspelt wake policy must not be
/// lost.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Proxy for the API and the tunnel, `http://[user:password@]host:port`; also `https` and `socks5`. Beats
    /// `HTTPS_PROXY`.
    pub proxy: Option<String>,
    /// Hosts that are reached without the proxy, as in `NO_PROXY`: a list, or one text.
    #[serde(deserialize_with = "hosts")]
    pub no_proxy: Option<Vec<String>>,
    /// The policy for connections to a stopped playground.
    pub wake: WakePolicy,
    /// The time for which a connection waits for a machine, in seconds.
    pub wake_limit: Option<u64>,
    /// The pause between attempts to connect, in seconds, after which one wakes a playground again that has ended under
    /// an open session.
    pub reconnect_pause: Option<u64>,
    /// True to send OpenSSH under a `ConnectTimeout` the machine's last identification line early. The default is true.
    pub early_identification: Option<bool>,
    /// The choice of the sessions that survive a lost network.
    pub resume: ResumePolicy,
    /// The time awake for which a session waits for a machine that cannot be reached, in seconds.
    pub resume_for: Option<u64>,
    /// True to say at a terminal that the network was lost, and that it is back. The default is true.
    pub resume_notices: Option<bool>,
    /// The choice of the playgrounds whose time is extended while they are used.
    pub keep: KeepPolicy,
    /// The time by which that goes beyond a playground's own end at most, in seconds.
    pub keep_limit: Option<u64>,
    /// The user's own setup of each fresh machine.
    pub setup: Option<Setup>,
    /// Private key (or `.pub` of one in an agent) whose public half is sent to machines.
    pub identity: Option<PathBuf>,
    /// The source of the readable host names of playgrounds.
    pub alias: AliasSource,
    /// The amount of logging.
    pub log_level: LogLevel,
    /// The settings of single playgrounds, by id or catalogue name.
    pub playgrounds: BTreeMap<String, PlaygroundSettings>,
}

/// Every setting with its meaning, for the manual page.
pub(crate) const KEYS: [(&str, &str); 16] = [
    ("proxy", "HTTP proxy for the API and the tunnel, http://[user:password@]host:port; by default HTTPS_PROXY"),
    ("no_proxy", "hosts that are reached without the proxy, separated by commas; by default NO_PROXY"),
    ("wake", "whether a connection wakes a stopped playground: unless-stopped (the default), always or never"),
    ("wake_limit", "how long a connection waits for a machine, in seconds; 1500 by default"),
    ("reconnect_pause", "attempts that are closer together wake no playground, in seconds; 120 by default"),
    ("early_identification", "whether ssh gets the machine's last identification line early; true by default"),
    ("resume", "which sessions survive sleep and a lost network: auto (the default), never or always"),
    ("resume_for", "how long a session waits for a lost network, in seconds awake; 3600 by default"),
    ("resume_notices", "whether a terminal is told that the network was lost and is back; true by default"),
    (
        "keep",
        "which playgrounds are extended before their end: never (the default), or while-connected, while they are used",
    ),
    ("keep_limit", "how far that goes beyond a playground's own end, in seconds; 14400 by default"),
    (
        "setup",
        "what sets up each fresh machine, once: a folder of dotfiles or with an install script, the https address of a \
         git repository, or none (the default)",
    ),
    ("identity", "the private key for machines; by default the one that labctl uses, or else a new one"),
    ("alias", "the readable host names of playgrounds: from the title that you set (title, the default), or none"),
    ("log_level", "the amount of logging: off, error, warn, info (the default), debug or trace"),
    ("playgrounds", "settings of single playgrounds, by catalogue name or id, such as `docker: {wake: never}`"),
];

/// The settings of one playground.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct PlaygroundSettings {
    /// Its wake policy, instead of the general one.
    pub wake: Option<WakePolicy>,
    /// Its choice of the sessions that survive, instead of the general one.
    pub resume: Option<ResumePolicy>,
    /// Its choice about its end, instead of the general one.
    pub keep: Option<KeepPolicy>,
    /// Its setup, instead of the general one.
    pub setup: Option<Setup>,
}

/// The files that set up a machine.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(try_from = "String")]
pub enum Setup {
    /// None.
    None,
    /// A folder of this computer.
    Folder(PathBuf),
    /// The address of a git repository, which the machine clones.
    Address(String),
}

impl TryFrom<String> for Setup {
    type Error = String;

    fn try_from(text: String) -> Result<Setup, String> {
        const WANTED: &str = "`setup` must be an absolute path or one that begins with ~/, https://HOST/PATH or none";
        // Not shown, because a password may be part of it.
        if text.chars().any(char::is_control) {
            return Err(WANTED.to_owned());
        }
        if text == "none" {
            return Ok(Setup::None);
        }
        if let Some(rest) = text.strip_prefix("https://") {
            let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
            if authority.contains('@') || path.contains(['?', '#']) {
                return Err(
                    "the address in `setup` must have no user, password or query, because machines see it; clone \
                            a private repository yourself and name its folder"
                        .to_owned(),
                );
            }
            let is_address = !authority.is_empty() && !path.is_empty() && !text.contains(char::is_whitespace);
            return if is_address { Ok(Setup::Address(text)) } else { Err(WANTED.to_owned()) };
        }
        let path = PathBuf::from(&text);
        let is_path = path.is_absolute() || path.starts_with("~");
        if is_path { Ok(Setup::Folder(path)) } else { Err(WANTED.to_owned()) }
    }
}

/// The policy for connections to a stopped playground.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum WakePolicy {
    /// Unless it was stopped on purpose.
    #[default]
    UnlessStopped,
    /// Always.
    Always,
    /// Never. Only a deliberate action wakes it, such as `start`, `ssh` or `open`, or a yes at the terminal.
    Never,
}

/// The choice of the sessions that survive a lost network. They need a small program on the machine.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum ResumePolicy {
    /// On machines where that disturbs nothing: not in the playground of a challenge, a tutorial or a lesson, whose own programs
    /// may look for processes and ports, and not by a security key, which has to be touched for it.
    #[default]
    Auto,
    /// None. Nothing is put on machines.
    Never,
    /// All.
    Always,
}

/// The choice of the playgrounds whose time is extended while they are used.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum KeepPolicy {
    /// None. A playground may cost money for as long as it runs.
    #[default]
    Never,
    /// Those with a connection or a port-forward that moves data.
    WhileConnected,
}

/// The source of the readable host names of playgrounds.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum AliasSource {
    /// The title that the user sets with `start --title` or `rename`.
    #[default]
    Title,
    /// Only `--alias` makes one.
    None,
}

/// The amount of logging.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the names say it")]
pub enum LogLevel {
    Off,
    Error,
    Warn,
    #[default]
    Info,
    Debug,
    Trace,
}

/// The longest limit, in seconds. A moment so far away as a greater number would make cannot be told.
const LONGEST: u64 = 365 * 24 * 3600;

impl Settings {
    /// The time for which a connection waits for a machine. A cold boot can take 20 minutes, and the platform's own
    /// client waits 25.
    pub fn wake_limit(&self) -> Duration {
        Duration::from_secs(self.wake_limit.unwrap_or(25 * 60).min(LONGEST))
    }

    /// The pause between attempts to connect, after which one wakes a playground again that has ended under an open
    /// session. Attempts that are closer together are an editor's: VS Code's are at most 30 s apart.
    pub fn reconnect_pause(&self) -> Duration {
        Duration::from_secs(self.reconnect_pause.unwrap_or(120))
    }

    /// The time awake for which a session waits for a machine that cannot be reached. ssh itself gives up after an hour
    /// by our entries.
    pub fn resume_for(&self) -> Duration {
        Duration::from_secs(self.resume_for.unwrap_or(60 * 60).min(LONGEST))
    }

    /// The time by which a playground that is used is kept beyond its own end at most.
    pub fn keep_limit(&self) -> Duration {
        Duration::from_secs(self.keep_limit.unwrap_or(4 * 60 * 60).min(LONGEST))
    }

    /// Forgets what sets up machines, because it runs code there: the user's own file alone may say that.
    pub(crate) fn forget_setup(&mut self) {
        self.setup = None;
        self.playgrounds.values_mut().for_each(|own| own.setup = None);
    }

    /// Reads the settings file; a missing one means the defaults.
    ///
    /// # Errors
    /// Fails when it cannot be read, or is not well-formed.
    pub fn load(path: &Path) -> Result<Settings> {
        Settings::read(path, false).map(|(settings, _)| settings)
    }

    /// Reads the settings file, and the unknown keys in it, which are no error if the caller is `lenient`.
    ///
    /// # Errors
    /// As [`Settings::load`].
    pub(crate) fn read(path: &Path, lenient: bool) -> Result<(Settings, Vec<String>)> {
        let Some(text) = files::read_text(path)? else { return Ok(Default::default()) };
        if text.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#')) {
            return Ok(Default::default());
        }
        let wrong = |why: &str| {
            let why = why.trim_start_matches("error: ");
            Error::new(Kind::Usage, format!("invalid settings in {}: {why}", path.display()))
                .with_hint("the manual page describes the settings: `labctl-ssh-proxy man | man -l -`")
        };
        let (settings, unknown) = match serde_saphyr::from_str::<Settings>(&text) {
            Ok(settings) => (settings, Vec::new()),
            Err(e) => Settings::without_unknown(&text)
                .filter(|_| lenient)
                .ok_or_else(|| wrong(e.to_string().lines().next().unwrap_or("")))?,
        };
        if let Some(why) = settings.proxy.as_deref().and_then(|proxy| proxy_fault(proxy).err()) {
            return Err(wrong(&format!("`proxy` must be http://[user:password@]host:port{why}")));
        }
        Ok((settings, unknown))
    }

    /// The settings without the keys that this version does not know, and those keys; `None` where something else is
    /// wrong.
    fn without_unknown(text: &str) -> Option<(Settings, Vec<String>)> {
        fn known<T: DeserializeOwned>(key: &str) -> bool {
            let lone = serde_json::Value::Object([(key.to_owned(), serde_json::Value::Null)].into_iter().collect());
            !serde_json::from_value::<T>(lone).is_err_and(|e| e.to_string().starts_with("unknown field"))
        }
        let mut all: serde_json::Map<String, serde_json::Value> = serde_saphyr::from_str(text).ok()?;
        let mut unknown = Vec::new();
        let mut keep = |key: &str, is_known: bool| {
            if !is_known {
                unknown.push(key.to_owned());
            }
            is_known
        };
        all.retain(|key, _| keep(key, known::<Settings>(key)));
        let playgrounds = all.get_mut("playgrounds").and_then(serde_json::Value::as_object_mut);
        for one in playgrounds.into_iter().flatten().filter_map(|(_, one)| one.as_object_mut()) {
            one.retain(|key, _| keep(key, known::<PlaygroundSettings>(key)));
        }
        Some((serde_json::from_value(serde_json::Value::Object(all)).ok()?, unknown))
    }
}

/// Checks the address of a proxy. The value is not shown, because a password may be part of it.
fn proxy_fault(proxy: &str) -> Result<(), String> {
    let (scheme, rest) = proxy.split_once("://").unwrap_or(("http", proxy));
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let authority = authority.rsplit_once('@').map_or(authority, |(_, authority)| authority);
    let is_known = ["http", "https", "socks5", "socks5h"].iter().any(|known| scheme.eq_ignore_ascii_case(known));
    if !is_known {
        return Err(" (https and socks5 are possible as well)".to_owned());
    }
    if authority.is_empty() || proxy.contains(char::is_whitespace) {
        return Err(String::new());
    }
    port_in(authority).map(drop).map_err(|why| format!(": {why}"))
}

/// Reads a list of hosts, or one text with commas.
fn hosts<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<String>>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Hosts {
        One(String),
        Many(Vec<String>),
    }
    Ok(Option::<Hosts>::deserialize(deserializer)?.map(|hosts| match hosts {
        Hosts::One(text) => text.split(',').map(|host| host.trim().to_owned()).collect(),
        Hosts::Many(hosts) => hosts,
    }))
}

/// The folders of this program's files.
#[derive(Clone, Debug)]
pub struct Folders {
    /// The user's home.
    pub home: PathBuf,
    /// The folder of everything this program writes, except the user's own ssh configuration and the shared login.
    pub root: PathBuf,
    /// The settings file.
    pub settings: PathBuf,
}

/// The place of `root` in a home, unless it was moved.
const ROOT: &str = ".iximiuz/labctl-ssh-proxy";

impl Folders {
    /// Finds the folders. They lie beside the official client's and not in the system's application folders, because on
    /// macOS those have a space in their name, which several readers of ssh's configuration cannot take.
    ///
    /// # Errors
    /// Fails when the user has no home folder.
    pub fn find() -> Result<Folders> {
        let variable_of_home = os::HOME;
        let home = os::home_folder().ok_or_else(|| {
            Error::new(Kind::File, "cannot find your home folder")
                .with_hint(format!("set {variable_of_home} to its absolute path"))
        })?;
        if !home.is_absolute() {
            let message = format!("{variable_of_home} is `{}`, which is not an absolute path", home.display());
            return Err(Error::new(Kind::File, message)
                .with_hint(format!("set {variable_of_home} to the absolute path of your home folder")));
        }
        let variable = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let root = variable(HOME_VARIABLE).unwrap_or_else(|| home.join(ROOT));
        let settings = variable(SETTINGS_VARIABLE).unwrap_or_else(|| {
            os::settings_folder().unwrap_or_else(|| home.join(".config")).join("labctl-ssh-proxy/settings.yaml")
        });
        Ok(Folders { home, root, settings })
    }

    /// True if a variable names the settings file. It may be set by a file of a folder, as editors and shells have them.
    pub(crate) fn are_settings_moved() -> bool {
        env::var_os(SETTINGS_VARIABLE).is_some_and(|value| !value.is_empty())
    }

    /// The root, if it was moved.
    pub fn moved_root(&self) -> Option<PathBuf> {
        (self.root != self.home.join(ROOT)).then(|| self.root.clone())
    }

    /// The official client's configuration, which holds the shared login.
    pub fn account(&self) -> PathBuf {
        self.home.join(".iximiuz/labctl/config.yaml")
    }

    /// The file of known host keys of a platform's machines.
    pub fn known_hosts(&self, platform: Platform) -> PathBuf {
        match platform {
            Platform::Labs => self.root.join("known_hosts"),
            Platform::Local => self.root.join("known_hosts.local"),
        }
    }

    /// The ssh configuration of our own, which the user's includes.
    pub fn ssh_config(&self) -> PathBuf {
        self.root.join("ssh_config")
    }

    /// The folder of the user's files as they were before we edited them.
    pub fn backups(&self) -> PathBuf {
        self.root.join("backups")
    }

    /// The folder of the program that the VS Code extension brings along, and copies there.
    pub fn programs(&self) -> PathBuf {
        self.root.join("bin")
    }

    /// The folder of our kubeconfigs, and of the records about the user's.
    pub fn kube(&self) -> PathBuf {
        self.root.join("kube")
    }

    /// The state of the embedded platform.
    pub fn local(&self) -> PathBuf {
        self.root.join("local")
    }

    /// The socket of the embedded platform.
    pub fn socket(&self) -> PathBuf {
        self.local().join("socket")
    }
}

#[cfg(test)]
mod tests {
    use super::{KEYS, ResumePolicy, Settings, Setup, WakePolicy};

    fn read(text: &str) -> Result<Settings, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("settings.yaml");
        std::fs::write(&path, text).unwrap();
        Settings::load(&path).map_err(|e| e.to_string())
    }

    #[test]
    fn nothing_said_means_the_defaults() {
        assert_eq!(read("").unwrap(), Settings::default());
        assert_eq!(read("# a comment\n\n").unwrap(), Settings::default());
        assert_eq!(Settings::default().wake_limit().as_secs(), 1500);
    }

    #[test]
    fn reads_what_is_said() {
        let settings =
            read("wake: never\nwake_limit: 60\nproxy: http://proxy:3128\nplaygrounds:\n  docker: {wake: always}\n")
                .unwrap();
        assert_eq!(settings.wake, WakePolicy::Never);
        for proxy in [
            "socks4://a:1",
            "ftp://me:secret@a:1",
            "http://a:84430",
            "me:secret@a:0",
            "a:x",
            "\"my proxy a:1\"",
            "http://",
        ] {
            let error = read(&format!("proxy: {proxy}\n")).unwrap_err();
            assert!(error.contains("`proxy` must be") && !error.contains("secret"), "{error}");
        }
        for proxy in ["me:secret@a:3128", "a", "http://a:80/", "https://me:secret@a", "socks5h://[::1]:1080"] {
            read(&format!("proxy: {proxy}\n")).unwrap();
        }
        let hosts = |text: &str| read(&format!("no_proxy: {text}\n")).unwrap().no_proxy;
        let two = Some(vec!["localhost".to_owned(), "*.a.test:443".to_owned()]);
        assert_eq!(hosts("localhost, *.a.test:443"), two);
        assert_eq!(hosts("[localhost, \"*.a.test:443\"]"), two);
        assert_eq!(hosts("\n- localhost\n- '*.a.test:443'"), two);
        assert_eq!(hosts("~"), None);
        assert_eq!(settings.wake_limit().as_secs(), 60);
        assert_eq!(settings.playgrounds["docker"].wake, Some(WakePolicy::Always));
        let settings = read("resume: always\nresume_for: 7200\nplaygrounds: {docker: {resume: never}}\n").unwrap();
        assert_eq!((settings.resume, settings.resume_for().as_secs()), (ResumePolicy::Always, 7200));
        assert_eq!(settings.playgrounds["docker"].resume, Some(ResumePolicy::Never));
        assert_eq!((read("").unwrap().resume, read("").unwrap().resume_for().as_secs()), (ResumePolicy::Auto, 3600));
    }

    #[test]
    fn a_setup_is_a_folder_or_an_address_without_a_password() {
        let setup = |text: &str| read(&format!("setup: {text}\n")).map(|settings| settings.setup);
        assert_eq!(setup("none"), Ok(Some(Setup::None)));
        assert_eq!((setup("~"), setup("")), (Ok(None), Ok(None)));
        assert_eq!(setup("~/dotfiles"), Ok(Some(Setup::Folder("~/dotfiles".into()))));
        let address = "https://git.example/me/dotfiles.git";
        assert_eq!(setup(address), Ok(Some(Setup::Address(address.to_owned()))));
        assert_eq!(
            read("playgrounds: {docker: {setup: none}}").unwrap().playgrounds["docker"].setup,
            Some(Setup::None)
        );
        for wrong in
            ["dotfiles", "ssh://git@a/b", "git@a:b", "http://a/b", "file:///a", "https://", "https://a", "\"/a\\nb\""]
        {
            let error = setup(wrong).unwrap_err();
            assert!(error.contains("`setup` must be an absolute path"), "{wrong}: {error}");
        }
        for secret in ["https://me:hunter2@a/b", "https://hunter2@a/b", "https://a/b?token=hunter2"] {
            let error = setup(secret).unwrap_err();
            assert!(error.contains("no user, password or query") && !error.contains("hunter2"), "{secret}: {error}");
        }
    }

    #[test]
    fn every_setting_is_described() {
        let unknown = read("no_such_key: 1\n").unwrap_err();
        let expected = unknown.split_once("expected one of ").unwrap().1;
        let mut known: Vec<&str> = expected.lines().next().unwrap().split(", ").collect();
        known.sort_unstable();
        let mut described: Vec<&str> = KEYS.iter().map(|(key, _)| *key).collect();
        described.sort_unstable();
        assert_eq!(described, known, "{unknown}");
    }

    #[test]
    fn a_key_of_a_newer_version_may_be_passed_over() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("settings.yaml");
        let read = |text: &str| {
            std::fs::write(&path, text).unwrap();
            Settings::read(&path, true)
        };
        let text = "wake: never\ncolour: {a: 1}\nplaygrounds:\n  docker: {wake: always, pace: 3}\n";
        let (settings, unknown) = read(text).unwrap();
        assert_eq!((settings.wake, unknown), (WakePolicy::Never, vec!["colour".into(), "pace".into()]));
        assert_eq!(settings.playgrounds["docker"].wake, Some(WakePolicy::Always));
        for wrong in ["colour: 1\nwake: perhaps\n", "colour: [\n", "- colour\n", "wake_limit: soon\n"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
        assert_eq!(read("wake_limit: 18446744073709551615\n").unwrap().0.wake_limit().as_secs(), 365 * 24 * 3600);
    }

    #[test]
    fn a_misspelt_key_is_an_error() {
        assert!(read("wakeup: never\n").unwrap_err().contains("wakeup"));
        assert!(read("wake: maybe\n").is_err());
        assert!(read("wake: [\n").is_err());
    }
}
