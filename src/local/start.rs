//! The embedded platform from outside: its status, its start on demand, and a request to end.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use hyper::{Method, Uri};
use tokio::{
    net::UnixStream,
    process::Command,
    time::{Instant, sleep},
};

use crate::{
    error::{Error, Kind, Result},
    files::{self, Lock},
    labs::{
        answer::Reply,
        http::{self, Http},
        net::Dialer,
    },
    os,
    settings::{Folders, HOME_VARIABLE},
};

use super::{
    listeners::{check_length, make_folder},
    machine,
    serve::{STATUS_PATH, STOP_PATH, Status},
};

/// The limit of an answer. A platform answers at once, or it hangs.
const ANSWER: Duration = Duration::from_secs(5);
/// The time that a platform may take to start, or to end.
const ENOUGH: Duration = Duration::from_secs(10);
/// The interval of attempts to connect, because no event reports that a socket begins or ceases to answer.
const AGAIN: Duration = Duration::from_millis(20);
/// The largest log. A larger one is set aside when the next platform starts.
const MAX_LOG: u64 = 256 * 1024;

/// The running platform's report about itself; `None` when there is none.
///
/// # Errors
/// Fails when something answers on the socket, but not as a platform.
pub async fn status(folders: &Folders) -> Result<Option<Status>> {
    let Some(reply) = ask(folders, Method::GET, STATUS_PATH).await? else { return Ok(None) };
    let status = serde_json::from_slice(&reply.body).map_err(|e| {
        let words = format!("the program that answers on {} is not this platform: {e}", folders.socket().display());
        Error::new(Kind::Answer, words)
    })?;
    Ok(Some(status))
}

/// Asks the running platform to end, and waits until it has; false when there is none. What a killed one has left
/// running is ended.
///
/// # Errors
/// Fails when it does not end.
pub async fn stop(folders: &Folders) -> Result<bool> {
    let running = status(folders).await.ok().flatten();
    if ask(folders, Method::POST, STOP_PATH).await?.is_none() {
        machine::end_leftovers(&folders.local().join("plays"));
        return Ok(false);
    }
    let deadline = Instant::now() + ENOUGH;
    let pid = running.as_ref().map(|status| status.pid);
    // Without locks, its process tells.
    let runs = |free: Option<Lock>| free.is_none_or(|free| !free.is_held() && pid.is_some_and(os::is_running));
    while runs(Lock::try_acquire(&folders.local())?) {
        if Instant::now() > deadline {
            let log = log_path(&folders.local());
            let process = running.map_or_else(String::new, |status| format!("; it is process {}", status.pid));
            return Err(Error::new(Kind::NotYet, "the embedded platform has not exited")
                .with_hint(format!("see {} for the reason{process}", log.display())));
        }
        sleep(AGAIN).await;
    }
    Ok(true)
}

/// Sends one request to the socket; `None` when no platform listens there.
async fn ask(folders: &Folders, method: Method, path: &'static str) -> Result<Option<Reply>> {
    let socket = folders.socket();
    match UnixStream::connect(&socket).await {
        Ok(_) => {}
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => return Ok(None),
        Err(e) => return Err(Error::file("connect to", &socket, &e)),
    }
    let uri = Uri::builder().scheme("http").authority("localhost").path_and_query(path).build();
    let uri = uri.map_err(|e| Error::new(Kind::Internal, e.to_string()))?;
    let request = http::request(method, uri, None);
    Http::new(Dialer::socket(socket)).send(request, ANSWER).await.map(Some)
}

/// Makes sure that a platform runs. Any number of processes may ask for it at once; one of them starts it, and the
/// others wait for that.
///
/// # Errors
/// Fails when it cannot be started, with its own words.
pub async fn ensure(folders: &Folders) -> Result<()> {
    let program = std::env::current_exe()
        .map_err(|e| Error::new(Kind::Program, format!("cannot find this program's own file: {e}")))?;
    ensure_by(folders, &program).await
}

/// As [`ensure`], where `program local serve` is the platform.
///
/// # Errors
/// As [`ensure`].
pub async fn ensure_by(folders: &Folders, program: &Path) -> Result<()> {
    check_length(&folders.socket())?;
    make_folder(&folders.local())?;
    if answers(folders).await {
        return Ok(());
    }
    let starting = folders.local().join("start");
    let _lock = tokio::task::spawn_blocking(move || Lock::acquire(&starting))
        .await
        .map_err(|e| Error::new(Kind::Internal, format!("cannot wait for a lock: {e}")))??;
    let deadline = Instant::now() + ENOUGH;
    let log = Log::open(&folders.local())?;
    while !answers(folders).await {
        let mut child = detached(program, folders, &log)?;
        let ended = loop {
            sleep(AGAIN).await;
            if answers(folders).await {
                return Ok(());
            }
            if let Some(ended) = child.try_wait().map_err(|e| Error::new(Kind::Program, e.to_string()))? {
                break ended;
            }
            if Instant::now() > deadline {
                return Err(log.failure("it does not answer", Kind::NotYet));
            }
        };
        // Another platform has the folder: it has just started by itself, or is about to end.
        let another = ended.code() == Some(i32::from(Kind::Refused.exit_code()));
        if !another || Instant::now() > deadline {
            return Err(log.failure(&format!("it ended with {ended}"), Kind::Program));
        }
        sleep(AGAIN).await;
    }
    Ok(())
}

