//! `helper watch`: the containers of the machine as they change, until standard input ends.
//!
//! Docker's engine tells of each change itself, and is asked for its list after that, and not otherwise.
//! Containers of other runtimes have no events here, so they are looked for again each second.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    process::{self, ExitCode},
    sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel},
    thread,
    time::{Duration, Instant},
};

use serde::Deserialize;

use crate::{
    engine::Engine,
    list, resolve,
    wire::{Container, Listing, SIGN_OF_LIFE},
};

/// Between two looks at containers that have no events.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Least pause after a look, as a multiple of its time: a machine with very many containers has other work to do.
const PAUSE_FOR_LOOK: u32 = 20;

/// The time in which several events become one line.
const GATHER: Duration = Duration::from_millis(100);

/// The request for the events of containers. Its filters are `{"type":["container"]}`.
const EVENTS: &[u8] = b"GET /events?filters=%7B%22type%22%3A%5B%22container%22%5D%7D HTTP/1.0\r\nHost: docker\r\n\r\n";

/// Longest event. It names the labels of its container.
const MAX_EVENT: u64 = 1024 * 1024;

/// The pause before an engine that is away is connected to again.
const CONNECT_EVERY: Duration = Duration::from_millis(500);

/// Writes a `wire::Listing` at once, and again after each change. Ends with standard input.
pub fn run() -> ExitCode {
    let (ring, rung) = sync_channel(1);
    let end = || {
        // A failure to read is an end, too.
        let _ = io::copy(&mut io::stdin(), &mut io::sink());
        process::exit(0);
    };
    let threads = [thread::Builder::new().spawn(end), thread::Builder::new().spawn(move || follow(&ring))];
    if threads.iter().any(Result::is_err) {
        return ExitCode::FAILURE;
    }
    let engine = Engine::of_environment();
    let mut known = engine.as_of_now();
    let (mut looks, mut shown, mut said) = (0, None, Instant::now());
    loop {
        let began = Instant::now();
        let listing =
            resolve::list(&known).unwrap_or_else(|refusal| Listing { problem: Some(refusal), ..Listing::default() });
        let took = began.elapsed();
        // A sign of life is due in it.
        let pause = (took * PAUSE_FOR_LOOK).clamp(LOOK_EVERY, SIGN_OF_LIFE);
        // Nothing may announce that an engine answers again.
        looks = looks.max(u32::from(listing.problem.is_some()));
        if shown.as_ref().is_none_or(|shown| !is_still(shown, &listing)) {
            if list::write(&listing).is_err() {
                return ExitCode::FAILURE;
            }
            (shown, said) = (Some(listing), Instant::now());
        }
        if said.elapsed() > SIGN_OF_LIFE {
            if io::stdout().write_all(b"\n").is_err() {
                return ExitCode::FAILURE;
            }
            said = Instant::now();
        }
        match rung.recv_timeout(pause) {
            Ok(()) => {
                thread::sleep(took.clamp(GATHER, LOOK_EVERY));
                let _ = rung.try_recv();
                // The engine tells of an end before its list has it, so the list is asked for once more.
                looks = 2;
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return ExitCode::FAILURE,
        }
        if looks > 0 {
            looks -= 1;
            known = engine.as_of_now();
        }
    }
}

/// Rings at each change of the engine's containers, and when the engine comes or goes.
fn follow(ring: &SyncSender<()>) {
    let engine = Engine::of_environment();
    // A bell that rings already is enough.
    let ring = || {
        let _ = ring.try_send(());
    };
    let mut is_gone = false;
    loop {
        let ended = events(&engine, ring);
        // An engine that ends closes its streams some time before it stops to answer.
        if ended.is_err() && !is_gone {
            ring();
        }
        is_gone = ended.is_err();
        thread::sleep(CONNECT_EVERY);
    }
}

/// Calls `changed` at each event that may change the list: first when the engine answers, and last when it has ended.
fn events(engine: &Engine, changed: impl Fn()) -> io::Result<()> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Event {
        action: String,
    }
    let mut stream = engine.connect()?;
    stream.write_all(EVENTS)?;
    let (mut stream, mut line) = (BufReader::new(stream), Vec::new());
    let mut is_answered = false;
    loop {
        line.clear();
        let read = (&mut stream).take(MAX_EVENT).read_until(b'\n', &mut line);
        if !matches!(read, Ok(1..)) {
            changed();
            return read.map(drop);
        }
        // A health check is a program that runs in a container. Its result is an event of its own.
        let event = serde_json::from_slice(&line).is_ok_and(|Event { action }| !action.starts_with("exec_"));
        if event || !is_answered {
            is_answered = true;
            changed();
        }
    }
}

/// Reports whether nothing has changed but the time that has passed.
fn is_still(then: &Listing, now: &Listing) -> bool {
    let without_time = |one: &Container| Container { status: one.lasting_status().to_owned(), ..one.clone() };
    let same = |pair: (&Container, &Container)| without_time(pair.0) == without_time(pair.1);
    then.problem == now.problem
        && then.containers.len() == now.containers.len()
        && then.containers.iter().zip(&now.containers).all(same)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listing(state: &str, status: &str) -> Listing {
        let one = Container { state: state.into(), status: status.into(), ..Container::default() };
        Listing { containers: vec![one], ..Listing::default() }
    }

    #[test]
    fn time_that_passes_is_no_change() {
        let up = listing("running", "Up 3 seconds (health: starting)");
        assert!(is_still(&up, &listing("running", "Up 2 minutes (health: starting)")));
        assert!(!is_still(&up, &listing("running", "Up 4 seconds (healthy)")));
        let exited = listing("exited", "Exited (137) 3 minutes ago");
        assert!(is_still(&exited, &listing("exited", "Exited (137) 2 hours ago")));
        assert!(!is_still(&exited, &listing("exited", "Exited (0) 3 minutes ago")));
        assert!(!is_still(&exited, &Listing::default()));
        for odd in [")(", "Up", "é) (é"] {
            assert_eq!(listing("running", odd).containers[0].lasting_status(), "");
        }
    }
}
