"""Runs on the machine. Answers the n-th key with `[n]`, and with `tick` it prints `<1>`, `<2>`, ... every 50 ms."""

import os
import select
import sys
import time
import tty

EVERY = 0.05
if os.isatty(0):
    tty.setraw(0)
ticks = keys = 0
due = time.monotonic() + EVERY if sys.argv[1:] == ["tick"] else None
print("ready\r", flush=True)
while True:
    if select.select([0], [], [], None if due is None else max(0.0, due - time.monotonic()))[0]:
        typed = os.read(0, 4096)
        if not typed:
            break
        for _ in typed:
            keys += 1
            os.write(1, b"[%d]\r\n" % keys)
    if due is not None and time.monotonic() >= due:
        ticks += 1
        due += EVERY
        os.write(1, b"<%d>\r\n" % ticks)
