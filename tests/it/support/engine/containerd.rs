//! containerd with its own client, in folders of its own. Its containers have a name as nerdctl gives it, or the
//! annotations of Kubernetes' CRI, in a pod with a sandbox, which containerd's shim keeps as one.

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use super::{BUSYBOX, Container, Engine, Kind, images, new_id, succeed};
use crate::support::{eventually, machine, needs};

/// The capabilities that a container has unless it is told otherwise.
const CAPABILITIES: [&str; 14] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "MKNOD",
    "NET_RAW",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
    "AUDIT_WRITE",
];

pub(super) fn start(pods: bool) -> Engine {
    let folder = super::new_folder();
    let below = |name: &str| folder.join(name).display().to_string();
    let configuration = format!(
        "version = 2\nroot = {:?}\nstate = {:?}\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n\
         [grpc]\naddress = {:?}\n",
        below("data"),
        below("state"),
        below("s")
    );
    fs::write(folder.join("configuration"), configuration).unwrap();
    let kind = Kind::Containerd { pods };
    let ctr = format!("ctr --address {} --namespace {}", below("s"), namespace(pods));
    let end = format!("for id in $({ctr} task ls -q); do {ctr} task kill -s KILL $id; done; sleep 1");
    let command = [needs("containerd").display().to_string(), "--config".to_owned(), below("configuration")];
    let engine = Engine::start(kind, folder, &end, &command);
    eventually("containerd answers", || {
        engine.is_up() && engine.command(&["version"]).output().unwrap().status.success()
    });
    images::make(&engine.folder.join("rootfs"), &mut |rootfs, image| import(&engine, rootfs, image));
    engine
}

fn namespace(pods: bool) -> &'static str {
    if pods { "k8s.io" } else { "default" }
}

fn reference(image: &str) -> String {
    format!("localhost/{image}:latest")
}

/// Imports an image by an archive as `docker save` makes it.
fn import(engine: &Engine, rootfs: &Path, image: images::Image) {
    let folder = tempfile::tempdir().unwrap();
    let layer = images::tar(rootfs);
    fs::write(folder.path().join("layer.tar"), &layer).unwrap();
    let sum = machine::run(&mut Command::new("sha256sum"), &layer).stdout;
    let sum = String::from_utf8(sum).unwrap();
    // As every other client gives it to an image that has none.
    let path = ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"];
    let variables = [&path[..], image.variables].concat();
    let configuration = serde_json::json!({
        "architecture": if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" }, "os": "linux",
        "config": {"Entrypoint": ["/app"], "Cmd": ["serve"], "WorkingDir": "/", "User": image.user, "Env": variables},
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{}", sum.split(' ').next().unwrap())]},
    });
    fs::write(folder.path().join("config.json"), configuration.to_string()).unwrap();
    let manifest =
        serde_json::json!([{"Config": "config.json", "RepoTags": [reference(image.name)], "Layers": ["layer.tar"]}]);
    fs::write(folder.path().join("manifest.json"), manifest.to_string()).unwrap();
    let archive = images::tar(folder.path());
    let output = machine::run(&mut engine.command(&["image", "import", "-"]), &archive);
    assert!(output.status.success(), "{output:?}");
}

/// Prepares containerd's own client.
pub(super) fn client(folder: &Path, pods: bool) -> Command {
    let mut command = Command::new(needs("ctr"));
    command.arg("--address").arg(folder.join("s")).args(["--namespace", namespace(pods)]);
    command
}

