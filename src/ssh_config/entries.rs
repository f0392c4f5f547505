//! The ssh configuration that this program writes: one entry for each machine. Pure; [`crate::ssh_config`] does the
//! work with files and with `ssh`, and [`edit`](crate::ssh_config::edit) changes the user's own text.
//!
//! Many programs read these entries, each in its own way: OpenSSH through the user's shell, JetBrains, Zed, paramiko,
//! the ssh-config libraries of Node. So only those options and characters are used that all of them read alike. A path
//! with other characters is refused, with the reason, rather than written and misread.

use std::path::{Path, PathBuf};

use helper::wire::CONTAINER_USER;
use serde::{Deserialize, Serialize};

use crate::{
    error::{Error, Kind, Result, printable},
    os,
    platform::Platform,
    settings::HOME_VARIABLE,
    ssh_config::words,
    target,
};

/// One host entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The host name, `playground-<id>`, `playground-<id>.<machine>` or `playground-<name>`.
    pub host: String,
    /// The user when the command line names none.
    pub user: String,
    /// The platform that the playground is on.
    #[serde(with = "PlatformName")]
    pub platform: Platform,
    /// The owner's title of the playground: a comment for people who read the file.
    pub title: String,
    /// A readable name beside the host name: a label, or a label and a machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alias: Option<String>,
    /// The listener that the entry leads to, in place of our ProxyCommand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listener: Option<Listening>,
}

/// A listener of `listen`. Its entry has a host name of its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listening {
    /// The port of this computer's loopback interface.
    pub port: u16,
    /// The host name that it leads to, under which host keys are kept.
    pub to: String,
}

impl Entry {
    /// Checks that the entry can be written. Its names come from the platform.
    ///
    /// # Errors
    /// [`Kind::Usage`] when the host name or the user is not well-formed.
    pub fn check(&self) -> Result<()> {
        target::Target::parse(self.listener.as_ref().map_or(&self.host, |listener| &listener.to))?;
        if self.listener.as_ref().is_some_and(|listener| self.host != target::of_listener(&listener.to)) {
            return Err(Error::new(Kind::Usage, format!("`{}` cannot be the name of a listener", self.host)));
        }
        if let Some(alias) = &self.alias {
            let (label, machine) = alias.split_once('.').map_or((alias.as_str(), None), |(a, b)| (a, Some(b)));
            if target::alias::check(label).is_err() || !machine.is_none_or(target::is_label) {
                return Err(Error::new(Kind::Usage, format!("`{alias}` cannot be an alias")));
            }
        }
        match target::user(Some(&self.user))? {
            Some(_) => Ok(()),
            None => Err(Error::new(Kind::Usage, format!("`{}` is not a user name", self.user))),
        }
    }
}

/// [`Platform`] as it is stored.
#[derive(Serialize, Deserialize)]
#[serde(remote = "Platform", rename_all = "lowercase")]
enum PlatformName {
    Labs,
    Local,
}

/// The values that all entries share.
#[derive(Clone, Debug)]
pub struct Rendering {
    /// The absolute path of this program.
    pub program: PathBuf,
    /// The private key, or the `.pub` of one in an agent.
    pub identity: Option<PathBuf>,
    /// Known host keys of the real platform's machines.
    pub known_hosts: PathBuf,
    /// Known host keys of the embedded platform's machines.
    pub known_hosts_local: PathBuf,
    /// The folder that every reader takes `~` for; `None` when they do not agree.
    pub home: Option<PathBuf>,
    /// The folder of our files, when it is not the default one, so that every command must name it.
    pub moved_root: Option<PathBuf>,
    /// True to write each entry's user into its command in place of `%r`, because this ssh hands hostile user names to
    /// a shell.
    pub literal_user: bool,
    /// True to add the entry for all other names of the real platform.
    pub wildcard: bool,
    /// True to add the patterns of containers, because this ssh lets no hostile host name through to a shell.
    pub containers: bool,
}

/// The patterns of the wildcard entry.
const WILDCARD: &str = "playground-*";

/// The pattern behind a playground's host name that its containers match, and no machine does.
const CONTAINERS: &str = ".*.*";

