//! Files and the system: owners, modes, pipes and devices.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, chown},
    path::{Path, PathBuf},
    process::Command,
};

use crate::support::{
    Said, World, copy_program,
    labs::{ID, Labs, PLAIN},
    needs, not_run,
};

/// An account other than root that ssh knows.
const USER: u32 = 65534;

/// Returns everything below a folder, and the folder.
fn all(folder: &Path) -> Vec<PathBuf> {
    let mut found = vec![folder.to_owned()];
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        match entry.file_type().unwrap().is_dir() {
            true => found.extend(all(&entry.path())),
            false => found.push(entry.path()),
        }
    }
    found
}

fn owned_by(world: &World, uid: u32) -> Vec<PathBuf> {
    let mut found = all(world.home());
    found.retain(|path| fs::symlink_metadata(path).unwrap().uid() == uid);
    found
}

/// Gives the whole home to the user. Returns the program, at a place that the user can reach.
fn give(world: &World) -> PathBuf {
    let program = world.path("program");
    copy_program(&program);
    all(world.home()).iter().for_each(|path| chown(path, Some(USER), Some(USER)).unwrap());
    program
}

fn as_user(world: &World, program: &Path, args: &[&str]) -> Said {
    let id = USER.to_string();
    let mut command = world.program(needs("setpriv"));
    command.args(["--reuid", &id, "--regid", &id, "--clear-groups"]).arg(program).args(args);
    world.output(&mut command)
}

fn is_root(why: &str) -> bool {
    let is_root = rustix::process::geteuid().is_root();
    if !is_root {
        not_run(why);
    }
    is_root
}

#[test]
fn what_root_writes_in_a_users_home_is_the_users() {
    if !is_root("only root can run with another user's HOME") {
        return;
    }
    let world = World::empty();
    let labs = Labs::start(&world, PLAIN);
    let program = give(&world);
    let run = |args: &[&str]| world.output(world.program(&program).args(args));
    // Everything is made by root: the folders, the identity, the locks, the log.
    run(&["config-ssh", "--yes"]).ok();
    run(&["list"]).ok();
    run(&["stop", ID]).ok();
    run(&["whoami"]).ok();
    let _ = world.held(world.program(&program).args(["connect", &format!("playground-{ID}")]));
    let logs = world.root().join("logs");
    assert!(fs::read_dir(&logs).unwrap().count() > 0 && world.root().join("memory").exists());
    assert_eq!(owned_by(&world, 0), Vec::<PathBuf>::new());

    as_user(&world, &program, &["list"]).ok();
    let config = world.ssh_config();
    as_user(&world, Path::new("ssh"), &["-G", "-F", config.to_str().unwrap(), "github.com"]).ok();
    as_user(&world, &program, &["uninstall", "--yes"]).ok();
    drop(labs);
}

#[test]
fn what_root_has_left_is_named_and_bars_no_removal() {
    if !is_root("only root can leave files of its own") {
        return;
    }
    let world = World::empty();
    let labs = Labs::start(&world, PLAIN);
    fs::create_dir(world.path(".ssh")).unwrap();
    fs::write(world.ssh_config(), "Host mine\n").unwrap();
    fs::set_permissions(world.path(".iximiuz/labctl/config.yaml"), fs::Permissions::from_mode(0o600)).unwrap();
    let program = give(&world);
    as_user(&world, &program, &["config-ssh", "--yes"]).ok();
    let permissions = || {
        let said = as_user(&world, &program, &["doctor", "--json"]);
        let value: serde_json::Value = serde_json::from_str(&said.out).unwrap();
        let mut checks = value["checks"].as_array().unwrap().clone();
        checks.retain(|check| check["name"] == "permissions");
        checks
    };
    let seen = permissions();
    assert_eq!((seen.len(), &seen[0]["verdict"]), (1, &"ok".into()), "{seen:?}");

    // As an earlier version left them.
    let own = |name: &str| world.root().join(name);
    for path in [own("ssh_config"), own("hosts.json"), own("memory")] {
        let _ = fs::create_dir(own("memory"));
        chown(path, Some(0), Some(0)).unwrap();
    }
    fs::set_permissions(own("memory"), fs::Permissions::from_mode(0o700)).unwrap();
    fs::write(own("memory").join("x.json"), "{}").unwrap();
    let seen = permissions();
    let remedy = format!("sudo chown -R nobody {}", world.path(".iximiuz").display());
    assert!(seen[0]["verdict"] == "failed" && seen[0]["remedy"].as_str().unwrap().contains(&remedy), "{seen:?}");

    // A removal does not need the file that cannot be read, and an error says how to give it back.
    let refused = as_user(&world, &program, &["config-ssh", "--yes"]).failed(13);
    assert!(refused.contains(&format!("sudo chown -R nobody {}", own("hosts.json").display())), "{refused}");
    as_user(&world, &program, &["config-ssh", "--remove", "--yes"]).ok();
    assert_eq!(fs::read_to_string(world.ssh_config()).unwrap(), "Host mine\n");
    assert!(!own("ssh_config").exists());

    // A folder that cannot even be looked into.
    chown(world.path(".iximiuz"), Some(0), Some(0)).unwrap();
    fs::set_permissions(world.path(".iximiuz"), fs::Permissions::from_mode(0o700)).unwrap();
    let seen = permissions();
    assert!(seen[0]["verdict"] == "failed" && seen[0]["remedy"].as_str().unwrap().contains(&remedy), "{seen:?}");
    drop(labs);
}

