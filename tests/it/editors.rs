//! `config-jetbrains` and `config-zed`: changes to other programs' files, and their exact restoration.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde_json::Value;

use crate::support::{World, schema};

const JETBRAINS: &str = ".config/JetBrains";
const THEIRS: &str = include_str!("../golden/jetbrains/empty-configs.xml");

/// Creates the folders of a product that was started once.
fn product(world: &World, name: &str) -> PathBuf {
    let folder = world.home().join(JETBRAINS).join(name);
    fs::create_dir_all(folder.join("options")).unwrap();
    folder.join("options/sshConfigs.xml")
}

/// Returns an options file of the user's with one entry.
fn theirs() -> String {
    let entry = THEIRS.lines().find(|line| line.contains("playground-shell")).unwrap();
    let entry = entry.replace("playground-shell", "build.example").replace("8d7556cd", "00000000");
    format!(
        "<application>\n  <component name=\"SshConfigs\">\n    <configs>\n{entry}\n    </configs>\n  </component>\n</application>"
    )
}

/// Returns every file below a folder, with its contents.
fn all_files(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        match entry.file_type().unwrap() {
            kind if kind.is_dir() => found.extend(all_files(&entry.path())),
            kind if kind.is_symlink() => {
                found.push((entry.path(), fs::read_link(entry.path()).unwrap().into_os_string().into_encoded_bytes()))
            }
            _file => found.push((entry.path(), fs::read(entry.path()).unwrap())),
        }
    }
    found.sort();
    found
}

#[test]
fn playgrounds_come_into_every_product_and_out_again() {
    let world = World::empty();
    let (idea, gateway) = (product(&world, "IntelliJIdea2025.1"), product(&world, "JetBrainsGateway2025.1"));
    fs::write(&idea, theirs()).unwrap();
    fs::set_permissions(&idea, fs::Permissions::from_mode(0o640)).unwrap();
    let base = world.home().join(JETBRAINS);
    let before = all_files(&base);

    let told = world.local(&["config-jetbrains", "--dry-run"]).ok();
    assert!(told.contains("+      <sshConfig authType=\"OPEN_SSH\" host=\"playground-shell\""), "{told}");
    assert!(world.local(&["config-jetbrains"]).failed(2).contains("--yes"), "there is nobody to ask");
    assert_eq!(all_files(&base), before, "nothing was written");

    world.local(&["config-jetbrains", "--yes"]).ok();
    for file in [&idea, &gateway] {
        let text = fs::read_to_string(file).unwrap();
        assert_eq!(text.matches("host=\"playground-shell\"").count(), 1, "{text}");
        assert_eq!(text.contains("build.example"), file == &idea);
    }
    assert_eq!(fs::metadata(&idea).unwrap().permissions().mode() & 0o777, 0o640);
    let after = all_files(&base);
    assert!(world.local(&["config-jetbrains", "--yes"]).ok().contains("Nothing to change"));
    assert_eq!(all_files(&base), after, "a second run writes nothing");
    let list = world.local(&["config-jetbrains", "--list"]).ok();
    assert!(list.contains("IntelliJIdea2025.1") && list.contains(idea.to_str().unwrap()), "{list}");
    let listed = || serde_json::from_str(&world.run(&["config-jetbrains", "--list", "--json"]).ok()).unwrap();
    let list: Value = listed();
    schema::check("jetbrains", &list);
    assert!(list[0]["product"] == "IntelliJIdea2025.1" && list[0]["process"].is_null(), "{list}");
    assert_eq!(list[0]["playgrounds"], 8, "by the catalogue's six names, and two machines of one: {list}");

    world.run(&["config-jetbrains", "--remove", "--yes"]).ok();
    assert_eq!(all_files(&base), before, "and no backup is left");
    world.run(&["config-jetbrains", "--remove", "--yes"]).ok();
    assert_eq!(all_files(&base), before);
}

#[test]
fn one_product_alone_and_a_link_is_written_through() {
    let world = World::empty();
    let (idea, gateway) = (product(&world, "IntelliJIdea2025.1"), product(&world, "JetBrainsGateway2025.1"));
    let real = world.home().join("dotfiles.xml");
    fs::write(&real, theirs()).unwrap();
    symlink(&real, &gateway).unwrap();
    world.local(&["config-jetbrains", "--product", "gateway", "--yes"]).ok();
    assert!(!idea.exists() && gateway.is_symlink());
    assert!(fs::read_to_string(&real).unwrap().contains("playground-shell"));
    // After a change by the user, the user's part is kept.
    let changed = fs::read_to_string(&real).unwrap().replace("build.example", "other.example");
    fs::write(&real, changed).unwrap();
    world.run(&["config-jetbrains", "--product", "Gateway2025.1", "--remove", "--yes"]).ok();
    assert_eq!(fs::read_to_string(&real).unwrap(), theirs().replace("build.example", "other.example"));
    let told = world.local(&["config-jetbrains", "--product", "CLion", "--yes"]).failed(4);
    assert!(told.contains("IntelliJIdea2025.1"), "{told}");
}

