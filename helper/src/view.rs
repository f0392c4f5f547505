//! A view of a container for editors' servers, which need bash and a C library: the container's own files, and what they
//! lack from the machine, in a mount namespace beside the container's.
//!
//! ```text
//! enter -> views/<id>-<uid>-<start> -> keeper, on the machine -> making (mounts) -> holder, in the container
//!       -> runc --root views/<id>-<uid>-<start> exec
//! ```
//!
//! runc enters the namespaces of the process that its state names as the container's first one. A copy of that state
//! names the holder instead, whose mount namespace is the view, and whose other namespaces and cgroup are the container's.
//! So all that confines a session is runc's work here, too.
//!
//! # What is seen there
//!
//! | path | files |
//! | --- | --- |
//! | `/bin`, `/sbin`, `/lib*`, `/usr` | the container's, and behind them the machine's: an overlay that can only be read |
//! | `/etc` | each of the container's files, and of the machine's the certificates and the like |
//! | `/tmp` and the user's home folder | the container's, or ones in memory where it has none that can be written |
//! | `/` | in memory |
//! | all else | the container's, as it is there |
//!
//! An overlay without an upper folder is no mount of the machine's file system: no capability makes it writable, opens a
//! file of it by a handle, or freezes what lies below. A container that has a C library gets no view, because programs of
//! one and libraries of another do not run together.
//!
//! # Its time
//!
//! All connections of one user to a container share a view. The keeper ends it when the container ends, or when it was not
//! used for some time. Nothing of it is a file in the container.

mod holder;
mod keeper;
mod making;

