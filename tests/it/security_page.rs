//! Every test that SECURITY.md and docs/reports.md name exists.

use std::{fs, path::Path};

fn sources(folder: &Path, text: &mut String) {
    for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        if path.is_dir() {
            sources(&path, text);
        } else if path.extension().is_some_and(|extension| extension == "rs" || extension == "py") {
            text.push_str(&fs::read_to_string(path).unwrap());
        }
    }
}

/// All code of the program and of its tests.
fn code(root: &Path) -> String {
    let mut code = String::new();
    sources(&root.join("src"), &mut code);
    sources(&root.join("tests"), &mut code);
    sources(&root.join("helper"), &mut code);
    code
}

#[test]
fn each_named_test_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let code = code(root);
    let page = fs::read_to_string(root.join("SECURITY.md")).unwrap();
    // Names of tests are the only words in backticks with two underscores.
    let named: Vec<&str> = page
        .split('`')
        .skip(1)
        .step_by(2)
        .filter(|word| word.matches('_').count() > 1 && !word.contains(['/', '.', ' ']))
        .collect();
    let named: Vec<&str> = named.into_iter().filter(|word| word.chars().all(|c| !c.is_ascii_uppercase())).collect();
    assert!(named.len() > 20, "{named:?}");
    for name in named.into_iter().filter(|name| *name != "iximiuz_labs_user") {
        assert!(code.contains(&format!("fn {name}(")), "SECURITY.md names {name}, and there is no such test");
    }
    for file in ["fuzz/FIGURES.md", "docs/soak.md"] {
        assert!(root.join(file).exists(), "{file} is missing");
    }
}

/// The last column of each row of docs/reports.md names tests, or says why there is none.
#[test]
fn each_report_names_its_test() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let code = code(root);
    let page = fs::read_to_string(root.join("docs/reports.md")).unwrap();
    let rows: Vec<&str> = page.lines().filter(|line| line.starts_with("| ")).skip(2).collect();
    assert!(rows.len() > 100, "{} rows", rows.len());
    for row in rows {
        let cells: Vec<&str> = row.trim_matches('|').split(" | ").map(str::trim).collect();
        let [_, _, _, tests] = cells[..] else { panic!("a row has four columns: {row}") };
        assert!(!tests.is_empty(), "neither a test nor a reason: {row}");
        for name in tests.split('`').skip(1).step_by(2) {
            let name = name.rsplit("::").next().unwrap();
            let is_there = [format!("fn {name}("), format!("def {name}(")].iter().any(|test| code.contains(test));
            assert!(is_there, "there is no test {name}: {row}");
        }
    }
}
