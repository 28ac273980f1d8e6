"""The host check: everything that a host of virtual machines needs, each with what mends it.

Called ``kvmdriver host check`` and ``kvmdriver doctor``. Nothing is changed, no process started.
"""

import contextlib
import dataclasses
import fcntl
import grp
import importlib.util
import logging
import os
import pwd
import shutil
import tempfile
import time
from collections.abc import Callable

from oslo_config import cfg

from kvmdriver import exception
from kvmdriver.host import cpu as host_cpu
from kvmdriver.host import platform
from kvmdriver.host.nested import NestedHost
from kvmdriver.host.osinfo import OsDatabase
from kvmdriver.hypervisor.hypervisor import Hypervisor
from kvmdriver.model import CheckView

# Below the first a host does not work, below the second it will not with the next release.
MINIMUM_LIBVIRT, NEXT_LIBVIRT = (7, 0, 0), (8, 0, 0)
MINIMUM_QEMU, NEXT_QEMU = (5, 2, 0), (6, 2, 0)

LOG = logging.getLogger(__name__)

_FICLONE = 0x40049409  # linux/fs.h
_SLOW_MS = 1000
_LOW_SPACE_GIB = 10

Result = tuple[str, str, str]


@dataclasses.dataclass(frozen=True)
class Host:
    """What the checks look at; ``sysroot`` is where the host's files lie."""

    conf: cfg.ConfigOpts
    hypervisor: Hypervisor
    sysroot: str = "/"

    def read(self, path: str) -> str:
        """Return a file's text without the spaces around it; empty when it cannot be read."""
        try:
            with open(self.path(path)) as file:
                return file.read().strip()
        except OSError:
            return ""

    def path(self, path: str) -> str:
        return os.path.join(self.sysroot, path.lstrip("/"))

    def wants_kvm(self) -> bool:
        return bool(self.conf.kvm.virt_type == "kvm")


def ok(found: str) -> Result:
    return "pass", found, ""


def warn(found: str, remedy: str) -> Result:
    return "warn", found, remedy


def fail(found: str, remedy: str) -> Result:
    return "fail", found, remedy


def cpu_flags(host: Host) -> Result:
    view = NestedHost(host.sysroot).view()
    if view.cpu_flag:
        return ok(f"{view.vendor}, hardware virtualization")
    worse = fail if host.wants_kvm() else warn
    return worse(
        "no vmx or svm in /proc/cpuinfo",
        "switch virtualization on in the firmware, or nested virtualization on the host below",
    )


def kvm_device(host: Host) -> Result:
    worse = fail if host.wants_kvm() else warn
    path = host.path("/dev/kvm")
    try:
        status = os.stat(path)
    except FileNotFoundError:
        module = NestedHost(host.sysroot).view().module or "kvm_intel"
        return worse("/dev/kvm does not exist", f"modprobe {module}")
    mode = status.st_mode & 0o777
    group = _group_name(status.st_gid)
    found = f"/dev/kvm {mode:04o} root:{group}"
    if group == "kvm" and mode & 0o060 == 0o060:
        return ok(found)
    if mode & 0o006 == 0o006:
        return warn(f"{found}, open to everybody", "chgrp kvm /dev/kvm && chmod 0660 /dev/kvm")
    return worse(f"{found}, closed to QEMU", "chgrp kvm /dev/kvm && chmod 0660 /dev/kvm")


def _group_name(number: int) -> str:
    """Return the name of a group, or its number where the host has no such group."""
    try:
        return grp.getgrgid(number).gr_name
    except KeyError:
        return str(number)


