"""Nova's API in the place of an agent's client, for what Nova knows of servers."""

import contextlib
from collections.abc import Iterator
from typing import Any, NoReturn

from openstack import exceptions as sdk_exceptions

from kvmdriver import exception
from kvmdriver.model import Address, InstanceView, MigrationOptions, MigrationView, NicView
from kvmdriver.model.migration import MigrationKind, MigrationState
from kvmdriver.model.view import Status

_MIB = 1024 * 1024
# nova/objects/fields.py, InstancePowerState
_POWER: dict[int, Status] = {
    1: "running", 3: "paused", 4: "stopped", 6: "crashed", 7: "suspended"
}  # fmt: skip
_KINDS: dict[str, MigrationKind] = {
    "live-migration": "live", "migration": "cold", "resize": "cold"
}  # fmt: skip
# A resize that has "finished" waits for its owner, with the server on the other host already.
_STATES: dict[str, MigrationState] = {
    "queued": "check", "accepted": "check",
    "preparing": "prepare", "pre-migrating": "prepare",
    "running": "run", "migrating": "run",
    "post-migrating": "finish", "confirming": "finish",
    "reverting": "roll-back",
    "completed": "completed", "done": "completed", "finished": "completed",
    "confirmed": "completed",
    "error": "failed", "failed": "failed",
    "cancelled": "aborted", "reverted": "aborted",
}  # fmt: skip


class NovaAPI:
    """Has the methods of ``ComputeAPI`` that commands about servers call.

    :param compute: the compute service of an ``openstack.connection.Connection``.
    """

    def __init__(self, compute: Any):
        self._compute = compute

    def get_instance(self, instance: str) -> InstanceView:
        """Return a server by name or UUID, of any project.

        :raises kvmdriver.exception.InstanceNotFound: Nova has none.
        """
        server = self._server(instance)
        addresses = [
            (network, given) for network, all_of in server.addresses.items() for given in all_of
        ]
        # in the order of the addresses, each interface once
        nics = dict.fromkeys((given["OS-EXT-IPS-MAC:mac_addr"], net) for net, given in addresses)
        return InstanceView(
            uuid=server.id,
            name=server.name,
            status=_status(server),
            task=server.task_state,
            memory_mib=server.flavor.ram,
            memory_maximum_mib=server.flavor.ram,
            vcpus=server.flavor.vcpus,
            vcpus_maximum=server.flavor.vcpus,
            addresses=tuple(
                Address(mac=given["OS-EXT-IPS-MAC:mac_addr"], ip=given["addr"], source="static")
                for _network, given in addresses
            ),
            nics=tuple(
                NicView(mac=mac, type="network", source=network, model=None, tap=None)
                for mac, network in nics
            ),
            host=server.compute_host,
            unknown=("disks", "autostart"),
        )

    def list_migrations(self) -> list[MigrationView]:
        """Migrations and resizes of all servers, the latest last; evacuations are left out."""
        with _translated():
            names = {
                server.id: server.name
                for server in self._compute.servers(details=False, all_projects=True)
            }
            found = [self._view(found, names) for found in self._compute.migrations()]
        return [view for view in reversed(found) if view is not None]

    def get_migration(self, instance: str) -> MigrationView:
        """Return the latest migration of a server, with how far it is while it is under way.

        :raises kvmdriver.exception.InvalidState: there has been none.
        """
        server = self._server(instance)
        names = {server.id: server.name}
        with _translated(instance):
            for running in self._compute.server_migrations(server):
                view = self._view(running, names, kind="live-migration", server=server.id)
                if view is not None:
                    return _with_progress(view, running)
            for found in self._compute.migrations(server_id=server.id):
                view = self._view(found, names)
                if view is not None:
                    return view
        raise exception.InvalidState(
            f"Nova knows no migration of {instance}",
            instance=instance,
            remedy="list them: openstack kvm server migration list",
        )

    def live_migration_abort(self, instance: str, *, force: bool = False) -> None:
        """Give the live migration of a server up.

        :raises kvmdriver.exception.Unsupported: with ``force``, which Nova has nothing for.
        :raises kvmdriver.exception.InvalidState: none is under way, or Nova cannot end it any more.
        """
        if force:
            self._not_with_nova("no call that ends a migration that was cut off", "--force")
        server, running = self._running(instance)
        with _translated(instance):
            self._compute.abort_server_migration(running, server, ignore_missing=False)

    def live_migration_force_complete(self, instance: str) -> None:
        """Bring the live migration of a server to its end.

        :raises kvmdriver.exception.InvalidState: none is under way.
        """
        server, running = self._running(instance)
        with _translated(instance):
            self._compute.force_complete_server_migration(running, server)

    def set_migration(self, instance: str, options: MigrationOptions) -> None:
        """Refuse to change a migration, for which Nova has no call.

        :raises kvmdriver.exception.Unsupported: always.
        """
        self._not_with_nova("no call that changes a migration under way", "server migration set")

    @staticmethod
    def _not_with_nova(what: str, field: str) -> NoReturn:
        raise exception.Unsupported(
            f"Nova's API has {what}",
            field=field,
            remedy="name the host of an agent with --host for an instance of its own; for a server "
            "of Nova's use server migration abort or server migration force-complete",
        )

    def _server(self, name: str) -> Any:
        with _translated(name):
            server = self._compute.find_server(name, ignore_missing=True, all_projects=True)
            if server is None:
                raise exception.InstanceNotFound(
                    f"Nova has no server {name}",
                    instance=name,
                    remedy="list what exists with: openstack server list --all-projects; an instance "
                    "of an agent's needs --host",
                )
            # what was found by its name may lack details
            return self._compute.get_server(server.id)

    def _running(self, instance: str) -> tuple[Any, Any]:
        server = self._server(instance)
        with _translated(instance):
            for running in self._compute.server_migrations(server):
                return server, running
        raise exception.InvalidState(
            f"Nova has no live migration of {instance} under way", instance=instance
        )

    @staticmethod
    def _view(
        found: Any, names: dict[str, str], *, kind: str | None = None, server: str | None = None
    ) -> MigrationView | None:
        known = _KINDS.get(kind or found.migration_type)
        if known is None:
            return None
        uuid = server or found.server_id
        return MigrationView(
            id=found.uuid or str(found.id),
            instance=names.get(uuid, uuid),
            uuid=uuid,
            kind=known,
            source=found.source_compute or "",
            destination=found.dest_compute or "",
            # a state of a later Nova
            state=_STATES.get(found.status, "unresolved"),
        )


