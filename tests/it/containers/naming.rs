//! Host names of containers at the command line: completion, `ssh` and `open`.

use std::{fs, time::Duration};

use serde_json::{Value, json};

use super::Site;
use crate::{
    completions::{bash, fish},
    support::engine::{BUSYBOX, Engine, SCRATCH},
};

/// A shell offers the containers that run on a machine that runs. Nothing is woken or started for that.
#[test]
fn shells_complete_containers_of_a_machine_that_runs() {
    let Some(engine) = Engine::here() else { return };
    let site = Site::new(engine, "builtin");
    let (world, machine) = (&site.world, site.machine());
    let one = engine.run_as("Spelled.One_2", &["--network", "none"], SCRATCH, &[]);
    let gone = engine.run("spelled-gone", &["--network", "none"], SCRATCH, &[]);
    gone.docker("kill");
    let whole = format!("labctl-ssh-proxy --local ssh playground-{}.", site.play);
    let begun = format!("labctl-ssh-proxy --local ssh {machine}.spelled");
    let spelled = format!("{machine}.spelled-one_2");
    for complete in [bash, fish] {
        assert_eq!(complete(world, &whole), [machine.as_str()], "the only machine, on the way to its containers");
        assert_eq!(complete(world, &begun), [spelled.as_str()]);
    }
    let all = fish(world, &format!("labctl-ssh-proxy --local open code {machine}."));
    assert!(all.contains(&spelled) && all.iter().all(|host| host.starts_with(&machine)), "{all:?}");
    assert_eq!(fish(world, &format!("labctl-ssh-proxy --local stop {machine}.spelled")), Vec::<String>::new());
    // Alone, behind the playground that is named, or the only one.
    let playground = site.playground();
    for line in [
        format!("open code {playground} --in spelled"),
        format!("port-forward {machine} --in spelled"),
        format!("debug {playground} spelled"),
        "ssh --in spelled".to_owned(),
    ] {
        for complete in [bash, fish] {
            assert_eq!(complete(world, &format!("labctl-ssh-proxy --local {line}")), ["spelled-one_2"], "{line}");
        }
    }

    // For some seconds, the answer is remembered.
    drop(one);
    let file = world.root().join("names.local.json");
    let mut names: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    let known = &mut names["containers"][&machine];
    assert!(known["all"].as_array().unwrap().contains(&json!(["spelled-one_2", SCRATCH])), "{known}");
    let at = known["at"].as_u64().unwrap();
    known["at"] = (at - u64::try_from(Duration::from_secs(20).as_millis()).unwrap()).into();
    fs::write(&file, serde_json::to_vec(&names).unwrap()).unwrap();
    assert_eq!(fish(world, &begun), Vec::<String>::new());

    // A playground that was stopped stays so, and an answer of before is of no use.
    let _last = engine.run("spelled-last", &["--network", "none"], SCRATCH, &[]);
    world.local(&["stop", &site.play]).ok();
    names["containers"] = json!({});
    fs::write(&file, serde_json::to_vec(&names).unwrap()).unwrap();
    assert_eq!(fish(world, &begun), Vec::<String>::new());
    assert_eq!(world.json(&["list", "--json"])[0]["state"], "STOPPED");
}

/// A machine without an engine has no containers to offer, and its kept session is as good as before.
#[test]
fn a_completion_that_finds_nothing_forgets_no_session() {
    if Engine::here().is_none() {
        return;
    }
    let (site, _folder) = Site::without_engine();
    let machine = site.machine();
    let kept = || {
        let folder = fs::read_dir(site.world.root().join("tunnels")).unwrap();
        folder.map(|entry| fs::read(entry.unwrap().path()).unwrap()).collect::<Vec<_>>()
    };
    site.ssh(&[&format!("root@{}", site.playground()), "true"]).ok();
    let before = kept();
    assert_eq!(before.len(), 1);
    assert_eq!(fish(&site.world, &format!("labctl-ssh-proxy --local ssh {machine}.")), Vec::<String>::new());
    assert!(kept() == before);
}

/// `ssh` and `open` take the host name of a container, without config-ssh, and the user inside.
#[test]
fn ssh_and_open_lead_into_a_container() {
    let Some(engine) = Engine::here() else { return };
    let site = Site::new(engine, "builtin");
    let world = &site.world;
    let container = engine.run("naming", &["--network", "none", "--user", "1000"], BUSYBOX, &[]);
    let host = &site.host(&container.name);
    world.local(&["stop", &site.play]).ok();
    let ids = |user: &str| {
        let said = world.local(&["ssh", &format!("{user}{host}"), "--", "id -u; cat /proc/1/comm"]);
        said.ok().lines().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(ids(""), ["1000", "app"], "woken, and the user that it runs as");
    assert_eq!(ids("root@"), ["0", "app"]);
    assert_eq!(ids("1001@"), ["1001", "app"]);
    assert!(world.local(&["ssh", &format!("mallory@{host}"), "true"]).failed(255).contains("no user `mallory`"));

    let printed = |args: &[&str]| world.local(&[&["open", "--print"], args].concat()).ok();
    assert_eq!(printed(&["code", host]), format!("code --new-window --remote ssh-remote+{host}\n"));
    let root = &format!("root@{host}");
    let folder = format!("code --folder-uri vscode-remote://ssh-remote+root@{host}/etc\n");
    assert_eq!(printed(&["code", root, "/etc"]), folder);
    assert_eq!(printed(&["zed", root]), format!("zed ssh://root@{host}/root/\n"));
    site.leaves_nothing(&container);

    // An editor that has nothing to run on is not started, and says nothing of its own.
    let container = engine.run("naming", &["--network", "none"], SCRATCH, &[]);
    let shellless = &site.host(&container.name);
    for editor in ["zed", "goland"] {
        let mut open = world.command(&["--local", "open", "--print", editor, shellless]);
        let said = world.output(open.env("LABCTL_SSH_PROXY_TOOLS", "none")).failed(14);
        assert!(said.contains("has no shell") && said.contains(&format!("`sftp {shellless}`")), "{said}");
    }
}
