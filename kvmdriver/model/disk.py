"""Disks and CD drives of an instance."""

from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from kvmdriver.model.base import Identifier, Model, Path, ShortText, Text, Uuid
from kvmdriver.model.image import Image

DiskBus = Literal["virtio", "scsi", "sata", "ide", "usb", "fdc"]
DiskName = Annotated[str, StringConstraints(pattern=r"^(vd|sd|hd|fd)[a-z]{1,2}$")]

# The largest file of ext4 with 4 KiB blocks is 16 TiB; a disk image file cannot be larger.
MAX_DISK_MIB = 16 * 1024 * 1024


class IoLimits(Model):
    """Limits of a disk's throughput; None leaves it unlimited.

    Source: https://libvirt.org/formatdomain.html#hard-drives-floppy-disks-cdroms, ``iotune``.
    Total and read/write limits of one kind exclude each other.
    """

    total_bytes_sec: int | None = Field(None, ge=1)
    read_bytes_sec: int | None = Field(None, ge=1)
    write_bytes_sec: int | None = Field(None, ge=1)
    total_iops_sec: int | None = Field(None, ge=1)
    read_iops_sec: int | None = Field(None, ge=1)
    write_iops_sec: int | None = Field(None, ge=1)
    total_bytes_sec_max: int | None = Field(None, ge=1)
    read_bytes_sec_max: int | None = Field(None, ge=1)
    write_bytes_sec_max: int | None = Field(None, ge=1)
    total_iops_sec_max: int | None = Field(None, ge=1)
    read_iops_sec_max: int | None = Field(None, ge=1)
    write_iops_sec_max: int | None = Field(None, ge=1)
    size_iops_sec: int | None = Field(None, ge=1)

    @model_validator(mode="after")
    def _total_or_parts(self) -> Self:
        for kind in ("bytes", "iops"):
            parts = (getattr(self, f"read_{kind}_sec"), getattr(self, f"write_{kind}_sec"))
            if getattr(self, f"total_{kind}_sec") is not None and any(parts):
                raise ValueError(f"total_{kind}_sec excludes read_{kind}_sec and write_{kind}_sec")
        return self


class DiskFile(Model):
    """A file that holds a disk, as the driver has laid it out. Never taken from a request."""

    path: Path
    format: Literal["raw", "qcow2"]


class NetworkHost(Model):
    """A server of a network disk."""

    name: ShortText
    port: int | None = Field(None, ge=1, le=65535)


class Volume(Model):
    """A disk that somebody else has made: a block device, a file, or one that QEMU itself reaches.

    ``path`` is that of the device or file; for ``network`` it is the name under ``protocol``
    (``pool/image`` with rbd). Never taken from a request.
    """

    type: Literal["block", "file", "network"]
    path: Text
    format: Literal["raw", "qcow2"] = "raw"
    protocol: Literal["rbd", "nbd", "iscsi"] | None = None
    hosts: tuple[NetworkHost, ...] = Field((), max_length=64)
    user: ShortText | None = None
    auth_secret: Uuid | None = None
    encryption_secret: Uuid | None = None
    shareable: bool = False
    read_only: bool = False
    physical_block_size: int | None = None
    logical_block_size: int | None = None
    wwn: Identifier | None = None


class Disk(Model):
    """A disk or CD drive.

    Either ``image`` (content) or ``size_mib`` (a blank disk) or both (the image, grown) is given;
    a CD drive may be empty. ``name`` (the target, e.g. vda) and ``bus`` are chosen when absent.
    ``file`` is the driver's own record of where the disk lies.
    """

    name: DiskName | None = None
    device: Literal["disk", "cdrom", "floppy", "lun"] = "disk"
    image: Image | None = None
    size_mib: int | None = Field(None, ge=1, le=MAX_DISK_MIB)
    format: Literal["raw", "qcow2"] | None = None
    bus: DiskBus | None = None
    cache: Literal["none", "writeback", "writethrough", "directsync", "unsafe"] | None = None
    io: Literal["native", "threads", "io_uring"] | None = None
    discard: bool = False
    serial: Identifier | None = None
    limits: IoLimits | None = None
    file: DiskFile | None = None
    volume: Volume | None = None
    boot_order: int | None = Field(None, ge=1, le=1024)
    iothread: int | None = Field(None, ge=1, le=1024)

    @model_validator(mode="after")
    def _has_content(self) -> Self:
        if (
            self.device == "disk"
            and self.image is None
            and self.size_mib is None
            and not self.file
            and not self.volume
        ):
            raise ValueError("a disk needs an image, a size_mib, or both")
        if self.device == "cdrom" and self.size_mib is not None:
            raise ValueError("a cdrom has no size_mib")
        if self.io == "native" and self.cache not in ("none", "directsync"):
            # QEMU: aio=native requires cache.direct=on
            raise ValueError("io native needs cache none or directsync")
        return self
