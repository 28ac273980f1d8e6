"""A whole OpenStack on this machine, for tests and for trying out kvmdriver.

Everything runs in namespaces of its own (network, mounts, processes), with one directory for its
state: what is started cannot outlive the first process of the namespace.
"""

import argparse
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time

from tests import namespace
from tests.openstack import settings
from tests.openstack.control import Control
from tests.openstack.paths import FIRST, HOSTS, SECOND, Paths

DRIVER = "kvmdriver.KVMDriver"
# what can be run in the namespaces of a host, as commands below "bin"
WRAPPERS = ("openstack", "virsh", "ovs-vsctl", "ssh", "nova-manage", "tempest", "curl", "ip")


def up(paths: Paths, driver: str) -> int:
    for directory in ("", "log", "data", "bin", "instances", "hosts"):
        os.makedirs(os.path.join(paths.root, directory), exist_ok=True)
        os.chmod(os.path.join(paths.root, directory), 0o755)
    began = time.monotonic()
    if not _start(paths, FIRST, driver):
        return 1
    with open(os.path.join(paths.root, "openrc"), "w") as file:
        file.write(settings.credentials(paths))
    print(f"up in {time.monotonic() - began:.0f} s. Next:\n  . {paths.root}/openrc")
    return 0


def second(paths: Paths, driver: str, *, shared: bool = False) -> int:
    """Start another compute host, in namespaces of its own inside those of the first.

    :param shared: it has its instances in the same directory as the first.
    """
    if os.path.exists(paths.shared) != shared:
        (_share if shared else _share_no_more)(paths)
    return 0 if _start(paths, SECOND, driver) else 1


def _share(paths: Paths) -> None:
    """Put a file system over the directory that libvirt takes for one that hosts share."""
    options = "subtype=glusterfs,fsname=shared,allow_other,dev,suid,nonempty"
    enter = Control(paths, FIRST).enter()
    subprocess.run([*enter, "bindfs", "-o", options, paths.instances, paths.instances], check=True)
    with open(paths.shared, "w"):
        pass


def _share_no_more(paths: Paths) -> None:
    if Control(paths, FIRST).inside():
        subprocess.run([*Control(paths, FIRST).enter(), "umount", "-l", paths.instances])
    os.unlink(paths.shared)


