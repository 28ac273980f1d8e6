"""Live migration at the source: offer, prepare, send, watch, settle."""

import contextlib
import logging
import os
import time
from collections.abc import Iterator

from kvmdriver import exception
from kvmdriver.definition.migration import live_definition
from kvmdriver.guest.migration.converge import predict
from kvmdriver.guest.migration.paused import make_movable
from kvmdriver.guest.migration.policy import policy_of
from kvmdriver.guest.migration.result import migration_result
from kvmdriver.guest.migration.table import Wishes
from kvmdriver.guest.migration.watch import Watch
from kvmdriver.hypervisor import xml
from kvmdriver.hypervisor.domain import Domain
from kvmdriver.hypervisor.events import SUSPENDED_FOR_MIGRATION
from kvmdriver.hypervisor.migration import MigrationSettings
from kvmdriver.hypervisor.record import Owner, Record, Task
from kvmdriver.model import (
    Instance,
    Migration,
    MigrationAnswer,
    MigrationCheck,
    MigrationOffer,
    MigrationOptions,
    MigrationPlan,
    MigrationPolicy,
    MigrationView,
    Problem,
)
from kvmdriver.model.migration import MigrationKind, MigrationState
from kvmdriver.neighbour import Neighbour
from kvmdriver.operations.context import Context
from kvmdriver.operations.migrate import encryption
from kvmdriver.operations.migrate import offer as offers
from kvmdriver.operations.migrate.check import OUTGOING, refuse
from kvmdriver.operations.migrate.reach import unreachable
from kvmdriver.operations.migrate.settle import send_file, settle
from kvmdriver.progress import Progress, ignore
from kvmdriver.storage.copy import remove_file

LOG = logging.getLogger(__name__)


class Move:
    """One instance on its way out of this host; ``state`` names the current step."""

    def __init__(
        self,
        context: Context,
        domain: Domain,
        record: Record,
        offer: MigrationOffer,
        neighbour: Neighbour,
        policy: MigrationPolicy,
    ):
        self.context = context
        self.domain = domain
        self.record = record
        self.offer = offer
        self.neighbour = neighbour
        self.policy = policy
        self.view = MigrationView(
            id=offer.id,
            instance=domain.name,
            uuid=domain.uuid,
            kind=offer.kind,
            source=context.host,
            destination=neighbour.host,
            state="prepare",
        )
        self.wishes: Wishes = context.migrations.begin(self.view, policy)
        self._began = time.monotonic()

    def update(self, **fields: object) -> None:
        """Publish how far the migration is."""
        elapsed = round(time.monotonic() - self._began, 1)
        self.view = self.view.changed(elapsed=elapsed, **fields)
        self.context.migrations.put(self.view)

    def keep(self, state: MigrationState, **fields: object) -> None:
        """Write the state into the domain's metadata, which survives a crash."""
        task = self.record.task
        assert task is not None and task.migration is not None  # noqa: S101 it has been begun
        migration = task.migration.changed(state=state, **fields)
        self.record = self.record.changed(task=task.changed(migration=migration))
        self.context.save(self.domain, self.record)
        self.update(state=state)

    def prepare(self) -> MigrationPlan:
        """Have the destination prepare for the instance."""
        with _marker(self.context, self.offer):
            return self.neighbour.prepare(self.offer)

    def stop_if_asked(self) -> None:
        """Stop if an operator has cancelled the migration.

        :raises kvmdriver.exception.MigrationAborted: an operator has.
        """
        if self.wishes.abort:
            raise exception.MigrationAborted("aborted by an operator", instance=self.domain.name)


def check(
    context: Context,
    name_or_uuid: str,
    neighbour: Neighbour,
    options: MigrationOptions,
    kind: MigrationKind = "live",
) -> MigrationCheck:
    """Return whether an instance could move, with all reasons against it. Changes nothing."""
    with context.exclusively(name_or_uuid) as (domain, record):
        offer = offers.make_offer(context, domain, record, kind, options)
        problems = offers.check_source(context, domain, record, kind)
        with _marker(context, offer):
            answer = neighbour.check(offer)
        problems += _after_answer(context, record.instance, kind, answer)
        rate = None
        if kind == "live" and domain.is_active():
            rate = _dirty_rate(context, domain)
        return MigrationCheck(
            instance=domain.name,
            destination=neighbour.host,
            kind=kind,
            possible=not problems,
            problems=tuple(problems),
            warnings=answer.warnings,
            shared=answer.shared,
            dirty_rate=rate,
        )


