//! The output of `port-forward`: a live table on a terminal, lines elsewhere, JSON for programs.
//!
//! With `--json`, each line on standard output is one object with an `event` field. `forward` identifies a forward: a
//! number from 0, in the order of the `listening` lines.
//!
//! | `event` | fields | when |
//! | --- | --- | --- |
//! | `listening` | `forward`, `kind` (`local`, `remote`), `protocol` (`tcp`, `udp`, `unix`), `machine`, `container` (with `--in`), `address` (as bound, with the actual port), `to` | a forward is ready |
//! | `closed` | `forward` | with `--auto`: a forward takes no new connections, because its port has gone |
//! | `ready` | | all forwards are ready |
//! | `open` | `forward`, `connection` (a number), `peer` | a connection opened, or a UDP peer sent its first datagram |
//! | `close` | `forward`, `connection`, `sent`, `received` (bytes, to and from `to`), `error` (text, if any) | a connection ended |
//! | `traffic` | `forward`, `open`, `total`, `sent`, `received`, `dropped` (datagrams) | a counter changed; at most once a second |
//! | `waiting` | `message` | the command waits for the machine |
//! | `problem` | `message` | something failed, and the forward goes on |

use std::{
    collections::HashMap,
    io::Write,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc,
    },
    time::{Duration, Instant},
};

use console::{Term, measure_text_width};
use indicatif::BinaryBytes;
use serde_json::{Value, json};
use tokio::time::interval;

use crate::{
    error::printable,
    os,
    records::forwards::Forwards,
    ui::{
        notice::{self, Progress},
        out::{self, Expendable},
        screen::is_screen,
        stdio,
    },
};

/// Interval between two updates of the table on a terminal.
const REDRAW: Duration = Duration::from_millis(250);
/// Interval between two `traffic` lines of one forward.
const TRAFFIC: Duration = Duration::from_secs(1);
/// Minimum interval between two reports of the same problem, so that a program that retries cannot fill the screen.
const SAID: Duration = Duration::from_secs(10);

/// The line below the table that explains how to stop the command.
const ENDS: &str = "Press Ctrl-C to stop.";

/// The form of the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum View {
    /// A table on standard error that is redrawn in place.
    Table,
    /// Lines on standard error.
    Lines,
    /// Lines of JSON on standard output.
    Json,
    /// Problems only, on standard error.
    Quiet,
}

impl View {
    /// Selects the view: JSON if `json` is set, else a table or lines, depending on whether standard error is a
    /// screen.
    pub fn new(json: bool) -> View {
        match json {
            true => View::Json,
            false if is_screen(&std::io::stderr()) => View::Table,
            false => View::Lines,
        }
    }
}

/// Capacity of the queue of JSON lines. When it is full, lines are dropped, so that a slow reader never blocks a
/// connection.
const LINES: usize = 4096;
/// Time limit for writing the last lines at exit.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// The state of the output: the forwards, their counters, and the lines on the screen.
pub struct Board {
    view: View,
    /// The lines of the table on the terminal. The cursor is below them.
    drawn: Mutex<Vec<String>>,
    lines: Mutex<Option<mpsc::SyncSender<String>>>,
    written: Mutex<mpsc::Receiver<()>>,
    rows: Mutex<Vec<Arc<Row>>>,
    said: Mutex<HashMap<String, Instant>>,
    /// The record of the forwards for other processes of ours.
    record: Mutex<Option<Forwards>>,
}

/// One forward and its counters.
#[derive(Debug)]
pub struct Row {
    number: usize,
    what: What,
    open: AtomicU64,
    total: AtomicU64,
    sent: AtomicU64,
    received: AtomicU64,
    dropped: AtomicU64,
    /// True when it no longer listens. Connections may go on.
    closed: AtomicBool,
}

