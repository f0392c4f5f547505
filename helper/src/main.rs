//! The helper's program. See the library.

use std::process::ExitCode;

#[cfg(target_os = "linux")]
fn main() -> ExitCode {
    if let Some(code) = helper::launch::run() {
        return code;
    }
    let mut arguments = std::env::args().skip(1);
    match (arguments.next().as_deref(), arguments.next()) {
        (Some("enter"), None) => helper::enter::run(),
        (Some("list"), None) => helper::list::run(),
        (Some("watch"), None) => helper::watch::run(),
        (Some("serve"), None) => helper::serve::run(),
        (Some("hold"), None) => helper::serve::hold(),
        (Some("view"), None) => helper::view::run(),
        _ => usage(),
    }
}

#[cfg(not(target_os = "linux"))]
fn main() -> ExitCode {
    usage()
}

/// The program is started by programs only.
fn usage() -> ExitCode {
    ExitCode::from(2)
}
