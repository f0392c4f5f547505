//! The machine's side of a setup, in each shell that a machine may have as `sh`. The judges are real shells, tar and git.

use std::{
    fs,
    io::{Read, Write},
    os::unix::{
        fs::{PermissionsExt, symlink},
        net::UnixListener,
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use tempfile::TempDir;

use super::{
    archive::Archive,
    talk::{Ended, FOLDER, Job, Status, command},
};
use crate::ssh::marked::Marked;

/// A machine, with a home of its own.
struct There {
    home: TempDir,
    bin: PathBuf,
    alone: bool,
}

impl There {
    /// A machine whose `sh` is this program. busybox has all other programs there, too, and so no git.
    fn with(shell: &str) -> Option<There> {
        let shell_path = which::which(shell).ok()?;
        let home = tempfile::tempdir().unwrap();
        let (bin, alone) = (home.path().join("bin"), shell == "busybox");
        fs::create_dir(&bin).unwrap();
        if alone {
            let made = Command::new(&shell_path).args(["--install", "-s"]).arg(&bin).status().unwrap();
            assert!(made.success());
        }
        if !bin.join("sh").exists() {
            symlink(&shell_path, bin.join("sh")).unwrap();
        }
        Some(There { home, bin, alone })
    }

    fn needed(shell: &str) -> There {
        There::with(shell).unwrap_or_else(|| panic!("{shell} is not installed"))
    }

    fn all() -> Vec<There> {
        ["dash", "bash", "busybox"].map(There::needed).into()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    fn program(&self, program: &str) -> Command {
        let usual = if self.alone { "" } else { ":/usr/local/bin:/usr/bin:/bin" };
        let mut command = Command::new(self.bin.join(program));
        command
            .env_clear()
            .env("HOME", self.home.path())
            .env("PATH", format!("{}{usual}", self.bin.display()))
            .env("SSH_AUTH_SOCK", "/an/agent")
            .current_dir(self.home.path());
        command
    }

    fn begin(&self, job: &Job<'_>, sent: &[u8]) -> (Child, Marked) {
        let (marked, script) = (Marked::new(), job.script());
        let line = command(&marked, script.len());
        let line = line.strip_prefix("/bin/sh -c '").and_then(|line| line.strip_suffix('\'')).unwrap();
        let mut child = self
            .program("sh")
            .args(["-c", line])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut input = child.stdin.take().unwrap();
        input.write_all(script.as_bytes()).unwrap();
        // One that waits for another takes no more.
        let _ = input.write_all(sent);
        (child, marked)
    }

    /// Runs a setup. Returns the lines, and the report.
    fn run(&self, job: &Job<'_>, sent: &[u8]) -> (String, Option<Ended>) {
        let (child, marked) = self.begin(job, sent);
        let out = child.wait_with_output().unwrap();
        let said = marked.find(&out.stdout).unwrap_or_else(|| panic!("{out:?}")).output;
        let ended = Ended::read(said);
        let lines = String::from_utf8_lossy(said).into_owned() + &String::from_utf8_lossy(&out.stderr);
        (lines, ended)
    }

    /// Runs the work alone on these files, without its limit. Returns its exit code and its output.
    fn work(&self, address: &str, files: &[&str]) -> (Option<i32>, String) {
        let run = self.path(FOLDER).join("1");
        let _ = fs::remove_dir_all(&run);
        let source = run.join("new/source");
        fs::create_dir_all(if address.is_empty() { &source } else { source.parent().unwrap() }).unwrap();
        for file in files {
            write(&source, file, "echo \"ran $0 in $PWD\"\n");
        }
        fs::write(run.join("program"), include_str!("program.sh")).unwrap();
        let out = self.program("sh").arg(run.join("program")).args(["work", "022", address]).output().unwrap();
        (out.status.code(), String::from_utf8(out.stdout).unwrap() + &String::from_utf8_lossy(&out.stderr))
    }

    /// Waits until nothing runs there.
    fn rests(&self) {
        let begun = Instant::now();
        while !self.processes().is_empty() {
            assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", self.processes());
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// The processes that have the machine's home in their environment.
    fn processes(&self) -> Vec<String> {
        let home = format!("HOME={}", self.home.path().display());
        let all = fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
        let ours = all.filter(|path| {
            let environment = fs::read(path.join("environ")).unwrap_or_default();
            environment.split(|byte| *byte == 0).any(|variable| variable == home.as_bytes())
        });
        ours.map(|path| fs::read_to_string(path.join("cmdline")).unwrap_or_default()).collect()
    }
}

fn write(folder: &Path, name: &str, text: &str) {
    let path = folder.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

fn job(archive: &Archive) -> Job<'_> {
    Job { archive: Some(archive), address: "", again: false, limit: Duration::from_secs(600) }
}

fn folder_with(script: &str) -> (TempDir, Vec<u8>) {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "install.sh", script);
    let sent = bytes(&Archive::of(folder.path(), Path::new("/home/me")).unwrap());
    (folder, sent)
}

fn bytes(archive: &Archive) -> Vec<u8> {
    let (mut sending, mut all) = (archive.sending(), Vec::new());
    while let Some(chunk) = sending.next().unwrap() {
        all.extend(chunk);
    }
    all
}

/// A script that asks for input gets none: no terminal, no standard input, no agent.
const ASKS: &str = "#!/bin/sh
echo run >>\"$HOME/runs\"
read -r answer && echo input || echo no input
( : </dev/tty ) 2>/dev/null && echo terminal || echo no terminal
echo \"prompt $GIT_TERMINAL_PROMPT, agent ${SSH_AUTH_SOCK-none}, umask $(umask)\"
exit 3
";

#[test]
fn a_machine_is_set_up_once_and_asks_for_nothing() {
    let (folder, sent) = folder_with(ASKS);
    let archive = Archive::of(folder.path(), Path::new("/home/me")).unwrap();
    for there in There::all() {
        let shell = there.bin.display();
        // Cut off between two files, which tar does not notice: the next attempt is whole.
        let (said, ended) = there.run(&job(&archive), &sent[..sent.len() - 3 * 512]);
        assert!(ended.is_none() && said.starts_with("send\n"), "{shell}: {said}");
        assert_eq!(there.read("runs"), "", "{shell}");
        let (said, ended) = there.run(&job(&archive), &sent);
        let ended = ended.unwrap_or_else(|| panic!("{shell}: {said}"));
        let log = "no input\nno terminal\nprompt 0, agent none, umask 0022\n";
        assert_eq!(String::from_utf8_lossy(&ended.log), log, "{shell}");
        assert_eq!(ended.status, Status::Exit(3), "{shell}");
        assert_eq!(ended.why(job(&archive).limit).unwrap(), "install.sh ended with exit status 3");
        let mode = fs::metadata(there.path(FOLDER)).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o700, "{shell}");
        // No more files are asked for, and a failure is not repeated, unless that is wanted.
        let (said, again) = there.run(&job(&archive), b"");
        assert!(said.starts_with("began\nended 3\n") && again == Some(ended), "{shell}: {said}");
        assert_eq!(there.read("runs"), "run\n", "{shell}");
        let (said, _) = there.run(&Job { again: true, ..job(&archive) }, &sent);
        assert!(said.starts_with("send\nbegan\n"), "{shell}: {said}");
        assert_eq!(there.read("runs"), "run\nrun\n", "{shell}");
        there.rests();
    }
}

#[test]
fn a_setup_goes_on_without_its_connection_and_runs_once_for_all() {
    let there = There::needed("dash");
    let (folder, sent) = folder_with("echo run >>~/runs\nwhile [ ! -e ~/go ]; do sleep 0.1; done\necho done\n");
    let archive = Archive::of(folder.path(), Path::new("/home/me")).unwrap();
    let (mut first, _) = there.begin(&job(&archive), &sent);
    let mut said = [0; 256];
    let mut out = first.stdout.take().unwrap();
    let mut text = Vec::new();
    while !text.windows(6).any(|part| part == b"began\n") {
        let length = out.read(&mut said).unwrap();
        assert!(length > 0, "{}", String::from_utf8_lossy(&text));
        text.extend(&said[..length]);
    }
    // As a signal, and a closed laptop.
    first.kill().unwrap();
    first.wait().unwrap();
    let others: Vec<_> = (0..3).map(|_| there.begin(&job(&archive), b"")).collect();
    fs::write(there.path("go"), "").unwrap();
    for (child, marked) in others {
        let out = child.wait_with_output().unwrap();
        let ended = Ended::read(marked.find(&out.stdout).unwrap().output).unwrap();
        assert_eq!((ended.status, &ended.log[..]), (Status::Exit(0), &b"done\n"[..]));
    }
    assert_eq!(there.read("runs"), "run\n");
    // One that was cut off with its machine: its number may be another process's by now.
    let run = there.path(FOLDER).join("1");
    fs::remove_file(run.join("ended")).unwrap();
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    let reused = format!("{} x1 x{}", std::process::id(), boot.trim());
    for owner in [reused, format!("{} x1 x", std::process::id()), "4194305 x x".to_owned()] {
        fs::write(run.join("owner"), owner + "\n").unwrap();
        let _ = fs::remove_dir_all(there.path(FOLDER).join("2"));
        let (said, _) = there.run(&job(&archive), &sent);
        assert!(said.starts_with("send\nbegan\n"), "{said}");
    }
}

#[test]
fn a_setup_that_takes_too_long_is_ended_with_its_group() {
    let (folder, sent) = folder_with("trap '' TERM\nsleep 1000 &\necho begun\nsleep 1000\n");
    let archive = Archive::of(folder.path(), Path::new("/home/me")).unwrap();
    let late = |there: There| {
        let (said, ended) = there.run(&Job { limit: Duration::from_secs(1), ..job(&archive) }, &sent);
        let ended = ended.unwrap_or_else(|| panic!("{said}"));
        assert_eq!((ended.status, &ended.log[..6]), (Status::Late, &b"begun\n"[..]));
        assert_eq!(ended.why(super::LIMIT).unwrap(), "install.sh took more than 10 minutes and was ended");
        there.rests();
    };
    thread::scope(|scope| There::all().into_iter().for_each(|there| drop(scope.spawn(|| late(there)))));
}

/// The list stands in "Personalizing GitHub Codespaces for your account" of GitHub's docs.
#[test]
fn the_first_script_of_codespaces_list_runs() {
    let mut left = &[
        "install.sh",
        "install",
        "bootstrap.sh",
        "bootstrap",
        "script/bootstrap",
        "setup.sh",
        "setup",
        "script/setup",
    ][..];
    let there = There::needed("dash");
    while let [first, rest @ ..] = left {
        let (code, said) = there.work("", &[left, &[".bashrc"]].concat());
        let source = there.path(FOLDER).join("source");
        assert_eq!((code, said), (Some(0), format!("ran ./{first} in {}\n", source.display())));
        assert!(!there.path(".bashrc").exists());
        left = rest;
    }
}

#[test]
fn dotfiles_are_linked_and_replace_nothing() {
    for there in There::all() {
        fs::write(there.path(".profile"), "mine").unwrap();
        symlink("/nowhere", there.path(".vimrc")).unwrap();
        let files = [".profile", ".vimrc", ".bashrc", ".config/a b/c", "..odd", ".git/config", "README"];
        for _ in 0..2 {
            let (code, said) = there.work("", &files);
            assert_eq!(code, Some(0), "{said}");
            assert_eq!(fs::read_to_string(there.path(FOLDER).join("1/kept")).unwrap(), ".profile\n.vimrc\n", "{said}");
        }
        assert_eq!(there.read(".profile"), "mine");
        // A change behind a link is kept.
        fs::write(there.path(".bashrc"), "changed").unwrap();
        let run = there.path(FOLDER).join("1");
        assert_eq!(fs::read_link(there.path("..odd")).unwrap(), there.path(FOLDER).join("source/..odd"));
        assert_eq!(there.work("", &[".profile", ".vimrc", ".bashrc", ".config/a b/c"]).0, Some(0));
        assert!(fs::symlink_metadata(there.path("..odd")).is_err(), "it leads nowhere");
        assert_eq!(fs::read_to_string(run.join("before/.bashrc")).unwrap(), "changed");
        let source = there.path(FOLDER).join("source");
        for name in [".bashrc", ".config"] {
            assert_eq!(fs::read_link(there.path(name)).unwrap(), source.join(name));
        }
        assert!(there.read(".config/a b/c").starts_with("echo") && !there.path(".git").exists());
        assert_eq!(there.work("", &["README"]).0, Some(1));
        let why = fs::read_to_string(there.path(FOLDER).join("1/why")).unwrap();
        assert_eq!(why, "there is neither an install script nor a dotfile in it\n");
    }
}

#[test]
fn git_clones_without_a_question() {
    let there = There::needed("dash");
    let git = |folder: &Path, words: &[&str]| {
        let out =
            there.program("sh").args(["-c", "exec git \"$@\"", "git", "-C"]).arg(folder).args(words).output().unwrap();
        assert!(out.status.success(), "{out:?}");
    };
    let repository = there.path("dotfiles");
    write(&repository, "script/setup", "git log --oneline | wc -l\n");
    let (name, mail) = ("user.name=A", "user.email=a@example.org");
    git(&repository, &["init", "-q"]);
    for message in ["one", "two"] {
        write(&repository, "notes", message);
        git(&repository, &["add", "-A"]);
        git(&repository, &["-c", name, "-c", mail, "commit", "-qm", message]);
    }
    // A stand-in for the host of the address alone: git clones for real.
    let config = format!("[url \"file://{}\"]\n\tinsteadOf = https://git.example/me/dotfiles\n", repository.display());
    fs::write(there.path(".gitconfig"), config).unwrap();
    let (code, said) = there.work("https://git.example/me/dotfiles", &[]);
    assert_eq!((code, said.trim()), (Some(0), "1"), "the newest commit alone");
    let (code, said) = there.work("https://git.example/me/private", &[]);
    assert!(code != Some(0) && code.is_some(), "{said}");
    assert_eq!(fs::read_to_string(there.path(FOLDER).join("1/doing")).unwrap(), "git clone\n");
    let bare = There::needed("busybox");
    assert_eq!(bare.work("https://git.example/me/dotfiles", &[]), (Some(1), "git is not installed there\n".to_owned()));
}

#[test]
fn tar_reads_what_is_sent() {
    let folder = tempfile::tempdir().unwrap();
    let (long, deep) = ("n".repeat(150), format!("{}/f", ["d".repeat(60), "e".repeat(60)].join("/")));
    for (name, text) in
        [("empty", ""), (&long, "long"), (&deep, "deep"), (".git/config", "secret"), ("sub/.git", "secret")]
    {
        write(folder.path(), name, text);
    }
    fs::write(folder.path().join("large"), vec![7; 200_000]).unwrap();
    fs::set_permissions(folder.path().join("empty"), fs::Permissions::from_mode(0o4755)).unwrap();
    symlink("/no/where", folder.path().join("link")).unwrap();
    symlink(&long, folder.path().join("long link")).unwrap();
    let _socket = UnixListener::bind(folder.path().join("socket")).unwrap();
    let sent = bytes(&Archive::of(folder.path(), Path::new("/home/me")).unwrap());
    assert_eq!(sent.len() % 512, 0);
    for tar in ["tar", "busybox"] {
        let Ok(program) = which::which(tar) else { continue };
        let out = tempfile::tempdir().unwrap();
        let mut unpack = Command::new(program);
        unpack.args(["tar"].iter().filter(|_| tar == "busybox")).args(["-x", "-o", "-f", "-", "-C"]).arg(out.path());
        let mut unpack = unpack.stdin(Stdio::piped()).spawn().unwrap();
        unpack.stdin.take().unwrap().write_all(&sent).unwrap();
        assert!(unpack.wait().unwrap().success(), "{tar}");
        let source = out.path().join("source");
        let read = |name: &str| fs::read(source.join(name)).unwrap();
        assert_eq!((read(&long), read(&deep), read("large")), (b"long".to_vec(), b"deep".to_vec(), vec![7; 200_000]));
        assert_eq!(fs::metadata(source.join("empty")).unwrap().permissions().mode() & 0o7777, 0o755, "{tar}");
        assert_eq!(fs::read_link(source.join("link")).unwrap(), Path::new("/no/where"));
        assert_eq!(fs::read_link(source.join("long link")).unwrap(), Path::new(&long));
        assert!(out.path().join("complete").exists());
        assert!([".git", "sub/.git", "socket"].iter().all(|name| !source.join(name).exists()), "{tar}");
    }
}

#[test]
fn neither_a_home_nor_more_than_may_be_sent_is_sent() {
    let home = tempfile::tempdir().unwrap();
    let below = |name: &str| home.path().join(name);
    write(home.path(), "dotfiles/.bashrc", "");
    write(home.path(), ".ssh/config.d/x", "");
    symlink(home.path(), below("all")).unwrap();
    let refusal = |path: &Path| Archive::of(path, home.path()).err().map(|error| error.message().to_owned());
    for path in [home.path(), Path::new("/"), home.path().parent().unwrap(), &below("all"), &below(".ssh/config.d")] {
        assert!(
            refusal(path).unwrap().ends_with("which would send private files to machines; name a folder of dotfiles")
        );
    }
    assert!(refusal(&below("none")).unwrap().ends_with("which does not exist"));
    assert!(refusal(&below("dotfiles/.bashrc")).unwrap().ends_with("which is not a folder"));
    let large = fs::File::create(below("dotfiles/large")).unwrap();
    large.set_len(100 * 1024 * 1024).unwrap();
    assert_eq!(refusal(&below("dotfiles")), None);
    write(home.path(), "dotfiles/.profile", "x");
    assert!(refusal(&below("dotfiles")).unwrap().ends_with("which has 101 MiB; 100 MiB may be sent"));
}
