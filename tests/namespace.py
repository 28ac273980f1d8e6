"""Run a command in a laboratory: own processes, network, mounts and libvirtd, gone afterwards.

    python -m tests.namespace COMMAND...

The command runs as root in namespaces of its own, with a fresh libvirtd at qemu:///system, its
network "default", and nothing of the machine's own libvirt in sight. There is no /dev/kvm: tests
run under emulation everywhere. When the command ends, everything that was started ends with it.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from uuid import NAMESPACE_OID, uuid5

from tests import neighbours

INSIDE = "KVMDRIVER_LABORATORY"
# This laboratory is a host among neighbours: its address, and the state of the first of them.
ADDRESS = "KVMDRIVER_LABORATORY_ADDRESS"
FIRST = "KVMDRIVER_LABORATORY_FIRST"
# Its certificates, laid out as below /etc/pki; without them its libvirtd listens in the clear only.
PKI = "KVMDRIVER_LABORATORY_PKI"
# Numeric user as whom the command runs, in the groups of libvirt's socket and of QEMU; else as root.
USER = "KVMDRIVER_LABORATORY_USER"
PIDFILE = "/run/libvirt/libvirtd.pid"
# Debian's groups: of those who may use libvirtd's socket, and of QEMU
SOCKET_GROUP = "libvirt"
QEMU_GROUP = "libvirt-qemu"
# QEMU's capabilities take seconds to find out and are the same every time.
CACHE = "/var/tmp/kvmdriver-libvirt-cache"

LIBVIRTD_CONF = """auth_unix_rw = "none"
unix_sock_group = "{group}"
log_outputs = "3:file:/var/log/libvirt/libvirtd.log"
max_clients = 200
"""
# neighbours migrate guests to each other
LIBVIRTD_LISTENS = """listen_tls = {tls:d}
listen_tcp = 1
listen_addr = "{address}"
auth_tcp = "none"
host_uuid = "{uuid}"
keepalive_interval = 2
keepalive_count = 3
"""

QEMU_CONF = """security_driver = "none"
cgroup_controllers = []
namespaces = []
"""
QEMU_MIGRATES = """migration_host = "{address}"
migration_address = "{address}"
keepalive_interval = 2
keepalive_count = 3
"""
QEMU_HAS_CERTIFICATES = """default_tls_x509_cert_dir = "/etc/pki/qemu"
migrate_tls_x509_verify = 1
"""


def unshare(*command: str) -> list[str]:
    """The command line that runs ``command`` in a laboratory; its environment needs INSIDE."""
    return [
        "unshare", "--net", "--mount", "--pid", "--uts", "--ipc", "--fork",
        "--kill-child=KILL", "--propagation", "private", "--mount-proc",
        sys.executable, "-m", "tests.namespace", *command,
    ]  # fmt: skip


def enter(command: list[str]) -> int:
    """Start the laboratory and wait for its end; the command's exit status."""
    state = tempfile.mkdtemp(prefix="kvmdriver-lab.", dir="/var/tmp")
    os.chmod(state, 0o755)
    try:
        return subprocess.call(unshare(*command), env={**os.environ, INSIDE: state})
    finally:
        shutil.rmtree(state, ignore_errors=True)


def start_libvirtd() -> None:
    """Start libvirtd and wait until it answers; also used by tests that have killed it."""
    listen = ("--listen",) if ADDRESS in os.environ else ()
    subprocess.run(["libvirtd", "-d", "-p", PIDFILE, *listen], check=True)
    wait_for(lambda: subprocess.call(["virsh", "-q", "version"], stdout=subprocess.DEVNULL) == 0)


