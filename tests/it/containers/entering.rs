//! `helper enter` itself, as a careless or a hostile machine starts it: nothing of the one who starts it reaches the
//! container, and however it ends, nothing is left there.

use std::{
    fs,
    io::{self, Read, Write},
    net::{Shutdown, TcpListener},
    os::{
        fd::OwnedFd,
        unix::{
            fs::{FileExt, MetadataExt},
            net::UnixStream,
            process::ExitStatusExt,
        },
    },
    path::PathBuf,
    process::{Child, Command},
    thread,
};

use serde_json::{Value, json};

use super::{needs_helper, without_library_signals};
use crate::support::{
    PROGRAM,
    engine::{BUSYBOX, Container, Engine, SCRATCH, images::Image},
    eventually, needs,
};

const NONE: [&str; 2] = ["--network", "none"];

/// The seed of the host key: the digits that must be seen nowhere.
const SEED: &str = "5eed5eed5eed5eed5eed5eed5eed5eed5eed5eed5eed5eed5eed5eed5eed5eed";

/// A login that leaves much to those that it starts.
const CARELESS: &str = r#"
exec 7</etc/passwd 8</ 9<>/dev/null 3</proc/1/environ
ulimit -Sn 64; ulimit -Sc 0; ulimit -Ss 4096
umask 077
trap '' HUP INT QUIT USR1 PIPE
export LAUNCHER=yes
"#;

struct Helper {
    program: PathBuf,
    engine: &'static Engine,
    folder: tempfile::TempDir,
}

/// A helper that was started, and its standard input and output, which are one socket, as sshd makes them.
struct Entering {
    process: Child,
    stream: UnixStream,
}

impl Helper {
    fn new(engine: &'static Engine) -> Helper {
        needs_helper();
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("helper");
        let packed = std::path::Path::new(PROGRAM).with_file_name("labctl-ssh-proxy-helper-x86_64.gz");
        // By a child, as in `write_program`.
        let unpack = "gzip -dc \"$1\" >\"$2\" && chmod 700 \"$2\"";
        assert!(Command::new("sh").args(["-c", unpack, "sh"]).arg(packed).arg(&program).status().unwrap().success());
        Helper { program, engine, folder }
    }

    /// Starts the helper after `before`, and asks it to enter.
    fn enter(&self, container: &Container, user: &str, before: &str) -> Entering {
        let (stream, its) = UnixStream::pair().unwrap();
        let its = OwnedFd::from(its);
        let mut bash = Command::new(needs("bash"));
        bash.args(["-c", &format!("{before}\nexec '{}' enter", self.program.display())]);
        bash.env("DOCKER_HOST", format!("unix://{}", self.engine.socket().display()));
        let process = bash.stdin(its.try_clone().unwrap()).stdout(its).stderr(self.log()).spawn().unwrap();
        let request = json!({"container": container.name, "user": user, "host_key": SEED}).to_string();
        let length = u32::try_from(request.len()).unwrap().to_be_bytes();
        (&stream).write_all(&[&length[..], request.as_bytes()].concat()).unwrap();
        Entering { process, stream }
    }

    fn log(&self) -> fs::File {
        fs::OpenOptions::new().append(true).create(true).open(self.folder.path().join("log")).unwrap()
    }

    /// Processes of runc that enter containers of this engine.
    fn runtimes(&self) -> Vec<String> {
        let all = fs::read_dir("/proc").unwrap().flatten();
        let lines = all.filter_map(|entry| fs::read(entry.path().join("cmdline")).ok());
        let lines = lines.map(|line| String::from_utf8_lossy(&line).replace('\0', " "));
        let engine = self.engine.socket().parent().unwrap().display().to_string();
        lines.filter(|line| line.contains(&engine) && line.contains(" exec ")).collect()
    }
}

impl Entering {
    fn reply(&mut self) -> Value {
        let mut length = [0; 4];
        self.stream.read_exact(&mut length).unwrap();
        let mut json = vec![0; u32::from_be_bytes(length).try_into().unwrap()];
        self.stream.read_exact(&mut json).unwrap();
        serde_json::from_slice(&json).unwrap()
    }

