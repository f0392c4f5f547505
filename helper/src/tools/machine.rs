//! The machine's own programs as tools: a static busybox, and bash with its loader and libraries.

use std::{
    env,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use super::{
    Lying, USUAL_IMAGE, USUAL_PATH, Waiting,
    elf::{self, Program},
    image::{self, Pull},
    store,
};

/// Folders that a login shell's PATH need not have: k3s brings a busybox.
const MORE: [&str; 3] = ["/bin", "/usr/bin", "/var/lib/rancher/k3s/data/current/bin"];

/// The machine's tools. One that has no busybox has those of an image pulled, unless the container has a shell.
///
/// `pull` is the reason for that.
///
/// # Errors
/// Words that say why there are none.
pub(super) fn tools(has_shell: bool, pull: Pull, waiting: Waiting<'_>) -> Result<Lying, String> {
    let busybox = busybox();
    if busybox.is_none() && !has_shell {
        return image::tools(USUAL_IMAGE, pull, waiting)
            .map_err(|why| format!("no static busybox, nor {USUAL_IMAGE}: {why}"));
    }
    let (mut files, mut links) = (Vec::new(), Vec::new());
    if let Some((program, applets)) = busybox {
        files.push(("bin/busybox".to_owned(), program));
        links.extend(applets.into_iter().map(|applet| (format!("bin/{applet}"), "busybox".to_owned())));
    }
    bash(&mut files, &mut links);
    if files.is_empty() {
        return Err("neither a static busybox nor bash".to_owned());
    }
    let failed = |error: std::io::Error| format!("they cannot be copied: {error}");
    // This program is named by its hash, and touched by each use.
    let others = files.iter().filter(|(path, _)| path != "run");
    let material = others.map(|(_, source)| store::identity(source)).collect::<Result<String, _>>().map_err(failed)?;
    let is_whole = |folder: &Path| files.iter().all(|(path, source)| store::is_same(source, &folder.join(path)));
    store::tools(&material, is_whole, waiting, |folder| {
        let copy = |(path, source): &(String, PathBuf)| store::copy(source, &folder.join(path));
        files.iter().try_for_each(copy).map_err(failed)?;
        links.iter().try_for_each(|(path, target)| store::link(target, &folder.join(path))).map_err(failed)
    })
}

/// A static busybox of the machine that has a shell, and its applets.
fn busybox() -> Option<(PathBuf, Vec<String>)> {
    candidates("busybox").find_map(|program| {
        (elf::program(&program).ok()? == Program::Static).then_some(())?;
        let applets = said(Command::new(&program).arg("--list"))?;
        let applets = applets.lines().filter(|name| is_name(name) && *name != "busybox").map(str::to_owned);
        let applets: Vec<String> = applets.collect();
        applets.iter().any(|name| name == "sh").then_some((program, applets))
    })
}

/// Adds the machine's bash, a static one if it has one.
fn bash(files: &mut Vec<(String, PathBuf)>, links: &mut Vec<(String, String)>) {
    for program in candidates("bash-static").chain(candidates("bash")) {
        match elf::program(&program) {
            Ok(Program::Static) => return files.push(("bin/bash".to_owned(), program)),
            Ok(Program::Loaded(loader)) => {
                let Some(libraries) = libraries(&loader, &program) else { continue };
                let Ok(own) = store::own() else { return };
                files.push(("root/bin/bash".to_owned(), program));
                files.push((format!("root{loader}"), loader.into()));
                files.extend(libraries);
                files.push(("run".to_owned(), own));
                links.push(("bin/bash".to_owned(), "../run".to_owned()));
                links.push(("programs/bash".to_owned(), "../root/bin/bash".to_owned()));
                return;
            }
            _ => {}
        }
    }
}

/// The libraries that the machine's loader would give to a program of the machine.
fn libraries(loader: &str, program: &Path) -> Option<Vec<(String, PathBuf)>> {
    let listed = said(Command::new(loader).arg("--list").arg(program))?;
    // `libc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f2a)`. Lines without an arrow are the kernel's and the loader.
    let found = listed.lines().filter_map(|line| line.split_once(" => ")?.1.split(" (").next());
    let found = found.filter(|path| *path != loader).map(PathBuf::from);
    found.map(|path| Some((format!("root/lib/{}", path.file_name()?.to_str()?), path))).collect()
}

/// The output of one of the machine's own programs.
fn said(command: &mut Command) -> Option<String> {
    let output = command.env_clear().stdin(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8(output.stdout).ok())?
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && !name.starts_with('.') && !name.contains('/')
}

/// The files of that name which the machine has.
fn candidates(name: &str) -> impl Iterator<Item = PathBuf> {
    let path = env::var_os("PATH").unwrap_or_else(|| USUAL_PATH.into());
    let folders: Vec<PathBuf> = env::split_paths(&path).filter(|folder| folder.is_absolute()).collect();
    let usual = MORE.map(PathBuf::from).into_iter();
    let all = usual.chain(folders).filter_map(move |folder| folder.join(name).canonicalize().ok());
    all.filter(|path| path.is_file())
}
