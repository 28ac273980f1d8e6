"""What each RPC method takes. These models are the wire format, version 1.0.

Every request that changes something carries a ``request_id``: the same one again is the same
request, and is not carried out twice.
"""

import hashlib
import json
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from kvmdriver.model import Disk, Instance, MigrationOffer, MigrationOptions, Nic
from kvmdriver.model.base import Identifier, Mac, Model, Name, Path, Private, Uuid
from kvmdriver.model.cpu import MAX_VCPUS
from kvmdriver.model.disk import DiskName
from kvmdriver.model.evacuation import Description
from kvmdriver.model.memory import MAX_MEMORY_MIB, MIN_MEMORY_MIB
from kvmdriver.model.migration import MigrationKind

# A name or a UUID; both fit the alphabet of names.
InstanceRef = Name
RequestId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]
CacheName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$")]
Seconds = Annotated[float, Field(ge=0, le=86400)]


class Request(Model):
    """Base of all requests."""

    request_id: RequestId | None = None

    def digest(self, method: str, *, secrets: bool) -> str:
        """Return a digest of what is asked for: the method, and every argument that was given.

        :param secrets: whether passwords and the like count. A digest with them must not be kept
            where others can read it, since short ones could be found by trying.
        """
        asked = self.model_dump(
            mode="json",
            exclude={"request_id"},
            exclude_unset=True,
            context={"reveal_secrets": secrets},
        )
        text = json.dumps([method, asked], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


class Empty(Request):
    """Asks for something that needs no arguments."""


class InstanceRequest(Request):
    """About one instance."""

    instance: InstanceRef


class BuildAndRunInstance(Request):
    instance: Instance
    start: bool = True


class TerminateInstance(InstanceRequest):
    keep_disks: bool = False


class StopInstance(InstanceRequest):
    timeout: Seconds | None = Field(None, description="seconds until it is switched off")


class RebootInstance(InstanceRequest):
    type: Literal["soft", "hard"] = "soft"
    timeout: Seconds | None = Field(None, description="seconds until a soft reboot becomes hard")


class SetAutostart(InstanceRequest):
    autostart: bool


class RenameInstance(InstanceRequest):
    name: Name


class CloneInstance(InstanceRequest):
    name: Name
    uuid: Uuid


class SnapshotInstance(InstanceRequest):
    path: Path
    disk: DiskName | None = None
    format: Literal["qcow2", "raw"] = "qcow2"


class SetMemory(InstanceRequest):
    current_mib: int | None = Field(None, ge=MIN_MEMORY_MIB, le=MAX_MEMORY_MIB)
    maximum_mib: int | None = Field(None, ge=MIN_MEMORY_MIB, le=MAX_MEMORY_MIB)


class SetVcpus(InstanceRequest):
    current: int | None = Field(None, ge=1, le=MAX_VCPUS)
    maximum: int | None = Field(None, ge=1, le=MAX_VCPUS)


class AttachVolume(InstanceRequest):
    disk: Disk


class DetachVolume(InstanceRequest):
    disk: DiskName
    delete: bool = False


class AttachInterface(InstanceRequest):
    nic: Nic


class DetachInterface(InstanceRequest):
    mac: Mac


class GetConsoleOutput(InstanceRequest):
    kib: int | None = Field(None, ge=1, le=65536)


class PruneImageCache(Request):
    names: Annotated[tuple[CacheName, ...], Field(max_length=1024)] = ()
    unused: bool = False


class GetProgress(Request):
    of: RequestId


class ListSystems(Request):
    text: Annotated[str, StringConstraints(max_length=255)] = ""


# libvirt's own definitions of CPUs take a few KiB.
CpuXml = Annotated[str, StringConstraints(min_length=5, max_length=262144), Private()]


class BaselineCpu(Request):
    cpus: Annotated[tuple[CpuXml, ...], Field(min_length=1, max_length=1024)]
    migratable: bool = True


class CompareCpu(Request):
    cpu: CpuXml
    virt_type: Literal["kvm", "qemu"] | None = None
    machine: Identifier | None = None


class ColdMigration(InstanceRequest):
    destination: Identifier


class LiveMigration(ColdMigration):
    options: MigrationOptions = MigrationOptions()


class CheckMigration(LiveMigration):
    kind: MigrationKind = "live"


class Evacuate(InstanceRequest):
    source: Identifier
    fenced: bool = False
    description: Description | None = None
    rebuild: bool = False
    start: bool = True


class LeftInstances(Request):
    source: Identifier


class MoveDisk(InstanceRequest):
    disk: DiskName
    directory: Path | None = None
    format: Literal["qcow2", "raw"] | None = None


class MigrationOf(Request):
    """About the latest migration of an instance, by its name, its UUID or that of the migration."""

    instance: InstanceRef


class AbortMigration(MigrationOf):
    force: bool = False


class SetMigration(MigrationOf):
    options: MigrationOptions


class ForgetEvacuated(Request):
    """What an agent that has brought an instance back tells the one that had it."""

    uuid: Uuid
    claimant: Identifier


class HasEvacuated(Request):
    uuid: Uuid
    source: Identifier


class Offer(Request):
    offer: MigrationOffer


class OfMigration(Request):
    """What one agent asks another about a migration of theirs."""

    uuid: Uuid
    migration: Identifier