#[test]
fn a_running_product_is_named_and_left_alone() {
    let world = World::empty();
    let file = product(&world, "GoLand2025.1");
    fs::write(&file, theirs()).unwrap();
    let mut running = Command::new("sleep").arg("60").stdin(Stdio::null()).spawn().unwrap();
    let lock = world.home().join(JETBRAINS).join("GoLand2025.1/.lock");
    fs::write(&lock, running.id().to_string()).unwrap();
    let told = world.local(&["config-jetbrains", "--yes"]).failed(6);
    assert!(told.contains(&format!("GoLand2025.1 is running: process {}, sleep", running.id())), "{told}");
    assert_eq!(fs::read_to_string(&file).unwrap(), theirs());
    world.local(&["config-jetbrains", "--dry-run"]).ok();
    running.kill().unwrap();
    running.wait().unwrap();
    world.local(&["config-jetbrains", "--yes"]).ok();
    assert_ne!(fs::read_to_string(&file).unwrap(), theirs());
}

#[test]
fn damaged_and_read_only_files_are_left_alone() {
    let world = World::empty();
    assert!(world.local(&["config-jetbrains", "--yes"]).failed(4).contains("no JetBrains product"));
    let (good, bad) = (product(&world, "CLion2025.1"), product(&world, "Rider2025.1"));
    for text in [&b"<application><component"[..], b"\xff\xfe<\0a\0", b"{}"] {
        fs::write(&bad, text).unwrap();
        let told = world.local(&["config-jetbrains", "--yes"]).failed(13);
        assert!(told.contains("Rider2025.1") && told.contains("hint: nothing was changed"), "{told}");
        assert_eq!(fs::read(&bad).unwrap(), text);
        assert!(!good.exists(), "all are looked at before the first is changed");
    }
    fs::write(&bad, theirs()).unwrap();
    fs::set_permissions(&bad, fs::Permissions::from_mode(0o444)).unwrap();
    assert!(world.local(&["config-jetbrains", "--product", "rider", "--yes"]).failed(13).contains("read-only"));
    assert_eq!(fs::read_to_string(&bad).unwrap(), theirs());
    assert_eq!(fs::read_dir(bad.parent().unwrap()).unwrap().count(), 1, "no temporary is left");
}

const SETTINGS: &str = "// mine\n{\n  \"theme\": \"One\", // at night\n  \"ssh_connections\": [\n    { \"host\": \"build.example\" },\n  ],\n}\n";

#[test]
fn playgrounds_come_into_zed_and_out_again() {
    let world = World::empty();
    let folder = world.home().join(".config/zed");
    let file = folder.join("settings.json");
    for before in [None, Some(""), Some("{}"), Some(SETTINGS)] {
        if let Some(text) = before {
            fs::create_dir_all(&folder).unwrap();
            fs::write(&file, text).unwrap();
        }
        let dry = world.local(&["config-zed", "--dry-run"]).ok();
        assert!(dry.contains("\"host\": \"playground-shell\""), "{dry}");
        assert_eq!(fs::read_to_string(&file).ok().as_deref(), before);
        world.local(&["config-zed", "--yes"]).ok();
        let once = fs::read_to_string(&file).unwrap();
        assert_eq!(once.matches("\"playground-shell\"").count(), 1);
        assert!(world.local(&["config-zed", "--yes"]).ok().contains("Nothing to change"));
        assert_eq!(fs::read_to_string(&file).unwrap(), once);
        world.run(&["config-zed", "--remove", "--yes"]).ok();
        assert_eq!(fs::read_to_string(&file).ok().as_deref(), before);
        let left = fs::read_dir(&folder).unwrap().count();
        assert_eq!(left, usize::from(before.is_some()), "nothing else is left");
        assert!(!world.root().join("zed.json").exists());
        world.run(&["config-zed", "--remove", "--yes"]).ok();
    }
}

#[test]
fn zeds_own_additions_go_with_our_entries_and_damaged_settings_stay() {
    let world = World::empty();
    let file = world.home().join(".config/zed/settings.json");
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(&file, SETTINGS).unwrap();
    world.local(&["config-zed", "--yes"]).ok();
    let opened = fs::read_to_string(&file).unwrap().replacen(
        "\"projects\": []",
        "\"projects\": [{ \"paths\": [\"/root\"] }]",
        1,
    );
    fs::write(&file, &opened).unwrap();
    world.local(&["config-zed", "--yes"]).ok();
    assert_eq!(fs::read_to_string(&file).unwrap(), opened, "an opened project stays");
    world.run(&["config-zed", "--remove", "--yes"]).ok();
    assert_eq!(fs::read_to_string(&file).unwrap(), SETTINGS);
    fs::write(&file, "{ \"ssh_connections\": ").unwrap();
    let told = world.local(&["config-zed", "--yes"]).failed(13);
    assert!(told.contains("damaged") && told.contains("settings.json"), "{told}");
    assert_eq!(fs::read_to_string(&file).unwrap(), "{ \"ssh_connections\": ");
}

