//! `helper enter`: starts the server in a container, as `docker exec` would start a program there.
//!
//! ```text
//! request -> resolve (which container) -> runtime (its shim, runc, configuration) -> users (who) -> view -> tools
//!         -> descriptors -> runc
//! ```
//!
//! The container's runtime does the entering, so that the server has the container's capabilities, seccomp filter,
//! cgroup, namespaces and labels. It is handed the configuration of the container's own process, with another user where
//! one is asked for, which is how Docker's engine itself makes an exec. Limits and file mode mask, which are inherited and
//! stand in no configuration, are the shim's.
//!
//! # This process stays
//!
//! It holds the ends of the pipes to the server (`supervise`), for four reasons:
//!
//! - **The standard streams of a session of sshd are sockets**, and a socket belongs to the network namespace that it was
//!   made in: with one of them and CAP_NET_ADMIN, a container could change the machine's interfaces (`SIOCSIFFLAGS`) or
//!   enter its network (`SIOCGSKNS`). Only pipes go into a container.
//! - runc can leave once the server runs (`--detach`). With it, a session would cost 15 MiB of memory.
//! - The reply can wait for the server's first bytes. So each failure is a sentence in the reply, runc's and the server's
//!   included.
//! - A server that does not end by itself after the end of its input, because its container is frozen or has stopped it,
//!   is killed from here.

mod signals;
mod supervise;

use std::{
    io::{self, Write},
    os::fd::OwnedFd,
    process::ExitCode,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::{
    descriptors::{self, Files, Placed, Places},
    engine::Engine,
    resolve,
    runtime::Runtime,
    serve::Settings,
    text, tools, users, view,
    wire::{self, CONTAINER_USER, Container, Refusal, RefusalKind, Reply, Request, Tools},
};

/// The time for everything that comes before the runtime is started. The engine's two answers have five seconds each. A
/// file system of the container's own making may never answer at all.
const PATIENCE: Duration = Duration::from_secs(15);

/// Everything that is needed to start the server.
struct Prepared {
    engine: Engine,
    container: Container,
    runtime: Runtime,
    files: Placed,
    /// Keeps the tools on the machine, and the view.
    _in_use: Vec<OwnedFd>,
}

/// The reply of this process, and the streams of bytes that follow it on standard output.
#[derive(Clone)]
struct Answer(Arc<Mutex<Replying>>);

struct Replying {
    is_given: bool,
    /// The end of the preparation. None once the runtime is started.
    until: Option<Instant>,
}

impl Answer {
    /// Writes the reply, unless one has been written already.
    fn give(&self, reply: &Reply) -> io::Result<bool> {
        let mut replying = self.lock();
        if replying.is_given {
            return Ok(false);
        }
        replying.is_given = !matches!(reply, Reply::Waiting(_) | Reply::Note(_));
        let mut out = io::stdout().lock();
        out.write_all(&wire::frame(reply)?)?;
        out.flush()?;
        Ok(true)
    }

    /// Says that something takes long, and gives it the time for that.
    fn wait(&self, what: &str) {
        // A client that is gone leaves it to be done for the next one.
        let _ = self.give(&Reply::Waiting(what.to_owned()));
        self.lock().until = Some(Instant::now() + Duration::from_secs(wire::WAITING_LIMIT));
    }

    fn lock(&self) -> MutexGuard<'_, Replying> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn refuse(&self, refusal: Refusal) -> ExitCode {
        // A client that is gone has no use for it.
        let _ = self.give(&Reply::Refused(refusal));
        ExitCode::FAILURE
    }
}

/// Enters the container that the request on standard input names.
pub fn run() -> ExitCode {
    let until = Some(Instant::now() + PATIENCE);
    let answer = Answer(Arc::new(Mutex::new(Replying { is_given: false, until })));
    let places = match Places::keep() {
        Ok(places) => places,
        Err(error) => {
            return answer.refuse(Refusal::new(RefusalKind::Impossible, format!("the helper cannot begin: {error}")));
        }
    };
    end_in_time(&answer);
    let request = match wire::read(&mut Unbuffered) {
        Ok(request) => request,
        Err(error) => {
            let message = format!("the helper was not asked for a container: {error}");
            return answer.refuse(Refusal::new(RefusalKind::Impossible, message));
        }
    };
    let prepared = match prepare(&request, places, &answer) {
        Ok(prepared) => prepared,
        Err(refusal) => return answer.refuse(refusal),
    };
    answer.lock().until = None;
    supervise::run(&prepared, &answer)
}

