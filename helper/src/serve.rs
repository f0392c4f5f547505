//! The SSH server in a container, on standard input and output.
//!
//! `enter` has the container's runtime start this program in it, as one of the container's own processes: with its
//! confinement, its user and its environment. There is no listener: the stream is the permission.
//!
//! - `settings`: the words from `enter`.
//! - `descriptors`: the files that this process was given, each accounted for.
//! - `stream`: standard input and output as one stream.
//! - `person`: the user inside: home, shell, environment.
//! - `holder`: the process that has the tools.
//! - `ending`: the end of all that was started, and of this process.
//!
//! # Not dumpable
//! Other processes of the same user in the container can neither read this process's memory, where the host key and a
//! forwarded agent's answers are, nor its descriptors, unless the container was given CAP_SYS_PTRACE. They can still
//! kill it. The kernel hides what runs from a file that its user cannot read, and so the program in memory has no
//! permission to be read. Root can read it all the same, by CAP_DAC_OVERRIDE: there it takes the first act,
//! `prctl(PR_SET_DUMPABLE, 0)`, and until then another process of root can look in. What it starts is dumpable again,
//! because exec resets that. Nothing here needs another process to look into `/proc/<pid>/` of this one.
//!
//! # Without a shell
//! A command is split into words by the shell's rules of quoting, and the program runs itself. Nothing is expanded, and
//! what only a shell can do (`&&`, `*`, `$X`) is refused in words. Exit codes are a shell's: 127 for a missing program,
//! 126 for one that cannot be run, 2 for a line that is not understood.

mod descriptors;
mod ending;
mod holder;
mod person;
mod settings;
mod stream;

