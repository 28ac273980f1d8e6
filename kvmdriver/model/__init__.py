"""The driver's vocabulary: immutable, validated, and the agent's wire format.

Agent, command line and the adapter for Nova parse a request into these; no other code sees anything else.
"""

from kvmdriver.model.base import Model
from kvmdriver.model.boot import Boot
from kvmdriver.model.config_drive import ConfigDrive, StaticAddress
from kvmdriver.model.console import Consoles
from kvmdriver.model.cpu import (
    Cpu,
    CpuCache,
    CpuDefinition,
    CpuFeature,
    CpuTopology,
    PhysicalAddressBits,
    Vcpus,
)
from kvmdriver.model.disk import Disk, DiskFile, IoLimits, NetworkHost, Volume
from kvmdriver.model.image import FileImage, Image, UrlImage
from kvmdriver.model.instance import Instance, Watchdog
from kvmdriver.model.memory import DIMM_MIB, Memory
from kvmdriver.model.migration import (
    FileReceiver,
    Migration,
    MigrationAnswer,
    MigrationCheck,
    MigrationOffer,
    MigrationOptions,
    MigrationPlan,
    MigrationPolicy,
    MigrationView,
    MovingDisk,
    MovingFile,
    Problem,
)
from kvmdriver.model.nic import Nic, NicQos, Plug
from kvmdriver.model.tuning import (
    CpuTune,
    MemoryTune,
    NumaCell,
    Rng,
    SystemInfo,
    Tuning,
)
from kvmdriver.model.view import (
    Address,
    CachedImageView,
    CheckView,
    CpuComparison,
    CpuModelView,
    CpuView,
    Diagnostics,
    DiskView,
    GuestCpu,
    HostView,
    InstanceView,
    NestedView,
    NicView,
    OsView,
    ProgressView,
    Status,
)

__all__ = [
    "DIMM_MIB",
    "Address",
    "Boot",
    "ConfigDrive",
    "Consoles",
    "Cpu",
    "CachedImageView",
    "CheckView",
    "CpuCache",
    "CpuComparison",
    "CpuDefinition",
    "CpuFeature",
    "CpuModelView",
    "CpuTopology",
    "CpuTune",
    "CpuView",
    "Diagnostics",
    "Disk",
    "DiskFile",
    "DiskView",
    "FileImage",
    "FileReceiver",
    "GuestCpu",
    "HostView",
    "Image",
    "Instance",
    "InstanceView",
    "IoLimits",
    "Memory",
    "MemoryTune",
    "Migration",
    "MigrationAnswer",
    "MigrationCheck",
    "MigrationOffer",
    "MigrationOptions",
    "MigrationPlan",
    "MigrationPolicy",
    "MigrationView",
    "Model",
    "MovingDisk",
    "MovingFile",
    "NestedView",
    "NetworkHost",
    "Nic",
    "NicQos",
    "NicView",
    "PhysicalAddressBits",
    "NumaCell",
    "OsView",
    "Plug",
    "Problem",
    "ProgressView",
    "Rng",
    "StaticAddress",
    "Status",
    "SystemInfo",
    "Tuning",
    "UrlImage",
    "Vcpus",
    "Volume",
    "Watchdog",
]