def live_migrate(
    context: Context,
    name_or_uuid: str,
    neighbour: Neighbour,
    options: MigrationOptions,
    *,
    request_id: str | None = None,
    progress: Progress = ignore,
) -> MigrationView:
    """Move a running guest to another host.

    :raises kvmdriver.exception.MigrationRefused: it cannot be done; nothing has been changed.
    :raises kvmdriver.exception.MigrationFailed: it has failed; the guest runs here as before.
    :raises kvmdriver.exception.MigrationUnresolved: it is not known where the guest is.
    """
    move = begin(context, name_or_uuid, neighbour, options, "live", request_id)
    with context.migrations.in_hand(move.offer.id):
        before_switch, cause = _try(move, progress)
        return settle(context, move.view, neighbour, before_switch=before_switch, cause=cause)


def _try(move: Move, progress: Progress) -> tuple[bool, exception.KVMDriverError | None]:
    """Move the guest; return whether it is surely still here, and the error, if any."""
    domain, destination = move.domain, move.neighbour.host
    before_switch = True
    try:
        plan = move.prepare()
        send_files(move, plan, progress)
        _foresee(move)
        with move.context.events.expect(
            domain.uuid, "suspended", detail=SUSPENDED_FOR_MIGRATION
        ) as switched:
            try:
                _run(move, plan, progress)
            finally:
                before_switch = switched.event is None
    except exception.KVMDriverError as error:
        LOG.warning("%s: the migration to %s: %s", domain.name, destination, error)
        if not before_switch:
            # it may run there: two of it would spoil the disks, one that waits does not
            with contextlib.suppress(exception.KVMDriverError):
                domain.pause()
        return before_switch, error
    return before_switch, None


def begin(
    context: Context,
    name_or_uuid: str,
    neighbour: Neighbour,
    options: MigrationOptions,
    kind: MigrationKind,
    request_id: str | None,
) -> Move:
    """Ask both hosts whether the instance can move; from then on the instance is busy.

    :raises kvmdriver.exception.MigrationRefused: it cannot; with all reasons of both sides.
    """
    if neighbour.host == context.host:
        raise exception.InvalidRequest(
            "the instance is on that host already",
            field="destination",
            value=neighbour.host,
            instance=name_or_uuid,
            remedy="name another host",
        )
    with context.exclusively(name_or_uuid) as (domain, record):
        offer = offers.make_offer(context, domain, record, kind, options)
        problems = offers.check_source(context, domain, record, kind)
        with _marker(context, offer):
            answer = neighbour.check(offer)
        copied = 0 if answer.shared else sum(disk.size for disk in offer.disks)
        policy = policy_of(
            context.conf.kvm_migration, options, _memory_mib(record.instance), copied
        )
        problems += _after_answer(context, record.instance, kind, answer)
        refuse(record.instance, neighbour.host, problems)
        for warning in answer.warnings:
            LOG.warning("%s: %s", domain.name, warning)
        if not answer.post_copy:
            policy = policy.changed(post_copy=False)
        migration = Migration(
            id=offer.id,
            kind=kind,
            peer=neighbour.host,
            state="prepare",
            shared=answer.shared,
            autostart=offer.autostart,
            was_active=offer.active,
            was_paused=domain.status() == "paused",
            request_id=request_id,
        )
        task = Task(
            name=OUTGOING, owner=Owner.current(), request_id=request_id, migration=migration
        )
        record = record.changed(task=task)
        context.save(domain, record)
        # a host that boots must not start what has gone to another one
        domain.set_autostart(False)
        return Move(context, domain, record, offer, neighbour, policy)


def _after_answer(
    context: Context, instance: Instance, kind: MigrationKind, answer: MigrationAnswer
) -> list[Problem]:
    """Return the problems that show once it is known how the two hosts are connected."""
    found = list(answer.problems)
    conf = context.conf.kvm_migration
    found += encryption.problems(conf, "client", kind, shared=answer.shared)
    if answer.shared:
        found += offers.check_shared(instance)
    if kind == "live":
        found += unreachable(answer.uri)
    return found