use std::{
    fs::File,
    io::{self, Read, Write},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use russh::keys::{PrivateKey, ssh_key::private::Ed25519Keypair};
use rustix::{
    event::{PollFd, PollFlags, poll},
    process::DumpableBehavior,
};
use tokio::sync::watch;

use crate::server::{self, Accounts, Admission, Host, processes::Processes};

use holder::Holder;
pub use holder::hold;
use person::Person;
pub use settings::Settings;

/// The time that the settings may take to arrive. They are written before this process starts.
const SETTINGS_WAIT: Duration = Duration::from_secs(5);

/// The longest settings, in bytes: a pipe's room.
const MAX_SETTINGS: usize = 64 * 1024;

/// The largest number of threads for files and names. Each serves one request at a time.
const MAX_THREADS: usize = 32;

/// The time for which an idle thread is kept. The connection ends before.
const KEEP_THREADS: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// Serves one connection, and ends all that was started in it. The result is the process's.
pub fn run() -> ExitCode {
    match start() {
        Ok(()) => ExitCode::SUCCESS,
        Err(words) => {
            say(&words);
            ExitCode::FAILURE
        }
    }
}

/// One line for the client, who reads the last one when the connection ends early.
fn say(words: &str) {
    // Without standard error there is no other place for it.
    let _ = writeln!(io::stderr(), "{words}");
}

fn start() -> Result<(), String> {
    let failed = |doing: &'static str| move |e: io::Error| format!("cannot {doing} in the container: {e}");
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .map_err(|e| failed("hide the memory of the server")(e.into()))?;
    // Its name in lists of processes would be "3", the name of the descriptor.
    let _ = rustix::thread::set_name(c"labctl-ssh-prox");
    let given = descriptors::check()?;
    let settings = settings(given.settings).map_err(failed("read the server's settings"))?;
    let holder = match (&settings.tools, given.tools) {
        (Some(folder), Some(tools)) => {
            // Without them, all else works.
            Holder::start(&given.program, tools, folder).map_err(|e| format!("they cannot be kept: {e}"))
        }
        (None, None) => Err(settings.lacking.clone()),
        (Some(_), None) => return Err("the server was not given its tools".to_owned()),
        (None, Some(_)) => return Err("the server was given a file that it does not know, descriptor 5".to_owned()),
    };
    drop(given.program);
    let key = host_key(&settings.host_key).ok_or("the host key is not one")?;
    let _ = log::set_logger(&Log).map(|()| log::set_max_level(log::LevelFilter::Warn));
    let tools = holder.as_ref().map(|holder| holder.programs.clone()).map_err(String::clone);
    let directory = settings.directory.as_deref().map(Path::new);
    let person = Person::of(&settings.user, directory, tools.as_deref().ok());
    let host = host(&settings.container, person, tools);
    drop(settings);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .max_blocking_threads(MAX_THREADS)
        .thread_keep_alive(KEEP_THREADS)
        .enable_all()
        .build()
        .map_err(failed("start the server"))?;
    ending::watch_client().map_err(failed("start a thread"))?;
    // A first thread for files, which is kept. Without any, tokio would end this process where it finds no room for one.
    drop(runtime.spawn_blocking(|| {}));
    let served = runtime.block_on(serve(Arc::new(host), key)).map_err(failed("serve"));
    // A thread may hang in a file system for ever.
    runtime.shutdown_background();
    drop(holder);
    served
}

fn host(container: &str, person: Person, tools: Result<PathBuf, String>) -> Host {
    let name = container.chars().filter(|c| !c.is_control()).take(100).collect::<String>();
    Host {
        name: format!("container {name}"),
        admission: Admission::All,
        home: person.home,
        start: person.start,
        shells: person.shells,
        tools,
        accounts: Accounts::Container,
        socket_folders: person.socket_folders,
        environment: person.environment,
        processes: Processes::unmarked(),
        farewell: "the connection into the container is being ended on its machine",
    }
}

/// Serves the connection on standard input and output until it ends, its other end has gone, or a signal ends it.
async fn serve(host: Arc<Host>, key: PrivateKey) -> io::Result<()> {
    let signals = ending::Signals::catch()?;
    let orphans = ending::adopt_orphans(&host)?;
    let stream = stream::Stdio::open()?;
    let closed = stream.closed()?;
    let (stop, stopped) = watch::channel(false);
    let config = Arc::new(server::config(&host, vec![key]));
    let mut serving = std::pin::pin!(server::serve(&host, config, stream, stopped));
    let over = async {
        tokio::select! {
            () = signals.any() => {}
            () = closed.wait() => {}
        }
    };
    let ended = tokio::select! {
        ended = &mut serving => Some(ended),
        () = over => None,
    };
    ending::must_end_within(ending::DEADLINE);
    stop.send_replace(true);
    let goodbye = async {
        if ended.is_none() {
            drop(serving.await)
        }
    };
    tokio::join!(goodbye, ending::hang_up(&host.processes));
    drop(orphans);
    match ended {
        // The client has gone before it had said much.
        Some(Err(server::Failure::Ssh(russh::Error::Disconnect | russh::Error::HUP))) => Ok(()),
        Some(Err(failure)) => Err(io::Error::other(failure.to_string())),
        Some(Ok(())) | None => Ok(()),
    }
}

/// The settings from the pipe, up to its end.
fn settings(pipe: File) -> io::Result<Settings> {
    let late = || io::Error::new(io::ErrorKind::TimedOut, "they did not arrive");
    let begun = Instant::now();
    let mut text = Vec::new();
    loop {
        let left = SETTINGS_WAIT.checked_sub(begun.elapsed()).ok_or_else(late)?;
        let mut ready = [PollFd::new(&pipe, PollFlags::IN)];
        let timeout = rustix::event::Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
        if poll(&mut ready, Some(&timeout))? == 0 {
            return Err(late());
        }
        let mut part = [0; 4096];
        let n = (&pipe).read(&mut part)?;
        if n == 0 {
            return Ok(serde_json::from_slice(&text)?);
        }
        text.extend_from_slice(&part[..n]);
        if text.len() > MAX_SETTINGS {
            return Err(io::Error::other("they are too long"));
        }
    }
}

/// The host key of a seed in hexadecimal digits.
fn host_key(seed: &str) -> Option<PrivateKey> {
    let digits = seed.as_bytes();
    let mut bytes = [0; 32];
    if digits.len() != 2 * bytes.len() || !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(PrivateKey::from(Ed25519Keypair::from_seed(&bytes)))
}

/// Warnings go to standard error, a pipe that `enter` reads all the time.
struct Log;

impl log::Log for Log {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        metadata.level() <= log::Level::Warn && metadata.target().starts_with("helper")
    }

    fn log(&self, record: &log::Record<'_>) {
        if self.enabled(record.metadata()) {
            say(&record.args().to_string());
        }
    }

    fn flush(&self) {}
}

#[cfg(test)]
mod tests {
    use super::host_key;

    #[test]
    fn a_host_key_is_that_of_its_seed() {
        let key = host_key(&"9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60".to_uppercase()).unwrap();
        // RFC 8032, 7.1, test 1.
        let public = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
        let own = key.public_key().key_data().ed25519().unwrap().0;
        assert_eq!(own.iter().map(|byte| format!("{byte:02x}")).collect::<String>(), public);
        for wrong in ["", "9d", &"+1".repeat(32), &"é".repeat(32), &"0".repeat(66)] {
            assert!(host_key(wrong).is_none(), "{wrong}");
        }
    }
}