/// Number of such patterns behind one `Host`: OpenSSH before 8.3 refuses lines of more than 1,023 bytes, and a pattern
/// has 39.
const IN_A_LINE: usize = 16;

/// From this number of entries on, the shared options stand once, in the wildcard, and most entries have only a name
/// and a user. ssh reads every line at every call, and editors call `ssh -G` often: with 1,000 playgrounds it then
/// takes 1.2 times as long as with none, else 1.9 times.
const MANY: usize = 200;

/// The first line of our text, for people who come across it.
const HEADER: &str = "# Written by labctl-ssh-proxy: your edits here will be overwritten.\n\
     # `labctl-ssh-proxy config-ssh --remove` removes these lines.\n";

/// The entries as text: first the concrete ones, because the first value wins in every reader, then the patterns of
/// containers, which match less than the wildcard, and last the wildcard.
///
/// # Errors
/// [`Kind::Usage`] when a host name or a user is not well-formed, or a path cannot be written so that every reader
/// understands it.
pub fn render(entries: &[Entry], rendering: &Rendering) -> Result<String> {
    let mut text = String::from(HEADER);
    let mut seen = std::collections::HashSet::new();
    let many = entries.len() >= MANY;
    // A literal user stands in each command, so that one command cannot serve two entries.
    let by_wildcard = many && rendering.wildcard && !rendering.literal_user;
    for entry in entries {
        entry.check()?;
        if !seen.insert(&entry.host) {
            continue;
        }
        text.push('\n');
        let title = printable(&entry.title);
        if !title.is_empty() {
            // Words in front, so that no title can pass for a marker of ours.
            text += &format!("# Playground: {title}\n");
        }
        // The name that `connect` gets, and under which host keys are kept, is the first one for both.
        let alias = entry.alias.as_ref().filter(|alias| seen.insert(*alias));
        text += &format!("Host {}{}\n", entry.host, alias.map_or_else(String::new, |alias| format!(" {alias}")));
        if let Some(Listening { port, to }) = &entry.listener {
            text += &format!("  HostName 127.0.0.1\n  Port {port}\n  HostKeyAlias {to}\n");
            text += &(own(&entry.user, entry.platform, to, rendering)?.0 + &shared(rendering)?);
            // The wildcard matches it, too.
            text += "  ProxyCommand none\n";
            continue;
        }
        if by_wildcard && entry.platform == Platform::Labs && alias.is_none() {
            text += &format!("  User {}\n", entry.user);
            continue;
        }
        text += &format!("  HostName {}\n", entry.host);
        let (own, command) = own(&entry.user, entry.platform, &entry.host, rendering)?;
        // The wildcard does not match an alias, so that such an entry has all of its options.
        text += &if many && alias.is_none() { own + &command } else { own + &shared(rendering)? + &command };
    }
    if rendering.containers {
        text += &containers(entries, rendering, many, by_wildcard)?;
    }
    if rendering.wildcard {
        // Without a HostName, `%h` is the name as it was typed, in lower case. `%n` would say so more plainly, but ssh
        // before 8.1 and paramiko do not know it in a ProxyCommand, and `HostName %h` is a literal to several readers.
        text += &format!("\nHost {WILDCARD}\n");
        text += &options("root", Platform::Labs, "%h", rendering)?;
    } else if many {
        text += &format!("\nHost {WILDCARD}\n{}", shared(rendering)?);
    }
    Ok(text)
}

