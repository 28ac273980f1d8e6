"""Starts oslo.privsep's helper without sudo: a service of systemd runs it.

A unit with ``NoNewPrivileges`` cannot use sudo. ``kvmdriver-privsep`` takes the place of sudo as
``[kvm_privsep] helper_command``. It passes the request to the socket of
``kvmdriver-privsep.socket``, which may be opened by the agent's user only. systemd starts
``kvmdriver-privsep-start`` as root for each request.
"""

import argparse
import os
import re
import socket
import subprocess
import sys

SOCKET = "/run/kvmdriver-privsep.socket"
# The privileged process heeds the configuration of the host, not one that the caller names.
CONFIG_FILE = "/etc/kvmdriver/kvmdriver.conf"
# -I: no module comes from the working directory or the environment
HELPER = (sys.executable, "-I", "-m", "kvmdriver.agent.privsep_helper")
CONTEXTS = tuple(f"kvmdriver.privsep.{name}" for name in ("context", "modules", "processes"))
# oslo.privsep makes a directory with a random name for each of its sockets
_SOCKET_OF_CALLER = re.compile(r"/run/kvmdriver/[A-Za-z0-9_]+/privsep\.sock")
_LIMIT = 4096
_SECONDS = 60


def ask() -> int:
    """``kvmdriver-privsep``: have the helper started; 0 when it has connected to the caller."""
    parser = argparse.ArgumentParser(prog="kvmdriver-privsep", description=ask.__doc__)
    parser.add_argument("--privsep_context", required=True, choices=CONTEXTS)
    parser.add_argument("--privsep_sock_path", required=True)
    arguments = parser.parse_args()
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(_SECONDS)
        try:
            connection.connect(SOCKET)
            connection.sendall(
                f"{arguments.privsep_context}\n{arguments.privsep_sock_path}\n".encode()
            )
            connection.shutdown(socket.SHUT_WR)
            answer = read(connection)
        except OSError as error:
            sys.stderr.write(
                f"cannot ask {SOCKET} for a privileged process: {error}; "
                "run systemctl enable --now kvmdriver-privsep.socket\n"
            )
            return 1
    if answer != "started":
        sys.stderr.write(
            f"the privileged process does not start: {answer or 'no answer'}; "
            "journalctl -u 'kvmdriver-privsep@*' says more\n"
        )
        return 1
    return 0


def start() -> int:
    """``kvmdriver-privsep-start``: serve the request on standard input, which is a socket.

    The helper leaves a process behind that serves the caller until the caller goes.
    """
    with socket.socket(fileno=os.dup(0)) as connection:
        connection.settimeout(_SECONDS)
        answer = serve(read(connection))
        connection.sendall(answer.encode())
        # systemd has the socket open, too, for as long as the helper's process lives
        connection.shutdown(socket.SHUT_WR)
    if answer != "started":
        sys.stderr.write(f"{answer}\n")
        return 1
    return 0


def serve(request: str) -> str:
    """Run the helper for a request.

    :param request: the name of a context and the path of the caller's socket, a line each.
    :return: ``started``, or why not.
    """
    context, _, path = request.removesuffix("\n").partition("\n")
    if context not in CONTEXTS:
        return "this is not one of kvmdriver's contexts"
    if not _SOCKET_OF_CALLER.fullmatch(path):
        return "the caller's socket is not below /run/kvmdriver: set TMPDIR=/run/kvmdriver"
    command = [*HELPER, "--config-file", CONFIG_FILE, "--privsep_context", context]
    try:
        done = subprocess.run(
            [*command, "--privsep_sock_path", path], stdin=subprocess.DEVNULL, timeout=_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"the helper does not run: {error}"
    return "started" if done.returncode == 0 else f"the helper ended with status {done.returncode}"


def read(connection: socket.socket) -> str:
    """Return all that the other side sends until it is done; at most 4 KiB."""
    data = b""
    while len(data) < _LIMIT and (part := connection.recv(_LIMIT - len(data))):
        data += part
    return data.decode(errors="replace")
