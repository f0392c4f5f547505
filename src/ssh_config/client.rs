//! Questions to the installed `ssh`: does it refuse hostile names, and which options are in force for a host (`ssh -G`,
//! which opens no connection)?

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
    process::{Output, Stdio},
    time::Duration,
};

use tokio::{process::Command, time::timeout};

use crate::{
    error::{Error, Kind, Result},
    os,
    ssh::credentials::KeyOptions,
};

/// The limit of one question. `ssh -G` takes milliseconds, but it runs the user's own `Match exec` commands, and those
/// may ask the network.
const PATIENCE: Duration = Duration::from_secs(20);

/// An ssh client.
pub(crate) struct Ssh {
    program: PathBuf,
}

/// The findings about a client that decide how entries are written for it.
#[derive(Debug, PartialEq)]
pub(crate) struct Survey {
    /// The client's home folder, which it takes from the system's user database and not from `HOME`; unknown before
    /// OpenSSH 8.4.
    pub home: Option<PathBuf>,
    /// True for a client that refuses user names with shell syntax (OpenSSH 9.6 and patched older ones;
    /// CVE-2023-51385).
    pub refuses_users: bool,
    /// True for a client that refuses such host names.
    pub refuses_hosts: bool,
}

impl Ssh {
    /// The first ssh in PATH.
    pub(crate) fn system() -> Ssh {
        Ssh { program: "ssh".into() }
    }

    /// Asks a few questions, without reading any configuration and without connecting.
    ///
    /// # Errors
    /// [`Kind::Program`] when ssh is missing, or too old to have `-G`.
    pub(crate) async fn survey(&self) -> Result<Survey> {
        // Harmless even to a client that lets it through, because `-G` runs no ProxyCommand.
        const HOSTILE: &str = "x$(y)";
        let ask = async |user, host| self.run(&["-F", "none", "-l", user, host]).await;
        let plain = ask("root", "probe.invalid").await?;
        if !plain.status.success() {
            let words = said(&plain);
            // OpenSSH's own words. A container may run as any number.
            if let Some((_, number)) = words.split_once("No user exists for uid ") {
                let number = number.split_whitespace().next().unwrap_or_default();
                return Err(Error::new(
                    Kind::Program,
                    format!("ssh does not run for user id {number}, because the system has no user of that id"),
                )
                .with_hint("add a line for it to /etc/passwd, or run this as a user whom the system knows"));
            }
            return Err(Error::new(Kind::Program, format!("`ssh -G` does not work: {}", said(&plain)))
                .with_hint(format!("{}; 7.3 or newer", os::INSTALL_SSH)));
        }
        // Older clients do not know `%d` here. Then the home stays unknown.
        let home = self.run(&["-F", "none", "-o", "ControlPath=%d/-", "probe.invalid"]).await?;
        let home = value(&String::from_utf8_lossy(&home.stdout), "controlpath")
            .and_then(|path| path.strip_suffix("/-"))
            .map(PathBuf::from);
        let refuses_users = !ask(HOSTILE, "probe.invalid").await?.status.success();
        let refuses_hosts = !ask("root", HOSTILE).await?.status.success();
        Ok(Survey { home, refuses_users, refuses_hosts })
    }

    /// The options in force for `host` under the configuration `file`, in the client's own words.
    ///
    /// # Errors
    /// [`Kind::Program`] when ssh is missing or hangs; [`Kind::File`] with ssh's own words when it refuses the file.
    pub(crate) async fn options(&self, file: &Path, host: &str) -> Result<String> {
        self.answer(&[OsStr::new("-F"), file.as_os_str(), OsStr::new(host)]).await
    }

    async fn answer(&self, arguments: &[&OsStr]) -> Result<String> {
        let mut output = self.run(arguments).await?;
        if !output.status.success() && said(&output).contains("Cannot fork into background without a command") {
            // ForkAfterAuthentication wants one, even for a question.
            output = self.run(&[arguments, &[OsStr::new("true")]].concat()).await?;
        }
        match output.status.success() {
            true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
            false => Err(Error::new(Kind::File, said(&output))),
        }
    }

    /// The options in force for `host` under the usual configuration, or under `file` alone.
    ///
    /// # Errors
    /// As [`Ssh::options`].
    pub(crate) async fn options_in_force(&self, file: Option<&Path>, host: &str) -> Result<String> {
        match file {
            Some(file) => self.options(file, host).await,
            None => self.answer(&[OsStr::new(host)]).await,
        }
    }