    /// Reads the reply and the server's identification.
    fn begun(mut self) -> Entering {
        let mut reply = self.reply();
        while reply["waiting"].is_string() {
            reply = self.reply();
        }
        assert!(reply["entered"]["id"].is_string(), "{reply}");
        let mut line = [0; 26];
        self.stream.read_exact(&mut line).unwrap();
        assert_eq!(&line, b"SSH-2.0-labctl-ssh-proxy\r\n");
        self
    }

    fn end(mut self) {
        let _ = self.stream.shutdown(Shutdown::Both);
        self.process.wait().unwrap();
    }
}

/// Runs a command in the container by the real ssh, which reaches the helper through a socket of this test's.
fn ssh(helper: &Helper, container: &Container, user: &str, before: &str, command: &str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    thread::scope(|scope| {
        let helping = scope.spawn(|| {
            let client = listener.accept().unwrap().0;
            let mut entering = helper.enter(container, user, before);
            let reply = entering.reply();
            assert!(reply["entered"].is_object(), "{reply}");
            thread::scope(|scope| {
                scope.spawn(|| {
                    let _ = io::copy(&mut &client, &mut &entering.stream);
                    let _ = entering.stream.shutdown(Shutdown::Write);
                });
                let _ = io::copy(&mut &entering.stream, &mut &client);
                let _ = client.shutdown(Shutdown::Both);
            });
            entering.end();
        });
        let options = ["StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR", "BatchMode=yes"];
        let mut client = Command::new(needs("ssh"));
        client.args(["-F", "none", "-p", &port, "-l", user]).args(options.iter().flat_map(|option| ["-o", *option]));
        let output = client.args(["127.0.0.1", command]).output().unwrap();
        helping.join().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    })
}

#[test]
fn nothing_of_the_login_reaches_the_container() {
    let Some(engine) = Engine::here() else { return };
    let helper = Helper::new(engine);
    let container = engine.run("careless", &NONE, BUSYBOX, &[]);
    let look = "grep -E '^(Umask|Uid|Gid|Groups|SigBlk|SigIgn|Cap|NoNewPrivs|Seccomp)' /proc/self/status
        cat /proc/self/limits /proc/self/cgroup /proc/self/oom_score_adj
        for name in cgroup ipc mnt net pid user uts; do readlink /proc/self/ns/$name; done
        echo launcher=$LAUNCHER marker=$LABCTL_SSH_PROXY_MACHINE";
    for user in ["container", "one", "4000"] {
        let options: &[&str] = if user == "container" { &[] } else { &["--user", user] };
        let theirs = container.exec(options, &["sh", "-c", look]);
        let ours = ssh(&helper, &container, user, CARELESS, look);
        let theirs = String::from_utf8(theirs.stdout).unwrap();
        assert_eq!(without_library_signals(&ours), without_library_signals(&theirs), "{user}");
    }
}

