"""Capabilities of the driver; each becomes a trait of the host in placement."""

from nova.virt import driver as nova_driver

from kvmdriver.nova.node import Node

# What is not named here is False, which is what nova's base class says.
CAPABILITIES = {
    **nova_driver.ComputeDriver.capabilities,
    "has_imagecache": True,
    "supports_evacuate": True,
    "supports_attach_interface": True,
    "supports_device_tagging": True,
    "supports_tagged_attach_interface": True,
    "supports_tagged_attach_volume": True,
    "supports_extend_volume": True,
    "supports_multiattach": True,
    "supports_trusted_certs": True,
    "supports_pcpus": True,
    "supports_bfv_rescue": True,
    "supports_image_type_aki": True,
    "supports_image_type_ami": True,
    "supports_image_type_ari": True,
    "supports_image_type_iso": True,
    "supports_image_type_qcow2": True,
    "supports_image_type_raw": True,
    "supports_image_type_vdi": True,
    "supports_image_type_vhd": True,
    "supports_image_type_vhdx": True,
    "supports_image_type_vmdk": True,
}


def of_host(node: Node) -> dict[str, bool]:
    """Return the capabilities, with those that depend on the host and its configuration."""
    return {
        **CAPABILITIES,
        "supports_secure_boot": _secure_boot(node),
        "supports_mem_backing_file": bool(node.conf.libvirt.file_backed_memory),
    }


def _secure_boot(node: Node) -> bool:
    """Return whether guests can have secure boot: with q35, whatever the default machine type is."""
    q35 = node.hypervisor.host_capabilities().machines.get("q35")
    return q35 is not None and node.capabilities(q35).secure_boot
