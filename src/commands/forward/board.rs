//! What the user sees of forwards: a live table on a terminal, lines elsewhere, JSON for programs.
//!
//! With `--json` each line on standard output is one object. All have `event`; a forward is known by its `forward`, a
//! number from 0 in the order of the `listening` lines.
//!
//! | `event` | fields | when |
//! | --- | --- | --- |
//! | `listening` | `forward`, `kind` (`local`, `remote`), `protocol` (`tcp`, `udp`, `unix`), `machine`, `address` (as bound: the chosen port is in it), `to` | a forward is ready |
//! | `ready` | | all of them are |
//! | `open` | `forward`, `connection` (a number), `peer` | a connection, or a UDP peer's first datagram |
//! | `close` | `forward`, `connection`, `sent`, `received` (bytes, to and from `to`), `error` (text, if any) | its end |
//! | `traffic` | `forward`, `open`, `total`, `sent`, `received`, `dropped` (datagrams) | something moved, at most once in a second |
//! | `waiting` | `message` | the machine is waited for |
//! | `problem` | `message` | something failed and the forward goes on |

use std::{
    collections::HashMap,
    io::{IsTerminal, Write},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    time::{Duration, Instant},
};

use console::{Term, measure_text_width};
use serde_json::{Value, json};
use tokio::time::interval;

use crate::{
    error::printable,
    os,
    ui::{
        notice::{self, Progress},
        out, stdio,
    },
};

/// Between two looks at the counters on a terminal.
const REDRAW: Duration = Duration::from_millis(250);
/// Between two `traffic` lines.
const TRAFFIC: Duration = Duration::from_secs(1);
/// The same problem is not said again for this long: a program that tries again and again would fill the screen.
const SAID: Duration = Duration::from_secs(10);

/// For whoever has never seen it.
const ENDS: &str = "Ctrl-C ends it.";

/// How forwards are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum View {
    /// A table that is drawn anew where it stands, on standard error.
    Table,
    /// Lines on standard error.
    Lines,
    /// Lines of JSON on standard output.
    Json,
    /// Problems only, on standard error.
    Quiet,
}

impl View {
    /// What suits where standard error leads.
    pub fn new(json: bool) -> View {
        let is_dumb = std::env::var_os("TERM").is_none_or(|terminal| terminal == "dumb");
        match json {
            true => View::Json,
            false if std::io::stderr().is_terminal() && !is_dumb => View::Table,
            false => View::Lines,
        }
    }
}

/// Lines of JSON that wait for a reader. One that never reads loses some, and holds no connection up.
const LINES: usize = 4096;
/// For the last lines to be read.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// See the module.
pub struct Board {
    view: View,
    /// The lines of the table that is on the terminal; the cursor stands below them.
    drawn: Mutex<Vec<String>>,
    lines: Mutex<Option<mpsc::SyncSender<String>>>,
    written: Mutex<mpsc::Receiver<()>>,
    rows: Mutex<Vec<Arc<Row>>>,
    said: Mutex<HashMap<String, Instant>>,
}

/// One forward and what it has carried.
#[derive(Debug)]
pub struct Row {
    number: usize,
    what: What,
    open: AtomicU64,
    total: AtomicU64,
    sent: AtomicU64,
    received: AtomicU64,
    dropped: AtomicU64,
}

/// What a forward is.
#[derive(Clone, Debug)]
pub struct What {
    /// `local` or `remote`.
    pub kind: &'static str,
    /// `tcp`, `udp` or `unix`, by its listener.
    pub protocol: &'static str,
    /// The machine.
    pub machine: String,
    /// Where it listens.
    pub address: String,
    /// Where it leads to.
    pub to: String,
}

impl Row {
    /// A datagram found no room.
    pub fn dropped(&self) {
        self.dropped.fetch_add(1, Ordering::Relaxed);
    }

    fn counters(&self) -> [u64; 5] {
        [&self.open, &self.total, &self.sent, &self.received, &self.dropped].map(|c| c.load(Ordering::Relaxed))
    }
}

