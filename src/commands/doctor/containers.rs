//! The checks of the way into containers: of a machine that was named, and of a container that was.
//!
//! A machine is only looked at: what lies there is said, and no helper is put there. A container is checked step by step
//! as a connection goes, which puts the helper there: the machine's answer, the container, its server, the system's ssh.

use std::time::Instant;

use helper::wire::{CONTAINER_USER, Container, IDENTIFICATION, Request, Tools, View};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{
    Check, Fix, Verdict,
    there::{self, within},
};
use crate::{
    app::App,
    cluster::reading,
    commands::visit::Destination,
    door::{self, Door, ROOT, login},
    error::{Error, Kind, Result, printable},
    inside::{self, Lying, program},
    labs::{Labs, find},
    ssh::{client::SshClient, marked::Marked},
    target::{self, Inside, PodName, Target, keyed},
    ui::out::millis,
};

/// The check of what lies on the machine.
const HELPER: &str = "helper";
/// The check of the machine's engine and runtime.
const CONTAINERS: &str = "containers";
/// The check of the pod that was named.
const POD_THERE: &str = "pod";
/// The check of the container that was named.
const CONTAINER: &str = "container";
/// The check of the SSH server in it.
const SERVER: &str = "server in it";
/// The check that the system's ssh gets into it.
const BY_SSH: &str = "ssh to a container";
/// Bytes that are read of a machine's answer.
const MOST: usize = 16 * 1024;
/// SFTP's first request. Every container has SFTP, and not each has a shell.
const SFTP_INIT: &[u8] = &[0, 0, 0, 5, 1, 0, 0, 0, 3];
/// The kind of SFTP's answer to it.
const SFTP_VERSION: u8 = 2;
/// Prints facts, one a line, as `name value`. What is missing is left out.
const LOOK: &str = "PATH=$PATH:/usr/sbin:/sbin; echo system $(uname -sr); echo processor $(uname -m); \
                    echo user $(id -u); s=${DOCKER_HOST#unix://}; [ -n \"$s\" ] || s=/var/run/docker.sock; \
                    echo socket $s; [ -S \"$s\" ] && echo engine yes; [ -n \"$DOCKER_HOST\" ] || \
                    for e in podman containerd crio; do command -v $e >/dev/null && echo other $e; done; \
                    echo docker $(timeout 5 docker version -f \"{{.Server.Version}}\" 2>/dev/null); \
                    echo runtime $({ runc --version || crun --version; } 2>/dev/null | head -n 1); exit 0";

/// A container that was named.
pub(super) struct Wanted {
    /// Its host name.
    pub host: String,
    /// The user inside.
    user: String,
    /// The container, by label, or a pod.
    inside: Inside,
}

/// Splits `[USER@]HOST` of a container into the host name of its machine and the container. `None` for other words.
pub(super) fn wanted(host: &str) -> Result<Option<(String, Wanted)>> {
    let (user, name) = host.rsplit_once('@').map_or((None, host), |(user, name)| (Some(user), name));
    let Ok(target) = Target::parse(name) else { return Ok(None) };
    let (host, machine) = (target.to_string(), target.of_machine().to_string());
    let Some(inside) = target.inside else { return Ok(None) };
    let user = target::user(user)?.unwrap_or(CONTAINER_USER).to_owned();
    Ok(Some((machine, Wanted { host, user, inside })))
}

/// Makes the checks on a machine that ssh gets into.
pub(super) async fn all(
    app: &App,
    labs: &Labs,
    place: &Destination,
    wanted: Option<&Wanted>,
    say: &impl Fn(&str),
) -> Vec<Check> {
    if let Some(wanted @ Wanted { inside: Inside::Pod(name), .. }) = wanted {
        say(&format!("looking for pod {name} in its cluster"));
        return match within(pod(app, labs, place, name)).await {
            Ok((check, place, id)) => {
                let mut checks = vec![check];
                checks.extend(on_machine(app, labs, &place, Some((wanted, &id)), say).await);
                checks
            }
            Err(error) => vec![Check::failed(POD_THERE, &error)],
        };
    }
    let wanted = wanted.map(|wanted| (wanted, wanted.inside.to_string()));
    on_machine(app, labs, place, wanted.as_ref().map(|(wanted, label)| (*wanted, label.as_str())), say).await
}

