//! Containers of a machine: the helper is put there, asked, and started in one of them.
//!
//! ```text
//! SshClient, root on the machine  ->  have | need  ->  put  ->  helper enter  ->  Inside: SSH with the container
//!                                                              helper list   ->  the containers, once
//!                                                              helper watch  ->  the containers, at each change
//! ```
//!
//! The machine's login shell gets one command, and its channel carries all that follows: a line that says if the helper
//! is there, the helper's answer, and then SSH. What is asked of the helper goes out with the command, before its
//! answer, so a container costs two round trips more than the SSH connection to its machine: the channel and this. The
//! first connection to a machine puts the helper there, over a channel of its own.
//!
//! # Layout
//!
//! - [`program`]: the helper's program, as this computer has it.
//! - `put`: its place on the machine.
//! - `stream`: the stream to the server in the container.

use std::{future::Future, io, time::Duration};

use helper::wire::{Listing, MAX_FRAME, Refusal, RefusalKind, Reply, Request, SIGN_OF_LIFE, WAITING_LIMIT};
use serde::{Serialize, de::DeserializeOwned};
use tokio::{io::AsyncReadExt, time::timeout};

use crate::{
    error::{Error, Kind, Result, printable},
    ssh::{
        client::{Login, SshClient},
        marked::{Marked, not_run},
    },
    ui::notice::Progress,
};

pub mod program;
mod put;
mod stream;

pub use put::{Lying, lies, remove};
pub use stream::{Inside, Outside};

/// The processor of most machines, whose helper is asked for first.
const USUAL: &str = "x86_64";
/// Time limit for the helper's answer. An engine that does not answer it has 5 s.
const ANSWER: Duration = Duration::from_secs(20);
/// Longest silence of a watch: a sign of life may be late, and the engine may take its time.
const SILENCE: Duration = SIGN_OF_LIFE.saturating_mul(4);
/// The hint of a watch that was lost.
const AGAIN: &str = "it is connected to again, unless that is of no use";
/// Number of bytes that a login shell may print before the helper's.
const MAX_GREETING: usize = 64 * 1024;

/// Starts the SSH server in a container. `client` is logged in to its machine as root.
///
/// # Errors
/// The helper's refusal: [`Kind::NotFound`], [`Kind::Ambiguous`] or [`Kind::NotWoken`] for a container that is not
/// there, or not alone, or not running, [`Kind::Refused`] for one that cannot be entered, [`Kind::Program`] for a
/// machine that lacks what it takes. [`Kind::Network`] when there is no answer.
pub async fn enter(client: SshClient, request: &Request, progress: &impl Progress) -> Result<Inside> {
    let mut channel = asked(&client, "enter", &frame(request)?, progress).await?;
    let mut limit = ANSWER;
    loop {
        let frame = match within(limit, &client, next_frame(&mut channel.reader)).await? {
            Ok(frame) => frame,
            Err(error) => {
                let status = in_time(&client, channel.reader.end()).await?;
                return Err(no_answer(client.login(), status, &channel.reader.complaint(), &error));
            }
        };
        match understood(client.login(), &frame)? {
            Reply::Entered(container) => {
                let Channel { reader, writer } = channel;
                return Ok(Inside::new(reader, writer, client, container));
            }
            Reply::Refused(refusal) => return Err(refused(client.login(), &refusal)),
            Reply::Note(what) => {
                let Login { machine, shown, .. } = client.login();
                progress.above(&format!("machine {machine} of playground {shown}: {}", printable(&what)));
            }
            Reply::Waiting(what) => {
                progress.waiting(&printable(&what));
                limit = ANSWER + Duration::from_secs(WAITING_LIMIT);
            }
        }
    }
}

async fn next_frame(reader: &mut stream::Reader) -> io::Result<Vec<u8>> {
    let mut length = [0; 4];
    reader.read_exact(&mut length).await?;
    let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
    if length > MAX_FRAME {
        return Err(io::Error::other(format!("a frame of {length} bytes")));
    }
    let mut frame = vec![0; length];
    reader.read_exact(&mut frame).await?;
    Ok(frame)
}

/// Lists the containers of the machine that `client` is logged in to as root.
///
/// # Errors
/// As [`enter`], for the machine.
pub async fn list(client: &SshClient) -> Result<Listing> {
    list_if_any(client).await?
}

/// As [`list`]. The inner error is that of a machine that has no container to enter.
///
/// # Errors
/// As [`list`], for one of which nothing is known.
pub async fn list_if_any(client: &SshClient) -> Result<Result<Listing>> {
    let mut channel = asked(client, "list", &[], &()).await?;
    let answer = async {
        let mut text = Vec::new();
        let limit = MAX_FRAME as u64;
        let read = (&mut channel.reader).take(limit).read_to_end(&mut text).await;
        (read, text, channel.reader.end().await)
    };
    let (read, text, status) = in_time(client, answer).await?;
    let login = client.login();
    if let Err(error) = read {
        return Err(no_answer(login, status, &channel.reader.complaint(), &error));
    }
    match status {
        Some(0) => known(login, understood(login, &text)?).map(Ok),
        Some(1) if !text.is_empty() => {
            let refusal: Refusal = understood(login, &text)?;
            let error = refused(login, &refusal);
            match refusal.kind {
                RefusalKind::NoEngine | RefusalKind::Impossible => Ok(Err(error)),
                _ => Err(error),
            }
        }
        status => Err(no_answer(login, status, &channel.reader.complaint(), &io::ErrorKind::UnexpectedEof.into())),
    }
}

