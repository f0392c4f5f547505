//! The quotations in the documentation match the program's texts.

use std::{fs, path::Path};

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
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
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
