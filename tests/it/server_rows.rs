//! Rows that are tried on both endpoints of a machine: what comes of a row at the built-in server must be what comes of it
//! at OpenSSH's sshd. To add one, write what a client does, and a part of what is to come of it, below; or, where ssh, sftp
//! and scp have no words for it, a function in tests/peers/server_rows.py.

use std::{
    fs,
    process::Command,
    thread,
    time::{SystemTime, UNIX_EPOCH},
};

use crate::support::{
    machine::{BOTH, PATIENCE, World, run},
    needs, peers,
};

/// A name, a script for bash, and a part of its output on both endpoints. The script runs in an empty folder; `ssh`,
/// `sftp` and `scp` reach the machine `m`; `$H` is an empty folder of the machine. All that it prints, its exit code, and the
/// names that it leaves in both folders are compared.
const ROWS: &[(&str, &str, &str)] = &[
    (
        "two names that differ in a byte arrive as two files",
        r#"mkdir t; echo first >t/caf$'\xe8'; echo second >t/caf$'\xe9'; scp -qr t m:"$H"; ssh m "cat $H/t/*""#,
        "first\nsecond\n",
    ),
    (
        "and by the old protocol",
        r#"mkdir t; echo first >t/caf$'\xe8'; echo second >t/caf$'\xe9'; scp -Oqr t m:"$H"; ssh m "cat $H/t/*""#,
        "first\nsecond\n",
    ),
    ("and come back", r#"mkdir -p "$H/u"; echo it >"$H/u/x"$'\xe9'; scp -qr m:"$H/u" .; cat u/x*"#, "it\n"),
    ("a command of any bytes", r#"ssh m $'printf %s \xe9 | od -An -tx1'"#, " e9\n"),
    (
        "a variable of any bytes",
        r#"LC_NAME=$'\xe9' ssh -o SendEnv=LC_NAME m 'printf %s "$LC_NAME" | od -An -tx1'"#,
        " e9\n",
    ),
    ("a subsystem of any bytes", r#"ssh -s m $'\xe9'"#, "subsystem request failed"),
    ("a user of any bytes", r#"ssh -l $'u\xe9' m true"#, "Permission denied (publickey)"),
    (
        "a socket of any bytes, forwarded from there",
        r#"ssh -o ExitOnForwardFailure=yes -R "$H/s"$'\xe9':127.0.0.1:1 m "test -S $H/s* && echo there"; rm -f "$H"/s*"#,
        "there\n",
    ),
    (
        "a socket of any bytes, forwarded to there, and back",
        r#"socat -t10 UNIX-LISTEN:echo,fork EXEC:cat & echo=$!
           ssh -M -S c -fN -o ExitOnForwardFailure=yes -R "$H/far"$'\xe9':$PWD/echo -L $PWD/l:"$H/far"$'\xe9' m
           echo through | socat -t10 - UNIX-CONNECT:l; ssh -S c -O exit m 2>/dev/null; kill $echo; rm -f "$H"/far* l echo"#,
        "through\n",
    ),
    ("a host of any bytes", r#"ssh -o LogLevel=INFO -W $'h\xe9':22 m"#, "connect failed: "),
    ("a port without a listener", "ssh -o LogLevel=INFO -W 127.0.0.1:1 m", "Connection refused"),
    ("a port without a listener, in IPv6", "ssh -o LogLevel=INFO -W '[::1]:1' m", "connect failed: "),
    ("a host that there is not", "ssh -o LogLevel=INFO -W no-such-host.invalid:22 m", "connect failed: "),
    (
        "two ports of their choice",
        "ssh -o ExitOnForwardFailure=yes -R 0:127.0.0.1:1 -R 0:127.0.0.1:1 m echo both",
        "both\n",
    ),
    (
        "all that sftp can do to a name of any bytes",
        r#"echo it >f; n=$'n\xe9'; cd=$H; sed "s/^ *//; s/N/$n/g" >batch <<"."
             cd H
             put f N
             rename N aN
             ln aN bN
             ln -s aN cN
             chmod 600 aN
             mkdir dN
             ls -1
             get bN back
             rm bN
             rmdir dN
             cp aN eN
.
           LC_ALL=C sed -i "s:^cd H:cd $H:" batch; sftp -q -b - m <batch; cat back "$H/e$n"; readlink "$H/c$n""#,
        "it\nit\n",
    ),
    ("the room of a disk", r#"echo 'df -h' | sftp -q -b - m | awk 'NR > 1 {print $1, NF}'"#, "Size"),
    (
        "errors of sftp",
        r#"ln -s loop "$H/loop"; : >"$H/file"; mkdir "$H/d"; : >"$H/d/x"; sed "s:^ *::; s:H/:$H/:g" >batch <<"."
             -get H/loop
             -get H/none
             -get H/file/x
             -rmdir H/d
             -mkdir H/d
             -rm H/d
             -chmod 600 H/none
             -put none
             -ls H/none
             -cd H/file
             -cp H/none H/there
             -rename H/none H/there
             -ln H/none H/there
             -symlink x H/file
             -chgrp 4000000000 H/file
.
           echo "-get $H/$(printf %0300d 0)" >>batch; sftp -q -b - m <batch"#,
        "not found",
    ),
    ("a login shell without a terminal", "echo 'exit 7' | ssh -T m", ""),
    ("a command that there is not", "ssh m no-such-command", "not found"),
    ("a command that a signal ends", "ssh m 'kill -9 $$'", ""),
    (
        "an agent",
        r#"eval "$(ssh-agent)" >/dev/null; ssh -A m 'test -S "$SSH_AUTH_SOCK" && echo agent'; kill $SSH_AGENT_PID"#,
        "agent\n",
    ),
];

/// All that came of a row.
fn shell(world: &World, number: usize, script: &str) -> String {
    let (here, there) = (world.path(&format!("row{number}")), world.home(&format!("row{number}")));
    fs::create_dir(&here).unwrap();
    fs::create_dir(&there).unwrap();
    let config = world.path("config");
    let function = |name| format!("{name}() {{ command {name} -F '{}' \"$@\"; }}\n", config.display());
    let functions = ["ssh", "scp", "sftp"].map(function).concat();
    let mut bash = Command::new("timeout");
    bash.args([&PATIENCE.as_secs().to_string(), "bash", "-c", &format!("exec 2>&1\n{functions}{script}")]);
    let output = run(bash.current_dir(&here).env("H", &there).env("LC_ALL", "C").env_remove("SSH_AUTH_SOCK"), b"");
    let list = |folder| {
        let mut found: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        found.sort();
        found
    };
    let said = output.stdout.escape_ascii().to_string().replace("\\n", "\n");
    let text = format!("{said}\n{:?}, here {:?}, there {:?}", output.status.code(), list(&here), list(&there));
    text.replace(&there.display().to_string(), "$H").replace(&world.folder.path().display().to_string(), "$W")
}

/// The outcomes of all rows at each of the endpoints, which are tried at the same time.
fn at_both<T: Send>(rows: impl Fn(&World) -> Vec<T> + Sync) -> impl Iterator<Item = (T, T)> {
    let [ours, sshds] = thread::scope(|scope| {
        let rows = &rows;
        BOTH.map(|endpoint| scope.spawn(move || rows(&World::new(endpoint)))).map(|running| running.join().unwrap())
    });
    assert_eq!(ours.len(), sshds.len());
    ours.into_iter().zip(sshds)
}

/// Panics with the rows that differ.
fn compare(rows: impl IntoIterator<Item = (String, String, String)>) {
    let differ = rows.into_iter().filter(|(_, ours, sshds)| ours != sshds);
    let differ: String =
        differ.map(|(name, ours, sshds)| format!("== {name}\n-- ours:\n{ours}\n-- sshd's:\n{sshds}\n")).collect();
    assert!(differ.is_empty(), "{differ}");
}

#[test]
fn what_ssh_sftp_and_scp_do() {
    for program in ["bash", "socat", "awk", "sed"] {
        needs(program);
    }
    let came = at_both(|world| ROWS.iter().enumerate().map(|(n, (_, script, _))| shell(world, n, script)).collect());
    let rows: Vec<_> =
        ROWS.iter().zip(came).map(|((name, _, part), (ours, sshds))| (name, part, ours, sshds)).collect();
    for (name, part, ours, _) in &rows {
        assert!(ours.contains(**part), "{name}: {ours}");
    }
    compare(rows.into_iter().map(|(name, _, ours, sshds)| ((*name).to_owned(), ours, sshds)));
}

#[test]
fn what_a_client_of_any_kind_may_do() {
    let python = peers("python/bin/python3");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/peers/server_rows.py");
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs().to_string();
    let rows = at_both(|world| {
        let mut command = Command::new("timeout");
        command.arg("300").arg(&python).arg(script).arg(&world.user).args([world.path("id"), world.path("s")]);
        let output = run(command.arg(world.machine.home()).args([&format!("{:?}", world.endpoint), &now]), b"");
        assert!(output.status.success(), "{output:?}");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let rows = text.split("== ").skip(1).map(|row| row.split_once('\n').unwrap());
        rows.map(|(name, came)| (name.to_owned(), came.to_owned())).collect()
    });
    let rows: Vec<_> = rows.map(|((name, ours), (_, sshds))| (name, ours, sshds)).collect();
    assert!(!rows.is_empty() && rows.iter().all(|(_, ours, _)| !ours.is_empty()), "{rows:?}");
    compare(rows);
}
