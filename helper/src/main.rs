//! The helper's program. See the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(2)
}
