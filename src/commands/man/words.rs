//! The texts of the manual pages that the help does not have.

use crate::settings::{HOME_VARIABLE, HOSTS_VARIABLE, LOCAL_VARIABLE, NO_INPUT_VARIABLE, SETTINGS_VARIABLE};

/// Pages of other programs that belong to the program's page.
pub(super) const OTHERS: [&str; 2] = ["ssh", "ssh_config"];

/// The environment variables.
pub(super) const ENVIRONMENT: [(&str, &str); 9] = [
    (HOME_VARIABLE, "the folder for everything that this program writes"),
    (SETTINGS_VARIABLE, "the settings file"),
    (LOCAL_VARIABLE, "use the embedded platform, as `--local` does"),
    (NO_INPUT_VARIABLE, "ask nothing, as `--no-input` does; also for connections of ssh, to which it passes this on"),
    (HOSTS_VARIABLE, "a file in place of the hosts file and the name service when an alias is made, for tests"),
    ("NO_COLOR", "if it is not empty: no colours, unless `--color` says otherwise"),
    ("CLICOLOR_FORCE", "if it is neither empty nor 0: colours even if the output is no terminal"),
    ("TERM", "with the value `dumb`, or without one: no colours, and nothing is drawn; lines are printed instead"),
    ("HTTPS_PROXY, NO_PROXY", "the usual proxy variables; the setting `proxy` takes precedence"),
];

/// The files that the program reads or writes.
pub(super) const FILES: [(&str, &str); 10] = [
    (
        "~/.config/labctl-ssh-proxy/settings.yaml",
        "the settings; on macOS in ~/Library/Application Support, on Windows in %APPDATA%",
    ),
    (
        ".labctl-ssh-proxy.yaml",
        "in a folder: the `playground` that `ssh`, `open`, `start`, `kube` and `port-forward` mean there and below, and the \
         `path` that `open` opens; what it would start is asked about",
    ),
    ("~/.iximiuz/labctl-ssh-proxy", "this program's own files: host entries, host keys, records, backups, logs"),
    ("~/.iximiuz/labctl/config.yaml", "the login, shared with labctl"),
    ("~/.ssh/iximiuz_labs_user", "the key for machines, shared with labctl; made if it is missing"),
    ("~/.ssh/config", "`config-ssh` adds one line, an Include"),
    ("~/.kube/config", "`kube --merge` adds a context while it runs"),
    ("~/.config/zed/settings.json", "`config-zed` adds playgrounds"),
    ("~/.config/JetBrains/*/options/sshConfigs.xml", "`config-jetbrains` adds playgrounds"),
    ("~/.config/systemd/user", "`listen --install` adds a service; on macOS to ~/Library/LaunchAgents"),
];

