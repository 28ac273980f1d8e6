"""RPC methods that move instances or bring them back: for clients, and for the agents of other hosts."""

from typing import Any

from kvmdriver import exception
from kvmdriver.agent import requests
from kvmdriver.agent.caller import Caller
from kvmdriver.agent.methods import Call, Methods, changes, peers, reads
from kvmdriver.agent.notifications import Notifier
from kvmdriver.driver import KVMDriver
from kvmdriver.model import (
    FileReceiver,
    MigrationAnswer,
    MigrationOffer,
    MigrationPlan,
)
from kvmdriver.model.migration import DestinationState
from kvmdriver.neighbour import Neighbour, Neighbours

# Seconds within which another agent answers a short question, or is taken for dead.
_SHORT = 10


class MigrationMethods(Methods):
    """Live and cold migration, as the source and as the destination."""

    def __init__(self, driver: KVMDriver, notifier: Notifier, neighbours: Neighbours):
        super().__init__(driver, notifier)
        self._neighbours = neighbours

    # For clients

    @changes(requests.LiveMigration, "live_migration")
    def live_migration(self, request: requests.LiveMigration, call: Call) -> Any:
        return self._driver.live_migration(
            request.instance,
            self._neighbours(request.destination),
            request.options,
            request_id=call.request_id,
            progress=call.progress,
        )

    @changes(requests.ColdMigration, "cold_migration")
    def cold_migration(self, request: requests.ColdMigration, call: Call) -> Any:
        return self._driver.cold_migration(
            request.instance,
            self._neighbours(request.destination),
            request_id=call.request_id,
            progress=call.progress,
        )

    @changes(requests.MoveDisk, "move_disk")
    def move_disk(self, request: requests.MoveDisk, call: Call) -> Any:
        return self._driver.move_disk(
            request.instance,
            request.disk,
            directory=request.directory,
            disk_format=request.format,
            request_id=call.request_id,
            progress=call.progress,
        )

    @reads(requests.CheckMigration)
    def check_migration(self, request: requests.CheckMigration) -> Any:
        return self._driver.check_migration(
            request.instance,
            self._neighbours(request.destination),
            request.options,
            request.kind,
        )

    @reads(requests.Empty)
    def list_migrations(self, request: requests.Empty) -> Any:
        return self._driver.list_migrations()

    @reads(requests.MigrationOf)
    def get_migration(self, request: requests.MigrationOf) -> Any:
        return self._driver.get_migration(request.instance)

    @changes(requests.AbortMigration, "live_migration_abort")
    def live_migration_abort(self, request: requests.AbortMigration, call: Call) -> Any:
        self._driver.live_migration_abort(request.instance, force=request.force)

    @changes(requests.MigrationOf, "live_migration_force_complete")
    def live_migration_force_complete(self, request: requests.MigrationOf, call: Call) -> Any:
        self._driver.live_migration_force_complete(request.instance)

    @changes(requests.SetMigration, "set_migration")
    def set_migration(self, request: requests.SetMigration, call: Call) -> Any:
        return self._driver.set_migration(request.instance, request.options)

    @changes(requests.Evacuate, "evacuate")
    def evacuate(self, request: requests.Evacuate, call: Call) -> Any:
        return self._driver.evacuate(
            request.instance,
            self._neighbours(request.source),
            fenced=request.fenced,
            description=request.description,
            rebuild=request.rebuild,
            start=request.start,
            request_id=call.request_id,
            progress=call.progress,
        )

    @reads(requests.LeftInstances)
    def left_instances(self, request: requests.LeftInstances) -> Any:
        return self._driver.left_instances(request.source)

    # For the agent of the source

    @peers(requests.Offer)
    def check_can_live_migrate_destination(self, request: requests.Offer) -> Any:
        return self._driver.check_can_live_migrate_destination(request.offer)

    @peers(requests.Offer)
    def pre_live_migration(self, request: requests.Offer) -> Any:
        return self._driver.pre_live_migration(request.offer)

    @peers(requests.OfMigration)
    def migration_receiver(self, request: requests.OfMigration) -> Any:
        return self._driver.migration_receiver(request.uuid, request.migration)

    @peers(requests.OfMigration)
    def post_live_migration_at_destination(self, request: requests.OfMigration) -> Any:
        self._driver.post_live_migration_at_destination(request.uuid, request.migration)

    @peers(requests.OfMigration)
    def rollback_live_migration_at_destination(self, request: requests.OfMigration) -> Any:
        self._driver.rollback_live_migration_at_destination(request.uuid, request.migration)

    @reads(requests.OfMigration)
    def destination_state(self, request: requests.OfMigration) -> Any:
        return {"state": self._driver.destination_state(request.uuid, request.migration)}

    # For the agent of the destination

    @reads(requests.OfMigration)
    def is_moving(self, request: requests.OfMigration) -> Any:
        return {"moving": self._driver.is_moving(request.uuid, request.migration)}

    # For the agents of hosts that evacuate, and that were evacuated

    @peers(requests.ForgetEvacuated)
    def forget_evacuated(self, request: requests.ForgetEvacuated) -> Any:
        self._driver.forget_evacuated(request.uuid, self._neighbours(request.claimant))

    @reads(requests.HasEvacuated)
    def has_evacuated(self, request: requests.HasEvacuated) -> Any:
        return {"here": self._driver.has_evacuated(request.uuid, request.source)}


