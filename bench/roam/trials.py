"""The trials of scripts/try-roaming. Each is a function here; its first line says what it does and what it must show."""

import argparse
import contextlib
import hashlib
import pathlib
import shutil
import signal
import subprocess
import sys
import time

from world import HOST, Computer, Session, World, descendants, command_of

RTT = 0.1
TRIALS = {}
FAILED = []


def trial(function):
    TRIALS[function.__name__] = function
    return function


def check(what, value, limit=None, good=None):
    """Prints a figure, and notes one that misses its limit."""
    good = value is not None and (limit is None or value <= limit) if good is None else good
    figure = "none" if value is None else f"{value:.2f} s" if isinstance(value, float) else str(value)
    print(f"  {'ok  ' if good else 'MISS'} {what}: {figure}" + (f" (at most {limit:g})" if limit is not None else ""), flush=True)
    if not good:
        FAILED.append(what)


class Trial:
    """A computer whose sessions are always held, and one whose sessions never are."""

    def __init__(self, world, program):
        self.world, self.program = world, program
        self.computers = {}

    def computer(self, resume):
        if resume not in self.computers:
            computer = self.computers[resume] = Computer(self.world, resume, f"resume: {resume}\n")
            for kind in ("wifi", "mobile"):
                computer.line("set", kind, delay=RTT / 2, rate=100e6, queue=0.2)
            computer.prepare()
            if resume == "always":
                computer.place()
        return self.computers[resume]

    def session(self, *how, resume="always", wrap=(), **environment):
        computer = self.computer(resume)
        words = [*wrap, "ssh", "-tt", "-F", computer.home / ".ssh/config", HOST, "python3 echo.py", *how]
        session = Session(computer, words, **environment).ready()
        if resume == "always":
            live = [one for one in computer.live() if one["pid"] in descendants(session.pid)]
            if not live or not live[0].get("held"):
                raise RuntimeError("the session is not held")
        return session

    def resumed(self, session):
        """How often the session has been resumed."""
        return sum(one.get("resumed", 0) for one in session.computer.live() if one["pid"] in descendants(session.pid))


def settled(session, seconds=6.0):
    time.sleep(seconds)
    return session


def whole(session):
    """Types a key and compares the numbers of all ticks."""
    before = len(session.echoes)
    session.type()
    check("a key is answered afterwards", session.until(lambda: len(session.echoes) > before, 15), good=len(session.echoes) > before)
    check("ticks lost or doubled", len(session.gaps()), 0)
    check("no word of a corrupted stream", "none", good=b"Corrupted" not in session.output and not session.is_over())
    session.close()


@trial
def key(trial):
    """The path forgets the connection while a key is typed: noticed within 5 s, answered by a new connection."""
    session = settled(trial.session())
    session.computer.line("forget", "wifi")
    start = time.monotonic()
    session.type()
    session.until(lambda: session.echoes, 30)
    flows = session.computer.flows_since(start)
    check("a new connection is dialled", flows[0] if flows else None, 5.0)
    check("the key is answered", session.echoes[0][0] - start if session.echoes else None, 5.0 + 4 * RTT + 0.5)
    whole(session)


@trial
def idle(trial):
    """The path forgets an idle connection: noticed within 10 s."""
    session = settled(trial.session())
    session.computer.line("forget", "wifi")
    start = time.monotonic()
    while not session.computer.flows_since(start) and time.monotonic() < start + 40:
        time.sleep(0.1)
    flows = session.computer.flows_since(start)
    check("a new connection is dialled", flows[0] if flows else None, 10.0)
    while not trial.resumed(session) and time.monotonic() < start + 40:
        time.sleep(0.1)
    check("it is resumed", time.monotonic() - start, 13.0)
    whole(session)


@trial
def reset(trial):
    """The front is restarted: bytes again within 4 round trips and 50 ms, three times."""
    session = settled(trial.session("tick"))
    for _ in range(3):
        start = time.monotonic()
        trial.world.reset()
        done = time.monotonic()
        check("bytes again", session.tick_after(done + RTT / 2, 30), 4 * RTT + 0.05)
        print(f"       (the resets took {done - start:.2f} s)")
        time.sleep(6)
    whole(session)


