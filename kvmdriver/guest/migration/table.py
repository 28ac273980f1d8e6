"""The migrations that this process works on, or has ended lately."""

import contextlib
import dataclasses
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator

from kvmdriver.model import MigrationPolicy, MigrationView
from kvmdriver.model.migration import ENDED

_REMEMBERED = 64
# Seconds between two notifications of nothing but other numbers.
_PAUSE = 1.0


@dataclasses.dataclass
class Wishes:
    """What an operator wants of a running migration. The thread that watches it carries that out."""

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
        self._subscribers: list[Callable[[MigrationView], None]] = []
        self._told: dict[str, float] = {}

    def subscribe(self, subscriber: Callable[[MigrationView], None]) -> None:
        """Register a function that gets each changed view, and others at most once a second.

        It is called by whoever works on the migration, and must not wait.
        """
        self._subscribers.append(subscriber)

    def begin(self, view: MigrationView, policy: MigrationPolicy) -> Wishes:
        """Note that this process works on a migration: a new one, or one that another process began."""
        wishes = Wishes(policy=policy)
        with self._lock:
            self._wishes[view.id] = wishes
        self.put(view)
        return wishes

    def put(self, view: MigrationView) -> None:
        """Replace the view of a migration."""
        with self._lock:
            news = self._is_news(self._views.get(view.id), view)
            self._views[view.id] = view
            self._views.move_to_end(view.id)
            if view.state in ENDED:
                self._wishes.pop(view.id, None)
            for identity in list(self._views):
                if len(self._views) <= _REMEMBERED:
                    break
                if identity not in self._wishes:
                    del self._views[identity]
        for subscriber in self._subscribers if news else ():
            subscriber(view)

    def _is_news(self, before: MigrationView | None, view: MigrationView) -> bool:
        now = time.monotonic()
        same = before is not None and (
            (before.state, before.decisions) == (view.state, view.decisions)
        )
        if same and (view.state in ENDED or now - self._told.get(view.id, 0) < _PAUSE):
            return False
        self._told[view.id] = now
        if view.state in ENDED:
            del self._told[view.id]
        return True

    def end(self, identity: str) -> None:
        """Note that this process has stopped work on a migration; recovery ends what is left of it."""
        with self._lock:
            self._wishes.pop(identity, None)
        self.activity.set()

    @contextlib.contextmanager
    def in_hand(self, identity: str) -> Iterator[None]:
        """Count a migration as worked on during the body, however the body ends."""
        try:
            yield
        finally:
            self.end(identity)

    def views(self) -> list[MigrationView]:
        """Return the views of all migrations, the latest last."""
        with self._lock:
            return list(self._views.values())

    def find(self, identity: str) -> MigrationView | None:
        with self._lock:
            return self._views.get(identity)

    def wishes(self, identity: str) -> Wishes | None:
        """Return what an operator wants of a migration; None if no thread here watches it."""
        with self._lock:
            return self._wishes.get(identity)
