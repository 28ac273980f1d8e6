"""What needs root, and nothing else.

An agent that is root already does it itself; any other one through oslo.privsep's daemon.
"""

import contextlib
import os
import re
import select
import signal
import stat

from oslo_concurrency import processutils
from oslo_config import cfg
from oslo_privsep import capabilities, priv_context

from kvmdriver import conf as options
from kvmdriver.model.base import NAME_PATTERN, is_uuid

context = priv_context.PrivContext(
    "kvmdriver",
    cfg_section="kvm_privsep",
    pypath=__name__ + ".context",
    capabilities=[capabilities.CAP_DAC_READ_SEARCH],
)

# one directory for each guest with KVM, PID-DESCRIPTOR
KVM_STATISTICS = "/sys/kernel/debug/kvm"

# apart: reading logs needs far less than loading modules
modules = priv_context.PrivContext(
    "kvmdriver",
    cfg_section="kvm_privsep_modules",
    pypath=__name__ + ".modules",
    capabilities=[capabilities.CAP_DAC_OVERRIDE, capabilities.CAP_SYS_MODULE],
)

# apart: the only process that may send signals to QEMU
processes = priv_context.PrivContext(
    "kvmdriver",
    cfg_section="kvm_privsep_processes",
    pypath=__name__ + ".processes",
    capabilities=[capabilities.CAP_KILL],
)

if os.geteuid() == 0:
    context.set_client_mode(False)
    modules.set_client_mode(False)
    processes.set_client_mode(False)


# virtlogd adds a number to the names of older logs
_CONSOLE_LOG = re.compile(r"console\.log(\.[0-9]{1,4})?")
PID_FILES = "/run/libvirt/qemu"
HOST_CONFIG = "/etc/kvmdriver/kvmdriver.conf"
# as long as libvirt waits for each of the two signals (virProcessKillPainfully)
_END_SECONDS = 10.0
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def read_tail(path: str, size: int) -> bytes:
    """Return the last ``size`` bytes of a console log.

    virtlogd makes the log for root alone. The QEMU of an embedded hypervisor makes it for our user.

    :raises OSError: the file cannot be read.
    :raises oslo_privsep.daemon.FailedToDropPrivileges: the privileged process does not start.
    """
    try:
        return _tail(*os.path.split(path), size)
    except PermissionError:
        if os.geteuid() == 0:
            raise
    return read_console_log(path, size)


@context.entrypoint
def read_console_log(path: str, size: int) -> bytes:
    """``read_tail`` by the privileged process, which reads no other files.

    The directory of instances is the configured one, since the caller may have been taken over.

    :raises OSError: the file cannot be read, or is no console log of an instance.
    """
    directory, name = os.path.split(path)
    root, uuid = os.path.split(directory)
    if root not in _roots() or not is_uuid(uuid) or not _CONSOLE_LOG.fullmatch(name):
        raise PermissionError(f"{path} is not the console log of an instance")
    return _tail(directory, name, size)


def _roots() -> set[str]:
    """Return the directories of instances, ours and nova's.

    By the configuration that this process was started with, which sudo's rules or rootwrap's
    filters fix, and by that of the host: a command line without an agent passes on no file.
    """
    conf = options.register_opts(cfg.CONF)
    host = options.register_opts(cfg.ConfigOpts())
    host([], default_config_files=[path for path in (HOST_CONFIG,) if os.path.exists(path)])
    # nova's own registers both with the same meaning
    for name, default in (("state_path", "/var/lib/nova"), ("instances_path", None)):
        with contextlib.suppress(cfg.DuplicateOptError):
            conf.register_opt(cfg.StrOpt(name, default=default))
    nova = conf.instances_path or os.path.join(conf.state_path, "instances")
    paths = (nova, conf.kvm_storage.instances_path, host.kvm_storage.instances_path)
    return {os.path.abspath(path) for path in paths}


def _tail(directory: str, name: str, size: int) -> bytes:
    place = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        descriptor = os.open(name, _READ, dir_fd=place)
    finally:
        os.close(place)
    with os.fdopen(descriptor, "rb") as log:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise PermissionError(f"{name} is not a regular file")
        end = log.seek(0, os.SEEK_END)
        log.seek(max(0, end - size))
        return log.read(size)


@context.entrypoint
def qemu_pid(name: str) -> int:
    """Return the process of a running domain, as libvirt has noted it.

    :raises OSError: there is none.
    :raises ValueError: the file has no number.
    """
    if not re.fullmatch(NAME_PATTERN, name):
        raise PermissionError(f"{name} is not the name of an instance")
    return int(_tail(PID_FILES, f"{name}.pid", 20))


def is_qemu_of(pid: int, uuid: str) -> bool:
    """Return whether a process is the QEMU of a guest, by its command line, which every user may read."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            words = file.read().split(b"\0")
    except OSError:
        return False
    return b"qemu" in os.path.basename(words[0]) and (b"-uuid", uuid.encode()) in zip(
        words, words[1:], strict=False
    )


@processes.entrypoint
def end_qemu(pid: int, uuid: str) -> bool:
    """End the QEMU of a guest: SIGTERM, and SIGKILL when that has no effect.

    :returns: whether the process has ended; True also when there was no such QEMU.
    """
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        # looked at once the descriptor pins the process: a number may come again
        if not is_qemu_of(pid, uuid):
            return True
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(descriptor, number)
            if select.select([descriptor], [], [], _END_SECONDS)[0]:
                return True
    finally:
        os.close(descriptor)
    return False


@context.entrypoint
def entered_l2(pid: int) -> bool | None:
    """Return whether the guest of a QEMU has ever run a virtual machine of its own.

    From ``nested_run``, which counts entries for each vCPU (struct kvm_vcpu_stat in the kernel).
    None where the kernel does not export it.
    """
    try:
        machines = [name for name in os.listdir(KVM_STATISTICS) if name.startswith(f"{pid}-")]
    except OSError:
        return None
    counts = []
    for machine in machines:
        directory = os.path.join(KVM_STATISTICS, machine)
        for vcpu in os.listdir(directory):
            path = os.path.join(directory, vcpu, "nested_run")
            if vcpu.startswith("vcpu") and os.path.exists(path):
                with open(path) as file:
                    counts.append(int(file.read()))
    return any(counts) if counts else None


@modules.entrypoint
def write_module_options(path: str, text: str | None) -> None:
    """Write a file below /etc/modprobe.d, or remove it.

    :raises OSError: it cannot be written, or lies elsewhere.
    """
    if os.path.dirname(path) != "/etc/modprobe.d":
        raise PermissionError(f"{path} is not in /etc/modprobe.d")
    replace_file(path, text)


@modules.entrypoint
def modprobe(arguments: list[str]) -> None:
    """Load or unload a module of KVM.

    :raises oslo_concurrency.processutils.ProcessExecutionError: the kernel refuses.
    """
    if arguments[-1] not in ("kvm_intel", "kvm_amd") or arguments[:-1] not in ([], ["-r"]):
        raise PermissionError(f"modprobe {arguments} is not for us to run")
    processutils.execute("modprobe", *arguments)


def replace_file(path: str, text: str | None) -> None:
    """Write a file so that nobody ever sees half of it; with None remove it."""
    if text is None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        return
    os.makedirs(os.path.dirname(path), exist_ok=True)
    new = path + ".new"
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.rename(new, path)
