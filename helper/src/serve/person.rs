//! The user inside a container: home, shell and environment.

use std::{
    env,
    ffi::{OsStr, OsString},
    path::{Path, PathBuf},
};

use rustix::fs::Access;

use crate::{
    server::{accounts, can_enter},
    wire::CONTAINER_USER,
};

/// The shells of a user who has none.
const SHELLS: [&str; 2] = ["/bin/bash", "/bin/sh"];

/// The programs that stand in place of a shell for users who do not log in. They would end every session at once.
const NO_SHELLS: [&str; 6] = ["nologin", "false", "true", "sync", "halt", "shutdown"];

/// The folders of programs, for a container that names none: Docker's own default.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The user of this process.
pub(super) struct Person {
    pub home: PathBuf,
    pub start: PathBuf,
    pub shells: Vec<PathBuf>,
    pub environment: Vec<(OsString, OsString)>,
    pub socket_folders: Vec<PathBuf>,
}

impl Person {
    /// The user whom the client has called `named`. Sessions start in `directory`, or else in the user's home folder.
    /// Everything that is missing has a substitute: the shell one of the `tools`, whose programs come after the
    /// container's own.
    pub(super) fn of(named: &str, directory: Option<&Path>, tools: Option<&Path>) -> Person {
        let id = rustix::process::geteuid().as_raw();
        let mut users = accounts::users(Path::new("/etc/passwd"));
        users.retain(|user| user.id == id);
        // Several names may have one number.
        let at = users.iter().position(|user| user.name == named).unwrap_or(0);
        let user = users.into_iter().nth(at);
        let is_name = named != CONTAINER_USER && !named.is_empty() && !named.starts_with(|c: char| c.is_ascii_digit());
        let name = match &user {
            Some(user) => user.name.clone(),
            None if is_name => named.to_owned(),
            None => id.to_string(),
        };
        let (home, shell) = user.map_or((None, None), |user| (user.home, user.shell));
        // The runtime has set HOME as for every program of the container; a user of another name has another.
        let own = env::var_os("HOME").map(PathBuf::from).filter(|home| home.is_absolute());
        let home = if directory.is_none() { home.or(own) } else { own.or(home) }.unwrap_or_else(|| "/".into());
        let start = directory.unwrap_or(&home);
        let start = if can_enter(start) { start.to_owned() } else { "/".into() };
        let shells = shell.into_iter().filter(|shell| !stands_for_none(shell));
        let shells = shells.chain(SHELLS.map(PathBuf::from)).chain(tools.map(|tools| tools.join("sh")));
        let shells = shells.filter(|shell| may_run(shell)).collect();
        let mut environment: Vec<_> = env::vars_os().filter(|(name, _)| !is_ours(name)).collect();
        for (variable, value) in
            [("HOME", home.clone().into_os_string()), ("USER", name.clone().into()), ("LOGNAME", name.into())]
        {
            environment.push((variable.into(), value));
        }
        let path = env::var_os("PATH");
        if path.is_none() || tools.is_some() {
            let mut path = path.unwrap_or_else(|| PATH.into());
            if let Some(tools) = tools {
                path.push(":");
                path.push(tools);
            }
            environment.push(("PATH".into(), path));
        }
        Person { socket_folders: socket_folders(), home, start, shells, environment }
    }
}

/// Reports whether a variable is set here and not by the container.
fn is_ours(name: &OsStr) -> bool {
    ["HOME", "USER", "LOGNAME"].iter().any(|ours| name == *ours)
}

/// The folders for the agent's socket. First comes the one that is never part of the container's own files, so that
/// nothing is written there. A read-only container has it as well.
fn socket_folders() -> Vec<PathBuf> {
    let own = env::var_os("TMPDIR").map(PathBuf::from).filter(|folder| folder.is_absolute());
    let shared = Some(PathBuf::from("/dev/shm"));
    shared.into_iter().chain(own).chain(["/tmp", "/run"].map(PathBuf::from)).collect()
}

fn may_run(program: &Path) -> bool {
    program.is_file() && rustix::fs::access(program, Access::EXEC_OK).is_ok()
}

fn stands_for_none(shell: &Path) -> bool {
    shell.file_name().is_none_or(|name| NO_SHELLS.iter().any(|none| name == *none))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{Person, stands_for_none};

    #[test]
    fn the_user_is_the_one_of_this_process() {
        let person = Person::of("container", Some(Path::new("/tmp")), None);
        assert_eq!(person.start, Path::new("/tmp"));
        assert_eq!(Person::of("container", Some(Path::new("/none")), None).start, Path::new("/"));
        let person = Person::of("root", None, None);
        assert_eq!(person.start, person.home);
        for shell in &person.shells {
            assert!(shell.is_absolute() && shell.is_file(), "{}", shell.display());
        }
        assert!(stands_for_none(Path::new("/usr/sbin/nologin")));
        assert!(!stands_for_none(Path::new("/bin/ash")));
    }
}
