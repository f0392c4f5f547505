//! The world of local playgrounds.
//!
//! - `actions`: the acts of clients, and the states that allow them; `turns`: the way from one state to the next.
//! - `entries`: the playgrounds that plays are made of; `attempts`: the plays of challenges, tutorials and lessons.
//! - `gates`: the ways into machines; `ports`: the ports that listen there.
//! - `tasks`: the commands that prepare a playground; `console`: the output of a machine.

mod actions;
mod attempts;
mod console;
mod entries;
mod gates;
mod ports;
mod tasks;
mod turns;

pub(super) use attempts::status;
pub(super) use console::Journal;
pub(super) use tasks::{Change, Live};

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use hyper::StatusCode;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::{broadcast, watch};

use crate::{
    error::Result,
    labs::wire::{self, PlaygroundRef, State, Status, Task},
};

use super::{
    access::random,
    blueprint::{Blueprint, Choices},
    catalog::{self, InitTask},
    custom::Customs,
    learning::{Belonging, Learning},
    machine::Endpoint,
    record::{self, MachineRecord, Record},
    refusal::{Answer, Refusal, conflict, no_play},
    tunnels::Gate,
};

use console::Console;
use turns::Next;

/// The time for which a play may run by default.
const PLAY_MINUTES: u64 = 8 * 60;
/// The time for which a destroyed play is still shown to clients that know its id.
const REMEMBERED: Duration = Duration::from_secs(10 * 60);
/// The largest number of plays, so that a script in an endless loop fills neither disk nor memory.
const MAX_PLAYS: usize = 64;

/// The number of changes of tasks by which a slow client may be behind.
const BEHIND: usize = 1024;

/// The behaviour of playgrounds.
#[derive(Clone, Debug)]
pub(super) struct Rules {
    /// The time that machines take from running to ready.
    pub boot_delay: Duration,
    /// The duration of each state that a play or a machine passes through.
    pub state_delay: Duration,
    /// The SSH server of machines.
    pub endpoint: Endpoint,
    /// Init tasks of every new playground, besides its own.
    pub init_tasks: Vec<InitTask>,
    /// The socket or folder of the container engine that programs on machines find.
    pub engine: Option<String>,
}

/// The wishes of a client that starts a playground.
pub(super) struct Wishes {
    /// The catalogue entry, or a playground of the account's own.
    pub playground: String,
    /// Its choices.
    pub choices: Choices,
    /// Consent to the safety disclaimer. There are only official playgrounds and one's own, which need none.
    pub safety_disclaimer_consent: bool,
    /// The machines, tabs, networks and init tasks that it has in place of the playground's own.
    pub changes: Blueprint,
    /// The challenge, tutorial or lesson that it is to belong to.
    pub belongs: Option<Belonging>,
}

impl Wishes {
    /// The wish for a catalogue entry as it is.
    fn of(playground: String, safety_disclaimer_consent: bool) -> Wishes {
        let (choices, changes) = (Choices::new(), Blueprint::default());
        Wishes { playground, choices, safety_disclaimer_consent, changes, belongs: None }
    }
}

/// All playgrounds of one state folder.
pub(super) struct World {
    folder: PathBuf,
    base: String,
    rules: Rules,
    learning: Learning,
    customs: Customs,
    plays: Mutex<BTreeMap<String, Play>>,
    /// The number of plays that are being created, which count already.
    in_the_making: AtomicUsize,
}

/// A play in the making.
struct Seat<'a>(&'a AtomicUsize);

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

struct Play {
    record: Record,
    status: watch::Sender<Status>,
    tasks: broadcast::Sender<Change>,
    turn: u64,
    machines: Vec<Slot>,
    destroyed: Option<Instant>,
}

/// A machine's place in a play.
struct Slot {
    name: String,
    turn: u64,
    /// Held while the machine's files are opened or a former life of it ends, because two lives must not overlap.
    life: Arc<tokio::sync::Mutex<()>>,
    /// The way in, while the machine is ready.
    gate: Option<Arc<Gate>>,
    console: Console,
}

impl Play {
    fn new(record: Record) -> Play {
        let slot = |machine: &MachineRecord| Slot {
            name: machine.name.clone(),
            turn: 0,
            life: Arc::default(),
            gate: None,
            console: Console::default(),
        };
        Play {
            status: watch::Sender::new(record.status.clone()),
            tasks: broadcast::Sender::new(BEHIND),
            turn: 0,
            machines: record.machines.iter().map(slot).collect(),
            destroyed: None,
            record,
        }
    }

    fn publish(&self) {
        self.status.send_replace(self.record.status.clone());
    }