/// Asks the cluster for the machine of a pod's container, and for its id there.
async fn pod(app: &App, labs: &Labs, place: &Destination, name: &PodName) -> Result<(Check, Destination, String)> {
    let on = |machine: &str| {
        let host = Target::of_play(&place.play.id, Some(machine)).to_string();
        find::machine(&place.play, Some(machine)).map(|found| Destination {
            host,
            machine: found.clone(),
            ..place.clone()
        })
    };
    let knowing = on(reading::usual_machine(&place.play).unwrap_or(&place.machine.name))?;
    let (machine, found) = door::place_of(app, labs, log_in(app, labs, &knowing).await?, name).await?;
    let words = [&found.pod, &found.container].map(|word| printable(word));
    let check = Check::ok(POD_THERE, format!("container {} of {} is on {machine}", words[1], words[0]));
    Ok((check, on(&machine)?, found.id))
}

/// Makes the checks on a machine. A container is wanted by its label or its id there.
async fn on_machine(
    app: &App,
    labs: &Labs,
    place: &Destination,
    wanted: Option<(&Wanted, &str)>,
    say: &impl Fn(&str),
) -> Vec<Check> {
    say(&format!("looking at the containers of {}", place.host));
    let name = if wanted.is_some() { CONTAINER } else { CONTAINERS };
    let client = match within(log_in(app, labs, place)).await {
        Ok(client) => client,
        Err(error) if wanted.is_some() => return vec![Check::failed(name, &error)],
        Err(error) => {
            let found = format!("cannot be entered without a login as root: {}", error.message());
            let check = Check::skipped(name, found);
            return vec![match error.hint() {
                Some(hint) => check.remedy(hint),
                None => check,
            }];
        }
    };
    let mut checks = Vec::new();
    let facts = match within(look(&client)).await {
        Ok(facts) => facts,
        Err(error) => return vec![Check::failed(name, &error)],
    };
    let packed = program::packed(facts.processor());
    let lying = within(inside::lies(&client)).await;
    let is_there =
        matches!((&packed, &lying), (Ok(packed), Ok(lying)) if lying.iter().any(|one| one.sha256 == packed.sha256));
    let own = packed.as_ref().map(|packed| (packed.sha256.as_str(), packed.gzip.len()));
    checks.push(match (lying, own) {
        (Err(error), _) => Check::failed(HELPER, &error),
        (Ok(_), Err(error)) if facts.is_linux() && facts.has_engine() => {
            Check { verdict: Verdict::Warning, ..Check::failed(HELPER, error) }
        }
        (Ok(lying), own) => helpers(place, &lying, own.ok(), wanted.is_some()),
    });
    match wanted {
        None => checks.push(containers(&client, &facts, is_there).await),
        Some(wanted) => {
            if let Err(error) = &packed {
                checks.push(Check::failed(CONTAINER, error));
                return checks;
            }
            checks.extend(container(app, place, client, &facts, wanted, say).await);
        }
    }
    checks
}

/// Removes the helpers from the machine of this host name.
pub(super) async fn remove(app: &App, host: &str) -> Result<String> {
    let labs = app.labs().await?;
    let place = there::named(&labs, host).await?;
    let client = within(log_in(app, &labs, &place)).await?;
    within(inside::remove(&client)).await?;
    client.close().await;
    Ok(format!("the helpers are removed from machine {} of {}", place.machine.name, place.play.shown()))
}

/// Logs in to the machine as the user that enters containers.
async fn log_in(app: &App, labs: &Labs, place: &Destination) -> Result<SshClient> {
    let login = login(&place.play, &place.machine.name, ROOT);
    Door::as_ssh(app, labs, &login.alias).await?.open(&login, None).await
}

