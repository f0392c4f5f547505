//! The output of commands. Only this module writes to standard output, and `connect` does not use it.

use std::io::{self, IsTerminal, Write};

use comfy_table::{ColumnConstraint, ContentArrangement, Table, TableStyle, Width};
use serde::Serialize;

use crate::{
    error::{Error, Kind, Result},
    ui::{input, notice},
};

/// Prints one line. A closed pipe is no failure, so that `list | head` succeeds.
///
/// # Errors
/// Fails when standard output cannot be written, for example to a full disk.
pub fn line(text: &str) -> Result<()> {
    write(&format!("{text}\n"))
}

/// Prints text without adding a line end.
///
/// # Errors
/// As [`line()`].
pub fn write(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() != io::ErrorKind::BrokenPipe => {
            Err(Error::new(Kind::File, format!("cannot write to standard output: {e}")))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Prints a value as JSON, indented.
///
/// # Errors
/// As [`line()`].
pub fn json(value: &impl Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(value).map_err(|e| Error::new(Kind::Internal, e.to_string()))?;
    line(&text)
}

/// Prints a failure as one line of JSON, `{"error": {"kind", "message", "hint"}}`. docs/json.md describes it.
pub fn failure(error: &Error) {
    #[derive(Serialize)]
    struct Failure<'a> {
        error: Details<'a>,
    }
    // If this cannot be written, the exit code still reports the failure.
    let _ = serde_json::to_string(&Failure { error: error.into() }).map(|text| line(&text));
}

/// A failure in JSON.
#[derive(Serialize)]
pub(crate) struct Details<'a> {
    kind: &'static str,
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<&'a str>,
}

impl<'a> From<&'a Error> for Details<'a> {
    fn from(error: &'a Error) -> Details<'a> {
        Details { kind: error.kind().name(), message: error.message(), hint: error.hint() }
    }
}

/// Prints a table that fits the terminal.
///
/// # Errors
/// As [`line()`].
pub fn table(head: &[&str], rows: Vec<Vec<String>>) -> Result<()> {
    lines(table_lines(head, rows, &Expendable::default()))
}

/// Prints some lines.
///
/// # Errors
/// As [`line()`].
pub fn lines(lines: Vec<String>) -> Result<()> {
    write(&lines.into_iter().map(|line| line + "\n").collect::<String>())
}

/// The columns of a table that a narrow terminal costs, one by one.
#[derive(Clone, Copy, Default)]
pub struct Expendable<'a> {
    /// Those to drop before any cell is broken into two lines.
    pub early: &'a [&'a str],
    /// Those to drop before any word is broken.
    pub late: &'a [&'a str],
}

/// The lines of a table that fits the terminal. The first column is never broken, because users copy it.
#[must_use]
pub fn table_lines(head: &[&str], rows: Vec<Vec<String>>, expendable: &Expendable<'_>) -> Vec<String> {
    let width = if io::stdout().is_terminal() { Some(usize::from(console::Term::stdout().size().1)) } else { None };
    fitted(head, rows, expendable, width)
}

/// Number of spaces between columns.
const GAP: u16 = 2;

/// As [`table_lines`], for a terminal of this width.
pub(crate) fn fitted(
    head: &[&str],
    mut rows: Vec<Vec<String>>,
    expendable: &Expendable<'_>,
    width: Option<usize>,
) -> Vec<String> {
    let fits =
        |narrowest: &[usize], width| narrowest.iter().map(|column| column + usize::from(GAP)).sum::<usize>() <= width;
    let mut head = head.to_vec();
    if let Some(width) = width {
        for (names, widths) in [(expendable.early, whole_widths as Widths), (expendable.late, narrowest_widths)] {
            for name in names {
                if fits(&widths(&head, &rows), width) {
                    break;
                }
                if let Some(i) = head.iter().position(|column| column == name) {
                    head.remove(i);
                    rows.iter_mut().for_each(|row| drop(row.remove(i)));
                }
            }
        }
    }
    let narrowest = narrowest_widths(&head, &rows);
    // If not even this fits, every column may be broken.
    let bounded = width.is_none_or(|width| fits(&narrowest, width));
    let mut table = Table::new();
    table.load_style(TableStyle::new()).set_header(head).add_rows(rows);
    if let Some(width) = width {
        table.set_content_arrangement(ContentArrangement::Dynamic).set_width(u16::try_from(width).unwrap_or(u16::MAX));
    }
    for (column, narrowest) in table.column_iter_mut().zip(narrowest) {
        column.set_padding((0, GAP));
        let narrowest = u16::try_from(narrowest).unwrap_or(u16::MAX).saturating_add(GAP);
        if bounded {
            column.set_constraint(ColumnConstraint::LowerBoundary(Width::Fixed(narrowest)));
        }
    }
    table.lines().map(|line| line.trim_end().to_owned()).collect()
}

type Widths = fn(&[&str], &[Vec<String>]) -> Vec<usize>;

/// The width of each column if no cell is broken.
fn whole_widths(head: &[&str], rows: &[Vec<String>]) -> Vec<usize> {
    /// A cell that is longer may be broken, because it would cost all other columns.
    const LONG: usize = 30;
    let width = console::measure_text_width;
    let cells = |i: usize| rows.iter().map(move |row| width(&row[i]));
    let widest = |(i, head): (usize, &&str)| {
        cells(i).max().unwrap_or(0).min(if i == 0 { usize::MAX } else { LONG }).max(width(head))
    };
    head.iter().enumerate().map(widest).collect()
}

