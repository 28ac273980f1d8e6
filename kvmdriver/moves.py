"""KVMDriver's operations that move instances between hosts; part of ``kvmdriver.driver``."""

import threading
from collections.abc import Callable

from kvmdriver.model import (
    FileReceiver,
    InstanceView,
    MigrationAnswer,
    MigrationCheck,
    MigrationOffer,
    MigrationOptions,
    MigrationPlan,
    MigrationView,
)
from kvmdriver.model.evacuation import Description, LeftInstance
from kvmdriver.model.migration import DestinationState, MigrationKind
from kvmdriver.neighbour import Neighbour, Neighbours
from kvmdriver.operations import evacuate
from kvmdriver.operations.context import Context
from kvmdriver.operations.migrate import check as migration_check
from kvmdriver.operations.migrate import cold, control, live, prepare, recover, settle
from kvmdriver.progress import Progress, ignore


class Moves:
    """Migration and evacuation, as either host."""

    _context: Context

    # Migration, the source

    def live_migration(
        self,
        instance: str,
        destination: Neighbour,
        options: MigrationOptions,
        *,
        request_id: str | None = None,
        progress: Progress = ignore,
    ) -> MigrationView:
        """Move a running instance to another host."""
        return live.live_migrate(
            self._context,
            instance,
            destination,
            options,
            request_id=request_id,
            progress=progress,
        )

    def cold_migration(
        self,
        instance: str,
        destination: Neighbour,
        *,
        request_id: str | None = None,
        progress: Progress = ignore,
    ) -> MigrationView:
        """Move a stopped instance to another host."""
        return cold.cold_migrate(
            self._context, instance, destination, request_id=request_id, progress=progress
        )

    def check_migration(
        self,
        instance: str,
        destination: Neighbour,
        options: MigrationOptions,
        kind: MigrationKind,
    ) -> MigrationCheck:
        """Return whether an instance could move, with every reason against it."""
        return live.check(self._context, instance, destination, options, kind)

    def list_migrations(self) -> list[MigrationView]:
        """Migrations to and from this host."""
        with self._context.question():
            return control.list_migrations(self._context)

    def get_migration(self, instance: str) -> MigrationView:
        """Return the latest migration of an instance."""
        with self._context.question():
            return control.get_migration(self._context, instance)

    def live_migration_abort(self, instance: str, *, force: bool = False) -> None:
        """Give a migration up."""
        control.abort(self._context, instance, force=force)

    def live_migration_force_complete(self, instance: str) -> None:
        """Bring a migration to its end at once."""
        control.force_complete(self._context, instance)

    def set_migration(self, instance: str, options: MigrationOptions) -> MigrationView:
        """Change what a running migration may do."""
        return control.change(self._context, instance, options)

    def subscribe_to_migrations(self, subscriber: Callable[[MigrationView], None]) -> None:
        """Have a function called as migrations from here get on; it must not wait."""
        self._context.migrations.subscribe(subscriber)

    def is_moving(self, uuid: str, migration: str) -> bool:
        """Return whether this host, as the source, has not ended a migration yet."""
        return recover.is_moving(self._context, uuid, migration)

    # Migration, the destination

    def check_can_live_migrate_destination(self, offer: MigrationOffer) -> MigrationAnswer:
        """Return whether this host could take an instance."""
        return migration_check.check_offer(self._context, offer)

    def pre_live_migration(self, offer: MigrationOffer) -> MigrationPlan:
        """Make everything that an instance needs here."""
        return prepare.prepare(self._context, offer)

    def migration_receiver(self, uuid: str, migration: str) -> FileReceiver:
        """Return the receiver of files of an instance that moves here."""
        return prepare.receiver(self._context, uuid, migration)

    def post_live_migration_at_destination(self, uuid: str, migration: str) -> None:
        """Make an instance that has arrived this host's own."""
        settle.finish_incoming(self._context, uuid, migration)

    def rollback_live_migration_at_destination(self, uuid: str, migration: str) -> None:
        """Remove what was made for an instance that does not come."""
        settle.roll_back_incoming(self._context, uuid, migration)

    def destination_state(self, uuid: str, migration: str) -> DestinationState:
        """Return what this host has of an instance that moves here."""
        return settle.destination_state(self._context, uuid, migration)

    # Evacuation

    def evacuate(
        self,
        instance: str,
        source: Neighbour,
        *,
        fenced: bool = False,
        description: Description | None = None,
        rebuild: bool = False,
        start: bool = True,
        request_id: str | None = None,
        progress: Progress = ignore,
    ) -> InstanceView:
        """Bring back an instance of a host that has died."""
        return evacuate.evacuate(
            self._context,
            instance,
            source,
            fenced=fenced,
            description=description,
            rebuild=rebuild,
            start=start,
            request_id=request_id,
            progress=progress,
        )

    def left_instances(self, host: str) -> list[LeftInstance]:
        """Instances of another host whose directories this one shares."""
        return evacuate.left_instances(self._context, host)

    def forget_evacuated(self, uuid: str, claimant: Neighbour) -> None:
        """Remove what is left of an instance that was brought back elsewhere."""
        evacuate.forget_evacuated(self._context, uuid, claimant)

    def has_evacuated(self, uuid: str, host: str) -> bool:
        """Return whether an instance of this host was evacuated from ``host``."""
        return evacuate.has_evacuated(self._context, uuid, host)

    def tell_evacuated(self, neighbours: Neighbours) -> int:
        """Tell hosts that have returned; how many are still away."""
        return evacuate.tell(self._context, neighbours)

    # Migration, after a crash

    @property
    def migration_activity(self) -> threading.Event:
        """Set when there may be migrations to recover."""
        return self._context.migrations.activity

    def recover_migrations(self, neighbours: Neighbours) -> int:
        """End what a crash has left; the number of migrations that are not ended yet."""
        return recover.recover(self._context, neighbours)