/// The entries of containers. They come and go, so that only patterns can serve them: one for each playground of the
/// embedded platform, and one for all of the real one. ssh always sends a user, so the user that a container itself runs
/// as has a name.
fn containers(entries: &[Entry], rendering: &Rendering, many: bool, by_wildcard: bool) -> Result<String> {
    let mut text = String::new();
    let mut add = |patterns: &[String], platform| {
        text += &format!("\n# Containers. The user `{CONTAINER_USER}` is the one that each of them runs as.\n");
        text += &format!("Host {}\n", patterns.join(" "));
        if by_wildcard && platform == Platform::Labs {
            text += &format!("  User {CONTAINER_USER}\n");
            return Ok(());
        }
        let (own, command) = own(CONTAINER_USER, platform, "%h", rendering)?;
        text += &if many { own + &command } else { own + &shared(rendering)? + &command };
        Ok::<_, Error>(())
    };
    let mut local: Vec<String> = Vec::new();
    for entry in entries.iter().filter(|entry| entry.platform == Platform::Local && entry.listener.is_none()) {
        let pattern = entry.host.split('.').next().unwrap_or_default().to_owned() + CONTAINERS;
        // The machines of a playground follow it.
        if local.last() != Some(&pattern) {
            local.push(pattern);
        }
    }
    for patterns in local.chunks(IN_A_LINE) {
        add(patterns, Platform::Local)?;
    }
    if rendering.wildcard {
        add(&[format!("{WILDCARD}{CONTAINERS}")], Platform::Labs)?;
    }
    Ok(text)
}

/// The options below `Host` and `HostName`. `host` is the name that the command gets.
///
/// # Errors
/// As [`render`].
pub fn options(user: &str, platform: Platform, host: &str, rendering: &Rendering) -> Result<String> {
    let (own, command) = own(user, platform, host, rendering)?;
    Ok(own + &shared(rendering)? + &command)
}

/// The lines of an entry's own: those before and those after the [`shared`] ones.
fn own(user: &str, platform: Platform, host: &str, rendering: &Rendering) -> Result<(String, String)> {
    let known_hosts = match platform {
        Platform::Labs => &rendering.known_hosts,
        Platform::Local => &rendering.known_hosts_local,
    };
    let known_hosts = spell(known_hosts, rendering.home.as_deref(), "known_hosts file")?;
    let command = proxy_command(user, platform, host, rendering)?;
    Ok((format!("  User {user}\n  UserKnownHostsFile {known_hosts}\n"), format!("  ProxyCommand {command}\n")))
}

/// ssh's own watch over a connection.
pub(crate) struct Alive {
    /// Seconds between two questions, which are data: hops that end quiet connections after 60 s see them.
    pub every: u32,
    /// ssh ends the session after so many questions without an answer.
    pub unanswered: u32,
}

/// The watch of our entries: an hour. This program notices within seconds that a machine cannot be reached, and knows
/// whether the session can be saved; ssh knows neither, and its 45 s of old ended sessions that would have gone on.
/// It is the net below: it counts questions and not time, so that a night's sleep costs one of them, and ends the
/// session when ours gives up by default, too (`resume_for`). sshj gives up after five whatever the second number says:
/// 150 s. ssh waits as long for a key exchange that begins with a remembered identification line; there
/// `wake_limit` strikes first.
pub(crate) const ALIVE: Alive = Alive { every: 30, unanswered: 120 };

/// The lines that are the same for every machine.
fn shared(rendering: &Rendering) -> Result<String> {
    let mut text = String::new();
    if let Some(identity) = &rendering.identity {
        let identity = spell(identity, rendering.home.as_deref(), "identity")?;
        text += &format!("  IdentityFile {identity}\n  IdentitiesOnly yes\n");
    }
    // ConnectTimeout 0: wait for as long as a machine takes to wake. ServerAlive: see `ALIVE`. UpdateHostKeys no: the
    // lines of our known_hosts are bound to playgrounds, and ssh's own would not be.
    text += "  StrictHostKeyChecking yes\n  UpdateHostKeys no\n  ConnectTimeout 0\n";
    text += &format!("  ServerAliveInterval {}\n  ServerAliveCountMax {}\n", ALIVE.every, ALIVE.unanswered);
    Ok(text)
}

/// The ProxyCommand of an entry.
///
/// # Errors
/// [`Kind::Usage`] when the program's path has characters that some reader would misread.
pub fn proxy_command(user: &str, platform: Platform, host: &str, rendering: &Rendering) -> Result<String> {
    // No `~` here: not every client runs it by a shell.
    let program = spell(&rendering.program, None, "program")?;
    let local = match platform {
        Platform::Labs => "",
        Platform::Local => "--local ",
    };
    let user = if rendering.literal_user { user } else { "%r" };
    let root = match &rendering.moved_root {
        Some(root) => format!("--home {} ", spell(root, None, "folder of LABCTL_SSH_PROXY_HOME")?),
        None => String::new(),
    };
    let command = format!("{program} {root}{local}connect --user {user} {host}");
    words::agreed(&command)?;
    Ok(command)
}

