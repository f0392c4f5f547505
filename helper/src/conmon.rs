//! The command line of conmon, which keeps a container of podman or of CRI-O: all that it was told stands there.

use std::{
    ffi::{OsStr, OsString},
    io,
    os::unix::ffi::OsStrExt,
    path::PathBuf,
};

use crate::process::{self, Process};

/// The name of its program.
pub(crate) const PROGRAM: &str = "conmon";

/// The options that have no value, of those that conmon has had.
const FLAGS: [&str; 11] = [
    "-t",
    "-i",
    "--terminal",
    "--stdin",
    "--leave-stdin-open",
    "--exec-attach",
    "--full-attach",
    "--no-new-keyring",
    "--no-pivot",
    "--sync",
    "--syslog",
];

/// The words of a conmon that keeps a container.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Conmon {
    /// The container's id.
    pub(crate) id: String,
    /// Its name.
    pub(crate) name: String,
    /// Its bundle.
    pub(crate) bundle: PathBuf,
    /// The file with the number of its first process.
    pub(crate) pid_file: PathBuf,
    /// The runtime's program.
    pub(crate) runtime: PathBuf,
    /// The folder of the runtime's state, where the runtime was told one.
    pub(crate) root: Option<PathBuf>,
    /// The runtime puts processes into cgroups by systemd.
    pub(crate) by_systemd: bool,
}

impl Conmon {
    /// Reads the command line of a process. `None` for one that keeps no container, but a program that was started in one.
    pub(crate) fn of(process: &Process) -> io::Result<Option<Conmon>> {
        Ok(Conmon::read(&process::read(&process.folder, "cmdline")?))
    }

    fn read(line: &[u8]) -> Option<Conmon> {
        let mut conmon = Conmon::default();
        let mut for_runtime = Vec::new();
        let mut words = line.split(|&byte| byte == 0).skip(1).map(OsStr::from_bytes).peekable();
        while let Some(word) = words.next() {
            let text = word.to_string_lossy();
            match &*text {
                "-e" | "--exec" => return None,
                "-s" | "--systemd-cgroup" => conmon.by_systemd = true,
                flag if FLAGS.contains(&flag) => {}
                option if option.starts_with('-') => {
                    let (option, value) = match option.split_once('=').filter(|_| option.starts_with("--")) {
                        Some((option, _)) => (option, Some(OsStr::from_bytes(&word.as_bytes()[option.len() + 1..]))),
                        // These may look like options. What follows one that is not known here is then an option.
                        None if option.ends_with("-arg") || option == "--log-tag" => (option, words.next()),
                        None => (option, words.next_if(|next| !next.as_bytes().starts_with(b"-"))),
                    };
                    let value = value.unwrap_or_default();
                    match option {
                        "-c" | "--cid" => conmon.id = value.to_string_lossy().into_owned(),
                        "-n" | "--name" => conmon.name = value.to_string_lossy().into_owned(),
                        "-b" | "--bundle" => conmon.bundle = value.into(),
                        "-p" | "--container-pidfile" | "--pidfile" => conmon.pid_file = value.into(),
                        "-r" | "--runtime" => conmon.runtime = value.into(),
                        "--runtime-arg" => for_runtime.push(value.to_owned()),
                        _ => {}
                    }
                }
                _ => {}
            }
        }
        conmon.root = root(&for_runtime);
        let is_whole = !conmon.id.is_empty()
            && [&conmon.bundle, &conmon.pid_file, &conmon.runtime].iter().all(|path| path.is_absolute());
        is_whole.then_some(conmon)
    }
}

/// The value of `--root` among the arguments of a runtime.
fn root(arguments: &[OsString]) -> Option<PathBuf> {
    let mut arguments = arguments.iter();
    while let Some(one) = arguments.next() {
        if one == "--root" {
            return arguments.next().map(PathBuf::from);
        }
        if let Some(root) = one.as_bytes().strip_prefix(b"--root=") {
            return Some(OsStr::from_bytes(root).into());
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(line: &str) -> Option<Conmon> {
        Conmon::read(line.replace(' ', "\0").as_bytes())
    }

    #[test]
    fn podmans_and_cri_os_lines_are_read() {
        let podman = "/usr/bin/conmon --api-version 1 -c abc -u abc -r /usr/sbin/runc -b /g/abc/userdata -p /r/pidfile \
                      -n web --exit-dir /t/exits --full-attach -s -l k8s-file:/g/ctr.log --log-level warning \
                      --log-tag x --runtime-arg --log-format=json --runtime-arg --log --runtime-arg=/r/oci-log \
                      --conmon-pidfile /r/conmon.pid --exit-command /usr/bin/podman --exit-command-arg --root \
                      --exit-command-arg /g --exit-command-arg -n --exit-command-arg container";
        let expected = Conmon {
            id: "abc".into(),
            name: "web".into(),
            bundle: "/g/abc/userdata".into(),
            pid_file: "/r/pidfile".into(),
            runtime: "/usr/sbin/runc".into(),
            root: None,
            by_systemd: true,
        };
        assert_eq!(read(podman), Some(expected));
        let crio = "/usr/libexec/crio/conmon -b /run/c/userdata -c abc --exit-dir /e -l /log -n k8s_web -P /p \
                    -p /run/c/userdata/pidfile --persist-dir /d -r /usr/bin/crun --runtime-arg --root=/run/own \
                    --syslog --socket-dir-path /s -u abc";
        let read_of = read(crio).unwrap();
        assert_eq!((read_of.root, read_of.by_systemd), (Some("/run/own".into()), false));
        assert_eq!(read_of.name, "k8s_web");
        let apart = read("conmon -c a -b /b -p /p -r /r --runtime-arg --root --runtime-arg /x").unwrap();
        assert_eq!(apart.root, Some("/x".into()));
    }

    #[test]
    fn one_that_keeps_no_container_or_says_too_little_is_none() {
        for line in [
            "conmon -e -c a -b /b -p /p -r /r",
            "conmon --exec -c a -b /b -p /p -r /r",
            "conmon -c a -b b -p /p -r /r",
            "conmon -c a -b /b -r /r",
            "conmon -b /b -p /p -r /r",
            "conmon",
            "",
        ] {
            assert_eq!(read(line), None, "{line}");
        }
    }

    proptest! {
        #[test]
        fn no_line_makes_it_panic(line in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Conmon::read(&line);
        }
    }
}
