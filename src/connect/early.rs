//! The remembered identification line: how a client that will not wait long gets in while a machine wakes.
//!
//! OpenSSH's `ConnectTimeout` runs until the server's identification line has come (RFC 4253, 4.2). Programs that pass
//! it on the command line beat the `ConnectTimeout 0` of our entries. For them the machine's line of last time is sent
//! shortly before the limit strikes; the machine's own is swallowed when it comes. The line enters the key exchange, so
//! one that differs ends the connection, is remembered, and the next attempt works.
//!
//! At the first contact with a machine there is no such line. Then the client is told shortly before its limit strikes
//! that the machine is still waking, and that its next attempt will find it: its own words would be a time-out during
//! the banner exchange.
//!
//! After the line ssh waits for as long as its keepalives say: by our entries an hour, which `wake_limit` ends
//! sooner. Other clients, whose timers the line would start, never get one.

use std::{
    cell::{Cell, RefCell},
    time::Duration,
};

use tokio::{
    io::AsyncWriteExt,
    sync::Notify,
    time::{Instant, sleep, sleep_until},
};

use super::Connection;
use crate::{
    connect::client::{Client, ClientKind},
    error::{Error, Kind, Result},
    os,
    ssh::{
        identification::{Read, Reader, Side, to_remember},
        options::{self, SshOptions},
    },
    target::Playground,
};

/// The line goes out this long before the limit at the latest, ...
const MARGIN: Duration = Duration::from_millis(300);
/// ... and after this part of it, in percent: ssh began to count a little before we did, and may be slow to read.
const PART: u32 = 60;

/// The last words to a client without a line for it are said this long before its limit. They come later than the line
/// would, because the machine may be there in time.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// A connection to a machine that runs is through by now, and ssh's command line need not be looked at for it. Less than
/// [`PART`] of the shortest limit, one second.
const LOOK: Duration = Duration::from_millis(500);

/// The server's words that a client has been sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Passed {
    /// Nothing.
    #[default]
    Nothing,
    /// The remembered line, and nothing else.
    Line,
    /// Bytes of the server.
    Bytes,
}

#[derive(Debug)]
struct Plan {
    line: String,
    at: Instant,
}

/// The line that one client may be sent early, and the words that it has been sent.
#[derive(Debug, Default)]
pub struct Early {
    passed: Cell<Passed>,
    plan: RefCell<Option<Plan>>,
    planned: Notify,
}

impl Early {
    /// Plans to send `line` before `limit` strikes, counted from `began`.
    pub fn plan(&self, line: String, limit: Duration, began: Instant) {
        let wait = (limit * PART / 100).min(limit.saturating_sub(MARGIN));
        self.plan.replace(Some(Plan { line, at: began + wait }));
        self.planned.notify_one();
    }

    /// Returns true once a line is to be sent.
    pub fn is_planned(&self) -> bool {
        self.plan.borrow().is_some()
    }

    /// The server's words that the client has been sent.
    pub fn passed(&self) -> Passed {
        self.passed.get()
    }

    /// Notes that bytes of the server are passed on.
    pub fn bytes_pass(&self) {
        self.passed.set(Passed::Bytes);
    }

    /// Waits until the line should be sent, be it planned now or meanwhile. Never returns once it is too late.
    pub async fn due(&self) {
        loop {
            let at = self.plan.borrow().as_ref().map(|plan| plan.at).filter(|_| self.passed.get() == Passed::Nothing);
            match at {
                Some(at) => return sleep_until(at).await,
                None => self.planned.notified().await,
            }
        }
    }

    /// Sends the line, if the client is one that it helps.
    pub async fn say(&self, client: &mut Client) {
        if ClientKind::of(client.line().as_deref()) != ClientKind::OpenSsh {
            self.plan.replace(None);
            return;
        }
        let Some(line) = self.plan.borrow().as_ref().map(|plan| format!("{}\r\n", plan.line)) else { return };
        log::info!("the client's time is nearly up: sending the machine's last known identification line");
        self.passed.set(Passed::Line);
        let output = client.output();
        // A client that has left is noticed by the caller's next wait.
        if output.write_all(line.as_bytes()).await.is_ok() {
            let _ = output.flush().await;
        }
    }

    /// Returns the swallowing of a server's own line, if the remembered one has been sent.
    pub fn swallow(&self) -> Option<Swallow> {
        let line = self.plan.borrow().as_ref().map(|plan| plan.line.clone())?;
        (self.passed.get() == Passed::Line).then(|| Swallow::expecting(line))
    }
}

