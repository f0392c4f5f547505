//! A deliberate visit to a machine: it is found, started or woken, with its progress on the terminal, and its host keys
//! are learnt.

use std::{
    borrow::Cow,
    cell::{Cell, RefCell},
    fmt,
    time::Duration,
};

use helper::wire::CONTAINER_USER;
use tokio::time::{Instant, timeout};

use crate::{
    app::App,
    commands::{
        playgrounds::attempt::{self, Answers},
        underway::Underway,
    },
    error::{Error, Kind, Result, printable},
    hold::placing::{Placing, survives},
    labs::{
        Labs, TunnelSession, catalog,
        find::{self, Found},
        learning::{self, Content},
        messages::Messages,
        tunnel,
        wire::{CatalogEntry, CreatePlay, Machine, Play, State},
    },
    records::relays::Relays,
    ssh::{client::Login, identity::Identity, learn},
    target::{POD, PREFIX, Playground, PodName, Target, reference::Reference, user},
    ui::{notice::Progress, out, spinner::Spinner},
    wake::{
        Visitor, Wake,
        preparation::{Preparation, Tasks, say_failed},
    },
};

/// Time limit for placing a relay behind a wake.
const PLACED: Duration = Duration::from_secs(3);

/// The machine that a visit leads to.
#[derive(Clone, Debug)]
pub(crate) struct Destination {
    /// The host name that ssh uses.
    pub host: String,
    /// The playground.
    pub play: Play,
    /// The machine.
    pub machine: Machine,
    /// The label of the container on it that ssh leads to, or the labels of a pod. Until `within` has found it, the name
    /// behind `--in`.
    pub container: Option<String>,
    /// The user to log in as: of the container, where one is named.
    pub user: String,
}

impl Destination {
    /// Returns true if the platform reports that the machine's SSH server answers.
    pub(crate) fn is_ready(&self) -> bool {
        let ready = self.play.machine_status(&self.machine.name).is_some_and(|status| status.is_ready());
        ready && !find::is_play_down(&self.play)
    }

    /// Returns the user that ssh has for this host name, if none is typed.
    pub(crate) fn usual_user(&self) -> &str {
        if self.container.is_some() { CONTAINER_USER } else { self.machine.default_user() }
    }

    /// Returns the user on the machine: a container is entered by root.
    pub(crate) fn machine_user(&self) -> &str {
        if self.container.is_some() { "root" } else { &self.user }
    }

    /// Returns the host name of the machine.
    pub(crate) fn machine_host(&self) -> String {
        Target::parse(&self.host).map_or_else(|_| self.host.clone(), |target| target.of_machine().to_string())
    }
}

/// A request to visit a machine.
#[derive(Clone, Debug, Default)]
pub(crate) struct Visit {
    /// `[USER@]HOST`, or the id or unique title of a playground.
    pub host: String,
    /// Consent to starting a playground by another author.
    pub consent: bool,
    /// Also wait for the playground's init tasks.
    pub wait_init: bool,
    /// Begin an attempt at the challenge, the tutorial or the lesson that the host names, with these answers. Without
    /// them none is ever begun.
    pub begins: Option<Answers>,
    /// A container of the playground. The user is one of its users.
    pub within: Option<Within>,
}

/// A container, as options name it.
#[derive(Clone, Debug)]
pub(crate) enum Within {
    /// The name, the label or the id behind `--in`.
    Container(String),
    /// The value of `--pod`.
    Pod(PodName),
}

impl Within {
    /// That of the two options that is given.
    pub(crate) fn by(container: Option<String>, pod: Option<PodName>) -> Option<Within> {
        container.map(Within::Container).or(pod.map(Within::Pod))
    }
}

impl fmt::Display for Within {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Within::Container(name) => f.write_str(name),
            Within::Pod(name) => write!(f, "{POD}.{name}"),
        }
    }
}

impl Visit {
    /// The user and the host. The page of a playground is as good as its host name.
    fn split(&self, sites: &[&str]) -> Result<(Option<&str>, Cow<'_, str>)> {
        // An address may have an @, too.
        let (name, host) = match self.host.rsplit_once('@').filter(|(name, _)| !name.contains('/')) {
            Some((name, host)) => (user(Some(name))?, host),
            None => (None, self.host.as_str()),
        };
        let page = if host.contains('/') { Reference::parse(host, sites)? } else { None };
        Ok((
            name,
            match page {
                Some(Reference::Playground(name)) => format!("{PREFIX}{name}").into(),
                Some(Reference::Play(id)) => Target::of_play(&id, None).to_string().into(),
                _ => host.into(),
            },
        ))
    }
}