/// The description of a forward.
#[derive(Clone, Debug, Default)]
pub struct What {
    /// `local` or `remote`.
    pub kind: &'static str,
    /// The listener's protocol: `tcp`, `udp` or `unix`.
    pub protocol: &'static str,
    /// The machine's name.
    pub machine: String,
    /// The label of the container on it to which the forward leads instead.
    pub container: Option<String>,
    /// The listening address.
    pub address: String,
    /// The destination.
    pub to: String,
}

impl What {
    /// The words for where the other end is.
    fn end(&self) -> String {
        match &self.container {
            Some(container) => format!("in container {container} of machine {}", self.machine),
            None => format!("on machine {}", self.machine),
        }
    }
}

impl Row {
    /// Counts a datagram that was dropped because a queue or socket buffer was full.
    pub fn dropped(&self) {
        self.dropped.fetch_add(1, Ordering::Relaxed);
    }

    fn counters(&self) -> [u64; 5] {
        [&self.open, &self.total, &self.sent, &self.received, &self.dropped].map(|c| c.load(Ordering::Relaxed))
    }
}

impl Board {
    /// Creates a board without forwards.
    pub fn new(view: View) -> Arc<Board> {
        let (lines, queued) = mpsc::sync_channel::<String>(LINES);
        let (done, written) = mpsc::channel();
        if view == View::Json {
            std::thread::spawn(move || {
                for line in queued {
                    // The forwards go on even if the reader of the output is gone.
                    let _ = out::line(&line);
                }
                let _ = done.send(());
            });
        }
        let (lines, written) = (Mutex::new(Some(lines)), Mutex::new(written));
        let (drawn, rows, said) = (Mutex::default(), Mutex::default(), Mutex::default());
        Arc::new(Board { view, drawn, lines, written, rows, said, record: Mutex::default() })
    }

    /// Has the forwards to come recorded for other processes of ours.
    pub fn record(&self, record: Forwards) {
        *self.record.lock().unwrap_or_else(PoisonError::into_inner) = Some(record);
    }

    fn recorded(&self, note: impl Fn(&Forwards)) {
        self.record.lock().unwrap_or_else(PoisonError::into_inner).iter().for_each(note);
    }

    /// Returns true if the output is JSON.
    pub fn is_json(&self) -> bool {
        self.view == View::Json
    }

    fn event(&self, value: &Value) {
        if self.view == View::Json
            && let Some(lines) = &*self.lines.lock().unwrap_or_else(PoisonError::into_inner)
        {
            let _ = lines.try_send(value.to_string());
        }
    }

    fn say(&self, text: &str) {
        match self.view {
            View::Table => self.above(|| notice::line(text)),
            View::Lines | View::Quiet => notice::line(text),
            View::Json => {}
        }
    }

    /// Runs `print`, with its output above the table if there is one.
    pub fn above<T>(&self, print: impl FnOnce() -> T) -> T {
        let mut drawn = self.drawn.lock().unwrap_or_else(PoisonError::into_inner);
        if drawn.is_empty() {
            return print();
        }
        let lines = std::mem::take(&mut *drawn);
        draw(&lines, &[]);
        let printed = print();
        draw(&[], &lines);
        *drawn = lines;
        printed
    }

    /// Redraws the table, with the line `below` under it.
    fn draw_table(&self, rows: &[Arc<Row>], counters: &[[u64; 5]], below: Option<&str>) {
        if !os::stderr_takes_text() {
            return;
        }
        let (height, width) = Term::stderr().size();
        let mut lines = table(rows, counters, width.into());
        lines.extend(below.map(str::to_owned));
        // Lines that have scrolled out of sight cannot be redrawn.
        lines.truncate(usize::from(height).saturating_sub(1).max(1));
        let mut drawn = self.drawn.lock().unwrap_or_else(PoisonError::into_inner);
        draw(&drawn, &lines);
        *drawn = lines;
    }