use std::{
    env,
    fs::{self, DirBuilder, File},
    io::{self, Write},
    os::{fd::OwnedFd, unix::fs::DirBuilderExt},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use rustix::{
    fs::{FlockOperation, Mode, OFlags, flock},
    io::Errno,
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{
    descriptors,
    process::Process,
    runtime::{Runtime, RuntimeState},
    server::processes::MARKER,
    tools, users, wire,
};

pub use keeper::run;

/// Patience with other views that begin or end.
const PATIENCE: Duration = Duration::from_secs(5);

/// The pause before the lock is tried again.
const PAUSE: Duration = Duration::from_millis(20);

/// The folder of views, beside the helper.
const VIEWS: &str = "views";

/// A pipe in a view's folder, which each connection has open.
const USE: &str = "use";

/// The time without use after which a view ends.
const IDLE: Duration = Duration::from_secs(10 * 60);

/// The file among the views that sets another time, in milliseconds. For tests.
const IDLE_FILE: &str = "idle";

/// The keeper's word for a view that is ready.
const MADE: &str = "made";

/// The folders in which a C library or its loader lies.
const LIBRARIES: [&str; 6] = ["lib", "lib64", "usr/lib", "usr/lib64", "lib/{}-linux-gnu", "usr/lib/{}-linux-gnu"];

/// The largest number of files in a folder that is looked through.
const MAX_FILES: usize = 20_000;

/// A view that a connection uses as long as it has this.
pub(crate) struct View {
    /// The folder of its runtime state.
    pub(crate) root: PathBuf,
    /// Tells the keeper that it is in use.
    pub(crate) in_use: OwnedFd,
}

/// The words to the keeper.
#[derive(Deserialize, Serialize)]
struct Order {
    /// The container's id.
    id: String,
    /// The folder of its runtime's state.
    root: PathBuf,
    /// The number of its first process.
    pid: i32,
    /// The user of the sessions.
    uid: u32,
    gid: u32,
    /// The view's folder.
    folder: PathBuf,
    /// The time without use after which it ends, in milliseconds.
    idle: u64,
}

/// The view of a container, if it is to have one.
///
/// # Errors
/// Words that say why it cannot have one.
pub(crate) fn open(wanted: wire::View, id: &str, runtime: &Runtime) -> Result<Option<View>, String> {
    let is_asked = match wanted {
        wire::View::Never => return Ok(None),
        wire::View::Auto => false,
        wire::View::Always => true,
    };
    let init = &runtime.init;
    if !is_asked && tools::has(&init.folder, &runtime.process, "bash") {
        return Ok(None);
    }
    let root = users::root(&init.folder).map_err(|error| format!("its files cannot be looked at: {error}"))?;
    match library(&root) {
        None => {}
        Some(library) if is_asked => return Err(format!("it has libraries of its own (`/{library}`)")),
        Some(_) => return Ok(None),
    }
    if !runtime.is_runc {
        return Err("only runc's containers can have one".to_owned());
    }
    if !Path::new("/bin/bash").exists() {
        return Err("the machine has no bash".to_owned());
    }
    if let Some(folder) = making::mounted_below(init) {
        return Err(format!("a volume lies in its /{folder}, which would be hidden"));
    }
    let number = |name| {
        let number = runtime.process.get("user")?.get(name)?.as_u64()?;
        u32::try_from(number).ok()
    };
    let (uid, gid) = (number("uid").unwrap_or(0), number("gid").unwrap_or(0));
    let views = views()?;
    let idle = fs::read_to_string(views.join(IDLE_FILE)).ok().and_then(|text| text.parse().ok());
    let failed = |error: io::Error| format!("its folder in {} cannot be used: {error}", views.display());
    let _making = locked(&views).map_err(failed)?;
    // A container that is started again is another.
    let folder = views.join(format!("{id}-{uid}-{}", init.started));
    if let Some(in_use) = join(&folder, id) {
        return Ok(Some(View { root: folder, in_use }));
    }
    sweep(&views, &folder);
    let order = Order {
        id: id.to_owned(),
        root: runtime.root.clone(),
        pid: init.pid,
        uid,
        gid,
        folder: folder.clone(),
        idle: idle.unwrap_or(IDLE.as_millis() as u64),
    };
    start(&order)?;
    let in_use = join(&folder, id).ok_or("it ended as soon as it was made")?;
    Ok(Some(View { root: folder, in_use }))
}

/// Has the machine's programs found, whatever PATH the container has.
pub(crate) fn see_programs(process: &mut Map<String, Value>) {
    let variables = process.get_mut("env").and_then(Value::as_array_mut).into_iter().flatten();
    for variable in variables {
        let Some(path) = variable.as_str().and_then(|one| one.strip_prefix("PATH=")) else { continue };
        let missing = tools::USUAL_PATH.split(':').filter(|folder| path.split(':').all(|one| one != *folder));
        let path = missing.fold(path.to_owned(), |path, folder| format!("{path}:{folder}"));
        *variable = format!("PATH={path}").into();
    }
}

/// The folder of views. Only root may look into it.
fn views() -> Result<PathBuf, String> {
    let own = env::current_exe().map_err(|error| format!("the helper's own file is not known: {error}"))?;
    let views = own.with_file_name(VIEWS);
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&views)
        .map_err(|error| format!("{} cannot be made: {error}", views.display()))?;
    Ok(views)
}

/// The lock under which views begin and end. A container whose files are slow must not hold up others for long.
fn locked(views: &Path) -> io::Result<File> {
    let lock = File::open(views)?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(lock),
            Err(Errno::WOULDBLOCK | Errno::INTR) if Instant::now() < deadline => std::thread::sleep(PAUSE),
            Err(Errno::WOULDBLOCK | Errno::INTR) => return Err(io::Error::other("another view is being made")),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Takes part in a view, if it is there.
fn join(folder: &Path, id: &str) -> Option<OwnedFd> {
    let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    // Without a keeper none reads there.
    let in_use = rustix::fs::open(folder.join(USE), flags, Mode::empty()).ok()?;
    rustix::io::write(&in_use, b"\n").ok()?;
    let state: RuntimeState = serde_json::from_slice(&fs::read(folder.join(id).join("state.json")).ok()?).ok()?;
    let holder = Process::find(Path::new("/proc"), state.init_process_pid).ok()?;
    (holder.started == state.init_process_start && holder.lives()).then_some(in_use)
}

/// Removes what keepers that were killed have left, and what is in the place of a new one.
fn sweep(views: &Path, place: &Path) {
    for entry in fs::read_dir(views).into_iter().flatten().flatten() {
        let folder = entry.path();
        if !folder.is_dir() {
            continue;
        }
        let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        if folder == place || rustix::fs::open(folder.join(USE), flags, Mode::empty()).is_err() {
            let _ = fs::remove_dir_all(folder);
        }
    }
}

/// Starts the keeper, and waits until the view is there.
fn start(order: &Order) -> Result<(), String> {
    let order = serde_json::to_vec(order).map_err(|error| error.to_string())?;
    let program = descriptors::sealed_program().map_err(|refusal| refusal.message)?;
    let mut command = Command::new(tools::path_of(&program));
    command.arg("view").env_clear().current_dir("/").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    if let Some(marker) = env::var_os(MARKER) {
        command.env(MARKER, marker);
    }
    let said = command.spawn().and_then(|mut child| {
        if let Some(mut input) = child.stdin.take() {
            input.write_all(&order)?;
        }
        child.wait_with_output()
    });
    match said.map(|said| String::from_utf8_lossy(&said.stdout).into_owned()) {
        Ok(said) if said == MADE => Ok(()),
        Ok(said) if said.is_empty() => Err("the program that keeps it has ended on the machine".to_owned()),
        Ok(said) => Err(said),
        Err(error) => Err(format!("the program that keeps it cannot be started: {error}")),
    }
}

/// The path of a C library, or of its loader, in a container.
fn library(root: &OwnedFd) -> Option<String> {
    LIBRARIES.iter().find_map(|folder| {
        let folder = folder.replace("{}", env::consts::ARCH);
        let found = users::found(root, &folder).ok()?;
        let mut files = fs::read_dir(tools::path_of(&found)).ok()?.take(MAX_FILES).flatten();
        let is_one = |name: &str| name.starts_with("ld-") && name.contains(".so") || name.starts_with("libc.");
        let name = files.find_map(|file| file.file_name().into_string().ok().filter(|name| is_one(name)))?;
        Some(format!("{folder}/{name}"))
    })
}

/// The copy of a runtime's state with the holder in the place of the container's first process.
fn state_with(mut state: Value, holder: &Process) -> Value {
    state["init_process_pid"] = holder.pid.into();
    state["init_process_start"] = holder.started.into();
    state
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_found_behind_the_containers_own() {
        for (path, expected) in [
            ("PATH=/app", "PATH=/app:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
            ("PATH=/bin:/usr/local/bin", "PATH=/bin:/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin"),
            ("XPATH=/app", "XPATH=/app"),
        ] {
            let mut process = Map::new();
            process.insert("env".to_owned(), serde_json::json!(["A=b", path]));
            see_programs(&mut process);
            assert_eq!(process["env"], serde_json::json!(["A=b", expected]));
        }
    }

    #[test]
    fn a_c_library_is_found_by_its_name_or_its_loaders() {
        let folder = tempfile::tempdir().unwrap();
        let root = rustix::fs::open(folder.path(), OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap();
        let debians = format!("usr/lib/{}-linux-gnu", env::consts::ARCH);
        for path in ["usr/lib/os-release", "lib/ld-notes", "bin/ld-linux.so.2"] {
            fs::create_dir_all(folder.path().join(path).parent().unwrap()).unwrap();
            fs::write(folder.path().join(path), "").unwrap();
        }
        assert_eq!(library(&root), None);
        for (place, name) in
            [("lib", "ld-musl-x86_64.so.1"), ("lib64", "ld-linux-x86-64.so.2"), (&debians, "libc.so.6")]
        {
            fs::create_dir_all(folder.path().join(place)).unwrap();
            fs::write(folder.path().join(place).join(name), "").unwrap();
            assert_eq!(library(&root), Some(format!("{place}/{name}")));
            fs::remove_file(folder.path().join(place).join(name)).unwrap();
        }
    }
}
