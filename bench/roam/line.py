"""Lines between computers: the network of the trials, in user space, since not every kernel has tc's netem.

Each line joins a TUN device in one network namespace with one in another. It carries IP packets with a delay, a rate, a
queue and a loss, and it can go dark, or forget the flows that it has seen, as a router does that has lost its table: their
packets vanish, and those of new flows pass. `python3 line.py` reads one JSON command a line on standard input and answers
each with one line.
"""

import ctypes
import fcntl
import heapq
import json
import os
import random
import select
import struct
import sys
import time

LIBC = ctypes.CDLL(None, use_errno=True)
CLONE_NEWNET = 0x40000000
TUNSETIFF = 0x400454CA
IFF_TUN, IFF_NO_PI = 0x0001, 0x1000
TCP, UDP = 6, 17


def enter(namespace):
    """Moves this process into a named network namespace."""
    handle = os.open(f"/run/netns/{namespace}", os.O_RDONLY)
    try:
        if LIBC.setns(handle, CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), f"cannot enter {namespace}")
    finally:
        os.close(handle)


def device(namespace, name):
    """Makes a TUN device in a namespace."""
    enter(namespace)
    tun = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(tun, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TUN | IFF_NO_PI))
    return tun


class Line:
    """One line. Direction 0 is up, from the computer to the machine, and 1 is down."""

    def __init__(self, ends):
        self.ends = ends
        self.delay, self.rate, self.loss, self.queue = 0.0, 0.0, 0.0, 0.2
        self.dark = [False, False]
        self.free = [0.0, 0.0]
        self.flows, self.forgotten, self.ports = {}, set(), set()
        self.counts = [0, 0]

    def flow(self, packet, direction):
        """The flow of a packet: protocol, the computer's address and port, the machine's port."""
        if packet[0] >> 4 != 4 or packet[9] not in (TCP, UDP):
            return None
        at = (packet[0] & 15) * 4
        source, target = struct.unpack_from("!HH", packet, at)
        near, far = (source, target) if direction == 0 else (target, source)
        address = packet[12:16] if direction == 0 else packet[16:20]
        return (packet[9], ".".join(map(str, address)), near, far)

    def departure(self, packet, direction, now):
        """The moment at which a packet arrives, or None where it is lost."""
        flow = self.flow(packet, direction)
        if flow and flow not in self.flows:
            self.flows[flow] = now
        if self.dark[direction] or flow in self.forgotten or flow and flow[3] in self.ports:
            return None
        if self.loss and random.random() < self.loss:
            return None
        sent = now
        if self.rate:
            sent = max(now, self.free[direction])
            if sent - now > self.queue:
                return None
            sent += len(packet) * 8 / self.rate
            self.free[direction] = sent
        self.counts[direction] += 1
        return sent + self.delay


class Network:
    """All lines, and the packets that are on their way."""

    def __init__(self):
        self.lines, self.by_end, self.way, self.count = {}, {}, [], 0

    def make(self, name, near, far, **how):
        ends = (device(*near), device(*far))
        line = self.lines[name] = Line(ends)
        for direction, end in enumerate(ends):
            self.by_end[end] = (line, direction)
        return self.set(name, **how)

    def set(self, name, dark=None, **how):
        """Changes a line. `dark` is `no`, `up`, `down` or `both`."""
        line = self.lines[name]
        if dark is not None:
            line.dark = [dark in ("up", "both"), dark in ("down", "both")]
        if "ports" in how:
            line.ports = set(how.pop("ports"))
        for key, value in how.items():
            setattr(line, key, float(value))

    def forget(self, name):
        """Loses the packets of every flow so far."""
        self.lines[name].forgotten |= set(self.lines[name].flows)

    def flows(self, name):
        """Each flow with the moment of its first packet."""
        return [[moment, *flow] for flow, moment in self.lines[name].flows.items()]

    def packets(self, name):
        return self.lines[name].counts

    def answer(self, command):
        return getattr(self, command.pop("do"))(**command)

    def run(self):
        orders, rest = sys.stdin.fileno(), b""
        while True:
            now = time.monotonic()
            while self.way and self.way[0][0] <= now:
                _, _, end, packet = heapq.heappop(self.way)
                try:
                    os.write(end, packet)
                except OSError:
                    pass  # The device is down, or its queue is full: the packet is lost.
            # select waits for microseconds where epoll waits for milliseconds.
            timeout = max(0.0, self.way[0][0] - time.monotonic()) if self.way else None
            for ready in select.select([orders, *self.by_end], [], [], timeout)[0]:
                if ready == orders:
                    read = os.read(orders, 65536)
                    if not read:
                        return
                    *lines, rest = (rest + read).split(b"\n")
                    for line in lines:
                        print(json.dumps(self.answer(json.loads(line))), flush=True)
                    continue
                line, direction = self.by_end[ready]
                for _ in range(64):
                    try:
                        packet = os.read(ready, 65536)
                    except OSError:
                        break
                    moment = line.departure(packet, direction, time.monotonic())
                    if moment is not None:
                        self.count += 1
                        heapq.heappush(self.way, (moment, self.count, line.ends[1 - direction], packet))


if __name__ == "__main__":
    Network().run()
