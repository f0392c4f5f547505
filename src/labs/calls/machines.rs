//! The words of machines: their consoles and journals.

use crate::{
    error::Result,
    labs::{
        Call, Labs,
        feed::Feed,
        wire::{Action, Conn, Console, Consoles, ReadJournal},
    },
};

/// Largest message of a journal. Its first one has all the past lines that were asked for.
const MAX_MESSAGE: usize = 16 * 1024 * 1024;

impl Labs {
    /// Lists the consoles of a machine, one for each boot.
    ///
    /// # Errors
    /// As every call.
    pub async fn consoles(&self, play: &str, machine: &str) -> Result<Vec<String>> {
        let action = Action::ListConsoles { machine: machine.to_owned() };
        let about = format!("the consoles of machine {machine} of playground {play}");
        let call = Call::post(format!("/plays/{play}/actions"), &action, about)?;
        self.call::<Consoles>(call).await.map(|answer| answer.consoles)
    }

    /// Reads a console: everything that the machine has written to it in that boot.
    ///
    /// # Errors
    /// As every call; [`Kind::NotFound`](crate::error::Kind::NotFound) when there is none of that name.
    pub async fn console(&self, play: &str, machine: &str, console: &str) -> Result<String> {
        let action = Action::ReadConsole { machine: machine.to_owned(), console: console.to_owned() };
        let about = format!("console {console} of machine {machine} of playground {play}");
        let call = Call::post(format!("/plays/{play}/actions"), &action, about)?;
        self.call::<Console>(call).await.map(|answer| answer.content)
    }

    /// Opens the stream of a machine's journal.
    ///
    /// # Errors
    /// As every call.
    pub(crate) async fn journal(&self, play: &str, wish: &ReadJournal) -> Result<Feed> {
        let about = format!("the journal of machine {} of playground {play}", wish.machine);
        let call = Call::post(format!("/plays/{play}/journals"), wish, about.clone())?;
        let conn: Conn = self.call(call).await?;
        Ok(Feed::new(self.stream(&conn).await.map_err(|error| error.context(self.titles.named(&about)))?, MAX_MESSAGE))
    }
}
