//! `man`: the manual pages, generated from the command line's own descriptions.

mod words;

use std::{fs, io::Write, path::PathBuf};

use clap_mangen::Man;

use crate::{
    error::{Error, Kind, Result},
    settings::KEYS,
    ui::out,
};

/// The headings of the program's help, each with the names of its commands.
pub(crate) type Groups<'a> = &'a [(&'a str, Vec<&'a str>)];

/// Print the manual, or write a page for each command.
///
/// To read the whole manual as one page: `labctl-ssh-proxy man | man -l -`. Packages have a page for each command:
/// `man labctl-ssh-proxy`, `man labctl-ssh-proxy-start`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Write the pages of the program and of each command into this folder, instead of printing one page with
    /// everything. SOURCE_DATE_EPOCH, if it is set, becomes their date.
    #[arg(long, value_name = "DIR")]
    folder: Option<PathBuf>,
}

/// Prints the manual as one page, or writes a page for each command.
///
/// # Errors
/// Fails when standard output or the folder cannot be written, or SOURCE_DATE_EPOCH is not a number of seconds.
pub(crate) fn run(Args { folder }: Args, program: clap::Command, groups: Groups) -> Result<()> {
    let defect = |e| Error::new(Kind::Internal, format!("cannot make the manual page: {e}"));
    let Some(folder) = folder else {
        return out::write(&whole(program).map_err(defect)?);
    };
    let date = date()?;
    let wrong = |what: &std::path::Path, e| Error::new(Kind::File, format!("cannot write {}: {e}", what.display()));
    fs::create_dir_all(&folder).map_err(|e| wrong(&folder, e))?;
    for (name, page) in pages(program, groups, &date).map_err(defect)? {
        let path = folder.join(name);
        fs::write(&path, page).map_err(|e| wrong(&path, e))?;
    }
    Ok(())
}

/// Returns the date that SOURCE_DATE_EPOCH requests, or none, so that the same program writes the same bytes.
fn date() -> Result<String> {
    let Some(seconds) = std::env::var_os("SOURCE_DATE_EPOCH") else { return Ok(String::new()) };
    let date = seconds.to_str().and_then(|text| text.parse().ok()).and_then(|s| jiff::Timestamp::from_second(s).ok());
    let date = date.ok_or_else(|| {
        Error::new(Kind::Usage, "SOURCE_DATE_EPOCH is not a number of seconds since 1970")
            .with_hint("unset it, or set it to one, such as the date of a commit: `git log -1 --format=%ct`")
    })?;
    Ok(date.strftime("%Y-%m-%d").to_string())
}

/// Returns the manual as one page, in the language of man(7).
pub(crate) fn whole(mut program: clap::Command) -> std::io::Result<String> {
    program.build();
    let mut page = Vec::new();
    title(&mut page, program.get_name(), "")?;
    let man = Man::new(program.clone());
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    for command in subcommands(&program) {
        section(&mut page, command)?;
    }
    reference(&mut page)?;
    Ok(set(page))
}

/// Returns the page of the program and those of its commands, each with its file name.
pub(crate) fn pages(mut program: clap::Command, groups: Groups, date: &str) -> std::io::Result<Vec<(String, String)>> {
    program.build();
    let mut page = Vec::new();
    title(&mut page, program.get_name(), date)?;
    let man = Man::new(program.clone());
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    writeln!(page, ".SH COMMANDS")?;
    for (heading, names) in groups {
        writeln!(page, ".SS \"{}\"", roff(heading))?;
        for command in names.iter().filter_map(|name| subcommands(&program).find(|sub| sub.get_name() == *name)) {
            writeln!(page, ".TP\n.BR {} (1)", roff(&page_name(command)))?;
            writeln!(page, "{}", roff(&sentence(&command.get_about().unwrap_or_default().to_string())))?;
        }
    }
    man.render_options_section(&mut page)?;
    examples(&mut page, "")?;
    reference(&mut page)?;
    let all: Vec<String> = subcommands(&program).map(page_name).chain(words::OTHERS.map(str::to_owned)).collect();
    see_also(&mut page, &all)?;
    let mut pages = vec![(format!("{}.1", program.get_name()), set(page))];
    for command in subcommands(&program) {
        let near = groups.iter().find(|(_, names)| names.contains(&command.get_name()));
        let near = near.into_iter().flat_map(|(_, names)| names).filter_map(|name| program.find_subcommand(name));
        let near: Vec<String> = near.map(page_name).collect();
        own_pages(&mut pages, command, program.get_name(), &near, date)?;
    }
    Ok(pages)
}

