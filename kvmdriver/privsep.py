"""What needs root, and nothing else.

An agent that is root already does it itself; any other one through oslo.privsep's daemon.
"""

import contextlib
import os

from oslo_concurrency import processutils
from oslo_privsep import capabilities, priv_context

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

if os.geteuid() == 0:
    context.set_client_mode(False)
    modules.set_client_mode(False)


@context.entrypoint
def read_tail(path: str, size: int) -> bytes:
    """The last ``size`` bytes of a file that belongs to virtlogd or QEMU.

    :raises OSError: the file cannot be read.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as log:
        end = log.seek(0, os.SEEK_END)
        log.seek(max(0, end - size))
        return log.read(size)


@context.entrypoint
def entered_l2(pid: int) -> bool | None:
    """Whether the guest of a QEMU has ever run a virtual machine of its own.

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
