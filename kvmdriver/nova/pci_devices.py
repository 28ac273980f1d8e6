"""PCI devices that nova may give to guests: what nova's tracker reads."""

from typing import Any

from nova.objects import fields
from oslo_config import cfg

from kvmdriver.host import pci

_TYPES = {
    "standard": fields.PciDeviceType.STANDARD,
    "physical": fields.PciDeviceType.SRIOV_PF,
    "virtual": fields.PciDeviceType.SRIOV_VF,
    "vdpa": fields.PciDeviceType.VDPA,
}


def inventory(conf: cfg.ConfigOpts) -> list[dict[str, Any]]:
    """Return every PCI function of the host; none without [pci] device_spec, which selects them."""
    if not conf.pci.device_spec:
        return []
    return [_entry(device) for device in pci.devices()]


def _entry(device: pci.PciDevice) -> dict[str, Any]:
    entry: dict[str, Any] = {
        # libvirt's name of the node device
        "dev_id": "pci_" + device.address.replace(":", "_").replace(".", "_"),
        "address": device.address,
        "vendor_id": device.vendor,
        "product_id": device.product,
        "numa_node": device.numa_node,
        "label": f"label_{device.vendor}_{device.product}",
        "dev_type": _TYPES[device.kind],
    }
    if device.parent is not None:
        entry["parent_addr"] = device.parent
    if device.parent_interface is not None:
        entry["parent_ifname"] = device.parent_interface
    return entry
