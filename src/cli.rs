//! The command line: one enum of each command's arguments, and one match over it.

use std::{ffi::OsString, fmt::Write, path::PathBuf};

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum, builder::FalseyValueParser};

#[cfg(unix)]
use crate::commands::{demo, local};
use crate::{
    app::App,
    commands::{
        account, completions, config, containers, debug, doctor, forward, kube, listen, logs, machine, man, open, ping,
        playgrounds::{
            catalog, destroy, extend, keep, lifetime, list, persist, rename, restart, start, stop, tasks, wait,
        },
        pods,
        ports::{self, expose, unexpose},
        region, ssh, uninstall,
    },
    connect,
    error::Result,
    files,
    settings::{LOCAL_VARIABLE, NO_INPUT_VARIABLE},
    ui::{color::Color, notice, out},
};

/// The display order of the options of every command: after the command's own.
const LAST: usize = 900;
/// Their heading in the help.
const GLOBAL: &str = "Global options";

/// Makes `ssh playground-<id>` just work, from every IDE and from plain ssh.
#[derive(Debug, Parser)]
#[command(name = "labctl-ssh-proxy", version, about, max_term_width = 100)]
#[cfg_attr(unix, command(after_help = "Exit codes, settings and files: `labctl-ssh-proxy man | man -l -`"))]
#[cfg_attr(
    not(unix),
    command(
        after_help = "Exit codes, settings and files: `labctl-ssh-proxy man`\n\nThe demo and --local need Linux or macOS: on \
                      Windows, run them in WSL, or begin with `labctl-ssh-proxy login`."
    )
)]
pub struct Cli {
    /// Use the embedded platform on this computer instead of the real one.
    #[arg(long, global = true, env = LOCAL_VARIABLE, value_parser = FalseyValueParser::new(), hide_env_values = true)]
    #[arg(display_order = LAST, help_heading = GLOBAL)]
    pub local: bool,
    /// The folder for everything this program writes. If it was moved, the entries of the ssh configuration pass it,
    /// because editors pass no environment.
    #[arg(long, global = true, value_name = "DIR", hide = true)]
    pub home: Option<PathBuf>,
    /// Ask nothing. What would be a question is an error that names the option which answers it.
    #[arg(long, global = true, env = NO_INPUT_VARIABLE, value_parser = FalseyValueParser::new(), hide_env_values = true)]
    #[arg(display_order = LAST + 1, help_heading = GLOBAL)]
    pub no_input: bool,
    /// Use colour: always, never, or on a terminal unless NO_COLOR is set (auto).
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto", hide_possible_values = true)]
    #[arg(display_order = LAST + 2, help_heading = GLOBAL)]
    pub color: Color,
    /// Log more: -v for details, -vv for everything. The log never contains secrets.
    #[arg(short, long, global = true, action = clap::ArgAction::Count, display_order = LAST + 3, help_heading = GLOBAL)]
    pub verbose: u8,
    /// Write the log to this file.
    #[arg(long, global = true, value_name = "FILE", display_order = LAST + 4, help_heading = GLOBAL)]
    pub log_file: Option<PathBuf>,
    /// The command.
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Login(account::Login),
    ConfigSsh(config::ConfigSsh),
    ConfigJetbrains(config::ConfigJetbrains),
    ConfigZed(config::ConfigZed),
    Doctor(doctor::Args),
    Catalog(catalog::Args),
    Start(start::Args),
    #[command(visible_alias = "ls")]
    List(list::Args),
    Ssh(ssh::Args),
    Open(open::Args),
    Debug(debug::Args),
    PortForward(forward::Args),
    Listen(listen::Args),
    Kube(kube::Args),
    Stop(stop::Args),
    Restart(restart::Args),
    Extend(extend::Args),
    Lifetime(lifetime::Args),
    Keep(keep::Args),
    #[command(subcommand)]
    Machine(machine::Machine),
    Containers(containers::Args),
    Pods(pods::Args),
    Logs(logs::Args),
    Ping(ping::Args),
    Ports(ports::Args),
    Expose(expose::Args),
    Unexpose(unexpose::Args),
    Persist(persist::Args),
    Rename(rename::Args),
    #[command(visible_alias = "rm")]
    Destroy(destroy::Args),
    Wait(wait::Args),
    Tasks(tasks::Args),
    Region(region::Args),
    Whoami(account::Whoami),
    Logout(account::Logout),
    #[command(alias = "completion")]
    Completions(completions::Args),
    Man(man::Args),
    /// Print the version.
    Version,
    Uninstall(uninstall::Args),
    #[cfg(unix)]
    Demo(demo::Args),
    #[cfg(unix)]
    #[command(subcommand)]
    Local(local::Local),
    // ssh runs it, and people do not.
    #[command(hide = true)]
    Connect(connect::Args),
}