/// Adds the page of a command, and those of its subcommands. `near` are the pages beside it in the help.
fn own_pages(
    pages: &mut Vec<(String, String)>,
    command: &clap::Command,
    parent: &str,
    near: &[String],
    date: &str,
) -> std::io::Result<()> {
    let name = page_name(command);
    let mut page = Vec::new();
    title(&mut page, &name, date)?;
    let man = Man::new(command.clone());
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    let below: Vec<String> = subcommands(command).map(page_name).collect();
    if !below.is_empty() {
        writeln!(page, ".SH COMMANDS")?;
        for sub in subcommands(command) {
            writeln!(page, ".TP\n.BR {} (1)", roff(&page_name(sub)))?;
            writeln!(page, "{}", roff(&sentence(&sub.get_about().unwrap_or_default().to_string())))?;
        }
    }
    man.render_options_section(&mut page)?;
    if let Some(more) = command.get_after_long_help().or(command.get_after_help()) {
        writeln!(page, ".SH NOTES")?;
        let paragraphs: Vec<String> =
            more.to_string().split("\n\n").map(|text| roff(&text.replace('\n', " "))).collect();
        writeln!(page, "{}", paragraphs.join("\n.PP\n"))?;
    }
    let short = name.strip_prefix("labctl-ssh-proxy-").unwrap_or(&name);
    examples(&mut page, short)?;
    writeln!(page, ".SH EXIT STATUS\n{}", roff(words::exit(short)))?;
    writeln!(page, "The exit codes, the settings and the files are described in\n.BR labctl\\-ssh\\-proxy (1).")?;
    let others = std::iter::once(parent.to_owned()).chain(below).chain(near.iter().cloned());
    let mut listed: Vec<String> = Vec::new();
    for other in others.filter(|other| *other != name) {
        if !listed.contains(&other) {
            listed.push(other);
        }
    }
    see_also(&mut page, &listed)?;
    pages.push((format!("{name}.1"), set(page)));
    let beside: Vec<String> = subcommands(command).map(page_name).collect();
    subcommands(command).try_for_each(|sub| own_pages(pages, sub, &name, &beside, date))
}

/// Writes the head and the foot of a page. clap_mangen would leave out an empty date, and so shift what follows.
fn title(page: &mut Vec<u8>, name: &str, date: &str) -> std::io::Result<()> {
    let version = concat!(env!("CARGO_PKG_NAME"), " ", env!("CARGO_PKG_VERSION"));
    let name = roff(&name.to_uppercase());
    // The name fills the line, so there is no room for the title of a book in its middle.
    writeln!(page, ".TH \"{name}\" 1 \"{date}\" \"{}\" \" \"", roff(version))
}

/// The commands below a command, without clap's own `help`.
fn subcommands(command: &clap::Command) -> impl Iterator<Item = &clap::Command> {
    command.get_subcommands().filter(|sub| sub.get_name() != "help")
}

/// The name of a command's page, such as `labctl-ssh-proxy-local-serve`.
fn page_name(command: &clap::Command) -> String {
    command.get_display_name().unwrap_or(command.get_name()).to_owned()
}

/// Writes the examples of a command's page.
fn examples(page: &mut Vec<u8>, command: &str) -> std::io::Result<()> {
    // The embedded platform is Unix's only.
    let exists = |line: &str| cfg!(unix) || line != "labctl-ssh-proxy demo";
    let mut examples = words::EXAMPLES.iter().filter(|(of, line, _)| *of == command && exists(line)).peekable();
    if examples.peek().is_some() {
        writeln!(page, ".SH EXAMPLES")?;
    }
    for (_, line, meaning) in examples {
        writeln!(page, ".TP\n\\fB{}\\fR\n{}", roff(line), roff(&sentence(meaning)))?;
    }
    Ok(())
}

