"""The figures of bench/survive: sessions that survive, beside direct ones and beside other programs, in one run."""

import argparse
import contextlib
import os
import pathlib
import random
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time

from world import HOST, MACHINE, Computer, Session, World, descendants, command_of, memory

RTT = 0.1
RATE = 100e6
OUTAGE = 35
LIMIT = 40
# The pause in which a session has nothing to say before it loses its connection.
QUIET = 6
PLAIN = "ServerAliveInterval=5 ServerAliveCountMax=2".split()


class Kind:
    """One kind of session: how it is opened, and on which computer."""

    def __init__(self, name, world, program):
        self.name, self.world = name, world
        held = {"held": "always", "direct": "never"}.get(name)
        self.computer = Computer(world, name, f"resume: {held}\n" if held else "")
        for kind in ("wifi", "mobile"):
            self.computer.line("set", kind, delay=RTT / 2, rate=RATE, queue=0.2)
        self.computer.prepare()
        if held == "always":
            self.computer.place()

    def words(self, *command, terminal=True):
        home, command = self.computer.home, " ".join(command)
        flag = "-t" if terminal else "-T"
        match self.name:
            case "direct" | "held":
                return ["ssh", flag, "-F", home / ".ssh/config", HOST, command]
            case "autossh":
                alive = [word for option in PLAIN for word in ("-o", option)]
                return ["autossh", "-M", "0", flag, *alive, "-F", home / "plain", f"root@{MACHINE}", command]
            case "mosh":
                return ["mosh", "--predict=never", f"--ssh=ssh -F {home}/plain", f"root@{MACHINE}", "--", *command.split()]
            case "tssh":
                return [shutil.which("tssh"), "--udp", flag, "--tsshd-path", shutil.which("tsshd"), "-F", home / "plain",
                        f"root@{MACHINE}", command]

    def session(self, *how):
        session = Session(self.computer, self.words("python3", "echo.py", *how), AUTOSSH_GATETIME="0").ready(30)
        if self.name == "held" and not any(one.get("held") for one in self.computer.live()):
            raise RuntimeError("the session is not held")
        return session

    def heal(self):
        """Brings the lines back to what they are without a fault."""
        world, computer = self.world, self.computer
        for kind in ("wifi", "mobile"):
            world.ip(computer.netns, "link", "set", kind, "up")
            computer.line("set", kind, dark="no", ports=[])
        computer.route("wifi")


# --- losses: each returns the seconds until a new connection was tried, and until bytes came again -------------------


def until_new_flow(computer, start):
    while time.monotonic() < start + LIMIT:
        if flows := computer.flows_since(start):
            return flows[0]
        time.sleep(0.05)
    return None


def silent_after_key(kind):
    session = kind.session()
    time.sleep(QUIET)
    kind.computer.line("forget", "wifi")
    start = time.monotonic()
    # tssh drops what is typed while it is cut off, so one key would be too few.
    while not session.echoes and not session.is_over() and time.monotonic() < start + LIMIT:
        session.type()
        session.until(lambda: session.echoes, 1)
    flows = kind.computer.flows_since(start)
    return session, flows[0] if flows else None, session.echoes[0][0] - start if session.echoes else None


def silent_while_idle(kind):
    session = kind.session()
    time.sleep(QUIET)
    kind.computer.line("forget", "wifi")
    start = time.monotonic()
    return session, until_new_flow(kind.computer, start), None


def sleep_and_wake(kind):
    session = kind.session("tick")
    time.sleep(QUIET)
    kind.computer.line("forget", "wifi")
    time.sleep(0.5)
    session.halt(signal.SIGSTOP)
    time.sleep(OUTAGE + random.random() * 3)
    start = time.monotonic()
    session.halt(signal.SIGCONT)
    back = session.tick_after(start, LIMIT)
    flows = kind.computer.flows_since(start)
    return session, flows[0] if flows else None, back


