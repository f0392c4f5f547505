//! The documentation: its quotations, links and commands.

use std::{
    collections::BTreeSet,
    fs,
    path::{Component, Path, PathBuf},
};

use clap::error::ErrorKind;
use labctl_ssh_proxy::cli;

use crate::support::{World, write_program};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// Collects all of the program's source, with `...` for each placeholder, as in the documentation.
fn said(folder: &Path, text: &mut String) {
    for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        if path.is_dir() {
            said(&path, text);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            for line in fs::read_to_string(path).unwrap().lines() {
                let mut rest = line;
                while let Some((before, (_, after))) =
                    rest.split_once('{').and_then(|(before, hole)| Some((before, hole.split_once('}')?)))
                {
                    *text += before;
                    *text += "...";
                    rest = after;
                }
                *text += rest;
                text.push('\n');
            }
        }
    }
}

#[test]
fn quoted_texts_are_what_the_program_says() {
    let root = Path::new(ROOT);
    let mut source = String::new();
    said(&root.join("src"), &mut source);
    for (page, least) in [("jetbrains-config/troubleshooting.md", 5), ("docs/clients/jetbrains-gateway.md", 1)] {
        let text = fs::read_to_string(root.join(page)).unwrap().replace("**", "").replace('\n', " ");
        // On these pages, all text in italics quotes the program.
        let quotes: Vec<&str> = text.split('*').skip(1).step_by(2).collect();
        assert!(quotes.len() >= least, "{page}: {quotes:?}");
        for quote in quotes {
            assert!(source.contains(quote), "{page} quotes `{quote}`, which is said nowhere");
        }
    }
}

/// Every page in the repository, except those of other people's programs.
fn pages() -> Vec<PathBuf> {
    fn collect(folder: &Path, pages: &mut Vec<PathBuf>) {
        for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir()
                && !name.starts_with('.')
                && !["target", "node_modules", "corpus", "dist"].contains(&&*name)
            {
                collect(&path, pages);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                pages.push(path);
            }
        }
    }
    let mut pages = Vec::new();
    collect(Path::new(ROOT), &mut pages);
    pages
}

/// The targets of a page's links and pictures, as they stand there.
fn links(text: &str) -> impl Iterator<Item = &str> {
    text.match_indices("](").filter_map(|(at, _)| text[at + 2..].split_once(')')).map(|(target, _)| target)
}

/// The anchors of a page's headings, as GitHub makes them.
fn anchors(text: &str) -> Vec<String> {
    let headings = text.lines().filter_map(|line| Some(line.strip_prefix('#')?.trim_start_matches('#').trim()));
    let kept = |c: &char| c.is_alphanumeric() || [' ', '-', '_'].contains(c);
    headings.map(|heading| heading.to_lowercase().chars().filter(kept).collect::<String>().replace(' ', "-")).collect()
}

/// Resolves `..` without asking the file system.
fn tidy(path: &Path) -> PathBuf {
    let mut tidied = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => drop(tidied.pop()),
            Component::CurDir => {}
            part => tidied.push(part),
        }
    }
    tidied
}

