"""Guests that were migrated while paused, and have not run on this host since."""

import logging

from kvmdriver.hypervisor.domain import Domain
from kvmdriver.hypervisor.hypervisor import Hypervisor

LOG = logging.getLogger(__name__)

# QEMU 10.0 may inactivate images that are inactive already
_MENDED_IN = 10_000_000
_NEVER_RAN_MS = 50


def make_movable(hypervisor: Hypervisor, domain: Domain) -> None:
    """Have QEMU take over the images of a guest that arrived paused, so that it can move on.

    A QEMU that a guest came to leaves its images inactive until the guest runs. One that is asked
    to give up inactive images dies, before version 10.0, with its guest ("bdrv_inactivate_recurse:
    Assertion failed"). So the guest runs for the moment that it takes to pause it again.
    """
    if hypervisor.version_numbers()[0] >= _MENDED_IN or domain.status() != "paused":
        return
    if hypervisor.vcpu_time(domain) >= _NEVER_RAN_MS:
        return
    LOG.info("%s: it has not run here yet, and does so for a moment", domain.name)
    domain.unpause()
    domain.pause()
