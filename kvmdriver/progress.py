"""Progress of long work, from where it happens to whoever watches."""

from typing import Protocol


class Progress(Protocol):
    """Told about a stage again and again; must be quick and must not raise."""

    def __call__(self, stage: str, done: int, total: int | None, unit: str = "bytes") -> None: ...


def ignore(stage: str, done: int, total: int | None, unit: str = "bytes") -> None:
    """For callers that nobody watches."""