def change(trial, dns):
    session = settled(trial.session("tick"))
    computer = session.computer
    if dns:
        for kind in ("wifi", "mobile"):
            computer.line("set", kind, ports=[53])
    computer.line("set", "wifi", dark="both")
    computer.route("mobile")
    start = time.monotonic()
    check("bytes again over the other address", session.tick_after(start + 0.05, 60), 1 + 4 * RTT)
    time.sleep(20 if dns else 1)
    for kind in ("wifi", "mobile"):
        computer.line("set", kind, dark="no", ports=[])
    computer.route("wifi")
    time.sleep(3)
    whole(session)


@trial
def roam(trial):
    """The route changes to another address, and the old path is silent: bytes again within 1 s and 4 round trips."""
    change(trial, dns=False)


@trial
def roam_without_names(trial):
    """The same, and no name is found for 20 s."""
    change(trial, dns=True)


@trial
def route_gone(trial):
    """The interface is down for 30 s: bytes again within 0.5 s of the route, and 4 round trips."""
    session = settled(trial.session("tick"))
    computer = session.computer
    trial.world.ip(computer.netns, "link", "set", "wifi", "down")
    time.sleep(30)
    phases = [one["phase"] for one in computer.live()]
    check("the phase meanwhile", phases, good="away" in phases)
    trial.world.ip(computer.netns, "link", "set", "wifi", "up")
    computer.route("wifi")
    check("bytes again", session.tick_after(time.monotonic() + 0.02, 60), 0.5 + 4 * RTT)
    whole(session)


@trial
def dark(trial):
    """Nothing passes for 60 s, and no event tells: bytes again within 5 s."""
    session = settled(trial.session("tick"))
    session.computer.line("set", "wifi", dark="both")
    time.sleep(60)
    session.computer.line("set", "wifi", dark="no")
    check("bytes again", session.tick_after(time.monotonic() + 0.02, 60), 5.0 + 4 * RTT)
    whole(session)


@trial
def one_way(trial):
    """Only one direction is dark for 20 s, up and then down: bytes again within 5 s once it is not."""
    for direction in ("up", "down"):
        session = settled(trial.session("tick"))
        session.computer.line("set", "wifi", dark=direction)
        time.sleep(20)
        session.computer.line("set", "wifi", dark="no")
        check(f"bytes again after {direction}", session.tick_after(time.monotonic() + 0.02, 60), 5.0 + 4 * RTT)
        whole(session)


def sleeping(trial, seconds):
    session = settled(trial.session("tick"))
    # What the computer has received before it sleeps would count as answered when it wakes.
    session.computer.line("forget", "wifi")
    time.sleep(0.5)
    session.halt(signal.SIGSTOP)
    time.sleep(seconds)
    start = time.monotonic()
    session.halt(signal.SIGCONT)
    check(f"bytes again after {seconds} s of sleep", session.tick_after(start, 60), 1.0)
    whole(session)


@trial
def sleep(trial):
    """ssh and proxy are halted for 60 s, and the path forgets them: bytes again within 1 s of waking."""
    sleeping(trial, 60)


@trial
def night(trial):
    """The same for 10 min."""
    sleeping(trial, 600)


@trial
def clock(trial):
    """The wall clock jumps 8 h ahead, as in a night's sleep, and the path has forgotten the connection: within 1 s."""
    if not shutil.which("faketime"):
        raise RuntimeError("faketime is missing: apt-get install faketime")
    library = next(pathlib.Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))
    offset = trial.world.folder / "offset"
    offset.write_text("+0")
    session = settled(trial.session(
        "tick", LD_PRELOAD=str(library), FAKETIME_TIMESTAMP_FILE=str(offset), FAKETIME_NO_CACHE="1", FAKETIME_DONT_FAKE_MONOTONIC="1"))
    session.computer.line("forget", "wifi")
    time.sleep(0.5)
    session.halt(signal.SIGSTOP)
    time.sleep(8)
    offset.write_text("+8h")
    start = time.monotonic()
    session.halt(signal.SIGCONT)
    check("bytes again", session.tick_after(start, 60), 1.0)
    check("the session goes on", "yes", good=not session.is_over())
    whole(session)


