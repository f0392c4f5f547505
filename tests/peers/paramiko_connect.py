"""paramiko through a ProxyCommand: USER KEY COMMAND PROXY..."""

import shlex
import sys

import paramiko

user, key, command, *proxy = sys.argv[1:]
try:
    with paramiko.SSHClient() as client:
        client.set_missing_host_key_policy(paramiko.AutoAddPolicy())
        socket = paramiko.ProxyCommand(shlex.join(proxy))
        client.connect("playground", username=user, key_filename=key, sock=socket, allow_agent=False,
                       look_for_keys=False)
        sys.stdout.write(client.exec_command(command)[1].read().decode())
except Exception as error:
    sys.exit(f"{type(error).__name__}: {error}")