/// Checks that a block of these entries is understood by the readers that follow no Include, too.
///
/// # Errors
/// [`Kind::Usage`] when a path needs quotes, because JSch takes them for a part of it, and ssh-config 3 loses those of
/// a command.
pub fn check_inline(entries: &str) -> Result<()> {
    let quoted = |line: &&str| !line.starts_with('#') && line.contains('"');
    let Some(line) = entries.lines().find(quoted) else { return Ok(()) };
    let why = format!(
        "`{}` cannot be written with --inline: the path has a space, and older programs misread the quotes",
        line.trim()
    );
    Err(Error::new(Kind::Usage, why)
        .with_hint("leave out --inline, or move what the line names to a path of plain letters"))
}

/// `path` as all readers of ssh's configuration understand it: as it is, else below `~`, else in double quotes.
///
/// # Errors
/// [`Kind::Usage`] with the reason and a remedy when there is no such form. `what` names the thing at that path.
pub fn spell(path: &Path, home: Option<&Path>, what: &str) -> Result<String> {
    let refuse = |why: &str| {
        let error = Error::new(
            Kind::Usage,
            format!("the {what} `{}` cannot be named in an ssh configuration: its path {why}", path.display()),
        );
        Err(error.with_hint(match what {
            "program" => {
                format!("install it below a path of plain letters, for example {}, and run that one", os::PROGRAMS)
            }
            "identity" => "move it to a path of plain letters, and set that path in the settings".into(),
            _ => format!("set {HOME_VARIABLE} to a folder whose path has only plain letters"),
        }))
    };
    let Some(text) = path.to_str() else { return refuse("is not UTF-8") };
    let text = forward_slashes(text);
    if !path.is_absolute() {
        return refuse("is not absolute");
    }
    if text.chars().all(is_plain) {
        return Ok(text);
    }
    let below = home.and_then(|home| path.strip_prefix(home).ok()).and_then(Path::to_str).map(forward_slashes);
    if let Some(below) = below.filter(|below| !below.is_empty() && below.chars().all(is_plain)) {
        return Ok(format!("~/{below}"));
    }
    match text.chars().find(|&c| !is_plain(c) && !is_quotable(c)) {
        None => Ok(format!("\"{text}\"")),
        Some(c) => refuse(&format!("has the character {c:?}, which not every program accepts")),
    }
}

/// A path with forward slashes: Windows takes both, and every parser but OpenSSH's reads a backslash as an escape.
pub(crate) fn forward_slashes(path: &str) -> String {
    if cfg!(windows) { path.replace('\\', "/") } else { path.to_owned() }
}

/// Reports whether a character needs no quotes in any shell and in any parser. Letters of every language are among
/// them, because readers pass them through.
fn is_plain(c: char) -> bool {
    match c {
        'a'..='z' | 'A'..='Z' | '0'..='9' | '/' | '.' | '_' | '-' | '+' | '@' | ',' | ':' => true,
        c => {
            !c.is_ascii() && !c.is_control() && !c.is_whitespace() && !printable(c.encode_utf8(&mut [0; 4])).is_empty()
        }
    }
}

/// Reports whether double quotes make a character harmless everywhere. They do not for `%` `#` `'` `=` and the
/// backslash, which some parsers interpret, for `$` `!` and the backquote, which shells do, and for the characters of
/// file patterns, which Include expands.
fn is_quotable(c: char) -> bool {
    matches!(c, ' ' | '(' | ')' | '&' | ';' | '~' | '^')
}

#[cfg(all(test, windows))]
mod windows_tests {
    use std::path::Path;

    use expect_test::expect_file;

    use super::{Entry, Rendering, render, spell};
    use crate::platform::Platform;