def interface_down(kind):
    session = kind.session("tick")
    time.sleep(QUIET)
    kind.world.ip(kind.computer.netns, "link", "set", "wifi", "down")
    time.sleep(OUTAGE + random.random() * 3)
    kind.world.ip(kind.computer.netns, "link", "set", "wifi", "up")
    kind.computer.route("wifi")
    start = time.monotonic()
    back = session.tick_after(start + 0.02, LIMIT)
    return session, None, back and back + 0.02


def line_dark(kind):
    session = kind.session("tick")
    time.sleep(QUIET)
    kind.computer.line("set", "wifi", dark="both")
    time.sleep(OUTAGE + random.random() * 3)
    kind.computer.line("set", "wifi", dark="no")
    start = time.monotonic()
    back = session.tick_after(start + 0.02, LIMIT)
    return session, None, back and back + 0.02


def other_address(kind):
    session = kind.session("tick")
    time.sleep(QUIET)
    kind.computer.line("set", "wifi", dark="both")
    kind.computer.route("mobile")
    start = time.monotonic()
    # What is on its way still arrives.
    back = session.tick_after(start + RTT, LIMIT)
    return session, None, back and back + RTT


LOSSES = [
    (silent_after_key, "silent loss, a key is typed: noticed / answered", "5 / -"),
    (silent_while_idle, "silent loss, idle: noticed", "10"),
    (other_address, "other address, the old path silent: bytes again", f"{1 + 4 * RTT:.1f}"),
    (sleep_and_wake, f"asleep for {OUTAGE} s, the path has forgotten: bytes again", "1"),
    (interface_down, f"interface down for {OUTAGE} s: bytes again", f"{0.5 + 4 * RTT:.1f}"),
    (line_dark, f"line dark for {OUTAGE} s, no event: bytes again", "5"),
]