#[test]
fn a_pipe_or_a_device_in_place_of_a_file_is_no_wait() {
    let fifo = |path: &Path| {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let _ = fs::remove_file(path);
        assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
    };
    let refused = |world: &World, path: &Path, args: &[&str]| {
        fifo(path);
        let said = world.run(args).failed(13);
        assert!(said.contains("it is not a regular file") || said.contains("is not a regular file"), "{said}");
        fs::remove_file(path).unwrap();
    };
    let world = World::empty();
    let labs = Labs::start(&world, PLAIN);
    refused(&world, &world.path(".config/labctl-ssh-proxy/settings.yaml"), &["list"]);
    world.run(&["config-ssh", "--yes"]).ok();
    let known_hosts = world.root().join("known_hosts");
    fifo(&known_hosts);
    assert!(world.run(&["doctor", "--json"]).out.contains("it is not a regular file"));
    fs::remove_file(&known_hosts).unwrap();
    let identity = world.path(".ssh/iximiuz_labs_user");
    refused(&world, &identity, &["config-ssh", "--yes"]);
    refused(&world, &world.ssh_config(), &["config-ssh", "--yes"]);
    refused(&world, &world.path(".config/zed/settings.json"), &["config-zed", "--yes"]);
    let product = world.path(".config/JetBrains/GoLand2025.1");
    refused(&world, &product.join("options/sshConfigs.xml"), &["config-jetbrains", "--yes"]);
    fifo(&product.join(".lock"));
    world.run(&["config-jetbrains", "--list"]).ok();
    fifo(&world.path(".config/Code/User/settings.json"));
    let _ = world.run(&["doctor"]);
    // A log without a reader must not hold up anything.
    fifo(&world.path("log"));
    world.run(&["list", "--log-file", "log"]).failed(13);
    refused(&world, &world.path(".iximiuz/labctl/config.yaml"), &["list"]);
    drop(labs);

    // Its reader finds no end, so a device is refused too; the null device is what stands for nothing.
    let list = |settings: &str| world.output(world.command(&["list"]).env("LABCTL_SSH_PROXY_SETTINGS", settings));
    assert!(list("/dev/zero").failed(13).contains("not a regular file"));
    assert!(list("/dev/null").failed(3).contains("not logged in"));
}

#[test]
fn files_are_private_whatever_the_umask() {
    for umask in ["000", "777"] {
        let world = World::empty();
        let labs = Labs::start(&world, PLAIN);
        let program = world.path("program");
        copy_program(&program);
        let script = format!("umask {umask}; {0} config-ssh --yes && {0} list && {0} stop {ID}", program.display());
        let script = ["sh", "-c", &script];
        match rustix::process::geteuid().is_root() {
            // Root is kept out by no mode.
            true => {
                give(&world);
                as_user(&world, Path::new("sh"), &script[1..]).ok();
            }
            false => drop(world.output(world.program(script[0]).args(&script[1..])).ok()),
        }
        for path in all(&world.root()) {
            let mode = fs::metadata(&path).unwrap().mode() & 0o777;
            assert_eq!(mode, if path.is_dir() { 0o700 } else { 0o600 }, "{}", path.display());
        }
        drop(labs);
    }
}

/// As in a container into which single files are mounted: they cannot be replaced.
#[test]
fn a_file_that_is_a_mount_point_is_written_all_the_same() {
    let world = World::empty();
    let labs = Labs::start(&world, PLAIN);
    let program = world.path("program");
    copy_program(&program);
    let files =
        [".ssh/config", ".config/zed/settings.json", ".iximiuz/labctl/config.yaml"].map(|name| world.path(name));
    let texts = ["Host mine\n".to_owned(), "{}\n".to_owned(), fs::read_to_string(&files[2]).unwrap()];
    let mut script = "set -e\n".to_owned();
    for (n, (file, text)) in files.iter().zip(&texts).enumerate() {
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, "").unwrap();
        fs::write(world.path(&format!("mounted{n}")), text).unwrap();
        script += &format!("mount --bind mounted{n} {}\n", file.display());
    }
    script += "p=$PWD/program
        $p config-ssh --yes; grep -q labctl-ssh-proxy mounted0; ssh -F mounted0 -G mine >/dev/null
        $p config-zed --yes; grep -q playground- mounted1
        $p config-ssh --remove --yes; $p config-zed --remove --yes
        $p logout";
    let mut command = world.program(needs("unshare"));
    if !rustix::process::geteuid().is_root() {
        command.arg("-r");
    }
    let said = world.output(command.args(["-m", "sh", "-c", &script]));
    let after = |n: usize| fs::read_to_string(world.path(&format!("mounted{n}"))).unwrap();
    assert_eq!(said.code(), 0, "{said:?}");
    assert_eq!((after(0), after(1)), (texts[0].clone(), texts[1].clone()));
    assert!(after(2).contains("api_base_url") && after(2) != texts[2], "{}", after(2));
    drop(labs);
}