#[test]
fn every_link_leads_somewhere_and_every_page_can_be_reached_from_the_readme() {
    let mut wrong = Vec::new();
    let mut to_read = vec![Path::new(ROOT).join("README.md")];
    let mut reached: BTreeSet<PathBuf> = to_read.iter().cloned().collect();
    while let Some(page) = to_read.pop() {
        let text = fs::read_to_string(&page).unwrap();
        for link in links(&text).filter(|link| !link.contains("://")) {
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = if file.is_empty() { page.clone() } else { tidy(&page.parent().unwrap().join(file)) };
            let is_page = target.extension().is_some_and(|extension| extension == "md");
            let has_anchor = || anchors(&fs::read_to_string(&target).unwrap()).iter().any(|found| found == anchor);
            if !target.exists() || !(anchor.is_empty() || is_page && has_anchor()) {
                wrong.push(format!("{} links to {link}", page.display()));
            } else if is_page && reached.insert(target.clone()) {
                to_read.push(target);
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    let lost: Vec<PathBuf> = pages().into_iter().filter(|page| !reached.contains(page)).collect();
    assert!(lost.is_empty(), "no link leads to {lost:?}");
}

/// The lines of a page's code blocks for a shell, without comments.
fn shell_lines(text: &str) -> Vec<String> {
    let mut lines = Vec::new();
    let mut is_shell = false;
    for line in text.lines() {
        if let Some(language) = line.trim_start().strip_prefix("```") {
            is_shell = ["sh", "bash", "console"].contains(&language);
        } else if is_shell || line.starts_with("    labctl-ssh-proxy") {
            let command = line.split(" #").next().unwrap_or(line).trim();
            if !command.is_empty() && !command.starts_with('#') {
                lines.push(command.to_owned());
            }
        }
    }
    lines
}

#[test]
fn every_command_in_the_pages_is_well_formed() {
    let mut found = 0;
    for page in pages() {
        for line in shell_lines(&fs::read_to_string(&page).unwrap()) {
            // The program may follow variables, and its output may go to another one.
            let Some(at) = line
                .find("labctl-ssh-proxy ")
                .filter(|at| line[..*at].split(' ').all(|word| word.is_empty() || word.contains('=')))
            else {
                continue;
            };
            let words = line[at..].split(['|', '>', '<']).next().unwrap().replace(['[', ']'], "");
            let words: Vec<String> = shell_words(&words);
            found += 1;
            match cli::command().try_get_matches_from(&words).map_err(|e| (e.kind(), e)) {
                Ok(_) | Err((ErrorKind::DisplayHelp | ErrorKind::DisplayVersion, _)) => {}
                Err((_, e)) => panic!("{}: {line}\n{e}", page.display()),
            }
        }
    }
    assert!(found > 30, "{found}");
}

/// Splits a command as a shell does. Quoted words are all that the pages need.
fn shell_words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), String::new(), None);
    for c in line.chars() {
        match (c, quote) {
            (c, Some(open)) if c == open => quote = None,
            ('"' | '\'', None) => quote = Some(c),
            (' ', None) if !word.is_empty() => words.push(std::mem::take(&mut word)),
            (' ', None) => {}
            (c, _) => word.push(c),
        }
    }
    words.extend(Some(word).filter(|word| !word.is_empty()));
    words
}

/// The README's daily use, line by line as written, on the embedded platform. Its catalogue has other
/// names.
#[test]
fn the_commands_of_the_readme_work_in_its_order() {
    let mut world = World::with_platform(&[]);
    let readme = fs::read_to_string(Path::new(ROOT).join("README.md")).unwrap();
    let part = |heading: &str| readme.split(heading).nth(1).unwrap().split("\n## ").next().unwrap().to_owned();
    let lines: Vec<String> = ["## First connection\n", "## Daily use\n", "## Editors\n"]
        .iter()
        .flat_map(|heading| shell_lines(&part(heading)))
        .collect();
    assert!(lines.len() > 15, "{lines:?}");
    let bin = world.path("bin");
    fs::create_dir(&bin).unwrap();
    std::os::unix::fs::symlink(crate::support::PROGRAM, bin.join("labctl-ssh-proxy")).unwrap();
    // ssh ignores HOME, and no editor may be started.
    let config = world.ssh_config().display().to_string();
    for name in ["ssh", "scp"] {
        write_program(&bin.join(name), &format!("#!/bin/sh\nexec /usr/bin/{name} -F '{config}' \"$@\"\n"));
    }
    for editor in ["code", "zed"] {
        write_program(&bin.join(editor), "#!/bin/sh\necho \"$@\" >> \"$HOME/opened\"\n");
    }
    fs::create_dir(world.path("src")).unwrap();
    fs::write(world.path("src/main.rs"), "fn main() {}").unwrap();
    const ID: &str = "0123456789abcdef01234567";
    let id = |world: &World| world.json(&["list", "--json"])[0]["id"].as_str().unwrap().to_owned();
    for line in lines {
        let line = line.replace("docker", "shell").replace("k3s", "duo");
        // A login is for the real platform, Kubernetes needs a cluster, and the clone needs a network.
        if ["labctl-ssh-proxy login", "labctl-ssh-proxy kube", "labctl-ssh-proxy open zed"]
            .iter()
            .any(|other| line.starts_with(other))
        {
            continue;
        }
        let line = match &*line {
            // These ask.
            line if line.contains("config-ssh") || line.contains("destroy") => format!("{line} --yes"),
            // These run until Ctrl-C.
            line if ["--watch", "port-forward", " listen "].iter().any(|stays| line.contains(stays)) => {
                format!("timeout -s INT 2 {line}")
            }
            line if line.contains(ID) => line.replace(ID, &id(&world)),
            line => line.to_owned(),
        };
        let mut shell = world.program("bash");
        let path = format!("{}:/usr/bin:/bin", bin.display());
        let said = world.output(shell.env("PATH", path).env("LABCTL_SSH_PROXY_LOCAL", "1").args(["-c", &line]));
        let interrupted = if line.starts_with("timeout") { 124 } else { 0 };
        assert_eq!(said.code(), interrupted, "{line}: {said:?}");
    }
    assert_eq!(fs::read_to_string(world.path("opened")).unwrap().lines().count(), 2);
    world.stop_platform();
}