    /// Microsoft's OpenSSH and Git's read the same words, which `words` models.
    #[test]
    fn entries_in_a_home_with_a_space() {
        let rendering = Rendering {
            program: r"C:\Program Files\labctl-ssh-proxy\labctl-ssh-proxy.exe".into(),
            identity: Some(r"C:\Users\Ada Lövelace\.ssh\iximiuz_labs_user".into()),
            known_hosts: r"C:\Users\Ada Lövelace\.iximiuz\labctl-ssh-proxy\known_hosts".into(),
            known_hosts_local: r"C:\Users\Ada Lövelace\.iximiuz\labctl-ssh-proxy\known_hosts.local".into(),
            home: None,
            moved_root: None,
            literal_user: false,
            wildcard: true,
            containers: true,
        };
        let entry = Entry {
            host: "playground-0123456789abcdef01234567".into(),
            user: "laborant".into(),
            platform: Platform::Labs,
            title: "My docker box".into(),
            alias: None,
            listener: None,
        };
        expect_file!["../../tests/golden/ssh_config/entries-windows"].assert_eq(&render(&[entry], &rendering).unwrap());
    }

    #[test]
    fn paths_are_written_with_forward_slashes_or_refused() {
        let home = Some(Path::new(r"C:\Users\a#b"));
        let told = |path: &str| spell(Path::new(path), home, "program").map_err(|e| e.message().to_owned());
        assert_eq!(told(r"C:\Tools\x.exe").unwrap(), "C:/Tools/x.exe");
        assert_eq!(told(r"\\server\share\x.exe").unwrap(), "//server/share/x.exe");
        assert_eq!(told(r"C:\Program Files (x86)\é\x.exe").unwrap(), "\"C:/Program Files (x86)/é/x.exe\"");
        assert_eq!(told(r"C:\Users\a#b\.ssh\key").unwrap(), "~/.ssh/key");
        for path in [r"C:\a%b\x", r"C:\a'b\x", r"\\?\C:\x", r"C:\a!b\x", r"C:\a=b\x"] {
            assert!(told(path).unwrap_err().contains("has the character"), "{path}");
        }
        for path in [r"Tools\x.exe", r"\Tools\x.exe", r"C:x.exe"] {
            assert!(told(path).unwrap_err().contains("not absolute"), "{path}");
        }
        let error = spell(Path::new(r"C:\a=b\x.exe"), None, "program").unwrap_err();
        assert!(error.hint().unwrap().contains(r"C:\Tools"), "{error}");
    }
}

#[cfg(all(test, unix))]
mod tests {
    use std::{path::Path, time::Duration};

    use expect_test::expect_file;
    use proptest::prelude::*;

    use super::{Entry, Listening, Rendering, proxy_command, render, spell};
    use crate::{labs::tunnel, platform::Platform};

    const ID: &str = "0123456789abcdef01234567";

    fn rendering() -> Rendering {
        Rendering {
            program: "/usr/local/bin/labctl-ssh-proxy".into(),
            identity: Some("/home/ada/.ssh/iximiuz_labs_user".into()),
            known_hosts: "/home/ada/.iximiuz/labctl-ssh-proxy/known_hosts".into(),
            known_hosts_local: "/home/ada/.iximiuz/labctl-ssh-proxy/known_hosts.local".into(),
            home: Some("/home/ada".into()),
            moved_root: None,
            literal_user: false,
            wildcard: true,
            containers: true,
        }
    }

    fn entries() -> Vec<Entry> {
        let entry = |host: String, user: &str, platform, title: &str| Entry {
            host,
            user: user.into(),
            platform,
            title: title.into(),
            alias: None,
            listener: None,
        };
        vec![
            entry(format!("playground-{ID}"), "laborant", Platform::Labs, "My docker box"),
            entry(format!("playground-{ID}.node-02"), "root", Platform::Labs, ""),
            entry("playground-shell".into(), "ada", Platform::Local, "--- END labctl-ssh-proxy ---\nHost *"),
            entry("playground-shell".into(), "twice", Platform::Local, ""),
        ]
    }

