"""Virtual CPUs: how many, in which topology, of which model."""

from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from kvmdriver.model.base import Identifier, Model, ShortText

CpuMode = Literal["host-model", "host-passthrough", "maximum", "custom", "baseline", "none"]

# libvirt's highest vCPU count for x86 machines with QEMU (q35, qemu_capabilities maxCpus).
MAX_VCPUS = 288

# What QEMU's machines for x86 run when they are told nothing.
DEFAULT_MODEL = "qemu64"

FeatureName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_.-]{0,40}$")]


class Vcpus(Model):
    """Number of vCPUs now and at most; the difference can be plugged in while the guest runs."""

    current: int = Field(1, ge=1, le=MAX_VCPUS)
    # the default is not validated: 0 cannot be asked for
    maximum: int = Field(0, ge=1, le=MAX_VCPUS, description="the same as current when absent")

    @model_validator(mode="after")
    def _order(self) -> Self:
        if self.maximum == 0:
            object.__setattr__(self, "maximum", self.current)
        if self.maximum < self.current:
            raise ValueError(
                f"vcpus.current ({self.current}) is more than vcpus.maximum ({self.maximum})"
            )
        return self


class CpuTopology(Model):
    """Sockets, cores and threads that the guest sees; their product is ``vcpus.maximum``."""

    sockets: int = Field(1, ge=1, le=MAX_VCPUS)
    cores: int = Field(1, ge=1, le=MAX_VCPUS)
    threads: int = Field(1, ge=1, le=MAX_VCPUS)


class CpuFeature(Model):
    """A CPU flag in libvirt's spelling, required of or withheld from the guest."""

    name: FeatureName
    policy: Literal["require", "disable"] = "require"


class CpuDefinition(Model):
    """A CPU spelled out: a named model, and flags added to it or taken away."""

    model: Identifier
    vendor: ShortText | None = None
    features: tuple[CpuFeature, ...] = Field((), max_length=512)

    @property
    def required(self) -> frozenset[str]:
        """Names of the flags that are required."""
        return frozenset(f.name for f in self.features if f.policy == "require")


class PhysicalAddressBits(Model):
    """How many bits physical addresses of the guest have."""

    mode: Literal["passthrough", "emulate"] = "passthrough"
    bits: int | None = Field(None, ge=32, le=64)

    @model_validator(mode="after")
    def _bits_are_emulated(self) -> Self:
        if self.mode == "passthrough" and self.bits is not None:
            raise ValueError("bits are for mode emulate")
        return self


class CpuCache(Model):
    """Which caches the guest is told of."""

    mode: Literal["emulate", "passthrough", "disable"]
    level: int | None = Field(None, ge=1, le=3)


class Cpu(Model):
    """Which CPU the guest sees (https://libvirt.org/formatdomain.html#cpu-model-and-topology).

    ``mode`` None takes the configured default. ``models`` is for mode custom: the first one
    that this host can give is taken. ``nested`` asks for nested virtualization: without it the
    guest gets none, unless the host's policy gives it to all. ``hyperv`` offers Windows what it
    expects of Hyper-V (None: by the operating system), ``hide_hypervisor`` keeps KVM's name from
    the guest, ``pmu`` gives or withholds performance counters (None: QEMU's default).
    """

    mode: CpuMode | None = None
    models: tuple[Identifier, ...] = Field((), max_length=32)
    features: tuple[CpuFeature, ...] = Field((), max_length=256)
    topology: CpuTopology | None = None
    nested: bool = False
    address_bits: PhysicalAddressBits | None = None
    cache: CpuCache | None = None
    hyperv: bool | None = None
    hide_hypervisor: bool = False
    pmu: bool | None = None

    @model_validator(mode="after")
    def _models_need_custom(self) -> Self:
        if self.mode == "custom" and not self.models:
            raise ValueError("mode custom needs at least one name in models")
        if self.mode not in ("custom", None) and self.models:
            raise ValueError(f"models cannot be combined with mode {self.mode}; use mode custom")
        names = [feature.name for feature in self.features]
        if len(names) != len(set(names)):
            raise ValueError("features names a feature twice")
        return self
