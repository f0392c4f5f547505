//! A container that means harm to its view, or to the machine through it; and views that end, or cannot be.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::Path,
    process::{Command, Stdio},
    thread,
};

use super::{super::POWERFUL, HARDENED, NONE, SCRATCH, VIEW, ends, inside, site, ssh, views};
use crate::support::{
    Ending,
    engine::{BUSYBOX, Container, Engine, images::Image},
    eventually, needs,
};

/// The holders of views in a container.
fn holders(container: &Container) -> Vec<u32> {
    let all = inside(container).into_iter();
    all.filter(|(_, line)| line.trim_end().ends_with(" view")).map(|(pid, _)| pid).collect()
}

/// Row (d): a container that may trace takes the holder over, and gains nothing by it.
#[test]
fn a_holder_that_is_taken_over_can_do_nothing() {
    let Some(engine) = Engine::here() else { return };
    let site = site(engine);
    for options in [&["--cap-add", "SYS_PTRACE"][..], &POWERFUL] {
        let container = engine.run("trace", &[&NONE[..], options].concat(), SCRATCH, &[]);
        let mut staying = site.client("ssh", &["-T", &site.host(&container.name), "cat"]);
        let _staying = Ending(staying.env(VIEW, "always").stdin(Stdio::piped()).spawn().unwrap());
        eventually("the view is there", || !holders(&container).is_empty());
        let holder = holders(&container)[0];
        let status = fs::read_to_string(format!("/proc/{holder}/status")).unwrap();
        for line in ["CapPrm:\t0000000000000000", "CapBnd:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"] {
            assert!(status.contains(line), "{status}");
        }
        let files: Vec<_> = fs::read_dir(format!("/proc/{holder}/fd")).unwrap().map(|one| one.unwrap()).collect();
        let [file] = &files[..] else { panic!("{files:?}") };
        assert!(fs::read_link(file.path()).unwrap().display().to_string().starts_with("pipe:["));
        let program = fs::read_link(format!("/proc/{holder}/exe")).unwrap().display().to_string();
        assert!(program.starts_with("/memfd:"), "{program}");
        let said = container.exec(&["--user", "0"], &["/app", "take-over"]);
        let said = String::from_utf8_lossy(&said.stdout).into_owned();
        assert_eq!(said, "took over the holder\nbreaches: 0\n");
    }
}

/// Acts of a session that has all capabilities. None may reach the machine.
const TAMPERING: &str = r#"
exec 2>/dev/null
touch /usr/tampered
mount -o remount,rw /usr; touch /usr/tampered
mount -o remount,bind,rw /usr; touch /usr/tampered
mkdir /tmp/at; mount --bind /usr /tmp/at && mount -o remount,bind,rw /tmp/at && touch /tmp/at/tampered
mount -t overlay -o lowerdir=/usr,upperdir=/tmp/u,workdir=/tmp/w overlay /tmp/at
echo x >>/usr/bin/env
chmod 4777 /usr/bin/env
umount -l /usr/..; umount -l /usr
ls -d /usr/.. /usr/../app /app
ls -d /etc/shadow /etc/ssl/private /var/lib/dpkg /opt; cd /root && ls -d .ssh
find / -xdev -name tampered
echo end
"#;

#[test]
fn nothing_of_the_machine_is_written_or_seen_but_its_programs() {
    let Some(engine) = Engine::here() else { return };
    let site = site(engine);
    let env = fs::metadata("/usr/bin/env").unwrap();
    for options in [&[][..], &["--cap-add", "DAC_READ_SEARCH"], &POWERFUL] {
        let container = engine.run("tamper", &[&NONE[..], options].concat(), SCRATCH, &[]);
        let mut client = site.client("ssh", &["-T", "-l", "root", &site.host(&container.name), "bash"]);
        let said = site.world.feed(client.env(VIEW, "always"), TAMPERING.as_bytes());
        let said = String::from_utf8_lossy(&said.stdout).into_owned();
        let seen: Vec<&str> = said.lines().filter(|line| !["/usr/..", "/usr/../app", "/app"].contains(line)).collect();
        assert_eq!(seen, ["end"], "{options:?}");
        assert!(!Path::new("/usr/tampered").exists());
        let now = fs::metadata("/usr/bin/env").unwrap();
        assert_eq!(
            (now.mode(), now.len(), now.mtime(), now.ctime()),
            (env.mode(), env.len(), env.mtime(), env.ctime())
        );
        ends(&site, &container);
    }
}