    #[test]
    fn entries_as_every_reader_takes_them() {
        expect_file!["../../tests/golden/ssh_config/entries"].assert_eq(&render(&entries(), &rendering()).unwrap());
    }

    #[test]
    fn a_listener_has_all_options_of_the_host_behind_it_and_no_command() {
        let listening = |host: &str, to: &str| {
            let listener = Some(Listening { port: 40022, to: to.into() });
            Entry { host: host.into(), listener, ..entries().remove(2) }
        };
        let host = "playground-shell.work-01.web";
        let entry = listening("playground-shell-work-01-web-listen", host);
        let text = render(std::slice::from_ref(&entry), &Rendering { wildcard: false, ..rendering() }).unwrap();
        let options = super::options(&entry.user, entry.platform, host, &rendering()).unwrap();
        let (same, _) = options.split_once("  ProxyCommand").unwrap();
        assert_eq!(
            text.split_once("\nHost ").unwrap().1,
            format!(
                "{}\n  HostName 127.0.0.1\n  Port 40022\n  HostKeyAlias {host}\n{same}  ProxyCommand none\n",
                entry.host
            )
        );
        for (name, to) in
            [("playground-x", "playground-y"), ("a-listen", "a"), ("playground-x-listen *", "playground-x")]
        {
            assert!(render(&[listening(name, to)], &rendering()).is_err(), "{name} {to}");
        }
    }

    /// The reasons for the two numbers, as far as they can be computed.
    #[test]
    fn ssh_s_own_watch_is_the_net_below_ours() {
        let every = Duration::from_secs(super::ALIVE.every.into());
        // The shortest patience of a hop that was found: Heroku's router, nginx and AWS' balancers end what is quiet
        // for 55 to 60 s.
        assert!(every < Duration::from_secs(55));
        let whole = every * super::ALIVE.unanswered;
        assert_eq!(whole, Duration::from_secs(3600), "as long as a session is tried to be resumed by default");
        assert!(every * 5 > 2 * tunnel::SILENCE, "sshj, which counts to five, outlasts our own watch");
    }

    #[test]
    fn entries_for_an_ssh_that_lets_hostile_users_through() {
        let rendering = Rendering { literal_user: true, wildcard: false, containers: false, ..rendering() };
        expect_file!["../../tests/golden/ssh_config/entries-literal-user"]
            .assert_eq(&render(&entries(), &rendering).unwrap());
    }

    #[test]
    fn entries_in_a_home_with_a_space() {
        let rendering = Rendering {
            program: "/Users/Ada L/bin/labctl-ssh-proxy".into(),
            identity: Some("/Users/Ada L/.ssh/my key.pub".into()),
            known_hosts: "/Users/Ada L/.iximiuz/labctl-ssh-proxy/known_hosts".into(),
            home: Some("/Users/Ada L".into()),
            ..rendering()
        };
        expect_file!["../../tests/golden/ssh_config/entries-home-with-space"]
            .assert_eq(&render(&entries()[..1], &rendering).unwrap());
    }

    #[test]
    fn a_block_has_no_quotes() {
        let rendering = Rendering { program: "/opt/my tools/x".into(), ..rendering() };
        let error = super::check_inline(&render(&entries(), &rendering).unwrap()).unwrap_err();
        assert!(error.message().contains("ProxyCommand \"/opt/my tools/x\"") && error.hint().is_some(), "{error}");
        let titled = Entry { title: "a \"quoted\" title".into(), ..entries().remove(0) };
        super::check_inline(&render(&[titled], &super::tests::rendering()).unwrap()).unwrap();
    }

    #[test]
    fn entries_that_know_where_our_files_were_moved() {
        let rendering = Rendering { moved_root: Some("/srv/ada/proxy".into()), wildcard: false, ..rendering() };
        let command = |text: String| text.lines().find(|line| line.contains("ProxyCommand")).unwrap().to_owned();
        assert_eq!(
            command(render(&entries()[2..3], &rendering).unwrap()),
            "  ProxyCommand /usr/local/bin/labctl-ssh-proxy --home /srv/ada/proxy --local connect --user %r playground-shell"
        );
    }

