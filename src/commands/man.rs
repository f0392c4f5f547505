//! `man`: the manual page, generated from the command line's own descriptions.

use std::io::Write;

use clap_mangen::Man;

use crate::{
    error::{Error, Kind, Result},
    settings::{HOME_VARIABLE, KEYS, LOCAL_VARIABLE, SETTINGS_VARIABLE},
    ui::out,
};

/// Print the manual page. To read it: `labctl-ssh-proxy man | man -l -`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

/// Prints the manual page.
///
/// # Errors
/// Fails when standard output cannot be written.
pub(crate) fn run(Args {}: Args, program: clap::Command) -> Result<()> {
    let page = page(program).map_err(|e| Error::new(Kind::Internal, format!("cannot make the manual page: {e}")))?;
    out::write(&String::from_utf8_lossy(&page))
}

/// Returns the page in the language of man(7).
pub(crate) fn page(mut command: clap::Command) -> std::io::Result<Vec<u8>> {
    command.build();
    let mut page = Vec::new();
    let man = Man::new(command.clone());
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    for sub in command.get_subcommands().filter(|sub| sub.get_name() != "help") {
        section(&mut page, sub)?;
    }
    writeln!(page, ".SH FILES")?;
    for (name, what) in [
        ("~/.config/labctl-ssh-proxy/settings.yaml", "the settings; on macOS below ~/Library/Application Support"),
        ("~/.iximiuz/labctl-ssh-proxy", "this program's own files: host entries, host keys, records, logs"),
        ("~/.iximiuz/labctl/config.yaml", "the login, shared with labctl"),
        ("~/.ssh/iximiuz_labs_user", "the key for machines, shared with labctl; made if it is missing"),
        ("~/.ssh/config", "config-ssh adds one line, an Include"),
        ("~/.kube/config", "kube --merge adds a context while it runs"),
        ("~/.config/zed/settings.json", "config-zed adds playgrounds"),
        ("~/.config/JetBrains/*/options/sshConfigs.xml", "config-jetbrains adds playgrounds"),
    ] {
        writeln!(page, ".TP\n\\fI{}\\fR\n{}", roff(name), roff(what))?;
    }
    writeln!(page, ".SH ENVIRONMENT")?;
    for (name, what) in [
        (HOME_VARIABLE, "the folder for everything that this program writes"),
        (SETTINGS_VARIABLE, "the settings file"),
        (LOCAL_VARIABLE, "use the embedded platform, as --local does"),
        ("HTTPS_PROXY, NO_PROXY", "the usual proxy variables; the setting `proxy` takes precedence"),
    ] {
        writeln!(page, ".TP\n\\fB{name}\\fR\n{}", roff(what))?;
    }
    writeln!(page, ".SH SETTINGS\nAll are optional; the file is YAML.")?;
    for (name, what) in KEYS {
        writeln!(page, ".TP\n\\fB{name}\\fR\n{}", roff(what))?;
    }
    writeln!(page, ".SH EXIT STATUS\n0 on success; ssh's own exit code for a command that becomes ssh; otherwise:")?;
    for kind in Kind::ALL {
        writeln!(page, ".TP\n\\fB{}\\fR ({})\n{}", kind.exit_code(), roff(kind.name()), roff(kind.meaning()))?;
    }
    Ok(page)
}

/// Writes a command and its subcommands as a section of this page, instead of a page of their own.
fn section(page: &mut Vec<u8>, command: &clap::Command) -> std::io::Result<()> {
    let name = command.get_bin_name().unwrap_or(command.get_name()).to_owned();
    writeln!(page, ".SH \"{}\"", roff(&name.to_uppercase()))?;
    // The global options are described only once, on the top level.
    let own = command.clone().mut_args(|argument| {
        let hide = argument.is_global_set();
        argument.hide(hide)
    });
    let man = Man::new(own.disable_help_flag(true));
    let mut body = Vec::new();
    man.render_synopsis_section(&mut body)?;
    man.render_description_section(&mut body)?;
    if command.get_arguments().any(|argument| !argument.is_global_set() && argument.get_id() != "help") {
        man.render_options_section(&mut body)?;
    }
    page.write_all(String::from_utf8_lossy(&body).replace(".SH ", ".SS ").as_bytes())?;
    for sub in command.get_subcommands().filter(|sub| sub.get_name() != "help") {
        section(page, sub)?;
    }
    Ok(())
}

/// Escapes text for roff.
fn roff(text: &str) -> String {
    text.replace('\\', "\\e").replace('-', "\\-")
}
