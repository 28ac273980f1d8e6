"""The QEMU driver inside our own process, for hosts where no libvirtd runs.

https://libvirt.org/drvqemu.html#embedded-driver: no virtual networks, one process at a time for a
root directory, and guests that outlive the process.
"""

import contextlib
import os
import socket
from urllib.parse import quote

from kvmdriver import exception

_SOCKET = "/run/libvirt/libvirt-sock"

# ROOT/lib/qemu/channel/target/domain-NNNNN-<20 characters>/org.qemu.guest_agent.0 has to fit
# into the 107 characters of a socket's path.
_ROOT_LENGTH = 25

# No virtlogd serves an embedded driver, and its guests belong to whoever runs it.
_QEMU_CONF = """stdio_handler = "file"
security_driver = "none"
cgroup_controllers = []
user = "+{uid}"
group = "+{gid}"
"""


def libvirtd_answers(path: str = _SOCKET) -> bool:
    """Return whether a libvirtd of the system listens."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as client:
        client.settimeout(5)
        client.connect(path)
        return True
    return False


def prepare(root: str) -> str:
    """Make the root directory of an embedded driver; its URI.

    :raises kvmdriver.exception.HypervisorUnavailable: the directory cannot be made.
    """
    if len(root) > _ROOT_LENGTH:
        raise exception.ConfigurationError(
            f"an embedded hypervisor's directory may have at most {_ROOT_LENGTH} characters",
            field="kvm_storage.instances_path",
            value=root,
            remedy="choose a shorter path: sockets of guests are made below it (unix(7), sun_path)",
        )
    path = os.path.join(root, "etc", "qemu.conf")
    try:
        os.makedirs(os.path.dirname(path), mode=0o711, exist_ok=True)
        if not os.path.exists(path):
            with open(path, "w") as config:
                config.write(_QEMU_CONF.format(uid=os.geteuid(), gid=os.getegid()))
    except OSError as error:
        raise exception.HypervisorUnavailable(
            f"no libvirtd answers, and the embedded one cannot use {root}: {error.strerror}",
            remedy="start libvirtd, or run as root",
        ) from None
    return f"qemu:///embed?root={quote(root)}"