def _start(paths: Paths, host: str, driver: str) -> bool:
    control = Control(paths, host)
    if control.inside():
        print(f"{host} is up already")
        return True
    control.begin()
    # a shell that has read openrc finds commands of the first host before others
    outside = [name for name in os.environ["PATH"].split(":") if name != paths.bin]
    environment = {
        **os.environ,
        "PATH": ":".join(outside),
        namespace.INSIDE: paths.laboratory(host),
        namespace.ADDRESS: HOSTS[host],
    }
    enter = []
    if host != FIRST:
        environment[namespace.FIRST] = paths.laboratory(FIRST)
        enter = Control(paths, FIRST).enter()
    log_name = f"supervisor-{host}"
    with open(paths.log(log_name), "ab") as log:
        process = subprocess.Popen(
            [
                *enter,
                *namespace.unshare(
                    *(sys.executable, "-m", "tests.openstack", "supervise"),
                    *("--host", host, "--driver", driver),
                ),
            ],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    control.write("pid", str(process.pid))
    began, shown = time.monotonic(), 0
    while True:
        lines = control.lines("progress")
        for line in lines[shown:]:
            print(f"[{time.monotonic() - began:5.1f} s] {host}: {line}", flush=True)
        shown = len(lines)
        if lines and lines[-1] == "ready":
            break
        if process.poll() is not None or (lines and lines[-1].startswith("failed")):
            print(f"{host} did not come up: see {paths.log(log_name)}", file=sys.stderr)
            stop(control)
            return False
        time.sleep(0.2)
    _write_wrappers(control)
    return True


def _write_wrappers(control: Control) -> None:
    paths = control.paths
    directory = paths.bin if control.host == FIRST else os.path.join(paths.bin, control.host)
    os.makedirs(directory, exist_ok=True)
    enter = " ".join(control.enter()[:-2])  # the directory is the caller's
    for name in WRAPPERS:
        path = os.path.join(directory, name)
        with open(path, "w") as file:
            file.write(
                f'#!/bin/sh\nexec {enter} --wd="$PWD" -- '
                f'env PATH={paths.environment}/bin:/usr/sbin:/usr/bin:/sbin:/bin {name} "$@"\n'
            )
        os.chmod(path, 0o755)


def down(paths: Paths) -> int:
    """Stop everything; what is on disk stays, and ``up`` starts from it."""
    for host in reversed(HOSTS):
        stop(Control(paths, host))
    with contextlib.suppress(FileNotFoundError):
        os.unlink(paths.shared)
    return 0


def stop(control: Control) -> None:
    """Stop a host, and wait until nothing of it runs."""
    inside = control.inside()
    if inside is None:
        return
    os.kill(inside, signal.SIGTERM)
    deadline = time.monotonic() + 60
    while control.inside() == inside and time.monotonic() < deadline:
        time.sleep(0.2)
    if control.inside() == inside:
        os.kill(inside, signal.SIGKILL)


def wipe(paths: Paths) -> int:
    for host in HOSTS:
        control = Control(paths, host)
        log = paths.log(f"supervisor-{host}")
        if control.lines("progress")[-1:] == ["ready"] and not control.inside():
            print(f"{host} ended by itself. The last of {log}:")
            with open(log, errors="replace") as file:
                print("".join(file.readlines()[-20:]))
    down(paths)
    shutil.rmtree(paths.root, ignore_errors=True)
    return 0


def status(paths: Paths) -> int:
    running = [control for host in HOSTS if (control := Control(paths, host)).inside()]
    if not running:
        print("down")
        return 1
    lines = [line for control in running for line in control.lines("processes")]
    print("\n".join(lines))
    return 1 if any(line.endswith("DOWN") for line in lines) else 0


def restart_compute(paths: Paths, driver: str, host: str = FIRST) -> int:
    """Stop a host's nova-compute and start it again, with another driver if one is named."""
    control = Control(paths, host)
    control.write("restart", driver)
    while control.lines("restart"):
        if not control.inside():
            print(f"{host} is not up", file=sys.stderr)
            return 1
        time.sleep(0.2)
    return 0


def run_tempest(paths: Paths, regex: str) -> int:
    from tests.openstack import tempest

    if namespace.INSIDE in os.environ:
        return tempest.run(paths, regex)
    command = [sys.executable, "-m", "tests.openstack", "tempest", regex]
    environment = {**os.environ, namespace.INSIDE: paths.laboratory(FIRST)}
    return subprocess.call([*Control(paths, FIRST).enter(), *command], env=environment)


def main() -> int:
    parser = argparse.ArgumentParser(prog="tools/openstack", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("up", "second", "supervise", "restart-compute"):
        command = commands.add_parser(name)
        command.add_argument("--driver", default=DRIVER, help="compute_driver")
        if name == "second":
            command.add_argument("--shared", action="store_true", help="one directory for both")
        if name in ("supervise", "restart-compute"):
            command.add_argument("--host", default=FIRST, choices=tuple(HOSTS))
    for name in ("down", "wipe", "status"):
        commands.add_parser(name)
    command = commands.add_parser("tempest", help="run OpenStack's own tests")
    command.add_argument(
        "regex", nargs="?", default="smoke", help="smoke, compute, moves or a pattern"
    )
    arguments = parser.parse_args()
    paths = Paths.default()
    try:
        match arguments.command:
            case "up":
                return up(paths, arguments.driver)
            case "second":
                return second(paths, arguments.driver, shared=arguments.shared)
            case "supervise":
                from tests.openstack.supervisor import supervise

                return supervise(paths, arguments.host, arguments.driver)
            case "restart-compute":
                return restart_compute(paths, arguments.driver, arguments.host)
            case "tempest":
                return run_tempest(paths, arguments.regex)
            case "down":
                return down(paths)
            case "wipe":
                return wipe(paths)
        return status(paths)
    except LookupError as error:
        print(error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
