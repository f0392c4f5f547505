"""asyncssh through a ProxyCommand: USER KEY COMMAND PROXY..."""

import asyncio
import sys

import asyncssh

user, key, command, *proxy = sys.argv[1:]


async def main():
    options = dict(username=user, client_keys=[key], known_hosts=None, config=None, connect_timeout=60)
    async with asyncssh.connect("playground", proxy_command=proxy, **options) as connection:
        sys.stdout.write((await connection.run(command, check=True)).stdout)


try:
    asyncio.run(main())
except Exception as error:
    sys.exit(f"{type(error).__name__}: {error}")
