//! Each row of what ssh can do, at each kind of container. To add one, write what a client does, and what is to come of
//! it.

use std::{fs, io::Write, net::TcpListener, sync::Mutex, thread};

use super::{Site, Target, others, targets, targets_of};
use crate::support::{
    ENDPOINTS,
    engine::{BUSYBOX, Container, HTTP, SOCKET},
    noise, peer, peers,
    terminal::OnTerminal,
};

/// A name, a script, and its whole output. `$HOST` is the container; `$E` is `exec` where a shell would stand between;
/// `$PORT` is free on this computer, and `$N`, a number, is the row's own.
const ROWS: &[(&str, &str, &str)] = &[
    ("exit codes", "for code in 0 7 255; do ssh $HOST /app exit $code; echo $?; done", "0\n7\n255\n"),
    ("a program that there is not", "ssh $HOST /no-such-program 2>/dev/null; echo $?", "127\n"),
    (
        "all three streams",
        "head -c 300000 $DATA | ssh $HOST /app cat | cmp - <(head -c 300000 $DATA) && ssh $HOST /app complain 2>err; cat err",
        "to stderr\n",
    ),
    (
        "words in quotes",
        r#"ssh $HOST "/app say 'a  b' c\\ d \"e 'f\" '' g"; ssh $HOST "/app  say '"'$HOME'"' \"\\\"\" '*'""#,
        "[a  b][c d][e 'f][][g]\n[$HOME][\"][*]\n",
    ),
    (
        "a program that a signal ends",
        "ssh -v $HOST $E /app kill 15 2>log; echo $?; grep -c 'rtype exit-signal' log",
        "255\n1\n",
    ),
    (
        "Ctrl-C on a terminal",
        r#"mkfifo in; ssh -tt $HOST $E /app signalled <in >out 2>err & exec 3>in
           until_so grep -q waiting out; printf '\003' >&3; wait $!; echo $?; grep -o 'caught 2' out"#,
        "3\ncaught 2\n",
    ),
    (
        "signals",
        "for name in TERM HUP USR1; do $PYTHON $SIGNALS $PROXY $HOST $name $E /app signalled; done",
        "caught 15\n3\ncaught 1\n3\ncaught 10\n3\n",
    ),
    (
        "much by sftp, both ways",
        r#"printf '%s\n' "put $MANY /dev/shm/many$N" "get /dev/shm/many$N back" "rm /dev/shm/many$N" | sftp -q -b - $HOST >/dev/null
           cmp $MANY back && echo same"#,
        "same\n",
    ),
    (
        "a folder by sftp",
        r#"printf '%s\n' "mkdir /dev/shm/d$N" "cd /dev/shm/d$N" "put $DATA f" "chmod 600 f" "rename f g" "ln -s g h" "ls -1" \
             "get h back" "rm g" "rm h" "rmdir /dev/shm/d$N" | sftp -q -b - $HOST | grep -v '^sftp>'; cmp $DATA back && echo same"#,
        "g\nh\nsame\n",
    ),
    (
        "scp, both ways",
        r#"scp -q $DATA $HOST:/dev/shm/s$N && scp -q $HOST:/dev/shm/s$N back && cmp $DATA back && scp -q $HOST:/data theirs &&
           cmp $DATA theirs && printf 'rm /dev/shm/s%s\n' $N | sftp -q -b - $HOST >/dev/null && echo same"#,
        "same\n",
    ),
    (
        "a port there (-L)",
        "hold -L $PWD/l:127.0.0.1:8080; curl -sS --unix-socket l http://app/ http://app/; bye",
        "from the app\nfrom the app\n",
    ),
    (
        "a port there by name",
        "hold -L $PWD/l:localhost:8080; curl -sS --unix-socket l http://app/; bye",
        "from the app\n",
    ),
    (
        "a port here (-R)",
        "socat -t10 UNIX-LISTEN:echo,fork EXEC:cat & hold -R $((7000 + N)):$PWD/echo
         ssh $HOST /app get $((7000 + N)) through; echo; bye; kill $!",
        "through\n",
    ),
    (
        "a port of their choice",
        r#"socat -t10 UNIX-LISTEN:echo,fork EXEC:cat & hold -o LogLevel=INFO -R 0:$PWD/echo 2>said; port=$(grep -oP 'Allocated port \K\d+' said)
           ssh $HOST /app get $port through; echo; bye; kill $!"#,
        "through\n",
    ),
    (
        "all ports (-D)",
        "hold -D $PORT; curl -sS --socks5-hostname 127.0.0.1:$PORT http://localhost:8080/; bye",
        "from the app\n",
    ),
    (
        "one port as the stream (-W)",
        r"printf 'GET / HTTP/1.0\r\n\r\n' | ssh -W 127.0.0.1:8080 $HOST | tail -n 1",
        "from the app\n",
    ),
    (
        "a port without a listener",
        "ssh -o LogLevel=INFO -W 127.0.0.1:1 $HOST 2>&1 </dev/null | grep -o 'Connection refused'",
        "Connection refused\n",
    ),
    (
        "sockets, both ways",
        "socat -t10 UNIX-LISTEN:echo,fork EXEC:cat & hold -R /dev/shm/r$N:$PWD/echo -L $PWD/l:/dev/shm/app.sock
         echo there | socat -t10 - UNIX-CONNECT:l; ssh $HOST /app unix /dev/shm/r$N back; echo; bye; kill $!
         until_so ssh $HOST '/app unix /dev/shm/app.sock end'",
        "there\nback\n",
    ),
    (
        "an agent",
        r#"eval "$(ssh-agent)" >/dev/null; ssh-keygen -q -t ed25519 -N '' -f key; ssh-add -q key 2>/dev/null
           ssh -A $HOST /app agent; ssh $HOST /app agent; kill $SSH_AGENT_PID"#,
        "1 keys\nno agent\n",
    ),
    (
        "rsync, which is not in the image",
        r#"rsync -q -e "ssh -F $CONFIG" $DATA $HOST:/dev/shm/rs$N 2>/dev/null || echo no"#,
        "no\n",
    ),
    (
        "ten sessions of one connection",
        r#"hold; for n in $(seq 10); do command ssh -F none -S c x /app say $n & done | sort | tr -d '\n'; echo; bye"#,
        "[10][1][2][3][4][5][6][7][8][9]\n",
    ),
    (
        "ten connections at once",
        r#"for n in $(seq 10); do ssh $HOST /app say $n & done | sort | tr -d '\n'; echo"#,
        "[10][1][2][3][4][5][6][7][8][9]\n",
    ),
];