/// Examples: the command of the page, which is empty for the program's, the line, and its meaning.
pub(super) const EXAMPLES: &[(&str, &str, &str)] = &[
    ("", "labctl-ssh-proxy login", "log in once; a login of labctl is used as it is"),
    ("", "labctl-ssh-proxy config-ssh", "then `ssh playground-<id>`, scp and editors work"),
    ("", "labctl-ssh-proxy demo", "see it work on this computer, without an account"),
    ("start", "labctl-ssh-proxy start docker --ssh", "start a playground, wait until it is ready, and go inside"),
    ("start", "labctl-ssh-proxy start k8s-omni --ask", "choose what it comes with, question by question"),
    ("start", "labctl-ssh-proxy start k3s --title demo --open code", "start one with a title, and open it in VS Code"),
    (
        "start",
        "labctl-ssh-proxy start https://labs.iximiuz.com/challenges/docker-101-container-run",
        "begin an attempt at a challenge, after a question",
    ),
    ("rename", "labctl-ssh-proxy rename docker Cluster", "then `ssh cluster` works, too"),
    ("rename", "labctl-ssh-proxy rename docker --alias web", "a host name that stays when the title changes"),
    ("list", "labctl-ssh-proxy list --all --json", "all of your playgrounds, for a script"),
    (
        "list",
        "labctl-ssh-proxy list -q --filter playground=docker",
        "the ids of those that were started from one entry",
    ),
    ("ssh", "labctl-ssh-proxy ssh docker", "wake the playground if it is stopped, and go inside"),
    ("ssh", "labctl-ssh-proxy ssh root@docker uname -a", "run one command as another user"),
    ("ssh", "labctl-ssh-proxy ssh docker -L 8080:localhost:80 -N", "pass options to ssh"),
    ("ssh", "labctl-ssh-proxy ssh playground-docker.docker-01.web", "go inside a container of a machine"),
    ("ssh", "labctl-ssh-proxy ssh --in web docker ps", "the same by its name alone, on any machine of the playground"),
    ("open", "labctl-ssh-proxy open cursor docker", "open it in Cursor"),
    ("open", "labctl-ssh-proxy open code docker /app --in web", "open a folder of a container"),
    ("debug", "labctl-ssh-proxy debug docker web", "a shell in a container, even if it has none itself"),
    ("debug", "labctl-ssh-proxy debug docker web -- ls -l /proc/1/fd", "run one command there"),
    (
        "debug",
        "labctl-ssh-proxy debug docker web --tools nicolaka/netshoot -- tcpdump -i any",
        "with the programs of an image",
    ),
    (
        "debug",
        "labctl-ssh-proxy debug k3s --pod shop/web/app --ephemeral busybox -- ps aux",
        "by an ephemeral container, which stays in the pod's spec",
    ),
    ("port-forward", "labctl-ssh-proxy port-forward docker -L 8080:80", "the machine's port 80 is port 8080 here"),
    (
        "port-forward",
        "labctl-ssh-proxy port-forward docker --in web -L 8080:80",
        "port 80 of a container, even of one without a network",
    ),
    ("port-forward", "labctl-ssh-proxy port-forward docker -R 5432:5432", "this computer's port 5432 is the machine's"),
    (
        "port-forward",
        "labctl-ssh-proxy port-forward docker -L 5353:53/udp --save",
        "forward datagrams, and save it for later",
    ),
    ("port-forward", "labctl-ssh-proxy port-forward docker --restore", "open again what was saved"),
    ("port-forward", "labctl-ssh-proxy port-forward docker --auto", "every server's port, as it comes and goes"),
    (
        "listen",
        "labctl-ssh-proxy listen playground-docker",
        "programs that know no ProxyCommand find it as playground-docker-listen",
    ),
    ("listen", "labctl-ssh-proxy listen playground-docker --install", "now and after each login"),
    ("containers", "labctl-ssh-proxy containers docker", "see what runs, with the host name of one of them"),
    ("containers", "labctl-ssh-proxy containers docker --watch --json", "a line for each change, for a program"),
    ("pods", "labctl-ssh-proxy pods k3s -A", "see the pods of a cluster, those in trouble first"),
    ("pods", "labctl-ssh-proxy pods k3s -A --watch --json", "a line for each change, for a program"),
    ("pods", "labctl-ssh-proxy pods k3s --of shop/web/app", "what the API has about one container"),
    ("logs", "labctl-ssh-proxy logs", "this program's log of all connections"),
    ("logs", "labctl-ssh-proxy logs playground-docker -f", "that of the connections to one playground, as they go on"),
    ("logs", "labctl-ssh-proxy logs k3s --pod shop/web -f", "follow the log of a pod's default container"),
    ("logs", "labctl-ssh-proxy logs k3s --pod shop/web/app --previous --tail 50", "the last words before a restart"),
    ("ping", "labctl-ssh-proxy ping docker -c 5", "see whether the platform or the machine is slow"),
    ("ports", "labctl-ssh-proxy ports docker", "see what listens, and who reaches it"),
    ("expose", "labctl-ssh-proxy expose docker 8080", "an address for your browser, for you alone"),
    ("expose", "labctl-ssh-proxy expose docker 8080 --public", "for everyone who has the address; asks first"),
    ("expose", "labctl-ssh-proxy expose docker --shell", "a terminal in your browser"),
    ("unexpose", "labctl-ssh-proxy unexpose docker 8080", "take the address away"),
    ("kube", "labctl-ssh-proxy kube k3s -- kubectl get nodes", "run kubectl on this computer"),
    ("kube", "labctl-ssh-proxy kube k3s --merge", "add a context to your kubeconfig until Ctrl-C"),
    ("stop", "labctl-ssh-proxy stop docker", "connections do not wake it until you start it again"),
    (
        "extend",
        "labctl-ssh-proxy extend docker until 18:00",
        "let it run until six in the evening, by this computer's clock",
    ),
    ("keep", "labctl-ssh-proxy keep on docker", "give it more time for as long as it is used"),
    ("lifetime", "labctl-ssh-proxy lifetime docker 3h", "let it end three hours after its start"),
    ("machine", "labctl-ssh-proxy machine stop k3s node-01", "connections do not start it until you want it back"),
    ("machine", "labctl-ssh-proxy machine console k3s node-01 -f", "follow a boot"),
    ("machine", "labctl-ssh-proxy machine journal k3s node-01 -u ssh -n 50", "the last entries of its SSH server"),
    ("wait", "labctl-ssh-proxy wait docker --timeout 10m", "wait for it in a script"),
    ("wait", "labctl-ssh-proxy wait docker-101-container-run --solved", "wait until you have solved a challenge"),
    ("config-ssh", "labctl-ssh-proxy config-ssh --dry-run", "show what would change"),
    ("config-ssh", "labctl-ssh-proxy config-ssh --remove", "take it back"),
    ("doctor", "labctl-ssh-proxy doctor docker", "check the way to one playground, too"),
    ("demo", "labctl-ssh-proxy demo -- uname -a", "run one command inside instead of a shell"),
    ("completions", "labctl-ssh-proxy completions zsh", "print the script for zsh"),
    ("man", "labctl-ssh-proxy man --folder ~/.local/share/man/man1", "install the pages for yourself"),
];