/// The commands of the help, in groups: their names, with other names that they have, and a few words for each.
const GROUPS: [(&str, &[(&str, &str)]); 4] = [
    (
        "Set up",
        &[
            ("login", "Log in to the platform"),
            ("config-ssh", "Add your playgrounds to your ssh configuration"),
            ("config-jetbrains", "Add them to JetBrains products"),
            ("config-zed", "Add them to Zed"),
            ("doctor", "Check everything between ssh and a machine"),
            ("demo", "ssh into a playground on this computer, to see it work"),
        ],
    ),
    (
        "Start and connect",
        &[
            ("catalog", "List the playgrounds that you can start"),
            ("start", "Start a playground, and wait until it is ready"),
            ("list, ls", "List your playgrounds"),
            ("ssh", "ssh into a playground"),
            ("open", "Open a playground in an editor"),
            ("debug", "Open a shell in a container, with tools that it may lack"),
            ("port-forward", "Forward ports between this computer and a playground"),
            ("listen", "Listen here for programs that know no ProxyCommand"),
            ("kube", "Use kubectl here with a playground's Kubernetes API"),
        ],
    ),
    (
        "Manage playgrounds",
        &[
            ("stop", "Stop a playground; it keeps its disks"),
            ("restart", "Stop a playground and start it again"),
            ("extend", "Let a playground run longer"),
            ("lifetime", "Show or set a playground's whole time"),
            ("keep", "Extend a playground while it is used, or stop doing so"),
            ("machine", "Reboot, stop or restart one machine, read its console"),
            ("containers", "List a playground's containers, and how to ssh there"),
            ("pods", "List a cluster's pods, their containers, and how to ssh there"),
            ("logs", "Print this program's log, or that of a pod's container"),
            ("ping", "Measure the way to a machine that runs"),
            ("ports", "List what listens, is exposed, forwarded and saved"),
            ("expose", "Give a port or a web terminal an address for browsers"),
            ("unexpose", "Take that address away"),
            ("persist", "Keep a playground when its time is up"),
            ("rename", "Change a playground's title"),
            ("destroy, rm", "Erase a playground"),
            ("wait", "Wait until a playground is ready"),
            ("tasks", "List a playground's tasks"),
        ],
    ),
    (
        "Other",
        &[
            ("region", "Show or choose where new playgrounds run"),
            ("whoami", "Show who is logged in"),
            ("logout", "Log out of the platform"),
            ("local", "Manage the embedded platform, which --local uses"),
            ("completions", "Print a completion script for your shell"),
            ("man", "Print the manual page"),
            ("version", "Print the version"),
            ("uninstall", "Remove everything that this program has written"),
            ("help", "Print the help of a command"),
        ],
    ),
];

