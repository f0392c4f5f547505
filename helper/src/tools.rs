//! Programs for a container that lacks a shell: a folder of the machine that can only be read.
//!
//! ```text
//! Tools -> machine (busybox, bash) | image (the engine's) | a folder -> store (beside the helper) -> mount -> a descriptor
//! ```
//!
//! Nothing is written into the container, and no image is run. In the container the folder is in no mount namespace: it
//! is a descriptor that the server has, and ends with it (`serve/holder`).
//!
//! # A folder of tools
//!
//! | path | content |
//! | --- | --- |
//! | `bin` | what comes into PATH: static programs, or links to `run` |
//! | `run` | this program, which starts those that need a loader (`launch`) |
//! | `programs` | a link for each name of `bin` that leads to `run` |
//! | `root` | the files of those: their loader and libraries, or all of an image |

mod elf;
mod image;
pub mod launch;
mod machine;
pub(crate) mod mount;
mod store;
mod tar;

use std::{
    io,
    os::fd::{AsRawFd, OwnedFd},
    path::{Path, PathBuf},
};

use rustix::fs::FileType;
use serde_json::{Map, Value};

use self::image::Pull;
use crate::{
    text, users,
    wire::{Refusal, RefusalKind, Tools},
};

/// The image whose programs are lent where the machine has none itself.
const USUAL_IMAGE: &str = "busybox:musl";

/// The folders of a container that names none.
pub(crate) const USUAL_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Tools on their way into a container.
pub(crate) struct Lent {
    /// The mount.
    pub(crate) mount: OwnedFd,
    /// The folder in it that comes into PATH.
    pub(crate) programs: String,
    /// Keeps them from being removed, as long as it is open.
    pub(crate) in_use: Option<OwnedFd>,
}

/// A folder of tools that lies on the machine.
struct Lying {
    folder: PathBuf,
    in_use: OwnedFd,
}

/// Tells the client that something takes long.
pub(crate) type Waiting<'a> = &'a dyn Fn(&str);

/// The tools for a container, or the reason why it gets none. `init` is the folder of its first process.
///
/// # Errors
/// Fails when tools that were asked for by name cannot be had.
pub(crate) fn lend(
    wanted: &Tools,
    init: &OwnedFd,
    process: &Map<String, Value>,
    waiting: Waiting<'_>,
) -> Result<Result<Lent, String>, Refusal> {
    let lying = match wanted {
        Tools::None => return Ok(Err("none are to be lent".to_owned())),
        Tools::Folder(path) => return folder(path).map(Ok),
        Tools::Image(name) => image::tools(name, Pull::Asked, waiting).map_err(|why| {
            let message = format!("the tools of image {} cannot be lent: {why}", text::line(name));
            Refusal::new(RefusalKind::Program, message).with_hint("`--tools auto` lends the machine's own")
        })?,
        Tools::Auto => {
            let has = |program| has(init, process, program);
            let has_shell = has("sh");
            if has_shell && has("bash") {
                return Ok(Err(String::new()));
            }
            match machine::tools(has_shell, Pull::Unasked, waiting) {
                Ok(lying) => lying,
                Err(why) => return Ok(Err(format!("the machine has none to lend: {why}"))),
            }
        }
        Tools::Always => machine::tools(false, Pull::Asked, waiting).map_err(|why| {
            Refusal::new(RefusalKind::Program, format!("the machine has no tools to lend: {why}"))
                .with_hint("`--tools none` connects without")
        })?,
    };
    let Lying { folder, in_use } = lying;
    let mount = match mount::detached(&folder) {
        Ok(mount) => mount,
        // They are a courtesy.
        Err(error) if *wanted == Tools::Auto => return Ok(Err(cannot_mount(&folder, &error).message)),
        Err(error) => return Err(cannot_mount(&folder, &error)),
    };
    Ok(Ok(Lent { mount, programs: "bin".to_owned(), in_use: Some(in_use) }))
}

/// The tools of a folder that the user has named.
fn folder(path: &str) -> Result<Lent, Refusal> {
    let refused = |why: &str| {
        let message = format!("{} is no folder of tools: {why}", text::line(path));
        Refusal::new(RefusalKind::NotFound, message)
            .with_hint("it has to be a folder of the machine, with programs in it")
    };
    let folder = std::fs::canonicalize(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => refused("the machine has no such folder"),
        _ => refused(&error.to_string()),
    })?;
    if !folder.is_dir() {
        return Err(refused("it is a file"));
    }
    if folder == Path::new("/") {
        return Err(refused("it is the whole machine"));
    }
    let mount = mount::detached(&folder).map_err(|error| cannot_mount(&folder, &error))?;
    let programs = if folder.join("bin").is_dir() { "bin" } else { "" };
    Ok(Lent { mount, programs: programs.to_owned(), in_use: None })
}

fn cannot_mount(folder: &Path, error: &io::Error) -> Refusal {
    let message = format!("the tools in {} cannot be mounted: {error}", text::line(&folder.display().to_string()));
    Refusal::new(RefusalKind::Impossible, message).with_hint("`--tools none` connects without")
}

/// Reports whether a container has this program in its PATH. Nothing of it is run, and no link leads out of it.
pub(crate) fn has(init: &OwnedFd, process: &Map<String, Value>, program: &str) -> bool {
    let Ok(root) = users::root(init) else { return false };
    let variables = process.get("env").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
    let path = variables.filter_map(|one| one.strip_prefix("PATH=")).next_back().unwrap_or(USUAL_PATH);
    // The login shell of a container is looked for here, whatever its PATH says.
    path.split(':').chain(["/bin"]).any(|folder| is_program(&root, &format!("{folder}/{program}")))
}

/// Reports whether a path below `root` is a file that may be run.
fn is_program(root: &OwnedFd, path: &str) -> bool {
    let Ok(found) = users::found(root, path) else { return false };
    let Ok(about) = rustix::fs::fstat(&found) else { return false };
    FileType::from_raw_mode(about.st_mode) == FileType::RegularFile && about.st_mode & 0o111 != 0
}

/// The path of an open file, for what wants one.
pub(crate) fn path_of(file: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", file.as_raw_fd())
}