/// Rows for a container with a shell.
const SHELL_ROWS: &[(&str, &str, &str)] = &[
    (
        "a shell's own words",
        r#"ssh $HOST 'cd /etc && for f in pass*; do echo $f; done; exit 4'; echo $?"#,
        "passwd\n4\n",
    ),
    ("a login shell without a terminal", "echo 'echo $HOME; exit 7' | ssh -T $HOST; echo $?", "/root\n7\n"),
    ("the image's environment", "ssh $HOST 'echo $IN_THE_IMAGE $USER $LOGNAME $SHELL'", "yes root root /bin/sh\n"),
    ("tar", "ssh $HOST tar -c -C /etc passwd | tar -xO | head -n 1", "root:x:0:0:root:/root:/bin/sh\n"),
    ("the old scp's own program is not there", "scp -O -q $HOST:/etc/passwd . 2>/dev/null || echo no", "no\n"),
];

/// Rows for a container without one, which is lent none.
const SHELLLESS_ROWS: &[(&str, &str, &str)] = &[
    (
        "a shell is refused in words",
        "ssh -T $HOST </dev/null >said 2>&1; echo $?; grep -oim1 'no shell' said",
        "127\nno shell\n",
    ),
    (
        "a command for a shell, too",
        "ssh $HOST sh -c true >said 2>&1; echo $?; grep -oim1 'no shell' said",
        "127\nno shell\n",
    ),
    (
        "the container's own user",
        "ssh $HOST /app show /proc/self/status | grep -P '^[UG]id' | tr '\\t' ' '",
        "Uid: 65532 65532 65532 65532\nGid: 0 0 0 0\n",
    ),
];

/// The features of a client, as people ask for them, and the rows that show it. rsync needs its own program in the container.
const FEATURES: [(&str, &[&str], bool); 12] = [
    (
        "commands, exit codes",
        &["exit codes", "a program that there is not", "all three streams", "words in quotes"],
        true,
    ),
    ("signals", &["a program that a signal ends", "Ctrl-C on a terminal", "signals"], true),
    ("terminal, its size", &[SIZE], true),
    ("sftp", &["much by sftp, both ways", "a folder by sftp"], true),
    ("scp", &["scp, both ways"], true),
    ("rsync", &["rsync, which is not in the image"], false),
    ("-L, -W", &["a port there (-L)", "a port there by name", "one port as the stream (-W)"], true),
    ("-R", &["a port here (-R)", "a port of their choice"], true),
    ("-D", &["all ports (-D)"], true),
    ("Unix sockets", &["sockets, both ways"], true),
    ("-A", &["an agent"], true),
    ("10 sessions at once", &["ten sessions of one connection", "ten connections at once"], true),
];

