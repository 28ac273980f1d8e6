"""What becomes of a domain's XML when the domain moves to another host. Pure.

The destination makes the persistent definition anew, from the model, and only takes over where
the devices sit, so that a guest finds them in their places after its next start. What runs on
there is the source's running definition with all that belongs to a host replaced by what the
destination has made (https://libvirt.org/html/libvirt-libvirt-domain.html#virDomainMigrateToURI3:
the parts that a guest can see must stay as they are).
"""

import copy
from collections.abc import Callable, Iterator

from lxml import etree

Key = tuple[str, ...]

# Elements below <devices> that the host decides on, and what tells one from another.
_HOSTS_OWN: dict[str, tuple[str, ...]] = {
    "disk": ("source", "driver", "iotune"),
    "interface": ("source", "bandwidth", "virtualport", "target", "vlan"),
    "serial": ("source", "log"),
    "console": ("source", "log"),
    "channel": ("source",),
    "graphics": ("listen",),
}


# Devices that an instance's model has each by its own, and those that it or libvirt adds, none of
# which refers to anything of the host.
_OF_THE_MODEL = ("disk", "interface")
_HARMLESS = (
    "emulator", "controller", "serial", "console", "channel", "input", "graphics", "audio", "video",
    "watchdog", "memballoon", "rng", "hub", "panic", "memory",
)  # fmt: skip


def with_addresses(fresh: etree._Element, old: etree._Element) -> etree._Element:
    """Return a definition made from the model, with its devices at the addresses that they had.

    Controllers that only libvirt had added are added again, as the addresses refer to them.

    :param old: the definition on the source; nothing else is taken from it.
    """
    result = copy.deepcopy(fresh)
    devices, former = result.find("devices"), old.find("devices")
    if devices is None or former is None:
        return result
    known: dict[Key, etree._Element] = dict(_keyed(devices))
    for key, node in _keyed(former):
        address = node.find("address")
        if key in known:
            if address is not None and known[key].find("address") is None:
                known[key].append(_plain_copy(address))
        elif node.tag == "controller":
            devices.append(_controller(node))
    return result


def foreign_devices(fresh: etree._Element, old: etree._Element) -> list[str]:
    """Devices of a definition that the instance has not, so that they would be lost; each named.

    What libvirt adds by itself, as controllers, is not among them.

    :param fresh: the definition that is made from the model.
    :param old: the definition on the source.
    """
    devices, former = fresh.find("devices"), old.find("devices")
    if devices is None or former is None:
        return []
    known = {key for key, _node in _keyed(devices)}
    found = []
    for key, node in _keyed(former):
        if node.tag in _OF_THE_MODEL:
            if key not in known:
                found.append(" ".join(key))
        elif node.tag not in _HARMLESS:
            found.append(str(node.tag))
    return found


def live_definition(running: etree._Element, prepared: etree._Element) -> etree._Element:
    """Return what the destination runs: the running guest, on what that host has prepared for it.

    :param running: the migratable XML of the source.
    :param prepared: the definition that waits on the destination.
    """
    result = copy.deepcopy(running)
    _replace(result, prepared, "metadata")
    _replace(result, prepared, "cputune")
    _replace(result, prepared, "numatune")
    _replace(result, prepared, "memoryBacking")
    for name in ("kernel", "initrd", "nvram"):
        _replace_text(result.find("os"), prepared.find("os"), name)
    devices, others = result.find("devices"), prepared.find("devices")
    if devices is None or others is None:
        return result
    _replace_text(devices, others, "emulator")
    replace_hosts_own(devices, others)
    return result


def replace_hosts_own(devices: etree._Element, others: etree._Element) -> None:
    """Give devices what the other host has decided on; those that it has not are left alone."""
    theirs: dict[Key, etree._Element] = dict(_keyed(others))
    for key, node in _keyed(devices):
        if key not in theirs:
            continue
        other = theirs[key]
        if node.tag in ("disk", "interface"):
            _take_attribute(node, other, "type")
        for name in _HOSTS_OWN.get(str(node.tag), ()):
            _replace(node, other, name)
        if node.tag == "graphics":
            # the ports of the source may be taken there
            node.set("autoport", "yes")
            for attribute in ("port", "tlsPort", "websocket"):
                if attribute in node.attrib:
                    node.set(attribute, "-1")
            _take_attribute(node, other, "listen")


def _keyed(devices: etree._Element) -> Iterator[tuple[Key, etree._Element]]:
    """Devices with what identifies them on both hosts."""
    counts: dict[str, int] = {}
    for node in devices:
        tag = str(node.tag)
        counts[tag] = counts.get(tag, -1) + 1
        identify = _IDENTITY.get(tag)
        identity = identify(node) if identify else None
        yield (tag, *(identity or (str(counts[tag]),))), node


def _attribute(path: str, *names: str) -> Callable[[etree._Element], tuple[str, ...] | None]:
    def read(node: etree._Element) -> tuple[str, ...] | None:
        found = node if path == "." else node.find(path)
        values = tuple(found.get(name, "") for name in names) if found is not None else ()
        return values if any(values) else None

    return read


_IDENTITY: dict[str, Callable[[etree._Element], tuple[str, ...] | None]] = {
    "disk": _attribute("target", "dev"),
    "interface": _attribute("mac", "address"),
    "controller": _attribute(".", "type", "index"),
    "graphics": _attribute(".", "type"),
    "channel": _attribute("target", "name"),
    "serial": _attribute("target", "port"),
    "console": _attribute("target", "port"),
    "input": _attribute(".", "type", "bus"),
}


def _controller(node: etree._Element) -> etree._Element:
    """Return a controller as libvirt had made it, without its name in the running guest."""
    plain = etree.Element("controller")
    for name in ("type", "index", "model", "ports"):
        if name in node.attrib:
            plain.set(name, str(node.get(name)))
    for child in node:
        if child.tag in ("model", "target", "address"):
            plain.append(_plain_copy(child))
    return plain


def _plain_copy(node: etree._Element) -> etree._Element:
    """Return a copy of an element's attributes; content, of which addresses have none, is left out."""
    return etree.Element(
        str(node.tag), {str(name): str(value) for name, value in node.attrib.items()}
    )


def _replace(node: etree._Element, other: etree._Element, name: str) -> None:
    """Put the other's child of that name in the place of ours, be it there or not."""
    ours, theirs = node.find(name), other.find(name)
    if theirs is not None:
        theirs = copy.deepcopy(theirs)
    if ours is not None and theirs is not None:
        node.replace(ours, theirs)
    elif ours is not None:
        node.remove(ours)
    elif theirs is not None:
        node.append(theirs)


def _replace_text(node: etree._Element | None, other: etree._Element | None, name: str) -> None:
    if node is None or other is None:
        return
    ours, theirs = node.find(name), other.find(name)
    if ours is not None and theirs is not None:
        ours.text = theirs.text


def _take_attribute(node: etree._Element, other: etree._Element, name: str) -> None:
    if other.get(name) is not None:
        node.set(name, str(other.get(name)))
