//! Commands that run on the machine without a client, such as those that prepare it.

use std::{
    io,
    os::unix::process::ExitStatusExt,
    path::Path,
    process::{ExitStatus, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt},
    task::JoinHandle,
    time::timeout,
};

use helper::server::processes::{in_its_own_session, pid_of};

use super::{Machine, locked};

/// The largest part of an output that is kept, in bytes: its end, where failures explain themselves.
const MAX_OUTPUT: usize = 64 * 1024;

/// The longest wait for the output of a command that has ended. A program that it has left running may hold the pipe.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// The result of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The exit code; 128 and the signal's number for a command that was killed.
    pub code: i32,
    /// The end of its standard output.
    pub stdout: String,
    /// The end of its standard error.
    pub stderr: String,
}

impl Machine {
    /// Runs a command by `sh -c`, as the machine's user in its home, until it ends or the machine is stopped. Programs
    /// that it leaves running go on.
    ///
    /// # Errors
    /// Fails when it cannot be started, as on a machine that is being stopped.
    pub async fn run(&self, command: &str) -> io::Result<Outcome> {
        let mut shell = self.host.command(Path::new("/bin/sh"));
        shell.arg("-c").arg(command).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // A session, not only a group, because it could talk to the terminal of this process otherwise.
        in_its_own_session(&mut shell);
        let (mut child, group) = self.host.processes.start(|| {
            let child = shell.spawn()?;
            let pid = pid_of(&child)?;
            Ok((child, pid))
        })?;
        let stdout = child.stdout.take().map(Output::of);
        let stderr = child.stderr.take().map(Output::of);
        let ended = child.wait().await;
        self.host.processes.ended(group);
        let text = async |output: Option<Output>| match output {
            Some(output) => output.text().await,
            None => String::new(),
        };
        Ok(Outcome { code: code(ended?), stdout: text(stdout).await, stderr: text(stderr).await })
    }
}

fn code(status: ExitStatus) -> i32 {
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default())
}

/// The last bytes that a pipe has carried. The pipe is read to its end even after the text was taken, so that the
/// programs at its other end are not disturbed.
struct Output {
    kept: Arc<Mutex<Vec<u8>>>,
    reader: JoinHandle<()>,
}

impl Output {
    fn of(mut pipe: impl AsyncRead + Unpin + Send + 'static) -> Output {
        let kept = Arc::new(Mutex::new(Vec::new()));
        let own = Arc::clone(&kept);
        let reader = tokio::spawn(async move {
            let mut buffer = vec![0; 8 * 1024];
            while let Ok(n @ 1..) = pipe.read(&mut buffer).await {
                let mut kept = locked(&own);
                kept.extend_from_slice(&buffer[..n]);
                let surplus = kept.len().saturating_sub(MAX_OUTPUT);
                kept.drain(..surplus);
            }
        });
        Output { kept, reader }
    }

    async fn text(self) -> String {
        // Late output is lost; the reader itself goes on.
        let _ = timeout(LAST_WORDS, self.reader).await;
        String::from_utf8_lossy(&locked(&self.kept)).into_owned()
    }
}