/// The row that has no script.
const SIZE: &str = "a terminal and its size";

/// A row that went wrong, and how.
pub(super) type Wrong = (&'static str, String);

/// All rows at one container that has a shell, is lent one by our program, or has none. Returns what went wrong.
pub(super) fn rows_at(
    site: &Site,
    container: &Container,
    tools: &str,
    more: &[(&'static str, &str, &str)],
) -> Vec<Wrong> {
    let rows: Vec<_> = ROWS.iter().chain(more).copied().collect();
    run_rows(site, container, tools, &rows)
}

/// Rows at one container, four at a time. Returns what went wrong.
pub(super) fn run_rows(
    site: &Site,
    container: &Container,
    tools: &str,
    rows: &[(&'static str, &str, &str)],
) -> Vec<Wrong> {
    let host = site.host(&container.name);
    let path = |name: &str| site.world.path(name).display().to_string();
    let (data, many) = (path("data"), path("many"));
    let config = site.world.ssh_config().display().to_string();
    let (python, signals) = (peers("python/bin/python"), peer("asyncssh_signal.py"));
    let rows = Mutex::new(rows.iter().enumerate());
    let next = || rows.lock().unwrap().next();
    let run = || {
        let mut wrong = Vec::new();
        while let Some((number, (name, script, expected))) = next() {
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let variables = [
                ("HOST", host.as_str()),
                ("E", if tools == "none" { "" } else { "exec" }),
                ("LABCTL_SSH_PROXY_TOOLS", tools),
                ("DATA", &data),
                ("MANY", &many),
                ("CONFIG", &config),
                ("N", &number.to_string()),
                ("PORT", &port.to_string()),
                ("PYTHON", python.to_str().unwrap()),
                ("SIGNALS", signals.to_str().unwrap()),
                ("PROXY", crate::support::PROGRAM),
                ("LC_ALL", "C"),
            ];
            let said = site.script(script, &variables);
            if said != *expected {
                wrong.push((*name, format!("{host}: {name}:\n{said}\ninstead of\n{expected}")));
            }
        }
        wrong
    };
    thread::scope(|scope| {
        let running: Vec<_> = (0..4).map(|_| scope.spawn(run)).collect();
        running.into_iter().flat_map(|one| one.join().unwrap()).collect()
    })
}

/// A terminal has the size of the client's, and follows it.
fn resize(site: &Site, container: &Container) {
    let mut command = pty_process::blocking::Command::new("ssh");
    command = command.env_clear().env("HOME", site.world.home()).env("PATH", "/usr/bin:/bin").env("TERM", "vt220");
    command =
        command.arg("-F").arg(site.world.ssh_config()).args(["-tt", &site.host(&container.name), "/app", "sizes"]);
    let mut shell = OnTerminal::start(command, 31, 97);
    shell.expect("size=31 97\r\n");
    shell.terminal.resize(pty_process::Size::new(40, 120)).unwrap();
    shell.expect("size=40 120\r\n");
    shell.type_in("\r");
    assert_eq!(shell.code(), Some(0));
}

/// Every row at one target. `mib` are sent by SFTP in each direction.
fn every_row_at((name, engine, options, image): Target, endpoint: &str, mib: usize) -> Vec<Wrong> {
    let site = Site::new(engine, endpoint);
    fs::write(site.world.path("data"), noise(1 << 20)).unwrap();
    fs::write(site.world.path("many"), noise(mib << 20)).unwrap();
    let container = engine.run(name, &options, image, &[]);
    // The helper is put there, which is said.
    site.ssh(&[&site.host(&container.name), "/app", "exit", "0"]).ok();
    let (tools, more) = if image == BUSYBOX { ("auto", SHELL_ROWS) } else { ("none", SHELLLESS_ROWS) };
    let wrong = rows_at(&site, &container, tools, more);
    resize(&site, &container);
    if endpoint != ENDPOINTS[0] {
        // asyncssh kills its proxies. A relay keeps what they leave until the next connection that lasts.
        site.ssh(&[&format!("root@{}", site.playground()), "sleep 5"]).ok();
    }
    site.leaves_nothing(&container);
    wrong
}

#[track_caller]
pub(super) fn are_well(wrong: Vec<Wrong>) {
    let wrong: Vec<String> = wrong.into_iter().map(|(_, how)| how).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

#[test]
fn every_kind_of_container_serves_every_row() {
    // One after the other, because the rows of each run at once.
    are_well(targets().into_iter().flat_map(|target| every_row_at(target, ENDPOINTS[0], 4)).collect());
}

/// Each of the other engines with another kind of container.
#[test]
fn every_engine_serves_every_row() {
    let kinds = ["userns", "root", "hardened"];
    let all = others()
        .into_iter()
        .zip(kinds)
        .map(|((_, engine), kind)| targets_of(engine).into_iter().find(|(name, ..)| *name == kind).unwrap());
    are_well(all.flat_map(|target| every_row_at(target, ENDPOINTS[0], 4)).collect());
}

/// All engines, all kinds of container, all features: a table of 192 cells. Docker's behind OpenSSH's server, too.
#[test]
#[ignore = "minutes; scripts/try-containers runs it"]
fn the_whole_matrix_with_64_mib() {
    let mut table = String::from("| | |");
    for (feature, ..) in FEATURES {
        table += &format!(" {feature} |");
    }
    table += &format!("\n|{}", " --- |".repeat(FEATURES.len() + 2));
    let (mut cells, mut all_wrong) = (0, Vec::new());
    let docker = [("docker", targets())].into_iter();
    for (engine, targets) in docker.chain(others().into_iter().map(|(name, engine)| (name, targets_of(engine)))) {
        for target in targets {
            table += &format!("\n| {engine} | {} |", target.0);
            let wrong = every_row_at(target, ENDPOINTS[0], 64);
            for (_, rows, works) in FEATURES {
                cells += 1;
                let is_as_told = !wrong.iter().any(|(row, _)| rows.contains(row));
                table += if !is_as_told {
                    " WRONG |"
                } else if works {
                    " yes |"
                } else {
                    " no |"
                };
            }
            all_wrong.extend(wrong);
        }
    }
    let _ = writeln!(std::io::stderr(), "{table}");
    assert_eq!(cells, 192);
    are_well(all_wrong);
    are_well(targets().into_iter().flat_map(|target| every_row_at(target, ENDPOINTS[1], 64)).collect());
}

#[test]
fn each_row_of_a_feature_is_one() {
    let rows: Vec<&str> = ROWS.iter().map(|(name, ..)| *name).chain([SIZE]).collect();
    for (feature, its, _) in FEATURES {
        assert!(!its.is_empty() && its.iter().all(|row| rows.contains(row)), "{feature}");
    }
}

/// The ground of the rows, without a part of ours: the containers run, and docker's own client sees them as meant.
#[test]
fn the_targets_are_what_they_are_called() {
    for (name, engine, options, image) in
        targets().into_iter().chain(others().into_iter().flat_map(|(_, engine)| targets_of(engine)))
    {
        let container = engine.run(name, &options, image, &[]);
        let said = container.exec(&[], &["/app", "confinement"]);
        let said = String::from_utf8(said.stdout).unwrap();
        let value = |key: &str| {
            let line =
                said.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_else(|| panic!("{key} in {said}"));
            line.split_whitespace().next().unwrap_or_default().to_owned()
        };
        assert_eq!(value("Uid:"), if image == BUSYBOX { "0" } else { "65532" });
        assert_eq!(value("Seccomp:"), "2");
        assert_eq!(value("NoNewPrivs:"), if name == "hardened" { "1" } else { "0" });
        // podman gives two fewer than Docker and containerd.
        let usual = ["00000000a80425fb", "00000000800405fb"].contains(&value("CapBnd:").as_str());
        assert!(if name == "hardened" { value("CapBnd:") == "0000000000000000" } else { usual }, "{said}");
        assert_eq!(container.exec(&[], &["/bin/sh", "-c", "true"]).status.success(), image == BUSYBOX);
        let mapped = fs::read_to_string(format!("/proc/{}/uid_map", container.pid())).unwrap();
        assert_eq!(mapped.contains("200000"), name == "userns", "{mapped}");
        let said = container.exec(&[], &["/app", "get", &HTTP.to_string(), "GET / HTTP/1.0\r\n\r\n"]);
        assert!(String::from_utf8_lossy(&said.stdout).ends_with("from the app\n"), "{said:?}");
        let said = container.exec(&[], &["/app", "unix", SOCKET, "echo"]);
        assert_eq!(said.stdout, b"echo", "{said:?}");
        assert!(container.visitors().is_empty());
        assert_eq!(container.diff(), "");
    }
}