/// Returns the machine's facts as it prints them.
async fn look(client: &SshClient) -> Result<Facts> {
    let marked = Marked::new();
    let output = client.output(&marked.command(LOOK), MOST).await?;
    let Some(found) = marked.find(&output.stdout) else {
        let message = format!("machine {} ran no command: {}", client.login().machine, output.complaint());
        return Err(Error::new(Kind::Program, message));
    };
    Ok(Facts::read(&String::from_utf8_lossy(found.output)))
}

/// The check of the helpers that lie there. `own` is this program's: its hash and packed size.
fn helpers(place: &Destination, lying: &[Lying], own: Option<(&str, usize)>, is_way: bool) -> Check {
    let machine = &place.machine.name;
    if lying.is_empty() {
        let size = own.map_or_else(String::new, |(_, size)| format!(", in {}", kib(size)));
        return Check::ok(
            HELPER,
            format!("none on {machine}; the first connection to a container puts it there{size}"),
        );
    }
    let days = |one: &Lying| one.unused_for.as_secs() / (24 * 60 * 60);
    let words = lying.iter().map(|one| {
        let which = match own {
            _ if one.sha256.is_empty() => "tools for containers",
            Some((sha256, _)) if sha256 == one.sha256 => "this version's",
            _ => "another version's",
        };
        let used = match days(one) {
            0 => "used today".to_owned(),
            1 => "unused for a day".to_owned(),
            days => format!("unused for {days} days"),
        };
        let size = kib(usize::try_from(one.size).unwrap_or(usize::MAX));
        format!("{} ({which}, {size}, {used})", one.path)
    });
    let check = Check::ok(HELPER, format!("on {machine}: {}", words.collect::<Vec<_>>().join(", ")));
    // A connection to the container would put it there again.
    if is_way {
        return check;
    }
    check
        .remedy(format!("`labctl-ssh-proxy doctor {} --fix` removes it from the machine", place.host))
        .fix(Fix::Helpers(place.host.clone()))
}

fn kib(size: usize) -> String {
    format!("{} KiB", size.div_ceil(1024))
}

/// The check of the machine's engine: by the helper if it is there, or by what can be seen without it.
async fn containers(client: &SshClient, facts: &Facts, is_there: bool) -> Check {
    if !facts.is_linux() || !facts.has_engine() {
        let why = if facts.is_linux() {
            format!("there is no container engine at {}", facts.socket)
        } else {
            format!("only Linux has containers to enter, and this is {}", facts.system)
        };
        return Check::skipped(CONTAINERS, why);
    }
    if !is_there {
        return match facts.obstacle() {
            Some(check) => check,
            None => Check::ok(
                CONTAINERS,
                format!("can be entered, as far as is seen without the helper: {}", facts.words()),
            ),
        };
    }
    match within(inside::list(client)).await {
        Ok(listing) => {
            let running = listing.containers.iter().filter(|one| one.state == "running").count();
            let others = listing.containers.len() - running;
            Check::ok(CONTAINERS, format!("{running} running, {others} not; {}", facts.words()))
        }
        Err(error) => Check { verdict: Verdict::Warning, ..Check::failed(CONTAINERS, &error) },
    }
}

/// The steps of a connection to a container, up to the first that fails.
async fn container(
    app: &App,
    place: &Destination,
    client: SshClient,
    facts: &Facts,
    (wanted, container): (&Wanted, &str),
    say: &impl Fn(&str),
) -> Vec<Check> {
    let began = Instant::now();
    let listing = match within(inside::list(&client)).await {
        Ok(listing) => listing,
        Err(error) => return vec![Check::failed(CONTAINERS, &error)],
    };
    let count = listing.containers.len();
    let mut checks = vec![Check::ok(
        CONTAINERS,
        format!("{count} on {}, listed in {}; {}", place.machine.name, millis(began.elapsed()), facts.words()),
    )];
    say(&format!("entering {}", wanted.host));
    let began = Instant::now();
    match within(enter(app, place, client, wanted, container)).await {
        Ok(found) => {
            let words = [&found.name, &found.image, &found.status].map(|word| printable(word));
            checks.push(Check::ok(CONTAINER, format!("{} ({}): {}", words[0], words[1], words[2])));
            let found = format!("answers as {} in {}", wanted.user, millis(began.elapsed()));
            checks.push(Check::ok(SERVER, found));
        }
        Err(error) => {
            checks.push(Check::failed(CONTAINER, &error));
            return checks;
        }
    }
    say(&format!("running ssh {}", wanted.host));
    let began = Instant::now();
    checks.push(match within(sftp(app, place, wanted)).await {
        Ok(()) => Check::ok(BY_SSH, format!("{} answers in {}", wanted.host, millis(began.elapsed()))),
        Err(error) => Check::failed(BY_SSH, &error),
    });
    checks
}

