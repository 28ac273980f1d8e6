"""The ``nova:instance`` element that people and monitoring find in a domain's metadata.

Its form is that of Nova's in-tree driver (doc/source/reference/libvirt-metadata in nova, schema
1.1), so that tools that read it go on working.
"""

import datetime
from typing import Any

from lxml import etree
from nova import version
from nova.objects.instance import Instance as NovaInstance

from kvmdriver.nova.flavor import specs_of
from kvmdriver.nova.image_meta import field

NAMESPACE = "http://openstack.org/xmlns/libvirt/nova/1.1"


def _add(parent: etree._Element, tag: str, text: Any = None, **attributes: Any) -> etree._Element:
    node = etree.SubElement(parent, f"{{{NAMESPACE}}}{tag}")
    if text is not None:
        node.text = str(text)
    for name, value in attributes.items():
        node.set(name, str(value))
    return node


def element(context: Any, instance: NovaInstance, network_info: Any) -> etree._Element:
    """Return the metadata of an instance."""
    root = etree.Element(f"{{{NAMESPACE}}}instance", nsmap={"nova": NAMESPACE})
    _add(root, "package", version=version.version_string_with_package())
    _add(root, "name", instance.display_name)
    _add(root, "creationTime", datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M:%S"))
    _flavor(root, instance.flavor)
    if instance.image_ref:
        _image(root, instance)
    owner = _add(root, "owner")
    _add(owner, "user", getattr(context, "user_name", None), uuid=instance.user_id)
    _add(owner, "project", getattr(context, "project_name", None), uuid=instance.project_id)
    if instance.image_ref:
        _add(root, "root", type="image", uuid=instance.image_ref)
    ports = _add(root, "ports")
    for vif in network_info or ():
        port = _add(ports, "port", uuid=vif.get("id"))
        for address in vif.fixed_ips():
            _add(
                port,
                "ip",
                type=address.get("type", "fixed"),
                address=address["address"],
                ipVersion=address.get("version", 4),
            )
    return root


def _flavor(root: etree._Element, flavor: Any) -> None:
    node = _add(root, "flavor", name=flavor.name)
    if "flavorid" in flavor and flavor.flavorid:
        node.set("id", flavor.flavorid)
    for tag, value in (
        ("memory", flavor.memory_mb),
        ("disk", flavor.root_gb),
        ("swap", flavor.swap),
        ("ephemeral", flavor.ephemeral_gb),
        ("vcpus", flavor.vcpus),
    ):
        _add(node, tag, value)
    specs = _add(node, "extraSpecs")
    for name, text in sorted(specs_of(flavor).items()):
        _add(specs, "extraSpec", text, name=name)


def _image(root: etree._Element, instance: NovaInstance) -> None:
    meta = instance.image_meta
    node = _add(root, "image", uuid=instance.image_ref)
    for tag, value in (
        ("containerFormat", field(meta, "container_format")),
        ("diskFormat", field(meta, "disk_format")),
        ("minDisk", field(meta, "min_disk")),
        ("minRam", field(meta, "min_ram")),
    ):
        if value is not None:
            _add(node, tag, value)
    properties = _add(node, "properties")
    for name, text in sorted(meta.properties.to_dict().items()):
        _add(properties, "property", text, name=name)
