//! A running `port-forward --json` and what it prints.

use std::{
    fs,
    io::{BufRead, BufReader},
    net::SocketAddr,
    process::{Child, ChildStdout, Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use serde_json::Value;

use super::{World, schema};

/// A running `port-forward` and its output.
pub struct Forward {
    pub child: Child,
    pub said: mpsc::Receiver<String>,
    /// The `listening` events, in order.
    pub listening: Vec<Value>,
    /// The problems that it had before it was ready.
    pub problems: Vec<String>,
}

impl Forward {
    /// Starts it on the embedded platform, and waits until it is ready.
    pub fn start(world: &World, args: &[&str]) -> Forward {
        Forward::run(world, &[&["--local", "port-forward"], args].concat())
    }

    /// Runs a whole line, and waits until it is ready.
    pub fn run(world: &World, args: &[&str]) -> Forward {
        let mut command = world.command(args);
        command.arg("--json").stdout(Stdio::piped());
        command.stderr(fs::File::create(world.home().join("forward.err")).unwrap());
        let mut child = command.spawn().unwrap();
        let said = lines(child.stdout.take().unwrap());
        let mut forward = Forward { child, said, listening: Vec::new(), problems: Vec::new() };
        loop {
            let event = forward.event(world);
            match event["event"].as_str().unwrap() {
                "listening" => forward.listening.push(event),
                "problem" => forward.problems.push(event["message"].as_str().unwrap().to_owned()),
                "ready" => return forward,
                _ => {}
            }
        }
    }

    pub fn event(&mut self, world: &World) -> Value {
        let line = self.said.recv_timeout(Duration::from_secs(60)).unwrap_or_else(|e| {
            panic!("{e}: {}", fs::read_to_string(world.home().join("forward.err")).unwrap_or_default())
        });
        said(&line)
    }

    pub fn until(&mut self, world: &World, event: &str) -> Value {
        loop {
            let said = self.event(world);
            if said["event"] == event {
                return said;
            }
        }
    }

    pub fn address(&self, i: usize) -> SocketAddr {
        self.listening[i]["address"].as_str().unwrap().parse().unwrap()
    }

    pub fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-s", signal, &pid]).status().unwrap().success());
    }

    pub fn end(mut self, signal: &str) -> i32 {
        self.signal(signal);
        self.child.wait().unwrap().code().unwrap_or(-1)
    }
}

impl Drop for Forward {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        // Events that the test has not read must also match the schema. A killed process may have left an incomplete
        // line.
        if !thread::panicking() {
            self.said.iter().filter(|line| line.ends_with('}')).for_each(|line| drop(said(&line)));
        }
    }
}

/// Parses a line and checks it against the schema.
#[track_caller]
fn said(line: &str) -> Value {
    let event = serde_json::from_str(line).unwrap();
    schema::check("forwardLine", &event);
    event
}

/// Reads the lines of the output, so that the pipe never fills up.
fn lines(stdout: ChildStdout) -> mpsc::Receiver<String> {
    let (sender, lines) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(stdout).lines() {
            let _ = sender.send(line.unwrap());
        }
    });
    lines
}
