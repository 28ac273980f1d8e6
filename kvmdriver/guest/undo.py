"""Taking back what an operation has done when it fails half-way."""

import contextlib
import logging
from collections.abc import Callable, Iterator
from typing import Any

LOG = logging.getLogger(__name__)


class Undo:
    """The steps to take back, last one first; one that fails is logged and the rest goes on."""

    def __init__(self, stack: contextlib.ExitStack):
        self._stack = stack

    def add(self, step: Callable[..., Any], *args: Any) -> None:
        """Take ``step`` if the operation fails after this point."""

        def carefully() -> None:
            try:
                step(*args)
            except Exception:
                LOG.exception("could not take back a step; the next reconciliation tries again")

        self._stack.callback(carefully)


@contextlib.contextmanager
def undo_on_failure() -> Iterator[Undo]:
    """An operation: what was registered is taken back if the body raises, else forgotten."""
    with contextlib.ExitStack() as stack:
        yield Undo(stack)
        stack.pop_all()