/// The containers of a machine as they change, as long as this is held.
pub struct Watch {
    channel: Channel,
    client: SshClient,
    /// The beginning of the next line.
    line: Vec<u8>,
}

/// Begins to watch the containers of the machine that `client` is logged in to as root.
///
/// # Errors
/// As [`list`].
pub async fn watch(client: SshClient, progress: &impl Progress) -> Result<Watch> {
    let channel = asked(&client, "watch", &[], progress).await?;
    Ok(Watch { channel, client, line: Vec::new() })
}

impl Watch {
    /// Waits for the next listing: the first comes at once, and each later one after a change. It is an error while the
    /// machine's engine does not answer.
    ///
    /// # Errors
    /// [`Kind::Network`] when the connection is lost, and [`Kind::Program`] when the helper fails. The watch is over
    /// then.
    pub async fn next(&mut self) -> Result<Result<Listing>> {
        loop {
            let (login, reader) = (self.client.login(), &mut self.channel.reader);
            match timeout(SILENCE, read_line(reader, &mut self.line)).await {
                // It says that it lives.
                Ok(Ok(line)) if line.is_empty() => {}
                Ok(Ok(line)) => return Ok(known(login, understood(login, &line)?)),
                Ok(Err(error)) => {
                    return Err(match timeout(ANSWER, reader.end()).await {
                        Ok(Some(status)) => no_answer(login, Some(status), &reader.complaint(), &error),
                        // The machine has ended it, as it does when it is stopped.
                        Ok(None) | Err(_) => lost(login).with_hint(AGAIN),
                    });
                }
                Err(_elapsed) => return Err(lost(login).with_hint(AGAIN)),
            }
        }
    }
}

/// Reads the rest of a line whose beginning is in `line`.
async fn read_line(reader: &mut stream::Reader, line: &mut Vec<u8>) -> io::Result<Vec<u8>> {
    loop {
        match reader.read_u8().await? {
            b'\n' => return Ok(std::mem::take(line)),
            _ if line.len() == MAX_FRAME => return Err(io::Error::other("a line without an end")),
            byte => line.push(byte),
        }
    }
}

/// The listing, or the machine's reason why there is none at this moment.
fn known(login: &Login, mut listing: Listing) -> Result<Listing> {
    match listing.problem.take() {
        Some(problem) => Err(refused(login, &problem)),
        None => Ok(listing),
    }
}

/// A channel on which the helper speaks.
struct Channel {
    reader: stream::Reader,
    writer: stream::Writer,
}

/// Runs the helper on the machine, once it is there. `words` are its input, which goes on after them.
async fn asked(client: &SshClient, arguments: &str, words: &[u8], progress: &impl Progress) -> Result<Channel> {
    let login = client.login();
    let mut architecture = USUAL.to_owned();
    // The other processor, the helper, and then the answer: none of them is needed twice.
    for _ in 0..3 {
        let packed = program::packed(&architecture);
        // Without a helper of its own, the machine still says which it needs.
        let sha256 = packed.as_ref().map_or("0", |packed| &packed.sha256);
        let (channel, answer) = in_time(client, first_words(client, sha256, arguments, words)).await??;
        let Some(needed) = answer.strip_prefix("need ") else { return Ok(channel) };
        let Some(needed) = needed.strip_prefix("Linux ") else {
            let message = format!("it runs {needed}, and only Linux has containers to enter");
            return Err(on_machine(login, Kind::Refused, &message, None));
        };
        if needed != architecture {
            needed.clone_into(&mut architecture);
            continue;
        }
        let packed = packed.map_err(|error| on_machine(login, error.kind(), error.message(), error.hint()))?;
        progress.waiting(&format!("putting the helper on machine {}", login.machine));
        put::put(client, &packed).await?;
    }
    let message = format!("machine {} of playground {} does not keep the helper", login.machine, login.shown);
    Err(Error::new(Kind::Program, message).with_hint(see_doctor(login)))
}

