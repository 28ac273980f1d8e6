"""A QEMU that still runs although libvirt has its domain switched off.

A libvirtd that dies while it ends a block copy leaves a file about the running domain that the next
libvirtd cannot read (libvirt 9.0.0 writes ``<mirror job=''/>`` and refuses it). The guest runs on
without anybody who manages it, and libvirt would start a second one: only QEMU's locks on the disks
keep that from writing. libvirt's file with the process id stays as well, and tells of the guest.
"""

import logging
import os

from oslo_privsep.daemon import FailedToDropPrivileges

from kvmdriver import exception, privsep

LOG = logging.getLogger(__name__)


def find(name: str, uuid: str) -> int | None:
    """Return the process id of the QEMU of a domain that libvirt has switched off; None without one."""
    # libvirt removes the file when a domain ends
    if not os.path.exists(os.path.join(privsep.PID_FILES, f"{name}.pid")):
        return None
    try:
        pid = privsep.qemu_pid(name)
    except (OSError, ValueError):
        return None
    except FailedToDropPrivileges as error:
        LOG.warning("%s: whether its QEMU still runs cannot be told: %s", name, error)
        return None
    return pid if privsep.is_qemu_of(pid, uuid) else None


def require_none(name: str, uuid: str) -> None:
    """Make sure that a domain which is off may be started.

    :raises kvmdriver.exception.InvalidState: its QEMU still runs.
    """
    pid = find(name, uuid)
    if pid is not None:
        raise exception.InvalidState(
            f"libvirt has lost the instance, whose QEMU still runs as process {pid}",
            field="status",
            value="stopped",
            instance=name,
            remedy="shut the guest down from inside if you can; then: kvmdriver server stop NAME",
        )


def end(name: str, uuid: str) -> None:
    """End the QEMU of a domain that libvirt has switched off, if it still runs.

    :raises kvmdriver.exception.HypervisorError: the process does not end.
    """
    pid = find(name, uuid)
    if pid is None:
        return
    LOG.warning("%s: libvirt has lost its QEMU, process %d, which is ended now", name, pid)
    if not privsep.end_qemu(pid, uuid):
        raise exception.HypervisorError(
            f"the QEMU of the instance, process {pid}, does not end",
            instance=name,
            remedy=f"look for the reason in /proc/{pid}/stack and in the kernel's log",
        )