/// Ends this process with a sentence when the preparation takes too long.
fn end_in_time(answer: &Answer) {
    let (answer, begun) = (answer.clone(), Instant::now());
    thread::spawn(move || {
        signals::block();
        loop {
            let Some(until) = answer.lock().until else { return };
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let message =
                    format!("the container could not be looked at within {} seconds", begun.elapsed().as_secs());
                answer.refuse(Refusal::new(RefusalKind::Program, message));
                std::process::exit(1);
            }
            thread::sleep(left);
        }
    });
}

fn prepare(request: &Request, places: Places, answer: &Answer) -> Result<Prepared, Refusal> {
    permitted()?;
    let engine = Engine::of_environment();
    let running = resolve::running(&engine, &request.container)?;
    let mut runtime = Runtime::of(&engine, &running)?;
    let container = running.container;
    // A container's own user starts where the container does, as by `docker exec`. All others start at home.
    let directory = match runtime.process.get("cwd").and_then(Value::as_str) {
        Some(folder) if request.user == CONTAINER_USER => Some(folder.to_owned()),
        _ => None,
    };
    let group_add = &running.details.host_config.group_add;
    users::set(&mut runtime.process, &request.user, group_add, &runtime.init.folder, &container.name)?;
    let program = format!("/proc/self/fd/{}", descriptors::PROGRAM);
    runtime.process.insert("args".to_owned(), json!([program, "serve"]));
    runtime.process.insert("terminal".to_owned(), json!(false));
    runtime.process.remove("consoleSize");
    // The server goes to each session's folder itself. One that is gone must not keep it from being started.
    runtime.process.insert("cwd".to_owned(), json!("/"));

    let view = view::open(request.view, &container.id, &runtime).unwrap_or_else(|why| {
        let name = text::line(&container.name);
        // It is entered as it is.
        let _ = answer.give(&Reply::Note(format!("container {name} gets no view: {}", text::line(&why))));
        None
    });
    if view.is_some() {
        view::see_programs(&mut runtime.process);
    }
    let has_all = view.is_some() && request.tools == Tools::Auto;
    let tools = if has_all { &Tools::None } else { &request.tools };
    let lent = tools::lend(tools, &runtime.init.folder, &runtime.process, &|what| answer.wait(what))?;
    let (tools, lacking) = match &lent {
        Ok(lent) => (Some(lent.programs.clone()), String::new()),
        Err(why) => (None, why.clone()),
    };
    let (tools_mount, in_use) = lent.map_or((None, None), |lent| (Some(lent.mount), lent.in_use));
    let settings = Settings {
        tools,
        lacking,
        container: container.name.clone(),
        user: request.user.clone(),
        directory,
        host_key: request.host_key.clone(),
    };
    let settings = supervise::pipe_with(&serde_json::to_vec(&settings).map_err(|error| failed(&error.into()))?)
        .map_err(|error| failed(&error))?;
    let process = serde_json::to_vec(&runtime.process).map_err(|error| failed(&error.into()))?;
    let process = descriptors::sealed_text("labctl-ssh-proxy-process", &process)?;
    let files = Files { program: descriptors::sealed_program()?, settings, tools: tools_mount, process };
    if !runtime.init.lives() {
        return Err(resolve::ended(&engine, &container));
    }
    let files = places.fill(files).map_err(|error| failed(&error))?;
    let mut kept = Vec::from_iter(in_use);
    if let Some(view) = view {
        runtime.root = view.root;
        kept.push(view.in_use);
    }
    Ok(Prepared { engine, container, runtime, files, _in_use: kept })
}

/// Only root can enter a container.
fn permitted() -> Result<(), Refusal> {
    let user = rustix::process::geteuid();
    if user.is_root() {
        return Ok(());
    }
    let message =
        format!("only root can enter a container, and this session is of the user with uid {}", user.as_raw());
    let refusal = Refusal::new(RefusalKind::Impossible, message);
    // On a machine of the embedded platform, root is the user who runs it.
    Err(match std::env::var_os(crate::server::processes::MARKER) {
        Some(_) => refusal.with_hint("run the embedded platform as root"),
        None => refusal,
    })
}

fn failed(error: &io::Error) -> Refusal {
    Refusal::new(RefusalKind::Impossible, format!("the helper failed on the machine: {error}"))
}

/// Standard input, of which not a byte too much may be read: what follows the request is for the server.
struct Unbuffered;

impl io::Read for Unbuffered {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        Ok(rustix::io::read(rustix::stdio::stdin(), into)?)
    }
}
