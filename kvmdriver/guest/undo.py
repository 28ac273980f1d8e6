"""Undoing what an operation has done when the operation fails half-way."""

import contextlib
import logging
from collections.abc import Callable, Iterator
from typing import Any

LOG = logging.getLogger(__name__)


class Undo:
    """Steps to undo, last one first. A step that fails is logged, and the others are still taken."""

    def __init__(self, stack: contextlib.ExitStack):
        self._stack = stack

    def add(self, step: Callable[..., Any], *args: Any) -> None:
        """Register a step that is taken if the operation fails after this point."""

        def carefully() -> None:
            try:
                step(*args)
            except Exception:
                LOG.exception("could not take back a step; the next reconciliation tries again")

        self._stack.callback(carefully)


@contextlib.contextmanager
def undo_on_failure() -> Iterator[Undo]:
    """Take the registered steps if the body raises; forget them otherwise."""
    with contextlib.ExitStack() as stack:
        yield Undo(stack)
        stack.pop_all()