/// Starts the server in the container, and waits for its first words.
async fn enter(
    app: &App,
    place: &Destination,
    client: SshClient,
    wanted: &Wanted,
    container: &str,
) -> Result<Container> {
    let pod = match &wanted.inside {
        Inside::Pod(pod) => Some(pod),
        Inside::Container(_) => None,
    };
    let (called, label) = keyed(&place.machine.name, container, pod);
    let key = app.seeds().host_key(&place.play.id, called, &label)?;
    let request = Request {
        container: container.to_owned(),
        user: wanted.user.clone(),
        host_key: key.seed,
        tools: Tools::default(),
        view: View::Never,
    };
    let mut stream = inside::enter(client, &request, &()).await?;
    let mut words = [0; IDENTIFICATION.len()];
    let read = stream.read_exact(&mut words).await;
    if read.is_ok() && words == IDENTIFICATION.as_bytes() {
        return Ok(stream.container().clone());
    }
    let complaint = stream.outside().complaint();
    let why = if complaint.is_empty() { "it sends no identification".to_owned() } else { complaint };
    let message = format!("the SSH server in container {} does not answer: {why}", printable(&stream.container().name));
    Err(Error::new(Kind::Program, message).with_hint("run doctor again; the container may be short of memory"))
}

/// Has the system's ssh begin SFTP in the container, as any client would.
async fn sftp(app: &App, place: &Destination, wanted: &Wanted) -> Result<()> {
    let place = Destination { host: wanted.host.clone(), user: wanted.user.clone(), ..place.clone() };
    let mut there = there::There::subsystem(app, &place, "sftp")?;
    let mut answer = [0; 5];
    let sent = there.input.write_all(SFTP_INIT).await;
    if sent.is_err() || there.output.read_exact(&mut answer).await.is_err() {
        return Err(there.ended(&place).await);
    }
    match answer[4] {
        SFTP_VERSION => Ok(()),
        other => {
            Err(Error::new(Kind::Answer, format!("SFTP in the container begins with {other}, not with its version")))
        }
    }
}

/// The facts about a machine.
#[derive(Debug, Default, PartialEq, Eq)]
struct Facts {
    /// The system and the version of its kernel.
    system: String,
    processor: String,
    /// The number of the user that was logged in as root.
    user: String,
    /// The path of the engine's socket, which is there if `engine` is true.
    socket: String,
    engine: bool,
    /// The programs of other engines.
    others: Vec<String>,
    /// Docker Engine's version, from its client.
    docker: String,
    /// The first line of runc's version.
    runtime: String,
}

impl Facts {
    fn read(text: &str) -> Facts {
        let mut facts = Facts::default();
        for line in text.lines() {
            let Some((name, value)) = line.split_once(' ') else { continue };
            let value = printable(value.trim());
            match name {
                "system" => facts.system = value,
                "processor" => facts.processor = value,
                "user" => facts.user = value,
                "socket" => facts.socket = value,
                "engine" => facts.engine = true,
                "other" => facts.others.push(value),
                "docker" => facts.docker = value,
                "runtime" => facts.runtime = value,
                _ => {}
            }
        }
        facts
    }

    fn is_linux(&self) -> bool {
        self.system.starts_with("Linux")
    }

    fn has_engine(&self) -> bool {
        self.engine || !self.others.is_empty()
    }

    fn processor(&self) -> &str {
        &self.processor
    }