class Figures:
    def __init__(self, options):
        self.options, self.text = options, []

    def say(self, line=""):
        print(line, flush=True)
        self.text.append(line)

    def wants(self, part):
        return not self.options.only or any(word in part for word in self.options.only.split(","))

    def world(self, **how):
        return World(self.options.program, shutil.which("wsmux"), str(pathlib.Path("target/peers-standin").resolve()), **how)

    def run(self):
        options = self.options
        load = os.getloadavg()[0]
        cpu = re.search(r"model name\s*: (.*)", pathlib.Path("/proc/cpuinfo").read_text())
        self.say("## Sessions that survive\n")
        command = "bench/survive" + (f" --rounds {options.rounds}" if options.rounds != 3 else "")
        self.say(f"`{command}`, {time.strftime('%Y-%m-%d', time.gmtime())}, {os.cpu_count()} cores of {cpu[1] if cpu else '?'}, "
                 f"Linux {os.uname().release}, load average {load:.2f} at the start.\n")
        if self.wants("losses"):
            self.losses()
        if self.wants("rates"):
            self.rates()
        if self.wants("near"):
            self.near()
        self.say(f"\nLoad average {os.getloadavg()[0]:.2f} at the end.")
        pathlib.Path("target/bench-survive.md").write_text("\n".join(self.text) + "\n")

    # --- losses ------------------------------------------------------------------------------------------------------

    def losses(self):
        found, versions = {}, []
        names = ["held", "direct"] + [name for name in ("tssh", "mosh", "autossh") if shutil.which(name)]
        with self.world() as world:
            time.sleep(1)
            kinds = [Kind(name, world, self.options.program) for name in names]
            for _ in range(self.options.rounds):
                for function, _, _ in LOSSES:
                    self.together(kinds, function, found)
                self.together(kinds, self.reset_of_all(world, len(kinds)), found, "reset")
        for name, words in (("tssh", ["tssh", "--version"]), ("mosh", ["mosh", "--version"]), ("autossh", ["autossh", "-V"])):
            if name in names:
                versions.append(subprocess.run(words, capture_output=True, text=True).stdout.splitlines()[0])
        self.say(f"Losses, in seconds, the median and the worst of {self.options.rounds}. Each program is on a computer of its own "
                 f"with a line of {RATE / 1e6:.0f} Mbit/s and {RTT * 1000:.0f} ms to the machine; all lose it at once.")
        self.say(f"`held` and `direct` are this program with `resume: always` and `never`, through wsmux behind TLS. The peers "
                 f"({', '.join(versions)}) reach the machine itself. \"none\": not within {LIMIT} s. \"noticed\": the "
                 "first packet of a new connection. autossh begins a new session.\n")
        self.say("| loss | " + " | ".join(names) + " | goal |")
        self.say("| --- |" + " --- |" * (len(names) + 1))
        rows = [(function.__name__, words, goal) for function, words, goal in LOSSES]
        rows.append(("reset", "connections reset: bytes again", f"{4 * RTT + 0.05:.2f}"))
        for row, words, goal in rows:
            cells = []
            for name in names:
                both = [[one[part] for one in found[row, name]] for part in (0, 1)]
                if "answered" in words:
                    cells.append(" / ".join(map(self.cell, both)))
                else:
                    cells.append(self.cell(both[0 if "noticed" in words else 1]))
            self.say(f"| {words} | " + " | ".join(cells) + f" | {goal} |")
        self.say()

    @staticmethod
    def cell(values):
        if all(value is None for value in values):
            return "none"
        if any(value is None for value in values):
            known = [value for value in values if value is not None]
            return f"{statistics.median(known):.2f}, none in {values.count(None)} of {len(values)}"
        return f"{statistics.median(values):.2f} ({max(values):.2f})"

    def together(self, kinds, function, found, row=None):
        """Has every kind of session meet the same loss at the same time."""
        def one(kind):
            session = None
            try:
                session, noticed, back = function(kind)
                gaps = session.gaps() if kind.name == "held" else []
                if gaps:
                    raise RuntimeError(f"ticks lost or doubled: {gaps[:5]}")
            except Exception as why:
                print(f"*** {kind.name}, {function.__name__}: {why}", file=sys.stderr, flush=True)
                noticed = back = None
            finally:
                if session:
                    session.close()
            found.setdefault((row or function.__name__, kind.name), []).append((noticed, back))
            print(f"... {row or function.__name__}, {kind.name}: {noticed} {back}", file=sys.stderr, flush=True)
            kind.heal()
        threads = [threading.Thread(target=one, args=(kind,)) for kind in kinds]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    @staticmethod
    def reset_of_all(world, count):
        gate, done = threading.Barrier(count), {}

        def reset(kind):
            session = None
            try:
                session = kind.session("tick")
                time.sleep(QUIET)
            finally:
                if gate.wait() == 0:
                    world.reset()
                    done["at"] = time.monotonic()
                gate.wait()
            # What was sent before the reset still arrives.
            back = session.tick_after(done["at"] + RTT / 2, LIMIT)
            return session, None, back and back + RTT / 2
        return reset

    # --- rates over the line -----------------------------------------------------------------------------------------

    def rates(self):
        mib = self.options.mib
        with self.world() as world:
            time.sleep(1)
            (world.home / "big").write_bytes(os.urandom(mib << 20))
            names = ["held", "direct"] + (["tssh"] if shutil.which("tssh") else [])
            kinds = {name: Kind(name, world, self.options.program) for name in names}
            taken = {}
            for _ in range(self.options.rounds):
                for name, kind in kinds.items():
                    for direction in ("down", "up"):
                        try:
                            taken.setdefault((name, direction), []).append(self.copy(kind, direction, world, mib))
                        except subprocess.SubprocessError as why:
                            if name != "tssh":
                                raise
                            print(f"*** {why}", file=sys.stderr)
            line = f"- {RATE / 1e6:.0f} Mbit/s and {RTT * 1000:.0f} ms, {mib} MiB by `ssh`, down / up, Mbit/s: "
            rate = {key: mib * 8.388608 / statistics.median(times) for key, times in taken.items() if times}
            shown = {key: f"{value:.1f}" for key, value in rate.items()}
            parts = [f"{name} {shown.get((name, 'down'), 'incomplete')} / {shown.get((name, 'up'), 'incomplete')}" for name in names]
            self.say(line + "; ".join(parts) + "; held : direct = "
                     + " / ".join(f"{rate['held', way] / rate['direct', way]:.3f}" for way in ("down", "up")) + " (goal 0.97)")
            self.first_bytes(kinds, world)

    def copy(self, kind, direction, world, mib):
        """The seconds that a file takes by `ssh cat`. The bytes are compared."""
        computer, copied = kind.computer, world.home / "copied"
        copied.unlink(missing_ok=True)
        words = kind.words("cat", "big", terminal=False) if direction == "down" else kind.words("cat", ">", "copied", terminal=False)
        source, target = ("/dev/null", copied) if direction == "down" else (world.home / "big", "/dev/null")
        with open(source, "rb") as given, open(target, "wb") as taken:
            start = time.monotonic()
            subprocess.run(computer.command(*words), env=computer.environment(), cwd=computer.home, check=True, timeout=120,
                           stdin=given, stdout=taken, stderr=subprocess.DEVNULL)
            seconds = time.monotonic() - start
        if copied.read_bytes() != (world.home / "big").read_bytes():
            raise subprocess.SubprocessError(f"{kind.name}: the bytes that arrived differ from those sent")
        return seconds

    def first_bytes(self, kinds, world):
        """The first byte of a warm connection, and of the first long session after the machine has been started."""
        warm = {"held": [], "direct": []}
        for _ in range(5 * self.options.rounds):
            for name in warm:
                warm[name].append(first_byte(kinds[name].computer, world))
        held, direct = (statistics.median(warm[name]) * 1000 for name in ("held", "direct"))
        self.say(f"- the first byte of a warm connection over that line: held {held:.0f} ms, direct {direct:.0f} ms: "
                 f"{(held - direct) / (RTT * 1000):+.2f} round trips (goal 0)")
        first, relayed = [], 0
        computer = kinds["direct"].computer
        for name, setting in (("direct", "never"), ("first", "auto"), ("next", "auto")) * self.options.rounds:
            (computer.home / ".config/labctl-ssh-proxy/settings.yaml").write_text(f"resume: {setting}\n")
            if name == "first":
                for pid in world.relays():
                    os.kill(pid, signal.SIGKILL)
                time.sleep(0.5)
                shutil.rmtree(computer.home / ".iximiuz/labctl-ssh-proxy/relays", ignore_errors=True)
            start = time.monotonic()
            session = Session(computer, ["ssh", "-F", computer.home / ".ssh/config", HOST]).ready(word=b"# ")
            first.append((name, time.monotonic() - start))
            held = any(one.get("held") for one in computer.live())
            assert name == "first" or held == (name == "next"), f"{name}: held is {held}"
            relayed += name == "first" and held
            session.close()
            # The first one may be direct, and the relay known a moment later.
            time.sleep(3)
        middle = {name: statistics.median(time for which, time in first if which == name) for name in ("direct", "first", "next")}
        self.say(f"- a shell's prompt over that line: direct {middle['direct']:.2f} s; the first long session, which starts the "
                 f"relay, {middle['first']:.2f} s: {middle['first'] - middle['direct']:+.2f} s (goal 1.5, once a boot), and is held in {relayed} of {self.options.rounds}; the next "
                 f"{middle['next']:.2f} s")

    # --- nothing between the two -------------------------------------------------------------------------------------

    def near(self):
        """Both ends on the machine's own loopback: what the frames, the relay and the replay cost."""
        rounds, mib = self.options.rounds, self.options.mib * 4
        with self.world(tls=False) as world:
            time.sleep(1)
            (world.home / "big").write_bytes(os.urandom(mib << 20))
            kinds = {name: Kind(name, world, self.options.program) for name in ("held", "direct")}
            for kind in kinds.values():
                kind.computer.netns = world.machine
            rate, cost, trips = {}, {}, {}
            for name, kind in kinds.items():
                self.copy(kind, "down", world, mib)
            for _ in range(rounds):
                for name, kind in kinds.items():
                    relays = world.relays()
                    for direction in ("down", "up"):
                        before = sum(map(cpu_of, relays))
                        rate.setdefault((name, direction), []).append(mib / self.copy(kind, direction, world, mib))
                        cost.setdefault((name, direction), []).append((sum(map(cpu_of, relays)) - before) * 1024 / mib)
            middle = {key: statistics.median(values) for key, values in rate.items()}
            self.say(f"- `ssh cat big` through wsmux without TLS, {mib} MiB, everything on this computer's cores, down / up, MiB/s: held "
                     f"{middle['held', 'down']:.0f} / {middle['held', 'up']:.0f}, direct {middle['direct', 'down']:.0f} / "
                     f"{middle['direct', 'up']:.0f}; held : direct = {middle['held', 'down'] / middle['direct', 'down']:.2f} / "
                     f"{middle['held', 'up'] / middle['direct', 'up']:.2f} (goal 0.90); the relay takes "
                     f"{statistics.median(cost['held', 'down']):.2f} / {statistics.median(cost['held', 'up']):.2f} s of CPU a GiB")
            for _ in range(rounds):
                for name, kind in kinds.items():
                    trips.setdefault(name, []).append(echoes(kind))
            trip = {name: [statistics.median(one[part] for one in all_of) for part in (0, 1)] for name, all_of in trips.items()}
            self.say(f"- 64 bytes to `cat` and back by ssh, the same way: held {trip['held'][0]:.0f} us p50, {trip['held'][1]:.0f} us p99; "
                     f"direct {trip['direct'][0]:.0f} us, {trip['direct'][1]:.0f} us; added {trip['held'][0] - trip['direct'][0]:.0f} us "
                     f"p50 (goal 100)")
            idle = {}
            sessions = {name: kind.session() for name, kind in kinds.items()}
            time.sleep(30)
            for name, session in sessions.items():
                proxy = next(pid for pid in descendants(session.pid) if " connect " in command_of(pid))
                idle[name] = memory(proxy)
            relay = max(map(memory, world.relays()))
            self.say(f"- memory of an idle connection: held {idle['held']:.1f} MiB, direct {idle['direct']:.1f} MiB: "
                     f"{idle['held'] - idle['direct']:+.2f} MiB (goal 0.2); the relay, after all that: {relay:.1f} MiB (goal 10)")