/// Writes the sections that hold for every command.
fn reference(page: &mut Vec<u8>) -> std::io::Result<()> {
    writeln!(page, ".SH EXIT STATUS\nA command that runs another program, such as ssh or kubectl, ends with the exit")?;
    writeln!(page, "code of that program. Otherwise:\n.TP\n\\fB0\\fR\nSuccess.")?;
    for kind in Kind::ALL {
        let meaning = sentence(kind.meaning());
        writeln!(page, ".TP\n\\fB{}\\fR (\\fI{}\\fR)\n{}", kind.exit_code(), roff(kind.name()), roff(&meaning))?;
    }
    writeln!(page, ".PP\nWith `\\-\\-json`, the name in parentheses is the member \\fIkind\\fR of the error.")?;
    writeln!(page, ".SH SETTINGS\nThe settings file is YAML. It and each of its keys are optional.")?;
    for (name, meaning) in KEYS {
        writeln!(page, ".TP\n\\fB{}\\fR\n{}", roff(name), roff(&sentence(meaning)))?;
    }
    writeln!(page, ".SH ENVIRONMENT")?;
    for (name, meaning) in words::ENVIRONMENT {
        writeln!(page, ".TP\n\\fB{}\\fR\n{}", roff(name), roff(&sentence(meaning)))?;
    }
    writeln!(page, ".SH FILES")?;
    for (name, meaning) in words::FILES {
        writeln!(page, ".TP\n\\fI{}\\fR\n{}", roff(name), roff(&sentence(meaning)))?;
    }
    Ok(())
}

/// Writes references to other pages.
fn see_also(page: &mut Vec<u8>, names: &[String]) -> std::io::Result<()> {
    writeln!(page, ".SH SEE ALSO")?;
    for (n, name) in names.iter().enumerate() {
        let end = if n + 1 < names.len() { "," } else { "" };
        // ssh_config is in another section.
        let section = if name == "ssh_config" { "5" } else { "1" };
        writeln!(page, ".BR {} ({section}){end}", roff(name))?;
    }
    Ok(())
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
    subcommands(command).try_for_each(|sub| section(page, sub))
}

/// Makes a sentence of a few words: a capital letter, unless a name begins it, and a full stop.
fn sentence(words: &str) -> String {
    let is_word = |first: &str| first.len() > 1 && first.chars().all(|c| c.is_ascii_lowercase() || c == ',');
    let first = words.split(' ').next().unwrap_or_default();
    let is_name = ["ssh", "kube", "true"].contains(&first);
    let mut rest = words.chars();
    let begun = match rest.next() {
        Some(c) if (is_word(first) || first == "a") && !is_name => c.to_uppercase().chain(rest).collect(),
        _ => words.to_owned(),
    };
    if begun.ends_with('.') { begun } else { begun + "." }
}

/// Escapes text for roff.
fn roff(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-").replace('\'', "\\(aq").replace('~', "\\(ti");
    // A line that begins with a full stop would be a request.
    if text.starts_with('.') { format!("\\&{text}") } else { text }
}

/// Sets what stands between backticks in bold, and leaves out what clap_mangen repeats and what mandoc warns of.
fn set(page: Vec<u8>) -> String {
    /// The apostrophe of each roff program, which clap_mangen defines for every section.
    const APOSTROPHE: &str = ".ie \\n(.g .ds Aq \\(aq\n.el .ds Aq '\n";
    let page = String::from_utf8_lossy(&page).replace(APOSTROPHE, "").replace(".br\n\n.br\n", ".sp\n");
    let line = |line: &str| {
        let line = line.trim_end().replace(" \\fR]", "\\fR]");
        let parts: Vec<&str> = line.split('`').collect();
        if line.starts_with('.') || parts.len().is_multiple_of(2) {
            return line + "\n";
        }
        let part = |(n, part): (usize, &&str)| if n % 2 == 1 { format!("\\fB{part}\\fR") } else { (*part).to_owned() };
        parts.iter().enumerate().map(part).collect::<String>() + "\n"
    };
    APOSTROPHE.to_owned() + &page.lines().map(line).collect::<String>()
}

#[cfg(test)]
mod tests {
    use super::{sentence, set};

    #[test]
    fn a_few_words_become_a_sentence() {
        assert_eq!(sentence("the settings; optional"), "The settings; optional.");
        assert_eq!(sentence("config-ssh adds one line"), "config-ssh adds one line.");
        assert_eq!(sentence("ssh into a playground"), "ssh into a playground.");
        assert_eq!(sentence("a defect"), "A defect.");
        assert_eq!(sentence("Done."), "Done.");
    }

    #[test]
    fn commands_within_text_are_bold() {
        let text = |page: &str| set(page.into()).lines().skip(2).collect::<Vec<_>>().join("\n");
        assert_eq!(text("run `a` or `b` \n.SH `x`\n"), "run \\fBa\\fR or \\fBb\\fR\n.SH `x`");
        assert_eq!(text("one ` alone"), "one ` alone");
    }
}
