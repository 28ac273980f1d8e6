"""Progress of long work, from where it happens to those who watch."""

from typing import Protocol


class Progress(Protocol):
    """Told about a stage again and again; must be quick.

    Raises ``kvmdriver.exception.OperationCancelled`` when the work is to end; work that
    tells its progress must leave nothing behind then. Work that waits tells its progress every few
    seconds, also when there is none, so that it can be ended.
    """

    def __call__(self, stage: str, done: int, total: int | None, unit: str = "bytes") -> None: ...


def ignore(stage: str, done: int, total: int | None, unit: str = "bytes") -> None:
    """For callers that nobody watches."""
