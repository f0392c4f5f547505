//! The way from one state to the next.
//!
//! An action changes the state at once and starts a task that does the rest. Every action also begins a new turn of the
//! play or machine that it acts on, and a task whose turn is over changes nothing.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use tokio::{
    sync::OwnedMutexGuard,
    time::{sleep, timeout},
};

use crate::{
    error::{Error, Kind, Result},
    labs::wire::{MachineUser, State, Status},
};

use super::{
    super::{
        machine::Machine,
        record::{self, Record},
        refusal::{Answer, no_play},
        tunnels::Gate,
    },
    Play, Slot, World,
};

/// The longest single wait. A long wait is a row of short ones, because the clock may be set, and does not run while a
/// laptop sleeps.
const LOOK_AT_CLOCK: Duration = Duration::from_secs(30);

/// The work that an action starts.
pub(super) enum Next {
    Start,
    Stop,
    Erase,
    Machine(String, Power),
}

#[derive(Clone, Copy, PartialEq)]
pub(super) enum Power {
    On,
    Off,
    Cycle,
}

/// The end of a machine's life, with its turn to have one.
pub(super) struct Last {
    gate: Arc<Gate>,
    life: Option<OwnedMutexGuard<()>>,
}

impl Last {
    async fn end(self) {
        self.gate.end().await;
        drop(self.life);
    }
}

impl Slot {
    /// Begins a new turn; the machine is no longer ready.
    fn take_turn(&mut self) -> (u64, Option<Last>) {
        self.turn += 1;
        // The life of a machine that is ready is free, unless a boot that has lost its turn still holds it.
        let life = Arc::clone(&self.life).try_lock_owned().ok();
        (self.turn, self.gate.take().map(|gate| Last { gate, life }))
    }
}

impl Play {
    /// Begins a new turn of the play and of all its machines; returns the lives to end.
    fn take_turn(&mut self) -> (u64, Vec<Last>) {
        self.turn += 1;
        (self.turn, self.machines.iter_mut().filter_map(|slot| slot.take_turn().1).collect())
    }
}

impl World {
    pub(super) fn advance(self: &Arc<Self>, id: &str, check: impl FnOnce(&Record) -> Answer<Next>) -> Answer<()> {
        let mut plays = self.locked();
        let play = plays.get_mut(id).ok_or_else(|| no_play(id))?;
        let next = check(&play.record)?;
        self.begin(play, next);
        Ok(())
    }

    /// Enters the first state of the work and starts the task that does the rest.
    pub(super) fn begin(self: &Arc<Self>, play: &mut Play, next: Next) {
        let (world, id) = (Arc::clone(self), play.record.id.clone());
        play.interrupt_tasks(match &next {
            Next::Start | Next::Stop | Next::Erase => None,
            Next::Machine(name, _) => Some(name.as_str()),
        });
        match next {
            Next::Start => {
                let (turn, _) = play.take_turn();
                play.record.started_at = Timestamp::now().as_second();
                if *play.record.state() != State::Created {
                    play.record.enter(State::WarmingUp, false);
                    play.record.enter_machines(&State::WarmingUp);
                }
                tokio::spawn(async move { world.start(&id, turn).await });
            }
            Next::Stop => {
                let (turn, lives) = play.take_turn();
                play.record.enter(State::Stopping, false);
                play.record.enter_machines(&State::Stopping);
                play.say_all("stopping");
                tokio::spawn(async move { world.stop(&id, turn, lives).await });
            }
            Next::Erase => {
                let (_, lives) = play.take_turn();
                play.record.enter(State::Destroying, false);
                play.record.enter_machines(&State::Stopping);
                play.say_all("stopping, to be erased");
                let ended: Vec<_> = play.machines.iter().map(|slot| Arc::clone(&slot.life)).collect();
                tokio::spawn(async move { world.erase(&id, lives, ended).await });
            }
            Next::Machine(name, power) => {
                // The check has found the machine's state, so it has a place.
                let Some(slot) = play.slot(&name) else { return };
                let (turn, last) = slot.take_turn();
                let state = match power {
                    Power::On => State::Starting,
                    Power::Off => {
                        slot.console.say("stopping");
                        State::Stopping
                    }
                    Power::Cycle => {
                        slot.console.say("rebooting");
                        State::Rebooting
                    }
                };
                play.record.enter_machine(&name, state, false, None);
                tokio::spawn(async move { world.power(&id, &name, turn, last, power).await });
            }
        }
        play.publish();
    }

