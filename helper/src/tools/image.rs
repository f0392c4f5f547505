//! The files of an image as tools. The machine's own engine pulls it, under the login that it has, and exports it once.
//! None of its programs runs on the machine.

use std::{
    collections::BTreeSet,
    fs,
    io::{self, Read},
    os::{fd::OwnedFd, unix::fs::MetadataExt},
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use rustix::fs::{Mode, OFlags};

use super::{
    Lying, USUAL_PATH, Waiting,
    elf::{self, Program},
    path_of, store, tar,
};
use crate::{text, users};

/// The clients of engines. The first that knows the image, or can pull it, is used.
const CLIENTS: [&str; 3] = ["docker", "podman", "nerdctl"];

/// The reason to pull an image.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Pull {
    /// Its tools were asked for.
    Asked,
    /// They are a courtesy.
    Unasked,
}

impl Pull {
    /// The time for all of it: less than a client waits (`wire::WAITING_LIMIT`).
    fn patience(self) -> Duration {
        match self {
            Pull::Asked => Duration::from_secs(150),
            Pull::Unasked => Duration::from_secs(30),
        }
    }
}

/// The time for which one that has failed is not tried again unasked.
const AGAIN: Duration = Duration::from_secs(600);

/// Between two looks at a pull.
const LOOK: Duration = Duration::from_millis(100);

/// An image that an engine has.
struct Image {
    id: String,
    /// The PATH of its programs.
    path: String,
}

/// The tools of an image.
///
/// # Errors
/// Words that say why there are none.
pub(super) fn tools(name: &str, pull: Pull, waiting: Waiting<'_>) -> Result<Lying, String> {
    let mut why = None;
    let until = Instant::now() + pull.patience();
    let failure = store::failure()?;
    let is_recent =
        fs::metadata(&failure).and_then(|it| it.modified()).is_ok_and(|at| at.elapsed().is_ok_and(|ago| ago < AGAIN));
    // Each connection would wait for it again.
    let pulls = pull == Pull::Asked || !is_recent;
    for client in CLIENTS {
        match found(client, name, pulls.then_some(until), waiting) {
            Ok(image) => return exported(client, name, &image, waiting),
            Err(None) => {}
            Err(Some(words)) => drop(why.get_or_insert_with(|| format!("{client} says: {words}"))),
        }
    }
    // An image that was asked for says nothing about the usual one.
    if pull == Pull::Unasked && pulls && why.is_some() {
        // It only spares time.
        let _ = fs::write(&failure, "");
    }
    Err(why.unwrap_or_else(|| format!("the machine has none of {}", CLIENTS.join(", "))))
}

/// The image. Where it is missing, it is pulled, if there is a time until which that may take. An error without words is a
/// client that the machine has not.
fn found(client: &str, name: &str, until: Option<Instant>, waiting: Waiting<'_>) -> Result<Image, Option<String>> {
    let format = "{{.Id}} {{json .Config.Env}}";
    let inspect = || said(client, &["image", "inspect", "--format", format, name]);
    let about = match inspect() {
        Err(Some(words)) => {
            let Some(until) = until else {
                return Err(Some(format!("{words} (it could not be pulled, which is tried again in some minutes)")));
            };
            waiting(&format!("pulling image {} on the machine", text::line(name)));
            pull(client, name, until)?;
            inspect()?
        }
        about => about?,
    };
    let (id, variables) = about.trim().split_once(' ').unwrap_or((about.trim(), "null"));
    let variables: Option<Vec<String>> = serde_json::from_str(variables).unwrap_or_default();
    let path = variables.into_iter().flatten().find_map(|one| one.strip_prefix("PATH=").map(str::to_owned));
    Ok(Image { id: id.to_owned(), path: path.unwrap_or_else(|| USUAL_PATH.to_owned()) })
}

fn exported(client: &str, name: &str, image: &Image, waiting: Waiting<'_>) -> Result<Lying, String> {
    let has_programs = |folder: &Path| folder.join("bin").is_dir();
    store::tools(&format!("image {}", image.id), has_programs, waiting, |folder| {
        waiting(&format!("unpacking image {} on the machine", text::line(name)));
        let root = folder.join("root");
        fs::create_dir(&root)
            .and_then(|()| fs::set_permissions(&root, std::os::unix::fs::PermissionsExt::from_mode(0o755)))
            .map_err(|error| format!("they cannot be written: {error}"))?;
        unpack(client, &image.id, &root)?;
        put_in_path(folder, &image.path).map_err(|error| format!("its programs cannot be listed: {error}"))
    })
}