@trial
def slow(trial):
    """A healthy slow line, 256 kbit/s, 1 s, 1 % lost, for 10 min, half of it full: no switch."""
    session = trial.session()
    computer = session.computer
    computer.line("set", "wifi", delay=0.5, rate=256e3, loss=0.01, queue=1.0)
    time.sleep(5)
    start, before = time.monotonic(), trial.resumed(session)
    keys, waits = 0, []
    load = None
    while time.monotonic() < start + 600:
        if not load and time.monotonic() > start + 300:
            words = ["ssh", "-F", computer.home / ".ssh/config", HOST, "cat /dev/zero"]
            load = Session(computer, words)
        typed, count = time.monotonic(), len(session.echoes)
        session.type()
        keys += 1
        session.until(lambda: len(session.echoes) > count, 30)
        waits.append(time.monotonic() - typed)
        time.sleep(7)
    check("switches in 10 min", trial.resumed(session) - before, 0)
    dials = [one for one in computer.flows_since(start) if not 290 < one < 330]
    print(f"       spare connections dialled: {len(dials)}; keys {keys}, echo p50 {sorted(waits)[len(waits) // 2]:.2f} s")
    print(f"       {len(load.output) >> 20} MiB came down in the full half")
    check("switches of the full session", trial.resumed(load), 0)
    load.close()
    computer.line("set", "wifi", delay=RTT / 2, rate=100e6, loss=0, queue=0.2)
    time.sleep(3)
    whole(session)


@trial
def copy(trial):
    """scp of 64 MiB each way through five changes of address: the bytes are the same."""
    computer = trial.computer("always")
    noise = subprocess.run(["head", "-c", str(64 << 20), "/dev/urandom"], check=True, stdout=subprocess.PIPE).stdout
    (trial.world.home / "big").write_bytes(noise)
    for kind in ("wifi", "mobile"):
        computer.line("set", kind, rate=50e6)
    for source, target, there in ((f"{HOST}:big", "back", computer.home / "back"), ("back", f"{HOST}:again", trial.world.home / "again")):
        scp = Session(computer, ["scp", "-F", computer.home / ".ssh/config", source, target])
        for change in range(5):
            time.sleep(1.5)
            old, new = ("wifi", "mobile") if change % 2 == 0 else ("mobile", "wifi")
            computer.line("set", old, dark="both")
            computer.line("set", new, dark="no")
            computer.route(new)
        scp.until(scp.is_over, 120)
        same = there.exists() and hashlib.sha256(there.read_bytes()).digest() == hashlib.sha256(noise).digest()
        check(f"scp {source} {target}", "equal" if same else scp.output[-300:], good=same)
        scp.close()
    for kind in ("wifi", "mobile"):
        computer.line("set", kind, dark="no", rate=100e6)
    computer.route("wifi")


@trial
def direct_waits(trial):
    """A direct session, nothing passes for 60 s: it goes on, since nothing else answered either."""
    session = settled(trial.session("tick", resume="never"))
    session.computer.line("set", "wifi", dark="both")
    time.sleep(45)
    phases = [one["phase"] for one in session.computer.live()]
    check("the phase meanwhile", phases, good="away" in phases)
    time.sleep(15)
    session.computer.line("set", "wifi", dark="no")
    check("bytes again", session.tick_after(time.monotonic() + 0.02, 90), 65.0)
    whole(session)


@trial
def direct_ends(trial):
    """A direct session that the path has forgotten, while the tunnel's host answers: it ends, and says so."""
    session = settled(trial.session(resume="never"))
    session.computer.line("forget", "wifi")
    start = time.monotonic()
    session.until(session.is_over, 60)
    check("it ends", time.monotonic() - start, 40.0)
    words = session.output.decode(errors="replace").splitlines()
    said = [word for word in words if word.startswith("labctl-ssh-proxy:")]
    check("it says", said, good=bool(said))
    session.close()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--program", default="target/debug/labctl-ssh-proxy")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("trials", nargs="*", choices=[[], *TRIALS], metavar="TRIAL")
    options = parser.parse_args()
    if options.list:
        for name, function in TRIALS.items():
            print(f"{name:20} {function.__doc__.splitlines()[0]}")
        return
    program = str(pathlib.Path(options.program).resolve())
    if not pathlib.Path(program).exists():
        sys.exit(f"{program} is missing; build it first: cargo build")
    for name in options.trials or TRIALS:
        print(f"{name}: {TRIALS[name].__doc__.splitlines()[0]}", flush=True)
        # Each begins in a new world, so that none depends on what another has left.
        with World(program, shutil.which("wsmux"), str(pathlib.Path("target/peers-standin").resolve())) as world:
            time.sleep(1)
            try:
                TRIALS[name](Trial(world, program))
            except Exception as why:  # A trial that cannot be made is a trial that failed.
                check(f"the trial ended early: {why}", "", good=False)
    if FAILED:
        sys.exit(f"{len(FAILED)} missed: " + "; ".join(FAILED))
    print("all trials kept their limits")


if __name__ == "__main__":
    main()
