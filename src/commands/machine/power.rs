//! `machine reboot`, `machine stop` and `machine restart`. The platform's answer only says that something has begun, so
//! each of them waits until its effect shows.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use crate::{
    app::App,
    commands::{
        machine::Which,
        playgrounds::{
            listed::report,
            stop::{END_LIMIT, no_wake_on_its_way},
        },
    },
    error::{Error, Kind, Result},
    labs::{
        Labs, find,
        messages::Messages,
        wire::{Action, Play, State},
    },
    ui::{notice::Progress, spinner::Spinner},
    wake::{Patience, TAKES_EFFECT, Wake, check_running, machine_is_stopped},
};

/// Between two looks at the machine: live messages tell of changes in between, where the platform sends them.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// The state that a command waits for.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Goal {
    Stopped,
    /// Its SSH server answers.
    Ready,
}

/// Reboots a machine, and waits until its SSH server answers again.
///
/// # Errors
/// The platform's; [`Kind::NotWoken`] when the machine or its playground is stopped; as [`Waiting::until`].
pub(super) async fn reboot(app: &App, which: Which) -> Result<()> {
    let labs = app.labs().await?;
    let (play, machine) = which.find(&labs).await?;
    check_running(&play)?;
    if state(&play, &machine) == Some(&State::Stopped) {
        return Err(machine_is_stopped(&play, &machine));
    }
    app.memory().machine_wanted(&play.id, &machine);
    app.tunnels().forget(&play.id);
    let progress = Spinner::new();
    let wait = Waiting { labs: &labs, machine: &machine, progress: &progress, doing: "rebooting" };
    let action = Action::RebootMachine { machine: machine.clone() };
    let play = wait.carry_out(&play, &action, Goal::Ready).await?;
    app.memory().note_acted();
    drop(progress);
    report(app, &play, which.json, &format!("machine {machine} of {} has rebooted", play.shown()))
}

/// Stops a machine. It stays stopped until the user wants it back.
///
/// # Errors
/// The platform's; as [`Waiting::until`].
pub(super) async fn stop(app: &App, which: Which) -> Result<()> {
    let labs = app.labs().await?;
    let (play, machine) = which.find(&labs).await?;
    let memory = app.memory();
    // Before the stop itself, because an editor that reconnects immediately must find this record.
    memory.note_machine_stopped(&play.id, &machine);
    app.tunnels().forget(&play.id);
    let progress = Spinner::new();
    // An earlier wake may be on its way to the platform. Wait for it, so that its result is stopped as well.
    for label in [format!("{}.{machine}", play.id), play.id.clone()] {
        no_wake_on_its_way(&memory, &label, &play, &progress).await?;
    }
    let mut play = labs.play(&play.id).await?;
    // The machines of a stopped playground are stopped, too.
    if !find::is_play_down(&play) && state(&play, &machine) != Some(&State::Stopped) {
        play = stop_and_wait(&labs, &play, &machine, &progress).await?;
        memory.note_acted();
    }
    drop(progress);
    report(app, &play, which.json, &format!("machine {machine} of {} is stopped", play.shown()))
}

/// Starts a machine that is stopped, or stops and starts one that runs, and waits until its SSH server answers.
///
/// # Errors
/// The platform's; [`Kind::NotWoken`] when the playground is stopped; as [`Waiting::until`].
pub(super) async fn restart(app: &App, which: Which) -> Result<()> {
    let labs = app.labs().await?;
    let (mut play, machine) = which.find(&labs).await?;
    check_running(&play)?;
    let (memory, progress) = (app.memory(), Spinner::new());
    memory.machine_wanted(&play.id, &machine);
    app.tunnels().forget(&play.id);
    if state(&play, &machine) != Some(&State::Stopped) {
        play = stop_and_wait(&labs, &play, &machine, &progress).await?;
        // Sessions that this stop has cut off may reconnect.
        memory.machine_wanted(&play.id, &machine);
    }
    let wake = Wake::wanted(&labs, &memory, &progress, app.settings.wake_limit());
    let play = wake.wake_machine(play, &machine).await?;
    memory.note_acted();
    let wait = Waiting { labs: &labs, machine: &machine, progress: &progress, doing: "starting" };
    let play = wait.until(play, None, Goal::Ready).await?;
    drop(progress);
    report(app, &play, which.json, &format!("machine {machine} of {} is running", play.shown()))
}

async fn stop_and_wait(labs: &Labs, play: &Play, machine: &str, progress: &Spinner) -> Result<Play> {
    let wait = Waiting { labs, machine, progress, doing: "stopping" };
    match state(play, machine) {
        Some(State::Stopping) => wait.until(play.clone(), None, Goal::Stopped).await,
        _ => wait.carry_out(play, &Action::StopMachine { machine: machine.to_owned() }, Goal::Stopped).await,
    }
}

fn state<'a>(play: &'a Play, machine: &str) -> Option<&'a State> {
    play.machine_status(machine).map(|status| &status.state)
}

/// The part of a machine's status that shows if something has happened to it: its state, and since when it is ready or
/// not.
#[derive(Clone, Debug, Default, PartialEq)]
struct Look {
    state: State,
    ready: bool,
    since: String,
}

impl Look {
    fn at(play: &Play, machine: &str) -> Look {
        let Some(status) = play.machine_status(machine) else { return Look::default() };
        let ready = status.conditions.iter().find(|condition| condition.name == "Ready");
        let since = ready.map(|condition| condition.last_transition_at.clone()).unwrap_or_default();
        Look { state: status.state.clone(), ready: status.is_ready(), since }
    }

