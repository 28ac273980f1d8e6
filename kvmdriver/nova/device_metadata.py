"""Tags of devices, with the addresses where a guest finds the devices.

The guest reads them from its metadata (``devices`` in meta_data.json), see
https://docs.openstack.org/nova/latest/user/metadata.html.
"""

from typing import Any

from lxml import etree
from nova import block_device, objects
from nova.objects.instance import Instance as NovaInstance
from nova.virt import netutils

from kvmdriver.hypervisor import xml
from kvmdriver.hypervisor.domain import Domain


def build(
    context: Any, instance: NovaInstance, domain: Domain
) -> objects.InstanceDeviceMetadata | None:
    """Return the tagged devices of an instance; None if there are none."""
    network_info = instance.info_cache.network_info if instance.info_cache else []
    vlans = netutils.get_cached_vifs_with_vlan(network_info)
    trusted = netutils.get_cached_vifs_with_trusted(network_info)
    vifs = objects.VirtualInterfaceList.get_by_instance_uuid(context, instance.uuid)
    tags = {vif.address: vif.tag for vif in vifs if "tag" in vif and vif.tag}
    bdms = objects.BlockDeviceMappingList.get_by_instance_uuid(context, instance.uuid)
    tagged = {block_device.strip_dev(bdm.device_name): bdm.tag for bdm in bdms if bdm.tag}
    root = domain.xml()
    devices: list[Any] = []
    for node in root.iterfind("devices/interface"):
        mac = xml.attribute(node, "mac", "address")
        if mac in tags or vlans.get(mac):
            device = objects.NetworkInterfaceMetadata(
                mac=mac, bus=_bus(node), tags=[tags[mac]] if mac in tags else []
            )
            if vlans.get(mac):
                device.vlan = int(vlans[mac])
            device.vf_trusted = trusted.get(mac, "false").lower() == "true"
            devices.append(device)
    for node in root.iterfind("devices/disk"):
        name = xml.attribute(node, "target", "dev")
        if name in tagged:
            device = objects.DiskMetadata(bus=_bus(node), tags=[tagged[name]])
            serial = node.findtext("serial")
            if serial:
                device.serial = serial
            path = xml.attribute(node, "source", "dev")
            if path:
                device.path = path
            devices.append(device)
    return objects.InstanceDeviceMetadata(devices=devices) if devices else None


def _bus(node: etree._Element) -> Any:
    """Return the address where the guest finds the device."""
    address = node.find("address")
    if address is None:
        return objects.DeviceBus()
    if address.get("type") == "pci":
        text = "{:04x}:{:02x}:{:02x}.{:x}".format(
            *(int(address.get(name, "0"), 16) for name in ("domain", "bus", "slot", "function"))
        )
        return objects.PCIDeviceBus(address=text)
    if address.get("type") == "drive":
        text = ":".join(address.get(name, "0") for name in ("controller", "bus", "target", "unit"))
        kind = xml.attribute(node, "target", "bus")
        return (
            objects.SCSIDeviceBus(address=text)
            if kind == "scsi"
            else (objects.IDEDeviceBus(address=text))
        )
    if address.get("type") == "usb":
        return objects.USBDeviceBus(
            address=f"{address.get('bus', '0')}:{address.get('port', '0')}"
        )
    return objects.DeviceBus()
