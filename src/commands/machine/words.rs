//! The words of a machine, as they are printed: raw for a pipe or a file, harmless for a terminal, or lines of JSON.

use std::io::{self, IsTerminal};

use serde::Serialize;
use tokio::io::AsyncWriteExt;

use crate::{
    error::{Error, Kind, Result},
    ui::{
        color,
        foreign::Foreign,
        stdio::{self, Writer},
    },
};

/// The output of a command that prints a machine's words as they come.
pub(in crate::commands) struct Words {
    output: Writer,
    /// Set for a terminal.
    foreign: Option<Foreign>,
    /// The beginning of a character whose end has not come yet.
    rest: Vec<u8>,
}

/// The reader of the output is gone, which is no failure.
pub(in crate::commands) enum Stop {
    Unread,
    Failed(Error),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Stop {
        Stop::Failed(error)
    }
}

impl Words {
    /// # Errors
    /// [`Kind::Usage`] when standard output is closed.
    pub(in crate::commands) fn new() -> Result<Words> {
        let stdout = io::stdout();
        let foreign = stdout.is_terminal().then(|| Foreign::new(color::chosen().shows(&stdout)));
        let output = stdio::output().map_err(|e| Error::new(Kind::Usage, format!("standard output is closed: {e}")))?;
        Ok(Words { output, foreign, rest: Vec::new() })
    }

    /// Prints a piece of text.
    pub(in crate::commands) async fn say(&mut self, text: &str) -> Result<(), Stop> {
        match &mut self.foreign {
            Some(foreign) => {
                let text = foreign.piece(text);
                self.write(text.as_bytes()).await
            }
            None => self.write(text.as_bytes()).await,
        }
    }

    /// Prints a piece of what need not be text, as it is but for a terminal.
    pub(in crate::commands) async fn bytes(&mut self, bytes: &[u8]) -> Result<(), Stop> {
        if self.foreign.is_none() {
            return self.write(bytes).await;
        }
        let mut all = std::mem::take(&mut self.rest);
        all.extend_from_slice(bytes);
        let whole = match std::str::from_utf8(&all) {
            Err(e) if e.error_len().is_none() => e.valid_up_to(),
            _ => all.len(),
        };
        self.rest = all.split_off(whole);
        self.say(&String::from_utf8_lossy(&all)).await
    }

    /// Prints a value as one line of JSON.
    pub(in crate::commands) async fn json(&mut self, value: &impl Serialize) -> Result<(), Stop> {
        let text = serde_json::to_string(value).map_err(|e| Error::new(Kind::Internal, e.to_string()))?;
        self.write((text + "\n").as_bytes()).await
    }

    async fn write(&mut self, bytes: &[u8]) -> Result<(), Stop> {
        let written = async {
            self.output.write_all(bytes).await?;
            self.output.flush().await
        };
        written.await.map_err(|e| match e.kind() {
            io::ErrorKind::BrokenPipe => Stop::Unread,
            _ => Error::new(Kind::File, format!("cannot write to standard output: {e}")).into(),
        })
    }

    /// Waits until the output has no reader.
    pub(in crate::commands) async fn unread(&self) -> Stop {
        self.output.gone().await;
        Stop::Unread
    }
}

impl Drop for Words {
    fn drop(&mut self) {
        // Also when a signal ends the command.
        if let Some(foreign) = &mut self.foreign {
            let _ = crate::ui::out::write(foreign.end());
        }
    }
}

/// The result of a command that may have lost its reader.
pub(in crate::commands) fn ended(done: Result<(), Stop>) -> Result<()> {
    match done {
        Ok(()) | Err(Stop::Unread) => Ok(()),
        Err(Stop::Failed(error)) => Err(error),
    }
}