async fn answers(folders: &Folders) -> bool {
    // A platform that is just ending accepts connections that it will not answer, which is as good as none.
    matches!(status(folders).await, Ok(Some(_)))
}

/// Starts the platform as a process of its own, in another session, without a terminal and without our files.
fn detached(program: &Path, folders: &Folders, log: &Log) -> Result<tokio::process::Child> {
    let failed = |e: io::Error| Error::new(Kind::Program, format!("cannot start {}: {e}", program.display()));
    let mut command = Command::new(program);
    // The folder may have come to us by an option and not by the environment.
    command.env(HOME_VARIABLE, &folders.root);
    command.args(["local", "serve"]).current_dir("/").stdin(Stdio::null());
    command.stdout(log.file.try_clone().map_err(failed)?).stderr(log.file.try_clone().map_err(failed)?);
    helper::server::processes::in_its_own_session(&mut command);
    command.spawn().map_err(failed)
}

fn log_path(folder: &Path) -> PathBuf {
    folder.join("log")
}

/// The log of platforms that were started on demand.
struct Log {
    file: File,
    path: PathBuf,
    /// The position at which the words of the platform that is being started begin.
    from: u64,
}

impl Log {
    fn open(folder: &Path) -> Result<Log> {
        let path = log_path(folder);
        let failed = |e: io::Error| Error::file("open", &path, &e);
        if fs::metadata(&path).is_ok_and(|found| found.len() > MAX_LOG) {
            fs::rename(&path, folder.join("log.old")).map_err(failed)?;
        }
        let mut file = files::open_or_make(&path, OpenOptions::new().append(true).read(true)).map_err(failed)?;
        let from = file.seek(SeekFrom::End(0)).map_err(failed)?;
        Ok(Log { file, path, from })
    }

    /// The reason why the platform did not start, in its own words if it has left any.
    fn failure(&self, otherwise: &str, kind: Kind) -> Error {
        let mut text = String::new();
        if let Ok(mut file) = File::open(&self.path) {
            let _ = file.seek(SeekFrom::Start(self.from)).and_then(|_| file.take(MAX_LOG).read_to_string(&mut text));
        }
        let (hints, words): (Vec<&str>, Vec<&str>) =
            text.lines().filter(|line| !line.trim().is_empty()).partition(|line| line.starts_with("hint: "));
        let said = words.last().map_or(otherwise, |line| line.trim_start_matches("labctl-ssh-proxy: "));
        let error = Error::new(kind, format!("the embedded platform did not start: {said}"));
        match hints.last() {
            Some(hint) => error.with_hint(hint.trim_start_matches("hint: ")),
            None => error.with_hint(format!("see {} for more", self.path.display())),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::{ensure_by, status, stop};
    use crate::{error::Kind, files::write_script, settings::Folders};

    fn folders() -> (tempfile::TempDir, Folders) {
        let home = tempfile::Builder::new().prefix("lsp").tempdir_in("/tmp").unwrap();
        let root = home.path().join("r");
        let folders = Folders { home: home.path().into(), settings: root.join("settings.yaml"), root };
        (home, folders)
    }

    fn program(home: &tempfile::TempDir, script: &str) -> std::path::PathBuf {
        let path = home.path().join("program");
        write_script(&path, script);
        path
    }

    #[tokio::test]
    async fn a_platform_that_does_not_start_is_quoted() {
        let (home, folders) = folders();
        let words = "echo 'labctl-ssh-proxy: the disk is on fire' >&2; echo 'hint: water' >&2; exit 13";
        let error = ensure_by(&folders, &program(&home, words)).await.unwrap_err();
        assert_eq!(error.message(), "the embedded platform did not start: the disk is on fire");
        assert_eq!((error.kind(), error.hint()), (Kind::Program, Some("water")));
        let error = ensure_by(&folders, &program(&home, "exit 3")).await.unwrap_err();
        assert!(error.message().contains("exit status: 3"), "{error}");
        let error = ensure_by(&folders, &home.path().join("none")).await.unwrap_err();
        assert!(error.message().contains("cannot start"), "{error}");
    }

    #[tokio::test]
    async fn the_platform_is_started_apart_from_us() {
        let (home, folders) = folders();
        let told = home.path().join("told");
        // Its session and current folder, the first descriptors, the arguments.
        let script =
            format!("{{ echo $(($$)) $(ps -o sid= -p $$) $PWD $*; ls -l /proc/$$/fd; }} > {}; exit 1", told.display());
        let _ = ensure_by(&folders, &program(&home, &script)).await.unwrap_err();
        let told = fs::read_to_string(told).unwrap();
        let first: Vec<&str> = told.lines().next().unwrap().split_whitespace().collect();
        assert_eq!(first[0], first[1], "it leads a session: {told}");
        assert_eq!(first[2..], ["/", "local", "serve"], "{told}");
    }

    #[tokio::test]
    async fn nobody_there_is_no_error() {
        let (_home, folders) = folders();
        assert_eq!(status(&folders).await.unwrap(), None);
        assert!(!stop(&folders).await.unwrap());
    }
}