    /// Records that a forward listens, and reports it.
    pub fn listening(&self, what: What) -> Arc<Row> {
        let mut rows = self.rows.lock().unwrap_or_else(PoisonError::into_inner);
        let row = Arc::new(Row {
            number: rows.len(),
            what,
            open: AtomicU64::default(),
            total: AtomicU64::default(),
            sent: AtomicU64::default(),
            received: AtomicU64::default(),
            dropped: AtomicU64::default(),
            closed: AtomicBool::default(),
        });
        rows.push(Arc::clone(&row));
        drop(rows);
        let What { kind, protocol, machine, container, address, to } = &row.what;
        self.recorded(|record| record.opened(container.as_deref(), [machine, kind, protocol, address, to]));
        self.event(&json!({
            "event": "listening", "forward": row.number, "kind": kind, "protocol": protocol, "machine": machine,
            "container": container, "address": address, "to": to,
        }));
        if self.view == View::Lines {
            self.say(&sentence(&row.what));
        }
        row
    }

    /// Records that a forward no longer listens, and reports it. Its connections go on.
    pub fn closed(&self, row: &Row) {
        row.closed.store(true, Ordering::Relaxed);
        self.recorded(|record| record.closed(&row.what.address));
        self.event(&json!({ "event": "closed", "forward": row.number }));
        if self.view == View::Lines {
            let What { address, to, .. } = &row.what;
            self.say(&format!("{address} on this computer no longer forwards to {to} {}", row.what.end()));
        }
    }

    /// Returns the forwards that listen now.
    pub fn listeners(&self) -> Vec<What> {
        let rows = self.rows.lock().unwrap_or_else(PoisonError::into_inner);
        rows.iter().filter(|row| !row.closed.load(Ordering::Relaxed)).map(|row| row.what.clone()).collect()
    }

    /// Returns the bytes that all forwards have carried so far, both ways.
    pub fn moved(&self) -> u64 {
        let rows = self.rows.lock().unwrap_or_else(PoisonError::into_inner);
        rows.iter().map(|row| row.sent.load(Ordering::Relaxed) + row.received.load(Ordering::Relaxed)).sum()
    }

    /// Reports that all forwards listen.
    pub fn ready(&self) {
        self.ready_with(&json!({ "event": "ready" }));
    }

    /// Reports that all forwards listen, with `event` as the JSON line.
    pub fn ready_with(&self, event: &Value) {
        self.event(event);
        if self.view == View::Lines {
            self.say(ENDS);
        }
    }

    /// Records a new connection of a forward.
    pub fn open(self: &Arc<Self>, row: &Arc<Row>, peer: &str) -> Connection {
        let number = row.total.fetch_add(1, Ordering::Relaxed);
        row.open.fetch_add(1, Ordering::Relaxed);
        self.event(&json!({ "event": "open", "forward": row.number, "connection": number, "peer": peer }));
        let (sent, received) = (AtomicU64::default(), AtomicU64::default());
        Connection { board: Arc::clone(self), row: Arc::clone(row), number, sent, received, error: None }
    }

    /// Tells people something that is no event.
    pub fn note(&self, text: &str) {
        if self.view != View::Quiet {
            self.say(text);
        }
    }

    /// Reports a failure that does not end the command.
    pub fn problem(&self, text: &str) {
        let text = printable(text);
        log::warn!("{text}");
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        said.retain(|_, at| at.elapsed() < SAID);
        if said.contains_key(&text) {
            return;
        }
        said.insert(text.clone(), Instant::now());
        drop(said);
        self.event(&json!({ "event": "problem", "message": text }));
        self.say(&format!("labctl-ssh-proxy: {text}"));
    }

