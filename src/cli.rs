//! The command line, and nothing else.

#[cfg(unix)]
use std::net::SocketAddr;
use std::{ffi::OsString, path::PathBuf, time::Duration};

#[cfg(unix)]
use clap::ValueEnum;
use clap::{Args, Parser, Subcommand, builder::FalseyValueParser};

use clap_complete::{ArgValueCandidates, CompletionCandidate};

use crate::{
    commands::{
        candidates, completions,
        forward::{
            saved::Which,
            spec::{Side, Spec},
        },
        open::Repo,
    },
    settings::{LOCAL_VARIABLE, WakePolicy},
};

/// Where the options that every command has stand in its help: after its own.
const LAST: usize = 900;

/// Makes `ssh playground-<id>` simply work, from every IDE and from plain ssh.
#[derive(Debug, Parser)]
#[command(name = "labctl-ssh-proxy", version, about, max_term_width = 100)]
#[command(after_help = "Exit codes and settings: see the README.")]
pub struct Cli {
    /// Use the embedded platform on this machine instead of the real one.
    #[arg(long, global = true, env = LOCAL_VARIABLE, value_parser = FalseyValueParser::new(), hide_env_values = true)]
    #[arg(display_order = LAST)]
    pub local: bool,
    /// The folder of everything this program writes. Entries of the ssh configuration carry it when it was moved, since
    /// editors pass no environment.
    #[arg(long, global = true, value_name = "DIR", hide = true)]
    pub home: Option<PathBuf>,
    /// Say more: -v what happens, -vv everything. The log never holds secrets.
    #[arg(short, long, global = true, action = clap::ArgAction::Count, display_order = LAST + 1)]
    pub verbose: u8,
    /// Log to this file.
    #[arg(long, global = true, value_name = "FILE", display_order = LAST + 2)]
    pub log_file: Option<PathBuf>,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Connect standard input and output to a playground's SSH endpoint: ssh's ProxyCommand.
    Connect {
        /// The user that ssh logs in as; ssh fills in %r.
        // Whatever ssh fills in is a user name, and refused as one when it looks like an option.
        #[arg(long, value_name = "USER", allow_hyphen_values = true)]
        user: Option<String>,
        /// When to wake a stopped playground, for this connection.
        #[arg(long, value_name = "POLICY")]
        wake: Option<WakePolicy>,
        /// The host name: `playground-<id>`, `playground-<name>`, or either with `.<machine>`.
        host: String,
    },
    /// Write the playgrounds into your ssh configuration, or take them out again.
    ConfigSsh(ConfigSsh),
    /// Add the playgrounds to the ssh configurations of JetBrains' products, or take them out again.
    ConfigJetbrains(ConfigJetbrains),
    /// Add the playgrounds to Zed's SSH servers, or take them out again.
    ConfigZed(ConfigZed),
    /// List your playgrounds.
    List {
        /// Also those that failed or were destroyed.
        #[arg(long)]
        all: bool,
        /// Go on showing them as they change: a table that is drawn anew, or with --json a line for each change.
        #[arg(long)]
        watch: bool,
        /// With --watch --json: also when only the figures of connections have moved.
        #[arg(long, requires = "watch", requires = "json")]
        figures: bool,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// List what can be started.
    Catalog {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Start a playground from the catalogue, or a stopped one again, and wait until it can be used.
    ///
    /// That is when its machines are ready and the tasks that prepare it are done. A task that fails is named and blocks
    /// nothing. When its time is up, the platform erases a playground, unless `persist` keeps it.
    Start {
        /// A catalogue name, or the id, host name or title of a stopped playground.
        #[arg(add = ArgValueCandidates::new(candidates::startable))]
        name: String,
        /// What to call it.
        #[arg(long)]
        title: Option<String>,
        /// Do not wait until it is ready.
        #[arg(long)]
        no_wait: bool,
        /// Wait until its machines are ready, and not for the tasks that prepare it.
        #[arg(long)]
        no_wait_init: bool,
        /// Print JSON.
        #[arg(long)]
        json: bool,
        /// You trust the author of a playground that is not the platform's.
        #[arg(long)]
        consent: bool,
        /// Then ssh into it.
        #[arg(long, conflicts_with_all = ["no_wait", "json"])]
        ssh: bool,
        /// Then open it in this editor; see `open`.
        #[arg(long, value_name = "IDE", conflicts_with_all = ["no_wait", "json", "ssh"])]
        #[arg(add = ArgValueCandidates::new(candidates::editors))]
        open: Option<String>,
    },
    /// ssh into a playground. It is woken, with progress; then this becomes the system's ssh.
    ///
    /// Works without config-ssh, too. What follows HOST is for ssh: its options, such as `-L 8080:localhost:80 -N` or
    /// `-A`, and a command. What follows `--` is a command even if it begins with a hyphen.
    Ssh {
        /// You trust the author of a playground that is not the platform's.
        #[arg(long)]
        consent: bool,
        /// [USER@]HOST, or the id or title of a playground.
        #[arg(add = ArgValueCandidates::new(candidates::hosts))]
        host: String,
        /// Options for ssh, or a command.
        #[arg(allow_hyphen_values = true)]
        arguments: Vec<OsString>,
        /// The command to run there.
        #[arg(last = true)]
        command: Vec<OsString>,
    },
    /// Open a playground in an editor. It is woken first, with progress, so that no editor loses its patience.
    ///
    /// Editors: code, code-insiders, codium, cursor, windsurf, antigravity, zed, gateway, and through Gateway idea,
    /// pycharm, goland, webstorm, clion, rider, phpstorm, rubymine, rustrover.
    Open {
        /// The editor.
        #[arg(add = ArgValueCandidates::new(candidates::editors))]
        ide: String,
        /// [USER@]HOST, or the id or title of a playground.
        #[arg(add = ArgValueCandidates::new(candidates::hosts))]
        host: String,
        /// The folder there, absolute or below the home folder. Without it the editor decides.
        path: Option<String>,
        /// Clone this there first, into DIR or a folder of its name. Can be given several times.
        #[arg(long = "repo", value_name = "URL[:DIR]", conflicts_with = "print")]
        repos: Vec<Repo>,
        /// Let the clones use the keys in your ssh agent.
        #[arg(long)]
        forward_agent: bool,
        /// Only print the command. Nothing is woken.
        #[arg(long)]
        print: bool,
        /// Do not wait for the tasks that prepare the playground.
        #[arg(long)]
        no_wait_init: bool,
        /// Write the entries into the ssh configuration without asking, where there are none yet.
        #[arg(long)]
        yes: bool,
        /// You trust the author of a playground that is not the platform's.
        #[arg(long)]
        consent: bool,
    },
    /// Stop a playground. It keeps its disks, and connections do not wake it again.
    Stop(One),
    /// Stop and start a playground again.
    Restart {
        #[command(flatten)]
        #[expect(missing_docs, reason = "One says it")]
        one: One,
        /// Do not wait for the tasks that prepare it, if any are left.
        #[arg(long)]
        no_wait_init: bool,
    },
    /// Wait until a playground's machines are ready and its tasks are done.
    ///
    /// Exit code 14 when a task has failed.
    Wait {
        #[command(flatten)]
        #[expect(missing_docs, reason = "One says it")]
        one: One,
        /// Only for the tasks that prepare it.
        #[arg(long)]
        init: bool,
        /// Give up after this long (exit code 9).
        #[arg(long, value_name = "TIME", value_parser = duration)]
        timeout: Option<Duration>,
    },
    /// List a playground's tasks, and how far each is.
    Tasks {
        #[command(flatten)]
        #[expect(missing_docs, reason = "One says it")]
        one: One,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Erase a playground. On a terminal you are asked first.
    Destroy {
        #[command(flatten)]
        #[expect(missing_docs, reason = "One says it")]
        one: One,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
    },
    /// Let a playground run some minutes longer. At its end it is erased, unless `persist` keeps it.
    Extend {
        #[command(flatten)]
        #[expect(missing_docs, reason = "One says it")]
        one: One,
        /// How many minutes more.
        #[arg(value_parser = clap::value_parser!(u64).range(1..=100_000))]
        minutes: u64,
    },
    /// Give a playground another title.
    Rename {
        #[command(flatten)]
        #[expect(missing_docs, reason = "One says it")]
        one: One,
        /// The title.
        title: String,
    },
    /// Keep a playground at its end: it is stopped then, where it would be erased.
    Persist(One),
    /// Forward ports of a playground here, and of this computer there, until Ctrl-C (exit code 130).
    PortForward(PortForward),
    /// Reach a playground's Kubernetes API with the kubectl of this computer.
    Kube(Kube),
    /// Look at every link of the chain from ssh to a machine, and say what is wrong and what helps.
    ///
    /// Exit code 1 when something does not work.
    Doctor {
        /// The machine to try; one that runs when none is named. Nothing is woken.
        #[arg(add = ArgValueCandidates::new(candidates::hosts))]
        host: Option<String>,
        /// Mend what is ours: entries, modes of our files, damaged records, processes that are left over.
        #[arg(long)]
        fix: bool,
        /// Also write all of it into this file, for others to look at. It holds no secrets.
        #[arg(long, value_name = "FILE")]
        report: Option<PathBuf>,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Print what your shell needs to complete this program's command line.
    ///
    /// bash, in ~/.bashrc: source <(labctl-ssh-proxy completions bash). zsh likewise, in ~/.zshrc after compinit. fish:
    /// labctl-ssh-proxy completions fish > ~/.config/fish/completions/labctl-ssh-proxy.fish
    Completions {
        /// bash, elvish, fish, powershell or zsh.
        #[arg(add = ArgValueCandidates::new(|| completions::shells().into_iter().map(CompletionCandidate::new).collect()))]
        shell: String,
    },
    /// Print the manual page: `labctl-ssh-proxy man | man -l -` shows it.
    Man,
    /// Take back everything that this program has written. Your playgrounds, login and keys stay.
    ///
    /// Shows the list first. The embedded platform's playgrounds are asked about on their own.
    Uninstall {
        /// Only list what would go.
        #[arg(long)]
        dry_run: bool,
        /// Do not ask. The embedded platform's playgrounds stay.
        #[arg(long)]
        yes: bool,
        /// Erase those too, without asking.
        #[arg(long)]
        local_playgrounds: bool,
    },
    /// Log in to the platform, in the browser unless the credentials are given otherwise.
    Login {
        /// Read the session id and the access token from standard input, a line each.
        #[arg(long, conflicts_with = "from_env")]
        stdin: bool,
        /// Take them from IXIMIUZ_SESSION_ID and IXIMIUZ_ACCESS_TOKEN.
        #[arg(long)]
        from_env: bool,
    },
    /// End the session at the platform.
    Logout,
    /// Show who is logged in.
    Whoami {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// The embedded platform: playgrounds as processes on this machine. It isolates nothing.
    #[cfg(unix)]
    #[command(subcommand)]
    Local(Local),
    /// See it work: an embedded platform, a playground, and ssh into it. Leaves nothing behind.
    #[cfg(unix)]
    Demo {
        /// Run this in the playground instead of a shell.
        #[arg(last = true)]
        command: Vec<OsString>,
    },
}

/// A playground that exists.
#[derive(Debug, Args)]
pub struct One {
    /// Its id, host name, or title.
    #[arg(add = ArgValueCandidates::new(candidates::playgrounds))]
    pub playground: String,
}

/// `port-forward`.
#[derive(Debug, Args)]
#[command(
    after_help = "SPEC is what ssh takes: [BIND:]PORT:HOST:HOSTPORT, where BIND:PORT and HOST:HOSTPORT may each be \
    the path of a Unix socket. Port 0 takes a free one and says which. Without HOST the other side itself is meant: \
    -L 8080:80, -R 8080:80. -L 80 and -L HOST:80 take a free port here. Several stand with commas between them.\n\n\
    Without BIND, -L listens on the loopback interface and -R on all of the machine's addresses, so that an exposed \
    port reaches it; * means all, too. With -L, /udp after HOSTPORT forwards datagrams, for which the machine needs \
    python3 or perl."
)]
pub struct PortForward {
    /// Its id, host name, or title. It is woken if it sleeps.
    #[arg(add = ArgValueCandidates::new(candidates::playgrounds))]
    pub playground: String,
    /// The machine; the first one when nothing is said.
    #[arg(short, long, add = ArgValueCandidates::new(candidates::machines))]
    pub machine: Option<String>,
    /// Listen here and connect there.
    // The global --local has that name already.
    #[arg(id = "from_here", short = 'L', value_name = "SPEC", value_parser = |text: &str| Spec::parse_all(Side::Local, text))]
    pub local: Vec<Vec<Spec>>,
    /// Listen there and connect here.
    #[arg(short = 'R', value_name = "SPEC", value_parser = |text: &str| Spec::parse_all(Side::Remote, text))]
    pub remote: Vec<Vec<Spec>>,
    /// Carry TCP over SSH instead of a tunnel each: slower, but one side may finish sending before the other.
    #[arg(long)]
    pub over_ssh: bool,
    /// Forget a UDP peer after this long without a datagram.
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "2m")]
    pub udp_idle: Duration,
    /// Save these forwards with the playground.
    #[arg(long)]
    pub save: bool,
    /// Also open the forwards that are saved with the playground. One that fails is named, and the others go on; those to
    /// port 22, which labctl leaves behind, are ssh's.
    #[arg(long)]
    pub restore: bool,
    /// Only list the saved forwards.
    #[arg(long, conflicts_with_all = ["from_here", "remote", "save", "restore", "remove"])]
    pub list: bool,
    /// Only remove a saved forward: an index that --list shows, or all.
    #[arg(long, value_name = "INDEX", conflicts_with_all = ["from_here", "remote", "save", "restore", "json"])]
    pub remove: Vec<Which>,
    /// Print JSON: a line for each event.
    #[arg(long)]
    pub json: bool,
}

/// `kube`.
#[derive(Debug, Args)]
pub struct Kube {
    /// Its id, host name, or title. It is woken if it sleeps.
    #[arg(add = ArgValueCandidates::new(candidates::playgrounds))]
    pub playground: String,
    /// The machine with the kubeconfig; cplane-01, else the first one.
    #[arg(short, long, add = ArgValueCandidates::new(candidates::machines))]
    pub machine: Option<String>,
    /// Add a context named after the playground to your kubeconfig, and take it away at the end.
    #[arg(long)]
    pub merge: bool,
    /// Only take that context away.
    #[arg(long, conflicts_with_all = ["merge", "command", "json"])]
    pub remove: bool,
    /// Print JSON: a line for each event.
    #[arg(long, conflicts_with = "command")]
    pub json: bool,
    /// Run this with KUBECONFIG set and end with it, by its exit code; without it, run until Ctrl-C (exit code 130).
    #[arg(last = true)]
    pub command: Vec<OsString>,
}

/// `config-ssh`.
#[derive(Debug, Default, Args)]
pub struct ConfigSsh {
    /// Your ssh configuration file; ~/.ssh/config when not given.
    #[arg(long, value_name = "FILE")]
    pub ssh_config_file: Option<PathBuf>,
    /// Write the entries into that file itself, for programs that follow no Include.
    #[arg(long)]
    pub inline: bool,
    /// Only show what would change.
    #[arg(long)]
    pub dry_run: bool,
    /// Take everything back.
    #[arg(long, conflicts_with = "inline")]
    pub remove: bool,
    /// Do not ask.
    #[arg(long)]
    pub yes: bool,
}

/// `config-jetbrains`.
#[derive(Debug, Args)]
pub struct ConfigJetbrains {
    /// Only this product: Gateway, IntelliJIdea, IntelliJIdea2025.1 and so on; all when not given.
    #[arg(long, value_name = "PRODUCT")]
    pub product: Option<String>,
    /// List the products and what is in their files.
    #[arg(long, conflicts_with_all = ["remove", "dry_run", "yes"])]
    pub list: bool,
    /// With --list: print JSON.
    #[arg(long, requires = "list")]
    pub json: bool,
    #[command(flatten)]
    #[expect(missing_docs, reason = "ConfigZed says it")]
    pub edit: ConfigZed,
}

/// `config-zed`, and what all edits of editors' settings have in common.
#[derive(Debug, Args)]
pub struct ConfigZed {
    /// Only show what would change.
    #[arg(long)]
    pub dry_run: bool,
    /// Take everything back.
    #[arg(long)]
    pub remove: bool,
    /// Do not ask.
    #[arg(long)]
    pub yes: bool,
}

/// `local`.
#[cfg(unix)]
#[derive(Debug, Subcommand)]
pub enum Local {
    /// Run the embedded platform in the foreground. Any --local command starts one by itself when there is none.
    Serve {
        /// How long machines take to boot.
        #[arg(long, value_name = "TIME", value_parser = duration, default_value = "0s")]
        boot_delay: Duration,
        /// Duration of each state that a playground or a machine passes through, such as STARTING and STOPPING.
        #[arg(long, value_name = "TIME", value_parser = duration, default_value = "20ms")]
        state_delay: Duration,
        /// The SSH server of its machines.
        #[arg(long, value_enum, default_value_t = Endpoint::Builtin)]
        endpoint: Endpoint,
        /// Also listen on this loopback address, with credentials.
        #[arg(long, value_name = "ADDRESS")]
        listen: Option<SocketAddr>,
        /// What clients of that address call it, where TLS stands in front of it.
        #[arg(long, value_name = "URL", requires = "listen")]
        public_url: Option<String>,
        /// How long to hold a tunnel request while a machine boots.
        #[arg(long, value_name = "TIME", value_parser = duration, default_value = "55s")]
        hold: Duration,
        /// End after this long without a connection.
        #[arg(long, value_name = "TIME", value_parser = duration, default_value = "10m")]
        idle: Duration,
        /// Let the account have at most this many tunnels open at once, as the real platform does. Requests for more are
        /// answered with 429 (rate limited) until the connections of one have ended; 0 refuses all.
        #[arg(long, value_name = "N")]
        tunnel_limit: Option<usize>,
        /// Give every new playground another init task on its first machine, which runs COMMAND by `sh -c` once, after
        /// the first boot. May be repeated.
        #[arg(long, value_name = "NAME=COMMAND")]
        init_task: Vec<crate::local::InitTask>,
    },
    /// Show whether the embedded platform runs, and what it serves.
    Status {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Stop the embedded platform. Its playgrounds are stopped and kept.
    Stop,
}

/// The SSH server of a local machine.
#[cfg(unix)]
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Endpoint {
    /// The one inside this program.
    Builtin,
    /// The system's OpenSSH.
    Sshd,
}

/// A duration as people write it: `500ms`, `12s`, `10m`, `8h`.
fn duration(text: &str) -> Result<Duration, String> {
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let number: u64 = number.parse().map_err(|_| "write a number and ms, s, m or h, such as 12s".to_owned())?;
    match unit {
        "ms" => Ok(Duration::from_millis(number)),
        "" | "s" => Ok(Duration::from_secs(number)),
        "m" => Ok(Duration::from_secs(number.saturating_mul(60))),
        "h" => Ok(Duration::from_secs(number.saturating_mul(3600))),
        _ => Err(format!("`{unit}` is not a unit: write ms, s, m or h")),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::{Cli, duration};

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_options_of_all_commands_stand_behind_a_commands_own() {
        fn check(command: &mut clap::Command) {
            let help = command.render_long_help().to_string();
            let options = help.split_once("Options:").unwrap().1;
            let names: Vec<&str> = options
                .lines()
                .map(str::trim_start)
                .filter(|line| line.starts_with('-'))
                .map(|line| line.split(' ').find(|word| word.starts_with("--")).unwrap_or(line))
                .collect();
            let first = names.iter().position(|name| *name == "--local").unwrap();
            let last = ["--local", "--verbose...", "--log-file", "--help"];
            assert_eq!(names[first..][..4], last, "{}", command.get_name());
            assert!(names[first + 4..].iter().all(|name| *name == "--version"), "{}: {names:?}", command.get_name());
            command.get_subcommands_mut().filter(|command| command.get_name() != "help").for_each(check);
        }
        let mut command = Cli::command();
        command.build();
        check(&mut command);
    }

    #[test]
    fn durations_are_read_as_people_write_them() {
        assert_eq!(duration("12s").unwrap().as_secs(), 12);
        assert_eq!(duration("500ms").unwrap().as_millis(), 500);
        assert_eq!(duration("10m").unwrap().as_secs(), 600);
        assert!(duration("soon").is_err() && duration("1d").is_err() && duration("").is_err());
    }
}