/// Finds the machine without waking anything. Returns `None` for a catalogue name without a playground yet.
///
/// # Errors
/// Fails when there is no such playground, machine or user, and with the platform's errors.
pub(crate) async fn find_place(labs: &Labs, visit: &Visit) -> Result<Option<Destination>> {
    let (user, host) = visit.split(&labs.sites())?;
    let target = Target::parse(&host);
    let alias = find::aliased(labs, &host);
    let play = match &target {
        Ok(target) => match find::by_target(labs, target).await? {
            Found::Play(play) => *play,
            Found::Startable(_) => return Ok(None),
        },
        Err(_) => match &alias {
            Some(target) => find::by_alias(labs, &host, target).await?,
            None => find::by_argument(labs, &host).await?,
        },
    };
    // A catalogue name stays a catalogue name, so that host keys are recorded under the name that the user typed.
    let target = target.ok().or(alias).unwrap_or_else(|| Target::of_play(&play.id, None));
    place(target, play, user, visit).map(Some)
}

/// Finds the machine even if its playground has not been started yet. Such a playground has the name of its catalogue
/// entry as its id, and no state.
///
/// # Errors
/// As [`find_place`].
pub(crate) async fn foresee(labs: &Labs, visit: &Visit) -> Result<Destination> {
    if let Some(place) = find_place(labs, visit).await? {
        return Ok(place);
    }
    let (user, host) = visit.split(&labs.sites())?;
    let target = Target::parse(&host)?;
    let (Playground::Name(name) | Playground::Id(name)) = &target.playground;
    let machines = match catalog::entry(labs, name).await {
        Ok(entry) => entry.machines,
        Err(error) => return Err(unknown(labs, name, error).await),
    };
    let play = Play { id: name.clone(), machines, ..Play::default() };
    place(target, play, user, visit)
}

fn place(target: Target, play: Play, user: Option<&str>, visit: &Visit) -> Result<Destination> {
    let machine = find::machine(&play, target.machine.as_deref())?.clone();
    let host = target.to_string();
    let container =
        target.inside.map(|inside| inside.to_string()).or_else(|| visit.within.as_ref().map(ToString::to_string));
    let user = match container {
        // Only the container knows its users.
        Some(_) => user.unwrap_or(CONTAINER_USER),
        None => find::user(&play, &machine, user)?,
    };
    let user = user.to_owned();
    Ok(Destination { host, play, machine, container, user })
}

/// Makes the machine ready: wakes a stopped playground, or starts one by its catalogue name. Returns at once when the
/// machine is ready already.
///
/// # Errors
/// Fails when there is no such playground, machine or user, or when the machine does not become ready, and with the
/// platform's errors.
pub(crate) async fn arrive(app: &App, labs: &Labs, visit: &Visit) -> Result<Destination> {
    let underway = Underway::new(app);
    let arrived = get_there(app, labs, visit, &underway).await;
    underway.over(arrived)
}

async fn get_there(app: &App, labs: &Labs, visit: &Visit, underway: &Underway<'_>) -> Result<Destination> {
    let memory = app.memory();
    let progress = WakeProgress::new();
    let wake = Wake::wanted(labs, &memory, &progress, app.settings.wake_limit());
    let (user, host) = visit.split(&labs.sites())?;
    let found = find_place(labs, visit).await;
    let attempt = match (&found, visit.begins) {
        (Ok(Some(_)), _) | (_, None) => None,
        (_, Some(answers)) => begins(labs, &host, &found).await?.map(|content| (content, answers)),
    };
    let mut place = match (found, attempt) {
        (Ok(Some(place)), _) => place,
        (_, Some((content, answers))) => {
            let play = attempt::begin(app, labs, &content, answers, underway, &progress).await?;
            self::place(Target::of_play(&play.id, None), play, user, visit)?
        }
        (Ok(None), None) => {
            let target = Target::parse(&host)?;
            let (Playground::Name(name) | Playground::Id(name)) = &target.playground;
            let entry = self::consent(labs, name, visit.consent).await?;
            let init_conditions = catalog::defaults(&entry)?;
            underway.requests(name);
            let play = wake.start_once(&CreatePlay { init_conditions, ..CreatePlay::of(name) }).await?;
            self::place(target, play, user, visit)?
        }
        (Err(error), None) => return Err(error),
    };
    if !place.is_ready() {
        underway.waits_for(&place.play);
    }
    memory.machine_wanted(&place.play.id, &place.machine.name);
    if let Ok(Target { playground: Playground::Name(name), .. }) = Target::parse(&place.host) {
        memory.deliberate(&name);
    }
    let identity = app.identity()?;
    let key = identity.authorized_key()?;
    if place.is_ready() {
        return prepared(app, labs, visit, place, &key, &progress).await;
    }
    progress.about(&place);
    let visitor = Visitor { machine: &place.machine.name, user: place.machine_user(), key: &key };
    let session = tokio::select! {
        session = wake.tunnel(place.play.clone(), visitor) => session?,
        never = progress.follow(labs, &place.play.id) => match never {},
    };
    let by_id = Target::of_play(&place.play.id, Some(&place.machine.name)).to_string();
    let aliases = [place.machine_host(), by_id];
    let whose = learn::Owner {
        play: &place.play.id,
        shown: &place.play.shown(),
        machine: &place.machine.name,
        aliases: &aliases,
        user: place.machine_user(),
        identity: &identity,
    };
    learn::record(&app.known_hosts(), whose, || labs.dial(&session, tunnel::SSH)).await?;
    place_relay(app, labs, &place.play, (&place.machine.name, place.machine_user()), identity, session).await;
    place.play = match labs.play(&place.play.id).await {
        // The machine is ready, so a failed refresh of the play does no harm.
        Err(e) if e.may_pass() => place.play,
        play => play?,
    };
    prepared(app, labs, visit, place, &key, &progress).await
}

