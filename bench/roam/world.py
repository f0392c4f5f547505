"""A machine, and computers that reach it over lines that can be slow, dark or changed: network namespaces of this computer.

    computer 1 --wifi, mobile-- +------------------------------------------------------+
    computer 2 --wifi, mobile-- | machine 10.9.0.1: sshd, wsmux behind TLS, the API,   |
    ...                         | names (DNS); its own /root, its own processes        |
                                +------------------------------------------------------+

wsmux and sshd are the real ones. The API is `bench/peers/standin`. The TLS front is socat. Needs root, /dev/net/tun.
"""

import contextlib
import fcntl
import json
import os
import pathlib
import pty
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import termios
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
ID = "0123456789abcdef01234567"
HOST = f"playground-{ID}"
MACHINE = "10.9.0.1"
# The machine's programs see only the system's own.
SYSTEM = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

BOOT = """
mount --bind "$HOME_OF_MACHINE" /root && mkdir -p /run/sshd && cd /root || exit 1
$(command -v sshd) -D -e -f sshd_config 2>sshd.log &
"$WSMUX" serve -addr 127.0.0.1:8080 >wsmux.log 2>&1 &
socat -b65536 TCP-LISTEN:80,bind=10.9.0.1,reuseaddr,fork,nodelay,backlog=300 TCP:127.0.0.1:8080,nodelay 2>front.log &
socat -b65536 OPENSSL-LISTEN:443,bind=10.9.0.1,reuseaddr,fork,nodelay,backlog=300,cert=cert.pem,key=key.pem,verify=0 \\
    TCP:127.0.0.1:8080,nodelay 2>front.log &
"$STANDIN" server --listen 10.9.0.1:8443 --cert cert.pem --key key.pem --user root --tunnels "$TUNNELS" >api.log 2>&1 &
python3 -c "$NAMES" &
wait
"""

# A name server that answers every question of an IPv4 address with the machine's.
NAMES = """
import socket
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind(("10.9.0.1", 53))
while True:
    asked, peer = server.recvfrom(512)
    end = asked.index(0, 12) + 5
    found = asked[end - 4:end - 2] == b"\\0\\1"
    record = b"\\xc0\\x0c\\0\\1\\0\\1\\0\\0\\0\\0\\0\\4\\x0a\\x09\\0\\1" if found else b""
    server.sendto(asked[:2] + b"\\x85\\x80\\0\\1" + (b"\\0\\1" if found else b"\\0\\0") + bytes(4) + asked[12:end] + record, peer)
"""


def run(*words, **how):
    return subprocess.run([str(word) for word in words], check=True, text=True, stdout=subprocess.PIPE, **how).stdout


def descendants(pid):
    """A process and all below it."""
    found = [pid]
    for one in found:
        for task in pathlib.Path(f"/proc/{one}/task").glob("*/children"):
            with contextlib.suppress(OSError):
                found += map(int, task.read_text().split())
    return found


def command_of(pid):
    with contextlib.suppress(OSError):
        return pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    return ""


def memory(pid):
    """The resident memory of a process in MiB."""
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"VmRSS:\s*(\d+)", status)[1]) / 1024