def _status(server: Any) -> Status:
    if server.task_state == "deleting" or server.vm_state in ("deleted", "soft-delete"):
        return "deleting"
    if server.vm_state == "building":
        return "building"
    # nothing of a server that is shelved or has failed is on a host
    fallback: Status = "crashed" if server.vm_state == "error" else "stopped"
    return _POWER.get(server.power_state, fallback)


def _with_progress(view: MigrationView, running: Any) -> MigrationView:
    def mib(count: int | None) -> float | None:
        return None if count is None else round(count / _MIB, 1)

    return view.model_copy(
        update={
            "memory_total": mib(running.memory_total_bytes),
            "memory_left": mib(running.memory_remaining_bytes),
            "disk_total": mib(running.disk_total_bytes),
            "disk_left": mib(running.disk_remaining_bytes),
        }
    )


@contextlib.contextmanager
def _translated(instance: str | None = None) -> Iterator[None]:
    """Errors of the SDK as those of this project."""
    try:
        yield
    except sdk_exceptions.DuplicateResource as error:
        raise exception.InvalidRequest(
            f"more than one server has that name: {error}",
            instance=instance,
            remedy="give the UUID",
        ) from None
    except sdk_exceptions.ForbiddenException as error:
        raise exception.InvalidRequest(
            f"Nova does not permit it: {error}",
            instance=instance,
            remedy="use the credentials of an administrator",
        ) from None
    except sdk_exceptions.NotFoundException as error:
        raise exception.InvalidState(
            f"Nova does not find it any more: {error}", instance=instance
        ) from None
    except (sdk_exceptions.BadRequestException, sdk_exceptions.ConflictException) as error:
        raise exception.InvalidState(f"Nova refuses: {error}", instance=instance) from None
    except sdk_exceptions.SDKException as error:
        raise exception.AgentUnreachable(
            f"Nova's API fails: {error}",
            instance=instance,
            remedy="look whether nova-api runs and what its log says",
        ) from None