/// Returns the sentence about the exit codes that matter for a command.
pub(super) fn exit(command: &str) -> &'static str {
    match command {
        "ssh" => {
            "The exit code of ssh, which is that of the command in the playground, or 255 if ssh itself failed. Before \
             ssh has begun: 4 if there is no such playground, 5 if several match, 9 if it is not ready in time."
        }
        "debug" => {
            "The exit code of the shell or of COMMAND, or 255 if ssh or the way into the container failed. Where machines \
             are asked for the container first: 4 if there is none of that name, 5 if several match, 7 if it does not run. With \
             `--ephemeral`, the exit code of the container; before that, 6 if the cluster refuses, 7 if it does not start, 8 \
             if the pod is deleted."
        }
        "connect" => "0 when the connection has ended. ssh itself shows 255 for whatever stops it.",
        "start" => {
            "0 when the playground is ready, 6 if the platform refuses, 9 if it is not ready in time. With `--ssh`, the \
             exit code of ssh; with `--with-port-forwards`, 130 after Ctrl-C."
        }
        "wait" => {
            "0 when the playground is ready, 14 if one of its tasks has failed, 9 if it is not ready in time, 7 if it \
             is stopped, 8 if it has ended."
        }
        "machine" => {
            "0 when its effect shows, 2 if it is not clear which machine is meant, 4 if there is none, 7 if it or its \
             playground is stopped, 9 if the effect does not show in time, 10 if a journal is cut off, 130 after Ctrl-C, \
             which is the usual end with `--follow`."
        }
        "containers" => {
            "0 when at least one machine has answered, 7 if the playground or the machine is stopped, 14 if its engine does \
             not answer; 130 after Ctrl-C, which is the usual end with `--watch`."
        }
        "pods" => {
            "0 when the cluster has answered, 4 on a machine without a kubeconfig, 7 if the playground is stopped, 9 if the \
             cluster is not ready; 130 after Ctrl-C, which is the usual end with `--watch`."
        }
        "logs" => {
            "0 when the log has ended or has no reader any more, also if nothing is in it, 4 if there is no such playground, pod \
             or container; 130 after Ctrl-C, which is the usual end with `--follow`. With `--pod`, 6 if the container has no \
             log yet, 7 if the playground is stopped."
        }
        "ping" => {
            "0 when the machine has answered, 10 if it never has, 7 if it or its playground is stopped; 130 after Ctrl-C, which \
             is the usual end without `--count`."
        }
        "kube" => "The exit code of COMMAND; without one, 130 after Ctrl-C.",
        "port-forward" | "listen" => "130 after Ctrl-C, which is its usual end.",
        "doctor" => "0 if nothing is wrong, 1 if a check failed.",
        "demo" => "The exit code of the last command inside, as ssh returns it; 14 if there is no ssh.",
        "destroy" | "expose" | "uninstall" => "0 when it is done, 15 if you answered no.",
        "lifetime" => {
            "0 on success, 6 if the platform grants less, 7 if the playground is stopped, 15 if you answered no."
        }
        "login" => "0 when you are logged in, 3 if the platform does not accept the credentials.",
        _ => "0 on success.",
    }
}