/// The words of `ctr run` for those of `docker run`.
fn translated(options: &[&str]) -> Vec<String> {
    // The shared memory of a pod is Kubernetes' matter, and ctr has 64 MiB of it.
    let mut words = vec!["--seccomp".to_owned()];
    let mut privileges = true;
    let mut options = options.iter();
    while let Some(&option) = options.next() {
        let mut value = || *options.next().unwrap();
        match option {
            "--network" => assert_eq!(value(), "none"),
            "--shm-size" => {
                let size = value();
                words.push("--mount".to_owned());
                words.push(format!("type=tmpfs,src=tmpfs,dst=/dev/shm,options=rw:nosuid:nodev:mode=1777:size={size}"));
            }
            "--read-only" => words.push(option.to_owned()),
            "--cap-drop" => {
                assert_eq!(value(), "all");
                words.extend(CAPABILITIES.iter().flat_map(|name| ["--cap-drop".to_owned(), format!("CAP_{name}")]));
            }
            "--security-opt" => {
                assert_eq!(value(), "no-new-privileges");
                privileges = false;
            }
            "--uidmap" | "--gidmap" => words.extend([option.to_owned(), value().to_owned()]),
            "--annotation" => words.extend([option.to_owned(), value().to_owned()]),
            other => panic!("{other}"),
        }
    }
    words.extend(privileges.then(|| "--allow-new-privs".to_owned()));
    words
}

/// Starts a container, and its pod's before it.
pub(super) fn run(container: &mut Container, pods: bool, options: &[&str], image: &str, command: &[&str]) {
    let reference = reference(image);
    if !pods {
        return one(container, &container.id, options, image, &[("nerdctl/name", &container.name)], command);
    }
    let (sandbox, pod) = (new_id(), format!("pod-of-{}", container.name));
    let of_pod = |kind: &'static str| {
        [
            ("io.kubernetes.cri.sandbox-id", sandbox.as_str()),
            ("io.kubernetes.cri.sandbox-name", pod.as_str()),
            ("io.kubernetes.cri.sandbox-namespace", "shop"),
            ("io.kubernetes.cri.container-type", kind),
        ]
    };
    one(container, &sandbox, &[], BUSYBOX, &of_pod("sandbox"), &["sleep", "100000"]);
    let own =
        [("io.kubernetes.cri.container-name", container.name.as_str()), ("io.kubernetes.cri.image-name", &reference)];
    one(container, &container.id, options, image, &[&of_pod("container")[..], &own].concat(), command);
    container.sandbox = Some(sandbox);
}

fn one(container: &Container, id: &str, options: &[&str], image: &str, annotations: &[(&str, &str)], command: &[&str]) {
    let mut run = container.engine.command(&["run", "--detach", "--null-io"]);
    for (name, value) in annotations {
        run.args(["--annotation", &format!("{name}={value}")]);
    }
    run.args(translated(options));
    // ctr's command takes the place of the image's entry point, too.
    let command = if command.is_empty() { Vec::new() } else { [&["/app"], command].concat() };
    succeed(run.args([&reference(image), id]).args(command));
}

pub(super) fn pid(container: &Container) -> u32 {
    let listed = String::from_utf8(succeed(&mut container.engine.command(&["task", "ls"])).stdout).unwrap();
    let mut lines = listed.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    lines.find(|words| words[0] == container.id).map_or(0, |words| words[1].parse().unwrap())
}

/// ctr loses the last words of a short program now and then, so one that said nothing is run again.
pub(super) fn exec(container: &Container, options: &[&str], command: &[&str]) -> Output {
    let once = || {
        let mut exec = container.engine.command(&["task", "exec", "--exec-id", &new_id()[..12]]);
        exec.args(options).arg(&container.id).args(command).output().unwrap()
    };
    let is_whole = |output: &Output| !output.status.success() || !output.stdout.is_empty();
    (0..4).map(|_| once()).find(is_whole).unwrap_or_else(once)
}

pub(super) fn remove(container: &Container) {
    for id in [Some(&container.id), container.sandbox.as_ref()].into_iter().flatten() {
        for words in
            [&["task", "kill", "--signal", "KILL"][..], &["task", "delete", "--force"], &["container", "delete"]]
        {
            let _ = container.engine.command(words).arg(id).output();
        }
    }
}
