//! Tasks: shell commands that run on a playground's machines after these have become ready, and hold nothing up. Those
//! that prepare it (init tasks) run once in the play's life. The others check what the user does there: each runs again
//! and again until it succeeds, or until its failcheck fails.

use std::{
    collections::HashSet,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    sync::{broadcast, watch},
    time::sleep,
};

use crate::labs::wire::{Status, Task, TaskDetails, TaskStatus};

use super::{
    super::{
        machine::Outcome,
        record,
        refusal::{Answer, no_machine, no_play},
        tunnels::Gate,
    },
    Play, World,
};

/// A task that has moved on, and the machine that it runs on.
pub(crate) type Change = (String, Task);

/// A play's live messages: the present state, and the changes from now on.
pub(crate) struct Live {
    /// The play's status.
    pub status: watch::Receiver<Status>,
    /// The tasks as they are.
    pub tasks: Vec<Change>,
    /// Their changes.
    pub changes: broadcast::Receiver<Change>,
}

fn change_of(task: &TaskDetails) -> Change {
    (task.machine.clone(), task.task.clone())
}

impl Play {
    /// Changes a task and sends the change to clients.
    fn change_task(&mut self, name: &str, change: impl FnOnce(&mut TaskDetails)) {
        let Some(task) = self.record.tasks.iter_mut().find(|task| task.task.name == name) else { return };
        change(task);
        task.task.version += 1;
        let told = change_of(task);
        self.record.updated_at = record::now();
        // This fails when no client listens.
        let _ = self.tasks.send(told);
    }

    /// Notes that the life of the machine ends, or of all machines, and running tasks with it.
    pub(super) fn interrupt_tasks(&mut self, machine: Option<&str>) {
        for task in self.record.reset_tasks(machine) {
            self.say(&task.machine, &format!("{}: interrupted", called(&task)));
            let _ = self.tasks.send(change_of(&task));
        }
    }

    /// The task that can begin next: every task that it needs is completed, and its machine is ready.
    fn next_task(&self) -> Option<(TaskDetails, u64, Arc<Gate>)> {
        let completed = self.completed();
        self.record.tasks.iter().filter(|task| task.task.status < TaskStatus::RUNNING).find_map(|task| {
            let slot = self.machines.iter().find(|slot| slot.name == task.machine)?;
            let gate = slot.gate.as_ref()?;
            let free = task.needs.iter().all(|need| completed.contains(need.as_str()));
            free.then(|| (task.clone(), slot.turn, Arc::clone(gate)))
        })
    }

    fn completed(&self) -> HashSet<&str> {
        let done = self.record.tasks.iter().filter(|task| task.task.status == TaskStatus::COMPLETED);
        done.map(|task| task.task.name.as_str()).collect()
    }

    /// The tasks on ready machines that must wait for others and are not shown as waiting yet.
    fn newly_blocked(&self) -> Vec<String> {
        let completed = self.completed();
        let waits = |task: &&TaskDetails| {
            task.task.status == TaskStatus::CREATED
                && self.machines.iter().any(|slot| slot.name == task.machine && slot.gate.is_some())
                && task.needs.iter().any(|need| !completed.contains(need.as_str()))
        };
        self.record.tasks.iter().filter(waits).map(|task| task.task.name.clone()).collect()
    }
}

impl World {
    /// A play's live messages.
    ///
    /// # Errors
    /// 404 when there is no such play.
    pub(crate) fn live(&self, id: &str) -> Answer<Live> {
        let plays = self.locked();
        let play = plays.get(id).ok_or_else(|| no_play(id))?;
        Ok(Live {
            status: play.status.subscribe(),
            tasks: play.record.tasks.iter().map(change_of).collect(),
            changes: play.tasks.subscribe(),
        })
    }

    /// The tasks of a play in full; only those of the named machines, if there are names.
    ///
    /// # Errors
    /// 404 when there is no such play or machine.
    pub(crate) fn tasks(&self, id: &str, machines: &[&str]) -> Answer<Vec<TaskDetails>> {
        let plays = self.locked();
        let play = plays.get(id).ok_or_else(|| no_play(id))?;
        for name in machines {
            play.record.machine(name).ok_or_else(|| no_machine(&play.record, name))?;
        }
        let asked = |task: &&TaskDetails| machines.is_empty() || machines.contains(&task.machine.as_str());
        let is_up = |name: &str| play.machines.iter().any(|slot| slot.name == name && slot.gate.is_some());
        let shown = |task: &TaskDetails| TaskDetails { control_plane_only: !is_up(&task.machine), ..task.clone() };
        Ok(play.record.tasks.iter().filter(asked).map(shown).collect())
    }

