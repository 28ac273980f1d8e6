"""What libvirt, QEMU and KVM together can give to a guest as its CPU.

All questions name emulator, machine type and virtualization type: KVM grants other features than
emulation does (https://libvirt.org/html/libvirt-libvirt-host.html, the ...HypervisorCPU calls).
"""

import re
from collections.abc import Sequence

import libvirt
from lxml import etree

from kvmdriver import exception
from kvmdriver.hypervisor import xml
from kvmdriver.hypervisor.capabilities import DomainCapabilities, cpu_definition
from kvmdriver.hypervisor.connection import Connection
from kvmdriver.model import CpuDefinition

# libvirt's only way to name them: "...does not provide required features: vme, vmx"
_MISSING = re.compile(r"features: (.+)$")


class HypervisorCpu:
    """Answers for one kind of guest; each is asked of libvirt once."""

    def __init__(
        self, connection: Connection, architecture: str, capabilities: DomainCapabilities
    ):
        self._connection = connection
        self._where = (
            capabilities.emulator,
            architecture,
            capabilities.machine,
            capabilities.virt_type,
        )
        self.capabilities = capabilities
        self._expanded: dict[CpuDefinition, frozenset[str]] = {}
        self._missing: dict[CpuDefinition, tuple[str, ...]] = {}

    def features(self, definition: CpuDefinition) -> frozenset[str]:
        """Return all flags of a CPU: those of its model with what is added and taken away.

        :raises kvmdriver.exception.Unsupported: libvirt cannot tell, e.g. without any usable model.
        """
        if definition not in self._expanded:
            full = self._baseline([definition], libvirt.VIR_CONNECT_BASELINE_CPU_EXPAND_FEATURES)
            self._expanded[definition] = frozenset(full.required)
        return self._expanded[definition]

    def granted(self) -> frozenset[str]:
        """Return all flags that a guest can have here, by what mode host-model gives.

        Empty where libvirt knows no host-model.
        """
        host = self.capabilities.host_model
        return self.features(host) if host is not None else frozenset()

    def missing(self, definition: CpuDefinition) -> tuple[str, ...]:
        """Return the flags of a CPU that a guest cannot have here; none if the CPU can be had.

        :raises kvmdriver.exception.KVMDriverError: libvirt does not know the model or a flag.
        """
        if definition not in self._missing:
            self._missing[definition] = self._compare(definition)
        return self._missing[definition]

    def _compare(self, definition: CpuDefinition) -> tuple[str, ...]:
        try:
            self._connection.call_fresh(
                "compareHypervisorCPU",
                *self._where,
                to_xml(definition),
                libvirt.VIR_CONNECT_COMPARE_CPU_FAIL_INCOMPATIBLE,
            )
        except exception.CpuIncompatible as error:
            found = _MISSING.search(error.message)
            # a CPU of another vendor has no flag to blame
            return tuple(found.group(1).split(", ")) if found else (error.message,)
        return ()

    def is_identical(self, definition: CpuDefinition) -> bool:
        """Return whether a CPU is exactly what mode host-model gives here."""
        answer = self._connection.call_fresh(
            "compareHypervisorCPU", *self._where, to_xml(definition), 0
        )
        return bool(answer == libvirt.VIR_CPU_COMPARE_IDENTICAL)

    def baseline(
        self, definitions: Sequence[CpuDefinition], *, migratable: bool = True
    ) -> CpuDefinition:
        """Return the best CPU that all of the given ones contain.

        :param migratable: without flags that would keep guests from migrating.
        :raises kvmdriver.exception.KVMDriverError: they have nothing in common.
        """
        vendors = {d.vendor for d in definitions if d.vendor}
        if len(vendors) > 1:
            raise exception.CpuIncompatible(
                "CPUs of several vendors have no baseline: guests cannot migrate between them",
                field="cpus",
                value=", ".join(sorted(vendors)),
                remedy="make a baseline for the hosts of each vendor",
            )
        flags = libvirt.VIR_CONNECT_BASELINE_CPU_MIGRATABLE if migratable else 0
        return self._baseline(definitions, flags)

    def _baseline(self, definitions: Sequence[CpuDefinition], flags: int) -> CpuDefinition:
        text = self._connection.call_fresh(
            "baselineHypervisorCPU", *self._where, [to_xml(d) for d in definitions], flags
        )
        return cpu_definition(xml.parse(text))


def to_xml(definition: CpuDefinition) -> str:
    """Return a CPU as libvirt's comparisons take it."""
    cpu = etree.Element("cpu", mode="custom", match="exact")
    etree.SubElement(cpu, "model", fallback="forbid").text = definition.model
    if definition.vendor:
        etree.SubElement(cpu, "vendor").text = definition.vendor
    for feature in definition.features:
        etree.SubElement(cpu, "feature", policy=feature.policy, name=feature.name)
    return xml.to_string(cpu)