/// Plans the early line, where a limit of the client's may strike and the machine's line is known.
pub(super) fn plan(connection: &Connection<'_>, play: &str, machine: &str) -> Result<()> {
    let Connection { app, early, .. } = connection;
    if app.settings.early_identification == Some(false) || early.is_planned() {
        return Ok(());
    }
    // Without a record there is no early line, and a record that cannot be read is as good as none here. The server in a
    // container is our own.
    let line = match connection.container {
        Some(_) => Some(helper::wire::IDENTIFICATION.to_owned()),
        None => {
            connection.memory.read(play).ok().and_then(|mut record| record.machines.remove(machine)?.identification)
        }
    };
    if let Some(line) = line
        && let Some(limit) = os::ssh_arguments().as_deref().and_then(connect_timeout)
    {
        let age = os::process_age();
        log::debug!("the client waits {} s, of which {} ms have passed", limit.as_secs(), age.as_millis());
        let now = Instant::now();
        early.plan(line, limit, now.checked_sub(age).unwrap_or(now));
    }
    Ok(())
}

/// Waits until a limit of the client's is about to strike, and returns the error that says so. Never returns for a client
/// that has no limit, that is sent the machine's line in time, or that has not been told of any wait.
pub(super) async fn too_short(connection: &Connection<'_>, caller: ClientKind) -> Error {
    let is_off = connection.app.settings.early_identification == Some(false);
    sleep(LOOK).await;
    if caller == ClientKind::OpenSsh
        && !is_off
        && let Some(limit) = os::ssh_arguments().as_deref().and_then(connect_timeout)
    {
        let wait = limit.saturating_sub(LAST_WORDS).max(limit * PART / 100);
        sleep(wait.saturating_sub(os::process_age())).await;
        let waiting = connection.live.status().message;
        if !connection.early.is_planned() && !waiting.is_empty() {
            let message = format!("this ssh waits only {} s, and is still {waiting}", limit.as_secs());
            let wait_for_it = match &connection.target.playground {
                Playground::Id(id) => format!(", or wait with `labctl-ssh-proxy start {id}`"),
                // It could start a second one.
                Playground::Name(_) => String::new(),
            };
            return Error::new(Kind::NotYet, message).with_hint(format!("connect again in a moment{wait_for_it}"));
        }
    }
    std::future::pending().await
}

/// Takes a server's own identification line, and the text before it, out of its first bytes.
#[derive(Debug)]
pub struct Swallow {
    expected: String,
    first_lines: Reader,
}

/// The outcome of swallowing one chunk.
#[derive(Debug, PartialEq, Eq)]
pub enum Swallowed {
    /// The line is not complete; all of the chunk was taken.
    More,
    /// The line that was sent already; so many bytes of the chunk belong to it and to the text before it.
    Same(usize),
    /// Another line, as far as it can be remembered.
    Other(Option<String>),
}

impl Swallow {
    fn expecting(line: String) -> Swallow {
        Swallow { expected: line, first_lines: Reader::of(Side::Server) }
    }

    /// Takes the next bytes of the server.
    pub fn take(&mut self, bytes: &[u8]) -> Swallowed {
        let mut rest = bytes;
        match self.first_lines.read(&mut rest) {
            Read::Incomplete => Swallowed::More,
            Read::Line(line) if line == self.expected.as_bytes() => Swallowed::Same(bytes.len() - rest.len()),
            Read::Line(line) | Read::NotSsh(line) => Swallowed::Other(to_remember(&line)),
        }
    }
}

