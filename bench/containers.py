"""Times of connections into a container, at a round trip of 50 ms: PROGRAM ENGINE'S-SOCKET CONTAINER [ROUNDS].

The platform is the embedded one, behind a proxy that delays both directions by half a round trip. Prints a table: the
machine and the container, the first connection and later ones, sftp, and docker's own exec beside them.
"""

import asyncio
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time

ROUND_TRIP = 0.05
program, socket, container = sys.argv[1:4]
rounds = int(sys.argv[4]) if len(sys.argv) > 4 else 7
home = tempfile.mkdtemp(prefix="lspb", dir="/tmp")
environment = {"HOME": home, "PATH": os.environ["PATH"], "SHELL": "/bin/sh", "DOCKER_HOST": f"unix://{socket}"}


async def one_way(reader, writer, first):
    """Passes bytes on, each as late as half a round trip after it came."""
    queue = asyncio.Queue()

    async def write():
        while item := await queue.get():
            at, data = item
            await asyncio.sleep(max(0, at - time.monotonic()))
            writer.write(data)
            await writer.drain()
        writer.close()

    writing = asyncio.create_task(write())
    try:
        while data := await reader.read(65536):
            queue.put_nowait((max(time.monotonic(), first) + ROUND_TRIP / 2, data))
    except OSError:
        pass
    queue.put_nowait(None)
    await asyncio.gather(writing, return_exceptions=True)


def delayed(to):
    """Returns the port of a proxy that delays. A connection takes a round trip, too."""
    ready, ports = threading.Event(), []

    async def serve():
        async def accept(reader, writer):
            first = time.monotonic() + ROUND_TRIP
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", to[0])
            await asyncio.gather(one_way(reader, far_writer, first), one_way(far_reader, writer, first))
        server = await asyncio.start_server(accept, "127.0.0.1", 0)
        ports.append(server.sockets[0].getsockname()[1])
        ready.set()
        await server.serve_forever()

    threading.Thread(target=lambda: asyncio.run(serve()), daemon=True).start()
    ready.wait()
    return ports[0]


def run(*command, **options):
    return subprocess.run(command, check=True, env=environment, cwd=home, stdin=subprocess.DEVNULL, **options)


def ms(*command):
    start = time.monotonic()
    run(*command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return (time.monotonic() - start) * 1e3


def often(*command):
    return [ms(*command) for _ in range(rounds)]


def row(what, times):
    print(f"| {what} | {statistics.median(times):.0f} | {min(times):.0f} | {max(times):.0f} |")


to = [0]
port = delayed(to)
local = [program, "--home", f"{home}/platform"]
platform = subprocess.Popen([*local, "local", "serve", "--engine", socket, "--listen", "127.0.0.1:0",
                             "--public-url", f"http://127.0.0.1:{port}"], env=environment, stdout=subprocess.DEVNULL)
try:
    while not os.path.exists(f"{home}/platform/local/socket"):
        time.sleep(0.05)
    said = run(*local, "--local", "local", "status", "--json", capture_output=True, text=True).stdout
    to[0] = int(json.loads(said)["listen"].rsplit(":", 1)[1])
    login = json.load(open(f"{home}/platform/local/credentials.json"))[0]
    os.makedirs(f"{home}/.iximiuz/labctl")
    with open(f"{home}/.iximiuz/labctl/config.yaml", "w") as account:
        account.write(f"base_url: http://127.0.0.1:{port}\nsession_id: {login['id']}\naccess_token: {login['accessToken']}\n")
    play = json.loads(run(program, "start", "shell", "--json", capture_output=True, text=True).stdout)["id"]
    run(program, "config-ssh", "--yes", capture_output=True)
    machine = f"playground-{play}.shell-01"
    inside = f"{machine}.{container}"
    ssh = ["ssh", "-F", f"{home}/.ssh/config", "-o", "BatchMode=yes"]
    sftp = ["sftp", "-q", *ssh[1:], "-b", f"{home}/batch"]
    print("| ms | median | best | worst |\n| --- | --- | --- | --- |")
    row("machine, first contact", [ms(*ssh, machine, "true")])
    row("container, first contact (the helper is put there)", [ms(*ssh, inside, "/app", "exit", "0")])
    row("machine, later", machines := often(*ssh, machine, "true"))
    row("container, later", containers := often(*ssh, inside, "/app", "exit", "0"))
    row("docker exec, here", often("docker", "exec", container, "/app", "exit", "0"))
    over = statistics.median(containers) - statistics.median(machines)
    print(f"\nA container costs {over:.0f} ms more than its machine: {over / ROUND_TRIP / 1e3:.1f} round trips.\n")
    with open(f"{home}/many", "wb") as many:
        many.write(os.urandom(64 << 20))
    for what, host, folder in [("machine", machine, home), ("container", inside, "/dev/shm")]:
        with open(f"{home}/batch", "w") as batch:
            batch.write(f"put {home}/many {folder}/there\n")
        row(f"64 MiB by sftp to the {what}", [ms(*sftp, host) for _ in range(3)])
finally:
    platform.terminate()
    platform.wait()
    subprocess.run(local + ["local", "stop"], env=environment, capture_output=True)
    shutil.rmtree(home, ignore_errors=True)