def groups(host: Host) -> Result:
    """Return whether an agent that is not root can do its work.

    libvirt gives the files of a running guest to QEMU's user and group, with mode 0640: the agent
    reads them as a member of that group.
    """
    if os.geteuid() == 0:
        return ok("root")
    names = {_group_name(number) for number in os.getgroups()}
    wanted = ["libvirt", "kvm"]
    qemu_group = host.hypervisor.host_capabilities().qemu_group
    with contextlib.suppress(KeyError):
        if qemu_group is not None and grp.getgrgid(qemu_group).gr_name not in wanted:
            wanted.append(grp.getgrgid(qemu_group).gr_name)
    missing = [name for name in wanted if name not in names]
    if not missing:
        return ok(f"member of {', '.join(wanted)}")
    return warn(
        f"not a member of {', '.join(missing)}",
        f"usermod -aG {','.join(missing)} $USER, and log in again",
    )


def libvirt_version(host: Host) -> Result:
    return _version("libvirt", host.hypervisor.version_numbers()[1], MINIMUM_LIBVIRT, NEXT_LIBVIRT)


def require_versions(conf: cfg.ConfigOpts, hypervisor: Hypervisor) -> None:
    """Require a libvirt and a QEMU that are new enough.

    :raises kvmdriver.exception.ConfigurationError: one is too old to work with.
    """
    for check in (libvirt_version, qemu_version):
        result, found, remedy = check(Host(conf, hypervisor))
        if result == "fail":
            raise exception.ConfigurationError(f"{found} is too old", remedy=remedy)


def require_qemu_group(hypervisor: Hypervisor) -> None:
    """Require the group to which libvirt gives the files of running guests.

    :raises kvmdriver.exception.ConfigurationError: this process is neither root nor a member.
    """
    group = hypervisor.host_capabilities().qemu_group
    if group is None or os.geteuid() == 0 or group in (os.getegid(), *os.getgroups()):
        return
    user = pwd.getpwuid(os.geteuid()).pw_name
    name = _group_name(group)
    raise exception.ConfigurationError(
        f"libvirt gives the files of guests to a group that the user {user} is not a member of",
        field="group of QEMU (virsh capabilities, secmodel dac)",
        value=name,
        remedy=f"usermod -aG {name} {user}, and restart the service; or name a group of this user's as "
        "group in /etc/libvirt/qemu.conf",
    )


def qemu_version(host: Host) -> Result:
    return _version("QEMU", host.hypervisor.version_numbers()[0], MINIMUM_QEMU, NEXT_QEMU)


