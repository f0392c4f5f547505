//! From a playground whose machines start to one that can be used: each machine that has an SSH server answers, and the
//! tasks that prepare it are done. Both are the platform's word; no machine is connected to.

use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};

use crate::{
    error::{Error, Kind, Result, printable},
    labs::{
        Labs, find,
        messages::Messages,
        wire::{Play, State, Task, TaskStatus},
    },
    platform::Platform,
    records::memory::Memory,
    target::is_label,
    ui::notice::Progress,
};

/// Between two looks at the playground: live messages tell of changes in between, where the platform sends them.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// A machine that runs for so long without being ready may have no SSH server: then the platform is asked.
const DOUBT: Duration = Duration::from_secs(10);
/// The platform refuses such a machine at once, and holds the request for one that boots.
const REFUSAL: Duration = Duration::from_secs(3);
/// Between two such questions, because tunnels come out of a small pool.
const DOUBT_AGAIN: Duration = Duration::from_secs(60);
/// After a task has failed, those that wait for it never begin. Others do within this time.
const BEGINS: Duration = Duration::from_secs(10);

/// The tasks to wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tasks {
    /// None of them.
    None,
    /// Those that prepare the playground.
    Init,
    /// All but those that only help another.
    All,
}

impl Tasks {
    /// The tasks of `play` that are meant.
    fn of(self, play: &Play) -> impl Iterator<Item = &Task> {
        play.tasks.values().filter(move |task| match self {
            Tasks::None => false,
            Tasks::Init => task.init,
            Tasks::All => !task.helper,
        })
    }

    fn word(self) -> &'static str {
        if self == Tasks::Init { "init tasks" } else { "tasks" }
    }
}

/// Waits for a playground. Dropping it ends the wait.
pub(crate) struct Preparation<'a, P> {
    /// The platform.
    pub labs: &'a Labs,
    /// The records in which machines without SSH are remembered.
    pub memory: &'a Memory,
    /// The public key, as a line of authorized_keys.
    pub key: &'a str,
    /// Told about the progress.
    pub progress: &'a P,
    /// The tasks to wait for.
    pub tasks: Tasks,
    /// The moment at which the wait ends without success; `None` for a wait without end.
    pub deadline: Option<Instant>,
}

impl<P: Progress> Preparation<'_, P> {
    /// Waits until the machines are ready and the tasks are at their end, which for some may be a failure. Returns the
    /// playground as it is then.
    ///
    /// # Errors
    /// [`Kind::Ended`] and [`Kind::NotWoken`] when it goes away meanwhile, [`Kind::NotYet`] at the deadline, or the
    /// platform's.
    pub(crate) async fn wait(&self, mut play: Play) -> Result<Play> {
        let id = play.id.clone();
        learn_ssh(self.labs, self.memory, &mut play).await;
        let mut messages = Messages::of(self.labs, &id);
        let (mut doubt, mut quiet_since) = (Some(Instant::now() + DOUBT), Instant::now());
        let mut look = Instant::now() + LOOK_EVERY;
        loop {
            check_running(&play)?;
            let machine = unready(&play);
            let may_begin = quiet_since.elapsed() < BEGINS;
            if machine.is_none() && !self.tasks.of(&play).any(|task| is_awaited(self.tasks, &play, task, may_begin)) {
                return Ok(play);
            }
            self.progress.waiting(&self.line(&play, machine));
            let before = play.tasks.clone();
            let next = async {
                tokio::select! {
                    news = messages.news() => Some(news),
                    () = sleep_until(look) => None,
                }
            };
            let news = match self.deadline {
                Some(deadline) => timeout_at(deadline, next).await.map_err(|_| self.too_late(&play))?,
                None => next.await,
            };
            match news {
                Some(news) => news.apply(&mut play),
                None => {
                    play = self.look_at(&id, play).await?;
                    look = Instant::now() + LOOK_EVERY;
                }
            }
            if play.tasks != before {
                quiet_since = Instant::now();
            }
            if doubt.is_some_and(|at| Instant::now() > at)
                && let Some(name) = unready(&play).map(str::to_owned)
            {
                doubt = self.doubts(&mut play, &name).await.map(|pause| Instant::now() + pause);
            }
        }
    }

    /// Asks the platform for the playground. A network that fails for a moment ends no wait.
    async fn look_at(&self, id: &str, known: Play) -> Result<Play> {
        match find::by_id(self.labs, id).await {
            Ok(mut play) => {
                for machine in play.machines.iter_mut() {
                    machine.no_ssh |= known.has_no_ssh(&machine.name);
                }
                Ok(play)
            }
            Err(error) if error.may_pass() => {
                log::warn!("{}", error.message());
                sleep(LOOK_EVERY).await;
                Ok(known)
            }
            Err(error) => Err(error),
        }
    }

    /// Asks the platform if a machine that runs and is not ready has SSH at all. Returns the pause before the next
    /// question.
    async fn doubts(&self, play: &mut Play, name: &str) -> Option<Duration> {
        if play.machine_status(name).is_none_or(|status| status.state != State::Running) {
            return Some(DOUBT);
        }
        let user = find::machine(play, Some(name)).ok()?.default_user().to_owned();
        match timeout(REFUSAL, self.labs.start_tunnel(&play.id, name, &user, self.key)).await {
            Ok(Ok(_)) => None,
            Ok(Err(error)) if error.status() == Some(400) => {
                log::info!("machine {name}: {}", error.message());
                note_ssh(self.memory, play, &[name.to_owned()]);
                Some(Duration::ZERO)
            }
            Ok(Err(_)) | Err(_) => Some(DOUBT_AGAIN),
        }
    }

    fn line(&self, play: &Play, machine: Option<&str>) -> String {
        let title = play.shown();
        if let Some(machine) = machine {
            return format!("waiting for machine {machine} of {title}");
        }
        let all = self.tasks.of(play).count();
        let done = self.tasks.of(play).filter(|task| task.status == TaskStatus::COMPLETED).count();
        let running = self.tasks.of(play).filter(|task| task.status == TaskStatus::RUNNING);
        let names: Vec<_> = running.map(|task| printable(&task.name)).collect();
        let doing = if names.is_empty() { String::new() } else { format!(": {}", names.join(", ")) };
        format!("preparing {title}, {done} of {all} {} done{doing}", self.tasks.word())
    }

    fn too_late(&self, play: &Play) -> Error {
        let waited = self.line(play, unready(play));
        Error::new(Kind::NotYet, format!("playground {} was not ready in time: {waited}", play.shown())).with_hint(
            format!("keep waiting with `labctl-ssh-proxy wait {0}`, or see `labctl-ssh-proxy tasks {0}`", play.id),
        )
    }
}