/// Pulls an image. What takes longer is ended.
fn pull(client: &str, name: &str, until: Instant) -> Result<(), Option<String>> {
    let failed = |error: io::Error| Some(error.to_string());
    let (mut words, output) = io::pipe().map_err(failed)?;
    let mut command = Command::new(client);
    command.args(["pull", name]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(output);
    let mut pulling = command.spawn().map_err(failed)?;
    drop(command);
    let said = thread::spawn(move || {
        let mut said = Vec::new();
        let _ = words.read_to_end(&mut said);
        said
    });
    loop {
        match pulling.try_wait().map_err(failed)? {
            Some(ended) if ended.success() => return Ok(()),
            Some(_) => return Err(Some(last_line(&said.join().unwrap_or_default()))),
            None if Instant::now() < until => thread::sleep(LOOK),
            None => {
                let _ = pulling.kill();
                let _ = pulling.wait();
                return Err(Some("the pull takes too long".to_owned()));
            }
        }
    }
}

/// Writes the files of an image into a folder. The container that this takes is never started.
fn unpack(client: &str, id: &str, root: &Path) -> Result<(), String> {
    // Machines of the embedded platform share an engine.
    let place = fs::metadata(root.join("../..")).map_err(|error| format!("it cannot be unpacked: {error}"))?;
    let container = format!("labctl-ssh-proxy-{}", place.ino());
    let says = |words: Option<String>| format!("{client} says: {}", words.unwrap_or_default());
    // An image may have volumes, which are made with the container.
    let remove = || said(client, &["rm", "--force", "--volumes", &container]).map(drop);
    // One that a helper has left which was ended: one is made at a time.
    let _ = remove();
    said(client, &["create", "--network", "none", "--name", &container, id, "none"]).map_err(says)?;
    let export = || -> Result<(), String> {
        let failed = |error: io::Error| format!("it cannot be unpacked: {error}");
        let mut command = Command::new(client);
        command.args(["export", &container]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut exporting = command.spawn().map_err(failed)?;
        let unpacked = exporting.stdout.take().map_or(Ok(()), |archive| tar::unpack(archive, root));
        let ended = exporting.wait().map_err(failed)?;
        unpacked.map_err(failed)?;
        if ended.success() { Ok(()) } else { Err("it cannot be exported".to_owned()) }
    };
    let exported = export();
    exported.and(remove().map_err(says))
}

/// Gives each program of the image a name in `bin`. What needs a loader or is a script is started by this program.
fn put_in_path(tools: &Path, path: &str) -> io::Result<()> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(tools.join("root"), flags, Mode::empty())?;
    let (mut names, mut needs_launcher) = (BTreeSet::new(), false);
    for folder in path.split(':').filter(|folder| folder.starts_with('/')) {
        let Ok(opened) = users::found(&root, folder) else { continue };
        for entry in fs::read_dir(path_of(&opened)).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let within = Path::new(folder.trim_start_matches('/')).join(&name);
            let Some(kind) = within.to_str().and_then(|path| kind(&root, path)) else { continue };
            if !names.insert(name.clone()) {
                continue;
            }
            let target = Path::new("../root").join(within);
            let bin = tools.join("bin").join(&name);
            if kind == Program::Static {
                store::link(target, &bin)?;
            } else {
                needs_launcher = true;
                store::link(target, &tools.join("programs").join(&name))?;
                store::link("../run", &bin)?;
            }
        }
    }
    if names.is_empty() {
        return Err(io::Error::other("there are none in its PATH"));
    }
    if needs_launcher {
        store::copy(&store::own().map_err(io::Error::other)?, &tools.join("run"))?;
    }
    Ok(())
}

/// The kind of a program, without a link that leads out of the image. None: it is no program.
fn kind(root: &OwnedFd, path: &str) -> Option<Program> {
    if !super::is_program(root, path) {
        return None;
    }
    let found = users::found(root, path).ok()?;
    elf::program(Path::new(&path_of(&found))).ok().filter(|kind| *kind != Program::None)
}

/// The output of an engine's client, or the last of its words. No words: there is no such client.
fn said(client: &str, arguments: &[&str]) -> Result<String, Option<String>> {
    let output = Command::new(client).args(arguments).stdin(Stdio::null()).output();
    let output = output.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => None,
        _ => Some(error.to_string()),
    })?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned());
    }
    Err(Some(last_line(&output.stderr)))
}

fn last_line(words: &[u8]) -> String {
    let words = String::from_utf8_lossy(words);
    text::line(words.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("it has failed"))
}
