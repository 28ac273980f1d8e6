"""The other host of a migration, as this one can ask it; the agent does so over the message bus."""

from typing import Protocol

from kvmdriver.model import (
    FileReceiver,
    MigrationAnswer,
    MigrationOffer,
    MigrationPlan,
)
from kvmdriver.model.migration import DestinationState


class Neighbour(Protocol):
    """Every method raises ``AgentUnreachable`` when the host does not answer."""

    host: str

    def check(self, offer: MigrationOffer) -> MigrationAnswer:
        """Ask whether it would take an instance."""

    def prepare(self, offer: MigrationOffer) -> MigrationPlan:
        """Have it make everything that the instance needs there."""

    def receiver(self, uuid: str, migration: str) -> FileReceiver:
        """Return where the neighbour takes the files of an instance that moves to it."""

    def finish(self, uuid: str, migration: str) -> None:
        """Tell it that the instance is its own now."""

    def roll_back(self, uuid: str, migration: str) -> None:
        """Have it remove what it has made for a migration."""

    def destination_state(self, uuid: str, migration: str) -> DestinationState:
        """Ask what it has, as the destination, of an instance."""

    def is_moving(self, uuid: str, migration: str) -> bool:
        """Ask whether it, as the source, still has that migration in hand."""

    def answers(self) -> bool:
        """Return whether the neighbour's agent answers."""

    def forget_evacuated(self, uuid: str, claimant: str) -> None:
        """Tell it that ``claimant`` has brought an instance of its back."""

    def has_evacuated(self, uuid: str, source: str) -> bool:
        """Ask whether it has brought an instance of the host ``source`` back."""


class Neighbours(Protocol):
    """How to reach other hosts."""

    def __call__(self, host: str) -> Neighbour: ...