    /// Updates the counters on the screen forever, as one arm of a `select!`.
    pub async fn show(&self) -> std::convert::Infallible {
        let mut tick = interval(if self.view == View::Table { REDRAW } else { TRAFFIC });
        let mut shown: Vec<[u64; 5]> = Vec::new();
        let (mut listened, mut size) = (0, Term::stderr().size());
        loop {
            tick.tick().await;
            let rows = self.rows.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let now: Vec<[u64; 5]> = rows.iter().map(|row| row.counters()).collect();
            let resized = self.view == View::Table && Term::stderr().size() != size;
            let listening = self.listeners().len();
            if now == shown && listening == listened && !resized {
                continue;
            }
            listened = listening;
            size = Term::stderr().size();
            match self.view {
                View::Table => self.draw_table(&rows, &now, Some(ENDS)),
                View::Json => {
                    for (row, counters) in rows.iter().zip(&now) {
                        if shown.get(row.number).unwrap_or(&[0; 5]) != counters {
                            let [open, total, sent, received, dropped] = counters;
                            self.event(&json!({
                                "event": "traffic", "forward": row.number, "open": open, "total": total, "sent": sent,
                                "received": received, "dropped": dropped,
                            }));
                        }
                    }
                }
                View::Lines | View::Quiet => {}
            }
            shown = now;
        }
    }

    /// Waits until the reader of the JSON lines closes its end, which means that the program that started us is gone.
    pub async fn unread(&self) {
        match self.view {
            View::Json => stdio::unread().await,
            View::Table | View::Lines | View::Quiet => std::future::pending().await,
        }
    }

    /// Draws the table for the last time, and waits for the last lines to be written.
    pub fn end(&self) {
        let rows = self.rows.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if self.view == View::Table && !rows.is_empty() {
            self.draw_table(&rows, &rows.iter().map(|row| row.counters()).collect::<Vec<_>>(), None);
        }
        drop(self.record.lock().unwrap_or_else(PoisonError::into_inner).take());
        drop(self.lines.lock().unwrap_or_else(PoisonError::into_inner).take());
        let _ = self.written.lock().unwrap_or_else(PoisonError::into_inner).recv_timeout(LAST_WORDS);
    }
}

impl Progress for Board {
    fn waiting(&self, what: &str) {
        log::info!("waiting: {what}");
        self.event(&json!({ "event": "waiting", "message": printable(what) }));
    }
}

fn sentence(what: &What) -> String {
    let What { kind, protocol, address, to, .. } = what;
    let (end, udp) = (what.end(), if *protocol == "udp" { " (UDP)" } else { "" });
    match *kind {
        "local" => format!("{address} on this computer forwards to {to} {end}{udp}"),
        _ => format!("{address} {end} forwards to {to} on this computer{udp}"),
    }
}

fn table(rows: &[Arc<Row>], counters: &[[u64; 5]], width: usize) -> Vec<String> {
    let row = |(row, [open, total, sent, received, dropped]): (&Arc<Row>, &[u64; 5])| {
        let What { kind, protocol, machine, container, address, to } = &row.what;
        let udp = if *protocol == "udp" { "/udp" } else { "" };
        let end = container.as_ref().map_or(machine.clone(), |container| format!("{machine}.{container}"));
        let (listens, leads) = match *kind {
            "local" => ("here", end.as_str()),
            _ => (end.as_str(), "here"),
        };
        let sent = match dropped {
            0 => BinaryBytes(*sent).to_string(),
            n => format!("{} ({n} dropped)", BinaryBytes(*sent)),
        };
        let ends = [format!("{listens} {address}{udp}"), format!("{leads} {to}")];
        ends.into_iter()
            .chain([open.to_string(), total.to_string(), sent, BinaryBytes(*received).to_string()])
            .collect()
    };
    // One that is closed is shown until its last connection has ended.
    let is_shown = |(row, counters): &(&Arc<Row>, &[u64; 5])| counters[0] > 0 || !row.closed.load(Ordering::Relaxed);
    let head = ["LISTENS", "FORWARDS TO", "OPEN", "TOTAL", "SENT", "RECEIVED"];
    let expendable = ["TOTAL", "RECEIVED", "SENT", "OPEN"];
    out::fitted(
        &head,
        rows.iter().zip(counters).filter(is_shown).map(row).collect(),
        &Expendable { early: &[], late: &expendable },
        Some(width),
    )
}