def first_byte(computer, world):
    """The time until a warm connection brings the server's first byte."""
    words = computer.command(world.program, "connect", "--user", "root", HOST)
    start = time.monotonic()
    process = subprocess.Popen(words, env=computer.environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    process.stdin.write(b"SSH-2.0-OpenSSH_9.2p1\r\n")
    process.stdin.flush()
    assert process.stdout.read(1) == b"S"
    taken = time.monotonic() - start
    process.kill()
    process.wait()
    return taken


def cpu_of(pid):
    """The CPU seconds of a process."""
    return sum(int(one.read_text().split()[0]) for one in pathlib.Path(f"/proc/{pid}/task").glob("*/schedstat")) / 1e9


def echoes(kind):
    """Round trips of 64 bytes in microseconds: the median, and the 99th of a hundred."""
    words = kind.computer.command(*kind.words("cat", terminal=False))
    near, far = socket.socketpair()
    process = subprocess.Popen(words, env=kind.computer.environment(), stdin=far, stdout=far, stderr=subprocess.DEVNULL)
    far.close()
    times = []
    for number in range(2200):
        start = time.perf_counter()
        near.sendall(b"%063d\n" % number)
        assert near.recv(64, socket.MSG_WAITALL) == b"%063d\n" % number
        if number >= 200:
            times.append((time.perf_counter() - start) * 1e6)
    near.close()
    process.wait()
    times.sort()
    return times[len(times) // 2], times[len(times) * 99 // 100]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--program", required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--mib", type=int, default=64)
    parser.add_argument("--only", help="losses, rates, near")
    options = parser.parse_args()
    options.program = str(pathlib.Path(options.program).resolve())
    Figures(options).run()


if __name__ == "__main__":
    main()
