"""paramiko through a ProxyCommand, with a keepalive each second: `cat` repeats standard input. USER KEY PROXY..."""

import shlex
import sys
import threading

import paramiko

user, key, *proxy = sys.argv[1:]
with paramiko.SSHClient() as client:
    client.set_missing_host_key_policy(paramiko.AutoAddPolicy())
    socket = paramiko.ProxyCommand(shlex.join(proxy))
    client.connect("playground", username=user, key_filename=key, sock=socket, allow_agent=False, look_for_keys=False)
    client.get_transport().set_keepalive(1)
    stdin, stdout, _ = client.exec_command("cat")

    def answers():
        for line in stdout:
            print(line, end="", flush=True)

    reading = threading.Thread(target=answers)
    reading.start()
    for line in sys.stdin:
        stdin.write(line)
        stdin.flush()
    stdin.channel.shutdown_write()
    reading.join()
