//! The floors that ARCHITECTURE.md draws, held against the imports of every file: none points up.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// The rooms from the top floor down, as the block of ARCHITECTURE.md that begins with `title` lists them.
fn floors(title: &str) -> Vec<String> {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("ARCHITECTURE.md")).unwrap();
    let block = text
        .split(&format!("```{title}\n"))
        .nth(1)
        .and_then(|rest| rest.split("```").next())
        .expect("a block of floors");
    // A room's line begins with its name; a line that goes on is indented, and `--` parts the floors.
    let names = block.lines().filter(|line| line.starts_with(|c: char| c.is_ascii_lowercase()));
    names.map(|line| line.split(' ').next().unwrap().to_owned()).collect()
}

/// Every Rust file below a folder, seen from `src`.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let (folders, files): (Vec<_>, Vec<_>) = entries.partition(|path| path.is_dir());
    let files = files.into_iter().filter(|path| path.extension().is_some_and(|ending| ending == "rs"));
    files.chain(folders.iter().flat_map(|folder| self::files(folder))).collect()
}

/// The rooms that a file names behind `crate::`, in `use` and elsewhere; its comments do not count.
fn imports(code: &str) -> Vec<String> {
    let code: String = code.lines().map(|line| line.split("//").next().unwrap_or_default().to_owned() + "\n").collect();
    let mut rooms = Vec::new();
    for rest in code.split("crate::").skip(1) {
        let Some(group) = rest.strip_prefix('{') else {
            rooms.push(rest);
            continue;
        };
        // A group names a room wherever its own braces begin or a comma of theirs stands.
        let (mut depth, mut at_start) = (0, true);
        for (i, c) in group.char_indices() {
            match c {
                '{' => depth += 1,
                '}' if depth == 0 => break,
                '}' => depth -= 1,
                ',' if depth == 0 => at_start = true,
                c if at_start && c.is_ascii_lowercase() => {
                    rooms.push(&group[i..]);
                    at_start = false;
                }
                _ => {}
            }
        }
    }
    let name = |text: &str| text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').next().unwrap().to_owned();
    rooms.into_iter().map(name).collect()
}

#[test]
fn no_import_points_up() {
    hold("floors", "src");
    hold("helper", "helper/src");
}

/// Holds every import of the crate in that folder to the floors with that title.
fn hold(title: &str, folder: &str) {
    let floors = floors(title);
    let floor = |room: &str| floors.iter().position(|name| name == room);
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut wrong = Vec::new();
    let mut seen = vec![false; floors.len()];
    for path in files(&src) {
        let file = path.strip_prefix(&src).unwrap();
        let room = file.components().next().unwrap().as_os_str().to_str().unwrap().trim_end_matches(".rs").to_owned();
        if room == "lib" {
            continue;
        }
        let Some(here) = floor(&room) else {
            wrong.push(format!("{} is on no floor", file.display()));
            continue;
        };
        seen[here] = true;
        let code = fs::read_to_string(&path).unwrap();
        for import in imports(&code).into_iter().filter(|import| *import != room) {
            match floor(&import) {
                None => wrong.push(format!("{} imports {import}, which is on no floor", file.display())),
                Some(there) if there < here => wrong.push(format!("{} imports {import}, above it", file.display())),
                Some(_) => {}
            }
        }
        let lines = code.lines().count();
        if lines > 700 {
            wrong.push(format!("{} has {lines} lines: it holds more than one idea", file.display()));
        }
    }
    wrong.extend(floors.iter().zip(seen).filter(|(_, seen)| !seen).map(|(room, _)| format!("there is no room {room}")));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn imports_are_read_as_the_compiler_reads_them() {
    let code = "use crate::{\n    error::{Error, Kind}, // crate::no\n    labs::{self, wire::{A, B}},\n    os,\n};\n\
                use crate::ui::out;\nfn f() { crate::files::read() }\n/// [`crate::no`]\n";
    assert_eq!(imports(code), ["error", "labs", "os", "ui", "files"]);
}