/// Many connections make one view. It outlives a holder and a keeper that are killed, and ends with its container.
#[test]
fn a_view_is_made_once_and_anew_when_it_is_gone() {
    let Some(engine) = Engine::here() else { return };
    let site = &site(engine);
    let container = engine.run("once", &[&NONE[..], &HARDENED].concat(), SCRATCH, &[]);
    let host = &site.host(&container.name);
    let place = || ssh(site, "always", &[host, "readlink /proc/self/ns/mnt"]).ok();
    let mut staying = site.client("ssh", &["-T", host, "cat"]);
    let mut staying = Ending(staying.env(VIEW, "always").stdin(Stdio::piped()).spawn().unwrap());
    let places: Vec<String> = thread::scope(|scope| {
        let all: Vec<_> = (0..6).map(|_| scope.spawn(place)).collect();
        all.into_iter().map(|one| one.join().unwrap()).collect()
    });
    assert!(places.iter().all(|one| *one == places[0]), "{places:?}");
    assert_eq!((holders(&container).len(), views(site).len()), (1, 1));

    // The container's own processes can end the holder, as each other process of theirs.
    let end = Command::new("kill").args(["-9", &holders(&container)[0].to_string()]).status().unwrap();
    assert!(end.success());
    let another = place();
    assert_ne!(another, places[0]);
    assert_eq!(views(site).len(), 1);
    assert!(staying.0.try_wait().unwrap().is_none(), "a session goes on in the view that was");

    let holder = holders(&container)[0];
    let status = fs::read_to_string(format!("/proc/{holder}/status")).unwrap();
    let keeper = status.lines().find_map(|line| line.strip_prefix("PPid:\t")).unwrap();
    assert!(Command::new("kill").args(["-9", keeper]).status().unwrap().success());
    eventually("the holder has ended with its keeper", || !holders(&container).contains(&holder));
    place();
    assert_ne!(holders(&container), [holder]);

    container.kill();
    eventually("the client has ended", || staying.0.try_wait().unwrap().is_some());
    eventually("the view has ended with its container", || views(site).is_empty() && site.visits().is_empty());
}

/// A container that can have no view is entered without one, and the reason is said.
#[test]
fn a_container_that_gets_no_view_is_entered_as_it_is() {
    let Some(engine) = Engine::here() else { return };
    let site = site(engine);
    let folder = tempfile::tempdir().unwrap();
    let files = folder.path().join("rootfs");
    for folder in ["bin", "lib"] {
        fs::create_dir_all(files.join(folder)).unwrap();
    }
    for applet in ["sh", "sleep"] {
        fs::copy(needs("busybox"), files.join("bin").join(applet)).unwrap();
    }
    fs::write(files.join("lib/ld-musl-x86_64.so.1"), "").unwrap();
    engine.import(&files, Image { name: "musls", user: "", variables: &[] });
    fs::remove_file(files.join("lib/ld-musl-x86_64.so.1")).unwrap();
    for number in 0..1100 {
        fs::write(files.join(number.to_string()), "").unwrap();
    }
    engine.import(&files, Image { name: "many", user: "", variables: &[] });
    for (image, why) in [
        ("musls", "gets no view: it has libraries of its own (`/lib/ld-musl-x86_64.so.1`)"),
        ("many", "gets no view: the container's files cannot be mounted: / has more than 1000 entries"),
    ] {
        let options = [&NONE[..], &["--entrypoint", "/bin/sleep"]].concat();
        let container = engine.run(image, &options, image, &["100000"]);
        let host = site.host(&container.name);
        let said = ssh(&site, "always", &[&host, "echo entered; ls /usr"]);
        assert!(said.out == "entered\n" && said.err.contains(why), "{said:?}");
        // Only the one who asks is told about libraries.
        if image == "musls" {
            let said = site.world.output(site.client("ssh", &["-T", &host, "bash"]).stdin(Stdio::null()));
            assert!(!said.err.contains("view"), "{said:?}");
        }
        assert!(holders(&container).is_empty() && views(&site).is_empty());
    }
    let volume = format!("{}:/usr/data", folder.path().display());
    let container = engine.run("volume", &[&NONE[..], &["-v", &volume]].concat(), BUSYBOX, &[]);
    let said = ssh(&site, "always", &[&site.host(&container.name), "ls /usr/data"]);
    assert!(
        said.out == "rootfs\n" && said.err.contains("a volume lies in its /usr, which would be hidden"),
        "{said:?}"
    );
}

/// A link where a folder is looked for is left alone: what it names is the container's, or worse.
#[test]
fn a_link_in_place_of_a_folder_leads_nowhere() {
    let Some(engine) = Engine::here() else { return };
    let site = site(engine);
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir_all(folder.path().join("bin")).unwrap();
    for applet in ["sh", "sleep"] {
        fs::copy(needs("busybox"), folder.path().join("bin").join(applet)).unwrap();
    }
    // The engine mounts it there, to be read only.
    std::os::unix::fs::symlink("/sys", folder.path().join("tmp")).unwrap();
    engine.import(folder.path(), Image { name: "linked", user: "", variables: &[] });
    let container = engine.run("linked", &[&NONE[..], &["--entrypoint", "/bin/sleep"]].concat(), "linked", &["100000"]);
    let said = ssh(&site, "always", &[&site.host(&container.name), "readlink /tmp; ldd --version | grep -c GLIBC"]);
    assert!(said.out == "/sys\n1\n" && !said.err.contains("gets no view"), "{said:?}");
    assert_eq!(container.diff(), "");
}

/// A program of the container's own comes before the machine's, and its writable folders stay its own.
#[test]
fn a_containers_own_files_come_first() {
    let Some(engine) = Engine::here() else { return };
    let site = site(engine);
    let container = engine.run("own", &NONE, BUSYBOX, &[]);
    let script = "head -c 4 /bin/awk | tail -c 3; readlink /bin/awk; ldd --version | grep -c GLIBC; echo new >/root/new; \
                  cat ~one/.profile /etc/passwd | head -n 1; touch /bin/new 2>/dev/null || echo not";
    let said = ssh(&site, "always", &["-l", "root", &site.host(&container.name), script]);
    assert_eq!(said.out, "ELFbusybox\n1\nroot:x:0:0:root:/root:/bin/sh\nnot\n", "{said:?}");
    assert_eq!(container.diff(), "C /root\nA /root/new");
}
