//! A machine that is being served, and its client's files. It has no port: it listens on a Unix socket, which the clients
//! reach by `ProxyCommand socat`.

use std::{
    fs,
    io::Write,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

use labctl_ssh_proxy::local::machine::{Endpoint, Machine};
use russh::keys::{Algorithm, PrivateKey, key::safe_rng, ssh_key::LineEnding};
use tempfile::TempDir;
use tokio::{net::UnixListener, runtime, sync::oneshot};

use super::{leave_terminal, needs};

/// Both endpoints.
pub const BOTH: [Endpoint; 2] = [Endpoint::Builtin, Endpoint::Sshd];

/// Time limit for every wait. Nothing takes that long, even on a busy computer.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A machine that is being served, and its client's files.
pub struct World {
    pub folder: TempDir,
    pub endpoint: Endpoint,
    pub machine: Arc<Machine>,
    pub user: String,
    /// Dropping it ends the listener.
    _listening: oneshot::Sender<()>,
    pub runtime: runtime::Handle,
}

impl World {
    pub fn new(endpoint: Endpoint) -> World {
        leave_terminal();
        for program in ["socat", "ssh", "timeout"] {
            needs(program);
        }
        let folder = tempfile::Builder::new().prefix("m").tempdir().unwrap();
        let machine = Arc::new(Machine::open("m", &folder.path().join("machine"), endpoint, None).unwrap());
        let user = machine.users()[0].name.clone();
        let key = make_key(&folder.path().join("id"));
        machine.authorize(&user, key.public_key()).unwrap();
        machine.authorize(&user, key.public_key()).unwrap();
        make_key(&folder.path().join("stranger"));
        let (_listening, runtime) = listen(&machine, &folder.path().join("s"));
        let world = World { endpoint, machine, user, _listening, runtime, folder };
        let (path, user) = (world.folder.path().display(), &world.user);
        let config = format!(
            "Host m\nHostName m\nUser {user}\nProxyCommand socat -b65536 - UNIX-CONNECT:{path}/s\nIdentityFile {path}/id\n\
             IdentitiesOnly yes\nUserKnownHostsFile {path}/known_hosts\nGlobalKnownHostsFile /dev/null\n\
             StrictHostKeyChecking accept-new\nLogLevel ERROR\nServerAliveInterval 15\n"
        );
        fs::write(world.path("config"), config).unwrap();
        world
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn home(&self, name: &str) -> PathBuf {
        self.machine.home().join(name)
    }

    /// Prepares `program` with our configuration, under a time limit.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("timeout");
        command.arg(PATIENCE.as_secs().to_string()).arg(program).arg("-F").arg(self.path("config"));
        command.current_dir(self.folder.path()).env_remove("SSH_AUTH_SOCK");
        command
    }

    pub fn ssh(&self, arguments: &[&str]) -> Output {
        self.ssh_with(arguments, b"")
    }

    pub fn ssh_with(&self, arguments: &[&str], input: &[u8]) -> Output {
        run(self.command("ssh").args(arguments), input)
    }

    /// Runs a command that must succeed. Returns its output.
    pub fn text(&self, command: &str) -> String {
        let output = self.ssh(&["m", command]);
        assert!(output.status.success(), "{command}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let (done, wait) = mpsc::channel();
        let machine = Arc::clone(&self.machine);
        self.runtime.spawn(async move {
            machine.stop().await;
            let _ = done.send(());
        });
        let _ = wait.recv_timeout(PATIENCE);
    }
}

/// Serves connections to `socket` on a separate thread, until the sender is dropped.
pub fn listen(machine: &Arc<Machine>, socket: &Path) -> (oneshot::Sender<()>, runtime::Handle) {
    let (listening, until) = oneshot::channel::<()>();
    let (ready, is_ready) = mpsc::channel();
    let (machine, socket) = (Arc::clone(machine), socket.to_owned());
    thread::spawn(move || {
        let runtime = runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = UnixListener::bind(&socket).unwrap();
            ready.send(runtime::Handle::current()).unwrap();
            let accept = async {
                loop {
                    let (stream, _) = listener.accept().await.unwrap();
                    tokio::spawn(Arc::clone(&machine).serve(stream));
                }
            };
            tokio::select! {
                () = accept => {}
                _ = until => {}
            }
        });
        // Does not wait for a thread in a blocking read.
        runtime.shutdown_background();
    });
    (listening, is_ready.recv().unwrap())
}

/// Writes a new key.
pub fn make_key(path: &Path) -> PrivateKey {
    let key = PrivateKey::random(&mut safe_rng(), Algorithm::Ed25519).unwrap();
    fs::write(path, key.to_openssh(LineEnding::LF).unwrap().as_bytes()).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
    key
}

/// Runs a command with that input.
pub fn run(command: &mut Command, input: &[u8]) -> Output {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    thread::scope(|scope| {
        // The program need not read all of it.
        scope.spawn(move || stdin.write_all(input));
        child.wait_with_output().unwrap()
    })
}

/// Runs a command that must succeed. Returns its output.
pub fn succeed(command: &mut Command) -> String {
    let output = run(command, b"");
    assert!(output.status.success(), "{command:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}
