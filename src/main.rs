//! Parses the command line, builds the runtime, and turns an error into a message and an exit code.

use std::process::ExitCode;

use clap::{CommandFactory, Parser};
use labctl_ssh_proxy::{
    app::App,
    cli::{self, Cli, Command},
    commands::{
        account, completions,
        config::{self, config},
        doctor::{self, doctor},
        forward::{self, Forward, saved, spec::Side},
        kube,
        man::man,
        open::{self, open},
        playgrounds::{self, Start},
        ssh::{self, ssh},
        uninstall::{self, uninstall},
        visit::Visit,
        watch::watch,
    },
    connect::{self, client::Client, connect, early::Passed},
    error::{Error, Kind, Result},
    os::{self, ended_by_signal},
    platform::Platform,
    records::journal,
    ui::notice,
};

fn main() -> ExitCode {
    match completions::answer(Cli::command) {
        Ok(false) => {}
        Ok(true) => return ExitCode::SUCCESS,
        Err(e) => e.exit(),
    }
    let cli = Cli::parse();
    // Those that run nothing of the user's, who may want the dumps of that.
    if matches!(
        cli.command,
        Command::Connect { .. }
            | Command::Login { .. }
            | Command::Logout
            | Command::Whoami { .. }
            | Command::List { .. }
    ) {
        os::leave_no_core_dump();
    }
    let runtime = match runtime(&cli.command) {
        Ok(runtime) => runtime,
        Err(e) => return failed(&Error::new(Kind::Internal, format!("cannot start the runtime: {e}"))),
    };
    let result = runtime.block_on(run(cli));
    // A thread may be parked in a read that never ends; nobody waits for it.
    runtime.shutdown_background();
    match result {
        Ok(code) => ExitCode::from(code),
        Err(error) => failed(&error),
    }
}

fn failed(error: &Error) -> ExitCode {
    if !error.is_told() {
        notice::line(&error.to_string());
    }
    ExitCode::from(error.kind().exit_code())
}