impl Board {
    /// A board without forwards.
    pub fn new(view: View) -> Arc<Board> {
        let (lines, queued) = mpsc::sync_channel::<String>(LINES);
        let (done, written) = mpsc::channel();
        if view == View::Json {
            std::thread::spawn(move || {
                for line in queued {
                    // A reader that has gone is no reason to end the forwards.
                    let _ = out::line(&line);
                }
                let _ = done.send(());
            });
        }
        let (lines, written) = (Mutex::new(Some(lines)), Mutex::new(written));
        let (drawn, rows, said) = (Mutex::default(), Mutex::default(), Mutex::default());
        Arc::new(Board { view, drawn, lines, written, rows, said })
    }

    /// Whether it speaks JSON.
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

    /// Lets something be printed, above the table if there is one.
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

    /// Draws the table anew, with `below` under it.
    fn draw_table(&self, rows: &[Arc<Row>], counters: &[[u64; 5]], below: Option<&str>) {
        if !os::stderr_takes_text() {
            return;
        }
        let (height, width) = Term::stderr().size();
        let mut lines = table(rows, counters, width.into());
        lines.extend(below.map(str::to_owned));
        // What has scrolled out of sight could not be drawn over.
        lines.truncate(usize::from(height).saturating_sub(1).max(1));
        let mut drawn = self.drawn.lock().unwrap_or_else(PoisonError::into_inner);
        draw(&drawn, &lines);
        *drawn = lines;
    }

