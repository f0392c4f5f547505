//! The kubeconfig of a machine: where kubectl would look for it there.

use crate::{
    error::{Error, Kind, Result},
    labs::wire::Play,
    ssh::{
        client::SshClient,
        marked::{self, Found, Marked},
    },
};

/// The machine of a Kubernetes playground that usually has the kubeconfig.
pub(crate) const CONTROL_PLANE: &str = "cplane-01";
/// Largest kubeconfig accepted. Usual ones have a few KiB.
const MAX_KUBECONFIG: usize = 4 * 1024 * 1024;

/// The machine that usually has it, if the play has one of that name.
pub(crate) fn usual_machine(play: &Play) -> Option<&'static str> {
    play.machines.iter().any(|machine| machine.name == CONTROL_PLANE).then_some(CONTROL_PLANE)
}

/// Sets `k` to the list of kubeconfigs in the environment that a program gets which ssh runs.
const PLAIN: &str = "k=$KUBECONFIG";
/// Sets `k` to the list that a terminal there has: a login shell's, or an interactive shell's. Only the last line is
/// theirs, because they may print.
const IN_A_TERMINAL: &str = "for o in -lc -ic; do \
     k=$(\"${SHELL:-/bin/sh}\" $o \"echo; printenv KUBECONFIG || echo\" </dev/null 2>/dev/null | tail -n 1); \
     [ -z \"$k\" ] || break; done; [ -n \"$k\" ] || exit 3";
/// Prints what kubectl would read there. It merges the files of a list, and puts in the files that one names.
const PRINT: &str = "k=${k:-$HOME/.kube/config}; n=0; one=; link=; set -f; IFS=:; \
     for f in $k; do \
     if [ -s \"$f\" ]; then n=$((n+1)); one=${one:-$f}; elif [ -L \"$f\" ]; then link=$f; fi; done; \
     if [ $n -gt 1 ] || grep -Eq \"^ *(certificate-authority|client-(certificate|key)):\" \"$one\" 2>/dev/null && \
     command -v kubectl >/dev/null; then KUBECONFIG=$k kubectl config view --raw --flatten; exit; fi; \
     if [ $n -gt 0 ]; then cat \"$one\"; exit; fi; \
     if [ -n \"$link\" ]; then echo \"$link\" >&2; exit 4; fi; exit 3";
/// Sets `k` to the first kubeconfig that root can read: its own, that of the machine's user, the cluster's own.
const AS_ROOT: &str = "k=$KUBECONFIG; \
     for f in \"$HOME/.kube/config\" ~USER/.kube/config /etc/kubernetes/admin.conf /etc/rancher/k3s/k3s.yaml; do \
     if [ -z \"$k\" ] && [ -s \"$f\" ]; then k=$f; fi; done";
/// Exit status of [`PRINT`] when there is no file.
const NO_FILE: u32 = 3;
/// Exit status of [`PRINT`] when there is a link that leads nowhere, which it names.
const DANGLING: u32 = 4;

/// Reads the kubeconfig of the user whom `ssh` has logged in. If there is none, returns the reason, if it is known.
///
/// # Errors
/// Those of the connection; [`Kind::Answer`] when it is not text.
pub(crate) async fn read(ssh: &SshClient, machine: &str) -> Result<Result<String, Option<String>>> {
    read_by(ssh, machine, &[PLAIN, IN_A_TERMINAL]).await
}

/// As [`read`], for root, who also has the files of `user` and of the cluster itself. The shell's own words are not asked
/// for, which takes a moment.
///
/// # Errors
/// As [`read`].
pub(crate) async fn read_as_root(ssh: &SshClient, machine: &str, user: &str) -> Result<Result<String, Option<String>>> {
    let is_plain = user.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'));
    read_by(ssh, machine, &[&AS_ROOT.replace("USER", if is_plain { user } else { "" })]).await
}

async fn read_by(ssh: &SshClient, machine: &str, environments: &[&str]) -> Result<Result<String, Option<String>>> {
    let mut missing = None;
    for &environment in environments {
        let marked = Marked::new();
        let command = marked.command(&format!("{environment}; {PRINT}"));
        let output = match ssh.output(&command, MAX_KUBECONFIG).await {
            Ok(output) => output,
            // A shell for a terminal may wait for one.
            Err(error) if environment == IN_A_TERMINAL => {
                log::info!("the login shell does not say where the kubeconfig is: {}", error.message());
                break;
            }
            Err(error) => return Err(error),
        };
        match marked.find(&output.stdout) {
            Some(Found { output: text, status: Some(0) }) => {
                let text = std::str::from_utf8(text).map_err(|_| {
                    Error::new(Kind::Answer, format!("the kubeconfig of machine {machine} is not text"))
                })?;
                return Ok(Ok(text.to_owned()));
            }
            Some(Found { status: Some(DANGLING), .. }) => {
                missing = Some(format!("has {}, which is a link that leads nowhere", output.complaint()));
            }
            Some(Found { status: Some(NO_FILE), .. }) => {}
            Some(_) => log::info!("cannot read a kubeconfig: {}", output.complaint()),
            None => return Err(marked::not_run(&format!("machine {machine}"), &output.complaint())),
        }
    }
    Ok(Err(missing))
}
