"""Guest memory and memory modules (https://libvirt.org/formatdomain.html#memory-allocation)."""

from lxml import etree

from kvmdriver.definition.platform import Platform
from kvmdriver.definition.xml import add, element
from kvmdriver.model import DIMM_MIB, Instance

DIMM_SLOTS = 16


def build_memory(domain: etree._Element, instance: Instance, _platform: Platform) -> None:
    memory = instance.memory
    assert memory is not None  # noqa: S101 the driver has chosen one by now
    if memory.growth == "hotplug":
        add(domain, "maxMemory", memory.maximum_mib, slots=DIMM_SLOTS, unit="MiB")
        add(domain, "memory", memory.current_mib, unit="MiB")
    else:
        add(domain, "memory", memory.maximum_mib, unit="MiB")
    add(domain, "currentMemory", memory.current_mib, unit="MiB")


def dimm(size_mib: int) -> etree._Element:
    """Return a memory module to plug in; its size must be a multiple of 128 MiB."""
    if size_mib % DIMM_MIB:
        raise ValueError(f"{size_mib} MiB is not a multiple of {DIMM_MIB}")
    module = element("memory", model="dimm")
    target = add(module, "target")
    add(target, "size", size_mib, unit="MiB")
    add(target, "node", 0)
    return module
