"""Looking at migrations, and steering those that run."""

from kvmdriver import exception
from kvmdriver.guest.migration.table import Wishes
from kvmdriver.model import MigrationOptions, MigrationView
from kvmdriver.operations.context import Context
from kvmdriver.operations.migrate.check import INCOMING
from kvmdriver.operations.migrate.prepare import remove_incoming
from kvmdriver.operations.migrate.settle import finish_incoming


def list_migrations(context: Context) -> list[MigrationView]:
    """Return migrations to and from this host: running, cut off, and ended since the agent started."""
    found = {view.id: view for view in context.migrations.views()}
    for summary in context.hypervisor.summaries():
        record = context.record(summary.uuid)
        task = record.task if record else None
        if task is None or task.migration is None or task.migration.id in found:
            continue
        migration = task.migration
        incoming = task.name == INCOMING
        found[migration.id] = MigrationView(
            id=migration.id,
            instance=summary.name,
            uuid=summary.uuid,
            kind=migration.kind,
            source=migration.peer if incoming else context.host,
            destination=context.host if incoming else migration.peer,
            state=migration.state if incoming else "unresolved",
        )
    return list(found.values())


def get_migration(context: Context, name_or_uuid: str) -> MigrationView:
    """Return the latest migration of an instance.

    :raises kvmdriver.exception.InvalidState: there has been none of late.
    """
    for view in reversed(list_migrations(context)):
        if name_or_uuid in (view.instance, view.uuid, view.id):
            return view
    raise exception.InvalidState(
        f"there is no migration of {name_or_uuid} on this host",
        instance=name_or_uuid,
        remedy="list them: kvmdriver server migration list",
    )


def abort(context: Context, name_or_uuid: str, *, force: bool = False) -> None:
    """Cancel a migration; the instance stays on the source.

    :param force: end one whose other host cannot be asked, by declaring that it has no part of
        the instance any more. If it has, the instance is there twice: see to it that it is off.
    :raises kvmdriver.exception.InvalidState: the guest has gone over already.
    """
    view = get_migration(context, name_or_uuid)
    wishes = context.migrations.wishes(view.id)
    if wishes is not None:
        if view.post_copy:
            raise exception.InvalidState(
                "the guest runs on the destination already",
                instance=view.instance,
                remedy="wait: it ends as soon as its memory has followed",
            )
        wishes.abort = True
        return
    if not force:
        raise exception.InvalidState(
            f"nobody works on that migration, it is {view.state}",
            instance=view.instance,
            remedy="wait until the agents reach each other; if one host is gone for good: --force",
        )
    _declare(context, view)


def _declare(context: Context, view: MigrationView) -> None:
    domain, record = context.find(view.uuid)
    with context.locks.hold(domain.uuid):
        task = record.task
        if task is None or task.migration is None:
            return
        migration = task.migration
        if task.name == INCOMING and domain.presence() != "on":
            remove_incoming(context, domain)
            return
        if task.name != INCOMING:
            if domain.status() == "paused" and not migration.was_paused:
                domain.unpause()
            domain.set_autostart(migration.autostart)
            context.save(domain, record.changed(task=None))
            context.migrations.put(view.changed(state="aborted"))
            return
    finish_incoming(context, view.uuid, view.id)


def force_complete(context: Context, name_or_uuid: str) -> None:
    """Complete a migration at once: by post-copy where permitted, else by pausing the guest.

    :raises kvmdriver.exception.InvalidState: it does not run.
    """
    _running(context, name_or_uuid)[1].force = True


def change(context: Context, name_or_uuid: str, options: MigrationOptions) -> MigrationView:
    """Change the policy of a running migration; None leaves a value unchanged.

    :raises kvmdriver.exception.InvalidState: it does not run.
    """
    view, wishes = _running(context, name_or_uuid)
    policy = wishes.policy
    values = {
        name: value
        for name in ("bandwidth", "downtime", "max_downtime", "timeout_action")
        if (value := getattr(options, name)) is not None
    }
    if "downtime" in values:
        values.setdefault("max_downtime", max(values["downtime"], policy.max_downtime))
    wishes.policy = type(policy).parse({**policy.model_dump(), **values})
    return view


def _running(context: Context, name_or_uuid: str) -> tuple[MigrationView, Wishes]:
    view = get_migration(context, name_or_uuid)
    wishes = context.migrations.wishes(view.id)
    if wishes is None:
        raise exception.InvalidState(
            f"the migration does not run here, it is {view.state}",
            instance=view.instance,
            remedy=f"ask the source: --host {view.source}",
        )
    return view, wishes
