"""PCI functions of the host, as the kernel shows them below /sys/bus/pci (sysfs-bus-pci(5))."""

import dataclasses
import os
from typing import Literal

from kvmdriver import exception

_PCI = "/sys/bus/pci/devices"
_VDPA = "/dev"


@dataclasses.dataclass(frozen=True)
class PciDevice:
    """A PCI function: an ordinary one, or one side of SR-IOV.

    ``vendor`` and ``product`` are four hexadecimal digits; ``parent`` is the address of a virtual
    function's physical function, ``parent_interface`` that one's network interface.
    """

    address: str
    vendor: str
    product: str
    kind: Literal["standard", "physical", "virtual", "vdpa"]
    numa_node: int | None = None
    parent: str | None = None
    parent_interface: str | None = None


def devices() -> list[PciDevice]:
    """Return all PCI functions of the host, by address."""
    return [_device(address) for address in sorted(_listdir(_PCI))]


def _device(address: str) -> PciDevice:
    root = os.path.join(_PCI, address)
    node = _read(root, "numa_node")
    kind: Literal["standard", "physical", "virtual", "vdpa"] = "standard"
    parent = parent_interface = None
    if os.path.exists(os.path.join(root, "physfn")):
        kind = "vdpa" if any(n.startswith("vdpa") for n in _listdir(root)) else "virtual"
        parent = os.path.basename(os.path.realpath(os.path.join(root, "physfn")))
        names = sorted(_listdir(os.path.join(_PCI, parent, "net")))
        parent_interface = names[0] if names else None
    elif _read(root, "sriov_totalvfs") not in ("", "0"):
        kind = "physical"
    return PciDevice(
        address=address,
        vendor=_read(root, "vendor").removeprefix("0x"),
        product=_read(root, "device").removeprefix("0x"),
        kind=kind,
        # the kernel says -1 where the firmware does not tell
        numa_node=int(node) if node.isdigit() else None,
        parent=parent,
        parent_interface=parent_interface,
    )


def _read(directory: str, name: str) -> str:
    try:
        with open(os.path.join(directory, name)) as file:
            return file.read().strip()
    except OSError:
        return ""


def interface_of(pci_address: str) -> str:
    """Name of the network interface of a PCI function (0000:81:00.1).

    :raises kvmdriver.exception.DeviceNotFound: it has none, or there is no such function.
    """
    try:
        return sorted(os.listdir(os.path.join(_PCI, pci_address, "net")))[0]
    except (OSError, IndexError):
        raise exception.DeviceNotFound(
            "the PCI function has no network interface here",
            field="pci_slot",
            value=pci_address,
            remedy="check that its driver is loaded: lspci -k",
        ) from None


def vdpa_path(pci_address: str) -> str:
    """Path of the vhost-vdpa device of a PCI function.

    :raises kvmdriver.exception.DeviceNotFound: it has none.
    """
    root = os.path.join(_PCI, pci_address)
    for directory in sorted(_listdir(root)):
        if directory.startswith("vdpa"):
            for name in sorted(_listdir(os.path.join(root, directory))):
                if name.startswith("vhost-vdpa-"):
                    return os.path.join(_VDPA, name)
    raise exception.DeviceNotFound(
        "the PCI function has no vDPA device here",
        field="pci_slot",
        value=pci_address,
        remedy="bind it to vhost_vdpa: vdpa dev add",
    )


def _listdir(path: str) -> list[str]:
    try:
        return os.listdir(path)
    except OSError:
        return []


def physical_function(pci_address: str) -> tuple[str, int]:
    """Network interface of a virtual function's physical function, and the former's number.

    :raises kvmdriver.exception.DeviceNotFound: it is no virtual function.
    """
    parent = os.path.realpath(os.path.join(_PCI, pci_address, "physfn"))
    for name in _listdir(parent):
        target = os.path.realpath(os.path.join(parent, name))
        if name.startswith("virtfn") and os.path.basename(target) == pci_address:
            return interface_of(os.path.basename(parent)), int(name.removeprefix("virtfn"))
    raise exception.DeviceNotFound(
        "the PCI function is no virtual function",
        field="pci_slot",
        value=pci_address,
        remedy="check [pci] device_spec",
    )
