"""Hosts whose CPUs are written down: what libvirt would say of them.

The flags are a few of each model's, from libvirt's src/cpu_map and QEMU's target/i386/cpu.c.
"""

from typing import Any

from kvmdriver import exception
from kvmdriver.host.cpu import CpuChooser, CpuSettings
from kvmdriver.hypervisor.capabilities import DomainCapabilities
from kvmdriver.model import CpuDefinition, CpuFeature

_COMMON = {"sse2", "pni", "cx16", "nx", "lm"}
MODELS: dict[str, tuple[str, set[str]]] = {
    "qemu64": ("unknown", _COMMON | {"svm"}),
    "Westmere": ("Intel", _COMMON | {"aes", "sse4.2"}),
    "Skylake-Client": ("Intel", _COMMON | {"aes", "sse4.2", "avx2", "pcid"}),
    "EPYC": ("AMD", _COMMON | {"aes", "sse4.2", "avx2", "svm", "sha-ni"}),
}
MODES = ("host-model", "host-passthrough", "maximum", "custom")


class WrittenDown:
    """In place of ``HypervisorCpu``: the same answers from the table above."""

    def __init__(
        self,
        model: str,
        extra: set[str],
        virt_type: str = "kvm",
        modes: Any = MODES,
        without: frozenset[str] = frozenset(),
    ):
        self._granted = (MODELS[model][1] | extra) - without
        self.capabilities = DomainCapabilities(
            emulator="/usr/bin/qemu-system-x86_64",
            machine="pc-q35-7.2",
            virt_type=virt_type,
            max_vcpus=255,
            firmwares=frozenset(),
            secure_boot=False,
            cpu_modes=frozenset(modes),
            cpu_models={name: flags <= self._granted for name, (_, flags) in MODELS.items()},
            cpu_vendors={name: vendor for name, (vendor, _) in MODELS.items()},
            video_models=frozenset(),
            rng=True,
            host_model=CpuDefinition(
                model=model,
                features=(
                    *(CpuFeature(name=name) for name in sorted(extra)),
                    *(CpuFeature(name=name, policy="disable") for name in sorted(without)),
                ),
            ),
        )
        # KVM's default CPU is qemu64 without svm
        if virt_type == "kvm":
            self.capabilities.cpu_models["qemu64"] = True  # type: ignore[index]

    def granted(self) -> frozenset[str]:
        return frozenset(self._granted)

    def features(self, definition: CpuDefinition) -> frozenset[str]:
        off = {f.name for f in definition.features if f.policy == "disable"}
        return frozenset((MODELS[definition.model][1] | definition.required) - off)

    def missing(self, definition: CpuDefinition) -> tuple[str, ...]:
        unknown = definition.required & {"no-such"}
        if unknown:
            raise exception.HypervisorError(f"Unknown CPU feature {unknown.pop()}")
        return tuple(sorted(self.features(definition) - self._granted))


HOSTS: dict[str, tuple[str, WrittenDown]] = {
    "Intel, nested": ("Intel", WrittenDown("Skylake-Client", {"vmx", "spec-ctrl", "ssbd"})),
    "Intel": ("Intel", WrittenDown("Skylake-Client", {"spec-ctrl", "ssbd"})),
    "AMD, nested": ("AMD", WrittenDown("EPYC", {"npt", "ibpb"})),
    "AMD": ("AMD", WrittenDown("EPYC", {"ibpb"}, without=frozenset({"svm"}))),
    "emulation": (
        "Intel",
        WrittenDown("EPYC", {"npt"}, "qemu", ("host-model", "maximum", "custom")),
    ),
}


def chooser(host: str, **settings: Any) -> CpuChooser:
    vendor, hypervisor = HOSTS[host]
    return CpuChooser(
        CpuSettings(**{"mode": "host-model", **settings}),
        hypervisor,  # type: ignore[arg-type]
        vendor,
    )
