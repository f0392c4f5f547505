//! A program on a terminal of the test's own.

use std::{
    io::{Read, Write},
    process::Child,
    sync::{Arc, mpsc},
    thread,
};

use pty_process::blocking::{Command, Pty};

use super::{PROGRAM, World, machine::PATIENCE};

pub struct OnTerminal {
    pub terminal: Arc<Pty>,
    pub child: Child,
    pub output: mpsc::Receiver<Vec<u8>>,
    /// The output that no expectation has discarded yet.
    pub seen: String,
}

impl OnTerminal {
    pub fn start(command: Command, rows: u16, columns: u16) -> OnTerminal {
        let (terminal, inner) = pty_process::blocking::open().unwrap();
        terminal.resize(pty_process::Size::new(rows, columns)).unwrap();
        let child = command.spawn(inner).unwrap();
        let terminal = Arc::new(terminal);
        let (sender, output) = mpsc::channel();
        let reader = Arc::clone(&terminal);
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            // The end of a terminal is reported as an error.
            while let Ok(n @ 1..) = (&*reader).read(&mut buffer) {
                if sender.send(buffer[..n].to_vec()).is_err() {
                    return;
                }
            }
        });
        OnTerminal { terminal, child, output, seen: String::new() }
    }

    /// Starts the program under test on the embedded platform of `world`.
    pub fn of_ours(world: &World, arguments: &[&str]) -> OnTerminal {
        let command = Command::new(PROGRAM)
            .env_clear()
            .env("HOME", world.home())
            .env("PATH", "/usr/bin:/bin")
            .env("SHELL", "/bin/sh")
            .env("TERM", "vt220")
            .current_dir(world.home())
            .arg("--local")
            .args(arguments);
        OnTerminal::start(command, 24, 80)
    }

    pub fn type_in(&self, text: &str) {
        (&*self.terminal).write_all(text.as_bytes()).unwrap();
    }

    /// Waits until `text` was shown, and discards the output up to it.
    pub fn expect(&mut self, text: &str) {
        while !self.seen.contains(text) {
            match self.output.recv_timeout(PATIENCE) {
                Ok(bytes) => self.seen.push_str(&String::from_utf8_lossy(&bytes)),
                Err(_) => panic!("no {text:?} in {:?}", self.seen),
            }
        }
        self.seen = self.seen.split_once(text).unwrap().1.to_owned();
    }

    /// The exit code.
    pub fn code(&mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }
}
