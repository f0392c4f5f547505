"""What paramiko and asyncssh make of an ssh configuration: parsers.py FILE HOST, one JSON object."""

import json
import sys

import asyncssh
import paramiko

NAMES = {
    "user": "User",
    "hostname": "Hostname",
    "proxycommand": "ProxyCommand",
    "identityfile": "IdentityFile",
    "userknownhostsfile": "UserKnownHostsFile",
    "connecttimeout": "ConnectTimeout",
    "serveraliveinterval": "ServerAliveInterval",
}


def of_paramiko(file, host):
    found = paramiko.SSHConfig.from_path(file).lookup(host)
    return {name: found.get(name) for name in NAMES}


def of_asyncssh(file, host):
    options = asyncssh.SSHClientConnectionOptions(host=host, config=[file])
    return {name: options.config.get(key) for name, key in NAMES.items()}


def attempt(reader):
    try:
        return reader(*sys.argv[1:])
    except Exception as e:
        return {"error": f"{type(e).__name__}: {e}"}


print(json.dumps({"paramiko": attempt(of_paramiko), "asyncssh": attempt(of_asyncssh)}))