/// True if no init task is awaited any more.
pub(crate) fn is_prepared(play: &Play) -> bool {
    !Tasks::Init.of(play).any(|task| is_awaited(Tasks::Init, play, task, false))
}

/// Names the tasks that have failed. They block nothing.
pub(crate) fn say_failed(play: &Play, tasks: Tasks, platform: Platform, progress: &impl Progress) {
    if let Some(words) = failure(play, tasks) {
        let text = format!("labctl-ssh-proxy: {words}; see `labctl-ssh-proxy tasks {}`", play.id);
        progress.above(&platform.commands(&text));
    }
}

/// The tasks that have failed, as a sentence; `None` without any.
pub(crate) fn failure(play: &Play, tasks: Tasks) -> Option<String> {
    let names = failed(play, tasks);
    let what = if names.len() == 1 { "task" } else { "tasks" };
    (!names.is_empty()).then(|| format!("{what} {} of {} failed", names.join(", "), play.shown()))
}

fn failed(play: &Play, tasks: Tasks) -> Vec<String> {
    tasks.of(play).filter(|task| task.status == TaskStatus::FAILED).map(|task| printable(&task.name)).collect()
}

/// True for a task to wait for. A failed task may keep another one from beginning, which is not waited for then.
fn is_awaited(tasks: Tasks, play: &Play, task: &Task, may_begin: bool) -> bool {
    let has = |status| tasks.of(play).any(|task| task.status == status);
    let is_stuck = has(TaskStatus::FAILED) && !has(TaskStatus::RUNNING);
    match task.status {
        status if status.is_final() => false,
        TaskStatus::BLOCKED if is_stuck => false,
        _ => !is_stuck || may_begin,
    }
}

/// The first machine that is on its way to be ready.
fn unready(play: &Play) -> Option<&str> {
    let is_starting =
        matches!(play.state(), Some(State::Created | State::WarmingUp | State::WarmedUp | State::Starting));
    let is_coming = |name: &str| match play.machine_status(name) {
        _ if play.has_no_ssh(name) => is_starting,
        Some(status) => !status.is_ready() && !matches!(status.state, State::Stopping | State::Stopped),
        None => is_starting,
    };
    play.machines.iter().map(|machine| machine.name.as_str()).find(|name| is_coming(name))
}

/// Checks that the playground itself is not down.
///
/// # Errors
/// [`Kind::NotWoken`] when it is stopped, [`Kind::Ended`] when it is gone.
pub(crate) fn check_running(play: &Play) -> Result<()> {
    let id = &play.id;
    match play.state() {
        Some(State::Stopping | State::Stopped) => {
            Err(Error::new(Kind::NotWoken, format!("playground {} is stopped", play.shown()))
                .with_hint(format!("start it with `labctl-ssh-proxy start {id}`")))
        }
        Some(State::Destroying | State::Destroyed) => {
            Err(Error::new(Kind::Ended, format!("playground {} was destroyed", play.shown())))
        }
        Some(State::Failed) => Err(Error::new(Kind::Ended, format!("playground {} has failed", play.shown()))),
        _ => Ok(()),
    }
}

