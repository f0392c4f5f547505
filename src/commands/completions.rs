//! `completions`: the script that connects a shell's completion with this program, and the answers to that script.

use std::{env, io, sync::OnceLock};

use clap_complete::{ArgValueCandidates, CompleteEnv, CompletionCandidate, env::Shells};

use crate::{
    error::{Error, Kind, Result},
    ui::out,
};

/// The environment variable in which the shell's script sends its name.
const VARIABLE: &str = "LABCTL_SSH_PROXY_COMPLETE";

/// The end of zsh's script. If zsh loads the script as a function from its `fpath`, then for the first word to complete,
/// which only this call answers.
const AUTOLOADED: &str = r#"
if [[ "$funcstack[1]" == _labctl-ssh-proxy ]]; then
    _clap_dynamic_completer_labctl_ssh_proxy "$@"
fi
"#;

/// The shell that asks. The answer goes through clap, which knows it but does not pass it on.
static ASKING: OnceLock<String> = OnceLock::new();

/// True if bash asks, which passes words as they are typed, and inserts candidates as they are. The others quote.
pub(super) fn is_for_bash() -> bool {
    ASKING.get().is_some_and(|shell| shell == "bash")
}

/// Answers the request of a shell's script. Returns false if this process was started for another purpose.
///
/// # Errors
/// Fails when standard output cannot be written, or the shell is unknown.
pub fn answer(program: fn() -> clap::Command) -> clap::error::Result<bool> {
    if let Ok(shell) = env::var(VARIABLE) {
        let _ = ASKING.set(shell);
    }
    CompleteEnv::with_factory(program).var(VARIABLE).try_complete(env::args_os(), None)
}

/// Print a completion script for your shell.
///
/// Packages install it. Otherwise, bash: put `source <(labctl-ssh-proxy completions bash)` into ~/.bashrc. zsh: the same
/// with `zsh`, in ~/.zshrc after compinit. fish: run `labctl-ssh-proxy completions fish >
/// ~/.config/fish/completions/labctl-ssh-proxy.fish`. The script finds the program in PATH.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// bash, elvish, fish, powershell or zsh.
    #[arg(add = ArgValueCandidates::new(|| shells().into_iter().map(CompletionCandidate::new).collect()))]
    shell: String,
}

/// Prints the script for a shell.
///
/// # Errors
/// [`Kind::Usage`] for an unknown shell.
pub fn run(Args { shell }: Args) -> Result<()> {
    let shells = Shells::builtins();
    let Some(completer) = shells.completer(&shell) else {
        let names: Vec<_> = shells.names().collect();
        return Err(Error::new(Kind::Usage, format!("`{shell}` is not a supported shell"))
            .with_hint(format!("use one of: {}", names.join(", "))));
    };
    let name = env!("CARGO_PKG_NAME");
    let mut script = Vec::new();
    // The program is found in PATH, because a package's script is made on another computer.
    completer
        .write_registration(VARIABLE, &name.replace('-', "_"), name, name, &mut script)
        .map_err(|e: io::Error| Error::new(Kind::Internal, e.to_string()))?;
    if shell == "zsh" {
        script.extend(AUTOLOADED.as_bytes());
    }
    out::write(&String::from_utf8_lossy(&script))
}

/// Returns the supported shells.
fn shells() -> Vec<&'static str> {
    Shells::builtins().names().collect()
}
