//! The account of this process: the login name and the shell.

use std::{env, fs, process::Command};

/// A line of the passwd database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Account {
    /// The login name.
    pub name: String,
    /// The login shell, an absolute path.
    pub shell: String,
}

impl Account {
    /// The account of this process. `/etc/passwd` is asked first, then the name service (`getent`) and Directory
    /// Services (`id -P`, macOS). The C library's `getpwuid` would need unsafe code, and `$SHELL` is the caller's,
    /// which in an IDE or a container is often wrong. For an unknown user id, as in a container that was started with
    /// an arbitrary one, the environment has to do.
    pub(super) fn of_this_process() -> Account {
        let uid = rustix::process::getuid().as_raw();
        let ask = |program: &str, args: &[&str]| -> Option<Account> {
            let output = Command::new(program).args(args).output().ok()?;
            parse(&String::from_utf8_lossy(&output.stdout), uid)
        };
        let id = uid.to_string();
        fs::read_to_string("/etc/passwd")
            .ok()
            .and_then(|text| parse(&text, uid))
            .or_else(|| ask("getent", &["passwd", &id]))
            .or_else(|| ask("id", &["-P", &id]))
            .unwrap_or_else(|| Account {
                name: env::var("USER").ok().filter(|name| is_name(name)).unwrap_or(id),
                shell: FALLBACK_SHELL.to_owned(),
            })
    }
}

/// The meaning of an empty shell field (passwd(5)).
const FALLBACK_SHELL: &str = "/bin/sh";

/// The line of `uid`: name, password, uid, ..., shell. Between uid and shell are three fields or, from `id -P`, six.
fn parse(passwd: &str, uid: u32) -> Option<Account> {
    passwd.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        let (name, shell) = (fields.first()?, fields.last()?);
        if fields.len() < 7 || fields[2].parse() != Ok(uid) || !is_name(name) {
            return None;
        }
        let shell = if shell.starts_with('/') { shell } else { FALLBACK_SHELL };
        Some(Account { name: (*name).to_owned(), shell: shell.to_owned() })
    })
}

/// A name is also a file name of ours.
fn is_name(name: &str) -> bool {
    !name.is_empty() && !name.starts_with('.') && !name.contains(['/', '\0', '\n'])
}

#[cfg(test)]
mod tests {
    use super::{Account, parse};

    #[test]
    fn reads_all_three_forms() {
        let account = |name: &str, shell: &str| Some(Account { name: name.into(), shell: shell.into() });
        let passwd = "root:x:0:0:root:/root:/bin/bash\n# x\nann:x:1000:1000:A:/home/ann:\n";
        assert_eq!(parse(passwd, 0), account("root", "/bin/bash"));
        assert_eq!(parse(passwd, 1000), account("ann", "/bin/sh"));
        assert_eq!(parse(passwd, 7), None);
        assert_eq!(parse("ann:*:501:20::0:0:Ann:/Users/ann:/bin/zsh\n", 501), account("ann", "/bin/zsh"));
        assert_eq!(parse("../x:x:5:5::/:/bin/sh\n", 5), None);
    }
}
