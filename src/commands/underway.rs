//! The words when a signal ends a command that waits for a playground: the playground goes on, and costs its time.

use std::{cell::RefCell, io::IsTerminal};

use crate::{app::App, labs::wire::Play, target::Target, ui::notice};

/// A wait for a playground. Dropped before [`Underway::over`], as by a signal, it says what goes on and how to end that.
pub(crate) struct Underway<'a> {
    app: &'a App,
    going: RefCell<Option<Going>>,
}

enum Going {
    /// A new playground is being requested; its id is not known yet.
    Requested(String),
    /// A playground that starts.
    Starting { shown: String, id: String },
}

impl<'a> Underway<'a> {
    /// A wait that has requested nothing yet.
    pub(crate) fn new(app: &'a App) -> Underway<'a> {
        Underway { app, going: RefCell::default() }
    }

    /// Notes that a new playground is being requested by its catalogue name.
    pub(crate) fn requests(&self, name: &str) {
        self.going.replace(Some(Going::Requested(name.to_owned())));
    }

    /// Notes the playground that is waited for.
    pub(crate) fn waits_for(&self, play: &Play) {
        self.going.replace(Some(Going::Starting { shown: play.shown(), id: play.id.clone() }));
    }

    /// Notes the end of the wait. Returns `result`, which says all that there is to say.
    pub(crate) fn over<T>(&self, result: T) -> T {
        self.going.take();
        result
    }
}

impl Drop for Underway<'_> {
    fn drop(&mut self) {
        let (text, platform) = (self.going.take(), self.app.platform);
        let text = match text {
            None => return,
            Some(Going::Requested(name)) => platform
                .commands(&format!("{name} may have been started, and uses its time: see `labctl-ssh-proxy list`")),
            Some(Going::Starting { shown, id }) => {
                let ssh = ssh_command(self.app, &id);
                let ends = format!("`labctl-ssh-proxy stop {id}` stops it, `labctl-ssh-proxy destroy {id}` erases it");
                let ends = platform.commands(&ends);
                format!("{shown} goes on starting, and uses its time: `{ssh}` connects, {ends}")
            }
        };
        if std::io::stderr().is_terminal() {
            // It has echoed the key that was pressed.
            notice::line("");
        }
        notice::line(&text);
    }
}

/// The command that connects to a playground: plain ssh if its configuration has the playground, or else ours.
pub(crate) fn ssh_command(app: &App, id: &str) -> String {
    let host = Target::of_play(id, None).to_string();
    match crate::ssh_config::shortest(&app.folders, app.platform, &host) {
        Some(name) => format!("ssh {name}"),
        None => {
            let aliases = app.aliases();
            let name = aliases.label(id).unwrap_or(id);
            app.platform.commands(&format!("`labctl-ssh-proxy ssh {name}")).trim_start_matches('`').to_owned()
        }
    }
}
