"""Which CPU a guest gets: by request, by configuration, and by what this host can give."""

import dataclasses
from collections.abc import Iterable
from typing import Literal

from oslo_config import cfg

from kvmdriver import exception
from kvmdriver.hypervisor.capabilities import DomainCapabilities, parse_definition
from kvmdriver.hypervisor.cpu import HypervisorCpu
from kvmdriver.hypervisor.hypervisor import Hypervisor
from kvmdriver.model import Cpu, CpuDefinition, CpuFeature
from kvmdriver.model.cpu import DEFAULT_MODEL

NestedPolicy = Literal["off", "on-request", "on"]

# Flags of nested virtualization, by the vendor of the CPU as libvirt names it.
NESTED = {"Intel": "vmx", "AMD": "svm", "Hygon": "svm"}

_LARGEST_FILE = 1 << 20

# Flags that let guests defend themselves against speculative execution, by vendor of the model:
# QEMU's recommendations for CPU models, docs/system/cpu-models-x86.rst.inc.
SECURITY = {
    "Intel": ("spec-ctrl", "stibp", "ssbd", "md-clear", "pcid", "arch-capabilities"),
    "AMD": ("ibpb", "stibp", "virt-ssbd", "amd-ssbd", "amd-no-ssb"),
}


@dataclasses.dataclass(frozen=True)
class CpuSettings:
    """What the configuration says of CPUs."""

    mode: str
    models: tuple[str, ...] = ()
    baseline: CpuDefinition | None = None
    features: tuple[CpuFeature, ...] = ()
    security_features: bool = True
    nested: NestedPolicy = "on-request"


def parse_features(flags: Iterable[str]) -> tuple[CpuFeature, ...]:
    """Features from ``+name`` or ``name`` and ``-name``; what comes later wins.

    :raises kvmdriver.exception.InvalidRequest: one is no name of a feature.
    """
    found: dict[str, CpuFeature] = {}
    for flag in flags:
        name = flag.lstrip("+-").strip().lower()
        policy = "disable" if flag.startswith("-") else "require"
        found[name] = CpuFeature.parse({"name": name, "policy": policy})
    return tuple(found.values())


def settings_of(conf: cfg.ConfigOpts) -> CpuSettings:
    """Return what [kvm_cpu] and [kvm_nested] say.

    :raises kvmdriver.exception.ConfigurationError: the file of the baseline cannot be read, or is
        not one; or flags and policy contradict each other.
    """
    group = conf.kvm_cpu
    features = parse_features(group.features)
    required = {f.name for f in features if f.policy == "require"}
    if conf.kvm_nested.policy == "off" and required & set(NESTED.values()):
        raise exception.ConfigurationError(
            "[kvm_cpu] features gives guests nested virtualization, and [kvm_nested] policy is off",
            field="[kvm_nested] policy",
            value="off",
            remedy="remove the flag, or set the policy to on",
        )
    return CpuSettings(
        mode=group.mode,
        models=tuple(group.models),
        baseline=read_definition(group.baseline_file) if group.baseline_file else None,
        features=features,
        security_features=group.security_features,
        nested=conf.kvm_nested.policy,
    )


def read_definition(path: str) -> CpuDefinition:
    """Parse the CPU of a file: a ``<cpu>``, or what ``virsh capabilities`` or ``domcapabilities`` print.

    :raises kvmdriver.exception.ConfigurationError: there is no such thing in the file.
    """
    try:
        with open(path, encoding="utf-8") as file:
            return parse_definition(file.read(_LARGEST_FILE))
    except (OSError, UnicodeDecodeError) as error:
        raise exception.ConfigurationError(
            f"cannot read the CPU definition: {error}", field="baseline_file", value=path
        ) from None
    except exception.InvalidRequest as error:
        raise exception.ConfigurationError(
            f"{path} is no CPU definition: {error.message}",
            field="baseline_file",
            value=path,
            remedy="make one with: kvmdriver cpu baseline HOST... --output FILE",
        ) from None