    #[test]
    fn no_entries_and_no_identity_yet() {
        let rendering = Rendering { identity: None, ..rendering() };
        expect_file!["../../tests/golden/ssh_config/entries-none"].assert_eq(&render(&[], &rendering).unwrap());
    }

    #[test]
    fn hosts_and_users_are_checked_before_they_are_written() {
        for (host, user) in [
            ("playground-x\nHost *", "root"),
            ("playground-*", "root"),
            ("playground-X", "root"),
            ("example.com", "root"),
            ("playground-x", "a b"),
            ("playground-x", "x\n"),
            ("playground-x", ""),
            ("playground-x", "%r"),
        ] {
            let entry = Entry {
                host: host.into(),
                user: user.into(),
                platform: Platform::Labs,
                title: String::new(),
                alias: None,
                listener: None,
            };
            assert!(render(&[entry], &rendering()).is_err(), "{host:?} {user:?}");
        }
    }

    #[test]
    fn paths_are_written_plainly_or_refused() {
        let home = Some(Path::new("/home/a#b"));
        let told = |path: &str| spell(Path::new(path), home, "program").map_err(|e| e.message().to_owned());
        assert_eq!(told("/usr/bin/x").unwrap(), "/usr/bin/x");
        assert_eq!(told("/home/é/x").unwrap(), "/home/é/x");
        assert_eq!(told("/home/e\u{301}/x").unwrap(), "/home/e\u{301}/x");
        assert_eq!(told("/opt/my tools (é)/x").unwrap(), "\"/opt/my tools (é)/x\"");
        assert_eq!(told("/home/a#b/.ssh/key").unwrap(), "~/.ssh/key");
        for c in ['%', '#', '\'', '=', '\\', '"', '\n', '\t', '$', '`', '!', '*', '?', '[', '{', '\u{a0}', '\u{202e}'] {
            assert!(told(&format!("/opt/a{c}b/x")).unwrap_err().contains("has the character"), "{c:?}");
        }
        assert!(told("bin/x").unwrap_err().contains("not absolute"));
        assert!(told("/home/a#b/a b").unwrap_err().contains("'#'"));
        let error = spell(Path::new("/a=b/x"), None, "program").unwrap_err();
        assert!(error.hint().unwrap().contains("/usr/local/bin"));
        assert!(
            spell(Path::new("/a=b"), None, "configuration").unwrap_err().hint().unwrap().contains("SSH_PROXY_HOME")
        );
        #[cfg(unix)]
        {
            let name: &std::ffi::OsStr = std::os::unix::ffi::OsStrExt::from_bytes(b"/a\xff");
            assert!(spell(Path::new(name), None, "program").unwrap_err().message().contains("not UTF-8"));
        }
    }

    proptest! {
        /// For every path, the command is one line whose words a shell and the plainest tokenizer read alike.
        #[test]
        fn a_command_that_is_written_is_read_alike(path in "/[ -~é]{0,20}") {
            let rendering = Rendering { program: path.clone().into(), ..rendering() };
            if let Ok(command) = proxy_command("root", Platform::Labs, "playground-x", &rendering) {
                let rest = match command.strip_prefix('"') {
                    Some(quoted) => quoted.strip_prefix(&path).unwrap().strip_prefix('"').unwrap(),
                    None => { prop_assert!(!path.contains(' ')); command.strip_prefix(&path).unwrap() }
                };
                prop_assert_eq!(rest, " connect --user %r playground-x");
                prop_assert!(!path.contains(['%', '#', '\'', '=', '\\', '"', '$', '`']));
            }
        }

        #[test]
        fn a_title_stays_a_comment(title in any::<String>()) {
            let entry = Entry { title, ..entries().remove(0) };
            let with = render(std::slice::from_ref(&entry), &rendering()).unwrap();
            let without = render(&[Entry { title: String::new(), ..entry }], &rendering()).unwrap();
            let with: String = with.split_inclusive('\n').filter(|line| !line.starts_with("# Playground: ")).collect();
            prop_assert_eq!(with, without);
        }
    }
}
