"""Maintenance of the image cache: fetching images ahead, and removing unused ones."""

import contextlib
import os
import time
from typing import Any

from oslo_log import log as logging

from kvmdriver import exception
from kvmdriver.model.base import is_uuid
from kvmdriver.nova import disks, images
from kvmdriver.nova.node import Node

LOG = logging.getLogger(__name__)


def prefetch(node: Node, context: Any, image_id: str) -> bool:
    """Fetch an image into the cache; return False if the image was there already."""
    if os.path.exists(os.path.join(node.images.directory, images.cache_name(image_id))):
        return False
    images.get(node, context, image_id, "disk")
    return True


def manage(node: Node, all_instances: list[Any]) -> None:
    """Remove images that are no backing file of a disk here, and no instance's image.

    An image goes when it has not been touched for [image_cache]
    remove_unused_original_minimum_age_seconds; each pass touches those in use, as Nova's in-tree
    driver does, so that the age counts from the last use.
    """
    conf = node.conf.image_cache
    used = backing_files(node)
    for instance in all_instances:
        for image_id in (instance.image_ref, instance.kernel_id, instance.ramdisk_id):
            if image_id:
                used.add(images.cache_name(image_id))
    now = time.time()
    try:
        entries = list(os.scandir(node.images.directory))
    except FileNotFoundError:
        return
    for entry in entries:
        if entry.name.startswith(".") or not entry.is_file(follow_symlinks=False):
            continue
        # empty file systems and swap areas are made again in no time
        if entry.name in used:
            with contextlib.suppress(OSError):
                os.utime(entry.path)
        elif conf.remove_unused_base_images:
            age = now - entry.stat().st_mtime
            if age > conf.remove_unused_original_minimum_age_seconds:
                LOG.info("removing %s, which nothing has used for %d s", entry.path, age)
                os.unlink(entry.path)


def backing_files(node: Node) -> set[str]:
    """Return names of cached files that are backing files of disks here, from the disks' headers."""
    found = set()
    for entry in os.scandir(node.store.root):
        name = entry.name.removesuffix("_resize").removesuffix("_del")
        if not is_uuid(name) or not entry.is_dir(follow_symlinks=False):
            continue
        for file in os.scandir(entry.path):
            if file.name.startswith("disk") and file.name != "disk.info":
                with contextlib.suppress(OSError, exception.ImageUnacceptable):
                    found.add(disks.backing_name(file.path, "qcow2"))
    return found - {""}