def chooser(
    conf: cfg.ConfigOpts, hypervisor: Hypervisor, capabilities: DomainCapabilities
) -> "CpuChooser":
    """Return the chooser for guests of a kind on this host, with the configuration as it is."""
    vendor = hypervisor.host_capabilities().cpu.vendor
    return CpuChooser(settings_of(conf), hypervisor.cpu(capabilities), vendor)


def is_possible(mode: str, capabilities: DomainCapabilities) -> bool:
    """Return whether a configured mode is one for this kind of guest, apart from its model and flags."""
    return mode in ("custom", "baseline", "none") or mode in capabilities.cpu_modes


def nested_flag(virt_type: str, vendor: str | None) -> str | None:
    """Return the flag of nested virtualization on this kind of host, None where there is none.

    QEMU's emulation knows AMD's kind only, whatever the host has.
    """
    return "svm" if virt_type == "qemu" else NESTED.get(vendor or "")


class CpuChooser:
    """Decides for one kind of guest on one host."""

    def __init__(self, settings: CpuSettings, hypervisor_cpu: HypervisorCpu, vendor: str | None):
        self._settings = settings
        self._hypervisor = hypervisor_cpu
        self._capabilities = hypervisor_cpu.capabilities
        self._vendor = vendor
        self.nested_flag = nested_flag(self._capabilities.virt_type, vendor)

    @property
    def policy(self) -> NestedPolicy:
        """[kvm_nested] policy."""
        return self._settings.nested

    def grantable(self) -> frozenset[str]:
        """Return all flags that a guest can have here."""
        return self._hypervisor.granted()

    def prefer(self, cpu: Cpu, required: set[str], forbidden: set[str]) -> Cpu:
        """Return a CPU to choose from that has some flags and lacks others, added where no model does.

        Of the models those come first that fit by themselves, else in the order that they have.
        """
        nested = required & set(NESTED.values())
        mode = cpu.mode or self._settings.mode
        # the other modes have all that can be had
        required = required - nested if mode in ("custom", "baseline", "none") else set()
        models = cpu.models
        known = self._capabilities.cpu_models

        def misfit(model: str) -> bool:
            if not known.get(model):
                return True
            has = self._hypervisor.features(CpuDefinition(model=model))
            return not required <= has or bool(forbidden & has)

        if required or forbidden:
            models = tuple(sorted(models, key=misfit))
        if models and known.get(models[0]):
            required = required - self._hypervisor.features(CpuDefinition(model=models[0]))
        features = {f.name: f for f in cpu.features}
        features |= {name: CpuFeature(name=name) for name in sorted(required | nested)}
        features |= {name: CpuFeature(name=name, policy="disable") for name in sorted(forbidden)}
        return cpu.changed(
            models=models, features=tuple(features.values()), nested=cpu.nested or bool(nested)
        )

    def can_nest(self) -> bool:
        """Return whether the hypervisor grants nested virtualization, whatever the policy."""
        return self.nested_flag is not None and self.nested_flag in self._hypervisor.granted()

    def choose(self, cpu: Cpu) -> Cpu:
        """Return the CPU with everything decided: its mode, one model, every flag.

        A mode of None takes the configured one. Mode baseline becomes custom.

        :raises kvmdriver.exception.Unsupported: mode, model, a flag or nested virtualization
            cannot be had; nothing has been made yet.
        """
        wanted = cpu.mode or self._settings.mode
        mode, model = wanted, None
        features = {f.name: f for f in self._settings.features} if wanted != "none" else {}
        if wanted == "baseline":
            mode, model, features = self._baseline(features)
        self._check_mode(mode)
        features |= self._nesting(cpu, features, mode)
        features |= {f.name: f for f in cpu.features}
        if wanted == "custom":
            off = {name for name, feature in features.items() if feature.policy == "disable"}
            model = self._first_usable(cpu.models or self._settings.models, off)
            features = self._with_security(model, features)
        chosen = cpu.changed(
            mode=mode,
            models=(model,) if model else (),
            features=tuple(features.values()),
            nested=self._is_nested(features),
        )
        self._check_granted(chosen)
        return chosen

    def definition(self, cpu: Cpu) -> CpuDefinition | None:
        """Return a chosen CPU spelled out; None where libvirt knows no host-model to spell it with."""
        if cpu.mode == "custom":
            return CpuDefinition(model=cpu.models[0], features=cpu.features)
        if cpu.mode in (None, "none"):
            return CpuDefinition(model=DEFAULT_MODEL, features=cpu.features)
        host = self._capabilities.host_model
        if host is None:
            return None
        merged = {f.name: f for f in (*host.features, *cpu.features)}
        return host.changed(features=tuple(merged.values()))

    def flags(self, cpu: Cpu) -> frozenset[str]:
        """Return all flags that a guest with a chosen CPU sees, in libvirt's spelling."""
        definition = self.definition(cpu)
        return self._hypervisor.features(definition) if definition else frozenset()

    def check_settings(self) -> Cpu:
        """Choose the CPU of a guest that asks for nothing, and so check the configuration.

        :raises kvmdriver.exception.ConfigurationError: this host cannot give it.
        """
        try:
            return self.choose(Cpu())
        except exception.KVMDriverError as error:
            raise exception.ConfigurationError(
                f"[kvm_cpu] cannot be granted on this host: {error.message}",
                field=error.field,
                value=error.value,
                remedy=error.remedy,
            ) from None

    def why_unusable(self, model: str) -> tuple[str, ...]:
        """Return the flags that a named model lacks here; empty when it can be used."""
        return self._hypervisor.missing(CpuDefinition(model=model))

    def missing_security(self) -> tuple[str, ...]:
        """Security flags of this vendor's CPUs that guests cannot have here."""
        granted = self._hypervisor.granted()
        return tuple(f for f in SECURITY.get(self._vendor or "", ()) if f not in granted)

    def _baseline(self, features: dict[str, CpuFeature]) -> tuple[str, str, dict[str, CpuFeature]]:
        baseline = self._settings.baseline
        if baseline is None:
            raise exception.Unsupported(
                "no baseline is configured",
                field="cpu.mode",
                value="baseline",
                remedy="make one with: kvmdriver cpu baseline HOST... --output FILE, and name it "
                "in [kvm_cpu] baseline_file",
            )
        return "custom", baseline.model, {f.name: f for f in baseline.features} | features

    def _check_mode(self, mode: str) -> None:
        if mode != "none" and mode not in self._capabilities.cpu_modes:
            possible = ", ".join(sorted(self._capabilities.cpu_modes | {"none"}))
            raise exception.Unsupported(
                f"CPU mode {mode} is not possible with virtualization type "
                f"{self._capabilities.virt_type}",
                field="cpu.mode",
                value=mode,
                remedy=f"possible here: {possible}",
            )

    def _first_usable(self, models: tuple[str, ...], off: set[str]) -> str:
        """Return the first model that can be had without the flags that are switched ``off`` anyway.

        EPYC has svm by its definition, and is as good as any where nobody may have svm.
        """
        known = self._capabilities.cpu_models
        for model in models:
            if known.get(model) or (model in known and set(self.why_unusable(model)) <= off):
                return model
        usable = ", ".join(sorted(model for model, can in known.items() if can))
        if not models:
            raise exception.Unsupported(
                "mode custom needs a model", field="cpu.models", remedy=f"usable here: {usable}"
            )
        reasons = [
            f"{model} lacks {', '.join(self.why_unusable(model))}"
            if model in known
            else f"{model} is unknown"
            for model in models
        ]
        raise exception.CpuIncompatible(
            f"none of the CPU models can be used: {'; '.join(reasons)}",
            field="cpu.models",
            value=", ".join(models),
            remedy=f"usable here: {usable}",
        )

    def _is_nested(self, features: dict[str, CpuFeature]) -> bool:
        flag = features.get(self.nested_flag or "")
        return flag is not None and flag.policy == "require"

    def _nesting(
        self, cpu: Cpu, features: dict[str, CpuFeature], mode: str
    ) -> dict[str, CpuFeature]:
        """Return the flags that carry the policy out: required, or hidden from the guest."""
        own = {f.name for f in cpu.features if f.policy == "require"} & set(NESTED.values())
        wanted = cpu.nested or bool(own)
        policy = self._settings.nested
        if wanted:
            self._check_nesting(own)
        refused = {f.name for f in cpu.features if f.policy == "disable"}
        flag = self.nested_flag
        if flag is None:
            return {}
        configured = flag in features and features[flag].policy == "require"
        given = wanted or configured
        if policy == "on" and flag not in refused:
            given = given or self.can_nest()
        if not given and mode == "none" and self._capabilities.virt_type != "qemu":
            return {}  # KVM's default CPU has it switched off, and needs no name then
        decided = {flag: CpuFeature(name=flag, policy="require" if given else "disable")}
        if mode == "none" and flag != "svm":
            # qemu64 has svm by its definition; KVM's own default leaves it out, and so do we
            decided["svm"] = CpuFeature(name="svm", policy="disable")
        if not given and mode == "maximum" and self._capabilities.virt_type == "qemu":
            # QEMU's "max" shows CPUID leaf 0x80000008 with svm only, and Linux takes the size of
            # addresses from there: with five-level paging and no leaf, programs crash.
            decided["la57"] = CpuFeature(name="la57", policy="disable")
        return decided

    def _check_nesting(self, own: set[str]) -> None:
        if self._settings.nested == "off":
            raise exception.Unsupported(
                "nested virtualization is switched off on this host",
                field="cpu.nested",
                value=True,
                remedy="set [kvm_nested] policy to on-request or on, or use another host",
            )
        foreign = own - {self.nested_flag}
        if foreign:
            raise exception.Unsupported(
                f"guests of this host cannot have {', '.join(sorted(foreign))}; "
                f"its kind of nested virtualization is {self.nested_flag or 'none'}",
                field="cpu.features",
                value=", ".join(sorted(foreign)),
                remedy="ask with cpu.nested for the kind that the host has",
            )
        if not self.can_nest():
            raise exception.Unsupported(
                f"this host does not grant nested virtualization ({self.nested_flag or 'no flag'})",
                field="cpu.nested",
                value=True,
                remedy="switch it on: kvmdriver host nested enable (restart libvirtd afterwards); "
                "kvmdriver host nested show tells the state",
            )

    def _with_security(self, model: str, features: dict[str, CpuFeature]) -> dict[str, CpuFeature]:
        """Named models lack what was found out after them; host-model and the like have it."""
        if not self._settings.security_features:
            return features
        vendor = self._capabilities.cpu_vendors.get(model, "unknown")
        names = SECURITY.get((self._vendor or "") if vendor == "unknown" else vendor, ())
        granted = self._hypervisor.granted()
        has = self._hypervisor.features(CpuDefinition(model=model))
        added = {
            name: CpuFeature(name=name)
            for name in names
            if name in granted and name not in has and name not in features
        }
        return features | added

    def _check_granted(self, cpu: Cpu) -> None:
        definition = self.definition(cpu)
        if definition is None or not definition.required:
            return
        missing = self._hypervisor.missing(definition)
        if missing:
            raise exception.CpuIncompatible(
                f"this host cannot give a guest {definition.model} with these flags; it lacks: "
                f"{', '.join(missing)}",
                field="cpu.features",
                value=", ".join(missing),
                remedy="leave them out; kvmdriver cpu show lists what can be had",
            )
