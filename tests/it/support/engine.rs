//! A Docker Engine of the tests' own: its folder, its socket, no network of the computer. It is started once for the whole
//! test binary and ends with it, with everything that it made. A second one maps the users of its containers
//! (`--userns-remap`), which is a property of a whole engine.
//!
//! The images are made here, from Debian's static busybox and from `tests/targets/app.c`; nothing is pulled.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    panic::Location,
    path::{Path, PathBuf},
    process::{ChildStdin, Command, Output, Stdio},
    sync::{
        Mutex, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
};

use super::{eventually, leave_terminal, machine::run, needs, not_run, say_not_run, write_program};

/// A busybox with a shell, root and an ordinary user, and `/app`.
pub const BUSYBOX: &str = "busybox";
/// `/app` alone, for user 65532, and `/data` to fetch.
pub const SCRATCH: &str = "scratch";

/// The port of `/app` on the container's own loopback.
pub const HTTP: u16 = 8080;
/// The socket of `/app`, which echoes.
pub const SOCKET: &str = "/dev/shm/app.sock";

/// Starts the engine, and ends it with all of its containers once standard input ends, which is when the tests end. It is
/// a script, because statics of Rust are not dropped.
const SUPERVISOR: &str = r#"#!/bin/sh
# supervisor FOLDER ENGINE...
folder=$1
shift
trap '' HUP INT TERM
"$@" >"$folder/log" 2>&1 </dev/null &
engine=$!
cat >/dev/null
running=$(docker ps --quiet)
[ -z "$running" ] || docker kill $running >/dev/null 2>&1
kill "$engine" 2>/dev/null
wait "$engine"
grep -o " $folder/[^ ]*" /proc/self/mounts | sort -r | xargs -r umount -l
exec rm -rf "$folder"
"#;

/// The user names of this engine's containers begin at a user of their own. Its files of subordinate ids are seen by it
/// alone.
const REMAPPED: &str = r#"
for file in subuid subgid; do
  echo daemon:200000:65536 >"$1/$file"
  [ -e /etc/$file ] || : >/etc/$file
  mount --bind "$1/$file" /etc/$file
done
shift
exec "$@" --userns-remap=daemon:daemon
"#;

pub struct Engine {
    folder: PathBuf,
    /// The engine ends when this is closed.
    _until: Mutex<ChildStdin>,
}

impl Engine {
    /// Returns the engine, or says why there can be none.
    #[track_caller]
    pub fn here() -> Option<&'static Engine> {
        static ENGINE: OnceLock<Engine> = OnceLock::new();
        can_run().then(|| ENGINE.get_or_init(|| Engine::start(false)))
    }

    /// The same for the engine whose containers have a user namespace.
    #[track_caller]
    pub fn remapped() -> Option<&'static Engine> {
        static ENGINE: OnceLock<Engine> = OnceLock::new();
        can_run().then(|| ENGINE.get_or_init(|| Engine::start(true)))
    }

    fn start(remapped: bool) -> Engine {
        leave_terminal();
        // A short path, because the path of a socket has a small limit.
        let folder = tempfile::Builder::new().prefix("lsd").tempdir_in("/tmp").unwrap().keep();
        // The mapped users have to get through.
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o711)).unwrap();
        let supervisor = folder.join("supervisor");
        write_program(&supervisor, SUPERVISOR);
        let below = |name: &str| folder.join(name).display().to_string();
        let mut command = Command::new("setsid");
        command.args(["-w".as_ref(), supervisor.as_os_str(), folder.as_os_str()]);
        if remapped {
            command.args(["unshare", "--mount", "sh", "-ec", REMAPPED, "sh", &folder.display().to_string()]);
        }
        command.arg(needs("dockerd"));
        // `--ip-forward` would change the computer's own setting.
        command.args(["--bridge=none", "--iptables=false", "--ip-masq=false", "--ip-forward=false"]);
        command.args(["--data-root", &below("data"), "--exec-root", &below("exec"), "-p", &below("pid")]);
        command.args(["-H", &format!("unix://{}", below("s"))]);
        command.env("DOCKER_HOST", format!("unix://{}", below("s"))).env("PATH", PATH);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut supervisor = command.spawn().unwrap();
        let engine = Engine { folder, _until: Mutex::new(supervisor.stdin.take().unwrap()) };
        eventually("Docker's engine answers", || {
            let ended = supervisor.try_wait().unwrap();
            let log = || fs::read_to_string(engine.folder.join("log")).unwrap_or_default();
            assert!(ended.is_none(), "the engine has ended: {}", log());
            let running = fs::read_to_string(engine.folder.join("pid")).unwrap_or_default();
            assert!(running.is_empty() || Path::new("/proc").join(running.trim()).exists(), "{}", log());
            engine.command(&["info"]).output().unwrap().status.success()
        });
        engine.make_images();
        engine
    }

    fn make_images(&self) {
        let rootfs = self.folder.join("rootfs");
        let app = rootfs.join("app");
        fs::create_dir_all(&rootfs).unwrap();
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/targets/app.c");
        let mut compiler = Command::new(needs("musl-gcc"));
        succeed(compiler.args(["-static", "-Os", "-o"]).arg(&app).arg(source));
        fs::write(rootfs.join("data"), super::noise(1 << 20)).unwrap();
        self.import(&rootfs, SCRATCH, &["USER 65532"]);

        for folder in ["bin", "etc", "root", "home/one", "var"] {
            fs::create_dir_all(rootfs.join(folder)).unwrap();
        }
        fs::create_dir(rootfs.join("tmp")).unwrap();
        fs::set_permissions(rootfs.join("tmp"), fs::Permissions::from_mode(0o1777)).unwrap();
        let passwd = "root:x:0:0:root:/root:/bin/sh\none:x:1000:1000:One:/home/one:/bin/sh\n\
                      shellless:x:1001:1001::/nowhere:/sbin/nologin\n";
        fs::write(rootfs.join("etc/passwd"), passwd).unwrap();
        fs::write(rootfs.join("etc/group"), "root:x:0:\none:x:1000:\nmany:x:2000:one\n").unwrap();
        succeed(Command::new("chown").args(["1000:1000"]).arg(rootfs.join("home/one")));
        let bin = rootfs.join("bin");
        succeed(Command::new("cp").arg(needs("busybox")).arg(bin.join("busybox")));
        let applets = String::from_utf8(succeed(Command::new(bin.join("busybox")).arg("--list")).stdout).unwrap();
        for applet in applets.lines().filter(|name| *name != "busybox") {
            std::os::unix::fs::symlink("busybox", bin.join(applet)).unwrap();
        }
        self.import(&rootfs, BUSYBOX, &["ENV IN_THE_IMAGE=yes"]);
        fs::remove_dir_all(&rootfs).unwrap();
    }

    fn import(&self, rootfs: &Path, name: &str, changes: &[&str]) {
        let mut tar = Command::new("tar");
        let tar = succeed(tar.args(["--numeric-owner", "-c", "-C"]).arg(rootfs).arg(".")).stdout;
        let mut import = self.command(&["import"]);
        for change in [&["ENTRYPOINT [\"/app\"]", "CMD [\"serve\"]", "WORKDIR /"], changes].concat() {
            import.args(["--change", change]);
        }
        let output = run(import.args(["-", name]), &tar);
        assert!(output.status.success(), "{output:?}");
    }

    pub fn socket(&self) -> PathBuf {
        self.folder.join("s")
    }

    /// Prepares Docker's own client.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(needs("docker"));
        command.args(args).env("DOCKER_HOST", format!("unix://{}", self.socket().display()));
        command.env("HOME", &self.folder).stdin(Stdio::null());
        command
    }

    /// Runs a command of Docker's client that must succeed. Returns its output.
    #[track_caller]
    pub fn docker(&self, args: &[&str]) -> String {
        String::from_utf8(succeed(&mut self.command(args)).stdout).unwrap().trim_end().to_owned()
    }

    /// Starts a container with a name of its own, which begins with `name`. Options come first, as in `docker run`.
    #[track_caller]
    pub fn run(&'static self, name: &str, options: &[&str], image: &str, command: &[&str]) -> Container {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        self.run_as(&format!("{name}{}", COUNT.fetch_add(1, Ordering::Relaxed)), options, image, command)
    }

    /// The same with exactly this name.
    #[track_caller]
    pub fn run_as(&'static self, name: &str, options: &[&str], image: &str, command: &[&str]) -> Container {
        let id = self.docker(&[&["run", "--detach", "--name", name], options, &[image], command].concat());
        Container { engine: self, name: name.to_owned(), id }
    }
}