    /// The reason why containers cannot be entered, as far as it is seen without the helper.
    fn obstacle(&self) -> Option<Check> {
        let (why, remedy) = match self {
            Facts { user, .. } if user != "0" => (
                format!("cannot be entered: that takes root, and the machine's programs run as user {user}"),
                "run the embedded platform as root".to_owned(),
            ),
            Facts { runtime, .. } if runtime.is_empty() => {
                ("cannot be entered: there is no runc and no crun".to_owned(), "install runc on the machine".to_owned())
            }
            _ => return None,
        };
        Some(Check::new(CONTAINERS, Verdict::Warning, why).remedy(remedy))
    }

    /// The engine, the runtime and the system.
    fn words(&self) -> String {
        let docker = match (self.docker.as_str(), self.engine || self.others.is_empty()) {
            ("", true) => "an engine".to_owned(),
            ("", false) => String::new(),
            (version, _) => format!("Docker Engine {version}"),
        };
        let rest = [self.runtime.clone(), format!("{} {}", self.system, self.processor)];
        let parts = [docker].into_iter().chain(self.others.clone()).chain(rest);
        parts.filter(|part| !part.is_empty()).collect::<Vec<_>>().join(", ")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Facts, Verdict, wanted};

    const WELL: &str = "system Linux 6.1.0\nprocessor x86_64\nuser 0\nsocket /var/run/docker.sock\nengine yes\n\
                        docker 20.10.24\nruntime runc version 1.1.5\n";

    #[test]
    fn a_machine_says_what_it_has() {
        let facts = Facts::read(WELL);
        assert_eq!(facts.words(), "Docker Engine 20.10.24, runc version 1.1.5, Linux 6.1.0 x86_64");
        assert!(facts.is_linux() && facts.engine && facts.obstacle().is_none());
        let facts = Facts::read(&WELL.replace("engine yes\ndocker 20.10.24", "other podman\nother containerd\ndocker"));
        assert_eq!(facts.words(), "podman, containerd, runc version 1.1.5, Linux 6.1.0 x86_64");
        assert!(facts.has_engine() && !facts.engine);
        let facts = Facts::read("system Darwin 24\nprocessor arm64\ndocker\nruntime\n");
        assert!(!facts.is_linux() && !facts.has_engine());
        for (missing, instead, words) in
            [("user 0", "user 1000", "run as user 1000"), ("runtime runc version 1.1.5", "runtime ", "no runc")]
        {
            let check = Facts::read(&WELL.replace(missing, instead)).obstacle().unwrap();
            assert!(check.verdict == Verdict::Warning && check.found.contains(words), "{}", check.found);
        }
    }

    #[test]
    fn a_host_of_a_container_is_a_machine_and_a_container() {
        let (machine, found) = wanted("playground-docker.docker-01.web").unwrap().unwrap();
        assert_eq!(
            (machine.as_str(), found.user.as_str(), found.inside.to_string().as_str()),
            ("playground-docker.docker-01", "container", "web")
        );
        let (cluster, found) = wanted("playground-k3s.pod.shop.web-0").unwrap().unwrap();
        assert_eq!((cluster.as_str(), found.inside.to_string().as_str()), ("playground-k3s", "pod.shop.web-0"));
        let (_, found) = wanted("root@playground-docker.docker-01.web").unwrap().unwrap();
        assert_eq!((found.user.as_str(), found.host.as_str()), ("root", "playground-docker.docker-01.web"));
        for other in ["playground-docker.docker-01", "docker", "A box of Ada's", "root@playground-docker"] {
            assert!(wanted(other).unwrap().is_none(), "{other}");
        }
        assert!(wanted("-x@playground-docker.docker-01.web").is_err());
    }

    proptest! {
        #[test]
        fn no_answer_makes_them_panic(text in "(?s)((system|user|docker|engine)? ?[a-z0-9 ]{0,30}\n|.{0,40}){0,8}") {
            let facts = Facts::read(&text);
            let _ = (facts.words(), facts.obstacle().is_some());
        }
    }
}
