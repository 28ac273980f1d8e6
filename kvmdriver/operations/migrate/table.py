"""The migrations that this process has in hand or has ended of late."""

import contextlib
import dataclasses
import threading
from collections import OrderedDict
from collections.abc import Iterator

from kvmdriver.model import MigrationPolicy, MigrationView
from kvmdriver.model.migration import ENDED

_REMEMBERED = 64


@dataclasses.dataclass
class Wishes:
    """What an operator wants of a running migration; whoever watches it carries it out."""

    policy: MigrationPolicy
    abort: bool = False
    force: bool = False


class MigrationTable:
    """The latest view of each migration, and the wishes for those that run. Thread-safe."""

    def __init__(self) -> None:
        # set when there may be something to recover, now or later
        self.activity = threading.Event()
        self._lock = threading.Lock()
        self._views: OrderedDict[str, MigrationView] = OrderedDict()
        self._wishes: dict[str, Wishes] = {}

    def begin(self, view: MigrationView, policy: MigrationPolicy) -> Wishes:
        """A migration begins, or is taken up again by another process than began it."""
        wishes = Wishes(policy=policy)
        with self._lock:
            self._wishes[view.id] = wishes
        self.put(view)
        return wishes

    def put(self, view: MigrationView) -> None:
        with self._lock:
            self._views[view.id] = view
            self._views.move_to_end(view.id)
            if view.state in ENDED:
                self._wishes.pop(view.id, None)
            for identity in list(self._views):
                if len(self._views) <= _REMEMBERED:
                    break
                if identity not in self._wishes:
                    del self._views[identity]

    def end(self, identity: str) -> None:
        """Nobody here works on a migration any more; what is left of it is to be recovered."""
        with self._lock:
            self._wishes.pop(identity, None)
        self.activity.set()

    @contextlib.contextmanager
    def in_hand(self, identity: str) -> Iterator[None]:
        """The body works on a migration that has begun; however it ends, nobody does afterwards."""
        try:
            yield
        finally:
            self.end(identity)

    def views(self) -> list[MigrationView]:
        """All of them, the latest last."""
        with self._lock:
            return list(self._views.values())

    def find(self, identity: str) -> MigrationView | None:
        with self._lock:
            return self._views.get(identity)

    def wishes(self, identity: str) -> Wishes | None:
        """None for a migration that nobody here watches."""
        with self._lock:
            return self._wishes.get(identity)
