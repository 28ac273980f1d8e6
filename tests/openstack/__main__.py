"""A whole OpenStack on this machine, for tests and for trying out kvmdriver.

Everything runs in namespaces of its own (network, mounts, processes), with one directory for its
state: what is started cannot outlive the first process of the namespace.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time

from tests import namespace
from tests.openstack import settings
from tests.openstack.paths import Paths
from tests.openstack.processes import Failed

# name of the wrapper -> what it runs in the namespaces
WRAPPERS = ("openstack", "virsh", "ovs-vsctl", "ssh", "nova-manage", "tempest", "curl", "ip")


def up(paths: Paths, driver: str) -> int:
    if _supervisor(paths):
        print("the stack is up already")
        return 0
    for directory in ("log", "data", "bin", "instances", "host"):
        os.makedirs(os.path.join(paths.root, directory), exist_ok=True)
        os.chmod(os.path.join(paths.root, directory), 0o755)
    os.chmod(paths.root, 0o755)
    _remove(_file(paths, "progress"))
    began = time.monotonic()
    with open(paths.log("supervisor"), "ab") as log:
        process = subprocess.Popen(
            namespace.unshare(
                sys.executable, "-m", "tests.openstack", "supervise", "--driver", driver
            ),
            env={**os.environ, namespace.INSIDE: paths.laboratory},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    with open(_file(paths, "pid"), "w") as file:
        file.write(str(process.pid))
    shown = 0
    while True:
        lines = _lines(_file(paths, "progress"))
        for line in lines[shown:]:
            print(f"[{time.monotonic() - began:5.1f} s] {line}", flush=True)
        shown = len(lines)
        if lines and lines[-1] == "ready":
            break
        if process.poll() is not None or (lines and lines[-1].startswith("failed")):
            print(f"the stack did not come up: see {paths.log('supervisor')}", file=sys.stderr)
            down(paths)
            return 1
        time.sleep(0.2)
    inside = _inside(paths)
    for name in WRAPPERS:
        path = os.path.join(paths.bin, name)
        with open(path, "w") as file:
            file.write(
                f'#!/bin/sh\nexec nsenter -t {inside} -n -m -p -u -i --wd="$PWD" -- '
                f'env PATH={paths.environment}/bin:/usr/sbin:/usr/bin:/sbin:/bin {name} "$@"\n'
            )
        os.chmod(path, 0o755)
    with open(_file(paths, "openrc"), "w") as file:
        file.write(settings.credentials(paths))
    print(f"up in {time.monotonic() - began:.0f} s. Next:\n  . {_file(paths, 'openrc')}")
    return 0


def down(paths: Paths) -> int:
    """Stop everything; what is on disk stays, and ``up`` starts from it."""
    pid = _supervisor(paths)
    if pid:
        inside = _inside(paths)
        os.kill(inside or pid, signal.SIGTERM)
        deadline = time.monotonic() + 60
        while _supervisor(paths) and time.monotonic() < deadline:
            time.sleep(0.2)
        if _supervisor(paths):
            os.kill(pid, signal.SIGKILL)
    _remove(_file(paths, "pid"))
    return 0


def wipe(paths: Paths) -> int:
    down(paths)
    shutil.rmtree(paths.root, ignore_errors=True)
    return 0


def status(paths: Paths) -> int:
    if not _supervisor(paths):
        print("down")
        return 1
    with open(_file(paths, "processes")) as file:
        alive = json.load(file)
    for name, up_ in alive.items():
        print(f"{name:28} {'up' if up_ else 'DOWN'}")
    return 0 if all(alive.values()) else 1


def supervise(paths: Paths, driver: str) -> int:
    """Runs inside: brings the stack up and keeps it until it is told to stop."""
    from tests.openstack.stack import Stack, prepare_namespace

    def report(text: str) -> None:
        with open(_file(paths, "progress"), "a") as file:
            file.write(text + "\n")

    prepare_namespace(paths)
    stack = Stack(paths, report, driver)
    ended = []
    signal.signal(signal.SIGTERM, lambda *_: ended.append(True))
    try:
        stack.up()
    except Exception as error:
        report(f"failed: {error}")
        if not isinstance(error, Failed):
            raise
        print(error, file=sys.stderr)
        return 1
    report("ready")
    while not ended:
        with open(_file(paths, "processes.new"), "w") as file:
            json.dump(stack.processes.alive(), file)
        os.rename(_file(paths, "processes.new"), _file(paths, "processes"))
        if os.path.exists(_file(paths, "restart-compute")):
            stack.processes.stop("nova-compute")
            with open(_file(paths, "restart-compute")) as file:
                settings.write_all(paths, file.read().strip() or driver)
            stack.start_compute()
            os.unlink(_file(paths, "restart-compute"))
        time.sleep(0.5)
    stack.down()
    return 0


def restart_compute(paths: Paths, driver: str) -> int:
    """Stop nova-compute and start it again, with another driver if one is named."""
    request = _file(paths, "restart-compute")
    with open(request + ".new", "w") as file:
        file.write(driver)
    os.rename(request + ".new", request)
    while os.path.exists(request):
        if not _supervisor(paths):
            return 1
        time.sleep(0.2)
    return 0


def run_tempest(paths: Paths, regex: str) -> int:
    from tests.openstack import tempest

    if namespace.INSIDE in os.environ:
        return tempest.run(paths, regex)
    command = [sys.executable, "-m", "tests.openstack", "tempest", regex]
    inside = _inside(paths)
    if inside is None:
        sys.exit("the stack is not up")
    return subprocess.call(
        [*_enter(inside), "env", f"{namespace.INSIDE}={paths.laboratory}", *command]
    )


def _enter(inside: int) -> list[str]:
    """The command line that runs another one in the namespaces."""
    return [
        "nsenter",
        "-t",
        str(inside),
        "-n",
        "-m",
        "-p",
        "-u",
        "-i",
        f"--wd={os.getcwd()}",
        "--",
    ]


def _file(paths: Paths, name: str) -> str:
    return os.path.join(paths.root, name)


def _lines(path: str) -> list[str]:
    try:
        with open(path) as file:
            return file.read().splitlines()
    except FileNotFoundError:
        return []


def _remove(path: str) -> None:
    if os.path.exists(path):
        os.unlink(path)


def _supervisor(paths: Paths) -> int | None:
    """Process id of the ``unshare`` that holds the namespaces, while it lives."""
    lines = _lines(_file(paths, "pid"))
    if not lines:
        return None
    try:
        with open(f"/proc/{lines[0]}/cmdline", "rb") as file:
            return int(lines[0]) if b"unshare" in file.read() else None
    except FileNotFoundError:
        return None


def _inside(paths: Paths) -> int | None:
    """Process id, as seen from here, of the first process of the namespaces."""
    pid = _supervisor(paths)
    children = _lines(f"/proc/{pid}/task/{pid}/children") if pid else []
    return int(children[0].split()[0]) if children else None


def main() -> int:
    parser = argparse.ArgumentParser(prog="tools/openstack", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("up", "supervise", "restart-compute"):
        command = commands.add_parser(name)
        command.add_argument("--driver", default="kvmdriver.KVMDriver", help="compute_driver")
    for name in ("down", "wipe", "status"):
        commands.add_parser(name)
    command = commands.add_parser("tempest", help="run OpenStack's own tests")
    command.add_argument("regex", nargs="?", default="smoke", help="smoke, compute or a pattern")
    arguments = parser.parse_args()
    paths = Paths.default()
    match arguments.command:
        case "up":
            return up(paths, arguments.driver)
        case "supervise":
            return supervise(paths, arguments.driver)
        case "restart-compute":
            return restart_compute(paths, arguments.driver)
        case "tempest":
            return run_tempest(paths, arguments.regex)
        case "down":
            return down(paths)
        case "wipe":
            return wipe(paths)
    return status(paths)


if __name__ == "__main__":
    sys.exit(main())
