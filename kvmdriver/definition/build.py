"""From an instance to its domain XML: an ordered list of small builders, each for one concern."""

from collections.abc import Callable

from lxml import etree

from kvmdriver.definition import boot, consoles, cpu, devices, disks, memory, nics, tuning
from kvmdriver.definition.platform import Platform
from kvmdriver.definition.xml import add, element
from kvmdriver.model import Instance

Builder = Callable[[etree._Element, Instance, Platform], None]

DOMAIN_BUILDERS: tuple[Builder, ...] = (
    memory.build_memory,
    tuning.build_memory_backing,
    tuning.build_limits,
    cpu.build_vcpus,
    tuning.build_cpu_tune,
    tuning.build_numa_tune,
    boot.build_os,
    tuning.build_system,
    boot.build_features,
    cpu.build_cpu,
    boot.build_clock,
    boot.build_reactions,
)

DEVICE_BUILDERS: tuple[Builder, ...] = (
    devices.build_controllers,
    disks.build_disks,
    nics.build_nics,
    consoles.build_serial,
    devices.build_channel,
    consoles.build_graphics,
    devices.build_watchdog,
    devices.build_balloon,
    devices.build_rng,
)


def domain_xml(
    instance: Instance, platform: Platform, metadata: etree._Element | None = None
) -> etree._Element:
    """Return the ``<domain>`` of an instance for which everything has been chosen.

    Pure: the same arguments give the same XML.

    :param metadata: an element to keep below ``<metadata>``.
    """
    domain = element("domain", type=instance.virt_type)
    add(domain, "name", instance.name)
    add(domain, "uuid", instance.uuid)
    if metadata is not None:
        add(domain, "metadata").append(metadata)
    for build in DOMAIN_BUILDERS:
        build(domain, instance, platform)
    parts = add(domain, "devices")
    if platform.emulator:
        add(parts, "emulator", platform.emulator)
    for build in DEVICE_BUILDERS:
        build(parts, instance, platform)
    return domain