/// Places a relay on a machine that has just come up, so that the first session on it survives an outage. It may take
/// [`PLACED`], because the wake has taken longer, and it is no part of it: what goes wrong is in the log.
pub(crate) async fn place_relay(
    app: &App,
    labs: &Labs,
    play: &Play,
    (machine, user): (&str, &str),
    identity: Identity,
    session: TunnelSession,
) {
    let policy = app.resume_policy(&[&play.id, &play.playground.name]);
    if !survives(policy, play.belongs_to_a_lesson()) {
        return;
    }
    let placing = Placing {
        labs: labs.clone(),
        session,
        login: Login {
            alias: Target::of_play(&play.id, Some(machine)).to_string(),
            play: play.id.clone(),
            shown: play.shown(),
            machine: machine.to_owned(),
            user: user.to_owned(),
        },
        identity,
        known_hosts: app.known_hosts(),
        relays: Relays::below(&app.folders.root),
        policy,
        up_since: play.up_since(machine).map(str::to_owned),
    };
    let _ = timeout(PLACED, placing.run()).await;
}

/// Waits for the init tasks if the visit asks for it, and returns the destination with the current play.
async fn prepared(
    app: &App,
    labs: &Labs,
    visit: &Visit,
    mut place: Destination,
    key: &str,
    progress: &WakeProgress,
) -> Result<Destination> {
    if !visit.wait_init {
        return Ok(place);
    }
    // A play from a list may lack its tasks.
    let play = labs.play(&place.play.id).await?;
    let deadline = Some(Instant::now() + app.settings.wake_limit());
    let (memory, tasks) = (app.memory(), Tasks::Init);
    let wait = Preparation { labs, memory: &memory, key, progress: &progress.spinner, tasks, deadline };
    place.play = wait.wait(play).await?;
    say_failed(&place.play, tasks, app.platform, &progress.spinner);
    Ok(place)
}

/// The content to begin an attempt at: where nothing else has that name.
async fn begins(labs: &Labs, host: &str, found: &Result<Option<Destination>>) -> Result<Option<Content>> {
    if found.as_ref().is_err_and(|error| error.kind() != Kind::NotFound) {
        return Ok(None);
    }
    if let (Ok(_), Ok(Target { playground: Playground::Name(name), .. })) = (found, Target::parse(host)) {
        match labs.catalog_entry(&name).await {
            Err(error) if error.kind() == Kind::NotFound => {}
            _ => return Ok(None),
        }
    }
    attempt::meant(labs, host).await
}

/// Obtains the user's consent to starting a playground by another author than the platform. Returns the entry.
///
/// # Errors
/// [`Kind::Refused`] without consent, and the platform's errors.
pub(crate) async fn consent(labs: &Labs, name: &str, given: bool) -> Result<CatalogEntry> {
    let entry = match catalog::entry(labs, name).await {
        Ok(entry) => entry,
        Err(error) => return Err(unknown(labs, name, error).await),
    };
    if given || !catalog::needs_consent(labs, &entry).await? {
        return Ok(entry);
    }
    trust(&format!("playground {name}"), &printable(&entry.owner)).await?;
    Ok(entry)
}

/// Asks if the user trusts the author of what is to be started.
///
/// # Errors
/// [`Kind::Declined`] for a no, [`Kind::Refused`] where nothing can be asked.
pub(crate) async fn trust(what: &str, by: &str) -> Result<()> {
    match out::confirm(&format!("{what} is by {by}, who decides what runs in it. Do you trust this author?")).await {
        Some(true) => Ok(()),
        Some(false) => Err(Error::new(Kind::Declined, "Nothing was started.")),
        None => Err(Error::new(Kind::Refused, format!("{what} is by {by}, not by the platform"))
            .with_hint("if you trust its author, add --consent")),
    }
}