def _version(
    name: str, number: int, minimum: tuple[int, int, int], following: tuple[int, int, int]
) -> Result:
    have = (number // 1_000_000, number // 1000 % 1000, number % 1000)

    def dotted(version: tuple[int, int, int]) -> str:
        return ".".join(map(str, version))

    if have < minimum:
        return fail(f"{name} {dotted(have)}", f"upgrade {name} to {dotted(minimum)} or later")
    if have < following:
        return warn(
            f"{name} {dotted(have)}; the next release needs {dotted(following)}", f"upgrade {name}"
        )
    return ok(f"{name} {dotted(have)}")


def answer_time(host: Host) -> Result:
    began = time.monotonic()
    host.hypervisor.connection.call_fresh("getCapabilities")
    host.hypervisor.power_states()
    took = (time.monotonic() - began) * 1000
    if took < _SLOW_MS:
        return ok(f"{took:.0f} ms for capabilities and the states of all domains")
    return warn(
        f"{took:.0f} ms for capabilities and the states of all domains",
        "check the permissions of /dev/kvm and the log of libvirtd",
    )


def virtualization(host: Host) -> Result:
    conf = host.conf.kvm
    kind = platform.choose_virt_type(
        host.hypervisor, conf.virt_type, fallback=conf.fallback_to_qemu
    )
    if kind == conf.virt_type:
        return ok(kind)
    return warn(f"{conf.virt_type} is configured, guests get {kind}", "see the lines above")


def cpu_settings(host: Host) -> Result:
    conf, hypervisor = host.conf, host.hypervisor
    capabilities = platform.guest_capabilities(
        hypervisor,
        conf.kvm.virt_type,
        conf.kvm.machine_type,
        fallback=conf.kvm.fallback_to_qemu,
    )
    kind, mode = capabilities.virt_type, conf.kvm_cpu.mode
    chooser = host_cpu.chooser(conf, hypervisor, capabilities)
    if kind != conf.kvm.virt_type and not host_cpu.is_possible(mode, capabilities):
        return warn(f"mode {mode} is not possible with {kind}", "set [kvm_cpu] mode")
    chosen = chooser.check_settings()
    missing = chooser.missing_security() if kind == "kvm" else ()
    shown = f"mode {mode}" + (f", {chosen.models[0]}" if chosen.models else "")
    if missing:
        return warn(
            f"{shown}; guests go without {', '.join(missing)}",
            "install the newest microcode and kernel of the host",
        )
    return ok(shown)


def nested(host: Host) -> Result:
    view, policy = NestedHost(host.sysroot).view(), host.conf.kvm_nested.policy
    if view.nested:
        if policy == "off":
            return ok(f"{view.module} grants it, no guest gets it (policy off)")
        return ok(f"{view.module}, policy {policy}")
    state = f"{view.module} does not grant it" if view.loaded else "no module of KVM is loaded"
    if policy == "off" or not host.wants_kvm():
        return ok(f"{state}, policy {policy}")
    return warn(f"{state}, policy {policy}", "kvmdriver host nested enable")


def iommu(host: Host) -> Result:
    try:
        found = sorted(os.listdir(host.path("/sys/class/iommu")))
    except OSError:
        found = []
    if found:
        return ok(f"{len(found)} units")
    return warn(
        "none is active: no devices can be passed to guests",
        "switch VT-d or AMD-Vi on in the firmware, and on Intel boot with intel_iommu=on",
    )


def hugepages(host: Host) -> Result:
    found = []
    directory = "/sys/kernel/mm/hugepages"
    try:
        sizes = sorted(os.listdir(host.path(directory)))
    except OSError:
        sizes = []
    for size in sizes:
        total = host.read(f"{directory}/{size}/nr_hugepages") or "0"
        if total != "0":
            free = host.read(f"{directory}/{size}/free_hugepages")
            found.append(f"{size.removeprefix('hugepages-')}: {free} of {total} free")
    return ok("; ".join(found) or "none reserved")


def clock(host: Host) -> Result:
    current = host.read("/sys/devices/system/clocksource/clocksource0/current_clocksource")
    if current == "tsc":
        return ok("tsc")
    return warn(
        f"the host's clock is {current or 'unknown'}: reading the time is slow in guests",
        "find out why the kernel distrusts the TSC: dmesg | grep -i tsc",
    )


def ksm(host: Host) -> Result:
    if host.read("/sys/kernel/mm/ksm/run") == "1":
        return warn(
            "on: guests can find out what others have in memory",
            "echo 2 > /sys/kernel/mm/ksm/run, unless all guests trust each other",
        )
    return ok("off")


def network(host: Host) -> Result:
    networks = host.hypervisor.networks()
    if host.hypervisor.connection.embedded:
        return ok("the embedded driver has no networks")
    if networks.get("default"):
        return ok("default is active")
    if "default" in networks:
        return warn(
            "default is not active", "virsh net-start default; virsh net-autostart default"
        )
    return warn(
        "there is no network default",
        "virsh net-define /usr/share/libvirt/networks/default.xml; virsh net-start default",
    )


def space(host: Host) -> Result:
    path = host.conf.kvm_storage.instances_path
    existing = path
    while not os.path.isdir(existing):
        existing = os.path.dirname(existing)
    free = shutil.disk_usage(existing).free // 1024**3
    if not os.access(existing, os.W_OK):
        return fail(f"{existing} cannot be written", f"chown it to the user of the agent: {path}")
    if free < _LOW_SPACE_GIB:
        return warn(
            f"{free} GiB free below {path}",
            "make room, or set [kvm_storage] instances_path to a larger file system",
        )
    how = (
        "copies of images are instant" if _reflinks(existing) else "no reflinks: copies take time"
    )
    return ok(f"{free} GiB free below {path}, {how}")


def _reflinks(directory: str) -> bool:
    """Try whether the file system can share the blocks of a copy."""
    try:
        with (
            tempfile.TemporaryFile(dir=directory) as source,
            tempfile.TemporaryFile(dir=directory) as target,
        ):
            source.write(b"x" * 4096)
            source.flush()
            fcntl.ioctl(target.fileno(), _FICLONE, source.fileno())
    except OSError:
        return False
    return True


def tls(host: Host) -> Result:
    wanted = ("ca-cert.pem", "server-cert.pem", "server-key.pem")
    missing = [name for name in wanted if not os.path.exists(host.path(f"/etc/pki/qemu/{name}"))]
    if not missing:
        return ok("/etc/pki/qemu is complete")
    return warn(
        f"/etc/pki/qemu lacks {', '.join(missing)}: moves of guests cannot be encrypted",
        "see https://wiki.qemu.org/Features/LiveMigrationTLS",
    )


def tools(_host: Host) -> Result:
    if shutil.which("qemu-img") is None:
        return fail("qemu-img is missing", "apt-get install qemu-utils (dnf install qemu-img)")
    return ok("qemu-img")


def systems(_host: Host) -> Result:
    found = OsDatabase().search("")
    return ok(f"libosinfo knows {len(found)} systems")


def nova(_host: Host) -> Result:
    """Nova loads drivers from its own package only: our shim must be found in there.

    A ``nova`` without ``__init__.py`` is not Nova but a directory that holds nothing else than the
    shim: a checkout of kvmdriver.
    """
    spec = importlib.util.find_spec("nova")
    if spec is None or spec.origin is None:
        return ok("not installed here")
    try:
        shim = importlib.util.find_spec("nova.virt.kvmdriver")
    except Exception as error:  # whatever the import of nova and nova.virt may raise
        return fail(
            f"nova is installed as {spec.origin}, but cannot be imported: {error}",
            "repair nova's installation until this works: python3 -c 'import nova.virt'",
        )
    if shim is None:
        return fail(
            "nova-compute cannot import nova.virt.kvmdriver",
            "install kvmdriver into nova's own environment, not editable, or link the file "
            "nova/virt/kvmdriver.py into nova's source tree",
        )
    if shutil.which("genisoimage") is None:
        return warn("nova makes config drives with genisoimage", "apt-get install genisoimage")
    return ok("nova-compute can import nova.virt.kvmdriver")


CHECKS: tuple[tuple[str, Callable[[Host], Result]], ...] = (
    ("CPU", cpu_flags),
    ("/dev/kvm", kvm_device),
    ("groups", groups),
    ("libvirt", libvirt_version),
    ("QEMU", qemu_version),
    ("time to answer", answer_time),
    ("virtualization", virtualization),
    ("CPU model", cpu_settings),
    ("nested", nested),
    ("IOMMU", iommu),
    ("hugepages", hugepages),
    ("clock", clock),
    ("KSM", ksm),
    ("network", network),
    ("instances", space),
    ("TLS", tls),
    ("tools", tools),
    ("libosinfo", systems),
    ("nova", nova),
)


def run(conf: cfg.ConfigOpts, hypervisor: Hypervisor, sysroot: str = "/") -> list[CheckView]:
    """Look at everything. A check that cannot be made fails with the reason."""
    host = Host(conf, hypervisor, sysroot)
    lines = []
    for name, check in CHECKS:
        try:
            result, found, remedy = check(host)
        except exception.KVMDriverError as error:
            result, found, remedy = "fail", error.message, error.remedy or ""
        except OSError as error:
            result, found, remedy = "fail", str(error), ""
        except Exception as error:  # one check that breaks must not hide the others
            LOG.debug("the check of %s broke", name, exc_info=True)
            result, found, remedy = "fail", f"{type(error).__name__}: {error}", ""
        lines.append(
            CheckView.model_validate(
                {"name": name, "result": result, "found": found, "remedy": remedy}
            )
        )
    return lines
