#!/usr/bin/env python3
"""Runs the Windows program under wine, row by row: rows.py PROGRAM.EXE SSH.EXE LINUX-PROGRAM PREFIX [ROW...]

The platform is the embedded one of the Linux program, reached over a port with credentials, as the real one is. The SSH
is the host's OpenSSH: started with the Windows program as its ProxyCommand, or behind `ssh.c`, a stand-in for
Microsoft's ssh.exe. The user is `Ada Lövelace`, so every path has a space and a letter that is not ASCII.
"""

import contextlib
import hashlib
import json
import os
import pathlib
import pty
import re
import select
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time

USER = "Ada Lövelace"
HOME = f"C:\\users\\{USER}"
PLACE = f"{HOME}\\AppData\\Local\\Programs\\labctl-ssh-proxy"
ROOT = f"{HOME}\\.iximiuz\\labctl-ssh-proxy"
PATIENCE = 120
ROWS = []


def row(test):
    """Registers a row, whose name is that of its function."""
    ROWS.append(test)
    return test


class Said:
    """What a run of a program has said, and how it ended."""

    def __init__(self, command, done):
        self.command, self.code = command, done.returncode
        self.raw, self.raw_err = done.stdout, done.stderr
        self.out = done.stdout.decode("utf-8", "replace")
        self.err = done.stderr.decode("utf-8", "replace")

    def __repr__(self):
        return f"{self.command} ended with {self.code}\n--- stdout\n{self.out}\n--- stderr\n{self.err}"

    def ok(self):
        assert self.code == 0, self
        return self.out

    def failed(self, code):
        assert self.code == code, self
        return self.err


