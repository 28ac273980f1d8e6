"""Images between Glance and this host, through nova's own image API (signatures, certificates)."""

import contextlib
import hashlib
import os
import uuid
from collections.abc import Iterator
from typing import Any

from nova import exception as nova_exception
from nova.objects.instance import Instance as NovaInstance
from nova.virt import images as nova_images

from kvmdriver import exception
from kvmdriver.nova.node import Node
from kvmdriver.storage.copy import remove_file
from kvmdriver.storage.image_cache import CachedImage, Role

# Glance's names of formats -> ours. ``ami`` and its kin are raw disks and plain files.
_FORMATS = {
    "raw": "raw",
    "qcow2": "qcow2",
    "vmdk": "vmdk",
    "vdi": "vdi",
    "vhd": "vhd",
    "vpc": "vhd",
    "vhdx": "vhdx",
    "iso": "iso",
}


def cache_name(image_id: str) -> str:
    """Return the name of an image in the cache, the same as with Nova's in-tree driver."""
    return hashlib.sha1(image_id.encode(), usedforsecurity=False).hexdigest()


def get(
    node: Node, context: Any, image_id: str, role: Role, instance: NovaInstance | None = None
) -> CachedImage:
    """Return the cached copy of an image; download and inspect the image if there is none.

    :raises nova.exception.ImageUnacceptable: it could do harm, is damaged or of another format.
    """
    certificates = instance.trusted_certs if instance is not None else None
    declared = None
    if not os.path.exists(os.path.join(node.images.directory, cache_name(image_id))):
        meta = node.image_api.get(context, image_id)
        declared = _FORMATS.get(meta.get("disk_format") or "")

    def download(path: str) -> None:
        nova_images.fetch(context, image_id, path, certificates)

    try:
        return node.images.fetch(cache_name(image_id), download, role=role, declared=declared)
    except exception.ImageUnacceptable as error:
        raise nova_exception.ImageUnacceptable(image_id=image_id, reason=str(error)) from error


@contextlib.contextmanager
def working_file(node: Node) -> Iterator[str]:
    """Yield the name of a file in [libvirt] snapshots_directory that is removed afterwards."""
    directory = node.conf.libvirt.snapshots_directory
    os.makedirs(directory, mode=0o711, exist_ok=True)
    path = os.path.join(directory, uuid.uuid4().hex)
    try:
        yield path
    finally:
        remove_file(path)