class Peer(Neighbour):
    """Another host, asked through its agent."""

    def __init__(self, caller: Caller, host: str):
        self.host = host
        self._caller = caller

    def check(self, offer: MigrationOffer) -> MigrationAnswer:
        return MigrationAnswer.model_validate(
            self._ask("check_can_live_migrate_destination", offer=offer.to_wire())
        )

    def prepare(self, offer: MigrationOffer) -> MigrationPlan:
        answer = self._caller.ask("pre_live_migration", self.host, offer=offer.to_wire())
        return MigrationPlan.model_validate(answer)

    def receiver(self, uuid: str, migration: str) -> FileReceiver:
        answer = self._ask("migration_receiver", uuid=uuid, migration=migration)
        return FileReceiver.model_validate(answer)

    def finish(self, uuid: str, migration: str) -> None:
        # a guest that has to be started again takes its time
        self._caller.ask(
            "post_live_migration_at_destination", self.host, uuid=uuid, migration=migration
        )

    def roll_back(self, uuid: str, migration: str) -> None:
        self._caller.ask(
            "rollback_live_migration_at_destination", self.host, uuid=uuid, migration=migration
        )

    def destination_state(self, uuid: str, migration: str) -> DestinationState:
        answer = self._question("destination_state", uuid=uuid, migration=migration)
        state: DestinationState = answer["state"]
        return state

    def is_moving(self, uuid: str, migration: str) -> bool:
        return bool(self._question("is_moving", uuid=uuid, migration=migration)["moving"])

    def answers(self) -> bool:
        return self._caller.answers(self.host)

    def forget_evacuated(self, uuid: str, claimant: str) -> None:
        self._ask("forget_evacuated", uuid=uuid, claimant=claimant)

    def has_evacuated(self, uuid: str, source: str) -> bool:
        return bool(self._question("has_evacuated", uuid=uuid, source=source)["here"])

    def _ask(self, method: str, **arguments: Any) -> Any:
        return self._caller.ask(method, self.host, timeout=_SHORT, **arguments)

    def _question(self, method: str, **arguments: Any) -> Any:
        """Ask what the other agent can tell by itself, however busy it is."""
        return self._caller.ask(method, self.host, timeout=_SHORT, lane="reads", **arguments)


class Peers(Neighbours):
    """The hosts that share the message bus."""

    def __init__(self, caller: Caller):
        self._caller = caller

    def __call__(self, host: str) -> Neighbour:
        return Peer(self._caller, host)


class NoPeers(Neighbours):
    """Of an agent without a message bus."""

    def __call__(self, host: str) -> Neighbour:
        raise exception.AgentUnreachable(
            "without a message bus there are no other hosts",
            field="transport_url",
            remedy="run kvmdriver-agent on both hosts, with the same transport_url",
        )