    /// Changes a play unless its turn is over.
    fn on_turn(&self, id: &str, turn: u64, change: impl FnOnce(&mut Play)) -> bool {
        let mut plays = self.locked();
        let Some(play) = plays.get_mut(id).filter(|play| play.turn == turn) else { return false };
        change(play);
        play.publish();
        true
    }

    /// Changes a play unless the turn of one of its machines is over.
    pub(super) fn on_machine_turn(&self, id: &str, name: &str, turn: u64, change: impl FnOnce(&mut Play)) -> bool {
        let mut plays = self.locked();
        let Some(play) = plays.get_mut(id) else { return false };
        if play.slot(name).is_none_or(|slot| slot.turn != turn) {
            return false;
        }
        change(play);
        play.publish();
        true
    }

    async fn start(self: Arc<Self>, id: &str, turn: u64) {
        for state in [State::WarmingUp, State::WarmedUp, State::Starting, State::Running] {
            sleep(self.rules.state_delay).await;
            let entered = self.on_turn(id, turn, |play| {
                if *play.record.state() != state {
                    play.record.enter(state.clone(), false);
                }
                play.record.enter_machines(&state);
                if state == State::Running {
                    for slot in &play.machines {
                        let (world, id, name, turn) = (Arc::clone(&self), id.to_owned(), slot.name.clone(), slot.turn);
                        tokio::spawn(async move { world.boot(&id, &name, turn).await });
                    }
                }
            });
            if !entered {
                return;
            }
        }
        self.expire(id, turn).await;
    }

    /// Ends the play when its time is up, which may be changed while it runs.
    async fn expire(self: Arc<Self>, id: &str, turn: u64) {
        let Ok(mut changed) = self.watch(id) else { return };
        loop {
            changed.borrow_and_update();
            let left;
            let mine = {
                let mut plays = self.locked();
                let Some(play) = plays.get_mut(id).filter(|play| play.turn == turn) else { return };
                left = play.record.time_left();
                if left.is_zero() {
                    let kept = play.record.persistent || !play.record.erased_at_end;
                    self.begin(play, if kept { Next::Stop } else { Next::Erase });
                }
                !left.is_zero()
            };
            if !mine {
                return;
            }
            // A change and the end of the time both mean to look again.
            let _ = timeout(left.min(LOOK_AT_CLOCK), changed.changed()).await;
        }
    }

    async fn stop(&self, id: &str, turn: u64, lives: Vec<Last>) {
        end_all(lives).await;
        sleep(self.rules.state_delay).await;
        self.on_turn(id, turn, |play| {
            play.record.enter(State::Stopped, false);
            play.record.enter_machines(&State::Stopped);
            play.say_all("stopped");
            self.save(&play.record);
        });
    }

    async fn erase(&self, id: &str, lives: Vec<Last>, ended: Vec<Arc<tokio::sync::Mutex<()>>>) {
        end_all(lives).await;
        for life in ended {
            // An earlier stop may still be going on.
            drop(life.lock().await);
        }
        sleep(self.rules.state_delay).await;
        let (folder, own) = (self.folder.clone(), id.to_owned());
        let erased = tokio::task::spawn_blocking(move || record::erase(&folder, &own)).await;
        let failed = match erased {
            Ok(Ok(())) => None,
            Ok(Err(e)) => Some(e.message().to_owned()),
            Err(e) => Some(e.to_string()),
        };
        let mut plays = self.locked();
        let Some(play) = plays.get_mut(id) else { return };
        if let Some(why) = failed {
            log::error!("playground {id}: {why}");
            play.record.enter(State::Failed, true);
            for name in play.record.machines.iter().map(|machine| machine.name.clone()).collect::<Vec<_>>() {
                play.record.enter_machine(&name, State::Stopped, false, Some(why.clone()));
            }
        } else {
            play.record.enter(State::Destroyed, false);
            play.record.enter_machines(&State::Stopped);
            play.destroyed = Some(Instant::now());
        }
        play.publish();
    }

    async fn power(self: Arc<Self>, id: &str, name: &str, turn: u64, last: Option<Last>, power: Power) {
        end_all(last.into_iter().collect()).await;
        sleep(self.rules.state_delay).await;
        if power == Power::Off {
            self.on_machine_turn(id, name, turn, |play| {
                play.record.enter_machine(name, State::Stopped, false, None);
                play.say(name, "stopped");
            });
        } else {
            self.boot(id, name, turn).await;
        }
    }

