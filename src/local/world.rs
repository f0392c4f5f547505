//! The world of local playgrounds: what there is, and what may be done with it. `turns`: how one state leads to the next;
//! `gates`: the ways into machines.

mod gates;
mod turns;

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use hyper::StatusCode;
use jiff::Timestamp;
use serde::Serialize;
use tokio::sync::watch;

use crate::{
    error::Result,
    labs::wire::{self, Action, State, Status},
};

use super::{
    access::random,
    catalog,
    machine::Endpoint,
    record::{self, MachineRecord, Record},
    refusal::{Answer, Refusal, conflict, machine_conflict, no_entry, no_machine, no_play},
    tunnels::Gate,
};

use turns::{Next, Power};

/// How long a play may run when nothing else is said.
const PLAY_MINUTES: u64 = 8 * 60;
/// How long a play may be asked to run: a week.
const MAX_PLAY_MINUTES: u64 = 7 * 24 * 60;
/// How long a destroyed play is still shown to those who know its id.
const REMEMBERED: Duration = Duration::from_secs(10 * 60);
/// As many plays as one may have; a script that has lost its way fills neither disk nor memory.
const MAX_PLAYS: usize = 64;
/// Longest title, in characters.
const MAX_TITLE: usize = 200;

/// A play as the API shows it.
#[derive(Clone, Debug, Serialize)]
pub struct Shown {
    #[serde(flatten)]
    play: wire::Play,
    /// As Go writes durations.
    #[serde(rename = "maxPlayTime")]
    max_play_time: String,
}

/// All playgrounds of one state folder.
pub struct World {
    folder: PathBuf,
    base: String,
    boot_delay: Duration,
    endpoint: Endpoint,
    plays: Mutex<BTreeMap<String, Play>>,
    /// Plays that are being created, which count already.
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
    turn: u64,
    machines: Vec<Slot>,
    destroyed: Option<Instant>,
}

/// A machine's place in a play.
struct Slot {
    name: String,
    turn: u64,
    /// Held while the machine's files are opened or a former life of it ends: two lives must not overlap.
    life: Arc<tokio::sync::Mutex<()>>,
    /// There while the machine is ready.
    gate: Option<Arc<Gate>>,
}

