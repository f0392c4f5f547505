//! Parses the command line, builds the runtime, and turns an error into a message and an exit code.

use std::process::ExitCode;

use clap::{ColorChoice, CommandFactory};
use labctl_ssh_proxy::{
    app::App,
    cli::{self, Cli},
    commands::completions,
    connect,
    error::{Error, Kind, Result},
    hold,
    os::{self, ended_by_signal},
    platform::Platform,
    records::journal,
    ui::{
        color::{self, Color},
        input, notice, out,
    },
};

fn main() -> ExitCode {
    os::on_a_large_stack(begin_and_end)
}

fn begin_and_end() -> ExitCode {
    os::survive_file_size_limit();
    match completions::answer(Cli::command) {
        Ok(false) => {}
        Ok(true) => return ExitCode::SUCCESS,
        Err(e) => e.exit(),
    }
    let json = cli::wants_json(std::env::args_os());
    let color = cli::color(std::env::args_os());
    let cli = match cli::parse() {
        Ok(cli) => cli,
        Err(e) => return unparsed(e, json, color),
    };
    if cli.no_input {
        input::forbid();
    }
    // A connection's words may stand in another program's window.
    let color = if cli.connects_to().is_some() { Color::Never } else { color };
    color::choose(color);
    if cli.holds_credentials() {
        os::leave_no_core_dump();
    }
    // The runtime panics without them.
    if let Err(e) = os::has_room_for_files() {
        let error = Error::new(Kind::File, format!("cannot open more files: {e}"));
        return failed(
            &error.with_hint("raise the limit of open files, for example with `ulimit -n 256`"),
            json,
            color,
        );
    }
    let runtime = match runtime(&cli) {
        Ok(runtime) => runtime,
        Err(e) => return failed(&Error::new(Kind::Internal, format!("cannot start the runtime: {e}")), json, color),
    };
    let result = runtime.block_on(run(cli));
    // Does not wait for threads, because one may be blocked forever in a read.
    runtime.shutdown_background();
    match result {
        Ok(code) => {
            if json && code > 128 {
                out::failure(&Error::new(Kind::Interrupted, "a signal ended the command"));
            }
            ExitCode::from(code)
        }
        Err(error) => failed(&error, json, color),
    }
}

/// Handles a command line that clap did not parse: prints the help if it was requested or a command is missing, or else
/// the error.
fn unparsed(error: clap::Error, json: bool, color: Color) -> ExitCode {
    use clap::error::ErrorKind;
    let help = match error.kind() {
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => Some(error.render()),
        ErrorKind::MissingSubcommand => Some(cli::command().render_help()),
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => None,
        _ => {
            if json {
                let text = error.render().to_string();
                let sentence = text.lines().map(str::trim).take_while(|line| !line.is_empty()).collect::<Vec<_>>();
                let sentence = sentence.join(" ");
                let message = sentence.strip_prefix("error: ").unwrap_or(&sentence);
                out::failure(&Error::new(Kind::Usage, message).with_hint("see `labctl-ssh-proxy help`"));
            }
            None
        }
    };
    match help {
        Some(help) => {
            let help = if color.shows(&std::io::stdout()) { help.ansi().to_string() } else { help.to_string() };
            out::write(&help).map_or_else(|error| failed(&error, false, color), |()| ExitCode::SUCCESS)
        }
        None => {
            let shows =
                if error.use_stderr() { color.shows(&std::io::stderr()) } else { color.shows(&std::io::stdout()) };
            let choice = if shows { ColorChoice::Always } else { ColorChoice::Never };
            let error = error.with_cmd(&cli::command().color(choice));
            // If the stream is closed, the exit code alone must do.
            let _ = error.print();
            ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(Kind::Usage.exit_code()))
        }
    }
}

fn failed(error: &Error, json: bool, color: Color) -> ExitCode {
    if json {
        out::failure(error);
    }
    if !error.is_told() {
        notice::line(&color::error(&error.to_string(), color));
    }
    ExitCode::from(error.kind().exit_code())
}

fn runtime(cli: &Cli) -> std::io::Result<tokio::runtime::Runtime> {
    if cli.needs_threads() {
        return tokio::runtime::Builder::new_multi_thread().enable_all().build();
    }
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

async fn run(cli: Cli) -> Result<u8> {
    let app = match begin(&cli) {
        Ok(app) => app,
        // For `connect` only, because it may make streams non-blocking that other processes share.
        Err(error) if cli.connects_to().is_some() => return Err(connect::turn_away(error).await),
        Err(error) => return Err(error),
    };
    let by_itself = cli.ends_by_itself();
    let result = tokio::select! {
        // Prefer the result: ssh signals us right after its last words, which must still be passed on.
        biased;
        done = cli::run(&app, cli) => done.map_err(|error| error.on(app.platform)),
        // The usual exit code of shells for a command that a signal ended.
        signal = ended_by_signal(), if !by_itself => Ok(128 + signal),
    };
    // For the sessions that were dropped just now, by a signal too.
    hold::farewell().await;
    result
}

/// Finds the folders, reads the settings and starts the log.
fn begin(cli: &Cli) -> Result<App> {
    let platform = if cli.local { Platform::Local } else { Platform::Labs };
    let (app, unknown) = App::load(platform, cli.home.clone(), cli.opens_a_connection())?;
    for key in unknown {
        let path = app.folders.settings.display();
        notice::line(&format!("labctl-ssh-proxy: {path}: the setting `{key}` is unknown and has no effect"));
    }
    let connection = cli.connects_to().map(journal::name);
    let options = journal::Options { verbose: cli.verbose, file: cli.log_file.clone() };
    journal::begin(&app.folders, app.settings.log_level, &options, connection.as_deref())?;
    Ok(app)
}