/// A connection is one future and needs one thread; the embedded platform serves many.
fn runtime(command: &Command) -> std::io::Result<tokio::runtime::Runtime> {
    #[cfg(unix)]
    if matches!(command, Command::Local(_)) {
        return tokio::runtime::Builder::new_multi_thread().enable_all().build();
    }
    let _ = command;
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

async fn run(cli: Cli) -> Result<u8> {
    let app = match App::load(if cli.local { Platform::Local } else { Platform::Labs }, cli.home) {
        Ok(app) => app,
        Err(error) => return Err(turned_away(&cli.command, error).await),
    };
    let connection = match &cli.command {
        Command::Connect { host, .. } => Some(journal::name(host)),
        _ => None,
    };
    let options = journal::Options { verbose: cli.verbose, file: cli.log_file };
    if let Err(error) = journal::begin(&app.folders, app.settings.log_level, &options, connection.as_deref()) {
        return Err(turned_away(&cli.command, error).await);
    }
    until_signalled(&app, cli.command).await.map_err(|error| error.on(app.platform))
}

/// A signal ends a command with the exit code that shells give for it.
async fn until_signalled(app: &App, command: Command) -> Result<u8> {
    match command {
        // These end their work by themselves, with something to clean up.
        #[cfg(unix)]
        Command::Local(command) => labctl_ssh_proxy::commands::local::command(app, command).await.map(|()| 0),
        #[cfg(unix)]
        Command::Demo { command } => labctl_ssh_proxy::commands::demo::run(command).await,
        Command::PortForward(request) => port_forward(app, request).await,
        Command::Kube(request) => kube::run(app, &request).await,
        command => tokio::select! {
            // ssh signals us right after its last words, and they are to be passed on.
            biased;
            done = perform(app, command) => done,
            signal = ended_by_signal() => Ok(128 + signal),
        },
    }
}

/// A client whose connection cannot even begin hears of it too.
async fn turned_away(command: &Command, error: Error) -> Error {
    // For no other command: it would leave streams that others share without blocking.
    if matches!(command, Command::Connect { .. })
        && let Ok(mut client) = Client::on_stdio()
    {
        return connect::refuse(&mut client, error, Passed::Nothing).await;
    }
    error
}

/// The commands that end with another program's exit code, and all others.
async fn perform(app: &App, command: Command) -> Result<u8> {
    match command {
        Command::Ssh { consent, host, arguments, command } => {
            ssh(app, &ssh::Request { visit: Visit { host, consent, wait_init: false }, arguments, command }).await
        }
        Command::Start { name, title, no_wait, no_wait_init, json, consent, ssh: into, open: ide } => {
            let request = Start { name, title, no_wait, no_wait_init, json, consent };
            let play = playgrounds::start(app, &request).await?;
            let visit = Visit { host: play.id, consent, wait_init: false };
            if into {
                return ssh(app, &ssh::Request { visit, ..ssh::Request::default() }).await;
            }
            match ide {
                Some(ide) => open(app, &open::Request { ide, visit, ..open::Request::default() }).await.map(|()| 0),
                None => Ok(0),
            }
        }
        Command::Doctor { host, fix, report, json } => doctor(app, &doctor::Request { host, fix, report, json }).await,
        command => act(app, command).await.map(|()| 0),
    }
}

async fn act(app: &App, command: Command) -> Result<()> {
    match command {
        Command::Connect { user, wake, host } => {
            let mut client = Client::on_stdio()
                .map_err(|e| Error::new(Kind::Usage, format!("standard input or output is closed: {e}")))?;
            connect(app, &connect::Request { host, user, wake }, &mut client).await
        }
        Command::ConfigSsh(request) => config(app, &request).await,
        Command::ConfigJetbrains(request) => config::jetbrains(app, request).await,
        Command::ConfigZed(request) => config::zed(app, request).await,
        Command::List { all, watch: true, json, figures } => watch(app, all, json, figures).await,
        Command::List { all, watch: false, json, figures: _ } => playgrounds::list(app, all, json).await,
        Command::Catalog { json } => playgrounds::catalog(app, json).await,
        Command::Open { ide, host, path, repos, forward_agent, print, no_wait_init, yes, consent } => {
            let visit = Visit { host, consent, wait_init: !no_wait_init };
            open(app, &open::Request { ide, visit, path, repos, forward_agent, print, yes }).await
        }
        Command::Stop(one) => playgrounds::stop(app, &one.playground).await,
        Command::Restart { one, no_wait_init } => playgrounds::restart(app, &one.playground, !no_wait_init).await,
        Command::Wait { one, init, timeout } => playgrounds::wait(app, &one.playground, init, timeout).await,
        Command::Tasks { one, json } => playgrounds::tasks(app, &one.playground, json).await,
        Command::Destroy { one, yes } => playgrounds::destroy(app, &one.playground, yes).await,
        Command::Extend { one, minutes } => playgrounds::extend(app, &one.playground, minutes).await,
        Command::Rename { one, title } => playgrounds::rename(app, &one.playground, &title).await,
        Command::Persist(one) => playgrounds::persist(app, &one.playground).await,
        Command::Login { stdin, from_env } => {
            let from = match (stdin, from_env) {
                (true, _) => account::From::Stdin,
                (false, true) => account::From::Environment,
                (false, false) => account::From::Browser,
            };
            account::login(app, from).await
        }
        Command::Logout => account::logout(app).await,
        Command::Whoami { json } => account::whoami(app, json).await,
        Command::Completions { shell } => completions::script(&shell),
        Command::Man => man(),
        Command::Uninstall { dry_run, yes, local_playgrounds } => {
            uninstall(app, &uninstall::Request { dry_run, yes, local_playgrounds }).await
        }
        Command::Ssh { .. }
        | Command::Start { .. }
        | Command::Doctor { .. }
        | Command::PortForward(_)
        | Command::Kube(_) => Err(Error::new(Kind::Internal, "this command runs elsewhere")),
        #[cfg(unix)]
        Command::Local(_) | Command::Demo { .. } => Err(Error::new(Kind::Internal, "this command runs elsewhere")),
    }
}

async fn port_forward(app: &App, request: cli::PortForward) -> Result<u8> {
    if request.list || !request.remove.is_empty() {
        let done = async {
            let labs = app.labs().await?;
            let (play, _) = forward::find_play(&labs, &request.playground, None).await?;
            if request.list {
                return saved::list(&labs, &play, request.json).await;
            }
            saved::remove(&labs, &play, &request.remove).await
        };
        return tokio::select! {
            done = done => done.map(|()| 0),
            signal = ended_by_signal() => Ok(128 + signal),
        };
    }
    let forwards =
        |side, specs: Vec<Vec<_>>| specs.into_iter().flatten().map(move |spec| Forward { side, spec, machine: None });
    let request = forward::Request {
        playground: request.playground,
        machine: request.machine,
        forwards: forwards(Side::Local, request.local).chain(forwards(Side::Remote, request.remote)).collect(),
        restore: request.restore,
        save: request.save,
        over_ssh: request.over_ssh,
        udp_idle: Some(request.udp_idle),
        json: request.json,
    };
    forward::run(app, &request).await
}