class World:
    """A wine prefix with the program in it, and a platform beside it."""

    def __init__(self, program, ssh, native, prefix):
        self.native, self.prefix = native, pathlib.Path(prefix)
        self.scratch = pathlib.Path(tempfile.mkdtemp(prefix="try-windows-"))
        self.wine = next(path for path in ("/usr/lib/wine/wine64", shutil.which("wine64"), shutil.which("wine")) if path and os.path.exists(path))
        self.env = {
            "PATH": os.environ["PATH"], "HOME": os.environ["HOME"], "LANG": "C.UTF-8", "USER": USER,
            "WINEPREFIX": str(self.prefix), "WINEDEBUG": "-all", "WINEPATH": "C:\\windows\\system32\\OpenSSH",
        }
        # One server for all rows. What it starts with the first program keeps that program's output open.
        self.server("-p")
        nothing = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        subprocess.run([self.wine, "wineboot"], env=self.env, check=True, **nothing)
        self.program = f"{PLACE}\\labctl-ssh-proxy.exe"
        for source, target in ((program, self.program), (ssh, "C:\\windows\\system32\\OpenSSH\\ssh.exe")):
            self.path(target).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, self.path(target))
        self.stand_in = StandIn(self)
        self.env["STAND_IN_PORT"] = str(self.stand_in.port)
        self.reset()
        self.platform = None

    def server(self, option):
        program = next(path for path in ("/usr/lib/wine/wineserver64", shutil.which("wineserver")) if path and os.path.exists(path))
        subprocess.run([program, option], env=self.env, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def reset(self):
        """Takes away what a run may have left in the user's folders."""
        for name in (".iximiuz", ".ssh"):
            shutil.rmtree(self.path(f"{HOME}\\{name}"), ignore_errors=True)
        shutil.rmtree(self.path(f"{HOME}\\AppData\\Roaming\\labctl-ssh-proxy"), ignore_errors=True)

    def path(self, windows):
        """The host's path of a Windows path on drive C."""
        assert windows[1:3] in (":\\", ":/"), windows
        return self.prefix / "drive_c" / windows[3:].replace("\\", "/")

    def write(self, windows, text):
        """Writes a file, byte for byte."""
        path = self.path(windows)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    def run(self, *arguments, program=None, env=None, data=b"", cwd=None, timeout=PATIENCE):
        """Runs a Windows program, by default ours."""
        command = [self.wine, program or self.program, *arguments]
        done = subprocess.run(command, env={**self.env, **(env or {})}, input=data, capture_output=True,
                              timeout=timeout, cwd=cwd or self.scratch)
        return Said(arguments, done)

    def json(self, *arguments):
        """The answer of a command to `--json`."""
        return json.loads(self.run(*arguments, "--json").ok())

    def serve(self, *options):
        """Starts the platform, and logs the Windows program in to it."""
        self.reset()
        folder = self.scratch / "platform"
        if self.platform:
            self.platform.terminate()
            self.platform.wait()
        env = {"PATH": os.environ["PATH"], "HOME": str(folder), "LANG": "C.UTF-8"}
        folder.mkdir(exist_ok=True)
        self.platform = subprocess.Popen([self.native, "--local", "local", "serve", "--listen", "127.0.0.1:0", "--json", *options],
                                         env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=folder)
        said = json.loads(self.platform.stdout.readline())
        credentials = json.loads(pathlib.Path(said["credentials"]).read_text())[0]
        self.api = f"http://{said['listen']}"
        text = f"base_url: {self.api}\r\napi_base_url: {self.api}/api\r\nsession_id: {credentials['id']}\r\naccess_token: {credentials['accessToken']}\r\n"
        self.write(f"{HOME}\\.iximiuz\\labctl\\config.yaml", text)

    def started(self):
        """The host name of a playground that runs, with the user's ssh configured for it."""
        if not self.platform:
            self.serve()
        play = next((play for play in self.json("list") if play["playground"]["name"] == "shell" and play["state"] == "RUNNING"), None)
        play = play or self.json("start", "shell")
        self.run("config-ssh", "--yes").ok()
        return f"playground-{play['id']}"

    def ssh(self, *arguments, data=b"", timeout=PATIENCE):
        """Runs the stand-in for ssh.exe, which reads the configuration of the Windows user."""
        return self.run(*arguments, program="C:\\windows\\system32\\OpenSSH\\ssh.exe", data=data, timeout=timeout)

    def options(self, host):
        """The options of the host's ssh for a ProxyCommand that is the Windows program itself."""
        known = self.path(f"{ROOT}\\known_hosts")
        identity = self.path(f"{HOME}\\.ssh\\iximiuz_labs_user")
        key = self.scratch / "key"
        shutil.copy(identity, key)
        key.chmod(0o600)
        command = f"'{self.wine}' '{self.program}' connect --user %r %n"
        options = {"ProxyCommand": command, "UserKnownHostsFile": f'"{known}"', "IdentityFile": key, "IdentitiesOnly": "yes",
                   "StrictHostKeyChecking": "yes", "User": "root", "BatchMode": "yes", "ConnectTimeout": 0}
        return ["-F", "none", *(f"-o{name}={value}" for name, value in options.items())]

    def client(self, program, *arguments, data=b"", timeout=PATIENCE):
        """Runs a client of the host's, whose ProxyCommand is the Windows program."""
        done = subprocess.run([program, *self.options("x"), *arguments], env=self.env, input=data, capture_output=True,
                              timeout=timeout, cwd=self.scratch)
        return Said([program, *arguments], done)

    def connections(self):
        """The connections that the Windows program reports."""
        return [connection for play in self.json("list") for connection in play.get("connections", [])]

    def close(self):
        if self.platform:
            self.platform.terminate()
            self.platform.wait()
        self.server("-k")
        shutil.rmtree(self.scratch, ignore_errors=True)


class StandIn:
    """The half of the stand-in for ssh.exe that runs on the host: SSH itself, and ssh's own reading of a configuration."""

    def __init__(self, world):
        self.world, self.listener = world, socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.calls, self.codes = [], []
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            stream, _ = self.listener.accept()
            threading.Thread(target=self.answer, args=(stream,), daemon=True).start()

    def answer(self, stream):
        lock = threading.Lock()
        def say(kind, data=b""):
            with lock, contextlib.suppress(OSError):
                stream.sendall(kind + struct.pack(">I", len(data)) + data)
        def hear():
            head = exactly(stream, 5)
            return (head[:1], exactly(stream, struct.unpack(">I", head[1:])[0])) if head else (b"", b"")
        arguments = []
        while (frame := hear())[0] not in (b"G", b""):
            if frame[0] == b"A":
                arguments.append(frame[1].decode())
        self.calls.append(arguments)
        with tempfile.TemporaryDirectory() as scratch:
            try:
                said = self.question(arguments, scratch) if {"-G", "-V"} & set(arguments) else None
                if said:
                    say(b"O", said.stdout)
                    say(b"E", said.stderr)
                    say(b"X", str(said.returncode).encode())
                else:
                    say(b"X", str(self.session(arguments, scratch, say, hear)).encode())
            except Exception as error:  # The row sees it as the words of ssh.
                say(b"E", f"stand-in: {error!r}\n".encode())
                say(b"X", b"249")

    def translated(self, arguments, scratch):
        """The arguments and the configuration as the host's ssh has to read them: with its own paths."""
        arguments, i, named = list(arguments), 0, None
        while i < len(arguments):
            if arguments[i] == "-F":
                named = arguments[i + 1]
                del arguments[i:i + 2]
                continue
            if arguments[i] == "-o":
                arguments[i + 1] = self.line(re.sub(r"^(\w+)=", r"\1 ", arguments[i + 1]), scratch).strip()
                i += 1
            i += 1
        if named == "none":
            return ["-F", "none", *arguments]
        file = self.world.path(named or f"{HOME}\\.ssh\\config")
        if named is None and not file.exists():
            return ["-F", "none", *arguments]
        return ["-F", self.file(file, scratch), *arguments]

    def file(self, path, scratch):
        # fopen for text in win32compat/misc.c skips a byte order mark.
        text = path.read_bytes().removeprefix(b"\xef\xbb\xbf").decode()
        copy = tempfile.NamedTemporaryFile("w", dir=scratch, delete=False, newline="")
        with copy:
            copy.write("".join(self.line(line, scratch) for line in text.splitlines(keepends=True)))
        return copy.name

    def line(self, line, scratch):
        words = re.match(r"(\s*)(\w+)(\s+|\s*=\s*)(.*?)(\s*)$", line, re.S)
        if not words or words[2].lower() == "proxycommand":
            return line
        value = words[4].replace("~/", HOME.replace("\\", "/") + "/") if words[4].startswith(("~/", '"~/')) else words[4]
        if not re.match(r'"?[A-Za-z]:[\\/]', value):
            return line
        path = self.world.path(value.strip('"'))
        if words[2].lower() == "include":
            path = self.file(path, scratch) if path.exists() else path
        elif words[2].lower() == "identityfile" and path.exists():
            copy = pathlib.Path(tempfile.mkdtemp(dir=scratch)) / path.name
            shutil.copy(path, copy)
            copy.chmod(0o600)
            path = copy
        return f'{words[1]}{words[2]} "{path}"{words[5]}'

    def question(self, arguments, scratch):
        command = ["ssh", *self.translated(arguments, scratch)]
        done = subprocess.run(command, capture_output=True, env=self.world.env, stdin=subprocess.DEVNULL)
        home = os.path.expanduser("~")
        def back(data):
            text = data.decode().replace(str(self.world.prefix / "drive_c"), "C:")
            return text.replace(f"controlpath {home}/", f"controlpath {HOME}/").encode()
        done.stdout, done.stderr = back(done.stdout), back(done.stderr)
        return done

    def session(self, arguments, scratch, say, hear):
        options = self.question(["-G", *arguments], scratch)
        if options.returncode:
            say(b"E", options.stderr)
            return options.returncode
        value = dict(line.split(" ", 1) for line in options.stdout.decode().splitlines() if " " in line)
        command = value["proxycommand"].replace("%h", value["hostname"]).replace("%r", value["user"])
        listener = socket.create_server(("127.0.0.1", 0))
        say(b"P", f"{listener.getsockname()[1]} {command}".encode())
        to_proxy, _ = listener.accept()
        relay = socket.create_server(("127.0.0.1", 0))
        relayed = f'ProxyCommand="{sys.executable}" "{__file__}" --relay {relay.getsockname()[1]}'
        ssh = subprocess.Popen(["ssh", "-o", relayed, *self.translated(arguments, scratch)], env=self.world.env,
                               stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        from_ssh, _ = relay.accept()
        threading.Thread(target=carry, args=(from_ssh, to_proxy), daemon=True).start()
        threading.Thread(target=carry, args=(to_proxy, from_ssh), daemon=True).start()

        def output(stream, kind):
            while data := os.read(stream.fileno(), 65536):
                say(kind, data)
        readers = [threading.Thread(target=output, args=pair, daemon=True) for pair in ((ssh.stdout, b"O"), (ssh.stderr, b"E"))]
        ended = threading.Event()

        def listen():
            while True:
                kind, data = hear()
                if kind == b"C":
                    self.codes.append(data.decode())
                    ended.set()
                elif kind == b"I" and data:
                    with contextlib.suppress(OSError):
                        ssh.stdin.write(data)
                        ssh.stdin.flush()
                elif kind == b"I":
                    with contextlib.suppress(OSError):
                        ssh.stdin.close()
                elif not kind:
                    # The stand-in was killed, and with it its end of the pipes.
                    ssh.kill()
                    return
        readers.append(threading.Thread(target=listen, daemon=True))
        for thread in readers:
            thread.start()
        code = ssh.wait()
        for thread in readers[:2]:
            thread.join()
        say(b"K")
        # ssh does not wait, but the stand-in reports the end before it ends itself.
        ended.wait(PATIENCE)
        return code if code >= 0 else 255


def exactly(stream, length):
    data = b""
    while len(data) < length:
        try:
            more = stream.recv(length - len(data))
        except OSError:
            return b""
        if not more:
            return b""
        data += more
    return data


def carry(source, target):
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)


def relay(port):
    """Carries standard input and output to a port, as the ProxyCommand of the host's ssh."""
    stream = socket.create_connection(("127.0.0.1", port))
    ears = [stream, 0]
    while ears:
        for ready in select.select(ears, [], [])[0]:
            data = stream.recv(65536) if ready is stream else os.read(0, 65536)
            if not data and ready is stream:
                return
            if not data:
                stream.shutdown(socket.SHUT_WR)
                ears.remove(0)
            elif ready is stream:
                while data:
                    data = data[os.write(1, data):]
            else:
                stream.sendall(data)


def eventually(what, test, patience=PATIENCE):
    end = time.monotonic() + patience
    while not test():
        assert time.monotonic() < end, f"not within {patience} s: {what}"
        time.sleep(0.1)


# ---- the program by itself


@row
def version_help_manual_and_completions(world):
    assert world.run("--version").ok().startswith("labctl-ssh-proxy "), "version"
    text = world.run("--help").ok()
    assert "config-ssh" in text and "\r" not in text, text
    for name in ("demo", "local"):
        assert not re.search(rf"^\s+{name}\b", text, re.M), f"the help names {name}, which is not there\n{text}"
    assert world.run("man").ok().startswith(".ie") or ".TH" in world.run("man").ok()
    script = world.run("completions", "powershell").ok()
    assert "Register-ArgumentCompleter" in script, script


@row
def exit_codes_are_those_of_the_table(world):
    world.reset()
    world.run("--no-such-option").failed(2)
    world.run("connect", "not a host").failed(2)
    world.run("list").failed(3)
    world.run("demo").failed(2)


@row
def the_embedded_platform_is_refused_in_words(world):
    err = world.run("--local", "list").failed(2)
    assert "only on Unix" in err and "--local" in err, err

# ---- its files, by Windows' rules


@row
def settings_are_read_from_appdata_with_crlf(world):
    world.reset()
    path = f"{HOME}\\AppData\\Roaming\\labctl-ssh-proxy\\settings.yaml"
    world.write(path, "\ufeffwake: never\r\nwake_limit: 60\r\n")
    world.run("list").failed(3)
    world.write(path, "wake: nonsense\r\n")
    err = world.run("list").failed(2)
    assert "settings.yaml" in err and "nonsense" in err, err
    world.run("list", env={"LABCTL_SSH_PROXY_SETTINGS": "C:\\no\\such\\file"}).failed(3)


@row
def folders_and_secrets_are_for_the_user_only(world):
    world.serve()
    world.run("list").ok()
    world.run("start", "shell", timeout=120).ok()
    # Wine shows access lists to the host as modes, and administrators as the group.
    for windows in (ROOT, f"{ROOT}\\known_hosts", f"{HOME}\\.ssh", f"{HOME}\\.ssh\\iximiuz_labs_user"):
        path = world.path(windows)
        assert path.exists(), path
        assert path.stat().st_mode & 0o007 == 0, f"{path}: {oct(path.stat().st_mode)}"


@row
def a_long_path_of_our_files(world):
    world.serve()
    moved = "C:\\" + "\\".join(f"a folder of a long name, number {n:02}" for n in range(9))
    assert len(moved) > 300
    play = json.loads(world.run("--home", moved, "start", "shell", "--json", timeout=120).ok())
    assert world.path(f"{moved}\\known_hosts").exists()
    world.run("destroy", play["id"], "--yes").ok()


# ---- the user's ssh configuration

THEIRS = "Host work\r\n  HostName work.example.org\r\n  User ada\r\n\r\nHost *\r\n  Compression yes\r\n"


@row
def config_ssh_keeps_crlf_and_goes_without_a_trace(world):
    world.started()
    for text in (THEIRS.encode(), b"\xef\xbb\xbf" + THEIRS.encode(), b""):
        world.run("config-ssh", "--remove", "--yes").ok()
        path = world.write(f"{HOME}\\.ssh\\config", text)
        world.run("config-ssh", "--yes").ok()
        edited = path.read_bytes()
        mark = b"\xef\xbb\xbf" if text.startswith(b"\xef\xbb\xbf") else b""
        assert edited.startswith(mark + b"# --- labctl-ssh-proxy") and edited.endswith(text[len(mark):]), edited
        if text:
            assert b"\n" not in edited.replace(b"\r\n", b""), edited
        include = next(line for line in edited.decode().splitlines() if line.startswith("Include"))
        assert include == 'Include ~/.iximiuz/labctl-ssh-proxy/ssh_config', include
        world.run("config-ssh", "--remove", "--yes").ok()
        assert path.read_bytes() == text, path.read_bytes()


@row
def the_proxy_command_is_written_for_create_process_and_sh(world):
    host = world.started()
    options = world.ssh("-G", host).ok()
    command = next(line for line in options.splitlines() if line.startswith("proxycommand"))
    expected = f'proxycommand "{world.program}" connect --user %r '.replace("\\", "/")
    assert command in (expected + host, expected + "%h"), command
    words = subprocess.run(["sh", "-c", f"printf '%s\\n' {command.split(' ', 1)[1]}"], capture_output=True, check=True)
    assert words.stdout.decode().splitlines()[0] == world.program.replace("\\", "/"), words


# ---- connections


@row
def commands_through_the_stand_in_for_ssh_exe(world):
    host = world.started()
    said = world.ssh(host, "echo out; echo err >&2; exit 7")
    assert (said.code, said.out, said.err) == (7, "out\n", "err\n"), said
    assert world.ssh(host, "cat", data=b"a\nb\r\nc\x1a\x00d\xff").raw == b"a\nb\r\nc\x1a\x00d\xff"


@row
def commands_through_the_hosts_ssh(world):
    host = world.started()
    said = world.client("ssh", host, "echo out; echo err >&2; exit 7")
    assert (said.code, said.out, said.err) == (7, "out\n", "err\n"), said


@row
def megabytes_both_ways_are_the_same(world):
    host = world.started()
    data = os.urandom(12 << 20) + b"\r\n\n\x1a" * 1000
    digest = hashlib.sha256(data).hexdigest()
    source = world.scratch / "data"
    source.write_bytes(data)
    for client in (world.ssh, lambda *arguments, **more: world.client("ssh", *arguments, **more)):
        assert client(host, "sha256sum", data=data, timeout=240).ok().split()[0] == digest
        assert client(host, f"cat {source}", timeout=240).raw == data
    for way in ([str(source), f"{host}:copy"], [f"{host}:copy", str(world.scratch / "back")]):
        world.client("scp", *way, timeout=240).ok()
    assert (world.scratch / "back").read_bytes() == data


@row
def standard_input_may_end_first(world):
    host = world.started()
    assert world.ssh(host, "cat; echo end").ok() == "end\n"
    assert world.client("ssh", "-n", host, "echo x").ok() == "x\n"


@row
def the_streams_of_connect_are_the_wire(world):
    host = world.started()
    command = [world.wine, world.program, "connect", "--user", "root", host]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=world.env) as connect:
        connect.stdin.write(b"SSH-2.0-Test\r\n")
        connect.stdin.flush()
        line = connect.stdout.readline()
        # The server's key exchange follows: its length, which no line end precedes. Then the client leaves.
        rest = connect.stdout.read(4)
        connect.stdin.close()
        rest += connect.stdout.read()
        assert line.startswith(b"SSH-2.0-") and line.endswith(b"\r\n") and rest[:1] == b"\0", (line, rest[:80])
        assert connect.wait(PATIENCE) == 0, connect.stderr.read()
    with open(world.scratch / "in", "wb") as file:
        file.write(b"SSH-2.0-Test\r\n")
    # A file, and the null device.
    for name in (world.scratch / "in", "/dev/null"):
        with open(name, "rb") as data:
            done = subprocess.run(command, stdin=data, env=world.env, capture_output=True, timeout=PATIENCE)
        assert done.returncode == 0 and done.stdout[:8] in (b"", b"SSH-2.0-"), done


