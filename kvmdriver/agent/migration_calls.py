"""The client's calls about moving instances."""

from kvmdriver.agent.caller import Caller, OnProgress
from kvmdriver.model import DiskView, InstanceView, MigrationCheck, MigrationOptions, MigrationView
from kvmdriver.model.evacuation import Description, LeftInstance
from kvmdriver.model.migration import MigrationKind

_AS_CONFIGURED = MigrationOptions()


class MigrationCalls(Caller):
    """Part of ``ComputeAPI``. ``host`` is the source unless said otherwise."""

    def live_migration(
        self,
        instance: str,
        destination: str,
        *,
        options: MigrationOptions = _AS_CONFIGURED,
        host: str | None = None,
        on_progress: OnProgress | None = None,
    ) -> MigrationView:
        """Move a running instance to another host, and wait until it is there."""
        answer = self._change(
            "live_migration",
            host,
            on_progress,
            instance=instance,
            destination=destination,
            options=options.to_wire(),
        )
        return MigrationView.model_validate(answer)

    def cold_migration(
        self,
        instance: str,
        destination: str,
        *,
        host: str | None = None,
        on_progress: OnProgress | None = None,
    ) -> MigrationView:
        """Move a stopped instance to another host."""
        answer = self._change(
            "cold_migration", host, on_progress, instance=instance, destination=destination
        )
        return MigrationView.model_validate(answer)

    def move_disk(
        self,
        instance: str,
        disk: str,
        *,
        directory: str | None = None,
        disk_format: str | None = None,
        host: str | None = None,
        on_progress: OnProgress | None = None,
    ) -> DiskView:
        """Move a disk to another directory of its host, or to another format."""
        given = {"directory": directory, "format": disk_format}
        answer = self._change(
            "move_disk",
            host,
            on_progress,
            instance=instance,
            disk=disk,
            **{name: value for name, value in given.items() if value is not None},
        )
        return DiskView.model_validate(answer)

    def evacuate(
        self,
        instance: str,
        source: str,
        *,
        fenced: bool = False,
        description: Description | None = None,
        rebuild: bool = False,
        start: bool = True,
        host: str | None = None,
        on_progress: OnProgress | None = None,
    ) -> InstanceView:
        """Bring an instance of the dead host ``source`` back on ``host``."""
        answer = self._change(
            "evacuate",
            host,
            on_progress,
            instance=instance,
            source=source,
            fenced=fenced,
            rebuild=rebuild,
            start=start,
            description=None if description is None else description.to_wire(),
        )
        return InstanceView.model_validate(answer)

    def left_instances(self, source: str, *, host: str | None = None) -> list[LeftInstance]:
        """Instances of the host ``source`` whose directories ``host`` shares."""
        answer = self._read("left_instances", host, source=source)
        return [LeftInstance.model_validate(row) for row in answer]

    def check_migration(
        self,
        instance: str,
        destination: str,
        *,
        kind: MigrationKind = "live",
        options: MigrationOptions = _AS_CONFIGURED,
        host: str | None = None,
    ) -> MigrationCheck:
        """Return whether an instance could move, with every reason against it."""
        answer = self._read(
            "check_migration",
            host,
            instance=instance,
            destination=destination,
            kind=kind,
            options=options.to_wire(),
        )
        return MigrationCheck.model_validate(answer)

    def list_migrations(self, *, host: str | None = None) -> list[MigrationView]:
        """Migrations to and from a host."""
        return [MigrationView.model_validate(row) for row in self._read("list_migrations", host)]

    def get_migration(self, instance: str, *, host: str | None = None) -> MigrationView:
        """Return the latest migration of an instance."""
        return MigrationView.model_validate(self._read("get_migration", host, instance=instance))

    def live_migration_abort(
        self, instance: str, *, force: bool = False, host: str | None = None
    ) -> None:
        """Give a migration up. ``force``: the other host is gone for good."""
        self._change("live_migration_abort", host, None, instance=instance, force=force)

    def live_migration_force_complete(self, instance: str, *, host: str | None = None) -> None:
        """Bring a migration to its end at once."""
        self._change("live_migration_force_complete", host, None, instance=instance)

    def set_migration(
        self, instance: str, options: MigrationOptions, *, host: str | None = None
    ) -> MigrationView:
        """Change what a running migration may do."""
        answer = self._change(
            "set_migration", host, None, instance=instance, options=options.to_wire()
        )
        return MigrationView.model_validate(answer)
