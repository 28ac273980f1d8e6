"""Directories below instances_path that belong to no instance: reported, never removed."""

import contextlib
import dataclasses
import os

from kvmdriver import exception
from kvmdriver.operations.context import Context
from kvmdriver.storage import description
from kvmdriver.storage.usage import in_use


@dataclasses.dataclass(frozen=True)
class Orphan:
    """A directory that belongs to no instance of libvirt's, and advice for the operator."""

    path: str
    advice: str


def find(context: Context, known: set[str]) -> list[Orphan]:
    """Directories of no instance of this libvirt, of another host, or of a QEMU that runs.

    Another libvirt, or an embedded hypervisor, may have guests with the same instances_path: the
    directory of one of those is never called superfluous. Neither is one with a disk of a clone that
    virt-clone has made, after the original was deleted.

    :param known: UUIDs of the instances that libvirt knows.
    """
    found = [
        path
        for path in context.store.orphans(known, context.host)
        if not in_use(path) and not _changes(context, path)
    ]
    named = context.hypervisor.used_by_others(None, context.store.root) if found else {}
    return [
        Orphan(path, _advice(path))
        for path in found
        if not any(name.startswith(path + os.sep) for name in named)
    ]


def _changes(context: Context, directory: str) -> bool:
    """Return whether the instance of a directory was made or removed since the instances were listed.

    The domain of an instance is there before its directory, and goes after it.
    """
    known = context.hypervisor.find(os.path.basename(directory)) is not None
    return known or not os.path.isdir(directory)


def _advice(path: str) -> str:
    with contextlib.suppress(exception.StorageError):
        described = description.read(path)
        if described is None:
            return "nothing in it says whose it is; remove it if you know that nobody needs it"
        return (
            f"instance.json says that it is {described.instance.name!r} of host {described.host!r}; "
            "keep it unless you know that this instance is gone for good"
        )
    return "its instance.json cannot be read; keep it until you know whose it is"