    /// A forward listens from now on.
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
        });
        rows.push(Arc::clone(&row));
        drop(rows);
        let What { kind, protocol, machine, address, to } = &row.what;
        self.event(&json!({
            "event": "listening", "forward": row.number, "kind": kind, "protocol": protocol, "machine": machine,
            "address": address, "to": to,
        }));
        if self.view == View::Lines {
            self.say(&sentence(&row.what));
        }
        row
    }

    /// All forwards listen.
    pub fn ready(&self) {
        self.ready_with(&json!({ "event": "ready" }));
    }

    /// The same, by an event that says more.
    pub fn ready_with(&self, event: &Value) {
        self.event(event);
        if self.view == View::Lines {
            self.say(ENDS);
        }
    }

    /// A connection of a forward began.
    pub fn open(self: &Arc<Self>, row: &Arc<Row>, peer: &str) -> Connection {
        let number = row.total.fetch_add(1, Ordering::Relaxed);
        row.open.fetch_add(1, Ordering::Relaxed);
        self.event(&json!({ "event": "open", "forward": row.number, "connection": number, "peer": peer }));
        let (sent, received) = (AtomicU64::default(), AtomicU64::default());
        Connection { board: Arc::clone(self), row: Arc::clone(row), number, sent, received, error: None }
    }

    /// Something failed that does not end the command.
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

    /// Shows the counters, again and again. Never returns: it is one arm of a `select!`.
    pub async fn show(&self) -> std::convert::Infallible {
        let mut tick = interval(if self.view == View::Table { REDRAW } else { TRAFFIC });
        let mut shown: Vec<[u64; 5]> = Vec::new();
        let mut size = Term::stderr().size();
        loop {
            tick.tick().await;
            let rows = self.rows.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let now: Vec<[u64; 5]> = rows.iter().map(|row| row.counters()).collect();
            let resized = self.view == View::Table && Term::stderr().size() != size;
            if now == shown && !resized {
                continue;
            }
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

    /// Waits until nobody reads the lines of JSON any more: whoever started this is gone.
    pub async fn unread(&self) {
        match self.view {
            View::Json => stdio::unread().await,
            View::Table | View::Lines | View::Quiet => std::future::pending().await,
        }
    }

    /// Leaves the terminal as it stands, and lets the last lines be read.
    pub fn end(&self) {
        let rows = self.rows.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if self.view == View::Table && !rows.is_empty() {
            self.draw_table(&rows, &rows.iter().map(|row| row.counters()).collect::<Vec<_>>(), None);
        }
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
    let What { kind, protocol, machine, address, to } = what;
    let udp = if *protocol == "udp" { " (UDP)" } else { "" };
    match *kind {
        "local" => format!("{address} here leads to {to} on machine {machine}{udp}"),
        _ => format!("{address} on machine {machine} leads to {to} here{udp}"),
    }
}

fn table(rows: &[Arc<Row>], counters: &[[u64; 5]], width: usize) -> Vec<String> {
    let row = |(row, [open, total, sent, received, dropped]): (&Arc<Row>, &[u64; 5])| {
        let What { kind, protocol, machine, address, to } = &row.what;
        let udp = if *protocol == "udp" { "/udp" } else { "" };
        let (listens, leads) = match *kind {
            "local" => ("here", machine.as_str()),
            _ => (machine.as_str(), "here"),
        };
        let sent = match dropped {
            0 => bytes(*sent),
            n => format!("{} ({n} dropped)", bytes(*sent)),
        };
        let ends = [format!("{listens} {address}{udp}"), format!("{leads} {to}")];
        ends.into_iter().chain([open.to_string(), total.to_string(), sent, bytes(*received)]).collect()
    };
    let head = ["LISTENS", "LEADS TO", "OPEN", "TOTAL", "SENT", "RECEIVED"];
    let expendable = ["TOTAL", "RECEIVED", "SENT", "OPEN"];
    out::fitted(&head, rows.iter().zip(counters).map(row).collect(), &expendable, Some(width))
}

/// Puts `lines` where `old` is, and the cursor below.
fn draw(old: &[String], lines: &[String]) {
    // A terminal that has become narrower has broken lines since.
    let width = usize::from(Term::stderr().size().1).max(1);
    let height: usize = old.iter().map(|line| measure_text_width(line).div_ceil(width).max(1)).sum();
    let mut text = String::new();
    if height > 0 {
        // To the beginning of the line that many above, and away with all from there (ECMA-48: CPL, ED).
        text += &format!("\x1b[{height}F\x1b[J");
    }
    for line in lines {
        text += line;
        text.push('\n');
    }
    // A terminal that has gone does not want it.
    let _ = std::io::stderr().write_all(text.as_bytes());
}

/// Bytes as people read them: `12 B`, `3.4 MiB`.
fn bytes(count: u64) -> String {
    let mut unit = 0;
    let mut value = count as f64;
    while value >= 1024.0 && unit < 4 {
        value /= 1024.0;
        unit += 1;
    }
    let name = ["B", "KiB", "MiB", "GiB", "TiB"][unit];
    if unit == 0 { format!("{count} B") } else { format!("{value:.1} {name}") }
}

/// A connection of a forward. Its end is told when this is dropped.
pub struct Connection {
    board: Arc<Board>,
    row: Arc<Row>,
    number: u64,
    sent: AtomicU64,
    received: AtomicU64,
    error: Option<String>,
}

impl Connection {
    /// Bytes went to the side that does not listen.
    pub fn sent(&self, bytes: usize) {
        self.sent.fetch_add(bytes as u64, Ordering::Relaxed);
        self.row.sent.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Bytes came from it.
    pub fn received(&self, bytes: usize) {
        self.received.fetch_add(bytes as u64, Ordering::Relaxed);
        self.row.received.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// The bytes that came from it so far.
    pub fn so_far(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// It does not end well.
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
    use super::{Board, View, What, bytes, table};

    #[test]
    fn the_table_fits_its_terminal_and_breaks_no_address_that_it_has_room_for() {
        let board = Board::new(View::Quiet);
        let of = |kind, protocol, to: &str| {
            let (machine, address, to) = ("node-01".into(), "127.0.0.1:40973".into(), to.into());
            board.listening(What { kind, protocol, machine, address, to })
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
        let narrow = table(&rows, &counters, 60).join("\n");
        assert!(narrow.contains("here 127.0.0.1:40973 ") && !narrow.contains("TOTAL"), "{narrow}");
    }

    #[test]
    fn bytes_are_shown_as_people_read_them() {
        assert_eq!([0, 1023, 1024, 3 << 20].map(bytes), ["0 B", "1023 B", "1.0 KiB", "3.0 MiB"]);
    }
}