    /// The user's options for keys that are in force for `host` under the usual configuration.
    ///
    /// # Errors
    /// As [`Ssh::options`].
    pub(crate) async fn key_options(&self, host: &str, home: &Path) -> Result<KeyOptions> {
        Ok(key_options(&self.options_in_force(None, host).await?, home))
    }

    /// The version in the client's own words.
    ///
    /// # Errors
    /// [`Kind::Program`] when ssh is missing or hangs.
    pub(crate) async fn version(&self) -> Result<String> {
        let output = self.run(&["-V"]).await?;
        let words = if output.stderr.is_empty() { output.stdout } else { output.stderr };
        Ok(String::from_utf8_lossy(&words).trim().to_owned())
    }

    async fn run<A: AsRef<OsStr>>(&self, arguments: &[A]) -> Result<Output> {
        let mut command = Command::new(&self.program);
        // With -T, it would not say whether the user's configuration asks for a terminal.
        command.arg("-G").args(arguments).stdin(Stdio::null()).kill_on_drop(true);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        // With what its `Match exec` lines run, which would go on otherwise.
        #[cfg(unix)]
        command.process_group(0);
        let failed = |why: String| {
            Error::new(Kind::Program, why).with_hint(format!("{}, and check that `ssh -V` works", os::INSTALL_SSH))
        };
        let answered = async {
            let child = command.spawn()?;
            let leader = os::GroupOnDrop::of(&child);
            let output = child.wait_with_output();
            tokio::pin!(output);
            // Dropped before the child is.
            let group = leader;
            let output = (&mut output).await;
            group.leave();
            output
        };
        match timeout(PATIENCE, answered).await {
            Ok(Ok(output)) => Ok(output),
            Ok(Err(e)) if e.kind() == std::io::ErrorKind::NotFound => Err(failed("`ssh` was not found".into())),
            Ok(Err(e)) => Err(failed(format!("cannot run `ssh -G`: {e}"))),
            Err(_) => Err(Error::new(Kind::Program, format!("`ssh -G` took more than {} s", PATIENCE.as_secs()))
                .with_hint("check what the `Match exec` lines of your ssh configuration do")),
        }
    }
}

/// The error output of ssh, or its exit status when there is none.
fn said(output: &Output) -> String {
    // Even `-G` complains that it has no terminal.
    let text = String::from_utf8_lossy(&output.stderr);
    let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with("Pseudo-terminal will not be")).collect();
    let text = lines.join("\n").trim().to_owned();
    if text.is_empty() { format!("it ended with {}", output.status) } else { text }
}

/// The value of an option in the answer of [`Ssh::options`].
pub(crate) fn value<'a>(options: &'a str, name: &str) -> Option<&'a str> {
    options.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))
}

/// The values of an option that can stand several times.
fn values<'a>(options: &'a str, name: &str) -> impl Iterator<Item = &'a str> {
    options.lines().filter_map(move |line| line.strip_prefix(name)?.strip_prefix(' '))
}

/// The options for keys in the answer of [`Ssh::options`].
fn key_options(options: &str, home: &Path) -> KeyOptions {
    let user = value(options, "user").unwrap_or_default();
    // ssh prints an agent's path with its tokens replaced, and other paths as they were written.
    let path = |text: &str| {
        let text = text.replace("%d", &home.to_string_lossy()).replace("%r", user).replace("%%", "%");
        match text.strip_prefix("~/") {
            Some(below) => home.join(below),
            None => PathBuf::from(text),
        }
    };
    let agent = match value(options, "identityagent") {
        Some("none") => None,
        None | Some("SSH_AUTH_SOCK") => crate::os::ssh_agent(),
        Some(text) => match text.strip_prefix('$').filter(|name| !name.starts_with('{')) {
            Some(variable) => std::env::var_os(variable).filter(|path| !path.is_empty()).map(PathBuf::from),
            None => Some(path(text)),
        },
    };
    // The options that our client does not honour. GSSAPI is some systems' default, and no machine of the platform
    // has it.
    let ignored = value(options, "pkcs11provider").filter(|provider| *provider != "none");
    KeyOptions {
        agent,
        identities: values(options, "identityfile").filter(|text| *text != "none").map(path).collect(),
        certificates: values(options, "certificatefile").filter(|text| *text != "none").map(path).collect(),
        adds_keys: value(options, "addkeystoagent") == Some("true"),
        ignored: ignored.map(|_| "PKCS11Provider".to_owned()).into_iter().collect(),
    }
}