    /// Starts every task whose turn it is. Called when a machine has become ready and when a task has ended.
    pub(super) fn go_on(self: &Arc<Self>, play: &mut Play) {
        for name in play.newly_blocked() {
            play.change_task(&name, |task| task.task.status = TaskStatus::BLOCKED);
        }
        while let Some((task, turn, gate)) = play.next_task() {
            let name = &task.task.name;
            play.say(&task.machine, &format!("{}: running", called(&task)));
            play.change_task(name, |task| {
                task.task.status = TaskStatus::RUNNING;
                task.last_run_at = record::now();
            });
            let (world, id) = (Arc::clone(self), play.record.id.clone());
            tokio::spawn(async move { world.run_task(&id, &task, turn, &gate).await });
        }
        self.save(&play.record);
    }

    async fn run_task(self: Arc<Self>, id: &str, task: &TaskDetails, turn: u64, gate: &Gate) {
        loop {
            let began = Instant::now();
            let mut outcome = run(gate, &task.run).await;
            let is_spoilt = !task.failcheck.is_empty() && {
                let failcheck = run(gate, &task.failcheck).await;
                let is_spoilt = failcheck.code != 0;
                outcome = if is_spoilt { failcheck } else { outcome };
                is_spoilt
            };
            let took = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
            // A task that the end of its machine has interrupted runs again at the next boot.
            if task.task.init || outcome.code == 0 || is_spoilt {
                self.on_machine_turn(id, &task.machine, turn, |play| {
                    note_end(play, task, outcome, took);
                    self.note_if_solved(&play.record);
                    self.go_on(play);
                });
                return;
            }
            if !self.note_attempt(id, task, turn, outcome, took) {
                return;
            }
            sleep(CHECK_EVERY).await;
        }
    }

    /// Notes the outcome of a check that is not fulfilled yet. It is no news for clients, and not worth a write to disk.
    /// Returns false when the machine's turn is over.
    fn note_attempt(&self, id: &str, task: &TaskDetails, turn: u64, outcome: Outcome, took: u64) -> bool {
        let mut plays = self.locked();
        let Some(play) = plays.get_mut(id) else { return false };
        if play.slot(&task.machine).is_none_or(|slot| slot.turn != turn) {
            return false;
        }
        if let Some(task) = play.record.tasks.iter_mut().find(|one| one.task.name == task.task.name) {
            task.last_run_at = record::now();
            note_outcome(task, outcome, took);
        }
        true
    }
}

fn note_end(play: &mut Play, task: &TaskDetails, outcome: Outcome, took: u64) {
    let called = called(task);
    let words = match outcome.code {
        0 => format!("{called}: completed after {took} ms"),
        code => format!("{called}: failed with exit code {code} after {took} ms"),
    };
    play.say(&task.machine, &words);
    play.change_task(&task.task.name, |task| {
        task.task.status = if outcome.code == 0 { TaskStatus::COMPLETED } else { TaskStatus::FAILED };
        note_outcome(task, outcome, took);
    });
}

fn note_outcome(task: &mut TaskDetails, outcome: Outcome, took: u64) {
    task.exit_code = Some(outcome.code.into());
    (task.stdout, task.stderr) = (outcome.stdout, outcome.stderr);
    task.last_duration_ms = Some(took);
}

async fn run(gate: &Gate, command: &str) -> Outcome {
    gate.machine().run(command).await.unwrap_or_else(|e| Outcome {
        code: CANNOT_RUN,
        stdout: String::new(),
        stderr: format!("the command cannot be run: {e}\n"),
    })
}

/// The task's name in the words of a console.
fn called(task: &TaskDetails) -> String {
    let kind = if task.task.init { "init task" } else { "task" };
    format!("{kind} {}", task.task.name)
}

/// The exit code of a command that could not be started, as in shells.
const CANNOT_RUN: i32 = 126;
/// The pause between two runs of a check. Four waiting checks took 1.2 % of a processor, in a debug build.
const CHECK_EVERY: Duration = Duration::from_secs(1);