impl Play {
    fn new(record: Record) -> Play {
        let slot =
            |machine: &MachineRecord| Slot { name: machine.name.clone(), turn: 0, life: Arc::default(), gate: None };
        Play {
            status: watch::Sender::new(record.status.clone()),
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
    /// Opens the plays below `folder`. `base` is the platform's address as clients are told it.
    ///
    /// # Errors
    /// When a record cannot be read or is damaged.
    pub fn open(folder: PathBuf, base: String, boot_delay: Duration, endpoint: Endpoint) -> Result<Arc<World>> {
        let plays = record::load(&folder)?.into_iter().map(|record| (record.id.clone(), Play::new(record))).collect();
        let (plays, in_the_making) = (Mutex::new(plays), AtomicUsize::new(0));
        Ok(Arc::new(World { folder, base, boot_delay, endpoint, plays, in_the_making }))
    }

    /// The platform's address as clients are told it.
    pub fn base(&self) -> &str {
        &self.base
    }

    fn locked(&self) -> MutexGuard<'_, BTreeMap<String, Play>> {
        // A record is replaced in one step, so what a panic elsewhere left behind is whole.
        let mut plays = self.plays.lock().unwrap_or_else(PoisonError::into_inner);
        plays.retain(|_, play| play.destroyed.is_none_or(|at| at.elapsed() < REMEMBERED));
        plays
    }

    /// All plays that are not destroyed, the newest first.
    pub fn list(&self, only_persistent: bool) -> Vec<Shown> {
        let plays = self.locked();
        let mut records: Vec<&Record> = plays
            .values()
            .filter(|play| play.destroyed.is_none() && (play.record.persistent || !only_persistent))
            .map(|play| &play.record)
            .collect();
        records.sort_by(|a, b| b.created_at.cmp(&a.created_at));
        records.into_iter().map(|record| self.shown(record)).collect()
    }

    /// One play.
    ///
    /// # Errors
    /// 404 when there is no such play.
    pub fn get(&self, id: &str) -> Answer<Shown> {
        self.read(id, |record| Ok(self.shown(record)))
    }

    /// Looks at a play's record.
    ///
    /// # Errors
    /// 404 when there is no such play, and what `look` says.
    pub fn read<T>(&self, id: &str, look: impl FnOnce(&Record) -> Answer<T>) -> Answer<T> {
        look(&self.locked().get(id).ok_or_else(|| no_play(id))?.record)
    }

    /// Changes a play's record: on disk first, then for everybody to see.
    ///
    /// # Errors
    /// 404 when there is no such play, 409 when it is destroyed, what `change` says, and 507 when it cannot be saved.
    pub fn edit<T>(&self, id: &str, change: impl FnOnce(&mut Record) -> Answer<T>) -> Answer<T> {
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
    pub fn watch(&self, id: &str) -> Answer<watch::Receiver<Status>> {
        Ok(self.locked().get(id).ok_or_else(|| no_play(id))?.status.subscribe())
    }

    /// Starts a new play of a catalogue entry.
    ///
    /// # Errors
    /// 404 when there is no such entry, 403 when there are too many plays, 507 or 500 when it cannot be made.
    pub async fn create(self: &Arc<Self>, playground: &str) -> Answer<Shown> {
        let entry = catalog::find(playground).ok_or_else(|| no_entry(playground))?;
        let seat = self.seat()?;
        let id = random(12);
        let mut machines = Vec::new();
        for name in entry.machines {
            let opened = self.open_machine(&id, name, None).await;
            let opened = opened.inspect_err(|_| self.forget(&id))?;
            machines.push(MachineRecord { name: (*name).into(), users: opened.users() });
        }
        let created_at = record::now();
        let mut record = Record {
            title: format!("{playground}-{}", &id[..4]),
            id: id.clone(),
            playground: playground.into(),
            updated_at: created_at.clone(),
            last_state_at: created_at.clone(),
            created_at,
            started_at: Timestamp::now().as_second(),
            max_play_minutes: PLAY_MINUTES,
            persistent: false,
            status: Status {
                factory_id: random(8),
                state_events: Vec::new(),
                machines: Record::new_machines(entry.machines),
            },
            machines,
            port_forwards: Vec::new(),
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
        // Changed under the lock, but for those that are given back.
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

    /// Does what `POST /plays/{id}/actions` asks for, or begins to.
    ///
    /// # Errors
    /// 404 when there is no such play or machine, 409 when its state does not allow it, 400 when a value is out of
    /// range.
    pub fn act(self: &Arc<Self>, id: &str, action: Action) -> Answer<Shown> {
        match action {
            Action::MakePersistent => self.edit(id, |record| {
                record.persistent = true;
                Ok(())
            })?,
            Action::SetTitle { title } => {
                let title = title.trim();
                if title.is_empty() || title.chars().count() > MAX_TITLE || title.contains(char::is_control) {
                    let words = format!("a title has 1 to {MAX_TITLE} characters, none of them control characters");
                    return Err(Refusal::new(StatusCode::BAD_REQUEST, words));
                }
                self.edit(id, |record| {
                    record.title = title.into();
                    Ok(())
                })?;
            }
            Action::SetMaxPlayTime { minutes } => {
                if minutes > MAX_PLAY_MINUTES {
                    let words = format!("a playground runs for at most {MAX_PLAY_MINUTES} minutes");
                    return Err(Refusal::new(StatusCode::BAD_REQUEST, words));
                }
                self.edit(id, |record| {
                    record.max_play_minutes = minutes;
                    Ok(())
                })?;
            }
            Action::Stop => self.advance(id, |record| match record.state() {
                State::Stopping | State::Stopped => Err(conflict(record, "it is not running")),
                State::Destroying | State::Destroyed => Err(conflict(record, "it is being erased")),
                _ => Ok(Next::Stop),
            })?,
            Action::Restart => self.advance(id, |record| match record.state() {
                State::Stopped | State::Failed => Ok(Next::Start),
                State::Stopping => Err(conflict(record, "wait until it is stopped")),
                State::Destroying | State::Destroyed => Err(conflict(record, "it is being erased")),
                _ => Err(conflict(record, "only a stopped playground can be restarted")),
            })?,
            Action::Destroy => self.advance(id, |record| match record.state() {
                State::Destroying | State::Destroyed => Err(conflict(record, "it is being erased already")),
                _ => Ok(Next::Erase),
            })?,
            Action::StopMachine { machine } => self.advance(id, |record| match machine_state(record, &machine)? {
                State::Running | State::Rebooting => Ok(Next::Machine(machine, Power::Off)),
                state => Err(machine_conflict(&machine, state, "it is not running")),
            })?,
            Action::RestartMachine { machine } => {
                self.advance(id, |record| match machine_state(record, &machine)? {
                    State::Stopped => Ok(Next::Machine(machine, Power::On)),
                    state => Err(machine_conflict(&machine, state, "only a stopped machine can be restarted")),
                })?
            }
            Action::RebootMachine { machine } => self.advance(id, |record| match machine_state(record, &machine)? {
                State::Running => Ok(Next::Machine(machine, Power::Cycle)),
                state => Err(machine_conflict(&machine, state, "only a running machine can be rebooted")),
            })?,
        }
        self.get(id)
    }

    /// How many plays there are.
    pub fn count(&self) -> usize {
        self.locked().values().filter(|play| play.destroyed.is_none()).count()
    }

    fn shown(&self, record: &Record) -> Shown {
        let expires_in = match record.state() {
            State::Stopping | State::Stopped | State::Destroying | State::Destroyed | State::Failed => 0,
            _ => (record.expires_at() - Timestamp::now().as_second()).max(0),
        };
        let expires_in = Duration::from_secs(expires_in.unsigned_abs());
        let play = wire::Play {
            id: record.id.clone(),
            title: record.title.clone(),
            created_at: record.created_at.clone(),
            updated_at: record.updated_at.clone(),
            last_state_at: record.last_state_at.clone(),
            expires_in,
            persistent: Some(record.persistent),
            status: Some(record.status.clone()),
            playground: catalog::reference(&record.playground),
            page_url: format!("{}/plays/{}", self.base, record.id),
            machines: record.machines.iter().map(|m| catalog::machine(&m.name, m.users.clone())).collect(),
            ..wire::Play::default()
        };
        let max_play_time = format!("{}h{}m0s", record.max_play_minutes / 60, record.max_play_minutes % 60);
        Shown { play, max_play_time }
    }
}

/// The state of a machine of a running play.
fn machine_state<'a>(record: &'a Record, name: &str) -> Answer<&'a State> {
    let machine = record.status.machines.iter().find(|machine| machine.name == name);
    let machine = machine.ok_or_else(|| no_machine(record, name))?;
    if *record.state() != State::Running {
        return Err(conflict(record, "it is not running"));
    }
    Ok(&machine.state)
}