#[cfg(all(test, unix))]
mod tests {
    use std::path::Path;

    use super::{Ssh, Survey, value};
    use crate::{error::Kind, files::write_script};

    fn fake(folder: &Path, script: &str) -> Ssh {
        let program = folder.join("ssh");
        write_script(&program, script);
        Ssh { program }
    }

    #[tokio::test]
    async fn the_real_one_is_surveyed() {
        let survey = Ssh::system().survey().await.unwrap();
        assert!(survey.home.unwrap().is_absolute());
        assert!(survey.refuses_hosts && survey.refuses_users, "this machine's ssh is patched");
    }

    #[tokio::test]
    async fn an_old_one_is_recognised() {
        let folder = tempfile::tempdir().unwrap();
        let ssh = fake(folder.path(), "echo controlpath '/home/a b/-'");
        let expected = Survey { home: Some("/home/a b".into()), refuses_users: false, refuses_hosts: false };
        assert_eq!(ssh.survey().await.unwrap(), expected);
        let ssh = fake(folder.path(), "case $* in *%d*) exit 255;; esac");
        assert_eq!(ssh.survey().await.unwrap().home, None);
        let ssh = fake(folder.path(), "echo unknown option >&2; exit 255");
        let error = ssh.survey().await.unwrap_err();
        assert!(error.message().contains("unknown option"), "{error}");
        let ssh = fake(folder.path(), "echo No user exists for uid 12345 >&2; exit 255");
        let error = ssh.survey().await.unwrap_err();
        assert!(error.message().contains("user id 12345") && error.hint().unwrap().contains("/etc/passwd"), "{error}");
    }

    #[tokio::test]
    async fn a_missing_one_is_named() {
        let error = Ssh { program: "/nonexistent/ssh".into() }.survey().await.unwrap_err();
        assert_eq!(error.kind(), Kind::Program);
        assert!(error.to_string().contains("openssh-client"));
    }

    /// ssh itself says what its configuration means.
    #[tokio::test]
    async fn the_agent_and_the_keys_are_those_of_ssh() {
        let folder = tempfile::tempdir().unwrap();
        let home = folder.path();
        let file = home.join("config");
        for (text, agent) in [
            ("IdentityAgent none", None),
            ("IdentityAgent /a/b", Some("/a/b".into())),
            ("IdentityAgent \"/a b\"", Some("/a b".into())),
            ("IdentityAgent /a/%h", Some("/a/x".into())),
            ("IdentityAgent ${PATH}", std::env::var("PATH").ok()),
            ("IdentityAgent $PATH", std::env::var("PATH").ok()),
            ("IdentityAgent $NOT_SET_ANYWHERE", None),
            ("IdentityAgent SSH_AUTH_SOCK", std::env::var("SSH_AUTH_SOCK").ok()),
            ("", std::env::var("SSH_AUTH_SOCK").ok()),
        ] {
            std::fs::write(&file, format!("Host *\n {text}\n")).unwrap();
            let options = Ssh::system().options(&file, "x").await.unwrap();
            assert_eq!(super::key_options(&options, home).agent, agent.map(Into::into), "{text}");
        }
        let text = "Host *\n User u\n IdentityFile ~/k\n IdentityFile /a/%r\n CertificateFile %d/c\n AddKeysToAgent yes\n \
                    PKCS11Provider /p\n";
        std::fs::write(&file, text).unwrap();
        let found = super::key_options(&Ssh::system().options(&file, "x").await.unwrap(), home);
        assert_eq!(found.identities, [home.join("k"), "/a/u".into()]);
        assert_eq!(found.certificates, [home.join("c")]);
        assert_eq!((found.adds_keys, found.ignored), (true, vec!["PKCS11Provider".to_owned()]));
    }

    #[test]
    fn reads_what_is_in_force() {
        assert_eq!(value("host x\nproxycommand a b\n", "proxycommand"), Some("a b"));
        assert_eq!(value("hostname y\n", "host"), None);
    }
}