/// The error for a name that neither the catalogue nor a playground has.
async fn unknown(labs: &Labs, name: &str, error: Error) -> Error {
    if error.kind() != Kind::NotFound {
        return error;
    }
    match learning::explained(labs, &Reference::Name(name.to_owned())).await {
        Some(better) => better,
        None => catalog::with_nearest(labs, name, error).await,
    }
}

/// The progress of a wake: the current wait, the states, and the init tasks.
struct WakeProgress {
    spinner: Spinner,
    what: RefCell<String>,
    host: RefCell<String>,
    play: RefCell<Option<(Play, String)>>,
    /// True while the platform is out of reach, so that what is known may no longer be so.
    blind: Cell<bool>,
}

impl Progress for WakeProgress {
    fn waiting(&self, what: &str) {
        self.blind.set(false);
        what.clone_into(&mut self.what.borrow_mut());
        self.show();
    }

    fn trouble(&self, what: &str) {
        self.blind.set(true);
        what.clone_into(&mut self.what.borrow_mut());
        self.show();
    }
}

impl WakeProgress {
    fn new() -> WakeProgress {
        WakeProgress {
            spinner: Spinner::new(),
            what: RefCell::default(),
            host: RefCell::default(),
            play: RefCell::default(),
            blind: Cell::default(),
        }
    }

    fn about(&self, place: &Destination) {
        *self.host.borrow_mut() = place.play.shown();
        *self.play.borrow_mut() = Some((place.play.clone(), place.machine.name.clone()));
    }

    fn show(&self) {
        let what = self.what.borrow();
        let known = self.play.borrow().as_ref().map(|(play, machine)| known(play, machine)).unwrap_or_default();
        match (&self.host.borrow()[..], self.spinner.is_seen()) {
            (host, true) if !known.is_empty() && !self.blind.get() => self.spinner.waiting(&format!("{host}: {known}")),
            _ if what.is_empty() => {}
            _ => self.spinner.waiting(&what),
        }
    }

    /// Shows the news that the playground's live messages bring. Never returns, because it is one arm of a `select!`.
    async fn follow(&self, labs: &Labs, id: &str) -> std::convert::Infallible {
        let mut messages = Messages::of(labs, id);
        let news = async {
            // Without messages, the wake itself reports its waits.
            loop {
                let news = messages.news().await;
                if let Some((play, _)) = &mut *self.play.borrow_mut() {
                    news.apply(play);
                }
                self.show();
            }
        };
        tokio::select! {
            never = news => never,
            never = self.spinner.repeat() => never,
        }
    }
}

/// The states and the tasks, as far as the platform reports them.
fn known(play: &Play, machine: &str) -> String {
    let mut parts = Vec::new();
    parts.extend(play.state().map(word));
    parts.extend(play.machine_status(machine).map(|status| match status.state {
        // The system is up, and its SSH server is not yet.
        State::Running if !status.is_ready() => format!("{machine} booting"),
        _ => format!("{machine} {}", word(&status.state)),
    }));
    parts.extend(play.init_progress().map(|(done, all)| format!("init tasks {done} of {all}")));
    parts.join(", ")
}

fn word(state: &State) -> String {
    state.as_str().to_lowercase().replace('_', " ")
}

#[cfg(test)]
mod tests {
    use super::{Visit, known};
    use crate::labs::wire::Play;

    #[test]
    fn all_that_is_known_is_shown() {
        let play: Play = serde_json::from_str(
            r#"{"status":{"stateEvents":[{"state":"WARMING_UP"}],"machines":[{"name":"m","state":"CREATED"}]},
                "tasks":{"a":{"name":"a","init":true,"status":40},"b":{"name":"b","init":true,"status":30},
                         "c":{"name":"c","status":40}}}"#,
        )
        .unwrap();
        assert_eq!(known(&play, "m"), "warming up, m created, init tasks 1 of 2");
        assert_eq!(known(&Play::default(), "m"), "");
    }

    #[test]
    fn a_user_may_be_named_as_ssh_does() {
        let split = |host: &str| {
            let visit = Visit { host: host.into(), ..Visit::default() };
            visit.split(&["labs.example.org"]).map(|(user, host)| (user.map(str::to_owned), host.into_owned()))
        };
        assert_eq!(split("ada@playground-x").unwrap(), (Some("ada".into()), "playground-x".into()));
        assert_eq!(split("playground-x").unwrap(), (None, "playground-x".into()));
        assert!(split("-oProxyCommand=x@playground-x").is_err());
        let page = "https://labs.example.org/playgrounds/docker?mail=ada@example.org";
        assert_eq!(split(page).unwrap(), (None, "playground-docker".into()));
        let challenge = "https://labs.example.org/challenges/x#a@b";
        assert_eq!(split(challenge).unwrap(), (None, challenge.into()));
        assert!(split("https://ada@labs.example.org/playgrounds/docker").is_err());
    }
}