    fn slot(&mut self, name: &str) -> Option<&mut Slot> {
        self.machines.iter_mut().find(|slot| slot.name == name)
    }
}

impl World {
    /// Opens the plays and the account's own playgrounds below `folder`. `base` is the platform's address for clients.
    ///
    /// # Errors
    /// Fails when a record cannot be read or is damaged.
    pub(super) fn open(folder: &Path, base: String, rules: Rules) -> Result<Arc<World>> {
        let (learning, customs) = (Learning::open(folder)?, Customs::open(folder.join("playgrounds"))?);
        let folder = folder.join("plays");
        let plays = record::load(&folder)?.into_iter().map(|record| (record.id.clone(), Play::new(record))).collect();
        let (plays, in_the_making) = (Mutex::new(plays), AtomicUsize::new(0));
        Ok(Arc::new(World { folder, base, rules, learning, customs, plays, in_the_making }))
    }

    /// The platform's address for clients.
    pub(super) fn base(&self) -> &str {
        &self.base
    }

    fn locked(&self) -> MutexGuard<'_, BTreeMap<String, Play>> {
        // A poisoned lock is as good as any, because a record is replaced in one step.
        let mut plays = self.plays.lock().unwrap_or_else(PoisonError::into_inner);
        plays.retain(|_, play| play.destroyed.is_none_or(|at| at.elapsed() < REMEMBERED));
        plays
    }

    /// All plays, the newest first. Those that were destroyed a short time ago are among them.
    pub(super) fn recent(&self) -> Vec<Value> {
        self.list(|_| true)
    }

    /// The plays that are kept: those that are persistent, and those that are stopped, which never expire.
    pub(super) fn kept(&self) -> Vec<Value> {
        let is_kept = |record: &Record| record.persistent || *record.state() == State::Stopped;
        self.list(|play| play.destroyed.is_none() && is_kept(&play.record))
    }

    fn list(&self, wanted: impl Fn(&Play) -> bool) -> Vec<Value> {
        let plays = self.locked();
        let mut records: Vec<&Record> = plays.values().filter(|play| wanted(play)).map(|play| &play.record).collect();
        records.sort_by(|a, b| b.created_at.cmp(&a.created_at));
        records.into_iter().map(|record| self.shown(record)).collect()
    }

    /// One play.
    ///
    /// # Errors
    /// 404 when there is no such play.
    pub(super) fn get(&self, id: &str) -> Answer<Value> {
        self.read(id, |record| Ok(self.shown(record)))
    }

    /// Looks at a play's record.
    ///
    /// # Errors
    /// 404 when there is no such play, and the errors of `look`.
    pub(super) fn read<T>(&self, id: &str, look: impl FnOnce(&Record) -> Answer<T>) -> Answer<T> {
        look(&self.locked().get(id).ok_or_else(|| no_play(id))?.record)
    }

    /// Changes a play's record, on disk first, then for all clients to see.
    ///
    /// # Errors
    /// 404 when there is no such play, 409 when it is destroyed, the errors of `change`, and 507 when it cannot be
    /// saved.
    pub(super) fn edit<T>(&self, id: &str, change: impl FnOnce(&mut Record) -> Answer<T>) -> Answer<T> {
        let mut plays = self.locked();
        let play = plays.get_mut(id).ok_or_else(|| no_play(id))?;
        if matches!(play.record.state(), State::Destroying | State::Destroyed) {
            return Err(conflict(&play.record, "it is being erased"));
        }
        let mut record = play.record.clone();
        let answer = change(&mut record)?;
        record.updated_at = record::now();
        record.save(&self.folder)?;
        play.record = record;
        play.publish();
        Ok(answer)
    }

    /// The statuses of a play, now and from now on.
    ///
    /// # Errors
    /// 404 when there is no such play.
    pub(super) fn watch(&self, id: &str) -> Answer<watch::Receiver<Status>> {
        Ok(self.locked().get(id).ok_or_else(|| no_play(id))?.status.subscribe())
    }

    /// Starts a new play of a catalogue entry.
    ///
    /// # Errors
    /// 404 when there is no such entry, 400 for a choice that it does not have, 403 when there are too many plays, 507
    /// or 500 when it cannot be made.
    pub(super) async fn create(self: &Arc<Self>, wishes: Wishes) -> Answer<Value> {
        let playground = wishes.playground;
        let blueprint = self.blueprint(&playground).ok_or_else(|| self.no_entry(&playground))?;
        let blueprint = blueprint.changed(wishes.changes);
        blueprint.check()?;
        let choices = blueprint.choose(&playground, wishes.choices)?;
        let seat = self.seat()?;
        let id = random(12);
        let mut machines = Vec::new();
        for machine in &blueprint.machines {
            let opened = self.open_machine(&id, &machine.name, machine.users.clone(), None).await;
            let opened = opened.inspect_err(|_| self.forget(&id))?;
            let (name, users) = (machine.name.clone(), opened.users());
            machines.push(MachineRecord { name, users, no_ssh: machine.no_ssh });
        }
        let plan = wishes.belongs.as_ref().and_then(Belonging::plan);
        let mut tasks = blueprint.new_tasks(&choices, &self.rules.init_tasks);
        if let (Some(plan), Some(first)) = (&plan, machines.first()) {
            let user = first.users.iter().find(|user| user.default).map_or("root", |user| &user.name);
            tasks.extend(plan.new_tasks(&first.name, user));
        }
        let created_at = record::now();
        let mut record = Record {
            title: plan.map_or_else(|| format!("{playground}-{}", &id[..4]), |plan| plan.title.to_owned()),
            id: id.clone(),
            playground,
            updated_at: created_at.clone(),
            last_state_at: created_at.clone(),
            created_at,
            started_at: Timestamp::now().as_second(),
            max_play_minutes: PLAY_MINUTES,
            persistent: false,
            erased_at_end: true,
            safety_disclaimer_consent: wishes.safety_disclaimer_consent,
            belongs: wishes.belongs,
            status: Status {
                factory_id: random(8),
                state_events: Vec::new(),
                machines: Record::new_machines(&machines),
            },
            machines,
            tasks,
            init_conditions: choices,
            tabs: blueprint.tabs,
            networks: blueprint.networks,
            port_forwards: blueprint.port_forwards,
            ports: Vec::new(),
        };
        record.enter(State::Created, false);
        record.enter_machines(&State::Created);
        record.save(&self.folder).inspect_err(|_| self.forget(&id))?;
        let mut plays = self.locked();
        // From now on the play itself is counted.
        drop(seat);
        let play = plays.entry(id).or_insert(Play::new(record));
        self.begin(play, Next::Start);
        Ok(self.shown(&play.record))
    }

    /// Room for one more play, which is taken as long as the seat is held.
    fn seat(&self) -> Answer<Seat<'_>> {
        let plays = self.locked();
        let there = plays.values().filter(|play| play.destroyed.is_none()).count();
        // Changed under the lock, except when a seat is given back.
        if there + self.in_the_making.load(Ordering::Relaxed) >= MAX_PLAYS {
            let words = format!("there are {MAX_PLAYS} playgrounds already: destroy one first");
            return Err(Refusal::new(StatusCode::FORBIDDEN, words));
        }
        self.in_the_making.fetch_add(1, Ordering::Relaxed);
        Ok(Seat(&self.in_the_making))
    }

    fn forget(&self, id: &str) {
        if let Err(e) = record::erase(&self.folder, id) {
            log::warn!("{}", e.message());
        }
    }

    /// The number of plays.
    pub(super) fn count(&self) -> usize {
        self.locked().values().filter(|play| play.destroyed.is_none()).count()
    }

    /// A play as the API shows it.
    fn shown(&self, record: &Record) -> Value {
        let mut shown = json!(self.play(record));
        shown["initConditions"] = json!(record.init_conditions);
        shown["playground"] = self.reference(record);
        shown
    }

    /// The part of it that clients of every kind know.
    fn play(&self, record: &Record) -> wire::Play {
        let left = match record.state() {
            State::Stopping | State::Stopped | State::Destroying | State::Destroyed | State::Failed => Duration::ZERO,
            _ => record.time_left(),
        };
        let task = |task: &wire::TaskDetails| (task.task.name.clone(), task.task.clone());
        let machine = |m: &MachineRecord| catalog::machine(&m.name, m.users.clone(), m.no_ssh);
        let mut play = wire::Play {
            id: record.id.clone(),
            title: record.title.clone(),
            created_at: record.created_at.clone(),
            updated_at: record.updated_at.clone(),
            last_state_at: record.last_state_at.clone(),
            expires_in: left,
            max_play_time: format!("{}h{}m0s", record.max_play_minutes / 60, record.max_play_minutes % 60),
            status: Some(record.status.clone()),
            playground: PlaygroundRef::deserialize(self.reference(record)).unwrap_or_default(),
            page_url: format!("{}/plays/{}", self.base, record.id),
            machines: record.machines.iter().map(machine).collect(),
            tasks: record.tasks.iter().map(task).collect::<BTreeMap<String, Task>>(),
            ..wire::Play::default()
        };
        if let Some(belongs) = &record.belongs {
            belongs.tell(&mut play, &self.base);
        }
        play
    }
}