    fn is_at(&self, goal: Goal) -> bool {
        match goal {
            Goal::Stopped => self.state == State::Stopped,
            Goal::Ready => self.state == State::Running && self.ready,
        }
    }
}

/// The wait for the effect of an action on a machine.
struct Waiting<'a> {
    labs: &'a Labs,
    machine: &'a str,
    progress: &'a Spinner,
    /// The action, in a word.
    doing: &'static str,
}

/// The beginning of an action.
struct Begun {
    /// The machine before it.
    before: Look,
    /// The failure that has cost its answer.
    lost: Option<Error>,
}

impl Waiting<'_> {
    /// Requests an action, and waits for its effect. After a lost answer the effect tells if it is carried out, because
    /// another request could be carried out, too.
    async fn carry_out(&self, play: &Play, action: &Action, goal: Goal) -> Result<Play> {
        self.say(play);
        let before = Look::at(play, self.machine);
        let (play, lost) = match self.labs.act_and_look(&play.id, action).await {
            Ok(play) => (play, None),
            Err(error) if error.may_have_happened() => (play.clone(), Some(error)),
            Err(error) => {
                // Another client may have been faster.
                let current = self.labs.play(&play.id).await;
                match current.ok().filter(|play| goal == Goal::Stopped && is_ending(play, self.machine)) {
                    Some(play) => (play, None),
                    None => return Err(error),
                }
            }
        };
        self.until(play, Some(Begun { before, lost }), goal).await
    }

    /// Waits until the machine is at the goal, after an action was `begun`: then the machine must change first.
    ///
    /// # Errors
    /// The platform's; [`Kind::NotYet`] in the end; [`Kind::Ended`] and [`Kind::NotWoken`] when the playground goes away
    /// meanwhile.
    async fn until(&self, mut play: Play, begun: Option<Begun>, goal: Goal) -> Result<Play> {
        let id = play.id.clone();
        let began = Instant::now();
        let mut messages = Messages::of(self.labs, &id);
        let mut patience = Patience::new();
        let mut look = began + LOOK_EVERY;
        let mut has_changed = begun.is_none();
        loop {
            if goal == Goal::Ready || !find::is_play_down(&play) {
                check_running(&play)?;
            }
            let now = Look::at(&play, self.machine);
            has_changed |= begun.as_ref().is_some_and(|begun| begun.before != now);
            if has_changed && now.is_at(goal) || goal == Goal::Stopped && find::is_play_down(&play) {
                return Ok(play);
            }
            self.say(&play);
            let limit = began + if has_changed { END_LIMIT } else { TAKES_EFFECT };
            tokio::select! {
                news = messages.news() => {
                    news.apply(&mut play);
                    continue;
                }
                () = sleep_until(look.min(limit)) => {}
            }
            if Instant::now() >= limit {
                let lost = begun.and_then(|begun| begun.lost).filter(|_| !has_changed);
                return Err(self.too_late(&play, lost, has_changed));
            }
            look = Instant::now() + LOOK_EVERY;
            match self.labs.play(&id).await {
                Ok(current) => {
                    patience.restore();
                    play = current;
                }
                Err(error) => patience.note(&error)?,
            }
        }
    }

    fn too_late(&self, play: &Play, lost: Option<Error>, has_changed: bool) -> Error {
        let Waiting { machine, doing, .. } = self;
        let (shown, id) = (play.shown(), &play.id);
        let what = format!("machine {machine} of playground {shown}");
        let see = format!("see `labctl-ssh-proxy machine console {id} {machine}`");
        match lost {
            Some(error) => error
                .context(format!("the request was lost, and {what} does not show that it is {doing}"))
                .lasting()
                .with_hint(format!("{see}, and ask again only if nothing has happened")),
            None if has_changed => Error::new(Kind::NotYet, format!("{what} is still {doing}")).with_hint(see),
            None => {
                Error::new(Kind::NotYet, format!("{what} does not show yet that it is {doing}, which was asked for"))
                    .with_hint(see)
            }
        }
    }

    fn say(&self, play: &Play) {
        self.progress.waiting(&format!("{} machine {} of {}", self.doing, self.machine, play.shown()));
    }
}

/// True for a machine that is stopped, or about to be.
fn is_ending(play: &Play, machine: &str) -> bool {
    find::is_play_down(play) || matches!(state(play, machine), Some(State::Stopping | State::Stopped))
}

#[cfg(test)]
mod tests {
    use super::{Goal, Look};
    use crate::labs::wire::Play;

    #[test]
    fn a_reboot_shows_even_if_no_state_in_between_was_seen() {
        let play = |state: &str, ready: &str, since: &str| -> Play {
            let condition = serde_json::json!({"name": "Ready", "status": ready, "lastTransitionAt": since});
            let machine = serde_json::json!({"name": "m", "state": state, "conditions": [condition]});
            serde_json::from_value(serde_json::json!({"status": {"machines": [machine]}})).unwrap()
        };
        let look = |state, ready, since| Look::at(&play(state, ready, since), "m");
        let before = look("RUNNING", "True", "2026-01-01T00:00:00Z");
        assert!(before.is_at(Goal::Ready) && !before.is_at(Goal::Stopped));
        assert_ne!(look("RUNNING", "True", "2026-01-01T00:01:00Z"), before);
        assert_ne!(look("RUNNING", "False", "2026-01-01T00:00:00Z"), before);
        assert!(!look("RUNNING", "False", "").is_at(Goal::Ready) && !look("REBOOTING", "True", "").is_at(Goal::Ready));
        assert!(look("STOPPED", "False", "").is_at(Goal::Stopped));
        assert_eq!(Look::at(&Play::default(), "m"), Look::default());
    }
}