class World:
    def __init__(self, program, wsmux, standin, tls=True):
        self.program, self.tls = program, tls
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="lspr."))
        self.name = f"lsp{os.getpid()}"
        self.computers, self.namespaces, self.sessions = [], [], []
        self.home = self.folder / "machine"
        (self.home / ".ssh").mkdir(parents=True)
        self.keys = self.home / ".ssh/authorized_keys"
        self.keys.touch()
        shutil.copy(HERE / "echo.py", self.home)
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self.home / "host_key")
        (self.home / "sshd_config").write_text(
            "Port 22\nHostKey /root/host_key\nPermitRootLogin prohibit-password\nUsePAM no\nPrintMotd no\n"
            "LogLevel VERBOSE\nPidFile none\nMaxStartups 100\nSubsystem sftp internal-sftp\nAcceptEnv LANG LC_*\n"
        )
        # Both are one, since the file is its own authority.
        self.certificate = self.home / "cert.pem"
        run("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
            "-subj", "/CN=labs.example.org", "-addext", "subjectAltName=DNS:labs.example.org,DNS:tunnel.example.org",
            "-keyout", self.home / "key.pem", "-out", self.certificate, stderr=subprocess.DEVNULL)
        self.machine = self.namespace("m")
        self.ip(self.machine, "addr", "add", f"{MACHINE}/32", "dev", "lo")
        self.lines = subprocess.Popen(["python3", HERE / "line.py"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.speaking = threading.Lock()
        environment = {
            "PATH": SYSTEM, "HOME": "/root", "HOME_OF_MACHINE": str(self.home), "WSMUX": wsmux, "STANDIN": standin, "NAMES": NAMES,
            "TUNNELS": "https://tunnel.example.org:443" if tls else "http://tunnel.example.org:80",
        }
        self.boot = subprocess.Popen(
            ["nsenter", f"--net=/run/netns/{self.machine}", "unshare", "--mount", "--propagation", "private", "--pid",
             "--fork", "--kill-child", "--mount-proc", "sh", "-c", BOOT], env=environment)

    def ip(self, namespace, *words):
        return run("ip", "-n", namespace, *words)

    def namespace(self, short):
        name = f"{self.name}{short}"
        run("ip", "netns", "add", name)
        self.namespaces.append(name)
        self.ip(name, "link", "set", "lo", "up")
        return name

    def line(self, do, **how):
        """Has the lines do something, and returns the answer."""
        with self.speaking:
            self.lines.stdin.write(json.dumps({"do": do, **how}) + "\n")
            self.lines.stdin.flush()
            return json.loads(self.lines.stdout.readline())

    def processes(self):
        """The machine's processes: process id and command line."""
        return [(pid, command_of(pid)) for pid in descendants(self.boot.pid)]

    def relays(self):
        """The process ids of the relays on the machine. They are no children of ours, but share the name space."""
        inside = None
        for pid in descendants(self.boot.pid)[1:]:
            with contextlib.suppress(OSError):
                inside = os.readlink(f"/proc/{pid}/ns/pid")
                break
        found = []
        for one in pathlib.Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if os.readlink(one / "ns/pid") == inside and "labctl-ssh-proxy relay" in command_of(one.name):
                    found.append(int(one.name))
        return found

    def reset(self):
        """Resets every TCP connection of the machine's address, as a front does that is restarted."""
        for port in (22, 80, 443):
            run("nsenter", f"--net=/run/netns/{self.machine}", "ss", "-K", "-t", "state", "established",
                f"( sport = :{port} )", "src", MACHINE)

    def close(self):
        for session in self.sessions:
            session.close()
        for process in (self.boot, self.lines):
            process.kill()
            process.wait()
        for name in self.namespaces:
            subprocess.run(["ip", "netns", "del", name])
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self):
        # `timeout` and a runner end a script so; nothing may be left of the world then, either.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        return self

    def __exit__(self, *_):
        self.close()


class Computer:
    """A computer with two lines to the machine."""

    def __init__(self, world, name, settings=""):
        world.computers.append(self)
        self.world, self.name, self.number = world, name, len(world.computers)
        self.netns = world.namespace(f"c{self.number}")
        self.home = world.folder / name
        (self.home / ".iximiuz/labctl").mkdir(parents=True)
        (self.home / ".ssh").mkdir(mode=0o700)
        self.resolver = world.folder / f"{name}.resolv"
        self.resolver.write_text(f"nameserver {MACHINE}\noptions timeout:5 attempts:2\n")
        self.addresses = {}
        for kind, net in (("wifi", 1), ("mobile", 2)):
            near, far = kind, f"{kind}{self.number}"
            address = self.addresses[kind] = f"10.{net}.{self.number}.2"
            world.line("make", name=self.line_name(kind), near=[self.netns, near], far=[world.machine, far])
            for where, device in ((self.netns, near), (world.machine, far)):
                world.ip(where, "link", "set", device, "up", "txqueuelen", "5000")
            world.ip(self.netns, "addr", "add", f"{address}/32", "dev", near)
            world.ip(world.machine, "route", "add", f"{address}/32", "dev", far)
        self.route("wifi")
        (self.home / ".iximiuz/labctl/config.yaml").write_text(
            "base_url: https://labs.example.org:8443\nsession_id: bench\naccess_token: bench\n")
        if settings:
            (self.home / ".config/labctl-ssh-proxy").mkdir(parents=True)
            (self.home / ".config/labctl-ssh-proxy/settings.yaml").write_text(settings)
        (self.home / "plain").write_text(
            f"Host *\n  User root\n  IdentityFile {self.home}/.ssh/iximiuz_labs_user\n  IdentitiesOnly yes\n  LogLevel ERROR\n"
            f"  StrictHostKeyChecking no\n  UserKnownHostsFile /dev/null\n")

    def line_name(self, kind):
        return f"{kind}{self.number}"

    def line(self, do, kind, **how):
        return self.world.line(do, name=self.line_name(kind), **how)

    def route(self, kind):
        self.world.ip(self.netns, "route", "replace", "default", "dev", kind, "src", self.addresses[kind])

    def command(self, *words):
        """The words that run a command on this computer."""
        inner = f'mount --bind "{self.resolver}" /etc/resolv.conf && exec "$@"'
        return ["nsenter", f"--net=/run/netns/{self.netns}", "unshare", "--mount", "--propagation", "private", "sh", "-c", inner, "sh",
                *map(str, words)]

    def environment(self, **more):
        return {"PATH": SYSTEM, "HOME": str(self.home), "SSL_CERT_FILE": str(self.world.certificate), "TERM": "xterm",
                "LC_ALL": "C.UTF-8", "SHELL": "/bin/sh", **more}

    def run(self, *words, **how):
        return run(*self.command(*words), env=self.environment(), **how)

    def prepare(self):
        """Writes the ssh configuration, and has the machine accept this computer's key, as a tunnel's request would."""
        self.run(self.world.program, "config-ssh", "--yes", stderr=subprocess.DEVNULL)
        with self.world.keys.open("a") as keys:
            keys.write((self.home / ".ssh/iximiuz_labs_user.pub").read_text())

    def place(self, timeout=30):
        """Has a session place the relay, and waits until it is known here. The session that places it may be direct."""
        known = self.home / ".iximiuz/labctl-ssh-proxy/relays"
        first = Session(self, ["ssh", "-F", self.home / ".ssh/config", HOST]).ready(word=b"# ")
        end = time.monotonic() + timeout
        while not list(known.glob("*.json")):
            if time.monotonic() > end:
                raise RuntimeError(f"no relay is known after {timeout} s")
            time.sleep(0.1)
        first.close()

    def flows_since(self, moment, kinds=("wifi", "mobile")):
        """The first packet of each new flow since a moment, in seconds after it. A question of a name is no flow."""
        all_flows = [flow for kind in kinds for flow in self.line("flows", kind)]
        return sorted(flow[0] - moment for flow in all_flows if flow[0] >= moment and flow[4] != 53)

    def live(self):
        """The status files of this computer's connections."""
        found = []
        for path in (self.home / ".iximiuz/labctl-ssh-proxy/live").glob("*.json"):
            with contextlib.suppress(OSError, ValueError):
                found.append(json.loads(path.read_text()))
        return found


class Session:
    """A program on a terminal of 80 columns, in which `echo.py` runs on the machine."""

    def __init__(self, computer, words, **environment):
        self.computer, self.words = computer, words
        # Of the ticks, those that are later than all before, and all numbers: mosh paints its screen again after a sleep.
        self.output, self.ticks, self.numbers, self.echoes = b"", [], [], []
        self.heard = threading.Condition()
        self.pid, self.terminal = pty.fork()
        if self.pid == 0:
            words = computer.command(*words)
            os.chdir(computer.home)
            os.execvpe(words[0], words, computer.environment(**environment))
        fcntl.ioctl(self.terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        computer.world.sessions.append(self)
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()

    def read(self):
        # mosh paints differences, and everything again after a sleep: there a tick is new that is as late as it should be.
        paints, rest, latest, latest_at = self.words[0] == "mosh", b"", 0, time.monotonic()
        while True:
            try:
                data = os.read(self.terminal, 65536)
            except OSError:
                data = b""
            now = time.monotonic()
            with self.heard:
                if not data:
                    self.output += b"<end>"
                    self.heard.notify_all()
                    return
                self.output += data
                rest += data
                while found := re.search(rb"<(\d+)>|\[(\d+)\](?![A-Za-z])|(ready)", rest):
                    rest = rest[found.end():]
                    if found[1]:
                        self.numbers.append(int(found[1]))
                        if int(found[1]) > latest + paints * (now - latest_at) * 10:
                            latest, latest_at = int(found[1]), now
                            self.ticks.append((now, latest))
                    elif found[2]:
                        self.echoes.append((now, int(found[2])))
                    else:
                        # autossh begins a session anew.
                        latest = 0
                rest = rest[-40:]
                self.heard.notify_all()

    def until(self, what, timeout):
        """Waits until `what` is true. Returns its value, or None after the time."""
        end = time.monotonic() + timeout
        with self.heard:
            while not (value := what()):
                if not self.heard.wait(end - time.monotonic()) and time.monotonic() >= end:
                    return what() or None
            return value

    def ready(self, timeout=20, word=b"ready"):
        if not self.until(lambda: word in self.output, timeout):
            raise RuntimeError(f"{self.words}: {self.output.decode(errors='replace')}")
        return self

    def type(self):
        os.write(self.terminal, b"x")

    def tick_after(self, moment, timeout):
        """The time from a moment to the first tick after it, or None."""
        self.until(lambda: self.is_over() or self.ticks and self.ticks[-1][0] > moment, timeout)
        with self.heard:
            return next((at - moment for at, _ in self.ticks if at > moment), None)

    def gaps(self):
        """The ticks that are missing or doubled in a stream of bytes."""
        return [number for number, expected in zip(self.numbers, range(1, len(self.numbers) + 1)) if number != expected]

    def is_over(self):
        return self.output.endswith(b"<end>")

    def halt(self, signal_number):
        for pid in descendants(self.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal_number)

    def close(self):
        self.halt(signal.SIGCONT)
        self.halt(signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, 0)
        with contextlib.suppress(OSError):
            os.close(self.terminal)
        if self in self.computer.world.sessions:
            self.computer.world.sessions.remove(self)
