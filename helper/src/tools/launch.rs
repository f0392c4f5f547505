//! Starts a program of a folder of tools that needs a loader, or is a script.
//!
//! The kernel takes a loader by its path in the container, where there is none, or another. So the name in `bin` leads to
//! this program, which starts the loader of the tools with the tools' libraries. It learns by the path that it was
//! started with (`AT_EXECFN`) which name that was.

use std::{
    env,
    ffi::{OsStr, OsString},
    fs,
    io::{self, Write},
    os::unix::{ffi::OsStrExt, process::CommandExt},
    path::Path,
    process::{Command, ExitCode},
};

use super::elf::{self, Program};

/// Becomes the program whose name this one was started by, in a folder of tools. None: it was not.
pub fn run() -> Option<ExitCode> {
    let started = Path::new(OsStr::from_bytes(rustix::param::linux_execfn().to_bytes()));
    let (folder, name) = (started.parent()?, started.file_name()?);
    let tools = folder.join("..");
    let program = tools.join("programs").join(name);
    // One call for all whom it does not concern.
    fs::symlink_metadata(&program).ok()?;
    let mut arguments = env::args_os();
    let own = arguments.next().unwrap_or_default();
    let error = match command(&tools, &program, &own) {
        Ok(mut command) => command.args(arguments).exec(),
        Err(error) => error,
    };
    // Without standard error there is no other place for it.
    let _ = writeln!(io::stderr(), "{}: {error}", name.to_string_lossy());
    Some(ExitCode::from(126))
}

fn command(tools: &Path, program: &Path, own: &OsStr) -> io::Result<Command> {
    let mut command;
    match elf::program(program)? {
        Program::Loaded(loader) => {
            let root = tools.join("root");
            let loader = root.join(loader.trim_start_matches('/'));
            command = Command::new(&loader);
            command.arg("--library-path").arg(libraries(&root));
            // Loaders before glibc 2.33 cannot. There a program has its own path as its name.
            if fs::read(&loader)?.windows(7).any(|word| word == b"--argv0") {
                command.arg("--argv0").arg(own);
            }
            command.arg(program);
        }
        Program::Script(interpreter, argument) => {
            let name = Path::new(&interpreter).file_name().unwrap_or_default();
            command = Command::new(tools.join("bin").join(name));
            command.args(argument).arg(program);
        }
        Program::Static | Program::None => command = Command::new(program),
    }
    Ok(command)
}

/// The folders of libraries below a root, for a loader.
fn libraries(root: &Path) -> OsString {
    let debians = format!("lib/{}-linux-gnu", env::consts::ARCH);
    let kinds = ["lib", &debians, "lib64"];
    let folders = ["", "usr", "usr/local"].iter().flat_map(|place| kinds.map(|kind| root.join(place).join(kind)));
    // Each package of Nix has a folder of its own, which its programs name by a path that is not here.
    let packages = fs::read_dir(root.join("nix/store")).into_iter().flatten().flatten();
    let folders = folders.chain(packages.map(|package| package.path().join("lib"))).filter(|folder| folder.is_dir());
    // No folder of ours has a colon in its name.
    env::join_paths(folders).unwrap_or_default()
}