/// The name of a command in [`GROUPS`], without its other names.
fn name_of((names, _): &(&'static str, &str)) -> &'static str {
    names.split(',').next().unwrap_or(names)
}

/// The groups of the help, with the name of each command only.
fn groups() -> Vec<(&'static str, Vec<&'static str>)> {
    GROUPS.iter().map(|(heading, names)| (*heading, names.iter().map(name_of).collect())).collect()
}

/// The command line, with a help whose commands are in groups.
pub fn command() -> clap::Command {
    let command = Cli::command();
    // Some systems lack a command, and clap adds `help` only later.
    let exists = |name: &str| name == "help" || command.find_subcommand(name).is_some();
    let mut groups = String::new();
    for (heading, names) in GROUPS {
        let _ = write!(groups, "\n\n{heading}:");
        for (name, words) in names.iter().filter(|entry| exists(name_of(entry))) {
            let _ = write!(groups, "\n  {name:16}  {words}");
        }
    }
    command.help_template(format!(
        "{{about-with-newline}}\n{{usage-heading}} {{usage}}{groups}\n\nOptions:\n{{options}}{{after-help}}"
    ))
}

/// Parses the command line.
///
/// # Errors
/// clap's, which are also the help and the version.
pub fn parse() -> Result<Cli, clap::Error> {
    // Connections need no help text, so it is put together only where something is printed.
    Cli::try_parse().or_else(|_| Cli::from_arg_matches(&command().try_get_matches()?))
}

impl Cli {
    /// Returns true for a command that handles signals itself, because it has something to clean up.
    pub fn ends_by_itself(&self) -> bool {
        match self.command {
            #[cfg(unix)]
            Command::Local(_) | Command::Demo(_) => true,
            Command::PortForward(_) | Command::Listen(_) | Command::Kube(_) | Command::Ping(_) => true,
            _ => false,
        }
    }

    /// Returns true for a command that holds credentials, which must not appear in core dumps. Commands that run the
    /// user's programs are excluded, because the user may want core dumps of those.
    pub fn holds_credentials(&self) -> bool {
        matches!(
            self.command,
            Command::Connect(_)
                | Command::Login(_)
                | Command::Logout(_)
                | Command::Whoami(_)
                | Command::List(_)
                | Command::Listen(_)
                | Command::Containers(_)
        )
    }

    /// Returns true for a command that serves many connections at once. Any other is a single future and needs one
    /// thread.
    pub fn needs_threads(&self) -> bool {
        #[cfg(unix)]
        let threads = matches!(self.command, Command::Local(_));
        #[cfg(not(unix))]
        let threads = false;
        threads
    }

    /// Returns true for a command that opens a session for ssh. A setting that only a newer version knows must not keep
    /// the user out of a machine.
    pub fn opens_a_connection(&self) -> bool {
        matches!(self.command, Command::Connect(_) | Command::Ssh(_) | Command::Debug(_))
    }

    /// The host name that `connect` connects to.
    pub fn connects_to(&self) -> Option<&str> {
        match &self.command {
            Command::Connect(args) => Some(&args.host),
            _ => None,
        }
    }
}

/// Returns true for a command line that requests JSON, so that its failure is printed as JSON, even if the line itself
/// is invalid. Words after `--` are skipped because they belong to another program, like those after the host of `ssh`.
pub fn wants_json(arguments: impl Iterator<Item = OsString>) -> bool {
    const WITHOUT: [&str; 9] =
        ["connect", "ssh", "debug", "logs", "demo", "completions", "completion", "man", "version"];
    let (words, plain) = ours(arguments);
    words.iter().any(|word| word == "--json") && !plain.first().is_some_and(|i| WITHOUT.contains(&&*words[*i]))
}

/// Returns the wish for colour in a command line, even if the line itself is invalid. What follows the host of `ssh` is
/// ssh's.
pub fn color(arguments: impl Iterator<Item = OsString>) -> Color {
    let (words, plain) = ours(arguments);
    let end = plain.get(1).filter(|_| words[plain[0]] == "ssh").map_or(words.len(), |host| *host);
    let words = &words[..end];
    let value = words.iter().enumerate().find_map(|(i, word)| match word.strip_prefix("--color") {
        Some("") => words.get(i + 1).map(String::as_str),
        Some(value) => value.strip_prefix('='),
        None => None,
    });
    value.and_then(|value| Color::from_str(value, false).ok()).unwrap_or_default()
}

/// Returns the words of a command line that are ours, which are those before `--`; and the positions of those that are
/// neither options nor values of options of every command. The first of them is the command.
fn ours(arguments: impl Iterator<Item = OsString>) -> (Vec<String>, Vec<usize>) {
    let words = arguments.skip(1).map(|word| word.to_string_lossy().into_owned());
    let words: Vec<String> = words.take_while(|word| word != "--").collect();
    let is_value = |i: usize| i > 0 && matches!(&*words[i - 1], "--home" | "--log-file" | "--color" | "--in");
    let plain = (0..words.len()).filter(|i| !words[*i].starts_with('-') && !is_value(*i)).collect();
    (words, plain)
}

/// Runs a command. Returns the exit code: 0, or that of a program it ran.
///
/// # Errors
/// The command's.
pub async fn run(app: &App, cli: Cli) -> Result<u8> {
    let is_told = cli.connects_to().is_none();
    let done = dispatch(app, cli.command).await;
    // A connection has it in its log.
    if let Some(words) = files::without_locks().filter(|_| is_told) {
        notice::line(&format!(
            "labctl-ssh-proxy: {words}; it went on without a lock, so do not run other commands at the same time, or \
             set LABCTL_SSH_PROXY_HOME to a folder on a local disk"
        ));
    }
    done
}

async fn dispatch(app: &App, command: Command) -> Result<u8> {
    let success = |(): ()| 0;
    match command {
        Command::Connect(args) => connect::run(app, args).await.map(success),
        Command::ConfigSsh(args) => config::ssh(app, args).await.map(success),
        Command::ConfigJetbrains(args) => config::jetbrains(app, args).await.map(success),
        Command::ConfigZed(args) => config::zed(app, args).await.map(success),
        Command::List(args) => list::run(app, args).await.map(success),
        Command::Catalog(args) => catalog::run(app, args).await.map(success),
        Command::Start(args) => start::run(app, args).await,
        Command::Ssh(args) => ssh::run(app, args).await,
        Command::Open(args) => open::run(app, args).await.map(success),
        Command::Debug(args) => debug::run(app, args).await,
        Command::Stop(args) => stop::run(app, args).await.map(success),
        Command::Restart(args) => restart::run(app, args).await,
        Command::Wait(args) => wait::run(app, args).await.map(success),
        Command::Tasks(args) => tasks::run(app, args).await.map(success),
        Command::Destroy(args) => destroy::run(app, args).await.map(success),
        Command::Extend(args) => extend::run(app, args).await.map(success),
        Command::Containers(args) => containers::run(app, args).await.map(success),
        Command::Pods(args) => pods::run(app, args).await.map(success),
        Command::Logs(args) => logs::run(app, args).await.map(success),
        Command::Ping(args) => ping::run(app, args).await,
        Command::Ports(args) => ports::run(app, args).await.map(success),
        Command::Expose(args) => expose::run(app, args).await.map(success),
        Command::Unexpose(args) => unexpose::run(app, args).await.map(success),
        Command::Lifetime(args) => lifetime::run(app, args).await.map(success),
        Command::Keep(args) => keep::run(app, args).await.map(success),
        Command::Rename(args) => rename::run(app, args).await.map(success),
        Command::Machine(command) => machine::run(app, command).await.map(success),
        Command::Persist(args) => persist::run(app, args).await.map(success),
        Command::PortForward(args) => forward::run(app, args).await,
        Command::Listen(args) => listen::run(app, args).await,
        Command::Kube(args) => kube::run(app, args).await,
        Command::Doctor(args) => doctor::run(app, args).await,
        Command::Completions(args) => completions::run(args).map(success),
        Command::Version => {
            out::line(&format!("{} {}", env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"))).map(success)
        }
        Command::Man(args) => man::run(args, Cli::command(), &groups()).map(success),
        Command::Uninstall(args) => uninstall::run(app, args).await.map(success),
        Command::Login(args) => account::login(app, args).await.map(success),
        Command::Logout(args) => account::logout(app, args).await.map(success),
        Command::Region(args) => region::run(app, args).await.map(success),
        Command::Whoami(args) => account::whoami(app, args).await.map(success),
        #[cfg(unix)]
        Command::Local(command) => local::run(app, command).await.map(success),
        #[cfg(unix)]
        Command::Demo(args) => demo::run(args).await,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use clap::{CommandFactory, Parser};

    use super::{Cli, Color, GROUPS, man, wants_json};

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_options_of_all_commands_stand_behind_a_commands_own() {
        fn check(command: &mut clap::Command) {
            let help = command.render_long_help().to_string();
            let options = help.split_once("\nGlobal options:").unwrap().1;
            let names: Vec<&str> = options
                .lines()
                .map(str::trim_start)
                .filter(|line| line.starts_with('-'))
                .map(|line| line.split(' ').find(|word| word.starts_with("--")).unwrap_or(line))
                .collect();
            assert_eq!(
                names,
                ["--local", "--no-input", "--color", "--verbose...", "--log-file"],
                "{}",
                command.get_name()
            );
            command.get_subcommands_mut().filter(|command| command.get_name() != "help").for_each(check);
        }
        let mut command = Cli::command();
        command.build();
        check(&mut command);
    }

    #[test]
    fn every_command_is_in_one_group_of_the_help() {
        let mut named: Vec<&str> = GROUPS.iter().flat_map(|(_, names)| *names).map(|(name, _)| *name).collect();
        // The embedded platform is Unix's only.
        named.retain(|name| cfg!(unix) || !["demo", "local"].contains(name));
        named.sort_unstable();
        let command = Cli::command();
        let visible = command.get_subcommands().filter(|command| !command.is_hide_set());
        let names = visible.map(|command| {
            let aliases = command.get_visible_aliases();
            std::iter::once(command.get_name()).chain(aliases).collect::<Vec<_>>().join(", ")
        });
        let mut all: Vec<String> = names.chain(["help".to_owned()]).collect();
        all.sort_unstable();
        assert_eq!(named, all);
    }

    #[test]
    fn every_command_is_in_the_manual_page() {
        let page = man::whole(Cli::command()).unwrap();
        for command in Cli::command().get_subcommands() {
            let name = command.get_name().to_uppercase().replace('-', "\\-");
            assert!(page.contains(&format!("LABCTL\\-SSH\\-PROXY {name}\"")), "{name}");
        }
        assert!(
            page.contains(".SH EXIT STATUS") && page.contains("The platform said no") && page.contains("wake_limit")
        );
    }

    #[test]
    fn every_command_has_a_page_that_leads_to_the_others() {
        fn check(command: &clap::Command, pages: &BTreeMap<String, String>, references: &str) {
            let name = command.get_display_name().unwrap_or(command.get_name());
            let page = &pages[&format!("{name}.1")];
            let title = format!(".TH \"{}\" 1 \"2026-11-29\" ", name.to_uppercase().replace('-', "\\-"));
            assert!(page.contains(&title) && page.contains(".SH SEE ALSO\n.BR labctl\\-ssh\\-proxy"), "{page}");
            assert!(references.contains(&format!(".BR {} (1)", name.replace('-', "\\-"))), "{name}");
            let below = command.get_subcommands().filter(|sub| sub.get_name() != "help");
            below.for_each(|sub| check(sub, pages, page));
        }
        let mut program = Cli::command();
        let pages: BTreeMap<_, _> =
            man::pages(program.clone(), &super::groups(), "2026-11-29").unwrap().into_iter().collect();
        program.build();
        for command in program.get_subcommands().filter(|command| command.get_name() != "help") {
            check(command, &pages, &pages["labctl-ssh-proxy.1"]);
        }
    }

    #[test]
    fn every_example_is_a_line_that_is_understood() {
        let pages = man::pages(Cli::command(), &super::groups(), "").unwrap();
        let mut count = 0;
        for (name, page) in pages {
            let Some((_, examples)) = page.split_once(".SH EXAMPLES\n") else { continue };
            let lines = examples.lines().take_while(|line| !line.starts_with(".SH"));
            for line in lines.filter_map(|line| line.strip_prefix("\\fB")?.strip_suffix("\\fR")) {
                let line = line.replace("\\-", "-").replace("\\(ti", "/home/me");
                let read = Cli::try_parse_from(line.split(' '));
                assert!(read.is_ok(), "{name}: {line}: {read:?}");
                count += 1;
            }
        }
        assert!(count > 20, "{count}");
    }

    #[test]
    fn colour_is_asked_for_by_a_word_of_our_own() {
        let wanted = |line: &str| super::color(line.split(' ').map(Into::into));
        for always in
            ["x --color always list", "x list --color=always --wrong", "x --color always ssh host --color never"]
        {
            assert_eq!(wanted(always), Color::Always, "{always}");
        }
        for auto in [
            "x list",
            "x ssh host --color always",
            "x ssh --consent h ls --color=always",
            "x --color loud list",
            "x kube k -- ls --color=always",
            "x list --color",
        ] {
            assert_eq!(wanted(auto), Color::Auto, "{auto}");
        }
    }

    #[test]
    fn json_is_asked_for_by_a_word_of_our_own() {
        let wanted = |line: &str| wants_json(line.split(' ').map(Into::into));
        for yes in ["--local list --json", "stop --json --wrong", "--home ssh start demo --json", "rename x ssh --json"]
        {
            assert!(wanted(&format!("labctl-ssh-proxy {yes}")), "{yes}");
        }
        for no in ["labctl-ssh-proxy list", "labctl-ssh-proxy ssh x jq --json", "labctl-ssh-proxy kube x -- get --json"]
        {
            assert!(!wanted(no), "{no}");
        }
    }

    #[test]
    fn every_command_speaks_json_but_those_that_hand_standard_output_on() {
        let has_json = |command: &clap::Command| command.get_arguments().any(|arg| arg.get_id() == "json");
        for command in Cli::command().get_subcommands() {
            let name = command.get_name();
            let line = [name, "--json"].into_iter().map(Into::into);
            let wants = wants_json(std::iter::once("labctl-ssh-proxy".into()).chain(line));
            match command.has_subcommands() {
                true => assert!(command.get_subcommands().all(has_json) && wants),
                false => assert_eq!(has_json(command), wants, "{name}"),
            }
        }
    }
}