const PATH: &str = "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin";

/// Returns true if an engine can be started. In CI, where everything is root, it says no never.
#[track_caller]
fn can_run() -> bool {
    if !cfg!(target_os = "linux") {
        not_run("containers are entered on Linux only");
        return false;
    }
    if !rustix::process::geteuid().is_root() {
        say_not_run(Location::caller(), "an engine of the tests' own needs root");
        return false;
    }
    true
}

#[track_caller]
fn succeed(command: &mut Command) -> Output {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(output.status.success(), "{command:?}: {output:?}");
    output
}

/// A container that is removed at the end of the test.
pub struct Container {
    engine: &'static Engine,
    pub name: String,
    pub id: String,
}

impl Container {
    #[track_caller]
    pub fn inspect(&self, format: &str) -> String {
        self.engine.docker(&["inspect", "--format", format, &self.id])
    }

    /// The id of the container's first process, on this computer.
    #[track_caller]
    pub fn pid(&self) -> u32 {
        self.inspect("{{.State.Pid}}").parse().unwrap()
    }

    /// The changes of the container's files that docker itself sees.
    #[track_caller]
    pub fn diff(&self) -> String {
        self.engine.docker(&["diff", &self.id])
    }

    /// Runs a command by `docker exec`, the judge of ours.
    pub fn exec(&self, options: &[&str], command: &[&str]) -> Output {
        self.engine.command(&[&["exec"], options, &[&self.id], command].concat()).output().unwrap()
    }

    #[track_caller]
    pub fn docker(&self, command: &str) -> String {
        self.engine.docker(&[command, &self.id])
    }

    /// The processes in the container, apart from those that it has of itself: each with its command line.
    pub fn visitors(&self) -> Vec<(u32, String)> {
        let first = self.pid();
        let space = |pid: u32| fs::read_link(format!("/proc/{pid}/ns/mnt")).ok();
        let Some(its) = space(first) else { return Vec::new() };
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc").unwrap().filter_map(Result::ok) {
            let Ok(pid) = entry.file_name().to_string_lossy().parse::<u32>() else { continue };
            if pid == first || space(pid).as_ref() != Some(&its) {
                continue;
            }
            let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line).replace('\0', " ").trim_end().to_owned();
            // The app's own children have its command line.
            if line != "/app serve" {
                found.push((pid, line));
            }
        }
        found
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let _ = self.engine.command(&["rm", "--force", &self.id]).output();
    }
}