/// A socket would carry the machine's network into the container: with CAP_NET_ADMIN, SIOCGSKNS opens it.
#[test]
fn only_pipes_and_the_sealed_program_go_in() {
    let Some(engine) = Engine::here() else { return };
    let helper = Helper::new(engine);
    for (image, user) in [(BUSYBOX, "container"), (BUSYBOX, "one"), (SCRATCH, "container")] {
        let container = engine.run("files", &[&NONE[..], &["--cap-add", "NET_ADMIN"]].concat(), image, &[]);
        let entering = helper.enter(&container, user, CARELESS).begun();
        let mut visitors = container.visitors();
        visitors.sort_by_key(|(_, line)| line.ends_with(" hold"));
        let [(server, line), (holder, of_holder)] = &visitors[..] else { panic!("{visitors:?}") };
        assert_eq!((line.as_str(), of_holder.as_str()), ("/proc/self/fd/3 serve", "/proc/self/fd/3 hold"));
        assert!(!memory_of(*holder).windows(SEED.len()).any(|part| part == SEED.as_bytes()));
        let server = PathBuf::from(format!("/proc/{server}"));
        let mut links = Vec::new();
        for entry in fs::read_dir(server.join("fd")).unwrap().flatten() {
            let link = fs::read_link(entry.path()).unwrap().display().to_string();
            if link.starts_with("socket:") {
                // The runtime of the server has one of its own, for signals: of the container's network.
                let number: u64 = link[8..link.len() - 1].parse().unwrap();
                assert_ne!(number, rustix::fs::fstat(&entering.stream).unwrap().st_ino);
                let inside = fs::read_to_string(server.join("net/unix")).unwrap();
                assert!(inside.contains(&number.to_string()), "{link} is of another network: {inside}");
            } else {
                let is_known = ["pipe:", "anon_inode:", "/memfd:labctl-ssh-proxy-helper"].iter();
                assert!(is_known.clone().any(|known| link.starts_with(known)), "{link}");
            }
            links.push((entry.file_name().into_string().unwrap(), link));
        }
        for standard in ["0", "1", "2"] {
            assert!(links.iter().any(|(name, link)| name == standard && link.starts_with("pipe:")), "{links:?}");
        }
        // The host key's seed is in no place that another process can read, here or there.
        for place in ["cmdline", "environ"] {
            for process in fs::read_dir("/proc").unwrap().flatten() {
                let bytes = fs::read(process.path().join(place)).unwrap_or_default();
                let text = String::from_utf8_lossy(&bytes);
                // The test's own threads and programs have none either.
                assert!(!text.contains(SEED), "{}: {text}", process.path().display());
            }
        }
        let memory = fs::metadata(server.join("mem")).unwrap();
        assert_eq!(memory.uid(), 0, "the memory of a process that cannot be dumped belongs to root");
        entering.end();
    }
}

/// The machine's own engine has the image, or says why it has not.
#[test]
fn a_machine_without_a_busybox_has_the_one_of_an_image() {
    let Some(engine) = Engine::here() else { return };
    let helper = Helper::new(engine);
    let container = engine.run("without", &NONE, SCRATCH, &[]);
    let busybox = needs("busybox").canonicalize().unwrap();
    let without = format!(
        "exec unshare -m bash -c 'mount --bind /dev/null \"$1\"; exec \"$0\" enter' '{}' '{}'",
        helper.program.display(),
        busybox.display()
    );
    let tools = || {
        let entries = fs::read_dir(helper.folder.path()).unwrap().map(|entry| entry.unwrap().path());
        entries.filter(|path| path.is_dir()).collect::<Vec<_>>()
    };
    // Nothing can be pulled here: the tests' engine has no network.
    let mut entering = helper.enter(&container, "container", &without);
    assert_eq!(entering.reply(), json!({"waiting": "pulling image busybox:musl on the machine"}));
    let entering = entering.begun();
    assert_eq!(container.visitors().len(), 1, "a server without tools: {:?}", container.visitors());
    entering.end();
    assert!(tools().is_empty(), "{:?}", tools());
    // A failure is not waited for again by each connection.
    helper.enter(&container, "container", &without).begun().end();

    let files = tempfile::tempdir().unwrap();
    fs::create_dir(files.path().join("bin")).unwrap();
    let program = files.path().join("bin/sh");
    assert!(Command::new("cp").arg(&busybox).arg(&program).status().unwrap().success());
    fs::hard_link(&program, files.path().join("bin/ls")).unwrap();
    engine.import(files.path(), Image { name: "busybox:musl", user: "", variables: &[] });
    for is_first in [true, false] {
        let mut entering = helper.enter(&container, "container", &without);
        if is_first {
            assert_eq!(entering.reply(), json!({"waiting": "unpacking image busybox:musl on the machine"}));
        }
        let entering = entering.begun();
        let visitors = container.visitors();
        let (holder, _) = visitors.iter().find(|(_, line)| line.ends_with(" hold")).expect("tools");
        let bin = PathBuf::from(format!("/proc/{holder}/fd/5/bin"));
        let mut names: Vec<_> = fs::read_dir(&bin).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["ls", "sh"]);
        assert!(fs::read(bin.join("ls")).unwrap() == fs::read(&busybox).unwrap());
        entering.end();
        assert_eq!(tools().len(), 1, "{:?}", tools());
    }
    engine.docker(&["rmi", "busybox:musl"]);
}