def wait_for(condition, seconds: float = 30, step: float = 0.1) -> None:
    """Wait until ``condition()`` is true; an AssertionError when that takes too long."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {seconds} s in vain for {condition}")
        time.sleep(step)


def _prepare(state: str) -> None:
    shutil.rmtree(f"{state}/run", ignore_errors=True)
    if not os.path.isdir(f"{state}/etc"):  # else a laboratory that was there before
        with contextlib.suppress(FileNotFoundError):
            shutil.copytree("/etc/libvirt", f"{state}/etc", ignore_dangling_symlinks=True)
        shutil.rmtree(f"{state}/etc/qemu", ignore_errors=True)
        os.makedirs(f"{state}/etc/qemu", exist_ok=True)
    address = os.environ.get(ADDRESS)
    listens = migrates = ""
    if address:
        uuid = uuid5(NAMESPACE_OID, address)
        listens = LIBVIRTD_LISTENS.format(address=address, uuid=uuid, tls=PKI in os.environ)
        migrates = QEMU_MIGRATES.format(address=address)
        if PKI in os.environ:
            migrates += QEMU_HAS_CERTIFICATES
    _write(f"{state}/etc/libvirtd.conf", LIBVIRTD_CONF.format(group=SOCKET_GROUP) + listens)
    _write(f"{state}/etc/qemu.conf", QEMU_CONF + migrates)
    os.makedirs(CACHE, mode=0o711, exist_ok=True)
    for name, path in (
        ("etc", "/etc/libvirt"),
        ("lib", "/var/lib/libvirt"),
        ("log", "/var/log/libvirt"),
        ("run", "/run/libvirt"),
    ):
        os.makedirs(f"{state}/{name}", mode=0o755, exist_ok=True)
        os.makedirs(path, exist_ok=True)
        _mount("--bind", f"{state}/{name}", path)
    if PKI in os.environ:
        os.makedirs("/etc/pki", exist_ok=True)
        _mount("--bind", os.environ[PKI], "/etc/pki")
    os.makedirs("/var/cache/libvirt", exist_ok=True)
    _mount("--bind", CACHE, "/var/cache/libvirt")
    if os.path.exists("/dev/kvm"):
        # A file that QEMU's user may not open: were it accessible and useless, libvirt would find
        # its cached capabilities outdated and ask QEMU again, for every device of every domain.
        _write(f"{state}/kvm", "")
        os.chmod(f"{state}/kvm", 0o600)
        _mount("--bind", f"{state}/kvm", "/dev/kvm")
    os.makedirs(f"{state}/lib/qemu", mode=0o755, exist_ok=True)
    # the old one shows the network of those who mounted it
    _mount("-t", "sysfs", "sysfs", "/sys")
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    if address and FIRST in os.environ:
        neighbours.join(os.environ[FIRST], address)
    elif address:
        neighbours.found(state, address)
    _write("/proc/sys/net/ipv4/ip_forward", "1")


def _start_services(state: str) -> None:
    subprocess.run(["virtlogd", "-d", "-p", "/run/libvirt/virtlogd.pid"], check=True)
    start_libvirtd()
    network = f"{state}/network.xml"
    _write(
        network,
        "<network><name>default</name><forward mode='nat'/><bridge name='virbr0' stp='off' delay='0'/>"
        "<ip address='192.168.122.1' netmask='255.255.255.0'><dhcp>"
        "<range start='192.168.122.2' end='192.168.122.254'/></dhcp></ip></network>",
    )
    known = subprocess.run(
        ["virsh", "-q", "net-list", "--all", "--name"], capture_output=True, text=True, check=True
    ).stdout.split()
    commands = [["net-start", "default"]]
    if "default" not in known:  # else a laboratory that was there before
        commands.insert(0, ["net-define", network])
    for arguments in commands:
        subprocess.run(["virsh", "-q", *arguments], check=True)


def _mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True)


def _write(path: str, text: str) -> None:
    with open(path, "w") as target:
        target.write(text)


def _reap(command: list[str]) -> int:
    """Be a good init: run the command, and bury every orphan in the meantime."""
    process = subprocess.Popen(command)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda signum, _frame: process.send_signal(signum))
    while True:
        try:
            pid, status = os.wait()
        except ChildProcessError:
            return 1
        if pid == process.pid:
            return os.waitstatus_to_exitcode(status) & 0xFF


def main(command: list[str]) -> int:
    state = os.environ.get(INSIDE)
    if state is None:
        if os.geteuid() != 0:
            sys.exit("the laboratory needs root")
        return enter(command)
    if os.getpid() == 1:
        # everything ends with us, however we end; libvirt waits for its dead to be buried
        return _reap([sys.executable, "-m", "tests.namespace", *command])
    _prepare(state)
    _start_services(state)
    user = os.environ.get(USER)
    if user is not None:
        command = _as_user(user, state, command)
    return os.execvp(command[0], command)


def _as_user(user: str, state: str, command: list[str]) -> list[str]:
    """The command line that runs ``command`` as a user who may use libvirt and owns ``state``."""
    os.chown(state, int(user), int(user))
    os.environ["HOME"] = state
    os.environ["LIBVIRT_DEFAULT_URI"] = "qemu:///system"  # virsh's own default is a user's session
    # oslo.privsep starts its daemon so
    sudoers = f"{state}/sudoers"
    _write(sudoers, f"Defaults !secure_path\n#{user} ALL = (root) NOPASSWD: SETENV: ALL\n")
    os.chmod(sudoers, 0o440)
    _mount("--bind", sudoers, "/etc/sudoers")
    groups = f"{SOCKET_GROUP},{QEMU_GROUP}"
    return [
        "setpriv", "--reuid", user, "--regid", user, "--groups", groups, "--inh-caps=-all", *command,
    ]  # fmt: skip


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
