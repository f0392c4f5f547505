//! `scripts/install`: installation, replacement and removal, by each of the shells that a computer may have.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::support::{needs, write_program};

const INSTALLER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/install");

/// A home that holds a folder of its owner's, and releases beside it.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Place {
        let place = Place(tempfile::tempdir().unwrap());
        fs::create_dir_all(place.prefix().join("bin")).unwrap();
        place
    }

    fn prefix(&self) -> PathBuf {
        self.0.path().join("home/.local")
    }

    /// Makes the release of a version whose program is this script.
    fn release(&self, version: &str, program: &str, pages: &[&str]) -> PathBuf {
        let release = self.0.path().join(version);
        let content = release.join("content");
        fs::create_dir_all(content.join("man/man1")).unwrap();
        fs::create_dir_all(content.join("completions")).unwrap();
        write_program(&content.join("labctl-ssh-proxy"), program);
        for file in ["labctl-ssh-proxy.bash", "_labctl-ssh-proxy", "labctl-ssh-proxy.fish"] {
            fs::write(content.join("completions").join(file), version).unwrap();
        }
        fs::write(content.join("labctl-ssh-proxy-helper-aarch64.gz"), version).unwrap();
        for page in pages {
            fs::write(content.join("man/man1").join(page), version).unwrap();
        }
        let script = r#"n=labctl-ssh-proxy-$(uname -m)-unknown-linux-musl.tar.gz
            tar -C content -czf "$n" . && sha256sum "$n" >"$n.sha256""#;
        assert!(Command::new("sh").args(["-c", script]).current_dir(&release).status().unwrap().success());
        release
    }

    fn working(&self, version: &str, pages: &[&str]) -> PathBuf {
        self.release(version, &format!("#!/bin/sh\necho labctl-ssh-proxy {version}\n"), pages)
    }

    fn command(&self, shell: &[&str]) -> Command {
        let mut command = Command::new(needs(shell[0]));
        command.args(&shell[1..]).env("HOME", self.0.path().join("home")).env("SHELL", "/bin/zsh");
        command
    }

    /// Runs the installer and returns its exit code and all that it says.
    fn install(&self, shell: &[&str], args: &[&str]) -> (i32, String) {
        let output = self.command(shell).arg(INSTALLER).args(args).output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        (output.status.code().unwrap(), String::from_utf8(said).unwrap())
    }

    /// The files and folders of the home.
    fn files(&self) -> Vec<String> {
        let found =
            Command::new("find").args(["-mindepth", "1"]).current_dir(self.0.path().join("home")).output().unwrap();
        let mut files: Vec<_> = String::from_utf8(found.stdout).unwrap().lines().map(str::to_owned).collect();
        files.sort();
        files
    }

    fn version(&self) -> String {
        let output = Command::new(self.prefix().join("bin/labctl-ssh-proxy")).output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn it_installs_replaces_and_removes_by_each_shell() {
    for shell in [&["sh"][..], &["bash"], &["bash", "--posix"], &["dash"], &["busybox", "sh"]] {
        if which::which(shell[0]).is_err() {
            assert!(!matches!(shell[0], "sh" | "bash"), "{} is missing", shell[0]);
            continue;
        }
        let place = Place::new();
        let before = place.files();
        let one = place.working("1.9.0", &["labctl-ssh-proxy.1", "labctl-ssh-proxy-old.1"]);
        let two = place.working("1.10.0", &["labctl-ssh-proxy.1", "labctl-ssh-proxy-new.1"]);

        let (code, said) = place.install(shell, &[path(&one)]);
        assert_eq!(code, 0, "{shell:?}: {said}");
        let words = ["version 1.9.0", "add to ~/.zshrc: export PATH=", "before compinit: fpath=("];
        assert!(words.iter().all(|words| said.contains(words)), "{shell:?}: {said}");
        let (code, said) = place.install(shell, &["--from", path(&two)]);
        assert_eq!((code, place.version().as_str()), (0, "labctl-ssh-proxy 1.10.0"), "{shell:?}: {said}");
        let files = place.files();
        let has = |page: &str| files.contains(&format!("./.local/share/man/man1/{page}"));
        // There the program looks for it.
        let helper = "./.local/lib/labctl-ssh-proxy/labctl-ssh-proxy-helper-aarch64.gz".to_owned();
        assert!(files.contains(&helper), "{shell:?}: {files:?}");
        assert!(has("labctl-ssh-proxy-new.1") && !has("labctl-ssh-proxy-old.1"), "{shell:?}: {files:?}");
        assert!(!files.iter().any(|file| file.contains("-new/") || file.ends_with("-proxy-new")), "{files:?}");

        // An older one replaces a newer one only if it is asked for.
        let (code, said) = place.install(shell, &[path(&one)]);
        assert!(code == 1 && said.contains("1.10.0 is installed, which is newer than 1.9.0"), "{shell:?}: {said}");
        assert_eq!(place.files(), files, "{shell:?}");
        let (code, said) = place.install(shell, &[path(&one), "--version", "1.8.0"]);
        assert!(code == 1 && said.contains("has version 1.9.0, not 1.8.0"), "{shell:?}: {said}");
        assert_eq!(place.install(shell, &[path(&one), "--version", "v1.9.0"]).0, 0, "{shell:?}");
        assert_eq!(place.version(), "labctl-ssh-proxy 1.9.0");

        // A folder that was there stays.
        let (code, said) = place.install(shell, &["--uninstall"]);
        assert_eq!((code, place.files()), (0, before), "{shell:?}: {said}");
        let (code, said) = place.install(shell, &["--uninstall"]);
        assert!(code == 1 && said.contains("nothing that this installer has put"), "{shell:?}: {said}");
    }
}

#[test]
fn a_program_that_does_not_run_changes_nothing() {
    let place = Place::new();
    let before = place.files();
    let broken = place.release("3.0.0", "#!/bin/sh\nexit 1\n", &["labctl-ssh-proxy.1"]);
    let (code, said) = place.install(&["sh"], &[path(&broken)]);
    assert!(code == 1 && said.contains("does not run on this computer; nothing was installed"), "{said}");
    assert_eq!(place.files(), before);
    let works = place.working("1.0.0", &["labctl-ssh-proxy.1", "labctl-ssh-proxy-start.1"]);
    assert_eq!(place.install(&["sh"], &[path(&works)]).0, 0);
    let files = place.files();
    assert_eq!(place.install(&["sh"], &[path(&broken)]).0, 1);
    assert_eq!((place.files(), place.version().as_str()), (files, "labctl-ssh-proxy 1.0.0"));
}

#[test]
fn an_installer_that_arrives_only_in_part_does_nothing() {
    let place = Place::new();
    let release = place.working("1.0.0", &["labctl-ssh-proxy.1"]);
    let before = place.files();
    let script = fs::read(INSTALLER).unwrap();
    let pipe = |length: usize| {
        let mut shell = place
            .command(&["sh"])
            .args(["-s", "--", path(&release)])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // The shell may end before it has read everything.
        let _ = shell.stdin.take().unwrap().write_all(&script[..length]);
        shell.wait().unwrap().success()
    };
    for length in (0..script.len() - 20).step_by(997) {
        pipe(length);
        assert_eq!(place.files(), before, "after {length} bytes");
    }
    assert!(pipe(script.len()));
    assert_eq!(place.version(), "labctl-ssh-proxy 1.0.0");
}

#[test]
fn a_wrong_call_says_what_is_wrong() {
    let place = Place::new();
    let before = place.files();
    for (args, words) in [
        (&["--to"][..], "--to needs a value"),
        (&["--from", ""], "--from needs a value"),
        (&["--fast"], "there is no option --fast"),
        (&["a", "b"], "FROM is there twice: a and b"),
        (&["http://127.0.0.1:9/x"], "must be a folder or an https:// address"),
        (&["/nowhere"], "cannot read /nowhere/labctl-ssh-proxy-"),
    ] {
        let (code, said) = place.install(&["sh"], args);
        assert!(code == 1 && said.contains(words), "{args:?}: {said}");
    }
    assert_eq!(place.install(&["sh"], &["--help"]).0, 0);
    assert_eq!(place.files(), before);
}
