//! The helper's program. See the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    match std::env::args().nth(1).as_deref() {
        #[cfg(target_os = "linux")]
        Some("serve") => helper::serve::run(),
        _ => ExitCode::from(2),
    }
}