/// Replaces the lines `old` on the terminal with `lines`, and leaves the cursor below them.
fn draw(old: &[String], lines: &[String]) {
    // If the terminal has become narrower, it has wrapped the old lines.
    let width = usize::from(Term::stderr().size().1).max(1);
    let height: usize = old.iter().map(|line| measure_text_width(line).div_ceil(width).max(1)).sum();
    let mut text = String::new();
    if height > 0 {
        // Moves up `height` lines and erases everything from there (ECMA-48: CPL, ED).
        text += &format!("\x1b[{height}F\x1b[J");
    }
    for line in lines {
        text += line;
        text.push('\n');
    }
    // A write error means that the terminal is gone.
    let _ = std::io::stderr().write_all(text.as_bytes());
}

/// A connection of a forward. Dropping it reports its end.
pub struct Connection {
    board: Arc<Board>,
    row: Arc<Row>,
    number: u64,
    sent: AtomicU64,
    received: AtomicU64,
    error: Option<String>,
}

impl Connection {
    /// Counts bytes sent to the side that does not listen.
    pub fn sent(&self, bytes: usize) {
        self.sent.fetch_add(bytes as u64, Ordering::Relaxed);
        self.row.sent.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Counts bytes received from the side that does not listen.
    pub fn received(&self, bytes: usize) {
        self.received.fetch_add(bytes as u64, Ordering::Relaxed);
        self.row.received.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Returns the number of bytes received so far from the side that does not listen.
    pub fn so_far(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// Records the error that ended the connection.
    pub fn failed(&mut self, text: &str) {
        self.error = Some(printable(text));
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.row.open.fetch_sub(1, Ordering::Relaxed);
        let mut event = json!({
            "event": "close", "forward": self.row.number, "connection": self.number, "sent": self.sent.load(Ordering::Relaxed), "received": self.received.load(Ordering::Relaxed),
        });
        if let Some(error) = &self.error {
            event["error"] = json!(error);
        }
        self.board.event(&event);
    }
}

#[cfg(test)]
mod tests {
    use super::{Board, View, What, table};

    #[test]
    fn the_table_fits_its_terminal_and_breaks_no_address_that_it_has_room_for() {
        let board = Board::new(View::Quiet);
        let of = |kind, protocol, to: &str| {
            let (machine, address, to) = ("node-01".into(), "127.0.0.1:40973".into(), to.into());
            board.listening(What { kind, protocol, machine, address, to, ..What::default() })
        };
        let rows = [of("local", "tcp", "[2001:db8::1]:80"), of("local", "udp", "x:53"), of("remote", "tcp", "x:1")];
        let counters = [[1, 20, 300 << 20, 0, 0], [0, 0, 0, 0, 7], [0; 5]];
        for width in [120, 80, 60, 40, 20] {
            let lines = table(&rows, &counters, width);
            assert!(lines.iter().all(|line| line.len() <= width), "{lines:#?}");
        }
        let wide = table(&rows, &counters, 120);
        assert_eq!(wide.len(), 4, "{wide:#?}");
        assert!(wide[1].starts_with("here 127.0.0.1:40973      node-01 [2001:db8::1]:80"), "{wide:#?}");
        assert!(wide[2].contains("127.0.0.1:40973/udp  node-01 x:53") && wide[2].contains("(7 dropped)"), "{wide:#?}");
        assert!(wide[3].starts_with("node-01 127.0.0.1:40973  "), "{wide:#?}");
        // One that is closed is shown until its last connection has ended.
        rows.iter().for_each(|row| board.closed(row));
        let left = table(&rows, &counters, 120);
        assert!(left.len() == 2 && left[1].contains("[2001:db8::1]:80"), "{left:#?}");
        assert!(board.listeners().is_empty());
        let rows = rows.map(|row| board.listening(row.what.clone()));
        let narrow = table(&rows, &counters, 60).join("\n");
        assert!(narrow.contains("here 127.0.0.1:40973 ") && !narrow.contains("TOTAL"), "{narrow}");
    }
}