def send_files(move: Move, plan: MigrationPlan, progress: Progress) -> None:
    """Send the files that the destination wants of the instance."""
    context, layout = move.context, move.context.store.layout(move.domain.uuid)

    def watched(stage: str, done: int, total: int | None, unit: str = "bytes") -> None:
        move.stop_if_asked()
        progress(stage, done, total, unit)

    if not plan.wanted:
        return
    target = move.neighbour.receiver(move.domain.uuid, move.offer.id)
    for file in plan.wanted:
        directory = layout.directory if file.place == "instance" else context.store.cache_directory
        move.stop_if_asked()
        path = os.path.join(directory, file.name)
        send_file(context, target, path, file.name, watched)


def _run(move: Move, plan: MigrationPlan, progress: Progress) -> None:
    """Have libvirt migrate the guest, and watch the migration until it has ended."""
    move.stop_if_asked()
    conf = move.context.conf.kvm_migration
    move.keep("run")
    make_movable(move.context.hypervisor, move.domain)
    settings = MigrationSettings(
        uri=plan.uri,
        definition=live_definition(move.domain.migratable_xml(), xml.parse(plan.definition)),
        address=plan.address,
        port=plan.memory_port,
        disks=plan.copied_disks,
        disk_port=plan.disk_port,
        full_copy=move.offer.full_copy,
        bandwidth=move.policy.bandwidth,
        parallel_connections=conf.parallel_connections,
        # what goes through the tunnel is encrypted, or not, as that is
        native_tls=conf.native_tls and not conf.tunnelled,
        tunnelled=conf.tunnelled,
        auto_converge=move.policy.auto_converge,
        post_copy=move.policy.post_copy,
    )
    pending = move.domain.start_migration(settings)
    watch = Watch(move.context.migrations, move.domain, move.view, move.wishes, progress)
    while not pending.wait(watch.pause):
        watch.look()
        watch.end_if_stuck()
    migration_result(pending)


def _memory_mib(instance: Instance) -> int:
    return instance.memory.maximum_mib if instance.memory else 0


def _foresee(move: Move) -> None:
    """Log whether the migration is expected to converge, if both rates can be measured."""
    rate = _dirty_rate(move.context, move.domain)
    memory = move.offer.instance.memory
    if rate is None or memory is None:
        return
    move.update(dirty_rate=rate)
    bandwidth, policy = float(move.policy.bandwidth), move.policy
    if not bandwidth:
        LOG.info("%s: the guest dirties %.0f MiB/s", move.domain.name, rate)
        return
    seconds = predict(memory.current_mib, rate, bandwidth, policy.max_downtime)
    move.update(estimate=seconds)
    if seconds is None:
        helps = [name for name in ("auto_converge", "post_copy") if getattr(policy, name)]
        LOG.warning(
            "%s: the guest dirties %.0f MiB/s, at most %.0f MiB/s are sent: it will %s",
            move.domain.name,
            rate,
            bandwidth,
            f"need {' or '.join(helps)}"
            if helps
            else f"end by its timeout ({policy.timeout_action})",
        )


def _dirty_rate(context: Context, domain: Domain) -> float | None:
    seconds = context.conf.kvm_migration.dirty_rate_seconds
    if not seconds:
        return None
    try:
        domain.start_dirty_rate(seconds)
        deadline = time.monotonic() + seconds + 2
        while time.monotonic() < deadline:
            time.sleep(0.1 if time.monotonic() > deadline - 2 else seconds - 0.9)
            found = context.hypervisor.dirty_rate(domain)
            if found is not None:
                return found
    except exception.KVMDriverError as error:
        LOG.info("%s: the dirty rate cannot be measured: %s", domain.name, error)
    return None


@contextlib.contextmanager
def _marker(context: Context, offer: MigrationOffer) -> Iterator[None]:
    """Make a file in the instance's directory, by which a host that shares the directory knows that."""
    path = context.store.layout(offer.instance.uuid).file(offer.marker)
    with open(path, "w"):
        pass
    try:
        yield
    finally:
        remove_file(path)
