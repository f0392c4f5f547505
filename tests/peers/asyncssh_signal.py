"""Sends a signal by asyncssh, for which ssh has no words: PROXY HOST SIGNAL COMMAND...

The command says `waiting` first. Prints what it says afterwards, and its exit code.
"""

import asyncio
import sys

import asyncssh

proxy, host, signal, *command = sys.argv[1:]


async def main():
    options = dict(username="container", known_hosts=None, config=None, client_keys=[], connect_timeout=60)
    async with asyncssh.connect(host, proxy_command=[proxy, "--local", "connect", host], **options) as connection:
        async with connection.create_process(" ".join(command)) as process:
            assert (await process.stdout.readline()).strip() == "waiting"
            process.send_signal(signal)
            print((await process.stdout.read()).strip())
            await process.wait()
            print(process.exit_status)


try:
    asyncio.run(asyncio.wait_for(main(), 80))
except Exception as error:
    sys.exit(f"{type(error).__name__}: {error}")
