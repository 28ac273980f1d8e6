"""Moving an instance to another host: what is asked for, agreed on, kept and shown."""

from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from kvmdriver.model.base import Identifier, Model, Name, Private, ShortText, Uuid
from kvmdriver.model.disk import MAX_DISK_MIB, DiskName
from kvmdriver.model.instance import Instance

# Every state but the last three is kept with the domain while it lasts; run and switch-over are
# one there, since libvirt changes no metadata while a guest moves: its own state tells them apart.
MigrationState = Literal[
    "check", "prepare", "run", "switch-over", "finish", "roll-back", "unresolved",
    "completed", "failed", "aborted",
]  # fmt: skip
ENDED: tuple[MigrationState, ...] = ("completed", "failed", "aborted")

MigrationKind = Literal["live", "cold"]
TimeoutAction = Literal["abort", "post-copy", "pause"]
# A file of an instance by its name alone: it cannot lead out of the directory.
FileName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$")]
# The largest files are those of full disks, with what a qcow2 image has besides the content.
ByteCount = Annotated[int, Field(ge=0, le=2 * MAX_DISK_MIB * 1024 * 1024)]
Xml = Annotated[str, StringConstraints(min_length=5, max_length=4 * 1024 * 1024), Private()]
# libvirt takes rates and times of a migration as 64-bit numbers, QEMU a downtime of at most 2000 s.
Bandwidth = Annotated[int, Field(ge=0, le=2**31 - 1, description="MiB/s, 0: no limit")]
Downtime = Annotated[int, Field(ge=1, le=2_000_000, description="ms")]


class MigrationOptions(Model):
    """How one migration deviates from [kvm_migration]; None leaves the option as configured."""

    full_copy: bool = Field(False, description="copy disks with what is in their images")
    bandwidth: Bandwidth | None = None
    downtime: Downtime | None = None
    max_downtime: Downtime | None = None
    auto_converge: bool | None = None
    post_copy: bool | None = None
    completion_timeout: int | None = Field(
        None, ge=0, le=86400, description="seconds for each GiB"
    )
    timeout_action: TimeoutAction | None = None


class MigrationPolicy(Model):
    """What may be done to bring one migration to its end; times in ms and s, rates in MiB/s."""

    bandwidth: int = 0
    downtime: int = 300
    max_downtime: int = 1000
    downtime_steps: int = 5
    auto_converge: bool = False
    post_copy: bool = False
    timeout: float | None = None
    timeout_action: TimeoutAction = "abort"

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.max_downtime < self.downtime:
            raise ValueError("max_downtime is less than downtime")
        return self


class Migration(Model):
    """What both hosts keep of a migration, with the domain, so that either can end it alone."""

    id: Identifier
    kind: MigrationKind
    peer: ShortText
    state: MigrationState
    shared: bool = False
    """The directory of the instance is the same on both hosts: its files stay where they are."""
    autostart: bool = False
    was_active: bool = True
    was_paused: bool = False
    request_id: str | None = None


class MovingDisk(Model):
    """A disk that is not a CD drive; sizes in bytes."""

    name: DiskName
    file: FileName
    format: Literal["raw", "qcow2"]
    size: ByteCount
    allocated: ByteCount
    length: ByteCount | None = Field(None, description="size of the file, where it is to be sent")
    backing: FileName | None = None
    """Name of the image in the source's cache that the disk is an overlay of."""
    backing_size: ByteCount = 0


class MovingFile(Model):
    """A file that the agents send to each other; size in bytes."""

    place: Literal["instance", "cache"]
    name: FileName
    size: ByteCount


class MigrationOffer(Model):
    """What the source tells the destination: everything that decides whether it can be done."""

    id: Identifier
    kind: MigrationKind
    source: ShortText
    instance: Instance
    digest: ShortText | None = None
    requests: tuple[ShortText, ...] = Field((), max_length=1024)
    evacuated_from: tuple[ShortText, ...] = Field((), max_length=1024)
    active: bool = True
    autostart: bool = False
    marker: FileName
    """A file in the instance's directory: a destination that sees it shares the directory."""
    definition: Xml
    """The persistent definition; only the addresses of its devices are taken over."""
    cpu: Xml | None = None
    machine: Identifier | None = None
    cpus: tuple[int, ...] = Field(
        (), max_length=4096, description="numbers of host CPUs that it is pinned to"
    )
    qemu_version: int = 0
    native_tls: bool = False
    full_copy: bool = False
    disks: tuple[MovingDisk, ...] = Field((), max_length=64)
    files: tuple[MovingFile, ...] = Field((), max_length=256)


class Problem(Model):
    """One reason against a migration."""

    code: Identifier
    field: str | None = None
    message: str
    remedy: str | None = None


class MigrationAnswer(Model):
    """What the destination says to an offer, before it changes anything."""

    problems: tuple[Problem, ...] = ()
    warnings: tuple[str, ...] = ()
    shared: bool = False
    post_copy: bool = True
    address: ShortText
    uri: ShortText


class MigrationPlan(Model):
    """What the destination has prepared."""

    definition: Xml
    address: ShortText
    uri: ShortText
    memory_port: int | None = None
    disk_port: int | None = None
    copied_disks: tuple[DiskName, ...] = ()
    wanted: tuple[MovingFile, ...] = ()


class FileReceiver(Model):
    """Where files for a migration are taken, and what proves that they may come."""

    address: ShortText
    port: int
    token: ShortText


# What a destination has of an instance: nothing of this migration, a definition that waits, a
# QEMU that takes the memory in, a guest that is on (here), or one that died after it came.
DestinationState = Literal["none", "prepared", "incoming", "here", "lost"]


class MigrationView(Model):
    """A migration as others see it; sizes in MiB, rates in MiB/s, times in s but downtimes in ms."""

    id: str
    instance: str
    uuid: Uuid
    kind: MigrationKind
    source: str
    destination: str
    state: MigrationState
    elapsed: float = 0
    memory_total: float | None = None
    memory_left: float | None = None
    disk_total: float | None = None
    disk_left: float | None = None
    rate: float | None = None
    dirty_rate: float | None = None
    iteration: int | None = None
    throttle: int = Field(0, description="% of its CPU time that the guest loses")
    post_copy: bool = False
    downtime_limit: int | None = None
    expected_downtime: int | None = None
    estimate: float | None = Field(None, description="seconds to the end, None: not in sight")
    downtime: int | None = Field(None, description="of the switch-over, once it is over")
    decisions: tuple[str, ...] = ()
    error: str | None = None


class MigrationCheck(Model):
    """The answer to the question whether an instance could move, with every reason against it."""

    instance: Name
    destination: str
    kind: MigrationKind
    possible: bool
    problems: tuple[Problem, ...] = ()
    warnings: tuple[str, ...] = ()
    shared: bool = False
    dirty_rate: float | None = Field(None, description="MiB/s")