@row
def a_refusal_reaches_ssh_inside_the_protocol(world):
    world.started()
    for said in (world.ssh("playground-no-such"), world.client("ssh", "playground-no-such", "true")):
        assert said.code == 255 and "no-such" in said.err, said


@row
def a_stopped_playground_is_woken_unless_it_was_meant(world):
    host = world.started()
    world.run("stop", host.removeprefix("playground-")).ok()
    said = world.ssh(host, "true")
    assert said.code == 255 and "stopped on purpose" in said.err and "start" in said.err, said
    # A stop that is not this program's: its record goes.
    shutil.rmtree(world.path(f"{ROOT}\\memory"), ignore_errors=True)
    assert world.ssh(host, "echo awake", timeout=120).ok() == "awake\n"


@row
def a_changed_host_key_is_refused(world):
    host = world.started()
    known = world.path(f"{ROOT}\\known_hosts")
    before = known.read_bytes()
    key = subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(world.scratch / "other")], check=True)
    other = (world.scratch / "other.pub").read_text().split()[1]
    known.write_bytes(re.sub(rb"AAAA\S+", other.encode(), before))
    try:
        said = world.ssh(host, "true")
        assert said.code == 255 and "host key" in said.err.lower(), said
    finally:
        known.write_bytes(before)