/// The smallest width of each column: the full width of the first, and the heading and the longest word of each other.
fn narrowest_widths(head: &[&str], rows: &[Vec<String>]) -> Vec<usize> {
    /// Longest text that counts as a word. Addresses are longer, and may be broken.
    const WORD: usize = 16;
    let width = console::measure_text_width;
    let widest = |i: usize, head: &&str| {
        let cells = || rows.iter().map(|row| row[i].as_str());
        let widest = match i {
            0 => cells().map(width).max().unwrap_or(0),
            _ => cells().flat_map(str::split_whitespace).map(width).max().unwrap_or(0).min(WORD),
        };
        widest.max(width(head))
    };
    head.iter().enumerate().map(|(i, head)| widest(i, head)).collect()
}

/// Formats a short time in milliseconds.
pub(crate) fn millis(time: std::time::Duration) -> String {
    let millis = time.as_secs_f64() * 1e3;
    if millis < 10.0 { format!("{millis:.1} ms") } else { format!("{millis:.0} ms") }
}

/// Returns true if there is a terminal for questions, and --no-input does not forbid them.
#[must_use]
pub fn can_ask() -> bool {
    input::is_allowed() && io::stdin().is_terminal() && io::stderr().is_terminal()
}

/// Asks a yes-or-no question on the terminal, or returns `None` without one or with --no-input. A signal ends the wait.
pub async fn confirm(question: &str) -> Option<bool> {
    if !can_ask() {
        return None;
    }
    let answer = answer(&format!("{question} [y/N] ")).await?;
    Some(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
}

/// Asks for a line on the terminal, for a caller that knows that it [can ask](can_ask). `None` at the end of the input.
/// A signal ends the wait with the sentence `otherwise`.
pub async fn ask(question: &str, otherwise: &str) -> Option<String> {
    let mut unanswered = Unanswered(Some(otherwise));
    let answer = answer(question).await;
    unanswered.0 = None;
    answer.filter(|line| !line.is_empty())
}

/// Prints a question, and reads the line after it: an empty one at the end of the input.
async fn answer(question: &str) -> Option<String> {
    let mut err = io::stderr().lock();
    write!(err, "{question}").and_then(|()| err.flush()).ok()?;
    drop(err);
    let read = || {
        let mut answer = String::new();
        io::stdin().read_line(&mut answer).map(|_| answer)
    };
    let mut line = OpenLine(true);
    let answer = tokio::task::spawn_blocking(read).await.ok()?.ok()?;
    // The end of the input leaves the cursor behind the question, and an answer does not.
    line.0 = answer.is_empty();
    Some(answer)
}

/// The line of a question. Ends it when the question is given up, so that the next words begin a line of their own.
struct OpenLine(bool);

impl Drop for OpenLine {
    fn drop(&mut self) {
        if self.0 {
            notice::line("");
        }
    }
}

/// The hint for a question that cannot be asked.
pub const ADD_YES: &str = "add --yes";
/// As [`ADD_YES`], for a command that can also only show its changes.
pub const ADD_YES_OR_DRY_RUN: &str = "add --yes, or --dry-run to see what would change";

/// Asks `question`, and fails unless the answer is yes. Every command that needs a yes asks here, so that none goes on
/// without one.
///
/// # Errors
/// [`Kind::Declined`] with the sentence `otherwise` for a no; [`Kind::Usage`] with `hint` with `json`, with --no-input
/// or without a terminal.
pub async fn agreed(question: &str, json: bool, otherwise: &str, hint: &str) -> Result<()> {
    if json {
        return Err(unasked("with --json", question, hint));
    }
    if !input::is_allowed() {
        return Err(unasked("with --no-input", question, hint));
    }
    let mut unanswered = Unanswered(Some(otherwise));
    let answer = confirm(question).await;
    unanswered.0 = None;
    match answer {
        Some(true) => Ok(()),
        Some(false) => Err(Error::new(Kind::Declined, otherwise)),
        None => Err(unasked("without a terminal", question, hint)),
    }
}

/// The error for a question that cannot be asked. It says what the command would do.
fn unasked(why: &str, question: &str, hint: &str) -> Error {
    Error::new(Kind::Usage, format!("cannot ask {why}: {question}")).with_hint(hint)
}

/// A question without an answer yet. A signal drops it, and then says what that means.
struct Unanswered<'a>(Option<&'a str>);

impl Drop for Unanswered<'_> {
    fn drop(&mut self) {
        self.0.into_iter().for_each(notice::line);
    }
}

#[cfg(test)]
mod tests {
    use super::{Expendable, fitted};

    fn list(width: Option<usize>) -> String {
        let host = "playground-0123456789abcdef01234567";
        let row = [host, "My docker box", "docker", "running", "7h59m"].map(str::to_owned).to_vec();
        let lines = fitted(
            &["HOST", "TITLE", "PLAYGROUND", "STATE", "TIME LEFT"],
            vec![row],
            &Expendable { early: &["PLAYGROUND"], late: &["TIME LEFT"] },
            width,
        );
        lines.join("\n")
    }

    #[test]
    fn a_narrow_terminal_costs_columns_and_breaks_no_host_name() {
        for width in [None, Some(120), Some(90)] {
            let wide = list(width);
            assert_eq!(wide.lines().count(), 2, "{wide}");
            assert!(wide.contains("My docker box  docker"), "{wide}");
        }
        let usual = list(Some(80));
        assert!(usual.lines().count() == 2 && usual.contains("TIME LEFT") && !usual.contains("PLAYGROUND"), "{usual}");
        let narrow = list(Some(60));
        assert!(narrow.contains("playground-0123456789abcdef01234567  My"), "{narrow}");
        assert!(narrow.lines().all(|line| line.chars().count() <= 60), "{narrow}");
        assert!(!narrow.contains("TIME LEFT") && narrow.contains("running"), "{narrow}");
        let tiny = list(Some(30));
        assert!(tiny.lines().all(|line| line.chars().count() <= 30), "{tiny}");
    }
}