    /// Boots a running machine until its SSH server answers.
    async fn boot(self: &Arc<Self>, id: &str, name: &str, turn: u64) {
        let mut life = None;
        let booting = self.on_machine_turn(id, name, turn, |play| {
            play.record.enter_machine(name, State::Running, false, Some("booting".into()));
            life = play.slot(name).map(|slot| {
                slot.console.boot();
                Arc::clone(&slot.life)
            });
        });
        let Some(life) = life.filter(|_| booting) else { return };
        sleep(self.rules.boot_delay).await;
        let life = life.lock_owned().await;
        // A task that ends or erases the machine from now on waits for its life; if one has begun before, leave the
        // machine alone.
        if !self.on_machine_turn(id, name, turn, |_| {}) {
            return;
        }
        let users = self.read(id, |record| Ok(record.machine(name).map(|machine| machine.users.clone())));
        let opened = self.open_machine(id, name, users.ok().flatten().unwrap_or_default(), Some(life)).await;
        let ready = self.on_machine_turn(id, name, turn, |play| match opened {
            Ok(machine) => {
                let no_ssh = play.record.machine(name).is_some_and(|machine| machine.no_ssh);
                // The official client's `start` waits for `Ready` of every machine, so one without SSH must have it,
                // too.
                play.say(name, if no_ssh { "ready, without SSH access" } else { "ready: its SSH server answers" });
                play.record.enter_machine(name, State::Running, true, None);
                if let Some(slot) = play.slot(name) {
                    slot.gate = Some(Arc::new(Gate::new(machine, no_ssh)));
                }
                self.go_on(play);
            }
            Err(e) => {
                play.say(name, &format!("cannot start: {}", e.message()));
                log::error!("machine {name} of playground {id}: {}", e.message());
                play.record.enter(State::Failed, true);
                play.record.enter_machine(name, State::Stopped, false, Some(e.message().to_owned()));
                self.save(&play.record);
            }
        });
        log::debug!("machine {name} of playground {id} is {}", if ready { "ready" } else { "no longer wanted" });
    }

    pub(super) async fn open_machine(
        &self,
        id: &str,
        name: &str,
        users: Vec<MachineUser>,
        life: Option<OwnedMutexGuard<()>>,
    ) -> Result<Machine> {
        let (folder, endpoint, owned) = (self.folder.join(id).join(name), self.rules.endpoint, name.to_owned());
        let engine = self.rules.engine.clone();
        // Goes on to its end even if the caller is gone, and holds the life that long.
        let opened = tokio::task::spawn_blocking(move || {
            let opened = Machine::open(&owned, &folder, endpoint, engine.as_deref());
            let opened = opened.map(|machine| machine.with_users(users));
            drop(life);
            opened
        });
        opened.await.map_err(|e| Error::new(Kind::Internal, format!("cannot open machine {name}: {e}")))?
    }

    /// Saves a record. A failure is only logged, because the platform would find the same by itself when it starts
    /// again, and a full disk must not stop anything.
    pub(super) fn save(&self, record: &Record) {
        if let Err(e) = record.save(&self.folder) {
            log::warn!("{}", e.message());
        }
    }

    /// Stops every play, and returns when all are stopped or have had time enough.
    pub(crate) async fn stop_all(self: &Arc<Self>) {
        /// The limit, because a machine that does not end its processes must not keep the platform from ending.
        const ENOUGH: Duration = Duration::from_secs(5);
        let mut changes = Vec::new();
        for play in self.locked().values_mut() {
            match play.record.state() {
                State::Stopped | State::Failed | State::Destroyed => continue,
                State::Stopping | State::Destroying => {}
                _ => self.begin(play, Next::Stop),
            }
            changes.push(play.status.subscribe());
        }
        let all = async {
            for mut changed in changes {
                let still = |status: &Status| {
                    matches!(
                        status.state_events.last().map(|event| &event.state),
                        Some(State::Stopping | State::Destroying)
                    )
                };
                // An error means that the play is gone.
                let _ = changed.wait_for(|status| !still(status)).await;
            }
        };
        if timeout(ENOUGH, all).await.is_err() {
            log::warn!("some playgrounds did not stop in time");
        }
    }
}

async fn end_all(lives: Vec<Last>) {
    let mut ends = tokio::task::JoinSet::new();
    for last in lives {
        ends.spawn(last.end());
    }
    while ends.join_next().await.is_some() {}
}
