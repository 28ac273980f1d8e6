"""Snapshots of volumes that servers have, which Cinder asks Nova to make or remove: refused.

Cinder asks for volumes that are files (NFS and its like). It waits for the snapshot's status after
that, 10 minutes for a new snapshot and 2 hours for one to be removed, and nova's API has answered
before the driver is asked. So the refusal has to reach Cinder as a status.
"""

from typing import Any

from nova.volume import cinder
from oslo_log import log as logging

from kvmdriver.nova import refusals

LOG = logging.getLogger(__name__)


def refuse_create(context: Any, instance: Any, volume_id: str, create_info: Any) -> None:
    """Refuse to make a snapshot; Cinder gives it the status ``error``.

    :raises kvmdriver.exception.Unsupported: always.
    """
    _tell_cinder(context, create_info.get("snapshot_id"), "error")
    raise refusals.assisted_snapshot("make", volume_id, instance.uuid)


def refuse_delete(context: Any, instance: Any, volume_id: str, snapshot_id: str) -> None:
    """Refuse to remove a snapshot; Cinder gives it the status ``error_deleting``.

    :raises kvmdriver.exception.Unsupported: always.
    """
    _tell_cinder(context, snapshot_id, "error_deleting")
    raise refusals.assisted_snapshot("remove", volume_id, instance.uuid)


def _tell_cinder(context: Any, snapshot_id: str | None, status: str) -> None:
    if snapshot_id is None:
        return
    try:
        cinder.API().update_snapshot_status(context, snapshot_id, status)
    except Exception:
        # the refusal is what the caller has to know
        LOG.exception("Cinder could not be told that snapshot %s is %s", snapshot_id, status)