/// Marks the machines of a playground that the platform allows no SSH access to. The playground tells, or our records;
/// for a playground of several machines its entry in the catalogue is asked, once.
pub(crate) async fn learn_ssh(labs: &Labs, memory: &Memory, play: &mut Play) {
    let record = memory.read(&play.id).unwrap_or_default();
    let remembered = |name: &str| record.machines.get(name).and_then(|machine| machine.ssh);
    for machine in &mut play.machines {
        machine.no_ssh |= remembered(&machine.name) == Some(false);
    }
    let is_told = !play.playground.machines.is_empty()
        || play.machines.iter().any(|machine| machine.no_ssh)
        || play.machines.iter().all(|machine| remembered(&machine.name).is_some());
    if is_told || play.machines.len() < 2 || !is_label(&play.playground.name) {
        return;
    }
    match labs.catalog_entry(&play.playground.name).await {
        Ok(entry) => {
            let without = entry.machines.into_iter().filter(|machine| machine.no_ssh).map(|machine| machine.name);
            note_ssh(memory, play, &without.collect::<Vec<_>>());
        }
        // A playground may outlive its entry.
        Err(error) if error.kind() == Kind::NotFound => note_ssh(memory, play, &[]),
        Err(error) => log::info!("{}", error.message()),
    }
}

/// Marks these machines, and remembers it of all.
fn note_ssh(memory: &Memory, play: &mut Play, without: &[String]) {
    for machine in &mut play.machines {
        machine.no_ssh |= without.contains(&machine.name);
    }
    let remembered = memory.change(&play.id, |record| {
        for machine in &play.machines {
            record.machines.entry(machine.name.clone()).or_default().ssh = Some(!machine.no_ssh);
        }
    });
    if let Err(error) = remembered {
        log::warn!("{}", error.message());
    }
}

#[cfg(test)]
mod tests {
    use super::{Tasks, failed, is_awaited, unready};
    use crate::labs::wire::Play;

    fn play(tasks: &str) -> Play {
        let tasks: Vec<_> = tasks
            .split_whitespace()
            .map(|task| {
                let (name, status) = task.split_once('=').unwrap();
                format!(
                    r#""{name}":{{"name":"{name}","init":{},"helper":{},"status":{status}}}"#,
                    name.starts_with('i'),
                    name.starts_with('h')
                )
            })
            .collect();
        serde_json::from_str(&format!(r#"{{"tasks":{{{}}}}}"#, tasks.join(","))).unwrap()
    }

    fn awaited(tasks: Tasks, play: &Play, may_begin: bool) -> Vec<&str> {
        tasks.of(play).filter(|task| is_awaited(tasks, play, task, may_begin)).map(|task| task.name.as_str()).collect()
    }

    #[test]
    fn tasks_are_waited_for_until_their_end() {
        let one = play("i1=40 i2=30 i3=20 t1=10 h1=10");
        assert_eq!(awaited(Tasks::Init, &one, true), ["i2", "i3"]);
        assert_eq!(awaited(Tasks::All, &one, false), ["i2", "i3", "t1"]);
        assert!(awaited(Tasks::None, &one, true).is_empty() && failed(&one, Tasks::All).is_empty());
    }

    #[test]
    fn a_failed_task_blocks_nothing() {
        let stuck = play("i1=40 i2=35 i3=20");
        assert!(awaited(Tasks::Init, &stuck, true).is_empty());
        assert_eq!(failed(&stuck, Tasks::Init), ["i2"]);
        assert_eq!(awaited(Tasks::Init, &play("i1=35 i2=30 i3=20"), false), ["i2", "i3"], "others go on");
        let created = play("i1=35 i2=10");
        assert_eq!(awaited(Tasks::Init, &created, true), ["i2"], "it may begin yet");
        assert!(awaited(Tasks::Init, &created, false).is_empty());
    }

    #[test]
    fn machines_are_waited_for_unless_they_have_no_ssh() {
        let mut play: Play = serde_json::from_str(
            r#"{"machines":[{"name":"a"},{"name":"b"},{"name":"c"},{"name":"d"}],
                "status":{"stateEvents":[{"state":"RUNNING"}],"machines":[
                {"name":"a","state":"RUNNING","conditions":[{"name":"Ready","status":"True"}]},
                {"name":"b","state":"STOPPED"}, {"name":"c","state":"RUNNING"}]}}"#,
        )
        .unwrap();
        assert_eq!(unready(&play), Some("c"));
        play.machines[2].no_ssh = true;
        assert_eq!(unready(&play), None);
    }
}
