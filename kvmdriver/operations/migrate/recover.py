"""Recovery of migrations that a crash has cut off: of this agent, of another, of libvirtd."""

import logging
import threading
import time

from kvmdriver import exception
from kvmdriver.guest.migration.policy import policy_of
from kvmdriver.guest.migration.watch import Watch
from kvmdriver.hypervisor.domain import Domain
from kvmdriver.hypervisor.record import Record
from kvmdriver.model import Migration, MigrationOptions, MigrationView
from kvmdriver.neighbour import Neighbours
from kvmdriver.operations.context import Context
from kvmdriver.operations.migrate.check import OUTGOING
from kvmdriver.operations.migrate.settle import (
    destination_state,
    finish_incoming,
    migration_of,
    roll_back_incoming,
    settle,
)
from kvmdriver.progress import ignore

LOG = logging.getLogger(__name__)


def recover(context: Context, neighbours: Neighbours) -> int:
    """End migrations that no thread works on; return how many have not ended yet.

    To be called again as long as there are any.
    """
    left = 0
    for uuid in context.hypervisor.power_states():
        record = context.record(uuid)
        task = record.task if record else None
        if record is None or task is None or task.migration is None:
            continue
        migration = task.migration
        if task.name == OUTGOING and context.migrations.wishes(migration.id) is not None:
            left += 1  # a thread of this process works on the migration
            continue
        try:
            domain = context.hypervisor.domain(uuid)
            if task.name == OUTGOING:
                ended = _recover_outgoing(context, domain, record, migration, neighbours)
            else:
                ended = _recover_incoming(context, domain, migration, neighbours)
        except exception.KVMDriverError as error:
            LOG.warning("%s: the migration is not ended yet: %s", record.instance.name, error)
            ended = False
        left += not ended
    return left


def is_moving(context: Context, uuid: str, identity: str) -> bool:
    """Return whether this host, as the source, has not ended a migration yet."""
    known = context.known(uuid)
    return known is not None and migration_of(known[1], OUTGOING, identity) is not None


def _recover_outgoing(
    context: Context,
    domain: Domain,
    record: Record,
    migration: Migration,
    neighbours: Neighbours,
) -> bool:
    view = MigrationView(
        id=migration.id,
        instance=domain.name,
        uuid=domain.uuid,
        kind=migration.kind,
        source=context.host,
        destination=migration.peer,
        state="unresolved",
    )
    neighbour = neighbours(migration.peer)
    if domain.is_active() and domain.migration_progress() is not None:
        LOG.info("%s: taking up the migration to %s again", domain.name, migration.peer)
        summary = context.hypervisor.summary(domain)
        policy = policy_of(
            context.conf.kvm_migration, MigrationOptions(), summary.memory_maximum_mib
        )
        wishes = context.migrations.begin(view.changed(state="run"), policy)
        watch = Watch(context.migrations, domain, view, wishes, ignore)

        def follow() -> None:
            with context.migrations.in_hand(view.id):
                try:
                    while domain.migration_progress() is not None:
                        watch.look()
                        watch.end_if_stuck()
                        time.sleep(watch.pause)
                    settle(context, view, neighbour)
                except exception.KVMDriverError as error:
                    LOG.warning("%s: %s", domain.name, error)

        threading.Thread(target=follow, name="migration", daemon=True).start()
        return False
    # of a migration that was not begun with libvirt, the guest cannot have left
    before_switch = migration.state in ("check", "prepare")
    try:
        settle(context, view, neighbour, before_switch=before_switch)
    except exception.MigrationFailed:
        return True  # rolled back
    return True


def _recover_incoming(
    context: Context, domain: Domain, migration: Migration, neighbours: Neighbours
) -> bool:
    state = destination_state(context, domain.uuid, migration.id)
    if state == "here" and not domain.has_incoming_job():
        # whatever has become of the source: the guest is here
        finish_incoming(context, domain.uuid, migration.id)
        LOG.warning("%s: it had come from %s before the cut", domain.name, migration.peer)
        return True
    try:
        moving = neighbours(migration.peer).is_moving(domain.uuid, migration.id)
    except exception.AgentUnreachable:
        return False
    if moving:
        return False
    roll_back_incoming(context, domain.uuid, migration.id)
    LOG.warning("%s: it does not come from %s any more", domain.name, migration.peer)
    return True