/// The `ConnectTimeout` on ssh's command line, as ssh reads it; `None` when there is none, or none that ever strikes.
/// The first argument is the program.
pub fn connect_timeout(arguments: &[String]) -> Option<Duration> {
    let mut options = SshOptions::new(arguments.iter().skip(1).map(String::as_str));
    while let Some((flag, value)) = options.next() {
        let Some(value) = options::value(value, "ConnectTimeout").filter(|_| flag == 'o') else { continue };
        // Arguments joined with spaces, as ps shows them.
        let value = if value.is_empty() { options.word()? } else { value };
        if value == "none" {
            continue;
        }
        return options::seconds(value).filter(|seconds| *seconds > 0).map(Duration::from_secs);
    }
    None
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::{Early, Passed, Swallow, Swallowed, connect_timeout};
    use crate::ssh::options::seconds;

    fn limit(command: &[&str]) -> Option<u64> {
        let arguments: Vec<String> = command.iter().map(ToString::to_string).collect();
        connect_timeout(&arguments).map(|limit| limit.as_secs())
    }

    #[test]
    fn every_form_that_ssh_takes_is_read() {
        for command in [
            &["ssh", "-o", "ConnectTimeout=2", "h", "true"][..],
            &["/usr/bin/ssh", "-oConnectTimeout=2", "h"],
            &["ssh", "-o", "ConnectTimeout 2", "h"],
            &["ssh", "-o", "  connecttimeout\t= 2 ", "h"],
            &["ssh", "-o", "CONNECTTIMEOUT=\"2\"", "h"],
            &["ssh", "-o", "ConnectTimeout '2s' # x", "h"],
            &["ssh", "-vTNoConnectTimeout=2", "h"],
            &["ssh", "-vTo", "ConnectTimeout=2", "h"],
            &["ssh", "-p", "22", "-D", "1080", "-lroot", "h", "-o", "ConnectTimeout=2", "true"],
            &["ssh", "-o", "BatchMode=yes", "-o", "ConnectTimeout=2", "-o", "ConnectTimeout=9", "h"],
            &["ssh", "-o", "ConnectTimeout=none", "-o", "ConnectTimeout=2", "h"],
            // As ps shows it.
            &["ssh", "-o", "ConnectTimeout", "2", "h"],
        ] {
            assert_eq!(limit(command), Some(2), "{command:?}");
        }
    }

    #[test]
    fn what_is_no_limit_of_ssh_is_not_taken_for_one() {
        for command in [
            &["ssh", "h"][..],
            &["ssh", "h", "ssh", "-o", "ConnectTimeout=2", "other"],
            &["ssh", "--", "h", "-o", "ConnectTimeout=2"],
            &["ssh", "-i", "-oConnectTimeout=2", "h"],
            &["ssh", "-o", "ConnectTimeout=0", "-o", "ConnectTimeout=2", "h"],
            &["ssh", "-o", "ConnectTimeout=soon", "h"],
            &["ssh", "-o", "ConnectTimeout=", "h"],
            &["ssh", "-o", "ServerAliveInterval=2", "h"],
            &["ssh", "-o"],
            &["ssh"],
            &[],
        ] {
            assert_eq!(limit(command), None, "{command:?}");
        }
    }

    #[test]
    fn times_have_units() {
        assert_eq!(seconds("1m30S"), Some(90));
        assert_eq!(seconds("1h1"), Some(3601));
        assert_eq!(seconds("1w2d"), Some(9 * 86400));
        for wrong in ["", "x", "1x", "-1", "s", "99999999999999999999", "1 2"] {
            assert_eq!(seconds(wrong), None, "{wrong}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_line_is_due_before_the_limit_strikes() {
        for (limit, due) in [(1, 600), (2, 1200), (15, 9000)] {
            let (early, began) = (Early::default(), tokio::time::Instant::now());
            early.plan("SSH-2.0-x".into(), Duration::from_secs(limit), began);
            early.due().await;
            assert_eq!(began.elapsed(), Duration::from_millis(due));
        }
        let early = Early::default();
        early.plan("SSH-2.0-x".into(), Duration::from_secs(1), tokio::time::Instant::now());
        early.bytes_pass();
        assert!(tokio::time::timeout(Duration::from_secs(9), early.due()).await.is_err(), "the server was faster");
        assert_eq!(early.passed(), Passed::Bytes);
    }

    fn swallow(line: &str) -> Swallow {
        Swallow::expecting(line.into())
    }

    #[test]
    fn another_line_is_told_and_remembered_if_it_can_be() {
        let other = swallow("SSH-2.0-a").take(b"hello\r\nSSH-2.0-b c\r\n\0\0");
        assert_eq!(other, Swallowed::Other(Some("SSH-2.0-b c".into())));
        assert_eq!(swallow("SSH-2.0-a").take(b"SSH-1.5-b\n"), Swallowed::Other(None));
        assert_eq!(swallow("SSH-2.0-a").take(&[b'x'; 9000]), Swallowed::Other(None));
    }

    proptest! {
        #[test]
        fn what_follows_the_line_is_left_however_it_is_cut(
            texts in prop::collection::vec("[a-z ]{0,20}", 0..4),
            rest in prop::collection::vec(any::<u8>(), 0..40),
            size in 1usize..20,
        ) {
            let head: String = texts.iter().map(|text| format!("{text}\r\n")).collect();
            let bytes = [format!("{head}SSH-2.0-a_1 b\r\n").as_bytes(), &rest].concat();
            let (mut swallow, mut left, mut done) = (swallow("SSH-2.0-a_1 b"), Vec::new(), false);
            for chunk in bytes.chunks(size) {
                if done {
                    left.extend_from_slice(chunk);
                    continue;
                }
                match swallow.take(chunk) {
                    Swallowed::More => {}
                    Swallowed::Same(taken) => {
                        done = true;
                        left.extend_from_slice(&chunk[taken..]);
                    }
                    Swallowed::Other(line) => prop_assert!(false, "{line:?}"),
                }
            }
            prop_assert!(done);
            prop_assert_eq!(left, rest);
        }

        #[test]
        fn no_arguments_make_it_panic(arguments in prop::collection::vec("(-?[a-zA-Zo=\" ']{0,4}|-o|ConnectTimeout.{0,6}|.{0,9})", 0..9)) {
            let _ = connect_timeout(&arguments);
        }

        #[test]
        fn a_limit_is_found_behind_any_other_option(
            before in prop::collection::vec(prop::sample::select(vec!["-v", "-T", "-4", "-p22", "-oBatchMode=yes", "-Fnone"]), 0..6),
            limit in 1u64..100_000,
        ) {
            let mut arguments = vec!["ssh".to_owned()];
            arguments.extend(before.into_iter().map(str::to_owned));
            arguments.push(format!("-oconnectTimeout={limit}"));
            arguments.push("host".into());
            prop_assert_eq!(connect_timeout(&arguments), Some(Duration::from_secs(limit)));
        }
    }
}
