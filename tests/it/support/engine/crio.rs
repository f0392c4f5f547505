//! Containers as CRI-O starts them: conmon and runc, with CRI-O's words and annotations. CRI-O itself is in no package of
//! Debian's.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use serde_json::{Value, json};

use super::{Container, Engine, Kind, SCRATCH, images, succeed};
use crate::support::{eventually, needs};

pub(super) fn start() -> Engine {
    let folder = super::new_folder();
    let runc = format!("runc --root {}/runc", folder.display());
    let end = format!("for id in $({runc} list -q); do {runc} delete --force $id; done; sleep 1");
    let engine = Engine::start(Kind::Crio, folder, &end, &[]);
    images::make(&engine.folder.join("rootfs"), &mut |rootfs, image| {
        let folder = engine.folder.join("images");
        fs::create_dir_all(&folder).unwrap();
        succeed(Command::new("cp").arg("-a").arg(rootfs).arg(folder.join(image.name)));
    });
    engine
}

/// Prepares the runtime, because CRI-O has no client of its own.
pub(super) fn client(folder: &Path) -> Command {
    let mut command = Command::new(needs("runc"));
    command.arg("--root").arg(folder.join("runc"));
    command
}

fn bundle(container: &Container) -> PathBuf {
    container.engine.folder.join("bundles").join(&container.id)
}

pub(super) fn run(container: &mut Container, options: &[&str], image: &str, command: &[&str]) {
    assert!(options.is_empty(), "{options:?}");
    let (folder, bundle) = (&container.engine.folder, bundle(container));
    let below = |name: &str| bundle.join(name).display().to_string();
    for name in ["rootfs", "upper", "work"] {
        fs::create_dir_all(bundle.join(name)).unwrap();
    }
    let layers = format!(
        "lowerdir={},upperdir={},workdir={}",
        folder.join("images").join(image).display(),
        below("upper"),
        below("work")
    );
    succeed(Command::new("mount").args(["-t", "overlay", "-o", &layers, "overlay", &below("rootfs")]));
    succeed(Command::new(needs("runc")).arg("spec").current_dir(&bundle));
    let file = bundle.join("config.json");
    let mut configuration: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    let command = if command.is_empty() { &["serve"] } else { command };
    let process = &mut configuration["process"];
    process["args"] = json!([&["/app"], command].concat());
    process["terminal"] = json!(false);
    if image == SCRATCH {
        process["user"] = json!({"uid": 65532, "gid": 0});
    }
    configuration["root"]["readonly"] = json!(false);
    configuration["annotations"] = json!({
        "io.container.manager": "cri-o",
        "io.kubernetes.container.name": container.name,
        "io.kubernetes.pod.name": format!("pod-of-{}", container.name),
        "io.kubernetes.pod.namespace": "shop",
        "io.kubernetes.cri-o.ContainerType": "container",
        "io.kubernetes.cri-o.ImageName": image,
    });
    fs::write(&file, configuration.to_string()).unwrap();
    let mut conmon = Command::new(needs("conmon"));
    conmon.args(["-b", &bundle.display().to_string(), "-c", &container.id, "--exit-dir", &below("")]);
    conmon.args(["-l", &format!("k8s-file:{}", below("log")), "--log-level", "info"]);
    conmon.args(["-n", &format!("k8s_{}_pod_shop_uid_0", container.name), "-P", &below("conmon.pid")]);
    conmon.args(["-p", &below("pidfile"), "--persist-dir", &below(""), "-r"]).arg(needs("runc"));
    conmon.args(["--runtime-arg", &format!("--root={}/runc", folder.display())]);
    conmon.args(["--socket-dir-path", &below(""), "-u", &container.id]);
    succeed(&mut conmon);
    eventually("conmon has made the container", || fs::read(bundle.join("pidfile")).is_ok_and(|pid| !pid.is_empty()));
    eventually("it starts", || container.engine.command(&["start", &container.id]).output().unwrap().status.success());
}

pub(super) fn pid(container: &Container) -> u32 {
    fs::read_to_string(bundle(container).join("pidfile")).unwrap().parse().unwrap()
}

pub(super) fn exec(container: &Container, options: &[&str], command: &[&str]) -> Output {
    container.engine.command(&["exec"]).args(options).arg(&container.id).args(command).output().unwrap()
}

pub(super) fn remove(container: &Container) {
    let _ = container.engine.command(&["delete", "--force", &container.id]).output();
    let _ = Command::new("umount").arg("-l").arg(bundle(container).join("rootfs")).output();
}