@row
def many_connections_at_once(world):
    host = world.started()
    results = []
    threads = [threading.Thread(target=lambda n=n: results.append(world.ssh(host, f"echo {n}", timeout=120))) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(said.ok() for said in results) == [f"{n}\n" for n in range(8)], results


@row
def a_connection_is_listed_and_ends_with_its_ssh(world):
    host = world.started()
    command = [world.wine, "C:\\windows\\system32\\OpenSSH\\ssh.exe", host, "sleep 300"]
    ssh = subprocess.Popen(command, env=world.env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        eventually("the connection is listed", lambda: world.connections())
        assert world.connections()[0]["phase"] == "connected", world.connections()
    finally:
        # As a crash would: nothing ends the ProxyCommand by a call.
        ssh.kill()
    eventually("the ProxyCommand has ended", lambda: not world.connections())
    assert not list(world.path(f"{ROOT}\\live").iterdir())


@row
def a_proxy_that_is_terminated_leaves_nothing_in_the_way(world):
    host = world.started()
    before = len(world.stand_in.codes)
    world.ssh(host, "true").ok()
    eventually("ssh has ended its ProxyCommand", lambda: len(world.stand_in.codes) > before)
    assert world.connections() == []
    world.ssh(host, "true").ok()


# ---- commands for people


@row
def ssh_of_ours_runs_ssh_exe(world):
    host = world.started()
    said = world.run("ssh", host, "echo hello; exit 3")
    assert (said.code, said.out) == (3, "hello\n"), said


@row
def start_list_stop_destroy(world):
    world.started()
    text = world.run("list").ok()
    assert "shell" in text and "RUNNING" in text.upper() and "\r" not in text, text
    play = world.json("start", "duo")
    world.run("rename", play["id"], "Füße").ok()
    assert any(each["title"] == "Füße" for each in world.json("list"))
    world.run("stop", play["id"]).ok()
    world.run("destroy", play["id"], "--yes").ok()
    assert not any(each["id"] == play["id"] for each in world.json("list"))


@row
def doctor_names_what_windows_has(world):
    world.started()
    said = world.run("doctor", timeout=120)
    text = said.out + said.err
    for word in ("chmod", "sudo", "--local", "apt", "Unix"):
        assert word not in text, (word, said)
    assert said.code == 0, said
    report = world.scratch / "report"
    world.run("doctor", "--report", f"{HOME}\\report.txt", timeout=120)
    assert world.path(f"{HOME}\\report.txt").exists()


@row
def uninstall_leaves_nothing(world):
    host = world.started()
    world.ssh(host, "true").ok()
    # Other rows have written over an edited file, whose backup stays because it is the only copy.
    world.run("config-ssh", "--remove", "--yes").ok()
    shutil.rmtree(world.path(f"{ROOT}\\backups"), ignore_errors=True)
    path = world.write(f"{HOME}\\.ssh\\config", THEIRS)
    world.run("config-ssh", "--yes").ok()
    world.run("uninstall", "--yes").ok()
    assert path.read_bytes() == THEIRS.encode()
    assert not world.path(ROOT).exists(), list(world.path(ROOT).rglob("*"))


@row
def ctrl_c_in_a_console(world):
    world.started()
    host, terminal = pty.openpty()
    list_ = subprocess.Popen([world.wine, world.program, "list", "--watch"], env={**world.env, "TERM": "xterm"}, stdin=terminal,
                             stdout=terminal, stderr=terminal, start_new_session=True,
                             preexec_fn=lambda: __import__("fcntl").ioctl(0, __import__("termios").TIOCSCTTY, 0))
    os.close(terminal)
    seen = b""
    end = time.monotonic() + PATIENCE
    while b"shell" not in seen and time.monotonic() < end:
        if select.select([host], [], [], 0.2)[0]:
            seen += os.read(host, 65536)
    assert b"shell" in seen, seen
    os.write(host, b"\x03")
    def drain():
        with contextlib.suppress(OSError):
            while os.read(host, 65536):
                pass
    threading.Thread(target=drain, daemon=True).start()
    assert list_.wait(timeout=PATIENCE) == 130, list_.returncode


def main():
    if sys.argv[1:2] == ["--relay"]:
        return relay(int(sys.argv[2]))
    world = World(*sys.argv[1:5])
    chosen, failed = [test for test in ROWS if not sys.argv[5:] or test.__name__ in sys.argv[5:]], 0
    for test in chosen:
        began = time.monotonic()
        try:
            test(world)
            print(f"ok      {test.__name__} ({time.monotonic() - began:.1f} s)", flush=True)
        except Exception as error:
            failed += 1
            print(f"FAILED  {test.__name__} (line {error.__traceback__.tb_next.tb_lineno})\n  {str(error).replace(chr(10), chr(10) + '  ')}", flush=True)
    world.close()
    print(f"{len(chosen) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
