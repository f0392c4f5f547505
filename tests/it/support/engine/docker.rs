//! Docker Engines of the tests' own: without a network of the computer. The second one maps the users of its containers
//! (`--userns-remap`), which is a property of a whole engine.

use std::{fs, path::Path, process::Command};

use super::{Engine, Kind, images};
use crate::support::{eventually, machine::run, needs};

/// The user names of this engine's containers begin at a user of their own. Its files of subordinate ids are seen by it
/// alone.
const REMAPPED: &str = r#"
for file in subuid subgid; do
  echo daemon:200000:65536 >"$1/$file"
  [ -e /etc/$file ] || : >/etc/$file
  mount --bind "$1/$file" /etc/$file
done
shift
exec "$@" --userns-remap=daemon:daemon
"#;

pub(super) fn start(remapped: bool) -> Engine {
    let folder = super::new_folder();
    let below = |name: &str| folder.join(name).display().to_string();
    let mut command = Vec::new();
    if remapped {
        command.extend(["unshare", "--mount", "sh", "-ec", REMAPPED, "sh"].map(str::to_owned));
        command.push(folder.display().to_string());
    }
    command.push(needs("dockerd").display().to_string());
    // `--ip-forward` would change the computer's own setting.
    command.extend(["--bridge=none", "--iptables=false", "--ip-masq=false", "--ip-forward=false"].map(str::to_owned));
    command.extend(["--data-root".to_owned(), below("data"), "--exec-root".to_owned(), below("exec")]);
    command.extend(["-p".to_owned(), below("pid"), "-H".to_owned(), format!("unix://{}", below("s"))]);
    let end =
        format!("docker --host unix://{} ps --quiet | xargs -r docker --host unix://{} kill", below("s"), below("s"));
    let engine = Engine::start(Kind::Docker, folder, &end, &command);
    eventually("Docker's engine answers", || {
        let log = || fs::read_to_string(engine.folder.join("log")).unwrap_or_default();
        let running = fs::read_to_string(engine.folder.join("pid")).unwrap_or_default();
        assert!(running.is_empty() || Path::new("/proc").join(running.trim()).exists(), "{}", log());
        engine.is_up() && engine.command(&["info"]).output().unwrap().status.success()
    });
    images::make(&engine.folder.join("rootfs"), &mut |rootfs, image| import(&engine, rootfs, image));
    engine
}

/// Imports an image by a client with Docker's words.
pub(super) fn import(engine: &Engine, rootfs: &Path, image: images::Image) {
    let mut import = engine.command(&["import"]);
    let user = format!("USER {}", image.user);
    let variables: Vec<String> = image.variables.iter().map(|one| format!("ENV {one}")).collect();
    let mut changes = vec!["ENTRYPOINT [\"/app\"]", "CMD [\"serve\"]", "WORKDIR /"];
    changes.extend((!image.user.is_empty()).then_some(user.as_str()));
    changes.extend(variables.iter().map(String::as_str));
    for change in changes {
        import.args(["--change", change]);
    }
    let output = run(import.args(["-", image.name]), &images::tar(rootfs));
    assert!(output.status.success(), "{output:?}");
}

/// Prepares Docker's own client.
pub(super) fn client(folder: &Path) -> Command {
    let mut command = Command::new(needs("docker"));
    command.env("DOCKER_HOST", format!("unix://{}", folder.join("s").display()));
    command
}