/// All of a process's memory that can be read.
fn memory_of(pid: u32) -> Vec<u8> {
    let memory = fs::File::open(format!("/proc/{pid}/mem")).unwrap();
    let mut all = Vec::new();
    for line in fs::read_to_string(format!("/proc/{pid}/maps")).unwrap().lines() {
        let (from, to) = line.split_once(' ').unwrap().0.split_once('-').unwrap();
        let [from, to] = [from, to].map(|digits| u64::from_str_radix(digits, 16).unwrap());
        let mut part = vec![0; (to - from) as usize];
        // Pages of the kernel's own cannot be read.
        if memory.read_exact_at(&mut part, from).is_ok() {
            all.extend(part);
        }
    }
    assert!(all.len() > 1 << 20, "{}", all.len());
    all
}

#[test]
fn however_the_helper_ends_nothing_is_left() {
    let Some(engine) = Engine::here() else { return };
    let helper = Helper::new(engine);
    let container = engine.run("ended", &NONE, BUSYBOX, &[]);
    for signal in ["HUP", "INT", "TERM", "KILL"] {
        // At moments of the preparation, of runc's work and of the session.
        for delay in [None, Some(0), Some(10), Some(40), Some(90), Some(150)] {
            let mut entering = helper.enter(&container, "container", "");
            match delay {
                None => entering = entering.begun(),
                Some(delay) => thread::sleep(std::time::Duration::from_millis(delay)),
            }
            let pid = entering.process.id().to_string();
            assert!(Command::new("kill").args(["-s", signal, &pid]).status().unwrap().success());
            let status = entering.process.wait().unwrap();
            // A session ends in order, except by SIGKILL.
            let in_order = delay.is_some() || signal == "KILL" || status.signal().is_none();
            assert!(in_order, "{signal}: {status}");
        }
    }
    eventually("nothing is left", || container.visitors().is_empty() && helper.runtimes().is_empty());
    assert_eq!(container.diff(), "");
}

/// A container that is paused as it is entered freezes what runc has started there, and runc would wait for ever.
#[test]
fn a_container_that_is_paused_meanwhile_is_left_in_time() {
    let Some(engine) = Engine::here() else { return };
    let helper = Helper::new(engine);
    let container = engine.run("frozen", &NONE, BUSYBOX, &[]);
    for how in ["the client goes", "the helper is killed"] {
        let mut entering = helper.enter(&container, "container", "");
        eventually("runc is at work, or has done it", || {
            !helper.runtimes().is_empty() || !container.visitors().is_empty()
        });
        container.docker("pause");
        match how {
            "the client goes" => entering.stream.shutdown(Shutdown::Write).unwrap(),
            _ => entering.process.kill().unwrap(),
        }
        entering.process.wait().unwrap();
        eventually("runc has gone", || helper.runtimes().is_empty());
        container.docker("unpause");
        eventually("nothing is left", || container.visitors().is_empty());
    }
}

/// In a container that shares the machine's process numbers, a process that outlives the server becomes a child of the
/// helper's.
#[test]
fn what_is_meant_to_stay_holds_no_session() {
    let Some(engine) = Engine::here() else { return };
    let helper = Helper::new(engine);
    let container = engine.run("numbers", &[&NONE[..], &["--pid", "host"]].concat(), BUSYBOX, &["sleep", "100000"]);
    let said = ssh(
        &helper,
        &container,
        "container",
        "",
        "(trap '' HUP; exec sleep 4321) >/dev/null 2>&1 & echo $!; sleep 0.5",
    );
    let stayed = PathBuf::from(format!("/proc/{}", said.trim()));
    let line = fs::read(stayed.join("cmdline")).unwrap_or_default();
    assert_eq!(line, b"sleep\x004321\x00", "{said}");
    assert!(Command::new("kill").arg(said.trim()).status().unwrap().success());
    eventually("it has ended", || !stayed.exists());
}
