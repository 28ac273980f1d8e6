"""Cold migration at the source: send the files of a stopped instance, then hand the instance over."""

import logging

from kvmdriver import exception
from kvmdriver.model import MigrationOptions, MigrationView
from kvmdriver.neighbour import Neighbour
from kvmdriver.operations.context import Context
from kvmdriver.operations.migrate.live import begin, send_files
from kvmdriver.operations.migrate.settle import settle
from kvmdriver.progress import Progress, ignore

LOG = logging.getLogger(__name__)


def cold_migrate(
    context: Context,
    name_or_uuid: str,
    neighbour: Neighbour,
    *,
    request_id: str | None = None,
    progress: Progress = ignore,
) -> MigrationView:
    """Move a stopped instance to another host; it stays stopped.

    It changes hands at one moment: when the source, which then has sent everything, notes that it
    has. Before that it can be given up, afterwards it is only finished.

    :raises kvmdriver.exception.MigrationRefused: it cannot be done; nothing has been changed.
    :raises kvmdriver.exception.MigrationFailed: it has failed; the instance is here as before.
    """
    move = begin(context, name_or_uuid, neighbour, MigrationOptions(), "cold", request_id)
    with context.migrations.in_hand(move.offer.id):
        cause: exception.KVMDriverError | None = None
        try:
            plan = move.prepare()
            move.update(state="run")
            send_files(move, plan, progress)
            move.stop_if_asked()
            move.keep("finish")
        except exception.KVMDriverError as error:
            LOG.warning("%s: the migration to %s: %s", move.domain.name, neighbour.host, error)
            cause = error
        return settle(context, move.view, neighbour, before_switch=True, cause=cause)
