//! The workflows in .github: thin, pinned and without rights that they do not need. scripts/check-workflows has judges of
//! its own for them, which take longer to set up.

use std::{collections::BTreeMap, fs, path::Path};

use serde_json::Value;

use crate::support::tree::ROOT;

fn workflows() -> Vec<(String, Value)> {
    let folder = fs::read_dir(Path::new(ROOT).join(".github/workflows")).unwrap();
    let read = |path: std::path::PathBuf| {
        let text = fs::read_to_string(&path).unwrap();
        (path.file_name().unwrap().to_str().unwrap().to_owned(), serde_saphyr::from_str(&text).unwrap())
    };
    folder.map(|entry| read(entry.unwrap().path())).collect()
}

/// Each job with its name.
fn jobs(workflow: &Value) -> impl Iterator<Item = (&String, &Value)> {
    workflow["jobs"].as_object().unwrap().iter()
}

fn steps(job: &Value) -> &[Value] {
    job["steps"].as_array().unwrap()
}

/// An action is named by the full hash of a commit, with its version behind it, and by the same one everywhere.
#[test]
fn actions_are_pinned() {
    let mut pins: BTreeMap<String, String> = BTreeMap::new();
    let mut uses = 0;
    for entry in fs::read_dir(Path::new(ROOT).join(".github/workflows")).unwrap() {
        let text = fs::read_to_string(entry.unwrap().path()).unwrap();
        for line in text.lines().filter_map(|line| line.trim_start_matches([' ', '-']).strip_prefix("uses: ")) {
            let (action, pin) = line.split_once('@').unwrap_or_else(|| panic!("{line}"));
            let (hash, version) = pin.split_once(" # v").unwrap_or_else(|| panic!("{line}"));
            assert!(hash.len() == 40 && hash.chars().all(|c| c.is_ascii_hexdigit()), "{line}");
            assert_eq!(version.split('.').filter(|number| number.parse::<u32>().is_ok()).count(), 3, "{line}");
            assert_eq!(pins.entry(action.into()).or_insert_with(|| pin.into()), pin, "{action}");
            uses += 1;
        }
    }
    assert!(uses > 5, "{uses}");
}

/// Whatever a workflow runs can be run by hand: each step is one line that calls one script of this repository.
#[test]
fn each_step_is_a_script() {
    for (name, workflow) in workflows() {
        for (job, definition) in jobs(&workflow) {
            for run in steps(definition).iter().filter_map(|step| step["run"].as_str()) {
                let words: Vec<&str> = run.split(' ').collect();
                assert!(run.lines().count() == 1, "{name}: {job}: {run}");
                assert!(Path::new(ROOT).join(words[0]).is_file(), "{name}: {job}: {run}");
                // Only quoted variables and plain words, so that the name of a tag or a branch is never a command.
                let is_plain = |word: &&str| word.chars().all(|c| c.is_ascii_alphanumeric() || "-_./".contains(c));
                let is_variable = |word: &&str| word.starts_with("\"$") && word.ends_with('"') && !word.contains("$(");
                assert!(words.iter().all(|word| is_plain(word) || is_variable(word)), "{name}: {job}: {run}");
            }
        }
    }
}

/// A job that builds may only read, and holds no token. One that may do more runs no code of a dependency.
#[test]
fn rights_are_few() {
    let mut may_write = Vec::new();
    for (name, workflow) in workflows() {
        assert_eq!(workflow["permissions"], serde_json::json!({}), "{name}");
        assert!(workflow["concurrency"]["group"].is_string(), "{name}");
        for (job, definition) in jobs(&workflow) {
            assert!(definition["timeout-minutes"].is_u64(), "{name}: {job}");
            let rights = definition["permissions"].as_object().unwrap_or_else(|| panic!("{name}: {job}"));
            if rights.iter().any(|(_, right)| right == "write") {
                may_write.push(job.clone());
            }
            for step in steps(definition) {
                if step["uses"].as_str().is_some_and(|uses| uses.starts_with("actions/checkout@")) {
                    assert_eq!(step["with"]["persist-credentials"], false, "{name}: {job}");
                }
            }
            let text = definition.to_string();
            assert!(!text.contains("secrets."), "{name}: {job}");
            let has_token = text.contains("github.token");
            assert!(!has_token || ["draft", "publish"].contains(&job.as_str()), "{name}: {job}");
        }
    }
    may_write.sort_unstable();
    assert_eq!(may_write, ["attest", "attest-parts", "draft", "publish"]);
}

/// The release builds the targets that scripts/package knows, and attests the parts of each.
#[test]
fn the_release_has_every_target() {
    let (_, release) = workflows().into_iter().find(|(name, _)| name == "release.yml").unwrap();
    let targets = |job: &str| -> Vec<String> {
        let all = release["jobs"][job]["strategy"]["matrix"]["include"].as_array().unwrap();
        all.iter().map(|one| one["target"].as_str().unwrap().to_owned()).collect()
    };
    let script = fs::read_to_string(Path::new(ROOT).join("scripts/package")).unwrap();
    assert_eq!(targets("build"), targets("attest-parts"));
    assert_eq!(targets("build").len(), 6);
    for target in targets("build") {
        assert!(script.contains(&target), "{target}");
    }
}