/// Begins to run the helper, and returns the line before its own words.
async fn first_words(client: &SshClient, sha256: &str, arguments: &str, words: &[u8]) -> Result<(Channel, String)> {
    let marked = Marked::new();
    let command = marked.ending_in(&put::become_helper(sha256, arguments));
    let (mut reader, writer) = stream::split(client.begin(&command, words).await?);
    let (mut greeting, mut line) = (Vec::new(), Vec::new());
    let read = async {
        while !marked.is_started(&greeting) {
            if greeting.len() == MAX_GREETING {
                return Err(io::Error::other("its login shell prints more than the helper"));
            }
            greeting.push(reader.read_u8().await?);
        }
        while !line.ends_with(b"\n") && line.len() < MAX_GREETING {
            line.push(reader.read_u8().await?);
        }
        Ok(())
    };
    match read.await {
        Ok(()) => Ok((Channel { reader, writer }, printable(String::from_utf8_lossy(&line).trim()))),
        Err(_) if reader.is_refused() => {
            let message = format!("{} refuses to run commands", client.login().whose().subject());
            Err(Error::new(Kind::Refused, message).with_hint(see_doctor(client.login())))
        }
        Err(error) if marked.is_started(&greeting) => {
            let status = reader.end().await;
            Err(no_answer(client.login(), status, &reader.complaint(), &error))
        }
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            reader.end().await;
            Err(not_run(&root_of(client.login()), &reader.complaint()))
        }
        Err(error) => Err(no_answer(client.login(), None, &reader.complaint(), &error)),
    }
}

async fn in_time<T>(client: &SshClient, answer: impl Future<Output = T>) -> Result<T> {
    within(ANSWER, client, answer).await
}

async fn within<T>(limit: Duration, client: &SshClient, answer: impl Future<Output = T>) -> Result<T> {
    timeout(limit, answer).await.map_err(|_| {
        let login = client.login();
        let why = format!("the helper did not answer within {} s", limit.as_secs());
        Error::new(Kind::NotYet, format!("{why} on machine {} of playground {}", login.machine, login.shown))
            .with_hint(see_doctor(login))
    })
}

/// Returns a value as the helper reads it: its length, and JSON.
fn frame(value: &impl Serialize) -> Result<Vec<u8>> {
    let too_long = |e: &dyn std::fmt::Display| Error::new(Kind::Internal, format!("no frame can be made: {e}"));
    let json = serde_json::to_vec(value).map_err(|e| too_long(&e))?;
    let length = u32::try_from(json.len()).map_err(|e| too_long(&e))?;
    Ok([&length.to_be_bytes(), &json[..]].concat())
}

fn understood<T: DeserializeOwned>(login: &Login, json: &[u8]) -> Result<T> {
    serde_json::from_slice(json).map_err(|error| {
        let Login { machine, shown, .. } = login;
        let message = format!("the helper on machine {machine} of playground {shown} answers in other words: {error}");
        Error::new(Kind::Answer, message).with_hint(see_doctor(login))
    })
}

/// The error for a helper that has said nothing, or not all.
fn no_answer(login: &Login, status: Option<u32>, complaint: &str, error: &io::Error) -> Error {
    if error.kind() == io::ErrorKind::ConnectionReset {
        return lost(login);
    }
    let why = match (complaint, status) {
        ("", Some(status)) => format!("exit status {status}"),
        ("", None) if error.kind() == io::ErrorKind::UnexpectedEof => "it ended".to_owned(),
        ("", None) => error.to_string(),
        (complaint, _) => complaint.to_owned(),
    };
    let Login { machine, shown, .. } = login;
    let message = format!("the helper on machine {machine} of playground {shown} has failed: {why}");
    Error::new(Kind::Program, message).with_hint(see_doctor(login))
}

/// The error for a machine that can no longer be asked.
fn lost(login: &Login) -> Error {
    Error::new(Kind::Network, format!("the connection to {} was lost", login.whose().subject()))
        .with_hint("connect again")
}

/// The user whose login shell runs the helper, in the words of [`not_run`].
fn root_of(login: &Login) -> String {
    format!("{} on {}", login.user, login.whose().subject())
}

/// The helper's refusal as an error, with the machine and the playground that it does not know.
fn refused(login: &Login, refusal: &Refusal) -> Error {
    let kind = match refusal.kind {
        RefusalKind::NotFound => Kind::NotFound,
        RefusalKind::Ambiguous => Kind::Ambiguous,
        RefusalKind::NotRunning => Kind::NotWoken,
        RefusalKind::Impossible => Kind::Refused,
        RefusalKind::Program | RefusalKind::NoEngine => Kind::Program,
    };
    let hint = refusal.hint.as_ref().map(|hint| hint.replace("{machine}", &login.alias));
    on_machine(login, kind, &refusal.message, hint.as_deref())
}

/// An error of the machine that `login` is for, which its sentence does not name.
fn on_machine(Login { machine, shown, .. }: &Login, kind: Kind, message: &str, hint: Option<&str>) -> Error {
    let error = Error::new(kind, format!("machine {machine} of playground {shown}: {message}"));
    match hint {
        Some(hint) => error.with_hint(hint),
        None => error,
    }
}

fn see_doctor(login: &Login) -> String {
    format!("run `labctl-ssh-proxy doctor {}` to check the machine", login.alias)
}

/// The last line that is not empty, safe to show.
fn last_line(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    printable(text.lines().map(str::trim).rfind(|line| !line.is_empty()).unwrap_or_default())
}