#[test]
fn zed_shows_aliases_or_titles_and_waits_longer_except_where_the_user_wants_it_otherwise() {
    let world = World::empty();
    let file = world.home().join(".config/zed/settings.json");
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(&file, SETTINGS).unwrap();
    let id =
        world.json(&["start", "shell", "--title", "My lab", "--no-wait", "--json"])["id"].as_str().unwrap().to_owned();
    let written = || {
        world.local(&["config-zed", "--yes"]).ok();
        fs::read_to_string(&file).unwrap()
    };
    let text = written();
    assert!(text.contains("\"nickname\": \"my-lab\""), "{text}");
    assert_eq!(text.matches("\"connection_timeout\": 1800").count(), text.matches("\"playground-").count());
    // No label can be made from this one.
    world.local(&["rename", &id, "\"\u{1f980}\""]).ok();
    let text = written();
    let title = "\"\\\"\u{1f980}\\\"\"";
    assert!(text.contains(&format!("\"nickname\": {title}")) && !text.contains("my-lab"), "{text}");
    let own = text.replace(title, "\"mine\"").replacen(": 1800", ": 60", 1);
    assert_ne!(own, text);
    fs::write(&file, &own).unwrap();
    world.local(&["rename", &id, "A third"]).ok();
    assert_eq!(written(), own);
    world.run(&["config-zed", "--remove", "--yes"]).ok();
    assert_eq!(fs::read_to_string(&file).unwrap(), SETTINGS);
    world.local(&["local", "stop"]).ok();
}

/// A Flatpak reads only its own folder, and Android Studio has its maker's.
#[test]
fn flatpaks_and_android_studio_have_folders_of_their_own() {
    let world = World::empty();
    let make = |folder: &str| {
        fs::create_dir_all(world.path(folder)).unwrap();
        world.path(folder)
    };
    let zed = make(".var/app/dev.zed.Zed/config/zed").join("settings.json");
    let preview = make(".var/app/dev.zed.Zed-Preview/config/zed").join("settings.json");
    let native = world.path(".config/zed/settings.json");
    fs::write(&zed, "{}").unwrap();
    world.local(&["config-zed", "--yes"]).ok();
    let has = |file: &Path| fs::read_to_string(file).is_ok_and(|text| text.contains("playground-shell"));
    assert!(has(&zed) && has(&preview) && !native.exists());
    make(".config/zed");
    world.local(&["config-zed", "--yes"]).ok();
    assert!(has(&native));
    let once = fs::read_to_string(&zed).unwrap();
    assert!(world.local(&["config-zed", "--yes"]).ok().contains("Nothing to change"));
    assert_eq!(fs::read_to_string(&zed).unwrap(), once);
    world.run(&["config-zed", "--remove", "--yes"]).ok();
    assert_eq!((fs::read_to_string(&zed).unwrap(), preview.exists(), native.exists()), ("{}".into(), false, false));

    let folders = [
        ".var/app/com.jetbrains.GoLand/config/JetBrains/GoLand2025.1/options",
        ".var/app/com.google.AndroidStudio/config/Google/AndroidStudio2025.1/options",
        ".config/Google/AndroidStudio2024.3/options",
    ];
    let files = folders.map(|folder| make(folder).join("sshConfigs.xml"));
    world.local(&["config-jetbrains", "--yes"]).ok();
    assert!(files.iter().all(|file| has(file)));
    let list = world.local(&["config-jetbrains", "--list"]).ok();
    assert!(files.iter().all(|file| list.contains(file.to_str().unwrap())), "{list}");
    world.local(&["config-jetbrains", "--product", "AndroidStudio2024.3", "--remove", "--yes"]).ok();
    assert!(has(&files[0]) && has(&files[1]) && !has(&files[2]));
    world.local(&["uninstall", "--yes"]).ok();
    assert!(!files.iter().any(|file| has(file)));
}

/// The template in jetbrains-config equals the file that we write.
#[test]
fn the_template_is_what_is_written() {
    let world = World::empty();
    let file = product(&world, "JetBrainsGateway2025.1");
    let template = include_str!("../../jetbrains-config/sshConfigs.xml");
    world.local(&["config-jetbrains", "--yes"]).ok();
    let entry = |text: &str| text.lines().find(|line| line.contains("\"playground-shell\"")).unwrap().to_owned();
    assert_eq!(entry(template), entry(&fs::read_to_string(&file).unwrap()));
    fs::write(&file, template).unwrap();
    world.run(&["config-jetbrains", "--remove", "--yes"]).ok();
    let rest = fs::read_to_string(&file).unwrap();
    assert!(rest.contains("<!--") && !rest.contains("<sshConfig "), "{rest}");
}
